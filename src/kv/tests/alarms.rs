//! Alarms: raised, disarmed, what they refuse, and that they outlive a restart and go with the state.

#![allow(clippy::unwrap_used)]

mod machine;

use base::{Alarm, AlarmKind, ClientId, LeaseId, LogIndex, NodeId, Prng, Revision, Stamp};
use kv::{
    ALARMS_MAX, Chunk, Command, DeleteRange, Due, Export, Import, Op, Outcome, Put, RangeRequest,
    Refusal, Remembered, State, Step, Txn, Unpack,
};
use tree::PageFile;

use machine::{Machine, options};

fn alarm(kind: AlarmKind, member: u64) -> Alarm {
    Alarm { kind, member: NodeId::new(member) }
}

fn raise(machine: &mut Machine, alarm: Alarm) -> Outcome {
    machine.apply(&Command::Raise(alarm))
}

fn disarm(machine: &mut Machine, kind: AlarmKind, member: u64) -> Vec<Alarm> {
    match machine.apply(&Command::Disarm { kind, member: NodeId::new(member) }) {
        Outcome::Alarms { alarms, .. } => alarms,
        outcome => panic!("{outcome:?}"),
    }
}

fn put(key: &[u8]) -> Put<'_> {
    Put { key, value: b"value", ..Put::default() }
}

fn txn<'a>(success: Vec<Op<'a>>, failure: Vec<Op<'a>>) -> Command<'a> {
    Command::Txn(Txn { compares: Vec::new(), success, failure })
}

