//! A client of the native protocol inside this process: what another protocol asks for goes to the
//! reactor as the frames that a client would send, under the same limits.
//!
//! ```text
//! call ─► frame ─► output ─► core loop ─► Reactor ─► Send ─► deliver ─► the call that it answers
//! ```
//!
//! Nothing is copied to a socket and back. What nobody has taken yet counts as unread: beyond
//! [`UNREAD_MAX`] the reactor is told that this connection is blocked, as with a socket that is full. One that is for
//! a single long answer is blocked by each piece of it.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::{ConnectionId, Frame, RequestId};
use bytes::{Bytes, BytesMut};
use wire::{Call, DecodeError, HEADER_SIZE, Header, Kind, Reply, RequestEncoder, Splitter, Status};

use super::unsent::Account;
use crate::inbox::Inbox;

/// Bytes of answers that wait to be taken, beyond which the reactor holds back what can wait.
const UNREAD_MAX: usize = 1 << 20;

/// A reply frame.
#[derive(Debug)]
pub struct Answer {
    header: Header,
    body: Frame,
}

impl Answer {
    /// Of this frame.
    pub fn new(header: Header, body: Frame) -> Self {
        Self { header, body }
    }

    /// The reply in it.
    ///
    /// # Errors
    /// It is malformed: a defect of this process.
    pub fn reply(&self) -> Result<Reply<'_>, DecodeError> {
        Reply::verify(&self.header, &self.body)
    }

    /// Whether others follow it.
    pub fn has_more(&self) -> bool {
        self.header.flags.has_more()
    }

    /// Whether it refuses the request because nobody leads at present: it has had no effect.
    pub fn lacks_leader(&self) -> bool {
        self.header.status == Status::NoLeader
    }

    /// Its bytes.
    pub fn size(&self) -> usize {
        HEADER_SIZE + self.body.len()
    }
}

/// Why there is no answer: the reactor takes no more requests, or the connection has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The member stops, or had no room for one more connection.
    Closed,
    /// The request does not fit a frame.
    TooLarge,
}

/// What the member said when the connection began.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: u64,
    requests_max: usize,
    bytes_max: usize,
}

/// A request without its last answer.
#[derive(Default)]
struct Flight {
    answers: VecDeque<Answer>,
    waker: Option<Waker>,
    /// Bytes of its frame, until its credit has come back.
    credit: Option<usize>,
    is_watch: bool,
    /// Nobody waits for it any more.
    is_abandoned: bool,
}

struct State {
    account: Rc<Account>,
    unread_max: usize,
    connection: Option<ConnectionId>,
    greeting: Option<Greeting>,
    encoder: RequestEncoder,
    splitter: Splitter,
    input: BytesMut,
    output: Vec<u8>,
    /// It is in the list of those that the core loop looks at.
    is_queued: bool,
    is_closed: bool,
    /// Nobody uses it any more.
    is_left: bool,
    flights: HashMap<u64, Flight>,
    last_request: u64,
    requests: usize,
    bytes: usize,
    /// Who waits for the greeting or for credit.
    waiting: VecDeque<Waker>,
    unread: usize,
    is_blocked: bool,
    /// Answers to watches, in order.
    told: VecDeque<Answer>,
    watcher: Option<Waker>,
}

/// The connection.
pub struct Native {
    inbox: Rc<Inbox>,
    state: Cell<Option<Box<State>>>,
}

/// What the core loop finds when it looks at a connection.
pub struct Look {
    /// Its name, once it has one.
    pub connection: Option<ConnectionId>,
    /// What it asks for.
    pub output: BytesMut,
    /// Nobody uses it any more.
    pub is_left: bool,
    /// Its answers have been taken after it had been blocked.
    pub is_drained: bool,
}

impl Native {
    /// Begins a connection. What is unread of its answers counts there, too.
    pub fn open(inbox: &Rc<Inbox>, account: &Rc<Account>) -> Rc<Self> {
        Self::open_with(inbox, account, UNREAD_MAX)
    }

