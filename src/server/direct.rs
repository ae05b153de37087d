//! Blocking O_DIRECT access before the executors run: boot reads the medium, not the page cache, and
//! probes find out what the file system can do.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use base::limits::BLOCK_SIZE;

/// Memory that begins at a multiple of the block size.
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    size: usize,
}

impl AlignedBuffer {
    /// Zeros.
    pub fn new(size: usize) -> Self {
        let memory = vec![0; size + BLOCK_SIZE];
        let start = memory.as_ptr().align_offset(BLOCK_SIZE);
        Self { memory, start, size }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.size]
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.size]
    }
}

/// A file for aligned reads.
pub struct DirectFile {
    file: File,
    size: u64,
}

impl DirectFile {
    /// Opens a file for reading, past the page cache unless `buffered`.
    pub fn open(path: &Path, buffered: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        if !buffered {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads up to `buffer.size` bytes at `offset`, both multiples of the block size; returns how
    /// many there are before the file ends.
    pub fn read(&self, offset: u64, buffer: &mut AlignedBuffer) -> io::Result<usize> {
        self.read_into(offset, buffer.bytes_mut())
    }

    /// The same into the first bytes of a buffer.
    pub fn read_into(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < bytes.len() {
            let at = offset + u64::try_from(count).expect("a size fits u64");
            match self.file.read_at(&mut bytes[count..], at) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // At the end of a file that is no whole number of blocks no aligned read can go on.
            if !count.is_multiple_of(BLOCK_SIZE) {
                break;
            }
        }
        Ok(count)
    }

    /// Makes the file durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Opens `path` for O_DIRECT writes; with `dsync` each completed one is durable.
fn open_for_writes(path: &Path, dsync: bool) -> io::Result<File> {
    let flags = if dsync { libc::O_DIRECT | libc::O_DSYNC } else { libc::O_DIRECT };
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// Whether a file at `path` takes a write of one block past the page cache. Leaves the file there.
pub fn probe_write(path: &Path) -> io::Result<()> {
    let file = open_for_writes(path, false)?;
    file.write_all_at(AlignedBuffer::new(BLOCK_SIZE).bytes(), 0)
}

/// Median times in microseconds of a durable write of one block: write then fdatasync, and one write
/// with O_DSYNC. The file is filled with zeros first and removed afterwards.
pub fn probe_sync(path: &Path, rounds: usize) -> io::Result<(u64, u64)> {
    let block = AlignedBuffer::new(BLOCK_SIZE);
    let median = |dsync: bool| -> io::Result<u64> {
        let file = open_for_writes(path, dsync)?;
        for index in 0..rounds {
            let offset = u64::try_from(index * BLOCK_SIZE).expect("few blocks");
            file.write_all_at(block.bytes(), offset)?;
        }
        file.sync_all()?;
        let mut times = Vec::with_capacity(rounds);
        for index in 0..rounds {
            let offset = u64::try_from(index * BLOCK_SIZE).expect("few blocks");
            let begin = std::time::Instant::now();
            file.write_all_at(block.bytes(), offset)?;
            if !dsync {
                file.sync_data()?;
            }
            times.push(begin.elapsed().as_micros());
        }
        times.sort_unstable();
        Ok(u64::try_from(times[rounds / 2]).unwrap_or(u64::MAX))
    };
    let times = (median(false)?, median(true)?);
    std::fs::remove_file(path)?;
    Ok(times)
}
