//! Consensus over positions: the protocol of Raft.
//!
//! This crate holds terms and log indices and never a payload byte; it has no file, no socket, no
//! clock and no randomness of its own, and could replicate anything. A host feeds it closed
//! [`Input`]s with the time, and does the [`Output`]s in the order given.
//!
//! ```text
//!              time-out                 quorum says yes              quorum of votes
//!  ┌──────────┐ ──────► ┌─────────────┐ ──────────────► ┌───────────┐ ─────────────► ┌────────┐
//!  │ follower │         │ pre-candidate│  term + 1, own  │ candidate │  empty entry   │ leader │
//!  └──────────┘ ◄────── └─────────────┘  vote durable    └───────────┘  of the term   └────────┘
//!       ▲        a leader, a later term, a quorum says no      │                           │
//!       └──────────────────────────────────────────────────────┴───────────────────────────┘
//!                                      a later term, no quorum heard, removed by a committed change
//!
//!  propose ─► position ─► Flush: Append ─► follower: verified ─► durable ─► Accepted ─┐
//!                │                                                                    ├─► Committed
//!                └─────► own disk ─► durable ─────────────────────────────────────────┘
//! ```
//!
//! Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm (extended
//! version)" (*paper*); Ongaro, "Consensus: Bridging Theory and Practice" (*thesis*). The
//! tests in `tests/paper.rs` are named after their sentences.
//!
//! **What is durable.** Term and vote are durable before anything is said in that term, refusals too
//! (thesis 3.8): until then all messages wait inside. A vote counts when it is durable, the own one
//! too. A log entry is acknowledged when it is durable, by the leader too, which writes and sends at
//! the same time (thesis 10.2.1). Such messages do not exist before [`Input::HardStateDurable`] or
//! [`Input::Durable`], so that no host can send them early. A completion names the era of its write:
//! one from before a cut says nothing about what is there now.
//!
//! **Elections** (paper 5.2, 5.4.1; thesis 9.6, 4.2.3, 6.2). Time-outs are drawn from once to twice
//! the base. A pre-vote comes first, changes nothing anywhere, and keeps one that was cut off from
//! disturbing. Who heard of a leader within the time-out takes part in no election, unless the leader
//! asked for it. A leader that hears of no quorum for a time-out steps down. One that leads a term
//! that is over is told so.
//!
//! **The log** (paper 5.3, 5.4.2). A follower takes entries behind a position that it holds, cuts off
//! from the first difference on, never at or below its commit index, and commits only what a message
//! has shown to agree. A refusal names a position whose term may agree: terms are stepped over whole.
//! By counting, only entries of the own term are committed; hence the empty entry of a new leader.
//!
//! **Replication.** [`Progress`] per peer: probe, replicate, snapshot; appends follow each other
//! within a window of messages and bytes. Sizes are the host's: an append takes the most it can be
//! from the window, until [`Input::Sent`] says what it was. What a peer needs and the log no longer
//! has comes as a snapshot, which the host moves; raft sees it when it is all there, and it is
//! durable like an entry.
//!
//! **Reads** (thesis 6.4). No read before an entry of the own term is committed; then one round of
//! heartbeats for all that wait, with a number that the leader makes and never uses twice. Followers
//! ask the leader. Every question is answered within an election time-out, with no at worst.
//!
//! **Members** (thesis 4.2, 4.3). A [`Membership`] is in effect from the moment its entry is in the
//! log; if the entry is cut off, the one before is again. Voters change through a joint membership,
//! in which both majorities decide, and which whoever leads leaves as soon as it is committed. One
//! change at a time, none before an entry of the own term is committed. Learners get the log and do
//! not count, but answer requests for votes. A leader that is removed leads until that is committed,
//! does not count itself, then names an heir and steps down; one that holds the change alone may
//! still be elected to commit it.
//!
//! **Handing over** (thesis 3.10). No proposals meanwhile; the target gets the whole log, then holds
//! its election at once; given up after an election time-out.
//!
//! A lone voter goes the same ways: [`Raft::propose`], [`Raft::durable`] and a quorum of one.
//! [`Raft::check`] states the invariants; they are checked after every input, in release builds too.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod candidate;
mod follower;
mod invariant;
mod leader;
mod log;
#[cfg(test)]
mod lone;
mod membership;
mod message;
mod progress;
mod quorum;
mod raft;
mod read;

pub use log::{Log, TermRun};
pub use membership::{Change, ChangeRefusal, Configuration, LEARNERS_MAX, Membership, VOTERS_MAX};
pub use message::{HardState, Input, Message, Output, Outputs, Position};
pub use progress::{Pace, Progress};
pub use quorum::{committed_by, majority};
pub use raft::{Options, Raft, Restored, RoleName};
