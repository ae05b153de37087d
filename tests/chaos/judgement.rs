//! The end of a run: everything is read once more, both judges judge, and the figures are told.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::history::{Operation, Request};
use crate::nemesis::Nemesis;
use crate::workload::{self, REGISTERS, Session, Shared, Workload, read_all};
use crate::{registers, witness};

/// How long clients may take to end.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// Requests for what unknown outcomes became that are under way at once.
const READS_IN_FLIGHT: usize = 32;

/// Times in the order of their length.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorted.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of 100 do not exceed; zero if there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// The figures, in milliseconds.
    pub fn text(&self) -> String {
        let millis = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        format!(
            "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}",
            millis(50),
            millis(90),
            millis(99),
            millis(100),
            self.count()
        )
    }
}

/// Reads everything at all members, and the store at the revisions that no answer claims.
fn read_finally(
    cluster: &Cluster,
    shared: &std::sync::Arc<Shared>,
    history: &mut Vec<Operation>,
) -> Vec<String> {
    let members = cluster.directory().lock().expect("nobody panics under this lock").clone();
    let mut trouble = Vec::new();
    for (index, entry) in members.iter().enumerate() {
        let Some(entry) = *entry else {
            trouble.push(format!("member {index} is down at the end"));
            continue;
        };
        for is_serializable in [false, true] {
            let mut session = Session::new(shared);
            let begin = Instant::now();
            let mut is_done = false;
            while !is_done && begin.elapsed() < JOIN_PATIENCE {
                is_done = (session.is_connected() || session.connect(entry))
                    && session.ask(read_all(0, is_serializable));
            }
            if !is_done {
                trouble.push(format!("hang: member {index} answers no final read"));
            }
            history.extend(session.into_history());
        }
    }
    let mut open: HashSet<u64> = witness::unclaimed(history).into_iter().collect();
    let mut session = Session::new(shared);
    let begin = Instant::now();
    while !open.is_empty() && begin.elapsed() < JOIN_PATIENCE {
        let Some(entry) = members.iter().flatten().next() else { break };
        if !session.is_connected() && !session.connect(*entry) {
            continue;
        }
        let mut sent = 0;
        for revision in open.iter().take(READS_IN_FLIGHT) {
            sent += usize::from(session.send(read_all(*revision, false)));
        }
        for _ in 0..sent {
            if session.receive()
                && let Some(operation) = session.last()
                && let Request::Range { revision, .. } = operation.request
            {
                open.remove(&revision);
            }
        }
    }
    history.extend(session.into_history());
    if !open.is_empty() {
        trouble.push(format!("hang: {} revisions of the past could not be read", open.len()));
    }
    trouble
}

/// Stops the clients, reads finally, judges, stops the servers and checks their files. Prints figures;
/// true if nothing was wrong.
pub fn conclude(nemesis: Nemesis, workload: Workload, folder: &Path, seconds: f64) -> bool {
    conclude_with(nemesis, workload, folder, seconds, |_| {})
}

/// The same, with a look at the history.
pub fn conclude_with(
    mut nemesis: Nemesis,
    workload: Workload,
    folder: &Path,
    seconds: f64,
    look: impl FnOnce(&[Operation]),
) -> bool {
    nemesis.shared.stop();
    let mut history = std::mem::take(&mut nemesis.history);
    match workload.join(JOIN_PATIENCE) {
        Ok(part) => history.extend(part),
        Err(text) => nemesis.violations.push(format!("hang: {text}")),
    }
    nemesis.violations.extend(read_finally(&nemesis.cluster, &nemesis.shared, &mut history));
    nemesis.violations.extend(nemesis.shared.trouble());
    for index in 0..nemesis.cluster.members.len() {
        if let Some(status) = nemesis.cluster.status(index)
            && status.corrupt
        {
            nemesis
                .violations
                .push(format!("member {index} differs from the others: {:?}", status.errors));
        }
    }
    if let Err(text) = nemesis.cluster.stop() {
        nemesis.violations.push(text);
    }
    for member in &nemesis.cluster.members {
        let output = std::process::Command::new(nemesis.cluster.binary())
            .args(["inspect", "check"])
            .arg(&member.data_dir)
            .output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => nemesis.violations.push(format!(
                "the files of {} are not sound: {}{}",
                member.name,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => nemesis.violations.push(format!("inspect check: {error}")),
        }
    }
    nemesis.violations.extend(judge(&history));
    look(&history);
    for (kind, [done, failed, unknown]) in workload::tally(&history) {
        println!("{kind:>20}: {done} done, {failed} refused, {unknown} unknown");
    }
    let faults: Vec<String> =
        nemesis.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{} faults in {seconds:.0} s: {}", nemesis.count(), faults.join(", "));
    let recovery = Times::new(nemesis.recoveries.clone());
    let is_quick = recovery.percentile(99) <= Duration::from_secs(5);
    println!(
        "writes through every member again after a heal: {}; p99 within 5 s: {}",
        recovery.text(),
        if is_quick { "yes" } else { "NO" }
    );
    let [done, failed, unknown] = nemesis.shared.counts();
    println!(
        "{done} operations done, {failed} refused, {unknown} unknown; {} faults; {} violations",
        nemesis.count(),
        nemesis.violations.len()
    );
    if nemesis.violations.is_empty() {
        return true;
    }
    for text in &nemesis.violations {
        println!("VIOLATION: {text}");
    }
    let path = folder.join("history.jsonl");
    match write(&path, &history) {
        Ok(()) => println!("history: {}; faults: {}", path.display(), nemesis.log_path().display()),
        Err(error) => println!("the history could not be written: {error}"),
    }
    false
}

/// What both judges find wrong, or could not decide.
fn judge(history: &[Operation]) -> Vec<String> {
    let begin = Instant::now();
    let mut found = Vec::new();
    let by_revisions = witness::judge(history);
    let by_search = registers::judge(history, 0..REGISTERS);
    for (name, verdict) in [("witness", by_revisions), ("registers", by_search)] {
        found.extend(verdict.violations.iter().map(|text| format!("{name}: {text}")));
        found.extend(verdict.undecided.map(|text| format!("{name} could not decide: {text}")));
    }
    println!("judged {} operations in {:.1} s", history.len(), begin.elapsed().as_secs_f64());
    found
}

/// Judges a history that an earlier run has left: true if nothing was wrong.
///
/// # Errors
/// The file cannot be read.
pub fn judge_file(path: &Path) -> Result<bool, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let operations = text.lines().map(serde_json::from_str).collect::<Result<Vec<Operation>, _>>();
    let history = operations.map_err(|error| format!("{}: {error}", path.display()))?;
    let found = judge(&history);
    for text in &found {
        println!("VIOLATION: {text}");
    }
    Ok(found.is_empty())
}

/// One operation in each line.
fn write(path: &Path, history: &[Operation]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for operation in history {
        serde_json::to_writer(&mut file, operation)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
