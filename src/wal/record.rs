//! One record: an entry of the log as it lies in a group.
//!
//! ```text
//!  0  crc32 of 4..48+length   4
//!  4  length of the payload   4
//!  8  index                   8
//! 16  term                    8
//! 24  kind 1, zero 7          8
//! 32  log chain hash         16   hash128(4..32, hash of the record before, payload)
//! 48  payload, zeros up to a multiple of 8
//! ```

use alloc::vec::Vec;
use core::ops::Range;

use base::{Hash128, Hasher128, LogIndex, Term, crc32, hash128};

use crate::format::{
    get_hash, get_u32, get_u64, is_zero, put_hash, put_u32, put_u64, round_up, usize_of32,
};
use crate::{Entry, Fault, Position};

/// Bytes of a record before its payload.
pub const RECORD_HEADER_SIZE: usize = 48;

/// Bytes of a record with a payload of `payload_size` bytes.
#[inline]
pub const fn record_size(payload_size: usize) -> usize {
    RECORD_HEADER_SIZE + round_up(payload_size, 8)
}

/// Encodes `entry` at the start of `out`, which may be dirty, and returns the log chain hash behind
/// it. The payload is copied once; hash and CRC run over the copy while it is in the first-level
/// cache.
#[inline]
pub(crate) fn encode_record(out: &mut [u8], entry: &Entry<'_>, previous: Hash128) -> Hash128 {
    let size = entry.payload.len();
    let length = u32::try_from(size).expect("append checked the size against the segment");
    let end = RECORD_HEADER_SIZE + size;
    let out = &mut out[..record_size(size)];
    put_u32(out, 4, length);
    put_u64(out, 8, entry.index.get());
    put_u64(out, 16, entry.term.get());
    put_u64(out, 24, u64::from(entry.kind));
    // The hash of the record before stands where the record's own hash will, so that the chain hash
    // is one pass over contiguous bytes.
    put_hash(out, 32, previous);
    out[RECORD_HEADER_SIZE..end].copy_from_slice(entry.payload);
    out[end..].fill(0);
    let hash = hash128(&out[4..end]);
    put_hash(out, 32, hash);
    let crc = crc32(&out[4..end]);
    put_u32(out, 0, crc);
    hash
}

/// A verified record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The entry.
    pub entry: Entry<'a>,
    /// The log chain hash behind it.
    pub hash: Hash128,
    /// Where the record starts in its group, in bytes from the group header.
    pub offset: usize,
}

/// Size and index of the record at the start of `bytes`, before anything is verified; none if the
/// header is cut short.
pub(crate) fn peek_record(bytes: &[u8]) -> Option<(usize, LogIndex)> {
    let header = bytes.get(..RECORD_HEADER_SIZE)?;
    let size = record_size(usize_of32(get_u32(header, 4)));
    Some((size, LogIndex::new(get_u64(header, 8))))
}

/// Verifies the record at the start of `bytes`; `previous` is the position before it. None if
/// anything is wrong with it.
pub(crate) fn decode_record(bytes: &[u8], previous: Position) -> Option<(Entry<'_>, Hash128)> {
    let (size, index) = peek_record(bytes)?;
    let record = bytes.get(..size)?;
    let end = RECORD_HEADER_SIZE + usize_of32(get_u32(record, 4));
    if crc32(&record[4..end]) != get_u32(record, 0) || !is_zero(&record[end..]) {
        return None;
    }
    let term = Term::new(get_u64(record, 16));
    let kind = record[24];
    let follows = previous.index.get().checked_add(1) == Some(index.get()) && term >= previous.term;
    if !follows || !is_zero(&record[25..32]) {
        return None;
    }
    let payload = &record[RECORD_HEADER_SIZE..end];
    let mut hasher = Hasher128::new();
    hasher.update(&record[4..32]);
    hasher.update(&previous.hash.to_bytes());
    hasher.update(payload);
    let hash = hasher.finish();
    (hash == get_hash(record, 32)).then_some((Entry { index, term, kind, payload }, hash))
}

