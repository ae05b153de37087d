//! What the machine does to everybody: a lease that ends late because its members got no processor, or because
//! their disk stood still, is not the members' fault.

use std::collections::HashMap;
use std::fs;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use base::limits::BLOCK_SIZE;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::lives::MS;
use super::stage::{Stage, lock};

/// Bytes of space that are taken ahead.
const AHEAD: u64 = 4 << 20;

/// A pause and a block for the disk that take so long together are a stall of the machine.
const STALL: u64 = 100 * MS;

/// Between two looks at what members waited.
const LOOK: Duration = Duration::from_millis(20);

/// What a member may wait for a processor between two looks, as everybody does.
const USUAL: u64 = 2 * MS;

/// Waits and writes a block that must be durable, again and again, until everybody ends: what that takes is
/// the machine's, whatever the members do. As a log does it, into space that was taken ahead: such a write waits
/// for the journal of the file system, which all files share.
///
/// # Errors
/// The file cannot be written.
pub fn write_blocks(stage: &Stage, path: &Path) -> Result<(), String> {
    let flags = i32::try_from(OFlags::DSYNC.bits()).expect("flags of open fit its argument");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).custom_flags(flags);
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    while !stage.is_closed() {
        let file = options.open(path).map_err(wrong)?;
        fallocate(&file, FallocateFlags::empty(), 0, AHEAD).map_err(|error| wrong(error.into()))?;
        let mut place = 0;
        while place < AHEAD && !stage.is_closed() {
            let begin = stage.now();
            thread::sleep(Duration::from_millis(10));
            file.write_all_at(&[1; BLOCK_SIZE], place).map_err(wrong)?;
            place += BLOCK_SIZE as u64;
            let end = stage.now();
            if end - begin > STALL {
                lock(&stage.timeline).stalled(begin, end);
            }
        }
    }
    Ok(())
}

/// Looks at how long members were ready to run and did not, until everybody ends: the one that waited longest
/// counts. Members are the processes that this one has started.
pub fn watch_processors(stage: &Stage) {
    let mut known: HashMap<String, u64> = HashMap::new();
    while !stage.is_closed() {
        thread::sleep(LOOK);
        let mut seen = HashMap::new();
        let mut longest = 0;
        for process in children() {
            let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
            for entry in threads.flatten() {
                let path = entry.path().join("schedstat");
                let Some(waited) = fs::read_to_string(&path).ok().as_deref().and_then(waited)
                else {
                    continue;
                };
                let name = path.to_string_lossy().into_owned();
                // A thread that is new has waited in its own start.
                let before = known.get(&name).copied().unwrap_or(waited);
                longest = longest.max(waited.saturating_sub(before));
                seen.insert(name, waited);
            }
        }
        known = seen;
        if longest > USUAL {
            lock(&stage.timeline).waited(stage.now(), longest);
        }
    }
}

/// The processes whose parent is this one.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    let is_child = |name: &String| {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        // The name of the program stands in brackets, and may have blanks; behind it state and parent.
        let behind = stat.rsplit(')').next().unwrap_or_default();
        behind.split_whitespace().nth(1) == Some(own.as_str())
    };
    names.filter(is_process).filter(is_child).collect()
}

/// The second number: nanoseconds for which the thread waited for a processor.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_what_a_thread_waited() {
        assert_eq!(waited("209686314 298689397 573\n"), Some(298_689_397));
        assert_eq!(waited("1"), None);
    }
}
