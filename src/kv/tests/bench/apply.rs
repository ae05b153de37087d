//! Nanoseconds per operation of the state, in turns of 1,024: `cargo run --release -p kv --example apply`.
//!
//! One thread, everything in memory, 256-byte values, keys drawn uniformly. Arguments: numbers of keys.
//! Time is that of the processor, as the scheduler counts it, where the system tells: others on the same
//! machine take time off the wall clock.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use base::{FileId, NodeId, Prng, Revision, Term};
use kv::{
    Command, Compare, DeleteRange, KeyValue, Op, Operand, Put, RangeRequest, Read, ReadStep,
    Relation, State, Step, Txn,
};
use tree::{META_SIZE, PageFile};

const TURN: u64 = 1_024;

/// A clock that runs while this thread does.
struct Clock(u64, Instant);

impl Clock {
    fn start() -> Self {
        Self(Self::on_processor().unwrap_or(0), Instant::now())
    }

    fn on_processor() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn nanos(&self) -> u64 {
        match Self::on_processor() {
            Some(now) => now - self.0,
            None => u64::try_from(self.1.elapsed().as_nanos()).expect("shorter than 500 years"),
        }
    }
}

struct Bench {
    state: State,
    prng: Prng,
    value: Vec<u8>,
    keys: u64,
}

fn key(number: u64) -> [u8; 24] {
    let mut key = *b"/registry/pods/000000000";
    let mut rest = number;
    for digit in key[15..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    key
}

impl Bench {
    fn apply(&mut self, command: &Command<'_>) {
        let index = self.state.applied().0.next();
        let mut budget = u32::MAX;
        match self.state.apply(index, Term::new(1), command, &mut budget) {
            Step::Done(outcome) => drop(black_box(outcome)),
            step => panic!("{step:?}"),
        }
    }

    fn put(&mut self, number: u64) {
        let key = key(number);
        let value = std::mem::take(&mut self.value);
        self.apply(&Command::Put(Put { key: &key, value: &value, ..Put::default() }));
        self.value = value;
    }

    fn random(&mut self) -> u64 {
        self.prng.below(self.keys)
    }

    /// Runs `count` operations in turns; the page cache is looked after once a turn.
    fn measure(&mut self, what: &str, count: u64, mut operation: impl FnMut(&mut Self)) {
        let start = Clock::start();
        for number in 0..count {
            operation(self);
            if number % TURN == TURN - 1 {
                self.state.pages_mut().evict();
            }
        }
        let nanos = start.nanos();
        println!("{:>9} keys  {what:<44} {:>8} ns", self.keys, nanos / count);
    }

    fn read(&mut self, request: &RangeRequest<'_>) -> u64 {
        let mut read = Read::new(request);
        let mut size = 0;
        let mut budget = u32::MAX;
        let step = read.step(&self.state, &mut budget, &mut |pair: &KeyValue<'_>| {
            size += pair.value.len();
            ControlFlow::Continue(())
        });
        black_box(size);
        match step {
            ReadStep::Done(end) => end.count,
            step => panic!("{step:?}"),
        }
    }

    fn checkpoint(&mut self, block: &mut Vec<u8>) -> u64 {
        self.state.checkpoint_begin();
        let pages = self.state.pages_mut();
        let mut total = 0;
        while let Some(write) = pages.checkpoint_next() {
            block.resize(write.size, 0);
            pages.checkpoint_fill(&write, block);
            total += write.size;
        }
        let mut meta = Box::new([0; META_SIZE]);
        pages.checkpoint_meta(&mut meta);
        pages.checkpoint_published();
        u64::try_from(total).expect("fits")
    }

    fn compact(&mut self) {
        let revision = i64::try_from(self.state.revision().get()).expect("fits");
        self.apply(&Command::Compact { revision, physical: true });
    }

    fn trim(&mut self) {
        let mut budget = u32::MAX;
        assert!(matches!(self.state.trim(Revision::MAX, &mut budget), Step::Done(())));
    }
}

/// The same put into the collections of the standard library: no versions, no hash, no counts, no pages.
fn baseline(keys: u64) {
    let mut prng = Prng::new(1);
    let mut map: BTreeMap<[u8; 24], Box<[u8]>> = BTreeMap::new();
    let mut events = VecDeque::new();
    let value = [7_u8; 256];
    for number in 0..keys {
        map.insert(key(number), value.into());
    }
    let puts = 1_000_000;
    let start = Clock::start();
    for _ in 0..puts {
        let key = key(prng.below(keys));
        let old = map.insert(key, value.into());
        events.push_back((key, old));
    }
    let each = start.nanos() / puts;
    println!("{keys:>9} keys  {:<44} {each:>8} ns", "baseline: BTreeMap and VecDeque put");
}

