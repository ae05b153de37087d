//! The load generator: asks a server for one kind of operation, as fast as it answers or at a
//! fixed rate, and says how long the answers took.
//!
//! ```text
//! Plan --run--> connect, shake hands --> fill the key space? --> threads of load --> Report
//!                    handshake.rs            (a load, too)          load.rs          report.rs
//! ```
//!
//! What is lightweight and why: the server usually shares a small machine with its load, so each
//! instruction spent here is one that the server does not get. Requests are patched templates
//! (`template.rs`), answers are checked by their checksum and looked into only now and then, a
//! turn of the loop allocates nothing, and one thread is the default.
//!
//! [`disk`] measures the raw limit in the same terms. Nothing here prints: progress goes to a
//! callback, figures into a [`Report`].

#![forbid(unsafe_code)]

mod connection;
pub mod disk;
mod handshake;
mod keys;
pub mod lease;
mod link;
mod load;
mod number;
pub mod plot;
pub mod process;
mod record;
mod report;
mod schedule;
mod template;
pub mod watch;
mod workload;

use std::collections::HashSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use base::Prng;

pub use handshake::HandshakeError;
pub use keys::{Distribution, KeySpaceError};
pub use load::LoadError;
pub use report::{LatencyMicroseconds, Report};
pub use workload::Operation;

use connection::DEPTH_MAX;
use handshake::{Granted, Opened};
use keys::{Draw, KeySpace};
use load::{Gauge, Seen, Task};
use number::{float, nanoseconds};
use process::Process;
use record::Window;
use report::{cpu_per_operation, per_second};
use schedule::Schedule;
use workload::{Shape, Source, Workload};

/// What every key of the key space begins with.
pub const KEY_PREFIX: &[u8] = b"key:";

/// Connections and depth with which a key space is filled.
const FILL_CONNECTIONS: usize = 16;
const FILL_DEPTH: usize = 32;

/// How long filling may take.
const FILL_TIME_MAX: Duration = Duration::from_secs(3_600);

/// How often the threads' gauges are looked at while nothing is to be done.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Everything that a run is asked to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers, at least 1: connections are spread over them in turn.
    pub addresses: Vec<SocketAddr>,
    /// What is measured.
    pub operation: Operation,
    /// Connections, at least 1.
    pub connections: usize,
    /// Operations in flight of each connection, at least 1.
    pub depth: usize,
    /// Threads, at least 1; more than connections is as many as connections.
    pub threads: usize,
    /// Length of the measured window.
    pub duration: Duration,
    /// Load before it that is not measured.
    pub warm_up: Duration,
    /// Open loop at this many operations per second; none: closed loop.
    pub rate: Option<u64>,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of each key.
    pub key_size: usize,
    /// Bytes of each value.
    pub value_size: usize,
    /// How often which key is drawn.
    pub distribution: Distribution,
    /// Keys that one range reads at most.
    pub limit: i64,
    /// Reads of 100 operations of the mixed workload.
    pub read_percent: u64,
    /// Reads take the member's own state instead of the newest.
    pub serializable: bool,
    /// What all draws follow from.
    pub seed: u64,
    /// Write every key first, whether it exists or not. Without this it is done where a workload
    /// reads and not all keys exist.
    pub fill: bool,
}

