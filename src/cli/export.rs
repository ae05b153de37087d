//! `export`: writes each key of a prefix as a file, all of them as they were at one revision.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use client::{Client, KeyValue, Range, prefix_end};

use super::failure::Failure;
use super::names::Names;
use super::progress::Progress;
use super::session::Global;
use super::size;
use super::tree_path;
use super::write_file::Target;

/// What `export --help` begins with.
pub const LONG_ABOUT: &str = "\
Write each key that begins with the prefix as a file below DIR, whose path is the rest of the key.
All files show one revision, the newest at the start or the one of --rev. Files that are there
already are written over; others are left alone.

A key whose file would not lie below DIR (absolute paths, \"..\", symbolic links in the way), that no
file can be named after, or that is both a file and a folder of other keys is named, counted, and
makes the exit code 1 at the end, after everything else has been written.";

/// Keys of one page: each page is one request, with a time-out of its own.
const PAGE_KEYS: i64 = 1_000;

/// Flags of `export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArguments {
    /// Folder to write into, made where it is missing
    pub dir: PathBuf,
    /// Which keys; the files are named after what follows it
    #[arg(long, default_value = "")]
    pub prefix: OsString,
    /// The state at this revision; 0: the newest
    #[arg(long, default_value_t = 0)]
    pub rev: i64,
}

/// What an export has come to.
struct Export {
    target: Target,
    prefix_size: usize,
    progress: Progress,
    refused: Names,
    done: u64,
    done_size: u64,
}

/// Writes the files.
///
/// # Errors
/// The folder, the server, or keys that could not be written.
pub fn run(global: &Global, arguments: &ExportArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let mut client = global.connect()?;
    let prefix = arguments.prefix.as_bytes();
    let first = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
    let end = prefix_end(prefix);
    let whole = Range { key: &first, range_end: &end, revision: arguments.rev, ..Range::default() };
    // The first answer says which revision is read, and how many keys there must be.
    let counted = client.range(&Range { count_only: true, ..whole })?;
    let revision = if arguments.rev > 0 { arguments.rev } else { counted.revision };
    // A store that was never written to is at revision 1 and has nothing to read there.
    let expected = u64::try_from(counted.count).unwrap_or(0);
    let target = Target::new(&arguments.dir)
        .map_err(|error| Failure::Io(arguments.dir.display().to_string(), error))?;
    let mut export = Export {
        target,
        prefix_size: prefix.len(),
        progress: Progress::steps(expected, "keys"),
        refused: Names::new("not written"),
        done: 0,
        done_size: 0,
    };
    let result = export.all(&mut client, &Range { revision, ..whole });
    export.progress.end();
    println!(
        "exported {} files, {} ({} bytes) at revision {revision} in {:.2} s{}",
        export.done,
        size::display(export.done_size),
        export.done_size,
        began.elapsed().as_secs_f64(),
        export.refused.summary()
    );
    result?;
    let seen = export.done + export.refused.count();
    if seen != expected {
        return Err(Failure::Incomplete(format!(
            "{seen} keys came, {expected} were counted at revision {revision}"
        )));
    }
    match export.refused.count() {
        0 => Ok(()),
        count => Err(Failure::Incomplete(format!("{count} keys were not written"))),
    }
}

impl Export {
    fn all(&mut self, client: &mut Client, whole: &Range<'_>) -> Result<(), Failure> {
        let mut first = whole.key.to_vec();
        loop {
            let mut failed = None;
            let mut last = None;
            let page = Range { key: &first, limit: PAGE_KEYS, ..*whole };
            let summary = client.range_each(&page, |member| {
                if failed.is_none() {
                    failed = self.write(&member).err();
                    last = Some(member.key.to_vec());
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if !summary?.more {
                return Ok(());
            }
            let Some(mut key) = last else {
                let text = "the server says that there are more keys but gave none";
                return Err(Failure::Incomplete(text.into()));
            };
            // The first key behind the last one.
            key.push(0);
            first = key;
        }
    }

    fn write(&mut self, member: &KeyValue<'_>) -> Result<(), Failure> {
        let rest = member.key.get(self.prefix_size..).unwrap_or_default();
        let progress = &self.progress;
        let tell = |line: &str| progress.tell(line);
        let name = || tree_path::display(member.key);
        match tree_path::path_of(rest) {
            Err(refusal) => self.refused.add(&tell, &name(), &refusal),
            Ok(path) => match self.target.write(&path, member.value) {
                Ok(()) => {
                    self.done += 1;
                    self.done_size += u64::try_from(member.value.len()).unwrap_or(0);
                    self.progress.set(self.done);
                }
                // Every further file would meet a full disk, too.
                Err(super::write_file::WriteRefusal::Io(error))
                    if error.kind() == std::io::ErrorKind::StorageFull =>
                {
                    return Err(Failure::Io(name(), error));
                }
                Err(refusal) => self.refused.add(&tell, &name(), &refusal),
            },
        }
        Ok(())
    }
}