fn run(keys: u64) {
    baseline(keys);
    let options = tree::Options {
        file: FileId::new(1),
        cluster: 1,
        member: NodeId::new(1),
        cache_size: 1 << 40,
        growth_size: 64 << 20,
    };
    let state = State::create(PageFile::create(&options));
    let mut bench = Bench { state, prng: Prng::new(1), value: vec![7; 256], keys };
    let mut next = 0;
    bench.measure("insert in order", keys, |bench| {
        bench.put(next);
        next += 1;
    });
    let puts = 2_000_000;
    bench.measure("put, uniformly random", puts, |bench| {
        let number = bench.random();
        bench.put(number);
    });
    let mut batch: Vec<u64> = Vec::new();
    bench.measure("put, uniformly random, 16 warmed together", puts, |bench| {
        if batch.is_empty() {
            batch.extend((0..16).map(|_| bench.prng.below(keys)));
            let names: Vec<[u8; 24]> = batch.iter().map(|number| key(*number)).collect();
            let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
            bench.state.warm(&names);
        }
        let number = batch.pop().expect("filled above");
        bench.put(number);
    });
    bench.measure("txn: compare mod = 0, else get", 200_000, |bench| {
        let key = key(bench.random());
        let mut txn = Txn::default();
        txn.compares.push(Compare {
            key: &key,
            range_end: b"",
            relation: Relation::Equal,
            operand: Operand::Mod(0),
        });
        txn.success.push(Op::Put(Put { key: &key, value: b"v", ..Put::default() }));
        txn.failure.push(Op::Range(RangeRequest { key: &key, ..RangeRequest::default() }));
        bench.apply(&Command::Txn(txn));
    });
    bench.measure("txn: compare version > 0, put", 200_000, |bench| {
        let key = key(bench.random());
        let value = std::mem::take(&mut bench.value);
        let mut txn = Txn::default();
        txn.compares.push(Compare {
            key: &key,
            range_end: b"",
            relation: Relation::Greater,
            operand: Operand::Version(0),
        });
        txn.success.push(Op::Put(Put { key: &key, value: &value, ..Put::default() }));
        bench.apply(&Command::Txn(txn));
        bench.value = value;
    });
    bench.measure("get at the head", 1_000_000, |bench| {
        let key = key(bench.random());
        bench.read(&RangeRequest { key: &key, ..RangeRequest::default() });
    });
    let past = i64::try_from(bench.state.revision().get() / 2).expect("fits");
    bench.measure("get at half of history", 300_000, |bench| {
        let key = key(bench.random());
        let request = RangeRequest { key: &key, revision: past, ..RangeRequest::default() };
        bench.read(&request);
    });
    bench.measure("list of 100 with its count", 20_000, |bench| {
        let key = key(bench.random());
        let limit = 100;
        bench.read(&RangeRequest { key: &key, range_end: b"\0", limit, ..RangeRequest::default() });
    });
    bench.measure("exact count of a range at the head", 300_000, |bench| {
        let (a, b) = (bench.random(), bench.random());
        let (key, range_end) = (key(a.min(b)), key(a.max(b) + 1));
        let request = RangeRequest { key: &key, range_end: &range_end, ..RangeRequest::default() };
        bench.read(&RangeRequest { count_only: true, ..request });
    });
    let recent = i64::try_from(bench.state.revision().get() - 900).expect("fits");
    bench.measure("exact count 900 revisions ago", 5_000, |bench| {
        let (a, b) = (bench.random(), bench.random());
        let (key, range_end) = (key(a.min(b)), key(a.max(b) + 1));
        let request = RangeRequest { key: &key, range_end: &range_end, ..RangeRequest::default() };
        bench.read(&RangeRequest { count_only: true, revision: recent, ..request });
    });
    let start = Clock::start();
    let all = RangeRequest { key: b"\0", range_end: b"\0", ..RangeRequest::default() };
    let count = bench.read(&all);
    let each = start.nanos() / count;
    println!("{keys:>9} keys  {:<44} {each:>8} ns", "list of everything, per key");

    let mut block = Vec::new();
    let start = Clock::start();
    let written = bench.checkpoint(&mut block);
    let took = start.nanos() / 1_000_000;
    println!("{keys:>9} keys  checkpoint of {} MiB: {took} ms", written >> 20);
    bench.measure("put, uniformly random, checkpoint before", 200_000, |bench| {
        let number = bench.random();
        bench.put(number);
    });
    bench.compact();
    let events = bench.state.revision().get();
    let start = Clock::start();
    bench.trim();
    let each = start.nanos() / events;
    println!("{keys:>9} keys  {:<44} {each:>8} ns", "trim, per event, no deletes");

    let start = Clock::start();
    let delete = DeleteRange { key: b"\0", range_end: b"\0", prev_kv: false };
    bench.apply(&Command::DeleteRange(delete));
    let each = start.nanos() / keys;
    println!("{keys:>9} keys  {:<44} {each:>8} ns", "delete of everything, per key");
    bench.measure("first live key behind the tombstones", 100_000, |bench| {
        let limit = 1;
        bench.read(&RangeRequest {
            key: b"\0",
            range_end: b"\0",
            limit,
            ..RangeRequest::default()
        });
    });
    bench.put(0);
    bench.compact();
    let start = Clock::start();
    bench.trim();
    let each = start.nanos() / keys;
    println!("{keys:>9} keys  {:<44} {each:>8} ns", "trim, per delete");
}

fn main() {
    let mut sizes: Vec<u64> =
        std::env::args().skip(1).map(|text| text.parse().expect("a number of keys")).collect();
    if sizes.is_empty() {
        sizes = vec![100_000, 1_000_000];
    }
    for keys in sizes {
        run(keys);
    }
}
