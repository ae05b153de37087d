//! Fixed seeds, the same seed twice, and a mistake on purpose that must be found.

#![allow(clippy::unwrap_used)]

use sim::{Adjust, Report, run};

const CORPUS: &str = include_str!("../corpus.txt");

fn seeds() -> impl Iterator<Item = u64> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(' ').next().unwrap().parse().unwrap())
}

/// Those, and some more.
fn many_seeds() -> impl Iterator<Item = u64> {
    seeds().chain(200..280)
}

fn plain(seed: u64) -> Report {
    run(seed, &Adjust::default(), false)
}

#[test]
fn the_seeds_of_the_corpus_find_nothing() {
    let (mut replies, mut judged, mut found) = (0, 0, Vec::new());
    for seed in many_seeds() {
        let report = plain(seed);
        replies += report.checked;
        judged += report.judged;
        found.extend(report.violation.map(|text| format!("seed {seed}: {text}")));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    // A simulator that does nothing finds nothing.
    assert!(replies > 10_000 && judged > 30_000, "{replies} replies, {judged} judgements");
}

#[test]
fn a_seed_run_twice_is_the_same_run() {
    let mut steps = 0;
    for seed in seeds().take(12) {
        let (first, second) = (plain(seed), plain(seed));
        steps += first.steps;
        assert_eq!((first.hash, first.steps), (second.hash, second.steps), "seed {seed}");
    }
    assert!(steps > 20_000, "the seeds do next to nothing: {steps} steps");
}

#[test]
fn what_is_told_is_no_part_of_the_run() {
    let with_text = run(1, &Adjust::default(), true);
    assert_eq!(with_text.hash, plain(1).hash);
    assert!(!with_text.trace.is_empty());
}

/// The canary: the model is broken by the simulator's own hand, so every run that writes must end with
/// a finding.
#[test]
fn a_mistake_on_purpose_is_found() {
    let adjust = Adjust { canary: true, ..Adjust::default() };
    let mut broken = 0;
    for seed in seeds().filter(|seed| plain(*seed).entries > 100) {
        let found = run(seed, &adjust, false).violation;
        assert!(found.is_some(), "seed {seed} has not noticed that values differ");
        broken += 1;
    }
    assert!(broken > 4, "hardly a seed writes");
}

/// What a generator never asks for is never tested.
#[test]
fn every_kind_of_request_is_made() {
    let mut made = std::collections::BTreeSet::new();
    for seed in many_seeds() {
        made.extend(plain(seed).counts.into_keys());
    }
    for kind in [
        "put",
        "delete",
        "txn",
        "compact",
        "range",
        "serializable range",
        "read txn",
        "status",
        "member list",
        "member change",
        "move leader",
        "ping",
        "register",
        "repeated answer",
        "watch opened",
        "watch resumed",
        "watch compacted",
        "changes told",
        "fragment told",
        "progress told",
        "lease grant",
        "lease revoke",
        "keep alive",
        "time to live",
        "lease list",
        "lease expired",
        "renewals answered",
    ] {
        assert!(made.contains(kind), "nobody asks for: {kind}");
    }
}
