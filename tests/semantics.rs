//! What requests mean, seen from a client of a living server: etcd's data model with the behaviours that
//! re-implementations get wrong, large ranges and values, and a random history against a naive oracle,
//! through crashes. How bytes travel is not looked at here (protocol.rs).

#![allow(clippy::unwrap_used)]

mod process;

use std::collections::BTreeMap;

use base::Prng;
use client::{
    Client, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Error, Op, OpResult,
    OwnedKeyValue, Put, Range, RangeResult, SortOrder, SortTarget, Status, Txn, TxnResult,
};
use process::{DataDir, SMALL, Server, scale, seed};

const ALL: Range<'static> = Range {
    key: b"\0",
    range_end: b"\0",
    limit: 0,
    revision: 0,
    sort_order: SortOrder::None,
    sort_target: SortTarget::Key,
    serializable: false,
    keys_only: false,
    count_only: false,
    min_mod_revision: 0,
    max_mod_revision: 0,
    min_create_revision: 0,
    max_create_revision: 0,
};

fn start(name: &str) -> (DataDir, Server, Client) {
    let dir = DataDir::new(name);
    let server = Server::start(dir.path(), SMALL);
    let client = server.client();
    (dir, server, client)
}

/// A server with these keys, put one by one from revision 2 on.
fn with_keys(name: &str, pairs: &[(&str, &str)]) -> (DataDir, Server, Client) {
    let (dir, server, mut client) = start(name);
    for (at, (key, value)) in pairs.iter().enumerate() {
        assert_eq!(put(&mut client, key, value), i64::try_from(at).unwrap() + 2);
    }
    (dir, server, client)
}

fn put(client: &mut Client, key: &str, value: &str) -> i64 {
    client.put(&Put::new(key.as_bytes(), value.as_bytes())).unwrap().revision
}

fn compact(client: &mut Client, revision: i64) -> Result<i64, Error> {
    client.compact(&Compact { revision, physical: false })
}

/// The status of a refusal, with its text; whatever else happened is a failure.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Status, String) {
    match result {
        Err(Error::Refused(refusal)) => (refusal.status, refusal.message),
        other => panic!("not refused: {other:?}"),
    }
}

fn keys(result: &RangeResult) -> Vec<String> {
    result.kvs.iter().map(|pair| String::from_utf8(pair.key.clone()).unwrap()).collect()
}

fn revision(client: &mut Client) -> i64 {
    client.range(&Range::one(b"no such key")).unwrap().revision
}

fn number(key: &str, target: CompareTarget, result: CompareResult, number: i64) -> Compare<'_> {
    Compare::number(key.as_bytes(), target, result, number)
}

fn holds(client: &mut Client, compare: Compare<'_>) -> bool {
    client.txn(&Txn::new().when(compare)).unwrap().succeeded
}

fn op_put<'a>(key: &'a str, value: &'a str) -> Op<'a> {
    Op::Put(Put::new(key.as_bytes(), value.as_bytes()))
}

fn op_delete<'a>(key: &'a str, end: &'a str) -> Op<'a> {
    Op::DeleteRange(DeleteRange::between(key.as_bytes(), end.as_bytes()))
}

