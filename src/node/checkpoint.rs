//! Checkpoint: brings the state from memory into the page file, a slice per turn, off the path of
//! acknowledgements.
//!
//! ```text
//! idle ─ due ─► writing ─ all runs written ─► syncing pages ─► writing meta ─► syncing meta ─► idle
//! ```
//!
//! A checkpoint is due after so many bytes of log, so much dirty memory, or so long after the last
//! change; so the log that a restart has to replay is bounded. The meta record is written only after
//! every page it leads to is durable. When it is durable itself, the log is needed only from the older
//! of the two meta slots on.
//!
//! Space: the file gets disk space ahead of need. A full disk is left by deleting and compacting, and
//! that takes space before it gives any: every page on the way is copied, what it replaces is free only
//! two checkpoints later, and what is deleted is history first. So a **reserve** is kept, and writes are
//! refused when what is left comes down to it:
//!
//! ```text
//! room_min                 writes that were let in before, and three windows of copied pages: of the
//!                          published checkpoint, of the running one, and since
//! + State::delete_growth   what the trees grow by when everything live is deleted
//! ```
//!
//! It is left in the file system as long as that has plenty, and kept in the file when it comes to its
//! end. While no more is to be had, the windows are small: checkpoints follow each
//! other after a fraction of `room_min`, in the middle of an entry too. Every delete takes less than it
//! takes off the reserve, so deletes never end before everything is deleted.

use alloc::format;
use alloc::vec::Vec;

use base::{Duration, Instant, LogIndex, Mutant};
use kv::State;
use tree::{META_SIZE, Release};

use crate::{Allocate, ConsensusEvent, StoreEffect};

/// Bytes written to the page file at once, and bytes encoded per turn: what one slice of a checkpoint
/// may delay others by (encoding 1 MiB takes some 0.2 ms).
const WRITES_MAX: u32 = 4;
const ENCODE_SIZE: usize = 1 << 20;

/// Space that could not be had is asked for again after this.
const GROW_RETRY: Duration = Duration::from_millis(500);

/// Bytes freed, but still within reach of a meta slot, for which checkpoints are made on an idle server.
const WAITING_MIN: u64 = 4 << 20;

/// A checkpoint that is due and cannot begin is tried again after this.
const DUE_RETRY: Duration = Duration::from_millis(50);

/// Bytes that the file system must have beyond the reserve for the part of it that need not be in the
/// file: what the log may take meanwhile, and others.
const AVAILABLE_MIN: u64 = 2 << 30;

/// The part of `room_min` that may be dirty while the disk is full, and the part of that at which a
/// checkpoint begins: three windows take less than a quarter of it.
const WINDOW_SHARE: u64 = 16;

/// What is handed back to the file system at once, and the pause behind it: 80 MiB a second. A disk may
/// discard before it goes on with other writes: 64 MiB took one 10 ms, and all that a
/// compaction had freed, 700 MB, 70 to 200 ms. What is written meanwhile goes into free pages.
const RELEASE_SIZE: u64 = 4 << 20;
const RELEASE_PAUSE_MS: u64 = 50;

/// When checkpoints are made.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    /// Bytes of applied log after which one is due.
    pub log_size: u64,
    /// Dirty bytes at which one is due.
    pub dirty_size: u64,
    /// Time after which one is due if anything has been applied.
    pub interval: Duration,
    /// Bytes of room in the page file below which space is short whatever it holds: the fixed part of
    /// the reserve.
    pub room_min: u64,
    /// Bytes of pages in use from which on only what frees space is taken; 0: there is no such limit.
    pub quota_size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Writing,
    SyncingPages,
    WritingMeta,
    SyncingMeta,
}

/// The making of checkpoints, one at a time.
pub struct Checkpoint {
    config: CheckpointConfig,
    phase: Phase,
    writes: u32,
    is_planned: bool,
    /// Applied index of the checkpoint being made, and of the last published one.
    target: LogIndex,
    published: LogIndex,
    /// How many have begun.
    begun: u64,
    /// Bytes of log applied since the last plan.
    log_size: u64,
    due_at: Instant,
    growing: bool,
    grow_at: Option<Instant>,
    /// The last request for space was refused.
    disk_is_full: bool,
    has_asked: bool,
    /// Bytes that the file system had left when it was last asked.
    available: Option<u64>,
    space_is_low: bool,
    quota_is_met: bool,
    /// The operator has been told that it is.
    quota_is_told: bool,
    releasing: bool,
    /// Not before this more of it is handed back.
    release_at: Option<Instant>,
    /// Much was freed that only further checkpoints give back.
    is_waiting: bool,
    /// One is wanted as soon as it can begin.
    is_forced: bool,
}

