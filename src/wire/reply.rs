//! Replies as they come in: a verified view of a body as plain borrowed Rust values, for clients.
//!
//! The same structs, lists apart, are what [`ReplyWriter`](crate::ReplyWriter) takes.

use alloc::vec::Vec;
use base::{ClientId, NodeId};

use crate::alarm::{AlarmReply, Alarms};
use crate::error::{DecodeError, Status};
use crate::header::Header;
use crate::kind::Kind;
use crate::lease::{
    LeaseGrantReply, LeaseKeepAliveReply, LeaseListReply, LeaseRevokeReply, LeaseTimeToLiveReply,
};
use crate::limits::VerifyLimits;
use crate::reader::{Budget, Table, Tables};
use crate::request::{numbers, root};
use crate::usage::Limits;
use crate::watch::WatchReply;

/// Whether a refused write has taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Effect {
    /// It has not and will not.
    #[default]
    None,
    /// It has; only its answer is missing.
    Applied,
    /// It may have, or may yet.
    Unknown,
}

impl Effect {
    /// The number on the wire.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Applied => 1,
            Self::Unknown => 2,
        }
    }
}

/// A key and what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; empty where only keys were asked for.
    pub value: &'a [u8],
    /// The revision of its creation.
    pub create_revision: i64,
    /// The revision of its last put.
    pub mod_revision: i64,
    /// How often it was put since its creation.
    pub version: i64,
    /// Its lease; 0: none.
    pub lease: i64,
}

/// Bytes of an `Entry` of the schema.
pub(crate) const ENTRY_SIZE: usize = 40;

/// Where the two sizes stand in an entry, behind four numbers of 64 bits.
const KEY_SIZE_AT: usize = 32;
const VALUE_SIZE_AT: usize = 36;

/// A list of keys, read in place. Iterating it gives them in the order they were written.
#[derive(Clone, Copy, Default)]
pub struct KeyValues<'a> {
    /// The entries that have not been taken yet, of [`ENTRY_SIZE`] bytes each.
    entries: &'a [u8],
    /// The bytes that belong to them: exactly what their sizes add up to.
    data: &'a [u8],
}

impl<'a> KeyValues<'a> {
    /// Checks that the entries take exactly the bytes of the data.
    #[inline]
    fn checked(table: Option<Table<'a>>) -> Result<Self, DecodeError> {
        use schema::KeyValues as Slots;
        let Some(table) = table else { return Ok(Self::default()) };
        let data = table.required_bytes(Slots::VT_DATA, "data")?;
        let entries = table
            .structs(Slots::VT_ENTRIES, ENTRY_SIZE)?
            .ok_or(DecodeError::MissingField { field: "entries" })?;
        let (members, _) = entries.as_chunks::<ENTRY_SIZE>();
        // Cannot overflow: fewer than 2^32 entries of less than 2^33 bytes each.
        let size: u64 = members
            .iter()
            .map(|entry| {
                u64::from(word(entry, KEY_SIZE_AT)) + u64::from(word(entry, VALUE_SIZE_AT))
            })
            .sum();
        if u64::try_from(data.len()) == Ok(size) {
            Ok(Self { entries, data })
        } else {
            Err(DecodeError::SizesDisagree)
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the entries and of the data.
    fn size(&self) -> usize {
        self.entries.len() + self.data.len()
    }

    /// Takes `size` bytes off the data.
    #[inline]
    fn take(&mut self, size: u32) -> &'a [u8] {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let (taken, rest) =
            self.data.split_at_checked(size).expect("sizes were checked to add up to the data");
        self.data = rest;
        taken
    }
}

#[inline]
fn word(entry: &[u8; ENTRY_SIZE], at: usize) -> u32 {
    u32::from_le_bytes(*entry[at..].first_chunk().expect("sizes lie inside an entry"))
}

#[inline]
fn number(entry: &[u8; ENTRY_SIZE], index: usize) -> i64 {
    i64::from_le_bytes(*entry[8 * index..].first_chunk().expect("numbers lie inside an entry"))
}

impl<'a> Iterator for KeyValues<'a> {
    type Item = KeyValue<'a>;

