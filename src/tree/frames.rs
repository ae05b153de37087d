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
//! Overflow runs are not here (file.rs): they are rare and have any size.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

use base::PageNo;

use crate::page::{Page, blank, is_leaf, wide};

/// No frame.
const NONE: u32 = u32::MAX;

/// Boxes kept for the next pages instead of being given back to the allocator.
const SPARE_MAX: usize = 256;

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
    /// None: the frame is not in use.
    page: Option<Box<Page>>,
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
    unused: Vec<u32>,
    spare: Vec<Box<Page>>,
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
            unused: Vec::new(),
            spare: Vec::new(),
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
        self.frames[wide(frame)].page.as_deref().expect("a frame in use has a page")
    }

    #[inline(always)]
    pub fn page_mut(&mut self, frame: u32) -> &mut Page {
        self.frames[wide(frame)].page.as_deref_mut().expect("a frame in use has a page")
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

    fn place(&mut self, number: PageNo, page: Box<Page>) -> u32 {
        let frame = Frame { page: Some(page), number, used: Cell::new(true) };
        let at = match self.unused.pop() {
            Some(at) => {
                self.frames[wide(at)] = frame;
                at
            }
            None => {
                let at = u32::try_from(self.frames.len()).expect("fewer frames than page numbers");
                self.frames.push(frame);
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
        if let Some(page) = self.frames[wide(at)].page.take()
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(page);
        }
        self.unused.push(at);
    }

    /// A new dirty page with any content.
    pub fn fresh(&mut self, number: PageNo) -> u32 {
        let page = self.spare.pop().unwrap_or_else(blank);
        let entry = self.entry(number);
        assert!(
            entry.frame == NONE && entry.state & !GONE == 0,
            "page {number} is in memory already"
        );
        entry.state = DIRTY;
        self.dirty += 1;
        self.place(number, page)
    }

    /// Takes in a page that came from the file.
    pub fn adopt(&mut self, number: PageNo, page: Box<Page>, crc: u32) -> u32 {
        self.clean_leaves += usize::from(is_leaf(&page[..]));
        let entry = self.entry(number);
        assert!(entry.frame == NONE && entry.state == 0, "page {number} is in memory already");
        entry.crc = crc;
        self.place(number, page)
    }

    /// Gives the content of `old` to `new`, dirty. What the running plan still has to write stays,
    /// and is copied; otherwise the memory itself moves. The origin in the header is left to the
    /// caller.
    pub fn renumber(&mut self, old: PageNo, new: PageNo) -> u32 {
        let at = self.find(old).expect("only a page in memory is changed");
        if self.is_dirty(old) {
            let target = self.fresh(new);
            let mut page = self.frames[wide(target)].page.take().expect("it was just placed");
            page.copy_from_slice(self.page(at));
            self.frames[wide(target)].page = Some(page);
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

    /// Takes the memory of a page out, to work on two pages at once; [`Frames::put_back`] follows.
    pub fn take_out(&mut self, frame: u32) -> Box<Page> {
        self.frames[wide(frame)].page.take().expect("a frame in use has a page")
    }

    pub fn put_back(&mut self, frame: u32, page: Box<Page>) {
        self.frames[wide(frame)].page = Some(page);
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
            let Some(page) = frame.page.as_deref() else { continue };
            let number = frame.number;
            if !is_leaf(page) || self.must_stay(number) || frame.used.replace(false) {
                continue;
            }
            self.clean_leaves -= 1;
            self.vacate(number);
            any = true;
        }
        if any {
            self.spare.truncate(SPARE_MAX / 4);
        }
        any
    }
}
