//! What watches are told, against a naive list of changes: recorded while they are made, and read back
//! from any point, with small caches, budgets, compaction and trimming beside it.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::BTreeMap;

use base::{Prng, Revision};
use kv::{
    Cause, Change, ChangeKind, Changes, Command, DeleteRange, History, HistoryLimits, HistoryStep,
    Op, Outcome, Point, Previous, Put, Step, Txn, Wanted,
};

use machine::Machine;

/// A key with what is known of it, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pair {
    value: Vec<u8>,
    create: u64,
    at: u64,
    version: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    at: (u64, u32),
    put: bool,
    key: Vec<u8>,
    /// Of a put.
    pair: Option<Pair>,
    previous: Option<Pair>,
}

/// The changes ever made, and the keys as they are.
#[derive(Default)]
struct Naive {
    keys: BTreeMap<Vec<u8>, Pair>,
    told: Vec<Told>,
    revision: u64,
    compacted: u64,
}

impl Naive {
    fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    /// Does operations as one revision; `start`: the keys before it.
    fn run(&mut self, ops: &[Op<'_>]) {
        let before = self.keys.clone();
        let revision = self.revision + 1;
        let mut sub = 0;
        for op in ops {
            match op {
                Op::Put(put) => {
                    let old = self.keys.get(put.key);
                    let pair = Pair {
                        value: put.value.to_vec(),
                        create: old.map_or(revision, |old| old.create),
                        at: revision,
                        version: old.map_or(0, |old| old.version) + 1,
                    };
                    self.keys.insert(put.key.to_vec(), pair.clone());
                    let previous = before.get(put.key).cloned();
                    let (key, at) = (put.key.to_vec(), (revision, sub));
                    self.told.push(Told { at, put: true, key, pair: Some(pair), previous });
                    sub += 1;
                }
                Op::DeleteRange(delete) => {
                    let keys: Vec<Vec<u8>> = self
                        .keys
                        .keys()
                        .filter(|key| contains(delete.key, delete.range_end, key))
                        .cloned()
                        .collect();
                    for key in keys {
                        self.keys.remove(&key);
                        let previous = before.get(&key).cloned();
                        let at = (revision, sub);
                        self.told.push(Told { at, put: false, key, pair: None, previous });
                        sub += 1;
                    }
                }
                Op::Range(_) | Op::Txn(_) | Op::Unset => unreachable!("not generated"),
            }
        }
        if sub > 0 {
            self.revision = revision;
        }
    }
}

fn contains(key: &[u8], end: &[u8], other: &[u8]) -> bool {
    match end {
        [] => key == other,
        [0] => other >= key,
        end => other >= key && other < end,
    }
}

fn told(change: &Change<'_>) -> Told {
    let pair = |kv: &kv::KeyValue<'_>| Pair {
        value: kv.value.to_vec(),
        create: kv.create_revision.get(),
        at: kv.mod_revision.get(),
        version: kv.version,
    };
    let put = change.kind == ChangeKind::Put;
    assert_eq!(change.kv.mod_revision, change.at.revision);
    Told {
        at: (change.at.revision.get(), change.at.sub),
        put,
        key: change.kv.key.to_vec(),
        pair: put.then(|| pair(&change.kv)),
        previous: match &change.previous {
            Previous::Known(kv) => Some(pair(kv)),
            Previous::None | Previous::Elsewhere => None,
        },
    }
}

/// What a watch with these wishes is told of it.
fn shown(mut one: Told, wanted: &Wanted, compacted: u64) -> Told {
    let bare = |pair: Option<Pair>| pair.map(|pair| Pair { value: Vec::new(), ..pair });
    if !wanted.previous || one.at.0 <= compacted {
        one.previous = None;
    }
    if wanted.keys_only {
        one.pair = bare(one.pair);
        one.previous = bare(one.previous);
    }
    one
}

struct Driver {
    machine: Machine,
    naive: Naive,
    prng: Prng,
    recorded: Vec<Told>,
    left_out: u64,
}

impl Driver {
    fn key(&mut self) -> Vec<u8> {
        vec![b'a' + u8::try_from(self.prng.below(6)).unwrap()]
    }

