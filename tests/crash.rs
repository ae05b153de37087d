//! Crash safety of the whole server: writers that know what they wrote, a server that is killed at
//! random moments and started again on the same data directory, and a look at everything in between.
//!
//! ```text
//! start (killed now and then before, or right when, it is ready) ─► verify ─► writers ─► kill ─┐
//!   ▲                                                                                          │
//!   └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Every writer owns keys of its own, and a key is part of at most one request in flight. So a key that
//! nothing is in flight for has exactly one right state, with its revisions and its version, and a
//! request in flight has been done as a whole or not at all. As every request that changes something
//! takes one revision, the newest revision says that nothing else was done.
//!
//! QUORATE_TEST_SCALE=8 makes more than 200 kills; QUORATE_SEED repeats the choices (not the timing).

#![allow(clippy::unwrap_used)]

mod process;

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use base::{Prng, RequestId};
use client::{
    Call, Client, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Effect, Error,
    KeyValue, Op, Put, Range, Reply, Status, Txn,
};
use process::{DataDir, PATIENCE, SMALL, Server, Signal, Start};

/// How a writer writes.
#[derive(Clone, Copy)]
struct Habit {
    /// Keys it owns.
    keys: usize,
    /// Requests it keeps in flight.
    depth: usize,
    /// Greatest value in bytes.
    size_max: u64,
    /// Whether it also compacts.
    compacts: bool,
}

/// One request at a time and many, inline values and runs of several pages to the greatest value.
const HABITS: [Habit; 4] = [
    Habit { keys: 60, depth: 1, size_max: 500, compacts: true },
    Habit { keys: 100, depth: 8, size_max: 12_000, compacts: false },
    Habit { keys: 24, depth: 3, size_max: 3 << 19, compacts: false },
    Habit { keys: 300, depth: 16, size_max: 300, compacts: false },
];

/// Names a value: nobody writes the same one twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    serial: u64,
    size: usize,
}

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    stamp: Stamp,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
}

impl Held {
    /// What a key of a server holds; its value must be one that was written there.
    fn read(member: &KeyValue<'_>) -> Self {
        let stamp = stamp_of(member.key, member.value).unwrap_or_else(|| {
            let key = String::from_utf8_lossy(member.key);
            panic!("{key} holds {} bytes that nobody wrote there", member.value.len())
        });
        let KeyValue { create_revision, mod_revision, version, .. } = *member;
        Self { stamp, create_revision, mod_revision, version }
    }

    /// What a put at `revision` makes of a key.
    fn put(before: Option<Self>, stamp: Stamp, revision: i64) -> Self {
        let (create_revision, version) =
            before.map_or((revision, 1), |held| (held.create_revision, held.version + 1));
        Self { stamp, create_revision, mod_revision: revision, version }
    }
}

fn key_of(writer: usize, index: usize) -> Vec<u8> {
    format!("w{writer}/{index:04}").into_bytes()
}

fn place_of(key: &[u8]) -> Option<(usize, usize)> {
    let (writer, index) = std::str::from_utf8(key).ok()?.strip_prefix('w')?.split_once('/')?;
    Some((writer.parse().ok()?, index.parse().ok()?))
}

const STAMP_SIZE: usize = 16;

fn value_of(key: &[u8], stamp: Stamp) -> Vec<u8> {
    let mut value = vec![0; stamp.size];
    let (head, rest) = value.split_at_mut(STAMP_SIZE);
    head[..8].copy_from_slice(&stamp.serial.to_le_bytes());
    head[8..].copy_from_slice(&(stamp.size as u64).to_le_bytes());
    Prng::new(stamp.serial ^ u64::from(base::crc32(key))).fill(rest);
    value
}

/// The stamp of a value, if it is one that [`value_of`] gives for this key.
fn stamp_of(key: &[u8], value: &[u8]) -> Option<Stamp> {
    let serial = u64::from_le_bytes(value.get(..8)?.try_into().ok()?);
    let stamp = Stamp { serial, size: value.len() };
    (stamp.size >= STAMP_SIZE && value == value_of(key, stamp)).then_some(stamp)
}

