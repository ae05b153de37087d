//! This core beside another implementation of the same protocol, the crate `raft` (raft-rs), which
//! stands in the tests under the name `oracle`.
//!
//! Single questions are compared in `questions.rs`.
//!
//! **Compared exactly, in whole clusters at rest**: both run one schedule of rounds. A round is one
//! event (a candidacy, proposals, time) under links that lose everything or deliver everything once or
//! twice, and disks that work or stand still until the member crashes; then heartbeats until nothing
//! moves. After each round, of every member: whether it leads, whom it follows, term, vote, the terms
//! of its log, its commit index, and what is on its disk.
//!
//! **Compared by outcome**: schedules of single messages, which are lost, repeated and overtake each
//! other. Messages of the two are not one to one (heartbeats, probes, windows, acknowledgements that
//! say more here than there), so one draw does not mean the same message twice, and what happens in
//! between is not comparable. After healing both must have one leader, equal logs, all of them
//! committed, with all that was committed before.
//!
//! **Not compared**: time-outs (they are random in both; here a candidacy is an event), snapshots,
//! reads, changes of members and transfers, whose rules differ by design (a membership is in effect
//! when appended here, when applied there), lone voters (there a vote counts before it is durable),
//! and answers of a member whose disk stands still (there all wait, here those that promise
//! something). An extension of theirs, a commit index that travels with requests for votes, is
//! stripped from their messages.
//!
//! `QUORATE_TEST_SCALE=35` runs a hundred thousand schedules of rounds, `QUORATE_TEST_SEED=7` begins at
//! another seed.

mod beside;
mod world;

use std::collections::BTreeSet;

use base::Prng;
use beside::{
    OPTIONS, Pair, Picture, Theirs, first_seed, picture_of_ours, picture_of_theirs, scale, some,
};
use raft::{Input, RoleName};

/// How often what happened, over all schedules: a test in which nothing happens shows nothing.
#[derive(Default, Debug)]
struct Seen {
    elections: u64,
    deposed: u64,
    crashes: u64,
    cuts: u64,
    committed: u64,
}

/// Links and disks of a round.
fn weather(pair: &mut Pair, prng: &mut Prng) {
    pair.cut.clear();
    pair.doubled.clear();
    pair.stalled.clear();
    let voters = pair.voters.clone();
    let side = if prng.one_in(3) { prng.below(1 << voters.len()) } else { 0 };
    let loss = [0, 0, 10, 30][usize::try_from(prng.below(4)).expect("small")];
    for (i, &from) in voters.iter().enumerate() {
        for (j, &to) in voters.iter().enumerate() {
            if side >> i & 1 != side >> j & 1 || prng.below(100) < loss {
                pair.cut.insert((from, to));
            }
            if prng.one_in(5) {
                pair.doubled.insert((from, to));
            }
        }
    }
    for id in pair.up() {
        if prng.one_in(8) {
            pair.stalled.insert(id);
            // Answers of such a member differ, see above; what a leader sends does not.
            if !pair.theirs.leads(id) {
                pair.cut.extend(voters.iter().map(|&to| (id, to)));
            }
        }
    }
}

fn round(pair: &mut Pair, prng: &mut Prng, what: &str, seen: &mut Seen) {
    weather(pair, prng);
    for id in pair.voters.clone() {
        if !pair.ours.is_up(id) && prng.one_in(2) {
            let seed = prng.next_u64();
            pair.restart(id, seed);
        }
    }
    let before = pair.leaders();
    let mut check = BTreeSet::new();
    let leaders: Vec<u64> = before.iter().map(|leader| leader.0).collect();
    match prng.below(10) {
        0..=3 => {
            let others = |id: &u64| !leaders.contains(id) && !pair.stalled.contains(id);
            let others: Vec<u64> = pair.up().into_iter().filter(others).collect();
            if let Some(id) = some(prng, &others) {
                if pair.theirs.pre_vote || !prng.one_in(4) {
                    pair.expire_leases();
                    if pair.theirs.pre_vote {
                        pair.expire_leases();
                    }
                    check.clone_from(&before);
                }
                pair.campaign(id);
            }
        }
        4..=8 => {
            for &id in &leaders {
                if prng.one_in(2) {
                    let count = 1 + prng.below(3);
                    pair.propose(id, count);
                }
            }
        }
        _ => {
            pair.expire_leases();
            check.clone_from(&before);
        }
    }
    pair.settle();
    // Some heartbeats repair what was lost, not as many here as there. So leaders first speak to those
    // only who do not depose them for it.
    let links = pair.cut.clone();
    let deposes = pair.deposing();
    pair.cut.extend(&deposes);
    for _ in 0..4 {
        pair.beat(&check);
        check.clear();
    }
    if !deposes.is_empty() {
        pair.cut = links;
        (0..3).for_each(|_| pair.beat(&check));
    }
    for id in std::mem::take(&mut pair.stalled) {
        pair.crash(id);
        seen.crashes += 1;
    }
    for id in pair.up() {
        if prng.one_in(12) {
            pair.crash(id);
            seen.crashes += 1;
        }
    }
    pair.compare(what);
    let after = pair.leaders();
    seen.elections += after.difference(&before).count() as u64;
    seen.deposed += before.difference(&after).count() as u64;
}