    #[inline]
    fn next(&mut self) -> Option<KeyValue<'a>> {
        let (entry, rest) = self.entries.split_first_chunk::<ENTRY_SIZE>()?;
        self.entries = rest;
        Some(KeyValue {
            key: self.take(word(entry, KEY_SIZE_AT)),
            value: self.take(word(entry, VALUE_SIZE_AT)),
            create_revision: number(entry, 0),
            mod_revision: number(entry, 1),
            version: number(entry, 2),
            lease: number(entry, 3),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.entries.len() / ENTRY_SIZE;
        (count, Some(count))
    }
}

impl ExactSizeIterator for KeyValues<'_> {}

impl core::fmt::Debug for KeyValues<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl PartialEq for KeyValues<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && (*self).eq(*other)
    }
}

/// Who leads, as far as the answering member knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaderHint<'a> {
    /// The leader; 0: none known.
    pub member: NodeId,
    /// Where clients reach it; empty: unknown, or the answering member itself.
    pub address: &'a str,
}

/// What a connection may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HelloReply<'a> {
    /// The protocol version of all frames that follow.
    pub version: u16,
    /// The cluster.
    pub cluster: u64,
    /// The answering member.
    pub member: NodeId,
    /// Requests that may be unanswered; cancels do not count.
    pub requests_max: u32,
    /// Bytes of unanswered request frames, headers included. One greatest request always fits.
    pub bytes_max: u32,
    /// Bytes of the greatest key.
    pub key_size_max: u32,
    /// Bytes of the greatest value.
    pub value_size_max: u32,
    /// Bytes of the greatest body of a request.
    pub request_body_size_max: u32,
    /// Bytes of the greatest body of a reply.
    pub reply_body_size_max: u32,
    /// Who leads.
    pub leader: LeaderHint<'a>,
}

numbers!(
    /// What a member is in its term.
    RaftRole, "role", {
        /// It votes and follows a leader, or waits for one.
        #[default]
        Follower = 0,
        /// It asks for votes.
        Candidate = 1,
        /// It leads.
        Leader = 2,
        /// It gets the log and has no vote.
        Learner = 3,
    }
);

/// A few texts, to be written or read in place.
#[derive(Clone, Copy)]
pub enum Texts<'a> {
    /// To be written.
    Given(&'a [&'a str]),
    /// Verified, in a reply.
    Read(Option<flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<&'a str>>>),
}

impl<'a> Texts<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Given(texts) => texts.len(),
            Self::Read(vector) => vector.map_or(0, |vector| vector.len()),
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (given, read) = match *self {
            Self::Given(texts) => (texts, None),
            Self::Read(vector) => (Default::default(), vector),
        };
        given.iter().copied().chain(read.into_iter().flatten())
    }
}

impl Default for Texts<'_> {
    fn default() -> Self {
        Self::Given(&[])
    }
}

impl core::fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Texts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Texts<'_> {}

/// The state of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatusReply<'a> {
    /// Version of the server's program.
    pub server_version: &'a str,
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
    /// Bytes of the page file.
    pub file_size: u64,
    /// Bytes of the page file that hold something.
    pub file_size_in_use: u64,
    /// Bytes of the log that are in use.
    pub log_size: u64,
    /// Bytes the page file may grow to; 0: no quota.
    pub quota_size: u64,
    /// The member has no vote.
    pub is_learner: bool,
    /// Writes are refused for want of space: an alarm of a member, or the disk of this one.
    pub no_space: bool,
    /// Members disagree about the state, or an alarm says so.
    pub corrupt: bool,
    /// The member's name.
    pub member_name: &'a str,
    /// What it is in its term.
    pub role: RaftRole,
    /// What an operator should look at.
    pub errors: Texts<'a>,
    /// Clients that have registered and are remembered.
    pub clients: u64,
    /// The alarms of all members.
    pub alarms: Alarms<'a>,
}

/// Who the members are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberListReply<'a> {
    /// An encoded [`MemberList`](crate::MemberList).
    pub members: &'a [u8],
    /// The leader; 0: none known.
    pub leader: NodeId,
}

/// The members have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberChangeReply<'a> {
    /// The member that was changed, or came to be.
    pub member: NodeId,
    /// An encoded [`MemberList`](crate::MemberList).
    pub members: &'a [u8],
    /// The leader; 0: none known.
    pub leader: NodeId,
}

/// Leadership has been handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MoveLeaderReply {
    /// The leader now.
    pub leader: NodeId,
}

/// A key was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PutReply<'a> {
    /// The revision of the put.
    pub revision: i64,
    /// The key as it was before, if that was asked for and it existed.
    pub previous: Option<KeyValue<'a>>,
    /// The lease that was made for the key, if that was asked for; else 0.
    pub lease: i64,
}

