//! Renewals of leases: those that come in during a turn go into the log as one entry.
//!
//! The entry has a ticket of its own, which names the batch; its answer is given to each of the requests that
//! it carried. A lease that several ask for stands in it once.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use base::limits::KEEP_ALIVE_MAX;
use base::{ConnectionId, Frame, Instant, Mutant, RequestId, Ticket};
use wire::{Kind, LeaseKeepAliveReply, Numbers, Request, VerifyLimits};

use crate::ConsensusEvent;
use crate::message::{EntryKind, Reply, ReplyBody};
use crate::reactor::{Reactor, ReactorEffect};

/// The connection of the tickets of batches.
const BATCHES: ConnectionId = ConnectionId { slot: u32::MAX, generation: u32::MAX };

/// Requests whose leases are in one entry.
#[derive(Debug, Default)]
struct Batch {
    /// Leases, in the order of the entry, and the place of each.
    leases: Vec<i64>,
    places: BTreeMap<i64, usize>,
    /// Who waits, and for which leases.
    requests: Vec<(Ticket, Vec<i64>)>,
    deadline: Option<Instant>,
}

/// The renewals of a reactor.
#[derive(Debug, Default)]
pub struct Renewals {
    /// Of this turn.
    gathering: Vec<Batch>,
    /// On their way, by number.
    proposed: BTreeMap<u64, Batch>,
    next: u64,
}

/// Whether the ticket is that of a batch.
pub fn is_batch(ticket: Ticket) -> bool {
    ticket.connection == BATCHES
}

impl Reactor {
    /// Takes in a request for renewals.
    pub(crate) fn gather_renewals(
        &mut self,
        ticket: Ticket,
        body: &Frame,
        deadline: Option<Instant>,
    ) {
        let Ok(Request::LeaseKeepAlive(request)) =
            Request::verify(Kind::LeaseKeepAlive, body, &VerifyLimits::REQUEST)
        else {
            unreachable!("the request was verified");
        };
        let leases: Vec<i64> = request.leases.iter().collect();
        let gathering = &mut self.renewals.gathering;
        let has_room = |batch: &Batch| batch.leases.len() + leases.len() <= KEEP_ALIVE_MAX;
        if !gathering.last().is_some_and(has_room) {
            gathering.push(Batch { deadline, ..Batch::default() });
        }
        let Some(batch) = gathering.last_mut() else { return };
        for lease in &leases {
            let next = batch.leases.len();
            if *batch.places.entry(*lease).or_insert(next) == next {
                batch.leases.push(*lease);
            }
        }
        // Who waits longest decides; nobody's renewal is dropped for another's deadline.
        batch.deadline = match (batch.deadline, deadline) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        batch.requests.push((ticket, leases));
    }

    /// Proposes what has been gathered in this turn.
    pub(crate) fn propose_renewals(&mut self, effects: &mut Vec<ReactorEffect>) {
        for batch in mem::take(&mut self.renewals.gathering) {
            let number = self.renewals.next;
            self.renewals.next += 1;
            let mut payload = Vec::with_capacity(8 + 8 * batch.leases.len());
            payload.extend_from_slice(&[0; 8]);
            for lease in &batch.leases {
                payload.extend_from_slice(&lease.to_le_bytes());
            }
            let ticket = Ticket {
                reactor: self.config.id,
                connection: BATCHES,
                request: RequestId::new(number),
                size: 0,
                reads: false,
                watches: false,
            };
            let event = ConsensusEvent::Propose {
                ticket,
                kind: EntryKind::LeaseKeepAlive,
                stamped: false,
                frees_space: EntryKind::LeaseKeepAlive.frees_space(),
                frame: Frame::from(payload),
                deadline: batch.deadline,
            };
            self.renewals.proposed.insert(number, batch);
            effects.push(ReactorEffect::ToConsensus(event));
        }
    }

    /// Gives the answer of a batch to its requests.
    pub(crate) fn renewals_answered(
        &mut self,
        now: Instant,
        reply: Reply,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let Some(batch) = self.renewals.proposed.remove(&reply.ticket.request.get()) else {
            return;
        };
        for (ticket, leases) in batch.requests {
            let body = match &reply.body {
                ReplyBody::Renewed { revision, ttls_ms } => {
                    let ttl = |lease: &i64| {
                        let place = batch.places.get(lease).copied().unwrap_or(usize::MAX);
                        let place = if Mutant::KeepAliveMixed.is_on() { 0 } else { place };
                        ttls_ms.get(place).map_or(0, |ttl| ttl.cast_signed())
                    };
                    let ttls: Vec<i64> = leases.iter().map(ttl).collect();
                    let reply = LeaseKeepAliveReply {
                        revision: crate::translate::count_of(*revision),
                        ttls_ms: Numbers::Given(&ttls),
                    };
                    let mut out = Vec::new();
                    self.writer.lease_keep_alive(&mut out, ticket.request, &reply);
                    ReplyBody::Frames(out)
                }
                ReplyBody::Refused(refused) => ReplyBody::Refused(refused.clone()),
                other => unreachable!("renewals are answered with {other:?}"),
            };
            self.answer(now, Reply { ticket, body }, effects);
        }
    }
}
