//! Leases where pages are cold, entries are half applied, and transactions empty them.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::limits::KEY_SIZE_MAX;
use base::{LeaseId, Prng};
use kv::{Command, DeleteRange, Due, DueError, Op, Outcome, Put, State, Txn};

use machine::Machine;

fn grant(time: u64, lease: i64, ttl_ms: u64) -> Command<'static> {
    Command::LeaseGrant { time, lease: LeaseId::new(lease), ttl_ms }
}

fn put<'a>(key: &'a [u8], lease: i64) -> Put<'a> {
    Put { key, value: b"v", lease: LeaseId::new(lease), ..Put::default() }
}

fn txn(success: Vec<Op<'_>>) -> Txn<'_> {
    Txn { success, compares: Vec::new(), failure: Vec::new() }
}

/// Asks until every page has come.
fn asked<T>(machine: &mut Machine, ask: impl Fn(&State) -> Result<T, DueError>) -> T {
    loop {
        match ask(&machine.state) {
            Ok(answer) => return answer,
            Err(DueError::Miss(miss)) => machine.fetch(miss),
            Err(DueError::Damaged(damage)) => panic!("{damage}"),
        }
    }
}

fn exists(machine: &mut Machine, lease: i64) -> bool {
    asked(machine, |state| state.lease(LeaseId::new(lease))).is_some()
}

fn keys_of(machine: &mut Machine, lease: i64) -> Vec<Vec<u8>> {
    asked(machine, |state| {
        let mut keys = Vec::new();
        state.lease_keys(LeaseId::new(lease), b"", &mut |key| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    })
}

/// What leaves a leaf empty takes the leaf away, and what then belongs there belongs to a neighbour that
/// nobody has read: what is added comes first.
#[test]
fn a_key_that_moves_between_leases_needs_only_the_pages_that_were_looked_at() {
    let mut machine = Machine::new(Prng::new(1), 0, u32::MAX);
    let mut prng = Prng::new(2);
    // Three of them fill a leaf.
    let keys: Vec<Vec<u8>> = (0..40)
        .map(|n| {
            let mut key = vec![b'k'; KEY_SIZE_MAX - 3];
            key.extend(format!("{n:03}").bytes());
            key
        })
        .collect();
    for lease in 1..=40 {
        machine.apply(&grant(0, lease, 60_000));
    }
    let mut held: BTreeMap<usize, i64> = BTreeMap::new();
    for _ in 0..4_000 {
        let key = usize::try_from(prng.below(40)).unwrap();
        let lease = i64::try_from(prng.below(41)).unwrap();
        machine.apply(&Command::Put(put(&keys[key], lease)));
        held.insert(key, lease);
        if prng.one_in(3) {
            machine.checkpoint();
        }
        machine.evict();
    }
    for lease in 1..=40 {
        let expected: Vec<Vec<u8>> =
            held.iter().filter(|(_, own)| **own == lease).map(|(n, _)| keys[*n].clone()).collect();
        assert_eq!(keys_of(&mut machine, lease), expected);
    }
    machine.checkpoint();
    machine.verify();
}

#[test]
fn a_lease_that_takes_the_place_of_another_needs_only_the_pages_that_were_looked_at() {
    for others in 0..400 {
        let mut machine = Machine::new(Prng::new(1), 0, u32::MAX);
        for lease in 1..=others {
            machine.apply(&grant(0, lease, 1_000));
        }
        for time in 0..3 {
            let put = put(b"k", 0);
            machine.apply(&Command::PutWithTtl { time, put, ttl_ms: 60_000 });
            machine.checkpoint();
            machine.checkpoint();
            machine.evict();
        }
        assert_eq!(machine.state.leases_count(), u64::try_from(others).unwrap() + 1);
    }
}

/// Applies a command step by step, with a checkpoint behind each and a restart behind some: what a step
/// has done may be told to nobody, in particular not as the hash of the state behind the entry before.
fn in_steps(machine: &mut Machine, command: &Command<'_>) -> (Outcome, u32) {
    let mut steps = 0;
    loop {
        let before = (machine.hash(), machine.state.between_entries());
        if let Some(outcome) = machine.apply_step(command) {
            assert!(machine.state.between_entries());
            return (outcome, steps);
        }
        let changed = (machine.hash(), machine.state.between_entries()) != before;
        assert!(!machine.state.between_entries() || !changed, "half applied, and says it is not");
        let hash = machine.hash();
        machine.checkpoint();
        // What a step has done without a change of a revision is done again behind a restart.
        if [3, 14].contains(&steps) {
            machine.reopen();
            let whole = machine.state.between_entries();
            assert!(!whole || hash == before.0, "half applied, and does not know it any more");
        }
        steps += 1;
    }
}

fn with_keys(lease: i64, count: u32) -> Machine {
    let mut machine = Machine::plain();
    machine.apply(&grant(0, lease, 1_000));
    for n in 0..count {
        machine.apply(&Command::Put(put(format!("{n:04}").as_bytes(), lease)));
    }
    machine.checkpoint();
    machine
}

#[test]
fn a_lease_with_many_keys_ends_in_steps_and_the_state_knows_that_it_is_in_the_middle() {
    let due = |machine: &mut Machine| {
        let mut due = Vec::new();
        machine.state.due(2_000_000_000, 1, &mut due).unwrap();
        due[0]
    };
    let ends = |due: Due| {
        [
            Command::LeaseRevoke { lease: LeaseId::new(7) },
            Command::LeaseExpire { time: 2_000_000_000, due, per_key: false },
            Command::LeaseExpire { time: 2_000_000_000, due, per_key: true },
        ]
    };
    for which in 0..3 {
        let mut whole = with_keys(7, 600);
        let command = &ends(due(&mut whole))[which];
        let expected = whole.apply(command);
        let mut other = with_keys(7, 600);
        other.budget_max = 50;
        let (outcome, steps) = in_steps(&mut other, command);
        assert!(steps > 10, "{steps} steps");
        assert_eq!(outcome, expected);
        assert_eq!(other.hash(), whole.hash());
        assert_eq!(other.state.revision(), whole.state.revision());
        assert_eq!(other.state.leases_count(), 0);
        if let Outcome::Expired { deleted } = outcome {
            assert_eq!(deleted, 600);
        }
    }
}

#[test]
fn many_leases_are_renewed_in_steps_and_the_state_knows_that_it_is_in_the_middle() {
    let build = || {
        let mut machine = Machine::plain();
        for lease in 1..=500 {
            machine.apply(&grant(0, lease, 1_000));
        }
        machine.checkpoint();
        machine
    };
    let ids: Vec<u8> = (0_i64..600).flat_map(i64::to_le_bytes).collect();
    let command = Command::LeaseKeepAlive { time: 5, leases: &ids };
    let mut whole = build();
    let expected = whole.apply(&command);
    let mut other = build();
    other.budget_max = 40;
    let (outcome, steps) = in_steps(&mut other, &command);
    assert!(steps > 10, "{steps} steps");
    assert_eq!(outcome, expected);
    assert_eq!(other.hash(), whole.hash());
}

/// The lease of a put goes with its last key, in a transaction too: but not before the end of it, for a
/// later operation may hang another key on it.
#[test]
fn a_transaction_takes_leases_of_puts_away_that_have_no_key_at_its_end() {
    let build = || {
        let mut machine = Machine::plain();
        let mut leases = Vec::new();
        for key in [b"a", b"b", b"c", b"d"] {
            let put = put(key, 0);
            match machine.apply(&Command::PutWithTtl { time: 0, put, ttl_ms: 9_000 }) {
                Outcome::PutWithLease { lease, .. } => leases.push(lease.get()),
                outcome => panic!("{outcome:?}"),
            }
        }
        machine.apply(&grant(0, 7, 9_000));
        machine.checkpoint();
        (machine, leases)
    };
    let delete = |key| Op::DeleteRange(DeleteRange { key, range_end: b"", prev_kv: false });
    let (mut whole, leases) = build();
    let success = vec![
        delete(b"a"),
        // One that is empty by now is given a key again, and one for a moment.
        Op::Put(put(b"x", leases[0])),
        delete(b"b"),
        Op::Put(put(b"y", leases[1])),
        Op::Txn(Box::new(txn(vec![delete(b"y")]))),
        // Its key goes to another lease.
        Op::Put(put(b"c", 7)),
        delete(b"d"),
    ];
    let command = Command::Txn(txn(success));
    let expected = whole.apply(&command);
    let found: Vec<bool> = leases.iter().map(|lease| exists(&mut whole, *lease)).collect();
    assert_eq!(found, [true, false, false, false]);
    assert_eq!(keys_of(&mut whole, leases[0]), [b"x"]);
    assert_eq!(keys_of(&mut whole, 7), [b"c"]);
    let (mut other, _) = build();
    other.budget_max = 1;
    let (outcome, steps) = in_steps(&mut other, &command);
    assert!(steps > 5, "{steps} steps");
    assert_eq!(outcome, expected);
    assert_eq!(other.hash(), whole.hash());
    assert_eq!(other.state.leases_count(), 2);
}

/// Whoever takes the ids that the state would choose next does not make each choice longer than the last.
#[test]
fn an_id_that_is_taken_is_passed_by_and_not_its_neighbours_too() {
    let mut machine = Machine::plain();
    let first = 0x4000_0000_0000_0000;
    for lease in first..first + 3_000 {
        machine.apply(&grant(0, lease, 9_000));
    }
    // Entry 3,001 chooses freely; the next entries' first choices were not taken either.
    machine.apply(&grant(0, first + 3_002, 9_000));
    match machine.apply(&grant(0, 0, 9_000)) {
        Outcome::Granted { lease, .. } => {
            assert!(lease.get() > 0, "{lease:?}");
            assert!(!(first..first + 10_000).contains(&lease.get()), "{:x}", lease.get());
        }
        outcome => panic!("{outcome:?}"),
    }
}

/// A state that goes on from an older one than what was lost makes the same entries' numbers again.
#[test]
fn chosen_ids_do_not_come_again_with_the_index_but_with_index_and_time() {
    let chosen = |time: u64| {
        let mut machine = Machine::plain();
        machine.apply(&grant(0, 5, 9_000));
        match machine.apply(&grant(time, 0, 9_000)) {
            Outcome::Granted { lease, .. } => lease.get(),
            outcome => panic!("{outcome:?}"),
        }
    };
    let second = 1_000_000_000;
    assert_eq!(chosen(7 * second), chosen(7 * second));
    assert_ne!(chosen(7 * second), chosen(7 * second + 2_000_000));
    assert_eq!(chosen(7 * second) & 0xf_ffff, 2);
}
