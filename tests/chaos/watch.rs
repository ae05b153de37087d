//! Watches and leases under faults: does each watch tell what happened, and does each lease end when it
//! should?
//!
//! ```text
//!  8 writers ── claims ──┐                      ┌── reads at revisions that nobody claims
//!  holders of leases ────┴──► chronicle: ledger ┘        nemesis, observers ──► timeline
//!                                │                                                │
//!  watchers ── steps ──► judge: streams           lives of leases ──► judged at the end
//! ```
//!
//! **The truth is no watch.** Every write has a session, so each is answered in the end and says at which
//! revision it did what. A revision that no write claims must be the end of a lease: the keys are read at it. Of
//! that the ledger makes all changes, in their order within a revision, too, and one revision in forty, and the last
//! one at every member, is read in full and compared. What a watch is told must be what the ledger has of its ranges.

pub mod chronicle;
pub mod holders;
pub mod keys;
pub mod ledger;
pub mod lives;
pub mod machine;
pub mod shapes;
pub mod stage;
pub mod stream;
pub mod watchers;
pub mod writers;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use base::Prng;
use client::Range;

use crate::cluster::Cluster;
use crate::judgement::Times;
use crate::nemesis::Nemesis;
use crate::scenario::{Common, Progress};
use crate::workload::Shared;
use holders::Cared;
use lives::Report;
use stage::{Stage, lock};
use stream::Stream;
use writers::Writer;

/// Those who write.
const WRITERS: usize = 8;

/// Those who make leases; each also writes.
const HOLDERS: usize = 4;

/// Watches of one connection of the library.
const GROUP: usize = 20;

/// The longest time of a lease.
const TTL_MAX: Duration = Duration::from_secs(15);

/// How long what must happen once all is well may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a slow reader thinks about an event at most.
const SLOWNESS: Duration = Duration::from_millis(300);

/// Between two looks at what must happen.
const LOOK: Duration = Duration::from_millis(20);

/// Clients that watch, write and hold leases under faults for a time. True if nothing was wrong.
///
/// # Errors
/// The cluster cannot be started.
pub fn run(common: &Common, time: Duration, watchers: usize) -> Result<bool, String> {
    fs::create_dir_all(&common.folder).map_err(|error| error.to_string())?;
    println!("seed {}, {} members, {watchers} watchers, {time:?}", common.seed, common.nodes);
    let cluster = common.cluster_of_fixed_addresses()?;
    let id = cluster.id();
    let addresses = (0..common.nodes).filter_map(|index| cluster.address(index));
    let endpoints: Vec<String> = addresses.map(|address| address.to_string()).collect();
    let shared = Shared::new(cluster.directory(), id);
    let mut nemesis =
        Nemesis::of_watches(cluster, Arc::clone(&shared), common.seed, &common.folder)?;
    nemesis.measure(Instant::now());
    nemesis.recoveries.clear();
    let all = (WRITERS + HOLDERS, watchers);
    let stage = Arc::new(Stage::new(shared, id, endpoints, nemesis.timeline(), all));
    let threads = Threads::start(&stage, common, time, watchers)?;
    let begin = Instant::now();
    let mut progress = Progress::new();
    while begin.elapsed() < time && nemesis.violations.is_empty() && stage.violations().is_empty() {
        nemesis.strike();
        progress.say(|| {
            let ledger = stage.ledger.read().expect("nobody panics under this lock");
            let queued = stage.queued.load(Ordering::Relaxed);
            let lives = lock(&stage.lives).count();
            format!(
                "{} faults, revision {}, {lives} leases, {queued} changes wait to be judged",
                nemesis.count(),
                ledger.revision
            )
        });
    }
    let seconds = begin.elapsed().as_secs_f64();
    let healed = nemesis.heal();
    nemesis.measure(healed);
    let streams = threads.end(&stage, &mut nemesis, watchers);
    Ok(conclude(&stage, nemesis, &streams, common, seconds))
}

/// Everybody who does something.
struct Threads {
    writing: (Receiver<()>, usize),
    watching: (Receiver<Vec<usize>>, usize),
    judging: thread::JoinHandle<Vec<Stream>>,
    others: Vec<thread::JoinHandle<()>>,
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, String> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map_err(|error| format!("no thread: {error}"))
}

