//! Divergence: members that have applied the same entries must have the same state. Each member names
//! its hash at some index in its answers to heartbeats; the leader compares, and the odd one out stops.
//!
//! Which one that is a majority says: who agrees with the leader against who does not. Without a
//! majority nobody is stopped, and status says that the members disagree.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use base::{Hash128, LogIndex, NodeId};
use wire::AppliedState;

/// Hashes that are kept: at one in 1,024 entries, more than a follower may lag behind the leader before
/// it needs another state altogether.
const KEPT_MAX: usize = 4_096;

/// What the hashes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All that is known agrees.
    Fine,
    /// This member's state differs from that of most others.
    Odd(NodeId),
    /// The leader's own state differs from that of most others.
    OwnOdd,
    /// They differ, and there is no majority.
    Unclear,
}

/// The hashes of this member, and which others agree with them.
#[derive(Debug, Default)]
pub struct Divergence {
    own: VecDeque<AppliedState>,
    agrees: BTreeMap<NodeId, bool>,
}

impl Divergence {
    /// The state after the entry at `index` has this hash.
    pub fn note(&mut self, index: LogIndex, hash: Hash128) {
        if self.own.back().is_some_and(|last| last.index >= index) {
            return;
        }
        if self.own.len() == KEPT_MAX {
            self.own.pop_front();
        }
        self.own.push_back(AppliedState { index, hash });
    }

    /// What is told to others.
    pub fn newest(&self) -> Option<AppliedState> {
        self.own.back().copied()
    }

    /// Another state has taken the place of this member's, or the leader has changed.
    pub fn restart(&mut self) {
        self.agrees.clear();
    }

    /// A member has this state.
    pub fn heard(&mut self, peer: NodeId, state: AppliedState) {
        let place = self.own.binary_search_by_key(&state.index, |own| own.index);
        if let Ok(place) = place {
            self.agrees.insert(peer, self.own[place].hash == state.hash);
        }
    }

    /// What that means among these members, of whom `own` asks.
    pub fn verdict(&self, members: &[NodeId], own: NodeId) -> Verdict {
        let says = |wanted: bool| -> Vec<NodeId> {
            let heard = |id: &&NodeId| self.agrees.get(*id) == Some(&wanted);
            members.iter().filter(|id| **id != own).filter(heard).copied().collect()
        };
        let against = says(false);
        let Some(&odd) = against.first() else { return Verdict::Fine };
        if (says(true).len() + 1) * 2 > members.len() {
            Verdict::Odd(odd)
        } else if against.len() * 2 > members.len() {
            Verdict::OwnOdd
        } else {
            Verdict::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];

    fn hash(of: &[u8]) -> Hash128 {
        base::hash128(of)
    }

    fn told(divergence: &mut Divergence, peer: u64, index: u64, hash: Hash128) -> Verdict {
        divergence.heard(NodeId::new(peer), AppliedState { index: LogIndex::new(index), hash });
        divergence.verdict(&MEMBERS, MEMBERS[0])
    }

    #[test]
    fn the_odd_one_out_is_named_by_a_majority_and_by_nothing_less() {
        let mut divergence = Divergence::default();
        for index in [1_024, 2_048, 3_072] {
            divergence.note(LogIndex::new(index), hash(&index.to_le_bytes()));
        }
        let right = |index: u64| hash(&index.to_le_bytes());
        assert_eq!(told(&mut divergence, 2, 1_024, hash(b"other")), Verdict::Unclear);
        assert_eq!(told(&mut divergence, 3, 500, hash(b"other")), Verdict::Unclear, "not known");
        assert_eq!(told(&mut divergence, 3, 2_048, right(2_048)), Verdict::Odd(NodeId::new(2)));
        assert_eq!(told(&mut divergence, 3, 3_072, hash(b"third")), Verdict::OwnOdd);
        assert_eq!(told(&mut divergence, 2, 3_072, right(3_072)), Verdict::Odd(NodeId::new(3)));
        divergence.restart();
        assert_eq!(divergence.verdict(&MEMBERS, MEMBERS[0]), Verdict::Fine);
    }
}
