//! The store on a disk that comes to its end: it is always left by deleting and compacting, and a large
//! delete holds no more memory than many small ones. The page file is a `Vec` that may grow so far.

#![allow(clippy::unwrap_used)]

use base::{
    AlarmKind, Duration, FileId, Frame, Hash128, Instant, LogIndex, NodeId, RequestId, Term,
};
use bytes::BytesMut;
use kv::State;
use node::{
    CheckpointConfig, Committed, ConsensusEvent, EntryKind, Role, Store, StoreConfig, StoreEffect,
    StoreEvent,
};
use tree::{Open, OpenStep, PageFile};
use wire::{AlarmChange, Call, Compact, DeleteRange, Put, RequestEncoder, Splitter};

fn body(call: &Call<'_>) -> Frame {
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, 1 << 24);
    let mut frame = Vec::new();
    encoder.encode(&mut frame, RequestId::new(1), 0, call).unwrap();
    let mut splitter = Splitter::new();
    splitter.agree(1, 1 << 24);
    splitter.next(&mut BytesMut::from(&frame[..])).unwrap().unwrap().1
}

const CACHE_SIZE: u64 = 4 << 20;

struct Disk {
    store: Store<Vec<u8>>,
    events: Vec<StoreEvent>,
    image: Vec<u8>,
    size_max: u64,
    now: Instant,
    index: LogIndex,
    is_low: bool,
    dirty_peak: u64,
    quota: u64,
    /// How often an alarm was asked for.
    alarms: usize,
}

fn options() -> tree::Options {
    tree::Options {
        file: FileId::new(1),
        cluster: 9,
        member: NodeId::new(7),
        cache_size: CACHE_SIZE,
        growth_size: 1 << 20,
    }
}

fn store(state: State, now: Instant, quota_size: u64) -> Store<Vec<u8>> {
    let config = StoreConfig {
        reactors: 1,
        cluster: 9,
        member: NodeId::new(7),
        checkpoint: CheckpointConfig {
            log_size: 1 << 30,
            dirty_size: CACHE_SIZE / 4,
            interval: Duration::from_millis(5_000),
            room_min: 4 << 20,
            quota_size,
        },
        dirty_size_max: CACHE_SIZE / 2,
        read_slice: 512,
        history: kv::HistoryLimits::SERVER,
        retention: node::Retention::Everything,
        pages: options(),
    };
    let published = state.applied().0;
    Store::new(config, state, published, Box::new(|size| vec![0xEE; size]), now)
}

impl Disk {
    fn new(size_max: u64) -> Self {
        Self::with_quota(size_max, 0)
    }

    fn with_quota(size_max: u64, quota: u64) -> Self {
        let now = Instant::from_nanos(1);
        Self {
            store: store(State::create(PageFile::create(&options())), now, quota),
            events: Vec::new(),
            image: Vec::new(),
            size_max,
            now,
            index: LogIndex::ZERO,
            is_low: false,
            dirty_peak: 0,
            quota,
            alarms: 0,
        }
    }

