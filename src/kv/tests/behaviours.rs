//! One story per behaviour that re-implementations of etcd get wrong, and per input that crashes etcd.

#![allow(clippy::unwrap_used)]

mod machine;

use base::limits::KEY_SIZE_MAX;
use base::{LeaseId, LogIndex, Prng, Revision, Term};
use kv::{
    Answer, Command, Compare, DeleteRange, KeyValueList, Limits, Op, OpReply, Operand, Outcome,
    Put, RangeEnd, RangeRequest, Read, ReadStep, ReadTxn, Refusal, Relation, Reply, SortOrder,
    SortTarget, State, Step, Txn, TxnReply,
};
use tree::{NewCell, TreeId};

use machine::Machine;

const LIMITS: Limits = Limits { value_size_max: 3 << 19, txn_ops_max: 128 };
const ALL: RangeRequest<'static> = RangeRequest {
    key: b"\0",
    range_end: b"\0",
    limit: 0,
    revision: 0,
    order: SortOrder::None,
    target: SortTarget::Key,
    serializable: false,
    keys_only: false,
    count_only: false,
    min_mod_revision: 0,
    max_mod_revision: 0,
    min_create_revision: 0,
    max_create_revision: 0,
};

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Put<'a> {
    Put { key, value, ..Put::default() }
}

fn delete<'a>(key: &'a [u8], range_end: &'a [u8]) -> DeleteRange<'a> {
    DeleteRange { key, range_end, prev_kv: false }
}

fn get(key: &[u8]) -> RangeRequest<'_> {
    RangeRequest { key, ..RangeRequest::default() }
}

fn compare<'a>(key: &'a [u8], relation: Relation, operand: Operand<'a>) -> Compare<'a> {
    Compare { key, range_end: b"", relation, operand }
}

fn txn<'a>(compares: Vec<Compare<'a>>, success: Vec<Op<'a>>, failure: Vec<Op<'a>>) -> Txn<'a> {
    let mut txn = Txn::default();
    txn.compares = compares;
    txn.success = success;
    txn.failure = failure;
    txn
}

fn nested(inner: Txn<'_>) -> Op<'_> {
    Op::Txn(Box::new(inner))
}

/// A machine with these keys, written one by one from revision 2 on.
fn with_keys(pairs: &[(&[u8], &[u8])]) -> Machine {
    let mut machine = Machine::plain();
    for (key, value) in pairs {
        machine.apply(&Command::Put(put(key, value)));
    }
    machine
}

fn keys(pairs: &KeyValueList) -> Vec<Vec<u8>> {
    pairs.iter().map(|pair| pair.key.to_vec()).collect()
}

fn run(machine: &mut Machine, success: Vec<Op<'_>>) -> Result<TxnReply, Refusal> {
    let txn = txn(Vec::new(), success, Vec::new());
    assert_eq!(txn.validate(&LIMITS), Ok(()));
    match machine.execute(&Command::Txn(txn))? {
        Reply::Txn(reply) => Ok(reply),
        reply => panic!("{reply:?}"),
    }
}

fn holds(machine: &mut Machine, compare: Compare<'_>) -> bool {
    let Ok(Reply::Txn(reply)) = machine.read_txn(&txn(vec![compare], Vec::new(), Vec::new()))
    else {
        panic!("a compare has no refusal");
    };
    reply.succeeded
}

/// Behaviour 1: Kubernetes pages by it.
#[test]
fn count_ignores_limit_and_filters_while_more_does_not() {
    let mut machine = with_keys(&[(b"a", b""), (b"b", b""), (b"c", b""), (b"d", b"")]);
    let request = RangeRequest { limit: 2, ..ALL };
    let (pairs, end) = machine.read(&request).unwrap();
    assert_eq!(keys(&pairs), [b"a", b"b"]);
    assert_eq!((end.count, end.more), (4, true));
    let filtered = RangeRequest { max_mod_revision: 3, ..request };
    let (pairs, end) = machine.read(&filtered).unwrap();
    assert_eq!(keys(&pairs), [b"a", b"b"]);
    assert_eq!((end.count, end.more), (4, false));
    let (pairs, end) = machine.read(&RangeRequest { count_only: true, ..filtered }).unwrap();
    assert_eq!((pairs.len(), end.count, end.more), (0, 4, false));
}

/// Behaviour 2: clients list at an old revision and watch from the header's.
#[test]
fn header_names_the_current_revision_also_for_a_read_of_an_older_one() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"a", b"2"), (b"a", b"3")]);
    let (pairs, end) = machine.read(&RangeRequest { revision: 2, ..get(b"a") }).unwrap();
    assert_eq!(pairs.first().unwrap().value, b"1");
    assert_eq!(end.revision, Revision::new(4));
}

/// Behaviour 3.
#[test]
fn a_sort_target_without_an_order_sorts_what_the_limit_let_through() {
    let mut machine = with_keys(&[(b"a", b"9"), (b"b", b"8"), (b"c", b"7"), (b"d", b"1")]);
    let request = RangeRequest { limit: 2, target: SortTarget::Value, ..ALL };
    let (pairs, end) = machine.read(&request).unwrap();
    assert_eq!(keys(&pairs), [b"c", b"b"]);
    assert_eq!((end.count, end.more), (4, true));
    let ordered = RangeRequest { order: SortOrder::Ascend, ..request };
    assert_eq!(keys(&machine.read(&ordered).unwrap().0), [b"d", b"c"]);
    // A filter lifts the limit before sorting as well.
    let filtered = RangeRequest { min_mod_revision: 1, ..request };
    assert_eq!(keys(&machine.read(&filtered).unwrap().0), [b"d", b"c"]);
    let last_created =
        RangeRequest { limit: 1, target: SortTarget::Create, order: SortOrder::Descend, ..ALL };
    assert_eq!(keys(&machine.read(&last_created).unwrap().0), [b"d"]);
}

