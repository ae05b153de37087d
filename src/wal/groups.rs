//! The groups of the log, oldest first, for whoever wants to read entries again while it is written.

use alloc::collections::VecDeque;

use base::{LogIndex, Lsn};

use crate::{GroupRow, LiveGroup};

/// The groups that are on disk or on their way there. Entries along the valid parts ascend.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIndex {
    groups: VecDeque<LiveGroup>,
}

impl GroupIndex {
    /// The groups that recovery found.
    pub fn recovered(rows: &[GroupRow]) -> Self {
        let mut index = Self::default();
        for row in rows {
            index.push(*row);
        }
        index
    }

    /// A group is sealed.
    pub fn push(&mut self, row: GroupRow) {
        if row.restart {
            self.groups.clear();
        }
        self.cut(row.cut);
        self.groups.push_back(LiveGroup { row, upto: row.last });
    }

    /// Entries behind `last` are void.
    pub fn cut(&mut self, last: LogIndex) {
        for group in self.groups.iter_mut().rev() {
            if group.upto <= last {
                return;
            }
            group.upto = last.max(group.row.cut);
        }
    }

    /// The segment in `slot`, the oldest, is given back.
    pub fn recycle(&mut self, slot: u32) {
        while self.groups.front().is_some_and(|group| group.row.slot == slot) {
            self.groups.pop_front();
        }
    }

    /// The entry before the first that is there.
    pub fn before(&self) -> Option<LogIndex> {
        self.groups.front().map(|group| group.row.cut)
    }

    /// The durable groups with entries behind `after`, if the one behind it is among them.
    pub fn behind(&self, after: LogIndex, durable: Lsn) -> impl Iterator<Item = &LiveGroup> {
        let is_there = self.before().is_some_and(|before| before <= after);
        let from = self.groups.partition_point(|group| group.upto <= after);
        let from = if is_there { from } else { self.groups.len() };
        let groups = self.groups.range(from..);
        groups.filter(move |group| group.upto > group.row.cut && group.row.lsn <= durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use base::Hash128;

    fn row(slot: u32, lsn: u64, cut: u64, last: u64) -> GroupRow {
        let (cut, last) = (LogIndex::new(cut), LogIndex::new(last));
        let lsn = Lsn::new(lsn);
        GroupRow {
            slot,
            offset: 0,
            size: 4096,
            lsn,
            cut,
            last,
            restart: false,
            hash: Hash128::ZERO,
        }
    }

    fn behind(index: &GroupIndex, after: u64, durable: u64) -> Vec<(u64, u64)> {
        let groups = index.behind(LogIndex::new(after), Lsn::new(durable));
        groups.map(|group| (group.row.lsn.get(), group.upto.get())).collect()
    }

    #[test]
    fn entries_are_found_behind_an_index_without_what_was_cut_off_or_given_back() {
        let mut index = GroupIndex::default();
        for row in [row(1, 1, 0, 10), row(1, 2, 10, 20), row(2, 3, 20, 30), row(2, 4, 15, 25)] {
            index.push(row);
        }
        assert_eq!(behind(&index, 0, 9), [(1, 10), (2, 15), (4, 25)]);
        assert_eq!(behind(&index, 10, 9), [(2, 15), (4, 25)]);
        assert_eq!(behind(&index, 15, 3), [], "the last one is not durable");
        index.recycle(1);
        assert_eq!(index.before(), Some(LogIndex::new(20)));
        assert_eq!(behind(&index, 10, 9), [], "what comes next is gone");
        assert_eq!(behind(&index, 20, 9), [(4, 25)]);
    }
}
