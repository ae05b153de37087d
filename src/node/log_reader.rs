//! Log reader: entries for a peer that lacks more than is kept in memory, read back from the segments
//! of the log, a few MiB ahead of what is sent.

use alloc::collections::VecDeque;

use base::{Frame, LogIndex};
use wal::{LiveGroup, Position, Read, Replay, ReplayStep};

use crate::tail::Kept;

/// Bytes of entries that are read ahead for one peer.
const AHEAD_SIZE: usize = 4 << 20;

/// The reading for one peer.
#[derive(Debug)]
pub struct LogReader {
    replay: Replay,
    /// The entry before the first one here.
    before: Option<Position>,
    entries: VecDeque<Kept>,
    size: usize,
    /// The read that is under way.
    asked: Option<Read>,
    is_over: bool,
}

/// What a reader wants.
pub enum Want {
    /// This read.
    Read(Read),
    /// Nothing now: enough is here, or a read is under way, or there is no more.
    Nothing,
    /// What was read is not what was written there: it has been written over, or is damaged.
    Lost,
}

impl LogReader {
    /// Begins behind `after` with these groups.
    pub fn new<'g>(groups: impl Iterator<Item = &'g LiveGroup>, after: LogIndex) -> Self {
        Self {
            replay: Replay::over(groups, after),
            before: None,
            entries: VecDeque::new(),
            size: 0,
            asked: None,
            is_over: false,
        }
    }

    /// The position at `index`, if the entries from behind it on are here.
    pub fn position(&self, index: LogIndex) -> Option<Position> {
        let before = self.before?;
        if before.index == index {
            return (!self.entries.is_empty()).then_some(before);
        }
        let place = usize::try_from(before.index.next().distance_to(index)).ok()?;
        let is_ahead = index > before.index && place + 1 < self.entries.len();
        if is_ahead { self.entries.get(place).map(Kept::position) } else { None }
    }

    /// The entries behind `previous`, which is here.
    pub fn behind(&self, previous: LogIndex) -> impl Iterator<Item = &Kept> {
        let before = self.before.map_or(previous, |before| before.index);
        let from = usize::try_from(before.distance_to(previous)).unwrap_or(usize::MAX);
        self.entries.range(from.min(self.entries.len())..)
    }

    /// Whether it comes to `index` or is behind it already.
    pub fn reaches(&self, index: LogIndex) -> bool {
        self.before.is_none_or(|before| before.index <= index)
    }

    /// Entries up to `matched` are not needed any more.
    pub fn release(&mut self, matched: LogIndex) {
        while self.entries.front().is_some_and(|entry| entry.index <= matched) {
            let Some(entry) = self.entries.pop_front() else { return };
            self.size -= entry.frame.len();
            self.before = Some(entry.position());
        }
    }

    /// The bytes that were asked for.
    pub fn feed(&mut self, read: Read, bytes: &[u8]) {
        if self.asked == Some(read) {
            self.asked = None;
            self.replay.feed(bytes);
        }
    }

    /// Goes on reading.
    pub fn step(&mut self) -> Want {
        while self.asked.is_none() && !self.is_over && self.size < AHEAD_SIZE {
            match self.replay.next() {
                Ok(ReplayStep::Read(read)) => {
                    self.asked = Some(read);
                    return Want::Read(read);
                }
                Ok(ReplayStep::Entry(entry, link)) => {
                    self.before.get_or_insert(link.before);
                    self.size += entry.payload.len();
                    self.entries.push_back(Kept {
                        index: entry.index,
                        term: entry.term,
                        kind: entry.kind,
                        frame: Frame::copy_from_slice(entry.payload),
                        hash: link.hash,
                        ticket: None,
                    });
                }
                Ok(ReplayStep::Done) => self.is_over = true,
                Err(_) => return Want::Lost,
            }
        }
        Want::Nothing
    }

    /// Whether all that it began with has been read and taken.
    pub fn is_spent(&self) -> bool {
        self.is_over && self.entries.is_empty()
    }
}
