//! One call at a time: results, and what is repeated and what must not be.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use std::io::Write;
use std::time::Duration;

use base::NodeId;
use client::{
    Client, Compact, DeleteRange, Error, OpResult, Put, Range, RangeSummary, Status, Txn,
    prefix_end,
};
use fake::*;
use wire::{Effect, HelloReply, KeyValue, Kind, LeaderHint, Op, Refused, Request, StatusReply};

const KV: KeyValue<'static> = KeyValue {
    key: b"key",
    value: b"value",
    create_revision: 2,
    mod_revision: 3,
    version: 2,
    lease: 0,
};

#[test]
fn every_kind_of_call_gives_its_result() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect_request(Kind::Put, |request| {
            let Request::Put(put) = request else { panic!("no put") };
            assert_eq!(put, Put { prev_kv: true, ..Put::new(b"key", b"value") });
        });
        peer.send(|writer, out| writer.put(out, id, 3, Some(KV)));
        let id = peer.expect(Kind::Range);
        peer.send(|writer, out| writer.get(out, id, 3, Some(KV)));
        let id = peer.expect(Kind::Range);
        peer.send(|writer, out| writer.get(out, id, 3, None));
        let id = peer.expect(Kind::DeleteRange);
        peer.send(|writer, out| writer.delete_range(out, id, 4, 1, [KV]).unwrap());
        let id = peer.expect(Kind::Txn);
        peer.send(|writer, out| {
            let mut txn = writer.txn(out, id, 5, true, 2);
            txn.put(5, None);
            txn.txn(false, 1);
            txn.range(RangeSummary { revision: 5, count: 1, more: false }, [KV]);
            txn.finish().unwrap();
        });
        let id = peer.expect(Kind::Compact);
        peer.send(|writer, out| writer.compact(out, id, 5));
        let id = peer.expect(Kind::Status);
        let status = StatusReply { server_version: "0.1.0", revision: 5, ..StatusReply::default() };
        peer.send(|writer, out| writer.status(out, id, &status));
        let id = peer.expect(Kind::Ping);
        peer.send(|writer, out| writer.ping(out, id));
        peer.expect_end();
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let there = client.server().unwrap();
    assert_eq!((there.cluster, there.member, there.requests_max), (77, NodeId::new(1), 64));

    let put = client.put(&Put { prev_kv: true, ..Put::new(b"key", b"value") }).unwrap();
    assert_eq!((put.revision, put.previous), (3, Some(KV.into())));
    assert_eq!(client.get(b"key").unwrap(), Some(KV.into()));
    assert_eq!(client.get(b"key").unwrap(), None);
    let deleted = client.delete(&DeleteRange::one(b"key")).unwrap();
    assert_eq!((deleted.revision, deleted.deleted, deleted.previous.len()), (4, 1, 1));
    let txn = client.txn(&Txn::new().then(Op::Put(Put::new(b"a", b"b")))).unwrap();
    assert_eq!((txn.revision, txn.succeeded, txn.responses.len()), (5, true, 2));
    let OpResult::Txn(inner) = &txn.responses[1] else { panic!("no nested txn") };
    let OpResult::Range(range) = &inner.responses[0] else { panic!("no nested range") };
    assert_eq!(range.kvs, [KV.into()]);
    assert_eq!(client.compact(&Compact { revision: 4, physical: false }).unwrap(), 5);
    let status = client.status().unwrap();
    assert_eq!((status.server_version.as_str(), status.revision), ("0.1.0", 5));
    client.ping().unwrap();
    assert_eq!(client.in_flight(), 0);
    drop(client);
    server.finish();
}

#[test]
fn a_range_in_pieces_is_handed_over_key_by_key() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        for piece in 0..3_u8 {
            peer.send(|writer, out| {
                let mut range = writer.range(out, id);
                for member in 0..2 {
                    let _ = range.push(&KeyValue { key: &[piece, member], ..KV });
                }
                if piece < 2 {
                    range.finish_piece(9);
                } else {
                    range.finish(RangeSummary { revision: 8, count: 9, more: true });
                }
            });
        }
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let mut keys = Vec::new();
    let summary =
        client.range_each(&Range::all(), |member| keys.push(member.key.to_vec())).unwrap();
    assert_eq!(summary, RangeSummary { revision: 8, count: 9, more: true });
    assert_eq!(keys, [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]);
    server.finish();
}

