//! The sentences of the Raft paper (Ongaro, Ousterhout: "In Search of an Understandable Consensus
//! Algorithm", extended version) and of the thesis (Ongaro: "Consensus: Bridging Theory and
//! Practice"), one test each. Disks are instant and the network loses nothing but what a test cuts.

mod world;

use std::collections::BTreeSet;

use base::{Duration, Term};
use raft::{
    Change, ChangeRefusal, HardState, Input, Membership, Message, Options, Output, Pace, Position,
    RoleName, TermRun,
};
use world::{Packet, World, at, node, nodes};

const OPTIONS: Options = Options {
    election_timeout: Duration::from_millis(200),
    heartbeat_interval: Duration::from_millis(40),
    pre_vote: true,
    append_entries_max: 100,
    append_bytes_max: 10_000,
    in_flight_max: 4,
    in_flight_bytes_max: 40_000,
};

struct Bench {
    world: World,
    /// Links that lose everything, by (from, to).
    cut: BTreeSet<(u64, u64)>,
    /// Disks that do nothing.
    stalled: BTreeSet<u64>,
    /// Everything that arrived.
    seen: Vec<Packet>,
}

impl Bench {
    fn new(voters: &[u64], others: &[u64]) -> Self {
        Self::with(World::new(OPTIONS, voters, others))
    }

    fn of(options: Options, voters: &[u64]) -> Self {
        Self::with(World::new(options, voters, &[]))
    }

    fn with(world: World) -> Self {
        Self { world, cut: BTreeSet::new(), stalled: BTreeSet::new(), seen: Vec::new() }
    }

    /// A cluster led by 1.
    fn led(voters: &[u64], others: &[u64]) -> Self {
        let mut bench = Self::new(voters, others);
        bench.input(1, Input::Campaign);
        assert_eq!(bench.world.leader(), Some(1));
        bench
    }

    fn isolate(&mut self, id: u64) {
        for &other in self.world.hosts.keys() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    fn input(&mut self, id: u64, input: Input) {
        self.world.input(id, input);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let ids: Vec<u64> = self.world.hosts.keys().copied().collect();
            let mut busy = false;
            for id in ids {
                if !self.world.is_up(id) {
                    continue;
                }
                while !self.stalled.contains(&id) && self.world.write(id) {
                    self.world.report(id);
                    busy = true;
                }
                self.world.input(id, Input::Flush);
            }
            while let Some(packet) = self.world.sent.pop_front() {
                busy = true;
                if !self.cut.contains(&(packet.from, packet.to)) {
                    self.seen.push(packet.clone());
                    self.world.receive(packet);
                }
            }
            if !busy {
                return;
            }
        }
    }

    /// Time passes, for `quiet` without their timers.
    fn elapse_without(&mut self, millis: u64, quiet: &[u64]) {
        for _ in 0..millis {
            self.world.now = self.world.now.after(Duration::from_millis(1));
            let ids: Vec<u64> = self.world.hosts.keys().copied().collect();
            for id in ids {
                if !quiet.contains(&id)
                    && self.world.is_up(id)
                    && self.world.raft(id).deadline().is_some_and(|at| at <= self.world.now)
                {
                    self.world.input(id, Input::Tick);
                }
            }
            self.settle();
        }
    }

    fn elapse(&mut self, millis: u64) {
        self.elapse_without(millis, &[]);
    }

    fn propose(&mut self, id: u64, count: u64) {
        self.input(id, Input::Propose { count });
    }

    fn committed(&self, id: u64) -> usize {
        usize::try_from(self.world.raft(id).log().committed().get()).expect("small")
    }

    fn role(&self, id: u64) -> RoleName {
        self.world.raft(id).role()
    }

    fn term(&self, id: u64) -> u64 {
        self.world.raft(id).term().get()
    }

    fn terms(&self, id: u64) -> Vec<u64> {
        self.world.hosts[&id].log.iter().map(|entry| entry.term).collect()
    }

    fn refused(&self, id: u64) -> Option<&Output> {
        self.world.hosts[&id].refusals.last()
    }

    fn change(&mut self, id: u64, voters: &[u64], learners: &[u64]) {
        let (voters, learners) = (nodes(voters), nodes(learners));
        self.input(id, Input::Change(Change { voters, learners, lag_max: None }));
    }
}

fn state(term: u64, vote: u64) -> HardState {
    HardState { term: Term::new(term), vote: Some(node(vote)) }
}

