//! What the hot paths of the protocol cost. `cargo bench -p wire --bench speed`
//!
//! Prints the best of nine rounds in nanoseconds per operation: the machine is shared, and the best
//! round is the one that was disturbed least.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use base::RequestId;
use bytes::BytesMut;
use wire::{
    Call, HEADER_SIZE, Header, KeyValue, Put, RangeSummary, Reply, ReplyWriter, Request,
    RequestEncoder, Splitter, VerifyLimits,
};

const ROUNDS: usize = 9;

fn measure(name: &str, count: u32, mut operation: impl FnMut()) {
    let best = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..count {
                operation();
            }
            begin.elapsed().as_secs_f64() * 1e9 / f64::from(count)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:<52} {best:>9.1} ns");
}

fn main() {
    let key = [b'k'; 24];
    let value = [b'v'; 256];
    let id = RequestId::new(77);
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, 2 << 20);
    let put = Call::Put(Put { key: &key, value: &value, ..Put::default() });
    let mut out = Vec::with_capacity(4 << 20);

    measure("encode put 256 B (frame, crc)", 200_000, || {
        out.clear();
        encoder.encode(&mut out, id, 0, black_box(&put)).expect("small");
    });
    let put_frame = out.clone();
    println!("    frame of {} bytes", put_frame.len());
    let body = &put_frame[HEADER_SIZE..];
    measure("verify put 256 B", 200_000, || {
        black_box(Request::verify(wire::Kind::Put, black_box(body), &VerifyLimits::REQUEST))
            .expect("valid");
    });
    measure("crc32 of the frame", 200_000, || {
        black_box(base::crc32(black_box(&put_frame)));
    });

    let mut splitter = Splitter::new();
    splitter.agree(1, 2 << 20);
    let stream: Vec<u8> = put_frame.repeat(64);
    let mut input = BytesMut::with_capacity(64 << 10);
    measure("split 64 puts (copy in, crc, copy out), each", 64 * 2_000, {
        let mut left = 0;
        let splitter = &mut splitter;
        move || {
            if left == 0 {
                input.extend_from_slice(&stream);
                left = 64;
            }
            black_box(splitter.next(&mut input).expect("valid"));
            left -= 1;
        }
    });

    let mut replies = ReplyWriter::new();
    measure("put reply", 200_000, || {
        if out.len() > 64 << 10 {
            out.clear();
        }
        replies.put(&mut out, id, black_box(123), None);
    });
    out.clear();
    replies.put(&mut out, id, 123, None);
    let reply_frame = out.clone();
    println!("    frame of {} bytes", reply_frame.len());
    let header = Header::decode(reply_frame.first_chunk().expect("a header")).expect("valid");
    measure("verify put reply", 200_000, || {
        black_box(Reply::verify(&header, black_box(&reply_frame[HEADER_SIZE..]))).expect("valid");
    });

    let member = KeyValue {
        key: &key,
        value: &value,
        create_revision: 5,
        mod_revision: 9,
        version: 3,
        lease: 0,
    };
    measure("get reply 256 B", 200_000, || {
        if out.len() > 64 << 10 {
            out.clear();
        }
        replies.get(&mut out, id, black_box(123), Some(member));
    });
    out.clear();
    replies.get(&mut out, id, 123, Some(member));
    let get_frame = out.clone();
    println!("    frame of {} bytes", get_frame.len());
    let header = Header::decode(get_frame.first_chunk().expect("a header")).expect("valid");
    measure("verify get reply 256 B", 200_000, || {
        let body = black_box(&get_frame[HEADER_SIZE..]);
        black_box(Reply::verify(&header, body)).expect("valid");
    });

    let write_piece = |out: &mut Vec<u8>, replies: &mut ReplyWriter| {
        out.clear();
        let mut piece = replies.range(out, id);
        for _ in 0..1_000 {
            let _ = black_box(piece.push(black_box(&member)));
        }
        piece.finish(RangeSummary { revision: 123, count: 1_000, more: false });
    };
    measure("range piece of 1,000 x 256 B, whole", 500, || write_piece(&mut out, &mut replies));
    println!("    frame of {} bytes", out.len());
    let header = Header::decode(out.first_chunk().expect("a header")).expect("valid");
    measure("verify and walk it, whole", 500, || {
        let Ok(Reply::Range(reply)) = Reply::verify(&header, black_box(&out[HEADER_SIZE..])) else {
            unreachable!("written just before");
        };
        black_box(reply.kvs.map(|member| member.value.len()).sum::<usize>());
    });

    let mut frame = Vec::new();
    let txn = wire::Txn {
        compares: vec![wire::Compare { key: &key, number: 4, ..Default::default() }],
        success: vec![wire::Op::Put(Put { key: &key, value: &value, ..Put::default() })],
        failure: vec![wire::Op::Range(wire::Range { key: &key, ..Default::default() })],
    };
    measure("encode txn: 1 compare, put, range", 200_000, || {
        frame.clear();
        encoder.encode(&mut frame, id, 0, black_box(&Call::Txn(&txn))).expect("small");
    });
    measure("verify txn: 1 compare, put, range", 200_000, || {
        let body = black_box(&frame[HEADER_SIZE..]);
        black_box(Request::verify(wire::Kind::Txn, body, &VerifyLimits::REQUEST)).expect("valid");
    });
}
