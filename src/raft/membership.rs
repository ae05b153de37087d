//! Who votes and who only listens, also while one set of voters replaces another.
//!
//! ```text
//!  voters {1 2 3} ── Change ──► joint {1 2 4} + outgoing {1 2 3} ── committed ──► voters {1 2 4}
//! ```
//!
//! A membership takes effect when its entry is appended, committed or not (thesis 4.3); while it is
//! joint, every decision (election, commitment, reads, check of the quorum) needs a majority of both
//! sets.

use alloc::vec::Vec;
use base::{LogIndex, Mutant, NodeId};

use crate::quorum::majority;

/// Voters of one set, at most.
pub const VOTERS_MAX: usize = 7;

/// Learners of one membership, at most.
pub const LEARNERS_MAX: usize = 7;

/// The members of the cluster. All lists are ascending and without repetition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    voters: Vec<NodeId>,
    /// The voters before the change; empty unless joint.
    outgoing: Vec<NodeId>,
    /// Disjoint from both sets of voters.
    learners: Vec<NodeId>,
    /// Outgoing voters that become learners when the joint membership is left.
    learners_next: Vec<NodeId>,
}

/// A membership and the index of the log entry that holds it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Configuration {
    /// Index of its entry, zero for the one that a cluster starts with.
    pub index: LogIndex,
    /// The members from that entry on.
    pub membership: Membership,
}

/// The membership that a change asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// Who shall vote.
    pub voters: Vec<NodeId>,
    /// Who shall listen.
    pub learners: Vec<NodeId>,
    /// A voter that does not vote yet must have been heard of lately and lack at most this many
    /// entries. `None` takes it as it is: an operator may know better.
    pub lag_max: Option<u64>,
}

/// Why a change was not begun.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeRefusal {
    /// This member does not lead.
    NotLeader,
    /// The leader has committed nothing of its own term yet.
    NothingCommitted,
    /// Another change is not committed, or its joint membership has not been left.
    ChangePending,
    /// Leadership is being handed over.
    Transferring,
    /// There must be at least one voter, and at most [`VOTERS_MAX`] and [`LEARNERS_MAX`].
    Size,
    /// This member is named as voter and as learner.
    VoterAndLearner(NodeId),
    /// The new voter lacks too much of the log, or has not been heard of.
    NotCaughtUp(NodeId),
    /// It is the present membership.
    NoChange,
}

impl core::fmt::Display for ChangeRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotLeader => f.write_str("this member does not lead; ask the leader"),
            Self::NothingCommitted => {
                f.write_str("the leader has committed nothing in its term yet; try again shortly")
            }
            Self::ChangePending => {
                f.write_str("another membership change is under way; try again when it is over")
            }
            Self::Transferring => {
                f.write_str("leadership is being handed over; ask the next leader")
            }
            Self::Size => write!(
                f,
                "a cluster has 1 to {VOTERS_MAX} voters and at most {LEARNERS_MAX} learners"
            ),
            Self::VoterAndLearner(id) => {
                write!(f, "member {} cannot be a voter and a learner at once", id.get())
            }
            Self::NotCaughtUp(id) => write!(
                f,
                "member {} lacks too much of the log to vote; wait until it has caught up, or \
                 force the change",
                id.get()
            ),
            Self::NoChange => f.write_str("the members already are as asked"),
        }
    }
}

