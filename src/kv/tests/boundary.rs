//! Trimming at exactly the compacted revision: its events stay, what they replaced goes.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::{Prng, Revision};
use kv::{
    Answer, Command, DeleteRange, KeyValueList, Op, OpReply, Put, RangeRequest, Refusal, Reply,
    State, Txn,
};
use tree::{Direction, KeyRange, Miss, TreeId};

use machine::Machine;

const EVENTS: TreeId = TreeId(1);

/// A size that stays in its cell, and one that does not.
const INLINE: usize = 1_000;
const OVERFLOW: usize = 40_000;

fn key(number: usize) -> Vec<u8> {
    format!("/registry/things/{number:06}").into_bytes()
}

fn value(number: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Prng::new(u64::try_from(number).unwrap()).fill(&mut bytes);
    bytes
}

fn put(machine: &mut Machine, key: &[u8], value: &[u8]) {
    machine.apply(&Command::Put(Put { key, value, ..Put::default() }));
}

/// Writes `count` keys, each tenth with a value that overflows.
fn fill(machine: &mut Machine, count: usize) {
    for number in 0..count {
        let size = if number % 10 == 3 { OVERFLOW } else { INLINE };
        put(machine, &key(number), &value(number, size));
    }
}

const EVERYTHING: DeleteRange<'static> =
    DeleteRange { key: b"\0", range_end: b"\0", prev_kv: false };

fn delete_everything(machine: &mut Machine) {
    machine.apply(&Command::DeleteRange(EVERYTHING));
}

fn now(machine: &Machine) -> i64 {
    i64::try_from(machine.state.revision().get()).unwrap()
}

fn compact(machine: &mut Machine, revision: i64) {
    machine.apply(&Command::Compact { revision, physical: true });
}

fn checkpoints(machine: &mut Machine) {
    // The last frees what only the one before the second could reach.
    for _ in 0..3 {
        machine.checkpoint();
    }
}

fn list(machine: &mut Machine, revision: i64) -> KeyValueList {
    let request =
        RangeRequest { key: b"\0", range_end: b"\0", revision, ..RangeRequest::default() };
    let (pairs, end) = machine.read(&request).unwrap();
    assert_eq!(end.count, pairs.len() as u64);
    let counted = machine.read(&RangeRequest { count_only: true, ..request }).unwrap();
    assert_eq!(counted.1.count, end.count, "at {revision}");
    pairs
}

/// An event as the tree holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stored {
    revision: u64,
    key: Vec<u8>,
    delete: bool,
    shed: bool,
    run: bool,
}

fn events_of(state: &State) -> Result<Vec<Stored>, Miss> {
    let mut events = Vec::new();
    let visit = &mut |cell: tree::Cell<'_>| {
        let kind = cell.payload[0];
        let size = usize::from(u16::from_le_bytes([cell.payload[1], cell.payload[2]]));
        let shed = kind & 2 != 0;
        assert!(!shed || cell.payload.len() == 3 + size, "nothing is left of what it replaced");
        events.push(Stored {
            revision: u64::from_be_bytes(cell.key[..8].try_into().unwrap()),
            key: cell.payload[3..3 + size].to_vec(),
            delete: kind & 1 != 0,
            shed,
            run: cell.run.is_some(),
        });
        ControlFlow::Continue(())
    };
    state.pages().walk(EVENTS, KeyRange::ALL, Direction::Ascending, &mut |_| false, visit)?;
    Ok(events)
}

/// All events, fetched where they are not in memory.
fn events(machine: &mut Machine) -> Vec<Stored> {
    loop {
        match events_of(&machine.state) {
            Ok(events) => return events,
            Err(miss) => machine.fetch(miss),
        }
    }
}

fn shed_count(machine: &mut Machine) -> usize {
    events(machine).iter().filter(|event| event.shed).count()
}

