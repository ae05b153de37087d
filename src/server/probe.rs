//! What the machine can do, asked before anything is begun, so that what it cannot do is refused in
//! words.

use std::io;

use base::limits::CONNECTIONS_MAX;
use glommio::LocalExecutorBuilder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::config::{Config, SyncMethod};
use crate::data_dir::DataDir;
use crate::{Error, direct};

/// Locked memory that the rings of an executor need, in bytes.
const MEMLOCK_MIN: u64 = 512 << 10;

/// Descriptors kept for segments, rings and the rest of the server's own files; where few are to be
/// had, half of them.
const FILES_RESERVED: usize = 256;

/// Durable writes per method in the probe.
const SYNC_ROUNDS: usize = 48;

/// `f_type` of file systems that take the flag O_DIRECT and then use memory all the same.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Refuses a file system without O_DIRECT, unless told to go on; returns whether to go without.
pub fn direct_io(data_dir: &DataDir, unsafe_buffered: bool) -> Result<bool, Error> {
    let path = data_dir.probe();
    let pretends =
        rustix::fs::statfs(data_dir.path()).is_ok_and(|statfs| statfs.f_type == TMPFS_MAGIC);
    let result = if pretends {
        Err(io::Error::other("it is a file system in memory"))
    } else {
        direct::probe_write(&path)
    };
    match result {
        Ok(()) => Ok(false),
        Err(source) if source.kind() == io::ErrorKind::StorageFull => Ok(false),
        Err(_) if unsafe_buffered => {
            crate::log::warn(
                "writing through the page cache (--unsafe-buffered): a lost write \
                 may go unnoticed; for development only",
            );
            Ok(true)
        }
        Err(source) => Err(Error::NoDirectIo { path: data_dir.path().to_path_buf(), source }),
    }
}

/// Refuses a system without io_uring or with too little locked memory.
pub fn io_uring() -> Result<(), Error> {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if disabled.is_ok_and(|text| text.trim() == "2") {
        return Err(Error::NoIoUring("it is switched off (io_uring_disabled is 2)".into()));
    }
    if let Some(limit) = getrlimit(Resource::Memlock).current
        && limit < MEMLOCK_MIN
    {
        return Err(Error::MemlockTooLow { limit, needed: MEMLOCK_MIN });
    }
    match LocalExecutorBuilder::default().name("probe").make() {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::NoIoUring(error.to_string())),
    }
}

/// Whether groups are written with O_DSYNC instead of being followed by fdatasync.
pub fn sync_method(data_dir: &DataDir, method: SyncMethod, buffered: bool) -> Result<bool, Error> {
    match method {
        SyncMethod::Fdatasync => Ok(false),
        SyncMethod::Dsync => Ok(true),
        SyncMethod::Auto if buffered => Ok(false),
        SyncMethod::Auto => {
            let probed = direct::probe_sync(&data_dir.path().join("sync-probe"), SYNC_ROUNDS);
            let Ok((fdatasync, dsync)) = probed else { return Ok(false) };
            // As system calls the two cost about the same. On the rings a sync after the write is one
            // more wake-up, of a kernel worker besides: a lone client waits some 100 us longer for
            // it (tuning/README.md has figures), and under load the two are equal.
            Ok(dsync * 2 < fdatasync * 3)
        }
    }
}

/// Raises the limit of open files as far as the system lets it; returns how many connections fit. A
/// connection has one descriptor, and the files of the server keep a share.
pub fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    connections_of(files)
}

fn connections_of(files: usize) -> usize {
    (files - FILES_RESERVED.min(files / 2)).clamp(1, CONNECTIONS_MAX)
}

/// The cores to run on, and whether executors are bound to them.
pub fn cores(config: &Config) -> Result<(Vec<usize>, bool), Error> {
    let allowed = sched_getaffinity(None)
        .map_err(|error| Error::Executor(format!("the cores cannot be listed: {error}")))?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    if config.cores.is_empty() {
        let bind = allowed.len() >= 3;
        return Ok((allowed, bind));
    }
    match config.cores.iter().find(|core| !allowed.contains(core)) {
        Some(core) => Err(Error::Config(format!(
            "core {core} is not one that this process may use ({allowed:?}); choose others with \
             --cores"
        ))),
        None => Ok((config.cores.clone(), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_one_descriptor_and_few_descriptors_are_shared_evenly() {
        let given = [0, 3, 200, 1_024, 4_096, usize::MAX];
        assert_eq!(given.map(connections_of), [1, 2, 100, 768, 3_840, CONNECTIONS_MAX]);
    }
}
