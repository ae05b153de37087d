//! Why a snapshot cannot be made or read.

use std::io;
use std::path::PathBuf;

/// Why a snapshot cannot be made or read.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be read or written.
    Io {
        /// Which.
        path: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The file is damaged, or no bbolt file.
    File(bbolt::Error<io::Error>),
    /// The checksum at its end is not that of what it holds.
    Checksum,
    /// There is no checksum at its end, as in a file that was copied from a data directory.
    NoChecksum,
    /// It is a bbolt file and lacks what a snapshot of etcd has.
    NoBucket {
        /// The bucket that is not there.
        name: &'static str,
    },
    /// A record is not what etcd keeps there.
    Record {
        /// Of which bucket.
        bucket: &'static str,
        /// Its key.
        key: Vec<u8>,
    },
    /// The chunks that a snapshot was to be made of.
    Chunk(kv::UnpackError),
}

impl From<bbolt::Error<io::Error>> for Error {
    fn from(error: bbolt::Error<io::Error>) -> Self {
        Self::File(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, what, source } => write!(f, "{} {what}: {source}", path.display()),
            Self::File(error) => error.fmt(f),
            Self::Checksum => f.write_str(
                "the SHA-256 at its end is not that of its content: it is damaged; use another copy",
            ),
            Self::NoChecksum => f.write_str(
                "it has no SHA-256 at its end: it is cut off, or no snapshot, or was copied from a data \
                 directory, and then 'snapshot restore --skip-hash-check' takes it unchecked",
            ),
            Self::NoBucket { name } => write!(
                f,
                "it is a bbolt file without a bucket {name}: no snapshot of etcd 3, or one of another \
                 program"
            ),
            Self::Record { bucket, key } => write!(
                f,
                "its bucket {bucket} holds under {} what etcd does not keep there: it is damaged; use \
                 another copy",
                key.escape_ascii()
            ),
            Self::Chunk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
