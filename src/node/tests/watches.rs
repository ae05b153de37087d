//! Watches: a reactor and a store with scripted links, connections that block and come back, compaction and
//! progress, against the list of everything that was changed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use base::{
    ConnectionId, Duration, FileId, Hash128, Instant, LogIndex, NodeId, Prng, ReactorId, RequestId,
    Term,
};
use bytes::BytesMut;
use kv::State;
use node::{
    CheckpointConfig, CloseReason, Committed, EntryKind, Reactor, ReactorConfig, ReactorEffect,
    ReactorEvent, Role, Store, StoreConfig, StoreEffect, StoreEvent,
};
use tree::PageFile;
use wire::{
    Call, ChangeKind, Compact, DeleteRange, Hello, Put, Reply, RequestEncoder, Splitter, Status,
    Watch, WatchRange, WatchRanges, WatchStep,
};

/// A change as the list has it: revision, key, value of a put, value before.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Change {
    revision: i64,
    sub: u32,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    previous: Option<Vec<u8>>,
}

/// A watch as its client sees it.
#[derive(Debug)]
struct Watched {
    start: i64,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    /// The first revision that it is told.
    from: i64,
    told: Vec<Change>,
    /// Everything up to here has been told.
    through: i64,
    /// Changes of a revision that is not complete.
    open: bool,
    created: bool,
    ended: Option<(Status, i64)>,
    progress: u32,
}

struct Client {
    connection: ConnectionId,
    splitter: Splitter,
    input: BytesMut,
    blocked: bool,
    /// What the socket has not taken.
    unsent: Vec<u8>,
    watches: BTreeMap<u64, Watched>,
    next: u64,
    closed: Option<CloseReason>,
}

struct World {
    reactor: Reactor,
    store: Store<Vec<u8>>,
    now: Instant,
    prng: Prng,
    encoder: RequestEncoder,
    clients: Vec<Client>,
    changes: Vec<Change>,
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    revision: i64,
    compacted: i64,
    index: u64,
    to_store: VecDeque<StoreEvent>,
    to_reactor: VecDeque<ReactorEvent>,
    entries: Vec<Committed>,
    /// How many watches the store has been asked to read for.
    asked: usize,
}

