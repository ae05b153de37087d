//! Unpack: the chunks of a state on its way are taken apart into the versions and leases that it keeps, for
//! whoever wants these and not a state.
//!
//! ```text
//! current   key -> its newest version                 events   (revision, sub) -> the version that it replaced
//!
//! every version is in one of them and in one place; it is kept if it can still be read:
//! at most at the newest revision, and replaced, if at all, behind the compacted one
//! ```
//!
//! Versions come in the order of keys, then those that were replaced in the order of their ends: whoever
//! wants them in the order of revisions has to sort.

use alloc::vec::Vec;

use base::{Alarm, Hash128, LeaseId, LogIndex, Revision, Term, crc32};
use tree::RUN_SIZE_MAX;

use crate::import::read_cell;
use crate::keys::{CURRENT, EVENTS, Point};
use crate::lease::{LEASES, Lease, lease_of_key};
use crate::members::MEMBERS_SIZE_MAX;
use crate::state::State;
use crate::transfer::{CELL, CHUNK_SIZE_MAX, END_SIZE, Kind, PIECE, Totals, VERSION};
use crate::version::{Event, Reader, Version};

/// The numbers of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The last entry that it has applied.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// The newest revision.
    pub revision: Revision,
    /// The oldest that can be read; none before the first compaction.
    pub compacted: Option<Revision>,
    /// What it keeps about the members.
    pub members: Vec<u8>,
    /// The alarms that are up.
    pub alarms: Vec<Alarm>,
}

/// What stands beside the value of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The revision of the first put of this life of the key.
    pub create: Revision,
    /// Puts of this life, this one included.
    pub version: u64,
    /// The lease that it hangs on; 0: none.
    pub lease: LeaseId,
}

/// A part of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A version of a key that can still be read or watched.
    Version {
        /// The change that made it.
        at: Point,
        /// The key.
        key: &'a [u8],
        /// None: it was deleted.
        live: Option<(Facts, &'a [u8])>,
    },
    /// A lease.
    Lease {
        /// Its id.
        id: LeaseId,
        /// Milliseconds that it lives.
        ttl_ms: u64,
    },
}

/// Why chunks cannot be taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnpackError {
    /// The bytes of a chunk are damaged.
    Checksum {
        /// The chunk that was wanted.
        number: u64,
    },
    /// It is another one than the next, or not what may come here.
    Malformed {
        /// The chunk that was wanted.
        number: u64,
    },
    /// A format that this version does not know.
    Version {
        /// What the header says.
        found: u8,
    },
    /// What came is not what the last chunk says.
    Totals,
}

impl core::fmt::Display for UnpackError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Checksum { number } => {
                write!(f, "chunk {number} of the state is damaged; try again")
            }
            Self::Malformed { number } => write!(
                f,
                "chunk {number} of the state is not what may come here; check that client and server \
                 have compatible versions"
            ),
            Self::Version { found } => write!(
                f,
                "the state is sent in format {found}, this version reads {VERSION}; use the client of \
                 the server's version"
            ),
            Self::Totals => f.write_str("the state is not what its last chunk says; try again"),
        }
    }
}

impl core::error::Error for UnpackError {}

/// A cell whose run is still coming.
struct Open {
    is_current: bool,
    key: Vec<u8>,
    payload: Vec<u8>,
    size: usize,
    value: Vec<u8>,
}

/// Chunks on their way through.
pub struct Unpack {
    next: u64,
    head: Option<Head>,
    open: Option<Open>,
    totals: Totals,
    is_whole: bool,
}

impl Default for Unpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Unpack {
    /// Before the first chunk.
    pub fn new() -> Self {
        Self { next: 0, head: None, open: None, totals: Totals::new(), is_whole: false }
    }

