//! Histories made by hand, with the verdict that each must get: from both judges where both can tell.

use chaos::history::{
    Answer, Compare, Key, Operation, Outcome, Relation, Request, Target, Value, Version,
};
use chaos::{registers, witness};

fn version(key: Key, value: Value, created: u64, modified: u64, version: u64) -> Version {
    Version { key, value, created, modified, version }
}

fn operation(times: (u64, u64), request: Request, outcome: Outcome) -> Operation {
    Operation { client: 1, server: 1, invoked: times.0, returned: times.1, request, outcome }
}

fn put(times: (u64, u64), key: Key, value: Value, revision: u64) -> Operation {
    let request = Request::Put { key, value, previous: false };
    let outcome = Outcome::Done { revision, answer: Answer::Put { previous: None } };
    operation(times, request, outcome)
}

fn unknown(times: (u64, u64), request: Request) -> Operation {
    operation(times, request, Outcome::Unknown)
}

fn put_request(key: Key, value: Value) -> Request {
    Request::Put { key, value, previous: false }
}

fn delete_request(key: Key) -> Request {
    Request::Delete { key, end: key + 1, previous: false }
}

fn get(times: (u64, u64), key: Key, revision: u64, found: &[Version]) -> Operation {
    let request = Request::Range { key, end: key + 1, revision: 0, serializable: false };
    let answer = Answer::Range { count: found.len() as u64, versions: found.to_vec() };
    operation(times, request, Outcome::Done { revision, answer })
}

fn stale(mut read: Operation) -> Operation {
    if let Request::Range { serializable, .. } = &mut read.request {
        *serializable = true;
    }
    read
}

/// The verdicts of both judges on key 1: right or not.
fn verdicts(history: &[Operation]) -> (bool, bool) {
    (witness::judge(history).is_right(), registers::judge(history, [1]).is_right())
}

const FIRST: (u64, u64) = (10, 20);
const SECOND: (u64, u64) = (30, 40);
const THIRD: (u64, u64) = (50, 60);

#[test]
fn reads_that_follow_writes_are_right_and_lost_ones_are_not() {
    let (a, b) = (version(1, 7, 2, 2, 1), version(1, 8, 2, 3, 2));
    let write = put(FIRST, 1, 7, 2);
    assert_eq!(verdicts(&[]), (true, true));
    assert_eq!(verdicts(&[write.clone(), get(SECOND, 1, 2, &[a])]), (true, true));
    assert_eq!(verdicts(&[write.clone(), get(SECOND, 1, 1, &[])]), (false, false), "lost");
    assert_eq!(
        verdicts(&[write.clone(), get(SECOND, 1, 2, &[])]),
        (false, false),
        "lost, and denied"
    );
    // Concurrent: either answer is right.
    for found in [get((15, 16), 1, 1, &[]), get((15, 16), 1, 2, &[a])] {
        assert_eq!(verdicts(&[write.clone(), found]), (true, true));
    }
    // Seen by one, no longer seen by the next.
    let flicker = [write.clone(), get((11, 12), 1, 2, &[a]), get((13, 14), 1, 1, &[])];
    assert_eq!(verdicts(&flicker), (false, false));
    // Overwritten, and read as it was before.
    let over = [write.clone(), put(SECOND, 1, 8, 3), get(THIRD, 1, 3, &[b])];
    assert_eq!(verdicts(&over), (true, true));
    let back = [write, put(SECOND, 1, 8, 3), get(THIRD, 1, 2, &[a])];
    assert_eq!(verdicts(&back), (false, false));
}

