//! What all threads of a run share: the clock, the keys, the truth as far as it is known, and what each
//! has to say.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use client::{Client, Error, Options};

use super::keys::Keys;
use super::ledger::{Deed, Ledger};
use super::lives::Lives;
use super::stream::Step;
use crate::timeline::Timeline;
use crate::workload::Shared;

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A writer that waits for nothing.
const IDLE: u64 = u64::MAX;

/// Violations that are kept.
const VIOLATIONS_MAX: usize = 40;

/// What is counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Writes that were answered and changed something.
    pub writes: AtomicU64,
    /// Changes that watches were told.
    pub told: AtomicU64,
    /// Watches that were begun anew.
    pub restarts: AtomicU64,
    /// Watches that went on at another connection, where the harness does so.
    pub resumes: AtomicU64,
    /// Connections that the client library lost under its watches, as seen now and then.
    pub lost: AtomicU64,
    /// Watches that were told that their past has been given up.
    pub compacted: AtomicU64,
    /// Changes that came in pieces of a revision.
    pub pieces: AtomicU64,
    /// Progress that was told.
    pub progress: AtomicU64,
    /// Compactions.
    pub compactions: AtomicU64,
    /// Reads that were compared with the truth.
    pub reads: AtomicU64,
}

/// Adds to a count.
pub fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

/// All that is shared.
pub struct Stage {
    /// The clock, and numbers for values.
    pub shared: Arc<Shared>,
    /// The keys.
    pub keys: Keys,
    /// Where clients find the members, always.
    pub endpoints: Vec<String>,
    /// The cluster.
    pub cluster: u64,
    /// The truth, as far as it is known.
    pub ledger: RwLock<Ledger>,
    /// What writers did, by revision, beyond what is in the ledger.
    claims: Mutex<BTreeMap<i64, Vec<Deed>>>,
    /// Since when each writer waits for an answer.
    busy: Vec<AtomicU64>,
    /// Leases.
    pub lives: Mutex<Lives>,
    /// Leases that writers may put keys on.
    pub pool: Mutex<Vec<i64>>,
    /// When somebody was first told that a lease ended at a revision.
    pub ends_seen: Mutex<HashMap<i64, u64>>,
    /// What happened to the cluster.
    pub timeline: Arc<Mutex<Timeline>>,
    /// What each watcher was told and has not been judged.
    queues: Vec<Mutex<VecDeque<Step>>>,
    /// Changes in them.
    pub queued: AtomicU64,
    /// Counts.
    pub counts: Counts,
    /// Nothing is written any more; leases live on.
    is_over: AtomicBool,
    /// The last revision, once there is one; watchers end when they have been told of it.
    last: AtomicI64,
    /// Everybody ends now.
    is_closed: AtomicBool,
    violations: Mutex<Vec<String>>,
}

/// Nobody panics while he holds it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics under this lock")
}

impl Stage {
    /// For so many who write, and so many who watch.
    pub fn new(
        shared: Arc<Shared>,
        cluster: u64,
        endpoints: Vec<String>,
        timeline: Arc<Mutex<Timeline>>,
        (writers, watchers): (usize, usize),
    ) -> Self {
        Self {
            shared,
            keys: Keys::default(),
            endpoints,
            cluster,
            ledger: RwLock::new(Ledger::new()),
            claims: Mutex::default(),
            busy: (0..writers).map(|_| AtomicU64::new(IDLE)).collect(),
            lives: Mutex::default(),
            pool: Mutex::default(),
            ends_seen: Mutex::default(),
            timeline,
            queues: (0..watchers).map(|_| Mutex::default()).collect(),
            queued: AtomicU64::new(0),
            counts: Counts::default(),
            is_over: AtomicBool::new(false),
            last: AtomicI64::new(i64::MAX),
            is_closed: AtomicBool::new(false),
            violations: Mutex::default(),
        }
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// A moment on the clock of the run.
    pub fn at(&self, moment: Instant) -> u64 {
        let (now, moment_now) = (self.now(), Instant::now());
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let ahead = nanos(moment.saturating_duration_since(moment_now));
        let behind = nanos(moment_now.saturating_duration_since(moment));
        now.saturating_add(ahead).saturating_sub(behind)
    }

    /// The members' addresses, beginning with one of them.
    pub fn endpoints_from(&self, first: usize) -> Vec<String> {
        let count = self.endpoints.len();
        (0..count).map(|step| self.endpoints[(first + step) % count].clone()).collect()
    }

    /// What clients are told at their start.
    pub fn options(&self, name: &str, request_timeout: Duration) -> Options {
        Options {
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout,
            client_name: format!("chaos-{name}"),
            cluster: self.cluster,
        }
    }

    /// A client of all members that tries one of them first.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn client(&self, name: &str, first: usize, timeout: Duration) -> Result<Client, Error> {
        Client::connect(self.endpoints_from(first), self.options(name, timeout))
    }