/// Behaviour 4.
#[test]
fn a_value_compare_with_an_absent_key_never_holds_and_others_see_zeros() {
    let mut machine = with_keys(&[(b"there", b"v")]);
    for relation in
        [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less, Relation::Unknown]
    {
        assert!(!holds(&mut machine, compare(b"absent", relation, Operand::Value(b""))));
    }
    for operand in [Operand::Version(0), Operand::Create(0), Operand::Mod(0), Operand::Lease(0)] {
        assert!(holds(&mut machine, compare(b"absent", Relation::Equal, operand)));
    }
    assert!(holds(&mut machine, compare(b"absent", Relation::Greater, Operand::Mod(i64::MIN))));
    assert!(holds(&mut machine, compare(b"there", Relation::Unknown, Operand::Mod(77))));
    let every = Compare { range_end: b"\0", ..compare(b"a", Relation::Equal, Operand::Version(1)) };
    assert!(holds(&mut machine, every));
    machine.apply(&Command::Put(put(b"there", b"w")));
    assert!(!holds(&mut machine, every));
}

/// Behaviour 5: most evaluate as they go.
#[test]
fn nested_compares_see_the_state_before_the_outermost_transaction() {
    let mut machine = Machine::plain();
    let inner = txn(
        vec![compare(b"a", Relation::Equal, Operand::Version(0))],
        vec![Op::Put(put(b"b", b"absent before"))],
        vec![Op::Put(put(b"b", b"seen"))],
    );
    let reply = run(&mut machine, vec![Op::Put(put(b"a", b"")), nested(inner)]).unwrap();
    assert_eq!(reply.ops[1], OpReply::Txn { succeeded: true, ops_count: 1 });
    let (pairs, _) = machine.read(&get(b"b")).unwrap();
    assert_eq!(pairs.first().unwrap().value, b"absent before");
}

/// Behaviour 7: members diverged over it.
#[test]
fn one_bad_operation_anywhere_on_the_taken_path_undoes_the_whole_transaction() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"a", b"2"), (b"a", b"3")]);
    machine.apply(&Command::Compact { revision: 3, physical: false });
    let hash = machine.hash();
    let good = || Op::Put(put(b"new", b"value"));
    let lease = LeaseId::new(5);
    let cases = [
        (Op::Put(Put { lease, ..put(b"x", b"") }), Refusal::LeaseNotFound),
        (Op::Put(Put { ignore_value: true, ..put(b"x", b"") }), Refusal::KeyNotFound),
        (Op::Put(Put { ignore_lease: true, ..put(b"x", b"v") }), Refusal::KeyNotFound),
        (Op::Range(RangeRequest { revision: 5, ..get(b"a") }), Refusal::FutureRevision),
        (Op::Range(RangeRequest { revision: i64::MAX, ..get(b"a") }), Refusal::FutureRevision),
        (Op::Range(RangeRequest { revision: 2, ..get(b"a") }), Refusal::Compacted),
        (Op::Range(RangeRequest { revision: -1, ..get(b"a") }), Refusal::Compacted),
        (Op::Range(RangeRequest { revision: i64::MIN, ..get(b"a") }), Refusal::Compacted),
    ];
    for (bad, refusal) in cases {
        let flat = run(&mut machine, vec![good(), bad.clone()]);
        assert_eq!(flat, Err(refusal), "{bad:?}");
        let inner = txn(Vec::new(), vec![bad.clone()], Vec::new());
        assert_eq!(run(&mut machine, vec![good(), nested(inner)]), Err(refusal), "{bad:?}");
        // On the branch that is not taken it does no harm.
        let inner = txn(Vec::new(), Vec::new(), vec![bad.clone()]);
        let reply = run(&mut machine, vec![nested(inner)]);
        assert!(reply.is_ok(), "{bad:?}");
    }
    assert_eq!(machine.hash(), hash);
    assert_eq!(machine.state.revision(), Revision::new(4));
    assert_eq!(machine.state.applied().0, LogIndex::new(4 + 24));
}

/// Behaviour 8.
#[test]
fn only_changes_move_the_revision_and_one_transaction_moves_it_once() {
    let mut machine = with_keys(&[(b"a", b"same")]);
    let revision = |machine: &Machine| machine.state.revision().get();
    assert_eq!(revision(&machine), 2);
    machine.apply(&Command::Put(put(b"a", b"same")));
    assert_eq!(revision(&machine), 3);
    let outcome = machine.apply(&Command::DeleteRange(delete(b"absent", b"")));
    assert_eq!(outcome, Outcome::Deleted { revision: Revision::new(3), count: 0 });
    machine.apply(&Command::Compact { revision: 2, physical: false });
    machine.apply(&Command::Nothing);
    let failing = txn(
        vec![compare(b"a", Relation::Equal, Operand::Version(9))],
        vec![Op::Put(put(b"b", b""))],
        vec![Op::Range(get(b"a"))],
    );
    let outcome = machine.apply(&Command::Txn(failing));
    assert!(matches!(outcome, Outcome::Txn(outcome) if outcome.revision.get() == 3));
    assert_eq!(revision(&machine), 3);
    let ops =
        vec![Op::Put(put(b"b", b"")), Op::Put(put(b"c", b"")), Op::DeleteRange(delete(b"a", b""))];
    let reply = run(&mut machine, ops).unwrap();
    assert_eq!((reply.revision.get(), revision(&machine)), (4, 4));
}

/// Behaviour 9, with the tombstone at the boundary (etcd 18089).
#[test]
fn compaction_keeps_its_own_revision_and_a_tombstone_exactly_there() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"b", b"1"), (b"a", b"2")]);
    machine.apply(&Command::DeleteRange(delete(b"a", b"")));
    machine.apply(&Command::Put(put(b"b", b"2")));
    let compact = |machine: &mut Machine, revision: i64| {
        machine.apply(&Command::Compact { revision, physical: false })
    };
    assert_eq!(compact(&mut machine, 7), Outcome::Refused(Refusal::FutureRevision));
    let compacted = Outcome::Compacted { revision: Revision::new(6), compacted: Revision::new(5) };
    assert_eq!(compact(&mut machine, 5), compacted);
    assert_eq!(compact(&mut machine, 5), Outcome::Refused(Refusal::Compacted));
    assert_eq!(compact(&mut machine, 4), Outcome::Refused(Refusal::Compacted));
    machine.trim();
    let at = |revision| RangeRequest { revision, ..ALL };
    assert_eq!(machine.read(&at(4)).unwrap_err(), Refusal::Compacted);
    assert_eq!(machine.read(&at(7)).unwrap_err(), Refusal::FutureRevision);
    let (pairs, end) = machine.read(&at(5)).unwrap();
    assert_eq!((keys(&pairs), end.count), (vec![b"b".to_vec()], 1));
    assert_eq!(pairs.first().unwrap().value, b"1");
    // The delete of 5 is still there for a watch, and its tombstone with it.
    assert_eq!(machine.state.pages().summary(TreeId(1)).count, 1);
    assert_eq!(machine.state.pages().summary(TreeId(0)).number_max, 6);
    compact(&mut machine, 6);
    machine.trim();
    assert_eq!(machine.state.pages().summary(TreeId(1)).count, 0);
    for _ in 0..3 {
        machine.checkpoint();
    }
    let counts = machine.verify();
    assert_eq!((counts.cells[0], counts.cells[1]), (1, 1));
}

