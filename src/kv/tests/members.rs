//! What the store keeps about the members of the cluster.

#![allow(clippy::unwrap_used)]

mod machine;

use base::LogIndex;
use kv::{Command, Limits, MEMBERS_SIZE_MAX, Outcome, Put, Refusal};

use machine::Machine;

const LIMITS: Limits = Limits { value_size_max: 1 << 20, txn_ops_max: 128 };

#[test]
fn members_are_set_without_a_revision_and_come_back_after_a_restart() {
    let mut machine = Machine::plain();
    assert_eq!(machine.state.members(), (&b""[..], LogIndex::ZERO));
    machine.state.set_members_at_creation(b"one, two, three");
    assert_eq!(machine.state.members(), (&b"one, two, three"[..], LogIndex::ZERO));
    let hash = machine.hash();
    machine.apply(&Command::Put(Put { key: b"a", value: b"1", ..Put::default() }));
    let revision = machine.state.revision();
    let largest = vec![7; MEMBERS_SIZE_MAX];
    assert_eq!(machine.apply(&Command::Members(&largest)), Outcome::Nothing);
    assert_eq!(machine.state.members(), (&largest[..], LogIndex::new(2)));
    assert_eq!(machine.state.revision(), revision);
    machine.checkpoint();
    machine.reopen();
    assert_eq!(machine.state.members(), (&largest[..], LogIndex::new(2)));

    // One byte too many changes nothing.
    let before = machine.hash();
    assert_ne!(before, hash);
    let refused = Refusal::ValueTooLarge { size: 3_073, size_max: 3_072 };
    let command = [7; MEMBERS_SIZE_MAX + 1];
    assert_eq!(Command::Members(&command).validate(&LIMITS), Err(refused));
    assert_eq!(machine.apply(&Command::Members(&command)), Outcome::Refused(refused));
    assert_eq!(machine.hash(), before);

    // The same bytes by another entry are another state: they were agreed on later.
    let mut other = Machine::plain();
    other.state.set_members_at_creation(b"one, two, four");
    assert_eq!(other.hash(), hash, "before an entry has set them nobody has agreed on any");
    machine.apply(&Command::Members(&largest));
    assert_eq!(machine.state.members().1, LogIndex::new(4));
    assert_ne!(machine.hash(), before);
}

#[test]
#[should_panic(expected = "set by an entry from now on")]
fn members_cannot_be_set_at_creation_behind_an_entry() {
    let mut machine = Machine::plain();
    machine.apply(&Command::Nothing);
    machine.state.set_members_at_creation(b"late");
}