/// A key, by its index, and what it shall hold: a value or nothing.
type Change = (usize, Option<Stamp>);

/// What a request asks for.
#[derive(Debug)]
enum Wish {
    /// One change of one key; the answer shall hold what was there before.
    One,
    /// Deletes all keys from the first one's to the last one's.
    Span,
    /// All changes in a transaction that holds only if the first key is as expected.
    Txn,
    /// Reads the key at this place.
    Get(usize),
    /// Gives up history below this revision.
    Compact(i64),
}

/// A request that is not known to be done.
#[derive(Debug)]
struct Flight {
    request: RequestId,
    wish: Wish,
    changes: Vec<Change>,
    /// What a piece of the answer has shown; revisions come with the last one.
    shown: Option<Held>,
}

impl Flight {
    /// The keys that it has to do with.
    fn keys(&self) -> impl Iterator<Item = usize> {
        let read = if let Wish::Get(index) = self.wish { Some(index) } else { None };
        read.into_iter().chain(self.changes.iter().map(|&(index, _)| index))
    }
}

/// What one writer knows.
struct Ledger {
    writer: usize,
    habit: Habit,
    prng: Prng,
    held: Vec<Option<Held>>,
    /// Keys of requests in flight.
    busy: Vec<bool>,
    flights: Vec<Flight>,
    serial: u64,
    /// The greatest revision that was acknowledged, and how many requests took one.
    revision: i64,
    changes: i64,
    /// The greatest compaction that was asked for, and that was acknowledged.
    compact_asked: i64,
    compacted: i64,
}

impl Ledger {
    fn new(writer: usize, habit: Habit, prng: Prng) -> Self {
        Self {
            writer,
            habit,
            prng,
            held: vec![None; habit.keys],
            busy: vec![false; habit.keys],
            flights: Vec::new(),
            serial: 0,
            revision: 1,
            changes: 0,
            compact_asked: 0,
            compacted: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.prng.below(bound as u64)).unwrap()
    }

    fn stamp(&mut self) -> Stamp {
        self.serial += 1;
        // Small ones are frequent: every size class down to the stamp alone comes up.
        let max = (self.habit.size_max >> self.prng.below(8)).max(STAMP_SIZE as u64);
        let size = STAMP_SIZE as u64 + self.prng.below(max - STAMP_SIZE as u64 + 1);
        Stamp { serial: self.serial, size: usize::try_from(size).unwrap() }
    }

    /// A key that no request in flight has to do with.
    fn free_key(&mut self) -> Option<usize> {
        for _ in 0..8 {
            let index = self.below(self.habit.keys);
            if !self.busy[index] {
                return Some(index);
            }
        }
        None
    }

    /// What to ask for next.
    fn draw(&mut self) -> Option<(Wish, Vec<Change>)> {
        let first = self.free_key()?;
        Some(match self.prng.below(20) {
            0 => (Wish::Get(first), Vec::new()),
            1..=2 => (Wish::One, vec![(first, None)]),
            3 => {
                let last = (first + 1 + self.below(8)).min(self.habit.keys - 1);
                if (first..=last).any(|index| self.busy[index]) {
                    return None;
                }
                (Wish::Span, (first..=last).map(|index| (index, None)).collect())
            }
            4..=7 => {
                // With large values as many as fit one request for certain.
                let count = if self.habit.size_max > 1 << 16 { 1 } else { 1 + self.below(5) };
                let mut changes = vec![(first, Some(self.stamp()))];
                for _ in 1..count {
                    let index = self.free_key()?;
                    if changes.iter().all(|(other, _)| *other != index) {
                        let to = if self.prng.one_in(4) { None } else { Some(self.stamp()) };
                        changes.push((index, to));
                    }
                }
                (Wish::Txn, changes)
            }
            8 if self.habit.compacts && self.prng.one_in(8) => {
                let back = i64::try_from(self.prng.below(300)).unwrap();
                let revision = self.revision - back;
                if revision <= self.compact_asked {
                    return None;
                }
                self.compact_asked = revision;
                (Wish::Compact(revision), Vec::new())
            }
            _ => (Wish::One, vec![(first, Some(self.stamp()))]),
        })
    }

