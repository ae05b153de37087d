//! What a frame is: one number for each request and one for each reply.
//!
//! ```text
//! 0x01..=0x0f  connection    0x10..=0x1f  keys      0x20..=0x2f  watch (reserved)
//! 0x30..=0x3f  leases (r.)   0x40..=0x4f  cluster, maintenance (r.)   0x50..=0x5f  users (r.)
//! 0x70..=0x7e  between members (r.)
//! a reply is its request's number + 0x80; 0xff refuses any request
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
    /// Answers `Hello`. Body: `HelloReply`.
    HelloReply = 0x81,
    /// Answers `Ping`. No body.
    PingReply = 0x82,
    /// Answers `Status`. Body: `StatusReply`.
    StatusReply = 0x84,
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
    /// Refuses any request; why is in the header's status. Body: `Refused`.
    Refused = 0xff,
}

impl Kind {
    /// True for what a client sends.
    #[inline]
    pub const fn is_request(self) -> bool {
        self.number() < 0x80
    }

    /// True for what goes through the log. A `Txn` or a `Range` may turn out to be one or the other;
    /// `Txn` counts as a write here.
    #[inline]
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::DeleteRange | Self::Txn | Self::Compact)
    }
}
