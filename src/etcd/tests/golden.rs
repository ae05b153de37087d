//! Bytes of a few messages, put together by hand from the field numbers of the interface: a tag is
//! (field number << 3) | wire type, where type 0 is a varint and type 2 has a length.

use bytes::Bytes;
use etcd::proto::kv::{
    Compare, CompareResult, CompareTarget, Event, EventType, KeyValue, PutRequest, RangeRequest,
    RequestOp, RequestUnion, ResponseHeader, SortOrder, SortTarget, TargetUnion, TxnRequest,
};
use etcd::proto::lease::LeaseGrantResponse;
use etcd::proto::watch::{FilterType, WatchCreateRequest, WatchRequest, WatchResponse, WatchUnion};
use prost::Message;

/// Both ways: the bytes are the message, the message is the bytes.
fn agrees<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, bytes: &[u8]) {
    assert_eq!(message.encode_to_vec(), bytes);
    assert_eq!(&M::decode(bytes).expect("golden bytes decode"), message);
}

#[test]
fn a_range_with_all_its_fields() {
    let request = RangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"\0"),
        limit: 300,
        revision: -1,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Value.into(),
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    };
    let bytes: &[&[u8]] = &[
        &[1 << 3 | 2, 1, b'a'],
        &[2 << 3 | 2, 1, 0],
        &[3 << 3, 0xac, 0x02],
        // A negative number takes ten bytes.
        &[4 << 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        &[5 << 3, 2],
        &[6 << 3, 4],
        &[7 << 3, 1],
        &[8 << 3, 1],
        &[9 << 3, 1],
        &[10 << 3, 1],
        &[11 << 3, 2],
        &[12 << 3, 3],
        &[13 << 3, 4],
    ];
    agrees(&request, &bytes.concat());
}

/// What kube-apiserver sends to create an object.
#[test]
fn a_transaction_that_creates_a_key() {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: Bytes::from_static(b"k"),
        target_union: Some(TargetUnion::ModRevision(0)),
        range_end: Bytes::from_static(b"l"),
    };
    let put = PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"vv"),
        lease: 7,
        prev_kv: true,
        ..PutRequest::default()
    };
    let request = TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(RequestUnion::Put(put)) }],
        failure: vec![RequestOp { request: None }],
    };
    let compare: &[&[u8]] = &[
        // Field 1, the result, is the default and absent.
        &[2 << 3, 2],
        &[3 << 3 | 2, 1, b'k'],
        // A member of a union is there also when it is 0.
        &[6 << 3, 0],
        // 64 << 3 | 2 is 514: two bytes.
        &[0x82, 0x04, 1, b'l'],
    ];
    let put: &[&[u8]] =
        &[&[1 << 3 | 2, 1, b'k'], &[2 << 3 | 2, 2, b'v', b'v'], &[3 << 3, 7], &[4 << 3, 1]];
    let (compare, put) = (compare.concat(), put.concat());
    assert_eq!((compare.len(), put.len()), (11, 11));
    let bytes: &[&[u8]] = &[
        &[1 << 3 | 2, 11],
        &compare,
        // The operation, and in it field 2, the put.
        &[2 << 3 | 2, 13, 2 << 3 | 2, 11],
        &put,
        &[3 << 3 | 2, 0],
    ];
    agrees(&request, &bytes.concat());
}

#[test]
fn a_watch_that_is_created_with_filters() {
    let request = WatchRequest {
        request_union: Some(WatchUnion::Create(WatchCreateRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"b"),
            start_revision: 5,
            progress_notify: true,
            filters: vec![FilterType::NoPut.into(), FilterType::NoDelete.into()],
            prev_kv: true,
            watch_id: 9,
            fragment: true,
        })),
    };
    let create: &[&[u8]] = &[
        &[1 << 3 | 2, 1, b'a'],
        &[2 << 3 | 2, 1, b'b'],
        &[3 << 3, 5],
        &[4 << 3, 1],
        // Repeated numbers are packed.
        &[5 << 3 | 2, 2, 0, 1],
        &[6 << 3, 1],
        &[7 << 3, 9],
        &[8 << 3, 1],
    ];
    let create = create.concat();
    assert_eq!(create.len(), 20);
    agrees(&request, &[&[1 << 3 | 2, 20], create.as_slice()].concat());
}

#[test]
fn a_response_of_a_watch_with_an_event() {
    let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
    let kv = KeyValue {
        key: Bytes::from_static(b"k"),
        create_revision: 1,
        mod_revision: 2,
        version: 3,
        value: Bytes::from_static(b"v"),
        lease: 4,
    };
    let deleted = KeyValue { key: kv.key.clone(), mod_revision: 3, ..KeyValue::default() };
    let event =
        Event { r#type: EventType::Delete.into(), kv: Some(deleted), prev_kv: Some(kv.clone()) };
    let response = WatchResponse {
        header: Some(header),
        watch_id: -1,
        created: true,
        canceled: true,
        compact_revision: 5,
        cancel_reason: "r".into(),
        fragment: true,
        events: vec![event],
    };
    let kv: &[&[u8]] = &[
        &[1 << 3 | 2, 1, b'k'],
        &[2 << 3, 1],
        &[3 << 3, 2],
        &[4 << 3, 3],
        &[5 << 3 | 2, 1, b'v'],
        &[6 << 3, 4],
    ];
    let kv = kv.concat();
    assert_eq!(kv.len(), 14);
    let bytes: &[&[u8]] = &[
        &[1 << 3 | 2, 8, 1 << 3, 1, 2 << 3, 2, 3 << 3, 3, 4 << 3, 4],
        &[2 << 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        &[3 << 3, 1],
        &[4 << 3, 1],
        &[5 << 3, 5],
        &[6 << 3 | 2, 1, b'r'],
        &[7 << 3, 1],
        &[11 << 3 | 2, 25],
        &[1 << 3, 1],
        &[2 << 3 | 2, 5, 1 << 3 | 2, 1, b'k', 3 << 3, 3],
        &[3 << 3 | 2, 14],
        &kv,
    ];
    agrees(&response, &bytes.concat());
}

#[test]
fn a_lease_that_was_granted() {
    let header = ResponseHeader { cluster_id: 1 << 63, revision: 1, ..ResponseHeader::default() };
    let response =
        LeaseGrantResponse { header: Some(header), id: 128, ttl: 60, error: String::new() };
    let bytes: &[&[u8]] = &[
        &[1 << 3 | 2, 13],
        &[1 << 3, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1],
        &[3 << 3, 1],
        &[2 << 3, 128, 1],
        &[3 << 3, 60],
    ];
    agrees(&response, &bytes.concat());
}

#[test]
fn keys_and_values_are_not_copied_by_decoding() {
    let put = PutRequest {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        ..PutRequest::default()
    };
    let op = RequestOp { request: Some(RequestUnion::Put(put)) };
    let bytes =
        Bytes::from(TxnRequest { success: vec![op], ..TxnRequest::default() }.encode_to_vec());
    let decoded = TxnRequest::decode(bytes.clone()).expect("what was encoded decodes");
    let Some(RequestUnion::Put(put)) = &decoded.success[0].request else {
        panic!("a put was encoded");
    };
    assert!(bytes.as_ptr_range().contains(&put.key.as_ptr()));
    assert!(bytes.as_ptr_range().contains(&put.value.as_ptr()));
}
