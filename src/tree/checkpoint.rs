//! Checkpoints: a plan of what the file lacks, the runs to write, the meta record, and what may go
//! then.
//!
//! ```text
//! begin -> next* + fill* -> caller syncs -> meta -> caller writes, syncs -> published
//!       -> release_next*
//! ```
//!
//! `begin` only turns a page: pages born up to now belong to the plan, and whoever changes one of
//! them from now on copies it. Leaves and runs are written first, then branches level by level, so
//! that the image of a branch carries the CRCs of its children's images. Within a level pages go
//! out in file order, neighbours in one write.
//!
//! The free list that the plan writes describes the time of `begin`: see free.rs.

use alloc::vec::Vec;

use base::limits::PAGE_SIZE;
use base::{PageNo, RootNo};

use crate::file::{PageFile, Root, Slot};
use crate::free::CHUNK;
use crate::held::Newest;
use crate::meta::{META_SIZE, Meta, SLOT_OFFSETS};
use crate::page::{Page, RUN_HEADER_SIZE, is_leaf, level, put_u32, wide};
use crate::{Run, TREES_MAX, slotted};

/// Greatest size of the application's bytes in a meta record: what the record has room for.
pub const APPLICATION_SIZE_MAX: usize = crate::meta::APPLICATION_ROOM;

/// Greatest size of one write: 1 MiB.
const WRITE_PAGES_MAX: u32 = 128;

/// One page or run that the plan writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Part {
    level: u8,
    first: PageNo,
    pages: u32,
    run: bool,
}

/// The running checkpoint.
pub(crate) struct Plan {
    root: RootNo,
    roots: [Root; TREES_MAX],
    list: Run,
    needed: u64,
    application: Vec<u8>,
    born: Vec<PageNo>,
    born_runs: Vec<PageNo>,
    /// What is to be written, in order; made by the first call of `checkpoint_next`.
    parts: Option<Vec<Part>>,
    /// The next part to hand out, and how many of its pages are out.
    part: usize,
    pages: u32,
    /// Where the next `checkpoint_fill` must begin: the order is part of the contract.
    filled: (usize, u32),
    /// The hash of the meta record, and what it leads to.
    made: Option<(base::Hash128, Newest)>,
}

/// A write of a checkpoint: contiguous, at most 1 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteRun {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Size in bytes, a multiple of the page size.
    pub size: usize,
    /// The first part, and the page in it.
    from: (usize, u32),
    /// Behind the last.
    to: (usize, u32),
}

/// Space of the file that nobody needs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// Give the disk space of this part back; it reads as zeros then.
    Punch {
        /// Offset in the file, in bytes.
        offset: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Cut the file to this size; [`PageFile::backed`] says so already.
    Truncate {
        /// The new size, in bytes.
        size: u64,
    },
}

impl PageFile {
    /// Whether a checkpoint has begun and is not published yet.
    #[must_use]
    pub fn checkpoint_running(&self) -> bool {
        self.plan.is_some()
    }

    /// Freezes the present state for a checkpoint that carries `application`, at most
    /// [`APPLICATION_SIZE_MAX`] bytes. Only one checkpoint runs at a time. No page is copied or
    /// encoded; the free list is written out: some 10 us per 8 GiB of file, and 4 ns per extent.
    pub fn checkpoint_begin(&mut self, application: &[u8]) {
        assert!(self.plan.is_none(), "a checkpoint runs already");
        assert!(application.len() <= APPLICATION_SIZE_MAX, "{} bytes", application.len());
        // The list before is needed by the meta slot before, and by no plan from now on.
        if let Some(list) = self.list_run.take() {
            self.free_run(list);
        }
        let list = self.write_list();
        let needed = self.file_size();
        self.list_run = Some(list);
        self.plan = Some(Plan {
            root: self.root,
            roots: self.roots,
            list,
            needed,
            application: application.to_vec(),
            born: core::mem::take(&mut self.born),
            born_runs: core::mem::take(&mut self.born_runs),
            parts: None,
            part: 0,
            pages: 0,
            filled: (0, 0),
            made: None,
        });
        self.root = self.root.next();
    }

    /// Pages that the free list takes at most.
    pub(crate) fn list_pages(&self) -> u32 {
        let pages = (self.free.list_size_max() + RUN_HEADER_SIZE).div_ceil(PAGE_SIZE);
        u32::try_from(pages).expect("a list has fewer pages than the file")
    }