#[test]
fn an_empty_store_can_be_compacted_to_one_once_and_extremes_are_refused() {
    let mut machine = Machine::plain();
    let compact = |machine: &mut Machine, revision: i64| {
        machine.apply(&Command::Compact { revision, physical: true })
    };
    for revision in [i64::MIN, -2, -1] {
        assert_eq!(compact(&mut machine, revision), Outcome::Refused(Refusal::Compacted));
    }
    for revision in [2, i64::MAX] {
        assert_eq!(compact(&mut machine, revision), Outcome::Refused(Refusal::FutureRevision));
    }
    assert!(matches!(compact(&mut machine, 1), Outcome::Compacted { .. }));
    assert_eq!(compact(&mut machine, 1), Outcome::Refused(Refusal::Compacted));
    assert_eq!(machine.state.compacted(), Some(Revision::new(1)));
    assert!(machine.read(&RangeRequest { revision: 1, ..ALL }).is_ok());
}

/// Behaviour 15, as far as events are kept for it.
#[test]
fn a_key_that_is_deleted_and_put_again_begins_a_new_life() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"a", b"2")]);
    machine.apply(&Command::DeleteRange(delete(b"a", b"")));
    machine.apply(&Command::Put(put(b"a", b"3")));
    let (pairs, _) = machine.read(&get(b"a")).unwrap();
    let pair = pairs.first().unwrap();
    assert_eq!(
        (pair.version, pair.create_revision, pair.mod_revision.get()),
        (1, Revision::new(5), 5)
    );
}

/// Behaviour 17, as far as there are no leases.
#[test]
fn a_lease_that_does_not_exist_is_refused_when_the_put_is_applied() {
    let mut machine = Machine::plain();
    let refused = Put { lease: LeaseId::new(i64::MIN), ..put(b"a", b"v") };
    assert_eq!(Command::Put(refused).validate(&LIMITS), Ok(()));
    let outcome = machine.apply(&Command::Put(refused));
    assert_eq!(outcome, Outcome::Refused(Refusal::LeaseNotFound));
    assert_eq!(machine.state.revision(), Revision::new(1));
}

/// Behaviour 19: clients match on these texts.
#[test]
fn refusals_have_the_texts_that_clients_match_on() {
    for (refusal, text) in [
        (Refusal::KeyNotProvided, "key is not provided"),
        (Refusal::KeyNotFound, "key not found"),
        (Refusal::ValueProvided, "value is provided"),
        (Refusal::LeaseProvided, "lease is provided"),
        (Refusal::LeaseNotFound, "requested lease not found"),
        (Refusal::TooManyOps, "too many operations in txn request"),
        (Refusal::DuplicateKey, "duplicate key given in txn request"),
        (Refusal::InvalidSortOption, "invalid sort option"),
        (Refusal::Compacted, "mvcc: required revision has been compacted"),
        (Refusal::FutureRevision, "mvcc: required revision is a future revision"),
    ] {
        assert_eq!(refusal.to_string(), text);
    }
    let long = Refusal::KeyTooLong { size: 3_000, size_max: KEY_SIZE_MAX }.to_string();
    assert!(long.contains("3000") && long.contains("2048"), "{long}");
    assert_eq!(SortTarget::from_number(5), None);
    assert_eq!(SortOrder::from_number(-1), None);
    assert_eq!(SortOrder::from_number(2), Some(SortOrder::Descend));
    assert_eq!(Relation::from_number(9), Relation::Unknown);
}

/// etcd 3.7.3 panics on these while applying, and again at every restart.
#[test]
fn keeping_the_value_of_a_key_deleted_before_in_the_same_transaction_is_refused_whole() {
    let keep = |key| Op::Put(Put { ignore_value: true, ..put(key, b"") });
    let keep_lease = |key| Op::Put(Put { ignore_lease: true, ..put(key, b"v") });
    let deleting = |key, end| Op::DeleteRange(delete(key, end));
    let wrap = |op| nested(txn(Vec::new(), vec![op], Vec::new()));
    let cases: [Vec<Op<'_>>; 5] = [
        vec![deleting(b"a", b"\0"), keep(b"b")],
        vec![deleting(b"a", b"\0"), keep_lease(b"b")],
        vec![Op::Put(put(b"z", b"")), wrap(deleting(b"a", b"\0")), wrap(keep(b"b"))],
        vec![wrap(wrap(deleting(b"b", b"\0"))), keep(b"b")],
        vec![deleting(b"a", b"\0"), Op::Put(put(b"b", b"")), deleting(b"b", b"\0"), keep(b"c")],
    ];
    let mut machine = with_keys(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]);
    let hash = machine.hash();
    for ops in cases {
        assert_eq!(run(&mut machine, ops.clone()), Err(Refusal::KeyNotFound), "{ops:?}");
        assert_eq!(machine.hash(), hash, "{ops:?}");
    }
    // What validation lets nobody propose must not crash apply either.
    let refused = txn(Vec::new(), vec![deleting(b"a", b"c"), keep(b"b")], Vec::new());
    assert_eq!(refused.validate(&LIMITS), Err(Refusal::DuplicateKey));
    let outcome = machine.apply(&Command::Txn(refused));
    assert_eq!(outcome, Outcome::Refused(Refusal::KeyNotFound));
    // Kept before it is deleted, or not covered, is fine.
    let ops = vec![keep(b"a"), deleting(b"b", b"\0")];
    assert!(run(&mut machine, ops).is_ok());
    assert!(run(&mut machine, vec![deleting(b"b", b"\0"), keep(b"a")]).is_ok());
    // Put again after the delete, it is there again: validation refuses, apply makes sense of it.
    let again = vec![deleting(b"a", b"\0"), Op::Put(put(b"a", b"new")), keep(b"a")];
    let reply = machine.execute(&Command::Txn(txn(Vec::new(), again, Vec::new()))).unwrap();
    assert!(matches!(reply, Reply::Txn(_)));
    let (pairs, _) = machine.read(&get(b"a")).unwrap();
    let pair = pairs.first().unwrap();
    assert_eq!((pair.value, pair.version), (&b"new"[..], 2));
}