impl Threads {
    fn start(
        stage: &Arc<Stage>,
        common: &Common,
        time: Duration,
        watchers: usize,
    ) -> Result<Self, String> {
        let prng = Prng::new(common.seed).fork("watch");
        let cared = Arc::new(Cared::default());
        let mut others = Vec::new();
        for member in 0..common.nodes {
            let stage = Arc::clone(stage);
            others.push(spawn("observer", move || chronicle::observe(&stage, member))?);
        }
        let (own, path) = (Arc::clone(stage), common.folder.join("block"));
        others.push(spawn("machine", move || {
            if let Err(text) = machine::write_blocks(&own, &path) {
                own.violation(text);
            }
        })?);
        let own = Arc::clone(stage);
        others.push(spawn("processors", move || machine::watch_processors(&own))?);
        let (own, own_cared) = (Arc::clone(stage), Arc::clone(&cared));
        others.push(spawn("sampler", move || holders::sample(&own, &own_cared))?);
        let (own, own_cared, own_prng) =
            (Arc::clone(stage), Arc::clone(&cared), prng.fork("renew"));
        others.push(spawn("renewer", move || holders::renew(&own, &own_cared, own_prng))?);
        let own = Arc::clone(stage);
        others.push(spawn("chronicle", move || chronicle::write(&own))?);
        let own = Arc::clone(stage);
        let judging = spawn("judge", move || chronicle::judge(&own, watchers))?;
        let (done, writing) = mpsc::channel();
        let most = TTL_MAX.min(time / 2).max(Duration::from_secs(1));
        for number in 0..WRITERS + HOLDERS {
            let (stage, cared, done) = (Arc::clone(stage), Arc::clone(&cared), done.clone());
            let prng = prng.fork(&format!("writer {number}"));
            spawn("writer", move || {
                if let Some(writer) = Writer::new(&stage, number, prng) {
                    if number < WRITERS {
                        writer.run();
                    } else {
                        let first = i64::try_from(number).expect("some") * 1_000_000;
                        holders::hold(&stage, &cared, writer, first, most);
                    }
                }
                let _ = done.send(());
            })?;
        }
        let watching = start_watchers(stage, common.nodes, watchers, &prng)?;
        Ok(Self { writing: (writing, WRITERS + HOLDERS), watching, judging, others })
    }

    /// Lets everybody come to an end, now that all is well, and says how far each stream has come.
    fn end(self, stage: &Arc<Stage>, nemesis: &mut Nemesis, watchers: usize) -> Vec<Stream> {
        stage.set_over();
        let (writing, count) = self.writing;
        let mut violations = Vec::new();
        let ended = (0..count).filter(|_| writing.recv_timeout(PATIENCE).is_ok()).count();
        if ended < count {
            violations.push(format!("hang: {} of {count} writers do not end", count - ended));
        }
        if let Err(text) = await_end_of_leases(stage) {
            violations.push(text);
        }
        let last = stage
            .client("last", 0, PATIENCE)
            .and_then(|mut client| client.range(&Range { count_only: true, ..Range::all() }))
            .map(|told| told.revision);
        match last {
            Ok(last) => stage.set_last(last),
            Err(error) => violations.push(format!("no last read: {error}")),
        }
        let is_known = |stage: &Stage| {
            let ledger = stage.ledger.read().expect("nobody panics under this lock");
            Some(ledger.revision) == stage.last()
        };
        let begin = Instant::now();
        while !is_known(stage) && stage.violations().is_empty() && begin.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
        if !is_known(stage) {
            violations.push("the truth up to the last revision is not known".into());
        }
        let (watching, count) = self.watching;
        let begin = Instant::now();
        let mut lagging = Vec::new();
        for place in 0..count {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            match watching.recv_timeout(left) {
                Ok(numbers) => lagging.extend(numbers),
                Err(_) => {
                    violations.push(format!(
                        "hang: the watchers of {} threads are not told of everything",
                        count - place
                    ));
                    break;
                }
            }
        }
        stage.close();
        for thread in self.others {
            drop(thread.join());
        }
        let streams = self.judging.join().unwrap_or_default();
        if streams.len() != watchers {
            violations.push("the judge has fallen".into());
        }
        lagging.iter().for_each(|number| {
            violations.push(format!("hang: watcher {number} is not told of everything"));
        });
        violations.into_iter().for_each(|text| stage.violation(text));
        nemesis.violations.extend(stage.violations());
        streams
    }
}

