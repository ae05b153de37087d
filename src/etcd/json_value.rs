//! A JSON text as a tree that keeps what messages are refused for: a name that stands twice.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Integers up to this one are exact where a number is written with a point or an exponent.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Digits of the longest number that is worth looking at.
const DIGITS_MAX: usize = 40;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Parsed {
    Null,
    Bool(bool),
    Integer(i128),
    /// A number that is no integer, or one that may not be exact.
    Fraction(f64),
    Text(String),
    List(Vec<Parsed>),
    /// Names in their order; some may stand twice.
    Object(Vec<(String, Parsed)>),
}

impl Parsed {
    /// It as an integer: a number, or a string that is one, with a point and an exponent too.
    pub fn integer<T: TryFrom<i128>>(&self) -> Option<T> {
        let wide = match self {
            Self::Integer(number) => *number,
            Self::Text(text) => decimal(text)?,
            _ => return None,
        };
        T::try_from(wide).ok()
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The integer that a number of JSON says.
fn decimal(text: &str) -> Option<i128> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let number = is_digits(digits).then(|| exponent.parse::<i32>().ok())?;
            (mantissa, i64::from(number?))
        }
        None => (unsigned, 0),
    };
    let (whole, part) = match mantissa.split_once('.') {
        Some((whole, part)) => (whole, is_digits(part).then_some(part)?),
        None => (mantissa, ""),
    };
    let is_padded = whole.len() > 1 && whole.starts_with('0');
    if !is_digits(whole) || is_padded || mantissa.len() > DIGITS_MAX {
        return None;
    }
    let mut digits: String = [whole, part].concat();
    let mut behind_point = i64::try_from(part.len()).ok()? - exponent;
    if digits.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    while behind_point > 0 && digits.ends_with('0') {
        digits.pop();
        behind_point -= 1;
    }
    let missing = usize::try_from(-behind_point).ok()?;
    if missing > DIGITS_MAX {
        return None;
    }
    digits.extend(core::iter::repeat_n('0', missing));
    let number: i128 = digits.parse().ok()?;
    Some(if is_negative { -number } else { number })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// For refusals: the beginning of it as JSON, more or less.
impl fmt::Display for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(is_true) => write!(f, "{is_true}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Fraction(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("[...]"),
            Self::Object(_) => f.write_str("{...}"),
        }
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        let exact = (-EXACT_MAX..=EXACT_MAX).contains(&value);
        let integer = exact.then(|| format!("{value}").parse().ok()).flatten();
        Ok(integer.map_or(Parsed::Fraction(value), Parsed::Integer))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Parsed, E> {
        Ok(Parsed::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            list.push(member);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Parsed, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = members.next_entry()? {
            fields.push(field);
        }
        Ok(Parsed::Object(fields))
    }
}
