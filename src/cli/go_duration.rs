//! Spans of time as Go writes them: `10m`, `1h30m`, `1.5s`, `250ms`; a number needs a unit, unless it is 0.

use std::time::Duration;

/// Units by their names, in nanoseconds.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
];

/// The span that `text` stands for; none if that is negative or no span.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    loop {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let unit_at = rest.find(|c| !is_number(c))?;
        let (number, behind) = rest.split_at(unit_at);
        let unit_end = behind.find(is_number).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let seconds = number.parse::<f64>().ok()? * nanos / 1e9;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = behind;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, millis) in
            [("10m", 600_000), ("1h1m1.5s", 3_661_500), ("250ms", 250), ("1000us", 1), ("0", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "-5s", "5 s", "s", "1.2.3s", "99999999999999999999h", "5d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