#[test]
fn a_call_follows_the_hint_to_the_leader() {
    let leader = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Put);
        peer.send(|writer, out| writer.put(out, id, 9, None));
    })]);
    let address = leader.address.clone();
    let follower = FakeServer::start(vec![script(move |peer| {
        peer.greet();
        let id = peer.expect(Kind::Put);
        let hint = LeaderHint { member: NodeId::new(2), address: &address };
        peer.refuse(id, &Refused::new(Status::NotLeader).with_leader(hint));
        peer.expect_end();
    })]);
    let mut client = Client::connect([&follower.address], options()).unwrap();
    assert_eq!(client.put(&Put::new(b"key", b"value")).unwrap().revision, 9);
    assert_eq!(client.server().unwrap().endpoint, leader.address);
    follower.finish();
    leader.finish();
}

#[test]
fn an_overloaded_server_is_asked_again_on_the_same_connection() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        for _ in 0..2 {
            let id = peer.expect(Kind::Put);
            let refused = Refused { retry_after_ms: 1, ..Refused::new(Status::Overloaded) };
            peer.refuse(id, &refused);
        }
        let id = peer.expect(Kind::Put);
        peer.send(|writer, out| writer.put(out, id, 9, None));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    assert_eq!(client.put(&Put::new(b"key", b"value")).unwrap().revision, 9);
    server.finish();
}

/// If the write were sent again it could take effect twice: the second script would see it.
#[test]
fn a_write_that_may_have_arrived_is_not_sent_again() {
    let server = FakeServer::start(vec![
        script(|peer| {
            peer.greet();
            peer.expect(Kind::Put);
        }),
        script(|peer| {
            peer.greet();
            peer.expect(Kind::Ping);
        }),
    ]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let error = client.put(&Put::new(b"key", b"value")).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert_eq!(
        client.submit(&client::Call::Ping).map(|_| ()).map_err(|error| error.to_string()),
        Ok(())
    );
    client.flush();
    server.finish();
}

#[test]
fn a_read_whose_connection_was_lost_is_repeated_at_the_next_endpoint() {
    let first = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Range);
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        peer.send(|writer, out| writer.get(out, id, 3, Some(KV)));
    })]);
    let mut client = Client::connect([&first.address, &second.address], options()).unwrap();
    assert_eq!(client.get(b"key").unwrap(), Some(KV.into()));
    first.finish();
    second.finish();
}

#[test]
fn a_range_of_which_pieces_were_delivered_is_not_begun_again() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        peer.send(|writer, out| {
            let mut range = writer.range(out, id);
            let _ = range.push(&KV);
            range.finish_piece(9);
        });
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let mut count = 0;
    let error = client.range_each(&Range::all(), |_| count += 1).unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error}");
    assert_eq!(count, 1);
    server.finish();
}

#[test]
fn refusals_that_a_repetition_cannot_help_come_back_at_once() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        let refused = Refused { compacted_revision: 12, ..Refused::new(Status::Compacted) };
        peer.refuse(id, &refused);
        let id = peer.expect(Kind::DeleteRange);
        peer.refuse(id, &Refused::new(Status::TooLarge).with_effect(Effect::Applied));
        let id = peer.expect(Kind::Put);
        peer.refuse(id, &Refused::new(Status::Unknown));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let error = client.get(b"key").unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.status, refusal.compacted_revision), (Status::Compacted, 12));
    let error = client.delete(&DeleteRange::one(b"key")).unwrap_err();
    assert_eq!(error.refusal().unwrap().effect, Effect::Applied);
    assert!(error.to_string().contains("has been done"), "{error}");
    let error = client.put(&Put::new(b"key", b"value")).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    server.finish();
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let read = peer.expect(Kind::Range);
        peer.expect(Kind::Put);
        // The answer to the read comes after its time, that to the ping counts.
        peer.send(|writer, out| writer.get(out, read, 3, Some(KV)));
        let id = peer.expect(Kind::Ping);
        peer.send(|writer, out| writer.ping(out, id));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    client.set_request_timeout(Duration::from_millis(40)).unwrap();
    assert!(matches!(client.get(b"key").unwrap_err(), Error::TimedOut));
    let error = client.put(&Put::new(b"key", b"value")).unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    client.set_request_timeout(Duration::from_secs(10)).unwrap();
    client.ping().unwrap();
    server.finish();
}

