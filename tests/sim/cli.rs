//! Runs seeds: `--seeds N [--from S]`, or one with its trace: `--seed S`. Ends with the count of
//! violations, and with an exit code that says whether there was one.
//!
//! Among many seeds, one in a hundred is a canary that must be found out, one in fifty runs twice and must
//! be the same, and a finding is followed by the commands that repeat it, one of them with a smaller run.
//!
//! Seeds run on all cores, or on as many threads as `--threads N` says.
//!
//! `--without FAULT`, `--clients N`, `--watchers N`, `--members N` and `--millis N` make a finding smaller; `--lenient`
//! goes on after what harms nobody by itself; `--canary` breaks the model on purpose. A build with
//! `--profile sim` goes on with the next seed after a panic, one with `--release` ends there.
//!
//! `mutants` as the first word asks the other way round: do the seeds find mistakes that are made on
//! purpose? See `mutants.rs`.

mod mutants;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sim::{
    Adjust, CHANGES_TOLD, FRAGMENT_TOLD, Fault, Kind, LEASE_LIVES, PROGRESS_TOLD, Plan, RENEWALS,
    Report, Trial, WATCH_COMPACTED, WATCH_OPENED, WATCH_RESUMED, run, trial,
};

/// How often a long run says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

const HELP: &str = "\
sim [--seeds N] [--from S] [--threads T]    seeds S to S+N-1 (one; fresh ones) on T threads (all cores)
sim --seed S [--without FAULT]... [--clients N] [--watchers N] [--members N] [--millis N] [--lenient]
    [--canary]
                                            one seed, with its plan and its last events
sim mutants ...                             whether seeds find mistakes made on purpose; has a --help
Exit code 1: there was a violation.";

struct Arguments {
    seed: Option<u64>,
    seeds: u64,
    from: Option<u64>,
    threads: usize,
    adjust: Adjust,
}

/// None: the help is wanted.
fn arguments() -> Result<Option<Arguments>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parsed =
        Arguments { seed: None, seeds: 1, from: None, threads, adjust: Adjust::default() };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        if name == "--canary" {
            parsed.adjust.canary = true;
            continue;
        }
        if name == "--lenient" {
            parsed.adjust.lenient = true;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{name} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} wants a number"));
        match name.as_str() {
            "--seed" => parsed.seed = Some(number()?),
            "--seeds" => parsed.seeds = number()?,
            "--from" => parsed.from = Some(number()?),
            "--threads" => {
                parsed.threads = value.parse().map_err(|_| format!("{name} wants a number"))?;
            }
            "--without" => parsed.adjust.without.push(value),
            "--clients" => parsed.adjust.clients = Some(number()?),
            "--watchers" => parsed.adjust.watchers = Some(number()?),
            "--members" => parsed.adjust.members = Some(number()?),
            "--millis" => parsed.adjust.millis = Some(number()?),
            _ => return Err(format!("{name} is not known")),
        }
    }
    if parsed.seeds == 0 {
        return Err("--seeds 0 would find nothing; give 1 or more".into());
    }
    Ok(Some(parsed))
}

/// Seeds that nobody has run yet, most likely.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000
}

/// Seeds from which on a run is expected to have done as much as seeds do on average.
const FLOOR_SEEDS: u64 = 50;

/// What a seed does on average, at the very least: less is a sign that the simulator has stopped to
/// look. Judgements, replies checked, events.
const FLOORS: [(&str, u64); 3] = [("judgements", 400), ("replies", 150), ("events", 3_000)];

/// Seeds from which on each kind of fault has struck, and each of these has happened.
const FLOOR_SEEDS_RARE: u64 = 2_000;
const RARE: [&str; 3] = ["state sent", "state resumed", "state installed"];

/// What so many seeds do about watches and leases, each at the very least.
const FOLLOWED: [(&str, u64); 8] = [
    (CHANGES_TOLD, 500),
    (WATCH_OPENED, 5),
    (WATCH_RESUMED, 10),
    (WATCH_COMPACTED, 1),
    (PROGRESS_TOLD, 15),
    (FRAGMENT_TOLD, 18),
    (LEASE_LIVES, 3),
    (RENEWALS, 3),
];

/// What all seeds came to together.
#[derive(Default)]
struct Totals {
    counts: BTreeMap<&'static str, u64>,
    /// Seeds that were canaries, and seeds that ran twice.
    canaries: u64,
    twice: u64,
    seeds: u64,
    violations: u64,
    simulated: u64,
    judged: u64,
    checked: u64,
    entries: u64,
    events: u64,
    leaderless: u64,
    longest: u64,
}

impl Totals {
    /// Adds a seed of many.
    fn add_trial(&mut self, seed: u64, trial: Trial) {
        let before = self.violations;
        match trial.kind {
            Kind::Plain => {}
            Kind::Canary => self.canaries += 1,
            Kind::Twice => self.twice += 1,
        }
        self.add(seed, trial.outcome);
        if self.violations > before {
            let canary = if trial.kind == Kind::Canary { " --canary" } else { "" };
            println!("    cargo run --profile sim -p sim -- --seed {seed}{canary}");
        }
        if let Some(smaller) = trial.smaller {
            println!("    cargo run --profile sim -p sim -- --seed {seed}{smaller}");
        }
    }