/// All links and disks work: both elect the same leader, and agree.
fn heal(pair: &mut Pair, prng: &mut Prng, what: &str) {
    weather(pair, prng);
    pair.cut.clear();
    pair.stalled.clear();
    for id in pair.voters.clone() {
        if !pair.ours.is_up(id) {
            pair.restart(id, id);
        }
    }
    let none = BTreeSet::new();
    pair.beat(&none);
    for _ in 0..20 {
        if !pair.leaders().is_empty() {
            break;
        }
        let id = some(prng, &pair.voters).expect("a voter");
        pair.expire_leases();
        pair.expire_leases();
        pair.campaign(id);
        pair.settle();
        pair.compare(what);
    }
    pair.beat(&none);
    let leaders = pair.leaders();
    assert_eq!(leaders.len(), 1, "{what}: one leader of all");
    let (leader, _) = *leaders.first().expect("one");
    pair.propose(leader, 1);
    pair.settle();
    pair.beat(&none);
    pair.compare(what);
    let last = pair.ours.hosts[&leader].log.len() as u64;
    for &id in &pair.voters {
        let picture = picture_of_ours(&pair.ours, id);
        assert_eq!((picture.committed, picture.terms.len() as u64), (last, last), "{what}: {id}");
    }
    pair.ours.check_quorums();
}

#[test]
fn clusters_in_one_schedule_of_rounds_are_the_same_after_each() {
    let (first, count) = (first_seed(), 3_000 * scale());
    let mut seen = Seen::default();
    for seed in first..first + count {
        let mut prng = Prng::new(seed);
        let voters = (1..=3 + prng.below(3)).collect();
        let mut pair = Pair::new(voters, prng.one_in(2));
        for i in 0..25 {
            round(&mut pair, &mut prng, &format!("seed {seed}, round {i}"), &mut seen);
        }
        heal(&mut pair, &mut prng, &format!("seed {seed}, healed"));
        seen.cuts += pair.ours.truth.cuts;
        seen.committed += pair.ours.truth.committed.len() as u64;
    }
    println!("{count} schedules of 25 rounds: {seen:?}");
    assert!(seen.elections > count && seen.deposed > count / 2, "{seen:?}");
    assert!(seen.crashes > count && seen.cuts > count / 10 && seen.committed > count, "{seen:?}");
}

/// One draw for both, as far as it means something in each: message by message.
fn storm(pair: &mut Pair, prng: &mut Prng) {
    let ids = pair.voters.clone();
    let id = some(prng, &ids).expect("a voter");
    let which = prng.next_u64();
    match prng.below(16) {
        0..=6 => {
            let copies = [0, 1, 1, 1, 1, 2][usize::try_from(prng.below(6)).expect("small")];
            let pick = |n: usize| usize::try_from(which % n.max(1) as u64).expect("small");
            if let Some(packet) = pair.ours.sent.remove(pick(pair.ours.sent.len())) {
                (0..copies).for_each(|_| pair.ours.receive(packet.clone()));
            }
            if let Some(message) = pair.theirs.sent.remove(pick(pair.theirs.sent.len())) {
                (0..copies).for_each(|_| pair.theirs.receive(message.clone()));
            }
        }
        7..=11 if pair.ours.is_up(id) => {
            for _ in 0..=which % 3 {
                pair.ours.write(id);
                pair.ours.report(id);
                pair.theirs.write(id);
            }
            pair.ours.input(id, Input::Flush);
        }
        12 if pair.ours.is_up(id) => {
            if pair.ours.raft(id).role() == RoleName::Leader {
                pair.ours.input(id, Input::Propose { count: 1 + which % 3 });
            }
            if pair.theirs.leads(id) {
                for _ in 0..=which % 3 {
                    pair.theirs.node_mut(id).propose(Vec::new(), vec![1]).expect("it leads");
                    pair.theirs.pump(id);
                }
            }
        }
        13 if which.is_multiple_of(10) && pair.ours.is_up(id) => {
            pair.expire_leases();
            pair.ours.input(id, Input::Campaign);
            pair.theirs.node_mut(id).campaign().expect("a voter");
            pair.theirs.pump(id);
        }
        14 => {
            pair.ours.now = pair.ours.now.after(OPTIONS.heartbeat_interval);
            for id in pair.up() {
                if pair.ours.raft(id).role() == RoleName::Leader {
                    pair.ours.input(id, Input::Tick);
                }
                if pair.theirs.leads(id) {
                    pair.theirs.node_mut(id).tick();
                    pair.theirs.pump(id);
                }
            }
        }
        15 if which.is_multiple_of(8) => {
            if pair.ours.is_up(id) {
                pair.crash(id);
            } else {
                pair.ours.restart(id, which);
                pair.theirs.restart(id);
            }
        }
        _ => {}
    }
}

