//! Reads of boot, many at a time, with blocking calls on threads, for no executor runs yet. What boot
//! says that it will ask for is read before it asks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use base::limits::BLOCK_SIZE;
use node::{BootRead, DataFile};

use crate::boot::file_path;
use crate::direct::{AlignedBuffer, DirectFile};

/// Threads, and so reads that the disk has at the same time: with 32 small ones it gets through several
/// times as many per second as with one.
const THREADS: usize = 32;

/// Stack of a thread, in bytes: it makes one system call after the other.
const STACK_SIZE: usize = 64 << 10;

/// A read for a thread.
struct Job {
    id: u64,
    file: Arc<DirectFile>,
    offset: u64,
    size: usize,
    buffer: AlignedBuffer,
}

/// The bytes that a read brought.
pub struct Bytes {
    buffer: AlignedBuffer,
    size: usize,
}

impl Bytes {
    /// As many as were asked for; fewer where the file ends.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer.bytes()[..self.size]
    }
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    done: HashMap<u64, io::Result<Bytes>>,
    /// What somebody waits for.
    wanted: Option<u64>,
    /// Nobody will ask for these any more.
    dropped: HashSet<u64>,
    is_closed: bool,
}

/// What the threads share with their user.
#[derive(Default)]
pub struct Readers {
    jobs: Mutex<Jobs>,
    work: Condvar,
    result: Condvar,
}

