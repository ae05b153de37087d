//! Reactor: the role of a connection core. It owns sessions: handshakes, admission, credits,
//! deadlines, and the way of every reply back to its connection.
//!
//! It owns no data: writes go to consensus, reads to the store once consensus has said how much must
//! have been applied. All linearizable reads of a turn share one question to consensus, at most one
//! is open at a time, and reads that arrive meanwhile ride the next one.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use base::limits::{PARTIAL_BYTES_MAX, RECEIVE_CHUNK_SIZE, UNSENT_MAX};
use base::{
    ConnectionId, Duration, Frame, Instant, LogIndex, Mutant, NodeId, ReactorId, Revision,
    STAMP_SIZE, Term, Ticket,
};
use bytes::BytesMut;
use kv::Recorded;
use wire::{DecodeError, Kind, LeaderHint, ReplyWriter, Request, Splitter, Status, VerifyLimits};

use crate::gauges::{Bound, Gauges};
use crate::message::{EntryKind, ReadRequest, Refused, Reply, ReplyBody};
use crate::questions::Questions;
use crate::renewals::{Renewals, is_batch};
use crate::session::{Phase, Session};
use crate::watches::Watches;
use crate::watching::Scratch;
use crate::{ConsensusEvent, Role, StoreEvent, translate, usage};

/// How often time-outs of sessions are looked for.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// What a reactor is told at its making.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Which reactor this is.
    pub id: ReactorId,
    /// Id of the cluster, told in the handshake.
    pub cluster: u64,
    /// Id of the member, told in the handshake.
    pub member: NodeId,
    /// Greatest value that a put may carry, in bytes.
    pub value_size_max: usize,
    /// Compares, or operations of one branch, of a transaction; at most
    /// `base::limits::TXN_OPS_MAX`.
    pub txn_ops_max: usize,
    /// Bytes of requests that one connection may have unanswered: no more than consensus takes in.
    pub bytes_max: usize,
    /// Connections that there may be: the driver closes others at once.
    pub connections_max: usize,
    /// Clients that are remembered at once, as told with each registration; at most
    /// `base::limits::CLIENTS_MAX`.
    pub clients_max: u32,
}

/// What happens to a reactor.
#[derive(Debug)]
pub enum ReactorEvent {
    /// A connection was accepted.
    Accepted {
        /// Its name from now on.
        connection: ConnectionId,
    },
    /// A connection was closed at once: there are as many as there may be.
    TurnedAway,
    /// Bytes came in.
    Received {
        /// From whom.
        connection: ConnectionId,
        /// The bytes.
        bytes: BytesMut,
    },
    /// The peer sends nothing more. What it has asked for is answered before the connection is closed.
    Ended {
        /// Who.
        connection: ConnectionId,
    },
    /// The peer has gone, or the socket failed. The slot may be used again.
    Closed {
        /// Who.
        connection: ConnectionId,
    },
    /// The socket took only a part of what was sent.
    Blocked {
        /// Whose.
        connection: ConnectionId,
    },
    /// A blocked socket has taken some bytes: its reader is slow, not gone.
    Progressed {
        /// Whose.
        connection: ConnectionId,
    },
    /// The socket has taken all that was sent.
    Drained {
        /// Whose.
        connection: ConnectionId,
    },
    /// Answer of consensus to the open question: reads may run once this much is applied.
    ReadGranted {
        /// The store must have applied this index.
        index: LogIndex,
        /// The log time.
        time: u64,
    },
    /// Answer of consensus to the open question: not here, not now.
    ReadRefused(Refused),
    /// Answers of the store or of consensus.
    Replies(Vec<Reply>),
    /// What the store has changed, since it was asked to publish it.
    Published(Arc<Recorded>),
    /// The state has been replaced by that of another member, at this revision.
    Jumped(Revision),
    /// What clients of HTTP have left unread, since this was told last.
    HttpUnsent {
        /// Bytes.
        size: usize,
        /// The most that it was.
        highest: usize,
        /// Connections that have been cut for it, in all.
        cuts: u64,
    },
    /// Who leads, as far as consensus knows.
    Leader {
        /// The raft term.
        term: Term,
        /// The leader; 0: none known.
        member: NodeId,
        /// Where clients find it; empty: not known.
        address: String,
    },
    /// Take no new requests; connections are told so.
    Stop,
}

