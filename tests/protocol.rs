//! The native protocol against a living server, from raw sockets: whatever comes in, the answer is the
//! documented one, a well-behaved client beside it keeps getting right answers, and the server stays up
//! within its bounds of memory. Data that survives a crash is not looked at here.
//!
//! ```text
//! Raw (bytes, broken or not) ──►┐
//!                               ├─► server process ◄── /proc: memory, sockets
//! Neighbour (put, get, check) ─►┘
//! ```

#![allow(clippy::unwrap_used)]

mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX, HANDSHAKE_TIMEOUT_MS, KEY_SIZE_MAX,
    SEND_STALL_TIMEOUT_MS, TXN_OPS_MAX, VALUE_SIZE_MAX, VALUE_SIZE_MAX_DEFAULT, body_size_max,
};
use base::{Prng, RequestId};
use client::{
    Client, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, Txn,
};
use process::{DataDir, PATIENCE, SMALL, Server, scale, seed};
use wire::{
    Call, Flags, HANDSHAKE_BODY_SIZE_MAX, HEADER_SIZE, Header, HelloReply, Kind, Reply,
    RequestEncoder, SortOrder, Status, TXN_DEPTH_MAX,
};

// ---------------------------------------------------------------------------------- raw connections

/// A connection of which the test decides every byte.
struct Raw {
    stream: TcpStream,
    encoder: RequestEncoder,
    next: u64,
}

/// A frame that came in.
struct Frame {
    header: Header,
    body: Vec<u8>,
}

impl Frame {
    fn reply(&self) -> Reply<'_> {
        Reply::verify(&self.header, &self.body).expect("a server's reply is well-formed")
    }

    fn status(&self) -> Status {
        self.header.status
    }

    fn id(&self) -> u64 {
        self.header.request.get()
    }
}

impl Raw {
    /// A connection before its handshake.
    fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, encoder: RequestEncoder::new(), next: 1 }
    }

    /// A connection with its handshake done.
    fn open(address: SocketAddr) -> Self {
        let mut raw = Self::silent(address);
        raw.send(&hello(0, 1, 1));
        let frame = raw.frame().expect("Hello is answered");
        match frame.reply() {
            Reply::Hello(HelloReply { request_body_size_max, .. }) => {
                raw.encoder.agree(1, usize::try_from(request_body_size_max).unwrap());
            }
            reply => panic!("{reply:?}"),
        }
        raw
    }

    /// Sends bytes. A peer that has closed already is no failure here: the replies tell.
    fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "sending: {error}");
        }
    }

    /// The frame of a call, and its request id.
    fn encode(&mut self, call: &Call<'_>, deadline_ms: u32) -> (u64, Vec<u8>) {
        let id = self.next;
        self.next += 1;
        let mut out = Vec::new();
        self.encoder.encode(&mut out, RequestId::new(id), deadline_ms, call).unwrap();
        (id, out)
    }

    fn call(&mut self, call: &Call<'_>) -> u64 {
        let (id, frame) = self.encode(call, 0);
        self.send(&frame);
        id
    }

    /// The next frame; none when the server has closed the connection.
    fn frame(&mut self) -> Option<Frame> {
        let mut bytes = [0; HEADER_SIZE];
        if !self.fill(&mut bytes) {
            return None;
        }
        let header = Header::decode(&bytes).expect("a server's header is well-formed");
        let mut body = vec![0; usize::try_from(header.body_size).unwrap()];
        if !self.fill(&mut body) {
            return None;
        }
        Header::check(&bytes, &body).expect("a server's checksum is right");
        Some(Frame { header, body })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        match self.stream.read_exact(bytes) {
            Ok(()) => true,
            Err(error) => {
                let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(closed.contains(&error.kind()), "no reply: {error}");
                false
            }
        }
    }

    /// Sends a call and returns the status of the last frame of its reply.
    fn status_of(&mut self, call: &Call<'_>) -> Status {
        let id = self.call(call);
        loop {
            let frame = self.frame().expect("a request is answered");
            assert_eq!(frame.id(), id);
            frame.reply();
            if !frame.header.flags.has_more() {
                return frame.status();
            }
        }
    }

    /// The server has closed the connection, perhaps after frames that are not looked at.
    fn closes(mut self) {
        while self.frame().is_some() {}
    }
}

fn hello(cluster: u64, version_min: u16, version_max: u16) -> Vec<u8> {
    let hello = wire::Hello { version_min, version_max, cluster, client_name: "raw" };
    let mut out = Vec::new();
    RequestEncoder::new().encode(&mut out, RequestId::new(0), 0, &Call::Hello(hello)).unwrap();
    out
}

/// A frame with a right checksum around any body.
fn frame_of(kind: Kind, id: u64, body: &[u8]) -> Vec<u8> {
    let header = Header {
        version: 1,
        kind,
        flags: Flags::NONE,
        status: Status::Ok,
        body_size: u32::try_from(body.len()).unwrap(),
        request: RequestId::new(id),
        deadline_ms: 0,
    };
    [&header.encode(body)[..], body].concat()
}

/// A frame with one byte of its header changed and a checksum that is right again.
fn with_header_byte(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = byte;
    seal(&mut frame);
    frame
}

/// Makes the checksum of a frame right.
fn seal(frame: &mut [u8]) {
    frame[12..16].fill(0);
    let crc = base::crc32(frame).to_le_bytes();
    frame[12..16].copy_from_slice(&crc);
}

fn put_frame(key: &[u8], value: &[u8], id: u64) -> Vec<u8> {
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, body_size_max(VALUE_SIZE_MAX));
    let mut out = Vec::new();
    encoder.encode(&mut out, RequestId::new(id), 0, &Call::Put(Put::new(key, value))).unwrap();
    out
}

// ---------------------------------------------------------------------------------- the neighbour

/// A well-behaved client that writes and reads back until it is told to stop.
struct Neighbour {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Duration>,
}

