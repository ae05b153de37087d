//! Leases under load: what keeping many alive costs the server, and what their end does to writes beside it.
//!
//! ```text
//! grants ─► puts beside renewals, each lease once in a third of its time ─► no renewals: puts while all end
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use serde::Serialize;
use wire::{Call, LeaseGrant, LeaseKeepAlive, LeaseList, Numbers, Put, Reply};

use crate::link::Link;
use crate::number::{float, nanoseconds};
use crate::process::Process;
use crate::report::LatencyMicroseconds;
use crate::watch::{WatchError, cpu, processes, resident};

/// Requests on their way while leases are granted.
const OPENING_MAX: usize = 512;

/// Shorter ones would end while they are renewed one after the other.
const TTL_MIN: Duration = Duration::from_millis(500);

/// Leases that one request keeps alive.
const KEEP_ALIVE: usize = 500;

/// Puts before, in the middle of, and behind the end of all leases are looked at for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run is asked to be.
#[derive(Clone, Debug)]
pub struct LeasePlan {
    /// The servers, at least 1; the first takes everything.
    pub addresses: Vec<SocketAddr>,
    /// Leases.
    pub leases: usize,
    /// How long each lives.
    pub ttl: Duration,
    /// Whether a key hangs on each.
    pub keys: bool,
    /// Puts in flight.
    pub writers: usize,
    /// Length of the measurement beside renewals.
    pub duration: Duration,
}

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct LeaseReport {
    /// Always `lease`.
    pub operation: &'static str,
    /// Leases.
    pub leases: usize,
    /// Leases granted in a second.
    pub grants_per_second: f64,
    /// Resident memory of the server for a lease, in bytes.
    pub server_bytes_per_lease: Option<f64>,
    /// Renewals in a second while they were measured.
    pub renewals_per_second: f64,
    /// Part of one core that the server used for renewals alone: without puts.
    pub server_cores_for_renewals: Option<f64>,
    /// Puts in a second beside renewals.
    pub puts_per_second: f64,
    /// Their latency.
    pub put_latency_us: LatencyMicroseconds,
    /// Seconds from the first lease's end to the last one's.
    pub expiry_seconds: f64,
    /// Puts in a second meanwhile.
    pub puts_per_second_at_expiry: f64,
    /// Their latency.
    pub put_latency_us_at_expiry: LatencyMicroseconds,
}

impl LeaseReport {
    /// The object, on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text alone: nothing to refuse")
    }
}

impl fmt::Display for LeaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lease: {} leases", self.leases)?;
        writeln!(f, "  grants       {:>12.0} /s", self.grants_per_second)?;
        if let Some(bytes) = self.server_bytes_per_lease {
            writeln!(f, "  memory       {bytes:>12.0} bytes of the server for a lease")?;
        }
        if let Some(cores) = self.server_cores_for_renewals {
            writeln!(f, "  renewals     {cores:>12.4} cores of the server, without puts")?;
        }
        let line = |f: &mut fmt::Formatter<'_>, name, per_second: f64, us: &LatencyMicroseconds| {
            writeln!(
                f,
                "  {name:<12} {per_second:>12.0} puts/s   p50 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0} us",
                us.p50, us.p99, us.p999, us.max
            )
        };
        let per_second = self.renewals_per_second;
        writeln!(f, "  renewals     {per_second:>12.0} /s beside puts")?;
        line(f, "beside", self.puts_per_second, &self.put_latency_us)?;
        writeln!(f, "  their end    {:>12.3} s for all", self.expiry_seconds)?;
        line(f, "meanwhile", self.puts_per_second_at_expiry, &self.put_latency_us_at_expiry)
    }
}

struct Run<'p> {
    plan: &'p LeasePlan,
    poll: Poll,
    events: Events,
    origin: Instant,
    link: Link,
    /// What was asked and when, by request.
    sent: VecDeque<(u64, u64)>,
    next: u64,
    granted: Vec<i64>,
    puts: u64,
    renewed: u64,
    lost: u64,
    latencies: Histogram<u64>,
    /// When leases were renewed last while they were granted.
    renewed_at: Instant,
    /// The last answer to a list: the first lease behind the place that was asked for.
    listed: Option<Option<i64>>,
}

