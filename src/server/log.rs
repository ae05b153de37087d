//! What the server tells its operator: lines on standard error or where else it is told to, for people or as
//! JSON objects.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic::Location;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The program's name and the message.
    Plain,
    /// A JSON object with `level`, `ts`, `caller` and `msg`, as programs expect it that were made for etcd.
    Json,
    /// The same with tabs between, for people.
    Console,
}

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(File),
}

impl Sink {
    /// The end of the file at this path, which is made if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn file(path: &Path) -> io::Result<Self> {
        OpenOptions::new().append(true).create(true).open(path).map(Self::File)
    }

    fn write(&self, line: &[u8]) {
        // Where nobody reads there is nobody to be told.
        drop(match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Stdout => io::stdout().lock().write_all(line),
            // One call for a line: those of several threads do not mix.
            Self::File(file) => (&*file).write_all(line),
        });
    }
}

/// How the server logs.
#[derive(Debug)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// What matters less is not told.
    pub least: Level,
    /// Where they go: to all of these.
    pub sinks: Vec<Sink>,
}

/// As long as nobody has said otherwise.
static DEFAULT: Options = Options { format: Format::Plain, least: Level::Info, sinks: Vec::new() };

static OPTIONS: OnceLock<Options> = OnceLock::new();

/// Logs like this from now on; holds for the first call.
pub fn set(options: Options) {
    drop(OPTIONS.set(options));
}

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// For who looks for a cause.
    Debug,
    /// All is well.
    Info,
    /// Somebody should look at it.
    Warn,
    /// Something could not be done.
    Error,
    /// No line matters as much.
    Never,
}

/// Tells what helps to find a cause.
#[track_caller]
pub fn debug(message: impl Display) {
    write(Level::Debug, &message);
}

/// Tells that all is well, and what happens.
#[track_caller]
pub fn info(message: impl Display) {
    write(Level::Info, &message);
}

/// Tells what somebody should look at.
#[track_caller]
pub fn warn(message: impl Display) {
    write(Level::Warn, &message);
}

/// Tells what could not be done.
#[track_caller]
pub fn error(message: impl Display) {
    write(Level::Error, &message);
}

#[track_caller]
fn write(level: Level, message: &dyn Display) {
    let options = OPTIONS.get().unwrap_or(&DEFAULT);
    if level < options.least {
        return;
    }
    let (now, place) = (SystemTime::now(), Location::caller());
    let line = match options.format {
        Format::Plain => format!("quorate: {message}\n"),
        Format::Json => json(level, now, place, message),
        Format::Console => console(level, now, place, message),
    };
    if options.sinks.is_empty() {
        Sink::Stderr.write(line.as_bytes());
    }
    for sink in &options.sinks {
        sink.write(line.as_bytes());
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error | Self::Never => "error",
        }
    }
}

fn caller(place: &Location<'_>) -> String {
    let file = place.file().trim_start_matches("src/");
    format!("{file}:{}", place.line())
}

fn console(level: Level, now: SystemTime, place: &Location<'_>, message: &dyn Display) -> String {
    let (time, level, caller) = (timestamp(now), level.name().to_uppercase(), caller(place));
    // A line is a line.
    let message = message.to_string().replace('\n', "\\n");
    format!("{time}\t{level}\t{caller}\t{message}\n")
}

fn json(level: Level, now: SystemTime, place: &Location<'_>, message: &dyn Display) -> String {
    let (level, caller) = (level.name(), quoted(&caller(place)));
    let message = quoted(&message.to_string());
    let time = timestamp(now);
    format!("{{\"level\":\"{level}\",\"ts\":\"{time}\",\"caller\":{caller},\"msg\":{message}}}\n")
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// A time of the calendar in UTC (RFC 3339), with microseconds.
fn timestamp(time: SystemTime) -> String {
    // A clock before 1970 tells nothing anyway.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of a day counted from 1970-01-01 on. Years begin in March here, so that the leap day is
/// the last of one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    (year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let known = [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_780, (2026, 11, 23)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ];
        for (day, expected) in known {
            assert_eq!(date(day), expected, "{day}");
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_it_says() {
        let now = UNIX_EPOCH + Duration::from_micros(1_795_455_000_000_042);
        let line = json(Level::Warn, now, Location::caller(), &"a \"quoted\"\nline\u{1}");
        let rest = line.strip_prefix("{\"level\":\"warn\",\"ts\":\"2026-11-23T").expect(&line);
        assert!(rest.contains("30:00.000042Z\",\"caller\":\"server/log.rs:"), "{line}");
        let text = console(Level::Error, now, Location::caller(), &"two\nlines");
        let fields: Vec<&str> = text.split('\t').collect();
        assert!(fields[0].starts_with("2026-11-23T") && fields[2].starts_with("server/log.rs:"));
        assert_eq!((fields[1], fields[3]), ("ERROR", "two\\nlines\n"));
        assert!(rest.ends_with("\"msg\":\"a \\\"quoted\\\"\\nline\\u0001\"}\n"), "{line}");
    }
}