#[test]
fn malformed_commands_in_the_log_are_outcomes() {
    let mut machine = with_keys(&[(b"a", b"1")]);
    let long = vec![b'k'; KEY_SIZE_MAX + 1];
    let huge = vec![0; base::limits::VALUE_SIZE_MAX + 1];
    let refused = [
        Command::Put(put(b"", b"")),
        Command::Put(put(&long, b"")),
        Command::Put(put(b"k", &huge)),
        Command::Put(Put { ignore_value: true, ..put(b"a", b"v") }),
        Command::DeleteRange(delete(b"", b"")),
        Command::Txn(txn(Vec::new(), vec![Op::Unset], Vec::new())),
        Command::Txn(txn(Vec::new(), vec![Op::Range(get(b""))], Vec::new())),
        Command::Txn(txn(Vec::new(), vec![Op::DeleteRange(delete(b"", b"z"))], Vec::new())),
    ];
    for command in &refused {
        let outcome = machine.apply(command);
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    assert_eq!(machine.state.revision(), Revision::new(2));
    assert_eq!(machine.read(&get(b"")).unwrap_err(), Refusal::KeyNotProvided);
    // A nest far deeper than validation allows, and compares without keys.
    let mut deep =
        txn(vec![compare(b"", Relation::Equal, Operand::Unknown)], Vec::new(), Vec::new());
    for _ in 0..50_000 {
        deep = txn(Vec::new(), vec![nested(deep)], Vec::new());
    }
    assert!(matches!(machine.apply(&Command::Txn(deep)), Outcome::Txn(_)));
}

#[test]
fn ranges_of_any_shape_and_keys_of_any_length_are_read_as_etcd_reads_them() {
    let longest = vec![b'k'; KEY_SIZE_MAX];
    let mut machine = with_keys(&[(b"\0", b""), (&longest, b""), (b"\xff", b"")]);
    let count = |machine: &mut Machine, key: &[u8], range_end: &[u8]| {
        let request = RangeRequest { key, range_end, ..RangeRequest::default() };
        let (pairs, end) = machine.read(&request).unwrap();
        assert_eq!(pairs.len() as u64, end.count);
        let request = RangeRequest { count_only: true, ..request };
        assert_eq!(machine.read(&request).unwrap().1.count, end.count);
        end.count
    };
    assert_eq!(count(&mut machine, b"\0", b"\0"), 3);
    assert_eq!(count(&mut machine, b"z", b"a"), 0);
    assert_eq!(count(&mut machine, b"a", b"a"), 0);
    let mut next = longest.clone();
    next.push(0);
    assert_eq!(count(&mut machine, &next, b""), 0);
    assert_eq!(count(&mut machine, &next, b"\0"), 1);
    assert_eq!(count(&mut machine, b"a", &next), 1);
    assert_eq!(count(&mut machine, b"a", &longest), 0);
    let mut far = longest.clone();
    far.extend_from_slice(&[b'k'; 5_000]);
    assert_eq!(count(&mut machine, &far, b"\0"), 1);
    assert_eq!(count(&mut machine, b"a", &far), 1);
    for limit in [i64::MIN, -1, 0, i64::MAX] {
        let (pairs, end) = machine.read(&RangeRequest { limit, ..ALL }).unwrap();
        assert_eq!((pairs.len(), end.more), (3, false));
    }
    let last = RangeRequest { limit: 1, order: SortOrder::Descend, ..ALL };
    let (pairs, end) = machine.read(&last).unwrap();
    assert_eq!((keys(&pairs), end.count, end.more), (vec![b"\xff".to_vec()], 3, true));
}

#[test]
fn ranges_of_a_transaction_see_what_its_earlier_operations_did() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"b", b"2")]);
    let prev = |key| Op::Put(Put { prev_kv: true, ..put(key, b"new") });
    let ops = vec![
        Op::Range(ALL),
        Op::Put(put(b"c", b"3")),
        Op::Range(ALL),
        nested(txn(
            Vec::new(),
            vec![Op::DeleteRange(DeleteRange { prev_kv: true, ..delete(b"b", b"\0") })],
            Vec::new(),
        )),
        Op::Range(RangeRequest { revision: 2, ..ALL }),
        prev(b"a"),
        Op::Range(ALL),
    ];
    let reply = run(&mut machine, ops).unwrap();
    let [first, _, second, _, deleted, old, before, last] = &reply.ops[..] else {
        panic!("{reply:?}");
    };
    let range = |op: &OpReply| match op {
        OpReply::Range { end, pairs } => (end.revision.get(), end.count, keys(pairs)),
        op => panic!("{op:?}"),
    };
    let (a, b, c) = (b"a".to_vec(), b"b".to_vec(), b"c".to_vec());
    assert_eq!(range(first), (3, 2, vec![a.clone(), b.clone()]));
    assert_eq!(range(second), (4, 3, vec![a.clone(), b.clone(), c.clone()]));
    assert_eq!(range(old), (4, 1, vec![a.clone()]));
    assert_eq!(range(last), (4, 1, vec![a]));
    let OpReply::Deleted { count: 2, prev, .. } = deleted else { panic!("{deleted:?}") };
    assert_eq!(keys(prev), [b, c]);
    let OpReply::Put { prev, .. } = before else { panic!("{before:?}") };
    assert_eq!(prev.first().unwrap().value, b"1");
}

