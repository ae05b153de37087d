//! Trimming gives way to applying and to checkpoints, and still comes to its end; what it frees goes back
//! to the file system a little at a time. The page file is a `Vec`, its writes complete when the test says.

#![allow(clippy::unwrap_used)]

use base::limits::{READ_HOLD_MS, READ_HOLD_STALLED_MS};
use base::{
    ConnectionId, Duration, FileId, Frame, Hash128, Instant, LogIndex, NodeId, Prng, ReactorId,
    RequestId, Revision, Term, Ticket,
};
use bytes::BytesMut;
use kv::State;
use node::{
    CheckpointConfig, Committed, EntryKind, ReactorEvent, ReadKind, ReadRequest, ReplyBody, Role,
    Store, StoreConfig, StoreEffect, StoreEvent,
};
use tree::PageFile;
use wire::{Call, Compact, DeleteRange, Put, Range, Reply, RequestEncoder, Splitter, Status};

const CACHE_SIZE: u64 = 4 << 20;
const DIRTY_SIZE_MAX: u64 = CACHE_SIZE / 2;
const DIRTY_SIZE_DUE: u64 = CACHE_SIZE / 4;

/// What trimming may add to either: its share of the bound, and a slice with its path.
const BESIDE: u64 = DIRTY_SIZE_MAX / 16 + (256 << 10);

const KEYS: u64 = 20_000;

const TICKET: Ticket = Ticket {
    reactor: ReactorId::new(0),
    connection: ConnectionId { slot: 0, generation: 1 },
    request: RequestId::new(1),
    size: 0,
    reads: true,
    watches: false,
};

fn body(call: &Call<'_>) -> Frame {
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, 1 << 24);
    let mut frame = Vec::new();
    encoder.encode(&mut frame, RequestId::new(1), 0, call).unwrap();
    let mut splitter = Splitter::new();
    splitter.agree(1, 1 << 24);
    splitter.next(&mut BytesMut::from(&frame[..])).unwrap().unwrap().1
}

/// A store over its page file.
struct Host {
    store: Store<Vec<u8>>,
    events: Vec<StoreEvent>,
    image: Vec<u8>,
    now: Instant,
    index: LogIndex,
    /// Writes of the page file do not complete, as on a disk that is busy.
    is_stuck: bool,
    stuck: usize,
    /// Bytes handed back, each with its time.
    released: Vec<(Instant, u64)>,
    /// Pieces of the read that were handed out, and how it ended.
    pieces: Vec<Vec<u8>>,
    ended: Option<Status>,
}

impl Host {
    fn new() -> Self {
        let options = tree::Options {
            file: FileId::new(1),
            cluster: 9,
            member: NodeId::new(7),
            cache_size: CACHE_SIZE,
            growth_size: 1 << 20,
        };
        let now = Instant::from_nanos(1);
        let config = StoreConfig {
            reactors: 1,
            cluster: 9,
            member: NodeId::new(7),
            checkpoint: CheckpointConfig {
                log_size: 1 << 30,
                dirty_size: DIRTY_SIZE_DUE,
                interval: Duration::from_millis(5_000),
                room_min: 4 << 20,
                quota_size: 0,
            },
            dirty_size_max: DIRTY_SIZE_MAX,
            read_slice: 512,
            retention: node::Retention::Everything,
            pages: options.clone(),
            history: kv::HistoryLimits::SERVER,
        };
        let state = State::create(PageFile::create(&options));
        let allocate = Box::new(|size| vec![0xEE; size]);
        Self {
            store: Store::new(config, state, LogIndex::ZERO, allocate, now),
            events: Vec::new(),
            image: Vec::new(),
            now,
            index: LogIndex::ZERO,
            is_stuck: false,
            stuck: 0,
            released: Vec::new(),
            pieces: Vec::new(),
            ended: None,
        }
    }

    fn dirty_size(&self) -> u64 {
        self.store.state().pages().dirty_size()
    }

