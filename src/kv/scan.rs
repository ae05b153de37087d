//! Looking keys up at a point of the history: one key, or a walk over a range in bounded steps.
//!
//! The newest version stands in `current`; an older one is reached through the events that replaced
//! its successors. Almost always that is no step or one; anchors bound it to some 200 for chains of
//! 100,000 versions.

use base::Mutant;
use core::ops::ControlFlow;

use base::limits::KEY_SIZE_MAX;
use tree::{Cell, Direction, PageFile};

use crate::keys::{CURRENT, EVENTS, Point, Span};
use crate::outcome::{Stop, charge};
use crate::refusal::Damage;
use crate::version::{Event, Held, Version, newest};

/// A walk over a range of user keys at a point of the history, which may go on in a later turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    /// What is left of the range.
    pub span: Span,
    /// Where to go on in the chain of the first key that is left.
    chain: Option<Point>,
}

/// What the visitor of a scan wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// The next key.
    Next,
    /// To pause; this key is done.
    PauseBehind,
    /// To pause; this key comes again.
    PauseAt,
}

/// How a scan ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scan {
    /// The range is exhausted.
    End,
    /// The visitor paused it.
    Paused,
}

impl Cursor {
    /// A walk over all of `span`.
    pub fn new(span: Span) -> Self {
        Self { span, chain: None }
    }

    /// Visits the keys that are left and live at `point`, in order. Costs one of the budget for each
    /// entry of `current` looked at, dead ones too, and one for each event.
    ///
    /// # Errors
    ///
    /// When it stops before the end; the cursor then stands at the first key that was not done.
    pub fn scan<'p>(
        &mut self,
        pages: &'p PageFile,
        point: Point,
        direction: Direction,
        budget: &mut u32,
        visit: &mut dyn FnMut(&Held<'p>) -> Result<Flow, Stop>,
    ) -> Result<Scan, Stop> {
        if self.span.single {
            return self.scan_single(pages, point, budget, visit);
        }
        let Some(range) = self.span.keys() else {
            return Ok(Scan::End);
        };
        let mut chain = self.chain;
        let mut done: Option<&'p [u8]> = None;
        let mut at: Option<&'p [u8]> = None;
        let mut result = Ok(Scan::End);
        let walked = pages.walk(
            CURRENT,
            range,
            direction,
            // Nothing below is live now, and nothing changed since the point: nothing was live then.
            &mut |below| below.count == 0 && below.number_max < point.revision.get(),
            &mut |cell| match look(pages, &cell, point, &mut chain, budget, visit) {
                Ok(Flow::Next) => {
                    done = Some(cell.key);
                    ControlFlow::Continue(())
                }
                Ok(Flow::PauseBehind) => {
                    done = Some(cell.key);
                    result = Ok(Scan::Paused);
                    ControlFlow::Break(())
                }
                Ok(Flow::PauseAt) => {
                    at = Some(cell.key);
                    result = Ok(Scan::Paused);
                    ControlFlow::Break(())
                }
                Err(stop) => {
                    at = Some(cell.key);
                    result = Err(stop);
                    ControlFlow::Break(())
                }
            },
        );
        match (direction, at, done) {
            (Direction::Ascending, Some(at), _) => self.span.start_at(at),
            (Direction::Ascending, None, Some(done)) => self.span.start_behind(done),
            (Direction::Descending, Some(at), _) => self.span.end_behind(at),
            (Direction::Descending, None, Some(done)) => self.span.end_before(done),
            (_, None, None) => {}
        }
        self.chain = chain;
        walked?;
        result
    }

    fn scan_single<'p>(
        &mut self,
        pages: &'p PageFile,
        point: Point,
        budget: &mut u32,
        visit: &mut dyn FnMut(&Held<'p>) -> Result<Flow, Stop>,
    ) -> Result<Scan, Stop> {
        // A single key that is done leaves an empty range behind.
        let Some(end) = &mut self.span.end else {
            return Ok(Scan::End);
        };
        debug_assert!(end.is_empty(), "a single key has no end");
        if self.span.start.len() > KEY_SIZE_MAX {
            return Ok(Scan::End);
        }
        let Some(cell) = pages.get(CURRENT, &self.span.start)? else {
            return Ok(Scan::End);
        };
        match look(pages, &cell, point, &mut self.chain, budget, visit)? {
            Flow::Next => {
                self.span.end = None;
                Ok(Scan::End)
            }
            Flow::PauseBehind => {
                self.span.end = None;
                Ok(Scan::Paused)
            }
            Flow::PauseAt => Ok(Scan::Paused),
        }
    }
}

/// Shows the visitor the version of one key at `point`, if it is live there. A stop leaves in `chain`
/// where to go on with the same key; that key's cell is not charged again.
fn look<'p>(
    pages: &'p PageFile,
    cell: &Cell<'p>,
    point: Point,
    chain: &mut Option<Point>,
    budget: &mut u32,
    visit: &mut dyn FnMut(&Held<'p>) -> Result<Flow, Stop>,
) -> Result<Flow, Stop> {
    if chain.is_none() {
        charge(budget)?;
    }
    let Some(held) = version_at(pages, cell, point, chain, budget)? else {
        *chain = None;
        return Ok(Flow::Next);
    };
    let flow = visit(&held)?;
    *chain = None;
    Ok(flow)
}

/// The version of a key at `point`; none if it was not live there. `cell` is the key's in `current`.
pub(crate) fn version_at<'p>(
    pages: &'p PageFile,
    cell: &Cell<'p>,
    point: Point,
    chain: &mut Option<Point>,
    budget: &mut u32,
) -> Result<Option<Held<'p>>, Stop> {
    let (mut version, mut inline) =
        newest(cell).ok_or_else(|| Damage::VersionMalformed(cell.key.into()))?;
    let mut run = cell.run;
    let mut next = *chain;
    let sees = |version: &Version| Mutant::ReadSeesNext.is_on() && version.at == point;
    while next.is_some() || (version.at >= point && !sees(&version)) {
        let at = next.take().unwrap_or_else(|| version.toward(point));
        *chain = Some(at);
        charge(budget)?;
        let cell = pages.get(EVENTS, &at.key())?.ok_or(Damage::EventMissing(at))?;
        let event = Event::decode(cell.payload).ok_or(Damage::EventMalformed(at))?;
        let Some(replaced) = event.replaced(at)? else {
            return Ok(None);
        };
        (version, inline) = Version::decode(replaced).ok_or(Damage::EventMalformed(at))?;
        run = cell.run;
    }
    let held = |live| Held { key: cell.key, at: version.at, live, inline, run };
    Ok(version.live.map(held))
}

impl<'p> Held<'p> {
    /// The value.
    ///
    /// # Errors
    ///
    /// A miss when it is in a run that is not in memory.
    pub fn value(&self, pages: &'p PageFile) -> Result<&'p [u8], Stop> {
        match &self.run {
            Some(run) => Ok(pages.run(run)?),
            None => Ok(self.inline),
        }
    }
}
