//! The mutation gate: would the simulator notice? `sim mutants` builds itself with the deliberate mistakes
//! of `base::Mutant` in it, and runs seeds against each of them, in a process of its own, until one finds
//! it. A mutant that survives is a hole of the generator or of the judges.
//!
//! Fails if one survives. `--help` has the options.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base::Mutant;
use sim::{Adjust, run};

const USAGE: &str = "\
sim mutants [--from SEED] [--max SEEDS] [--only NAME]... [--list]
  builds the simulator with mistakes made on purpose and runs seeds against each of them until one finds
  it; fails if there is one that none finds
  --from SEED   the first seed (1)
  --max SEEDS   how many seeds each mutant gets (10000)
  --only NAME   this mutant only; may be given several times
  --list        what mutants there are";

/// Processes at a time.
const WORKERS: usize = 2;

/// Seeds that the build must pass while no mutant is on.
const SANE: u64 = 8;

/// A seed that takes this long by the clock does not end.
const HANGS: Duration = Duration::from_secs(120);

/// What `--run` is given for the build with no mutant on.
const NONE: &str = "none";

/// Columns of the reason in the table.
const REASON_MAX: usize = 66;

struct Arguments {
    from: u64,
    max: u64,
    only: Vec<&'static Mutant>,
    list: bool,
    /// This process is to run the seeds of one mutant.
    run: Option<String>,
}

fn find(name: &str) -> Result<&'static Mutant, String> {
    let mut all = Mutant::ALL.iter();
    all.find(|mutant| mutant.name() == name).ok_or_else(|| format!("there is no mutant {name}"))
}

fn arguments(given: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments { from: 1, max: 10_000, only: Vec::new(), list: false, run: None };
    let mut given = given.iter();
    while let Some(name) = given.next() {
        if name == "--help" {
            return Err(USAGE.to_string());
        }
        if name == "--list" {
            parsed.list = true;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{name} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} wants a number"));
        match name.as_str() {
            "--from" => parsed.from = number()?,
            "--max" => parsed.max = number()?,
            "--only" => parsed.only.push(find(value)?),
            "--run" => parsed.run = Some(value.clone()),
            _ => return Err(format!("{name} is not known\n{USAGE}")),
        }
    }
    Ok(parsed)
}

