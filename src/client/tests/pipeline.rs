//! Many calls in flight: order, credits, and a final result for each.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use client::{Call, Client, Error, Put, Range, Reply, Status};
use fake::*;
use wire::{HelloReply, KeyValue, Kind, RangeSummary, Refused};

#[test]
fn results_come_in_the_order_of_the_replies() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let ids: Vec<_> = (0..10).map(|_| peer.expect(Kind::Put)).collect();
        for (revision, id) in (0..).zip(ids.iter().rev()) {
            peer.send(|writer, out| writer.put(out, *id, revision, None));
        }
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let put = Call::Put(Put::new(b"key", b"value"));
    let ids: Vec<_> = (0..10).map(|_| client.submit(&put).unwrap()).collect();
    assert_eq!(client.in_flight(), 10);
    for (revision, id) in (0..).zip(ids.iter().rev()) {
        let completion = client.receive().unwrap();
        assert_eq!((completion.request, completion.is_final), (*id, true));
        let answer = completion.result.unwrap();
        let Ok(Reply::Put(reply)) = answer.reply() else { panic!("no put reply") };
        assert_eq!(reply.revision, revision);
    }
    assert_eq!(client.in_flight(), 0);
    assert!(client.receive().is_none());
    server.finish();
}

#[test]
fn credits_bound_requests_and_bytes_in_flight() {
    let server = FakeServer::start(vec![
        script(|peer| {
            peer.greet_with(&HelloReply { requests_max: 2, ..hello_reply() });
            for _ in 0..3 {
                let id = peer.expect(Kind::Put);
                peer.send(|writer, out| writer.put(out, id, 1, None));
            }
        }),
        script(|peer| {
            peer.greet_with(&HelloReply { bytes_max: 1_000, ..hello_reply() });
            for _ in 0..3 {
                let id = peer.expect(Kind::Put);
                peer.send(|writer, out| writer.put(out, id, 1, None));
            }
        }),
    ]);
    for value in [&[0; 8][..], &[0; 400][..]] {
        let mut client = Client::connect([&server.address], options()).unwrap();
        let put = Call::Put(Put::new(b"key", value));
        client.submit(&put).unwrap();
        client.submit(&put).unwrap();
        assert!(matches!(client.submit(&put), Err(Error::CreditsUsed)));
        assert!(client.receive().unwrap().result.is_ok());
        assert!(client.can_submit());
        client.submit(&put).unwrap();
        assert!(client.receive().unwrap().result.is_ok());
        assert!(client.receive().unwrap().result.is_ok());
    }
    server.finish();
}

#[test]
fn a_lost_connection_ends_every_request_and_the_next_one_connects_again() {
    let server = FakeServer::start(vec![
        script(|peer| {
            peer.greet();
            peer.expect(Kind::Put);
            peer.expect(Kind::Range);
        }),
        script(|peer| {
            peer.greet();
            let id = peer.expect(Kind::Put);
            peer.send(|writer, out| writer.put(out, id, 1, None));
        }),
    ]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let put = Call::Put(Put::new(b"key", b"value"));
    let write = client.submit(&put).unwrap();
    let read = client.submit(&Call::Range(Range::one(b"key"))).unwrap();
    let first = client.receive().unwrap();
    assert_eq!((first.request, first.is_final, first.was_sent), (write, true, true));
    assert!(matches!(first.result, Err(Error::OutcomeUnknown { .. })));
    assert!(matches!(client.submit(&put), Err(Error::ResultsPending)));
    let second = client.receive().unwrap();
    assert_eq!(second.request, read);
    assert!(matches!(second.result, Err(Error::ConnectionLost { .. })));
    assert!(client.receive().is_none());
    let again = client.submit(&put).unwrap();
    assert!(again > read, "ids are not used twice");
    assert!(client.receive().unwrap().result.is_ok());
    server.finish();
}

#[test]
fn the_reason_for_which_the_server_closes_is_told() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Range);
        let refused = Refused::new(Status::ShuttingDown).with_message("going down for a while");
        peer.refuse(base::RequestId::new(0), &refused);
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    client.submit(&Call::Range(Range::one(b"key"))).unwrap();
    let error = client.receive().unwrap().result.unwrap_err();
    assert_eq!(error.to_string(), "going down for a while");
    server.finish();
}

#[test]
fn an_answer_to_nothing_breaks_the_connection() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Put);
        peer.send(|writer, out| writer.put(out, base::RequestId::new(4_711), 1, None));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    client.submit(&Call::Put(Put::new(b"key", b"value"))).unwrap();
    let error = client.receive().unwrap().result.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert_eq!(client.server(), None);
    server.finish();
}

#[test]
fn cancelling_names_the_request_and_its_result_still_comes() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        assert_eq!(peer.expect(Kind::Cancel), id);
        peer.refuse(id, &Refused::new(Status::Cancelled));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let id = client.submit(&Call::Range(Range::all())).unwrap();
    client.cancel(id);
    let completion = client.receive().unwrap();
    assert_eq!(completion.request, id);
    let error = completion.result.unwrap_err();
    assert_eq!(error.refusal().unwrap().status, Status::Cancelled);
    server.finish();
}

#[test]
fn a_call_leaves_the_results_of_submitted_requests_for_later() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let first = peer.expect(Kind::Put);
        let second = peer.expect(Kind::Ping);
        peer.send(|writer, out| writer.put(out, first, 5, None));
        peer.send(|writer, out| writer.ping(out, second));
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let put = client.submit(&Call::Put(Put::new(b"key", b"value"))).unwrap();
    client.ping().unwrap();
    let completion = client.receive().unwrap();
    assert_eq!(completion.request, put);
    assert!(completion.result.is_ok());
    server.finish();
}

/// Both sides' socket buffers are full and the server reads nothing until its replies are taken:
/// a client that only wrote would wait for ever.
#[test]
fn a_blocked_write_takes_replies() {
    const COUNT: u32 = 16;
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect(Kind::Range);
        let value = vec![1; 1 << 20];
        for left in (0..COUNT).rev() {
            peer.send(|writer, out| {
                let mut range = writer.range(out, id);
                let _ = range.push(&KeyValue { value: &value, ..KeyValue::default() });
                if left > 0 {
                    range.finish_piece(9);
                } else {
                    range.finish(RangeSummary::default());
                }
            });
        }
        for _ in 0..COUNT {
            let id = peer.expect(Kind::Put);
            peer.send(|writer, out| writer.put(out, id, 1, None));
        }
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    client.submit(&Call::Range(Range::all())).unwrap();
    client.flush();
    let value = vec![2; 1 << 20];
    for _ in 0..COUNT {
        client.submit(&Call::Put(Put::new(b"key", &value))).unwrap();
    }
    let mut finals = 0;
    while let Some(completion) = client.receive() {
        completion.result.unwrap();
        finals += u32::from(completion.is_final);
    }
    assert_eq!(finals, COUNT + 1);
    server.finish();
}
