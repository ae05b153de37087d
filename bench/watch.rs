//! Watches under load: how many changes are told in a second, how late they come, what a watch that is told
//! nothing costs, and how long one that is behind takes to catch up.
//!
//! ```text
//! resident memory ─► watches are opened ─► resident memory ─► puts, each told to some of the watches
//!                                                            ─► one more watch, from far behind
//! ```
//!
//! One thread is client of everything. A put carries the time at which it was sent; the latency of a change
//! is what has gone by when it comes. Puts wait until the changes of those before them have come, up to the
//! number of writers: what is measured is the fan-out, not a queue of the generator's own making. With a
//! rate puts are sent when they are due.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use serde::Serialize;
use wire::{Call, Put, Reply, Watch, WatchRange, WatchRanges, WatchStep};

use crate::handshake::HandshakeError;
use crate::link::Link;
use crate::number::{float, nanoseconds};
use crate::process::{Process, thread_cpu_time};
use crate::report::LatencyMicroseconds;

/// Requests on their way of one connection while watches are opened or the past is written.
const OPENING_MAX: usize = 512;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the watched keys are.
const ONE_KEY: &[u8] = b"watch/one";
const PAST: &[u8] = b"watch/past/";

/// What is watched, and what is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// All watch one key, and it is written: a put is told to everybody.
    One,
    /// Each watches a prefix of its own, and a key below one of them is written: told to one.
    Own,
    /// Each watches a prefix of its own, and others keys are written: told to nobody.
    Other,
}

/// What a run is asked to be.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// The servers, at least 1: connections are spread over them in turn.
    pub addresses: Vec<SocketAddr>,
    /// Watches; 0: none.
    pub watches: usize,
    /// Connections that carry them.
    pub connections: usize,
    /// What they watch.
    pub watched: Watched,
    /// Puts in flight.
    pub writers: usize,
    /// Puts per second; none: as fast as changes come.
    pub rate: Option<u64>,
    /// Length of the measurement.
    pub duration: Duration,
    /// Bytes of a value, at least 8.
    pub value_size: usize,
    /// Revisions that the late watch is behind; 0: there is none.
    pub behind: u64,
    /// Keys that those revisions wrote.
    pub behind_keys: u64,
}

/// Why there are no figures.
#[derive(Debug)]
pub enum WatchError {
    /// The plan contradicts itself.
    Plan(String),
    /// The server cannot be reached or refuses.
    Handshake(HandshakeError),
    /// A connection broke.
    Lost(io::Error),
    /// The server refused a watch or a put.
    Refused(wire::Status, String),
    /// Nothing came for a minute.
    Silent(&'static str),
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(text) => f.write_str(text),
            Self::Handshake(error) => error.fmt(f),
            Self::Lost(error) => write!(f, "a connection broke: {error}"),
            Self::Refused(status, text) => write!(f, "the server refused: {status}: {text}"),
            Self::Silent(what) => {
                write!(f, "nothing came for {} s while {what}", PATIENCE.as_secs())
            }
        }
    }
}

impl std::error::Error for WatchError {}

impl From<HandshakeError> for WatchError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<io::Error> for WatchError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct WatchReport {
    /// Always `watch`.
    pub operation: &'static str,
    /// What was watched.
    pub watched: Watched,
    /// Watches.
    pub watches: usize,
    /// Connections that carried them.
    pub connections: usize,
    /// Seconds until all watches had begun.
    pub opening_seconds: f64,
    /// Resident memory of the servers for one watch that is told nothing, in bytes.
    pub server_bytes_per_watch: Option<f64>,
    /// Length of the measurement.
    pub seconds: f64,
    /// Changes that came.
    pub changes: u64,
    /// Changes that came in a second.
    pub changes_per_second: f64,
    /// From sending the put until its change came.
    pub latency_us: LatencyMicroseconds,
    /// Puts that were answered.
    pub puts: u64,
    /// Puts that were answered in a second.
    pub puts_per_second: f64,
    /// Latency of puts.
    pub put_latency_us: LatencyMicroseconds,
    /// CPU time of the servers for a change.
    pub server_cpu_us_per_change: Option<f64>,
    /// CPU time of the servers for a put, changes and all.
    pub server_cpu_us_per_put: Option<f64>,
    /// CPU time of the generator for a change.
    pub generator_cpu_us_per_change: Option<f64>,
    /// Changes that had not come 5 s after the last put.
    pub missing: u64,
    /// The late watch, if there was one.
    pub catch_up: Option<CatchUp>,
}

