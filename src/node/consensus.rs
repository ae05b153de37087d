//! Consensus: the role that orders writes. It joins raft, which knows positions, and the WAL, which
//! holds bytes; what is committed goes to the store.
//!
//! ```text
//! Propose ─► position (raft) ─► open block (wal) ─► group written ─► durable ─► committed ─► Apply
//! proposed        >=          appended       >=        durable  >=  committed
//! ```
//!
//! A turn's proposals share one group: `flush` seals when a write slot is free, so that while the
//! device is busy records gather in the open block and the group size follows the device.
//!
//! Bounds: proposals that have been taken in and not applied are at most `proposed_bytes_max`; beyond
//! that, and while space is short, clients get a typed refusal. Deletes, compactions and the empty
//! entry of a new term live on the WAL's reserve.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use base::{Duration, FileId, Frame, Instant, LogIndex, Lsn, Prng, ReactorId, Ticket};
use raft::{HardState, Output, Raft};
use wal::{Append, Seal, WalFile, Writer};
use wire::Status;

use crate::message::{Committed, EntryKind, Refused, Reply, ReplyBody};
use crate::{Allocate, ReactorEvent, Role, StoreEvent};

/// The watermark is written this long after something became durable.
const WATERMARK_DELAY: Duration = Duration::from_millis(100);

/// A segment file that could not be made for want of space is tried again after this.
const SLOT_RETRY: Duration = Duration::from_millis(500);

/// What consensus is told at its making.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// Bytes of proposals taken in and not applied.
    pub proposed_bytes_max: usize,
    /// Whether a group is durable as soon as its writes have completed (O_DSYNC), so that no sync
    /// follows them.
    pub write_is_durable: bool,
    /// Bytes of groups that still fit the WAL below which, once no more space is to be had, only
    /// requests that free space are taken.
    pub reserve_size: u64,
    /// Slot number for the first new segment file: above all that are there.
    pub next_slot: u32,
    /// Randomness for the names of segments, from the system.
    pub seed: u64,
}

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
        /// Whether it only gives space back.
        frees_space: bool,
        /// The verified body.
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
    /// Both meta slots of the page file are at `index` or later: the log before it is not needed.
    Checkpointed {
        /// The lower of the two slots' applied indices.
        index: LogIndex,
    },
    /// Whether the page file is short of space.
    PageSpace {
        /// True: take only what frees space.
        low: bool,
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
    /// For a reactor.
    ToReactor(ReactorId, ReactorEvent),
    /// For the store.
    ToStore(StoreEvent),
}

/// A group on its way: what its durability means to raft.
struct InFlight {
    lsn: Lsn,
    slot: WalFile,
    hard_state: HardState,
    written: bool,
}

struct Proposal {
    ticket: Ticket,
    kind: EntryKind,
    frame: Frame,
    deadline: Option<Instant>,
}

/// The role of the consensus core.
pub struct Consensus<B> {
    config: ConsensusConfig,
    raft: Raft,
    writer: Writer<B>,
    allocate: Allocate<B>,
    /// Taken in, not appended yet: the open block is full.
    waiting: VecDeque<Proposal>,
    /// Appended, not committed yet.
    appended: VecDeque<Committed>,
    /// Groups that are not durable, in LSN order.
    in_flight: VecDeque<InFlight>,
    /// The last group that the sync on its way covers.
    syncing: Option<Lsn>,
    hard_state: HardState,
    /// Bytes of proposals taken in and not applied.
    proposed_bytes: usize,
    page_space_low: bool,
    /// A slot that failed for want of space is tried again then.
    slot_retry_at: Option<Instant>,
    /// A slot or spare is being made; one at a time, for zeroing competes with groups.
    preparing: bool,
    next_slot: u32,
    prng: Prng,
    watermark_at: Option<Instant>,
    watermark_writing: bool,
    stopping: bool,
    /// What the store was last told of the log's size and space.
    log_told: (u64, bool),
    outputs: Vec<Output>,
    replies: Vec<(ReactorId, Vec<Reply>)>,
    read_waiters: Vec<ReactorId>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Consensus after recovery; it begins with [`ConsensusEvent::Start`]. `pending` are the entries
    /// of the log behind its commit index.
    pub fn new(
        config: ConsensusConfig,
        raft: Raft,
        writer: Writer<B>,
        allocate: Allocate<B>,
        pending: Vec<Committed>,
    ) -> Self {
        let (next_slot, prng) = (config.next_slot, Prng::new(config.seed));
        let hard_state = writer.hard_state();
        let hard_state = HardState { term: hard_state.term, vote: hard_state.vote };
        Self {
            config,
            raft,
            writer,
            allocate,
            waiting: VecDeque::new(),
            appended: pending.into(),
            in_flight: VecDeque::new(),
            syncing: None,
            hard_state,
            proposed_bytes: 0,
            page_space_low: false,
            slot_retry_at: None,
            preparing: false,
            next_slot,
            prng,
            watermark_at: None,
            watermark_writing: false,
            stopping: false,
            log_told: (0, false),
            outputs: Vec::new(),
            replies: Vec::new(),
            read_waiters: Vec::new(),
        }
    }