/// Paper 5.2.
#[test]
fn a_follower_that_hears_of_no_leader_begins_an_election_and_wins_it() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    bench.elapse(199);
    assert_eq!(bench.world.leader(), None, "no election before the time-out");
    bench.elapse(300);
    let leader = bench.world.leader().expect("one was elected");
    for id in 1..=3 {
        assert_eq!(bench.world.raft(id).leader(), Some(node(leader)));
    }
}

/// Paper 5.2: the time-out is random between once and twice the base.
#[test]
fn election_timeouts_are_spread_over_once_to_twice_the_base() {
    let mut deadlines = BTreeSet::new();
    for seed in 0..50 {
        let mut world = World::new(OPTIONS, &[1, 2, 3], &[]);
        world.crash(1, 0);
        world.restart(1, seed);
        let waits = world.raft(1).deadline().expect("a voter").since(world.now);
        assert!((200..400).contains(&waits.as_millis()), "{waits:?}");
        deadlines.insert(waits);
    }
    assert!(deadlines.len() > 40, "{deadlines:?}");
}

/// Paper 5.2.
#[test]
fn a_voter_votes_once_in_a_term() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.input(1, Input::Campaign);
    let last = Position::default();
    let message = Message::Vote { term: Term::new(1), last, transfer: true };
    bench.world.receive(Packet { from: 3, to: 2, message, entries: Vec::new() });
    let sent = &bench.world.sent.back().expect("an answer").message;
    assert_eq!(*sent, Message::VoteReply { term: Term::new(1), granted: false });
}

/// Thesis 3.8: term and vote are durable before they are told.
#[test]
fn nothing_is_said_before_term_and_vote_are_durable() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    bench.stalled.insert(2);
    bench.isolate(3);
    bench.input(1, Input::Campaign);
    assert_eq!(bench.role(1), RoleName::Candidate, "the vote of 2 waits for its disk");
    assert!(bench.seen.iter().all(|packet| packet.from != 2));
    bench.stalled.clear();
    bench.settle();
    assert_eq!(bench.role(1), RoleName::Leader);
}

/// Paper 5.4.1.
#[test]
fn a_candidate_with_a_shorter_or_older_log_gets_no_vote() {
    for (ours, theirs) in [(vec![1, 1], vec![1]), (vec![2], vec![1, 1, 1])] {
        let mut bench = Bench::new(&[1, 2, 3], &[]);
        bench.world.preset(2, &ours, state(2, 2));
        bench.world.preset(3, &ours, state(2, 2));
        bench.world.preset(1, &theirs, state(2, 2));
        bench.input(1, Input::Campaign);
        assert_ne!(bench.role(1), RoleName::Leader, "{ours:?} {theirs:?}");
        bench.elapse(1_000);
        assert_ne!(bench.world.leader(), Some(1));
        assert!(bench.world.leader().is_some());
    }
}

/// Paper 5.1.
#[test]
fn a_leader_that_learns_of_a_later_term_follows() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    let message = Message::Newer { term: Term::new(9) };
    bench.world.receive(Packet { from: 2, to: 1, message, entries: Vec::new() });
    assert_eq!((bench.role(1), bench.term(1)), (RoleName::Follower, 9));
}

/// Thesis 9.6.
#[test]
fn a_member_that_was_cut_off_does_not_disturb_the_leader_when_it_returns() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.elapse(3_000);
    assert_eq!(bench.role(3), RoleName::PreCandidate);
    assert_eq!(bench.term(3), 1, "asking changes no term");
    bench.heal();
    bench.elapse(500);
    assert_eq!((bench.world.leader(), bench.term(1)), (Some(1), 1));
    assert_eq!(bench.world.raft(3).leader(), Some(node(1)));
}

/// Paper 5.2 as it is without thesis 9.6: it asks for votes at once, and its terms depose the leader.
#[test]
fn without_a_pre_vote_a_member_that_was_cut_off_deposes_the_leader() {
    let mut bench = Bench::of(Options { pre_vote: false, ..OPTIONS }, &[1, 2, 3]);
    bench.input(1, Input::Campaign);
    bench.isolate(3);
    bench.elapse(3_000);
    assert_eq!(bench.role(3), RoleName::Candidate);
    assert!(bench.term(3) > 1, "each of its elections is a term");
    assert_eq!((bench.world.leader(), bench.term(1)), (Some(1), 1));
    bench.heal();
    bench.elapse(1_000);
    assert!(bench.term(1) > 1);
    assert!(bench.world.leader().is_some(), "one of the others or itself");
}

