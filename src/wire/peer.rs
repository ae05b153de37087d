//! Frames between members as they come in: a verified view of a body as plain borrowed Rust values.
//! [`PeerEncoder`](crate::PeerEncoder) takes the same values.
//!
//! They have the header of all frames, with request id, deadline, flags and status 0. Bodies have at
//! most [`HANDSHAKE_BODY_SIZE_MAX`](crate::HANDSHAKE_BODY_SIZE_MAX) bytes up to the welcome and
//! [`PEER_BODY_SIZE_MAX`](crate::PEER_BODY_SIZE_MAX) behind it. Whatever cannot be read ends the
//! connection: between members nothing is refused by itself.

use base::{FileId, Hash128, LogIndex, NodeId, Term};
use schema::peer as slots;

use crate::error::{DecodeError, Status};
use crate::header::{Flags, Header};
use crate::kind::Kind;
use crate::peer_message::{PeerAppend, PeerMessage};
use crate::reader::Table;
use crate::request::numbers;

numbers!(
    /// What a connection between members is for: a long append does not hold up a heartbeat.
    PeerLane, "lane", {
        /// Votes, heartbeats, acknowledgements, reads.
        #[default]
        Control = 0,
        /// Entries and snapshots.
        Bulk = 1,
    }
);

/// First frame of a member that dials another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerHello<'a> {
    /// Oldest protocol version that it speaks.
    pub version_min: u16,
    /// Newest protocol version that it speaks.
    pub version_max: u16,
    /// Its cluster.
    pub cluster: u64,
    /// The member that dials.
    pub from: NodeId,
    /// The member that it means to reach.
    pub to: NodeId,
    /// The random name of its data directory: another one under the same id has lost what the id
    /// had promised.
    pub data_id: FileId,
    /// The random name of this start of its process.
    pub start_id: u64,
    /// What the connection is for.
    pub lane: PeerLane,
    /// Where clients find it; empty: not told.
    pub client_address: &'a str,
    /// Where members find it that do not list it yet; empty: not told.
    pub peer_address: &'a str,
    /// What it is called; empty: not told.
    pub name: &'a str,
}

/// The member that was dialled accepts the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerWelcome {
    /// The protocol version of all frames that follow.
    pub version: u16,
    /// Its cluster.
    pub cluster: u64,
    /// Itself.
    pub member: NodeId,
    /// The random name of its data directory.
    pub data_id: FileId,
    /// The random name of this start of its process.
    pub start_id: u64,
    /// Its log is not empty, or it knows of a term.
    pub bootstrapped: bool,
    /// The last entry of its log.
    pub last_index: LogIndex,
    /// The term of that entry; of an empty log the term that the member is in.
    pub last_term: Term,
}

/// Why a member refuses a connection of another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum PeerRefusal {
    /// None of the others, or one that a newer release knows; the message says it.
    #[default]
    Unknown,
    /// No protocol version that both sides speak.
    Version,
    /// It belongs to another cluster.
    Cluster,
    /// The member that was dialled is not the one that was meant, or is the dialer itself.
    WrongMember,
    /// The dialer has been removed from the cluster.
    Removed,
    /// The dialer's id is known with another data directory.
    DataChanged,
    /// What was received is no proper frame.
    Malformed,
    /// The member's state differs from that of most others; it must stop.
    Diverged,
}

impl PeerRefusal {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Unknown => 0,
            Self::Version => 1,
            Self::Cluster => 2,
            Self::WrongMember => 3,
            Self::Removed => 4,
            Self::DataChanged => 5,
            Self::Malformed => 6,
            Self::Diverged => 7,
        }
    }

    /// The refusal with this number. A number that is not known here is no error: the refusal of a
    /// newer release must be understood as one.
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::Cluster,
            3 => Self::WrongMember,
            4 => Self::Removed,
            5 => Self::DataChanged,
            6 => Self::Malformed,
            7 => Self::Diverged,
            _ => Self::Unknown,
        }
    }

    /// What it means, for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "refused",
            Self::Version => "no common protocol version; upgrade the older member",
            Self::Cluster => "the member belongs to another cluster; check the peer addresses",
            Self::WrongMember => "another member answers at this address; check the peer addresses",
            Self::Removed => "this member has been removed from the cluster",
            Self::DataChanged => {
                "this member id is known with another data directory; replace the member instead"
            }
            Self::Malformed => "protocol error",
            Self::Diverged => "the state of this member differs from that of most others",
        }
    }
}

impl core::fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

