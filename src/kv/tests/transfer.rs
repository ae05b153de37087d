//! States that go from one member to another: what arrives is what left, whatever happens meanwhile, and
//! what is not whole is refused.
//!
//! `QUORATE_SEED` sets the seed, `QUORATE_TEST_SCALE` multiplies the number of rounds.

#![allow(clippy::unwrap_used)]

mod machine;
mod oracle;

use std::ops::ControlFlow;

use base::{ClientId, Hash128, Prng, Revision, RootNo, Stamp, crc32, hash128};
use kv::{
    CHUNK_SIZE_MAX, Chunk, Command, DeleteRange, Export, Fed, Import, ImportRefusal, Op, OpenError,
    Outcome, Put, RangeRequest, State, Step, Txn,
};
use tree::{Direction, KeyRange, PageFile, TreeId};

use machine::{Machine, open, options, write_checkpoint};
use oracle::{Answered, Oracle};

const ROUNDS: u64 = 24;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn bytes(prng: &mut Prng, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    prng.fill(&mut bytes);
    bytes
}

fn pick<'s>(prng: &mut Prng, from: &'s [Vec<u8>]) -> &'s [u8] {
    &from[usize::try_from(prng.below(from.len() as u64)).unwrap()]
}

/// The keys and values of a round.
struct Words {
    keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
    compacts: bool,
}

impl Words {
    fn new(prng: &mut Prng, round: u64) -> Self {
        let keys = (0..[5, 60, 400][usize::try_from(round % 3).unwrap()])
            .map(|n| {
                let mut key = format!("/registry/{n}").into_bytes();
                if round.is_multiple_of(4) {
                    let size = prng.below(1_900);
                    key.extend(bytes(prng, size));
                }
                key
            })
            .collect();
        let values = (0..40_u64)
            .map(|n| {
                let size = match n {
                    0 => 0,
                    1 => CHUNK_SIZE_MAX as u64 + 1,
                    2 if round.is_multiple_of(2) => 700_000,
                    3..6 => 8_000 + prng.below(400),
                    6..10 => prng.below(40_000),
                    10..16 => 3_000 + prng.below(1_000),
                    _ => prng.below(200),
                };
                bytes(prng, size)
            })
            .collect();
        Self { keys, values, compacts: !round.is_multiple_of(5) }
    }

    fn value(&self, prng: &mut Prng) -> &[u8] {
        // The great ones come seldom.
        if prng.one_in(20) { pick(prng, &self.values) } else { pick(prng, &self.values[10..]) }
    }

    fn put<'w>(&'w self, prng: &mut Prng) -> Put<'w> {
        let key = pick(prng, &self.keys);
        if prng.one_in(12) {
            return Put { key, ignore_value: true, ..Put::default() };
        }
        Put { key, value: self.value(prng), ..Put::default() }
    }

    fn delete<'w>(&'w self, prng: &mut Prng) -> DeleteRange<'w> {
        let range_end = match prng.below(40) {
            0 => b"\0",
            1..6 => pick(prng, &self.keys),
            _ => &b""[..],
        };
        DeleteRange { key: pick(prng, &self.keys), range_end, prev_kv: false }
    }

    fn command<'w>(&'w self, prng: &mut Prng, oracle: &Oracle<'_>) -> Command<'w> {
        match prng.below(40) {
            0 if self.compacts => {
                let from = oracle.compacted.max(0);
                let kept = u64::try_from(oracle.revision - from).unwrap();
                let revision = from + i64::try_from(prng.below(kept + 1)).unwrap();
                Command::Compact { revision, physical: false }
            }
            1 => Command::Members(pick(prng, &self.values[10..16])),
            2 => Command::Nothing,
            3 => Command::Register { clients_max: 4 },
            4..8 => {
                let mut success = vec![Op::DeleteRange(self.delete(prng))];
                for _ in 0..prng.below(4) {
                    success.push(Op::Put(self.put(prng)));
                }
                Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() })
            }
            8..14 => Command::DeleteRange(self.delete(prng)),
            _ => Command::Put(self.put(prng)),
        }
    }
}

