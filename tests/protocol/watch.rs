//! What a test holds against the server while it abuses it: a well-behaved client beside the abuse, the
//! memory and the sockets of the process, its last words. It abuses nothing itself.
//!
//! ```text
//! Neighbour: put, get, range, compare, again      Watched: the server, and what it said if the test fails
//! ```

use std::fs;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use client::{Client, Put, Range};

use crate::process::{DataDir, PATIENCE, SMALL, Server};

/// A well-behaved client that writes and reads back until it is told to stop.
pub struct Neighbour {
    pub stop: Arc<AtomicBool>,
    pub rounds: Arc<AtomicU64>,
    pub thread: JoinHandle<Duration>,
}

impl Neighbour {
    pub fn beside(server: &Server) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut client = server.client();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            let mut worst = Duration::ZERO;
            let mut version = 0_i64;
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                version += 1;
                let value = version.to_le_bytes();
                let revision = client.put(&Put::new(b"neighbour", &value)).unwrap().revision;
                let read = client.get(b"neighbour").unwrap().expect("it was just put");
                assert_eq!((read.value.as_slice(), read.version), (&value[..], version));
                assert_eq!(read.mod_revision, revision);
                let range = Range { serializable: true, ..Range::one(b"neighbour") };
                assert_eq!(client.range(&range).unwrap().count, 1);
                worst = worst.max(begin.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
            worst
        });
        Self { stop, rounds, thread }
    }

    /// Waits until it has done so many further rounds.
    pub fn goes_on(&self, rounds: u64) {
        let (begin, end) = (self.rounds.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while self.rounds.load(Ordering::Relaxed) < begin + rounds {
            assert!(!self.thread.is_finished(), "the neighbour got a wrong answer");
            assert!(Instant::now() < end, "the neighbour gets no answers");
            thread::yield_now();
        }
    }

    /// Stops it; it must have been served all the time. Returns its longest round.
    pub fn finish(self) -> Duration {
        self.goes_on(3);
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.thread.join().expect("the neighbour got right answers all the time");
        eprintln!("neighbour: {:?} rounds, longest {worst:?}", self.rounds);
        worst
    }
}

/// Bytes of memory that the process holds.
pub fn memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Sockets that the process has open.
pub fn sockets(server: &Server) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Asks until `holds` or for as long as `patience`; each question costs the server one ping. The client
/// is made before sockets are counted: it has some, too.
pub fn eventually(
    client: &mut Client,
    patience: Duration,
    mut holds: impl FnMut() -> bool,
) -> bool {
    let end = Instant::now() + patience;
    loop {
        client.ping().expect("the server lives");
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
    }
}

/// A server whose last words are shown when its test fails.
pub struct Watched(pub Option<Server>);

impl Deref for Watched {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.0.as_ref().expect("taken only at its end")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(server) = self.0.take()
        {
            let ended = server.kill();
            eprintln!(
                "the server ended with {:?}; standard error:\n{}",
                ended.status, ended.stderr
            );
        }
    }
}

/// A server on a folder of its own, a small one if no flags are given.
pub fn start(name: &str, flags: &[&str]) -> (DataDir, Watched) {
    let dir = DataDir::new(name);
    let server = Server::start(dir.path(), if flags.is_empty() { SMALL } else { flags });
    (dir, Watched(Some(server)))
}

/// Keys `big/000...` with values of `size` bytes.
pub fn fill(server: &Server, count: u32, size: usize) {
    let mut client = server.client();
    for number in 0..count {
        let key = format!("big/{number:05}");
        client.put(&Put::new(key.as_bytes(), &vec![7; size])).unwrap();
    }
}

pub fn big_range() -> Range<'static> {
    Range::between(b"big/", b"big0")
}
