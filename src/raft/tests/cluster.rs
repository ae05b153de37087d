//! Random schedules of a small cluster: messages are lost, repeated, delayed and overtake each other;
//! members crash and lose what was not durable; links are cut, one way or both; members change; time
//! passes. After every step the checker in `world` looks at all members. Then everything heals, and
//! the cluster has to get on.
//!
//! `QUORATE_TEST_SCALE=10` runs ten times as many, `QUORATE_TEST_SEED=7` begins at another seed.

mod world;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use base::{Duration, Instant, Prng};
use raft::{Change, HardState, Input, Message, Options};
use world::{Packet, World, node, nodes};

#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Deliver(Packet),
    Write(u64),
    Report(u64),
    Flush(u64),
    Fault,
    Load,
}

/// What one schedule is like, drawn from its seed.
struct Weather {
    loss: u64,
    repeat: u64,
    delay_max: u64,
    disk_max: u64,
    faults_every: u64,
    changes: bool,
    crashes: bool,
    cuts: bool,
}

struct Run {
    world: World,
    prng: Prng,
    weather: Weather,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: std::collections::BTreeMap<u64, Event>,
    next_event: u64,
    flushing: BTreeSet<u64>,
    writing: BTreeSet<u64>,
    reporting: BTreeSet<u64>,
    cut: BTreeSet<(u64, u64)>,
    /// Members whose timers stand still.
    slow: BTreeSet<u64>,
    healed: bool,
    crashes: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let pick = |prng: &mut Prng, choices: &[u64]| {
            choices[usize::try_from(prng.below(choices.len() as u64)).expect("small")]
        };
        let options = Options {
            election_timeout: Duration::from_millis(200),
            heartbeat_interval: Duration::from_millis(40),
            pre_vote: seed % 4 != 3,
            append_entries_max: pick(&mut prng, &[1, 10, 100]),
            append_bytes_max: 1_000,
            in_flight_max: usize::try_from(pick(&mut prng, &[1, 4, 16])).expect("small"),
            in_flight_bytes_max: pick(&mut prng, &[1_000, 3_000, 100_000]),
        };
        let weather = Weather {
            loss: pick(&mut prng, &[0, 3, 10, 30]),
            repeat: pick(&mut prng, &[0, 5, 20]),
            delay_max: pick(&mut prng, &[2, 20, 150]),
            disk_max: pick(&mut prng, &[1, 10, 80]),
            faults_every: pick(&mut prng, &[50, 150, 500]),
            changes: !prng.one_in(3),
            crashes: !prng.one_in(4),
            cuts: !prng.one_in(4),
        };
        let voters = pick(&mut prng, &[1, 2, 3, 3, 3, 4, 5, 5]);
        let voters: Vec<u64> = (1..=voters).collect();
        let others: Vec<u64> = (voters.len() as u64 + 1..=5).collect();
        let mut world = World::new(options, &voters, &others);
        world.late_timers = prng.one_in(3);
        if prng.one_in(2) {
            world.shorten = Some(prng.fork("shorten"));
        }
        let mut run = Self {
            world,
            prng,
            weather,
            queue: BinaryHeap::new(),
            events: Default::default(),
            next_event: 0,
            flushing: BTreeSet::new(),
            writing: BTreeSet::new(),
            reporting: BTreeSet::new(),
            cut: BTreeSet::new(),
            slow: BTreeSet::new(),
            healed: false,
            crashes: 0,
        };
        run.at(10_000, Event::Fault);
        run.at(10_000, Event::Load);
        run
    }

    fn at(&mut self, micros: u64, event: Event) {
        let time = self.world.now.after(Duration::from_micros(micros));
        self.next_event += 1;
        self.events.insert(self.next_event, event);
        self.queue.push(Reverse((time, self.next_event)));
    }

    fn some_host(&mut self) -> u64 {
        1 + self.prng.below(self.world.hosts.len() as u64)
    }

    /// What the last step has left to do gets its time.
    fn arrange(&mut self, id: u64) {
        while let Some(packet) = self.world.sent.pop_front() {
            self.post(packet);
        }
        if self.world.is_up(id) && self.flushing.insert(id) {
            let after = self.prng.below(300);
            self.at(after, Event::Flush(id));
        }
        if !self.world.hosts[&id].writes.is_empty() && self.writing.insert(id) {
            let slow = if self.healed { 2 } else { self.weather.disk_max };
            let after = 100 + self.prng.below(slow * 1_000);
            self.at(after, Event::Write(id));
        }
        if !self.world.hosts[&id].reports.is_empty() && self.reporting.insert(id) {
            let late = if self.prng.one_in(5) { 20_000 } else { 300 };
            let after = self.prng.below(late);
            self.at(after, Event::Report(id));
        }
    }

    fn post(&mut self, packet: Packet) {
        if !self.healed {
            let lost = self.prng.below(100) < self.weather.loss
                || self.cut.contains(&(packet.from, packet.to));
            if lost {
                if matches!(packet.message, Message::Snapshot { .. }) {
                    self.world.input(packet.from, Input::Unreachable { peer: node(packet.to) });
                }
                return;
            }
            if self.prng.below(100) < self.weather.repeat {
                let after = 100 + self.prng.below(1_000 * self.weather.delay_max * 3);
                self.at(after, Event::Deliver(packet.clone()));
            }
        }
        let slow = if self.healed { 5 } else { self.weather.delay_max };
        let after = 100 + self.prng.below(1_000 * slow);
        self.at(after, Event::Deliver(packet));
    }

    fn run_until(&mut self, end: Instant) {
        while self.world.now < end {
            let due = self.queue.peek().map(|Reverse((time, _))| *time);
            let ticks = self.world.hosts.values().filter_map(|host| {
                let deadline = host.raft.as_ref()?.deadline()?;
                (!self.slow.contains(&host.id)).then_some((deadline, host.id))
            });
            let tick = ticks.min();
            match (due, tick) {
                (due, Some((deadline, id))) if due.is_none_or(|due| deadline <= due) => {
                    self.world.now = self.world.now.max(deadline);
                    self.world.input(id, Input::Tick);
                    self.arrange(id);
                }
                (Some(due), _) => {
                    self.world.now = self.world.now.max(due);
                    let Reverse((_, event)) = self.queue.pop().expect("peeked");
                    let event = self.events.remove(&event).expect("queued once");
                    self.perform(event);
                }
                (None, _) => unreachable!("there is always load to come"),
            }
        }
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Deliver(packet) => {
                let (from, to, snapshot) =
                    (packet.from, packet.to, matches!(packet.message, Message::Snapshot { .. }));
                let up = self.world.is_up(to);
                self.world.receive(packet);
                self.arrange(to);
                if snapshot && !up && self.world.is_up(from) {
                    self.world.input(from, Input::Unreachable { peer: node(to) });
                    self.arrange(from);
                }
            }
            Event::Write(id) => {
                self.writing.remove(&id);
                for _ in 0..=self.prng.below(4) {
                    self.world.write(id);
                }
                self.arrange(id);
            }
            Event::Report(id) => {
                self.reporting.remove(&id);
                if self.world.is_up(id) {
                    for _ in 0..=self.prng.below(4) {
                        self.world.report(id);
                    }
                }
                self.arrange(id);
            }
            Event::Flush(id) => {
                if self.world.is_up(id) {
                    self.world.input(id, Input::Flush);
                }
                self.arrange(id);
                self.flushing.remove(&id);
            }
            Event::Fault => {
                if !self.healed {
                    self.fault();
                }
                let after = 1 + self.prng.below(2_000 * self.weather.faults_every);
                self.at(after, Event::Fault);
            }
            Event::Load => {
                self.load();
                let pause = if self.healed { 200_000 } else { 20_000 };
                let after = 1 + self.prng.below(pause);
                self.at(after, Event::Load);
            }
        }
    }

    fn load(&mut self) {
        let id = match self.world.leader() {
            Some(leader) if !self.prng.one_in(4) => leader,
            _ => self.some_host(),
        };
        if self.world.is_up(id) {
            match self.prng.below(3) {
                0 => {
                    self.world.read(id);
                }
                _ => {
                    let count = 1 + self.prng.below(5);
                    self.world.input(id, Input::Propose { count });
                }
            }
            self.arrange(id);
        }
        if self.prng.one_in(10) {
            let id = self.some_host();
            if self.world.is_up(id) {
                let raft = self.world.raft(id);
                let (base, committed) = (raft.log().base().index, raft.log().committed());
                let index = base.get() + self.prng.below(base.distance_to(committed) + 1);
                self.world.compact(id, usize::try_from(index).expect("small"));
                self.arrange(id);
            }
        }
    }

    fn fault(&mut self) {
        let id = self.some_host();
        let other = self.some_host();
        match self.prng.below(10) {
            0 | 1 if self.weather.crashes => self.crash_or_restart(id),
            2 if self.weather.cuts => {
                self.cut.insert((id, other));
            }
            3 if self.weather.cuts => {
                let side: u64 = self.prng.below(32);
                let in_side = |id: u64| side >> (id - 1) & 1 == 1;
                self.cut.clear();
                for from in 1..=5 {
                    for to in 1..=5 {
                        if in_side(from) != in_side(to) {
                            self.cut.insert((from, to));
                        }
                    }
                }
            }
            4 => self.cut.clear(),
            5 if self.world.late_timers => {
                // A leader cut off whose clock stands still does not know that it is deposed.
                let leader = self.world.leader().unwrap_or(id);
                if !self.slow.remove(&other) && self.slow.insert(leader) {
                    for peer in (1..=5).filter(|&peer| peer != leader) {
                        self.cut.extend([(leader, peer), (peer, leader)]);
                    }
                }
            }
            5 => self.cut.clear(),
            6 | 7 if self.weather.changes => self.change(),
            8 => {
                let leader = self.world.leader().unwrap_or(id);
                self.world.input(leader, Input::Transfer { to: node(other) });
                self.arrange(leader);
            }
            9 if self.world.is_up(id) && self.prng.one_in(3) => {
                if self.world.raft(id).membership().is_voter(node(id)) {
                    self.world.input(id, Input::Campaign);
                }
                self.arrange(id);
            }
            _ => {}
        }
    }

    fn crash_or_restart(&mut self, id: u64) {
        if self.world.is_up(id) {
            self.crashes += 1;
            let survive = usize::try_from(self.prng.below(3)).expect("small");
            self.world.crash(id, survive);
            if self.prng.one_in(2) {
                return;
            }
        }
        self.restart(id);
    }

    fn restart(&mut self, id: u64) {
        let seed = self.prng.next_u64();
        self.world.restart(id, seed);
        self.arrange(id);
        // Connections to it broke.
        for peer in 1..=5 {
            if peer != id && self.world.is_up(peer) {
                self.world.input(peer, Input::Unreachable { peer: node(id) });
                self.arrange(peer);
            }
        }
    }

    fn change(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        for id in 1..=5 {
            match self.prng.below(5) {
                0..=2 => voters.push(id),
                3 => learners.push(id),
                _ => {}
            }
        }
        let lag_max = if self.prng.one_in(2) { Some(self.prng.below(20)) } else { None };
        let change = Change { voters: nodes(&voters), learners: nodes(&learners), lag_max };
        self.world.input(leader, Input::Change(change));
        self.arrange(leader);
    }

    /// Nothing fails any more: within some elections everything that was begun is over, and everyone
    /// in the membership has the same log.
    fn heal(&mut self, seed: u64) {
        self.healed = true;
        self.cut.clear();
        self.slow.clear();
        for id in 1..=5 {
            if !self.world.is_up(id) {
                self.restart(id);
            }
        }
        let end = self.world.now.after(Duration::from_millis(8_000));
        self.run_until(end);
        let Some(leader) = self.world.leader() else {
            let rafts = self.world.hosts.values().filter_map(|host| host.raft.as_ref());
            let states = rafts.map(|raft| (raft.id(), raft.role(), raft.log(), raft.membership()));
            panic!("seed {seed}: no leader: {:?}", states.collect::<Vec<_>>())
        };
        let raft = self.world.raft(leader);
        assert!(!raft.membership().is_joint(), "seed {seed}: joint for ever");
        let committed = raft.log().committed();
        let before = self.world.truth.committed.len();
        self.world.input(leader, Input::Propose { count: 1 });
        self.arrange(leader);
        self.run_until(self.world.now.after(Duration::from_millis(400)));
        assert!(self.world.truth.committed.len() > before, "seed {seed}: nothing is committed");
        let members = self.world.raft(leader).membership().members();
        for id in members {
            let raft = self.world.raft(id.get());
            let behind = raft.log().committed();
            let peers = self.world.raft(leader).peers();
            assert!(
                behind >= committed,
                "seed {seed}: {id:?} lags behind, {behind} of {committed}: {peers:#?}"
            );
        }
        for host in self.world.hosts.values() {
            for (asked, (_, at)) in &host.reads {
                let limit = at.after(self.world.options.election_timeout);
                assert!(self.world.now <= limit, "seed {seed}: read {asked} has no answer");
            }
        }
    }
}

