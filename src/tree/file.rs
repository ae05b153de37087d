//! The page file as one value: roots, frames, runs, allocator. What it holds and what it costs.
//!
//! Reading is in read.rs, changing in edit.rs, writing to the file in checkpoint.rs. A page number
//! is given at birth. A page may be changed in place while its birth is the root in work, that is,
//! while no checkpoint plan includes it; what refers to such a page is such a page itself, up to
//! the root.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use base::limits::PAGE_SIZE;
use base::{FileId, Mutant, NodeId, PageNo, RootNo, crc32};

use crate::checkpoint::Plan;
use crate::error::{Damage, DamageKind};
use crate::frames::Frames;
use crate::free::Free;
use crate::held::{Held, Newest};
use crate::meta::{META_SIZE, RootRef, SLOT_OFFSETS};
use crate::page::{
    Expected, KIND_LEAF, KIND_RUN, Origin, Page, RUN_HEADER_SIZE, birth, put_u32, run_size,
    set_kind, set_origin, set_run_size, verify, wide,
};
use crate::{Miss, Place, RUN_SIZE_MAX, Run, Summary, TREES_MAX, TreeId, slotted};

/// What a page file is made or opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Random name of this file. When opening: what it must be, 0 for any.
    pub file: FileId,
    /// Cluster that the file belongs to. When opening: what it must be, 0 for any.
    pub cluster: u64,
    /// Member that the file belongs to. When opening: what it must be, 0 for any.
    pub member: NodeId,
    /// Bytes of pages and runs to keep in memory. Branch pages and dirty pages count, but are never
    /// dropped.
    pub cache_size: u64,
    /// Bytes by which the file grows; 32 to 64 MiB serve well.
    pub growth_size: u64,
}

/// A root of one tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Root {
    /// None: the tree is empty.
    pub page: Option<PageNo>,
    /// Levels of branches above the leaves.
    pub height: u8,
    pub summary: Summary,
    /// Grows with every change of the tree: a place that is older is refused.
    pub edits: u64,
}

/// The bytes of an overflow run in memory.
pub(crate) struct RunFrame {
    /// Header, content, zeros up to the end of the last page.
    pub bytes: Vec<u8>,
    pub run: Run,
    pub dirty: bool,
    /// Its image has gone out, but may not have reached the file yet.
    pub in_flight: bool,
    pub retired: bool,
    pub used: Cell<bool>,
}

/// The parts of the cache bound that clean runs and clean leaves keep: a quarter and an eighth.
const RUNS_SHARE: u64 = 4;
const LEAVES_SHARE: u64 = 8;

/// What the meta slots hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// Bytes of the file that the meta in this slot needs; 0 if none can be chosen.
    pub needed: u64,
}

/// A page file: trees of cells, overflow runs, and the plan of the running checkpoint. It has one
/// owner.
///
/// The cells of a [`PageFile`] borrow from it, so nothing changes while they are looked at.
pub struct PageFile {
    pub(crate) options: Options,
    /// The root in work: the number that the next plan gets, and the birth of new pages.
    pub(crate) root: RootNo,
    /// The newest published plan; zero before the first.
    pub(crate) published: RootNo,
    /// Slot that the next meta record goes to.
    pub(crate) slot_next: usize,
    pub(crate) slots: [Slot; 2],
    /// A slot that recovery refused although it is not blank.
    pub(crate) slot_refused: Option<usize>,
    /// Hash of the meta record published last.
    pub(crate) meta_hash: base::Hash128,
    /// What the meta record published last leads to.
    pub(crate) newest: Newest,
    /// Roots that somebody holds.
    pub(crate) held: Vec<Held>,
    pub(crate) roots: [Root; TREES_MAX],
    pub(crate) frames: Frames,
    pub(crate) runs: BTreeMap<PageNo, RunFrame>,
    pub(crate) runs_size: u64,
    pub(crate) runs_dirty_size: u64,
    /// Where the clock over runs stands.
    run_hand: PageNo,
    pub(crate) free: Free,
    /// Pages born since the last plan; some may be free again.
    pub(crate) born: Vec<PageNo>,
    /// First pages of runs born since the last plan.
    pub(crate) born_runs: Vec<PageNo>,
    /// The run that holds the newest plan's free list.
    pub(crate) list_run: Option<Run>,
    pub(crate) plan: Option<Plan>,
    /// Grows whenever pages leave memory: a place that is older is refused.
    pub(crate) evictions: u64,
    /// Behind the last cell of a tree, when the last [`PageFile::put`] was an append there.
    pub(crate) edge: Option<Place>,
}

