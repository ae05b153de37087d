//! `del`: deletes a key or a range.

use clap::Args;
use client::DeleteRange;

use super::failure::Failure;
use super::output::Output;
use super::range::{KeyRange, RangeArguments};
use super::session::Global;

/// Flags of `del`.
#[derive(Clone, Debug, Args)]
pub struct DelArguments {
    /// Which keys
    #[command(flatten)]
    pub range: RangeArguments,
    /// Print the keys as they were
    #[arg(long)]
    pub prev_kv: bool,
}

impl DelArguments {
    /// The request for `range`, which these arguments gave.
    pub fn request<'a>(&self, range: &'a KeyRange) -> DeleteRange<'a> {
        DeleteRange { key: &range.key, range_end: &range.range_end, prev_kv: self.prev_kv }
    }
}

/// Deletes the keys.
///
/// # Errors
/// The arguments, the server, or standard output.
pub fn run(global: &Global, arguments: &DelArguments) -> Result<(), Failure> {
    let range = arguments.range.range()?;
    let mut client = global.connect()?;
    let result = client.delete(&arguments.request(&range))?;
    Output::new(global.write_out, &client).delete(&result)
}
