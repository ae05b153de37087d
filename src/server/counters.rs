//! What an executor counts: each has counters of its own that only its thread writes, and whoever answers a scrape
//! adds up those of all. A write is a load and a store of its own memory: no lock, no shared cache line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::http::{CODES, METHODS};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// The number is this now.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram: four for each power of two microseconds, up to two minutes.
pub const BUCKETS: usize = 104;

/// Times in buckets of a width relative to them, as HDR histograms have them: a quarter of a power of two.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    nanos: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { Counter(AtomicU64::new(0)) }; BUCKETS], nanos: Counter::default() }
    }
}

impl Histogram {
    /// One more that took so long.
    #[inline]
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos / 1_000)].add(1);
        self.nanos.add(nanos);
    }

    /// The same since then.
    #[inline]
    pub fn record_since(&self, begin: Instant) {
        self.record(begin.elapsed());
    }
}

/// The bucket of a time in microseconds.
fn bucket(micros: u64) -> usize {
    let Some(power) = micros.checked_ilog2().filter(|power| *power >= 2) else {
        return usize::try_from(micros).expect("less than four");
    };
    let quarter = usize::try_from((micros >> (power - 2)) & 3).expect("less than four");
    let power = usize::try_from(power).expect("at most 63");
    (4 * (power - 1) + quarter).min(BUCKETS - 1)
}

/// The least number of microseconds that is beyond a bucket.
pub fn bucket_end(bucket: usize) -> u64 {
    match bucket {
        0..4 => bucket as u64 + 1,
        _ => (5 + bucket as u64 % 4) << (bucket / 4 - 1),
    }
}

/// Histograms of the same added up.
#[derive(Clone, Debug)]
pub struct Times {
    /// How many are in each bucket.
    pub buckets: [u64; BUCKETS],
    /// All of them together, in nanoseconds.
    pub nanos: u64,
}

impl Times {
    /// Of these histograms.
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut times = Self { buckets: [0; BUCKETS], nanos: 0 };
        for histogram in histograms {
            for (sum, one) in times.buckets.iter_mut().zip(&histogram.buckets) {
                *sum += one.get();
            }
            times.nanos = times.nanos.wrapping_add(histogram.nanos.get());
        }
        times
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What is counted of a method.
#[derive(Debug, Default)]
pub struct Method {
    /// Calls that were begun.
    pub started: Counter,
    /// Messages of clients.
    pub received: Counter,
    /// Messages to clients.
    pub sent: Counter,
    /// Calls that ended, by code.
    pub handled: [Counter; CODES],
    /// How long calls with one message each way took.
    pub times: Histogram,
}

/// What one executor counts.
#[derive(Debug)]
pub struct Counters {
    /// Calls of etcd's API, over gRPC and as JSON, by their place in the list of methods.
    pub methods: Vec<Method>,
    /// Bytes of messages of clients of gRPC, and of those to them.
    pub grpc_received_bytes: Counter,
    /// See there.
    pub grpc_sent_bytes: Counter,
    /// Streams of watches that are open.
    pub watch_streams: Counter,
    /// Answers of `/health`.
    pub healthy: Counter,
    /// The same where it said no.
    pub unhealthy: Counter,
    /// Bytes written to the log.
    pub wal_bytes: Counter,
    /// Writes of groups of the log; with O_DSYNC they are durable then.
    pub wal_write: Histogram,
    /// Until a group was durable: the write with O_DSYNC, else the sync.
    pub wal_sync: Histogram,
    /// Syncs of the page file.
    pub pages_sync: Histogram,
    /// Bytes to other members, and of them.
    pub links_sent_bytes: Counter,
    /// See there.
    pub links_received_bytes: Counter,
    /// How often consensus has learnt of another leader.
    pub leader_changes: Counter,
    /// Writes that wait for a place in the log, or for the leader.
    pub proposals_pending: Counter,
    /// Entries that the store has applied, by kind.
    pub applied: [Counter; node::KINDS],
    /// Puts that the store has applied, in transactions too.
    pub puts: Counter,
    /// Bytes of their keys and values.
    pub put_bytes: Counter,
    /// Deletes, of keys or ranges.
    pub deletes: Counter,
    /// Writes of more than one operation.
    pub txns: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            methods: METHODS.iter().map(|_| Method::default()).collect(),
            grpc_received_bytes: Counter::default(),
            grpc_sent_bytes: Counter::default(),
            watch_streams: Counter::default(),
            healthy: Counter::default(),
            unhealthy: Counter::default(),
            wal_bytes: Counter::default(),
            wal_write: Histogram::default(),
            wal_sync: Histogram::default(),
            pages_sync: Histogram::default(),
            links_sent_bytes: Counter::default(),
            links_received_bytes: Counter::default(),
            leader_changes: Counter::default(),
            proposals_pending: Counter::default(),
            applied: [const { Counter(AtomicU64::new(0)) }; node::KINDS],
            puts: Counter::default(),
            put_bytes: Counter::default(),
            deletes: Counter::default(),
            txns: Counter::default(),
        }
    }
}

/// The counters of all executors.
#[derive(Clone, Debug)]
pub struct Board(Arc<Vec<Arc<Counters>>>);

impl Board {
    /// For so many executors.
    pub fn new(executors: usize) -> Self {
        Self(Arc::new((0..executors).map(|_| Arc::default()).collect()))
    }

    /// Those of one executor, for its thread to write.
    pub fn of(&self, executor: usize) -> Arc<Counters> {
        Arc::clone(&self.0[executor])
    }

    /// A number of all of them.
    pub fn sum(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.0.iter().map(|counters| of(counters).get()).sum()
    }

    /// A number of all methods.
    pub fn sum_methods(&self, of: impl Fn(&Method) -> &Counter) -> u64 {
        let methods = self.0.iter().flat_map(|counters| &counters.methods);
        methods.map(|method| of(method).get()).sum()
    }

    /// Times of all of them.
    pub fn times(&self, of: impl Fn(&Counters) -> &Histogram) -> Times {
        Times::of(self.0.iter().map(|counters| of(counters)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_buckets_follow_each_other() {
        for micros in (0..5_000).chain([1 << 20, (1 << 20) - 1, 100_000_000]) {
            let bucket = bucket(micros);
            assert!(micros < bucket_end(bucket), "{micros} in {bucket}");
            assert!(bucket == 0 || micros >= bucket_end(bucket - 1), "{micros} in {bucket}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_end(BUCKETS - 1), 1 << 27);
    }

    #[test]
    fn what_executors_count_is_added_up() {
        let board = Board::new(2);
        for (executor, count) in [(0, 3), (1, 4)] {
            board.of(executor).wal_bytes.add(count);
            board.of(executor).wal_write.record(Duration::from_micros(count));
        }
        assert_eq!(board.sum(|counters| &counters.wal_bytes), 7);
        let times = board.times(|counters| &counters.wal_write);
        assert_eq!((times.count(), times.nanos), (2, 7_000));
        assert_eq!((times.buckets[3], times.buckets[4]), (1, 1));
    }
}
