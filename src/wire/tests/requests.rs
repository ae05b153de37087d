//! Requests: what is written is what is read, and nothing that is read can do harm.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use base::RequestId;
use support::*;
use wire::{
    Call, DecodeError, EncodeError, Kind, Op, Put, Request, Status, TXN_DEPTH_MAX, Txn,
    VerifyLimits,
};

#[test]
fn every_random_request_is_read_as_it_was_written() {
    let mut prng = prng("requests");
    let pool = pool(&mut prng);
    for _ in 0..scaled(20_000) {
        let txn = txn(&mut prng, &pool, 3);
        let call = call(&mut prng, &pool, &txn);
        let bytes = frame(&call);
        assert!(bytes.len().is_multiple_of(8));
        let (header, body) = open(&bytes);
        assert_eq!(header.kind, call.kind());
        assert_eq!((header.request, header.deadline_ms), (RequestId::new(7), 1_000));
        let request = verify(header.kind, body).unwrap();
        assert_eq!(request.kind(), header.kind);
        assert_same(&request, &call);
    }
}

#[test]
fn frames_are_appended_behind_what_is_there() {
    let mut out = b"12345678".to_vec();
    let put = Call::Put(Put::new(b"k", b"v"));
    encoder().encode(&mut out, RequestId::new(7), 1_000, &put).unwrap();
    assert_eq!(&out[..8], b"12345678");
    assert_eq!(&out[8..], &frame(&put)[..]);
}

/// The reader must not panic, and what it accepts must be walkable without a panic.
#[test]
fn mutated_and_arbitrary_bodies_never_panic() {
    let mut prng = prng("mutated requests");
    let pool = pool(&mut prng);
    let mut accepted = 0_u64;
    for _ in 0..scaled(60_000) {
        let txn = txn(&mut prng, &pool, 2);
        let call = call(&mut prng, &pool, &txn);
        let bytes = frame(&call);
        let (header, body) = open(&bytes);
        let mut body = body.to_vec();
        if prng.one_in(20) {
            prng.fill(&mut body);
        } else {
            mutate(&mut prng, &mut body);
        }
        // The bytes of one kind, read as another one.
        let kind = if prng.one_in(10) {
            Kind::ALL[below(&mut prng, Kind::ALL.len())]
        } else {
            header.kind
        };
        if let Ok(request) = verify(kind, &body) {
            accepted += 1;
            if let Request::Txn(view) = request {
                let _ = Txn::from(view);
            }
        }
    }
    println!("{accepted} mutated bodies were accepted");
    assert!(accepted > 0, "mutations that change a value must pass");
}

fn nested(depth: usize) -> Txn<'static> {
    let mut txn = Txn::new().then(Op::Put(Put::new(b"k", b"v")));
    for _ in 1..depth {
        txn = Txn::new().then(Op::Txn(Box::new(txn)));
    }
    txn
}

#[test]
fn transactions_nest_to_the_limit_and_not_beyond() {
    let deepest = nested(TXN_DEPTH_MAX);
    let bytes = frame(&Call::Txn(&deepest));
    let (header, body) = open(&bytes);
    assert_same(&verify(header.kind, body).unwrap(), &Call::Txn(&deepest));
    let lower = VerifyLimits { txn_depth_max: TXN_DEPTH_MAX - 1, ..VerifyLimits::REQUEST };
    let error = Request::verify(header.kind, body, &lower).unwrap_err();
    assert_eq!(error, DecodeError::TooComplex);
    assert_eq!((error.status(), error.closes()), (Status::TooManyOps, false));

    let mut out = b"before".to_vec();
    let too_deep = nested(TXN_DEPTH_MAX + 1);
    let error =
        encoder().encode(&mut out, RequestId::new(1), 0, &Call::Txn(&too_deep)).unwrap_err();
    assert_eq!(error, EncodeError::TooDeep { depth_max: TXN_DEPTH_MAX });
    assert_eq!(out, b"before");
}

