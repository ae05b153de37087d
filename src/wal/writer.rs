//! The writer: gathers records in an open block, seals it into a group, says where it goes, and
//! follows it to durability. It does no I/O and allocates one reference count per group, nothing
//! per record.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;
use base::{FileId, Hash128, LogIndex, Lsn, Mutant, Term};

use crate::format::{size64, usize_of, usize_of32};
use crate::group::group_size;
use crate::groups::GroupIndex;
use crate::record::encode_record;
use crate::ring::{encode_ring_slot, ring_offset};
use crate::segments::Segments;
use crate::size_marks::SizeMarks;
use crate::{
    Entry, GROUP_HEADER_SIZE, GROUPS_IN_FLIGHT_MAX, GroupHeader, GroupRow, HardState, Identity,
    LiveGroup, Position, RECORD_HEADER_SIZE, Recovered, SEGMENT_HEADER_SIZE, WATERMARK_BLOCKS,
    WalFile, Watermark, record_size,
};

/// How a log is written. There is no default: the call site shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a slot file, a multiple of 4096. Segments of another size that are there stay in
    /// use.
    pub segment_size: u64,
    /// Bytes of the block that gathers records, a multiple of 4096. A greater entry gets its own
    /// block.
    pub block_size: usize,
    /// Groups that may be written and not yet durable: 1 or 2.
    pub groups_in_flight_max: usize,
    /// Slots of the header ring; 0 switches it off. At least 8 otherwise.
    pub ring_slots: u32,
}

/// One write: `size` bytes from the start of `block` to `file` at `offset`. Both are multiples of
/// 4096.
#[derive(Debug)]
pub struct Write<B> {
    /// The file.
    pub file: WalFile,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The memory; shared, so that the same block can be sent to peers. Never changed from now on.
    pub block: Rc<B>,
    /// Bytes to write.
    pub size: usize,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an entry that was not taken must be given again"]
pub enum Append {
    /// It is in the open block; this is the log chain hash behind it.
    Taken(Hash128),
    /// It does not fit behind what the open block holds. Nothing was copied: seal, then give it
    /// again.
    Full,
}

/// What `seal` did.
#[derive(Debug)]
#[must_use = "a sealed group must be written"]
pub enum Seal<B> {
    /// There was nothing to write.
    Nothing,
    /// As many groups are in flight as may be. Seal again when one is durable.
    Busy,
    /// The group needs a new segment and no spare is ready. Seal again after `spare_ready`.
    NoSegment,
    /// A group. Write it, tell `written`, sync its files, tell `durable`.
    Group(SealedGroup<B>),
}

/// A group on its way to disk.
#[derive(Debug)]
pub struct SealedGroup<B> {
    /// Its sequence number.
    pub lsn: Lsn,
    /// The last entry in it, or the cut if it has none.
    pub last: Position,
    /// Records in it.
    pub record_count: u32,
    /// The group itself. Its slot file must be synced behind the write.
    pub group: Write<B>,
    /// The copy of its header in the ring, unless that is switched off. Part of durability:
    /// `written` is told when both writes are done, and both files are synced.
    pub ring: Option<Write<B>>,
}

/// The block that gathers records.
#[derive(Debug)]
struct Open<B> {
    block: B,
    /// Bytes that records may fill, from the start of the block.
    capacity: usize,
    /// Bytes in use, header included.
    used: usize,
    record_count: u32,
    cut: Position,
    first_term: Term,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    lsn: Lsn,
    last: Position,
    written: bool,
}

/// What a watermark says, apart from its sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    durable_lsn: Lsn,
    term: Term,
    vote: Option<base::NodeId>,
}

