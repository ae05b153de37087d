//! How long a cluster takes no writes when its leader is killed.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::judgement::{Times, conclude};
use crate::nemesis::Nemesis;
use crate::scenario::{Common, Progress};
use crate::workload::{Session, Shared, Workload, probe};

/// Requests under way at most, for each client that is a load beside.
const DEPTHS: [usize; 5] = [1, 1, 1, 1, 4];

/// How long one member may keep the client that tries one after the other.
const ATTEMPT: Duration = Duration::from_millis(1_000);

/// Pause of that client after a refusal.
const PAUSE: Duration = Duration::from_millis(1);

/// Beyond this the cluster counts as hanging.
const FAILOVER_MAX: Duration = Duration::from_secs(30);

/// Kills the leader so many times. True if nothing was lost and the bars were kept: half of the times
/// within 400 ms, 99 of 100 within a second.
///
/// # Errors
/// The cluster does not start, or finds no leader.
pub fn run(common: &Common, times: usize) -> Result<bool, String> {
    fs::create_dir_all(&common.folder).map_err(|error| error.to_string())?;
    println!("seed {}, {} members, {times} times", common.seed, common.nodes);
    let cluster = common.cluster(false, None)?;
    let shared = Shared::new(cluster.directory(), cluster.id());
    let workload = Workload::start(&shared, common.seed, &DEPTHS)?;
    let mut nemesis = Nemesis::new(cluster, shared, common.seed, &common.folder)?;
    nemesis.measure(Instant::now());
    nemesis.recoveries.clear();
    let begin = Instant::now();
    let mut progress = Progress::new();
    let mut took = Vec::new();
    while took.len() < times && nemesis.violations.is_empty() {
        nemesis.rest();
        took.push(round(&mut nemesis)?);
        progress.tell(&nemesis.shared, || format!("{} of {times} leaders killed", took.len()));
    }
    let took = Times::new(took);
    let seconds = begin.elapsed().as_secs_f64();
    let is_right = conclude(nemesis, workload, &common.folder, seconds);
    let is_quick = took.percentile(50) <= Duration::from_millis(400)
        && took.percentile(99) <= Duration::from_secs(1);
    println!(
        "failover, from the kill to the next write: {}; p50 within 400 ms and p99 within 1 s: {}",
        took.text(),
        if is_quick { "yes" } else { "NO" }
    );
    common.end(is_right);
    Ok(is_right && is_quick)
}

/// One kill, and what it took until a client that tries the others one after the other had written.
fn round(nemesis: &mut Nemesis) -> Result<Duration, String> {
    let begin = Instant::now();
    let leader = loop {
        match nemesis.cluster.leader() {
            Some(leader) => break leader,
            None if begin.elapsed() > FAILOVER_MAX => return Err("there is no leader".into()),
            None => thread::sleep(PAUSE),
        }
    };
    let nodes = nemesis.cluster.members.len();
    let entries =
        nemesis.cluster.directory().lock().expect("nobody panics under this lock").clone();
    let mut session = Session::new(&nemesis.shared);
    let mut next = leader;
    let begin = Instant::now();
    nemesis.cluster.kill_at_once(leader);
    let took = loop {
        next = (next + 1) % nodes;
        if next != leader && entries[next].is_some_and(|entry| session.connect(entry)) {
            session.set_timeout(ATTEMPT);
            if session.ask(probe(&nemesis.shared)) {
                break begin.elapsed();
            }
            session.leave();
        }
        if begin.elapsed() > FAILOVER_MAX {
            nemesis.violations.push("hang: no write after the leader was killed".into());
            break begin.elapsed();
        }
        thread::sleep(PAUSE);
    };
    nemesis.history.extend(session.into_history());
    nemesis.killed(leader, &format!("no writes for {took:?}"));
    let healed = nemesis.heal();
    nemesis.measure(healed);
    Ok(took)
}
