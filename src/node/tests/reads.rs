//! The memory that reads and half-received frames may hold: crowds of large ones against the roles on
//! scripted events, without a disk.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use base::limits::{
    PARTIAL_BYTES_MAX, PARTIAL_TIMEOUT_CROWDED_MS, PARTIAL_TIMEOUT_MS, READ_STALL_TIMEOUT_MS,
    READS_SIZE_MAX,
};
use base::{
    ConnectionId, Duration, FileId, Frame, Instant, LogIndex, NodeId, ReactorId, RequestId, Term,
    Ticket,
};
use bytes::BytesMut;
use kv::{Command, State, Step};
use node::{
    CheckpointConfig, CloseReason, ConsensusEvent, Reactor, ReactorConfig, ReactorEffect,
    ReactorEvent, ReadKind, ReadRequest, ReplyBody, Role, Store, StoreConfig, StoreEffect,
    StoreEvent,
};
use tree::PageFile;
use wire::{Call, Op, Put, Range, RequestEncoder, SortOrder, SortTarget, Splitter, Status, Txn};

const REACTOR: ReactorId = ReactorId::new(0);

const fn connection(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

fn ticket(slot: u32, request: u64) -> Ticket {
    let request = RequestId::new(request);
    Ticket {
        reactor: REACTOR,
        connection: connection(slot),
        request,
        size: 0,
        reads: true,
        watches: false,
    }
}

/// The body of a request, as the reactor hands it on.
fn body(call: &Call<'_>) -> Frame {
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, 1 << 24);
    let mut frame = Vec::new();
    encoder.encode(&mut frame, RequestId::new(1), 0, call).unwrap();
    let mut splitter = Splitter::new();
    splitter.agree(1, 1 << 24);
    splitter.next(&mut BytesMut::from(&frame[..])).unwrap().unwrap().1
}

/// A store over keys `0..`, with what it answered.
struct Reads {
    store: Store<Vec<u8>>,
    now: Instant,
    done: HashMap<Ticket, Vec<Status>>,
    pieces: Vec<Ticket>,
    order: Vec<Ticket>,
    peak: usize,
}

impl Reads {
    fn over(keys: u32, value_size: usize) -> Self {
        let options = tree::Options {
            file: FileId::new(1),
            cluster: 9,
            member: NodeId::new(7),
            cache_size: 1 << 30,
            growth_size: 16 << 20,
        };
        let pages = PageFile::create(&options);
        let mut state = State::create(pages);
        let value = vec![7; value_size];
        for number in 0..keys {
            let key = number.to_be_bytes();
            let put = Command::Put(kv::Put { key: &key, value: &value, ..kv::Put::default() });
            let index = LogIndex::new(u64::from(number) + 1);
            let step = state.apply(index, Term::new(1), &put, &mut 1_000);
            assert!(matches!(step, Step::Done(_)));
        }
        let config = StoreConfig {
            reactors: 1,
            cluster: 9,
            member: NodeId::new(7),
            checkpoint: CheckpointConfig {
                log_size: 1 << 40,
                dirty_size: 1 << 40,
                interval: Duration::from_millis(1 << 40),
                room_min: 0,
                quota_size: 0,
            },
            dirty_size_max: 1 << 40,
            read_slice: 512,
            history: kv::HistoryLimits::SERVER,
            retention: node::Retention::Everything,
            pages: options,
        };
        let allocate = Box::new(|size| vec![0xEE; size]);
        let store = Store::new(config, state, LogIndex::ZERO, allocate, Instant::ORIGIN);
        Self {
            store,
            now: Instant::from_nanos(1),
            done: HashMap::new(),
            pieces: Vec::new(),
            order: Vec::new(),
            peak: 0,
        }
    }

    fn event(&mut self, event: StoreEvent) {
        let mut effects = Vec::new();
        self.store.handle(self.now, event, &mut effects);
        self.file(effects);
    }

    fn read(&mut self, ticket: Ticket, frame: &Frame, is_txn: bool) {
        let frame = frame.clone();
        let applied_min = LogIndex::ZERO;
        self.event(StoreEvent::Read(ReadRequest {
            ticket,
            frame,
            what: if is_txn { ReadKind::Txn } else { ReadKind::Range },
            time: 0,
            applied_min,
            deadline: None,
        }));
    }

    fn turn(&mut self) {
        let mut effects = Vec::new();
        self.store.flush(self.now, &mut effects);
        self.file(effects);
        self.peak = self.peak.max(self.store.reads_booked());
    }

