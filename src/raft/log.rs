//! The log as positions: its terms in runs, and how far it is durable and committed.
//!
//! ```text
//!      base          committed   durable         last
//!   ────┤ first ...      ┼ ......... ┼ .......... ┤        runs: term 3 from 9, term 5 from 40
//!   compacted
//! ```
//!
//! Terms change rarely, so the whole log is a few runs ("term 7 from index 1200"). The bytes of the
//! entries are the WAL's.

use alloc::vec::Vec;
use base::{LogIndex, Mutant, Term};

use crate::Position;

/// From `first` on, up to the next run, entries have `term`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TermRun {
    /// Index of the first entry of the run.
    pub first: LogIndex,
    /// Term of its entries.
    pub term: Term,
}

/// The positions of a log. `last >= durable`, `last >= committed`; terms never fall along it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Log {
    /// The entry before the first that is kept. Its term is zero where it is not known.
    base: Position,
    runs: Vec<TermRun>,
    last: LogIndex,
    durable: LogIndex,
    committed: LogIndex,
    /// How often entries have been cut off or replaced by a snapshot.
    era: u64,
}

impl Log {
    /// A log recovered from disk: all of it durable, committed as far as is known.
    ///
    /// `runs` are in order of index and of term and begin at or before every index that will be
    /// asked for.
    pub fn recovered(runs: Vec<TermRun>, last: LogIndex, committed: LogIndex) -> Self {
        let before = runs.first().map_or(last, |run| run.first.previous().unwrap_or_default());
        let base = Position { index: before, term: Term::ZERO };
        Self::restored(base, runs, last, committed)
    }

    /// A log recovered from disk that begins behind `base`, where the snapshot ends.
    pub fn restored(
        base: Position,
        runs: Vec<TermRun>,
        last: LogIndex,
        committed: LogIndex,
    ) -> Self {
        assert!(committed <= last, "committed {committed:?} beyond the last entry {last:?}");
        assert!(base.index <= last, "the snapshot {base:?} ends beyond the last entry {last:?}");
        let committed = committed.max(base.index);
        for pair in runs.windows(2) {
            assert!(
                pair[0].first < pair[1].first && pair[0].term < pair[1].term,
                "term runs out of order: {pair:?}"
            );
        }
        Self { base, runs, last, durable: last, committed, era: 0 }
    }

    /// The entry before the first that is kept.
    pub fn base(&self) -> Position {
        self.base
    }

    /// Index of the last entry, durable or not.
    #[inline]
    pub fn last(&self) -> LogIndex {
        self.last
    }

    /// Term of the last entry; zero for an empty log.
    #[inline]
    pub fn last_term(&self) -> Term {
        self.term_at(self.last)
    }

    /// Where the log ends.
    pub fn last_position(&self) -> Position {
        Position { index: self.last, term: self.last_term() }
    }

    /// Index up to which the log is durable here.
    #[inline]
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Index up to which the log is known to be committed.
    #[inline]
    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// How often entries have been cut off or replaced by a snapshot since the start. A write is of
    /// the era in which it was issued.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// The term runs of the entries that are kept.
    pub fn runs(&self) -> &[TermRun] {
        &self.runs
    }

    /// Term of the entry at `index`, zero where the log does not reach.
    #[inline]
    pub fn term_at(&self, index: LogIndex) -> Term {
        if index > self.last || index < self.base.index {
            return Term::ZERO;
        }
        let run = self.runs.iter().rev().find(|run| run.first <= index);
        run.map_or(self.base.term, |run| run.term)
    }

    /// Whether the entry at `position` is in this log. What was compacted was committed, and every
    /// leader that speaks of it has it.
    pub fn holds(&self, position: Position) -> bool {
        position.index < self.base.index
            || (position.index <= self.last && self.term_at(position.index) == position.term)
    }

    /// Appends `count` entries of `term`; returns the index of the first.
    #[inline]
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

    /// The first of the entries behind `previous`, of the terms that `runs` say, up to `last`, that
    /// this log does not hold.
    pub fn first_missing(
        &self,
        previous: LogIndex,
        runs: &[TermRun],
        last: LogIndex,
    ) -> Option<LogIndex> {
        let mut next = previous.next().max(self.base.index.next());
        for (i, run) in runs.iter().enumerate() {
            let end = run_end(runs, i, last);
            if end < next {
                continue;
            }
            let Some(ours) = self.runs.iter().rposition(|ours| ours.first <= next) else {
                return Some(next);
            };
            let differs = self.runs[ours].term != run.term || Mutant::TruncateMatching.is_on();
            if next > self.last || differs {
                return Some(next);
            }
            next = run_end(&self.runs, ours, self.last).min(end).next();
            if next <= end {
                return Some(next);
            }
        }
        (next <= last).then_some(next)
    }

    /// Cuts off the entries from `first` on.
    pub fn truncate(&mut self, first: LogIndex) {
        assert!(first > self.committed, "cut at {first:?}, committed {:?}", self.committed);
        assert!(first <= self.last, "cut at {first:?} behind the end {:?}", self.last);
        self.runs.retain(|run| run.first < first);
        self.last = first.previous().expect("an entry is not at zero");
        self.durable = self.durable.min(self.last);
        self.era += 1;
    }

    /// A snapshot takes the place of the log. It is not durable yet.
    pub fn reset(&mut self, last: Position) {
        assert!(last.index > self.committed, "a snapshot at {last:?} goes back");
        self.base = last;
        self.runs.clear();
        self.last = last.index;
        self.committed = last.index;
        self.durable = LogIndex::ZERO;
        self.era += 1;
    }

