//! Connections of which a test decides every byte, and frames made by hand. Nothing here judges what the
//! server does with them.
//!
//! ```text
//! | header, 32 bytes: magic, version, kind, .., body size, crc32, id, .. | body |   see wire
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use base::RequestId;
use base::limits::{VALUE_SIZE_MAX, body_size_max};
use client::Put;
use wire::{Call, Flags, HEADER_SIZE, Header, HelloReply, Kind, Reply, RequestEncoder, Status};

use crate::process::PATIENCE;

/// A connection of which the test decides every byte.
pub struct Raw {
    pub stream: TcpStream,
    pub encoder: RequestEncoder,
    pub next: u64,
}

/// A frame that came in.
pub struct Frame {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn reply(&self) -> Reply<'_> {
        Reply::verify(&self.header, &self.body).expect("a server's reply is well-formed")
    }

    pub fn status(&self) -> Status {
        self.header.status
    }

    pub fn id(&self) -> u64 {
        self.header.request.get()
    }
}

impl Raw {
    /// A connection before its handshake.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, encoder: RequestEncoder::new(), next: 1 }
    }

    /// A connection with its handshake done.
    pub fn open(address: SocketAddr) -> Self {
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
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "sending: {error}");
        }
    }

    /// The frame of a call, and its request id.
    pub fn encode(&mut self, call: &Call<'_>, deadline_ms: u32) -> (u64, Vec<u8>) {
        let id = self.next;
        self.next += 1;
        let mut out = Vec::new();
        self.encoder.encode(&mut out, RequestId::new(id), deadline_ms, call).unwrap();
        (id, out)
    }

    pub fn call(&mut self, call: &Call<'_>) -> u64 {
        let (id, frame) = self.encode(call, 0);
        self.send(&frame);
        id
    }

    /// The next frame; none when the server has closed the connection.
    pub fn frame(&mut self) -> Option<Frame> {
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

    pub fn fill(&mut self, bytes: &mut [u8]) -> bool {
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
    pub fn status_of(&mut self, call: &Call<'_>) -> Status {
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
    pub fn closes(mut self) {
        while self.frame().is_some() {}
    }
}

pub fn hello(cluster: u64, version_min: u16, version_max: u16) -> Vec<u8> {
    let hello = wire::Hello { version_min, version_max, cluster, client_name: "raw" };
    let mut out = Vec::new();
    RequestEncoder::new().encode(&mut out, RequestId::new(0), 0, &Call::Hello(hello)).unwrap();
    out
}

/// A frame with a right checksum around any body.
pub fn frame_of(kind: Kind, id: u64, body: &[u8]) -> Vec<u8> {
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
pub fn with_header_byte(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = byte;
    seal(&mut frame);
    frame
}

/// Makes the checksum of a frame right.
pub fn seal(frame: &mut [u8]) {
    frame[12..16].fill(0);
    let crc = base::crc32(frame).to_le_bytes();
    frame[12..16].copy_from_slice(&crc);
}

pub fn put_frame(key: &[u8], value: &[u8], id: u64) -> Vec<u8> {
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, body_size_max(VALUE_SIZE_MAX));
    let mut out = Vec::new();
    encoder.encode(&mut out, RequestId::new(id), 0, &Call::Put(Put::new(key, value))).unwrap();
    out
}

/// The body of transactions inside each other: `depth` levels, each of which names the next one
/// `width` times, with every table written once.
///
/// ```text
/// root | vtables | txn, list of offsets to one op, op | txn, list, op | ... | txn with an empty list
/// ```
pub fn txn_of_txns(depth: usize, width: u32) -> Vec<u8> {
    pub fn word(body: &mut Vec<u8>, word: usize) {
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
