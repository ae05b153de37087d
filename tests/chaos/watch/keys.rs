//! The keys of a run: all of them are known before it begins, so that a key is a number and a range of keys
//! a range of numbers.

use std::ops::Range;

/// The number of a key, in the order of the keys.
pub type KeyId = u32;

/// A range of keys as requests name it: the first key and the end.
pub type Named = (Vec<u8>, Vec<u8>);

/// Keys that are put, deleted, and put in transactions.
const PLAIN: usize = 160;

/// Keys that also go in ranges.
const SWEPT: usize = 160;

/// Keys that hang on leases.
const LEASED: usize = 240;

/// Keys that are put with a time to live.
const TIMED: usize = 120;

/// Keys of the transaction with large values.
pub const LARGE: usize = 24;

/// The keys.
#[derive(Clone, Debug)]
pub struct Keys(Vec<Vec<u8>>);

impl Default for Keys {
    fn default() -> Self {
        let groups = [("a/", PLAIN), ("b/", SWEPT), ("l/", LEASED), ("t/", TIMED), ("x/", LARGE)];
        let group = |(prefix, count): (&str, usize)| {
            let prefix = prefix.to_owned();
            (0..count).map(move |number| format!("{prefix}{number:03}").into_bytes())
        };
        Self(groups.into_iter().flat_map(group).collect())
    }
}

impl Keys {
    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("there are some hundreds")
    }

    /// The number of a key, if it is one of them.
    pub fn id(&self, key: &[u8]) -> Option<KeyId> {
        let place = self.0.binary_search_by(|known| known.as_slice().cmp(key)).ok()?;
        u32::try_from(place).ok()
    }

    /// A key.
    pub fn key(&self, id: KeyId) -> &[u8] {
        &self.0[usize::try_from(id).expect("a key has 32 bits")]
    }

    /// The first key that is not less.
    fn from(&self, key: &[u8]) -> KeyId {
        let place = self.0.partition_point(|known| known.as_slice() < key);
        u32::try_from(place).expect("there are some hundreds")
    }

    /// The keys of a range.
    pub fn span(&self, (key, end): &Named) -> Range<KeyId> {
        let from = self.from(key);
        match end.as_slice() {
            b"" => from..from + u32::from(self.id(key).is_some()),
            b"\0" => from..self.count(),
            end => from..self.from(end).max(from),
        }
    }

    /// The keys that begin so.
    pub fn group(&self, prefix: &str) -> Range<KeyId> {
        self.span(&(prefix.into(), client::prefix_end(prefix.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_requests_are_ranges_of_numbers() {
        let keys = Keys::default();
        assert!(keys.0.is_sorted());
        let named = |key: &str, end: &str| (key.into(), end.into());
        let all = 0..keys.count();
        assert_eq!(keys.span(&named("\0", "\0")), all);
        assert_eq!(keys.span(&named("a/000", "")), 0..1);
        assert_eq!(keys.span(&named("a/001x", "")), 2..2);
        assert_eq!(keys.span(&named("a/001", "a/004")), 1..4);
        assert_eq!(keys.span(&named("b/001", "a/004")).len(), 0);
        assert_eq!(keys.group("x/"), keys.count() - 24..keys.count());
        assert!(all.into_iter().all(|id| keys.id(keys.key(id)) == Some(id)));
    }
}
