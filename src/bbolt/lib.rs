//! bbolt: files of the bbolt database, which etcd keeps its data in and hands out as snapshots. Reads any,
//! writes new ones from front to back. Does not know what a bucket is for.
//!
//! ```text
//! file     page*   page 0 and 1: meta; a page may go on in the pages behind it
//! page     id u64 | flags u16 | count u16 | pages behind it that it goes on in u32 | content
//!
//! meta     magic u32 | version u32 | page size u32 | flags u32 | root page of the buckets u64 | 0 u64
//!          | page of the free list u64 | pages of the file u64 | transaction u64 | FNV-1a of the rest u64
//! branch   { key's place u32 | its size u32 | child u64 }*            keys: the first of each child
//! leaf     { flags u32 | key's place u32 | key size u32 | value size u32 }*    then keys and values
//!          the place counts from the element; flag 1: the value is a bucket
//! bucket   root page u64 | sequence u64 [| the page itself, where the root is 0]
//! ```
//!
//! Numbers are little endian. Of two meta pages the one with the later transaction counts. A tree of a
//! bucket is a B+ tree by the order of keys.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod meta;
mod reader;
mod writer;

pub use error::{Error, Problem};
pub use reader::{Bucket, Db, NamedBucket, Source, Walk};
pub use writer::{Blob, Hollow, Pages, Writer};

/// Bytes of a page that this crate writes. Others are read too.
pub const PAGE_SIZE: usize = 4_096;

/// Bytes of a page before its content.
const PAGE_HEADER_SIZE: usize = 16;

/// Bytes of an element of a leaf or a branch before its key.
const ELEMENT_SIZE: usize = 16;

/// Bytes of a bucket before a page that stands in its value.
const BUCKET_SIZE: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;

/// The flag of a leaf's element whose value is a bucket.
const IS_BUCKET: u32 = 1;
