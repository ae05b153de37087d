//! Little-endian fields, and the envelope that every header begins with.
//!
//! ```text
//!  0  magic                 8
//!  8  crc32 of 12..size     4
//! 12  format version        4
//! 16  hash128 of 32..size  16
//! 32  fields
//! ```

use base::{FileId, Hash128, crc32, hash128};

use crate::{FORMAT_VERSION, Identity};

const _: () = assert!(usize::BITS == 64, "sizes of files are handled as usize");

/// Where the fields behind the envelope start.
pub(crate) const ENVELOPE_SIZE: usize = 32;

/// A size in memory as a size in a file.
#[inline]
pub(crate) const fn size64(size: usize) -> u64 {
    size as u64
}

/// A size in a file as a size in memory.
#[inline]
pub(crate) const fn usize_of(size: u64) -> usize {
    size as usize
}

/// A 32-bit size in memory.
#[inline]
pub(crate) const fn usize_of32(size: u32) -> usize {
    size as usize
}

/// `size` rounded up to a multiple of `unit`, a power of two.
#[inline]
pub(crate) const fn round_up(size: usize, unit: usize) -> usize {
    (size + unit - 1) & !(unit - 1)
}

/// True if every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|&b| b == 0)
}

#[inline]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn put_hash(bytes: &mut [u8], at: usize, value: Hash128) {
    bytes[at..at + 16].copy_from_slice(&value.to_bytes());
}

#[inline]
pub(crate) fn put_id(bytes: &mut [u8], at: usize, value: FileId) {
    bytes[at..at + 16].copy_from_slice(&value.get().to_le_bytes());
}

#[inline]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[inline]
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

#[inline]
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[inline]
pub(crate) fn get_hash(bytes: &[u8], at: usize) -> Hash128 {
    Hash128::from_bytes(array(bytes, at))
}

#[inline]
pub(crate) fn get_id(bytes: &[u8], at: usize) -> FileId {
    FileId::new(u128::from_le_bytes(array(bytes, at)))
}

/// Writes who writes: cluster, member, incarnation, 32 bytes from 32 on.
pub(crate) fn put_identity(bytes: &mut [u8], identity: &Identity) {
    put_u64(bytes, 32, identity.cluster);
    put_u64(bytes, 40, identity.member.get());
    put_id(bytes, 48, identity.incarnation);
}

pub(crate) fn get_identity(bytes: &[u8]) -> Identity {
    Identity {
        cluster: get_u64(bytes, 32),
        member: base::NodeId::new(get_u64(bytes, 40)),
        incarnation: get_id(bytes, 48),
    }
}

/// Closes a header of which everything behind the envelope is in place; returns its hash.
pub(crate) fn close_envelope(header: &mut [u8], magic: &[u8; 8]) -> Hash128 {
    let hash = hash128(&header[ENVELOPE_SIZE..]);
    header[..8].copy_from_slice(magic);
    put_u32(header, 12, FORMAT_VERSION);
    put_hash(header, 16, hash);
    let crc = crc32(&header[12..]);
    put_u32(header, 8, crc);
    hash
}

/// What the envelope of a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Envelope {
    /// It verifies; this is its hash.
    Valid(Hash128),
    /// It is whole, but of another format version.
    Version(u32),
    /// The magic is there, the rest does not verify.
    Damaged,
    /// Something else, or nothing.
    Absent,
}

/// Verifies the envelope of `header`, which is exactly the header's size.
pub(crate) fn open_envelope(header: &[u8], magic: &[u8; 8]) -> Envelope {
    if header[..8] != magic[..] {
        return Envelope::Absent;
    }
    if crc32(&header[12..]) != get_u32(header, 8) {
        return Envelope::Damaged;
    }
    let version = get_u32(header, 12);
    if version != FORMAT_VERSION {
        return Envelope::Version(version);
    }
    let hash = hash128(&header[ENVELOPE_SIZE..]);
    if hash == get_hash(header, 16) { Envelope::Valid(hash) } else { Envelope::Damaged }
}
