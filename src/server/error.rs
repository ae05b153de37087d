//! Why a server does not start or does not go on, for people.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::Address;

/// Why a server does not start or does not go on.
#[derive(Debug)]
pub enum Error {
    /// A value of the configuration cannot work.
    Config(String),
    /// Something about the data directory.
    DataDir {
        /// The path.
        path: PathBuf,
        /// What is wrong, as a predicate.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the data directory.
    DataDirInUse {
        /// The path.
        path: PathBuf,
    },
    /// The directory has no identity, and something in it that no server made.
    DataDirForeign {
        /// The path.
        path: PathBuf,
        /// What is there.
        name: String,
    },
    /// The directory has data but no identity.
    IdentityMissing {
        /// The path.
        path: PathBuf,
        /// A file that is there.
        name: &'static str,
    },
    /// The identity file cannot be trusted.
    IdentityDamaged {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The system gives no random bytes.
    NoRandomness,
    /// The file system does not do O_DIRECT.
    NoDirectIo {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// io_uring is not to be had.
    NoIoUring(String),
    /// The locked-memory limit is too low.
    MemlockTooLow {
        /// Bytes allowed.
        limit: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// A page of the page file was found damaged by an earlier start, and other members have it whole.
    PagesDamaged {
        /// Where that is noted.
        note: PathBuf,
        /// What was found.
        text: String,
    },
    /// The stored state cannot be recovered.
    Recovery(String),
    /// A snapshot cannot be restored.
    Restore(String),
    /// A disk operation failed while running; the process stops and recovers at its next start.
    Disk(String),
    /// An executor could not be started.
    Executor(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::DataDir { path, what, source } => {
                write!(f, "the data directory {} {what}: {source}", path.display())
            }
            Self::DataDirInUse { path } => write!(
                f,
                "the data directory {} is in use by another process; stop that one or choose \
                 another with --data-dir",
                path.display()
            ),
            Self::DataDirForeign { path, name } => write!(
                f,
                "the directory {} is no data directory and not empty: it has '{name}'; choose an \
                 empty one, or one that is not there yet, with --data-dir",
                path.display()
            ),
            Self::IdentityMissing { path, name } => write!(
                f,
                "the data directory {} has '{name}' but no 'identity' file, so nobody can tell \
                 whose data that is; restore the file from a copy, or choose an empty directory",
                path.display()
            ),
            Self::IdentityDamaged { path, reason } => {
                write!(f, "the identity file {} is refused: {reason}", path.display())
            }
            Self::NoRandomness => f.write_str("the system gives no random bytes (getrandom)"),
            Self::NoDirectIo { path, source } => write!(
                f,
                "the file system of {} does not take O_DIRECT writes ({source}); use one that does \
                 (ext4, XFS), or --unsafe-buffered for development",
                path.display()
            ),
            Self::NoIoUring(reason) => write!(
                f,
                "io_uring cannot be used here: {reason}; it needs Linux 5.8 or later, and \
                 /proc/sys/kernel/io_uring_disabled must be 0 (in a container, its seccomp profile \
                 must allow io_uring)"
            ),
            Self::MemlockTooLow { limit, needed } => write!(
                f,
                "the locked-memory limit is {limit} bytes and the rings need {needed}; raise it \
                 with 'ulimit -l {}' or LimitMEMLOCK= in the unit file",
                needed / 1024
            ),
            Self::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{address} is in use by another process; choose another address with --listen or \
                     --listen-client, as etcd with --listen-client-urls (port 0 takes a free one)"
                )
            }
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::PagesDamaged { note, text } => write!(
                f,
                "the page file was found damaged: {text}; this is noted in {}: without \
                 that file the member serves what it can",
                note.display()
            ),
            Self::Recovery(text) | Self::Restore(text) => f.write_str(text),
            Self::Disk(text) => write!(f, "stopped by a disk error: {text}"),
            Self::Executor(text) => write!(f, "an executor could not be started: {text}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::DataDir { source, .. }
            | Self::NoDirectIo { source, .. }
            | Self::Listen { source, .. } => Some(source),
            _ => None,
        }
    }
}
