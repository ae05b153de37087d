//! Frames between members as they go out: appends whole frames to a send buffer.

use alloc::vec::Vec;
use base::{LogIndex, RequestId, Term};

use crate::body::{Body, Layout, Table};
use crate::error::EncodeError;
use crate::header::{Header, VERSION_MIN};
use crate::kind::Kind;
use crate::limits::{HANDSHAKE_BODY_SIZE_MAX, PEER_BODY_SIZE_MAX};
use crate::peer::{PeerFrame, PeerHello, PeerSnapshotBegin, PeerWelcome};
use crate::peer_message::{AppendHead, AppliedState, PeerMessage, RaftKind};
use crate::reply_writer::cut;

// Widths of the fields, in the order of the schema.
const HELLO: Layout<11> = Layout::new([2, 2, 8, 8, 8, 16, 8, 1, 4, 4, 4]);
const WELCOME: Layout<8> = Layout::new([2, 8, 8, 16, 8, 1, 8, 8]);
const REFUSED: Layout<2> = Layout::new([2, 4]);
const JOIN: Layout<2> = Layout::new([4, 4]);
const JOIN_REPLY: Layout<4> = Layout::new([8, 8, 4, 4]);
const APPEND: Layout<8> = Layout::new([8, 8, 8, 16, 8, 8, 4, 4]);
const FORWARD: Layout<5> = Layout::new([8, 1, 1, 4, 8]);
const FORWARD_REFUSED: Layout<3> = Layout::new([8, 2, 4]);
const SNAPSHOT_BEGIN: Layout<8> = Layout::new([8, 8, 8, 16, 8, 4, 8, 8]);
const SNAPSHOT_CHUNK: Layout<4> = Layout::new([8, 8, 1, 4]);
const SNAPSHOT_ACK: Layout<3> = Layout::new([8, 8, 4]);

// The table of raft messages, with the fields that each kind sets. Slots: 0 kind, 1 flag, 2 term,
// 3 index, 4 index_term, 5 previous, 6 committed, 7 number, 8 matched, 9 verified, 10 applied,
// 11 state_hash, 12 log_time.
const TERM_ONLY: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const ANSWER: Layout<13> = Layout::new([1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const VOTE: Layout<13> = Layout::new([1, 1, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
const ACCEPTED: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 0, 0, 8, 8, 0, 0, 0]);
const REJECTED: Layout<13> = Layout::new([1, 0, 8, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0]);
const HEARTBEAT: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0, 0, 8]);
const HEARTBEAT_STATE: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 8, 8, 0, 0, 8, 16, 8]);
const HEARTBEAT_REPLY: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 0, 8, 8, 0, 0, 0, 0]);
const HEARTBEAT_REPLY_STATE: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 0, 8, 8, 0, 8, 16, 0]);
const READ: Layout<13> = Layout::new([1, 0, 8, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0]);
const READ_REPLY: Layout<13> = Layout::new([1, 1, 8, 8, 0, 0, 0, 8, 0, 0, 0, 0, 0]);

/// Appends frames between members to send buffers.
#[derive(Clone, Copy, Debug)]
pub struct PeerEncoder {
    version: u8,
}

impl PeerEncoder {
    /// An encoder of the oldest version, which is also the one of the handshake.
    pub const fn new() -> Self {
        Self::with_version(VERSION_MIN)
    }

    /// An encoder of the version that a handshake agreed on.
    pub const fn with_version(version: u8) -> Self {
        Self { version }
    }

