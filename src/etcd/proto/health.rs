//! The standard health service: `grpc.health.v1`.

use alloc::collections::BTreeMap;
use alloc::string::String;

/// Asks whether a service is there.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HealthCheckRequest {
    /// Its name; empty: the server itself.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// Whether a service is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// Not known.
    Unknown = 0,
    /// It is.
    Serving = 1,
    /// It is not.
    NotServing = 2,
    /// There is no service with this name.
    ServiceUnknown = 3,
}

/// Whether a service is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct HealthCheckResponse {
    /// The answer.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// Whether each service is there; asked for by an empty message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthListResponse {
    /// The answers by the names of services.
    #[prost(btree_map = "string, message", tag = "1")]
    pub statuses: BTreeMap<String, HealthCheckResponse>,
}
