//! Journal: consensus' side of the WAL. It puts entries and cuts into groups in log order, follows the
//! groups to durability, keeps spare segments ready, and writes the watermark.
//!
//! ```text
//! append, cut ─► work that the open block has no room for ─► open block ─► group ─► written ─► durable
//! ```
//!
//! A group carries the era of the log that its records are of: what a leader has cut off since says
//! nothing about what is in the log now.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::{Duration, FileId, Hash128, Instant, LogIndex, Lsn, Mutant, Prng};
use raft::HardState;
use wal::{Append, Entry, Position, Seal, WalFile, Writer};

use crate::tail::{Kept, Tail};
use crate::{Allocate, ConsensusEffect};

/// The watermark is written this long after something became durable.
const WATERMARK_DELAY: Duration = Duration::from_millis(100);

/// A segment file that could not be made for want of space is tried again after this.
const SLOT_RETRY: Duration = Duration::from_millis(500);

/// What waits for room in the open block, in order.
enum Work {
    /// The entry of the tail at this index.
    Entry(LogIndex),
    /// The log ends here, and its era is this one.
    Cut(Position, u64),
    /// The log begins behind this, and its era is this one.
    Restart(Position, u64),
}

/// A group on its way: what its durability means to raft.
struct InFlight {
    lsn: Lsn,
    slot: WalFile,
    hard_state: HardState,
    begun: bool,
    era: u64,
    written: bool,
    since: Instant,
}

/// What has become durable.
pub struct Durable {
    /// Term and vote.
    pub hard_state: HardState,
    /// The member has begun.
    pub begun: bool,
    /// The end of the log.
    pub position: Position,
    /// The era that the log was of.
    pub era: u64,
}

/// The WAL as consensus uses it.
pub struct Journal<B> {
    writer: Writer<B>,
    allocate: Allocate<B>,
    /// Whether a group is durable as soon as its writes have completed (O_DSYNC).
    write_is_durable: bool,
    work: VecDeque<Work>,
    /// Groups that are not durable, in LSN order.
    in_flight: VecDeque<InFlight>,
    /// The last group that the sync on its way covers.
    syncing: Option<Lsn>,
    hard_state: HardState,
    begun: bool,
    /// The era of what is in the open block.
    era: u64,
    /// A slot that failed for want of space is tried again then.
    slot_retry_at: Option<Instant>,
    /// A slot or spare is being made; one at a time, for zeroing competes with groups.
    preparing: bool,
    next_slot: u32,
    prng: Prng,
    watermark_at: Option<Instant>,
    watermark_writing: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Journal<B> {
    /// Over a writer that nothing has been given to.
    pub fn new(
        writer: Writer<B>,
        allocate: Allocate<B>,
        write_is_durable: bool,
        next_slot: u32,
        seed: u64,
    ) -> Self {
        let hard_state = writer.hard_state();
        let begun = hard_state.begun;
        let hard_state = HardState { term: hard_state.term, vote: hard_state.vote };
        Self {
            writer,
            allocate,
            write_is_durable,
            work: VecDeque::new(),
            in_flight: VecDeque::new(),
            syncing: None,
            hard_state,
            begun,
            era: 0,
            slot_retry_at: None,
            preparing: false,
            next_slot,
            prng: Prng::new(seed),
            watermark_at: None,
            watermark_writing: false,
        }
    }

    /// The writer, for looking at.
    pub fn writer(&self) -> &Writer<B> {
        &self.writer
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_quiet(&self) -> bool {
        self.work.is_empty()
            && self.in_flight.is_empty()
            && !self.watermark_writing
            && self.watermark_at.is_none()
    }

    /// The next group says that this member has begun, and is due for that alone.
    pub fn set_begun(&mut self) {
        self.begun = true;
    }

    /// Whether a group says so, durable or not.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Since when the oldest group that is not durable has been on its way.
    pub fn oldest_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|group| group.since)
    }

    /// Whether no more segment can be made and what is ready has less room than this.
    pub fn is_short(&self, reserve_size: u64) -> bool {
        self.slot_retry_at.is_some() && self.writer.room() < reserve_size
    }

    /// Term and vote for the next group, which is due for them alone.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Puts the next entry of the log into the open block; none if there is no room.
    #[inline]
    pub fn append(&mut self, entry: &Entry<'_>) -> Option<Hash128> {
        if !self.work.is_empty() {
            return None;
        }
        match self.writer.append(entry, &mut *self.allocate) {
            Append::Taken(hash) => Some(hash),
            Append::Full => None,
        }
    }

    /// The entry of the tail at `index` goes into a block as soon as there is room.
    pub fn push(&mut self, index: LogIndex) {
        self.work.push_back(Work::Entry(index));
    }

    /// The log ends at `last`; its era is `era` from now on. Entries that were to be written and lie
    /// behind are not.
    pub fn cut(&mut self, last: Position, era: u64) {
        while let Some(Work::Entry(index)) = self.work.back()
            && *index > last.index
        {
            self.work.pop_back();
        }
        self.work.push_back(Work::Cut(last, era));
    }

    /// The log begins anew behind `base`.
    pub fn restart(&mut self, base: Position, era: u64) {
        self.work.clear();
        self.work.push_back(Work::Restart(base, era));
    }

