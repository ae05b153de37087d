//! Leases: the Lease service of `etcdserverpb`.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::kv::ResponseHeader;

/// Makes a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseGrantRequest {
    /// Seconds that it lives without being kept alive.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    /// Its id; 0: the server chooses one.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// A lease was made.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseGrantResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Its id.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// Seconds that it lives.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// Never set.
    #[prost(string, tag = "4")]
    pub error: String,
}

/// Ends a lease, and the keys that hang on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseRevokeRequest {
    /// Which.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A lease was ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseRevokeResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Lets a lease begin its time anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseKeepAliveRequest {
    /// Which.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A lease begins its time anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseKeepAliveResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Which.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// Seconds that it lives from now on; 0: there is none.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Asks for a lease's time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseTimeToLiveRequest {
    /// Which.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Also the keys that hang on it.
    #[prost(bool, tag = "2")]
    pub keys: bool,
}

/// A lease's time.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseTimeToLiveResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Which.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// Seconds that it has left; -1: there is none.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// Seconds that it was granted.
    #[prost(int64, tag = "4")]
    pub granted_ttl: i64,
    /// The keys that hang on it.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub keys: Vec<Bytes>,
}

/// Asks for the leases that there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseLeasesRequest {}

/// One lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseStatus {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// The leases that there are.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LeaseLeasesResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Each.
    #[prost(message, repeated, tag = "2")]
    pub leases: Vec<LeaseStatus>,
}
