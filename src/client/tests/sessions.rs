//! Clients with a session: what is sent again, with which stamp, and what they say when nobody knows.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use std::time::Duration;

use base::{ClientId, RequestId, Stamp};
use client::{Client, Error, Options, Put, Range, Status};
use fake::*;
use wire::{Call, Effect, Header, Kind, Refused, RegisterReply};

const PUT: Put<'static> = Put::new(b"key", b"value");

/// Answers a registration with this id.
fn register(peer: &mut Peer, client: u64) {
    let id = peer.expect(Kind::Register);
    let reply = RegisterReply { client: ClientId::new(client), unanswered_max: 4 };
    peer.send(|writer, out| writer.register(out, id, &reply));
}

/// The next frame, which must be a put with this stamp.
fn expect_put(peer: &mut Peer, (client, sequence, floor): (u64, u64, u64)) -> RequestId {
    let (header, body) = peer.next().expect("the client has gone");
    assert_eq!(header.kind, Kind::Put);
    assert!(header.flags.has_stamp());
    let (stamp, _) = Stamp::split(&body).unwrap();
    assert_eq!(stamp, Stamp { client: ClientId::new(client), sequence, floor });
    header.request
}

fn answer_put(peer: &mut Peer, id: RequestId, revision: i64, repeated: bool) {
    peer.send(|writer, out| {
        writer.put(out, id, revision, None);
        if repeated {
            Header::mark_repeated(out);
        }
    });
}

#[test]
fn a_write_whose_connection_breaks_is_sent_again_at_the_next_endpoint_with_the_same_stamp() {
    let first = FakeServer::start(vec![script(|peer| {
        peer.greet();
        register(peer, 9);
        let id = expect_put(peer, (9, 1, 1));
        answer_put(peer, id, 2, false);
        expect_put(peer, (9, 2, 2));
        // It goes without an answer.
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_put(peer, (9, 2, 2));
        answer_put(peer, id, 3, true);
        // A read needs no stamp.
        let id = peer.expect(Kind::Range);
        peer.send(|writer, out| writer.get(out, id, 3, None));
        let id = expect_put(peer, (9, 3, 3));
        answer_put(peer, id, 4, false);
        peer.expect_end();
    })]);
    let client = Client::connect([&first.address, &second.address], options()).unwrap();
    let mut client = client.with_session().unwrap();
    assert_eq!(client.session(), Some(ClientId::new(9)));
    assert_eq!(client.put(&PUT).unwrap().revision, 2);
    assert_eq!(client.put(&PUT).unwrap().revision, 3);
    assert!(client.range(&Range::one(b"key")).unwrap().kvs.is_empty());
    assert_eq!(client.put(&PUT).unwrap().revision, 4);
    drop(client);
    first.finish();
    second.finish();
}

#[test]
fn a_write_whose_outcome_the_server_does_not_know_is_sent_again() {
    let unknown = Refused::new(Status::Unknown).with_effect(Effect::Unknown);
    let first = FakeServer::start(vec![script(move |peer| {
        peer.greet();
        register(peer, 9);
        let id = expect_put(peer, (9, 1, 1));
        peer.refuse(id, &unknown);
        peer.expect_end();
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_put(peer, (9, 1, 1));
        answer_put(peer, id, 2, false);
        peer.expect_end();
    })]);
    let client = Client::connect([&first.address, &second.address], options()).unwrap();
    let mut client = client.with_session().unwrap();
    assert_eq!(client.put(&PUT).unwrap().revision, 2);
    drop(client);
    first.finish();
    second.finish();
}

#[test]
fn a_write_in_doubt_ends_as_unknown_when_nobody_takes_it_any_more() {
    for (status, is_answer) in
        [(Status::SessionExpired, false), (Status::NoSpace, false), (Status::KeyNotFound, true)]
    {
        let server = FakeServer::start(vec![
            script(|peer| {
                peer.greet();
                register(peer, 9);
                expect_put(peer, (9, 1, 1));
            }),
            script(move |peer| {
                peer.greet();
                let id = expect_put(peer, (9, 1, 1));
                peer.refuse(id, &Refused::new(status));
                peer.expect_end();
            }),
        ]);
        let client = Client::connect([&server.address], options()).unwrap();
        let mut client = client.with_session().unwrap();
        match client.put(&PUT).unwrap_err() {
            Error::Refused(refusal) => assert!(is_answer && refusal.status == status),
            Error::OutcomeUnknown { .. } => assert!(!is_answer, "{status:?} is what it came to"),
            error => panic!("{error}"),
        }
        drop(client);
        server.finish();
    }
}

#[test]
fn a_session_that_was_forgotten_is_begun_anew_for_a_write_that_was_not_done() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        register(peer, 9);
        let id = expect_put(peer, (9, 1, 1));
        peer.refuse(id, &Refused::new(Status::SessionExpired));
        register(peer, 12);
        let id = expect_put(peer, (12, 1, 1));
        answer_put(peer, id, 2, false);
        // Once for a write: a cluster that forgets all at once is not asked for ever.
        let id = expect_put(peer, (12, 2, 2));
        peer.refuse(id, &Refused::new(Status::SessionExpired));
        register(peer, 15);
        let id = expect_put(peer, (15, 1, 1));
        peer.refuse(id, &Refused::new(Status::SessionExpired));
        peer.expect_end();
    })]);
    let client = Client::connect([&server.address], options()).unwrap();
    let mut client = client.with_session().unwrap();
    assert_eq!(client.put(&PUT).unwrap().revision, 2);
    let error = client.put(&PUT).unwrap_err();
    assert_eq!(error.refusal().unwrap().status, Status::SessionExpired);
    drop(client);
    server.finish();
}

#[test]
fn submitted_writes_keep_their_numbers_and_tell_the_oldest_open_one() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        register(peer, 9);
        let ids: Vec<RequestId> = (1..=4).map(|n| expect_put(peer, (9, n, 1))).collect();
        answer_put(peer, ids[1], 3, false);
        answer_put(peer, ids[0], 2, false);
        let again = expect_put(peer, (9, 3, 3));
        let next = expect_put(peer, (9, 5, 3));
        for id in [ids[2], ids[3], again, next] {
            answer_put(peer, id, 4, id == again);
        }
        peer.expect_end();
    })]);
    let client = Client::connect([&server.address], options()).unwrap();
    let mut client = client.with_session().unwrap();
    let numbers = [(); 4].map(|()| client.begin_write().unwrap());
    assert_eq!(client.begin_write(), None, "as many as the servers allow");
    for number in numbers {
        client.submit_write(number, &Call::Put(PUT)).unwrap();
    }
    for number in [numbers[1], numbers[0]] {
        assert!(client.receive().unwrap().result.is_ok());
        client.end_write(number);
    }
    client.submit_write(numbers[2], &Call::Put(PUT)).unwrap();
    let next = client.begin_write().unwrap();
    client.submit_write(next, &Call::Put(PUT)).unwrap();
    let repeated: Vec<bool> =
        (0..4).map(|_| client.receive().unwrap().result.unwrap().is_repeated()).collect();
    assert_eq!(repeated, [false, false, true, false]);
    drop(client);
    server.finish();
}

#[test]
fn a_client_without_a_session_sends_no_write_twice_and_has_no_numbers() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Put);
    })]);
    let options = Options { request_timeout: Duration::from_secs(2), ..options() };
    let mut client = Client::connect([&server.address], options).unwrap();
    assert_eq!((client.session(), client.begin_write()), (None, None));
    assert!(matches!(client.put(&PUT), Err(Error::OutcomeUnknown { .. })));
    drop(client);
    server.finish();
}
