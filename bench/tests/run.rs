//! Whole runs of the load generator against a small server of one thread.
//!
//! Runs are short: they show that the machine is put together rightly, not how fast it is. For
//! that there is `how_light_the_generator_is`, ignored by default:
//!
//! ```text
//! cargo test --release -p bench --test run -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, missing_docs)]

mod fake;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bench::{Distribution, Error, HandshakeError, Operation, Plan, Progress, Report, Warning};
use fake::{FakeServer, Manners};

fn plan(server: &FakeServer, operation: Operation) -> Plan {
    Plan {
        addresses: vec![server.address],
        operation,
        connections: 4,
        depth: 2,
        threads: 1,
        duration: Duration::from_millis(300),
        warm_up: Duration::from_millis(50),
        rate: None,
        keys: 500,
        key_size: 16,
        value_size: 64,
        distribution: Distribution::Uniform,
        limit: 10,
        read_percent: 50,
        serializable: false,
        seed: 1,
        fill: false,
    }
}

fn run(plan: &Plan) -> (Report, Vec<Progress>) {
    let mut told = Vec::new();
    let report = bench::run(plan, &mut |progress| told.push(progress)).unwrap();
    (report, told)
}

#[test]
fn every_operation_runs_without_errors_and_is_counted() {
    for operation in
        [Operation::Put, Operation::Get, Operation::Range, Operation::Txn, Operation::Mixed]
    {
        let server = FakeServer::start(Manners::default());
        let plan = plan(&server, operation);
        let (report, told) = run(&plan);
        assert_eq!(report.operation, operation.name());
        assert!(report.operations > 0, "{operation:?}");
        assert_eq!((report.errors, report.unsent), (0, 0), "{operation:?}");
        assert!(report.latency_us.p50 > 0.0 && report.latency_us.max >= report.latency_us.p50);
        let done = match operation {
            Operation::Put | Operation::Txn => server.puts.load(Ordering::Relaxed),
            Operation::Get | Operation::Range => server.gets.load(Ordering::Relaxed),
            Operation::Mixed => {
                server.puts.load(Ordering::Relaxed) + server.gets.load(Ordering::Relaxed)
            }
        };
        assert!(done >= report.operations, "{operation:?}: {done} of {}", report.operations);
        let filled = told.iter().any(|told| matches!(told, Progress::FillBegins { .. }));
        assert_eq!(filled, operation.reads(), "{operation:?}: reads need keys");
        assert!(!told.iter().any(|told| matches!(told, Progress::Warning(_))), "{operation:?}");
        // The fake server is a thread of this process, which is on this machine.
        assert!(report.generator_cpu_us_per_operation.is_some());
    }
}

#[test]
fn a_key_space_is_filled_once_and_completely() {
    let server = FakeServer::start(Manners { refuse_each: 7, ..Manners::default() });
    let plan = plan(&server, Operation::Get);
    let (_, told) = run(&plan);
    let begins = told.iter().find_map(|told| match told {
        Progress::FillBegins { found, keys } => Some((*found, *keys)),
        _ => None,
    });
    assert_eq!(begins, Some((0, 500)));
    assert_eq!(server.puts.load(Ordering::Relaxed), 500, "refused writes were done again");
    let (_, told) = run(&plan);
    assert!(!told.iter().any(|told| matches!(told, Progress::FillBegins { .. })), "{told:?}");
}

#[test]
fn refusals_are_errors_and_their_reason_is_told() {
    let server = FakeServer::start(Manners { refuse_each: 10, ..Manners::default() });
    let (report, told) = run(&plan(&server, Operation::Put));
    let share = report.errors * 100 / (report.errors + report.operations);
    assert!((5..=15).contains(&share), "{share} % were refused");
    let warned = told
        .iter()
        .any(|told| matches!(told, Progress::Warning(Warning::Refused(wire::Status::Overloaded))));
    assert!(warned);
}

#[test]
fn lost_connections_are_opened_again() {
    let server = FakeServer::start(Manners { close_after: 100, ..Manners::default() });
    let mut plan = plan(&server, Operation::Put);
    plan.duration = Duration::from_millis(700);
    plan.warm_up = Duration::ZERO;
    let (report, told) = run(&plan);
    assert!(report.errors > 0);
    assert!(report.operations > 4 * 100, "{} operations", report.operations);
    assert!(told.iter().any(|told| matches!(told, Progress::Warning(Warning::Lost))));
}