/// The stamp of a new write of some client, or of one that is known.
fn stamp(prng: &mut Prng, oracle: &Oracle<'_>, command: &Command<'_>) -> Option<Stamp> {
    let bypasses =
        matches!(command, Command::Register { .. } | Command::Members(_) | Command::Nothing);
    let ids: Vec<u64> = oracle.clients.by_id.keys().copied().collect();
    if bypasses || ids.is_empty() || prng.one_in(2) {
        return None;
    }
    let id = ids[below(prng, ids.len())];
    let client = &oracle.clients.by_id[&id];
    let newest = client.results.keys().next_back().map_or(client.floor, |last| last + 1);
    let sequence = if prng.one_in(5) { newest.saturating_sub(1) } else { newest };
    let floor = client.floor + prng.below(sequence.saturating_sub(client.floor) / 4 + 1);
    Some(Stamp { client: ClientId::new(id), sequence, floor })
}

/// A checkpoint as the oracle knows it.
#[derive(Clone)]
struct Moment<'w> {
    oracle: Oracle<'w>,
    applied: usize,
    hash: Hash128,
}

/// A member that goes on with its work while its state is sent.
struct Sender<'w> {
    words: &'w Words,
    prng: Prng,
    machine: Machine,
    oracle: Oracle<'w>,
    log: Vec<(Option<Stamp>, Command<'w>)>,
    outcomes: Vec<Outcome>,
    hashes: Vec<Hash128>,
    planned: Option<Moment<'w>>,
    newest: Option<Moment<'w>>,
}

impl<'w> Sender<'w> {
    fn new(words: &'w Words, mut prng: Prng, cache_size: u64) -> Self {
        let machine = Machine::new(prng.fork("machine"), cache_size, 200);
        let prng = Prng::new(prng.next_u64());
        Self {
            words,
            prng,
            machine,
            oracle: Oracle::new(),
            log: Vec::new(),
            outcomes: Vec::new(),
            hashes: Vec::new(),
            planned: None,
            newest: None,
        }
    }

