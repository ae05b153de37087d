//! Replies as they go out: appends whole reply frames to a send buffer.
//!
//! Each payload byte is copied once, from where the store keeps it into the send buffer. The lists
//! of keys are two columns, `data` and `entries`: the bytes of `data` go to the send buffer at once,
//! the entries wait in a scratch vector until the piece ends.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::RequestId;
use base::limits::REPLY_PIECE_SIZE;

use crate::alarm::AlarmReply;
use crate::body::{Body, Layout, OffsetAt, Table, empty_frame};
use crate::error::EncodeError;
use crate::header::{Flags, Header, VERSION_MIN};
use crate::kind::Kind;
use crate::lease::{
    LeaseGrantReply, LeaseKeepAliveReply, LeaseListReply, LeaseRevokeReply, LeaseTimeToLiveReply,
};
use crate::limits::REPLY_BODY_SIZE_MAX;
use crate::reply::{
    ENTRY_SIZE, HelloReply, KeyValue, MemberChangeReply, MemberListReply, MoveLeaderReply, Refused,
    RegisterReply, StatusReply,
};
use crate::usage::Limits;
use crate::watch::WatchWriter;

// Widths of the fields, in the order of the schema.
const HELLO: Layout<11> = Layout::new([2, 8, 8, 4, 4, 4, 4, 4, 4, 8, 4]);
const STATUS: Layout<22> =
    Layout::new([4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 1, 1, 1, 4, 1, 4, 8, 4]);
const REGISTER: Layout<2> = Layout::new([8, 4]);
const SNAPSHOT: Layout<1> = Layout::new([4]);
const MEMBER_LIST: Layout<2> = Layout::new([4, 8]);
const MEMBER_CHANGE: Layout<3> = Layout::new([8, 4, 8]);
const MOVE_LEADER: Layout<1> = Layout::new([8]);
const REFUSED: Layout<7> = Layout::new([4, 8, 4, 4, 8, 8, 1]);
const PUT: Layout<1> = Layout::new([8]);
const PUT_PREVIOUS: Layout<2> = Layout::new([8, 4]);
const PUT_LEASE: Layout<3> = Layout::new([8, 0, 8]);
const PUT_LEASE_PREVIOUS: Layout<3> = Layout::new([8, 4, 8]);
const RANGE: Layout<4> = Layout::new([8, 8, 1, 4]);
const RANGE_EMPTY: Layout<3> = Layout::new([8, 8, 1]);
const DELETE_RANGE: Layout<2> = Layout::new([8, 8]);
const DELETE_RANGE_PREVIOUS: Layout<3> = Layout::new([8, 8, 4]);
const COMPACT: Layout<1> = Layout::new([8]);
const TXN: Layout<3> = Layout::new([8, 1, 4]);
const KEY_VALUES: Layout<2> = Layout::new([4, 4]);
const OP_PUT: Layout<1> = Layout::new([4]);
const OP_RANGE: Layout<2> = Layout::new([0, 4]);
const OP_DELETE_RANGE: Layout<3> = Layout::new([0, 0, 4]);
const OP_TXN: Layout<4> = Layout::new([0, 0, 0, 4]);

/// Bytes of a refusal's text; a longer one is cut. Texts quote what clients sent.
const MESSAGE_SIZE_MAX: usize = 1_024;

/// Errors that a status tells at most; who has more has one.
const STATUS_ERRORS_MAX: usize = 64;

/// What the last piece of a range says about all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RangeSummary {
    /// The newest revision when the range was read.
    pub revision: i64,
    /// Keys in the range, limit and revision bounds ignored.
    pub count: i64,
    /// The limit cut keys off.
    pub more: bool,
}

/// Appends reply frames to send buffers. One serves many connections of one version.
#[derive(Debug)]
pub struct ReplyWriter {
    version: u8,
    /// Encoded entries of the list that is being written.
    entries: Vec<u8>,
    /// What the changes of a watch replaced, encoded.
    previous: Vec<u8>,
    /// Transactions whose replies are being written, the innermost last.
    levels: Vec<Level>,
}

/// A transaction whose replies are being written.
#[derive(Debug)]
struct Level {
    /// Where the offset of the next reply goes.
    place: OffsetAt,
    /// Replies that are still to come.
    left: usize,
}