impl Readers {
    /// Starts the threads; they end when the [`ReadAhead`] goes.
    ///
    /// # Errors
    /// When not even one can be started.
    pub fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) -> io::Result<()> {
        for index in 0..THREADS {
            let thread = thread::Builder::new().name("quorate-read".into()).stack_size(STACK_SIZE);
            match thread.spawn_scoped(scope, || self.run()) {
                Err(error) if index == 0 => return Err(error),
                // With fewer it only takes longer.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Nothing that is done under the lock can fail half way.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut jobs = self.lock();
        loop {
            if let Some(Job { id, file, offset, size, mut buffer }) = jobs.waiting.pop_front() {
                drop(jobs);
                let done = file.read_into(offset, &mut buffer.bytes_mut()[..size]);
                let done = done.map(|size| Bytes { buffer, size });
                jobs = self.lock();
                if jobs.dropped.remove(&id) {
                    continue;
                }
                jobs.done.insert(id, done);
                if jobs.wanted == Some(id) {
                    self.result.notify_one();
                }
            } else if jobs.is_closed {
                return;
            } else {
                jobs = self.work.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn wait(&self, id: u64) -> io::Result<Bytes> {
        let mut jobs = self.lock();
        loop {
            if let Some(done) = jobs.done.remove(&id) {
                return done;
            }
            jobs.wanted = Some(id);
            jobs = self.result.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A read that was begun before it was asked for.
struct Early {
    id: u64,
    size: usize,
    /// The last round in which it was foretold.
    round: u64,
}

/// The user of the threads.
pub struct ReadAhead<'r> {
    readers: &'r Readers,
    data_dir: &'r Path,
    pages: &'r Path,
    buffered: bool,
    files: HashMap<DataFile, Arc<DirectFile>>,
    /// By file and offset.
    early: HashMap<(DataFile, u64), Early>,
    /// Bytes of these, and how many there may be.
    early_size: usize,
    early_size_max: usize,
    /// How many of the foretold reads, in order, were begun.
    begun: usize,
    round: u64,
    next_id: u64,
    /// Memory for the next reads, by its size, a power of two, and the bytes of it. To get it anew for
    /// each read costs more than the read.
    spare: HashMap<usize, Vec<AlignedBuffer>>,
    spare_size: usize,
}

impl<'r> ReadAhead<'r> {
    /// Begins reads of at most `size_max` bytes that have not been asked for yet.
    /// The files are those of a data directory, with this page file.
    pub fn new(
        readers: &'r Readers,
        (data_dir, pages): (&'r Path, &'r Path),
        buffered: bool,
        size_max: usize,
    ) -> Self {
        Self {
            readers,
            data_dir,
            pages,
            buffered,
            files: HashMap::new(),
            early: HashMap::new(),
            early_size: 0,
            early_size_max: size_max,
            begun: 0,
            round: 0,
            next_id: 0,
            spare: HashMap::new(),
            spare_size: 0,
        }
    }

    /// Opens a file; the first read does as well.
    pub fn open(&mut self, file: DataFile) -> io::Result<Arc<DirectFile>> {
        if let Some(open) = self.files.get(&file) {
            return Ok(Arc::clone(open));
        }
        let path = match file {
            DataFile::Pages => self.pages.to_path_buf(),
            DataFile::Wal(_) => file_path(self.data_dir, file),
        };
        let open = DirectFile::open(&path, self.buffered).map(Arc::new)?;
        self.files.insert(file, Arc::clone(&open));
        Ok(open)
    }

    /// Begins with the reads that are foretold, then waits for `read`.
    pub fn read(
        &mut self,
        read: BootRead,
        ahead: impl Fn(usize) -> Option<BootRead>,
    ) -> io::Result<Bytes> {
        let early = self.early.remove(&(read.file, read.offset));
        self.early_size -= early.as_ref().map_or(0, |early| early.size);
        let known = early.as_ref().is_some_and(|early| early.size >= read.size);
        let id = match early {
            Some(early) if known => early.id,
            other => {
                self.drop_early(other.as_ref());
                let job = self.job(read)?;
                let id = job.id;
                // In front of everything that nobody waits for yet.
                self.readers.lock().waiting.push_front(job);
                self.readers.work.notify_one();
                id
            }
        };
        self.begun = self.begun.saturating_sub(1);
        // In strides: each looks at everything that was begun.
        if !known || (self.early_size <= self.early_size_max / 2 && ahead(self.begun).is_some()) {
            self.begin(ahead);
        }
        let mut bytes = self.readers.wait(id)?;
        bytes.size = bytes.size.min(read.size);
        Ok(bytes)
    }

    /// Gives the threads what is foretold, as far as the memory goes. What is not foretold any more
    /// makes room when there is none.
    fn begin(&mut self, ahead: impl Fn(usize) -> Option<BootRead>) {
        self.round += 1;
        self.begun = 0;
        let mut jobs = Vec::new();
        for read in (0..).map_while(ahead) {
            if let Some(early) = self.early.get_mut(&(read.file, read.offset)) {
                early.round = self.round;
                self.begun += 1;
                continue;
            }
            if self.early_size + read.size > self.early_size_max {
                self.drop_stale();
                break;
            }
            // The error comes up when it is asked for.
            let Ok(job) = self.job(read) else { break };
            let early = Early { id: job.id, size: read.size, round: self.round };
            self.early.insert((read.file, read.offset), early);
            self.early_size += read.size;
            self.begun += 1;
            jobs.push(job);
        }
        if !jobs.is_empty() {
            self.readers.lock().waiting.extend(jobs);
            self.readers.work.notify_all();
        }
    }

    fn job(&mut self, read: BootRead) -> io::Result<Job> {
        let file = self.open(read.file)?;
        let size = read.size.next_multiple_of(BLOCK_SIZE);
        let memory = size.next_power_of_two();
        let buffer = match self.spare.get_mut(&memory).and_then(Vec::pop) {
            Some(buffer) => {
                self.spare_size -= memory;
                buffer
            }
            None => AlignedBuffer::new(memory),
        };
        self.next_id += 1;
        Ok(Job { id: self.next_id, file, offset: read.offset, size, buffer })
    }

    fn drop_stale(&mut self) {
        let round = self.round;
        let stale = self.early.extract_if(|_, early| early.round < round);
        for early in stale.map(|(_, early)| early).collect::<Vec<_>>() {
            self.early_size -= early.size;
            self.drop_early(Some(&early));
        }
    }

    fn drop_early(&mut self, early: Option<&Early>) {
        let Some(early) = early else { return };
        let mut jobs = self.readers.lock();
        if jobs.done.remove(&early.id).is_some() {
            return;
        }
        match jobs.waiting.iter().position(|job| job.id == early.id) {
            Some(at) => drop(jobs.waiting.remove(at)),
            None => drop(jobs.dropped.insert(early.id)),
        }
    }

    /// Takes memory back for the next reads.
    pub fn reuse(&mut self, bytes: Bytes) {
        let size = bytes.buffer.bytes().len();
        if self.spare_size + size <= 2 * self.early_size_max {
            self.spare_size += size;
            self.spare.entry(size).or_default().push(bytes.buffer);
        }
    }
}

impl Drop for ReadAhead<'_> {
    fn drop(&mut self) {
        let mut jobs = self.readers.lock();
        jobs.is_closed = true;
        jobs.waiting.clear();
        self.readers.work.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base::Prng;

    use super::*;

    const BLOCKS: u64 = 1_000;

    /// Blocks that hold their number.
    fn file() -> Vec<u8> {
        (0..BLOCKS).flat_map(|block| block.to_le_bytes().repeat(BLOCK_SIZE / 8)).collect()
    }

    fn read_of(prng: &mut Prng) -> BootRead {
        let block = u64::try_from(BLOCK_SIZE).unwrap();
        let size = BLOCK_SIZE * usize::try_from(1 + prng.below(20)).unwrap();
        BootRead { file: DataFile::Pages, offset: prng.below(BLOCKS) * block, size }
    }

    #[test]
    fn a_read_brings_its_own_bytes_whatever_was_foretold() {
        let folder =
            std::env::temp_dir().join(format!("quorate-read-ahead-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let content = file();
        let pages = folder.join("pages");
        std::fs::write(&pages, &content).unwrap();
        let mut prng = Prng::new(11);
        let readers = Readers::default();
        thread::scope(|scope| {
            let mut reads = ReadAhead::new(&readers, (&folder, &pages), true, 1 << 20);
            readers.start(scope).unwrap();
            let mut ahead: VecDeque<BootRead> = VecDeque::new();
            for _ in 0..3_000 {
                while ahead.len() < 60 {
                    ahead.push_back(read_of(&mut prng));
                }
                let read = match prng.below(10) {
                    // Something else comes first, or all that was foretold never comes, or it is less.
                    0 => read_of(&mut prng),
                    1 if prng.one_in(20) => {
                        ahead.clear();
                        read_of(&mut prng)
                    }
                    2 => BootRead { size: BLOCK_SIZE, ..ahead.pop_front().unwrap() },
                    _ => ahead.pop_front().unwrap(),
                };
                let bytes = reads.read(read, |n| ahead.get(n).copied()).unwrap();
                let from = usize::try_from(read.offset).unwrap();
                let to = content.len().min(from + read.size);
                assert!(bytes.as_slice() == &content[from..to], "{read:?}");
                reads.reuse(bytes);
                assert!(reads.early_size <= reads.early_size_max);
            }
            let sizes = reads.early.values().map(|early| early.size);
            assert_eq!(sizes.sum::<usize>(), reads.early_size);
        });
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_and_the_threads_end() {
        let readers = Readers::default();
        thread::scope(|scope| {
            let mut reads = ReadAhead::new(
                &readers,
                (Path::new("/nonexistent"), Path::new("/nonexistent")),
                true,
                1 << 20,
            );
            readers.start(scope).unwrap();
            let read = read_of(&mut Prng::new(1));
            assert!(reads.read(read, |_| Some(read)).is_err());
        });
    }
}
