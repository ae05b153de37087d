//! Keys: `mvccpb` and the KV service of `etcdserverpb`.

use alloc::vec::Vec;

use bytes::Bytes;

/// Who answers, and at which revision.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ResponseHeader {
    /// The cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The answering member.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The newest revision.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    /// The term of the answering member.
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

/// A key and what belongs to it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The revision of its creation.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The revision of its last put.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// How often it was put since its creation.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// Its lease; 0: none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// What an event did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// It wrote the key.
    Put = 0,
    /// It deleted the key.
    Delete = 1,
}

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Event {
    /// What it did.
    #[prost(enumeration = "EventType", tag = "1")]
    pub r#type: i32,
    /// The key as it is now; of a delete the key and the revision alone.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    /// The key as it was, if that was asked for.
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

/// In which order a range is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// By key.
    None = 0,
    /// Smallest first.
    Ascend = 1,
    /// Greatest first.
    Descend = 2,
}

/// What a range is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// The key.
    Key = 0,
    /// How often the key was put.
    Version = 1,
    /// The revision of its creation.
    Create = 2,
    /// The revision of its last put.
    Mod = 3,
    /// The value.
    Value = 4,
}

/// Reads a range of keys.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RangeRequest {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Exclusive end; empty: `key` alone; a zero byte: all keys from `key` on.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Greatest number of keys in the answer; 0 or less: all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The revision to read at; 0 or less: the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// The order of the answer.
    #[prost(enumeration = "SortOrder", tag = "5")]
    pub sort_order: i32,
    /// What the order goes by.
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// Answer from the member's own state, which may be old.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    /// Leave values out.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    /// Leave keys out.
    #[prost(bool, tag = "9")]
    pub count_only: bool,
    /// Only keys last put at this revision or later; 0: off.
    #[prost(int64, tag = "10")]
    pub min_mod_revision: i64,
    /// Only keys last put at this revision or earlier; 0: off.
    #[prost(int64, tag = "11")]
    pub max_mod_revision: i64,
    /// Only keys created at this revision or later; 0: off.
    #[prost(int64, tag = "12")]
    pub min_create_revision: i64,
    /// Only keys created at this revision or earlier; 0: off.
    #[prost(int64, tag = "13")]
    pub max_create_revision: i64,
}

/// The keys of a range.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RangeResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The keys.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// The limit cut keys off.
    #[prost(bool, tag = "3")]
    pub more: bool,
    /// Keys in the range, limit and bounds ignored.
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// A part of the keys of a range; all parts merged are the whole answer.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RangeStreamResponse {
    /// The part.
    #[prost(message, optional, tag = "1")]
    pub range_response: Option<RangeResponse>,
}

/// Writes one key.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value; empty with `ignore_value`.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// The lease that the key is attached to; 0: none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// The answer shall hold the key as it was before.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// Keep the value.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// Keep the lease.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// A key was written.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PutResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The key as it was before, if that was asked for and it existed.
    #[prost(message, optional, tag = "2")]
    pub prev_kv: Option<KeyValue>,
}

/// Deletes a range of keys.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DeleteRangeRequest {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Exclusive end, as in a range.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// The answer shall hold the keys as they were.
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

/// Keys were deleted.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DeleteRangeResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// How many.
    #[prost(int64, tag = "2")]
    pub deleted: i64,
    /// The keys as they were, if that was asked for.
    #[prost(message, repeated, tag = "3")]
    pub prev_kvs: Vec<KeyValue>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum RequestUnion {
    /// Reads a range of keys.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Writes one key.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Deletes a range of keys.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    /// A transaction inside the transaction.
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

/// One operation of a transaction, or none.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RequestOp {
    /// The operation.
    #[prost(oneof = "RequestUnion", tags = "1,2,3,4")]
    pub request: Option<RequestUnion>,
}

/// The answer to one operation of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum ResponseUnion {
    /// The keys of a range.
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// A key was written.
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// Keys were deleted.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    /// A transaction inside the transaction was done.
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

/// The answer to one operation of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ResponseOp {
    /// The answer.
    #[prost(oneof = "ResponseUnion", tags = "1,2,3,4")]
    pub response: Option<ResponseUnion>,
}

/// How the key's side must compare with the given one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// Equal.
    Equal = 0,
    /// Greater than the given one.
    Greater = 1,
    /// Less than the given one.
    Less = 2,
    /// Not equal.
    NotEqual = 3,
}

/// What of a key a compare looks at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    /// How often the key was put.
    Version = 0,
    /// The revision of its creation.
    Create = 1,
    /// The revision of its last put.
    Mod = 2,
    /// The value.
    Value = 3,
    /// The lease.
    Lease = 4,
}

/// What a key is compared with.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum TargetUnion {
    /// A number of puts.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// The revision of a creation.
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    /// The revision of a put.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    /// A value.
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// A lease.
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// One condition of a transaction.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Compare {
    /// How it must compare.
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub result: i32,
    /// What of the key is compared.
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub target: i32,
    /// First key.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// What it is compared with.
    #[prost(oneof = "TargetUnion", tags = "4,5,6,7,8")]
    pub target_union: Option<TargetUnion>,
    /// Exclusive end, as in a range: the condition must hold for every key there.
    #[prost(bytes = "bytes", tag = "64")]
    pub range_end: Bytes,
}

/// Compares, then does one of two lists of operations.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TxnRequest {
    /// The conditions, all of which must hold.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What is done if they do.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What is done if they do not.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// A transaction was done.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TxnResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the conditions held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// The answers to the operations that were done, in their order.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// Gives up history.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct CompactionRequest {
    /// Reads below this revision are refused from then on.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Answer only when the space has been given back.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

/// History was given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct CompactionResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}
