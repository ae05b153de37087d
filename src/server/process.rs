//! What the system says of this process: time, memory, descriptors.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Where the system says it.
const STAT: &str = "/proc/self/stat";
/// When the machine was started, in seconds since 1970, in the line `btime`.
const SYSTEM_STAT: &str = "/proc/stat";
/// What networks have carried.
const NETWORK: &str = "/proc/self/net/netstat";
/// An entry for each descriptor.
const DESCRIPTORS: &str = "/proc/self/fd";

/// What is known; none where the system does not say it.
#[derive(Debug, Default)]
pub struct Process {
    /// Time that it has taken of all cores, in seconds.
    pub cpu_seconds: Option<f64>,
    /// When it was started, in seconds since 1970.
    pub started: Option<f64>,
    /// Bytes of addresses.
    pub virtual_bytes: Option<u64>,
    /// Bytes of addresses that there may be.
    pub virtual_max: Option<u64>,
    /// Bytes of memory.
    pub resident_bytes: Option<u64>,
    /// Descriptors that are open.
    pub open_files: Option<u64>,
    /// Descriptors that may be open.
    pub files_max: Option<u64>,
    /// Bytes that came over networks to this machine, or this container, and went from it.
    pub network: Option<(u64, u64)>,
}

impl Process {
    /// Asks the system.
    pub fn look() -> Self {
        let mut known = Self {
            open_files: fs::read_dir(DESCRIPTORS).ok().map(|all| all.count() as u64),
            files_max: getrlimit(Resource::Nofile).current,
            // Without a limit all of them, as other programs tell it.
            network: network(&fs::read_to_string(NETWORK).unwrap_or_default()),
            virtual_max: Some(getrlimit(Resource::As).current.unwrap_or(u64::MAX)),
            ..Self::default()
        };
        let text = fs::read_to_string(STAT).unwrap_or_default();
        // The name of the program is in parentheses and may hold anything.
        let Some((_, rest)) = text.rsplit_once(')') else { return known };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Numbered as in proc(5), where the first behind the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = |number: u64| number as f64 / clock_ticks_per_second() as f64;
        known.cpu_seconds = field(14).zip(field(15)).map(|(user, system)| ticks(user + system));
        known.started = field(22).zip(booted()).map(|(start, boot)| boot as f64 + ticks(start));
        known.virtual_bytes = field(23);
        known.resident_bytes = field(24).map(|pages| pages.saturating_mul(page_size() as u64));
        known
    }
}

/// Bytes received and sent, of a table whose lines come in pairs: names, and values below them.
fn network(text: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |name: &str| {
        let place = names.split_whitespace().position(|one| one == name)?;
        values.split_whitespace().nth(place)?.parse().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

/// When the machine was started, in seconds since 1970.
fn booted() -> Option<u64> {
    let text = fs::read_to_string(SYSTEM_STAT).ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        let known = Process::look();
        assert!(known.resident_bytes > Some(0) && known.virtual_bytes > known.resident_bytes);
        assert!(known.open_files > Some(2) && known.files_max >= known.open_files, "{known:?}");
        assert!(known.network.is_some(), "{known:?}");
        assert!(known.started > Some(1e9) && known.cpu_seconds.is_some(), "{known:?}");
    }
}
