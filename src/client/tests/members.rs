//! Calls about the members of a cluster, and which of several members is asked.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::{FileId, NodeId};
use client::{
    Client, Error, Member, MemberChange, MemberList, MemberOperation, MemberRole, Put, RaftRole,
    Status,
};
use fake::*;
use wire::{
    Effect, Kind, LeaderHint, MemberChangeReply, MemberListReply, MoveLeaderReply, Refused,
    Request, StatusReply, Texts,
};

fn list() -> MemberList {
    let member = |id: u64, role| Member {
        id: NodeId::new(id),
        name: format!("n{id}"),
        peer_address: format!("host{id}:2380"),
        client_address: format!("host{id}:2379"),
        data_id: FileId::new(u128::from(id) << 90),
        role,
    };
    let members = vec![member(1, MemberRole::Voter), member(4, MemberRole::Promotable)];
    MemberList { next_member: 5, members }
}

const CHANGE: MemberChange<'static> = MemberChange {
    operation: MemberOperation::Replace,
    member: NodeId::new(3),
    name: "n4",
    peer_address: "host4:2380",
    force: true,
};

#[test]
fn calls_about_the_members_give_their_results() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let members = &list().encode().unwrap();
        let leader = NodeId::new(1);
        let id = peer.expect(Kind::MemberList);
        let reply = MemberListReply { members, leader };
        peer.send(|writer, out| writer.member_list(out, id, &reply));
        let id = peer.expect_request(Kind::MemberChange, |request| {
            let Request::MemberChange(change) = request else { panic!("no change") };
            assert_eq!(change, CHANGE);
        });
        let reply = MemberChangeReply { member: NodeId::new(4), members, leader };
        peer.send(|writer, out| writer.member_change(out, id, &reply));
        let id = peer.expect_request(Kind::MoveLeader, |request| {
            let Request::MoveLeader(request) = request else { panic!("no move") };
            assert_eq!(request.target, NodeId::new(4));
        });
        let reply = MoveLeaderReply { leader: NodeId::new(4) };
        peer.send(|writer, out| writer.move_leader(out, id, &reply));
        let id = peer.expect(Kind::Status);
        let reply = StatusReply {
            member_name: "n1",
            role: RaftRole::Leader,
            errors: Texts::Given(&["no space"]),
            ..StatusReply::default()
        };
        peer.send(|writer, out| writer.status(out, id, &reply));
        peer.expect_end();
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let members = client.member_list().unwrap();
    assert_eq!((members.list, members.leader), (list(), NodeId::new(1)));
    let change = client.member_change(&CHANGE).unwrap();
    assert_eq!((change.member, change.leader), (NodeId::new(4), NodeId::new(1)));
    assert_eq!(change.list, list());
    assert_eq!(client.move_leader(NodeId::new(4)).unwrap(), NodeId::new(4));
    let status = client.status().unwrap();
    assert_eq!((&*status.member_name, status.role), ("n1", RaftRole::Leader));
    assert_eq!(status.errors, ["no space"]);
    drop(client);
    server.finish();
}

#[test]
fn a_list_of_members_that_cannot_be_read_is_no_answer() {
    let answer = |kind| {
        script(move |peer| {
            peer.greet();
            let id = peer.expect(kind);
            let (members, leader) = (&b"no list"[..], NodeId::new(1));
            peer.send(|writer, out| match kind {
                Kind::MemberList => {
                    writer.member_list(out, id, &MemberListReply { members, leader });
                }
                _ => {
                    let reply = MemberChangeReply { member: NodeId::new(4), members, leader };
                    writer.member_change(out, id, &reply);
                }
            });
            peer.expect_end();
        })
    };
    let scripts = vec![answer(Kind::MemberList), answer(Kind::MemberChange)];
    let server = FakeServer::start(scripts);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let error = client.member_list().unwrap_err();
    assert!(matches!(&error, Error::Protocol { endpoint, .. } if *endpoint == server.address));
    // The change may have been done.
    let error = client.member_change(&CHANGE).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(client.server().is_none(), "the server is not trusted any further");
    server.finish();
}