fn all_of(ops: Vec<Op<'_>>) -> Txn<'_> {
    Txn { success: ops, ..Txn::new() }
}

fn nested(txn: Txn<'_>) -> Op<'_> {
    Op::Txn(Box::new(txn))
}

// ---------------------------------------------------------------------------------- reads

#[test]
fn count_is_of_the_whole_range_while_more_is_of_what_passed_the_filters() {
    let (_dir, _server, mut client) =
        with_keys("count", &[("a", ""), ("b", ""), ("c", ""), ("d", "")]);
    let limited = client.range(&Range { limit: 2, ..ALL }).unwrap();
    assert_eq!((keys(&limited).join(""), limited.count, limited.more), ("ab".into(), 4, true));
    let filtered = client.range(&Range { limit: 2, max_mod_revision: 3, ..ALL }).unwrap();
    assert_eq!((keys(&filtered).join(""), filtered.count, filtered.more), ("ab".into(), 4, false));
    let filtered = client.range(&Range { limit: 1, min_create_revision: 4, ..ALL }).unwrap();
    assert_eq!((keys(&filtered).join(""), filtered.count, filtered.more), ("c".into(), 4, true));
    let counted = client.range(&Range { count_only: true, limit: 1, ..ALL }).unwrap();
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (0, 4, false));
    for limit in [i64::MIN, -1, 0, 4, i64::MAX] {
        let result = client.range(&Range { limit, ..ALL }).unwrap();
        assert_eq!((result.kvs.len(), result.more), (4, false), "limit {limit}");
    }
    let at = client.range(&Range { count_only: true, revision: 3, ..ALL }).unwrap();
    assert_eq!((at.count, at.revision), (2, 5));
}

#[test]
fn a_read_at_an_old_revision_names_the_current_one() {
    let (_dir, _server, mut client) = with_keys("header", &[("a", "1"), ("a", "2"), ("a", "3")]);
    let old = client.range(&Range { revision: 2, ..Range::one(b"a") }).unwrap();
    assert_eq!((old.kvs[0].value.as_slice(), old.revision), (&b"1"[..], 4));
    assert_eq!((old.kvs[0].version, old.kvs[0].mod_revision), (1, 2));
    let newest = client.range(&Range { revision: -7, ..Range::one(b"a") }).unwrap();
    assert_eq!((newest.kvs[0].value.as_slice(), newest.kvs[0].version), (&b"3"[..], 3));
    let future = client.range(&Range { revision: 5, ..Range::one(b"a") });
    assert_eq!(refusal(future).0, Status::FutureRevision);
    let past = client.range(&Range { revision: 1, ..ALL }).unwrap();
    assert_eq!((past.count, past.kvs.len()), (0, 0));
}

#[test]
// Without an order etcd reads one key more than the limit, sorts those, and cuts.
fn a_sort_without_an_order_comes_after_the_limit_and_with_one_before_it() {
    let (_dir, _server, mut client) = with_keys(
        "sort",
        &[("a", "9"), ("b", "8"), ("c", "7"), ("d", "1"), ("b", "8"), ("a", "9")],
    );
    let sorted = |client: &mut Client, target, order, limit| {
        let range = Range { sort_target: target, sort_order: order, limit, ..ALL };
        keys(&client.range(&range).unwrap()).join("")
    };
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{CreateRevision, Key, ModRevision, Value, Version};
    for (target, order, limit, expected) in [
        (Value, None, 2, "cb"),
        (Value, Ascend, 2, "dc"),
        (Value, Descend, 2, "ab"),
        (Key, None, 2, "ab"),
        (Key, Ascend, 3, "abc"),
        (Key, Descend, 1, "d"),
        (Key, Descend, 0, "dcba"),
        (CreateRevision, Descend, 1, "d"),
        (CreateRevision, Ascend, 0, "abcd"),
        (ModRevision, Ascend, 0, "cdba"),
        (ModRevision, Descend, 1, "a"),
        (ModRevision, None, 2, "cb"),
    ] {
        let seen = sorted(&mut client, target, order, limit);
        assert_eq!(seen, expected, "{target:?} {order:?} {limit}");
    }
    let last = sorted(&mut client, Version, Descend, 2);
    assert!(last == "ab" || last == "ba", "{last}");
    // A filter lifts the limit before sorting as well; keys alone can be sorted by value.
    let range = Range { sort_target: Value, min_mod_revision: 1, limit: 2, ..ALL };
    assert_eq!(keys(&client.range(&range).unwrap()).join(""), "dc");
    let range = Range { sort_target: Value, sort_order: Descend, keys_only: true, ..ALL };
    let result = client.range(&range).unwrap();
    assert_eq!(keys(&result).join(""), "abcd");
    assert!(result.kvs.iter().all(|pair| pair.value.is_empty() && pair.mod_revision > 0));
}

#[test]
fn ranges_have_the_ends_that_etcd_gives_them() {
    let (_dir, _server, mut client) =
        with_keys("ends", &[("a", ""), ("a/1", ""), ("a/2", ""), ("a0", ""), ("b", "")]);
    client.put(&Put::new(b"\0", b"")).unwrap();
    client.put(&Put::new(b"\xff\xff", b"")).unwrap();
    let count = |client: &mut Client, key: &[u8], end: &[u8]| {
        let result = client.range(&Range::between(key, end)).unwrap();
        assert_eq!(i64::try_from(result.kvs.len()).unwrap(), result.count);
        result.count
    };
    for (key, end, expected) in [
        (&b"\0"[..], &b"\0"[..], 7),
        (b"a", b"\0", 6),
        (b"a", b"", 1),
        (b"a/", b"a0", 2),
        (b"a", b"b", 4),
        (b"b", b"a", 0),
        (b"a", b"a", 0),
        (b"a", b"\0\0", 0),
        (b"\xff", b"\0", 1),
        (b"\xff", client::prefix_end(b"\xff").as_slice(), 1),
        (b"nothing", b"", 0),
    ] {
        assert_eq!(count(&mut client, key, end), expected, "{key:?} {end:?}");
    }
    assert_eq!(count(&mut client, b"a/", &client::prefix_end(b"a/")), 2);
    assert_eq!(refusal(client.range(&Range::between(b"", b"\0"))).0, Status::InvalidArgument);
}

#[test]
fn serializable_reads_of_a_lone_member_see_its_own_writes() {
    let (_dir, _server, mut client) = with_keys("serializable", &[("a", "1")]);
    for round in 0..200 {
        let revision = put(&mut client, "a", &round.to_string());
        let range = Range { serializable: true, ..Range::one(b"a") };
        let seen = client.range(&range).unwrap();
        assert_eq!((seen.kvs[0].mod_revision, seen.revision), (revision, revision));
    }
}

// ---------------------------------------------------------------------------------- writes

#[test]
fn only_changes_move_the_revision_and_each_request_moves_it_once() {
    let (_dir, _server, mut client) = with_keys("revision", &[("a", "same")]);
    assert_eq!(put(&mut client, "a", "same"), 3);
    let nothing = client.delete(&DeleteRange::one(b"absent")).unwrap();
    assert_eq!((nothing.deleted, nothing.revision), (0, 3));
    compact(&mut client, 2).unwrap();
    let unchanged = Txn::new()
        .when(number("a", CompareTarget::Version, CompareResult::Equal, 9))
        .then(op_put("b", ""))
        .otherwise(Op::Range(Range::one(b"a")));
    let result = client.txn(&unchanged).unwrap();
    assert_eq!((result.succeeded, result.revision), (false, 3));
    client.txn(&all_of(vec![op_delete("absent", "")])).unwrap();
    client.txn(&Txn::new()).unwrap();
    assert_eq!(
        refusal(client.put(&Put { lease: 5, ..Put::new(b"a", b"") })).0,
        Status::LeaseNotFound
    );
    assert_eq!(revision(&mut client), 3);
    let changes = vec![op_put("b", ""), op_put("c", ""), op_delete("a", "")];
    assert_eq!(client.txn(&all_of(changes)).unwrap().revision, 4);
    let deleted = client.delete(&DeleteRange::between(b"b", b"\0")).unwrap();
    assert_eq!((deleted.deleted, deleted.revision), (2, 5));
    assert_eq!(revision(&mut client), 5);
}

#[test]
fn a_key_that_comes_back_begins_a_new_life_and_its_past_stays() {
    let (_dir, _server, mut client) = with_keys("life", &[("a", "1"), ("a", "2")]);
    client.delete(&DeleteRange::one(b"a")).unwrap();
    put(&mut client, "a", "3");
    let now = client.get(b"a").unwrap().unwrap();
    assert_eq!((now.version, now.create_revision, now.mod_revision, now.lease), (1, 5, 5, 0));
    let at = |client: &mut Client, revision| {
        let range = Range { revision, ..Range::one(b"a") };
        client.range(&range).unwrap().kvs.pop()
    };
    let old = at(&mut client, 3).unwrap();
    assert_eq!((old.version, old.create_revision, old.mod_revision), (2, 2, 3));
    assert_eq!(at(&mut client, 4), None);
}

#[test]
fn the_past_of_a_put_or_a_delete_is_what_was_there() {
    let (_dir, _server, mut client) = with_keys("prev", &[("a", "1"), ("b", "2")]);
    let with_past = |key| Put { prev_kv: true, ..Put::new(key, b"new") };
    let previous = client.put(&with_past(b"a")).unwrap().previous.unwrap();
    let expected = OwnedKeyValue {
        key: b"a".to_vec(),
        value: b"1".to_vec(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        lease: 0,
    };
    assert_eq!(previous, expected);
    assert_eq!(client.put(&with_past(b"fresh")).unwrap().previous, None);
    let delete = DeleteRange { prev_kv: true, ..DeleteRange::between(b"a", b"\0") };
    let result = client.delete(&delete).unwrap();
    let values: Vec<_> = result.previous.iter().map(|pair| pair.value.as_slice()).collect();
    assert_eq!((result.deleted, values), (3, vec![&b"new"[..], b"2", b"new"]));
    assert_eq!(client.delete(&delete).unwrap().previous, []);
}

#[test]
fn flags_that_keep_a_value_or_a_lease_want_a_key_and_nothing_else() {
    let (_dir, _server, mut client) = with_keys("ignore", &[("a", "kept")]);
    let keep = |key| Put { ignore_value: true, ..Put::new(key, b"") };
    client.put(&keep(b"a")).unwrap();
    client.put(&Put { ignore_lease: true, ..keep(b"a") }).unwrap();
    client.put(&Put { ignore_lease: true, ..Put::new(b"a", b"changed") }).unwrap();
    let pair = client.get(b"a").unwrap().unwrap();
    assert_eq!((pair.value.as_slice(), pair.version, pair.mod_revision), (&b"changed"[..], 4, 5));
    for (put, status, text) in [
        (keep(b"x"), Status::KeyNotFound, "key not found"),
        (Put { ignore_lease: true, ..Put::new(b"x", b"v") }, Status::KeyNotFound, "key not found"),
        (
            Put { ignore_value: true, ..Put::new(b"a", b"v") },
            Status::InvalidArgument,
            "value is provided",
        ),
        (
            Put { ignore_lease: true, lease: 9, ..Put::new(b"a", b"v") },
            Status::InvalidArgument,
            "lease is provided",
        ),
        (
            Put { lease: -1, ..Put::new(b"a", b"") },
            Status::LeaseNotFound,
            "requested lease not found",
        ),
        (Put::new(b"", b"v"), Status::InvalidArgument, "key is not provided"),
    ] {
        assert_eq!(refusal(client.put(&put)), (status, text.to_owned()), "{put:?}");
    }
    assert_eq!(revision(&mut client), 5);
}

// ---------------------------------------------------------------------------------- transactions

#[test]
fn a_value_compare_with_an_absent_key_never_holds_and_other_targets_see_zeros() {
    let (_dir, _server, mut client) = with_keys("compare", &[("there", "v")]);
    use CompareResult::{Equal, Greater, Less, NotEqual};
    for result in [Equal, Greater, Less, NotEqual] {
        assert!(!holds(&mut client, Compare::value(b"absent", result, b"")), "{result:?}");
        let range = Compare { range_end: b"b", ..Compare::value(b"a", result, b"x") };
        assert!(!holds(&mut client, range), "{result:?}");
    }
    use CompareTarget::{CreateRevision, Lease, ModRevision, Version};
    for target in [Version, CreateRevision, ModRevision, Lease] {
        assert!(holds(&mut client, number("absent", target, Equal, 0)), "{target:?}");
        assert!(holds(&mut client, number("absent", target, Less, 1)), "{target:?}");
        assert!(holds(&mut client, number("absent", target, Greater, i64::MIN)), "{target:?}");
        assert!(!holds(&mut client, number("absent", target, NotEqual, 0)), "{target:?}");
    }
    assert!(holds(&mut client, Compare::value(b"there", Equal, b"v")));
    assert!(holds(&mut client, Compare::value(b"there", Greater, b"")));
    assert!(holds(&mut client, Compare::value(b"there", Less, b"va")));
    assert!(holds(&mut client, number("there", Lease, Equal, 0)));
    // Every key of a range must pass.
    put(&mut client, "there/too", "w");
    let every = |end| Compare { range_end: end, ..Compare::value(b"there", Equal, b"v") };
    assert!(holds(&mut client, every(b"there/")));
    assert!(!holds(&mut client, every(b"\0")));
    let error = client.txn(&Txn::new().when(Compare::value(b"", Equal, b"")));
    assert_eq!(refusal(error), (Status::InvalidArgument, "key is not provided".into()));
}

#[test]
fn nested_compares_see_the_state_before_the_transaction() {
    let (_dir, _server, mut client) = start("nested");
    let inner = Txn::new()
        .when(number("a", CompareTarget::Version, CompareResult::Equal, 0))
        .then(op_put("b", "absent before"))
        .otherwise(op_put("b", "seen"));
    let result = client.txn(&all_of(vec![op_put("a", ""), nested(inner)])).unwrap();
    let OpResult::Txn(TxnResult { succeeded, responses, .. }) = &result.responses[1] else {
        panic!("{result:?}");
    };
    assert!(*succeeded && matches!(responses[..], [OpResult::Put(_)]));
    assert_eq!(client.get(b"b").unwrap().unwrap().value, b"absent before");
}

#[test]
fn duplicate_keys_are_found_in_both_branches_and_where_etcd_finds_them() {
    let (_dir, _server, mut client) = with_keys("duplicates", &[("k", "old")]);
    let both = |inner: Op<'static>, other: Op<'static>| {
        nested(Txn { success: vec![inner], failure: vec![other], ..Txn::new() })
    };
    let refused: Vec<Txn<'_>> = vec![
        all_of(vec![op_put("k", "1"), op_put("k", "2")]),
        Txn { failure: vec![op_put("k", "1"), op_put("k", "2")], ..Txn::new() },
        all_of(vec![op_put("k", "1"), op_delete("k", "")]),
        all_of(vec![op_delete("a", "z"), op_put("k", "1")]),
        all_of(vec![op_put("k", "1"), nested(all_of(vec![op_put("k", "2")]))]),
        all_of(vec![
            nested(all_of(vec![op_put("k", "1")])),
            nested(all_of(vec![op_put("k", "2")])),
        ]),
    ];
    for txn in refused {
        let expected = (Status::DuplicateKey, "duplicate key given in txn request".to_owned());
        assert_eq!(refusal(client.txn(&txn)), expected, "{txn:?}");
    }
    assert_eq!(revision(&mut client), 2);
    let accepted: Vec<Txn<'_>> = vec![
        all_of(vec![both(op_put("k", "1"), op_put("k", "2"))]),
        all_of(vec![op_delete("a", "z"), op_delete("k", "zz")]),
        all_of(vec![op_put("k", "1"), Op::Range(Range::one(b"k")), Op::Range(ALL)]),
        all_of(vec![op_put("k", "1"), op_delete("a", "k"), op_delete("k0", "z")]),
    ];
    for txn in accepted {
        client.txn(&txn).unwrap_or_else(|error| panic!("{error}: {txn:?}"));
    }
}

