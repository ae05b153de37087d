//! The truth: every change of every key, made of what writers were told and of ends of leases that were
//! read, in the order of revisions. Pure.
//!
//! ```text
//!  writers ── Claim: at this revision I did this ──┐
//!                                                  ├──► Ledger: live keys ──► changes
//!  a read: at this revision these keys have gone ──┘
//! ```

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;

use client::{Cause, ChangeKind, OwnedKeyValue};

use super::keys::{KeyId, Keys};

/// A revision, and the number of a change within.
pub type Point = (i64, u32);

/// What stands for a value.
pub type ValueHash = u64;

/// The hash of no bytes: of values that were not asked for, and of deletes.
pub const NO_VALUE: ValueHash = 0;

/// What stands for these bytes.
pub fn hash(value: &[u8]) -> ValueHash {
    if value.is_empty() {
        return NO_VALUE;
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish().max(1)
}

/// A key as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// What it was set to.
    pub value: ValueHash,
    /// The revision of its creation.
    pub create: i64,
    /// The revision of its last put.
    pub modified: i64,
    /// How often it was put since.
    pub version: i64,
    /// Its lease; 0: none.
    pub lease: i64,
}

impl From<&OwnedKeyValue> for Seen {
    fn from(pair: &OwnedKeyValue) -> Self {
        Self {
            value: hash(&pair.value),
            create: pair.create_revision,
            modified: pair.mod_revision,
            version: pair.version,
            lease: pair.lease,
        }
    }
}

/// A change of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where it stands.
    pub at: Point,
    /// Which key.
    pub key: KeyId,
    /// What it did.
    pub kind: ChangeKind,
    /// Why.
    pub cause: Cause,
    /// The key as it is now; of a delete the revision alone.
    pub now: Seen,
    /// The key as it was before the revision, if it was there.
    pub before: Option<Seen>,
}

/// One step of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A key was put. `told`: what the answer says was there before, if it says so.
    Put {
        /// Which.
        key: KeyId,
        /// To what.
        value: ValueHash,
        /// On which lease.
        lease: i64,
        /// What was there before, as the answer says.
        told: Option<Seen>,
    },
    /// Keys were deleted.
    Delete {
        /// Which.
        keys: Range<KeyId>,
        /// How many there were, if the answer says so.
        deleted: Option<i64>,
    },
    /// A lease was revoked, with its keys.
    Revoke {
        /// Which.
        lease: i64,
        /// How many keys it had, as the answer says.
        deleted: i64,
    },
}

/// The keys that there are, and how they came to be.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every change.
    pub changes: Vec<Change>,
    /// The revision up to which they are here.
    pub revision: i64,
    /// The keys that live at that revision.
    pub live: BTreeMap<KeyId, Seen>,
    /// Leases that have come to their end by their time: the revision, and which.
    pub ended: Vec<(i64, i64)>,
    /// Up to here somebody has asked for history to be given up.
    pub compacted: i64,
}

impl Ledger {
    /// Before the first change: a store begins at revision 1.
    pub fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    /// The place in the list of the first change at a point or behind it.
    pub fn place(&self, point: Point) -> usize {
        self.changes.partition_point(|change| change.at < point)
    }

    fn change(&mut self, begin: usize, key: KeyId, now: Option<Seen>, cause: Cause) {
        let revision = self.revision + 1;
        let own = self.changes.len() - begin;
        let at = (revision, u32::try_from(own).expect("a write changes some hundred keys"));
        // What an earlier step of the same write replaced.
        let first = self.changes[begin..].iter().find(|change| change.key == key);
        let before = first.map_or_else(|| self.live.get(&key).copied(), |first| first.before);
        let kind = if now.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
        match now {
            Some(now) => drop(self.live.insert(key, now)),
            None => drop(self.live.remove(&key)),
        }
        let now = now.unwrap_or(Seen { modified: revision, ..Seen::default() });
        self.changes.push(Change { at, key, kind, cause, now, before });
    }

    fn of_lease(&self, lease: i64) -> Vec<KeyId> {
        let keys = self.live.iter().filter(|(_, seen)| seen.lease == lease);
        keys.map(|(key, _)| *key).collect()
    }

