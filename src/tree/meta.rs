//! The meta record: the one block that makes a checkpoint the newest.
//!
//! ```text
//!    0  magic "quorate-page-fil" 16 bytes
//!   16  format u16 = 1 | trees u16 = 8 | application size u16 | zero u16
//!   24  file id u128
//!   40  cluster u64
//!   48  member u64
//!   56  root number u64
//!   64  bytes of the file that the checkpoint needs u64
//!   72  hash of the meta record before, 16 bytes
//!   88  free list: a run, 20 bytes (cell.rs) | zero 4
//!  112  eight roots, each: page u32 | crc u32 | height u8, zero 7 | count u64 |
//!       greatest number u64
//!  368  application bytes, at most 3,708, then zeros
//! 4076  hash of bytes 0 to 4076, 16 bytes
//! 4092  crc u32 of bytes 0 to 4092
//! ```
//!
//! A root of page 0 is an empty tree. The two slots lie 64 KiB apart: what damages a stripe or an
//! erase block takes one of them.

use alloc::vec::Vec;

use base::{FileId, Hash128, NodeId, PageNo, RootNo, crc32, hash128};

use crate::TREES_MAX;
use crate::cell::{RUN_SIZE, Run, Summary};
use crate::checkpoint::APPLICATION_SIZE_MAX;
use crate::page::{put_u16, put_u32, put_u64, u16_at, u32_at, u64_at, u128_at};

/// Bytes of a meta record.
pub const META_SIZE: usize = 4096;

/// Offsets in the file of the two slots, in bytes.
pub const SLOT_OFFSETS: [u64; 2] = [0, 64 << 10];

const MAGIC: [u8; 16] = *b"quorate-page-fil";
const FORMAT: u16 = 1;
const LIST: usize = 88;
const ROOTS: usize = 112;
const ROOT_SIZE: usize = 32;
const APPLICATION: usize = ROOTS + TREES_MAX * ROOT_SIZE;
const HASH: usize = META_SIZE - 20;
const CRC: usize = META_SIZE - 4;

/// Bytes between the roots and the hash.
pub(crate) const APPLICATION_ROOM: usize = HASH - APPLICATION;

const _: () = assert!(APPLICATION_ROOM == 3_708, "the record is laid out as drawn above");

/// A root as a meta record holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootRef {
    /// Zero: the tree is empty.
    pub page: PageNo,
    pub crc: u32,
    pub height: u8,
    pub summary: Summary,
}

impl Default for RootRef {
    fn default() -> Self {
        Self { page: PageNo::ZERO, crc: 0, height: 0, summary: Summary::default() }
    }
}

/// A meta record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub file: FileId,
    pub cluster: u64,
    pub member: NodeId,
    pub root: RootNo,
    /// Bytes of the file that the checkpoint needs.
    pub needed: u64,
    /// Hash of the record before.
    pub before: Hash128,
    pub list: Run,
    pub roots: [RootRef; TREES_MAX],
    pub application: Vec<u8>,
}

/// Why a slot has no meta record to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All zero.
    Blank,
    /// It does not verify.
    Broken,
    /// It verifies, but another version wrote it.
    Version(u16),
}

impl Meta {
    /// Writes the record and returns its hash.
    pub fn encode(&self, out: &mut [u8; META_SIZE]) -> Hash128 {
        out.fill(0);
        out[..16].copy_from_slice(&MAGIC);
        put_u16(out, 16, usize::from(FORMAT));
        put_u16(out, 18, TREES_MAX);
        put_u16(out, 20, self.application.len());
        out[24..40].copy_from_slice(&self.file.get().to_le_bytes());
        put_u64(out, 40, self.cluster);
        put_u64(out, 48, self.member.get());
        put_u64(out, 56, self.root.get());
        put_u64(out, 64, self.needed);
        out[72..88].copy_from_slice(&self.before.to_bytes());
        self.list.encode(&mut out[LIST..LIST + RUN_SIZE]);
        for (index, root) in self.roots.iter().enumerate() {
            let at = ROOTS + index * ROOT_SIZE;
            put_u32(out, at, root.page.get());
            put_u32(out, at + 4, root.crc);
            out[at + 8] = root.height;
            put_u64(out, at + 16, root.summary.count);
            put_u64(out, at + 24, root.summary.number_max);
        }
        out[APPLICATION..APPLICATION + self.application.len()].copy_from_slice(&self.application);
        let hash = hash128(&out[..HASH]);
        out[HASH..CRC].copy_from_slice(&hash.to_bytes());
        let crc = crc32(&out[..CRC]);
        put_u32(out, CRC, crc);
        hash
    }

    /// Reads a slot.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Hash128), Refusal> {
        if bytes.len() != META_SIZE {
            return Err(Refusal::Broken);
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Refusal::Blank);
        }
        let hash = hash128(&bytes[..HASH]);
        if bytes[..16] != MAGIC
            || u32_at(bytes, CRC) != crc32(&bytes[..CRC])
            || bytes[HASH..CRC] != hash.to_bytes()
        {
            return Err(Refusal::Broken);
        }
        let version = u16::from_le_bytes([bytes[16], bytes[17]]);
        if version != FORMAT {
            return Err(Refusal::Version(version));
        }
        let application_size = u16_at(bytes, 20);
        if u16_at(bytes, 18) != TREES_MAX || application_size > APPLICATION_SIZE_MAX {
            return Err(Refusal::Broken);
        }
        let mut before = [0; 16];
        before.copy_from_slice(&bytes[72..88]);
        let roots = core::array::from_fn(|index| {
            let at = ROOTS + index * ROOT_SIZE;
            RootRef {
                page: PageNo::new(u32_at(bytes, at)),
                crc: u32_at(bytes, at + 4),
                height: bytes[at + 8],
                summary: Summary {
                    count: u64_at(bytes, at + 16),
                    number_max: u64_at(bytes, at + 24),
                },
            }
        });
        let meta = Self {
            file: FileId::new(u128_at(bytes, 24)),
            cluster: u64_at(bytes, 40),
            member: NodeId::new(u64_at(bytes, 48)),
            root: RootNo::new(u64_at(bytes, 56)),
            needed: u64_at(bytes, 64),
            before: Hash128::from_bytes(before),
            list: Run::decode(&bytes[LIST..LIST + RUN_SIZE]),
            roots,
            application: bytes[APPLICATION..APPLICATION + application_size].to_vec(),
        };
        Ok((meta, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta {
        let list = Run { first: PageNo::new(40), size: 9, crc: 7, birth: RootNo::new(3) };
        Meta {
            file: FileId::new(1 << 100),
            cluster: 2,
            member: NodeId::new(3),
            root: RootNo::new(4),
            needed: 5 << 20,
            before: hash128(b"before"),
            list,
            roots: core::array::from_fn(|index| RootRef {
                page: PageNo::new(32 + u32::try_from(index).unwrap()),
                crc: 9,
                height: 2,
                summary: Summary { count: 10, number_max: 11 },
            }),
            application: b"application".to_vec(),
        }
    }

    #[test]
    fn a_record_comes_back_and_any_flipped_bit_is_refused() {
        let mut bytes = [0; META_SIZE];
        assert_eq!(Meta::decode(&bytes), Err(Refusal::Blank));
        let hash = sample().encode(&mut bytes);
        assert_eq!(Meta::decode(&bytes), Ok((sample(), hash)));
        for at in 0..META_SIZE {
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(Meta::decode(&bytes), Err(Refusal::Broken), "byte {at}");
            bytes[at] ^= 1 << (at % 8);
        }
    }
}
