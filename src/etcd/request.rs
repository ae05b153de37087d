//! From etcd's messages to native requests, with what etcd refuses before it looks at its state, in
//! the order in which etcd looks.
//!
//! Keys that a transaction changes twice are not looked for here: the native server refuses them, by
//! the same rules and after everything that is refused here, as etcd does.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base::{AlarmKind, NodeId};
use wire::{AlarmChange, MemberOperation, Numbers};

use crate::CLUSTER_VERSION;
use crate::failure::{Code, Failure};
use crate::proto::cluster::{
    MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};
use crate::proto::kv::{
    CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, RequestOp, RequestUnion, SortOrder, SortTarget, TargetUnion, TxnRequest,
};
use crate::proto::lease::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use crate::proto::maintenance::{AlarmAction, AlarmRequest, AlarmType, MoveLeaderRequest};
use crate::proto::watch::{FilterType, WatchCreateRequest};

/// Seconds of the longest lease.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// A read.
///
/// # Errors
///
/// [`Failure::KEY_NOT_PROVIDED`], [`Failure::INVALID_SORT_OPTION`].
pub fn range(message: &RangeRequest) -> Result<wire::Range<'_>, Failure> {
    if message.key.is_empty() {
        return Err(Failure::KEY_NOT_PROVIDED);
    }
    let order = SortOrder::try_from(message.sort_order);
    let target = SortTarget::try_from(message.sort_target);
    let (Ok(order), Ok(target)) = (order, target) else {
        return Err(Failure::INVALID_SORT_OPTION);
    };
    Ok(wire::Range {
        key: &message.key,
        range_end: &message.range_end,
        limit: message.limit,
        revision: message.revision,
        sort_order: match order {
            SortOrder::None => wire::SortOrder::None,
            SortOrder::Ascend => wire::SortOrder::Ascend,
            SortOrder::Descend => wire::SortOrder::Descend,
        },
        sort_target: match target {
            SortTarget::Key => wire::SortTarget::Key,
            SortTarget::Version => wire::SortTarget::Version,
            SortTarget::Create => wire::SortTarget::CreateRevision,
            SortTarget::Mod => wire::SortTarget::ModRevision,
            SortTarget::Value => wire::SortTarget::Value,
        },
        serializable: message.serializable,
        keys_only: message.keys_only,
        count_only: message.count_only,
        min_mod_revision: message.min_mod_revision,
        max_mod_revision: message.max_mod_revision,
        min_create_revision: message.min_create_revision,
        max_create_revision: message.max_create_revision,
    })
}

/// A read whose answer goes out in parts.
///
/// # Errors
///
/// Those of [`range`], [`Failure::STREAM_SORTED`], [`Failure::STREAM_FILTERED`].
pub fn range_stream(message: &RangeRequest) -> Result<wire::Range<'_>, Failure> {
    let range = range(message)?;
    match (range.sort_order, range.sort_target) {
        // etcd does not look at what keys without an order are sorted by.
        (wire::SortOrder::None, _) | (wire::SortOrder::Ascend, wire::SortTarget::Key) => {}
        (wire::SortOrder::Ascend | wire::SortOrder::Descend, _) => {
            return Err(Failure::STREAM_SORTED);
        }
    }
    let bounds = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if bounds == [0; 4] { Ok(range) } else { Err(Failure::STREAM_FILTERED) }
}

/// A write of one key.
///
/// # Errors
///
/// [`Failure::KEY_NOT_PROVIDED`], [`Failure::VALUE_PROVIDED`], [`Failure::LEASE_PROVIDED`].
pub fn put(message: &PutRequest) -> Result<wire::Put<'_>, Failure> {
    if message.key.is_empty() {
        return Err(Failure::KEY_NOT_PROVIDED);
    }
    if message.ignore_value && !message.value.is_empty() {
        return Err(Failure::VALUE_PROVIDED);
    }
    if message.ignore_lease && message.lease != 0 {
        return Err(Failure::LEASE_PROVIDED);
    }
    Ok(wire::Put {
        lease: message.lease,
        prev_kv: message.prev_kv,
        ignore_value: message.ignore_value,
        ignore_lease: message.ignore_lease,
        ..wire::Put::new(&message.key, &message.value)
    })
}

/// A deletion.
///
/// # Errors
///
/// [`Failure::KEY_NOT_PROVIDED`].
pub fn delete_range(message: &DeleteRangeRequest) -> Result<wire::DeleteRange<'_>, Failure> {
    if message.key.is_empty() {
        return Err(Failure::KEY_NOT_PROVIDED);
    }
    let prev_kv = message.prev_kv;
    Ok(wire::DeleteRange { key: &message.key, range_end: &message.range_end, prev_kv })
}

