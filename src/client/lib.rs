//! A small blocking client of the native protocol, for tests, the load generator and the command
//! line. One TCP connection at a time; no threads, no async.
//!
//! ```text
//! Client: endpoints, retries, one call at a time ----\
//!    submit / receive: many calls in flight ----------> Connection: socket, credits, frames
//! ```
//!
//! What it repeats by itself: a call that the server refused without an effect
//! ([`Status::is_retryable`]), a read whose connection was lost, and a write of which the
//! connection never took the whole frame, all within the request timeout. A write that may have
//! arrived is sent again only by a client with a session ([`Client::with_session`]), for which it takes
//! effect once; else it ends as [`Error::OutcomeUnknown`]. Calls that were submitted
//! ([`Client::submit`]) are never repeated; whoever submits a write again himself gives it a number
//! ([`Client::begin_write`]).
//!
//! Timeouts are `std::time::Duration`; a timeout is noticed within a quarter more than its length.

#![forbid(unsafe_code)]

mod client;
mod connection;
mod error;
mod lease;
mod lease_keeper;
pub mod recipes;
mod result;
mod session;
mod watch;

pub use client::{Client, Completion, Options, Server, prefix_end};
pub use connection::Answer;
pub use error::{Error, Refusal};
pub use lease_keeper::{KeptLease, LeaseKeeper, LeaseLoss};
pub use result::{
    DeleteResult, LeaseGrantResult, LeaseKeepAliveResult, LeaseRevokeResult, LeaseTimeToLiveResult,
    LeasesResult, MemberChangeResult, MemberStatus, MembersResult, OpResult, OwnedKeyValue,
    PutResult, RangeResult, TxnResult,
};
pub use session::WriteNumber;
pub use watch::{
    OwnedChange, WatchEnd, WatchEvent, WatchHub, WatchId, WatchOptions, WatchPosition,
    WatchPositionError, WatchedRange, Watcher,
};

pub use base::{ClientId, NodeId, RequestId};
pub use wire::{
    Call, Cause, ChangeKind, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Effect,
    KeyValue, Member, MemberChange, MemberList, MemberOperation, MemberRole, MoveLeader, Op, Put,
    RaftRole, Range, RangeSummary, Reply, SortOrder, SortTarget, Status, Txn,
};