/// One in five reads on a connection of its own, half of those slowly, one in five without the library, the
/// first ones say when leases end, the others share connections.
fn start_watchers(
    stage: &Arc<Stage>,
    members: usize,
    watchers: usize,
    prng: &Prng,
) -> Result<(Receiver<Vec<usize>>, usize), String> {
    let (done, watching): (Sender<Vec<usize>>, _) = mpsc::channel();
    let mut count = 0;
    let mut together: Vec<usize> = Vec::new();
    for number in 0..watchers {
        let (stage, done) = (Arc::clone(stage), done.clone());
        let prng = prng.fork(&format!("watcher {number}"));
        let is_observer = number < members;
        if is_observer || number % 5 == 3 {
            // Those of all members stay, and begin anew.
            let member = if is_observer { number } else { number / 5 % members };
            spawn("raw watcher", move || {
                let is_whole = watchers::watch_by_hand(&stage, (number, member), is_observer, prng);
                drop(done.send(if is_whole { Vec::new() } else { vec![number] }));
            })?;
        } else if number % 5 == 4 {
            let slowness = if number % 10 == 4 { SLOWNESS } else { Duration::ZERO };
            spawn("watcher", move || {
                drop(done.send(watchers::watch_by_library(&stage, &[number], slowness, prng)));
            })?;
        } else {
            together.push(number);
            continue;
        }
        count += 1;
    }
    for (place, numbers) in together.chunks(GROUP).enumerate() {
        let (stage, done, numbers) = (Arc::clone(stage), done.clone(), numbers.to_vec());
        let prng = prng.fork(&format!("group {place}"));
        spawn("watchers", move || {
            let lagging = watchers::watch_by_library(&stage, &numbers, Duration::ZERO, prng);
            drop(done.send(lagging));
        })?;
        count += 1;
    }
    Ok((watching, count))
}

