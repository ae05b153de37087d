//! What consensus is told, and what it asks for: two closed enums.

use alloc::string::String;
use alloc::vec::Vec;

use base::{
    ConnectionId, Frame, Hash128, Instant, LogIndex, Lsn, NodeId, ReactorId, Revision, Term, Ticket,
};
use bytes::BytesMut;
use kv::Due;
use wal::WalFile;

use crate::gauges::Use;
use crate::message::EntryKind;
use crate::{AdminRequest, ReactorEvent, StoreEvent};

/// What happens to consensus.
#[derive(Debug)]
pub enum ConsensusEvent {
    /// Begin: recovery is over and the store runs.
    Start,
    /// A reactor asks for a write.
    Propose {
        /// Who waits.
        ticket: Ticket,
        /// What the frame is.
        kind: EntryKind,
        /// Whether the frame begins with a stamp.
        stamped: bool,
        /// Whether it only gives space back.
        frees_space: bool,
        /// The verified body, behind the stamp if there is one.
        frame: Frame,
        /// When nobody waits any more; it is dropped if it has not been appended by then.
        deadline: Option<Instant>,
    },
    /// A reactor asks what a linearizable read has to wait for.
    ReadIndex {
        /// Which reactor.
        reactor: ReactorId,
    },
    /// The store has applied entries up to `index`, whose payloads had `bytes` in all.
    Applied {
        /// Applied index.
        index: LogIndex,
        /// Bytes of the payloads applied since the last such message.
        bytes: usize,
    },
    /// Leases whose time is up, as far as was looked, and when there is something to look at next.
    LeasesDue {
        /// The term in which it was asked.
        term: Term,
        /// They.
        due: Vec<Due>,
        /// A log time; none: there is no lease.
        next: Option<u64>,
    },
    /// A lease has been made that is due before all others.
    LeaseAdded {
        /// The log time.
        deadline: u64,
    },
    /// History before this revision is to be given up; none: nothing is.
    Outdated {
        /// It.
        revision: Option<Revision>,
    },
    /// The log time of the state that the store begins with.
    LogTime {
        /// It.
        time: u64,
    },
    /// The state after the entry at `index` has this hash.
    StateHash {
        /// Applied index.
        index: LogIndex,
        /// The hash.
        hash: Hash128,
    },
    /// Both meta slots of the page file are at `index` or later: the log before it is not needed.
    Checkpointed {
        /// The lower of the two slots' applied indices.
        index: LogIndex,
    },
    /// A request about the members.
    Admin {
        /// Who waits.
        ticket: Ticket,
        /// What is wanted.
        request: AdminRequest,
    },
    /// The state of the member is wanted.
    Status {
        /// By whom.
        ticket: Ticket,
    },
    /// The limits of the member are wanted.
    Limits {
        /// By whom.
        ticket: Ticket,
        /// What its reactor has in use.
        uses: Vec<Use>,
    },
    /// Another member, or a stranger, has opened a socket to this one.
    LinkAccepted {
        /// Its name from now on.
        link: ConnectionId,
    },
    /// Bytes of the log that were asked for.
    LogRead {
        /// For whom.
        peer: NodeId,
        /// What was asked.
        read: wal::Read,
        /// The bytes; fewer where the file ends.
        bytes: Vec<u8>,
    },
    /// A dial has ended.
    LinkDialed {
        /// Its number.
        dial: u64,
        /// The socket; none if nobody answered.
        link: Option<ConnectionId>,
    },
    /// Bytes came in on a link.
    LinkReceived {
        /// Which.
        link: ConnectionId,
        /// The bytes.
        bytes: BytesMut,
    },
    /// The socket of a link takes no more for now, or has taken all that was sent.
    LinkBlocked {
        /// Which.
        link: ConnectionId,
        /// Whether bytes wait.
        blocked: bool,
    },
    /// A link has gone.
    LinkClosed {
        /// Which.
        link: ConnectionId,
    },
    /// Whether the page file is short of space.
    PageSpace {
        /// True: take only what frees space.
        low: bool,
        /// The pages in use are as many as may be: the same.
        quota_is_met: bool,
    },
    /// The store has a state to send.
    SendBegun {
        /// The number of the transfer.
        transfer: u64,
        /// The last entry that it has applied.
        index: LogIndex,
        /// The members there, and the index of the entry that set them.
        members: (Vec<u8>, LogIndex),
        /// Roughly its bytes.
        size_hint: u64,
    },
    /// The next chunk of it.
    SendChunk {
        /// The number of the transfer.
        transfer: u64,
        /// The chunk.
        chunk: Vec<u8>,
        /// Whether it is the last.
        last: bool,
    },
    /// The store cannot go on sending.
    SendFailed {
        /// The number of the transfer.
        transfer: u64,
        /// Why.
        reason: String,
    },
    /// The store has taken in a chunk of a state of another member.
    ReceiveTaken {
        /// The number of the transfer.
        transfer: u64,
        /// The number of the next chunk.
        next: u64,
    },
    /// The state of another member is here, whole and durable.
    ReceiveComplete {
        /// The number of the transfer.
        transfer: u64,
    },
    /// The store does not take the state of another member.
    ReceiveRefused {
        /// The number of the transfer.
        transfer: u64,
        /// Why.
        reason: String,
    },
    /// The state of another member has taken the place of the store's.
    Installed {
        /// Its last entry.
        index: LogIndex,
    },
    /// All writes of a group have completed.
    Written {
        /// Which group.
        lsn: Lsn,
    },
    /// The sync after the writes of this group and of those before it has completed.
    Synced {
        /// Which group.
        lsn: Lsn,
    },
    /// The file of a new segment is there.
    SlotMade {
        /// Its slot.
        slot: u32,
    },
    /// The file of a new segment could not be made: the disk is full. Nothing of it is left.
    SlotFailed,
    /// The header of a spare segment is durable.
    SpareReady {
        /// Its slot.
        slot: u32,
    },
    /// The watermark is durable.
    WatermarkDurable,
    /// Write the watermark and take no more proposals.
    Stop,
}