/// The full disk: everything was deleted and compacted, and all values were still there, in the events
/// of the delete itself; on a small disk "no space" stood until somebody wrote and compacted again,
/// which it forbade.
#[test]
fn deleting_everything_and_compacting_at_that_delete_gives_the_space_back() {
    let mut machine = Machine::plain();
    fill(&mut machine, 3_000);
    checkpoints(&mut machine);
    let (full, counts) = (machine.state.pages().allocated_size(), machine.verify());
    assert_eq!(counts.runs, 300);
    delete_everything(&mut machine);
    let revision = now(&machine);
    compact(&mut machine, revision);
    machine.trim();
    let hash = machine.hash();
    checkpoints(&mut machine);
    let counts = machine.verify();
    assert_eq!(counts.runs, 0);
    assert_eq!((counts.cells[0], counts.cells[1]), (3_000, 3_000), "tombstones and deletes stay");
    // Leaves with little in them have merged, in both trees.
    let least = counts.leaf_used_size / 8_192;
    assert!(counts.leaves < 2 * least, "{} leaves for {least}", counts.leaves);
    let left = machine.state.pages().allocated_size();
    assert!(left < full / 10, "{left} bytes left of {full}");
    assert_eq!(machine.hash(), hash);
    // The next compaction takes the rest.
    put(&mut machine, b"k", b"v");
    compact(&mut machine, revision + 1);
    machine.trim();
    checkpoints(&mut machine);
    let counts = machine.verify();
    assert_eq!((counts.cells[0], counts.cells[1]), (1, 1));
    assert_eq!(machine.state.pages().summary(EVENTS).count, 0);
}

/// Everything that can still be asked is answered as it was before.
#[test]
fn reads_watches_and_previous_versions_at_the_boundary_and_behind_it_stay_right() {
    let mut machine = Machine::plain();
    fill(&mut machine, 200);
    // The boundary: a delete of some, a put over some and a creation in one revision.
    let (from, to) = (key(20), key(120));
    let over: Vec<(Vec<u8>, Vec<u8>)> =
        (0..20).map(|number| (key(number), value(number + 7, 30_000))).collect();
    let mut txn = Txn::default();
    txn.success.push(Op::DeleteRange(DeleteRange { key: &from, range_end: &to, prev_kv: false }));
    for (key, value) in &over {
        txn.success.push(Op::Put(Put { key, value, ..Put::default() }));
    }
    txn.success.push(Op::Put(Put { key: b"new", value: b"n", ..Put::default() }));
    machine.apply(&Command::Txn(txn));
    let boundary = now(&machine);
    // Behind it: old and new keys change again, some of the deleted come back.
    for number in (0..200).step_by(3) {
        put(&mut machine, &key(number), &value(number + 9, 2_000));
    }
    let (from, to) = (key(150), key(160));
    machine.apply(&Command::DeleteRange(DeleteRange {
        key: &from,
        range_end: &to,
        prev_kv: false,
    }));
    let mut before: BTreeMap<i64, KeyValueList> = BTreeMap::new();
    for revision in boundary..=now(&machine) {
        before.insert(revision, list(&mut machine, revision));
    }
    let of_boundary = |events: Vec<Stored>| -> Vec<(Vec<u8>, bool)> {
        let wanted = u64::try_from(boundary).unwrap();
        let events = events.into_iter().filter(|event| event.revision == wanted);
        events.map(|event| (event.key, event.delete)).collect()
    };
    let told = of_boundary(events(&mut machine));
    assert_eq!(told.len(), 100 + 20 + 1);

    compact(&mut machine, boundary);
    machine.trim();
    assert_eq!(shed_count(&mut machine), 100 + 20, "all but the creation");
    for (revision, pairs) in &before {
        assert_eq!(list(&mut machine, *revision), *pairs, "at {revision}");
    }
    let request = RangeRequest { key: b"a", revision: boundary - 1, ..RangeRequest::default() };
    assert_eq!(machine.read(&request).unwrap_err(), Refusal::Compacted);
    assert_eq!(of_boundary(events(&mut machine)), told, "what a watch from there is told");
    let behind = |event: &&Stored| event.revision > u64::try_from(boundary).unwrap();
    assert!(!events(&mut machine).iter().filter(behind).any(|event| event.shed));
    // The previous version of a change behind the boundary: one of the boundary, one from before it,
    // none where the boundary deleted it.
    for (number, size) in [(1, Some(30_000)), (130, Some(INLINE)), (50, None)] {
        let key = key(number);
        let command = Put { key: &key, value: b"x", prev_kv: true, ..Put::default() };
        let Ok(Reply::Put { prev, .. }) = machine.execute(&Command::Put(command)) else {
            panic!("a put is not refused")
        };
        assert_eq!(prev.first().map(|pair| pair.value.len()), size, "{number}");
    }
    // Inside a transaction the boundary is read as well.
    let range = RangeRequest { key: b"\0", range_end: b"\0", ..RangeRequest::default() };
    let mut txn = Txn::default();
    txn.success.push(Op::DeleteRange(EVERYTHING));
    txn.success.push(Op::Range(RangeRequest { revision: boundary, ..range }));
    let Ok(Reply::Txn(reply)) = machine.execute(&Command::Txn(txn)) else { panic!() };
    let OpReply::Range { pairs, .. } = &reply.ops[1] else { panic!("{reply:?}") };
    assert_eq!(*pairs, before[&boundary]);
}

