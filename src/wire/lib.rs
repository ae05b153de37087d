//! The native protocol: bytes to meaning and back, and nothing else.
//!
//! No sockets, no clock, no session state: who may send what when is decided by the callers, after
//! the rules that stand here.
//!
//! # A frame
//!
//! Each direction of a connection is a sequence of frames without anything between them. All numbers
//! are little endian.
//!
//! ```text
//!  0       2         3      4       6        8             12            16
//!  | "QR"  | version | kind | flags | status | body size   | crc32       |
//!  | request id                     | deadline, ms         | reserved: 0 |
//!  16                               24                     28            32
//!  | body: one FlatBuffers message of the kind's table, padded to 8 ...  |
//!  32                                                      32 + body size
//! ```
//!
//! - *version*: the version that the handshake agreed on; 1 in the handshake itself.
//! - *kind*: [`Kind`]; selects the root table in `schema/client.fbs`, or in `schema/peer.fbs` for
//!   frames between members. A reply's number is its request's + 0x80; `Refused` answers any
//!   request.
//! - *flags*: bit 0, MORE: further pieces of this reply follow. Bit 1, STAMPED: the body of this write
//!   begins with a stamp. Bit 2, REPEATED: this reply says what came of the write when it was sent
//!   before. Other bits are 0.
//! - *status*: [`Status`]; anything but `Ok` only in `Refused`.
//! - *body size*: a multiple of 8, so that bodies and their 8-byte fields stay aligned in the
//!   stream. `Ping`, `PingReply`, `Cancel`, `Status`, `Limits`, `Snapshot`, `Register`, `WatchProgress` and
//!   `MemberList` have no body.
//! - *crc32*: CRC-32 (IEEE) of header and body, its own bytes taken as 0.
//! - *request id*: chosen by the client, not used again while the request is unanswered; 0 only in
//!   the handshake and in a refusal that answers no request.
//!
//! A frame holds one request; a batch is many frames in one write. A frame that has begun comes to its
//! end, or further by `base::limits::PARTIAL_PROGRESS_SIZE`, within
//! `base::limits::PARTIAL_TIMEOUT_MS`; else the server refuses it with `ProtocolError` and closes.
//!
//! # The end of a connection
//!
//! A client that has nothing more to ask may end its direction of the stream (`shutdown` of the
//! sending side): whole frames that came before the end are answered, then the server closes. What is
//! left of a frame that was not whole is dropped. A client that closes both directions at once gives
//! up the replies; its writes may be done all the same.
//!
//! # Versions
//!
//! The first 32 bytes keep their layout in every version. The client sends `Hello` with the versions
//! it speaks; the server answers `HelloReply` with the newest that both speak, or refuses with
//! `VersionMismatch` and closes. Within a version tables only grow at their end: a reader takes what
//! it knows, a writer's missing fields read as 0 or empty. New kinds, flags, statuses and numbers
//! need a new version, because a reader refuses those it does not know.
//!
//! # Handshake
//!
//! `Hello` is the first frame; nothing else is answered before it, and nothing may follow it before
//! `HelloReply`. Bodies have at most 16 KiB until then. The server closes a connection whose
//! handshake takes longer than `base::limits::HANDSHAKE_TIMEOUT_MS`. A cluster id other than 0 that
//! is not the server's is refused with `ClusterMismatch`.
//!
//! # Order, credits, cancelling, deadlines
//!
//! - Replies come in any order; the request id tells which is which. Requests of one connection are
//!   independent: whoever needs one after the other waits for the first one's reply. The pieces of
//!   one reply come in order, with other replies between them.
//! - `HelloReply` grants credits: requests, and bytes of request frames, that may be unanswered. A
//!   credit returns with the last frame of the reply. The server reads no further while they are
//!   used up; a client that stays within them is never stopped. `Cancel` takes none.
//! - `Cancel` with the id of a request gives it up. A read that waits is answered `Cancelled`. A
//!   write that has been proposed cannot be called back: its real outcome is sent. There is always
//!   exactly one reply to the request and none to the `Cancel`.
//! - A deadline is milliseconds from the server's receipt. A request that has not been proposed or
//!   read by then is dropped with `DeadlineExceeded` and has no effect; a proposed write is answered
//!   with its outcome however late.
//! - Every refusal may carry a hint to the leader. [`Status::is_retryable`] says which requests may
//!   simply be sent again; after [`Status::Unknown`] a write may have taken effect or not.
//! - The answer to a range comes in pieces of about 1 MiB; `revision`, `count` and `more` stand only
//!   in the last. `Snapshot` is answered by chunks of the member's state (`src/kv/transfer.rs`), each
//!   in a reply of its own, of the moment at which the first one is made. Other replies come whole; one
//!   that would be too large is a `TooLarge` refusal whose `effect` says that the write was done.
//!
//! # Writes that take effect once
//!
//! A client whose connection broke, or that was answered [`Status::Unknown`], does not know whether its
//! write was done. With a stamp it may send the write again, to any member, until it has an answer:
//!
//! ```text
//! client                                       cluster
//! Register               ───────────────────►  a log entry; its index is the client's id, for ever
//! RegisterReply: id 9    ◄───────────────────
//! Put [9, 41, 40] k v    ───────────────────►  applied, the result kept under (9, 41)
//!            the connection breaks, or the answer is `Unknown`
//! Put [9, 41, 40] k v    ───────────────────►  (9, 41) is known: not applied
//! PutReply, REPEATED     ◄───────────────────  the result that was kept
//!
//! body of a STAMPED write: client id u64 | sequence u64 | floor u64 | the message, as without a stamp
//! ```
//!
//! - The client counts its writes up: each has the next *sequence*, and keeps it when it is sent again.
//!   *Floor* is the oldest sequence that the client still waits for, its own at most: results below it
//!   are forgotten.
//! - A repeated answer has the status, the revision, `deleted` and `succeeded` of the first one. Previous
//!   values and what a transaction read are not kept: `previous` and `responses` are absent.
//! - `SessionExpired` answers a sequence below the greatest floor that was sent, and a client id that was
//!   never given or has been given up: with more than `base::limits::CLIENTS_MAX` clients whoever has
//!   not written for longest makes room. The write is not carried out; if it was sent before, what came
//!   of that is not known. `TooManyUnanswered` answers a sequence that is
//!   `base::limits::CLIENT_RESULTS_MAX` or more beyond the floor.
//! - Only `Put`, `DeleteRange`, `Txn`, `Compact`, `LeaseGrant` and `LeaseRevoke` may be STAMPED. A transaction
//!   that only reads is read anew. A refusal that comes before the log (a malformed write, `NoLeader`) is not
//!   kept; one that comes
//!   of the state (`KeyNotFound`) is.
//! - Without a stamp nothing changes, and the server never sends a write again on its own.
//!
//! # Watches
//!
//! `Watch` is a request that is answered until it is refused: every reply has MORE, and the id of the
//! request. It takes a credit until its first reply, `Created`.
//!
//! ```text
//! Watch, start 0         ───────────────────►
//! Created, revision 7    ◄───────────────────  changes of revision 8 and later follow
//! Changes, revision 9    ◄───────────────────  all that the watch asked for, of revisions 8 and 9
//! WatchProgress          ───────────────────►  with the id of the watch
//! Progress, revision 12  ◄───────────────────  there was nothing for it in 10 to 12
//! Cancel                 ───────────────────►
//! Refused: Cancelled     ◄───────────────────  the end
//! ```
//!
//! - Changes come in the order of revision and sub number, each once. All changes of one revision come in
//!   one reply, unless they are more than a piece: then all replies but the last of that revision say
//!   `fragment`. Whoever wants to see revisions whole waits for the end of the fragments.
//! - A watch goes on from (last revision, last sub + 1) behind a fragment, else from `revision` + 1, on
//!   any member.
//! - `start_revision` below the compacted revision is refused with `Compacted`, which says that revision;
//!   so is a watch that compaction overtakes. Nothing is ever left out silently. A `start_revision` that
//!   is still to come is waited for; until then the watch tells nothing.
//! - `WatchProgress` is answered by the watch as soon as everything up to the revision that it tells has
//!   been told. An id that is not that of a watch is not answered.
//! - Who does not read costs the server a position, not memory; after
//!   `base::limits::SEND_STALL_TIMEOUT_MS` without a byte taken its watches are refused with `SlowReader`,
//!   and after twice that time the connection is closed.
//!
//! # Leases
//!
//! A lease lives `ttl_ms` from the moment at which the leader logged its grant or its last keep-alive.
//! Only an entry of the log ends it, so no member sees it end before others do, and a keep-alive that is
//! answered with a time has been logged. Clients count from the moment at which they sent.
//!
//! # Between members
//!
//! Members talk on connections of their own, which carry the kinds from 0x70 to 0x7e and no others;
//! a client's connection carries none of these ([`Splitter::between_members`]). [`PeerFrame`] tells
//! who sends what when. Nothing above about requests, credits and replies holds there.
//!
//! The members themselves are a [`MemberList`], whose bytes are the same wherever they stand: in an
//! entry of the log, in a snapshot, in an answer to a client.
//!
//! # Errors in what was received
//!
//! [`DecodeError::closes`] tells broken connections from refused requests. Before closing, the server
//! sends a refusal with [`DecodeError::status`] and the request id, or 0 where none is known.
//!
//! # Bounds
//!
//! See [`limits`].

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod alarm;
mod body;
mod error;
mod header;
mod kind;
mod lease;
pub mod limits;
mod member;
mod peer;
mod peer_encoder;
mod peer_message;
mod reader;
mod reply;
mod reply_writer;
mod request;
mod request_encoder;
mod splitter;
mod usage;
mod watch;

