//! HTTP on the client ports: gRPC as etcd's clients speak it, on tasks beside the core loop.
//!
//! ```text
//! socket ─► hyper ─► service ─► etcd (translation) ─► Native ─► core loop ─► Reactor
//!    ▲                                                   │
//!    └───── response, or a stream of messages ◄──────────┘
//! ```
//!
//! Every port takes both protocols: a connection that begins with a method of HTTP comes here
//! ([`crate::socket`]). It gets one [`Native`] for its calls, and one for each stream of watches, so that a
//! stream that is not read holds up nothing else.

mod calls;
mod clean;
mod deadline;
mod debug;
mod event;
mod gateway;
mod grpc;
mod health;
mod imaging;
mod keys;
mod lease;
mod maintenance;
mod metrics;
mod native;
mod page;
mod pings;
mod plain;
mod range;
mod recipes;
mod remote;
mod role;
mod service;
mod snapshot;
mod stream;
mod unsent;
mod watch;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use base::{NodeId, Term};
use bytes::BytesMut;
use etcd::Failure;
use glommio::net::TcpStream;
use glommio::sync::Semaphore;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use node::ReactorEvent;
use rustix::net::sockopt;

pub use calls::{CODES, METHODS};
pub use native::Native;

use crate::config::{Config, EtcdApi, Serves};
use crate::counters::{Board, Counters};
use crate::inbox::Inbox;
use crate::socket::{Stranger, duplicate, hurry, is_unix};
use event::{Event, Waiter};
use native::Greeting;
use service::respond;
use stream::{Held, HttpStream, Tasks};
use unsent::{Account, Counted, Unsent};

/// What begins a connection of HTTP/2 whose client knows that the server speaks it, as far as it takes to
/// tell it from a method.
const PREFACE: &[u8] = b"PR";

/// How often a request that came before this member is in the list of members looks whether it is.
const PUBLICATION_PAUSE: Duration = Duration::from_millis(5);

/// What hyper keeps of a response that the client does not take.
const SEND_BUFFER_SIZE: usize = 256 << 10;

/// Bytes that a client may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Answers of several pieces that an executor reads at once, to send them whole or to learn how long they are. Each
/// holds some MiB meanwhile.
const LONG_READS_MAX: u64 = 16;

/// For so long a member that has lost its leader counts as one that has it still: as members of etcd do, who notice
/// no earlier.
const LEADER_GRACE: Duration = Duration::from_secs(1);

/// So long what is under way may take when the server stops, where it has an end of its own: a streamed range, a
/// snapshot, a request whose message is still to come.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// How often one who waits for a leader looks for it.
const LEADER_PAUSE: Duration = Duration::from_millis(5);

/// After this long without traffic the kernel asks whether the other side still lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What the reactor of this executor knows of its cluster.
#[derive(Clone, Copy, Default)]
pub struct Standing {
    /// The raft term.
    pub term: Term,
    /// The leader; 0: none known.
    pub leader: NodeId,
}

/// What the configuration makes of the API.
pub(crate) struct Api {
    config: EtcdApi,
    txn_ops_max: usize,
    /// Origins whose pages may read what is answered; `*`: all.
    origins: Vec<String>,
    /// More figures than usual.
    extensive_metrics: bool,
    /// Where clients find this member.
    advertised: String,
    /// How long a request may take whose client does not say: etcd's 5 s and two election time-outs, of a
    /// second at least.
    request_timeout_ms: u32,
    /// Streams that want a leader end this long after the last one was known: three election time-outs.
    leader_lost: Duration,
    /// Seconds of the shortest lease: one and a half election time-outs, as in etcd.
    lease_ttl_min: u32,
}

impl Api {
    /// Bytes that etcd's log puts around a write.
    const OVERHEAD: usize = 18;

