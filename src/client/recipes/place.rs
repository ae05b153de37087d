//! A place in a line: a key below a name that hangs on a lease. The oldest key of the name is first.
//!
//! ```text
//! name/1a  created at 7    first
//! name/9f  created at 9    waits for name/1a
//! name/04  created at 12   waits for name/9f: when it goes, one is woken up, not all
//! ```

use std::time::{Duration, Instant};

use wire::{
    ChangeKind, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, SortOrder,
    SortTarget, Txn,
};

use super::{Patience, RecipeError};
use crate::client::{Client, prefix_end};
use crate::error::Error;
use crate::lease_keeper::{KeptLease, LeaseKeeper, Work};
use crate::result::{OpResult, OwnedKeyValue};
use crate::watch::{WatchEnd, WatchEvent, WatchOptions, WatchedRange};

/// How long one wait for a change lasts before the lease is looked at again.
const STEP: Duration = Duration::from_millis(500);

/// `name/`.
pub(super) fn folder(name: &[u8]) -> Vec<u8> {
    let mut folder = name.to_vec();
    folder.push(b'/');
    folder
}

/// The oldest key of a name, at the newest revision, and that revision.
pub(super) fn oldest(
    client: &mut Client,
    name: &[u8],
) -> Result<(Option<OwnedKeyValue>, i64), Error> {
    let prefix = folder(name);
    let end = prefix_end(&prefix);
    let range = Range {
        limit: 1,
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::CreateRevision,
        ..Range::between(&prefix, &end)
    };
    let result = client.range(&range)?;
    Ok((result.kvs.into_iter().next(), result.revision))
}

/// A key that hangs on a lease and goes with this value.
#[derive(Debug)]
pub(super) struct Place {
    name: Vec<u8>,
    key: Vec<u8>,
    create_revision: i64,
    lease: i64,
    keeper: LeaseKeeper,
    /// It has been deleted.
    is_left: bool,
}

impl Place {
    /// Puts the key; one of the same lease that is there already is taken over, with its value.
    pub(super) fn take(
        client: &mut Client,
        lease: &KeptLease,
        name: &[u8],
        value: &[u8],
        patience: Patience,
    ) -> Result<Self, RecipeError> {
        let mut key = folder(name);
        key.extend_from_slice(format!("{:x}", lease.id()).as_bytes());
        // From here on the key goes with the value, whatever fails.
        let mut place = Self {
            name: name.to_vec(),
            key,
            create_revision: 0,
            lease: lease.id(),
            keeper: lease.keeper().clone(),
            is_left: false,
        };
        loop {
            place.check(lease)?;
            let equal = CompareResult::Equal;
            let absent = Compare::number(&place.key, CompareTarget::CreateRevision, equal, 0);
            let put = Put { lease: lease.id(), ..Put::new(&place.key, value) };
            let txn = Txn::new()
                .when(absent)
                .then(Op::Put(put))
                .otherwise(Op::Range(Range::one(&place.key)));
            match client.txn(&txn) {
                Ok(result) if result.succeeded => {
                    place.create_revision = result.revision;
                    return Ok(place);
                }
                Ok(result) => {
                    let found = result.responses.into_iter().next();
                    let found = match found {
                        Some(OpResult::Range(range)) => range.kvs.into_iter().next(),
                        // The answer of a write that was sent before does not say.
                        Some(_) | None => client.get(&place.key)?,
                    };
                    if let Some(found) = found {
                        if found.lease != lease.id() {
                            place.is_left = true;
                            return Err(RecipeError::NotOurs { key: found.key });
                        }
                        place.create_revision = found.create_revision;
                        return Ok(place);
                    }
                }
                // It is there or it is not: the next attempt tells.
                Err(Error::OutcomeUnknown { .. }) => {}
                Err(error) if is_lost_lease(&error) => return Err(RecipeError::LeaseLost),
                Err(error) => return Err(error.into()),
            }
            patience.left(STEP)?;
        }
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The revision of its creation: greater than that of all that were first before.
    pub(super) fn token(&self) -> i64 {
        self.create_revision
    }

    /// The lease on which it hangs.
    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    /// Holds as long as the key is there.
    pub(super) fn guard(&self) -> Compare<'_> {
        let (target, equal) = (CompareTarget::CreateRevision, CompareResult::Equal);
        Compare::number(&self.key, target, equal, self.create_revision)
    }

    pub(super) fn is_valid(&self) -> bool {
        self.keeper.is_valid(self.lease)
    }

    pub(super) fn keeper(&self) -> &LeaseKeeper {
        &self.keeper
    }

