//! Messages written as JSON and read again.

#![allow(clippy::unwrap_used)]

use base::Prng;
use bytes::Bytes;
use etcd::proto::kv::{
    Compare, CompareTarget, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RangeResponse,
    RequestOp, RequestUnion, ResponseHeader, TargetUnion, TxnRequest,
};
use etcd::shapes::{ROUTES, route};
use etcd::{Code, Message, json};

fn below(prng: &mut Prng, bound: u64) -> usize {
    usize::try_from(prng.below(bound)).unwrap()
}

fn bytes(prng: &mut Prng) -> Bytes {
    (0..below(prng, 6)).map(|_| u8::try_from(prng.below(256)).unwrap()).collect()
}

fn number(prng: &mut Prng) -> i64 {
    [0, 1, -1, i64::MAX, i64::MIN][below(prng, 5)]
}

fn operation(prng: &mut Prng, depth: u64) -> RequestOp {
    let request = match prng.below(3 + u64::from(depth > 0)) {
        0 => RequestUnion::Range(RangeRequest {
            key: bytes(prng),
            limit: number(prng),
            sort_order: i32::try_from(prng.below(3)).unwrap(),
            keys_only: prng.one_in(2),
            ..RangeRequest::default()
        }),
        1 => RequestUnion::Put(PutRequest {
            key: bytes(prng),
            value: bytes(prng),
            lease: number(prng),
            ..PutRequest::default()
        }),
        2 => RequestUnion::DeleteRange(DeleteRangeRequest {
            key: bytes(prng),
            range_end: bytes(prng),
            prev_kv: prng.one_in(2),
        }),
        _ => RequestUnion::Txn(txn(prng, depth - 1)),
    };
    RequestOp { request: Some(request) }
}

fn txn(prng: &mut Prng, depth: u64) -> TxnRequest {
    let compare = (0..below(prng, 3)).map(|_| Compare {
        key: bytes(prng),
        target: CompareTarget::Value.into(),
        target_union: Some(TargetUnion::Value(bytes(prng))),
        ..Compare::default()
    });
    let compare = compare.collect();
    let mut operations = || (0..below(prng, 3)).map(|_| operation(prng, depth)).collect();
    TxnRequest { compare, success: operations(), failure: operations() }
}

#[test]
fn what_is_written_is_read_again() {
    let shape = route("kv/txn").unwrap().request;
    let mut prng = Prng::new(5);
    for _ in 0..3_000 {
        let message = txn(&mut prng, 4);
        let text = json::write(&message.encode_to_vec(), shape).unwrap();
        let read = json::read(text.as_bytes(), shape).unwrap();
        assert_eq!(TxnRequest::decode(read.as_slice()).unwrap(), message, "{text}");
    }
}

#[test]
fn an_answer_looks_as_etcds_gateway_writes_it() {
    let header = ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: 3, raft_term: 4 };
    let key = Bytes::from_static(b"foo");
    let kv = KeyValue { key, mod_revision: 3, ..KeyValue::default() };
    let message =
        RangeResponse { header: Some(header), kvs: vec![kv.clone(), kv], more: true, count: 2 };
    let text = json::write(&message.encode_to_vec(), route("kv/range").unwrap().answer).unwrap();
    let expected = "{\"header\":{\"cluster_id\":\"18446744073709551615\",\"member_id\":\"2\",\
                    \"revision\":\"3\",\"raft_term\":\"4\"},\
                    \"kvs\":[{\"key\":\"Zm9v\",\"mod_revision\":\"3\"},\
                    {\"key\":\"Zm9v\",\"mod_revision\":\"3\"}],\"more\":true,\"count\":\"2\"}";
    assert_eq!(text, expected);
}

