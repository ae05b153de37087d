//! What etcd's messages look like to those who write them as JSON: field numbers, names, kinds; and which
//! message each path of the gateway takes and gives.

use Kind::{Bool, Bytes, Enum, Int64, Message, Text, Uint32, Uint64};

/// What a field holds.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string in JSON: 64 bits do not fit its numbers.
    Int64,
    /// The same without sign.
    Uint64,
    /// A number.
    Uint32,
    /// true or false.
    Bool,
    /// Base64.
    Bytes,
    /// A string.
    Text,
    /// By name; by number too when it is read.
    Enum(&'static [&'static str]),
    /// An object.
    Message(&'static Shape),
}

/// A field of a message.
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// A list of it.
    pub is_list: bool,
    /// One of those of which a message has only one.
    pub is_choice: bool,
}

/// A message: its fields, in the order of their numbers.
pub struct Shape(pub &'static [Field]);

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false, is_choice: false }
}

/// One of those of which a message has only one.
const fn choice(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false, is_choice: true }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: true, is_choice: false }
}

static EMPTY: Shape = Shape(&[]);
static HEADER: Shape = Shape(&[
    one(1, "cluster_id", Uint64),
    one(2, "member_id", Uint64),
    one(3, "revision", Int64),
    one(4, "raft_term", Uint64),
]);
/// An answer that says no more than who gives it.
static HEADER_ONLY: Shape = Shape(&[one(1, "header", Message(&HEADER))]);
static KEY_VALUE: Shape = Shape(&[
    one(1, "key", Bytes),
    one(2, "create_revision", Int64),
    one(3, "mod_revision", Int64),
    one(4, "version", Int64),
    one(5, "value", Bytes),
    one(6, "lease", Int64),
]);
static EVENT: Shape = Shape(&[
    one(1, "type", Enum(&["PUT", "DELETE"])),
    one(2, "kv", Message(&KEY_VALUE)),
    one(3, "prev_kv", Message(&KEY_VALUE)),
]);
static RANGE: Shape = Shape(&[
    one(1, "key", Bytes),
    one(2, "range_end", Bytes),
    one(3, "limit", Int64),
    one(4, "revision", Int64),
    one(5, "sort_order", Enum(&["NONE", "ASCEND", "DESCEND"])),
    one(6, "sort_target", Enum(&["KEY", "VERSION", "CREATE", "MOD", "VALUE"])),
    one(7, "serializable", Bool),
    one(8, "keys_only", Bool),
    one(9, "count_only", Bool),
    one(10, "min_mod_revision", Int64),
    one(11, "max_mod_revision", Int64),
    one(12, "min_create_revision", Int64),
    one(13, "max_create_revision", Int64),
]);
static RANGE_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    list(2, "kvs", Message(&KEY_VALUE)),
    one(3, "more", Bool),
    one(4, "count", Int64),
]);
static PUT: Shape = Shape(&[
    one(1, "key", Bytes),
    one(2, "value", Bytes),
    one(3, "lease", Int64),
    one(4, "prev_kv", Bool),
    one(5, "ignore_value", Bool),
    one(6, "ignore_lease", Bool),
]);
static PUT_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), one(2, "prev_kv", Message(&KEY_VALUE))]);
static DELETE_RANGE: Shape =
    Shape(&[one(1, "key", Bytes), one(2, "range_end", Bytes), one(3, "prev_kv", Bool)]);