#[test]
fn one_bad_operation_on_the_taken_path_undoes_the_whole_transaction() {
    let (_dir, _server, mut client) = with_keys("atomic", &[("a", "1"), ("a", "2"), ("a", "3")]);
    compact(&mut client, 3).unwrap();
    let range = |revision| Op::Range(Range { revision, ..Range::one(b"a") });
    let bad = [
        (Op::Put(Put { lease: 5, ..Put::new(b"x", b"") }), Status::LeaseNotFound),
        (Op::Put(Put { ignore_value: true, ..Put::new(b"x", b"") }), Status::KeyNotFound),
        (Op::Put(Put { ignore_lease: true, ..Put::new(b"x", b"v") }), Status::KeyNotFound),
        (range(5), Status::FutureRevision),
        (range(i64::MAX), Status::FutureRevision),
        (range(2), Status::Compacted),
        (range(-1), Status::Compacted),
        (range(i64::MIN), Status::Compacted),
    ];
    for (op, status) in &bad {
        let flat = all_of(vec![op_put("new", ""), op.clone()]);
        assert_eq!(refusal(client.txn(&flat)).0, *status, "{op:?}");
        let deep = all_of(vec![op_put("new", ""), nested(all_of(vec![op.clone()]))]);
        assert_eq!(refusal(client.txn(&deep)).0, *status, "{op:?}");
    }
    assert_eq!((revision(&mut client), client.get(b"new").unwrap()), (4, None));
    // On the path that is not taken it does no harm.
    for (op, _) in bad {
        client.txn(&Txn::new().then(op_put("new", "")).otherwise(op)).unwrap();
    }
    assert_eq!(revision(&mut client), 4 + 8);
}