/// Writes one log. `B` is disk memory, aligned as O_DIRECT wants it; blocks may come dirty from a
/// pool.
///
/// In a turn: `append` what came in; `seal` until it says something other than `Group`, performing
/// the writes; on completions `written`, then sync, then `durable`. Now and then `recycle`,
/// `watermark`, and `prepare_spare` while `spares_wanted` is not zero.
#[derive(Debug)]
pub struct Writer<B> {
    identity: Identity,
    options: Options,
    open: Option<Open<B>>,
    /// The last entry appended.
    last: Position,
    /// A group is due even without records: first of an incarnation, a cut, a changed hard state.
    due: bool,
    /// The next group starts the log anew at its cut.
    restart: bool,
    hard_state: HardState,
    next_lsn: Lsn,
    /// Hash of the newest group.
    previous: Hash128,
    in_flight: VecDeque<InFlight>,
    durable_lsn: Lsn,
    durable: Position,
    segments: Segments,
    marks: SizeMarks,
    groups: GroupIndex,
    /// Slots whose files are too small: their making was cut short.
    unmade: Vec<u32>,
    watermark_sequence: u64,
    watermark_last: Option<Mark>,
    watermark_in_flight: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Writer<B> {
    /// A new log that begins behind `base` (`Position::ORIGIN`, or where a snapshot ends). Its
    /// slots do not exist yet: `spares_wanted` asks for them.
    pub fn create(identity: Identity, options: Options, base: Position) -> Self {
        options.check();
        Self {
            identity,
            options,
            open: None,
            last: base,
            due: true,
            restart: true,
            hard_state: HardState::default(),
            next_lsn: Lsn::ZERO.next(),
            previous: Hash128::ZERO,
            in_flight: VecDeque::new(),
            durable_lsn: Lsn::ZERO,
            durable: base,
            segments: Segments::empty(),
            marks: SizeMarks::default(),
            groups: GroupIndex::default(),
            unmade: Vec::new(),
            watermark_sequence: 1,
            watermark_last: None,
            watermark_in_flight: false,
        }
    }

    /// Goes on where recovery ended. The files in `recovered.sync` must have been synced before,
    /// and `identity.incarnation` must be a new one. A group is due at once: nothing may be
    /// answered to anybody, a vote least of all, before it is durable.
    pub fn resume(identity: Identity, options: Options, recovered: &Recovered) -> Self {
        options.check();
        let mut writer = Self::create(identity, options, recovered.last);
        let resume = &recovered.resume;
        assert!(
            resume.incarnation != Some(identity.incarnation),
            "every start takes a new incarnation, {:?} was used before",
            identity.incarnation
        );
        // An empty log starts anew at its base, any other goes on.
        writer.restart = recovered.groups.is_empty();
        writer.hard_state = recovered.hard_state;
        writer.next_lsn = recovered.durable_lsn.next();
        writer.durable_lsn = recovered.durable_lsn;
        writer.previous = resume.previous;
        (writer.segments, writer.unmade) = resume.segments(options.segment_size);
        writer.groups = GroupIndex::recovered(&recovered.groups);
        writer.watermark_sequence = resume.watermark_sequence;
        for row in &recovered.groups {
            writer.marks.cut(row.cut);
            writer.marks.add(row.cut, size64(row.size));
        }
        writer
    }

    /// Puts an entry into the open block. This is the one copy of its payload.
    ///
    /// # Panics
    /// If `entry` does not follow the last one, or is greater than `payload_size_max`.
    #[inline]
    pub fn append(&mut self, entry: &Entry<'_>, allocate: &mut dyn FnMut(usize) -> B) -> Append {
        let last = self.last;
        assert!(entry.index == last.index.next(), "{} does not follow {}", entry.index, last.index);
        assert!(entry.term >= last.term, "term {} after term {}", entry.term, last.term);
        let size = record_size(entry.payload.len());
        if self.open.is_none() {
            self.open_block(size, allocate);
        }
        let open = self.open.as_mut().expect("opened above");
        if open.capacity - open.used < size {
            return Append::Full;
        }
        let block = open.block.as_mut();
        let hash = encode_record(&mut block[open.used..open.used + size], entry, last.hash);
        if open.record_count == 0 {
            open.first_term = entry.term;
        }
        open.used += size;
        open.record_count += 1;
        self.last = Position { index: entry.index, term: entry.term, hash };
        Append::Taken(hash)
    }

    #[cold]
    fn open_block(&mut self, record_size: usize, allocate: &mut dyn FnMut(usize) -> B) {
        let needed = group_size(record_size);
        let greatest = self.options.segment_size - size64(SEGMENT_HEADER_SIZE);
        assert!(size64(needed) <= greatest, "a group of {needed} bytes does not fit a segment");
        let capacity = needed.max(self.options.block_size);
        let block = allocate_block(capacity, allocate);
        self.open = Some(Open {
            block,
            capacity,
            used: GROUP_HEADER_SIZE,
            record_count: 0,
            cut: self.last,
            first_term: Term::ZERO,
        });
    }

    /// The entries behind `last_valid` are void; the next one appended follows it. The group that
    /// says so is due. `last_valid` is any entry of the log, with its chain hash.
    ///
    /// # Panics
    /// If records wait in the open block: seal them first. If `last_valid` lies behind the last
    /// entry.
    pub fn cut(&mut self, last_valid: Position) {
        assert!(self.open.is_none(), "a cut seals the open group first");
        assert!(
            last_valid.index <= self.last.index,
            "cut at {} of {}",
            last_valid.index,
            self.last.index
        );
        if last_valid.index < self.last.index {
            self.due = true;
        }
        self.void_behind(last_valid);
        self.last = last_valid;
    }

    /// The log starts anew behind `base`, a snapshot that this member has installed durably.
    /// Nothing before counts any more.
    ///
    /// # Panics
    /// If records wait in the open block: seal them first.
    pub fn restart(&mut self, base: Position) {
        assert!(self.open.is_none(), "a restart seals the open group first");
        self.due = true;
        self.restart = true;
        self.void_behind(base);
        self.last = base;
    }

    fn void_behind(&mut self, last_valid: Position) {
        self.marks.cut(last_valid.index);
        self.groups.cut(last_valid.index);
        let flights = self.in_flight.iter_mut().map(|flight| &mut flight.last);
        for position in flights.chain([&mut self.durable]) {
            if position.index > last_valid.index {
                *position = last_valid;
            }
        }
    }

    /// Sets what the next group carries. A changed term or vote, or that the member has begun, makes a
    /// group due; a changed commit index rides along.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        assert!(
            hard_state.term >= self.hard_state.term,
            "term {} after term {}",
            hard_state.term,
            self.hard_state.term
        );
        let old = self.hard_state;
        let promises = |state: HardState| (state.term, state.vote, state.begun);
        if promises(old) != promises(hard_state) {
            self.due = true;
        }
        self.hard_state = hard_state;
    }

    /// True if there is something to seal, whether or not it can be sealed now.
    #[inline]
    pub fn wants_seal(&self) -> bool {
        self.due || self.open.is_some()
    }

    /// True if `seal` would not answer `Busy`.
    #[inline]
    pub fn may_seal(&self) -> bool {
        self.in_flight.len() < self.options.groups_in_flight_max
    }

    /// Records that wait in the open block.
    #[inline]
    pub fn open_count(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.record_count)
    }

    /// Bytes that the open block would put on disk.
    pub fn open_size(&self) -> usize {
        self.open.as_ref().map_or(0, |open| group_size(open.used - GROUP_HEADER_SIZE))
    }

    /// Closes the open block and says where it goes. One call makes at most one group.
    pub fn seal(&mut self, allocate: &mut dyn FnMut(usize) -> B) -> Seal<B> {
        if !self.wants_seal() {
            return Seal::Nothing;
        }
        if !self.may_seal() {
            return Seal::Busy;
        }
        if self.segments.is_unsettled() {
            return Seal::NoSegment;
        }
        let used = self.open.as_ref().map_or(GROUP_HEADER_SIZE, |open| open.used);
        let size = group_size(used - GROUP_HEADER_SIZE);
        let cut = self.open.as_ref().map_or(self.last, |open| open.cut);
        let Some((segment, offset)) = self.segments.place(size64(size), cut.index, self.next_lsn)
        else {
            return Seal::NoSegment;
        };
        let open = self.open.take();
        let record_count = open.as_ref().map_or(0, |open| open.record_count);
        let first_term = open.as_ref().map_or(Term::ZERO, |open| open.first_term);
        let mut block = match open {
            Some(open) => open.block,
            None => allocate_block(BLOCK_SIZE, allocate),
        };
        let header = GroupHeader {
            identity: self.identity,
            segment: segment.uuid,
            sequence: segment.sequence,
            offset,
            lsn: self.next_lsn,
            durable_lsn: self.durable_lsn,
            previous: self.previous,
            cut,
            first_term,
            last: self.last,
            hard_state: self.hard_state,
            record_count,
            records_size: u32::try_from(used - GROUP_HEADER_SIZE).expect("less than a segment"),
            restart: self.restart,
        };
        let bytes = &mut block.as_mut()[..size];
        bytes[used..].fill(0);
        let hash = header.encode(bytes);
        let ring = self.ring_copy(bytes, &header, allocate);
        self.marks.add(cut.index, size64(size));
        self.groups.push(GroupRow {
            slot: segment.slot,
            offset,
            size,
            lsn: header.lsn,
            cut: cut.index,
            last: self.last.index,
            restart: self.restart,
            hash,
        });
        self.in_flight.push_back(InFlight { lsn: header.lsn, last: self.last, written: false });
        self.previous = hash;
        self.next_lsn = header.lsn.next();
        self.due = false;
        self.restart = false;
        let file = WalFile::Slot(segment.slot);
        let group = Write { file, offset, block: Rc::new(block), size };
        Seal::Group(SealedGroup { lsn: header.lsn, last: self.last, record_count, group, ring })
    }

    fn ring_copy(
        &self,
        group: &[u8],
        header: &GroupHeader,
        allocate: &mut dyn FnMut(usize) -> B,
    ) -> Option<Write<B>> {
        if self.options.ring_slots == 0 || Mutant::NoRing.is_on() {
            return None;
        }
        let mut block = allocate_block(BLOCK_SIZE, allocate);
        encode_ring_slot(block.as_mut(), group, header);
        let offset = ring_offset(header.lsn, self.options.ring_slots);
        Some(Write { file: WalFile::Ring, offset, block: Rc::new(block), size: BLOCK_SIZE })
    }

    /// All writes of group `lsn` are complete. Groups in flight may complete in any order. Only a
    /// sync that starts after this may make the group durable.
    ///
    /// # Panics
    /// If the group is not in flight or was written before.
    pub fn written(&mut self, lsn: Lsn) {
        let flight = self.in_flight.iter_mut().find(|flight| flight.lsn == lsn);
        let flight = flight.unwrap_or_else(|| panic!("group {lsn} is not in flight"));
        assert!(!flight.written, "group {lsn} is written already");
        flight.written = true;
    }

    /// The files of group `lsn` were synced after its `written`. Strictly in LSN order. Returns the
    /// last entry that is durable now.
    ///
    /// # Panics
    /// If `lsn` is not the oldest group in flight, or is not written.
    pub fn durable(&mut self, lsn: Lsn) -> Position {
        let flight = self.in_flight.pop_front().expect("a group is in flight");
        assert!(flight.lsn == lsn, "group {lsn} durable before group {}", flight.lsn);
        assert!(flight.written, "group {lsn} durable before it is written");
        assert!(self.durable_lsn.next() == lsn, "group {lsn} durable after {}", self.durable_lsn);
        self.durable_lsn = lsn;
        self.durable = flight.last;
        self.durable
    }

    /// The last entry appended.
    #[inline]
    pub fn last(&self) -> Position {
        self.last
    }

    /// The last durable entry.
    #[inline]
    pub fn durable_position(&self) -> Position {
        self.durable
    }

    /// The greatest durable LSN.
    #[inline]
    pub fn durable_lsn(&self) -> Lsn {
        self.durable_lsn
    }

    /// The LSN that the next group gets.
    #[inline]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Groups that are sealed and not durable.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// The hard state that the next group carries.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// A watermark to write and sync, if it would say something new and none is on its way. To be
    /// asked some 100 ms after the last `durable`, also when idle, and at shutdown.
    pub fn watermark(&mut self, allocate: &mut dyn FnMut(usize) -> B) -> Option<Write<B>> {
        // A vote that is in no durable group yet may get into the file. That is safe: a start takes
        // it over, and it is no promise before it is told to anybody.
        let mark = Mark {
            durable_lsn: self.durable_lsn,
            term: self.hard_state.term,
            vote: self.hard_state.vote,
        };
        let silent = Mutant::NoWatermark.is_on();
        if self.watermark_in_flight || self.watermark_last == Some(mark) || silent {
            return None;
        }
        let watermark = Watermark {
            identity: self.identity,
            sequence: self.watermark_sequence,
            hard_state: self.hard_state,
            durable_lsn: self.durable_lsn,
            durable_index: self.durable.index,
            durable_term: self.durable.term,
        };
        let mut block = allocate_block(BLOCK_SIZE, allocate);
        watermark.encode(block.as_mut());
        let offset = watermark.sequence % WATERMARK_BLOCKS * size64(BLOCK_SIZE);
        self.watermark_sequence += 1;
        self.watermark_last = Some(mark);
        self.watermark_in_flight = true;
        let block = Rc::new(block);
        Some(Write { file: WalFile::Watermark, offset, block, size: BLOCK_SIZE })
    }

    /// The watermark is written and synced.
    pub fn watermark_durable(&mut self) {
        assert!(self.watermark_in_flight, "no watermark is on its way");
        self.watermark_in_flight = false;
    }

    /// Spare segments to prepare now. After a recovery this includes slots that may hold dropped
    /// groups; until those are ready `seal` answers `NoSegment`.
    pub fn spares_wanted(&self) -> u32 {
        self.segments.spares_wanted()
    }

    /// A slot that holds nothing of the log any more, for `prepare_spare`. None: the caller makes a
    /// new slot file of `segment_size` bytes, all written with zeros, synced with its directory.
    pub fn take_free(&mut self) -> Option<u32> {
        self.segments.take_free()
    }

    /// A slot whose file is too small for a segment: the caller makes it anew, as one that is not there.
    pub fn take_unmade(&mut self) -> Option<u32> {
        self.unmade.pop()
    }

    /// A free slot that will hardly be needed: its file may be deleted.
    pub fn take_surplus(&mut self) -> Option<u32> {
        self.segments.take_surplus()
    }

    /// The write that makes slot `slot` a spare segment; `uuid` is random. Write it, sync the file,
    /// tell `spare_ready`.
    ///
    /// # Panics
    /// If the slot is in use.
    pub fn prepare_spare(
        &mut self,
        slot: u32,
        uuid: FileId,
        allocate: &mut dyn FnMut(usize) -> B,
    ) -> Write<B> {
        let size = self.options.segment_size;
        let header = self.segments.prepare(slot, uuid, &self.identity, size);
        let mut block = allocate_block(BLOCK_SIZE, allocate);
        header.encode(block.as_mut());
        let block = Rc::new(block);
        Write { file: WalFile::Slot(slot), offset: 0, block, size: BLOCK_SIZE }
    }

    /// The segment header of `slot` is durable.
    ///
    /// # Panics
    /// If the slot was not prepared, or is ready already.
    pub fn spare_ready(&mut self, slot: u32) {
        self.segments.ready(slot);
    }

    /// Gives back segments whose entries are all below `below`: the least index that a start may
    /// still need, one behind the least applied index of all meta slots of the page file that can
    /// be chosen.
    ///
    /// Segments with entries from `keep` on stay for others who may want them, as many as make up
    /// `keep_size` bytes.
    pub fn recycle(&mut self, below: LogIndex, keep: LogIndex, keep_size: u64) {
        let bounds = (below, keep, keep_size);
        while let Some((gone, slot)) = self.segments.recycle(bounds, self.durable_lsn) {
            self.marks.forget(gone);
            self.groups.recycle(slot);
        }
    }

    /// The entry before the first that can be read again; none before the first group.
    pub fn before(&self) -> Option<LogIndex> {
        self.groups.before()
    }

    /// The durable groups that hold the entries behind `after`; none if the first of them is gone.
    pub fn groups_behind(&self, after: LogIndex) -> impl Iterator<Item = &LiveGroup> {
        self.groups.behind(after, self.durable_lsn)
    }

    /// Bytes of groups that fit into the active segment and the ready spares: what can be written
    /// on a full disk. A group that does not fit the rest of a segment leaves that rest unused.
    pub fn room(&self) -> u64 {
        self.segments.room()
    }

    /// Bytes of groups behind `index`, to within a megabyte: what a start with this applied index
    /// reads.
    pub fn size_since(&self, index: LogIndex) -> u64 {
        self.marks.size_since(index)
    }

    /// Bytes of the slot files in use or ready.
    pub fn size(&self) -> u64 {
        self.segments.size()
    }

    /// Segments that hold groups.
    pub fn segment_count(&self) -> usize {
        self.segments.used_count()
    }

    /// Greatest payload of an entry, in bytes.
    pub fn payload_size_max(&self) -> usize {
        self.options.payload_size_max()
    }
}

