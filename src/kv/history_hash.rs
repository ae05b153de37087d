//! History hash: one number for all versions of a state up to a revision, for whoever compares members.
//!
//! Made of the chunks of a state ([`crate::Export`]), so it is of one moment, however long it takes. Each version
//! that is kept is hashed by itself, and the hashes are added up: where a version stands, in `current` or in the
//! event that replaced it, depends on what has been trimmed, and so does the order in which it comes.
//!
//! ```text
//! version  'V' | revision u64 | sub u32 | create u64 | version u64 | lease i64 | key size u32 | key | value
//! delete   'D' | revision u64 | sub u32 |                                      | key size u32 | key
//! ```
//!
//! What a compaction gives up is left out whether it is physically gone or not ([`crate::Item::Version`]). Why a
//! key was deleted is not part of it: a snapshot file does not tell.

use base::{Hash128, Hasher128, Revision, crc32};

use crate::keys::Point;
use crate::refusal::Refusal;
use crate::unpack::{Facts, Head, Item, Unpack, UnpackError};

/// Why there is no hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryHashError {
    /// The revision is below the compacted one, or is still to come.
    Refused(Refusal),
    /// The chunks are not those of a state.
    Chunk(UnpackError),
}

/// The hash in the making. It holds one value at most between chunks.
pub struct HistoryHash {
    revision: Option<Revision>,
    unpack: Unpack,
    sum: Hash128,
}

impl HistoryHash {
    /// Of all versions up to this revision; none: up to the newest.
    pub fn new(revision: Option<Revision>) -> Self {
        Self { revision, unpack: Unpack::new(), sum: Hash128::ZERO }
    }

    /// Takes the next chunk; true: it was the last one.
    ///
    /// # Errors
    ///
    /// There will be no hash.
    pub fn take(&mut self, chunk: &[u8]) -> Result<bool, HistoryHashError> {
        let (revision, sum) = (self.revision, &mut self.sum);
        let mut add = |item: &Item<'_>| match *item {
            Item::Version { at, key, live } if revision.is_none_or(|last| at.revision <= last) => {
                *sum = sum.plus(hash(at, key, live));
            }
            Item::Version { .. } | Item::Lease { .. } => {}
        };
        let is_first = self.unpack.head().is_none();
        let is_last = self.unpack.take(chunk, &mut add).map_err(HistoryHashError::Chunk)?;
        if let (true, Some(revision), Some(head)) = (is_first, revision, self.unpack.head()) {
            if revision > head.revision {
                return Err(HistoryHashError::Refused(Refusal::FutureRevision));
            }
            if head.compacted.is_some_and(|compacted| revision < compacted) {
                return Err(HistoryHashError::Refused(Refusal::Compacted));
            }
        }
        Ok(is_last)
    }

    /// The numbers of the state, once the first chunk has come.
    pub fn head(&self) -> Option<&Head> {
        self.unpack.head()
    }

    /// The hash of what has come.
    pub fn finish(&self) -> u32 {
        crc32(&self.sum.to_bytes())
    }
}

fn hash(at: Point, key: &[u8], live: Option<(Facts, &[u8])>) -> Hash128 {
    let mut hasher = Hasher128::new();
    hasher.update(if live.is_some() { b"V" } else { b"D" });
    hasher.update(&at.revision.get().to_le_bytes());
    hasher.update(&at.sub.to_le_bytes());
    if let Some((facts, _)) = live {
        hasher.update(&facts.create.get().to_le_bytes());
        hasher.update(&facts.version.to_le_bytes());
        hasher.update(&facts.lease.get().to_le_bytes());
    }
    let size = u32::try_from(key.len()).expect("a key has at most KEY_SIZE_MAX bytes");
    hasher.update(&size.to_le_bytes());
    hasher.update(key);
    if let Some((_, value)) = live {
        hasher.update(value);
    }
    hasher.finish()
}
