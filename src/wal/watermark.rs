//! The watermark: a small file that says how far the log was durable, written lazily and apart from
//! it.
//!
//! The bytes of a block are drawn in the crate's documentation. Write n goes to block n mod 4, so
//! that a torn write leaves three older ones.

use base::limits::BLOCK_SIZE;
use base::{LogIndex, Lsn, NodeId, Term};

use crate::format::{
    Envelope, close_envelope, get_identity, get_u32, get_u64, is_zero, open_envelope, put_identity,
    put_u32, put_u64,
};
use crate::{HardState, Identity};

const MAGIC: &[u8; 8] = b"QRWALMRK";
const FLAG_VOTE: u32 = 1;
const FLAG_BEGUN: u32 = 4;

/// One block of the watermark file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermark {
    /// Who wrote it.
    pub identity: Identity,
    /// Counts the writes of this file; the greatest one is the newest.
    pub sequence: u64,
    /// The hard state at that time.
    pub hard_state: HardState,
    /// The greatest durable LSN at that time.
    pub durable_lsn: Lsn,
    /// The last durable entry at that time: its index.
    pub durable_index: LogIndex,
    /// Its term.
    pub durable_term: Term,
}

impl Watermark {
    /// Fills `out` (4 KiB, may be dirty).
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..BLOCK_SIZE];
        out.fill(0);
        put_identity(out, &self.identity);
        put_u64(out, 64, self.sequence);
        put_u64(out, 72, self.hard_state.term.get());
        put_u64(out, 80, self.hard_state.vote.map_or(0, NodeId::get));
        put_u64(out, 88, self.hard_state.commit.get());
        put_u64(out, 96, self.durable_lsn.get());
        put_u64(out, 104, self.durable_index.get());
        put_u64(out, 112, self.durable_term.get());
        let begun = if self.hard_state.begun { FLAG_BEGUN } else { 0 };
        put_u32(out, 120, self.hard_state.vote.map_or(0, |_| FLAG_VOTE) | begun);
        close_envelope(out, MAGIC);
    }

    /// Reads one block; none if it does not verify.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let block = block.get(..BLOCK_SIZE)?;
        let Envelope::Valid(_) = open_envelope(block, MAGIC) else { return None };
        let flags = get_u32(block, 120);
        let watermark = Self {
            identity: get_identity(block),
            sequence: get_u64(block, 64),
            hard_state: HardState {
                term: Term::new(get_u64(block, 72)),
                vote: (flags & FLAG_VOTE != 0).then(|| NodeId::new(get_u64(block, 80))),
                commit: LogIndex::new(get_u64(block, 88)),
                begun: flags & FLAG_BEGUN != 0,
            },
            durable_lsn: Lsn::new(get_u64(block, 96)),
            durable_index: LogIndex::new(get_u64(block, 104)),
            durable_term: Term::new(get_u64(block, 112)),
        };
        let plausible = flags & !(FLAG_VOTE | FLAG_BEGUN) == 0 && is_zero(&block[124..]);
        (plausible && watermark.sequence < u64::MAX).then_some(watermark)
    }
}