    fn of(config: &Config) -> Self {
        let election_ms = config.elections.timeout.as_millis().clamp(1_000, 50_000);
        let election_ms = u32::try_from(election_ms).expect("at most 50,000");
        Self {
            config: config.etcd,
            txn_ops_max: config.txn_ops_max,
            origins: config.origins.clone(),
            extensive_metrics: config.etcd.extensive_metrics,
            advertised: config.cluster.advertise_client.clone().unwrap_or_default(),
            request_timeout_ms: 5_000 + 2 * election_ms,
            leader_lost: Duration::from_millis((3 * election_ms).into()),
            lease_ttl_min: (election_ms * 3 / 2).div_ceil(1_000),
        }
    }

    /// Largest message that a client may send: as gRPC has it in etcd.
    fn message_size_max(&self) -> usize {
        self.config.write_size_max.saturating_add(512 << 10)
    }

    /// Largest write as a message.
    fn write_size_max(&self) -> usize {
        self.config.write_size_max.saturating_sub(Self::OVERHEAD)
    }
}

/// What all HTTP connections of one executor share.
pub struct Gate {
    inbox: Rc<Inbox>,
    standing: Cell<Standing>,
    /// Since when no leader is known.
    leaderless: Cell<Instant>,
    /// This member has no vote, as far as is known.
    is_learner: Cell<bool>,
    /// The list of members has what this one says of itself.
    is_published: Cell<bool>,
    /// Comes when no leader has been known for long.
    orphaned: Event,
    connections: Cell<usize>,
    connections_max: usize,
    api: Api,
    counters: Arc<Counters>,
    /// The counters of all executors.
    board: Board,
    stop: Event,
    held: Held,
    unsent: Rc<Unsent>,
    /// Places for answers of several pieces that are read.
    long_reads: Rc<Semaphore>,
    /// The data directory, for files that snapshots are sorted in.
    folder: PathBuf,
    /// Snapshots that are being made.
    snapshots: Cell<usize>,
}

impl Gate {
    /// For this executor, with at most so many connections, and the data directory `folder`.
    pub fn new(
        inbox: &Rc<Inbox>,
        connections_max: usize,
        config: &Config,
        folder: PathBuf,
        (board, executor): (&Board, usize),
    ) -> Rc<Self> {
        Rc::new(Self {
            inbox: Rc::clone(inbox),
            standing: Cell::default(),
            leaderless: Cell::new(Instant::now()),
            is_learner: Cell::new(false),
            is_published: Cell::new(false),
            orphaned: Event::default(),
            connections: Cell::new(0),
            connections_max,
            api: Api::of(config),
            counters: board.of(executor),
            board: board.clone(),
            stop: Event::default(),
            held: Held::default(),
            unsent: Rc::default(),
            long_reads: Rc::new(Semaphore::new(LONG_READS_MAX)),
            folder,
            snapshots: Cell::new(0),
        })
    }

    /// Notes what has become known of the cluster.
    pub fn note(&self, standing: Standing) {
        let before = self.standing.replace(standing);
        if before.leader != NodeId::default() && standing.leader == NodeId::default() {
            self.leaderless.set(Instant::now());
        }
        if standing.leader != NodeId::default() {
            self.orphaned.reset();
        }
    }

    /// No new requests are taken: clients are told to go elsewhere, and connections end with what is under way.
    pub fn stop(&self) {
        self.stop.come();
    }

    /// What comes of a stream, unless the server stops first: the stream ends then, with an answer that sends its
    /// client elsewhere. What comes to its end by itself has `grace` for that.
    async fn until_stop<T>(
        &self,
        grace: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let stop = self.stop.wait();
        let end = async {
            poll_fn(|context| stop.poll(context)).await;
            if !grace.is_zero() {
                glommio::timer::sleep(grace).await;
            }
            Err(Failure::STOPPED)
        };
        futures_lite::future::or(work, end).await
    }

    fn has_leader(&self) -> bool {
        self.standing.get().leader != NodeId::default()
    }

