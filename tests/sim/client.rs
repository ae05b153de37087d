//! Clients: connections, requests on their way, time-outs, and the ways in which clients behave badly.

use std::collections::{BTreeMap, VecDeque};

use base::{ConnectionId, RequestId};
use bytes::BytesMut;
use node::ReactorEvent;
use wire::{Call, Flags, MemberOperation, Reply, RequestEncoder, Splitter};

use crate::load::{Ask, Generator, Seen, encode, seen};
use crate::member::{CLUSTER, Connection, FROM_NET, REACTOR, VALUE_MAX, address_of, name_of};
use crate::model::{Listed, Told};
use crate::network::{CLIENT_HOSTS, End};
use crate::plan::MS;
use crate::sessions::Session;
use crate::watched::Watched;
use crate::world::{Event, World};

/// A request on its way.
struct Waiting {
    /// Its number at the onlooker.
    number: u64,
    since: u64,
    cancelled: bool,
    /// Pieces of a long answer.
    pieces: Option<Listed>,
}

/// A client.
pub struct Client {
    pub socket: Option<u64>,
    pub node: usize,
    greeted: bool,
    splitter: Splitter,
    pub encoder: RequestEncoder,
    received: BytesMut,
    waiting: BTreeMap<u64, Waiting>,
    pub next: u64,
    opened_at: u64,
    /// The greatest revision that a read of the member's own state has shown on this connection.
    pub seen: i64,
    session: Session,
    pub watches: Vec<Watched>,
    /// Requests of this connection whose watches have ended.
    pub ended: Vec<u64>,
    /// Does not read until then.
    reads_at: u64,
    held: VecDeque<Vec<u8>>,
}

