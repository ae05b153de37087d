//! Those who write, each with a session: what it is told is the truth, for a write that may have arrived is
//! sent again until it is answered, and takes effect once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use base::Prng;
use client::{
    Client, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Error, Op, OpResult, Put,
    PutResult, Status, Txn,
};

use super::keys::{KeyId, LARGE};
use super::ledger::{Deed, Seen, ValueHash, hash};
use super::lives::{MS, Manner};
use super::stage::{Stage, lock};

/// How long a write may take: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest pause between two writes of one writer.
const THINK_MICROS: u64 = 16_000;

/// Bytes of a large value: the transaction with some of them comes in pieces.
const LARGE_SIZE: usize = 64 << 10;

/// Revisions that are kept at most when history is given up.
const KEPT: u64 = 6_000;

/// Writes of one writer between two compactions, about.
const COMPACT_EVERY: u64 = 200;

/// A writer.
pub struct Writer {
    stage: Arc<Stage>,
    /// Its number.
    number: usize,
    client: Client,
    prng: Prng,
}

impl Writer {
    /// With a session at one of the members; none if the run ends before.
    pub fn new(stage: &Arc<Stage>, number: usize, prng: Prng) -> Option<Self> {
        loop {
            let client = stage.client("writer", number, PATIENCE).and_then(Client::with_session);
            match client {
                Ok(client) => return Some(Self { stage: Arc::clone(stage), number, client, prng }),
                Err(_) if stage.is_over() => return None,
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Writes until nothing is written any more.
    pub fn run(mut self) {
        while !self.stage.is_over() {
            self.write_something();
            thread::sleep(Duration::from_micros(self.prng.below(THINK_MICROS)));
        }
    }

    /// One write; `claim` says what it did, from its answer.
    fn write<T>(
        &mut self,
        call: impl FnOnce(&mut Client) -> Result<T, Error>,
        claim: impl FnOnce(&T) -> Option<(i64, Vec<Deed>)>,
    ) -> Option<T> {
        self.stage.begin_write(self.number);
        let answer = call(&mut self.client);
        let told = match answer {
            Ok(told) => {
                if let Some((revision, deeds)) = claim(&told) {
                    self.stage.claim(revision, deeds);
                }
                Some(told)
            }
            Err(Error::Refused(why)) if why.status == Status::LeaseNotFound => None,
            Err(error) => {
                self.stage.violation(format!("a write of a session came to no end: {error}"));
                None
            }
        };
        self.stage.end_write(self.number);
        told
    }

    fn value(&mut self, size: usize) -> (Vec<u8>, ValueHash) {
        let mut value = self.stage.shared.value().to_le_bytes().to_vec();
        let filler = self.prng.next_u64().to_le_bytes();
        value.extend(filler.iter().cycle().take(size));
        let hash = hash(&value);
        (value, hash)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("usize has at most 64 bits");
        usize::try_from(self.prng.below(bound)).expect("below a usize")
    }

    fn key_of(&mut self, prefix: &str) -> KeyId {
        let group = self.stage.keys.group(prefix);
        group.start + u32::try_from(self.prng.below(group.len() as u64)).expect("below 32 bits")
    }

    fn plain(&mut self) -> KeyId {
        if self.prng.one_in(2) { self.key_of("a/") } else { self.key_of("b/") }
    }

    fn write_something(&mut self) {
        match self.prng.below(1_000) {
            0..80 => {
                let key = self.plain();
                self.delete(key..key + 1);
            }
            80..115 => {
                let from = self.key_of("b/");
                let group = self.stage.keys.group("b/");
                let count = u32::try_from(self.below(20)).expect("below 32 bits");
                let all = self.prng.one_in(24);
                let span = from..(from + 1 + count).min(group.end);
                self.delete(if all { group } else { span });
            }
            115..260 => self.txn(),
            260..380 => {
                let lease = {
                    let pool = lock(&self.stage.pool);
                    let place = usize::try_from(self.prng.next_u64() >> 33).unwrap_or(0);
                    if pool.is_empty() { 0 } else { pool[place % pool.len()] }
                };
                let key = self.key_of("l/");
                self.put(key, lease);
            }
            380..470 => self.put_with_ttl(),
            470 => self.large(),
            _ => {
                let key = self.plain();
                self.put(key, 0);
            }
        }
        if self.number == 0 && self.prng.one_in(COMPACT_EVERY) {
            self.compact();
        }
    }

    /// Puts a key on a lease, or on none. False: there is no such lease.
    pub fn put(&mut self, key: KeyId, lease: i64) -> bool {
        let size = self.below(120);
        let (value, hash) = self.value(size);
        let prev_kv = self.prng.one_in(4);
        let stage = Arc::clone(&self.stage);
        let put = Put { lease, prev_kv, ..Put::new(stage.keys.key(key), &value) };
        let claim = |told: &PutResult| {
            let told_before = told.previous.as_ref().map(Seen::from);
            Some((told.revision, vec![Deed::Put { key, value: hash, lease, told: told_before }]))
        };
        self.write(|client| client.put(&put), claim).is_some()
    }

    fn put_with_ttl(&mut self) {
        let (value, hash) = self.value(20);
        let key = self.key_of("t/");
        let ttl_ms = 300 + self.prng.below(6_000);
        let stage = Arc::clone(&self.stage);
        let put = Put { ttl_ms, ..Put::new(stage.keys.key(key), &value) };
        let sent = stage.now();
        let claim = |told: &PutResult| {
            let span = (sent, stage.now());
            lock(&stage.lives).granted(told.lease, Manner::OfPut, ttl_ms * MS, span);
            let deed = Deed::Put { key, value: hash, lease: told.lease, told: None };
            Some((told.revision, vec![deed]))
        };
        self.write(|client| client.put(&put), claim);
    }

    fn delete(&mut self, keys: Range<KeyId>) {
        let stage = Arc::clone(&self.stage);
        let (first, last) = (stage.keys.key(keys.start), stage.keys.key(keys.end - 1));
        // The end is exclusive.
        let end = if keys.len() == 1 { Vec::new() } else { [last, b"\0"].concat() };
        let request =
            DeleteRange { prev_kv: self.prng.one_in(4), ..DeleteRange::between(first, &end) };
        self.write(
            |client| client.delete(&request),
            |told| {
                let deed = Deed::Delete { keys, deleted: Some(told.deleted) };
                (told.deleted > 0).then_some((told.revision, vec![deed]))
            },
        );
    }

    fn txn(&mut self) {
        let count = 2 + self.below(7);
        let mut keys: Vec<KeyId> = (0..count).map(|_| self.plain()).collect();
        // In an order that is not theirs.
        let mut known = std::collections::HashSet::new();
        keys.retain(|key| known.insert(*key));
        let values: Vec<(Vec<u8>, ValueHash)> = keys.iter().map(|_| self.value(30)).collect();
        let (other_value, other_hash) = self.value(10);
        let stage = Arc::clone(&self.stage);
        let name = |key: KeyId| stage.keys.key(key);
        let mut txn = Txn::new();
        let mut deeds = Vec::new();
        for (place, (key, (value, hash))) in keys.iter().zip(&values).enumerate() {
            // A key may have one change only in a transaction.
            if place > 0 && self.prng.one_in(4) {
                txn = txn.then(Op::DeleteRange(DeleteRange::one(name(*key))));
                deeds.push(Deed::Delete { keys: *key..key + 1, deleted: None });
            } else {
                txn = txn.then(Op::Put(Put::new(name(*key), value)));
                deeds.push(Deed::Put { key: *key, value: *hash, lease: 0, told: None });
            }
        }
        let first = keys[0];
        if self.prng.one_in(3) {
            let number = i64::try_from(self.prng.below(4)).expect("a small number");
            txn = txn.when(Compare::number(
                name(first),
                CompareTarget::Version,
                CompareResult::Less,
                number,
            ));
        }
        txn = txn.otherwise(Op::Put(Put::new(name(first), &other_value)));
        self.write(
            |client| client.txn(&txn),
            |told| {
                if !told.succeeded {
                    let deed = Deed::Put { key: first, value: other_hash, lease: 0, told: None };
                    return Some((told.revision, vec![deed]));
                }
                for (deed, response) in deeds.iter_mut().zip(&told.responses) {
                    if let (Deed::Delete { deleted, .. }, OpResult::DeleteRange(told)) =
                        (deed, response)
                    {
                        *deleted = Some(told.deleted);
                    }
                }
                Some((told.revision, deeds))
            },
        );
    }

    /// A transaction that no single answer of a watch holds.
    fn large(&mut self) {
        let stage = Arc::clone(&self.stage);
        let group = stage.keys.group("x/");
        let values: Vec<(Vec<u8>, ValueHash)> =
            (0..LARGE).map(|_| self.value(LARGE_SIZE)).collect();
        let mut txn = Txn::new();
        let mut deeds = Vec::new();
        for (key, (value, hash)) in group.zip(&values) {
            txn = txn.then(Op::Put(Put::new(stage.keys.key(key), value)));
            deeds.push(Deed::Put { key, value: *hash, lease: 0, told: None });
        }
        self.write(|client| client.txn(&txn), |told| Some((told.revision, deeds)));
    }

    /// Gives up history, never beyond what is known of it here.
    fn compact(&mut self) {
        let kept = i64::try_from(self.prng.below(KEPT)).expect("a small number");
        let revision = {
            let mut ledger = self.stage.ledger.write().expect("nobody panics under this lock");
            let revision = ledger.revision - kept;
            if revision <= ledger.compacted {
                return;
            }
            ledger.compacted = revision;
            revision
        };
        let physical = self.prng.one_in(4);
        let request = Compact { revision, physical };
        // It may have been carried out the first time.
        if self.client.compact(&request).is_ok() {
            self.stage.counts.compactions.fetch_add(1, Ordering::Relaxed);
        }
    }

    // ------------------------------------------------------------------ leases

    /// Makes a lease; says how long it lives, and when that was asked for and answered.
    pub fn grant(&mut self, lease: i64, manner: Manner, ttl: Duration) -> Option<Duration> {
        let stage = Arc::clone(&self.stage);
        let sent = stage.now();
        let told = self.write(|client| client.lease_grant(lease, ttl), |_| None)?;
        let nanos = u64::try_from(told.ttl.as_nanos()).expect("seconds");
        lock(&stage.lives).granted(told.lease, manner, nanos, (sent, stage.now()));
        if told.lease != lease {
            stage.violation(format!("lease {lease} was asked for, and {} made", told.lease));
        }
        Some(told.ttl)
    }

    /// Ends a lease.
    pub fn revoke(&mut self, lease: i64) {
        self.write(
            |client| client.lease_revoke(lease),
            |told| {
                let deed = Deed::Revoke { lease, deleted: told.deleted };
                (told.deleted > 0).then_some((told.revision, vec![deed]))
            },
        );
    }

    /// A key of those that hang on leases.
    pub fn leased_key(&mut self) -> KeyId {
        self.key_of("l/")
    }

    /// Its choices.
    pub fn prng(&mut self) -> &mut Prng {
        &mut self.prng
    }
}
