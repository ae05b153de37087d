//! The pages in memory, and the table that says of every page number where it is.
//!
//! ```text
//! page number -> Entry { frame or none, crc of the image in the file, state }
//! frame       -> memory of one page, and a mark that somebody used it
//!
//! state   clean                 the file has it; a leaf may be dropped from memory
//!         dirty                 only memory has it
//!         dirty and retired     no tree refers to it; the running plan must still write it
//!         in flight             its image has gone out, but may not have reached the file yet: reading
//!                               it back would give what was there before
//!         gone                  no tree refers to it, nor has the number been given out again
//! ```
//!
//! The memory is in slabs, never given back: what is in use has a bound. Overflow runs are not here
//! (file.rs): they are rare and have any size.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use base::PageNo;
use base::limits::PAGE_SIZE;

use crate::page::{Page, is_leaf, wide};

/// No frame.
const NONE: u32 = u32::MAX;

/// Frames of a slab. 64 MiB of zeros come from the system without being touched: memory is used up only
/// as pages are put there.
const SLAB_PAGES: u32 = 8_192;

const DIRTY: u8 = 1;
const RETIRED: u8 = 2;
const GONE: u8 = 4;
const IN_FLIGHT: u8 = 8;

#[derive(Clone, Copy)]
struct Entry {
    frame: u32,
    crc: u32,
    state: u8,
}

const ENTRY_NEW: Entry = Entry { frame: NONE, crc: 0, state: 0 };

struct Frame {
    in_use: bool,
    number: PageNo,
    /// The clock's mark.
    used: Cell<bool>,
}

/// Cache lines at the start of a page that a search reads: its header and the slots of a leaf of
/// small cells.
const PREFETCH_LINES: usize = 5;

/// Frames and page table.
pub(crate) struct Frames {
    frames: Vec<Frame>,
    /// The memory of the frames, in their order.
    slabs: Vec<Vec<u8>>,
    unused: Vec<u32>,
    table: Vec<Entry>,
    /// Pages whose images have gone out since the plan began.
    in_flight: Vec<PageNo>,
    dirty: usize,
    clean_leaves: usize,
    hand: usize,
}

impl Frames {
    pub fn new() -> Self {
        Self {
            frames: Vec::new(),
            slabs: Vec::new(),
            unused: Vec::new(),
            table: Vec::new(),
            in_flight: Vec::new(),
            dirty: 0,
            clean_leaves: 0,
            hand: 0,
        }
    }

    /// Pages in memory.
    pub fn count(&self) -> usize {
        self.frames.len() - self.unused.len()
    }

    /// Pages that only memory has.
    pub fn dirty_count(&self) -> usize {
        self.dirty
    }

    #[inline(always)]
    pub fn page(&self, frame: u32) -> &Page {
        &self.slabs[wide(frame / SLAB_PAGES)].as_chunks().0[wide(frame % SLAB_PAGES)]
    }

    #[inline(always)]
    pub fn page_mut(&mut self, frame: u32) -> &mut Page {
        &mut self.slabs[wide(frame / SLAB_PAGES)].as_chunks_mut().0[wide(frame % SLAB_PAGES)]
    }

    /// Two different pages at once.
    pub fn pair_mut(&mut self, a: u32, b: u32) -> (&mut Page, &mut Page) {
        let (slab_a, slab_b) = (wide(a / SLAB_PAGES), wide(b / SLAB_PAGES));
        let (at_a, at_b) = (wide(a % SLAB_PAGES), wide(b % SLAB_PAGES));
        if slab_a == slab_b {
            let pages = self.slabs[slab_a].as_chunks_mut().0;
            let pair = pages.get_disjoint_mut([at_a, at_b]);
            let [a, b] = pair.expect("two frames of one slab");
            return (a, b);
        }
        let pair = self.slabs.get_disjoint_mut([slab_a, slab_b]);
        let [slab_a, slab_b] = pair.expect("two slabs");
        (&mut slab_a.as_chunks_mut().0[at_a], &mut slab_b.as_chunks_mut().0[at_b])
    }

    /// Marks a frame as used for the clock.
    #[inline(always)]
    pub fn touch(&self, frame: u32) {
        self.frames[wide(frame)].used.set(true);
    }

    /// The frame of a page, if it is in memory.
    #[inline(always)]
    pub fn find(&self, number: PageNo) -> Option<u32> {
        match self.table.get(wide(number.get())) {
            Some(entry) if entry.frame != NONE => Some(entry.frame),
            _ => None,
        }
    }

    /// Has the memory of the frames fetched that pages are found by, for [`Frames::page`] soon after.
    #[inline]
    pub fn prefetch(&self, frame: u32) {
        let page = self.page(frame);
        for line in 0..PREFETCH_LINES {
            base::prefetch(&page[line * base::CACHE_LINE_SIZE..]);
        }
    }

    pub fn number(&self, frame: u32) -> PageNo {
        self.frames[wide(frame)].number
    }

    fn entry(&mut self, number: PageNo) -> &mut Entry {
        let at = wide(number.get());
        if at >= self.table.len() {
            // In steps: the table grows with the file, not with every page.
            self.table.resize((at + 1).next_multiple_of(8192), ENTRY_NEW);
        }
        &mut self.table[at]
    }

    /// The CRC of the image in the file.
    pub fn crc(&self, number: PageNo) -> u32 {
        self.table.get(wide(number.get())).map_or(0, |entry| entry.crc)
    }

    pub fn set_crc(&mut self, number: PageNo, crc: u32) {
        self.entry(number).crc = crc;
    }

    pub fn is_dirty(&self, number: PageNo) -> bool {
        self.table.get(wide(number.get())).is_some_and(|entry| entry.state & DIRTY != 0)
    }

