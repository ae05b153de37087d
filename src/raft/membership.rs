//! Who votes.

use alloc::vec::Vec;
use base::NodeId;

/// The voters of the cluster, each once, in ascending order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    voters: Vec<NodeId>,
}

impl Membership {
    /// A membership of these voters, at least one.
    pub fn of_voters(mut voters: Vec<NodeId>) -> Self {
        voters.sort_unstable();
        voters.dedup();
        assert!(!voters.is_empty(), "a cluster without voters can decide nothing");
        Self { voters }
    }

    /// The voters.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// How many voters make a quorum.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}
