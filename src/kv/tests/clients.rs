//! Writes with a stamp take effect once: what is kept of them, for how long, and of which clients.

#![allow(clippy::unwrap_used)]

mod machine;

use base::limits::{CLIENT_RESULTS_MAX, CLIENTS_MAX};
use base::{ClientId, Prng, Revision, Stamp};
use kv::{
    Command, Compare, DeleteRange, Op, Operand, Outcome, Put, Refusal, Relation, Remembered, Txn,
};

use machine::Machine;

const EXPIRED: Outcome = Outcome::Refused(Refusal::SessionExpired);

fn stamp(client: ClientId, sequence: u64, floor: u64) -> Stamp {
    Stamp { client, sequence, floor }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
    Command::Put(Put { key, value, ..Put::default() })
}

fn register_within(machine: &mut Machine, clients_max: u32) -> ClientId {
    match machine.apply(&Command::Register { clients_max }) {
        Outcome::Registered { client } => client,
        outcome => panic!("{outcome:?}"),
    }
}

fn register(machine: &mut Machine) -> ClientId {
    register_within(machine, CLIENTS_MAX)
}

/// Writes a key as this write of the client; the revision that it made.
fn write(machine: &mut Machine, stamp: Stamp) -> Revision {
    match machine.apply_once(Some(&stamp), &put(b"k", b"v")) {
        Outcome::Put { revision } => revision,
        outcome => panic!("{outcome:?} of {stamp:?}"),
    }
}

fn repeated(machine: &mut Machine, stamp: Stamp) -> Outcome {
    machine.apply_once(Some(&stamp), &put(b"k", b"v"))
}

#[test]
fn a_client_is_named_by_the_entry_that_registered_it() {
    let mut machine = Machine::plain();
    let revision = machine.state.revision();
    machine.apply(&Command::Nothing);
    assert_eq!(register(&mut machine), ClientId::new(2));
    assert_eq!(register(&mut machine), ClientId::new(3));
    assert_eq!(machine.state.clients(), 2);
    assert_eq!(machine.state.revision(), revision, "a registration is no change of keys");
}

#[test]
fn a_repeated_write_is_told_the_first_result_and_changes_nothing() {
    let mut machine = Machine::plain();
    let client = register(&mut machine);
    machine.apply(&put(b"other", b"1"));
    let delete = DeleteRange { key: b"a", range_end: b"z", prev_kv: true };
    let holds = Compare {
        key: b"k",
        range_end: b"",
        relation: Relation::Greater,
        operand: Operand::Version(0),
    };
    let txn = Txn {
        compares: vec![holds],
        success: vec![Op::Put(Put { key: b"t", ..Put::default() })],
        failure: Vec::new(),
    };
    let missing = Put { key: b"none", ignore_value: true, ..Put::default() };
    let commands = [
        put(b"k", b"v"),
        Command::Txn(txn.clone()),
        Command::DeleteRange(delete),
        Command::Txn(txn),
        Command::Compact { revision: 4, physical: false },
        Command::Put(missing),
    ];
    let results = [
        Remembered::Put { revision: Revision::new(3) },
        Remembered::Txn { revision: Revision::new(4), succeeded: true },
        Remembered::Deleted { revision: Revision::new(5), count: 3 },
        Remembered::Txn { revision: Revision::new(5), succeeded: false },
        Remembered::Compacted { revision: Revision::new(5), compacted: Revision::new(4) },
        Remembered::Refused(Refusal::KeyNotFound),
    ];
    for (sequence, command) in (1..).zip(&commands) {
        machine.apply_once(Some(&stamp(client, sequence, 1)), command);
    }
    // What would now be applied with another result: nobody finds these keys as they were.
    machine.apply(&put(b"k", b"again"));
    let (revision, hash) = (machine.state.revision(), machine.hash());
    for ((sequence, command), result) in (1..).zip(&commands).zip(results) {
        let outcome = machine.apply_once(Some(&stamp(client, sequence, 1)), command);
        assert_eq!(outcome, Outcome::Repeated(result));
    }
    assert_eq!((machine.state.revision(), machine.hash()), (revision, hash));
    // Without a stamp each is a write of its own.
    assert_eq!(machine.apply(&commands[0]), Outcome::Put { revision: revision.next() });
}

#[test]
fn the_same_number_of_another_client_is_another_write() {
    let mut machine = Machine::plain();
    let (one, two) = (register(&mut machine), register(&mut machine));
    let first = write(&mut machine, stamp(one, 1, 1));
    assert!(write(&mut machine, stamp(two, 1, 1)) > first);
}