/// A key may change twice in one revision. What the first of these changes wrote is the new value of an
/// event that a watch from the boundary is served.
#[test]
fn what_a_change_of_the_compacted_revision_itself_wrote_stays() {
    let mut machine = Machine::plain();
    put(&mut machine, b"k", &value(1, OVERFLOW));
    let between = value(2, OVERFLOW);
    let mut txn = Txn::default();
    txn.success.push(Op::Put(Put { key: b"k", value: &between, ..Put::default() }));
    txn.success.push(Op::DeleteRange(EVERYTHING));
    machine.apply(&Command::Txn(txn));
    let revision = now(&machine);
    compact(&mut machine, revision);
    machine.trim();
    let stored = |machine: &mut Machine| -> Vec<(bool, bool, bool)> {
        let events = events(machine);
        events.iter().map(|event| (event.delete, event.shed, event.run)).collect()
    };
    assert_eq!(stored(&mut machine), [(false, true, false), (true, false, true)]);
    checkpoints(&mut machine);
    assert_eq!(machine.verify().runs, 1);
    put(&mut machine, b"k", b"v");
    compact(&mut machine, revision + 1);
    machine.trim();
    assert_eq!(stored(&mut machine), [(false, false, false)]);
    checkpoints(&mut machine);
    assert_eq!(machine.verify().runs, 0);
}

/// An answer that is still on its way reads what the events of its own revision replaced.
#[test]
fn nothing_is_shed_that_an_open_answer_reads() {
    let mut machine = Machine::plain();
    fill(&mut machine, 50);
    let delete = Command::DeleteRange(DeleteRange { prev_kv: true, ..EVERYTHING });
    let outcome = machine.apply(&delete);
    let revision = now(&machine);
    let mut answer = Answer::new(&delete, &outcome).unwrap();
    let again = Command::Put(Put { key: b"k", value: b"v", prev_kv: true, ..Put::default() });
    let outcome_again = machine.apply(&again);
    let mut answer_behind = Answer::new(&again, &outcome_again).unwrap();
    compact(&mut machine, revision);
    assert!(machine.trim_step(answer.keeps()));
    assert_eq!(machine.state.trimmed(), Revision::new(u64::try_from(revision).unwrap()));
    assert_eq!(shed_count(&mut machine), 0);
    let mut late = Answer::new(&delete, &outcome).unwrap();
    let Ok(Reply::Deleted { prev, .. }) = machine.answer(&mut answer) else { panic!() };
    assert_eq!(prev.len(), 50);
    for (number, pair) in prev.iter().enumerate() {
        let size = if number % 10 == 3 { OVERFLOW } else { INLINE };
        assert_eq!(pair.value, value(number, size));
    }
    // One of the next revision does not need it.
    assert!(machine.trim_step(answer_behind.keeps()));
    assert_eq!(shed_count(&mut machine), 50);
    let Ok(Reply::Put { prev, .. }) = machine.answer(&mut answer_behind) else { panic!() };
    assert!(prev.is_empty());
    // Trimming was let past it: refused, also when compaction has moved on since.
    assert_eq!(machine.answer(&mut late), Err(Refusal::Compacted));
    compact(&mut machine, revision + 1);
    let mut late = Answer::new(&delete, &outcome).unwrap();
    assert_eq!(machine.answer(&mut late), Err(Refusal::Compacted));
}

