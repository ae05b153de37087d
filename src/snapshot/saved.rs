//! A snapshot that was saved: the file, and the checksum at its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bbolt::Source;

use crate::{Error, Sum};

/// Bytes of the checksum at the end.
pub const CHECKSUM_SIZE: usize = 32;

/// The part of a file before its checksum is a multiple of this: so both can be told from the size.
const BLOCK_SIZE: u64 = 512;

/// Bytes that are read at once for the checksum.
const READ_SIZE: usize = 1 << 20;

/// What came of looking at the checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// It is that of what the file holds.
    Right,
    /// There is none, as in a file that was copied from a data directory.
    Missing,
}

/// A saved snapshot.
pub struct Saved {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Saved {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::open(path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        let wrap = |source| Error::Io { path: path.into(), what: "cannot be opened", source };
        let (file, size) = opened.map_err(wrap)?;
        Ok(Self { path: path.into(), file, size })
    }

    /// Looks whether the checksum at the end is right; `progress` is told how many bytes were read.
    ///
    /// # Errors
    /// It is not, or the file cannot be read.
    pub fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Checked, Error> {
        let wrap = |source| Error::Io { path: self.path.clone(), what: "cannot be read", source };
        let checksum_size = u64::try_from(CHECKSUM_SIZE).expect("small");
        if self.size % BLOCK_SIZE != checksum_size {
            return Ok(Checked::Missing);
        }
        let content_size = self.size - checksum_size;
        let (mut sum, mut at, mut bytes) = (Sum::default(), 0, vec![0; READ_SIZE]);
        while at < content_size {
            let left = usize::try_from(content_size - at).unwrap_or(usize::MAX).min(READ_SIZE);
            self.file.read_exact_at(&mut bytes[..left], at).map_err(wrap)?;
            sum.update(&bytes[..left]);
            at += u64::try_from(left).expect("small");
            progress(at);
        }
        let mut expected = [0; CHECKSUM_SIZE];
        self.file.read_exact_at(&mut expected, content_size).map_err(wrap)?;
        if sum.finish() == expected { Ok(Checked::Right) } else { Err(Error::Checksum) }
    }

    /// The checksum at the end, if there is one: a name for what is in the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn checksum(&self) -> Result<[u8; CHECKSUM_SIZE], Error> {
        let wrap = |source| Error::Io { path: self.path.clone(), what: "cannot be read", source };
        let mut checksum = [0; CHECKSUM_SIZE];
        let at = self.size.saturating_sub(u64::try_from(CHECKSUM_SIZE).expect("small"));
        self.file.read_exact_at(&mut checksum, at).map_err(wrap)?;
        Ok(checksum)
    }
}

impl Source for &Saved {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}