impl Neighbour {
    fn beside(server: &Server) -> Self {
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
    fn goes_on(&self, rounds: u64) {
        let (begin, end) = (self.rounds.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while self.rounds.load(Ordering::Relaxed) < begin + rounds {
            assert!(!self.thread.is_finished(), "the neighbour got a wrong answer");
            assert!(Instant::now() < end, "the neighbour gets no answers");
            thread::yield_now();
        }
    }

    /// Stops it; it must have been served all the time. Returns its longest round.
    fn finish(self) -> Duration {
        self.goes_on(3);
        self.stop.store(true, Ordering::Relaxed);
        let worst = self.thread.join().expect("the neighbour got right answers all the time");
        eprintln!("neighbour: {:?} rounds, longest {worst:?}", self.rounds);
        worst
    }
}

// ---------------------------------------------------------------------------------- the process

/// Bytes of memory that the process holds.
fn memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Sockets that the process has open.
fn sockets(server: &Server) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Asks until `holds` or for as long as `patience`; each question costs the server one ping. The client
/// is made before sockets are counted: it has some, too.
fn eventually(client: &mut Client, patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
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
struct Watched(Option<Server>);

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

fn start(name: &str, flags: &[&str]) -> (DataDir, Watched) {
    let dir = DataDir::new(name);
    let flags = [SMALL, flags].concat();
    let server = Server::start(dir.path(), &flags);
    (dir, Watched(Some(server)))
}

/// Keys `big/000...` with values of `size` bytes.
fn fill(server: &Server, count: u32, size: usize) {
    let mut client = server.client();
    for number in 0..count {
        let key = format!("big/{number:05}");
        client.put(&Put::new(key.as_bytes(), &vec![7; size])).unwrap();
    }
}

fn big_range() -> Range<'static> {
    Range::between(b"big/", b"big0")
}

// ---------------------------------------------------------------------------------- broken bytes

#[test]
fn bytes_that_break_the_protocol_are_refused_by_name_and_close_only_their_connection() {
    let (_dir, server) = start("broken", &[]);
    let neighbour = Neighbour::beside(&server);
    let ping = frame_of(Kind::Ping, 9, &[]);
    let put = put_frame(b"never", b"never", 9);
    let size = |frame: &[u8], size: u32| {
        let mut frame = frame.to_vec();
        frame[8..12].copy_from_slice(&size.to_le_bytes());
        frame
    };
    let mut wrong_crc = put.clone();
    wrong_crc[12] ^= 1;
    let mut wrong_body = put.clone();
    *wrong_body.last_mut().unwrap() ^= 0x80;
    let hello_max = u32::try_from(HANDSHAKE_BODY_SIZE_MAX).unwrap();
    let body_max = u32::try_from(body_size_max(VALUE_SIZE_MAX_DEFAULT)).unwrap();
    // Whether the handshake is done before, the bytes, the status, the request id of the refusal.
    let cases: Vec<(&str, bool, Vec<u8>, Status, u64)> = vec![
        ("http", false, b"GET / HTTP/1.1\r\n\r\n".to_vec(), Status::ProtocolError, 0),
        ("two bytes", false, b"XX".to_vec(), Status::ProtocolError, 0),
        ("zeros", false, vec![0; 64], Status::ProtocolError, 0),
        ("put before hello", false, put.clone(), Status::ProtocolError, 9),
        ("ping before hello", false, ping.clone(), Status::ProtocolError, 9),
        ("large hello", false, size(&hello(0, 1, 1), hello_max + 8), Status::TooLarge, 0),
        ("huge hello", false, size(&hello(0, 1, 1), !7), Status::TooLarge, 0),
        ("hello of nothing", false, frame_of(Kind::Hello, 0, &[]), Status::ProtocolError, 0),
        ("hello of ff", false, frame_of(Kind::Hello, 0, &[255; 64]), Status::ProtocolError, 0),
        ("newer versions", false, hello(0, 2, 9), Status::VersionMismatch, 0),
        ("older versions", false, hello(0, 0, 0), Status::VersionMismatch, 0),
        ("no version", false, hello(0, 1, 0), Status::VersionMismatch, 0),
        ("other cluster", false, hello(1, 1, 1), Status::ClusterMismatch, 0),
        ("garbage", true, vec![0x5a; 100], Status::ProtocolError, 0),
        ("magic", true, with_header_byte(&ping, 0, b'q'), Status::ProtocolError, 0),
        ("version 0", true, with_header_byte(&ping, 2, 0), Status::VersionMismatch, 0),
        ("version 2", true, with_header_byte(&ping, 2, 2), Status::VersionMismatch, 0),
        ("kind", true, with_header_byte(&ping, 3, 0x60), Status::ProtocolError, 0),
        ("flag", true, with_header_byte(&ping, 4, 2), Status::ProtocolError, 0),
        ("status", true, with_header_byte(&ping, 6, 200), Status::ProtocolError, 0),
        ("reserved", true, with_header_byte(&ping, 31, 1), Status::ProtocolError, 0),
        ("crc", true, wrong_crc, Status::ProtocolError, 0),
        ("body", true, wrong_body, Status::ProtocolError, 0),
        ("too large", true, size(&put, body_max + 8), Status::TooLarge, 0),
        ("4 GiB", true, size(&put, !7), Status::TooLarge, 0),
        ("unaligned", true, size(&put, 33), Status::ProtocolError, 0),
        ("a reply", true, frame_of(Kind::PutReply, 9, &[]), Status::ProtocolError, 9),
        ("ping with a body", true, frame_of(Kind::Ping, 9, &[0; 8]), Status::ProtocolError, 9),
        ("put of nothing", true, frame_of(Kind::Put, 9, &[]), Status::ProtocolError, 9),
        ("put of ff", true, frame_of(Kind::Put, 9, &[255; 256]), Status::ProtocolError, 9),
        ("txn of ff", true, frame_of(Kind::Txn, 9, &[255; 256]), Status::ProtocolError, 9),
        ("second hello", true, hello(0, 1, 1), Status::ProtocolError, 0),
    ];
    for (name, is_open, bytes, status, id) in cases {
        eprintln!("{name}");
        let mut raw =
            if is_open { Raw::open(server.address()) } else { Raw::silent(server.address()) };
        raw.send(&bytes);
        let frame = raw.frame().unwrap_or_else(|| panic!("{name}: closed without a refusal"));
        assert_eq!(frame.header.kind, Kind::Refused, "{name}");
        assert_eq!((frame.status(), frame.id()), (status, id), "{name}");
        let Reply::Refused(refused) = frame.reply() else { panic!("{name}") };
        assert!(!refused.message.is_empty(), "{name}");
        raw.closes();
    }
    assert_eq!(server.client().get(b"never").unwrap(), None);
    neighbour.finish();
}

#[test]
fn a_request_that_means_nothing_is_refused_and_its_connection_stays() {
    let (_dir, server) = start("meaningless", &[]);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    let range = |order| Call::Range(Range { sort_order: order, ..Range::one(b"k") });
    let (_, one) = raw.encode(&range(SortOrder::Ascend), 0);
    let (_, two) = raw.encode(&range(SortOrder::Descend), 0);
    let at = (HEADER_SIZE..one.len()).find(|&at| one[at] != two[at]).unwrap();
    let mut unknown = two;
    unknown[at] = 9;
    seal(&mut unknown);
    raw.send(&unknown);
    assert_eq!(raw.frame().unwrap().status(), Status::InvalidArgument);
    // An operation with nothing set: its vtable names no field.
    let mut empty = txn_of_txns(2, 1);
    empty[24..26].fill(0);
    raw.send(&frame_of(Kind::Txn, 6, &empty));
    assert_eq!(raw.frame().unwrap().status(), Status::InvalidArgument);
    for (name, call, status) in [
        ("no key", Call::Put(Put::new(b"", b"v")), Status::InvalidArgument),
        ("no key", Call::Range(Range::one(b"")), Status::InvalidArgument),
        ("no key", Call::DeleteRange(DeleteRange::one(b"")), Status::InvalidArgument),
        (
            "value and ignore_value",
            Call::Put(Put { ignore_value: true, ..Put::new(b"k", b"v") }),
            Status::InvalidArgument,
        ),
        (
            "lease and ignore_lease",
            Call::Put(Put { ignore_lease: true, lease: 7, ..Put::new(b"k", b"v") }),
            Status::InvalidArgument,
        ),
        ("lease", Call::Put(Put { lease: 7, ..Put::new(b"k", b"v") }), Status::LeaseNotFound),
        (
            "compact the future",
            Call::Compact(Compact { revision: i64::MAX, physical: false }),
            Status::FutureRevision,
        ),
        (
            "compact below everything",
            Call::Compact(Compact { revision: i64::MIN, physical: true }),
            Status::Compacted,
        ),
    ] {
        assert_eq!(raw.status_of(&call), status, "{name}");
    }
    assert_eq!(raw.status_of(&Call::Put(Put::new(b"k", b"v"))), Status::Ok);
    neighbour.finish();
}

#[test]
fn frames_cut_off_anywhere_leave_nothing_behind() {
    let (_dir, server) = start("cut", &[]);
    let neighbour = Neighbour::beside(&server);
    let mut watch = server.client();
    let before = sockets(&server);
    let frame = put_frame(b"cut", &[1; 100], 1);
    for size in 0..frame.len() {
        let mut raw =
            if size % 2 == 0 { Raw::silent(server.address()) } else { Raw::open(server.address()) };
        raw.send(&frame[..size]);
        if size % 3 == 0 {
            raw.stream.shutdown(Shutdown::Write).unwrap();
            raw.closes();
        }
    }
    let hello = hello(0, 1, 1);
    for size in 0..hello.len() {
        Raw::silent(server.address()).send(&hello[..size]);
    }
    assert_eq!(server.client().get(b"cut").unwrap(), None);
    neighbour.finish();
    assert!(
        eventually(&mut watch, PATIENCE, || sockets(&server) <= before),
        "sockets of gone clients stay open"
    );
}

/// The bytes that a connection has left behind when it half-closes are answered or dropped, and the
/// connection goes; one that does not even read what was sent to it must go as well.
#[test]
fn half_closed_connections_go_even_when_nobody_reads_their_replies() {
    let (_dir, server) = start("half-closed", &[]);
    fill(&server, 32, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut watch = server.client();
    let before = sockets(&server);
    let memory_before = memory(&server);
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut raw = Raw::open(server.address());
        for _ in 0..32 {
            raw.call(&Call::Range(big_range()));
        }
        // The server is at work on it when the first byte of an answer is there.
        raw.stream.peek(&mut [0]).unwrap();
        raw.stream.shutdown(Shutdown::Write).unwrap();
        held.push(raw);
    }
    neighbour.goes_on(20);
    let limit = Duration::from_millis(SEND_STALL_TIMEOUT_MS) + Duration::from_secs(10);
    let gone = eventually(&mut watch, limit, || sockets(&server) <= before);
    let (now, sockets) = (memory(&server), sockets(&server));
    drop(held);
    neighbour.finish();
    assert!(gone, "{sockets} sockets, {before} before; {now} bytes, {memory_before} before");
}

/// The same for a client that broke the protocol while its replies could not be sent.
#[test]
fn a_connection_that_broke_the_protocol_goes_even_when_nobody_reads_its_replies() {
    let (_dir, server) = start("broken-unread", &[]);
    let neighbour = Neighbour::beside(&server);
    let mut watch = server.client();
    let before = sockets(&server);
    let ping = frame_of(Kind::Ping, 1, &[]);
    let mut held = Vec::new();
    // Somewhere in these sizes the last replies before the break are those that do not fit the
    // socket any more.
    for step in 1..=64 {
        let raw = Raw::open(server.address());
        let count = step * (128 << 10) / ping.len();
        let bytes = [ping.repeat(count), vec![0; 64]].concat();
        // The server stops reading when its replies are not taken: what does not go is not needed.
        raw.stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let end = Instant::now() + Duration::from_millis(300);
        while sent < bytes.len() && Instant::now() < end {
            match (&raw.stream).write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(_) => break,
            }
        }
        held.push(raw);
    }
    let limit = Duration::from_millis(SEND_STALL_TIMEOUT_MS) + Duration::from_secs(10);
    let gone = eventually(&mut watch, limit, || sockets(&server) <= before);
    let sockets = sockets(&server);
    drop(held);
    neighbour.finish();
    assert!(gone, "{sockets} sockets, {before} before");
}

#[test]
fn a_connection_without_a_handshake_is_told_and_closed_when_its_time_is_up() {
    let (_dir, server) = start("silent", &[]);
    let neighbour = Neighbour::beside(&server);
    let mut idle = Raw::open(server.address());
    let begin = Instant::now();
    let address = server.address();
    let silent = [0, 1, 31, 40].map(|size| {
        thread::spawn(move || {
            let mut raw = Raw::silent(address);
            raw.send(&hello(0, 1, 1)[..size]);
            let frame = raw.frame().expect("a refusal comes before the end");
            assert_eq!((frame.status(), frame.id()), (Status::HandshakeTimeout, 0));
            raw.closes();
        })
    });
    for thread in silent {
        thread.join().unwrap();
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(HANDSHAKE_TIMEOUT_MS), "{took:?}");
    assert!(took < Duration::from_millis(HANDSHAKE_TIMEOUT_MS) + Duration::from_secs(5));
    // One that has done its handshake may be idle for longer.
    assert_eq!(idle.status_of(&Call::Status), Status::Ok);
    neighbour.finish();
}

#[test]
fn bytes_that_come_one_by_one_make_the_same_requests() {
    let (_dir, server) = start("bytewise", &[]);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::silent(server.address());
    for byte in hello(0, 1, 1) {
        raw.send(&[byte]);
    }
    assert_eq!(raw.frame().unwrap().header.kind, Kind::HelloReply);
    for number in 0..5_u8 {
        let mut frame = put_frame(b"slow", &[number; 300], 1);
        frame.extend(frame_of(Kind::Ping, 2, &[]));
        for byte in frame {
            raw.send(&[byte]);
        }
        let mut seen = [raw.frame().unwrap(), raw.frame().unwrap()].map(|frame| frame.header.kind);
        seen.sort_unstable();
        assert_eq!(seen, [Kind::PingReply, Kind::PutReply]);
    }
    assert_eq!(server.client().get(b"slow").unwrap().unwrap().value, [4; 300]);
    neighbour.finish();
}

// ---------------------------------------------------------------------------------- readers

#[test]
fn a_client_that_never_reads_is_cut_off_and_its_memory_comes_back() {
    let (_dir, server) = start("unread", &[]);
    fill(&server, 64, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let before = memory(&server);
    let mut watch = server.client();
    let sockets_before = sockets(&server);
    let mut raw = Raw::open(server.address());
    let begin = Instant::now();
    for _ in 0..CONNECTION_REQUESTS_MAX {
        raw.call(&Call::Range(big_range()));
    }
    let mut highest = 0;
    let limit = Duration::from_millis(SEND_STALL_TIMEOUT_MS) + Duration::from_secs(10);
    let gone = eventually(&mut watch, limit, || {
        highest = highest.max(memory(&server));
        sockets(&server) <= sockets_before
    });
    let took = begin.elapsed();
    let worst = neighbour.finish();
    eprintln!("closed after {took:?}; memory {before}, highest {highest}; neighbour {worst:?}");
    assert!(gone, "a client that does not read keeps its connection");
    assert!(highest < before + (512 << 20), "memory went from {before} to {highest}");
    assert!(worst < Duration::from_secs(5), "a neighbour waited for {worst:?}");
    drop(raw);

    // What the one did must not be held against the next: a client that takes its time for a large
    // answer, but reads.
    let mut raw = Raw::open(server.address());
    let id = raw.call(&Call::Range(big_range()));
    let again = raw.call(&Call::Range(big_range()));
    neighbour_free_pause(&server, &mut raw);
    let (mut ends, mut keys) = (BTreeSet::new(), 0);
    while ends.len() < 2 {
        let frame = raw.frame().expect("a client that reads is not cut off");
        let Reply::Range(reply) = frame.reply() else { panic!("{:?}", frame.reply()) };
        keys += reply.kvs.len();
        if !frame.header.flags.has_more() {
            ends.insert(frame.id());
        }
    }
    assert_eq!((ends, keys), (BTreeSet::from([id, again]), 128));
}

/// Lets the server fill the socket of `raw`: until nothing has been added to it for some pings.
fn neighbour_free_pause(server: &Server, raw: &mut Raw) {
    let mut client = server.client();
    let mut seen = vec![0; 64 << 20];
    let (mut last, mut same) = (0, 0);
    let end = Instant::now() + Duration::from_secs(5);
    while same < 200 && Instant::now() < end {
        client.ping().unwrap();
        let there = raw.stream.peek(&mut seen).unwrap();
        same = if there == last { same + 1 } else { 0 };
        last = there;
    }
}

/// The limit is for a connection that takes no byte; one that takes some every second is slow, not gone.
#[test]
fn a_reader_that_is_slow_and_steady_is_not_cut_off() {
    let (_dir, server) = start("slow-reader", &[]);
    fill(&server, 64, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    // Many answers at once, so that more waits for the socket than is read within the limit.
    for _ in 0..24 {
        raw.call(&Call::Range(big_range()));
    }
    let stall = Duration::from_millis(SEND_STALL_TIMEOUT_MS);
    let begin = Instant::now();
    let mut total = 0_u64;
    let mut chunk = vec![0; 256 << 10];
    let mut client = server.client();
    // For half as long again as the limit, some 1 MiB a second.
    while begin.elapsed() < stall + stall / 2 {
        let count = raw.stream.read(&mut chunk).unwrap();
        assert!(count > 0, "cut off after {:?} and {total} bytes", begin.elapsed());
        total += u64::try_from(count).unwrap();
        let next = Duration::from_millis(total * 1_000 / (1 << 20));
        while begin.elapsed() < next {
            client.ping().unwrap();
        }
    }
    // It goes on as fast as it is read.
    let end = total + (64 << 20);
    while total < end {
        let count = raw.stream.read(&mut chunk).unwrap();
        assert!(count > 0, "cut off after {:?} and {total} bytes", begin.elapsed());
        total += u64::try_from(count).unwrap();
    }
    neighbour.finish();
}

#[test]
fn requests_beyond_the_credits_wait_and_none_is_lost() {
    let (_dir, server) = start("credits", &[]);
    let neighbour = Neighbour::beside(&server);
    let before = memory(&server);

    // Many small ones, written in one go by a thread of their own while the replies come.
    let count = u64::try_from(CONNECTION_REQUESTS_MAX).unwrap() * 5;
    let mut raw = Raw::open(server.address());
    let mut bytes = Vec::new();
    for number in 0..count {
        let key = format!("credit/{number:06}");
        let call = match number % 4 {
            0 => Call::Put(Put::new(key.as_bytes(), b"v")),
            1 => Call::Range(Range::one(b"credit/000000")),
            2 => Call::Ping,
            _ => Call::Status,
        };
        bytes.extend(raw.encode(&call, 0).1);
    }
    let mut writer = raw.stream.try_clone().unwrap();
    let sender = thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut seen = BTreeSet::new();
    while u64::try_from(seen.len()).unwrap() < count {
        let frame = raw.frame().expect("every request is answered");
        assert_eq!(frame.status(), Status::Ok);
        frame.reply();
        assert!(seen.insert(frame.id()), "request {} was answered twice", frame.id());
    }
    sender.join().unwrap();
    let range = Range { count_only: true, ..Range::between(b"credit/", b"credit0") };
    assert_eq!(server.client().range(&range).unwrap().count, i64::try_from(count / 4).unwrap());

    // More bytes than may be in flight.
    let value = vec![3; 1 << 20];
    let large = 3 * CONNECTION_BYTES_MAX / value.len();
    let mut writer = raw.stream.try_clone().unwrap();
    let frames: Vec<Vec<u8>> = (0..large)
        .map(|number| {
            put_frame(format!("large/{number:03}").as_bytes(), &value, raw.next + number as u64)
        })
        .collect();
    let sender = thread::spawn(move || {
        for frame in frames {
            writer.write_all(&frame).unwrap();
        }
    });
    for _ in 0..large {
        assert_eq!(raw.frame().expect("every request is answered").status(), Status::Ok);
    }
    sender.join().unwrap();
    let range = Range { count_only: true, ..Range::between(b"large/", b"large0") };
    assert_eq!(server.client().range(&range).unwrap().count, i64::try_from(large).unwrap());
    neighbour.finish();
    let after = memory(&server);
    assert!(after < before + (400 << 20), "memory went from {before} to {after}");
}

/// Proposals have a bound of their own over all connections; beyond it the refusal is typed.
#[test]
fn more_writes_than_the_disk_takes_are_acknowledged_or_refused_as_overload() {
    let (_dir, server) = start("overload", &[]);
    let neighbour_key = |client: usize, number: usize| format!("over/{client}/{number:03}");
    let address = server.address();
    let before = memory(&server);
    let threads: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let mut raw = Raw::open(address);
                let value = vec![client as u8; 1 << 20];
                let mut acknowledged = BTreeSet::new();
                let mut overloaded = 0;
                let frames: Vec<Vec<u8>> = (0..24_usize)
                    .map(|number| {
                        let key = neighbour_key(client, number);
                        put_frame(key.as_bytes(), &value, 100 + number as u64)
                    })
                    .collect();
                let mut writer = raw.stream.try_clone().unwrap();
                let sender = thread::spawn(move || {
                    for frame in frames {
                        writer.write_all(&frame).unwrap();
                    }
                });
                for _ in 0..24 {
                    let frame = raw.frame().expect("every request is answered");
                    match frame.reply() {
                        Reply::Put(_) => drop(acknowledged.insert(frame.id())),
                        Reply::Refused(refused) => {
                            assert_eq!(refused.status, Status::Overloaded);
                            assert!(refused.retry_after_ms > 0);
                            overloaded += 1;
                        }
                        reply => panic!("{reply:?}"),
                    }
                }
                sender.join().unwrap();
                (client, acknowledged, overloaded)
            })
        })
        .collect();
    let mut refused = 0;
    for thread in threads {
        let (client, acknowledged, overloaded) = thread.join().unwrap();
        refused += overloaded;
        let mut reader = server.client();
        for number in 0..24_usize {
            let found = reader.get(neighbour_key(client, number).as_bytes()).unwrap().is_some();
            assert_eq!(found, acknowledged.contains(&(100 + number as u64)), "{client} {number}");
        }
    }
    eprintln!("{refused} of 192 refused as overload");
    let after = memory(&server);
    assert!(after < before + (500 << 20), "memory went from {before} to {after}");
}

