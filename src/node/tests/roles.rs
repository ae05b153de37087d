//! The three roles together on scripted events: what is acknowledged when, what is refused, what a late
//! answer may not do. Disk memory is a `Vec`, the disk is a list of effects that the test completes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use base::{ClientId, ConnectionId, Duration, LogIndex, Lsn, RequestId, Revision, Stamp, Term};
use node::{Bound, ConsensusEffect, ConsensusEvent, ReactorEvent, Retention};
use wire::{Call, Compact, Put, Range, Reply, Status};

mod member;

use member::{CONNECTION, Member};

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Call<'a> {
    Call::Put(Put { key, value, ..Put::default() })
}

fn get(key: &[u8], serializable: bool) -> Call<'_> {
    Call::Range(Range { key, serializable, ..Range::default() })
}

#[test]
fn a_write_is_answered_after_its_group_was_written_and_synced_and_not_before() {
    let mut member = Member::serving();
    let id = member.request(&put(b"a", b"1"));
    member.turns();
    assert!(matches!(member.disk.front(), Some(ConsensusEffect::WriteGroup { .. })));
    assert_eq!(member.replies(), []);
    member.complete();
    member.turns();
    assert!(matches!(member.disk.front(), Some(ConsensusEffect::Sync { .. })));
    assert_eq!(member.replies(), []);
    member.complete();
    member.turns();
    assert_eq!(member.replies(), [(id, Status::Ok, Some(b"2".to_vec()))]);
}

/// A proposal once came in between the event that made the vote durable and the end of that turn: it
/// took the position of the new leader's empty entry, and the writer refused the gap that followed.
#[test]
fn a_proposal_in_the_turn_that_wins_the_election_follows_the_empty_entry() {
    let mut member = Member::new();
    member.connect();
    member.to_consensus.push_back(ConsensusEvent::Start);
    member.turns();
    // Up to the sync that makes the vote durable.
    while !matches!(member.disk.front(), Some(ConsensusEffect::Sync { .. })) {
        assert!(member.complete());
        member.turns();
    }
    assert!(member.complete());
    let first = member.request(&put(b"a", b"1"));
    let second = member.request(&put(b"b", b"2"));
    member.settle();
    let replies = member.replies();
    assert_eq!(
        replies[1..],
        [(first, Status::Ok, Some(b"2".to_vec())), (second, Status::Ok, Some(b"3".to_vec())),]
    );
}

#[test]
fn one_sync_covers_all_groups_written_before_it() {
    let mut member = Member::serving();
    let first = member.request(&put(b"a", b"1"));
    member.turns();
    let second = member.request(&put(b"b", b"2"));
    member.turns();
    let is_write =
        |effect: &ConsensusEffect<_>| matches!(effect, ConsensusEffect::WriteGroup { .. });
    assert_eq!(member.disk.iter().filter(|effect| is_write(effect)).count(), 2, "both in flight");
    for _ in 0..2 {
        let place = member.disk.iter().position(is_write).unwrap();
        let write = member.disk.remove(place).unwrap();
        member.disk.push_front(write);
        member.complete();
    }
    member.turns();
    let syncs: Vec<Lsn> = member
        .disk
        .iter()
        .filter_map(|effect| match effect {
            ConsensusEffect::Sync { lsn, .. } => Some(*lsn),
            _ => None,
        })
        .collect();
    assert_eq!(syncs.len(), 1, "one sync for both");
    member.settle();
    assert_eq!(member.consensus.durable_lsn(), syncs[0]);
    let ids: Vec<u64> = member.replies().iter().map(|reply| reply.0).collect();
    assert_eq!(ids, [first, second]);
}

#[test]
fn a_linearizable_read_sees_every_write_that_was_answered_before_it() {
    let mut member = Member::serving();
    member.request(&put(b"a", b"1"));
    member.settle();
    member.replies();
    let id = member.request(&get(b"a", false));
    member.turns();
    assert_eq!(member.replies(), [(id, Status::Ok, Some(b"1".to_vec()))]);
}

#[test]
fn a_read_before_the_first_commit_of_the_term_waits_and_a_serializable_one_does_not() {
    let mut member = Member::new();
    member.connect();
    let linearizable = member.request(&get(b"a", false));
    let serializable = member.request(&get(b"a", true));
    member.turns();
    let replies = member.replies();
    assert_eq!(replies[1..], [(serializable, Status::Ok, None)]);
    member.to_consensus.push_back(ConsensusEvent::Start);
    member.settle();
    assert_eq!(member.replies(), [(linearizable, Status::Ok, None)]);
}

