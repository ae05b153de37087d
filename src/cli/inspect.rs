//! `inspect`: looks into a data directory, for most questions of a server that is stopped.

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::session::{Format, Global};

/// What is looked at.
#[derive(Clone, Debug, Subcommand)]
pub enum InspectCommand {
    /// Print the records of the write-ahead log
    Wal(InspectArguments),
    /// Print the shape of the trees in the page file
    Pages(InspectArguments),
    /// Print both meta slots
    Meta(InspectArguments),
    /// Print the entries of the log as etcd's log would hold them, for programs that check that; also of a
    /// server that runs
    Log(LogArguments),
    /// Verify every checksum and invariant; exit code 1 at the first fault, which is named
    Check(InspectArguments),
}

/// Where, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct InspectArguments {
    /// Data directory of a stopped server, or a copy of one
    pub data_dir: PathBuf,
    /// Go on although a server uses the directory: what it writes meanwhile may look damaged
    #[arg(long)]
    pub force: bool,
    /// wal: first log index to print; 0: from the oldest on
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// wal: print at most this many records
    #[arg(long)]
    pub limit: Option<u64>,
}

/// Which log, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct LogArguments {
    /// Data directory of a server, or a copy of one
    pub data_dir: PathBuf,
    /// A line with the commit index, then one for each kept entry: index, term and type, and etcd's
    /// InternalRaftRequest in base64, which is empty for what etcd's log does not have
    #[arg(long, required = true)]
    pub as_etcd: bool,
    /// First log index to print; 0: from the oldest on
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Print at most this many entries
    #[arg(long)]
    pub limit: Option<u64>,
}

impl LogArguments {
    fn for_all(&self) -> InspectArguments {
        let (data_dir, from, limit) = (self.data_dir.clone(), self.from, self.limit);
        InspectArguments { data_dir, force: false, from, limit }
    }
}

/// Looks into the data directory.
///
/// # Errors
/// A fault of what is stored, why nothing could be looked at, or standard output.
pub fn run(global: &Global, command: &InspectCommand) -> Result<(), Failure> {
    let of_log;
    let (kind, arguments) = match command {
        InspectCommand::Log(arguments) => {
            of_log = arguments.for_all();
            (inspect::Kind::EtcdLog, &of_log)
        }
        InspectCommand::Wal(arguments) => (inspect::Kind::Wal, arguments),
        InspectCommand::Pages(arguments) => (inspect::Kind::Pages, arguments),
        InspectCommand::Meta(arguments) => (inspect::Kind::Meta, arguments),
        InspectCommand::Check(arguments) => (inspect::Kind::Check, arguments),
    };
    let options = inspect::Options {
        json: global.write_out == Format::Json,
        force: arguments.force,
        from: arguments.from,
        limit: arguments.limit,
    };
    let mut out = BufWriter::new(stdout().lock());
    let result = inspect::run(kind, &arguments.data_dir, &options, &mut out);
    // What was found before an error is worth as much as the error.
    let flushed = out.flush().map_err(Failure::output);
    result.map_err(|error| match error {
        inspect::Error::Output(error) => Failure::output(error),
        inspect::Error::Io { path, source } => Failure::Io(path.display().to_string(), source),
        error => Failure::Stopped(error.to_string()),
    })?;
    flushed
}
