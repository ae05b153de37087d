//! Boot: a page file that never got its first meta record whole, and replay, whose reads must be few and
//! change nothing.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use base::limits::PAGE_SIZE;
use base::{ClientId, FileId, Hash128, LogIndex, NodeId, Prng, RequestId, Stamp, Term};
use kv::{Command, State, Step};
use node::{Boot, BootError, BootRead, BootStep, Booted, DataFile, EntryKind, STAMP_MARK};
use tree::PageFile;
use wal::{
    Append, Entry, Files, HardState, Position, READ_SIZE_MAX, Seal, SlotFile, WalFile, Write,
    Writer,
};
use wire::{Call, CompareResult, CompareTarget, RequestEncoder};

const MEMBER: NodeId = NodeId::new(7);
const TERM: Term = Term::new(1);
const SEGMENT_SIZE: usize = 8 << 20;
/// Keys that the checkpoint holds.
const KEYS: u64 = 20_000;

fn options(cache_size: u64) -> tree::Options {
    tree::Options {
        file: FileId::new(1),
        cluster: 9,
        member: MEMBER,
        cache_size,
        growth_size: 1 << 20,
    }
}

/// Boots from a page file that is filled with one byte and an empty log.
fn boot_from_pages_of(byte: u8) -> Booted {
    let options = options(1 << 20);
    let files = Files { slots: Vec::new(), ring_size: 0, watermark_size: 0 };
    let mut boot = Boot::new(options, 1 << 20, files, Vec::new());
    while let BootStep::Read { file, size, .. } = boot.next().unwrap() {
        assert_eq!(file, DataFile::Pages);
        boot.feed(&vec![byte; size]).unwrap();
    }
    boot.finish()
}

/// A crash once tore the very first meta record: the start was refused although the log held everything.
#[test]
fn a_torn_first_meta_record_is_no_reason_to_refuse_while_the_log_is_whole() {
    let booted = boot_from_pages_of(0xA5);
    assert!(booted.clear_slots, "what was torn must not come back as a record");
    assert_eq!((booted.published, booted.replayed), (LogIndex::ZERO, 0));
    assert!(!boot_from_pages_of(0).clear_slots, "there is nothing to clear in blank slots");
}

/// A write, as a client asks for it and as the state knows it.
enum Change {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        keeps_value: bool,
    },
    Delete {
        key: Vec<u8>,
        range_end: Vec<u8>,
    },
    /// If `key` is there, `then` is written, else `otherwise`.
    Branch {
        key: Vec<u8>,
        then: Vec<u8>,
        otherwise: Vec<u8>,
    },
    /// The registration of a client, for so many at once.
    Register(u32),
    /// A write with a stamp; of two with the same one only the first is done.
    Once(Stamp, Box<Change>),
}

impl Change {
    fn put(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self::Put { key, value, keeps_value: false }
    }

    fn stamp(&self) -> Option<&Stamp> {
        if let Self::Once(stamp, _) = self { Some(stamp) } else { None }
    }

