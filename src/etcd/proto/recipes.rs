//! Locks and elections: `v3lockpb` and `v3electionpb`.

use bytes::Bytes;

use super::kv::{KeyValue, ResponseHeader};

/// Waits for a lock.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LockRequest {
    /// The lock.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The lease that holds it; 0: the server makes one.
    #[prost(int64, tag = "2")]
    pub lease: i64,
}

/// The lock is held.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LockResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The key that stands for holding it.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
}

/// Gives a lock back.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct UnlockRequest {
    /// The key that stood for holding it.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
}

/// The lock was given back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct UnlockResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// What stands for leading.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaderKey {
    /// The election.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The key of the leader.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// The revision of its creation.
    #[prost(int64, tag = "3")]
    pub rev: i64,
    /// Its lease.
    #[prost(int64, tag = "4")]
    pub lease: i64,
}

/// Waits to be elected.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CampaignRequest {
    /// The election.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The lease that holds the candidacy; 0: the server makes one.
    #[prost(int64, tag = "2")]
    pub lease: i64,
    /// What is proclaimed when it is won.
    #[prost(bytes = "bytes", tag = "3")]
    pub value: Bytes,
}

/// The election is won.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CampaignResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// What stands for leading.
    #[prost(message, optional, tag = "2")]
    pub leader: Option<LeaderKey>,
}

/// Proclaims another value.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ProclaimRequest {
    /// What stands for leading.
    #[prost(message, optional, tag = "1")]
    pub leader: Option<LeaderKey>,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Another value was proclaimed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ProclaimResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Asks who leads.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaderRequest {
    /// The election.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
}

/// Who leads.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaderResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The key of the leader, with what it proclaims.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// Gives leadership up.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ResignRequest {
    /// What stands for leading.
    #[prost(message, optional, tag = "1")]
    pub leader: Option<LeaderKey>,
}

/// Leadership was given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ResignResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}
