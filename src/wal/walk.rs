//! The walk along the group chain: from the oldest segment, group by group, to the first place
//! where no group follows. It judges nothing; `witness` does.

use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;
use base::{FileId, Hash128, LogIndex, Lsn, Mutant};

use crate::format::size64;
use crate::recovered::term_in;
use crate::window::Window;
use crate::{
    FORMAT_VERSION, Fault, GroupHeader, GroupRow, HardState, Header, Position, Read, RecoveryError,
    SEGMENT_HEADER_SIZE, SegmentHeader, TermRun, WalFile,
};

/// A segment to walk, in the order of sequences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub header: SegmentHeader,
    /// Where the segment ends: its size, or that of the file if that is less; a multiple of 4096.
    pub limit: u64,
    /// The header of its first group, as far as that alone verifies.
    pub first: Option<(GroupHeader, Hash128)>,
}

impl Segment {
    pub fn file(&self) -> WalFile {
        WalFile::Slot(self.header.slot)
    }

    /// True if `header` was written for this place.
    fn owns(&self, header: &GroupHeader, offset: u64) -> bool {
        let identity = &header.identity;
        header.segment == self.header.uuid
            && header.sequence == self.header.sequence
            && header.offset == offset
            && identity.is_same_member(&self.header.identity)
    }
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Break {
    /// The segment, by its place in the order.
    pub segment: usize,
    pub offset: u64,
    pub fault: Fault,
    /// The header of the group, if it follows the chain and only what it heads is broken.
    pub header: Option<GroupHeader>,
}

/// A segment that groups were found in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub segment: usize,
    /// The cut of its first group.
    pub cut: LogIndex,
    /// Its first group.
    pub lsn: Lsn,
}

/// The newest group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub lsn: Lsn,
    pub hash: Hash128,
    pub last: Position,
    pub hard_state: HardState,
    pub incarnation: FileId,
    /// Greatest durable LSN that a walked header named, and the group that did.
    pub durable: (Lsn, Lsn, WalFile),
}

/// What the walk wants next.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack of one step")]
pub(crate) enum WalkStep {
    Read(Read),
    End(Option<Break>),
}

/// A walk.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    at: usize,
    offset: u64,
    pub head: Option<Head>,
    pub base: Position,
    pub terms: Vec<TermRun>,
    pub rows: Vec<GroupRow>,
    pub visits: Vec<Visit>,
    /// The first segment that should hold a first group and does not, before any group was found.
    pub leading: Option<Break>,
    scratch: Vec<TermRun>,
}

impl Walk {
    /// A walk from segment `at` of the order on.
    pub fn start(at: usize) -> Self {
        Self {
            at,
            offset: size64(SEGMENT_HEADER_SIZE),
            head: None,
            base: Position::ORIGIN,
            terms: Vec::new(),
            rows: Vec::new(),
            visits: Vec::new(),
            leading: None,
            scratch: Vec::new(),
        }
    }

    /// The LSN that is expected next: 1 if there is no group.
    pub fn next_lsn(&self) -> Lsn {
        self.head.map_or(Lsn::ZERO, |head| head.lsn).next()
    }

    /// The hash that the next group must name.
    pub fn previous(&self) -> Hash128 {
        self.head.map_or(Hash128::ZERO, |head| head.hash)
    }

    /// The last entry, the base if there is none.
    pub fn last(&self) -> Position {
        self.head.map_or(self.base, |head| head.last)
    }

