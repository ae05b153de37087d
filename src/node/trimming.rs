//! Trimming: when the store may drop the history that compaction gave up, and how much of it per turn.
//!
//! Dropping whole leaves unread costs next to nothing, a million versions in some 30 ms. Deletes and
//! large values have to be looked at one by one, and copy pages as applying does. So trimming gives way
//! to clients, in time and in dirty memory, and gets on although they never rest:
//!
//! Reads that are under way at a revision that compaction has given up are waited for, while their clients
//! take them and for so long only as a limit says; what is trimmed then refuses them.
//!
//! ```text
//! dirty memory     below the mark at which a checkpoint is due    above it
//! trimming takes   what a turn has for it                         its share, once per checkpoint
//! ```
//!
//! The share counts from the begin of one checkpoint to the begin of the next, and comes on top of the
//! bound at which applying waits: who applies up to the bound in every turn would leave nothing else,
//! and the file would grow for ever. While clients keep the store busy a turn has less for trimming, and
//! trimming asks for no turns of its own: they would take the core from the kernel and from clients.

use alloc::vec::Vec;
use core::mem;

use base::limits::READ_HOLD_STALLED_MS;
use base::{Duration, Instant, LogIndex, Revision};
use kv::Step;
use tree::Miss;

use crate::StoreEffect;
use crate::reads::Task;
use crate::store::Store;

/// Units of work that trimming may take in one turn, and in one in which entries were applied or wait:
/// some 60 us then.
const BUDGET_QUIET: u32 = 512;
const BUDGET_LOADED: u32 = 128;

/// When trimming wants a turn after one with entries, if none comes before.
const PAUSE: Duration = Duration::from_millis(2);

/// When it looks again at tasks that it waits for.
const HOLD_PAUSE: Duration = Duration::from_millis(100);

/// Units after which dirty memory is looked at again: a page is copied for each of them at worst.
const SLICE: u32 = 16;

/// The part of the bound on dirty memory that trimming has to itself.
const SHARE: u64 = 16;

/// Buckets of the times that compactions take: to 100 ms, 200 ms, 400 ms and so on, and what is longer.
pub const COMPACTION_BUCKETS: usize = 15;

/// Compactions whose work is done. What came while one was under way belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compactions {
    /// By the time that they took.
    pub times: [u64; COMPACTION_BUCKETS],
    /// How many.
    pub count: u64,
    /// Milliseconds of them all.
    pub ms: u64,
}

impl Compactions {
    fn done(&mut self, took: Duration) {
        let ms = took.as_nanos() / 1_000_000;
        let bucket = ms.div_ceil(100).max(1).next_power_of_two().ilog2();
        let bucket = usize::try_from(bucket).expect("at most 64").min(COMPACTION_BUCKETS - 1);
        self.times[bucket] += 1;
        self.count += 1;
        self.ms += ms;
    }
}

/// The state of trimming.
pub struct Trimming {
    /// There may be something to trim.
    pub is_wanted: bool,
    /// The page that it needs.
    pub waits_for: Option<Miss>,
    /// Bytes that it made dirty since the checkpoint of this number began.
    dirtied: u64,
    checkpoint: u64,
    /// The last entry that was applied when trimming last had its turn.
    applied: LogIndex,
    /// When it wants a turn that nobody else asks for.
    pub again_at: Option<Instant>,
    /// When the compaction was applied that is under way.
    begun: Option<Instant>,
    /// Those that are done.
    pub compactions: Compactions,
}

impl Trimming {
    /// After a start there may be something left over.
    pub fn new() -> Self {
        Self {
            is_wanted: true,
            waits_for: None,
            dirtied: 0,
            checkpoint: 0,
            applied: LogIndex::ZERO,
            again_at: None,
            begun: None,
            compactions: Compactions::default(),
        }
    }

    /// A compaction was applied.
    pub fn want(&mut self, now: Instant) {
        self.is_wanted = true;
        self.begun.get_or_insert(now);
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Goes on with trimming as far as this turn allows.
    pub(crate) fn trim(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        self.trimming.again_at = None;
        let applied = self.state.applied().0;
        let was_applied = mem::replace(&mut self.trimming.applied, applied);
        let is_loaded = applied != was_applied || !self.entries.is_empty();
        let mut budget = if is_loaded { BUDGET_LOADED } else { BUDGET_QUIET };
        let mut keep = None;
        while self.may_trim() {
            if budget == 0 {
                self.is_busy |= !is_loaded;
                self.trimming.again_at = Some(now.after(PAUSE));
                return;
            }
            let keep = *keep.get_or_insert_with(|| self.kept_for_tasks(now));
            let mut slice = SLICE.min(budget);
            budget -= slice;
            let before = self.state.pages().dirty_size();
            let step = self.state.trim(keep, &mut slice);
            budget += slice;
            self.trimming.dirtied += self.state.pages().dirty_size().saturating_sub(before);
            match step {
                Step::More => {}
                Step::Done(()) if keep < Revision::MAX => {
                    self.trimming.again_at = Some(now.after(HOLD_PAUSE));
                    return;
                }
                Step::Done(()) => {
                    self.trimming.is_wanted = false;
                    if let Some(begun) = self.trimming.begun.take() {
                        self.trimming.compactions.done(now.since(begun));
                    }
                    for (ticket, revision, repeated) in mem::take(&mut self.physical) {
                        self.reply_compacted(ticket, revision, repeated);
                    }
                }
                Step::Miss(miss) => {
                    self.trimming.waits_for = Some(miss);
                    self.fetch(miss, effects);
                }
                Step::Damaged(damage) => return self.halt(&damage, effects),
            }
        }
        self.is_busy |= self.is_checkpoint_next();
    }

    /// Whether trimming gives way to a checkpoint that begins as soon as there is a turn.
    fn is_checkpoint_next(&self) -> bool {
        let pages = self.state.pages();
        self.trimming.is_wanted
            && self.trimming.waits_for.is_none()
            && self.state.between_entries()
            && pages.dirty_size() >= self.checkpoint.dirty_size_due()
            && !self.checkpoint.is_running()
            && pages.may_begin()
    }

    /// Whether trimming has something to do, and dirty memory and space for it.
    fn may_trim(&mut self) -> bool {
        let Trimming { is_wanted, waits_for, .. } = &self.trimming;
        if waits_for.is_some() || !is_wanted || !self.state.between_entries() {
            return false;
        }
        // It copies pages like applying does, and gives them back only with the next checkpoints.
        if self.checkpoint.holds_back(&self.state) {
            return false;
        }
        let begun = self.checkpoint.begun();
        if self.trimming.checkpoint != begun {
            (self.trimming.checkpoint, self.trimming.dirtied) = (begun, 0);
        }
        let dirty_size_max = self.checkpoint.dirty_size_max(self.config.dirty_size_max);
        self.state.pages().dirty_size() < self.checkpoint.dirty_size_due()
            || self.trimming.dirtied < dirty_size_max / SHARE
    }

    /// The first revision that a task still reads, which may have been compacted since.
    fn kept_for_tasks(&self, now: Instant) -> Revision {
        let stall = Duration::from_millis(READ_HOLD_STALLED_MS);
        let moves = |task: &&Task| now.since(task.stalled_since) < stall;
        let stalled = self.stalled.values().flatten().filter(moves);
        let tasks = self.answers.iter().chain(self.reads.iter()).chain(stalled);
        tasks.filter_map(|task| task.keeps(now)).min().unwrap_or(Revision::MAX)
    }
}
