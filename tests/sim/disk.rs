//! The disk of one member: files with what is durable, what has been written and not synced, and what is
//! on its way. Writes complete in any order; a power cut keeps, drops or mixes what was not synced,
//! sector by sector; the end of the process alone keeps what had been written.
//!
//! A sync makes those writes durable that had completed when it began. A sync of slots covers the ring:
//! its blocks are written in place, and the flush of the device's cache holds them too.

use std::collections::BTreeMap;
use std::rc::Rc;

use base::limits::BLOCK_SIZE;
use base::{Hash128, Lsn, NodeId, Prng};
use node::StoreEvent;
use tree::Miss;
use wal::{GroupHeader, Header, WalFile, Watermark};

use crate::damage::{Armed, Landing};
use crate::plan::Fault;

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// Disk memory of the roles.
pub type Block = Vec<u8>;

/// The identity of a group: the hash of its header.
pub type GroupId = [u8; 16];

/// A file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// The page file.
    Pages,
    /// The one that takes in the state of another member.
    Incoming,
    /// A file of the log.
    Wal(WalFile),
    /// One that has no name any more, and is still open.
    Unlinked,
}

/// A change of a directory that has not been synced.
#[derive(Debug)]
enum Entry {
    Made(Name),
    /// With what was durable of it.
    Removed(Name, Vec<u8>),
}

/// A change of a file that has not been synced.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Rc<Block>, size: usize, group: Option<GroupId> },
    Zero { offset: usize, size: usize },
    Truncate { size: usize },
}

impl Change {
    /// Where it begins and ends.
    fn extent(&self) -> (usize, usize) {
        match self {
            Self::Write { offset, size, .. } | Self::Zero { offset, size } => {
                (*offset, offset + size)
            }
            Self::Truncate { size } => (*size, usize::MAX),
        }
    }
}

/// What a power cut leaves of a change.
enum Kept {
    Nothing,
    Part,
    All,
}

#[derive(Default, Debug)]
struct FileState {
    durable: Vec<u8>,
    visible: Vec<u8>,
    /// In the order of their completion, with a number that grows.
    unsynced: Vec<(u64, Change)>,
}

/// What the disk has to do.
#[derive(Debug)]
pub enum Work {
    /// Write the first bytes of a block.
    Write {
        file: Name,
        offset: u64,
        bytes: Rc<Block>,
        size: usize,
        /// It is durable when it has completed.
        durable: bool,
        /// The group that it writes.
        group: Option<GroupId>,
    },
    /// Make what has been written to these durable.
    Sync { files: Vec<Name>, upto: u64 },
    /// Read from a page file.
    Read { file: Name, offset: u64, size: usize },
    /// Give a page file space.
    Grow { file: Name, size: u64 },
    /// Take space in the middle of a page file back.
    Punch { file: Name, offset: u64, size: u64 },
    /// Cut a page file.
    Truncate { file: Name, size: u64 },
    /// Make a slot of zeros, its name durable.
    MakeSlot { slot: u32, size: u64 },
    /// Make the file for the state of another member, its name durable.
    MakeIncoming,
}

impl Work {
    fn rename(&mut self, from: Name, to: Name) {
        match self {
            Self::Write { file, .. }
            | Self::Read { file, .. }
            | Self::Grow { file, .. }
            | Self::Punch { file, .. }
            | Self::Truncate { file, .. } => {
                if *file == from {
                    *file = to;
                }
            }
            Self::Sync { files, .. } => {
                for file in files {
                    if *file == from {
                        *file = to;
                    }
                }
            }
            Self::MakeSlot { .. } | Self::MakeIncoming => {}
        }
    }
}

/// Who is told when it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    GroupPart(Lsn),
    Synced(Lsn),
    SpareWritten(u32),
    SpareReady(u32),
    MarkWritten,
    MarkReady,
    Store(StoreDone),
    /// The same for the file that takes in the state of another member.
    Incoming(u64, StoreDone),
    SlotMade(u32),
    /// Of this transfer.
    IncomingMade(u64),
    /// For this member.
    LogRead(NodeId, wal::Read),
}

/// What the store is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreDone {
    Written,
    Synced,
    Read(Miss, bool),
    Grown(u64),
    Released,
}

/// What a file system that grows files has left.
const AVAILABLE: u64 = 1 << 40;

impl StoreDone {
    /// What the driver tells before the event: with growth, what the file system has left.
    pub fn available(&self, granted: bool) -> Option<StoreEvent> {
        let size = if granted { AVAILABLE } else { 0 };
        matches!(self, Self::Grown(_)).then_some(StoreEvent::Available { size })
    }

