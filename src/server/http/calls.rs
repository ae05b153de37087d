//! The methods of etcd's API, and the counting of their calls: over gRPC and as JSON alike, as etcd counts them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use etcd::{Code, Failure};

use super::Gate;
use crate::counters::Counters;

/// Codes of gRPC, 0 to 16.
pub const CODES: usize = 17;

/// The names of the codes, in their order, as gRPC's own counters write them.
pub const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How many messages a method takes and gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One each way.
    Unary,
    /// One, and many back.
    ServerStream,
    /// Many each way.
    BidiStream,
}

impl Shape {
    /// As gRPC's own counters write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A method: service, name, shape. Those that are called most come first.
pub const METHODS: &[(&str, &str, Shape)] = &[
    ("etcdserverpb.KV", "Range", Shape::Unary),
    ("etcdserverpb.KV", "Put", Shape::Unary),
    ("etcdserverpb.KV", "Txn", Shape::Unary),
    ("etcdserverpb.KV", "DeleteRange", Shape::Unary),
    ("etcdserverpb.KV", "Compact", Shape::Unary),
    ("etcdserverpb.KV", "RangeStream", Shape::ServerStream),
    ("etcdserverpb.Watch", "Watch", Shape::BidiStream),
    ("etcdserverpb.Lease", "LeaseKeepAlive", Shape::BidiStream),
    ("etcdserverpb.Lease", "LeaseGrant", Shape::Unary),
    ("etcdserverpb.Lease", "LeaseRevoke", Shape::Unary),
    ("etcdserverpb.Lease", "LeaseTimeToLive", Shape::Unary),
    ("etcdserverpb.Lease", "LeaseLeases", Shape::Unary),
    ("etcdserverpb.Cluster", "MemberList", Shape::Unary),
    ("etcdserverpb.Cluster", "MemberAdd", Shape::Unary),
    ("etcdserverpb.Cluster", "MemberRemove", Shape::Unary),
    ("etcdserverpb.Cluster", "MemberUpdate", Shape::Unary),
    ("etcdserverpb.Cluster", "MemberPromote", Shape::Unary),
    ("etcdserverpb.Maintenance", "Status", Shape::Unary),
    ("etcdserverpb.Maintenance", "Snapshot", Shape::ServerStream),
    ("etcdserverpb.Maintenance", "Alarm", Shape::Unary),
    ("etcdserverpb.Maintenance", "Defragment", Shape::Unary),
    ("etcdserverpb.Maintenance", "Hash", Shape::Unary),
    ("etcdserverpb.Maintenance", "HashKV", Shape::Unary),
    ("etcdserverpb.Maintenance", "MoveLeader", Shape::Unary),
    ("etcdserverpb.Maintenance", "Downgrade", Shape::Unary),
    ("etcdserverpb.Auth", "AuthStatus", Shape::Unary),
    ("etcdserverpb.Auth", "Authenticate", Shape::Unary),
    ("v3lockpb.Lock", "Lock", Shape::Unary),
    ("v3lockpb.Lock", "Unlock", Shape::Unary),
    ("v3electionpb.Election", "Campaign", Shape::Unary),
    ("v3electionpb.Election", "Proclaim", Shape::Unary),
    ("v3electionpb.Election", "Leader", Shape::Unary),
    ("v3electionpb.Election", "Observe", Shape::ServerStream),
    ("v3electionpb.Election", "Resign", Shape::Unary),
    ("grpc.health.v1.Health", "Check", Shape::Unary),
    ("grpc.health.v1.Health", "List", Shape::Unary),
    ("grpc.health.v1.Health", "Watch", Shape::ServerStream),
];

/// The place of a method in the list, by the path of its calls.
pub fn place(path: &str) -> Option<usize> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    METHODS.iter().position(|method| method.1 == name && method.0 == service)
}

/// A call that is counted. One that ends without a word was given up by its client.
pub struct Counted {
    counters: Arc<Counters>,
    /// Its method; none: no method that is counted.
    place: Option<usize>,
    begun: Instant,
    ended: bool,
}

impl Counted {
    /// A call of the method at this path begins.
    pub fn begin(gate: &Rc<Gate>, path: &str) -> Self {
        let counters = Arc::clone(&gate.counters);
        let place = place(path);
        if let Some(place) = place {
            counters.methods[place].started.add(1);
        }
        Self { counters, place, begun: Instant::now(), ended: false }
    }

    /// The client has sent a message of this size.
    pub fn received(&self, size: usize) {
        self.counters.grpc_received_bytes.add(size as u64);
        if let Some(place) = self.place {
            self.counters.methods[place].received.add(1);
        }
    }

    /// It was sent one.
    pub fn sent(&self, size: usize) {
        self.counters.grpc_sent_bytes.add(size as u64);
        if let Some(place) = self.place {
            self.counters.methods[place].sent.add(1);
        }
    }

    /// It is over.
    pub fn end<T>(&mut self, end: &Result<T, Failure>) {
        let code = end.as_ref().err().map_or(Code::Ok, |failure| failure.code);
        self.end_with(code);
    }

    fn end_with(&mut self, code: Code) {
        self.ended = true;
        let Some(place) = self.place else { return };
        let method = &self.counters.methods[place];
        if let Some(count) =
            usize::try_from(code as u32).ok().and_then(|code| method.handled.get(code))
        {
            count.add(1);
        }
        method.times.record_since(self.begun);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.ended {
            self.end_with(Code::Canceled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_their_paths() {
        for (at, (service, name, shape)) in METHODS.iter().enumerate() {
            let path = format!("/{service}/{name}");
            assert_eq!(place(&path), Some(at));
            let is_one = etcd::shapes::is_method(&path);
            assert!(!is_one || *shape == Shape::Unary, "{path}");
        }
        assert_eq!(place("/etcdserverpb.KV/Nothing"), None);
        assert_eq!(CODE_NAMES[Code::Unavailable as usize], "Unavailable");
        assert_eq!(CODE_NAMES[Code::Unauthenticated as usize], "Unauthenticated");
    }
}