/// Why a reactor closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// Its bytes broke the protocol.
    Protocol,
    /// It did not finish its handshake in time.
    HandshakeTimeout,
    /// It began a frame and did not complete it in time.
    PartialFrame,
    /// It did not read its replies.
    SlowReader,
    /// The peer sends nothing more, and everything that it asked for has been answered.
    Finished,
    /// The server stops.
    Stopping,
}

/// What a reactor asks for.
#[derive(Debug)]
pub enum ReactorEffect {
    /// Send these bytes.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// Whole frames.
        bytes: Vec<u8>,
    },
    /// Stop reading from the socket.
    Pause {
        /// Whose.
        connection: ConnectionId,
    },
    /// Read from the socket again.
    Resume {
        /// Whose.
        connection: ConnectionId,
    },
    /// Close the socket once what was sent before has gone out, or at once for a slow reader.
    Close {
        /// Whose.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// For consensus.
    ToConsensus(ConsensusEvent),
    /// For the store.
    ToStore(StoreEvent),
}

/// The role of one connection core.
pub struct Reactor {
    pub(crate) config: ReactorConfig,
    /// By slot of the connection.
    pub(crate) sessions: Vec<Option<Session>>,
    /// Connections with replies to send this turn.
    dirty: Vec<ConnectionId>,
    /// Connections whose credits came back this turn while bytes wait.
    runnable: Vec<ConnectionId>,
    /// Connections with long answers whose last piece has gone to the socket.
    continuing: Vec<ConnectionId>,
    /// Linearizable reads of this turn, and those that wait for the open question.
    reads_next: Vec<ReadRequest>,
    reads_asked: Vec<ReadRequest>,
    /// A question to consensus is open.
    is_asking: bool,
    pub(crate) questions: Questions,
    /// Bytes of memory that frames which have not come in whole keep, over all connections.
    partial_bytes: usize,
    /// Connections that wait until there is room for their frames, and the one that need not.
    pub(crate) starving: VecDeque<ConnectionId>,
    fed: Option<ConnectionId>,
    pub(crate) writer: ReplyWriter,
    /// Who leads, and where clients find it.
    leader: (NodeId, String),
    /// Bytes sent to sockets that are blocked.
    pub(crate) unsent: usize,
    pub(crate) stopping: bool,
    pub(crate) sweep_at: Option<Instant>,
    pub(crate) watches: Watches,
    pub(crate) renewals: Renewals,
    /// Connections whose watches may be read for again.
    pub(crate) resuming: Vec<ConnectionId>,
    /// When watches are looked at that tell their progress by the clock.
    pub(crate) progress_at: Option<Instant>,
    /// Frames for watches, and the numbers of changes, of the turn in hand.
    pub(crate) scratch: Scratch,
    pub(crate) gauges: Gauges,
}

impl Reactor {
    /// What it has asked consensus for its reads.
    pub fn questions(&self) -> Questions {
        self.questions
    }

    /// Watches that have not been told everything yet.
    pub fn watches_behind(&self) -> usize {
        self.watches.behind()
    }

    /// A reactor without connections.
    pub fn new(config: ReactorConfig) -> Self {
        Self {
            gauges: usage::of_reactor(&config),
            config,
            sessions: Vec::new(),
            dirty: Vec::new(),
            runnable: Vec::new(),
            continuing: Vec::new(),
            reads_next: Vec::new(),
            reads_asked: Vec::new(),
            is_asking: false,
            questions: Questions::default(),
            partial_bytes: 0,
            starving: VecDeque::new(),
            fed: None,
            writer: ReplyWriter::new(),
            leader: (NodeId::default(), String::new()),
            unsent: 0,
            stopping: false,
            sweep_at: None,
            watches: Watches::new(),
            renewals: Renewals::default(),
            resuming: Vec::new(),
            progress_at: None,
            scratch: Scratch::default(),
        }
    }

    /// Requests that have been taken in and not answered, over all connections.
    pub fn requests(&self) -> usize {
        self.sessions.iter().flatten().map(Session::requests).sum()
    }

