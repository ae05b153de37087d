//! The list of members: the same bytes for the same list, and nothing else is accepted.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use base::{FileId, NodeId, Prng};
use support::{below, flag, mutate, prng, scaled};
use wire::{
    MEMBER_ADDRESS_SIZE_MAX, MEMBER_LIST_SIZE_MAX, MEMBER_NAME_SIZE_MAX, MEMBERS_MAX, Member,
    MemberList, MemberListError, MemberRole, is_member_address, is_member_name,
};

const ROLES: [MemberRole; 6] = [
    MemberRole::Voter,
    MemberRole::Learner,
    MemberRole::Promotable,
    MemberRole::Outgoing,
    MemberRole::Both,
    MemberRole::OutgoingToLearner,
];

fn text(prng: &mut Prng, size_max: usize) -> String {
    (0..=below(prng, size_max))
        .map(|_| {
            let all = b"abcXYZ019.-_:[]/~!";
            char::from(all[below(prng, all.len())])
        })
        .collect()
}

fn list(prng: &mut Prng) -> MemberList {
    let mut next_member = 1;
    let mut members = Vec::new();
    for _ in 0..=prng.below(14) {
        let id = next_member + prng.below(3);
        next_member = id + 1 + prng.below(3);
        members.push(Member {
            id: NodeId::new(id),
            name: text(prng, MEMBER_NAME_SIZE_MAX),
            peer_address: text(prng, MEMBER_ADDRESS_SIZE_MAX),
            client_address: if flag(prng) {
                String::new()
            } else {
                text(prng, MEMBER_ADDRESS_SIZE_MAX)
            },
            data_id: FileId::new(u128::from(prng.next_u64()) << 64 | u128::from(prng.next_u64())),
            role: ROLES[below(prng, ROLES.len())],
        });
    }
    members.truncate(MEMBERS_MAX);
    members[0].role = MemberRole::Voter;
    let mut list = MemberList { next_member, members };
    while list.size() > MEMBER_LIST_SIZE_MAX {
        list.members.pop();
    }
    list
}

fn member(id: u64) -> Member {
    Member {
        id: NodeId::new(id),
        name: format!("n{id}"),
        peer_address: format!("host{id}:2380"),
        client_address: format!("host{id}:2379"),
        data_id: FileId::new(u128::from(id) << 100 | 7),
        role: MemberRole::Voter,
    }
}

#[test]
fn every_random_list_is_read_as_it_was_written() {
    let mut prng = prng("member lists");
    for _ in 0..scaled(5_000) {
        let list = list(&mut prng);
        let bytes = list.encode().unwrap();
        assert!(bytes.len() <= MEMBER_LIST_SIZE_MAX);
        assert_eq!(MemberList::decode(&bytes), Ok(list));
    }
}

/// So the hashes over log and state never differ for lists that are equal.
#[test]
fn whatever_is_accepted_is_encoded_to_the_same_bytes() {
    let mut prng = prng("mutated member lists");
    let mut accepted = 0_u64;
    for _ in 0..scaled(60_000) {
        let mut bytes = list(&mut prng).encode().unwrap();
        if prng.one_in(20) {
            prng.fill(&mut bytes[2..]);
        } else {
            mutate(&mut prng, &mut bytes);
        }
        if let Ok(list) = MemberList::decode(&bytes) {
            accepted += 1;
            assert_eq!(list.encode(), Ok(bytes));
        }
    }
    assert!(accepted > 100, "only {accepted} mutations were accepted: the test tests nothing");
}

#[test]
fn every_list_that_ends_early_or_goes_on_is_refused() {
    let list = MemberList { next_member: 4, members: vec![member(1), member(3)] };
    let mut bytes = list.encode().unwrap();
    for size in 0..bytes.len() {
        assert_eq!(MemberList::decode(&bytes[..size]), Err(MemberListError::Size { size }));
    }
    bytes.push(0);
    let size = bytes.len();
    assert_eq!(MemberList::decode(&bytes), Err(MemberListError::Size { size }));
}

#[test]
fn the_bytes_of_a_list_are_pinned() {
    let mut second = member(3);
    second.client_address.clear();
    second.role = MemberRole::Promotable;
    let list = MemberList { next_member: 5, members: vec![member(1), second] };
    let mut expected = vec![1, 2, 5, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    expected.extend_from_slice(&[0, 2, 10, 10]);
    expected.extend_from_slice(b"n1host1:2380host1:2379");
    expected.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0]);
    expected.extend_from_slice(&[2, 2, 10, 0]);
    expected.extend_from_slice(b"n3host3:2380");
    assert_eq!(list.encode(), Ok(expected));
}

