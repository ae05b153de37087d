//! Every order in which few things can happen to three to five members: messages arrive in any order,
//! or never, or twice; time-outs fire at any moment; disks finish when they like and are heard of
//! later; members crash and come back with what was durable. Scenarios by name. Half of the wanted
//! number of distinct states are all those that lie nearest to the beginning; the other half is found
//! by random walks to the end of what may happen, or there are no more.
//!
//! After every step: one leader of a term and one vote in it, for life (I1); log matching and leaders
//! that only append (I2); every leader has what was committed before its term (I3); what is committed
//! is on the disks of a majority (I5); a message leaves when what it promises is on the disk (I7); no
//! two memberships can decide without each other, and one change is uncommitted at most (I8).
//!
//! A message that is lost is one that is never delivered, so that losing needs no step of its own.
//! `QUORATE_TEST_SCALE=25` visits a million states of each scenario instead of forty thousand.

mod world;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use base::{Duration, LogIndex, Prng, Term};
use raft::{Change, HardState, Input, Message, Options, Position, RoleName};
use world::{World, node, nodes};

const OPTIONS: Options = Options {
    election_timeout: Duration::from_millis(200),
    heartbeat_interval: Duration::from_millis(40),
    pre_vote: true,
    append_entries_max: 10,
    append_bytes_max: 1_000,
    in_flight_max: 2,
    in_flight_bytes_max: 2_000,
};

/// How often each thing may still happen.
#[derive(Clone, Copy, Hash, Default)]
struct Budget {
    /// Elections that begin with a pre-vote.
    timeouts: u32,
    /// Elections without one.
    campaigns: u32,
    proposals: u32,
    reads: u32,
    transfers: u32,
    crashes: u32,
    /// Messages that arrive and stay on their way.
    repeats: u32,
    /// Whether heartbeats that confirm no read are sent: they tell little that appends do not.
    beats: bool,
    /// Heartbeats of a leader. Between them a leader's clock stands still: it is paused.
    ticks: u32,
    /// Connections that break.
    breaks: u32,
    compactions: u32,
    /// Whether disks take steps of their own, and their reports too; else they are done at once.
    slow_disks: bool,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// The message at this place arrives.
    Deliver(usize),
    /// So it does, and will once more.
    Repeat(usize),
    Write(u64),
    Report(u64),
    TimeOut(u64),
    Campaign(u64),
    Propose(u64),
    Read(u64),
    Transfer(u64, u64),
    Tick(u64),
    Break(u64, u64),
    Compact(u64),
    Crash(u64),
}