/// A transaction. Of its compares, its operations and its operations of the other branch there may be
/// `ops_max` each; a transaction inside it gets what it leaves of that, so nests end.
///
/// # Errors
///
/// [`Failure::TOO_MANY_OPS`], [`Failure::KEY_NOT_FOUND`] for an operation with nothing set, those of
/// the operations.
pub fn txn(message: &TxnRequest, ops_max: usize) -> Result<wire::Txn<'_>, Failure> {
    let lists = [message.success.len(), message.failure.len()];
    let ops = lists.into_iter().fold(message.compare.len(), usize::max);
    let rest = ops_max.checked_sub(ops).ok_or(Failure::TOO_MANY_OPS)?;
    if message.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Failure::KEY_NOT_PROVIDED);
    }
    Ok(wire::Txn {
        compares: message.compare.iter().filter_map(compare).collect(),
        success: branch(&message.success, rest)?,
        failure: branch(&message.failure, rest)?,
    })
}

fn branch(list: &[RequestOp], ops_max: usize) -> Result<Vec<wire::Op<'_>>, Failure> {
    let op = |member| op(member, ops_max);
    list.iter().map(op).collect()
}

fn op(message: &RequestOp, ops_max: usize) -> Result<wire::Op<'_>, Failure> {
    match &message.request {
        Some(RequestUnion::Range(message)) => range(message).map(wire::Op::Range),
        Some(RequestUnion::Put(message)) => put(message).map(wire::Op::Put),
        Some(RequestUnion::DeleteRange(message)) => {
            delete_range(message).map(wire::Op::DeleteRange)
        }
        Some(RequestUnion::Txn(message)) => {
            txn(message, ops_max).map(|inner| wire::Op::Txn(Box::new(inner)))
        }
        None => Err(Failure::KEY_NOT_FOUND),
    }
}

/// A condition; none for one that always holds. What is compared with reads as 0, or empty, where the
/// union holds another kind.
fn compare(message: &Compare) -> Option<wire::Compare<'_>> {
    let result = match CompareResult::try_from(message.result) {
        Ok(CompareResult::Equal) => Some(wire::CompareResult::Equal),
        Ok(CompareResult::Greater) => Some(wire::CompareResult::Greater),
        Ok(CompareResult::Less) => Some(wire::CompareResult::Less),
        Ok(CompareResult::NotEqual) => Some(wire::CompareResult::NotEqual),
        Err(_) => None,
    };
    let (target, number) = match (CompareTarget::try_from(message.target), &message.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(number))) => {
            (wire::CompareTarget::Version, *number)
        }
        (Ok(CompareTarget::Version), _) => (wire::CompareTarget::Version, 0),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(number))) => {
            (wire::CompareTarget::CreateRevision, *number)
        }
        (Ok(CompareTarget::Create), _) => (wire::CompareTarget::CreateRevision, 0),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(number))) => {
            (wire::CompareTarget::ModRevision, *number)
        }
        (Ok(CompareTarget::Mod), _) => (wire::CompareTarget::ModRevision, 0),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => {
            (wire::CompareTarget::Lease, *number)
        }
        (Ok(CompareTarget::Lease), _) => (wire::CompareTarget::Lease, 0),
        (Ok(CompareTarget::Value), _) => (wire::CompareTarget::Value, 0),
        (Err(_), _) => return unknown_target(message, result),
    };
    let value: &[u8] = match (target, &message.target_union) {
        (wire::CompareTarget::Value, Some(TargetUnion::Value(value))) => value,
        _ => &[],
    };
    let condition = wire::Compare {
        key: &message.key,
        range_end: &message.range_end,
        target,
        result: wire::CompareResult::Equal,
        number,
        value,
    };
    match result {
        Some(result) => Some(wire::Compare { result, ..condition }),
        // An operator that etcd does not know holds, but the value of what is not there compares false
        // whatever the operator: only the keys' being there is left of the condition.
        None if target == wire::CompareTarget::Value => Some(wire::Compare {
            target: wire::CompareTarget::Version,
            result: wire::CompareResult::Greater,
            number: 0,
            value: &[],
            ..condition
        }),
        None => None,
    }
}

/// A condition on something that etcd does not know: it finds the two sides equal, always.
fn unknown_target(
    message: &Compare,
    result: Option<wire::CompareResult>,
) -> Option<wire::Compare<'_>> {
    match result {
        Some(wire::CompareResult::Equal) | None => None,
        // No version lies below 0: this never holds.
        Some(
            wire::CompareResult::Greater
            | wire::CompareResult::Less
            | wire::CompareResult::NotEqual,
        ) => Some(wire::Compare {
            key: &message.key,
            range_end: &message.range_end,
            target: wire::CompareTarget::Version,
            result: wire::CompareResult::Less,
            number: 0,
            value: &[],
        }),
    }
}