#[test]
fn a_stale_read_is_right_only_where_it_was_allowed() {
    let write = put(FIRST, 1, 7, 2);
    let old = get(SECOND, 1, 1, &[]);
    assert!(!witness::judge(&[write.clone(), old.clone()]).is_right());
    // Another server, that lags behind.
    let elsewhere = Operation { server: 2, ..stale(old.clone()) };
    assert!(witness::judge(&[write.clone(), elsewhere.clone()]).is_right());
    // The server that has answered the write knows of it.
    assert!(!witness::judge(&[write.clone(), stale(old)]).is_right());
    // Content of no revision is wrong everywhere.
    let made_up = stale(get(SECOND, 1, 1, &[version(1, 7, 2, 2, 1)]));
    assert!(!witness::judge(&[write, Operation { server: 2, ..made_up }]).is_right());
}

#[test]
fn two_writes_with_one_revision_are_wrong() {
    let both = [put(FIRST, 1, 7, 2), put(SECOND, 2, 8, 2)];
    assert!(!witness::judge(&both).is_right());
    // In the order of revisions, but not in that of time.
    let crossed = [put(FIRST, 1, 7, 3), put(SECOND, 1, 8, 2)];
    assert!(!witness::judge(&crossed).is_right());
    let concurrent = [put((10, 35), 1, 7, 3), put((15, 36), 1, 8, 2)];
    assert!(witness::judge(&concurrent).is_right());
}

#[test]
fn a_write_of_unknown_outcome_takes_effect_late_once_or_never() {
    let lost = unknown(FIRST, put_request(1, 7));
    let seen = |times, revision| get(times, 1, revision, &[version(1, 7, revision, revision, 1)]);
    assert_eq!(verdicts(&[lost.clone(), get(SECOND, 1, 1, &[])]), (true, true));
    assert_eq!(verdicts(&[lost.clone(), seen(SECOND, 2)]), (true, true));
    assert_eq!(verdicts(&[lost.clone(), get(SECOND, 1, 1, &[]), seen(THIRD, 2)]), (true, true));
    assert_eq!(verdicts(&[lost.clone(), seen(SECOND, 2), get(THIRD, 1, 2, &[])]), (false, false));
    // Twice: before and behind another write.
    let twice = [lost, seen(SECOND, 2), put(THIRD, 1, 8, 3), seen((70, 80), 4)];
    assert_eq!(verdicts(&twice), (false, false));
    // Seen before it was sent.
    let early = [unknown((45, 46), put_request(1, 7)), seen(SECOND, 2)];
    assert_eq!(verdicts(&early), (false, false));
}

#[test]
fn a_refused_write_has_no_effect() {
    let refused = operation(FIRST, put_request(1, 7), Outcome::Failed);
    assert_eq!(verdicts(&[refused.clone(), get(SECOND, 1, 1, &[])]), (true, true));
    let seen = get(SECOND, 1, 2, &[version(1, 7, 2, 2, 1)]);
    assert_eq!(verdicts(&[refused, seen]), (false, false));
}

#[test]
fn deletes_of_unknown_outcome_are_told_apart_by_what_was_read() {
    let begin = [put(FIRST, 1, 7, 2), put(SECOND, 2, 8, 3)];
    let with = |more: &[Operation]| [&begin[..], more].concat();
    let one = unknown((50, 51), delete_request(1));
    let both = unknown((50, 51), Request::Delete { key: 1, end: 3, previous: false });
    let none = |revision| get((60, 70), 1, revision, &[]);
    assert_eq!(verdicts(&with(&[one.clone(), none(4)])), (true, true));
    assert_eq!(verdicts(&with(&[none(4)])), (false, false), "nobody deleted it");
    // Which of the two it was shows later.
    let stays = get((80, 90), 2, 4, &[version(2, 8, 3, 3, 1)]);
    let gone = get((80, 90), 2, 4, &[]);
    assert!(witness::judge(&with(&[one.clone(), both.clone(), none(4), stays.clone()])).is_right());
    assert!(witness::judge(&with(&[one.clone(), both, none(4), gone.clone()])).is_right());
    assert!(!witness::judge(&with(&[one, none(4), gone])).is_right());
}