    /// Whether the file cannot give the page back yet.
    fn must_stay(&self, number: PageNo) -> bool {
        self.table
            .get(wide(number.get()))
            .is_some_and(|entry| entry.state & (DIRTY | IN_FLIGHT) != 0)
    }

    /// Whether no tree refers to the page any more.
    pub fn is_gone(&self, number: PageNo) -> bool {
        self.table.get(wide(number.get())).is_some_and(|entry| entry.state & GONE != 0)
    }

    /// A frame for a page; what its memory holds is of no meaning.
    fn place(&mut self, number: PageNo) -> u32 {
        let frame = Frame { in_use: true, number, used: Cell::new(true) };
        let at = match self.unused.pop() {
            Some(at) => {
                self.frames[wide(at)] = frame;
                at
            }
            None => {
                let at = u32::try_from(self.frames.len()).expect("fewer frames than page numbers");
                self.frames.push(frame);
                if at.is_multiple_of(SLAB_PAGES) {
                    self.slabs.push(vec![0; wide(SLAB_PAGES) * PAGE_SIZE]);
                }
                at
            }
        };
        self.entry(number).frame = at;
        at
    }

    fn vacate(&mut self, number: PageNo) {
        let at = core::mem::replace(&mut self.entry(number).frame, NONE);
        if at == NONE {
            return;
        }
        self.frames[wide(at)].in_use = false;
        self.unused.push(at);
    }

    /// A new dirty page with any content.
    pub fn fresh(&mut self, number: PageNo) -> u32 {
        let entry = self.entry(number);
        assert!(
            entry.frame == NONE && entry.state & !GONE == 0,
            "page {number} is in memory already"
        );
        entry.state = DIRTY;
        self.dirty += 1;
        self.place(number)
    }

    /// Takes in a page that came from the file.
    pub fn adopt(&mut self, number: PageNo, page: &Page, crc: u32) {
        self.clean_leaves += usize::from(is_leaf(page));
        let entry = self.entry(number);
        assert!(entry.frame == NONE && entry.state == 0, "page {number} is in memory already");
        entry.crc = crc;
        let frame = self.place(number);
        self.page_mut(frame).copy_from_slice(page);
    }

    /// Gives the content of `old` to `new`, dirty. What the running plan still has to write stays,
    /// and is copied; otherwise the memory itself moves. The origin in the header is left to the
    /// caller.
    pub fn renumber(&mut self, old: PageNo, new: PageNo) -> u32 {
        let at = self.find(old).expect("only a page in memory is changed");
        if self.is_dirty(old) {
            let target = self.fresh(new);
            let (copy, page) = self.pair_mut(target, at);
            copy.copy_from_slice(page);
            self.entry(old).state |= RETIRED;
            return target;
        }
        self.clean_leaves -= usize::from(is_leaf(&self.page(at)[..]));
        let entry = self.entry(old);
        (entry.frame, entry.state) = (NONE, GONE);
        let entry = self.entry(new);
        assert!(entry.frame == NONE && entry.state & !GONE == 0, "page {new} is in memory already");
        entry.frame = at;
        entry.state = DIRTY;
        self.dirty += 1;
        self.frames[wide(at)].number = new;
        at
    }

    /// No tree refers to the page any more. `planned`: the running plan includes it, so it stays
    /// until it is written.
    pub fn retire(&mut self, number: PageNo, planned: bool) {
        let dirty = self.is_dirty(number);
        if dirty && planned {
            self.entry(number).state |= RETIRED;
            return;
        }
        if dirty {
            self.dirty -= 1;
        } else if let Some(at) = self.find(number) {
            self.clean_leaves -= usize::from(is_leaf(&self.page(at)[..]));
        }
        self.entry(number).state = GONE;
        self.vacate(number);
    }

    /// The image of a page has gone out with this CRC.
    pub fn written(&mut self, number: PageNo, crc: u32) {
        let at =
            self.find(number).expect("what a plan includes stays in memory until it is written");
        let leaf = is_leaf(&self.page(at)[..]);
        let entry = self.entry(number);
        assert!(entry.state & DIRTY != 0, "page {number} is written twice");
        let retired = entry.state & RETIRED != 0;
        entry.crc = crc;
        entry.state = if retired { GONE } else { IN_FLIGHT };
        self.dirty -= 1;
        if retired {
            self.vacate(number);
        } else {
            self.clean_leaves += usize::from(leaf);
            self.in_flight.push(number);
        }
    }

    /// Everything that has gone out has reached the file.
    pub fn landed(&mut self) {
        for number in core::mem::take(&mut self.in_flight) {
            self.entry(number).state &= !IN_FLIGHT;
        }
    }

    /// Moves the clock's hand over clean leaves, up to two rounds, until `enough` says so.
    /// Returns whether any went.
    pub fn evict(&mut self, mut enough: impl FnMut(usize, usize) -> bool) -> bool {
        let mut steps = 2 * self.frames.len();
        let mut any = false;
        while steps > 0 && self.clean_leaves > 0 && !enough(self.count(), self.clean_leaves) {
            steps -= 1;
            self.hand = if self.hand + 1 < self.frames.len() { self.hand + 1 } else { 0 };
            let frame = &self.frames[self.hand];
            if !frame.in_use {
                continue;
            }
            let number = frame.number;
            // The mark first: most frames have it, and the page itself is far away.
            if frame.used.replace(false) || self.must_stay(number) {
                continue;
            }
            let at = u32::try_from(self.hand).expect("frames are numbered by u32");
            if !is_leaf(self.page(at)) {
                continue;
            }
            self.clean_leaves -= 1;
            self.vacate(number);
            any = true;
        }
        any
    }
}
