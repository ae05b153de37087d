//! The log as positions: its terms in runs, and how far it is durable and committed.
//!
//! Terms change rarely, so the whole log is a few runs ("term 7 from index 1200"). The bytes of the
//! entries are the WAL's.

use alloc::vec::Vec;
use base::{LogIndex, Term};

/// From `first` on, up to the next run, entries have `term`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermRun {
    /// Index of the first entry of the run.
    pub first: LogIndex,
    /// Term of its entries.
    pub term: Term,
}

/// The positions of a log. `last >= durable`, `last >= committed`; terms never fall along it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    runs: Vec<TermRun>,
    last: LogIndex,
    durable: LogIndex,
    committed: LogIndex,
}

impl Log {
    /// A log recovered from disk: all of it durable, committed as far as is known.
    ///
    /// `runs` are in order of index and of term and begin at or before every index that will be
    /// asked for.
    pub fn recovered(runs: Vec<TermRun>, last: LogIndex, committed: LogIndex) -> Self {
        assert!(committed <= last, "committed {committed:?} beyond the last entry {last:?}");
        for pair in runs.windows(2) {
            assert!(
                pair[0].first < pair[1].first && pair[0].term < pair[1].term,
                "term runs out of order: {pair:?}"
            );
        }
        Self { runs, last, durable: last, committed }
    }

    /// Index of the last entry, durable or not.
    pub fn last(&self) -> LogIndex {
        self.last
    }

    /// Term of the last entry; zero for an empty log.
    pub fn last_term(&self) -> Term {
        self.term_at(self.last)
    }

    /// Index up to which the log is durable here.
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Index up to which the log is known to be committed.
    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// Term of the entry at `index`, zero where the log does not reach.
    pub fn term_at(&self, index: LogIndex) -> Term {
        if index > self.last {
            return Term::ZERO;
        }
        self.runs.iter().rev().find(|run| run.first <= index).map_or(Term::ZERO, |run| run.term)
    }

    /// Appends `count` entries of `term`; returns the index of the first.
    pub fn append(&mut self, term: Term, count: u64) -> LogIndex {
        assert!(count > 0, "an append of no entries");
        let first = self.last.next();
        match self.runs.last() {
            Some(run) if run.term == term => {}
            Some(run) => {
                assert!(run.term < term, "append of {term:?} behind {:?}", run.term);
                self.runs.push(TermRun { first, term });
            }
            None => self.runs.push(TermRun { first, term }),
        }
        self.last = self.last.advance(count);
        first
    }

    /// The WAL says that all entries up to `index`, whose term is `term`, are durable. A completion
    /// that speaks of an entry that has been replaced since is ignored (the ABA race).
    pub fn advance_durable(&mut self, index: LogIndex, term: Term) {
        if self.term_at(index) == term && index > self.durable {
            self.durable = index;
        }
    }

    /// Moves the commit index forward.
    pub fn advance_committed(&mut self, index: LogIndex) {
        assert!(
            index >= self.committed,
            "commit index back from {:?} to {index:?}",
            self.committed
        );
        assert!(index <= self.last, "commit index {index:?} beyond the last entry {:?}", self.last);
        self.committed = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> LogIndex {
        LogIndex::new(index)
    }

    #[test]
    fn term_runs_answer_for_every_index() {
        let mut log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
        assert_eq!(log.append(Term::new(1), 3), at(1));
        assert_eq!(log.append(Term::new(4), 1), at(4));
        let terms: Vec<u64> = (0..6).map(|i| log.term_at(at(i)).get()).collect();
        assert_eq!(terms, [0, 1, 1, 1, 4, 0]);
    }

    #[test]
    fn a_completion_of_a_replaced_entry_does_not_move_durable() {
        let mut log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
        log.append(Term::new(2), 5);
        log.advance_durable(at(5), Term::new(1));
        assert_eq!(log.durable(), at(0));
        log.advance_durable(at(5), Term::new(2));
        log.advance_durable(at(3), Term::new(2));
        assert_eq!(log.durable(), at(5));
    }
}