#[test]
fn operations_of_a_transaction_see_those_before_them() {
    let (_dir, _server, mut client) = with_keys("within", &[("a", "1"), ("b", "2")]);
    let delete = DeleteRange { prev_kv: true, ..DeleteRange::between(b"b", b"\0") };
    let result = client
        .txn(&all_of(vec![
            Op::Range(ALL),
            op_put("c", "3"),
            Op::Range(Range { limit: 1, ..ALL }),
            nested(all_of(vec![Op::DeleteRange(delete)])),
            Op::Range(Range { revision: 2, ..ALL }),
            Op::Put(Put { prev_kv: true, ..Put::new(b"a", b"new") }),
            Op::Range(Range { count_only: true, ..ALL }),
        ]))
        .unwrap();
    assert_eq!((result.revision, result.succeeded), (4, true));
    let range = |at: usize| match &result.responses[at] {
        OpResult::Range(range) => (keys(range).join(""), range.count, range.more),
        other => panic!("{other:?}"),
    };
    assert_eq!(range(0), ("ab".into(), 2, false));
    assert_eq!(range(2), ("a".into(), 3, true));
    assert_eq!(range(4), ("a".into(), 1, false));
    assert_eq!(range(6), (String::new(), 1, false));
    let OpResult::Txn(TxnResult { responses, .. }) = &result.responses[3] else { panic!() };
    let OpResult::DeleteRange(deleted) = &responses[0] else { panic!("{responses:?}") };
    assert_eq!((deleted.deleted, deleted.previous[1].value.as_slice()), (2, &b"3"[..]));
    let OpResult::Put(put) = &result.responses[5] else { panic!() };
    assert_eq!(put.previous.as_ref().unwrap().value, b"1");
}

