//! What the roles say to each other.
//!
//! Links are first in, first out each; nothing is promised across links. A message cannot be lost:
//! the process dies whole.

use alloc::string::String;
use alloc::vec::Vec;
use base::{Frame, Hash128, Instant, LogIndex, NodeId, Revision, STAMP_SIZE, Stamp, Term, Ticket};
use kv::{Point, Wanted};
use raft::RoleName;
use wire::Status;

/// Kinds of entries, by their numbers.
pub const KINDS: usize = EntryKind::Alarm as usize + 1;

/// What the payload of a log entry is. Stored in the WAL: numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// The empty entry of a new leader.
    Empty = 0,
    /// The body of a `Put` request.
    Put = 1,
    /// The body of a `DeleteRange` request.
    DeleteRange = 2,
    /// The body of a `Txn` request.
    Txn = 3,
    /// The body of a `Compact` request.
    Compact = 4,
    /// The members from here on, as `wire::MemberList` encodes them.
    Members = 5,
    /// The registration of a client: how many are remembered from here on, 4 bytes, little endian.
    Register = 6,
    /// A log time and the body of a `Put` request that has a lease made for its key.
    PutWithTtl = 7,
    /// A log time and the body of a `LeaseGrant` request.
    LeaseGrant = 8,
    /// The body of a `LeaseRevoke` request.
    LeaseRevoke = 9,
    /// A log time and leases that begin their time anew, 8 bytes each, little endian.
    LeaseKeepAlive = 10,
    /// A log time and a lease whose time is up: its id, the entry that made it, and whether each of its
    /// keys goes in a revision of its own, 17 bytes, little endian.
    LeaseExpire = 11,
    /// A log time, so that a start finds one that is not old.
    LogTime = 12,
    /// The body of an `Alarm` request; a member whose store reaches its quota makes one itself.
    Alarm = 13,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Empty,
            1 => Self::Put,
            2 => Self::DeleteRange,
            3 => Self::Txn,
            4 => Self::Compact,
            5 => Self::Members,
            6 => Self::Register,
            7 => Self::PutWithTtl,
            8 => Self::LeaseGrant,
            9 => Self::LeaseRevoke,
            10 => Self::LeaseKeepAlive,
            11 => Self::LeaseExpire,
            12 => Self::LogTime,
            13 => Self::Alarm,
            _ => return None,
        })
    }

    /// Whether an entry of this kind may go on when space is short: it gives space back, or takes next to none.
    pub const fn frees_space(self) -> bool {
        match self {
            Self::Empty
            | Self::DeleteRange
            | Self::Compact
            | Self::Members
            | Self::LeaseRevoke
            | Self::LeaseKeepAlive
            | Self::LeaseExpire
            | Self::LogTime
            | Self::Alarm => true,
            Self::Put | Self::Txn | Self::Register | Self::PutWithTtl | Self::LeaseGrant => false,
        }
    }
}

/// Marks the kind of an entry whose payload begins with a stamp, behind the origin if it has both.
pub const STAMP_MARK: u8 = 0x40;

/// What the payload of a log entry says.
#[derive(Clone, Debug)]
pub struct Payload {
    /// What the body is.
    pub kind: EntryKind,
    /// Who passed it on to the leader.
    pub origin: Option<Origin>,
    /// Which write of which client it is.
    pub stamp: Option<Stamp>,
    /// The body.
    pub body: Frame,
}

impl EntryKind {
    /// Whether an entry of this kind may have a stamp.
    const fn may_have_stamp(self) -> bool {
        matches!(
            self,
            Self::Put
                | Self::DeleteRange
                | Self::Txn
                | Self::Compact
                | Self::PutWithTtl
                | Self::LeaseGrant
                | Self::LeaseRevoke
        )
    }

    /// Whether the body of an entry of this kind begins with a log time, which the leader writes there when
    /// it gives the entry its position.
    pub const fn is_timed(self) -> bool {
        matches!(
            self,
            Self::PutWithTtl
                | Self::LeaseGrant
                | Self::LeaseKeepAlive
                | Self::LeaseExpire
                | Self::LogTime
        )
    }

    /// Whether only the leader itself may propose such an entry.
    pub const fn is_leaders(self) -> bool {
        matches!(self, Self::Empty | Self::Members | Self::LeaseExpire | Self::LogTime)
    }

