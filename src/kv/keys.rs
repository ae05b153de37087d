//! How the data model maps to tree keys: which tree holds what, event keys, and ranges of user keys.
//!
//! ```text
//! tree 0  current   key: the user key, 1 to 2,048 bytes
//! tree 1  events    key: revision u64 | sub u32, big endian, so that key order is order of time
//! tree 2, 3  clients and their order (clients.rs)
//! tree 4, 5, 6  leases, their keys, their deadlines (lease.rs)
//! ```
//!
//! A range of user keys follows etcd: no range end is one key, a range end of one zero byte is every
//! key from the first on, and a range end at or before the key is empty.

use alloc::vec::Vec;

use base::Revision;
use base::limits::KEY_SIZE_MAX;
use tree::{KeyRange, TreeId};

/// User key -> its newest version.
pub(crate) const CURRENT: TreeId = TreeId(0);

/// (revision, sub) -> the event, with the version that it replaced.
pub(crate) const EVENTS: TreeId = TreeId(1);

/// Bytes of an event key.
pub(crate) const EVENT_KEY_SIZE: usize = 12;

/// A point in the history of the store: the state before the event (revision, sub) and behind every
/// event that comes earlier.
///
/// The state at revision R is the point (R + 1, 0). Several changes of one key inside one revision are
/// legal, so a revision alone does not name a state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Point {
    /// The revision of the event.
    pub revision: Revision,
    /// The position of the event among the changes of its revision, from 0.
    pub sub: u32,
}

impl Point {
    /// The state at `revision`, all of its changes included.
    pub(crate) const fn at(revision: Revision) -> Self {
        Self { revision: revision.next(), sub: 0 }
    }

    /// The point before the first change of `revision`.
    pub(crate) const fn before(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }

    /// The key of the event in the events tree.
    pub(crate) fn key(self) -> [u8; EVENT_KEY_SIZE] {
        let mut key = [0; EVENT_KEY_SIZE];
        key[..8].copy_from_slice(&self.revision.get().to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The point of an event key; none if the bytes are not one.
    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        let key: &[u8; EVENT_KEY_SIZE] = key.try_into().ok()?;
        let (revision, sub) = key.split_first_chunk::<8>()?;
        let sub: [u8; 4] = sub.try_into().ok()?;
        Some(Self {
            revision: Revision::new(u64::from_be_bytes(*revision)),
            sub: u32::from_be_bytes(sub),
        })
    }

    /// The point behind this event.
    pub(crate) fn next(self) -> Self {
        let sub = self.sub.checked_add(1).expect("a revision has fewer than 2^32 changes");
        Self { sub, ..self }
    }
}

/// Where a range of user keys ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End<'a> {
    /// The range is the one key it begins with.
    Single,
    /// Every key from the first on.
    Open,
    /// Up to but without this key.
    Before(&'a [u8]),
}

/// A range of user keys as a request names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interval<'a> {
    /// The first key.
    pub start: &'a [u8],
    /// Where it ends.
    pub end: End<'a>,
}

impl<'a> Interval<'a> {
    /// The range that `key` and `range_end` of a request mean.
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end),
        };
        Self { start: key, end }
    }
}

/// What is left of a range of user keys, owned, so that a walk over it can go on in a later turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// The least key that is left.
    pub start: Vec<u8>,
    /// The first key behind; none: to the end.
    pub end: Option<Vec<u8>>,
    /// Whether it began as one key: a search instead of a walk.
    pub single: bool,
}

impl Span {
    /// The whole of `interval`.
    pub fn new(interval: &Interval<'_>) -> Self {
        let start = clip(interval.start);
        match interval.end {
            End::Single => Self { start, end: Some(Vec::new()), single: true },
            End::Open => Self { start, end: None, single: false },
            End::Before(end) => Self { start, end: Some(clip(end)), single: false },
        }
    }

    /// The range as the tree takes it; none when it is empty. Not for a single key.
    pub fn keys(&self) -> Option<KeyRange<'_>> {
        let end = self.end.as_deref();
        let empty = end.is_some_and(|end| self.start.as_slice() >= end);
        (!empty).then_some(KeyRange { start: &self.start, end })
    }

    /// Whether `key` is in what is left.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.single {
            return key == self.start;
        }
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Goes on at `key`, from the least key upwards.
    pub fn start_at(&mut self, key: &[u8]) {
        self.start.clear();
        self.start.extend_from_slice(key);
    }

    /// Goes on behind `key`, from the least key upwards.
    pub fn start_behind(&mut self, key: &[u8]) {
        self.start_at(key);
        self.start.push(0);
    }

    /// Goes on below `key`, from the greatest key downwards.
    pub fn end_before(&mut self, key: &[u8]) {
        let end = self.end.get_or_insert_default();
        end.clear();
        end.extend_from_slice(key);
    }

    /// Goes on at `key`, from the greatest key downwards.
    pub fn end_behind(&mut self, key: &[u8]) {
        self.end_before(key);
        self.end.get_or_insert_default().push(0);
    }
}

/// A bound of any length as one of at most `KEY_SIZE_MAX + 1` bytes that separates the same keys: a
/// key is no longer than `KEY_SIZE_MAX`, so it lies behind a longer bound exactly when it lies behind
/// that bound's first `KEY_SIZE_MAX` bytes.
fn clip(bound: &[u8]) -> Vec<u8> {
    if bound.len() <= KEY_SIZE_MAX {
        return bound.to_vec();
    }
    let mut clipped = Vec::with_capacity(KEY_SIZE_MAX + 1);
    clipped.extend_from_slice(&bound[..KEY_SIZE_MAX]);
    clipped.push(0);
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_keys_sort_by_time_and_decode() {
        let a = Point { revision: Revision::new(255), sub: u32::MAX };
        let b = Point { revision: Revision::new(256), sub: 0 };
        assert!(a.key() < b.key());
        assert_eq!(Point::from_key(&a.key()), Some(a));
        assert_eq!(Point::from_key(b"short"), None);
        assert_eq!(Point::at(Revision::new(255)), b);
    }

    #[test]
    fn ranges_follow_the_rules_of_range_end() {
        let has = |key: &[u8], range_end: &[u8], wanted: &[u8]| {
            Span::new(&Interval::new(key, range_end)).contains(wanted)
        };
        assert!(has(b"a", b"", b"a") && !has(b"a", b"", b"aa"));
        assert!(has(b"a", b"\0", b"zzz") && has(b"\0", b"\0", b"\0"));
        assert!(has(b"a", b"c", b"b\xff") && !has(b"a", b"c", b"c"));
        assert!(!has(b"c", b"a", b"b") && !has(b"a", b"\0\0", b"b"));
        assert!(Span::new(&Interval::new(b"c", b"a")).keys().is_none());
        assert!(Span::new(&Interval::new(b"a", b"a")).keys().is_none());
    }

    #[test]
    fn clipped_bounds_separate_the_same_keys() {
        let mut bound = alloc::vec![b'k'; KEY_SIZE_MAX + 3];
        let longest = alloc::vec![b'k'; KEY_SIZE_MAX];
        let mut above = longest.clone();
        above[KEY_SIZE_MAX - 1] = b'l';
        for last in [0, b'k', 255] {
            bound[KEY_SIZE_MAX] = last;
            let clipped = clip(&bound);
            for key in [&longest, &above] {
                assert_eq!(*key < bound, *key < clipped);
            }
        }
    }
}