    /// Something that must not be.
    pub fn violation(&self, text: String) {
        let mut violations = lock(&self.violations);
        if violations.len() < VIOLATIONS_MAX {
            violations.push(text);
        }
    }

    /// What must not be.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    // ------------------------------------------------------------------ writers

    /// A writer waits for an answer from now on.
    pub fn begin_write(&self, writer: usize) {
        self.busy[writer].store(self.now(), Ordering::SeqCst);
    }

    /// It has its answer, and has claimed what it did.
    pub fn end_write(&self, writer: usize) {
        self.busy[writer].store(IDLE, Ordering::SeqCst);
    }

    /// Since when the writer waits that waits longest.
    pub fn busy_since(&self) -> u64 {
        self.busy.iter().map(|busy| busy.load(Ordering::SeqCst)).min().unwrap_or(IDLE)
    }

    /// A write was told that this is what it did, at this revision.
    pub fn claim(&self, revision: i64, deeds: Vec<Deed>) {
        add(&self.counts.writes, 1);
        let known = self.ledger.read().expect("nobody panics under this lock").revision;
        if revision <= known {
            self.violation(format!(
                "a write was told revision {revision}, which was there before it was sent: {deeds:?}"
            ));
        } else if let Some(other) = lock(&self.claims).insert(revision, deeds) {
            self.violation(format!("two writes were told revision {revision}; one did {other:?}"));
        }
    }

    /// Takes what was claimed up to a revision.
    pub fn claims_to(&self, revision: i64) -> BTreeMap<i64, Vec<Deed>> {
        let mut claims = lock(&self.claims);
        let later = claims.split_off(&(revision + 1));
        std::mem::replace(&mut claims, later)
    }

    // ------------------------------------------------------------------ watchers

    /// A watcher was told something.
    pub fn tell(&self, watcher: usize, step: Step) {
        self.queued.fetch_add(step.count() as u64, Ordering::Relaxed);
        lock(&self.queues[watcher]).push_back(step);
    }

    /// Takes what a watcher was told that can be judged once the truth is known up to `revision`.
    pub fn take(&self, watcher: usize, revision: i64) -> Option<Step> {
        let mut queue = lock(&self.queues[watcher]);
        let step = queue.pop_front_if(|step| step.needs() <= revision)?;
        self.queued.fetch_sub(step.count() as u64, Ordering::Relaxed);
        Some(step)
    }

    // ------------------------------------------------------------------ the end

    /// Nothing is written any more.
    pub fn set_over(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether nothing is written any more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// There will be no revision behind this one.
    pub fn set_last(&self, revision: i64) {
        self.last.store(revision, Ordering::SeqCst);
    }

    /// The last revision, if it is known.
    pub fn last(&self) -> Option<i64> {
        Some(self.last.load(Ordering::SeqCst)).filter(|last| *last != i64::MAX)
    }

    /// Everybody ends now.
    pub fn close(&self) {
        self.set_over();
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Whether everybody ends now.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }
}
