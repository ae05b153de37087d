//! Watches against servers that go, lag, repeat themselves, forget and refuse: what the user sees is each
//! change once, in order, in whole revisions.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use base::{NodeId, RequestId};
use client::{
    Error, OwnedChange, Status, WatchEnd, WatchEvent, WatchHub, WatchOptions, WatchPosition,
    Watcher,
};
use fake::*;
use wire::{
    HelloReply, KeyValue, Kind, Refused, ReplyWriter, Request, StatusReply, WatchChange, WatchStep,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Of a large value.
const VALUE_SIZE: usize = 64 << 10;

/// The next frame, which must be a watch from there on; gives its id.
fn expect_watch(peer: &mut Peer, revision: i64, sub: u32) -> RequestId {
    peer.expect_request(Kind::Watch, |request| {
        let Request::Watch(watch) = request else { panic!("no watch") };
        assert_eq!((watch.start_revision, watch.start_sub), (revision, sub));
    })
}

fn write_changes(
    writer: &mut ReplyWriter,
    out: &mut Vec<u8>,
    id: RequestId,
    changes: &[(i64, u32)],
    (revision, fragment): (i64, bool),
    value: &[u8],
) {
    let mut reply = writer.watch(out, id);
    for (mod_revision, sub) in changes {
        let kv = KeyValue { key: b"key", value, mod_revision: *mod_revision, ..Default::default() };
        reply.push(&WatchChange { sub: *sub, kv, ..WatchChange::default() });
    }
    reply.finish(WatchStep::Changes, revision, fragment).unwrap();
}

fn change(peer: &mut Peer, id: RequestId, changes: &[(i64, u32)], revision: i64, fragment: bool) {
    peer.send(|writer, out| {
        write_changes(writer, out, id, changes, (revision, fragment), b"value");
    });
}

fn step(peer: &mut Peer, id: RequestId, step: WatchStep, revision: i64) {
    peer.send(|writer, out| writer.watch(out, id).finish(step, revision, false).unwrap());
}

fn created(peer: &mut Peer, id: RequestId, revision: i64) {
    step(peer, id, WatchStep::Created, revision);
}

fn positions(changes: &[OwnedChange]) -> Vec<(i64, u32)> {
    changes.iter().map(|change| (change.revision(), change.sub)).collect()
}

/// The next event, which must be these changes; returns the revision up to which it tells.
fn takes(watcher: &mut Watcher, expected: &[(i64, u32)], is_fragment: bool) -> i64 {
    match watcher.next_within(PATIENCE).unwrap().expect("an event in time") {
        WatchEvent::Changes { changes, revision, fragment } => {
            assert_eq!((positions(&changes).as_slice(), fragment), (expected, is_fragment));
            revision
        }
        event @ WatchEvent::Progress { .. } => panic!("{event:?}"),
    }
}

fn hub(servers: &[&FakeServer]) -> WatchHub {
    WatchHub::connect(servers.iter().map(|server| server.address.clone()), options()).unwrap()
}

fn at(revision: i64, sub: u32) -> WatchPosition {
    WatchPosition { revision, sub }
}

#[test]
fn a_cut_in_the_middle_of_a_revision_is_healed_by_another_member() {
    let first = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 0, 0);
        created(peer, id, 7);
        change(peer, id, &[(8, 0), (9, 0), (9, 1)], 8, true);
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 9, 2);
        // It lags: that is no step back for the user.
        created(peer, id, 5);
        change(peer, id, &[(9, 2)], 9, true);
        change(peer, id, &[(9, 3), (10, 0)], 11, false);
        peer.expect(Kind::Cancel);
        peer.expect_end();
    })]);
    let hub = hub(&[&first, &second]);
    let mut watcher = hub.watch(WatchOptions::prefix(b"k")).unwrap();
    assert_eq!(watcher.created_within(PATIENCE), Some(Ok(7)));
    assert_eq!(watcher.position(), at(8, 0));
    assert_eq!(takes(&mut watcher, &[(8, 0)], false), 8);
    assert_eq!(watcher.position(), at(9, 0), "what was not handed out is told again");
    assert_eq!(takes(&mut watcher, &[(9, 0), (9, 1), (9, 2), (9, 3), (10, 0)], false), 11);
    assert_eq!(watcher.position(), at(12, 0));
    drop(watcher);
    drop(hub);
    first.finish();
    second.finish();
}