    fn with_command<T>(&self, apply: &mut dyn FnMut(&Command<'_>) -> T) -> T {
        let put = |key| kv::Put { key, value: b"branch", ..kv::Put::default() };
        match self {
            Self::Put { key, value, keeps_value: ignore_value } => apply(&Command::Put(kv::Put {
                key,
                value,
                ignore_value: *ignore_value,
                ..kv::Put::default()
            })),
            Self::Delete { key, range_end } => apply(&Command::DeleteRange(kv::DeleteRange {
                key,
                range_end,
                ..kv::DeleteRange::default()
            })),
            Self::Branch { key, then, otherwise } => {
                let compare = kv::Compare {
                    key,
                    range_end: &[],
                    relation: kv::Relation::Greater,
                    operand: kv::Operand::Version(0),
                };
                apply(&Command::Txn(kv::Txn {
                    compares: vec![compare],
                    success: vec![kv::Op::Put(put(then))],
                    failure: vec![kv::Op::Put(put(otherwise))],
                }))
            }
            Self::Register(clients_max) => apply(&Command::Register { clients_max: *clients_max }),
            Self::Once(_, change) => change.with_command(apply),
        }
    }

    fn entry(&self) -> (u8, Vec<u8>) {
        let mut frame = Vec::new();
        let mut encode = |call: &Call<'_>| {
            let mut encoder = RequestEncoder::new();
            encoder.agree(1, base::limits::body_size_max(1 << 20));
            encoder.encode(&mut frame, RequestId::new(1), 0, call).unwrap();
        };
        let put = |key| wire::Op::Put(wire::Put { key, value: b"branch", ..wire::Put::default() });
        let kind = match self {
            Self::Put { key, value, keeps_value: ignore_value } => {
                let put =
                    wire::Put { key, value, ignore_value: *ignore_value, ..wire::Put::default() };
                encode(&Call::Put(put));
                EntryKind::Put
            }
            Self::Register(clients_max) => {
                return (EntryKind::Register as u8, clients_max.to_le_bytes().to_vec());
            }
            Self::Once(stamp, change) => {
                let (kind, body) = change.entry();
                return (kind | STAMP_MARK, [&stamp.to_bytes()[..], &body].concat());
            }
            Self::Delete { key, range_end } => {
                let delete = wire::DeleteRange { key, range_end, ..wire::DeleteRange::default() };
                encode(&Call::DeleteRange(delete));
                EntryKind::DeleteRange
            }
            Self::Branch { key, then, otherwise } => {
                let (version, greater) = (CompareTarget::Version, CompareResult::Greater);
                let compare = wire::Compare::number(key, version, greater, 0);
                let txn = wire::Txn::new().when(compare).then(put(then)).otherwise(put(otherwise));
                encode(&Call::Txn(&txn));
                EntryKind::Txn
            }
        };
        (kind as u8, frame.split_off(wire::HEADER_SIZE))
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:08}").into_bytes()
}

fn value(prng: &mut Prng) -> Vec<u8> {
    // Now and then one that gets a run of its own.
    let size = if prng.one_in(200) { 9_000 } else { 100 + prng.below(200) };
    let mut value = vec![0; usize::try_from(size).unwrap()];
    prng.fill(&mut value);
    value
}

/// The files of a member that was killed, and the state that it had.
struct Killed {
    pages: Vec<u8>,
    slots: Vec<Vec<u8>>,
    state: State,
    /// Entries behind the checkpoint.
    entries: u64,
}

impl Killed {
    /// A checkpoint of [`KEYS`] keys, then these changes, the last `pending` of them not known to be
    /// committed.
    fn after(changes: &[Change], pending: u64) -> Self {
        let mut prng = Prng::new(3);
        let mut state = State::create(PageFile::create(&options(1 << 30)));
        let mut log: Vec<Change> = Vec::new();
        for number in 0..KEYS {
            log.push(Change::put(key(number), value(&mut prng)));
            apply(&mut state, log.last().unwrap());
        }
        let pages = checkpoint(&mut state);
        let entries = u64::try_from(changes.len()).unwrap();
        let committed = KEYS + entries - pending;
        let slots = write_log(log.iter().chain(changes), committed);
        for change in &changes[..usize::try_from(entries - pending).unwrap()] {
            apply(&mut state, change);
        }
        Self { pages, slots, state, entries }
    }

    fn files(&self) -> Files {
        let slots = self.slots.iter().enumerate().map(|(slot, bytes)| SlotFile {
            slot: u32::try_from(slot).unwrap(),
            size: u64::try_from(bytes.len()).unwrap(),
        });
        Files { slots: slots.collect(), ring_size: 0, watermark_size: 0 }
    }

    fn begin(&self, cache_size: u64) -> Boot {
        let size = u64::try_from(self.pages.len()).unwrap();
        Boot::new(options(cache_size), size, self.files(), Vec::new())
    }

    fn bytes(&self, read: BootRead) -> &[u8] {
        let file = match read.file {
            DataFile::Pages => &self.pages,
            DataFile::Wal(WalFile::Slot(slot)) => &self.slots[usize::try_from(slot).unwrap()],
            DataFile::Wal(_) => panic!("there is no {:?}", read.file),
        };
        let from = usize::try_from(read.offset).unwrap().min(file.len());
        &file[from..file.len().min(from + read.size)]
    }