    fn moment(&self) -> Moment<'w> {
        Moment { oracle: self.oracle.clone(), applied: self.log.len(), hash: self.machine.hash() }
    }

    fn entry(&mut self) {
        let command = self.words.command(&mut self.prng, &self.oracle);
        self.execute(command);
    }

    fn execute(&mut self, command: Command<'w>) {
        let stamp = stamp(&mut self.prng, &self.oracle, &command);
        let outcome = self.machine.apply_once(stamp.as_ref(), &command);
        oracle::assert_agrees(&outcome, &self.oracle.apply_once(stamp.as_ref(), &command));
        self.log.push((stamp, command));
        self.outcomes.push(outcome);
        self.hashes.push(self.machine.hash());
    }

    fn step(&mut self) {
        match self.prng.below(20) {
            0 => {
                self.machine.trim_step(Revision::MAX);
            }
            1 => self.machine.evict(),
            2..6 => self.checkpoint_step(),
            _ => self.entry(),
        }
    }

    fn checkpoint_step(&mut self) {
        if !self.machine.state.pages().checkpoint_running() {
            self.planned = Some(self.moment());
            self.machine.checkpoint_begin();
        }
        let writes = 1 + self.prng.below(3);
        if self.machine.checkpoint_step(writes) {
            self.newest = self.planned.take();
        }
    }

    fn checkpoint(&mut self) {
        while self.machine.state.pages().checkpoint_running() || self.newest.is_none() {
            self.checkpoint_step();
        }
    }

    /// One step of an export, its misses fetched; none: the budget was spent.
    fn export(&mut self, export: &mut Export, out: &mut Vec<u8>) -> Option<Chunk> {
        if self.prng.one_in(3) {
            let mut ahead = Vec::new();
            export.ahead(&self.machine.state, 3, &mut ahead);
            for miss in ahead {
                export.install(miss, self.machine.read_image(miss)).unwrap();
            }
        }
        let mut budget = u32::try_from(1 + self.prng.below(300)).unwrap();
        loop {
            match export.step(&self.machine.state, out, &mut budget) {
                Step::Done(chunk) => return Some(chunk),
                Step::More => return None,
                Step::Miss(miss) => {
                    export.install(miss, self.machine.read_image(miss)).unwrap();
                }
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
    }

    /// Every chunk of the newest checkpoint.
    fn chunks(&mut self) -> Vec<Vec<u8>> {
        let root = self.machine.state.pages_mut().hold().unwrap();
        let mut export = Export::new(&self.machine.state, root).unwrap();
        let mut chunks = Vec::new();
        loop {
            let mut out = Vec::new();
            let chunk = self.export(&mut export, &mut out);
            chunks.extend(chunk.map(|_| out));
            if chunk == Some(Chunk::Last) {
                self.machine.state.pages_mut().release(root);
                return chunks;
            }
        }
    }
}

/// A member whose state arrives.
struct Receiver {
    import: Import,
    image: Vec<u8>,
    prng: Prng,
    checkpoints: u64,
    fetched: u64,
}

impl Receiver {
    fn new(mut prng: Prng) -> Self {
        Self {
            import: Import::new(PageFile::create(&options(0))),
            image: Vec::new(),
            prng: Prng::new(prng.next_u64()),
            checkpoints: 0,
            fetched: 0,
        }
    }

    /// Takes in a whole chunk, with checkpoints and evictions in the middle of it.
    fn feed(&mut self, chunk: &[u8]) -> Result<Fed, ImportRefusal> {
        loop {
            if self.prng.one_in(4) {
                self.housekeeping();
            }
            let mut budget = u32::try_from(1 + self.prng.below(400)).unwrap();
            match self.import.feed(chunk, &mut budget)? {
                Fed::Miss(miss) => {
                    let offset = usize::try_from(miss.offset()).unwrap();
                    let bytes = &self.image[offset..offset + miss.size()];
                    self.import.state_mut().pages_mut().install(miss, bytes).unwrap();
                    self.fetched += 1;
                }
                Fed::More => {}
                fed => return Ok(fed),
            }
        }
    }

    fn housekeeping(&mut self) {
        let state = self.import.state_mut();
        if !state.pages().checkpoint_running() {
            state.checkpoint_begin();
        }
        let writes = 1 + self.prng.below(5);
        if write_checkpoint(state.pages_mut(), &mut self.image, writes) {
            self.checkpoints += 1;
            let opened = open(&options(0), &self.image);
            assert_eq!(opened.err(), Some(OpenError::Incomplete));
        }
        state.pages_mut().evict();
        let pages = state.pages();
        assert!(pages.resident_size() <= pages.dirty_size() + (4 << 20), "memory is bounded");
    }

    fn finish(self) -> Result<Machine, ImportRefusal> {
        let Self { import, image, prng, .. } = self;
        let mut machine = Machine::over(import.finish()?, image, prng, 100);
        // One that was begun before the end is still incomplete.
        if machine.state.pages().checkpoint_running() {
            machine.checkpoint();
        }
        machine.checkpoint();
        Ok(machine)
    }
}

/// Reads the whole store at every kept revision.
fn assert_same_history(machine: &mut Machine, oracle: &Oracle<'_>) {
    let from = oracle.compacted.max(1);
    let stride = usize::try_from(((oracle.revision - from) / 150).max(1)).unwrap();
    for revision in (from..=oracle.revision).rev().step_by(stride) {
        let request =
            RangeRequest { key: b"\0", range_end: b"\0", revision, ..RangeRequest::default() };
        let found = machine.read(&request).map(|(pairs, end)| Answered { pairs, end });
        assert_eq!(found, oracle.read(&request), "at {revision}");
    }
    let request = RangeRequest {
        key: b"a",
        range_end: b"\0",
        revision: oracle.compacted - 1,
        ..RangeRequest::default()
    };
    let found = machine.read(&request).map(|(pairs, end)| Answered { pairs, end });
    assert_eq!(found, oracle.read(&request), "below the compacted revision");
}

/// The events that a watch is told of, cell by cell.
fn assert_same_events(machine: &mut Machine, oracle: &Oracle<'_>) {
    machine.trim();
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    loop {
        let start = found.last().map_or(Vec::new(), |(key, _)| [&key[..], &[0]].concat());
        let range = KeyRange { start: &start, end: None };
        let pages = machine.state.pages();
        let mut visit = |cell: tree::Cell<'_>| {
            found.push((cell.key.to_vec(), cell.payload.to_vec()));
            ControlFlow::Continue(())
        };
        let events = TreeId(1);
        match pages.walk(events, range, Direction::Ascending, &mut |_| false, &mut visit) {
            Ok(()) => break,
            Err(miss) => machine.fetch(miss),
        }
    }
    assert_eq!(found.len(), oracle.events.len());
    for ((key, payload), event) in found.iter().zip(&oracle.events) {
        assert_eq!(key[..8], event.revision.to_be_bytes());
        assert_eq!(key[8..], event.sub.to_be_bytes());
        assert_eq!(payload[0] & 1, u8::from(event.delete));
        assert_eq!(&payload[3..3 + event.key.len()], event.key);
    }
}

