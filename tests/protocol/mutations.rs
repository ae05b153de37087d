//! Random mutations of valid requests against a living server: it may refuse or do them, and must do
//! neither for anybody else's keys; what got into its log can be applied again.
//!
//! ```text
//! valid frame ─► bits, bytes, words, cuts ─► checksum made right, mostly ─► server
//! ```

use std::net::Shutdown;

use base::Prng;
use client::{Compact, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, Txn};
use wire::{Call, HEADER_SIZE, Header, Kind};

use crate::process::{self, SMALL, Server, scale, seed};
use crate::raw::{Raw, frame_of, seal};
use crate::watch::{Neighbour, memory, start};

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