impl PageFile {
    /// An empty page file. Nothing is on disk before the first checkpoint.
    #[must_use]
    pub fn create(options: &Options) -> Self {
        Self::with(options.clone(), Free::new())
    }

    pub(crate) fn with(options: Options, free: Free) -> Self {
        Self {
            frames: Frames::new(),
            options,
            root: RootNo::new(1),
            published: RootNo::ZERO,
            slot_next: 0,
            slots: [Slot::default(); 2],
            slot_refused: None,
            meta_hash: base::Hash128::ZERO,
            newest: Newest::default(),
            held: Vec::new(),
            roots: [Root::default(); TREES_MAX],
            runs: BTreeMap::new(),
            runs_size: 0,
            runs_dirty_size: 0,
            run_hand: PageNo::ZERO,
            free,
            born: Vec::new(),
            born_runs: Vec::new(),
            list_run: None,
            plan: None,
            evictions: 0,
            edge: None,
        }
    }

    /// Bounds the pages in memory anew, in bytes.
    pub fn set_cache_size(&mut self, size: u64) {
        self.options.cache_size = size;
    }

    /// The random name of this file.
    #[must_use]
    pub fn file_id(&self) -> FileId {
        self.options.file
    }

    /// The newest published checkpoint; zero before the first.
    #[must_use]
    pub fn published(&self) -> RootNo {
        self.published
    }

    /// The slot that recovery refused although something is written in it: its offset and size in
    /// bytes.
    ///
    /// Before anything else is written to the file, the owner overwrites it with zeros and syncs: a
    /// disk that changes its mind must not bring the refused record back once its pages are reused.
    /// None in a file that was closed in order, and after the next checkpoint.
    #[must_use]
    pub fn slot_to_clear(&self) -> Option<(u64, usize)> {
        self.slot_refused.map(|slot| (SLOT_OFFSETS[slot], META_SIZE))
    }

    pub(crate) fn root_of(&self, tree: TreeId) -> &Root {
        &self.roots[usize::from(tree.0)]
    }

    pub(crate) fn root_of_mut(&mut self, tree: TreeId) -> &mut Root {
        &mut self.roots[usize::from(tree.0)]
    }

    /// Roots as a meta record holds them; their images have gone out.
    pub(crate) fn root_refs(&self, roots: &[Root; TREES_MAX]) -> [RootRef; TREES_MAX] {
        core::array::from_fn(|tree| {
            let root = &roots[tree];
            root.page.map_or_else(RootRef::default, |page| RootRef {
                page,
                crc: self.frames.crc(page),
                height: root.height,
                summary: root.summary,
            })
        })
    }

    // Pages

    pub(crate) fn origin(&self, number: PageNo) -> Origin {
        Origin { number, birth: self.root, file: self.options.file }
    }

    /// A new page of this kind, empty. Returns its number and frame.
    pub(crate) fn new_page(&mut self, kind: u8, level: u8) -> (PageNo, u32) {
        let number = self.new_number();
        let frame = self.frames.fresh(number);
        let origin = self.origin(number);
        let page = self.frames.page_mut(frame);
        set_origin(page, origin);
        slotted::init(page, kind, level);
        (number, frame)
    }

    /// A number for a page that is born now.
    pub(crate) fn new_number(&mut self) -> PageNo {
        let number = PageNo::new(self.free.take_one());
        self.note_birth(number);
        number
    }