/// The longest log prefix that anyone of theirs knows to be committed, as terms.
fn their_committed(theirs: &Theirs) -> Vec<u64> {
    let up = theirs.peers.iter().filter(|(_, peer)| peer.node.is_some());
    let prefixes = up.map(|(&id, _)| {
        let committed = theirs.node(id).raft.raft_log.committed;
        let mut terms = theirs.terms(id);
        terms.truncate(usize::try_from(committed).expect("small"));
        terms
    });
    prefixes.max_by_key(Vec::len).unwrap_or_default()
}

#[test]
fn clusters_in_a_storm_of_single_messages_both_get_on_after_it() {
    let (first, count) = (first_seed(), 1_000 * scale());
    let (mut ours, mut theirs) = (0, 0);
    for seed in first..first + count {
        let mut prng = Prng::new(seed);
        let mut pair = Pair::new((1..=3 + prng.below(3)).collect(), false);
        let mut known = Vec::new();
        for _ in 0..500 {
            storm(&mut pair, &mut prng);
            let committed = their_committed(&pair.theirs);
            if committed.len() > known.len() {
                known = committed;
            }
        }
        let before = pair.ours.truth.committed.clone();
        // What is still on its way is lost; each heals, with its own leader.
        pair.ours.sent.clear();
        pair.theirs.sent.clear();
        for id in pair.voters.clone() {
            if !pair.ours.is_up(id) {
                pair.ours.restart(id, id);
                pair.theirs.restart(id);
            }
        }
        let none = BTreeSet::new();
        for _ in 0..40 {
            pair.settle();
            pair.beat(&none);
            pair.expire_leases();
            let id = some(&mut prng, &pair.voters).expect("a voter");
            if pair.ours.leader().is_none() {
                pair.ours.input(id, Input::Campaign);
            }
            if pair.leaders().is_empty() {
                pair.theirs.node_mut(id).campaign().expect("a voter");
                pair.theirs.pump(id);
            }
        }
        pair.settle();
        pair.beat(&none);
        pair.beat(&none);
        assert_eq!(pair.leaders().len(), 1, "seed {seed}: theirs");
        let leads = |id: &&u64| pair.ours.raft(**id).role() == RoleName::Leader;
        assert_eq!(pair.voters.iter().filter(leads).count(), 1, "seed {seed}: ours");
        let logs: [Vec<Picture>; 2] = [
            pair.voters.iter().map(|&id| picture_of_ours(&pair.ours, id)).collect(),
            pair.voters.iter().map(|&id| picture_of_theirs(&pair.theirs, id)).collect(),
        ];
        for pictures in &logs {
            for picture in pictures {
                assert_eq!(picture.terms, pictures[0].terms, "seed {seed}: {pictures:?}");
                assert_eq!(picture.term, pictures[0].term, "seed {seed}: {pictures:?}");
                let all = picture.committed == picture.terms.len() as u64;
                assert!(all, "seed {seed}: {pictures:?}");
            }
        }
        let kept = before.iter().zip(&pair.ours.truth.committed).all(|(a, b)| a.0 == b.0);
        assert!(kept && before.len() <= logs[0][0].terms.len(), "seed {seed}: ours");
        assert!(logs[1][0].terms.starts_with(&known), "seed {seed}: theirs");
        pair.ours.check_quorums();
        ours += before.len();
        theirs += known.len();
    }
    println!("{count} storms: {ours} entries committed in them by ours, {theirs} by theirs");
    assert!(ours as u64 > count && theirs as u64 > count, "too little happens");
}
