//! What recovery found: where the log begins and ends, what was dropped, where to go on.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::{FileId, Hash128, LogIndex, Lsn, Term};

use crate::segments::{Active, Full, Segments};
use crate::{Fault, HardState, Position, WalFile};

/// A stretch of the log with one term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TermRun {
    /// The first index with this term.
    pub first: LogIndex,
    /// The term.
    pub term: Term,
}

/// One verified group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupRow {
    /// The slot that holds it.
    pub slot: u32,
    /// Where it starts in the slot file, in bytes.
    pub offset: u64,
    /// Its bytes on disk.
    pub size: usize,
    /// Its sequence number.
    pub lsn: Lsn,
    /// The last index of the earlier log that stays valid; its first record follows it.
    pub cut: LogIndex,
    /// Its last index, or the cut if it has no records.
    pub last: LogIndex,
    /// True if the log starts anew with it.
    pub restart: bool,
    /// The hash of the group.
    pub hash: Hash128,
}

/// A group that is there, and how much of it is still valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveGroup {
    /// The group.
    pub row: GroupRow,
    /// Its last entry that no later group has cut off; its cut, if there is none.
    pub upto: LogIndex,
}

/// The end of a log that did not end cleanly: a group that was never durable, as far as any witness
/// knows, and was dropped with everything behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The file.
    pub file: WalFile,
    /// Where the group starts or should start, in bytes.
    pub offset: u64,
    /// Its sequence number.
    pub lsn: Lsn,
    /// First and last index of its records, if a header of it is readable and it has records.
    pub entries: Option<(LogIndex, LogIndex)>,
    /// What is wrong with it.
    pub fault: Fault,
    /// True if the ring holds its header: it was submitted whole. With several voters this is the
    /// ambiguous case, for the group may have been acknowledged.
    pub in_ring: bool,
    /// Where the log ended with the last of the dropped groups whose header the ring holds: among
    /// several voters this may have been acknowledged.
    pub promised: Option<(LogIndex, Term)>,
}

/// Damage in a part of the log that nothing needs any more: every entry there is at or below the
/// applied index, and a later segment goes on behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// The file.
    pub file: WalFile,
    /// Where the damaged group starts, in bytes.
    pub offset: u64,
    /// Its sequence number.
    pub lsn: Lsn,
    /// What is wrong with it.
    pub fault: Fault,
    /// The group that the log begins with instead.
    pub next_lsn: Lsn,
}

/// Where the writer goes on.
#[derive(Clone, Debug)]
pub(crate) struct Resume {
    /// The incarnation of the newest group.
    pub incarnation: Option<FileId>,
    pub previous: Hash128,
    pub active: Option<Active>,
    pub full: VecDeque<Full>,
    pub free: VecDeque<u32>,
    /// Free slots and the bytes of their files, for those whose making may have been cut short.
    pub free_sizes: Vec<(u32, u64)>,
    pub stale: Vec<u32>,
    pub next_sequence: u64,
    pub watermark_sequence: u64,
}

impl Resume {
    /// The segments for a writer whose slots have `segment_size` bytes, and the slots whose files are
    /// smaller and have to be made again before they are used.
    pub fn segments(&self, segment_size: u64) -> (Segments, Vec<u32>) {
        let small = self.free_sizes.iter().filter(|(_, size)| *size < segment_size);
        let unmade: Vec<u32> = small.map(|(slot, _)| *slot).collect();
        let free = self.free.iter().copied().filter(|slot| !unmade.contains(slot)).collect();
        let segments = Segments::resume(
            self.active,
            self.full.clone(),
            free,
            self.stale.clone(),
            self.next_sequence,
        );
        (segments, unmade)
    }
}

/// A recovered log.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term and vote as last written; commit is at most the last index.
    pub hard_state: HardState,
    /// The log begins behind this entry.
    pub base: Position,
    /// The last entry of the log, the base if there is none.
    pub last: Position,
    /// The newest group of the log, zero if there is none. Durable once `sync` is done.
    pub durable_lsn: Lsn,
    /// The terms of the entries behind the base, in order; the first run starts right behind it.
    pub terms: Vec<TermRun>,
    /// What was dropped at the end, if anything was.
    pub tail: Option<TornTail>,
    /// Damage that was passed over.
    pub skipped: Vec<Skipped>,
    /// All groups of the log, in LSN order. Entries of a group may be void by the cut of a later
    /// one.
    pub groups: Vec<GroupRow>,
    /// Files to sync before the log is relied on: what was read may have been written by a process
    /// that died before its sync, and would be gone after a power cut.
    pub sync: Vec<WalFile>,
    pub(crate) resume: Resume,
}

impl Recovered {
    /// The term of the entry at `index`, if the log holds it or begins behind it.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index > self.last.index { None } else { term_in(&self.terms, index) }
    }

    /// The incarnation that wrote the newest group. The next start needs another one.
    pub fn incarnation(&self) -> Option<FileId> {
        self.resume.incarnation
    }

    /// True if the directory holds no group.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// The term of the run that `index` falls into.
pub(crate) fn term_in(terms: &[TermRun], index: LogIndex) -> Option<Term> {
    let upto = terms.partition_point(|run| run.first <= index);
    Some(terms.get(upto.checked_sub(1)?)?.term)
}
