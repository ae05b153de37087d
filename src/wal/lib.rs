//! The write-ahead log of one member: its format, group commit, segments and recovery.
//!
//! The crate does no I/O. [`Writer`] hands out writes (`file, offset, block`) and is told when they
//! are written and when they are durable; [`Recovery`] and [`Replay`] ask for reads and are fed the
//! bytes. It does not know what a record means.
//!
//! # Words
//!
//! A *slot* is a preallocated, zero-filled file `slot-NNN`. A *segment* is one use of a slot: a new
//! segment header with a new uuid and a higher sequence begins the next use; nothing is renamed. A
//! *group* is what one O_DIRECT write puts on disk: a header, records, zeros up to 4 KiB. A
//! *record* is one entry of the log. *LSN* counts groups, *index* counts entries.
//!
//! # The one rule
//!
//! A block that holds bytes of an acknowledged group is never written again before its whole
//! segment is given back. Every group starts on a block of its own.
//!
//! # Files, all numbers little endian
//!
//! ```text
//! slot-NNN   | segment header 4 KiB | group | group | ... | stale or zero |    segment_size bytes
//! ring       | slot 0 4 KiB | slot 1 | ... | slot N-1 |        group lsn goes to slot lsn mod N
//! watermark  | block 0 4 KiB | block 1 | block 2 | block 3 |   write n goes to block n mod 4
//!
//! every header begins alike
//!   0  magic 8 | 8  crc32 of 12.. 4 | 12 format version 4 | 16 hash128 of 32.. 16 | 32 ...
//!
//! segment header, 4096 bytes, all covered by crc and hash
//!   0  envelope "QRWALSEG"          32
//!  32  cluster                       8
//!  40  member                        8
//!  48  incarnation that prepared it 16
//!  64  segment uuid                 16
//!  80  sequence                      8
//!  88  segment size in bytes         8
//!  96  number of the slot            4
//! 100  zero
//!
//! group header, 256 bytes; its hash is the name of the group in the group chain
//!   0  envelope "QRWALGRP"          32
//!  32  cluster                       8
//!  40  member                        8
//!  48  incarnation of the writer    16
//!  64  segment uuid                 16
//!  80  segment sequence              8
//!  88  offset of this header         8   in its slot file: a misdirected group does not verify
//!  96  lsn                           8
//! 104  durable lsn                   8   greatest LSN durable when this group was sealed
//! 112  hash of the previous group   16
//! 128  cut: index                    8   last index of the earlier log that stays valid
//! 136  cut: term                     8
//! 144  cut: log chain hash          16   the chain before the first record
//! 160  first: index, term           16   zero in a group without records
//! 176  last: index, term            16   the cut in a group without records
//! 192  last: log chain hash         16
//! 208  hard state: term              8
//! 216  hard state: vote              8
//! 224  hard state: commit            8
//! 232  record count                  4
//! 236  bytes of records              4
//! 240  flags                         4   1 a vote is present, 2 the log starts anew at the cut,
//!                                        4 the member has begun: it may vote after a restart
//! 244  zero                         12
//! 256  records, then zeros up to a multiple of 4096
//!
//! record, 48 bytes and the payload
//!   0  crc32 of 4..48+length         4
//!   4  length of the payload         4
//!   8  index                         8
//!  16  term                          8
//!  24  kind 1, zero 7                8
//!  32  log chain hash               16   of (4..32, the hash of the record before, payload)
//!  48  payload, zeros up to a multiple of 8
//!
//! ring slot, 4096 bytes
//!   0  copy of the group header    256
//! 256  crc32 of 260..              4
//! 260  identities that follow        4   the first K = 95 records of the group
//! 264  { index 8, term 8, log chain hash 16, offset in the group 4, payload length 4 } each
//!
//! watermark block, 4096 bytes, all covered by crc and hash
//!   0  envelope "QRWALMRK"          32
//!  32  cluster, member, incarnation 32
//!  64  sequence of this write        8
//!  72  hard state: term, vote, commit  24
//!  96  durable lsn                   8
//! 104  durable: index, term         16
//! 120  flags                         4   1 a vote is present, 4 the member has begun
//! 124  zero
//! ```
//!
//! # Two chains
//!
//! The *log chain* (hash over previous hash, index, term, kind, payload) is the same on every
//! member. The *group chain* (hash over a group header, which holds the hash before it and the log
//! chain hash behind its last record) is local: it fixes order, place, incarnation and every
//! payload byte, so that recycled, misdirected or dropped groups never join it.
//!
//! # What proves that a group was durable
//!
//! A group that does not verify at start is *lost* if a witness says it was durable: the watermark
//! file, the applied index of the page file, or any valid group header (in a segment or in the
//! ring) whose durable LSN reaches it. Without a witness it is the torn tail of a crash and is
//! dropped. Dropped groups cannot become witnesses later: had one of their headers named the
//! dropped LSN durable, it would not have been dropped.
//!
//! A start drops torn groups and first writes a group of a new incarnation in their place. Once
//! that is durable they can never join the chain again. Before, they can: its own torn write may
//! put the very sectors in place that were missing (zeros of padding, a payload sent twice). That
//! is why nothing may be answered before the first group of an incarnation is durable: then nobody
//! can tell the difference.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod entry;
mod error;
mod format;
mod group;
mod groups;
mod record;
mod recovered;
mod recovery;
mod replay;
mod ring;
mod segment;
mod segments;
mod size_marks;
mod walk;
mod watermark;
mod window;
mod witness;
mod writer;