static DELETE_RANGE_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "deleted", Int64),
    list(3, "prev_kvs", Message(&KEY_VALUE)),
]);
static COMPARE: Shape = Shape(&[
    one(1, "result", Enum(&["EQUAL", "GREATER", "LESS", "NOT_EQUAL"])),
    one(2, "target", Enum(&["VERSION", "CREATE", "MOD", "VALUE", "LEASE"])),
    one(3, "key", Bytes),
    choice(4, "version", Int64),
    choice(5, "create_revision", Int64),
    choice(6, "mod_revision", Int64),
    choice(7, "value", Bytes),
    choice(8, "lease", Int64),
    one(64, "range_end", Bytes),
]);
static OPERATION: Shape = Shape(&[
    choice(1, "request_range", Message(&RANGE)),
    choice(2, "request_put", Message(&PUT)),
    choice(3, "request_delete_range", Message(&DELETE_RANGE)),
    choice(4, "request_txn", Message(&TXN)),
]);
static TXN: Shape = Shape(&[
    list(1, "compare", Message(&COMPARE)),
    list(2, "success", Message(&OPERATION)),
    list(3, "failure", Message(&OPERATION)),
]);
static OPERATION_ANSWER: Shape = Shape(&[
    one(1, "response_range", Message(&RANGE_ANSWER)),
    one(2, "response_put", Message(&PUT_ANSWER)),
    one(3, "response_delete_range", Message(&DELETE_RANGE_ANSWER)),
    one(4, "response_txn", Message(&TXN_ANSWER)),
]);
static TXN_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "succeeded", Bool),
    list(3, "responses", Message(&OPERATION_ANSWER)),
]);
static COMPACTION: Shape = Shape(&[one(1, "revision", Int64), one(2, "physical", Bool)]);
static WATCH_CREATE: Shape = Shape(&[
    one(1, "key", Bytes),
    one(2, "range_end", Bytes),
    one(3, "start_revision", Int64),
    one(4, "progress_notify", Bool),
    list(5, "filters", Enum(&["NOPUT", "NODELETE"])),
    one(6, "prev_kv", Bool),
    one(7, "watch_id", Int64),
    one(8, "fragment", Bool),
]);
static WATCH_CANCEL: Shape = Shape(&[one(1, "watch_id", Int64)]);
static WATCH: Shape = Shape(&[
    choice(1, "create_request", Message(&WATCH_CREATE)),
    choice(2, "cancel_request", Message(&WATCH_CANCEL)),
    choice(3, "progress_request", Message(&EMPTY)),
]);
static WATCH_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "watch_id", Int64),
    one(3, "created", Bool),
    one(4, "canceled", Bool),
    one(5, "compact_revision", Int64),
    one(6, "cancel_reason", Text),
    one(7, "fragment", Bool),
    list(11, "events", Message(&EVENT)),
]);
static LEASE_GRANT: Shape = Shape(&[one(1, "TTL", Int64), one(2, "ID", Int64)]);
static LEASE_GRANT_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "ID", Int64),
    one(3, "TTL", Int64),
    one(4, "error", Text),
]);
static LEASE: Shape = Shape(&[one(1, "ID", Int64)]);
static LEASE_KEEP_ALIVE_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), one(2, "ID", Int64), one(3, "TTL", Int64)]);
static LEASE_TIME_TO_LIVE: Shape = Shape(&[one(1, "ID", Int64), one(2, "keys", Bool)]);
static LEASE_TIME_TO_LIVE_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "ID", Int64),
    one(3, "TTL", Int64),
    one(4, "grantedTTL", Int64),
    list(5, "keys", Bytes),
]);
static LEASES_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), list(2, "leases", Message(&LEASE))]);
static MEMBER: Shape = Shape(&[
    one(1, "ID", Uint64),
    one(2, "name", Text),
    list(3, "peerURLs", Text),
    list(4, "clientURLs", Text),
    one(5, "isLearner", Bool),
]);
static MEMBER_ADD: Shape = Shape(&[list(1, "peerURLs", Text), one(2, "isLearner", Bool)]);
static MEMBER_ADD_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "member", Message(&MEMBER)),
    list(3, "members", Message(&MEMBER)),
]);
static MEMBER_ID: Shape = Shape(&[one(1, "ID", Uint64)]);
static MEMBER_UPDATE: Shape = Shape(&[one(1, "ID", Uint64), list(2, "peerURLs", Text)]);
static MEMBERS_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), list(2, "members", Message(&MEMBER))]);
static MEMBER_LIST: Shape = Shape(&[one(1, "linearizable", Bool)]);
const ALARMS: &[&str] = &["NONE", "NOSPACE", "CORRUPT"];
static ALARM: Shape = Shape(&[
    one(1, "action", Enum(&["GET", "ACTIVATE", "DEACTIVATE"])),
    one(2, "memberID", Uint64),
    one(3, "alarm", Enum(ALARMS)),
]);
static ALARM_MEMBER: Shape = Shape(&[one(1, "memberID", Uint64), one(2, "alarm", Enum(ALARMS))]);
static ALARM_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), list(2, "alarms", Message(&ALARM_MEMBER))]);
static DOWNGRADE_INFO: Shape = Shape(&[one(1, "enabled", Bool), one(2, "targetVersion", Text)]);
static STATUS_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "version", Text),
    one(3, "dbSize", Int64),
    one(4, "leader", Uint64),
    one(5, "raftIndex", Uint64),
    one(6, "raftTerm", Uint64),
    one(7, "raftAppliedIndex", Uint64),
    list(8, "errors", Text),
    one(9, "dbSizeInUse", Int64),
    one(10, "isLearner", Bool),
    one(11, "storageVersion", Text),
    one(12, "dbSizeQuota", Int64),
    one(13, "downgradeInfo", Message(&DOWNGRADE_INFO)),
]);
static HASH_ANSWER: Shape = Shape(&[one(1, "header", Message(&HEADER)), one(2, "hash", Uint32)]);
static HASH_KV: Shape = Shape(&[one(1, "revision", Int64)]);
static HASH_KV_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "hash", Uint32),
    one(3, "compact_revision", Int64),
    one(4, "hash_revision", Int64),
]);
static SNAPSHOT_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "remaining_bytes", Uint64),
    one(3, "blob", Bytes),
    one(4, "version", Text),
]);
static MOVE_LEADER: Shape = Shape(&[one(1, "targetID", Uint64)]);
static DOWNGRADE: Shape =
    Shape(&[one(1, "action", Enum(&["VALIDATE", "ENABLE", "CANCEL"])), one(2, "version", Text)]);
