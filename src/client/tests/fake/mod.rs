//! A server for tests: each connection that comes in is handled by the next of the given scripts.

#![allow(dead_code, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Frame, NodeId, RequestId};
use bytes::BytesMut;
use client::Options;
use wire::{
    Header, HelloReply, Kind, REPLY_BODY_SIZE_MAX, Refused, ReplyWriter, Request, Splitter,
    VerifyLimits,
};

pub type Script = Box<dyn FnOnce(&mut Peer) + Send>;

pub struct FakeServer {
    pub address: String,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            for script in scripts {
                let (stream, _) = listener.accept().unwrap();
                // A script that waits for what never comes fails instead of hanging.
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream.set_nodelay(true).unwrap();
                script(&mut Peer {
                    stream,
                    splitter: Splitter::new(),
                    input: BytesMut::new(),
                    writer: ReplyWriter::new(),
                });
            }
        });
        Self { address, thread: Some(thread) }
    }

    /// All scripts have run to their ends.
    pub fn finish(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

pub struct Peer {
    pub stream: TcpStream,
    splitter: Splitter,
    input: BytesMut,
    writer: ReplyWriter,
}

pub fn hello_reply() -> HelloReply<'static> {
    HelloReply {
        version: 1,
        cluster: 77,
        member: NodeId::new(1),
        requests_max: 64,
        bytes_max: 32 << 20,
        key_size_max: 2_048,
        value_size_max: 16 << 20,
        request_body_size_max: 17 << 20,
        reply_body_size_max: u32::try_from(REPLY_BODY_SIZE_MAX).unwrap(),
        ..HelloReply::default()
    }
}

impl Peer {
    /// The next frame, or none when the client has gone.
    pub fn next(&mut self) -> Option<(Header, Frame)> {
        loop {
            if let Some(frame) = self.splitter.next(&mut self.input).unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 1 << 16];
            let count = self.stream.read(&mut chunk).unwrap();
            if count == 0 {
                return None;
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    /// The next frame, which must be of this kind; gives its id.
    pub fn expect(&mut self, kind: Kind) -> RequestId {
        self.expect_request(kind, |_| {})
    }

    /// The same, and looks at the request.
    pub fn expect_request(&mut self, kind: Kind, look: impl FnOnce(Request<'_>)) -> RequestId {
        let (header, body) = self.next().expect("the client has gone");
        assert_eq!(header.kind, kind);
        look(Request::verify(kind, &body, &VerifyLimits::REQUEST).unwrap());
        header.request
    }

    pub fn expect_end(&mut self) {
        assert_eq!(self.next(), None);
    }

    /// The handshake with these credits.
    pub fn greet_with(&mut self, reply: &HelloReply<'_>) {
        let request = self.expect(Kind::Hello);
        self.send(|writer, out| writer.hello(out, request, reply));
        let size = usize::try_from(reply.request_body_size_max).unwrap();
        self.splitter.agree(1, size);
    }

    pub fn greet(&mut self) {
        self.greet_with(&hello_reply());
    }

    pub fn send(&mut self, write: impl FnOnce(&mut ReplyWriter, &mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut self.writer, &mut out);
        self.stream.write_all(&out).unwrap();
    }

    pub fn refuse(&mut self, request: RequestId, refused: &Refused<'_>) {
        self.send(|writer, out| writer.refused(out, request, refused));
    }
}

pub fn script(script: impl FnOnce(&mut Peer) + Send + 'static) -> Script {
    Box::new(script)
}

pub fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        client_name: "test".to_owned(),
        cluster: 0,
    }
}

/// An address at which nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
