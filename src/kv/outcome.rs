//! What came of a command, and what a client is told beyond it.

use alloc::vec::Vec;

use base::{Alarm, ClientId, LeaseId, Revision};
use tree::Miss;

use crate::clients::Remembered;
use crate::pair::KeyValueList;
use crate::refusal::{Damage, Refusal};

/// How far one step got.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step<T> {
    /// To the end.
    Done(T),
    /// The budget is spent; call again.
    More,
    /// These bytes of the page file are wanted; install them and call again. The part of the work that
    /// met the miss has changed nothing.
    Miss(Miss),
    /// The state contradicts itself; the member must halt.
    Damaged(Damage),
}

/// Why a part of the work stopped before its end, having changed nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The budget is spent.
    Budget,
    /// Bytes of the page file are wanted.
    Miss(Miss),
    /// The state contradicts itself.
    Damaged(Damage),
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl<T> From<Result<T, Stop>> for Step<T> {
    fn from(result: Result<T, Stop>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(Stop::Budget) => Self::More,
            Err(Stop::Miss(miss)) => Self::Miss(miss),
            Err(Stop::Damaged(damage)) => Self::Damaged(damage),
        }
    }
}

/// Takes one unit of work from the budget.
#[inline]
pub(crate) fn charge(budget: &mut u32) -> Result<(), Stop> {
    *budget = budget.checked_sub(1).ok_or(Stop::Budget)?;
    Ok(())
}

/// What applying a command did; the same on every member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The key was written.
    Put {
        /// The revision of the write.
        revision: Revision,
    },
    /// Keys were deleted, or there were none.
    Deleted {
        /// The revision of the delete, or the current one if there was nothing to delete.
        revision: Revision,
        /// Keys deleted.
        count: u64,
    },
    /// The transaction ran.
    Txn(TxnOutcome),
    /// History before `compacted` is given up.
    Compacted {
        /// The current revision.
        revision: Revision,
        /// The oldest revision that stays readable.
        compacted: Revision,
    },
    /// The key was written, and a lease was made for it.
    PutWithLease {
        /// The revision of the write.
        revision: Revision,
        /// The lease.
        lease: LeaseId,
    },
    /// A lease was made.
    Granted {
        /// The current revision.
        revision: Revision,
        /// Its id.
        lease: LeaseId,
        /// Milliseconds that it lives.
        ttl_ms: u64,
    },
    /// A lease was ended by a client.
    Revoked {
        /// The revision of the deletion of its keys, or the current one if it had none.
        revision: Revision,
        /// Keys deleted.
        deleted: u64,
    },
    /// Leases begin their time anew.
    Renewed {
        /// The current revision.
        revision: Revision,
        /// Milliseconds that each lives, in order; 0: there is none.
        ttls_ms: Vec<u64>,
    },
    /// A lease was ended because its time was up.
    Expired {
        /// Keys deleted.
        deleted: u64,
    },
    /// A client has registered.
    Registered {
        /// Its id.
        client: ClientId,
    },
    /// These alarms are up, or were disarmed.
    Alarms {
        /// The current revision.
        revision: Revision,
        /// They.
        alarms: Vec<Alarm>,
    },
    /// A write with this stamp had been applied before; this is what came of it then. Nothing was
    /// changed.
    Repeated(Remembered),
    /// The entry was to change nothing.
    Nothing,
    /// Nothing was changed, for this reason.
    Refused(Refusal),
}

/// Which way a transaction went. With the command it says everything but what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnOutcome {
    /// The revision of its changes, or the current one if there were none.
    pub revision: Revision,
    /// The revision before it.
    pub base: Revision,
    /// Which branches were taken: the transaction's own first, then those of the nested transactions
    /// that were reached, each before what it contains.
    pub path: Vec<bool>,
    /// Keys deleted by each delete of the taken path, in order.
    pub deleted: Vec<u64>,
}

impl TxnOutcome {
    /// Whether the compares of the transaction itself held.
    pub fn succeeded(&self) -> bool {
        self.path.first().copied().unwrap_or(false)
    }
}

/// The end of a range answer, behind its pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeEnd {
    /// The revision for the header: the current one when the read began, also when it read at an older
    /// one.
    pub revision: Revision,
    /// Keys in the range at the revision that was read, whatever limit and filters say.
    pub count: u64,
    /// Whether the limit cut the answer.
    pub more: bool,
}

/// What the client of a write is told, with everything that it asked to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// For a put.
    Put {
        /// The revision of the write.
        revision: Revision,
        /// The version that it replaced, if there was one and it was asked for.
        prev: KeyValueList,
    },
    /// For a delete.
    Deleted {
        /// The revision of the delete.
        revision: Revision,
        /// Keys deleted.
        count: u64,
        /// The versions that were deleted, if asked for, in key order.
        prev: KeyValueList,
    },
    /// For a transaction.
    Txn(TxnReply),
}

/// What the client of a transaction is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnReply {
    /// The revision of its changes, or the current one if there were none.
    pub revision: Revision,
    /// Whether its compares held.
    pub succeeded: bool,
    /// One for each operation of the taken branch, in order; what a nested transaction answers stands
    /// directly behind its [`OpReply::Txn`].
    pub ops: Vec<OpReply>,
}

/// What the client is told about one operation of a transaction. Revisions are those for its header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpReply {
    /// For a put.
    Put {
        /// The revision of the transaction.
        revision: Revision,
        /// The version that it replaced, if there was one and it was asked for.
        prev: KeyValueList,
    },
    /// For a delete.
    Deleted {
        /// The revision of the transaction if anything was changed up to here, else the one before.
        revision: Revision,
        /// Keys deleted.
        count: u64,
        /// The versions that were deleted, if asked for, in key order.
        prev: KeyValueList,
    },
    /// For a range.
    Range {
        /// Count, more, and the revision: that of the transaction if anything was changed up to here.
        end: RangeEnd,
        /// The pairs.
        pairs: KeyValueList,
    },
    /// For a nested transaction.
    Txn {
        /// Whether its compares held.
        succeeded: bool,
        /// Operations of its taken branch; their answers follow, with those of transactions nested in
        /// them in between.
        ops_count: usize,
    },
}