/// Why there are no figures.
#[derive(Debug)]
pub enum Error {
    /// The plan contradicts itself or the server's limits: what to change.
    Plan(String),
    /// The key space cannot be had.
    Keys(KeySpaceError),
    /// The server cannot be reached or refuses.
    Handshake(HandshakeError),
    /// The run broke off.
    Load(LoadError),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plan(text) => f.write_str(text),
            Self::Keys(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<KeySpaceError> for Error {
    fn from(error: KeySpaceError) -> Self {
        Self::Keys(error)
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

/// How far a run is; told about once a second.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// The key space is about to be filled: how many of the keys were there.
    FillBegins {
        /// Keys found.
        found: u64,
        /// Keys that there should be.
        keys: u64,
    },
    /// It is being filled.
    Filling {
        /// Keys written.
        done: u64,
        /// Keys to write.
        keys: u64,
    },
    /// Load that is not measured.
    WarmingUp,
    /// Load that is measured.
    Measuring {
        /// Time since the window's start.
        elapsed: Duration,
        /// Length of the window.
        duration: Duration,
        /// Operations per second since the progress before.
        per_second: f64,
        /// Their mean latency in microseconds.
        mean_us: f64,
        /// Operations refused or lost so far.
        errors: u64,
    },
    /// Something that the reader of the figures should know; told once, at the end.
    Warning(Warning),
}

/// What makes figures doubtful.
#[derive(Clone, Copy, Debug)]
pub enum Warning {
    /// Operations were refused; the first for this reason.
    Refused(wire::Status),
    /// Connections were lost.
    Lost,
    /// Of the reads that were looked into, this many found no key.
    Missing(u64),
}

/// Runs `plan` against its servers.
///
/// # Errors
/// The plan cannot be carried out, or the server is away.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    let space = KeySpace::new(KEY_PREFIX, plan.keys, plan.key_size)?;
    let (_, mut control) = connect(plan, 0)?;
    check(plan, control.granted())?;
    fill_if_needed(plan, &space, &mut control, tell)?;
    let body_size_max = control.granted().body_size_max;
    drop(control);

    let mut tasks = tasks(plan, &space, body_size_max)?;
    let servers = Servers::of(&tasks);
    let origin = Instant::now();
    for task in &mut tasks {
        task.origin = origin;
    }
    let window = window(plan);
    let (seen, used) = measure(tasks, origin, window, &servers, tell)?;
    warn(&seen, tell);
    Ok(report(plan, &seen, used, &servers))
}

/// A connection to the server in turn for `number`, or to the next that answers; and which that is.
fn connect(plan: &Plan, number: usize) -> Result<(usize, Opened), Error> {
    let count = plan.addresses.len();
    let mut error = Error::Plan("no server is named".into());
    for server in (0..count).map(|more| (number + more) % count) {
        match Opened::connect(plan.addresses[server]) {
            Ok(opened) => return Ok((server, opened)),
            Err(refused) => error = refused.into(),
        }
    }
    Err(error)
}

/// What the plan asks for and the server does not grant.
fn check(plan: &Plan, granted: Granted) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Plan(text));
    if plan.connections == 0 || plan.threads == 0 || plan.duration.is_zero() {
        return refuse("connections, threads and duration must be more than 0".into());
    }
    let depth_max = granted.requests_max.min(DEPTH_MAX);
    if plan.depth == 0 || plan.depth > depth_max {
        return refuse(format!("the depth must be 1 to {depth_max}, what the server grants"));
    }
    if plan.key_size > granted.key_size_max || plan.value_size > granted.value_size_max {
        return refuse(format!(
            "the server takes keys of at most {} bytes and values of at most {}",
            granted.key_size_max, granted.value_size_max
        ));
    }
    if plan.rate == Some(0) {
        return refuse("an open loop needs a rate of at least 1 operation per second".into());
    }
    Ok(())
}

fn shape(plan: &Plan, operation: Operation, body_size_max: usize) -> Shape {
    Shape {
        operation,
        value_size: plan.value_size,
        limit: plan.limit,
        read_percent: plan.read_percent,
        serializable: plan.serializable,
        body_size_max,
    }
}

fn workload(
    shape: &Shape,
    space: &KeySpace,
    source: Source,
    prng: Prng,
) -> Result<Workload, Error> {
    Workload::new(shape, space.clone(), source, prng)
        .map_err(|error| Error::Plan(format!("such a request cannot be sent: {error}")))
}

fn window(plan: &Plan) -> Window {
    let start = nanoseconds(plan.warm_up);
    Window { start, end: start.saturating_add(nanoseconds(plan.duration)) }
}

/// Connections, already open, and what each thread does with them.
fn tasks(plan: &Plan, space: &KeySpace, body_size_max: usize) -> Result<Vec<Task>, Error> {
    let threads_max = plan.rate.map_or(usize::MAX, |rate| usize::try_from(rate).unwrap_or(1));
    let threads = plan.threads.min(plan.connections).min(threads_max);
    let root = Prng::new(plan.seed);
    let all = Draw::new(plan.distribution, plan.keys, root.fork("keys"));
    let mut tasks = Vec::with_capacity(threads);
    for thread in 0..threads {
        let label = format!("thread {thread}");
        let source = Source::Draw(all.with_prng(root.fork("keys").fork(&label)));
        let prng = root.fork("values").fork(&label);
        let rate = plan.rate.map(|rate| share(rate, thread, threads));
        tasks.push(Task {
            addresses: plan.addresses.clone(),
            streams: Vec::new(),
            depth: plan.depth,
            workload: workload(&shape(plan, plan.operation, body_size_max), space, source, prng)?,
            schedule: rate.map(Schedule::new),
            rate: rate.unwrap_or(0),
            window: window(plan),
            origin: Instant::now(),
            expects_keys: plan.operation == Operation::Get,
        });
    }
    for number in 0..plan.connections {
        tasks[number % threads].streams.push(open(plan, number)?);
    }
    Ok(tasks)
}

