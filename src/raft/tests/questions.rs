//! This core and the crate `raft` (raft-rs, here under the name `oracle`) are asked the same questions:
//! votes and pre-votes for one (term, last index, last term), with the term that is answered; what a
//! follower's log, commit index and refusal are after an append; who leads after which answers, and
//! what is committed after which acknowledgements, of simple and joint memberships. Every answer must
//! be the same. What is not compared, and why, says `differential.rs`.

mod beside;
mod world;

use std::collections::BTreeMap;

use base::{Prng, Term};
use beside::{
    OPTIONS, Pair, Picture, Theirs, entry, first_seed, our_state, picture_of_ours,
    picture_of_theirs, scale, write_all,
};
use oracle::StateRole;
use oracle::eraftpb::{ConfState, Message as TheirMessage, MessageType};
use raft::{HardState, Input, Membership, Message, Position, RoleName};
use world::{Entry, Packet, World, at, nodes, runs_of};

/// Every ascending log of up to `length` entries and terms up to `terms`.
fn logs(length: usize, terms: u64) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..length {
        let longer = |log: &Vec<u64>| {
            let from = log.last().copied().unwrap_or(1);
            let log = log.clone();
            (from..=terms).map(move |term| [&log[..], &[term]].concat()).collect::<Vec<_>>()
        };
        last = last.iter().flat_map(longer).collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// Our answers, when all disks have done their work.
fn our_answers(world: &mut World, id: u64) -> Vec<Message> {
    write_all(world, id);
    world.sent.drain(..).filter(|packet| packet.from == id).map(|packet| packet.message).collect()
}

fn their_answers(theirs: &mut Theirs, id: u64) -> Vec<TheirMessage> {
    theirs.pump(id);
    while theirs.write(id) {}
    theirs.sent.drain(..).filter(|message| message.from == id).collect()
}

/// (term, granted) of the one answer there may be.
type Answer = Option<(u64, bool)>;

fn ask_ours(base: &World, terms: &[u64], state: HardState, pre: bool, ask: [u64; 3]) -> Answer {
    let [term, index, last_term] = ask;
    let mut world = base.clone();
    world.preset(2, terms, state);
    let (term, last) = (
        Term::new(term),
        Position { index: base::LogIndex::new(index), term: Term::new(last_term) },
    );
    let message = if pre {
        Message::PreVote { term, last }
    } else {
        Message::Vote { term, last, transfer: false }
    };
    world.receive(Packet { from: 1, to: 2, message, entries: Vec::new() });
    let answers = our_answers(&mut world, 2);
    assert!(answers.len() <= 1);
    answers.first().map(|answer| match answer {
        Message::VoteReply { term, granted } | Message::PreVoteReply { term, granted } => {
            (term.get(), *granted)
        }
        other => panic!("{other:?}"),
    })
}

fn ask_theirs(terms: &[u64], state: [u64; 2], pre: bool, ask: [u64; 3]) -> Answer {
    let mut theirs = Theirs::of_voters(&[1, 2, 3], pre);
    theirs.preset(2, terms, 0, state[0], state[1]);
    let mut message = TheirMessage::default();
    let (vote, pre_vote) = (MessageType::MsgRequestVote, MessageType::MsgRequestPreVote);
    message.set_msg_type(if pre { pre_vote } else { vote });
    (message.from, message.to) = (1, 2);
    [message.term, message.index, message.log_term] = ask;
    theirs.receive(message);
    let answers = their_answers(&mut theirs, 2);
    assert!(answers.len() <= 1);
    answers.first().map(|answer| (answer.term, !answer.reject))
}

/// One that knows of no leader is asked: every log of up to three entries and terms up to three, every
/// vote it may have given, every candidate.
#[test]
fn who_may_be_elected_is_the_same() {
    let base = World::new(OPTIONS, &[1, 2, 3], &[]);
    let (mut asked, mut granted) = (0, 0);
    for terms in logs(3, 3) {
        let first = terms.last().copied().unwrap_or(0);
        for (term, vote) in (first..=3).flat_map(|term| [0, 1, 3].map(|vote| (term, vote))) {
            if term == 0 && vote > 0 {
                continue;
            }
            for candidate in logs(3, 3) {
                let (index, last_term) =
                    (candidate.len() as u64, candidate.last().copied().unwrap_or(0));
                for (ask, pre) in (1..=4).flat_map(|ask| [(ask, false), (ask, true)]) {
                    if ask < last_term || (pre && ask <= last_term) {
                        continue;
                    }
                    let ask = [ask, index, last_term];
                    let ours = ask_ours(&base, &terms, our_state(term, vote), pre, ask);
                    let theirs = ask_theirs(&terms, [term, vote], pre, ask);
                    let question = format!("{terms:?} in {term} for {vote}, pre {pre}: {ask:?}");
                    assert_eq!(ours, theirs, "{question}");
                    asked += 1;
                    granted += u64::from(ours.is_some_and(|(_, granted)| granted));
                }
            }
        }
    }
    println!("{asked} questions, {granted} granted");
    assert!(asked > 5_000 && granted > 1_000);
}

/// An append to a follower: what it answers, and what its log and commit index are then.
#[derive(PartialEq, Eq, Debug)]
struct Appended {
    terms: Vec<u64>,
    committed: u64,
    /// Index up to which it agrees; or the (index, term) that may.
    answer: Result<u64, (u64, u64)>,
}

struct Question {
    follower: Vec<u64>,
    committed: usize,
    leader: Vec<u64>,
    previous: usize,
    count: usize,
    leader_committed: usize,
}

const APPEND_TERM: u64 = 9;

fn append_to_ours(base: &World, q: &Question) -> Appended {
    let mut world = base.clone();
    // Entries of one index and term have one name.
    let log: Vec<Entry> = q.leader.iter().enumerate().map(|(i, &term)| named(i, term)).collect();
    let host = world.hosts.get_mut(&2).expect("a member");
    host.disk.log = q.follower.iter().enumerate().map(|(i, &term)| named(i, term)).collect();
    host.disk.hard_state = our_state(APPEND_TERM - 1, 0);
    host.disk.committed = q.committed;
    world.crash(2, 0);
    world.restart(2, 2);
    world.truth.committed = log.iter().map(|entry| (entry.clone(), APPEND_TERM)).collect();
    let last = q.previous + q.count;
    let before = q.previous.checked_sub(1).map_or(0, |i| q.leader[i]);
    let message = Message::Append {
        term: Term::new(APPEND_TERM),
        previous: Position { index: at(q.previous), term: Term::new(before) },
        runs: runs_of(&log[..last], q.previous),
        last: at(last),
        committed: at(q.leader_committed),
        configurations: Vec::new(),
    };
    let entries = log[q.previous..last].to_vec();
    world.receive(Packet { from: 1, to: 2, message, entries });
    let answers = our_answers(&mut world, 2);
    let answer = match answers.last().expect("an answer") {
        Message::Accepted { matched, verified, .. } => {
            assert_eq!(matched, verified);
            Ok(verified.get())
        }
        Message::Rejected { hint, .. } => Err((hint.index.get(), hint.term.get())),
        other => panic!("{other:?}"),
    };
    let Picture { terms, committed, .. } = picture_of_ours(&world, 2);
    Appended { terms, committed, answer }
}

fn named(i: usize, term: u64) -> Entry {
    Entry { term, name: 1_000 * term + i as u64, membership: None }
}

fn append_to_theirs(q: &Question) -> Appended {
    let mut theirs = Theirs::of_voters(&[1, 2, 3], true);
    theirs.preset(2, &q.follower, q.committed, APPEND_TERM - 1, 0);
    let mut message = TheirMessage::default();
    message.set_msg_type(MessageType::MsgAppend);
    (message.from, message.to, message.term) = (1, 2, APPEND_TERM);
    message.index = q.previous as u64;
    message.log_term = q.previous.checked_sub(1).map_or(0, |i| q.leader[i]);
    message.commit = q.leader_committed as u64;
    let entries = (q.previous..q.previous + q.count).map(|i| entry(i + 1, q.leader[i]));
    message.set_entries(entries.collect::<Vec<_>>().into());
    theirs.receive(message);
    let answers = their_answers(&mut theirs, 2);
    let answer = answers.last().expect("an answer");
    let hint = (answer.reject_hint, answer.log_term);
    let answer = if answer.reject { Err(hint) } else { Ok(answer.index) };
    let Picture { terms, committed, .. } = picture_of_theirs(&theirs, 2);
    Appended { terms, committed, answer }
}

/// Two logs that the protocol can bring about: where they have one term, they agree up to there.
fn match_each_other(ours: &[u64], theirs: &[u64]) -> bool {
    let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    ours.iter().zip(theirs).skip(same).all(|(a, b)| a != b)
}

fn ask_append(base: &World, q: &Question) -> bool {
    let (ours, theirs) = (append_to_ours(base, q), append_to_theirs(q));
    let Question { follower, committed, leader, previous, count, leader_committed } = q;
    assert_eq!(
        ours, theirs,
        "{follower:?} committed {committed}, from {leader:?} behind {previous}, {count} entries, \
         committed {leader_committed}"
    );
    ours.answer.is_ok()
}

/// Appends that begin before the commit index are left out: there raft-rs answers from memory and
/// looks at nothing.
#[test]
fn what_an_append_does_to_a_log_is_the_same() {
    let base = World::new(OPTIONS, &[1, 2, 3], &[]);
    let (mut accepted, mut refused) = (0, 0);
    let mut ask = |question: &Question| {
        let ok = ask_append(&base, question);
        *(if ok { &mut accepted } else { &mut refused }) += 1;
    };
    for follower in logs(3, 3) {
        for leader in logs(3, 3) {
            if !match_each_other(&follower, &leader) {
                continue;
            }
            let same = follower.iter().zip(&leader).take_while(|(a, b)| a == b).count();
            for committed in 0..=same {
                for previous in committed..=leader.len() {
                    for count in 0..=leader.len() - previous {
                        for leader_committed in committed..=leader.len() {
                            let (follower, leader) = (follower.clone(), leader.clone());
                            let question = Question {
                                follower,
                                committed,
                                leader,
                                previous,
                                count,
                                leader_committed,
                            };
                            ask(&question);
                        }
                    }
                }
            }
        }
    }
    // Longer logs of more terms: hints step over several.
    let mut prng = Prng::new(first_seed());
    for _ in 0..10_000 * scale() {
        let mut log = |from: &[u64]| {
            let mut log = from.to_vec();
            for _ in 0..prng.below(12) {
                let term = log.last().copied().unwrap_or(1) + prng.below(5).saturating_sub(2);
                log.push(term.min(APPEND_TERM - 1));
            }
            log
        };
        let common = log(&[]);
        let (follower, leader) = (log(&common), log(&common));
        if !match_each_other(&follower, &leader) {
            continue;
        }
        let mut upto = |from: usize, to: usize| {
            from + usize::try_from(prng.below((to - from) as u64 + 1)).expect("small")
        };
        let committed = upto(0, common.len());
        let previous = upto(committed, leader.len());
        let count = upto(0, leader.len() - previous);
        let leader_committed = upto(committed, leader.len());
        ask(&Question { follower, committed, leader, previous, count, leader_committed });
    }
    println!("{accepted} appends accepted, {refused} refused");
    assert!(accepted > 5_000 && refused > 1_000);
}

/// A leader of a log of several terms, and acknowledgements in any order: the commit index after each.
#[test]
fn what_is_committed_by_counting_is_the_same() {
    let mut prng = Prng::new(first_seed());
    let (mut moved, mut held) = (0, 0);
    for _ in 0..2_000 * scale() {
        let voters: Vec<u64> = (1..=3 + prng.below(3)).collect();
        let all = logs(4, 3);
        let log = &all[usize::try_from(prng.below(all.len() as u64)).expect("small")];
        let mut pair = Pair::new(voters.clone(), false);
        pair.ours.preset(1, log, our_state(3, 0));
        pair.theirs.preset(1, log, 0, 3, 0);
        pair.campaign(1);
        // Votes come through, nothing else.
        pair.cut = voters.iter().map(|&id| (1, id)).collect();
        write_all(&mut pair.ours, 1);
        _ = their_answers(&mut pair.theirs, 1);
        for &from in &voters[1..] {
            let message = Message::VoteReply { term: Term::new(4), granted: true };
            pair.ours.receive(Packet { from, to: 1, message, entries: Vec::new() });
            let mut message = TheirMessage::default();
            message.set_msg_type(MessageType::MsgRequestVoteResponse);
            (message.from, message.to, message.term) = (from, 1, 4);
            pair.theirs.receive(message);
        }
        let count = prng.below(4);
        if count > 0 {
            pair.propose(1, count);
        }
        // Its own disk may stand still.
        if prng.one_in(2) {
            pair.stalled.insert(1);
        }
        pair.settle();
        let last = pair.ours.hosts[&1].log.len() as u64;
        let mut matched = vec![0; voters.len() + 1];
        for _ in 0..2 * voters.len() {
            let from = 2 + prng.below(voters.len() as u64 - 1);
            let slot = &mut matched[usize::try_from(from).expect("small")];
            *slot += prng.below(last - *slot + 1);
            let index = base::LogIndex::new(*slot);
            let term = Term::new(4);
            let message = Message::Accepted { term, matched: index, verified: index };
            pair.ours.receive(Packet { from, to: 1, message, entries: Vec::new() });
            let mut message = TheirMessage::default();
            message.set_msg_type(MessageType::MsgAppendResponse);
            (message.from, message.to, message.term) = (from, 1, 4);
            message.index = *slot;
            pair.theirs.receive(message);
            pair.settle();
            let ours = pair.ours.raft(1).log().committed().get();
            let theirs = pair.theirs.node(1).raft.raft_log.committed;
            assert_eq!(ours, theirs, "{log:?} and {count}, acknowledged {matched:?}");
            *(if ours > 0 { &mut moved } else { &mut held }) += 1;
        }
    }
    println!("{moved} times something was committed, {held} times not");
    assert!(moved > 1_000 && held > 1_000);
}

/// Joint memberships of up to five and five: who leads after each answer, and what both majorities
/// have.
#[test]
fn joint_majorities_are_the_same() {
    let mut prng = Prng::new(first_seed());
    let (mut led, mut lost) = (0, 0);
    for _ in 0..1_000 * scale() {
        let old: Vec<u64> = (1..=1 + prng.below(5)).collect();
        let from = 1 + prng.below(4);
        let new: Vec<u64> = (from..=from + prng.below(5)).collect();
        let mut ids = [&old[..], &new[..]].concat();
        ids.sort_unstable();
        ids.dedup();
        // A lone voter counts itself there before it is durable.
        if !ids.contains(&1) || (old == new && old.len() == 1) {
            continue;
        }
        let joint = Membership::restored(nodes(&new), nodes(&old), Vec::new(), Vec::new());
        let mut ours = World::new(OPTIONS, &ids, &[]);
        ours.initial = joint.clone();
        ours.crash(1, 0);
        ours.restart(1, 1);
        let membership =
            ConfState { voters: new.clone(), voters_outgoing: old.clone(), ..ConfState::default() };
        let mut theirs = Theirs::new(&ids, membership, false);
        ours.input(1, Input::Campaign);
        theirs.node_mut(1).campaign().expect("a voter");
        write_all(&mut ours, 1);
        _ = their_answers(&mut theirs, 1);
        let mut order = ids[1..].to_vec();
        for i in (1..order.len()).rev() {
            order.swap(i, usize::try_from(prng.below(i as u64 + 1)).expect("small"));
        }
        for from in order {
            let granted = !prng.one_in(3);
            let message = Message::VoteReply { term: Term::new(1), granted };
            ours.receive(Packet { from, to: 1, message, entries: Vec::new() });
            let mut message = TheirMessage::default();
            message.set_msg_type(MessageType::MsgRequestVoteResponse);
            (message.from, message.to, message.term) = (from, 1, 1);
            message.reject = !granted;
            theirs.receive(message);
            let role = match theirs.node(1).raft.state {
                StateRole::Leader => RoleName::Leader,
                StateRole::Candidate => RoleName::Candidate,
                StateRole::PreCandidate => RoleName::PreCandidate,
                StateRole::Follower => RoleName::Follower,
            };
            assert_eq!(ours.raft(1).role(), role, "{old:?} to {new:?}");
            lost += u64::from(role == RoleName::Follower);
        }
        if !theirs.leads(1) {
            continue;
        }
        led += 1;
        // 1 has all of it, the others what they say.
        for _ in 0..4 {
            theirs.node_mut(1).propose(Vec::new(), vec![1]).expect("it leads");
        }
        _ = their_answers(&mut theirs, 1);
        let mut matched: BTreeMap<u64, u64> = ids.iter().map(|&id| (id, 0)).collect();
        matched.insert(1, 5);
        for &from in &ids[1..] {
            let index = prng.below(6);
            matched.insert(from, index);
            let mut message = TheirMessage::default();
            message.set_msg_type(MessageType::MsgAppendResponse);
            (message.from, message.to, message.term, message.index) = (from, 1, 1, index);
            theirs.receive(message);
            let reached = joint.reached(&mut Vec::new(), |id| matched[&id.get()]);
            let committed = theirs.node(1).raft.raft_log.committed;
            assert_eq!(reached, committed, "{old:?} to {new:?}: {matched:?}");
        }
    }
    println!("{led} joint elections won, {lost} answers after which one was lost");
    assert!(led > 100 && lost > 100);
}