    /// Submits one more request. False: none more can be.
    fn submit(&mut self, client: &mut Client) -> bool {
        let Some((wish, changes)) = self.draw() else { return true };
        let keys: Vec<Vec<u8>> =
            changes.iter().map(|&(index, _)| key_of(self.writer, index)).collect();
        let values: Vec<Option<Vec<u8>>> = keys
            .iter()
            .zip(&changes)
            .map(|(key, (_, to))| to.map(|stamp| value_of(key, stamp)))
            .collect();
        let submitted = match &wish {
            Wish::Get(index) => {
                client.submit(&Call::Range(Range::one(&key_of(self.writer, *index))))
            }
            Wish::Compact(revision) => {
                let physical = self.prng.one_in(2);
                client.submit(&Call::Compact(Compact { revision: *revision, physical }))
            }
            Wish::One => client.submit(&match &values[0] {
                Some(value) => Call::Put(Put { prev_kv: true, ..Put::new(&keys[0], value) }),
                None => {
                    Call::DeleteRange(DeleteRange { prev_kv: true, ..DeleteRange::one(&keys[0]) })
                }
            }),
            Wish::Span => {
                let mut end = keys.last().unwrap().clone();
                end.push(0);
                client.submit(&Call::DeleteRange(DeleteRange::between(&keys[0], &end)))
            }
            Wish::Txn => {
                let expected = self.held[changes[0].0].map_or(0, |held| held.mod_revision);
                let (target, result) = (CompareTarget::ModRevision, CompareResult::Equal);
                let mut txn = Txn::new()
                    .when(Compare::number(&keys[0], target, result, expected))
                    .otherwise(Op::Range(Range::one(&keys[0])));
                for (key, value) in keys.iter().zip(&values) {
                    txn = txn.then(match value {
                        Some(value) => Op::Put(Put::new(key, value)),
                        None => Op::DeleteRange(DeleteRange::one(key)),
                    });
                }
                client.submit(&Call::Txn(&txn))
            }
        };
        match submitted {
            Ok(request) => {
                let flight = Flight { request, wish, changes, shown: None };
                flight.keys().for_each(|index| self.busy[index] = true);
                self.flights.push(flight);
                true
            }
            Err(Error::CreditsUsed) => true,
            Err(_) => false,
        }
    }

    /// Takes the flight with this request off the list.
    fn land(&mut self, request: RequestId) -> Flight {
        let place = self.flights.iter().position(|flight| flight.request == request);
        let flight = self.flights.swap_remove(place.expect("an answer belongs to a request"));
        flight.keys().for_each(|index| self.busy[index] = false);
        flight
    }

    /// Keeps what a piece shows until the last one comes.
    fn look(&mut self, request: RequestId, piece: Reply<'_>) {
        let flight = self.flights.iter_mut().find(|flight| flight.request == request);
        let (Some(flight), Reply::Range(mut piece)) = (flight, piece) else {
            panic!("a piece of something else than a range");
        };
        flight.shown = piece.kvs.next().map(|member| Held::read(&member));
    }

