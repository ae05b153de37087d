//! The client: which server to talk to, what to repeat, and one method for each kind of call.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use std::{mem, thread};

use base::{Alarm, ClientId, NodeId, Prng, RequestId};
use wire::{
    AlarmChange, Call, Compact, DeleteRange, HelloReply, KeyValue, MemberChange, MoveLeader, Put,
    Range, RangeSummary, Reply, Txn, VERSION_MAX, VERSION_MIN,
};

use crate::connection::{Answer, Connection};
use crate::error::Error;
use crate::lease_keeper::{KeptLease, LeaseKeeper};
use crate::result::{
    DeleteResult, MemberChangeResult, MemberLimit, MemberStatus, MembersResult, OwnedKeyValue,
    PutResult, RangeResult, TxnResult,
};
use crate::session::{Session, WriteNumber};
use crate::watch::{WatchHub, WatchOptions, Watcher};

/// First pause before another attempt; each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// Longest pause before another attempt.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What a client is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long connecting to one address, and the handshake there, may take.
    pub connect_timeout: Duration,
    /// How long a call may take in all, attempts and pauses included but not the time to connect
    /// again; for a range in pieces, how long until each further piece. Must not be zero.
    pub request_timeout: Duration,
    /// The client's name, for people who look at the server.
    pub client_name: String,
    /// The cluster that is expected; 0: any.
    pub cluster: u64,
}

/// The server at the other end, and what it grants to the connection. Sizes are bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Server {
    /// The endpoint.
    pub endpoint: String,
    /// Its cluster.
    pub cluster: u64,
    /// The member.
    pub member: NodeId,
    /// The leader when the connection began; 0: none known.
    pub leader: NodeId,
    /// Where clients reach that leader; empty: unknown, or this server.
    pub leader_address: String,
    /// Requests that may be in flight.
    pub requests_max: u32,
    /// Size of all request frames that may be in flight.
    pub bytes_max: u32,
    /// Greatest key.
    pub key_size_max: u32,
    /// Greatest value.
    pub value_size_max: u32,
}

impl Server {
    pub(crate) fn new(endpoint: &str, reply: &HelloReply<'_>) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            cluster: reply.cluster,
            member: reply.member,
            leader: reply.leader.member,
            leader_address: reply.leader.address.to_owned(),
            requests_max: reply.requests_max,
            bytes_max: reply.bytes_max,
            key_size_max: reply.key_size_max,
            value_size_max: reply.value_size_max,
        }
    }
}

/// A result of a submitted request.
#[derive(Debug)]
pub struct Completion {
    /// The request.
    pub request: RequestId,
    /// False if more pieces of the answer follow.
    pub is_final: bool,
    /// False if the server cannot have seen the request: not all of its bytes were sent.
    pub was_sent: bool,
    /// The answer, or why there is none.
    pub result: Result<Answer, Error>,
}

/// A client. It connects when it has to and again when a connection broke.
pub struct Client {
    endpoints: Vec<String>,
    options: Options,
    connection: Option<Connection>,
    /// Index of the endpoint that is tried next.
    next_endpoint: usize,
    /// Where the leader was said to be: tried before the endpoints.
    leader_address: Option<String>,
    /// The id of the next request. Ids are not used twice, also across connections.
    next_request: u64,
    session: Option<Session>,
    /// Watches that share a connection.
    hub: Option<WatchHub>,
    /// Keeps leases alive.
    keeper: Option<LeaseKeeper>,
    prng: Prng,
}

