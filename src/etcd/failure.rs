//! What a client of etcd is told when it does not get what it asked for.
//!
//! etcd's clients know failures by their text, so the texts are part of the interface. Most of them
//! travel with one gRPC code each; two travel with [`Code::Unknown`], because etcd's server sends them
//! so.

use alloc::borrow::Cow;
use alloc::format;

use wire::{Effect, EncodeError, Refused, Status};

/// The codes of gRPC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// The client gave the request up.
    Canceled = 1,
    /// None of the others.
    Unknown = 2,
    /// What was asked for can never be right.
    InvalidArgument = 3,
    /// The time for the request is up.
    DeadlineExceeded = 4,
    /// What was named is not there.
    NotFound = 5,
    /// What was to be made is there already.
    AlreadyExists = 6,
    /// The user may not do this.
    PermissionDenied = 7,
    /// A limit has been reached.
    ResourceExhausted = 8,
    /// The state does not allow this now.
    FailedPrecondition = 9,
    /// Others were in the way.
    Aborted = 10,
    /// Beyond what there is.
    OutOfRange = 11,
    /// The server does not know how.
    Unimplemented = 12,
    /// A fault of the server.
    Internal = 13,
    /// The server cannot do it now.
    Unavailable = 14,
    /// Data is lost.
    DataLoss = 15,
    /// It is not known who asks.
    Unauthenticated = 16,
}

impl Code {
    /// The number in gRPC's trailer.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Why a request failed: a gRPC code and a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// The text, which etcd's clients match on.
    pub message: Cow<'static, str>,
}

