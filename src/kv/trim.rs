//! Compaction: the log entry moves one number, each member trims its history at its own pace.
//!
//! Trimming to C drops the events with a revision below C from the front. Before that, a delete among
//! them takes its key out of `current` if its tombstone is still the newest version there, and a run
//! that an event owns is freed. A tombstone at exactly C stays, so that a watch from C still sees the
//! delete. Leaves whose events need no such work are dropped unread.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::Revision;
use tree::{Direction, KeyRange, Run};

use crate::keys::{CURRENT, EVENTS, Point};
use crate::outcome::{Outcome, Step, Stop, charge};
use crate::refusal::{Damage, Refusal};
use crate::state::State;
use crate::version::{Event, Kind, newest};

/// Leaves of events dropped for one unit of the budget, at most.
const LEAVES_PER_STEP: u32 = 8;

/// An event that asks for work.
struct Work {
    at: Point,
    kind: Kind,
    run: Option<Run>,
}

impl State {
    /// Gives up the history before `revision`.
    pub(crate) fn compact(&mut self, revision: i64) -> Outcome {
        if revision <= self.compacted_number() {
            return Outcome::Refused(Refusal::Compacted);
        }
        let compacted = Revision::new(u64::try_from(revision).unwrap_or(0));
        if compacted > self.revision {
            return Outcome::Refused(Refusal::FutureRevision);
        }
        self.compacted = Some(compacted);
        Outcome::Compacted { revision: self.revision, compacted }
    }

    /// History before this revision is physically gone. 0 after a restart, until [`Self::trim`] has
    /// come to its end once.
    pub fn trimmed(&self) -> Revision {
        self.dropped
    }

    /// Goes on with dropping what compaction gave up; done when nothing is left to drop. Events at
    /// `keep` and later stay, for an [`crate::Answer`] that still reads them ([`crate::Answer::keeps`]);
    /// `Revision::MAX` when there is none.
    ///
    /// The budget counts events looked at and leaves dropped.
    pub fn trim(&mut self, keep: Revision, budget: &mut u32) -> Step<()> {
        self.trim_on(keep, budget).into()
    }

    fn trim_on(&mut self, keep: Revision, budget: &mut u32) -> Result<(), Stop> {
        let Some(compacted) = self.compacted else {
            return Ok(());
        };
        let goal = Point::before(compacted.min(keep));
        loop {
            while self.undropped {
                let key = self.trimmed.key();
                let done = self.pages.drop_front(EVENTS, &key, LEAVES_PER_STEP)?;
                self.undropped = !done;
                // The last call is free: the smallest budget must get on with the work also when a
                // restart comes behind every step.
                if !done {
                    charge(budget)?;
                }
            }
            if self.trimmed >= goal {
                self.dropped = self.dropped.max(self.trimmed.revision);
                return Ok(());
            }
            let before = self.trimmed;
            let result = self.trim_to(goal, budget);
            self.undropped = self.trimmed != before;
            result?;
        }
    }

    /// Does the work of the events up to `goal`.
    fn trim_to(&mut self, goal: Point, budget: &mut u32) -> Result<(), Stop> {
        let mut key = core::mem::take(&mut self.scratch.keys);
        let result = loop {
            match self.trim_one(goal, &mut key, budget) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(stop) => break Err(stop),
            }
        };
        self.scratch.keys = key;
        result
    }

    /// Does the work of the next event that asks for it; false when there is none before `goal`.
    fn trim_one(&mut self, goal: Point, key: &mut Vec<u8>, budget: &mut u32) -> Result<bool, Stop> {
        let (from, to) = (self.trimmed.key(), goal.key());
        if from >= to {
            return Ok(false);
        }
        let range = KeyRange { start: &from, end: Some(&to) };
        let mut trimmed = self.trimmed;
        let mut work = None;
        let mut stop = None;
        let walked = self.pages.walk(
            EVENTS,
            range,
            Direction::Ascending,
            &mut |below| below.count == 0,
            &mut |cell| {
                let Some(at) = Point::from_key(cell.key) else {
                    stop = Some(Stop::Damaged(Damage::EventKeyMalformed));
                    return ControlFlow::Break(());
                };
                trimmed = at;
                if let Err(spent) = charge(budget) {
                    stop = Some(spent);
                    return ControlFlow::Break(());
                }
                if !cell.counted {
                    trimmed = at.next();
                    return ControlFlow::Continue(());
                }
                match Event::decode(cell.payload) {
                    Some(event) => {
                        key.clear();
                        key.extend_from_slice(event.key);
                        work = Some(Work { at, kind: event.kind, run: cell.run });
                    }
                    None => stop = Some(Stop::Damaged(Damage::EventMalformed(at))),
                }
                ControlFlow::Break(())
            },
        );
        self.trimmed = trimmed;
        walked?;
        if let Some(stop) = stop {
            return Err(stop);
        }
        let Some(work) = work else {
            self.trimmed = goal;
            return Ok(false);
        };
        if work.kind == Kind::Delete && self.is_tombstone_of(key, work.at)? {
            self.pages.remove(CURRENT, key)?;
        }
        // From here on nothing can miss: the event is never worked on twice.
        if let Some(run) = work.run {
            // The event goes with its run: a checkpoint may come before the leaves are dropped, and must
            // not find an event that names pages given back. Its leaf was just walked.
            self.pages.remove(EVENTS, &work.at.key())?;
            self.pages.free_run(run);
        }
        self.trimmed = work.at.next();
        Ok(true)
    }

    /// Whether the newest version of `key` is the tombstone that the event `at` wrote.
    fn is_tombstone_of(&self, key: &[u8], at: Point) -> Result<bool, Stop> {
        let Some(cell) = self.pages.get(CURRENT, key)? else {
            return Ok(false);
        };
        let (version, _) = newest(&cell).ok_or_else(|| Damage::VersionMalformed(key.into()))?;
        Ok(version.live.is_none() && version.at == at)
    }
}
