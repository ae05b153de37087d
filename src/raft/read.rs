//! Linearizable reads without log entries (thesis 6.4).
//!
//! A read gets the commit index of a moment at which a quorum still followed this leader. The leader
//! makes the number of every round of confirmation, ascending and never used twice in a term, and a
//! reply confirms rounds up to its own only. A reply to an earlier round, however late, says nothing
//! about a read that was asked after it was sent: to take the caller's name of the read for the
//! number would let a retried question be confirmed by the answers to its first try.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use base::{Instant, LogIndex, Mutant, NodeId};

/// One waiting batch of reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    /// The follower that asks, or the leader's own host.
    pub origin: Option<NodeId>,
    /// The origin's name for it.
    pub ticket: u64,
    /// It is rejected then.
    pub expires: Instant,
    /// The round that confirms it, and the commit index when that began; none before it begins.
    pub round: Option<(u64, LogIndex)>,
}

/// The reads that wait at a leader, in the order they came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ReadQueue {
    reads: Vec<Read>,
    /// The last round begun.
    round: u64,
}

impl ReadQueue {
    pub fn push(&mut self, read: Read) {
        self.reads.push(read);
    }

    pub fn round(&self) -> u64 {
        self.round
    }

    /// Begins a round for all reads without one. Says whether there are any.
    pub fn begin_round(&mut self, committed: LogIndex) -> bool {
        if self.reads.iter().all(|read| read.round.is_some()) {
            return false;
        }
        if !Mutant::ReadRoundReused.is_on() || self.round == 0 {
            self.round += 1;
        }
        for read in &mut self.reads {
            read.round.get_or_insert((self.round, committed));
        }
        true
    }

    /// Takes out the reads that rounds up to `confirmed` answer.
    pub fn confirmed(&mut self, confirmed: u64) -> Vec<(Read, LogIndex)> {
        let mut granted = Vec::new();
        self.reads.retain(|read| match read.round {
            Some((round, index)) if round <= confirmed => {
                granted.push((*read, index));
                false
            }
            Some(_) | None => true,
        });
        granted
    }

    /// Takes out the reads that have waited too long.
    pub fn expired(&mut self, now: Instant) -> Vec<Read> {
        let mut expired = Vec::new();
        self.reads.retain(|read| {
            let keep = now < read.expires;
            if !keep {
                expired.push(*read);
            }
            keep
        });
        expired
    }

    /// Takes out all.
    pub fn take(&mut self) -> Vec<Read> {
        core::mem::take(&mut self.reads)
    }

    pub fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    pub fn hash_state(&self, now: Instant, hasher: &mut impl Hasher) {
        self.round.hash(hasher);
        for read in &self.reads {
            (read.origin, read.ticket, read.expires.since(now), read.round).hash(hasher);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.reads.iter().map(|read| read.expires).min()
    }
}