    /// Enters what a write did at the next revision.
    ///
    /// # Errors
    /// What its answer says cannot be.
    pub fn enter(&mut self, deeds: &[Deed]) -> Result<(), String> {
        let (begin, revision) = (self.changes.len(), self.revision + 1);
        let wrong = |text: String| Err(format!("a write at {revision} {text}: {deeds:?}"));
        for deed in deeds {
            match deed {
                Deed::Put { key, value, lease, told } => {
                    let old = self.live.get(key).copied();
                    if told.is_some() && *told != old {
                        return wrong(format!("was told that there was {told:?} and not {old:?}"));
                    }
                    let now = Seen {
                        value: *value,
                        create: old.map_or(revision, |old| old.create),
                        modified: revision,
                        version: old.map_or(0, |old| old.version) + 1,
                        lease: *lease,
                    };
                    self.change(begin, *key, Some(now), Cause::Request);
                }
                Deed::Delete { keys, deleted } => {
                    let found: Vec<KeyId> =
                        self.live.range(keys.clone()).map(|(key, _)| *key).collect();
                    let count = i64::try_from(found.len()).expect("there are some hundreds");
                    if deleted.is_some_and(|deleted| deleted != count) {
                        return wrong(format!("deleted {deleted:?} keys of {count}"));
                    }
                    found.iter().for_each(|key| self.change(begin, *key, None, Cause::Request));
                }
                Deed::Revoke { lease, deleted } => {
                    let found = self.of_lease(*lease);
                    if i64::try_from(found.len()) != Ok(*deleted) {
                        return wrong(format!("deleted {deleted} keys, it had {found:?}"));
                    }
                    found.iter().for_each(|key| self.change(begin, *key, None, Cause::Revoked));
                }
            }
        }
        if self.changes.len() == begin {
            return wrong("changes nothing and has a revision".into());
        }
        self.revision = revision;
        Ok(())
    }

    /// Enters a revision that no writer claims: some lease has come to its end. `read`: the keys at that
    /// revision. Gives the lease.
    ///
    /// # Errors
    /// What has gone are not the keys of a lease, or something else has changed.
    pub fn enter_end(&mut self, read: &BTreeMap<KeyId, Seen>) -> Result<i64, String> {
        let (begin, revision) = (self.changes.len(), self.revision + 1);
        let wrong = |text: String| Err(format!("revision {revision}, of no write, {text}"));
        for (key, seen) in read {
            if self.live.get(key) != Some(seen) {
                let known = self.live.get(key);
                return wrong(format!("has key {key} as {seen:?}, before it was {known:?}"));
            }
        }
        let gone: Vec<KeyId> =
            self.live.keys().filter(|key| !read.contains_key(key)).copied().collect();
        let Some(first) = gone.first() else { return wrong("changes nothing".into()) };
        let lease = self.live[first].lease;
        if lease == 0 || self.of_lease(lease) != gone {
            let keys = self.of_lease(lease);
            return wrong(format!("ends keys {gone:?}; the first hangs on {lease}, with {keys:?}"));
        }
        gone.iter().for_each(|key| self.change(begin, *key, None, Cause::Expired));
        self.ended.push((revision, lease));
        self.revision = revision;
        Ok(lease)
    }

    /// What differs between the keys of a read at this revision and those that must be there.
    pub fn differs(&self, read: &BTreeMap<KeyId, Seen>) -> Option<String> {
        let keys = self.live.keys().chain(read.keys());
        let other = |key: &&KeyId| self.live.get(key) != read.get(key);
        keys.into_iter().find(other).map(|key| {
            let (known, found) = (self.live.get(key), read.get(key));
            format!("at {} key {key} is {found:?} and must be {known:?}", self.revision)
        })
    }
}

/// The keys of a range's answer; an error names one that nobody writes.
///
/// # Errors
/// The key.
pub fn read(keys: &Keys, pairs: &[OwnedKeyValue]) -> Result<BTreeMap<KeyId, Seen>, String> {
    let known = |pair: &OwnedKeyValue| {
        let id = keys.id(&pair.key).ok_or_else(|| format!("key {:?} was read", pair.key))?;
        Ok((id, Seen::from(pair)))
    };
    pairs.iter().map(known).collect()
}