impl Options {
    /// Greatest payload of an entry, in bytes: its group fills a segment.
    pub fn payload_size_max(&self) -> usize {
        let headers = SEGMENT_HEADER_SIZE + GROUP_HEADER_SIZE + RECORD_HEADER_SIZE;
        usize_of(self.segment_size) - headers
    }

    fn check(&self) {
        let block = size64(BLOCK_SIZE);
        assert!(self.segment_size.is_multiple_of(block), "segments consist of blocks");
        assert!(self.segment_size <= u64::from(u32::MAX), "sizes in a segment have 32 bits");
        assert!(self.block_size.is_multiple_of(BLOCK_SIZE), "groups consist of blocks");
        assert!(self.block_size > 0, "a group has a block");
        assert!(
            size64(self.block_size) <= self.segment_size - size64(SEGMENT_HEADER_SIZE),
            "a group fits a segment"
        );
        assert!(
            (1..=GROUPS_IN_FLIGHT_MAX).contains(&self.groups_in_flight_max),
            "{} groups in flight",
            self.groups_in_flight_max
        );
        // Recovery looks at the slots of the groups that may have been in flight, and one behind
        // them.
        let ring_slots = usize_of32(self.ring_slots);
        assert!(
            ring_slots == 0 || ring_slots >= 4 * GROUPS_IN_FLIGHT_MAX,
            "a ring of {ring_slots}"
        );
    }
}

fn allocate_block<B: AsRef<[u8]>>(size: usize, allocate: &mut dyn FnMut(usize) -> B) -> B {
    let block = allocate(size);
    let got = block.as_ref().len();
    assert!(got >= size, "asked for a block of {size} bytes, got {got}");
    block
}
