//! The header of a group, and the check of a whole group. The bytes are drawn in the crate's
//! documentation.

use base::limits::BLOCK_SIZE;
use base::{FileId, Hash128, LogIndex, Lsn, NodeId, Term};

use crate::format::{
    Envelope, close_envelope, get_hash, get_id, get_identity, get_u32, get_u64, is_zero,
    open_envelope, put_hash, put_id, put_identity, put_u32, put_u64, round_up, usize_of32,
};
use crate::{Fault, HardState, Identity, Position, RECORD_HEADER_SIZE, Records};

/// Bytes of a group header; the records follow it at once, in the same block.
pub const GROUP_HEADER_SIZE: usize = 256;

const MAGIC: &[u8; 8] = b"QRWALGRP";
const FLAG_VOTE: u32 = 1;
const FLAG_RESTART: u32 = 2;
const FLAG_BEGUN: u32 = 4;

/// The header of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// Who wrote it.
    pub identity: Identity,
    /// The segment it belongs to.
    pub segment: FileId,
    /// The sequence of that segment.
    pub sequence: u64,
    /// Where it starts in its slot file, in bytes.
    pub offset: u64,
    /// Its sequence number.
    pub lsn: Lsn,
    /// The greatest LSN that was durable when it was sealed.
    pub durable_lsn: Lsn,
    /// The hash of the group before it; zero for the first.
    pub previous: Hash128,
    /// The cut: the last entry of the earlier log that stays valid. The first record follows it.
    pub cut: Position,
    /// Term of the first record; zero if there is none. Its index is that behind the cut.
    pub first_term: Term,
    /// The last record, or the cut if there is none.
    pub last: Position,
    /// The hard state when it was sealed.
    pub hard_state: HardState,
    /// Records.
    pub record_count: u32,
    /// Bytes of records.
    pub records_size: u32,
    /// True if the log starts anew at the cut: nothing before it counts any more (an installed
    /// snapshot).
    pub restart: bool,
}

/// What stands where a group header may stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack of one check")]
pub enum Header {
    /// A header that verifies, and the hash of the group.
    Valid(GroupHeader, Hash128),
    /// A whole header of another format version.
    Version(u32),
    /// The magic of a header, and something wrong behind it.
    Damaged,
    /// No header.
    Absent,
}

impl GroupHeader {
    /// Bytes of the group on disk: header, records and padding.
    pub fn size(&self) -> usize {
        group_size(usize_of32(self.records_size))
    }

    /// Index of the first record; none if the group has no records.
    pub fn first_index(&self) -> Option<LogIndex> {
        (self.record_count > 0).then(|| self.cut.index.next())
    }

    /// Writes the header to the start of `out`, which may be dirty; returns the hash of the group.
    pub(crate) fn encode(&self, out: &mut [u8]) -> Hash128 {
        let out = &mut out[..GROUP_HEADER_SIZE];
        let first = self.first_index().unwrap_or(LogIndex::ZERO);
        let vote = self.hard_state.vote.map_or(0, |_| FLAG_VOTE);
        let restart = if self.restart { FLAG_RESTART } else { 0 };
        let begun = if self.hard_state.begun { FLAG_BEGUN } else { 0 };
        put_identity(out, &self.identity);
        put_id(out, 64, self.segment);
        put_u64(out, 80, self.sequence);
        put_u64(out, 88, self.offset);
        put_u64(out, 96, self.lsn.get());
        put_u64(out, 104, self.durable_lsn.get());
        put_hash(out, 112, self.previous);
        put_u64(out, 128, self.cut.index.get());
        put_u64(out, 136, self.cut.term.get());
        put_hash(out, 144, self.cut.hash);
        put_u64(out, 160, first.get());
        put_u64(out, 168, self.first_term.get());
        put_u64(out, 176, self.last.index.get());
        put_u64(out, 184, self.last.term.get());
        put_hash(out, 192, self.last.hash);
        put_u64(out, 208, self.hard_state.term.get());
        put_u64(out, 216, self.hard_state.vote.map_or(0, NodeId::get));
        put_u64(out, 224, self.hard_state.commit.get());
        put_u32(out, 232, self.record_count);
        put_u32(out, 236, self.records_size);
        put_u32(out, 240, vote | restart | begun);
        out[244..].fill(0);
        close_envelope(out, MAGIC)
    }

