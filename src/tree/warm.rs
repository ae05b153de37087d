//! Warming: the memory that several descents will touch is fetched for all of them at once.
//!
//! A descent waits for memory at each level: page, slots, cell. With a million keys that is most of
//! the cost of a put. Done level by level for a batch of keys, with a hint for the next step of each
//! key before any of them takes it, the waits overlap. Nothing is read for the caller; a page that is
//! not in memory ends the way of its key.

use base::{CACHE_LINE_SIZE, PageNo};

use crate::file::PageFile;
use crate::{TreeId, slotted};

/// Keys that are warmed together: what they touch fits the second-level cache several times.
pub const WARM_MAX: usize = 16;

/// Cache lines of a cell that are fetched: a key and a value of a few hundred bytes.
const CELL_LINES: usize = 6;

impl PageFile {
    /// Has the memory fetched that [`PageFile::seek`] of these keys, and a write there, will touch.
    /// Keys beyond [`WARM_MAX`] are left out.
    pub fn warm(&self, tree: TreeId, keys: &[&[u8]]) {
        let root = self.root_of(tree);
        let Some(number) = root.page else { return };
        let keys = &keys[..keys.len().min(WARM_MAX)];
        let mut numbers = [number; WARM_MAX];
        for _ in 0..root.height {
            for (number, key) in numbers.iter_mut().zip(keys) {
                if let Some(frame) = self.frames.find(*number) {
                    let page = self.frames.page(frame);
                    *number = slotted::child(page, slotted::child_slot(page, key));
                }
            }
            self.prefetch_pages(&numbers[..keys.len()]);
        }
        for (number, key) in numbers.iter().zip(keys) {
            if let Some(frame) = self.frames.find(*number) {
                let page = self.frames.page(frame);
                if slotted::count(page) > 0 {
                    let bytes = slotted::cell_bytes(page, slotted::search_heads(page, key));
                    for line in bytes.chunks(CACHE_LINE_SIZE).take(CELL_LINES) {
                        base::prefetch(line);
                    }
                }
            }
        }
    }

    #[inline]
    fn prefetch_pages(&self, numbers: &[PageNo]) {
        for number in numbers {
            if let Some(frame) = self.frames.find(*number) {
                self.frames.prefetch(frame);
            }
        }
    }
}