    /// Appends a frame to `out`. Errors: it would be too large; `out` is then as it was. Frames with
    /// nothing but numbers and a text for people never are.
    pub fn encode(&self, out: &mut Vec<u8>, frame: &PeerFrame<'_>) -> Result<(), EncodeError> {
        if let PeerFrame::Append(append) = frame {
            let mut writer = self.append(out, &append.head);
            writer.push(append.records);
            return writer.finish(append.last, append.runs);
        }
        let kind = frame.kind();
        let mut body = Body::begin(out, size_max(kind));
        let root = body.root_offset();
        match frame {
            PeerFrame::Append(_) => {}
            PeerFrame::Raft(message) => {
                raft(&mut body, message);
            }
            PeerFrame::Forward(frame) => {
                let table = body.table(root, &FORWARD);
                body.set_u64(table, 0, frame.sequence);
                body.set_u8(table, 1, frame.kind);
                body.set_bool(table, 2, frame.frees_space);
                body.set_u64(table, 4, frame.term.get());
                body.bytes(table.offset(3), frame.body);
            }
            PeerFrame::ForwardRefused(frame) => {
                let table = body.table(root, &FORWARD_REFUSED);
                body.set_u64(table, 0, frame.sequence);
                body.set_u16(table, 1, frame.status.number());
                body.string(table.offset(2), cut(frame.message));
            }
            PeerFrame::SnapshotBegin(frame) => snapshot_begin(&mut body, frame),
            PeerFrame::SnapshotChunk(frame) => {
                let table = body.table(root, &SNAPSHOT_CHUNK);
                body.set_u64(table, 0, frame.transfer);
                body.set_u64(table, 1, frame.number);
                body.set_bool(table, 2, frame.last);
                body.bytes(table.offset(3), frame.data);
            }
            PeerFrame::SnapshotAck(frame) => {
                let table = body.table(root, &SNAPSHOT_ACK);
                body.set_u64(table, 0, frame.transfer);
                body.set_u64(table, 1, frame.next);
                body.string(table.offset(2), cut(frame.refused));
            }
            PeerFrame::Hello(frame) => hello(&mut body, frame),
            PeerFrame::Welcome(frame) => welcome(&mut body, frame),
            PeerFrame::Refused(frame) => {
                let table = body.table(root, &REFUSED);
                body.set_u16(table, 0, frame.code.number());
                body.string(table.offset(1), cut(frame.message));
            }
            PeerFrame::Join(frame) => {
                let table = body.table(root, &JOIN);
                body.string(table.offset(0), frame.name);
                body.string(table.offset(1), frame.address);
            }
            PeerFrame::JoinReply(frame) => {
                let table = body.table(root, &JOIN_REPLY);
                body.set_u64(table, 0, frame.cluster);
                body.set_u64(table, 1, frame.member.get());
                body.bytes(table.offset(2), frame.members);
                body.string(table.offset(3), cut(frame.message));
            }
        }
        body.finish(self.header(kind))
    }

    /// Begins an append whose entries follow piece by piece: each byte is copied once. Nothing else
    /// may be appended to `out` before it ends; dropped without an end it leaves `out` as it was.
    pub fn append<'o>(&self, out: &'o mut Vec<u8>, head: &AppendHead) -> PeerAppendWriter<'o> {
        let mut body = Body::begin(out, PEER_BODY_SIZE_MAX);
        let table = body.table(body.root_offset(), &APPEND);
        body.set_u64(table, 0, head.term.get());
        body.set_u64(table, 1, head.previous_index.get());
        body.set_u64(table, 2, head.previous_term.get());
        body.set_bytes16(table, 3, head.previous_hash.to_bytes());
        body.set_u64(table, 5, head.committed.get());
        let records = body.bytes_begin(table.offset(6));
        let header = self.header(Kind::PeerAppend);
        PeerAppendWriter { body: Some(body), header, table, records, size: 0 }
    }

    const fn header(&self, kind: Kind) -> Header {
        Header::reply(version_of(kind, self.version), kind, RequestId::new(0))
    }
}

impl Default for PeerEncoder {
    fn default() -> Self {
        Self::new()
    }
}

/// True for the frames up to the end of the handshake.
const fn is_handshake(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::PeerHello
            | Kind::PeerWelcome
            | Kind::PeerRefused
            | Kind::PeerJoin
            | Kind::PeerJoinReply
    )
}

const fn size_max(kind: Kind) -> usize {
    if is_handshake(kind) { HANDSHAKE_BODY_SIZE_MAX } else { PEER_BODY_SIZE_MAX }
}

const fn version_of(kind: Kind, version: u8) -> u8 {
    if is_handshake(kind) { VERSION_MIN } else { version }
}

/// An append whose entries are being written.
pub struct PeerAppendWriter<'o> {
    /// Present until the frame ends.
    body: Option<Body<'o>>,
    header: Header,
    table: Table<'static, 8>,
    /// The vector of entries.
    records: usize,
    /// Bytes of the entries so far.
    size: usize,
}