    fn value(&mut self) -> Vec<u8> {
        let size =
            if self.prng.one_in(20) { 3_000 + self.prng.below(9_000) } else { self.prng.below(60) };
        let mut value = vec![0; usize::try_from(size).unwrap()];
        self.prng.fill(&mut value);
        value
    }

    fn write(&mut self) {
        let (a, b, c) = (self.key(), self.key(), self.key());
        let (v, w) = (self.value(), self.value());
        let put = |key, value| Op::Put(Put { key, value, ..Put::default() });
        let delete =
            |key, range_end| Op::DeleteRange(DeleteRange { key, range_end, prev_kv: false });
        let ops = match self.prng.below(10) {
            0 => vec![delete(&a, &[])],
            1 => vec![delete(&a, &b)],
            2 => vec![delete(&a, &[0]), put(&b, &v), put(&c, &w)],
            3 => vec![put(&a, &v), put(&a, &w), delete(&a, &[]), put(&a, &w)],
            4 => vec![put(&a, &v), delete(&b, &[]), put(&c, &w)],
            _ => vec![put(&a, &v)],
        };
        self.naive.run(&ops);
        let command = match ops.as_slice() {
            [Op::Put(put)] => Command::Put(*put),
            [Op::DeleteRange(delete)] => Command::DeleteRange(*delete),
            _ => Command::Txn(Txn { success: ops, compares: Vec::new(), failure: Vec::new() }),
        };
        // Handed out in the middle of entries as well.
        while self.machine.apply_step(&command).is_none() {
            self.take();
        }
        self.take();
        assert_eq!(self.machine.state.revision().get(), self.naive.revision);
    }

    /// Compares what was recorded with what was done.
    fn take(&mut self) {
        let Some(recorded) = self.machine.state.recorded() else { return };
        assert_eq!(recorded.whole, recorded.newest);
        for change in recorded.changes.iter() {
            let one = told(&change);
            let done = &self.naive.told[self.recorded.len()];
            let mut expected = done.clone();
            if change.previous == Previous::Elsewhere {
                self.left_out += 1;
                expected.previous = None;
            }
            assert_eq!(one, expected);
            self.recorded.push(one);
        }
    }

    fn compact(&mut self) {
        let low = self.naive.compacted.max(1);
        let revision = low + self.prng.below(self.naive.revision - low + 1);
        let command =
            Command::Compact { revision: i64::try_from(revision).unwrap(), physical: false };
        if matches!(self.machine.apply(&command), Outcome::Compacted { .. }) {
            self.naive.compacted = revision;
        }
    }

    fn trim(&mut self) {
        let mut budget = self.machine.budget();
        match self.machine.state.trim(Revision::MAX, &mut budget) {
            Step::Done(()) | Step::More => {}
            Step::Miss(miss) => self.machine.fetch(miss),
            Step::Damaged(damage) => panic!("{damage}"),
        }
    }