    /// Whether this member leads and has committed in its term: it can serve.
    pub fn may_serve(&self) -> bool {
        self.raft.read_index().is_some()
    }

    /// The greatest durable LSN.
    pub fn durable_lsn(&self) -> Lsn {
        self.writer.durable_lsn()
    }

    /// Whether nothing is on its way to the disk or to the store.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.appended.is_empty()
            && self.in_flight.is_empty()
            && self.proposed_bytes == 0
            && !self.watermark_writing
            && self.watermark_at.is_none()
    }

    /// Whether only requests that free space may go on.
    fn space_is_low(&self) -> bool {
        self.page_space_low
            || (self.slot_retry_at.is_some() && self.writer.room() < self.config.reserve_size)
    }

    fn refuse(&mut self, ticket: Ticket, status: Status, message: String) {
        let refused = Refused { status, message, compacted: 0, applied: false };
        let reply = Reply { ticket, body: ReplyBody::Refused(refused) };
        match self.replies.iter_mut().find(|(reactor, _)| *reactor == ticket.reactor) {
            Some((_, replies)) => replies.push(reply),
            None => self.replies.push((ticket.reactor, [reply].into())),
        }
    }

    fn propose(&mut self, proposal: Proposal, frees_space: bool) {
        assert!(self.outputs.is_empty(), "raft's outputs wait: {:?}", self.outputs);
        let size = proposal.frame.len();
        if self.stopping {
            let message = "the server is stopping; nothing was written; send the request again \
                           when it is back"
                .into();
            return self.refuse(proposal.ticket, Status::ShuttingDown, message);
        }
        if self.space_is_low() && !frees_space {
            let message =
                "the disk is full; nothing was written; delete keys and compact, or make \
                           room on the file system of the data directory, then try again"
                    .into();
            return self.refuse(proposal.ticket, Status::NoSpace, message);
        }
        if self.proposed_bytes > 0 && self.proposed_bytes + size > self.config.proposed_bytes_max {
            let message = format!(
                "{} bytes of writes wait for the disk and the limit is {}; nothing was written; \
                 try again after a pause",
                self.proposed_bytes, self.config.proposed_bytes_max
            );
            return self.refuse(proposal.ticket, Status::Overloaded, message);
        }
        self.proposed_bytes += size;
        if !self.waiting.is_empty() {
            self.waiting.push_back(proposal);
        } else if let Err(proposal) = self.append(proposal) {
            self.waiting.push_back(proposal);
        }
    }

    /// Gives the proposal a position and copies it into the open block, unless that is full.
    fn append(&mut self, proposal: Proposal) -> Result<(), Proposal> {
        let Some((index, term)) = self.raft.next() else {
            self.proposed_bytes -= proposal.frame.len();
            let message = "this member does not lead; nothing was written; try another member or \
                           again after the election"
                .into();
            self.refuse(proposal.ticket, Status::NotLeader, message);
            return Ok(());
        };
        let kind = proposal.kind;
        let record = wal::Entry { index, term, kind: kind as u8, payload: &proposal.frame };
        match self.writer.append(&record, &mut *self.allocate) {
            Append::Full => Err(proposal),
            Append::Taken(_) => {
                self.raft.propose().expect("it leads: it named the next position");
                let Proposal { ticket, frame, .. } = proposal;
                let entry = Committed { index, term, kind, frame, ticket: Some(ticket) };
                self.appended.push_back(entry);
                Ok(())
            }
        }
    }

    /// Appends what waits, as far as the open block has room; drops what nobody waits for any more.
    fn append_waiting(&mut self, now: Instant) {
        while let Some(proposal) = self.waiting.pop_front() {
            if proposal.deadline.is_some_and(|deadline| now > deadline) {
                self.proposed_bytes -= proposal.frame.len();
                let message = "the deadline of the request passed before it was written; nothing \
                               was written"
                    .into();
                self.refuse(proposal.ticket, Status::DeadlineExceeded, message);
            } else if let Err(proposal) = self.append(proposal) {
                self.waiting.push_front(proposal);
                return;
            }
        }
    }

    /// Does what raft wants, at once: a proposal that came in between would take the position that
    /// the empty entry of a new leader has.
    fn take_outputs(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        let mut outputs = mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                // The next group carries it, and is due for that alone.
                Output::SaveHardState(state) => self.hard_state = state,
                Output::AppendEmpty { index, term } => {
                    let (kind, frame) = (EntryKind::Empty, Frame::new());
                    let record = wal::Entry { index, term, kind: kind as u8, payload: &frame };
                    match self.writer.append(&record, &mut *self.allocate) {
                        Append::Taken(_) => {}
                        Append::Full => unreachable!("a member that does not lead appends nothing"),
                    }
                    self.appended.push_back(Committed { index, term, kind, frame, ticket: None });
                }
                Output::Committed { index } => self.commit(index, effects),
                Output::Leading { term } => {
                    effects.push(ConsensusEffect::ToStore(StoreEvent::Leading { term }));
                }
                other => unreachable!("a lone voter has no peers and takes no changes: {other:?}"),
            }
        }
        self.outputs = outputs;
    }

    /// Hands committed entries to the store.
    fn commit(&mut self, index: LogIndex, effects: &mut Vec<ConsensusEffect<B>>) {
        let count = self.appended.partition_point(|entry| entry.index <= index);
        let entries: Vec<Committed> = self.appended.drain(..count).collect();
        if !entries.is_empty() {
            effects.push(ConsensusEffect::ToStore(StoreEvent::Apply(entries)));
        }
    }

    /// Groups up to `lsn`, all written, are durable.
    fn groups_durable(&mut self, now: Instant, lsn: Lsn) {
        while let Some(group) = self.in_flight.front()
            && group.lsn <= lsn
        {
            let position = self.writer.durable(group.lsn);
            self.raft.hard_state_durable(group.hard_state, &mut self.outputs);
            self.raft.durable(position.index, position.term, &mut self.outputs);
            self.in_flight.pop_front();
        }
        if self.watermark_at.is_none() {
            self.watermark_at = Some(now.after(WATERMARK_DELAY));
        }
    }

    fn group_written(&mut self, lsn: Lsn) {
        self.writer.written(lsn);
        let group = self.in_flight.iter_mut().find(|group| group.lsn == lsn);
        group.expect("a group that was written is in flight").written = true;
    }

    /// Makes the groups that are written, from the oldest on, durable: one sync at a time, each for
    /// all that had been written before it began.
    fn sync(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let written = || self.in_flight.iter().take_while(|group| group.written);
        let Some(last) = written().last() else { return };
        let lsn = last.lsn;
        if self.config.write_is_durable {
            self.groups_durable(now, lsn);
            self.take_outputs(effects);
        } else if self.syncing.is_none() {
            let mut slots = [None; 2];
            for group in written() {
                match slots {
                    [None, _] => slots[0] = Some(group.slot),
                    [Some(first), _] if first == group.slot => {}
                    [Some(_), _] => slots[1] = Some(group.slot),
                }
            }
            self.syncing = Some(lsn);
            effects.push(ConsensusEffect::Sync { lsn, slots });
        }
    }

    fn answer_reads(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        if self.read_waiters.is_empty() {
            return;
        }
        // A lone voter is its own quorum: it has led since before the question came in.
        let answer = if self.raft.is_lone_voter() { self.raft.read_index() } else { None };
        if let Some(index) = answer {
            for reactor in self.read_waiters.drain(..) {
                let event = ReactorEvent::ReadGranted { index };
                effects.push(ConsensusEffect::ToReactor(reactor, event));
            }
        }
    }

    fn seal(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        let (HardState { term, vote }, commit) = (self.hard_state, self.raft.log().committed());
        self.writer.set_hard_state(wal::HardState { term, vote, commit });
        loop {
            match self.writer.seal(&mut *self.allocate) {
                Seal::Nothing | Seal::Busy | Seal::NoSegment => return,
                Seal::Group(sealed) => {
                    self.in_flight.push_back(InFlight {
                        lsn: sealed.lsn,
                        slot: sealed.group.file,
                        hard_state: self.hard_state,
                        written: false,
                    });
                    effects.push(ConsensusEffect::WriteGroup {
                        lsn: sealed.lsn,
                        group: sealed.group,
                        ring: sealed.ring,
                    });
                }
            }
        }
    }

    fn prepare_spares(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        if self.preparing {
            return;
        }
        if self.writer.spares_wanted() == 0 {
            self.slot_retry_at = None;
            return;
        }
        if let Some(slot) = self.writer.take_free() {
            self.prepare_spare(slot, effects);
        } else if self.slot_retry_at.is_none_or(|at| now >= at) {
            self.preparing = true;
            let slot = self.next_slot;
            effects.push(ConsensusEffect::MakeSlot { slot });
        }
    }

    fn prepare_spare(&mut self, slot: u32, effects: &mut Vec<ConsensusEffect<B>>) {
        self.preparing = true;
        let (high, low) = (self.prng.next_u64(), self.prng.next_u64());
        let uuid = FileId::new((u128::from(high) << 64) | u128::from(low));
        let header = self.writer.prepare_spare(slot, uuid, &mut *self.allocate);
        effects.push(ConsensusEffect::PrepareSpare { slot, header });
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Role for Consensus<B> {
    type Event = ConsensusEvent;
    type Effect = ConsensusEffect<B>;

    fn handle(
        &mut self,
        now: Instant,
        event: ConsensusEvent,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        match event {
            ConsensusEvent::Start => {
                self.raft.campaign(&mut self.outputs);
                self.take_outputs(effects);
            }
            ConsensusEvent::Propose { ticket, kind, frees_space, frame, deadline } => {
                self.propose(Proposal { ticket, kind, frame, deadline }, frees_space);
            }
            ConsensusEvent::ReadIndex { reactor } => self.read_waiters.push(reactor),
            ConsensusEvent::Applied { bytes, index: _ } => self.proposed_bytes -= bytes,
            ConsensusEvent::Checkpointed { index } => self.writer.recycle(index.next()),
            ConsensusEvent::PageSpace { low } => self.page_space_low = low,
            ConsensusEvent::Written { lsn } => self.group_written(lsn),
            ConsensusEvent::Synced { lsn } => {
                self.syncing = None;
                self.groups_durable(now, lsn);
                self.take_outputs(effects);
            }
            ConsensusEvent::SlotMade { slot } => {
                self.next_slot = slot + 1;
                self.slot_retry_at = None;
                self.prepare_spare(slot, effects);
            }
            ConsensusEvent::SlotFailed => {
                self.preparing = false;
                self.slot_retry_at = Some(now.after(SLOT_RETRY));
            }
            ConsensusEvent::SpareReady { slot } => {
                self.preparing = false;
                self.writer.spare_ready(slot);
            }
            ConsensusEvent::WatermarkDurable => {
                self.watermark_writing = false;
                self.writer.watermark_durable();
            }
            ConsensusEvent::Stop => {
                self.stopping = true;
                if self.watermark_at.is_some() {
                    self.watermark_at = Some(now);
                }
            }
        }
    }

    fn flush(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        self.sync(now, effects);
        self.append_waiting(now);
        self.seal(effects);
        if !self.waiting.is_empty() {
            // Sealing made room; the next group gathers while this one is on its way.
            self.append_waiting(now);
            self.seal(effects);
        }
        self.answer_reads(effects);
        self.prepare_spares(now, effects);
        let log = (self.writer.size(), self.space_is_low());
        if log != self.log_told {
            self.log_told = log;
            let (size, no_space) = log;
            effects.push(ConsensusEffect::ToStore(StoreEvent::Log { size, no_space }));
        }
        if self.watermark_at.is_some_and(|at| now >= at)
            && (!self.stopping || self.in_flight.is_empty())
        {
            // One that is still on its way is followed by another.
            self.watermark_at = None;
            match self.writer.watermark(&mut *self.allocate) {
                Some(write) => {
                    self.watermark_writing = true;
                    effects.push(ConsensusEffect::WriteWatermark(write));
                }
                None if self.watermark_writing => {
                    self.watermark_at = Some(now.after(WATERMARK_DELAY));
                }
                None => {}
            }
        }
        for (reactor, replies) in self.replies.drain(..) {
            effects.push(ConsensusEffect::ToReactor(reactor, ReactorEvent::Replies(replies)));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let slot_retry_at = self.slot_retry_at.filter(|_| !self.preparing);
        [self.watermark_at, slot_retry_at].into_iter().flatten().min()
    }
}
