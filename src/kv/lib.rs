//! kv: the replicated state. Deterministic apply, reads at any kept revision, compaction.
//!
//! The data model is etcd's: one revision for the whole store, which each write transaction moves by
//! one; keys with create revision, mod revision and version; a history that reads can go back to until
//! it is compacted. The present is a tree, the past is an undo log:
//!
//! ```text
//! current   user key        -> its newest version, tombstones too
//! events    (revision, sub) -> which key, put or delete, and the version that this event replaced
//! leases    leases, the keys that hang on them, and which is due (lease.rs)
//! clients   client, and client and number of a write -> what came of it (clients.rs)
//! ```
//!
//! A worked example, with `a@5` for the version of `a` written at revision 5 and `x` for a tombstone:
//!
//! ```text
//! 2 put a    3 put b    4 delete a    5 put a    6 delete b        compact(4)      trim
//!
//! current    a -> a@5   b -> x@6                                   the same        the same
//! events     2: a, none   3: b, none   4: a, a@2                   the same        4: a, shed
//!            5: a, x@4    6: b, b@3                                                5: a, x@4  6: b, b@3
//!
//! read a at 3: current says a@5, event 5 replaced x@4, event 4 replaced a@2: a@2. Refused after
//!              compact(4), also before anything is trimmed.
//! read b at 5: current says x@6, event 6 replaced b@3: b@3.
//! read a at 4: current says a@5, event 5 replaced x@4: deleted. Nothing that can still be read follows
//!              event 4, so what it replaced goes, if it is large; the delete stays for a watch from 4.
//! 7 put c, compact(7), trim: events 2 to 6 go; event 6 was a delete and its tombstone is still in
//!              current, so b goes from there. compact(6) keeps it: a watch from 6 must see the delete.
//! ```
//!
//! One owner drives a [`State`]: [`State::apply`] for each entry of the log, [`Answer`] for what a
//! client asked to read along with a write, [`Read`] and [`ReadTxn`] for reads, [`State::trim`] in idle
//! moments, [`State::checkpoint_begin`] between entries. An [`Export`] and an [`Import`] bring the state
//! of a checkpoint to another member. Each works in steps: bounded by a budget, and
//! handing out a miss when a page is not in memory. Nothing here knows a protocol, a log or a clock.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

extern crate alloc;

mod alarms;
mod answer;
mod change;
mod clients;
mod command;
mod compare;
mod count;
mod delete;
mod export;
mod foresee;
mod history;
mod history_hash;
mod import;
mod keys;
mod lease;
mod listing;
mod members;
mod outcome;
mod pair;
mod path;
mod read;
mod refusal;
mod restore;
mod scan;
mod state;
mod transfer;
mod trim;
mod txn;
mod union;
mod unpack;
mod validate;
mod version;

pub use alarms::ALARMS_MAX;
pub use answer::{Answer, REPLY_SIZE_MAX, ReadTxn};
pub use clients::Remembered;
pub use command::{
    Command, Compare, DeleteRange, Op, Operand, Put, RangeRequest, Relation, SortOrder, SortTarget,
    Txn,
};
pub use export::{Chunk, Export};
pub use history::{
    Change, Changes, History, HistoryLimits, HistoryStep, Previous, Recorded, Wanted,
};
pub use history_hash::{HistoryHash, HistoryHashError};
pub use import::{Fed, Import, ImportRefusal};
pub use keys::Point;
pub use lease::{Due, DueError, Lease, first_choice};
pub use listing::SORT_SIZE_MAX;
pub use members::MEMBERS_SIZE_MAX;
pub use outcome::{OpReply, Outcome, RangeEnd, Reply, Step, TxnOutcome, TxnReply};
pub use pair::{KeyValue, KeyValueList};
pub use read::{Read, ReadStep};
pub use refusal::{Damage, Refusal};
pub use restore::{Restore, RestoreEnd, RestoreRefusal};
pub use state::{OpenError, State};
pub use transfer::CHUNK_SIZE_MAX;
pub use unpack::{Facts, Head, Item, Unpack, UnpackError};
pub use validate::Limits;
pub use version::{Cause, Kind as ChangeKind};
