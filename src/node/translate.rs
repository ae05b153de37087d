//! Between the protocol and the state: requests become commands, outcomes become replies. `wire` does
//! not know what a revision means and `kv` has never heard of a frame; this file knows both.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::limits::{
    CONNECTION_REQUESTS_MAX, KEEP_ALIVE_MAX, KEY_SIZE_MAX, PROPOSED_BYTES_MAX, body_size_max,
};
use base::{Alarm, LeaseId, LogIndex, Mutant, NodeId, RequestId, Revision, STAMP_SIZE, Stamp};
use kv::{
    Command, Compare, DeleteRange, Due, Op, OpReply, Operand, Put, RangeRequest, Refusal, Relation,
    Remembered, SortOrder, SortTarget, Txn,
};
use wire::{
    AlarmChange, Cause, ChangeKind, Effect, Header, Hello, HelloReply, Kind, LeaderHint,
    LeaseGrantReply, LeaseRevokeReply, MoveLeader, OpView, RangeSummary, ReplyWriter, Request,
    Status, TxnView, VerifyLimits, WatchChange,
};

use crate::AdminRequest;
use crate::message::{EntryKind, ReadKind, Refused};
use crate::watching::{self, WatchPlan};

/// What becomes of a request that may be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// It goes through the log.
    Propose {
        /// What its entry is.
        kind: EntryKind,
        /// Whether it only gives space back, so that it may go on when space is short.
        frees_space: bool,
    },
    /// The registration of a client, which goes through the log too.
    Register,
    /// It is read.
    Read {
        /// What.
        what: ReadKind,
        /// Whether consensus is asked first.
        linearizable: bool,
    },
    /// Leases begin their time anew.
    KeepAlive,
    /// It is watched.
    Watch(WatchPlan),
    /// The state of the member.
    Status,
    /// Its limits.
    Limits,
    /// Something about the members.
    Admin(AdminRequest),
}

/// Decides what a verified request needs, after everything that can be refused without the state.
pub fn plan(request: &Request<'_>, limits: &kv::Limits) -> Result<Plan, Refused> {
    let propose = |command: Command<'_>, kind: EntryKind| {
        let plan = Plan::Propose { kind, frees_space: kind.frees_space() };
        command.validate(limits).map(|()| plan).map_err(refused)
    };
    match request {
        Request::Put(view) if view.ttl_ms > 0 && view.prev_kv => {
            let message =
                "a put has either ttl_ms or prev_kv; read the key first, or grant a lease";
            Err(invalid(message))
        }
        Request::Put(view) if view.ttl_ms > 0 => {
            let (time, ttl_ms) = (0, view.ttl_ms);
            let command = Command::PutWithTtl { time, put: put(view), ttl_ms };
            propose(command, EntryKind::PutWithTtl)
        }
        Request::Put(view) => propose(Command::Put(put(view)), EntryKind::Put),
        Request::DeleteRange(view) => {
            propose(Command::DeleteRange(delete_range(view)), EntryKind::DeleteRange)
        }
        Request::Compact(view) => {
            let command = Command::Compact { revision: view.revision, physical: view.physical };
            propose(command, EntryKind::Compact)
        }
        Request::Range(view) => {
            range(view).validate().map_err(refused)?;
            Ok(Plan::Read { what: ReadKind::Range, linearizable: !view.serializable })
        }
        Request::Txn(view) if has_ttl(view) => {
            let message = "ttl_ms is for a put alone; grant a lease and name it in the transaction";
            Err(invalid(message))
        }
        Request::Txn(view) => {
            let txn = txn(view);
            let (reads, local) = (txn.is_read_only(), txn.is_serializable());
            let command = Command::Txn(txn);
            let frees_space = !command.takes_space();
            command.validate(limits).map_err(refused)?;
            if reads {
                Ok(Plan::Read { what: ReadKind::Txn, linearizable: !local })
            } else {
                Ok(Plan::Propose { kind: EntryKind::Txn, frees_space })
            }
        }
        Request::Watch(watch) => watching::plan(watch).map(Plan::Watch),
        Request::LeaseGrant(view) => {
            let (time, lease, ttl_ms) = (0, LeaseId::new(view.lease), view.ttl_ms);
            propose(Command::LeaseGrant { time, lease, ttl_ms }, EntryKind::LeaseGrant)
        }
        Request::LeaseRevoke(view) => {
            let lease = LeaseId::new(view.lease);
            propose(Command::LeaseRevoke { lease }, EntryKind::LeaseRevoke)
        }
        Request::LeaseKeepAlive(view) => {
            let count = view.leases.len();
            if count == 0 || count > KEEP_ALIVE_MAX {
                return Err(refused(Refusal::KeepAlive));
            }
            Ok(Plan::KeepAlive)
        }
        Request::LeaseTimeToLive(_) => {
            let linearizable = !Mutant::LeaseReadLocal.is_on();
            Ok(Plan::Read { what: ReadKind::Lease, linearizable })
        }
        Request::LeaseList(_) => Ok(Plan::Read { what: ReadKind::Leases, linearizable: true }),
        Request::Alarm(change) => propose(alarm(change), EntryKind::Alarm),
        Request::Register => Ok(Plan::Register),
        Request::Status => Ok(Plan::Status),
        Request::Limits => Ok(Plan::Limits),
        Request::Snapshot => Ok(Plan::Read { what: ReadKind::Snapshot, linearizable: false }),
        Request::MemberList => Ok(Plan::Admin(AdminRequest::List)),
        Request::MemberChange(change) => Ok(Plan::Admin(AdminRequest::Change {
            operation: change.operation,
            member: change.member,
            name: change.name.to_string(),
            peer_address: change.peer_address.to_string(),
            force: change.force,
        })),
        Request::MoveLeader(MoveLeader { target }) => {
            Ok(Plan::Admin(AdminRequest::MoveLeader { target: *target }))
        }
        Request::Hello(_) | Request::Ping | Request::Cancel | Request::WatchProgress => {
            Err(Refused::new(
                Status::ProtocolError,
                format!("a frame of kind {:?} cannot stand here", request.kind()),
            ))
        }
    }
}

