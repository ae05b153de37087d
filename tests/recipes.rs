//! Locks, elections, registrations, barriers, counters and queues of the client against a real server, and a
//! watch across members that are killed.

#![allow(clippy::unwrap_used)]

mod process;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::recipes::{
    Counter, DoubleBarrier, Election, LeaderEvent, Lock, Queue, RecipeError, Register,
};
use client::{
    ChangeKind, Client, Op, Put, Range, Txn, WatchEnd, WatchEvent, WatchOptions, WatchPosition,
};
use process::{DataDir, PATIENCE, SMALL, Server, connect};

const TTL: Duration = Duration::from_secs(20);

fn start(name: &str) -> (DataDir, Server) {
    let dir = DataDir::new(name);
    let server = Server::start(dir.path(), SMALL);
    (dir, server)
}

fn prefix_count(client: &mut Client, prefix: &[u8]) -> i64 {
    let end = client::prefix_end(prefix);
    client.range(&Range { count_only: true, ..Range::between(prefix, &end) }).unwrap().count
}

/// Asks until it holds.
fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never comes to hold");
        thread::yield_now();
    }
}

#[test]
fn a_lock_excludes_and_its_tokens_grow() {
    let (_dir, server) = start("recipe-lock");
    let address = server.address();
    let inside = AtomicU64::new(0);
    let tokens: Vec<i64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = connect(address).unwrap();
                    let lease = client.keep_lease(TTL).unwrap();
                    let mut tokens = Vec::new();
                    for _ in 0..8 {
                        let lock = Lock::acquire(&mut client, &lease, b"name", None).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                        assert!(lock.is_valid());
                        let put = Op::Put(Put::new(b"guarded", b"x"));
                        let txn = Txn::new().when(lock.guard()).then(put);
                        assert!(client.txn(&txn).unwrap().succeeded);
                        tokens.push(lock.token());
                        inside.fetch_sub(1, Ordering::SeqCst);
                        assert!(lock.release(&mut client).unwrap());
                    }
                    assert!(tokens.is_sorted());
                    tokens
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut unique = tokens.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), tokens.len());
    let mut client = connect(address).unwrap();
    assert_eq!(client.get(b"guarded").unwrap().unwrap().version, 32);
    until(|| client.leases().unwrap().leases.is_empty());
}

#[test]
fn who_gives_up_waiting_leaves_the_line_and_who_loses_his_lease_learns_it() {
    let (_dir, server) = start("recipe-line");
    let (mut client, mut other) = (server.client(), server.client());
    let lease = client.keep_lease(TTL).unwrap();
    let held = Lock::acquire(&mut client, &lease, b"name", None).unwrap();
    let theirs = other.keep_lease(TTL).unwrap();
    let little = Some(Duration::from_millis(100));
    let error = Lock::acquire(&mut other, &theirs, b"name", little).unwrap_err();
    assert!(matches!(error, RecipeError::TimedOut), "{error}");
    until(|| prefix_count(&mut client, b"name/") == 1);
    // One that waits, and whose lease is revoked.
    let waiting = thread::spawn(move || {
        let error = Lock::acquire(&mut other, &theirs, b"name", None).unwrap_err();
        assert!(matches!(error, RecipeError::LeaseLost), "{error}");
        let error = Lock::acquire(&mut other, &theirs, b"name", None).unwrap_err();
        assert!(matches!(error, RecipeError::LeaseLost), "{error}");
    });
    until(|| prefix_count(&mut client, b"name/") == 2);
    let leases = client.leases().unwrap().leases;
    let revoked = leases.into_iter().find(|id| *id != lease.id()).unwrap();
    client.lease_revoke(revoked).unwrap();
    waiting.join().unwrap();
    // The guard fails as soon as the lock is gone.
    client.lease_revoke(lease.id()).unwrap();
    let put = Op::Put(Put::new(b"guarded", b"x"));
    assert!(!client.txn(&Txn::new().when(held.guard()).then(put)).unwrap().succeeded);
    assert!(!held.release(&mut client).unwrap());
}