    /// Reads back from a random point, now and then with writes and compactions in between.
    fn read_back(&mut self) {
        let wanted = Wanted {
            previous: self.prng.one_in(2),
            keys_only: self.prng.one_in(4),
            no_put: self.prng.one_in(6),
            no_delete: self.prng.one_in(6),
        };
        let ranges: Vec<(Vec<u8>, Vec<u8>)> = (0..1 + self.prng.below(2))
            .map(|_| {
                let key = self.key();
                let end = match self.prng.below(3) {
                    0 => vec![],
                    1 => vec![0],
                    _ => self.key(),
                };
                (key, end)
            })
            .collect();
        let start = (self.prng.below(self.naive.revision + 2), u32::from(self.prng.one_in(5)));
        let point = Point { revision: Revision::new(start.0), sub: start.1 };
        let borrowed = ranges.iter().map(|(key, end)| (key.as_slice(), end.as_slice()));
        let mut history = History::new(point, borrowed, wanted, &HistoryLimits::SERVER);
        let mut seen: Vec<Told> = Vec::new();
        let busy = self.prng.one_in(2);
        let through = loop {
            if busy && self.prng.one_in(3) && self.naive.revision < 3_000 {
                self.write();
            }
            if self.prng.one_in(60) {
                self.compact();
            }
            let mut out = Changes::default();
            let mut budget = self.machine.budget();
            let before = history.next();
            let step = history.step(&self.machine.state, &mut budget, &mut out);
            assert!(history.next() >= before, "a watch never goes back in time");
            let compacted = self.naive.compacted;
            for change in out.iter() {
                assert!(change.at >= before && change.at < history.next());
                let one = told(&change);
                let place = self.naive.told.partition_point(|told| told.at < one.at);
                assert_eq!(one, shown(self.naive.told[place].clone(), &wanted, compacted));
                seen.push(one);
            }
            match step {
                HistoryStep::Caught(revision) => break revision.get(),
                HistoryStep::Piece | HistoryStep::More => {}
                HistoryStep::Miss(miss) => self.machine.fetch(miss),
                HistoryStep::Compacted(revision) => {
                    assert_eq!(revision.get(), self.naive.compacted);
                    assert!(history.next().revision < revision);
                    return;
                }
                HistoryStep::Damaged(damage) => panic!("{damage}"),
            }
        };
        assert_eq!(through, self.naive.revision);
        let expected: Vec<(u64, u32)> = self
            .naive
            .told
            .iter()
            .filter(|told| told.at >= start)
            .filter(|told| ranges.iter().any(|(key, end)| contains(key, end, &told.key)))
            .filter(|told| {
                wanted.takes(if told.put {
                    ChangeKind::Put
                } else {
                    ChangeKind::Delete(Cause::Request)
                })
            })
            .map(|told| told.at)
            .collect();
        assert_eq!(seen.iter().map(|told| told.at).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_is_recorded_and_what_is_read_back_is_what_was_done() {
    let scale = std::env::var("QUORATE_TEST_SCALE").map_or(1, |scale| scale.parse().unwrap());
    let first: u64 = std::env::var("QUORATE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut left_out = 0;
    for seed in first..first + 24 * scale {
        println!("QUORATE_SEED={seed}");
        let prng = Prng::new(seed);
        let (cache, budget) = if seed.is_multiple_of(2) { (1 << 17, 8) } else { (1 << 30, 600) };
        let machine = Machine::new(Prng::new(seed + 1), cache, budget);
        let naive = Naive::new();
        let mut driver = Driver { machine, naive, prng, recorded: Vec::new(), left_out: 0 };
        driver.machine.state.record(true, &HistoryLimits::SERVER);
        for _ in 0..600 {
            match driver.prng.below(12) {
                0 => driver.read_back(),
                1 if driver.prng.one_in(8) => driver.compact(),
                2 => driver.trim(),
                3 if driver.prng.one_in(6) => driver.machine.checkpoint(),
                _ => driver.write(),
            }
            if driver.prng.one_in(10) {
                driver.machine.state.pages_mut().evict();
            }
        }
        assert_eq!(driver.recorded.len(), driver.naive.told.len());
        left_out += driver.left_out;
    }
    assert!(left_out > 0, "no previous version had to be read");
}

#[test]
fn a_turn_that_changes_too_much_says_how_far_its_recording_goes() {
    let mut machine = Machine::plain();
    machine.state.record(true, &HistoryLimits::SERVER);
    let value = vec![1; 1 << 20];
    for key in [b"a", b"b"] {
        machine.apply(&Command::Put(Put { key, value: &value, ..Put::default() }));
    }
    for _ in 0..5 {
        machine.apply(&Command::Put(Put { key: b"c", value: &value, ..Put::default() }));
    }
    let recorded = machine.state.recorded().unwrap();
    assert_eq!(recorded.first.get(), 2);
    assert_eq!(recorded.newest.get(), 8);
    assert_eq!(recorded.changes.iter().last().unwrap().at.revision, recorded.whole);
    assert!(recorded.whole.get() < 8 && recorded.changes.size() <= 4 << 20);
    machine.apply(&Command::Put(Put { key: b"d", value: b"", ..Put::default() }));
    let recorded = machine.state.recorded().unwrap();
    assert_eq!((recorded.first.get(), recorded.whole.get(), recorded.newest.get()), (9, 9, 9));
    assert_eq!(machine.state.recorded(), None);
}