#[test]
fn who_asks_for_fragments_gets_them_as_they_come_and_goes_on_within_a_revision() {
    let server = FakeServer::start(vec![
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 4, 2);
            created(peer, id, 9);
            change(peer, id, &[(4, 2), (4, 3)], 3, true);
        }),
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 4, 4);
            created(peer, id, 9);
            // There was nothing left of it.
            change(peer, id, &[], 9, false);
            peer.expect(Kind::Cancel);
            peer.expect_end();
        }),
    ]);
    let hub = hub(&[&server]);
    let options = WatchOptions { fragments: true, start: at(4, 2), ..WatchOptions::one(b"key") };
    let mut watcher = hub.watch(options).unwrap();
    assert_eq!(takes(&mut watcher, &[(4, 2), (4, 3)], true), 4);
    assert_eq!(watcher.position(), at(4, 4));
    assert_eq!(takes(&mut watcher, &[], false), 9, "the end of the fragments is told");
    assert_eq!(watcher.position(), at(10, 0));
    drop((watcher, hub));
    server.finish();
}

#[test]
fn what_was_told_before_is_not_told_again() {
    let server = FakeServer::start(vec![
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 3, 0);
            created(peer, id, 9);
            change(peer, id, &[(3, 0), (5, 0)], 6, false);
            // A member that is behind tells where it stands: nothing that the user wants to know.
            step(peer, id, WatchStep::Progress, 4);
            change(peer, id, &[(5, 0), (7, 0)], 7, false);
        }),
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 8, 0);
            created(peer, id, 7);
            change(peer, id, &[(7, 0), (7, 1), (8, 0)], 8, false);
            step(peer, id, WatchStep::Progress, 12);
            step(peer, id, WatchStep::Progress, 13);
            peer.expect(Kind::Cancel);
            peer.expect_end();
        }),
    ]);
    let hub = hub(&[&server]);
    let mut watcher = hub.watch(WatchOptions::one(b"key").from_revision(3)).unwrap();
    takes(&mut watcher, &[(3, 0), (5, 0)], false);
    takes(&mut watcher, &[(7, 0)], false);
    takes(&mut watcher, &[(8, 0)], false);
    loop {
        match watcher.next_within(PATIENCE).unwrap() {
            Some(WatchEvent::Progress { revision: 12 }) => {}
            Some(WatchEvent::Progress { revision: 13 }) => break,
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(watcher.position(), at(14, 0));
    drop((watcher, hub));
    server.finish();
}

#[test]
fn a_watch_ends_with_compaction_with_a_refusal_or_when_asked_to() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 3, 0);
        created(peer, id, 9);
        change(peer, id, &[(3, 0)], 3, false);
        let mut refused = Refused::new(Status::Compacted);
        refused.compacted_revision = 6;
        peer.refuse(id, &refused);
        let id = expect_watch(peer, 0, 0);
        peer.refuse(id, &Refused::new(Status::InvalidArgument));
        let id = expect_watch(peer, 0, 0);
        created(peer, id, 9);
        assert_eq!(peer.expect(Kind::Cancel), id);
        change(peer, id, &[(10, 0)], 10, false);
        peer.refuse(id, &Refused::new(Status::Cancelled));
        peer.expect_end();
    })]);
    let hub = hub(&[&server]);
    let watcher = hub.watch(WatchOptions::one(b"key").from_revision(3)).unwrap();
    let events: Vec<_> = watcher.collect();
    assert!(matches!(&events[0], Ok(WatchEvent::Changes { changes, .. }) if changes.len() == 1));
    assert_eq!(events[1..], [Err(WatchEnd::Compacted { revision: 6 })]);
    let error = hub.watch(WatchOptions::default()).unwrap_err();
    assert_eq!(error.refusal().unwrap().status, Status::InvalidArgument);
    let watcher = hub.watch(WatchOptions::one(b"key")).unwrap();
    watcher.cancel();
    let mut told = 0;
    let end = watcher.run(|event| {
        assert!(matches!(event, WatchEvent::Changes { .. }));
        told += 1;
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((told, end), (1, ControlFlow::Continue(WatchEnd::Cancelled)));
    drop(hub);
    server.finish();
}

#[test]
fn who_takes_nothing_stops_the_reading_and_goes_on_behind_what_he_was_told() {
    let value = vec![7; VALUE_SIZE];
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let server = FakeServer::start(vec![script(move |peer| {
        peer.greet();
        let id = expect_watch(peer, 1, 0);
        created(peer, id, 0);
        peer.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        // Until the other side takes no byte any more.
        let (mut writer, mut revision, mut blocked) = (ReplyWriter::new(), 0, false);
        while !blocked {
            revision += 1;
            let mut out = Vec::new();
            write_changes(&mut writer, &mut out, id, &[(revision, 0)], (revision, false), &value);
            let mut rest = &out[..];
            while !rest.is_empty() {
                match peer.stream.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if !std::mem::replace(&mut blocked, true) {
                            sender.send(()).unwrap();
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        peer.refuse(id, &Refused::new(Status::SlowReader));
        let id = expect_watch(peer, revision + 1, 0);
        created(peer, id, revision);
        change(peer, id, &[(revision + 1, 0)], revision + 1, false);
        assert_eq!(peer.expect(Kind::Cancel), id);
        peer.expect_end();
    })]);
    let hub = hub(&[&server]);
    hub.set_buffer_size(1 << 20);
    let mut watcher = hub.watch(WatchOptions::one(b"key").from_revision(1)).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    let mut last = 0;
    loop {
        match watcher.next_within(PATIENCE).unwrap() {
            Some(WatchEvent::Changes { changes, .. }) => {
                assert_eq!(positions(&changes), [(last + 1, 0)]);
                last += 1;
                if changes[0].kv.value.len() < VALUE_SIZE {
                    break;
                }
            }
            event => panic!("{event:?}"),
        }
    }
    drop((watcher, hub));
    server.finish();
}

#[test]
fn many_watches_share_a_connection_and_its_credits() {
    const COUNT: u64 = 2_000;
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet_with(&HelloReply { requests_max: 8, ..hello_reply() });
        let mut ids = Vec::new();
        while ids.len() < usize::try_from(COUNT).unwrap() {
            // All that the credits allow, then their answers.
            let batch: Vec<_> = (0..7_u64.min(COUNT - u64::try_from(ids.len()).unwrap()))
                .map(|_| expect_watch(peer, 1, 0))
                .collect();
            batch.iter().for_each(|id| created(peer, *id, 0));
            ids.extend(batch);
        }
        ids.iter().for_each(|id| change(peer, *id, &[(1, 0)], 1, false));
        while peer.next().is_some() {}
    })]);
    let hub = hub(&[&server]);
    let mut watchers: Vec<_> =
        (0..COUNT).map(|_| hub.open(WatchOptions::one(b"key").from_revision(1)).unwrap()).collect();
    let mut open = watchers.len();
    while open > 0 {
        let id = hub.ready_within(PATIENCE).expect("a watch has something to tell");
        let watcher = &mut watchers[usize::try_from(id.get()).unwrap()];
        assert_eq!(watcher.id(), id);
        while let Some(event) = watcher.next_within(Duration::ZERO).unwrap() {
            assert!(matches!(event, WatchEvent::Changes { .. }));
            open -= 1;
        }
    }
    assert_eq!(hub.ready_within(Duration::ZERO), None);
    drop((watchers, hub));
    server.finish();
}

