//! What can be wrong: with bytes that came in ([`DecodeError`]), with what is to go out
//! ([`EncodeError`]), and with a request that was understood ([`Status`]).

use core::fmt::{Display, Formatter};

use crate::header::{MAGIC, VERSION_MAX, VERSION_MIN};
use crate::kind::Kind;

/// Why bytes from the other side were not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The frame does not begin with the magic: the other side speaks another protocol.
    BadMagic {
        /// The two bytes found in its place.
        found: [u8; 2],
    },
    /// The frame's version is not the one that this connection speaks.
    BadVersion {
        /// The version found.
        found: u8,
    },
    /// The kind is not one of this version.
    UnknownKind {
        /// The number found.
        number: u8,
    },
    /// The status is not one of this version.
    UnknownStatus {
        /// The number found.
        number: u16,
    },
    /// Bits that must be zero in this version are not.
    ReservedBits,
    /// The body is longer than this connection may send now. Nothing of it has been buffered.
    BodyTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The greatest size allowed now, in bytes.
        size_max: usize,
    },
    /// The size of the body is not a multiple of 8.
    BodyUnaligned {
        /// Its size in bytes.
        size: usize,
    },
    /// The CRC-32 does not match: the bytes changed on their way.
    BadChecksum {
        /// The checksum in the header.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A frame of this kind cannot stand here: a reply where a request must be, or the reverse.
    UnexpectedKind {
        /// The kind found.
        kind: Kind,
    },
    /// The body is not a well-formed message of its kind.
    Malformed,
    /// The body lacks a field that its kind must have.
    MissingField {
        /// The name of the field in the schema.
        field: &'static str,
    },
    /// The body nests deeper, holds more tables, or refers to more bytes than is allowed.
    TooComplex,
    /// A field holds a number that means nothing in this version.
    UnknownNumber {
        /// The name of the field in the schema.
        field: &'static str,
        /// The number found.
        number: u64,
    },
    /// Not exactly one of the tables of an operation, or of its answer, is set.
    NotOneOperation,
    /// The sizes in the entries of a key list do not add up to its data.
    SizesDisagree,
}

impl DecodeError {
    /// What to refuse with.
    pub const fn status(&self) -> Status {
        match self {
            Self::BadMagic { .. }
            | Self::UnknownKind { .. }
            | Self::UnknownStatus { .. }
            | Self::ReservedBits
            | Self::BodyUnaligned { .. }
            | Self::BadChecksum { .. }
            | Self::UnexpectedKind { .. }
            | Self::Malformed
            | Self::MissingField { .. }
            | Self::SizesDisagree => Status::ProtocolError,
            Self::BadVersion { .. } => Status::VersionMismatch,
            Self::BodyTooLarge { .. } => Status::TooLarge,
            Self::TooComplex => Status::TooManyOps,
            Self::UnknownNumber { .. } | Self::NotOneOperation => Status::InvalidArgument,
        }
    }

    /// True where the connection must be closed after the refusal: the other side is broken or
    /// hostile, or it is not known where the next frame begins. False where only this one request
    /// is refused.
    pub const fn closes(&self) -> bool {
        !matches!(self, Self::TooComplex | Self::UnknownNumber { .. } | Self::NotOneOperation)
    }
}

