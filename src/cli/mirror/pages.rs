//! The keys of one side in their order, read page by page.

use std::collections::VecDeque;

use super::error::MirrorError;
use super::gateway::Gateway;
use super::inbox::Inbox;
use super::message::{Bytes, KeyValue, Range};

/// Keys of the greatest page.
const PAGE_KEYS_MAX: i64 = 1_000;

/// Keys of the first page, before it is known how large values are.
const PAGE_KEYS_FIRST: i64 = 100;

/// Bytes that a page should not have more of.
const PAGE_SIZE: usize = 2 << 20;

/// Keys, one after the other.
pub struct Pages {
    range: Range,
    queue: VecDeque<KeyValue>,
    is_over: bool,
}

impl Pages {
    /// Those of a range, at its revision.
    pub fn new(range: Range) -> Self {
        let range = Range { limit: PAGE_KEYS_FIRST, ..range };
        Self { range, queue: VecDeque::new(), is_over: false }
    }

    /// The next key; none: there are no more.
    ///
    /// # Errors
    /// See [`Gateway::range`].
    pub fn next(
        &mut self,
        gateway: &mut Gateway,
        inbox: &mut Inbox,
    ) -> Result<Option<KeyValue>, MirrorError> {
        while self.queue.is_empty() && !self.is_over {
            self.read(gateway, inbox)?;
        }
        Ok(self.queue.pop_front())
    }

    fn read(&mut self, gateway: &mut Gateway, inbox: &mut Inbox) -> Result<(), MirrorError> {
        let answer = match gateway.range(inbox, &self.range) {
            Err(MirrorError::TooLarge(_)) if self.range.limit > 1 => {
                self.range.limit /= 2;
                return Ok(());
            }
            result => result?,
        };
        self.is_over = !answer.more;
        if let Some(last) = answer.kvs.last() {
            // The first key behind it.
            self.range.key = Bytes([last.key.0.as_slice(), &[0]].concat());
        } else if answer.more {
            return Err(gateway.foreign("it says that there are more keys but gives none"));
        }
        let size: usize = answer.kvs.iter().map(|kv| kv.key.0.len() + kv.value.0.len()).sum();
        self.range.limit = if size > PAGE_SIZE {
            (self.range.limit / 2).max(1)
        } else if size < PAGE_SIZE / 4 {
            (self.range.limit * 4).min(PAGE_KEYS_MAX)
        } else {
            self.range.limit
        };
        self.queue = answer.kvs.into();
        Ok(())
    }
}
