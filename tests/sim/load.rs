//! The load: what clients ask for, as frames, and what they are answered, as plain values. Every write
//! carries a number behind its body that nobody reads, so that its entry is known again in the log.

use base::{AlarmKind, NodeId, Prng, RequestId, STAMP_SIZE, Stamp};
use wire::{
    Call, CompareResult, CompareTarget, Effect, HEADER_SIZE, Header, KeyValue, MemberOperation,
    OpReply, RangeReply, Reply, RequestEncoder, SortOrder, SortTarget, Status, TxnReplyView,
};

use crate::model::{Command, Compare, Delete, Listed, Op, Pair, Put, Range, Told, Txn};
use crate::watched::Step;

/// Marks the number behind a body.
const TOKEN_MAGIC: u64 = 0x51_7A_90_0D_5E_ED_F0_0D;

/// Bytes of the mark and the number.
const TOKEN_SIZE: usize = 16;

/// A request of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    Write(Command),
    Range(Range),
    ReadTxn(Txn),
    Status,
    MemberList,
    MemberChange {
        operation: MemberOperation,
        member: u64,
        name: String,
        address: String,
        force: bool,
    },
    MoveLeader(u64),
    Register,
    Ping,
    Limits,
    KeepAlive(Vec<i64>),
    TimeToLive {
        lease: i64,
        keys: bool,
        after: Vec<u8>,
        limit: u32,
    },
    Leases {
        after: i64,
        limit: u32,
    },
}

impl Ask {
    /// The name of its kind, for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Write(Command::Put(_)) => "put",
            Self::Write(Command::Delete(_)) => "delete",
            Self::Write(Command::Txn(_)) => "txn",
            Self::Write(Command::Compact { .. }) => "compact",
            Self::Range(range) if range.serializable => "serializable range",
            Self::Range(_) => "range",
            Self::ReadTxn(_) => "read txn",
            Self::Status => "status",
            Self::MemberList => "member list",
            Self::MemberChange { .. } => "member change",
            Self::MoveLeader(_) => "move leader",
            Self::Register => "register",
            Self::Ping => "ping",
            Self::Limits => "limits",
            Self::Write(Command::Grant { .. }) => "lease grant",
            Self::Write(Command::Revoke { .. }) => "lease revoke",
            Self::Write(Command::Raise { .. } | Command::Disarm { .. }) => "alarm",
            Self::KeepAlive(_) => "keep alive",
            Self::TimeToLive { .. } => "time to live",
            Self::Leases { .. } => "lease list",
        }
    }
}

/// What a frame that came back says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Hello,
    Told(Told),
    Refused(Status, Effect),
    /// Revision, applied index, committed index.
    Status(i64, u64, u64),
    Members(Vec<u8>),
    /// A client has this id.
    Registered(u64),
    /// A watch tells something.
    Watch(Box<Step>),
    /// Leases live so long.
    Renewed {
        revision: i64,
        ttls_ms: Vec<u64>,
    },
    /// A lease has so much left.
    Lease {
        revision: i64,
        granted_ms: u64,
        left_ms: u64,
        count: i64,
        more: bool,
        keys: Vec<Vec<u8>>,
    },
    Leases {
        revision: i64,
        more: bool,
        leases: Vec<i64>,
    },
    Other,
}

fn put(put: &Put) -> wire::Put<'_> {
    wire::Put {
        key: &put.key,
        value: &put.value,
        lease: put.lease,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
        ttl_ms: put.ttl_ms,
    }
}

fn range(range: &Range) -> wire::Range<'_> {
    wire::Range {
        key: &range.key,
        range_end: &range.range_end,
        limit: range.limit,
        revision: range.revision,
        sort_order: range.sort_order,
        sort_target: range.sort_target,
        serializable: range.serializable,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod,
        max_mod_revision: range.max_mod,
        min_create_revision: range.min_create,
        max_create_revision: range.max_create,
    }
}

fn delete(delete: &Delete) -> wire::DeleteRange<'_> {
    wire::DeleteRange { key: &delete.key, range_end: &delete.range_end, prev_kv: delete.prev_kv }
}

