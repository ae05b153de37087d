//! Sorting more than fits memory: runs are sorted in memory and written to files, then merged.
//!
//! ```text
//! run    index entry* | values           index entry   key 19 | its size u8 | value size u32, little endian
//! ```
//!
//! The index of each run stands apart from its values, so that a first look at all sizes reads little. The
//! files have no names: what a crash leaves is gone with the process.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Greatest size in bytes of a key.
pub const KEY_SIZE_MAX: usize = 19;

const ENTRY_SIZE: usize = KEY_SIZE_MAX + 1 + 4;

/// Bytes that a run may take in memory: as many runs as are merged at once make 2 GiB.
const RUN_SIZE: usize = 16 << 20;

/// Runs that are merged at once: each has windows of [`INDEX_WINDOW`] and [`VALUE_WINDOW`] in memory.
const RUNS_MAX: usize = 128;
const INDEX_WINDOW: usize = ENTRY_SIZE * 512;
const VALUE_WINDOW: usize = 64 << 10;

/// Bytes that are written at once.
const WRITE_SIZE: usize = 256 << 10;

/// A key, zeros behind it.
type Key = ([u8; KEY_SIZE_MAX], u8);

fn slice(key: &Key) -> &[u8] {
    &key.0[..usize::from(key.1)]
}

struct Entry {
    key: Key,
    begin: usize,
    size: u32,
}

/// Takes pairs in any order.
pub struct Sorter {
    folder: PathBuf,
    run_size: usize,
    runs_max: usize,
    entries: Vec<Entry>,
    values: Vec<u8>,
    runs: Vec<Run>,
}

/// A sorted run.
enum Run {
    Memory { entries: Arc<[Entry]>, values: Arc<[u8]> },
    File { file: Arc<File>, count: u64, size: u64 },
}

impl Sorter {
    /// One that makes its files in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self::with_sizes(folder, RUN_SIZE, RUNS_MAX)
    }

    fn with_sizes(folder: &Path, run_size: usize, runs_max: usize) -> Self {
        let (entries, values, runs) = (Vec::new(), Vec::new(), Vec::new());
        Self { folder: folder.to_path_buf(), run_size, runs_max, entries, values, runs }
    }

    /// Takes a pair.
    ///
    /// # Errors
    /// A run cannot be written.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut padded = [0; KEY_SIZE_MAX];
        padded[..key.len()].copy_from_slice(key);
        let key = (padded, u8::try_from(key.len()).expect("a short key"));
        let size = u32::try_from(value.len()).expect("a value is far below 4 GiB");
        self.entries.push(Entry { key, begin: self.values.len(), size });
        self.values.extend_from_slice(value);
        if self.values.len() + self.entries.len() * size_of::<Entry>() >= self.run_size {
            self.end_run()?;
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), Error> {
        self.entries.sort_unstable_by_key(|entry| entry.key);
        let mut out = RunWriter::new(&self.folder, self.entries.len())?;
        for entry in &self.entries {
            let size = usize::try_from(entry.size).expect("32 bits fit");
            out.push(&entry.key, &self.values[entry.begin..entry.begin + size])?;
        }
        self.entries.clear();
        self.values.clear();
        self.runs.push(out.finish()?);
        Ok(())
    }

    /// All pairs, in order.
    ///
    /// # Errors
    /// A run cannot be written or read.
    pub fn finish(mut self) -> Result<Sorted, Error> {
        if self.runs.is_empty() {
            self.entries.sort_unstable_by_key(|entry| entry.key);
            let (entries, values) = (self.entries.into(), self.values.into());
            return Ok(Sorted { runs: vec![Run::Memory { entries, values }] });
        }
        self.end_run()?;
        while self.runs.len() > self.runs_max {
            let group: Vec<Run> = self.runs.drain(..self.runs_max).collect();
            let count: u64 = group.iter().map(Run::count).sum();
            let mut merge = Merge::new(&group)?;
            let mut out =
                RunWriter::new(&self.folder, usize::try_from(count).unwrap_or(usize::MAX))?;
            let mut value = Vec::new();
            while let Some(key) = merge.next(&mut value)? {
                out.push(&key, &value)?;
            }
            self.runs.push(out.finish()?);
        }
        Ok(Sorted { runs: self.runs })
    }
}

/// Writes a run: its index and its values, each at its place.
struct RunWriter {
    file: File,
    index: Part,
    values: Part,
    count: u64,
}

struct Part {
    at: u64,
    bytes: Vec<u8>,
}

impl Part {
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= WRITE_SIZE { self.flush(file) } else { Ok(()) }
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes, self.at)?;
        self.at += size64(self.bytes.len());
        self.bytes.clear();
        Ok(())
    }
}

