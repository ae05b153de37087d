//! Answers that outlive their frame: owned copies of what `wire` reads in place.

use std::time::Duration;

use base::{Alarm, NodeId};
use wire::{
    DecodeError, DeleteRangeReply, KeyValue, LeaseGrantReply, LeaseRevokeReply, Limit, LimitUnit,
    MemberChangeReply, MemberList, MemberListReply, OpReply, PutReply, RaftRole, RangeReply,
    StatusReply, TxnReplyView,
};

/// A key and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnedKeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty where only keys were asked for.
    pub value: Vec<u8>,
    /// The revision of its creation.
    pub create_revision: i64,
    /// The revision of its last put.
    pub mod_revision: i64,
    /// How often it was put since its creation.
    pub version: i64,
    /// Its lease; 0: none.
    pub lease: i64,
}

impl From<KeyValue<'_>> for OwnedKeyValue {
    fn from(member: KeyValue<'_>) -> Self {
        Self {
            key: member.key.to_vec(),
            value: member.value.to_vec(),
            create_revision: member.create_revision,
            mod_revision: member.mod_revision,
            version: member.version,
            lease: member.lease,
        }
    }
}

/// A key was written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PutResult {
    /// The revision of the put.
    pub revision: i64,
    /// The key as it was before, if that was asked for and it existed.
    pub previous: Option<OwnedKeyValue>,
    /// The lease that was made for the key, if [`Put::ttl_ms`](wire::Put::ttl_ms) asked for one; else 0.
    pub lease: i64,
}

impl From<PutReply<'_>> for PutResult {
    fn from(reply: PutReply<'_>) -> Self {
        let PutReply { revision, previous, lease } = reply;
        Self { revision, previous: previous.map(OwnedKeyValue::from), lease }
    }
}

/// A range was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeResult {
    /// The newest revision when the range was read.
    pub revision: i64,
    /// Keys in the range, limit and revision bounds ignored.
    pub count: i64,
    /// The limit cut keys off.
    pub more: bool,
    /// The keys.
    pub kvs: Vec<OwnedKeyValue>,
}

impl From<RangeReply<'_>> for RangeResult {
    fn from(reply: RangeReply<'_>) -> Self {
        Self {
            revision: reply.revision,
            count: reply.count,
            more: reply.more,
            kvs: reply.kvs.map(OwnedKeyValue::from).collect(),
        }
    }
}

/// Keys were deleted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeleteResult {
    /// The revision of the deletion; the newest one if nothing was deleted.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// The keys as they were, if that was asked for.
    pub previous: Vec<OwnedKeyValue>,
}

impl From<DeleteRangeReply<'_>> for DeleteResult {
    fn from(reply: DeleteRangeReply<'_>) -> Self {
        Self {
            revision: reply.revision,
            deleted: reply.deleted,
            previous: reply.previous.map(OwnedKeyValue::from).collect(),
        }
    }
}

/// A transaction was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TxnResult {
    /// The revision of the transaction; the newest one if it changed nothing. 0 in a nested one.
    pub revision: i64,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// The results of the operations that were done, in their order.
    pub responses: Vec<OpResult>,
}

/// The result of one operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpResult {
    /// A key was written.
    Put(PutResult),
    /// A range was read.
    Range(RangeResult),
    /// Keys were deleted.
    DeleteRange(DeleteResult),
    /// A transaction inside the transaction.
    Txn(TxnResult),
}

impl From<TxnReplyView<'_>> for TxnResult {
    /// Recursive, and bounded because the view was verified.
    fn from(view: TxnReplyView<'_>) -> Self {
        let responses = view.responses().map(|response| match response {
            OpReply::Put(reply) => OpResult::Put(reply.into()),
            OpReply::Range(reply) => OpResult::Range(reply.into()),
            OpReply::DeleteRange(reply) => OpResult::DeleteRange(reply.into()),
            OpReply::Txn(inner) => OpResult::Txn(inner.into()),
        });
        Self {
            revision: view.revision(),
            succeeded: view.succeeded(),
            responses: responses.collect(),
        }
    }
}

/// A lease was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseGrantResult {
    /// The newest revision.
    pub revision: i64,
    /// Its id.
    pub lease: i64,
    /// How long it lives without being kept alive; more than asked for where that was too little.
    pub ttl: Duration,
}

impl From<LeaseGrantReply> for LeaseGrantResult {
    fn from(reply: LeaseGrantReply) -> Self {
        let LeaseGrantReply { revision, lease, ttl_ms } = reply;
        Self { revision, lease, ttl: Duration::from_millis(ttl_ms) }
    }
}

/// A lease was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseRevokeResult {
    /// The revision of the deletion of its keys; the newest one if it had none.
    pub revision: i64,
    /// Keys that went with it.
    pub deleted: i64,
}

impl From<LeaseRevokeReply> for LeaseRevokeResult {
    fn from(reply: LeaseRevokeReply) -> Self {
        Self { revision: reply.revision, deleted: reply.deleted }
    }
}