/// Sends the newest checkpoint while the sender goes on, and looks at what arrives.
fn transfer(sender: &mut Sender<'_>, prng: &mut Prng) -> (u64, u64) {
    let moment = sender.newest.clone().unwrap();
    let root: RootNo = sender.machine.state.pages_mut().hold().unwrap();
    let mut export = Export::new(&sender.machine.state, root).unwrap();
    assert_eq!(export.applied().0.get(), moment.applied as u64);
    let mut receiver = Receiver::new(prng.fork("receiver"));
    let mut chunk = Vec::new();
    loop {
        for _ in 0..sender.prng.below(40) {
            sender.step();
        }
        let Some(kind) = sender.export(&mut export, &mut chunk) else { continue };
        assert!(chunk.len() <= CHUNK_SIZE_MAX);
        let fed = receiver.feed(&chunk).unwrap();
        assert_eq!(fed == Fed::Last, kind == Chunk::Last);
        if fed == Fed::Last {
            break;
        }
    }
    sender.machine.state.pages_mut().release(root);
    let (checkpoints, fetched) = (receiver.checkpoints, receiver.fetched);
    let mut machine = receiver.finish().unwrap();
    machine.verify();
    for again in [false, true] {
        if again {
            machine.reopen();
        }
        assert_eq!(machine.hash(), moment.hash);
        assert_eq!(machine.state.applied(), export.applied());
        let (bytes, index) = machine.state.members();
        assert_eq!((bytes, index.get()), moment.oracle.members);
        let live = moment.oracle.live_keys(i64::MAX).len() as u64;
        assert_eq!(machine.state.pages().summary(TreeId(0)).count, live);
        assert_eq!(machine.state.clients(), moment.oracle.clients.by_id.len() as u64);
        assert_same_history(&mut machine, &moment.oracle);
    }
    assert_same_events(&mut machine, &moment.oracle);
    // From there on the log makes the same of it as of the sender.
    for at in moment.applied..sender.log.len() {
        let (stamp, command) = &sender.log[at];
        assert_eq!(machine.apply_once(stamp.as_ref(), command), sender.outcomes[at]);
        assert_eq!(machine.hash(), sender.hashes[at], "entry {}", at + 1);
        match prng.below(40) {
            0 => machine.checkpoint(),
            1 => machine.trim(),
            2 => machine.evict(),
            _ => {}
        }
    }
    assert_same_history(&mut machine, &sender.oracle);
    assert_same_events(&mut machine, &sender.oracle);
    (checkpoints, fetched)
}

#[test]
fn a_state_arrives_as_it_was_while_the_sender_goes_on() {
    let seed = from_env("QUORATE_SEED", 1);
    let rounds = ROUNDS * from_env("QUORATE_TEST_SCALE", 1);
    let (mut checkpoints, mut fetched) = (0, 0);
    for round in 0..rounds {
        println!("QUORATE_SEED={seed}, round {round}");
        let mut prng = Prng::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let words = Words::new(&mut prng, round);
        let cache_size = [0, 64 << 10, 1 << 30][usize::try_from(round % 3).unwrap()];
        let mut sender = Sender::new(&words, prng.fork("sender"), cache_size);
        for _ in 0..prng.below(1_500) {
            sender.step();
        }
        sender.checkpoint();
        for _ in 0..2 {
            let (more, misses) = transfer(&mut sender, &mut prng);
            checkpoints += more;
            fetched += misses;
        }
        assert_eq!(sender.machine.state.pages().held_size(), 0);
        sender.machine.checkpoint();
        sender.machine.verify();
    }
    assert!(checkpoints > rounds, "{checkpoints} checkpoints of states that were arriving");
    assert!(fetched > 0, "no import had to fetch");
}

