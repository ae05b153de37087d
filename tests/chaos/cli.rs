//! The command line of the chaos tests.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaos::scenario::{self, Common};
use chaos::{failover, grey, judgement, replacement, small_disk, steady, watch};
use clap::{Args, Parser, Subcommand};

/// Real servers on this machine, faults, and a verdict.
///
/// Starts servers of the release binary on free ports of 127.0.0.1, keeps their data in a folder of the
/// target directory and ends them all, also when it is killed itself. Exit code 1: something was wrong;
/// the folder then stays for a look, with the history of all operations where there is one.
#[derive(Parser)]
#[command(name = "chaos")]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    /// The server's binary [default: quorate beside this program]
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Folder of the run, made where it is missing [default: a new one in the target directory]
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// Page cache of each member
    #[arg(long, global = true, default_value = "32MiB")]
    page_cache: String,
}

#[derive(Args)]
struct Choices {
    /// Members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=7))]
    nodes: u8,
    /// What all choices follow from [default: the time]
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Subcommand)]
enum Scenario {
    /// Concurrent clients under kills, pauses, partitions, delays, a full disk and damaged files; the
    /// history of all operations is judged
    Run {
        /// How long, in minutes
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        #[command(flatten)]
        choices: Choices,
    },
    /// Kills the leader under load, again and again: how long no write succeeds
    Failover {
        /// How many times
        #[arg(long, default_value_t = 100)]
        times: usize,
        #[command(flatten)]
        choices: Choices,
    },
    /// Full load and no faults: counts elections, of which there must be none
    Steady {
        /// How long, in minutes
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Seconds between two compactions; 0: none
        #[arg(long, default_value_t = 10.0)]
        compact_every: f64,
        #[command(flatten)]
        choices: Choices,
    },
    /// Kills a member for good and puts a new one in its place, as the handbook says, under load
    Replace {
        /// How many times
        #[arg(long, default_value_t = 4)]
        times: usize,
        /// Entries of the log at the begin; from 100,000 on a new member is sent the state
        #[arg(long, default_value_t = 200_000)]
        entries: usize,
        #[command(flatten)]
        choices: Choices,
    },
    /// Latency of writes at the leader while one follower is well, dead, stopped, or 50 ms away, in turn
    Grey {
        /// How many times each
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How long each, in seconds
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[command(flatten)]
        choices: Choices,
    },
    /// Watches of all shapes and leases under kills, pauses and partitions: what each watch is told is
    /// compared with all changes that were made, and the end of each lease with its time
    Watch {
        /// How long, in minutes
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// How many watch
        #[arg(long, default_value_t = 200)]
        watchers: usize,
        #[command(flatten)]
        choices: Choices,
    },
    /// Judges the history that a run has left
    Judge {
        /// history.jsonl
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match carry_out(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(text) => {
            eprintln!("Error: {text}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(arguments: Arguments) -> Result<bool, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = arguments.binary.unwrap_or_else(|| program.with_file_name("quorate"));
    let target =
        program.parent().and_then(|path| path.parent()).ok_or("this program is nowhere")?;
    let name = format!("tmp/chaos-{}", std::process::id());
    let folder = arguments.folder.unwrap_or_else(|| target.join(name));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let common = |choices: &Choices| Common {
        binary: binary.clone(),
        nodes: usize::from(choices.nodes),
        seed: choices.seed.unwrap_or(since.as_secs()),
        folder: folder.clone(),
        page_cache: arguments.page_cache.clone(),
    };
    match &arguments.scenario {
        Scenario::Run { minutes, choices } => {
            if let Err(error) = small_disk::unshare() {
                eprintln!("no mount namespace: {error}");
            }
            scenario::run(&common(choices), Duration::from_secs_f64(minutes * 60.0))
        }
        Scenario::Failover { times, choices } => failover::run(&common(choices), *times),
        Scenario::Steady { minutes, compact_every, choices } => {
            let time = Duration::from_secs_f64(minutes * 60.0);
            let compact_every = Duration::from_secs_f64(*compact_every);
            steady::run(&common(choices), time, compact_every)
        }
        Scenario::Replace { times, entries, choices } => {
            replacement::run(&common(choices), *times, *entries)
        }
        Scenario::Grey { rounds, seconds, choices } => {
            grey::run(&common(choices), *rounds, Duration::from_secs_f64(*seconds))
        }
        Scenario::Watch { minutes, watchers, choices } => {
            let time = Duration::from_secs_f64(minutes * 60.0);
            watch::run(&common(choices), time, *watchers)
        }
        Scenario::Judge { file } => judgement::judge_file(file),
    }
}