/// A process that ends closes its links; waiting for the time-out then would be time without a leader.
#[test]
fn a_follower_whose_leader_has_gone_is_elected_within_a_time_out() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(1);
    for id in [2, 3] {
        bench.input(id, Input::Gone { peer: node(1) });
        assert_eq!(bench.world.raft(id).leader(), None);
    }
    bench.elapse(199);
    assert!(bench.role(2) == RoleName::Leader || bench.role(3) == RoleName::Leader);
}

/// If only a link broke, the others still hear from the leader, and refuse.
#[test]
fn a_follower_that_lost_its_link_to_the_leader_deposes_nobody() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.input(3, Input::Gone { peer: node(2) });
    assert_eq!(bench.world.raft(3).leader(), Some(node(1)), "another member is not the leader");
    bench.input(3, Input::Gone { peer: node(1) });
    bench.elapse(1_000);
    assert_eq!((bench.world.leader(), bench.term(1)), (Some(1), 1));
    assert_eq!(bench.world.raft(3).leader(), Some(node(1)));
}

/// Thesis 4.2.3: one that hears from a leader ignores requests for votes, real ones too.
#[test]
fn a_vote_request_of_a_later_term_does_not_depose_a_leader_that_is_heard() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.input(3, Input::Campaign);
    bench.heal();
    let last = bench.world.raft(3).log().last_position();
    for to in [1, 2] {
        let message = Message::Vote { term: Term::new(2), last, transfer: false };
        bench.world.receive(Packet { from: 3, to, message, entries: Vec::new() });
    }
    assert_eq!((bench.role(1), bench.term(1), bench.term(2)), (RoleName::Leader, 1, 1));
}

/// Thesis 9.6: pre-vote and leases together would leave a member of a later term out for ever.
#[test]
fn a_leader_of_a_past_term_learns_of_the_later_one_from_its_heartbeats() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.input(3, Input::Campaign);
    assert_eq!(bench.term(3), 2);
    bench.heal();
    bench.elapse(1_500);
    assert!(bench.world.leader().is_some());
    assert!(bench.term(1) >= 2 && bench.term(1) == bench.term(3), "all in one term");
}

/// Thesis 6.2.
#[test]
fn a_leader_that_hears_of_no_quorum_steps_down() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(1);
    bench.elapse(450);
    assert_ne!(bench.role(1), RoleName::Leader);
    assert!(bench.world.leader().is_some_and(|leader| leader != 1));
}

/// Paper 5.3, figure 7: the leader of term 8 makes each of the six logs like its own.
#[test]
fn the_logs_of_figure_7_become_the_leaders() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [(&[u64], u64); 6] = [
        (&[1, 1, 1, 4, 4, 5, 5, 6, 6], 6),
        (&[1, 1, 1, 4], 4),
        (&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6], 6),
        (&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7], 7),
        (&[1, 1, 1, 4, 4, 4, 4], 4),
        (&[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 3),
    ];
    for (log, term) in followers {
        // The third voter has an empty log: its vote makes the leader whatever the other holds.
        let mut bench = Bench::new(&[1, 2, 3], &[]);
        bench.world.preset(1, &leader, state(7, 1));
        bench.world.preset(2, log, state(term, 2));
        bench.input(1, Input::Campaign);
        bench.elapse(100);
        assert_eq!(bench.world.leader(), Some(1));
        let whole = [&leader[..], &[8]].concat();
        assert_eq!(bench.terms(2), whole, "from {log:?}");
        assert_eq!(bench.committed(2), whole.len());
        // Terms are stepped over whole, not entry by entry.
        let refusals = |packet: &&Packet| {
            packet.from == 2 && matches!(packet.message, Message::Rejected { .. })
        };
        assert!(bench.seen.iter().filter(refusals).count() <= 3, "from {log:?}");
    }
}

