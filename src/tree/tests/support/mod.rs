//! A disk in memory for the tests of this crate: it keeps an image and a trace of what was done to
//! it.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod maps;

use base::{FileId, NodeId, Prng};
use tree::{
    Check, CheckStep, Counts, META_SIZE, Miss, Open, OpenError, OpenStep, Options, PageFile,
    Release,
};

/// What was done to a disk.
#[derive(Clone)]
pub enum Op {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Sync,
    /// Size change, durable at once: the owner of the file syncs it before it goes on.
    Resize(usize),
    /// A checkpoint is published.
    Published,
}

/// A disk in memory.
#[derive(Default, Clone)]
pub struct Disk {
    pub image: Vec<u8>,
    pub trace: Vec<Op>,
    pub record: bool,
}

impl Disk {
    pub fn note(&mut self, op: Op) {
        if self.record {
            self.trace.push(op);
        }
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        assert!(offset + bytes.len() <= self.image.len(), "a write beyond the file");
        self.image[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.note(Op::Write { offset, bytes: bytes.to_vec() });
    }

    pub fn sync(&mut self) {
        self.note(Op::Sync);
    }

    pub fn resize(&mut self, size: usize) {
        self.image.resize(size, 0);
        self.note(Op::Resize(size));
    }

    pub fn read(&self, offset: u64, size: usize) -> &[u8] {
        let offset = usize::try_from(offset).unwrap();
        &self.image[offset.min(self.image.len())..(offset + size).min(self.image.len())]
    }
}

pub fn options(cache_size: u64) -> Options {
    Options {
        file: FileId::new(0x1234_5678_9abc_def0_1122_3344_5566_7788),
        cluster: 7,
        member: NodeId::new(3),
        cache_size,
        growth_size: 1 << 20,
    }
}

pub fn seed() -> u64 {
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42);
    println!("QUORATE_SEED={seed}");
    seed
}

pub fn scale() -> u64 {
    std::env::var("QUORATE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Repeats an operation, bringing in what it misses.
pub fn served<T>(
    file: &mut PageFile,
    disk: &Disk,
    mut operation: impl FnMut(&mut PageFile) -> Result<T, Miss>,
) -> T {
    loop {
        match operation(file) {
            Ok(value) => return value,
            Err(miss) => {
                file.install(miss, disk.read(miss.offset(), miss.size())).expect("it verifies");
            }
        }
    }
}

pub fn grow(file: &mut PageFile, disk: &mut Disk) {
    if let Some(size) = file.wants_growth() {
        disk.resize(usize::try_from(size).unwrap());
        file.set_backed(size);
    }
}

/// One write of the running checkpoint; false after the last.
pub fn write_one(file: &mut PageFile, disk: &mut Disk) -> bool {
    let Some(write) = file.checkpoint_next() else { return false };
    let mut out = vec![0; write.size];
    file.checkpoint_fill(&write, &mut out);
    disk.write(write.offset, &out);
    true
}

pub fn publish(file: &mut PageFile, disk: &mut Disk) {
    while write_one(file, disk) {}
    disk.sync();
    let mut meta = [0; META_SIZE];
    let offset = file.checkpoint_meta(&mut meta);
    disk.write(offset, &meta);
    disk.sync();
    file.checkpoint_published();
    disk.note(Op::Published);
}

pub fn begin(file: &mut PageFile, disk: &mut Disk, application: &[u8]) {
    file.checkpoint_begin(application);
    grow(file, disk);
}

pub fn release(file: &mut PageFile, disk: &mut Disk) {
    while let Some(release) = file.release_next() {
        match release {
            Release::Punch { offset, size } => {
                disk.write(offset, &vec![0; usize::try_from(size).unwrap()]);
                disk.sync();
            }
            Release::Truncate { size } => disk.resize(usize::try_from(size).unwrap()),
        }
    }
}

pub fn open(options: &Options, image: &[u8]) -> Result<(PageFile, Vec<u8>), OpenError> {
    let mut open = Open::new(options, u64::try_from(image.len()).unwrap());
    let disk = |offset: u64, size: usize| {
        let offset = usize::try_from(offset).unwrap();
        &image[offset.min(image.len())..(offset + size).min(image.len())]
    };
    while let OpenStep::Read { offset, size } = open.next() {
        open.feed(disk(offset, size));
    }
    open.finish()
}

pub fn check(options: &Options, image: &[u8]) -> Result<Counts, OpenError> {
    let mut check = Check::new(options, u64::try_from(image.len()).unwrap());
    while let CheckStep::Read { offset, size } = check.next() {
        let offset = usize::try_from(offset).unwrap();
        check.feed(&image[offset.min(image.len())..(offset + size).min(image.len())]);
    }
    check.finish()
}

pub fn bytes(prng: &mut Prng, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    prng.fill(&mut bytes);
    bytes
}
