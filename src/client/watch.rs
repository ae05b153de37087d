//! Watches: what is asked for, what is told, where one goes on, and how one ends.
//!
//! ```text
//! WatchOptions ──► WatchHub ── one connection, one thread, any number of watches
//!                     │           lost: connects to another member, goes on with each watch where it was
//!                     ▼
//!                  Watcher ──► WatchEvent, WatchEvent, ... WatchEnd
//! ```
//!
//! What a watch tells, across reconnects and members: every change that was asked for, in the order of
//! revision and sub number, each once. Changes of one revision come together, unless
//! [`WatchOptions::fragments`] asks for the pieces as they come.

mod hub;
mod table;
mod watcher;

use std::fmt::{Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use wire::{Cause, ChangeKind, KeyValue, WatchChange};

use crate::client::prefix_end;
use crate::error::Refusal;
use crate::result::OwnedKeyValue;

pub use hub::WatchHub;
pub use watcher::{WatchId, Watcher};

/// A range of keys that is watched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchedRange {
    /// First key.
    pub key: Vec<u8>,
    /// Exclusive end; empty: `key` alone; a single zero byte: all keys from `key` on.
    pub range_end: Vec<u8>,
}

impl WatchedRange {
    /// One key.
    pub fn one(key: &[u8]) -> Self {
        Self { key: key.to_vec(), range_end: Vec::new() }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let key = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
        Self { key, range_end: prefix_end(prefix) }
    }
}

/// A place in the history of changes. The text form is `7`, or `7.3` within a revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WatchPosition {
    /// The first revision that is wanted, also one that is still to come; 0: the next one.
    pub revision: i64,
    /// Of that revision only changes from this one on.
    pub sub: u32,
}

impl WatchPosition {
    /// Behind everything that there is when the watch begins.
    pub const NEXT: Self = Self { revision: 0, sub: 0 };

    /// From the beginning of this revision on.
    pub const fn at(revision: i64) -> Self {
        Self { revision, sub: 0 }
    }

    /// Behind all changes up to this revision.
    pub(crate) const fn behind(revision: i64) -> Self {
        Self { revision: revision.saturating_add(1), sub: 0 }
    }
}

impl Display for WatchPosition {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self.sub {
            0 => write!(f, "{}", self.revision),
            sub => write!(f, "{}.{sub}", self.revision),
        }
    }
}

/// A text is no [`WatchPosition`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchPositionError(String);

impl Display for WatchPositionError {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "\"{}\" is no place of a watch; write it as a revision, 7, or within one, 7.3",
            self.0
        )
    }
}

impl std::error::Error for WatchPositionError {}

impl FromStr for WatchPosition {
    type Err = WatchPositionError;

    fn from_str(text: &str) -> Result<Self, WatchPositionError> {
        let (revision, sub) = text.split_once('.').unwrap_or((text, "0"));
        match (revision.parse(), sub.parse()) {
            (Ok(revision), Ok(sub)) => Ok(Self { revision, sub }),
            _ => Err(WatchPositionError(text.to_owned())),
        }
    }
}

/// What a watch is asked to tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchOptions {
    /// What is watched, at most [`WATCH_RANGES_MAX`](base::limits::WATCH_RANGES_MAX); a change that lies
    /// in several ranges is told once.
    pub ranges: Vec<WatchedRange>,
    /// Where to begin.
    pub start: WatchPosition,
    /// Changes come with what they replaced.
    pub prev_kv: bool,
    /// Changes come without values.
    pub keys_only: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Tell how far the watch has come when nothing else has been told for so long.
    pub progress_interval: Option<Duration>,
    /// Hand out the pieces of a large revision as they come, instead of gathering them in memory.
    pub fragments: bool,
}

impl WatchOptions {
    /// Watches one key from now on.
    pub fn one(key: &[u8]) -> Self {
        Self { ranges: vec![WatchedRange::one(key)], ..Self::default() }
    }

    /// Watches all keys that begin with `prefix` from now on.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { ranges: vec![WatchedRange::prefix(prefix)], ..Self::default() }
    }

    /// The same from this revision on.
    pub fn from_revision(self, revision: i64) -> Self {
        Self { start: WatchPosition::at(revision), ..self }
    }
}

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnedChange {
    /// What it did.
    pub kind: ChangeKind,
    /// Why.
    pub cause: Cause,
    /// Its place among the changes of its revision.
    pub sub: u32,
    /// The key as it is now; of a delete the key and the revision alone.
    pub kv: OwnedKeyValue,
    /// The key as it was, if that was asked for, it existed, and the state before the change has not
    /// been compacted.
    pub previous: Option<OwnedKeyValue>,
}

impl OwnedChange {
    /// The revision in which it was made.
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// Where it stands.
    pub(crate) fn position(&self) -> WatchPosition {
        WatchPosition { revision: self.kv.mod_revision, sub: self.sub }
    }

    /// Bytes of memory, roughly.
    pub(crate) fn size(&self) -> usize {
        let size = |kv: &OwnedKeyValue| kv.key.len() + kv.value.len();
        size_of::<Self>() + size(&self.kv) + self.previous.as_ref().map_or(0, size)
    }
}

impl From<WatchChange<'_>> for OwnedChange {
    fn from(change: WatchChange<'_>) -> Self {
        let own = |kv: KeyValue<'_>| OwnedKeyValue::from(kv);
        let WatchChange { kind, cause, sub, kv, previous } = change;
        Self { kind, cause, sub, kv: own(kv), previous: previous.map(own) }
    }
}

/// What a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// Changes, in the order in which they were made. Whole revisions, unless `fragment`.
    Changes {
        /// Them.
        changes: Vec<OwnedChange>,
        /// Every change up to this revision has been told; with `fragment` of this one only a part.
        revision: i64,
        /// The changes of the last revision go on in the next event. Never, unless
        /// [`WatchOptions::fragments`] was asked for.
        fragment: bool,
    },
    /// Every change up to this revision has been told.
    Progress {
        /// It.
        revision: i64,
    },
}

/// Why a watch tells nothing more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEnd {
    /// What comes next has been compacted. Read the state, then watch from behind its revision.
    Compacted {
        /// Watches from behind this revision on are served in full; 0: the server did not say.
        revision: i64,
    },
    /// It was cancelled.
    Cancelled,
    /// The server refuses it; another member would as well.
    Refused(Refusal),
}

impl Display for WatchEnd {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compacted { revision } => write!(
                f,
                "what the watch would tell next has been compacted (up to revision {revision}); read \
                 the keys, then watch from behind the revision of that answer"
            ),
            Self::Cancelled => write!(f, "the watch was cancelled"),
            Self::Refused(refusal) => write!(f, "the watch is refused: {refusal}"),
        }
    }
}

impl std::error::Error for WatchEnd {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_texts_and_back() {
        for (position, text) in [
            (WatchPosition::at(7), "7"),
            (WatchPosition { revision: 7, sub: 3 }, "7.3"),
            (WatchPosition::NEXT, "0"),
        ] {
            assert_eq!(position.to_string(), text);
            assert_eq!(text.parse(), Ok(position));
        }
        for text in ["", "x", "7.", "7.-1", "7.3.1"] {
            assert!(text.parse::<WatchPosition>().is_err(), "{text}");
        }
    }
}
