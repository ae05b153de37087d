//! A blocking client of the native protocol. A [`Client`] has one TCP connection at a time and no threads;
//! what goes on in the background has a connection and a thread of its own.
//!
//! ```text
//! Client: endpoints, retries, one call at a time ----\
//!    submit / receive: many calls in flight ----------> Connection: socket, credits, frames
//! WatchHub: any number of Watchers ------------------> a connection, read by a thread
//! LeaseKeeper: any number of KeptLeases -------------> a Client, called by a thread
//! recipes: Lock, Election, Register, DoubleBarrier, Counter, Queue: made of the three above
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//! use client::recipes::Lock;
//! use client::{Client, Op, Options, Put, Txn, WatchEvent, WatchOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let seconds = Duration::from_secs;
//! let options = Options {
//!     connect_timeout: seconds(2),
//!     request_timeout: seconds(5),
//!     client_name: "example".into(),
//!     cluster: 0,
//! };
//! let mut client = Client::connect(["127.0.0.1:2400"], options)?;
//!
//! for event in client.watch(WatchOptions::prefix(b"config/"))?.take(3) {
//!     if let WatchEvent::Changes { changes, .. } = event? {
//!         println!("{changes:?}");
//!     }
//! }
//!
//! let lease = client.keep_lease(seconds(10))?;
//! let lock = Lock::acquire(&mut client, &lease, b"locks/report", Some(seconds(30)))?;
//! let report = Op::Put(Put::new(b"report", b"done"));
//! // Does nothing if the lock was lost meanwhile.
//! let written = client.txn(&Txn::new().when(lock.guard()).then(report))?.succeeded;
//! lock.release(&mut client)?;
//! # Ok(())
//! # }
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
    LeasesResult, MemberChangeResult, MemberLimit, MemberStatus, MembersResult, OpResult,
    OwnedKeyValue, PutResult, RangeResult, TxnResult,
};
pub use session::WriteNumber;
pub use watch::{
    OwnedChange, WatchEnd, WatchEvent, WatchHub, WatchId, WatchOptions, WatchPosition,
    WatchPositionError, WatchedRange, Watcher,
};

pub use base::{Alarm, AlarmKind, ClientId, NodeId, RequestId};
pub use wire::{
    AlarmChange, Call, Cause, ChangeKind, Compact, Compare, CompareResult, CompareTarget,
    DeleteRange, Effect, KeyValue, LimitUnit, Member, MemberChange, MemberList, MemberOperation,
    MemberRole, MoveLeader, Op, Put, RaftRole, Range, RangeSummary, Reply, SortOrder, SortTarget,
    Status, Txn,
};