/// Giving up history.
pub fn compact(message: &CompactionRequest) -> wire::Compact {
    wire::Compact { revision: message.revision, physical: message.physical }
}

/// A new lease of at least `ttl_min` seconds.
///
/// # Errors
///
/// [`Failure::LEASE_TTL_TOO_LARGE`].
pub fn lease_grant(message: &LeaseGrantRequest, ttl_min: u32) -> Result<wire::LeaseGrant, Failure> {
    if message.ttl > LEASE_TTL_MAX {
        return Err(Failure::LEASE_TTL_TOO_LARGE);
    }
    let seconds = message.ttl.max(ttl_min.into());
    let seconds = u64::try_from(seconds).expect("at least the minimum, which is not negative");
    Ok(wire::LeaseGrant { lease: message.id, ttl_ms: 1_000 * seconds })
}

/// The end of a lease.
///
/// # Errors
///
/// [`Failure::LEASE_NOT_FOUND`] for the id 0, which no lease has.
pub fn lease_revoke(message: &LeaseRevokeRequest) -> Result<wire::LeaseRevoke, Failure> {
    match message.id {
        0 => Err(Failure::LEASE_NOT_FOUND),
        lease => Ok(wire::LeaseRevoke { lease }),
    }
}

/// Letting a lease begin its time anew.
pub fn lease_keep_alive(message: &LeaseKeepAliveRequest) -> wire::LeaseKeepAlive<'_> {
    wire::LeaseKeepAlive { leases: Numbers::Given(core::slice::from_ref(&message.id)) }
}

/// A question for a lease's time, and for its keys behind `after_key`: answers with many keys say that
/// more follow, and are asked for again.
pub fn lease_time_to_live<'a>(
    message: &LeaseTimeToLiveRequest,
    after_key: &'a [u8],
) -> wire::LeaseTimeToLive<'a> {
    wire::LeaseTimeToLive { lease: message.id, keys: message.keys, after_key, limit: 0 }
}

/// A question for the leases behind `after_lease`; 0: all. Answers with many leases say that more
/// follow, and are asked for again.
pub fn leases(after_lease: i64) -> wire::LeaseList {
    wire::LeaseList { after_lease, limit: 0 }
}

/// A new member, which natively needs a name from the beginning.
///
/// # Errors
///
/// [`Failure::BAD_MEMBER_URLS`].
pub fn member_add<'a>(
    message: &'a MemberAddRequest,
    name: &'a str,
) -> Result<wire::MemberChange<'a>, Failure> {
    let operation = match message.is_learner {
        true => MemberOperation::AddLearner,
        false => MemberOperation::Add,
    };
    let peer_address = one_address(&message.peer_urls)?;
    Ok(wire::MemberChange { operation, name, peer_address, ..wire::MemberChange::default() })
}

/// The removal of a member.
pub fn member_remove(message: &MemberRemoveRequest) -> wire::MemberChange<'static> {
    let (operation, member) = (MemberOperation::Remove, NodeId::new(message.id));
    wire::MemberChange { operation, member, ..wire::MemberChange::default() }
}

/// Another address of a member.
///
/// # Errors
///
/// [`Failure::BAD_MEMBER_URLS`].
pub fn member_update(message: &MemberUpdateRequest) -> Result<wire::MemberChange<'_>, Failure> {
    let (operation, member) = (MemberOperation::Update, NodeId::new(message.id));
    let peer_address = one_address(&message.peer_urls)?;
    Ok(wire::MemberChange { operation, member, peer_address, ..wire::MemberChange::default() })
}

/// A vote for a learner.
pub fn member_promote(message: &MemberPromoteRequest) -> wire::MemberChange<'static> {
    let (operation, member) = (MemberOperation::Promote, NodeId::new(message.id));
    wire::MemberChange { operation, member, ..wire::MemberChange::default() }
}

/// The address in a list of one URL: a native member has one address.
fn one_address(urls: &[String]) -> Result<&str, Failure> {
    let [url] = urls else { return Err(Failure::BAD_MEMBER_URLS) };
    let stripped = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let address = stripped.ok_or(Failure::BAD_MEMBER_URLS)?;
    let (host, port) = address.rsplit_once(':').ok_or(Failure::BAD_MEMBER_URLS)?;
    let fits = !host.is_empty() && port.parse::<u16>().is_ok() && wire::is_member_address(address);
    if fits && !host.contains('/') { Ok(address) } else { Err(Failure::BAD_MEMBER_URLS) }
}

/// Handing leadership over.
///
/// # Errors
///
/// [`Failure::BAD_TRANSFEREE`] for the id 0, which no member has and natively leaves the choice to the
/// server.
pub fn move_leader(message: &MoveLeaderRequest) -> Result<wire::MoveLeader, Failure> {
    match message.target_id {
        0 => Err(Failure::BAD_TRANSFEREE),
        target => Ok(wire::MoveLeader { target: NodeId::new(target) }),
    }
}