    fn note_birth(&mut self, number: PageNo) {
        // Numbers that come and go within one root would let the list grow without bound.
        if self.born.len() > 2 * self.frames.dirty_count() + 1024 {
            let frames = &self.frames;
            self.born.retain(|number| frames.is_dirty(*number));
            self.born.sort_unstable();
            self.born.dedup();
        }
        self.born.push(number);
    }

    /// Whether a page may be changed in place.
    #[inline(always)]
    pub(crate) fn is_own(&self, frame: u32) -> bool {
        let is_dirty = || self.frames.is_dirty(self.frames.number(frame));
        birth(self.frames.page(frame)) == self.root || (Mutant::FrozenChanged.is_on() && is_dirty())
    }

    /// Makes a page that may be changed out of the one in `frame`: its new number and frame. What
    /// refers to it is the caller's to change.
    pub(crate) fn copy_page(&mut self, frame: u32) -> (PageNo, u32) {
        let old = self.frames.number(frame);
        let born = birth(self.frames.page(frame));
        let new = self.new_number();
        let frame = self.frames.renumber(old, new);
        let origin = self.origin(new);
        set_origin(self.frames.page_mut(frame), origin);
        self.free.wait(self.root, born, old.get(), 1);
        (new, frame)
    }

    /// No tree refers to this page any more.
    pub(crate) fn retire(&mut self, number: PageNo) {
        // A leaf that goes unread may be as old as the file.
        let found = self.frames.find(number);
        let born = found.map_or(RootNo::ZERO, |frame| birth(self.frames.page(frame)));
        let own = born == self.root;
        self.frames.retire(number, !own);
        if own {
            self.free.give(number.get(), 1);
        } else {
            self.free.wait(self.root, born, number.get(), 1);
        }
    }

    // Runs

    /// Stores `bytes`, at most [`RUN_SIZE_MAX`], in a run of its own. One copy and one CRC.
    ///
    /// The run belongs to the caller until a cell owns it.
    pub fn create_run(&mut self, bytes: &[u8]) -> Run {
        assert!(
            bytes.len() <= RUN_SIZE_MAX,
            "a run of {} bytes, above {RUN_SIZE_MAX}",
            bytes.len()
        );
        let pages = run_pages(bytes.len());
        let first = PageNo::new(self.free.take_run(pages));
        self.create_run_at(first, bytes)
    }

    /// Stores bytes in a run whose pages are taken already.
    pub(crate) fn create_run_at(&mut self, first: PageNo, bytes: &[u8]) -> Run {
        let size = u32::try_from(bytes.len()).expect("no run has 4 GiB");
        let mut run = Run { first, size, crc: 0, birth: self.root };
        let content = RUN_HEADER_SIZE + bytes.len();
        let mut buffer = vec![0; wide(run.pages()) * PAGE_SIZE];
        set_origin(&mut buffer, self.origin(run.first));
        set_kind(&mut buffer, KIND_RUN, 0);
        set_run_size(&mut buffer, size);
        buffer[RUN_HEADER_SIZE..content].copy_from_slice(bytes);
        run.crc = crc32(&buffer[4..content]);
        put_u32(&mut buffer, 0, run.crc);
        self.insert_run(buffer, run, true);
        self.born_runs.push(run.first);
        run
    }

    fn insert_run(&mut self, bytes: Vec<u8>, run: Run, dirty: bool) {
        self.forget_run(run.first);
        let size = u64::try_from(bytes.len()).expect("usize has at most 64 bits");
        self.runs_size += size;
        self.runs_dirty_size += if dirty { size } else { 0 };
        let frame =
            RunFrame { bytes, run, dirty, in_flight: false, retired: false, used: Cell::new(true) };
        self.runs.insert(run.first, frame);
    }