/// The figures of a watch that begins far behind.
#[derive(Clone, Debug, Serialize)]
pub struct CatchUp {
    /// Changes that it had to be told.
    pub changes: u64,
    /// Seconds until it had been told all of them.
    pub seconds: f64,
    /// Changes in a second.
    pub changes_per_second: f64,
    /// Latency of the other watches while it caught up.
    pub others_latency_us: LatencyMicroseconds,
    /// CPU time of the servers for each of its changes, the other load included.
    pub server_cpu_us_per_change: Option<f64>,
}

impl WatchReport {
    /// The object, on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text alone: nothing to refuse")
    }
}

impl fmt::Display for WatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { watches, connections, seconds, .. } = self;
        writeln!(f, "watch: {watches} watches over {connections} connections, {seconds:.2} s")?;
        writeln!(f, "  opened in    {:>12.3} s", self.opening_seconds)?;
        if let Some(bytes) = self.server_bytes_per_watch {
            writeln!(
                f,
                "  memory       {bytes:>12.0} bytes of the server for an idle watch, if it was just started"
            )?;
        }
        writeln!(
            f,
            "  changes      {:>12.0} /s   {} in all, {} missing",
            self.changes_per_second, self.changes, self.missing
        )?;
        let latency = |f: &mut fmt::Formatter<'_>, name: &str, us: &LatencyMicroseconds| {
            writeln!(
                f,
                "  {name:<12} p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0} us",
                us.p50, us.p90, us.p99, us.p999, us.max
            )
        };
        latency(f, "delivery", &self.latency_us)?;
        writeln!(f, "  puts         {:>12.0} /s", self.puts_per_second)?;
        latency(f, "put", &self.put_latency_us)?;
        if let Some(cpu) = self.server_cpu_us_per_put {
            writeln!(f, "  server CPU   {cpu:>12.2} us for a put")?;
        }
        if let Some(cpu) = self.server_cpu_us_per_change {
            writeln!(f, "               {cpu:>12.2} us for a change")?;
        }
        if let Some(late) = &self.catch_up {
            writeln!(
                f,
                "  catch-up     {:>12.0} changes/s   {} changes in {:.3} s",
                late.changes_per_second, late.changes, late.seconds
            )?;
            latency(f, "others then", &late.others_latency_us)?;
        }
        Ok(())
    }
}

/// What a run does at present.
#[derive(Clone, Copy, Debug)]
pub enum WatchProgress {
    /// Watches begin.
    Opening(usize),
    /// The past is written.
    Past(u64),
    /// Changes come.
    Measuring(u64),
    /// The late watch has been told so many.
    CatchingUp(u64),
}

struct Run<'p> {
    plan: &'p WatchPlan,
    poll: Poll,
    events: Events,
    origin: Instant,
    /// The connections of watches, then that of puts.
    links: Vec<Link>,
    created: usize,
    changes: u64,
    latencies: Histogram<u64>,
    put_latencies: Histogram<u64>,
    /// When each put in flight was sent, by request, oldest first.
    sent: std::collections::VecDeque<(u64, u64)>,
    next_put: u64,
    puts: u64,
    revision: i64,
    tell: &'p mut dyn FnMut(WatchProgress),
    told_at: Instant,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
}

