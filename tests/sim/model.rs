//! The model: what the state must be after each entry of the log, written down as plainly as the rules
//! read. It shares no logic with the product: all versions of all keys are kept for ever, reads walk
//! over everything, transactions recurse.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::alarming::{CORRUPT, NO_SPACE};
use base::Stamp;
use wire::{Cause, CompareResult, CompareTarget, SortOrder, SortTarget, Status};

/// A put as a client asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Put {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub lease: i64,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
    /// Make a lease for it.
    pub ttl_ms: u64,
}

/// A range as a client asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub limit: i64,
    pub revision: i64,
    pub sort_order: SortOrder,
    pub sort_target: SortTarget,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod: i64,
    pub max_mod: i64,
    pub min_create: i64,
    pub max_create: i64,
}

/// A delete as a client asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delete {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub prev_kv: bool,
}

/// A condition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compare {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub target: CompareTarget,
    pub result: CompareResult,
    pub number: i64,
    pub value: Vec<u8>,
}

/// A transaction as a client asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Put(Put),
    Range(Range),
    Delete(Delete),
    Txn(Txn),
}

/// What goes through the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    Compact { revision: i64, physical: bool },
    Grant { lease: i64, ttl_ms: u64 },
    Revoke { lease: i64 },
    Raise { kind: u8, member: u64 },
    Disarm { kind: u8, member: u64 },
}

impl Command {
    /// Whether it is refused while an alarm of this kind is up.
    fn is_against(&self, kind: u8) -> bool {
        fn puts(txn: &Txn) -> bool {
            txn.success.iter().chain(&txn.failure).any(|op| match op {
                Op::Put(_) => true,
                Op::Txn(txn) => puts(txn),
                Op::Range(_) | Op::Delete(_) => false,
            })
        }
        match self {
            Self::Raise { .. } | Self::Disarm { .. } => false,
            _ if kind == CORRUPT => true,
            Self::Put(_) | Self::Grant { .. } => true,
            Self::Txn(txn) => puts(txn),
            Self::Delete(_) | Self::Compact { .. } | Self::Revoke { .. } => false,
        }
    }
}

/// A lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub ttl_ms: u64,
    /// The log time at which its time is up.
    pub deadline: u64,
    /// The entry that made it.
    pub granted: u64,
    /// It was made by a put, and goes with its last key.
    of_put: bool,
}

/// A key as clients see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

/// What a range comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listed {
    pub revision: i64,
    pub count: i64,
    pub more: bool,
    pub pairs: Vec<Pair>,
}

/// What a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Put { revision: i64, previous: Option<Pair> },
    Delete { revision: i64, deleted: i64, previous: Vec<Pair> },
    Range(Listed),
    Txn { revision: i64, succeeded: bool, ops: Vec<Told> },
    Compact { revision: i64 },
    PutWithLease { revision: i64, lease: i64 },
    Granted { revision: i64, lease: i64, ttl_ms: u64 },
    Revoked { revision: i64, deleted: i64 },
    Alarms { revision: i64, alarms: Vec<(u8, u64)> },
    Refused(Status),
}

impl Told {
    /// What of it is kept for when the write is sent again.
    fn without_reads(&self) -> Self {
        match self {
            Self::Put { revision, .. } => Self::Put { revision: *revision, previous: None },
            Self::Delete { revision, deleted, .. } => {
                Self::Delete { revision: *revision, deleted: *deleted, previous: Vec::new() }
            }
            Self::Txn { revision, succeeded, .. } => {
                Self::Txn { revision: *revision, succeeded: *succeeded, ops: Vec::new() }
            }
            Self::Compact { .. }
            | Self::PutWithLease { .. }
            | Self::Granted { .. }
            | Self::Revoked { .. }
            | Self::Alarms { .. }
            | Self::Refused(_)
            | Self::Range(_) => self.clone(),
        }
    }
}

/// A client that has registered.
#[derive(Clone, Debug, Default)]
pub struct Registered {
    /// The entry that put it at the end of the order in which clients are forgotten.
    place: u64,
    floor: u64,
    results: BTreeMap<u64, Told>,
}

