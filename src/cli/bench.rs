//! `bench`: the flags of the load generator, its progress on a terminal, and where figures go.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::{Distribution, Operation, Plan, Report, Warning};
use clap::{Args, Subcommand, ValueEnum};

use super::bench_lease::{self, LeaseArguments};
use super::bench_watch::{self, WatchArguments};
use super::failure::Failure;
use super::progress::Progress;
use super::session::{Format, Global};
use super::size;
use super::time_span;

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Write random keys
    Put(LoadArguments),
    /// Read random keys, one at a time; fills the key space first if keys are missing
    Get(LoadArguments),
    /// Read several keys at a time; fills the key space first if keys are missing
    Range(LoadArguments),
    /// Transactions of one compare and one put
    Txn(LoadArguments),
    /// Gets and puts; fills the key space first if keys are missing
    Mixed(LoadArguments),
    /// Watches: changes told in a second, how late they come, memory of an idle watch, catching up
    Watch(WatchArguments),
    /// Leases: what keeping many alive costs, and what their end does to writes beside it
    Lease(LeaseArguments),
    /// The disk alone: 4 KiB O_DIRECT overwrites, each with fdatasync, by one thread
    Disk(DiskArguments),
}

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DistributionName {
    /// Each key equally often.
    Uniform,
    /// Few keys very often (exponent 0.99).
    Zipf,
}

/// Flags of every load.
#[derive(Clone, Debug, Args)]
pub struct LoadArguments {
    /// Connections, spread over the endpoints in turn
    #[arg(long, short = 'c', default_value_t = 64)]
    pub connections: usize,
    /// Operations in flight on each connection
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Threads of the load generator; the server may need the cores more
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Seconds that are measured
    #[arg(long, default_value = "10", value_parser = time_span::parse)]
    pub duration: Duration,
    /// Seconds of load before, not measured
    #[arg(long, default_value = "1", value_parser = time_span::parse)]
    pub warm_up: Duration,
    /// Open loop: this many operations per second, latency counted from when each was due
    #[arg(long)]
    pub rate: Option<u64>,
    /// Number of keys
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of a key
    #[arg(long, default_value = "16", value_parser = parse_size)]
    pub key_size: usize,
    /// Bytes of a value
    #[arg(long, default_value = "256", value_parser = parse_size)]
    pub value_size: usize,
    /// How keys are drawn
    #[arg(long, default_value = "uniform")]
    pub distribution: DistributionName,
    /// Keys that one range reads
    #[arg(long, default_value_t = 100)]
    pub limit: i64,
    /// Gets among 100 operations of the mixed load
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub read_percent: u64,
    /// Reads take the member's own state, which may be older than the newest
    #[arg(long)]
    pub serializable: bool,
    /// What all random choices follow from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write every key once before the measurement
    #[arg(long)]
    pub preload: bool,
    #[command(flatten)]
    files: Files,
}

/// Flags of the disk's measurement.
#[derive(Clone, Debug, Args)]
pub struct DiskArguments {
    /// Folder on the disk, made where it is missing; a file of 64 MiB is written there and removed
    #[arg(long, default_value = "./quorate-data")]
    pub data_dir: PathBuf,
    /// Seconds that are measured
    #[arg(long, default_value = "10", value_parser = time_span::parse)]
    pub duration: Duration,
    #[command(flatten)]
    files: Files,
}

/// Where figures go, beside standard output.
#[derive(Clone, Debug, Args)]
struct Files {
    /// Write the figures to this file as one JSON object; - is standard output, with nothing
    /// else there
    #[arg(long)]
    json: Option<PathBuf>,
    /// Plot latency by percentile to this file, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
}

pub fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes).map_err(|error| error.to_string())
}

/// Measures.
///
/// # Errors
/// The arguments, the server, the disk, or a file.
pub fn run(global: &Global, command: &BenchCommand) -> Result<(), Failure> {
    let (operation, arguments) = match command {
        BenchCommand::Put(arguments) => (Operation::Put, arguments),
        BenchCommand::Get(arguments) => (Operation::Get, arguments),
        BenchCommand::Range(arguments) => (Operation::Range, arguments),
        BenchCommand::Txn(arguments) => (Operation::Txn, arguments),
        BenchCommand::Mixed(arguments) => (Operation::Mixed, arguments),
        BenchCommand::Watch(arguments) => return bench_watch::run(global, arguments),
        BenchCommand::Lease(arguments) => return bench_lease::run(global, arguments),
        BenchCommand::Disk(arguments) => return run_disk(global, arguments),
    };
    let plan = plan(addresses(global)?, operation, arguments);
    let screen = Screen::new();
    let report = bench::run(&plan, &mut |progress| screen.show(progress));
    screen.line.end();
    publish(global, &report.map_err(Failure::Bench)?, &arguments.files)
}

