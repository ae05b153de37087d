//! What the judges of watches and leases must find, and what they must let pass.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use chaos::timeline::{Mark, Timeline};
use chaos::watch::ledger::{Change, Deed, Ledger, NO_VALUE, Seen};
use chaos::watch::lives::{Lives, MS, Manner, PER_CHANGE, SLACK};
use chaos::watch::stream::{Step, Stream, Wish};

/// Keys of these histories, of which only some are watched.
const KEYS: u32 = 10;

fn put(key: u32, value: u64) -> Deed {
    Deed::Put { key, value, lease: 0, told: None }
}

fn leased(key: u32, lease: i64) -> Deed {
    Deed::Put { key, value: 9, lease, told: None }
}

/// Revisions 2 to 9: puts, a transaction, a lease that ends with two keys, deletes.
fn history() -> Ledger {
    let mut ledger = Ledger::new();
    for deeds in [
        vec![put(1, 11)],
        vec![put(2, 12), put(5, 13), put(1, 14)],
        vec![leased(3, 77)],
        vec![leased(4, 77)],
        vec![Deed::Delete { keys: 1..3, deleted: Some(2) }],
    ] {
        ledger.enter(&deeds).unwrap();
    }
    let mut read = ledger.live.clone();
    read.retain(|key, _| ![3, 4].contains(key));
    assert_eq!(ledger.enter_end(&read), Ok(77));
    ledger.enter(&[put(1, 15)]).unwrap();
    ledger.enter(&[put(1, 16), put(2, 17)]).unwrap();
    ledger
}

fn wish() -> Wish {
    Wish { spans: vec![0..2, 1..KEYS], prev_kv: true, ..Wish::default() }
}

/// What a watch of everything is told, revision by revision.
fn steps(ledger: &Ledger, wish: Wish) -> Vec<Step> {
    let mut steps = vec![
        Step::Begins { wish, start: Some((2, 0)) },
        Step::Created { revision: 1, given_up: 0 },
    ];
    for revision in 2..=ledger.revision {
        let own = ledger.changes.iter().filter(|change| change.at.0 == revision);
        let changes = own.copied().collect();
        steps.push(Step::Changes { changes, whole: revision, fragment: false });
    }
    steps.push(Step::Progress { revision: ledger.revision });
    steps
}

fn judge(ledger: &Ledger, steps: &[Step]) -> Result<Stream, String> {
    let mut stream = Stream::default();
    for step in steps {
        assert!(step.needs() <= ledger.revision);
        stream.judge(ledger, step)?;
    }
    Ok(stream)
}

/// The changes of a step.
fn of(step: &mut Step) -> &mut Vec<Change> {
    let Step::Changes { changes, .. } = step else { panic!("no changes") };
    changes
}

/// A change that is told with a mistake.
type Wrong = fn(&mut Change);

/// Where revision 3 with its three changes stands, and revision 7, the end of a lease.
const TRANSACTION: usize = 3;
const END: usize = 7;

#[test]
fn a_watch_that_is_told_everything_is_right_whole_or_in_pieces() {
    let ledger = history();
    let stream = judge(&ledger, &steps(&ledger, wish())).unwrap();
    assert!(stream.has_all(ledger.revision) && !stream.has_all(ledger.revision + 1));
    assert_eq!(stream.count, ledger.changes.len() as u64);
    // In pieces, which only who asks for them is told, and another connection in between.
    let pieces = |fragments| {
        let mut steps = steps(&ledger, Wish { fragments, ..wish() });
        let mut rest = of(&mut steps[TRANSACTION]).split_off(1);
        let last = rest.split_off(1);
        let Step::Changes { whole, fragment, .. } = &mut steps[TRANSACTION] else { panic!() };
        (*whole, *fragment) = (2, true);
        steps.splice(
            TRANSACTION + 1..TRANSACTION + 1,
            [
                Step::Changes { changes: rest, whole: 2, fragment: true },
                Step::GoesOn { at: (3, 2) },
                Step::Created { revision: 5, given_up: 0 },
                Step::Changes { changes: last, whole: 3, fragment: false },
            ],
        );
        judge(&ledger, &steps)
    };
    assert!(pieces(true).unwrap().has_all(ledger.revision));
    assert!(pieces(false).unwrap_err().contains("piece"));
}