pub use alarm::{AlarmChange, AlarmReply, Alarms};
pub use error::{DecodeError, EncodeError, Status};
pub use header::{Flags, HEADER_SIZE, Header, MAGIC, VERSION_MAX, VERSION_MIN};
pub use kind::Kind;
pub use lease::{
    Keys, LeaseGrant, LeaseGrantReply, LeaseKeepAlive, LeaseKeepAliveReply, LeaseList,
    LeaseListReply, LeaseRevoke, LeaseRevokeReply, LeaseTimeToLive, LeaseTimeToLiveReply, Numbers,
};
pub use limits::{
    HANDSHAKE_BODY_SIZE_MAX, PEER_BODY_SIZE_MAX, REPLY_BODY_SIZE_MAX, REPLY_TABLES_MAX,
    REQUEST_TABLES_MAX, TXN_DEPTH_MAX, VerifyLimits,
};
pub use member::{
    MEMBER_ADDRESS_SIZE_MAX, MEMBER_LIST_SIZE_MAX, MEMBER_NAME_SIZE_MAX, MEMBERS_MAX, Member,
    MemberList, MemberListError, MemberRole, is_member_address, is_member_name,
};
pub use peer::{
    PeerForward, PeerForwardRefused, PeerFrame, PeerHello, PeerJoin, PeerJoinReply, PeerLane,
    PeerRefusal, PeerRefused, PeerSnapshotAck, PeerSnapshotBegin, PeerSnapshotChunk, PeerWelcome,
};
pub use peer_encoder::{PeerAppendWriter, PeerEncoder};
pub use peer_message::{AppendHead, AppliedState, PeerAppend, PeerMessage, TermRuns};
pub use reply::{
    CompactReply, DeleteRangeReply, Effect, HelloReply, KeyValue, KeyValues, LeaderHint,
    MemberChangeReply, MemberListReply, MoveLeaderReply, OpReply, PutReply, RaftRole, RangeReply,
    Refused, RegisterReply, Reply, StatusReply, Texts, TxnReplyView,
};
pub use reply_writer::{RangeSummary, RangeWriter, ReplyWriter, TxnWriter};
pub use request::{
    Compact, Compare, CompareResult, CompareTarget, DeleteRange, Hello, MemberChange,
    MemberOperation, MoveLeader, OpView, Put, Range, Request, SortOrder, SortTarget, TxnView,
    verify_hello,
};
pub use request_encoder::{Call, Op, RequestEncoder, Txn};
pub use splitter::{COPY_OUT_SIZE_MAX, Splitter};
pub use usage::{Limit, LimitUnit, Limits};
pub use watch::{
    Cause, ChangeKind, Watch, WatchChange, WatchChanges, WatchRange, WatchRanges, WatchReply,
    WatchStep, WatchWriter,
};