/// Connection `number` of the plan, and which of its servers it is to.
fn open(plan: &Plan, number: usize) -> Result<(usize, TcpStream), Error> {
    let (server, opened) = connect(plan, number)?;
    Ok((server, opened.into_stream()?))
}

/// The part of `total` that thread `thread` of `threads` takes; the parts add up.
fn share(total: u64, thread: usize, threads: usize) -> u64 {
    let to_u64 = |count: usize| u64::try_from(count).expect("a count of threads");
    let (thread, threads) = (to_u64(thread), to_u64(threads));
    total / threads + u64::from(thread < total % threads)
}

/// The processes of the servers, each once; none if one of them is not on this machine.
struct Servers(Option<Vec<Process>>);

impl Servers {
    /// Those at the other ends of the tasks' connections.
    fn of(tasks: &[Task]) -> Self {
        let mut seen = HashSet::new();
        let mut processes: Vec<Process> = Vec::new();
        for task in tasks {
            for (server, stream) in &task.streams {
                if !seen.insert(*server) {
                    continue;
                }
                let local = stream.local_addr().ok();
                match local.and_then(|local| Process::serving(local, task.addresses[*server])) {
                    Some(process) if processes.contains(&process) => {}
                    Some(process) => processes.push(process),
                    None => return Self(None),
                }
            }
        }
        Self((!processes.is_empty()).then_some(processes))
    }

    /// CPU time of all of them; none if one has ended.
    fn cpu_time(&self) -> Option<Duration> {
        self.0.as_ref()?.iter().map(|process| process.cpu_time()).sum()
    }

    /// Resident memory of all of them, likewise.
    fn resident_size(&self) -> Option<u64> {
        self.0.as_ref()?.iter().map(|process| process.resident_size()).sum()
    }
}

/// Runs the threads and, beside them, watches the clock and what CPU time the server uses in the
/// window.
fn measure(
    tasks: Vec<Task>,
    origin: Instant,
    window: Window,
    servers: &Servers,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Seen, Option<Duration>), Error> {
    let server_used = |before: Option<Duration>| Some(servers.cpu_time()?.saturating_sub(before?));
    let gauges: Vec<Gauge> = tasks.iter().map(|_| Gauge::default()).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = tasks
            .into_iter()
            .zip(&gauges)
            .map(|(task, gauge)| scope.spawn(move || load::run(task, gauge)))
            .collect();
        let mut watch = Watch::new(window);
        let mut before = None;
        let mut used = None;
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            let now = nanoseconds(origin.elapsed());
            if before.is_none() && now >= window.start {
                before = servers.cpu_time();
            }
            if used.is_none() && now >= window.end {
                used = server_used(before);
            }
            watch.look(now, &gauges, tell);
            thread::sleep(LOOK_PAUSE.min(Duration::from_nanos(watch.until_next(now))));
        }
        // The threads may have ended before this one woke up for the end of the window.
        let used = used.or_else(|| server_used(before));
        let mut all: Option<Seen> = None;
        for thread in threads {
            let seen = thread.join().expect("a panic has ended the process")?;
            match &mut all {
                Some(all) => all.add(seen),
                None => all = Some(seen),
            }
        }
        Ok((all.expect("at least one thread"), used))
    })
}

/// Turns the gauges into progress, once a second.
struct Watch {
    window: Window,
    told_at: u64,
    answered: u64,
    latency_sum: u64,
}

impl Watch {
    fn new(window: Window) -> Self {
        Self { window, told_at: 0, answered: 0, latency_sum: 0 }
    }

