//! What reads and answers hold between steps: each says how much, never more than it announced, grows by
//! little in one step, and can let go of it and begin again.

#![allow(clippy::unwrap_used)]

mod machine;

use std::ops::ControlFlow;

use kv::{
    Answer, Command, DeleteRange, Op, Put, RangeRequest, Read, ReadStep, ReadTxn, Refusal,
    SortOrder, SortTarget, Step, Txn,
};

use machine::Machine;

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Put<'a> {
    Put { key, value, ..Put::default() }
}

#[test]
fn a_read_tells_what_it_holds_never_more_than_it_said_it_might_and_gives_it_up_to_begin_again() {
    let mut machine = Machine::plain();
    let all = RangeRequest { key: b"\0", range_end: b"\0", ..RangeRequest::default() };
    let value = vec![7; 10_000];
    for number in 0..2_000_u32 {
        machine.apply(&Command::Put(put(&number.to_be_bytes(), &value)));
    }
    let state = &machine.state;
    let mut plain = Read::new(&all);
    let mut budget = 100;
    let step = plain.step(state, &mut budget, &mut |_| ControlFlow::Continue(()));
    assert_eq!((step, plain.held(), plain.held_max()), (ReadStep::More, 0, 0));

    let sorted = RangeRequest { target: SortTarget::Value, order: SortOrder::Ascend, ..all };
    let mut read = Read::new(&sorted);
    assert_eq!(read.held(), 0);
    let (mut steps, mut peak, mut given_up, mut seen) = (0, 0, false, 0);
    loop {
        let (before, max) = (read.held(), read.held_max());
        let mut budget = 1_000_000;
        let step = read.step(state, &mut budget, &mut |_| {
            seen += 1;
            ControlFlow::Continue(())
        });
        assert!(read.held() <= before + (1 << 20), "{} after {before}", read.held());
        assert!(read.held() <= max && read.held_max() <= max);
        peak = peak.max(read.held());
        steps += 1;
        match step {
            ReadStep::More if peak > 10 << 20 && !given_up => {
                read.give_up();
                assert_eq!(read.held(), 0);
                given_up = true;
            }
            ReadStep::More => {}
            ReadStep::Done(end) => break assert_eq!((end.count, seen), (2_000, 2_000)),
            step => panic!("{step:?}"),
        }
    }
    assert!(given_up && peak >= 20_000_000 && steps > 80, "{steps} steps, {peak} bytes");

    let ops = vec![Op::Range(all), Op::Range(sorted)];
    let txn = Txn { compares: vec![], success: ops, failure: vec![] };
    let mut read = ReadTxn::new();
    let (mut steps, mut peak, mut given_up) = (0, 0, false);
    loop {
        let before = read.held();
        let mut budget = 1_000_000;
        let step = read.step(state, &txn, &mut budget);
        assert!(read.held() <= before + (1 << 20), "{} after {before}", read.held());
        assert!(read.held() <= read.held_max());
        peak = peak.max(read.held());
        steps += 1;
        match step {
            Step::More if peak > 30 << 20 && !given_up => {
                read.give_up();
                assert_eq!(read.held(), 0);
                given_up = true;
            }
            Step::More => {}
            // Twice 20 MB of pairs are more than an answer holds.
            Step::Done(reply) => break assert_eq!(reply, Err(Refusal::ReplyTooLarge)),
            step => panic!("{step:?}"),
        }
    }
    assert!(given_up && steps > 200, "{steps} steps, {peak} bytes");
}

#[test]
fn the_answer_of_a_write_that_gave_up_what_it_held_is_the_same() {
    let mut machine = Machine::plain();
    let all = RangeRequest { key: b"\0", range_end: b"\0", ..RangeRequest::default() };
    for number in 0..1_000_u32 {
        machine.apply(&Command::Put(put(&number.to_be_bytes(), &[7; 1_000])));
    }
    let delete = DeleteRange { key: b"\0", range_end: b"\0", prev_kv: true };
    let ops = vec![Op::Range(all), Op::DeleteRange(delete)];
    let command = Command::Txn(Txn { compares: vec![], success: ops, failure: vec![] });
    let outcome = machine.apply(&command);
    let state = &machine.state;
    let whole = |mut answer: Answer, give_up_at: usize| {
        let mut held = 0;
        for step in 0.. {
            if step == give_up_at {
                held = answer.held();
                answer.give_up();
                assert_eq!(answer.held(), 0);
            }
            match answer.step(state, &mut 50) {
                Step::More => {}
                Step::Done(reply) => return (reply, held),
                step => panic!("{step:?}"),
            }
        }
        unreachable!()
    };
    let (expected, _) = whole(Answer::new(&command, &outcome).unwrap(), usize::MAX);
    let (reply, held) = whole(Answer::new(&command, &outcome).unwrap(), 30);
    assert!(held > 700_000, "{held}");
    assert_eq!(reply, expected);
}