/// Paper 5.4.2, figure 8: in (c) the entry of term 2 is on a majority and must not be committed for
/// that, or (d) would take back what was committed.
#[test]
fn an_entry_of_an_earlier_term_on_a_majority_is_not_committed_by_counting() {
    let mut bench = Bench::new(&[1, 2, 3, 4, 5], &[]);
    bench.world.preset(1, &[1, 2], state(3, 1));
    bench.world.preset(2, &[1, 2], state(3, 5));
    bench.world.preset(3, &[1], state(3, 5));
    bench.world.preset(4, &[1], state(3, 5));
    bench.world.preset(5, &[1, 3], state(3, 5));
    bench.isolate(5);
    bench.isolate(4);
    bench.input(1, Input::Campaign);
    assert_eq!(bench.role(1), RoleName::Leader);
    assert_eq!(bench.committed(1), 3, "with the entry of term 4 all before it is committed");

    let mut bench = Bench::new(&[1, 2, 3, 4, 5], &[]);
    bench.world.preset(1, &[1, 2], state(3, 1));
    for id in 2..=3 {
        bench.world.preset(id, &[1, 2], state(3, 5));
    }
    for id in 4..=5 {
        bench.world.preset(id, &[1], state(3, 5));
        bench.isolate(id);
    }
    bench.world.input(1, Input::Campaign);
    // Votes only.
    while bench.role(1) != RoleName::Leader {
        for id in 1..=3 {
            while bench.world.write(id) {
                bench.world.report(id);
            }
        }
        let packets: Vec<Packet> = bench.world.sent.drain(..).collect();
        packets.into_iter().for_each(|packet| bench.world.receive(packet));
    }
    // The followers hold 2 of term 2, and say so; 3 of term 4 reaches nobody.
    bench.world.sent.clear();
    while bench.world.write(1) {
        bench.world.report(1);
    }
    for from in 2..=3 {
        let term = Term::new(4);
        let message = Message::Accepted { term, matched: at(2), verified: at(2) };
        bench.world.receive(Packet { from, to: 1, message, entries: Vec::new() });
    }
    assert_eq!(bench.committed(1), 0, "a majority holds 2, and nothing of term 4");
}

/// Paper 5.3: what a late append says is known already takes nothing back.
#[test]
fn a_late_append_takes_back_no_entries_that_a_later_one_brought() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.propose(1, 3);
    bench.propose(1, 3);
    let appends =
        |packet: &&Packet| packet.to == 2 && matches!(packet.message, Message::Append { .. });
    let old: Vec<Packet> = bench.seen.iter().filter(appends).cloned().collect();
    let before = bench.terms(2);
    for packet in old {
        bench.world.receive(packet);
    }
    assert_eq!(bench.terms(2), before);
}

/// Thesis 3.8, 10.2.1: the leader writes in parallel with its followers, and all count alike.
#[test]
fn an_entry_is_committed_by_the_disks_of_a_majority_the_leaders_or_not() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    let before = bench.committed(1);
    bench.stalled.insert(1);
    bench.propose(1, 1);
    assert_eq!(bench.committed(1), before + 1, "durable on 2 and 3");
    bench.stalled.extend([2, 3]);
    bench.propose(1, 1);
    assert_eq!(bench.committed(1), before + 1, "durable nowhere");
    bench.stalled.clear();
    bench.settle();
    assert_eq!(bench.committed(1), before + 2);
}

/// Thesis 10.2.1, flow control: what is on its way to a silent follower is bounded by count and bytes.
#[test]
fn appends_follow_each_other_within_the_window() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.propose(1, 1);
    bench.cut.insert((3, 1));
    bench.seen.clear();
    for _ in 0..20 {
        bench.propose(1, 1);
    }
    let entries = |packet: &&Packet| packet.to == 3 && !packet.entries.is_empty();
    assert_eq!(bench.seen.iter().filter(entries).count(), 4, "the window");
    bench.heal();
    bench.elapse(100);
    assert_eq!(bench.committed(3), bench.committed(1));
}

/// Thesis 6.4.
#[test]
fn a_read_waits_until_a_quorum_has_answered_a_round_that_began_after_it() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.propose(1, 2);
    // The replies to the first round are late, and answer nothing that is asked later.
    bench.cut.extend([(2, 1), (3, 1)]);
    let first = bench.world.read(1);
    bench.settle();
    let last_round = bench.seen.iter().rev().find_map(|packet| match packet.message {
        Message::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    let round = last_round.expect("a round");
    let second = bench.world.read(1);
    bench.settle();
    let message = Message::HeartbeatReply { term: Term::new(1), round, matched: at(3) };
    bench.world.receive(Packet { from: 2, to: 1, message, entries: Vec::new() });
    let granted: Vec<u64> = bench.world.hosts[&1].granted.iter().map(|grant| grant.0).collect();
    assert_eq!(granted, [first], "{second} was asked after the round began");
    bench.heal();
    bench.elapse(40);
    assert_eq!(bench.world.hosts[&1].granted.len(), 2);
}

/// Thesis 6.4: a leader that was deposed and does not know it.
#[test]
fn a_deposed_leader_grants_no_read() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(1);
    // The clock of 1 stands still: it does not notice.
    bench.elapse_without(600, &[1]);
    let next = bench.world.leader().expect("another");
    bench.propose(next, 5);
    assert_ne!(next, 1);
    assert_eq!(bench.role(1), RoleName::Leader, "it believes");
    let ticket = bench.world.read(1);
    bench.settle();
    assert!(bench.world.hosts[&1].granted.is_empty());
    bench.heal();
    bench.elapse(100);
    assert_eq!(bench.world.hosts[&1].granted, []);
    assert_eq!(bench.world.hosts[&1].rejected, [ticket]);
}