impl RunWriter {
    fn new(folder: &Path, count: usize) -> Result<Self, Error> {
        let file = nameless(folder)?;
        let index = Part { at: 0, bytes: Vec::new() };
        let values = Part { at: size64(count) * size64(ENTRY_SIZE), bytes: Vec::new() };
        Ok(Self { file, index, values, count: size64(count) })
    }

    fn push(&mut self, key: &Key, value: &[u8]) -> Result<(), Error> {
        let mut entry = [0; ENTRY_SIZE];
        entry[..KEY_SIZE_MAX].copy_from_slice(&key.0);
        entry[KEY_SIZE_MAX] = key.1;
        let size = u32::try_from(value.len()).expect("a value is far below 4 GiB");
        entry[KEY_SIZE_MAX + 1..].copy_from_slice(&size.to_le_bytes());
        let written = self
            .index
            .write(&self.file, &entry)
            .and_then(|()| self.values.write(&self.file, value));
        written.map_err(scratch("cannot be written"))
    }

    fn finish(mut self) -> Result<Run, Error> {
        let written = self.index.flush(&self.file).and_then(|()| self.values.flush(&self.file));
        written.map_err(scratch("cannot be written"))?;
        Ok(Run::File { file: Arc::new(self.file), count: self.count, size: self.values.at })
    }
}

fn size64(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits 64 bits")
}

fn scratch(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path: "the scratch file of the snapshot".into(), what, source }
}

/// A file without a name.
fn nameless(folder: &Path) -> Result<File, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".snapshot-{}-{number}", process::id()));
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    made.and_then(|file| fs::remove_file(&path).map(|()| file)).map_err(|source| Error::Io {
        path,
        what: "cannot be made to sort the snapshot in",
        source,
    })
}

impl Run {
    fn count(&self) -> u64 {
        match self {
            Self::Memory { entries, .. } => size64(entries.len()),
            Self::File { count, .. } => *count,
        }
    }
}

/// All pairs, in order, as often as they are wanted.
pub struct Sorted {
    runs: Vec<Run>,
}

impl Sorted {
    /// Tells each key and the size of its value.
    ///
    /// # Errors
    /// A run cannot be read.
    pub fn sizes(&self, tell: &mut dyn FnMut(&[u8], usize)) -> Result<(), Error> {
        let mut merge = Merge::new(&self.runs)?;
        while let Some((key, size)) = merge.skip()? {
            tell(slice(&key), usize::try_from(size).expect("32 bits fit"));
        }
        Ok(())
    }

    /// The pairs.
    ///
    /// # Errors
    /// A run cannot be read.
    pub fn pairs(self) -> Result<Pairs, Error> {
        Ok(Pairs { merge: Merge::new(&self.runs)?, next: None, value: Vec::new() })
    }
}

/// The pairs, one after the other.
pub struct Pairs {
    merge: Merge,
    next: Option<Key>,
    value: Vec<u8>,
}

impl Pairs {
    /// The next pair, which stays the next until [`Pairs::advance`].
    ///
    /// # Errors
    /// A run cannot be read.
    #[expect(clippy::type_complexity, reason = "a key and its value")]
    pub fn peek(&mut self) -> Result<Option<(&[u8], &[u8])>, Error> {
        if self.next.is_none() {
            self.next = self.merge.next(&mut self.value)?;
        }
        Ok(self.next.as_ref().map(|key| (slice(key), self.value.as_slice())))
    }

    /// Goes on.
    pub fn advance(&mut self) {
        self.next = None;
    }
}

/// Merges runs: the least key of all that are next.
struct Merge {
    cursors: Vec<Cursor>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
}

impl Merge {
    fn new(runs: &[Run]) -> Result<Self, Error> {
        let mut merge = Self { cursors: Vec::new(), heap: BinaryHeap::new() };
        for run in runs {
            merge.cursors.push(Cursor::new(run));
            merge.refill(merge.cursors.len() - 1)?;
        }
        Ok(merge)
    }

    fn refill(&mut self, place: usize) -> Result<(), Error> {
        if let Some(key) = self.cursors[place].read_entry()? {
            self.heap.push(Reverse((key, place)));
        }
        Ok(())
    }

    /// The next key, and its value in the place of what was there.
    fn next(&mut self, value: &mut Vec<u8>) -> Result<Option<Key>, Error> {
        let Some(Reverse((key, place))) = self.heap.pop() else { return Ok(None) };
        self.cursors[place].read_value(value)?;
        self.refill(place)?;
        Ok(Some(key))
    }

    /// The next key and the size of its value.
    fn skip(&mut self) -> Result<Option<(Key, u32)>, Error> {
        let Some(Reverse((key, place))) = self.heap.pop() else { return Ok(None) };
        let size = self.cursors[place].size;
        self.refill(place)?;
        Ok(Some((key, size)))
    }
}

