//! `--auto-compaction-mode` and `--auto-compaction-retention`: what history a server keeps by itself.

use clap::ValueEnum;
use server::Retention;

use super::failure::Failure;
use super::time_span;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Time.
    Periodic,
    /// Revisions.
    Revision,
}

/// Shortest period. Less would make more entries of compactions than most have of anything else.
const PERIOD_MIN_MS: u64 = 1_000;

/// What the two flags say.
///
/// # Errors
/// They say nothing that makes sense.
pub fn parse(mode: Mode, text: &str) -> Result<Retention, Failure> {
    let text = text.trim();
    match mode {
        _ if text == "0" => Ok(Retention::Everything),
        Mode::Periodic => period(text),
        Mode::Revision => revisions(text),
    }
}

fn refuse(text: &str, why: &str) -> Failure {
    Failure::Arguments(format!("--auto-compaction-retention {text}: {why}"))
}

fn period(text: &str) -> Result<Retention, Failure> {
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // As in etcd.
    let span = if is_bare { format!("{text}h") } else { text.to_string() };
    let has_unit = span.ends_with(|end: char| !end.is_ascii_digit() && end != '.');
    let span = time_span::parse(&span).ok().filter(|_| has_unit).ok_or_else(|| {
        refuse(text, "no time; write it like 30s, 5m or 72h, or as a whole number of hours")
    })?;
    if span.is_zero() {
        return Ok(Retention::Everything);
    }
    let nanos = u64::try_from(span.as_nanos())
        .map_err(|_| refuse(text, "too long; give it at most 500 years, or 0 to keep all"))?;
    let period = server::Duration::from_nanos(nanos);
    if period.as_millis() < PERIOD_MIN_MS {
        return Err(refuse(text, "too short; give it at least 1s, or 0 to keep all"));
    }
    Ok(Retention::Period(period))
}

fn revisions(text: &str) -> Result<Retention, Failure> {
    match text.parse() {
        Ok(0) => Ok(Retention::Everything),
        Ok(count) => Ok(Retention::Revisions(count)),
        Err(_) => Err(refuse(
            text,
            "with --auto-compaction-mode revision give it a whole number of revisions, like 10000",
        )),
    }
}

#[cfg(test)]
mod tests {
    use server::{Duration, Retention};

    use super::{Mode, parse};

    #[test]
    fn retention_is_a_time_a_number_of_hours_or_a_number_of_revisions() {
        let seconds = |seconds: u64| Retention::Period(Duration::from_millis(seconds * 1_000));
        for (mode, text, retention) in [
            (Mode::Periodic, "0", Retention::Everything),
            (Mode::Periodic, "0s", Retention::Everything),
            (Mode::Periodic, "30s", seconds(30)),
            (Mode::Periodic, "1h30m", seconds(5_400)),
            (Mode::Periodic, "72h", seconds(72 * 3_600)),
            (Mode::Periodic, "5", seconds(5 * 3_600)),
            (Mode::Revision, "0", Retention::Everything),
            (Mode::Revision, "1000", Retention::Revisions(1_000)),
        ] {
            assert_eq!(parse(mode, text).ok(), Some(retention), "{mode:?} {text}");
        }
    }

    #[test]
    fn what_is_no_retention_is_refused_with_the_flag_and_the_value() {
        for (mode, text) in [
            (Mode::Periodic, ""),
            (Mode::Periodic, "-1h"),
            (Mode::Periodic, "0.5"),
            (Mode::Periodic, "20ms"),
            (Mode::Periodic, "5y"),
            (Mode::Periodic, "99999999h"),
            (Mode::Periodic, "99999999999999999999"),
            (Mode::Revision, "5m"),
            (Mode::Revision, "-1"),
            (Mode::Revision, "1.5"),
            (Mode::Revision, "99999999999999999999"),
        ] {
            let refused = parse(mode, text).expect_err(text).to_string();
            let named = format!("--auto-compaction-retention {text}: ");
            assert!(refused.contains(&named), "{mode:?}: {refused}");
        }
    }
}