/// What was asked for, as far as the text of a failure depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// Keys were read.
    Read,
    /// Keys were written, history was given up, or both.
    Write,
    /// A lease.
    Lease,
    /// A watch.
    Watch,
    /// A member was to be added, removed or given another address.
    Member,
    /// A learner was to get a vote.
    Promotion,
    /// Leadership was to be handed over.
    Leadership,
    /// The state of the member.
    Status,
}

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $code:ident $text:literal,)*) => {
        impl Failure {
            $($(#[$doc])* pub const $name: Self = Self::known(Code::$code, $text);)*

            /// Every failure that has a text of etcd's.
            pub const KNOWN: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

failures! {
    /// A request without a key.
    KEY_NOT_PROVIDED = InvalidArgument "etcdserver: key is not provided",
    /// A put that keeps value or lease finds no key; an operation of a transaction has nothing set.
    KEY_NOT_FOUND = InvalidArgument "etcdserver: key not found",
    /// A put that keeps the value brings one.
    VALUE_PROVIDED = InvalidArgument "etcdserver: value is provided",
    /// A put that keeps the lease names one.
    LEASE_PROVIDED = InvalidArgument "etcdserver: lease is provided",
    /// A transaction has more operations than allowed.
    TOO_MANY_OPS = InvalidArgument "etcdserver: too many operations in txn request",
    /// A branch of a transaction changes a key twice.
    DUPLICATE_KEY = InvalidArgument "etcdserver: duplicate key given in txn request",
    /// The version in the request's metadata is no text.
    INVALID_CLIENT_API_VERSION = InvalidArgument "etcdserver: invalid client api version",
    /// An order or target that does not exist.
    INVALID_SORT_OPTION = InvalidArgument "etcdserver: invalid sort option",
    /// Addresses of a member that are none.
    BAD_MEMBER_URLS = InvalidArgument "etcdserver: given member URLs are invalid",
    /// The request is larger than allowed.
    REQUEST_TOO_LARGE = InvalidArgument "etcdserver: request is too large",
    /// A request without a user.
    USER_EMPTY = InvalidArgument "etcdserver: user name is empty",
    /// A request without a role.
    ROLE_EMPTY = InvalidArgument "etcdserver: role name is empty",
    /// Wrong user or password.
    AUTHENTICATION_FAILED = InvalidArgument
        "etcdserver: authentication failed, invalid user ID or password",
    /// A grant without a permission.
    PERMISSION_NOT_GIVEN = InvalidArgument "etcdserver: permission not given",
    /// A change of users or roles that makes no sense.
    INVALID_AUTH_MANAGEMENT = InvalidArgument "etcdserver: invalid auth management",
    /// Users or roles have changed since the token was given.
    AUTH_REVISION_OLD = InvalidArgument "etcdserver: revision of auth store is old",
    /// The version to go back to is none.
    WRONG_DOWNGRADE_VERSION_FORMAT = InvalidArgument
        "etcdserver: wrong downgrade target version format",
    /// There is no way to the version to go back to.
    INVALID_DOWNGRADE_VERSION = InvalidArgument "etcdserver: invalid downgrade target version",
    /// The revision has been given up.
    COMPACTED = OutOfRange "etcdserver: mvcc: required revision has been compacted",
    /// The revision is still to come.
    FUTURE_REVISION = OutOfRange "etcdserver: mvcc: required revision is a future revision",
    /// A lease is to live longer than any may.
    LEASE_TTL_TOO_LARGE = OutOfRange "etcdserver: too large lease TTL",
    /// There is no room for writes.
    NO_SPACE = ResourceExhausted "etcdserver: mvcc: database space exceeded",
    /// More work is waiting than the server takes in.
    TOO_MANY_REQUESTS = Unknown "etcdserver: too many requests",
    /// The lease does not exist.
    LEASE_NOT_FOUND = NotFound "etcdserver: requested lease not found",
    /// The member does not exist.
    MEMBER_NOT_FOUND = NotFound "etcdserver: member not found",
    /// A lease with this id exists.
    LEASE_EXISTS = FailedPrecondition "etcdserver: lease already exists",
    /// A member with this id exists.
    MEMBER_EXISTS = FailedPrecondition "etcdserver: member ID already exist",
    /// A member with this address exists.
    PEER_URLS_EXIST = FailedPrecondition "etcdserver: Peer URLs already exists",
    /// The change of the members could leave the cluster without a majority.
    NOT_ENOUGH_STARTED_MEMBERS = Unknown
        "etcdserver: re-configuration failed due to not enough started members",
    /// The member has a vote already.
    MEMBER_NOT_LEARNER = FailedPrecondition "etcdserver: can only promote a learner member",
    /// The learner lacks too much of the log.
    LEARNER_NOT_READY = FailedPrecondition
        "etcdserver: can only promote a learner member which is in sync with leader",
    /// There are as many learners as there may be.
    TOO_MANY_LEARNERS = FailedPrecondition "etcdserver: too many learner members in cluster",
    /// The member belongs to another cluster.
    CLUSTER_ID_MISMATCH = FailedPrecondition "etcdserver: cluster ID mismatch",
    /// Access control needs the user root.
    ROOT_USER_NOT_EXIST = FailedPrecondition "etcdserver: root user does not exist",
    /// Access control needs the user root to have the role root.
    ROOT_ROLE_NOT_GRANTED = FailedPrecondition
        "etcdserver: root user does not have root role",
    /// A user with this name exists.
    USER_EXISTS = FailedPrecondition "etcdserver: user name already exists",
    /// The user does not exist.
    USER_NOT_FOUND = FailedPrecondition "etcdserver: user name not found",
    /// A role with this name exists.
    ROLE_EXISTS = FailedPrecondition "etcdserver: role name already exists",
    /// The role does not exist.
    ROLE_NOT_FOUND = FailedPrecondition "etcdserver: role name not found",
    /// The user does not have this role.
    ROLE_NOT_GRANTED = FailedPrecondition "etcdserver: role is not granted to the user",
    /// The role does not have this permission.
    PERMISSION_NOT_GRANTED = FailedPrecondition
        "etcdserver: permission is not granted to the role",
    /// Access control is off.
    AUTH_NOT_ENABLED = FailedPrecondition "etcdserver: authentication is not enabled",
    /// Only the leader does this.
    NOT_LEADER = FailedPrecondition "etcdserver: not leader",
    /// The version of the cluster does not have this.
    NOT_CAPABLE = FailedPrecondition "etcdserver: not capable",
    /// A learner does not do this.
    NOT_FOR_LEARNER = FailedPrecondition "etcdserver: rpc not supported for learner",
    /// This member cannot lead.
    BAD_TRANSFEREE = FailedPrecondition "etcdserver: bad leader transferee",
    /// A request asks for what does not exist.
    UNKNOWN_METHOD = Unknown "etcdserver: unknown method",
    /// The cluster has no version to go back from.
    DOWNGRADE_VERSION_UNKNOWN = FailedPrecondition
        "etcdserver: cluster version not found during downgrade",
    /// The cluster is on its way back already.
    DOWNGRADE_IN_PROGRESS = FailedPrecondition
        "etcdserver: cluster has a downgrade job in progress",
    /// The cluster is not on its way back.
    NO_DOWNGRADE = FailedPrecondition "etcdserver: no inflight downgrade job",
    /// The user may not do this.
    PERMISSION_DENIED = PermissionDenied "etcdserver: permission denied",
    /// The token is none.
    INVALID_AUTH_TOKEN = Unauthenticated "etcdserver: invalid auth token",
    /// The member knows no leader.
    NO_LEADER = Unavailable "etcdserver: no leader",
    /// Another member has become the leader meanwhile.
    LEADER_CHANGED = Unavailable "etcdserver: leader changed",
    /// The member is going down.
    STOPPED = Unavailable "etcdserver: server stopped",
    /// There was no answer in time.
    TIMEOUT = Unavailable "etcdserver: request timed out",
    /// There was no answer in time, and the leader was lost; a write may have been done.
    TIMEOUT_LEADER_FAILURE = Unavailable
        "etcdserver: request timed out, possibly due to previous leader failure",
    /// There was no answer in time, and other members were lost; a write may have been done.
    TIMEOUT_CONNECTION_LOST = Unavailable
        "etcdserver: request timed out, possibly due to connection lost",
    /// There was no answer in time, for the member lags behind.
    TIMEOUT_APPLIED_INDEX = Unavailable
        "etcdserver: request timed out, waiting for the applied index took too long",
    /// Too few members are there for this.
    UNHEALTHY = Unavailable "etcdserver: unhealthy cluster",
    /// Members disagree about the state.
    CORRUPT = DataLoss "etcdserver: corrupt cluster",
    /// A watch has ended.
    WATCH_CANCELED = Canceled "etcdserver: watch canceled",
    /// A request was given up.
    REQUEST_CANCELED = Canceled "etcdserver: request canceled",
    /// The client gave the request up, in gRPC's own words.
    CANCELED = Canceled "context canceled",
    /// The time for the request is up, in gRPC's own words.
    DEADLINE_EXCEEDED = DeadlineExceeded "context deadline exceeded",
    /// A range that comes in parts cannot be sorted.
    STREAM_SORTED = Unimplemented "RangeStream does not support custom sort orders",
    /// A range that comes in parts cannot be bounded by revisions.
    STREAM_FILTERED = Unimplemented "RangeStream does not support revision filters",
    /// Waiting for a lock outlived its lease.
    LOCK_SESSION_EXPIRED = Unknown "mutex: session is expired",
    /// The request names no leadership.
    LEADER_NOT_PROVIDED = Unknown "\"leader\" field must be provided",
    /// Leadership has gone to another.
    ELECTION_NOT_LEADER = Unknown "election: not leader",
    /// Nobody leads.
    ELECTION_NO_LEADER = Unknown "election: no leader",
}

impl Failure {
    const fn known(code: Code, text: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(text) }
    }

    /// A failure with a text of its own.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// What a native refusal is to a client of etcd.
    pub fn of(refused: &Refused<'_>, subject: Subject) -> Self {
        match refused.status {
            Status::InvalidArgument => invalid(refused.message, subject),
            Status::KeyNotFound => Self::KEY_NOT_FOUND,
            Status::LeaseNotFound => Self::LEASE_NOT_FOUND,
            Status::DuplicateKey => Self::DUPLICATE_KEY,
            Status::TooManyOps => Self::TOO_MANY_OPS,
            Status::Compacted => Self::COMPACTED,
            Status::FutureRevision => Self::FUTURE_REVISION,
            Status::NoSpace => Self::NO_SPACE,
            Status::Corrupt => Self::CORRUPT,
            Status::Overloaded => Self::TOO_MANY_REQUESTS,
            Status::NotLeader => match subject {
                Subject::Leadership => Self::NOT_LEADER,
                Subject::Read
                | Subject::Write
                | Subject::Lease
                | Subject::Watch
                | Subject::Member
                | Subject::Promotion
                | Subject::Status => Self::LEADER_CHANGED,
            },
            Status::DeadlineExceeded => Self::DEADLINE_EXCEEDED,
            Status::Cancelled => Self::CANCELED,
            Status::TooLarge => too_large(refused, subject),
            Status::Unavailable => Self::TIMEOUT,
            Status::Unknown => Self::TIMEOUT_LEADER_FAILURE,
            Status::NoLeader => Self::NO_LEADER,
            Status::ClusterMismatch => Self::CLUSTER_ID_MISMATCH,
            Status::HandshakeTimeout => Self::TIMEOUT,
            Status::ShuttingDown => Self::STOPPED,
            Status::MemberNotFound if subject == Subject::Leadership => Self::BAD_TRANSFEREE,
            Status::MemberNotFound => Self::MEMBER_NOT_FOUND,
            Status::MemberExists => Self::PEER_URLS_EXIST,
            Status::ChangePending => Self::UNHEALTHY,
            Status::QuorumAtRisk if subject == Subject::Leadership => Self::BAD_TRANSFEREE,
            Status::QuorumAtRisk => Self::NOT_ENOUGH_STARTED_MEMBERS,
            Status::NotCaughtUp if subject == Subject::Promotion => Self::LEARNER_NOT_READY,
            Status::NotCaughtUp if subject == Subject::Leadership => Self::TIMEOUT,
            Status::NotCaughtUp => Self::UNHEALTHY,
            Status::LeaseExists => Self::LEASE_EXISTS,
            Status::SlowReader => Self::WATCH_CANCELED,
            // What only a mistake of this server's makes another part of it answer.
            Status::Ok
            | Status::Internal
            | Status::ProtocolError
            | Status::VersionMismatch
            | Status::SessionExpired
            | Status::TooManyUnanswered => {
                Self::new(Code::Internal, format!("etcdserver: {}", refused.message))
            }
        }
    }
}

impl From<EncodeError> for Failure {
    /// A request that the native protocol does not carry.
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge { .. } => Self::REQUEST_TOO_LARGE,
            EncodeError::TooDeep { .. } => Self::TOO_MANY_OPS,
        }
    }
}

/// A refusal of what can never be right. Texts that etcd has begin the native ones; what it does not
/// refuse is said in the native words.
fn invalid(message: &str, subject: Subject) -> Failure {
    let same = |known: &&Failure| {
        let text = known.message.strip_prefix("etcdserver: ").unwrap_or(&known.message);
        message.starts_with(text)
    };
    match (Failure::KNOWN.iter().find(same), subject) {
        (Some(known), _) => known.clone(),
        (None, Subject::Member) => Failure::BAD_MEMBER_URLS,
        (None, Subject::Promotion) => Failure::MEMBER_NOT_LEARNER,
        (
            None,
            Subject::Read
            | Subject::Write
            | Subject::Lease
            | Subject::Watch
            | Subject::Leadership
            | Subject::Status,
        ) => Failure::new(Code::InvalidArgument, format!("etcdserver: {message}")),
    }
}

/// The request was too large, or its answer would be: etcd has a text for the former, gRPC a code for
/// the latter.
fn too_large(refused: &Refused<'_>, subject: Subject) -> Failure {
    let is_reply = refused.message.starts_with("the reply is too large");
    if refused.effect == Effect::None && subject != Subject::Read && !is_reply {
        return Failure::REQUEST_TOO_LARGE;
    }
    Failure::new(Code::ResourceExhausted, format!("etcdserver: {}", refused.message))
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Failure {}