/// These stop an etcd for good; here each is refused whole, and a restart knows nothing of it.
#[test]
fn inputs_that_crash_etcd_are_refused_and_a_restart_applies_them_again() {
    let dir = DataDir::new("crash-inputs");
    let server = Server::start(dir.path(), SMALL);
    let mut client = server.client();
    for key in ["a", "b", "c"] {
        put(&mut client, key, "old");
    }
    let keep = |key: &'static [u8]| Op::Put(Put { ignore_value: true, ..Put::new(key, b"") });
    let keep_lease =
        |key: &'static [u8]| Op::Put(Put { ignore_lease: true, ..Put::new(key, b"v") });
    let cases = [
        vec![op_delete("a", "\0"), keep(b"b")],
        vec![op_delete("a", "\0"), keep_lease(b"b")],
        vec![nested(all_of(vec![op_delete("a", "\0")])), nested(all_of(vec![keep(b"c")]))],
        vec![nested(all_of(vec![nested(all_of(vec![op_delete("b", "\0")]))])), keep(b"b")],
    ];
    for ops in cases {
        let txn = all_of(ops);
        assert_eq!(
            refusal(client.txn(&txn)),
            (Status::KeyNotFound, "key not found".to_owned()),
            "{txn:?}"
        );
    }
    // A range that ends is found by the duplicate rule before it gets into the log.
    let covered = all_of(vec![op_delete("a", "c"), keep(b"b")]);
    assert_eq!(refusal(client.txn(&covered)).0, Status::DuplicateKey);
    client.txn(&all_of(vec![keep(b"a"), op_delete("b", "\0")])).unwrap();
    assert_eq!(client.range(&ALL).unwrap().count, 1);
    assert!(server.kill().was_killed());
    let server = Server::start(dir.path(), SMALL);
    let mut client = server.client();
    let pair = client.get(b"a").unwrap().unwrap();
    assert_eq!(
        (pair.value.as_slice(), pair.version, client.range(&ALL).unwrap().revision),
        (&b"old"[..], 2, 5)
    );
    drop(server.kill());
    process::check_clean(dir.path());
}

// ---------------------------------------------------------------------------------- compaction

