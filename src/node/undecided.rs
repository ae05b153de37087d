//! Writes of this member's clients that are in the hands of a leader, or of one that is no more.
//!
//! A leader gives them positions in one term: the one in which they were passed on to it, or in which this
//! member led. Once an entry of a later term is committed, what is not in the log before it never will be:
//! every leader to come has that entry, and terms do not decrease along a log. So each such write has
//! a certain end, if the election succeeds: it is applied, or it has had no effect and may be tried again.
//!
//! ```text
//!             ┌─ its entry is committed ─────────► answered when it is applied
//! undecided ──┼─ an entry of a later term is ────► refused: nothing was written
//!             └─ neither, for too long ──────────► outcome unknown
//! ```

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::{Instant, LogIndex, Term, Ticket};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Write {
    /// Who waits for the outcome.
    pub ticket: Ticket,
    /// Bytes of the payload.
    pub size: usize,
    /// The only term in which it can get a position.
    pub term: Term,
    /// Nobody waits longer, since its leader was lost.
    pub until: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    /// Passed on to the leader, by number; terms do not decrease along it.
    forwarded: BTreeMap<u64, Write>,
    next: u64,
    /// In the log since this member led, by term and position.
    left: BTreeMap<(Term, LogIndex), Write>,
    /// The term of the newest committed entry.
    settled: Term,
    deadline: Option<Instant>,
}

impl Undecided {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.forwarded.len() + self.left.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.forwarded.is_empty() && self.left.is_empty()
    }

    /// A number for a write that is to be passed on.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The write with this number is on its way to the leader of `term`.
    pub fn forward(&mut self, number: u64, ticket: Ticket, size: usize, term: Term) {
        self.forwarded.insert(number, Write { ticket, size, term, until: None });
    }

    /// This member led in `term` and has put the write at `index`.
    pub fn leave(&mut self, term: Term, index: LogIndex, ticket: Ticket, size: usize) {
        self.left.insert((term, index), Write { ticket, size, term, until: None });
    }

    /// Who waits for the write that was passed on with this number; nobody does here any more.
    pub fn take_forwarded(&mut self, number: u64) -> Option<Write> {
        self.forwarded.remove(&number)
    }

    /// Who waits for the write at this position; nobody does here any more.
    pub fn take_left(&mut self, term: Term, index: LogIndex) -> Option<Write> {
        if self.left.is_empty() { None } else { self.left.remove(&(term, index)) }
    }

    /// The one passed on first, whichever it is.
    pub fn take_first(&mut self) -> Option<Write> {
        self.forwarded.pop_first().map(|(_, write)| write)
    }

    /// An entry of `term` is committed: those of earlier terms that are not before it have had no effect.
    pub fn settle(&mut self, term: Term) -> Vec<Write> {
        if term <= self.settled {
            return Vec::new();
        }
        self.settled = term;
        let mut over = Vec::new();
        while let Some(first) = self.forwarded.first_entry().filter(|first| first.get().term < term)
        {
            over.push(first.remove());
        }
        while let Some(first) = self.left.first_entry().filter(|first| first.get().term < term) {
            over.push(first.remove());
        }
        over
    }

    /// The leader is lost, or the way to it: nobody waits longer than `until` for what it has had.
    pub fn doubt(&mut self, until: Instant) {
        for write in self.forwarded.values_mut().chain(self.left.values_mut()) {
            if write.until.is_none() {
                write.until = Some(until);
                self.deadline = Some(self.deadline.map_or(until, |deadline| deadline.min(until)));
            }
        }
    }

    /// When the next ones have waited for too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Those that have waited for too long.
    pub fn take_late(&mut self, now: Instant) -> Vec<Write> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let is_late = |write: &Write| write.until.is_some_and(|until| now >= until);
        let mut late: Vec<Write> = self
            .forwarded
            .extract_if(.., |_, write| is_late(write))
            .map(|(_, write)| write)
            .collect();
        late.extend(self.left.extract_if(.., |_, write| is_late(write)).map(|(_, write)| write));
        let others = self.forwarded.values().chain(self.left.values());
        self.deadline = others.filter_map(|write| write.until).min();
        late
    }

    /// All: nothing will be learned of them.
    pub fn take_all(&mut self) -> Vec<Write> {
        self.deadline = None;
        let forwarded = core::mem::take(&mut self.forwarded).into_values();
        forwarded.chain(core::mem::take(&mut self.left).into_values()).collect()
    }
}

#[cfg(test)]
mod tests {
    use base::{ConnectionId, ReactorId, RequestId};

    use super::*;

    fn ticket(number: u32) -> Ticket {
        let connection = ConnectionId { slot: 0, generation: 0 };
        let (reactor, request) = (ReactorId::new(0), RequestId::new(1));
        Ticket { reactor, connection, request, size: number, reads: false, watches: false }
    }

    fn numbers(writes: &[Write]) -> Vec<u32> {
        writes.iter().map(|write| write.ticket.size).collect()
    }

    #[test]
    fn a_later_term_settles_what_earlier_ones_had() {
        let mut undecided = Undecided::default();
        for (number, term) in [(0, 3), (1, 3), (2, 4)] {
            assert_eq!(undecided.number(), u64::from(number));
            undecided.forward(number.into(), ticket(number), 10, Term::new(term));
        }
        undecided.leave(Term::new(2), LogIndex::new(9), ticket(7), 10);
        undecided.leave(Term::new(5), LogIndex::new(9), ticket(8), 10);
        assert!(undecided.settle(Term::new(2)).is_empty());
        let found = undecided.take_forwarded(1).map(|write| write.ticket);
        assert_eq!(found, Some(ticket(1)));
        assert_eq!(numbers(&undecided.settle(Term::new(4))), [0, 7]);
        assert_eq!(undecided.take_left(Term::new(2), LogIndex::new(9)), None);
        assert!(undecided.take_left(Term::new(5), LogIndex::new(9)).is_some());
        assert_eq!(numbers(&undecided.settle(Term::new(5))), [2]);
        assert!(undecided.is_empty());
    }

    #[test]
    fn only_what_is_in_doubt_is_late() {
        let (soon, later) = (Instant::from_nanos(5), Instant::from_nanos(9));
        let mut undecided = Undecided::default();
        undecided.forward(0, ticket(0), 10, Term::new(1));
        undecided.doubt(soon);
        undecided.forward(1, ticket(1), 10, Term::new(2));
        undecided.doubt(later);
        undecided.forward(2, ticket(2), 10, Term::new(3));
        assert_eq!(undecided.deadline(), Some(soon));
        assert!(undecided.take_late(Instant::from_nanos(4)).is_empty());
        assert_eq!(numbers(&undecided.take_late(soon)), [0]);
        assert_eq!(undecided.deadline(), Some(later));
        assert_eq!(numbers(&undecided.take_late(later)), [1]);
        assert_eq!((undecided.deadline(), undecided.len()), (None, 1));
        assert_eq!(numbers(&undecided.take_all()), [2]);
    }
}
