//! What an executor counts: each has counters of its own that only its thread writes, and whoever answers a scrape
//! adds up those of all. A write is a load and a store of its own memory: no lock, no shared cache line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
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

/// Versions of clients that are told apart; one more is for those of which nothing is known, and one for the rest.
const VERSIONS: usize = 8;

/// Characters of a version.
const VERSION_SIZE_MAX: usize = 24;

/// Calls by what their clients say of themselves.
#[derive(Debug, Default)]
pub struct Clients {
    versions: [OnceLock<String>; VERSIONS],
    unary: [Counter; VERSIONS + 2],
    streams: [Counter; VERSIONS + 2],
}

impl Clients {
    /// Counts a call, of a client with this version if it says one.
    pub fn count(&self, version: Option<&[u8]>, is_stream: bool) {
        let place = match version {
            None => VERSIONS,
            Some(version) => self.place(version),
        };
        let counters = if is_stream { &self.streams } else { &self.unary };
        counters[place].add(1);
    }

    fn place(&self, version: &[u8]) -> usize {
        for (place, known) in self.versions.iter().enumerate() {
            match known.get() {
                Some(known) if known.as_bytes() == version => return place,
                Some(_) => {}
                None => {
                    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+_".contains(byte);
                    let fits = version.len() <= VERSION_SIZE_MAX && version.iter().all(is_fit);
                    let text = std::str::from_utf8(version).ok().filter(|_| fits);
                    let Some(text) = text else { break };
                    // Only this thread writes.
                    drop(known.set(text.to_owned()));
                    return place;
                }
            }
        }
        VERSIONS + 1
    }

    /// Each version, whether its calls are streams, and how many there were.
    pub fn list(&self) -> impl Iterator<Item = (&str, bool, u64)> {
        let known = self.versions.iter().map_while(|version| version.get().map(String::as_str));
        let named = known.enumerate();
        let rest = [(VERSIONS, "unknown"), (VERSIONS + 1, "other")];
        named.chain(rest).flat_map(|(place, name)| {
            [(name, false, self.unary[place].get()), (name, true, self.streams[place].get())]
        })
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
    /// Ranges, those of transactions too.
    pub ranges: Counter,
    /// Renewals of leases.
    pub renewals: Counter,
    /// Leases that were granted, by their times, and seconds of all of them.
    pub ttls: [Counter; node::TTL_BUCKETS],
    /// See there.
    pub ttl_seconds: Counter,
    /// Compactions whose work is done, by the time that took, and milliseconds of all of them.
    pub compactions: [Counter; node::COMPACTION_BUCKETS],
    /// See there.
    pub compaction_ms: Counter,
    /// When the last of them was done, in seconds since 1970.
    pub compacted_at: Counter,
    /// Writes that were taken in and failed.
    pub failed_proposals: Counter,
    /// Heartbeats that left too late.
    pub late_heartbeats: Counter,
    /// How often applying was far behind.
    pub slow_applies: Counter,
    /// Members that were given a vote.
    pub promotions: Counter,
    /// 1 while this member has no vote.
    pub is_learner: Counter,
    /// 1 once the list of members has what this one says of itself.
    pub published: Counter,
    /// 1 while a state of another member takes the place of the own one.
    pub installing: Counter,
    /// Questions for reads that took long, and those without an answer.
    pub slow_questions: Counter,
    /// See there.
    pub failed_questions: Counter,
    /// Watches that have not been told everything yet.
    pub watches_behind: Counter,
    /// Changes that streams of watches were told.
    pub watch_events: Counter,
    /// Calls by their clients.
    pub clients: Clients,
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
            ranges: Counter::default(),
            renewals: Counter::default(),
            ttls: [const { Counter(AtomicU64::new(0)) }; node::TTL_BUCKETS],
            ttl_seconds: Counter::default(),
            compactions: [const { Counter(AtomicU64::new(0)) }; node::COMPACTION_BUCKETS],
            compaction_ms: Counter::default(),
            compacted_at: Counter::default(),
            failed_proposals: Counter::default(),
            late_heartbeats: Counter::default(),
            slow_applies: Counter::default(),
            promotions: Counter::default(),
            is_learner: Counter::default(),
            published: Counter::default(),
            installing: Counter::default(),
            slow_questions: Counter::default(),
            failed_questions: Counter::default(),
            watches_behind: Counter::default(),
            watch_events: Counter::default(),
            clients: Clients::default(),
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

    /// Those of each.
    pub fn executors(&self) -> impl Iterator<Item = &Counters> {
        self.0.iter().map(AsRef::as_ref)
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

    /// The calls of all of them by version, and whether they are streams.
    pub fn clients(&self) -> BTreeMap<(String, bool), u64> {
        let mut all = BTreeMap::new();
        for (version, is_stream, count) in self.0.iter().flat_map(|one| one.clients.list()) {
            if count > 0 {
                *all.entry((version.to_owned(), is_stream)).or_default() += count;
            }
        }
        all
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
    fn clients_are_told_apart_by_what_they_say_as_far_as_there_is_room() {
        let clients = Clients::default();
        clients.count(None, false);
        for number in 0..20 {
            clients.count(Some(format!("3.{number}").as_bytes()), true);
            clients.count(Some(b"3.0"), false);
        }
        clients.count(Some(b"\"}"), false);
        let all: Vec<_> = clients.list().filter(|(.., count)| *count > 0).collect();
        assert_eq!(all.len(), 12);
        for one in
            [("3.0", false, 20), ("3.7", true, 1), ("unknown", false, 1), ("other", true, 12)]
        {
            assert!(all.contains(&one), "{one:?} of {all:?}");
        }
        assert!(all.contains(&("other", false, 1)));
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