#[derive(Clone, Debug)]
struct Live {
    create: i64,
    version: i64,
    value: Vec<u8>,
    lease: i64,
}

#[derive(Clone, Debug)]
struct Version {
    revision: i64,
    live: Option<Live>,
}

/// A change of a key, as watches are told it.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: i64,
    /// Its place among the changes of its revision.
    pub sub: u32,
    pub key: Vec<u8>,
    pub cause: Cause,
    /// Its place among the versions of its key.
    place: usize,
}

/// All versions of all keys.
pub struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// All changes in their order.
    pub changes: Vec<Change>,
    /// Leases by id.
    pub leases: BTreeMap<i64, Lease>,
    /// The log time.
    pub time: u64,
    /// Why keys are deleted by the running entry, and its index.
    cause: Cause,
    index: u64,
    /// What reads below were refused, from when on.
    pub compactions: Vec<i64>,
    /// The newest revision.
    pub revision: i64,
    /// Reads below it are refused.
    pub compacted: i64,
    /// Alarms that are up: their kinds and members.
    pub alarms: BTreeSet<(u8, u64)>,
    /// Clients by id.
    clients: BTreeMap<u64, Registered>,
    /// The running entry has changed something.
    changed: bool,
    /// A mistake on purpose: what the canary looks for.
    pub broken: bool,
}