    /// Writes the free list into a run. Its pages are taken first, for the list must not list them;
    /// so its size is reckoned before, and what is left of the last page holds zeros.
    fn write_list(&mut self) -> Run {
        let pages = self.list_pages();
        let first = PageNo::new(self.free.take_run(pages));
        let mut list = self.free.encode();
        let size = wide(pages) * PAGE_SIZE - RUN_HEADER_SIZE;
        assert!(list.len() <= size, "a free list of {} bytes, reckoned {size}", list.len());
        list.resize(size, 0);
        self.create_run_at(first, &list)
    }

    /// The parts of the plan in the order of writing.
    fn plan_parts(&mut self) {
        let Some(plan) = &mut self.plan else { return };
        if plan.parts.is_some() {
            return;
        }
        let mut parts = Vec::with_capacity(plan.born.len() + plan.born_runs.len());
        for number in plan.born.drain(..) {
            let Some(frame) = self.frames.find(number) else { continue };
            let page = self.frames.page(frame);
            // Numbers that were given back before the plan may be in other hands now.
            if self.frames.is_dirty(number) && crate::page::birth(page) == plan.root {
                let level = if is_leaf(page) { 0 } else { level(page) };
                parts.push(Part { level, first: number, pages: 1, run: false });
            }
        }
        for first in plan.born_runs.drain(..) {
            if let Some(frame) = self.runs.get(&first)
                && frame.dirty
                && frame.run.birth == plan.root
            {
                parts.push(Part { level: 0, first, pages: frame.run.pages(), run: true });
            }
        }
        parts.sort_unstable();
        parts.dedup();
        plan.parts = Some(parts);
    }

    /// The next write of the running checkpoint; none after the last. It must be filled, in the
    /// order in which writes were handed out.
    pub fn checkpoint_next(&mut self) -> Option<WriteRun> {
        self.plan_parts();
        let plan = self.plan.as_mut()?;
        let parts = plan.parts.as_ref()?;
        let begin = parts.get(plan.part)?;
        let from = (plan.part, plan.pages);
        let first = begin.first.get() + plan.pages;
        let mut total = 0;
        while let Some(part) = parts.get(plan.part)
            && total < WRITE_PAGES_MAX
            && part.level == begin.level
            && part.first.get() + plan.pages == first + total
        {
            let piece = (part.pages - plan.pages).min(WRITE_PAGES_MAX - total);
            total += piece;
            plan.pages += piece;
            if plan.pages == part.pages {
                plan.part += 1;
                plan.pages = 0;
            }
        }
        Some(WriteRun {
            offset: u64::from(first) * PAGE_SIZE as u64,
            size: wide(total) * PAGE_SIZE,
            from,
            to: (plan.part, plan.pages),
        })
    }

    /// Encodes a write into `out`, which has its size. What it holds may be dropped from memory
    /// from then on, so the write must succeed or the process must end.
    pub fn checkpoint_fill(&mut self, write: &WriteRun, out: &mut [u8]) {
        assert!(out.len() == write.size, "{} bytes for a write of {}", out.len(), write.size);
        let mut plan = self.plan.take().expect("a checkpoint runs");
        assert!(plan.filled == write.from, "writes are filled in the order of their making");
        let (mut at, end) = (write.from, write.to);
        let mut out = out;
        while at != end {
            let part = plan.parts.as_ref().expect("a write was handed out")[at.0];
            let to = if at.0 == end.0 { end.1 } else { part.pages };
            let (piece, rest) = out.split_at_mut(wide(to - at.1) * PAGE_SIZE);
            if part.run {
                self.fill_run(&part, at.1, piece);
            } else {
                self.fill_page(part.first, piece);
            }
            out = rest;
            at = if to == part.pages { (at.0 + 1, 0) } else { (at.0, to) };
        }
        plan.filled = end;
        self.plan = Some(plan);
    }

    fn fill_page(&mut self, number: PageNo, out: &mut [u8]) {
        let frame = self.frames.find(number).expect("what a plan includes stays in memory");
        let out: &mut Page = out.try_into().expect("the piece has one page");
        out.copy_from_slice(self.frames.page(frame));
        if !is_leaf(out) {
            for slot in 0..slotted::count(out) {
                let child = slotted::child(out, slot);
                assert!(!self.frames.is_dirty(child), "page {number} goes out before its child");
                slotted::set_child_crc(out, slot, self.frames.crc(child));
            }
        }
        let crc = base::crc32(&out[4..]);
        put_u32(out, 0, crc);
        self.frames.written(number, crc);
    }