/// Thesis 6.4, step 1.
#[test]
fn no_read_is_granted_before_an_entry_of_the_own_term_is_committed() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    // Votes come through; then the disks of the followers stop.
    bench.world.preset(1, &[1], state(1, 1));
    bench.cut.extend([(2, 1), (3, 1)]);
    bench.input(1, Input::Campaign);
    bench.heal();
    let reply = Message::VoteReply { term: Term::new(2), granted: true };
    bench.world.receive(Packet { from: 2, to: 1, message: reply, entries: Vec::new() });
    bench.stalled.extend([2, 3]);
    bench.settle();
    assert_eq!(bench.role(1), RoleName::Leader);
    assert_eq!(bench.world.raft(1).read_index(), None);
    let ticket = bench.world.read(1);
    bench.elapse(50);
    assert!(bench.world.hosts[&1].granted.is_empty(), "though a quorum answers heartbeats");
    bench.stalled.clear();
    bench.elapse(50);
    assert_eq!(bench.world.hosts[&1].granted, [(ticket, 2)]);
}

/// Thesis 6.4: reads on followers.
#[test]
fn a_follower_asks_the_leader_what_a_read_has_to_wait_for() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.propose(1, 4);
    let ticket = bench.world.read(3);
    bench.settle();
    assert_eq!(bench.world.hosts[&3].granted, [(ticket, 5)]);
    bench.isolate(3);
    let ticket = bench.world.read(3);
    bench.elapse(250);
    assert_eq!(bench.world.hosts[&3].rejected, [ticket], "within an election time-out");
}

/// Thesis 3.10.
#[test]
fn leadership_goes_to_the_member_that_is_named_once_it_has_the_whole_log() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.propose(1, 300);
    bench.heal();
    bench.world.input(1, Input::Transfer { to: node(3) });
    assert_eq!(bench.world.raft(1).next(), None, "no proposals while handing over");
    bench.propose(1, 1);
    assert_eq!(bench.refused(1), Some(&Output::ProposalRefused));
    bench.elapse(100);
    assert_eq!(bench.world.leader(), Some(3));
    assert_eq!(bench.committed(3), 302);
    assert_eq!(bench.term(3), 2);
}

/// Thesis 3.10: clients are not kept waiting longer than for an election.
#[test]
fn a_transfer_that_does_not_succeed_is_given_up_after_an_election_timeout() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.input(1, Input::Transfer { to: node(3) });
    bench.elapse(199);
    assert_eq!(bench.world.raft(1).next(), None);
    bench.elapse(2);
    assert_eq!(bench.refused(1), Some(&Output::TransferFailed { to: node(3) }));
    assert!(bench.world.raft(1).next().is_some());
}

/// Thesis 4.2.1.
#[test]
fn a_learner_gets_the_log_and_counts_in_no_quorum() {
    let mut bench = Bench::led(&[1, 2, 3], &[4]);
    bench.change(1, &[1, 2, 3], &[4]);
    bench.propose(1, 10);
    assert_eq!(bench.terms(4), bench.terms(1));
    bench.isolate(2);
    bench.isolate(3);
    let before = bench.committed(1);
    bench.propose(1, 1);
    assert_eq!(bench.committed(1), before, "1 and the learner are no majority");
    bench.elapse(1_000);
    assert_eq!(bench.role(4), RoleName::Follower, "it never asks for votes");
}

/// Thesis 4.2.2: the candidate may know a later membership, in which the learner votes.
#[test]
fn a_learner_answers_a_request_for_its_vote() {
    let mut bench = Bench::led(&[1, 2, 3], &[4]);
    bench.change(1, &[1, 2, 3], &[4]);
    bench.elapse(50);
    bench.isolate(1);
    bench.elapse(250);
    let (term, last) = (Term::new(20), bench.world.raft(2).log().last_position());
    let message = Message::Vote { term, last, transfer: false };
    bench.cut.clear();
    bench.world.receive(Packet { from: 2, to: 4, message, entries: Vec::new() });
    while bench.world.write(4) {
        bench.world.report(4);
    }
    let sent = &bench.world.sent.back().expect("an answer").message;
    assert_eq!(*sent, Message::VoteReply { term, granted: true });
}

