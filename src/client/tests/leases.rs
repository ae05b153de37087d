//! Calls about leases, and the keeper: what it sends when, and when it says that a lease is lost.

#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use base::RequestId;
use client::{Client, KeptLease, LeaseKeeper, LeaseLoss, Put, Status};
use fake::*;
use wire::{
    Keys, Kind, LeaseGrantReply, LeaseKeepAliveReply, LeaseListReply, LeaseRevokeReply,
    LeaseTimeToLiveReply, Numbers, Refused, Request,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The next frame, which must keep these leases alive.
fn expect_keep_alive(peer: &mut Peer, expected: &[i64]) -> RequestId {
    peer.expect_request(Kind::LeaseKeepAlive, |request| {
        let Request::LeaseKeepAlive(request) = request else { panic!("no keep-alive") };
        let mut leases: Vec<i64> = request.leases.iter().collect();
        leases.sort_unstable();
        assert_eq!(leases, expected);
    })
}

fn kept(peer: &mut Peer, id: RequestId, ttls_ms: &[i64]) {
    let reply = LeaseKeepAliveReply { revision: 9, ttls_ms: Numbers::Given(ttls_ms) };
    peer.send(|writer, out| writer.lease_keep_alive(out, id, &reply));
}

fn grant(peer: &mut Peer, lease: i64, ttl_ms: u64) {
    let id = peer.expect(Kind::LeaseGrant);
    let reply = LeaseGrantReply { revision: 3, lease, ttl_ms };
    peer.send(|writer, out| writer.lease_grant(out, id, &reply));
}

#[test]
fn every_call_about_leases_gives_its_result() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect_request(Kind::LeaseGrant, |request| {
            let Request::LeaseGrant(grant) = request else { panic!("no grant") };
            assert_eq!((grant.lease, grant.ttl_ms), (0, 501), "rounded up");
        });
        let reply = LeaseGrantReply { revision: 3, lease: 77, ttl_ms: 600 };
        peer.send(|writer, out| writer.lease_grant(out, id, &reply));
        let id = expect_keep_alive(peer, &[77, 78]);
        kept(peer, id, &[600, 0]);
        // Two pages of keys, two of leases.
        for (after, keys, more) in
            [(&b""[..], [&b"a"[..], b"b"], true), (b"b", [b"c", b"d"], false)]
        {
            let id = peer.expect_request(Kind::LeaseTimeToLive, |request| {
                let Request::LeaseTimeToLive(request) = request else { panic!("no time") };
                assert_eq!((request.lease, request.keys, request.after_key), (77, true, after));
            });
            let (granted_ms, left_ms, key_count) = (600, 400, 4);
            let keys = Keys::Given(&keys);
            let reply =
                LeaseTimeToLiveReply { revision: 4, granted_ms, left_ms, key_count, more, keys };
            peer.send(|writer, out| writer.lease_time_to_live(out, id, &reply));
        }
        for (after, leases, more) in [(0, [5, 6], true), (6, [77, 80], false)] {
            let id = peer.expect_request(Kind::LeaseList, |request| {
                let Request::LeaseList(request) = request else { panic!("no list") };
                assert_eq!(request.after_lease, after);
            });
            let reply = LeaseListReply { revision: 4, more, leases: Numbers::Given(&leases) };
            peer.send(|writer, out| writer.lease_list(out, id, &reply));
        }
        let id = peer.expect_request(Kind::Put, |request| {
            let Request::Put(put) = request else { panic!("no put") };
            assert_eq!(put.ttl_ms, 500);
        });
        peer.send(|writer, out| writer.put_with_lease(out, id, 5, None, 81));
        let id = peer.expect(Kind::LeaseRevoke);
        let reply = LeaseRevokeReply { revision: 6, deleted: 4 };
        peer.send(|writer, out| writer.lease_revoke(out, id, &reply));
        peer.expect_end();
    })]);
    let mut client = Client::connect([&server.address], options()).unwrap();
    let granted = client.lease_grant(0, Duration::from_micros(500_001)).unwrap();
    assert_eq!((granted.lease, granted.ttl), (77, Duration::from_millis(600)));
    let result = client.lease_keep_alive(&[77, 78]).unwrap();
    assert_eq!(result.ttls, [Duration::from_millis(600), Duration::ZERO]);
    let left = client.lease_time_to_live(77, true).unwrap();
    assert_eq!(left.keys, [b"a", b"b", b"c", b"d"]);
    assert_eq!((left.granted, left.left), (granted.ttl, Duration::from_millis(400)));
    assert_eq!(client.leases().unwrap().leases, [5, 6, 77, 80]);
    let put = client.put(&Put { ttl_ms: 500, ..Put::new(b"k", b"v") }).unwrap();
    assert_eq!((put.revision, put.lease), (5, 81));
    assert_eq!(client.lease_revoke(77).unwrap().deleted, 4);
    drop(client);
    server.finish();
}