#[test]
fn compaction_keeps_its_own_revision_and_refuses_the_same_and_the_future() {
    let (_dir, _server, mut client) = with_keys("compact", &[("a", "1"), ("b", "1"), ("a", "2")]);
    client.delete(&DeleteRange::one(b"a")).unwrap();
    put(&mut client, "b", "2");
    assert_eq!(refusal(compact(&mut client, 7)).0, Status::FutureRevision);
    assert_eq!(compact(&mut client, 5).unwrap(), 6);
    for revision in [5, 4, 1, 0, -1, i64::MIN] {
        let (status, text) = refusal(compact(&mut client, revision));
        assert_eq!(status, Status::Compacted, "{revision}");
        assert!(text.contains("required revision has been compacted"), "{text}");
    }
    let at = |client: &mut Client, revision| client.range(&Range { revision, ..ALL });
    match at(&mut client, 4) {
        Err(Error::Refused(refusal)) => {
            assert_eq!((refusal.status, refusal.compacted_revision), (Status::Compacted, 5));
        }
        other => panic!("{other:?}"),
    }
    let boundary = at(&mut client, 5).unwrap();
    assert_eq!(
        (keys(&boundary).join(""), boundary.kvs[0].value.as_slice()),
        ("b".into(), &b"1"[..])
    );
    assert_eq!(at(&mut client, 6).unwrap().kvs[0].value, b"2");
    assert_eq!(revision(&mut client), 6);
    // Physical: the answer comes when the past is gone.
    client.compact(&Compact { revision: 6, physical: true }).unwrap();
    assert_eq!(refusal(at(&mut client, 5)).0, Status::Compacted);
    assert_eq!(client.status().unwrap().compacted_revision, 6);
    assert_eq!(at(&mut client, 6).unwrap().count, 1);
}

#[test]
fn an_empty_store_is_at_revision_one_and_can_be_compacted_there_once() {
    let (_dir, _server, mut client) = start("empty");
    assert_eq!(revision(&mut client), 1);
    assert_eq!(client.range(&Range { revision: 1, ..ALL }).unwrap().count, 0);
    assert_eq!(refusal(client.range(&Range { revision: 2, ..ALL })).0, Status::FutureRevision);
    assert_eq!(refusal(compact(&mut client, 2)).0, Status::FutureRevision);
    assert_eq!(client.compact(&Compact { revision: 1, physical: true }).unwrap(), 1);
    assert_eq!(refusal(compact(&mut client, 1)).0, Status::Compacted);
    assert_eq!(put(&mut client, "first", ""), 2);
}

#[test]
fn physical_compaction_gives_the_space_of_the_past_back() {
    let (_dir, server, mut client) = start("physical");
    let value = "v".repeat(60_000);
    let mut last = 0;
    for round in 0..1_000 {
        last = put(&mut client, &format!("key/{}", round % 10), &value);
    }
    client.compact(&Compact { revision: last, physical: true }).unwrap();
    let live = 10 * 60_000;
    // Pages of the past become free with the checkpoints that follow; some writes bring them about.
    let mut in_use = u64::MAX;
    for round in 0..20_000 {
        put(&mut client, "other", "v");
        in_use = client.status().unwrap().file_size_in_use;
        if in_use < 5 * live {
            eprintln!("{in_use} bytes in use after {round} more puts");
            break;
        }
    }
    assert!(in_use < 5 * live, "{in_use} bytes in use for {live}; {}", server.stderr());
    let seen = client.range(&Range::between(b"key/", b"key0")).unwrap();
    assert!(seen.count == 10 && seen.kvs.iter().all(|pair| pair.value.len() == 60_000));
}

// ---------------------------------------------------------------------------------- size

#[test]
fn a_hundred_thousand_keys_come_in_pieces_and_in_order() {
    let (_dir, server, mut client) = start("many");
    let count = 100_000_u32;
    let ops = 100;
    for first in (0..count).step_by(ops) {
        let keys: Vec<String> =
            (first..first + 100).map(|number| format!("many/{number:06}")).collect();
        let txn = Txn { success: keys.iter().map(|key| op_put(key, key)).collect(), ..Txn::new() };
        client.txn(&txn).unwrap();
    }
    let mut next = 0;
    let summary = client
        .range_each(&Range::between(b"many/", b"many0"), |pair| {
            let key = format!("many/{next:06}");
            assert_eq!((pair.key, pair.value), (key.as_bytes(), key.as_bytes()));
            next += 1;
        })
        .unwrap();
    assert_eq!((next, summary.count, summary.more), (count, i64::from(count), false));
    let backwards = Range { sort_order: SortOrder::Descend, keys_only: true, limit: 50_000, ..ALL };
    let mut next = count;
    let summary = client
        .range_each(&backwards, |pair| {
            next -= 1;
            assert_eq!(pair.key, format!("many/{next:06}").as_bytes());
        })
        .unwrap();
    assert_eq!((next, summary.count, summary.more), (50_000, 100_000, true));
    // A range that is being read stays as it was while others write and delete.
    let mut other = server.client();
    let mut seen = 0;
    let summary = client
        .range_each(&Range::between(b"many/", b"many0"), |_| {
            seen += 1;
            if seen == 1_000 {
                let delete = DeleteRange::between(b"many/05", b"many/06");
                assert_eq!(other.delete(&delete).unwrap().deleted, 10_000);
                put(&mut other, "many/000000x", "late");
            }
        })
        .unwrap();
    assert_eq!((seen, summary.count), (count, i64::from(count)));
    let counted = client.range(&Range { count_only: true, ..ALL }).unwrap();
    assert_eq!(counted.count, 90_001);
    let deleted = client.delete(&DeleteRange::between(b"\0", b"\0")).unwrap();
    assert_eq!(deleted.deleted, 90_001);
    let old = Range { count_only: true, revision: summary.revision, ..ALL };
    assert_eq!(client.range(&old).unwrap().count, i64::from(count));
}