    /// The event that says so.
    pub fn event(self, bytes: Vec<u8>, granted: bool) -> StoreEvent {
        match self {
            Self::Written => StoreEvent::PagesWritten,
            Self::Synced => StoreEvent::PagesSynced,
            Self::Read(miss, for_transfer) => StoreEvent::PageRead { miss, bytes, for_transfer },
            Self::Grown(size) => StoreEvent::Grown { size, grown: granted },
            Self::Released => StoreEvent::Released,
        }
    }
}

#[derive(Debug)]
struct Pending {
    work: Work,
    done: Done,
}

/// What a completed operation came to.
pub struct Completed {
    pub done: Done,
    /// What was read.
    pub bytes: Vec<u8>,
    /// Space was asked for and given.
    pub granted: bool,
    /// Groups that are durable from now on.
    pub groups: Vec<GroupId>,
    /// Damage that it came to, behind everybody's back.
    pub struck: Option<(Fault, String)>,
}

/// The files of a member.
pub struct Disk {
    files: Vec<(Name, FileState)>,
    pending: BTreeMap<u64, Pending>,
    next_pending: u64,
    next_change: u64,
    /// A write that is durable by itself takes everything along that the device's cache holds.
    pub flushes_all: bool,
    /// No space is given.
    pub is_full: bool,
    /// Changes of directories that are not durable, in their order.
    entries: Vec<Entry>,
    /// Damage that waits for an operation, what the last one came to, and where it draws from.
    pub armed: Option<Armed>,
    pub struck: Option<(Fault, String)>,
    pub damage: Prng,
    /// What power cuts have taken: directory entries, whole writes, parts of writes.
    pub lost_entries: u64,
    pub lost_writes: u64,
    pub torn_writes: u64,
}

pub fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("files of the simulator are small")
}

impl FileState {
    fn apply(image: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write { offset, bytes, size, .. } => {
                if image.len() < offset + size {
                    image.resize(offset + size, 0);
                }
                image[*offset..offset + size].copy_from_slice(&bytes[..*size]);
            }
            Change::Zero { offset, size } => {
                let end = image.len().min(offset + size);
                if *offset < end {
                    image[*offset..end].fill(0);
                }
            }
            Change::Truncate { size } => image.truncate(*size),
        }
    }

    /// Applies a part of a change, chosen sector by sector.
    fn apply_part(image: &mut Vec<u8>, change: &Change, prng: &mut Prng) -> Kept {
        let (offset, size) = match change {
            Change::Write { offset, size, .. } | Change::Zero { offset, size } => (*offset, *size),
            Change::Truncate { .. } => {
                if prng.one_in(2) {
                    return Kept::Nothing;
                }
                Self::apply(image, change);
                return Kept::All;
            }
        };
        match prng.below(4) {
            0 => Kept::Nothing,
            1 => {
                Self::apply(image, change);
                Kept::All
            }
            _ => {
                let kept = 1 + prng.below(15);
                for from in (0..size).step_by(SECTOR) {
                    if prng.below(16) >= kept {
                        continue;
                    }
                    let count = SECTOR.min(size - from);
                    if image.len() < offset + from + count {
                        image.resize(offset + from + count, 0);
                    }
                    let target = &mut image[offset + from..offset + from + count];
                    match change {
                        Change::Write { bytes, .. } => {
                            target.copy_from_slice(&bytes[from..from + count]);
                        }
                        Change::Zero { .. } | Change::Truncate { .. } => target.fill(0),
                    }
                }
                Kept::Part
            }
        }
    }

    /// Makes changes up to `upto` durable; adds the groups among them.
    fn sync(&mut self, upto: u64, groups: &mut Vec<GroupId>) {
        let count = self.unsynced.partition_point(|(number, _)| *number <= upto);
        for (_, change) in self.unsynced.drain(..count) {
            Self::apply(&mut self.durable, &change);
            if let Change::Write { group: Some(group), .. } = change {
                groups.push(group);
            }
        }
    }
}

impl Disk {
    /// Without a file.
    pub fn new(flushes_all: bool, seed: u64) -> Self {
        Self {
            files: Vec::new(),
            pending: BTreeMap::new(),
            next_pending: 0,
            next_change: 0,
            flushes_all,
            is_full: false,
            entries: Vec::new(),
            armed: None,
            struck: None,
            damage: Prng::new(seed),
            lost_entries: 0,
            lost_writes: 0,
            torn_writes: 0,
        }
    }

    fn file(&mut self, file: Name) -> &mut FileState {
        let place = match self.files.iter().position(|(name, _)| *name == file) {
            Some(place) => place,
            None => {
                self.files.push((file, FileState::default()));
                self.files.len() - 1
            }
        };
        &mut self.files[place].1
    }

