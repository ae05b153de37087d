//! What a candidate does: ask whether it would be elected, then ask to be (thesis 9.6, 3.4).

use alloc::vec::Vec;
use base::{Mutant, NodeId};

use crate::raft::Role;
use crate::{HardState, Message, Outputs, Raft};

#[derive(Clone, Hash, Debug)]
pub(crate) struct Candidate {
    /// It asks only whether it would get votes: term and vote are as they were.
    pre: bool,
    /// The leader asked for the election.
    transfer: bool,
    granted: Vec<NodeId>,
    refused: Vec<NodeId>,
}

impl Candidate {
    pub fn is_pre(&self) -> bool {
        self.pre
    }
}

impl Raft {
    /// Begins an election, if this member may vote: a new term, a vote for itself.
    pub fn campaign(&mut self, outputs: &mut Outputs) {
        if self.may_campaign() && !matches!(self.role, Role::Leader(_)) {
            self.ask(false, false, outputs);
        }
    }

    /// Asks for votes, or with `pre` whether they would be given.
    pub(crate) fn ask(&mut self, pre: bool, transfer: bool, outputs: &mut Outputs) {
        assert!(!matches!(self.role, Role::Leader(_)), "a leader asks for no votes");
        assert!(self.may_campaign(), "{:?} is no voter and asks for votes", self.id);
        self.drop_reads(outputs);
        self.contact = None;
        self.restart_election_timer();
        let (granted, refused) = (Vec::new(), Vec::new());
        self.role = Role::Candidate(Candidate { pre, transfer, granted, refused });
        let (term, last) = (self.hard_state.term.next(), self.last());
        let message = if pre {
            Message::PreVote { term, last }
        } else {
            self.hard_state = HardState { term, vote: Some(self.id) };
            self.held.clear();
            self.save(outputs);
            Message::Vote { term, last, transfer }
        };
        // A lone voter needs no list of peers.
        if !self.is_lone_voter() {
            for peer in self.membership().all_voters() {
                if peer != self.id {
                    self.send(peer, message.clone(), outputs);
                }
            }
        }
        if pre {
            // Nothing was promised, so there is nothing to make durable.
            self.count(self.id, true, outputs);
        }
    }

    /// The own vote counts when it is durable, not before (thesis 3.8).
    pub(crate) fn own_vote_durable(&mut self, outputs: &mut Outputs) {
        if let Role::Candidate(candidate) = &self.role
            && !candidate.pre
        {
            assert!(self.saved.vote == Some(self.id), "a candidate votes for itself");
            self.count(self.id, true, outputs);
        }
    }

    /// An answer to a question of this term.
    pub(crate) fn on_answer(
        &mut self,
        from: NodeId,
        pre: bool,
        granted: bool,
        outputs: &mut Outputs,
    ) {
        if let Role::Candidate(candidate) = &self.role
            && candidate.pre == pre
        {
            self.count(from, granted, outputs);
        }
    }

    fn count(&mut self, from: NodeId, granted: bool, outputs: &mut Outputs) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        let list = if granted { &mut candidate.granted } else { &mut candidate.refused };
        if !list.contains(&from) {
            list.push(from);
        }
        let Role::Candidate(candidate) = &self.role else { return };
        let pre = candidate.pre;
        let incoming = |voter| self.membership().voters().contains(&voter);
        let lets = |voter| Mutant::JointElection.is_on() && !incoming(voter);
        if self.membership().is_quorum(|voter| candidate.granted.contains(&voter) || lets(voter)) {
            if pre {
                self.ask(false, false, outputs);
            } else if candidate.granted.contains(&self.id) {
                // Whoever leads has made its own vote durable, even where others make a quorum.
                self.lead(outputs);
            }
        } else if !self.membership().is_quorum(|voter| !candidate.refused.contains(&voter)) {
            self.follow(None, outputs);
        }
    }
}
