//! tree: copy-on-write B+trees in one page file, without any I/O of their own.
//!
//! A [`PageFile`] holds up to [`TREES_MAX`] trees of cells. It has one owner and hands out reads
//! and writes as plain offsets; who owns it moves the bytes. It does not know what a key means.
//!
//! **The one rule: a page that a checkpoint plan includes never changes.** It is copied to a new
//! page number and the old one is retired. A page that no plan includes yet is edited in place.
//!
//! ```text
//! file    0        meta slot 0 (4 KiB)
//!         64 KiB   meta slot 1 (4 KiB)
//!         256 KiB  pages of 8 KiB, numbered by offset / 8 KiB: the first is 32
//!
//! page    leaf or branch: header, slots, free gap, cells       (page.rs, slotted.rs)
//! run     header and up to 16 MiB of bytes on contiguous pages (page.rs), one owner
//! meta    roots, free list, application bytes                  (meta.rs)
//! ```
//!
//! A miss is not an error: what is not in memory is named by a [`Miss`], the caller reads those
//! bytes, hands them to [`PageFile::install`] and asks again. Branch pages are always in memory, so
//! there is at most one miss per key.
//!
//! A checkpoint: [`PageFile::checkpoint_begin`], every [`WriteRun`] of
//! [`PageFile::checkpoint_next`] filled and written, the file synced, [`PageFile::checkpoint_meta`]
//! written and synced, [`PageFile::checkpoint_published`]. Whoever reads one for longer than it is
//! the newest takes hold of it: [`PageFile::hold`], a [`HeldWalk`], [`PageFile::release`]. After a
//! crash [`Open`] takes the newest meta slot whose root, branch pages and free list verify. Only two
//! slots exist, so the log must be kept from the older one on.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

extern crate alloc;

mod cell;
mod check;
mod checkpoint;
mod edit;
mod error;
mod file;
mod frames;
mod free;
mod held;
mod meta;
mod open;
mod page;
mod read;
mod slotted;
mod warm;

pub use cell::{Cell, KeyRange, Miss, NewCell, Run, Summary, TreeId};
pub use check::{Check, CheckStep, Counts};
pub use checkpoint::{APPLICATION_SIZE_MAX, Release, WriteRun};
pub use edit::Place;
pub use error::{Damage, DamageKind, OpenError};
pub use file::{Options, PageFile};
pub use held::HeldWalk;
pub use meta::{META_SIZE, SLOT_OFFSETS};
pub use open::{Open, OpenStep};
pub use read::Direction;
pub use warm::WARM_MAX;

/// Trees of one page file: the roots that a meta record has room for.
pub const TREES_MAX: usize = 8;

/// Greatest size in bytes of key and payload of one cell: two such cells always fit a leaf.
pub const CELL_SIZE_MAX: usize = 3_900;

/// Greatest size in bytes of a run's bytes.
pub const RUN_SIZE_MAX: usize = base::limits::VALUE_SIZE_MAX + (1 << 16);