#[test]
fn an_empty_state_arrives_too() {
    let mut prng = Prng::new(3);
    let words = Words::new(&mut prng, 0);
    let mut sender = Sender::new(&words, prng.fork("sender"), 0);
    sender.machine.state.set_members_at_creation(b"the founders");
    assert!(sender.machine.state.pages_mut().hold().is_none(), "nothing is in the file yet");
    sender.checkpoint();
    let chunks = sender.chunks();
    assert_eq!(chunks.len(), 2, "a header and an end");
    let machine = receive(&mut prng, &chunks).unwrap();
    assert_eq!(machine.hash(), sender.machine.hash());
    assert_eq!(machine.state.members().0, b"the founders");
}

#[test]
fn an_export_needs_a_held_root() {
    let mut machine = Machine::plain();
    machine.checkpoint();
    let root = machine.state.pages_mut().hold().unwrap();
    assert!(Export::new(&machine.state, root).is_some());
    machine.state.pages_mut().release(root);
    assert!(Export::new(&machine.state, root).is_none());
}

fn receive(prng: &mut Prng, chunks: &[Vec<u8>]) -> Result<Machine, ImportRefusal> {
    let mut receiver = Receiver::new(prng.fork("receiver"));
    for chunk in chunks {
        receiver.feed(chunk)?;
    }
    receiver.finish()
}

/// A state of some chunks, with and without compaction.
fn sample(words: &Words, prng: &mut Prng) -> Vec<Vec<u8>> {
    let mut sender = Sender::new(words, prng.fork("sender"), 0);
    for _ in 0..500 {
        sender.step();
    }
    for key in &words.keys[..4] {
        sender.execute(Command::Put(Put { key, value: &words.values[1], ..Put::default() }));
    }
    while sender.machine.state.pages().checkpoint_running() {
        sender.checkpoint_step();
    }
    sender.newest = None;
    sender.checkpoint();
    sender.chunks()
}

fn below(prng: &mut Prng, limit: usize) -> usize {
    usize::try_from(prng.below(limit as u64)).unwrap()
}

