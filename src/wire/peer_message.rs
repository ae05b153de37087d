//! What raft on one member says to raft on another, as it travels: `raft` knows no bytes, and this
//! crate does not know `raft`. The two enums are translated where both are known.

use base::{Hash128, LogIndex, Term};
use schema::peer as slots;

use crate::error::DecodeError;
use crate::peer::{hash, index, term};
use crate::reader::Table;
use crate::request::numbers;

numbers!(
    /// Which message it is.
    RaftKind, "kind", {
        /// [`PeerMessage::PreVote`].
        #[default]
        PreVote = 1,
        /// [`PeerMessage::PreVoteReply`].
        PreVoteReply = 2,
        /// [`PeerMessage::Vote`].
        Vote = 3,
        /// [`PeerMessage::VoteReply`].
        VoteReply = 4,
        /// [`PeerMessage::Accepted`].
        Accepted = 5,
        /// [`PeerMessage::Rejected`].
        Rejected = 6,
        /// [`PeerMessage::Heartbeat`].
        Heartbeat = 7,
        /// [`PeerMessage::HeartbeatReply`].
        HeartbeatReply = 8,
        /// [`PeerMessage::TimeoutNow`].
        TimeoutNow = 9,
        /// [`PeerMessage::Read`].
        Read = 10,
        /// [`PeerMessage::ReadReply`].
        ReadReply = 11,
        /// [`PeerMessage::Newer`].
        Newer = 12,
    }
);

/// How far a member has applied the log and what its state is there: members compare it to find
/// out that one of them is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppliedState {
    /// The last entry that is applied.
    pub index: LogIndex,
    /// The hash of the state behind it.
    pub hash: Hash128,
}

/// A raft message. Entries travel as [`PeerAppend`], a snapshot in the frames that begin with
/// [`PeerSnapshotBegin`](crate::PeerSnapshotBegin); all others are here, with the fields that raft
/// gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// Would you vote for me?
    PreVote {
        /// The term asked for.
        term: Term,
        /// Where the sender's log ends.
        last_index: LogIndex,
        /// The term of the entry there.
        last_term: Term,
    },
    /// The answer.
    PreVoteReply {
        /// The term asked for if it is granted, else the voter's.
        term: Term,
        /// Yes or no.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The candidate's term.
        term: Term,
        /// Where its log ends.
        last_index: LogIndex,
        /// The term of the entry there.
        last_term: Term,
        /// The leader asked for this election.
        transfer: bool,
    },
    /// The answer.
    VoteReply {
        /// The voter's term.
        term: Term,
        /// Yes or no.
        granted: bool,
    },
    /// The log agrees with the leader's.
    Accepted {
        /// The follower's term.
        term: Term,
        /// Up to here, and durable.
        matched: LogIndex,
        /// Up to here, durable or not.
        verified: LogIndex,
    },
    /// The log does not hold the `previous` of an append.
    Rejected {
        /// The follower's term.
        term: Term,
        /// Its index.
        previous: LogIndex,
        /// The last entry that may agree.
        hint_index: LogIndex,
        /// Its term.
        hint_term: Term,
    },
    /// I lead.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// Committed, as far as the follower's log is known to agree.
        committed: LogIndex,
        /// The latest round of leadership confirmation.
        round: u64,
        /// What leases run on: nanoseconds that leaders have counted since the cluster began.
        log_time: u64,
        /// The leader's state, now and then.
        applied: Option<AppliedState>,
    },
    /// The answer.
    HeartbeatReply {
        /// The follower's term.
        term: Term,
        /// The round of the heartbeat that is answered.
        round: u64,
        /// As in `Accepted`.
        matched: LogIndex,
        /// The follower's state, now and then.
        applied: Option<AppliedState>,
    },
    /// Hold an election now.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A follower asks what a linearizable read has to wait for.
    Read {
        /// Its term.
        term: Term,
        /// Its number for the question.
        number: u64,
    },
    /// The answer.
    ReadReply {
        /// The leader's term.
        term: Term,
        /// Number of the question.
        number: u64,
        /// What to wait for; none if the leader cannot say.
        index: Option<LogIndex>,
    },
    /// Your term is over.
    Newer {
        /// The term here.
        term: Term,
    },
}

