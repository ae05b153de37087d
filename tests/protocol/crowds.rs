//! Many of what alone is within the bounds: large reads, parts of frames; and requests whose client has
//! said all that it had to say.

use std::net::Shutdown;

use base::limits::READS_SIZE_MAX;
use client::{Put, Range};
use wire::{Call, Op, Reply, SortOrder, SortTarget, Status, Txn};

use crate::raw::{Raw, put_frame};
use crate::watch::{Neighbour, big_range, fill, memory, start};

const MIB: u64 = 1 << 20;

fn sorted_by_value() -> Call<'static> {
    Call::Range(Range {
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Value,
        keys_only: true,
        ..big_range()
    })
}

#[test]
fn a_crowd_of_large_reads_is_answered_within_the_memory_of_a_few() {
    let (_dir, server) = start("crowd", &[]);
    // Each sorted list holds 12 MiB of values, each transaction gathers as much.
    fill(&server, 48, 256 << 10);
    let neighbour = Neighbour::beside(&server);
    let before = memory(&server);
    let txn = Txn { compares: vec![], success: vec![Op::Range(big_range())], failure: vec![] };
    let mut crowd: Vec<Raw> = (0..4).map(|_| Raw::open(server.address())).collect();
    for raw in &mut crowd {
        for _ in 0..32 {
            raw.call(&sorted_by_value());
        }
        // Their answers wait for their clients, and what waits so has a bound of its own.
        for _ in 0..4 {
            raw.call(&Call::Txn(&txn));
        }
    }
    let mut peak = 0;
    let mut answered = 0;
    for raw in &mut crowd {
        let mut last = 0;
        while last < 36 {
            let frame = raw.frame().expect("every read is answered");
            peak = peak.max(memory(&server));
            assert_eq!(frame.status(), Status::Ok, "{:?}", frame.reply());
            last += u32::from(!frame.header.flags.has_more());
        }
        answered += last;
    }
    assert_eq!(answered, 144);
    let worst = neighbour.finish();
    let bound = before + u64::try_from(READS_SIZE_MAX).unwrap() + 450 * MIB;
    assert!(peak < bound, "{} MiB, {} before", peak / MIB, before / MIB);
    eprintln!("peak {} MiB, {} before, worst {worst:?}", peak / MIB, before / MIB);
}

#[test]
fn the_reads_of_clients_that_went_do_not_go_on() {
    let (_dir, server) = start("went", &[]);
    fill(&server, 48, 256 << 10);
    let neighbour = Neighbour::beside(&server);
    let before = memory(&server);
    for _ in 0..6 {
        let mut raw = Raw::open(server.address());
        for _ in 0..64 {
            raw.call(&sorted_by_value());
        }
    }
    neighbour.goes_on(50);
    let peak = memory(&server);
    let bound = before + u64::try_from(READS_SIZE_MAX).unwrap() + 100 * MIB;
    assert!(peak < bound, "{} MiB, {} before", peak / MIB, before / MIB);
    neighbour.finish();
}

#[test]
fn a_crowd_of_begun_frames_keeps_little_memory() {
    let (_dir, server) = start("begun", &[]);
    let mut watch = server.client();
    let before = memory(&server);
    let frame = put_frame(b"begun", &[1; 3_000], 1);
    let filler = vec![2; 240_000];
    let mut crowd: Vec<Raw> = (0..400).map(|_| Raw::open(server.address())).collect();
    for raw in &mut crowd {
        raw.send(&frame[..1_500]);
        // Others keep using the memory that it came in beside.
        watch.put(&Put::new(b"filler", &filler)).unwrap();
    }
    let now = memory(&server);
    assert!(now < before + 60 * MIB, "{} MiB, {} before", now / MIB, before / MIB);
    for raw in &mut crowd {
        raw.send(&frame[1_500..]);
        assert_eq!(raw.frame().unwrap().status(), Status::Ok);
    }
}

#[test]
fn what_was_asked_before_the_end_of_the_stream_is_answered_before_the_connection_closes() {
    let (_dir, server) = start("said", &[]);
    fill(&server, 12, 1 << 20);
    let neighbour = Neighbour::beside(&server);
    for requests in [0, 1, 40] {
        let mut raw = Raw::open(server.address());
        for number in 0..requests {
            raw.call(&Call::Put(Put {
                key: format!("said/{number}").as_bytes(),
                value: b"v",
                ..Put::default()
            }));
            raw.call(&Call::Range(big_range()));
        }
        let part = put_frame(b"never", b"never", 1_000_000);
        raw.send(&part[..part.len() - 1]);
        raw.stream.shutdown(Shutdown::Write).unwrap();
        let (mut puts, mut ranges) = (0, 0);
        while let Some(frame) = raw.frame() {
            assert_eq!(frame.status(), Status::Ok);
            match frame.reply() {
                Reply::Put(_) => puts += 1,
                Reply::Range(_) => ranges += u32::from(!frame.header.flags.has_more()),
                reply => panic!("{reply:?}"),
            }
        }
        assert_eq!((puts, ranges), (requests, requests));
    }
    let mut client = server.client();
    assert_eq!(client.get(b"never").unwrap(), None);
    neighbour.finish();
}
