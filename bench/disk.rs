//! The raw limit of a disk in the terms of a durable put: one thread that overwrites 4 KiB blocks
//! of a file with O_DIRECT and waits for `fdatasync` after each. Nothing else happens between.
//!
//! ```text
//! file   | 0 | 1 | 2 | ... | 16383 |   64 MiB, written with zeros first
//!          ^ write block n, fdatasync, n + 1, ...; behind the last one again from the first
//! ```
//!
//! The zeros matter: a block that was allocated but never written costs a metadata commit when it
//! is first written, which a write-ahead log avoids by the same means.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::Prng;
use base::limits::BLOCK_SIZE;

use crate::number::nanoseconds;
use crate::process::thread_cpu_time;
use crate::record::{Record, Window};
use crate::report::{LatencyMicroseconds, Report, cpu_per_operation, per_second};

/// Bytes of the file: more than a disk's own small caches of recently written blocks.
const FILE_SIZE: usize = 64 << 20;

/// Blocks of the file.
const BLOCKS_COUNT: usize = FILE_SIZE / BLOCK_SIZE;

/// Bytes of one write while the file is filled with zeros.
const FILL_SIZE: usize = 1 << 20;

const _: () = assert!(FILE_SIZE.is_multiple_of(FILL_SIZE) && FILL_SIZE.is_multiple_of(BLOCK_SIZE));

/// What failed, where.
#[derive(Debug)]
pub enum DiskError {
    /// The directory cannot be made.
    Directory(PathBuf, io::Error),
    /// The file system does not take O_DIRECT, or the file cannot be made.
    Open(PathBuf, io::Error),
    /// A write or a sync failed.
    Write(PathBuf, io::Error),
}

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path, error) => {
                write!(f, "cannot make the directory {}: {error}", path.display())
            }
            Self::Open(path, error) => write!(
                f,
                "cannot open {} with O_DIRECT: {error} (some file systems, such as tmpfs on older \
                 kernels, do not take it; choose a directory on a disk)",
                path.display()
            ),
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DiskError {}

/// Removes the file again, whichever way the run ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be removed; its name says what it is.
        let _ = fs::remove_file(&self.0);
    }
}

/// Measures the disk that holds the directory `dir` (made where it is missing) for `duration`,
/// after a tenth of that as warm-up. `progress` is told the operations so far about once a second.
///
/// # Errors
/// The directory or file cannot be made, or a write fails.
pub fn run(
    dir: &Path,
    duration: Duration,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, DiskError> {
    fs::create_dir_all(dir).map_err(|error| DiskError::Directory(dir.to_path_buf(), error))?;
    let path = dir.join(format!("quorate-bench-disk-{}", std::process::id()));
    let scratch = Scratch(path);
    let path = &scratch.0;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(|error| DiskError::Open(path.clone(), error))?;
    measure(&file, duration, progress).map_err(|error| DiskError::Write(path.clone(), error))
}

fn measure(
    file: &File,
    duration: Duration,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, io::Error> {
    let mut memory = Aligned::new(FILL_SIZE);
    for offset in (0..FILE_SIZE).step_by(FILL_SIZE) {
        file.write_all_at(memory.bytes(), file_offset(offset))?;
    }
    file.sync_all()?;
    let block = &mut memory.bytes()[..BLOCK_SIZE];
    Prng::new(1).fill(block);

    let warm_up = nanoseconds(duration / 10);
    let window = Window { start: warm_up, end: warm_up + nanoseconds(duration) };
    let mut record = Record::new(window);
    let origin = Instant::now();
    let mut own_before = None;
    let mut began = 0;
    let mut told_at = 0;
    for number in (0..BLOCKS_COUNT).cycle() {
        if began >= window.end {
            break;
        }
        if own_before.is_none() && began >= window.start {
            own_before = thread_cpu_time();
        }
        file.write_all_at(block, file_offset(number * BLOCK_SIZE))?;
        file.sync_data()?;
        let now = nanoseconds(origin.elapsed());
        record.answered(began, now);
        if now - told_at >= 1_000_000_000 {
            told_at = now;
            progress(record.operations());
        }
        began = now;
    }
    let own = thread_cpu_time().zip(own_before).map(|(after, before)| after - before);
    let seconds = duration.as_secs_f64();
    Ok(Report {
        operation: "disk".into(),
        servers: 0,
        connections: 1,
        depth: 1,
        seconds,
        operations: record.operations(),
        errors: 0,
        per_second: per_second(record.operations(), seconds),
        latency_us: LatencyMicroseconds::of(record.latencies()),
        server_cpu_us_per_operation: None,
        generator_cpu_us_per_operation: cpu_per_operation(own, record.operations()),
        server_resident_size: None,
        rate: None,
        unsent: 0,
        keys: 0,
        key_size: 0,
        value_size: BLOCK_SIZE,
        distribution: None,
        serializable: false,
        latencies: record.latencies().clone(),
    })
}

fn file_offset(offset: usize) -> u64 {
    u64::try_from(offset).expect("64 MiB fit")
}

/// Memory whose bytes begin at a multiple of the block size, as O_DIRECT wants them.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    size: usize,
}

impl Aligned {
    fn new(size: usize) -> Self {
        let memory = vec![0; size + BLOCK_SIZE];
        let start = memory.as_ptr().align_offset(BLOCK_SIZE);
        assert!(start < BLOCK_SIZE, "bytes can be aligned to any power of two");
        Self { memory, start, size }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_direct_writes_is_aligned() {
        let mut memory = Aligned::new(BLOCK_SIZE);
        assert_eq!(memory.bytes().as_ptr().align_offset(BLOCK_SIZE), 0);
        assert_eq!(memory.bytes().len(), BLOCK_SIZE);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = run(Path::new("/dev/null/x"), Duration::from_secs(1), &mut |_| ())
            .expect_err("not a directory");
        assert!(error.to_string().contains("/dev/null/x"), "{error}");
    }
}