    /// Reads what stands at the start of `bytes`: at least 256 of them.
    pub fn decode(bytes: &[u8]) -> Header {
        let Some(bytes) = bytes.get(..GROUP_HEADER_SIZE) else { return Header::Absent };
        match open_envelope(bytes, MAGIC) {
            Envelope::Absent => Header::Absent,
            Envelope::Damaged => Header::Damaged,
            Envelope::Version(version) => Header::Version(version),
            Envelope::Valid(hash) => match Self::decode_fields(bytes) {
                Some(header) => Header::Valid(header, hash),
                None => Header::Damaged,
            },
        }
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let flags = get_u32(bytes, 240);
        let vote = (flags & FLAG_VOTE != 0).then(|| NodeId::new(get_u64(bytes, 216)));
        let header = Self {
            identity: get_identity(bytes),
            segment: get_id(bytes, 64),
            sequence: get_u64(bytes, 80),
            offset: get_u64(bytes, 88),
            lsn: Lsn::new(get_u64(bytes, 96)),
            durable_lsn: Lsn::new(get_u64(bytes, 104)),
            previous: get_hash(bytes, 112),
            cut: Position {
                index: LogIndex::new(get_u64(bytes, 128)),
                term: Term::new(get_u64(bytes, 136)),
                hash: get_hash(bytes, 144),
            },
            first_term: Term::new(get_u64(bytes, 168)),
            last: Position {
                index: LogIndex::new(get_u64(bytes, 176)),
                term: Term::new(get_u64(bytes, 184)),
                hash: get_hash(bytes, 192),
            },
            hard_state: HardState {
                term: Term::new(get_u64(bytes, 208)),
                vote,
                commit: LogIndex::new(get_u64(bytes, 224)),
                begun: flags & FLAG_BEGUN != 0,
            },
            record_count: get_u32(bytes, 232),
            records_size: get_u32(bytes, 236),
            restart: flags & FLAG_RESTART != 0,
        };
        let first_index = LogIndex::new(get_u64(bytes, 160));
        let plausible = flags & !(FLAG_VOTE | FLAG_RESTART | FLAG_BEGUN) == 0
            && is_zero(&bytes[244..])
            && header.is_plausible(first_index);
        plausible.then_some(header)
    }

    /// True if the numbers agree with each other. The checksums already hold: this keeps a header
    /// that somebody made up from reaching arithmetic that trusts it.
    fn is_plausible(&self, first_index: LogIndex) -> bool {
        let count = u64::from(self.record_count);
        let records = u64::from(self.records_size);
        let order = self.lsn > Lsn::ZERO
            && self.lsn < Lsn::MAX
            && self.durable_lsn < self.lsn
            && self.cut.index.get() < u64::MAX
            && self.cut.index.get().checked_add(count) == Some(self.last.index.get())
            && self.last.index < LogIndex::MAX;
        let content = if count == 0 {
            records == 0
                && self.last == self.cut
                && first_index == LogIndex::ZERO
                && self.first_term == Term::ZERO
        } else {
            records >= count * u64::from(RECORD_HEADER_SIZE_32)
                && first_index == self.cut.index.next()
                && self.first_term >= self.cut.term
                && self.last.term >= self.first_term
        };
        order && content
    }

    /// The records of this group; `bytes` is the whole group, as read.
    pub fn records<'a>(&self, bytes: &'a [u8]) -> Records<'a> {
        self.records_from(bytes, GROUP_HEADER_SIZE, self.cut)
    }

    /// The records from offset `at` on, which is behind the entry `previous`.
    pub(crate) fn records_from<'a>(
        &self,
        bytes: &'a [u8],
        at: usize,
        previous: Position,
    ) -> Records<'a> {
        let end = GROUP_HEADER_SIZE + usize_of32(self.records_size);
        Records::new(&bytes[..end.min(bytes.len())], at, previous)
    }

    /// Verifies records and padding of the group, `bytes` from its header to its end; tells each
    /// record's index and term to `visit`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn verify(
        &self,
        bytes: &[u8],
        visit: &mut dyn FnMut(LogIndex, Term),
    ) -> Result<(), Fault> {
        if bytes.len() != self.size() {
            return Err(Fault::Size);
        }
        let end = GROUP_HEADER_SIZE + usize_of32(self.records_size);
        let mut records = self.records(bytes);
        let mut count = 0_u32;
        for record in &mut records {
            let record = record?;
            if count == 0 && record.entry.term != self.first_term {
                return Err(Fault::Record(record.offset));
            }
            count += 1;
            visit(record.entry.index, record.entry.term);
        }
        if count != self.record_count || records.position() != self.last {
            return Err(Fault::Record(end));
        }
        if !is_zero(&bytes[end..]) {
            return Err(Fault::Padding(end));
        }
        Ok(())
    }
}

const RECORD_HEADER_SIZE_32: u32 = 48;
const _: () = assert!(RECORD_HEADER_SIZE_32 as usize == RECORD_HEADER_SIZE, "one size, two types");

/// Bytes on disk of a group with `records_size` bytes of records.
pub(crate) const fn group_size(records_size: usize) -> usize {
    round_up(GROUP_HEADER_SIZE + records_size, BLOCK_SIZE)
}
