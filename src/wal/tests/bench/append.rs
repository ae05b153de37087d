//! Measures the hot path: nanoseconds per record of 280 bytes, ring on and off, for several group
//! sizes; and how fast recovery and replay go over what was written. No I/O is done.
//!
//! `cargo run --release -p wal --example append_speed`

use std::time::Instant;

use base::{FileId, LogIndex, NodeId, Term};
use wal::{
    Append, Applied, Entry, Files, Identity, Options, Owner, Position, Recovery, Replay,
    ReplayStep, Seal, SlotFile, Step, WalFile, Write, Writer,
};

const SEGMENT_SIZE: usize = 256 << 20;
const RECORDS: u64 = 500_000;

/// A pool of blocks, as the server has one: without it the first touch of fresh memory is measured.
struct Disk {
    pool: Vec<Vec<u8>>,
    slot: Vec<u8>,
}

impl Disk {
    fn block(pool: &mut Vec<Vec<u8>>, size: usize) -> Vec<u8> {
        let at = pool.iter().position(|block| block.len() == size);
        at.map_or_else(|| vec![0xDB; size], |at| pool.swap_remove(at))
    }

    fn take(&mut self, write: Write<Vec<u8>>, keep: bool) {
        if let (WalFile::Slot(_), true) = (write.file, keep) {
            let at = usize::try_from(write.offset).expect("64 bits");
            self.slot[at..at + write.size].copy_from_slice(&write.block[..write.size]);
        }
        self.pool.extend(std::rc::Rc::into_inner(write.block));
    }
}

fn identity(incarnation: u128) -> Identity {
    Identity { cluster: 1, member: NodeId::new(1), incarnation: FileId::new(incarnation) }
}

/// Nanoseconds per record.
fn run(per_group: u64, payload: usize, ring_slots: u32, keep: bool) -> (f64, Disk) {
    let segment_size = u64::try_from(SEGMENT_SIZE).expect("64 bits");
    let options =
        Options { segment_size, block_size: 1 << 20, groups_in_flight_max: 1, ring_slots };
    let mut writer: Writer<Vec<u8>> = Writer::create(identity(1), options, Position::ORIGIN);
    let mut disk = Disk { pool: Vec::new(), slot: vec![0; if keep { SEGMENT_SIZE } else { 0 }] };
    let mut slot = 0;
    let payload = vec![0x5A; payload];
    let records = if per_group == 1 { 50_000 } else { RECORDS };
    let mut nanos = 0;
    let mut index = LogIndex::ZERO;
    while index.get() < records {
        while writer.spares_wanted() > 0 {
            let pool = &mut disk.pool;
            let uuid = FileId::new(u128::from(slot));
            let write = writer.prepare_spare(slot, uuid, &mut |size| Disk::block(pool, size));
            disk.take(write, keep && slot == 0);
            writer.spare_ready(slot);
            slot += 1;
        }
        let start = Instant::now();
        let pool = &mut disk.pool;
        let mut allocate = |size| Disk::block(pool, size);
        for _ in 0..per_group {
            index = index.next();
            let entry = Entry { index, term: Term::new(1), kind: 1, payload: &payload };
            if writer.append(&entry, &mut allocate) == Append::Full {
                panic!("groups fit their block");
            }
        }
        let Seal::Group(group) = writer.seal(&mut allocate) else { panic!("a spare is ready") };
        writer.written(group.lsn);
        writer.durable(group.lsn);
        nanos += start.elapsed().as_nanos();
        if let Some(ring) = group.ring {
            disk.take(ring, keep);
        }
        disk.take(group.group, keep);
    }
    (nanos as f64 / records as f64, disk)
}

fn main() {
    for per_group in [1, 16, 64, 1024] {
        for ring_slots in [0, 1024] {
            run(per_group, 280, ring_slots, false);
            let best = (0..5).map(|_| run(per_group, 280, ring_slots, false).0);
            let best = best.fold(f64::MAX, f64::min);
            println!(
                "{per_group:5} records a group, ring {ring_slots:4}: {best:6.0} ns per record"
            );
        }
    }
    let (_, disk) = run(64, 280, 0, true);
    let size = u64::try_from(SEGMENT_SIZE).expect("64 bits");
    let slots = vec![SlotFile { slot: 0, size }];
    let files = Files { slots, ring_size: 0, watermark_size: 0 };
    let owner = Owner::Member { cluster: 1, member: NodeId::new(1) };
    let start = Instant::now();
    let mut recovery = Recovery::new(owner, &files, Applied::Unknown);
    let bytes = |offset: u64, size: usize| {
        let at = usize::try_from(offset).expect("64 bits");
        &disk.slot[at..at + size]
    };
    while let Step::Read(read) = recovery.next() {
        recovery.feed(bytes(read.offset, read.size));
    }
    let recovered = recovery.finish().expect("the log is whole");
    let scan = start.elapsed();
    let start = Instant::now();
    let mut replay = Replay::new(&recovered, LogIndex::ZERO);
    let mut count = 0_u64;
    loop {
        match replay.next().expect("the log is whole") {
            ReplayStep::Read(read) => replay.feed(bytes(read.offset, read.size)),
            ReplayStep::Entry(..) => count += 1,
            ReplayStep::Done => break,
        }
    }
    assert_eq!(count, recovered.last.index.get());
    let used: usize = recovered.groups.iter().map(|row| row.size).sum();
    println!(
        "recovery of {} MB with {count} records and {} MB behind them: {scan:?}; replay {:?}",
        used / 1_000_000,
        (SEGMENT_SIZE - used) / 1_000_000,
        start.elapsed()
    );
}