#[test]
fn large_values_come_back_from_any_revision_whatever_the_cache_holds() {
    let dir = DataDir::new("large");
    let server = Server::start(dir.path(), SMALL);
    let mut client = server.client();
    let value = |number: u64| {
        let mut prng = Prng::new(number);
        let mut bytes = vec![0; usize::try_from(prng.below(1_500_000)).unwrap()];
        prng.fill(&mut bytes);
        bytes
    };
    let count = 100;
    for number in 0..count {
        let key = [b'l', u8::try_from(number % 20).unwrap()];
        client.put(&Put::new(&key, &value(number))).unwrap();
    }
    let check = |client: &mut Client| {
        for number in (0..count).rev() {
            let key = [b'l', u8::try_from(number % 20).unwrap()];
            let revision = i64::try_from(number).unwrap() + 2;
            let range = Range { revision, ..Range::one(&key) };
            let seen = client.range(&range).unwrap().kvs.pop().unwrap();
            assert!(seen.value == value(number), "number {number} came back changed");
        }
        let all = client.range(&Range::between(b"l", b"m")).unwrap();
        assert_eq!(all.kvs.len(), 20);
        for (at, pair) in (80..).zip(&all.kvs) {
            assert!(pair.value == value(at), "number {at} came back changed");
        }
    };
    check(&mut client);
    assert!(server.kill().was_killed());
    let server = Server::start(dir.path(), SMALL);
    check(&mut server.client());
    drop(server.kill());
    process::check_clean(dir.path());
}

// ---------------------------------------------------------------------------------- random histories

#[derive(Clone, PartialEq, Debug)]
struct Pair {
    value: Vec<u8>,
    create: i64,
    modified: i64,
    version: i64,
}

type Snapshot = BTreeMap<Vec<u8>, Pair>;

/// The state at every revision, each as a whole.
struct Oracle {
    /// By revision; the first two are empty.
    snapshots: Vec<Snapshot>,
    /// As etcd has it: -1 before the first compaction, which may name revision 0 therefore.
    compacted: i64,
}

impl Oracle {
    fn revision(&self) -> i64 {
        i64::try_from(self.snapshots.len()).unwrap() - 1
    }

    fn head(&self) -> Snapshot {
        self.snapshots.last().unwrap().clone()
    }
}

fn within(key: &[u8], first: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == first,
        [0] => key >= first,
        end => first <= key && key < end,
    }
}

fn oracle_put(state: &mut Snapshot, key: &[u8], value: Option<&[u8]>, revision: i64) {
    let old = state.get(key);
    let pair = Pair {
        value: value
            .map_or_else(|| old.map_or(Vec::new(), |old| old.value.clone()), <[u8]>::to_vec),
        create: old.map_or(revision, |old| old.create),
        modified: revision,
        version: old.map_or(1, |old| old.version + 1),
    };
    state.insert(key.to_vec(), pair);
}

fn oracle_delete(state: &mut Snapshot, first: &[u8], end: &[u8]) -> i64 {
    let before = state.len();
    state.retain(|key, _| !within(key, first, end));
    i64::try_from(before - state.len()).unwrap()
}

fn assert_same(seen: &RangeResult, state: &Snapshot, first: &[u8], end: &[u8]) {
    let expected: Vec<_> = state.iter().filter(|(key, _)| within(key, first, end)).collect();
    assert_eq!(seen.count, i64::try_from(expected.len()).unwrap());
    assert_eq!(seen.kvs.len(), expected.len());
    for (seen, (key, pair)) in seen.kvs.iter().zip(expected) {
        assert_eq!(&seen.key, key);
        let seen_pair = Pair {
            value: seen.value.clone(),
            create: seen.create_revision,
            modified: seen.mod_revision,
            version: seen.version,
        };
        assert_eq!(&seen_pair, pair, "{key:?}");
    }
}

