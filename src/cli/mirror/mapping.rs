//! Which key of the source becomes which key of the destination.

use client::prefix_end;

use super::mark::MARKS;
use super::message::{Bytes, Range};

/// Keys that begin with one prefix, and the prefix that stands in its place.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// At the source.
    pub from: Vec<u8>,
    /// At the destination.
    pub to: Vec<u8>,
}

impl Mapping {
    /// The key of the destination; none: it is not mirrored.
    pub fn map(&self, key: &[u8]) -> Option<Bytes> {
        let rest = key.strip_prefix(self.from.as_slice())?;
        if key.starts_with(MARKS) {
            return None;
        }
        let mapped = [self.to.as_slice(), rest].concat();
        (!mapped.starts_with(MARKS)).then_some(Bytes(mapped))
    }

    /// What a copy compares it by: the key without its prefix.
    pub fn rest_there<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.strip_prefix(self.to.as_slice()).unwrap_or(key)
    }

    /// True if what is written there would be read here again, both being one store.
    pub fn is_circular(&self) -> bool {
        self.from.starts_with(&self.to) || self.to.starts_with(&self.from)
    }
}

/// All keys that begin with a prefix.
pub fn all(prefix: &[u8]) -> Range {
    let key = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
    Range { key: Bytes(key), range_end: Bytes(prefix_end(prefix)), ..Range::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced_and_marks_stay_where_they_are() {
        let mapping = Mapping { from: b"a/".to_vec(), to: b"b/".to_vec() };
        assert_eq!(mapping.map(b"a/x"), Some(Bytes(b"b/x".to_vec())));
        assert_eq!(mapping.map(b"c/x"), None);
        let whole = Mapping { from: vec![], to: vec![] };
        assert_eq!(whole.map(b"quorate/mirror/a"), None);
        assert_eq!(whole.map(b"quorate/x"), Some(Bytes(b"quorate/x".to_vec())));
        let into = Mapping { from: vec![], to: b"quorate/".to_vec() };
        assert_eq!(into.map(b"mirror/x"), None);
        assert!(whole.is_circular() && into.is_circular() && !mapping.is_circular());
    }
}
