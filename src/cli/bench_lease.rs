//! `bench lease`: the flags, progress, and where figures go.

use std::path::PathBuf;
use std::time::Duration;

use bench::lease::{LeasePlan, run as measure};
use clap::Args;

use super::bench::{addresses, publish_figures};
use super::failure::Failure;
use super::progress::Progress;
use super::session::Global;
use super::time_span;

/// Flags of leases under load.
#[derive(Clone, Debug, Args)]
pub struct LeaseArguments {
    /// Leases
    #[arg(long, default_value_t = 100_000)]
    pub leases: usize,
    /// How long each lives; it is renewed once in a third of that
    #[arg(long, default_value = "9", value_parser = time_span::parse)]
    pub ttl: Duration,
    /// Leases without a key
    #[arg(long)]
    pub no_keys: bool,
    /// Puts in flight beside
    #[arg(long, default_value_t = 64)]
    pub writers: usize,
    /// Seconds that are measured, once without and once with puts
    #[arg(long, default_value = "10", value_parser = time_span::parse)]
    pub duration: Duration,
    /// Write the figures to this file as one JSON object; - is standard output, with nothing else
    /// there
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// The arguments, the server, or a file.
pub fn run(global: &Global, arguments: &LeaseArguments) -> Result<(), Failure> {
    let plan = LeasePlan {
        addresses: addresses(global)?,
        leases: arguments.leases,
        ttl: arguments.ttl,
        keys: !arguments.no_keys,
        writers: arguments.writers,
        duration: arguments.duration,
    };
    let line = Progress::line();
    let report = measure(&plan, &mut |phase| line.say(phase.to_owned()));
    line.end();
    let report = report.map_err(Failure::Watches)?;
    publish_figures(global, &report.to_string(), report.to_json(), arguments.json.as_deref())
}