impl<'o> PeerAppendWriter<'o> {
    fn body(&mut self) -> &mut Body<'o> {
        self.body.as_mut().expect("present until the frame ends")
    }

    /// Appends a piece of the encoded entries, of any length.
    #[inline]
    pub fn push(&mut self, records: &[u8]) {
        self.size = self.size.saturating_add(records.len());
        self.body().bytes_more(records);
    }

    /// Bytes of the entries so far.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Ends the frame. `last` is the last of the entries, `previous_index` if there is none; `runs`
    /// are the first index and the term of each run among them, as
    /// [`PeerAppend::runs`](crate::PeerAppend::runs) says: others are refused by the receiver.
    ///
    /// Errors: the frame is too large; the send buffer is as it was.
    pub fn finish(
        mut self,
        last: LogIndex,
        runs: impl IntoIterator<Item = (LogIndex, Term)>,
    ) -> Result<(), EncodeError> {
        let (table, records, header) = (self.table, self.records, self.header);
        let mut body = self.body.take().expect("present until the frame ends");
        body.bytes_end(records);
        body.set_u64(table, 4, last.get());
        let vector = body.structs_begin(table.offset(7));
        let mut count = 0;
        for (first, term) in runs {
            body.bytes_more(&first.get().to_le_bytes());
            body.bytes_more(&term.get().to_le_bytes());
            count += 1;
        }
        body.structs_end(vector, count);
        body.finish(header)
    }
}

impl Drop for PeerAppendWriter<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            body.abandon();
        }
    }
}

fn hello(body: &mut Body<'_>, frame: &PeerHello<'_>) {
    let table = body.table(body.root_offset(), &HELLO);
    body.set_u16(table, 0, frame.version_min);
    body.set_u16(table, 1, frame.version_max);
    body.set_u64(table, 2, frame.cluster);
    body.set_u64(table, 3, frame.from.get());
    body.set_u64(table, 4, frame.to.get());
    body.set_bytes16(table, 5, frame.data_id.get().to_le_bytes());
    body.set_u64(table, 6, frame.start_id);
    body.set_u8(table, 7, frame.lane.number());
    body.string(table.offset(8), cut(frame.client_address));
    body.string(table.offset(9), cut(frame.peer_address));
    body.string(table.offset(10), cut(frame.name));
}

fn welcome(body: &mut Body<'_>, frame: &PeerWelcome) {
    let table = body.table(body.root_offset(), &WELCOME);
    body.set_u16(table, 0, frame.version);
    body.set_u64(table, 1, frame.cluster);
    body.set_u64(table, 2, frame.member.get());
    body.set_bytes16(table, 3, frame.data_id.get().to_le_bytes());
    body.set_u64(table, 4, frame.start_id);
    body.set_bool(table, 5, frame.bootstrapped);
    body.set_u64(table, 6, frame.last_index.get());
    body.set_u64(table, 7, frame.last_term.get());
}

fn snapshot_begin(body: &mut Body<'_>, frame: &PeerSnapshotBegin<'_>) {
    let table = body.table(body.root_offset(), &SNAPSHOT_BEGIN);
    body.set_u64(table, 0, frame.term.get());
    body.set_u64(table, 1, frame.index.get());
    body.set_u64(table, 2, frame.index_term.get());
    body.set_bytes16(table, 3, frame.hash.to_bytes());
    body.set_u64(table, 4, frame.configuration_index.get());
    body.set_u64(table, 6, frame.transfer);
    body.set_u64(table, 7, frame.size_hint);
    body.bytes(table.offset(5), frame.configuration);
}

/// Begins the table of a raft message: its kind and its term.
#[inline]
fn message(
    body: &mut Body<'_>,
    layout: &'static Layout<13>,
    kind: RaftKind,
    term: Term,
) -> Table<'static, 13> {
    let table = body.table(body.root_offset(), layout);
    body.set_u8(table, 0, kind.number());
    body.set_u64(table, 2, term.get());
    table
}