impl ReplyWriter {
    /// A writer of the oldest version, which is also the one of the handshake.
    pub const fn new() -> Self {
        Self::with_version(VERSION_MIN)
    }

    /// A writer of `version`.
    pub const fn with_version(version: u8) -> Self {
        Self { version, entries: Vec::new(), previous: Vec::new(), levels: Vec::new() }
    }

    /// Grants a connection.
    pub fn hello(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &HelloReply<'_>) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &HELLO);
        body.set_u16(table, 0, reply.version);
        body.set_u64(table, 1, reply.cluster);
        body.set_u64(table, 2, reply.member.get());
        body.set_u32(table, 3, reply.requests_max);
        body.set_u32(table, 4, reply.bytes_max);
        body.set_u32(table, 5, reply.key_size_max);
        body.set_u32(table, 6, reply.value_size_max);
        body.set_u32(table, 7, reply.request_body_size_max);
        body.set_u32(table, 8, reply.reply_body_size_max);
        body.set_u64(table, 9, reply.leader.member.get());
        body.string(table.offset(10), cut(reply.leader.address));
        finish(body, Header::reply(VERSION_MIN, Kind::HelloReply, request));
    }

    /// Answers a ping.
    pub fn ping(&mut self, out: &mut Vec<u8>, request: RequestId) {
        empty_frame(out, Header::reply(self.version, Kind::PingReply, request));
    }

    /// Tells the state of the member.
    pub fn status(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &StatusReply<'_>) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &STATUS);
        body.set_u64(table, 1, reply.cluster);
        body.set_u64(table, 2, reply.member.get());
        body.set_u64(table, 3, reply.leader.get());
        body.set_u64(table, 4, reply.term);
        body.set_u64(table, 5, reply.last_index);
        body.set_u64(table, 6, reply.committed_index);
        body.set_u64(table, 7, reply.applied_index);
        body.set_i64(table, 8, reply.revision);
        body.set_i64(table, 9, reply.compacted_revision);
        body.set_u64(table, 10, reply.file_size);
        body.set_u64(table, 11, reply.file_size_in_use);
        body.set_u64(table, 12, reply.log_size);
        body.set_u64(table, 13, reply.quota_size);
        body.set_bool(table, 14, reply.is_learner);
        body.set_bool(table, 15, reply.no_space);
        body.set_bool(table, 16, reply.corrupt);
        body.set_u8(table, 18, reply.role.number());
        body.set_u64(table, 20, reply.clients);
        body.string(table.offset(0), cut(reply.server_version));
        body.string(table.offset(17), cut(reply.member_name));
        let count = reply.errors.len().min(STATUS_ERRORS_MAX);
        if let Some(mut place) = body.offsets(table.offset(19), count) {
            for text in reply.errors.iter().take(count) {
                body.string(place, cut(text));
                place = place.next();
            }
        }
        reply.alarms.write(&mut body, table.offset(21));
        finish(body, Header::reply(self.version, Kind::StatusReply, request));
    }

    /// Tells the limits of the member.
    pub fn limits(&mut self, out: &mut Vec<u8>, request: RequestId, limits: &Limits<'_>) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        limits.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::LimitsReply, request));
    }