#[test]
fn requests_beyond_the_limit_are_not_encoded() {
    let mut encoder = encoder();
    encoder.agree(1, 1_024);
    let value = [7; 2_000];
    let mut out = b"before".to_vec();
    for call in [
        Call::Put(Put::new(b"k", &value)),
        Call::Txn(&Txn::new().then(Op::Put(Put::new(b"k", &value))).then(Op::Put(Put::default()))),
        Call::Txn(&Txn { success: vec![Op::Put(Put::default()); 300], ..Txn::new() }),
    ] {
        let error = encoder.encode(&mut out, RequestId::new(1), 0, &call).unwrap_err();
        assert_eq!(error, EncodeError::TooLarge { size_max: 1_024 });
        assert_eq!(out, b"before");
    }
    encoder.encode(&mut out, RequestId::new(1), 0, &Call::Put(Put::new(b"k", b"v"))).unwrap();
}

/// A body of a few KiB in which every operation is the same large put would otherwise stand for
/// megabytes.
#[test]
fn a_body_that_shares_its_parts_too_often_is_refused() {
    let value = [7_u8; 1 << 16];
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let key = builder.create_vector(b"k");
    let value = builder.create_vector(&value);
    let put = schema::PutRequest::create(
        &mut builder,
        &schema::PutRequestArgs { key: Some(key), value: Some(value), ..Default::default() },
    );
    let op = schema::Operation::create(
        &mut builder,
        &schema::OperationArgs { put: Some(put), ..Default::default() },
    );
    let ops = builder.create_vector(&vec![op; 128]);
    let txn = schema::TxnRequest::create(
        &mut builder,
        &schema::TxnRequestArgs { success: Some(ops), ..Default::default() },
    );
    builder.finish_minimal(txn);
    assert_eq!(verify(Kind::Txn, builder.finished_data()).unwrap_err(), DecodeError::TooComplex);
}

/// Each level holds the next one many times: 2^60 operations in a kilobyte.
#[test]
fn a_body_that_multiplies_with_every_level_is_refused_at_once() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut inner = schema::TxnRequest::create(&mut builder, &Default::default());
    for _ in 0..20 {
        let op = schema::Operation::create(
            &mut builder,
            &schema::OperationArgs { txn: Some(inner), ..Default::default() },
        );
        let ops = builder.create_vector(&[op; 8]);
        inner = schema::TxnRequest::create(
            &mut builder,
            &schema::TxnRequestArgs { success: Some(ops), ..Default::default() },
        );
    }
    builder.finish_minimal(inner);
    assert_eq!(verify(Kind::Txn, builder.finished_data()).unwrap_err(), DecodeError::TooComplex);
}

#[test]
fn numbers_and_operations_without_a_meaning_are_refused_but_do_not_close() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let key = builder.create_vector(b"k");
    let range = schema::RangeRequest::create(
        &mut builder,
        &schema::RangeRequestArgs {
            key: Some(key),
            sort_order: schema::SortOrder(9),
            ..Default::default()
        },
    );
    builder.finish_minimal(range);
    let error = verify(Kind::Range, builder.finished_data()).unwrap_err();
    assert_eq!(error, DecodeError::UnknownNumber { field: "sort_order", number: 9 });
    assert_eq!((error.status(), error.closes()), (Status::InvalidArgument, false));

    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let op = schema::Operation::create(&mut builder, &Default::default());
    let ops = builder.create_vector(&[op]);
    let txn = schema::TxnRequest::create(
        &mut builder,
        &schema::TxnRequestArgs { failure: Some(ops), ..Default::default() },
    );
    builder.finish_minimal(txn);
    let error = verify(Kind::Txn, builder.finished_data()).unwrap_err();
    assert_eq!((error, error.closes()), (DecodeError::NotOneOperation, false));

    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let start = builder.start_table();
    let table = builder.end_table(start);
    builder.finish_minimal(table);
    let error = verify(Kind::Put, builder.finished_data()).unwrap_err();
    assert_eq!((error, error.closes()), (DecodeError::MissingField { field: "key" }, true));
}

#[test]
fn a_reply_is_no_request_and_a_ping_has_no_body() {
    assert_eq!(
        verify(Kind::PutReply, &[]).unwrap_err(),
        DecodeError::UnexpectedKind { kind: Kind::PutReply }
    );
    assert_eq!(verify(Kind::Ping, &[0; 8]).unwrap_err(), DecodeError::Malformed);
    assert!(matches!(verify(Kind::Ping, &[]), Ok(Request::Ping)));
}