/// A from-key delete escapes the duplicate rule, so a key may change several times in one revision.
#[test]
fn several_changes_of_a_key_in_one_revision_are_one_to_every_reader() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"b", b"2")]);
    let twice = vec![
        Op::DeleteRange(delete(b"a", b"\0")),
        Op::Put(Put { prev_kv: true, ..put(b"b", b"3") }),
    ];
    let reply = run(&mut machine, twice).unwrap();
    let OpReply::Put { prev, .. } = &reply.ops[1] else { panic!("{reply:?}") };
    assert!(prev.is_empty(), "the delete before it left nothing");
    for (revision, expected) in [(3, b"2"), (4, b"3")] {
        let (pairs, _) = machine.read(&RangeRequest { revision, ..get(b"b") }).unwrap();
        assert_eq!(pairs.first().unwrap().value, expected);
    }
    let (pairs, _) = machine.read(&get(b"b")).unwrap();
    assert_eq!(pairs.first().unwrap().version, 1);
    assert_eq!(machine.read(&RangeRequest { revision: 3, ..ALL }).unwrap().1.count, 2);
}

#[test]
fn a_large_delete_is_invisible_until_it_is_whole() {
    let mut machine = Machine::plain();
    for number in 0..500 {
        machine.apply(&Command::Put(put(format!("{number:03}").as_bytes(), b"v")));
    }
    machine.budget_max = 50;
    let command = Command::DeleteRange(DeleteRange { prev_kv: true, ..delete(b"0", b"4") });
    let mut slices = 0;
    let outcome = loop {
        if let Some(outcome) = machine.apply_step(&command) {
            break outcome;
        }
        slices += 1;
        assert!(!machine.state.between_entries());
        assert_eq!(machine.state.revision(), Revision::new(501));
        let (pairs, end) = machine.read(&RangeRequest { limit: 3, ..ALL }).unwrap();
        assert_eq!((pairs.len(), end.count, end.revision.get()), (3, 500, 501));
        let counted = machine.read(&RangeRequest { count_only: true, ..ALL }).unwrap();
        assert_eq!(counted.1.count, 500);
    };
    assert!(slices >= 8, "{slices} slices");
    assert_eq!(outcome, Outcome::Deleted { revision: Revision::new(502), count: 400 });
    let mut answer = Answer::new(&command, &outcome).unwrap();
    let Ok(Reply::Deleted { prev, .. }) = machine.answer(&mut answer) else { panic!() };
    assert_eq!(prev.len(), 400);
    assert_eq!(machine.read(&ALL).unwrap().1.count, 100);
}

/// What an answer still reads must survive trimming that runs meanwhile.
#[test]
fn trimming_stops_before_what_an_open_answer_reads() {
    let mut machine = with_keys(&[(b"a", b"1"), (b"a", b"2")]);
    let command = Command::Put(Put { prev_kv: true, ..put(b"a", b"3") });
    let outcome = machine.apply(&command);
    let mut answer = Answer::new(&command, &outcome).unwrap();
    machine.apply(&Command::Put(put(b"a", b"4")));
    machine.apply(&Command::Compact { revision: 5, physical: true });
    assert!(machine.trim_step(answer.keeps()));
    assert_eq!(machine.state.trimmed(), Revision::new(4));
    let mut late = Answer::new(&command, &outcome).unwrap();
    let Ok(Reply::Put { prev, .. }) = machine.answer(&mut answer) else { panic!() };
    assert_eq!(prev.first().unwrap().value, b"2");
    machine.trim();
    assert_eq!(machine.state.trimmed(), Revision::new(5));
    assert_eq!(machine.answer(&mut late), Err(Refusal::Compacted));
}

#[test]
fn a_read_overtaken_by_compaction_begins_again_or_is_refused() {
    let build = || {
        let mut machine = Machine::plain();
        for number in 0..300 {
            machine.apply(&Command::Put(put(format!("{number:03}").as_bytes(), b"v")));
        }
        machine
    };
    let overtake = |machine: &mut Machine| {
        machine.apply(&Command::Put(put(b"zzz", b"v")));
        let revision = i64::try_from(machine.state.revision().get()).unwrap();
        machine.apply(&Command::Compact { revision, physical: false });
        machine.trim();
    };
    let step = |machine: &Machine, read: &mut Read, budget: u32, pairs: &mut KeyValueList| {
        let mut left = budget;
        read.step(&machine.state, &mut left, &mut |pair| {
            pairs.push(pair);
            std::ops::ControlFlow::Continue(())
        })
    };
    let count_from_scratch = RangeRequest { min_mod_revision: 1_000, ..ALL };
    // Named nothing and nothing has gone out: begins again.
    let mut machine = build();
    let (mut read, mut pairs) = (Read::new(&count_from_scratch), KeyValueList::default());
    assert_eq!(step(&machine, &mut read, 10, &mut pairs), ReadStep::More);
    overtake(&mut machine);
    let end = RangeEnd { revision: Revision::new(302), count: 301, more: false };
    assert_eq!(step(&machine, &mut read, 10_000, &mut pairs), ReadStep::Done(end));
    // Pairs have gone out.
    let mut machine = build();
    let (mut read, mut pairs) = (Read::new(&ALL), KeyValueList::default());
    assert_eq!(step(&machine, &mut read, 10, &mut pairs), ReadStep::More);
    assert_eq!(pairs.len(), 10);
    overtake(&mut machine);
    let refused = ReadStep::Refused(Refusal::Compacted);
    assert_eq!(step(&machine, &mut read, 10_000, &mut pairs), refused);
    // The same, and trimming leaves what it needs.
    let mut machine = build();
    let (mut read, mut pairs) = (Read::new(&ALL), KeyValueList::default());
    assert_eq!(step(&machine, &mut read, 10, &mut pairs), ReadStep::More);
    machine.apply(&Command::DeleteRange(delete(b"\0", b"\0")));
    for revision in 1..=302 {
        machine.apply(&Command::Compact { revision, physical: false });
        assert_eq!(read.keeps(), Some(Revision::new(302)));
        while !machine.trim_step(read.keeps().unwrap()) {}
    }
    let end = RangeEnd { revision: Revision::new(301), count: 300, more: false };
    assert_eq!(step(&machine, &mut read, 10_000, &mut pairs), ReadStep::Done(end));
    assert_eq!(pairs.len(), 300);
    // Named its revision.
    let mut machine = build();
    let mut read = Read::new(&RangeRequest { revision: 200, ..count_from_scratch });
    assert_eq!(step(&machine, &mut read, 10, &mut pairs), ReadStep::More);
    overtake(&mut machine);
    assert_eq!(step(&machine, &mut read, 10_000, &mut pairs), refused);
    // Not overtaken: stays at the revision it began at.
    let mut machine = build();
    let (mut read, mut pairs) = (Read::new(&ALL), KeyValueList::default());
    assert_eq!(step(&machine, &mut read, 10, &mut pairs), ReadStep::More);
    machine.apply(&Command::DeleteRange(delete(b"\0", b"\0")));
    let end = RangeEnd { revision: Revision::new(301), count: 300, more: false };
    assert_eq!(step(&machine, &mut read, 10_000, &mut pairs), ReadStep::Done(end));
    assert_eq!(pairs.len(), 300);
}

