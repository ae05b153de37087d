//! Witnesses: what on disk says how far the log was durable, wherever the chain breaks.

use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;
use base::{Hash128, Lsn};

use crate::format::{is_zero, size64, usize_of};
use crate::ring::ring_offset;
use crate::window::Window;
use crate::{GROUPS_IN_FLIGHT_MAX, GroupHeader, Header, Read, RingSlot, WalFile, Witness};

/// The greatest LSN that anything names durable.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    pub durable: Lsn,
    pub witness: Option<Witness>,
}

impl Evidence {
    pub fn note(&mut self, durable: Lsn, witness: Witness) {
        if durable > self.durable {
            *self = Self { durable, witness: Some(witness) };
        }
    }

    pub fn note_header(&mut self, header: &GroupHeader, file: WalFile) {
        let (lsn, durable) = (header.lsn, header.durable_lsn);
        self.note(durable, Witness::Header { file, lsn, durable });
    }
}

/// One slot of the ring, as read.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all slots are valid")]
enum RingState {
    /// Never written.
    Zero,
    Damaged,
    Valid(GroupHeader, Hash128),
}

/// The header ring in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    states: Vec<RingState>,
}

impl Ring {
    /// Takes the next block of the ring, of `slots`; returns its header if there is one in its
    /// place.
    pub fn push(&mut self, block: &[u8], slots: u32) -> Option<GroupHeader> {
        let offset = size64(self.states.len() * BLOCK_SIZE);
        let state = match RingSlot::decode(block) {
            Some(slot) if ring_offset(slot.header.lsn, slots) == offset => {
                RingState::Valid(slot.header, slot.hash)
            }
            Some(_) => RingState::Damaged,
            None if is_zero(block) => RingState::Zero,
            None => RingState::Damaged,
        };
        self.states.push(state);
        if let RingState::Valid(header, _) = state { Some(header) } else { None }
    }

    fn state_of(&self, lsn: Lsn) -> Option<&RingState> {
        let count = size64(self.states.len());
        self.states.get(usize_of(lsn.get().checked_rem(count)?))
    }

    /// The header of group `lsn`.
    pub fn header_of(&self, lsn: Lsn) -> Option<&GroupHeader> {
        match self.state_of(lsn)? {
            RingState::Valid(header, _) if header.lsn == lsn => Some(header),
            RingState::Valid(..) | RingState::Zero | RingState::Damaged => None,
        }
    }

    /// True if the ring alone tells which groups from `next` on were submitted: it holds the group
    /// before `next`, so it was kept, and the slots of the groups that can have been in flight are
    /// intact, each with its group or with the one a whole round earlier. Then the segments need no
    /// search.
    pub fn is_conclusive(&self, next: Lsn, previous: Hash128) -> bool {
        let count = size64(self.states.len());
        let Some(before) = next.previous().filter(|before| *before > Lsn::ZERO) else {
            return false;
        };
        let kept = matches!(
            self.state_of(before),
            Some(RingState::Valid(header, hash)) if header.lsn == before && *hash == previous
        );
        let is_intact = |ahead: u64| {
            let Some(lsn) = next.get().checked_add(ahead) else { return false };
            match self.state_of(Lsn::new(lsn)) {
                Some(RingState::Zero) => lsn <= count,
                Some(RingState::Valid(header, _)) => {
                    header.lsn.get() == lsn || Some(header.lsn.get()) == lsn.checked_sub(count)
                }
                Some(RingState::Damaged) | None => false,
            }
        };
        kept && (0..=size64(GROUPS_IN_FLIGHT_MAX)).all(is_intact)
    }
}

/// A part of a file to search for headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub file: WalFile,
    pub start: u64,
    pub end: u64,
}

/// A search for group headers behind the end of the chain, block by block, in any order of
/// segments. An earlier life of a segment does no harm: its groups name only LSNs below the end
/// durable.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub extents: Vec<Extent>,
    pub next: Lsn,
    /// The search ends when this LSN is proven durable.
    pub enough: Lsn,
    /// The lowest group at or behind `next` that was found, and where.
    pub found: Option<(GroupHeader, WalFile, u64)>,
}

impl Search {
    /// Goes on until it needs bytes (the read), or has found enough or everything (none).
    pub fn step(
        &mut self,
        window: &mut Window,
        evidence: &mut Evidence,
        is_ours: &dyn Fn(&GroupHeader) -> bool,
    ) -> Option<Read> {
        while let Some(extent) = self.extents.last_mut() {
            let Extent { file, start, end } = *extent;
            if start >= end || evidence.durable >= self.enough {
                self.extents.pop();
                continue;
            }
            let Some(block) = window.at(file, start, BLOCK_SIZE) else {
                return Some(window.want(file, start, end));
            };
            extent.start += size64(BLOCK_SIZE);
            let Header::Valid(header, _) = GroupHeader::decode(block) else { continue };
            if !is_ours(&header) || header.lsn < self.next {
                continue;
            }
            evidence.note_header(&header, file);
            if self.found.is_none_or(|(found, ..)| header.lsn < found.lsn) {
                self.found = Some((header, file, start));
            }
        }
        None
    }
}
