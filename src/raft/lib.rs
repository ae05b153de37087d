//! Consensus over positions: the protocol of Raft (Ongaro, "Consensus: Bridging Theory and Practice").
//!
//! This crate holds terms and log indices and never a payload byte; it has no file, no socket, no
//! clock and no randomness of its own, and could replicate anything. It is told what has become
//! durable and says what may be done.
//!
//! ```text
//!            Start ───────► candidate ── own vote durable, quorum ──► leader
//!                              │ SaveVote{term, self}                   │ AppendEmpty{term}
//!   proposals ─► Raft::propose(count) ─► indices                        │
//!   WAL       ─► Raft::durable(index, term) ─► quorum ─► committed ─────┘
//! ```
//!
//! - A vote counts only once it is durable, the own one too (thesis 3.8).
//! - The leader counts its own copy of an entry only once that is durable, also when it is the only
//!   voter.
//! - Only entries of the leader's own term are committed by counting; earlier ones ride along
//!   (thesis 3.6.2), hence the empty entry that a new leader appends.
//!
//! What is here serves a membership of one voter through the rules for many: elections, quorum
//! arithmetic and commitment do not ask how many voters there are. The messages between members
//! come with replication.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod log;
mod membership;
mod quorum;
mod raft;

pub use log::{Log, TermRun};
pub use membership::Membership;
pub use quorum::committed_by;
pub use raft::{HardState, Output, Raft, RoleName};