    /// Bytes of memory that frames keep which have not come in whole, over all connections.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    pub(crate) fn session(&mut self, connection: ConnectionId) -> Option<&mut Session> {
        let slot = usize::try_from(connection.slot).expect("a slot fits usize");
        self.sessions
            .get_mut(slot)?
            .as_mut()
            .filter(|session| session.generation == connection.generation)
    }

    fn accept(&mut self, now: Instant, connection: ConnectionId) {
        let slot = usize::try_from(connection.slot).expect("a slot fits usize");
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        let splitter = Splitter::new();
        self.sessions[slot] =
            Some(Session::new(connection.generation, now, splitter, self.config.bytes_max));
        self.gauges.take(Bound::Connections, 1);
        if self.sweep_at.is_none() {
            self.sweep_at = Some(now.after(SWEEP_INTERVAL));
        }
    }

    /// Cuts frames out of what the connection has sent, as far as its credits reach.
    fn take_frames(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        effects: &mut Vec<ReactorEffect>,
    ) {
        loop {
            let Some(session) = self.session(connection) else { return };
            if session.phase == Phase::Closing {
                return;
            }
            if !session.has_credit() || session.blocked_since.is_some() {
                session.partial = None;
                self.release_chunk(connection);
                let session = self.session(connection).expect("it was there above");
                if !session.paused {
                    session.paused = true;
                    let met = session.credit_met();
                    met.into_iter().for_each(|bound| self.gauges.hit(bound));
                    effects.push(ReactorEffect::Pause { connection });
                }
                return;
            }
            match session.splitter.next(&mut session.received) {
                Ok(Some((header, body))) => {
                    session.partial = None;
                    session.begun = None;
                    // One frame, then the next in line.
                    self.fed.take_if(|fed| *fed == connection);
                    self.take_frame(now, connection, header, body, effects);
                }
                Ok(None) => return self.take_no_frame(now, connection, effects),
                Err(error) => {
                    let refused = decode_refusal(&error);
                    self.refuse(connection, base::RequestId::new(0), &refused);
                    self.close(connection, CloseReason::Protocol, effects);
                    return;
                }
            }
        }
    }

    /// What there is of the next frame waits for the rest of it.
    fn take_no_frame(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        effects: &mut Vec<ReactorEffect>,
    ) {
        self.release_chunk(connection);
        let full = self.partial_bytes > PARTIAL_BYTES_MAX;
        let Some(session) = self.session(connection) else { return };
        if session.ended {
            if session.requests() == 0 {
                self.close(connection, CloseReason::Finished, effects);
            }
            return;
        }
        if session.received.is_empty() {
            session.begun = None;
        } else {
            session.begun.get_or_insert(now);
        }
        if session.starved {
            return;
        }
        session.note_progress(now);
        if full && session.partial.is_some() && self.fed != Some(connection) {
            // Its turn comes in `feed`. While it waits its frame cannot come in, so no time passes.
            let session = self.session(connection).expect("it was there above");
            session.partial = None;
            session.starved = true;
            if !session.paused {
                session.paused = true;
                effects.push(ReactorEffect::Pause { connection });
            }
            self.starving.push_back(connection);
            self.gauges.hit(Bound::PartialFrames);
        } else if let Some(session) = self.session(connection)
            && session.paused
        {
            session.paused = false;
            effects.push(ReactorEffect::Resume { connection });
        }
    }

    /// Lets go of memory, and counts what is kept.
    fn release_chunk(&mut self, connection: ConnectionId) {
        let Some(session) = self.session(connection) else { return };
        let before = session.counted;
        session.release_chunk();
        session.counted = session.pinned();
        let after = session.counted;
        self.partial_bytes = self.partial_bytes - before + after;
    }

    /// Reads again from connections whose frames had to wait for room: as many as there is room for, or
    /// one, so that its frame is completed or its time runs out.
    fn feed(&mut self, now: Instant, effects: &mut Vec<ReactorEffect>) {
        let left = PARTIAL_BYTES_MAX.saturating_sub(self.partial_bytes);
        let mut room = left / RECEIVE_CHUNK_SIZE;
        let fed = self.fed.and_then(|connection| self.session(connection));
        if fed.is_none_or(|session| session.partial.is_none()) {
            self.fed = None;
        }
        while (room > 0 || self.fed.is_none())
            && let Some(connection) = self.starving.pop_front()
        {
            let Some(session) = self.session(connection) else { continue };
            session.starved = false;
            if room == 0 {
                self.fed = Some(connection);
            }
            room = room.saturating_sub(1);
            self.take_frames(now, connection, effects);
        }
    }

    fn take_frame(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        header: wire::Header,
        body: Frame,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let stopping = self.stopping;
        let Some(session) = self.session(connection) else { return };
        match (session.phase, header.kind) {
            (Phase::Handshake, Kind::Hello) => self.greet(connection, &header, &body, effects),
            (Phase::Handshake, kind) => {
                let message = format!(
                    "the first frame of a connection must be Hello, this one is {kind:?}; \
                     send Hello and wait for its reply"
                );
                let refused = Refused::new(Status::ProtocolError, message);
                self.refuse(connection, header.request, &refused);
                self.close(connection, CloseReason::Protocol, effects);
            }
            (Phase::Closing, _) => {}
            (Phase::Open, Kind::Ping | Kind::Cancel | Kind::WatchProgress | Kind::Hello)
                if !body.is_empty() || header.flags.has_stamp() || header.kind == Kind::Hello =>
            {
                let message = format!("a frame of kind {:?} cannot stand here", header.kind);
                let refused = Refused::new(Status::ProtocolError, message);
                self.refuse(connection, header.request, &refused);
                self.close(connection, CloseReason::Protocol, effects);
            }
            (Phase::Open, Kind::Ping) => {
                let (session, writer, _) = self.session_and_writer(connection);
                writer.ping(&mut session.replies, header.request);
                self.mark_dirty(connection);
            }
            (Phase::Open, Kind::WatchProgress) => self.ask_progress(connection, header.request),
            (Phase::Open, Kind::Cancel)
                if self.watches.find(connection, header.request).is_some() =>
            {
                let message = "cancelled by the client".into();
                self.end_watch(connection, header.request, Status::Cancelled, message, effects);
            }
            (Phase::Open, Kind::Cancel) => {
                // Only reads can still be called back. The store answers `Cancelled` for what it
                // finds; what it does not find is answered by its outcome.
                let ticket = self.ticket(connection, &header, 0);
                let mine = |read: &ReadRequest| {
                    read.ticket.connection == connection && read.ticket.request == header.request
                };
                let queued = self.session(connection).and_then(|session| {
                    let waiting = &mut session.reads_waiting;
                    let place = waiting.iter().position(|(read, _)| mine(read))?;
                    // It is answered like one that runs.
                    session.reads_running += 1;
                    waiting.remove(place).map(|(read, _)| read)
                });
                let lists = [&mut self.reads_next, &mut self.reads_asked];
                let asked = queued.or_else(|| {
                    lists.into_iter().find_map(|reads| {
                        let place = reads.iter().position(mine)?;
                        Some(reads.remove(place))
                    })
                });
                match asked {
                    Some(read) => {
                        let message = "cancelled by the client before it ran".into();
                        let refused = Refused::new(Status::Cancelled, message);
                        let body = ReplyBody::Refused(refused);
                        self.answer(now, Reply { ticket: read.ticket, body }, effects);
                    }
                    None => effects.push(ReactorEffect::ToStore(StoreEvent::Cancel { ticket })),
                }
            }
            (Phase::Open, _) if stopping => {
                let message = "the server is stopping; send the request to another member or \
                               again when it is back"
                    .into();
                let refused = Refused::new(Status::ShuttingDown, message);
                self.refuse(connection, header.request, &refused);
            }
            (Phase::Open, kind) => self.take_request(now, connection, &header, kind, body, effects),
        }
    }

    fn greet(
        &mut self,
        connection: ConnectionId,
        header: &wire::Header,
        body: &Frame,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let body_size_max = base::limits::body_size_max(self.config.value_size_max);
        let granted = match Request::verify(Kind::Hello, body, &VerifyLimits::REQUEST) {
            Ok(Request::Hello(hello)) => translate::check_hello(&hello, self.config.cluster),
            Ok(_) => unreachable!("a Hello was verified as one"),
            Err(error) => Err(decode_refusal(&error)),
        };
        match granted {
            Ok(version) => {
                let names = (self.config.cluster, self.config.member);
                let (value_size_max, bytes_max) =
                    (self.config.value_size_max, self.config.bytes_max);
                let (session, writer, leader) = self.session_and_writer(connection);
                let reply =
                    translate::hello_reply(version, names, value_size_max, bytes_max, leader);
                session.phase = Phase::Open;
                session.splitter.agree(version, body_size_max);
                writer.hello(&mut session.replies, header.request, &reply);
                self.mark_dirty(connection);
            }
            Err(refused) => {
                self.refuse(connection, header.request, &refused);
                self.close(connection, CloseReason::Protocol, effects);
            }
        }
    }

    fn take_request(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        header: &wire::Header,
        kind: Kind,
        body: Frame,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let ticket = self.ticket(connection, header, body.len());
        let deadline = (header.deadline_ms > 0)
            .then(|| now.after(Duration::from_millis(u64::from(header.deadline_ms))));
        let stamped = header.flags.has_stamp();
        let message =
            if stamped { translate::message_behind_stamp(kind, &body) } else { Ok(&*body) };
        let message = match message {
            Ok(message) => message,
            Err((refused, closes)) => {
                self.refuse(connection, header.request, &refused);
                if closes {
                    self.close(connection, CloseReason::Protocol, effects);
                }
                return;
            }
        };
        let plan = match Request::verify(kind, message, &VerifyLimits::REQUEST) {
            Ok(request) => {
                let limits = kv::Limits {
                    value_size_max: self.config.value_size_max,
                    txn_ops_max: self.config.txn_ops_max,
                };
                translate::plan(&request, &limits)
            }
            Err(error) => {
                self.refuse(connection, header.request, &decode_refusal(&error));
                if error.closes() {
                    self.close(connection, CloseReason::Protocol, effects);
                }
                return;
            }
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(refused) => {
                self.refuse(connection, header.request, &refused);
                return;
            }
        };
        self.take_credit(connection, body.len());
        match plan {
            translate::Plan::Propose { kind, frees_space } => {
                let frame = if kind.is_timed() { with_room(&body, stamped) } else { body };
                let event =
                    ConsensusEvent::Propose { ticket, kind, stamped, frees_space, frame, deadline };
                effects.push(ReactorEffect::ToConsensus(event));
            }
            translate::Plan::Register => {
                let frame = Frame::copy_from_slice(&self.config.clients_max.to_le_bytes());
                let (kind, stamped, frees_space) = (EntryKind::Register, false, false);
                let event =
                    ConsensusEvent::Propose { ticket, kind, stamped, frees_space, frame, deadline };
                effects.push(ReactorEffect::ToConsensus(event));
            }
            translate::Plan::KeepAlive => {
                self.gather_renewals(ticket, &body, deadline);
            }
            translate::Plan::Read { what, linearizable } => {
                let ticket = Ticket { reads: true, ..ticket };
                let applied_min = LogIndex::ZERO;
                let frame = if stamped { body.slice(STAMP_SIZE..) } else { body };
                let read = ReadRequest { ticket, frame, what, time: 0, applied_min, deadline };
                self.start_or_queue(connection, read, linearizable, effects);
            }
            translate::Plan::Watch(plan) => self.begin_watch(now, ticket, &body, &plan, effects),
            translate::Plan::Status => {
                effects.push(ReactorEffect::ToConsensus(ConsensusEvent::Status { ticket }));
            }
            translate::Plan::Limits => self.ask_limits(ticket, effects),
            translate::Plan::Admin(request) => {
                let event = ConsensusEvent::Admin { ticket, request };
                effects.push(ReactorEffect::ToConsensus(event));
            }
        }
    }

    /// Gives a read to the store, by way of consensus if it is linearizable, unless its connection has
    /// as many there as it may.
    fn start_or_queue(
        &mut self,
        connection: ConnectionId,
        read: ReadRequest,
        linearizable: bool,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let Some(session) = self.session(connection) else { return };
        if !session.may_read() {
            session.reads_waiting.push_back((read, linearizable));
            return;
        }
        session.reads_running += 1;
        if linearizable {
            self.reads_next.push(read);
        } else {
            effects.push(ReactorEffect::ToStore(StoreEvent::Read(read)));
        }
    }

    /// Starts reads that waited, as many as may run now.
    fn start_waiting(&mut self, connection: ConnectionId, effects: &mut Vec<ReactorEffect>) {
        while let Some(session) = self.session(connection)
            && session.may_read()
            && let Some((read, linearizable)) = session.reads_waiting.pop_front()
        {
            self.start_or_queue(connection, read, linearizable, effects);
        }
    }

    fn ticket(&self, connection: ConnectionId, header: &wire::Header, size: usize) -> Ticket {
        let size = u32::try_from(size).expect("a body is below 4 GiB");
        let reads = matches!(header.kind, Kind::Range);
        let (reactor, request) = (self.config.id, header.request);
        Ticket { reactor, connection, request, size, reads, watches: false }
    }

    /// Puts an answer into the send buffer of its connection, if that is still there.
    pub(crate) fn answer(&mut self, now: Instant, reply: Reply, effects: &mut Vec<ReactorEffect>) {
        if is_batch(reply.ticket) {
            return self.renewals_answered(now, reply, effects);
        }
        if reply.ticket.watches {
            return self.watch_answer(reply, effects);
        }
        let Reply { ticket, body } = reply;
        let connection = ticket.connection;
        let is_piece = matches!(body, ReplyBody::Piece(_));
        let Some(session) = self.session(connection) else {
            if is_piece {
                effects.push(ReactorEffect::ToStore(StoreEvent::Cancel { ticket }));
            }
            return;
        };
        if is_piece {
            // The next piece is asked for when the socket has had this one.
            if session.stalled_reads.is_empty() {
                self.continuing.push(connection);
            }
            let session = self.session(connection).expect("it was there above");
            session.stalled_reads.push(ticket);
        } else {
            self.return_credit(connection, ticket.size);
            let session = self.session(connection).expect("it was there above");
            session.reads_running -= usize::from(ticket.reads);
            if session.paused || session.ended || !session.reads_waiting.is_empty() {
                self.runnable.push(connection);
            }
        }
        let (session, writer, leader) = self.session_and_writer(connection);
        let before = session.replies.len();
        match body {
            ReplyBody::Put { revision } => {
                let revision = translate::count_of(revision);
                writer.put(&mut session.replies, ticket.request, revision, None);
            }
            ReplyBody::Frames(bytes) | ReplyBody::Piece(bytes) => {
                Self::append(&mut session.replies, bytes);
            }
            ReplyBody::Watch(_) | ReplyBody::Renewed { .. } => {
                unreachable!("such an answer has a ticket of its own")
            }
            ReplyBody::Refused(refused) => {
                let (replies, request) = (&mut session.replies, ticket.request);
                translate::write_refused(writer, replies, request, &refused, leader);
            }
        }
        self.added(connection, before, effects);
    }

    /// Replies have been added to those of a connection, which had `before` bytes.
    pub(crate) fn added(
        &mut self,
        connection: ConnectionId,
        before: usize,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let Some(session) = self.session(connection) else { return };
        if session.blocked_since.is_some() {
            let added = session.replies.len() - before;
            session.unsent += added;
            self.unsent += added;
            if self.unsent > UNSENT_MAX {
                self.gauges.hit(Bound::UnsentReplies);
                self.close(connection, CloseReason::SlowReader, effects);
                return;
            }
        }
        self.mark_dirty(connection);
    }

    /// Asks for the next pieces of long answers whose last one the socket has taken.
    fn continue_reads(&mut self, effects: &mut Vec<ReactorEffect>) {
        for connection in mem::take(&mut self.continuing) {
            let Some(session) = self.session(connection) else { continue };
            if session.blocked_since.is_none() {
                for ticket in mem::take(&mut session.stalled_reads) {
                    effects.push(ReactorEffect::ToStore(StoreEvent::Continue { ticket }));
                }
            }
        }
    }

    /// Credits of a connection came back: what it has sent meanwhile is looked at.
    pub(crate) fn run_again(&mut self, connection: ConnectionId) {
        self.runnable.push(connection);
    }

    /// A long answer of a connection goes on when its socket has taken this piece.
    pub(crate) fn go_on(&mut self, connection: ConnectionId) {
        self.continuing.push(connection);
    }

    pub(crate) fn append(replies: &mut Vec<u8>, bytes: Vec<u8>) {
        if replies.is_empty() {
            *replies = bytes;
        } else {
            replies.extend_from_slice(&bytes);
        }
    }

    pub(crate) fn refuse(
        &mut self,
        connection: ConnectionId,
        request: base::RequestId,
        refused: &Refused,
    ) {
        if self.session(connection).is_none() {
            return;
        }
        let (session, writer, leader) = self.session_and_writer(connection);
        translate::write_refused(writer, &mut session.replies, request, refused, leader);
        self.mark_dirty(connection);
    }

    pub(crate) fn session_and_writer(
        &mut self,
        connection: ConnectionId,
    ) -> (&mut Session, &mut ReplyWriter, LeaderHint<'_>) {
        let slot = usize::try_from(connection.slot).expect("a slot fits usize");
        let session = self.sessions[slot].as_mut().expect("the caller found the session");
        let (member, address) = (self.leader.0, self.leader.1.as_str());
        // Without an address a client stays where it is.
        let address = if member == self.config.member { "" } else { address };
        (session, &mut self.writer, LeaderHint { member, address })
    }

    pub(crate) fn mark_dirty(&mut self, connection: ConnectionId) {
        if let Some(session) = self.session(connection)
            && !session.dirty
        {
            session.dirty = true;
            self.dirty.push(connection);
        }
    }

    pub(crate) fn close(
        &mut self,
        connection: ConnectionId,
        reason: CloseReason,
        effects: &mut Vec<ReactorEffect>,
    ) {
        self.send_replies(connection, effects);
        // A connection that closes for another reason may still turn out not to read.
        if let Some(session) = self.session(connection)
            && (session.phase != Phase::Closing || reason == CloseReason::SlowReader)
        {
            session.phase = Phase::Closing;
            effects.push(ReactorEffect::Close { connection, reason });
        }
    }

    fn send_replies(&mut self, connection: ConnectionId, effects: &mut Vec<ReactorEffect>) {
        let Some(session) = self.session(connection) else { return };
        session.dirty = false;
        if !session.replies.is_empty() {
            let bytes = mem::take(&mut session.replies);
            effects.push(ReactorEffect::Send { connection, bytes });
        }
    }

    fn drained(&mut self, connection: ConnectionId, effects: &mut Vec<ReactorEffect>) {
        let Some(session) = self.session(connection) else { return };
        session.blocked_since = None;
        let unsent = mem::take(&mut session.unsent);
        for ticket in mem::take(&mut session.stalled_reads) {
            effects.push(ReactorEffect::ToStore(StoreEvent::Continue { ticket }));
        }
        self.runnable.push(connection);
        self.resuming.push(connection);
        self.unsent -= unsent;
    }

    fn drop_session(&mut self, connection: ConnectionId, effects: &mut Vec<ReactorEffect>) {
        let Some(session) = self.session(connection) else { return };
        let (unsent, counted, requests) = (session.unsent, session.counted, session.requests());
        let bytes = session.bytes();
        self.unsent -= unsent;
        self.partial_bytes -= counted;
        self.gauges.give_back(Bound::Connections, 1);
        self.gauges.give_back(Bound::Requests, requests);
        self.gauges.give_back(Bound::RequestBytes, bytes);
        // Those that consensus has been asked about are dropped when it answers.
        self.reads_next.retain(|read| read.ticket.connection != connection);
        let watched = self.drop_watches(connection);
        if requests > 0 || watched {
            let reactor = self.config.id;
            effects.push(ReactorEffect::ToStore(StoreEvent::Forget { reactor, connection }));
        }
        let slot = usize::try_from(connection.slot).expect("a slot fits usize");
        self.sessions[slot] = None;
    }
}

