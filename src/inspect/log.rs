//! The write-ahead log as recovery sees it, kept whole also where it cannot be used.

use base::LogIndex;
use node::DataFile;
use wal::{
    Applied, GroupHeader, GroupRow, GroupStep, Groups, Recovered, Recovery, RecoveryError,
    SegmentHeader, Step, Watermark,
};

use crate::directory::Directory;
use crate::{Error, Fault};

/// A scanned log.
pub(crate) struct Log {
    /// The segments, in the order of their sequence.
    pub segments: Vec<SegmentHeader>,
    /// The groups that verify, in LSN order.
    pub groups: Vec<GroupRow>,
    /// The newest watermark.
    pub watermark: Option<Watermark>,
    /// What a start would go on from, or why it would not.
    pub result: Result<Recovered, RecoveryError>,
}

impl Log {
    /// Scans the log.
    pub fn scan(directory: &mut Directory, applied: Applied) -> Self {
        let mut recovery = Recovery::new(directory.owner(), directory.files(), applied);
        while let Step::Read(read) = recovery.next() {
            match directory.read(DataFile::Wal(read.file), read.offset, read.size) {
                Ok(bytes) => recovery.feed(bytes),
                Err(_) => recovery.feed_unreadable(),
            }
        }
        Self {
            segments: recovery.segments().copied().collect(),
            groups: recovery.groups().to_vec(),
            watermark: recovery.watermark().copied(),
            result: recovery.finish(),
        }
    }

    /// The last index of each group that no later cut makes void, in the order of `groups`.
    pub fn valid_upto(&self) -> Vec<LogIndex> {
        let mut bound = LogIndex::MAX;
        let mut upto: Vec<_> = self
            .groups
            .iter()
            .rev()
            .map(|row| {
                let upto = row.last.min(bound);
                bound = bound.min(row.cut);
                // What comes before a new begin is void altogether.
                if row.restart {
                    bound = LogIndex::ZERO;
                }
                upto
            })
            .collect();
        upto.reverse();
        upto
    }
}

/// What is done with a group, given its row, its header and its bytes; says whether to go on.
pub(crate) type Visit<'v> = dyn FnMut(&GroupRow, &GroupHeader, &[u8]) -> Result<bool, Error> + 'v;

/// Walks over groups in LSN order and verifies them once more.
pub(crate) fn walk(
    directory: &mut Directory,
    rows: &[GroupRow],
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let mut groups = Groups::new(rows);
    let mut rows = rows.iter();
    loop {
        match groups.next().map_err(Fault::Wal)? {
            GroupStep::Read(read) => {
                match directory.read(DataFile::Wal(read.file), read.offset, read.size) {
                    Ok(bytes) => groups.feed(bytes),
                    Err(_) => groups.feed_unreadable(),
                }
            }
            GroupStep::Group(header, bytes) => {
                let row = rows.next().expect("there is one group for each row");
                if !visit(row, &header, bytes)? {
                    return Ok(());
                }
            }
            GroupStep::Done => return Ok(()),
        }
    }
}

/// What has verified a moment ago does not any more.
pub(crate) fn unstable(row: &GroupRow, fault: wal::Fault) -> Fault {
    let file = wal::WalFile::Slot(row.slot);
    let (offset, lsn) = (row.offset, row.lsn);
    Fault::Wal(RecoveryError::Unstable { file, offset, lsn, fault })
}
