//! A queue: keys below a name, taken in the order of their creation.

use std::collections::VecDeque;
use std::time::Duration;

use wire::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, SortOrder, SortTarget, Txn,
};

use super::place::folder;
use super::{Patience, RecipeError};
use crate::client::{Client, prefix_end};
use crate::result::OwnedKeyValue;
use crate::watch::{WatchEnd, WatchEvent, WatchOptions};

/// Elements that are looked at together: others may take some of them first.
const HEADS_MAX: i64 = 32;

/// How long one wait lasts.
const STEP: Duration = Duration::from_secs(1);

/// A queue that any number of processes put into and take from, first in, first out.
///
/// Guaranteed: elements are taken in the order of the revisions in which they were put, each by one taker,
/// who has taken it when [`Self::dequeue`] returns. Not guaranteed: that it is worked on; a taker that ends
/// takes what it took with it. Whoever must not lose elements reads them first and deletes them when they
/// are done, under a [`Lock`](super::Lock).
///
/// Looking for the oldest elements reads the keys of the queue: made for thousands of elements, not for
/// millions.
#[derive(Debug)]
pub struct Queue {
    name: Vec<u8>,
    /// The oldest elements as they were at the last look.
    heads: VecDeque<OwnedKeyValue>,
}

impl Queue {
    /// The queue of this name.
    pub fn new(name: &[u8]) -> Self {
        Self { name: name.to_vec(), heads: VecDeque::new() }
    }

    /// Puts an element at the end; gives its revision.
    ///
    /// Errors: those of a write. After an unknown outcome it may be in the queue or not.
    pub fn enqueue(&self, client: &mut Client, value: &[u8]) -> Result<i64, RecipeError> {
        loop {
            let number = (u128::from(client.random_below(u64::MAX)) << 64)
                | u128::from(client.random_below(u64::MAX));
            let mut key = folder(&self.name);
            key.extend_from_slice(format!("{number:032x}").as_bytes());
            let (target, equal) = (CompareTarget::CreateRevision, CompareResult::Equal);
            let absent = Compare::number(&key, target, equal, 0);
            let put = Op::Put(Put::new(&key, value));
            let result = client.txn(&Txn::new().when(absent).then(put))?;
            if result.succeeded {
                return Ok(result.revision);
            }
        }
    }

    /// Takes the oldest element; none: there is none.
    ///
    /// Errors: those of a write. After an unknown outcome the element may have been taken or not.
    pub fn try_dequeue(&mut self, client: &mut Client) -> Result<Option<Vec<u8>>, RecipeError> {
        self.take(client).map(Result::ok)
    }

    /// Takes the oldest element; waits for one, for at most `timeout`; none: for ever.
    ///
    /// Errors: [`RecipeError::TimedOut`], those of [`Self::try_dequeue`] and of a watch.
    pub fn dequeue(
        &mut self,
        client: &mut Client,
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>, RecipeError> {
        let patience = Patience::new(timeout);
        loop {
            let revision = match self.take(client)? {
                Ok(value) => return Ok(value),
                Err(revision) => revision,
            };
            let options = WatchOptions {
                no_delete: true,
                keys_only: true,
                ..WatchOptions::prefix(&folder(&self.name))
            };
            let mut watcher = client.watch_hub()?.watch(options.from_revision(revision + 1))?;
            loop {
                match watcher.next_within(patience.left(STEP)?) {
                    Ok(Some(WatchEvent::Changes { .. })) => break,
                    Ok(Some(WatchEvent::Progress { .. }) | None) => {}
                    Err(WatchEnd::Compacted { .. }) => break,
                    Err(end) => return Err(end.into()),
                }
            }
        }
    }

    /// Takes the oldest element, or tells the revision at which there was none.
    fn take(&mut self, client: &mut Client) -> Result<Result<Vec<u8>, i64>, RecipeError> {
        loop {
            while let Some(head) = self.heads.pop_front() {
                let (target, equal) = (CompareTarget::CreateRevision, CompareResult::Equal);
                let there = Compare::number(&head.key, target, equal, head.create_revision);
                let delete = Op::DeleteRange(DeleteRange::one(&head.key));
                if client.txn(&Txn::new().when(there).then(delete))?.succeeded {
                    return Ok(Ok(head.value));
                }
            }
            let prefix = folder(&self.name);
            let end = prefix_end(&prefix);
            let range = Range {
                limit: HEADS_MAX,
                sort_order: SortOrder::Ascend,
                sort_target: SortTarget::CreateRevision,
                ..Range::between(&prefix, &end)
            };
            let result = client.range(&range)?;
            if result.kvs.is_empty() {
                return Ok(Err(result.revision));
            }
            self.heads = result.kvs.into();
        }
    }
}
