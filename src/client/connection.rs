//! One connection after its handshake: frames out, frames in, credits, and what is in flight.
//!
//! Every request that was queued here ends in exactly one final [`Completion`], also when the
//! connection breaks or time runs out. The connection decides nothing about repeating.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base::{Frame, RequestId, Stamp};
use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use wire::{Call, HEADER_SIZE, Header, Kind, Reply, RequestEncoder, Splitter, Status};

use crate::client::{Completion, Server};
use crate::error::{Error, Refusal};

/// Bytes that one read may bring.
const READ_SIZE: usize = 64 << 10;

/// Queued bytes above which a submit writes to the socket.
const WRITE_SIZE: usize = 64 << 10;

/// How long a blocked write waits before it looks whether replies have to be taken first.
const WRITE_STEP: Duration = Duration::from_millis(10);

/// After so long without a byte from a server that owes an answer it is asked for a sign of life, where
/// there are other servers to turn to; after the same time again the connection counts as lost. To both comes
/// the time that the greatest request under way may take on a slow link.
const SILENCE: Duration = Duration::from_secs(1);

/// Bytes a second of such a link.
const SLOW_LINK: u64 = 256 << 10;

/// The request that asks for it. No client counts as far.
const SIGN_OF_LIFE: RequestId = RequestId::new(u64::MAX);

/// Reads in a row while a write is blocked.
const DRAIN_READS: usize = 64;

/// After this long without traffic the kernel asks whether the other side still lives.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A reply frame, checked as a frame; its body is verified when it is looked at.
#[derive(Clone, Debug)]
pub struct Answer {
    header: Header,
    body: Frame,
}

impl Answer {
    /// The reply in the frame. Errors: the body is malformed; the server is broken.
    pub fn reply(&self) -> Result<Reply<'_>, wire::DecodeError> {
        Reply::verify(&self.header, &self.body)
    }

    /// The kind of the frame.
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// True if more pieces of this answer follow.
    pub fn has_more(&self) -> bool {
        self.header.flags.has_more()
    }

    /// True if this is what came of a write when it was sent before.
    pub fn is_repeated(&self) -> bool {
        self.header.flags.is_repeated()
    }

    /// Bytes of the frame.
    pub fn size(&self) -> usize {
        HEADER_SIZE + self.body.len()
    }
}

/// A request that has no final result yet.
struct Flight {
    /// Repeating it is harmless.
    is_read: bool,
    /// Bytes of its frame.
    size: usize,
    /// How many bytes of this connection have to be sent for the whole frame to be.
    end: u64,
    /// When it has waited long enough.
    deadline: Instant,
    /// Its time ran out: its answer, if one still comes, only gives the credit back.
    is_abandoned: bool,
}

/// Request ids count up from 1: a multiplication spreads them well enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Why a connection is of no more use.
enum Broken {
    Socket(io::Error),
    Protocol(wire::DecodeError),
    Refused(Refusal),
}

/// A connection.
pub(crate) struct Connection {
    endpoint: String,
    stream: TcpStream,
    server: Server,
    encoder: RequestEncoder,
    splitter: Splitter,
    timeout: Duration,
    /// Frames that the socket has not taken yet, from `output_sent` on.
    output: Vec<u8>,
    output_sent: usize,
    /// Bytes queued and sent since the connection began.
    queued: u64,
    sent: u64,
    /// What a read brings, before it is appended to `input`.
    chunk: Box<[u8]>,
    input: BytesMut,
    flights: HashMap<u64, Flight, BuildHasherDefault<IdHasher>>,
    /// Those of them whose time ran out.
    abandoned: usize,
    /// Bytes of the frames in flight.
    flights_size: usize,
    /// When deadlines are looked at next.
    expire_at: Instant,
    /// Results that were not waited for when they came.
    ready: VecDeque<Completion>,
    is_broken: bool,
    /// There are others to turn to when this server says nothing.
    has_others: bool,
    /// When bytes came last, or the server began to owe an answer.
    heard_at: Instant,
    /// When it was asked for a sign of life, if no bytes have come since.
    asked_at: Option<Instant>,
}

/// What a connection consists of after its handshake.
pub(crate) struct Parts {
    pub(crate) stream: TcpStream,
    pub(crate) server: Server,
    pub(crate) encoder: RequestEncoder,
    pub(crate) splitter: Splitter,
    /// Bytes behind the answer to the handshake.
    pub(crate) input: BytesMut,
}

