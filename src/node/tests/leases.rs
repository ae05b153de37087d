//! Leases through the three roles of one member: what a turn of renewals comes to in the log, when leases
//! end, and what log time does meanwhile.

#![allow(clippy::unwrap_used)]

use base::{Duration, LeaseId, LogIndex, Term};
use kv::Due;
use node::{ConsensusEvent, ReactorEvent, Role};
use wire::{
    Call, LeaseGrant, LeaseKeepAlive, LeaseList, LeaseRevoke, LeaseTimeToLive, Numbers, Put, Range,
    Reply, Status,
};

mod member;

use member::{CONNECTION, Member};

/// What the tests of this file ask for and look at.
impl Member {
    /// Asks, and takes the answer.
    fn ask<T>(&mut self, call: &Call<'_>, take: impl FnOnce(Status, Reply<'_>) -> T) -> T {
        let id = self.request(call);
        self.settle();
        self.reply(|header, reply| {
            assert_eq!(header.request.get(), id);
            take(header.status, reply)
        })
    }

    fn grant(&mut self, lease: i64, ttl_ms: u64) {
        self.ask(&Call::LeaseGrant(LeaseGrant { lease, ttl_ms }), |status, reply| {
            assert!(matches!(reply, Reply::LeaseGrant(_)), "{status:?} {reply:?}");
        });
    }

    fn put(&mut self, key: &[u8], lease: i64, ttl_ms: u64) -> i64 {
        let put = Put { key, value: b"v", lease, ttl_ms, ..Put::default() };
        self.ask(&Call::Put(put), |status, reply| match reply {
            Reply::Put(reply) => reply.lease,
            reply => panic!("{status:?} {reply:?}"),
        })
    }

    fn has(&mut self, key: &[u8]) -> bool {
        let range = Range { key, ..Range::default() };
        self.ask(&Call::Range(range), |status, reply| match reply {
            Reply::Range(reply) => reply.count == 1,
            reply => panic!("{status:?} {reply:?}"),
        })
    }

    /// What was granted and what is left, in milliseconds, and how many keys there are.
    fn time_to_live(&mut self, lease: i64) -> (u64, u64, i64) {
        let call = Call::LeaseTimeToLive(LeaseTimeToLive { lease, ..LeaseTimeToLive::default() });
        self.ask(&call, |status, reply| match reply {
            Reply::LeaseTimeToLive(reply) => (reply.granted_ms, reply.left_ms, reply.key_count),
            reply => panic!("{status:?} {reply:?}"),
        })
    }

    fn keep_alive(&mut self, leases: &[i64]) -> Vec<i64> {
        let leases = Numbers::Given(leases);
        let call = Call::LeaseKeepAlive(LeaseKeepAlive { leases });
        self.ask(&call, |status, reply| match reply {
            Reply::LeaseKeepAlive(reply) => reply.ttls_ms.iter().collect(),
            reply => panic!("{status:?} {reply:?}"),
        })
    }

    fn last(&self) -> LogIndex {
        self.consensus.raft().log().last()
    }

    /// Lets time pass as the deadlines of the roles have it.
    fn pass(&mut self, millis: u64) {
        let end = self.now.after(Duration::from_millis(millis));
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(5)).min(end);
            let due = [self.consensus.deadline(), self.store.deadline()];
            if due.into_iter().flatten().any(|at| at <= self.now) {
                self.settle();
            }
        }
    }
}

#[test]
fn renewals_of_a_turn_share_an_entry_and_are_answered_apart() {
    let mut member = Member::serving();
    member.grant(1, 10_000);
    member.grant(2, 20_000);
    let before = member.last();
    let asked: [&[i64]; 4] = [&[1, 2], &[2, 9], &[1], &[2, 2, 1]];
    let mut ids = Vec::new();
    for leases in asked {
        let leases = Numbers::Given(leases);
        ids.push(member.request(&Call::LeaseKeepAlive(LeaseKeepAlive { leases })));
    }
    member.settle();
    assert_eq!(member.last(), before.next(), "one entry for all of them");
    let told: [&[i64]; 4] = [&[10_000, 20_000], &[20_000, 0], &[10_000], &[20_000, 20_000, 10_000]];
    for (id, told) in ids.into_iter().zip(told) {
        member.reply(|header, reply| {
            assert_eq!(header.request.get(), id);
            let Reply::LeaseKeepAlive(reply) = reply else { panic!("{reply:?}") };
            assert!(reply.ttls_ms.iter().eq(told.iter().copied()), "{reply:?}");
        });
    }
    // The next turn has an entry of its own.
    assert_eq!(member.keep_alive(&[1]), [10_000]);
    assert_eq!(member.last(), before.next().next());
}

