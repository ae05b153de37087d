//! Members: the Cluster service of `etcdserverpb`.

use alloc::string::String;
use alloc::vec::Vec;

use super::kv::ResponseHeader;

/// One member.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Member {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What people call it; empty until it has started.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where members reach it.
    #[prost(string, repeated, tag = "3")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    #[prost(string, repeated, tag = "4")]
    pub client_urls: Vec<String>,
    /// It has no vote.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}

/// Adds a member.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberAddRequest {
    /// Where members will reach it.
    #[prost(string, repeated, tag = "1")]
    pub peer_urls: Vec<String>,
    /// It gets no vote.
    #[prost(bool, tag = "2")]
    pub is_learner: bool,
}

/// A member was added.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberAddResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The new one.
    #[prost(message, optional, tag = "2")]
    pub member: Option<Member>,
    /// All.
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<Member>,
}

/// Removes a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberRemoveRequest {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// A member was removed.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberRemoveResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// All that are left.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// Gives a member other addresses.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberUpdateRequest {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Where members will reach it.
    #[prost(string, repeated, tag = "2")]
    pub peer_urls: Vec<String>,
}

/// A member has other addresses.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberUpdateResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// All.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// Asks who the members are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberListRequest {
    /// The answer shall be no older than the request.
    #[prost(bool, tag = "1")]
    pub linearizable: bool,
}

/// Who the members are.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberListResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// All.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// Gives a learner a vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberPromoteRequest {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// A learner has a vote.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MemberPromoteResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// All.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}