/// Nobody renews any more: every lease must end.
fn await_end_of_leases(stage: &Stage) -> Result<(), String> {
    let begin = Instant::now();
    let most = TTL_MAX + Duration::from_nanos(lives::PER_CHANGE + lives::SLACK);
    let mut left = Vec::new();
    while begin.elapsed() < most {
        let told = stage.client("leases", 0, PATIENCE).and_then(|mut client| client.leases());
        left = told.map_err(|error| format!("no list of leases: {error}"))?.leases;
        if left.is_empty() {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    let lives = lock(&stage.lives);
    let first = left.first().and_then(|lease| lives.get(*lease));
    Err(format!("LATE: {} leases do not end: {left:?}; the first was {first:?}", left.len()))
}

/// Reads everything at all members.
fn read_finally(stage: &Stage, cluster: &Cluster, violations: &mut Vec<String>) {
    let ledger = stage.ledger.read().expect("nobody panics under this lock");
    for index in 0..cluster.members.len() {
        for serializable in [false, true] {
            let name = &cluster.members[index].name;
            let read = cluster
                .address(index)
                .ok_or("it is down".to_owned())
                .and_then(|address| cluster.client_at(address, PATIENCE))
                .and_then(|mut client| {
                    let range = Range { serializable, ..Range::all() };
                    client.range(&range).map_err(|error| error.to_string())
                })
                .and_then(|told| ledger::read(&stage.keys, &told.kvs));
            let wrong = match read {
                Ok(keys) => ledger.differs(&keys),
                Err(text) => Some(format!("no last read: {text}")),
            };
            violations.extend(wrong.map(|text| format!("{name}: {text}")));
        }
    }
}

fn conclude(
    stage: &Arc<Stage>,
    mut nemesis: Nemesis,
    streams: &[Stream],
    common: &Common,
    seconds: f64,
) -> bool {
    let last = stage.last().unwrap_or(i64::MAX);
    if nemesis.violations.is_empty() {
        for (number, stream) in streams.iter().enumerate() {
            if !stream.has_all(last) {
                let text = format!("watcher {number} was told up to {} of {last}", stream.whole());
                nemesis.violations.push(text);
            }
        }
    }
    read_finally(stage, &nemesis.cluster, &mut nemesis.violations);
    for index in 0..nemesis.cluster.members.len() {
        if let Some(status) = nemesis.cluster.status(index)
            && status.corrupt
        {
            let text = format!("member {index} differs from the others: {:?}", status.errors);
            nemesis.violations.push(text);
        }
    }
    if let Err(text) = nemesis.cluster.stop() {
        nemesis.violations.push(text);
    }
    for member in &nemesis.cluster.members {
        let mut command = Command::new(nemesis.cluster.binary());
        let output = command.args(["inspect", "check"]).arg(&member.data_dir).output();
        if !output.is_ok_and(|output| output.status.success()) {
            nemesis.violations.push(format!("the files of {} are not sound", member.name));
        }
    }
    let report = judge_leases(stage);
    nemesis.violations.extend(report.violations.iter().cloned());
    tell(stage, &nemesis, &report, seconds);
    let is_right = nemesis.violations.is_empty();
    if !is_right {
        for text in &nemesis.violations {
            println!("VIOLATION: {text}");
        }
        write(&common.folder, stage, &nemesis);
    }
    common.end(is_right);
    is_right
}

fn judge_leases(stage: &Stage) -> Report {
    let seen = lock(&stage.ends_seen);
    let ledger = stage.ledger.read().expect("nobody panics under this lock");
    let ended = ledger.ended.iter();
    let ended: Vec<(i64, i64, Option<u64>)> =
        ended.map(|(revision, lease)| (*revision, *lease, seen.get(revision).copied())).collect();
    lock(&stage.lives).judge(&ended, &lock(&stage.timeline))
}

/// The figures.
fn tell(stage: &Stage, nemesis: &Nemesis, report: &Report, seconds: f64) {
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let counts = &stage.counts;
    let ledger = stage.ledger.read().expect("nobody panics under this lock");
    println!(
        "{} writes and {} ends of leases made {} revisions with {} changes; {} reads compared, {} compactions",
        count(&counts.writes),
        ledger.ended.len(),
        ledger.revision,
        ledger.changes.len(),
        count(&counts.reads),
        count(&counts.compactions)
    );
    println!(
        "{} changes told and judged, {} pieces of revisions, {} times progress; {} watches begun anew, {} gone \
         on with by hand, {} connections lost by the library, {} told Compacted",
        count(&counts.told),
        count(&counts.pieces),
        count(&counts.progress),
        count(&counts.restarts),
        count(&counts.resumes),
        count(&counts.lost),
        count(&counts.compacted)
    );
    let millis = |nanos: Option<i64>| {
        nanos.map_or("none".into(), |nanos| format!("{:.1} ms", nanos as f64 / 1e6))
    };
    let timeline = lock(&stage.timeline);
    println!(
        "{} leases, {} renewals seen, {} ended by their time ({} with a renewal in doubt), earliest {} after it \
         might; over its time at most {}, with changes of leaders {}, without a quorum for some time {}; least \
         left of the bound {} (a change of leaders: {} ms, load: {} ms, and what the machine takes, without which {} \
         were late)",
        report.lives,
        lock(&stage.lives).renewals,
        report.expired,
        report.in_doubt,
        millis(report.margin),
        millis(report.late_in_peace),
        millis(report.late_in_changes),
        millis(report.late_without_quorum),
        millis(report.spare),
        lives::PER_CHANGE / lives::MS,
        lives::SLACK / lives::MS,
        report.excused
    );
    let faults: Vec<String> =
        nemesis.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{} faults in {seconds:.0} s: {}", nemesis.count(), faults.join(", "));
    let lost: Vec<Duration> = timeline
        .without_quorum()
        .iter()
        .map(|(since, until)| Duration::from_nanos(until.saturating_sub(*since)))
        .collect();
    let lengths = |spans: &[(u64, u64)]| {
        let lengths = spans.iter().map(|(since, until)| until - since);
        Times::new(lengths.map(Duration::from_nanos).collect())
    };
    let waited: u64 = timeline.waits().iter().map(|(since, until)| until - since).sum();
    println!(
        "the machine: blocks that took the disk more than 100 ms: {}; a member got no processor for {:.1} s in all, \
         {:.0} ms at most between two looks",
        lengths(timeline.stalls()).text(),
        waited as f64 / 1e9,
        lengths(timeline.waits()).percentile(100).as_secs_f64() * 1e3
    );
    println!(
        "{} changes of leaders; without a quorum: {}; well again after a heal: {}; {} violations",
        timeline.changes_in_all(),
        Times::new(lost).text(),
        Times::new(nemesis.recoveries.clone()).text(),
        nemesis.violations.len()
    );
}

/// Leaves what a look at it may need.
fn write(folder: &Path, stage: &Stage, nemesis: &Nemesis) {
    let timeline = format!("{:#?}", lock(&stage.timeline));
    let lives = format!("{:#?}", lock(&stage.lives));
    let ledger = stage.ledger.read().expect("nobody panics under this lock");
    let changes: String = ledger.changes.iter().map(|change| format!("{change:?}\n")).collect();
    for (name, text) in [
        ("violations.txt", nemesis.violations.join("\n")),
        ("timeline.txt", timeline),
        ("lives.txt", lives),
        ("changes.txt", changes),
    ] {
        if let Err(error) = fs::write(folder.join(name), text) {
            println!("{name} could not be written: {error}");
        }
    }
    println!("faults: {}", nemesis.log_path().display());
}