#[test]
fn a_server_without_a_sign_of_life_is_left_for_another_one() {
    let silent = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Range);
        peer.expect(Kind::Ping);
        peer.expect_end();
    })]);
    let other = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        peer.send(|writer, out| writer.get(out, id, 3, Some(KV)));
    })]);
    let mut client = Client::connect([&silent.address, &other.address], options()).unwrap();
    client.set_request_timeout(Duration::from_secs(30)).unwrap();
    assert!(client.get(b"key").unwrap().is_some());
    silent.finish();
    other.finish();
}

/// The server here is as late as a large value makes it on a slow link, where a question for a sign of life
/// would stand behind the value.
#[test]
fn a_large_request_is_given_the_time_of_a_slow_link() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Put);
        std::thread::sleep(Duration::from_millis(2_500));
        peer.send(|writer, out| writer.put(out, id, 3, None));
    })]);
    let mut client = Client::connect([server.address.clone(), nobody()], options()).unwrap();
    client.set_request_timeout(Duration::from_secs(30)).unwrap();
    let put = client.put(&Put::new(b"key", &vec![7; 1 << 20]));
    assert_eq!(put.unwrap().revision, 3);
    server.finish();
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect_end();
    })]);
    let client = Client::connect([nobody(), server.address.clone()], options()).unwrap();
    assert_eq!(client.server().unwrap().endpoint, server.address);
    drop(client);
    server.finish();
}

fn connect_error(endpoints: &[&str]) -> Error {
    match Client::connect(endpoints.iter().copied(), options()) {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

#[test]
fn connecting_fails_with_what_is_wrong() {
    assert!(matches!(connect_error(&[]), Error::NoEndpoints));
    assert!(matches!(connect_error(&[&nobody()]), Error::Unreachable { .. }));
    assert!(matches!(connect_error(&["no port"]), Error::Unreachable { .. }));

    let server = FakeServer::start(vec![
        script(|peer| {
            let id = peer.expect(Kind::Hello);
            peer.refuse(id, &Refused::new(Status::ClusterMismatch));
        }),
        script(|peer| peer.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap()),
        script(|peer| peer.greet_with(&HelloReply { version: 9, ..hello_reply() })),
        script(|peer| {
            peer.expect(Kind::Hello);
        }),
    ]);
    let error = connect_error(&[&server.address]);
    assert_eq!(error.refusal().unwrap().status, Status::ClusterMismatch);
    assert!(matches!(connect_error(&[&server.address]), Error::Protocol { .. }));
    assert!(matches!(connect_error(&[&server.address]), Error::Protocol { .. }));
    assert!(matches!(connect_error(&[&server.address]), Error::Unreachable { .. }));
    server.finish();
}

#[test]
fn a_request_that_is_too_large_is_not_sent() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet_with(&HelloReply { request_body_size_max: 1_000, ..hello_reply() });
        let id = peer.expect(Kind::Ping);
        peer.send(|writer, out| writer.ping(out, id));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let error = client.put(&Put::new(b"key", &[0; 2_000])).unwrap_err();
    assert!(matches!(error, Error::Encode(_)), "{error}");
    client.ping().unwrap();
    server.finish();
}

#[test]
fn the_end_of_a_prefix_is_the_next_key_that_does_not_begin_with_it() {
    assert_eq!(prefix_end(b"abc"), b"abd");
    assert_eq!(prefix_end(b"a\xff\xff"), b"b");
    assert_eq!(prefix_end(b"\xff\xff"), [0]);
    assert_eq!(prefix_end(b""), [0]);
}
