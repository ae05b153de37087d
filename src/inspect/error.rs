//! Why an inspection ends early: nothing to look at, or a fault of what is stored.

use std::fmt;
use std::io;
use std::path::PathBuf;

use base::{Hash128, LogIndex, Lsn, Revision};
use wal::{RecoveryError, Skipped, WalFile};

/// Why an inspection ended early.
#[derive(Debug)]
pub enum Error {
    /// There is nothing of a server at this path.
    NotDataDir {
        /// The path.
        path: PathBuf,
    },
    /// A server, or something else that writes, holds the directory.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A file or directory cannot be looked at.
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was to be printed could not be.
    Output(io::Error),
    /// What is stored is not sound.
    Fault(Box<Fault>),
}

impl Error {
    /// True if what is stored is not sound; false if it could not be looked at.
    pub const fn is_fault(&self) -> bool {
        matches!(self, Self::Fault(_))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDataDir { path } => write!(
                f,
                "{} is no data directory: it has no 'identity', no 'pages' and no 'wal'; give the \
                 directory that the server was started with",
                path.display()
            ),
            Self::InUse { path } => write!(
                f,
                "the data directory {} is in use by another process; stop the server, or inspect a \
                 copy, or use --force and expect that what it writes meanwhile looks damaged",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Output(source) => write!(f, "the output cannot be written: {source}"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotDataDir { .. } | Self::InUse { .. } => None,
            Self::Io { source, .. } | Self::Output(source) => Some(source),
            Self::Fault(fault) => Some(&**fault),
        }
    }
}

/// What is wrong with what is stored.
#[derive(Debug)]
pub enum Fault {
    /// The identity file is damaged, or missing although there is data.
    Identity(server::Error),
    /// The disk will not read a part of the page file.
    Unreadable {
        /// Byte offset in the file.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The page file, seen from one meta slot or from both.
    Pages {
        /// The slot, where only that one was looked at.
        slot: Option<usize>,
        /// What is wrong.
        error: tree::OpenError,
    },
    /// A page that was read later.
    Page(tree::Damage),
    /// The state's own part of a meta record.
    Meta {
        /// The slot of the record.
        slot: Option<usize>,
        /// What is wrong.
        error: kv::OpenError,
    },
    /// The log cannot be used.
    Wal(RecoveryError),
    /// A group that was durable is damaged. No start needs it any more.
    Group(Skipped),
    /// The header of a segment with durable groups is damaged. No start needs them any more.
    Segment {
        /// Its slot.
        file: WalFile,
        /// The first of its groups.
        lsn: Lsn,
        /// The first group behind them.
        next_lsn: Lsn,
    },
    /// A record that verifies and cannot be understood.
    Record {
        /// Its file.
        file: WalFile,
        /// Where it starts in the file, in bytes.
        offset: u64,
        /// Its group.
        lsn: Lsn,
        /// Its index in the log.
        index: LogIndex,
        /// What is wrong.
        reason: RecordFault,
    },
    /// A block of the ring or of the watermark file, other than the one that was written last.
    Block {
        /// Its file.
        file: WalFile,
        /// Where it starts in the file, in bytes.
        offset: u64,
        /// The group whose header it should be, where that is known.
        lsn: Option<Lsn>,
    },
    /// A start would be refused.
    Start {
        /// The slot, where it would begin from the older checkpoint.
        slot: Option<usize>,
        /// Why.
        error: Box<node::BootError>,
    },
    /// Starts from the two checkpoints end in different states.
    Diverges {
        /// Where both have applied the log to.
        applied: LogIndex,
        /// The state hash of the start from the newer one.
        newer: Hash128,
        /// That from the older one.
        older: Hash128,
    },
    /// The state contradicts itself.
    State(kv::Damage),
    /// A read that must be answered was not.
    Refused(kv::Refusal),
    /// A pair that cannot be.
    Pair {
        /// Its key.
        key: Vec<u8>,
        /// The revision that was read.
        revision: Revision,
        /// What is wrong.
        reason: PairFault,
    },
    /// A range has other pairs than it counts.
    Count {
        /// The revision that was read.
        revision: Revision,
        /// What it counts.
        counted: u64,
        /// What it has.
        found: u64,
    },
}

/// Why a record cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// Its kind is not known.
    Kind(u8),
    /// Its payload is no request of its kind.
    Payload(wire::DecodeError),
    /// Its payload is no list of members.
    Members(wire::MemberListError),
}

/// What is wrong with a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PairFault {
    /// It does not come behind the pair before it.
    Order,
    /// Its key is empty or longer than a key may be.
    KeySize,
    /// Its revisions are not in order: creation, modification, the revision that was read.
    Revisions,
    /// Its version does not fit its revisions.
    Version,
}

