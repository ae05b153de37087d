//! What leases must do in real time (I13), as somebody sees it whose clock is right.
//!
//! - None ends before its time has gone by since its grant was sent, or the last keep-alive that was
//!   answered with a time. Members' clocks may run at another rate and leap: what they did of that is
//!   allowed for.
//! - The log time never goes back, and never gets ahead of the time that has gone by.
//! - Once all is well and somebody leads, none outlives its time by more than an election time-out and a
//!   second; see [`Leases::check_late`].

use std::collections::{BTreeMap, HashMap};

use crate::ghost::Verdict;
use crate::load::{Ask, Seen};
use crate::model::{Lease, Model};
use crate::plan::{MS, SECOND};
use crate::reign::Reign;

/// What is counted.
pub const LEASE_LIVES: &str = "lease expired";
pub const RENEWALS: &str = "renewals answered";

/// An election time-out and a second.
const GRACE: u64 = 1_200 * MS;

/// Time that clients have to come over to a new leader.
const COMES_OVER: u64 = 500 * MS;

/// How long a member may be on its own, about.
const UNHEARD: u64 = 15 * SECOND;

/// What a request, its entry and its answer take when all is well.
const SLACK: u64 = 400 * MS;

/// Log time that a hand-over may cost: what has gone by since the last heartbeat was sent.
const HAND_OVER: u64 = 150 * MS;

/// Leases that end before a run does.
pub const SHORT_MS: u64 = 8_000;

/// A lease as it was behind an entry: its time, and its keys.
type Known = BTreeMap<i64, (u64, Vec<Vec<u8>>)>;

/// An entry that has renewed leases.
struct Renewed {
    index: u64,
    revision: i64,
    /// Id, time, and the entry that made each.
    leases: Vec<(i64, u64, u64)>,
}

/// What is known of leases.
#[derive(Default)]
pub struct Leases {
    /// By id and the entry that made it: when what counts was sent.
    sent: HashMap<(i64, u64), u64>,
    /// When the entry was committed that made it, or renewed it last.
    renewed_at: HashMap<(i64, u64), u64>,
    /// When it was ended because its time was up, and its time.
    ended: HashMap<(i64, u64), (u64, u64)>,
    renewals: Vec<Renewed>,
    /// The leases behind each entry that has changed some, with the revision.
    history: Vec<(u64, i64, Known)>,
    /// Whether they are followed.
    pub is_on: bool,
    /// Leaps of clocks: when, and how far.
    pub leaps: Vec<(u64, u64)>,
    /// How much faster than they should clocks may run, in millionths.
    pub drift: u64,
    /// Starts of members: a clock begins with a millisecond.
    pub starts: u64,
    /// Since when somebody leads a term.
    pub leads_since: HashMap<u64, u64>,
    /// Lives that have come to their end, and renewals that were answered.
    pub lives: u64,
    pub renewals_answered: u64,
}

