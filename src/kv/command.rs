//! Commands and range requests: plain borrowed types, as a log entry or a client states them.
//!
//! Nothing here knows a protocol. Numbers that a client may set freely (`i64` limits, revisions and
//! bounds, unknown operators) keep their full range: every combination has a meaning or a refusal.

use alloc::boxed::Box;
use alloc::vec::Vec;

use base::{Alarm, AlarmKind, LeaseId, NodeId};

use crate::lease::Due;

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Writes one key.
    Put(Put<'a>),
    /// Deletes one key or a range of them.
    DeleteRange(DeleteRange<'a>),
    /// Compares, then one of two lists of operations, all in one revision.
    Txn(Txn<'a>),
    /// Gives up the history before a revision.
    Compact {
        /// The oldest revision that stays readable.
        revision: i64,
        /// Whether the client waits until the history is physically gone. Apply does not care:
        /// whoever answers waits for [`crate::State::trimmed`].
        physical: bool,
    },
    /// Replaces what the store keeps about the members of the cluster: opaque bytes, at most
    /// [`crate::MEMBERS_SIZE_MAX`]. No revision comes of it.
    Members(&'a [u8]),
    /// Registers a client, named by the index of its entry. No revision comes of it.
    Register {
        /// Clients that are remembered from here on; in the entry, so that all members agree on it.
        clients_max: u32,
    },
    /// Writes one key and makes a lease for it alone.
    PutWithTtl {
        /// The log time of the entry.
        time: u64,
        /// What is written; it names no lease.
        put: Put<'a>,
        /// Milliseconds that the lease lives.
        ttl_ms: u64,
    },
    /// Makes a lease. No revision comes of it.
    LeaseGrant {
        /// The log time of the entry.
        time: u64,
        /// Its id; 0: the state chooses one.
        lease: LeaseId,
        /// Milliseconds that it lives.
        ttl_ms: u64,
    },
    /// Ends a lease and deletes its keys, all in one revision.
    LeaseRevoke {
        /// Which.
        lease: LeaseId,
    },
    /// Lets leases begin their time anew. No revision comes of it.
    LeaseKeepAlive {
        /// The log time of the entry.
        time: u64,
        /// Which: 8 bytes each, little endian.
        leases: &'a [u8],
    },
    /// Ends a lease whose time is up, if it is.
    LeaseExpire {
        /// The log time of the entry.
        time: u64,
        /// Which.
        due: Due,
        /// Each of its keys is deleted in a revision of its own.
        per_key: bool,
    },
    /// Notes the log time.
    LogTime {
        /// It.
        time: u64,
    },
    /// Raises an alarm of a member, until it is disarmed. No revision comes of it.
    Raise(Alarm),
    /// Disarms alarms. No revision comes of it.
    Disarm {
        /// Of this kind.
        kind: AlarmKind,
        /// Of this member; 0: of all members.
        member: NodeId,
    },
    /// Changes nothing; entries of the log itself.
    Nothing,
}

/// Writes one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Put<'a> {
    /// The key; 1 to `KEY_SIZE_MAX` bytes.
    pub key: &'a [u8],
    /// The new value; empty with `ignore_value`.
    pub value: &'a [u8],
    /// The lease that the key will hang on; 0 is none and detaches it. 0 with `ignore_lease`.
    pub lease: LeaseId,
    /// Whether the reply carries the version that was replaced.
    pub prev_kv: bool,
    /// Keep the value; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes one key or a range of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeleteRange<'a> {
    /// The key, or the first one of the range.
    pub key: &'a [u8],
    /// Empty: one key. One zero byte: every key from `key` on. Else the first key behind the range.
    pub range_end: &'a [u8],
    /// Whether the reply carries the versions that were deleted.
    pub prev_kv: bool,
}

/// Reads one key or a range of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RangeRequest<'a> {
    /// The key, or the first one of the range.
    pub key: &'a [u8],
    /// As in [`DeleteRange`].
    pub range_end: &'a [u8],
    /// Greatest number of pairs to return; 0 or less: no limit.
    pub limit: i64,
    /// The revision to read at; 0 or less: the newest.
    pub revision: i64,
    /// In which order pairs are returned.
    pub order: SortOrder,
    /// By what they are ordered.
    pub target: SortTarget,
    /// Whether an answer from local, possibly stale state will do.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Leave the pairs out.
    pub count_only: bool,
    /// Drop pairs modified before this revision; 0: off.
    pub min_mod_revision: i64,
    /// Drop pairs modified after this revision; 0: off.
    pub max_mod_revision: i64,
    /// Drop pairs created before this revision; 0: off.
    pub min_create_revision: i64,
    /// Drop pairs created after this revision; 0: off.
    pub max_create_revision: i64,
}

/// The order of a range answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SortOrder {
    /// Not said. By key it is ascending; by another target it sorts ascending what the limit, applied
    /// in key order, let through.
    #[default]
    None,
    /// Least first.
    Ascend,
    /// Greatest first.
    Descend,
}