    fn turn(&mut self) {
        let mut effects = Vec::new();
        for event in std::mem::take(&mut self.events) {
            self.store.handle(self.now, event, &mut effects);
        }
        self.store.flush(self.now, &mut effects);
        self.dirty_peak = self.dirty_peak.max(self.store.state().pages().dirty_size());
        for effect in effects {
            let event = match effect {
                StoreEffect::Read { miss, offset, size, for_transfer } => {
                    let from = usize::try_from(offset).unwrap();
                    let bytes = self.image[from..from + size].to_vec();
                    StoreEvent::PageRead { miss, bytes, for_transfer }
                }
                StoreEffect::Write { offset, block, size } => {
                    let from = usize::try_from(offset).unwrap();
                    // Behind the end there is no space, and the process would stop.
                    self.image[from..from + size].copy_from_slice(&block[..size]);
                    StoreEvent::PagesWritten
                }
                StoreEffect::Sync => StoreEvent::PagesSynced,
                StoreEffect::Grow { size } => {
                    let grown = size <= self.size_max;
                    if grown {
                        let size = usize::try_from(size).unwrap().max(self.image.len());
                        self.image.resize(size, 0);
                    }
                    let left = self.size_max - self.image.len() as u64;
                    self.events.push(StoreEvent::Available { size: left });
                    StoreEvent::Grown { size, grown }
                }
                StoreEffect::Punch { .. } => StoreEvent::Released,
                StoreEffect::Truncate { size } => {
                    self.image.truncate(usize::try_from(size).unwrap());
                    StoreEvent::Released
                }
                StoreEffect::ToConsensus(ConsensusEvent::PageSpace { low, .. }) => {
                    self.is_low = low;
                    continue;
                }
                StoreEffect::ToConsensus(ConsensusEvent::Propose { kind, .. }) => {
                    assert_eq!(kind, EntryKind::Alarm);
                    self.alarms += 1;
                    continue;
                }
                StoreEffect::Halt(text) => panic!("{text}"),
                _ => continue,
            };
            self.events.push(event);
        }
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            self.turn();
            if self.events.is_empty() && self.store.deadline() != Some(Instant::ORIGIN) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn enter(&mut self, kind: EntryKind, call: &Call<'_>) {
        self.index = self.index.next();
        self.events.push(StoreEvent::Apply(vec![Committed {
            index: self.index,
            term: Term::new(1),
            kind,
            stamp: None,
            frame: body(call),
            hash: Hash128::ZERO,
            ticket: None,
        }]));
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
        self.settle();
    }

    /// Puts until the disk is full; how many.
    fn fill(&mut self, value_size: usize) -> u64 {
        let value = vec![7; value_size];
        let mut count = 0;
        while !self.is_low {
            assert!(count < 1_000_000, "the disk never becomes full");
            for _ in 0..100 {
                let key = format!("k{:08}", self.index.get());
                self.enter(
                    EntryKind::Put,
                    &Call::Put(Put { key: key.as_bytes(), value: &value, ..Put::default() }),
                );
                count += 1;
            }
            // Consensus lets no more than so much wait.
            self.settle();
        }
        count
    }

    fn delete_all(&mut self) {
        let delete = DeleteRange { key: b"k", range_end: b"l", prev_kv: false };
        self.enter(EntryKind::DeleteRange, &Call::DeleteRange(delete));
    }

    /// The process ends and begins again with what the last checkpoint wrote.
    fn restart(&mut self) {
        let mut open = Open::new(&options(), self.image.len() as u64);
        while let OpenStep::Read { offset, size } = open.next() {
            let from = usize::try_from(offset).unwrap();
            open.feed(&self.image[from..from + size]);
        }
        let (pages, meta) = open.finish().unwrap();
        let mut state = State::open(pages, &meta).unwrap();
        state.pages_mut().set_backed(self.image.len() as u64);
        self.store = store(state, self.now, self.quota);
        self.events.clear();
        self.is_low = false;
    }
}

/// The driver tells what the file system has left before it tells that a file has grown, of the file on its
/// way in as well. A member whose file on its way in grew ended by a panic, and again after each start: a
/// new member of a cluster with more than 100,000 entries never came to be.
#[test]
fn a_state_on_its_way_in_hears_what_the_file_system_has_left() {
    let mut disk = Disk::new(64 << 20);
    let mut effects = Vec::new();
    disk.store.handle(disk.now, StoreEvent::Receive { transfer: 1 }, &mut effects);
    let is_made =
        |effect: &StoreEffect<_>| matches!(effect, StoreEffect::MakeIncoming { transfer: 1 });
    assert!(effects.iter().any(is_made));
    let told = [
        StoreEvent::IncomingMade,
        StoreEvent::Available { size: 32 << 20 },
        StoreEvent::Grown { size: 1 << 20, grown: true },
    ];
    for event in told {
        let event = StoreEvent::Incoming { transfer: 1, event: Box::new(event) };
        disk.store.handle(disk.now, event, &mut effects);
    }
    disk.settle();
}

#[test]
fn a_full_disk_is_always_left_by_deleting_everything_and_compacting() {
    for value_size in [10, 100, 1_000, 20_000] {
        let mut disk = Disk::new(48 << 20);
        let mut counts = Vec::new();
        for cycle in 0..5 {
            counts.push(disk.fill(value_size));
            disk.wait(6_000);
            disk.wait(6_000);
            if cycle % 2 == 0 && disk.store.state().between_entries() {
                disk.index = disk.store.state().applied().0;
                disk.restart();
                disk.wait(1_000);
            }
            disk.dirty_peak = 0;
            disk.delete_all();
            disk.settle();
            let state = disk.store.state();
            assert_eq!(state.applied().0, disk.index, "{value_size}: the delete is done");
            let revision = i64::try_from(state.revision().get()).unwrap();
            disk.enter(EntryKind::Compact, &Call::Compact(Compact { revision, physical: true }));
            for _ in 0..6 {
                disk.wait(6_000);
            }
            let state = disk.store.state();
            assert_eq!(state.applied().0, disk.index);
            assert!(!disk.is_low, "{value_size}, cycle {cycle}: writes are taken again");
            assert!(disk.dirty_peak <= CACHE_SIZE, "{value_size}: {} dirty", disk.dirty_peak);
            // What was deleted last goes with a compaction behind it.
            let put = Put { key: b"a", value: b"v", ..Put::default() };
            disk.enter(EntryKind::Put, &Call::Put(put));
            disk.settle();
            let revision = i64::try_from(disk.store.state().revision().get()).unwrap();
            disk.enter(EntryKind::Compact, &Call::Compact(Compact { revision, physical: true }));
            disk.wait(6_000);
        }
        let least = counts.iter().min().unwrap();
        assert!(least * 2 > counts[0], "{value_size}: each time as much fits: {counts:?}");
    }
}

#[test]
fn a_large_delete_is_bounded_in_memory_and_survives_a_stop_in_its_middle() {
    let mut disk = Disk::new(1 << 30);
    let value = vec![7; 1_000];
    for number in 0..40_000 {
        let key = format!("k{number:08}");
        let put = Put { key: key.as_bytes(), value: &value, ..Put::default() };
        disk.enter(EntryKind::Put, &Call::Put(put));
        if number % 100 == 0 {
            disk.turn();
        }
    }
    disk.settle();
    disk.wait(6_000);
    let before = disk.index;
    disk.dirty_peak = 0;
    disk.delete_all();
    let published = disk.store.state().pages().published().get();
    while disk.store.state().pages().published().get() < published + 3 {
        disk.turn();
    }
    assert_eq!(disk.store.state().applied().0, before, "it is on its way");
    disk.restart();
    let state = disk.store.state();
    assert!(state.applied().0 == before && !state.between_entries(), "half of it is written");
    disk.index = before;
    disk.delete_all();
    disk.settle();
    let state = disk.store.state();
    assert!(state.applied().0 == disk.index && state.between_entries());
    assert!(disk.dirty_peak <= CACHE_SIZE, "{} bytes were dirty", disk.dirty_peak);
    assert!(state.delete_growth() < 1 << 14, "nothing is live");
}

/// The alarms that the store of a disk has asked for since the last call.
fn alarms_asked(disk: &mut Disk) -> usize {
    std::mem::take(&mut disk.alarms)
}

/// A quota is met by a write, and it is a write that has the alarm raised, also once it was disarmed.
#[test]
fn a_write_that_meets_the_quota_has_the_alarm_raised_until_it_is_up() {
    let mut disk = Disk::with_quota(1 << 30, 4 << 20);
    let value = vec![7; 20_000];
    let put = Put { key: b"k", value: &value, ..Put::default() };
    let change = |disarm| {
        let (kind, member) = (AlarmKind::NoSpace, NodeId::new(7));
        Call::Alarm(AlarmChange { disarm, kind, member })
    };
    let mut count = 0;
    while alarms_asked(&mut disk) == 0 {
        disk.enter(EntryKind::Put, &Call::Put(put));
        disk.settle();
        count += 1;
        assert!(count < 1_000, "20 MB fit into 4");
    }
    // It is on its way; nobody can say whether it will come.
    disk.enter(EntryKind::Put, &Call::Put(put));
    disk.settle();
    assert_eq!(alarms_asked(&mut disk), 0);
    disk.wait(2_000);
    assert_eq!(alarms_asked(&mut disk), 0, "time alone does nothing");
    disk.enter(EntryKind::Put, &Call::Put(put));
    disk.settle();
    assert_eq!(alarms_asked(&mut disk), 1);
    disk.wait(2_000);
    disk.enter(EntryKind::Alarm, &change(false));
    disk.enter(EntryKind::Put, &Call::Put(put));
    let revision = disk.store.state().revision();
    disk.settle();
    assert_eq!((alarms_asked(&mut disk), disk.store.state().revision()), (0, revision));
    assert_eq!(disk.store.state().alarms().len(), 1);
    disk.enter(EntryKind::Alarm, &change(true));
    disk.settle();
    disk.wait(2_000);
    assert_eq!((alarms_asked(&mut disk), disk.store.state().alarms().len()), (0, 0));
    // The leader refuses one for its quota.
    disk.events.push(StoreEvent::QuotaRefused);
    disk.settle();
    assert_eq!(alarms_asked(&mut disk), 1);
}
