//! A write as etcd's log holds it: `InternalRaftRequest` of etcd's `raft_internal.proto`.
//!
//! Programs that check histories read etcd's log with these messages; ours is shown to them in the same form.

use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;
use wire::{OpView, Request, TxnView};

use crate::proto::kv::{
    CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, RequestOp, RequestUnion, SortOrder, SortTarget, TargetUnion, TxnRequest,
};
use crate::proto::lease::{LeaseGrantRequest, LeaseRevokeRequest};
use crate::proto::maintenance::{AlarmAction, AlarmRequest};

/// Who asked: here only the number of the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct RequestHeader {
    /// The number of the request.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct InternalRaftRequest {
    /// Who asked.
    #[prost(message, optional, tag = "100")]
    pub header: Option<RequestHeader>,
    /// Writes one key.
    #[prost(message, optional, tag = "4")]
    pub put: Option<PutRequest>,
    /// Deletes a range of keys.
    #[prost(message, optional, tag = "5")]
    pub delete_range: Option<DeleteRangeRequest>,
    /// A transaction.
    #[prost(message, optional, tag = "6")]
    pub txn: Option<TxnRequest>,
    /// Gives up history.
    #[prost(message, optional, tag = "7")]
    pub compaction: Option<CompactionRequest>,
    /// Makes a lease.
    #[prost(message, optional, tag = "8")]
    pub lease_grant: Option<LeaseGrantRequest>,
    /// Ends a lease.
    #[prost(message, optional, tag = "9")]
    pub lease_revoke: Option<LeaseRevokeRequest>,
    /// Raises or disarms alarms.
    #[prost(message, optional, tag = "10")]
    pub alarm: Option<AlarmRequest>,
}

/// The data of an entry with log index `index`; empty for a request that etcd does not have in its log.
/// `chosen` is the id of a lease whose client has left the choice to the server.
pub fn data(index: u64, request: &Request<'_>, chosen: i64) -> Vec<u8> {
    let header = Some(RequestHeader { id: index });
    let empty = InternalRaftRequest { header, ..InternalRaftRequest::default() };
    let entry = match request {
        Request::Put(view) => InternalRaftRequest { put: Some(put(view)), ..empty },
        Request::DeleteRange(view) => {
            InternalRaftRequest { delete_range: Some(delete_range(view)), ..empty }
        }
        Request::Txn(view) => InternalRaftRequest { txn: Some(txn(view)), ..empty },
        Request::Compact(view) => {
            let (revision, physical) = (view.revision, view.physical);
            let compaction = Some(CompactionRequest { revision, physical });
            InternalRaftRequest { compaction, ..empty }
        }
        Request::LeaseGrant(grant) => {
            let id = if grant.lease == 0 { chosen } else { grant.lease };
            let ttl = i64::try_from(grant.ttl_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
            let lease_grant = Some(LeaseGrantRequest { ttl, id });
            InternalRaftRequest { lease_grant, ..empty }
        }
        Request::LeaseRevoke(revoke) => return lease_revoke(index, revoke.lease),
        Request::Alarm(change) => {
            let action =
                if change.disarm { AlarmAction::Deactivate } else { AlarmAction::Activate };
            let (action, member_id) = (action.into(), change.member.get());
            let alarm = AlarmRequest { action, member_id, alarm: change.kind.number().into() };
            InternalRaftRequest { alarm: Some(alarm), ..empty }
        }
        _ => return Vec::new(),
    };
    entry.encode_to_vec()
}

/// The data of an entry that ends a lease, by request or because its time is up.
pub fn lease_revoke(index: u64, id: i64) -> Vec<u8> {
    let entry = InternalRaftRequest {
        header: Some(RequestHeader { id: index }),
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..InternalRaftRequest::default()
    };
    entry.encode_to_vec()
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn put(view: &wire::Put<'_>) -> PutRequest {
    PutRequest {
        key: bytes(view.key),
        value: bytes(view.value),
        lease: view.lease,
        prev_kv: view.prev_kv,
        ignore_value: view.ignore_value,
        ignore_lease: view.ignore_lease,
    }
}

fn delete_range(view: &wire::DeleteRange<'_>) -> DeleteRangeRequest {
    let prev_kv = view.prev_kv;
    DeleteRangeRequest { key: bytes(view.key), range_end: bytes(view.range_end), prev_kv }
}

fn range(view: &wire::Range<'_>) -> RangeRequest {
    let sort_order = match view.sort_order {
        wire::SortOrder::None => SortOrder::None,
        wire::SortOrder::Ascend => SortOrder::Ascend,
        wire::SortOrder::Descend => SortOrder::Descend,
    };
    let sort_target = match view.sort_target {
        wire::SortTarget::Key => SortTarget::Key,
        wire::SortTarget::Version => SortTarget::Version,
        wire::SortTarget::CreateRevision => SortTarget::Create,
        wire::SortTarget::ModRevision => SortTarget::Mod,
        wire::SortTarget::Value => SortTarget::Value,
    };
    RangeRequest {
        key: bytes(view.key),
        range_end: bytes(view.range_end),
        limit: view.limit,
        revision: view.revision,
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable: view.serializable,
        keys_only: view.keys_only,
        count_only: view.count_only,
        min_mod_revision: view.min_mod_revision,
        max_mod_revision: view.max_mod_revision,
        min_create_revision: view.min_create_revision,
        max_create_revision: view.max_create_revision,
    }
}

fn txn(view: &TxnView<'_>) -> TxnRequest {
    TxnRequest {
        compare: view.compares().map(|view| compare(&view)).collect(),
        success: view.success().map(|view| op(&view)).collect(),
        failure: view.failure().map(|view| op(&view)).collect(),
    }
}

/// Nests no deeper than a verified request does.
fn op(view: &OpView<'_>) -> RequestOp {
    let request = match view {
        OpView::Put(view) => RequestUnion::Put(put(view)),
        OpView::Range(view) => RequestUnion::Range(range(view)),
        OpView::DeleteRange(view) => RequestUnion::DeleteRange(delete_range(view)),
        OpView::Txn(view) => RequestUnion::Txn(txn(view)),
    };
    RequestOp { request: Some(request) }
}

fn compare(view: &wire::Compare<'_>) -> Compare {
    let result = match view.result {
        wire::CompareResult::Equal => CompareResult::Equal,
        wire::CompareResult::Greater => CompareResult::Greater,
        wire::CompareResult::Less => CompareResult::Less,
        wire::CompareResult::NotEqual => CompareResult::NotEqual,
    };
    let number = view.number;
    let (target, union) = match view.target {
        wire::CompareTarget::Version => (CompareTarget::Version, TargetUnion::Version(number)),
        wire::CompareTarget::CreateRevision => {
            (CompareTarget::Create, TargetUnion::CreateRevision(number))
        }
        wire::CompareTarget::ModRevision => (CompareTarget::Mod, TargetUnion::ModRevision(number)),
        wire::CompareTarget::Value => (CompareTarget::Value, TargetUnion::Value(bytes(view.value))),
        wire::CompareTarget::Lease => (CompareTarget::Lease, TargetUnion::Lease(number)),
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: bytes(view.key),
        target_union: Some(union),
        range_end: bytes(view.range_end),
    }
}
