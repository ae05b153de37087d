//! Limits as they are asked for: each role looks at what it has in use, and the store adds it up.

use alloc::vec::Vec;

use base::limits::{
    ANSWERS_SIZE_MAX, ANSWERS_WAITING_MAX, CLIENTS_MAX, CONNECTION_REQUESTS_MAX,
    CONNECTION_WATCHES_MAX, LEASES_MAX, PARTIAL_BYTES_MAX, READS_SIZE_MAX, UNSENT_MAX, WATCHES_MAX,
};
use base::{ConnectionId, ReactorId, Ticket};
use wire::{Limit, Limits};

use crate::consensus::{Consensus, ConsensusConfig};
use crate::gauges::{Bound, Gauges, Use, add};
use crate::message::ReplyBody;
use crate::reactor::{Reactor, ReactorConfig, ReactorEffect};
use crate::store::{Store, StoreConfig};
use crate::{ConsensusEffect, ConsensusEvent, StoreEvent};

/// What a reactor has.
pub fn of_reactor(config: &ReactorConfig) -> Gauges {
    Gauges::new(&[
        (Bound::Connections, config.connections_max),
        (Bound::Requests, 0),
        (Bound::RequestBytes, 0),
        (Bound::ConnectionRequests, CONNECTION_REQUESTS_MAX),
        (Bound::ConnectionBytes, config.bytes_max),
        (Bound::PartialFrames, PARTIAL_BYTES_MAX),
        (Bound::UnsentReplies, UNSENT_MAX),
        (Bound::HttpUnsent, UNSENT_MAX),
        (Bound::Watches, WATCHES_MAX),
        (Bound::ConnectionWatches, CONNECTION_WATCHES_MAX),
    ])
}

/// What consensus has.
pub fn of_consensus(config: &ConsensusConfig) -> Gauges {
    let reserve = usize::try_from(config.reserve_size).unwrap_or(usize::MAX);
    Gauges::new(&[
        (Bound::Proposals, config.proposed_bytes_max),
        (Bound::LogMemory, config.for_peers.tail_size),
        (Bound::LogFiles, 0),
        (Bound::LogReserve, reserve),
    ])
}

/// What the store has.
pub fn of_store(config: &StoreConfig) -> Gauges {
    let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let clients = usize::try_from(CLIENTS_MAX).unwrap_or(usize::MAX);
    Gauges::new(&[
        (Bound::Reads, READS_SIZE_MAX),
        (Bound::Answers, ANSWERS_SIZE_MAX),
        (Bound::AnswersWaiting, ANSWERS_WAITING_MAX),
        (Bound::DirtyPages, size(config.dirty_size_max)),
        (Bound::PageCache, size(config.pages.cache_size)),
        (Bound::Clients, clients),
        (Bound::Leases, size(LEASES_MAX)),
        (Bound::DiskReserve, 0),
    ])
}

impl Reactor {
    /// A request was taken in.
    pub(crate) fn take_credit(&mut self, connection: ConnectionId, size: usize) {
        let Some(session) = self.session(connection) else { return };
        session.take_credit(size);
        let (requests, bytes) = (session.requests(), session.bytes());
        self.gauges.take(Bound::Requests, 1);
        self.gauges.take(Bound::RequestBytes, size);
        self.gauges.note(Bound::ConnectionRequests, requests);
        self.gauges.note(Bound::ConnectionBytes, bytes);
    }

    /// A request was answered; its connection is still there.
    pub(crate) fn return_credit(&mut self, connection: ConnectionId, size: u32) {
        let size = usize::try_from(size).expect("a size fits usize");
        let Some(session) = self.session(connection) else { return };
        session.return_credit(size);
        self.gauges.give_back(Bound::Requests, 1);
        self.gauges.give_back(Bound::RequestBytes, size);
    }

    /// A watch was refused for one of its two limits.
    pub(crate) fn watch_limit_met(&mut self, connection: ConnectionId) {
        let own = self.watches.of(connection);
        let is_full = own >= CONNECTION_WATCHES_MAX;
        self.gauges.hit(if is_full { Bound::ConnectionWatches } else { Bound::Watches });
        self.gauges.note(Bound::ConnectionWatches, own);
    }

    /// Looks at what the connections have.
    fn measure(&mut self) {
        let (mut requests, mut bytes, mut watches) = (0, 0, 0);
        for (slot, session) in self.sessions.iter().enumerate() {
            let Some(session) = session else { continue };
            let slot = u32::try_from(slot).expect("slots are numbered by u32");
            let connection = ConnectionId { slot, generation: session.generation };
            requests = requests.max(session.requests());
            bytes = bytes.max(session.bytes());
            watches = watches.max(self.watches.of(connection));
        }
        self.gauges.see_size(Bound::ConnectionRequests, requests);
        self.gauges.see_size(Bound::ConnectionBytes, bytes);
        self.gauges.see_size(Bound::ConnectionWatches, watches);
        self.gauges.see_size(Bound::Watches, self.watches.len());
    }