/// A piece of a range, or all of it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RangeReply<'a> {
    /// The newest revision when the range was read.
    pub revision: i64,
    /// Keys in the range, limit and revision bounds ignored. Last piece only.
    pub count: i64,
    /// The limit cut keys off. Last piece only.
    pub more: bool,
    /// The keys of this piece.
    pub kvs: KeyValues<'a>,
}

/// Keys were deleted.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DeleteRangeReply<'a> {
    /// The revision of the deletion; the newest one if nothing was deleted.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// The keys as they were, if that was asked for.
    pub previous: KeyValues<'a>,
}

/// A client has an id for the stamps of its writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegisterReply {
    /// The id.
    pub client: ClientId,
    /// A write whose number is this much beyond the oldest unanswered one, or more, is refused.
    pub unanswered_max: u32,
}

/// History was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CompactReply {
    /// The newest revision.
    pub revision: i64,
}

/// A request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused<'a> {
    /// Why. In the frame it stands in the header.
    pub status: Status,
    /// Why, for people. Longer messages than 1 KiB are cut.
    pub message: &'a str,
    /// Who leads.
    pub leader: LeaderHint<'a>,
    /// When to come back, in milliseconds; 0: no advice.
    pub retry_after_ms: u32,
    /// What reads below are refused, where that is the reason; else 0.
    pub compacted_revision: i64,
    /// The newest revision, where that explains the refusal; else 0.
    pub current_revision: i64,
    /// Whether a write has taken effect.
    pub effect: Effect,
}

impl<'a> Refused<'a> {
    /// A refusal with the status' own text and no effect.
    pub const fn new(status: Status) -> Self {
        Self {
            status,
            message: status.text(),
            leader: LeaderHint { member: NodeId::new(0), address: "" },
            retry_after_ms: 0,
            compacted_revision: 0,
            current_revision: 0,
            effect: match status {
                Status::Unknown => Effect::Unknown,
                _ => Effect::None,
            },
        }
    }

    /// The same refusal with another text.
    #[must_use]
    pub const fn with_message(self, message: &'a str) -> Self {
        Self { message, ..self }
    }

    /// The same refusal with a hint.
    #[must_use]
    pub const fn with_leader(self, leader: LeaderHint<'a>) -> Self {
        Self { leader, ..self }
    }

    /// The same refusal with another effect.
    #[must_use]
    pub const fn with_effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }
}

/// The reply to a transaction, read in place.
#[derive(Clone, Copy)]
pub struct TxnReplyView<'a> {
    revision: i64,
    succeeded: bool,
    responses: Tables<'a>,
}