    /// Books an answer, after checking it against what is known.
    fn acknowledge(&mut self, request: RequestId, reply: Reply<'_>) {
        let flight = self.land(request);
        let (writer, before) = (self.writer, flight.changes.first().map(|&(index, _)| index));
        let before = before.and_then(|index| self.held[index]);
        let existing = flight.changes.iter().filter(|(index, _)| self.held[*index].is_some());
        let existing = i64::try_from(existing.count()).unwrap();
        let same = |held: Option<Held>, found: Option<KeyValue<'_>>| {
            let found = found.map(|member| Held::read(&member));
            assert_eq!(held, found, "writer {writer}: {flight:?} shows another state");
        };
        let mut takes_revision = true;
        let revision = match (&flight.wish, reply) {
            (Wish::One, Reply::Put(reply)) => {
                same(before, reply.previous);
                reply.revision
            }
            (Wish::One, Reply::DeleteRange(reply)) => {
                same(before, reply.previous.into_iter().next());
                assert_eq!(reply.deleted, existing, "writer {writer}: {flight:?}");
                takes_revision = existing > 0;
                reply.revision
            }
            (Wish::Span, Reply::DeleteRange(reply)) => {
                assert_eq!(reply.deleted, existing, "writer {writer}: {flight:?}");
                takes_revision = existing > 0;
                reply.revision
            }
            (Wish::Txn, Reply::Txn(reply)) => {
                assert!(reply.succeeded(), "writer {writer}: {flight:?}: {before:?} was expected");
                reply.revision()
            }
            (Wish::Get(index), Reply::Range(mut reply)) => {
                let piece = reply.kvs.next();
                let found = piece.map(|member| Held::read(&member)).or(flight.shown);
                assert_eq!(found, self.held[*index], "writer {writer}: {flight:?}");
                takes_revision = false;
                reply.revision
            }
            (Wish::Compact(revision), Reply::Compact(reply)) => {
                self.compacted = self.compacted.max(*revision);
                takes_revision = false;
                reply.revision
            }
            (wish, reply) => panic!("writer {writer}: {wish:?} is answered with {reply:?}"),
        };
        self.revision = self.revision.max(revision);
        self.changes += i64::from(takes_revision);
        for (index, to) in flight.changes {
            self.held[index] = to.map(|stamp| Held::put(self.held[index], stamp, revision));
        }
    }

    /// Writes until the connection ends or the server wants to stop. What has no answer then stays on
    /// the list of flights. Tells `progress` of each answer.
    fn write(&mut self, mut client: Client, progress: &Sender<()>) {
        let mut ending = false;
        loop {
            while !ending && client.in_flight() < self.habit.depth {
                ending = !self.submit(&mut client);
            }
            let Some(completion) = client.receive() else { break };
            match completion.result {
                Ok(answer) => {
                    let reply = answer.reply().unwrap();
                    if !completion.is_final {
                        self.look(completion.request, reply);
                        continue;
                    }
                    self.acknowledge(completion.request, reply);
                    // Nobody counts any more once the server has been killed.
                    let _ = progress.send(());
                }
                Err(Error::Refused(refusal)) => {
                    let may_be = matches!(
                        refusal.status,
                        Status::ShuttingDown | Status::Unknown | Status::Unavailable
                    );
                    assert!(may_be || refusal.status == Status::Overloaded, "{refusal:?}");
                    ending |= may_be;
                    if refusal.effect == Effect::None {
                        self.land(completion.request);
                    }
                }
                Err(_) => {
                    ending = true;
                    if !completion.was_sent {
                        self.land(completion.request);
                    }
                }
            }
        }
    }
}

/// One data directory and everything that is known about it.
struct Run {
    data_dir: DataDir,
    flags: Vec<&'static str>,
    prng: Prng,
    ledgers: Vec<Ledger>,
    /// The newest revision at the last look.
    revision: i64,
    /// What all keys held at earlier looks, by revision.
    past: VecDeque<(i64, BTreeMap<Vec<u8>, Held>)>,
    kills: u64,
    /// How long the last start took.
    start_time: Duration,
}

/// Earlier looks that are kept, to be looked at again through the history.
const PAST_MAX: usize = 5;

