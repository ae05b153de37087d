//! Streams of gRPC as a client has them that speaks HTTP/2 by hand: how they end when the server stops.
//!
//! What they say is tested with etcd's own clients (`tests/clients`).

#![allow(clippy::unwrap_used)]

mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use process::{DataDir, Server, Signal};

// Kinds of frames and flags of HTTP/2 (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A server without streams that are held back has ended by then.
const SOON: Duration = Duration::from_millis(1_000);

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A connection of HTTP/2.
struct Http2 {
    stream: TcpStream,
    next: u32,
}

impl Http2 {
    /// Connects; each stream of it takes `window` bytes.
    fn connect(address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut http = Self { stream, next: 1 };
        http.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE
        http.send(SETTINGS, 0, 0, &[&[0, 4], &window.to_be_bytes()[..]].concat());
        http
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = size[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Begins a call, with a message or without one to follow; its stream.
    fn call(&mut self, path: &str, message: Option<&[u8]>) -> u32 {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            // Literal and not indexed (RFC 7541, 6.2.2), sizes below 127.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let stream = self.next;
        self.next += 2;
        self.send(HEADERS, END_HEADERS, stream, &block);
        if let Some(message) = message {
            let mut data = vec![0];
            data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            data.extend_from_slice(message);
            self.send(DATA, 0, stream, &data);
        }
        stream
    }

    /// The next frame; none: the server has closed the connection.
    fn frame(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{error}"),
        }
        let [a, b, c, kind, flags, stream @ ..] = header;
        let size = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        self.stream.read_exact(&mut vec![0; size]).unwrap();
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) })
    }
}

#[test]
fn streams_of_every_kind_are_ended_properly_and_at_once_when_the_server_stops() {
    let folder = DataDir::new("grpc-stop");
    let server = Server::start(folder.path(), &[]);
    let mut http = Http2::connect(server.address(), 1 << 16);
    let mut open = vec![
        http.call("/grpc.health.v1.Health/Watch", Some(&[])),
        http.call("/v3electionpb.Election/Observe", Some(&[0x0a, 1, b'x'])),
        http.call("/etcdserverpb.Watch/Watch", Some(&[0x0a, 3, 0x0a, 1, b'k'])),
        http.call("/etcdserverpb.Lease/LeaseKeepAlive", Some(&[0x08, 7])),
        // Those that have said nothing yet.
        http.call("/grpc.health.v1.Health/Watch", None),
        http.call("/etcdserverpb.KV/RangeStream", None),
        http.call("/etcdserverpb.Maintenance/Snapshot", None),
        http.call("/etcdserverpb.KV/Put", None),
    ];
    let mut told = [open[0], open[2], open[3]].to_vec();
    while !told.is_empty() {
        let frame = http.frame().expect("the server serves");
        told.retain(|stream| frame.kind != DATA || frame.stream != *stream);
    }
    let stop = std::thread::spawn(move || server.stop(Signal::TERM));
    let mut has_said_so = false;
    while let Some(frame) = http.frame() {
        // Behind its end: what the client might still ask is not read any more.
        let is_cut = frame.kind == RST_STREAM && open.contains(&frame.stream);
        assert!(!is_cut, "{frame:?}");
        has_said_so |= frame.kind == GOAWAY;
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            open.retain(|stream| *stream != frame.stream);
        }
    }
    assert!(open.is_empty() && has_said_so, "cut off: {open:?}");
    let (ended, took) = stop.join().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(took < SOON, "{took:?}");
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_up_the_end_of_the_server() {
    let folder = DataDir::new("grpc-stop-deaf");
    let server = Server::start(folder.path(), &[]);
    server.client().put(&client::Put::new(b"k", b"v")).unwrap();
    let mut http = Http2::connect(server.address(), 0);
    let open = [
        http.call("/etcdserverpb.KV/RangeStream", Some(&[0x0a, 1, b'k'])),
        http.call("/grpc.health.v1.Health/Watch", Some(&[])),
    ];
    let mut begun = 0;
    while begun < open.len() {
        begun += usize::from(http.frame().expect("the server serves").kind == HEADERS);
    }
    let (ended, took) = server.stop(Signal::TERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(took < SOON, "{took:?}");
}

/// Each stream of a client may stay unread, but not all of the memory of the member: the client that has the most of
/// it goes, and one beside it that has a little stays.
#[test]
fn a_client_that_leaves_too_much_unread_is_cut_off_and_nobody_else() {
    const ANSWERS: usize = 270;
    let folder = DataDir::new("grpc-unread");
    let server = Server::start(folder.path(), &["--cores", "1"]);
    server.client().put(&client::Put::new(b"k", &vec![b'v'; 1 << 20])).unwrap();
    let get = [0x0a, 1, b'k'];
    let mut modest = Http2::connect(server.address(), 0);
    let first = modest.call("/etcdserverpb.KV/Range", Some(&get));
    let mut greedy = Http2::connect(server.address(), 0);
    for _ in 0..ANSWERS {
        greedy.call("/etcdserverpb.KV/Range", Some(&get));
    }
    while greedy.frame().is_some() {}

    let second = modest.call("/etcdserverpb.KV/Range", Some(&get));
    let mut waiting = vec![first, second];
    while !waiting.is_empty() {
        let frame = modest.frame().expect("it is served");
        waiting.retain(|stream| frame.kind != HEADERS || frame.stream != *stream);
    }
    let limits = server.client().limits().unwrap();
    let unsent = limits.iter().find(|limit| limit.name == "http-unsent").unwrap();
    assert_eq!(unsent.hits, 1);
    assert!(unsent.highest > unsent.limit && unsent.used < 4 << 20, "{unsent:?}");
}