struct Search {
    /// States seen, and with how many steps left.
    seen: HashMap<u64, u32>,
    wanted: usize,
    /// Whether there was something beyond the last step.
    cut: bool,
    depth: u32,
    steps: u64,
    /// The most of each in any one state.
    committed: usize,
    elections: u64,
    reads: u64,
    cuts: u64,
    snapshots: u64,
    changes: u64,
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

fn ids(world: &World) -> Vec<u64> {
    world.hosts.keys().copied().collect()
}

/// All that a disk has to do.
fn write_all(world: &mut World, id: u64) {
    while world.write(id) {
        world.report(id);
    }
}

fn actions(world: &World, budget: Budget) -> Vec<Action> {
    let mut actions = Vec::new();
    for i in 0..world.sent.len() {
        if world.sent.iter().take(i).any(|packet| *packet == world.sent[i]) {
            continue;
        }
        actions.push(Action::Deliver(i));
        if budget.repeats > 0 {
            actions.push(Action::Repeat(i));
        }
    }
    for (&id, host) in &world.hosts {
        let raft = world.raft(id);
        let leads = raft.role() == RoleName::Leader;
        let compactable = raft.log().committed() > raft.log().base().index;
        let slow = budget.slow_disks;
        let own = [
            (slow && !host.writes.is_empty(), Action::Write(id)),
            (slow && !host.reports.is_empty(), Action::Report(id)),
            (budget.timeouts > 0 && !leads, Action::TimeOut(id)),
            (budget.campaigns > 0 && !leads, Action::Campaign(id)),
            (budget.proposals > 0 && leads, Action::Propose(id)),
            (budget.reads > 0, Action::Read(id)),
            (budget.ticks > 0 && leads, Action::Tick(id)),
            (budget.compactions > 0 && compactable, Action::Compact(id)),
            (budget.crashes > 0, Action::Crash(id)),
        ];
        actions.extend(own.into_iter().filter(|(can, _)| *can).map(|(_, action)| action));
        for &peer in world.hosts.keys().filter(|&&peer| leads && peer != id) {
            if budget.transfers > 0 {
                actions.push(Action::Transfer(id, peer));
            }
            if budget.breaks > 0 {
                actions.push(Action::Break(id, peer));
            }
        }
    }
    actions
}

fn perform(world: &mut World, budget: &mut Budget, action: Action) {
    match action {
        Action::Deliver(i) => {
            let packet = world.sent.remove(i).expect("in flight");
            world.receive(packet);
        }
        Action::Repeat(i) => {
            budget.repeats -= 1;
            let packet = world.sent[i].clone();
            world.receive(packet);
        }
        Action::Write(id) => assert!(world.write(id)),
        Action::Report(id) => assert!(world.report(id)),
        Action::TimeOut(id) => {
            budget.timeouts -= 1;
            // So much time has passed that every time-out is over and no lease holds.
            world.now = world.now.after(OPTIONS.election_timeout);
            world.now = world.now.after(OPTIONS.election_timeout);
            world.input(id, Input::Tick);
        }
        Action::Campaign(id) => {
            budget.campaigns -= 1;
            world.now = world.now.after(OPTIONS.election_timeout);
            if world.raft(id).membership().is_voter(node(id)) {
                world.input(id, Input::Campaign);
            }
        }
        Action::Propose(id) => {
            budget.proposals -= 1;
            world.input(id, Input::Propose { count: 1 });
        }
        Action::Read(id) => {
            budget.reads -= 1;
            world.read(id);
        }
        Action::Transfer(id, to) => {
            budget.transfers -= 1;
            world.input(id, Input::Transfer { to: node(to) });
        }
        Action::Tick(id) => {
            budget.ticks -= 1;
            world.now = world.now.after(OPTIONS.heartbeat_interval);
            world.input(id, Input::Tick);
        }
        Action::Break(id, peer) => {
            budget.breaks -= 1;
            world.input(id, Input::Unreachable { peer: node(peer) });
        }
        Action::Compact(id) => {
            budget.compactions -= 1;
            let committed = world.raft(id).log().committed().get();
            world.compact(id, usize::try_from(committed).expect("small"));
        }
        Action::Crash(id) => {
            budget.crashes -= 1;
            world.crash(id, 0);
            world.restart(id, id);
        }
    }
}

/// What follows at once from a step.
fn settle(world: &mut World, budget: Budget) {
    for id in ids(world) {
        if !budget.slow_disks {
            write_all(world, id);
        }
        world.input(id, Input::Flush);
        if !budget.slow_disks {
            write_all(world, id);
        }
    }
    if !budget.beats {
        world.sent.retain(|packet| {
            !matches!(
                packet.message,
                Message::Heartbeat { round: 0, .. } | Message::HeartbeatReply { round: 0, .. }
            )
        });
    }
    world.check_quorums();
}

impl Search {
    fn run(name: &str, mut starts: Vec<World>, budget: Budget) -> Self {
        let scale = std::env::var("QUORATE_TEST_SCALE").ok();
        let scale = scale.and_then(|scale| scale.parse().ok()).unwrap_or(1_usize);
        let mut search = Self {
            seen: HashMap::new(),
            wanted: 0,
            cut: true,
            depth: 0,
            steps: 0,
            committed: 0,
            elections: 0,
            reads: 0,
            cuts: 0,
            snapshots: 0,
            changes: 0,
        };
        for world in &mut starts {
            world.canonical = true;
            world.late_timers = true;
            settle(world, budget);
        }
        let all = 40_000 * scale;
        search.wanted = all / 2;
        // Deeper and deeper, so that what takes few steps is all seen before what takes many.
        while search.cut && search.seen.len() < search.wanted {
            search.cut = false;
            search.seen.clear();
            search.depth += 1;
            let depth = search.depth;
            starts.iter().for_each(|world| search.visit(world, budget, depth));
        }
        search.wanted = all;
        let (mut prng, mut vain) = (Prng::new(1), 0);
        while search.cut && search.seen.len() < search.wanted && vain < 1_000 {
            let before = search.seen.len();
            starts.iter().for_each(|world| search.walk(world.clone(), budget, &mut prng));
            vain = if search.seen.len() > before { 0 } else { vain + 1 };
        }
        let Self { depth, steps, committed, elections, reads, cuts, .. } = &search;
        let (states, snapshots, changes) = (search.seen.len(), search.snapshots, search.changes);
        let near = if search.cut { format!("all within {}", depth - 1) } else { "all".into() };
        println!(
            "{name}: {states} distinct states, {near}; {steps} steps; at most {committed} \
             committed, {elections} elections, {reads} reads, {cuts} cuts, {snapshots} snapshots, \
             {changes} memberships"
        );
        search
    }

