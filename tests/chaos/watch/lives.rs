//! Lives of leases as their clients saw them, and whether each ended when it should. Pure; times are
//! nanoseconds of the run, all of one clock.
//!
//! ```text
//!          sent   received                  seen to have ended
//!  grant ──┤       │                             ▼
//!  renewal ───┤     │── TTL ──┤── allowed ──┤    here: late
//!             └─────── TTL ──┤  earlier than this: early
//! ```
//!
//! **Early** is an end before the sending of the last answered renewal, or of the grant, plus TTL. **Late** is
//! an end after the answer of it plus TTL plus what is allowed: an election time-out and a second for each
//! change of leaders in its life, the time without a quorum, the time behind the lease's own for which the
//! machine's disk took no block or a member got no processor, and [`SLACK`] for load. A renewal that was not
//! answered may have been carried out for as long as the cluster was not well.

use std::collections::HashMap;

use crate::timeline::{Span, Timeline, end_of, overlap, union};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// What each change of leaders may cost a lease: an election time-out and a second.
pub const PER_CHANGE: u64 = 1_200 * MS;

/// What a loaded machine may cost: a request, an entry of the log, the end as it is seen.
pub const SLACK: u64 = 500 * MS;

/// How late a change of leaders may be seen.
const LEADER_SEEN: u64 = 300 * MS;

/// How a lease is kept alive, and comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Manner {
    /// By the client library, then let go.
    Kept,
    /// By hand, then let go.
    Hand,
    /// Not at all.
    LetGo,
    /// Revoked before its time.
    Revoked,
    /// Made by a put with a time to live.
    OfPut,
}

/// A lease.
#[derive(Clone, Debug)]
pub struct Life {
    /// How it is kept alive.
    pub manner: Manner,
    /// How long it lives without.
    pub ttl: u64,
    /// When the grant was sent.
    granted: u64,
    /// When the last renewal was sent that was answered, or the grant.
    sent: u64,
    /// When it was answered.
    received: u64,
    /// A renewal that was not answered may have been carried out until then.
    doubt: u64,
    /// A renewal was told that there is no such lease.
    gone: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    lives: HashMap<i64, Life>,
    /// Renewals that were answered.
    pub renewals: u64,
}

/// What is known of the ends of leases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Leases, and those of them that ended by their time.
    pub lives: usize,
    /// Ended by their time and judged.
    pub expired: usize,
    /// Of these, lives in which a renewal was not answered.
    pub in_doubt: usize,
    /// The least time by which one ended after it might have: none is negative.
    pub margin: Option<i64>,
    /// The greatest time by which one outlived its time, no leader having changed and no quorum lost.
    pub late_in_peace: Option<i64>,
    /// The same where leaders have changed, and a quorum was always there.
    pub late_in_changes: Option<i64>,
    /// The same where it was not.
    pub late_without_quorum: Option<i64>,
    /// The least of what was left of the bound.
    pub spare: Option<i64>,
    /// Ended later than allowed but for what the machine did.
    pub excused: usize,
    /// What is wrong.
    pub violations: Vec<String>,
}

fn between(later: u64, earlier: u64) -> i64 {
    let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    signed(later).saturating_sub(signed(earlier))
}

fn least(known: &mut Option<i64>, new: i64) {
    *known = Some(known.map_or(new, |known| known.min(new)));
}

fn most(known: &mut Option<i64>, new: i64) {
    *known = Some(known.map_or(new, |known| known.max(new)));
}

impl Lives {
    /// A lease was granted by a request of these times.
    pub fn granted(&mut self, lease: i64, manner: Manner, ttl: u64, (sent, received): Span) {
        let (granted, doubt) = (sent, 0);
        self.lives.insert(lease, Life { manner, ttl, granted, sent, received, doubt, gone: None });
    }

    /// A lease, if there was one.
    pub fn get(&self, lease: i64) -> Option<&Life> {
        self.lives.get(&lease)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.lives.len()
    }

