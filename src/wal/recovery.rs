//! Recovery: reads a stopped log and says what it is, or why it cannot be used. It writes nothing,
//! so it may be repeated and may be interrupted anywhere.
//!
//! ```text
//! headers of all slots -> watermark -> ring -> walk along the chain -> search behind it, unless
//! the ring tells everything -> verdict: torn tail | lost | lost but not needed, walk on behind it
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;
use base::{LogIndex, Lsn, Mutant, NodeId, Term};

use crate::format::{is_zero, size64, usize_of};
use crate::recovered::{Resume, term_in};
use crate::segment::SlotHeader;
use crate::segments::{Active, Full};
use crate::walk::{Break, Segment, Walk, WalkStep};
use crate::window::Window;
use crate::witness::{Evidence, Extent, Ring, Search};
use crate::{
    FORMAT_VERSION, Fault, GROUPS_IN_FLIGHT_MAX, GroupHeader, GroupRow, HardState, Header,
    Identity, Recovered, RecoveryError, SEGMENT_HEADER_SIZE, SegmentHeader, Skipped, TornTail,
    WATERMARK_BLOCKS, WalFile, Watermark, Witness,
};

/// Whose log it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// This member of this cluster; anything else is refused as foreign.
    Member {
        /// The cluster.
        cluster: u64,
        /// The member.
        member: NodeId,
    },
    /// Whoever the headers name, as long as it is one: for looking at a directory.
    Any,
}

/// What the page file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The effects of the log up to this entry.
    Upto {
        /// Index of the entry, zero for none.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// Not known: what depends on it is not checked.
    Unknown,
}

/// A slot file that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotFile {
    /// Its number.
    pub slot: u32,
    /// Its bytes.
    pub size: u64,
}

/// The files of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// All slot files, in any order.
    pub slots: Vec<SlotFile>,
    /// Bytes of the ring file, 0 if there is none or it is switched off.
    pub ring_size: u64,
    /// Bytes of the watermark file, 0 if there is none.
    pub watermark_size: u64,
}

/// A read: `size` bytes of `file` at `offset`, both multiples of 4096, at most 1 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// The file.
    pub file: WalFile,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Bytes.
    pub size: usize,
}

/// What recovery wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Read this and feed it.
    Read(Read),
    /// Everything is known: `finish`.
    Done,
}

#[derive(Clone, Debug)]
struct Slot {
    number: u32,
    /// Bytes of the file, a multiple of 4096.
    size: u64,
    header: SlotHeader,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per recovery")]
enum Phase {
    Headers(usize),
    Watermark,
    Ring(u64),
    Walk,
    Search(Search, Option<Break>),
    Done,
}

/// Bytes behind the end of the log that are searched for later groups in any case: some groups of the
/// usual size.
const SEARCH_SIZE_MIN: u64 = 4 << 20;

/// A recovery under way: `next`, read, `feed`, until `Done`; then `finish`.
#[derive(Clone, Debug)]
pub struct Recovery {
    owner: Option<(u64, NodeId)>,
    applied: Option<(LogIndex, Term)>,
    slots: Vec<Slot>,
    segments: Vec<Segment>,
    ring_size: u64,
    watermark_size: u64,
    watermark: Option<Watermark>,
    ring: Ring,
    evidence: Evidence,
    walk: Walk,
    skipped: Vec<Skipped>,
    /// A search went on although the loss was proven.
    is_searched: bool,
    phase: Phase,
    window: Window,
    result: Option<Result<Recovered, RecoveryError>>,
}

impl Recovery {
    /// Starts with nothing read.
    pub fn new(owner: Owner, files: &Files, applied: Applied) -> Self {
        let slots = files.slots.iter().map(|file| Slot {
            number: file.slot,
            size: whole_blocks(file.size),
            header: SlotHeader::Zero,
        });
        Self {
            owner: match owner {
                Owner::Member { cluster, member } => Some((cluster, member)),
                Owner::Any => None,
            },
            applied: match applied {
                Applied::Upto { index, term } => Some((index, term)),
                Applied::Unknown => None,
            },
            slots: slots.collect(),
            segments: Vec::new(),
            ring_size: whole_blocks(files.ring_size),
            watermark_size: whole_blocks(files.watermark_size),
            watermark: None,
            ring: Ring::default(),
            evidence: Evidence::default(),
            walk: Walk::start(0),
            skipped: Vec::new(),
            is_searched: false,
            phase: Phase::Headers(0),
            window: Window::default(),
            result: None,
        }
    }

