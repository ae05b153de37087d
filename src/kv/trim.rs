//! Compaction: the log entry moves one number, each member trims its history at its own pace.
//!
//! ```text
//! drop   events below C, from the front: tombstones out of `current`, runs freed, leaves dropped
//! shed   events of C, in order: what they replaced goes, key and kind stay
//! ```
//!
//! Trimming to C drops the events with a revision below C from the front. Before that, a delete among
//! them takes its key out of `current` if its tombstone is still the newest version there, and a run
//! that an event owns is freed. A tombstone at exactly C stays, so that a watch from C still sees the
//! delete. Leaves whose events need no such work are dropped unread.
//!
//! The events of C itself stay for such a watch, but what they replaced is of no use to anybody: a read
//! at C or later follows only events behind C, and the previous version of a change is told only where
//! the state before it can still be read. So they shed it, or a delete of everything, compacted at its
//! own revision, would keep every value until the next compaction. Not the versions that an earlier
//! change of revision C itself wrote (a watch from C is told those), nor what is too small to be worth a
//! rewritten leaf: [`crate::version::is_to_shed`]. Leaves without anything to shed are passed unread.
//!
//! One point, kept by every checkpoint, says how far all this has got; pages and point are of the same
//! moment, so a restart goes on where the checkpoint was.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::{Mutant, Revision};
use tree::{Cell, Direction, KeyRange, NewCell, PageFile, Run, Summary};

use crate::keys::{CURRENT, EVENTS, Point};
use crate::outcome::{Outcome, Step, Stop, charge};
use crate::refusal::{Damage, Refusal};
use crate::state::State;
use crate::version::{Event, Kind, needs_work, newest};

/// Leaves of events dropped for one unit of the budget, at most.
const LEAVES_PER_STEP: u32 = 8;

/// What shedding costs of the budget beyond looking at the event: its leaf is rewritten.
const SHED_COST: u32 = 3;

/// An event that asks for work.
struct Work {
    at: Point,
    kind: Kind,
    run: Option<Run>,
}

/// The two parts of trimming.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Drop,
    Shed,
}

impl Part {
    /// Whether nothing below a page asks for the work of this part.
    fn skips(self, below: Summary) -> bool {
        match self {
            Self::Drop => below.count == 0,
            Self::Shed => below.number_max == 0,
        }
    }

    /// Whether an event asks for it.
    fn takes(self, cell: &Cell<'_>) -> bool {
        match self {
            Self::Drop => cell.counted,
            Self::Shed => cell.number != 0,
        }
    }

    /// Finds the next event before `goal` that asks for work and copies its key; none: there is none
    /// before `goal`. `from` moves to it or there, and as far as the walk came where it stops.
    fn find(
        self,
        pages: &PageFile,
        from: &mut Point,
        goal: Point,
        key: &mut Vec<u8>,
        budget: &mut u32,
    ) -> Result<Option<Work>, Stop> {
        let (start, end) = (from.key(), goal.key());
        if start >= end {
            return Ok(None);
        }
        let mut work = None;
        let mut stop = None;
        let walked = pages.walk(
            EVENTS,
            KeyRange { start: &start, end: Some(&end) },
            Direction::Ascending,
            &mut |below| self.skips(below),
            &mut |cell| {
                let Some(at) = Point::from_key(cell.key) else {
                    stop = Some(Stop::Damaged(Damage::EventKeyMalformed));
                    return ControlFlow::Break(());
                };
                *from = at;
                if let Err(spent) = charge(budget) {
                    stop = Some(spent);
                    return ControlFlow::Break(());
                }
                if !self.takes(&cell) {
                    *from = at.next();
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
        walked?;
        if let Some(stop) = stop {
            return Err(stop);
        }
        if work.is_none() {
            *from = goal;
        }
        Ok(work)
    }
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
    /// `keep` and later stay as they are, for an [`crate::Answer`] or a [`crate::Read`] that still reads
    /// them ([`crate::Answer::keeps`], [`crate::Read::keeps`]); `Revision::MAX` when there is none.
    ///
    /// The budget counts events looked at, leaves dropped, and events rewritten some more.
    pub fn trim(&mut self, keep: Revision, budget: &mut u32) -> Step<()> {
        if self.incomplete {
            return Step::Done(());
        }
        let mut key = core::mem::take(&mut self.scratch.keys);
        let result = self.trim_on(keep, &mut key, budget);
        self.scratch.keys = key;
        result.into()
    }

    fn trim_on(&mut self, keep: Revision, key: &mut Vec<u8>, budget: &mut u32) -> Result<(), Stop> {
        let Some(compacted) = self.compacted else {
            return Ok(());
        };
        let beyond = Mutant::TrimsBoundary.is_on();
        let end = if beyond { compacted.next().next() } else { compacted };
        self.drop_before(Point::before(end.min(keep)), key, budget)?;
        if keep > compacted { self.shed_at(compacted, key, budget) } else { Ok(()) }
    }

    /// Drops the events before `goal`.
    fn drop_before(
        &mut self,
        goal: Point,
        key: &mut Vec<u8>,
        budget: &mut u32,
    ) -> Result<(), Stop> {
        loop {
            while self.undropped {
                let end = self.trimmed.key();
                let done = self.pages.drop_front(EVENTS, &end, LEAVES_PER_STEP)?;
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
            let result = self.trim_to(goal, key, budget);
            self.undropped = self.trimmed != before;
            result?;
        }
    }

    /// Does the work of the events up to `goal`.
    fn trim_to(&mut self, goal: Point, key: &mut Vec<u8>, budget: &mut u32) -> Result<(), Stop> {
        while self.trim_one(goal, key, budget)? {}
        Ok(())
    }

    /// Does the work of the next event that asks for it; false when there is none before `goal`.
    fn trim_one(&mut self, goal: Point, key: &mut Vec<u8>, budget: &mut u32) -> Result<bool, Stop> {
        let found = Part::Drop.find(&self.pages, &mut self.trimmed, goal, key, budget);
        let Some(work) = found? else {
            return Ok(false);
        };
        if work.kind != Kind::Put && self.is_tombstone_of(key, work.at)? {
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

    /// Has the events of `compacted` shed what they replaced. Everything before them is dropped.
    fn shed_at(
        &mut self,
        compacted: Revision,
        key: &mut Vec<u8>,
        budget: &mut u32,
    ) -> Result<(), Stop> {
        self.shed = self.shed.max(Point::before(compacted));
        let goal = Point::at(compacted);
        while let Some(work) = Part::Shed.find(&self.pages, &mut self.shed, goal, key, budget)? {
            let payload = &mut self.scratch.event;
            payload.clear();
            Event::encode_shed(work.kind, key, payload);
            let counted = needs_work(work.kind, None);
            let cell = NewCell { counted, number: 0, payload, run: None };
            // Its leaf was just walked: nothing can miss, and the event is never worked on twice.
            self.pages.put(EVENTS, &work.at.key(), &cell)?;
            if let Some(run) = work.run {
                self.pages.free_run(run);
            }
            self.shed = work.at.next();
            *budget = budget.saturating_sub(SHED_COST);
        }
        Ok(())
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