    /// Tells the store what is in use, if that has changed.
    pub(crate) fn tell_use(&mut self, effects: &mut Vec<ReactorEffect>) {
        self.measure();
        if let Some(uses) = self.gauges.news() {
            let reactor = self.config.id;
            effects.push(ReactorEffect::ToStore(StoreEvent::Use { reactor, uses }));
        }
    }

    /// What is in use of one of its limits, for looking at.
    pub fn in_use(&self, bound: Bound) -> Use {
        self.gauges.get(bound)
    }

    /// A client asks for the limits: what is in use here goes along.
    pub(crate) fn ask_limits(&mut self, ticket: Ticket, effects: &mut Vec<ReactorEffect>) {
        self.measure();
        let event = ConsensusEvent::Limits { ticket, uses: self.gauges.list() };
        effects.push(ReactorEffect::ToConsensus(event));
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// The same here.
    pub(crate) fn pass_limits(
        &mut self,
        ticket: Ticket,
        mut uses: Vec<Use>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.measure();
        uses.extend(self.gauges.list());
        effects.push(ConsensusEffect::ToStore(StoreEvent::Limits { ticket, uses }));
    }

    /// Looks at what is in use.
    pub(crate) fn measure(&mut self) {
        self.gauges.see_size(Bound::Proposals, self.proposed_size());
        self.gauges.see_size(Bound::LogMemory, self.tail.kept_size());
        let writer = self.journal.writer();
        self.gauges.see(Bound::LogFiles, writer.size());
        let reserve = self.config.reserve_size;
        let is_short = self.journal.is_short(reserve);
        let taken = if is_short { reserve.saturating_sub(writer.room()) } else { 0 };
        if is_short && self.gauges.get(Bound::LogReserve).used == 0 {
            self.gauges.hit(Bound::LogReserve);
        }
        self.gauges.see(Bound::LogReserve, taken);
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// A reactor has told what is in use there.
    pub(crate) fn note_use(&mut self, reactor: ReactorId, uses: Vec<Use>) {
        match self.told.iter_mut().find(|(known, _)| *known == reactor) {
            Some((_, known)) => *known = uses,
            None => self.told.push((reactor, uses)),
        }
    }

    /// Looks at what is in use, once in a turn.
    pub(crate) fn measure(&mut self) {
        let (gauges, state) = (&mut self.gauges, &self.state);
        gauges.see_size(Bound::Reads, self.reads.booked());
        gauges.set_hits(Bound::Reads, self.reads.waited());
        gauges.see_size(Bound::Answers, self.answers.booked());
        gauges.set_hits(Bound::Answers, self.answers.waited());
        gauges.see_size(Bound::AnswersWaiting, self.answers.size());
        gauges.see(Bound::DirtyPages, state.pages().dirty_size());
        gauges.see(Bound::PageCache, state.pages().resident_size());
        gauges.see(Bound::Clients, state.clients());
        gauges.see(Bound::Leases, state.leases_count());
        let taken = self.checkpoint.reserve_taken(state);
        if taken > 0 && gauges.get(Bound::DiskReserve).used == 0 {
            gauges.hit(Bound::DiskReserve);
        }
        gauges.see(Bound::DiskReserve, taken);
    }

    /// Applying begins to wait, or does so no more.
    pub(crate) fn note_pace(&mut self) {
        let waits = !self.entries.is_empty() && self.apply_waits_for.is_none();
        let paced = (waits && self.is_too_dirty(), waits && self.has_many_answers());
        let was = core::mem::replace(&mut self.paced, paced);
        if paced.0 && !was.0 {
            self.gauges.hit(Bound::DirtyPages);
        }
        if paced.1 && !was.1 {
            self.gauges.hit(Bound::AnswersWaiting);
        }
    }

    /// A client has registered: beyond the limit in the place of another.
    pub(crate) fn note_client(&mut self) {
        let clients = self.state.clients();
        let before = self.gauges.get(Bound::Clients);
        if clients >= before.limit && before.used >= before.limit {
            self.gauges.hit(Bound::Clients);
        }
        self.gauges.see(Bound::Clients, clients);
    }

    /// Answers what all roles have in use.
    pub(crate) fn limits(&mut self, ticket: Ticket, mut uses: Vec<Use>) {
        self.measure();
        self.gauges.set_limit(Bound::DiskReserve, self.checkpoint.reserve(&self.state));
        for (reactor, told) in &self.told {
            // The one that asks has said what it has now.
            if *reactor != ticket.reactor {
                add(&mut uses, told);
            }
        }
        add(&mut uses, &self.gauges.list());
        uses.sort_by_key(|one| one.bound);
        let limit = |one: &Use| {
            let Use { bound, limit, used, highest, hits } = *one;
            Limit { name: bound.name(), limit, used, highest, hits, unit: bound.unit() }
        };
        let limits: Vec<Limit<'_>> = uses.iter().map(limit).collect();
        let mut out = Vec::new();
        self.writer.limits(&mut out, ticket.request, &Limits::Given(&limits));
        self.reply(ticket, ReplyBody::Frames(out));
    }
}