    /// Nanoseconds until something is to be done on time: the window's ends.
    fn until_next(&self, now: u64) -> u64 {
        [self.window.start, self.window.end]
            .into_iter()
            .filter(|time| *time > now)
            .map(|time| time - now)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn look(&mut self, now: u64, gauges: &[Gauge], tell: &mut dyn FnMut(Progress)) {
        let interval = now - self.told_at;
        if interval < 1_000_000_000 || now >= self.window.end {
            return;
        }
        let sum = |pick: fn(&Gauge) -> u64| gauges.iter().map(pick).sum::<u64>();
        let answered = sum(|gauge| gauge.answered.load(Ordering::Relaxed));
        let latency_sum = sum(|gauge| gauge.latency_sum.load(Ordering::Relaxed));
        let count = answered - self.answered;
        let latency = latency_sum.saturating_sub(self.latency_sum);
        if now < self.window.start {
            tell(Progress::WarmingUp);
        } else {
            tell(Progress::Measuring {
                elapsed: Duration::from_nanos(now - self.window.start),
                duration: Duration::from_nanos(self.window.end - self.window.start),
                per_second: float(count) * 1e9 / float(interval),
                mean_us: if count > 0 { float(latency) / float(count) / 1e3 } else { 0.0 },
                errors: sum(|gauge| gauge.failed.load(Ordering::Relaxed)),
            });
        }
        (self.told_at, self.answered, self.latency_sum) = (now, answered, latency_sum);
    }
}

fn warn(seen: &Seen, tell: &mut dyn FnMut(Progress)) {
    if let Some(status) = seen.refusal {
        tell(Progress::Warning(Warning::Refused(status)));
    }
    if seen.loss.is_some() {
        tell(Progress::Warning(Warning::Lost));
    }
    if seen.missing > 0 {
        tell(Progress::Warning(Warning::Missing(seen.missing)));
    }
}

fn report(plan: &Plan, seen: &Seen, server_used: Option<Duration>, servers: &Servers) -> Report {
    let record = &seen.record;
    let seconds = plan.duration.as_secs_f64();
    Report {
        operation: plan.operation.name().into(),
        servers: plan.addresses.len(),
        connections: plan.connections,
        depth: plan.depth,
        seconds,
        operations: record.operations(),
        errors: record.errors(),
        per_second: per_second(record.operations(), seconds),
        latency_us: LatencyMicroseconds::of(record.latencies()),
        server_cpu_us_per_operation: cpu_per_operation(server_used, record.operations()),
        generator_cpu_us_per_operation: cpu_per_operation(Some(seen.cpu_time), seen.cpu_operations),
        server_resident_size: servers.resident_size(),
        rate: plan.rate,
        unsent: record.unsent_count(),
        keys: plan.keys,
        key_size: plan.key_size,
        value_size: plan.value_size,
        distribution: Some(match plan.distribution {
            Distribution::Uniform => "uniform",
            Distribution::Zipf => "zipf",
        }),
        serializable: plan.serializable,
        latencies: record.latencies().clone(),
    }
}

/// Writes every key of the space once, where the plan or its operation wants that.
fn fill_if_needed(
    plan: &Plan,
    space: &KeySpace,
    control: &mut Opened,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    if !plan.fill && !plan.operation.reads() {
        return Ok(());
    }
    let found = control.count(space)?;
    if !plan.fill && found >= plan.keys {
        return Ok(());
    }
    tell(Progress::FillBegins { found, keys: plan.keys });
    let granted = control.granted();
    let connections = FILL_CONNECTIONS.min(plan.connections.max(4));
    let source = Source::Sequence { next: 0, step: 1, again: Vec::new() };
    let prng = Prng::new(plan.seed).fork("fill");
    let mut streams = Vec::with_capacity(connections);
    for number in 0..connections {
        streams.push(open(plan, number)?);
    }
    let task = Task {
        addresses: plan.addresses.clone(),
        streams,
        depth: FILL_DEPTH.min(granted.requests_max).max(1),
        workload: workload(
            &shape(plan, Operation::Put, granted.body_size_max),
            space,
            source,
            prng,
        )?,
        schedule: None,
        rate: 0,
        window: Window { start: 0, end: nanoseconds(FILL_TIME_MAX) },
        origin: Instant::now(),
        expects_keys: false,
    };
    let gauge = Gauge::default();
    thread::scope(|scope| {
        let filling = scope.spawn(|| load::run(task, &gauge));
        let mut told = Instant::now();
        while !filling.is_finished() {
            thread::sleep(LOOK_PAUSE);
            if told.elapsed() >= Duration::from_millis(200) {
                told = Instant::now();
                let done = gauge.answered.load(Ordering::Relaxed).min(plan.keys);
                tell(Progress::Filling { done, keys: plan.keys });
            }
        }
        filling.join().expect("a panic has ended the process")
    })?;
    tell(Progress::Filling { done: plan.keys, keys: plan.keys });
    Ok(())
}