/// Without anchors each of these reads would follow 50,000 events.
#[test]
fn any_revision_of_a_key_with_100_000_versions_is_read_in_a_few_hundred_steps() {
    let mut machine = Machine::plain();
    for number in 0..100_000_u32 {
        machine.apply(&Command::Put(put(b"hot", &number.to_le_bytes())));
    }
    let mut prng = Prng::new(5);
    for _ in 0..500 {
        let revision = 2 + prng.below(100_000);
        let request = RangeRequest { revision: i64::try_from(revision).unwrap(), ..get(b"hot") };
        let mut budget = 200;
        let mut found = Vec::new();
        let step = Read::new(&request).step(&machine.state, &mut budget, &mut |pair| {
            found.extend_from_slice(pair.value);
            std::ops::ControlFlow::Continue(())
        });
        assert!(matches!(step, ReadStep::Done(_)), "{step:?} at {revision}");
        assert_eq!(found, u32::try_from(revision - 2).unwrap().to_le_bytes());
    }
}

#[test]
fn a_queue_eaten_from_the_front_stays_cheap_to_read_although_nothing_is_compacted() {
    let mut machine = Machine::plain();
    for number in 0..20_000 {
        machine.apply(&Command::Put(put(format!("{number:06}").as_bytes(), b"v")));
    }
    machine.apply(&Command::DeleteRange(delete(b"0", b"019990")));
    let mut budget = 100;
    let mut found = Vec::new();
    let step = Read::new(&RangeRequest { limit: 1, ..ALL }).step(
        &machine.state,
        &mut budget,
        &mut |pair| {
            found.extend_from_slice(pair.key);
            std::ops::ControlFlow::Continue(())
        },
    );
    let end = RangeEnd { revision: Revision::new(20_002), count: 10, more: true };
    assert_eq!((step, &found[..]), (ReadStep::Done(end), &b"019990"[..]));
}

#[test]
fn values_around_every_size_limit_come_back_whole_from_any_revision() {
    let mut machine = Machine::plain();
    let mut sizes = vec![0, 1, 100, 3_700, 3_800, 3_900, 4_096, 8_150, 8_192, 70_000];
    for key_size in [1, 1_000, KEY_SIZE_MAX] {
        // Around where a value leaves its cell.
        let inline = 3_900 - 12 - 3 - 85 - key_size;
        sizes.extend([inline - 1, inline, inline + 1]);
    }
    let value = |size: usize, seed: usize| -> Vec<u8> {
        let mut bytes = vec![0; size];
        Prng::new(u64::try_from(seed).unwrap()).fill(&mut bytes);
        bytes
    };
    for key_size in [1, 1_000, KEY_SIZE_MAX] {
        let key = vec![b'k'; key_size];
        let first = machine.state.revision().get() + 1;
        for (number, size) in sizes.iter().enumerate() {
            machine.apply(&Command::Put(put(&key, &value(*size, number))));
        }
        machine.checkpoint();
        machine.evict();
        for (number, size) in sizes.iter().enumerate() {
            let revision = i64::try_from(first).unwrap() + i64::try_from(number).unwrap();
            let (pairs, _) = machine.read(&RangeRequest { revision, ..get(&key) }).unwrap();
            assert_eq!(pairs.first().unwrap().value, value(*size, number), "{size} at {revision}");
        }
    }
    let revision = i64::try_from(machine.state.revision().get()).unwrap();
    let keep = Put { ignore_value: true, ignore_lease: true, ..put(b"k", b"") };
    machine.apply(&Command::Put(put(b"k", &value(70_000, 1))));
    machine.apply(&Command::Put(keep));
    machine.apply(&Command::Compact { revision: revision + 2, physical: true });
    machine.trim();
    for _ in 0..3 {
        machine.checkpoint();
    }
    // Three newest versions, of which two have runs; the last event, at the boundary, has shed its own.
    assert_eq!(machine.verify().runs, 2);
    let (pairs, _) = machine.read(&get(b"k")).unwrap();
    let pair = pairs.first().unwrap();
    assert_eq!(pair.value, value(70_000, 1));
    assert_eq!(pair.version, u64::try_from(sizes.len()).unwrap() + 2);
}

#[test]
fn sorting_and_answering_hold_a_bounded_number_of_bytes() {
    let mut machine = Machine::plain();
    let value = vec![7; 1 << 20];
    for number in 0..70_u8 {
        machine.apply(&Command::Put(put(&[b'k', number], &value)));
    }
    let sorted = RangeRequest { target: SortTarget::Value, order: SortOrder::Ascend, ..ALL };
    assert_eq!(machine.read(&sorted).unwrap_err(), Refusal::SortTooLarge);
    let (pairs, end) = machine.read(&RangeRequest { limit: 3, ..sorted }).unwrap();
    assert_eq!((pairs.len(), end.count, end.more), (3, 70, true));
    let by_mod = RangeRequest { target: SortTarget::Mod, keys_only: true, ..sorted };
    assert_eq!(machine.read(&by_mod).unwrap().0.len(), 70);
    let delete = DeleteRange { prev_kv: true, ..delete(b"k", b"\0") };
    assert_eq!(machine.execute(&Command::DeleteRange(delete)), Err(Refusal::ReplyTooLarge));
    assert_eq!(machine.read(&ALL).unwrap().1.count, 0, "the delete took effect");
}

