//! Segments in the course of their life. Only bookkeeping: the writer makes the writes.
//!
//! ```text
//! free -> prepare -> spare, header not durable -> ready -> rotate -> active -> full -> recycle ->
//! free
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;
use base::{FileId, LogIndex, Lsn, Mutant};

use crate::format::size64;
use crate::{Identity, SEGMENT_HEADER_SIZE, SPARES_READY, SegmentHeader};

/// The segment that groups are written to, and how far it is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Active {
    pub header: SegmentHeader,
    /// Where the next group goes, in bytes.
    pub offset: u64,
}

/// A segment that was left for the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full {
    pub slot: u32,
    pub size: u64,
    /// No valid entry in it lies behind this index.
    pub upto: LogIndex,
    /// The first group that is not in it. It must be durable before the segment may go: only then
    /// does a later header carry the hard state and the place where the log goes on.
    pub next_lsn: Lsn,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spare {
    header: SegmentHeader,
    ready: bool,
}

/// All segments of one log.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    active: Option<Active>,
    /// Oldest first.
    full: VecDeque<Full>,
    /// By sequence, which is the order of their use.
    spares: VecDeque<Spare>,
    /// Oldest first: the segments that are left on disk must always be the newest ones, for a start
    /// walks from the oldest header that it finds.
    free: VecDeque<u32>,
    /// Slots whose header an earlier incarnation wrote for a segment behind the active one. They
    /// may hold dropped groups, so each is prepared anew, durably, before the first group is
    /// written.
    stale: Vec<u32>,
    /// Stale slots that have been taken and are not ready yet.
    settling: Vec<u32>,
    next_sequence: u64,
}

impl Segments {
    /// A log without segments.
    pub fn empty() -> Self {
        Self::resume(None, VecDeque::new(), VecDeque::new(), Vec::new(), 1)
    }

    /// The segments as recovery found them.
    pub fn resume(
        active: Option<Active>,
        full: VecDeque<Full>,
        free: VecDeque<u32>,
        stale: Vec<u32>,
        next_sequence: u64,
    ) -> Self {
        let (spares, settling) = (VecDeque::new(), Vec::new());
        Self { active, full, spares, free, stale, settling, next_sequence }
    }

    /// Spares to prepare: until enough are under way and no stale slot is left.
    pub fn spares_wanted(&self) -> u32 {
        let spares = u32::try_from(self.spares.len()).expect("there are a few spares");
        let stale = u32::try_from(self.stale.len()).expect("there are a few stale slots");
        SPARES_READY.saturating_sub(spares).max(stale)
    }

    /// True while a stale slot is not durably prepared anew.
    pub fn is_unsettled(&self) -> bool {
        !self.stale.is_empty() || !self.settling.is_empty()
    }

    /// A slot that holds nothing of the log, stale ones first.
    pub fn take_free(&mut self) -> Option<u32> {
        if let Some(slot) = self.stale.pop() {
            self.settling.push(slot);
            return Some(slot);
        }
        self.free.pop_front()
    }

    /// A slot beyond what the spares will need; never a stale one.
    pub fn take_surplus(&mut self) -> Option<u32> {
        let keep = usize::try_from(SPARES_READY).expect("two");
        if self.free.len() > keep { self.free.pop_front() } else { None }
    }

    /// Makes slot `slot` a spare that is not ready yet.
    pub fn prepare(
        &mut self,
        slot: u32,
        uuid: FileId,
        identity: &Identity,
        size: u64,
    ) -> SegmentHeader {
        assert!(!self.is_used(slot), "slot {slot} is in use and cannot become a spare");
        // A caller that chooses the slot itself must not leave a second entry behind.
        self.free.retain(|&free| free != slot);
        if self.stale.contains(&slot) {
            self.stale.retain(|&stale| stale != slot);
            self.settling.push(slot);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let header = SegmentHeader { identity: *identity, uuid, sequence, size, slot };
        self.spares.push_back(Spare { header, ready: false });
        header
    }

    /// The header of spare `slot` is durable.
    pub fn ready(&mut self, slot: u32) {
        let spare = self.spares.iter_mut().find(|spare| spare.header.slot == slot);
        let spare = spare.unwrap_or_else(|| panic!("slot {slot} was not prepared"));
        assert!(!spare.ready, "slot {slot} is ready already");
        spare.ready = true;
        self.settling.retain(|&settling| settling != slot);
    }

    /// The segment for a group of `size` bytes: the active one, or else the next ready spare, which
    /// becomes active. `upto` and `lsn` are the cut and the LSN of that group. None without a
    /// spare.
    pub fn place(&mut self, size: u64, upto: LogIndex, lsn: Lsn) -> Option<(SegmentHeader, u64)> {
        let fits = |active: &Active| active.header.size - active.offset >= size;
        if !self.active.as_ref().is_some_and(fits) {
            let next = self.spares.front().filter(|spare| spare.ready)?.header;
            assert!(
                next.size - size64(SEGMENT_HEADER_SIZE) >= size,
                "a group of {size} bytes does not fit a segment of {}",
                next.size
            );
            self.spares.pop_front();
            if let Some(old) = self.active.take() {
                let Active { header, .. } = old;
                let full = Full { slot: header.slot, size: header.size, upto, next_lsn: lsn };
                self.full.push_back(full);
            }
            self.active = Some(Active { header: next, offset: size64(SEGMENT_HEADER_SIZE) });
        }
        let active = self.active.as_mut().expect("it is there or has just been set");
        let offset = active.offset;
        active.offset += size;
        Some((active.header, offset))
    }

    /// Gives back the oldest segment if its entries all lie below `below`, and below `keep` unless the
    /// full segments behind it have `keep_size` bytes. Returns its last index and its slot.
    pub fn recycle(
        &mut self,
        (below, keep, keep_size): (LogIndex, LogIndex, u64),
        durable: Lsn,
    ) -> Option<(LogIndex, u32)> {
        let full = *self.full.front()?;
        let size = self.full.iter().map(|full| full.size).sum::<u64>();
        let is_kept = full.upto >= keep && size - full.size < keep_size;
        let needed = full.upto >= below && !Mutant::RecycledTooFar.is_on();
        if needed || full.next_lsn > durable || is_kept {
            return None;
        }
        self.free.push_back(full.slot);
        self.full.pop_front();
        Some((full.upto, full.slot))
    }

    /// Bytes of groups that can be written before a slot must be prepared.
    pub fn room(&self) -> u64 {
        let active = self.active.map_or(0, |active| active.header.size - active.offset);
        let ready = self.spares.iter().take_while(|spare| spare.ready);
        active + ready.map(|spare| spare.header.size - size64(SEGMENT_HEADER_SIZE)).sum::<u64>()
    }

    /// Bytes of all slot files that this log knows.
    pub fn size(&self) -> u64 {
        let active = self.active.map_or(0, |active| active.header.size);
        let full = self.full.iter().map(|full| full.size).sum::<u64>();
        active + full + self.spares.iter().map(|spare| spare.header.size).sum::<u64>()
    }

    /// Segments that hold groups.
    pub fn used_count(&self) -> usize {
        self.full.len() + usize::from(self.active.is_some())
    }

    fn is_used(&self, slot: u32) -> bool {
        self.active.is_some_and(|active| active.header.slot == slot)
            || self.full.iter().any(|full| full.slot == slot)
            || self.spares.iter().any(|spare| spare.header.slot == slot)
    }
}

const _: () = assert!(SEGMENT_HEADER_SIZE == BLOCK_SIZE, "the first group starts on a block");