/// Leases began their time anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaseKeepAliveResult {
    /// The newest revision.
    pub revision: i64,
    /// How long each lives, counted from when the call began, in the order of the call; zero: there is
    /// no such lease.
    pub ttls: Vec<Duration>,
}

/// A lease's time, and keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaseTimeToLiveResult {
    /// The newest revision.
    pub revision: i64,
    /// What it was granted; zero: there is no such lease.
    pub granted: Duration,
    /// What it has left; zero: its time is up, and it goes as soon as the leader says so.
    pub left: Duration,
    /// Keys that hang on it.
    pub key_count: i64,
    /// Those keys in key order, if they were asked for.
    pub keys: Vec<Vec<u8>>,
}

/// The leases that there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeasesResult {
    /// The newest revision.
    pub revision: i64,
    /// Their ids, smallest first.
    pub leases: Vec<i64>,
}

/// The state of a member. Sizes are bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberStatus {
    /// Version of the server's program.
    pub server_version: String,
    /// The cluster.
    pub cluster: u64,
    /// The answering member.
    pub member: NodeId,
    /// The leader; 0: none known.
    pub leader: NodeId,
    /// Raft term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_index: u64,
    /// Index of the last committed entry.
    pub committed_index: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// The newest revision.
    pub revision: i64,
    /// Reads below it are refused; 0 or less: nothing has been compacted.
    pub compacted_revision: i64,
    /// Size of the page file.
    pub file_size: u64,
    /// Of it, what holds something.
    pub file_size_in_use: u64,
    /// Size of the log that is in use.
    pub log_size: u64,
    /// What the page file may grow to; 0: no quota.
    pub quota_size: u64,
    /// The member has no vote.
    pub is_learner: bool,
    /// Writes are refused for want of space: an alarm of a member, or the disk of this one.
    pub no_space: bool,
    /// Members disagree about the state, or an alarm says so.
    pub corrupt: bool,
    /// The member's name.
    pub member_name: String,
    /// What it is in its term.
    pub role: RaftRole,
    /// What an operator should look at.
    pub errors: Vec<String>,
    /// Clients that have registered and are remembered.
    pub clients: u64,
    /// The alarms of all members.
    pub alarms: Vec<Alarm>,
}

impl From<StatusReply<'_>> for MemberStatus {
    fn from(reply: StatusReply<'_>) -> Self {
        Self {
            server_version: reply.server_version.to_owned(),
            cluster: reply.cluster,
            member: reply.member,
            leader: reply.leader,
            term: reply.term,
            last_index: reply.last_index,
            committed_index: reply.committed_index,
            applied_index: reply.applied_index,
            revision: reply.revision,
            compacted_revision: reply.compacted_revision,
            file_size: reply.file_size,
            file_size_in_use: reply.file_size_in_use,
            log_size: reply.log_size,
            quota_size: reply.quota_size,
            is_learner: reply.is_learner,
            no_space: reply.no_space,
            corrupt: reply.corrupt,
            member_name: reply.member_name.to_owned(),
            role: reply.role,
            errors: reply.errors.iter().map(str::to_owned).collect(),
            clients: reply.clients,
            alarms: reply.alarms.iter().collect(),
        }
    }
}

/// A limit of a member and its use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberLimit {
    /// What people call it.
    pub name: String,
    /// It; 0: others bound what this counts.
    pub limit: u64,
    /// What is in use, at most about a second ago.
    pub used: u64,
    /// The most that was in use since the start of the server.
    pub highest: u64,
    /// How often something was refused, or had to wait, because of it.
    pub hits: u64,
    /// What it counts.
    pub unit: LimitUnit,
}

impl From<Limit<'_>> for MemberLimit {
    fn from(limit: Limit<'_>) -> Self {
        let Limit { name, limit, used, highest, hits, unit } = limit;
        Self { name: name.to_owned(), limit, used, highest, hits, unit }
    }
}

/// The members of the cluster, as the answering member knows them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MembersResult {
    /// The members.
    pub list: MemberList,
    /// The leader; 0: none known.
    pub leader: NodeId,
}

impl TryFrom<MemberListReply<'_>> for MembersResult {
    type Error = DecodeError;

    fn try_from(reply: MemberListReply<'_>) -> Result<Self, DecodeError> {
        Ok(Self { list: members(reply.members)?, leader: reply.leader })
    }
}

/// The members were changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberChangeResult {
    /// The member that was changed, or came to be.
    pub member: NodeId,
    /// The members now.
    pub list: MemberList,
    /// The leader; 0: none known.
    pub leader: NodeId,
}

impl TryFrom<MemberChangeReply<'_>> for MemberChangeResult {
    type Error = DecodeError;

    fn try_from(reply: MemberChangeReply<'_>) -> Result<Self, DecodeError> {
        let (member, leader) = (reply.member, reply.leader);
        Ok(Self { member, list: members(reply.members)?, leader })
    }
}

/// The list in a reply. What is wrong with it matters to nobody here: the server is broken, or of a
/// release that this client does not understand.
fn members(bytes: &[u8]) -> Result<MemberList, DecodeError> {
    MemberList::decode(bytes).map_err(|_| DecodeError::Malformed)
}
