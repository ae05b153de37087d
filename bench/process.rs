//! What a process of this machine has used: CPU time and memory, read from /proc.
//!
//! The server's process is found by a connection to it: the kernel lists both ends of a connection
//! that stays on this machine, and each process lists its sockets. No process id has to be told,
//! and a server elsewhere can never be mistaken for a local process with the same id. A process
//! that is not here, or that belongs to somebody else, is `None`, not an error.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Clock ticks per second in /proc, a constant of the kernel's interface on every architecture
/// that this project runs on.
const TICKS_PER_SECOND: u64 = 100;

/// State of an established connection in /proc/net/tcp.
const ESTABLISHED: &str = "01";

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The process at the other end of an established connection, whose address here is `local`
    /// and there `peer`, if that process is on this machine and its sockets may be looked at.
    pub fn serving(local: SocketAddr, peer: SocketAddr) -> Option<Self> {
        // What is the peer's address for us is the local one for the server, and the reverse.
        let (server, us) = (socket_text(peer), socket_text(local));
        let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .find_map(|table| inode_of(&table, &server, &us))?;
        owner_of(&format!("socket:[{inode}]")).map(|pid| Self { pid })
    }

    /// Its id.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// CPU time of all its threads so far, user and system, to 10 ms.
    pub fn cpu_time(self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        cpu_time_of(&stat)
    }

    /// Resident memory in bytes.
    pub fn resident_size(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        resident_size_of(&status)
    }
}

/// The calling thread's CPU time so far, to a microsecond or better.
pub fn thread_cpu_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// An address as /proc/net/tcp and tcp6 write it: words of the address in the machine's byte
/// order, then the port, in hexadecimal. An IPv4 address on an IPv6 socket is left out: the server
/// listens on what it was told.
fn socket_text(address: SocketAddr) -> String {
    let mut text = String::new();
    let mut push = |word: [u8; 4]| text.push_str(&format!("{:08X}", u32::from_ne_bytes(word)));
    match address.ip() {
        IpAddr::V4(ip) => push(ip.octets()),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let (words, _) = octets.as_chunks::<4>();
            words.iter().copied().for_each(&mut push);
        }
    }
    text.push_str(&format!(":{:04X}", address.port()));
    text
}

/// The inode of the socket of an established connection from `local` to `remote`.
fn inode_of(table: &str, local: &str, remote: &str) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let matches = fields.get(1) == Some(&local)
            && fields.get(2) == Some(&remote)
            && fields.get(3) == Some(&ESTABLISHED);
        if matches { fields.get(9)?.parse().ok().filter(|inode| *inode > 0) } else { None }
    })
}

/// The process that holds a descriptor of the file called `link`.
fn owner_of(link: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let descriptors = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = descriptors
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link));
        holds.then_some(pid)
    })
}

/// The name may hold spaces and parentheses: fields are counted from behind the last one.
fn cpu_time_of(stat: &str) -> Option<Duration> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * (1_000 / TICKS_PER_SECOND)))
}

fn resident_size_of(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1000 0 0";
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time_of("7 (a) S 1"), None);
        assert_eq!(cpu_time_of(""), None);
    }

    #[test]
    fn the_process_behind_a_local_connection_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to show for it.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
            let (_accepted, _) = listener.accept().expect("open");
            let local = stream.local_addr().expect("connected");
            let peer = stream.peer_addr().expect("connected");
            let process = Process::serving(local, peer).expect("it is this one");
            assert_eq!(process.pid(), std::process::id());
            assert!(process.resident_size().expect("it runs") > 0);
            assert!(process.cpu_time().is_some());
            let elsewhere: SocketAddr = "192.0.2.1:2400".parse().expect("an address");
            assert_eq!(Process::serving(local, elsewhere), None);
        }
    }
}