/// One revision may have a million events: shedding is bounded like all of trimming, and goes on where
/// it was, after a restart too.
#[test]
fn shedding_goes_on_where_a_checkpoint_left_it() {
    let mut machine = Machine::new(Prng::new(3), 0, u32::MAX);
    fill(&mut machine, 1_000);
    delete_everything(&mut machine);
    let revision = now(&machine);
    compact(&mut machine, revision);
    checkpoints(&mut machine);
    machine.reopen();
    machine.budget_max = 200;
    let mut done = 0;
    while done < 400 {
        assert!(!machine.trim_step(Revision::MAX));
        let shed = shed_count(&mut machine);
        assert!(shed >= done && shed <= done + 200, "{done} then {shed}");
        done = shed;
        machine.evict();
    }
    let hash = machine.hash();
    machine.checkpoint();
    // Lost with the crash.
    assert!(!machine.trim_step(Revision::MAX));
    machine.reopen();
    assert_eq!(machine.hash(), hash);
    assert_eq!(shed_count(&mut machine), done, "the checkpoint has it");
    machine.verify();
    machine.evict();
    machine.fetched = 0;
    machine.budget_max = u32::MAX;
    assert!(machine.trim_step(Revision::MAX));
    assert_eq!(shed_count(&mut machine), 1_000);
    assert_eq!(list(&mut machine, revision).len(), 0);
    checkpoints(&mut machine);
    let counts = machine.verify();
    assert_eq!((counts.cells[0], counts.cells[1], counts.runs), (1_000, 1_000, 0));
    // It is done: a restart finds nothing to do, and another compaction drops it all.
    machine.reopen();
    machine.evict();
    machine.fetched = 0;
    assert!(machine.trim_step(Revision::MAX));
    assert!(machine.fetched <= 1, "{} pages read", machine.fetched);
    put(&mut machine, b"k", b"v");
    compact(&mut machine, revision + 1);
    machine.trim();
    checkpoints(&mut machine);
    let counts = machine.verify();
    assert_eq!((counts.cells[0], counts.cells[1], counts.runs), (1, 1, 0));
}

/// The smallest step, with everything lost behind it but what its checkpoint wrote.
#[test]
fn shedding_comes_to_its_end_with_a_crash_behind_every_step() {
    let mut machine = Machine::new(Prng::new(4), 0, 1);
    fill(&mut machine, 60);
    delete_everything(&mut machine);
    let revision = now(&machine);
    compact(&mut machine, revision);
    let mut steps = 0;
    while !machine.trim_step(Revision::MAX) {
        machine.checkpoint();
        machine.reopen();
        steps += 1;
        assert!(steps < 300, "no progress");
    }
    assert!(steps >= 60, "{steps} steps of one event each");
    assert_eq!(shed_count(&mut machine), 60);
    checkpoints(&mut machine);
    assert_eq!(machine.verify().runs, 0);
    // A compaction that comes in the middle of it.
    fill(&mut machine, 60);
    delete_everything(&mut machine);
    let revision = now(&machine);
    compact(&mut machine, revision);
    while shed_count(&mut machine) < 30 {
        assert!(!machine.trim_step(Revision::MAX));
    }
    put(&mut machine, b"k", b"v");
    compact(&mut machine, revision + 1);
    machine.checkpoint();
    machine.reopen();
    machine.trim();
    checkpoints(&mut machine);
    let counts = machine.verify();
    assert_eq!((counts.cells[0], counts.cells[1], counts.runs), (1, 1, 0));
}

/// Small values are not worth a rewritten leaf: no page would go. Their leaves are not even read.
#[test]
fn leaves_without_anything_to_shed_are_passed_unread() {
    let mut machine = Machine::new(Prng::new(5), 0, u32::MAX);
    for number in 0..20_000 {
        let size = if number == 7_777 { OVERFLOW } else { 8 };
        put(&mut machine, &key(number), &value(number, size));
    }
    delete_everything(&mut machine);
    let revision = now(&machine);
    checkpoints(&mut machine);
    machine.evict();
    compact(&mut machine, revision);
    machine.fetched = 0;
    let mut budget = 1_000;
    let mut result = machine.state.trim(Revision::MAX, &mut budget);
    while let kv::Step::Miss(miss) = result {
        machine.fetch(miss);
        result = machine.state.trim(Revision::MAX, &mut budget);
    }
    assert_eq!(result, kv::Step::Done(()));
    // The leaf at the boundary, and that of the large value.
    assert!(machine.fetched <= 2, "{} pages read", machine.fetched);
    assert!(budget > 700, "{budget} left");
    assert!(machine.state.pages().dirty_size() < 20 * 8_192, "and not rewritten");
    checkpoints(&mut machine);
    let counts = machine.verify();
    assert_eq!((counts.cells[0], counts.cells[1], counts.runs), (20_000, 20_000, 0));
}