#[test]
fn a_lock_that_is_dropped_is_given_back() {
    let (_dir, server) = start("recipe-drop");
    let mut client = server.client();
    let lease = client.keep_lease(TTL).unwrap();
    drop(Lock::acquire(&mut client, &lease, b"name", None).unwrap());
    until(|| prefix_count(&mut client, b"name/") == 0);
    let lock = Lock::acquire(&mut client, &lease, b"name", None).unwrap();
    drop(lease);
    assert!(!lock.is_valid());
    until(|| prefix_count(&mut client, b"name/") == 0);
}

#[test]
fn an_election_has_one_leader_whose_words_are_seen() {
    let (_dir, server) = start("recipe-election");
    let election = Election::new(b"name");
    let (mut client, mut other) = (server.client(), server.client());
    let mut observer = election.observe(&client);
    let mut next = || observer.next_within(PATIENCE).unwrap().expect("something to see");
    assert_eq!(next(), LeaderEvent::Nobody);
    assert_eq!(election.leader(&mut client).unwrap(), None);
    let lease = client.keep_lease(TTL).unwrap();
    let first = election.campaign(&mut client, &lease, b"one", None).unwrap();
    assert!(matches!(next(), LeaderEvent::Leads(kv) if kv.value == b"one"));
    let theirs = other.keep_lease(TTL).unwrap();
    let race = election.clone();
    let second = thread::spawn(move || {
        let second = race.campaign(&mut other, &theirs, b"two", None).unwrap();
        assert_eq!(race.leader(&mut other).unwrap().unwrap().value, b"two");
        assert!(second.resign(&mut other).unwrap());
    });
    until(|| prefix_count(&mut client, b"name/") == 2);
    first.proclaim(&mut client, b"uno").unwrap();
    assert!(matches!(next(), LeaderEvent::Leads(kv) if kv.value == b"uno"));
    assert!(first.resign(&mut client).unwrap());
    second.join().unwrap();
    // The second may have been too quick to be seen; the end never is.
    while next() != LeaderEvent::Nobody {}
}

#[test]
fn a_registration_is_put_again_when_lease_or_key_is_lost() {
    let (_dir, server) = start("recipe-register");
    let mut client = server.client();
    let register = Register::begin(&client, b"service/a", b"here", TTL).unwrap();
    let first = client.get(b"service/a").unwrap().unwrap();
    assert_eq!(first.value, b"here");
    until(|| register.is_registered());
    client.lease_revoke(first.lease).unwrap();
    until(|| client.get(b"service/a").unwrap().is_some_and(|kv| kv.lease != first.lease));
    let second = client.get(b"service/a").unwrap().unwrap();
    client.delete(&client::DeleteRange::one(b"service/a")).unwrap();
    until(|| client.get(b"service/a").unwrap().is_some_and(|kv| kv.lease != second.lease));
    register.end();
    assert_eq!(client.get(b"service/a").unwrap(), None);
    assert!(client.leases().unwrap().leases.is_empty());
}

/// Its lease was lost, and another process has put the key before it could.
#[test]
fn a_registration_that_lost_its_key_to_somebody_does_not_take_it_back() {
    let (_dir, server) = start("recipe-register-lost");
    let mut client = server.client();
    let register = Register::begin(&client, b"service/a", b"old", TTL).unwrap();
    until(|| register.is_registered());
    let newer = Register::begin(&client, b"service/a", b"new", TTL).unwrap();
    let key = client.get(b"service/a").unwrap().unwrap();
    assert_eq!(key.value, b"new");
    client.delete(&client::DeleteRange::one(b"service/a")).unwrap();
    client.put(&Put::new(b"service/a", b"somebody")).unwrap();
    until(|| !register.is_registered() && !newer.is_registered());
    for _ in 0..200 {
        let kv = client.get(b"service/a").unwrap().unwrap();
        assert_eq!(kv.value, b"somebody");
        thread::yield_now();
    }
    drop((register, newer));
    assert!(client.get(b"service/a").unwrap().is_some(), "it is not theirs");
}