/// The message of a request whose body begins with a stamp.
///
/// # Errors
///
/// It may not have a stamp, or this one means nothing; whether the connection must be closed.
pub fn message_behind_stamp(kind: Kind, body: &[u8]) -> Result<&[u8], (Refused, bool)> {
    let refused = |status, message: String| Refused::new(status, message);
    if !kind.is_write() {
        let message = format!("a frame of kind {kind:?} cannot carry a stamp; send it without");
        return Err((refused(Status::ProtocolError, message), true));
    }
    let Some((Stamp { sequence, floor, .. }, message)) = Stamp::split(body) else {
        let message = format!("a stamp has {STAMP_SIZE} bytes, the body has {}", body.len());
        return Err((refused(Status::ProtocolError, message), true));
    };
    if floor > sequence {
        let message = format!(
            "a stamp says that its client waits for no write before {floor}, and is that of write \
             {sequence} itself; the floor is the oldest unanswered sequence, this one at most"
        );
        return Err((refused(Status::InvalidArgument, message), false));
    }
    Ok(message)
}

/// The command in the payload of a log entry. Its bytes were verified before they were proposed, so
/// an error means that another version wrote them.
pub fn command(kind: EntryKind, body: &[u8]) -> Result<Command<'_>, wire::DecodeError> {
    let kind = match kind {
        EntryKind::Empty => return Ok(Command::Nothing),
        EntryKind::Members => return Ok(Command::Members(body)),
        EntryKind::Register => {
            let bytes = body.try_into().map_err(|_| wire::DecodeError::Malformed)?;
            return Ok(Command::Register { clients_max: u32::from_le_bytes(bytes) });
        }
        EntryKind::LeaseKeepAlive => {
            let (time, leases) = timed(body)?;
            return Ok(Command::LeaseKeepAlive { time, leases });
        }
        EntryKind::LeaseExpire => {
            let (time, body) = timed(body)?;
            let malformed = wire::DecodeError::Malformed;
            let (lease, body) = body.split_first_chunk().ok_or(malformed)?;
            let (granted, body) = body.split_first_chunk().ok_or(malformed)?;
            let &[per_key] = body else { return Err(malformed) };
            let due = Due {
                lease: LeaseId::new(i64::from_le_bytes(*lease)),
                granted: LogIndex::new(u64::from_le_bytes(*granted)),
            };
            return Ok(Command::LeaseExpire { time, due, per_key: per_key != 0 });
        }
        EntryKind::LogTime => {
            let (time, _) = timed(body)?;
            return Ok(Command::LogTime { time });
        }
        EntryKind::PutWithTtl => {
            let (time, body) = timed(body)?;
            return match Request::verify(Kind::Put, body, &VerifyLimits::REQUEST)? {
                Request::Put(view) => {
                    Ok(Command::PutWithTtl { time, put: put(&view), ttl_ms: view.ttl_ms })
                }
                _ => unreachable!("a put was verified as one"),
            };
        }
        EntryKind::LeaseGrant => {
            let (time, body) = timed(body)?;
            return match Request::verify(Kind::LeaseGrant, body, &VerifyLimits::REQUEST)? {
                Request::LeaseGrant(view) => {
                    let (lease, ttl_ms) = (LeaseId::new(view.lease), view.ttl_ms);
                    Ok(Command::LeaseGrant { time, lease, ttl_ms })
                }
                _ => unreachable!("a grant was verified as one"),
            };
        }
        EntryKind::LeaseRevoke => Kind::LeaseRevoke,
        EntryKind::Alarm => Kind::Alarm,
        EntryKind::Put => Kind::Put,
        EntryKind::DeleteRange => Kind::DeleteRange,
        EntryKind::Txn => Kind::Txn,
        EntryKind::Compact => Kind::Compact,
    };
    Ok(match Request::verify(kind, body, &VerifyLimits::REQUEST)? {
        Request::Put(view) => Command::Put(put(&view)),
        Request::DeleteRange(view) => Command::DeleteRange(delete_range(&view)),
        Request::Txn(view) => Command::Txn(txn(&view)),
        Request::Compact(view) => {
            Command::Compact { revision: view.revision, physical: view.physical }
        }
        Request::LeaseRevoke(view) => Command::LeaseRevoke { lease: LeaseId::new(view.lease) },
        Request::Alarm(change) => alarm(&change),
        Request::Range(_)
        | Request::Watch(_)
        | Request::WatchProgress
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseList(_)
        | Request::Status
        | Request::Limits
        | Request::Snapshot
        | Request::Register
        | Request::Hello(_)
        | Request::Ping
        | Request::Cancel
        | Request::MemberList
        | Request::MemberChange(_)
        | Request::MoveLeader(_) => unreachable!("{kind:?} is none of these"),
    })
}

