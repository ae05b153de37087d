//! What clients of a healthy leader feel of one follower that is dead, stands still, or is far away.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::judgement::Times;
use crate::nemesis::Nemesis;
use crate::scenario::Common;
use crate::workload::{Session, Shared, probe};

/// Clients that write, each one request at a time.
const WRITERS: usize = 4;

/// What is not measured at the begin of a phase.
const WARM_UP: Duration = Duration::from_millis(700);

/// Delay of the far follower's link, each way.
const DELAY: Duration = Duration::from_millis(50);

/// More than this, as a multiple of the healthy 99th percentile, is too much.
const RATIO_MAX: f64 = 1.2;

/// What is wrong with the follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Healthy,
    Dead,
    Paused,
    Delayed,
}

const PHASES: [Phase; 4] = [Phase::Healthy, Phase::Dead, Phase::Paused, Phase::Delayed];

/// Measures the phases in turn, `rounds` times. True if writes work and the bar was kept.
///
/// # Errors
/// The cluster does not start, or has no leader.
pub fn run(common: &Common, rounds: usize, time: Duration) -> Result<bool, String> {
    fs::create_dir_all(&common.folder).map_err(|error| error.to_string())?;
    println!(
        "{} members, {rounds} rounds of {time:?} a phase, {WRITERS} writers at the leader",
        common.nodes
    );
    let cluster = common.cluster(true, None)?;
    let shared = Shared::new(cluster.directory(), cluster.id());
    let mut nemesis = Nemesis::new(cluster, shared, common.seed, &common.folder)?;
    nemesis.measure(Instant::now());
    let mut found: [Vec<Duration>; 4] = Default::default();
    for round in 1..=rounds {
        for (phase, found) in PHASES.into_iter().zip(&mut found) {
            nemesis.rest();
            let times = measure(&mut nemesis, phase, time)?;
            println!("round {round}, {phase:?}: {}", Times::new(times.clone()).text());
            found.extend(times);
            let healed = nemesis.heal();
            nemesis.measure(healed);
        }
    }
    let mut is_right = nemesis.violations.is_empty();
    for text in &nemesis.violations {
        println!("VIOLATION: {text}");
    }
    let found = found.map(Times::new);
    let healthy = found[0].percentile(99).as_secs_f64();
    for (phase, times) in PHASES.into_iter().zip(&found) {
        let ratio = times.percentile(99).as_secs_f64() / healthy;
        let is_kept = ratio <= RATIO_MAX;
        is_right &= is_kept;
        println!(
            "{phase:?}: {}; p99 is {ratio:.2} of healthy, within {RATIO_MAX}: {}",
            times.text(),
            if is_kept { "yes" } else { "NO" }
        );
    }
    if let Err(text) = nemesis.cluster.stop() {
        println!("VIOLATION: {text}");
        is_right = false;
    }
    common.end(is_right);
    Ok(is_right)
}

fn measure(nemesis: &mut Nemesis, phase: Phase, time: Duration) -> Result<Vec<Duration>, String> {
    let leader = nemesis.cluster.leader().ok_or("there is no leader")?;
    let nodes = nemesis.cluster.members.len();
    let follower = (leader + 1) % nodes;
    match phase {
        Phase::Healthy => {}
        Phase::Dead => nemesis.cluster.kill(follower),
        Phase::Paused => nemesis.cluster.pause(follower),
        Phase::Delayed => delay(&nemesis.cluster, follower),
    }
    thread::sleep(WARM_UP);
    let entry = nemesis.cluster.directory().lock().expect("nobody panics under this lock")[leader];
    let entry = entry.ok_or("the leader is down")?;
    let stop = AtomicBool::new(false);
    let shared = &nemesis.shared;
    let times: Vec<Duration> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut session = Session::new(shared);
                    let mut times = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        if !session.is_connected() {
                            session.leave();
                            session.connect(entry);
                        }
                        let begin = Instant::now();
                        // What fails took at least so long.
                        session.ask(probe(shared));
                        times.push(begin.elapsed());
                    }
                    times
                })
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("a writer does not panic"))
            .collect()
    });
    if nemesis.cluster.leader() != Some(leader) {
        println!("another member leads after the phase {phase:?}");
    }
    Ok(times)
}

fn delay(cluster: &Cluster, far: usize) {
    for index in (0..cluster.members.len()).filter(|index| *index != far) {
        let (far, other) = (&cluster.members[far], &cluster.members[index]);
        cluster.proxy.delay(far.id, other.place, DELAY);
        cluster.proxy.delay(other.id, far.place, DELAY);
    }
}