/// Runs `plan`.
///
/// # Errors
/// The plan cannot be carried out, or the server is away or refuses.
pub fn run(
    plan: &WatchPlan,
    tell: &mut dyn FnMut(WatchProgress),
) -> Result<WatchReport, WatchError> {
    check(plan)?;
    let poll = Poll::new()?;
    let mut links = Vec::new();
    let links_count = plan.connections + 1;
    for number in 0..links_count {
        let address = plan.addresses[number % plan.addresses.len()];
        links.push(Link::open(address, &poll, Token(number))?);
    }
    let servers = processes(&plan.addresses);
    let mut run = Run {
        plan,
        poll,
        events: Events::with_capacity(1_024),
        origin: Instant::now(),
        links,
        created: 0,
        changes: 0,
        latencies: histogram(),
        put_latencies: histogram(),
        sent: std::collections::VecDeque::new(),
        next_put: 1,
        puts: 0,
        revision: 0,
        tell,
        told_at: Instant::now(),
    };
    let first = run.write_past()?;
    let before = resident(&servers);
    let opening = Instant::now();
    run.open_watches()?;
    let opening_seconds = opening.elapsed().as_secs_f64();
    // What was needed for opening alone is given back by then.
    std::thread::sleep(Duration::from_millis(300));
    let grown = resident(&servers).zip(before).map(|(now, then)| now.saturating_sub(then));
    let used = cpu(&servers);
    let own = thread_cpu_time();
    let began = Instant::now();
    run.load(began + plan.duration)?;
    let missing = run.drain()?;
    let seconds = began.elapsed().as_secs_f64();
    let used = cpu(&servers).zip(used).map(|(now, then)| now.saturating_sub(then));
    let own = thread_cpu_time().zip(own).map(|(now, then)| now.saturating_sub(then));
    let each = |time: Option<Duration>, count: u64| {
        time.filter(|_| count > 0).map(|time| time.as_secs_f64() * 1e6 / float(count))
    };
    let mut report = WatchReport {
        operation: "watch",
        watched: plan.watched,
        watches: plan.watches,
        connections: plan.connections,
        opening_seconds,
        server_bytes_per_watch: grown
            .filter(|_| plan.watches > 0)
            .map(|bytes| float(bytes) / plan.watches as f64),
        seconds,
        changes: run.changes,
        changes_per_second: float(run.changes) / seconds,
        latency_us: LatencyMicroseconds::of(&run.latencies),
        puts: run.puts,
        puts_per_second: float(run.puts) / seconds,
        put_latency_us: LatencyMicroseconds::of(&run.put_latencies),
        server_cpu_us_per_change: each(used, run.changes),
        server_cpu_us_per_put: each(used, run.puts),
        generator_cpu_us_per_change: each(own, run.changes),
        missing,
        catch_up: None,
    };
    if let Some(first) = first {
        report.catch_up = Some(run.catch_up(first, &servers)?);
    }
    Ok(report)
}

fn check(plan: &WatchPlan) -> Result<(), WatchError> {
    let refuse = |text: &str| Err(WatchError::Plan(text.into()));
    if plan.addresses.is_empty() || plan.connections == 0 || plan.writers == 0 {
        return refuse("servers, connections and writers must be more than 0");
    }
    if plan.duration.is_zero() || plan.rate == Some(0) || plan.value_size < 8 {
        return refuse("duration and rate must be more than 0, and a value has at least 8 bytes");
    }
    if plan.behind > 0 && plan.behind_keys == 0 {
        return refuse("the past is written to at least 1 key");
    }
    Ok(())
}

/// The processes of the servers, as far as they are on this machine.
pub(crate) fn processes(addresses: &[SocketAddr]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    for address in addresses {
        let Ok(stream) = std::net::TcpStream::connect(address) else { continue };
        // The server's side of the connection is known once it has been accepted.
        std::thread::sleep(Duration::from_millis(20));
        let local = stream.local_addr().ok();
        if let Some(process) = local.and_then(|local| Process::serving(local, *address))
            && !found.contains(&process)
        {
            found.push(process);
        }
    }
    found
}