/// What consensus asks for.
#[derive(Debug)]
pub enum ConsensusEffect<B> {
    /// Write these, in any order, then report `Written`.
    WriteGroup {
        /// The group.
        lsn: Lsn,
        /// Its records.
        group: wal::Write<B>,
        /// The copy of its header.
        ring: Option<wal::Write<B>>,
    },
    /// Make what has been written durable, then report `Synced`. A sync flushes the cache of the
    /// device, which holds the ring as well: its blocks are written in place, so that nothing but
    /// that flush is needed to make them durable.
    Sync {
        /// The last group that waits for it.
        lsn: Lsn,
        /// The slots that hold the groups waiting: two where one group ended a segment.
        slots: [Option<WalFile>; 2],
    },
    /// Make the file of a new segment: all of it written with zeros and durable, its name too; then
    /// report `SlotMade` or `SlotFailed`.
    MakeSlot {
        /// The slot.
        slot: u32,
    },
    /// Write the header that makes a slot a spare segment, sync, report `SpareReady`.
    PrepareSpare {
        /// The slot.
        slot: u32,
        /// The header.
        header: wal::Write<B>,
    },
    /// Write the watermark, sync, report `WatermarkDurable`.
    WriteWatermark(wal::Write<B>),
    /// Read from the log for a peer, report `LogRead`.
    ReadLog {
        /// For whom.
        peer: NodeId,
        /// What.
        read: wal::Read,
    },
    /// Connect to another member, report `LinkDialed`.
    Dial {
        /// The number of the dial.
        dial: u64,
        /// Host and port.
        address: String,
    },
    /// Send bytes on a link.
    LinkSend {
        /// Which.
        link: ConnectionId,
        /// Whole frames.
        bytes: Vec<u8>,
    },
    /// Close a link once what was sent before has gone out; no report follows.
    LinkClose {
        /// Which.
        link: ConnectionId,
    },
    /// Something that the operator should know.
    Tell(String),
    /// Something that has happened, for who looks later how it came.
    Note(String),
    /// Stop the process: this member must not go on, and why.
    Halt(String),
    /// For a reactor.
    ToReactor(ReactorId, ReactorEvent),
    /// For the store.
    ToStore(StoreEvent),
}