    /// Hands out a chunk of what the member keeps; `more`: others follow.
    pub fn snapshot(&mut self, out: &mut Vec<u8>, request: RequestId, chunk: &[u8], more: bool) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &SNAPSHOT);
        body.bytes(table.offset(0), chunk);
        let flags = if more { Flags::MORE } else { Flags::NONE };
        let header = Header::reply(self.version, Kind::SnapshotReply, request);
        finish(body, Header { flags, ..header });
    }

    /// Answers a put. `previous` is the key as it was, if that was asked for and it existed.
    #[inline]
    pub fn put(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        revision: i64,
        previous: Option<KeyValue<'_>>,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let at = body.root_offset();
        put(&mut body, &mut self.entries, at, revision, previous);
        finish(body, Header::reply(self.version, Kind::PutReply, request));
    }

    /// Answers a put for whose key a lease was made.
    pub fn put_with_lease(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        revision: i64,
        previous: Option<KeyValue<'_>>,
        lease: i64,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let layout = if previous.is_some() { &PUT_LEASE_PREVIOUS } else { &PUT_LEASE };
        let table = body.table(body.root_offset(), layout);
        body.set_i64(table, 0, revision);
        body.set_i64(table, 2, lease);
        if let Some(previous) = previous {
            Columns::write(&mut body, &mut self.entries, table.offset(1), [previous]);
        }
        finish(body, Header::reply(self.version, Kind::PutReply, request));
    }

    /// Begins what a watch tells. Nothing else may be appended to `out` before it ends.
    pub fn watch<'w>(&'w mut self, out: &'w mut Vec<u8>, request: RequestId) -> WatchWriter<'w> {
        self.watch_read(out, request, 0)
    }

    /// As [`Self::watch`], with what was read back when `newest` was the newest revision.
    pub fn watch_read<'w>(
        &'w mut self,
        out: &'w mut Vec<u8>,
        request: RequestId,
        newest: i64,
    ) -> WatchWriter<'w> {
        let (entries, previous) = (&mut self.entries, &mut self.previous);
        WatchWriter::begin(out, entries, previous, (self.version, request), newest)
    }

    /// Answers that a lease was made.
    pub fn lease_grant(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &LeaseGrantReply) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        reply.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::LeaseGrantReply, request));
    }

    /// Answers that a lease was ended.
    pub fn lease_revoke(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        reply: &LeaseRevokeReply,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        reply.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::LeaseRevokeReply, request));
    }

    /// Answers a keep-alive. There are at most `base::limits::KEEP_ALIVE_MAX` leases in it.
    pub fn lease_keep_alive(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        reply: &LeaseKeepAliveReply<'_>,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        reply.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::LeaseKeepAliveReply, request));
    }

    /// Tells the time and keys of a lease. The keys have at most `REPLY_PIECE_SIZE` bytes and one key.
    pub fn lease_time_to_live(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        reply: &LeaseTimeToLiveReply<'_>,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        reply.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::LeaseTimeToLiveReply, request));
    }

    /// Tells leases, of at most `REPLY_PIECE_SIZE` bytes.
    pub fn lease_list(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        reply: &LeaseListReply<'_>,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        reply.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::LeaseListReply, request));
    }

    /// Answers a range with at most one key, in one piece.
    #[inline]
    pub fn get(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        revision: i64,
        found: Option<KeyValue<'_>>,
    ) {
        let summary = RangeSummary { revision, count: i64::from(found.is_some()), more: false };
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let at = body.root_offset();
        range(&mut body, &mut self.entries, at, summary, found);
        finish(body, Header::reply(self.version, Kind::RangeReply, request));
    }

    /// Begins a piece of the answer to a range. Nothing else may be appended to `out` before it
    /// ends; dropped without an end it leaves `out` as it was.
    #[inline]
    pub fn range<'w>(&'w mut self, out: &'w mut Vec<u8>, request: RequestId) -> RangeWriter<'w> {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.table(body.root_offset(), &RANGE);
        let columns = Columns::begin(&mut body, &mut self.entries, root.offset(3));
        let header = Header::reply(self.version, Kind::RangeReply, request);
        RangeWriter { body: Some(body), entries: &mut self.entries, header, root, columns }
    }

    /// Answers a deletion. `previous` are the keys as they were, if that was asked for.
    ///
    /// Errors: the reply is too large; `out` is as it was. Answer with a refusal that says
    /// `TooLarge` and [`Effect::Applied`](crate::Effect::Applied).
    pub fn delete_range<'k>(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        revision: i64,
        deleted: i64,
        previous: impl IntoIterator<Item = KeyValue<'k>>,
    ) -> Result<(), EncodeError> {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let at = body.root_offset();
        delete_range(&mut body, &mut self.entries, at, revision, deleted, previous);
        body.finish(Header::reply(self.version, Kind::DeleteRangeReply, request))
    }

    /// Begins the answer to a transaction of which `responses` operations were done. Their replies
    /// follow in order. Nothing else may be appended to `out` before it ends.
    pub fn txn<'w>(
        &'w mut self,
        out: &'w mut Vec<u8>,
        request: RequestId,
        revision: i64,
        succeeded: bool,
        responses: usize,
    ) -> TxnWriter<'w> {
        self.levels.clear();
        let body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let at = body.root_offset();
        let header = Header::reply(self.version, Kind::TxnReply, request);
        let mut writer = TxnWriter {
            body: Some(body),
            entries: &mut self.entries,
            levels: &mut self.levels,
            header,
        };
        writer.open(at, revision, succeeded, responses);
        writer
    }

    /// Answers a compaction.
    pub fn compact(&mut self, out: &mut Vec<u8>, request: RequestId, revision: i64) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &COMPACT);
        body.set_i64(table, 0, revision);
        finish(body, Header::reply(self.version, Kind::CompactReply, request));
    }

    /// Gives a client its id.
    pub fn register(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &RegisterReply) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &REGISTER);
        body.set_u64(table, 0, reply.client.get());
        body.set_u32(table, 1, reply.unanswered_max);
        finish(body, Header::reply(self.version, Kind::RegisterReply, request));
    }

    /// Tells who the members are.
    pub fn member_list(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        reply: &MemberListReply<'_>,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &MEMBER_LIST);
        body.set_u64(table, 1, reply.leader.get());
        body.bytes(table.offset(0), reply.members);
        finish(body, Header::reply(self.version, Kind::MemberListReply, request));
    }

    /// Answers a change of the members.
    pub fn member_change(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestId,
        reply: &MemberChangeReply<'_>,
    ) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &MEMBER_CHANGE);
        body.set_u64(table, 0, reply.member.get());
        body.set_u64(table, 2, reply.leader.get());
        body.bytes(table.offset(1), reply.members);
        finish(body, Header::reply(self.version, Kind::MemberChangeReply, request));
    }

    /// Answers that leadership has been handed over.
    pub fn move_leader(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &MoveLeaderReply) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &MOVE_LEADER);
        body.set_u64(table, 0, reply.leader.get());
        finish(body, Header::reply(self.version, Kind::MoveLeaderReply, request));
    }

    /// Answers what was done about alarms.
    pub fn alarm(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &AlarmReply<'_>) {
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let root = body.root_offset();
        reply.write(&mut body, root);
        finish(body, Header::reply(self.version, Kind::AlarmReply, request));
    }

    /// Refuses a request; `request` 0: whatever could not be read. The status must not be `Ok`.
    pub fn refused(&mut self, out: &mut Vec<u8>, request: RequestId, reply: &Refused<'_>) {
        assert!(reply.status != crate::Status::Ok, "a refusal with status Ok");
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &REFUSED);
        body.set_u64(table, 1, reply.leader.member.get());
        body.set_u32(table, 3, reply.retry_after_ms);
        body.set_i64(table, 4, reply.compacted_revision);
        body.set_i64(table, 5, reply.current_revision);
        body.set_u8(table, 6, reply.effect.number());
        body.string(table.offset(0), cut(reply.message));
        body.string(table.offset(2), cut(reply.leader.address));
        let header = Header::reply(self.version, Kind::Refused, request);
        finish(body, Header { status: reply.status, ..header });
    }
}