    /// Puts into blocks what waits, as far as groups can be sealed.
    pub fn write_waiting(
        &mut self,
        now: Instant,
        tail: &Tail,
        committed: LogIndex,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        while let Some(work) = self.work.front() {
            let is_done = match *work {
                Work::Entry(index) => {
                    let kept = tail.get(index).expect("what is not written is in the tail");
                    let Kept { term, kind, frame, hash, .. } = kept;
                    let entry = Entry { index, term: *term, kind: *kind, payload: frame };
                    match self.writer.append(&entry, &mut *self.allocate) {
                        Append::Taken(written) => {
                            assert!(written == *hash, "the chain differs at entry {index}");
                            true
                        }
                        Append::Full => false,
                    }
                }
                Work::Cut(..) | Work::Restart(..) if self.writer.open_count() > 0 => false,
                Work::Cut(last, era) => {
                    // An entry that was never written may be cut off before it is.
                    if last.index < self.writer.last().index {
                        self.writer.cut(last);
                    }
                    self.era = era;
                    true
                }
                Work::Restart(base, era) => {
                    self.writer.restart(base);
                    self.era = era;
                    true
                }
            };
            if is_done {
                self.work.pop_front();
            } else if !self.seal_one(now, committed, effects) {
                return;
            }
        }
    }

    /// Seals what there is, as far as write slots are free.
    pub fn seal(
        &mut self,
        now: Instant,
        committed: LogIndex,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        while self.seal_one(now, committed, effects) {}
    }

    fn seal_one(
        &mut self,
        now: Instant,
        committed: LogIndex,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) -> bool {
        let HardState { term, vote } = self.hard_state;
        // Entries that are committed may still wait for room.
        let commit = committed.min(self.writer.last().index);
        self.writer.set_hard_state(wal::HardState { term, vote, commit, begun: self.begun });
        match self.writer.seal(&mut *self.allocate) {
            Seal::Nothing | Seal::Busy | Seal::NoSegment => false,
            Seal::Group(sealed) => {
                self.in_flight.push_back(InFlight {
                    lsn: sealed.lsn,
                    slot: sealed.group.file,
                    hard_state: self.hard_state,
                    begun: self.begun,
                    era: self.era,
                    written: false,
                    since: now,
                });
                effects.push(ConsensusEffect::WriteGroup {
                    lsn: sealed.lsn,
                    group: sealed.group,
                    ring: sealed.ring,
                });
                true
            }
        }
    }

    /// All writes of a group have completed.
    pub fn written(&mut self, lsn: Lsn) {
        self.writer.written(lsn);
        let group = self.in_flight.iter_mut().find(|group| group.lsn == lsn);
        group.expect("a group that was written is in flight").written = true;
    }

    /// The sync of groups up to `lsn` has completed.
    pub fn synced(&mut self) {
        self.syncing = None;
    }

    /// Makes the groups that are written, from the oldest on, durable: one sync at a time, each for
    /// all that had been written before it began. Returns the last group that is durable already.
    pub fn sync(&mut self, effects: &mut Vec<ConsensusEffect<B>>) -> Option<Lsn> {
        let written = || self.in_flight.iter().take_while(|group| group.written);
        let lsn = written().last()?.lsn;
        if self.write_is_durable || Mutant::DurableWhenWritten.is_on() {
            return Some(lsn);
        }
        if self.syncing.is_none() {
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
        None
    }

    /// The next group up to `lsn` is durable.
    pub fn next_durable(&mut self, now: Instant, lsn: Lsn) -> Option<Durable> {
        let group = self.in_flight.pop_front_if(|group| {
            group.lsn <= lsn || (Mutant::SyncCoversLater.is_on() && group.written)
        })?;
        let position = self.writer.durable(group.lsn);
        self.watermark_at.get_or_insert(now.after(WATERMARK_DELAY));
        let InFlight { hard_state, begun, era, .. } = group;
        Some(Durable { hard_state, begun, position, era })
    }

    /// Entries below `below` are not needed by a start; those from `keep` on may be by others, up to
    /// `keep_size` bytes of them.
    pub fn recycle(&mut self, below: LogIndex, keep: LogIndex, keep_size: u64) {
        self.writer.recycle(below, keep, keep_size);
    }

    /// Asks for what the next segments need.
    pub fn prepare_spares(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
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
            let slot = self.writer.take_unmade().unwrap_or(self.next_slot);
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

    /// The file of a new segment is there.
    pub fn slot_made(&mut self, slot: u32, effects: &mut Vec<ConsensusEffect<B>>) {
        self.next_slot = self.next_slot.max(slot + 1);
        self.slot_retry_at = None;
        self.prepare_spare(slot, effects);
    }

    /// The file of a new segment could not be made.
    pub fn slot_failed(&mut self, now: Instant) {
        self.preparing = false;
        self.slot_retry_at = Some(now.after(SLOT_RETRY));
    }

    /// The header of a spare segment is durable.
    pub fn spare_ready(&mut self, slot: u32) {
        self.preparing = false;
        self.writer.spare_ready(slot);
    }

    /// The watermark is durable.
    pub fn watermark_durable(&mut self) {
        self.watermark_writing = false;
        self.writer.watermark_durable();
    }

    /// The watermark is due now, if one is to be written.
    pub fn hurry_watermark(&mut self, now: Instant) {
        if self.watermark_at.is_some() {
            self.watermark_at = Some(now);
        }
    }

    /// Writes the watermark when it is due; the last one of a process that stops only when nothing
    /// follows it.
    pub fn write_watermark(
        &mut self,
        now: Instant,
        stopping: bool,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let is_due = self.watermark_at.is_some_and(|at| now >= at);
        if !is_due || (stopping && !self.in_flight.is_empty()) {
            return;
        }
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

    /// When it wants a turn without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let slot_retry_at = self.slot_retry_at.filter(|_| !self.preparing);
        [self.watermark_at, slot_retry_at].into_iter().flatten().min()
    }
}
