//! The machine of one member: elections, terms, proposals, commitment.

use alloc::vec::Vec;
use base::{LogIndex, NodeId, Term};

use crate::{Log, Membership, committed_by};

/// What must be durable before anything that depends on it is said (thesis, figure 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Who got the vote in that term.
    pub vote: Option<NodeId>,
}

/// What the machine wants done. In the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make term and vote durable, then call [`Raft::hard_state_durable`].
    SaveHardState(HardState),
    /// Append an empty entry at this position: the first of a new leader's term.
    AppendEmpty {
        /// Index of the entry; it is already counted in the log.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// Entries up to `index` are committed and may be applied.
    Committed {
        /// The commit index.
        index: LogIndex,
    },
    /// This member leads from now on and takes proposals.
    Leading {
        /// The term it leads.
        term: Term,
    },
}

/// The part that a member plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleName {
    /// Follows, or waits for its first election.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

enum Role {
    Follower,
    /// Votes that are durable and granted.
    Candidate {
        granted: Vec<NodeId>,
    },
    /// `first` is the empty entry of the term: nothing is read before it is committed.
    Leader {
        first: LogIndex,
    },
}

/// One member's Raft.
pub struct Raft {
    id: NodeId,
    membership: Membership,
    hard_state: HardState,
    role: Role,
    log: Log,
    /// Reused for quorum arithmetic.
    matched: Vec<LogIndex>,
}

impl Raft {
    /// A member as it stands after recovery: a follower that has to be started.
    pub fn new(id: NodeId, membership: Membership, hard_state: HardState, log: Log) -> Self {
        assert!(
            hard_state.term >= log.last_term(),
            "term {:?} below that of the last entry {:?}",
            hard_state.term,
            log.last_term()
        );
        let matched = Vec::with_capacity(membership.voters().len());
        Self { id, membership, hard_state, role: Role::Follower, log, matched }
    }

    /// Begins an election, if this member may vote: a new term, a vote for itself.
    pub fn campaign(&mut self, outputs: &mut Vec<Output>) {
        if !self.membership.voters().contains(&self.id) {
            return;
        }
        self.hard_state = HardState { term: self.hard_state.term.next(), vote: Some(self.id) };
        self.role = Role::Candidate { granted: Vec::new() };
        outputs.push(Output::SaveHardState(self.hard_state));
    }

    /// Term and vote are durable. A completion of an older term or another vote says nothing.
    pub fn hard_state_durable(&mut self, durable: HardState, outputs: &mut Vec<Output>) {
        if durable != self.hard_state {
            return;
        }
        let (id, quorum) = (self.id, self.membership.quorum());
        if let Role::Candidate { granted } = &mut self.role {
            if durable.vote == Some(id) && !granted.contains(&id) {
                granted.push(id);
            }
            if granted.len() >= quorum {
                self.lead(outputs);
            }
        }
    }

    fn lead(&mut self, outputs: &mut Vec<Output>) {
        let term = self.hard_state.term;
        let first = self.log.append(term, 1);
        self.role = Role::Leader { first };
        outputs.push(Output::AppendEmpty { index: first, term });
        outputs.push(Output::Leading { term });
    }

    /// The position that the next proposal gets from the leader; none on anyone else.
    #[inline]
    pub fn next(&self) -> Option<(LogIndex, Term)> {
        match self.role {
            Role::Leader { .. } => Some((self.log.last().next(), self.hard_state.term)),
            Role::Follower | Role::Candidate { .. } => None,
        }
    }

    /// Takes one proposal, which has been given the position that [`Raft::next`] named. Anyone but
    /// the leader takes none.
    #[inline]
    pub fn propose(&mut self) -> Option<(LogIndex, Term)> {
        let (index, term) = self.next()?;
        self.log.append(term, 1);
        Some((index, term))
    }

    /// The own log is durable up to `index`, whose entry has `term`.
    pub fn durable(&mut self, index: LogIndex, term: Term, outputs: &mut Vec<Output>) {
        self.log.advance_durable(index, term);
        self.advance_commit(outputs);
        self.check();
    }

    fn advance_commit(&mut self, outputs: &mut Vec<Output>) {
        let Role::Leader { first } = self.role else { return };
        self.matched.clear();
        for &voter in self.membership.voters() {
            // Positions of the other voters arrive with their messages; until then they hold none.
            let matched = if voter == self.id { self.log.durable() } else { LogIndex::ZERO };
            self.matched.push(matched);
        }
        let index = committed_by(&mut self.matched);
        // Counting commits entries of the own term only (thesis 3.6.2).
        if index >= first && index > self.log.committed() {
            self.log.advance_committed(index);
            outputs.push(Output::Committed { index });
        }
    }

    /// The index that a linearizable read has to wait for, or none while this member may not
    /// answer: it does not lead, or has committed nothing in its term yet (thesis 6.4).
    ///
    /// The caller must hear from a quorum after it took the index; a lone voter is its own quorum.
    pub fn read_index(&self) -> Option<LogIndex> {
        match self.role {
            Role::Leader { first } if self.log.committed() >= first => Some(self.log.committed()),
            Role::Leader { .. } | Role::Follower | Role::Candidate { .. } => None,
        }
    }

    /// Whether the own acknowledgement alone makes a quorum.
    pub fn is_lone_voter(&self) -> bool {
        self.membership.voters() == [self.id]
    }

    /// The part played now.
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Follower => RoleName::Follower,
            Role::Candidate { .. } => RoleName::Candidate,
            Role::Leader { .. } => RoleName::Leader,
        }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The log's positions.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What must hold between any two calls.
    fn check(&self) {
        let log = &self.log;
        assert!(log.durable() <= log.last(), "durable beyond last: {log:?}");
        assert!(log.committed() <= log.last(), "committed beyond last: {log:?}");
        assert!(log.last_term() <= self.hard_state.term, "an entry of a later term: {log:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let runs = vec![crate::TermRun { first: LogIndex::new(1), term: Term::new(2) }];
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
}
