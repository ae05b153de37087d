//! `inspect`: looks into a data directory whose server is stopped.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;

/// What is looked at.
#[derive(Clone, Debug, Subcommand)]
pub enum InspectCommand {
    /// Print the records of the write-ahead log
    Wal(InspectArguments),
    /// Print the shape of the trees in the page file
    Pages(InspectArguments),
    /// Print both meta slots
    Meta(InspectArguments),
    /// Verify every checksum and invariant; exit code 1 at the first fault, which is named
    Check(InspectArguments),
}

/// Where.
#[derive(Clone, Debug, Args)]
pub struct InspectArguments {
    /// Data directory of a stopped server, or a copy of one
    pub data_dir: PathBuf,
}

/// Looks into the data directory.
///
/// # Errors
/// Always: there is nothing to look with yet.
pub fn run(command: &InspectCommand) -> Result<(), Failure> {
    let (InspectCommand::Wal(arguments)
    | InspectCommand::Pages(arguments)
    | InspectCommand::Meta(arguments)
    | InspectCommand::Check(arguments)) = command;
    let path = arguments.data_dir.display();
    Err(Failure::Stopped(format!("{path} cannot be inspected: this build has no inspector")))
}
