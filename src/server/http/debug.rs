//! What `/debug` says: how the process was started, what it uses, and how calls fare. It may be left on: it shows
//! nothing of what clients store or ask for, changes nothing, and costs a few reads of the system.

use std::fmt::Write as _;
use std::rc::Rc;

use super::Gate;
use super::calls::METHODS;
use crate::counters::{Times, bucket_end};
use crate::log::quoted;
use crate::process::Process;

/// `/debug/vars`.
pub fn variables(gate: &Rc<Gate>) -> String {
    let known = Process::look();
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| quoted(&argument.to_string_lossy())).collect();
    let number = |number: Option<u64>| number.map_or("null".into(), |number| number.to_string());
    let started = gate.board.sum_methods(|method| &method.started);
    format!(
        "{{\"cmdline\":[{}],\"version\":{},\"etcd_version\":{},\"pid\":{},\
         \"file_descriptor_limit\":{},\"file_descriptors\":{},\"resident_bytes\":{},\
         \"connections\":{},\"watch_streams\":{},\"calls_started\":{started}}}\n",
        arguments.join(","),
        quoted(env!("CARGO_PKG_VERSION")),
        quoted(etcd::VERSION),
        std::process::id(),
        number(known.files_max),
        number(known.open_files),
        number(known.resident_bytes),
        gate.connections.get(),
        gate.board.sum(|all| &all.watch_streams),
    )
}

/// `/debug/requests`: a line for each method that was called since the start.
pub fn requests(gate: &Rc<Gate>) -> String {
    let mut text = String::from(
        "method                              started   running    failed     p50 ms     p99 ms     max ms\n",
    );
    for (place, (service, name, _)) in METHODS.iter().enumerate() {
        let started = gate.board.sum(|all| &all.methods[place].started);
        if started == 0 {
            continue;
        }
        let handled = |codes: std::ops::Range<usize>| -> u64 {
            codes.map(|code| gate.board.sum(|all| &all.methods[place].handled[code])).sum()
        };
        let codes = super::CODES;
        let running = started.saturating_sub(handled(0..codes));
        let failed = handled(1..codes);
        let times = gate.board.times(|all| &all.methods[place].times);
        let short = service.rsplit('.').next().unwrap_or(service);
        let method = format!("{short}/{name}");
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| milliseconds(&times, part));
        // A String takes everything.
        let _ = writeln!(
            text,
            "{method:<32} {started:>10} {running:>9} {failed:>9} {p50:>10.3} {p99:>10.3} {max:>10.3}"
        );
    }
    text
}

/// The time within which this part of the calls ended, to a quarter of a power of two.
fn milliseconds(times: &Times, part: f64) -> f64 {
    let (count, mut below) = (times.count() as f64, 0);
    for (bucket, many) in times.buckets.iter().enumerate() {
        below += many;
        if below > 0 && below as f64 >= count * part {
            return bucket_end(bucket) as f64 / 1e3;
        }
    }
    0.0
}
