//! Cells, runs and what a branch says about the cells below it: the values of the interface.
//!
//! ```text
//! leaf cell      number u64 | payload size u16 | [run, 20 bytes] | key | payload
//! run            first page u32 | size u32 | crc u32 | birth root u64
//! branch cell    child u32 | crc u32 | counted u64 | greatest number u64 | separator
//! ```
//!
//! All numbers are little endian. Key size and the flags counted and run stand in the slot
//! (slotted.rs).

use base::limits::PAGE_SIZE;
use base::{PageNo, RootNo};

use crate::page::RUN_HEADER_SIZE;

/// One of the trees of a page file; below [`crate::TREES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TreeId(pub u8);

/// A cell, borrowed from its leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell<'a> {
    /// The key; at most [`base::limits::TREE_KEY_SIZE_MAX`] bytes.
    pub key: &'a [u8],
    /// Whether [`Summary::count`] counts this cell.
    pub counted: bool,
    /// The number that takes part in [`Summary::number_max`].
    pub number: u64,
    /// Bytes of the caller.
    pub payload: &'a [u8],
    /// The overflow run that this cell owns.
    pub run: Option<Run>,
}

/// What a put writes beside the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewCell<'a> {
    /// Whether [`Summary::count`] counts this cell.
    pub counted: bool,
    /// The number that takes part in [`Summary::number_max`].
    pub number: u64,
    /// Bytes of the caller; with the key at most [`crate::CELL_SIZE_MAX`].
    pub payload: &'a [u8],
    /// The overflow run that the cell owns from now on.
    pub run: Option<Run>,
}

/// What a branch knows about the cells below one child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Counted cells.
    pub count: u64,
    /// Greatest number of any cell, counted or not; 0 without cells.
    pub number_max: u64,
}

impl Summary {
    /// The summary of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            number_max: self.number_max.max(other.number_max),
        }
    }
}

/// An overflow run: bytes on contiguous pages with exactly one owner, a cell.
///
/// It moves from cell to cell by value. Whoever drops the last cell that names it calls
/// [`crate::PageFile::free_run`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first of its pages.
    pub first: PageNo,
    /// Size in bytes of what the caller stored.
    pub size: u32,
    /// CRC-32 of header and bytes.
    pub(crate) crc: u32,
    /// The root at whose time it was made.
    pub(crate) birth: RootNo,
}

/// Bytes of an encoded run.
pub(crate) const RUN_SIZE: usize = 20;

impl Run {
    /// Pages that the run occupies.
    #[must_use]
    pub fn pages(&self) -> u32 {
        let size = u64::from(self.size) + RUN_HEADER_SIZE as u64;
        u32::try_from(size.div_ceil(PAGE_SIZE as u64)).expect("2^32 bytes are fewer pages")
    }

    /// The miss that a read of this run reports when its bytes are not in memory.
    #[must_use]
    pub fn miss(&self) -> Miss {
        Miss { page: self.first, pages: self.pages(), crc: self.crc, run_size: Some(self.size) }
    }

    pub(crate) fn encode(&self, out: &mut [u8]) {
        out[0..4].copy_from_slice(&self.first.get().to_le_bytes());
        out[4..8].copy_from_slice(&self.size.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out[12..20].copy_from_slice(&self.birth.get().to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self {
            first: PageNo::new(crate::page::u32_at(bytes, 0)),
            size: crate::page::u32_at(bytes, 4),
            crc: crate::page::u32_at(bytes, 8),
            birth: RootNo::new(crate::page::u64_at(bytes, 12)),
        }
    }
}

/// A page or a run that is not in memory: read these bytes and hand them to
/// [`crate::PageFile::install`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miss {
    /// The first page.
    pub page: PageNo,
    /// Pages to read.
    pub pages: u32,
    /// The CRC-32 that the referrer holds.
    pub(crate) crc: u32,
    /// For a run: the size in bytes that its owner states. None: a leaf.
    pub(crate) run_size: Option<u32>,
}

impl Miss {
    /// Offset in the file, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.page.get()) * PAGE_SIZE as u64
    }

    /// Bytes to read.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::try_from(self.pages).expect("32 bits fit") * PAGE_SIZE
    }
}

/// Keys from `start` on, to but without `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyRange<'k> {
    /// The least key of the range.
    pub start: &'k [u8],
    /// The first key behind the range; none: to the end of the tree.
    pub end: Option<&'k [u8]>,
}

impl KeyRange<'_> {
    /// Every key.
    pub const ALL: KeyRange<'static> = KeyRange { start: &[], end: None };
}