fn run_disk(global: &Global, arguments: &DiskArguments) -> Result<(), Failure> {
    if arguments.duration.is_zero() {
        return Err(Failure::Arguments("the duration must be more than 0".into()));
    }
    let line = Progress::line();
    let report = bench::disk::run(&arguments.data_dir, arguments.duration, &mut |operations| {
        line.say(format!("{operations} writes"));
    });
    line.end();
    publish(global, &report.map_err(Failure::Disk)?, &arguments.files)
}

fn plan(addresses: Vec<SocketAddr>, operation: Operation, arguments: &LoadArguments) -> Plan {
    Plan {
        addresses,
        operation,
        connections: arguments.connections,
        depth: arguments.depth,
        threads: arguments.threads,
        duration: arguments.duration,
        warm_up: arguments.warm_up,
        rate: arguments.rate,
        keys: arguments.keys,
        key_size: arguments.key_size,
        value_size: arguments.value_size,
        distribution: match arguments.distribution {
            DistributionName::Uniform => Distribution::Uniform,
            DistributionName::Zipf => Distribution::Zipf,
        },
        limit: arguments.limit,
        read_percent: arguments.read_percent,
        serializable: arguments.serializable,
        seed: arguments.seed,
        fill: arguments.preload,
    }
}

/// The first address of each endpoint.
pub fn addresses(global: &Global) -> Result<Vec<SocketAddr>, Failure> {
    let address = |endpoint: &String| {
        let refuse = |reason: &str| {
            Failure::Arguments(format!("the endpoint \"{endpoint}\" is not an address: {reason}"))
        };
        let found = endpoint.to_socket_addrs().map_err(|error| refuse(&error.to_string()));
        found?.next().ok_or_else(|| refuse("the name has none"))
    };
    global.endpoint.iter().map(address).collect()
}

/// Progress on standard error: a live line on a terminal, and remarks that go to logs, too.
struct Screen {
    line: Progress,
}

impl Screen {
    fn new() -> Self {
        Self { line: Progress::line() }
    }

    fn show(&self, progress: bench::Progress) {
        match progress {
            bench::Progress::FillBegins { found, keys } => {
                self.line.tell(&format!("{found} of {keys} keys exist; writing all of them first"));
            }
            bench::Progress::Filling { done, keys } => {
                self.line.say(format!("filling: {done} of {keys} keys"));
            }
            bench::Progress::WarmingUp => self.line.say("warming up".into()),
            bench::Progress::Measuring { elapsed, duration, per_second, mean_us, errors } => {
                self.line.say(format!(
                    "{:.0}/{:.0} s  {per_second:.0} operations/s  mean {mean_us:.0} us  \
                     {errors} errors",
                    elapsed.as_secs_f64(),
                    duration.as_secs_f64()
                ));
            }
            bench::Progress::Warning(warning) => self.line.tell(&match warning {
                Warning::Refused(status) => format!("Warning: operations were refused: {status}"),
                Warning::Lost => "Warning: connections were lost and opened again".into(),
                Warning::Missing(count) => format!(
                    "Warning: {count} of the reads that were looked into (one of 64) found no key"
                ),
            }),
        }
    }
}

/// Prints the figures and writes the files that were asked for.
fn publish(global: &Global, report: &Report, files: &Files) -> Result<(), Failure> {
    publish_figures(global, &format!("{report}\n"), report.to_json(), files.json.as_deref())?;
    match &files.plot {
        Some(path) => bench::plot::write(report, path).map_err(Failure::Plot),
        None => Ok(()),
    }
}

/// Prints figures, as text or as JSON, and writes the JSON to a file where one is asked for.
///
/// # Errors
/// The file.
pub fn publish_figures(
    global: &Global,
    text: &str,
    json: String,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let file = match file {
        Some(path) if path.as_os_str() == "-" => {
            println!("{json}");
            return Ok(());
        }
        file => file,
    };
    match global.write_out {
        Format::Simple => print!("{text}"),
        Format::Json => println!("{json}"),
    }
    let Some(path) = file else { return Ok(()) };
    std::fs::write(path, json + "\n")
        .map_err(|error| Failure::Io(path.display().to_string(), error))
}