#[test]
fn thousands_of_pings_come_back_in_any_order_with_their_ids() {
    let (_dir, server) = start("pings", &[]);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    let count = 50_000_u64;
    let bytes: Vec<u8> = (1..=count).flat_map(|id| frame_of(Kind::Ping, id, &[])).collect();
    let mut writer = raw.stream.try_clone().unwrap();
    let sender = thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut seen = BTreeSet::new();
    for _ in 0..count {
        let frame = raw.frame().unwrap();
        assert_eq!(frame.header.kind, Kind::PingReply);
        assert!(seen.insert(frame.id()));
    }
    assert_eq!((seen.first(), seen.last()), (Some(&1), Some(&count)));
    sender.join().unwrap();
    neighbour.finish();
}

/// Ids in use twice are the client's fault: it may be confused, nobody else.
#[test]
fn request_ids_used_twice_hurt_nobody_else() {
    let (_dir, server) = start("twice", &[]);
    fill(&server, 16, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    for _ in 0..50 {
        raw.next = 1;
        raw.call(&Call::Range(big_range()));
        raw.next = 1;
        raw.call(&Call::Put(Put::new(b"twice", b"v")));
        raw.next = 1;
        raw.call(&Call::Cancel);
    }
    neighbour.goes_on(20);
    drop(raw);
    neighbour.finish();
}

// ---------------------------------------------------------------------------------- cancel, deadlines

#[test]
fn a_cancelled_read_is_answered_once_and_a_write_with_its_outcome() {
    let (_dir, server) = start("cancel", &[]);
    fill(&server, 48, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    // Far more than the socket holds: the read has to wait for its reader.
    let id = raw.call(&Call::Range(big_range()));
    let first = raw.frame().unwrap();
    assert!(first.header.flags.has_more());
    raw.next = id;
    raw.call(&Call::Cancel);
    let mut pieces = 1;
    let last = loop {
        let frame = raw.frame().unwrap();
        assert_eq!(frame.id(), id);
        if !frame.header.flags.has_more() {
            break frame;
        }
        pieces += 1;
    };
    assert_eq!(last.status(), Status::Cancelled, "after {pieces} pieces");
    assert!(pieces < 48, "nothing was saved by cancelling");

    // Of an id that means nothing: silence.
    raw.next = 777;
    raw.call(&Call::Cancel);
    raw.next = 778;
    assert_eq!(raw.status_of(&Call::Ping), Status::Ok);

    // Of a write: what became of it, and it is what is there.
    for number in 0..200_u64 {
        let key = format!("cancelled/{number}");
        raw.next = 1_000 + number;
        let (id, mut frame) = raw.encode(&Call::Put(Put::new(key.as_bytes(), b"v")), 0);
        frame.extend(frame_of(Kind::Cancel, id, &[]));
        raw.send(&frame);
        let reply = raw.frame().unwrap();
        assert_eq!(reply.id(), id);
        assert!([Status::Ok, Status::Cancelled].contains(&reply.status()));
        let found = server.client().get(key.as_bytes()).unwrap().is_some();
        assert_eq!(found, reply.status() == Status::Ok);
    }

    // Of reads that may or may not have run: exactly one reply each.
    let mut frames = Vec::new();
    for number in 0..300_u64 {
        raw.next = 5_000 + number;
        let (id, frame) = raw.encode(&Call::Range(Range::one(b"big/00000")), 0);
        frames.extend(frame);
        frames.extend(frame_of(Kind::Cancel, id, &[]));
    }
    raw.send(&frames);
    let mut seen = BTreeMap::new();
    for _ in 0..300 {
        let frame = raw.frame().unwrap();
        assert!(seen.insert(frame.id(), frame.status()).is_none());
    }
    raw.next = 9_000;
    assert_eq!(raw.status_of(&Call::Ping), Status::Ok);
    let cancelled = seen.values().filter(|&&status| status == Status::Cancelled).count();
    eprintln!("{cancelled} of 300 quick reads were cancelled");
    neighbour.finish();
}

/// `Cancel` takes no credit: it must get through when all of them are used.
#[test]
fn a_cancel_gets_through_when_the_credits_are_used_up() {
    let (_dir, server) = start("cancel-credits", &[]);
    fill(&server, 48, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    // Pieces wait in the socket until they are read; so none of these ends before the cancels.
    for _ in 0..CONNECTION_REQUESTS_MAX {
        raw.call(&Call::Range(Range { limit: 1, ..big_range() }));
    }
    for id in 1..=u64::try_from(CONNECTION_REQUESTS_MAX).unwrap() {
        raw.send(&frame_of(Kind::Cancel, id, &[]));
    }
    let mut statuses = BTreeMap::new();
    while statuses.len() < CONNECTION_REQUESTS_MAX {
        let frame = raw.frame().expect("a client within its credits is not cut off");
        if !frame.header.flags.has_more() {
            assert!(statuses.insert(frame.id(), frame.status()).is_none());
        }
    }
    let cancelled = statuses.values().filter(|&&status| status == Status::Cancelled).count();
    eprintln!("{cancelled} of {CONNECTION_REQUESTS_MAX} were cancelled");
    neighbour.finish();
}

#[test]
fn a_deadline_ends_a_read_that_waits_for_its_reader_and_spares_what_is_in_time() {
    let (_dir, server) = start("deadline", &[]);
    fill(&server, 48, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut raw = Raw::open(server.address());
    let (id, frame) = raw.encode(&Call::Range(big_range()), 500);
    let begin = Instant::now();
    raw.send(&frame);
    let first = raw.frame().unwrap();
    assert!(first.header.flags.has_more());
    let mut client = server.client();
    while begin.elapsed() < Duration::from_millis(700) {
        client.ping().unwrap();
    }
    let last = loop {
        let frame = raw.frame().unwrap();
        assert_eq!(frame.id(), id);
        if !frame.header.flags.has_more() {
            break frame;
        }
    };
    assert_eq!(last.status(), Status::DeadlineExceeded);
    // Millisecond deadlines under load: in time or refused, and what was refused is not there.
    let mut refused = 0;
    for number in 0..300_u32 {
        let key = format!("deadline/{number}");
        let (id, frame) = raw.encode(&Call::Put(Put::new(key.as_bytes(), b"v")), 1);
        raw.send(&frame);
        let reply = raw.frame().unwrap();
        assert_eq!(reply.id(), id);
        let done = match reply.status() {
            Status::Ok => true,
            Status::DeadlineExceeded => false,
            status => panic!("{status:?}"),
        };
        refused += u32::from(!done);
        assert_eq!(client.get(key.as_bytes()).unwrap().is_some(), done);
    }
    eprintln!("{refused} of 300 puts missed a deadline of 1 ms");
    for deadline in [u32::MAX, 60_000] {
        let (_, frame) = raw.encode(&Call::Range(Range::one(b"big/00000")), deadline);
        raw.send(&frame);
        assert_eq!(raw.frame().unwrap().status(), Status::Ok);
    }
    neighbour.finish();
}

// ---------------------------------------------------------------------------------- limits

/// The body of transactions inside each other: `depth` levels, each of which names the next one
/// `width` times, with every table written once.
///
/// ```text
/// root | vtables | txn, list of offsets to one op, op | txn, list, op | ... | txn with an empty list
/// ```
fn txn_of_txns(depth: usize, width: u32) -> Vec<u8> {
    fn word(body: &mut Vec<u8>, word: usize) {
        body.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    let mut body = Vec::new();
    word(&mut body, 28);
    let (txn_vtable, op_vtable) = (4, 14);
    for half in [10_u16, 8, 0, 4, 0, 12, 8, 0, 0, 0, 4, 0] {
        body.extend(half.to_le_bytes());
    }
    for level in 1..=depth {
        let list = if level == depth { 0 } else { width };
        let at = body.len();
        word(&mut body, at - txn_vtable);
        word(&mut body, 4);
        word(&mut body, list as usize);
        let op = body.len() + 4 * list as usize;
        for _ in 0..list {
            let here = body.len();
            word(&mut body, op - here);
        }
        if list > 0 {
            word(&mut body, op - op_vtable);
            word(&mut body, 4);
        }
    }
    body.resize(body.len().next_multiple_of(8), 0);
    body
}

#[test]
fn transactions_that_multiply_or_nest_too_deeply_are_refused_at_once() {
    let (_dir, server) = start("bombs", &[]);
    let neighbour = Neighbour::beside(&server);
    let before = memory(&server);
    let mut raw = Raw::open(server.address());
    for (depth, width, status) in [
        (1, 1, Status::Ok),
        (2, 1, Status::Ok),
        (TXN_DEPTH_MAX + 1, 1, Status::TooManyOps),
        (20_000, 1, Status::TooManyOps),
        (20, 8, Status::TooManyOps),
        (60, 100, Status::TooManyOps),
        (127, 128, Status::TooManyOps),
        (2, 4_000, Status::TooManyOps),
        (2, 128, Status::Ok),
        (2, 129, Status::TooManyOps),
    ] {
        let begin = Instant::now();
        raw.send(&frame_of(Kind::Txn, 5, &txn_of_txns(depth, width)));
        let frame = raw.frame().unwrap_or_else(|| panic!("{depth} x {width}: closed"));
        assert_eq!(frame.status(), status, "{depth} x {width}: {:?}", frame.reply());
        assert!(begin.elapsed() < Duration::from_secs(10), "{depth} x {width}");
    }
    // Nested as deep as the budget lets it: each level costs one operation of its parent's budget.
    let mut depth_max = 0;
    for depth in (1..=TXN_DEPTH_MAX).rev() {
        raw.send(&frame_of(Kind::Txn, 5, &txn_of_txns(depth, 1)));
        if raw.frame().unwrap().status() == Status::Ok {
            depth_max = depth;
            break;
        }
    }
    assert!(depth_max >= TXN_OPS_MAX - 1, "only {depth_max} levels");
    neighbour.finish();
    let after = memory(&server);
    assert!(after < before + (100 << 20), "memory went from {before} to {after}");
}

#[test]
fn operations_to_the_limit_are_done_and_one_more_is_refused() {
    let (_dir, server) = start("ops", &[]);
    let mut client = server.client();
    let keys: Vec<Vec<u8>> = (0..=TXN_OPS_MAX).map(|n| format!("op/{n:03}").into_bytes()).collect();
    let puts = |count: usize| -> Vec<Op<'_>> {
        keys[..count].iter().map(|key| Op::Put(Put::new(key, b"v"))).collect()
    };
    let compares = |count: usize| -> Vec<Compare<'_>> {
        let target = CompareTarget::Version;
        keys[..count]
            .iter()
            .map(|key| Compare::number(key, target, CompareResult::Equal, 0))
            .collect()
    };
    let max = TXN_OPS_MAX;
    let full = Txn { compares: compares(max), success: puts(max), failure: puts(max) };
    let result = client.txn(&full).unwrap();
    assert!(result.succeeded);
    assert_eq!(result.responses.len(), max);
    for txn in [
        Txn { compares: compares(max + 1), ..Txn::new() },
        Txn { success: puts(max + 1), ..Txn::new() },
        Txn { failure: puts(max + 1), ..Txn::new() },
        // What the parent left: none.
        Txn {
            success: vec![Op::Txn(Box::new(Txn::new().then(Op::Put(Put::new(b"x", b"")))))],
            compares: compares(max),
            ..Txn::new()
        },
    ] {
        let error = client.txn(&txn).unwrap_err();
        assert_eq!(error.refusal().unwrap().status, Status::TooManyOps);
    }
    let range = Range { count_only: true, ..Range::between(b"op/", b"op0") };
    assert_eq!(client.range(&range).unwrap().count, i64::try_from(max).unwrap());
}

#[test]
fn keys_and_values_at_the_limit_are_taken_and_one_byte_more_is_refused() {
    for value_max in [VALUE_SIZE_MAX_DEFAULT, VALUE_SIZE_MAX] {
        let flag = value_max.to_string();
        let dir = DataDir::new("sizes");
        let server =
            Server::start(dir.path(), &["--page-cache", "32MiB", "--value-size-max", &flag]);
        let neighbour = Neighbour::beside(&server);
        let mut client = server.client();
        let limits = client.server().unwrap().clone();
        assert_eq!(usize::try_from(limits.value_size_max).unwrap(), value_max);
        assert_eq!(usize::try_from(limits.key_size_max).unwrap(), KEY_SIZE_MAX);
        let long = vec![b'k'; KEY_SIZE_MAX + 1];
        let large: Vec<u8> = (0..=value_max).map(|at| (at % 251) as u8).collect();
        let (key, value) = (&long[..KEY_SIZE_MAX], &large[..value_max]);
        client.put(&Put::new(key, value)).unwrap();
        let read = client.get(key).unwrap().unwrap();
        assert!(read.value == value, "a greatest value comes back as it was");
        let too_large = |error: client::Error| {
            let refusal = error.refusal().unwrap_or_else(|| panic!("{error}")).clone();
            assert_eq!(refusal.status, Status::TooLarge, "{refusal}");
            assert!(!refusal.message.is_empty());
        };
        too_large(client.put(&Put::new(&long, b"v")).unwrap_err());
        too_large(client.put(&Put::new(b"k", &large)).unwrap_err());
        let nested = Txn::new().then(Op::Put(Put::new(&long, b"v")));
        too_large(client.txn(&Txn::new().otherwise(Op::Txn(Box::new(nested)))).unwrap_err());
        too_large(client.txn(&Txn::new().then(Op::Put(Put::new(b"k", &large)))).unwrap_err());
        assert_eq!(client.get(b"k").unwrap(), None);
        // A frame larger than any request may be closes the connection before it is buffered.
        let mut raw = Raw::open(server.address());
        let mut frame = put_frame(b"k", b"v", 3);
        let body = u32::try_from(body_size_max(value_max)).unwrap() + 8;
        frame[8..12].copy_from_slice(&body.to_le_bytes());
        raw.send(&frame);
        assert_eq!(raw.frame().unwrap().status(), Status::TooLarge);
        raw.closes();
        // Several greatest values as one answer, and as the past of a put and of a delete.
        for number in 0..3_u8 {
            client.put(&Put::new(&[b'v', number], value)).unwrap();
        }
        let range = client.range(&Range::between(b"v", b"w")).unwrap();
        assert_eq!((range.count, range.kvs.len()), (3, 3));
        assert!(range.kvs.iter().all(|pair| pair.value == value));
        let put = client.put(&Put { prev_kv: true, ..Put::new(&[b'v', 0], b"small") }).unwrap();
        assert!(put.previous.unwrap().value == value);
        let delete = DeleteRange { prev_kv: true, ..DeleteRange::one(&[b'v', 1]) };
        assert!(client.delete(&delete).unwrap().previous[0].value == value);
        neighbour.finish();
    }
}

/// An answer in one frame has a bound; a write whose answer outgrows it has been done, and says so.
#[test]
fn an_answer_that_outgrows_its_frame_says_that_the_write_was_done() {
    let (_dir, server) = start("outgrown", &[]);
    fill(&server, 40, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    let mut client = server.client();
    let delete = DeleteRange { prev_kv: true, ..DeleteRange::between(b"big/", b"big0") };
    let error = client.delete(&delete).unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.status, refusal.effect), (Status::TooLarge, client::Effect::Applied));
    let count = Range { count_only: true, ..big_range() };
    assert_eq!(client.range(&count).unwrap().count, 0);
    // A transaction that only reads has no effect to speak of.
    fill(&server, 40, 1 << 20);
    let read = Txn::new().then(Op::Range(big_range()));
    let error = client.txn(&read).unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.status, refusal.effect), (Status::TooLarge, client::Effect::None));
    neighbour.finish();
}

