//! What clients feel when a member is lost for good and another one takes its place.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::history::Operation;
use crate::judgement::{Times, conclude_with};
use crate::nemesis::Nemesis;
use crate::scenario::{Common, Progress};
use crate::workload::{Session, Shared, Workload, probe};

/// Requests under way at most, for each client.
const DEPTHS: [usize; 7] = [1, 1, 1, 1, 1, 1, 4];

/// Pause between two looks at the list of members.
const LOOK: Duration = Duration::from_millis(20);

/// Beyond this a member that was started counts as not coming.
const JOIN_MAX: Duration = Duration::from_secs(60);

/// Requests under way while the log is filled.
const PRELOAD_DEPTH: usize = 64;

/// Writes `entries` first, so that a new member cannot be caught up from the log alone; then replaces
/// members, the leader half of the time. True if nothing was wrong.
///
/// # Errors
/// The cluster does not start, or does not take the new member.
pub fn run(common: &Common, times: usize, entries: usize) -> Result<bool, String> {
    fs::create_dir_all(&common.folder).map_err(|error| error.to_string())?;
    println!("seed {}, {} members, {times} times", common.seed, common.nodes);
    let cluster = common.cluster(false, None)?;
    let shared = Shared::new(cluster.directory(), cluster.id());
    let mut nemesis = Nemesis::new(cluster, Arc::clone(&shared), common.seed, &common.folder)?;
    nemesis.measure(Instant::now());
    nemesis.recoveries.clear();
    let begin = Instant::now();
    let mut progress = Progress::new();
    let mut session = Session::new(&shared);
    let mut done = 0;
    while done < entries && begin.elapsed() < PRELOAD_MAX {
        let entry = nemesis.cluster.directory().lock().expect("nobody panics under this lock")[0];
        if !session.is_connected() && !entry.is_some_and(|entry| session.connect(entry)) {
            continue;
        }
        while session.in_flight() < PRELOAD_DEPTH && session.send(probe(&shared)) {}
        done += usize::from(session.receive());
        progress.tell(&shared, || format!("{done} of {entries} entries written"));
    }
    while session.in_flight() > 0 {
        session.receive();
    }
    println!("{done} entries written in {:.1} s", begin.elapsed().as_secs_f64());
    nemesis.history.extend(session.into_history());
    let workload = Workload::start(&shared, common.seed, &DEPTHS)?;
    let mut spans = Vec::new();
    let mut took = Vec::new();
    for round in 0..times {
        nemesis.rest();
        let from = nemesis.shared.now();
        let index = match nemesis.cluster.leader() {
            Some(leader) if round % 2 == 0 => leader,
            Some(leader) => (leader + 1) % common.nodes,
            None => 0,
        };
        nemesis.cluster.kill_at_once(index);
        nemesis.killed(index, "for good");
        nemesis.rest();
        took.push(replace(&mut nemesis, index)?);
        spans.push((from, nemesis.shared.now()));
        progress.tell(&nemesis.shared, || format!("{} of {times} replaced", round + 1));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut gaps = Vec::new();
    let is_right = conclude_with(nemesis, workload, &common.folder, seconds, |history| {
        gaps = spans.iter().map(|span| longest_gap(history, *span)).collect();
    });
    println!(
        "from the command to a new member that votes and takes writes: {}",
        Times::new(took).text()
    );
    println!("longest time without any write, of each replacement: {}", Times::new(gaps).text());
    common.end(is_right);
    Ok(is_right)
}

/// Beyond this the log is long enough.
const PRELOAD_MAX: Duration = Duration::from_secs(300);

/// The documented commands; ends when the new member votes and takes writes.
fn replace(nemesis: &mut Nemesis, index: usize) -> Result<Duration, String> {
    let begin = Instant::now();
    loop {
        match nemesis.cluster.replace(index) {
            Ok(()) => break,
            Err(text) if begin.elapsed() > JOIN_MAX => return Err(text),
            Err(_) => thread::sleep(LOOK),
        }
    }
    while !nemesis.cluster.votes(index) {
        if begin.elapsed() > JOIN_MAX {
            return Err("the new member does not become a voter".into());
        }
        thread::sleep(LOOK);
    }
    nemesis.measure(begin);
    Ok(begin.elapsed())
}

/// The longest time in `span` in which no write was answered.
fn longest_gap(history: &[Operation], span: (u64, u64)) -> Duration {
    let writes = history.iter().filter(|operation| operation.request.is_write());
    let mut times: Vec<u64> = writes
        .filter(|operation| operation.done().is_some())
        .map(|operation| operation.returned)
        .filter(|time| (span.0..span.1).contains(time))
        .collect();
    times.extend([span.0, span.1]);
    times.sort_unstable();
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    Duration::from_nanos(gap.unwrap_or_default())
}
