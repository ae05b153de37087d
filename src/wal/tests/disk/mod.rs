//! A disk in memory for the tests of the log: files, writes that are not yet synced, a recording of
//! both, a driver of the writer that performs what it asks for, and recovery over an image of the
//! files.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;

use base::{FileId, LogIndex, NodeId, Prng, Term};
use wal::{
    Append, Applied, Entry, Files, HardState, Identity, Options, Owner, Position, Recovered,
    Recovery, RecoveryError, Replay, ReplayStep, Seal, SealedGroup, SlotFile, Step, WalFile, Write,
    Writer,
};

pub const BLOCK: usize = 4096;
pub const SECTOR: usize = 512;
pub const CLUSTER: u64 = 0xC1;
pub const MEMBER: u64 = 7;

pub type Block = Vec<u8>;
pub type Image = BTreeMap<WalFile, Vec<u8>>;

/// What happened to the disk, in order.
#[derive(Clone)]
pub enum Op {
    /// A new file of zeros, durable at once (the caller syncs file and directory).
    Create(WalFile, usize),
    Write(WalFile, u64, Vec<u8>),
    Sync(WalFile),
}

/// What the run knew at a point of the recording.
#[derive(Clone)]
pub struct Known {
    /// Operations recorded so far.
    pub ops: usize,
    /// The log as submitted after each group, by LSN: the entries that are valid then.
    pub submitted: u64,
    pub acked: u64,
    pub applied: (u64, u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owned {
    pub index: u64,
    pub term: u64,
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// One record of the oracle: the log after group `lsn` of a lineage.
#[derive(Clone)]
pub struct After {
    pub lsn: u64,
    /// Who wrote the group.
    pub incarnation: u128,
    pub log: Vec<Owned>,
    pub hard_state: HardState,
}

pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("seed {seed} (QUORATE_SEED to repeat)");
    seed
}

pub fn scale() -> u64 {
    std::env::var("QUORATE_TEST_SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

pub fn identity(incarnation: u128) -> Identity {
    Identity {
        cluster: CLUSTER,
        member: NodeId::new(MEMBER),
        incarnation: FileId::new(incarnation),
    }
}

pub fn dirty(size: usize) -> Block {
    vec![0xDB; size]
}

/// Drives a writer over an in-memory disk.
pub struct Run {
    pub options: Options,
    pub writer: Writer<Block>,
    pub image: Image,
    pub ops: Vec<Op>,
    pub known: Vec<Known>,
    /// The log as it stands after each submitted group, this lineage.
    pub after: Vec<After>,
    /// Groups that the recovery before this run dropped. Until the first group of this run is
    /// durable, a crash may complete one of them again: see `lib.rs`.
    pub ghosts: Vec<After>,
    pub incarnation: u128,
    /// The whole valid log, appended or not.
    pub log: Vec<Owned>,
    pub hashes: Vec<Position>,
    pub base: Position,
    pub in_flight: Vec<SealedGroup<Block>>,
    pub acked: u64,
    pub applied: (u64, u64),
    pub uuid: u128,
    pub next_slot: u32,
}

impl Run {
    pub fn create(options: Options) -> Self {
        let writer = Writer::create(identity(1), options, Position::ORIGIN);
        let mut run = Self {
            options,
            writer,
            image: Image::new(),
            ops: Vec::new(),
            known: Vec::new(),
            after: vec![After {
                lsn: 0,
                incarnation: 0,
                log: Vec::new(),
                hard_state: HardState::default(),
            }],
            ghosts: Vec::new(),
            incarnation: 1,
            log: Vec::new(),
            hashes: Vec::new(),
            base: Position::ORIGIN,
            in_flight: Vec::new(),
            acked: 0,
            applied: (0, 0),
            uuid: 1000,
            next_slot: 0,
        };
        if options.ring_slots > 0 {
            run.op(Op::Create(WalFile::Ring, options.ring_slots as usize * BLOCK));
        }
        run.op(Op::Create(WalFile::Watermark, 4 * BLOCK));
        run.spares();
        run
    }

    /// Goes on after a recovery from `image`.
    pub fn resume(
        options: Options,
        image: Image,
        recovered: &Recovered,
        incarnation: u128,
        applied: (u64, u64),
    ) -> Self {
        let writer = Writer::resume(identity(incarnation), options, recovered);
        let entries = replay(&image, recovered, LogIndex::ZERO).unwrap();
        let lsn = recovered.durable_lsn.get();
        let after = After {
            lsn,
            incarnation: recovered.incarnation().map_or(0, |id| id.get()),
            log: entries.clone(),
            hard_state: recovered.hard_state,
        };
        let next_slot = image
            .keys()
            .filter_map(|f| if let WalFile::Slot(n) = f { Some(*n + 1) } else { None })
            .max()
            .unwrap_or(0);
        Self {
            options,
            writer,
            image,
            ops: Vec::new(),
            known: Vec::new(),
            after: vec![after],
            ghosts: Vec::new(),
            incarnation,
            log: entries,
            hashes: Vec::new(),
            base: recovered.base,
            in_flight: Vec::new(),
            acked: recovered.durable_lsn.get(),
            applied,
            uuid: incarnation * 1_000_000,
            next_slot,
        }
    }

    pub fn op(&mut self, op: Op) {
        apply(&mut self.image, &op);
        self.ops.push(op);
        self.note();
    }

    fn note(&mut self) {
        let submitted = self.after.last().map_or(self.acked, |after| after.lsn);
        let (acked, applied) = (self.acked, self.applied);
        self.known.push(Known { ops: self.ops.len(), submitted, acked, applied });
    }

    pub fn write(&mut self, write: &Write<Block>) {
        assert_eq!(write.size % BLOCK, 0);
        assert_eq!(write.offset % BLOCK as u64, 0);
        let bytes = write.block[..write.size].to_vec();
        let file = self.image.get(&write.file).expect("the file is there");
        assert!(write.offset as usize + write.size <= file.len(), "a write beyond the end");
        self.op(Op::Write(write.file, write.offset, bytes));
    }

    pub fn spares(&mut self) {
        while self.writer.spares_wanted() > 0 {
            let slot = self.writer.take_free().unwrap_or_else(|| {
                self.next_slot += 1;
                let slot = self.next_slot - 1;
                let size = self.options.segment_size as usize;
                self.op(Op::Create(WalFile::Slot(slot), size));
                slot
            });
            self.uuid += 1;
            let write = self.writer.prepare_spare(slot, FileId::new(self.uuid), &mut dirty);
            self.write(&write);
            self.op(Op::Sync(WalFile::Slot(slot)));
            self.writer.spare_ready(slot);
        }
    }

    /// Appends one entry, sealing where the block is full. Needs nothing in flight then.
    pub fn append(&mut self, term: u64, kind: u8, payload: &[u8]) {
        let index = self.writer.last().index.next();
        let entry = Entry { index, term: Term::new(term), kind, payload };
        while self.writer.append(&entry, &mut dirty) == Append::Full {
            self.drain();
            assert!(self.seal());
        }
        let position = self.writer.last();
        self.hashes.push(position);
        let payload = payload.to_vec();
        self.log.push(Owned { index: index.get(), term, kind, payload });
    }

    /// Seals one group and submits its writes; false if there is nothing to do or no room in
    /// flight.
    pub fn seal(&mut self) -> bool {
        loop {
            match self.writer.seal(&mut dirty) {
                Seal::Nothing | Seal::Busy => return false,
                Seal::NoSegment => self.spares(),
                Seal::Group(group) => {
                    let hard_state = self.writer.hard_state();
                    let lsn = group.lsn.get();
                    let upto = group.last.index.get();
                    let log = self.log.iter().filter(|e| e.index <= upto).cloned().collect();
                    let incarnation = self.incarnation;
                    self.after.push(After { lsn, incarnation, log, hard_state });
                    self.write(&group.group);
                    if let Some(ring) = &group.ring {
                        self.write(ring);
                    }
                    self.in_flight.push(group);
                    return true;
                }
            }
        }
    }

    /// Makes the oldest group in flight durable.
    pub fn complete(&mut self) {
        let group = self.in_flight.remove(0);
        self.writer.written(group.lsn);
        self.op(Op::Sync(group.group.file));
        if let Some(ring) = &group.ring {
            self.op(Op::Sync(ring.file));
        }
        self.writer.durable(group.lsn);
        self.acked = group.lsn.get();
        self.note();
    }

    /// Applies up to `count` more of the durable entries.
    pub fn apply(&mut self, count: u64) {
        let index = (self.applied.0 + count).min(self.writer.durable_position().index.get());
        if let Some(entry) = self.log.iter().find(|e| e.index == index) {
            self.applied = (index, entry.term);
            self.note();
        }
    }

    pub fn drain(&mut self) {
        while !self.in_flight.is_empty() {
            self.complete();
        }
    }

    pub fn flush(&mut self) {
        self.drain();
        while self.seal() {
            self.drain();
        }
    }

    pub fn watermark(&mut self) {
        if let Some(write) = self.writer.watermark(&mut dirty) {
            self.write(&write);
            self.op(Op::Sync(WalFile::Watermark));
            self.writer.watermark_durable();
        }
    }

    /// Cuts the log back to `index`.
    pub fn cut(&mut self, index: u64) {
        self.flush();
        let position = *self.hashes.iter().rfind(|p| p.index.get() == index).unwrap();
        self.writer.cut(position);
        self.log.retain(|e| e.index <= index);
        self.hashes.retain(|p| p.index.get() <= index);
    }
}

pub fn apply(image: &mut Image, op: &Op) {
    match op {
        Op::Create(file, size) => {
            image.insert(*file, vec![0; *size]);
        }
        Op::Write(file, offset, bytes) => {
            let at = *offset as usize;
            image.get_mut(file).unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Op::Sync(_) => {}
    }
}

pub fn files(image: &Image) -> Files {
    let size = |file| image.get(&file).map_or(0, |bytes: &Vec<u8>| bytes.len() as u64);
    let slots = image.iter().filter_map(|(file, bytes)| match file {
        WalFile::Slot(slot) => Some(SlotFile { slot: *slot, size: bytes.len() as u64 }),
        WalFile::Ring | WalFile::Watermark => None,
    });
    Files {
        slots: slots.collect(),
        ring_size: size(WalFile::Ring),
        watermark_size: size(WalFile::Watermark),
    }
}

pub fn owner() -> Owner {
    Owner::Member { cluster: CLUSTER, member: NodeId::new(MEMBER) }
}

pub fn upto((index, term): (u64, u64)) -> Applied {
    Applied::Upto { index: LogIndex::new(index), term: Term::new(term) }
}

/// Recovers an image. The reads are bounded: each byte at most a few times.
pub fn recover(image: &Image, applied: Applied) -> Result<Recovered, RecoveryError> {
    recover_as(image, owner(), applied)
}

pub fn recover_as(
    image: &Image,
    owner: Owner,
    applied: Applied,
) -> Result<Recovered, RecoveryError> {
    let mut recovery = Recovery::new(owner, &files(image), applied);
    let total: usize = image.values().map(Vec::len).sum();
    let mut reads = 0;
    while let Step::Read(read) = recovery.next() {
        reads += read.size;
        assert!(reads <= total * (4 + image.len()) + (1 << 20), "recovery reads without end");
        let at = read.offset as usize;
        recovery.feed(&image[&read.file][at..at + read.size]);
    }
    recovery.finish()
}

pub fn replay(
    image: &Image,
    recovered: &Recovered,
    after: LogIndex,
) -> Result<Vec<Owned>, RecoveryError> {
    let mut replay = Replay::new(recovered, after);
    let mut entries = Vec::new();
    loop {
        let read = match replay.next()? {
            ReplayStep::Done => return Ok(entries),
            ReplayStep::Entry(entry, _) => {
                entries.push(Owned {
                    index: entry.index.get(),
                    term: entry.term.get(),
                    kind: entry.kind,
                    payload: entry.payload.to_vec(),
                });
                continue;
            }
            ReplayStep::Read(read) => read,
        };
        let at = read.offset as usize;
        replay.feed(&image[&read.file][at..at + read.size]);
    }
}

pub fn small(ring_slots: u32, in_flight: usize) -> Options {
    Options {
        segment_size: 12 * BLOCK as u64,
        block_size: 3 * BLOCK,
        groups_in_flight_max: in_flight,
        ring_slots,
    }
}

/// One random step of a run with rotation, recycling, cuts, votes, watermarks.
pub fn random_step(run: &mut Run, prng: &mut Prng, term: &mut u64, with_cuts: bool) {
    match prng.below(22) {
        0..=8 => {
            let size = match prng.below(8) {
                0 => prng.below(20_000),
                1 => 0,
                _ => prng.below(600),
            };
            let mut payload = vec![0; size as usize];
            prng.fill(&mut payload);
            run.append(*term, prng.below(5) as u8, &payload);
        }
        9..=12 => {
            run.seal();
        }
        13..=15 => {
            if !run.in_flight.is_empty() {
                run.complete();
            }
        }
        16 => run.watermark(),
        17 => {
            *term += 1;
            let vote = Some(NodeId::new(prng.below(3)));
            let commit = LogIndex::new(run.applied.0);
            run.writer.set_hard_state(HardState {
                term: Term::new(*term),
                vote,
                commit,
                begun: false,
            });
        }
        18 => {
            let below = (run.applied.0 + 1).saturating_sub(prng.below(6));
            run.writer.recycle(LogIndex::new(below), LogIndex::MAX, 0);
            run.spares();
        }
        19..=20 => run.apply(prng.below(8)),
        _ => {
            // Raft cuts behind what is committed, so behind what is applied.
            let last = run.writer.last().index.get();
            let index = last.saturating_sub(prng.below(6)).max(run.applied.0);
            if with_cuts && run.hashes.iter().any(|p| p.index.get() == index) {
                run.cut(index);
                // What follows a cut comes from the leader of a newer term.
                *term += 1;
            }
        }
    }
}
