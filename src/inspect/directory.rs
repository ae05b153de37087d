//! A data directory as an inspection sees it: its lock, its identity, and reads of its files.
//!
//! Reads go through the page cache. A server reads and writes around it, so nothing of its files is
//! there but what an earlier inspection or copy brought in.
//!
//! For looking at one checkpoint alone, one of the two meta slots can be hidden: it reads as zeros.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::NodeId;
use node::DataFile;
use server::Identity;
use tree::META_SIZE;
use wal::{Files, SlotFile, WalFile};

use crate::{Error, Fault};

/// Offsets of the meta slots in the page file, in bytes: see the drawing in `tree`.
pub(crate) const META_SLOTS: [u64; 2] = [0, 64 << 10];

/// Bytes of pages that a dry run keeps in memory.
const CACHE_SIZE: u64 = 128 << 20;

/// A data directory.
pub(crate) struct Directory {
    path: PathBuf,
    /// Held shared until the end, unless somebody else has it.
    lock: Lock,
    identity: Option<Identity>,
    /// What is wrong with the identity, until somebody asks.
    identity_fault: Option<Fault>,
    files: Files,
    pages: Option<File>,
    pages_size: u64,
    wal: BTreeMap<WalFile, File>,
    hidden: Option<usize>,
    buffer: Vec<u8>,
}

enum Lock {
    Held { _file: File },
    /// There is no lock file: it is a copy.
    Absent,
    InUse,
}

impl Directory {
    /// Opens `path`; with `force` also while another process holds it.
    pub fn open(path: &Path, force: bool) -> Result<Self, Error> {
        let wrap = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Io { path, source }
        };
        if !fs::metadata(path).map_err(wrap(path))?.is_dir() {
            return Err(Error::NotDataDir { path: path.to_path_buf() });
        }
        let lock = lock(&path.join("lock"))?;
        if matches!(lock, Lock::InUse) && !force {
            return Err(Error::InUse { path: path.to_path_buf() });
        }
        let (identity, identity_fault) = identity(path)?;
        let wal_path = path.join("wal");
        let slots = match server::slot_numbers(&wal_path) {
            Ok(slots) => slots,
            // What is missing then is found where it is missed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Io { path: wal_path, source }),
        };
        let mut directory = Self {
            path: path.to_path_buf(),
            lock,
            identity,
            identity_fault,
            files: Files { slots: Vec::new(), ring_size: 0, watermark_size: 0 },
            pages: None,
            pages_size: 0,
            wal: BTreeMap::new(),
            hidden: None,
            buffer: Vec::new(),
        };
        let pages = directory.open_file(&path.join("pages"))?;
        (directory.pages, directory.pages_size) = pages.unzip_or_none();
        for slot in slots {
            let size = directory.open_wal(WalFile::Slot(slot))?;
            directory.files.slots.push(SlotFile { slot, size });
        }
        directory.files.ring_size = directory.open_wal(WalFile::Ring)?;
        directory.files.watermark_size = directory.open_wal(WalFile::Watermark)?;
        Ok(directory)
    }
}
