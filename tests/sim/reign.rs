//! Who leads since when, once all is well, and changes of leaders by the clock: leases have to come to their
//! end also where leaders change faster than leases live.

use base::{ConnectionId, NodeId, ReactorId, RequestId, Ticket};
use node::{AdminRequest, ConsensusEvent};

use crate::member::{CONSENSUS, FROM_NET, Node};
use crate::plan::MS;

use crate::world::{Event, World};

/// A change so soon after it was asked for cost no more log time than a message takes.
const HANDED_OVER: u64 = 300 * MS;

/// Since when what.
#[derive(Clone, Debug, Default)]
pub struct Reign {
    /// The member that leads, and its term.
    leader: Option<(usize, u64)>,
    /// When it was first seen to lead.
    pub since: u64,
    /// Log time has gone on at least since then, but for what hand-overs cost.
    pub counted_since: u64,
    /// When it was handed over after that.
    pub hand_overs: Vec<u64>,
    /// When a hand-over was asked for last.
    asked_at: u64,
}

impl World {
    /// Looks who leads. False: nobody.
    pub fn look_who_leads(&mut self) -> bool {
        let term = |node: &Node| node.process.as_ref().map_or(0, |process| process.leads);
        let leader = self.leader().map(|node| (node, term(&self.nodes[node])));
        // Who has not heard yet that its link broke waits for nothing.
        let (now, stalls_until) = (self.now, self.stalls_until.max(self.network.heard_until));
        let reign = &mut self.reign;
        if leader != reign.leader {
            let was_asked = reign.leader.is_some() && now < reign.asked_at + HANDED_OVER;
            if leader.is_some() && was_asked {
                reign.hand_overs.push(now);
            } else if !was_asked {
                (reign.counted_since, reign.hand_overs) = (now, Vec::new());
            }
            // Between the two nobody may be seen to lead.
            if leader.is_some() || !was_asked {
                (reign.leader, reign.since) = (leader, now);
            }
        }
        if stalls_until > now {
            (reign.since, reign.counted_since) = (now, now);
        }
        leader.is_some()
    }

    /// Has the leader hand over, and calls itself again.
    pub fn hand_over_by_the_clock(&mut self) {
        let every = self.plan.leases.hands_over_ms * MS;
        if !self.asks_on || every == 0 {
            return;
        }
        self.schedule(self.now + every, Event::HandOver);
        let Some(leader) = self.leader() else { return };
        let others = self.nodes.iter().enumerate();
        let others: Vec<NodeId> = others
            .filter(|(node, _)| *node != leader)
            .map(|(_, node)| NodeId::new(node.id))
            .collect();
        let Some(count) = u64::try_from(others.len()).ok().filter(|count| *count > 0) else {
            return;
        };
        let place = usize::try_from(self.leasing.below(count)).expect("few members");
        let target = others[place];
        // Nobody waits for the answer.
        let ticket = Ticket {
            reactor: ReactorId::new(0),
            connection: ConnectionId { slot: 0, generation: u32::MAX },
            request: RequestId::new(0),
            size: 0,
            reads: false,
            watches: false,
        };
        let request = AdminRequest::MoveLeader { target };
        let Some(process) = &mut self.nodes[leader].process else { return };
        process.to_consensus[FROM_NET].push_back(ConsensusEvent::Admin { ticket, request });
        self.wake_soon(leader, CONSENSUS);
        self.reign.asked_at = self.now;
        self.count("leader handed over by the clock");
        self.trace.tell(self.now, || format!("the leader is to hand over to {target:?}"));
    }
}