    fn file(&mut self, effects: Vec<StoreEffect<Vec<u8>>>) {
        for effect in effects {
            let StoreEffect::ToReactor(_, ReactorEvent::Replies(replies)) = effect else {
                continue;
            };
            for reply in replies {
                let status = match reply.body {
                    ReplyBody::Piece(_) => {
                        self.pieces.push(reply.ticket);
                        continue;
                    }
                    ReplyBody::Put { .. } | ReplyBody::Frames(_) => Status::Ok,
                    ReplyBody::Watch(_) | ReplyBody::Renewed { .. } => unreachable!("nobody asks"),
                    ReplyBody::Refused(refused) => refused.status,
                };
                self.done.entry(reply.ticket).or_default().push(status);
                self.order.push(reply.ticket);
            }
        }
    }

    /// Whether the store has something to do by itself.
    fn is_busy(&self) -> bool {
        self.store.deadline() == Some(Instant::ORIGIN)
    }

    /// Takes every piece at once, until nothing moves.
    fn settle(&mut self) {
        loop {
            self.turn();
            for ticket in std::mem::take(&mut self.pieces) {
                self.event(StoreEvent::Continue { ticket });
            }
            if !self.is_busy() && self.pieces.is_empty() {
                self.turn();
                if !self.is_busy() && self.pieces.is_empty() {
                    return;
                }
            }
        }
    }
}

fn sorted() -> Frame {
    body(&Call::Range(Range {
        key: b"\0",
        range_end: b"\0",
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Value,
        keys_only: true,
        ..Range::default()
    }))
}

fn whole(limit: i64) -> Frame {
    let range = Range { key: b"\0", range_end: b"\0", limit, ..Range::default() };
    let txn = Txn { compares: vec![], success: vec![Op::Range(range)], failure: vec![] };
    body(&Call::Txn(&txn))
}

#[test]
fn a_crowd_of_large_reads_is_carried_out_a_few_at_a_time_and_small_ones_pass_it_by() {
    let mut reads = Reads::over(3_000, 5_000);
    let (sorted, whole, small) = (sorted(), whole(0), whole(2));
    for number in 0..60 {
        reads.read(ticket(number, 1), &sorted, false);
        reads.read(ticket(number, 2), &whole, true);
    }
    for _ in 0..50 {
        reads.turn();
    }
    assert!(reads.done.len() < 10, "the crowd is still there");
    reads.read(ticket(99, 3), &small, true);
    let before = reads.order.len();
    for _ in 0..3 {
        reads.turn();
    }
    assert!(reads.order[before..].contains(&ticket(99, 3)), "{:?}", &reads.order[before..]);
    reads.settle();
    assert_eq!(reads.done.len(), 121, "each is answered");
    assert!(reads.done.values().all(|statuses| *statuses == [Status::Ok]));
    assert!(reads.peak <= READS_SIZE_MAX, "{} bytes were booked", reads.peak);
    assert!(reads.peak > READS_SIZE_MAX / 4, "the test meets no limit: {} bytes", reads.peak);
    assert_eq!(reads.store.reads_booked(), 0, "and all of it was given back");
}

/// One turn may be long because an answer is encoded whole; then those behind it do nothing of the kind.
#[test]
fn what_a_large_answer_takes_beyond_its_turn_is_taken_from_the_turns_that_follow() {
    let mut reads = Reads::over(3_000, 5_000);
    let whole = whole(0);
    for number in 0..8 {
        reads.read(ticket(number, 1), &whole, true);
    }
    let mut ends = Vec::new();
    for turn in 0.. {
        let before = reads.done.len();
        reads.turn();
        assert!(reads.done.len() <= before + 1, "two in one turn");
        if reads.done.len() > before {
            ends.push(turn);
        }
        if reads.done.len() == 8 {
            break;
        }
        assert!(turn < 100_000, "they come to no end");
    }
    for pair in ends.windows(2) {
        assert!(pair[1] - pair[0] > 20, "answered in turns {ends:?}");
    }
}

#[test]
fn the_reads_of_a_connection_that_has_gone_are_dropped_wherever_they_are() {
    let mut reads = Reads::over(3_000, 5_000);
    let (sorted, whole) = (sorted(), whole(0));
    for request in 0..40 {
        reads.read(ticket(0, request), &sorted, false);
        reads.read(ticket(1, 100 + request), &whole, true);
    }
    // Some are running, some wait, one sorted list stalls behind its first piece.
    while reads.pieces.is_empty() {
        reads.turn();
    }
    reads.event(StoreEvent::Forget { reactor: REACTOR, connection: connection(0) });
    reads.pieces.clear();
    reads.settle();
    assert!(reads.done.keys().all(|ticket| ticket.connection == connection(1)));
    assert_eq!(reads.done.len(), 40, "the other one's are answered");
    assert_eq!(reads.store.reads_booked(), 0);
}

