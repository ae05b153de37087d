//! What members may compact without being asked, as somebody sees it whose clock is right.
//!
//! - With a number of revisions none goes above the newest one less that number.
//! - With a period none goes above what was the newest one that long ago. Members' clocks may run at
//!   another rate and leap: what they did of that is allowed for.
//! - In a term no two go to the same revision: one is under way at a time.
//! - Once all is well and nothing is written any more, they come up to what was asked for.

use node::{Committed, Retention};
use wire::{Kind, Request, VerifyLimits};

use crate::ghost::Verdict;
use crate::leased::Leases;
use crate::model::{Command, Model};
use crate::plan::MS;

/// What is counted.
pub const OWN_COMPACTIONS: &str = "own compaction";

/// What is known of revisions and of compactions that no client asked for.
pub struct Retained {
    retention: Retention,
    /// Since when each revision is there.
    since: Vec<(i64, u64)>,
    /// The last one: its term and its revision.
    last: Option<(u64, i64)>,
    pub count: u64,
}

fn check(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl Retained {
    /// Nothing is known yet.
    pub fn new(retention: Retention) -> Self {
        Self { retention, since: Vec::new(), last: None, count: 0 }
    }

    /// Notes which revision is the newest.
    pub fn note(&mut self, revision: i64, now: u64) {
        if self.since.last().is_none_or(|(last, _)| *last < revision) {
            self.since.push((revision, now));
        }
    }

    /// A member compacts because nobody may want the history any more.
    pub fn compacts(
        &mut self,
        entry: &Committed,
        model: &mut Model,
        clocks: &Leases,
        now: u64,
    ) -> Verdict {
        let (index, term) = (entry.index.get(), entry.term.get());
        let body = Request::verify(Kind::Compact, &entry.frame, &VerifyLimits::REQUEST);
        let Ok(Request::Compact(compact)) = body else {
            return Err(format!("I4: entry {index} compacts nothing"));
        };
        let (revision, newest) = (compact.revision, model.revision);
        check(self.last != Some((term, revision)), || {
            format!("retention: entry {index} compacts to {revision} again in term {term}")
        })?;
        match self.retention {
            Retention::Everything => {
                return Err(format!("retention: entry {index} compacts, and nobody wants that"));
            }
            Retention::Revisions(count) => {
                let left = newest - revision;
                check(i64::try_from(count).is_ok_and(|count| left >= count), || {
                    format!("retention: entry {index} keeps {left} revisions of {count}")
                })?;
            }
            Retention::Period(period) => {
                let place = self.since.partition_point(|(other, _)| *other < revision);
                let (_, since) = self.since.get(place).copied().unwrap_or((0, now));
                let passed = now - since;
                let leaps = clocks.leaps.iter().filter(|(at, _)| *at >= since);
                let most = passed
                    + passed / 1_000_000 * clocks.drift
                    + leaps.map(|(_, nanos)| *nanos).sum::<u64>()
                    + 2 * MS;
                check(most >= period.as_nanos(), || {
                    format!(
                        "retention: entry {index} compacts to {revision}, which was there for {passed} ns of \
                         {}",
                        period.as_nanos()
                    )
                })?;
            }
        }
        (self.last, self.count) = (Some((term, revision)), self.count + 1);
        model.apply_once(None, index, &Command::Compact { revision, physical: false });
        Ok(())
    }

    /// Whether no more than is wanted is left of what could have been given up.
    pub fn is_done(&self, model: &Model) -> bool {
        let left = model.revision - model.compacted.max(1);
        match self.retention {
            Retention::Everything => true,
            Retention::Period(_) => left == 0,
            Retention::Revisions(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                left < count.saturating_add((count / 8).max(1))
            }
        }
    }
}