fn nested(success: Vec<Op<'_>>) -> Op<'_> {
    Op::Txn(Box::new(Txn { compares: Vec::new(), success, failure: Vec::new() }))
}

#[test]
fn alarms_are_raised_once_and_disarmed_by_member_or_all_at_once() {
    let mut machine = Machine::plain();
    let empty = machine.hash();
    let revision = machine.state.revision();
    let told = |one| Outcome::Alarms { revision, alarms: vec![one] };
    let [five, nine, nobody] = [5, 9, 0].map(|member| alarm(AlarmKind::NoSpace, member));
    let corrupt = alarm(AlarmKind::Corrupt, 5);
    for one in [five, nine, corrupt, nobody, five] {
        assert_eq!(raise(&mut machine, one), told(one));
    }
    assert_eq!(machine.state.alarms(), [nobody, five, nine, corrupt]);
    assert_ne!(machine.hash(), empty, "members must agree on them");
    assert_eq!(disarm(&mut machine, AlarmKind::NoSpace, 5), [five]);
    assert_eq!(disarm(&mut machine, AlarmKind::NoSpace, 5), []);
    assert_eq!(disarm(&mut machine, AlarmKind::NoSpace, 0), [nobody, nine]);
    assert_eq!(disarm(&mut machine, AlarmKind::Corrupt, 0), [corrupt]);
    assert_eq!((machine.state.revision(), machine.hash()), (revision, empty));

    // As many as a meta record has room for, beside the longest list of members.
    machine.apply(&Command::Members(&vec![7; kv::MEMBERS_SIZE_MAX]));
    for member in 0..ALARMS_MAX as u64 {
        raise(&mut machine, alarm(AlarmKind::NoSpace, member));
    }
    let refused = Outcome::Refused(Refusal::TooManyAlarms);
    assert_eq!(raise(&mut machine, alarm(AlarmKind::NoSpace, 1_000)), refused);
    assert_eq!(raise(&mut machine, five), told(five));
    let hash = machine.hash();
    machine.checkpoint();
    machine.reopen();
    assert_eq!((machine.state.alarms().len(), machine.hash()), (ALARMS_MAX, hash));
}

#[test]
fn what_takes_space_is_refused_for_want_of_it_and_everything_while_members_disagree() {
    let mut machine = Machine::plain();
    let lease = LeaseId::new(7);
    machine.apply(&Command::LeaseGrant { time: 1, lease, ttl_ms: 1_000 });
    let granted = machine.state.applied().0;
    machine.apply(&Command::Put(Put { lease, ..put(b"leased") }));
    machine.apply(&Command::Put(put(b"a")));
    let delete = DeleteRange { key: b"a", ..DeleteRange::default() };
    let range = || Op::Range(RangeRequest { key: b"a", ..RangeRequest::default() });
    let takes_space = [
        Command::Put(put(b"b")),
        Command::PutWithTtl { time: 2, put: put(b"b"), ttl_ms: 1_000 },
        Command::LeaseGrant { time: 2, lease: LeaseId::new(8), ttl_ms: 1_000 },
        txn(vec![Op::Put(put(b"b"))], vec![]),
        // The branch that is not taken, and what is nested in it.
        txn(vec![range()], vec![nested(vec![Op::Put(put(b"b"))])]),
    ];
    let due = Due { lease, granted };
    let others = [
        Command::DeleteRange(delete),
        txn(vec![Op::DeleteRange(delete)], vec![nested(vec![range()])]),
        Command::Compact { revision: 2, physical: false },
        Command::LeaseExpire { time: u64::MAX >> 1, due, per_key: true },
        Command::LeaseRevoke { lease },
    ];
    raise(&mut machine, alarm(AlarmKind::Corrupt, 3));
    raise(&mut machine, alarm(AlarmKind::NoSpace, 3));
    for command in takes_space.iter().chain(&others) {
        assert_eq!(machine.apply(command), Outcome::Refused(Refusal::Corrupt), "{command:?}");
    }
    assert_eq!(machine.state.revision(), Revision::new(3));
    let renewed = machine.apply(&Command::LeaseKeepAlive { time: 3, leases: &7_u64.to_le_bytes() });
    assert!(matches!(renewed, Outcome::Renewed { ttls_ms, .. } if ttls_ms == [1_000]));
    disarm(&mut machine, AlarmKind::Corrupt, 3);
    for command in &takes_space {
        assert_eq!(machine.apply(command), Outcome::Refused(Refusal::NoSpace), "{command:?}");
    }
    assert_eq!(machine.state.revision(), Revision::new(3));
    for command in &others[..4] {
        let outcome = machine.apply(command);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
    }
    assert!(machine.state.lease(lease).unwrap().is_none());
    disarm(&mut machine, AlarmKind::NoSpace, 0);
    assert!(matches!(machine.apply(&takes_space[0]), Outcome::Put { .. }));
}

/// A client was told that its write has had no effect: a copy of it that comes late must not have one.
#[test]
fn a_stamped_write_that_was_refused_stays_refused_and_one_that_was_applied_stays_known() {
    let mut machine = Machine::plain();
    let Outcome::Registered { client } = machine.apply(&Command::Register { clients_max: 9 })
    else {
        panic!("not registered")
    };
    let stamp = |sequence| Stamp { client: ClientId::new(client.get()), sequence, floor: 1 };
    let write = Command::Put(put(b"a"));
    let applied = machine.apply_once(Some(&stamp(1)), &write);
    raise(&mut machine, alarm(AlarmKind::NoSpace, 1));
    let known = Outcome::Repeated(Remembered::Put { revision: Revision::new(2) });
    assert_eq!(applied, Outcome::Put { revision: Revision::new(2) });
    assert_eq!(machine.apply_once(Some(&stamp(1)), &write), known);
    let refused = machine.apply_once(Some(&stamp(2)), &write);
    assert_eq!(refused, Outcome::Refused(Refusal::NoSpace));
    disarm(&mut machine, AlarmKind::NoSpace, 1);
    let again = machine.apply_once(Some(&stamp(2)), &write);
    assert_eq!(again, Outcome::Repeated(Remembered::Refused(Refusal::NoSpace)));
    assert_eq!(machine.state.revision(), Revision::new(2));
}

fn export(machine: &mut Machine) -> Vec<Vec<u8>> {
    let root = machine.state.pages_mut().hold().unwrap();
    let mut export = Export::new(&machine.state, root).unwrap();
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::new();
        match export.step(&machine.state, &mut chunk, &mut u32::MAX.clone()) {
            Step::Done(end) => {
                chunks.push(chunk);
                if end == Chunk::Last {
                    machine.state.pages_mut().release(root);
                    return chunks;
                }
            }
            Step::More => {}
            Step::Miss(miss) => export.install(miss, machine.read_image(miss)).unwrap(),
            Step::Damaged(damage) => panic!("{damage}"),
        }
    }
}