#[test]
fn a_late_answer_never_reaches_the_next_connection_in_the_slot() {
    let mut member = Member::serving();
    member.request(&put(b"a", b"1"));
    member.turns();
    member.to_reactor.push_back(ReactorEvent::Closed { connection: CONNECTION });
    let next = ConnectionId { slot: 0, generation: 2 };
    member.to_reactor.push_back(ReactorEvent::Accepted { connection: next });
    member.settle();
    assert_eq!(member.replies(), []);
}

#[test]
fn a_write_that_waits_beyond_its_deadline_is_dropped_and_one_beyond_the_bound_is_refused() {
    let mut member = Member::serving();
    let value = vec![1; 60_000];
    // Two groups go out, the block that gathers the next one fills up, the rest waits.
    let mut accepted = Vec::new();
    for _ in 0..17 {
        accepted.push(member.request_within(&put(b"a", &value), 5));
        member.turns();
    }
    let refused = member.request(&put(b"b", &value));
    member.turns();
    assert_eq!(member.replies(), [(refused, Status::Overloaded, None)]);
    member.now = member.now.after(Duration::from_millis(6));
    member.settle();
    let replies = member.replies();
    assert_eq!(replies.len(), accepted.len(), "every request is answered once");
    assert!(
        replies
            .iter()
            .all(|(_, status, _)| { matches!(status, Status::Ok | Status::DeadlineExceeded) })
    );
    let again = member.request(&put(b"b", &value));
    member.settle();
    assert_eq!(member.replies()[0].0, again);
}

#[test]
fn garbage_is_answered_with_a_reason_and_the_connection_ends() {
    let mut member = Member::serving();
    member.receive(b"GET / HTTP/1.1\r\n\r\n");
    member.turns();
    assert_eq!(member.replies()[0].1, Status::ProtocolError);
    assert!(member.closed);
}

#[test]
fn a_request_before_hello_ends_the_connection() {
    let mut member = Member::new();
    member.to_reactor.push_back(ReactorEvent::Accepted { connection: CONNECTION });
    member.request(&get(b"a", true));
    member.turns();
    assert_eq!(member.replies()[0].1, Status::ProtocolError);
    assert!(member.closed);
}

#[test]
fn reading_stops_when_the_credits_are_used_up_and_goes_on_when_they_come_back() {
    let mut member = Member::serving();
    for _ in 0..base::limits::CONNECTION_REQUESTS_MAX + 10 {
        member.request(&put(b"a", b"1"));
    }
    member.turns();
    assert!(member.paused);
    member.settle();
    assert!(!member.paused);
    assert_eq!(member.replies().len(), base::limits::CONNECTION_REQUESTS_MAX + 10);
    assert_eq!(member.reactor.requests(), 0);
}

#[test]
fn a_stopping_member_answers_what_it_took_and_refuses_the_rest() {
    let mut member = Member::serving();
    let taken = member.request(&put(b"a", b"1"));
    member.turns();
    member.to_reactor.push_back(ReactorEvent::Stop);
    member.to_consensus.push_back(ConsensusEvent::Stop);
    let refused = member.request(&put(b"b", b"1"));
    member.settle();
    let mut replies = member.replies();
    replies.sort();
    assert_eq!(
        replies,
        [(taken, Status::Ok, Some(b"2".to_vec())), (refused, Status::ShuttingDown, None),]
    );
    assert!(member.consensus.is_quiet());
    assert_eq!(member.store.state().applied(), (LogIndex::new(2), Term::new(1)));
}

#[test]
fn a_write_that_is_sent_again_is_answered_as_the_first_time_and_marked() {
    let mut member = Member::serving();
    let client = member.register();
    assert_eq!(client, ClientId::new(2), "the entry behind the empty one");
    let stamp = |sequence| Stamp { client, sequence, floor: 1 };
    let missing = Call::Put(Put { key: b"none", ignore_value: true, ..Put::default() });
    let delete = Call::DeleteRange(wire::DeleteRange::one(b"a"));
    let txn = wire::Txn::new().then(wire::Op::Put(Put::new(b"t", b"1")));
    let (txn, physical) = (Call::Txn(&txn), Compact { revision: 3, physical: true });
    let calls = [put(b"a", b"1"), delete, txn, Call::Compact(physical), missing];
    for again in [false, true] {
        for (sequence, call) in (1..).zip(&calls) {
            let id = member.request_once(stamp(sequence), call);
            member.settle();
            member.reply(|header, reply| {
                assert_eq!((header.request.get(), header.flags.is_repeated()), (id, again));
                match (sequence, reply) {
                    (1, Reply::Put(reply)) => assert_eq!(reply.revision, 2),
                    (2, Reply::DeleteRange(reply)) => {
                        assert_eq!((reply.revision, reply.deleted), (3, 1));
                    }
                    (3, Reply::Txn(reply)) => {
                        assert_eq!((reply.revision(), reply.succeeded()), (4, true));
                        assert_eq!(reply.responses().len(), usize::from(!again));
                    }
                    (4, Reply::Compact(reply)) => assert_eq!(reply.revision, 4),
                    (5, Reply::Refused(reply)) => assert_eq!(reply.status, Status::KeyNotFound),
                    (_, reply) => panic!("{reply:?} for {call:?}"),
                }
            });
        }
    }
    assert_eq!(member.store.state().revision().get(), 4);
    // What is under way is counted by the bytes that were proposed, stamps included.
    member.to_consensus.push_back(ConsensusEvent::Stop);
    member.settle();
    assert!(member.consensus.is_quiet());
}