    /// Boots, and counts.
    fn boot(&self, cache_size: u64) -> (Booted, Counts) {
        let mut boot = self.begin(cache_size);
        let mut counts = Counts::default();
        let mut foretold: HashSet<(DataFile, u64, usize)> = HashSet::new();
        while let BootStep::Read { file, offset, size } = boot.next().unwrap() {
            let read = BootRead { file, offset, size };
            let known = foretold.contains(&(file, offset, size));
            match file {
                DataFile::Pages => {
                    counts.page_reads += 1;
                    counts.page_rounds += u64::from(!known);
                    counts.page_bytes += size;
                    assert!(size <= READ_SIZE_MAX, "a read of {size} bytes");
                }
                DataFile::Wal(_) => {
                    counts.wal_reads += 1;
                    counts.wal_rounds += u64::from(!known);
                }
            }
            let mut ahead = 0;
            for read in (0..).map_while(|n| boot.ahead(n)) {
                foretold.insert((read.file, read.offset, read.size));
                ahead += if read.file == DataFile::Pages { read.size } else { 0 };
            }
            counts.ahead_max = counts.ahead_max.max(ahead);
            boot.feed(self.bytes(read)).unwrap();
        }
        (boot.finish(), counts)
    }

    /// A boot must come to what the member had.
    fn check(&self, booted: &Booted, pending: u64) {
        let ours = |state: &State| (state.applied(), state.revision(), state.state_hash());
        assert_eq!(ours(&booted.state), ours(&self.state));
        assert_ne!(booted.state.state_hash(), Hash128::ZERO);
        assert_eq!(booted.published.get(), KEYS);
        assert_eq!(booted.replayed, self.entries - pending);
        let indexes = booted.tail.pending().map(|entry| entry.index.get());
        let applied = booted.state.applied().0.get();
        assert!(indexes.eq(applied + 1..=applied + pending));
    }
}

#[derive(Default, Debug)]
struct Counts {
    page_reads: u64,
    /// Reads of pages that nothing had foretold: whoever has many reads under way waits this often.
    page_rounds: u64,
    page_bytes: usize,
    wal_reads: u64,
    wal_rounds: u64,
    /// Greatest sum of what was foretold at one time.
    ahead_max: usize,
}

fn apply(state: &mut State, change: &Change) {
    change.with_command(&mut |command| {
        let index = state.applied().0.next();
        let step = state.apply_once(index, TERM, change.stamp(), command, &mut u32::MAX.clone());
        assert!(matches!(step, Step::Done(_)));
    });
}

/// Writes a checkpoint of the state; the bytes of the page file.
fn checkpoint(state: &mut State) -> Vec<u8> {
    let size = state.pages().file_size() + (8 << 20);
    let mut image = vec![0; usize::try_from(size).unwrap()];
    state.pages_mut().set_backed(size);
    state.checkpoint_begin();
    let pages = state.pages_mut();
    while let Some(write) = pages.checkpoint_next() {
        let from = usize::try_from(write.offset).unwrap();
        pages.checkpoint_fill(&write, &mut image[from..from + write.size]);
    }
    let mut meta = Box::new([0; tree::META_SIZE]);
    let offset = usize::try_from(pages.checkpoint_meta(&mut meta)).unwrap();
    image[offset..offset + tree::META_SIZE].copy_from_slice(&meta[..]);
    pages.checkpoint_published();
    image
}