impl Client {
    /// Without a connection.
    pub fn new() -> Self {
        Self {
            socket: None,
            node: 0,
            greeted: false,
            splitter: Splitter::new(),
            encoder: RequestEncoder::new(),
            received: BytesMut::new(),
            waiting: BTreeMap::new(),
            next: 1,
            opened_at: 0,
            seen: 0,
            session: Session::default(),
            watches: Vec::new(),
            ended: Vec::new(),
            reads_at: 0,
            held: VecDeque::new(),
        }
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl World {
    /// What a client does when it is its turn.
    pub fn client_tick(&mut self, client: usize) {
        let next = self.now + self.prng.below(2 * self.plan.think) + 1;
        self.schedule(next, Event::ClientTick { client });
        if self.clients[client].socket.is_none() {
            self.client_connect(client);
            return;
        }
        self.client_times_out(client);
        let known = &self.clients[client];
        if known.socket.is_none() || !known.greeted || known.reads_at > self.now {
            return;
        }
        if self.plan.watchers.watch() {
            self.client_watches(client);
        }
        // Some do nothing but watch.
        if !self.asks_on || client as u64 >= self.plan.clients {
            return;
        }
        let room = usize::try_from(self.plan.depth).expect("few");
        let count = 1 + self.prng.below(self.plan.depth);
        for _ in 0..count {
            if self.clients[client].waiting.len() >= room || self.clients[client].socket.is_none() {
                return;
            }
            self.client_asks(client);
        }
    }

    fn client_connect(&mut self, client: usize) {
        let count = self.nodes.len() as u64;
        let node = usize::try_from(self.prng.below(count)).expect("few members");
        let host = CLIENT_HOSTS + client;
        let is_open = self.network.is_open(host, node) && self.network.is_open(node, host);
        let life = self.nodes[node].life;
        if !is_open || self.nodes[node].process.is_none() {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let id: ConnectionId = process.new_connection();
        let ends = [End::Client { client }, End::Served { node, life, id }];
        let socket = self.network.open(ends);
        let connection = Connection { socket, paused: false, held: VecDeque::new(), ended: false };
        process.connections.insert(id, connection);
        let event = ReactorEvent::Accepted { connection: id };
        process.to_reactor[FROM_NET].push_back(event);
        self.wake_soon(node, REACTOR);
        self.trace.tell(self.now, || format!("client {client} connects to member {}", node + 1));
        let fresh = Client::new();
        let known = &mut self.clients[client];
        let (next, session) = (known.next, std::mem::take(&mut known.session));
        let (socket, watches) = (Some(socket), std::mem::take(&mut known.watches));
        *known = Client { socket, node, next, session, watches, opened_at: self.now, ..fresh };
        let mut frame = Vec::new();
        let hello = Call::Hello(wire::Hello {
            version_min: 1,
            version_max: 1,
            cluster: CLUSTER,
            client_name: "sim",
        });
        known.encoder.encode(&mut frame, RequestId::new(0), 0, &hello).expect("a hello is small");
        self.client_sends(client, frame);
    }

    /// Sends whole frames.
    pub fn client_sends(&mut self, client: usize, bytes: Vec<u8>) {
        let Some(socket) = self.clients[client].socket else { return };
        let from = End::Client { client };
        self.network.send(self.now, socket, from, bytes, &mut self.prng);
        self.flush_network();
    }

    /// Gives its connection up.
    pub fn client_leaves(&mut self, client: usize) {
        if let Some(socket) = self.clients[client].socket {
            self.network.close(self.now, socket, End::Client { client }, &mut self.prng);
            self.flush_network();
        }
        self.client_lost(client);
    }

    /// Its connection has gone.
    pub fn client_lost(&mut self, client: usize) {
        self.trace.tell(self.now, || format!("client {client} has lost its connection"));
        let known = &mut self.clients[client];
        known.socket = None;
        known.watches.iter_mut().for_each(Watched::detach);
        for (_, waiting) in std::mem::take(&mut known.waiting) {
            self.ghost.given_up(waiting.number);
            self.session_hears(client, waiting.number, None);
        }
    }

    /// Tells the session of a client what came of a request.
    fn session_hears(&mut self, client: usize, number: u64, got: Option<&Seen>) {
        let session = &mut self.clients[client].session;
        let request = self.ghost.request(number);
        match (&request.ask, &request.stamp, got) {
            (Ask::Register, _, Some(Seen::Registered(id))) => session.registered(*id),
            (Ask::Register, ..) => session.not_registered(),
            (Ask::Write(command), Some(stamp), got) => {
                let settled = request.is_in_log();
                session.heard(stamp, command, got, settled, &mut self.sessions);
            }
            _ => {}
        }
    }

    fn client_times_out(&mut self, client: usize) {
        let (now, timeout) = (self.now, self.plan.timeout);
        let known = &mut self.clients[client];
        if !known.greeted && now - known.opened_at > timeout {
            return self.client_leaves(client);
        }
        let mut cancel = None;
        let mut leave = false;
        for (&request, waiting) in &mut known.waiting {
            let age = now - waiting.since;
            if age > timeout && !waiting.cancelled {
                waiting.cancelled = true;
                cancel = Some(request);
            }
            leave |= age > timeout + timeout / 2;
        }
        if let Some(request) = cancel {
            let mut frame = Vec::new();
            let encoder = known.encoder;
            encoder
                .encode(&mut frame, RequestId::new(request), 0, &Call::Cancel)
                .expect("a cancel has no body");
            self.client_sends(client, frame);
        }
        if leave {
            self.client_leaves(client);
        }
    }

    fn client_asks(&mut self, client: usize) {
        let mut ask = self.next_ask(client);
        let mut stamp = None;
        if self.plan.sessions {
            (ask, stamp) = self.clients[client].session.next(ask, &mut self.sessions);
        }
        *self.counts.entry(ask.name()).or_default() += 1;
        let deadline = if self.prng.one_in(6) {
            u32::try_from(1 + self.prng.below(400)).expect("small")
        } else {
            0
        };
        let known = &mut self.clients[client];
        let request = known.next;
        known.next += 1;
        if let Ask::MemberChange { operation, member, force: true, .. } = &ask {
            self.is_forced = true;
            if *operation == MemberOperation::Promote {
                self.ghost.promoted_by_force.insert(*member);
            }
        }
        let number = self.ghost.asked(ask, stamp, known.seen);
        let ask = &self.ghost.request(number).ask.clone();
        let (frame, body) = encode(&known.encoder, ask, stamp.as_ref(), request, deadline, number);
        self.trace.tell(self.now, || {
            let of = stamp.map_or(String::new(), |stamp| format!(" {stamp:?}"));
            format!("client {client} asks member {}: {number} {ask:?}{of}", known.node + 1)
        });
        self.ghost.set_body(number, body);
        let waiting = Waiting { number, since: self.now, cancelled: false, pieces: None };
        known.waiting.insert(request, waiting);
        self.client_sends(client, frame);
    }

    /// What its requests are made with.
    pub fn generator(&self) -> Generator {
        let plan = &self.plan;
        Generator {
            keys: plan.keys,
            value_max: plan.value_max,
            writes: plan.writes,
            compacts: plan.compacts,
        }
    }

    fn next_ask(&mut self, client: usize) -> Ask {
        use crate::plan::Fault;
        let generator = self.generator();
        let plan = &self.plan;
        // The first client looks after members too.
        if client == 0 && self.faults_on {
            if plan.has(Fault::Members) && self.prng.one_in(6) {
                return self.next_change();
            }
            if plan.has(Fault::MoveLeader) && self.prng.one_in(30) {
                let target = self.prng.below(self.nodes.len() as u64 + 1);
                return Ask::MoveLeader(target);
            }
        }
        // A server's segments hold its greatest request; those of a plan may be smaller.
        let size_max = self.plan.segment_size / 4 * 3;
        if plan.alarms
            && let Some(ask) = self.next_for_alarms()
        {
            return ask;
        }
        if self.plan.leases.are_used
            && let Some(ask) = self.next_for_leases(&generator)
        {
            return ask;
        }
        if self.plan.watchers.watch()
            && let Some(ask) = self.next_for_watches(&generator)
        {
            return ask;
        }
        loop {
            let ask = generator.next(&mut self.prng, self.ghost.model.revision);
            let (frame, _) = encode(&self.clients[client].encoder, &ask, None, 0, 0, 0);
            if (frame.len() as u64) < size_max {
                return ask;
            }
        }
    }

    fn next_change(&mut self) -> Ask {
        let list = self.ghost.members.clone();
        let members = list.members.len();
        let any = self.prng.below(members as u64);
        let any = list.members[usize::try_from(any).expect("few members")].id.get();
        let number = self.nodes.len() + 1;
        let (name, address) = (name_of(number), address_of(number));
        let force = self.prng.one_in(8);
        let operation = match self.prng.below(8) {
            0 | 1 if members < 6 && number < 12 => MemberOperation::Add,
            2 if members < 6 && number < 12 => MemberOperation::AddLearner,
            3 => MemberOperation::Promote,
            4 if number < 12 => MemberOperation::Replace,
            5 => MemberOperation::Update,
            _ if members > 1 => MemberOperation::Remove,
            _ => MemberOperation::Promote,
        };
        // Only the name of a machine changes: its address is where the others find it.
        let (name, address, member) = match operation {
            MemberOperation::Add | MemberOperation::AddLearner => (name, address, 0),
            MemberOperation::Replace => (name, address, any),
            MemberOperation::Update => {
                let name = format!("n{}", self.prng.below(1000));
                (name, String::new(), any)
            }
            _ => (String::new(), String::new(), any),
        };
        Ask::MemberChange { operation, member, name, address, force }
    }

    /// Bytes came in for a client.
    pub fn client_receives(&mut self, client: usize, bytes: Vec<u8>) {
        let known = &mut self.clients[client];
        // What was held comes first.
        if known.reads_at > self.now || !known.held.is_empty() {
            known.held.push_back(bytes);
            return;
        }
        self.client_reads_bytes(client, &bytes);
    }

    fn client_reads_bytes(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].received.extend_from_slice(bytes);
        loop {
            let known = &mut self.clients[client];
            if known.socket.is_none() {
                return;
            }
            let (header, body) = match known.splitter.next(&mut known.received) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    return self.fail(format!("client {client} cannot read its stream: {error}"));
                }
            };
            let reply = match Reply::verify(&header, &body) {
                Ok(reply) => reply,
                Err(error) => {
                    return self.fail(format!("client {client} cannot read a reply: {error}"));
                }
            };
            let got = seen(&reply);
            let given_up = match &reply {
                Reply::Refused(refused) => refused.compacted_revision,
                _ => 0,
            };
            if got == Seen::Hello {
                known.greeted = true;
                known.splitter.agree(1, wire::REPLY_BODY_SIZE_MAX);
                known.encoder.agree(1, base::limits::body_size_max(VALUE_MAX));
                continue;
            }
            if header.request.get() == 0 {
                // The connection itself was refused.
                self.client_leaves(client);
                return;
            }
            let (request, flags) = (header.request.get(), header.flags);
            if self.watch_is_told(client, request, flags, &got, given_up) {
                continue;
            }
            self.client_answered(client, request, flags, got);
        }
    }

