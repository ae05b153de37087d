//! How many keys of a range are live at a point of the history.
//!
//! ```text
//! at the head            counted by the tree, O(log n)
//! few events since       the count at the head, less what they created, plus what they deleted
//! otherwise              a walk over what is live now or was touched since
//! ```

use base::Mutant;
use core::ops::ControlFlow;

use tree::{Direction, KeyRange, PageFile};

use crate::keys::{CURRENT, EVENTS, Point, Span};
use crate::outcome::{Stop, charge};
use crate::refusal::Damage;
use crate::scan::{Cursor, Flow};
use crate::version::{Event, Kind};

/// Events that a count reads at least before it walks over keys instead.
const EVENTS_MIN: u64 = 1_024;

/// A count in the making.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    span: Span,
    point: Point,
    stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Begin,
    /// Taking back what the events from `next` up to `end` did to `head`, the count when it began.
    Events {
        head: u64,
        created: u64,
        deleted: u64,
        next: Point,
        end: Point,
        left: u64,
    },
    Walk {
        cursor: Cursor,
        count: u64,
    },
}

impl Count {
    /// Counts `span` at `point`.
    pub fn new(span: Span, point: Point) -> Self {
        Self { span, point, stage: Stage::Begin }
    }

    /// Goes on. `now` is the point behind the newest event.
    ///
    /// # Errors
    ///
    /// When it stops before the end.
    pub fn step(&mut self, pages: &PageFile, now: Point, budget: &mut u32) -> Result<u64, Stop> {
        loop {
            match &mut self.stage {
                Stage::Begin => {
                    charge(budget)?;
                    let Some(head) = self.begin(pages)? else {
                        continue;
                    };
                    if self.point >= now || Mutant::CountAtHead.is_on() {
                        return Ok(head);
                    }
                    // Revisions since: at least as many events. A walk costs at least `head`.
                    let left = head.max(EVENTS_MIN);
                    if self.point.revision.distance_to(now.revision) > left {
                        self.walk();
                        continue;
                    }
                    let (next, end) = (self.point, now);
                    self.stage = Stage::Events { head, created: 0, deleted: 0, next, end, left };
                }
                Stage::Events { head, created, deleted, next, end, left } => {
                    let mut fault = None;
                    let (from, to) = (next.key(), end.key());
                    let range = KeyRange { start: &from, end: Some(&to) };
                    pages.walk(
                        EVENTS,
                        range,
                        Direction::Ascending,
                        &mut |_| false,
                        &mut |cell| {
                            let Some(at) = Point::from_key(cell.key) else {
                                fault = Some(Stop::Damaged(Damage::EventKeyMalformed));
                                return ControlFlow::Break(());
                            };
                            *next = at;
                            let Some(event) = Event::decode(cell.payload) else {
                                fault = Some(Stop::Damaged(Damage::EventMalformed(at)));
                                return ControlFlow::Break(());
                            };
                            if *left == 0 {
                                return ControlFlow::Break(());
                            }
                            if let Err(stop) = charge(budget) {
                                fault = Some(stop);
                                return ControlFlow::Break(());
                            }
                            let was_live = match event.replaced_live(at) {
                                Ok(live) => live,
                                Err(damage) => {
                                    fault = Some(Stop::Damaged(damage));
                                    return ControlFlow::Break(());
                                }
                            };
                            *left -= 1;
                            *next = at.next();
                            if self.span.contains(event.key) {
                                match (event.kind, was_live) {
                                    (Kind::Put, true) | (Kind::Delete(_), false) => {}
                                    (Kind::Put, false) => *created += 1,
                                    (Kind::Delete(_), true) => *deleted += 1,
                                }
                            }
                            ControlFlow::Continue(())
                        },
                    )?;
                    if let Some(stop) = fault {
                        return Err(stop);
                    }
                    if *left == 0 {
                        self.walk();
                        continue;
                    }
                    return Ok(*head + *deleted - *created);
                }
                Stage::Walk { cursor, count } => {
                    cursor.scan(pages, self.point, Direction::Ascending, budget, &mut |_| {
                        *count += 1;
                        Ok(Flow::Next)
                    })?;
                    return Ok(*count);
                }
            }
        }
    }

    /// The count at the head; none when that is not how to count: of a single key.
    fn begin(&mut self, pages: &PageFile) -> Result<Option<u64>, Stop> {
        if self.span.single {
            self.walk();
            return Ok(None);
        }
        match self.span.keys() {
            Some(range) => Ok(Some(pages.count(CURRENT, range)?)),
            None => Ok(Some(0)),
        }
    }

    fn walk(&mut self) {
        self.stage = Stage::Walk { cursor: Cursor::new(self.span.clone()), count: 0 };
    }
}