/// The log time at the front of a body, and the rest.
fn timed(body: &[u8]) -> Result<(u64, &[u8]), wire::DecodeError> {
    let (time, body) = body.split_first_chunk().ok_or(wire::DecodeError::Malformed)?;
    Ok((u64::from_le_bytes(*time), body))
}

/// What is to be done about alarms, as the state knows it.
fn alarm(&AlarmChange { disarm, kind, member }: &AlarmChange) -> Command<'static> {
    if disarm { Command::Disarm { kind, member } } else { Command::Raise(Alarm { kind, member }) }
}

/// A put as the state knows it.
#[inline]
fn put<'a>(view: &wire::Put<'a>) -> Put<'a> {
    Put {
        key: view.key,
        value: view.value,
        lease: LeaseId::new(view.lease),
        prev_kv: view.prev_kv,
        ignore_value: view.ignore_value,
        ignore_lease: view.ignore_lease,
    }
}

fn delete_range<'a>(view: &wire::DeleteRange<'a>) -> DeleteRange<'a> {
    DeleteRange { key: view.key, range_end: view.range_end, prev_kv: view.prev_kv }
}

/// A range as the state knows it.
#[inline]
pub fn range<'a>(view: &wire::Range<'a>) -> RangeRequest<'a> {
    RangeRequest {
        key: view.key,
        range_end: view.range_end,
        limit: view.limit,
        revision: view.revision,
        order: match view.sort_order {
            wire::SortOrder::None => SortOrder::None,
            wire::SortOrder::Ascend => SortOrder::Ascend,
            wire::SortOrder::Descend => SortOrder::Descend,
        },
        target: match view.sort_target {
            wire::SortTarget::Key => SortTarget::Key,
            wire::SortTarget::Version => SortTarget::Version,
            wire::SortTarget::CreateRevision => SortTarget::Create,
            wire::SortTarget::ModRevision => SortTarget::Mod,
            wire::SortTarget::Value => SortTarget::Value,
        },
        serializable: view.serializable,
        keys_only: view.keys_only,
        count_only: view.count_only,
        min_mod_revision: view.min_mod_revision,
        max_mod_revision: view.max_mod_revision,
        min_create_revision: view.min_create_revision,
        max_create_revision: view.max_create_revision,
    }
}

