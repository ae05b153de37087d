//! Who does the harm: faults drawn from the seed, each healed, and after each the time until every member
//! takes writes again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base::Prng;
use client::{Client, Options};

use crate::cluster::{Cluster, Directory, PATIENCE};
use crate::damage;
use crate::history::Operation;
use crate::small_disk::Filler;
use crate::timeline::{Mark, Timeline};
use crate::workload::{REQUEST_TIMEOUT, Session, Shared, probe};

/// Beyond this a cluster whose faults are all healed counts as hanging.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// How long a request may take that only asks whether a member works.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause of a client that found a member not working yet.
const PROBE_PAUSE: Duration = Duration::from_millis(10);

/// What can be done to a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Kill,
    KillTwo,
    KillAll,
    Pause,
    Isolate,
    Split,
    OneWay,
    Bridge,
    Cut,
    Delay,
    FullDisk,
    Damage,
}

/// How often each is drawn, of the sum of all.
const WEIGHTS: [(Fault, u64); 12] = [
    (Fault::Kill, 24),
    (Fault::KillTwo, 5),
    (Fault::KillAll, 3),
    (Fault::Pause, 16),
    (Fault::Isolate, 12),
    (Fault::Split, 5),
    (Fault::OneWay, 9),
    (Fault::Bridge, 7),
    (Fault::Cut, 8),
    (Fault::Delay, 6),
    (Fault::FullDisk, 2),
    (Fault::Damage, 3),
];

/// The same where watches and leases are looked at: processes and links.
const WEIGHTS_OF_WATCHES: [(Fault, u64); 10] = [
    (Fault::Kill, 24),
    (Fault::KillTwo, 5),
    (Fault::KillAll, 2),
    (Fault::Pause, 20),
    (Fault::Isolate, 14),
    (Fault::Split, 6),
    (Fault::OneWay, 9),
    (Fault::Bridge, 7),
    (Fault::Cut, 8),
    (Fault::Delay, 5),
];

/// How it is found out that a member works again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// With a put, which the judges know of.
    Put,
    /// With the renewal of a lease that does not exist: it goes through the log and changes nothing.
    Renewal,
}

/// A lease that nobody has.
pub const NO_LEASE: i64 = i64::MAX;

