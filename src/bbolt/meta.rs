//! The meta page: what a file is, and where its tree of buckets begins.

use alloc::vec::Vec;

use crate::{META, PAGE_HEADER_SIZE};

const MAGIC: u32 = 0xED0C_DAED;

/// The version of the format that this crate reads and writes.
const VERSION: u32 = 2;

/// Bytes of a meta page that say something.
pub const META_SIZE: usize = PAGE_HEADER_SIZE + CHECKED_SIZE + 8;

/// Bytes of the meta that its checksum is over.
const CHECKED_SIZE: usize = 56;

/// What a meta page says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Bytes of a page.
    pub page_size: u32,
    /// Root page of the tree of buckets.
    pub root: u64,
    /// Page of the list of free pages.
    pub freelist: u64,
    /// How many pages there are.
    pub pages: u64,
    /// The transaction that wrote it.
    pub transaction: u64,
}

/// What a meta page turned out to be.
pub enum Read {
    Meta(Meta),
    /// It begins like one and its checksum is another.
    Damaged,
    Version(u32),
    /// Something else.
    Foreign,
}

impl Meta {
    /// Appends the page with this number, `page_size` bytes.
    pub fn encode(&self, page: u64, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&page.to_le_bytes());
        out.extend_from_slice(&META.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        let checked = out.len();
        for number in [MAGIC, VERSION, self.page_size, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.root, 0, self.freelist, self.pages, self.transaction] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(&out[checked..]);
        out.extend_from_slice(&sum.to_le_bytes());
        out.resize(begin + usize::try_from(self.page_size).expect("a page fits memory"), 0);
    }

    /// What the first [`META_SIZE`] bytes of a page say.
    pub fn decode(page: &[u8; META_SIZE]) -> Read {
        let content = &page[PAGE_HEADER_SIZE..];
        let u32_at = |at: usize| content[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| content[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        if u32_at(0) != MAGIC {
            return Read::Foreign;
        }
        if u64_at(CHECKED_SIZE) != checksum(&content[..CHECKED_SIZE]) {
            return Read::Damaged;
        }
        if u32_at(4) != VERSION {
            return Read::Version(u32_at(4));
        }
        Read::Meta(Self {
            page_size: u32_at(8),
            root: u64_at(16),
            freelist: u64_at(32),
            pages: u64_at(40),
            transaction: u64_at(48),
        })
    }
}

/// FNV-1a of 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