#[test]
fn a_change_that_is_missing_told_twice_or_out_of_order_is_found() {
    let ledger = history();
    let right = steps(&ledger, wish());
    let wrong = |what: &str, change: &dyn Fn(&mut Vec<Step>)| {
        let mut steps = right.clone();
        change(&mut steps);
        assert!(judge(&ledger, &steps).is_err(), "{what}");
    };
    for place in 2..right.len() - 1 {
        wrong("a revision is missing", &|steps| drop(steps.remove(place)));
        wrong("a revision is told twice", &|steps| steps.insert(place, steps[place].clone()));
        if place + 2 < right.len() {
            wrong("revisions are told the wrong way round", &|steps| steps.swap(place, place + 1));
        }
    }
    for sub in 0..3 {
        wrong("a change of a transaction is missing", &|steps| {
            of(&mut steps[TRANSACTION]).remove(sub);
        });
        wrong("a change of a transaction is told twice", &|steps| {
            let changes = of(&mut steps[TRANSACTION]);
            changes.insert(sub, changes[sub]);
        });
    }
    wrong("changes of a transaction are swapped", &|steps| of(&mut steps[TRANSACTION]).swap(0, 1));
    wrong("what comes last is missing", &|steps| drop(steps.remove(steps.len() - 2)));
    wrong("what was told is told again behind a new connection", &|steps| {
        steps.insert(TRANSACTION + 1, Step::GoesOn { at: (3, 2) });
    });
    wrong("a new connection leaves something out", &|steps| {
        steps.insert(TRANSACTION, Step::GoesOn { at: (3, 1) });
        of(&mut steps[TRANSACTION + 1]).remove(0);
    });
    wrong("a watch goes back", &|steps| steps.push(Step::Progress { revision: 4 }));
    wrong("progress is ahead of what was told", &|steps| {
        steps.insert(TRANSACTION, Step::Progress { revision: 3 });
    });
}

#[test]
fn a_change_that_is_told_with_anything_wrong_is_found() {
    let ledger = history();
    let right = steps(&ledger, wish());
    let wrongs: [(&str, Wrong); 9] = [
        ("value", |told| told.now.value += 1),
        ("lease", |told| told.now.lease += 1),
        ("version", |told| told.now.version += 1),
        ("creation", |told| told.now.create += 1),
        ("key", |told| told.key += 1),
        ("cause", |told| told.cause = client::Cause::Revoked),
        ("what was there before", |told| {
            told.before = Some(Seen { version: 40, ..told.before.unwrap_or_default() });
        }),
        ("nothing was there before", |told| {
            told.before = if told.before.is_none() { Some(Seen::default()) } else { None };
        }),
        ("number within the revision", |told| told.at.1 += 1),
    ];
    for place in [TRANSACTION, END] {
        for (what, change) in wrongs {
            let mut steps = right.clone();
            change(&mut of(&mut steps[place])[0]);
            assert!(judge(&ledger, &steps).is_err(), "{what}");
        }
    }
    // Where the state before has been given up, nothing need be told of it, but nothing wrong.
    let mut ledger = ledger;
    ledger.compacted = 7;
    let mut steps = right.clone();
    of(&mut steps[END])[0].before = None;
    assert!(judge(&ledger, &steps).is_ok());
    of(&mut steps[END])[0].before = Some(Seen::default());
    assert!(judge(&ledger, &steps).is_err());
}

#[test]
fn a_watch_is_told_what_it_asked_for_and_nothing_else() {
    let ledger = history();
    let narrow = Wish { spans: vec![1..2, 4..5], no_delete: true, keys_only: true, ..wish() };
    let mut own = steps(&ledger, narrow.clone());
    for step in &mut own[2..] {
        if let Step::Changes { changes, .. } = step {
            changes
                .retain(|told| [1, 4].contains(&told.key) && told.kind == client::ChangeKind::Put);
            for told in changes {
                told.now.value = NO_VALUE;
                told.before.iter_mut().for_each(|before| before.value = NO_VALUE);
            }
        }
    }
    own.retain(|step| !matches!(step, Step::Changes { changes, .. } if changes.is_empty()));
    assert_eq!(judge(&ledger, &own).unwrap().count, 5);
    let all = steps(&ledger, narrow);
    assert!(judge(&ledger, &all).is_err());
}

