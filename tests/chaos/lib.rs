//! Chaos: real servers of the built binary, clients that write down what they see, faults from a seed,
//! and two judges of what was written down.
//!
//! ```text
//!  workload ── operations ──► history ──► witness, registers: right or not
//!     │ clients
//!  cluster: processes ══ proxy ══ each other        nemesis: kills, pauses, partitions, disks
//! ```
//!
//! The judges are pure: a history goes in, a verdict comes out. `cargo run --release -p chaos -- --help`
//! shows the scenarios.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod damage;
pub mod failover;
pub mod grey;
pub mod history;
pub mod judgement;
pub mod model;
pub mod nemesis;
pub mod process;
pub mod proxy;
pub mod registers;
pub mod replacement;
pub mod scenario;
pub mod small_disk;
pub mod steady;
pub mod timeline;
pub mod translation;
pub mod watch;
pub mod witness;
pub mod workload;
