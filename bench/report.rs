//! The figures of one run, as an object for programs and as lines for people.
//!
//! ```text
//! { "operation": "put", "connections": 64, "depth": 1, "seconds": 4.0, "operations": 412345,
//!   "errors": 0, "per_second": 103086.2,
//!   "latency_us": { "p50": 580.1, "p90": .., "p99": .., "p999": .., "p9999": .., "max": .. },
//!   "server_cpu_us_per_operation": 7.9 or null,
//!   ...what the run was besides: "rate", "keys", "key_size", "value_size", ... }
//! ```
//!
//! These names are an interface: fields may be added, none may change.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::number::float;

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyMicroseconds {
    /// Half of the operations were at most this slow.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The slowest.
    pub max: f64,
}

impl LatencyMicroseconds {
    /// The percentiles of `latencies`, which are in nanoseconds. All 0 where there are none.
    pub fn of(latencies: &Histogram<u64>) -> Self {
        let at = |quantile| microseconds(latencies.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: microseconds(latencies.max()),
        }
    }
}

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was done: put, get, range, txn, mixed or disk.
    pub operation: String,
    /// Servers over which the connections are spread; 0 for the disk.
    pub servers: usize,
    /// Connections, to all servers together; 1 for the disk.
    pub connections: usize,
    /// Operations in flight on each connection.
    pub depth: usize,
    /// Length of the measured window, without warm-up.
    pub seconds: f64,
    /// Operations answered well in the window.
    pub operations: u64,
    /// Operations refused or lost.
    pub errors: u64,
    /// Operations per second of the window.
    pub per_second: f64,
    /// Latencies; in an open loop from the time at which each operation was due.
    pub latency_us: LatencyMicroseconds,
    /// CPU time of the servers' processes per operation, added up; none where one is not on this
    /// machine.
    pub server_cpu_us_per_operation: Option<f64>,
    /// CPU time of the threads of load per operation.
    pub generator_cpu_us_per_operation: Option<f64>,
    /// Resident memory of the servers' processes at the end, in bytes, added up.
    pub server_resident_size: Option<u64>,
    /// Operations per second that an open loop wanted; none for a closed loop.
    pub rate: Option<u64>,
    /// Operations of an open loop that were due and never sent; they are in the latencies.
    pub unsent: u64,
    /// Keys of the key space; 0 for the disk.
    pub keys: u64,
    /// Bytes of a key; 0 for the disk.
    pub key_size: usize,
    /// Bytes of a value; bytes of a write for the disk.
    pub value_size: usize,
    /// uniform or zipf; none for the disk.
    pub distribution: Option<&'static str>,
    /// Whether reads were serializable, that is without asking for the newest state.
    pub serializable: bool,
    /// The latencies in nanoseconds, for plots.
    #[serde(skip)]
    pub latencies: Histogram<u64>,
}

impl Report {
    /// The object, on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text alone: nothing to refuse")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} connections x depth {}", self.operation, self.connections, self.depth)?;
        if self.servers > 1 {
            write!(f, ", {} servers", self.servers)?;
        }
        if let Some(rate) = self.rate {
            write!(f, ", open loop at {rate}/s")?;
        }
        writeln!(f, ", {:.2} s", self.seconds)?;
        writeln!(f, "  throughput   {:>12.0} operations/s", self.per_second)?;
        write!(f, "  operations   {:>12}   errors {}", self.operations, self.errors)?;
        if self.unsent > 0 {
            write!(f, "   due but never sent {}", self.unsent)?;
        }
        let us = self.latency_us;
        writeln!(
            f,
            "\n  latency (us)  p50 {:.1}   p90 {:.1}   p99 {:.1}   p99.9 {:.1}   p99.99 {:.1}   \
             max {:.1}",
            us.p50, us.p90, us.p99, us.p999, us.p9999, us.max
        )?;
        match self.server_cpu_us_per_operation {
            Some(cpu) => write!(f, "  server CPU   {cpu:>12.2} us/operation")?,
            None => write!(f, "  server CPU        unknown (no server process on this machine)")?,
        }
        if let Some(cpu) = self.generator_cpu_us_per_operation {
            write!(f, "   generator {cpu:.2} us/operation")?;
        }
        Ok(())
    }
}

/// CPU time per operation in microseconds; none without operations.
pub fn cpu_per_operation(used: Option<Duration>, operations: u64) -> Option<f64> {
    let used = used?;
    (operations > 0).then(|| round(used.as_secs_f64() * 1e6 / float(operations)))
}

/// Operations per second.
pub fn per_second(operations: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { round(float(operations) / seconds) } else { 0.0 }
}

fn microseconds(nanoseconds: u64) -> f64 {
    round(float(nanoseconds) / 1e3)
}

/// Three decimals: what a measurement can carry, and short to print.
fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with latencies of 1 to 1,000 us.
    pub(crate) fn example() -> Report {
        let mut latencies =
            Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3).expect("bounds");
        for microseconds in 1..=1_000 {
            latencies.record(microseconds * 1_000).expect("in bounds");
        }
        Report {
            operation: "put".into(),
            servers: 1,
            connections: 64,
            depth: 1,
            seconds: 4.0,
            operations: 1_000,
            errors: 2,
            per_second: per_second(1_000, 4.0),
            latency_us: LatencyMicroseconds::of(&latencies),
            server_cpu_us_per_operation: None,
            generator_cpu_us_per_operation: Some(1.5),
            server_resident_size: None,
            rate: None,
            unsent: 0,
            keys: 100,
            key_size: 16,
            value_size: 256,
            distribution: Some("uniform"),
            serializable: false,
            latencies,
        }
    }

    #[test]
    fn the_json_object_has_the_promised_names_and_kinds() {
        let object: serde_json::Value = serde_json::from_str(&example().to_json()).expect("json");
        let names: Vec<&str> =
            object.as_object().expect("an object").keys().map(String::as_str).collect();
        for name in [
            "operation",
            "connections",
            "depth",
            "seconds",
            "operations",
            "errors",
            "per_second",
            "latency_us",
            "server_cpu_us_per_operation",
        ] {
            assert!(names.contains(&name), "{name} is missing");
        }
        assert_eq!(object["operation"], "put");
        assert_eq!(object["operations"], 1_000);
        assert_eq!(object["per_second"], 250.0);
        assert!(object["server_cpu_us_per_operation"].is_null());
        let latency = object["latency_us"].as_object().expect("an object");
        assert_eq!(latency.len(), 6);
        for (name, expected) in
            [("p50", 500.0), ("p90", 900.0), ("p99", 990.0), ("p999", 999.0), ("max", 1_000.0)]
        {
            let seen = latency[name].as_f64().expect("a number");
            assert!((seen / expected - 1.0).abs() < 0.002, "{name}: {seen}");
        }
        assert!(latency["p9999"].is_number());
    }

    #[test]
    fn cpu_per_operation_is_unknown_without_operations_or_process() {
        assert_eq!(cpu_per_operation(Some(Duration::from_millis(10)), 1_000), Some(10.0));
        assert_eq!(cpu_per_operation(Some(Duration::from_millis(10)), 0), None);
        assert_eq!(cpu_per_operation(None, 10), None);
    }
}