fn sorted(mut ids: Vec<NodeId>) -> Vec<NodeId> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl Membership {
    /// A membership of these voters, at least one.
    pub fn of_voters(voters: Vec<NodeId>) -> Self {
        Self::of(voters, Vec::new())
    }

    /// A membership of these voters, at least one, and these learners.
    pub fn of(voters: Vec<NodeId>, learners: Vec<NodeId>) -> Self {
        Self::restored(voters, Vec::new(), learners, Vec::new())
    }

    /// A membership from its parts, as an entry of the log or a snapshot states them.
    pub fn restored(
        voters: Vec<NodeId>,
        outgoing: Vec<NodeId>,
        learners: Vec<NodeId>,
        learners_next: Vec<NodeId>,
    ) -> Self {
        let (voters, outgoing) = (sorted(voters), sorted(outgoing));
        let (learners, learners_next) = (sorted(learners), sorted(learners_next));
        assert!(!voters.is_empty(), "a cluster without voters can decide nothing");
        for id in &learners {
            let votes = voters.contains(id) || outgoing.contains(id);
            assert!(!votes, "{id:?} is a voter and a learner");
        }
        for id in &learners_next {
            let leaves = outgoing.contains(id) && !voters.contains(id);
            assert!(leaves, "{id:?} shall become a learner and is no leaving voter");
        }
        Self { voters, outgoing, learners, learners_next }
    }

    /// The voters; of a joint membership the incoming ones.
    #[inline]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The voters before the change; empty unless joint.
    #[inline]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// Who listens and does not vote.
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// Leaving voters that become learners.
    pub fn learners_next(&self) -> &[NodeId] {
        &self.learners_next
    }

    /// Whether two sets of voters decide together.
    #[inline]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes, in either set.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` alone makes every quorum.
    #[inline]
    pub fn is_lone(&self, id: NodeId) -> bool {
        self.voters == [id] && self.outgoing.is_empty()
    }

    /// Everyone, each once, in ascending order.
    pub fn members(&self) -> Vec<NodeId> {
        let all = self.voters.iter().chain(&self.outgoing).chain(&self.learners);
        sorted(all.copied().collect())
    }

    /// Everyone with a vote, each once, in ascending order.
    pub fn all_voters(&self) -> Vec<NodeId> {
        sorted(self.voters.iter().chain(&self.outgoing).copied().collect())
    }

    /// The greatest value that a quorum has reached: a majority, of both sets while joint. `scratch`
    /// is reused, so that the commit path allocates nothing.
    #[inline]
    pub fn reached<T: Ord + Copy>(&self, scratch: &mut Vec<T>, value: impl Fn(NodeId) -> T) -> T {
        let mut half = |voters: &[NodeId]| {
            scratch.clear();
            scratch.extend(voters.iter().map(|&voter| value(voter)));
            majority(scratch)
        };
        let incoming = if Mutant::LearnerCounted.is_on() {
            half(&[&self.voters[..], &self.learners].concat())
        } else {
            half(&self.voters)
        };
        if self.outgoing.is_empty() { incoming } else { incoming.min(half(&self.outgoing)) }
    }

    /// Whether those for whom `says_yes` holds are a quorum.
    pub fn is_quorum(&self, says_yes: impl Fn(NodeId) -> bool) -> bool {
        self.reached(&mut Vec::new(), says_yes)
    }

    /// The first membership on the way to `change`: joint if the voters differ. A change of learners
    /// alone moves no majority and needs one step only.
    pub fn changed(&self, change: &Change) -> Result<Self, ChangeRefusal> {
        if self.is_joint() {
            return Err(ChangeRefusal::ChangePending);
        }
        let voters = sorted(change.voters.clone());
        let learners = sorted(change.learners.clone());
        if voters.is_empty() || voters.len() > VOTERS_MAX || learners.len() > LEARNERS_MAX {
            return Err(ChangeRefusal::Size);
        }
        if let Some(&id) = learners.iter().find(|id| voters.contains(id)) {
            return Err(ChangeRefusal::VoterAndLearner(id));
        }
        if voters == self.voters {
            if learners == self.learners {
                return Err(ChangeRefusal::NoChange);
            }
            return Ok(Self::of(voters, learners));
        }
        let outgoing = self.voters.clone();
        let (next, now) = learners.into_iter().partition(|id| outgoing.contains(id));
        Ok(Self::restored(voters, outgoing, now, next))
    }

    /// The membership behind a joint one.
    #[must_use]
    pub fn left(&self) -> Self {
        let learners = self.learners.iter().chain(&self.learners_next).copied().collect();
        Self::of(self.voters.clone(), learners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    #[test]
    fn a_voter_that_becomes_a_learner_listens_only_after_the_joint_membership() {
        let before = Membership::of(ids(&[1, 2, 3]), ids(&[4]));
        let change = Change { voters: ids(&[1, 2, 4]), learners: ids(&[3]), lag_max: None };
        let joint = before.changed(&change).expect("a change");
        assert_eq!((joint.voters(), joint.outgoing()), (&*ids(&[1, 2, 4]), &*ids(&[1, 2, 3])));
        assert_eq!((joint.learners(), joint.learners_next()), (&*ids(&[]), &*ids(&[3])));
        assert_eq!(joint.left(), Membership::of(ids(&[1, 2, 4]), ids(&[3])));
        assert_eq!(joint.members(), ids(&[1, 2, 3, 4]));
    }

    #[test]
    fn a_joint_quorum_is_a_majority_of_both_sets() {
        for old in 1..=5_u64 {
            for new in 1..=5_u64 {
                let outgoing = (1..=old).collect::<Vec<_>>();
                let voters = (3..3 + new).collect::<Vec<_>>();
                let joint =
                    Membership::restored(ids(&voters), ids(&outgoing), Vec::new(), Vec::new());
                for yes in 0..1_u64 << 8 {
                    let says = |id: u64| yes >> id & 1 == 1;
                    let of = |set: &[u64]| set.iter().filter(|&&id| says(id)).count();
                    let naive =
                        of(&outgoing) * 2 > outgoing.len() && of(&voters) * 2 > voters.len();
                    assert_eq!(joint.is_quorum(|id| says(id.get())), naive, "{joint:?} {yes:b}");
                }
            }
        }
    }

    #[test]
    fn impossible_changes_are_refused() {
        let before = Membership::of(ids(&[1, 2, 3]), ids(&[4]));
        let change = |voters: &[u64], learners: &[u64]| {
            let (voters, learners) = (ids(voters), ids(learners));
            before.changed(&Change { voters, learners, lag_max: None })
        };
        assert_eq!(change(&[], &[]), Err(ChangeRefusal::Size));
        assert_eq!(change(&[1, 2, 3, 4, 5, 6, 7, 8], &[]), Err(ChangeRefusal::Size));
        assert_eq!(change(&[1], &[1]), Err(ChangeRefusal::VoterAndLearner(NodeId::new(1))));
        assert_eq!(change(&[3, 2, 1], &[4]), Err(ChangeRefusal::NoChange));
        assert!(!change(&[1, 2, 3], &[]).expect("drops a learner").is_joint());
    }
}