#[test]
fn transactions_are_done_whole_and_compare_what_was_there() {
    let request = |want| Request::Txn {
        compares: vec![Compare {
            key: 1,
            target: Target::Modified(want),
            relation: Relation::Equal,
        }],
        success: vec![put_request(1, 8), put_request(2, 9)],
        failure: vec![Request::Range { key: 1, end: 3, revision: 0, serializable: false }],
    };
    let done = |want, revision, succeeded, answers| {
        let outcome = Outcome::Done { revision, answer: Answer::Txn { succeeded, answers } };
        operation(SECOND, request(want), outcome)
    };
    let write = put(FIRST, 1, 7, 2);
    let puts = vec![Answer::Put { previous: None }, Answer::Put { previous: None }];
    let read = vec![Answer::Range { count: 1, versions: vec![version(1, 7, 2, 2, 1)] }];
    let judge = |history: &[Operation]| witness::judge(history).is_right();
    assert!(judge(&[write.clone(), done(2, 3, true, puts.clone())]));
    assert!(judge(&[write.clone(), done(5, 2, false, read.clone())]));
    assert!(!judge(&[write.clone(), done(5, 3, true, puts.clone())]), "compared something else");
    assert!(!judge(&[write.clone(), done(2, 2, false, read)]), "compared something else");
    let all = Request::Range { key: 1, end: 3, revision: 0, serializable: false };
    let half = Answer::Range { count: 1, versions: vec![version(1, 8, 2, 3, 2)] };
    let torn = operation(THIRD, all, Outcome::Done { revision: 3, answer: half });
    assert!(!judge(&[write, done(2, 3, true, puts), torn]), "half of it was seen");
}

#[test]
fn reads_of_the_past_show_what_was_there() {
    let history = [put(FIRST, 1, 7, 2), put(SECOND, 1, 8, 3)];
    let past = |at, found: &[Version]| {
        let request = Request::Range { key: 1, end: 2, revision: at, serializable: false };
        let answer = Answer::Range { count: found.len() as u64, versions: found.to_vec() };
        operation(THIRD, request, Outcome::Done { revision: 3, answer })
    };
    let judge = |read| witness::judge(&[&history[..], &[read]].concat()).is_right();
    assert!(judge(past(2, &[version(1, 7, 2, 2, 1)])));
    assert!(judge(past(1, &[])));
    assert!(!judge(past(2, &[version(1, 8, 2, 3, 2)])));
    assert_eq!(witness::unclaimed(&history), Vec::<u64>::new());
    assert_eq!(witness::unclaimed(&[put(FIRST, 1, 7, 4)]), vec![2, 3]);
}

/// A register alone may hide behind other clients what it cannot hide from one order of all.
#[test]
fn each_register_may_be_right_and_all_together_wrong() {
    let history = [
        put((10, 100), 1, 7, 3),
        put((10, 100), 2, 8, 2),
        get((20, 30), 1, 3, &[version(1, 7, 3, 3, 1)]),
        get((40, 50), 2, 3, &[]),
    ];
    assert!(registers::judge(&history, [1, 2]).is_right());
    assert!(!witness::judge(&history).is_right());
}

#[test]
fn operations_in_flight_are_put_in_any_order_that_fits() {
    let history = [
        put((10, 100), 1, 1, 4),
        put((10, 100), 1, 2, 2),
        put((10, 100), 1, 3, 3),
        get((20, 30), 1, 2, &[version(1, 2, 2, 2, 1)]),
        get((31, 40), 1, 3, &[version(1, 3, 2, 3, 2)]),
        get((110, 120), 1, 4, &[version(1, 1, 2, 4, 3)]),
    ];
    assert_eq!(verdicts(&history), (true, true));
    let mut wrong = history.clone();
    wrong[5] = get((110, 120), 1, 4, &[version(1, 2, 2, 2, 1)]);
    assert_eq!(verdicts(&wrong), (false, false));
}