/// Runs `plan`.
///
/// # Errors
/// The plan cannot be carried out, or the server is away or refuses.
pub fn run(plan: &LeasePlan, tell: &mut dyn FnMut(&str)) -> Result<LeaseReport, WatchError> {
    let refuse = |text: &str| Err(WatchError::Plan(text.into()));
    if plan.addresses.is_empty() || plan.leases == 0 || plan.writers == 0 {
        return refuse("servers, leases and writers must be more than 0");
    }
    if plan.duration.is_zero() || plan.ttl < TTL_MIN {
        return refuse("the duration must be more than 0, and a lease lives at least 500 ms");
    }
    let poll = Poll::new()?;
    let link = Link::open(plan.addresses[0], &poll, Token(0))?;
    let servers = processes(&plan.addresses);
    let latencies = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("in order");
    let mut run = Run {
        plan,
        poll,
        events: Events::with_capacity(64),
        origin: Instant::now(),
        link,
        sent: VecDeque::new(),
        next: 1,
        granted: Vec::new(),
        puts: 0,
        renewed: 0,
        lost: 0,
        latencies,
        renewed_at: Instant::now(),
        listed: None,
    };
    tell("granting");
    let before = resident(&servers);
    let began = Instant::now();
    run.grant_all()?;
    let grants_per_second = float(plan.leases as u64) / began.elapsed().as_secs_f64();
    let grown = resident(&servers).zip(before).map(|(now, then)| now.saturating_sub(then));
    tell("renewing");
    let alone = run.renewing(plan.duration, false, &servers)?;
    tell("renewing beside puts");
    run.latencies.reset();
    (run.puts, run.renewed) = (0, 0);
    run.renewing(plan.duration, true, &servers)?;
    let seconds = plan.duration.as_secs_f64();
    let (puts, renewed) = (run.puts, run.renewed);
    let put_latency_us = LatencyMicroseconds::of(&run.latencies);
    if run.lost > 0 {
        let text = format!("{} renewals were of leases that had gone", run.lost);
        return Err(WatchError::Refused(wire::Status::LeaseNotFound, text));
    }
    tell("waiting for their end");
    let (expiry_seconds, at_expiry) = run.expiry()?;
    Ok(LeaseReport {
        operation: "lease",
        leases: plan.leases,
        grants_per_second,
        server_bytes_per_lease: grown.map(|bytes| float(bytes) / float(plan.leases as u64)),
        renewals_per_second: float(renewed) / seconds,
        server_cores_for_renewals: alone,
        puts_per_second: float(puts) / seconds,
        put_latency_us,
        expiry_seconds,
        puts_per_second_at_expiry: float(at_expiry) / expiry_seconds.max(1e-9),
        put_latency_us_at_expiry: LatencyMicroseconds::of(&run.latencies),
    })
}