#[test]
fn alarms_go_with_the_state_also_in_the_middle_of_an_entry() {
    let mut machine = Machine::new(Prng::new(5), 1 << 20, u32::MAX);
    for number in 0..300 {
        machine.apply(&Command::Put(put(format!("{number:03}").as_bytes())));
    }
    let up = [alarm(AlarmKind::NoSpace, 3), alarm(AlarmKind::NoSpace, u64::MAX)];
    for one in up {
        raise(&mut machine, one);
    }
    let delete = |key, range_end| Op::DeleteRange(DeleteRange { key, range_end, prev_kv: false });
    let inner = nested(vec![delete(b"1", b"2"), delete(b"2", b"3")]);
    let command = txn(vec![delete(b"0", b"1"), inner], vec![]);
    machine.budget_max = 20;
    let mut moments = 0;
    while machine.apply_step(&command).is_none() {
        moments += 1;
        machine.checkpoint();
        let mut unpack = Unpack::new();
        for chunk in export(&mut machine) {
            unpack.take(&chunk, &mut |_| {}).unwrap();
        }
        assert_eq!(unpack.head().unwrap().alarms, up);
        if moments == 5 {
            machine.reopen();
            assert_eq!(machine.state.alarms(), up);
        }
    }
    assert!(moments > 9, "{moments} moments");
    machine.checkpoint();
    let mut import = Import::new(PageFile::create(&options(1 << 30)));
    for chunk in export(&mut machine) {
        assert!(import.feed(&chunk, &mut u32::MAX.clone()).is_ok());
    }
    let sent = import.finish().unwrap();
    assert_eq!((sent.alarms(), sent.state_hash()), (&up[..], machine.hash()));
}

/// A data directory of before there were alarms.
#[test]
fn a_state_of_the_format_before_has_none_and_nonsense_is_refused() {
    // Format, numbers and sums, members, what is half done, clients, log time, leases, steps.
    let mut meta = vec![5];
    meta.resize(1 + 4 * 8 + 2 * 16 + 12 + 10 + 4 + 2 * 8 + 2 * 2 + 16 + 8 + 16 + 4, 0);
    let open = |meta: &[u8]| State::open(Machine::plain().into_pages(), meta);
    let state = open(&meta).unwrap();
    assert_eq!((state.alarms(), state.applied().0), (&[][..], LogIndex::ZERO));
    meta[0] = 6;
    assert!(open(&meta).is_err(), "their number is missing");
    let with = |alarms: &[(u8, u64)]| {
        let mut meta = meta.clone();
        meta.push(u8::try_from(alarms.len()).unwrap());
        for (kind, member) in alarms {
            meta.push(*kind);
            meta.extend_from_slice(&member.to_le_bytes());
        }
        open(&meta).map(|state| state.alarms().len())
    };
    assert_eq!(with(&[]), Ok(0));
    assert_eq!(with(&[(1, 3), (2, 0)]), Ok(2));
    for wrong in [&[(0, 3)][..], &[(3, 3)], &[(1, 3), (1, 3)], &[(2, 0), (1, 3)]] {
        assert!(with(wrong).is_err(), "{wrong:?}");
    }
    let many: Vec<(u8, u64)> = (0..=ALARMS_MAX as u64).map(|member| (1, member)).collect();
    assert!(with(&many).is_err());
}