    fn step(&mut self, world: &World, budget: Budget, action: Action) -> (World, Budget) {
        let (mut world, mut budget) = (world.clone(), budget);
        perform(&mut world, &mut budget, action);
        settle(&mut world, budget);
        self.steps += 1;
        let truth = &world.truth;
        self.committed = self.committed.max(truth.committed.len());
        self.elections = self.elections.max(truth.elections);
        self.reads = self.reads.max(truth.reads_granted);
        self.cuts = self.cuts.max(truth.cuts);
        self.snapshots = self.snapshots.max(truth.snapshots);
        self.changes = self.changes.max(truth.changes);
        (world, budget)
    }

    /// Everything within `depth` steps.
    fn visit(&mut self, world: &World, budget: Budget, depth: u32) {
        if self.seen.len() >= self.wanted {
            self.cut = true;
            return;
        }
        match self.seen.entry(hash(world, budget)) {
            Entry::Occupied(left) if *left.get() >= depth => return,
            Entry::Occupied(mut left) => *left.get_mut() = depth,
            Entry::Vacant(left) => _ = left.insert(depth),
        }
        if depth == 0 {
            self.cut = true;
            return;
        }
        for action in actions(world, budget) {
            let (next, budget) = self.step(world, budget, action);
            self.visit(&next, budget, depth - 1);
        }
    }

