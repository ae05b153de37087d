//! Leases against a naive model: random grants, renewals, ends, keys that come and go, with small caches and
//! budgets, restarts in the middle of entries, and two members that must agree.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use base::limits::LEASE_TTL_MIN_MS;
use base::{LeaseId, LogIndex, Prng, Revision};
use kv::{
    Change, Command, DeleteRange, Due, DueError, History, HistoryStep, Lease, Op, Outcome, Point,
    Put, Refusal, Txn, Wanted,
};

use machine::Machine;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Naive {
    /// Lease -> ttl ms, deadline, entry, made by a put.
    leases: BTreeMap<i64, (u64, u64, u64, bool)>,
    /// Key -> lease.
    keys: BTreeMap<Vec<u8>, i64>,
    revision: u64,
    index: u64,
}

impl Naive {
    fn attached(&self, lease: i64) -> BTreeSet<Vec<u8>> {
        self.keys.iter().filter(|(_, own)| **own == lease).map(|(key, _)| key.clone()).collect()
    }

    /// A key leaves what it hung on; in a transaction a lease of a put stays until its end.
    fn leave(&mut self, key: &[u8], in_txn: bool) {
        let Some(old) = self.keys.remove(key) else { return };
        let of_put = self.leases.get(&old).is_some_and(|lease| lease.3);
        if of_put && !in_txn && self.attached(old).is_empty() {
            self.leases.remove(&old);
        }
    }

    fn put(&mut self, key: &[u8], lease: i64, in_txn: bool) {
        if self.keys.get(key) != Some(&lease) {
            self.leave(key, in_txn);
        }
        self.keys.insert(key.to_vec(), lease);
    }