/// The body of a write with room for the log time in front of its message.
fn with_room(body: &Frame, stamped: bool) -> Frame {
    let (stamp, message) = body.split_at(if stamped { STAMP_SIZE } else { 0 });
    let mut out = Vec::with_capacity(body.len() + 8);
    out.extend_from_slice(stamp);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(message);
    Frame::from(out)
}

fn decode_refusal(error: &DecodeError) -> Refused {
    Refused::new(error.status(), format!("{error}"))
}

impl Role for Reactor {
    type Event = ReactorEvent;
    type Effect = ReactorEffect;

    fn handle(&mut self, now: Instant, event: ReactorEvent, effects: &mut Vec<ReactorEffect>) {
        match event {
            ReactorEvent::Accepted { connection } => self.accept(now, connection),
            ReactorEvent::TurnedAway => self.gauges.hit(Bound::Connections),
            ReactorEvent::Received { connection, bytes } => {
                if let Some(session) = self.session(connection) {
                    session.receive(bytes);
                    self.take_frames(now, connection, effects);
                }
            }
            ReactorEvent::Ended { connection } => {
                if let Some(session) = self.session(connection) {
                    session.ended = true;
                    session.partial = None;
                    self.take_frames(now, connection, effects);
                }
            }
            ReactorEvent::Closed { connection } => self.drop_session(connection, effects),
            ReactorEvent::Blocked { connection } => {
                if let Some(session) = self.session(connection) {
                    session.blocked_since.get_or_insert(now);
                }
            }
            ReactorEvent::Progressed { connection } => {
                if let Some(session) = self.session(connection)
                    && session.blocked_since.is_some()
                {
                    session.blocked_since = Some(now);
                }
            }
            ReactorEvent::Drained { connection } => self.drained(connection, effects),
            ReactorEvent::ReadGranted { index, time } => {
                self.is_asking = false;
                self.questions.answered(now);
                for mut read in mem::take(&mut self.reads_asked) {
                    if self.session(read.ticket.connection).is_some() {
                        let early = Mutant::ReadBeforeApplied.is_on();
                        read.time = time;
                        read.applied_min = if early { LogIndex::ZERO } else { index };
                        effects.push(ReactorEffect::ToStore(StoreEvent::Read(read)));
                    }
                }
            }
            ReactorEvent::ReadRefused(refused) => {
                self.is_asking = false;
                self.questions.refused(now);
                for read in mem::take(&mut self.reads_asked) {
                    let body = ReplyBody::Refused(refused.clone());
                    self.answer(now, Reply { ticket: read.ticket, body }, effects);
                }
            }
            ReactorEvent::Replies(replies) => {
                for reply in replies {
                    self.answer(now, reply, effects);
                }
            }
            ReactorEvent::Published(recorded) => self.publish(&recorded, effects),
            ReactorEvent::Jumped(revision) => self.jump(revision),
            ReactorEvent::Leader { term: _, member, address } => self.leader = (member, address),
            ReactorEvent::HttpUnsent { size, highest, cuts } => {
                self.gauges.see_size(Bound::HttpUnsent, highest);
                self.gauges.see_size(Bound::HttpUnsent, size);
                self.gauges.set_hits(Bound::HttpUnsent, cuts);
            }
            ReactorEvent::Stop => {
                self.stopping = true;
                self.end_all_watches(effects);
            }
        }
    }