impl Run {
    fn new(name: &str, flags: &[&'static str]) -> Self {
        let prng = Prng::new(process::seed()).fork(name);
        let ledger = |(writer, habit): (usize, &Habit)| {
            Ledger::new(writer, *habit, prng.fork(&format!("writer {writer}")))
        };
        Self {
            data_dir: DataDir::new(name),
            flags: SMALL.iter().chain(flags).copied().collect(),
            ledgers: HABITS.iter().enumerate().map(ledger).collect(),
            prng,
            revision: 1,
            past: VecDeque::new(),
            kills: 0,
            start_time: Duration::from_millis(100),
        }
    }

    fn spawn(&mut self) -> Start {
        let mut flags = self.flags.clone();
        if !flags.contains(&"--sync") {
            // The measurement of `auto` takes longer than all the rest of a start.
            let methods = ["fdatasync", "dsync"];
            let chosen = usize::try_from(self.prng.below(2)).unwrap();
            let method = if self.prng.one_in(10) { "auto" } else { methods[chosen] };
            flags.extend(["--sync", method]);
        }
        Start::spawn(self.data_dir.path(), &flags)
    }

    fn killed(&mut self, ended: &process::Ended) {
        assert!(ended.was_killed(), "ended by itself: {ended:?}");
        self.kills += 1;
    }

    /// Starts a server, after having killed others on the way there.
    fn start(&mut self) -> Server {
        while self.prng.one_in(3) {
            let longest = u64::try_from(self.start_time.as_micros()).unwrap() * 5 / 4;
            let moment = Duration::from_micros(self.prng.below(longest));
            let ended = match self.spawn().ready_within(moment) {
                Err(start) => start.kill(),
                Ok(Ok(server)) => server.kill(),
                Ok(Err(ended)) => ended,
            };
            self.killed(&ended);
        }
        let begin = Instant::now();
        let server = self.spawn().ready().unwrap_or_else(|ended| panic!("no start: {ended:?}"));
        self.start_time = begin.elapsed();
        server
    }

    /// Reads all keys and settles what was in flight.
    fn verify(&mut self, server: &Server) {
        let mut client = server.client();
        let mut found: Vec<Vec<Option<Held>>> =
            self.ledgers.iter().map(|ledger| vec![None; ledger.habit.keys]).collect();
        let summary = client
            .range_each(&Range::all(), |member| {
                let held = Held::read(&member);
                let place = place_of(member.key);
                let slot = place.and_then(|(writer, index)| found.get_mut(writer)?.get_mut(index));
                let slot = slot.unwrap_or_else(|| panic!("nobody wrote {:?}", member.key));
                assert_eq!(slot.replace(held), None, "{:?} came twice", member.key);
            })
            .unwrap();
        let known = self.ledgers.iter().map(|ledger| ledger.revision).max().unwrap();
        assert!(
            summary.revision >= known,
            "revision {known} was acknowledged, the newest one is {}",
            summary.revision
        );
        let mut changes = 0;
        for (ledger, found) in self.ledgers.iter_mut().zip(&found) {
            changes += std::mem::take(&mut ledger.changes);
            changes += settle(ledger, found);
        }
        assert_eq!(
            summary.revision,
            self.revision + changes,
            "{changes} changes were done since revision {}",
            self.revision
        );
        self.revision = summary.revision;

        let status = client.status().unwrap();
        let (compacted, asked) = (self.ledgers[0].compacted, self.ledgers[0].compact_asked);
        assert!(
            (compacted..=asked).contains(&status.compacted_revision.max(0)),
            "compacted to {}; {compacted} was acknowledged, {asked} asked for",
            status.compacted_revision
        );
        self.verify_past(&mut client, status.compacted_revision);
    }

    /// Reads all keys as they were at an earlier look.
    fn verify_past(&mut self, client: &mut Client, compacted: i64) {
        self.past.retain(|(revision, _)| *revision >= compacted);
        if !self.past.is_empty() {
            let chosen = self.prng.below(self.past.len() as u64);
            let (revision, keys) = &self.past[usize::try_from(chosen).unwrap()];
            let mut found = BTreeMap::new();
            let request = Range { revision: *revision, ..Range::all() };
            client
                .range_each(&request, |member| {
                    let held = Held::read(&member);
                    found.insert(member.key.to_vec(), held);
                })
                .unwrap();
            assert!(found == *keys, "the keys at revision {revision} are not what they were");
        }
        let keys = self.ledgers.iter().flat_map(|ledger| {
            let held = ledger.held.iter().enumerate();
            held.filter_map(|(index, held)| Some((key_of(ledger.writer, index), (*held)?)))
        });
        self.past.push_back((self.revision, keys.collect()));
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
    }

    /// Lets all writers write until `answers` have come, ends the server and waits for the writers.
    fn write<T>(&mut self, server: Server, answers: u64, end: impl FnOnce(Server) -> T) -> T {
        let (address, cluster) = (server.address(), server.cluster());
        let (sender, progress) = mpsc::channel();
        thread::scope(|scope| {
            for ledger in &mut self.ledgers {
                let sender = sender.clone();
                scope.spawn(move || {
                    let client = process::connect_to_cluster(address, cluster);
                    // The server may have been killed already.
                    if let Ok(client) = client {
                        ledger.write(client, &sender);
                    }
                });
            }
            for _ in 0..answers {
                if progress.recv_timeout(PATIENCE).is_err() {
                    panic!("no answer any more; standard error:\n{}", server.stderr());
                }
            }
            end(server)
        })
    }

    /// One turn: start, look, write, kill.
    fn turn(&mut self) {
        let server = self.start();
        self.verify(&server);
        // From a single answer to two thousand, each order of magnitude as often.
        let answers = 1 << self.prng.below(12);
        let answers = self.prng.below(answers);
        let moment = Duration::from_micros(self.prng.below(3_000));
        let ended = self.write(server, answers, |server| {
            // Between two answers, too: it does not end by itself meanwhile.
            match server.ended_within(moment) {
                Ok(ended) => ended,
                Err(server) => server.kill(),
            }
        });
        self.killed(&ended);
        if self.prng.one_in(5) {
            let copy = DataDir::new("crash-copy");
            process::copy(self.data_dir.path(), copy.path());
            process::check_clean(copy.path());
        }
    }

    /// The last look.
    fn finish(mut self) {
        let server = Start::spawn(self.data_dir.path(), &self.flags);
        let server = server.ready().unwrap_or_else(|ended| panic!("no start: {ended:?}"));
        self.verify(&server);
        let (ended, _) = server.stop(Signal::TERM);
        assert!(ended.status.success(), "{ended:?}");
        let report = process::check_clean(self.data_dir.path());
        let told = |word: &str| report.lines().filter(|line| line.starts_with(word)).count();
        eprintln!(
            "{} kills, {} requests took a revision, {} meta slots in use",
            self.kills,
            self.revision - 1,
            told("pages slot")
        );
    }
}

/// Compares what was found of one writer's keys with what it knows. Requests in flight have been done
/// or not; gives the number of those that took a revision.
fn settle(ledger: &mut Ledger, found: &[Option<Held>]) -> i64 {
    let writer = ledger.writer;
    for (index, found) in found.iter().enumerate() {
        let is_changing = |flight: &Flight| flight.changes.iter().any(|(other, _)| *other == index);
        if !ledger.flights.iter().any(is_changing) {
            let held = ledger.held[index];
            assert_eq!(*found, held, "key {index} of writer {writer} is not as acknowledged");
        }
    }
    let mut done = 0;
    for flight in std::mem::take(&mut ledger.flights) {
        // Whether each change shows; a key that was not there and shall not be says nothing.
        let mut shown = None;
        flight.keys().for_each(|index| ledger.busy[index] = false);
        for (index, to) in &flight.changes {
            let (before, after) = (ledger.held[*index], found[*index]);
            if before.is_none() && to.is_none() {
                assert_eq!(after, None, "key {index} of writer {writer} in {flight:?}");
                continue;
            }
            let shows = after != before;
            let expected =
                if shows { after.and_then(|after| expected(before, *to, after)) } else { before };
            assert_eq!(after, expected, "key {index} of writer {writer} after {flight:?}");
            let first = *shown.get_or_insert(shows);
            assert_eq!(shows, first, "writer {writer}: half of {flight:?} was done: {found:?}");
        }
        if shown == Some(true) {
            done += 1;
            let revisions = flight.changes.iter().filter_map(|(index, _)| found[*index]);
            let revisions: Vec<i64> = revisions.map(|held| held.mod_revision).collect();
            assert!(
                revisions.iter().all(|revision| *revision == revisions[0]),
                "writer {writer}: {flight:?} was done at {revisions:?}"
            );
            for (index, _) in &flight.changes {
                ledger.held[*index] = found[*index];
            }
        }
    }
    done
}

/// What a key must hold after a change that shows as `after`.
fn expected(before: Option<Held>, to: Option<Stamp>, after: Held) -> Option<Held> {
    let held = Held::put(before, to?, after.mod_revision);
    let is_later = before.is_none_or(|before| after.mod_revision > before.mod_revision);
    is_later.then_some(held)
}

#[test]
fn acknowledged_writes_survive_kills_at_random_moments_and_nothing_is_invented() {
    let mut run = Run::new("kills", &[]);
    for _ in 0..20 * process::scale() {
        run.turn();
    }
    run.finish();
}

#[test]
fn acknowledged_writes_survive_kills_with_an_executor_for_each_role() {
    let mut run = Run::new("dedicated", &["--topology", "dedicated"]);
    for _ in 0..5 * process::scale() {
        run.turn();
    }
    run.finish();
}

#[test]
fn a_server_that_is_killed_while_it_makes_its_data_directory_starts_again() {
    let mut prng = Prng::new(process::seed());
    let mut start_time = Duration::from_millis(400);
    for _ in 0..4 * process::scale() {
        let data_dir = DataDir::new("first");
        for _ in 0..2 {
            let longest = u64::try_from(start_time.as_micros()).unwrap();
            let moment = Duration::from_micros(prng.below(longest));
            let ended = match Start::spawn(data_dir.path(), SMALL).ready_within(moment) {
                Err(start) => start.kill(),
                Ok(Ok(server)) => server.kill(),
                Ok(Err(ended)) => ended,
            };
            assert!(ended.was_killed(), "{ended:?}");
        }
        let begin = Instant::now();
        let server = Server::start(data_dir.path(), SMALL);
        start_time = begin.elapsed();
        let mut client = server.client();
        assert_eq!(client.put(&Put::new(b"key", b"value")).unwrap().revision, 2);
        server.kill();
        process::check_clean(data_dir.path());
    }
}

#[test]
fn sigterm_and_sigint_stop_a_busy_server_soon_with_exit_code_0_and_nothing_is_lost() {
    for (name, flags) in
        [("stops", [].as_slice()), ("stops-dedicated", &["--topology", "dedicated"])]
    {
        let mut run = Run::new(name, flags);
        for turn in 0..2 * process::scale() {
            let signal = if turn % 2 == 0 { Signal::TERM } else { Signal::INT };
            let server = Server::start(run.data_dir.path(), &run.flags);
            run.verify(&server);
            let (ended, time) = run.write(server, 200, |server| server.stop(signal));
            assert_eq!(ended.status.code(), Some(0), "{signal:?}: {ended:?}");
            assert!(time < Duration::from_millis(1_500), "{signal:?} took {time:?}");
            eprintln!("{signal:?}: stopped in {time:?}");
        }
        run.finish();
    }
}

/// Why: the first page that a process has to read from the disk takes another way than the reads of a
/// start. On a data directory that the process has made itself it comes late, under load.
#[test]
fn what_does_not_fit_the_page_cache_of_a_new_data_directory_is_read_back() {
    for topology in ["shared", "dedicated"] {
        let data_dir = DataDir::new("cache");
        let flags = [SMALL, &["--topology", topology]].concat();
        let server = Server::start(data_dir.path(), &flags);
        let mut client = server.client();
        let stamp = |index: usize| Stamp { serial: index as u64, size: 1 << 20 };
        for index in 0..48 {
            let key = key_of(0, index);
            client.put(&Put::new(&key, &value_of(&key, stamp(index)))).unwrap();
        }
        for index in 0..48 {
            let key = key_of(0, index);
            let member = client.get(&key);
            let member = member.unwrap_or_else(|error| {
                panic!("{topology}: {error}; standard error:\n{}", server.stderr())
            });
            assert_eq!(stamp_of(&key, &member.unwrap().value), Some(stamp(index)), "{topology}");
        }
        server.stop(Signal::TERM);
        process::check_clean(data_dir.path());
    }
}

#[test]
fn a_server_starts_behind_one_that_was_killed_a_moment_ago() {
    let dir = DataDir::new("behind");
    for round in 0..5 {
        let first = Server::start(dir.path(), SMALL);
        first.client().put(&Put::new(b"key", format!("{round}").as_bytes())).unwrap();
        first.signal(Signal::KILL);
        // Not waited for: the kernel may still be taking it apart.
        let second = Server::start(dir.path(), SMALL);
        let found = second.client().get(b"key").unwrap().unwrap();
        assert_eq!(found.value, format!("{round}").as_bytes());
        assert!(first.kill().was_killed());
        second.kill();
    }
}
