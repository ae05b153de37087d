//! The end of the log in memory: what is not committed yet, and before it the entries that peers may
//! still want.
//!
//! ```text
//!        before             handed out                 last
//!   ──────┤ kept for peers ...  ┼ not committed ........ ┤
//! ```
//!
//! A peer that is behind is a position in here, never a queue of its own. Entries share their frames
//! with the store, so keeping one costs no copy.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::{Frame, Hash128, LogIndex, Term, Ticket};
use wal::Position;

/// What an entry takes in memory beside its frame.
const ENTRY_SIZE: usize = size_of::<Kept>();

/// An entry of the log in memory.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Position in the log.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: Term,
    /// The number of its kind in the log.
    pub kind: u8,
    /// The payload.
    pub frame: Frame,
    /// The log chain hash behind it.
    pub hash: Hash128,
    /// Who waits for the outcome.
    pub ticket: Option<Ticket>,
}

impl Kept {
    /// Where the entry is.
    pub fn position(&self) -> Position {
        Position { index: self.index, term: self.term, hash: self.hash }
    }

    fn size(&self) -> usize {
        self.frame.len() + ENTRY_SIZE
    }
}

/// The entries in memory, contiguous.
#[derive(Debug)]
pub struct Tail {
    /// The entry before the first one here.
    before: Position,
    entries: VecDeque<Kept>,
    /// How many of them, from the front, have been handed to the store.
    handed_out: usize,
    /// Bytes of those that have.
    kept_size: usize,
}

impl Tail {
    /// An empty tail behind `before`.
    pub fn new(before: Position) -> Self {
        Self { before, entries: VecDeque::new(), handed_out: 0, kept_size: 0 }
    }

    /// The tail of a log after recovery: `recent` has been applied, `pending` not.
    pub fn restored(before: Position, recent: VecDeque<Kept>, pending: Vec<Kept>) -> Self {
        let handed_out = recent.len();
        let kept_size = recent.iter().map(Kept::size).sum();
        let mut tail = Self { before, entries: recent, handed_out, kept_size };
        for entry in pending {
            tail.push(entry);
        }
        tail
    }

    /// The entry before the first one here.
    pub fn before(&self) -> Position {
        self.before
    }

    /// The last entry.
    pub fn last(&self) -> Position {
        self.entries.back().map_or(self.before, Kept::position)
    }

