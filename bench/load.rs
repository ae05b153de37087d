//! One thread of load: its connections, a turn at a time.
//!
//! ```text
//! wait for events -> per readable connection: read once, record each answer, begin as many new
//!                    operations as there is room for (closed loop), write once
//!                 -> begin what is due (open loop), write once per connection touched
//! ```
//!
//! A turn allocates nothing. The server shares the machine, so the thread sleeps in epoll whenever
//! there is nothing to do and makes one read and one write per connection that has answers, however
//! many they are.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use wire::{Header, Reply, Status};

use crate::connection::{Connection, ConnectionError, ReceiveBuffer, Received};
use crate::handshake::{HandshakeError, Opened};
use crate::number::nanoseconds;
use crate::process::thread_cpu_time;
use crate::record::{Record, Window};
use crate::schedule::Schedule;
use crate::workload::{Source, Workload};

/// Longest sleep: how late the end is noticed when nothing happens.
const TURN_MAX: Duration = Duration::from_millis(20);

/// How long answers are waited for after the end, in nanoseconds.
const DRAIN_MAX: u64 = 5_000_000_000;

/// How long a lost connection rests before the next attempt to open it, in nanoseconds.
const RECONNECT_PAUSE: u64 = 200_000_000;

/// For how long opening connections may fail, in nanoseconds.
const OUTAGE_MAX: u64 = 10_000_000_000;

/// Shortest time between wake-ups of an open loop, in nanoseconds. Operations that are due closer
/// together go out together; the wait counts as their latency.
const PACE_MIN: u64 = 50_000;

/// Of this many answers to single reads one is looked into.
const SAMPLE: u64 = 64;

/// The token of the pace maker; connections have theirs from 0 on.
const PACE: Token = Token(usize::MAX);

/// What ends a run early.
#[derive(Debug)]
pub enum LoadError {
    /// The machine refuses what the generator needs.
    Poll(io::Error),
    /// No connection can be opened any more.
    Outage(HandshakeError),
    /// Filling the key space was refused again and again.
    Fill(Status),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Poll(error) => write!(f, "cannot wait for sockets: {error}"),
            Self::Outage(error) => write!(f, "the server has been away for 10 s: {error}"),
            Self::Fill(status) => write!(f, "the key space cannot be filled: {status}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Poll(error)
    }
}

/// What a running thread shows to others, from its start on, warm-up included.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Operations answered well.
    pub answered: AtomicU64,
    /// Operations refused or lost.
    pub failed: AtomicU64,
    /// Sum of the latencies of `answered`, in nanoseconds.
    pub latency_sum: AtomicU64,
}

/// What one thread has to do.
pub struct Task {
    /// The servers.
    pub addresses: Vec<SocketAddr>,
    /// Sockets that do not block, handshake done, each with the index of its server.
    pub streams: Vec<(usize, TcpStream)>,
    /// Operations in flight of each.
    pub depth: usize,
    /// What is asked.
    pub workload: Workload,
    /// When it is asked; none: whenever there is room.
    pub schedule: Option<Schedule>,
    /// Operations per second of `schedule`.
    pub rate: u64,
    /// What is measured.
    pub window: Window,
    /// Time 0.
    pub origin: Instant,
    /// Whether the answers to reads should hold a key.
    pub expects_keys: bool,
}

/// What one thread has seen.
pub struct Seen {
    /// Its measurements.
    pub record: Record,
    /// Answers that were looked into and held no key, though they should.
    pub missing: u64,
    /// Why the first refused operation was refused.
    pub refusal: Option<Status>,
    /// Why the first lost connection was lost.
    pub loss: Option<String>,
    /// CPU time of the thread, warm-up included.
    pub cpu_time: Duration,
    /// Operations that it was spent on, warm-up included.
    pub cpu_operations: u64,
}

impl Seen {
    /// Adds what another thread has seen.
    pub fn add(&mut self, other: Self) {
        self.record.merge(&other.record);
        self.missing += other.missing;
        self.refusal = self.refusal.or(other.refusal);
        self.loss = self.loss.take().or(other.loss);
        self.cpu_time += other.cpu_time;
        self.cpu_operations += other.cpu_operations;
    }
}

/// A connection, or when to open it again.
enum Link {
    Up(Connection),
    Down { retry_at: u64 },
}

/// Tallies of one thread, apart from its connections, so that both can be borrowed.
struct Tally {
    seen: Seen,
    answered: u64,
    failed: u64,
    latency_sum: u64,
    expects_keys: bool,
}

impl Tally {
    /// Counts one frame. The number of its key, if it is to be asked for again.
    #[inline]
    fn count(&mut self, received: &Received<'_>, now: u64) -> Option<u64> {
        let Received { header, body, place } = received;
        if header.flags.has_more() {
            return None;
        }
        if header.status != Status::Ok {
            self.seen.refusal.get_or_insert(header.status);
            self.seen.record.failed(place.began, now);
            self.failed += 1;
            return Some(place.key);
        }
        self.seen.record.answered(place.began, now);
        self.answered += 1;
        self.latency_sum += now.saturating_sub(place.began);
        if self.expects_keys && self.answered.is_multiple_of(SAMPLE) {
            self.look_into(header, body);
        }
        None
    }

