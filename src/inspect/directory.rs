//! A data directory as an inspection sees it: its lock, its identity, and reads of its files.
//!
//! Reads go through the page cache. A server reads and writes around it, so nothing of its files is
//! there but what an earlier inspection or a copy brought in.
//!
//! For looking at one checkpoint alone, the other meta slot can be hidden: it reads as zeros then.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use base::NodeId;
use node::DataFile;
use server::Identity;
use tree::META_SIZE;
use wal::{Files, Owner, SlotFile, WalFile};

use crate::{Error, Fault};

/// Offsets of the meta slots in the page file, in bytes: see the drawing in `tree`.
pub(crate) const META_SLOTS: [u64; 2] = [0, 64 << 10];

/// Bytes of pages that a dry run keeps in memory.
const CACHE_SIZE: u64 = 128 << 20;

/// A data directory.
pub(crate) struct Directory {
    path: PathBuf,
    lock: Lock,
    identity: Option<Identity>,
    files: Files,
    pages: Option<OpenFile>,
    wal: BTreeMap<WalFile, OpenFile>,
    hidden: Option<usize>,
    buffer: Vec<u8>,
}

struct OpenFile {
    file: File,
    /// Bytes from its begin to its end.
    size: u64,
    /// Bytes that it takes on the disk.
    stored: u64,
}

/// What the lock file says.
enum Lock {
    /// Shared with other readers as long as the file is open.
    Shared { _file: File },
    /// There is none: it is a copy.
    Absent,
    /// Another process has it.
    InUse,
}

impl Directory {
    /// Opens `path`; with `force` also while another process holds it.
    pub fn open(path: &Path, force: bool) -> Result<Self, Error> {
        let metadata = fs::metadata(path);
        let metadata = metadata.map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        let any = ["identity", "pages", "wal"].iter().any(|name| path.join(name).exists());
        if !metadata.is_dir() || !any {
            return Err(Error::NotDataDir { path: path.to_path_buf() });
        }
        let lock = lock(&path.join("lock"))?;
        if matches!(lock, Lock::InUse) && !force {
            return Err(Error::InUse { path: path.to_path_buf() });
        }
        let wal_path = path.join("wal");
        let slots = match server::slot_numbers(&wal_path) {
            Ok(slots) => slots,
            // A log that should be there is missed when it is recovered.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Io { path: wal_path, source }),
        };
        let mut wal = BTreeMap::new();
        let names = slots.iter().map(|&slot| WalFile::Slot(slot));
        for name in names.chain([WalFile::Ring, WalFile::Watermark]) {
            let path = match name {
                WalFile::Slot(slot) => server::slot_path(&wal_path, slot),
                WalFile::Ring => wal_path.join("ring"),
                WalFile::Watermark => wal_path.join("watermark"),
            };
            if let Some(file) = open_file(&path)? {
                wal.insert(name, file);
            }
        }
        let size = |name| wal.get(&name).map_or(0, |file: &OpenFile| file.size);
        let slot_file = |slot: &u32| SlotFile { slot: *slot, size: size(WalFile::Slot(*slot)) };
        let files = Files {
            slots: slots.iter().map(slot_file).collect(),
            ring_size: size(WalFile::Ring),
            watermark_size: size(WalFile::Watermark),
        };
        let pages = open_file(&path.join("pages"))?;
        let path = path.to_path_buf();
        let buffer = Vec::new();
        Ok(Self { path, lock, identity: None, files, pages, wal, hidden: None, buffer })
    }

    /// Whether another process holds the directory.
    pub fn is_in_use(&self) -> bool {
        matches!(self.lock, Lock::InUse)
    }