#[test]
fn a_random_history_reads_back_as_the_oracle_has_it_through_crashes() {
    let seed = seed();
    let mut prng = Prng::new(seed);
    let dir = DataDir::new("oracle");
    let mut server = Server::start(dir.path(), SMALL);
    let mut client = server.client();
    let mut oracle = Oracle { snapshots: vec![Snapshot::new(); 2], compacted: -1 };
    let names: Vec<Vec<u8>> =
        (0..40_u32).map(|n| format!("{:02}", n * 7 % 100).into_bytes()).collect();
    let rounds = 3_000 * scale();
    for round in 0..rounds {
        let index = |prng: &mut Prng| usize::try_from(prng.below(40)).unwrap();
        let key = names[index(&mut prng)].clone();
        let end = match prng.below(4) {
            0 => Vec::new(),
            1 => vec![0],
            _ => names[index(&mut prng)].clone(),
        };
        let size = if prng.one_in(50) { 200_000 } else { prng.below(300) };
        let mut value = vec![0; usize::try_from(size).unwrap()];
        prng.fill(&mut value);
        let (next, mut state) = (oracle.revision() + 1, oracle.head());
        match prng.below(20) {
            0..8 => {
                let result = client.put(&Put { prev_kv: true, ..Put::new(&key, &value) }).unwrap();
                assert_eq!(result.revision, next);
                let previous = result.previous.map(|pair| pair.value);
                assert_eq!(previous, state.get(&key).map(|pair| pair.value.clone()));
                oracle_put(&mut state, &key, Some(&value), next);
                oracle.snapshots.push(state);
            }
            8 => {
                let put = Put { ignore_value: true, ..Put::new(&key, b"") };
                if state.contains_key(&key) {
                    assert_eq!(client.put(&put).unwrap().revision, next);
                    oracle_put(&mut state, &key, None, next);
                    oracle.snapshots.push(state);
                } else {
                    assert_eq!(refusal(client.put(&put)).0, Status::KeyNotFound);
                }
            }
            9 | 10 => {
                // Small ranges mostly, or nothing would be left.
                let end = if prng.one_in(5) { end } else { Vec::new() };
                let result = client.delete(&DeleteRange::between(&key, &end)).unwrap();
                let deleted = oracle_delete(&mut state, &key, &end);
                assert_eq!(result.deleted, deleted);
                if deleted > 0 {
                    assert_eq!(result.revision, next);
                    oracle.snapshots.push(state);
                }
            }
            11..14 => {
                let expected = state.get(&key).map_or(0, |pair| pair.modified);
                let guess = if prng.one_in(2) { expected } else { expected + 1 };
                let (target, equal) = (CompareTarget::ModRevision, CompareResult::Equal);
                let other = &names[index(&mut prng)];
                let txn = Txn::new()
                    .when(Compare::number(&key, target, equal, guess))
                    .then(Op::Put(Put::new(&key, &value)))
                    .then(Op::Range(Range::between(&key, b"\0")))
                    .otherwise(Op::DeleteRange(DeleteRange::one(other)));
                let result = client.txn(&txn).unwrap();
                assert_eq!(result.succeeded, guess == expected);
                if result.succeeded {
                    oracle_put(&mut state, &key, Some(&value), next);
                    let OpResult::Range(range) = &result.responses[1] else { panic!() };
                    assert_same(range, &state, &key, b"\0");
                    oracle.snapshots.push(state);
                } else if oracle_delete(&mut state, other, b"") > 0 {
                    oracle.snapshots.push(state);
                }
                assert_eq!(result.revision, oracle.revision());
            }
            14 if prng.one_in(10) => {
                let revision = oracle.compacted + i64::try_from(prng.below(50)).unwrap();
                let result = client.compact(&Compact { revision, physical: prng.one_in(2) });
                if revision <= oracle.compacted {
                    assert_eq!(refusal(result).0, Status::Compacted, "{revision}");
                } else if revision > oracle.revision() {
                    assert_eq!(refusal(result).0, Status::FutureRevision, "{revision}");
                } else {
                    assert_eq!(result.unwrap(), oracle.revision());
                    oracle.compacted = revision;
                }
            }
            _ => {
                let revision =
                    i64::try_from(prng.below(oracle.snapshots.len() as u64 + 2)).unwrap();
                let serializable = prng.one_in(2);
                let range = Range { revision, serializable, ..Range::between(&key, &end) };
                let result = client.range(&range);
                if revision > oracle.revision() {
                    assert_eq!(refusal(result).0, Status::FutureRevision);
                } else if revision > 0 && revision < oracle.compacted {
                    assert_eq!(refusal(result).0, Status::Compacted);
                } else {
                    let at = if revision == 0 { oracle.revision() } else { revision };
                    let state = &oracle.snapshots[usize::try_from(at).unwrap()];
                    let result = result.unwrap();
                    assert_same(&result, state, &key, &end);
                    assert_eq!(result.revision, oracle.revision());
                }
            }
        }
        if prng.below(rounds) < 4 || round == rounds / 2 {
            assert!(server.kill().was_killed());
            server = Server::start(dir.path(), SMALL);
            client = server.client();
            assert_same(&client.range(&ALL).unwrap(), &oracle.head(), b"", b"\0");
            assert_eq!(revision(&mut client), oracle.revision());
        }
    }
    let first = usize::try_from(oracle.compacted.max(1)).unwrap();
    for at in (first..oracle.snapshots.len()).step_by(29) {
        let range = Range { revision: i64::try_from(at).unwrap(), ..ALL };
        assert_same(&client.range(&range).unwrap(), &oracle.snapshots[at], b"", b"\0");
    }
    drop(server.kill());
    process::check_clean(dir.path());
}