    #[cold]
    fn look_into(&mut self, header: &Header, body: &[u8]) {
        match Reply::verify(header, body) {
            Ok(Reply::Range(reply)) if reply.kvs.is_empty() => self.seen.missing += 1,
            Ok(_) => {}
            Err(error) => {
                self.seen.loss.get_or_insert_with(|| error.to_string());
                self.failed += 1;
            }
        }
    }
}

/// The machine of one thread.
struct Load {
    poll: Poll,
    links: Vec<Link>,
    /// The server of each link; another one when that is away.
    servers: Vec<usize>,
    buffer: ReceiveBuffer,
    tally: Tally,
    workload: Workload,
    schedule: Option<Schedule>,
    addresses: Vec<SocketAddr>,
    depth: usize,
    end: u64,
    origin: Instant,
    /// Where the search for room goes on.
    cursor: usize,
    /// Connections that were given something in this turn; empty between turns.
    touched: Vec<usize>,
    /// How many connections are down.
    down_count: usize,
    /// Since when no connection could be opened.
    out_since: Option<u64>,
}

/// Does `task` to its end.
///
/// # Errors
/// What made it impossible to go on.
pub fn run(task: Task, gauge: &Gauge) -> Result<Seen, LoadError> {
    let poll = Poll::new()?;
    let mut links = Vec::with_capacity(task.streams.len());
    let mut servers = Vec::with_capacity(task.streams.len());
    for (index, (server, stream)) in task.streams.into_iter().enumerate() {
        servers.push(server);
        let connection = Connection::new(stream, task.depth, poll.registry(), Token(index))?;
        links.push(Link::Up(connection));
    }
    let stop = AtomicBool::new(false);
    let waker = Waker::new(poll.registry(), PACE)?;
    let seen = Seen {
        record: Record::new(task.window),
        missing: 0,
        refusal: None,
        loss: None,
        cpu_time: Duration::ZERO,
        cpu_operations: 0,
    };
    let cpu_before = thread_cpu_time().unwrap_or_default();
    let mut load = Load {
        poll,
        links,
        servers,
        buffer: ReceiveBuffer::new(),
        tally: Tally {
            seen,
            answered: 0,
            failed: 0,
            latency_sum: 0,
            expects_keys: task.expects_keys,
        },
        workload: task.workload,
        schedule: task.schedule,
        addresses: task.addresses,
        depth: task.depth,
        end: task.window.end,
        origin: task.origin,
        cursor: 0,
        touched: Vec::new(),
        down_count: 0,
        out_since: None,
    };
    thread::scope(|scope| {
        if load.schedule.is_some() {
            let pace = (1_000_000_000 / task.rate.max(1)).max(PACE_MIN);
            let stop = &stop;
            scope.spawn(move || keep_pace(&waker, pace, task.origin, stop));
        }
        let done = load.turns(gauge);
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    let mut seen = load.finish();
    seen.cpu_time = thread_cpu_time().unwrap_or_default().saturating_sub(cpu_before);
    Ok(seen)
}

/// Wakes the thread each `pace` nanoseconds: epoll alone sleeps in whole milliseconds.
fn keep_pace(waker: &Waker, pace: u64, origin: Instant, stop: &AtomicBool) {
    // Sleeps end late by the thread's timer slack, 50 us unless it says otherwise. Where this is
    // not permitted, operations go out that much later, which counts as their latency.
    let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1000");
    let mut tick: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = nanoseconds(origin.elapsed());
        tick = tick.max(now / pace) + 1;
        let due = tick.saturating_mul(pace);
        thread::sleep(Duration::from_nanos(due.saturating_sub(now)));
        if waker.wake().is_err() {
            return;
        }
    }
}

impl Load {
    fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }

    /// Turns until everything is done and answered, or the end and its patience have passed.
    fn turns(&mut self, gauge: &Gauge) -> Result<(), LoadError> {
        let mut events = Events::with_capacity(1_024);
        for index in 0..self.links.len() {
            self.refill(index);
        }
        loop {
            let now = self.now();
            if now >= self.end.saturating_add(DRAIN_MAX) || (self.is_idle(now) && self.is_done()) {
                return Ok(());
            }
            match self.poll.poll(&mut events, Some(TURN_MAX)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LoadError::Poll(error)),
            }
            for event in &events {
                if event.token() != PACE {
                    self.serve(event.token().0, event.is_readable(), event.is_read_closed());
                }
            }
            self.send_due();
            self.reopen()?;
            self.refuse_endless_filling()?;
            gauge.answered.store(self.tally.answered, Ordering::Relaxed);
            gauge.failed.store(self.tally.failed, Ordering::Relaxed);
            gauge.latency_sum.store(self.tally.latency_sum, Ordering::Relaxed);
        }
    }

    /// A key space that refuses more writes than it has keys will not be filled by patience.
    fn refuse_endless_filling(&self) -> Result<(), LoadError> {
        match (self.tally.seen.refusal, self.workload.source()) {
            (Some(status), Source::Sequence { .. })
                if self.tally.failed > self.workload.space().count() + 10_000 =>
            {
                Err(LoadError::Fill(status))
            }
            _ => Ok(()),
        }
    }

    /// True once nothing more will be begun.
    fn is_idle(&self, now: u64) -> bool {
        now >= self.end || self.workload.is_exhausted()
    }

    /// True if nothing is in flight.
    fn is_done(&self) -> bool {
        self.links.iter().all(|link| match link {
            Link::Up(connection) => connection.in_flight().next().is_none(),
            Link::Down { .. } => true,
        })
    }

    /// A connection has something to say, or room again.
    #[inline]
    fn serve(&mut self, index: usize, readable: bool, closing: bool) {
        let now = self.now();
        let Some(Link::Up(connection)) = self.links.get_mut(index) else { return };
        if readable || closing {
            let (tally, workload) = (&mut self.tally, &mut self.workload);
            let received = connection.receive(&mut self.buffer, closing, &mut |received| {
                if let Some(key) = tally.count(&received, now) {
                    workload.again(key);
                }
            });
            if let Err(error) = received {
                return self.lose(index, &error);
            }
        }
        self.refill(index);
    }

    /// Closed loop: begins as many operations as there is room for. Either loop: sends.
    #[inline]
    fn refill(&mut self, index: usize) {
        let now = self.now();
        let Some(Link::Up(connection)) = self.links.get_mut(index) else { return };
        if self.schedule.is_none() && now < self.end {
            let workload = &mut self.workload;
            while connection.has_room()
                && connection.begin(now, |request, out| workload.append(request, out))
            {}
        }
        if let Err(error) = connection.send(self.poll.registry(), Token(index)) {
            self.lose(index, &error);
        }
    }

    /// Open loop: begins what is due on connections with room, in turn.
    fn send_due(&mut self) {
        let now = self.now().min(self.end.saturating_sub(1));
        let Some(schedule) = &mut self.schedule else { return };
        let count = self.links.len();
        let mut passed = 0;
        while passed < count && schedule.due() <= now {
            let index = self.cursor;
            self.cursor = (self.cursor + 1) % count;
            passed += 1;
            let Link::Up(connection) = &mut self.links[index] else { continue };
            if connection.has_room()
                && let Some(due) = schedule.take(now)
            {
                let workload = &mut self.workload;
                connection.begin(due, |request, out| workload.append(request, out));
                self.touched.push(index);
                passed = 0;
            }
        }
        while let Some(index) = self.touched.pop() {
            self.refill(index);
        }
    }

    /// Ends a connection: what was in flight has failed.
    #[cold]
    fn lose(&mut self, index: usize, error: &ConnectionError) {
        let now = self.now();
        let down = Link::Down { retry_at: now + RECONNECT_PAUSE };
        let Link::Up(connection) = std::mem::replace(&mut self.links[index], down) else { return };
        self.down_count += 1;
        self.tally.seen.loss.get_or_insert_with(|| error.to_string());
        for place in connection.in_flight() {
            self.tally.seen.record.failed(place.began, now);
            self.tally.failed += 1;
            self.workload.again(place.key);
        }
    }

    /// Opens lost connections again, as long as there is something to do.
    fn reopen(&mut self) -> Result<(), LoadError> {
        let now = self.now();
        if self.down_count == 0 || self.is_idle(now) {
            return Ok(());
        }
        for index in 0..self.links.len() {
            if !matches!(&self.links[index], Link::Down { retry_at } if *retry_at <= now) {
                continue;
            }
            match self.open(index) {
                Ok(()) => {
                    self.out_since = None;
                    self.refill(index);
                }
                Err(error) => {
                    self.links[index] = Link::Down { retry_at: now + RECONNECT_PAUSE };
                    // A client of a cluster does not wait for the member that it had.
                    self.servers[index] = (self.servers[index] + 1) % self.addresses.len();
                    let since = *self.out_since.get_or_insert(now);
                    return match now.saturating_sub(since) {
                        waited if waited > OUTAGE_MAX => Err(LoadError::Outage(error)),
                        // The others would mostly wait for the same server: one attempt a turn.
                        _ => Ok(()),
                    };
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<(), HandshakeError> {
        let address = self.addresses[self.servers[index]];
        let stream = Opened::connect(address)?.into_stream()?;
        let connection = Connection::new(stream, self.depth, self.poll.registry(), Token(index))
            .map_err(|error| HandshakeError::Connect(address, error))?;
        self.links[index] = Link::Up(connection);
        self.down_count -= 1;
        Ok(())
    }

    /// What was never answered has failed; what was due and never sent is told.
    fn finish(mut self) -> Seen {
        let now = self.now();
        for link in &self.links {
            if let Link::Up(connection) = link {
                for place in connection.in_flight() {
                    self.tally.seen.record.failed(place.began, now);
                }
            }
        }
        if let Some(schedule) = &self.schedule {
            for due in schedule.untaken(0, self.end) {
                self.tally.seen.record.unsent(due);
            }
        }
        self.tally.seen.cpu_operations = self.tally.answered + self.tally.failed;
        self.tally.seen
    }
}
