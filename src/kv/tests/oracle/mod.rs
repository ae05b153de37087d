//! The oracle: etcd's rules over a map of version lists, written down as plainly as they read.
//!
//! It shares the types of the interface with the product and no logic: reads copy and sort everything,
//! transactions recurse, prev_kv and ranges of a transaction are read while it runs.

#![allow(dead_code)]

mod clients;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use base::limits::KEY_SIZE_MAX;
use base::{LeaseId, Revision, Stamp};
use kv::{
    Command, Compare, DeleteRange, KeyValue, KeyValueList, Limits, Op, OpReply, Operand, Outcome,
    Put, RangeEnd, RangeRequest, Refusal, Relation, Reply, SortOrder, SortTarget, Txn, TxnReply,
};

pub use clients::Clients;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live<'p> {
    pub create: i64,
    pub version: i64,
    pub value: &'p [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct Version<'p> {
    pub revision: i64,
    pub live: Option<Live<'p>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'p> {
    pub revision: i64,
    pub sub: u32,
    pub delete: bool,
    pub key: &'p [u8],
}

/// What a command comes to: what every member computes, and what its client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Reply(Reply),
    Compacted {
        revision: i64,
        compacted: i64,
    },
    Nothing,
    Refused(Refusal),
    /// A client has this id.
    Registered(u64),
    /// The same write had come to this.
    Repeated(Box<Told>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub pairs: KeyValueList,
    pub end: RangeEnd,
}

#[derive(Clone)]
pub struct Oracle<'p> {
    pub keys: BTreeMap<&'p [u8], Vec<Version<'p>>>,
    pub events: Vec<Event<'p>>,
    pub revision: i64,
    pub compacted: i64,
    /// The bytes about the members and the index of the entry that set them.
    pub members: (&'p [u8], u64),
    pub clients: Clients,
    applied: u64,
    sub: u32,
}

pub fn revision(number: i64) -> Revision {
    Revision::new(u64::try_from(number).unwrap())
}

fn pair<'p>(key: &'p [u8], version: &Version<'p>, live: &Live<'p>) -> KeyValue<'p> {
    KeyValue {
        key,
        value: live.value,
        create_revision: revision(live.create),
        mod_revision: revision(version.revision),
        version: u64::try_from(live.version).unwrap(),
        lease: LeaseId::new(0),
    }
}