#[test]
fn a_number_below_the_floor_is_never_carried_out() {
    let mut machine = Machine::plain();
    let client = register(&mut machine);
    write(&mut machine, stamp(client, 1, 1));
    write(&mut machine, stamp(client, 5, 4));
    let hash = machine.hash();
    // One that was applied, and one that never came.
    for sequence in [1, 3] {
        assert_eq!(repeated(&mut machine, stamp(client, sequence, 1)), EXPIRED);
    }
    // Below the floor that it brings itself.
    assert_eq!(repeated(&mut machine, stamp(client, 6, 7)), EXPIRED);
    assert_eq!(machine.hash(), hash);
    // At the floor, and with an older floor than the one that is known.
    write(&mut machine, stamp(client, 4, 4));
    write(&mut machine, stamp(client, 6, 2));
    assert!(matches!(repeated(&mut machine, stamp(client, 5, 4)), Outcome::Repeated(_)));
}

#[test]
fn a_client_that_is_not_known_gets_nothing_done() {
    let mut machine = Machine::plain();
    let hash = machine.hash();
    for id in [0, 1, 2, u64::MAX] {
        let stamp = stamp(ClientId::new(id), 1, 1);
        assert_eq!(repeated(&mut machine, stamp), EXPIRED);
    }
    assert_eq!(machine.hash(), hash);
    assert_eq!(machine.state.clients(), 0);
}

#[test]
fn a_client_has_at_most_256_results_and_is_told_when_it_wants_more() {
    let mut machine = Machine::plain();
    let client = register(&mut machine);
    let too_many = Outcome::Refused(Refusal::TooManyUnanswered);
    let results = |machine: &mut Machine| {
        for _ in 0..2 {
            machine.checkpoint();
        }
        machine.verify().cells[2] - machine.state.clients()
    };
    // In an order of their own, as over several connections.
    for sequence in (1..=CLIENT_RESULTS_MAX).rev() {
        write(&mut machine, stamp(client, sequence, 1));
    }
    assert_eq!(results(&mut machine), 256);
    let hash = machine.hash();
    assert_eq!(repeated(&mut machine, stamp(client, 257, 1)), too_many);
    assert_eq!(machine.hash(), hash, "a write that is refused for this may come again");
    assert!(matches!(repeated(&mut machine, stamp(client, 256, 1)), Outcome::Repeated(_)));
    // The oldest is answered: there is room for one.
    write(&mut machine, stamp(client, 257, 2));
    assert_eq!(repeated(&mut machine, stamp(client, 258, 2)), too_many);
    assert_eq!(results(&mut machine), 256);
    // All are.
    write(&mut machine, stamp(client, 258, 258));
    assert_eq!(results(&mut machine), 1);
    // A leap far beyond drops everything at once.
    write(&mut machine, stamp(client, 1 << 60, 1 << 60));
    assert_eq!(results(&mut machine), 1);
}

#[test]
fn the_client_that_has_not_written_for_longest_makes_room() {
    let mut machine = Machine::plain();
    let [a, b, c] = [(); 3].map(|()| register_within(&mut machine, 3));
    for client in [a, b, c] {
        write(&mut machine, stamp(client, 1, 1));
    }
    // Entries enough that a write moves its client behind the others.
    for _ in 0..4_096 {
        machine.apply(&Command::Nothing);
    }
    write(&mut machine, stamp(a, 2, 2));
    let d = register_within(&mut machine, 3);
    assert_eq!(repeated(&mut machine, stamp(b, 1, 1)), EXPIRED, "b was the oldest");
    assert_eq!(repeated(&mut machine, stamp(b, 2, 2)), EXPIRED);
    assert_eq!(machine.state.clients(), 3);
    let e = register_within(&mut machine, 3);
    assert_eq!(repeated(&mut machine, stamp(c, 1, 1)), EXPIRED, "then c");
    for (client, sequence) in [(a, 3), (d, 1), (e, 1)] {
        write(&mut machine, stamp(client, sequence, sequence));
    }
    // What b and c had is gone from the trees, too.
    for _ in 0..2 {
        machine.checkpoint();
    }
    let counts = machine.verify();
    assert_eq!((counts.cells[2], counts.cells[3]), (3 + 3, 3));
}

#[test]
fn a_write_soon_after_the_last_one_keeps_its_client_where_it_is() {
    let mut machine = Machine::plain();
    let [a, b] = [(); 2].map(|()| register_within(&mut machine, 2));
    write(&mut machine, stamp(b, 1, 1));
    write(&mut machine, stamp(a, 1, 1));
    register_within(&mut machine, 2);
    assert_eq!(repeated(&mut machine, stamp(a, 1, 1)), EXPIRED, "its place is coarse");
    assert!(matches!(repeated(&mut machine, stamp(b, 1, 1)), Outcome::Repeated(_)));
}