#[test]
fn too_many_renewals_for_one_entry_take_several_and_too_many_for_one_request_are_refused() {
    let mut member = Member::serving();
    member.grant(1, 10_000);
    let before = member.last();
    let many: Vec<i64> = (1..=4_096).collect();
    for _ in 0..2 {
        let leases = Numbers::Given(&many);
        member.request(&Call::LeaseKeepAlive(LeaseKeepAlive { leases }));
    }
    member.settle();
    assert_eq!(before.distance_to(member.last()), 2);
    for _ in 0..2 {
        member.reply(|_, reply| assert!(matches!(reply, Reply::LeaseKeepAlive(_))));
    }
    for leases in [&vec![1; 4_097][..], &[]] {
        let leases = Numbers::Given(leases);
        let call = Call::LeaseKeepAlive(LeaseKeepAlive { leases });
        member.ask(&call, |status, _| assert_eq!(status, Status::InvalidArgument));
    }
}

#[test]
fn renewals_of_a_connection_that_has_gone_are_answered_to_nobody() {
    let mut member = Member::serving();
    member.grant(1, 10_000);
    let leases = Numbers::Given(&[1]);
    member.request(&Call::LeaseKeepAlive(LeaseKeepAlive { leases }));
    member.turns();
    member.to_reactor.push_back(ReactorEvent::Closed { connection: CONNECTION });
    member.settle();
    assert!(member.sent.is_empty());
    assert_eq!(member.consensus.proposed_size(), 0);
}

#[test]
fn a_lease_ends_when_its_time_is_up_and_takes_its_keys_along() {
    let mut member = Member::serving();
    member.pass(1_000);
    member.grant(1, 1_000);
    member.put(b"a", 1, 0);
    let made = member.put(b"b", 0, 2_000);
    assert!(made > 0);
    member.pass(600);
    let (granted, left, keys) = member.time_to_live(1);
    assert_eq!((granted, keys), (1_000, 1));
    assert!((390..=410).contains(&left), "{left} ms are left");
    assert_eq!(member.keep_alive(&[1]), [1_000]);
    member.pass(950);
    assert!(member.has(b"a"), "it was renewed, and has 50 ms left");
    member.pass(100);
    assert!(!member.has(b"a") && member.has(b"b"));
    assert_eq!(member.time_to_live(1), (0, 0, 0));
    assert_eq!(member.keep_alive(&[1, made]), [0, 2_000]);
    member.pass(1_950);
    assert!(member.has(b"b"));
    member.pass(100);
    assert!(!member.has(b"b"));
    let call = Call::LeaseRevoke(LeaseRevoke { lease: made });
    member.ask(&call, |status, _| assert_eq!(status, Status::LeaseNotFound));
}

#[test]
fn a_lease_that_is_due_before_the_others_is_found_though_it_was_made_later() {
    let mut member = Member::serving();
    for lease in 1..=20 {
        member.grant(lease, 60_000);
    }
    member.pass(1_000);
    member.grant(100, 500);
    member.put(b"a", 100, 0);
    member.pass(600);
    assert!(!member.has(b"a"));
}

/// The renewal is in the log when the store looks, and not applied: the lease lives on, and its end has to be
/// found later although all others end long after it.
#[test]
fn a_lease_that_is_renewed_while_its_end_is_proposed_ends_after_the_renewal() {
    let mut member = Member::serving();
    member.pass(1_000);
    member.grant(1, 1_000);
    member.grant(2, 60_000);
    member.put(b"a", 1, 0);
    member.pass(980);
    let renewal = Call::LeaseKeepAlive(LeaseKeepAlive { leases: Numbers::Given(&[1]) });
    let id = member.request(&renewal);
    member.turns();
    let last = member.last();
    member.now = member.now.after(Duration::from_millis(30));
    member.turns();
    assert!(member.last() > last, "its end is proposed");
    member.settle();
    member.reply(|header, _| assert_eq!(header.request.get(), id));
    assert!(member.has(b"a"), "it was renewed before");
    member.pass(900);
    assert!(member.has(b"a"));
    member.pass(200);
    assert!(!member.has(b"a"));
}

