//! `inspect pages`: what the page file holds, by the checkpoint that a start would take.

use base::limits::PAGE_SIZE;
use node::DataFile;
use serde_json::Value;
use tree::Counts;

use crate::checkpoint::{self, Slot};
use crate::directory::Directory;
use crate::report::{Field, Report};
use crate::wal_listing::size64;
use crate::{Error, Fault};

/// What the state keeps in its trees: see the drawing in `kv`.
const TREE_NAMES: [&str; 2] = ["current", "events"];

/// Verifies the page file and prints its shape.
pub(crate) fn print(directory: &mut Directory, report: &mut Report<'_>) -> Result<(), Error> {
    if let Err(fault) = directory.read_identity() {
        report.note(&fault.to_string())?;
    }
    let Some((size, stored)) = directory.size(DataFile::Pages) else {
        return report.note("there is no page file: everything is in the log");
    };
    report.line("file", &[("size", size.into()), ("stored", stored.into())])?;
    match checkpoint::verify(directory, None)? {
        Slot::Whole(counts) => print_counts(&counts, report),
        Slot::Blank | Slot::Partial => {
            report.note("there is no checkpoint yet: everything is in the log")
        }
        Slot::Broken => {
            let error = tree::OpenError::NoMeta { blank: false };
            Err(Fault::Pages { slot: None, error }.into())
        }
    }
}

fn print_counts(counts: &Counts, report: &mut Report<'_>) -> Result<(), Error> {
    for (tree, cells) in counts.cells.iter().enumerate() {
        let name = TREE_NAMES.get(tree).copied();
        if name.is_some() || *cells > 0 {
            let name = name.map_or(Value::Null, Value::from);
            report
                .line("tree", &[("tree", tree.into()), ("of", name), ("cells", (*cells).into())])?;
        }
    }
    report.line("checkpoint", &fields(counts))
}

/// What was counted, as fields.
pub(crate) fn fields(counts: &Counts) -> Vec<Field> {
    let leaves_size = counts.leaves * size64(PAGE_SIZE);
    let fill = (counts.leaf_used_size * 100).checked_div(leaves_size);
    let used = counts.leaves + counts.branches + counts.run_pages + counts.list_pages;
    vec![
        ("root", counts.root.get().into()),
        ("cells", counts.cells.iter().sum::<u64>().into()),
        ("leaves", counts.leaves.into()),
        ("leaf_fill_percent", fill.map_or(Value::Null, Value::from)),
        ("branches", counts.branches.into()),
        ("runs", counts.runs.into()),
        ("run_pages", counts.run_pages.into()),
        ("list_pages", counts.list_pages.into()),
        ("used_pages", used.into()),
        ("free_pages", counts.free_pages.into()),
        ("waiting_pages", counts.waiting_pages.into()),
    ]
}
