//! Reading: a key, a range in either direction, a count, a run.
//!
//! A read that meets a leaf that is not in memory ends with its [`Miss`]. It keeps no position: the
//! caller reads the leaf and asks again, from behind the last key that it has seen.

use core::ops::ControlFlow;

use crate::file::PageFile;
use crate::page::RUN_HEADER_SIZE;
use crate::{Cell, KeyRange, Miss, Run, Summary, TreeId, slotted};
use base::PageNo;

/// Greatest number of levels. Every level above the leaves at least doubles what had to be written
/// to make it, so 2^31 leaves, more than page numbers exist for, are needed to pass it.
pub(crate) const DEPTH_MAX: usize = 32;

/// The order of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the least key up.
    Ascending,
    /// From the greatest key down.
    Descending,
}

/// Pages of a walk from the root down, each with the slot to go on with.
struct Stack {
    frames: [u32; DEPTH_MAX],
    next: [usize; DEPTH_MAX],
    depth: usize,
}

impl PageFile {
    /// The frame of a child of a branch at `level`.
    #[inline(always)]
    pub(crate) fn frame_of(&self, number: PageNo) -> Result<u32, Miss> {
        match self.frames.find(number) {
            Some(frame) => Ok(frame),
            // Branches never leave memory, so this is a leaf.
            None => {
                Err(Miss { page: number, pages: 1, crc: self.frames.crc(number), run_size: None })
            }
        }
    }

    /// The frame of the leaf that covers `key`; none in an empty tree.
    #[inline]
    fn leaf_of(&self, tree: TreeId, key: &[u8]) -> Result<Option<u32>, Miss> {
        let root = self.root_of(tree);
        let Some(mut number) = root.page else { return Ok(None) };
        for _ in 0..root.height {
            let page = self.frames.page(self.frame_of(number)?);
            number = slotted::child(page, slotted::child_slot(page, key));
        }
        let frame = self.frame_of(number)?;
        self.frames.touch(frame);
        Ok(Some(frame))
    }

