//! A range read of a client, from its request to its end, over as many turns as it takes.
//!
//! A read that names no revision reads at the newest one when it begins and stays there. Compaction may
//! overtake it: as long as trimming leaves what it needs ([`Read::keeps`]), it goes on. When that is gone
//! it begins again, unless pairs have gone out; one that named its revision, or whose pairs have gone
//! out, is refused as compacted. While a large entry is being applied in slices, the newest revision is
//! the one before it.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::Revision;
use tree::Miss;

use crate::command::RangeRequest;
use crate::keys::{Interval, Point};
use crate::listing::{Listed, Listing, Shape};
use crate::outcome::{RangeEnd, Stop};
use crate::pair::KeyValue;
use crate::refusal::{Damage, Refusal};
use crate::state::State;

/// How far one step of a read got.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum ReadStep {
    /// To the end.
    Done(RangeEnd),
    /// The sink asked for a pause behind the pair it took last.
    Piece,
    /// The budget is spent; call again.
    More,
    /// These bytes of the page file are wanted; install them and call again.
    Miss(Miss),
    /// There is no answer. Pairs that have gone out are void.
    Refused(Refusal),
    /// The state contradicts itself; the member must halt.
    Damaged(Damage),
}

/// A range read. It owns its request and holds no part of the state between steps.
#[derive(Debug)]
pub struct Read {
    key: Vec<u8>,
    range_end: Vec<u8>,
    revision: i64,
    shape: Shape,
    running: Option<Running>,
    /// Whether a pair has gone out.
    out: bool,
}

#[derive(Debug)]
struct Running {
    /// The revision that is read.
    at: Revision,
    listing: Listing,
}

impl Read {
    /// A read of what `request` asks for. Whether it may be answered from local state is the caller's
    /// business.
    pub fn new(request: &RangeRequest<'_>) -> Self {
        Self {
            key: request.key.to_vec(),
            range_end: request.range_end.to_vec(),
            revision: request.revision,
            shape: Shape::new(request),
            running: None,
            out: false,
        }
    }

    /// The newest revision when it began; 0 before that.
    pub fn revision(&self) -> Revision {
        self.running.as_ref().map_or(Revision::ZERO, |running| running.listing.revision())
    }

    /// Bytes that it holds between steps.
    pub fn held(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.listing.held())
    }

    /// Bytes that it may come to hold from here on; 0 if it never holds any.
    pub fn held_max(&self) -> usize {
        let shape_max = || self.shape.held_max();
        self.running.as_ref().map_or_else(shape_max, |running| running.listing.held_max())
    }

    /// Events of this revision and later must stay for it to go on: what to hand to [`State::trim`].
    /// None: it has not begun, or can begin again.
    pub fn keeps(&self) -> Option<Revision> {
        let running = self.running.as_ref().filter(|_| self.is_bound());
        running.map(|running| running.at.next())
    }

    /// Whether it can be answered at one revision only.
    fn is_bound(&self) -> bool {
        self.revision > 0 || self.out
    }

    /// Lets go of everything that it holds, to begin again. Without effect once a pair has gone out.
    pub fn give_up(&mut self) {
        if !self.out {
            self.running = None;
        }
    }

    /// Goes on until done, paused by the sink, or out of `budget`. The budget counts entries and events
    /// looked at. The sink takes each pair; by breaking it asks for a pause behind that pair.
    pub fn step(
        &mut self,
        state: &State,
        budget: &mut u32,
        sink: &mut dyn FnMut(&KeyValue<'_>) -> ControlFlow<()>,
    ) -> ReadStep {
        if self.key.is_empty() {
            return ReadStep::Refused(Refusal::KeyNotProvided);
        }
        if let Some(running) = &self.running
            && !state.has_history(running.at)
        {
            if self.is_bound() {
                return ReadStep::Refused(Refusal::Compacted);
            }
            self.running = None;
        }
        let running = match &mut self.running {
            Some(running) => running,
            none => {
                let at = match state.readable(self.revision) {
                    Ok(at) => at,
                    Err(refusal) => return ReadStep::Refused(refusal),
                };
                let interval = Interval::new(&self.key, &self.range_end);
                let listing = Listing::new(&interval, self.shape, Point::at(at), state.revision());
                none.insert(Running { at, listing })
            }
        };
        let out = &mut self.out;
        let listed = running.listing.step(state.pages(), state.now(), budget, &mut |pair| {
            *out = true;
            sink(pair)
        });
        match listed {
            Ok(Listed::Done(end)) => ReadStep::Done(end),
            Ok(Listed::Paused) => ReadStep::Piece,
            Ok(Listed::Refused(refusal)) => ReadStep::Refused(refusal),
            Err(Stop::Budget) => ReadStep::More,
            Err(Stop::Miss(miss)) => ReadStep::Miss(miss),
            Err(Stop::Damaged(damage)) => ReadStep::Damaged(damage),
        }
    }
}