impl PeerMessage {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        use slots::Raft as Slots;
        let term_here = term(table, Slots::VT_TERM)?;
        let flag = || table.bool(Slots::VT_FLAG);
        let number = || table.u64(Slots::VT_NUMBER);
        let index_at = |slot| index(table, slot);
        let applied = || {
            Ok(match table.bytes16(Slots::VT_STATE_HASH)? {
                None => None,
                Some(bytes) => Some(AppliedState {
                    index: index_at(Slots::VT_APPLIED)?,
                    hash: Hash128::from_bytes(bytes),
                }),
            })
        };
        Ok(match RaftKind::try_from(table.u8(Slots::VT_KIND)?)? {
            RaftKind::PreVote => Self::PreVote {
                term: term_here,
                last_index: index_at(Slots::VT_INDEX)?,
                last_term: term(table, Slots::VT_INDEX_TERM)?,
            },
            RaftKind::PreVoteReply => Self::PreVoteReply { term: term_here, granted: flag()? },
            RaftKind::Vote => Self::Vote {
                term: term_here,
                last_index: index_at(Slots::VT_INDEX)?,
                last_term: term(table, Slots::VT_INDEX_TERM)?,
                transfer: flag()?,
            },
            RaftKind::VoteReply => Self::VoteReply { term: term_here, granted: flag()? },
            RaftKind::Accepted => Self::Accepted {
                term: term_here,
                matched: index_at(Slots::VT_MATCHED)?,
                verified: index_at(Slots::VT_VERIFIED)?,
            },
            RaftKind::Rejected => Self::Rejected {
                term: term_here,
                previous: index_at(Slots::VT_PREVIOUS)?,
                hint_index: index_at(Slots::VT_INDEX)?,
                hint_term: term(table, Slots::VT_INDEX_TERM)?,
            },
            RaftKind::Heartbeat => Self::Heartbeat {
                term: term_here,
                committed: index_at(Slots::VT_COMMITTED)?,
                round: number()?,
                log_time: table.u64(Slots::VT_LOG_TIME)?,
                applied: applied()?,
            },
            RaftKind::HeartbeatReply => Self::HeartbeatReply {
                term: term_here,
                round: number()?,
                matched: index_at(Slots::VT_MATCHED)?,
                applied: applied()?,
            },
            RaftKind::TimeoutNow => Self::TimeoutNow { term: term_here },
            RaftKind::Read => Self::Read { term: term_here, number: number()? },
            RaftKind::ReadReply => Self::ReadReply {
                term: term_here,
                number: number()?,
                index: if flag()? { Some(index_at(Slots::VT_INDEX)?) } else { None },
            },
            RaftKind::Newer => Self::Newer { term: term_here },
        })
    }
}

/// Bytes of a `TermRun` of the schema.
pub(crate) const RUN_SIZE: usize = 16;

/// Term runs, read in place. Iterating them gives the index of each run's first entry and its term.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TermRuns<'a> {
    /// Those that have not been taken yet, of [`RUN_SIZE`] bytes each.
    bytes: &'a [u8],
}

impl Iterator for TermRuns<'_> {
    type Item = (LogIndex, Term);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (run, rest) = self.bytes.split_first_chunk::<RUN_SIZE>()?;
        self.bytes = rest;
        let [a, b, c, d, e, f, g, h, term @ ..] = *run;
        let first = LogIndex::new(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        Some((first, Term::new(u64::from_le_bytes(term))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.bytes.len() / RUN_SIZE;
        (count, Some(count))
    }
}

impl ExactSizeIterator for TermRuns<'_> {}

impl core::fmt::Debug for TermRuns<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// What is known of an append before its entries are gathered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppendHead {
    /// The leader's term.
    pub term: Term,
    /// The entry before the first.
    pub previous_index: LogIndex,
    /// Its term; zero where the leader no longer knows it.
    pub previous_term: Term,
    /// The log chain there.
    pub previous_hash: Hash128,
    /// The leader's commit index.
    pub committed: LogIndex,
}

/// Entries of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerAppend<'a> {
    /// What they follow.
    pub head: AppendHead,
    /// The last entry; `previous_index` if there is none.
    pub last: LogIndex,
    /// Terms of the entries; the first run begins right behind `previous_index`.
    pub runs: TermRuns<'a>,
    /// The entries, as the log encodes them. Whether they are what `last` and `runs` say is for
    /// those to check who know that encoding.
    pub records: &'a [u8],
}

impl<'a> PeerAppend<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use slots::Append as Slots;
        let append = Self {
            head: AppendHead {
                term: term(table, Slots::VT_TERM)?,
                previous_index: index(table, Slots::VT_PREVIOUS_INDEX)?,
                previous_term: term(table, Slots::VT_PREVIOUS_TERM)?,
                previous_hash: hash(table, Slots::VT_PREVIOUS_HASH)?,
                committed: index(table, Slots::VT_COMMITTED)?,
            },
            last: index(table, Slots::VT_LAST)?,
            runs: TermRuns { bytes: table.structs(Slots::VT_RUNS, RUN_SIZE)?.unwrap_or_default() },
            records: table.bytes(Slots::VT_RECORDS)?.unwrap_or_default(),
        };
        if append.is_consistent() { Ok(append) } else { Err(DecodeError::Malformed) }
    }

    /// Whether the runs are those of the entries behind `previous_index` up to `last`, in order and
    /// of no term beyond the leader's. Raft takes that for granted.
    fn is_consistent(&self) -> bool {
        let head = self.head;
        let mut runs = self.runs;
        let Some((first, mut term)) = runs.next() else {
            return self.last == head.previous_index && self.records.is_empty();
        };
        let mut begin = first;
        // Lower than half of all numbers, so there is a next one.
        if first != head.previous_index.next() || term < head.previous_term {
            return false;
        }
        for (next_begin, next_term) in runs {
            if next_begin <= begin || next_term <= term {
                return false;
            }
            (begin, term) = (next_begin, next_term);
        }
        begin <= self.last && term <= head.term
    }
}