/// By what a range answer is ordered. Equal elements are in key order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SortTarget {
    /// By key.
    #[default]
    Key,
    /// By puts since creation.
    Version,
    /// By create revision.
    Create,
    /// By mod revision.
    Mod,
    /// By value, bytewise.
    Value,
}

/// A transaction: all compares hold, then `success`, else `failure`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn<'a> {
    /// What must hold; none: it holds.
    pub compares: Vec<Compare<'a>>,
    /// The operations of the taken branch if it does.
    pub success: Vec<Op<'a>>,
    /// The operations of the taken branch if it does not.
    pub failure: Vec<Op<'a>>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// Writes one key.
    Put(Put<'a>),
    /// Deletes keys.
    DeleteRange(DeleteRange<'a>),
    /// Reads keys as the operations before it left them.
    Range(RangeRequest<'a>),
    /// A transaction inside; its compares too are judged before the outermost one begins.
    Txn(Box<Txn<'a>>),
    /// The client set nothing. Always refused.
    Unset,
}

/// One condition of a transaction. With a range it must hold for every key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compare<'a> {
    /// The key, or the first one of the range.
    pub key: &'a [u8],
    /// As in [`DeleteRange`].
    pub range_end: &'a [u8],
    /// What the key's side must be to the operand.
    pub relation: Relation,
    /// What is compared, and with what.
    pub operand: Operand<'a>,
}

/// What the key's side must be to the operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same.
    Equal,
    /// Greater.
    Greater,
    /// Less.
    Less,
    /// Another.
    NotEqual,
    /// A number that does not exist: holds, as in etcd.
    Unknown,
}

/// What of a key is compared, and with what. An absent key has 0 everywhere; a compare of its value
/// never holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand<'a> {
    /// Puts since creation.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value.
    Value(&'a [u8]),
    /// The lease.
    Lease(i64),
    /// A target that does not exist: equal to everything, as in etcd.
    Unknown,
}

impl Command<'_> {
    /// The log time of the entry, if it has one.
    pub(crate) fn log_time(&self) -> Option<u64> {
        match self {
            Self::PutWithTtl { time, .. }
            | Self::LeaseGrant { time, .. }
            | Self::LeaseKeepAlive { time, .. }
            | Self::LeaseExpire { time, .. }
            | Self::LogTime { time } => Some(*time),
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compact { .. }
            | Self::Members(_)
            | Self::Register { .. }
            | Self::LeaseRevoke { .. }
            | Self::Raise(_)
            | Self::Disarm { .. }
            | Self::Nothing => None,
        }
    }

    /// Whether it can be answered without the log: a transaction whose every top-level operation of
    /// both branches is a range. A nested transaction makes it a write.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Txn(txn) => txn.is_read_only(),
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Compact { .. }
            | Self::Members(_)
            | Self::Register { .. }
            | Self::PutWithTtl { .. }
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseKeepAlive { .. }
            | Self::LeaseExpire { .. }
            | Self::LogTime { .. }
            | Self::Raise(_)
            | Self::Disarm { .. }
            | Self::Nothing => false,
        }
    }
}

impl<'a> Txn<'a> {
    /// Whether every top-level operation of both branches is a range.
    pub fn is_read_only(&self) -> bool {
        self.both_branches().all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether a read-only transaction may be answered from local state without asking a quorum: every
    /// range of both branches says so, or there are none.
    pub fn is_serializable(&self) -> bool {
        self.both_branches().all(|op| matches!(op, Op::Range(range) if range.serializable))
    }

    /// The operations of one branch.
    pub fn branch(&self, succeeded: bool) -> &[Op<'a>] {
        if succeeded { &self.success } else { &self.failure }
    }

    fn both_branches(&self) -> impl Iterator<Item = &Op<'a>> {
        self.success.iter().chain(&self.failure)
    }
}

/// Takes nested transactions apart one by one: a nest of any depth is dropped without recursion.
impl Drop for Txn<'_> {
    fn drop(&mut self) {
        let nested = |op: &Op<'_>| matches!(op, Op::Txn(_));
        if !self.both_branches().any(nested) {
            return;
        }
        let mut open: Vec<Op<'_>> = Vec::new();
        open.append(&mut self.success);
        open.append(&mut self.failure);
        while let Some(op) = open.pop() {
            if let Op::Txn(mut txn) = op {
                open.append(&mut txn.success);
                open.append(&mut txn.failure);
            }
        }
    }
}

impl SortOrder {
    /// The order with etcd's number; none if there is no such.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::None, Self::Ascend, Self::Descend].get(usize::try_from(number).ok()?).copied()
    }
}

impl SortTarget {
    /// The target with etcd's number; none if there is no such.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Key, Self::Version, Self::Create, Self::Mod, Self::Value]
            .get(usize::try_from(number).ok()?)
            .copied()
    }
}

impl Relation {
    /// The relation with etcd's number.
    pub fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Equal,
            1 => Self::Greater,
            2 => Self::Less,
            3 => Self::NotEqual,
            _ => Self::Unknown,
        }
    }
}