    /// Drops a run from memory.
    pub(crate) fn forget_run(&mut self, first: PageNo) {
        if let Some(frame) = self.runs.remove(&first) {
            let size = u64::try_from(frame.bytes.len()).expect("usize has at most 64 bits");
            self.runs_size -= size;
            self.runs_dirty_size -= if frame.dirty { size } else { 0 };
        }
    }

    /// Gives the pages of a run back. No cell may name it any more.
    pub fn free_run(&mut self, run: Run) {
        let pages = run.pages();
        if run.birth == self.root {
            self.forget_run(run.first);
            self.free.give(run.first.get(), pages);
            return;
        }
        match self.runs.get_mut(&run.first) {
            // The running plan must still write it.
            Some(frame) if frame.dirty => frame.retired = true,
            _ => self.forget_run(run.first),
        }
        self.free.wait(self.root, run.birth, run.first.get(), pages);
    }

    // Cache

    /// Takes in the bytes that a miss asked for, [`Miss::size`] of them.
    ///
    /// A miss that nobody needs any more, because the page has been changed or brought in
    /// meanwhile, is dropped without a word.
    ///
    /// # Errors
    ///
    /// The bytes are not what the referrer describes: they must not be used. For a run, ask again
    /// before believing it: if its owner went while it was read, its pages may hold something else
    /// by now.
    pub fn install(&mut self, miss: Miss, bytes: &[u8]) -> Result<(), Damage> {
        let damage = |kind| Err(Damage::new(miss.page, kind));
        if bytes.len() != miss.size() {
            return damage(DamageKind::Short);
        }
        let expected = Expected {
            number: miss.page,
            birth_max: self.root,
            file: self.options.file,
            crc: miss.crc,
            kind: if miss.run_size.is_some() { KIND_RUN } else { KIND_LEAF },
            level: 0,
        };
        if let Some(size) = miss.run_size {
            if self
                .runs
                .get(&miss.page)
                .is_some_and(|frame| frame.dirty || frame.run.crc == miss.crc)
                || self.free.is_free(miss.page.get())
            {
                return Ok(());
            }
            let content = RUN_HEADER_SIZE + wide(size);
            let Some(stored) = bytes.get(..content) else { return damage(DamageKind::Structure) };
            verify(stored, &expected)?;
            if run_size(bytes) != size {
                return damage(DamageKind::Structure);
            }
            let run = Run { first: miss.page, size, crc: miss.crc, birth: birth(bytes) };
            self.insert_run(bytes.to_vec(), run, false);
            return Ok(());
        }
        let stale = self.frames.crc(miss.page) != miss.crc || self.frames.is_gone(miss.page);
        if stale || self.frames.find(miss.page).is_some() {
            return Ok(());
        }
        verify(bytes, &expected)?;
        let Ok(page) = <&Page>::try_from(bytes) else { return damage(DamageKind::Short) };
        if !slotted::validate(page) {
            return damage(DamageKind::Structure);
        }
        self.frames.adopt(miss.page, page, miss.crc);
        Ok(())
    }

    /// Drops clean leaves and runs that were not used lately until the cache is within its bound,
    /// or nothing can be dropped. Every [`crate::Place`] is void afterwards.
    ///
    /// Leaves and runs each keep a share of the bound: who waits for a run must find its leaf still
    /// there when the run has come, and the other way round, or it would ask for them in turn for ever.
    pub fn evict(&mut self) {
        let bound = self.options.cache_size;
        self.evict_runs(bound / RUNS_SHARE);
        let runs_size = self.runs_size;
        let any = self.frames.evict(|pages, clean_leaves| {
            pages_size(pages) + runs_size <= bound
                || pages_size(clean_leaves) <= bound / LEAVES_SHARE
        });
        self.evictions += u64::from(any);
    }

    /// Drops clean runs until the cache is within its bound or they have only `share` bytes.
    fn evict_runs(&mut self, share: u64) {
        for _ in 0..2 * self.runs.len() {
            if self.resident_size() <= self.options.cache_size
                || self.runs_size - self.runs_dirty_size <= share
            {
                break;
            }
            let next = self.runs.range(self.run_hand..).next().or_else(|| self.runs.iter().next());
            let Some((first, frame)) = next else { break };
            let stays = frame.dirty || frame.in_flight || frame.used.replace(false);
            let first = *first;
            self.run_hand = first.next();
            if !stays {
                self.forget_run(first);
            }
        }
    }

