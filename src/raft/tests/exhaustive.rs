//! Every order in which few things can happen to three members: messages arrive in any order, or
//! never; any member's time-out fires at any moment; disks finish when they like; one crashes. The
//! checker in `world` looks at every state.
//!
//! A message that is lost is one that is never delivered, so that losing needs no step of its own.
//! `QUORATE_TEST_SCALE=2` searches one step deeper, 4 two.

mod world;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use base::{Duration, Term};
use raft::{HardState, Input, Message, Options, RoleName};
use world::World;

const OPTIONS: Options = Options {
    election_timeout: Duration::from_millis(200),
    heartbeat_interval: Duration::from_millis(40),
    append_entries_max: 10,
    append_bytes_max: 1_000,
    in_flight_max: 2,
    in_flight_bytes_max: 2_000,
};

/// How often each thing may still happen.
#[derive(Clone, Copy, Hash)]
struct Budget {
    campaigns: u32,
    proposals: u32,
    reads: u32,
    crashes: u32,
    /// Whether disks take steps of their own; else they are done at once.
    slow_disks: bool,
}

struct Search {
    /// States seen, and with how many steps left.
    seen: HashMap<u64, u32>,
    steps: u64,
    committed: usize,
    elections: u64,
    reads: u64,
}

fn hash(world: &World, budget: Budget) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash_state(&mut hasher);
    budget.hash(&mut hasher);
    let mut packets: Vec<u64> = world
        .sent
        .iter()
        .map(|packet| {
            let mut hasher = DefaultHasher::new();
            packet.hash(&mut hasher);
            hasher.finish()
        })
        .collect();
    packets.sort_unstable();
    packets.hash(&mut hasher);
    hasher.finish()
}

impl Search {
    fn run(world: World, budget: Budget, depth: u32) -> Self {
        let seen = HashMap::new();
        let mut search = Self { seen, steps: 0, committed: 0, elections: 0, reads: 0 };
        search.visit(world, budget, depth);
        search
    }

    /// What follows at once from a step.
    fn settle(&mut self, mut world: World, budget: Budget, depth: u32) {
        for id in 1..=3 {
            if !budget.slow_disks {
                while world.write(id) {
                    world.report(id);
                }
            }
            world.input(id, Input::Flush);
            if !budget.slow_disks {
                while world.write(id) {
                    world.report(id);
                }
            }
        }
        // Heartbeats that confirm no read tell nothing that appends do not.
        world.sent.retain(|packet| {
            !matches!(
                packet.message,
                Message::Heartbeat { round: 0, .. } | Message::HeartbeatReply { round: 0, .. }
            )
        });
        self.steps += 1;
        self.committed = self.committed.max(world.truth.committed.len());
        self.elections = self.elections.max(world.truth.elections);
        self.reads = self.reads.max(world.truth.reads_granted);
        self.visit(world, budget, depth - 1);
    }

    fn visit(&mut self, world: World, budget: Budget, depth: u32) {
        let left = self.seen.entry(hash(&world, budget)).or_insert(0);
        if depth == 0 || *left >= depth {
            return;
        }
        *left = depth;
        for i in 0..world.sent.len() {
            if world.sent.iter().take(i).any(|packet| *packet == world.sent[i]) {
                continue;
            }
            let mut next = world.clone();
            let packet = next.sent.remove(i).expect("in flight");
            next.receive(packet);
            self.settle(next, budget, depth);
        }
        for id in 1..=3 {
            if budget.slow_disks && !world.hosts[&id].writes.is_empty() {
                let mut next = world.clone();
                next.write(id);
                next.report(id);
                self.settle(next, budget, depth);
            }
            let leads = world.raft(id).role() == RoleName::Leader;
            if budget.campaigns > 0 && !leads {
                let mut next = world.clone();
                // So much time has passed that no lease holds.
                next.now = next.now.after(OPTIONS.election_timeout);
                next.input(id, Input::Campaign);
                let budget = Budget { campaigns: budget.campaigns - 1, ..budget };
                self.settle(next, budget, depth);
            }
            if budget.proposals > 0 && leads {
                let mut next = world.clone();
                next.input(id, Input::Propose { count: 1 });
                let budget = Budget { proposals: budget.proposals - 1, ..budget };
                self.settle(next, budget, depth);
            }
            if budget.reads > 0 && leads {
                let mut next = world.clone();
                next.read(id);
                let budget = Budget { reads: budget.reads - 1, ..budget };
                self.settle(next, budget, depth);
            }
            if budget.crashes > 0 {
                let mut next = world.clone();
                next.crash(id, 0);
                next.restart(id, id);
                let budget = Budget { crashes: budget.crashes - 1, ..budget };
                self.settle(next, budget, depth);
            }
        }
    }

    fn report(&self, name: &str) {
        let states = self.seen.len();
        println!("{name}: {states} states, {} steps, {} committed", self.steps, self.committed);
    }
}

fn deeper() -> u32 {
    let scale = std::env::var("QUORATE_TEST_SCALE").ok();
    scale.and_then(|scale| scale.parse::<u64>().ok()).map_or(0, u64::ilog2)
}

/// 1 leads, and all have and know its first entry.
fn led() -> World {
    let mut world = World::new(OPTIONS, &[1, 2, 3], &[]);
    world.input(1, Input::Campaign);
    for _ in 0..20 {
        for id in 1..=3 {
            while world.write(id) {
                world.report(id);
            }
            world.input(id, Input::Flush);
        }
        let packets: Vec<_> = world.sent.drain(..).collect();
        packets.into_iter().for_each(|packet| world.receive(packet));
    }
    assert_eq!(world.truth.committed.len(), 1);
    world
}

#[test]
fn two_elections_in_any_order_of_messages() {
    let world = World::new(OPTIONS, &[1, 2, 3], &[]);
    let budget = Budget { campaigns: 2, proposals: 1, reads: 0, crashes: 0, slow_disks: false };
    let search = Search::run(world, budget, 10 + deeper());
    search.report("two elections");
    assert!(search.committed >= 2 && search.elections == 2);
}

#[test]
fn reads_beside_a_second_election_in_any_order_of_messages() {
    let world = led();
    let budget = Budget { campaigns: 1, proposals: 0, reads: 1, crashes: 0, slow_disks: false };
    let search = Search::run(world, budget, 12 + deeper());
    search.report("reads");
    assert!(search.reads == 1 && search.elections == 2 && search.committed == 2);
}

#[test]
fn disks_that_finish_at_any_time_and_a_crash() {
    let world = World::new(OPTIONS, &[1, 2, 3], &[]);
    let budget = Budget { campaigns: 2, proposals: 0, reads: 0, crashes: 1, slow_disks: true };
    let search = Search::run(world, budget, 12 + deeper());
    search.report("crash");
    assert!(search.committed >= 1);
}

/// Paper, figure 8, from (b) on. Entries travel one by one, else the entry of an earlier term would
/// always come with one of the leader's own.
#[test]
fn logs_that_differ_in_any_order_of_messages() {
    let options = Options { append_entries_max: 1, ..OPTIONS };
    let mut world = World::new(options, &[1, 2, 3], &[]);
    let state = |vote| HardState { term: Term::new(3), vote: Some(base::NodeId::new(vote)) };
    world.preset(1, &[1, 2], state(3));
    world.preset(2, &[1], state(3));
    world.preset(3, &[1, 3], state(3));
    let budget = Budget { campaigns: 2, proposals: 0, reads: 0, crashes: 0, slow_disks: false };
    let search = Search::run(world, budget, 12 + deeper());
    search.report("figure 8");
    assert!(search.committed >= 3 && search.elections == 2);
}