    /// Counts a call of a client with these headers.
    fn count_client(&self, headers: &hyper::HeaderMap, is_stream: bool) {
        let version = headers.get(service::CLIENT_VERSION).map(|version| version.as_bytes());
        self.counters.clients.count(version, is_stream);
    }

    /// Learns what this member is, as a task of its own.
    pub fn follow_role(self: &Rc<Self>) {
        glommio::spawn_local(role::follow(Rc::clone(self))).detach();
    }

    /// A tick of the clock has passed.
    pub fn tick(&self) {
        self.held.tick();
        self.unsent.look();
        if let Some((size, highest, cuts)) = self.unsent.news() {
            self.inbox.push_reactor(ReactorEvent::HttpUnsent { size, highest, cuts });
        }
        if !self.has_leader() && self.leaderless.get().elapsed() >= self.api.leader_lost {
            self.orphaned.come();
        }
    }

    /// Whether no connection is open.
    pub fn is_idle(&self) -> bool {
        self.connections.get() == 0
    }

    /// Serves a connection that speaks HTTP and nothing else.
    pub fn let_in(self: &Rc<Self>, stream: &TcpStream, serves: Serves) {
        let stream = duplicate(stream).and_then(|stream| {
            hurry(&stream)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => self.admit(Stranger { stream, bytes: BytesMut::new() }, serves),
            Err(error) => crate::log::warn(format!("an HTTP connection was refused: {error}")),
        }
    }

    /// Serves a connection, as a task of its own.
    pub fn admit(self: &Rc<Self>, stranger: Stranger, serves: Serves) {
        if self.connections.get() >= self.connections_max {
            crate::log::warn(format!(
                "an HTTP connection was refused: {} are open, and that is the limit",
                self.connections_max
            ));
            return;
        }
        self.connections.update(|count| count + 1);
        let gate = Rc::clone(self);
        glommio::spawn_local(async move {
            // How a connection ends is the client's affair.
            drop(gate.serve(stranger, serves).await);
            gate.connections.update(|count| count - 1);
        })
        .detach();
    }

    async fn serve(self: &Rc<Self>, stranger: Stranger, serves: Serves) -> io::Result<()> {
        let reached = if is_unix(&stranger.stream) {
            self.api.advertised.clone()
        } else {
            // Who vanishes without a word is noticed by the kernel.
            sockopt::set_socket_keepalive(&stranger.stream, true)?;
            sockopt::set_tcp_keepidle(&stranger.stream, KEEP_ALIVE)?;
            stranger.stream.local_addr()?.to_string()
        };
        let mut stream = HttpStream::new(adopt(stranger.stream), stranger.bytes, &self.held);
        let is_http2 = stream.begin(PREFACE.len()).await?.starts_with(PREFACE);
        if is_http2 {
            stream.mind_pings();
        }
        let account = Account::new(&self.unsent);
        let cut = account.cut.wait();
        let own = Own(Native::open(&self.inbox, &account));
        let native = Rc::clone(own.native());
        let Ok(greeting) = native.greeting().await else { return Ok(()) };
        let link = Rc::new(Link {
            gate: Rc::clone(self),
            native,
            account: Rc::clone(&account),
            greeting,
            reached,
            serves,
        });
        let service = service_fn(move |request| {
            let (link, account) = (Rc::clone(&link), Rc::clone(&account));
            async move {
                let response = respond(&link, request).await;
                Ok::<_, Infallible>(response.map(|reply| Counted::new(reply, &account)))
            }
        });
        let end = self.stop.wait();
        let served = if is_http2 {
            let connection = http2::Builder::new(Tasks)
                .max_concurrent_streams(self.api.config.streams_max)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER_SIZE)
                .auto_date_header(false)
                .serve_connection(stream, service);
            until(connection, &end, &cut, |connection| connection.graceful_shutdown()).await
        } else {
            // A client that ends its side has gone: nothing else would end a watch that has nothing to tell.
            let connection = http1::Builder::new().serve_connection(stream, service);
            until(connection, &end, &cut, |connection| connection.graceful_shutdown()).await
        };
        drop(own);
        served.map_or(Ok(()), |served| served.map_err(io::Error::other))
    }
}

