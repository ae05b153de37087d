//! `compact`: gives up history below a revision.

use clap::Args;
use client::Compact;

use super::failure::Failure;
use super::output::Output;
use super::session::Global;

/// Flags of `compact`.
#[derive(Clone, Debug, Args)]
pub struct CompactArguments {
    /// Reads below this revision are refused from then on
    #[arg(allow_negative_numbers = true)]
    pub revision: i64,
    /// Wait until the history is gone from the page file and its space can be used again; what goes
    /// back to the file system follows with the next checkpoints, some seconds later
    #[arg(long)]
    pub physical: bool,
}

/// Compacts.
///
/// # Errors
/// The server, or standard output.
pub fn run(global: &Global, arguments: &CompactArguments) -> Result<(), Failure> {
    let mut client = global.connect()?;
    let request = Compact { revision: arguments.revision, physical: arguments.physical };
    let newest = client.compact(&request)?;
    Output::new(global.write_out, &client).compact(arguments.revision, newest)
}
