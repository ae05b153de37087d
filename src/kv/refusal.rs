//! Refusals: what a client asked for and does not get, as values.
//!
//! Texts are those that etcd's clients match on, without the prefix "etcdserver: ", which the
//! translation adds; refusals that etcd does not have say what the limit is.

use alloc::boxed::Box;
use core::fmt;

/// Why a request takes no effect or has no answer. One variant per thing that a client does
/// differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The key is empty.
    KeyNotProvided,
    /// A put that keeps value or lease finds no key, or an operation of a transaction has nothing set.
    KeyNotFound,
    /// A put that keeps the value brings one.
    ValueProvided,
    /// A put that keeps the lease names one.
    LeaseProvided,
    /// The lease does not exist.
    LeaseNotFound,
    /// A transaction has more operations than allowed, or is nested too deep.
    TooManyOps,
    /// A branch of a transaction changes a key twice.
    DuplicateKey,
    /// A sort order or target that does not exist.
    InvalidSortOption,
    /// The revision lies below the compacted one, or is compacted already.
    Compacted,
    /// The revision does not exist yet.
    FutureRevision,
    /// The key is longer than a page can bear.
    KeyTooLong {
        /// Bytes of the key.
        size: usize,
        /// Greatest size in bytes.
        size_max: usize,
    },
    /// The value is larger than configured.
    ValueTooLarge {
        /// Bytes of the value.
        size: usize,
        /// Greatest size in bytes.
        size_max: usize,
    },
    /// A sorted read would have to hold more than [`crate::SORT_SIZE_MAX`] bytes.
    SortTooLarge,
    /// The write took effect, but what it read is larger than [`crate::REPLY_SIZE_MAX`] bytes.
    ReplyTooLarge,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNotProvided => f.write_str("key is not provided"),
            Self::KeyNotFound => f.write_str("key not found"),
            Self::ValueProvided => f.write_str("value is provided"),
            Self::LeaseProvided => f.write_str("lease is provided"),
            Self::LeaseNotFound => f.write_str("requested lease not found"),
            Self::TooManyOps => f.write_str("too many operations in txn request"),
            Self::DuplicateKey => f.write_str("duplicate key given in txn request"),
            Self::InvalidSortOption => f.write_str("invalid sort option"),
            Self::Compacted => f.write_str("mvcc: required revision has been compacted"),
            Self::FutureRevision => f.write_str("mvcc: required revision is a future revision"),
            Self::KeyTooLong { size, size_max } => {
                write!(f, "key has {size} bytes, the limit is {size_max}; use a shorter key")
            }
            Self::ValueTooLarge { size, size_max } => write!(
                f,
                "value has {size} bytes, the limit is {size_max}; split it or raise the limit"
            ),
            Self::SortTooLarge => write!(
                f,
                "a sorted read would hold more than {} bytes; set a limit, narrow the range or \
                 sort by key",
                crate::SORT_SIZE_MAX
            ),
            Self::ReplyTooLarge => write!(
                f,
                "the write took effect, but its reply is larger than {} bytes; read the range \
                 instead",
                crate::REPLY_SIZE_MAX
            ),
        }
    }
}

impl core::error::Error for Refusal {}

/// Cells that contradict each other although their pages verify: a bug or a foreign file. The member
/// must halt; nothing was changed by the step that met it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A version refers to an event that is not there.
    EventMissing(crate::Point),
    /// The bytes of an event are not one.
    EventMalformed(crate::Point),
    /// A version below the compacted revision is asked for, which its event has shed.
    EventShed(crate::Point),
    /// The key of an event is not one.
    EventKeyMalformed,
    /// The bytes of the newest version of this key are not one.
    VersionMalformed(Box<[u8]>),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: &str = "restore this member from its peers or from a snapshot";
        match self {
            Self::EventMissing(at) => {
                write!(f, "event {} sub {} is missing; {ADVICE}", at.revision, at.sub)
            }
            Self::EventMalformed(at) => {
                write!(f, "event {} sub {} is malformed; {ADVICE}", at.revision, at.sub)
            }
            Self::EventShed(at) => write!(
                f,
                "event {} sub {} no longer holds the version that is read; {ADVICE}",
                at.revision, at.sub
            ),
            Self::EventKeyMalformed => write!(f, "the key of an event is malformed; {ADVICE}"),
            Self::VersionMalformed(key) => write!(
                f,
                "the newest version of key \"{}\" is malformed; {ADVICE}",
                key.escape_ascii()
            ),
        }
    }
}

impl core::error::Error for Damage {}
