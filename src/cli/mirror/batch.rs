//! Changes gathered into transactions: whole revisions, as many as fit, each key at most once. A revision that
//! fits into none is cut, and the mark of each part says how much of it is there.

use std::collections::HashSet;
use std::mem;

use super::mark::Position;
use super::message::{Bytes, Operation};

/// Bytes of keys and values in one transaction, unless a single one is larger: well below what servers take.
pub const BATCH_SIZE_MAX: usize = 512 << 10;

/// A transaction without its mark.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// What is done.
    pub operations: Vec<T>,
    /// How far that brings the destination.
    pub position: Position,
}

/// Gathers operations.
#[derive(Debug)]
pub struct Gathering {
    /// Operations of one transaction, without the mark.
    count_max: usize,
    operations: Vec<Operation>,
    keys: HashSet<Bytes>,
    size: usize,
    position: Option<Position>,
}

impl Gathering {
    /// Nothing yet; `count_max` is at least 1.
    pub fn new(count_max: usize) -> Self {
        Self { count_max, operations: Vec::new(), keys: HashSet::new(), size: 0, position: None }
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Takes what has been gathered; none if there is nothing.
    pub fn take(&mut self) -> Option<Batch<Operation>> {
        self.keys.clear();
        self.size = 0;
        let operations = mem::take(&mut self.operations);
        let position = self.position.take()?;
        (!operations.is_empty()).then_some(Batch { operations, position })
    }

    fn has_room(&self, operations: &[Operation]) -> bool {
        let size: usize = operations.iter().map(Operation::size).sum();
        let mut keys = HashSet::new();
        self.operations.len() + operations.len() <= self.count_max
            && (self.size + size <= BATCH_SIZE_MAX || self.is_empty() && operations.len() == 1)
            && operations.iter().all(|operation| {
                !self.keys.contains(operation.key()) && keys.insert(operation.key())
            })
    }

    fn push(&mut self, operations: Vec<Operation>, position: Position) {
        for operation in operations {
            self.size += operation.size();
            self.keys.insert(operation.key().clone());
            self.operations.push(operation);
        }
        self.position = Some(position);
    }

    /// Adds the changes of a revision, of which the first `done` are there; a change without an operation is one
    /// that is not mirrored. What does not fit beside it comes out as transactions.
    pub fn add(
        &mut self,
        revision: i64,
        changes: Vec<Option<Operation>>,
        done: u64,
    ) -> Vec<Batch<Operation>> {
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        let mut full = Vec::new();
        let whole: Vec<Operation> = changes.iter().skip(done).flatten().cloned().collect();
        if whole.is_empty() {
            return full;
        }
        if !self.has_room(&whole) {
            full.extend(self.take());
        }
        if self.has_room(&whole) {
            self.push(whole, Position::Revision(revision));
            return full;
        }
        for (index, change) in changes.into_iter().enumerate().skip(done) {
            let Some(change) = change else { continue };
            if !self.has_room(std::slice::from_ref(&change)) {
                full.extend(self.take());
            }
            let count = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
            self.push(vec![change], Position::Within(revision, count));
        }
        self.position = Some(Position::Revision(revision));
        full
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn put(key: &str, size: usize) -> Option<Operation> {
        let key = Bytes(key.as_bytes().to_vec());
        Some(Operation::Put { key, value: Bytes(vec![b'x'; size]) })
    }

    fn shown(batch: &Batch<Operation>) -> (usize, Position) {
        (batch.operations.len(), batch.position)
    }

    #[test]
    fn revisions_share_a_transaction_until_it_is_full() {
        let mut gathering = Gathering::new(3);
        assert!(gathering.add(2, vec![put("a", 1)], 0).is_empty());
        assert!(gathering.add(3, vec![put("b", 1), None], 0).is_empty());
        let full = gathering.add(5, vec![put("c", 1), put("d", 1)], 0);
        assert_eq!(full.iter().map(shown).collect::<Vec<_>>(), [(2, Position::Revision(3))]);
        assert_eq!(shown(&gathering.take().unwrap()), (2, Position::Revision(5)));
        assert!(gathering.take().is_none());
    }

    #[test]
    fn a_key_changes_once_in_a_transaction() {
        let mut gathering = Gathering::new(9);
        assert!(gathering.add(2, vec![put("a", 1)], 0).is_empty());
        let full = gathering.add(3, vec![put("b", 1), put("a", 1)], 0);
        assert_eq!(full.iter().map(shown).collect::<Vec<_>>(), [(1, Position::Revision(2))]);
        let full = gathering.add(4, vec![put("c", 1), put("c", 2)], 0);
        let expected = [(2, Position::Revision(3)), (1, Position::Within(4, 1))];
        assert_eq!(full.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!(shown(&gathering.take().unwrap()), (1, Position::Revision(4)));
    }

    #[test]
    fn a_revision_larger_than_a_transaction_is_cut_and_taken_up_again() {
        let changes = || vec![put("a", 1), None, put("b", 1), put("c", 1)];
        let mut gathering = Gathering::new(2);
        let full = gathering.add(7, changes(), 0);
        assert_eq!(full.iter().map(shown).collect::<Vec<_>>(), [(2, Position::Within(7, 3))]);
        assert_eq!(shown(&gathering.take().unwrap()), (1, Position::Revision(7)));
        assert!(gathering.add(7, changes(), 3).is_empty());
        assert_eq!(shown(&gathering.take().unwrap()), (1, Position::Revision(7)));
        // Large values part as well, and one that is too large for all others goes alone.
        let changes = vec![put("a", BATCH_SIZE_MAX), put("b", 1), put("c", 1)];
        let mut gathering = Gathering::new(9);
        let full = gathering.add(8, changes, 0);
        assert_eq!(full.iter().map(shown).collect::<Vec<_>>(), [(1, Position::Within(8, 1))]);
        assert_eq!(shown(&gathering.take().unwrap()), (2, Position::Revision(8)));
    }
}
