//! From native replies to etcd's responses. Those that carry keys are written as bytes straight from
//! what was received; the others are messages.
//!
//! Every function that writes appends one whole message to `out`, without gRPC's prefix.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{Alarm, AlarmKind, NodeId};
use bytes::Bytes;
use wire::{
    Alarms, ChangeKind, CompactReply, DeleteRangeReply, KeyValue, KeyValues, LeaseGrantReply,
    LeaseListReply, LeaseRevokeReply, LeaseTimeToLiveReply, MemberList, MemberRole, OpReply,
    PutReply, RangeReply, StatusReply, TxnReplyView, WatchChange,
};

use crate::proto::cluster::{
    Member, MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse,
    MemberUpdateResponse,
};
use crate::proto::kv::{CompactionResponse, ResponseHeader};
use crate::proto::lease::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseStatus, LeaseTimeToLiveResponse,
};
use crate::proto::maintenance::{
    AlarmMember, AlarmResponse, AlarmType, DowngradeInfo, StatusResponse,
};
use crate::protobuf::{
    bytes, bytes_size, flag, nested, nested_size, number, number_size, signed, signed_size,
};

/// Who answers: what all headers have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answerer {
    /// The cluster.
    pub cluster_id: u64,
    /// The answering member.
    pub member_id: u64,
    /// Its term.
    pub term: u64,
}

impl Answerer {
    /// A header with this revision.
    pub const fn header(&self, revision: i64) -> ResponseHeader {
        let (cluster_id, member_id, raft_term) = (self.cluster_id, self.member_id, self.term);
        ResponseHeader { cluster_id, member_id, revision, raft_term }
    }
}

/// A header with nothing but a revision: what the parts of a transaction have.
const fn bare(revision: i64) -> ResponseHeader {
    ResponseHeader { cluster_id: 0, member_id: 0, revision, raft_term: 0 }
}

fn header_size(header: &ResponseHeader) -> usize {
    number_size(header.cluster_id)
        + number_size(header.member_id)
        + signed_size(header.revision)
        + number_size(header.raft_term)
}

/// Writes a header, which is there also when it is empty.
fn write_header(out: &mut Vec<u8>, header: &ResponseHeader) {
    nested(out, 1, header_size(header));
    number(out, 1, header.cluster_id);
    number(out, 2, header.member_id);
    signed(out, 3, header.revision);
    number(out, 4, header.raft_term);
}

fn key_value_size(member: &KeyValue<'_>) -> usize {
    bytes_size(member.key.len())
        + signed_size(member.create_revision)
        + signed_size(member.mod_revision)
        + signed_size(member.version)
        + bytes_size(member.value.len())
        + signed_size(member.lease)
}

fn write_key_value(out: &mut Vec<u8>, field: u8, member: &KeyValue<'_>) {
    nested(out, field, key_value_size(member));
    bytes(out, 1, member.key);
    signed(out, 2, member.create_revision);
    signed(out, 3, member.mod_revision);
    signed(out, 4, member.version);
    bytes(out, 5, member.value);
    signed(out, 6, member.lease);
}

fn key_values_size(members: KeyValues<'_>) -> usize {
    members.map(|member| nested_size(key_value_size(&member))).sum()
}

/// Bytes of the answer to a read without its keys.
fn range_rest_size(header: &ResponseHeader, more: bool, count: i64) -> usize {
    nested_size(header_size(header)) + number_size(u64::from(more)) + signed_size(count)
}

