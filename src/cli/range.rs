//! The arguments that name a key or a range of keys, as get, del and txn have them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use super::failure::Failure;

/// A key, or which keys from it on.
#[derive(Clone, Debug, Args)]
pub struct RangeArguments {
    /// Key, or first key of a range
    pub key: OsString,
    /// First key behind the range
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub end: Option<OsString>,
    /// All keys that begin with KEY; all keys there are if it is empty
    #[arg(long, conflicts_with = "from_key")]
    pub prefix: bool,
    /// All keys from KEY on; all keys there are if it is empty
    #[arg(long)]
    pub from_key: bool,
}

/// The two keys that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The key, or the first one.
    pub key: Vec<u8>,
    /// Empty: one key; a zero byte: no end; else the first key behind the range.
    pub range_end: Vec<u8>,
}

impl RangeArguments {
    /// What they stand for.
    ///
    /// # Errors
    /// One key, and it is empty.
    pub fn range(&self) -> Result<KeyRange, Failure> {
        let key = self.key.as_bytes().to_vec();
        let first = |key: Vec<u8>| if key.is_empty() { vec![0] } else { key };
        let range = if self.prefix {
            let range_end = client::prefix_end(&key);
            KeyRange { key: first(key), range_end }
        } else if self.from_key {
            KeyRange { key: first(key), range_end: vec![0] }
        } else {
            let range_end = self.end.as_ref().map(|end| end.as_bytes().to_vec());
            KeyRange { key, range_end: range_end.unwrap_or_default() }
        };
        if range.key.is_empty() {
            return Err(Failure::Arguments(
                "the key is empty; give one, or --prefix or --from-key for all keys".into(),
            ));
        }
        Ok(range)
    }
}

/// A lease id as the command line has it.
///
/// # Errors
/// The text is no hexadecimal number of 64 bits.
pub fn parse_lease(text: &str) -> Result<i64, String> {
    let id = u64::from_str_radix(text, 16);
    id.map(u64::cast_signed).map_err(|error| {
        format!("{error}; a lease is named by its id as `lease grant` and `lease list` print it, 1 to 16 \
                 hexadecimal digits")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, end: Option<&str>, prefix: bool, from_key: bool) -> Option<KeyRange> {
        let end = end.map(OsString::from);
        RangeArguments { key: key.into(), end, prefix, from_key }.range().ok()
    }

    fn keys(key: &[u8], range_end: &[u8]) -> Option<KeyRange> {
        Some(KeyRange { key: key.to_vec(), range_end: range_end.to_vec() })
    }

    #[test]
    fn flags_become_the_range_that_the_protocol_wants() {
        assert_eq!(range("k", None, false, false), keys(b"k", b""));
        assert_eq!(range("a", Some("z"), false, false), keys(b"a", b"z"));
        assert_eq!(range("a/", None, true, false), keys(b"a/", b"a0"));
        assert_eq!(range("", None, true, false), keys(b"\0", b"\0"));
        assert_eq!(range("m", None, false, true), keys(b"m", b"\0"));
        assert_eq!(range("", None, false, true), keys(b"\0", b"\0"));
        assert_eq!(range("", None, false, false), None);
    }
}
