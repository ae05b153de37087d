//! The simulator: whole clusters of the roles that are shipped, over simulated links, sockets, disks and
//! clocks, all from one seed.
//!
//! ```text
//!  clients ═ sockets ═ Reactor ─ queues ─ Consensus ═ sockets ═ other members
//!                          └──── Store ───────┘
//!                                  │           │
//!                              page file      WAL      written, synced, lost, torn, damaged
//! ```
//!
//! A run is a seed. It draws a plan (sizes, loads, which faults strike how often), then moves one event
//! after the other, the order drawn from the seed too. An onlooker outside of the members ([`Ghost`])
//! keeps the one log, what is durable where and what clients were told, and judges every step. At the
//! end all faults cease: then there must be a leader, every request must end, all members must agree.
//!
//! Streams between machines neither double nor reorder bytes, for members are given streams by the
//! kernel; across streams everything comes in any order. Whole frames between members are lost, doubled
//! and overtaken where the protocol lives with it ([`frames`]).

#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod alarming;
mod bounds;
mod client;
mod damage;
mod disk;
mod durable;
mod fallback;
mod faults;
mod frames;
mod ghost;
mod leased;
mod leasing;
mod lives;
mod load;
mod member;
mod model;
mod network;
mod plan;
mod reign;
mod retained;
mod sessions;
mod trace;
mod trial;
mod turns;
mod watched;
mod watching;
mod world;

pub use ghost::Ghost;
pub use leased::{LEASE_LIVES, RENEWALS};
pub use plan::{Adjust, Fault, Plan};
pub use trial::{Kind, Trial, trial};
pub use watching::{
    CHANGES_TOLD, FRAGMENT_TOLD, PROGRESS_TOLD, WATCH_COMPACTED, WATCH_OPENED, WATCH_RESUMED,
};

use std::cell::Cell;
use std::collections::BTreeMap;

use retained::OWN_COMPACTIONS;
use world::World;

/// What a run came to.
pub struct Report {
    /// What was wrong, if anything was.
    pub violation: Option<String>,
    /// The hash over all that happened, and how much that was.
    pub hash: u64,
    pub steps: u64,
    /// How often each fault struck and each kind of request was made.
    pub counts: BTreeMap<&'static str, u64>,
    /// Answers by status.
    pub answers: BTreeMap<u64, u64>,
    /// The last events, where they were asked for.
    pub trace: Vec<String>,
    /// Simulated nanoseconds, events, entries of the log, invariants judged, replies checked.
    pub simulated: u64,
    pub events: u64,
    pub entries: u64,
    pub judged: u64,
    pub checked: u64,
    /// Nanoseconds until there was a leader when all was well again, and of the longest answer.
    pub leaderless: u64,
    pub longest: u64,
}

/// Runs a seed.
pub fn run(seed: u64, adjust: &Adjust, with_text: bool) -> Report {
    RUNNING.set(seed);
    let plan = Plan::new(seed, adjust);
    let mut world = World::new(plan, with_text);
    world.run();
    let entries = world.ghost.log.len() as u64;
    let (leases, compactions) = (&world.ghost.leases, world.ghost.retained.count);
    for (name, sum) in [
        (LEASE_LIVES, leases.lives),
        (RENEWALS, leases.renewals_answered),
        (OWN_COMPACTIONS, compactions),
    ] {
        *world.counts.entry(name).or_default() += sum;
    }
    world.trace.mix(entries);
    Report {
        violation: world.violation.take(),
        hash: world.trace.hash(),
        steps: world.trace.count(),
        counts: std::mem::take(&mut world.counts),
        answers: std::mem::take(&mut world.answers),
        simulated: world.now,
        events: world.events,
        entries,
        judged: world.ghost.judged,
        checked: world.ghost.checked,
        leaderless: world.leaderless,
        longest: world.longest,
        trace: world.trace.into_kept(),
    }
}

thread_local! {
    /// The seed that runs, and what the last panic of this thread said.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
    static PANICKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// Keeps what a panic says for [`last_panic`]. A build that cannot go on after one says it at once.
pub fn note_panics(with_backtrace: bool) {
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no text");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let mut said = format!("{place}: {text}");
        if with_backtrace {
            said.push_str(&format!("\n{}", std::backtrace::Backtrace::force_capture()));
        }
        if cfg!(panic = "abort") {
            let seed = RUNNING.get();
            println!("seed {seed}: panicked: {said}\n1 seeds, 1 violations");
        }
        PANICKED.set(Some(said));
    }));
}

/// What the last panic said.
pub fn last_panic() -> String {
    PANICKED.take().unwrap_or_default()
}