fn txn(txn: &Txn) -> wire::Txn<'_> {
    let compares = txn.compares.iter().map(|compare| wire::Compare {
        key: &compare.key,
        range_end: &compare.range_end,
        target: compare.target,
        result: compare.result,
        number: compare.number,
        value: &compare.value,
    });
    wire::Txn {
        compares: compares.collect(),
        success: txn.success.iter().map(op).collect(),
        failure: txn.failure.iter().map(op).collect(),
    }
}

fn op(op: &Op) -> wire::Op<'_> {
    match op {
        Op::Put(member) => wire::Op::Put(put(member)),
        Op::Range(member) => wire::Op::Range(range(member)),
        Op::Delete(member) => wire::Op::DeleteRange(delete(member)),
        Op::Txn(member) => wire::Op::Txn(Box::new(txn(member))),
    }
}

fn alarm(disarm: bool, kind: u8, member: u64) -> Call<'static> {
    let kind = AlarmKind::from_number(kind).expect("clients know the kinds");
    Call::Alarm(wire::AlarmChange { disarm, kind, member: NodeId::new(member) })
}

/// The frame of a request, and its body as the log will hold it, behind the stamp.
pub fn encode(
    encoder: &RequestEncoder,
    ask: &Ask,
    stamp: Option<&Stamp>,
    request: u64,
    deadline_ms: u32,
    token: u64,
) -> (Vec<u8>, Vec<u8>) {
    let mut frame = Vec::new();
    let mut call = |call: &Call<'_>| {
        encoder
            .encode_with(&mut frame, RequestId::new(request), deadline_ms, stamp, call)
            .expect("requests of the simulator are small");
    };
    match ask {
        Ask::Write(Command::Put(member)) => call(&Call::Put(put(member))),
        Ask::Write(Command::Delete(member)) => call(&Call::DeleteRange(delete(member))),
        Ask::Write(Command::Txn(member)) | Ask::ReadTxn(member) => call(&Call::Txn(&txn(member))),
        Ask::Write(Command::Compact { revision, physical }) => {
            call(&Call::Compact(wire::Compact { revision: *revision, physical: *physical }));
        }
        Ask::Range(member) => call(&Call::Range(range(member))),
        Ask::Status => call(&Call::Status),
        Ask::MemberList => call(&Call::MemberList),
        Ask::MemberChange { operation, member, name, address, force } => {
            call(&Call::MemberChange(wire::MemberChange {
                operation: *operation,
                member: NodeId::new(*member),
                name,
                peer_address: address,
                force: *force,
            }));
        }
        Ask::MoveLeader(target) => {
            call(&Call::MoveLeader(wire::MoveLeader { target: NodeId::new(*target) }));
        }
        Ask::Register => call(&Call::Register),
        Ask::Ping => call(&Call::Ping),
        Ask::Limits => call(&Call::Limits),
        Ask::Write(Command::Grant { lease, ttl_ms }) => {
            call(&Call::LeaseGrant(wire::LeaseGrant { lease: *lease, ttl_ms: *ttl_ms }));
        }
        Ask::Write(Command::Revoke { lease }) => {
            call(&Call::LeaseRevoke(wire::LeaseRevoke { lease: *lease }));
        }
        Ask::Write(Command::Raise { kind, member }) => call(&alarm(false, *kind, *member)),
        Ask::Write(Command::Disarm { kind, member }) => call(&alarm(true, *kind, *member)),
        Ask::KeepAlive(leases) => {
            let leases = wire::Numbers::Given(leases);
            call(&Call::LeaseKeepAlive(wire::LeaseKeepAlive { leases }));
        }
        Ask::TimeToLive { lease, keys, after, limit } => {
            call(&Call::LeaseTimeToLive(wire::LeaseTimeToLive {
                lease: *lease,
                keys: *keys,
                after_key: after,
                limit: *limit,
            }));
        }
        Ask::Leases { after, limit } => {
            call(&Call::LeaseList(wire::LeaseList { after_lease: *after, limit: *limit }));
        }
    }
    let mut body = frame.split_off(HEADER_SIZE);
    if matches!(ask, Ask::Write(_)) {
        body.extend_from_slice(&TOKEN_MAGIC.to_le_bytes());
        body.extend_from_slice(&token.to_le_bytes());
        let bytes = frame.first_chunk::<HEADER_SIZE>().expect("a frame has a header");
        let mut header = Header::decode(bytes).expect("it was just encoded");
        header.body_size = u32::try_from(body.len()).expect("a body is below 4 GiB");
        frame = header.encode(&body).to_vec();
    }
    frame.extend_from_slice(&body);
    if stamp.is_some() {
        body.drain(..STAMP_SIZE);
    }
    (frame, body)
}