/// The connection is refused and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerRefused<'a> {
    /// Why.
    pub code: PeerRefusal,
    /// Why, for people. Longer messages than 1 KiB are cut.
    pub message: &'a str,
}

/// An entry that the leader shall propose for another member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerForward<'a> {
    /// The sender's number for it; comes back in a refusal.
    pub sequence: u64,
    /// The log's number for the kind of entry.
    pub kind: u8,
    /// Whether it only gives space back, so that it may go on when space is short.
    pub frees_space: bool,
    /// Its payload.
    pub body: &'a [u8],
    /// The term whose leader is to propose it; none of another term may.
    pub term: Term,
}

/// A forwarded entry was not proposed and will not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerForwardRefused<'a> {
    /// The number of the forwarded entry.
    pub sequence: u64,
    /// Why.
    pub status: Status,
    /// Why, for people. Longer messages than 1 KiB are cut.
    pub message: &'a str,
}

/// A snapshot follows in chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerSnapshotBegin<'a> {
    /// The leader's term.
    pub term: Term,
    /// The last entry that the snapshot covers.
    pub index: LogIndex,
    /// Its term.
    pub index_term: Term,
    /// The log chain there.
    pub hash: Hash128,
    /// The entry that set the members; zero: the cluster began with them.
    pub configuration_index: LogIndex,
    /// The members there, a [`MemberList`](crate::MemberList).
    pub configuration: &'a [u8],
    /// The sender's number for the transfer.
    pub transfer: u64,
    /// Bytes of all chunks, about; 0: not known.
    pub size_hint: u64,
}

/// A part of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerSnapshotChunk<'a> {
    /// The transfer.
    pub transfer: u64,
    /// Its place, counted from 0.
    pub number: u64,
    /// No other follows.
    pub last: bool,
    /// Its bytes.
    pub data: &'a [u8],
}

/// How far a snapshot has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerSnapshotAck<'a> {
    /// The transfer.
    pub transfer: u64,
    /// The number of the chunk that is wanted next.
    pub next: u64,
    /// Why the transfer is over; empty: it goes on. Longer messages than 1 KiB are cut.
    pub refused: &'a str,
}

/// A process without an identity asks which member it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerJoin<'a> {
    /// The name it was given.
    pub name: &'a str,
    /// Where members reach it.
    pub address: &'a str,
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerJoinReply<'a> {
    /// The cluster.
    pub cluster: u64,
    /// The member that the process is; 0: it is not listed.
    pub member: NodeId,
    /// The members, a [`MemberList`](crate::MemberList); empty: not told.
    pub members: &'a [u8],
    /// What to do, for people. Longer messages than 1 KiB are cut.
    pub message: &'a str,
}