    /// Reads the identity file; from then on files must belong to that member.
    ///
    /// # Errors
    /// It is missing or damaged: then every file is taken, whosever it is.
    pub fn read_identity(&mut self) -> Result<Identity, Fault> {
        let identity =
            server::read_identity(&self.path.join("identity")).map_err(|error| match error {
                server::Error::DataDir { source, .. }
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    let name = if self.pages.is_some() { "pages" } else { "wal" };
                    Fault::Identity(server::Error::IdentityMissing {
                        path: self.path.clone(),
                        name,
                    })
                }
                error => Fault::Identity(error),
            })?;
        self.identity = Some(identity.clone());
        Ok(identity)
    }

    /// The log's files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Bytes of a file, and bytes that it takes on the disk; none if it is not there.
    pub fn size(&self, file: DataFile) -> Option<(u64, u64)> {
        self.file(file).map(|file| (file.size, file.stored))
    }

    /// Bytes of the page file, 0 if there is none.
    pub fn pages_size(&self) -> u64 {
        self.size(DataFile::Pages).map_or(0, |(size, _)| size)
    }

    /// Whose log it should be.
    pub fn owner(&self) -> Owner {
        self.identity.as_ref().map_or(Owner::Any, |identity| Owner::Member {
            cluster: identity.cluster,
            member: identity.member,
        })
    }

    /// The members that the log begins with, encoded.
    pub fn founders(&self) -> Vec<u8> {
        self.identity.as_ref().map_or_else(Vec::new, |identity| identity.members.clone())
    }

    /// What the page file is opened with.
    pub fn page_options(&self) -> tree::Options {
        let identity = self.identity.as_ref();
        tree::Options {
            file: identity.map_or_else(Default::default, |identity| identity.page_file),
            cluster: identity.map_or(0, |identity| identity.cluster),
            member: identity.map_or(NodeId::new(0), |identity| identity.member),
            cache_size: CACHE_SIZE,
            growth_size: 1 << 20,
        }
    }

    /// Hides all checkpoints but that of meta slot `only`; none shows both again.
    pub fn show_only(&mut self, only: Option<usize>) {
        self.hidden = only.map(|slot| 1 - slot);
    }

    /// Up to `size` bytes of a file at `offset`: fewer where it ends.
    pub fn read(&mut self, file: DataFile, offset: u64, size: usize) -> io::Result<&[u8]> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.resize(size, 0);
        let read = self.read_into(file, offset, &mut buffer);
        self.buffer = buffer;
        Ok(&self.buffer[..read?])
    }

    fn read_into(&self, file: DataFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let is_hidden = file == DataFile::Pages
            && buffer.len() == META_SIZE
            && self.hidden.is_some_and(|slot| META_SLOTS[slot] == offset);
        let Some(open) = self.file(file) else { return Ok(0) };
        if is_hidden {
            return Ok(buffer.len());
        }
        let mut count = 0;
        while count < buffer.len() {
            let at = offset + u64::try_from(count).expect("a size fits u64");
            match open.file.read_at(&mut buffer[count..], at) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// The same of the page file, where a part that cannot be read is a fault.
    pub fn read_pages(&mut self, offset: u64, size: usize) -> Result<&[u8], Error> {
        self.read(DataFile::Pages, offset, size)
            .map_err(|source| Fault::Unreadable { offset, source }.into())
    }

    fn file(&self, file: DataFile) -> Option<&OpenFile> {
        match file {
            DataFile::Pages => self.pages.as_ref(),
            DataFile::Wal(file) => self.wal.get(&file),
        }
    }
}

/// Takes the lock for reading. The file is only opened, never made: a copy may have none.
fn lock(path: &Path) -> Result<Lock, Error> {
    let wrap = |source| Error::Io { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Absent),
        Err(error) => return Err(wrap(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Lock::Shared { _file: file }),
        Err(TryLockError::WouldBlock) => Ok(Lock::InUse),
        Err(TryLockError::Error(error)) => Err(wrap(error)),
    }
}

/// Opens a file that may not be there.
fn open_file(path: &Path) -> Result<Option<OpenFile>, Error> {
    let open = || -> io::Result<OpenFile> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(OpenFile { size: metadata.len(), stored: metadata.blocks() * 512, file })
    };
    match open() {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_path_buf(), source }),
    }
}