/// A transaction as the state knows it. Recursion is as deep as the verifier lets transactions nest,
/// `wire::TXN_DEPTH_MAX`.
fn txn<'a>(view: &TxnView<'a>) -> Txn<'a> {
    Txn {
        compares: view.compares().map(|compare| self::compare(&compare)).collect(),
        success: view.success().map(|operation| op(&operation)).collect(),
        failure: view.failure().map(|operation| op(&operation)).collect(),
    }
}

/// A refusal of what can never be right.
fn invalid(message: &str) -> Refused {
    let (status, message) = (Status::InvalidArgument, message.to_string());
    Refused::new(status, message)
}

/// Whether any branch of a transaction has a put that wants a lease made. As deep as transactions nest.
fn has_ttl(txn: &TxnView<'_>) -> bool {
    txn.success().chain(txn.failure()).any(|op| match op {
        OpView::Put(put) => put.ttl_ms > 0,
        OpView::Txn(inner) => has_ttl(&inner),
        OpView::Range(_) | OpView::DeleteRange(_) => false,
    })
}

fn op<'a>(view: &OpView<'a>) -> Op<'a> {
    match view {
        OpView::Put(view) => Op::Put(put(view)),
        OpView::Range(view) => Op::Range(range(view)),
        OpView::DeleteRange(view) => Op::DeleteRange(delete_range(view)),
        OpView::Txn(view) => Op::Txn(Box::new(txn(view))),
    }
}

fn compare<'a>(view: &wire::Compare<'a>) -> Compare<'a> {
    Compare {
        key: view.key,
        range_end: view.range_end,
        relation: match view.result {
            wire::CompareResult::Equal => Relation::Equal,
            wire::CompareResult::Greater => Relation::Greater,
            wire::CompareResult::Less => Relation::Less,
            wire::CompareResult::NotEqual => Relation::NotEqual,
        },
        operand: match view.target {
            wire::CompareTarget::Version => Operand::Version(view.number),
            wire::CompareTarget::CreateRevision => Operand::Create(view.number),
            wire::CompareTarget::ModRevision => Operand::Mod(view.number),
            wire::CompareTarget::Value => Operand::Value(view.value),
            wire::CompareTarget::Lease => Operand::Lease(view.number),
        },
    }
}

/// A refusal of the state as the protocol says it.
pub fn refused(refusal: Refusal) -> Refused {
    let status = match refusal {
        Refusal::KeyNotProvided
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::InvalidSortOption => Status::InvalidArgument,
        Refusal::KeyNotFound => Status::KeyNotFound,
        Refusal::LeaseNotFound => Status::LeaseNotFound,
        Refusal::LeaseExists => Status::LeaseExists,
        Refusal::TtlTooLarge | Refusal::KeepAlive => Status::InvalidArgument,
        Refusal::TooManyLeases | Refusal::TooManyAlarms => Status::Overloaded,
        Refusal::NoSpace => Status::NoSpace,
        Refusal::Corrupt => Status::Corrupt,
        Refusal::TooManyOps => Status::TooManyOps,
        Refusal::DuplicateKey => Status::DuplicateKey,
        Refusal::Compacted => Status::Compacted,
        Refusal::FutureRevision => Status::FutureRevision,
        Refusal::SessionExpired => Status::SessionExpired,
        Refusal::TooManyUnanswered => Status::TooManyUnanswered,
        Refusal::KeyTooLong { .. }
        | Refusal::ValueTooLarge { .. }
        | Refusal::SortTooLarge
        | Refusal::ReplyTooLarge => Status::TooLarge,
    };
    let retry_after_ms = if status == Status::Overloaded { Refused::GIVEN_BACK_MS } else { 0 };
    Refused { retry_after_ms, ..Refused::new(status, refusal.to_string()) }
}

/// Writes a refusal.
pub fn write_refused(
    writer: &mut ReplyWriter,
    out: &mut Vec<u8>,
    request: RequestId,
    refused: &Refused,
    leader: LeaderHint<'_>,
) {
    let retry_after_ms = match refused.status {
        // The leader's refusal of a write that was passed on comes without one.
        Status::Overloaded if refused.retry_after_ms == 0 => {
            Refused::drained_ms(PROPOSED_BYTES_MAX)
        }
        Status::NoSpace => 1_000,
        _ => refused.retry_after_ms,
    };
    let reply = wire::Refused {
        status: refused.status,
        message: &refused.message,
        leader,
        retry_after_ms,
        compacted_revision: count_of(refused.compacted),
        current_revision: 0,
        effect: match refused.status {
            _ if refused.applied => Effect::Applied,
            Status::Unknown => Effect::Unknown,
            _ => Effect::None,
        },
    };
    writer.refused(out, request, &reply);
}