impl Display for DecodeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadMagic { found } => write!(
                f,
                "a frame begins with bytes {:02x} {:02x} instead of {:02x} {:02x}: \
                 the other side does not speak this protocol",
                found[0], found[1], MAGIC[0], MAGIC[1]
            ),
            Self::BadVersion { found } => write!(
                f,
                "a frame has protocol version {found}; this side speaks {VERSION_MIN} to \
                 {VERSION_MAX} and only the version agreed on in the handshake may follow it"
            ),
            Self::UnknownKind { number } => {
                write!(f, "frame kind {number:#04x} is not known in this protocol version")
            }
            Self::UnknownStatus { number } => {
                write!(f, "status {number} is not known in this protocol version")
            }
            Self::ReservedBits => {
                write!(f, "a frame header has bits set that must be zero in this version")
            }
            Self::BodyTooLarge { size, size_max } => write!(
                f,
                "a frame body has {size} bytes, {size_max} are allowed; \
                 send smaller values or fewer operations"
            ),
            Self::BodyUnaligned { size } => {
                write!(f, "a frame body has {size} bytes, which is not a multiple of 8")
            }
            Self::BadChecksum { found, computed } => write!(
                f,
                "a frame's checksum is {found:08x}, its bytes give {computed:08x}: \
                 they changed on their way"
            ),
            Self::UnexpectedKind { kind } => {
                write!(f, "a frame of kind {kind:?} cannot stand here")
            }
            Self::Malformed => write!(f, "the body of a frame is malformed"),
            Self::MissingField { field } => write!(f, "the field \"{field}\" is missing"),
            Self::TooComplex => {
                write!(f, "a transaction nests too deeply or holds too many operations; split it")
            }
            Self::UnknownNumber { field, number } => {
                write!(f, "{number} is not a known value of \"{field}\"")
            }
            Self::NotOneOperation => {
                write!(f, "an operation must be exactly one of put, range, delete_range and txn")
            }
            Self::SizesDisagree => {
                write!(f, "the sizes of a key list do not add up to its bytes")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// Why something cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// The body would be longer than the other side accepts.
    TooLarge {
        /// The greatest size allowed, in bytes.
        size_max: usize,
    },
    /// Transactions are nested deeper than [`TXN_DEPTH_MAX`](crate::limits::TXN_DEPTH_MAX).
    TooDeep {
        /// The greatest depth allowed.
        depth_max: usize,
    },
}

impl Display for EncodeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLarge { size_max } => {
                write!(f, "the message would exceed the {size_max} bytes that are allowed")
            }
            Self::TooDeep { depth_max } => {
                write!(f, "transactions are nested more than {depth_max} deep")
            }
        }
    }
}

impl core::error::Error for EncodeError {}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// How a request ended. The numbers are part of the protocol and never change.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Status {
            $($(#[$doc])* $name = $number,)*
        }

        impl Status {
            /// Every status of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number in the frame header.
            #[inline]
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                }
            }
        }

        impl TryFrom<u16> for Status {
            type Error = DecodeError;

            #[inline]
            fn try_from(number: u16) -> Result<Self, DecodeError> {
                match number {
                    $($number => Ok(Self::$name),)*
                    _ => Err(DecodeError::UnknownStatus { number }),
                }
            }
        }
    };
}

