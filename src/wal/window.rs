//! A window on a file that is read front to back in large pieces.

use alloc::vec::Vec;

use base::limits::BLOCK_SIZE;

use crate::format::{size64, usize_of};
use crate::{READ_SIZE_MAX, Read, WalFile};

/// The bytes of one file that are at hand. Holds at most one group and one read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    file: Option<WalFile>,
    /// Offset of `bytes` in the file.
    start: u64,
    bytes: Vec<u8>,
    pending: Option<Read>,
    /// In this file, up to this offset, blocks are read one by one, because a larger read failed.
    narrow: Option<(WalFile, u64)>,
}

impl Window {
    /// `size` bytes of `file` at `offset`, if they are at hand.
    pub fn at(&self, file: WalFile, offset: u64, size: usize) -> Option<&[u8]> {
        if self.file != Some(file) || offset < self.start {
            return None;
        }
        let from = usize_of(offset - self.start);
        self.bytes.get(from..)?.get(..size)
    }

    /// The read that brings bytes at `offset` nearer. Nothing from `limit` on is read; both are
    /// multiples of the block size. Bytes before `offset` are given up.
    pub fn want(&mut self, file: WalFile, offset: u64, limit: u64) -> Read {
        let end = self.start + size64(self.bytes.len());
        if self.file == Some(file) && (self.start..=end).contains(&offset) {
            self.bytes.drain(..usize_of(offset - self.start));
        } else {
            self.bytes.clear();
        }
        self.file = Some(file);
        self.start = offset;
        let from = offset + size64(self.bytes.len());
        assert!(from < limit, "{file}: a read at {from} with the limit {limit}");
        let is_narrow = self.narrow.is_some_and(|(narrow, end)| narrow == file && from < end);
        let greatest = if is_narrow { BLOCK_SIZE } else { READ_SIZE_MAX };
        let size = greatest.min(usize_of(limit - from));
        let read = Read { file, offset: from, size };
        self.pending = Some(read);
        read
    }

    /// Takes what was read. Missing bytes at the end count as zeros.
    ///
    /// # Panics
    /// If no read is pending or `bytes` is longer than it.
    pub fn feed(&mut self, bytes: &[u8]) {
        let read = self.pending.take().expect("bytes are fed after a read was asked for");
        assert!(bytes.len() <= read.size, "{} bytes for a read of {}", bytes.len(), read.size);
        let size = self.bytes.len() + read.size;
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(size, 0);
    }

    /// The pending read failed: it is tried again block by block; a single block counts as zeros.
    pub fn unreadable(&mut self) {
        let read = self.pending.expect("a read that failed was asked for");
        if read.size > BLOCK_SIZE {
            self.pending = None;
            self.narrow = Some((read.file, read.offset + size64(read.size)));
        } else {
            self.feed(&[]);
        }
    }
}
