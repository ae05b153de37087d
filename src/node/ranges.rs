//! Ranges of keys, each with a number, and which of them a key lies in: single keys by a hash, the others in
//! a treap by where ranges begin, in which every node knows which range below it ends last.
//!
//! Half of the memory of a watch is that of its range, so the number of a range is its place in the one list
//! of ranges, tree and hash table hold nothing but numbers, and an end is kept only where it cannot be told
//! from the start: what has a prefix ends before the prefix with its last byte raised.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::BuildHasher;
use core::mem;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::bounds::{Bounds, Place};
use crate::pages::Pages;

/// No range.
const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<Range>() == 24, "there may be a million of them");

/// Where a range ends: before the key that is `head` and then `last`. In two parts, so that the end of a
/// prefix can be taken from its start.
#[derive(Clone, Copy, PartialEq, Eq)]
struct End<'k> {
    head: &'k [u8],
    last: u8,
}

impl<'k> End<'k> {
    /// Before a key, which is not empty.
    fn before(key: &'k [u8]) -> Option<Self> {
        key.split_last().map(|(last, head)| Self { head, last: *last })
    }

    /// The key `start` with its last byte raised, if that is possible.
    fn of_prefix(start: &'k [u8]) -> Option<Self> {
        let (last, head) = start.split_last()?;
        last.checked_add(1).map(|last| Self { head, last })
    }
}

impl Ord for End<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let common = self.head.len().min(other.head.len());
        let order = self.head[..common].cmp(&other.head[..common]);
        order.then_with(|| match (self.head.get(common), other.head.get(common)) {
            (None, None) => self.last.cmp(&other.last),
            // Who is shorter and the same so far comes first.
            (None, Some(byte)) => self.last.cmp(byte).then(Ordering::Less),
            (Some(byte), _) => byte.cmp(&other.last).then(Ordering::Greater),
        })
    }
}

impl PartialOrd for End<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a range is besides its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// The start alone.
    Single,
    /// All that begin with the start, whose last byte is not 0xff.
    Prefix,
    /// To an end that is kept.
    Span,
    /// Without an end.
    Open,
}

struct Range {
    /// Of its start and, in some shapes, its end.
    place: Place,
    left: u32,
    right: u32,
    /// The range at or below this one that ends last.
    last: u32,
    start_size: u16,
    shape: Shape,
}

fn start_of<'b>(range: &Range, bounds: &'b Bounds) -> &'b [u8] {
    &bounds.get(range.place)[..usize::from(range.start_size)]
}

