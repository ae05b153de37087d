//! Ranges of keys, and which of them a key lies in: a treap by where ranges begin, in which every node
//! knows which range below it ends last.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Prng;

/// Where a range ends: before a key, or never.
pub type End = Option<Arc<[u8]>>;

/// No node.
const NONE: u32 = u32::MAX;

struct Node {
    start: Arc<[u8]>,
    end: End,
    value: u32,
    priority: u32,
    left: u32,
    right: u32,
    /// The node at or below this one whose range ends last.
    last: u32,
}

/// Ranges, each with a number. No two are the same.
pub struct Intervals {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    prng: Prng,
    stack: Vec<u32>,
}

/// Whether a range that ends at `a` ends before one that ends at `b`.
fn ends_before(a: &End, b: &End) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

impl Intervals {
    /// No ranges.
    pub fn new() -> Self {
        let (nodes, free, stack) = (Vec::new(), Vec::new(), Vec::new());
        Self { nodes, free, root: NONE, prng: Prng::new(1), stack }
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[usize::try_from(at).expect("an index fits usize")]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[usize::try_from(at).expect("an index fits usize")]
    }

    /// Whether the range of a node comes before another one in order.
    fn precedes(&self, at: u32, start: &[u8], end: &End) -> bool {
        let node = self.node(at);
        match (*node.start).cmp(start) {
            core::cmp::Ordering::Less => true,
            core::cmp::Ordering::Greater => false,
            core::cmp::Ordering::Equal => ends_before(&node.end, end),
        }
    }

    /// The number of this range, if it is here.
    pub fn get(&self, start: &[u8], end: &End) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            let node = self.node(at);
            if *node.start == *start && node.end == *end {
                return Some(node.value);
            }
            at = if self.precedes(at, start, end) { node.right } else { node.left };
        }
        None
    }

    /// Notes anew which range below a node ends last.
    fn update(&mut self, at: u32) {
        let node = self.node(at);
        let mut last = at;
        for child in [node.left, node.right] {
            if child != NONE {
                let below = self.node(child).last;
                if ends_before(&self.node(last).end, &self.node(below).end) {
                    last = below;
                }
            }
        }
        self.node_mut(at).last = last;
    }

    /// Those that come before a range, and the others. As deep as the treap.
    fn split(&mut self, at: u32, start: &[u8], end: &End) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.precedes(at, start, end) {
            let (low, high) = self.split(self.node(at).right, start, end);
            self.node_mut(at).right = low;
            self.update(at);
            (at, high)
        } else {
            let (low, high) = self.split(self.node(at).left, start, end);
            self.node_mut(at).left = high;
            self.update(at);
            (low, at)
        }
    }

    /// One of two, all of the first before all of the second. As deep as the treap.
    fn merge(&mut self, low: u32, high: u32) -> u32 {
        match (low, high) {
            (NONE, at) | (at, NONE) => at,
            _ if self.node(low).priority > self.node(high).priority => {
                let right = self.merge(self.node(low).right, high);
                self.node_mut(low).right = right;
                self.update(low);
                low
            }
            _ => {
                let left = self.merge(low, self.node(high).left);
                self.node_mut(high).left = left;
                self.update(high);
                high
            }
        }
    }

    /// Adds a range that is not here, with its number.
    pub fn insert(&mut self, start: Arc<[u8]>, end: End, value: u32) {
        let priority = u32::try_from(self.prng.below(1 << 32)).expect("32 bits");
        let (low, high) = self.split(self.root, &start, &end);
        let node = Node { start, end, value, priority, left: NONE, right: NONE, last: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                *self.node_mut(at) = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("ranges are far below 2^32")
            }
        };
        self.update(at);
        let low = self.merge(low, at);
        self.root = self.merge(low, high);
    }

    /// Takes a range out that is here.
    pub fn remove(&mut self, start: &[u8], end: &End) {
        let (low, high) = self.split(self.root, start, end);
        // It is the first of the others.
        let (taken, high) = self.take_first(high);
        self.root = self.merge(low, high);
        if taken != NONE {
            let empty: Arc<[u8]> = Arc::from([].as_slice());
            let node = self.node_mut(taken);
            (node.start, node.end) = (empty, None);
            self.free.push(taken);
        }
    }

    /// The first node, and the others. As deep as the treap.
    fn take_first(&mut self, at: u32) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        let left = self.node(at).left;
        if left == NONE {
            return (at, self.node(at).right);
        }
        let (taken, rest) = self.take_first(left);
        self.node_mut(at).left = rest;
        self.update(at);
        (taken, at)
    }

    /// Tells the number of every range that `key` lies in.
    pub fn find(&mut self, key: &[u8], tell: &mut dyn FnMut(u32)) {
        let mut stack = core::mem::take(&mut self.stack);
        stack.push(self.root);
        while let Some(at) = stack.pop() {
            if at == NONE {
                continue;
            }
            let node = self.node(at);
            let behind = |end: &End| end.as_ref().is_some_and(|end| **end <= *key);
            if behind(&self.node(node.last).end) {
                continue;
            }
            stack.push(node.left);
            if *node.start <= *key {
                if !behind(&node.end) {
                    tell(node.value);
                }
                stack.push(node.right);
            }
        }
        self.stack = stack;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_key_lies_in_the_ranges_that_a_list_says() {
        let mut prng = Prng::new(3);
        let mut intervals = Intervals::new();
        let mut list: Vec<(Arc<[u8]>, End, u32)> = Vec::new();
        let mut found_any = 0;
        for round in 0..20_000_u32 {
            let mut key = |longest: u64| -> Arc<[u8]> {
                let size = 1 + prng.below(longest);
                (0..size).map(|_| b'a' + u8::try_from(prng.below(4)).expect("small")).collect()
            };
            let (start, end) = (key(3), key(3));
            let end = if prng.one_in(10) { None } else { Some(end) };
            let there = list.iter().position(|(s, e, _)| *s == start && *e == end);
            assert_eq!(intervals.get(&start, &end), there.map(|place| list[place].2));
            match there {
                Some(place) if prng.one_in(2) => {
                    intervals.remove(&start, &end);
                    list.swap_remove(place);
                }
                Some(_) => {}
                None if list.len() < 200 || prng.one_in(2) => {
                    intervals.insert(start.clone(), end.clone(), round);
                    list.push((start, end, round));
                }
                None => {}
            }
            let probe: Vec<u8> = vec![b'a' + u8::try_from(prng.below(5)).expect("small"); 2];
            let mut found = Vec::new();
            intervals.find(&probe, &mut |value| found.push(value));
            let mut expected: Vec<u32> = list
                .iter()
                .filter(|(s, e, _)| **s <= *probe && e.as_ref().is_none_or(|e| *probe < **e))
                .map(|(_, _, value)| *value)
                .collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
            found_any += found.len();
        }
        assert!(found_any > 1_000);
    }
}