fn contains(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        b"" => candidate == key,
        b"\0" => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

impl<'p> Oracle<'p> {
    pub fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            events: Vec::new(),
            revision: 1,
            compacted: -1,
            members: (b"", 0),
            clients: Clients::default(),
            applied: 0,
            sub: 0,
        }
    }

    /// The revision that the running entry has reached.
    fn current(&self) -> i64 {
        self.revision + i64::from(self.sub > 0)
    }

    fn live_at(&self, key: &[u8], at: i64) -> Option<(Version<'p>, Live<'p>)> {
        let versions = self.keys.get(key)?;
        let behind = versions.partition_point(|version| version.revision <= at);
        let version = versions[..behind].last()?;
        version.live.map(|live| (*version, live))
    }

    pub fn live_keys(&self, at: i64) -> Vec<&'p [u8]> {
        let live = |key: &&&'p [u8]| self.live_at(key, at).is_some();
        self.keys.keys().filter(live).copied().collect()
    }

    /// A range at revision `at`, changes of the running entry included if they have it.
    pub fn range(&self, request: &RangeRequest<'_>, at: i64, header: i64) -> Answered {
        let mut all: Vec<KeyValue<'p>> = Vec::new();
        let from = match request.range_end {
            b"" => {
                self.keys.range::<[u8], _>((Bound::Included(request.key), Bound::Unbounded)).take(1)
            }
            _ => self
                .keys
                .range::<[u8], _>((Bound::Included(request.key), Bound::Unbounded))
                .take(usize::MAX),
        };
        for (key, _) in from {
            if !contains(request.key, request.range_end, key) {
                break;
            }
            if let Some((version, live)) = self.live_at(key, at) {
                all.push(pair(key, &version, &live));
            }
        }
        let count = all.len() as u64;
        let end = |more| RangeEnd { revision: revision(header), count, more };
        if request.count_only {
            return Answered { pairs: KeyValueList::default(), end: end(false) };
        }
        let filters = [
            request.max_mod_revision,
            request.min_mod_revision,
            request.max_create_revision,
            request.min_create_revision,
        ];
        let by_key = request.target == SortTarget::Key;
        let default_order = match request.order {
            SortOrder::None => true,
            SortOrder::Ascend => by_key,
            SortOrder::Descend => false,
        };
        let limit = usize::try_from(request.limit).unwrap_or(0);
        if default_order && filters == [0; 4] && limit > 0 {
            all.truncate(limit.saturating_add(1));
        }
        let number = |revision: Revision| i64::try_from(revision.get()).unwrap();
        let [max_mod, min_mod, max_create, min_create] = filters;
        all.retain(|pair| max_mod == 0 || number(pair.mod_revision) <= max_mod);
        all.retain(|pair| min_mod == 0 || number(pair.mod_revision) >= min_mod);
        all.retain(|pair| max_create == 0 || number(pair.create_revision) <= max_create);
        all.retain(|pair| min_create == 0 || number(pair.create_revision) >= min_create);
        all.sort_by(|a, b| {
            let ordering = match request.target {
                SortTarget::Key => a.key.cmp(b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(b.value),
            };
            if request.order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
        let more = limit > 0 && all.len() > limit;
        if more {
            all.truncate(limit);
        }
        let mut pairs = KeyValueList::default();
        for mut pair in all {
            if request.keys_only {
                pair.value = b"";
            }
            pairs.push(&pair);
        }
        Answered { pairs, end: end(more) }
    }

    /// The revision that a plain read reads at.
    pub fn readable(&self, request: &RangeRequest<'_>) -> Result<i64, Refusal> {
        if request.key.is_empty() {
            return Err(Refusal::KeyNotProvided);
        }
        if request.revision <= 0 {
            return Ok(self.revision);
        }
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(request.revision)
    }

    pub fn read(&self, request: &RangeRequest<'_>) -> Result<Answered, Refusal> {
        let at = self.readable(request)?;
        Ok(self.range(request, at, self.revision))
    }

    pub fn read_txn(&self, txn: &Txn<'p>) -> Result<Reply, Refusal> {
        assert!(txn.is_read_only());
        match self.clone().txn(txn) {
            Told::Reply(reply) => Ok(reply),
            Told::Refused(refusal) => Err(refusal),
            told => panic!("{told:?}"),
        }
    }

    /// A command with a stamp: once.
    pub fn apply_once(&mut self, stamp: Option<&Stamp>, command: &Command<'p>) -> Told {
        let Some(stamp) = stamp else { return self.apply(command) };
        if let Some(told) = self.clients.known(stamp) {
            self.applied += 1;
            return told;
        }
        let told = self.apply(command);
        self.clients.remember(stamp, self.applied, &told);
        told
    }

    pub fn apply(&mut self, command: &Command<'p>) -> Told {
        assert_eq!(self.sub, 0);
        self.applied += 1;
        let told = match command {
            Command::Put(put) => match self.check_put(put, &mut BTreeMap::new()) {
                Ok(()) => {
                    let (revision, prev) = self.put(put);
                    Told::Reply(Reply::Put { revision, prev })
                }
                Err(refusal) => Told::Refused(refusal),
            },
            Command::DeleteRange(delete) => {
                if delete.key.is_empty() {
                    Told::Refused(Refusal::KeyNotProvided)
                } else {
                    let (revision, count, prev) = self.delete(delete);
                    Told::Reply(Reply::Deleted { revision, count, prev })
                }
            }
            Command::Txn(txn) => self.txn(txn),
            Command::Compact { revision, .. } => self.compact(*revision),
            Command::Members(bytes) => match validate_members(bytes) {
                Ok(()) => {
                    self.members = (bytes, self.applied);
                    Told::Nothing
                }
                Err(refusal) => Told::Refused(refusal),
            },
            Command::Register { clients_max } => {
                Told::Registered(self.clients.register(self.applied, *clients_max))
            }
            Command::PutWithTtl { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseKeepAlive { .. }
            | Command::LeaseExpire { .. }
            | Command::LogTime { .. }
            | Command::Raise(_)
            | Command::Disarm { .. } => unreachable!("leases and alarms have tests of their own"),
            Command::Nothing => Told::Nothing,
        };
        if self.sub > 0 {
            self.revision += 1;
            self.sub = 0;
        }
        told
    }

    fn change(&mut self, key: &'p [u8], live: Option<Live<'p>>) {
        let at = self.revision + 1;
        let event = Event { revision: at, sub: self.sub, delete: live.is_none(), key };
        self.events.push(event);
        self.sub += 1;
        self.keys.entry(key).or_default().push(Version { revision: at, live });
    }

    fn put(&mut self, put: &Put<'p>) -> (Revision, KeyValueList) {
        let mut prev = KeyValueList::default();
        let old = self.live_at(put.key, i64::MAX);
        if let (true, Some((version, live))) = (put.prev_kv, old) {
            prev.push(&pair(put.key, &version, &live));
        }
        let old = old.map(|(_, live)| live);
        let value = if put.ignore_value { old.unwrap().value } else { put.value };
        let live = Live {
            create: old.map_or(self.revision + 1, |old| old.create),
            version: old.map_or(0, |old| old.version) + 1,
            value,
        };
        self.change(put.key, Some(live));
        (revision(self.revision + 1), prev)
    }

    fn delete(&mut self, delete: &DeleteRange<'p>) -> (Revision, u64, KeyValueList) {
        let mut prev = KeyValueList::default();
        let mut count = 0;
        for key in self.live_keys(i64::MAX) {
            if contains(delete.key, delete.range_end, key) {
                let (version, live) = self.live_at(key, i64::MAX).unwrap();
                if delete.prev_kv {
                    prev.push(&pair(key, &version, &live));
                }
                self.change(key, None);
                count += 1;
            }
        }
        (revision(self.current()), count, prev)
    }

    fn compact(&mut self, wanted: i64) -> Told {
        if wanted <= self.compacted {
            return Told::Refused(Refusal::Compacted);
        }
        if wanted > self.revision {
            return Told::Refused(Refusal::FutureRevision);
        }
        self.compacted = wanted;
        self.keys.retain(|_, versions| {
            let behind = versions.partition_point(|version| version.revision <= wanted);
            if let Some(newest) = behind.checked_sub(1) {
                let keep = versions[newest].live.is_some() || versions[newest].revision == wanted;
                // Several changes of one revision may lie at the boundary: all but the last are gone
                // from every view.
                versions.drain(..if keep { newest } else { behind });
            }
            !versions.is_empty()
        });
        self.events.retain(|event| event.revision >= wanted);
        Told::Compacted { revision: self.revision, compacted: wanted }
    }

    fn txn(&mut self, txn: &Txn<'p>) -> Told {
        let mut path = Vec::new();
        self.choose(txn, &mut path);
        let mut gone = BTreeMap::new();
        if let Err(refusal) = self.check(txn, &mut path.iter(), &mut gone) {
            return Told::Refused(refusal);
        }
        let mut ops = Vec::new();
        self.run(txn, &mut path.iter(), &mut ops);
        let revision = revision(self.current());
        Told::Reply(Reply::Txn(TxnReply { revision, succeeded: path[0], ops }))
    }

    fn choose(&self, txn: &Txn<'p>, path: &mut Vec<bool>) {
        let taken = txn.compares.iter().all(|compare| self.holds(compare));
        path.push(taken);
        for op in txn.branch(taken) {
            if let Op::Txn(nested) = op {
                self.choose(nested, path);
            }
        }
    }

    fn holds(&self, compare: &Compare<'p>) -> bool {
        let mut met = false;
        for (key, _) in self.keys.iter() {
            if !contains(compare.key, compare.range_end, key) {
                continue;
            }
            if let Some((version, live)) = self.live_at(key, i64::MAX) {
                met = true;
                let ordering = match compare.operand {
                    Operand::Version(operand) => live.version.cmp(&operand),
                    Operand::Create(operand) => live.create.cmp(&operand),
                    Operand::Mod(operand) => version.revision.cmp(&operand),
                    Operand::Lease(operand) => 0.cmp(&operand),
                    Operand::Value(operand) => live.value.cmp(operand),
                    Operand::Unknown => std::cmp::Ordering::Equal,
                };
                if !relates(compare.relation, ordering) {
                    return false;
                }
            }
        }
        if met {
            return true;
        }
        let operand = match compare.operand {
            Operand::Value(_) => return false,
            Operand::Version(operand)
            | Operand::Create(operand)
            | Operand::Mod(operand)
            | Operand::Lease(operand) => operand,
            Operand::Unknown => 0,
        };
        relates(compare.relation, 0.cmp(&operand))
    }

    /// `gone` holds what the operations so far did: true written, false deleted.
    fn check(
        &self,
        txn: &Txn<'p>,
        path: &mut std::slice::Iter<'_, bool>,
        gone: &mut BTreeMap<&'p [u8], bool>,
    ) -> Result<(), Refusal> {
        let taken = *path.next().unwrap();
        for op in txn.branch(taken) {
            match op {
                Op::Put(put) => self.check_put(put, gone)?,
                Op::DeleteRange(delete) => {
                    if delete.key.is_empty() {
                        return Err(Refusal::KeyNotProvided);
                    }
                    let known: BTreeSet<&'p [u8]> =
                        self.keys.keys().chain(gone.keys()).copied().collect();
                    for key in known {
                        if contains(delete.key, delete.range_end, key) {
                            gone.insert(key, false);
                        }
                    }
                }
                Op::Range(range) => {
                    if range.key.is_empty() {
                        return Err(Refusal::KeyNotProvided);
                    }
                    if range.revision > self.revision {
                        return Err(Refusal::FutureRevision);
                    }
                    if range.revision != 0 && range.revision < self.compacted {
                        return Err(Refusal::Compacted);
                    }
                }
                Op::Txn(nested) => self.check(nested, path, gone)?,
                Op::Unset => return Err(Refusal::KeyNotFound),
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put<'p>, gone: &mut BTreeMap<&'p [u8], bool>) -> Result<(), Refusal> {
        validate_put(put, usize::MAX)?;
        if put.lease != LeaseId::new(0) {
            return Err(Refusal::LeaseNotFound);
        }
        if put.ignore_value || put.ignore_lease {
            let absent = self.live_at(put.key, self.revision).is_none();
            if absent || gone.get(put.key) == Some(&false) {
                return Err(Refusal::KeyNotFound);
            }
        }
        gone.insert(put.key, true);
        Ok(())
    }

    fn run(
        &mut self,
        txn: &Txn<'p>,
        path: &mut std::slice::Iter<'_, bool>,
        ops: &mut Vec<OpReply>,
    ) {
        let taken = *path.next().unwrap();
        for op in txn.branch(taken) {
            match op {
                Op::Put(put) => {
                    let (revision, prev) = self.put(put);
                    ops.push(OpReply::Put { revision, prev });
                }
                Op::DeleteRange(delete) => {
                    let (revision, count, prev) = self.delete(delete);
                    ops.push(OpReply::Deleted { revision, count, prev });
                }
                Op::Range(range) => {
                    let at = if range.revision > 0 { range.revision } else { i64::MAX };
                    let Answered { pairs, end } = self.range(range, at, self.current());
                    ops.push(OpReply::Range { end, pairs });
                }
                Op::Txn(nested) => {
                    let at = ops.len();
                    ops.push(OpReply::Txn { succeeded: false, ops_count: 0 });
                    let taken = *path.as_slice().first().unwrap();
                    let ops_count = nested.branch(taken).len();
                    self.run(nested, path, ops);
                    ops[at] = OpReply::Txn { succeeded: taken, ops_count };
                }
                Op::Unset => unreachable!("refused before"),
            }
        }
    }
}

fn relates(relation: Relation, ordering: std::cmp::Ordering) -> bool {
    match relation {
        Relation::Equal => ordering.is_eq(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Unknown => true,
    }
}

fn validate_put(put: &Put<'_>, value_size_max: usize) -> Result<(), Refusal> {
    if put.key.is_empty() {
        return Err(Refusal::KeyNotProvided);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.ignore_lease && put.lease != LeaseId::new(0) {
        return Err(Refusal::LeaseProvided);
    }
    if put.key.len() > KEY_SIZE_MAX {
        return Err(Refusal::KeyTooLong { size: put.key.len(), size_max: KEY_SIZE_MAX });
    }
    if put.value.len() > value_size_max {
        return Err(Refusal::ValueTooLarge { size: put.value.len(), size_max: value_size_max });
    }
    Ok(())
}

/// What validation says, by recursion and search.
pub fn validate(command: &Command<'_>, limits: &Limits) -> Result<(), Refusal> {
    let key = |key: &[u8]| if key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) };
    match command {
        Command::Put(put) => validate_put(put, limits.value_size_max),
        Command::DeleteRange(delete) => key(delete.key),
        Command::Txn(txn) => {
            validate_shape(txn, limits, limits.txn_ops_max)?;
            changes(&txn.success)?;
            changes(&txn.failure).map(|_| ())
        }
        Command::Members(bytes) => validate_members(bytes),
        Command::PutWithTtl { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseKeepAlive { .. }
        | Command::LeaseExpire { .. }
        | Command::LogTime { .. }
        | Command::Raise(_)
        | Command::Disarm { .. } => unreachable!("leases and alarms have tests of their own"),
        Command::Compact { .. } | Command::Register { .. } | Command::Nothing => Ok(()),
    }
}

fn validate_members(bytes: &[u8]) -> Result<(), Refusal> {
    let (size, size_max) = (bytes.len(), 3_072);
    if size > size_max { Err(Refusal::ValueTooLarge { size, size_max }) } else { Ok(()) }
}

fn validate_shape(txn: &Txn<'_>, limits: &Limits, budget: usize) -> Result<(), Refusal> {
    let ops = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    if ops > budget {
        return Err(Refusal::TooManyOps);
    }
    if txn.compares.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::KeyNotProvided);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        let empty = match op {
            Op::Put(put) => {
                validate_put(put, limits.value_size_max)?;
                false
            }
            Op::DeleteRange(delete) => delete.key.is_empty(),
            Op::Range(range) => range.key.is_empty(),
            Op::Txn(nested) => {
                validate_shape(nested, limits, budget - ops)?;
                false
            }
            Op::Unset => return Err(Refusal::KeyNotFound),
        };
        if empty {
            return Err(Refusal::KeyNotProvided);
        }
    }
    Ok(())
}

type Changes<'c> = (Vec<&'c [u8]>, Vec<(&'c [u8], &'c [u8])>);

fn changes<'c>(ops: &'c [Op<'_>]) -> Result<Changes<'c>, Refusal> {
    let mut deletes: Vec<(&[u8], &[u8])> = Vec::new();
    for op in ops {
        if let Op::DeleteRange(delete) = op
            && delete.range_end != b"\0"
        {
            deletes.push((delete.key, delete.range_end));
        }
    }
    let mut puts: Vec<&[u8]> = Vec::new();
    for op in ops {
        if let Op::Txn(nested) = op {
            let (success, success_deletes) = changes(&nested.success)?;
            let (failure, failure_deletes) = changes(&nested.failure)?;
            for key in success.iter().chain(&failure) {
                let deleted = deletes.iter().any(|(from, to)| contains(from, to, key));
                if deleted || puts.contains(key) {
                    return Err(Refusal::DuplicateKey);
                }
            }
            puts.extend(success);
            puts.extend(failure);
            deletes.extend(success_deletes);
            deletes.extend(failure_deletes);
        }
    }
    for op in ops {
        if let Op::Put(put) = op {
            let deleted = deletes.iter().any(|(from, to)| contains(from, to, put.key));
            if deleted || puts.contains(&put.key) {
                return Err(Refusal::DuplicateKey);
            }
            puts.push(put.key);
        }
    }
    Ok((puts, deletes))
}

/// What an outcome says without an answer must be what the client is told.
pub fn assert_agrees(outcome: &Outcome, told: &Told) {
    match (outcome, told) {
        (Outcome::Put { revision }, Told::Reply(Reply::Put { revision: told, .. })) => {
            assert_eq!(revision, told);
        }
        (
            Outcome::Deleted { revision, count },
            Told::Reply(Reply::Deleted { revision: told, count: told_count, .. }),
        ) => assert_eq!((revision, count), (told, told_count)),
        (Outcome::Txn(outcome), Told::Reply(Reply::Txn(told))) => {
            assert_eq!(outcome.revision, told.revision);
            assert_eq!(outcome.succeeded(), told.succeeded);
        }
        (
            Outcome::Compacted { revision: now, compacted },
            Told::Compacted { revision: told, compacted: told_compacted },
        ) => {
            assert_eq!((*now, *compacted), (revision(*told), revision(*told_compacted)));
        }
        (Outcome::Nothing, Told::Nothing) => {}
        (Outcome::Refused(refusal), Told::Refused(told)) => assert_eq!(refusal, told),
        (Outcome::Registered { client }, Told::Registered(told)) => {
            assert_eq!(client.get(), *told);
        }
        (Outcome::Repeated(result), Told::Repeated(told)) => clients::assert_same(result, told),
        (outcome, told) => panic!("{outcome:?} is not {told:?}"),
    }
}

/// A sink that never pauses.
pub fn collect(pairs: &mut KeyValueList) -> impl FnMut(&KeyValue<'_>) -> ControlFlow<()> + '_ {
    |pair| {
        pairs.push(pair);
        ControlFlow::Continue(())
    }
}
