//! A healthy cluster under full load holds no elections. History is given up as it goes, as who runs a
//! store would have it: ten minutes of it would fill most disks.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use client::Compact;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::scenario::{Common, PROGRESS};

/// Between two looks at the terms.
const LOOK: Duration = Duration::from_millis(500);

/// How long the load may take beyond its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads a cluster with `bench put`, and compacts each time that `compact_every` has passed, never if it is
/// zero. True if no term changed and the load went through.
///
/// # Errors
/// The cluster or the load does not start.
pub fn run(common: &Common, time: Duration, compact_every: Duration) -> Result<bool, String> {
    fs::create_dir_all(&common.folder).map_err(|error| error.to_string())?;
    println!("{} members, {time:?}, page cache {}", common.nodes, common.page_cache);
    let mut cluster = common.cluster(false, None)?;
    let begin = Instant::now();
    let first = loop {
        let terms: Vec<u64> =
            (0..common.nodes).filter_map(|index| Some(cluster.status(index)?.term)).collect();
        if cluster.leader().is_some() && terms.len() == common.nodes {
            break terms.into_iter().max().unwrap_or_default();
        }
        if begin.elapsed() > PATIENCE {
            return Err("there is no leader".into());
        }
    };
    let endpoints: Vec<String> =
        (0..common.nodes).filter_map(|index| Some(cluster.address(index)?.to_string())).collect();
    let mut command = Command::new(cluster.binary());
    command.args(["bench", "put", "--connections", "64", "--depth", "4", "--threads", "1"]);
    command.args([
        "--duration",
        &time.as_secs().max(1).to_string(),
        "--endpoint",
        &endpoints.join(","),
    ]);
    let mut load = Process::start(command, &common.folder.join("load.log"))
        .map_err(|error| format!("bench: {error}"))?;
    let begin = Instant::now();
    let (mut newest, mut unanswered, mut asked) = (first, 0_u64, 0_u64);
    let (mut told, mut compacted, mut compactions) = (begin, begin, 0_u64);
    let ended = loop {
        if let Some(status) = load.ended() {
            break Some(status);
        }
        if begin.elapsed() > time + PATIENCE {
            break None;
        }
        for index in 0..common.nodes {
            asked += 1;
            match cluster.status(index) {
                Some(status) => newest = newest.max(status.term),
                None => unanswered += 1,
            }
        }
        if !compact_every.is_zero() && compacted.elapsed() >= compact_every {
            compacted = Instant::now();
            compactions += u64::from(compact(&cluster).is_ok());
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("{:4.0} s: {} elections", begin.elapsed().as_secs_f64(), newest - first);
        }
        thread::sleep(LOOK);
    };
    let elections = newest - first;
    for line in load.said() {
        println!("{line}");
    }
    let is_loaded = ended.is_some_and(|status| status.success());
    if !is_loaded {
        println!("the load did not go through: {ended:?}: {}", load.stderr());
    }
    let fallen: Vec<String> = cluster.fallen().into_iter().map(|(_, text)| text).collect();
    for text in &fallen {
        println!("VIOLATION: {text}");
    }
    let stopped = cluster.stop();
    if let Err(text) = &stopped {
        println!("VIOLATION: {text}");
    }
    println!("{compactions} compactions");
    println!(
        "{elections} elections in {:.0} s; {unanswered} of {asked} questions for the term were not answered \
         within 300 ms",
        begin.elapsed().as_secs_f64()
    );
    let is_right = elections == 0 && is_loaded && fallen.is_empty() && stopped.is_ok();
    common.end(is_right);
    Ok(is_right)
}

/// Gives up the history until now.
fn compact(cluster: &Cluster) -> Result<(), String> {
    let address = cluster.address(0).ok_or("the first member has no address")?;
    let mut client = cluster.client_at(address, Duration::from_secs(5))?;
    let status = client.status().map_err(|error| error.to_string())?;
    let request = Compact { revision: status.revision, physical: false };
    client.compact(&request).map(drop).map_err(|error| error.to_string())
}