/// The faults, and what came of them.
pub struct Nemesis {
    /// The servers.
    pub cluster: Cluster,
    /// The clients.
    pub shared: Arc<Shared>,
    weights: &'static [(Fault, u64)],
    probe: Probe,
    timeline: Arc<Mutex<Timeline>>,
    prng: Prng,
    log: File,
    log_path: PathBuf,
    filler: Option<Filler>,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Times from a heal until a write through every member succeeded.
    pub recoveries: Vec<Duration>,
    /// What its own writes were told.
    pub history: Vec<Operation>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Nemesis {
    /// For a cluster that serves.
    ///
    /// # Errors
    /// The log cannot be made.
    pub fn new(
        cluster: Cluster,
        shared: Arc<Shared>,
        seed: u64,
        folder: &Path,
    ) -> Result<Self, String> {
        let log_path = folder.join("nemesis.log");
        let log =
            File::create(&log_path).map_err(|error| format!("{}: {error}", log_path.display()))?;
        Ok(Self {
            cluster,
            shared,
            weights: &WEIGHTS,
            probe: Probe::Put,
            timeline: Arc::default(),
            prng: Prng::new(seed).fork("nemesis"),
            log,
            log_path,
            filler: None,
            faults: BTreeMap::new(),
            recoveries: Vec::new(),
            history: Vec::new(),
            violations: Vec::new(),
        })
    }

    /// The same for processes and links alone, with nothing written to the store.
    ///
    /// # Errors
    /// The log cannot be made.
    pub fn of_watches(
        cluster: Cluster,
        shared: Arc<Shared>,
        seed: u64,
        folder: &Path,
    ) -> Result<Self, String> {
        let nemesis = Self::new(cluster, shared, seed, folder)?;
        Ok(Self { weights: &WEIGHTS_OF_WATCHES, probe: Probe::Renewal, ..nemesis })
    }

    /// When the cluster was well and had a quorum.
    pub fn timeline(&self) -> Arc<Mutex<Timeline>> {
        Arc::clone(&self.timeline)
    }

    /// Writes down what a change of processes or links comes to.
    fn mark(&self, mark: Mark) {
        let now = self.shared.now();
        let has_quorum = self.cluster.has_quorum();
        let mut timeline = self.timeline.lock().expect("nobody panics under this lock");
        timeline.mark(now, mark);
        timeline.mark(now, if has_quorum { Mark::QuorumThere } else { Mark::QuorumLost });
    }

    /// Where it writes down what it does.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// How many faults there were.
    pub fn count(&self) -> u64 {
        self.faults.values().sum()
    }

    fn note(&mut self, text: &str) {
        // Nobody needs the log to go on.
        let at = self.shared.now() as f64 / 1e9;
        drop(writeln!(self.log, "{at:.3} {text}"));
    }

    fn violation(&mut self, text: String) {
        self.note(&format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    fn tally(&mut self, name: &'static str, text: &str) {
        *self.faults.entry(name).or_default() += 1;
        self.note(&format!("{name}: {text}"));
    }

    fn nodes(&self) -> usize {
        self.cluster.members.len()
    }

    fn below(&mut self, count: usize) -> usize {
        let bound = u64::try_from(count).expect("usize has at most 64 bits");
        usize::try_from(self.prng.below(bound)).expect("below a usize")
    }

    fn millis(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_millis(min + self.prng.below(max - min))
    }

    fn sleep(&mut self, min: u64, max: u64) {
        let pause = self.millis(min, max);
        thread::sleep(pause);
    }

    /// Any member, the leader half of the time.
    fn victim(&mut self) -> usize {
        let nodes = self.nodes();
        let leader = if self.prng.one_in(2) { self.cluster.leader() } else { None };
        leader.unwrap_or_else(|| self.below(nodes))
    }

    /// One fault, sometimes with another one inside it, then the heal and the time it took.
    pub fn strike(&mut self) {
        let sum = self.weights.iter().map(|(_, weight)| weight).sum();
        let fault = self.draw(sum);
        self.begin(fault);
        if self.prng.one_in(4) {
            self.sleep(20, 400);
            let second = self.draw(sum);
            // A damaged member must be whole again before anything else can be lost, and the disk has
            // a member of its own.
            if !matches!(second, Fault::Damage | Fault::FullDisk) && fault != Fault::Damage {
                self.begin(second);
            }
        }
        if fault != Fault::Cut && fault != Fault::Damage {
            let longest = if self.prng.one_in(8) { 4_000 } else { 900 };
            self.sleep(50, longest);
        }
        let begin = self.heal();
        // Sometimes the next fault comes before the cluster has recovered from this one.
        if !self.prng.one_in(8) {
            self.measure(begin);
            self.sleep(0, 250);
        }
    }

    /// Lets the cluster work undisturbed for a moment.
    pub fn rest(&mut self) {
        self.sleep(300, 900);
    }

    /// Writes down that a member was killed, and reaps it.
    pub fn killed(&mut self, index: usize, text: &str) {
        self.cluster.kill(index);
        let name = self.cluster.members[index].name.clone();
        self.tally("kill", &format!("{name} {text}"));
    }

    fn draw(&mut self, sum: u64) -> Fault {
        let mut drawn = self.prng.below(sum);
        for (fault, weight) in self.weights {
            if drawn < *weight {
                return *fault;
            }
            drawn -= weight;
        }
        Fault::Kill
    }

    fn hold(&mut self, from: usize, to: usize) {
        let (dialler, place) = (self.cluster.members[from].id, self.cluster.members[to].place);
        self.cluster.proxy.hold(dialler, place);
    }

    fn hold_both(&mut self, one: usize, other: usize) {
        self.hold(one, other);
        self.hold(other, one);
    }

    /// Partitions sometimes break the connections, too.
    fn maybe_cut(&mut self) {
        if self.prng.one_in(3) {
            self.cluster.proxy.cut(|_, _| true);
        }
    }

    fn begin(&mut self, fault: Fault) {
        self.mark(Mark::Harmed);
        self.do_harm(fault);
        self.mark(Mark::Harmed);
    }

    fn do_harm(&mut self, fault: Fault) {
        let nodes = self.nodes();
        let one = self.victim();
        let other = (one + 1 + self.below(nodes - 1)) % nodes;
        let name = |cluster: &Cluster, index: usize| cluster.members[index].name.clone();
        let (one_name, other_name) = (name(&self.cluster, one), name(&self.cluster, other));
        match fault {
            // What is down already cannot be harmed again.
            Fault::Kill | Fault::KillTwo | Fault::Pause
                if self.cluster.members[one].process.is_none() => {}
            Fault::Kill => {
                self.cluster.kill(one);
                self.tally("kill", &one_name);
            }
            Fault::KillTwo => {
                self.cluster.kill(one);
                self.cluster.kill(other);
                self.tally("kill two", &format!("{one_name} {other_name}"));
            }
            Fault::KillAll => {
                for index in 0..nodes {
                    self.cluster.kill(index);
                }
                self.tally("kill all", "");
            }
            Fault::Pause => {
                self.cluster.pause(one);
                self.tally("pause", &one_name);
            }
            Fault::Isolate => {
                for index in (0..nodes).filter(|index| *index != one) {
                    self.hold_both(one, index);
                }
                self.maybe_cut();
                self.tally("isolate", &one_name);
            }
            Fault::Split => {
                // Who is on which side; with three members one of them is alone.
                let side: Vec<bool> = (0..nodes).map(|_| self.prng.one_in(2)).collect();
                for from in 0..nodes {
                    for to in (0..nodes).filter(|to| side[*to] != side[from]) {
                        self.hold(from, to);
                    }
                }
                self.maybe_cut();
                self.tally("split", &format!("{side:?}"));
            }
            Fault::OneWay => {
                let is_to = self.prng.one_in(2);
                let everybody = self.prng.one_in(2);
                for index in
                    (0..nodes).filter(|index| *index != one && (everybody || *index == other))
                {
                    if is_to { self.hold(index, one) } else { self.hold(one, index) }
                }
                self.tally("one-way", &format!("{one_name} to: {is_to} all: {everybody}"));
            }
            Fault::Bridge => {
                // All meet `one`, and the two halves of the others do not meet.
                let others: Vec<usize> = (0..nodes).filter(|index| *index != one).collect();
                let (left, right) = others.split_at(others.len() / 2);
                for left in left {
                    for right in right {
                        self.hold_both(*left, *right);
                    }
                }
                self.maybe_cut();
                self.tally("bridge", &one_name);
            }
            Fault::Cut => {
                if self.prng.one_in(2) {
                    self.cluster.proxy.cut(|_, _| true);
                    self.tally("cut", "all");
                } else {
                    let (id, place) =
                        (self.cluster.members[one].id, self.cluster.members[one].place);
                    self.cluster.proxy.cut(|from, to| from == id || to == place);
                    self.tally("cut", &one_name);
                }
            }
            Fault::Delay => {
                let delay = self.millis(2, 120);
                for index in (0..nodes).filter(|index| *index != one) {
                    let (one, other) = (&self.cluster.members[one], &self.cluster.members[index]);
                    self.cluster.proxy.delay(one.id, other.place, delay);
                    self.cluster.proxy.delay(other.id, one.place, delay);
                }
                self.tally("delay", &format!("{one_name} {delay:?}"));
            }
            Fault::FullDisk => self.fill(),
            Fault::Damage => self.damage(one),
        }
    }

    fn fill(&mut self) {
        let Some((_, folder)) = self.cluster.disk() else { return };
        if self.filler.is_some() {
            return;
        }
        match Filler::fill(folder) {
            Ok(filler) => {
                self.filler = Some(filler);
                self.tally("full disk", "");
            }
            Err(error) => self.note(&format!("the disk was not filled: {error}")),
        }
    }

    /// Ends all faults: everything runs and everything is reached. Returns when that began: who was down
    /// is started then, and its start is part of the recovery.
    pub fn heal(&mut self) -> Instant {
        let begin = Instant::now();
        let was_full = self.filler.take().is_some();
        self.cluster.proxy.heal();
        for index in 0..self.nodes() {
            if self.cluster.members[index].is_paused {
                self.cluster.resume(index);
            }
        }
        for (index, text) in self.cluster.fallen() {
            // Who cannot write stops, and is started again when there is room.
            if was_full && self.cluster.disk().is_some_and(|(with_disk, _)| with_disk == index) {
                self.tally("stopped by full disk", &text);
            } else {
                self.violation(text);
            }
        }
        let down: Vec<usize> = (0..self.nodes())
            .filter(|index| self.cluster.members[*index].process.is_none())
            .collect();
        for index in &down {
            if let Err(error) = self.cluster.spawn(*index) {
                self.violation(error);
            }
        }
        for index in down {
            if self.cluster.members[index].process.is_some()
                && let Err(error) = self.cluster.await_ready(index)
            {
                self.violation(error);
            }
        }
        self.mark(Mark::Harmed);
        self.note("healed");
        begin
    }

    /// Measures how long it takes from `begin` until every member takes writes.
    pub fn measure(&mut self, begin: Instant) {
        let nodes = self.nodes();
        let (shared, directory, probe) = (&self.shared, self.cluster.directory(), self.probe);
        let parts: Vec<(bool, Vec<Operation>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..nodes)
                .map(|index| {
                    let directory = Arc::clone(&directory);
                    scope.spawn(move || match probe {
                        Probe::Put => put_through(shared, &directory, index, begin),
                        Probe::Renewal => (renew_through(&directory, index, begin), Vec::new()),
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a prober does not panic"))
                .collect()
        });
        let took = begin.elapsed();
        for (index, (is_done, history)) in parts.into_iter().enumerate() {
            self.history.extend(history);
            if !is_done {
                let statuses: Vec<_> = (0..nodes).map(|index| self.cluster.status(index)).collect();
                let name = self.cluster.members[index].name.clone();
                self.violation(format!(
                    "hang: no write through {name} within {RECOVERY_MAX:?} after all was healed; {statuses:#?}"
                ));
            }
        }
        self.mark(Mark::Recovered);
        self.note(&format!("recovered in {took:?}"));
        self.recoveries.push(took);
    }

    /// Damages files of one member, and brings it back to be whole: by itself if it can, else as the
    /// handbook says.
    fn damage(&mut self, index: usize) {
        // Nothing else may be lost meanwhile, and the others must be able to vote for a replacement.
        let begin = self.heal();
        self.measure(begin);
        self.cluster.kill(index);
        let data_dir = self.cluster.members[index].data_dir.clone();
        let done = match damage::damage(&data_dir, &mut self.prng) {
            Ok(done) => done,
            Err(error) => {
                self.note(&format!("nothing was damaged: {error}"));
                return;
            }
        };
        if done.is_empty() {
            return;
        }
        let what: Vec<&str> = done.iter().map(|(_, text)| text.as_str()).collect();
        let what = what.join(", ");
        self.tally("damage", &what);
        if self.prng.one_in(3) {
            // Others go down as well and come back with it: it may not impose what it has lost.
            let other = (index + 1) % self.nodes();
            self.cluster.kill(other);
            self.tally("kill", "beside the damage");
            if let Err(error) = self.cluster.spawn(other) {
                self.violation(error);
            }
            if let Err(error) = self.cluster.await_ready(other) {
                self.violation(error);
            }
        }
        if self.serve_damaged(index, &done, &what) {
            return;
        }
        let begin = Instant::now();
        let mut outcome = Err(String::new());
        while outcome.is_err() && begin.elapsed() < PATIENCE {
            outcome = self.cluster.replace(index);
            if let Err(text) = &outcome {
                self.note(&format!("not replaced yet: {text}"));
                thread::sleep(Duration::from_millis(100));
            }
        }
        match outcome {
            Ok(()) => {
                // Until it votes the cluster is smaller by one, and nothing else may be taken from it.
                while !self.cluster.votes(index) {
                    if begin.elapsed() >= PATIENCE {
                        self.violation("the new member does not become a voter".into());
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                self.tally("replace", &format!("after {:?}", begin.elapsed()));
            }
            Err(text) => self.violation(format!("a damaged member could not be replaced: {text}")),
        }
    }

    /// Starts a damaged member. True if it is whole; else its process has ended, and it has to be
    /// replaced.
    fn serve_damaged(&mut self, index: usize, done: &[(PathBuf, String)], what: &str) -> bool {
        let names = |text: &str| {
            let known = |path: &PathBuf| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                text.contains(name)
            };
            done.iter().any(|(path, _)| known(path))
                || text.contains("wal")
                || text.contains("page file")
        };
        if let Err(error) = self.cluster.spawn(index) {
            self.violation(error);
        }
        match self.cluster.await_ready(index) {
            Err(text) => {
                self.cluster.kill(index);
                if names(&text) {
                    self.note(&format!("damage was refused: {text}"));
                } else {
                    self.violation(format!(
                        "a damaged member ({what}) does not say what is wrong: {text}"
                    ));
                }
                return false;
            }
            Ok(()) => {
                self.measure_others(index);
                for (fallen, text) in self.cluster.fallen() {
                    if fallen == index && names(&text) {
                        self.note(&format!("damage was met later: {text}"));
                        return false;
                    }
                    self.violation(format!("beside damage ({what}): {text}"));
                }
            }
        }
        self.cluster.kill(index);
        let data_dir = self.cluster.members[index].data_dir.clone();
        let checked =
            Command::new(self.cluster.binary()).args(["inspect", "check"]).arg(data_dir).output();
        let is_whole = checked.is_ok_and(|output| output.status.success());
        self.note(&format!("it serves with {what}; whole: {is_whole}"));
        if is_whole && let Err(error) = self.cluster.restart(index) {
            self.violation(error);
        }
        is_whole
    }

    /// Writes through all members, of which one may fall while that is tried.
    fn measure_others(&mut self, damaged: usize) {
        let Some(entry) = self.cluster.address(damaged) else { return };
        let mut session = Session::new(&self.shared);
        let begin = Instant::now();
        while begin.elapsed() < REQUEST_TIMEOUT && session.connect((entry, u32::MAX)) {
            let is_done = session.ask(probe(&self.shared));
            // What was answered here is judged, but not as what one server shows.
            session.leave();
            if is_done {
                break;
            }
            thread::sleep(PROBE_PAUSE);
        }
        let own = session.into_history();
        self.history.extend(own.into_iter().map(|operation| Operation { server: 0, ..operation }));
    }
}

/// Where a member is found now.
fn entry(directory: &Directory, index: usize) -> Option<(SocketAddr, u32)> {
    directory.lock().expect("nobody panics under this lock")[index]
}

/// Puts through one member until that is done, and says whether it was, and what was asked and told.
fn put_through(
    shared: &Arc<Shared>,
    directory: &Directory,
    index: usize,
    begin: Instant,
) -> (bool, Vec<Operation>) {
    let mut session = Session::new(shared);
    let mut is_done = false;
    while !is_done && begin.elapsed() < RECOVERY_MAX {
        if !session.is_connected() {
            session.leave();
            if !entry(directory, index).is_some_and(|entry| session.connect(entry)) {
                thread::sleep(PROBE_PAUSE);
                continue;
            }
            session.set_timeout(PROBE_TIMEOUT);
        }
        is_done = session.ask(probe(shared));
        if !is_done {
            thread::sleep(PROBE_PAUSE);
        }
    }
    (is_done, session.into_history())
}

/// Renews a lease that is not there through one member until it says so.
fn renew_through(directory: &Directory, index: usize, begin: Instant) -> bool {
    while begin.elapsed() < RECOVERY_MAX {
        let options = Options {
            connect_timeout: PROBE_TIMEOUT,
            request_timeout: PROBE_TIMEOUT,
            client_name: "chaos-probe".into(),
            cluster: 0,
        };
        let client = entry(directory, index)
            .and_then(|(address, _)| Client::connect([address.to_string()], options).ok());
        if client.is_some_and(|mut client| client.lease_keep_alive(&[NO_LEASE]).is_ok()) {
            return true;
        }
        thread::sleep(PROBE_PAUSE);
    }
    false
}