impl Checkpoint {
    /// After recovery: `published` is the applied index of the page file.
    pub fn new(config: CheckpointConfig, published: LogIndex, now: Instant) -> Self {
        let due_at = now.after(config.interval);
        Self {
            config,
            phase: Phase::Idle,
            writes: 0,
            is_planned: false,
            target: published,
            published,
            begun: 0,
            log_size: 0,
            due_at,
            growing: false,
            grow_at: None,
            disk_is_full: false,
            has_asked: false,
            available: None,
            space_is_low: false,
            quota_is_met: false,
            quota_is_told: false,
            releasing: false,
            release_at: None,
            is_waiting: false,
            is_forced: false,
        }
    }

    /// One is to be made as soon as it can begin.
    pub fn force(&mut self) {
        self.is_forced = true;
    }

    /// Applied index of the last one.
    pub fn published(&self) -> LogIndex {
        self.published
    }

    /// Whether nothing is under way in the file, and none is wanted at once.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Idle && !self.growing && !self.releasing && !self.is_forced
    }

    /// Whether one is being made.
    pub fn is_running(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// How many have begun.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether the page file is short of space.
    pub fn space_is_low(&self) -> bool {
        self.space_is_low
    }

    /// Whether the pages in use are as many as may be.
    pub fn quota_is_met(&self) -> bool {
        self.quota_is_met
    }

    /// Bytes of pages in use from which on only what frees space is taken; 0: none.
    pub fn quota_size(&self) -> u64 {
        self.config.quota_size
    }

    /// An entry with a payload of `size` bytes has been applied.
    pub fn applied(&mut self, size: usize) {
        self.log_size += u64::try_from(size).expect("a size fits u64") + 64;
    }

    /// Takes the checkpoint a slice further.
    pub fn step<B: AsMut<[u8]>>(
        &mut self,
        now: Instant,
        state: &mut State,
        allocate: &mut Allocate<B>,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        state.pages_mut().drop_unbacked();
        self.grow(now, state, effects);
        self.judge_space(state, effects);
        self.is_waiting = state.pages().waiting_size() >= WAITING_MIN;
        match self.phase {
            Phase::Idle if self.is_due(now, state) => {
                self.target = state.applied().0;
                self.begun += 1;
                self.log_size = 0;
                self.is_forced = false;
                self.due_at = now.after(self.config.interval);
                state.checkpoint_begin();
                self.phase = Phase::Writing;
                self.is_planned = true;
                self.write(state, allocate, effects);
            }
            Phase::Idle => {
                if now >= self.due_at {
                    // Due, but the state cannot be written in the middle of its entry, or the file has
                    // no space.
                    self.due_at = now.after(DUE_RETRY);
                }
                self.release(now, state, effects);
            }
            Phase::Writing => self.write(state, allocate, effects),
            Phase::WritingMeta if self.writes == 0 => {
                self.phase = Phase::SyncingMeta;
                if Mutant::MetaNotSynced.is_on() {
                    return self.synced(state, allocate, effects);
                }
                effects.push(StoreEffect::Sync);
            }
            Phase::SyncingPages | Phase::WritingMeta | Phase::SyncingMeta => {}
        }
    }

    fn is_due(&self, now: Instant, state: &State) -> bool {
        let pages = state.pages();
        let wanted = self.is_forced
            || self.log_size >= self.config.log_size
            || pages.dirty_size() >= self.dirty_size_due()
            || (self.log_size > 0 && (now >= self.due_at || self.holds_back(state)))
            || (self.is_waiting && now >= self.due_at)
            // Space that was freed comes back only with checkpoints.
            || (self.space_is_low && self.is_waiting);
        // Pages without disk space cannot be written.
        wanted && state.may_checkpoint() && pages.may_begin()
    }

    fn write<B: AsMut<[u8]>>(
        &mut self,
        state: &mut State,
        allocate: &mut Allocate<B>,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        let mut encoded = 0;
        while self.is_planned && self.writes < WRITES_MAX && encoded < ENCODE_SIZE {
            let Some(run) = state.pages_mut().checkpoint_next() else {
                self.is_planned = false;
                break;
            };
            let mut block = allocate(run.size);
            state.pages_mut().checkpoint_fill(&run, &mut block.as_mut()[..run.size]);
            effects.push(StoreEffect::Write { offset: run.offset, block, size: run.size });
            self.writes += 1;
            encoded += run.size;
        }
        if !self.is_planned && self.writes == 0 {
            self.phase = Phase::SyncingPages;
            if Mutant::MetaBeforePages.is_on() {
                return self.synced(state, allocate, effects);
            }
            effects.push(StoreEffect::Sync);
        }
    }

    /// A write has completed.
    pub fn written(&mut self) {
        assert!(self.writes > 0, "a write completed that was not begun");
        self.writes -= 1;
    }

    /// What has been written is durable.
    pub fn synced<B: AsMut<[u8]>>(
        &mut self,
        state: &mut State,
        allocate: &mut Allocate<B>,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        match self.phase {
            Phase::SyncingPages => {
                let mut record = [0; META_SIZE];
                let offset = state.pages_mut().checkpoint_meta(&mut record);
                let mut block = allocate(META_SIZE);
                block.as_mut()[..META_SIZE].copy_from_slice(&record);
                effects.push(StoreEffect::Write { offset, block, size: META_SIZE });
                self.writes = 1;
                self.phase = Phase::WritingMeta;
            }
            Phase::SyncingMeta => {
                state.pages_mut().checkpoint_published();
                // Both slots may be chosen at the next start: the log is kept from the older one on.
                let index = self.published;
                self.published = self.target;
                let index = if Mutant::LogFromNewest.is_on() { self.target } else { index };
                self.phase = Phase::Idle;
                effects.push(StoreEffect::ToConsensus(ConsensusEvent::Checkpointed { index }));
            }
            Phase::Idle | Phase::Writing | Phase::WritingMeta => {
                unreachable!("no sync was begun in {:?}", self.phase)
            }
        }
    }

    fn grow<B>(&mut self, now: Instant, state: &State, effects: &mut Vec<StoreEffect<B>>) {
        if self.growing || self.releasing || self.grow_at.is_some_and(|at| now < at) {
            return;
        }
        let pages = state.pages();
        let wanted = if !core::mem::replace(&mut self.has_asked, true) {
            // The answer says what the file system has.
            pages.wants_growth().or(Some(pages.backed()))
        } else if !self.disk_is_full {
            // Room can be there in single pages alone, and the free list is written in one piece: without a
            // place for it no checkpoint would ever begin.
            let scattered = || (!pages.may_begin()).then(|| pages.backed() + pages.growth_size());
            pages.wants_room(self.room_wanted(state)).or_else(scattered)
        } else if !pages.may_begin() {
            // No more than what keeps the next checkpoint from being written: that frees pages.
            Some(pages.file_size().max(pages.backed() + (1 << 20)))
        } else {
            // Asked for again until there is some: only that ends the shortage.
            let lacks = self.room_wanted(state).saturating_sub(pages.room());
            let available = self.available.unwrap_or(lacks) / 2;
            Some(pages.backed() + lacks.min(available).max(1 << 20))
        };
        self.growing = wanted.is_some();
        self.grow_at = None;
        effects.extend(wanted.map(|size| StoreEffect::Grow { size }));
    }

    /// What must be left for deletes and compaction.
    pub fn reserve(&self, state: &State) -> u64 {
        self.config.room_min + state.delete_growth()
    }

    /// What is missing of it now that the disk is full.
    pub fn reserve_taken(&self, state: &State) -> u64 {
        if !self.disk_is_full {
            return 0;
        }
        self.reserve(state).saturating_sub(state.pages().room())
    }

    /// The room that the file is to have.
    fn room_wanted(&self, state: &State) -> u64 {
        let kept = if self.is_tight(state) { self.reserve(state) } else { 0 };
        kept + state.pages().growth_size() / 2
    }

    /// Whether the file system comes to its end, so that the reserve must be in the file.
    fn is_tight(&self, state: &State) -> bool {
        let lacks = self.reserve(state).saturating_sub(state.pages().room());
        self.available.is_none_or(|available| available < lacks + AVAILABLE_MIN)
    }

    /// A bound of dirty memory: a small one while the disk is full.
    fn limited(&self, size: u64, share: u64) -> u64 {
        if self.disk_is_full { size.min(self.config.room_min / share) } else { size }
    }

    /// Dirty bytes at which one is due.
    pub fn dirty_size_due(&self) -> u64 {
        self.limited(self.config.dirty_size, 2 * WINDOW_SHARE)
    }

    /// Dirty bytes at which applying waits for the checkpoint; `size` where space is no matter.
    pub fn dirty_size_max(&self, size: u64) -> u64 {
        self.limited(size, WINDOW_SHARE)
    }

    /// What the file system has left.
    pub fn available(&mut self, size: u64) {
        self.available = Some(size);
    }

    /// Disk space was asked for.
    pub fn grown<B>(
        &mut self,
        now: Instant,
        state: &mut State,
        size: u64,
        grown: bool,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        self.growing = false;
        if grown {
            state.pages_mut().set_backed(size);
        } else {
            self.grow_at = Some(now.after(GROW_RETRY));
        }
        let is_short = state.pages().room() < self.reserve(state);
        self.disk_is_full = !grown || (self.disk_is_full && is_short);
        self.judge_space(state, effects);
    }

    /// Tells consensus when the room that is left begins or ceases to be short. What was proposed
    /// before it hears that still fits.
    fn judge_space<B>(&mut self, state: &State, effects: &mut Vec<StoreEffect<B>>) {
        let low = self.disk_is_full && state.pages().room() < self.reserve(state);
        let quota = self.config.quota_size;
        let size = state.pages().allocated_size();
        let met = quota > 0 && size >= quota;
        // Around the line it comes and goes with every checkpoint.
        if met && !self.quota_is_told {
            self.quota_is_told = true;
            effects.push(StoreEffect::Tell(format!(
                "the store has reached its quota: {size} bytes in use of {quota}; from the next write on alarm \
                 NOSPACE refuses puts"
            )));
        } else if self.quota_is_told && size < quota - quota / 16 {
            self.quota_is_told = false;
            let text =
                format!("the store is below its quota again: {size} bytes in use of {quota}");
            effects.push(StoreEffect::Note(text));
        }
        if (low, met) != (self.space_is_low, self.quota_is_met) {
            (self.space_is_low, self.quota_is_met) = (low, met);
            let event = ConsensusEvent::PageSpace { low, quota_is_met: met };
            effects.push(StoreEffect::ToConsensus(event));
        }
    }

    /// Whether entries wait for a checkpoint because the room left is needed for that: pages copied
    /// since the last one come back with the next two.
    /// Never for one that cannot begin: deletes and compaction go on in memory and in the log.
    pub fn holds_back(&self, state: &State) -> bool {
        let pages = state.pages();
        if pages.room() >= self.config.room_min / 4 {
            return false;
        }
        // What was asked for is about to come, or not.
        let waits = self.growing && !self.disk_is_full && self.is_tight(state);
        let may_begin = || self.log_size > 0 && state.may_checkpoint() && pages.may_begin();
        waits || (self.space_is_low && (self.is_running() || may_begin()))
    }

    /// Hands free space back between checkpoints, a little at a time.
    fn release<B>(&mut self, now: Instant, state: &mut State, effects: &mut Vec<StoreEffect<B>>) {
        // What is free is needed here while there is no more to be had.
        if self.releasing || self.growing || self.disk_is_full {
            return;
        }
        if self.release_at.is_some_and(|at| now < at) {
            return;
        }
        let keep = self.room_wanted(state) + state.pages().growth_size();
        // A hole has to be backed again before it is used, and a start does not know of it: where disk
        // space is scarce the file keeps what it has and uses it itself.
        let may_punch = !self.is_tight(state);
        let before = state.pages().backed();
        let release = state.pages_mut().release_beyond(keep, RELEASE_SIZE, may_punch);
        let size = match release {
            Some(Release::Punch { size, .. }) => size,
            Some(Release::Truncate { size }) => before - size,
            None => 0,
        };
        let pause = Duration::from_millis(size.div_ceil(RELEASE_SIZE) * RELEASE_PAUSE_MS);
        self.release_at = release.map(|_| now.after(pause));
        self.releasing = release.is_some();
        effects.extend(release.map(|release| match release {
            Release::Punch { offset, size } => StoreEffect::Punch { offset, size },
            Release::Truncate { size } => StoreEffect::Truncate { size },
        }));
    }

    /// Space has been handed back.
    pub fn released(&mut self) {
        self.releasing = false;
    }

    /// When a step is wanted without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let is_wanted = self.log_size > 0 || self.is_waiting;
        let due_at = (self.phase == Phase::Idle && is_wanted).then_some(self.due_at);
        let may_release =
            self.phase == Phase::Idle && !(self.releasing || self.growing || self.disk_is_full);
        let release_at = self.release_at.filter(|_| may_release);
        [due_at, self.grow_at, release_at].into_iter().flatten().min()
    }
}