#[test]
fn read_only_transactions_are_told_apart_and_need_no_log() {
    let range = |serializable| Op::Range(RangeRequest { serializable, ..ALL });
    let empty = txn(Vec::new(), Vec::new(), Vec::new());
    assert!(empty.is_read_only() && empty.is_serializable());
    let local = txn(Vec::new(), vec![range(true)], vec![range(true)]);
    assert!(local.is_read_only() && local.is_serializable());
    let linearizable = txn(Vec::new(), vec![range(true)], vec![range(false)]);
    assert!(linearizable.is_read_only() && !linearizable.is_serializable());
    let with_nest = txn(Vec::new(), vec![nested(local.clone())], Vec::new());
    assert!(!with_nest.is_read_only());
    assert!(!Command::Put(put(b"a", b"")).is_read_only());
    assert!(Command::Txn(local).is_read_only());

    let mut machine = with_keys(&[(b"a", b"1"), (b"b", b"2")]);
    let read = txn(
        vec![compare(b"a", Relation::Equal, Operand::Value(b"1"))],
        vec![Op::Range(get(b"b")), Op::Range(RangeRequest { revision: 2, ..ALL })],
        Vec::new(),
    );
    let Ok(Reply::Txn(reply)) = machine.read_txn(&read) else { panic!() };
    assert!(reply.succeeded);
    assert_eq!((reply.revision.get(), reply.ops.len()), (3, 2));
    let OpReply::Range { end, pairs } = &reply.ops[1] else { panic!() };
    assert_eq!((end.revision.get(), end.count, pairs.len()), (3, 1, 1));
    // -1 stands for "nothing compacted yet" in etcd, so it is below nothing; -2 is.
    for (revision, readable) in [(-1, true), (-2, false), (i64::MIN, false)] {
        let range = Op::Range(RangeRequest { revision, ..ALL });
        let reply = machine.read_txn(&txn(Vec::new(), vec![range], Vec::new()));
        assert_eq!(reply.is_ok(), readable, "{revision}: {reply:?}");
    }
    let future = txn(Vec::new(), vec![Op::Range(RangeRequest { revision: 9, ..ALL })], Vec::new());
    assert_eq!(machine.read_txn(&future), Err(Refusal::FutureRevision));
    assert_eq!(machine.state.applied().0, LogIndex::new(2));
}

/// Nothing of it has gone out before its end, so it may begin again.
#[test]
fn a_read_only_transaction_overtaken_by_compaction_begins_again() {
    let mut machine = Machine::plain();
    for number in 0..300 {
        machine.apply(&Command::Put(put(format!("{number:03}").as_bytes(), b"v")));
    }
    let every = Compare { range_end: b"\0", ..compare(b"0", Relation::Less, Operand::Version(2)) };
    let read = txn(vec![every], vec![Op::Range(get(b"000"))], vec![Op::Range(get(b"001"))]);
    let mut running = ReadTxn::new();
    let mut budget = 10;
    assert_eq!(running.step(&machine.state, &read, &mut budget), Step::More);
    machine.apply(&Command::Put(put(b"000", b"w")));
    machine.apply(&Command::Compact { revision: 302, physical: false });
    machine.trim();
    let mut budget = 10_000;
    let step = running.step(&machine.state, &read, &mut budget);
    let Step::Done(Ok(Reply::Txn(reply))) = step else { panic!("{step:?}") };
    assert_eq!((reply.succeeded, reply.revision.get()), (false, 302));
}

#[test]
fn trimming_goes_on_where_a_checkpoint_left_it() {
    let mut machine = Machine::plain();
    let large = vec![1; 20_000];
    for number in 0..200_u32 {
        let key = (number % 50).to_be_bytes();
        machine.apply(&Command::Put(put(&key, &large)));
        if number % 3 == 0 {
            machine.apply(&Command::DeleteRange(delete(&key, b"")));
        }
    }
    let revision = i64::try_from(machine.state.revision().get()).unwrap();
    machine.apply(&Command::Compact { revision, physical: true });
    machine.budget_max = 20;
    for _ in 0..4 {
        assert!(!machine.trim_step(Revision::MAX));
    }
    machine.checkpoint();
    machine.reopen();
    assert_eq!(machine.state.trimmed(), Revision::ZERO);
    machine.trim();
    assert_eq!(machine.state.trimmed().get(), u64::try_from(revision).unwrap());
    for _ in 0..3 {
        machine.checkpoint();
    }
    let live = machine.read(&ALL).unwrap().1.count;
    let counts = machine.verify();
    // The newest versions alone: the event at the boundary has shed what it replaced.
    assert_eq!((counts.cells[0], counts.cells[1], counts.runs), (live, 1, live));
}

/// Work that is done and cells that are still there may be parted by a crash at any step.
#[test]
fn trimming_comes_to_its_end_with_a_crash_behind_every_step() {
    let mut machine = Machine::plain();
    for number in 0..60_u8 {
        machine.apply(&Command::Put(put(&[number % 7 + 1], &[number; 3_000])));
        machine.apply(&Command::DeleteRange(delete(&[number % 3 + 1], b"")));
    }
    let revision = i64::try_from(machine.state.revision().get()).unwrap();
    machine.apply(&Command::Compact { revision, physical: true });
    machine.budget_max = 1;
    let mut steps = 0;
    while !machine.trim_step(Revision::MAX) {
        machine.checkpoint();
        machine.reopen();
        steps += 1;
    }
    machine.checkpoint();
    let counts = machine.verify();
    assert_eq!(counts.cells[1], 1, "after {steps} steps");
    // Puts ask for no work: all of it is done at once, and what is left is dropping leaves.
    for puts in [1, 400] {
        for _ in 0..puts {
            machine.apply(&Command::Put(put(b"a", &[7; 3_000])));
        }
        let revision = i64::try_from(machine.state.revision().get()).unwrap();
        machine.apply(&Command::Compact { revision, physical: true });
        if puts == 1 {
            machine.trim();
        }
    }
    assert!(!machine.trim_step(Revision::MAX));
    machine.checkpoint();
    machine.reopen();
    machine.budget_max = 1_000;
    machine.trim();
    machine.checkpoint();
    assert_eq!(machine.verify().cells[1], 1);
}