/// The reply to one operation of a transaction.
#[derive(Clone, Copy, Debug)]
pub enum OpReply<'a> {
    /// A key was written.
    Put(PutReply<'a>),
    /// A range was read; always in one piece.
    Range(RangeReply<'a>),
    /// Keys were deleted.
    DeleteRange(DeleteRangeReply<'a>),
    /// A transaction inside the transaction.
    Txn(TxnReplyView<'a>),
}

/// Whether an answer of this kind may come in pieces.
const fn may_have_more(kind: Kind) -> bool {
    matches!(kind, Kind::RangeReply | Kind::WatchReply | Kind::SnapshotReply)
}

/// A verified reply.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// What the connection may do.
    Hello(HelloReply<'a>),
    /// A sign of life.
    Ping,
    /// The state of the member.
    Status(StatusReply<'a>),
    /// The limits of the member, and their use.
    Limits(Limits<'a>),
    /// A chunk of what the member keeps; the header's flags tell whether more follow.
    Snapshot(&'a [u8]),
    /// A client has an id.
    Register(RegisterReply),
    /// A key was written.
    Put(PutReply<'a>),
    /// A piece of a range; the header's flags tell whether more follow.
    Range(RangeReply<'a>),
    /// Keys were deleted.
    DeleteRange(DeleteRangeReply<'a>),
    /// A transaction was done.
    Txn(TxnReplyView<'a>),
    /// History was given up.
    Compact(CompactReply),
    /// What a watch tells.
    Watch(WatchReply<'a>),
    /// A lease was made.
    LeaseGrant(LeaseGrantReply),
    /// A lease was ended.
    LeaseRevoke(LeaseRevokeReply),
    /// Leases begin their time anew.
    LeaseKeepAlive(LeaseKeepAliveReply<'a>),
    /// A lease's time.
    LeaseTimeToLive(LeaseTimeToLiveReply<'a>),
    /// The leases that there are.
    LeaseList(LeaseListReply<'a>),
    /// Who the members are.
    MemberList(MemberListReply<'a>),
    /// The members have changed.
    MemberChange(MemberChangeReply<'a>),
    /// Leadership has been handed over.
    MoveLeader(MoveLeaderReply),
    /// Alarms are up, or were disarmed.
    Alarm(AlarmReply<'a>),
    /// The request was refused.
    Refused(Refused<'a>),
}

impl<'a> Reply<'a> {
    /// Verifies the body of a reply frame.
    ///
    /// Errors: the server is broken, or something that speaks for it; close the connection.
    #[inline]
    pub fn verify(header: &Header, body: &'a [u8]) -> Result<Self, DecodeError> {
        let kind = header.kind;
        let refused = kind == Kind::Refused;
        if refused == (header.status == Status::Ok)
            || (header.flags.has_more() && !may_have_more(kind))
            || header.flags.has_stamp()
        {
            return Err(DecodeError::Malformed);
        }
        match kind {
            Kind::PutReply => put(Table::root(body)?).map(Self::Put),
            Kind::RangeReply => range(Table::root(body)?).map(Self::Range),
            Kind::DeleteRangeReply => delete_range(Table::root(body)?).map(Self::DeleteRange),
            Kind::TxnReply => {
                let limits = VerifyLimits::REPLY;
                let mut budget = Budget::new(&limits, body.len());
                TxnReplyView::checked(Table::root(body)?, limits.txn_depth_max, &mut budget)
                    .map(Self::Txn)
            }
            Kind::CompactReply => {
                let table = root::<schema::CompactReply<'_>>(body)?;
                Ok(Self::Compact(CompactReply { revision: table.revision() }))
            }
            Kind::StatusReply => {
                let table = root::<schema::StatusReply<'_>>(body)?;
                status(table).map(Self::Status)
            }
            Kind::LimitsReply => Limits::read(body).map(Self::Limits),
            Kind::SnapshotReply => {
                let chunk = Table::root(body)?.bytes(schema::SnapshotReply::VT_CHUNK)?;
                Ok(Self::Snapshot(chunk.unwrap_or_default()))
            }
            Kind::RegisterReply => {
                let table = root::<schema::RegisterReply<'_>>(body)?;
                Ok(Self::Register(RegisterReply {
                    client: ClientId::new(table.client_id()),
                    unanswered_max: table.unanswered_max(),
                }))
            }
            Kind::WatchReply => WatchReply::read(Table::root(body)?).map(Self::Watch),
            Kind::LeaseGrantReply => {
                LeaseGrantReply::read(Table::root(body)?).map(Self::LeaseGrant)
            }
            Kind::LeaseRevokeReply => {
                LeaseRevokeReply::read(Table::root(body)?).map(Self::LeaseRevoke)
            }
            Kind::LeaseKeepAliveReply => {
                LeaseKeepAliveReply::read(Table::root(body)?).map(Self::LeaseKeepAlive)
            }
            Kind::LeaseTimeToLiveReply => {
                LeaseTimeToLiveReply::read(Table::root(body)?).map(Self::LeaseTimeToLive)
            }
            Kind::LeaseListReply => LeaseListReply::read(Table::root(body)?).map(Self::LeaseList),
            Kind::MemberListReply => {
                let table = root::<schema::MemberListReply<'_>>(body)?;
                Ok(Self::MemberList(MemberListReply {
                    members: table.members().map(|vector| vector.bytes()).unwrap_or_default(),
                    leader: NodeId::new(table.leader_member()),
                }))
            }
            Kind::MemberChangeReply => {
                let table = root::<schema::MemberChangeReply<'_>>(body)?;
                Ok(Self::MemberChange(MemberChangeReply {
                    member: NodeId::new(table.member_id()),
                    members: table.members().map(|vector| vector.bytes()).unwrap_or_default(),
                    leader: NodeId::new(table.leader_member()),
                }))
            }
            Kind::MoveLeaderReply => {
                let table = root::<schema::MoveLeaderReply<'_>>(body)?;
                let leader = NodeId::new(table.leader_member());
                Ok(Self::MoveLeader(MoveLeaderReply { leader }))
            }
            Kind::AlarmReply => AlarmReply::read(Table::root(body)?).map(Self::Alarm),
            Kind::HelloReply => {
                let table = root::<schema::HelloReply<'_>>(body)?;
                Ok(Self::Hello(hello(table)))
            }
            Kind::Refused => {
                let table = root::<schema::Refused<'_>>(body)?;
                refusal(header.status, table).map(Self::Refused)
            }
            Kind::PingReply if body.is_empty() => Ok(Self::Ping),
            Kind::PingReply => Err(DecodeError::Malformed),
            Kind::Hello
            | Kind::Ping
            | Kind::Cancel
            | Kind::Status
            | Kind::Limits
            | Kind::Snapshot
            | Kind::Register
            | Kind::Put
            | Kind::Range
            | Kind::DeleteRange
            | Kind::Txn
            | Kind::Compact
            | Kind::Watch
            | Kind::WatchProgress
            | Kind::LeaseGrant
            | Kind::LeaseRevoke
            | Kind::LeaseKeepAlive
            | Kind::LeaseTimeToLive
            | Kind::LeaseList
            | Kind::MemberList
            | Kind::MemberChange
            | Kind::MoveLeader
            | Kind::Alarm
            | Kind::PeerHello
            | Kind::PeerWelcome
            | Kind::PeerRefused
            | Kind::PeerRaft
            | Kind::PeerAppend
            | Kind::PeerForward
            | Kind::PeerForwardRefused
            | Kind::PeerSnapshotBegin
            | Kind::PeerSnapshotChunk
            | Kind::PeerSnapshotAck
            | Kind::PeerJoin
            | Kind::PeerJoinReply => Err(DecodeError::UnexpectedKind { kind }),
        }
    }
}

fn hello(table: schema::HelloReply<'_>) -> HelloReply<'_> {
    HelloReply {
        version: table.version(),
        cluster: table.cluster_id(),
        member: NodeId::new(table.member_id()),
        requests_max: table.requests_max(),
        bytes_max: table.bytes_max(),
        key_size_max: table.key_size_max(),
        value_size_max: table.value_size_max(),
        request_body_size_max: table.request_body_size_max(),
        reply_body_size_max: table.reply_body_size_max(),
        leader: LeaderHint {
            member: NodeId::new(table.leader_member()),
            address: table.leader_address().unwrap_or_default(),
        },
    }
}

fn status(table: schema::StatusReply<'_>) -> Result<StatusReply<'_>, DecodeError> {
    Ok(StatusReply {
        server_version: table.server_version().unwrap_or_default(),
        cluster: table.cluster_id(),
        member: NodeId::new(table.member_id()),
        leader: NodeId::new(table.leader_member()),
        term: table.term(),
        last_index: table.last_index(),
        committed_index: table.committed_index(),
        applied_index: table.applied_index(),
        revision: table.revision(),
        compacted_revision: table.compacted_revision(),
        file_size: table.file_size(),
        file_size_in_use: table.file_size_in_use(),
        log_size: table.log_size(),
        quota_size: table.quota_size(),
        is_learner: table.is_learner(),
        no_space: table.no_space(),
        corrupt: table.corrupt(),
        member_name: table.member_name().unwrap_or_default(),
        role: RaftRole::try_from(table.role().0)?,
        errors: Texts::Read(table.errors()),
        clients: table.clients(),
        alarms: Alarms::read(table.alarms().map(|alarms| alarms.bytes()).unwrap_or_default())?,
    })
}

fn refusal(status: Status, table: schema::Refused<'_>) -> Result<Refused<'_>, DecodeError> {
    let effect = match table.effect() {
        schema::Effect::None => Effect::None,
        schema::Effect::Applied => Effect::Applied,
        schema::Effect::Unknown => Effect::Unknown,
        schema::Effect(number) => {
            return Err(DecodeError::UnknownNumber { field: "effect", number: u64::from(number) });
        }
    };
    Ok(Refused {
        status,
        message: table.message().unwrap_or_default(),
        leader: LeaderHint {
            member: NodeId::new(table.leader_member()),
            address: table.leader_address().unwrap_or_default(),
        },
        retry_after_ms: table.retry_after_ms(),
        compacted_revision: table.compacted_revision(),
        current_revision: table.current_revision(),
        effect,
    })
}

#[inline]
fn put(table: Table<'_>) -> Result<PutReply<'_>, DecodeError> {
    use schema::PutReply as Slots;
    let mut previous = KeyValues::checked(table.table(Slots::VT_PREVIOUS)?)?;
    if previous.len() > 1 {
        return Err(DecodeError::Malformed);
    }
    Ok(PutReply {
        revision: table.i64(Slots::VT_REVISION)?,
        previous: previous.next(),
        lease: table.i64(Slots::VT_LEASE)?,
    })
}

#[inline]
fn range(table: Table<'_>) -> Result<RangeReply<'_>, DecodeError> {
    use schema::RangeReply as Slots;
    Ok(RangeReply {
        revision: table.i64(Slots::VT_REVISION)?,
        count: table.i64(Slots::VT_COUNT)?,
        more: table.bool(Slots::VT_MORE)?,
        kvs: KeyValues::checked(table.table(Slots::VT_KVS)?)?,
    })
}

#[inline]
fn delete_range(table: Table<'_>) -> Result<DeleteRangeReply<'_>, DecodeError> {
    use schema::DeleteRangeReply as Slots;
    Ok(DeleteRangeReply {
        revision: table.i64(Slots::VT_REVISION)?,
        deleted: table.i64(Slots::VT_DELETED)?,
        previous: KeyValues::checked(table.table(Slots::VT_PREVIOUS)?)?,
    })
}

fn operation(table: Table<'_>) -> Result<OpReply<'_>, DecodeError> {
    use schema::OperationReply as Slots;
    match (
        table.table(Slots::VT_PUT)?,
        table.table(Slots::VT_RANGE)?,
        table.table(Slots::VT_DELETE_RANGE)?,
        table.table(Slots::VT_TXN)?,
    ) {
        (Some(table), None, None, None) => put(table).map(OpReply::Put),
        (None, Some(table), None, None) => range(table).map(OpReply::Range),
        (None, None, Some(table), None) => delete_range(table).map(OpReply::DeleteRange),
        (None, None, None, Some(table)) => TxnReplyView::unchecked(table).map(OpReply::Txn),
        _ => Err(DecodeError::NotOneOperation),
    }
}

impl<'a> TxnReplyView<'a> {
    /// The fields of a transaction's reply; its responses have not been looked at.
    fn unchecked(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::TxnReply as Slots;
        Ok(Self {
            revision: table.i64(Slots::VT_REVISION)?,
            succeeded: table.bool(Slots::VT_SUCCEEDED)?,
            responses: table.tables(Slots::VT_RESPONSES)?,
        })
    }

    /// Reads every response once, those of nested transactions included: reading them again gives
    /// the same and cannot fail. No recursion: the depth is the sender's choice.
    fn checked(
        table: Table<'a>,
        depth_max: usize,
        budget: &mut Budget,
    ) -> Result<Self, DecodeError> {
        let outermost = Self::unchecked(table)?;
        budget.spend(table.size() + 4 * outermost.responses.len())?;
        let mut waiting = Vec::new();
        let mut next = Some((outermost, 1));
        while let Some((view, depth)) = next {
            if depth > depth_max {
                return Err(DecodeError::TooComplex);
            }
            for member in view.responses {
                let table = member?;
                let size = match operation(table)? {
                    OpReply::Put(reply) => {
                        reply.previous.map_or(0, |member| member.key.len() + member.value.len())
                    }
                    OpReply::Range(reply) => reply.kvs.size(),
                    OpReply::DeleteRange(reply) => reply.previous.size(),
                    OpReply::Txn(inner) => {
                        waiting.push((inner, depth + 1));
                        4 * inner.responses.len()
                    }
                };
                // One for the operation, one for the table inside it.
                budget.spend(table.size())?;
                budget.spend(size)?;
            }
            next = waiting.pop();
        }
        Ok(outermost)
    }

    /// The revision of the transaction; the newest one if it changed nothing. 0 in a nested one.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether the conditions held.
    pub fn succeeded(&self) -> bool {
        self.succeeded
    }

    /// The replies to the operations that were done, in their order.
    pub fn responses(&self) -> impl ExactSizeIterator<Item = OpReply<'a>> + use<'a> {
        self.responses
            .map(|table| table.and_then(operation).expect("checked when the reply was verified"))
    }
}

impl core::fmt::Debug for TxnReplyView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TxnReplyView")
            .field("revision", &self.revision())
            .field("succeeded", &self.succeeded())
            .field("responses", &self.responses().len())
            .finish()
    }
}