#[test]
fn refused_changes_come_back_at_once_and_are_not_repeated() {
    let reasons = [
        Status::MemberNotFound,
        Status::MemberExists,
        Status::ChangePending,
        Status::QuorumAtRisk,
        Status::NotCaughtUp,
    ];
    let server = FakeServer::start(vec![script(move |peer| {
        peer.greet();
        for reason in reasons {
            let id = peer.expect(Kind::MemberChange);
            peer.refuse(id, &Refused::new(reason));
        }
        peer.expect_end();
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    for reason in reasons {
        let error = client.member_change(&CHANGE).unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status, refusal.effect), (reason, Effect::None));
    }
    drop(client);
    server.finish();
}

/// Who does not know the leader's address cannot be followed: the others are asked in their order.
#[test]
fn without_the_leaders_address_the_endpoints_are_asked_in_their_order() {
    let refuse = |status| {
        FakeServer::start(vec![script(move |peer| {
            peer.greet();
            let id = peer.expect(Kind::MemberChange);
            let hint = LeaderHint { member: NodeId::new(3), address: "" };
            peer.refuse(id, &Refused::new(status).with_leader(hint));
            peer.expect_end();
        })])
    };
    let (first, second) = (refuse(Status::NotLeader), refuse(Status::NoLeader));
    let third = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::MemberChange);
        let members = &list().encode().unwrap();
        let reply = MemberChangeReply { member: NodeId::new(4), members, leader: NodeId::new(3) };
        peer.send(|writer, out| writer.member_change(out, id, &reply));
    })]);
    let endpoints = [&first.address, &second.address, &third.address];
    let mut client = Client::connect(endpoints, options()).unwrap();
    assert_eq!(client.member_change(&CHANGE).unwrap().member, NodeId::new(4));
    assert_eq!(client.server().unwrap().endpoint, third.address);
    for server in [first, second, third] {
        server.finish();
    }
}

#[test]
fn behind_a_write_with_an_unknown_outcome_the_next_endpoint_is_used() {
    let first = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Put);
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Put);
        peer.send(|writer, out| writer.put(out, id, 9, None));
    })]);
    let mut client = Client::connect([&first.address, &second.address], options()).unwrap();
    let error = client.put(&Put::new(b"key", b"value")).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert_eq!(client.put(&Put::new(b"key", b"value")).unwrap().revision, 9);
    assert_eq!(client.server().unwrap().endpoint, second.address);
    first.finish();
    second.finish();
}

#[test]
fn a_leader_that_has_gone_is_passed_over_for_the_endpoints() {
    let gone = nobody();
    let first = FakeServer::start(vec![script(move |peer| {
        peer.greet();
        let id = peer.expect(Kind::Put);
        let hint = LeaderHint { member: NodeId::new(3), address: &gone };
        peer.refuse(id, &Refused::new(Status::NotLeader).with_leader(hint));
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Put);
        peer.send(|writer, out| writer.put(out, id, 9, None));
    })]);
    let mut client = Client::connect([&first.address, &second.address], options()).unwrap();
    assert_eq!(client.put(&Put::new(b"key", b"value")).unwrap().revision, 9);
    first.finish();
    second.finish();
}

/// During an election each of two members may take the other for the leader. Only the first hint is
/// followed without a pause: with pauses of 10, 20, ... ms, half of that at least, no more than
/// eight attempts fit into the time of the call, and nobody's cores are kept busy.
#[test]
fn members_that_point_at_each_other_are_not_asked_without_a_pause() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let addresses: [Arc<std::sync::OnceLock<String>>; 2] = Default::default();
    let servers = [0, 1].map(|number: usize| {
        let scripts = (0..100).map(|_| {
            let attempts = Arc::clone(&attempts);
            let other = Arc::clone(&addresses[1 - number]);
            script(move |peer| {
                peer.greet();
                // The client may be out of time by now.
                let Some((header, _)) = peer.next() else { return };
                attempts.fetch_add(1, Ordering::Relaxed);
                let address = other.get().unwrap();
                let hint = LeaderHint { member: NodeId::new(9), address };
                let refused = Refused::new(Status::NotLeader).with_leader(hint);
                peer.refuse(header.request, &refused);
            })
        });
        FakeServer::start(scripts.collect())
    });
    for (address, server) in addresses.iter().zip(&servers) {
        address.set(server.address.clone()).unwrap();
    }
    let endpoints = servers.iter().map(|server| &server.address);
    let mut client = Client::connect(endpoints, options()).unwrap();
    client.set_request_timeout(Duration::from_millis(300)).unwrap();
    client.put(&Put::new(b"key", b"value")).unwrap_err();
    let attempts = attempts.load(Ordering::Relaxed);
    assert!((1..=8).contains(&attempts), "{attempts} attempts");
}