impl Client {
    /// Connects to the first endpoint that can be reached, in the given order. Endpoints are
    /// `host:port`.
    ///
    /// Errors: [`Error::NoEndpoints`], [`Error::Unreachable`], [`Error::Protocol`], or
    /// [`Error::Refused`] if the server wants another cluster or protocol version.
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        options: Options,
    ) -> Result<Self, Error> {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        let mut client = Self::unconnected(endpoints, options);
        client.connect_round()?;
        Ok(client)
    }

    /// A client that connects when it has to.
    pub(crate) fn unconnected(endpoints: Vec<String>, options: Options) -> Self {
        Self {
            endpoints,
            options,
            connection: None,
            next_endpoint: 0,
            leader_address: None,
            next_request: 1,
            session: None,
            hub: None,
            keeper: None,
            // The pauses of many clients shall differ; the standard library's hash keys do.
            prng: Prng::new(RandomState::new().build_hasher().finish()),
        }
    }

    /// Another client of the same servers, which connects when it has to and has no session.
    pub(crate) fn sibling(&self) -> Self {
        Self::unconnected(self.endpoints.clone(), self.options.clone())
    }

    /// What this client was told at its start.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn random_below(&mut self, bound: u64) -> u64 {
        self.prng.below(bound)
    }

    /// How many endpoints there are, at least 1.
    pub(crate) fn endpoints_count(&self) -> u32 {
        u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Leaves the server: the next call connects to the one behind it in the list.
    pub(crate) fn leave(&mut self) {
        self.connection = None;
    }

    /// Connects to the next server and hands the connection over.
    pub(crate) fn detach(&mut self) -> Result<Connection, Error> {
        self.connect_round()?;
        Ok(self.connection.take().expect("connected just before"))
    }

    /// How long connecting may take from now on.
    pub(crate) fn set_connect_timeout(&mut self, timeout: Duration) {
        self.options.connect_timeout = timeout;
    }

    /// From now on only servers of this cluster will do.
    pub(crate) fn expect_cluster(&mut self, cluster: u64) {
        self.options.cluster = cluster;
    }

    // ------------------------------------------------------------------ watches

    /// Watches keys on a connection of its own: who takes changes slowly holds up nobody else. Waits until
    /// the server has begun, unless the watch begins at a revision that is named.
    ///
    /// Errors: what connecting can fail with; [`Error::Refused`]; [`Error::TimedOut`].
    pub fn watch(&self, options: WatchOptions) -> Result<Watcher, Error> {
        WatchHub::of(self.sibling())?.watch(options)
    }

    /// The hub of this client, for any number of watches on one connection. It connects with the first
    /// call. The recipes use it, too: take what its watches tell at once.
    ///
    /// Errors: what connecting can fail with.
    pub fn watch_hub(&mut self) -> Result<WatchHub, Error> {
        if let Some(hub) = &self.hub {
            return Ok(hub.clone());
        }
        let hub = WatchHub::of(self.sibling())?;
        Ok(self.hub.insert(hub).clone())
    }

    // ------------------------------------------------------------------ leases

    /// The keeper of this client, for any number of leases on one connection of their own.
    ///
    /// Errors: [`Error::Unreachable`] if the system gives no thread.
    pub fn lease_keeper(&mut self) -> Result<LeaseKeeper, Error> {
        if let Some(keeper) = &self.keeper {
            return Ok(keeper.clone());
        }
        let keeper = LeaseKeeper::of(self.sibling())?;
        Ok(self.keeper.insert(keeper).clone())
    }

    /// A lease that is kept alive by the keeper of this client until the result is dropped.
    ///
    /// Errors: those of [`Self::lease_grant`] and [`Self::lease_keeper`].
    pub fn keep_lease(&mut self, ttl: Duration) -> Result<KeptLease, Error> {
        let keeper = self.lease_keeper()?;
        KeptLease::grant(self, &keeper, ttl)
    }

    /// The client with a session: from now on a write that may have arrived is sent again, to this
    /// server or another, until it is answered or its time is up, and takes effect once. It costs one
    /// write to the log now and some work for each write, so that it pays for programs that live on.
    ///
    /// What was read along with a write (previous values, the answers of a transaction) is empty where
    /// the answer is that of the first time. A session that the servers have forgotten is begun anew.
    ///
    /// Errors: those of a write.
    pub fn with_session(mut self) -> Result<Self, Error> {
        self.register(Instant::now() + self.options.request_timeout)?;
        Ok(self)
    }

    /// The id of this client in its session, if it has one.
    pub fn session(&self) -> Option<ClientId> {
        self.session.as_ref().map(Session::client)
    }

    fn register(&mut self, deadline: Instant) -> Result<(), Error> {
        let mut registered = None;
        self.call_until(&Call::Register, deadline, &mut None, &mut |reply| match reply {
            Reply::Register(reply) => {
                registered = Some(Session::new(reply.client, reply.unanswered_max));
                true
            }
            _ => false,
        })?;
        self.session = registered;
        Ok(())
    }

    /// The server at the other end; none while not connected.
    pub fn server(&self) -> Option<&Server> {
        self.connection
            .as_ref()
            .filter(|connection| !connection.is_broken())
            .map(Connection::server)
    }

    /// How long a call may take, from the next call on.
    ///
    /// Errors: [`Error::ConnectionLost`] if the socket does not take it.
    pub fn set_request_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.options.request_timeout = timeout;
        match &mut self.connection {
            Some(connection) => connection.set_timeout(timeout).map_err(|source| {
                Error::ConnectionLost { endpoint: connection.server().endpoint.clone(), source }
            }),
            None => Ok(()),
        }
    }

    // ------------------------------------------------------------------ one call at a time

    /// Writes a key.
    pub fn put(&mut self, request: &Put<'_>) -> Result<PutResult, Error> {
        self.call(&Call::Put(*request), |reply| match reply {
            Reply::Put(reply) => Some(reply.into()),
            _ => None,
        })
    }

    /// Reads one key; `None` if it does not exist.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<OwnedKeyValue>, Error> {
        let result = self.range(&Range { key, ..Range::default() })?;
        Ok(result.kvs.into_iter().next())
    }

    /// Reads a range into memory.
    pub fn range(&mut self, request: &Range<'_>) -> Result<RangeResult, Error> {
        let mut kvs = Vec::new();
        let summary = self.range_each(request, |member| kvs.push(OwnedKeyValue::from(member)))?;
        let RangeSummary { revision, count, more } = summary;
        Ok(RangeResult { revision, count, more, kvs })
    }

    /// Reads a range and hands over each key as it comes; holds one piece (about 1 MiB) in memory.
    ///
    /// Errors: also after some keys have been handed over.
    pub fn range_each(
        &mut self,
        request: &Range<'_>,
        mut each: impl FnMut(KeyValue<'_>),
    ) -> Result<RangeSummary, Error> {
        let mut summary = RangeSummary::default();
        self.call_pieces(&Call::Range(*request), &mut |reply| match reply {
            Reply::Range(piece) => {
                piece.kvs.for_each(&mut each);
                let (revision, count, more) = (piece.revision, piece.count, piece.more);
                summary = RangeSummary { revision, count, more };
                true
            }
            _ => false,
        })?;
        Ok(summary)
    }

    /// Deletes a range.
    pub fn delete(&mut self, request: &DeleteRange<'_>) -> Result<DeleteResult, Error> {
        self.call(&Call::DeleteRange(*request), |reply| match reply {
            Reply::DeleteRange(reply) => Some(reply.into()),
            _ => None,
        })
    }

    /// Compares, then does one of two lists of operations.
    pub fn txn(&mut self, request: &Txn<'_>) -> Result<TxnResult, Error> {
        self.call(&Call::Txn(request), |reply| match reply {
            Reply::Txn(reply) => Some(reply.into()),
            _ => None,
        })
    }

    /// Gives up history; the newest revision is the result.
    pub fn compact(&mut self, request: &Compact) -> Result<i64, Error> {
        self.call(&Call::Compact(*request), |reply| match reply {
            Reply::Compact(reply) => Some(reply.revision),
            _ => None,
        })
    }

    /// The state of the member at the other end.
    pub fn status(&mut self) -> Result<MemberStatus, Error> {
        self.call(&Call::Status, |reply| match reply {
            Reply::Status(reply) => Some(reply.into()),
            _ => None,
        })
    }

    /// The limits of the member at the other end, and how much of them is in use.
    pub fn limits(&mut self) -> Result<Vec<MemberLimit>, Error> {
        self.call(&Call::Limits, |reply| match reply {
            Reply::Limits(limits) => Some(limits.iter().map(MemberLimit::from).collect()),
            _ => None,
        })
    }

    /// All that the member at the other end keeps, as of one moment: hands over each chunk as it comes, until
    /// `take` says no. What the chunks are `src/kv/transfer.rs` says.
    ///
    /// Errors: also after some chunks have been handed over; what is whole says so in its last chunk.
    pub fn snapshot(&mut self, take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Error> {
        self.call_pieces(&Call::Snapshot, &mut |reply| match reply {
            Reply::Snapshot(chunk) => take(chunk),
            _ => false,
        })
    }

    /// The members of the cluster, as the member at the other end knows them.
    pub fn member_list(&mut self) -> Result<MembersResult, Error> {
        self.call_checked(&Call::MemberList, |reply| match reply {
            Reply::MemberList(reply) => Some(reply.try_into()),
            _ => None,
        })
    }

    /// Changes the members. Never sent a second time once it may have arrived:
    /// [`Self::member_list`] tells what became of it.
    pub fn member_change(
        &mut self,
        request: &MemberChange<'_>,
    ) -> Result<MemberChangeResult, Error> {
        self.call_checked(&Call::MemberChange(*request), |reply| match reply {
            Reply::MemberChange(reply) => Some(reply.try_into()),
            _ => None,
        })
    }

    /// Hands leadership to this member, or to one that the server chooses if it is 0; the leader
    /// behind that is the result.
    pub fn move_leader(&mut self, target: NodeId) -> Result<NodeId, Error> {
        self.call(&Call::MoveLeader(MoveLeader { target }), |reply| match reply {
            Reply::MoveLeader(reply) => Some(reply.leader),
            _ => None,
        })
    }

    /// Raises or disarms alarms; the one that is up, or those that were disarmed, are the result. Those that
    /// are up stand in [`Self::status`].
    pub fn alarm(&mut self, request: &AlarmChange) -> Result<Vec<Alarm>, Error> {
        self.call(&Call::Alarm(*request), |reply| match reply {
            Reply::Alarm(reply) => Some(reply.alarms.iter().collect()),
            _ => None,
        })
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.call(&Call::Ping, |reply| match reply {
            Reply::Ping => Some(()),
            _ => None,
        })
    }

    // ------------------------------------------------------------------ many calls in flight

    /// Queues a request. It is sent with the next [`Self::flush`] or [`Self::receive`], or once
    /// much is queued. It is never repeated.
    ///
    /// Errors: [`Error::CreditsUsed`] and [`Error::ResultsPending`] ask to receive first;
    /// [`Error::Encode`]; what connecting can fail with. The request was not queued.
    pub fn submit(&mut self, call: &Call<'_>) -> Result<RequestId, Error> {
        self.submit_within(call, None, self.options.request_timeout)
    }

    /// A number for a write that is going to be submitted, and perhaps submitted again. None without a
    /// session, and while as many numbers are open as the servers allow.
    pub fn begin_write(&mut self) -> Option<WriteNumber> {
        self.session.as_mut()?.begin()
    }

    /// Queues a write, as [`Self::submit`] does. It takes effect once, however often it is submitted
    /// with the same number.
    ///
    /// # Panics
    ///
    /// When the call is no write.
    pub fn submit_write(
        &mut self,
        number: WriteNumber,
        call: &Call<'_>,
    ) -> Result<RequestId, Error> {
        self.submit_within(call, Some(number), self.options.request_timeout)
    }

    /// The write has been answered, or is given up: its number is not submitted again.
    pub fn end_write(&mut self, number: WriteNumber) {
        if let Some(session) = &mut self.session {
            session.end(number);
        }
    }

    /// Begins another session in the place of one that the servers have forgotten. Numbers of the one
    /// before are refused.
    ///
    /// Errors: those of a write.
    pub fn renew_session(&mut self) -> Result<(), Error> {
        self.register(Instant::now() + self.options.request_timeout)
    }

    fn submit_within(
        &mut self,
        call: &Call<'_>,
        number: Option<WriteNumber>,
        timeout: Duration,
    ) -> Result<RequestId, Error> {
        if let Some(connection) = &self.connection
            && connection.is_broken()
        {
            if connection.has_results() {
                return Err(Error::ResultsPending);
            }
            self.connection = None;
        }
        if self.connection.is_none() {
            self.connect_round()?;
        }
        let request = RequestId::new(self.next_request);
        let connection = self.connection.as_mut().expect("connected just before");
        let stamp = number.and_then(|number| Some(self.session.as_ref()?.stamp(number)));
        connection.submit(request, stamp.as_ref(), call, timeout)?;
        self.next_request += 1;
        Ok(request)
    }

    /// The next result, in the order in which they come; waits for it. `None`: nothing is in
    /// flight. Each request has exactly one final result, also when the connection breaks.
    pub fn receive(&mut self) -> Option<Completion> {
        self.connection.as_mut().and_then(Connection::receive)
    }

    /// Sends what is queued. A failure shows in the results.
    pub fn flush(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.flush();
        }
    }

    /// Asks the server to give up a request. Its result still comes: `Cancelled` if it had no
    /// effect yet, else what it would have been.
    pub fn cancel(&mut self, request: RequestId) {
        if let Some(connection) = &mut self.connection {
            connection.cancel(request);
        }
    }

    /// Requests whose final result is still to come.
    pub fn in_flight(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::in_flight)
    }

    /// True if the server's credits allow one more small request.
    pub fn can_submit(&self) -> bool {
        self.connection.as_ref().is_none_or(Connection::can_submit)
    }

    // ------------------------------------------------------------------ repeating

    /// One call with one reply, which `take` turns into the result; `None`: another kind of reply.
    pub(crate) fn call<T>(
        &mut self,
        call: &Call<'_>,
        take: impl Fn(Reply<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut result = None;
        self.call_pieces(call, &mut |reply| {
            result = take(reply);
            result.is_some()
        })?;
        Ok(result.expect("the last piece was accepted"))
    }

    /// The same for a reply that holds what has to be decoded once more.
    fn call_checked<T>(
        &mut self,
        call: &Call<'_>,
        take: impl Fn(Reply<'_>) -> Option<Result<T, wire::DecodeError>>,
    ) -> Result<T, Error> {
        self.call(call, take)?.map_err(|source| {
            let endpoint = self.server().map(|server| server.endpoint.clone()).unwrap_or_default();
            let error = Error::Protocol { endpoint, source };
            // The server cannot be trusted with what comes next either.
            self.connection = None;
            if call.is_read() { error } else { Error::OutcomeUnknown { reason: error.to_string() } }
        })
    }

    /// One call, repeated where that is safe until its time is up. `take` gets every piece of the
    /// answer and says whether its kind was right.
    fn call_pieces(
        &mut self,
        call: &Call<'_>,
        take: &mut dyn FnMut(Reply<'_>) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + self.options.request_timeout;
        let mut number = None;
        if self.session.is_some() && call.kind().is_write() && !call.is_read() {
            number = Some(self.begin_write().ok_or(Error::CreditsUsed)?);
        }
        let result = self.call_until(call, deadline, &mut number, take);
        if let Some(number) = number {
            self.end_write(number);
        }
        result
    }

    /// The same until the deadline. A write with a number is repeated also after it may have arrived; it
    /// gets another number where the session has been forgotten.
    fn call_until(
        &mut self,
        call: &Call<'_>,
        deadline: Instant,
        number: &mut Option<WriteNumber>,
        take: &mut dyn FnMut(Reply<'_>) -> bool,
    ) -> Result<(), Error> {
        let mut backoff = BACKOFF_MIN;
        let mut hurried = false;
        // An attempt may have arrived whose answer is not known; a session was begun anew.
        let (mut in_doubt, mut renewed) = (false, false);
        loop {
            let mut pieces = 0;
            let error = match self.attempt(call, *number, deadline, &mut pieces, take) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if number.is_some()
                && !in_doubt
                && !mem::replace(&mut renewed, true)
                && error.refusal().is_some_and(|why| why.status == wire::Status::SessionExpired)
            {
                // It was not carried out, and no earlier attempt can have been.
                self.register(deadline)?;
                *number = Some(self.begin_write().ok_or(Error::CreditsUsed)?);
                continue;
            }
            in_doubt |= matches!(error, Error::OutcomeUnknown { .. });
            let advice = match number {
                Some(_) if matches!(error, Error::OutcomeUnknown { .. }) => {
                    let is_idle = self.connection.as_ref().is_none_or(|c| !c.has_results());
                    if is_idle {
                        self.connection = None;
                    }
                    Some(Advice::After(Duration::ZERO))
                }
                Some(_) | None => self.advice(&error, pieces),
            };
            let Some(advice) = advice else { return Err(doubted(error, in_doubt)) };
            // Between half and all of it, so that many clients do not come back together.
            let nanos = u64::try_from(backoff.as_nanos()).unwrap_or(u64::MAX);
            let backed_off = Duration::from_nanos(nanos / 2 + self.prng.below(nanos / 2));
            let pause = match advice {
                // Once: two members may take each other for the leader.
                Advice::AtOnce if !mem::replace(&mut hurried, true) => Duration::ZERO,
                Advice::AtOnce => backed_off,
                Advice::After(pause) => pause.max(backed_off),
            };
            if Instant::now() + pause >= deadline {
                return Err(doubted(error, in_doubt));
            }
            thread::sleep(pause);
            if pause > Duration::ZERO {
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    fn attempt(
        &mut self,
        call: &Call<'_>,
        number: Option<WriteNumber>,
        deadline: Instant,
        pieces: &mut usize,
        take: &mut dyn FnMut(Reply<'_>) -> bool,
    ) -> Result<(), Error> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let request = self.submit_within(call, number, timeout)?;
        let connection = self.connection.as_mut().expect("submitted on it");
        loop {
            let completion =
                connection.receive_for(request).expect("what is in flight gets a result");
            let answer = completion.result?;
            let broken =
                |source| Error::Protocol { endpoint: connection.server().endpoint.clone(), source };
            let outcome = match answer.reply() {
                Ok(reply) if take(reply) => Ok(()),
                Ok(_) => Err(broken(wire::DecodeError::UnexpectedKind { kind: answer.kind() })),
                Err(error) => Err(broken(error)),
            };
            if let Err(error) = outcome {
                // The server cannot be trusted with what comes next either.
                self.connection = None;
                return Err(if call.is_read() {
                    error
                } else {
                    Error::OutcomeUnknown { reason: error.to_string() }
                });
            }
            *pieces += 1;
            if completion.is_final {
                return Ok(());
            }
        }
    }

    /// Whether and when a failed call is tried again. Moves on to another server where that helps.
    fn advice(&mut self, error: &Error, pieces: usize) -> Option<Advice> {
        if pieces > 0 {
            return None;
        }
        match error {
            Error::Refused(refusal) if refusal.is_retryable() => {
                let hinted = !refusal.leader_address.is_empty()
                    && self.server().is_none_or(|server| server.endpoint != refusal.leader_address);
                // Who leaves takes no part of what others still wait for with him.
                let is_idle =
                    self.connection.as_ref().is_none_or(|connection| !connection.has_results());
                if refusal.status != wire::Status::Overloaded && is_idle {
                    self.connection = None;
                    if hinted && self.leader_address.is_none() {
                        self.leader_address = Some(refusal.leader_address.clone());
                        return Some(Advice::AtOnce);
                    }
                }
                Some(Advice::After(Duration::from_millis(u64::from(refusal.retry_after_ms))))
            }
            Error::ConnectionLost { .. } | Error::Unreachable { .. } => {
                Some(Advice::After(Duration::ZERO))
            }
            Error::OutcomeUnknown { .. } | Error::TimedOut => {
                // Not again, but the next call finds a server that answers.
                let is_idle = self.connection.as_ref().is_none_or(|c| !c.has_results());
                if is_idle && self.endpoints.len() > 1 {
                    self.connection = None;
                }
                None
            }
            Error::Refused(_)
            | Error::NoEndpoints
            | Error::Protocol { .. }
            | Error::Encode(_)
            | Error::CreditsUsed
            | Error::ResultsPending => None,
        }
    }

    /// Tries the leader that was hinted at and then every endpoint once, beginning with the one
    /// behind the last that was tried.
    fn connect_round(&mut self) -> Result<(), Error> {
        if self.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let mut candidates: Vec<String> = self.leader_address.take().into_iter().collect();
        let hinted = candidates.len();
        let count = self.endpoints.len();
        candidates.extend(
            (0..count).map(|step| self.endpoints[(self.next_endpoint + step) % count].clone()),
        );
        let mut failure = Error::NoEndpoints;
        for (index, endpoint) in candidates.into_iter().enumerate() {
            if index >= hinted {
                self.next_endpoint = (self.next_endpoint + 1) % count;
            }
            match self.connect_to(&endpoint) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn connect_to(&self, endpoint: &str) -> Result<Connection, Error> {
        let unreachable = |source| Error::Unreachable { endpoint: endpoint.to_owned(), source };
        let timeout = self.options.connect_timeout;
        let addresses: Vec<SocketAddr> = endpoint.to_socket_addrs().map_err(unreachable)?.collect();
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    let hello = wire::Hello {
                        version_min: u16::from(VERSION_MIN),
                        version_max: u16::from(VERSION_MAX),
                        cluster: self.options.cluster,
                        client_name: &self.options.client_name,
                    };
                    let request_timeout = self.options.request_timeout;
                    let mut connection =
                        Connection::open(endpoint, stream, &hello, timeout, request_timeout)?;
                    if self.endpoints.len() > 1 {
                        connection.expect_signs_of_life().map_err(unreachable)?;
                    }
                    return Ok(connection);
                }
                Err(error) => failure = error,
            }
        }
        Err(unreachable(failure))
    }
}

/// The error of a call of which an attempt may have arrived before: only what the state itself has
/// answered says what became of the write.
fn doubted(error: Error, in_doubt: bool) -> Error {
    use wire::Status;
    let is_answer = match &error {
        Error::OutcomeUnknown { .. } => true,
        Error::Refused(refusal) => matches!(
            refusal.status,
            Status::InvalidArgument
                | Status::KeyNotFound
                | Status::LeaseNotFound
                | Status::DuplicateKey
                | Status::TooManyOps
                | Status::Compacted
                | Status::FutureRevision
                | Status::TooLarge
        ),
        _ => false,
    };
    if is_answer || !in_doubt {
        return error;
    }
    Error::OutcomeUnknown { reason: error.to_string() }
}

/// When to try again.
enum Advice {
    AtOnce,
    /// After at least this long.
    After(Duration),
}

/// The end of the range of all keys that begin with `prefix`, for `range_end`. All keys: the key
/// must not be empty then either; give a single zero byte as the key.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // No key is greater than all that begin with these bytes: from the first one on.
    vec![0]
}