/// What is asked about alarms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlarmAsk {
    /// Which are up, of this kind; none: of all kinds.
    List(Option<AlarmKind>),
    /// To raise or disarm some.
    Change(AlarmChange),
    /// To raise or disarm those of no kind, which does nothing.
    Nothing,
}

/// What is asked about which alarms. Whose are listed is not, as in etcd.
///
/// # Errors
///
/// [`Code::InvalidArgument`] for an action or an alarm that does not exist.
pub fn alarm(message: &AlarmRequest) -> Result<AlarmAsk, Failure> {
    let unknown = |what, number| {
        let text = format!("etcdserver: there is no alarm {what} {number}");
        Failure::new(Code::InvalidArgument, text)
    };
    let action = AlarmAction::try_from(message.action);
    let action = action.map_err(|_| unknown("action", message.action))?;
    let alarm = AlarmType::try_from(message.alarm);
    let kind = match alarm.map_err(|_| unknown("type", message.alarm))? {
        AlarmType::None => None,
        AlarmType::NoSpace => Some(AlarmKind::NoSpace),
        AlarmType::Corrupt => Some(AlarmKind::Corrupt),
    };
    let member = NodeId::new(message.member_id);
    Ok(match (action, kind) {
        (AlarmAction::Get, kind) => AlarmAsk::List(kind),
        (AlarmAction::Activate | AlarmAction::Deactivate, None) => AlarmAsk::Nothing,
        (AlarmAction::Activate, Some(kind)) => {
            AlarmAsk::Change(AlarmChange { disarm: false, kind, member })
        }
        (AlarmAction::Deactivate, Some(kind)) => {
            AlarmAsk::Change(AlarmChange { disarm: true, kind, member })
        }
    })
}

/// Whether etcd would go back to this version, of two or three numbers: it must be the one before.
///
/// # Errors
/// It would not.
pub fn downgrade_target(text: &str) -> Result<(), Failure> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.split('.').count();
    if !(2..=3).contains(&count) || !text.split('.').all(is_number) {
        return Err(Failure::WRONG_DOWNGRADE_VERSION_FORMAT);
    }
    let numbers = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
        Some((parts.next()??, parts.next()??))
    };
    let before = numbers(CLUSTER_VERSION).map(|(major, minor)| (major, minor - 1));
    if numbers(text) == before { Ok(()) } else { Err(Failure::INVALID_DOWNGRADE_VERSION) }
}

/// A lease as the keys of locks and elections name it: in hexadecimal, a negative one with its sign.
pub fn hexadecimal(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

/// Why a watch is not begun. It is told so in a response that says created and canceled at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WatchRefusal {
    /// The range has no key.
    EmptyRange,
    /// The stream has a watch with this id.
    DuplicateId,
    /// Revisions are not negative.
    NegativeRevision,
}

impl WatchRefusal {
    /// etcd's text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::EmptyRange => "mvcc: watcher range is empty",
            Self::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
            Self::NegativeRevision => "etcdserver: mvcc: required revision has been compacted",
        }
    }
}

/// The range of a watch.
///
/// # Errors
///
/// [`WatchRefusal::EmptyRange`], [`WatchRefusal::NegativeRevision`].
pub fn watch_range(message: &WatchCreateRequest) -> Result<wire::WatchRange<'_>, WatchRefusal> {
    if message.start_revision < 0 {
        return Err(WatchRefusal::NegativeRevision);
    }
    let key: &[u8] = if message.key.is_empty() { &[0] } else { &message.key };
    let range_end: &[u8] = &message.range_end;
    if !matches!(range_end, [] | [0]) && range_end <= key {
        return Err(WatchRefusal::EmptyRange);
    }
    Ok(wire::WatchRange { key, range_end })
}

/// A watch of `ranges`, made by [`watch_range`]. It tells its progress after that many milliseconds of
/// silence if the client asked for that.
pub fn watch<'a>(
    message: &WatchCreateRequest,
    ranges: &'a [wire::WatchRange<'a>],
    progress_interval_ms: u32,
) -> wire::Watch<'a> {
    let has = |filter: FilterType| message.filters.contains(&filter.into());
    wire::Watch {
        ranges: wire::WatchRanges::Given(ranges),
        start_revision: message.start_revision,
        start_sub: 0,
        prev_kv: message.prev_kv,
        keys_only: false,
        no_put: has(FilterType::NoPut),
        no_delete: has(FilterType::NoDelete),
        progress_interval_ms: if message.progress_notify { progress_interval_ms } else { 0 },
    }
}
