//! Entries that are applied in slices with checkpoints between them, and what deleting takes of the disk.

#![allow(clippy::unwrap_used)]

mod machine;

use base::{Prng, Revision};
use kv::{
    Command, Compare, DeleteRange, Op, Operand, Put, RangeRequest, Relation, SortOrder, SortTarget,
    Txn,
};

use machine::Machine;

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

/// Members make checkpoints at different moments, and may stop behind any of them.
#[test]
fn an_entry_goes_on_where_a_checkpoint_in_the_middle_of_it_stands() {
    let build = |budget_max: u32| {
        let mut machine = Machine::new(Prng::new(3), 1 << 20, u32::MAX);
        for number in 0..900 {
            let value = vec![7; 100 + number % 7 * 700];
            machine.apply(&Command::Put(put(format!("{number:03}").as_bytes(), &value)));
        }
        machine.checkpoint();
        machine.budget_max = budget_max;
        machine
    };
    let ops = || {
        vec![
            Op::DeleteRange(delete(b"0", b"2")),
            Op::Put(put(b"150", b"again")),
            Op::Put(put(b"450", b"once more")),
            Op::DeleteRange(delete(b"x", b"y")),
            Op::Txn(Box::new(Txn {
                success: vec![Op::DeleteRange(delete(b"1", b"5")), Op::Put(put(b"z", b"z"))],
                failure: vec![Op::Put(put(b"never", b"v"))],
                compares: Vec::new(),
            })),
            Op::DeleteRange(delete(b"6", b"7")),
        ]
    };
    // What it compares with is gone before the first checkpoint.
    let exists = Compare {
        key: b"000",
        range_end: b"",
        relation: Relation::Greater,
        operand: Operand::Create(0),
    };
    let failure = vec![Op::DeleteRange(delete(b"0", b"9"))];
    let txn = Command::Txn(Txn { compares: vec![exists], success: ops(), failure });
    let all = Command::DeleteRange(delete(b"0", b"8"));
    for command in [all, txn] {
        let mut whole = build(u32::MAX);
        let expected = whole.apply(&command);
        let mut other = build(100);
        let mut reopened = 0;
        let outcome = loop {
            if let Some(outcome) = other.apply_step(&command) {
                break outcome;
            }
            assert!(other.state.may_checkpoint() && !other.state.between_entries());
            other.checkpoint();
            // It passes what it has deleted once more then.
            if [3, 8].contains(&reopened) {
                other.reopen();
            }
            assert_eq!(other.state.revision(), Revision::new(901));
            let (_, end) = other.read(&RangeRequest { limit: 3, ..ALL }).unwrap();
            assert_eq!(end.count, 900);
            reopened += 1;
        };
        assert!(reopened >= 8, "{reopened} checkpoints");
        assert_eq!(outcome, expected);
        assert_eq!(other.hash(), whole.hash());
        assert_eq!(other.state.delete_growth(), whole.state.delete_growth());
        let limit = RangeRequest { limit: 10_000, ..ALL };
        assert_eq!(other.read(&limit).unwrap(), whole.read(&limit).unwrap());
        let before = RangeRequest { revision: 901, ..limit };
        assert_eq!(other.read(&before).unwrap(), whole.read(&before).unwrap());
        other.checkpoint();
        other.verify();
    }
}

/// The reserve of a full disk is made of this.
#[test]
fn deleting_everything_grows_the_trees_by_no_more_than_was_foretold() {
    for (key_size, value_size) in [(8, 0), (8, 10), (100, 100), (8, 1_000), (8, 3_600), (8, 20_000)]
    {
        let mut machine = Machine::plain();
        let mut prng = Prng::new(5);
        let value = vec![7; value_size];
        for number in 0..3_000_u64 {
            // Half of them in order, half anywhere: leaves are full, or not.
            let number = if number % 2 == 0 { number } else { prng.below(1 << 20) };
            let key = format!("{number:0key_size$}");
            machine.apply(&Command::Put(put(key.as_bytes(), &value)));
        }
        machine.checkpoint();
        machine.checkpoint();
        let before = machine.state.pages().allocated_size();
        let foretold = machine.state.delete_growth();
        machine.apply(&Command::DeleteRange(delete(b"0", b"a")));
        machine.checkpoint();
        machine.checkpoint();
        let after = machine.state.pages().allocated_size();
        assert!(after <= before + foretold, "{value_size}: {before} {after} {foretold}");
        // Nor does it keep many times what is needed from being used.
        assert!(foretold <= before * 5 / 4, "{value_size}: {foretold} of {before}");
        assert!(machine.state.delete_growth() < 1 << 14, "nothing is live");
    }
}
