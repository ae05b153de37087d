//! What is refused before it is sent, and what is sent: against a naive model where it is more than a
//! copy of fields.

use base::{AlarmKind, NodeId, Prng};
use bytes::Bytes;
use etcd::proto::cluster::MemberAddRequest;
use etcd::proto::kv::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, RequestUnion, TargetUnion,
    TxnRequest,
};
use etcd::proto::lease::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use etcd::proto::maintenance::{AlarmRequest, MoveLeaderRequest};
use etcd::proto::watch::WatchCreateRequest;
use etcd::request::{self, AlarmAsk, WatchRefusal};
use etcd::{Code, Failure};
use wire::AlarmChange;

fn below(prng: &mut Prng, bound: u64) -> usize {
    usize::try_from(prng.below(bound)).expect("a small number")
}

fn key(prng: &mut Prng) -> Bytes {
    // Seldom empty, which is refused.
    Bytes::from_static([&b"k"[..], b"l", b"mm", b"n"][below(prng, 4)])
        .slice(usize::from(prng.one_in(200))..)
        .clone()
}

fn operation(prng: &mut Prng, depth: u64) -> RequestOp {
    let request = match prng.below(if depth == 0 { 12 } else { 20 }) {
        0..4 => Some(RequestUnion::Range(RangeRequest {
            key: key(prng),
            sort_order: i32::try_from(prng.below(3)).expect("small"),
            sort_target: if prng.one_in(300) { 5 } else { 4 },
            ..RangeRequest::default()
        })),
        4..8 => Some(RequestUnion::Put(PutRequest {
            key: key(prng),
            value: Bytes::from_static(if prng.one_in(2) { b"" } else { b"v" }),
            lease: i64::from(prng.one_in(2)),
            ignore_value: prng.one_in(100),
            ignore_lease: prng.one_in(100),
            ..PutRequest::default()
        })),
        8..12 if prng.one_in(100) => None,
        8..12 => Some(RequestUnion::DeleteRange(DeleteRangeRequest {
            key: key(prng),
            ..DeleteRangeRequest::default()
        })),
        _ => Some(RequestUnion::Txn(transaction(prng, depth - 1))),
    };
    RequestOp { request }
}

fn transaction(prng: &mut Prng, depth: u64) -> TxnRequest {
    let compare =
        (0..below(prng, 4)).map(|_| Compare { key: key(prng), ..Compare::default() }).collect();
    let mut list = |count| (0..below(prng, count)).map(|_| operation(prng, depth)).collect();
    TxnRequest { compare, success: list(5), failure: list(3) }
}

/// What a transaction is refused with: all that is wrong in the order of the rules, then the first.
fn model(txn: &TxnRequest, budget: i64) -> Vec<Failure> {
    let mut wrong = Vec::new();
    let counts = [txn.compare.len(), txn.success.len(), txn.failure.len()];
    let most = i64::try_from(counts.into_iter().max().expect("three counts")).expect("small");
    if most > budget {
        wrong.push(Failure::TOO_MANY_OPS);
    }
    let empty = |key: &Bytes| key.is_empty().then_some(Failure::KEY_NOT_PROVIDED);
    wrong.extend(txn.compare.iter().filter_map(|compare| empty(&compare.key)));
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            None => wrong.push(Failure::KEY_NOT_FOUND),
            Some(RequestUnion::Range(range)) => {
                wrong.extend(empty(&range.key));
                let sorts =
                    (0..=2).contains(&range.sort_order) && (0..=4).contains(&range.sort_target);
                wrong.extend((!sorts).then_some(Failure::INVALID_SORT_OPTION));
            }
            Some(RequestUnion::Put(put)) => {
                wrong.extend(empty(&put.key));
                let value = put.ignore_value && put.value == "v";
                wrong.extend(value.then_some(Failure::VALUE_PROVIDED));
                let lease = put.ignore_lease && put.lease == 1;
                wrong.extend(lease.then_some(Failure::LEASE_PROVIDED));
            }
            Some(RequestUnion::DeleteRange(delete)) => wrong.extend(empty(&delete.key)),
            Some(RequestUnion::Txn(inner)) => wrong.extend(model(inner, budget - most)),
        }
    }
    wrong
}

