//! A union of ranges of keys: which keys a list of operations deletes.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use crate::keys::{End, Interval};

/// A place between keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Edge<'c> {
    /// Before the key, or, if true, right behind it.
    Key(&'c [u8], bool),
    /// Behind every key.
    End,
}

/// A set of keys as ranges that do not overlap, by their first edges.
#[derive(Clone, Default, Debug)]
pub(crate) struct Union<'c> {
    ranges: BTreeMap<Edge<'c>, Edge<'c>>,
}

impl<'c> Union<'c> {
    /// Ranges that the set is made of.
    pub fn ranges_count(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set has `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        let at = Edge::Key(key, false);
        self.ranges.range(..=at).next_back().is_some_and(|(_, end)| at < *end)
    }

    /// Adds the keys of `interval`.
    pub fn insert(&mut self, interval: &Interval<'c>) {
        let start = Edge::Key(interval.start, false);
        let end = match interval.end {
            End::Single => Edge::Key(interval.start, true),
            End::Before(end) => Edge::Key(end, false),
            End::Open => Edge::End,
        };
        self.insert_edges(start, end);
    }

    fn insert_edges(&mut self, mut start: Edge<'c>, mut end: Edge<'c>) {
        if start >= end {
            return;
        }
        if let Some((&before, &reach)) = self.ranges.range(..start).next_back()
            && reach >= start
        {
            self.ranges.remove(&before);
            start = before;
            end = end.max(reach);
        }
        while let Some((&inside, &reach)) = self.ranges.range(start..=end).next() {
            self.ranges.remove(&inside);
            end = end.max(reach);
        }
        self.ranges.insert(start, end);
    }

    /// Takes one key out.
    pub fn remove(&mut self, key: &'c [u8]) {
        let at = Edge::Key(key, false);
        let Some((&start, &end)) = self.ranges.range(..=at).next_back() else {
            return;
        };
        if at >= end {
            return;
        }
        self.ranges.remove(&start);
        self.insert_edges(start, at);
        self.insert_edges(Edge::Key(key, true), end);
    }

    /// Adds the keys of `other`; costs as much as `other` is large.
    pub fn absorb(&mut self, other: Self) {
        for (start, end) in other.ranges {
            self.insert_edges(start, end);
        }
    }

    /// The ranges as bounds for a search among keys.
    pub fn bounds(&self) -> impl Iterator<Item = (Bound<&'c [u8]>, Bound<&'c [u8]>)> + '_ {
        self.ranges.iter().map(|(start, end)| {
            let start = match *start {
                Edge::Key(key, false) => Bound::Included(key),
                Edge::Key(key, true) => Bound::Excluded(key),
                Edge::End => Bound::Unbounded,
            };
            let end = match *end {
                Edge::Key(key, false) => Bound::Excluded(key),
                Edge::Key(key, true) => Bound::Included(key),
                Edge::End => Bound::Unbounded,
            };
            (start, end)
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use base::Prng;

    use super::*;
    use crate::keys::Span;

    /// Against a set of every key of two letters, with random ranges and holes.
    #[test]
    fn a_union_has_exactly_the_keys_put_in_and_not_taken_out() {
        let letter = |n: u64| b'a' + u8::try_from(n).unwrap();
        let keys: Vec<[u8; 2]> = (0..25).map(|n| [letter(n / 5), letter(n % 5)]).collect();
        let mut prng = Prng::new(3);
        for _ in 0..2_000 {
            let mut union = Union::default();
            let mut model = [false; 25];
            for _ in 0..prng.below(12) {
                let key = &keys[usize::try_from(prng.below(25)).unwrap()];
                let other = &keys[usize::try_from(prng.below(25)).unwrap()];
                let range_end: &[u8] = match prng.below(4) {
                    0 => b"",
                    1 => b"\0",
                    _ => other,
                };
                if prng.one_in(3) {
                    union.remove(key);
                    model[keys.iter().position(|k| k == key).unwrap()] = false;
                } else {
                    let interval = Interval::new(key, range_end);
                    union.insert(&interval);
                    let span = Span::new(&interval);
                    for (key, set) in keys.iter().zip(&mut model) {
                        *set |= span.contains(key);
                    }
                }
            }
            for (key, set) in keys.iter().zip(model) {
                assert_eq!(union.contains(key), set, "{key:?} in {union:?}");
            }
        }
    }
}