#[test]
fn a_client_that_does_not_take_its_sorted_list_keeps_others_waiting_for_a_bounded_time() {
    let mut reads = Reads::over(60_000, 10);
    let sorted = sorted();
    for number in 0..40 {
        reads.read(ticket(number, 1), &sorted, false);
    }
    // Nobody takes a piece.
    let mut turns = 0;
    while reads.done.is_empty() {
        reads.turn();
        if !reads.is_busy() {
            reads.now = reads.now.after(Duration::from_millis(READ_STALL_TIMEOUT_MS / 20));
        }
        turns += 1;
        assert!(turns < 100_000, "they wait for ever");
    }
    assert!(reads.peak <= READS_SIZE_MAX, "{} bytes", reads.peak);
    assert!(reads.done.values().all(|statuses| *statuses == [Status::Overloaded]));
}

/// A client must not use a request id twice at a time; one that does harms nobody else.
#[test]
fn reads_with_the_same_id_are_all_answered_and_give_back_what_they_booked() {
    let mut reads = Reads::over(3_000, 5_000);
    let sorted = sorted();
    for _ in 0..16 {
        reads.read(ticket(0, 5), &sorted, false);
    }
    reads.settle();
    assert_eq!(reads.done[&ticket(0, 5)], [Status::Ok; 16]);
    assert_eq!(reads.store.reads_booked(), 0, "all of it was given back");
}

#[test]
fn a_cancel_finds_the_request_of_its_own_reactor_only() {
    let mut reads = Reads::over(3_000, 5_000);
    let sorted = sorted();
    reads.read(ticket(0, 1), &sorted, false);
    let other = Ticket { reactor: ReactorId::new(1), ..ticket(0, 1) };
    reads.event(StoreEvent::Cancel { ticket: other });
    reads.turn();
    assert!(reads.done.is_empty());
    reads.event(StoreEvent::Cancel { ticket: ticket(0, 1) });
    reads.turn();
    assert_eq!(reads.done[&ticket(0, 1)], [Status::Cancelled]);
}

// ---------------------------------------------------------------------------------- the reactor

struct Connections {
    reactor: Reactor,
    now: Instant,
    paused: Vec<bool>,
    closed: HashMap<ConnectionId, CloseReason>,
    store: Vec<StoreEvent>,
    consensus: Vec<ConsensusEvent>,
    encoder: RequestEncoder,
}

impl Connections {
    fn new(count: u32) -> Self {
        let config = ReactorConfig {
            id: REACTOR,
            cluster: 9,
            member: NodeId::new(7),
            value_size_max: 1 << 24,
            bytes_max: 32 << 20,
            txn_ops_max: base::limits::TXN_OPS_MAX_DEFAULT,
            connections_max: 1_000,
            clients_max: base::limits::CLIENTS_MAX,
        };
        let mut all = Self {
            reactor: Reactor::new(config),
            now: Instant::from_nanos(1),
            paused: vec![false; usize::try_from(count).unwrap()],
            closed: HashMap::new(),
            store: Vec::new(),
            consensus: Vec::new(),
            encoder: RequestEncoder::new(),
        };
        let hello = Call::Hello(wire::Hello {
            version_min: 1,
            version_max: 1,
            cluster: 0,
            client_name: "test",
        });
        let hello = all.frame(1, &hello);
        for slot in 0..count {
            all.event(ReactorEvent::Accepted { connection: connection(slot) });
            all.receive(slot, &hello);
        }
        all.encoder.agree(1, 1 << 24);
        all.turn();
        all
    }

    fn frame(&mut self, id: u64, call: &Call<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        self.encoder.encode(&mut frame, RequestId::new(id), 0, call).unwrap();
        frame
    }

    fn event(&mut self, event: ReactorEvent) {
        let mut effects = Vec::new();
        self.reactor.handle(self.now, event, &mut effects);
        self.file(effects);
    }

    fn receive(&mut self, slot: u32, bytes: &[u8]) {
        let bytes = BytesMut::from(bytes);
        self.event(ReactorEvent::Received { connection: connection(slot), bytes });
    }

