//! Reading a recovered log again: its entries in order (`Replay`), or its groups as they lie there
//! (`Groups`). Everything is verified once more, for what was read may have changed since the scan.

use alloc::vec::Vec;

use base::{Hash128, LogIndex};

use crate::format::size64;
use crate::record::record_size;
use crate::window::Window;
use crate::{
    Entry, Fault, GROUP_HEADER_SIZE, GroupHeader, GroupRow, Header, LiveGroup, Position,
    READ_SIZE_MAX, RECORD_HEADER_SIZE, Read, Record, Recovered, RecoveryError, WalFile,
};

/// What a replay wants or gives next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayStep<'a> {
    /// Read this and feed it.
    Read(Read),
    /// The next entry of the log, and its place in the log chain.
    Entry(Entry<'a>, Link),
    /// That was the last one.
    Done,
}

/// The place of an entry in the log chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The entry before.
    pub before: Position,
    /// The log chain hash behind the entry.
    pub hash: Hash128,
}

/// What the walk over groups wants or gives next.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack of one step")]
pub enum GroupStep<'a> {
    /// Read this and feed it.
    Read(Read),
    /// The next group: its header, and its bytes for `GroupHeader::records`.
    Group(GroupHeader, &'a [u8]),
    /// That was the last one.
    Done,
}

/// The part of a group that is in the log.
#[derive(Clone, Copy, Debug)]
struct Live {
    row: GroupRow,
    /// The last index of the group that no later cut made void.
    upto: LogIndex,
    /// Where the groups in this slot end: nothing behind is read.
    limit: u64,
}

/// A group that is being read.
#[derive(Clone, Copy, Debug)]
struct Current {
    header: GroupHeader,
    /// Offset of its next record.
    at: usize,
    /// The position before that record.
    previous: Position,
}

/// Streams the entries behind an index, in order, leaving out what cuts made void.
#[derive(Debug)]
pub struct Replay {
    groups: Vec<Live>,
    at: usize,
    /// The last entry given, or the one to begin behind.
    after: LogIndex,
    /// The last entry reached in the group before, with its log chain hash.
    chain: Option<(LogIndex, Hash128)>,
    current: Option<Current>,
    window: Window,
}

impl Replay {
    /// A replay of the entries with an index greater than `after`.
    pub fn new(recovered: &Recovered, after: LogIndex) -> Self {
        let mut upto_max = recovered.last.index;
        let mut limit = (0, 0);
        let mut groups = Vec::new();
        for row in recovered.groups.iter().rev() {
            if limit.0 != row.slot || groups.is_empty() {
                limit = (row.slot, row.offset + size64(row.size));
            }
            let upto = row.last.min(upto_max);
            if upto > row.cut && upto > after {
                groups.push(Live { row: *row, upto, limit: limit.1 });
            }
            upto_max = upto_max.min(row.cut);
            if row.restart {
                break;
            }
        }
        groups.reverse();
        Self { groups, at: 0, after, chain: None, current: None, window: Window::default() }
    }

