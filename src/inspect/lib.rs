//! `quorate inspect`: looks into the data directory of a stopped server, or into a copy of one.
//!
//! It only reads. While it looks it shares the directory's lock with other readers, so that no server
//! starts underneath it; where a server runs already it refuses, unless forced.
//!
//! ```text
//! wal     segments, groups, records, the torn tail     pages   the shape of the trees, free space
//! meta    identity, both meta slots, ends of the log   check   everything that can be verified
//! ```
//!
//! What is printed is one line per thing: `name field=value field=value: text`, or one JSON object with
//! the same fields.
//!
//! A *fault* is what no crash can leave behind. What a crash can leave (a group that was being written,
//! a meta slot that was being written) is a *note*: it is printed and ends nothing.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod checkpoint;
mod directory;
mod error;
mod etcd_log;
mod log;
mod meta;
mod pages;
mod report;
mod start;
mod summary;
mod wal_listing;

use std::io::Write;
use std::path::Path;

pub use error::{Error, Fault, PairFault, RecordFault};

use directory::Directory;
use etcd_log::EtcdLog;
use report::Report;

/// How often the log of a server that runs is looked at before it is called damaged.
const SCANS_MAX: u32 = 5;

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The groups and records of the write-ahead log.
    Wal,
    /// The entries of the log as etcd's log would hold them.
    EtcdLog,
    /// The trees and the space of the page file.
    Pages,
    /// Identity, meta slots, hard state, watermark, sizes.
    Meta,
    /// Every checksum and every invariant; ends with the first fault.
    Check,
}

/// How it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Print one JSON object per line instead of text.
    pub json: bool,
    /// Go on although another process holds the directory: what it writes meanwhile may look damaged.
    pub force: bool,
    /// For [`Kind::Wal`] and [`Kind::EtcdLog`]: the first log index to print; 0 begins with the oldest group.
    pub from: u64,
    /// For [`Kind::Wal`] and [`Kind::EtcdLog`]: the greatest number of records to print.
    pub limit: Option<u64>,
}

/// Looks at `data_dir` and prints what is there to `out`.
///
/// # Errors
/// A fault of what is stored ([`Error::is_fault`]), or why nothing could be looked at. What was found
/// before it has been printed.
pub fn run(
    kind: Kind,
    data_dir: &Path,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), Error> {
    if kind == Kind::EtcdLog {
        return print_etcd_log(data_dir, options, out);
    }
    let mut directory = Directory::open(data_dir, options.force)?;
    let mut report = Report::new(out, options.json);
    if directory.is_in_use() {
        report.note(
            "another process uses the directory: what it writes meanwhile may look damaged here",
        )?;
    }
    match kind {
        Kind::Wal => wal_listing::print(&mut directory, options, &mut report),
        Kind::Pages => pages::print(&mut directory, &mut report),
        Kind::Meta => meta::print(&mut directory, &mut report),
        Kind::Check => check::run(&mut directory, &mut report),
        Kind::EtcdLog => unreachable!("it has been printed"),
    }
}

/// Also of a server that runs: what it appends meanwhile is beyond the end, and where it reuses a segment
/// between two looks the log is looked at again.
fn print_etcd_log(data_dir: &Path, options: &Options, out: &mut dyn Write) -> Result<(), Error> {
    let mut tries = SCANS_MAX;
    loop {
        let mut directory = Directory::open(data_dir, true)?;
        match EtcdLog::scan(&mut directory) {
            Ok(log) => return log.print(&mut directory, options, out),
            Err(Error::Fault(_)) if directory.is_in_use() && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}
