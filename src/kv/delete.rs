//! Deleting a range in slices: however many keys it has, one step deletes what its budget allows.

use alloc::vec::Vec;

use tree::Direction;

use crate::command::DeleteRange;
use crate::keys::{Interval, Span};
use crate::outcome::{Stop, charge};
use crate::scan::{Cursor, Flow, Scan};
use crate::state::State;
use crate::version::Cause;

/// Keys found in one walk and then deleted one by one.
const BATCH: usize = 64;

/// A delete on its way.
#[derive(Debug)]
pub(crate) struct Deleting {
    cursor: Cursor,
    count: u64,
}

impl Deleting {
    /// Before the first key.
    pub fn new(delete: &DeleteRange<'_>) -> Self {
        let interval = Interval::new(delete.key, delete.range_end);
        Self { cursor: Cursor::new(Span::new(&interval)), count: 0 }
    }

    /// After a checkpoint behind `count` deleted keys: from the begin of the range, for what it deleted
    /// is not live any more.
    pub fn resume(delete: &DeleteRange<'_>, count: u64) -> Self {
        Self { count, ..Self::new(delete) }
    }
}

impl State {
    /// Deletes what is left, in key order; returns how many keys were deleted in all.
    pub(crate) fn delete_range(
        &mut self,
        deleting: &mut Deleting,
        budget: &mut u32,
    ) -> Result<u64, Stop> {
        if deleting.cursor.span.single {
            charge(budget)?;
            let deleted = self.delete(&deleting.cursor.span.start, Cause::Request)?;
            return Ok(deleting.count + u64::from(deleted));
        }
        let mut keys = core::mem::take(&mut self.scratch.keys);
        let result = loop {
            match self.delete_batch(deleting, &mut keys, budget) {
                Ok(true) => break Ok(deleting.count),
                Ok(false) => {}
                Err(stop) => break Err(stop),
            }
        };
        self.scratch.keys = keys;
        result
    }

    /// Finds some keys and deletes them; true at the end of the range. What was found is deleted also
    /// when the budget ran out meanwhile, so that every step gets on.
    fn delete_batch(
        &mut self,
        deleting: &mut Deleting,
        keys: &mut Vec<u8>,
        budget: &mut u32,
    ) -> Result<bool, Stop> {
        keys.clear();
        let mut found = 0;
        let now = self.now();
        let ascending = Direction::Ascending;
        let scan = deleting.cursor.scan(&self.pages, now, ascending, budget, &mut |held| {
            let size = u16::try_from(held.key.len()).expect("a key has at most KEY_SIZE_MAX bytes");
            keys.extend_from_slice(&size.to_le_bytes());
            keys.extend_from_slice(held.key);
            found += 1;
            Ok(if found == BATCH { Flow::PauseBehind } else { Flow::Next })
        });
        let mut rest = keys.as_slice();
        while let Some((size, tail)) = rest.split_first_chunk::<2>() {
            let (key, tail) = tail.split_at(usize::from(u16::from_le_bytes(*size)));
            match self.delete(key, Cause::Request) {
                Ok(deleted) => deleting.count += u64::from(deleted),
                Err(stop) => {
                    deleting.cursor.span.start_at(key);
                    return Err(stop);
                }
            }
            rest = tail;
        }
        Ok(scan? == Scan::End)
    }
}
