//! The 32 bytes in front of every body. All numbers are little endian.
//!
//! ```text
//!  0       2         3      4       6        8             12            16
//!  | "QR"  | version | kind | flags | status | body size   | crc32       |
//!  | request id                     | deadline, ms         | reserved: 0 |
//!  16                               24                     28            32
//! ```
//!
//! The CRC-32 covers header and body, with its own four bytes taken as zero. The body follows; its
//! size is a multiple of 8, so that every frame of a stream begins at a multiple of 8.
//!
//! This layout holds for every version that begins with the magic.

use base::RequestId;

use crate::error::{DecodeError, Status};
use crate::kind::Kind;

/// Bytes of a header.
pub const HEADER_SIZE: usize = 32;

/// First two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"QR";

/// Oldest protocol version that this side speaks. `Hello` and what answers it always have this one.
pub const VERSION_MIN: u8 = 1;

/// Newest protocol version that this side speaks.
pub const VERSION_MAX: u8 = 1;

/// Where the flags stand in a header.
const FLAGS_AT: usize = 4;

/// Where the request id stands in a header.
const REQUEST_AT: usize = 16;

/// Where the checksum stands in a header.
const CRC_AT: usize = 12;

/// Bits of a header that say more about a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(u16);

impl Flags {
    /// No bit.
    pub const NONE: Self = Self(0);
    /// More pieces of this reply follow. Credits stay taken until the last one.
    pub const MORE: Self = Self(1);
    /// The body begins with a stamp ([`base::Stamp`]), and the message follows it. Writes only.
    pub const STAMPED: Self = Self(2);
    /// The write with this stamp had been done before: this reply says what came of it then.
    pub const REPEATED: Self = Self(4);

    /// The bits as a number; `None` if one of them has no meaning in this version.
    #[inline]
    pub const fn from_bits(bits: u16) -> Option<Self> {
        let known = Self::MORE.0 | Self::STAMPED.0 | Self::REPEATED.0;
        if bits & !known == 0 { Some(Self(bits)) } else { None }
    }

    /// The bits as a number.
    #[inline]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// True if more pieces of this reply follow.
    #[inline]
    pub const fn has_more(self) -> bool {
        self.0 & Self::MORE.0 != 0
    }

    /// True if the body begins with a stamp.
    #[inline]
    pub const fn has_stamp(self) -> bool {
        self.0 & Self::STAMPED.0 != 0
    }

    /// True if the reply says what came of a write when it was sent before.
    #[inline]
    pub const fn is_repeated(self) -> bool {
        self.0 & Self::REPEATED.0 != 0
    }
}

/// A frame header, its checksum apart: that is made with the bytes and checked with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Protocol version of the frame.
    pub version: u8,
    /// What the body is.
    pub kind: Kind,
    /// More about the frame.
    pub flags: Flags,
    /// How the request ended; `Ok` in requests.
    pub status: Status,
    /// Bytes of the body, a multiple of 8.
    pub body_size: u32,
    /// Which request this is or answers. 0 only in a refusal that answers none.
    pub request: RequestId,
    /// Milliseconds from its receipt in which a request is wanted; 0: no bound. 0 in replies.
    pub deadline_ms: u32,
}

impl Header {
    /// The header of a reply frame whose body size is still to come.
    #[inline]
    pub(crate) const fn reply(version: u8, kind: Kind, request: RequestId) -> Self {
        Self {
            version,
            kind,
            flags: Flags::NONE,
            status: Status::Ok,
            body_size: 0,
            request,
            deadline_ms: 0,
        }
    }

    /// The bytes of this header with a checksum of zero.
    #[inline]
    fn encode_without_crc(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.version;
        bytes[3] = self.kind.number();
        bytes[4..6].copy_from_slice(&self.flags.bits().to_le_bytes());
        bytes[6..8].copy_from_slice(&self.status.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.request.get().to_le_bytes());
        bytes[24..28].copy_from_slice(&self.deadline_ms.to_le_bytes());
        bytes
    }

    /// The bytes of this header in front of `body`, which must have the size that the header says.
    pub fn encode(&self, body: &[u8]) -> [u8; HEADER_SIZE] {
        assert!(
            usize::try_from(self.body_size) == Ok(body.len()),
            "header says {} bytes, the body has {}",
            self.body_size,
            body.len()
        );
        let mut bytes = self.encode_without_crc();
        let crc = base::crc32_append(base::crc32(&bytes), body);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Writes this header over the first bytes of `frame`: space for a header, then the body.
    #[inline]
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        frame[..HEADER_SIZE].copy_from_slice(&self.encode_without_crc());
        let crc = base::crc32(frame);
        frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Marks a whole reply frame as [`Flags::REPEATED`].
    ///
    /// # Panics
    ///
    /// When the bytes are shorter than a header.
    pub fn mark_repeated(frame: &mut [u8]) {
        frame[FLAGS_AT] |= Flags::REPEATED.0.to_le_bytes()[0];
        take_crc(frame);
        let crc = base::crc32(frame);
        frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Gives a whole frame another request id.
    ///
    /// # Panics
    ///
    /// When the bytes are shorter than a header.
    pub fn readdress(frame: &mut [u8], request: RequestId) {
        frame[REQUEST_AT..REQUEST_AT + 8].copy_from_slice(&request.get().to_le_bytes());
        take_crc(frame);
        let crc = base::crc32(frame);
        frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header; the checksum, which covers the body as well, is the splitter's to check.
    ///
    /// Errors: what of the header itself has no meaning. The body size is any number here; the
    /// splitter compares it with the limit of the connection.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, DecodeError> {
        let word16 = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word32 = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..2] != MAGIC {
            return Err(DecodeError::BadMagic { found: [bytes[0], bytes[1]] });
        }
        // The version comes before what it gives a meaning to.
        let version = bytes[2];
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(DecodeError::BadVersion { found: version });
        }
        let kind = Kind::try_from(bytes[3])?;
        let flags = Flags::from_bits(word16(4)).ok_or(DecodeError::ReservedBits)?;
        let status = Status::try_from(word16(6))?;
        if word32(28) != 0 {
            return Err(DecodeError::ReservedBits);
        }
        let request = u64::from(word32(16)) | u64::from(word32(20)) << 32;
        Ok(Self {
            version,
            kind,
            flags,
            status,
            body_size: word32(8),
            request: RequestId::new(request),
            deadline_ms: word32(24),
        })
    }

    /// Checks the checksum of the frame that has these header bytes and this body.
    pub fn check(bytes: &[u8; HEADER_SIZE], body: &[u8]) -> Result<(), DecodeError> {
        let mut covered = *bytes;
        let found = take_crc(&mut covered);
        let computed = base::crc32_append(base::crc32(&covered), body);
        compare(found, computed)
    }

    /// The same for a whole frame, in one pass: sets the four bytes of the checksum to zero for it
    /// and leaves them so.
    #[inline]
    pub(crate) fn check_frame(frame: &mut [u8]) -> Result<(), DecodeError> {
        let found = take_crc(frame);
        compare(found, base::crc32(frame))
    }
}

/// Takes the checksum out of a header.
#[inline]
fn take_crc(header: &mut [u8]) -> u32 {
    let space = header[CRC_AT..].first_chunk_mut().expect("a header holds its checksum");
    u32::from_le_bytes(core::mem::take(space))
}

#[inline]
fn compare(found: u32, computed: u32) -> Result<(), DecodeError> {
    if found == computed { Ok(()) } else { Err(DecodeError::BadChecksum { found, computed }) }
}
