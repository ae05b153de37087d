//! Fixed seeds, the same seed twice, and a mistake on purpose that must be found.

#![allow(clippy::unwrap_used)]

use sim::{Adjust, Report, run};

const CORPUS: &str = include_str!("../corpus.txt");

fn seeds() -> impl Iterator<Item = u64> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(' ').next().unwrap().parse().unwrap())
}

fn plain(seed: u64) -> Report {
    run(seed, &Adjust::default(), false)
}

#[test]
fn the_seeds_of_the_corpus_find_nothing() {
    let (mut replies, mut judged, mut found) = (0, 0, Vec::new());
    for seed in seeds() {
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
    for seed in seeds().take(4) {
        let (first, second) = (plain(seed), plain(seed));
        assert!(first.steps > 1_000, "seed {seed} does next to nothing");
        assert_eq!((first.hash, first.steps), (second.hash, second.steps), "seed {seed}");
    }
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
    for seed in seeds().take(4) {
        let found = run(seed, &adjust, false).violation;
        assert!(found.is_some(), "seed {seed} has not noticed that values differ");
    }
}

/// What a generator never asks for is never tested.
#[test]
fn every_kind_of_request_is_made() {
    let mut made = std::collections::BTreeSet::new();
    for seed in seeds() {
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
    ] {
        assert!(made.contains(kind), "nobody asks for: {kind}");
    }
}