/// A place in a run.
struct Cursor {
    from: From,
    /// Bytes of the value of the entry that was read last.
    size: u32,
}

enum From {
    Memory { entries: Arc<[Entry]>, values: Arc<[u8]>, next: usize },
    File { index: Window, values: Window },
}

impl Cursor {
    fn new(run: &Run) -> Self {
        let from = match run {
            Run::Memory { entries, values } => {
                From::Memory { entries: Arc::clone(entries), values: Arc::clone(values), next: 0 }
            }
            Run::File { file, count, size } => {
                let behind = count * size64(ENTRY_SIZE);
                let window = |at, end, size| Window {
                    file: Arc::clone(file),
                    at,
                    end,
                    size,
                    bytes: Vec::new(),
                    next: 0,
                };
                From::File {
                    index: window(0, behind, INDEX_WINDOW),
                    values: window(behind, *size, VALUE_WINDOW),
                }
            }
        };
        Self { from, size: 0 }
    }

    fn read_entry(&mut self) -> Result<Option<Key>, Error> {
        match &mut self.from {
            From::Memory { entries, next, .. } => {
                let Some(entry) = entries.get(*next) else { return Ok(None) };
                *next += 1;
                self.size = entry.size;
                Ok(Some(entry.key))
            }
            From::File { index, .. } => {
                if index.is_at_end() {
                    return Ok(None);
                }
                let mut entry = Vec::with_capacity(ENTRY_SIZE);
                index.read(ENTRY_SIZE, &mut entry).map_err(scratch("cannot be read"))?;
                let key = *entry.first_chunk().expect("an entry was read");
                let size = entry[KEY_SIZE_MAX + 1..].first_chunk().expect("an entry was read");
                self.size = u32::from_le_bytes(*size);
                Ok(Some((key, entry[KEY_SIZE_MAX])))
            }
        }
    }

    /// The value of the entry that was read last: to be called once for each, or never.
    fn read_value(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        let size = usize::try_from(self.size).expect("32 bits fit");
        match &mut self.from {
            From::Memory { entries, values, next } => {
                let begin = entries[*next - 1].begin;
                out.extend_from_slice(&values[begin..begin + size]);
                Ok(())
            }
            From::File { values, .. } => values.read(size, out).map_err(scratch("cannot be read")),
        }
    }
}

/// A part of a file that is read from front to back.
struct Window {
    file: Arc<File>,
    at: u64,
    end: u64,
    size: usize,
    bytes: Vec<u8>,
    next: usize,
}

impl Window {
    fn is_at_end(&self) -> bool {
        self.next == self.bytes.len() && self.at == self.end
    }

    /// Appends the next `size` bytes.
    fn read(&mut self, mut size: usize, out: &mut Vec<u8>) -> io::Result<()> {
        while size > 0 {
            if self.next == self.bytes.len() {
                let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                if left == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.bytes.resize(left.min(self.size), 0);
                self.file.read_exact_at(&mut self.bytes, self.at)?;
                self.at += size64(self.bytes.len());
                self.next = 0;
            }
            let taken = size.min(self.bytes.len() - self.next);
            out.extend_from_slice(&self.bytes[self.next..self.next + taken]);
            self.next += taken;
            size -= taken;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base::Prng;

    use super::*;

    #[test]
    fn pairs_come_in_order_whatever_has_to_be_written_for_it() {
        let mut prng = Prng::new(5);
        for (run_size, runs_max) in [(1 << 20, 8), (4_096, 128), (2_000, 3), (200, 2)] {
            let mut sorter = Sorter::with_sizes(&std::env::temp_dir(), run_size, runs_max);
            let mut expected = Vec::new();
            for number in 0..1_500_u64 {
                let key = prng.next_u64().to_be_bytes();
                let key = &key[..usize::try_from(1 + number % 8).unwrap()];
                let mut value = vec![0; usize::try_from(prng.below(60)).unwrap()];
                prng.fill(&mut value);
                let value = if number == 7 { vec![1; 200_000] } else { value };
                if expected.iter().all(|(other, _): &(Vec<u8>, Vec<u8>)| other != key) {
                    sorter.push(key, &value).unwrap();
                    expected.push((key.to_vec(), value));
                }
            }
            expected.sort();
            let sorted = sorter.finish().unwrap();
            let mut sizes = Vec::new();
            sorted.sizes(&mut |key, size| sizes.push((key.to_vec(), size))).unwrap();
            let told: Vec<_> = expected.iter().map(|(key, v)| (key.clone(), v.len())).collect();
            assert_eq!(sizes, told);
            let mut pairs = sorted.pairs().unwrap();
            for (key, value) in &expected {
                assert_eq!(pairs.peek().unwrap(), Some((key.as_slice(), value.as_slice())));
                pairs.advance();
            }
            assert_eq!(pairs.peek().unwrap(), None);
        }
    }
}