#[test]
fn what_is_too_long_together_is_refused_before_anything_is_written() {
    let greatest = |id| Member {
        name: "n".repeat(MEMBER_NAME_SIZE_MAX),
        peer_address: "p".repeat(MEMBER_ADDRESS_SIZE_MAX),
        client_address: "c".repeat(MEMBER_ADDRESS_SIZE_MAX),
        ..member(id)
    };
    let mut list = MemberList { next_member: u64::MAX, members: (1..=4).map(greatest).collect() };
    let bytes = list.encode().unwrap();
    assert_eq!(list.size(), bytes.len());
    assert_eq!(MemberList::decode(&bytes), Ok(list.clone()));
    let fifth = greatest(5);
    let too_large = Err(MemberListError::TooLarge { size: 3_340 });
    assert_eq!(list.check_room(&fifth.name, &fifth.peer_address), too_large);
    list.members.push(fifth);
    assert_eq!(list.validate(), too_large);
    assert_eq!(list.encode(), too_large.map(|()| Vec::new()));
    list.members.pop();
    assert_eq!(list.check_room("n5", "host:2380"), Ok(()));
}

#[test]
fn lists_that_are_not_valid_are_neither_written_nor_read() {
    let valid = MemberList { next_member: 4, members: vec![member(1), member(2), member(3)] };
    valid.validate().unwrap();
    let refused = |change: &dyn Fn(&mut MemberList)| {
        let mut list = valid.clone();
        change(&mut list);
        let error = list.validate().unwrap_err();
        assert_eq!(list.encode(), Err(error));
        assert!(!error.to_string().is_empty());
        error
    };
    let second = NodeId::new(2);
    let order = |id| MemberListError::Order { member: NodeId::new(id) };
    assert_eq!(refused(&|list| list.members[1].id = NodeId::new(1)), order(1));
    assert_eq!(refused(&|list| list.members.swap(1, 2)), order(2));
    assert_eq!(refused(&|list| list.members[0].id = NodeId::new(0)), order(0));
    assert_eq!(refused(&|list| list.next_member = 3), order(3));
    for name in ["", "a b", "a=b", "a,b", "a\tb", "näher", &"n".repeat(129)] {
        assert!(!is_member_name(name), "{name}");
        let error = refused(&|list| list.members[1].name = name.to_owned());
        assert_eq!(error, MemberListError::Name { member: second });
    }
    for address in ["", "a b:1", "a,b:1", "a=b", &"n".repeat(256)] {
        assert!(!is_member_address(address), "{address}");
        // None at all is a member that listens for nobody, or has not said where yet.
        if !address.is_empty() {
            let error = refused(&|list| list.members[1].peer_address = address.to_owned());
            assert_eq!(error, MemberListError::Address { member: second });
            let error = refused(&|list| list.members[1].client_address = address.to_owned());
            assert_eq!(error, MemberListError::Address { member: second });
        }
    }
    for role in [MemberRole::Learner, MemberRole::Promotable, MemberRole::Outgoing] {
        let error = refused(&|list| list.members.iter_mut().for_each(|member| member.role = role));
        assert_eq!(error, MemberListError::NoVoter);
    }
    assert_eq!(refused(&|list| list.members.clear()), MemberListError::NoVoter);
    let count = MEMBERS_MAX + 1;
    assert_eq!(
        refused(&|list| {
            list.members = (1..16).map(member).collect();
            list.next_member = 16;
        }),
        MemberListError::TooMany { count }
    );

    // The same from bytes that no encoder wrote.
    let bytes = valid.encode().unwrap();
    let read = |at: usize, value| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        MemberList::decode(&bytes).unwrap_err()
    };
    assert_eq!(read(0, 2), MemberListError::UnknownFormat { found: 2 });
    assert_eq!(read(1, 15), MemberListError::TooMany { count });
    assert_eq!(read(2, 3), order(3));
    let first = NodeId::new(1);
    assert_eq!(read(34, 9), MemberListError::UnknownRole { member: first, found: 9 });
    assert_eq!(read(38, 0xff), MemberListError::Name { member: first });
    assert_eq!(read(40, 0xff), MemberListError::Address { member: first });
}

#[test]
fn a_list_says_who_is_in_it_and_who_was_removed() {
    let mut list = MemberList { next_member: 4, members: vec![member(1), member(3)] };
    assert_eq!(list.get(NodeId::new(3)), Some(&member(3)));
    assert_eq!(list.by_name("n3").map(|member| member.id), Some(NodeId::new(3)));
    assert_eq!((list.get(NodeId::new(2)), list.by_name("n2")), (None, None));
    let removed: Vec<_> = (0..6).filter(|id| list.is_removed(NodeId::new(*id))).collect();
    assert_eq!(removed, [2]);
    for role in ROLES {
        list.members[1].role = role;
        assert_eq!(list.is_joint(), role.votes_outgoing());
        let kinds = [role.votes() || role.votes_outgoing(), role.is_learner()];
        assert_eq!(kinds.iter().filter(|is| **is).count(), 1, "{role:?}");
    }
}