/// The protocol version that both sides speak, if this is the cluster that the client means.
pub fn check_hello(hello: &Hello<'_>, cluster: u64) -> Result<u8, Refused> {
    let (oldest, newest) = (u16::from(wire::VERSION_MIN), u16::from(wire::VERSION_MAX));
    if hello.version_min > newest || hello.version_max < oldest {
        return Err(Refused::new(
            Status::VersionMismatch,
            format!(
                "the client speaks protocol versions {} to {}, this server {oldest} to {newest}; \
                 use a client of this server's release",
                hello.version_min, hello.version_max
            ),
        ));
    }
    if hello.cluster != 0 && hello.cluster != cluster {
        return Err(Refused::new(
            Status::ClusterMismatch,
            format!(
                "the client expects cluster {:016x}, this member belongs to {cluster:016x}; check \
                 the endpoint",
                hello.cluster
            ),
        ));
    }
    let version = hello.version_max.min(newest);
    Ok(u8::try_from(version).expect("at most the newest, which is a u8"))
}

/// What a connection is granted.
pub fn hello_reply(
    version: u8,
    (cluster, member): (u64, NodeId),
    value_size_max: usize,
    bytes_max: usize,
    leader: LeaderHint<'_>,
) -> HelloReply<'_> {
    let bytes = |size: usize| u32::try_from(size).expect("limits are below 4 GiB");
    HelloReply {
        version: u16::from(version),
        cluster,
        member,
        requests_max: bytes(CONNECTION_REQUESTS_MAX),
        bytes_max: bytes(bytes_max),
        key_size_max: bytes(KEY_SIZE_MAX),
        value_size_max: bytes(value_size_max),
        request_body_size_max: bytes(body_size_max(value_size_max)),
        reply_body_size_max: bytes(wire::limits::REPLY_BODY_SIZE_MAX),
        leader,
    }
}

/// A revision as the protocol carries it.
#[inline]
pub fn i64_of(revision: Revision) -> i64 {
    i64::try_from(revision.get()).expect("revisions stay below 2^63")
}

/// A count as the protocol carries it.
#[inline]
pub fn count_of(count: u64) -> i64 {
    i64::try_from(count).expect("counts stay below 2^63")
}

/// A pair as the protocol carries it.
#[inline]
pub fn pair<'a>(pair: &kv::KeyValue<'a>) -> wire::KeyValue<'a> {
    wire::KeyValue {
        key: pair.key,
        value: pair.value,
        create_revision: i64_of(pair.create_revision),
        mod_revision: i64_of(pair.mod_revision),
        version: count_of(pair.version),
        lease: pair.lease.get(),
    }
}

/// A change as the protocol carries it, with what a watch asks for.
pub fn change<'a>(change: &kv::Change<'a>, wanted: &kv::Wanted) -> WatchChange<'a> {
    let shown = |kv: &kv::KeyValue<'a>| {
        let kv = pair(kv);
        if wanted.keys_only { wire::KeyValue { value: &[], ..kv } } else { kv }
    };
    let (kind, cause) = match change.kind {
        kv::ChangeKind::Put => (ChangeKind::Put, Cause::Request),
        kv::ChangeKind::Delete(kv::Cause::Request) => (ChangeKind::Delete, Cause::Request),
        kv::ChangeKind::Delete(kv::Cause::Expired) => (ChangeKind::Delete, Cause::Expired),
        kv::ChangeKind::Delete(kv::Cause::Revoked) => (ChangeKind::Delete, Cause::Revoked),
    };
    let previous = match &change.previous {
        kv::Previous::Known(kv) if wanted.previous || Mutant::PrevUnasked.is_on() => {
            Some(shown(kv))
        }
        kv::Previous::Known(_) | kv::Previous::None | kv::Previous::Elsewhere => None,
    };
    WatchChange { kind, cause, sub: change.at.sub, kv: shown(&change.kv), previous }
}

/// The end of a range answer as the protocol carries it.
#[inline]
pub fn summary(end: &kv::RangeEnd) -> RangeSummary {
    RangeSummary { revision: i64_of(end.revision), count: count_of(end.count), more: end.more }
}

