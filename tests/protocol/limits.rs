//! Each limit of the protocol is met: to it things work, beyond it the refusal is the documented one.
//!
//! ```text
//! key, value, frame | operations, nesting | connections | bytes of one answer
//! ```

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base::limits::{
    KEY_SIZE_MAX, TXN_OPS_MAX_DEFAULT, VALUE_SIZE_MAX, VALUE_SIZE_MAX_DEFAULT, body_size_max,
};
use client::{Compare, CompareResult, CompareTarget, DeleteRange, Effect, Op, Put, Range, Txn};
use wire::{Call, Kind, Status, TXN_DEPTH_MAX};

use crate::process::{self, DataDir, PATIENCE, SMALL, Server};
use crate::raw::{Raw, frame_of, hello, put_frame, txn_of_txns};
use crate::watch::{Neighbour, Watched, big_range, fill, memory, start};

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
    assert!(depth_max >= TXN_OPS_MAX_DEFAULT - 1, "only {depth_max} levels");
    neighbour.finish();
    let after = memory(&server);
    assert!(after < before + (100 << 20), "memory went from {before} to {after}");
}

#[test]
fn operations_to_the_limit_are_done_and_one_more_is_refused() {
    let (_dir, server) = start("ops", &[]);
    let mut client = server.client();
    let keys: Vec<Vec<u8>> =
        (0..=TXN_OPS_MAX_DEFAULT).map(|n| format!("op/{n:03}").into_bytes()).collect();
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
    let max = TXN_OPS_MAX_DEFAULT;
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
        let flags = ["--page-cache", "32MiB", "--value-size-max", &flag];
        let server = Watched(Some(Server::start(dir.path(), &flags)));
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
    assert_eq!((refusal.status, refusal.effect), (Status::TooLarge, Effect::Applied));
    let count = Range { count_only: true, ..big_range() };
    assert_eq!(client.range(&count).unwrap().count, 0);
    // A transaction that only reads has no effect to speak of.
    fill(&server, 40, 1 << 20);
    let read = Txn::new().then(Op::Range(big_range()));
    let error = client.txn(&read).unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.status, refusal.effect), (Status::TooLarge, Effect::None));
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