    fn chosen(&self, time: u64) -> i64 {
        let low = (1 << 20) - 1;
        let mut number = (time & !low) | (self.index & low);
        loop {
            let id = 0x4000_0000_0000_0000 + i64::try_from(number & (u64::MAX >> 2)).unwrap();
            if !self.leases.contains_key(&id) {
                return id;
            }
            number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn end(&mut self, lease: i64) -> u64 {
        let keys = self.attached(lease);
        for key in &keys {
            self.keys.remove(key);
        }
        self.leases.remove(&lease);
        keys.len() as u64
    }
}

fn lease(found: Option<Lease>) -> Option<(u64, u64, u64, bool)> {
    found.map(|own| (own.ttl_ms, own.deadline, own.granted.get(), own.of_put))
}

/// Asks until every page has come.
fn asked<T>(machine: &mut Machine, ask: impl Fn(&mut kv::State) -> Result<T, DueError>) -> T {
    loop {
        match ask(&mut machine.state) {
            Ok(answer) => return answer,
            Err(DueError::Miss(miss)) => machine.fetch(miss),
            Err(DueError::Damaged(damage)) => panic!("{damage}"),
        }
    }
}

struct Driver {
    machine: Machine,
    /// Another member, which restarts in the middle of entries.
    other: Machine,
    naive: Naive,
    prng: Prng,
    time: u64,
    expired: u64,
}

impl Driver {
    fn apply(&mut self, command: &Command<'_>) -> Outcome {
        self.naive.index += 1;
        let outcome = self.machine.apply(command);
        loop {
            if let Some(other) = self.other.apply_step(command) {
                assert_eq!(other, outcome);
                break;
            }
            if self.prng.one_in(40) && self.other.state.may_checkpoint() {
                self.other.checkpoint();
                if self.prng.one_in(2) {
                    self.other.reopen();
                    if self.other.state.applied().0 == self.machine.state.applied().0 {
                        break;
                    }
                }
            }
        }
        assert_eq!(self.machine.state.state_hash(), self.other.state.state_hash());
        outcome
    }

    fn lease(&mut self) -> i64 {
        let known: Vec<i64> = self.naive.leases.keys().copied().collect();
        if known.is_empty() || self.prng.one_in(12) {
            return i64::try_from(self.prng.below(9)).unwrap() - 3;
        }
        known[usize::try_from(self.prng.below(known.len() as u64)).unwrap()]
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{:02}", self.prng.below(30)).into_bytes()
    }

    fn bump(&mut self) {
        self.naive.revision += 1;
    }

    fn step(&mut self) {
        self.time += self.prng.below(2_000_000_000);
        let time = self.time;
        let (key, id) = (self.key(), self.lease());
        let known = self.naive.leases.contains_key(&id);
        match self.prng.below(12) {
            0 => {
                let wanted = if self.prng.one_in(2) { 0 } else { id };
                let ttl_ms = self.prng.below(20_000);
                let outcome =
                    self.apply(&Command::LeaseGrant { time, lease: LeaseId::new(wanted), ttl_ms });
                let lease = if wanted == 0 { self.naive.chosen(time) } else { wanted };
                if wanted != 0 && known {
                    assert_eq!(outcome, Outcome::Refused(Refusal::LeaseExists));
                    return;
                }
                let ttl_ms = ttl_ms.max(LEASE_TTL_MIN_MS);
                let revision = Revision::new(self.naive.revision);
                assert_eq!(
                    outcome,
                    Outcome::Granted { revision, lease: LeaseId::new(lease), ttl_ms }
                );
                let deadline = time + ttl_ms * 1_000_000;
                self.naive.leases.insert(lease, (ttl_ms, deadline, self.naive.index, false));
            }
            1..=4 => {
                let ignore_lease = self.prng.one_in(6);
                let wanted = if ignore_lease || self.prng.one_in(4) { 0 } else { id };
                let put = Put {
                    key: &key,
                    value: b"v",
                    lease: LeaseId::new(wanted),
                    ignore_lease,
                    ..Put::default()
                };
                let outcome = self.apply(&Command::Put(put));
                let held = self.naive.keys.get(&key).copied();
                let expected = match (ignore_lease, held) {
                    (true, None) => Err(Refusal::KeyNotFound),
                    (true, Some(held)) => Ok(held),
                    (false, _) if wanted != 0 && !known => Err(Refusal::LeaseNotFound),
                    (false, _) => Ok(wanted),
                };
                match expected {
                    Err(refusal) => assert_eq!(outcome, Outcome::Refused(refusal)),
                    Ok(lease) => {
                        self.bump();
                        assert_eq!(
                            outcome,
                            Outcome::Put { revision: Revision::new(self.naive.revision) }
                        );
                        self.naive.put(&key, lease, false);
                    }
                }
            }
            5 => {
                let ttl_ms = self.prng.below(9_000);
                let put = Put { key: &key, value: b"w", ..Put::default() };
                let outcome = self.apply(&Command::PutWithTtl { time, put, ttl_ms });
                let lease = self.naive.chosen(time);
                self.bump();
                let revision = Revision::new(self.naive.revision);
                assert_eq!(outcome, Outcome::PutWithLease { revision, lease: LeaseId::new(lease) });
                let ttl_ms = ttl_ms.max(LEASE_TTL_MIN_MS);
                let deadline = time + ttl_ms * 1_000_000;
                self.naive.put(&key, lease, false);
                self.naive.leases.insert(lease, (ttl_ms, deadline, self.naive.index, true));
            }
            6 => {
                let end = if self.prng.one_in(2) { self.key() } else { Vec::new() };
                let delete = DeleteRange { key: &key, range_end: &end, prev_kv: false };
                self.apply(&Command::DeleteRange(delete));
                let gone: Vec<Vec<u8>> =
                    self.naive
                        .keys
                        .keys()
                        .filter(|own| {
                            if end.is_empty() { **own == key } else { **own >= key && **own < end }
                        })
                        .cloned()
                        .collect();
                if !gone.is_empty() {
                    self.bump();
                }
                for key in gone {
                    self.naive.leave(&key, false);
                }
            }
            7 => {
                let other = self.key();
                let ops = vec![
                    Op::Put(Put {
                        key: &key,
                        value: b"t",
                        lease: LeaseId::new(id),
                        ..Put::default()
                    }),
                    Op::DeleteRange(DeleteRange { key: &other, range_end: b"", prev_kv: false }),
                ];
                if other == key {
                    return;
                }
                let txn = Txn { success: ops, compares: Vec::new(), failure: Vec::new() };
                let outcome = self.apply(&Command::Txn(txn));
                if id != 0 && !known {
                    assert_eq!(outcome, Outcome::Refused(Refusal::LeaseNotFound));
                } else {
                    self.bump();
                    self.naive.put(&key, id, true);
                    self.naive.leave(&other, true);
                    let attached: BTreeSet<i64> = self.naive.keys.values().copied().collect();
                    self.naive.leases.retain(|id, own| !own.3 || attached.contains(id));
                }
            }
            8 => {
                let outcome = self.apply(&Command::LeaseRevoke { lease: LeaseId::new(id) });
                if !known {
                    assert_eq!(outcome, Outcome::Refused(Refusal::LeaseNotFound));
                    return;
                }
                let deleted = self.naive.end(id);
                if deleted > 0 {
                    self.bump();
                }
                let revision = Revision::new(self.naive.revision);
                assert_eq!(outcome, Outcome::Revoked { revision, deleted });
            }
            9 | 10 => {
                let count = 1 + self.prng.below(9);
                let ids: Vec<i64> = (0..count).map(|_| self.lease()).collect();
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                let outcome = self.apply(&Command::LeaseKeepAlive { time, leases: &bytes });
                let ttls_ms = ids
                    .iter()
                    .map(|id| {
                        self.naive.leases.get_mut(id).map_or(0, |lease| {
                            lease.1 = lease.1.max(time + lease.0 * 1_000_000);
                            lease.0
                        })
                    })
                    .collect();
                let revision = Revision::new(self.naive.revision);
                assert_eq!(outcome, Outcome::Renewed { revision, ttls_ms });
            }
            _ => self.expire(id),
        }
    }

    /// What is due ends, and an entry that names a lease which is not changes nothing.
    fn expire(&mut self, any: i64) {
        let time = self.time;
        let mut due = Vec::new();
        let next = loop {
            due.clear();
            match self.machine.state.due(time, 3, &mut due) {
                Ok(next) => break next,
                Err(DueError::Miss(miss)) => self.machine.fetch(miss),
                Err(DueError::Damaged(damage)) => panic!("{damage}"),
            }
        };
        let really: BTreeSet<i64> =
            self.naive.leases.iter().filter(|(_, own)| own.1 <= time).map(|(id, _)| *id).collect();
        for one in &due {
            assert!(really.contains(&one.lease.get()));
        }
        match next {
            None => assert!(self.naive.leases.len() == due.len()),
            Some(at) if at > time => {
                assert_eq!(due.len(), really.len());
                let first =
                    self.naive.leases.values().filter(|own| own.1 > time).map(|own| own.1).min();
                assert!(Some(at) <= first, "{at} is behind {first:?}");
            }
            // It has had enough of moving those that were renewed.
            Some(_) => {}
        }
        let stale = Due {
            lease: LeaseId::new(any),
            granted: LogIndex::new(self.prng.below(self.naive.index + 1)),
        };
        due.push(stale);
        for due in due {
            let per_key = self.prng.one_in(3);
            let outcome = self.apply(&Command::LeaseExpire { time, due, per_key });
            let id = due.lease.get();
            let own = self.naive.leases.get(&id).copied();
            if !own.is_some_and(|own| own.1 <= time && own.2 == due.granted.get()) {
                assert_eq!(outcome, Outcome::Nothing);
                continue;
            }
            let deleted = self.naive.end(id);
            self.naive.revision += if per_key { deleted } else { u64::from(deleted > 0) };
            self.expired += 1;
            assert!(matches!(outcome, Outcome::Expired { .. }));
        }
    }

    fn check(&mut self) {
        let naive = self.naive.clone();
        assert_eq!(self.machine.state.revision().get(), naive.revision);
        assert_eq!(self.machine.state.leases_count(), naive.leases.len() as u64);
        for (id, own) in &naive.leases {
            let id = LeaseId::new(*id);
            assert_eq!(lease(asked(&mut self.machine, |state| state.lease(id))), Some(*own));
            let keys = asked(&mut self.machine, |state| {
                let mut keys = BTreeSet::new();
                state.lease_keys(id, b"", &mut |key| {
                    keys.insert(key.to_vec());
                    ControlFlow::Continue(())
                })?;
                Ok(keys)
            });
            assert_eq!(keys, naive.attached(id.get()));
            let count = asked(&mut self.machine, |state| state.lease_keys_count(id));
            assert_eq!(count, keys.len() as u64);
        }
        let all = asked(&mut self.machine, |state| {
            let mut all = Vec::new();
            state.leases(LeaseId::new(0), &mut |id| {
                all.push(id.get());
                ControlFlow::Continue(())
            })?;
            Ok(all)
        });
        assert_eq!(all, naive.leases.keys().copied().collect::<Vec<_>>());
    }
}

#[test]
fn leases_and_their_keys_are_what_the_model_says_and_members_agree() {
    let scale: u64 = std::env::var("QUORATE_TEST_SCALE").map_or(1, |scale| scale.parse().unwrap());
    let mut expired = 0;
    for seed in 0..40 * scale {
        println!("seed {seed}");
        let cache = if seed.is_multiple_of(2) { 1 << 17 } else { 1 << 30 };
        let machine = Machine::new(Prng::new(seed + 7), cache, 6);
        let other = Machine::new(Prng::new(seed + 8), cache, 3);
        let naive = Naive { leases: BTreeMap::new(), keys: BTreeMap::new(), revision: 1, index: 0 };
        let prng = Prng::new(seed);
        let mut driver = Driver { machine, other, naive, prng, time: 0, expired: 0 };
        driver.other.checkpoint();
        for step in 0..400 {
            driver.step();
            if step % 20 == 0 {
                driver.check();
                driver.machine.state.pages_mut().evict();
            }
        }
        driver.check();
        expired += driver.expired;
    }
    assert!(expired > 500, "{expired} leases expired");
}

/// Renewing moves no deadline among the deadlines, and what is due is found all the same.
#[test]
fn the_cause_of_a_delete_and_its_revisions_are_told_to_watches() {
    let mut machine = Machine::plain();
    let grant = |lease| Command::LeaseGrant { time: 0, lease: LeaseId::new(lease), ttl_ms: 1_000 };
    for lease in [5, 6, 7] {
        machine.apply(&grant(lease));
        for key in [b"a", b"b"] {
            let key = [&key[..], lease.to_string().as_bytes()].concat();
            machine.apply(&Command::Put(Put {
                key: &key,
                value: b"",
                lease: LeaseId::new(lease),
                ..Put::default()
            }));
        }
    }
    let mut due = Vec::new();
    let next = machine.state.due(2_000_000_000, 9, &mut due).unwrap();
    assert_eq!((due.len(), next), (3, None));
    machine.apply(&Command::LeaseRevoke { lease: LeaseId::new(5) });
    machine.apply(&Command::LeaseExpire { time: 2_000_000_000, due: due[1], per_key: false });
    machine.apply(&Command::LeaseExpire { time: 2_000_000_000, due: due[2], per_key: true });
    let start = Point { revision: Revision::new(8), sub: 0 };
    let mut history = History::new(
        start,
        [(&b"\0"[..], &b"\0"[..])],
        Wanted::default(),
        &kv::HistoryLimits::SERVER,
    );
    let mut out = kv::Changes::default();
    let step = history.step(&machine.state, &mut 1_000, &mut out);
    assert_eq!(step, HistoryStep::Caught(Revision::new(11)));
    let told: Vec<String> = out
        .iter()
        .map(|Change { at, kind, kv, .. }| {
            format!("{}.{} {} {kind:?}", at.revision, at.sub, String::from_utf8_lossy(kv.key))
        })
        .collect();
    assert_eq!(
        told,
        [
            "8.0 a5 Delete(Revoked)",
            "8.1 b5 Delete(Revoked)",
            "9.0 a6 Delete(Expired)",
            "9.1 b6 Delete(Expired)",
            "10.0 a7 Delete(Expired)",
            "11.0 b7 Delete(Expired)",
        ]
    );
}
