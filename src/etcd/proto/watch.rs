//! Watches: the Watch service of `etcdserverpb`.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::kv::{Event, ResponseHeader};

/// What a client says on a stream of watches.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum WatchUnion {
    /// Begin a watch.
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    /// End a watch.
    #[prost(message, tag = "2")]
    Cancel(WatchCancelRequest),
    /// Tell how far all watches have come.
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

/// What a client says on a stream of watches.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct WatchRequest {
    /// One of three, or something that this release does not know.
    #[prost(oneof = "WatchUnion", tags = "1,2,3")]
    pub request_union: Option<WatchUnion>,
}

/// What a watch leaves out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum FilterType {
    /// Puts.
    NoPut = 0,
    /// Deletes.
    NoDelete = 1,
}

/// Begins a watch.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct WatchCreateRequest {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Exclusive end, as in a range.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// The first revision that is wanted; 0: the next one.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Tell now and then how far the watch has come.
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// What is left out.
    #[prost(enumeration = "FilterType", repeated, tag = "5")]
    pub filters: Vec<i32>,
    /// Events come with what they replaced.
    #[prost(bool, tag = "6")]
    pub prev_kv: bool,
    /// Its id in the stream; 0: the server chooses one.
    #[prost(int64, tag = "7")]
    pub watch_id: i64,
    /// A revision may be split over several responses.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// Ends a watch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct WatchCancelRequest {
    /// Which.
    #[prost(int64, tag = "1")]
    pub watch_id: i64,
}

/// Asks how far all watches of the stream have come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct WatchProgressRequest {}

/// What watches tell.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct WatchResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Which watch; -1: all of the stream.
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    /// It has begun.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// It has ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// What lies before this revision has been given up, which ended the watch.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why it has ended.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// The events go on in the next response.
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    /// What has changed.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}