    /// Whether there is such a file.
    pub fn size(&self, file: Name) -> u64 {
        let found = self.files.iter().find(|(name, _)| *name == file);
        found.map_or(0, |(_, state)| state.visible.len() as u64)
    }

    /// Whether something that was written to a file is not durable yet.
    pub fn has_unsynced(&self, file: Name) -> bool {
        let found = self.files.iter().find(|(name, _)| *name == file);
        let is_write = |change: &Change| matches!(change, Change::Write { .. });
        found.is_some_and(|(_, state)| state.unsynced.iter().any(|(_, change)| is_write(change)))
    }

    /// How far the newest watermark says that the log is durable.
    pub fn watermark(&self) -> Lsn {
        let name = Name::Wal(WalFile::Watermark);
        let found = self.files.iter().find(|(other, _)| *other == name);
        let blocks = found.map_or(&[][..], |(_, state)| &state.durable);
        let marks = blocks.chunks_exact(BLOCK_SIZE).filter_map(Watermark::decode);
        let newest = marks.max_by_key(|mark| mark.sequence);
        newest.map_or(Lsn::ZERO, |mark| mark.durable_lsn)
    }

    /// Whether a header of a group, or a copy of one, that is there is such a one.
    pub fn has_header(&self, is: impl Fn(WalFile, &GroupHeader, Hash128) -> bool) -> bool {
        self.files.iter().any(|(name, state)| {
            let Name::Wal(file) = *name else { return false };
            state.visible.chunks_exact(BLOCK_SIZE).any(|block| match GroupHeader::decode(block) {
                Header::Valid(header, hash) => is(file, &header, hash),
                Header::Version(_) | Header::Damaged | Header::Absent => false,
            })
        })
    }

    /// Numbers of the slots that are there, in order.
    pub fn slots(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = Vec::new();
        for (name, _) in &self.files {
            if let Name::Wal(WalFile::Slot(slot)) = name {
                slots.push(*slot);
            }
        }
        slots.sort_unstable();
        slots
    }

    /// Makes a file of zeros, durable at once.
    pub fn create(&mut self, file: Name, size: u64) {
        let (durable, visible) = (vec![0; at(size)], vec![0; at(size)]);
        *self.file(file) = FileState { durable, visible, unsynced: Vec::new() };
    }

    /// Removes a file, durably.
    pub fn remove(&mut self, file: Name) {
        self.files.retain(|(name, _)| *name != file);
    }

    /// Removes a file; nobody syncs the directory. What is on its way to it goes nowhere.
    pub fn unlink(&mut self, file: Name) {
        self.remove(Name::Unlinked);
        for pending in self.pending.values_mut() {
            pending.work.rename(file, Name::Unlinked);
        }
        if let Some(place) = self.files.iter().position(|(name, _)| *name == file) {
            let (_, state) = self.files.remove(place);
            self.entries.push(Entry::Removed(file, state.durable));
        }
    }

    /// The directories are synced.
    pub fn sync_entries(&mut self) {
        self.entries.clear();
    }

    /// Gives a file another name, durably; one that had that name is gone.
    pub fn rename(&mut self, from: Name, to: Name) {
        self.remove(to);
        for (name, _) in &mut self.files {
            if *name == from {
                *name = to;
            }
        }
        for pending in self.pending.values_mut() {
            pending.work.rename(from, to);
        }
        self.sync_entries();
    }