statuses! {
    /// Done. Requests carry it too.
    Ok = 0,
    /// A field has a value that can never be right; the message says which.
    InvalidArgument = 1,
    /// A put that keeps the value or the lease met a key that does not exist.
    KeyNotFound = 2,
    /// The lease does not exist.
    LeaseNotFound = 3,
    /// One transaction changes a key twice.
    DuplicateKey = 4,
    /// A transaction holds more operations, or nests deeper, than is allowed.
    TooManyOps = 5,
    /// The revision has been compacted; `compacted_revision` says up to where.
    Compacted = 6,
    /// The revision is still to come; `current_revision` is the newest.
    FutureRevision = 7,
    /// There is no room for writes. Deletes and compaction still work.
    NoSpace = 8,
    /// More work is waiting than the server takes in; come back after `retry_after_ms`.
    Overloaded = 9,
    /// This member is not the leader; the hint names it where it is known.
    NotLeader = 10,
    /// The request's deadline passed before it was proposed or read. It has had no effect.
    DeadlineExceeded = 11,
    /// The client gave the request up before it had any effect.
    Cancelled = 12,
    /// The request, or its answer, is larger than is allowed; `effect` tells whether it was done.
    TooLarge = 13,
    /// The member cannot serve now, or no quorum answers. The request has not been proposed.
    Unavailable = 14,
    /// The write was proposed and its outcome is not known: it may or may not take effect.
    Unknown = 15,
    /// A fault of the server. `effect` tells whether a write was done.
    Internal = 16,
    /// The client broke the protocol. The connection closes.
    ProtocolError = 17,
    /// No protocol version that both sides speak. The connection closes.
    VersionMismatch = 18,
    /// The member belongs to another cluster than the client expects. The connection closes.
    ClusterMismatch = 19,
    /// The handshake took too long. The connection closes.
    HandshakeTimeout = 20,
    /// The member is going down and takes no new requests.
    ShuttingDown = 21,
    /// The member knows no leader: an election is under way, or has no majority.
    NoLeader = 22,
    /// No member has this id.
    MemberNotFound = 23,
    /// A member with this name or address exists already.
    MemberExists = 24,
    /// Another change of the members is under way.
    ChangePending = 25,
    /// The change of the members could leave the cluster without a majority.
    QuorumAtRisk = 26,
    /// The member lacks too much of the log, or has not been heard of lately.
    NotCaughtUp = 27,
    /// The write's stamp is of no use any more: its client is not known, or not remembered any more, or
    /// has said that it does not wait for this number. Not carried out, now or later; whether it was
    /// before is not known.
    SessionExpired = 28,
    /// The number in the write's stamp is too far beyond the oldest one that the client still waits for.
    /// Not carried out; send it again when that one is answered.
    TooManyUnanswered = 29,
    /// A lease with this id exists already.
    LeaseExists = 30,
    /// The end of a watch whose client did not read what it was told. Go on from the revision behind the
    /// last one that came whole.
    SlowReader = 31,
    /// An alarm says that the state of a member is not that of the others: nothing is written until it is
    /// disarmed.
    Corrupt = 32,
}

impl Status {
    /// True where the request had no effect and may succeed if the same one is sent again, at once
    /// to the leader that the refusal names, else after `retry_after_ms` or a pause of the
    /// client's choice.
    ///
    /// False where repeating is pointless (`InvalidArgument`, `Compacted`, ...), where an operator
    /// has to act first (`NoSpace`, `Corrupt`, `QuorumAtRisk`) or to look again (`ChangePending`), where the
    /// client itself ended the request (`Cancelled`, `DeadlineExceeded`: its time is up), and where
    /// a write could take effect a second time (`Unknown`, `Internal`).
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::NotLeader
                | Self::Unavailable
                | Self::ShuttingDown
                | Self::NoLeader
        )
    }

    /// What the status means, for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::InvalidArgument => "invalid argument",
            Self::KeyNotFound => "key not found",
            Self::LeaseNotFound => "requested lease not found",
            Self::DuplicateKey => "duplicate key given in txn request",
            Self::TooManyOps => "too many operations in txn request",
            Self::Compacted => "required revision has been compacted",
            Self::FutureRevision => "required revision is a future revision",
            Self::NoSpace => "database space exceeded",
            Self::Overloaded => "too many requests",
            Self::NotLeader => "not leader",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Cancelled => "request cancelled",
            Self::TooLarge => "request or answer is too large",
            Self::Unavailable => "no leader or no quorum",
            Self::Unknown => "outcome unknown: the write may or may not take effect",
            Self::Internal => "internal error of the server",
            Self::ProtocolError => "protocol error",
            Self::VersionMismatch => "no common protocol version",
            Self::ClusterMismatch => "cluster ID mismatch",
            Self::HandshakeTimeout => "handshake took too long",
            Self::ShuttingDown => "server stopped",
            Self::NoLeader => "no leader",
            Self::MemberNotFound => "member not found",
            Self::MemberExists => "member exists already",
            Self::ChangePending => "another membership change is under way",
            Self::QuorumAtRisk => "the change could leave the cluster without a majority",
            Self::SessionExpired => "client session expired",
            Self::TooManyUnanswered => "too many writes of this client are unanswered",
            Self::LeaseExists => "lease already exists",
            Self::SlowReader => "the client reads too slowly",
            Self::Corrupt => "corrupt cluster",
            Self::NotCaughtUp => "the member has not caught up with the leader",
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}
