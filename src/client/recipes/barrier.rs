//! A double barrier: so many processes begin together and end together.
//!
//! ```text
//! name/waiters/LEASE   one for each process, from enter to leave
//! name/ready           from when the last one has come until the last one has gone
//! ```

use std::time::{Duration, Instant};

use wire::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, SortOrder, SortTarget, Txn,
};

use super::place::{Place, folder};
use super::{Patience, RecipeError};
use crate::client::{Client, prefix_end};
use crate::lease_keeper::KeptLease;
use crate::watch::{WatchEnd, WatchEvent, WatchOptions};

/// How long one wait lasts before the lease is looked at again.
const STEP: Duration = Duration::from_millis(500);

/// A barrier that `count` processes enter together and leave together. It can be used again.
///
/// Guaranteed: [`Self::enter`] returns only after `count` processes were in at one revision, and
/// [`Self::leave`] only after all of them have left, or have lost their leases. Not guaranteed: that those
/// who are in are alive; a process that loses its lease counts as gone.
#[derive(Debug)]
pub struct DoubleBarrier {
    name: Vec<u8>,
    count: usize,
    /// In it: the own key, and the revision of the key that says that all are there.
    inside: Option<(Place, i64)>,
}

impl DoubleBarrier {
    /// The barrier of this name, for `count` processes; all of them name the same number.
    ///
    /// # Panics
    ///
    /// When the count is 0.
    pub fn new(name: &[u8], count: usize) -> Self {
        assert!(count > 0, "a barrier is for at least one process");
        Self { name: name.to_vec(), count, inside: None }
    }

    fn ready_key(&self) -> Vec<u8> {
        [&folder(&self.name), &b"ready"[..]].concat()
    }

    fn waiters(&self) -> Vec<u8> {
        [&folder(&self.name), &b"waiters"[..]].concat()
    }

    /// Waits until all are there, for at most `timeout`; none: for ever. Whoever comes too many waits for
    /// the next time.
    ///
    /// Errors: [`RecipeError::LeaseLost`], [`RecipeError::TimedOut`], and what calls and watches fail with.
    /// It is then not entered.
    pub fn enter(
        &mut self,
        client: &mut Client,
        lease: &KeptLease,
        timeout: Option<Duration>,
    ) -> Result<(), RecipeError> {
        let patience = Patience::new(timeout);
        let (ready_key, waiters) = (self.ready_key(), self.waiters());
        let mut place: Option<Place> = None;
        loop {
            check(lease)?;
            // One read, so that both are of one revision.
            let prefix = folder(&self.name);
            let end = prefix_end(&prefix);
            let range = Range {
                sort_order: SortOrder::Ascend,
                sort_target: SortTarget::CreateRevision,
                keys_only: true,
                ..Range::between(&prefix, &end)
            };
            let state = client.range(&range)?;
            let ready = state.kvs.iter().find(|kv| kv.key == ready_key);
            let mine = place.as_ref().map(|place| place.key());
            let line: Vec<&[u8]> =
                state.kvs.iter().map(|kv| kv.key.as_slice()).filter(|k| *k != ready_key).collect();
            let index = mine.and_then(|mine| line.iter().position(|key| *key == mine));
            match (ready.map(|kv| kv.create_revision), place.take()) {
                // Of this time if the own key was there before it.
                (Some(ready), Some(place)) if index.is_some() && place.token() < ready => {
                    if index.is_some_and(|index| index < self.count) {
                        self.inside = Some((place, ready));
                        return Ok(());
                    }
                    // One too many.
                    place.leave(client)?;
                }
                (_, Some(_)) if index.is_none() => return Err(RecipeError::LeaseLost),
                (Some(_), Some(place)) => drop(place.leave(client)?),
                // All who were in it have gone, and none of them could say so.
                (Some(ready), None) if line.is_empty() => {
                    self.clear(client, ready)?;
                    continue;
                }
                (Some(_), None) => {}
                (None, None) => {
                    place = Some(Place::take(client, lease, &waiters, b"", patience)?);
                    continue;
                }
                (None, Some(held)) => {
                    if line.len() >= self.count {
                        let (target, equal) = (CompareTarget::CreateRevision, CompareResult::Equal);
                        let absent = Compare::number(&ready_key, target, equal, 0);
                        let put = Op::Put(Put::new(&ready_key, b""));
                        client.txn(&Txn::new().when(absent).when(held.guard()).then(put))?;
                        place = Some(held);
                        continue;
                    }
                    place = Some(held);
                }
            }
            self.wait_change(client, Some(lease), state.revision, patience)?;
        }
    }

    /// Waits until all have left, for at most `timeout`; none: for ever. Does nothing for who has not
    /// entered.
    ///
    /// Errors: those of [`Self::enter`]; the own key has gone all the same, or goes in the background.
    pub fn leave(
        &mut self,
        client: &mut Client,
        timeout: Option<Duration>,
    ) -> Result<(), RecipeError> {
        let patience = Patience::new(timeout);
        let Some((place, ready)) = self.inside.take() else { return Ok(()) };
        place.leave(client)?;
        let ready_key = self.ready_key();
        loop {
            if self.clear(client, ready)? {
                return Ok(());
            }
            let state = client.range(&Range::one(&ready_key))?;
            if state.kvs.first().is_none_or(|kv| kv.create_revision != ready) {
                return Ok(());
            }
            self.wait_change(client, None, state.revision, patience)?;
        }
    }

    /// Deletes the key that says that all are there if nobody is any more; true if it did.
    fn clear(&self, client: &mut Client, ready: i64) -> Result<bool, RecipeError> {
        let (ready_key, waiters) = (self.ready_key(), folder(&self.waiters()));
        let end = prefix_end(&waiters);
        let equal = CompareResult::Equal;
        // It has to hold for each key of the range: it does if there is none.
        let version = Compare::number(&waiters, CompareTarget::Version, equal, 0);
        let is_empty = Compare { range_end: &end, ..version };
        let is_there = Compare::number(&ready_key, CompareTarget::CreateRevision, equal, ready);
        let delete = Op::DeleteRange(DeleteRange::one(&ready_key));
        let txn = Txn::new().when(is_empty).when(is_there).then(delete);
        Ok(client.txn(&txn)?.succeeded)
    }

    /// Waits for a change of the barrier behind a revision.
    fn wait_change(
        &self,
        client: &mut Client,
        lease: Option<&KeptLease>,
        revision: i64,
        patience: Patience,
    ) -> Result<(), RecipeError> {
        let options = WatchOptions { keys_only: true, ..WatchOptions::prefix(&folder(&self.name)) };
        let mut watcher = client.watch_hub()?.watch(options.from_revision(revision + 1))?;
        loop {
            lease.map_or(Ok(()), check)?;
            let valid_until = lease.and_then(KeptLease::valid_until);
            let left = valid_until
                .map_or(STEP, |end| end.saturating_duration_since(Instant::now()).min(STEP));
            match watcher.next_within(patience.left(left)?) {
                Ok(Some(WatchEvent::Changes { .. })) | Err(WatchEnd::Compacted { .. }) => {
                    return Ok(());
                }
                Ok(Some(WatchEvent::Progress { .. }) | None) => {}
                Err(end) => return Err(end.into()),
            }
        }
    }
}

fn check(lease: &KeptLease) -> Result<(), RecipeError> {
    if lease.is_valid() { Ok(()) } else { Err(RecipeError::LeaseLost) }
}
