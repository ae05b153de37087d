//! The header of a segment: the first block of a slot file. Its bytes are drawn in the crate's
//! documentation.

use base::FileId;
use base::limits::BLOCK_SIZE;

use crate::format::{
    Envelope, close_envelope, get_id, get_identity, get_u32, get_u64, is_zero, open_envelope,
    put_id, put_identity, put_u32, put_u64, size64,
};
use crate::{Identity, SEGMENT_HEADER_SIZE};

const MAGIC: &[u8; 8] = b"QRWALSEG";

/// The first block of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Who prepared the segment.
    pub identity: Identity,
    /// A random name of this use of the slot.
    pub uuid: FileId,
    /// Segments follow each other by sequence; there may be gaps.
    pub sequence: u64,
    /// Bytes of the segment, header included.
    pub size: u64,
    /// The slot it was written for: a header in another one does not count.
    pub slot: u32,
}

/// What the first block of a slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotHeader {
    Valid(SegmentHeader),
    Version(u32),
    /// Not a header of this slot, and not zero.
    Damaged,
    /// Never used.
    Zero,
}

impl SegmentHeader {
    /// Fills `out` (4 KiB, may be dirty).
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..BLOCK_SIZE];
        out.fill(0);
        put_identity(out, &self.identity);
        put_id(out, 64, self.uuid);
        put_u64(out, 80, self.sequence);
        put_u64(out, 88, self.size);
        put_u32(out, 96, self.slot);
        close_envelope(out, MAGIC);
    }

    /// Reads the first block of slot `slot`.
    pub(crate) fn decode(block: &[u8], slot: u32) -> SlotHeader {
        let Some(block) = block.get(..BLOCK_SIZE) else { return SlotHeader::Damaged };
        match open_envelope(block, MAGIC) {
            Envelope::Version(version) => return SlotHeader::Version(version),
            Envelope::Absent if is_zero(block) => return SlotHeader::Zero,
            Envelope::Absent | Envelope::Damaged => return SlotHeader::Damaged,
            Envelope::Valid(_) => {}
        }
        let header = Self {
            identity: get_identity(block),
            uuid: get_id(block, 64),
            sequence: get_u64(block, 80),
            size: get_u64(block, 88),
            slot: get_u32(block, 96),
        };
        let plausible = header.slot == slot
            && header.sequence < u64::MAX
            && header.size >= size64(SEGMENT_HEADER_SIZE + BLOCK_SIZE)
            && header.size.is_multiple_of(size64(BLOCK_SIZE))
            && is_zero(&block[100..]);
        if plausible { SlotHeader::Valid(header) } else { SlotHeader::Damaged }
    }
}