fn contains((key, end): &(Vec<u8>, Vec<u8>), other: &[u8]) -> bool {
    match end.as_slice() {
        [] => key == other,
        [0] => other >= key.as_slice(),
        end => other >= key.as_slice() && other < end,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let options = tree::Options {
            file: FileId::new(1),
            cluster: 9,
            member: NodeId::new(7),
            cache_size: 1 << 30,
            growth_size: 16 << 20,
        };
        let state = State::create(PageFile::create(&options));
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
        let reactor = Reactor::new(ReactorConfig {
            id: ReactorId::new(0),
            cluster: 9,
            member: NodeId::new(7),
            value_size_max: 1 << 20,
            bytes_max: 32 << 20,
            txn_ops_max: base::limits::TXN_OPS_MAX_DEFAULT,
            connections_max: 1_000,
            clients_max: 100,
        });
        let mut encoder = RequestEncoder::new();
        encoder.agree(1, 1 << 24);
        Self {
            reactor,
            store,
            now: Instant::from_nanos(1),
            prng: Prng::new(seed),
            encoder,
            clients: Vec::new(),
            changes: Vec::new(),
            keys: BTreeMap::new(),
            revision: 1,
            compacted: -1,
            index: 0,
            to_store: VecDeque::new(),
            to_reactor: VecDeque::new(),
            entries: Vec::new(),
            asked: 0,
        }
    }

    fn connect(&mut self) -> usize {
        let slot = u32::try_from(self.clients.len()).unwrap();
        let connection = ConnectionId { slot, generation: 1 };
        self.clients.push(Client {
            connection,
            splitter: Splitter::new(),
            input: BytesMut::new(),
            blocked: false,
            unsent: Vec::new(),
            watches: BTreeMap::new(),
            next: 1,
            closed: None,
        });
        self.to_reactor.push_back(ReactorEvent::Accepted { connection });
        let hello = Hello { version_min: 1, version_max: 1, cluster: 0, client_name: "test" };
        let mut bytes = Vec::new();
        RequestEncoder::new()
            .encode(&mut bytes, RequestId::new(0), 0, &Call::Hello(hello))
            .unwrap();
        let bytes = BytesMut::from(&bytes[..]);
        self.to_reactor.push_back(ReactorEvent::Received { connection, bytes });
        self.settle();
        self.clients.len() - 1
    }

    fn send(&mut self, client: usize, id: u64, call: &Call<'_>) {
        let mut bytes = Vec::new();
        self.encoder.encode(&mut bytes, RequestId::new(id), 0, call).unwrap();
        let connection = self.clients[client].connection;
        let bytes = BytesMut::from(&bytes[..]);
        self.to_reactor.push_back(ReactorEvent::Received { connection, bytes });
    }

    fn watch(&mut self, client: usize, watched: Watched, progress_interval_ms: u32) -> u64 {
        let own = &mut self.clients[client];
        let id = own.next;
        own.next += 1;
        let ranges: Vec<WatchRange<'_>> =
            watched.ranges.iter().map(|(key, range_end)| WatchRange { key, range_end }).collect();
        let call = Call::Watch(Watch {
            ranges: WatchRanges::Given(&ranges),
            start_revision: watched.start,
            prev_kv: watched.prev_kv,
            no_put: watched.no_put,
            no_delete: watched.no_delete,
            progress_interval_ms,
            ..Watch::default()
        });
        self.send(client, id, &call);
        drop(ranges);
        self.clients[client].watches.insert(id, watched);
        id
    }

    fn commit(&mut self, kind: EntryKind, call: &Call<'_>) {
        let mut bytes = Vec::new();
        self.encoder.encode(&mut bytes, RequestId::new(1), 0, call).unwrap();
        let mut splitter = Splitter::new();
        splitter.agree(1, 1 << 24);
        let frame = splitter.next(&mut BytesMut::from(&bytes[..])).unwrap().unwrap().1;
        self.index += 1;
        self.entries.push(Committed {
            index: LogIndex::new(self.index),
            term: Term::new(1),
            kind,
            stamp: None,
            frame,
            hash: Hash128::ZERO,
            ticket: None,
        });
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.revision += 1;
        let previous = self.keys.insert(key.to_vec(), value.to_vec());
        let (revision, key, value) = (self.revision, key.to_vec(), value.to_vec());
        self.commit(EntryKind::Put, &Call::Put(Put::new(&key, &value)));
        self.changes.push(Change { revision, sub: 0, key, value: Some(value), previous });
    }

    fn delete(&mut self, key: &[u8], end: &[u8]) {
        self.commit(EntryKind::DeleteRange, &Call::DeleteRange(DeleteRange::between(key, end)));
        let range = (key.to_vec(), end.to_vec());
        let gone: Vec<Vec<u8>> =
            self.keys.keys().filter(|key| contains(&range, key)).cloned().collect();
        if !gone.is_empty() {
            self.revision += 1;
        }
        for (sub, key) in (0..).zip(gone) {
            let previous = self.keys.remove(&key);
            self.changes.push(Change { revision: self.revision, sub, key, value: None, previous });
        }
    }

    fn compact(&mut self, revision: i64) {
        self.commit(EntryKind::Compact, &Call::Compact(Compact { revision, physical: false }));
        self.compacted = self.compacted.max(revision);
    }

    /// One turn of each role.
    fn turn(&mut self) {
        self.now = self.now.after(Duration::from_millis(1));
        if !self.entries.is_empty() {
            let entries = std::mem::take(&mut self.entries);
            self.to_store.push_back(StoreEvent::Apply(entries));
        }
        let mut effects = Vec::new();
        let take =
            self.prng.below(1 + self.to_store.len() as u64 * 2).min(self.to_store.len() as u64);
        for event in self.to_store.drain(..usize::try_from(take).unwrap()) {
            self.store.handle(self.now, event, &mut effects);
        }
        self.store.flush(self.now, &mut effects);
        for effect in effects {
            match effect {
                StoreEffect::ToReactor(_, event) => self.to_reactor.push_back(event),
                StoreEffect::Halt(reason) => panic!("{reason}"),
                _ => {}
            }
        }
        let mut effects = Vec::new();
        let take =
            self.prng.below(1 + self.to_reactor.len() as u64 * 2).min(self.to_reactor.len() as u64);
        for event in self.to_reactor.drain(..usize::try_from(take).unwrap()) {
            self.reactor.handle(self.now, event, &mut effects);
        }
        self.reactor.flush(self.now, &mut effects);
        for effect in effects {
            match effect {
                ReactorEffect::Send { connection, bytes } => self.deliver(connection, &bytes),
                ReactorEffect::Close { connection, reason } => {
                    let client = &mut self.clients[usize::try_from(connection.slot).unwrap()];
                    client.closed.get_or_insert(reason);
                    self.to_reactor.push_back(ReactorEvent::Closed { connection });
                }
                ReactorEffect::ToStore(event) => {
                    self.asked += usize::from(matches!(event, StoreEvent::Watch(_)));
                    self.to_store.push_back(event);
                }
                ReactorEffect::ToConsensus(_) => {}
                ReactorEffect::Pause { .. } | ReactorEffect::Resume { .. } => {}
            }
        }
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            self.turn();
            let idle = self.to_store.is_empty()
                && self.to_reactor.is_empty()
                && self.store.deadline() != Some(Instant::ORIGIN)
                && self.reactor.deadline() != Some(Instant::ORIGIN);
            quiet = if idle { quiet + 1 } else { 0 };
        }
    }

    fn deliver(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let client = &mut self.clients[usize::try_from(connection.slot).unwrap()];
        if client.blocked {
            if client.unsent.is_empty() {
                self.to_reactor.push_back(ReactorEvent::Blocked { connection });
            }
            client.unsent.extend_from_slice(bytes);
            return;
        }
        let slot = usize::try_from(connection.slot).unwrap();
        self.take(slot, bytes);
    }

    fn unblock(&mut self, client: usize) {
        let own = &mut self.clients[client];
        own.blocked = false;
        let (bytes, connection) = (std::mem::take(&mut own.unsent), own.connection);
        if !bytes.is_empty() {
            self.take(client, &bytes);
            self.to_reactor.push_back(ReactorEvent::Drained { connection });
        }
    }

    /// What a client reads.
    fn take(&mut self, client: usize, bytes: &[u8]) {
        let compacted = self.compacted;
        let own = &mut self.clients[client];
        own.input.extend_from_slice(bytes);
        while let Some((header, body)) = own.splitter.next(&mut own.input).unwrap() {
            let reply = Reply::verify(&header, &body).unwrap();
            if let Reply::Hello(_) = reply {
                own.splitter.agree(1, 64 << 20);
                continue;
            }
            let id = header.request.get();
            let watched = own.watches.get_mut(&id).unwrap();
            assert!(watched.ended.is_none(), "{id} is told something behind its end");
            match reply {
                Reply::Watch(reply) => {
                    assert_eq!(watched.created, reply.step != WatchStep::Created);
                    if reply.step == WatchStep::Created {
                        watched.created = true;
                        watched.from =
                            if watched.start > 0 { watched.start } else { reply.revision + 1 };
                        watched.through = watched.from - 1;
                        continue;
                    }
                    watched.progress += u32::from(reply.step == WatchStep::Progress);
                    assert!(reply.revision >= watched.through || watched.start > reply.revision);
                    for change in reply.changes {
                        let revision = change.kv.mod_revision;
                        assert!(
                            revision > watched.through
                                && revision <= reply.revision + i64::from(reply.fragment)
                        );
                        if watched.prev_kv && change.previous.is_none() && revision > compacted {
                            let real = self
                                .changes
                                .iter()
                                .find(|c| c.revision == revision && c.key == change.kv.key);
                            assert_eq!(real.unwrap().previous, None);
                        }
                        watched.told.push(Change {
                            revision,
                            sub: change.sub,
                            key: change.kv.key.to_vec(),
                            value: (change.kind == ChangeKind::Put)
                                .then(|| change.kv.value.to_vec()),
                            previous: change.previous.map(|kv| kv.value.to_vec()),
                        });
                    }
                    watched.open = reply.fragment;
                    watched.through = watched.through.max(reply.revision);
                }
                Reply::Refused(refused) => {
                    watched.ended = Some((refused.status, refused.compacted_revision));
                }
                _ => panic!("{reply:?}"),
            }
        }
    }

    /// Each watch has been told what the list says, and nothing else, up to where it says that it is.
    fn check(&self, all: bool) {
        for client in &self.clients {
            for watched in client.watches.values() {
                if !watched.created {
                    continue;
                }
                let wants = |change: &&Change| {
                    change.revision >= watched.from
                        && watched.ranges.iter().any(|range| contains(range, &change.key))
                        && !(watched.no_put && change.value.is_some())
                        && !(watched.no_delete && change.value.is_none())
                };
                let expected: Vec<&Change> = self.changes.iter().filter(wants).collect();
                let count = watched.told.len();
                for (told, expected) in watched.told.iter().zip(&expected) {
                    let previous = told.previous.clone();
                    let plain = Change { previous: None, ..told.clone() };
                    assert_eq!(plain, Change { previous: None, ..(*expected).clone() });
                    if let Some(previous) = previous {
                        assert!(watched.prev_kv);
                        assert_eq!(Some(previous), expected.previous);
                    }
                }
                assert!(count <= expected.len());
                if let Some(missed) = expected.get(count) {
                    assert!(missed.revision > watched.through, "{watched:?} misses {missed:?}");
                    assert!(!all || watched.ended.is_some(), "{watched:?} is not told {missed:?}");
                }
                if all && watched.ended.is_none() {
                    assert!(!watched.open);
                }
            }
        }
    }

    fn key(&mut self) -> Vec<u8> {
        vec![b'a' + u8::try_from(self.prng.below(5)).unwrap()]
    }

    fn random_watch(&mut self) -> Watched {
        let ranges = (0..1 + self.prng.below(2))
            .map(|_| {
                let key = self.key();
                let end = match self.prng.below(4) {
                    0 => vec![0],
                    1 => vec![key[0] + 2],
                    _ => vec![],
                };
                (key, end)
            })
            .collect();
        let start = match self.prng.below(3) {
            0 => 0,
            1 => self.revision + i64::try_from(self.prng.below(5)).unwrap(),
            _ => 1 + i64::try_from(self.prng.below(u64::try_from(self.revision).unwrap())).unwrap(),
        };
        Watched {
            ranges,
            start,
            prev_kv: self.prng.one_in(2),
            no_put: self.prng.one_in(6),
            no_delete: self.prng.one_in(6),
            ..all(start)
        }
    }
}

