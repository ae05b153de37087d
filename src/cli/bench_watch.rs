//! `bench watch`: the flags, progress, and where figures go.

use std::path::PathBuf;
use std::time::Duration;

use bench::watch::{WatchPlan, WatchProgress, Watched, run as measure};
use clap::{Args, ValueEnum};

use super::bench::{addresses, publish_figures};
use super::failure::Failure;
use super::progress::Progress;
use super::session::Global;
use super::time_span;

/// What is watched, and what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchedName {
    /// All watch one key, and it is written: a put is told to all of them
    One,
    /// Each watches a prefix of its own, and keys below them are written: a put is told to one
    Own,
    /// Each watches a prefix of its own, and other keys are written: a put is told to none
    Other,
}

/// Flags of watches under load.
#[derive(Clone, Debug, Args)]
pub struct WatchArguments {
    /// Watches; 0 is the load alone, to compare with
    #[arg(long, default_value_t = 1_000)]
    pub watches: usize,
    /// Connections that carry them, spread over the endpoints in turn
    #[arg(long, short = 'c', default_value_t = 100)]
    pub connections: usize,
    /// What they watch, and what is written
    #[arg(long, default_value = "one")]
    pub watched: WatchedName,
    /// Puts in flight; the next one waits until the changes of those before have come
    #[arg(long, default_value_t = 1)]
    pub writers: usize,
    /// Open loop: this many puts per second, latency counted from when each was due
    #[arg(long)]
    pub rate: Option<u64>,
    /// Seconds that are measured
    #[arg(long, default_value = "10", value_parser = time_span::parse)]
    pub duration: Duration,
    /// Bytes of a value
    #[arg(long, default_value = "256", value_parser = super::bench::parse_size)]
    pub value_size: usize,
    /// Write this many revisions first; behind the measurement one more watch begins at the first of
    /// them, while the others and the load go on
    #[arg(long, default_value_t = 0)]
    pub behind: u64,
    /// Keys that those revisions write
    #[arg(long, default_value_t = 100_000)]
    pub behind_keys: u64,
    /// Write the figures to this file as one JSON object; - is standard output, with nothing else
    /// there
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// The arguments, the server, or a file.
pub fn run(global: &Global, arguments: &WatchArguments) -> Result<(), Failure> {
    let plan = WatchPlan {
        addresses: addresses(global)?,
        watches: arguments.watches,
        connections: arguments.connections,
        watched: match arguments.watched {
            WatchedName::One => Watched::One,
            WatchedName::Own => Watched::Own,
            WatchedName::Other => Watched::Other,
        },
        writers: arguments.writers,
        rate: arguments.rate,
        duration: arguments.duration,
        value_size: arguments.value_size,
        behind: arguments.behind,
        behind_keys: arguments.behind_keys,
    };
    let line = Progress::line();
    let report = measure(&plan, &mut |progress| {
        line.say(match progress {
            WatchProgress::Opening(count) => format!("{count} watches have begun"),
            WatchProgress::Past(count) => format!("writing the past: {count} revisions"),
            WatchProgress::Measuring(count) => format!("{count} changes have come"),
            WatchProgress::CatchingUp(count) => format!("catching up: {count} changes"),
        });
    });
    line.end();
    let report = report.map_err(Failure::Watches)?;
    publish_figures(global, &report.to_string(), report.to_json(), arguments.json.as_deref())
}