/// Thesis 4.2.1: a new voter that has not caught up would hold up commitment.
#[test]
fn a_voter_that_lacks_the_log_is_refused_until_it_has_caught_up() {
    let mut bench = Bench::led(&[1, 2, 3], &[4]);
    bench.propose(1, 50);
    let change = Change { voters: nodes(&[1, 2, 3, 4]), learners: vec![], lag_max: Some(5) };
    bench.input(1, Input::Change(change.clone()));
    let refusal = ChangeRefusal::NotCaughtUp(node(4));
    assert_eq!(bench.refused(1), Some(&Output::ChangeRefused(refusal)));
    bench.change(1, &[1, 2, 3], &[4]);
    bench.input(1, Input::Change(change));
    bench.elapse(50);
    assert_eq!(bench.world.raft(1).membership(), &Membership::of_voters(nodes(&[1, 2, 3, 4])));
}

/// Thesis 4.3: while joint, an entry needs both majorities.
#[test]
fn while_joint_nothing_is_committed_without_the_old_and_the_new_majority() {
    for unreachable in [[2, 3], [4, 5]] {
        let mut bench = Bench::led(&[1, 2, 3], &[4, 5]);
        unreachable.iter().for_each(|&id| bench.isolate(id));
        let before = bench.committed(1);
        bench.change(1, &[1, 4, 5], &[]);
        assert!(bench.world.raft(1).membership().is_joint(), "in effect at once");
        bench.propose(1, 1);
        assert_eq!(bench.committed(1), before, "without {unreachable:?}");
        bench.heal();
        bench.elapse(100);
        assert!(bench.committed(1) > before);
        assert_eq!(bench.world.raft(1).membership(), &Membership::of_voters(nodes(&[1, 4, 5])));
    }
}

/// Thesis 4.3: nor is a leader elected or a read granted.
#[test]
fn while_joint_no_leader_is_elected_without_the_old_and_the_new_majority() {
    for unreachable in [[2, 3], [4, 5]] {
        let mut bench = Bench::led(&[1, 2, 3], &[4, 5]);
        bench.change(1, &[1, 2, 3], &[4, 5]);
        // The joint entry reaches everyone and is committed nowhere.
        bench.stalled.extend([1, 2, 3, 4, 5]);
        bench.change(1, &[1, 4, 5], &[]);
        bench.stalled.clear();
        bench.cut.extend((2..=5).map(|id| (id, 1)));
        bench.settle();
        assert!(bench.world.raft(4).membership().is_joint());
        bench.heal();
        unreachable.iter().for_each(|&id| bench.isolate(id));
        let ticket = bench.world.read(1);
        bench.elapse(1_500);
        assert_eq!(bench.world.leader(), None, "without {unreachable:?}");
        assert!(bench.world.hosts[&1].granted.iter().all(|grant| grant.0 != ticket));
        bench.heal();
        bench.elapse(1_000);
        assert!(bench.world.leader().is_some());
    }
}

/// Thesis 4.3: the second step is automatic, and a new leader takes it too.
#[test]
fn a_joint_membership_is_left_by_whoever_leads() {
    let mut bench = Bench::led(&[1, 2, 3], &[4]);
    bench.stalled.extend([1, 2, 3, 4]);
    bench.change(1, &[2, 3, 4], &[1]);
    bench.isolate(1);
    bench.stalled.clear();
    bench.elapse(1_500);
    let leader = bench.world.leader().expect("another");
    assert_ne!(leader, 1);
    let membership = bench.world.raft(leader).membership();
    assert_eq!(membership, &Membership::of(nodes(&[2, 3, 4]), nodes(&[1])));
    bench.heal();
    bench.elapse(200);
    assert_eq!(bench.world.raft(1).membership().learners(), nodes(&[1]));
}

/// Thesis 4.1 and the mended single-server change: one uncommitted change at a time, and none
/// before an entry of the own term is committed.
#[test]
fn a_second_change_waits_for_the_first() {
    let mut bench = Bench::led(&[1, 2, 3], &[4, 5]);
    bench.isolate(2);
    bench.isolate(3);
    bench.change(1, &[1, 2, 3], &[4]);
    bench.change(1, &[1, 2, 3], &[4, 5]);
    let refusal = Output::ChangeRefused(ChangeRefusal::ChangePending);
    assert_eq!(bench.refused(1), Some(&refusal));
    bench.change(2, &[1, 2, 3], &[4, 5]);
    assert_eq!(bench.refused(2), Some(&Output::ChangeRefused(ChangeRefusal::NotLeader)));
}