    /// All files that have a name.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.files.iter().map(|(name, _)| *name).filter(|name| *name != Name::Unlinked)
    }

    /// Bytes of a file, as reads see it.
    pub fn visible_size(&self, file: Name) -> usize {
        at(self.size(file))
    }

    /// The blocks of a file that are not all zeros, by number.
    pub fn used_blocks(&mut self, file: Name, block: usize) -> Vec<usize> {
        let visible = &self.file(file).visible;
        let is_used = |number: &usize| visible[number * block..][..block].iter().any(|b| *b != 0);
        (0..visible.len() / block).filter(is_used).collect()
    }

    /// Changes stored bytes, behind everybody's back.
    pub fn change_stored(
        &mut self,
        file: Name,
        offset: usize,
        size: usize,
        change: impl Fn(&mut [u8]),
    ) {
        let state = self.file(file);
        for image in [&mut state.durable, &mut state.visible] {
            if let Some(bytes) = image.get_mut(offset..offset + size) {
                change(bytes);
            }
        }
    }

    /// Bytes of a file that a power cut would leave.
    pub fn durable_size(&self, file: Name) -> u64 {
        let found = self.files.iter().find(|(name, _)| *name == file);
        found.map_or(0, |(_, state)| state.durable.len() as u64)
    }

    /// What a power cut would leave of this part of a file at least; shorter where the file ends.
    pub fn read_durable(&self, file: Name, offset: u64, size: usize) -> Vec<u8> {
        let found = self.files.iter().find(|(name, _)| *name == file);
        let durable = found.map_or(&[][..], |(_, state)| &state.durable);
        let from = at(offset).min(durable.len());
        durable[from..(from + size).min(durable.len())].to_vec()
    }

    /// What a read finds; fewer bytes where the file ends.
    pub fn read(&mut self, file: Name, offset: u64, size: usize) -> &[u8] {
        let visible = &self.file(file).visible;
        let from = at(offset).min(visible.len());
        &visible[from..(from + size).min(visible.len())]
    }

    /// Overwrites with zeros, durable at once: what a start does before any role runs.
    pub fn clear(&mut self, file: Name, offset: u64, size: usize) {
        let state = self.file(file);
        for image in [&mut state.durable, &mut state.visible] {
            let end = image.len().min(at(offset) + size);
            let from = at(offset).min(end);
            image[from..end].fill(0);
        }
    }

    /// Makes all that was written to a file durable: what a start does.
    pub fn sync_now(&mut self, file: Name) {
        self.file(file).sync(u64::MAX, &mut Vec::new());
    }

    /// Takes an operation in.
    pub fn submit(&mut self, mut work: Work, done: Done) -> u64 {
        if let Work::Sync { upto, .. } = &mut work {
            *upto = self.next_change;
        }
        self.next_pending += 1;
        self.pending.insert(self.next_pending, Pending { work, done });
        self.next_pending
    }

    fn note(&mut self, file: Name, change: Change) -> u64 {
        self.next_change += 1;
        let number = self.next_change;
        let state = self.file(file);
        FileState::apply(&mut state.visible, &change);
        state.unsynced.push((number, change));
        number
    }

    /// An operation completes.
    pub fn complete(&mut self, id: u64) -> Option<Completed> {
        let Pending { work, done } = self.pending.remove(&id)?;
        let mut completed =
            Completed { done, bytes: Vec::new(), granted: true, groups: Vec::new(), struck: None };
        match work {
            Work::Write { file, offset, bytes, size, durable, group } => {
                let Landing { offset, bytes, size } = self.land(file, at(offset), bytes, size);
                let change = Change::Write { offset, bytes, size, group };
                let number = self.note(file, change);
                if durable {
                    self.make_durable(file, number, &mut completed.groups);
                }
            }
            Work::Sync { files, upto } => {
                for file in files {
                    if matches!(file, Name::Wal(_)) {
                        let ring = Name::Wal(WalFile::Ring);
                        self.file(ring).sync(upto, &mut completed.groups);
                    }
                    self.file(file).sync(upto, &mut completed.groups);
                }
            }
            Work::Read { file, offset, size } => {
                let offset = self.comes_from(file, offset, size);
                completed.bytes = self.read(file, offset, size).to_vec();
            }
            Work::Grow { file, size } => {
                completed.granted = !self.is_full;
                if completed.granted {
                    self.grow(file, at(size));
                }
            }
            Work::Punch { file, offset, size } => {
                let change = Change::Zero { offset: at(offset), size: at(size) };
                self.note(file, change);
            }
            Work::Truncate { file, size } => {
                self.note(file, Change::Truncate { size: at(size) });
            }
            Work::MakeSlot { slot, size } => {
                completed.granted = !self.is_full;
                let file = Name::Wal(WalFile::Slot(slot));
                if completed.granted {
                    self.create(file, size);
                    self.sync_entries();
                } else {
                    // A part of it was there, and is removed; the directory is not synced for that.
                    self.create(file, size / 2);
                    self.unlink(file);
                }
            }
            Work::MakeIncoming => {
                // Another of before may have made it meanwhile: it is not cut.
                self.file(Name::Incoming);
                self.sync_entries();
            }
        }
        completed.struck = self.struck.take();
        Some(completed)
    }

    /// A write of a file that is opened for durable writes: this one is, those before it only where
    /// the device empties its cache for it.
    fn make_durable(&mut self, file: Name, number: u64, groups: &mut Vec<GroupId>) {
        if self.flushes_all {
            for (name, state) in &mut self.files {
                if matches!(name, Name::Wal(_)) {
                    state.sync(number, groups);
                }
            }
            return;
        }
        let state = self.file(file);
        let Some(place) = state.unsynced.iter().position(|(other, _)| *other == number) else {
            return;
        };
        // What lies under it and is older reaches the disk before it or never.
        let covered = state.unsynced[place].1.extent();
        let mut kept = Vec::new();
        for (other, change) in state.unsynced.drain(..) {
            let (from, to) = change.extent();
            let lies_under = from < covered.1 && to > covered.0;
            if other > number || (other != number && !lies_under) {
                kept.push((other, change));
                continue;
            }
            FileState::apply(&mut state.durable, &change);
            if let Change::Write { group: Some(group), .. } = change {
                groups.push(group);
            }
        }
        state.unsynced = kept;
    }

    /// Gives the page file space and syncs it, as the server does.
    fn grow(&mut self, file: Name, size: usize) {
        let state = self.file(file);
        state.sync(u64::MAX, &mut Vec::new());
        for image in [&mut state.durable, &mut state.visible] {
            if image.len() < size {
                let mut grown = vec![0; size];
                grown[..image.len()].copy_from_slice(image);
                *image = grown;
            }
        }
    }

    fn interrupted(&mut self, prng: &mut Prng) -> Vec<(Name, Change)> {
        let mut changes = Vec::new();
        for (_, Pending { work, .. }) in std::mem::take(&mut self.pending) {
            match work {
                Work::Write { file, offset, bytes, size, group, .. } => {
                    changes.push((file, Change::Write { offset: at(offset), bytes, size, group }));
                }
                Work::Punch { file, offset, size } => {
                    let change = Change::Zero { offset: at(offset), size: at(size) };
                    changes.push((file, change));
                }
                Work::Truncate { file, size } => {
                    changes.push((file, Change::Truncate { size: at(size) }));
                }
                Work::MakeSlot { slot, size } if prng.one_in(2) => {
                    // A part of the zeros may be there, or all of them.
                    let blocks = size / 4096;
                    let size = 4096 * prng.below(blocks + 1);
                    self.create(Name::Wal(WalFile::Slot(slot)), size);
                }
                Work::MakeIncoming if prng.one_in(2) => {
                    self.create(Name::Incoming, 0);
                    self.entries.push(Entry::Made(Name::Incoming));
                }
                Work::Sync { .. } | Work::Read { .. } | Work::Grow { .. } => {}
                Work::MakeSlot { .. } | Work::MakeIncoming => self.lost_entries += 1,
            }
        }
        changes
    }

    /// The process ends; the machine goes on. What was on its way may still be carried out.
    pub fn kill(&mut self, prng: &mut Prng) {
        for (file, change) in self.interrupted(prng) {
            match prng.below(4) {
                0 => {}
                1 | 2 => {
                    self.note(file, change);
                }
                _ => {
                    // Some sectors of it: what was there before with a part written over.
                    let mut image = self.file(file).visible.clone();
                    FileState::apply_part(&mut image, &change, prng);
                    let (Change::Write { offset, size, .. } | Change::Zero { offset, size }) =
                        change
                    else {
                        continue;
                    };
                    if image.len() >= offset + size {
                        let bytes = Rc::new(image[offset..offset + size].to_vec());
                        self.note(file, Change::Write { offset, bytes, size, group: None });
                    }
                }
            }
        }
    }

    /// The power is cut.
    pub fn cut_power(&mut self, prng: &mut Prng) {
        let interrupted = self.interrupted(prng);
        let (mut lost, mut torn) = (0, 0);
        let mut tear =
            |durable: &mut Vec<u8>, change: &Change, prng: &mut Prng| match FileState::apply_part(
                durable, change, prng,
            ) {
                Kept::Nothing => lost += 1,
                Kept::Part => torn += 1,
                Kept::All => {}
            };
        for (name, state) in &mut self.files {
            for (_, change) in state.unsynced.drain(..) {
                tear(&mut state.durable, &change, prng);
            }
            for (file, change) in &interrupted {
                if file == name {
                    tear(&mut state.durable, change, prng);
                }
            }
            state.visible.clone_from(&state.durable);
        }
        self.lost_writes += lost;
        self.torn_writes += torn;
        // Each change of a directory is there or not, the later ones of a name only with the earlier.
        while let Some(entry) = self.entries.pop() {
            if prng.one_in(2) {
                continue;
            }
            match entry {
                Entry::Made(name) => self.remove(name),
                Entry::Removed(name, durable) => {
                    if self.files.iter().any(|(other, _)| *other == name) {
                        continue;
                    }
                    let visible = durable.clone();
                    self.files.push((name, FileState { durable, visible, unsynced: Vec::new() }));
                }
            }
            self.lost_entries += 1;
        }
        self.remove(Name::Unlinked);
    }
}