static DOWNGRADE_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), one(2, "version", Text)]);
static LOCK: Shape = Shape(&[one(1, "name", Bytes), one(2, "lease", Int64)]);
static LOCK_ANSWER: Shape = Shape(&[one(1, "header", Message(&HEADER)), one(2, "key", Bytes)]);
static UNLOCK: Shape = Shape(&[one(1, "key", Bytes)]);
static LEADER_KEY: Shape = Shape(&[
    one(1, "name", Bytes),
    one(2, "key", Bytes),
    one(3, "rev", Int64),
    one(4, "lease", Int64),
]);
static CAMPAIGN: Shape =
    Shape(&[one(1, "name", Bytes), one(2, "lease", Int64), one(3, "value", Bytes)]);
static CAMPAIGN_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), one(2, "leader", Message(&LEADER_KEY))]);
static PROCLAIM: Shape = Shape(&[one(1, "leader", Message(&LEADER_KEY)), one(2, "value", Bytes)]);
static NAMED: Shape = Shape(&[one(1, "name", Bytes)]);
static LEADER_ANSWER: Shape =
    Shape(&[one(1, "header", Message(&HEADER)), one(2, "kv", Message(&KEY_VALUE))]);
static RESIGN: Shape = Shape(&[one(1, "leader", Message(&LEADER_KEY))]);
static AUTH_STATUS_ANSWER: Shape = Shape(&[
    one(1, "header", Message(&HEADER)),
    one(2, "enabled", Bool),
    one(3, "authRevision", Uint64),
]);
/// Requests of the auth service of which nothing more is looked at than who is named.
static USER: Shape = Shape(&[one(1, "name", Text), one(2, "password", Text)]);
static ROLE: Shape = Shape(&[one(1, "name", Text)]);
static PERMISSION: Shape = Shape(&[
    one(1, "permType", Enum(&["READ", "WRITE", "READWRITE"])),
    one(2, "key", Bytes),
    one(3, "range_end", Bytes),
]);
static PERMISSION_GRANT: Shape =
    Shape(&[one(1, "name", Text), one(2, "perm", Message(&PERMISSION))]);

