//! Sizes in bytes as a person writes them: `4096`, `64k`, `1.5MiB`, `2g`.
//!
//! Units are powers of 1,024, in either case, with or without `B` or `iB` behind them.

/// Why a text is no size.
#[derive(Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Not a number with a known unit.
    Syntax(String),
    /// Too large for 64 bits, or not a whole number of bytes.
    Range(String),
}

impl std::fmt::Display for SizeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax(text) => {
                write!(f, "\"{text}\" is not a size; write it like 4096, 64KiB, 1.5MiB or 2GiB")
            }
            Self::Range(text) => {
                write!(f, "the size \"{text}\" is not a whole number of bytes below 2^64")
            }
        }
    }
}

impl std::error::Error for SizeError {}

/// The bytes that `text` stands for.
///
/// # Errors
/// The text is no size.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let syntax = || SizeError::Syntax(text.to_owned());
    let range = || SizeError::Range(text.to_owned());
    let trimmed = text.trim();
    let unit_at = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(unit_at);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(syntax()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') || fraction.contains('.') {
        return Err(syntax());
    }
    let whole: u128 = whole.parse().map_err(|_| range())?;
    let mut bytes = whole.checked_mul(1 << shift).ok_or_else(range)?;
    if !fraction.is_empty() {
        // Twelve decimals of a tebibyte still name less than a byte.
        let digits = u32::try_from(fraction.len()).ok().filter(|count| *count <= 12);
        let divisor = 10_u128.pow(digits.ok_or_else(range)?);
        let part: u128 = fraction.parse().map_err(|_| syntax())?;
        let part = part << shift;
        if !part.is_multiple_of(divisor) {
            return Err(range());
        }
        bytes += part / divisor;
    }
    u64::try_from(bytes).map_err(|_| range())
}

/// `bytes` for a person: `1.5 MiB`.
pub fn display(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut shift = 10;
    while unit + 1 < UNITS.len() && bytes >> (shift + 10) > 0 {
        unit += 1;
        shift += 10;
    }
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{SizeError, display, parse};

    #[test]
    fn sizes_are_read_in_every_customary_spelling() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("512B", 512),
            ("64k", 65_536),
            ("64 KiB", 65_536),
            ("1.5MiB", 3 << 19),
            ("1.5m", 3 << 19),
            ("2g", 2 << 30),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "k", "-1", "1x", "1.", ".5k", "1.2.3k", "1 2", "0x10", "１"] {
            assert!(matches!(parse(text), Err(SizeError::Syntax(_))), "{text}");
        }
        let huge = "9".repeat(60);
        for text in ["18446744073709551616", "99999999t", "0.3", "1.00000000000001g", &huge] {
            assert!(matches!(parse(text), Err(SizeError::Range(_))), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        assert_eq!(display(1_023), "1023 B");
        assert_eq!(display(1_024), "1.0 KiB");
        assert_eq!(display(3 << 19), "1.5 MiB");
        assert_eq!(display(u64::MAX), "16777215.9 TiB");
    }
}