    /// The entries that are not committed.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = &Kept> {
        self.entries.range(self.handed_out..)
    }

    /// Whether everything here has been handed to the store.
    pub fn is_handed_out(&self) -> bool {
        self.handed_out == self.entries.len()
    }

    /// Bytes of the entries that have been handed out and are still here.
    pub fn kept_size(&self) -> usize {
        self.kept_size
    }

    /// Takes an entry that follows the last one.
    pub fn push(&mut self, entry: Kept) {
        let last = self.last();
        assert!(entry.index == last.index.next(), "{} behind {}", entry.index, last.index);
        self.entries.push_back(entry);
    }

    fn place(&self, index: LogIndex) -> Option<usize> {
        if index <= self.before.index {
            return None;
        }
        let place = usize::try_from(self.before.index.next().distance_to(index)).ok()?;
        (place < self.entries.len()).then_some(place)
    }

    /// The entry at `index`, if it is here.
    pub fn get(&self, index: LogIndex) -> Option<&Kept> {
        self.entries.get(self.place(index)?)
    }

    /// The position at `index`, that of the entry before the first included.
    pub fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.before.index {
            return Some(self.before);
        }
        self.get(index).map(Kept::position)
    }

    /// The entries behind `previous`, as far as they are here.
    pub fn behind(&self, previous: LogIndex) -> impl Iterator<Item = &Kept> {
        let from = if previous < self.before.index {
            self.entries.len()
        } else {
            usize::try_from(self.before.index.distance_to(previous)).unwrap_or(usize::MAX)
        };
        self.entries.range(from.min(self.entries.len())..)
    }

    /// Cuts off the entries from `first` on, none of which has been handed out.
    pub fn cut(&mut self, first: LogIndex) {
        let Some(place) = self.place(first) else { return };
        assert!(place >= self.handed_out, "entry {first} is committed and was cut off");
        self.entries.truncate(place);
    }

    /// Who waits for what is not committed, with its position and size; nobody does any more.
    pub fn take_waiting(&mut self) -> Vec<(Position, Ticket, usize)> {
        let pending = self.entries.range_mut(self.handed_out..);
        let waiting = pending.filter_map(|entry| {
            let ticket = entry.ticket.take()?;
            Some((entry.position(), ticket, entry.frame.len()))
        });
        waiting.collect()
    }

    /// Hands out the entries up to `index`. They stay for peers if `keep` says so.
    pub fn commit(&mut self, index: LogIndex, keep: bool) -> Vec<Kept> {
        let end = match self.place(index) {
            Some(place) => place + 1,
            None if index > self.before.index => self.entries.len(),
            None => return Vec::new(),
        };
        if end <= self.handed_out {
            return Vec::new();
        }
        if !keep && self.handed_out == 0 {
            if let Some(last) = self.entries.get(end - 1) {
                self.before = last.position();
            }
            return self.entries.drain(..end).collect();
        }
        let mut committed = Vec::with_capacity(end - self.handed_out);
        for entry in self.entries.range_mut(self.handed_out..end) {
            self.kept_size += entry.size();
            committed.push(entry.clone());
            entry.ticket = None;
        }
        self.handed_out = end;
        committed
    }

    /// Drops entries that have been handed out, oldest first, down to `size_max` bytes of them; those
    /// behind `pinned` only beyond `pinned_size_max`.
    pub fn shrink(&mut self, size_max: usize, pinned: Option<(LogIndex, usize)>) {
        while self.kept_size > size_max && self.handed_out > 0 {
            if pinned
                .is_some_and(|(index, max)| self.before.index >= index && self.kept_size <= max)
            {
                return;
            }
            let Some(entry) = self.entries.pop_front() else { return };
            self.kept_size -= entry.size();
            self.handed_out -= 1;
            self.before = entry.position();
        }
    }

    /// A snapshot took the place of all of it.
    pub fn restart(&mut self, before: Position) {
        *self = Self::new(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, size: usize) -> Kept {
        Kept {
            index: LogIndex::new(index),
            term: Term::new(1),
            kind: 1,
            frame: Frame::copy_from_slice(&alloc::vec![0; size]),
            hash: Hash128::ZERO,
            ticket: None,
        }
    }

    fn tail(count: u64) -> Tail {
        let mut tail = Tail::new(Position::ORIGIN);
        for index in 1..=count {
            tail.push(entry(index, 100));
        }
        tail
    }

    fn indices(entries: &[Kept]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index.get()).collect()
    }

    #[test]
    fn what_is_kept_is_handed_out_once_and_served_to_peers_until_it_is_dropped() {
        let mut tail = tail(5);
        assert_eq!(indices(&tail.commit(LogIndex::new(3), true)), [1, 2, 3]);
        assert_eq!(indices(&tail.commit(LogIndex::new(3), true)), [] as [u64; 0]);
        assert_eq!(indices(&tail.commit(LogIndex::new(9), true)), [4, 5]);
        assert_eq!(tail.behind(LogIndex::new(2)).count(), 3);
        tail.shrink(2 * (100 + ENTRY_SIZE), Some((LogIndex::new(1), 4 * (100 + ENTRY_SIZE))));
        assert_eq!(tail.before().index, LogIndex::new(1), "the rest is pinned");
        tail.shrink(2 * (100 + ENTRY_SIZE), None);
        assert_eq!(tail.before().index, LogIndex::new(3));
        assert_eq!(tail.behind(LogIndex::new(2)).count(), 0, "the entry behind it is gone");
        assert_eq!(tail.behind(LogIndex::new(3)).count(), 2);
        assert_eq!(tail.position(LogIndex::new(3)).map(|p| p.index), Some(LogIndex::new(3)));
        assert_eq!(tail.position(LogIndex::new(2)), None);
    }

    #[test]
    fn without_peers_nothing_is_kept() {
        let mut tail = tail(5);
        assert_eq!(indices(&tail.commit(LogIndex::new(4), false)), [1, 2, 3, 4]);
        assert_eq!(tail.before().index, LogIndex::new(4));
        assert!(!tail.is_handed_out());
        assert_eq!(tail.behind(LogIndex::new(4)).count(), 1);
    }

    #[test]
    fn a_cut_takes_only_what_is_not_committed() {
        let mut tail = tail(5);
        tail.commit(LogIndex::new(2), true);
        tail.cut(LogIndex::new(4));
        assert_eq!(tail.last().index, LogIndex::new(3));
        tail.push(entry(4, 1));
        assert_eq!(indices(&tail.commit(LogIndex::new(4), true)), [3, 4]);
    }
}
