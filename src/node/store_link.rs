//! What the store is told, and what it asks for: two closed enums.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use base::{ConnectionId, Frame, LogIndex, ReactorId, Term, Ticket};
use tree::Miss;

use crate::gauges::Use;
use crate::message::{Committed, ReadRequest, Standing, WatchRequest};
use crate::{ConsensusEvent, ReactorEvent};

/// What happens to the store.
#[derive(Debug)]
pub enum StoreEvent {
    /// Committed entries, following the ones before.
    Apply(Vec<Committed>),
    /// A read that may run once enough is applied.
    Read(ReadRequest),
    /// The connection takes the next piece of a long answer.
    Continue {
        /// Whose.
        ticket: Ticket,
    },
    /// Nobody waits for this read any more.
    Cancel {
        /// Whose.
        ticket: Ticket,
    },
    /// A connection has gone: nobody waits for anything of it.
    Forget {
        /// Of this reactor.
        reactor: ReactorId,
        /// Which.
        connection: ConnectionId,
    },
    /// Publish what is changed to a reactor, or do not any more.
    Publish {
        /// To which.
        reactor: ReactorId,
        /// Whether.
        on: bool,
    },
    /// A watch is behind: read for it. Publishing to its reactor is on.
    Watch(WatchRequest),
    /// The leader wants to know whose leases' time is up.
    Due {
        /// The log time.
        time: u64,
        /// The leader's term.
        term: Term,
    },
    /// This member, the leader, has refused a write because its quota is met.
    QuotaRefused,
    /// The state of the member is wanted.
    Status {
        /// By whom.
        ticket: Ticket,
        /// What consensus knows.
        standing: Standing,
    },
    /// What a reactor has in use, as it looked around.
    Use {
        /// Which.
        reactor: ReactorId,
        /// It.
        uses: Vec<Use>,
    },
    /// The limits of the member are wanted.
    Limits {
        /// By whom.
        ticket: Ticket,
        /// What its reactor and consensus have in use.
        uses: Vec<Use>,
    },
    /// Bytes of the page file that were asked for.
    PageRead {
        /// What was missing.
        miss: Miss,
        /// Its bytes; fewer than asked for where the file ends.
        bytes: Vec<u8>,
        /// As asked.
        for_transfer: bool,
    },
    /// A write of the page file has completed.
    PagesWritten,
    /// All completed writes of the page file are durable.
    PagesSynced,
    /// The page file was to get disk space up to `size`.
    Grown {
        /// Bytes.
        size: u64,
        /// Whether it got it; if not, the disk is full.
        grown: bool,
    },
    /// What the file system of the page file has left, in bytes: told before `Grown`.
    Available {
        /// Bytes.
        size: u64,
    },
    /// Space of the page file has been handed back.
    Released,
    /// Send the state to another member.
    Send {
        /// The number of the transfer.
        transfer: u64,
        /// It must have applied at least this.
        index_min: LogIndex,
    },
    /// The next chunk of a state that is sent is wanted.
    SendNext {
        /// The number of the transfer.
        transfer: u64,
    },
    /// A state is not sent any more.
    SendEnd {
        /// The number of the transfer.
        transfer: u64,
    },
    /// The state of another member begins to come in; one that came in before is dropped.
    Receive {
        /// The number of the transfer.
        transfer: u64,
    },
    /// A chunk of it.
    ReceiveChunk {
        /// The number of the transfer.
        transfer: u64,
        /// The chunk.
        chunk: Frame,
    },
    /// It is not wanted any more.
    ReceiveEnd,
    /// The state that has come in takes the place of the present one, and all of the log up to there.
    Install {
        /// The number of the transfer.
        transfer: u64,
    },
    /// The log begins with that state, durably: its file takes the place of the old one.
    InstallDurable,
    /// What has happened in the file on its way in.
    Incoming {
        /// The number of the transfer.
        transfer: u64,
        /// What.
        event: Box<StoreEvent>,
    },
    /// The file on its way in has been made, empty.
    IncomingMade,
}

/// What the store asks for.
#[derive(Debug)]
pub enum StoreEffect<B> {
    /// Read from the page file, report `PageRead`.
    Read {
        /// What is missing.
        miss: Miss,
        /// Offset in bytes.
        offset: u64,
        /// Bytes.
        size: usize,
        /// For a state that is sent, not for the page cache.
        for_transfer: bool,
    },
    /// Write to the page file, report `PagesWritten`.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// The memory; the first `size` bytes of it.
        block: B,
        /// Bytes.
        size: usize,
    },
    /// Make all completed writes of the page file durable, report `PagesSynced`.
    Sync,
    /// Give the page file disk space, report `Grown`.
    Grow {
        /// Up to this size in bytes.
        size: u64,
    },
    /// Hand space in the middle of the page file back, report `Released`.
    Punch {
        /// Offset in bytes.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// Cut the page file, report `Released`.
    Truncate {
        /// New size in bytes.
        size: u64,
    },
    /// Make an empty second page file, in the place of one that is there, its name durable; report
    /// `Incoming` of `IncomingMade`.
    MakeIncoming {
        /// The number of the transfer.
        transfer: u64,
    },
    /// Do this with the second page file, report `Incoming` of what would be reported else.
    Incoming {
        /// The number of the transfer.
        transfer: u64,
        /// What.
        effect: Box<StoreEffect<B>>,
    },
    /// Remove the second page file.
    DropIncoming,
    /// From now on the second page file is the one that is meant; nothing is under way in the first.
    AdoptIncoming,
    /// Give the file that was adopted the name of the old one, durably.
    RenameIncoming,
    /// For a reactor.
    ToReactor(ReactorId, ReactorEvent),
    /// For consensus.
    ToConsensus(ConsensusEvent),
    /// Tell the operator.
    Tell(String),
    /// Tell the operator that all is well again.
    Note(String),
    /// Stop the process: the stored state is damaged and must not be served.
    Halt(String),
}
