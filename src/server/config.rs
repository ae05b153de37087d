//! What an operator can decide. Everything else is derived.

use std::net::SocketAddr;
use std::path::PathBuf;

use base::limits::{VALUE_SIZE_MAX, VALUE_SIZE_MAX_DEFAULT};

use crate::Error;

/// How roles are put on cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// All roles on one core up to two cores; from three on each of consensus and store has one.
    Auto,
    /// All roles on the first core; further cores carry a reactor each.
    Shared,
    /// Consensus on the first core, the store on the second, a reactor on each further one. With
    /// fewer than three cores the executors share what there is.
    Dedicated,
}

/// How a WAL group is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMethod {
    /// Measured at the start.
    Auto,
    /// The write, then fdatasync.
    Fdatasync,
    /// One write with O_DSYNC.
    Dsync,
}

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; made when it is not there.
    pub data_dir: PathBuf,
    /// Address of the native protocol; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Cores to run on, as numbered by the system; empty: all that the process may use.
    pub cores: Vec<usize>,
    /// How roles are put on them.
    pub topology: Topology,
    /// Bytes of the page cache: pages, and the blocks and buffers through which they pass.
    pub page_cache_size: u64,
    /// Bytes of a WAL segment; holds for a new data directory.
    pub wal_segment_size: u64,
    /// Greatest value in bytes.
    pub value_size_max: usize,
    /// How a WAL group is made durable.
    pub sync: SyncMethod,
    /// Go on where the file system has no O_DIRECT. For development: slower, and a lost write may
    /// go unnoticed.
    pub unsafe_buffered: bool,
}

impl Config {
    /// Bytes of the page cache for pages. The rest, a quarter and at most 16 MiB, is for what is on its
    /// way between sockets, log, cache and disk.
    pub fn pages_size(&self) -> u64 {
        self.page_cache_size - (self.page_cache_size / 4).min(16 << 20)
    }

    /// Page cache of a server that is not told otherwise: 1 GiB.
    pub const PAGE_CACHE_SIZE_DEFAULT: u64 = 1 << 30;
    /// Smallest page cache: one greatest value and its checkpoint, and the branches of a large tree.
    pub const PAGE_CACHE_SIZE_MIN: u64 = 32 << 20;
    /// Segment size of a data directory that is not told otherwise: 64 MiB.
    pub const WAL_SEGMENT_SIZE_DEFAULT: u64 = 64 << 20;
    /// Smallest segment: it must hold a group with one greatest value.
    pub const WAL_SEGMENT_SIZE_MIN: u64 = 8 << 20;

    /// A server on `data_dir` with defaults for everything else.
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            data_dir,
            listen,
            cores: Vec::new(),
            topology: Topology::Auto,
            page_cache_size: Self::PAGE_CACHE_SIZE_DEFAULT,
            wal_segment_size: Self::WAL_SEGMENT_SIZE_DEFAULT,
            value_size_max: VALUE_SIZE_MAX_DEFAULT,
            sync: SyncMethod::Auto,
            unsafe_buffered: false,
        }
    }

    /// Refuses what cannot work, naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::Config(text));
        if self.value_size_max == 0 || self.value_size_max > VALUE_SIZE_MAX {
            return refuse(format!(
                "the greatest value size is {} bytes; choose 1 to {VALUE_SIZE_MAX}",
                self.value_size_max
            ));
        }
        if self.page_cache_size < Self::PAGE_CACHE_SIZE_MIN {
            return refuse(format!(
                "the page cache has {} bytes; give it at least {}",
                self.page_cache_size,
                Self::PAGE_CACHE_SIZE_MIN
            ));
        }
        let body = base::limits::body_size_max(self.value_size_max) as u64;
        let segment_min = Self::WAL_SEGMENT_SIZE_MIN.max(body * 2);
        if self.wal_segment_size < segment_min || !self.wal_segment_size.is_multiple_of(1 << 20) {
            return refuse(format!(
                "the WAL segment size is {} bytes; choose a multiple of 1 MiB from {segment_min} \
                 on, so that a segment holds a group with one greatest value",
                self.wal_segment_size
            ));
        }
        Ok(())
    }
}
