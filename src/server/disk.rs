//! Disk operations of one core: O_DIRECT writes, syncs, reads and space, as tasks whose results come
//! back as events.
//!
//! The first write or sync error is final: the process stops, and recovery reads everything back
//! from the medium. Nothing is retried, for after a failed sync the kernel may call pages clean that
//! never reached the disk. The exception is running out of space where space is asked for.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use wal::WalFile;

use crate::direct::AlignedBuffer;

/// Bytes written with one call while a segment is zeroed.
const ZERO_SIZE: usize = 1 << 20;

/// Disk memory: aligned, of the size that was asked for, with any content.
#[derive(Debug)]
pub struct Block(DmaBuffer);

impl Block {
    /// Takes memory from the executor this runs on.
    pub fn allocate(size: usize) -> Self {
        Self(glommio::allocate_dma_buffer(size))
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

/// Stops the process: a disk that failed once is not asked again. Peers carry on; the next start
/// recovers from what is on the medium.
pub fn halt(what: &str, path: &Path, error: &dyn std::fmt::Display) -> ! {
    crate::log::error(format!(
        "stopped by a disk error: {what} {} failed: {error}; nothing that was not durable \
         has been acknowledged; look after the disk, then start again",
        path.display()
    ));
    std::process::exit(6);
}

/// Bytes of disk space beside which one write is nothing.
const PLENTY: u64 = 1 << 30;

/// A write that waits for room on a full disk is tried again after this.
const NO_SPACE_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Whether an error says that the file system is full, or that no descriptor is to be had now: both
/// may pass, and nothing has been written.
fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn io_error(error: GlommioError<()>) -> io::Error {
    io::Error::from(error)
}

/// Lets this executor find out whether the device takes polled reads, from a file whose first block has
/// been written. glommio asks the first file it opens, and one that answers without the device (empty,
/// a hole, preallocated) makes it poll a device that cannot be polled: later reads fail.
pub async fn settle_polling(probe: PathBuf) -> io::Result<()> {
    DiskFile::open(probe, false).await.map(drop)
}

/// One open file.
pub struct DiskFile {
    file: DmaFile,
    path: PathBuf,
}

impl DiskFile {
    /// Opens a file for O_DIRECT reads and writes, making it if it is not there. With `dsync` each
    /// completed write is durable.
    pub async fn open(path: PathBuf, dsync: bool) -> io::Result<Rc<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        if dsync {
            options.custom_flags(libc::O_DSYNC);
        }
        let file = options.dma_open(&path).await.map_err(io_error)?;
        Ok(Rc::new(Self { file, path }))
    }

    /// Writes the first `size` bytes of `block` at `offset`.
    pub async fn write(&self, block: Block, size: usize, offset: u64) {
        let mut block = block.0;
        if block.len() > size {
            block.trim_to_size(size);
        }
        assert!(block.len() == size, "{size} bytes of a block of {}", block.len());
        let block = Rc::new(block);
        let mut written = 0;
        match self.file.write_rc_at(Rc::clone(&block), offset).await {
            Ok(count) => written += count,
            Err(error) => halt("a write to", &self.path, &error),
        }
        // Short writes are rare (a signal, a quota); the rest goes out block by block.
        while written < size {
            let rest = block.as_bytes()[written..].to_vec();
            let mut again = self.file.alloc_dma_buffer(rest.len());
            again.as_bytes_mut().copy_from_slice(&rest);
            let at = offset + u64::try_from(written).expect("a size fits u64");
            match self.file.write_rc_at(Rc::new(again), at).await {
                Ok(0) => halt("a write to", &self.path, &"the file takes no more bytes"),
                Ok(count) => written += count,
                Err(error) => halt("a write to", &self.path, &error),
            }
        }
    }

    /// Writes the first `size` bytes of `block` at `offset`, and waits for room where the disk is full: a
    /// part of the page file that has been handed back gets its disk space again with the write. Nothing
    /// that is acknowledged depends on it.
    pub async fn write_patiently(&self, block: Block, size: usize, offset: u64) {
        let mut told = false;
        while !self.back(offset, size).await {
            if !std::mem::replace(&mut told, true) {
                crate::log::warn(format!(
                    "the disk of {} is full: {size} bytes at {offset} wait for room; make \
                     some, reads go on meanwhile",
                    self.path.display()
                ));
            }
            glommio::timer::sleep(NO_SPACE_PAUSE).await;
        }
        self.write(block, size, offset).await;
    }

    /// Gives a part of the file disk space, if it has none there; false when the disk is full.
    async fn back(&self, offset: u64, size: usize) -> bool {
        // With plenty left the write does it by itself.
        if self.disk_space().is_none_or(|available| available >= PLENTY) {
            return true;
        }
        match self.is_hole(offset, size) {
            Ok(false) => return true,
            Ok(true) => {}
            Err(error) => halt("looking at", &self.path, &error),
        }
        match self.allocate(offset, size) {
            Ok(()) => true,
            Err(error) if is_no_space(&error) => false,
            // A file system that cannot tell allocates with the write.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => true,
            Err(error) => halt("growing", &self.path, &error),
        }
    }

    /// Bytes that the file system has left for this process.
    #[allow(unsafe_code)]
    fn disk_space(&self) -> Option<u64> {
        // SAFETY: the file owns the descriptor and outlives this borrow, which ends with the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) };
        let status = rustix::fs::fstatvfs(descriptor).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Whether a part of the file has a hole.
    #[allow(unsafe_code)]
    fn is_hole(&self, offset: u64, size: usize) -> io::Result<bool> {
        // SAFETY: the file owns the descriptor and outlives this borrow, which ends with the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) };
        let end = offset + u64::try_from(size).expect("a size fits u64");
        match rustix::fs::seek(descriptor, rustix::fs::SeekFrom::Hole(offset)) {
            Ok(hole) => Ok(hole < end),
            // Behind the end of the file.
            Err(rustix::io::Errno::NXIO) => Ok(true),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTSUP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[allow(unsafe_code)]
    fn allocate(&self, offset: u64, size: usize) -> io::Result<()> {
        // SAFETY: the file owns the descriptor and outlives this borrow, which ends with the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) };
        let size = u64::try_from(size).expect("a size fits u64");
        Ok(rustix::fs::fallocate(descriptor, rustix::fs::FallocateFlags::empty(), offset, size)?)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what has been written durable.
    pub async fn sync(&self) {
        if let Err(error) = self.file.fdatasync().await {
            halt("a sync of", &self.path, &error);
        }
    }

    /// Reads `size` bytes at `offset`; fewer come back at the end of the file.
    pub async fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        match self.file.read_at(offset, size).await {
            Ok(bytes) => bytes.to_vec(),
            Err(error) => halt("a read of", &self.path, &error),
        }
    }

    /// Bytes of the file. Asked of the descriptor: the name may have changed since it was opened.
    #[allow(unsafe_code)]
    fn size(&self) -> io::Result<u64> {
        // SAFETY: the file owns the descriptor and outlives this borrow, which ends with the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) };
        let status = rustix::fs::fstat(descriptor)?;
        Ok(u64::try_from(status.st_size).unwrap_or_default())
    }

    /// A second descriptor of the file, for a thread that may block.
    #[allow(unsafe_code)]
    fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the file owns the descriptor and outlives this borrow, which ends with the call.
        unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) }.try_clone_to_owned()
    }

    /// Gives the file disk space up to `size` bytes, behind what it has: what was punched stays so.
    /// Returns whether it got it, or the disk is full, and the bytes that the file system has left.
    pub async fn grow(&self, size: u64) -> (bool, u64) {
        let before = match self.size() {
            Ok(before) => before,
            Err(error) => halt("looking at", &self.path, &error),
        };
        let file = match self.descriptor() {
            Ok(file) => file,
            Err(error) if is_no_space(&error) => return (false, 0),
            Err(error) => halt("growing", &self.path, &error),
        };
        let allocate = glommio::executor().spawn_blocking(move || {
            let allocated = allocate_behind(&file, before, size);
            (allocated, available(&file).unwrap_or(0))
        });
        let (allocated, available) = allocate.await;
        match allocated {
            Ok(()) => {
                // Later syncs must not have to write the new size.
                self.sync().await;
                (true, available)
            }
            Err(error) if is_no_space(&error) => {
                // What it got before there was no more goes back: others need it now.
                self.truncate(before).await;
                (false, available)
            }
            Err(error) => halt("growing", &self.path, &error),
        }
    }

    /// Hands the space of a part of the file back to the file system. One that cannot punch holes
    /// keeps it until the file is cut.
    pub async fn punch(&self, offset: u64, size: u64) {
        if let Err(error) = self.file.deallocate(offset, size).await.map_err(io_error)
            && error.raw_os_error() != Some(libc::EOPNOTSUPP)
        {
            halt("punching a hole into", &self.path, &error);
        }
    }

    /// Cuts the file.
    pub async fn truncate(&self, size: u64) {
        if let Err(error) = self.file.truncate(size).await {
            halt("cutting", &self.path, &error);
        }
    }
}

/// The files of the WAL.
pub struct WalDisk {
    directory: PathBuf,
    dsync: bool,
    segment_size: u64,
    /// By slot number. Moved out and back, so that tasks can add a slot while the loop uses others.
    slots: Cell<Vec<Option<Rc<DiskFile>>>>,
    ring: Option<Rc<DiskFile>>,
    watermark: Rc<DiskFile>,
}

impl WalDisk {
    /// Whether a group is durable as soon as it is written.
    pub fn is_dsync(&self) -> bool {
        self.dsync
    }