impl Default for ReplyWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// The front of a text, at most [`MESSAGE_SIZE_MAX`] bytes and whole characters.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MESSAGE_SIZE_MAX)]
}

/// Completes a frame that cannot be too large.
#[inline]
fn finish(body: Body<'_>, header: Header) {
    body.finish(header).expect("the greatest key and value fit a reply");
}

/// A list of keys that is being written: its data vector is open.
#[derive(Clone, Copy)]
struct Columns {
    table: Table<'static, 2>,
    /// The data vector.
    data: usize,
    count: usize,
}

impl Columns {
    #[inline]
    fn begin(body: &mut Body<'_>, entries: &mut Vec<u8>, at: OffsetAt) -> Self {
        entries.clear();
        let table = body.table(at, &KEY_VALUES);
        let data = body.bytes_begin(table.offset(0));
        Self { table, data, count: 0 }
    }

    #[inline]
    fn push(&mut self, body: &mut Body<'_>, entries: &mut Vec<u8>, member: &KeyValue<'_>) {
        body.bytes_more(member.key);
        body.bytes_more(member.value);
        if body.is_full() {
            return;
        }
        let size = |bytes: &[u8]| {
            u32::try_from(bytes.len()).expect("what fits a body is far below 4 GiB").to_le_bytes()
        };
        let mut entry = [0; ENTRY_SIZE];
        entry[..8].copy_from_slice(&member.create_revision.to_le_bytes());
        entry[8..16].copy_from_slice(&member.mod_revision.to_le_bytes());
        entry[16..24].copy_from_slice(&member.version.to_le_bytes());
        entry[24..32].copy_from_slice(&member.lease.to_le_bytes());
        entry[32..36].copy_from_slice(&size(member.key));
        entry[36..].copy_from_slice(&size(member.value));
        entries.extend_from_slice(&entry);
        self.count += 1;
    }