/// The correction to thesis 4.1 (raft-dev, July 2015): else two leaders in turn could each change a
/// membership, and neither know of the other's.
#[test]
fn no_change_begins_before_an_entry_of_the_own_term_is_committed() {
    let mut bench = Bench::new(&[1, 2, 3], &[4]);
    bench.cut.extend([(2, 1), (3, 1)]);
    bench.input(1, Input::Campaign);
    let reply = Message::VoteReply { term: Term::new(1), granted: true };
    bench.world.receive(Packet { from: 2, to: 1, message: reply, entries: Vec::new() });
    bench.settle();
    bench.change(1, &[1, 2, 3], &[4]);
    let refusal = Output::ChangeRefused(ChangeRefusal::NothingCommitted);
    assert_eq!(bench.refused(1), Some(&refusal));
    bench.heal();
    bench.elapse(50);
    bench.change(1, &[1, 2, 3], &[4]);
    assert_eq!(bench.world.raft(1).membership().learners(), nodes(&[4]));
}

/// Thesis 4.2.2.
#[test]
fn a_leader_that_is_removed_steps_down_when_the_change_is_committed() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.cut.extend([(2, 1), (3, 1)]);
    bench.change(1, &[2, 3], &[]);
    assert_eq!(bench.role(1), RoleName::Leader, "until then it leads");
    bench.heal();
    bench.elapse(100);
    assert_eq!(bench.role(1), RoleName::Follower);
    let leader = bench.world.leader().expect("an heir, at once");
    assert_ne!(leader, 1);
    assert_eq!(bench.world.raft(leader).membership(), &Membership::of_voters(nodes(&[2, 3])));
    bench.elapse(2_000);
    assert_eq!(bench.role(1), RoleName::Follower, "it asks for no votes");
    assert_eq!(bench.world.leader(), Some(leader));
}

/// Thesis 4.2.2: it does not count itself towards the membership that it is not in.
#[test]
fn a_leader_that_is_removed_does_not_count_itself() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.change(1, &[1, 2], &[]);
    bench.elapse(50);
    bench.isolate(2);
    let before = bench.committed(1);
    bench.change(1, &[2], &[]);
    bench.elapse(50);
    assert_eq!(bench.committed(1), before, "2 alone decides, and is not heard");
}

/// Thesis 4.2.2: the joint entry is committed, the one that leaves it is on the removed leader alone.
/// 1 and 2 were the old voters, so 2 needs the vote of 1, whose log is longer.
#[test]
fn a_removed_member_that_holds_the_change_alone_is_elected_to_commit_it() {
    let mut bench = Bench::led(&[1, 2], &[3, 4]);
    bench.change(1, &[1, 2], &[3, 4]);
    bench.stalled.insert(2);
    bench.change(1, &[2, 3, 4], &[]);
    bench.elapse(10);
    assert!(bench.world.raft(2).membership().is_joint());
    bench.isolate(1);
    // The joint entry becomes durable on 2, and 1 hears of it.
    bench.cut.remove(&(2, 1));
    bench.stalled.clear();
    bench.settle();
    assert!(!bench.world.raft(1).membership().is_joint());
    bench.world.crash(1, 9);
    bench.elapse(1_000);
    assert_eq!(bench.world.leader(), None, "the old majority is 1 and 2");
    bench.heal();
    bench.world.restart(1, 1);
    bench.elapse(2_000);
    assert!(bench.world.leader().is_some_and(|leader| leader != 1));
    assert_eq!(bench.world.raft(2).membership(), &Membership::of_voters(nodes(&[2, 3, 4])));
}

/// Thesis 4.1: if the entry is cut off, the membership before it is in effect again.
#[test]
fn a_change_that_is_cut_off_was_never_in_effect() {
    let mut bench = Bench::led(&[1, 2, 3], &[4, 5]);
    bench.isolate(1);
    bench.change(1, &[1, 4, 5], &[]);
    assert!(bench.world.raft(1).membership().is_joint());
    bench.elapse(1_000);
    let leader = bench.world.leader().expect("another");
    bench.propose(leader, 3);
    bench.heal();
    bench.elapse(100);
    assert_eq!(bench.world.raft(1).membership(), &Membership::of_voters(nodes(&[1, 2, 3])));
    assert_eq!(bench.terms(1), bench.terms(leader));
}

