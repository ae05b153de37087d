//! The header ring: a second copy of every group header in a file of its own, with the identities
//! of the group's first records, so that one bad block cannot take a payload and its identity
//! together.
//!
//! ```text
//!   0  copy of the group header    256
//! 256  crc32 of 260..4096            4
//! 260  identities that follow        4
//! 264  { index 8, term 8, log chain hash 16, offset in the group 4, payload length 4 } each
//! ```

use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;
use base::{Hash128, LogIndex, Lsn, Term, crc32};

use crate::format::{get_hash, get_u32, get_u64, put_u32, size64, usize_of32};
use crate::record::peek_record;
use crate::{GROUP_HEADER_SIZE, GroupHeader, Header, RECORD_HEADER_SIZE};

const IDENTITIES_OFFSET: usize = GROUP_HEADER_SIZE + 8;
const IDENTITY_SIZE: usize = 40;

/// Identities that fit into one slot of the ring; a larger group names its first ones only.
pub const RING_IDENTITIES_MAX: usize = (BLOCK_SIZE - IDENTITIES_OFFSET) / IDENTITY_SIZE;

/// Which entry a record holds, without its payload: enough to fetch it from a peer and to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryIdentity {
    /// Index of the entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The log chain hash behind it.
    pub hash: Hash128,
    /// Where its record starts in the group, in bytes.
    pub offset: u32,
    /// Bytes of its payload.
    pub length: u32,
}

/// The byte offset in the ring file of the slot of group `lsn`, in a ring of `slots` slots.
pub(crate) fn ring_offset(lsn: Lsn, slots: u32) -> u64 {
    lsn.get() % u64::from(slots) * size64(BLOCK_SIZE)
}

/// Fills `out` (4 KiB, may be dirty) with the ring copy of a sealed group.
pub(crate) fn encode_ring_slot(out: &mut [u8], group: &[u8], header: &GroupHeader) {
    let out = &mut out[..BLOCK_SIZE];
    out[..GROUP_HEADER_SIZE].copy_from_slice(&group[..GROUP_HEADER_SIZE]);
    let mut record_at = GROUP_HEADER_SIZE;
    let mut count = 0_u32;
    let mut at = IDENTITIES_OFFSET;
    for _ in 0..usize_of32(header.record_count).min(RING_IDENTITIES_MAX) {
        let record = &group[record_at..];
        let (size, index) = peek_record(record).expect("the writer has just encoded this record");
        out[at..at + 16].copy_from_slice(&record[8..24]);
        out[at + 16..at + 32].copy_from_slice(&record[32..RECORD_HEADER_SIZE]);
        put_u32(out, at + 32, u32::try_from(record_at).expect("the records have a 32-bit size"));
        out[at + 36..at + 40].copy_from_slice(&record[4..8]);
        debug_assert!(index <= header.last.index, "index {index} is behind its group");
        record_at += size;
        at += IDENTITY_SIZE;
        count += 1;
    }
    out[at..].fill(0);
    put_u32(out, GROUP_HEADER_SIZE + 4, count);
    let crc = crc32(&out[GROUP_HEADER_SIZE + 4..]);
    put_u32(out, GROUP_HEADER_SIZE, crc);
}

/// A slot of the ring, verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingSlot {
    /// The header of the group.
    pub header: GroupHeader,
    /// The hash of the group.
    pub hash: Hash128,
    /// The first records of the group; empty if that part of the slot is damaged.
    pub identities: Vec<EntryIdentity>,
}

impl RingSlot {
    /// Reads one block of the ring; none if its header does not verify.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let Header::Valid(header, hash) = GroupHeader::decode(block) else { return None };
        let mut identities = Vec::new();
        if let Some(area) = block.get(GROUP_HEADER_SIZE..BLOCK_SIZE)
            && crc32(&area[4..]) == get_u32(area, 0)
        {
            let count = usize_of32(get_u32(area, 4)).min(RING_IDENTITIES_MAX);
            identities.extend(area[8..].chunks_exact(IDENTITY_SIZE).take(count).map(|bytes| {
                EntryIdentity {
                    index: LogIndex::new(get_u64(bytes, 0)),
                    term: Term::new(get_u64(bytes, 8)),
                    hash: get_hash(bytes, 16),
                    offset: get_u32(bytes, 32),
                    length: get_u32(bytes, 36),
                }
            }));
        }
        Some(Self { header, hash, identities })
    }
}