/// Two members that take the same log with other budgets, caches, checkpoints and trimming.
#[test]
fn the_state_hash_depends_on_the_log_alone() {
    let value = vec![9; 9_000];
    let mut log = Vec::new();
    for number in 0..3_000_u64 {
        let name: &'static [u8] =
            [&b"a"[..], b"b", b"c", b"d", b"e"][usize::try_from(number % 5).unwrap()];
        log.push(match number % 11 {
            3 => Command::DeleteRange(delete(name, b"\0")),
            7 => Command::Compact { revision: i64::try_from(number / 2).unwrap(), physical: false },
            9 => Command::Put(put(name, &value)),
            _ => Command::Put(put(name, &value[..20])),
        });
    }
    let mut one = Machine::plain();
    let mut other = Machine::new(Prng::new(2), 0, 3);
    let mut seen = std::collections::BTreeSet::new();
    for (number, command) in log.iter().enumerate() {
        assert_eq!(one.apply(command), other.apply(command));
        assert_eq!(one.hash(), other.hash(), "entry {number}");
        seen.insert(one.hash());
        match number % 7 {
            0 => other.trim(),
            2 => other.evict(),
            4 if number % 5 == 0 => other.checkpoint(),
            5 if number % 100 == 5 && number > 100 => {
                other.checkpoint();
                other.reopen();
            }
            _ => {}
        }
    }
    assert!(seen.len() > 2_000, "{} different hashes", seen.len());
}

#[test]
fn meta_bytes_that_make_no_sense_are_refused() {
    let pages = || {
        let machine = Machine::plain();
        machine.into_pages()
    };
    let refused = |meta: &[u8]| State::open(pages(), meta).is_err();
    assert!(refused(b""));
    assert!(refused(&[2; 77]));
    assert!(refused(&[9; 87]));
    // The format that had nothing about the members.
    let mut meta = vec![1];
    meta.resize(77, 0);
    assert!(State::open(pages(), &meta).is_ok());
    assert!(refused(&meta[..76]));
    assert!(refused(&[&meta[..], b"x"].concat()));
    // Compacted beyond the revision.
    meta[25] = 9;
    assert!(refused(&meta));
    let mut meta = vec![2];
    meta.resize(87, 0);
    assert!(State::open(pages(), &meta).is_ok());
    assert!(refused(&meta[..86]));
    // The size of the members is more than there is, then right.
    meta[85] = 3;
    assert!(refused(&meta));
    meta.extend_from_slice(b"abc");
    let state = State::open(pages(), &meta).unwrap();
    assert_eq!(state.members(), (&b"abc"[..], LogIndex::ZERO));
    // Set by an entry that is not applied.
    meta[77] = 1;
    assert!(refused(&meta));
}

#[test]
#[should_panic(expected = "does not follow")]
fn entries_out_of_order_are_a_bug_of_the_caller() {
    let mut machine = Machine::plain();
    let mut budget = 1;
    let _ = machine.state.apply(LogIndex::new(2), Term::new(1), &Command::Nothing, &mut budget);
}

#[test]
fn every_entry_advances_the_applied_index_once_and_a_spent_budget_none() {
    let mut machine = Machine::plain();
    let command = Command::Put(put(b"", b""));
    let mut budget = 0;
    let step = machine.state.apply(LogIndex::new(1), Term::new(3), &command, &mut budget);
    assert_eq!(step, Step::Done(Outcome::Refused(Refusal::KeyNotProvided)));
    assert_eq!(machine.state.applied(), (LogIndex::new(1), Term::new(3)));
    let command = Command::Put(put(b"a", b""));
    let step = machine.state.apply(LogIndex::new(2), Term::new(3), &command, &mut budget);
    assert_eq!(step, Step::More);
    assert_eq!(machine.state.applied(), (LogIndex::new(1), Term::new(3)));
    assert!(machine.state.between_entries());
}

/// Pages that verify may still hold nonsense after a bug: the member halts, it does not crash or guess.
#[test]
fn cells_that_contradict_each_other_are_damage_and_change_nothing() {
    let write = |machine: &mut Machine, tree: u8, key: &[u8], payload: &[u8]| {
        let cell = NewCell { counted: true, number: 2, payload, run: None };
        machine.state.pages_mut().put(TreeId(tree), key, &cell).unwrap();
    };
    let read = |machine: &Machine, request: &RangeRequest<'_>| {
        let mut budget = 100;
        Read::new(request)
            .step(&machine.state, &mut budget, &mut |_| std::ops::ControlFlow::Continue(()))
    };
    let apply = |machine: &mut Machine, command: &Command<'_>| {
        let mut budget = 100;
        let (index, term) = machine.state.applied();
        let step = machine.state.apply(index.next(), Term::new(1), command, &mut budget);
        assert_eq!(machine.state.applied(), (index, term));
        step
    };
    let hash = |machine: &Machine| (machine.state.revision(), machine.state.applied());
    let mut machine = with_keys(&[(b"a", b"1"), (b"a", b"2")]);
    let before = hash(&machine);
    write(&mut machine, 0, b"b", b"nonsense");
    assert!(matches!(read(&machine, &get(b"b")), ReadStep::Damaged(_)));
    assert!(matches!(read(&machine, &ALL), ReadStep::Damaged(_)));
    let step = apply(&mut machine, &Command::Put(put(b"b", b"")));
    assert!(matches!(&step, Step::Damaged(damage) if damage.to_string().contains("\"b\"")));
    let step = apply(&mut machine, &Command::DeleteRange(delete(b"b", b"")));
    assert!(matches!(step, Step::Damaged(_)));
    assert_eq!(hash(&machine), before);

    let mut machine = with_keys(&[(b"a", b"1"), (b"a", b"2")]);
    let event = [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    write(&mut machine, 1, &event, b"\x07");
    let old = RangeRequest { revision: 2, ..get(b"a") };
    assert!(matches!(read(&machine, &old), ReadStep::Damaged(_)));
    assert!(machine.state.pages_mut().remove(TreeId(1), &event).unwrap());
    assert!(matches!(read(&machine, &old), ReadStep::Damaged(_)));
    write(&mut machine, 1, &event, b"\x07");
    machine.apply(&Command::Put(put(b"a", b"3")));
    machine.apply(&Command::Compact { revision: 4, physical: true });
    let mut budget = 100;
    assert!(matches!(machine.state.trim(Revision::MAX, &mut budget), Step::Damaged(_)));
}