    /// What to do next. Until what was asked for is fed, it asks again.
    #[expect(clippy::should_implement_trait, reason = "it is fed in between")]
    pub fn next(&mut self) -> Step {
        loop {
            let step = match self.phase {
                Phase::Headers(at) => self.step_headers(at),
                Phase::Watermark => self.step_watermark(),
                Phase::Ring(offset) => self.step_ring(offset),
                Phase::Walk => self.step_walk(),
                Phase::Search(..) => self.step_search(),
                Phase::Done => return Step::Done,
            };
            match step {
                Ok(Some(read)) => return Step::Read(read),
                Ok(None) => {}
                Err(error) => {
                    self.result = Some(Err(error));
                    self.phase = Phase::Done;
                }
            }
        }
    }

    /// Takes the bytes that were read; fewer than asked for if the file is shorter.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.window.feed(bytes);
    }

    /// The read failed. It is asked for again in blocks; a block that cannot be read counts as
    /// damaged.
    pub fn feed_unreadable(&mut self) {
        self.window.unreadable();
    }

    /// The groups found so far, in LSN order; also when the log cannot be used.
    pub fn groups(&self) -> &[GroupRow] {
        &self.walk.rows
    }

    /// The newest watermark that verifies.
    pub fn watermark(&self) -> Option<&Watermark> {
        self.watermark.as_ref()
    }