#[test]
fn leases_are_kept_together_and_by_another_server_when_one_goes() {
    let first = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_keep_alive(peer, &[5, 6]);
        kept(peer, id, &[900, 60_000]);
        // The other one is not due yet.
        expect_keep_alive(peer, &[5]);
    })]);
    let second = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_keep_alive(peer, &[5]);
        kept(peer, id, &[900]);
        let id = expect_keep_alive(peer, &[5]);
        kept(peer, id, &[0]);
        peer.expect_end();
    })]);
    let endpoints = [first.address.clone(), second.address.clone()];
    let keeper = LeaseKeeper::new(endpoints, options()).unwrap();
    let (sender, losses) = mpsc::sync_channel(1);
    keeper.on_loss(move |lease, loss| sender.send((lease, loss)).unwrap());
    let since = Instant::now();
    keeper.keep(6, Duration::from_millis(300), since);
    keeper.keep(5, Duration::from_millis(300), since);
    assert!(keeper.is_valid(5) && !keeper.is_valid(7));
    assert_eq!(losses.recv_timeout(PATIENCE), Ok((5, LeaseLoss::Gone)));
    assert!(since.elapsed() > Duration::from_millis(300), "it was kept beyond its time");
    assert_eq!(keeper.wait_lost(5, PATIENCE), Some(LeaseLoss::Gone));
    assert_eq!((keeper.is_valid(5), keeper.is_valid(6)), (false, true));
    assert_eq!(keeper.wait_lost(6, Duration::ZERO), None);
    keeper.forget(6);
    assert!(!keeper.is_valid(6));
    drop(keeper);
    first.finish();
    second.finish();
}

#[test]
fn a_lease_that_nobody_answers_for_is_lost_at_its_time_counted_from_the_sending() {
    let server = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = expect_keep_alive(peer, &[5]);
        // The answer takes its time: that does not count for the lease.
        std::thread::sleep(Duration::from_millis(100));
        kept(peer, id, &[400]);
        while peer.next().is_some() {}
    })]);
    let keeper = LeaseKeeper::new([&server.address, &nobody()], options()).unwrap();
    let since = Instant::now();
    keeper.keep(5, Duration::from_millis(400), since);
    assert_eq!(keeper.wait_lost(5, PATIENCE), Some(LeaseLoss::Unanswered));
    let lived = since.elapsed();
    let first = Duration::from_millis(400 / 3);
    assert!(lived >= first + Duration::from_millis(400), "{lived:?}");
    assert!(lived < Duration::from_secs(5), "{lived:?}");
    assert_eq!(keeper.valid_until(5), None, "once lost, always lost");
    drop(keeper);
    server.finish();
}

#[test]
fn a_server_that_does_not_answer_costs_no_lease() {
    let silent = FakeServer::start(vec![script(|peer| {
        peer.greet();
        expect_keep_alive(peer, &[5]);
        while peer.next().is_some() {}
    })]);
    let (sender, told) = mpsc::sync_channel(1);
    let well = FakeServer::start(vec![script(move |peer| {
        peer.greet();
        let id = expect_keep_alive(peer, &[5]);
        kept(peer, id, &[60_000]);
        sender.send(()).unwrap();
        peer.expect_end();
    })]);
    let endpoints = [silent.address.clone(), well.address.clone()];
    let keeper = LeaseKeeper::new(endpoints, options()).unwrap();
    keeper.keep(5, Duration::from_millis(1_500), Instant::now());
    told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(keeper.wait_lost(5, Duration::from_secs(2)), None);
    assert!(keeper.is_valid(5));
    drop(keeper);
    silent.finish();
    well.finish();
}

#[test]
fn a_kept_lease_is_revoked_when_it_is_dropped() {
    let calls = FakeServer::start(vec![script(|peer| {
        peer.greet();
        grant(peer, 77, 60_000);
        grant(peer, 78, 60_000);
        let id = peer.expect(Kind::LeaseRevoke);
        peer.refuse(id, &Refused::new(Status::LeaseNotFound));
        grant(peer, 79, 60_000);
        peer.expect_end();
    })]);
    let keeping = FakeServer::start(vec![script(|peer| {
        peer.greet();
        let id = peer.expect_request(Kind::LeaseRevoke, |request| {
            let Request::LeaseRevoke(revoke) = request else { panic!("no revoke") };
            assert_eq!(revoke.lease, 77);
        });
        let reply = LeaseRevokeReply { revision: 6, deleted: 0 };
        peer.send(|writer, out| writer.lease_revoke(out, id, &reply));
        peer.expect_end();
    })]);
    let mut client = Client::connect([&calls.address], options()).unwrap();
    let keeper = LeaseKeeper::new([&keeping.address], options()).unwrap();
    let mut grant = || KeptLease::grant(&mut client, &keeper, Duration::from_secs(60)).unwrap();
    let (dropped, ended) = (grant(), grant());
    assert!(dropped.is_valid());
    drop(dropped);
    let error = ended.end(&mut client).unwrap_err();
    assert_eq!(error.refusal().unwrap().status, Status::LeaseNotFound);
    let left = KeptLease::grant(&mut client, &keeper, Duration::from_secs(60)).unwrap();
    assert_eq!(left.leave(), 79);
    drop((client, keeper));
    calls.finish();
    keeping.finish();
}
