//! Upkeep: the Maintenance service of `etcdserverpb`.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::kv::ResponseHeader;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmType {
    /// Nothing; in a question: anything.
    None = 0,
    /// There is no room for writes.
    NoSpace = 1,
    /// Members disagree about the state.
    Corrupt = 2,
}

/// What is to be done about alarms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmAction {
    /// Tell them.
    Get = 0,
    /// Raise one.
    Activate = 1,
    /// Take one back.
    Deactivate = 2,
}

/// Tells, raises or takes back alarms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AlarmRequest {
    /// What is to be done.
    #[prost(enumeration = "AlarmAction", tag = "1")]
    pub action: i32,
    /// Whose; 0, when they are taken back: every member's.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// Which.
    #[prost(enumeration = "AlarmType", tag = "3")]
    pub alarm: i32,
}

/// An alarm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AlarmMember {
    /// Whose.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// What is wrong.
    #[prost(enumeration = "AlarmType", tag = "2")]
    pub alarm: i32,
}

/// Alarms.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AlarmResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Those that the request was about.
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<AlarmMember>,
}

/// Asks for the state of the member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct StatusRequest {}

/// The state of the member.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct StatusResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The version that the member answers for.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Bytes of the page file.
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    /// The leader; 0: none known.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    /// Index of the last committed entry.
    #[prost(uint64, tag = "5")]
    pub raft_index: u64,
    /// The term.
    #[prost(uint64, tag = "6")]
    pub raft_term: u64,
    /// Index of the last applied entry.
    #[prost(uint64, tag = "7")]
    pub raft_applied_index: u64,
    /// What an operator should look at.
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    /// Bytes of the page file that hold something.
    #[prost(int64, tag = "9")]
    pub db_size_in_use: i64,
    /// The member has no vote.
    #[prost(bool, tag = "10")]
    pub is_learner: bool,
    /// The version of what is stored.
    #[prost(string, tag = "11")]
    pub storage_version: String,
    /// Bytes that the page file may grow to.
    #[prost(int64, tag = "12")]
    pub db_size_quota: i64,
    /// Whether the cluster is on its way to an older version.
    #[prost(message, optional, tag = "13")]
    pub downgrade_info: Option<DowngradeInfo>,
}

/// A way to an older version.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DowngradeInfo {
    /// It is under way.
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    /// The version.
    #[prost(string, tag = "2")]
    pub target_version: String,
}

/// Gives free space back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct DefragmentRequest {}

/// Free space was given back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct DefragmentResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Asks for a hash of all that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct HashRequest {}

/// A hash of all that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct HashResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The hash.
    #[prost(uint32, tag = "2")]
    pub hash: u32,
}

/// Asks for a hash of the keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct HashKvRequest {
    /// Up to this revision; 0: the newest.
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// A hash of the keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct HashKvResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The hash.
    #[prost(uint32, tag = "2")]
    pub hash: u32,
    /// The compacted revision.
    #[prost(int64, tag = "3")]
    pub compact_revision: i64,
    /// The revision that the hash is of.
    #[prost(int64, tag = "4")]
    pub hash_revision: i64,
}

/// Asks for the whole state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct SnapshotRequest {}

/// A part of the whole state.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SnapshotResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Bytes that follow this part.
    #[prost(uint64, tag = "2")]
    pub remaining_bytes: u64,
    /// The bytes of this part.
    #[prost(bytes = "bytes", tag = "3")]
    pub blob: Bytes,
    /// The version that wrote them.
    #[prost(string, tag = "4")]
    pub version: String,
}

/// Hands leadership to another member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct MoveLeaderRequest {
    /// To whom.
    #[prost(uint64, tag = "1")]
    pub target_id: u64,
}

/// Leadership was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct MoveLeaderResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// What is to be done about a downgrade.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum DowngradeAction {
    /// Tell whether it could be done.
    Validate = 0,
    /// Begin it.
    Enable = 1,
    /// Give it up.
    Cancel = 2,
}

/// Takes the cluster to an older version.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DowngradeRequest {
    /// What is to be done.
    #[prost(enumeration = "DowngradeAction", tag = "1")]
    pub action: i32,
    /// Which version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// The downgrade was validated, begun or given up.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DowngradeResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The version of the cluster.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A mark that etcd's own tests write.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DowngradeVersionTestRequest {
    /// A version.
    #[prost(string, tag = "1")]
    pub ver: String,
}