/// A watch of everything.
fn all(start: i64) -> Watched {
    Watched {
        start,
        ranges: vec![(vec![0], vec![0])],
        prev_kv: false,
        no_put: false,
        no_delete: false,
        from: 0,
        told: Vec::new(),
        through: 0,
        open: false,
        created: false,
        ended: None,
        progress: 0,
    }
}

#[test]
fn every_watch_is_told_every_change_once_and_in_order_whatever_its_connection_does() {
    let scale: u64 = std::env::var("QUORATE_TEST_SCALE").map_or(1, |scale| scale.parse().unwrap());
    let (mut compacted, mut caught) = (0, 0);
    for seed in 0..30 * scale {
        println!("seed {seed}");
        let mut world = World::new(seed);
        let clients = 1 + usize::try_from(world.prng.below(4)).unwrap();
        for _ in 0..clients {
            world.connect();
        }
        for _ in 0..300 {
            let client = usize::try_from(world.prng.below(clients as u64)).unwrap();
            match world.prng.below(16) {
                0 | 1 => {
                    let watched = world.random_watch();
                    let interval = if world.prng.one_in(3) { 150 } else { 0 };
                    world.watch(client, watched, interval);
                }
                2 if !world.clients[client].blocked => world.clients[client].blocked = true,
                2 | 3 => world.unblock(client),
                4 => {
                    let ids: Vec<u64> = world.clients[client].watches.keys().copied().collect();
                    if let Some(id) = ids.last() {
                        world.send(client, *id, &Call::WatchProgress);
                    }
                }
                5 if world.prng.one_in(4) => {
                    let id = 1 + world.prng.below(world.clients[client].next);
                    if world.clients[client].watches.get(&id).is_some_and(|own| own.ended.is_none())
                    {
                        world.send(client, id, &Call::Cancel);
                    }
                }
                6 if world.prng.one_in(3) => {
                    let low = world.compacted.max(0);
                    let span = u64::try_from(world.revision - low).unwrap();
                    let revision = low + i64::try_from(world.prng.below(span + 1)).unwrap();
                    if revision > low {
                        world.compact(revision);
                    }
                }
                7 => {
                    let key = world.key();
                    let end = if world.prng.one_in(3) { vec![0] } else { vec![] };
                    world.delete(&key, &end);
                }
                8 => world.turn(),
                9 if world.prng.one_in(20) => {
                    // More than a turn carries.
                    for _ in 0..5 {
                        let key = world.key();
                        world.put(&key, &vec![7; 1 << 20]);
                    }
                }
                _ => {
                    let key = world.key();
                    let mut value = vec![0; usize::try_from(world.prng.below(40)).unwrap()];
                    world.prng.fill(&mut value);
                    world.put(&key, &value);
                }
            }
            if world.prng.one_in(3) {
                world.turn();
            }
            if world.prng.one_in(12) {
                world.check(false);
            }
        }
        for client in 0..clients {
            world.unblock(client);
        }
        world.settle();
        world.check(true);
        let revision = world.revision;
        for client in &world.clients {
            assert_eq!(client.closed, None);
            for watched in client.watches.values() {
                match watched.ended {
                    Some((Status::Compacted, at)) => {
                        assert!(at <= world.compacted && watched.through < at);
                        compacted += 1;
                    }
                    Some((status, _)) => assert_eq!(status, Status::Cancelled),
                    None => caught += u64::from(watched.through <= revision),
                }
            }
        }
        // Who asks is told how far the watch has come.
        for client in 0..clients {
            let ids: Vec<u64> = world.clients[client]
                .watches
                .iter()
                .filter(|(_, own)| own.ended.is_none() && own.start <= revision + 1)
                .map(|(id, _)| *id)
                .collect();
            for id in &ids {
                world.send(client, *id, &Call::WatchProgress);
            }
            world.settle();
            for id in ids {
                let own = &world.clients[client].watches[&id];
                assert!(own.progress > 0 && own.through == revision, "{own:?} at {revision}");
            }
        }
    }
    assert!(compacted > 20 && caught > 100, "{compacted} compacted, {caught} caught up");
}

