//! A server of one thread that speaks the protocol and remembers keys, for tests of the load
//! generator and for measuring how much of a figure is its own.
//!
//! Like a real server it handles each socket's requests as they come and answers with one write per
//! read. It keeps no data durable and checks nothing that the load generator could not get wrong.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use base::NodeId;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use wire::{
    HEADER_SIZE, Header, HelloReply, KeyValue, Kind, OpView, Range, RangeSummary, Refused,
    ReplyWriter, Request, Status, VerifyLimits,
};

/// How the server misbehaves.
#[derive(Clone, Copy, Default)]
pub struct Manners {
    /// Each n-th write is refused as overload; 0: none.
    pub refuse_each: u64,
    /// A connection is closed when it has brought this many requests; 0: never.
    pub close_after: u64,
    /// The server ends when it has been brought this many requests; 0: never.
    pub end_after: u64,
}

/// The running server; its thread ends with the process.
pub struct FakeServer {
    pub address: SocketAddr,
    pub puts: Arc<AtomicU64>,
    pub gets: Arc<AtomicU64>,
    /// Handshakes so far.
    pub connections: Arc<AtomicU64>,
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    requests: u64,
}

struct State {
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    writer: ReplyWriter,
    manners: Manners,
    requests: u64,
    writes: u64,
    puts: Arc<AtomicU64>,
    gets: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl FakeServer {
    pub fn start(manners: Manners) -> Self {
        let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (puts, gets) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let connections = Arc::new(AtomicU64::new(0));
        let mut state = State {
            keys: BTreeMap::new(),
            writer: ReplyWriter::new(),
            manners,
            requests: 0,
            writes: 0,
            puts: Arc::clone(&puts),
            gets: Arc::clone(&gets),
            connections: Arc::clone(&connections),
        };
        thread::spawn(move || {
            let mut poll = Poll::new().unwrap();
            poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
            let mut events = Events::with_capacity(1_024);
            let mut peers: Vec<Option<Peer>> = Vec::new();
            loop {
                poll.poll(&mut events, None).unwrap();
                for event in &events {
                    if event.token() == Token(0) {
                        accept(&listener, &poll, &mut peers);
                    } else {
                        let slot = &mut peers[event.token().0 - 1];
                        let Some(peer) = slot else { continue };
                        if !serve(peer, &mut state) {
                            *slot = None;
                        }
                        if state.has_ended() {
                            return;
                        }
                    }
                }
            }
        });
        Self { address, puts, gets, connections }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, peers: &mut Vec<Option<Peer>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).unwrap();
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(peers.len() + 1), both).unwrap();
        let (input, output) = (Vec::new(), Vec::new());
        peers.push(Some(Peer { stream, input, output, requests: 0 }));
    }
}

/// False when the connection has ended.
fn serve(peer: &mut Peer, state: &mut State) -> bool {
    let mut chunk = [0; 64 << 10];
    loop {
        let emptied = match peer.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(size) => {
                peer.input.extend_from_slice(&chunk[..size]);
                size < chunk.len()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return false,
        };
        let mut at = 0;
        while let Some(head) = peer.input[at..].first_chunk::<HEADER_SIZE>() {
            let header = Header::decode(head).expect("the generator sends frames");
            let end = at + HEADER_SIZE + usize::try_from(header.body_size).unwrap();
            let Some(body) = peer.input.get(at + HEADER_SIZE..end) else { break };
            Header::check(head, body).expect("checksums are right");
            peer.requests += 1;
            state.requests += 1;
            if state.has_ended() {
                return false;
            }
            if state.manners.close_after > 0 && peer.requests > state.manners.close_after {
                return false;
            }
            state.answer(&header, body, &mut peer.output);
            at = end;
        }
        peer.input.drain(..at);
        // Reading on until nothing is there would stay with one peer for as long as it is quick.
        if emptied || !flush(peer) {
            break;
        }
    }
    flush(peer)
}

fn flush(peer: &mut Peer) -> bool {
    while !peer.output.is_empty() {
        match peer.stream.write(&peer.output) {
            Ok(size) => drop(peer.output.drain(..size)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
    true
}

impl State {
    fn has_ended(&self) -> bool {
        self.manners.end_after > 0 && self.requests > self.manners.end_after
    }

    fn answer(&mut self, header: &Header, body: &[u8], out: &mut Vec<u8>) {
        let id = header.request;
        let request = Request::verify(header.kind, body, &VerifyLimits::REQUEST).unwrap();
        match request {
            Request::Hello(_) => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                self.writer.hello(
                    out,
                    id,
                    &HelloReply {
                        version: 1,
                        cluster: 7,
                        member: NodeId::new(1),
                        requests_max: 1_024,
                        bytes_max: 32 << 20,
                        key_size_max: 2_048,
                        value_size_max: 3 << 19,
                        request_body_size_max: 2 << 20,
                        reply_body_size_max: 18 << 20,
                        ..HelloReply::default()
                    },
                );
            }
            Request::Put(put) => {
                self.writes += 1;
                let each = self.manners.refuse_each;
                if each > 0 && self.writes.is_multiple_of(each) {
                    self.writer.refused(out, id, &Refused::new(Status::Overloaded));
                    return;
                }
                self.put(put.key, put.value);
                self.writer.put(out, id, 2, None);
            }
            Request::Range(range) => self.range(&range, id, out),
            Request::Txn(txn) => {
                for op in txn.success() {
                    if let OpView::Put(put) = op {
                        self.put(put.key, put.value);
                    }
                }
                let mut writer = self.writer.txn(out, id, 2, true, txn.success().len());
                for _ in txn.success() {
                    writer.put(2, None);
                }
                writer.finish().unwrap();
            }
            other => panic!("not a request of the load generator: {:?}", other.kind()),
        }
        assert_ne!(header.kind, Kind::Refused);
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        match self.keys.get_mut(key) {
            Some(old) => {
                old.clear();
                old.extend_from_slice(value);
            }
            None => drop(self.keys.insert(key.to_vec(), value.to_vec())),
        }
    }

    fn range(&mut self, range: &Range<'_>, id: base::RequestId, out: &mut Vec<u8>) {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let bounds =
            (Bound::Included(range.key.to_vec()), Bound::Excluded(range.range_end.to_vec()));
        if range.range_end.is_empty() {
            let key = range.key;
            let value = self.keys.get(key);
            let found = value.map(|value| KeyValue { key, value, ..KeyValue::default() });
            return self.writer.get(out, id, 2, found);
        }
        let count = self.keys.range::<Vec<u8>, _>(bounds.clone()).count();
        let limit = match usize::try_from(range.limit) {
            _ if range.count_only => 0,
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let mut piece = self.writer.range(out, id);
        for (key, value) in self.keys.range::<Vec<u8>, _>(bounds).take(limit) {
            let _ = piece.push(&KeyValue { key, value, ..KeyValue::default() });
        }
        let count = i64::try_from(count).unwrap();
        piece.finish(RangeSummary { revision: 2, count, more: false });
    }
}