#[test]
fn a_limit_that_was_lowered_is_reached_by_and_by() {
    let mut machine = Machine::plain();
    for _ in 0..5 {
        register_within(&mut machine, 5);
    }
    for expected in [4, 3, 2, 2] {
        register_within(&mut machine, 2);
        assert_eq!(machine.state.clients(), expected);
    }
    // None at all would be a registration for nothing.
    register_within(&mut machine, 0);
    let last = register_within(&mut machine, 0);
    assert_eq!(machine.state.clients(), 1);
    write(&mut machine, stamp(last, 1, 1));
}

#[test]
fn a_checkpoint_and_the_log_behind_it_bring_back_what_was_kept() {
    let mut machine = Machine::plain();
    let client = register(&mut machine);
    let first = write(&mut machine, stamp(client, 1, 1));
    machine.checkpoint();
    let hash = machine.hash();
    let lost = write(&mut machine, stamp(client, 2, 1));
    let after = machine.hash();
    machine.reopen();
    assert_eq!(machine.hash(), hash);
    let known = |revision| Outcome::Repeated(Remembered::Put { revision });
    assert_eq!(machine.state.clients(), 1);
    // The log again.
    assert_eq!(write(&mut machine, stamp(client, 2, 1)), lost);
    assert_eq!(machine.hash(), after);
    assert_eq!(repeated(&mut machine, stamp(client, 1, 1)), known(first));
    assert_eq!(repeated(&mut machine, stamp(client, 2, 1)), known(lost));
}

/// Members have different pages in memory, and stop in the middle of an entry at different places.
#[test]
fn members_agree_whatever_is_in_memory_and_wherever_a_large_entry_is_cut() {
    let mut cut = 0;
    let mut script = |machine: &mut Machine, restless: bool| {
        let mut prng = Prng::new(11);
        let mut clients = Vec::new();
        for round in 0..60_u64 {
            clients.push((register_within(machine, 20), 1_u64));
            for _ in 0..40 {
                let which = usize::try_from(prng.below(clients.len() as u64)).unwrap();
                let (client, next) = &mut clients[which];
                let floor = next.saturating_sub(prng.below(4)).max(1);
                let key = format!("{:04}", prng.below(3_000));
                let stamp = stamp(*client, *next, floor);
                machine.apply_once(Some(&stamp), &put(key.as_bytes(), &[7; 300]));
                *next += 1;
            }
            let (client, next) = clients[clients.len() - 1];
            let whole = DeleteRange { key: b"1", range_end: b"2", prev_kv: false };
            let (stamp, delete) = (stamp(client, next, next), Command::DeleteRange(whole));
            if round % 7 == 0 {
                loop {
                    if machine.apply_once_step(Some(&stamp), &delete).is_some() {
                        break;
                    }
                    if restless {
                        // What it has done so far is durable, and it goes on from there.
                        machine.checkpoint();
                        machine.reopen();
                        cut += 1;
                    }
                }
            }
            if restless && round % 5 == 0 {
                machine.checkpoint();
                machine.evict();
            }
        }
        machine.hash()
    };
    let calm = script(&mut Machine::plain(), false);
    let mut restless = Machine::new(Prng::new(2), 0, 120);
    assert_eq!(script(&mut restless, true), calm);
    assert!(cut > 5, "{cut} checkpoints in the middle of an entry");
    assert!(restless.fetched > 100, "{} pages were fetched", restless.fetched);
}

/// A leaf whose last cell is dropped goes, and a key that belonged there then belongs to a leaf that may
/// not be in memory: a member once stopped for that. Every floor is tried, so that some are where a leaf
/// ends.
#[test]
fn leaves_that_run_empty_while_a_result_is_kept_do_no_harm() {
    for floor in 2..=CLIENT_RESULTS_MAX + 1 {
        let run = |machine: &mut Machine| {
            let [client, other] = [(); 2].map(|()| register(machine));
            write(machine, stamp(other, 1, 1));
            // Backwards, so that leaves stay half full, and with the largest results: four leaves.
            for sequence in (1..=CLIENT_RESULTS_MAX).rev() {
                let key = vec![b'k'; 5_000];
                let put = Put { key: &key, ..Put::default() };
                machine.apply_once(Some(&stamp(client, sequence, 1)), &Command::Put(put));
            }
            machine.checkpoint();
            machine.evict();
            write(machine, stamp(client, CLIENT_RESULTS_MAX + 1, floor));
            machine.evict();
            register_within(machine, 2);
            machine.hash()
        };
        let mut small = Machine::new(Prng::new(2), 0, u32::MAX);
        assert_eq!(run(&mut small), run(&mut Machine::plain()));
    }
}