    /// Entries up to `index` are no longer kept.
    pub fn compact(&mut self, index: LogIndex) {
        if index <= self.base.index {
            return;
        }
        assert!(index <= self.committed, "{index:?} compacted, committed {:?}", self.committed);
        self.base = Position { index, term: self.term_at(index) };
        let gone = self.runs.iter().rposition(|run| run.first <= index.next()).unwrap_or(0);
        self.runs.drain(..gone);
        match self.runs.first_mut() {
            Some(run) if run.first <= index && index < self.last => run.first = index.next(),
            Some(run) if run.first <= index => self.runs.clear(),
            Some(_) | None => {}
        }
    }

    /// The last index up to `index` whose term is at most `term`: where a log with `term` at `index`
    /// may agree with this one. Runs of other terms are stepped over whole (paper, end of 5.3).
    pub fn may_agree(&self, index: LogIndex, term: Term) -> Position {
        let mut index = index.min(self.last);
        for run in self.runs.iter().rev() {
            if run.first > index {
                continue;
            }
            if run.term <= term {
                return Position { index, term: run.term };
            }
            index = run.first.previous().expect("an entry is not at zero");
        }
        Position { index, term: self.term_at(index) }
    }

    /// The runs of the entries behind `previous` up to `last`.
    pub fn runs_between(&self, previous: LogIndex, last: LogIndex) -> Vec<TermRun> {
        let mut runs = Vec::new();
        if previous == last {
            return runs;
        }
        let first = previous.next();
        let from = self.runs.iter().rposition(|run| run.first <= first);
        let from = from.expect("an entry that is kept is in a run");
        let within = self.runs[from..].iter().take_while(|run| run.first <= last);
        runs.extend(within.map(|run| TermRun { first: run.first.max(first), term: run.term }));
        runs
    }

    /// The WAL says that all entries up to `index`, whose term is `term`, are durable. A completion
    /// that speaks of an entry that has been replaced since is ignored (the ABA race). The term
    /// alone does not tell: 12 of term 1 may be replaced by 12 of term 2 and that by 12 of term 1
    /// again, and the completion of the first write says nothing about the third. Ignoring it stalls
    /// nothing: a cut comes with a write of its own, whose completion covers all before it.
    pub fn advance_durable(&mut self, index: LogIndex, term: Term, era: u64) {
        if era == self.era && self.term_at(index) == term && index > self.durable {
            self.durable = index;
        }
    }

    /// Moves the commit index forward.
    #[inline]
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

/// The last index of run `i`, in a log that ends at `last`.
fn run_end(runs: &[TermRun], i: usize, last: LogIndex) -> LogIndex {
    match runs.get(i + 1) {
        Some(next) => next.first.previous().expect("an entry is not at zero").min(last),
        None => last,
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
        log.advance_durable(at(5), Term::new(1), 0);
        assert_eq!(log.durable(), at(0));
        log.advance_durable(at(5), Term::new(2), 0);
        log.advance_durable(at(3), Term::new(2), 0);
        assert_eq!(log.durable(), at(5));
    }

    fn of_terms(terms: &[u64]) -> Log {
        let mut log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
        for &term in terms {
            log.append(Term::new(term), 1);
        }
        log
    }

    /// Against logs written out entry by entry: every pair of logs of up to four entries, compacted
    /// anywhere.
    #[test]
    fn runs_answer_like_a_log_written_out() {
        let mut logs = vec![Vec::new()];
        for length in 1..=4 {
            for code in 0..3_u64.pow(length) {
                let terms: Vec<u64> = (0..length).map(|i| 1 + code / 3_u64.pow(i) % 3).collect();
                if terms.is_sorted() {
                    logs.push(terms);
                }
            }
        }
        for ours in &logs {
            for theirs in &logs {
                for previous in 0..=theirs.len() {
                    let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                    for compacted in 0..=same {
                        let mut log = of_terms(ours);
                        log.advance_committed(at(compacted as u64));
                        log.compact(at(compacted as u64));
                        for (i, &term) in ours.iter().enumerate().skip(compacted.max(1) - 1) {
                            let index = at(i as u64 + 1);
                            assert_eq!(log.term_at(index).get(), term, "{ours:?} {compacted}");
                        }
                        let leader = of_terms(theirs);
                        let runs = leader.runs_between(at(previous as u64), leader.last());
                        let missing = log.first_missing(at(previous as u64), &runs, leader.last());
                        let from = (previous + 1).max(compacted + 1);
                        let naive = (from..=theirs.len())
                            .find(|&i| ours.get(i - 1) != Some(&theirs[i - 1]))
                            .map(|i| at(i as u64));
                        if previous <= same {
                            assert_eq!(missing, naive, "{ours:?} {theirs:?} {previous}");
                        }
                    }
                }
                let mut walked = theirs.len().min(ours.len());
                let top = *theirs.last().unwrap_or(&0);
                while walked > 0 && ours[walked - 1] > top {
                    walked -= 1;
                }
                let hint = of_terms(ours).may_agree(at(theirs.len() as u64), Term::new(top));
                assert_eq!(hint.index, at(walked as u64), "{ours:?} {theirs:?}");
            }
        }
    }

    /// The write of 12 in term 1 completes after 12 was replaced twice, at last by term 1 again.
    #[test]
    fn a_completion_of_an_earlier_era_does_not_move_durable() {
        let mut log = of_terms(&[1, 1]);
        let first_era = log.era();
        log.truncate(at(2));
        log.append(Term::new(2), 1);
        log.truncate(at(2));
        log.append(Term::new(1), 1);
        log.advance_durable(at(2), Term::new(1), first_era);
        assert_eq!(log.durable(), at(0));
        log.advance_durable(at(2), Term::new(1), log.era());
        assert_eq!(log.durable(), at(2));
    }
}
