//! The three roles of a member, and how they talk.
//!
//! ```text
//!  sockets          disk: WAL             disk: page file
//!     │                 │                      │
//! ┌───▼─────┐  Propose ┌▼─────────┐   Apply  ┌─▼─────┐
//! │ Reactor ├─────────►│ Consensus├─────────►│ Store │
//! │ (each   │ ReadIndex│  (one)   │  Applied │ (one) │
//! │  core)  │◄─────────┤          │◄─────────┤       │
//! └───▲──┬──┘  Granted └──────────┘          └─▲──┬──┘
//!     │  └───────────── Read, Status ──────────┘  │
//!     └──────────────── Replies ──────────────────┘
//! ```
//!
//! Each role is a struct that owns its data outright: `handle` files an event away, `flush` acts once
//! per turn on what has accumulated, `deadline` says when to be called without an event. There is no
//! lock, no clock, no file, no socket and no `async` here; what a role wants done it appends to a
//! list of effects. A batch is what one turn gathered, so there is no batching timer: under load
//! turns get longer and batches bigger.
//!
//! The only parameter is `B`, disk memory: aligned bytes that the driver can write without a copy.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

extern crate alloc;

mod admin;
mod alarms;
mod applied_ops;
mod apply_lag;
mod beginner;
mod boot;
mod bounds;
mod checkpoint;
mod conclude;
mod consensus;
mod consensus_link;
mod disk_watch;
mod divergence;
mod few;
mod gauges;
mod journal;
mod lease_reads;
mod leases;
mod log_clock;
mod log_reader;
mod members;
mod message;
mod moving;
mod pages;
mod peers;
mod proposals;
mod questions;
mod ranges;
mod reactor;
mod reads;
mod renewals;
mod replication;
mod retention;
mod saving;
mod session;
mod snapshots;
mod status;
mod store;
mod store_link;
mod sweep;
mod tail;
mod transfer;
mod translate;
mod trimming;
mod undecided;
mod usage;
mod watch_reads;
mod watches;
mod watching;

pub use admin::AdminRequest;
pub use applied_ops::{AppliedOps, TTL_BUCKETS};
pub use boot::{Boot, BootError, BootRead, BootStep, Booted, DataFile};
pub use checkpoint::CheckpointConfig;
pub use consensus::{Consensus, ConsensusConfig, ForPeers, Mishaps};
pub use consensus_link::{ConsensusEffect, ConsensusEvent};
pub use gauges::{Bound, Use};
pub use members::{Members, membership};
pub use message::{
    Committed, EntryKind, KINDS, Origin, Payload, ReadKind, ReadRequest, Refused, Reply, ReplyBody,
    STAMP_MARK, Standing, WatchRead, WatchRequest,
};
pub use peers::Introduction;
pub use questions::Questions;
pub use reactor::{CloseReason, Reactor, ReactorConfig, ReactorEffect, ReactorEvent};
pub use retention::Retention;
pub use snapshots::TRANSFER_RATE;
pub use store::{Store, StoreConfig};
pub use store_link::{StoreEffect, StoreEvent};
pub use tail::{Kept, Tail};
pub use trimming::{COMPACTION_BUCKETS, Compactions};

use alloc::boxed::Box;
use alloc::vec::Vec;
use base::Instant;

/// What every role is to its driver.
pub trait Role {
    /// Everything that can wake the role.
    type Event;
    /// Everything it can ask for.
    type Effect;

    /// Files one event away. `now` never goes back and is never earlier than the event.
    fn handle(&mut self, now: Instant, event: Self::Event, effects: &mut Vec<Self::Effect>);

    /// Acts on what has accumulated; once per turn, after all its events.
    fn flush(&mut self, now: Instant, effects: &mut Vec<Self::Effect>);

    /// When the role wants a turn even if nothing happens.
    fn deadline(&self) -> Option<Instant>;
}

/// Where disk memory comes from: at least that many bytes, aligned for O_DIRECT, with any content.
pub type Allocate<B> = Box<dyn FnMut(usize) -> B>;
