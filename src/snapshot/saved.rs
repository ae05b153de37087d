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
pub struct Checked {
    /// What is at the end.
    pub end: End,
    /// The checksum of what the file holds: a name for it.
    pub sum: [u8; CHECKSUM_SIZE],
}

/// What stands at the end of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The checksum of what the file holds.
    Right,
    /// Another one.
    Wrong,
    /// None, as in a file that was copied from a data directory.
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

    /// Hashes what the file holds and looks at its end; `progress` is told how many bytes were read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Checked, Error> {
        let wrap = |source| Error::Io { path: self.path.clone(), what: "cannot be read", source };
        let checksum_size = u64::try_from(CHECKSUM_SIZE).expect("small");
        let has_checksum = self.size % BLOCK_SIZE == checksum_size;
        let content_size = if has_checksum { self.size - checksum_size } else { self.size };
        let (mut sum, mut at, mut bytes) = (Sum::default(), 0, vec![0; READ_SIZE]);
        while at < content_size {
            let left = usize::try_from(content_size - at).unwrap_or(usize::MAX).min(READ_SIZE);
            self.file.read_exact_at(&mut bytes[..left], at).map_err(wrap)?;
            sum.update(&bytes[..left]);
            at += u64::try_from(left).expect("small");
            progress(at);
        }
        let sum = sum.finish();
        if !has_checksum {
            return Ok(Checked { end: End::Missing, sum });
        }
        let mut found = [0; CHECKSUM_SIZE];
        self.file.read_exact_at(&mut found, content_size).map_err(wrap)?;
        let end = if found == sum { End::Right } else { End::Wrong };
        Ok(Checked { end, sum })
    }

    /// As [`Saved::check`]; the checksum must be there and right.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Checked, Error> {
        let checked = self.check(progress)?;
        match checked.end {
            End::Right => Ok(checked),
            End::Wrong => Err(Error::Checksum),
            End::Missing => Err(Error::NoChecksum),
        }
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