#[test]
fn a_barrier_lets_all_in_and_out_together_again_and_again() {
    const COUNT: u64 = 3;
    const ROUNDS: u64 = 3;
    let (_dir, server) = start("recipe-barrier");
    let address = server.address();
    let (entered, left) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..COUNT {
            scope.spawn(|| {
                let mut client = connect(address).unwrap();
                let lease = client.keep_lease(TTL).unwrap();
                let mut barrier = DoubleBarrier::new(b"name", usize::try_from(COUNT).unwrap());
                for round in 1..=ROUNDS {
                    entered.fetch_add(1, Ordering::SeqCst);
                    barrier.enter(&mut client, &lease, Some(PATIENCE)).unwrap();
                    assert!(entered.load(Ordering::SeqCst) >= COUNT * round, "entered alone");
                    left.fetch_add(1, Ordering::SeqCst);
                    barrier.leave(&mut client, Some(PATIENCE)).unwrap();
                    assert!(left.load(Ordering::SeqCst) >= COUNT * round, "left alone");
                }
            });
        }
    });
    assert_eq!(prefix_count(&mut connect(address).unwrap(), b"name/"), 0);
    let mut client = connect(address).unwrap();
    let lease = client.keep_lease(TTL).unwrap();
    let mut alone = DoubleBarrier::new(b"name", 2);
    let error = alone.enter(&mut client, &lease, Some(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, RecipeError::TimedOut), "{error}");
}

#[test]
fn a_counter_loses_nothing() {
    let (_dir, server) = start("recipe-counter");
    let address = server.address();
    let mut sums: Vec<i64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = connect(address).unwrap();
                    let counter = Counter::new(b"count");
                    (0..25).map(|_| counter.add(&mut client, 1).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    sums.sort_unstable();
    assert_eq!(sums, (1..=100).collect::<Vec<_>>());
    let mut client = connect(address).unwrap();
    let counter = Counter::new(b"count");
    assert_eq!(counter.get(&mut client).unwrap(), 100);
    assert_eq!(counter.add(&mut client, -1).unwrap(), 99);
    client.put(&Put::new(b"count", b"many")).unwrap();
    assert!(matches!(counter.add(&mut client, 1), Err(RecipeError::NotOurs { .. })));
}

#[test]
fn a_queue_is_first_in_first_out_and_gives_each_element_to_one() {
    let (_dir, server) = start("recipe-queue");
    let address = server.address();
    let mut client = connect(address).unwrap();
    let mut queue = Queue::new(b"jobs");
    assert_eq!(queue.try_dequeue(&mut client).unwrap(), None);
    let error = queue.dequeue(&mut client, Some(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, RecipeError::TimedOut), "{error}");
    for number in 0..50 {
        queue.enqueue(&mut client, number.to_string().as_bytes()).unwrap();
    }
    for number in 0..50 {
        let taken = queue.dequeue(&mut client, None).unwrap();
        assert_eq!(taken, number.to_string().as_bytes());
    }
    // Takers that wait share what comes.
    let mut taken: Vec<Vec<u8>> = thread::scope(|scope| {
        let takers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut queue) = (connect(address).unwrap(), Queue::new(b"jobs"));
                    let take = |_| queue.dequeue(&mut client, Some(PATIENCE)).unwrap();
                    (0..20).map(take).collect::<Vec<_>>()
                })
            })
            .collect();
        for number in 10..50 {
            queue.enqueue(&mut client, number.to_string().as_bytes()).unwrap();
        }
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    taken.sort_unstable();
    let expected: Vec<_> = (10..50).map(|number| number.to_string().into_bytes()).collect();
    assert_eq!(taken, expected);
}