    /// Opens the files that are there, and makes the two of fixed size that are not.
    pub async fn open(
        directory: PathBuf,
        dsync: bool,
        segment_size: u64,
        ring_slots: u32,
    ) -> io::Result<Self> {
        let zeroed = |name: &str, size: u64| -> io::Result<PathBuf> {
            let path = directory.join(name);
            if fs::metadata(&path).map_or(0, |metadata| metadata.len()) < size {
                write_zeros(&path, size)?;
            }
            Ok(path)
        };
        let watermark_path = zeroed("watermark", wal::WATERMARK_FILE_SIZE)?;
        let ring = if ring_slots == 0 {
            None
        } else {
            let path = zeroed("ring", wal::ring_file_size(ring_slots))?;
            Some(DiskFile::open(path, false).await?)
        };
        File::open(&directory)?.sync_all()?;
        let watermark = DiskFile::open(watermark_path, false).await?;
        let disk = Self { directory, dsync, segment_size, slots: Cell::default(), ring, watermark };
        for slot in slot_numbers(&disk.directory)? {
            disk.set_slot(slot, DiskFile::open(slot_path(&disk.directory, slot), dsync).await?);
        }
        Ok(disk)
    }

    /// The open file.
    pub fn file(&self, file: WalFile) -> Rc<DiskFile> {
        let found = match file {
            WalFile::Slot(slot) => {
                let slots = self.slots.take();
                let index = usize::try_from(slot).expect("a slot number fits usize");
                let found = slots.get(index).and_then(Option::as_ref).map(Rc::clone);
                self.slots.set(slots);
                found
            }
            WalFile::Ring => self.ring.as_ref().map(Rc::clone),
            WalFile::Watermark => Some(Rc::clone(&self.watermark)),
        };
        found.expect("the writer names files that it was told are there")
    }