/// The order of ends: none comes last.
fn by_end(a: Option<End<'_>>, b: Option<End<'_>>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Ranges, each with a number from 0. No two are the same.
pub struct Ranges {
    ranges: Pages<Range>,
    bounds: Bounds,
    free: Vec<u32>,
    /// Those of one key.
    keys: HashTable<u32>,
    /// The treap of the others.
    root: u32,
    /// Its seed is not known outside: clients choose keys, and must not be able to choose how deep the treap
    /// is. What is found does not depend on it, only the order in which that is told.
    hasher: DefaultHashBuilder,
    stack: Vec<u32>,
}

impl Ranges {
    /// No ranges.
    pub fn new() -> Self {
        Self {
            ranges: Pages::new(),
            bounds: Bounds::new(),
            free: Vec::new(),
            keys: HashTable::new(),
            root: NONE,
            hasher: DefaultHashBuilder::default(),
            stack: Vec::new(),
        }
    }

    fn range(&self, at: u32) -> &Range {
        &self.ranges[at]
    }

    fn range_mut(&mut self, at: u32) -> &mut Range {
        &mut self.ranges[at]
    }

    fn start(&self, at: u32) -> &[u8] {
        start_of(self.range(at), &self.bounds)
    }

    /// The end of a range; none: there is none.
    fn end(&self, at: u32) -> Option<End<'_>> {
        let range = self.range(at);
        match range.shape {
            Shape::Single | Shape::Open => None,
            Shape::Prefix => End::of_prefix(self.start(at)),
            Shape::Span => {
                End::before(&self.bounds.get(range.place)[usize::from(range.start_size)..])
            }
        }
    }

    fn ends_behind(&self, at: u32, key: &[u8]) -> bool {
        self.end(at).is_none_or(|end| End::before(key).is_none_or(|key| key < end))
    }

    /// The number of a range that is not empty, as requests name it. It is taken in if it is not here.
    pub fn number(&mut self, start: &[u8], range_end: &[u8]) -> u32 {
        let (shape, end) = match range_end {
            [] => (Shape::Single, None),
            [0] => (Shape::Open, None),
            end => {
                let end = End::before(end);
                (if end == End::of_prefix(start) { Shape::Prefix } else { Shape::Span }, end)
            }
        };
        let known = match shape {
            Shape::Single => self.single(start),
            Shape::Prefix | Shape::Span | Shape::Open => self.lookup(start, end),
        };
        if let Some(number) = known {
            return number;
        }
        let kept = if shape == Shape::Span { range_end } else { &[] };
        let number = self.free.pop().unwrap_or_else(|| self.ranges.len());
        let range = Range {
            place: self.bounds.add(number, start, kept),
            left: NONE,
            right: NONE,
            last: NONE,
            start_size: u16::try_from(start.len()).expect("keys are bounded"),
            shape,
        };
        match self.ranges.get_mut(number) {
            Some(unused) => *unused = range,
            None => self.ranges.push(range),
        }
        if shape == Shape::Single {
            let Self { keys, ranges, bounds, hasher, .. } = self;
            let hash = |number: &u32| hasher.hash_one(start_of(&ranges[*number], bounds));
            keys.insert_unique(hasher.hash_one(start), number, hash);
        } else {
            self.update(number);
            let (low, high) = self.split(self.root, number);
            let low = self.merge(low, number);
            self.root = self.merge(low, high);
        }
        number
    }

    /// Takes a range out.
    pub fn remove(&mut self, number: u32) {
        if self.range(number).shape == Shape::Single {
            let hash = self.hasher.hash_one(self.start(number));
            let entry = self.keys.find_entry(hash, |other| *other == number);
            entry.expect("a single key has an entry").remove();
        } else {
            self.root = self.without(self.root, number);
        }
        let Self { ranges, bounds, .. } = self;
        let place = ranges[number].place;
        bounds.remove(place, &mut |moved, place| ranges[moved].place = place);
        self.free.push(number);
    }

    /// Start and end of a range, as requests name them.
    pub fn bounds(&self, number: u32) -> (Vec<u8>, Vec<u8>) {
        let end = match self.range(number).shape {
            Shape::Single => Vec::new(),
            Shape::Open => [0].into(),
            Shape::Prefix | Shape::Span => {
                let end = self.end(number).expect("it has one");
                [end.head, &[end.last]].concat()
            }
        };
        (self.start(number).into(), end)
    }

    /// Tells the number of every range that `key` lies in.
    pub fn find(&mut self, key: &[u8], tell: &mut dyn FnMut(u32)) {
        if let Some(number) = self.single(key) {
            tell(number);
        }
        let mut stack = mem::take(&mut self.stack);
        stack.push(self.root);
        while let Some(at) = stack.pop() {
            if at == NONE {
                continue;
            }
            let range = self.range(at);
            if !self.ends_behind(range.last, key) {
                continue;
            }
            stack.push(range.left);
            if self.start(at) <= key {
                if self.ends_behind(at, key) {
                    tell(at);
                }
                stack.push(range.right);
            }
        }
        self.stack = stack;
    }

    fn single(&self, key: &[u8]) -> Option<u32> {
        if self.keys.is_empty() {
            return None;
        }
        let is_same = |number: &u32| self.start(*number) == key;
        self.keys.find(self.hasher.hash_one(key), is_same).copied()
    }

    fn lookup(&self, start: &[u8], end: Option<End<'_>>) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            at = match self.start(at).cmp(start).then_with(|| by_end(self.end(at), end)) {
                Ordering::Less => self.range(at).right,
                Ordering::Greater => self.range(at).left,
                Ordering::Equal => return Some(at),
            };
        }
        None
    }

    /// Whether a range comes before another one in the order of the treap.
    fn precedes(&self, at: u32, other: u32) -> bool {
        let order = self.start(at).cmp(self.start(other));
        order.then_with(|| by_end(self.end(at), self.end(other))) == Ordering::Less
    }

    /// Notes anew which range below one ends last.
    fn update(&mut self, at: u32) {
        let range = self.range(at);
        let mut last = at;
        for child in [range.left, range.right] {
            if child != NONE {
                let below = self.range(child).last;
                if by_end(self.end(last), self.end(below)) == Ordering::Less {
                    last = below;
                }
            }
        }
        self.range_mut(at).last = last;
    }

    /// Those that come before a range, and the others. As deep as the treap.
    fn split(&mut self, at: u32, number: u32) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.precedes(at, number) {
            let (low, high) = self.split(self.range(at).right, number);
            self.range_mut(at).right = low;
            self.update(at);
            (at, high)
        } else {
            let (low, high) = self.split(self.range(at).left, number);
            self.range_mut(at).left = high;
            self.update(at);
            (low, at)
        }
    }

    /// One of two, all of the first before all of the second. As deep as the treap.
    fn merge(&mut self, low: u32, high: u32) -> u32 {
        match (low, high) {
            (NONE, at) | (at, NONE) => at,
            _ if self.hasher.hash_one(low) > self.hasher.hash_one(high) => {
                let right = self.merge(self.range(low).right, high);
                self.range_mut(low).right = right;
                self.update(low);
                low
            }
            _ => {
                let left = self.merge(low, self.range(high).left);
                self.range_mut(high).left = left;
                self.update(high);
                high
            }
        }
    }

    /// What is at and below `at`, without a range that is there. As deep as the treap.
    fn without(&mut self, at: u32, number: u32) -> u32 {
        let Range { left, right, .. } = *self.range(at);
        if at == number {
            return self.merge(left, right);
        }
        if self.precedes(at, number) {
            let right = self.without(right, number);
            self.range_mut(at).right = right;
        } else {
            let left = self.without(left, number);
            self.range_mut(at).left = left;
        }
        self.update(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use base::Prng;

    use super::*;

    /// As requests name a range.
    type Named = (Vec<u8>, Vec<u8>);

    fn lies_in((start, end): &Named, key: &[u8]) -> bool {
        match end.as_slice() {
            [] => key == start,
            [0] => key >= start.as_slice(),
            end => key >= start.as_slice() && key < end,
        }
    }

    #[test]
    fn a_key_lies_in_the_ranges_that_a_list_says() {
        const BYTES: [u8; 6] = [0, 1, b'a', b'b', 0xfe, 0xff];
        let mut prng = Prng::new(3);
        let mut ranges = Ranges::new();
        let mut list: Vec<(Named, u32)> = Vec::new();
        let mut found_any = 0;
        for _ in 0..40_000_u32 {
            let mut key = |longest: u64| -> Vec<u8> {
                let size = 1 + prng.below(longest);
                (0..size).map(|_| BYTES[usize::try_from(prng.below(6)).expect("small")]).collect()
            };
            let (start, mut end, probe) = (key(3), key(3), key(4));
            match prng.below(10) {
                0 => end = Vec::new(),
                1 => end = vec![0],
                2..6 if start.ends_with(&[0xff]) => end = vec![0],
                2..6 => {
                    end.clone_from(&start);
                    *end.last_mut().expect("not empty") += 1;
                }
                _ => {}
            }
            if !matches!(end.as_slice(), [] | [0]) && end <= start {
                continue;
            }
            let range = (start, end);
            let place = list.iter().position(|(other, _)| *other == range);
            match place {
                Some(place) if prng.one_in(2) => {
                    ranges.remove(list.swap_remove(place).1);
                }
                Some(place) => assert_eq!(ranges.number(&range.0, &range.1), list[place].1),
                None if list.len() < 200 || prng.one_in(2) => {
                    let number = ranges.number(&range.0, &range.1);
                    assert!(list.iter().all(|(_, other)| *other != number));
                    assert_eq!(ranges.bounds(number), range);
                    list.push((range, number));
                }
                None => {
                    let place = prng.below(u64::try_from(list.len()).expect("small"));
                    ranges.remove(list.swap_remove(usize::try_from(place).expect("small")).1);
                }
            }
            let mut found = Vec::new();
            ranges.find(&probe, &mut |number| found.push(number));
            let mut expected: Vec<u32> = list
                .iter()
                .filter(|(range, _)| lies_in(range, &probe))
                .map(|(_, number)| *number)
                .collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
            found_any += found.len();
        }
        assert!(found_any > 1_000);
    }

    #[test]
    fn ends_in_two_parts_are_in_the_order_of_whole_keys() {
        const BYTES: [u8; 4] = [0, b'a', b'b', 0xff];
        let mut prng = Prng::new(4);
        for _ in 0..10_000 {
            let mut key = || -> Vec<u8> {
                let size = 1 + prng.below(4);
                (0..size).map(|_| BYTES[usize::try_from(prng.below(4)).expect("small")]).collect()
            };
            let (a, b) = (key(), key());
            assert_eq!(End::before(&a).cmp(&End::before(&b)), a.cmp(&b), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn the_treap_stays_flat_whatever_the_order_of_the_keys() {
        fn depth(ranges: &Ranges, at: u32) -> u32 {
            if at == NONE {
                return 0;
            }
            let range = ranges.range(at);
            1 + depth(ranges, range.left).max(depth(ranges, range.right))
        }
        for step in [1_u32, u32::MAX, 0x9E37_79B9] {
            let mut ranges = Ranges::new();
            for number in 0..10_000_u32 {
                let start = number.wrapping_mul(step).to_be_bytes();
                ranges.number(&start, &[0]);
            }
            let depth = depth(&ranges, ranges.root);
            assert!(depth < 100, "10,000 ranges are {depth} deep");
        }
    }
}
