//! What can be run, from the folder to the verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Setup};
use crate::judgement::conclude;
use crate::nemesis::Nemesis;
use crate::small_disk::SmallDisk;
use crate::workload::{Shared, Workload};

/// What all scenarios are told.
#[derive(Clone, Debug)]
pub struct Common {
    /// The binary of the server.
    pub binary: PathBuf,
    /// Members.
    pub nodes: usize,
    /// What all choices follow from.
    pub seed: u64,
    /// A folder of its own; removed when all went well.
    pub folder: PathBuf,
    /// The page cache of each member, as the server takes it. A small one puts more of the server to the
    /// test, and makes it slow: most writes then wait for a page.
    pub page_cache: String,
}

/// Between two lines that tell how it goes.
pub const PROGRESS: Duration = Duration::from_secs(10);

/// Requests under way at most, for each client of a chaos run.
const DEPTHS: [usize; 8] = [1, 1, 1, 1, 1, 1, 4, 8];

/// Lines on standard error that tell how it goes.
pub struct Progress {
    begin: Instant,
    told: Instant,
}

impl Progress {
    /// Begins now.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { begin: now, told: now }
    }

    /// Tells, if it has not for a while.
    pub fn tell(&mut self, shared: &Shared, what: impl FnOnce() -> String) {
        self.say(|| {
            let [done, failed, unknown] = shared.counts();
            format!("{}, {done} operations done, {failed} refused, {unknown} unknown", what())
        });
    }

    /// The same without the operations of a workload.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            eprintln!("{:4.0} s: {}", self.begin.elapsed().as_secs_f64(), what());
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Common {
    /// Starts members, with a proxy between them or without.
    ///
    /// # Errors
    /// They do not start.
    pub fn cluster(&self, is_proxied: bool, disk: Option<PathBuf>) -> Result<Cluster, String> {
        self.start(is_proxied, disk, false)
    }

    /// The same with a proxy, and members whose clients find them where they were after each start.
    ///
    /// # Errors
    /// They do not start.
    pub fn cluster_of_fixed_addresses(&self) -> Result<Cluster, String> {
        self.start(true, None, true)
    }

    fn start(
        &self,
        is_proxied: bool,
        disk: Option<PathBuf>,
        keeps_addresses: bool,
    ) -> Result<Cluster, String> {
        if !self.binary.exists() {
            return Err(format!(
                "{} is not there; build it (cargo build --release) or name one with --binary",
                self.binary.display()
            ));
        }
        let setup = Setup {
            binary: self.binary.clone(),
            folder: self.folder.clone(),
            nodes: self.nodes,
            is_proxied,
            disk,
            page_cache: self.page_cache.clone(),
            keeps_addresses,
        };
        Cluster::start(setup, self.seed)
    }

    /// Removes the folder, or says that it stays.
    pub fn end(&self, is_right: bool) {
        if is_right {
            drop(fs::remove_dir_all(&self.folder));
        } else {
            println!("left for a look: {}", self.folder.display());
        }
    }
}

/// Clients and faults for a time, then the verdict: true if nothing was wrong.
///
/// # Errors
/// The cluster cannot be started.
pub fn run(common: &Common, time: Duration) -> Result<bool, String> {
    fs::create_dir_all(&common.folder).map_err(|error| error.to_string())?;
    let disk = match SmallDisk::mount(&common.folder) {
        Ok(disk) => Some(disk),
        Err(error) => {
            println!("SKIPPED: no disk will be full, since none can be mounted: {error}");
            None
        }
    };
    let path = disk.as_ref().map(|disk| disk.path().to_owned());
    let is_right = run_on(common, time, path.as_deref());
    drop(disk);
    common.end(is_right == Ok(true));
    is_right
}

fn run_on(common: &Common, time: Duration, disk: Option<&Path>) -> Result<bool, String> {
    println!("seed {}, {} members, {:?}", common.seed, common.nodes, time);
    let cluster = common.cluster(true, disk.map(Path::to_owned))?;
    let shared = Shared::new(cluster.directory(), cluster.id());
    let workload = Workload::start(&shared, common.seed, &DEPTHS)?;
    let mut nemesis = Nemesis::new(cluster, shared, common.seed, &common.folder)?;
    nemesis.measure(Instant::now());
    nemesis.recoveries.clear();
    let begin = Instant::now();
    let mut progress = Progress::new();
    while begin.elapsed() < time && nemesis.violations.is_empty() {
        nemesis.strike();
        progress.tell(&nemesis.shared, || format!("{} faults", nemesis.count()));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let healed = nemesis.heal();
    nemesis.measure(healed);
    Ok(conclude(nemesis, workload, &common.folder, seconds))
}
