//! Refusals: what a client asked for and does not get, as values.
//!
//! Texts are those that etcd's clients match on, without the prefix "etcdserver: ", which the
//! translation adds; refusals that etcd does not have say what the limit is.

use alloc::boxed::Box;
use core::fmt;

use base::{ClientId, LeaseId};

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
    /// A lease with this id exists.
    LeaseExists,
    /// A lease is to live longer than any may.
    TtlTooLarge,
    /// There are as many leases as there may be.
    TooManyLeases,
    /// A request names no lease to keep alive, or too many.
    KeepAlive,
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
    /// The stamp of the write is below the floor of its client, or its client is not known, or not any
    /// more.
    SessionExpired,
    /// The stamp of the write is too far beyond the floor of its client.
    TooManyUnanswered,
    /// An alarm says that a member has no space, and the write would take some.
    NoSpace,
    /// An alarm says that the state of a member is not that of the others.
    Corrupt,
    /// There are as many alarms as there may be.
    TooManyAlarms,
    /// The write took effect, but what it read is larger than [`crate::REPLY_SIZE_MAX`] bytes.
    ReplyTooLarge,
}

impl Refusal {
    /// Number and sizes under which a result of a write is kept. Part of the page file: numbers never
    /// change.
    pub(crate) fn encode(&self) -> (u8, Option<(u64, u64)>) {
        let sizes = |size: &usize, size_max: &usize| {
            let number = |size| u64::try_from(size).expect("a size fits u64");
            Some((number(*size), number(*size_max)))
        };
        match self {
            Self::KeyNotProvided => (0, None),
            Self::KeyNotFound => (1, None),
            Self::ValueProvided => (2, None),
            Self::LeaseProvided => (3, None),
            Self::LeaseNotFound => (4, None),
            Self::TooManyOps => (5, None),
            Self::DuplicateKey => (6, None),
            Self::InvalidSortOption => (7, None),
            Self::Compacted => (8, None),
            Self::FutureRevision => (9, None),
            Self::KeyTooLong { size, size_max } => (10, sizes(size, size_max)),
            Self::ValueTooLarge { size, size_max } => (11, sizes(size, size_max)),
            Self::SortTooLarge => (12, None),
            Self::ReplyTooLarge => (13, None),
            Self::SessionExpired => (14, None),
            Self::TooManyUnanswered => (15, None),
            Self::LeaseExists => (16, None),
            Self::TtlTooLarge => (17, None),
            Self::TooManyLeases => (18, None),
            Self::KeepAlive => (19, None),
            Self::NoSpace => (20, None),
            Self::Corrupt => (21, None),
            Self::TooManyAlarms => (22, None),
        }
    }

    /// The refusal with this number and these sizes; none if there is no such.
    pub(crate) fn decode(number: u8, sizes: Option<(u64, u64)>) -> Option<Self> {
        let plain = [
            Self::KeyNotProvided,
            Self::KeyNotFound,
            Self::ValueProvided,
            Self::LeaseProvided,
            Self::LeaseNotFound,
            Self::TooManyOps,
            Self::DuplicateKey,
            Self::InvalidSortOption,
            Self::Compacted,
            Self::FutureRevision,
            Self::SortTooLarge,
            Self::ReplyTooLarge,
            Self::SessionExpired,
            Self::TooManyUnanswered,
            Self::LeaseExists,
            Self::TtlTooLarge,
            Self::TooManyLeases,
            Self::KeepAlive,
            Self::NoSpace,
            Self::Corrupt,
            Self::TooManyAlarms,
        ];
        let Some((size, size_max)) = sizes else {
            return plain.into_iter().find(|refusal| refusal.encode().0 == number);
        };
        let (size, size_max) = (usize::try_from(size).ok()?, usize::try_from(size_max).ok()?);
        match number {
            10 => Some(Self::KeyTooLong { size, size_max }),
            11 => Some(Self::ValueTooLarge { size, size_max }),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNotProvided => f.write_str("key is not provided"),
            Self::KeyNotFound => f.write_str("key not found"),
            Self::ValueProvided => f.write_str("value is provided"),
            Self::LeaseProvided => f.write_str("lease is provided"),
            Self::LeaseNotFound => f.write_str("requested lease not found"),
            Self::LeaseExists => f.write_str("lease already exists"),
            Self::TtlTooLarge => write!(
                f,
                "too large lease TTL; a lease lives at most {} ms without being kept alive",
                base::limits::LEASE_TTL_MAX_MS
            ),
            Self::TooManyLeases => write!(
                f,
                "there are {} leases, which is the limit; let several keys share one, or revoke those \
                 that are not needed",
                base::limits::LEASES_MAX
            ),
            Self::KeepAlive => write!(
                f,
                "a request keeps 1 to {} leases alive; send several",
                base::limits::KEEP_ALIVE_MAX
            ),
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
            Self::SessionExpired => f.write_str(
                "the session of this write has expired: its client id is not known, or no longer, or \
                 it had said that it does not wait for this number any more; the write was not carried \
                 out now, read to find out whether it was before, and register anew",
            ),
            Self::TooManyUnanswered => write!(
                f,
                "the number of this write is {} or more beyond the oldest one that its client waits \
                 for; wait for answers, or register a second client",
                base::limits::CLIENT_RESULTS_MAX
            ),
            Self::NoSpace => f.write_str(
                "mvcc: database space exceeded: the alarm NOSPACE is up; delete keys and compact, or \
                 start the members with a greater quota, then disarm it",
            ),
            Self::Corrupt => f.write_str(
                "corrupt cluster: the alarm CORRUPT is up; replace the members that it names, then \
                 disarm it",
            ),
            Self::TooManyAlarms => write!(
                f,
                "{} alarms are up, which is the limit; disarm those that are not needed",
                crate::ALARMS_MAX
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
    /// What is kept of this client, or its place in the order of clients, is not such.
    ClientMalformed(ClientId),
    /// What stands about a lease is not such, or its keys are not there.
    LeaseMalformed(LeaseId),
    /// The bytes of the newest version of this key are not one.
    VersionMalformed(Box<[u8]>),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: &str = "put a new member in this one's place (`quorate member replace`), or a \
                              copy of its data directory";
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
            Self::ClientMalformed(client) => {
                write!(f, "what is kept of client {} is malformed; {ADVICE}", client.get())
            }
            Self::LeaseMalformed(lease) => {
                write!(f, "what is kept of lease {:x} is malformed; {ADVICE}", lease.get())
            }
            Self::VersionMalformed(key) => write!(
                f,
                "the newest version of key \"{}\" is malformed; {ADVICE}",
                key.escape_ascii()
            ),
        }
    }
}

impl core::error::Error for Damage {}