    fn client_answered(&mut self, client: usize, request: u64, flags: Flags, got: Seen) {
        let more = flags.has_more();
        let known = &mut self.clients[client];
        let Some(waiting) = known.waiting.get_mut(&request) else {
            return self.fail(format!("client {client} has an answer to {request}, not asked"));
        };
        if let Seen::Told(Told::Range(listed)) = &got
            && (more || waiting.pieces.is_some())
        {
            let pieces = waiting.pieces.get_or_insert_with(Listed::default);
            let mut pairs = std::mem::take(&mut pieces.pairs);
            pairs.extend(listed.pairs.iter().cloned());
            *pieces = Listed { pairs, ..listed.clone() };
        }
        if more {
            return;
        }
        let Some(waiting) = known.waiting.remove(&request) else { return };
        let got = match waiting.pieces {
            Some(pieces) if matches!(got, Seen::Told(_)) => Seen::Told(Told::Range(pieces)),
            _ => got,
        };
        let number = waiting.number;
        self.trace.tell(self.now, || {
            let mut text = format!("client {client} is answered: {number} {got:?}");
            text.truncate(600);
            text
        });
        let status = match &got {
            Seen::Refused(status, _) => u64::from(status.number()),
            _ => 0,
        };
        self.trace.mix(number << 8 | status);
        *self.answers.entry(status).or_default() += 1;
        self.longest = self.longest.max(self.now - waiting.since);
        let before = self.clients[client].seen;
        if flags.is_repeated() {
            *self.counts.entry("repeated answer").or_default() += 1;
        }
        match self.ghost.answered(number, got.clone(), flags.is_repeated()) {
            Ok(seen) => self.clients[client].seen = before.max(seen),
            Err(text) => return self.fail(text),
        }
        self.session_hears(client, number, Some(&got));
    }

    /// A client stops reading for a while.
    pub fn client_dozes(&mut self, client: usize, nanos: u64) {
        self.clients[client].reads_at = self.now + nanos;
        self.schedule(self.now + nanos + MS, Event::ClientReads { client });
    }

    /// It reads again.
    pub fn client_reads(&mut self, client: usize) {
        if self.clients[client].reads_at > self.now {
            return;
        }
        while let Some(bytes) = self.clients[client].held.pop_front() {
            self.client_reads_bytes(client, &bytes);
        }
    }
}