#[test]
fn progress_is_told_when_asked_for_also_across_a_lost_connection() {
    let server = FakeServer::start(vec![
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 0, 0);
            created(peer, id, 7);
            assert_eq!(peer.expect(Kind::WatchProgress), id);
        }),
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 8, 0);
            created(peer, id, 9);
            assert_eq!(peer.expect(Kind::WatchProgress), id);
            step(peer, id, WatchStep::Progress, 9);
            peer.expect(Kind::Cancel);
            peer.expect_end();
        }),
    ]);
    let hub = hub(&[&server]);
    let mut watcher = hub.watch(WatchOptions::one(b"key")).unwrap();
    watcher.ask_progress();
    assert_eq!(watcher.next_within(PATIENCE), Ok(Some(WatchEvent::Progress { revision: 9 })));
    assert_eq!(watcher.position(), at(10, 0));
    drop((watcher, hub));
    server.finish();
}

#[test]
fn servers_that_go_or_have_too_much_to_do_end_no_watch() {
    let first = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 0, 0);
        peer.refuse(id, &Refused::new(Status::Overloaded));
        let id = expect_watch(peer, 0, 0);
        created(peer, id, 7);
        peer.refuse(id, &Refused::new(Status::ShuttingDown));
        peer.expect_end();
    })]);
    let second = FakeServer::start(vec![
        script(|peer| {
            // Of another cluster: its revisions mean something else.
            peer.expect(Kind::Hello);
            let refused = Refused::new(Status::ClusterMismatch);
            peer.refuse(RequestId::new(0), &refused);
            peer.expect_end();
        }),
        script(|peer| {
            peer.greet();
            let id = expect_watch(peer, 8, 0);
            created(peer, id, 8);
            change(peer, id, &[(8, 0)], 8, false);
            peer.expect(Kind::Cancel);
            peer.expect_end();
        }),
    ]);
    let hub = hub(&[&first, &second]);
    let mut watcher = hub.watch(WatchOptions::one(b"key")).unwrap();
    takes(&mut watcher, &[(8, 0)], false);
    assert_eq!(hub.trouble(), None);
    drop((watcher, hub));
    first.finish();
    second.finish();
}