    /// One way to the end.
    fn walk(&mut self, mut world: World, mut budget: Budget, prng: &mut Prng) {
        for _ in 0..100 {
            let actions = actions(&world, budget);
            if actions.is_empty() || self.seen.len() >= self.wanted {
                return;
            }
            let i = usize::try_from(prng.below(actions.len() as u64)).expect("small");
            (world, budget) = self.step(&world, budget, actions[i]);
            self.seen.entry(hash(&world, budget)).or_insert(0);
        }
    }
}

fn quiet(world: &mut World, reachable: &BTreeSet<u64>) {
    for _ in 0..20 {
        for id in ids(world) {
            write_all(world, id);
            world.input(id, Input::Flush);
            write_all(world, id);
        }
        let packets: Vec<_> = world.sent.drain(..).collect();
        for packet in packets {
            if reachable.contains(&packet.to) && reachable.contains(&packet.from) {
                world.receive(packet);
            } else {
                world.sent.push_back(packet);
            }
        }
    }
}

/// 1 leads, and all have and know its first entry.
fn led(voters: &[u64], others: &[u64]) -> World {
    let mut world = World::new(OPTIONS, voters, others);
    world.canonical = true;
    world.input(1, Input::Campaign);
    let all = ids(&world).into_iter().collect();
    quiet(&mut world, &all);
    assert_eq!(world.truth.committed.len(), 1);
    world
}

#[test]
fn elections() {
    let world = World::new(OPTIONS, &[1, 2, 3], &[]);
    let budget = Budget { timeouts: 3, proposals: 1, crashes: 1, repeats: 1, ..Budget::default() };
    let search = Search::run("election", vec![world], budget);
    assert!(search.committed >= 1 && search.elections >= 1);
}

#[test]
fn elections_with_slow_disks_and_a_crash() {
    let world = World::new(OPTIONS, &[1, 2, 3], &[]);
    let budget =
        Budget { campaigns: 3, proposals: 1, crashes: 1, slow_disks: true, ..Budget::default() };
    let search = Search::run("election, slow disks", vec![world], budget);
    assert!(search.elections >= 1);
}

fn deliver(world: &mut World, to: u64, meant: impl Fn(&Message) -> bool) {
    let packets: Vec<_> = world.sent.drain(..).collect();
    for packet in packets {
        if packet.to == to && meant(&packet.message) {
            world.receive(packet);
        } else {
            world.sent.push_back(packet);
        }
    }
}

/// With the votes of 4 and 5, which hear nothing else of it.
fn elect(world: &mut World, id: u64) {
    world.now = world.now.after(OPTIONS.election_timeout);
    world.input(id, Input::Campaign);
    write_all(world, id);
    for voter in [4, 5] {
        deliver(world, voter, |message| matches!(message, Message::Vote { .. }));
        write_all(world, voter);
    }
    deliver(world, id, |message| matches!(message, Message::VoteReply { .. }));
    assert_eq!(world.raft(id).role(), RoleName::Leader);
}

/// 2 and 3 are on their way to the disk of member 3 when they are replaced; then by the same entries
/// again. A completion of the first write may be heard of at any time.
#[test]
fn completions_of_writes_that_were_superseded() {
    let mut world = World::new(OPTIONS, &[1, 2, 3, 4, 5], &[]);
    world.canonical = true;
    let state = |term| HardState { term: Term::new(term), vote: None };
    world.preset(1, &[1, 1], state(2));
    // Its term is such that it is elected in the next but one.
    world.preset(2, &[1], state(3));
    (3..=5).for_each(|id| world.preset(id, &[1], state(2)));
    let append_to_three = |world: &mut World| {
        world.sent.clear();
        world.input(1, Input::Unreachable { peer: node(3) });
        // As if 3 had said before where its log ends.
        let leader = world.raft(1);
        let next = leader.peers().iter().find(|peer| peer.id() == node(3)).expect("a peer").next();
        let previous = next.previous().expect("an entry is not at zero");
        let hint = Position { index: LogIndex::new(1), term: Term::new(1) };
        let message = Message::Rejected { term: leader.term(), previous, hint };
        world.input(1, Input::Receive { from: node(3), message });
        world.input(1, Input::Flush);
    };
    let is_append = |message: &Message| matches!(message, Message::Append { .. });
    elect(&mut world, 1);
    append_to_three(&mut world);
    deliver(&mut world, 3, is_append);
    // Term 3, and the entries; raft is not told.
    assert!(world.write(3) && world.write(3));
    elect(&mut world, 2);
    deliver(&mut world, 3, is_append);
    deliver(&mut world, 1, |message| matches!(message, Message::Heartbeat { .. }));
    world.sent.clear();
    let second = world.clone();
    elect(&mut world, 1);
    append_to_three(&mut world);
    let budget =
        Budget { campaigns: 1, crashes: 1, repeats: 1, slow_disks: true, ..Budget::default() };
    let search = Search::run("asynchronous append ABA", vec![world, second], budget);
    assert!(search.elections >= 3 && search.cuts >= 2);
}

/// Paper, figure 8, from (b) on. Entries travel one by one, else the entry of an earlier term would
/// always come with one of the leader's own.
#[test]
fn logs_that_differ() {
    let options = Options { append_entries_max: 1, ..OPTIONS };
    let mut world = World::new(options, &[1, 2, 3], &[]);
    let state = |vote| HardState { term: Term::new(3), vote: Some(node(vote)) };
    world.preset(1, &[1, 2], state(3));
    world.preset(2, &[1], state(3));
    // Its next term is the one after that of 1.
    world.preset(3, &[1, 3], HardState { term: Term::new(4), vote: None });
    let budget = Budget { campaigns: 2, crashes: 1, ..Budget::default() };
    let search = Search::run("figure 8", vec![world], budget);
    assert!(search.committed >= 3 && search.elections >= 1);
}

/// The states in which a change begins, in which its joint membership is committed, and in which its
/// leader has just left, with nothing delivered that is not needed for it.
fn stages(mut world: World, change: Change) -> Vec<World> {
    world.input(1, Input::Change(change));
    let mut stages = vec![world.clone()];
    let mut last = (world.truth.changes, world.raft(1).role());
    for _ in 0..1_000 {
        for id in ids(&world) {
            write_all(&mut world, id);
            world.input(id, Input::Flush);
            write_all(&mut world, id);
        }
        let Some(packet) = world.sent.pop_front() else { break };
        world.receive(packet);
        let now = (world.truth.changes, world.raft(1).role());
        if now != last {
            stages.push(world.clone());
            last = now;
        }
        if now.1 != RoleName::Leader {
            return stages;
        }
    }
    unreachable!("the leader is removed")
}

/// 1 leads {1 2 3} and is replaced by 4.
#[test]
fn a_joint_membership_is_entered_and_left_and_its_leader_is_removed() {
    let change = Change { voters: nodes(&[2, 3, 4]), learners: Vec::new(), lag_max: None };
    let starts = stages(led(&[1, 2, 3], &[4]), change);
    assert_eq!(starts.len(), 3);
    let budget = Budget { campaigns: 2, crashes: 1, ..Budget::default() };
    let search = Search::run("joint enter and leave", starts, budget);
    assert!(search.changes >= 2 && search.elections >= 2 && search.committed >= 4);
}

/// Two voters become two others: the memberships have no member in common but for the joint one.
#[test]
fn a_joint_membership_of_voters_that_share_none() {
    let change = Change { voters: nodes(&[3, 4]), learners: nodes(&[2]), lag_max: None };
    let starts = stages(led(&[1, 2], &[3, 4]), change);
    let budget = Budget { timeouts: 2, crashes: 1, slow_disks: true, ..Budget::default() };
    let search = Search::run("joint, all replaced", starts, budget);
    assert!(search.changes >= 2 && search.elections >= 2);
}

/// 3 lacks entries that the leader no longer keeps, and which are on their way to it nevertheless.
#[test]
fn a_snapshot_races_appends() {
    let mut world = led(&[1, 2, 3], &[]);
    let reachable = [1, 2].into();
    for _ in 0..2 {
        world.input(1, Input::Propose { count: 1 });
        quiet(&mut world, &reachable);
    }
    assert_eq!(world.truth.committed.len(), 3);
    world.compact(1, 2);
    world.input(1, Input::Unreachable { peer: node(3) });
    let budget = Budget {
        campaigns: 1,
        proposals: 1,
        crashes: 1,
        breaks: 1,
        compactions: 1,
        slow_disks: true,
        beats: true,
        ..Budget::default()
    };
    let search = Search::run("snapshot against append", vec![world], budget);
    assert!(search.snapshots >= 1 && search.committed >= 3);
}

/// The clock of the leader stands still but for one tick; another may be elected and commit.
#[test]
fn reads_at_a_leader_that_is_paused() {
    let world = led(&[1, 2, 3], &[]);
    let budget =
        Budget { campaigns: 1, proposals: 1, reads: 2, ticks: 1, repeats: 1, ..Budget::default() };
    let search = Search::run("read index against a paused leader", vec![world], budget);
    assert!(search.reads >= 1 && search.elections >= 2);
}

#[test]
fn leadership_is_handed_over() {
    let world = led(&[1, 2, 3], &[]);
    let budget = Budget {
        transfers: 2,
        campaigns: 1,
        proposals: 1,
        ticks: 1,
        crashes: 1,
        beats: true,
        ..Budget::default()
    };
    let search = Search::run("transfer", vec![world], budget);
    assert!(search.elections >= 2 && search.committed >= 2);
}