#[test]
fn who_is_told_that_the_past_is_gone_was_there_and_begins_behind_it() {
    let mut ledger = history();
    ledger.compacted = 5;
    let begins = |revision| Step::Begins { wish: wish(), start: Some((revision, 0)) };
    let gone = |revision| Step::Compacted { revision };
    assert!(judge(&ledger, &[begins(4), gone(5), begins(6)]).is_ok());
    // What is asked for is there.
    assert!(judge(&ledger, &[begins(5), gone(5)]).is_err());
    // What its member has given up.
    let created = |given_up| Step::Created { revision: 9, given_up };
    assert!(judge(&ledger, &[begins(5), created(5)]).is_ok());
    assert!(judge(&ledger, &[begins(4), created(5)]).is_err());
    // Nobody gave that up.
    assert!(judge(&ledger, &[begins(4), gone(6)]).is_err());
    // Silently moved on.
    let mut steps = steps(&ledger, wish());
    steps.drain(2..5);
    assert!(judge(&ledger, &steps).is_err());
}

#[test]
fn answers_and_reads_that_cannot_be_are_found() {
    let mut ledger = history();
    let seen = *ledger.live.get(&1).unwrap();
    let told = |told| vec![Deed::Put { key: 1, value: 1, lease: 0, told: Some(told) }];
    assert!(ledger.clone().enter(&told(seen)).is_ok());
    assert!(ledger.clone().enter(&told(Seen { version: 7, ..seen })).is_err());
    assert!(ledger.clone().enter(&[Deed::Delete { keys: 0..9, deleted: Some(1) }]).is_err());
    assert!(ledger.clone().enter(&[Deed::Delete { keys: 6..9, deleted: None }]).is_err());
    assert!(ledger.clone().enter(&[Deed::Revoke { lease: 5, deleted: 1 }]).is_err());
    assert_eq!(ledger.differs(&ledger.live.clone()), None);
    // A revision of nobody that is the end of no lease.
    let mut read = ledger.live.clone();
    assert!(ledger.clone().enter_end(&read).is_err());
    read.remove(&1);
    assert!(ledger.clone().enter_end(&read).is_err());
    assert!(ledger.differs(&read).is_some());
    // An end of a lease that leaves one of its keys, or takes another one.
    ledger.enter(&[leased(6, 8), leased(7, 8)]).unwrap();
    for gone in [vec![6], vec![1, 6, 7]] {
        let mut read: BTreeMap<u32, Seen> = ledger.live.clone();
        read.retain(|key, _| !gone.contains(key));
        assert!(ledger.clone().enter_end(&read).is_err(), "{gone:?}");
    }
    let mut read = ledger.live.clone();
    read.retain(|key, _| ![6, 7].contains(key));
    assert_eq!(ledger.enter_end(&read), Ok(8));
}

/// A lease of a second that was granted at 10 s, renewed at 10.3 s, with the answer 10 ms later.
fn lives() -> Lives {
    let mut lives = Lives::default();
    lives.granted(5, Manner::Hand, 1_000 * MS, (10_000 * MS, 10_010 * MS));
    lives.renewed(5, (10_300 * MS, 10_310 * MS));
    lives
}

fn ended(millis: u64) -> [(i64, i64, Option<u64>); 1] {
    [(2, 5, Some(millis * MS))]
}

/// How many violations there are if it is seen to end then.
fn violations(lives: &Lives, timeline: &Timeline, millis: u64) -> usize {
    lives.judge(&ended(millis), timeline).violations.len()
}