/// The number behind the body of a write.
pub fn token(body: &[u8]) -> Option<u64> {
    let (_, tail) = body.split_at_checked(body.len().checked_sub(TOKEN_SIZE)?)?;
    let (magic, token) = tail.split_at(8);
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    (number(magic) == Some(TOKEN_MAGIC)).then(|| number(token))?
}

/// A key as a reply tells it.
pub fn pair(member: KeyValue<'_>) -> Pair {
    Pair {
        key: member.key.to_vec(),
        value: member.value.to_vec(),
        create: member.create_revision,
        modified: member.mod_revision,
        version: member.version,
        lease: member.lease,
    }
}

fn listed(reply: RangeReply<'_>) -> Listed {
    Listed {
        revision: reply.revision,
        count: reply.count,
        more: reply.more,
        pairs: reply.kvs.map(pair).collect(),
    }
}

fn txn_told(view: &TxnReplyView<'_>) -> Told {
    let op = |reply| match reply {
        OpReply::Put(reply) => {
            Told::Put { revision: reply.revision, previous: reply.previous.map(pair) }
        }
        OpReply::Range(reply) => Told::Range(listed(reply)),
        OpReply::DeleteRange(reply) => Told::Delete {
            revision: reply.revision,
            deleted: reply.deleted,
            previous: reply.previous.map(pair).collect(),
        },
        OpReply::Txn(view) => txn_told(&view),
    };
    let ops = view.responses().map(op).collect();
    Told::Txn { revision: view.revision(), succeeded: view.succeeded(), ops }
}

/// What a reply says.
pub fn seen(reply: &Reply<'_>) -> Seen {
    match *reply {
        Reply::Hello(_) => Seen::Hello,
        Reply::Put(reply) if reply.lease != 0 => {
            Seen::Told(Told::PutWithLease { revision: reply.revision, lease: reply.lease })
        }
        Reply::LeaseGrant(wire::LeaseGrantReply { revision, lease, ttl_ms }) => {
            Seen::Told(Told::Granted { revision, lease, ttl_ms })
        }
        Reply::LeaseRevoke(wire::LeaseRevokeReply { revision, deleted }) => {
            Seen::Told(Told::Revoked { revision, deleted })
        }
        Reply::LeaseKeepAlive(reply) => Seen::Renewed {
            revision: reply.revision,
            ttls_ms: reply.ttls_ms.iter().map(i64::cast_unsigned).collect(),
        },
        Reply::LeaseTimeToLive(reply) => Seen::Lease {
            revision: reply.revision,
            granted_ms: reply.granted_ms,
            left_ms: reply.left_ms,
            count: reply.key_count,
            more: reply.more,
            keys: reply.keys.iter().map(<[u8]>::to_vec).collect(),
        },
        Reply::LeaseList(reply) => Seen::Leases {
            revision: reply.revision,
            more: reply.more,
            leases: reply.leases.iter().collect(),
        },
        Reply::Put(reply) => {
            Seen::Told(Told::Put { revision: reply.revision, previous: reply.previous.map(pair) })
        }
        Reply::Range(reply) => Seen::Told(Told::Range(listed(reply))),
        Reply::DeleteRange(reply) => Seen::Told(Told::Delete {
            revision: reply.revision,
            deleted: reply.deleted,
            previous: reply.previous.map(pair).collect(),
        }),
        Reply::Txn(view) => Seen::Told(txn_told(&view)),
        Reply::Alarm(reply) => {
            let alarms = reply.alarms.iter();
            let alarms = alarms.map(|alarm| (alarm.kind.number(), alarm.member.get())).collect();
            Seen::Told(Told::Alarms { revision: reply.revision, alarms })
        }
        Reply::Compact(reply) => Seen::Told(Told::Compact { revision: reply.revision }),
        Reply::Refused(refused) => Seen::Refused(refused.status, refused.effect),
        Reply::Status(status) => {
            Seen::Status(status.revision, status.applied_index, status.committed_index)
        }
        Reply::MemberList(list) => Seen::Members(list.members.to_vec()),
        Reply::MemberChange(change) => Seen::Members(change.members.to_vec()),
        Reply::Register(reply) => Seen::Registered(reply.client.get()),
        Reply::Watch(reply) => Seen::Watch(Box::new(Step::new(&reply))),
        Reply::Ping | Reply::Limits(_) | Reply::Snapshot(_) | Reply::MoveLeader(_) => Seen::Other,
    }
}