impl Run<'_> {
    fn ask(&mut self, call: &Call<'_>) -> Result<(), WatchError> {
        let request = self.next;
        self.next += 1;
        self.sent.push_back((request, nanoseconds(self.origin.elapsed())));
        self.link
            .queue(request, call)
            .map_err(|error| WatchError::Plan(format!("such a request cannot be sent: {error}")))
    }

    fn take(&mut self, wait: Duration) -> Result<(), WatchError> {
        self.link.flush()?;
        self.poll.poll(&mut self.events, Some(wait)).or_else(|error| {
            if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
        })?;
        self.link.flush()?;
        let Self { link, sent, granted, puts, renewed, lost, latencies, listed, origin, .. } = self;
        let mut refused = None;
        link.receive(&mut |header, body| {
            let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let request = header.request.get();
            let place = sent.iter().position(|(own, _)| *own == request);
            let asked = place.and_then(|place| sent.remove(place));
            match Reply::verify(&header, body).map_err(bad)? {
                Reply::LeaseGrant(reply) => granted.push(reply.lease),
                Reply::LeaseKeepAlive(reply) => {
                    *renewed += reply.ttls_ms.len() as u64;
                    *lost += reply.ttls_ms.iter().filter(|ttl| *ttl == 0).count() as u64;
                }
                Reply::LeaseList(reply) => *listed = Some(reply.leases.iter().next()),
                Reply::Put(_) => {
                    *puts += 1;
                    if let Some((_, time)) = asked {
                        let taken = nanoseconds(origin.elapsed()).saturating_sub(time);
                        let _ = latencies.record(taken.max(1));
                    }
                }
                Reply::Refused(text) => {
                    refused.get_or_insert((text.status, text.message.to_owned()));
                }
                _ => {}
            }
            Ok(())
        })?;
        refused.map_or(Ok(()), |(status, message)| Err(WatchError::Refused(status, message)))
    }

    fn grant_all(&mut self) -> Result<(), WatchError> {
        let ttl_ms = u64::try_from(self.plan.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut asked = 0;
        let end = Instant::now() + PATIENCE;
        while self.granted.len() < self.plan.leases {
            while asked < self.plan.leases && self.sent.len() < OPENING_MAX {
                self.ask(&Call::LeaseGrant(LeaseGrant { lease: 0, ttl_ms }))?;
                asked += 1;
            }
            self.take(Duration::from_millis(50))?;
            self.renew_meanwhile()?;
            if Instant::now() > end {
                return Err(WatchError::Silent("leases were granted"));
            }
        }
        let mut hung = 0;
        while self.plan.keys && (hung < self.granted.len() || !self.sent.is_empty()) {
            while hung < self.granted.len() && self.sent.len() < OPENING_MAX {
                let key = format!("lease/{hung:08}").into_bytes();
                let lease = self.granted[hung];
                self.ask(&Call::Put(Put { lease, ..Put::new(&key, b"held") }))?;
                hung += 1;
            }
            self.take(Duration::from_millis(50))?;
            self.renew_meanwhile()?;
        }
        // What comes after begins with the first ones.
        self.renewed_at -= self.plan.ttl;
        self.renew_meanwhile()
    }

    /// Renews those that there are by now, in a third of their time: granting takes longer than they live
    /// where there are many.
    fn renew_meanwhile(&mut self) -> Result<(), WatchError> {
        if self.renewed_at.elapsed() < self.plan.ttl / 3 {
            return Ok(());
        }
        self.renewed_at = Instant::now();
        let granted = std::mem::take(&mut self.granted);
        for leases in granted.chunks(KEEP_ALIVE) {
            self.ask(&Call::LeaseKeepAlive(LeaseKeepAlive { leases: Numbers::Given(leases) }))?;
        }
        self.granted = granted;
        Ok(())
    }

    /// Puts, as many as may be in flight.
    fn write(&mut self, renewals: usize) -> Result<(), WatchError> {
        while self.sent.len() < self.plan.writers + renewals {
            let number = self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 100_000;
            let key = format!("beside/{number:08}").into_bytes();
            self.ask(&Call::Put(Put::new(&key, &[7; 256])))?;
        }
        Ok(())
    }

    /// Renews each lease once in a third of its time; what part of a core the server used.
    fn renewing(
        &mut self,
        duration: Duration,
        writes: bool,
        servers: &[Process],
    ) -> Result<Option<f64>, WatchError> {
        let used = cpu(servers);
        let began = Instant::now();
        let requests = self.granted.len().div_ceil(KEEP_ALIVE);
        let interval = self.plan.ttl / 3 / u32::try_from(requests).unwrap_or(u32::MAX).max(1);
        let mut done = 0_u32;
        while began.elapsed() < duration {
            while interval * done <= began.elapsed() {
                let first = usize::try_from(done).unwrap_or(0) % requests * KEEP_ALIVE;
                let last = (first + KEEP_ALIVE).min(self.granted.len());
                let leases = self.granted[first..last].to_vec();
                let leases = Numbers::Given(&leases);
                self.ask(&Call::LeaseKeepAlive(LeaseKeepAlive { leases }))?;
                done += 1;
            }
            if writes {
                self.write(1)?;
            }
            let next = (interval * done).saturating_sub(began.elapsed());
            self.take(next.min(Duration::from_millis(20)))?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let used = cpu(servers).zip(used).map(|(now, then)| now.saturating_sub(then));
        Ok(used.map(|used| used.as_secs_f64() / seconds))
    }

    /// Writes until all leases have ended; how long that took, and how many puts were answered in it.
    fn expiry(&mut self) -> Result<(f64, u64), WatchError> {
        // The first of them was renewed a third of the time ago at most.
        let quiet = self.plan.ttl.mul_f64(0.6);
        let began = Instant::now();
        while began.elapsed() < quiet {
            self.write(0)?;
            self.take(Duration::from_millis(20))?;
        }
        self.latencies.reset();
        self.puts = 0;
        let began = Instant::now();
        let mut asked_at = Instant::now();
        // The first of ours is behind this place. Others may have leases, too.
        let own: BTreeSet<i64> = self.granted.iter().copied().collect();
        let mut after_lease = own.first().map_or(0, |first| first - 1);
        loop {
            self.write(1)?;
            if asked_at.elapsed() > Duration::from_millis(50) {
                asked_at = Instant::now();
                self.ask(&Call::LeaseList(LeaseList { after_lease, limit: 1 }))?;
            }
            self.take(Duration::from_millis(20))?;
            match self.listed.take() {
                Some(Some(first)) if own.contains(&first) => {}
                Some(Some(first)) if own.last().is_some_and(|last| first < *last) => {
                    after_lease = first;
                }
                Some(_) => return Ok((began.elapsed().as_secs_f64(), self.puts)),
                None => {}
            }
            if began.elapsed() > self.plan.ttl + PATIENCE {
                return Err(WatchError::Silent("leases were to end"));
            }
        }
    }
}