    /// Bytes of pages and runs in memory.
    #[must_use]
    pub fn resident_size(&self) -> u64 {
        pages_size(self.frames.count()) + self.runs_size
    }

    /// Bytes of pages and runs that only memory has.
    #[must_use]
    pub fn dirty_size(&self) -> u64 {
        pages_size(self.frames.dirty_count()) + self.runs_dirty_size
    }

    // Space

    /// Bytes of the file up to the last chunk of pages in use.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        u64::from(self.free.end()) * PAGE_SIZE as u64
    }

    /// Bytes of free pages.
    #[must_use]
    pub fn free_size(&self) -> u64 {
        u64::from(self.free.free_count()) * PAGE_SIZE as u64
    }

    /// Bytes of pages that were freed, but that a meta slot may still reach. What only a held root
    /// reaches is not counted: see [`PageFile::held_size`].
    #[must_use]
    pub fn waiting_size(&self) -> u64 {
        u64::from(self.free.waiting_count()) * PAGE_SIZE as u64
    }

    /// Bytes of pages in use, by the newest state; what waits or is held is not counted.
    #[must_use]
    pub fn allocated_size(&self) -> u64 {
        self.file_size() - self.free_size() - self.waiting_size() - self.held_size()
    }

    /// Bytes of the file that have disk space.
    #[must_use]
    pub fn backed(&self) -> u64 {
        self.free.backed()
    }

    /// The owner has given the file disk space up to `size` bytes, durably (size and extents
    /// synced).
    pub fn set_backed(&mut self, size: u64) {
        self.free.set_backed(size);
    }

    /// Bytes that can still be allocated within backed space. Whoever is about to change trees
    /// judges this first, with a margin: a run needs contiguous pages, and every page on a path may
    /// be copied.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.free.room()
    }

    /// Bytes by which the file grows.
    #[must_use]
    pub fn growth_size(&self) -> u64 {
        self.options.growth_size.max(1 << 20)
    }

    /// The size in bytes that the file should get, asked for ahead: when less than half a growth
    /// step is left. Where pages were allocated beyond backed space, the file must have it before
    /// the next checkpoint writes.
    #[must_use]
    pub fn wants_growth(&self) -> Option<u64> {
        self.wants_room(self.growth_size() / 2)
    }

    /// The same, so that `ahead` bytes of room are there.
    #[must_use]
    pub fn wants_room(&self, ahead: u64) -> Option<u64> {
        let step = self.growth_size();
        let beyond = self.file_size() > self.backed();
        let lacks = ahead.saturating_sub(self.room());
        let from = self.backed().max(self.file_size());
        (beyond || lacks > 0).then(|| (from + lacks).next_multiple_of(step))
    }

    /// Gives up what lies behind the disk space of the file and is free: pages that came and went before
    /// any checkpoint saw them.
    pub fn drop_unbacked(&mut self) {
        if self.file_size() > self.backed() {
            self.free.drop_tail();
        }
    }

    /// Whether a checkpoint that begins now can be written: everything that was allocated has disk
    /// space, and so has a place for the free list, which is contiguous.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        let backed = self.file_size() <= self.backed() || Mutant::WriteBeforeGrowth.is_on();
        backed && self.free.fits_run(self.list_pages())
    }
}

/// Pages of a run of `size` bytes.
fn run_pages(size: usize) -> u32 {
    u32::try_from((size + RUN_HEADER_SIZE).div_ceil(PAGE_SIZE)).expect("2^32 bytes are fewer pages")
}

fn pages_size(pages: usize) -> u64 {
    u64::try_from(pages).expect("usize has at most 64 bits") * PAGE_SIZE as u64
}