impl fmt::Display for PairFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "it is not greater than the key before it",
            Self::KeySize => "no key has that size",
            Self::Revisions => "its create and mod revisions are out of order",
            Self::Version => "its version does not fit its create and mod revisions",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => error.fmt(f),
            Self::Unreadable { offset, source } => {
                write!(f, "pages: at byte {offset}: {source}; check the disk")
            }
            Self::Pages { slot: None, error } => write!(f, "pages: {error}"),
            Self::Pages { slot: Some(slot), error: tree::OpenError::Damaged(damage) } => {
                write!(f, "pages: the checkpoint of meta slot {slot}: {damage}")
            }
            Self::Pages { slot: Some(slot), error } => {
                write!(f, "pages: meta slot {slot}: {error}")
            }
            Self::Page(damage) => write!(f, "pages: {damage}"),
            Self::Meta { slot: None, error } => write!(f, "pages: {error}"),
            Self::Meta { slot: Some(slot), error } => {
                write!(f, "pages: meta slot {slot}: {error}")
            }
            Self::Wal(error) => error.fmt(f),
            Self::Group(Skipped { file, offset, lsn, fault, .. }) => write!(
                f,
                "{file} at byte {offset} held group LSN {lsn}, but {fault}. No start needs it any \
                 more, but it was durable: check the disk"
            ),
            Self::Segment { file, lsn, next_lsn } => write!(
                f,
                "{file} at byte 0: the segment header does not verify, and the groups from LSN {lsn} \
                 to before {next_lsn} are missing. No start needs them any more, but they were \
                 durable: check the disk"
            ),
            Self::Record { file, offset, lsn, index, reason } => {
                write!(f, "{file} at byte {offset}: log index {index} in group LSN {lsn} ")?;
                match reason {
                    RecordFault::Kind(kind) => write!(f, "has kind {kind}, which is not known"),
                    RecordFault::Members(error) => {
                        write!(f, "holds a list of members that cannot be read: {error}")
                    }
                    RecordFault::Payload(error) => {
                        write!(f, "verifies but cannot be read: {error}")
                    }
                }
            }
            Self::Block { file, offset, lsn } => {
                write!(f, "{file} at byte {offset} fails its checksum")?;
                if let Some(lsn) = lsn {
                    write!(f, "; it should hold the header of group LSN {lsn}")?;
                }
                f.write_str(". The log itself is read without it; check the disk")
            }
            Self::Start { slot: None, error } => write!(f, "a start would be refused: {error}"),
            Self::Start { slot: Some(slot), error } => write!(
                f,
                "a start from the older checkpoint, meta slot {slot}, would be refused: {error}"
            ),
            Self::Diverges { applied, newer, older } => write!(
                f,
                "a start from the newer checkpoint ends with state hash {} at log index {applied}, \
                 one from the older checkpoint with {}",
                hex(newer),
                hex(older)
            ),
            Self::State(damage) => damage.fmt(f),
            Self::Refused(refusal) => write!(f, "a read of every key was refused: {refusal}"),
            Self::Pair { key, revision, reason } => {
                write!(f, "key \"{}\" at revision {revision}: {reason}", key.escape_ascii())
            }
            Self::Count { revision, counted, found } => write!(
                f,
                "at revision {revision} a read of every key counts {counted} and finds {found}"
            ),
        }
    }
}

impl std::error::Error for Fault {}

/// A hash as people compare it.
pub(crate) fn hex(hash: &Hash128) -> String {
    hash.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
