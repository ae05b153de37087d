//! Writes with a stamp: what the stamp adds to a frame, and what it may not change.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use base::{ClientId, RequestId, STAMP_SIZE, Stamp};
use support::*;
use wire::{Call, Compact, DeleteRange, Flags, HEADER_SIZE, Header, Put, Reply, ReplyWriter, Txn};

const STAMP: Stamp = Stamp { client: ClientId::new(9), sequence: 41, floor: 40 };

fn stamped(call: &Call<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encoder().encode_with(&mut out, RequestId::new(7), 1_000, Some(&STAMP), call).unwrap();
    out
}

#[test]
fn a_stamp_stands_in_front_of_the_message_and_changes_no_byte_of_it() {
    let mut prng = prng("stamps");
    let pool = pool(&mut prng);
    for _ in 0..scaled(2_000) {
        let txn = txn(&mut prng, &pool, 2);
        let call = call(&mut prng, &pool, &txn);
        let plain = frame(&call);
        let (header, body) = open(&plain);
        assert_eq!(header.flags, Flags::NONE, "{call:?}");
        if !call.kind().is_write() {
            continue;
        }
        let frame = stamped(&call);
        assert_eq!(frame.len(), plain.len() + STAMP_SIZE);
        let (with, both) = open(&frame);
        assert!(with.flags.has_stamp() && !with.flags.is_repeated());
        assert_eq!(Stamp::split(both), Some((STAMP, body)));
        assert_same(&verify(with.kind, &both[STAMP_SIZE..]).unwrap(), &call);
    }
}

#[test]
fn a_stamp_counts_as_part_of_the_body() {
    let value = vec![7; 1_000];
    let call = Call::Put(Put::new(b"key", &value));
    let size = frame(&call).len() - HEADER_SIZE;
    let mut encoder = encoder();
    encoder.agree(1, size + STAMP_SIZE);
    let mut out = b"before".to_vec();
    encoder.encode_with(&mut out, RequestId::new(1), 0, Some(&STAMP), &call).unwrap();
    out.truncate(6);
    encoder.agree(1, size + STAMP_SIZE - 1);
    encoder.encode_with(&mut out, RequestId::new(1), 0, Some(&STAMP), &call).unwrap_err();
    assert_eq!(out, b"before");
}

#[test]
#[should_panic(expected = "a stamp on Status")]
fn only_writes_have_stamps() {
    stamped(&Call::Status);
}

#[test]
fn every_kind_of_write_may_have_a_stamp() {
    let txn = Txn::new();
    let compact = Compact { revision: 3, physical: false };
    for call in [
        Call::Put(Put::new(b"a", b"b")),
        Call::DeleteRange(DeleteRange::one(b"a")),
        Call::Txn(&txn),
        Call::Compact(compact),
    ] {
        assert!(open(&stamped(&call)).0.flags.has_stamp());
    }
}

#[test]
fn a_reply_that_is_marked_as_repeated_still_verifies_and_a_reply_has_no_stamp() {
    let mut out = Vec::new();
    ReplyWriter::new().put(&mut out, RequestId::new(7), 5, None);
    let (plain, _) = open(&out);
    assert!(!plain.flags.is_repeated());
    Header::mark_repeated(&mut out);
    let (header, body) = open(&out);
    assert!(header.flags.is_repeated());
    let Ok(Reply::Put(put)) = Reply::verify(&header, body) else { panic!("no put") };
    assert_eq!(put.revision, 5);
    let header = Header { flags: Flags::STAMPED, ..header };
    Reply::verify(&header, body).unwrap_err();
}
