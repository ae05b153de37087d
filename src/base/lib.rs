//! The vocabulary: types that every layer speaks in.
//!
//! What belongs here has two users and is one noun. There is no I/O, no clock and no randomness that
//! is not handed in. A helper with one user lives beside that user.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod alarm;
mod checksum;
mod id;
pub mod limits;
mod mutant;
mod position;
mod prefetch;
mod prng;
mod stamp;
mod time;

pub use alarm::{Alarm, AlarmKind};
pub use checksum::{Hash128, Hasher128, crc32, crc32_append, hash128};
pub use id::{ClientId, ConnectionId, FileId, LeaseId, NodeId, ReactorId, RequestId, Ticket};
pub use mutant::Mutant;
pub use position::{LogIndex, Lsn, PageNo, Revision, RootNo, Term};
pub use prefetch::{CACHE_LINE_SIZE, prefetch};
pub use prng::Prng;
pub use stamp::{STAMP_SIZE, Stamp};
pub use time::{Duration, Instant};

/// Reference-counted, immutable bytes that may cross cores.
///
/// A request body travels as one `Frame` from the socket to the log and to the store; slicing it
/// does not copy.
pub type Frame = bytes::Bytes;