    fn set_slot(&self, slot: u32, file: Rc<DiskFile>) {
        let index = usize::try_from(slot).expect("a slot number fits usize");
        let mut slots = self.slots.take();
        if slots.len() <= index {
            slots.resize_with(index + 1, || None);
        }
        slots[index] = Some(file);
        self.slots.set(slots);
    }

    /// Makes the file of a new slot; false when the disk is full. Zeros are written over all of it, so
    /// that no later write has to allocate or to convert extents, on a thread that may block.
    pub async fn make_slot(&self, slot: u32) -> bool {
        let path = slot_path(&self.directory, slot);
        let (directory, size, target) = (self.directory.clone(), self.segment_size, path.clone());
        let made =
            glommio::executor().spawn_blocking(move || make_slot(&directory, &target, size)).await;
        if !made {
            return false;
        }
        match DiskFile::open(path.clone(), self.dsync).await {
            Ok(file) => self.set_slot(slot, file),
            Err(error) if is_no_space(&error) => return false,
            Err(error) => halt("opening", &path, &error),
        }
        true
    }
}

/// Gives a file of `before` bytes disk space up to `size`.
fn allocate_behind(file: &OwnedFd, before: u64, size: u64) -> io::Result<()> {
    if size > before {
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(file, flags, before, size - before)?;
    }
    Ok(())
}

/// Bytes that the file system of a file has left for this user.
fn available(file: &OwnedFd) -> io::Result<u64> {
    let figures = rustix::fs::fstatvfs(file)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

fn make_slot(directory: &Path, path: &Path, size: u64) -> bool {
    match write_zeros(path, size).and_then(|()| File::open(directory)?.sync_all()) {
        Ok(()) => true,
        Err(error) if is_no_space(&error) => {
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => halt("removing", path, &error),
            }
            false
        }
        Err(error) => halt("preallocating", path, &error),
    }
}

/// Makes a file of zeros, past the page cache where the file system can: a copy of every zero would
/// cost the cores that serve clients more than the disk.
fn write_zeros(path: &Path, size: u64) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let file = match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.open(path)?,
        file => file?,
    };
    let zeros = AlignedBuffer::new(ZERO_SIZE);
    let mut offset = 0;
    while offset < size {
        let count = usize::try_from(size - offset).unwrap_or(ZERO_SIZE).min(ZERO_SIZE);
        file.write_all_at(&zeros.bytes()[..count], offset)?;
        offset += u64::try_from(count).expect("a size fits u64");
    }
    file.sync_all()
}

/// Path of a segment file.
pub fn slot_path(directory: &Path, slot: u32) -> PathBuf {
    directory.join(format!("slot-{slot:03}"))
}

/// Numbers of the segment files in a WAL directory, in order.
pub fn slot_numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u32> =
            name.to_str().and_then(|name| name.strip_prefix("slot-")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Counts operations that together end in one event.
pub struct Countdown {
    left: Cell<usize>,
}

impl Countdown {
    /// Of `count` operations.
    pub fn new(count: usize) -> Rc<Self> {
        Rc::new(Self { left: Cell::new(count) })
    }

    /// One is done; true if it was the last.
    pub fn done(&self) -> bool {
        self.left.set(self.left.get() - 1);
        self.left.get() == 0
    }
}