/// Writes the reply to a write that had something to read, or to a transaction that only read; or says
/// that it has outgrown its frame.
pub fn write_reply(
    writer: &mut ReplyWriter,
    out: &mut Vec<u8>,
    request: RequestId,
    reply: &kv::Reply,
    is_write: bool,
) {
    let written = match reply {
        kv::Reply::Put { revision, prev } => {
            let previous = prev.iter().next().map(|kv| pair(&kv));
            writer.put(out, request, i64_of(*revision), previous);
            return;
        }
        kv::Reply::Deleted { revision, count, prev } => {
            let previous = prev.iter().map(|kv| pair(&kv));
            writer.delete_range(out, request, i64_of(*revision), count_of(*count), previous)
        }
        kv::Reply::Txn(reply) => write_txn(writer, out, request, reply),
    };
    if let Err(error) = written {
        let done = if is_write { "the write was carried out, but its" } else { "the" };
        let message = format!("{done} reply is too large: {error}; read what you need with ranges");
        let refused = wire::Refused {
            status: Status::TooLarge,
            message: &message,
            leader: LeaderHint::default(),
            retry_after_ms: 0,
            compacted_revision: 0,
            current_revision: 0,
            effect: if is_write { Effect::Applied } else { Effect::None },
        };
        writer.refused(out, request, &refused);
    }
}

/// Writes what came of a write when it was sent before, marked as repeated.
pub fn write_repeated(
    writer: &mut ReplyWriter,
    out: &mut Vec<u8>,
    request: RequestId,
    result: &Remembered,
    compacted: u64,
) {
    let begin = out.len();
    const FITS: &str = "a reply without keys fits a frame";
    match result {
        Remembered::Put { revision } => writer.put(out, request, i64_of(*revision), None),
        Remembered::Deleted { revision, count } => {
            writer.delete_range(out, request, i64_of(*revision), count_of(*count), []).expect(FITS)
        }
        Remembered::Txn { revision, succeeded } => {
            writer.txn(out, request, i64_of(*revision), *succeeded, 0).finish().expect(FITS);
        }
        Remembered::PutWithLease { revision, lease } => {
            writer.put_with_lease(out, request, i64_of(*revision), None, lease.get());
        }
        Remembered::Granted { revision, lease, ttl_ms } => {
            let (revision, lease, ttl_ms) = (i64_of(*revision), lease.get(), *ttl_ms);
            writer.lease_grant(out, request, &LeaseGrantReply { revision, lease, ttl_ms });
        }
        Remembered::Revoked { revision, deleted } => {
            let (revision, deleted) = (i64_of(*revision), count_of(*deleted));
            writer.lease_revoke(out, request, &LeaseRevokeReply { revision, deleted });
        }
        Remembered::Compacted { revision, .. } => {
            writer.compact(out, request, i64_of(*revision));
        }
        Remembered::Refused(refusal) => {
            let refused = Refused { compacted, ..refused(*refusal) };
            write_refused(writer, out, request, &refused, LeaderHint::default());
        }
    }
    Header::mark_repeated(&mut out[begin..]);
}

fn write_txn(
    writer: &mut ReplyWriter,
    out: &mut Vec<u8>,
    request: RequestId,
    reply: &kv::TxnReply,
) -> Result<(), wire::EncodeError> {
    let revision = i64_of(reply.revision);
    // The list holds what nested transactions answer too; the outermost one announces its own.
    let mut skip = 0;
    let mut responses = 0;
    for op in &reply.ops {
        if skip > 0 {
            skip -= 1;
        } else {
            responses += 1;
        }
        if let OpReply::Txn { ops_count, .. } = op {
            skip += ops_count;
        }
    }
    let mut txn = writer.txn(out, request, revision, reply.succeeded, responses);
    for op in &reply.ops {
        match op {
            OpReply::Put { revision, prev } => {
                txn.put(i64_of(*revision), prev.iter().next().map(|kv| pair(&kv)));
            }
            OpReply::Deleted { revision, count, prev } => {
                let previous = prev.iter().map(|kv| pair(&kv));
                txn.delete_range(i64_of(*revision), count_of(*count), previous);
            }
            OpReply::Range { end, pairs } => {
                txn.range(summary(end), pairs.iter().map(|kv| pair(&kv)));
            }
            OpReply::Txn { succeeded, ops_count } => txn.txn(*succeeded, *ops_count),
        }
    }
    txn.finish()
}