/// Whether a range, as requests name it, has a key in it.
pub fn contains(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        b"" => candidate == key,
        b"\0" => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

fn pair(key: &[u8], revision: i64, live: &Live) -> Pair {
    Pair {
        key: key.to_vec(),
        value: live.value.clone(),
        create: live.create,
        modified: revision,
        version: live.version,
        lease: live.lease,
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// Before the first entry.
    pub fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            changes: Vec::new(),
            leases: BTreeMap::new(),
            time: 0,
            cause: Cause::Request,
            index: 0,
            compactions: Vec::new(),
            alarms: BTreeSet::new(),
            clients: BTreeMap::new(),
            revision: 1,
            compacted: -1,
            changed: false,
            broken: false,
        }
    }

    fn live_at(&self, key: &[u8], at: i64) -> Option<(i64, &Live)> {
        let versions = self.keys.get(key)?;
        let behind = versions.partition_point(|version| version.revision <= at);
        let version = versions[..behind].last()?;
        version.live.as_ref().map(|live| (version.revision, live))
    }

    /// A range at revision `at`; `header` is the revision that the answer names.
    pub fn range(&self, range: &Range, at: i64, header: i64) -> Listed {
        let from = self.keys.range::<Vec<u8>, _>(&range.key..);
        let mut all = Vec::new();
        for (key, _) in from {
            if !contains(&range.key, &range.range_end, key) {
                break;
            }
            if let Some((revision, live)) = self.live_at(key, at) {
                all.push(pair(key, revision, live));
            }
        }
        let count = i64::try_from(all.len()).expect("few keys");
        if range.count_only {
            return Listed { revision: header, count, more: false, pairs: Vec::new() };
        }
        let limit = usize::try_from(range.limit).unwrap_or(0);
        let unfiltered =
            [range.max_mod, range.min_mod, range.max_create, range.min_create] == [0; 4];
        let by_key = range.sort_target == SortTarget::Key;
        let unsorted = match range.sort_order {
            SortOrder::None => true,
            SortOrder::Ascend => by_key,
            SortOrder::Descend => false,
        };
        if unsorted && unfiltered && limit > 0 {
            // Without an order the limit comes first.
            all.truncate(limit + 1);
        }
        all.retain(|pair| {
            (range.max_mod == 0 || pair.modified <= range.max_mod)
                && (range.min_mod == 0 || pair.modified >= range.min_mod)
                && (range.max_create == 0 || pair.create <= range.max_create)
                && (range.min_create == 0 || pair.create >= range.min_create)
        });
        all.sort_by(|a, b| {
            let ordering = match range.sort_target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::CreateRevision => a.create.cmp(&b.create),
                SortTarget::ModRevision => a.modified.cmp(&b.modified),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if range.sort_order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
        let more = limit > 0 && all.len() > limit;
        if more {
            all.truncate(limit);
        }
        if range.keys_only {
            all.iter_mut().for_each(|pair| pair.value.clear());
            // As etcd answers from its index.
            if range.sort_target != SortTarget::Value {
                all.iter_mut().for_each(|pair| pair.lease = 0);
            }
        }
        Listed { revision: header, count, more, pairs: all }
    }

    /// A transaction that only reads, at revision `at`.
    pub fn read_txn(&self, txn: &Txn, at: i64) -> Told {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare, at));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let ops = branch.iter().map(|op| match op {
            Op::Range(range) => {
                let from = if range.revision > 0 { range.revision } else { at };
                Told::Range(self.range(range, from, at))
            }
            Op::Txn(txn) => self.read_txn(txn, at).inner(),
            Op::Put(_) | Op::Delete(_) => unreachable!("the transaction only reads"),
        });
        let ops = ops.collect();
        Told::Txn { revision: at, succeeded, ops }
    }

    /// A client registers by the entry at `index`; with more than so many the oldest are forgotten.
    pub fn register(&mut self, index: u64, clients_max: u32) {
        for _ in 0..2 {
            if self.clients.len() as u64 >= u64::from(clients_max) {
                let oldest = self.clients.iter().min_by_key(|(_, client)| client.place);
                let id = *oldest.expect("there are more than none").0;
                self.clients.remove(&id);
            }
        }
        self.clients.insert(index, Registered { place: index, ..Registered::default() });
    }

    /// Notes the log time of an entry.
    pub fn note_time(&mut self, time: u64) {
        self.time = self.time.max(time);
    }

    /// The keys that hang on a lease.
    pub fn keys_of(&self, lease: i64) -> Vec<Vec<u8>> {
        let hangs = |key: &&Vec<u8>| {
            self.live_at(key, i64::MAX).is_some_and(|(_, live)| live.lease == lease)
        };
        self.keys.keys().filter(hangs).cloned().collect()
    }

    /// The keys that hang on each lease that has any.
    pub fn keys_by_lease(&self) -> BTreeMap<i64, Vec<Vec<u8>>> {
        let mut all = BTreeMap::<i64, Vec<Vec<u8>>>::new();
        for (key, versions) in &self.keys {
            let live = versions.last().and_then(|version| version.live.as_ref());
            if let Some(live) = live.filter(|live| live.lease != 0) {
                all.entry(live.lease).or_default().push(key.clone());
            }
        }
        all
    }

    fn drop_empty(&mut self) {
        if self.leases.values().any(|lease| lease.of_put) {
            let keys = self.keys_by_lease();
            self.leases.retain(|id, lease| !lease.of_put || keys.contains_key(id));
        }
    }

    fn add_lease(&mut self, id: i64, ttl_ms: u64, of_put: bool) -> Lease {
        let ttl_ms = ttl_ms.max(100);
        let (deadline, granted) = (self.time + ttl_ms * 1_000_000, self.index);
        let lease = Lease { ttl_ms, deadline, granted, of_put };
        self.leases.insert(id, lease.clone());
        lease
    }

    fn choose_lease(&self) -> i64 {
        let low = (1 << 20) - 1;
        let id = (1 << 62) | (self.time & !low) | (self.index & low);
        let id = i64::try_from(id).expect("runs are short");
        assert!(!self.leases.contains_key(&id), "generated clients name small ids only");
        id
    }

    fn grant(&mut self, lease: i64, ttl_ms: u64) -> Told {
        let id = if lease == 0 { self.choose_lease() } else { lease };
        if self.leases.contains_key(&id) {
            return Told::Refused(Status::LeaseExists);
        }
        let Lease { ttl_ms, .. } = self.add_lease(id, ttl_ms, false);
        Told::Granted { revision: self.revision, lease: id, ttl_ms }
    }

    fn put_with_ttl(&mut self, put: &Put) -> Told {
        if let Err(status) = self.check_put(put, &BTreeMap::new()) {
            return Told::Refused(status);
        }
        let lease = self.choose_lease();
        self.put(&Put { lease, ..put.clone() });
        self.add_lease(lease, put.ttl_ms, true);
        Told::PutWithLease { revision: self.revision + 1, lease }
    }

    /// Deletes the keys of a lease, then the lease; says how many there were.
    fn end_lease(&mut self, lease: i64, cause: Cause) -> i64 {
        self.cause = cause;
        let keys = self.keys_of(lease);
        for key in &keys {
            self.change(key, None);
        }
        self.cause = Cause::Request;
        self.leases.remove(&lease);
        i64::try_from(keys.len()).expect("few keys")
    }

    fn revoke(&mut self, lease: i64) -> Told {
        if !self.leases.contains_key(&lease) {
            return Told::Refused(Status::LeaseNotFound);
        }
        let deleted = self.end_lease(lease, Cause::Revoked);
        Told::Revoked { revision: self.current(), deleted }
    }

    /// Renewals: how long each lease lives from now on, and which entry has made it.
    pub fn renew(&mut self, time: u64, ids: &[i64]) -> Vec<(i64, u64, u64)> {
        self.note_time(time);
        let renew = |id: &i64| match self.leases.get_mut(id) {
            None => (*id, 0, 0),
            Some(lease) => {
                lease.deadline = lease.deadline.max(time + lease.ttl_ms * 1_000_000);
                (*id, lease.ttl_ms, lease.granted)
            }
        };
        ids.iter().map(renew).collect()
    }

    /// The end of the lease that the entry `granted` has made, if it has come; says what lease that was.
    pub fn expire(&mut self, time: u64, id: i64, granted: u64) -> Option<Lease> {
        self.note_time(time);
        if self.is_up(CORRUPT) {
            return None;
        }
        let is_due = |lease: &&Lease| lease.granted == granted && lease.deadline <= time;
        let lease = self.leases.get(&id).filter(is_due).cloned()?;
        self.changed = false;
        self.end_lease(id, Cause::Expired);
        self.revision += i64::from(std::mem::take(&mut self.changed));
        Some(lease)
    }

    /// The next entry of the log, at `index`, with a stamp if it has one. What it comes to, and whether
    /// that is what the same write had come to before.
    pub fn apply_once(
        &mut self,
        stamp: Option<&Stamp>,
        index: u64,
        command: &Command,
    ) -> (Told, bool) {
        self.index = index;
        let Some(stamp) = stamp else { return (self.apply(command), false) };
        let id = stamp.client.get();
        let Some(client) = self.clients.get(&id) else {
            return (Told::Refused(Status::SessionExpired), false);
        };
        let floor = client.floor.max(stamp.floor);
        if stamp.sequence < floor {
            return (Told::Refused(Status::SessionExpired), false);
        }
        if let Some(told) = client.results.get(&stamp.sequence) {
            return (told.clone(), true);
        }
        if stamp.sequence - floor >= 256 {
            return (Told::Refused(Status::TooManyUnanswered), false);
        }
        let told = self.apply(command);
        let client = self.clients.get_mut(&id).expect("it was there above");
        client.floor = floor;
        client.results.retain(|sequence, _| *sequence >= floor);
        client.results.insert(stamp.sequence, told.without_reads());
        if index - client.place > 4_096 {
            client.place = index;
        }
        (told, false)
    }

    /// The next entry of the log.
    pub fn apply(&mut self, command: &Command) -> Told {
        self.changed = false;
        let told = match command {
            command if self.is_up(CORRUPT) && command.is_against(CORRUPT) => {
                Told::Refused(Status::Corrupt)
            }
            command if self.is_up(NO_SPACE) && command.is_against(NO_SPACE) => {
                Told::Refused(Status::NoSpace)
            }
            Command::Raise { kind, member } => {
                self.alarms.insert((*kind, *member));
                Told::Alarms { revision: self.revision, alarms: vec![(*kind, *member)] }
            }
            Command::Disarm { kind, member } => {
                let is_meant =
                    |alarm: &(u8, u64)| alarm.0 == *kind && (*member == 0 || alarm.1 == *member);
                let alarms = self.alarms.extract_if(.., is_meant).collect();
                Told::Alarms { revision: self.revision, alarms }
            }
            Command::Put(put) if put.ttl_ms > 0 => self.put_with_ttl(put),
            Command::Grant { lease, ttl_ms } => self.grant(*lease, *ttl_ms),
            Command::Revoke { lease } => self.revoke(*lease),
            Command::Put(put) => match self.check_put(put, &BTreeMap::new()) {
                Ok(()) => self.put(put),
                Err(status) => Told::Refused(status),
            },
            Command::Delete(delete) => self.delete(delete),
            Command::Txn(txn) => {
                let mut path = Vec::new();
                self.choose(txn, &mut path);
                let mut seen = BTreeMap::new();
                match self.check(txn, &mut path.iter(), &mut seen) {
                    Err(status) => Told::Refused(status),
                    Ok(()) => match self.run(txn, &mut path.iter()) {
                        Told::Txn { succeeded, ops, .. } => {
                            Told::Txn { revision: self.current(), succeeded, ops }
                        }
                        told => told,
                    },
                }
            }
            Command::Compact { revision, .. } if *revision <= self.compacted => {
                Told::Refused(Status::Compacted)
            }
            Command::Compact { revision, .. } if *revision > self.revision => {
                Told::Refused(Status::FutureRevision)
            }
            Command::Compact { revision, .. } => {
                self.compacted = *revision;
                self.compactions.push(*revision);
                Told::Compact { revision: self.revision }
            }
        };
        if self.changed {
            self.revision += 1;
            self.changed = false;
        }
        self.drop_empty();
        told
    }

    fn is_up(&self, kind: u8) -> bool {
        self.alarms.iter().any(|alarm| alarm.0 == kind)
    }

    fn current(&self) -> i64 {
        self.revision + i64::from(self.changed)
    }

    fn change(&mut self, key: &[u8], live: Option<Live>) {
        self.changed = true;
        let revision = self.revision + 1;
        let before = self.changes.last().filter(|before| before.revision == revision);
        let sub = before.map_or(0, |before| before.sub + 1);
        let versions = self.keys.entry(key.to_vec()).or_default();
        let (key, cause, place) = (key.to_vec(), self.cause, versions.len());
        self.changes.push(Change { revision, sub, key, cause, place });
        versions.push(Version { revision, live });
    }

    /// The key as a change wrote it; none: the change deleted it.
    pub fn written(&self, change: &Change) -> Option<Pair> {
        let version = &self.keys[&change.key][change.place];
        version.live.as_ref().map(|live| pair(&change.key, version.revision, live))
    }

    /// The key before the revision of a change.
    pub fn before(&self, change: &Change) -> Option<Pair> {
        let before = self.live_at(&change.key, change.revision - 1);
        before.map(|(revision, live)| pair(&change.key, revision, live))
    }

    fn put(&mut self, put: &Put) -> Told {
        let old = self.live_at(&put.key, i64::MAX).map(|(at, live)| (at, live.clone()));
        let previous = old.as_ref().map(|(at, live)| pair(&put.key, *at, live));
        let revision = self.revision + 1;
        let old = old.map(|(_, live)| live);
        let kept = old.as_ref().map_or(0, |old| old.lease);
        let lease = if put.ignore_lease { kept } else { put.lease };
        let mut value = match &old {
            Some(old) if put.ignore_value => old.value.clone(),
            _ => put.value.clone(),
        };
        if self.broken && revision > 5 {
            value.push(b'!');
        }
        let create = old.as_ref().map_or(revision, |old| old.create);
        let version = old.map_or(0, |old| old.version) + 1;
        self.change(&put.key, Some(Live { create, version, value, lease }));
        Told::Put { revision, previous: previous.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &Delete) -> Told {
        let keys: Vec<Vec<u8>> = self
            .keys
            .keys()
            .filter(|key| contains(&delete.key, &delete.range_end, key))
            .cloned()
            .collect();
        let (mut deleted, mut previous) = (0, Vec::new());
        for key in keys {
            let Some((at, live)) = self.live_at(&key, i64::MAX) else { continue };
            if delete.prev_kv {
                previous.push(pair(&key, at, live));
            }
            self.change(&key, None);
            deleted += 1;
        }
        Told::Delete { revision: self.current(), deleted, previous }
    }

    fn choose(&self, txn: &Txn, path: &mut Vec<bool>) {
        let taken = txn.compares.iter().all(|compare| self.holds(compare, i64::MAX));
        path.push(taken);
        for op in if taken { &txn.success } else { &txn.failure } {
            if let Op::Txn(txn) = op {
                self.choose(txn, path);
            }
        }
    }

    fn holds(&self, compare: &Compare, at: i64) -> bool {
        let mut met = false;
        for key in self.keys.keys().filter(|key| contains(&compare.key, &compare.range_end, key)) {
            let Some((modified, live)) = self.live_at(key, at) else { continue };
            met = true;
            let ordering = match compare.target {
                CompareTarget::Version => live.version.cmp(&compare.number),
                CompareTarget::CreateRevision => live.create.cmp(&compare.number),
                CompareTarget::ModRevision => modified.cmp(&compare.number),
                CompareTarget::Lease => live.lease.cmp(&compare.number),
                CompareTarget::Value => live.value.cmp(&compare.value),
            };
            if !relates(compare.result, ordering) {
                return false;
            }
        }
        // A range without keys compares like one key that does not exist.
        met || (compare.target != CompareTarget::Value
            && relates(compare.result, 0.cmp(&compare.number)))
    }

    fn check_put(&self, put: &Put, seen: &BTreeMap<Vec<u8>, bool>) -> Result<(), Status> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Status::LeaseNotFound);
        }
        let absent = self.live_at(&put.key, i64::MAX).is_none();
        let deleted = seen.get(&put.key) == Some(&false);
        if (put.ignore_value || put.ignore_lease) && (absent || deleted) {
            return Err(Status::KeyNotFound);
        }
        Ok(())
    }

    /// `seen` holds what the operations so far did: true written, false deleted.
    fn check(
        &self,
        txn: &Txn,
        path: &mut std::slice::Iter<'_, bool>,
        seen: &mut BTreeMap<Vec<u8>, bool>,
    ) -> Result<(), Status> {
        let taken = *path.next().expect("the path was chosen over the same transaction");
        for op in if taken { &txn.success } else { &txn.failure } {
            match op {
                Op::Put(put) => {
                    self.check_put(put, seen)?;
                    seen.insert(put.key.clone(), true);
                }
                Op::Delete(delete) => {
                    let known: BTreeSet<Vec<u8>> =
                        self.keys.keys().chain(seen.keys()).cloned().collect();
                    for key in known {
                        if contains(&delete.key, &delete.range_end, &key) {
                            seen.insert(key, false);
                        }
                    }
                }
                Op::Range(range) if range.revision > self.revision => {
                    return Err(Status::FutureRevision);
                }
                Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Status::Compacted);
                }
                Op::Range(_) => {}
                Op::Txn(txn) => self.check(txn, path, seen)?,
            }
        }
        Ok(())
    }

    fn run(&mut self, txn: &Txn, path: &mut std::slice::Iter<'_, bool>) -> Told {
        let succeeded = *path.next().expect("the path was chosen over the same transaction");
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let ops = branch.iter().map(|op| match op {
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => self.delete(delete),
            Op::Range(range) => {
                let at = if range.revision > 0 { range.revision } else { i64::MAX };
                Told::Range(self.range(range, at, self.current()))
            }
            Op::Txn(txn) => self.run(txn, path),
        });
        let ops = ops.collect();
        Told::Txn { revision: 0, succeeded, ops }
    }
}

impl Told {
    /// As an operation of a transaction, which names no revision of its own.
    fn inner(self) -> Self {
        match self {
            Self::Txn { succeeded, ops, .. } => Self::Txn { revision: 0, succeeded, ops },
            told => told,
        }
    }
}

fn relates(result: CompareResult, ordering: Ordering) -> bool {
    match result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
    }
}
