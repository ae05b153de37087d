//! How a server that is started as etcd is logs: `--log-level`, `--log-format`, `--log-outputs`.

use std::path::Path;

use server::log::{Format, Level, Options, Sink};

use super::etcd::refuse;
use super::etcd_flags::Given;
use super::failure::Failure;

/// Logs as the flags say from now on.
///
/// # Errors
/// They say nothing that makes sense, or name a file that cannot be written.
pub fn set(given: &Given) -> Result<(), Failure> {
    server::log::set(options(given)?);
    Ok(())
}

fn options(given: &Given) -> Result<Options, Failure> {
    let least = match given.get("log-level") {
        "debug" => Level::Debug,
        "" | "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "dpanic" | "panic" | "fatal" => Level::Never,
        level => {
            return refuse(format!(
                "--log-level={level}: say debug, info, warn, error, panic or fatal"
            ));
        }
    };
    let format = match given.get("log-format") {
        "" | "json" => Format::Json,
        "console" => Format::Console,
        format => return refuse(format!("--log-format={format}: say json or console")),
    };
    if given.get("logger") != "zap" {
        return refuse(format!("--logger={}: zap is the only one", given.get("logger")));
    }
    let outputs: Vec<&str> = given.get("log-outputs").split(',').map(str::trim).collect();
    if outputs.len() > 1 && outputs.contains(&"default") {
        return refuse("--log-outputs: default stands alone; say stderr".into());
    }
    let sinks = outputs.into_iter().map(sink).collect::<Result<_, _>>()?;
    Ok(Options { format, least, sinks })
}

fn sink(output: &str) -> Result<Sink, Failure> {
    match output {
        "" | "default" | "stderr" | "systemd/journal" => Ok(Sink::Stderr),
        "stdout" => Ok(Sink::Stdout),
        path => Sink::file(Path::new(path)).map_err(|error| {
            Failure::Arguments(format!("--log-outputs={path} cannot be written: {error}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn given(line: &str) -> Result<Options, String> {
        let arguments = line.split_whitespace().map(str::to_owned);
        let given = Given::new(arguments, []).map_err(|mistake| mistake.to_string())?;
        options(&given).map_err(|failure| failure.to_string())
    }

    #[test]
    fn level_format_and_outputs_are_what_they_say() {
        let default = given("").unwrap();
        assert_eq!((default.format, default.least), (Format::Json, Level::Info));
        assert!(matches!(default.sinks[..], [Sink::Stderr]));
        let line = "--log-level=error --log-format console --log-outputs stdout,/dev/null,stderr";
        let options = given(line).unwrap();
        assert_eq!((options.format, options.least), (Format::Console, Level::Error));
        assert!(matches!(options.sinks[..], [Sink::Stdout, Sink::File(_), Sink::Stderr]));
        for (line, said) in [
            ("--log-level loud", "say one of debug"),
            ("--log-format=xml", "say json or console"),
            ("--log-outputs=default,stdout", "default stands alone"),
            ("--log-outputs=/no/such/folder/x", "cannot be written"),
            ("--logger capnslog", "zap is the only one"),
        ] {
            let error = given(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
