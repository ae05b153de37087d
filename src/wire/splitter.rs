//! Cuts a stream of bytes into frames. Does no reading itself and knows nothing of bodies.
//!
//! ```text
//!   need header --32 bytes, checked--> need body --body, CRC right--> a frame; need header
//! ```
//!
//! The size of a body is compared with the limit of the connection's present state as soon as the
//! header is there, so nobody makes the reader buffer more than one frame of a permitted size.

use base::Frame;
use bytes::{Buf, BytesMut};

use crate::error::DecodeError;
use crate::header::{HEADER_SIZE, Header, MAGIC, VERSION_MIN};
use crate::limits::HANDSHAKE_BODY_SIZE_MAX;

/// Bodies up to this size are copied out of the receive chunk, so that a request of a hundred
/// bytes does not keep a chunk of 64 KiB alive; greater ones are slices of it.
pub const COPY_OUT_SIZE_MAX: usize = 1_024;

/// Cuts one direction of one connection into frames.
#[derive(Clone, Debug)]
pub struct Splitter {
    /// Greatest body now, in bytes.
    body_size_max: usize,
    /// The version every frame must have.
    version: u8,
    /// Between members, and not between a client and a member.
    is_peer: bool,
    /// Set by an error: the stream has no next frame.
    failed: Option<DecodeError>,
}

impl Splitter {
    /// A splitter for a connection between a client and a member before its handshake.
    pub const fn new() -> Self {
        Self {
            body_size_max: HANDSHAKE_BODY_SIZE_MAX,
            version: VERSION_MIN,
            is_peer: false,
            failed: None,
        }
    }

    /// A splitter for a connection between members before its handshake: it takes their kinds of
    /// frames and no others.
    pub const fn between_members() -> Self {
        Self { is_peer: true, ..Self::new() }
    }

    /// The handshake is done: from the next frame on bodies have at most `body_size_max` bytes and
    /// frames the version that was agreed on.
    pub fn agree(&mut self, version: u8, body_size_max: usize) {
        self.version = version;
        self.body_size_max = body_size_max;
    }

    /// Takes the next whole frame from the front of `buffer`; `None` while it is incomplete.
    ///
    /// Errors: the stream cannot be read on from here; each further call gives the same error.
    #[inline]
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<(Header, Frame)>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.split(buffer).inspect_err(|error| self.failed = Some(*error))
    }

    #[inline]
    fn split(&self, buffer: &mut BytesMut) -> Result<Option<(Header, Frame)>, DecodeError> {
        let Some((header, size)) = self.front(buffer)? else { return Ok(None) };
        let Some(frame) = buffer.get_mut(..size) else { return Ok(None) };
        Header::check_frame(frame)?;
        let body = &frame[HEADER_SIZE..];
        let frame = if body.len() <= COPY_OUT_SIZE_MAX {
            let frame = Frame::copy_from_slice(body);
            buffer.advance(size);
            frame
        } else {
            buffer.advance(HEADER_SIZE);
            buffer.split_to(size - HEADER_SIZE).freeze()
        };
        Ok(Some((header, frame)))
    }

    /// The checked header at the front of `buffer` and the size of its frame in bytes.
    #[inline]
    fn front(&self, buffer: &[u8]) -> Result<Option<(Header, usize)>, DecodeError> {
        let Some(bytes) = buffer.first_chunk::<HEADER_SIZE>() else {
            // Who speaks another protocol may wait for an answer before it sends 32 bytes.
            return match buffer.first_chunk::<2>() {
                Some(found) if *found != MAGIC => Err(DecodeError::BadMagic { found: *found }),
                Some(_) | None => Ok(None),
            };
        };
        let header = Header::decode(bytes)?;
        if header.version != self.version {
            return Err(DecodeError::BadVersion { found: header.version });
        }
        if header.kind.is_peer() != self.is_peer {
            return Err(DecodeError::UnexpectedKind { kind: header.kind });
        }
        let size = usize::try_from(header.body_size).unwrap_or(usize::MAX);
        if size > self.body_size_max {
            return Err(DecodeError::BodyTooLarge { size, size_max: self.body_size_max });
        }
        if !size.is_multiple_of(8) {
            return Err(DecodeError::BodyUnaligned { size });
        }
        Ok(Some((header, HEADER_SIZE + size)))
    }

    /// How many bytes are missing from the frame at the front of `buffer`, at least 1: what to make
    /// room for before the next read. Bounded by the limit of the connection's state.
    pub fn missing(&self, buffer: &[u8]) -> usize {
        let size = match self.front(buffer) {
            Ok(Some((_, size))) => size,
            Ok(None) | Err(_) => HEADER_SIZE,
        };
        size.saturating_sub(buffer.len()).max(1)
    }
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}