    /// Where the log time stands in the payload of an entry with this number; none: it has none.
    pub fn time_at(number: u8) -> Option<usize> {
        let kind = Self::from_u8(number & !(Origin::MARK | STAMP_MARK))?;
        let origin = if number & Origin::MARK == 0 { 0 } else { Origin::SIZE };
        let stamp = if number & STAMP_MARK == 0 { 0 } else { STAMP_SIZE };
        kind.is_timed().then_some(origin + stamp)
    }

    /// The log time in the payload of an entry with this number; none: it has none.
    pub fn time_of(number: u8, payload: &[u8]) -> Option<u64> {
        let at = Self::time_at(number)?;
        payload.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The kind in the number of a log entry; none if this version does not know the number.
    fn of_number(number: u8) -> Option<Self> {
        let kind = Self::from_u8(number & !(Origin::MARK | STAMP_MARK))?;
        (number & STAMP_MARK == 0 || kind.may_have_stamp()).then_some(kind)
    }

    /// What the payload of a log entry says; none if this version does not know the number.
    pub fn decode(number: u8, payload: &Frame) -> Option<Payload> {
        let kind = Self::of_number(number)?;
        let (origin, body) = if number & Origin::MARK == 0 {
            (None, payload.clone())
        } else {
            let (origin, body) = Origin::unwrap(payload)?;
            (Some(origin), body)
        };
        if number & STAMP_MARK == 0 {
            return Some(Payload { kind, origin, stamp: None, body });
        }
        let (stamp, _) = Stamp::split(&body)?;
        Some(Payload { kind, origin, stamp: Some(stamp), body: body.slice(STAMP_SIZE..) })
    }

    /// Kind, stamp and body of a log entry.
    pub fn of(number: u8, payload: &[u8]) -> Option<(Self, Option<Stamp>, &[u8])> {
        let kind = Self::of_number(number)?;
        let skip = if number & Origin::MARK == 0 { 0 } else { Origin::SIZE };
        let body = payload.get(skip..)?;
        if number & STAMP_MARK == 0 {
            return Some((kind, None, body));
        }
        let (stamp, body) = Stamp::split(body)?;
        Some((kind, Some(stamp), body))
    }
}

/// Who passed a write on to the leader: part of the payload of its entry, so that this member, when it
/// applies the entry, knows who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The member.
    pub member: NodeId,
    /// The random name of this start of its process.
    pub start_id: u64,
    /// Its number for the write.
    pub sequence: u64,
}

impl Origin {
    /// Marks the kind of an entry whose payload begins with an origin.
    pub const MARK: u8 = 0x80;

    /// Bytes of an origin in front of the body.
    pub const SIZE: usize = 24;

    /// The payload of an entry with this origin.
    pub fn wrap(self, body: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(Self::SIZE + body.len());
        for number in [self.member.get(), self.start_id, self.sequence] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.extend_from_slice(body);
        payload
    }

    fn unwrap(payload: &Frame) -> Option<(Self, Frame)> {
        let (numbers, _) = payload.get(..Self::SIZE)?.as_chunks::<8>();
        let [member, start_id, sequence] = *numbers.as_array::<3>()?;
        let origin = Self {
            member: NodeId::new(u64::from_le_bytes(member)),
            start_id: u64::from_le_bytes(start_id),
            sequence: u64::from_le_bytes(sequence),
        };
        Some((origin, payload.slice(Self::SIZE..)))
    }
}

/// A committed entry on its way to the store.
#[derive(Debug)]
pub struct Committed {
    /// Position in the log.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: Term,
    /// What the payload is.
    pub kind: EntryKind,
    /// Which write of which client it is, if that was said: it takes effect once.
    pub stamp: Option<Stamp>,
    /// The request body, verified before it was proposed.
    pub frame: Frame,
    /// The log chain hash behind it.
    pub hash: Hash128,
    /// Who waits for the outcome; none for entries that no connection of this process proposed.
    pub ticket: Option<Ticket>,
}

impl Committed {
    /// Bytes that count as proposed until it is applied: those of the frame that was proposed.
    pub(crate) fn proposed_size(&self) -> usize {
        self.frame.len() + if self.stamp.is_some() { STAMP_SIZE } else { 0 }
    }
}