/// A verified frame between members:
///
/// ```text
///  dialer                              the member that is dialled
///  Hello   --------------------------->
///          <--------------------------- Welcome, or Refused and the connection ends
///  Raft, Append, Forward, ... -------->   only the dialer sends from here on
///
///  Join    --------------------------->   instead, by a process that has no identity yet
///          <--------------------------- JoinReply or Refused, and the connection ends
/// ```
///
/// So two members have a connection in each direction for each [`PeerLane`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum PeerFrame<'a> {
    /// First frame of a member that dials another one.
    Hello(PeerHello<'a>),
    /// The connection is accepted.
    Welcome(PeerWelcome),
    /// The connection is refused.
    Refused(PeerRefused<'a>),
    /// A raft message without entries.
    Raft(PeerMessage),
    /// Entries of the log.
    Append(PeerAppend<'a>),
    /// An entry that the leader shall propose.
    Forward(PeerForward<'a>),
    /// It was not proposed.
    ForwardRefused(PeerForwardRefused<'a>),
    /// A snapshot follows.
    SnapshotBegin(PeerSnapshotBegin<'a>),
    /// A part of it.
    SnapshotChunk(PeerSnapshotChunk<'a>),
    /// How far it has arrived.
    SnapshotAck(PeerSnapshotAck<'a>),
    /// A process asks which member it is.
    Join(PeerJoin<'a>),
    /// The answer.
    JoinReply(PeerJoinReply<'a>),
}

impl<'a> PeerFrame<'a> {
    /// Verifies the body of a frame between members.
    ///
    /// Errors: the other side is broken, or of a release that cannot be understood; close the
    /// connection, whatever [`DecodeError::closes`] says of clients.
    pub fn verify(header: &Header, body: &'a [u8]) -> Result<Self, DecodeError> {
        let kind = header.kind;
        if !kind.is_peer() {
            return Err(DecodeError::UnexpectedKind { kind });
        }
        if header.status != Status::Ok
            || header.flags != Flags::NONE
            || header.request.get() != 0
            || header.deadline_ms != 0
        {
            return Err(DecodeError::ReservedBits);
        }
        let table = Table::root(body)?;
        match kind {
            Kind::PeerRaft => PeerMessage::read(table).map(Self::Raft),
            Kind::PeerAppend => PeerAppend::read(table).map(Self::Append),
            Kind::PeerForward => forward(table).map(Self::Forward),
            Kind::PeerForwardRefused => forward_refused(table).map(Self::ForwardRefused),
            Kind::PeerSnapshotBegin => snapshot_begin(table).map(Self::SnapshotBegin),
            Kind::PeerSnapshotChunk => snapshot_chunk(table).map(Self::SnapshotChunk),
            Kind::PeerSnapshotAck => snapshot_ack(table).map(Self::SnapshotAck),
            Kind::PeerHello => hello(table).map(Self::Hello),
            Kind::PeerWelcome => welcome(table).map(Self::Welcome),
            Kind::PeerRefused => refused(table).map(Self::Refused),
            Kind::PeerJoin => join(table).map(Self::Join),
            Kind::PeerJoinReply => join_reply(table).map(Self::JoinReply),
            _ => Err(DecodeError::UnexpectedKind { kind }),
        }
    }

    /// The kind of frame that carries this.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::PeerHello,
            Self::Welcome(_) => Kind::PeerWelcome,
            Self::Refused(_) => Kind::PeerRefused,
            Self::Raft(..) => Kind::PeerRaft,
            Self::Append(_) => Kind::PeerAppend,
            Self::Forward(_) => Kind::PeerForward,
            Self::ForwardRefused(_) => Kind::PeerForwardRefused,
            Self::SnapshotBegin(_) => Kind::PeerSnapshotBegin,
            Self::SnapshotChunk(_) => Kind::PeerSnapshotChunk,
            Self::SnapshotAck(_) => Kind::PeerSnapshotAck,
            Self::Join(_) => Kind::PeerJoin,
            Self::JoinReply(_) => Kind::PeerJoinReply,
        }
    }
}

/// A hash; absent is the hash of nothing.
#[inline]
pub(crate) fn hash(table: Table<'_>, slot: u16) -> Result<Hash128, DecodeError> {
    Ok(table.bytes16(slot)?.map_or(Hash128::ZERO, Hash128::from_bytes))
}

/// A random name; absent is 0.
fn file_id(table: Table<'_>, slot: u16) -> Result<FileId, DecodeError> {
    Ok(FileId::new(table.bytes16(slot)?.map_or(0, u128::from_le_bytes)))
}

/// An index or a term. No log gets as far as half of the numbers, and who receives one may add to
/// it: what comes from outside must not make that overflow.
#[inline]
fn position(table: Table<'_>, slot: u16, field: &'static str) -> Result<u64, DecodeError> {
    let number = table.u64(slot)?;
    if number <= u64::MAX / 2 {
        Ok(number)
    } else {
        Err(DecodeError::UnknownNumber { field, number })
    }
}

/// An index of the log.
#[inline]
pub(crate) fn index(table: Table<'_>, slot: u16) -> Result<LogIndex, DecodeError> {
    position(table, slot, "index").map(LogIndex::new)
}

/// A term.
#[inline]
pub(crate) fn term(table: Table<'_>, slot: u16) -> Result<Term, DecodeError> {
    position(table, slot, "term").map(Term::new)
}

fn node(table: Table<'_>, slot: u16) -> Result<NodeId, DecodeError> {
    table.u64(slot).map(NodeId::new)
}

fn hello(table: Table<'_>) -> Result<PeerHello<'_>, DecodeError> {
    use slots::Hello as Slots;
    Ok(PeerHello {
        version_min: table.u16(Slots::VT_VERSION_MIN)?,
        version_max: table.u16(Slots::VT_VERSION_MAX)?,
        cluster: table.u64(Slots::VT_CLUSTER_ID)?,
        from: node(table, Slots::VT_FROM)?,
        to: node(table, Slots::VT_TO)?,
        data_id: file_id(table, Slots::VT_DATA_ID)?,
        start_id: table.u64(Slots::VT_START_ID)?,
        lane: PeerLane::try_from(table.u8(Slots::VT_LANE)?)?,
        client_address: table.text(Slots::VT_CLIENT_ADDRESS)?,
        peer_address: table.text(Slots::VT_PEER_ADDRESS)?,
        name: table.text(Slots::VT_NAME)?,
    })
}

fn welcome(table: Table<'_>) -> Result<PeerWelcome, DecodeError> {
    use slots::Welcome as Slots;
    Ok(PeerWelcome {
        version: table.u16(Slots::VT_VERSION)?,
        cluster: table.u64(Slots::VT_CLUSTER_ID)?,
        member: node(table, Slots::VT_MEMBER_ID)?,
        data_id: file_id(table, Slots::VT_DATA_ID)?,
        start_id: table.u64(Slots::VT_START_ID)?,
        bootstrapped: table.bool(Slots::VT_BOOTSTRAPPED)?,
        last_index: index(table, Slots::VT_LAST_INDEX)?,
        last_term: term(table, Slots::VT_LAST_TERM)?,
    })
}

fn refused(table: Table<'_>) -> Result<PeerRefused<'_>, DecodeError> {
    use slots::Refused as Slots;
    Ok(PeerRefused {
        code: PeerRefusal::from_number(table.u16(Slots::VT_CODE)?),
        message: table.text(Slots::VT_MESSAGE)?,
    })
}

fn forward(table: Table<'_>) -> Result<PeerForward<'_>, DecodeError> {
    use slots::Forward as Slots;
    Ok(PeerForward {
        sequence: table.u64(Slots::VT_SEQUENCE)?,
        kind: table.u8(Slots::VT_KIND)?,
        frees_space: table.bool(Slots::VT_FREES_SPACE)?,
        body: table.bytes(Slots::VT_BODY)?.unwrap_or_default(),
        term: term(table, Slots::VT_TERM)?,
    })
}

fn forward_refused(table: Table<'_>) -> Result<PeerForwardRefused<'_>, DecodeError> {
    use slots::ForwardRefused as Slots;
    Ok(PeerForwardRefused {
        sequence: table.u64(Slots::VT_SEQUENCE)?,
        status: Status::try_from(table.u16(Slots::VT_STATUS)?)?,
        message: table.text(Slots::VT_MESSAGE)?,
    })
}

fn snapshot_begin(table: Table<'_>) -> Result<PeerSnapshotBegin<'_>, DecodeError> {
    use slots::SnapshotBegin as Slots;
    Ok(PeerSnapshotBegin {
        term: term(table, Slots::VT_TERM)?,
        index: index(table, Slots::VT_INDEX)?,
        index_term: term(table, Slots::VT_INDEX_TERM)?,
        hash: hash(table, Slots::VT_HASH)?,
        configuration_index: index(table, Slots::VT_CONFIGURATION_INDEX)?,
        configuration: table.bytes(Slots::VT_CONFIGURATION)?.unwrap_or_default(),
        transfer: table.u64(Slots::VT_TRANSFER_ID)?,
        size_hint: table.u64(Slots::VT_SIZE_HINT)?,
    })
}

fn snapshot_chunk(table: Table<'_>) -> Result<PeerSnapshotChunk<'_>, DecodeError> {
    use slots::SnapshotChunk as Slots;
    Ok(PeerSnapshotChunk {
        transfer: table.u64(Slots::VT_TRANSFER_ID)?,
        number: table.u64(Slots::VT_NUMBER)?,
        last: table.bool(Slots::VT_LAST)?,
        data: table.bytes(Slots::VT_DATA)?.unwrap_or_default(),
    })
}

fn snapshot_ack(table: Table<'_>) -> Result<PeerSnapshotAck<'_>, DecodeError> {
    use slots::SnapshotAck as Slots;
    Ok(PeerSnapshotAck {
        transfer: table.u64(Slots::VT_TRANSFER_ID)?,
        next: table.u64(Slots::VT_NEXT)?,
        refused: table.text(Slots::VT_REFUSED)?,
    })
}

fn join(table: Table<'_>) -> Result<PeerJoin<'_>, DecodeError> {
    use slots::Join as Slots;
    Ok(PeerJoin { name: table.text(Slots::VT_NAME)?, address: table.text(Slots::VT_ADDRESS)? })
}

fn join_reply(table: Table<'_>) -> Result<PeerJoinReply<'_>, DecodeError> {
    use slots::JoinReply as Slots;
    Ok(PeerJoinReply {
        cluster: table.u64(Slots::VT_CLUSTER_ID)?,
        member: node(table, Slots::VT_MEMBER_ID)?,
        members: table.bytes(Slots::VT_MEMBERS)?.unwrap_or_default(),
        message: table.text(Slots::VT_MESSAGE)?,
    })
}