/// A server with fewer descriptors than the system gives; killed when dropped.
struct Bounded {
    child: Child,
    address: SocketAddr,
}

impl Bounded {
    fn start(dir: &DataDir, descriptors: u32) -> Self {
        let script = format!("ulimit -n {descriptors} && exec \"$0\" server \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, process::BINARY, "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir.path()).args(SMALL).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(' ').find_map(|field| field.strip_prefix("native="));
        let address = address.unwrap_or_else(|| panic!("not ready: {line}")).parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Descriptors run out before connections do on many machines: those beyond are turned away, and the
/// files of the server get theirs.
#[test]
fn connections_beyond_the_limit_are_turned_away_and_the_others_served() {
    let dir = DataDir::new("descriptors");
    let server = Bounded::start(&dir, 320);
    let mut first = process::connect(server.address).unwrap();
    let hello = hello(0, 1, 1);
    let mut held: Vec<Raw> = (0..200)
        .map(|_| {
            let mut raw = Raw::silent(server.address);
            raw.send(&hello);
            raw
        })
        .collect();
    let mut taken = Vec::new();
    let mut turned_away = 0;
    for mut raw in held.drain(..) {
        match raw.frame() {
            Some(frame) => {
                assert_eq!(frame.header.kind, Kind::HelloReply);
                raw.encoder.agree(1, body_size_max(VALUE_SIZE_MAX_DEFAULT));
                taken.push(raw);
            }
            None => turned_away += 1,
        }
    }
    eprintln!("{} taken, {turned_away} turned away", taken.len());
    assert!(!taken.is_empty() && turned_away > 0);
    // Enough writes for new segments of the log.
    let value = vec![1; 1 << 20];
    for number in 0..40_u32 {
        let key = format!("segment/{number:03}");
        first.put(&Put::new(key.as_bytes(), &value)).unwrap();
        let raw = &mut taken[number as usize % 8];
        let range = Range { count_only: true, ..Range::between(b"segment/", b"segment0") };
        assert_eq!(raw.status_of(&Call::Range(range)), Status::Ok);
    }
    // With the crowd gone there is room again.
    drop(taken);
    let end = Instant::now() + PATIENCE;
    while let Err(error) = process::connect(server.address).and_then(|mut client| client.ping()) {
        assert!(Instant::now() < end, "{error}");
    }
}

// ---------------------------------------------------------------------------------- mutations

fn random_bytes(prng: &mut Prng, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(prng.below(size + 1)).unwrap()];
    prng.fill(&mut bytes);
    bytes
}

fn random_txn<'a>(prng: &mut Prng, keys: &'a [Vec<u8>], depth: u32) -> Txn<'a> {
    let key =
        |prng: &mut Prng| keys[usize::try_from(prng.below(keys.len() as u64)).unwrap()].as_slice();
    let mut txn = Txn::new();
    for _ in 0..prng.below(3) {
        let (target, result) = (CompareTarget::Version, CompareResult::Greater);
        txn = txn.when(Compare::number(key(prng), target, result, 0));
    }
    for _ in 0..prng.below(4) {
        let op = match prng.below(4) {
            0 => Op::Put(Put { prev_kv: true, ..Put::new(key(prng), b"mutated") }),
            1 => Op::Range(Range::between(key(prng), key(prng))),
            2 => Op::DeleteRange(DeleteRange::between(key(prng), key(prng))),
            _ if depth > 0 => Op::Txn(Box::new(random_txn(prng, keys, depth - 1))),
            _ => Op::Range(Range::one(key(prng))),
        };
        txn = if prng.one_in(3) { txn.otherwise(op) } else { txn.then(op) };
    }
    txn
}