fn scale() -> u64 {
    let scale = std::env::var("QUORATE_TEST_SCALE").ok();
    scale.and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

fn first_seed() -> u64 {
    let seed = std::env::var("QUORATE_TEST_SEED").ok();
    seed.and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Names the seed of the schedule that failed.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with QUORATE_TEST_SEED={}", self.0);
        }
    }
}

#[test]
fn random_schedules_keep_every_promise_and_the_cluster_gets_on_after_healing() {
    let (first, count) = (first_seed(), 3_000 * scale());
    let (mut elections, mut reads, mut changes, mut snapshots, mut cuts) = (0, 0, 0, 0, 0);
    let (mut committed, mut crashes) = (0, 0);
    for seed in first..first + count {
        let named = Named(seed);
        let mut run = Run::new(seed);
        let end = run.world.now.after(Duration::from_millis(4_000));
        run.run_until(end);
        run.heal(seed);
        let truth = &run.world.truth;
        elections += truth.elections;
        reads += truth.reads_granted;
        changes += truth.changes;
        snapshots += truth.snapshots;
        cuts += truth.cuts;
        committed += truth.committed.len();
        crashes += run.crashes;
        drop(named);
    }
    println!(
        "{count} schedules: {elections} elections, {committed} entries, {reads} reads, {changes} \
         memberships, {snapshots} snapshots, {cuts} cuts, {crashes} crashes"
    );
    // A schedule in which nothing happens shows nothing.
    for (what, seen) in [("cuts", cuts), ("snapshots", snapshots), ("crashes", crashes)] {
        assert!(seen > count / 10, "only {seen} {what}");
    }
    assert!(changes > count && reads > count && elections > count, "too little happens");
}

#[test]
fn one_seed_is_one_schedule() {
    let trace = || {
        let mut run = Run::new(42);
        run.run_until(run.world.now.after(Duration::from_millis(2_000)));
        let names: Vec<u64> = run.world.truth.committed.iter().map(|(e, _)| e.name).collect();
        (names, run.next_event)
    };
    assert_eq!(trace(), trace());
}

#[test]
fn the_checker_finds_a_log_that_differs() {
    let mut world = World::new(Run::new(1).world.options, &[1, 2, 3], &[]);
    let state = HardState { term: base::Term::new(1), vote: None };
    world.preset(1, &[1, 1], state);
    world.hosts.get_mut(&2).expect("a member").disk.log =
        vec![world::Entry { term: 1, name: 77, membership: None }];
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.crash(2, 0);
        world.hosts.get_mut(&2).expect("a member").disk.hard_state = state;
        world.restart(2, 2);
        world.check_logs();
    }));
    assert!(found.is_err());
}
