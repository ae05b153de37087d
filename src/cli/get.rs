//! `get`: reads a key or a range and prints it as it comes.

use clap::{Args, ValueEnum};
use client::{Range, SortOrder, SortTarget};

use super::failure::Failure;
use super::output::{KeyPrinter, Output};
use super::range::{KeyRange, RangeArguments};
use super::session::Global;

/// Sort directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Smallest first.
    Ascend,
    /// Greatest first.
    Descend,
}

/// What results are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// Revision of the creation.
    Create,
    /// The key.
    Key,
    /// Revision of the last change.
    Modify,
    /// The value.
    Value,
    /// Number of changes.
    Version,
}

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// Linearizable: the newest state.
    #[value(name = "l")]
    Linearizable,
    /// Serializable: the contacted member's own state, which may be older.
    #[value(name = "s")]
    Serializable,
}

/// Flags of `get`.
#[derive(Clone, Debug, Args)]
pub struct GetArguments {
    /// Which keys
    #[command(flatten)]
    pub range: RangeArguments,
    /// l: linearizable, the newest state; s: serializable, the member's own, which may be older
    #[arg(long, default_value = "l")]
    pub consistency: Consistency,
    /// Direction of sorting
    #[arg(long, ignore_case = true)]
    pub order: Option<Order>,
    /// What to sort by
    #[arg(long, ignore_case = true)]
    pub sort_by: Option<SortBy>,
    /// At most this many keys; 0: all
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub limit: i64,
    /// The state at this revision; 0: the newest
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub rev: i64,
    /// Keys without values
    #[arg(long)]
    pub keys_only: bool,
    /// Only how many keys there are
    #[arg(long)]
    pub count_only: bool,
    /// Values without keys
    #[arg(long)]
    pub print_value_only: bool,
    /// Only keys changed at this revision or later
    #[arg(long, default_value_t = 0)]
    pub min_mod_rev: i64,
    /// Only keys changed at this revision or earlier
    #[arg(long, default_value_t = 0)]
    pub max_mod_rev: i64,
    /// Only keys created at this revision or later
    #[arg(long, default_value_t = 0)]
    pub min_create_rev: i64,
    /// Only keys created at this revision or earlier
    #[arg(long, default_value_t = 0)]
    pub max_create_rev: i64,
}

impl GetArguments {
    /// The request for `range`, which these arguments gave.
    pub fn request<'a>(&self, range: &'a KeyRange) -> Range<'a> {
        Range {
            key: &range.key,
            range_end: &range.range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: match self.order {
                None => SortOrder::None,
                Some(Order::Ascend) => SortOrder::Ascend,
                Some(Order::Descend) => SortOrder::Descend,
            },
            sort_target: match self.sort_by {
                None | Some(SortBy::Key) => SortTarget::Key,
                Some(SortBy::Create) => SortTarget::CreateRevision,
                Some(SortBy::Modify) => SortTarget::ModRevision,
                Some(SortBy::Value) => SortTarget::Value,
                Some(SortBy::Version) => SortTarget::Version,
            },
            serializable: self.consistency == Consistency::Serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev,
            max_mod_revision: self.max_mod_rev,
            min_create_revision: self.min_create_rev,
            max_create_revision: self.max_create_rev,
        }
    }
}

/// Reads and prints.
///
/// # Errors
/// The arguments, the server, or standard output.
pub fn run(global: &Global, arguments: &GetArguments) -> Result<(), Failure> {
    if arguments.keys_only && arguments.print_value_only {
        return Err(Failure::Arguments(
            "--keys-only and --print-value-only leave nothing to print".into(),
        ));
    }
    let range = arguments.range.range()?;
    let mut client = global.connect()?;
    let mut output = Output::new(global.write_out, &client);
    let mut printer = KeyPrinter::new(&mut output, arguments.print_value_only);
    let mut failed = None;
    let summary = client.range_each(&arguments.request(&range), |member| {
        if failed.is_none() {
            failed = printer.key(&member).err();
        }
    });
    // Output that failed explains more than what the connection made of it.
    if let Some(error) = failed {
        return Err(error);
    }
    printer.end(&summary?, arguments.count_only)
}
