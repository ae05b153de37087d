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

#[path = "protocol/crowds.rs"]
mod crowds;
#[path = "protocol/limits.rs"]
mod limits;
#[path = "protocol/mutations.rs"]
mod mutations;
#[path = "protocol/raw.rs"]
mod raw;
#[path = "protocol/watch.rs"]
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use base::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX, HANDSHAKE_TIMEOUT_MS, REPLY_PIECE_SIZE,
    SEND_STALL_TIMEOUT_MS, VALUE_SIZE_MAX_DEFAULT, body_size_max,
};
use client::{Compact, DeleteRange, Put, Range};
use process::{PATIENCE, Server};
use wire::{Call, HANDSHAKE_BODY_SIZE_MAX, HEADER_SIZE, Kind, Reply, SortOrder, Status};

use raw::{Raw, frame_of, hello, put_frame, seal, txn_of_txns, with_header_byte};
use watch::{Neighbour, big_range, eventually, fill, memory, sockets, start};

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
        ("tls", false, b"\x16\x03\x01\x02\0\x01\0\x01\xfc".to_vec(), Status::ProtocolError, 0),
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
        ("flag", true, with_header_byte(&ping, 4, 8), Status::ProtocolError, 0),
        ("ping with a stamp", true, with_header_byte(&ping, 4, 2), Status::ProtocolError, 9),
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
    // Had it been kept waiting by the other one, then until that one was cut off.
    let stall = Duration::from_millis(SEND_STALL_TIMEOUT_MS);
    assert!(worst < stall, "a neighbour waited for {worst:?}");
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
        // A piece ends with the key that reaches its size: here each of them does.
        assert!(frame.body.len() <= REPLY_PIECE_SIZE + (1 << 20) + 1_024);
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

    neighbour.finish();
    let after = memory(&server);
    assert!(after < before + (200 << 20), "memory went from {before} to {after}");
}

/// Sends thrice the bytes that may be in flight, without waiting for an answer; none may be refused.
fn send_more_bytes_than_credits(server: &Server) {
    let neighbour = Neighbour::beside(server);
    let before = memory(server);
    let mut raw = Raw::open(server.address());
    let value = vec![3; 1 << 20];
    let count = 3 * CONNECTION_BYTES_MAX / value.len();
    let mut writer = raw.stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        for (id, number) in (1..).zip(0..count) {
            let frame = put_frame(format!("large/{number:03}").as_bytes(), &value, id);
            writer.write_all(&frame).unwrap();
        }
    });
    let mut refused = BTreeMap::new();
    for _ in 0..count {
        let status = raw.frame().expect("every request is answered").status();
        *refused.entry(status).or_insert(0) += 1;
    }
    sender.join().unwrap();
    assert_eq!(refused, BTreeMap::from([(Status::Ok, count)]));
    let range = Range { count_only: true, ..Range::between(b"large/", b"large0") };
    assert_eq!(server.client().range(&range).unwrap().count, i64::try_from(count).unwrap());
    neighbour.finish();
    let after = memory(server);
    assert!(after < before + (400 << 20), "memory went from {before} to {after}");
}

#[test]
fn bytes_beyond_the_credits_wait_and_none_is_lost() {
    let (_dir, server) = start("bytes", &["--page-cache", "32MiB"]);
    send_more_bytes_than_credits(&server);
}

/// A server with little room grants less, instead of refusing what it granted.
#[test]
fn credits_are_no_more_than_the_server_can_take_in() {
    let (_dir, server) = start("granted", &[]);
    send_more_bytes_than_credits(&server);
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
    let limits = server.client().limits().unwrap();
    let proposals = limits.iter().find(|limit| limit.name == "proposals").unwrap();
    assert_eq!(proposals.hits, refused, "{proposals:?}");
    assert!(proposals.highest > 1 << 20 && proposals.used == 0, "{proposals:?}");
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