    /// Goes on until it needs bytes or there is no further group.
    pub fn step(
        &mut self,
        segments: &[Segment],
        window: &mut Window,
    ) -> Result<WalkStep, RecoveryError> {
        while let Some(segment) = segments.get(self.at) {
            let file = segment.file();
            if self.offset + size64(BLOCK_SIZE) > segment.limit {
                if let Some(end) = self.leave(segments, Fault::Absent, None) {
                    return Ok(WalkStep::End(Some(end)));
                }
                continue;
            }
            let Some(block) = window.at(file, self.offset, BLOCK_SIZE) else {
                return Ok(WalkStep::Read(window.want(file, self.offset, segment.limit)));
            };
            let (fault, header) = match GroupHeader::decode(block) {
                Header::Valid(header, hash) if segment.owns(&header, self.offset) => {
                    if !self.is_next(&header) {
                        (Fault::Chain, None)
                    } else if size64(header.size()) > segment.limit - self.offset {
                        (Fault::Size, Some(header))
                    } else {
                        let Some(group) = window.at(file, self.offset, header.size()) else {
                            return Ok(WalkStep::Read(window.want(
                                file,
                                self.offset,
                                segment.limit,
                            )));
                        };
                        self.scratch.clear();
                        let scratch = &mut self.scratch;
                        let verified = header.verify(group, &mut |first, term| {
                            if scratch.last().is_none_or(|run: &TermRun| run.term != term) {
                                scratch.push(TermRun { first, term });
                            }
                        });
                        match verified {
                            Ok(()) => {
                                self.take(&header, hash, file);
                                continue;
                            }
                            Err(fault) => (fault, Some(header)),
                        }
                    }
                }
                // A valid group of an earlier use of this place.
                Header::Valid(..) | Header::Absent => (Fault::Absent, None),
                Header::Version(version) if version > FORMAT_VERSION => {
                    return Err(RecoveryError::Version { file, offset: self.offset, version });
                }
                Header::Version(_) | Header::Damaged => (Fault::Header, None),
            };
            if let Some(end) = self.leave(segments, fault, header) {
                return Ok(WalkStep::End(Some(end)));
            }
        }
        Ok(WalkStep::End(self.leading))
    }

    /// True if `header` continues what has been walked.
    fn is_next(&self, header: &GroupHeader) -> bool {
        let Some(head) = &self.head else { return true };
        if header.lsn != head.lsn.next() || header.previous != head.hash {
            return false;
        }
        let (cut, last, base) = (header.cut, head.last, self.base);
        if header.restart || cut == last {
            return true;
        }
        // A cut may reach below the base: what it cut away has been applied anew since, and the
        // segments with the entries before it were given back.
        let is_known = cut == base || term_in(&self.terms, cut.index) == Some(cut.term);
        cut.index < last.index && (cut.index < base.index || is_known)
    }

    /// Takes a group that verifies; its terms are in `scratch`.
    fn take(&mut self, header: &GroupHeader, hash: Hash128, file: WalFile) {
        if self.head.is_none() || header.restart || header.cut.index < self.base.index {
            self.base = header.cut;
            self.terms.clear();
        }
        while self.terms.last().is_some_and(|run| run.first > header.cut.index)
            && !Mutant::CutIgnored.is_on()
        {
            self.terms.pop();
        }
        let known = self.terms.last().map(|run| run.term);
        let fresh = self.scratch.iter().filter(|run| Some(run.term) != known);
        self.terms.extend(fresh.copied());
        if self.visits.last().is_none_or(|visit| visit.segment != self.at) {
            let cut = header.cut.index;
            self.visits.push(Visit { segment: self.at, cut, lsn: header.lsn });
        }
        let WalFile::Slot(slot) = file else { unreachable!("groups are walked in slots") };
        self.rows.push(GroupRow {
            slot,
            offset: self.offset,
            size: header.size(),
            lsn: header.lsn,
            cut: header.cut.index,
            last: header.last.index,
            restart: header.restart,
            hash,
        });
        let named = (header.durable_lsn, header.lsn, file);
        self.head = Some(Head {
            lsn: header.lsn,
            hash,
            last: header.last,
            hard_state: header.hard_state,
            incarnation: header.identity.incarnation,
            durable: self.head.map_or(named, |head| head.durable.max(named)),
        });
        self.offset += size64(header.size());
    }

    /// No group follows in this segment. Goes to the next one if the chain does, else it is the
    /// end.
    fn leave(
        &mut self,
        segments: &[Segment],
        fault: Fault,
        header: Option<GroupHeader>,
    ) -> Option<Break> {
        let here = Break { segment: self.at, offset: self.offset, fault, header };
        if self.head.is_some() {
            let next = segments.get(self.at + 1);
            let first = next.and_then(|next| next.first);
            let goes_on = header.is_none() && first.is_some_and(|(first, _)| self.is_next(&first));
            if !goes_on {
                return Some(here);
            }
        } else if self.leading.is_none() {
            self.leading = Some(here);
        }
        self.at += 1;
        self.offset = size64(SEGMENT_HEADER_SIZE);
        None
    }

    /// Where the next group would be written.
    pub fn end_offset(&self) -> Option<u64> {
        let row = self.rows.last()?;
        Some(row.offset + size64(row.size))
    }
}
