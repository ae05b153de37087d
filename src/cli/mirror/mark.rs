//! How far a mirror has come: one key of the destination, `quorate/mirror/` and the prefix there, written in the
//! same transaction as the changes. Each transaction holds only if that key is as this mirror left it, so that
//! one that is sent again, or arrives late, changes nothing.

use serde::{Deserialize, Serialize};

use super::message::{Bytes, Compare};

/// What every such key begins with. Keys below it are never mirrored, on either side.
pub const MARKS: &[u8] = b"quorate/mirror/";

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// A copy of this revision is under way.
    Copying(i64),
    /// Everything up to this revision is there.
    Revision(i64),
    /// Of this revision, which is larger than a transaction, the first so many changes are there.
    Within(i64, u64),
}

impl Position {
    /// The first revision that is missing, at least in part, and how many of its changes are there.
    pub fn next(self) -> (i64, u64) {
        match self {
            Self::Copying(revision) | Self::Revision(revision) => (revision.saturating_add(1), 0),
            Self::Within(revision, count) => (revision, count),
        }
    }

    /// The last revision that is there as a whole, as far as is known.
    pub fn revision(self) -> i64 {
        match self {
            Self::Copying(_) => 0,
            Self::Revision(revision) => revision,
            Self::Within(revision, _) => revision.saturating_sub(1),
        }
    }
}

/// What is written in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The cluster that is mirrored.
    pub source: String,
    /// What of it; bytes that are no ASCII are escaped.
    pub prefix: String,
    /// How far it has come.
    pub position: Position,
}

impl Mark {
    /// The mark that a value says.
    ///
    /// # Errors
    /// It says none.
    pub fn read(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// As it is written.
    pub fn value(&self) -> Bytes {
        Bytes(serde_json::to_vec(self).expect("text and numbers can be written"))
    }

    /// The same mirror at another position.
    pub fn at(&self, position: Position) -> Self {
        Self { position, ..self.clone() }
    }

    /// True if it is that of the same mirror.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.source, &self.prefix) == (&other.source, &other.prefix)
    }
}

/// The key for a prefix of the destination.
pub fn key(to_prefix: &[u8]) -> Bytes {
    Bytes([MARKS, to_prefix].concat())
}

/// Holds if the key is as it was left; none: it is not there.
pub fn is_unchanged(key: &Bytes, value: Option<&Bytes>) -> Compare {
    let key = key.clone();
    match value {
        Some(value) => Compare::Value { key, value: value.clone() },
        None => Compare::Version { key, version: 0 },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark =
            Mark { source: "1f".into(), prefix: "a/".into(), position: Position::Within(17, 127) };
        let text = r#"{"source":"1f","prefix":"a/","position":{"within":[17,127]}}"#;
        assert_eq!(mark.value().0, text.as_bytes());
        assert_eq!(Mark::read(text.as_bytes()).unwrap(), mark);
        assert!(Mark::read(b"17").is_err());
        assert_eq!(mark.position.next(), (17, 127));
        assert_eq!(Position::Revision(17).next(), (18, 0));
    }
}