/// Makes requests.
pub struct Generator {
    /// Keys that are in use.
    pub keys: u64,
    /// Bytes of the greatest value.
    pub value_max: u64,
    /// How many in a hundred requests write.
    pub writes: u64,
    /// Whether history is given up now and then.
    pub compacts: bool,
}

impl Generator {
    /// A key.
    pub fn key(&self, prng: &mut Prng) -> Vec<u8> {
        format!("k{:03}", prng.below(self.keys)).into_bytes()
    }

    /// A range, as requests name it; now and then without a key in it.
    pub fn interval(&self, prng: &mut Prng) -> (Vec<u8>, Vec<u8>) {
        let key = self.key(prng);
        match prng.below(6) {
            0 | 1 => (key, Vec::new()),
            2 => (key, vec![0]),
            3 => (vec![0], vec![0]),
            _ => (key, self.key(prng)),
        }
    }

    fn value(&self, prng: &mut Prng) -> Vec<u8> {
        let size = if prng.one_in(12) { prng.below(self.value_max) } else { prng.below(64) };
        let mut value = vec![0; usize::try_from(size).expect("a value is small")];
        prng.fill(&mut value);
        value
    }

    fn put(&self, prng: &mut Prng) -> Put {
        let ignore_value = prng.one_in(16);
        Put {
            key: self.key(prng),
            value: if ignore_value { Vec::new() } else { self.value(prng) },
            lease: i64::from(prng.one_in(60)),
            prev_kv: prng.one_in(4),
            ignore_value,
            ignore_lease: false,
            ttl_ms: 0,
        }
    }

    fn delete(&self, prng: &mut Prng) -> Delete {
        let (key, range_end) =
            if prng.one_in(3) { self.interval(prng) } else { (self.key(prng), Vec::new()) };
        Delete { key, range_end, prev_kv: prng.one_in(3) }
    }

    /// A range; `revision` is about where history stands.
    pub fn range(&self, prng: &mut Prng, revision: i64) -> Range {
        let (key, range_end) = self.interval(prng);
        let revision = revision.max(1).unsigned_abs();
        let near = |prng: &mut Prng| {
            let back = prng.below(revision.min(60) + 3);
            i64::try_from((revision + 2).saturating_sub(back)).unwrap_or(0)
        };
        let bound = |prng: &mut Prng| if prng.one_in(10) { near(prng) } else { 0 };
        Range {
            key,
            range_end,
            limit: if prng.one_in(3) { i64::try_from(prng.below(6)).unwrap_or(0) } else { 0 },
            revision: if prng.one_in(4) { near(prng) } else { 0 },
            sort_order: [SortOrder::None, SortOrder::Ascend, SortOrder::Descend]
                [usize::try_from(prng.below(3)).unwrap_or(0)],
            sort_target: [
                SortTarget::Key,
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::CreateRevision,
                SortTarget::ModRevision,
                SortTarget::Value,
            ][usize::try_from(prng.below(6)).unwrap_or(0)],
            serializable: prng.one_in(4),
            keys_only: prng.one_in(6),
            count_only: prng.one_in(8),
            min_mod: bound(prng),
            max_mod: bound(prng),
            min_create: bound(prng),
            max_create: bound(prng),
        }
    }

