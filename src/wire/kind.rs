//! What a frame is: one number for each request and one for each reply.
//!
//! ```text
//! 0x01..=0x0f  connection    0x10..=0x1f  keys      0x20..=0x2f  watch
//! 0x30..=0x3f  leases        0x40..=0x4f  cluster       0x50..=0x5f  users (r.)
//! 0x70..=0x7e  between members, on connections of their own; the rest is for clients
//! a reply to a client is its request's number + 0x80; 0xff refuses any request
//! ```

use crate::error::DecodeError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The kind of a frame. It selects the root table of the body.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// Every kind of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number in the frame header.
            #[inline]
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }
        }

        impl TryFrom<u8> for Kind {
            type Error = DecodeError;

            #[inline]
            fn try_from(number: u8) -> Result<Self, DecodeError> {
                match number {
                    $($number => Ok(Self::$name),)*
                    _ => Err(DecodeError::UnknownKind { number }),
                }
            }
        }
    };
}

kinds! {
    /// First frame of a client: versions, cluster, its name. Body: `Hello`.
    Hello = 0x01,
    /// Asks for a sign of life. No body.
    Ping = 0x02,
    /// Gives up the request with this frame's request id. No body, and no reply of its own.
    Cancel = 0x03,
    /// Asks for the state of this member. No body.
    Status = 0x04,
    /// Asks for a client id, for the stamps of writes. No body. It goes through the log.
    Register = 0x05,
    /// Asks for the limits of this member and how much of them is in use. No body.
    Limits = 0x06,
    /// Asks for all that this member keeps, as of one moment, its own. No body.
    Snapshot = 0x07,
    /// Writes one key. Body: `PutRequest`.
    Put = 0x10,
    /// Reads a range of keys. Body: `RangeRequest`.
    Range = 0x11,
    /// Deletes a range of keys. Body: `DeleteRangeRequest`.
    DeleteRange = 0x12,
    /// Compares, then does one of two lists of operations. Body: `TxnRequest`.
    Txn = 0x13,
    /// Gives up history. Body: `CompactRequest`.
    Compact = 0x14,
    /// Watches ranges of keys: replies come until the watch is refused. Body: `WatchRequest`.
    Watch = 0x20,
    /// Asks the watch with this frame's request id how far it has come. No body, and no reply of its
    /// own: the watch tells it.
    WatchProgress = 0x21,
    /// Makes a lease. Body: `LeaseGrantRequest`.
    LeaseGrant = 0x30,
    /// Ends a lease, and the keys that hang on it. Body: `LeaseRevokeRequest`.
    LeaseRevoke = 0x31,
    /// Lets leases begin their time anew. Body: `LeaseKeepAliveRequest`.
    LeaseKeepAlive = 0x32,
    /// Asks for a lease's time, and its keys. Body: `LeaseTimeToLiveRequest`.
    LeaseTimeToLive = 0x33,
    /// Asks for the leases that there are. Body: `LeaseListRequest`.
    LeaseList = 0x34,
    /// Asks who the members are. No body.
    MemberList = 0x40,
    /// Changes the members. Body: `MemberChangeRequest`.
    MemberChange = 0x41,
    /// Hands leadership to another member. Body: `MoveLeaderRequest`.
    MoveLeader = 0x42,
    /// Raises or disarms alarms. Body: `AlarmRequest`.
    Alarm = 0x43,
    /// First frame of a member that dials another one. Body: `peer.Hello`.
    PeerHello = 0x70,
    /// Accepts `PeerHello`. Body: `peer.Welcome`.
    PeerWelcome = 0x71,
    /// Refuses `PeerHello` or `PeerJoin`; the connection ends. Body: `peer.Refused`.
    PeerRefused = 0x72,
    /// A raft message without entries. Body: `peer.Raft`.
    PeerRaft = 0x73,
    /// Entries of the log. Body: `peer.Append`.
    PeerAppend = 0x74,
    /// An entry that the leader shall propose. Body: `peer.Forward`.
    PeerForward = 0x75,
    /// It was not proposed. Body: `peer.ForwardRefused`.
    PeerForwardRefused = 0x76,
    /// A snapshot follows. Body: `peer.SnapshotBegin`.
    PeerSnapshotBegin = 0x77,
    /// A part of it. Body: `peer.SnapshotChunk`.
    PeerSnapshotChunk = 0x78,
    /// How far it has arrived. Body: `peer.SnapshotAck`.
    PeerSnapshotAck = 0x79,
    /// First frame of a process that asks which member it is. Body: `peer.Join`.
    PeerJoin = 0x7a,
    /// Answers `PeerJoin`. Body: `peer.JoinReply`.
    PeerJoinReply = 0x7b,
    /// Answers `Hello`. Body: `HelloReply`.
    HelloReply = 0x81,
    /// Answers `Ping`. No body.
    PingReply = 0x82,
    /// Answers `Status`. Body: `StatusReply`.
    StatusReply = 0x84,
    /// Answers `Register`. Body: `RegisterReply`.
    RegisterReply = 0x85,
    /// Answers `Limits`. Body: `LimitsReply`.
    LimitsReply = 0x86,
    /// Answers `Snapshot`, in pieces. Body: `SnapshotReply`.
    SnapshotReply = 0x87,
    /// Answers `Put`. Body: `PutReply`.
    PutReply = 0x90,
    /// Answers `Range`, in pieces. Body: `RangeReply`.
    RangeReply = 0x91,
    /// Answers `DeleteRange`. Body: `DeleteRangeReply`.
    DeleteRangeReply = 0x92,
    /// Answers `Txn`. Body: `TxnReply`.
    TxnReply = 0x93,
    /// Answers `Compact`. Body: `CompactReply`.
    CompactReply = 0x94,
    /// Answers `Watch`, as often as there is something to tell. Body: `WatchReply`.
    WatchReply = 0xa0,
    /// Answers `LeaseGrant`. Body: `LeaseGrantReply`.
    LeaseGrantReply = 0xb0,
    /// Answers `LeaseRevoke`. Body: `LeaseRevokeReply`.
    LeaseRevokeReply = 0xb1,
    /// Answers `LeaseKeepAlive`. Body: `LeaseKeepAliveReply`.
    LeaseKeepAliveReply = 0xb2,
    /// Answers `LeaseTimeToLive`. Body: `LeaseTimeToLiveReply`.
    LeaseTimeToLiveReply = 0xb3,
    /// Answers `LeaseList`. Body: `LeaseListReply`.
    LeaseListReply = 0xb4,
    /// Answers `MemberList`. Body: `MemberListReply`.
    MemberListReply = 0xc0,
    /// Answers `MemberChange`. Body: `MemberChangeReply`.
    MemberChangeReply = 0xc1,
    /// Answers `MoveLeader`. Body: `MoveLeaderReply`.
    MoveLeaderReply = 0xc2,
    /// Answers `Alarm`. Body: `AlarmReply`.
    AlarmReply = 0xc3,
    /// Refuses any request; why is in the header's status. Body: `Refused`.
    Refused = 0xff,
}

impl Kind {
    /// True for what a client sends.
    #[inline]
    pub const fn is_request(self) -> bool {
        self.number() < 0x70
    }

    /// True for what members send each other; a connection carries either these or all others.
    #[inline]
    pub const fn is_peer(self) -> bool {
        matches!(self.number(), 0x70..=0x7e)
    }

    /// True for what may carry a stamp, and changes keys, leases or history by way of the log. A `Txn` or a
    /// `Range` may turn out to be one or the other; `Txn` counts as a write here.
    #[inline]
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Self::Put
                | Self::DeleteRange
                | Self::Txn
                | Self::Compact
                | Self::LeaseGrant
                | Self::LeaseRevoke
        )
    }
}
