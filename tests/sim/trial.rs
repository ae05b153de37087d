//! A trial of a seed among many: mostly one run, now and then one of the two that ask whether a run means
//! anything, and after a finding the smaller runs that still find it.
//!
//! - One seed in a hundred is a canary: its model is wrong on purpose, and its run must find that.
//! - One in fifty runs twice, and must be the same run.

use std::panic::catch_unwind;

use crate::plan::{Adjust, Fault, MS, Plan};
use crate::{Report, last_panic, run};

/// One seed in so many is a canary.
const CANARY_EVERY: u64 = 100;

/// One seed in so many runs twice.
const TWICE_EVERY: u64 = 50;

/// Requests that are answered, and entries, in a run whose canary must sing: with fewer, the wrong model
/// may never have been asked.
const CANARY_REPLIES: u64 = 400;
const CANARY_ENTRIES: u64 = 100;

/// Runs that are spent on making a finding smaller.
const SHRINK_RUNS: u32 = 80;

/// What a seed came to.
pub struct Trial {
    /// What its run came to, or what its panic said. For a canary that sang: nothing wrong.
    pub outcome: Result<Report, String>,
    /// What was tried beside the run itself.
    pub kind: Kind,
    /// Arguments that make a smaller run with the same finding.
    pub smaller: Option<String>,
}

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The run.
    Plain,
    /// Whether a mistake on purpose is found.
    Canary,
    /// Whether the same seed is the same run.
    Twice,
}

impl Kind {
    /// What a seed is for.
    pub fn of(seed: u64, adjust: &Adjust) -> Self {
        if adjust.canary {
            Self::Plain
        } else if seed % CANARY_EVERY == CANARY_EVERY / 2 {
            Self::Canary
        } else if seed.is_multiple_of(TWICE_EVERY) {
            Self::Twice
        } else {
            Self::Plain
        }
    }
}

fn attempt(seed: u64, adjust: &Adjust) -> Result<Report, String> {
    catch_unwind(|| run(seed, adjust, false)).map_err(|_| last_panic())
}

/// Runs a seed as one of many.
pub fn trial(seed: u64, adjust: &Adjust) -> Trial {
    let kind = Kind::of(seed, adjust);
    let outcome = match kind {
        Kind::Plain => attempt(seed, adjust),
        Kind::Canary => canary(seed, adjust),
        Kind::Twice => twice(seed, adjust),
    };
    let smaller = match (&kind, finding(&outcome)) {
        (Kind::Plain, Some(found)) => shrink(seed, adjust, &found),
        _ => None,
    };
    Trial { outcome, kind, smaller }
}

fn canary(seed: u64, adjust: &Adjust) -> Result<Report, String> {
    let broken = Adjust { canary: true, ..adjust.clone() };
    let mut sung = attempt(seed, &broken);
    if let Ok(report) = &mut sung {
        let has_sense = report.checked > CANARY_REPLIES && report.entries > CANARY_ENTRIES;
        let is_silent = report.violation.is_none() && has_sense;
        report.violation = is_silent.then(|| {
            format!(
                "canary: the model is wrong on purpose, and {} replies agree with it",
                report.checked
            )
        });
    }
    sung
}

fn twice(seed: u64, adjust: &Adjust) -> Result<Report, String> {
    let mut first = attempt(seed, adjust)?;
    let second = attempt(seed, adjust)?;
    if first.violation.is_none() && (first.hash, first.steps) != (second.hash, second.steps) {
        first.violation = Some(format!(
            "determinism: {} steps with hash {:016x}, then {} with {:016x}",
            first.steps, first.hash, second.steps, second.hash
        ));
    }
    Ok(first)
}

/// What identifies a finding: the name of the invariant, or the place of the panic.
fn finding(outcome: &Result<Report, String>) -> Option<String> {
    match outcome {
        Ok(report) => {
            let text = report.violation.as_ref()?;
            let name = text.split_once(':').map_or(&text[..], |(name, _)| name);
            // What has no name of an invariant begins with who it is about.
            Some(name.chars().filter(|c| !c.is_ascii_digit() || name.starts_with('I')).collect())
        }
        Err(text) => Some(text.split(": ").next().unwrap_or_default().to_string()),
    }
}

/// Looks for a smaller run with the same finding: fewer kinds of faults, fewer clients, less time.
fn shrink(seed: u64, adjust: &Adjust, found: &str) -> Option<String> {
    let mut best = adjust.clone();
    let mut left = SHRINK_RUNS;
    let mut attempts = |candidate: Adjust, best: &mut Adjust| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let holds = finding(&attempt(seed, &candidate)).is_some_and(|other| other == found);
        if holds {
            *best = candidate;
        }
        holds
    };
    let plan = Plan::new(seed, adjust);
    for &fault in Fault::ALL {
        if plan.has(fault) {
            let mut candidate = best.clone();
            candidate.without.push(fault.text().to_string());
            attempts(candidate, &mut best);
        }
    }
    let mut clients = plan.clients;
    while clients > 1 {
        clients /= 2;
        if !attempts(Adjust { clients: Some(clients), ..best.clone() }, &mut best) {
            break;
        }
    }
    if plan.watchers.clients > 0 {
        attempts(Adjust { watchers: Some(0), ..best.clone() }, &mut best);
    }
    let mut millis = plan.duration / MS;
    while millis > 20 {
        millis = millis * 2 / 3;
        if !attempts(Adjust { millis: Some(millis), ..best.clone() }, &mut best) {
            break;
        }
    }
    let mut text = String::new();
    for name in &best.without {
        text.push_str(&format!(" --without '{name}'"));
    }
    for (name, value) in [
        ("clients", best.clients),
        ("watchers", best.watchers),
        ("members", best.members),
        ("millis", best.millis),
    ] {
        text.push_str(&value.map_or(String::new(), |value| format!(" --{name} {value}")));
    }
    (best.without.len() > adjust.without.len() || !text.is_empty()).then_some(text)
}