    /// The cell of `key`.
    ///
    /// # Errors
    ///
    /// The leaf is not in memory.
    pub fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Cell<'_>>, Miss> {
        let Some(frame) = self.leaf_of(tree, key)? else { return Ok(None) };
        let leaf = self.frames.page(frame);
        let (slot, found) = slotted::search(leaf, key);
        Ok(found.then(|| slotted::cell(leaf, slot)))
    }

    /// The leaf that [`PageFile::get`] and a change of `key` will miss, if any.
    #[must_use]
    pub fn missing(&self, tree: TreeId, key: &[u8]) -> Option<Miss> {
        self.leaf_of(tree, key).err()
    }

    /// Tells the leaves that a walk over `range` will miss, in the order of their keys, until `tell`
    /// breaks. Reads branches only.
    pub fn missing_in(
        &self,
        tree: TreeId,
        range: KeyRange<'_>,
        tell: &mut dyn FnMut(Miss) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let root = self.root_of(tree);
        match root.page {
            Some(number) if range.end.is_none_or(|end| end > range.start) => {
                self.missing_below(number, root.height, range, tell)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn missing_below(
        &self,
        number: PageNo,
        height: u8,
        range: KeyRange<'_>,
        tell: &mut dyn FnMut(Miss) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let frame = match self.frame_of(number) {
            Ok(frame) => frame,
            Err(miss) => return tell(miss),
        };
        self.frames.touch(frame);
        if height == 0 {
            return ControlFlow::Continue(());
        }
        let page = self.frames.page(frame);
        let first = slotted::child_slot(page, range.start);
        for slot in first..slotted::count(page) {
            if slot > first && range.end.is_some_and(|end| slotted::key(page, slot) >= end) {
                break;
            }
            self.missing_below(slotted::child(page, slot), height - 1, range, tell)?;
        }
        ControlFlow::Continue(())
    }

    /// Counted cells and greatest number of a whole tree.
    #[must_use]
    pub fn summary(&self, tree: TreeId) -> Summary {
        self.root_of(tree).summary
    }

    /// Visits the cells of `range` in order, until `visit` breaks. `skip` is asked for every page
    /// on the way, with what lies below it; true: do not enter.
    ///
    /// # Errors
    ///
    /// A leaf is not in memory. Cells before it have been visited: go on behind the last one.
    pub fn walk<'a>(
        &'a self,
        tree: TreeId,
        range: KeyRange<'_>,
        direction: Direction,
        skip: &mut dyn FnMut(Summary) -> bool,
        visit: &mut dyn FnMut(Cell<'a>) -> ControlFlow<()>,
    ) -> Result<(), Miss> {
        let root = self.root_of(tree);
        let Some(number) = root.page else { return Ok(()) };
        if range.end.is_some_and(|end| end <= range.start) || skip(root.summary) {
            return Ok(());
        }
        let frame = self.frame_of(number)?;
        if root.height == 0 {
            let _ = self.visit_leaf(frame, range, direction, visit);
            return Ok(());
        }
        let mut stack = Stack { frames: [0; DEPTH_MAX], next: [0; DEPTH_MAX], depth: 0 };
        self.enter(&mut stack, 0, frame, range, direction);
        loop {
            let at = stack.depth;
            let page = self.frames.page(stack.frames[at]);
            let slot = match direction {
                Direction::Ascending => {
                    let slot = stack.next[at];
                    let end = slotted::count(page);
                    if slot > 0
                        && slot < end
                        && range.end.is_some_and(|end| slotted::key(page, slot) >= end)
                    {
                        return Ok(());
                    }
                    stack.next[at] += 1;
                    (slot < end).then_some(slot)
                }
                Direction::Descending => {
                    let behind = stack.next[at];
                    if behind < slotted::count(page)
                        && behind > 0
                        && slotted::key(page, behind) <= range.start
                    {
                        return Ok(());
                    }
                    stack.next[at] = behind.saturating_sub(1);
                    behind.checked_sub(1)
                }
            };
            let Some(slot) = slot else {
                if at == 0 {
                    return Ok(());
                }
                stack.depth -= 1;
                continue;
            };
            if skip(slotted::child_summary(page, slot)) {
                continue;
            }
            let frame = self.frame_of(slotted::child(page, slot))?;
            if at + 1 < usize::from(root.height) {
                self.enter(&mut stack, at + 1, frame, range, direction);
            } else if self.visit_leaf(frame, range, direction, visit).is_break() {
                return Ok(());
            }
        }
    }

    fn enter(
        &self,
        stack: &mut Stack,
        depth: usize,
        frame: u32,
        range: KeyRange<'_>,
        direction: Direction,
    ) {
        let page = self.frames.page(frame);
        stack.depth = depth;
        stack.frames[depth] = frame;
        stack.next[depth] = match (direction, range.end) {
            (Direction::Ascending, _) => slotted::child_slot(page, range.start),
            (Direction::Descending, Some(end)) => slotted::search(page, end).0,
            (Direction::Descending, None) => slotted::count(page),
        };
    }

    fn visit_leaf<'a>(
        &'a self,
        frame: u32,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut dyn FnMut(Cell<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.frames.touch(frame);
        let leaf = self.frames.page(frame);
        let count = slotted::count(leaf);
        if count == 0 {
            return ControlFlow::Continue(());
        }
        let from = if slotted::key(leaf, 0) >= range.start {
            0
        } else {
            slotted::search(leaf, range.start).0
        };
        let to = match range.end {
            Some(end) if slotted::key(leaf, count - 1) >= end => slotted::search(leaf, end).0,
            _ => count,
        };
        match direction {
            Direction::Ascending => {
                for slot in from..to {
                    visit(slotted::cell(leaf, slot))?;
                }
            }
            Direction::Descending => {
                for slot in (from..to).rev() {
                    visit(slotted::cell(leaf, slot))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Counted cells in `range`, from what branches say and the two leaves at its ends.
    ///
    /// # Errors
    ///
    /// One of these leaves is not in memory.
    pub fn count(&self, tree: TreeId, range: KeyRange<'_>) -> Result<u64, Miss> {
        let to = match range.end {
            Some(end) if end <= range.start => return Ok(0),
            Some(end) => self.counted_below(tree, end)?,
            None => self.root_of(tree).summary.count,
        };
        if range.start.is_empty() || to == 0 {
            return Ok(to);
        }
        Ok(to.saturating_sub(self.counted_below(tree, range.start)?))
    }

    /// Counted cells with keys below `key`.
    fn counted_below(&self, tree: TreeId, key: &[u8]) -> Result<u64, Miss> {
        let root = self.root_of(tree);
        let Some(mut number) = root.page else { return Ok(0) };
        let mut total = root.summary.count;
        let mut below = 0_u64;
        for _ in 0..root.height {
            let page = self.frames.page(self.frame_of(number)?);
            let (slot, count) = (slotted::child_slot(page, key), slotted::count(page));
            let of = |slots: core::ops::Range<usize>| -> u64 {
                slots.fold(0, |sum, slot| {
                    slotted::child_summary(page, slot).count.saturating_add(sum)
                })
            };
            let this = slotted::child_summary(page, slot).count;
            // The shorter side of the page is summed.
            below = below.saturating_add(if slot <= count / 2 {
                of(0..slot)
            } else {
                total.saturating_sub(of(slot..count))
            });
            total = this;
            number = slotted::child(page, slot);
        }
        if total == 0 {
            return Ok(below);
        }
        let frame = self.frame_of(number)?;
        self.frames.touch(frame);
        let leaf = self.frames.page(frame);
        Ok(below.saturating_add(slotted::counted_before(leaf, slotted::search(leaf, key).0)))
    }

    /// The bytes of a run, as they were given to [`PageFile::create_run`].
    ///
    /// # Errors
    ///
    /// They are not in memory.
    pub fn run(&self, run: &Run) -> Result<&[u8], Miss> {
        match self.runs.get(&run.first) {
            Some(frame) if frame.run.crc == run.crc && frame.run.size == run.size => {
                frame.used.set(true);
                Ok(&frame.bytes[RUN_HEADER_SIZE..RUN_HEADER_SIZE + crate::page::wide(run.size)])
            }
            _ => Err(run.miss()),
        }
    }
}
