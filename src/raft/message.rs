//! What members tell each other, what a member is told, and what it wants done: three closed enums.

use alloc::vec::Vec;
use base::{LogIndex, Mutant, NodeId, Term};

use crate::{Change, ChangeRefusal, Configuration, Membership, TermRun};

/// A place in the log and the term of the entry there: two logs that agree on one agree on all
/// before it (paper 5.3, log matching).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position {
    /// Index of the entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

impl Position {
    /// Whether a log that ends here holds all that a log ending at `other` may have committed
    /// (paper 5.4.1).
    pub fn is_up_to_date_with(self, other: Self) -> bool {
        let any = Mutant::VoteForAnyLog.is_on();
        any || (Mutant::VoteByIndex.is_on() && self.index >= other.index)
            || (self.term, self.index) >= (other.term, other.index)
    }
}

/// What must be durable before anything that depends on it is said (thesis, figure 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Who got the vote in that term.
    pub vote: Option<NodeId>,
}

/// From one member's raft to another's. Every message names a term; `PreVote` and its grant name
/// the term that is asked for, all others the term of the sender.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Would you vote for me in `term`? Changes nothing anywhere (thesis 9.6).
    PreVote {
        /// The term asked for, one above the sender's.
        term: Term,
        /// Where the sender's log ends.
        last: Position,
    },
    /// The answer; a refusal names the voter's own term.
    PreVoteReply {
        /// See above.
        term: Term,
        /// Yes or no.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The candidate's term.
        term: Term,
        /// Where its log ends.
        last: Position,
        /// The leader asked for this election: it pierces leases (thesis 3.10, 4.2.3).
        transfer: bool,
    },
    /// The answer.
    VoteReply {
        /// The voter's term.
        term: Term,
        /// Yes or no.
        granted: bool,
    },
    /// Entries behind `previous` up to `last`, of the terms that `runs` say; none if `last` is
    /// `previous`.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first.
        previous: Position,
        /// Terms of the entries; the first run begins right behind `previous`.
        runs: Vec<TermRun>,
        /// The last entry.
        last: LogIndex,
        /// The leader's commit index.
        committed: LogIndex,
        /// Memberships among the entries. They are payload: the sending raft leaves this empty, and
        /// the host that receives the entries puts in what it reads there.
        configurations: Vec<Configuration>,
    },
    /// The log agrees with the leader's up to `verified` and is durable up to `matched`.
    Accepted {
        /// The follower's term.
        term: Term,
        /// Durable.
        matched: LogIndex,
        /// In agreement, durable or not.
        verified: LogIndex,
    },
    /// The log does not hold the `previous` of an append.
    Rejected {
        /// The follower's term.
        term: Term,
        /// Its index.
        previous: LogIndex,
        /// The last position here that may agree: its term is at most that of `previous`.
        hint: Position,
    },
    /// I lead.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// Committed, as far as this follower's log is known to agree.
        committed: LogIndex,
        /// The latest round of leadership confirmation (thesis 6.4).
        round: u64,
    },
    /// The answer.
    HeartbeatReply {
        /// The follower's term.
        term: Term,
        /// The round of the heartbeat that is answered.
        round: u64,
        /// As in `Accepted`: repairs a lost one.
        matched: LogIndex,
    },
    /// The state up to `last`, handed to raft when all its bytes have arrived.
    Snapshot {
        /// The leader's term.
        term: Term,
        /// The last entry it covers.
        last: Position,
        /// The membership there.
        configuration: Configuration,
    },
    /// Hold an election now (thesis 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A follower asks what a linearizable read has to wait for.
    Read {
        /// Its term.
        term: Term,
        /// Its number for the question, never used before.
        number: u64,
    },
    /// The answer; none if the leader cannot say.
    ReadReply {
        /// The leader's term.
        term: Term,
        /// Number of the question.
        number: u64,
        /// What to wait for.
        index: Option<LogIndex>,
    },
    /// To one that leads a term which is over (thesis 9.6: else it would never learn).
    Newer {
        /// The term here.
        term: Term,
    },
}

impl Message {
    /// The term that the message names.
    pub fn term(&self) -> Term {
        match *self {
            Self::PreVote { term, .. }
            | Self::PreVoteReply { term, .. }
            | Self::Vote { term, .. }
            | Self::VoteReply { term, .. }
            | Self::Append { term, .. }
            | Self::Accepted { term, .. }
            | Self::Rejected { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatReply { term, .. }
            | Self::Snapshot { term, .. }
            | Self::TimeoutNow { term }
            | Self::Read { term, .. }
            | Self::ReadReply { term, .. }
            | Self::Newer { term } => term,
        }
    }

    /// Whether only the leader of its term sends this.
    pub(crate) fn is_from_leader(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::Heartbeat { .. }
            | Self::Snapshot { .. }
            | Self::TimeoutNow { .. }
            | Self::ReadReply { .. } => true,
            Self::PreVote { .. }
            | Self::PreVoteReply { .. }
            | Self::Vote { .. }
            | Self::VoteReply { .. }
            | Self::Accepted { .. }
            | Self::Rejected { .. }
            | Self::HeartbeatReply { .. }
            | Self::Read { .. }
            | Self::Newer { .. } => false,
        }
    }
}