#[test]
fn stamps_that_mean_nothing_are_refused_before_the_log() {
    let stamp = Stamp { client: ClientId::new(1), sequence: 5, floor: 5 };
    let mut member = Member::serving();
    let (last, _) = member.store.state().applied();
    member.request_once(Stamp { floor: 6, ..stamp }, &put(b"a", b"1"));
    member.settle();
    assert_eq!(member.replies()[0].1, Status::InvalidArgument);
    assert!(!member.closed);
    // A transaction that only reads is read.
    let txn = wire::Txn::new().then(wire::Op::Range(Range::one(b"a")));
    member.request_once(stamp, &Call::Txn(&txn));
    member.settle();
    assert_eq!(member.replies()[0].1, Status::Ok);
    assert_eq!(member.store.state().applied().0, last);
    // A client that was never given an id is told by the state.
    member.request_once(stamp, &put(b"a", b"1"));
    member.settle();
    assert_eq!(member.replies()[0].1, Status::SessionExpired);
    // What no client of ours would send: a stamp on a read, and a body too short for one.
    for (kind, body) in [(wire::Kind::Range, &[0; 32][..]), (wire::Kind::Put, &[0; 16][..])] {
        let mut member = Member::serving();
        let header = wire::Header {
            version: 1,
            kind,
            flags: wire::Flags::STAMPED,
            status: Status::Ok,
            body_size: u32::try_from(body.len()).unwrap(),
            request: RequestId::new(9),
            deadline_ms: 0,
        };
        member.receive(&[&header.encode(body)[..], body].concat());
        member.settle();
        assert_eq!(member.replies()[0].1, Status::ProtocolError);
        assert!(member.closed);
    }
}

/// The leader's store says what nobody wants any more, and the entry is one like a client's.
#[test]
fn a_leader_compacts_by_itself_and_keeps_what_was_asked_for() {
    let mut member = Member::keeping(Retention::Revisions(100)).served();
    for number in 0..300_u32 {
        member.request(&put(b"a", &number.to_le_bytes()));
        member.settle();
    }
    // The first look came with the hundred and twelfth revision beyond the empty store, and the next one
    // waits.
    let compacted = |member: &Member| member.store.state().compacted().map_or(0, Revision::get);
    assert_eq!((compacted(&member), member.store.state().revision().get()), (13, 301));
    member.now = member.now.after(Duration::from_millis(1_000));
    member.settle();
    assert_eq!(compacted(&member), 201);
    assert_eq!(member.store.state().trimmed(), Revision::new(201));
    member.replies();
    let old = |revision| Call::Range(Range { key: b"a", revision, ..Range::default() });
    for (revision, status) in [(200, Status::Compacted), (201, Status::Ok), (301, Status::Ok)] {
        let id = member.request(&old(revision));
        member.settle();
        let replies = member.replies();
        assert_eq!((replies[0].0, replies[0].1), (id, status), "at {revision}");
    }
}

/// A client that compacts, and an entry that was refused because of it, do not keep the next one away.
#[test]
fn a_leader_goes_on_compacting_behind_a_client() {
    let period = Duration::from_millis(60_000);
    let mut member = Member::keeping(Retention::Period(period)).served();
    let mut before = 0;
    for round in 0..20_u64 {
        for number in 0..10_u64 {
            member.request(&put(b"a", &number.to_le_bytes()));
            member.settle();
            member.now = member.now.after(Duration::from_millis(1_000));
        }
        let state = member.store.state();
        let (revision, compacted) = (state.revision(), state.compacted().map_or(0, Revision::get));
        // Ten revisions in ten seconds, and a look each four.
        let kept = revision.get() - compacted.max(1);
        assert!(kept >= 58.min(revision.get() - 5), "round {round}: {kept} are kept");
        assert!(kept <= 66 || round < 8, "round {round}: {kept} are kept");
        if round.is_multiple_of(5) {
            let revision = i64::try_from(compacted + 2).unwrap();
            member.request(&Call::Compact(Compact { revision, physical: false }));
            member.settle();
        }
        assert!(compacted > before || round < 8, "round {round}: nothing goes");
        before = compacted;
    }
}

