//! Spans of time as a person writes them: `5s`, `500ms`, `1m30s`; a bare number is seconds.

use std::time::Duration;

use super::failure::Failure;

/// The text is no span of time.
#[derive(Debug, PartialEq, Eq)]
pub struct TimeSpanError(String);

impl std::fmt::Display for TimeSpanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" is not a span of time; write it like 5s, 500ms or 1m30s", self.0)
    }
}

impl std::error::Error for TimeSpanError {}

/// The span that `text` stands for.
///
/// # Errors
/// The text is no span of time.
pub fn parse(text: &str) -> Result<Duration, TimeSpanError> {
    parse_parts(text.trim()).ok_or_else(|| TimeSpanError(text.to_owned()))
}

/// The time of a lease, in the milliseconds that the protocol wants.
///
/// # Errors
/// It is 0.
pub fn milliseconds(span: Duration) -> Result<u64, Failure> {
    if span.is_zero() {
        return Err(Failure::Arguments("a lease needs more than 0 time; give it like 10s".into()));
    }
    Ok(u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// The span as text: whole seconds as such, anything else in milliseconds.
pub fn show(span: Duration) -> String {
    match span.subsec_millis() {
        0 => format!("{}s", span.as_secs()),
        _ => format!("{}ms", span.as_millis()),
    }
}

fn parse_parts(text: &str) -> Option<Duration> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if !text.is_empty() && text.chars().all(is_number) {
        return span(text, 1.0);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    loop {
        let unit_at = rest.find(|c| !is_number(c))?;
        let (number, behind) = rest.split_at(unit_at);
        let unit_end = behind.find(is_number).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let seconds = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            _ => return None,
        };
        total = total.checked_add(span(number, seconds)?)?;
        rest = behind;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

fn span(number: &str, seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn spans_are_read_with_and_without_units() {
        for (text, milliseconds) in
            [("5s", 5_000), ("500ms", 500), ("1m30s", 90_000), ("2", 2_000), ("0.25", 250)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", "s", "5x", "-1s", "1s2", "1.2.3s", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