impl Connection {
    /// Shakes hands on a connected socket. Errors: see [`Error`]; no request has been sent.
    pub(crate) fn open(
        endpoint: &str,
        stream: TcpStream,
        hello: &wire::Hello<'_>,
        connect_timeout: Duration,
        request_timeout: Duration,
    ) -> Result<Self, Error> {
        let unreachable = |source| Error::Unreachable { endpoint: endpoint.to_owned(), source };
        prepare(&stream, connect_timeout).map_err(unreachable)?;
        let now = Instant::now();
        let mut connection = Self {
            endpoint: endpoint.to_owned(),
            stream,
            server: Server::default(),
            encoder: RequestEncoder::new(),
            splitter: Splitter::new(),
            timeout: request_timeout,
            output: Vec::new(),
            output_sent: 0,
            queued: 0,
            sent: 0,
            chunk: vec![0; READ_SIZE].into_boxed_slice(),
            input: BytesMut::new(),
            flights: HashMap::default(),
            abandoned: 0,
            flights_size: 0,
            expire_at: now,
            ready: VecDeque::new(),
            is_broken: false,
            has_others: false,
            heard_at: now,
            asked_at: None,
        };
        let deadline = now + connect_timeout;
        connection.server = connection.shake_hands(hello, deadline)?;
        connection.set_timeout(request_timeout).map_err(unreachable)?;
        Ok(connection)
    }

    fn shake_hands(&mut self, hello: &wire::Hello<'_>, deadline: Instant) -> Result<Server, Error> {
        let endpoint = self.endpoint.clone();
        let unreachable = |source| Error::Unreachable { endpoint: endpoint.clone(), source };
        let protocol = |source| Error::Protocol { endpoint: endpoint.clone(), source };
        self.encoder
            .encode(&mut self.output, RequestId::new(0), 0, &Call::Hello(*hello))
            .map_err(Error::Encode)?;
        self.stream.write_all(&self.output).map_err(unreachable)?;
        self.output.clear();
        let (header, body) = loop {
            if let Some(frame) = self.splitter.next(&mut self.input).map_err(protocol)? {
                break frame;
            }
            let outcome = match self.fill() {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => Ok(()),
                Err(error) if is_timeout(&error) => Ok(()),
                Err(error) => Err(error),
            };
            outcome.map_err(unreachable)?;
            if Instant::now() >= deadline {
                return Err(unreachable(ErrorKind::TimedOut.into()));
            }
        };
        match Reply::verify(&header, &body).map_err(protocol)? {
            Reply::Hello(reply) => {
                // The version is one of those that the hello named, or the server is broken.
                let version = u8::try_from(reply.version)
                    .ok()
                    .filter(|_| (hello.version_min..=hello.version_max).contains(&reply.version));
                let Some(version) = version else {
                    return Err(protocol(wire::DecodeError::UnknownNumber {
                        field: "version",
                        number: u64::from(reply.version),
                    }));
                };
                let size = |size| usize::try_from(size).unwrap_or(usize::MAX);
                // What the server announces does not make this side buffer more than the protocol
                // ever needs.
                let reply_size_max =
                    size(reply.reply_body_size_max).min(wire::limits::REPLY_BODY_SIZE_MAX);
                self.encoder.agree(version, size(reply.request_body_size_max));
                self.splitter.agree(version, reply_size_max);
                Ok(Server::new(&self.endpoint, &reply))
            }
            Reply::Refused(refused) => Err(Error::Refused(refused.into())),
            Reply::Ping
            | Reply::Status(_)
            | Reply::Limits(_)
            | Reply::Snapshot(_)
            | Reply::Register(_)
            | Reply::Put(_)
            | Reply::Range(_)
            | Reply::DeleteRange(_)
            | Reply::Txn(_)
            | Reply::Compact(_)
            | Reply::Watch(_)
            | Reply::LeaseGrant(_)
            | Reply::LeaseRevoke(_)
            | Reply::LeaseKeepAlive(_)
            | Reply::LeaseTimeToLive(_)
            | Reply::LeaseList(_)
            | Reply::MemberList(_)
            | Reply::MemberChange(_)
            | Reply::MoveLeader(_)
            | Reply::Alarm(_) => {
                Err(protocol(wire::DecodeError::UnexpectedKind { kind: header.kind }))
            }
        }
    }

