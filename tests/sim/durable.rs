//! What an onlooker knows of one member's disk: its groups, how far they are durable and what says so.

use std::collections::HashMap;

use base::Hash128;
use wal::{GroupHeader, WalFile};

use crate::disk::{Disk, GroupId};
use crate::ghost::{Entry, slot};

/// A group as it was submitted.
pub struct Group {
    pub lsn: u64,
    pub cut: u64,
    pub term: u64,
    pub vote: Option<u64>,
    pub entries: Vec<(u64, Hash128)>,
    pub restart: bool,
    pub durable: bool,
}

/// What is known of one member's disk.
#[derive(Default)]
pub struct Durable {
    pub groups: HashMap<GroupId, Group>,
    /// Ids of groups that were submitted and are not in the durable log yet, in LSN order.
    pub waiting: Vec<GroupId>,
    pub lsn: u64,
    /// The last group that the member took for durable, so that it may have told others.
    pub told: u64,
    /// The last group that a watermark says to be durable.
    pub marked: u64,
    /// The last group that the last start found.
    pub found: u64,
    /// The term of the last group that is durable; what a start has found may be in a later one.
    pub written_term: u64,
    /// What the last start lacked only said that a start had been, or was never said to others.
    pub lost_nothing: bool,
    pub term: u64,
    pub vote: Option<u64>,
    /// Term and hash of each entry from the first on.
    pub log: Vec<(u64, Hash128)>,
}

impl Durable {
    /// The last durable entry.
    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    /// Whether it holds this entry, its term first.
    pub fn has(&self, index: u64, entry: (u64, Hash128)) -> bool {
        index == 0 || self.log.get(slot(index)) == Some(&entry)
    }

    /// The group is durable, and so is all before it. `canon` is the one log: what a state that was
    /// taken in stands for.
    pub fn take(&mut self, id: &GroupId, canon: &[Entry]) {
        let Some(group) = self.groups.get(id) else { return };
        let cut = usize::try_from(group.cut).unwrap_or(usize::MAX);
        if group.restart || cut > self.log.len() {
            let head = canon.iter().take(cut);
            self.log = head.map(|entry| (entry.term, entry.hash)).collect();
        }
        self.log.truncate(cut);
        self.log.extend_from_slice(&group.entries);
        (self.lsn, self.term, self.vote) = (group.lsn, group.term, group.vote);
        self.written_term = group.term;
    }

    /// Whether the last start may lack what it lacks, for nothing that is left says that it was there:
    ///
    /// - Nobody was told of it: it promises nothing.
    /// - Or only the segments ever held it: a group written with O_DSYNC is durable before the copy of
    ///   its header, which the power cut (`was_cut`) has taken, and no watermark was written since. Damage
    ///   of segments may take such groups with every later one that names them durable. As long as one
    ///   header or one copy is left, the start has to see it.
    pub fn lost_unseen(&self, disk: &Disk, was_cut: bool) -> bool {
        let found = self.found;
        if self.lsn <= found {
            return false;
        }
        if self.told <= found {
            return true;
        }
        let says_so = |file: WalFile, header: &GroupHeader, hash: Hash128| {
            let is_copy = || {
                let group = self.groups.get(&hash.to_bytes());
                file == WalFile::Ring && group.is_some_and(|group| group.durable)
            };
            header.durable_lsn.get() > found || (header.lsn.get() > found && is_copy())
        };
        let marked = self.marked.max(disk.watermark().get());
        was_cut && marked <= found && !disk.has_header(says_so)
    }
}