    fn compare(&self, prng: &mut Prng, revision: i64) -> Compare {
        let target = [
            CompareTarget::Version,
            CompareTarget::CreateRevision,
            CompareTarget::ModRevision,
            CompareTarget::Value,
            CompareTarget::Lease,
        ][usize::try_from(prng.below(5)).unwrap_or(0)];
        let number = match target {
            CompareTarget::Version => i64::try_from(prng.below(4)).unwrap_or(0),
            CompareTarget::Lease => i64::from(prng.one_in(4)),
            _ => i64::try_from(prng.below(revision.max(1).unsigned_abs() + 1)).unwrap_or(0),
        };
        let (key, range_end) =
            if prng.one_in(4) { self.interval(prng) } else { (self.key(prng), Vec::new()) };
        Compare {
            key,
            range_end,
            target,
            result: [
                CompareResult::Equal,
                CompareResult::Greater,
                CompareResult::Less,
                CompareResult::NotEqual,
            ][usize::try_from(prng.below(4)).unwrap_or(0)],
            number,
            value: if target == CompareTarget::Value { self.value(prng) } else { Vec::new() },
        }
    }

    fn txn(&self, prng: &mut Prng, revision: i64, depth: u64, reads: bool) -> Txn {
        let ops = |prng: &mut Prng| {
            (0..prng.below(4)).map(|_| self.op(prng, revision, depth, reads)).collect()
        };
        let (success, failure) = (ops(prng), ops(prng));
        let compares = (0..prng.below(3)).map(|_| self.compare(prng, revision)).collect();
        Txn { compares, success, failure }
    }

    fn op(&self, prng: &mut Prng, revision: i64, depth: u64, reads: bool) -> Op {
        let range = |prng: &mut Prng| {
            let mut range = self.range(prng, revision);
            range.serializable = false;
            Op::Range(range)
        };
        match prng.below(8) {
            _ if reads => range(prng),
            0..4 => Op::Put(self.put(prng)),
            4 => Op::Delete(self.delete(prng)),
            5 if depth < 2 => Op::Txn(self.txn(prng, revision, depth + 1, false)),
            _ => range(prng),
        }
    }

    /// The next request; `revision` is about where history stands.
    pub fn next(&self, prng: &mut Prng, revision: i64) -> Ask {
        if prng.below(100) < self.writes {
            return Ask::Write(match prng.below(20) {
                0..13 => Command::Put(self.put(prng)),
                13..16 => Command::Delete(self.delete(prng)),
                16 if self.compacts && prng.one_in(2) => {
                    let back = i64::try_from(prng.below(30)).unwrap_or(0);
                    let physical = prng.one_in(3);
                    Command::Compact { revision: revision + 2 - back, physical }
                }
                _ => {
                    let txn = self.txn(prng, revision, 0, false);
                    if is_read(&txn) {
                        return Ask::ReadTxn(txn);
                    }
                    Command::Txn(txn)
                }
            });
        }
        match prng.below(20) {
            0 => Ask::Status,
            1 => Ask::MemberList,
            2 if revision % 2 == 0 => Ask::Limits,
            2 => Ask::Ping,
            3 | 4 => Ask::ReadTxn(self.txn(prng, revision, 2, true)),
            _ => Ask::Range(self.range(prng, revision)),
        }
    }
}

/// Whether a transaction goes past the log, as the server judges it.
pub fn is_read(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_)))
}

/// Whether every range of a transaction that only reads may be answered from a member's own state.
pub fn is_local(txn: &Txn) -> bool {
    let local = |op: &Op| matches!(op, Op::Range(range) if range.serializable);
    txn.success.iter().chain(&txn.failure).all(local)
}