#[test]
fn mutated_requests_never_stop_the_server() {
    let seed = seed();
    let mut prng = Prng::new(seed);
    let (dir, server) = start("mutations", &[]);
    let neighbour = Neighbour::beside(&server);
    let before = memory(&server);
    // The neighbour's key is out of reach of what stays well-formed: deletes of ranges may take it.
    let mut keys: Vec<Vec<u8>> = (0..20).map(|_| random_bytes(&mut prng, 40)).collect();
    for key in &mut keys {
        key.insert(0, b'a' + u8::try_from(prng.below(5)).unwrap());
    }
    let mut raw = Raw::open(server.address());
    let (mut answered, mut refused, mut closed) = (0_u32, 0_u32, 0_u32);
    for round in 0..4_000 * scale() {
        let index = |prng: &mut Prng| usize::try_from(prng.below(20)).unwrap();
        let (key, end) = (keys[index(&mut prng)].clone(), keys[index(&mut prng)].clone());
        let value = random_bytes(&mut prng, 200);
        let txn = random_txn(&mut prng, &keys, 2);
        let call = match prng.below(6) {
            0 => Call::Put(Put { prev_kv: prng.one_in(2), ..Put::new(&key, &value) }),
            1 => Call::Range(Range::between(&key, &end)),
            2 => Call::DeleteRange(DeleteRange::between(&key, &end)),
            3 => Call::Compact(Compact {
                revision: i64::try_from(prng.below(4)).unwrap(),
                physical: true,
            }),
            4 => Call::Status,
            _ => Call::Txn(&txn),
        };
        let (_, mut frame) = raw.encode(&call, 0);
        for _ in 0..=prng.below(3) {
            // The magic stays, else nothing behind it is looked at; mostly the body is changed.
            let from = if prng.one_in(4) { 2 } else { HEADER_SIZE.min(frame.len() - 1) };
            let at = from + usize::try_from(prng.below((frame.len() - from) as u64)).unwrap();
            match prng.below(4) {
                0 => frame[at] ^= 1 << prng.below(8),
                1 => frame[at] = u8::try_from(prng.below(256)).unwrap(),
                2 => frame[at] = [0, 1, 127, 128, 255][usize::try_from(prng.below(5)).unwrap()],
                _ if prng.one_in(4) => frame.truncate(at.max(HEADER_SIZE)),
                _ => {
                    let word = [0_u32, 4, 0x7fff_ffff, 0xffff_fffc]
                        [usize::try_from(prng.below(4)).unwrap()];
                    if let Some(place) = frame[at..].first_chunk_mut::<4>() {
                        *place = word.to_le_bytes();
                    }
                }
            }
        }
        // Deletes to the end of all keys would take the neighbour's, rightly.
        if let Ok(header) = Header::decode(frame.first_chunk().unwrap())
            && would_touch_the_neighbour(header.kind, &frame[HEADER_SIZE..])
        {
            continue;
        }
        if !prng.one_in(10) {
            let size = u32::try_from(frame.len() - HEADER_SIZE).unwrap();
            if !prng.one_in(10) {
                frame[8..12].copy_from_slice(&(size & !7).to_le_bytes());
                let cut = HEADER_SIZE + usize::try_from(size & !7).unwrap();
                frame.truncate(cut);
            }
            seal(&mut frame);
        }
        raw.send(&frame);
        // Half a frame is answered by the end of the connection, any other by a frame or the end.
        let (ping, marker) = (frame_of(Kind::Ping, u64::MAX, &[]), u64::MAX);
        raw.send(&ping);
        raw.stream.shutdown(Shutdown::Write).ok();
        let mut ended = false;
        while let Some(frame) = raw.frame() {
            frame.reply();
            if frame.id() == marker && frame.header.kind == Kind::PingReply {
                answered += 1;
                ended = true;
                break;
            }
            refused += u32::from(frame.header.kind == Kind::Refused);
        }
        closed += u32::from(!ended);
        raw = Raw::open(server.address());
        if round % 500 == 0 {
            neighbour.goes_on(2);
        }
    }
    eprintln!("{answered} answered, {refused} refused, {closed} closed");
    neighbour.finish();
    let after = memory(&server);
    assert!(after < before + (200 << 20), "memory went from {before} to {after}");
    // And what got into the log can be applied again.
    let revision = server.client().status().unwrap().revision;
    let mut server = server;
    drop(server.0.take().map(Server::kill));
    let server = Server::start(dir.path(), SMALL);
    assert!(server.client().status().unwrap().revision >= revision);
    drop(server.kill());
    process::check_clean(dir.path());
}

/// Whether a well-formed request changes `neighbour`.
fn would_touch_the_neighbour(kind: Kind, body: &[u8]) -> bool {
    fn within(key: &[u8], end: &[u8]) -> bool {
        let name = b"neighbour";
        match end {
            [] => key == name,
            [0] => key <= name.as_slice(),
            end => key <= name.as_slice() && name.as_slice() < end,
        }
    }
    fn changes(txn: &Txn<'_>) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match op {
            Op::Put(put) => within(put.key, b""),
            Op::DeleteRange(delete) => within(delete.key, delete.range_end),
            Op::Range(_) => false,
            Op::Txn(inner) => changes(inner),
        })
    }
    match wire::Request::verify(kind, body, &wire::VerifyLimits::REQUEST) {
        Ok(wire::Request::Put(put)) => within(put.key, b""),
        Ok(wire::Request::DeleteRange(delete)) => within(delete.key, delete.range_end),
        Ok(wire::Request::Txn(view)) => changes(&Txn::from(view)),
        _ => false,
    }
}