impl Member {
    /// Limit, use, the most, and hits of each limit, as a client is told.
    fn limits(&mut self) -> BTreeMap<String, [u64; 4]> {
        self.request(&Call::Limits);
        self.turns();
        self.reply(|_, reply| {
            let Reply::Limits(limits) = reply else { panic!("{reply:?}") };
            let of = |limit: wire::Limit<'_>| {
                (limit.name.to_string(), [limit.limit, limit.used, limit.highest, limit.hits])
            };
            limits.iter().map(of).collect()
        })
    }
}

/// Every role says what it has in use, the store puts it together, and nothing is counted twice however
/// often the reactor has looked around.
#[test]
fn limits_tell_what_is_in_use_what_was_and_how_often_they_were_met() {
    let mut member = Member::serving();
    let told = member.limits();
    let names: Vec<&str> = Bound::ALL.iter().map(|bound| bound.name()).collect();
    assert!(names.iter().all(|name| told.contains_key(*name)), "{told:?}");
    assert_eq!(told.len(), names.len());
    assert_eq!(told["connections"], [1_000, 1, 1, 0]);
    // The request itself is under way.
    assert_eq!((told["requests"], told["connection-requests"]), ([0, 1, 1, 0], [1_024, 1, 1, 0]));
    assert_eq!(told["proposals"], [1 << 20, 0, 0, 0]);

    // The disk does nothing: writes pile up to their bound.
    let value = vec![1; 60_000];
    for _ in 0..17 {
        member.request(&put(b"a", &value));
        member.turns();
    }
    for _ in 0..3 {
        member.request(&put(b"b", &value));
        member.turns();
        let retry = member.reply(|header, reply| {
            assert_eq!(header.status, Status::Overloaded);
            let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
            refused.retry_after_ms
        });
        assert!(retry >= 10, "{retry} ms");
    }
    let told = member.limits();
    let waiting = told["proposals"][1];
    assert!((17 * 60_000..1 << 20).contains(&waiting), "{waiting}");
    assert_eq!(told["proposals"], [1 << 20, waiting, waiting, 3]);
    assert_eq!(told["requests"], [0, 18, 18, 0]);
    assert_eq!(told["request-bytes"][1], waiting);

    member.settle();
    assert_eq!(member.replies().len(), 17);
    // The reactor looks around, and tells the store what the next answer has from itself.
    for _ in 0..4 {
        member.now = member.now.after(Duration::from_millis(500));
        member.turns();
    }
    let told = member.limits();
    assert_eq!(told["connections"], [1_000, 1, 1, 0]);
    assert_eq!(told["requests"], [0, 1, 18, 0]);
    assert_eq!(told["proposals"], [1 << 20, 0, waiting, 3]);
    assert!(told["dirty-pages"][1] > 0 && told["page-cache"][1] >= told["dirty-pages"][1]);

    member.to_reactor.push_back(ReactorEvent::TurnedAway);
    member.to_reactor.push_back(ReactorEvent::Closed { connection: CONNECTION });
    member.turns();
    let gone = [Bound::Connections, Bound::Requests].map(|bound| member.reactor.in_use(bound));
    assert_eq!(gone.map(|told| (told.used, told.hits)), [(0, 1), (0, 0)]);
}

/// What was refused because others hold it comes back when they give it back: no sooner asked again.
#[test]
fn a_connection_with_too_many_requests_is_counted_and_so_is_a_watch_too_many() {
    let mut member = Member::serving();
    for _ in 0..1_030 {
        member.request(&put(b"a", b"1"));
    }
    member.turns();
    assert!(member.paused);
    let told = member.reactor.in_use(Bound::ConnectionRequests);
    assert_eq!((told.highest, told.hits), (1_024, 1));
    member.settle();
    member.replies();
    let ranges = [wire::WatchRange { key: b"k", range_end: b"" }];
    let ranges = wire::WatchRanges::Given(&ranges);
    for _ in 0..10_000 {
        member.request(&Call::Watch(wire::Watch { ranges, ..wire::Watch::default() }));
        member.settle();
    }
    member.sent.clear();
    member.request(&Call::Watch(wire::Watch { ranges, ..wire::Watch::default() }));
    member.settle();
    let (status, retry) = member.reply(|header, reply| {
        let Reply::Refused(refused) = reply else { panic!("{reply:?}") };
        (header.status, refused.retry_after_ms)
    });
    assert_eq!((status, retry), (Status::Overloaded, 1_000));
    let told = member.limits();
    assert_eq!(told["connection-watches"], [10_000, 10_000, 10_000, 1]);
    assert_eq!(told["watches"], [1_000_000, 10_000, 10_000, 0]);
}
