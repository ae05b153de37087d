//! What must hold between any two calls, checked after every one, in release builds too: the state
//! is small, and a member that goes on with a broken one does more harm than a dead one.

use core::hash::{Hash, Hasher};

use crate::Raft;
use crate::raft::Role;

impl Raft {
    /// What must hold at any time.
    pub fn check(&self) {
        let log = &self.log;
        assert!(log.durable() <= log.last(), "durable beyond last: {log:?}");
        assert!(log.committed() <= log.last(), "committed beyond last: {log:?}");
        assert!(log.base().index <= log.committed(), "compacted beyond committed: {log:?}");
        assert!(log.last_term() <= self.hard_state.term, "an entry of a later term: {log:?}");
        assert!(self.saved.term <= self.hard_state.term, "saved a later term: {:?}", self.saved);
        let waits = self.saved != self.hard_state;
        assert!(waits || self.held.is_empty(), "messages wait for nothing: {:?}", self.held);
        let configuration = self.configuration();
        assert!(configuration.index <= log.last(), "membership beyond the log: {configuration:?}");
        match &self.role {
            Role::Follower(follower) => {
                assert!(follower.verified() <= log.last(), "verified beyond last: {follower:?}");
                let own = follower.leader == Some(self.id);
                assert!(!own, "{:?} follows itself", self.id);
            }
            Role::Candidate(candidate) => {
                let own = self.hard_state.vote == Some(self.id);
                assert!(candidate.is_pre() || own, "a candidate voted for another");
            }
            Role::Leader(leader) => {
                assert!(!waits, "{:?} leads before its term is durable", self.id);
                assert!(self.hard_state.vote == Some(self.id), "a leader voted for another");
                assert!(log.last() >= leader.first, "a leader cut its log: {log:?}");
                // Earlier leaders' changes were each committed before the next began, but this member
                // may not know yet that they were.
                let begins = log.committed().next().max(leader.first);
                let own = self.configurations.iter().filter(|c| c.index >= begins);
                assert!(own.count() <= 1, "two uncommitted changes: {leader:?}");
                for peer in &leader.peers {
                    peer.check(log.last(), &self.options);
                }
            }
        }
    }

    /// The same, and that nothing went back since the last call.
    pub(crate) fn check_step(&mut self) {
        let (before, committed) = self.checked;
        let now = self.hard_state;
        assert!(now.term >= before.term, "term back from {before:?} to {now:?}");
        let kept = now.term > before.term || before.vote.is_none() || now.vote == before.vote;
        assert!(kept, "vote changed within a term from {before:?} to {now:?}");
        assert!(self.log.committed() >= committed, "commit index back from {committed:?}");
        self.checked = (now, self.log.committed());
        self.check();
    }

    /// Hashes what the protocol depends on, without the timers' randomness, and times as they are
    /// from now: what an exhaustive search tells states apart by.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        self.id.hash(hasher);
        self.configurations.hash(hasher);
        self.hard_state.hash(hasher);
        self.saved.hash(hasher);
        self.held.hash(hasher);
        match &self.role {
            Role::Follower(follower) => follower.hash_state(self.now, hasher),
            Role::Candidate(candidate) => candidate.hash(hasher),
            Role::Leader(leader) => leader.hash_state(self.now, hasher),
        }
        self.role().hash(hasher);
        self.log.hash(hasher);
        self.is_in_lease().hash(hasher);
    }
}