pub(crate) fn resident(servers: &[Process]) -> Option<u64> {
    if servers.is_empty() { None } else { servers.iter().map(|own| own.resident_size()).sum() }
}

pub(crate) fn cpu(servers: &[Process]) -> Option<Duration> {
    if servers.is_empty() { None } else { servers.iter().map(|own| own.cpu_time()).sum() }
}

impl Run<'_> {
    fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }

    fn say(&mut self, progress: WatchProgress) {
        if self.told_at.elapsed() >= Duration::from_millis(500) {
            self.told_at = Instant::now();
            (self.tell)(progress);
        }
    }

    /// The link of puts.
    fn writer(&mut self) -> &mut Link {
        &mut self.links[self.plan.connections]
    }

    /// Takes everything that has come; waits for it up to `wait`.
    fn take(&mut self, wait: Duration) -> Result<(), WatchError> {
        self.poll.poll(&mut self.events, Some(wait)).or_else(|error| {
            if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
        })?;
        let tokens: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for token in tokens {
            self.links[token].flush()?;
            let origin = self.origin;
            let mut refused = None;
            let Self {
                links,
                created,
                changes,
                latencies,
                put_latencies,
                sent,
                puts,
                revision,
                ..
            } = self;
            links[token].receive(&mut |header, body| {
                let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                match Reply::verify(&header, body).map_err(bad)? {
                    Reply::Watch(reply) if reply.step == WatchStep::Created => *created += 1,
                    Reply::Watch(reply) => {
                        let now = nanoseconds(origin.elapsed());
                        for change in reply.changes {
                            *changes += 1;
                            if let Some(time) = change.kv.value.first_chunk::<8>() {
                                let time = u64::from_le_bytes(*time);
                                let _ = latencies.record(now.saturating_sub(time).max(1));
                            }
                        }
                    }
                    Reply::Put(reply) => {
                        let now = nanoseconds(origin.elapsed());
                        *puts += 1;
                        *revision = (*revision).max(reply.revision);
                        let request = header.request.get();
                        if let Some(place) = sent.iter().position(|(own, _)| *own == request)
                            && let Some((_, time)) = sent.remove(place)
                        {
                            let _ = put_latencies.record(now.saturating_sub(time).max(1));
                        }
                    }
                    Reply::Refused(text) => {
                        refused.get_or_insert((text.status, text.message.to_owned()));
                    }
                    _ => {}
                }
                Ok(())
            })?;
            if let Some((status, message)) = refused {
                return Err(WatchError::Refused(status, message));
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], due: Option<u64>) -> Result<(), WatchError> {
        let now = due.unwrap_or_else(|| self.now());
        let mut value = vec![b'v'; self.plan.value_size];
        value[..8].copy_from_slice(&now.to_le_bytes());
        let request = self.next_put;
        self.next_put += 1;
        self.sent.push_back((request, now));
        self.writer().queue(request, &Call::Put(Put::new(key, &value))).map_err(too_large)
    }

    /// Writes what the late watch will be told; the first of its revisions.
    fn write_past(&mut self) -> Result<Option<i64>, WatchError> {
        if self.plan.behind == 0 {
            return Ok(None);
        }
        let mut written = 0;
        let mut first = None;
        let mut heard = Instant::now();
        while self.puts < self.plan.behind {
            let before = self.puts;
            // The first alone: its answer says where the past begins.
            while written < self.plan.behind
                && self.sent.len() < OPENING_MAX
                && (written == 0 || first.is_some())
            {
                let key = [PAST, &(written % self.plan.behind_keys).to_be_bytes()].concat();
                self.put(&key, None)?;
                written += 1;
            }
            self.writer().flush()?;
            self.take(Duration::from_millis(50))?;
            if first.is_none() && self.puts > 0 {
                first = Some(self.revision);
            }
            if self.puts > before {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                return Err(WatchError::Silent("the past was written"));
            }
            self.say(WatchProgress::Past(self.puts));
        }
        self.puts = 0;
        self.put_latencies.reset();
        Ok(first)
    }

    fn open_watches(&mut self) -> Result<(), WatchError> {
        let mut opened = 0;
        let mut heard = Instant::now();
        while self.created < self.plan.watches {
            let before = self.created;
            while opened < self.plan.watches
                && opened - self.created < OPENING_MAX * self.plan.connections
                && opened - self.created < 64 * OPENING_MAX
            {
                let (key, range_end) = match self.plan.watched {
                    Watched::One => (ONE_KEY.to_vec(), Vec::new()),
                    Watched::Own | Watched::Other => {
                        let number = opened as u64;
                        let from = [b"watch/own/", &number.to_be_bytes()[..], b"/"].concat();
                        let to = [b"watch/own/", &number.to_be_bytes()[..], b"0"].concat();
                        (from, to)
                    }
                };
                let range = [WatchRange { key: &key, range_end: &range_end }];
                let watch = Watch { ranges: WatchRanges::Given(&range), ..Watch::default() };
                let link = &mut self.links[opened % self.plan.connections];
                link.queue(opened as u64 + 1, &Call::Watch(watch)).map_err(too_large)?;
                opened += 1;
            }
            for link in &mut self.links[..self.plan.connections] {
                link.flush()?;
            }
            self.take(Duration::from_millis(50))?;
            if self.created > before {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                return Err(WatchError::Silent("watches were opened"));
            }
            self.say(WatchProgress::Opening(self.created));
        }
        Ok(())
    }

    /// Changes that one put is told as.
    fn fan_out(&self) -> u64 {
        match self.plan.watched {
            Watched::One => self.plan.watches as u64,
            Watched::Own => u64::from(self.plan.watches > 0),
            Watched::Other => 0,
        }
    }

    fn key(&self, number: u64) -> Vec<u8> {
        match self.plan.watched {
            Watched::One => ONE_KEY.to_vec(),
            Watched::Own if self.plan.watches > 0 => {
                let watch = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.plan.watches as u64;
                [b"watch/own/", &watch.to_be_bytes()[..], b"/key"].concat()
            }
            Watched::Own | Watched::Other => {
                let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 100_000;
                [b"watch/other/", &number.to_be_bytes()[..]].concat()
            }
        }
    }

    /// Writes until `end`.
    fn load(&mut self, end: Instant) -> Result<(), WatchError> {
        let writers = self.plan.writers;
        let (start, first, seen) = (Instant::now(), self.next_put, self.changes);
        let mut heard = (Instant::now(), self.changes + self.puts);
        while Instant::now() < end {
            let pause = match self.plan.rate {
                None => {
                    let fan_out = self.fan_out();
                    loop {
                        let done = self.next_put - first;
                        let expected = done * fan_out;
                        let open = expected.saturating_sub(self.changes - seen);
                        if self.sent.len() >= writers || open > (writers as u64 - 1) * fan_out {
                            break;
                        }
                        let key = self.key(done);
                        self.put(&key, None)?;
                    }
                    Duration::from_millis(20)
                }
                Some(rate) => {
                    let passed = nanoseconds(start.elapsed());
                    let interval = 1_000_000_000 / rate;
                    let mut done = self.next_put - first;
                    let began = nanoseconds(start.duration_since(self.origin));
                    while done * interval <= passed {
                        let key = self.key(done);
                        self.put(&key, Some(began + done * interval))?;
                        done += 1;
                    }
                    Duration::from_nanos((done * interval).saturating_sub(passed).min(20_000_000))
                }
            };
            self.writer().flush()?;
            self.take(pause)?;
            let got = self.changes + self.puts;
            if got > heard.1 {
                heard = (Instant::now(), got);
            } else if heard.0.elapsed() > PATIENCE {
                return Err(WatchError::Silent("changes were awaited"));
            }
            self.say(WatchProgress::Measuring(self.changes));
        }
        Ok(())
    }

    /// Waits for the rest; changes that have not come in time.
    fn drain(&mut self) -> Result<u64, WatchError> {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let missing = self.missing();
            if (missing == 0 && self.sent.is_empty()) || Instant::now() > end {
                return Ok(missing);
            }
            self.take(Duration::from_millis(20))?;
        }
    }

    fn missing(&self) -> u64 {
        (self.puts * self.fan_out()).saturating_sub(self.changes)
    }

    /// Opens a watch at the revision `first` beside the load, and waits until it has been told the past.
    fn catch_up(&mut self, first: i64, servers: &[Process]) -> Result<CatchUp, WatchError> {
        self.latencies.reset();
        let used = cpu(servers);
        let mut range_end = PAST.to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        let range = [WatchRange { key: PAST, range_end: &range_end }];
        let watch =
            Watch { ranges: WatchRanges::Given(&range), start_revision: first, ..Watch::default() };
        let link = self.plan.connections + 1;
        let address = self.plan.addresses[link % self.plan.addresses.len()];
        // In a thread of its own: what the others are told must not wait for what it reads.
        let mut late = Late::open(address, &watch)?;
        let behind = self.plan.behind;
        let told = Arc::new(AtomicU64::new(0));
        let counter = told.clone();
        let reading = std::thread::spawn(move || late.read(behind, &counter));
        while !reading.is_finished() {
            self.load(Instant::now() + Duration::from_millis(50))?;
            self.say(WatchProgress::CatchingUp(told.load(Ordering::Relaxed)));
        }
        let elapsed = reading.join().expect("a panic has ended the process")?;
        let seconds = elapsed.as_secs_f64();
        let used = cpu(servers).zip(used).map(|(now, then)| now.saturating_sub(then));
        Ok(CatchUp {
            changes: behind,
            seconds,
            changes_per_second: float(behind) / seconds,
            others_latency_us: LatencyMicroseconds::of(&self.latencies),
            server_cpu_us_per_change: used.map(|used| used.as_secs_f64() * 1e6 / float(behind)),
        })
    }
}