/// Appends a record to `out` whose chain hash is known: how an entry travels to another member. It is
/// what a group holds, byte for byte.
pub fn write_record(out: &mut Vec<u8>, entry: &Entry<'_>, hash: Hash128) {
    let start = out.len();
    let size = entry.payload.len();
    let length = u32::try_from(size).expect("append checked the size against the segment");
    let end = start + RECORD_HEADER_SIZE + size;
    let mut header = [0; RECORD_HEADER_SIZE];
    put_u32(&mut header, 4, length);
    put_u64(&mut header, 8, entry.index.get());
    put_u64(&mut header, 16, entry.term.get());
    put_u64(&mut header, 24, u64::from(entry.kind));
    put_hash(&mut header, 32, hash);
    out.extend_from_slice(&header);
    out.extend_from_slice(entry.payload);
    let crc = crc32(&out[start + 4..end]);
    put_u32(out, start, crc);
    out.resize(start + record_size(size), 0);
}

/// The log chain hash behind `entry`, where `previous` is the one before it.
pub fn chain_hash(entry: &Entry<'_>, previous: Hash128) -> Hash128 {
    let mut header = [0; RECORD_HEADER_SIZE];
    put_u32(&mut header, 4, u32::try_from(entry.payload.len()).unwrap_or(u32::MAX));
    put_u64(&mut header, 8, entry.index.get());
    put_u64(&mut header, 16, entry.term.get());
    put_u64(&mut header, 24, u64::from(entry.kind));
    put_hash(&mut header, 32, previous);
    let mut hasher = Hasher128::new();
    hasher.update(&header[4..]);
    hasher.update(entry.payload);
    hasher.finish()
}

/// Splits the first record off `bytes`: where its payload lies in them, the entry without its payload,
/// and its chain hash, which only the log that takes it can check. None if it is malformed.
pub fn read_record(bytes: &[u8]) -> Option<(Entry<'static>, Hash128, Range<usize>, usize)> {
    let (size, index) = peek_record(bytes)?;
    let record = bytes.get(..size)?;
    let end = RECORD_HEADER_SIZE + usize_of32(get_u32(record, 4));
    if crc32(&record[4..end]) != get_u32(record, 0)
        || !is_zero(&record[25..32])
        || !is_zero(&record[end..])
    {
        return None;
    }
    let (term, kind) = (Term::new(get_u64(record, 16)), record[24]);
    let entry = Entry { index, term, kind, payload: &[] };
    Some((entry, get_hash(record, 32), RECORD_HEADER_SIZE..end, size))
}

/// The records of one group, each verified as it is reached.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    /// The group from its header to the end of its last record.
    bytes: &'a [u8],
    /// Where the next record starts.
    at: usize,
    previous: Position,
}

impl<'a> Records<'a> {
    /// The records in `bytes` (a group up to the end of its last record) from `at` on.
    pub(crate) fn new(bytes: &'a [u8], at: usize, previous: Position) -> Self {
        Self { bytes, at, previous }
    }

    /// The position behind the last record taken.
    pub fn position(&self) -> Position {
        self.previous
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let offset = self.at;
        let Some((entry, hash)) = decode_record(rest, self.previous) else {
            // Nothing behind a broken record can be trusted: the iterator ends.
            self.at = self.bytes.len();
            return Some(Err(Fault::Record(offset)));
        };
        self.at += record_size(entry.payload.len());
        self.previous = Position { index: entry.index, term: entry.term, hash };
        Some(Ok(Record { entry, hash, offset }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_travels_as_it_lies_in_a_group() {
        let payloads: [&[u8]; 4] = [b"", b"a", b"12345678", &[7; 300]];
        let (mut previous, mut sent, mut stored) = (Hash128::ZERO, Vec::new(), Vec::new());
        for (i, payload) in (1..).zip(payloads) {
            let entry = Entry { index: LogIndex::new(i), term: Term::new(3), kind: 2, payload };
            let at = stored.len();
            stored.resize(at + record_size(payload.len()), 0xff);
            let hash = chain_hash(&entry, previous);
            previous = encode_record(&mut stored[at..], &entry, previous);
            assert_eq!(hash, previous);
            write_record(&mut sent, &entry, previous);
        }
        assert_eq!(sent, stored);
        let mut rest = &sent[..];
        for (i, payload) in (1..).zip(payloads) {
            let (entry, _, place, size) = read_record(rest).expect("as it was written");
            assert_eq!((entry.index, &rest[place]), (LogIndex::new(i), payload));
            rest = &rest[size..];
        }
        assert!(rest.is_empty());
        for place in 0..sent.len() {
            let mut damaged = sent.clone();
            damaged[place] ^= 4;
            let mut rest = &damaged[..];
            let mut whole = 0;
            while let Some((.., size)) = read_record(rest) {
                rest = &rest[size..];
                whole += 1;
            }
            assert!(whole < payloads.len(), "byte {place} changed unseen");
        }
    }
}