fn check(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl Leases {
    /// The most that the log time may have gone on since then. What the clock of a member did wrong while
    /// it heard of nobody comes into the log when it leads.
    fn counted(&self, since: u64, now: u64) -> u64 {
        let passed = now - since;
        let leaps = self.leaps.iter().filter(|(at, _)| at + UNHEARD >= since);
        let drift = (passed + UNHEARD) / 1_000_000 * self.drift;
        passed + drift + leaps.map(|(_, nanos)| *nanos).sum::<u64>() + self.starts * MS + 2 * MS
    }

    /// The log time of an entry.
    pub fn check_time(&self, time: u64, before: u64, now: u64) -> Verdict {
        check(time >= before, || format!("I13: the log time goes back from {before} to {time}"))?;
        let most = self.counted(0, now);
        check(time <= most, || format!("I13: the log time is {time}, {most} ns have gone by"))
    }

    /// An entry has made a lease.
    pub fn made(&mut self, id: i64, granted: u64, sent: u64, now: u64) {
        self.sent.insert((id, granted), sent);
        self.renewed_at.insert((id, granted), now);
    }

    /// An entry has renewed leases.
    pub fn renewed(&mut self, index: u64, revision: i64, leases: Vec<(i64, u64, u64)>, now: u64) {
        for (id, ttl_ms, granted) in &leases {
            if *ttl_ms > 0 {
                self.renewed_at.insert((*id, *granted), now);
            }
        }
        self.renewals.push(Renewed { index, revision, leases });
    }

    /// A lease has come to its end by an entry of this term.
    pub fn expired(&mut self, id: i64, lease: &Lease, term: u64, now: u64) -> Verdict {
        self.lives += 1;
        let since = self.leads_since.get(&term).copied().unwrap_or(0);
        check(self.counted(since, now) >= COMES_OVER, || {
            format!(
                "I13: lease {id} has ended {} ns after a leader of term {term} was there: nobody could \
                 come over and renew it",
                now - since
            )
        })?;
        let name = (id, lease.granted);
        self.ended.insert(name, (now, lease.ttl_ms));
        let sent = self.sent.get(&name).copied().unwrap_or(now);
        self.check_early(name, sent, now, lease.ttl_ms)
    }

    fn check_early(&self, name: (i64, u64), sent: u64, ended: u64, ttl_ms: u64) -> Verdict {
        check(self.counted(sent, ended) >= ttl_ms * MS, || {
            format!(
                "I13: lease {name:?} of {ttl_ms} ms has ended {} ns after the client sent its grant or \
                 keep-alive",
                ended - sent
            )
        })
    }

    /// Notes what leases there are behind an entry.
    pub fn note(&mut self, index: u64, model: &Model) {
        if !self.is_on {
            return;
        }
        let mut keys = model.keys_by_lease();
        let known = |(id, lease): (&i64, &Lease)| {
            (*id, (lease.ttl_ms, keys.remove(id).unwrap_or_default()))
        };
        let known = model.leases.iter().map(known).collect();
        let last = self.history.last();
        if last.is_none_or(|(_, revision, last)| (*revision, last) != (model.revision, &known)) {
            self.history.push((index, model.revision, known));
        }
    }

    /// An answer about leases, to what was asked at `at` when the log had `behind` entries.
    pub fn answered(&mut self, ask: &Ask, seen: &Seen, (at, behind): (u64, u64)) -> Verdict {
        match (ask, seen) {
            (Ask::KeepAlive(ids), Seen::Renewed { revision, ttls_ms }) => {
                check(ids.len() == ttls_ms.len(), || "not one answer for each".to_string())?;
                let told = || ids.iter().zip(ttls_ms);
                let says = |renewed: &&Renewed| {
                    let has = |(id, ttl_ms): (&i64, &u64)| {
                        let mut leases = renewed.leases.iter();
                        leases.any(|(other, ttl, _)| (other, ttl) == (id, ttl_ms))
                    };
                    renewed.index > behind && renewed.revision == *revision && told().all(has)
                };
                let Some(entry) = self.renewals.iter().find(says) else {
                    return Err("no entry says so".to_string());
                };
                self.renewals_answered += 1;
                let names = entry.leases.iter().filter(|(id, ttl, _)| *ttl > 0 && ids.contains(id));
                let names: Vec<(i64, u64)> =
                    names.map(|(id, _, granted)| (*id, *granted)).collect();
                for name in names {
                    let sent = self.sent.entry(name).or_insert(at);
                    *sent = (*sent).max(at);
                    let sent = *sent;
                    if let Some((ended, ttl_ms)) = self.ended.get(&name).copied() {
                        self.check_early(name, sent.min(ended), ended, ttl_ms)?;
                    }
                }
                Ok(())
            }
            (
                Ask::TimeToLive { lease, keys: with_keys, after, limit },
                Seen::Lease { revision, granted_ms, left_ms, count, more, keys },
            ) => {
                check(left_ms <= granted_ms, || "more left than it was given".to_string())?;
                self.some_state(behind, *revision, |known| {
                    let Some((ttl_ms, all)) = known.get(lease) else {
                        return (*granted_ms, *left_ms, *count, *more) == (0, 0, 0, false)
                            && keys.is_empty();
                    };
                    let wanted: Vec<&Vec<u8>> =
                        all.iter().filter(|key| *with_keys && *key > after).collect();
                    let limit = if *limit == 0 { usize::MAX } else { *limit as usize };
                    granted_ms == ttl_ms
                        && usize::try_from(*count) == Ok(all.len())
                        && *more == (wanted.len() > limit)
                        && wanted.iter().take(limit).copied().eq(keys)
                })
            }
            (Ask::Leases { after, limit }, Seen::Leases { revision, more, leases }) => self
                .some_state(behind, *revision, |known| {
                    let wanted: Vec<&i64> =
                        known.keys().filter(|id| *after == 0 || *id > after).collect();
                    let limit = if *limit == 0 { usize::MAX } else { *limit as usize };
                    *more == (wanted.len() > limit) && wanted.iter().take(limit).copied().eq(leases)
                }),
            _ => Err("another kind".to_string()),
        }
    }

    /// Whether some state that there was since the log had `behind` entries is as told.
    fn some_state(&self, behind: u64, revision: i64, is_so: impl Fn(&Known) -> bool) -> Verdict {
        // The one that was there then, and those after it.
        let from = self.history.partition_point(|(index, ..)| *index <= behind).saturating_sub(1);
        let states = &self.history[from.min(self.history.len())..];
        let mut there = states.iter().filter(|(_, other, _)| *other == revision);
        let before_all = behind == 0 && is_so(&Known::new());
        check(before_all || there.any(|(_, _, known)| is_so(known)), || {
            format!("no state since entry {behind} is so, of {states:?}")
        })
    }

    /// No lease may still be there that should have ended, when somebody leads and all is well.
    pub fn check_late(&self, model: &Model, reign: &Reign, now: u64) -> Verdict {
        let Reign { since, counted_since, hand_overs, .. } = reign;
        for (id, lease) in &model.leases {
            let renewed = self.renewed_at.get(&(*id, lease.granted)).copied().unwrap_or(0);
            let ttl = lease.ttl_ms * MS;
            let slow = ttl / 1_000_000 * self.drift * 5 / 4;
            let counted_since = renewed.max(*counted_since);
            let behind = hand_overs.partition_point(|at| *at < counted_since);
            let cost = (hand_overs.len() - behind) as u64 * HAND_OVER;
            // What clients have to come over, and an election's time, count from when the present leader
            // began.
            let most = (counted_since + ttl + slow + cost).max(*since) + GRACE + SLACK;
            check(now <= most, || {
                format!(
                    "I13: lease {id} of {} ms is there {} ns after its last renewal, {} ns after \
                     somebody leads: {lease:?}",
                    lease.ttl_ms,
                    now - renewed,
                    now.saturating_sub(*since)
                )
            })?;
        }
        Ok(())
    }
}

/// Whether all leases have ended that end before a run does.
pub fn are_over(model: &Model) -> bool {
    model.leases.values().all(|lease| lease.ttl_ms > SHORT_MS)
}

const _: () = assert!(SHORT_MS * MS < 20 * SECOND, "runs wait for them");