    fn check(&self, lease: &KeptLease) -> Result<(), RecipeError> {
        if lease.is_valid() { Ok(()) } else { Err(RecipeError::LeaseLost) }
    }

    /// Waits until the key is the oldest of its name. That is looked at once more at the end: at one
    /// revision the key is there and no older one is.
    pub(super) fn wait_first(
        &self,
        client: &mut Client,
        lease: &KeptLease,
        patience: Patience,
    ) -> Result<(), RecipeError> {
        loop {
            self.check(lease)?;
            let (ahead, revision) = self.ahead(client)?;
            let Some(ahead) = ahead else {
                self.check(lease)?;
                return Ok(());
            };
            self.wait_gone(client, lease, (&ahead.key, revision), patience)?;
        }
    }

    /// The key directly ahead, if this one is still there, and the revision at which that was so.
    fn ahead(&self, client: &mut Client) -> Result<(Option<OwnedKeyValue>, i64), RecipeError> {
        let prefix = folder(&self.name);
        let end = prefix_end(&prefix);
        let range = Range {
            limit: 1,
            sort_order: SortOrder::Descend,
            sort_target: SortTarget::CreateRevision,
            max_create_revision: self.create_revision - 1,
            ..Range::between(&prefix, &end)
        };
        let txn = Txn::new().when(self.guard()).then(Op::Range(range));
        let result = client.txn(&txn)?;
        if !result.succeeded {
            return Err(RecipeError::LeaseLost);
        }
        match result.responses.into_iter().next() {
            Some(OpResult::Range(range)) => Ok((range.kvs.into_iter().next(), result.revision)),
            Some(_) | None => Err(RecipeError::LeaseLost),
        }
    }

    /// Waits until a key that was there at a revision has gone, or may have. The own key is watched, too.
    fn wait_gone(
        &self,
        client: &mut Client,
        lease: &KeptLease,
        (key, revision): (&[u8], i64),
        patience: Patience,
    ) -> Result<(), RecipeError> {
        let options = WatchOptions {
            ranges: vec![WatchedRange::one(key), WatchedRange::one(&self.key)],
            keys_only: true,
            no_put: true,
            ..WatchOptions::default()
        };
        let options = options.from_revision(revision + 1);
        let mut watcher = client.watch_hub()?.watch(options)?;
        loop {
            self.check(lease)?;
            let left = lease
                .valid_until()
                .map_or(STEP, |end| end.saturating_duration_since(Instant::now()).min(STEP));
            let changes = match watcher.next_within(patience.left(left)?) {
                Ok(Some(WatchEvent::Changes { changes, .. })) => changes,
                Ok(Some(WatchEvent::Progress { .. }) | None) => continue,
                // What was missed is in the state.
                Err(WatchEnd::Compacted { .. }) => return Ok(()),
                Err(end) => return Err(end.into()),
            };
            let gone = |key: &[u8]| {
                changes.iter().any(|c| c.kind == ChangeKind::Delete && c.kv.key == key)
            };
            if gone(&self.key) {
                return Err(RecipeError::LeaseLost);
            }
            if gone(key) {
                return Ok(());
            }
        }
    }

    /// Puts another value under the key.
    pub(super) fn put(&self, client: &mut Client, value: &[u8]) -> Result<i64, RecipeError> {
        let put = Put { lease: self.lease, ..Put::new(&self.key, value) };
        match client.txn(&Txn::new().when(self.guard()).then(Op::Put(put))) {
            Ok(result) if result.succeeded => Ok(result.revision),
            Ok(_) => Err(RecipeError::LeaseLost),
            Err(error) if is_lost_lease(&error) => Err(RecipeError::LeaseLost),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the key; true if it was still there.
    pub(super) fn leave(mut self, client: &mut Client) -> Result<bool, RecipeError> {
        let delete = Op::DeleteRange(DeleteRange::one(&self.key));
        let result = client.txn(&Txn::new().when(self.guard()).then(delete));
        // Else it is deleted in the background when this value goes.
        self.is_left = result.is_ok();
        Ok(result?.succeeded)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // With a lease that was lost the key goes by itself.
        if self.is_left || !self.keeper.is_valid(self.lease) {
            return;
        }
        let key = std::mem::take(&mut self.key);
        self.keeper.enqueue(match self.create_revision {
            // It may have been put or not.
            0 => Work::DeleteOf { key, lease: self.lease },
            create_revision => Work::Delete { key, create_revision },
        });
    }
}

/// A write was refused because its lease has gone.
pub(super) fn is_lost_lease(error: &Error) -> bool {
    error.refusal().is_some_and(|why| why.status == wire::Status::LeaseNotFound)
}