/// A kind that has nothing but a term and a yes or no.
fn answer(body: &mut Body<'_>, kind: RaftKind, term: Term, granted: bool) -> Table<'static, 13> {
    let table = message(body, &ANSWER, kind, term);
    body.set_bool(table, 1, granted);
    table
}

fn vote(
    body: &mut Body<'_>,
    kind: RaftKind,
    term: Term,
    (last_index, last_term): (LogIndex, Term),
    transfer: bool,
) -> Table<'static, 13> {
    let table = message(body, &VOTE, kind, term);
    body.set_bool(table, 1, transfer);
    body.set_u64(table, 3, last_index.get());
    body.set_u64(table, 4, last_term.get());
    table
}

fn raft(body: &mut Body<'_>, what: &PeerMessage) -> Table<'static, 13> {
    match *what {
        PeerMessage::PreVote { term, last_index, last_term } => {
            vote(body, RaftKind::PreVote, term, (last_index, last_term), false)
        }
        PeerMessage::Vote { term, last_index, last_term, transfer } => {
            vote(body, RaftKind::Vote, term, (last_index, last_term), transfer)
        }
        PeerMessage::PreVoteReply { term, granted } => {
            answer(body, RaftKind::PreVoteReply, term, granted)
        }
        PeerMessage::VoteReply { term, granted } => {
            answer(body, RaftKind::VoteReply, term, granted)
        }
        PeerMessage::Accepted { term, matched, verified } => {
            let table = message(body, &ACCEPTED, RaftKind::Accepted, term);
            body.set_u64(table, 8, matched.get());
            body.set_u64(table, 9, verified.get());
            table
        }
        PeerMessage::Rejected { term, previous, hint_index, hint_term } => {
            let table = message(body, &REJECTED, RaftKind::Rejected, term);
            body.set_u64(table, 3, hint_index.get());
            body.set_u64(table, 4, hint_term.get());
            body.set_u64(table, 5, previous.get());
            table
        }
        PeerMessage::Heartbeat { term, committed, round, log_time, applied: None } => {
            let table = message(body, &HEARTBEAT, RaftKind::Heartbeat, term);
            body.set_u64(table, 12, log_time);
            body.set_u64(table, 6, committed.get());
            body.set_u64(table, 7, round);
            table
        }
        PeerMessage::Heartbeat { term, committed, round, log_time, applied: Some(applied) } => {
            let table = message(body, &HEARTBEAT_STATE, RaftKind::Heartbeat, term);
            body.set_u64(table, 12, log_time);
            body.set_u64(table, 6, committed.get());
            body.set_u64(table, 7, round);
            state(body, table, &applied);
            table
        }
        PeerMessage::HeartbeatReply { term, round, matched, applied: None } => {
            let table = message(body, &HEARTBEAT_REPLY, RaftKind::HeartbeatReply, term);
            body.set_u64(table, 7, round);
            body.set_u64(table, 8, matched.get());
            table
        }
        PeerMessage::HeartbeatReply { term, round, matched, applied: Some(applied) } => {
            let table = message(body, &HEARTBEAT_REPLY_STATE, RaftKind::HeartbeatReply, term);
            body.set_u64(table, 7, round);
            body.set_u64(table, 8, matched.get());
            state(body, table, &applied);
            table
        }
        PeerMessage::TimeoutNow { term } => message(body, &TERM_ONLY, RaftKind::TimeoutNow, term),
        PeerMessage::Read { term, number } => {
            let table = message(body, &READ, RaftKind::Read, term);
            body.set_u64(table, 7, number);
            table
        }
        PeerMessage::ReadReply { term, number, index } => {
            let table = message(body, &READ_REPLY, RaftKind::ReadReply, term);
            body.set_bool(table, 1, index.is_some());
            body.set_u64(table, 3, index.unwrap_or_default().get());
            body.set_u64(table, 7, number);
            table
        }
        PeerMessage::Newer { term } => message(body, &TERM_ONLY, RaftKind::Newer, term),
    }
}

fn state(body: &mut Body<'_>, table: Table<'_, 13>, applied: &AppliedState) {
    body.set_u64(table, 10, applied.index.get());
    body.set_bytes16(table, 11, applied.hash.to_bytes());
}