/// Makes the checksum of a chunk right again.
fn reseal(chunk: &mut [u8]) {
    if chunk.len() >= 4 {
        let crc = crc32(&chunk[4..]);
        chunk[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn damaged_cut_reordered_and_repeated_chunks_are_refused() {
    for round in [1, 5] {
        let mut prng = Prng::new(40 + round);
        let words = Words::new(&mut prng, round);
        let chunks = sample(&words, &mut prng);
        assert!(chunks.len() > 4, "{} chunks", chunks.len());
        receive(&mut prng, &chunks).unwrap();

        for number in 0..chunks.len() {
            let refused = |chunks: &[Vec<u8>], prng: &mut Prng| receive(prng, chunks).err();
            let mut sent = chunks.clone();
            let at = below(&mut prng, sent[number].len());
            sent[number][at] ^= 1 << prng.below(8);
            let wanted = number as u64;
            assert_eq!(refused(&sent, &mut prng), Some(ImportRefusal::Checksum { wanted }));

            let mut sent = chunks.clone();
            let size = below(&mut prng, sent[number].len());
            sent[number].truncate(size);
            assert_eq!(refused(&sent, &mut prng), Some(ImportRefusal::Checksum { wanted }));

            let mut sent = chunks.clone();
            sent.insert(number, chunks[number].clone());
            let found = number as u64;
            let last = number + 1 == chunks.len();
            // Behind the last chunk nothing may come.
            let expected = if last {
                ImportRefusal::Malformed { number: wanted }
            } else {
                ImportRefusal::Number { wanted: wanted + 1, found }
            };
            assert_eq!(refused(&sent, &mut prng), Some(expected));

            let mut sent = chunks.clone();
            sent.remove(number);
            let expected = if last {
                ImportRefusal::Unfinished
            } else {
                ImportRefusal::Number { wanted, found: wanted + 1 }
            };
            assert_eq!(refused(&sent, &mut prng), Some(expected));

            let other = below(&mut prng, chunks.len());
            if other != number {
                let mut sent = chunks.clone();
                sent.swap(number, other);
                let first = number.min(other);
                let (wanted, found) = (first as u64, number.max(other) as u64);
                let expected = ImportRefusal::Number { wanted, found };
                assert_eq!(refused(&sent, &mut prng), Some(expected));
            }
        }
    }
}

/// Bytes that were changed before they were sent: the checksums are right.
#[test]
fn chunks_that_lie_are_refused_and_nothing_panics() {
    let mut forged_and_taken = 0;
    for round in [1, 5, 3] {
        let mut prng = Prng::new(60 + round);
        let words = Words::new(&mut prng, round);
        let chunks = sample(&words, &mut prng);
        for _ in 0..120 {
            let mut sent = chunks.clone();
            let number = below(&mut prng, sent.len());
            let chunk = &mut sent[number];
            let at = 12 + below(&mut prng, chunk.len() - 12);
            // Mostly where the numbers of cells stand, not inside of values.
            let at = if prng.one_in(2) { at } else { at.min(12 + below(&mut prng, 200)) };
            match prng.below(4) {
                0 => chunk.truncate(at),
                1 => chunk[at] ^= 1 << prng.below(8),
                2 => chunk[at] = if prng.one_in(2) { 0 } else { 255 },
                _ => {
                    let more = bytes(&mut prng, 9);
                    chunk.splice(at..at, more);
                }
            }
            chunk.truncate(CHUNK_SIZE_MAX);
            reseal(chunk);
            if sent == chunks {
                continue;
            }
            // The hash over everything is not right.
            assert!(receive(&mut prng, &sent).is_err(), "chunk {number} from {at}");
            // Now it is, as if the sender's own file said so.
            let bodies: Vec<u8> = sent[..sent.len() - 1]
                .iter()
                .flat_map(|chunk| chunk.get(13..).unwrap_or_default().to_vec())
                .collect();
            let end = sent.last_mut().unwrap();
            if end.len() == 13 + 24 {
                end[21..].copy_from_slice(&hash128(&bodies).to_bytes());
                reseal(end);
            }
            let Ok(mut machine) = receive(&mut prng, &sent) else { continue };
            // Some numbers prove nothing of each other, such as the applied index.
            forged_and_taken += 1;
            machine.state.state_hash();
            bear(&mut machine, &words, &mut prng);
        }
    }
    println!("{forged_and_taken} forgeries were taken");
}

/// Uses a state that may be damaged: it may say so, and must not panic.
fn bear(machine: &mut Machine, words: &Words, prng: &mut Prng) {
    let (mut index, term) = machine.state.applied();
    for _ in 0..30 {
        let command = words.command(prng, &Oracle::new());
        index = index.next();
        loop {
            let mut budget = u32::MAX;
            match machine.state.apply(index, term, &command, &mut budget) {
                Step::Done(_) => break,
                Step::Miss(miss) => machine.fetch(miss),
                Step::Damaged(_) => return,
                Step::More => {}
            }
        }
    }
    loop {
        let mut budget = u32::MAX;
        match machine.state.trim(Revision::MAX, &mut budget) {
            Step::Miss(miss) => machine.fetch(miss),
            Step::More => {}
            Step::Done(()) | Step::Damaged(_) => return,
        }
    }
}

#[test]
fn sums_that_are_not_those_of_the_cells_are_refused() {
    let mut prng = Prng::new(5);
    let words = Words::new(&mut prng, 5);
    assert!(!words.compacts);
    let chunks = sample(&words, &mut prng);
    // Header: checksum, number, kind, version, format, applied, term, revision, compacted, sums.
    let live = 13 + 1 + 1 + 4 * 8;
    for at in [live, live + 16] {
        let mut sent = chunks.clone();
        sent[0][at] ^= 1;
        reseal(&mut sent[0]);
        let bodies: Vec<u8> =
            sent[..sent.len() - 1].iter().flat_map(|chunk| chunk[13..].to_vec()).collect();
        let end = sent.last_mut().unwrap();
        assert_eq!(receive(&mut prng, &chunks).err(), None);
        end[21..].copy_from_slice(&hash128(&bodies).to_bytes());
        reseal(end);
        assert_eq!(receive(&mut prng, &sent).err(), Some(ImportRefusal::Sums));
    }
}

/// The chunks of a state with one key, by a sender that changes them before it reckons what goes last.
fn forged(change: impl FnOnce(&mut Vec<u8>), records: u64) -> Result<Machine, ImportRefusal> {
    let mut prng = Prng::new(7);
    let words = Words::new(&mut prng, 0);
    let mut sender = Sender::new(&words, prng.fork("sender"), 0);
    sender.execute(Command::Put(Put { key: b"key", value: b"one", ..Put::default() }));
    sender.execute(Command::Put(Put { key: b"key", value: b"another", ..Put::default() }));
    sender.checkpoint();
    let mut sent = sender.chunks();
    assert_eq!(sent.len(), 3);
    change(&mut sent[1]);
    reseal(&mut sent[1]);
    let bodies = [&sent[0][13..], &sent[1][13..]].concat();
    sent[2][13..21].copy_from_slice(&records.to_le_bytes());
    sent[2][21..].copy_from_slice(&hash128(&bodies).to_bytes());
    reseal(&mut sent[2]);
    receive(&mut prng, &sent)
}

/// A record of a cell of the events, flagged as said.
fn cell(flags: u8, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let size = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut record = vec![0, 1, flags];
    record.extend([0; 8]);
    record.extend(size(key));
    record.extend(size(payload));
    record.extend(key);
    record.extend(payload);
    record
}

/// The first version of a key, written at revision 2, as a cell holds it.
fn version(key: &[u8], value: &[u8]) -> Vec<u8> {
    let (revision, one) = (2_u64.to_le_bytes(), 1_u64.to_le_bytes());
    let size = u32::try_from(key.len()).unwrap().to_le_bytes();
    let hashed =
        [&b"V"[..], &revision, &[0; 4], &revision, &one, &[0; 8], &size, key, value].concat();
    let hash = hash128(&hashed).to_bytes();
    [&[1][..], &revision, &[0; 4], &[0; 8], &revision, &one, &hash, value].concat()
}

fn find(chunk: &[u8], wanted: &[u8]) -> usize {
    chunk.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

#[test]
fn cells_that_no_state_has_are_refused_although_every_checksum_is_right() {
    let wrong = Some(ImportRefusal::Cell { number: 1 });
    let refused = |change: &dyn Fn(&mut Vec<u8>)| forged(change, 3).err();
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(forged(|_| (), 4).err(), Some(ImportRefusal::Totals));
    // Values are not what their versions hash to: the newest one, and one in history.
    assert_eq!(refused(&|chunk| *chunk.last_mut().unwrap() ^= 1), wrong);
    assert_eq!(
        refused(&|chunk| {
            let at = find(chunk, b"another");
            chunk[at] ^= 1;
        }),
        wrong
    );
    // A key twice.
    let twice = |chunk: &mut Vec<u8>| {
        let records = chunk[13..].to_vec();
        chunk.extend_from_slice(&records);
    };
    assert_eq!(forged(twice, 6).err(), wrong);
    // Tree 2, then a tree that does not exist.
    for tree in [2, 200] {
        assert_eq!(refused(&|chunk| chunk[14] = tree), wrong);
    }
    // Not counted, and with another number than its revision.
    assert_eq!(refused(&|chunk| chunk[15] = 0), wrong);
    assert_eq!(refused(&|chunk| chunk[16] ^= 1), wrong);
    // An event behind the newest revision.
    let event = [3_u64.to_be_bytes().as_slice(), &[0; 4]].concat();
    assert_eq!(
        refused(&|chunk| {
            let at = find(chunk, &event);
            chunk[at] = 1;
        }),
        wrong
    );
    // An event that asks for work and has none.
    assert_eq!(
        refused(&|chunk| {
            let at = find(chunk, &event);
            chunk[at - 13] |= 1;
        }),
        wrong
    );
    // More than a leaf has room for.
    assert_eq!(forged(|chunk| chunk.extend(cell(0, &[9; 2_000], &[9; 2_000])), 4).err(), wrong);
    assert_eq!(forged(|chunk| chunk.extend(cell(0, &[9; 2_100], b"")), 4).err(), wrong);
    for (size, expected) in
        [(3_800, ImportRefusal::Sums), (5_000, ImportRefusal::Cell { number: 1 })]
    {
        let alone = |chunk: &mut Vec<u8>| {
            chunk.truncate(13);
            let mut record = cell(1, b"k", &version(b"k", &vec![9; size]));
            record[1] = 0;
            record[3] = 2;
            chunk.extend(record);
        };
        assert_eq!(forged(alone, 1).err(), Some(expected), "{size} bytes");
    }
    // The end comes where a value was announced.
    let announced = |chunk: &mut Vec<u8>| {
        let mut record = cell(2, &9_u64.to_be_bytes(), b"");
        record.splice(15..15, 9_u32.to_le_bytes());
        chunk.extend(record);
    };
    assert_eq!(forged(announced, 3).err(), Some(ImportRefusal::Malformed { number: 2 }));
    // A piece of a run without a cell that owns one, and a run that is not there.
    let malformed = Some(ImportRefusal::Malformed { number: 1 });
    assert_eq!(refused(&|chunk| chunk[13] = 1), malformed);
    assert_eq!(
        refused(&|chunk| {
            chunk[15] |= 2;
            chunk.splice(28..28, 9_u32.to_le_bytes());
        }),
        malformed
    );
    // Kept as it is, but with a chunk that ends in the middle of a cell.
    assert_eq!(refused(&|chunk| chunk.truncate(chunk.len() - 1)), malformed);
}

#[test]
fn a_chunk_that_is_half_taken_in_cannot_be_exchanged() {
    let mut prng = Prng::new(8);
    let words = Words::new(&mut prng, 1);
    let chunks = sample(&words, &mut prng);
    let mut import = Import::new(PageFile::create(&options(1 << 30)));
    assert_eq!(import.feed(&chunks[0], &mut 0), Ok(Fed::Next));
    assert_eq!(import.feed(&chunks[1], &mut 1), Ok(Fed::More));
    let mut other = chunks[1].clone();
    other.truncate(13);
    reseal(&mut other);
    let refusal = ImportRefusal::Malformed { number: 1 };
    assert_eq!(import.feed(&other, &mut 1_000), Err(refusal));
}

#[test]
fn a_refusal_is_final_and_an_import_that_is_cut_off_cannot_be_finished() {
    let mut prng = Prng::new(6);
    let words = Words::new(&mut prng, 1);
    let chunks = sample(&words, &mut prng);
    let mut receiver = Receiver::new(prng.fork("one"));
    receiver.feed(&chunks[0]).unwrap();
    let refusal = receiver.feed(&chunks[2]).unwrap_err();
    assert_eq!(refusal, ImportRefusal::Number { wanted: 1, found: 2 });
    assert_eq!(receiver.feed(&chunks[1]), Err(refusal));
    assert_eq!(receiver.finish().err(), Some(refusal));

    let mut receiver = Receiver::new(prng.fork("other"));
    for chunk in &chunks[..chunks.len() - 1] {
        receiver.feed(chunk).unwrap();
        while !receiver.import.state().pages().checkpoint_running() {
            receiver.housekeeping();
        }
        while receiver.import.state().pages().checkpoint_running() {
            receiver.housekeeping();
        }
    }
    assert_eq!(open(&options(0), &receiver.image).err(), Some(OpenError::Incomplete));
    assert_eq!(receiver.finish().err(), Some(ImportRefusal::Unfinished));
}

#[test]
#[should_panic(expected = "before the state has arrived")]
fn nothing_is_applied_to_a_state_that_is_arriving() {
    let mut import = Import::new(PageFile::create(&options(0)));
    let state: &mut State = import.state_mut();
    let (index, term) = state.applied();
    let _ = state.apply(index.next(), term, &Command::Nothing, &mut 1);
}