/// Writes a log of these changes; the bytes of its slots.
fn write_log<'c>(changes: impl Iterator<Item = &'c Change>, committed: u64) -> Vec<Vec<u8>> {
    let identity = wal::Identity { cluster: 9, member: MEMBER, incarnation: FileId::new(1) };
    let options = wal::Options {
        segment_size: u64::try_from(SEGMENT_SIZE).unwrap(),
        block_size: 1 << 20,
        groups_in_flight_max: 1,
        ring_slots: 0,
    };
    let mut writer: Writer<Vec<u8>> = Writer::create(identity, options, Position::ORIGIN);
    let mut slots: Vec<Vec<u8>> = Vec::new();
    let mut allocate = |size| vec![0; size];
    let take = |write: &Write<Vec<u8>>, slots: &mut Vec<Vec<u8>>| {
        let WalFile::Slot(slot) = write.file else { return };
        let from = usize::try_from(write.offset).unwrap();
        slots[usize::try_from(slot).unwrap()][from..from + write.size]
            .copy_from_slice(&write.block[..write.size]);
    };
    let seal = |writer: &mut Writer<Vec<u8>>, slots: &mut Vec<Vec<u8>>| {
        while writer.spares_wanted() > 0 {
            let slot = u32::try_from(slots.len()).unwrap();
            slots.push(vec![0; SEGMENT_SIZE]);
            let uuid = FileId::new(u128::from(slot) + 1);
            let write = writer.prepare_spare(slot, uuid, &mut |size| vec![0; size]);
            take(&write, slots);
            writer.spare_ready(slot);
        }
        let Seal::Group(group) = writer.seal(&mut |size| vec![0; size]) else { panic!() };
        writer.written(group.lsn);
        writer.durable(group.lsn);
        take(&group.group, slots);
    };
    for (number, change) in (1..).zip(changes) {
        let (kind, payload) = change.entry();
        let index = LogIndex::new(number);
        let entry = Entry { index, term: TERM, kind, payload: &payload };
        if writer.append(&entry, &mut allocate) == Append::Full {
            seal(&mut writer, &mut slots);
            assert_ne!(writer.append(&entry, &mut allocate), Append::Full);
        }
    }
    let commit = LogIndex::new(committed);
    writer.set_hard_state(HardState { term: TERM, vote: None, commit, begun: true });
    seal(&mut writer, &mut slots);
    slots
}

/// Puts of random keys.
fn puts(count: u64) -> Vec<Change> {
    let mut prng = Prng::new(4);
    (0..count).map(|_| Change::put(key(prng.below(KEYS)), value(&mut prng))).collect()
}

#[test]
fn replay_reads_the_pages_of_many_entries_together_and_comes_to_the_same_state() {
    let killed = Killed::after(&puts(3_000), 5);
    let (booted, counts) = killed.boot(1 << 30);
    killed.check(&booted, 5);
    // Slots, free list, two levels of branches; the first page of replay; the leaf of the newest events.
    assert!(counts.page_rounds <= 8, "{counts:?}");
    // Most leaves are changed, and they lie side by side: one read brings many.
    assert!(counts.page_reads <= 40, "{counts:?}");
    assert!(counts.page_bytes < killed.pages.len(), "{counts:?}");
    assert!(counts.wal_rounds * 3 < counts.wal_reads, "{counts:?}");
}

/// Every leaf that a put needs is read in a round of many also where the cache holds a tenth of them.
#[test]
fn replay_in_a_cache_that_is_far_too_small_is_bounded_in_rounds_and_in_what_it_asks_for() {
    let killed = Killed::after(&puts(3_000), 0);
    let bound: u64 = 2 << 20;
    let (booted, counts) = killed.boot(bound);
    killed.check(&booted, 0);
    let ahead = u64::try_from(counts.ahead_max).unwrap();
    // Half of what the cache has room for, and what lies between.
    assert!(ahead <= bound * 3 / 4, "{ahead} bytes foretold in a cache of {bound}");
    assert!(counts.page_rounds <= 60, "{counts:?}");
    let clean = booted.state.pages().resident_size() - booted.state.pages().dirty_size();
    assert!(clean <= bound / 2, "{clean} bytes of clean pages in a cache of {bound}");
}

#[test]
fn replay_of_deletes_over_ranges_and_of_transactions_reads_together_too() {
    let mut prng = Prng::new(5);
    let mut changes = Vec::new();
    for _ in 0..300 {
        let from = prng.below(KEYS);
        changes.push(match prng.below(4) {
            0 => Change::Delete { key: key(from), range_end: key(from + prng.below(40)) },
            1 => Change::Delete { key: key(from), range_end: Vec::new() },
            2 => Change::Put { key: key(from), value: Vec::new(), keeps_value: true },
            _ => Change::Branch {
                key: key(from),
                then: key(prng.below(KEYS)),
                otherwise: key(prng.below(KEYS)),
            },
        });
    }
    changes.push(Change::Delete { key: key(0), range_end: vec![0] });
    let killed = Killed::after(&changes, 0);
    for (cache_size, rounds_max) in [(1 << 30, 12), (2 << 20, 80)] {
        let (booted, counts) = killed.boot(cache_size);
        killed.check(&booted, 0);
        assert!(counts.page_rounds <= rounds_max, "{counts:?}");
    }
}