/// More than one batch at once.
#[test]
fn very_many_leases_end_together() {
    let mut member = Member::serving();
    for lease in 1..=1_500 {
        member.grant(lease, 5_000);
    }
    member.put(b"a", 1_500, 0);
    member.pass(5_200);
    assert!(!member.has(b"a"));
    member.ask(&Call::LeaseList(LeaseList::default()), |status, reply| match reply {
        Reply::LeaseList(reply) => assert!(reply.leases.is_empty() && !reply.more, "{reply:?}"),
        reply => panic!("{status:?} {reply:?}"),
    });
}

/// A start of everybody loses as much of the leases' time as the log does not know.
#[test]
fn log_time_is_written_down_while_there_are_leases() {
    let mut member = Member::serving();
    let before = member.last();
    member.pass(10_000);
    assert_eq!(member.last(), before, "there is no lease");
    member.grant(1, 60_000);
    let before = member.last();
    member.pass(10_000);
    let stamps = before.distance_to(member.last());
    assert!((15..=21).contains(&stamps), "{stamps} stamps in 10 s");
    let known = member.store.state().log_time();
    let (_, left, _) = member.time_to_live(1);
    assert!((49_900..=50_100).contains(&left), "{left} ms are left");
    member.pass(1_000);
    assert!(member.store.state().log_time() > known);
}

#[test]
fn an_answer_about_what_is_due_counts_only_in_the_term_in_which_it_was_asked() {
    let mut member = Member::serving();
    member.grant(1, 60_000);
    let before = member.last();
    let due = Due { lease: LeaseId::new(1), granted: before };
    let term = member.consensus.raft().term();
    for (asked, entries) in [(Term::new(term.get() + 1), 0), (Term::ZERO, 0), (term, 1)] {
        let last = member.last();
        let event = ConsensusEvent::LeasesDue { term: asked, due: vec![due], next: Some(u64::MAX) };
        member.to_consensus.push_back(event);
        member.settle();
        assert_eq!(last.distance_to(member.last()), entries, "asked in term {asked}");
    }
    assert_eq!(member.time_to_live(1).0, 60_000, "what it proposed was not due");
}

#[test]
fn leases_and_their_keys_are_told_in_pages() {
    let mut member = Member::serving();
    for lease in [-5, 3, 7, 9] {
        member.grant(lease, 60_000);
    }
    for key in [b"a", b"b", b"c"] {
        member.put(key, 7, 0);
    }
    let (mut leases, mut after_lease) = (Vec::new(), 0);
    loop {
        let call = Call::LeaseList(LeaseList { after_lease, limit: 3 });
        let more = member.ask(&call, |status, reply| match reply {
            Reply::LeaseList(reply) => {
                leases.extend(reply.leases.iter());
                reply.more
            }
            reply => panic!("{status:?} {reply:?}"),
        });
        if !more {
            break;
        }
        after_lease = *leases.last().unwrap();
    }
    assert_eq!(leases, [-5, 3, 7, 9]);
    let (mut keys, mut more): (Vec<Vec<u8>>, bool) = (Vec::new(), true);
    while more {
        let after_key = keys.last().cloned().unwrap_or_default();
        let call = LeaseTimeToLive { lease: 7, keys: true, after_key: &after_key, limit: 2 };
        more = member.ask(&Call::LeaseTimeToLive(call), |status, reply| match reply {
            Reply::LeaseTimeToLive(reply) => {
                assert_eq!(reply.key_count, 3);
                keys.extend(reply.keys.iter().map(<[u8]>::to_vec));
                reply.more
            }
            reply => panic!("{status:?} {reply:?}"),
        });
    }
    assert_eq!(keys, [b"a", b"b", b"c"]);
}