    /// The segments in the order of their sequence.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentHeader> {
        self.segments.iter().map(|segment| &segment.header)
    }

    /// What was found.
    ///
    /// # Errors
    /// Why the log cannot be used.
    ///
    /// # Panics
    /// If `next` has not said `Done`.
    pub fn finish(self) -> Result<Recovered, RecoveryError> {
        self.result.expect("recovery is finished after it said done")
    }

    fn check_owner(&mut self, file: WalFile, identity: &Identity) -> Result<(), RecoveryError> {
        let Identity { cluster, member, .. } = *identity;
        if *self.owner.get_or_insert((cluster, member)) == (cluster, member) {
            return Ok(());
        }
        Err(RecoveryError::Foreign { file, cluster, member })
    }

    /// Reads the first two blocks of each slot: the segment header and the first group header.
    fn step_headers(&mut self, at: usize) -> Result<Option<Read>, RecoveryError> {
        let Some(slot) = self.slots.get_mut(at) else {
            self.segments.sort_by_key(|segment| segment.header.sequence);
            self.phase = Phase::Watermark;
            return Ok(None);
        };
        self.phase = Phase::Headers(at + 1);
        let file = WalFile::Slot(slot.number);
        let size = usize_of(slot.size.min(size64(SEGMENT_HEADER_SIZE + BLOCK_SIZE)));
        if size <= SEGMENT_HEADER_SIZE {
            slot.header = if size == 0 { SlotHeader::Zero } else { SlotHeader::Damaged };
            return Ok(None);
        }
        let Some(blocks) = self.window.at(file, 0, size) else {
            self.phase = Phase::Headers(at);
            return Ok(Some(self.window.want(file, 0, size64(size))));
        };
        slot.header = SegmentHeader::decode(blocks, slot.number);
        if slot.header == SlotHeader::Zero && !is_zero(blocks) {
            slot.header = SlotHeader::Damaged;
        }
        let header = match slot.header {
            SlotHeader::Valid(header) => header,
            SlotHeader::Version(version) if version > FORMAT_VERSION => {
                return Err(RecoveryError::Version { file, offset: 0, version });
            }
            SlotHeader::Version(_) | SlotHeader::Damaged | SlotHeader::Zero => return Ok(None),
        };
        let first = match GroupHeader::decode(&blocks[SEGMENT_HEADER_SIZE..]) {
            Header::Valid(first, hash)
                if first.segment == header.uuid
                    && first.offset == size64(SEGMENT_HEADER_SIZE)
                    && first.identity.is_same_member(&header.identity) =>
            {
                Some((first, hash))
            }
            Header::Valid(..) | Header::Version(_) | Header::Damaged | Header::Absent => None,
        };
        let limit = header.size.min(slot.size);
        self.check_owner(file, &header.identity)?;
        self.segments.push(Segment { header, limit, first });
        Ok(None)
    }

    fn step_watermark(&mut self) -> Result<Option<Read>, RecoveryError> {
        let size = usize_of(self.watermark_size.min(WATERMARK_BLOCKS * size64(BLOCK_SIZE)));
        if size > 0 {
            let Some(blocks) = self.window.at(WalFile::Watermark, 0, size) else {
                return Ok(Some(self.window.want(WalFile::Watermark, 0, size64(size))));
            };
            let found = blocks.chunks_exact(BLOCK_SIZE).filter_map(Watermark::decode);
            self.watermark = found.max_by_key(|watermark| watermark.sequence);
        }
        if let Some(watermark) = self.watermark {
            self.check_owner(WalFile::Watermark, &watermark.identity)?;
            let durable = watermark.durable_lsn;
            self.evidence.note(durable, Witness::Watermark(durable));
        }
        self.phase = Phase::Ring(0);
        Ok(None)
    }

    fn step_ring(&mut self, offset: u64) -> Result<Option<Read>, RecoveryError> {
        // A ring beyond the greatest one that a writer can be told to keep is not read.
        let slots = u32::try_from(self.ring_size / size64(BLOCK_SIZE)).unwrap_or(0);
        if offset >= u64::from(slots) * size64(BLOCK_SIZE) {
            self.phase = Phase::Walk;
            return Ok(None);
        }
        let Some(block) = self.window.at(WalFile::Ring, offset, BLOCK_SIZE) else {
            return Ok(Some(self.window.want(WalFile::Ring, offset, self.ring_size)));
        };
        if let Some(header) = self.ring.push(block, slots) {
            self.check_owner(WalFile::Ring, &header.identity)?;
            self.evidence.note_header(&header, WalFile::Ring);
        }
        self.phase = Phase::Ring(offset + size64(BLOCK_SIZE));
        Ok(None)
    }

    fn step_walk(&mut self) -> Result<Option<Read>, RecoveryError> {
        let end = match self.walk.step(&self.segments, &mut self.window)? {
            WalkStep::Read(read) => return Ok(Some(read)),
            WalkStep::End(end) => end,
        };
        if let Some(head) = &self.walk.head {
            let (durable, lsn, file) = head.durable;
            self.evidence.note(durable, Witness::Header { file, lsn, durable });
        }
        let next = self.walk.next_lsn();
        let mut extents = self.extents_behind(end);
        if self.evidence.durable >= next {
            extents.clear();
        } else if self.ring.is_conclusive(next, self.walk.previous()) {
            // A power cut may have taken the newest of the ring and left their groups, which are
            // durable by themselves: those lie right behind the end, or begin the next segment.
            for extent in &mut extents {
                extent.end = extent.end.min(extent.start + SEARCH_SIZE_MIN);
            }
            extents.drain(..extents.len().saturating_sub(2));
        }
        let search = Search { extents, next, enough: next, found: None };
        self.phase = Phase::Search(search, end);
        Ok(None)
    }

    /// Where groups behind the end of the chain may lie: behind its end, in later segments, and in
    /// slots whose segment header is damaged.
    fn extents_behind(&self, end: Option<Break>) -> Vec<Extent> {
        let (at, offset) = match (end, self.walk.head) {
            (Some(end), Some(_)) => (end.segment, end.offset),
            (Some(_) | None, _) => (0, size64(SEGMENT_HEADER_SIZE)),
        };
        let walked = self.segments.iter().enumerate().skip(at).map(|(place, segment)| {
            let start = if place == at { offset } else { size64(SEGMENT_HEADER_SIZE) };
            Extent { file: segment.file(), start, end: segment.limit }
        });
        let damaged = self.slots.iter().filter(|slot| !matches!(slot.header, SlotHeader::Valid(_)));
        let damaged = damaged.map(|slot| {
            let file = WalFile::Slot(slot.number);
            Extent { file, start: 0, end: slot.size }
        });
        // The search takes the last one first, and what matters most often lies right behind the
        // end.
        let mut extents: Vec<Extent> = walked.chain(damaged).collect();
        extents.reverse();
        extents
    }

    fn step_search(&mut self) -> Result<Option<Read>, RecoveryError> {
        let Phase::Search(search, end) = &mut self.phase else {
            unreachable!("called in this phase only")
        };
        let owner = self.owner;
        let is_ours = |header: &GroupHeader| {
            let identity = &header.identity;
            owner.is_none_or(|owner| owner == (identity.cluster, identity.member))
        };
        if let Some(read) = search.step(&mut self.window, &mut self.evidence, &is_ours) {
            return Ok(Some(read));
        }
        let (found, end) = (search.found, *end);
        self.judge(end, found)?;
        Ok(None)
    }

    /// Everything is read: torn, lost, or lost and not needed.
    fn judge(
        &mut self,
        end: Option<Break>,
        found: Option<(GroupHeader, WalFile, u64)>,
    ) -> Result<(), RecoveryError> {
        let begin = self.walk.rows.first().copied();
        // A log that begins in a later segment than the oldest: were the groups before it durable?
        // If not, this is the very first start, and nothing of it was.
        if let (Some(row), Some(leading)) = (begin, self.walk.leading)
            && self.evidence.durable.next() < row.lsn
        {
            self.walk = Walk::start(self.segments.len());
            self.walk.leading = Some(leading);
            return self.judge_end(Some(leading), None);
        }
        if let (Some(row), Some((applied, _))) = (begin, self.applied)
            && self.walk.base.index > applied
        {
            let damaged = self.damaged_slot().map(|slot| (WalFile::Slot(slot), 0, Fault::Header));
            let leading = self.walk.leading.and_then(|leading| self.place_of(leading));
            let here = (WalFile::Slot(row.slot), row.offset, Fault::Absent);
            let (file, offset, fault) = leading.or(damaged).unwrap_or(here);
            let header = self.walk.leading.and_then(|leading| leading.header);
            let before = row.lsn.previous().unwrap_or(Lsn::ZERO);
            let lsn = header.map_or(before, |header| header.lsn);
            let cut = self.walk.base.index;
            return Err(RecoveryError::Lost {
                file,
                offset,
                lsn,
                index: applied.next(),
                entries: header.and_then(|header| Some((header.first_index()?, header.last.index))),
                fault,
                witness: Witness::Begins { file: WalFile::Slot(row.slot), lsn: row.lsn, cut },
            });
        }
        self.judge_end(end, found)
    }

    fn judge_end(
        &mut self,
        end: Option<Break>,
        found: Option<(GroupHeader, WalFile, u64)>,
    ) -> Result<(), RecoveryError> {
        let next = self.walk.next_lsn();
        let last = self.walk.last();
        let missing_applied = self.applied.filter(|(applied, _)| *applied > last.index);
        let witness = match (self.evidence.witness, missing_applied) {
            _ if Mutant::TornWitnessed.is_on() => return self.accept(end),
            (Some(witness), _) if self.evidence.durable >= next => witness,
            (_, Some((applied, _))) => Witness::Applied(applied),
            (_, None) => return self.accept(end),
        };
        if let Some((at, first)) = self.goes_on_behind(end, next)
            && self.evidence.durable.next() >= first.lsn
        {
            self.pass_over(end, next, first.lsn);
            self.walk = Walk::start(at);
            self.phase = Phase::Walk;
            return Ok(());
        }
        if !self.is_searched {
            // The loss is proven. Once more through everything: to know the place of the group, and
            // whether a later segment is no dropped one.
            self.is_searched = true;
            let extents = self.slots.iter().rev().map(|slot| {
                let file = WalFile::Slot(slot.number);
                Extent { file, start: 0, end: slot.size }
            });
            let extents = extents.collect();
            let search = Search { extents, next, enough: Lsn::MAX, found: None };
            self.phase = Phase::Search(search, end);
            return Ok(());
        }
        let header = end.and_then(|end| end.header);
        let known = header.or_else(|| self.ring.header_of(next).copied());
        let known = known.or(found.map(|(header, ..)| header)).filter(|header| header.lsn == next);
        let (file, offset, fault) = self.name_place(end, known.as_ref(), found);
        Err(RecoveryError::Lost {
            file,
            offset,
            lsn: next,
            index: known.map_or(last.index, |header| header.cut.index).next(),
            entries: known.and_then(|header| Some((header.first_index()?, header.last.index))),
            fault,
            witness,
        })
    }

    /// The next segment that does not need what is damaged: its first group follows an applied
    /// entry. Everything before it must be known to have been durable, or else it may be a dropped
    /// one.
    fn goes_on_behind(&self, end: Option<Break>, lsn: Lsn) -> Option<(usize, GroupHeader)> {
        let (applied, _) = self.applied?;
        let from = end.map_or(0, |end| end.segment + 1);
        let segments = self.segments.iter().enumerate().skip(from);
        let mut firsts = segments.filter_map(|(at, segment)| Some((at, segment.first?.0)));
        firsts.find(|(_, first)| first.lsn > lsn && first.cut.index <= applied)
    }

    fn pass_over(&mut self, at: Option<Break>, lsn: Lsn, next_lsn: Lsn) {
        if let Some((file, offset, fault)) = at.and_then(|at| self.place_of(at)) {
            self.skipped.push(Skipped { file, offset, lsn, fault, next_lsn });
        }
    }

    fn place_of(&self, at: Break) -> Option<(WalFile, u64, Fault)> {
        Some((self.segments.get(at.segment)?.file(), at.offset, at.fault))
    }

    /// A slot that is neither a segment nor unused.
    fn damaged_slot(&self) -> Option<u32> {
        let mut damaged = self.slots.iter().filter(|slot| slot.header == SlotHeader::Damaged);
        damaged.next().map(|slot| slot.number)
    }

    /// The place of the group that is missing, as well as it can be known.
    fn name_place(
        &self,
        end: Option<Break>,
        known: Option<&GroupHeader>,
        found: Option<(GroupHeader, WalFile, u64)>,
    ) -> (WalFile, u64, Fault) {
        let fault = end.map_or(Fault::Absent, |end| end.fault);
        let damaged = self.damaged_slot();
        if let Some(known) = known {
            let uuid = known.segment;
            let segment = self.segments.iter().find(|segment| segment.header.uuid == uuid);
            if let Some(segment) = segment {
                return (segment.file(), known.offset, fault);
            }
            // Its segment has no header any more.
            if let Some((header, file, _)) = found
                && header.lsn == known.lsn
            {
                return (file, 0, Fault::Header);
            }
            if let Some(slot) = damaged {
                return (WalFile::Slot(slot), 0, Fault::Header);
            }
        }
        let place = end.and_then(|end| self.place_of(end));
        let is_full = |end: Break| {
            let segment = self.segments.get(end.segment);
            segment.is_none_or(|segment| end.offset + size64(BLOCK_SIZE) > segment.limit)
        };
        if end.is_none_or(is_full)
            && let Some(slot) = damaged
        {
            return (WalFile::Slot(slot), 0, Fault::Header);
        }
        let next = end.and_then(|end| self.segments.get(end.segment + 1));
        // A later group that is not the first of the next segment: it is the first that is missing.
        let lacks_first = |next: &&Segment| {
            let start = size64(SEGMENT_HEADER_SIZE);
            found.is_some_and(|(header, ..)| {
                header.segment == next.header.uuid && header.offset > start
            })
        };
        if let Some(next) = next
            && (end.is_some_and(is_full) || lacks_first(&next))
        {
            return (next.file(), size64(SEGMENT_HEADER_SIZE), Fault::Absent);
        }
        let slot = damaged.or(self.slots.first().map(|slot| slot.number)).unwrap_or(0);
        place.unwrap_or((WalFile::Slot(slot), 0, fault))
    }

    /// The log is good up to here.
    fn accept(&mut self, end: Option<Break>) -> Result<(), RecoveryError> {
        let last = self.walk.last();
        if let Some((applied, applied_term)) = self.applied
            && applied > LogIndex::ZERO
        {
            let base = self.walk.base;
            let in_base = (applied == base.index).then_some(base.term);
            let log_term = in_base.or_else(|| term_in(&self.walk.terms, applied));
            if let Some(log_term) = log_term.filter(|log_term| *log_term != applied_term) {
                return Err(RecoveryError::Disagrees { index: applied, log_term, applied_term });
            }
        }
        let next = self.walk.next_lsn();
        if let Some(row) = self.walk.rows.first().copied() {
            self.pass_over(self.walk.leading, Lsn::ZERO.next(), row.lsn);
        }
        let recovered = Recovered {
            hard_state: self.hard_state(last.index, end.is_some().then_some(next)),
            base: self.walk.base,
            last,
            durable_lsn: self.walk.head.map_or(Lsn::ZERO, |head| head.lsn),
            terms: self.walk.terms.clone(),
            tail: self.torn_tail(end, next),
            skipped: core::mem::take(&mut self.skipped),
            groups: self.walk.rows.clone(),
            sync: self.files_to_sync(),
            resume: self.resume(),
        };
        self.result = Some(Ok(recovered));
        self.phase = Phase::Done;
        Ok(())
    }

    /// Term and vote as last written, also in a group that was dropped: it may have been a promise.
    fn hard_state(&self, last: LogIndex, dropped: Option<Lsn>) -> HardState {
        let mut state = self.walk.head.map_or(HardState::default(), |head| head.hard_state);
        let dropped = dropped.and_then(|lsn| self.promised(lsn)).map(|header| header.hard_state);
        let marked = self.watermark.map(|watermark| watermark.hard_state);
        for mark in [marked, dropped].into_iter().flatten() {
            // Their commit indices may be of a log that a dropped group had begun with a cut.
            if mark.term > state.term {
                (state.term, state.vote) = (mark.term, mark.vote);
            } else if mark.term == state.term {
                state.vote = state.vote.or(mark.vote);
            }
            state.begun |= mark.begun;
        }
        state.commit = state.commit.min(last);
        state.vote = state.vote.filter(|_| !Mutant::VoteForgotten.is_on());
        state
    }

    fn torn_tail(&self, end: Option<Break>, lsn: Lsn) -> Option<TornTail> {
        let end = end?;
        let segment = self.segments.get(end.segment)?;
        let ring = self.ring.header_of(lsn);
        let ring = ring.filter(|header| header.previous == self.walk.previous());
        let header = end.header.as_ref().or(ring);
        if header.is_none() && end.fault != Fault::Header {
            return None;
        }
        let entries = header.and_then(|header| Some((header.first_index()?, header.last.index)));
        Some(TornTail {
            file: segment.file(),
            offset: end.offset,
            lsn,
            entries,
            fault: end.fault,
            in_ring: ring.is_some(),
            promised: ring
                .and(self.promised(lsn))
                .map(|header| (header.last.index, header.last.term)),
        })
    }

    /// The header in the ring of the last group that may have been under way when that with `lsn` was.
    fn promised(&self, lsn: Lsn) -> Option<&GroupHeader> {
        let first = self.ring.header_of(lsn)?;
        let mut last = first;
        let mut next = lsn;
        for _ in 0..GROUPS_IN_FLIGHT_MAX {
            next = next.next();
            match self.ring.header_of(next) {
                Some(header) if header.identity == first.identity => last = header,
                Some(_) | None => break,
            }
        }
        Some(last)
    }

    fn files_to_sync(&self) -> Vec<WalFile> {
        let mut files = Vec::new();
        if self.ring_size > 0 {
            files.push(WalFile::Ring);
        }
        if self.watermark_size > 0 {
            files.push(WalFile::Watermark);
        }
        // Only the groups that can have been in flight may lack their sync.
        for row in self.walk.rows.iter().rev().take(GROUPS_IN_FLIGHT_MAX) {
            let file = WalFile::Slot(row.slot);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    fn resume(&self) -> Resume {
        let mut full = VecDeque::new();
        let mut visits = self.walk.visits.iter().peekable();
        let mut active = None;
        while let Some(visit) = visits.next() {
            let segment = &self.segments[visit.segment];
            let header = SegmentHeader { size: segment.limit, ..segment.header };
            match visits.peek() {
                Some(next) => full.push_back(Full {
                    slot: header.slot,
                    size: header.size,
                    upto: next.cut,
                    next_lsn: next.lsn,
                }),
                None => {
                    let offset = self.walk.end_offset().expect("a visited segment has a group");
                    active = Some(Active { header, offset });
                }
            }
        }
        let sequence = active.map(|active: Active| active.header.sequence);
        let (mut free, mut stale) = (VecDeque::new(), Vec::new());
        // Oldest first, as the writer keeps them.
        let mut slots: Vec<&Slot> = self.slots.iter().collect();
        slots.sort_by_key(|slot| match slot.header {
            SlotHeader::Valid(header) => Some(header.sequence),
            SlotHeader::Version(_) | SlotHeader::Damaged | SlotHeader::Zero => None,
        });
        for slot in slots {
            let is_active = active.is_some_and(|active| active.header.slot == slot.number);
            if is_active || full.iter().any(|full| full.slot == slot.number) {
                continue;
            }
            match slot.header {
                SlotHeader::Valid(header) if Some(header.sequence) > sequence => {
                    stale.push(slot.number);
                }
                SlotHeader::Valid(_)
                | SlotHeader::Version(_)
                | SlotHeader::Damaged
                | SlotHeader::Zero => free.push_back(slot.number),
            }
        }
        let size = |number: u32| {
            self.slots.iter().find(|slot| slot.number == number).map_or(0, |slot| slot.size)
        };
        let free_sizes = free.iter().map(|&slot| (slot, size(slot))).collect();
        let sequences = self.segments.iter().map(|segment| segment.header.sequence);
        Resume {
            incarnation: self.walk.head.map(|head| head.incarnation),
            previous: self.walk.previous(),
            active,
            full,
            free,
            free_sizes,
            stale,
            next_sequence: sequences.max().map_or(1, |sequence| sequence + 1),
            watermark_sequence: self.watermark.map_or(1, |watermark| watermark.sequence + 1),
        }
    }
}

fn whole_blocks(size: u64) -> u64 {
    size - size % size64(BLOCK_SIZE)
}