/// Serves a connection to its end, which is begun with `shut_down` when the server stops; none: it was cut.
async fn until<C: Future>(
    connection: C,
    end: &Waiter,
    cut: &Waiter,
    shut_down: impl FnOnce(Pin<&mut C>),
) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut shut_down = Some(shut_down);
    poll_fn(|context| {
        if shut_down.is_some()
            && end.poll(context).is_ready()
            && let Some(shut_down) = shut_down.take()
        {
            shut_down(connection.as_mut());
        }
        if cut.poll(context).is_ready() {
            return Poll::Ready(None);
        }
        connection.as_mut().poll(context).map(Some)
    })
    .await
}

/// A connection to the reactor that is given up when its user ends, however that ends.
pub(crate) struct Own(Rc<Native>);

impl Own {
    fn native(&self) -> &Rc<Native> {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What the calls of one HTTP connection share.
pub(crate) struct Link {
    gate: Rc<Gate>,
    native: Rc<Native>,
    /// Where what the client has not taken is counted.
    account: Rc<Account>,
    greeting: Greeting,
    /// The address at which the client has reached this member.
    reached: String,
    /// What is served at that address.
    serves: Serves,
}

impl Link {
    /// What every answer says of who gives it.
    fn answerer(&self) -> etcd::Answerer {
        etcd::Answerer {
            cluster_id: self.greeting.cluster,
            member_id: self.greeting.member,
            term: self.gate.standing.get().term.get(),
        }
    }

    /// One more connection to the reactor, for what must not hold up the others.
    fn open(&self) -> Own {
        Own(Native::open(&self.gate.inbox, &self.account))
    }

    /// The same for a single long answer: no more than a piece of it waits there.
    fn open_for_one(&self) -> Own {
        Own(Native::open_for_one(&self.gate.inbox, &self.account))
    }

    fn has_leader(&self) -> bool {
        self.gate.has_leader()
    }

    fn is_learner(&self) -> bool {
        // It may have been given its vote since it was looked at.
        let gate = &self.gate;
        gate.is_learner.get() && gate.board.sum(|all| &all.is_learner) > 0
    }

    /// Waits until clients find this member in the list of members, as long as a request may take.
    async fn awaits_publication(&self) {
        let gate = &self.gate;
        if gate.is_published.get() {
            return;
        }
        let (begun, end) = (Instant::now(), gate.stop.wait());
        let patience = Duration::from_millis(gate.api.request_timeout_ms.into());
        while begun.elapsed() < patience && gate.board.sum(|all| &all.published) == 0 {
            let stops = poll_fn(|context| Poll::Ready(end.poll(context).is_ready())).await;
            if stops {
                return;
            }
            glommio::timer::sleep(PUBLICATION_PAUSE).await;
        }
        gate.is_published.set(gate.board.sum(|all| &all.published) > 0);
    }

    /// Whether a leader is known. While an election is under way its outcome is waited for.
    async fn awaits_leader(&self) -> bool {
        while !self.has_leader() {
            if self.gate.leaderless.get().elapsed() >= LEADER_GRACE {
                return false;
            }
            glommio::timer::sleep(LEADER_PAUSE).await;
        }
        true
    }
}

/// Gives a socket to the executor this runs on.
#[allow(unsafe_code)]
fn adopt(stream: std::net::TcpStream) -> TcpStream {
    let descriptor = stream.into_raw_fd();
    // SAFETY: the descriptor is open, is a socket, and was owned by nobody else than `stream`, which has
    // given it up.
    unsafe { TcpStream::from_raw_fd(descriptor) }
}