/// A path of the gateway.
pub struct Route {
    /// Behind `/v3/`.
    pub path: &'static str,
    /// Of gRPC.
    pub method: &'static str,
    /// What it takes.
    pub request: &'static Shape,
    /// What it gives.
    pub answer: &'static Shape,
    /// It gives more than one.
    pub is_stream: bool,
}

const fn unary(
    path: &'static str,
    method: &'static str,
    request: &'static Shape,
    answer: &'static Shape,
) -> Route {
    Route { path, method, request, answer, is_stream: false }
}

const fn stream(
    path: &'static str,
    method: &'static str,
    request: &'static Shape,
    answer: &'static Shape,
) -> Route {
    Route { path, method, request, answer, is_stream: true }
}

macro_rules! service {
    ($service:literal, $method:literal) => {
        concat!("/", $service, "/", $method)
    };
}
macro_rules! kv {
    ($method:literal) => {
        service!("etcdserverpb.KV", $method)
    };
}
macro_rules! lease {
    ($method:literal) => {
        service!("etcdserverpb.Lease", $method)
    };
}
macro_rules! cluster {
    ($method:literal) => {
        service!("etcdserverpb.Cluster", $method)
    };
}
macro_rules! maintenance {
    ($method:literal) => {
        service!("etcdserverpb.Maintenance", $method)
    };
}
macro_rules! auth {
    ($method:literal) => {
        service!("etcdserverpb.Auth", $method)
    };
}
macro_rules! election {
    ($method:literal) => {
        service!("v3electionpb.Election", $method)
    };
}