/// A read on its way to the store.
#[derive(Debug)]
pub struct ReadRequest {
    /// Who waits for it.
    pub ticket: Ticket,
    /// The body of a `Range` request, or of a read-only `Txn`.
    pub frame: Frame,
    /// What the body is.
    pub what: ReadKind,
    /// The log time when it was granted.
    pub time: u64,
    /// The store must have applied this much before it answers.
    pub applied_min: LogIndex,
    /// When nobody waits any more.
    pub deadline: Option<Instant>,
}

/// Why a request was not carried out. It has had no effect unless the status says otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The typed reason.
    pub status: Status,
    /// One sentence for a person: what was wrong, with the value, and what to do.
    pub message: String,
    /// The compacted revision where that is the reason, else 0.
    pub compacted: u64,
    /// The write took effect all the same; only its answer could not be given.
    pub applied: bool,
    /// Milliseconds after which it may be worth sending it again; 0: nothing is known of that.
    pub retry_after_ms: u32,
}

impl Refused {
    /// A pause before something is asked for that others have to give back first: watches that are
    /// cancelled, leases that end, memory that large answers hold. Time does not bring it, so it is
    /// only to keep those who ask again from becoming a load of their own.
    pub const GIVEN_BACK_MS: u32 = 1_000;

    /// Refused with nothing to add.
    pub fn new(status: Status, message: String) -> Self {
        Self { status, message, compacted: 0, applied: false, retry_after_ms: 0 }
    }

    /// A pause before a write is sent again while `size` bytes of others wait for the disk: the time in
    /// which a disk that takes 512 MiB in a second has written half of them, and some groups at least.
    pub fn drained_ms(size: usize) -> u32 {
        u32::try_from(size >> 20).unwrap_or(u32::MAX).clamp(10, Self::GIVEN_BACK_MS)
    }
}

/// The answer to a ticket, from the store or from consensus.
#[derive(Debug)]
pub struct Reply {
    /// Whose answer it is.
    pub ticket: Ticket,
    /// The answer.
    pub body: ReplyBody,
}

/// What an answer carries.
#[derive(Debug)]
pub enum ReplyBody {
    /// A put without `prev_kv` was applied and created this revision.
    Put {
        /// The revision.
        revision: u64,
    },
    /// Complete reply frames, encoded; the last of the request.
    Frames(Vec<u8>),
    /// One piece of a long answer. The store goes on when the reactor asks for more.
    Piece(Vec<u8>),
    /// What the store has read for a watch.
    Watch(WatchRead),
    /// Leases begin their time anew.
    Renewed {
        /// The newest revision.
        revision: u64,
        /// Milliseconds that each lives, in the order of the entry; 0: there is none.
        ttls_ms: Vec<u64>,
    },
    /// Not carried out.
    Refused(Refused),
}

/// What a read is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadKind {
    /// A range of keys.
    Range,
    /// A transaction that only reads.
    Txn,
    /// A lease, and its keys.
    Lease,
    /// The leases that there are.
    Leases,
    /// All that the member keeps.
    Snapshot,
}

/// What the store has read for a watch.
#[derive(Debug)]
pub struct WatchRead {
    /// Reply frames, encoded; maybe none.
    pub bytes: Vec<u8>,
    /// Everything before this has been told with them.
    pub next: Point,
    /// The newest revision, if the watch has come to it; else the store goes on when the reactor asks for
    /// more.
    pub caught: Option<Revision>,
}

/// A watch that wants to be read for.
#[derive(Debug)]
pub struct WatchRequest {
    /// Who.
    pub ticket: Ticket,
    /// From where; none: from what comes next.
    pub start: Option<Point>,
    /// The ranges, as requests name them.
    pub ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is told.
    pub wanted: Wanted,
    /// Whether it has been told that it has begun.
    pub created: bool,
}

/// What consensus knows of this member and its cluster, for status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The member's name.
    pub name: String,
    /// The part that it plays.
    pub role: RoleName,
    /// Whether it listens without a vote.
    pub is_learner: bool,
    /// The term.
    pub term: Term,
    /// The leader, where one is known.
    pub leader: Option<NodeId>,
    /// The last entry of the log.
    pub last: LogIndex,
    /// The commit index.
    pub committed: LogIndex,
    /// Bytes of the segments of the log.
    pub log_size: u64,
    /// Whether writes are refused because the disk is full, as long as it is.
    pub no_space: bool,
    /// Whether members have different states after the same entries.
    pub disagrees: bool,
    /// Whether the disk of the log takes long to finish a write.
    pub disk_slow: bool,
}