    fn turn(&mut self) {
        let mut effects = Vec::new();
        self.reactor.flush(self.now, &mut effects);
        self.file(effects);
    }

    fn file(&mut self, effects: Vec<ReactorEffect>) {
        for effect in effects {
            match effect {
                ReactorEffect::Pause { connection } => {
                    self.paused[usize::try_from(connection.slot).unwrap()] = true;
                }
                ReactorEffect::Resume { connection } => {
                    self.paused[usize::try_from(connection.slot).unwrap()] = false;
                }
                ReactorEffect::Close { connection, reason } => {
                    self.closed.insert(connection, reason);
                }
                ReactorEffect::ToStore(event) => self.store.push(event),
                ReactorEffect::ToConsensus(event) => self.consensus.push(event),
                ReactorEffect::Send { .. } => {}
            }
        }
    }
}

#[test]
fn a_part_of_a_frame_keeps_little_more_memory_than_it_has_bytes() {
    let mut all = Connections::new(100);
    let frame = all.frame(5, &Call::Put(Put { key: b"k", value: &[7; 200_000], ..Put::default() }));
    for slot in 0..100 {
        all.receive(slot, &frame[..1_500]);
    }
    assert!(all.reactor.partial_bytes() <= 100 * 2_048, "{}", all.reactor.partial_bytes());
    // Byte for byte or at once, it becomes the frame.
    for slot in 0..100 {
        for byte in &frame[1_500..1_600] {
            all.receive(slot, &[*byte]);
        }
        all.receive(slot, &frame[1_600..]);
    }
    all.turn();
    assert_eq!((all.reactor.partial_bytes(), all.consensus.len()), (0, 100));
    // What is left behind a large frame does not keep it.
    let two = [&frame[..], &frame[..100]].concat();
    all.receive(0, &two[..1_000]);
    all.receive(0, &two[1_000..]);
    assert!(all.reactor.partial_bytes() <= 200, "{}", all.reactor.partial_bytes());
    all.event(ReactorEvent::Closed { connection: connection(0) });
    assert_eq!(all.reactor.partial_bytes(), 0);
}

#[test]
fn beyond_the_bound_of_partial_frames_connections_are_read_one_after_the_other() {
    let mut all = Connections::new(60);
    let value = vec![7; 15 << 20];
    let frame = all.frame(5, &Call::Put(Put { key: b"k", value: &value, ..Put::default() }));
    let mut sent = [0; 60];
    let mut answered = 0;
    let mut peak = 0;
    for round in 0.. {
        // Each sends as fast as it is read, all but their last bytes at first.
        for (slot, at) in sent.iter_mut().enumerate() {
            if all.paused[slot] || *at == frame.len() {
                continue;
            }
            let end = (*at + (256 << 10)).min(frame.len());
            let part = &frame[*at..end];
            *at = end;
            all.receive(u32::try_from(slot).unwrap(), part);
        }
        all.turn();
        peak = peak.max(all.reactor.partial_bytes());
        answered += std::mem::take(&mut all.consensus).len();
        if answered == 60 {
            break;
        }
        assert!(round < 20_000, "{answered} frames came in, then nothing");
    }
    assert!(peak > PARTIAL_BYTES_MAX, "the test meets no limit");
    assert!(peak < PARTIAL_BYTES_MAX / 4 * 5 + (60 << 18) + (20 << 20), "{peak}");
}

#[test]
fn a_frame_that_gets_no_further_ends_its_connection_and_one_that_does_goes_on() {
    let mut all = Connections::new(4);
    let frame = all.frame(5, &Call::Put(Put { key: b"k", value: &[7; 1 << 20], ..Put::default() }));
    for slot in [0, 1, 2] {
        all.receive(slot, &frame[..100]);
    }
    let (mut trickled, mut sent) = (100, 100);
    for _ in 0..10 {
        all.now = all.now.after(Duration::from_millis(PARTIAL_TIMEOUT_MS / 4));
        // One byte at a time is no progress; a share of the frame is.
        all.receive(1, &frame[trickled..=trickled]);
        all.receive(2, &frame[sent..sent + 70_000]);
        (trickled, sent) = (trickled + 1, sent + 70_000);
        all.turn();
    }
    let ended: Vec<bool> = (0..4).map(|slot| all.closed.contains_key(&connection(slot))).collect();
    assert_eq!(ended, [true, true, false, false]);
    assert!(all.closed.values().all(|reason| *reason == CloseReason::PartialFrame));
}

