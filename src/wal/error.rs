//! What can be wrong with a log on disk.

use core::fmt;

use base::{LogIndex, Lsn, NodeId, Term};

use crate::WalFile;

/// Why the bytes at a place are not the group that is expected there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// There is no group header: zeros, or bytes of an earlier use of the place.
    Absent,
    /// The header does not verify.
    Header,
    /// The header verifies, but it belongs to another segment, place, member or chain.
    Chain,
    /// The group would reach beyond the end of its file.
    Size,
    /// A record does not verify; its offset in the group, in bytes.
    Record(usize),
    /// The padding behind the last record is not zero; its offset in the group, in bytes.
    Padding(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no group header"),
            Self::Header => f.write_str("the group header fails its checksum"),
            Self::Chain => f.write_str("the group there does not follow the one before it"),
            Self::Size => f.write_str("the group reaches beyond the end of the file"),
            Self::Record(at) => write!(f, "the record at byte {at} of the group fails its checks"),
            Self::Padding(at) => write!(f, "the padding at byte {at} of the group is not zero"),
        }
    }
}

/// What proves that a group had been durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Witness {
    /// The watermark file names this LSN durable.
    Watermark(Lsn),
    /// The header of group `lsn`, found in `file`, names `durable` durable.
    Header {
        /// Where the header was found.
        file: WalFile,
        /// The group it heads.
        lsn: Lsn,
        /// The LSN that it names durable.
        durable: Lsn,
    },
    /// The page file holds the effects of this entry.
    Applied(LogIndex),
    /// The oldest group that is left follows an entry behind what the page file holds.
    Begins {
        /// Where the group is.
        file: WalFile,
        /// The group.
        lsn: Lsn,
        /// The entry that it follows.
        cut: LogIndex,
    },
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watermark(lsn) => write!(f, "wal/watermark says that LSN {lsn} was durable"),
            Self::Header { file, lsn, durable } => {
                write!(f, "the header of LSN {lsn} in {file} says that LSN {durable} was durable")
            }
            Self::Applied(index) => {
                write!(f, "the page file holds the effects of the log up to index {index}")
            }
            Self::Begins { file, lsn, cut } => {
                write!(f, "the oldest group left, LSN {lsn} in {file}, follows index {cut}")
            }
        }
    }
}

/// Why a log cannot be used. Nothing has been changed on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecoveryError {
    /// A group that was durable is missing or damaged.
    Lost {
        /// The file.
        file: WalFile,
        /// Byte offset in the file where the group should be.
        offset: u64,
        /// The LSN of the group.
        lsn: Lsn,
        /// The first log index that is missing, as far as known.
        index: LogIndex,
        /// First and last index of the group, if a copy of its header is readable.
        entries: Option<(LogIndex, LogIndex)>,
        /// What is wrong at the place.
        fault: Fault,
        /// What proves that the group was durable.
        witness: Witness,
    },
    /// A file belongs to another member or cluster.
    Foreign {
        /// The file.
        file: WalFile,
        /// The cluster that its header names.
        cluster: u64,
        /// The member that its header names.
        member: NodeId,
    },
    /// A header has a format version that this program does not know.
    Version {
        /// The file.
        file: WalFile,
        /// Byte offset of the header.
        offset: u64,
        /// The version found.
        version: u32,
    },
    /// The log and the page file name different terms for the applied index: they are not of one
    /// member.
    Disagrees {
        /// The applied index.
        index: LogIndex,
        /// Its term in the log.
        log_term: Term,
        /// Its term in the page file.
        applied_term: Term,
    },
    /// What verified during the scan did not verify when it was read again.
    Unstable {
        /// The file.
        file: WalFile,
        /// Byte offset of the group.
        offset: u64,
        /// The LSN of the group.
        lsn: Lsn,
        /// What is wrong now.
        fault: Fault,
    },
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { file, offset, lsn, index, entries, fault, witness } => {
                write!(
                    f,
                    "durable data is lost: {file} at byte {offset} should hold group LSN {lsn}, \
                     log index {index} on, but {fault}; {witness}. "
                )?;
                if let Some((first, last)) = entries {
                    write!(f, "The group held log indices {first} to {last}. ")?;
                }
                f.write_str(
                    "Nothing was changed. Keep a copy of the directory, look at it with `quorate \
                     inspect wal`, check the disk, and restore this member from a snapshot or \
                     replace it",
                )
            }
            Self::Foreign { file, cluster, member } => write!(
                f,
                "{file} belongs to member {:#x} of cluster {cluster:#x}, not to this member: \
                 put the files of this member in place",
                member.get()
            ),
            Self::Version { file, offset, version } => write!(
                f,
                "{file} at byte {offset} has log format {version}, this program knows {}: use the \
                 program that wrote it",
                crate::FORMAT_VERSION
            ),
            Self::Disagrees { index, log_term, applied_term } => write!(
                f,
                "the log has term {log_term} at index {index}, the page file has {applied_term}: \
                 the two are not of one member; put files in place that belong together"
            ),
            Self::Unstable { file, offset, lsn, fault } => write!(
                f,
                "{file} at byte {offset}: group LSN {lsn} verified when it was scanned and does \
                 not now: {fault}. Check the disk and start again"
            ),
        }
    }
}

impl core::error::Error for RecoveryError {}