/// The watch that begins far behind, on a connection of its own.
struct Late {
    link: Link,
    poll: Poll,
}

impl Late {
    fn open(address: SocketAddr, watch: &Watch<'_>) -> Result<Self, WatchError> {
        let poll = Poll::new()?;
        let mut link = Link::open(address, &poll, Token(0))?;
        link.queue(1, &Call::Watch(*watch)).map_err(too_large)?;
        Ok(Self { link, poll })
    }

    /// Reads until it has been told `count` changes; how long that took.
    fn read(&mut self, count: u64, told: &AtomicU64) -> Result<Duration, WatchError> {
        let began = Instant::now();
        let mut heard = began;
        let mut events = Events::with_capacity(8);
        self.link.flush()?;
        while told.load(Ordering::Relaxed) < count {
            self.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            let mut refused = None;
            self.link.flush()?;
            self.link.receive(&mut |header, body| {
                let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                match Reply::verify(&header, body).map_err(bad)? {
                    Reply::Watch(reply) => {
                        told.fetch_add(reply.changes.len() as u64, Ordering::Relaxed);
                        heard = Instant::now();
                    }
                    Reply::Refused(text) => {
                        refused.get_or_insert((text.status, text.message.to_owned()));
                    }
                    _ => {}
                }
                Ok(())
            })?;
            if let Some((status, message)) = refused {
                return Err(WatchError::Refused(status, message));
            }
            if heard.elapsed() > PATIENCE {
                return Err(WatchError::Silent("the late watch was to be told the past"));
            }
        }
        Ok(began.elapsed())
    }
}

fn too_large(error: wire::EncodeError) -> WatchError {
    WatchError::Plan(format!("such a request cannot be sent: {error}"))
}