#[test]
fn a_crowd_of_frames_that_do_not_come_in_goes_when_another_waits_for_its_memory() {
    let mut all = Connections::new(220);
    let value = vec![7; 1_500_000];
    let frame = all.frame(5, &Call::Put(Put { key: b"k", value: &value, ..Put::default() }));
    for slot in 0..219 {
        for part in frame[..1_400_000].chunks(256 << 10) {
            if !all.paused[usize::try_from(slot).unwrap()] {
                all.receive(slot, part);
            }
        }
    }
    all.turn();
    all.receive(219, &frame[..256 << 10]);
    all.turn();
    assert!(all.paused[219], "there is no room for it");
    for _ in 0..8 {
        all.now = all.now.after(Duration::from_millis(PARTIAL_TIMEOUT_CROWDED_MS / 4));
        all.turn();
    }
    let gone = all.closed.values().filter(|reason| **reason == CloseReason::PartialFrame).count();
    assert!(gone > 150, "{gone} have gone");
}

#[test]
fn requests_before_the_end_of_the_stream_are_answered_before_the_connection_is_closed() {
    let mut all = Connections::new(2);
    let put = all.frame(5, &Call::Put(Put { key: b"k", value: b"v", ..Put::default() }));
    all.receive(0, &[&put[..], &put[..10]].concat());
    all.event(ReactorEvent::Ended { connection: connection(0) });
    all.event(ReactorEvent::Ended { connection: connection(1) });
    all.turn();
    assert_eq!(all.closed.get(&connection(0)), None, "its put is not answered");
    assert_eq!(all.closed.get(&connection(1)), Some(&CloseReason::Finished));
    let Some(ConsensusEvent::Propose { ticket, .. }) = all.consensus.pop() else { panic!() };
    let body = ReplyBody::Put { revision: 2 };
    all.event(ReactorEvent::Replies(vec![node::Reply { ticket, body }]));
    all.turn();
    assert_eq!(all.closed.get(&connection(0)), Some(&CloseReason::Finished));
}

#[test]
fn a_connection_that_goes_takes_its_reads_along_from_the_reactor_and_the_store() {
    let mut all = Connections::new(2);
    let get = |serializable| Call::Range(Range { key: b"k", serializable, ..Range::default() });
    let (asked, local) = (all.frame(5, &get(false)), all.frame(6, &get(true)));
    all.receive(0, &asked);
    all.turn();
    // The first is a question to consensus by now, the second waits for the next.
    all.receive(0, &asked);
    all.receive(0, &local);
    all.receive(1, &asked);
    all.store.clear();
    all.event(ReactorEvent::Closed { connection: connection(0) });
    assert!(all.store.iter().any(|event| {
        matches!(event, StoreEvent::Forget { connection: gone, .. } if *gone == connection(0))
    }));
    all.store.clear();
    for _ in 0..2 {
        all.event(ReactorEvent::ReadGranted { index: LogIndex::new(1), time: 0 });
        all.turn();
    }
    let reads: Vec<ConnectionId> = all
        .store
        .iter()
        .filter_map(|event| match event {
            StoreEvent::Read(read) => Some(read.ticket.connection),
            _ => None,
        })
        .collect();
    assert_eq!(reads, [connection(1)]);
}

/// A read that came while a question was open, whose only other reader cancelled, once took the answer
/// to that question for its own: an index from before it came.
#[test]
fn a_read_is_never_granted_by_a_question_that_was_asked_before_it_came() {
    let mut all = Connections::new(1);
    let get = Call::Range(Range { key: b"k", ..Range::default() });
    let frame = all.frame(5, &get);
    all.receive(0, &frame);
    all.turn();
    assert_eq!(all.consensus.len(), 1);
    let cancel = all.frame(5, &Call::Cancel);
    all.receive(0, &cancel);
    let later = all.frame(6, &get);
    all.receive(0, &later);
    all.turn();
    all.event(ReactorEvent::ReadGranted { index: LogIndex::new(1), time: 0 });
    assert!(all.store.iter().all(|event| !matches!(event, StoreEvent::Read(_))));
    all.turn();
    assert_eq!(all.consensus.len(), 2, "it has a question of its own");
    all.event(ReactorEvent::ReadGranted { index: LogIndex::new(2), time: 0 });
    let index = all.store.iter().find_map(|event| match event {
        StoreEvent::Read(read) => Some(read.applied_min),
        _ => None,
    });
    assert_eq!(index, Some(LogIndex::new(2)));
}