    fn turn(&mut self) {
        let mut effects = Vec::new();
        if !self.is_stuck {
            let count = std::mem::take(&mut self.stuck);
            self.events.extend((0..count).map(|_| StoreEvent::PagesWritten));
        }
        for event in std::mem::take(&mut self.events) {
            self.store.handle(self.now, event, &mut effects);
        }
        self.store.flush(self.now, &mut effects);
        for effect in effects {
            let event = match effect {
                StoreEffect::Read { miss, offset, size, for_transfer } => {
                    let from = usize::try_from(offset).unwrap();
                    let bytes = self.image[from..from + size].to_vec();
                    StoreEvent::PageRead { miss, bytes, for_transfer }
                }
                StoreEffect::Write { offset, block, size } => {
                    let from = usize::try_from(offset).unwrap();
                    self.image[from..from + size].copy_from_slice(&block[..size]);
                    self.stuck += 1;
                    continue;
                }
                StoreEffect::Sync => StoreEvent::PagesSynced,
                StoreEffect::Grow { size } => {
                    let length = usize::try_from(size).unwrap().max(self.image.len());
                    self.image.resize(length, 0);
                    self.events.push(StoreEvent::Available { size: 1 << 40 });
                    StoreEvent::Grown { size, grown: true }
                }
                StoreEffect::Punch { size, .. } => {
                    self.released.push((self.now, size));
                    StoreEvent::Released
                }
                StoreEffect::Truncate { size } => {
                    let size = usize::try_from(size).unwrap();
                    self.released.push((self.now, (self.image.len() - size) as u64));
                    self.image.truncate(size);
                    StoreEvent::Released
                }
                StoreEffect::Halt(text) => panic!("{text}"),
                StoreEffect::ToReactor(_, ReactorEvent::Replies(replies)) => {
                    for reply in replies {
                        match reply.body {
                            ReplyBody::Piece(piece) => self.pieces.push(piece),
                            ReplyBody::Frames(last) => {
                                self.pieces.push(last);
                                self.ended = Some(Status::Ok);
                            }
                            ReplyBody::Refused(refused) => self.ended = Some(refused.status),
                            _ => unreachable!("only a range is asked for"),
                        }
                    }
                    continue;
                }
                _ => continue,
            };
            self.events.push(event);
        }
    }

    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            self.turn();
            if self.events.is_empty()
                && self.stuck == 0
                && self.store.deadline() != Some(Instant::ORIGIN)
            {
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

    /// Asks for everything, a piece at a time.
    fn read(&mut self) {
        let range = Range { key: b"\0", range_end: b"\0", ..Range::default() };
        self.events.push(StoreEvent::Read(ReadRequest {
            ticket: TICKET,
            frame: body(&Call::Range(range)),
            what: ReadKind::Range,
            time: 0,
            applied_min: LogIndex::ZERO,
            deadline: None,
        }));
    }

    /// Time passes, with all the turns that the store asks for.
    fn pass(&mut self, ms: u64) {
        let end = self.now.after(Duration::from_millis(ms));
        loop {
            self.settle();
            match self.store.deadline() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    fn put(&mut self, key: &str, size: usize) {
        let value = vec![7; size];
        let put = Put { key: key.as_bytes(), value: &value, ..Put::default() };
        self.enter(EntryKind::Put, &Call::Put(put));
    }

    /// Keys that came and went in the order of a shuffle: each tombstone has a leaf of its own.
    fn history(&mut self) {
        for number in 0..KEYS {
            self.put(&format!("k{number:08}"), 100);
            if number.is_multiple_of(100) {
                self.settle();
            }
        }
        for number in 0..KEYS {
            let key = format!("k{:08}", number * 7_919 % KEYS);
            let delete = DeleteRange { key: key.as_bytes(), ..DeleteRange::default() };
            self.enter(EntryKind::DeleteRange, &Call::DeleteRange(delete));
            if number.is_multiple_of(100) {
                self.settle();
            }
        }
        self.settle();
        self.now = self.now.after(Duration::from_millis(6_000));
        self.settle();
    }

    fn compact(&mut self) -> Revision {
        let revision = self.store.state().revision();
        let compact = Compact { revision: revision.get().try_into().unwrap(), physical: false };
        self.enter(EntryKind::Compact, &Call::Compact(compact));
        revision
    }
}

/// Applying takes all dirty memory that it may in every turn: what is left over for trimming is nothing.
/// Trimming waited for a turn in which something was, and the file grew without end.
#[test]
fn trimming_comes_to_its_end_although_clients_never_rest() {
    let mut host = Host::new();
    host.history();
    let compacted = host.compact();
    let mut prng = Prng::new(5);
    let (mut peak, mut turns) = (0, 0);
    while host.store.state().trimmed() < compacted {
        turns += 1;
        assert!(turns < 200_000, "trimming starves at {:?}", host.store.state().trimmed());
        // More than is applied: there is always something that waits.
        for _ in 0..20 {
            let key = format!("m{:08}", prng.below(4_000));
            host.put(&key, 800);
        }
        host.turn();
        peak = peak.max(host.dirty_size());
    }
    assert!(peak > DIRTY_SIZE_MAX, "applying was never held up: {peak}");
    assert!(peak <= DIRTY_SIZE_MAX + BESIDE, "{peak} bytes are dirty");
}

/// Above the mark at which a checkpoint is due trimming has its share, however long the checkpoint takes;
/// when it is through, trimming goes on.
#[test]
fn trimming_gives_way_while_much_is_dirty_and_goes_on_below() {
    let mut host = Host::new();
    host.history();
    host.is_stuck = true;
    // As much as makes a checkpoint due; it does not get on.
    let mut number = 0;
    while host.dirty_size() < DIRTY_SIZE_DUE + DIRTY_SIZE_DUE / 2 {
        host.put(&format!("m{number:08}"), 800);
        host.turn();
        number += 1;
    }
    let compacted = host.compact();
    host.turn();
    let before = host.dirty_size();
    for _ in 0..5_000 {
        host.turn();
    }
    assert!(host.dirty_size() <= before + BESIDE, "{} from {before}", host.dirty_size());
    assert!(host.store.state().trimmed() < compacted, "it did not give way");
    assert_ne!(host.store.deadline(), Some(Instant::ORIGIN), "it waits, it does not spin");
    host.is_stuck = false;
    host.settle();
    assert_eq!(host.store.state().trimmed(), compacted);
}

/// A turn has a bound for trimming also where nothing is dirty; trimming asks for the next one by itself,
/// and for the one in which the checkpoint begins that it gives way to.
#[test]
fn a_turn_trims_a_bounded_part_and_nobody_else_has_to_ask_for_the_next() {
    let mut host = Host::new();
    host.history();
    let compacted = host.compact();
    let begun = host.now;
    let mut turns = 0;
    loop {
        turns += 1;
        host.turn();
        if host.store.state().trimmed() == compacted {
            break;
        }
        let is_called = !host.events.is_empty() || host.stuck > 0;
        if !is_called && host.store.deadline() != Some(Instant::ORIGIN) {
            host.now = host.store.deadline().expect("somebody calls it again");
        }
    }
    assert!(turns > KEYS / 512, "{turns} turns");
    let time = host.now.since(begun);
    assert!(time < Duration::from_millis(100), "it waited {} ms for others", time.as_millis());
}

/// A disk may discard what is handed back before it goes on with other writes: all that a compaction had
/// freed, at once, held up every write of the log for 200 ms.
#[test]
fn while_clients_write_space_goes_back_in_small_pieces_with_pauses() {
    let mut host = Host::new();
    for number in 0..40_000 {
        host.put(&format!("k{:08}", number % 100), 1_000);
        if number % 100 == 0 {
            host.settle();
        }
    }
    host.compact();
    host.settle();
    host.released.clear();
    let begin = host.now;
    for number in 0..4_000 {
        host.put(&format!("k{:08}", number % 100), 100);
        host.now = host.now.after(Duration::from_millis(5));
        for _ in 0..20 {
            host.turn();
        }
    }
    let released = &host.released;
    let sum: u64 = released.iter().map(|(_, size)| size).sum();
    assert!(sum > 16 << 20, "{sum} bytes went back");
    assert!(released.iter().all(|(_, size)| *size <= 4 << 20), "{released:?}");
    for pair in released.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let pause = after.0.since(before.0).as_millis();
        assert!(pause >= 50 * before.1.div_ceil(4 << 20), "{pause} ms behind {}", before.1);
    }
    let time = host.now.since(begin);
    assert!(time > Duration::from_millis(10_000), "the load goes on");
}

/// A host with a list of which one piece has been handed out, all of it changed and compacted since.
fn overtaken() -> (Host, Revision) {
    let mut host = Host::new();
    for number in 0..3_000 {
        host.put(&format!("k{number:04}"), 1_000);
        host.settle();
    }
    host.read();
    host.settle();
    assert_eq!((host.pieces.len(), host.ended), (1, None));
    for number in 0..3_000 {
        host.put(&format!("k{number:04}"), 10);
        host.settle();
    }
    let compacted = host.compact();
    host.pass(1_000);
    assert!(host.store.state().trimmed() < compacted, "what the list needs is gone");
    (host, compacted)
}

#[test]
fn a_list_that_its_client_takes_is_whole_although_compaction_has_overtaken_it() {
    let (mut host, compacted) = overtaken();
    while host.ended.is_none() {
        host.pass(READ_HOLD_STALLED_MS - 2_000);
        host.events.push(StoreEvent::Continue { ticket: TICKET });
        host.settle();
    }
    assert_eq!(host.ended, Some(Status::Ok));
    let mut count = 0;
    for frame in &host.pieces {
        let mut splitter = Splitter::new();
        splitter.agree(1, 1 << 24);
        let (header, body) = splitter.next(&mut BytesMut::from(&frame[..])).unwrap().unwrap();
        let Ok(Reply::Range(piece)) = Reply::verify(&header, &body) else { panic!("no range") };
        assert_eq!(piece.revision, 3_001, "each piece is of the same moment");
        assert!(piece.kvs.into_iter().all(|pair| pair.value.len() == 1_000));
        count += piece.kvs.len();
    }
    assert_eq!(count, 3_000);
    // Nobody needs it now.
    host.pass(1_000);
    assert_eq!(host.store.state().trimmed(), compacted);
}

#[test]
fn a_list_that_its_client_does_not_take_keeps_history_for_a_bounded_time() {
    let (mut host, compacted) = overtaken();
    host.pass(READ_HOLD_STALLED_MS);
    assert_eq!(host.store.state().trimmed(), compacted);
    host.events.push(StoreEvent::Continue { ticket: TICKET });
    host.settle();
    assert_eq!(host.ended, Some(Status::Compacted));
}

#[test]
fn a_list_that_its_client_takes_too_slowly_keeps_history_for_a_bounded_time() {
    let mut host = Host::new();
    let pieces = 2 + READ_HOLD_MS / (READ_HOLD_STALLED_MS - 1_000);
    for number in 0..pieces * 11 {
        host.put(&format!("k{number:04}"), 100_000);
        host.settle();
    }
    host.read();
    host.settle();
    for number in 0..pieces * 11 {
        host.put(&format!("k{number:04}"), 10);
        host.settle();
    }
    let compacted = host.compact();
    let begun = host.now;
    while host.ended.is_none() {
        host.pass(READ_HOLD_STALLED_MS - 1_000);
        host.events.push(StoreEvent::Continue { ticket: TICKET });
        host.settle();
    }
    assert_eq!(host.ended, Some(Status::Compacted));
    assert_eq!(host.store.state().trimmed(), compacted);
    let held = host.now.since(begun);
    assert!(held > Duration::from_millis(READ_HOLD_MS - READ_HOLD_STALLED_MS), "{held:?}");
    assert!(held < Duration::from_millis(READ_HOLD_MS + READ_HOLD_STALLED_MS), "{held:?}");
}