    /// A replay of the entries with an index greater than `after` in these groups, in order.
    pub fn over<'g>(groups: impl Iterator<Item = &'g LiveGroup>, after: LogIndex) -> Self {
        let mut lives: Vec<Live> = Vec::new();
        for &LiveGroup { row, upto } in groups {
            lives.push(Live { row, upto, limit: row.offset + size64(row.size) });
        }
        // Groups that lie next to each other are read together.
        for i in (1..lives.len()).rev() {
            let (before, group) = (lives[i - 1].row, lives[i]);
            if before.slot == group.row.slot && before.offset < group.row.offset {
                lives[i - 1].limit = group.limit;
            }
        }
        Self { groups: lives, at: 0, after, chain: None, current: None, window: Window::default() }
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

    /// The next read or entry.
    ///
    /// # Errors
    /// `Unstable` if a group does not verify any more.
    #[expect(clippy::should_implement_trait, reason = "it lends, and is fed in between")]
    pub fn next(&mut self) -> Result<ReplayStep<'_>, RecoveryError> {
        let (row, entry, link, payload) = loop {
            let Some(live) = self.groups.get(self.at).copied() else {
                return Ok(ReplayStep::Done);
            };
            let group = match at_hand(&mut self.window, &live.row, live.limit) {
                Ok(group) => group,
                Err(read) => return Ok(ReplayStep::Read(read)),
            };
            let Some(current) = self.current else {
                let header = verify_header(&live.row, group)?;
                let cut = (header.cut.index, header.cut.hash);
                if self.chain.is_some_and(|chain| chain != cut) {
                    return Err(unstable(&live.row, Fault::Chain));
                }
                let (at, previous) = (GROUP_HEADER_SIZE, header.cut);
                self.current = Some(Current { header, at, previous });
                continue;
            };
            let Current { header, at, previous } = current;
            if previous.index >= live.upto {
                self.chain = Some((previous.index, previous.hash));
                self.current = None;
                self.at += 1;
                continue;
            }
            let record = match header.records_from(group, at, previous).next() {
                Some(Ok(record)) => record,
                Some(Err(fault)) => return Err(unstable(&live.row, fault)),
                None => return Err(unstable(&live.row, Fault::Record(at))),
            };
            let Record { entry, hash, .. } = record;
            let Entry { index, term, kind, payload } = entry;
            let start = at + RECORD_HEADER_SIZE;
            let payload = start..start + payload.len();
            self.current = Some(Current {
                header,
                at: at + record_size(payload.len()),
                previous: Position { index, term, hash },
            });
            if index > self.after {
                self.after = index;
                let link = Link { before: previous, hash };
                break (live.row, Entry { index, term, kind, payload: &[] }, link, payload);
            }
        };
        // The loop cannot lend what it borrows in one of its turns, so the payload is taken again
        // here.
        let group = self.window.at(WalFile::Slot(row.slot), row.offset, row.size);
        let group = group.expect("the record was verified in it just now");
        Ok(ReplayStep::Entry(Entry { payload: &group[payload], ..entry }, link))
    }
}

/// Walks over groups as they lie on disk, void entries included.
#[derive(Debug)]
pub struct Groups {
    rows: Vec<GroupRow>,
    at: usize,
    window: Window,
}

impl Groups {
    /// A walk over `rows`, as `Recovery::groups` or `Recovered::groups` names them.
    pub fn new(rows: &[GroupRow]) -> Self {
        Self { rows: rows.to_vec(), at: 0, window: Window::default() }
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

    /// The next read or group. Header, records and padding are verified.
    ///
    /// # Errors
    /// `Unstable` if a group does not verify any more; the next call goes on behind it.
    #[expect(clippy::should_implement_trait, reason = "it lends, and is fed in between")]
    pub fn next(&mut self) -> Result<GroupStep<'_>, RecoveryError> {
        let Some(row) = self.rows.get(self.at).copied() else { return Ok(GroupStep::Done) };
        // Rows that lie next to each other are read together.
        let mut limit = row.offset + size64(row.size);
        for next in &self.rows[self.at + 1..] {
            if next.slot != row.slot
                || next.offset != limit
                || limit - row.offset >= size64(READ_SIZE_MAX)
            {
                break;
            }
            limit += size64(next.size);
        }
        let group = match at_hand(&mut self.window, &row, limit) {
            Ok(group) => group,
            Err(read) => return Ok(GroupStep::Read(read)),
        };
        self.at += 1;
        let header = verify_header(&row, group)?;
        header.verify(group, &mut |_, _| {}).map_err(|fault| unstable(&row, fault))?;
        Ok(GroupStep::Group(header, group))
    }
}

/// The bytes of a group, or the read that brings them nearer.
fn at_hand<'a>(window: &'a mut Window, row: &GroupRow, limit: u64) -> Result<&'a [u8], Read> {
    let file = WalFile::Slot(row.slot);
    if window.at(file, row.offset, row.size).is_none() {
        return Err(window.want(file, row.offset, limit));
    }
    Ok(window.at(file, row.offset, row.size).expect("it was there a line before"))
}

/// The header of the group that the scan saw at `row`.
fn verify_header(row: &GroupRow, group: &[u8]) -> Result<GroupHeader, RecoveryError> {
    match GroupHeader::decode(group) {
        Header::Valid(header, hash) if hash == row.hash => Ok(header),
        Header::Valid(..) => Err(unstable(row, Fault::Chain)),
        Header::Version(_) | Header::Damaged => Err(unstable(row, Fault::Header)),
        Header::Absent => Err(unstable(row, Fault::Absent)),
    }
}

fn unstable(row: &GroupRow, fault: Fault) -> RecoveryError {
    let file = WalFile::Slot(row.slot);
    RecoveryError::Unstable { file, offset: row.offset, lsn: row.lsn, fault }
}