    #[inline]
    fn end(self, body: &mut Body<'_>, entries: &[u8]) {
        body.bytes_end(self.data);
        body.structs(self.table.offset(1), self.count, entries);
    }

    /// Writes a whole list.
    #[inline]
    fn write<'k>(
        body: &mut Body<'_>,
        entries: &mut Vec<u8>,
        at: OffsetAt,
        members: impl IntoIterator<Item = KeyValue<'k>>,
    ) {
        let mut columns = Self::begin(body, entries, at);
        for member in members {
            columns.push(body, entries, &member);
        }
        columns.end(body, entries);
    }
}

#[inline]
fn put(
    body: &mut Body<'_>,
    entries: &mut Vec<u8>,
    at: OffsetAt,
    revision: i64,
    previous: Option<KeyValue<'_>>,
) {
    match previous {
        None => {
            let table = body.table(at, &PUT);
            body.set_i64(table, 0, revision);
        }
        Some(previous) => {
            let table = body.table(at, &PUT_PREVIOUS);
            body.set_i64(table, 0, revision);
            Columns::write(body, entries, table.offset(1), [previous]);
        }
    }
}

#[inline]
fn range_summary<const N: usize>(body: &mut Body<'_>, table: Table<'_, N>, summary: RangeSummary) {
    body.set_i64(table, 0, summary.revision);
    body.set_i64(table, 1, summary.count);
    body.set_bool(table, 2, summary.more);
}

#[inline]
fn range<'k>(
    body: &mut Body<'_>,
    entries: &mut Vec<u8>,
    at: OffsetAt,
    summary: RangeSummary,
    kvs: impl IntoIterator<Item = KeyValue<'k>>,
) {
    let mut kvs = kvs.into_iter().peekable();
    if kvs.peek().is_none() {
        let table = body.table(at, &RANGE_EMPTY);
        range_summary(body, table, summary);
    } else {
        let table = body.table(at, &RANGE);
        range_summary(body, table, summary);
        Columns::write(body, entries, table.offset(3), kvs);
    }
}

fn delete_range<'k>(
    body: &mut Body<'_>,
    entries: &mut Vec<u8>,
    at: OffsetAt,
    revision: i64,
    deleted: i64,
    previous: impl IntoIterator<Item = KeyValue<'k>>,
) {
    let mut previous = previous.into_iter().peekable();
    if previous.peek().is_none() {
        let table = body.table(at, &DELETE_RANGE);
        body.set_i64(table, 0, revision);
        body.set_i64(table, 1, deleted);
    } else {
        let table = body.table(at, &DELETE_RANGE_PREVIOUS);
        body.set_i64(table, 0, revision);
        body.set_i64(table, 1, deleted);
        Columns::write(body, entries, table.offset(2), previous);
    }
}

/// One piece of the answer to a range.
pub struct RangeWriter<'w> {
    /// Present until the piece ends.
    body: Option<Body<'w>>,
    entries: &'w mut Vec<u8>,
    header: Header,
    root: Table<'static, 4>,
    columns: Columns,
}

impl RangeWriter<'_> {
    /// Appends a key. `Break`: the piece is full; end it, and begin another one if keys are left.
    #[inline]
    pub fn push(&mut self, member: &KeyValue<'_>) -> ControlFlow<()> {
        let body = self.body.as_mut().expect("present until the piece ends");
        self.columns.push(body, self.entries, member);
        if body.size() + self.entries.len() < REPLY_PIECE_SIZE {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// Keys in this piece so far.
    pub fn count(&self) -> usize {
        self.columns.count
    }

    /// Ends the piece; another one follows. `revision`: the newest one when the range was read.
    pub fn finish_piece(self, revision: i64) {
        let header = Header { flags: Flags::MORE, ..self.header };
        self.end(header, RangeSummary { revision, ..RangeSummary::default() });
    }

    /// Ends the last piece.
    pub fn finish(self, summary: RangeSummary) {
        let header = self.header;
        self.end(header, summary);
    }

    fn end(mut self, header: Header, summary: RangeSummary) {
        let mut body = self.body.take().expect("present until the piece ends");
        self.columns.end(&mut body, self.entries);
        range_summary(&mut body, self.root, summary);
        finish(body, header);
    }
}

impl Drop for RangeWriter<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            body.abandon();
        }
    }
}