#[test]
fn replay_keeps_what_came_of_writes_with_stamps_and_does_none_of_them_twice() {
    let mut prng = Prng::new(6);
    let mut changes = Vec::new();
    let mut clients: Vec<(u64, u64)> = Vec::new();
    for number in KEYS + 1..KEYS + 1_500 {
        if prng.one_in(20) {
            changes.push(Change::Register(9));
            clients.push((number, 1));
            continue;
        }
        let change = match prng.below(8) {
            0 => Change::Delete { key: key(prng.below(KEYS)), range_end: Vec::new() },
            _ => Change::put(key(prng.below(KEYS)), value(&mut prng)),
        };
        let place = usize::try_from(prng.below(12)).unwrap();
        let Some((client, next)) = clients.iter_mut().rev().nth(place) else {
            changes.push(change);
            continue;
        };
        // Every fourth is sent again, perhaps below the floor by now.
        let again = prng.one_in(4);
        let sequence = if again { next.saturating_sub(1 + prng.below(3)) } else { *next };
        *next += u64::from(!again);
        let floor = sequence.saturating_sub(prng.below(3));
        let stamp = Stamp { client: ClientId::new(*client), sequence, floor };
        changes.push(Change::Once(stamp, Box::new(change)));
    }
    let killed = Killed::after(&changes, 3);
    assert_eq!(killed.state.clients(), 9);
    let writes = u64::try_from(changes.len()).unwrap() + KEYS;
    assert!(killed.state.revision().get() < writes - 300, "many were known or expired");
    for cache_size in [1 << 30, 2 << 20] {
        let (booted, _) = killed.boot(cache_size);
        killed.check(&booted, 3);
        assert_eq!(booted.state.clients(), 9);
    }
}

/// A read that is merged from many touches what nobody needs, and what is only foreseen may never be
/// needed: neither may stop a start.
#[test]
fn what_is_only_foreseen_may_be_unreadable_or_damaged() {
    let killed = Killed::after(&puts(500), 0);
    for damages in [false, true] {
        let mut boot = killed.begin(1 << 30);
        let (mut replaying, mut failed) = (false, 0);
        while let BootStep::Read { file, offset, size } = boot.next().unwrap() {
            let read = BootRead { file, offset, size };
            replaying |= file != DataFile::Pages;
            // All but the reads of one page, by which a page is read that was missed.
            if replaying && file == DataFile::Pages && size > PAGE_SIZE {
                failed += 1;
                if damages {
                    boot.feed(&vec![0xEE; size]).unwrap();
                } else {
                    boot.feed_unreadable();
                }
                continue;
            }
            boot.feed(killed.bytes(read)).unwrap();
        }
        assert!(failed > 0);
        killed.check(&boot.finish(), 0);
    }
}

#[test]
fn a_page_that_replay_needs_must_be_readable_and_whole() {
    let killed = Killed::after(&puts(10), 0);
    for damages in [false, true] {
        let mut boot = killed.begin(1 << 30);
        let mut replaying = false;
        let refused = loop {
            let step = match boot.next() {
                Ok(step) => step,
                Err(error) => break Some(error),
            };
            let BootStep::Read { file, offset, size } = step else {
                panic!("it started without its pages")
            };
            replaying |= file != DataFile::Pages;
            if !(replaying && file == DataFile::Pages) {
                boot.feed(killed.bytes(BootRead { file, offset, size })).unwrap();
            } else if damages {
                if let Err(error) = boot.feed(&vec![0xEE; size]) {
                    break Some(error);
                }
            } else if boot.survives_failure() {
                boot.feed_unreadable();
            } else {
                break None;
            }
        };
        assert_eq!(damages, matches!(refused, Some(BootError::Page(_))), "{refused:?}");
    }
}