/// `sim mutants`, with what stands behind it on the command line.
pub fn main(given: &[String]) -> ExitCode {
    let outcome = arguments(given).and_then(|arguments| match &arguments.run {
        Some(name) => seeds(name, &arguments),
        None if arguments.list => {
            for mutant in Mutant::ALL {
                println!("{:<26} {} ({})", mutant.name(), mutant.about(), mutant.rule());
            }
            Ok(true)
        }
        None => gate(&arguments),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

// ---------------------------------------------------------------------- one mutant

/// Runs seeds until one finds the mutant, and says so in the last line: whether, how many, why. With no
/// mutant the reason is the hash over all that happened.
fn seeds(name: &str, arguments: &Arguments) -> Result<bool, String> {
    #[cfg(mutants)]
    if name != NONE {
        find(name)?.choose();
    }
    if !cfg!(mutants) && name != NONE {
        return Err("this build has no mutants".to_string());
    }
    sim::note_panics(false);
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    thread::spawn(|| {
        let mut last = u64::MAX;
        loop {
            let begun = BEGUN.load(Ordering::Relaxed);
            if begun == last {
                println!("killed\t{begun}\tit runs in circles");
                std::process::exit(1);
            }
            last = begun;
            thread::sleep(HANGS);
        }
    });
    let mut hash = 0_u64;
    for count in 1..=arguments.max {
        BEGUN.store(count, Ordering::Relaxed);
        let seed = arguments.from + count - 1;
        let outcome = std::panic::catch_unwind(|| run(seed, &Adjust::default(), false));
        let found = match outcome {
            Ok(report) => {
                hash = hash.rotate_left(7) ^ report.hash;
                report.violation
            }
            Err(_) => Some(format!("panic: {}", sim::last_panic())),
        };
        if let Some(text) = found {
            println!("killed\t{count}\t{}", text.replace(['\n', '\t'], " "));
            return Ok(false);
        }
    }
    println!("survived\t{}\t{hash:016x}", arguments.max);
    Ok(true)
}

// ---------------------------------------------------------------------- all of them

/// What became of a mutant.
struct Fate {
    killed: bool,
    seeds: u64,
    seconds: f64,
    reason: String,
}

fn gate(arguments: &Arguments) -> Result<bool, String> {
    let program = if cfg!(mutants) { own()? } else { build()? };
    let sane = examine(&program, NONE, arguments.from, SANE)?;
    if sane.killed {
        return Err(format!("without a mutant it fails already: {}", sane.reason));
    }
    if !cfg!(mutants) {
        let own = examine(&own()?, NONE, arguments.from, SANE)?;
        if own.reason != sane.reason {
            return Err("with no mutant on the two builds differ: a mutant is not behind its \
                        condition"
                .to_string());
        }
    }
    eprintln!("no mutant: {SANE} seeds pass in {:.1} s", sane.seconds);
    let all = Mutant::ALL.iter();
    let chosen: Vec<&Mutant> =
        all.filter(|mutant| arguments.only.is_empty() || arguments.only.contains(mutant)).collect();
    let fates = examine_all(&program, &chosen, arguments)?;
    Ok(tell(&chosen, &fates))
}

fn own() -> Result<PathBuf, String> {
    env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))
}

/// Builds this program with the mutants in it, below the target folder that this one lies in.
fn build() -> Result<PathBuf, String> {
    // A seed that panics must not be the last one.
    const PROFILE: &str = "sim";
    let own = own()?;
    let target = own.parent().and_then(Path::parent);
    let target = target.ok_or("this program lies in no target folder")?.join("mutants");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    eprintln!("building the simulator with mutants into {}", target.display());
    let status = Command::new(cargo)
        .args(["build", "--profile", PROFILE, "-p", "sim", "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", format!("{flags} --cfg mutants").trim())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !status.success() {
        return Err(format!("the build with mutants failed: {status}"));
    }
    Ok(target.join(PROFILE).join("sim"))
}

/// Runs the seeds of one mutant in a process of its own.
fn examine(program: &Path, name: &str, from: u64, max: u64) -> Result<Fate, String> {
    let begin = Instant::now();
    let output = Command::new(program)
        .args(["mutants", "--run", name])
        .args(["--from", &from.to_string(), "--max", &max.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let mut parts = last.splitn(3, '\t');
    let (verdict, seeds, reason) = (parts.next(), parts.next(), parts.next());
    let seeds = seeds.and_then(|seeds| seeds.parse().ok());
    let (Some(verdict @ ("killed" | "survived")), Some(seeds), Some(reason)) =
        (verdict, seeds, reason)
    else {
        return Err(format!("{name}: the process ended with {}: {last}", output.status));
    };
    let (killed, reason) = (verdict == "killed", reason.to_string());
    Ok(Fate { killed, seeds, seconds: begin.elapsed().as_secs_f64(), reason })
}

fn examine_all(
    program: &Path,
    chosen: &[&Mutant],
    arguments: &Arguments,
) -> Result<Vec<Fate>, String> {
    let next = AtomicU64::new(0);
    let fates: Mutex<Vec<(usize, Result<Fate, String>)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(chosen.len()) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let place = usize::try_from(place).unwrap_or(usize::MAX);
                    let Some(mutant) = chosen.get(place) else { return };
                    let fate = examine(program, mutant.name(), arguments.from, arguments.max);
                    let mut fates = fates.lock().expect("nobody panics with the list");
                    fates.push((place, fate));
                    if let Some((_, Ok(fate))) = fates.last() {
                        let what =
                            if fate.killed { short(&fate.reason) } else { "SURVIVED".into() };
                        eprintln!(
                            "[{}/{}] {} {} seeds {:.1} s: {what}",
                            fates.len(),
                            chosen.len(),
                            mutant.name(),
                            fate.seeds,
                            fate.seconds
                        );
                    }
                }
            });
        }
    });
    let mut fates = fates.into_inner().expect("nobody panicked with the list");
    fates.sort_by_key(|(place, _)| *place);
    fates.into_iter().map(|(_, fate)| fate).collect()
}

/// The reason in few words: of a wrong answer what is wrong with it, not what was asked.
fn short(reason: &str) -> String {
    let wrong = reason.starts_with("request").then(|| reason.find("): ")).flatten();
    let text = wrong.map_or(reason, |place| &reason[place + 3..]);
    let text = if wrong.is_some() { format!("answer: {text}") } else { text.to_string() };
    text.chars().take(REASON_MAX).collect()
}

/// Prints the table; says whether all were killed.
fn tell(chosen: &[&Mutant], fates: &[Fate]) -> bool {
    println!("{:<26} {:<54} {:>5} {:>7}  killed by", "mutant", "breaks", "seeds", "seconds");
    for (mutant, fate) in chosen.iter().zip(fates) {
        let reason = if fate.killed { short(&fate.reason) } else { "SURVIVED".to_string() };
        println!(
            "{:<26} {:<54} {:>5} {:>7.1}  {reason}",
            mutant.name(),
            mutant.rule(),
            fate.seeds,
            fate.seconds
        );
    }
    let mut seeds: Vec<u64> = fates.iter().filter(|fate| fate.killed).map(|f| f.seeds).collect();
    seeds.sort_unstable();
    let (count, killed) = (fates.len(), seeds.len());
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or(0);
    println!("{count} mutants, {killed} killed, median seeds {median}");
    count == killed
}