    /// A renewal of these times was answered with a time to live.
    pub fn renewed(&mut self, lease: i64, (sent, received): Span) {
        let Some(life) = self.lives.get_mut(&lease) else { return };
        if sent > life.sent {
            self.renewals += 1;
            life.sent = sent;
            life.received = life.received.max(received);
        }
    }

    /// A renewal has no answer, or may have had none: it may be carried out until then.
    pub fn doubted(&mut self, lease: i64, until: u64) {
        let Some(life) = self.lives.get_mut(&lease) else { return };
        life.doubt = life.doubt.max(until);
    }

    /// A renewal was told that there is no such lease.
    pub fn gone(&mut self, lease: i64, received: u64) {
        let Some(life) = self.lives.get_mut(&lease) else { return };
        life.gone.get_or_insert(received);
    }

    /// Judges all ends. `ended`: leases whose time was up, with the revision and when somebody was first
    /// told of it.
    pub fn judge(&self, ended: &[(i64, i64, Option<u64>)], timeline: &Timeline) -> Report {
        let mut report = Report { lives: self.lives.len(), ..Report::default() };
        let (harmed, without_quorum) = (timeline.harmed(), timeline.without_quorum());
        let machine = union(timeline.stalls(), timeline.waits());
        for (revision, lease, seen) in ended {
            let Some(life) = self.lives.get(lease) else {
                report.violations.push(format!("lease {lease}, of nobody, ended at {revision}"));
                continue;
            };
            let seen = [*seen, life.gone].into_iter().flatten().min();
            let Some(seen) = seen else {
                let text = format!("nobody was told of the end of lease {lease} at {revision}");
                report.violations.push(text);
                continue;
            };
            report.expired += 1;
            let margin = between(seen, life.sent + life.ttl);
            least(&mut report.margin, margin);
            if margin < 0 {
                report.violations.push(format!(
                    "EARLY: lease {lease} ended at revision {revision} {} ms before its time: {life:?}, seen at \
                     {seen}",
                    margin as f64 / -1e6
                ));
            }
            let mut base = life.received;
            if life.doubt > base {
                report.in_doubt += 1;
                base = end_of(life.doubt, &harmed);
            }
            if base == u64::MAX {
                continue;
            }
            let late = between(seen, base + life.ttl);
            let changes = timeline.changes((life.granted, seen.saturating_add(LEADER_SEEN)));
            let lost = overlap((life.granted, seen), &without_quorum);
            let stalled = overlap((base + life.ttl, seen), &machine);
            let allowed = changes * PER_CHANGE + lost + stalled + SLACK;
            let greatest = match (changes, lost) {
                (0, 0) => &mut report.late_in_peace,
                (_, 0) => &mut report.late_in_changes,
                _ => &mut report.late_without_quorum,
            };
            most(greatest, late);
            let spare = between(allowed, 0) - late;
            report.excused += usize::from(spare >= 0 && between(allowed - stalled, 0) < late);
            least(&mut report.spare, spare);
            if spare < 0 {
                report.violations.push(format!(
                    "LATE: lease {lease} ended at revision {revision} {} ms after its time; allowed were {} ms for \
                     {changes} changes of leaders, {} ms without a quorum and {} ms of a machine that stood still: \
                     {life:?}, seen at {seen}",
                    late as f64 / 1e6,
                    allowed as f64 / 1e6,
                    lost as f64 / 1e6,
                    stalled as f64 / 1e6
                ));
            }
        }
        // One that is gone for a renewal, and whose end nobody else was told of: its keys had gone before.
        for (lease, life) in &self.lives {
            let Some(gone) = life.gone.filter(|_| life.manner != Manner::Revoked) else { continue };
            if gone < life.sent + life.ttl {
                report.violations.push(format!(
                    "EARLY: a renewal of lease {lease} was told that it is gone, before its time: {life:?}"
                ));
            }
        }
        report
    }
}
