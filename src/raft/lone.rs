//! A cluster of one voter, through the rules for many.

use crate::*;
use base::{LogIndex, NodeId, Term};

fn lone() -> Raft {
    let log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
    let id = NodeId::new(7);
    Raft::new(id, Membership::of_voters(vec![id]), HardState::default(), log)
}

fn leading() -> Raft {
    let mut raft = lone();
    let mut outputs = Vec::new();
    raft.campaign(&mut outputs);
    let Output::SaveHardState(state) = outputs[0] else { panic!("{outputs:?}") };
    raft.hard_state_durable(state, &mut outputs);
    raft
}

#[test]
fn a_vote_that_is_not_durable_does_not_count() {
    let mut raft = lone();
    let mut outputs = Vec::new();
    raft.campaign(&mut outputs);
    assert_eq!(raft.role(), RoleName::Candidate);
    let stale = HardState { term: Term::ZERO, vote: None };
    raft.hard_state_durable(stale, &mut outputs);
    assert_eq!(raft.role(), RoleName::Candidate);
    assert_eq!(raft.propose(), None);
}

/// etcd once answered a lone member's write before its WAL was synced (etcd 14370).
#[test]
fn a_lone_voter_commits_nothing_before_it_is_durable() {
    let mut raft = leading();
    let mut outputs = Vec::new();
    let (index, term) = raft.propose().expect("leads");
    assert_eq!(raft.log().committed(), LogIndex::ZERO);
    assert_eq!(raft.read_index(), None, "nothing of the own term is committed");
    raft.durable(index, term, &mut outputs);
    assert_eq!(outputs, [Output::Committed { index }]);
    assert_eq!(raft.read_index(), Some(index));
}

#[test]
fn one_of_three_voters_commits_nothing_alone() {
    let id = NodeId::new(1);
    let voters = vec![id, NodeId::new(2), NodeId::new(3)];
    let log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
    let mut raft = Raft::new(id, Membership::of_voters(voters), HardState::default(), log);
    let mut outputs = Vec::new();
    raft.campaign(&mut outputs);
    let Output::SaveHardState(state) = outputs[0] else { panic!("{outputs:?}") };
    raft.hard_state_durable(state, &mut outputs);
    assert_eq!(raft.role(), RoleName::Candidate, "one vote of three is no quorum");
}

#[test]
fn entries_of_an_earlier_term_are_committed_only_with_one_of_the_own_term() {
    let id = NodeId::new(1);
    let runs = vec![TermRun { first: LogIndex::new(1), term: Term::new(2) }];
    let log = Log::recovered(runs, LogIndex::new(5), LogIndex::new(3));
    let state = HardState { term: Term::new(2), vote: Some(id) };
    let mut raft = Raft::new(id, Membership::of_voters(vec![id]), state, log);
    let mut outputs = Vec::new();
    raft.campaign(&mut outputs);
    raft.hard_state_durable(HardState { term: Term::new(3), vote: Some(id) }, &mut outputs);
    outputs.clear();
    raft.durable(LogIndex::new(5), Term::new(2), &mut outputs);
    assert_eq!(outputs, []);
    raft.durable(LogIndex::new(6), Term::new(3), &mut outputs);
    assert_eq!(outputs, [Output::Committed { index: LogIndex::new(6) }]);
}