fn mirrors(ops: &[RequestOp], sent: &[wire::Op<'_>]) {
    assert_eq!(ops.len(), sent.len());
    for pair in ops.iter().zip(sent) {
        match pair {
            (RequestOp { request: Some(RequestUnion::Range(asked)) }, wire::Op::Range(sent)) => {
                assert_eq!(asked.key, sent.key);
                assert_eq!(asked.sort_order, i32::from(sent.sort_order.number()));
            }
            (RequestOp { request: Some(RequestUnion::Put(asked)) }, wire::Op::Put(sent)) => {
                assert_eq!((&asked.key[..], &asked.value[..]), (sent.key, sent.value));
            }
            (
                RequestOp { request: Some(RequestUnion::DeleteRange(asked)) },
                wire::Op::DeleteRange(sent),
            ) => assert_eq!(asked.key, sent.key),
            (RequestOp { request: Some(RequestUnion::Txn(asked)) }, wire::Op::Txn(sent)) => {
                mirrors(&asked.success, &sent.success);
                mirrors(&asked.failure, &sent.failure);
            }
            (asked, sent) => panic!("{asked:?} was sent as {sent:?}"),
        }
    }
}

#[test]
fn a_transaction_is_refused_for_the_first_thing_wrong_and_else_sent_as_it_is() {
    let mut prng = Prng::new(1);
    let (mut sent, mut refused) = (0, std::collections::BTreeMap::new());
    for _ in 0..20_000 {
        let message = transaction(&mut prng, 4);
        let ops_max = 4 + below(&mut prng, 12);
        let expected = model(&message, i64::try_from(ops_max).expect("small")).into_iter().next();
        match (request::txn(&message, ops_max), expected) {
            (Ok(txn), None) => {
                mirrors(&message.success, &txn.success);
                mirrors(&message.failure, &txn.failure);
                sent += 1;
            }
            (Err(failure), Some(expected)) => {
                assert_eq!(failure, expected, "{message:?}");
                *refused.entry(failure.message).or_insert(0) += 1;
            }
            (result, expected) => panic!("{result:?} instead of {expected:?}: {message:?}"),
        }
    }
    assert!(sent > 1_000, "{sent} of 20,000 were sent");
    assert_eq!(refused.len(), 6, "each kind of refusal was met: {refused:?}");
}

/// What is sent fits the native protocol, and is verified there as what it is.
#[test]
fn a_transaction_survives_its_way_through_the_native_protocol() {
    let mut prng = Prng::new(2);
    let (mut sent, mut out) = (0, Vec::new());
    let mut encoder = wire::RequestEncoder::new();
    encoder.agree(wire::VERSION_MAX, 1 << 20);
    for _ in 0..4_000 {
        let message = transaction(&mut prng, 4);
        let Ok(txn) = request::txn(&message, 128) else { continue };
        out.clear();
        let id = base::RequestId::new(1);
        encoder.encode(&mut out, id, 0, &wire::Call::Txn(&txn)).expect("far below the limits");
        let body = &out[wire::HEADER_SIZE..];
        let limits = wire::VerifyLimits::REQUEST;
        let request = wire::Request::verify(wire::Kind::Txn, body, &limits).expect("well-formed");
        let wire::Request::Txn(view) = request else { panic!("not a transaction: {request:?}") };
        assert_eq!(wire::Txn::from(view), txn);
        sent += 1;
    }
    assert!(sent > 1_000, "{sent} of 4,000 were sent");
    encoder.agree(wire::VERSION_MAX, 64);
    let put = wire::Put::new(&[7; 100], b"");
    let error = encoder.encode(&mut out, base::RequestId::new(1), 0, &wire::Call::Put(put));
    assert_eq!(error.map_err(Failure::from), Err(Failure::REQUEST_TOO_LARGE));
}

/// A key's numbers: version, revisions, lease; and its value.
type Held = ([i64; 4], &'static [u8]);

/// How etcd judges a condition about a key, said in its own terms.
fn holds(compare: &Compare, held: Option<Held>) -> bool {
    let (numbers, value) = match held {
        None if compare.target == 3 => return false,
        None => ([0; 4], &b""[..]),
        Some(held) => held,
    };
    let number = |asked: Option<i64>, held: i64| held.cmp(&asked.unwrap_or(0));
    let order = match (compare.target, &compare.target_union) {
        (0, Some(TargetUnion::Version(asked))) => number(Some(*asked), numbers[0]),
        (1, Some(TargetUnion::CreateRevision(asked))) => number(Some(*asked), numbers[1]),
        (2, Some(TargetUnion::ModRevision(asked))) => number(Some(*asked), numbers[2]),
        (4, Some(TargetUnion::Lease(asked))) => number(Some(*asked), numbers[3]),
        (3, Some(TargetUnion::Value(asked))) => value.cmp(asked),
        (3, _) => value.cmp(b""),
        (target @ (0 | 1 | 2 | 4), _) => number(
            None,
            numbers[if target == 4 { 3 } else { usize::try_from(target).expect("small") }],
        ),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}

/// How a native condition is judged.
fn holds_natively(compare: &wire::Compare<'_>, held: Option<Held>) -> bool {
    use wire::{CompareResult, CompareTarget};
    let order = match (compare.target, held) {
        (CompareTarget::Value, None) => return false,
        (CompareTarget::Value, Some((_, value))) => value.cmp(compare.value),
        (target, held) => {
            let [version, create, modified, lease] = held.map_or([0; 4], |(numbers, _)| numbers);
            let number = match target {
                CompareTarget::Version => version,
                CompareTarget::CreateRevision => create,
                CompareTarget::ModRevision => modified,
                CompareTarget::Lease => lease,
                CompareTarget::Value => unreachable!("matched above"),
            };
            number.cmp(&compare.number)
        }
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

#[test]
fn a_condition_holds_natively_where_it_holds_in_etcd() {
    let mut keys: Vec<Option<Held>> = vec![None];
    for value in [&b""[..], b"a", b"b"] {
        for numbers in [[1, 1, 1, 0], [2, 1, 2, 0], [1, 2, 2, 1], [2, 1, 3, 2]] {
            keys.push(Some((numbers, value)));
        }
    }
    let mut unions: Vec<Option<TargetUnion>> = vec![None];
    for number in -1..=3 {
        unions.push(Some(TargetUnion::Version(number)));
        unions.push(Some(TargetUnion::CreateRevision(number)));
        unions.push(Some(TargetUnion::ModRevision(number)));
        unions.push(Some(TargetUnion::Lease(number)));
    }
    unions.extend(["", "a", "c"].map(|text| Some(TargetUnion::Value(text.into()))));
    for target in -1..=6 {
        for result in -1..=5 {
            for target_union in &unions {
                let compare = Compare {
                    result,
                    target,
                    key: "k".into(),
                    target_union: target_union.clone(),
                    range_end: "l".into(),
                };
                let message = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
                let txn = request::txn(&message, 1).expect("nothing is wrong");
                assert!(txn.compares.iter().all(|sent| sent.key == b"k" && sent.range_end == b"l"));
                for held in &keys {
                    let natively = txn.compares.iter().all(|sent| holds_natively(sent, *held));
                    let compare = &message.compare[0];
                    assert_eq!(natively, holds(compare, *held), "{compare:?} of {held:?}");
                }
            }
        }
    }
}

#[test]
fn a_read_in_parts_is_neither_sorted_nor_filtered() {
    let plain = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    assert!(request::range_stream(&plain).is_ok());
    // The order of keys is not one of its own, and a target without an order is none.
    for (order, target, is_sorted) in
        [(0, 0, false), (0, 3, false), (1, 0, false), (1, 1, true), (2, 0, true), (2, 4, true)]
    {
        let asked = RangeRequest { sort_order: order, sort_target: target, ..plain.clone() };
        let refused = request::range_stream(&asked).err();
        assert_eq!(refused, is_sorted.then_some(Failure::STREAM_SORTED), "{order} {target}");
    }
    let filtered = RangeRequest { max_create_revision: 1, ..plain.clone() };
    assert_eq!(request::range_stream(&filtered), Err(Failure::STREAM_FILTERED));
    let empty = RangeRequest { sort_order: 1, ..RangeRequest::default() };
    assert_eq!(request::range_stream(&empty), Err(Failure::KEY_NOT_PROVIDED));
}

#[test]
fn a_lease_lives_at_least_the_minimum_and_at_most_what_etcd_allows() {
    let grant = |ttl| {
        let granted = request::lease_grant(&LeaseGrantRequest { ttl, id: -5 }, 2);
        granted.map(|granted| (granted.lease, granted.ttl_ms))
    };
    for ttl in [i64::MIN, -1, 0, 1, 2] {
        assert_eq!(grant(ttl), Ok((-5, 2_000)));
    }
    assert_eq!(grant(60), Ok((-5, 60_000)));
    assert_eq!(grant(9_000_000_000), Ok((-5, base::limits::LEASE_TTL_MAX_MS)));
    assert_eq!(grant(9_000_000_001), Err(Failure::LEASE_TTL_TOO_LARGE));
    assert_eq!(grant(i64::MAX), Err(Failure::LEASE_TTL_TOO_LARGE));
    let revoked = request::lease_revoke(&LeaseRevokeRequest { id: 0 });
    assert_eq!(revoked, Err(Failure::LEASE_NOT_FOUND));
    let message = LeaseKeepAliveRequest { id: 7 };
    assert_eq!(request::lease_keep_alive(&message).leases.iter().collect::<Vec<_>>(), [7]);
}

#[test]
fn a_member_has_one_address_and_it_is_one() {
    let add = |urls: &[&str]| {
        let peer_urls = urls.iter().map(|url| (*url).to_string()).collect();
        let message = MemberAddRequest { peer_urls, is_learner: true };
        request::member_add(&message, "n").map(|change| change.peer_address.to_string())
    };
    assert_eq!(add(&["http://10.0.0.1:2380"]), Ok("10.0.0.1:2380".into()));
    assert_eq!(add(&["https://[::1]:2380"]), Ok("[::1]:2380".into()));
    let wrong: [&[&str]; 8] = [
        &[],
        &["http://a:1", "http://b:1"],
        &["a:1"],
        &["unix://a:1"],
        &["http://a"],
        &["http://:1"],
        &["http://a/b:1"],
        &["http://a:65536"],
    ];
    for urls in wrong {
        assert_eq!(add(urls), Err(Failure::BAD_MEMBER_URLS), "{urls:?}");
    }
    let moved = request::move_leader(&MoveLeaderRequest { target_id: 0 });
    assert_eq!(moved, Err(Failure::BAD_TRANSFEREE));
}

#[test]
fn a_watch_has_a_range_with_keys_and_a_first_revision() {
    let create = |key: &'static str, range_end: &'static str, start_revision| WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let range = |message: &WatchCreateRequest| {
        request::watch_range(message).map(|range| (range.key.to_vec(), range.range_end.to_vec()))
    };
    assert_eq!(range(&create("", "", 0)), Ok((vec![0], vec![])));
    assert_eq!(range(&create("", "\0", 0)), Ok((vec![0], vec![0])));
    assert_eq!(range(&create("b", "\0", 0)), Ok((b"b".to_vec(), vec![0])));
    assert_eq!(range(&create("b", "c", 9)), Ok((b"b".to_vec(), b"c".to_vec())));
    assert_eq!(range(&create("b", "b", 0)), Err(WatchRefusal::EmptyRange));
    assert_eq!(range(&create("b", "b", -1)), Err(WatchRefusal::NegativeRevision));
    assert_eq!(range(&create("b", "a", 0)), Err(WatchRefusal::EmptyRange));
    assert_eq!(range(&create("b", "c", -1)), Err(WatchRefusal::NegativeRevision));

    let message = WatchCreateRequest { filters: vec![1, 9], prev_kv: true, ..create("b", "", 3) };
    let ranges = [request::watch_range(&message).expect("a range")];
    let watch = request::watch(&message, &ranges, 600_000);
    assert_eq!((watch.no_put, watch.no_delete, watch.prev_kv), (false, true, true));
    assert_eq!((watch.start_revision, watch.progress_interval_ms), (3, 0));
    let message = WatchCreateRequest { progress_notify: true, ..message.clone() };
    assert_eq!(request::watch(&message, &ranges, 600_000).progress_interval_ms, 600_000);
}

#[test]
fn alarms_that_do_not_exist_are_refused() {
    let ask = |action, alarm| {
        let asked = request::alarm(&AlarmRequest { action, member_id: 0, alarm });
        asked.map_err(|failure| failure.code)
    };
    let change =
        |disarm, kind| Ok(AlarmAsk::Change(AlarmChange { disarm, kind, member: NodeId::new(0) }));
    assert_eq!(ask(0, 0), Ok(AlarmAsk::List(None)));
    assert_eq!(ask(0, 2), Ok(AlarmAsk::List(Some(AlarmKind::Corrupt))));
    assert_eq!(ask(1, 2), change(false, AlarmKind::Corrupt));
    assert_eq!(ask(2, 1), change(true, AlarmKind::NoSpace));
    assert_eq!((ask(1, 0), ask(2, 0)), (Ok(AlarmAsk::Nothing), Ok(AlarmAsk::Nothing)));
    for (action, alarm) in [(3, 0), (-1, 0), (0, 3), (0, i32::MAX)] {
        assert_eq!(ask(action, alarm), Err(Code::InvalidArgument));
    }
}

#[test]
fn leases_are_named_in_hexadecimal_with_their_sign() {
    let named = [0, 255, -1, -255, i64::MIN, i64::MAX].map(request::hexadecimal);
    let expected = ["0", "ff", "-1", "-ff", "-8000000000000000", "7fffffffffffffff"];
    assert_eq!(named, expected);
}

#[test]
fn what_etcd_would_go_back_to_is_the_version_before_in_two_or_three_numbers() {
    for (text, expected) in [
        ("3.6", Ok(())),
        ("3.6.9", Ok(())),
        ("3.7", Err(Failure::INVALID_DOWNGRADE_VERSION)),
        ("3.5", Err(Failure::INVALID_DOWNGRADE_VERSION)),
        ("3.99999999999999999999", Err(Failure::INVALID_DOWNGRADE_VERSION)),
        ("3", Err(Failure::WRONG_DOWNGRADE_VERSION_FORMAT)),
        ("3.6.0.1", Err(Failure::WRONG_DOWNGRADE_VERSION_FORMAT)),
        ("3.", Err(Failure::WRONG_DOWNGRADE_VERSION_FORMAT)),
        ("x", Err(Failure::WRONG_DOWNGRADE_VERSION_FORMAT)),
        ("", Err(Failure::WRONG_DOWNGRADE_VERSION_FORMAT)),
    ] {
        assert_eq!(request::downgrade_target(text), expected, "{text}");
    }
}