    fn flush(&mut self, now: Instant, effects: &mut Vec<ReactorEffect>) {
        self.continue_reads(effects);
        self.tend_watches(now, effects);
        let mut runnable = mem::take(&mut self.runnable);
        for connection in runnable.drain(..) {
            self.start_waiting(connection, effects);
            self.take_frames(now, connection, effects);
        }
        self.runnable = runnable;
        if !self.starving.is_empty() {
            self.feed(now, effects);
        }
        self.propose_renewals(effects);
        if !self.is_asking && !self.reads_next.is_empty() {
            self.is_asking = true;
            self.questions.ask(now);
            mem::swap(&mut self.reads_asked, &mut self.reads_next);
            let event = ConsensusEvent::ReadIndex { reactor: self.config.id };
            effects.push(ReactorEffect::ToConsensus(event));
        }
        if self.sweep_at.is_some_and(|at| now >= at) {
            self.sweep(now, effects);
        }
        let mut dirty = mem::take(&mut self.dirty);
        for connection in dirty.drain(..) {
            self.send_replies(connection, effects);
        }
        self.dirty = dirty;
        self.gauges.see_size(Bound::UnsentReplies, self.unsent);
        self.gauges.see_size(Bound::PartialFrames, self.partial_bytes);
    }

    fn deadline(&self) -> Option<Instant> {
        if !self.continuing.is_empty() || !self.resuming.is_empty() {
            return Some(Instant::ORIGIN);
        }
        [self.sweep_at, self.progress_at].into_iter().flatten().min()
    }
}