/// Servers that fall silent, or serve on without a leader, tell nothing new for ever: who watches there would
/// not know.
#[test]
fn a_server_that_falls_silent_or_has_no_leader_is_left() {
    let silent = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 0, 0);
        created(peer, id, 7);
        while let Some((header, _)) = peer.next() {
            assert_eq!(header.kind, Kind::Status);
        }
    })]);
    let leaderless = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 8, 0);
        created(peer, id, 7);
        for _ in 0..2 {
            let id = peer.expect(Kind::Status);
            peer.send(|writer, out| writer.status(out, id, &StatusReply::default()));
        }
        peer.expect_end();
    })]);
    let well = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_watch(peer, 8, 0);
        created(peer, id, 8);
        for _ in 0..3 {
            let id = peer.expect(Kind::Status);
            let status = StatusReply { leader: NodeId::new(1), ..StatusReply::default() };
            peer.send(|writer, out| writer.status(out, id, &status));
        }
        change(peer, id, &[(8, 0)], 8, false);
        while peer.next().is_some() {}
    })]);
    let options = client::Options { request_timeout: Duration::from_millis(200), ..options() };
    let endpoints = [&silent, &leaderless, &well].map(|server| server.address.clone());
    let hub = WatchHub::connect(endpoints, options).unwrap();
    let mut watcher = hub.watch(WatchOptions::one(b"key")).unwrap();
    takes(&mut watcher, &[(8, 0)], false);
    drop((watcher, hub));
    silent.finish();
    leaderless.finish();
    well.finish();
}

#[test]
fn a_watch_that_no_server_begins_is_an_error_in_time() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        peer.expect(Kind::Watch);
        while peer.next().is_some() {}
    })]);
    let options = client::Options { request_timeout: Duration::from_millis(200), ..options() };
    let hub = WatchHub::connect([&server.address], options).unwrap();
    let error = hub.watch(WatchOptions::one(b"key")).unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error}");
    drop(hub);
    server.finish();
    assert!(WatchHub::connect([nobody()], fake::options()).is_err());
}
