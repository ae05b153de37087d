//! How many bytes of log lie behind an index, to within a megabyte, in a few marks.

use alloc::collections::VecDeque;

use base::LogIndex;

/// Bytes between two marks.
const MARK_DISTANCE: u64 = 1 << 20;

/// Marks along the log: up to this index, that many bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SizeMarks {
    marks: VecDeque<(LogIndex, u64)>,
    total: u64,
}

impl SizeMarks {
    /// Counts a group of `size` bytes; `before` is the last index in front of it.
    pub fn add(&mut self, before: LogIndex, size: u64) {
        if self.marks.back().is_none_or(|&(_, total)| self.total - total >= MARK_DISTANCE) {
            self.marks.push_back((before, self.total));
        }
        self.total += size;
    }

    /// Entries behind `last_valid` are void.
    pub fn cut(&mut self, last_valid: LogIndex) {
        for (index, _) in self.marks.iter_mut().rev().take_while(|(index, _)| *index > last_valid) {
            *index = last_valid;
        }
    }

    /// Nothing at or before `index` will be asked about again.
    pub fn forget(&mut self, index: LogIndex) {
        while self.marks.get(1).is_some_and(|&(next, _)| next <= index) {
            self.marks.pop_front();
        }
    }

    /// Bytes of groups behind `index`, up to a mark too many.
    pub fn size_since(&self, index: LogIndex) -> u64 {
        let upto = self.marks.partition_point(|&(mark, _)| mark <= index);
        let mark = upto.checked_sub(1).or(Some(0)).and_then(|at| self.marks.get(at));
        mark.map_or(0, |&(_, total)| self.total - total)
    }
}