    fn fill_run(&mut self, part: &Part, from: u32, out: &mut [u8]) {
        let frame = self.runs.get_mut(&part.first).expect("what a plan includes stays in memory");
        let at = wide(from) * PAGE_SIZE;
        out.copy_from_slice(&frame.bytes[at..at + out.len()]);
        if at + out.len() == frame.bytes.len() {
            (frame.dirty, frame.in_flight) = (false, true);
            self.runs_dirty_size -= u64::try_from(frame.bytes.len()).expect("it fits 64 bits");
            if frame.retired {
                self.forget_run(part.first);
            }
        }
    }

    /// Writes the meta record into `out` and returns its offset in the file, in bytes. Every write
    /// of the checkpoint must be durable before it is written there.
    pub fn checkpoint_meta(&mut self, out: &mut [u8; META_SIZE]) -> u64 {
        let plan = self.plan.as_ref().expect("a checkpoint runs");
        let parts = plan.parts.as_ref().expect("the writes were asked for");
        assert!(plan.filled == (parts.len(), 0), "every write comes before the meta record");
        // What has gone out can be read back from now on.
        self.frames.landed();
        for frame in self.runs.values_mut() {
            frame.in_flight = false;
        }
        let meta = Meta {
            file: self.options.file,
            cluster: self.options.cluster,
            member: self.options.member,
            root: plan.root,
            needed: plan.needed,
            before: self.meta_hash,
            list: plan.list,
            roots: self.root_refs(&plan.roots),
            application: plan.application.clone(),
        };
        let hash = meta.encode(out);
        if let Some(plan) = &mut self.plan {
            let newest = Newest { roots: meta.roots, application: meta.application };
            plan.made = Some((hash, newest));
        }
        SLOT_OFFSETS[self.slot_next]
    }

    /// The meta record is durable: the checkpoint is the newest, and pages that only the one before
    /// the last could reach become free.
    pub fn checkpoint_published(&mut self) {
        let plan = self.plan.take().expect("a checkpoint runs");
        let made = plan.made.expect("the meta record was made before it was durable");
        (self.meta_hash, self.newest) = made;
        self.published = plan.root;
        self.slots[self.slot_next] = Slot { needed: plan.needed };
        self.slot_refused = self.slot_refused.filter(|slot| *slot != self.slot_next);
        self.slot_next = 1 - self.slot_next;
        self.free.published(plan.root);
    }

    /// Disk space that can be handed back while the file is in use, newest knowledge first; none:
    /// nothing more before the next checkpoint. Keeps a growth step of room.
    pub fn release_next(&mut self) -> Option<Release> {
        self.release_beyond(0, u64::MAX, true)
    }

    /// The same, but keeps `keep` bytes of room, a growth step at least, makes holes only if it may, and
    /// hands back at most `size_max` bytes at once; when it cuts the file, a growth step at least.
    pub fn release_beyond(&mut self, keep: u64, size_max: u64, may_punch: bool) -> Option<Release> {
        let step = self.growth_size();
        let keep = keep.max(step);
        // A meta slot that says that it needs more than the file has would be refused.
        let needed = self.slots.iter().map(|slot| slot.needed).max().unwrap_or(0);
        let size = (needed.max(self.file_size()) + step).next_multiple_of(step);
        // What the tail has of the room that is kept stays.
        let spare = self.room().saturating_sub(keep);
        let size = size.max(self.backed().saturating_sub(spare).next_multiple_of(step));
        if self.backed() >= size + step {
            let cut = (size_max / step * step).max(step);
            let size = size.max(self.backed().saturating_sub(cut)).next_multiple_of(step);
            self.set_backed(size);
            return Some(Release::Truncate { size });
        }
        if !may_punch {
            return None;
        }
        let pages_max = u32::try_from(size_max / PAGE_SIZE as u64).unwrap_or(u32::MAX);
        let (first, pages) = self.free.punch_next(keep, pages_max)?;
        assert!(first.is_multiple_of(CHUNK) && pages >= CHUNK, "whole chunks only");
        Some(Release::Punch {
            offset: u64::from(first) * PAGE_SIZE as u64,
            size: u64::from(pages) * PAGE_SIZE as u64,
        })
    }
}