#[test]
fn texts_that_say_no_message_are_refused_and_odd_ones_that_do_are_read() {
    let shape = route("kv/range").unwrap().request;
    let refused = [
        "{\"key\":1}",
        "{\"key\":\"*\"}",
        "{\"limit\":\"x\"}",
        "{\"limit\":1.5}",
        "{\"limit\":9223372036854775808}",
        "{\"limit\":\"+1\"}",
        "{\"limit\":\"01\"}",
        "{\"limit\":\"1 \"}",
        "{\"limit\":\"1.\"}",
        "{\"limit\":\"1e\"}",
        "{\"limit\":\"5e-1\"}",
        "{\"limit\":\"1e1000000000000\"}",
        "{\"limit\":9.1e15}",
        "{\"limit\":1e19}",
        "{\"sort_order\":1.5}",
        "{\"sort_order\":4294967297}",
        "{\"key\":\"YQ=\"}",
        "{\"key\":\"YQ==\",\"key\":\"YQ==\"}",
        "{\"range_end\":null,\"rangeEnd\":\"YQ==\"}",
        "{\"keys_only\":1}",
        "[]",
        "{",
        "{\"key\":\"AA==\"}}",
    ];
    for text in refused {
        let failure = json::read(text.as_bytes(), shape).expect_err(text);
        assert_eq!(failure.code, Code::InvalidArgument, "{text}");
    }
    let txn = route("kv/txn").unwrap().request;
    for text in [
        "{\"success\":[{\"request_range\":{},\"request_put\":{}}]}",
        "{\"compare\":[{\"version\":1,\"lease\":2}]}",
    ] {
        let failure = json::read(text.as_bytes(), txn).expect_err(text);
        assert_eq!(failure.code, Code::InvalidArgument, "{text}");
    }
    let deep = format!("{}{}", "{\"success\":[{\"request_txn\":".repeat(200), "{}");
    let deep = format!("{deep}{}", "}]}".repeat(200));
    assert!(json::read(deep.as_bytes(), txn).is_err());
    let read = |text: &str| {
        let bytes = json::read(text.as_bytes(), shape).unwrap();
        RangeRequest::decode(bytes.as_slice()).unwrap()
    };
    assert_eq!(read("  "), RangeRequest::default());
    assert_eq!(read("{\"key\":null,\"unknown\":{\"a\":[1]}}"), RangeRequest::default());
    let message = read("{\"key\":\"-_8\",\"limit\":\"-1\",\"sortOrder\":2,\"countOnly\":true}");
    assert_eq!(message.key.as_ref(), [0xfb, 0xff]);
    assert_eq!((message.limit, message.sort_order, message.count_only), (-1, 2, true));
    for (number, limit) in [
        ("1e3", 1_000),
        ("\"1e3\"", 1_000),
        ("1.0", 1),
        ("\"10e-1\"", 1),
        ("-0.0", 0),
        ("\"0e5\"", 0),
        ("\"-1.50E+1\"", -15),
        ("9e15", 9_000_000_000_000_000),
        ("\"9.223372036854775807e18\"", i64::MAX),
    ] {
        assert_eq!(read(&format!("{{\"limit\":{number}}}")).limit, limit, "{number}");
    }
    for order in ["\"SIDEWAYS\"", "\"ascend\"", "\"1\"", "\"\"", "null"] {
        assert_eq!(read(&format!("{{\"sort_order\":{order}}}")).sort_order, 0, "{order}");
    }
    for key in ["YQ==", "YQ", "YR==", "Y\\nQ==\\n\\r\\n"] {
        assert_eq!(read(&format!("{{\"key\":\"{key}\"}}")).key, "a", "{key}");
    }
}

#[test]
fn a_stream_of_texts_is_taken_one_by_one() {
    let texts = b" {\"a\":1} {\"b\":2}{";
    assert_eq!(json::first(texts, false), Ok(Some(8)));
    assert_eq!(json::first(&texts[8..], false), Ok(Some(8)));
    assert_eq!(json::first(&texts[16..], false), Ok(None));
    assert!(json::first(&texts[16..], true).is_err());
    assert_eq!(json::first(b"  ", true), Ok(None));
    assert!(json::first(b"}", false).is_err());
}

#[test]
fn every_path_is_there_once() {
    for (place, route) in ROUTES.iter().enumerate() {
        assert!(ROUTES[..place].iter().all(|other| other.path != route.path), "{}", route.path);
        for shape in [route.request, route.answer] {
            let numbers: Vec<u32> = shape.0.iter().map(|field| field.number).collect();
            assert!(numbers.is_sorted(), "{}", route.path);
        }
    }
}
