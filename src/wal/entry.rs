//! What the log is made of from outside: who writes it, entries, positions, the hard state.

use base::{FileId, Hash128, LogIndex, NodeId, Term};

/// Who writes: part of every header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// This member.
    pub member: NodeId,
    /// A random name of this start of the process. Each start takes a new one, so that groups
    /// dropped at one recovery can never chain onto groups written after it.
    pub incarnation: FileId,
}

impl Identity {
    /// True if `other` is the same member of the same cluster, in whatever incarnation.
    pub fn is_same_member(&self, other: &Self) -> bool {
        self.cluster == other.cluster && self.member == other.member
    }
}

/// One entry of the log, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Its index: one more than that of the entry before.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// What the payload is; the log only carries it.
    pub kind: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// A place in the log: an entry by index and term, and the log chain hash up to and including it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Index of the entry; zero before the first one.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: Term,
    /// The log chain hash behind the entry: equal on every member that holds the same log up to
    /// here.
    pub hash: Hash128,
}

impl Position {
    /// Before the first entry of a log that starts empty.
    pub const ORIGIN: Self = Self { index: LogIndex::ZERO, term: Term::ZERO, hash: Hash128::ZERO };
}

/// What Raft must not forget beside its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The greatest term seen.
    pub term: Term,
    /// Whom this member voted for in that term.
    pub vote: Option<NodeId>,
    /// The greatest index known to be committed. A hint: it may be older than the truth.
    pub commit: LogIndex,
    /// The member has found out that it had promised nothing before this log began.
    pub begun: bool,
}