#[test]
fn connections_are_spread_over_all_servers() {
    let servers = [(); 3].map(|()| FakeServer::start(Manners::default()));
    for threads in [1, 2] {
        let mut plan = plan(&servers[0], Operation::Put);
        plan.addresses = servers.iter().map(|server| server.address).collect();
        (plan.connections, plan.threads) = (6, threads);
        let before = servers.each_ref().map(|server| server.puts.load(Ordering::Relaxed));
        let (report, told) = run(&plan);
        assert_eq!((report.servers, report.errors), (3, 0));
        assert!(report.to_string().contains("3 servers"), "{report}");
        let done: Vec<u64> = servers
            .iter()
            .zip(before)
            .map(|(server, before)| server.puts.load(Ordering::Relaxed) - before)
            .collect();
        assert!(done.iter().all(|done| *done > 0), "{done:?}");
        assert!(done.iter().sum::<u64>() >= report.operations);
        assert!(!told.iter().any(|told| matches!(told, Progress::Warning(_))));
        // All of them are threads of this process: its CPU time counts once.
        assert!(report.server_cpu_us_per_operation.is_some());
    }
}

/// Connections to a server that had gone were opened to the same address until the run broke off.
#[test]
fn connections_move_on_when_a_server_goes() {
    let stays = FakeServer::start(Manners::default());
    let goes = FakeServer::start(Manners { end_after: 200, ..Manners::default() });
    let mut plan = plan(&stays, Operation::Put);
    plan.addresses = vec![goes.address, stays.address];
    (plan.warm_up, plan.duration) = (Duration::ZERO, Duration::from_millis(1_500));
    let (report, told) = run(&plan);
    assert!(told.iter().any(|told| matches!(told, Progress::Warning(Warning::Lost))), "{told:?}");
    assert!(goes.puts.load(Ordering::Relaxed) <= 200);
    // What was in flight is lost, and nothing after it: connections of the one that went came over.
    assert!(report.errors <= 4, "{} errors", report.errors);
    assert!(report.operations > 400, "{} operations", report.operations);
    assert_eq!(stays.connections.load(Ordering::Relaxed), 4);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = FakeServer::start(Manners::default());
    for (threads, rate) in [(1, 2_000), (3, 2_000), (1, 100)] {
        let mut plan = plan(&server, Operation::Put);
        plan.rate = Some(rate);
        plan.threads = threads;
        plan.duration = Duration::from_millis(500);
        let (report, _) = run(&plan);
        let expected = rate / 2;
        // What was due just before the end may be answered just behind it on a busy machine.
        let seen = report.operations + report.unsent;
        assert!(
            seen >= expected * 8 / 10 && seen <= expected + expected / 50 + 3,
            "{seen} of {expected}"
        );
        // Each one that was due is a latency; threads round their shares of the rate.
        assert!(report.latencies.len().abs_diff(expected) <= 3, "{}", report.latencies.len());
    }
}

#[test]
fn a_plan_beyond_what_the_server_grants_is_refused_with_the_limit() {
    let server = FakeServer::start(Manners::default());
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan(&server, Operation::Put);
        change(&mut plan);
        match bench::run(&plan, &mut |_| ()) {
            Err(Error::Plan(text)) => text,
            other => panic!("expected a refused plan: {other:?}"),
        }
    };
    assert!(refused(&|plan| plan.depth = 1_025).contains("1024"));
    assert!(refused(&|plan| plan.value_size = 2 << 20).contains("1572864"));
    assert!(refused(&|plan| plan.key_size = 4_096).contains("2048"));
    refused(&|plan| plan.depth = 0);
    refused(&|plan| plan.connections = 0);
    refused(&|plan| plan.rate = Some(0));
    let mut plan = plan(&server, Operation::Put);
    plan.keys = 0;
    assert!(matches!(bench::run(&plan, &mut |_| ()), Err(Error::Keys(_))));
}

#[test]
fn no_server_is_a_connection_error() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = FakeServer {
        address,
        puts: Default::default(),
        gets: Default::default(),
        connections: Default::default(),
    };
    let error = bench::run(&plan(&server, Operation::Put), &mut |_| ()).expect_err("nobody there");
    assert!(matches!(error, Error::Handshake(HandshakeError::Connect(..))), "{error}");
}

#[test]
fn the_server_process_is_found_and_its_cpu_time_reported() {
    let server = FakeServer::start(Manners::default());
    let (report, _) = run(&plan(&server, Operation::Put));
    assert!(report.server_cpu_us_per_operation.is_some());
    assert!(report.server_resident_size.is_some_and(|size| size > 0));
}

#[test]
#[ignore = "a measurement, not a test"]
fn how_light_the_generator_is() {
    let server = FakeServer::start(Manners::default());
    for (connections, depth) in [(1, 1), (64, 1), (1_000, 1), (64, 16)] {
        for operation in [Operation::Put, Operation::Get] {
            let mut plan = plan(&server, operation);
            plan.connections = connections;
            plan.depth = depth;
            plan.keys = 100_000;
            plan.value_size = 256;
            plan.warm_up = Duration::from_millis(500);
            plan.duration = Duration::from_secs(3);
            let (report, _) = run(&plan);
            // Generator and server are one process here; the threads' own times are in /proc.
            println!("{report}\n");
        }
    }
}