    /// A run that looks at next to nothing finds nothing: that is a finding too.
    fn check_floors(&mut self) {
        if self.seeds < FLOOR_SEEDS {
            return;
        }
        for ((name, floor), sum) in FLOORS.into_iter().zip([self.judged, self.checked, self.events])
        {
            if sum < floor * self.seeds {
                self.violations += 1;
                println!("floor: {} {name} a seed, {floor} are the least", sum / self.seeds);
            }
        }
        if self.seeds < FLOOR_SEEDS_RARE {
            return;
        }
        for name in Fault::ALL.iter().map(|fault| fault.text()).chain(RARE) {
            if !self.counts.contains_key(name) {
                self.violations += 1;
                println!("floor: no {name} in {} seeds", self.seeds);
            }
        }
        for (name, floor) in FOLLOWED {
            let sum = self.count(name);
            if sum < floor * self.seeds {
                self.violations += 1;
                println!("floor: {name} {sum} times in {} seeds", self.seeds);
            }
        }
    }

    /// Adds a seed, or what its panic said.
    fn add(&mut self, seed: u64, outcome: Result<Report, String>) {
        self.seeds += 1;
        let report = match outcome {
            Ok(report) => report,
            Err(panic) => {
                self.violations += 1;
                println!("seed {seed}: panicked: {panic}");
                return;
            }
        };
        for line in &report.trace {
            println!("{line}");
        }
        if let Some(text) = &report.violation {
            self.violations += 1;
            println!("seed {seed}: {text}");
        }
        for (name, count) in &report.counts {
            *self.counts.entry(name).or_default() += count;
        }
        self.simulated += report.simulated;
        self.judged += report.judged;
        self.checked += report.checked;
        self.entries += report.entries;
        self.events += report.events;
        self.leaderless = self.leaderless.max(report.leaderless);
        self.longest = self.longest.max(report.longest);
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn print(mut self, elapsed: Duration) {
        let watched = format!(
            "{} changes told to watches, {} of them opened, {} resumed, {} compacted; {} times progress told",
            self.count(CHANGES_TOLD),
            self.count(WATCH_OPENED),
            self.count(WATCH_RESUMED),
            self.count(WATCH_COMPACTED),
            self.count(PROGRESS_TOLD),
        );
        let leased = format!(
            "{} leases granted, {} expired, {} requests to keep them alive answered",
            self.count("lease grant"),
            self.count(LEASE_LIVES),
            self.count(RENEWALS),
        );
        let seconds = elapsed.as_secs_f64();
        for fault in Fault::ALL {
            let count = self.counts.remove(fault.text()).unwrap_or(0);
            println!("{:>28}  {count}", fault.text());
        }
        for (name, count) in self.counts {
            println!("{name:>28}  {count}");
        }
        let simulated = self.simulated as f64 / 1e9;
        println!(
            "{} seeds in {seconds:.1} s, {:.0} a minute; {simulated:.0} simulated seconds, {:.0} times \
             real time",
            self.seeds,
            self.seeds as f64 / seconds * 60.0,
            simulated / seconds,
        );
        println!(
            "{} events, {} log entries, {} judgements, {} replies; leader again within {} ms, longest \
             answer {} ms",
            self.events,
            self.entries,
            self.judged,
            self.checked,
            self.leaderless / 1_000_000,
            self.longest / 1_000_000,
        );
        println!("{watched}");
        println!("{leased}");
        println!(
            "{} canaries that had to be found out, {} seeds that ran twice",
            self.canaries, self.twice
        );
        println!("{} seeds, {} violations", self.seeds, self.violations);
    }
}

/// Runs one seed, with its plan and its trace printed.
fn run_one(seed: u64, adjust: &Adjust) -> Totals {
    println!("{:#?}", Plan::new(seed, adjust));
    let outcome = std::panic::catch_unwind(|| run(seed, adjust, true));
    if let Ok(report) = &outcome {
        println!("trace hash {:016x} over {} steps", report.hash, report.steps);
        println!("answers by status {:?}", report.answers);
    }
    let mut totals = Totals::default();
    totals.add(seed, outcome.map_err(|_| sim::last_panic()));
    totals
}

/// Runs seeds on several threads; what each comes to depends on its number alone.
fn run_many(first: u64, arguments: &Arguments) -> Totals {
    let next = AtomicU64::new(first);
    let end = first + arguments.seeds;
    let (sender, receiver) = mpsc::channel();
    let mut totals = Totals::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            let (sender, next, adjust) = (sender.clone(), &next, &arguments.adjust);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if sender.send((seed, trial(seed, adjust))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut said = Instant::now();
        for (seed, trial) in receiver {
            totals.add_trial(seed, trial);
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                let (seeds, violations) = (totals.seeds, totals.violations);
                eprintln!("{seeds} of {} seeds, {violations} violations", arguments.seeds);
            }
        }
    });
    if arguments.adjust.is_plain() {
        totals.check_floors();
    }
    totals
}

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("mutants", rest)) = given.split_first().map(|(first, rest)| (&first[..], rest)) {
        return mutants::main(rest);
    }
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    sim::note_panics(arguments.seed.is_some());
    let begin = Instant::now();
    let totals = match arguments.seed {
        Some(seed) => run_one(seed, &arguments.adjust),
        None => run_many(arguments.from.unwrap_or_else(fresh), &arguments),
    };
    let violations = totals.violations;
    totals.print(begin.elapsed());
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