#[test]
fn a_connection_that_takes_no_byte_loses_its_watches_with_a_reason_and_then_itself() {
    let mut world = World::new(1);
    let client = world.connect();
    let id = world.watch(client, all(0), 0);
    world.settle();
    world.clients[client].blocked = true;
    world.put(b"a", b"1");
    world.settle();
    for _ in 0..12 {
        world.now = world.now.after(Duration::from_millis(1_000));
        world.settle();
    }
    assert_eq!(world.clients[client].closed, None);
    world.unblock(client);
    let own = &world.clients[client].watches[&id];
    assert_eq!(own.ended.map(|(status, _)| status), Some(Status::SlowReader));
    assert_eq!((own.told.len(), own.through), (1, 2));
    world.check(true);
    // The next one does not come back.
    let other = world.connect();
    world.watch(other, all(0), 0);
    world.settle();
    world.clients[other].blocked = true;
    world.put(b"a", b"2");
    world.settle();
    for _ in 0..25 {
        world.now = world.now.after(Duration::from_millis(1_000));
        world.settle();
    }
    assert_eq!(world.clients[other].closed, Some(CloseReason::SlowReader));
}

/// The store is asked for the first watches only: once one of them has been told what comes next, those that
/// begin there and still wait are live at once. Each question takes memory that is not given back, for it lies
/// between what the watches keep.
#[test]
fn watches_that_begin_together_with_the_first_one_do_not_all_ask_the_store() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        world.put(b"a", b"before");
        let client = world.connect();
        for _ in 0..200 {
            world.watch(client, all(0), 0);
        }
        world.put(b"a", b"beside");
        world.settle();
        world.put(b"a", b"behind");
        world.settle();
        world.check(true);
        assert!(world.clients[client].watches.values().all(|watch| !watch.told.is_empty()));
        assert!((1..=64).contains(&world.asked), "the store was asked {} times", world.asked);
    }
}
