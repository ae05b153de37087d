//! The bytes in which a state travels from one member to another.
//!
//! ```text
//! chunk    crc u32 of all that follows | number u64, from 0 | kind u8 | body
//!
//! header   version u8 | the application's bytes of the checkpoint's meta record     (state.rs)
//! records  record*
//! end      records u64 | hash 16 of the bodies before it, one behind the other
//!
//! record   cell   0 u8 | tree u8 | flags u8 (1 counted, 2 run) | number u64 | key size u16
//!                 | payload size u16 | [run size u32] | key | payload
//!          piece  1 u8 | size u32 | bytes: the next ones of the run of the cell before
//! ```
//!
//! One header, any number of chunks of records, one end. Cells come tree by tree in the order of keys.
//! A run travels as its bytes and never as page numbers: the references between versions are points in
//! history, which are the same on every member. Numbers are little endian.

use alloc::vec::Vec;

use base::{Hasher128, crc32};

/// Greatest size in bytes of a chunk.
pub const CHUNK_SIZE_MAX: usize = 256 << 10;

/// Version of this format.
pub(crate) const VERSION: u8 = 1;

/// Bytes of a chunk before its body.
pub(crate) const CHUNK_HEADER_SIZE: usize = 4 + 8 + 1;

/// Bytes of a cell record before the run's size, key and payload.
pub(crate) const CELL_HEADER_SIZE: usize = 1 + 1 + 1 + 8 + 2 + 2;

/// Bytes of a piece before those of the run.
pub(crate) const PIECE_HEADER_SIZE: usize = 1 + 4;

/// Bytes of the end's body.
pub(crate) const END_SIZE: usize = 8 + 16;

pub(crate) const CELL: u8 = 0;
pub(crate) const PIECE: u8 = 1;

pub(crate) const COUNTED: u8 = 1;
pub(crate) const RUN: u8 = 2;

const _: () = assert!(
    CHUNK_HEADER_SIZE + CELL_HEADER_SIZE + 4 + tree::CELL_SIZE_MAX < CHUNK_SIZE_MAX
        && CHUNK_HEADER_SIZE + 1 + tree::APPLICATION_SIZE_MAX < CHUNK_SIZE_MAX,
    "a chunk has room for any cell and any header"
);
const _: () = assert!(tree::CELL_SIZE_MAX <= 0xFFFF, "the size of a payload fits its field");

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Header,
    Records,
    End,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Header => 0,
            Self::Records => 1,
            Self::End => 2,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Header, Self::Records, Self::End].get(usize::from(number)).copied()
    }
}

/// Begins a chunk in `out`: its header comes with [`seal`].
pub(crate) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.resize(CHUNK_HEADER_SIZE, 0);
}

/// Ends the chunk in `out`.
pub(crate) fn seal(out: &mut [u8], number: u64, kind: Kind) {
    out[4..12].copy_from_slice(&number.to_le_bytes());
    out[12] = kind.number();
    let crc = crc32(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
}

/// What the end must agree on: how many cells there were, and the hash of all bodies.
pub(crate) struct Totals {
    pub records: u64,
    pub hasher: Hasher128,
}

impl Totals {
    pub fn new() -> Self {
        Self { records: 0, hasher: Hasher128::new() }
    }
}
