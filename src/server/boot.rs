//! Drives [`node::Boot`] before any executor runs, with the reads of `read_ahead`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use node::{Boot, BootRead, BootStep, Booted, DataFile};
use wal::{Files, SlotFile, WalFile};

use crate::Error;
use crate::config::Config;
use crate::data_dir::{DataDir, adopt, incoming_path};
use crate::disk::{slot_numbers, slot_path};
use crate::read_ahead::{ReadAhead, Readers};

/// A boot that takes longer says that it is at work.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that are read before boot asks for them, at most: many times what a disk moves while it turns
/// to the next read. Never more than this share of the page cache.
const EARLY_SIZE_MAX: usize = 8 << 20;
const EARLY_SHARE: u64 = 8;

/// Options of the page file of this member.
pub fn page_options(data_dir: &DataDir, config: &Config) -> tree::Options {
    tree::Options {
        file: data_dir.identity.page_file,
        cluster: data_dir.identity.cluster,
        member: data_dir.identity.member,
        cache_size: config.pages_size(),
        growth_size: growth_size(config),
    }
}

/// Bytes by which the page file grows: enough that the store asks seldom, little enough for small
/// disks.
pub fn growth_size(config: &Config) -> u64 {
    config.wal_segment_size.clamp(16 << 20, 128 << 20)
}

/// Path of a file of the data directory.
pub fn file_path(data_dir: &Path, file: DataFile) -> PathBuf {
    match file {
        DataFile::Pages => data_dir.join("pages"),
        DataFile::Wal(WalFile::Ring) => data_dir.join("wal/ring"),
        DataFile::Wal(WalFile::Watermark) => data_dir.join("wal/watermark"),
        DataFile::Wal(WalFile::Slot(slot)) => slot_path(&data_dir.join("wal"), slot),
    }
}

/// Recovers the state of the data directory. Where a state of another member had been built and the log
/// begins behind it, a crash came between the two and the renaming: that is done now.
pub fn boot(data_dir: &DataDir, config: &Config, buffered: bool) -> Result<Booted, Error> {
    let incoming = incoming_path(&data_dir.pages());
    let wrap = |source| Error::DataDir {
        path: data_dir.path().to_path_buf(),
        what: "has a page file from another member that cannot be put in place",
        source,
    };
    match try_boot(data_dir, &data_dir.pages(), config, buffered) {
        Err(Failure::Gap(_)) if incoming.exists() => {
            let booted = try_boot(data_dir, &incoming, config, buffered).map_err(Error::from)?;
            adopt(&data_dir.pages()).map_err(wrap)?;
            Ok(booted)
        }
        Ok(booted) => {
            if incoming.exists() {
                fs::remove_file(&incoming).map_err(wrap)?;
            }
            Ok(booted)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Why a boot failed.
enum Failure {
    /// The log begins behind the page file.
    Gap(String),
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Gap(text) => Self::Recovery(text),
            Failure::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn try_boot(
    data_dir: &DataDir,
    pages: &Path,
    config: &Config,
    buffered: bool,
) -> Result<Booted, Failure> {
    let path = data_dir.path();
    let wrap = |what: &'static str| {
        let path = path.to_path_buf();
        move |source: io::Error| Error::DataDir { path, what, source }
    };
    let size = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let numbers = slot_numbers(&data_dir.wal()).map_err(wrap("has no wal directory to read"))?;
    let files = Files {
        slots: numbers
            .iter()
            .map(|&slot| SlotFile { slot, size: size(slot_path(&data_dir.wal(), slot)) })
            .collect(),
        ring_size: size(data_dir.wal().join("ring")),
        watermark_size: size(data_dir.wal().join("watermark")),
    };
    let begin = Instant::now();
    let mut told = false;
    let founders = data_dir.identity.members.clone();
    let mut boot =
        Boot::new(page_options(data_dir, config), size(pages.to_path_buf()), files, founders);
    boot.hand_over_large_entries();
    let early_size = usize::try_from(config.pages_size() / EARLY_SHARE).unwrap_or(usize::MAX);
    let readers = Readers::default();
    thread::scope(|scope| -> Result<(), Failure> {
        let mut reads =
            ReadAhead::new(&readers, (path, pages), buffered, early_size.min(EARLY_SIZE_MAX));
        let started = readers.start(scope);
        started.map_err(|error| Error::Executor(format!("no thread can be started: {error}")))?;
        loop {
            let step = boot.next().map_err(|error| match error {
                error if error.begins_behind() => Failure::Gap(error.to_string()),
                error => Failure::Other(Error::Recovery(error.to_string())),
            })?;
            let BootStep::Read { file, offset, size } = step else { return Ok(()) };
            reads.open(file).map_err(wrap("has a file that cannot be opened"))?;
            match reads.read(BootRead { file, offset, size }, |n| boot.ahead(n)) {
                Ok(bytes) => {
                    let fed = boot.feed(bytes.as_slice());
                    fed.map_err(|error| Error::Recovery(error.to_string()))?;
                    reads.reuse(bytes);
                }
                Err(_) if boot.survives_failure() => boot.feed_unreadable(),
                Err(error) => {
                    return Err(Failure::Other(Error::Recovery(format!(
                        "{} cannot be read at byte {offset}: {error}",
                        file_path(path, file).display()
                    ))));
                }
            }
            if !told && begin.elapsed() > PATIENCE {
                told = true;
                crate::log::info(format!("recovering {} ...", path.display()));
            }
        }
    })?;
    let booted = boot.finish();
    // What was read may never have been synced by the process that wrote it.
    for &file in &booted.recovered.sync {
        let path = file_path(path, DataFile::Wal(file));
        let synced = fs::File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(wrap("has a WAL file that cannot be synced"))?;
    }
    if let Some(tail) = &booted.recovered.tail {
        crate::log::info(format!(
            "the WAL ends with a group that was never acknowledged (LSN {}, {} at byte {}); \
             it was dropped, as after any crash",
            tail.lsn, tail.file, tail.offset
        ));
    }
    if told {
        crate::log::info(format!(
            "recovered in {:.1} s, {} log entries replayed",
            begin.elapsed().as_secs_f64(),
            booted.replayed
        ));
    }
    Ok(booted)
}