    /// The same for a single long answer.
    pub fn open_for_one(inbox: &Rc<Inbox>, account: &Rc<Account>) -> Rc<Self> {
        Self::open_with(inbox, account, 0)
    }

    fn open_with(inbox: &Rc<Inbox>, account: &Rc<Account>, unread_max: usize) -> Rc<Self> {
        let state = Box::new(State::new(account, unread_max));
        let native = Rc::new(Self { inbox: Rc::clone(inbox), state: Cell::new(Some(state)) });
        let hello = wire::Hello {
            version_min: u16::from(wire::VERSION_MIN),
            version_max: u16::from(wire::VERSION_MAX),
            cluster: 0,
            client_name: "http",
        };
        native.with(|state| {
            state
                .encoder
                .encode(&mut state.output, RequestId::new(0), 0, &Call::Hello(hello))
                .expect("a greeting fits a frame");
        });
        native.queue();
        native
    }

    /// Lets `work` at the state. It must not come back here: wakers only schedule.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.take().expect("one at a time works at a connection");
        let result = work(&mut state);
        self.state.set(Some(state));
        result
    }

    /// Has the core loop look at it.
    fn queue(self: &Rc<Self>) {
        if !self.with(|state| mem::replace(&mut state.is_queued, true)) {
            self.inbox.push_native(Rc::clone(self));
        }
    }

    /// Sends a request as soon as there is credit for it, with `deadline_ms` for the server, 0: none.
    ///
    /// # Errors
    /// See [`Gone`].
    pub async fn begin(
        self: &Rc<Self>,
        deadline_ms: u32,
        call: &Call<'_>,
    ) -> Result<Pending, Gone> {
        let mut frame = Vec::new();
        let request = poll_fn(|context| {
            self.with(|state| state.poll_begin(context, deadline_ms, call, &mut frame))
        })
        .await?;
        self.queue();
        Ok(Pending { native: Rc::clone(self), request, is_over: false })
    }

    /// Begins a watch: its number. Its answers come with those of the others ([`Self::poll_told`]).
    ///
    /// # Errors
    /// See [`Gone`].
    pub async fn watch(self: &Rc<Self>, watch: wire::Watch<'_>) -> Result<u64, Gone> {
        let call = Call::Watch(watch);
        let mut frame = Vec::new();
        let request =
            poll_fn(|context| self.with(|state| state.poll_begin(context, 0, &call, &mut frame)))
                .await?;
        self.queue();
        Ok(request)
    }

    /// The next answer to any watch, and the number of the watch.
    pub fn poll_told(self: &Rc<Self>, context: &Context<'_>) -> Poll<Result<(u64, Answer), Gone>> {
        let (polled, is_drained) = self.with(|state| {
            let polled = match state.told.pop_front() {
                Some(answer) => {
                    state.shrink(answer.size());
                    Poll::Ready(Ok((answer.header.request.get(), answer)))
                }
                None if state.is_closed => Poll::Ready(Err(Gone::Closed)),
                None => {
                    state.watcher = Some(context.waker().clone());
                    Poll::Pending
                }
            };
            (polled, state.is_drained())
        });
        if is_drained {
            self.queue();
        }
        polled
    }

    /// Sends what belongs to a request that is under way and takes no credit: a watch is asked for its
    /// progress, or a request is given up.
    pub fn remind(self: &Rc<Self>, request: u64, call: &Call<'_>) {
        self.with(|state| {
            state
                .encoder
                .encode(&mut state.output, RequestId::new(request), 0, call)
                .expect("a frame without a body fits");
        });
        self.queue();
    }

    /// What the member said, once it has.
    ///
    /// # Errors
    /// See [`Gone`].
    pub async fn greeting(&self) -> Result<Greeting, Gone> {
        poll_fn(|context| {
            self.with(|state| match state.greeting {
                _ if state.is_closed => Poll::Ready(Err(Gone::Closed)),
                Some(greeting) => Poll::Ready(Ok(greeting)),
                None => {
                    state.waiting.push_back(context.waker().clone());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// For the core loop: what there is to do.
    pub fn look(&self) -> Look {
        self.with(|state| {
            state.is_queued = false;
            let output = BytesMut::from(Bytes::from(mem::take(&mut state.output)));
            let is_drained = state.is_drained();
            state.is_blocked &= !is_drained;
            Look { connection: state.connection, output, is_left: state.is_left, is_drained }
        })
    }

    /// For the core loop: it has a name.
    pub fn accept(&self, connection: ConnectionId) {
        self.with(|state| state.connection = Some(connection));
    }

    /// For the core loop: answers have come. Returns whether it is blocked by this.
    pub fn deliver(&self, bytes: Vec<u8>) -> bool {
        self.with(|state| state.deliver(bytes))
    }

    /// For the core loop: whether its answers wait to be taken, and the reactor was told so.
    pub fn is_blocked(&self) -> bool {
        self.with(|state| state.is_blocked)
    }

    /// For the core loop: nothing more comes.
    pub fn close(&self) {
        self.with(State::close);
    }

    /// Nobody uses it any more: the reactor forgets it.
    pub fn leave(self: &Rc<Self>) {
        self.with(|state| state.is_left = true);
        self.queue();
    }
}

impl State {
    fn new(account: &Rc<Account>, unread_max: usize) -> Self {
        Self {
            account: Rc::clone(account),
            unread_max,
            connection: None,
            greeting: None,
            encoder: RequestEncoder::default(),
            splitter: Splitter::default(),
            input: BytesMut::new(),
            output: Vec::new(),
            is_queued: false,
            is_closed: false,
            is_left: false,
            flights: HashMap::new(),
            last_request: 0,
            requests: 0,
            bytes: 0,
            waiting: VecDeque::new(),
            unread: 0,
            is_blocked: false,
            told: VecDeque::new(),
            watcher: None,
        }
    }

    /// So much more is unread.
    fn grow(&mut self, size: usize) {
        self.unread += size;
        self.account.take(size);
    }

    /// So much has been taken, or nobody will.
    fn shrink(&mut self, size: usize) {
        self.unread -= size;
        self.account.give_back(size);
    }

    fn poll_begin(
        &mut self,
        context: &Context<'_>,
        deadline_ms: u32,
        call: &Call<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<u64, Gone>> {
        if self.is_closed {
            return Poll::Ready(Err(Gone::Closed));
        }
        let Some(greeting) = self.greeting else {
            self.waiting.push_back(context.waker().clone());
            return Poll::Pending;
        };
        let request = self.last_request + 1;
        frame.clear();
        if self.encoder.encode(frame, RequestId::new(request), deadline_ms, call).is_err() {
            return Poll::Ready(Err(Gone::TooLarge));
        }
        let size = frame.len();
        let has_credit = self.requests < greeting.requests_max
            && (self.requests == 0 || self.bytes + size <= greeting.bytes_max);
        if !has_credit {
            self.waiting.push_back(context.waker().clone());
            return Poll::Pending;
        }
        self.last_request = request;
        self.requests += 1;
        self.bytes += size;
        self.output.extend_from_slice(frame);
        let is_watch = call.kind() == Kind::Watch;
        let flight = Flight { credit: Some(size), is_watch, ..Flight::default() };
        self.flights.insert(request, flight);
        Poll::Ready(Ok(request))
    }

    fn deliver(&mut self, bytes: Vec<u8>) -> bool {
        let bytes = BytesMut::from(Bytes::from(bytes));
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            self.input.unsplit(bytes);
        }
        loop {
            match self.splitter.next(&mut self.input) {
                Ok(Some((header, body))) => self.take(Answer::new(header, body)),
                Ok(None) => break,
                Err(error) => {
                    debug_assert!(false, "a reactor sent what is no frame: {error}");
                    self.close();
                    break;
                }
            }
        }
        if self.input.is_empty() {
            // It would keep the memory of what was split off.
            self.input = BytesMut::new();
        }
        self.unread > self.unread_max && !mem::replace(&mut self.is_blocked, true)
    }

    /// Takes an answer to the call that waits for it.
    fn take(&mut self, answer: Answer) {
        let request = answer.header.request.get();
        if request == 0 {
            return self.greet(&answer);
        }
        let Some(flight) = self.flights.get_mut(&request) else { return };
        let is_last = !answer.has_more();
        let credit = if is_last || flight.is_watch { flight.credit.take() } else { None };
        if flight.is_watch {
            self.grow(answer.size());
            self.told.push_back(answer);
            if let Some(waker) = self.watcher.take() {
                waker.wake();
            }
            if is_last {
                self.flights.remove(&request);
            }
        } else if flight.is_abandoned {
            if is_last {
                self.flights.remove(&request);
            }
        } else {
            let size = answer.size();
            flight.answers.push_back(answer);
            if let Some(waker) = flight.waker.take() {
                waker.wake();
            }
            self.grow(size);
        }
        if let Some(size) = credit {
            self.requests -= 1;
            self.bytes -= size;
            self.wake_waiting();
        }
    }

    /// Its answers have been taken since the reactor was told that it is blocked.
    fn is_drained(&self) -> bool {
        self.is_blocked && self.unread <= self.unread_max / 2
    }

    fn greet(&mut self, answer: &Answer) {
        let Ok(Reply::Hello(hello)) = answer.reply() else {
            // A refusal that answers no request: the member stops, or has no room.
            return self.close();
        };
        let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        self.encoder.agree(wire::VERSION_MAX, size(hello.request_body_size_max));
        self.splitter.agree(wire::VERSION_MAX, size(hello.reply_body_size_max));
        self.greeting = Some(Greeting {
            cluster: hello.cluster,
            member: hello.member.get(),
            requests_max: size(hello.requests_max),
            bytes_max: size(hello.bytes_max),
        });
        self.wake_waiting();
    }

    /// Each looks again whether it may go on, in the order of their coming.
    fn wake_waiting(&mut self) {
        for waker in mem::take(&mut self.waiting) {
            waker.wake();
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.wake_waiting();
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
        for flight in self.flights.values_mut() {
            if let Some(waker) = flight.waker.take() {
                waker.wake();
            }
        }
    }

    fn poll_next(&mut self, context: &Context<'_>, request: u64) -> Poll<Result<Answer, Gone>> {
        let flight = self.flights.get_mut(&request).expect("it is there until its last answer");
        match flight.answers.pop_front() {
            Some(answer) => {
                self.shrink(answer.size());
                if !answer.has_more() {
                    self.flights.remove(&request);
                }
                Poll::Ready(Ok(answer))
            }
            None if self.is_closed => Poll::Ready(Err(Gone::Closed)),
            None => {
                flight.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.account.give_back(self.unread);
    }
}

/// A request that is under way. Dropped before its last answer it is cancelled.
pub struct Pending {
    native: Rc<Native>,
    request: u64,
    is_over: bool,
}

impl Pending {
    /// Its next answer; none may be asked for behind the last one.
    pub fn poll_next(&mut self, context: &Context<'_>) -> Poll<Result<Answer, Gone>> {
        let (polled, is_drained) = self.native.with(|state| {
            let polled = state.poll_next(context, self.request);
            (polled, state.is_drained())
        });
        if is_drained {
            self.native.queue();
        }
        self.is_over |= matches!(&polled, Poll::Ready(Ok(answer)) if !answer.has_more());
        polled
    }

    /// The same as a future.
    ///
    /// # Errors
    /// See [`Gone`].
    pub async fn next(&mut self) -> Result<Answer, Gone> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let is_open = self.native.with(|state| {
            let Some(flight) = state.flights.get_mut(&self.request) else { return false };
            flight.is_abandoned = true;
            let was_last = flight.answers.back().is_some_and(|answer| !answer.has_more());
            let unread: usize = flight.answers.drain(..).map(|answer| answer.size()).sum();
            state.shrink(unread);
            if was_last || state.is_closed {
                state.flights.remove(&self.request);
            }
            !was_last && !state.is_closed
        });
        if is_open {
            self.native.remind(self.request, &Call::Cancel);
        } else {
            // What was not taken may have been what the reactor was told to wait for.
            self.native.queue();
        }
    }
}