    /// The numbers of the state, once the first chunk has come.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Takes the next chunk and tells what it holds; true: it was the last one.
    ///
    /// # Errors
    ///
    /// It is not the next chunk of a state: nothing of what was told is to be relied on.
    pub fn take(
        &mut self,
        chunk: &[u8],
        tell: &mut dyn FnMut(&Item<'_>),
    ) -> Result<bool, UnpackError> {
        let number = self.next;
        let malformed = UnpackError::Malformed { number };
        let mut reader = Reader(chunk);
        let crc = reader.take().map(u32::from_le_bytes);
        if chunk.len() > CHUNK_SIZE_MAX || crc != Some(crc32(reader.0)) {
            return Err(UnpackError::Checksum { number });
        }
        let (found, kind) = (reader.u64(), reader.u8());
        if found != Some(number) || self.is_whole {
            return Err(malformed);
        }
        let body = reader.0;
        match (kind.and_then(Kind::from_number), &self.head) {
            (Some(Kind::Header), None) => self.head = Some(head(body, malformed)?),
            (Some(Kind::Records), Some(head)) => {
                let head = head.clone();
                let mut reader = Reader(body);
                while !reader.0.is_empty() {
                    self.record(&mut reader, &head, tell).ok_or(malformed)?;
                }
            }
            (Some(Kind::End), Some(_)) if self.open.is_none() => {
                let totals = core::mem::replace(&mut self.totals, Totals::new());
                let mut reader = Reader(body);
                let (records, hash) = (reader.u64(), reader.take().map(Hash128::from_bytes));
                let is_same = body.len() == END_SIZE
                    && records == Some(totals.records)
                    && hash == Some(totals.hasher.finish());
                self.is_whole = is_same;
                return if is_same { Ok(true) } else { Err(UnpackError::Totals) };
            }
            _ => return Err(malformed),
        }
        self.totals.hasher.update(body);
        self.next += 1;
        Ok(false)
    }

    fn record(
        &mut self,
        reader: &mut Reader<'_>,
        head: &Head,
        tell: &mut dyn FnMut(&Item<'_>),
    ) -> Option<()> {
        match (reader.u8()?, self.open.take()) {
            (PIECE, Some(mut open)) => {
                let size = usize::try_from(u32::from_le_bytes(reader.take()?)).ok()?;
                let piece = reader.bytes(size).filter(|piece| !piece.is_empty())?;
                if piece.len() > open.size - open.value.len() {
                    return None;
                }
                open.value.extend_from_slice(piece);
                if open.value.len() < open.size {
                    self.open = Some(open);
                    return Some(());
                }
                cell(head, open.is_current, &open.key, &open.payload, Some(&open.value), tell)
            }
            (CELL, None) => {
                let (record, run) = read_cell(reader)?;
                self.totals.records += 1;
                let is_current = record.tree == CURRENT;
                if record.tree == LEASES {
                    let (id, lease) = (lease_of_key(record.key)?, Lease::decode(record.payload)?);
                    tell(&Item::Lease { id, ttl_ms: lease.ttl_ms });
                }
                match run {
                    Some(size) if size > RUN_SIZE_MAX => None,
                    _ if !is_current && record.tree != EVENTS => run.is_none().then_some(()),
                    Some(size) if size > 0 => {
                        let (key, payload) = (record.key.to_vec(), record.payload.to_vec());
                        self.open =
                            Some(Open { is_current, key, payload, size, value: Vec::new() });
                        Some(())
                    }
                    run => {
                        let value = run.map(|_| &[][..]);
                        cell(head, is_current, record.key, record.payload, value, tell)
                    }
                }
            }
            _ => None,
        }
    }
}

/// Tells the version in a cell of `current` or `events`, if it is kept. `run`: its value, if that did not fit.
fn cell(
    head: &Head,
    is_current: bool,
    key: &[u8],
    payload: &[u8],
    run: Option<&[u8]>,
    tell: &mut dyn FnMut(&Item<'_>),
) -> Option<()> {
    let compacted = head.compacted.unwrap_or(Revision::ZERO);
    let (key, bytes) = if is_current {
        (key, payload)
    } else {
        let (at, event) = (Point::from_key(key)?, Event::decode(payload)?);
        // What was replaced at the compacted revision or before cannot be read any more.
        if at.revision <= compacted && head.compacted.is_some() {
            return Some(());
        }
        match event.replaced(at).ok()? {
            Some(bytes) => (event.key, bytes),
            None => return Some(()),
        }
    };
    let (version, inline) = Version::decode(bytes)?;
    let at = version.at;
    // What a half applied entry has written is not there yet; what it replaced is. A watch from the compacted
    // revision is told what was deleted there, and nothing asks for earlier deletes.
    let is_kept = at.revision <= head.revision
        && (version.live.is_some() || head.compacted.is_none() || at.revision >= compacted);
    if is_kept {
        let facts = version.live.map(|live| {
            let facts = Facts { create: live.create, version: live.version, lease: live.lease };
            (facts, run.unwrap_or(inline))
        });
        tell(&Item::Version { at, key, live: facts });
    }
    Some(())
}

fn head(body: &[u8], malformed: UnpackError) -> Result<Head, UnpackError> {
    let (&version, meta) = body.split_first().ok_or(malformed)?;
    if version != VERSION {
        return Err(UnpackError::Version { found: version });
    }
    State::head(meta).filter(|head| head.members.len() <= MEMBERS_SIZE_MAX).ok_or(malformed)
}