pub use entry::{Entry, HardState, Identity, Position};
pub use error::{Fault, RecoveryError, Witness};
pub use group::{GROUP_HEADER_SIZE, GroupHeader, Header};
pub use record::{
    RECORD_HEADER_SIZE, Record, Records, chain_hash, read_record, record_size, write_record,
};
pub use recovered::{GroupRow, LiveGroup, Recovered, Skipped, TermRun, TornTail};
pub use recovery::{Applied, Files, Owner, Read, Recovery, SlotFile, Step};
pub use replay::{GroupStep, Groups, Link, Replay, ReplayStep};
pub use ring::{EntryIdentity, RING_IDENTITIES_MAX, RingSlot};
pub use segment::SegmentHeader;
pub use watermark::Watermark;
pub use writer::{Append, Options, Seal, SealedGroup, Write, Writer};

use base::limits::BLOCK_SIZE;

/// Version of the format; a header with another one is refused by name.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a segment header; the first group of a segment starts here.
pub const SEGMENT_HEADER_SIZE: usize = BLOCK_SIZE;

/// Default bytes of a slot file: what etcd uses as well, and a scan of less than 0.1 s.
pub const SEGMENT_SIZE_DEFAULT: u64 = 64 << 20;

/// Default bytes of the block that gathers records until it is sealed.
pub const GROUP_BLOCK_SIZE_DEFAULT: usize = 1 << 20;

/// Default slots of the header ring: the ring file has this many blocks of 4 KiB.
pub const RING_SLOTS_DEFAULT: u32 = 1024;

/// Groups that may be written and not yet durable.
pub const GROUPS_IN_FLIGHT_MAX: usize = 2;

/// Ready spare segments that the writer asks for.
pub const SPARES_READY: u32 = 2;

/// Blocks of the watermark file.
pub const WATERMARK_BLOCKS: u64 = 4;

/// Bytes of the watermark file.
pub const WATERMARK_FILE_SIZE: u64 = WATERMARK_BLOCKS * format::size64(BLOCK_SIZE);

/// Greatest read that recovery and replay ask for, in bytes.
pub const READ_SIZE_MAX: usize = 1 << 20;

/// Bytes of the ring file for `slots` slots.
pub const fn ring_file_size(slots: u32) -> u64 {
    slots as u64 * format::size64(BLOCK_SIZE)
}

/// A file of the log. The caller keeps the names: `slot-NNN`, `ring`, `watermark`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalFile {
    /// A slot file, by its number.
    Slot(u32),
    /// The header ring.
    Ring,
    /// The watermark file.
    Watermark,
}

impl core::fmt::Display for WalFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Slot(number) => write!(f, "wal/slot-{number:03}"),
            Self::Ring => f.write_str("wal/ring"),
            Self::Watermark => f.write_str("wal/watermark"),
        }
    }
}
