//! The bytes that every page and every run begins with, and numbers in bytes.
//!
//! ```text
//! page header, 48 bytes                       run header, 64 bytes
//!  0  crc u32 of bytes 4 to the end            0  crc u32 of bytes 4 to the end of what is stored
//!  4  page number u32                          4  number of the first page u32
//!  8  root of birth u64                        8  root of birth u64
//! 16  file id u128                            16  file id u128
//! 32  kind u8 (1 leaf, 2 branch)              32  kind u8 (3)
//! 33  level u8 (0 leaf)                       33  zero
//! 34  cells u16                               36  size u32 of what is stored
//! 36  offset of the lowest cell u16           40  zero
//! 38  dead bytes among the cells u16
//! 40  size of the common key prefix u16
//! 42  zero
//! ```
//!
//! The header names number, birth and file, all under the CRC, and the parent holds the CRC: a page
//! that is stale, misplaced or of another file never verifies.

use base::limits::PAGE_SIZE;
use base::{FileId, PageNo, RootNo, crc32};

use crate::error::{Damage, DamageKind};

/// The memory of one page.
pub(crate) type Page = [u8; PAGE_SIZE];

pub(crate) const HEADER_SIZE: usize = 48;
pub(crate) const RUN_HEADER_SIZE: usize = 64;

pub(crate) const KIND_LEAF: u8 = 1;
pub(crate) const KIND_BRANCH: u8 = 2;
pub(crate) const KIND_RUN: u8 = 3;

const NUMBER: usize = 4;
const BIRTH: usize = 8;
const FILE: usize = 16;
const KIND: usize = 32;
const LEVEL: usize = 33;
const RUN_SIZE: usize = 36;

/// A `u32` or `u16` as an index; every target has 32 bits at least.
#[inline(always)]
pub(crate) fn wide(number: u32) -> usize {
    usize::try_from(number).expect("usize has 32 bits at least")
}

/// A size within a page.
#[inline(always)]
pub(crate) fn narrow(size: usize) -> u16 {
    u16::try_from(size).expect("sizes within a page fit 16 bits")
}

#[inline(always)]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

#[inline(always)]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline(always)]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline(always)]
pub(crate) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

#[inline(always)]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&narrow(value).to_le_bytes());
}

#[inline(always)]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline(always)]
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[inline(always)]
pub(crate) fn number(page: &[u8]) -> PageNo {
    PageNo::new(u32_at(page, NUMBER))
}

#[inline(always)]
pub(crate) fn birth(page: &[u8]) -> RootNo {
    RootNo::new(u64_at(page, BIRTH))
}

#[inline(always)]
pub(crate) fn is_leaf(page: &[u8]) -> bool {
    page[KIND] == KIND_LEAF
}

#[inline(always)]
pub(crate) fn level(page: &[u8]) -> u8 {
    page[LEVEL]
}

/// Where and when a page or run is born.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub number: PageNo,
    pub birth: RootNo,
    pub file: FileId,
}

/// Writes number, birth and file id.
pub(crate) fn set_origin(page: &mut [u8], origin: Origin) {
    put_u32(page, NUMBER, origin.number.get());
    put_u64(page, BIRTH, origin.birth.get());
    page[FILE..FILE + 16].copy_from_slice(&origin.file.get().to_le_bytes());
}

/// Writes kind and level.
pub(crate) fn set_kind(page: &mut [u8], kind: u8, level: u8) {
    page[KIND] = kind;
    page[LEVEL] = level;
}

/// Writes the size of what a run stores.
pub(crate) fn set_run_size(page: &mut [u8], size: u32) {
    put_u32(page, RUN_SIZE, size);
}

/// What the referrer says that a page or run must be.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub number: PageNo,
    /// Nothing that is referred to is younger than this.
    pub birth_max: RootNo,
    pub file: FileId,
    pub crc: u32,
    pub kind: u8,
    pub level: u8,
}

/// Verifies the header and the CRC of a page (all of it) or run (header and content only).
pub(crate) fn verify(bytes: &[u8], expected: &Expected) -> Result<(), Damage> {
    let damage = |kind| Err(Damage::new(expected.number, kind));
    let found = crc32(&bytes[4..]);
    if found != expected.crc || u32_at(bytes, 0) != expected.crc {
        return damage(DamageKind::Crc { expected: expected.crc, found });
    }
    if number(bytes) != expected.number
        || birth(bytes) > expected.birth_max
        || u128_at(bytes, FILE) != expected.file.get()
    {
        return damage(DamageKind::Misplaced);
    }
    if bytes[KIND] != expected.kind || bytes[LEVEL] != expected.level {
        return damage(DamageKind::Kind);
    }
    Ok(())
}

/// The size that a run's header states.
pub(crate) fn run_size(bytes: &[u8]) -> u32 {
    u32_at(bytes, RUN_SIZE)
}