#[test]
fn a_lease_that_ends_too_early_or_too_late_is_found() {
    let (lives, timeline) = (lives(), Timeline::default());
    assert_eq!(violations(&lives, &timeline, 11_299), 1);
    assert_eq!(violations(&lives, &timeline, 11_300), 0);
    let slack = SLACK / MS;
    assert_eq!(violations(&lives, &timeline, 11_310 + slack), 0);
    assert_eq!(violations(&lives, &timeline, 11_311 + slack), 1);
    let report = lives.judge(&ended(11_320), &timeline);
    assert_eq!(report.margin, Some(20_000_000));
    assert_eq!(report.late_in_peace, Some(10_000_000));
    // Before its renewal was answered: it should not have been.
    assert_eq!(violations(&lives, &timeline, 10_200), 1);
    // A renewal says that it is gone, and nobody was told of its end.
    let mut gone = lives.clone();
    gone.gone(5, 11_299 * MS);
    assert_eq!(gone.judge(&[], &timeline).violations.len(), 1);
    assert_eq!(violations(&gone, &timeline, 11_310), 2);
    // Nobody was told, and nobody knows the lease.
    assert_eq!(lives.judge(&[(2, 5, None)], &timeline).violations.len(), 1);
    assert_eq!(lives.judge(&[(2, 6, Some(1))], &timeline).violations.len(), 1);
}

#[test]
fn each_change_of_leaders_allows_a_lease_its_share_and_a_lost_quorum_its_time() {
    let (lives, slack) = (lives(), SLACK / MS);
    let share = PER_CHANGE / MS;
    let mut timeline = Timeline::default();
    timeline.led(1_000 * MS, 1);
    timeline.led(9_000 * MS, 2);
    assert_eq!(violations(&lives, &timeline, 11_320 + slack), 1);
    timeline.led(11_000 * MS, 3);
    assert_eq!(violations(&lives, &timeline, 11_310 + share + slack), 0);
    assert_eq!(violations(&lives, &timeline, 11_311 + share + slack), 1);
    timeline.mark(11_000 * MS, Mark::QuorumLost);
    timeline.mark(11_400 * MS, Mark::QuorumThere);
    timeline.served(11_400 * MS, 11_600 * MS);
    assert_eq!(violations(&lives, &timeline, 11_310 + 600 + share + slack), 0);
    assert_eq!(violations(&lives, &timeline, 11_311 + 600 + share + slack), 1);
    // A machine that stood still behind the end, before it, and in between.
    timeline.stalled(11_200 * MS, 11_400 * MS);
    assert_eq!(violations(&lives, &timeline, 11_310 + 600 + 90 + share + slack), 0);
    assert_eq!(violations(&lives, &timeline, 11_311 + 600 + 90 + share + slack), 1);
    timeline.waited(11_430 * MS, 30 * MS);
    assert_eq!(violations(&lives, &timeline, 11_310 + 600 + 120 + share + slack), 0);
    assert_eq!(violations(&lives, &timeline, 11_311 + 600 + 120 + share + slack), 1);
    let excused = |millis| lives.judge(&ended(millis), &timeline).excused;
    assert_eq!(excused(11_310 + 600 + share + slack), 0);
    assert_eq!(excused(11_311 + 600 + share + slack), 1);
    // None of that allows an early end.
    assert_eq!(violations(&lives, &timeline, 11_299), 1);
}

#[test]
fn a_renewal_without_an_answer_counts_for_as_long_as_the_cluster_is_not_well() {
    let (mut lives, slack) = (lives(), SLACK / MS);
    let mut timeline = Timeline::default();
    timeline.mark(10_600 * MS, Mark::Harmed);
    timeline.mark(11_000 * MS, Mark::Recovered);
    lives.doubted(5, 10_700 * MS);
    assert_eq!(violations(&lives, &timeline, 12_000 + slack), 0);
    assert_eq!(violations(&lives, &timeline, 12_001 + slack), 1);
    // It may not have been carried out.
    assert_eq!(violations(&lives, &timeline, 11_300), 0);
    lives.doubted(5, 11_100 * MS);
    assert_eq!(violations(&lives, &timeline, 12_100 + slack), 0);
    assert_eq!(violations(&lives, &timeline, 12_101 + slack), 1);
}