/// The answer to a transaction: as many replies as were announced, in the order of the operations.
pub struct TxnWriter<'w> {
    /// Present until the reply ends.
    body: Option<Body<'w>>,
    entries: &'w mut Vec<u8>,
    levels: &'w mut Vec<Level>,
    header: Header,
}

impl<'w> TxnWriter<'w> {
    fn body(&mut self) -> &mut Body<'w> {
        self.body.as_mut().expect("present until the reply ends")
    }

    /// Writes a transaction's table and makes it the innermost one.
    fn open(&mut self, at: OffsetAt, revision: i64, succeeded: bool, responses: usize) {
        let body = self.body();
        let table = body.table(at, &TXN);
        body.set_i64(table, 0, revision);
        body.set_bool(table, 1, succeeded);
        if let Some(place) = body.offsets(table.offset(2), responses) {
            self.levels.push(Level { place, left: responses });
        }
    }

    /// The place of the next reply of the innermost transaction that is not complete. `None` once
    /// the reply has outgrown its limit.
    fn place(&mut self) -> Option<OffsetAt> {
        if self.body().is_full() {
            return None;
        }
        while self.levels.last().is_some_and(|level| level.left == 0) {
            self.levels.pop();
        }
        let level = self.levels.last_mut().expect("no more replies than were announced");
        let place = level.place;
        level.place = place.next();
        level.left -= 1;
        Some(place)
    }

    /// The reply to a put.
    pub fn put(&mut self, revision: i64, previous: Option<KeyValue<'_>>) {
        let Some(place) = self.place() else { return };
        let body = self.body.as_mut().expect("present until the reply ends");
        let op = body.table(place, &OP_PUT);
        put(body, self.entries, op.offset(0), revision, previous);
    }

    /// The reply to a range, in one piece.
    pub fn range<'k>(
        &mut self,
        summary: RangeSummary,
        kvs: impl IntoIterator<Item = KeyValue<'k>>,
    ) {
        let Some(place) = self.place() else { return };
        let body = self.body.as_mut().expect("present until the reply ends");
        let op = body.table(place, &OP_RANGE);
        range(body, self.entries, op.offset(1), summary, kvs);
    }

    /// The reply to a deletion.
    pub fn delete_range<'k>(
        &mut self,
        revision: i64,
        deleted: i64,
        previous: impl IntoIterator<Item = KeyValue<'k>>,
    ) {
        let Some(place) = self.place() else { return };
        let body = self.body.as_mut().expect("present until the reply ends");
        let op = body.table(place, &OP_DELETE_RANGE);
        delete_range(body, self.entries, op.offset(2), revision, deleted, previous);
    }

    /// The reply to a nested transaction of which `responses` operations were done: the next
    /// replies are theirs, and after them it goes on with the outer one.
    pub fn txn(&mut self, succeeded: bool, responses: usize) {
        let Some(place) = self.place() else { return };
        let body = self.body();
        let op = body.table(place, &OP_TXN);
        self.open(op.offset(3), 0, succeeded, responses);
    }

    /// Ends the reply.
    ///
    /// Errors: it is too large; the send buffer is as it was. Answer with a refusal that says
    /// `TooLarge` and, if the transaction wrote, [`Effect::Applied`](crate::Effect::Applied).
    pub fn finish(mut self) -> Result<(), EncodeError> {
        let body = self.body.take().expect("present until the reply ends");
        let left: usize = self.levels.iter().map(|level| level.left).sum();
        assert!(body.is_full() || left == 0, "{left} announced replies are missing");
        body.finish(self.header)
    }
}

impl Drop for TxnWriter<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            body.abandon();
        }
    }
}