/// Every path of the gateway.
pub static ROUTES: &[Route] = &[
    unary("kv/range", kv!("Range"), &RANGE, &RANGE_ANSWER),
    unary("kv/put", kv!("Put"), &PUT, &PUT_ANSWER),
    unary("kv/deleterange", kv!("DeleteRange"), &DELETE_RANGE, &DELETE_RANGE_ANSWER),
    unary("kv/txn", kv!("Txn"), &TXN, &TXN_ANSWER),
    unary("kv/compaction", kv!("Compact"), &COMPACTION, &HEADER_ONLY),
    stream("watch", service!("etcdserverpb.Watch", "Watch"), &WATCH, &WATCH_ANSWER),
    unary("lease/grant", lease!("LeaseGrant"), &LEASE_GRANT, &LEASE_GRANT_ANSWER),
    unary("lease/revoke", lease!("LeaseRevoke"), &LEASE, &HEADER_ONLY),
    unary("kv/lease/revoke", lease!("LeaseRevoke"), &LEASE, &HEADER_ONLY),
    stream("lease/keepalive", lease!("LeaseKeepAlive"), &LEASE, &LEASE_KEEP_ALIVE_ANSWER),
    unary(
        "lease/timetolive",
        lease!("LeaseTimeToLive"),
        &LEASE_TIME_TO_LIVE,
        &LEASE_TIME_TO_LIVE_ANSWER,
    ),
    unary(
        "kv/lease/timetolive",
        lease!("LeaseTimeToLive"),
        &LEASE_TIME_TO_LIVE,
        &LEASE_TIME_TO_LIVE_ANSWER,
    ),
    unary("lease/leases", lease!("LeaseLeases"), &EMPTY, &LEASES_ANSWER),
    unary("kv/lease/leases", lease!("LeaseLeases"), &EMPTY, &LEASES_ANSWER),
    unary("cluster/member/add", cluster!("MemberAdd"), &MEMBER_ADD, &MEMBER_ADD_ANSWER),
    unary("cluster/member/remove", cluster!("MemberRemove"), &MEMBER_ID, &MEMBERS_ANSWER),
    unary("cluster/member/update", cluster!("MemberUpdate"), &MEMBER_UPDATE, &MEMBERS_ANSWER),
    unary("cluster/member/list", cluster!("MemberList"), &MEMBER_LIST, &MEMBERS_ANSWER),
    unary("cluster/member/promote", cluster!("MemberPromote"), &MEMBER_ID, &MEMBERS_ANSWER),
    unary("maintenance/alarm", maintenance!("Alarm"), &ALARM, &ALARM_ANSWER),
    unary("maintenance/status", maintenance!("Status"), &EMPTY, &STATUS_ANSWER),
    unary("maintenance/defragment", maintenance!("Defragment"), &EMPTY, &HEADER_ONLY),
    unary("maintenance/hash", maintenance!("Hash"), &EMPTY, &HASH_ANSWER),
    unary("maintenance/hashkv", maintenance!("HashKV"), &HASH_KV, &HASH_KV_ANSWER),
    stream("maintenance/snapshot", maintenance!("Snapshot"), &EMPTY, &SNAPSHOT_ANSWER),
    unary(
        "maintenance/transfer-leadership",
        maintenance!("MoveLeader"),
        &MOVE_LEADER,
        &HEADER_ONLY,
    ),
    unary("maintenance/downgrade", maintenance!("Downgrade"), &DOWNGRADE, &DOWNGRADE_ANSWER),
    unary("auth/enable", auth!("AuthEnable"), &EMPTY, &HEADER_ONLY),
    unary("auth/disable", auth!("AuthDisable"), &EMPTY, &HEADER_ONLY),
    unary("auth/status", auth!("AuthStatus"), &EMPTY, &AUTH_STATUS_ANSWER),
    unary("auth/authenticate", auth!("Authenticate"), &USER, &HEADER_ONLY),
    unary("auth/user/add", auth!("UserAdd"), &USER, &HEADER_ONLY),
    unary("auth/user/get", auth!("UserGet"), &USER, &HEADER_ONLY),
    unary("auth/user/list", auth!("UserList"), &USER, &HEADER_ONLY),
    unary("auth/user/delete", auth!("UserDelete"), &USER, &HEADER_ONLY),
    unary("auth/user/changepw", auth!("UserChangePassword"), &USER, &HEADER_ONLY),
    unary("auth/user/grant", auth!("UserGrantRole"), &USER, &HEADER_ONLY),
    unary("auth/user/revoke", auth!("UserRevokeRole"), &USER, &HEADER_ONLY),
    unary("auth/role/add", auth!("RoleAdd"), &ROLE, &HEADER_ONLY),
    unary("auth/role/get", auth!("RoleGet"), &ROLE, &HEADER_ONLY),
    unary("auth/role/list", auth!("RoleList"), &ROLE, &HEADER_ONLY),
    unary("auth/role/delete", auth!("RoleDelete"), &ROLE, &HEADER_ONLY),
    unary("auth/role/grant", auth!("RoleGrantPermission"), &PERMISSION_GRANT, &HEADER_ONLY),
    unary("auth/role/revoke", auth!("RoleRevokePermission"), &ROLE, &HEADER_ONLY),
    unary("lock/lock", service!("v3lockpb.Lock", "Lock"), &LOCK, &LOCK_ANSWER),
    unary("lock/unlock", service!("v3lockpb.Lock", "Unlock"), &UNLOCK, &HEADER_ONLY),
    unary("election/campaign", election!("Campaign"), &CAMPAIGN, &CAMPAIGN_ANSWER),
    unary("election/proclaim", election!("Proclaim"), &PROCLAIM, &HEADER_ONLY),
    unary("election/leader", election!("Leader"), &NAMED, &LEADER_ANSWER),
    stream("election/observe", election!("Observe"), &NAMED, &LEADER_ANSWER),
    unary("election/resign", election!("Resign"), &RESIGN, &HEADER_ONLY),
];

/// What a path of the gateway is for; `path` begins behind `/v3/`.
pub fn route(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path)
}

/// Whether there is a service of gRPC with this name.
pub fn is_service(name: &str) -> bool {
    let of = |route: &Route| route.method.split('/').nth(1) == Some(name);
    name == "grpc.health.v1.Health" || ROUTES.iter().any(of)
}

/// Whether there is a method of gRPC with this path that takes one message and gives one.
pub fn is_method(path: &str) -> bool {
    ROUTES.iter().any(|route| route.method == path && !route.is_stream)
}