    /// The parts of a connection on which nothing has been asked yet, for who runs it otherwise.
    pub(crate) fn into_parts(self) -> Parts {
        let Self { stream, server, encoder, splitter, input, .. } = self;
        Parts { stream, server, encoder, splitter, input }
    }

    /// What the server granted.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// There are other servers to turn to: this one may not be silent for long while it owes an answer.
    pub(crate) fn expect_signs_of_life(&mut self) -> io::Result<()> {
        self.has_others = true;
        self.set_timeout(self.timeout)
    }

    /// How long one read waits.
    fn read_timeout(&self) -> Duration {
        let quarter = (self.timeout / 4).max(Duration::from_millis(1));
        if self.has_others { quarter.min(SILENCE / 4) } else { quarter }
    }

    /// True if nothing can be sent any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Requests without a final result, those apart whose result only waits to be taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len() - self.abandoned
    }

    /// True if results wait to be taken or will come.
    pub(crate) fn has_results(&self) -> bool {
        !self.ready.is_empty() || self.in_flight() > 0
    }

    /// Requests that take part in the next results end after `timeout` from now on.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        self.stream.set_read_timeout(Some(self.read_timeout()))
    }

    /// True if a request whose frame has `size` bytes may be sent now. Where nothing is in flight
    /// one request always may.
    fn has_credit(&self, size: usize) -> bool {
        let bytes_max = usize::try_from(self.server.bytes_max).unwrap_or(usize::MAX);
        let requests_max = usize::try_from(self.server.requests_max).unwrap_or(usize::MAX);
        self.flights.is_empty()
            || (self.flights.len() < requests_max
                && size <= bytes_max.saturating_sub(self.flights_size))
    }

    /// True if the server's credits allow one more small request.
    pub(crate) fn can_submit(&self) -> bool {
        !self.is_broken && self.has_credit(HEADER_SIZE)
    }

    /// Queues a request that may take `timeout`. It is sent with the next flush, receive, or when
    /// much is queued.
    pub(crate) fn submit(
        &mut self,
        request: RequestId,
        stamp: Option<&Stamp>,
        call: &Call<'_>,
        timeout: Duration,
    ) -> Result<(), Error> {
        assert!(!self.is_broken, "submit on a broken connection");
        // 0 would mean no deadline at all.
        let deadline_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let before = self.output.len();
        self.encoder
            .encode_with(&mut self.output, request, deadline_ms, stamp, call)
            .map_err(Error::Encode)?;
        let size = self.output.len() - before;
        if !self.has_credit(size) {
            self.output.truncate(before);
            return Err(Error::CreditsUsed);
        }
        self.queued += u64::try_from(size).expect("usize has at most 64 bits");
        if self.flights.is_empty() {
            self.heard_at = Instant::now();
        }
        self.flights_size += size;
        let flight = Flight {
            is_read: call.is_read(),
            size,
            end: self.queued,
            deadline: Instant::now() + timeout,
            is_abandoned: false,
        };
        self.flights.insert(request.get(), flight);
        if self.output.len() - self.output_sent >= WRITE_SIZE {
            self.flush();
        }
        Ok(())
    }

    /// Asks the server to give up a request; its result still comes. Does nothing for one that is
    /// not in flight.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        if !self.is_broken && self.flights.contains_key(&request.get()) {
            let before = self.output.len();
            self.encoder
                .encode(&mut self.output, request, 0, &Call::Cancel)
                .expect("a frame without a body is never too large");
            let size = self.output.len() - before;
            self.queued += u64::try_from(size).expect("usize has at most 64 bits");
        }
    }

    /// Sends what is queued. A failure shows in the results of what is in flight.
    ///
    /// While the socket takes nothing, replies are read: the server may have stopped reading until
    /// its own are taken.
    pub(crate) fn flush(&mut self) {
        let mut deadline = Instant::now() + self.timeout;
        while self.output_sent < self.output.len() && !self.is_broken {
            match self.stream.write(&self.output[self.output_sent..]) {
                Ok(0) => self.fail(Broken::Socket(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.output_sent += count;
                    self.sent += u64::try_from(count).expect("usize has at most 64 bits");
                    if self.output_sent < self.output.len() {
                        deadline = Instant::now() + self.timeout;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && Instant::now() < deadline => self.drain(),
                Err(error) => self.fail(Broken::Socket(error)),
            }
        }
        if self.output_sent == self.output.len() {
            self.output.clear();
            self.output_sent = 0;
        }
    }

    /// Takes the replies that are there, without waiting for more than a moment.
    fn drain(&mut self) {
        let quarter = self.read_timeout();
        // Errors show again when they matter: at the next read or write.
        if self.stream.set_read_timeout(Some(WRITE_STEP.min(quarter))).is_ok() {
            for _ in 0..DRAIN_READS {
                let count = self.read_once();
                while let Some(completion) = self.next_frame() {
                    self.ready.push_back(completion);
                }
                if count < READ_SIZE {
                    break;
                }
            }
            if let Err(error) = self.stream.set_read_timeout(Some(quarter)) {
                self.fail(Broken::Socket(error));
            }
        }
    }

    /// The next result, in the order in which they come; waits for it. `None`: nothing is in
    /// flight. One result of a request that is answered in pieces is not final
    /// ([`Completion::is_final`]).
    pub(crate) fn receive(&mut self) -> Option<Completion> {
        if let Some(completion) = self.ready.pop_front() {
            return Some(completion);
        }
        self.flush();
        loop {
            if let Some(completion) = self.ready.pop_front() {
                return Some(completion);
            }
            if let Some(completion) = self.next_frame() {
                return Some(completion);
            }
            if self.ready.is_empty() {
                if self.is_broken || self.in_flight() == 0 {
                    return None;
                }
                self.read_once();
                self.expire();
            }
        }
    }

    /// The next result of `request`; results of others wait.
    pub(crate) fn receive_for(&mut self, request: RequestId) -> Option<Completion> {
        let waiting = self.ready.iter().position(|completion| completion.request == request);
        if let Some(index) = waiting {
            return self.ready.remove(index);
        }
        let mut others = std::mem::take(&mut self.ready);
        let found = loop {
            match self.receive() {
                Some(completion) if completion.request == request => break Some(completion),
                Some(completion) => others.push_back(completion),
                None => break None,
            }
        };
        others.append(&mut self.ready);
        self.ready = others;
        found
    }

    /// Reads once from the socket; gives the number of bytes, 0 also when none came in time.
    fn read_once(&mut self) -> usize {
        match self.fill() {
            Ok(0) => self.fail(Broken::Socket(ErrorKind::UnexpectedEof.into())),
            Ok(count) => return count,
            Err(error) if is_timeout(&error) => self.listen(),
            Err(error) => self.fail(Broken::Socket(error)),
        }
        0
    }

    /// The read has brought nothing: a server that owes an answer is asked for a sign of life, and left
    /// when it gives none. Without credit it need not read the question.
    fn listen(&mut self) {
        let silent = self.heard_at.elapsed();
        if !self.has_others || self.is_broken || self.flights.is_empty() || silent < SILENCE {
            return;
        }
        let greatest = self.flights.values().map(|flight| flight.size).max().unwrap_or(0);
        let greatest = u64::try_from(greatest).expect("usize has at most 64 bits");
        let patience = SILENCE + Duration::from_millis(greatest * 1_000 / SLOW_LINK);
        if let Some(asked_at) = self.asked_at {
            if asked_at.elapsed() >= patience {
                self.fail(Broken::Socket(ErrorKind::TimedOut.into()));
            }
        } else if silent >= patience {
            self.ask_for_life();
        }
    }

    /// Asks for a sign of life, unless one that was asked for before is still owed.
    fn ask_for_life(&mut self) {
        if !self.flights.contains_key(&SIGN_OF_LIFE.get()) {
            if !self.has_credit(HEADER_SIZE) {
                return;
            }
            let timeout = self.timeout;
            let asked = self.submit(SIGN_OF_LIFE, None, &Call::Ping, timeout);
            debug_assert!(asked.is_ok(), "there is credit for it");
            if let Some(flight) = self.flights.get_mut(&SIGN_OF_LIFE.get()) {
                flight.is_abandoned = true;
                self.abandoned += 1;
            }
            self.flush();
        }
        self.asked_at = Some(Instant::now());
    }

    /// Reads once; gives the number of bytes, 0 at the end of the stream.
    fn fill(&mut self) -> io::Result<usize> {
        let count = self.stream.read(&mut self.chunk)?;
        self.heard_at = Instant::now();
        self.asked_at = None;
        // Room for the rest of a long frame at once, instead of by doubling.
        self.input.reserve(count.max(self.splitter.missing(&self.input)));
        self.input.extend_from_slice(&self.chunk[..count]);
        Ok(count)
    }

    /// The result that the next whole frame brings, if it brings one.
    fn next_frame(&mut self) -> Option<Completion> {
        while !self.is_broken {
            match self.splitter.next(&mut self.input) {
                Ok(Some((header, body))) => {
                    if let Some(completion) = self.complete(header, body) {
                        return Some(completion);
                    }
                }
                Ok(None) => return None,
                Err(error) => self.fail(Broken::Protocol(error)),
            }
        }
        None
    }

    fn complete(&mut self, header: Header, body: Frame) -> Option<Completion> {
        let request = header.request;
        let answer = Answer { header, body };
        let refusal = if header.kind == Kind::Refused {
            match answer.reply() {
                Ok(Reply::Refused(refused)) => Some(Refusal::from(refused)),
                Ok(_) => unreachable!("the kind of the frame is Refused"),
                Err(error) => {
                    self.fail(Broken::Protocol(error));
                    return None;
                }
            }
        } else {
            None
        };
        let Some(flight) = self.flights.get_mut(&request.get()) else {
            // It answers nothing that is known. A refusal of the whole connection says why the
            // server is about to close it.
            match refusal {
                Some(refusal) if request.get() == 0 => self.fail(Broken::Refused(refusal)),
                Some(_) | None => {
                    let kind = header.kind;
                    self.fail(Broken::Protocol(wire::DecodeError::UnexpectedKind { kind }));
                }
            }
            return None;
        };
        let is_final = !answer.has_more();
        let is_abandoned = flight.is_abandoned;
        if is_final {
            let size = flight.size;
            self.flights.remove(&request.get());
            self.flights_size -= size;
            self.abandoned -= usize::from(is_abandoned);
        } else {
            // The server is at it: the time counts from here.
            flight.deadline = Instant::now() + self.timeout;
        }
        if is_abandoned {
            return None;
        }
        let result = match refusal {
            None => Ok(answer),
            Some(refusal) if refusal.status == Status::Unknown => {
                Err(Error::OutcomeUnknown { reason: refusal.message })
            }
            Some(refusal) => Err(Error::Refused(refusal)),
        };
        Some(Completion { request, is_final, was_sent: true, result })
    }

    /// Ends the requests whose time has run out.
    fn expire(&mut self) {
        let now = Instant::now();
        if now < self.expire_at {
            return;
        }
        self.expire_at = now + self.timeout / 4;
        let sent = self.sent;
        for (request, flight) in &mut self.flights {
            if flight.is_abandoned || now < flight.deadline {
                continue;
            }
            flight.is_abandoned = true;
            self.abandoned += 1;
            let was_sent = flight.end <= sent;
            let error = if flight.is_read || !was_sent {
                Error::TimedOut
            } else {
                Error::OutcomeUnknown { reason: "no answer in time".to_owned() }
            };
            let request = RequestId::new(*request);
            self.ready.push_back(Completion {
                request,
                is_final: true,
                was_sent,
                result: Err(error),
            });
        }
    }

    /// Ends everything in flight: the connection is of no more use.
    fn fail(&mut self, broken: Broken) {
        if self.is_broken {
            return;
        }
        self.is_broken = true;
        let mut flights: Vec<_> = self.flights.drain().collect();
        flights.sort_unstable_by_key(|(request, _)| *request);
        self.flights_size = 0;
        self.abandoned = 0;
        for (request, flight) in flights {
            if flight.is_abandoned {
                continue;
            }
            let was_sent = flight.end <= self.sent;
            let error = if flight.is_read || !was_sent {
                broken.error(&self.endpoint)
            } else {
                Error::OutcomeUnknown { reason: broken.error(&self.endpoint).to_string() }
            };
            let request = RequestId::new(request);
            self.ready.push_back(Completion {
                request,
                is_final: true,
                was_sent,
                result: Err(error),
            });
        }
    }
}

impl Broken {
    fn error(&self, endpoint: &str) -> Error {
        let endpoint = endpoint.to_owned();
        match self {
            // `io::Error` cannot be cloned; its kind and text can.
            Self::Socket(source) => Error::ConnectionLost {
                endpoint,
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::Protocol(source) => Error::Protocol { endpoint, source: *source },
            Self::Refused(refusal) => Error::Refused(refusal.clone()),
        }
    }
}

/// Latency over throughput, bounded waits, and dead peers are noticed.
fn prepare(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some((timeout / 4).max(Duration::from_millis(1))))?;
    stream.set_write_timeout(Some(WRITE_STEP))?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// A blocking call gave up after its time, which is no fault of the connection.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