#[test]
fn a_watch_outlives_the_server_and_tells_each_change_once() {
    let dir = DataDir::new("watch-restart");
    let server = Server::start(dir.path(), SMALL);
    let endpoint = server.address().to_string();
    let mut watcher = server.client().watch(WatchOptions::prefix(b"k")).unwrap();
    let mut client = server.client();
    let first = client.put(&Put::new(b"k1", b"v")).unwrap().revision;
    assert_eq!(revisions(&mut watcher, 1), [first]);
    assert_eq!(watcher.position(), WatchPosition::at(first + 1));
    drop(client);
    server.kill();
    let server = Server::start_at(&endpoint, dir.path(), SMALL);
    let mut client = server.client();
    let delete = client::DeleteRange::one(b"k1");
    let deleted = client.delete(&delete).unwrap().revision;
    let second = client.put(&Put::new(b"k2", b"v")).unwrap().revision;
    assert_eq!(revisions(&mut watcher, 2), [deleted, second]);
    // Another one goes on from its place; a third one is told that history has gone.
    let start = WatchPosition::at(deleted);
    let options = WatchOptions { start, prev_kv: true, ..WatchOptions::prefix(b"k") };
    let mut again = client.watch(options.clone()).unwrap();
    match again.next_within(PATIENCE).unwrap().unwrap() {
        WatchEvent::Changes { changes, .. } => {
            assert_eq!(changes[0].kind, ChangeKind::Delete);
            assert_eq!(changes[0].previous.as_ref().unwrap().value, b"v");
        }
        event @ WatchEvent::Progress { .. } => panic!("{event:?}"),
    }
    client.put(&Put::new(b"k2", b"w")).unwrap();
    client.compact(&client::Compact { revision: second + 1, physical: false }).unwrap();
    let mut late = client.watch(options).unwrap();
    let end = late.next_within(PATIENCE).unwrap_err();
    assert_eq!(end, WatchEnd::Compacted { revision: second + 1 });
}

fn revisions(watcher: &mut client::Watcher, count: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match watcher.next_within(PATIENCE).unwrap().expect("an event in time") {
            WatchEvent::Changes { changes, .. } => {
                seen.extend(changes.iter().map(client::OwnedChange::revision));
            }
            WatchEvent::Progress { .. } => {}
        }
    }
    seen
}

#[test]
fn thousands_of_watches_share_a_connection() {
    const COUNT: usize = 3_000;
    let (_dir, server) = start("watch-hub");
    let mut client = server.client();
    let hub = client.watch_hub().unwrap();
    let keys: Vec<String> = (0..COUNT).map(|number| format!("k{number}")).collect();
    let mut watchers: Vec<_> =
        keys.iter().map(|key| hub.open(WatchOptions::one(key.as_bytes())).unwrap()).collect();
    for watcher in &watchers {
        watcher.created_within(PATIENCE).unwrap().unwrap();
    }
    for key in &keys {
        client.submit(&client::Call::Put(Put::new(key.as_bytes(), b"v"))).unwrap_or_else(|_| {
            while client.in_flight() > 0 {
                client.receive().unwrap().result.unwrap();
            }
            client.submit(&client::Call::Put(Put::new(key.as_bytes(), b"v"))).unwrap()
        });
    }
    while client.in_flight() > 0 {
        client.receive().unwrap().result.unwrap();
    }
    let mut told = 0;
    while told < COUNT {
        let id = hub.ready_within(PATIENCE).expect("a watch has something to tell");
        let index = usize::try_from(id.get()).unwrap();
        while let Some(event) = watchers[index].next_within(Duration::ZERO).unwrap() {
            if let WatchEvent::Changes { changes, .. } = event {
                assert_eq!(changes.len(), 1);
                assert_eq!(changes[0].kv.key, keys[index].as_bytes());
                told += 1;
            }
        }
    }
}