/// Thesis 5: a follower that needs what is compacted gets the state.
#[test]
fn a_follower_that_is_too_far_behind_gets_a_snapshot_and_then_the_rest() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.isolate(3);
    bench.propose(1, 20);
    bench.world.compact(1, 15);
    bench.propose(1, 2);
    bench.elapse(500);
    assert!(bench.seen.iter().all(|p| !matches!(p.message, Message::Snapshot { .. })), "not there");
    bench.heal();
    bench.elapse(200);
    assert!(bench.seen.iter().any(|p| matches!(p.message, Message::Snapshot { .. })));
    bench.propose(1, 2);
    assert_eq!(bench.committed(3), bench.committed(1));
    assert_eq!(bench.world.raft(1).peers()[1].pace(), Pace::Replicate);
    bench.world.crash(3, 0);
    bench.world.restart(3, 7);
    bench.elapse(200);
    assert_eq!(bench.committed(3), bench.committed(1));
}

/// Thesis 5: a snapshot of what the log holds already moves the commit index alone.
#[test]
fn a_snapshot_within_the_log_keeps_the_entries_behind_it() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.cut.extend([(2, 1), (3, 1)]);
    bench.propose(1, 10);
    let before = bench.terms(2);
    let last = Position { index: at(5), term: Term::new(1) };
    let configuration = bench.world.raft(2).configuration().clone();
    let message = Message::Snapshot { term: Term::new(1), last, configuration };
    bench.world.truth.committed =
        bench.world.hosts[&2].log[..5].iter().map(|entry| (entry.clone(), 1)).collect();
    bench.world.receive(Packet { from: 1, to: 2, message, entries: Vec::new() });
    assert_eq!((bench.committed(2), bench.terms(2)), (5, before));
}

/// Thesis 3.8: what was acknowledged is there after a restart, and the term goes on.
#[test]
fn a_restarted_member_has_its_term_its_vote_and_what_it_acknowledged() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    bench.propose(1, 10);
    for id in 1..=3 {
        bench.world.crash(id, 0);
        bench.world.restart(id, id + 10);
    }
    assert_eq!(bench.world.raft(2).hard_state(), state(1, 1));
    bench.elapse(1_000);
    let leader = bench.world.leader().expect("one");
    assert_eq!(bench.terms(leader)[..11], [1; 11]);
    assert!(bench.committed(1) >= 12 && bench.term(1) >= 2);
}

/// A follower whose log runs do not fit: the hint names a term that may agree.
#[test]
fn a_rejection_names_the_last_position_whose_term_may_agree() {
    let mut bench = Bench::new(&[1, 2, 3], &[]);
    bench.world.preset(2, &[1, 1, 4, 4, 4], state(4, 1));
    let term = Term::new(6);
    let message = Message::Append {
        term,
        previous: Position { index: at(5), term: Term::new(3) },
        runs: vec![TermRun { first: at(6), term }],
        last: at(6),
        committed: at(0),
        configurations: Vec::new(),
    };
    let entries = vec![world::Entry { term: 6, name: 1_000, membership: None }];
    bench.world.receive(Packet { from: 1, to: 2, message, entries });
    while bench.world.write(2) {
        bench.world.report(2);
    }
    let hint = Position { index: at(2), term: Term::new(1) };
    let message = Message::Rejected { term, previous: at(5), hint };
    assert_eq!(bench.world.sent.back().expect("an answer").message, message);
}

/// Figure 2: what was acknowledged is there. A leader that counts on more is told apart from damage by the
/// host: the follower's disk is an older copy.
#[test]
fn a_follower_that_has_forgotten_what_it_acknowledged_says_so() {
    let mut bench = Bench::led(&[1, 2, 3], &[]);
    let last = bench.world.raft(3).log().last();
    let (term, committed) = (bench.world.raft(3).term(), last.next());
    let message = Message::Heartbeat { term, committed, round: 0 };
    let now = bench.world.now;
    let mut outputs = Vec::new();
    let host = bench.world.hosts.get_mut(&3).expect("a member");
    let raft = host.raft.as_mut().expect("it is up");
    raft.handle(now, Input::Receive { from: node(1), message }, &mut outputs);
    assert_eq!(outputs, [Output::Forgotten { by: node(1), index: committed }]);
}