/// What a member is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time has passed: the deadline may be over.
    Tick,
    /// The turn is over: send what has gathered.
    Flush,
    /// A member that may have forgotten a vote begins in a term in which it gave none.
    Begin {
        /// The greatest term in which somebody may have asked for it.
        beyond: Term,
    },
    /// Hold an election now, without asking whether it can be won. A lone voter starts so.
    Campaign,
    /// A message has arrived, and for an append or a snapshot all its bytes.
    Receive {
        /// From whom.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Take so many proposals.
    Propose {
        /// How many, at least one.
        count: u64,
    },
    /// Change the members.
    Change(Change),
    /// What must a linearizable read wait for? `ticket` comes back with the answer.
    Read {
        /// The caller's name for a batch of reads.
        ticket: u64,
    },
    /// Hand leadership to this member.
    Transfer {
        /// To whom.
        to: NodeId,
    },
    /// Term and vote are durable.
    HardStateDurable(HardState),
    /// The log is durable up to this entry.
    Durable {
        /// The last durable entry.
        position: Position,
        /// [`crate::Log::era`] when its write was issued.
        era: u64,
    },
    /// An append was sent, perhaps with fewer entries than it named: how large it was.
    Sent {
        /// To whom.
        to: NodeId,
        /// The `last` that the message named.
        named: LogIndex,
        /// The last entry that was sent.
        last: LogIndex,
        /// Its size.
        bytes: u64,
    },
    /// A snapshot that was asked for is on its way.
    SnapshotBegun {
        /// To whom.
        to: NodeId,
        /// The last entry it covers.
        index: LogIndex,
    },
    /// This member has closed its links to the one here: its process has ended, most likely. If it
    /// leads, the next election is a matter of finding who is first, not of waiting for a time-out.
    Gone {
        /// Who.
        peer: NodeId,
    },
    /// The connection to this member broke; what was on its way is lost, a snapshot too.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// Entries up to this index, all of them applied, are no longer kept.
    Compacted {
        /// The last entry that is gone.
        index: LogIndex,
    },
}

/// What the machine wants done, in the order given.
///
/// A message that promises something durable does not exist before the promise holds: raft makes it
/// when it is told of the durability. So the order of writes and messages is not left to the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make term and vote durable, then report [`Input::HardStateDurable`]. Entries appended after
    /// this must not become durable before it.
    SaveHardState(HardState),
    /// Append an empty entry at this position: the first of a new leader's term.
    AppendEmpty {
        /// Index of the entry; it is already counted in the log.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// Append an entry with this membership at this position.
    AppendMembership {
        /// Index of the entry; it is already counted in the log.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// What it holds.
        membership: Membership,
    },
    /// Append entries of the message just received, from `first` to `last`. What the log held from
    /// `first` on is cut off and must not come back (the write states the cut).
    Append {
        /// The first to write.
        first: LogIndex,
        /// The last to write.
        last: LogIndex,
        /// Whether something is cut off.
        cut: bool,
    },
    /// Replace state and log by the snapshot just received; durable at `last`, in the present era.
    Install {
        /// The last entry it covers.
        last: Position,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Begin to send a snapshot, the latest there is, and report [`Input::SnapshotBegun`].
    SendSnapshot {
        /// To whom.
        to: NodeId,
    },
    /// The leader counts on entries up to `index`, which this member has acknowledged and does not have:
    /// its data is older than what it promised. It must not go on.
    Forgotten {
        /// Who leads.
        by: NodeId,
        /// The entry.
        index: LogIndex,
    },
    /// Entries up to `index` are committed and may be applied.
    Committed {
        /// The commit index.
        index: LogIndex,
    },
    /// This member leads from now on and takes proposals.
    Leading {
        /// The term it leads.
        term: Term,
    },
    /// This member does not lead, and knows who does, or not.
    Following {
        /// The term.
        term: Term,
        /// Its leader.
        leader: Option<NodeId>,
    },
    /// The proposals got these positions.
    Proposed {
        /// Index of the first.
        first: LogIndex,
        /// How many.
        count: u64,
        /// Term of all.
        term: Term,
    },
    /// The proposals were not taken: this member does not lead, or is handing over.
    ProposalRefused,
    /// The change was not begun.
    ChangeRefused(ChangeRefusal),
    /// The read may run once `index` is applied.
    ReadGranted {
        /// As asked.
        ticket: u64,
        /// What to wait for.
        index: LogIndex,
    },
    /// The read cannot be answered here and now.
    ReadRejected {
        /// As asked.
        ticket: u64,
    },
    /// Leadership was not handed over; proposals are taken again.
    TransferFailed {
        /// Who did not take it.
        to: NodeId,
    },
}

/// Reused from call to call; the host drains it.
pub type Outputs = Vec<Output>;