/// Writes the answer to a read from its pieces. The last one is the end of the answer; no pieces are
/// the answer of an empty one.
fn write_range(out: &mut Vec<u8>, header: &ResponseHeader, pieces: &[RangeReply<'_>]) {
    write_header(out, header);
    for piece in pieces {
        piece.kvs.for_each(|member| write_key_value(out, 2, &member));
    }
    if let Some(end) = pieces.last() {
        flag(out, 3, end.more);
        signed(out, 4, end.count);
    }
}

/// Writes a `RangeResponse` from the pieces of an answer, the last of which is its end.
pub fn range(out: &mut Vec<u8>, from: &Answerer, pieces: &[RangeReply<'_>]) {
    let revision = pieces.last().map_or(0, |end| end.revision);
    out.reserve(128 + pieces.iter().map(|piece| key_values_size(piece.kvs)).sum::<usize>());
    write_range(out, &from.header(revision), pieces);
}

/// A `RangeResponse` that is longer than one wants to hold: the pieces of its answer are measured, and read once
/// more to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LongRange {
    header: ResponseHeader,
    more: bool,
    count: i64,
    keys_size: usize,
}

impl LongRange {
    /// Of pieces whose keys take so many bytes ([`keys_size`]), the last of which is `end`.
    pub fn new(from: &Answerer, keys_size: usize, end: &RangeReply<'_>) -> Self {
        let header = from.header(end.revision);
        Self { header, more: end.more, count: end.count, keys_size }
    }

    /// Bytes of all of it.
    pub fn size(&self) -> usize {
        range_rest_size(&self.header, self.more, self.count) + self.keys_size
    }

    /// Writes what stands in front of the keys.
    pub fn write_head(&self, out: &mut Vec<u8>) {
        write_header(out, &self.header);
    }

    /// Writes what stands behind them.
    pub fn write_end(&self, out: &mut Vec<u8>) {
        flag(out, 3, self.more);
        signed(out, 4, self.count);
    }
}

/// Bytes of the keys of a piece as they stand in a `RangeResponse`.
pub fn keys_size(piece: &RangeReply<'_>) -> usize {
    key_values_size(piece.kvs)
}

/// Writes a key as it stands in a `RangeResponse`.
pub fn range_key(out: &mut Vec<u8>, member: &KeyValue<'_>) {
    write_key_value(out, 2, member);
}

/// Writes a `RangeStreamResponse` from one piece of an answer. Header, count and more stand in the last
/// one alone.
pub fn range_part(out: &mut Vec<u8>, from: &Answerer, piece: &RangeReply<'_>, is_last: bool) {
    let keys = key_values_size(piece.kvs);
    if is_last {
        let header = from.header(piece.revision);
        nested(out, 1, range_rest_size(&header, piece.more, piece.count) + keys);
        write_range(out, &header, core::slice::from_ref(piece));
    } else {
        nested(out, 1, keys);
        piece.kvs.for_each(|member| write_key_value(out, 2, &member));
    }
}

fn put_size(header: &ResponseHeader, reply: &PutReply<'_>) -> usize {
    let previous = reply.previous.as_ref().map(|member| nested_size(key_value_size(member)));
    nested_size(header_size(header)) + previous.unwrap_or(0)
}

fn write_put(out: &mut Vec<u8>, header: &ResponseHeader, reply: &PutReply<'_>) {
    write_header(out, header);
    if let Some(previous) = &reply.previous {
        write_key_value(out, 2, previous);
    }
}

/// Writes a `PutResponse`.
pub fn put(out: &mut Vec<u8>, from: &Answerer, reply: &PutReply<'_>) {
    write_put(out, &from.header(reply.revision), reply);
}

fn delete_range_size(header: &ResponseHeader, reply: &DeleteRangeReply<'_>) -> usize {
    let previous = key_values_size(reply.previous);
    nested_size(header_size(header)) + signed_size(reply.deleted) + previous
}

fn write_delete_range(out: &mut Vec<u8>, header: &ResponseHeader, reply: &DeleteRangeReply<'_>) {
    write_header(out, header);
    signed(out, 2, reply.deleted);
    reply.previous.for_each(|member| write_key_value(out, 3, &member));
}

/// Writes a `DeleteRangeResponse`.
pub fn delete_range(out: &mut Vec<u8>, from: &Answerer, reply: &DeleteRangeReply<'_>) {
    write_delete_range(out, &from.header(reply.revision), reply);
}

/// Writes a `TxnResponse`.
pub fn txn(out: &mut Vec<u8>, from: &Answerer, reply: &TxnReplyView<'_>) {
    let header = from.header(reply.revision());
    let mut sizes = Vec::new();
    out.reserve(txn_size(&header, reply, &mut sizes));
    write_txn(out, &header, reply, &mut sizes.into_iter());
}

/// Bytes of the answer to a transaction. The sizes of answers to its operations are added to `sizes`,
/// each before those inside it: so every one is measured once, however deep it lies. As deep as
/// transactions nest.
fn txn_size(header: &ResponseHeader, reply: &TxnReplyView<'_>, sizes: &mut Vec<usize>) -> usize {
    let fixed = nested_size(header_size(header)) + number_size(u64::from(reply.succeeded()));
    let responses = reply.responses().map(|response| {
        let place = sizes.len();
        sizes.push(0);
        let size = match &response {
            OpReply::Range(reply) => {
                let header = bare(reply.revision);
                range_rest_size(&header, reply.more, reply.count) + key_values_size(reply.kvs)
            }
            OpReply::Put(reply) => put_size(&bare(reply.revision), reply),
            OpReply::DeleteRange(reply) => delete_range_size(&bare(reply.revision), reply),
            OpReply::Txn(reply) => txn_size(&bare(0), reply, sizes),
        };
        sizes[place] = size;
        nested_size(nested_size(size))
    });
    fixed + responses.sum::<usize>()
}

fn write_txn(
    out: &mut Vec<u8>,
    header: &ResponseHeader,
    reply: &TxnReplyView<'_>,
    sizes: &mut impl Iterator<Item = usize>,
) {
    write_header(out, header);
    flag(out, 2, reply.succeeded());
    for response in reply.responses() {
        let size = sizes.next().expect("every answer was measured");
        nested(out, 3, nested_size(size));
        match &response {
            OpReply::Range(reply) => {
                nested(out, 1, size);
                write_range(out, &bare(reply.revision), core::slice::from_ref(reply));
            }
            OpReply::Put(reply) => {
                nested(out, 2, size);
                write_put(out, &bare(reply.revision), reply);
            }
            OpReply::DeleteRange(reply) => {
                nested(out, 3, size);
                write_delete_range(out, &bare(reply.revision), reply);
            }
            OpReply::Txn(reply) => {
                nested(out, 4, size);
                write_txn(out, &bare(0), reply, sizes);
            }
        }
    }
}

/// History was given up.
pub fn compaction(from: &Answerer, reply: &CompactReply) -> CompactionResponse {
    CompactionResponse { header: Some(from.header(reply.revision)) }
}

/// Seconds that a lease was granted: a lease of less than a second is not told as none.
fn granted_seconds(ms: u64) -> i64 {
    i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// A lease was made.
pub fn lease_grant(from: &Answerer, reply: &LeaseGrantReply) -> LeaseGrantResponse {
    let (id, ttl) = (reply.lease, granted_seconds(reply.ttl_ms));
    LeaseGrantResponse { header: Some(from.header(reply.revision)), id, ttl, error: String::new() }
}

/// A lease was ended.
pub fn lease_revoke(from: &Answerer, reply: &LeaseRevokeReply) -> LeaseRevokeResponse {
    LeaseRevokeResponse { header: Some(from.header(reply.revision)) }
}

/// The lease `id` begins its time anew, or is not there: then it has 0 seconds.
pub fn lease_keep_alive(
    from: &Answerer,
    id: i64,
    revision: i64,
    ttl_ms: u64,
) -> LeaseKeepAliveResponse {
    let (header, ttl) = (Some(from.header(revision)), granted_seconds(ttl_ms));
    LeaseKeepAliveResponse { header, id, ttl }
}

/// The time of the lease `id`, and its keys, from the answers to one question after the other. What is
/// left of its time is cut to whole seconds; a lease that is not there has -1.
pub fn lease_time_to_live(
    from: &Answerer,
    id: i64,
    answers: &[LeaseTimeToLiveReply<'_>],
) -> LeaseTimeToLiveResponse {
    let newest = answers.last().copied().unwrap_or_default();
    let header = Some(from.header(newest.revision));
    if newest.granted_ms == 0 {
        return LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() };
    }
    let keys = answers.iter().flat_map(|answer| answer.keys.iter());
    LeaseTimeToLiveResponse {
        header,
        id,
        ttl: i64::try_from(newest.left_ms / 1_000).unwrap_or(i64::MAX),
        granted_ttl: granted_seconds(newest.granted_ms),
        keys: keys.map(Bytes::copy_from_slice).collect(),
    }
}

/// The leases that there are, from the answers to one question after the other.
pub fn leases(from: &Answerer, answers: &[LeaseListReply<'_>]) -> LeaseLeasesResponse {
    let revision = answers.last().map_or(0, |answer| answer.revision);
    let leases = answers.iter().flat_map(|answer| answer.leases.iter());
    LeaseLeasesResponse {
        header: Some(from.header(revision)),
        leases: leases.map(|id| LeaseStatus { id }).collect(),
    }
}

/// A member as etcd tells it: one that has not started yet has neither name nor address for clients. One that is to
/// vote as soon as it has caught up is a voter to etcd's clients, and has not started before it does vote: until then
/// it refuses what they ask.
fn member(member: &wire::Member) -> Member {
    let http = |address: &str| match address {
        url if url.contains("://") => url.into(),
        address => format!("http://{address}"),
    };
    let url = |address: &str| match address {
        "" => Vec::new(),
        addresses => addresses.split(';').map(http).collect(),
    };
    let has_started = member.data_id.get() != 0 && member.role != MemberRole::Promotable;
    Member {
        id: member.id.get(),
        name: if has_started && !member.is_nameless() {
            member.name.clone()
        } else {
            String::new()
        },
        peer_urls: url(&member.peer_address),
        client_urls: if has_started { url(&member.client_address) } else { Vec::new() },
        is_learner: member.role == MemberRole::Learner,
    }
}

fn members(list: &MemberList) -> Vec<Member> {
    list.members.iter().map(member).collect()
}

/// Who the members are. Headers of such answers have no revision.
///
/// Clients go on with the addresses that they find here, so a member that has none of its own, because it
/// is the only one, tells the one at which the client has reached it.
pub fn member_list(from: &Answerer, list: &MemberList, reached: &str) -> MemberListResponse {
    let mut members = members(list);
    let own = members.iter_mut().find(|member| member.id == from.member_id);
    if let Some(own) = own.filter(|own| own.client_urls.is_empty()) {
        own.client_urls.push(match reached {
            url if url.contains("://") => url.into(),
            address => format!("http://{address}"),
        });
        if let Some(listed) = list.get(NodeId::new(own.id)).filter(|one| !one.is_nameless()) {
            own.name.clone_from(&listed.name);
        }
    }
    MemberListResponse { header: Some(from.header(0)), members }
}

/// The member `added` was added.
pub fn member_add(from: &Answerer, added: NodeId, list: &MemberList) -> MemberAddResponse {
    let (header, member) = (Some(from.header(0)), list.get(added).map(member));
    MemberAddResponse { header, member, members: members(list) }
}

/// A member was removed.
pub fn member_remove(from: &Answerer, list: &MemberList) -> MemberRemoveResponse {
    MemberRemoveResponse { header: Some(from.header(0)), members: members(list) }
}

/// A member has another address.
pub fn member_update(from: &Answerer, list: &MemberList) -> MemberUpdateResponse {
    MemberUpdateResponse { header: Some(from.header(0)), members: members(list) }
}

/// A learner has a vote.
pub fn member_promote(from: &Answerer, list: &MemberList) -> MemberPromoteResponse {
    MemberPromoteResponse { header: Some(from.header(0)), members: members(list) }
}

/// The state of the member. `version` is the version of etcd that it answers for, which clients read to
/// know what it can do; `storage_version` that of its data.
pub fn status(
    from: &Answerer,
    reply: &StatusReply<'_>,
    version: &str,
    storage_version: &str,
) -> StatusResponse {
    let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let mut errors = Vec::new();
    if reply.leader.get() == 0 {
        errors.push("etcdserver: no leader".to_string());
    }
    // As protobuf writes a message as text, which leaves 0 out.
    errors.extend(reply.alarms.iter().map(|alarm| match alarm.member.get() {
        0 => format!("alarm:{}", alarm.kind.name()),
        member => format!("memberID:{member} alarm:{}", alarm.kind.name()),
    }));
    errors.extend(reply.errors.iter().map(ToString::to_string));
    StatusResponse {
        header: Some(from.header(reply.revision)),
        version: version.into(),
        db_size: bytes(reply.file_size),
        leader: reply.leader.get(),
        raft_index: reply.committed_index,
        raft_term: reply.term,
        raft_applied_index: reply.applied_index,
        errors,
        db_size_in_use: bytes(reply.file_size_in_use),
        is_learner: reply.is_learner,
        storage_version: storage_version.into(),
        db_size_quota: bytes(reply.quota_size),
        downgrade_info: Some(DowngradeInfo::default()),
    }
}

/// Alarms, of this kind where one is named: those that are up, or were raised or disarmed.
pub fn alarms(
    from: &Answerer,
    revision: i64,
    alarms: &Alarms<'_>,
    asked: Option<AlarmKind>,
) -> AlarmResponse {
    let wanted = alarms.iter().filter(|alarm| asked.is_none_or(|kind| alarm.kind == kind));
    let member = |alarm: Alarm| AlarmMember {
        member_id: alarm.member.get(),
        alarm: match alarm.kind {
            AlarmKind::NoSpace => AlarmType::NoSpace,
            AlarmKind::Corrupt => AlarmType::Corrupt,
        }
        .into(),
    };
    AlarmResponse { header: Some(from.header(revision)), alarms: wanted.map(member).collect() }
}

/// Writes the `WatchResponse` that begins a watch. `revision` is the newest one: a watch without a start
/// revision tells what comes behind it.
pub fn watch_created(out: &mut Vec<u8>, from: &Answerer, revision: i64, watch_id: i64) {
    write_header(out, &from.header(revision));
    signed(out, 2, watch_id);
    flag(out, 3, true);
}

/// Writes the `WatchResponse` to a watch that is not begun.
pub fn watch_refused(out: &mut Vec<u8>, from: &Answerer, revision: i64, reason: &str) {
    watch_created(out, from, revision, -1);
    flag(out, 4, true);
    bytes(out, 6, reason.as_bytes());
}

/// Writes the `WatchResponse` that ends a watch, to a client that asked for that (without a reason) or
/// did not.
pub fn watch_canceled(
    out: &mut Vec<u8>,
    from: &Answerer,
    revision: i64,
    watch_id: i64,
    reason: &str,
) {
    write_header(out, &from.header(revision));
    signed(out, 2, watch_id);
    flag(out, 4, true);
    bytes(out, 6, reason.as_bytes());
}

/// Writes the `WatchResponse` that ends a watch because what it had to tell has been given up; its
/// header has no revision.
pub fn watch_compacted(out: &mut Vec<u8>, from: &Answerer, watch_id: i64, compacted_revision: i64) {
    write_header(out, &from.header(0));
    signed(out, 2, watch_id);
    flag(out, 4, true);
    signed(out, 5, compacted_revision);
}

/// Writes the `WatchResponse` that tells how far a watch has come, or, with the id -1, all of the stream.
pub fn watch_progress(out: &mut Vec<u8>, from: &Answerer, revision: i64, watch_id: i64) {
    write_header(out, &from.header(revision));
    signed(out, 2, watch_id);
}

/// Writes a `WatchResponse` with changes. `fragment`: those of the last revision go on in the next one.
pub fn watch_events<'c>(
    out: &mut Vec<u8>,
    from: &Answerer,
    revision: i64,
    watch_id: i64,
    changes: impl Iterator<Item = WatchChange<'c>> + Clone,
    fragment: bool,
) {
    let size = |change| nested_size(event_size(&change));
    out.reserve(128 + changes.clone().map(size).sum::<usize>());
    watch_progress(out, from, revision, watch_id);
    flag(out, 7, fragment);
    changes.for_each(|change| write_event(out, &change));
}

/// The key that an event shows: of a delete the key and the revision alone.
fn shown<'a>(change: &WatchChange<'a>) -> KeyValue<'a> {
    let KeyValue { key, mod_revision, .. } = change.kv;
    match change.kind {
        ChangeKind::Put => change.kv,
        ChangeKind::Delete => KeyValue { key, mod_revision, ..KeyValue::default() },
    }
}

/// What an event shows to have been before. A creation has nothing before it, also where the transaction that
/// made it has deleted the key first.
fn shown_previous<'c, 'a>(change: &'c WatchChange<'a>) -> Option<&'c KeyValue<'a>> {
    let is_creation = match change.kind {
        ChangeKind::Put => change.kv.create_revision == change.kv.mod_revision,
        ChangeKind::Delete => false,
    };
    change.previous.as_ref().filter(|_| !is_creation)
}

fn event_size(change: &WatchChange<'_>) -> usize {
    let previous = shown_previous(change).map(|member| nested_size(key_value_size(member)));
    number_size(change.kind.number().into())
        + nested_size(key_value_size(&shown(change)))
        + previous.unwrap_or(0)
}

fn write_event(out: &mut Vec<u8>, change: &WatchChange<'_>) {
    nested(out, 11, event_size(change));
    // A put is 0 and a delete 1, here and there.
    number(out, 1, change.kind.number().into());
    write_key_value(out, 2, &shown(change));
    if let Some(previous) = shown_previous(change) {
        write_key_value(out, 3, previous);
    }
}
