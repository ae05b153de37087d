//! Runs seeds: `--seeds N [--from S]`, or one with its trace: `--seed S`. Ends with the count of
//! violations, and with an exit code that says whether there was one.
//!
//! `--without FAULT`, `--clients N`, `--members N` and `--millis N` make a finding smaller; `--lenient`
//! goes on after what harms nobody by itself; `--canary` breaks the model on purpose. A build with
//! `--profile sim` goes on with the next seed after a panic, one with `--release` ends there.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sim::{Adjust, Fault, Plan, run};

struct Arguments {
    seed: Option<u64>,
    seeds: u64,
    from: Option<u64>,
    adjust: Adjust,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { seed: None, seeds: 1, from: None, adjust: Adjust::default() };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--canary" {
            parsed.adjust.canary = true;
            continue;
        }
        if name == "--lenient" {
            parsed.adjust.lenient = true;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{name} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} wants a number"));
        match name.as_str() {
            "--seed" => parsed.seed = Some(number()?),
            "--seeds" => parsed.seeds = number()?,
            "--from" => parsed.from = Some(number()?),
            "--without" => parsed.adjust.without.push(value),
            "--clients" => parsed.adjust.clients = Some(number()?),
            "--members" => parsed.adjust.members = Some(number()?),
            "--millis" => parsed.adjust.millis = Some(number()?),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(parsed)
}

/// Seeds that nobody has run yet, most likely.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let with_text = arguments.seed.is_some();
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from.unwrap_or_else(fresh), arguments.seeds),
    };
    sim::note_panics(with_text);
    let begin = Instant::now();
    let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut violations = 0_u64;
    let (mut simulated, mut judged, mut checked, mut entries, mut events) = (0, 0, 0, 0, 0_u64);
    let (mut leaderless, mut longest) = (0, 0);
    for seed in first..first + count {
        if with_text {
            println!("{:#?}", Plan::new(seed, &arguments.adjust));
        }
        let adjust = &arguments.adjust;
        let outcome = std::panic::catch_unwind(|| run(seed, adjust, with_text));
        let report = match outcome {
            Ok(report) => report,
            Err(_) => {
                violations += 1;
                println!("seed {seed}: panicked: {}", sim::last_panic());
                continue;
            }
        };
        for line in &report.trace {
            println!("{line}");
        }
        if let Some(text) = &report.violation {
            violations += 1;
            println!("seed {seed}: {text}");
        }
        for (name, count) in &report.counts {
            *totals.entry(name).or_default() += count;
        }
        simulated += report.simulated;
        judged += report.judged;
        checked += report.checked;
        entries += report.entries;
        events += report.events;
        leaderless = leaderless.max(report.leaderless);
        longest = longest.max(report.longest);
        if with_text {
            println!("trace hash {:016x} over {} steps", report.hash, report.steps);
            println!("answers by status {:?}", report.answers);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    for fault in Fault::ALL {
        println!("{:>28}  {}", fault.text(), totals.remove(fault.text()).unwrap_or(0));
    }
    for (name, count) in totals {
        println!("{name:>28}  {count}");
    }
    println!(
        "{:.0} simulated seconds in {seconds:.1} s, {events} events, {entries} log entries, {judged} \
         judgements, {checked} replies; leader again within {} ms, longest answer {} ms",
        simulated as f64 / 1e9,
        leaderless / 1_000_000,
        longest / 1_000_000,
    );
    println!("{count} seeds, {violations} violations");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
