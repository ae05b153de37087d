//! A range answer at one point of the history, in bounded steps.
//!
//! ```text
//! count only           count
//! by key, either way   stream; pairs go out as they are found, a limit ends the walk
//! by another target    gather sort keys; sort; emit: each pair is looked up again at the same point
//! ```
//!
//! The count is that of the whole range whatever limit and filters say. A limited read at the head
//! counts first, while the tree still stands at that point; an older one counts what is left behind
//! the limit.

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::ControlFlow;

use base::{LeaseId, Revision};
use tree::{Direction, PageFile};

use crate::command::{RangeRequest, SortOrder, SortTarget};
use crate::count::Count;
use crate::keys::{CURRENT, Interval, Point, Span};
use crate::outcome::{RangeEnd, Stop, charge};
use crate::pair::KeyValue;
use crate::refusal::Refusal;
use crate::scan::{Cursor, Flow, Scan};
use crate::version::Held;

/// Bytes that a sorted read may hold: sort keys and keys, 64 bytes more for each.
pub const SORT_SIZE_MAX: usize = 64 << 20;

/// Bytes that a sorted read holds in truth, at most: twice what it counts.
pub(crate) const HELD_MAX: usize = 2 * SORT_SIZE_MAX;

/// Bytes that one step gathers or copies at most, and one pair more: what a turn is held up by.
pub(crate) const STEP_SIZE: usize = 256 << 10;

/// What taking the next entry out of a large heap costs, in keys looked at.
const SORT_COST: u32 = 4;

/// Where pairs go. A break pauses the read behind the pair.
pub(crate) type Sink<'s> = dyn FnMut(&KeyValue<'_>) -> ControlFlow<()> + 's;

/// A range request without its keys, which are on their way in a [`Cursor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Pairs to return at most.
    limit: Option<u64>,
    order: SortOrder,
    target: SortTarget,
    keys_only: bool,
    count_only: bool,
    /// Each 0: off.
    min_mod: i64,
    max_mod: i64,
    min_create: i64,
    max_create: i64,
}

impl Shape {
    pub fn new(request: &RangeRequest<'_>) -> Self {
        Self {
            limit: u64::try_from(request.limit).ok().filter(|limit| *limit > 0),
            order: request.order,
            target: request.target,
            keys_only: request.keys_only,
            count_only: request.count_only,
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        }
    }

    /// Every pair in full, in key order: what prev_kv asks for.
    pub fn plain() -> Self {
        Self::new(&RangeRequest::default())
    }

    fn filters(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create] != [0; 4]
    }

    fn admits(&self, held: &Held<'_>) -> bool {
        let number = |revision: Revision| i64::try_from(revision.get()).unwrap_or(i64::MAX);
        let (modified, created) = (number(held.at.revision), number(held.live.create));
        (self.max_mod == 0 || modified <= self.max_mod)
            && (self.min_mod == 0 || modified >= self.min_mod)
            && (self.max_create == 0 || created <= self.max_create)
            && (self.min_create == 0 || created >= self.min_create)
    }

    fn sorts(&self) -> bool {
        self.target != SortTarget::Key
    }

    /// Whether the limit applies in key order, before sorting.
    fn limits_first(&self) -> bool {
        self.order == SortOrder::None && !self.filters()
    }

    /// Bytes that a read of this shape may come to hold, at most; 0 if pairs go out as they are found.
    pub fn held_max(&self) -> usize {
        if self.sorts() && !self.count_only { HELD_MAX } else { 0 }
    }

    fn direction(&self) -> Direction {
        match self.order {
            SortOrder::None | SortOrder::Ascend => Direction::Ascending,
            SortOrder::Descend => Direction::Descending,
        }
    }

    /// Hands a pair to the sink as the request wants it.
    pub fn emit<'p>(
        &self,
        held: &Held<'p>,
        pages: &'p PageFile,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, Stop> {
        let value = if self.keys_only { &[] } else { held.value(pages)? };
        let mut pair = KeyValue::new(held, value);
        if self.keys_only && self.target != SortTarget::Value {
            // etcd 3.7 answers these from its index, which does not know leases.
            pair.lease = LeaseId::new(0);
        }
        Ok(sink(&pair))
    }
}

/// What a sorted read holds of a pair. The order is that of the answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    sort_key: SortKey,
    key: Box<[u8]>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum SortKey {
    /// Counted down from the greatest for descending order.
    Number(u64),
    Value(Box<[u8]>),
    Descending(Reverse<Box<[u8]>>),
}

impl Entry {
    fn new(shape: &Shape, held: &Held<'_>, pages: &PageFile) -> Result<Self, Stop> {
        let descending = shape.order == SortOrder::Descend;
        let number =
            |number: u64| SortKey::Number(if descending { u64::MAX - number } else { number });
        let sort_key = match shape.target {
            SortTarget::Key => number(0),
            SortTarget::Version => number(held.live.version),
            SortTarget::Create => number(held.live.create.get()),
            SortTarget::Mod => number(held.at.revision.get()),
            SortTarget::Value => {
                let value: Box<[u8]> = held.value(pages)?.into();
                if descending { SortKey::Descending(Reverse(value)) } else { SortKey::Value(value) }
            }
        };
        Ok(Self { sort_key, key: held.key.into() })
    }

    fn size(&self) -> usize {
        let value = match &self.sort_key {
            SortKey::Number(_) => 0,
            SortKey::Value(value) | SortKey::Descending(Reverse(value)) => value.len(),
        };
        64 + value + self.key.len()
    }
}

/// A range answer in the making.
#[derive(Debug)]
pub(crate) struct Listing {
    shape: Shape,
    point: Point,
    /// The revision for the header.
    revision: Revision,
    /// What is left of the range.
    cursor: Cursor,
    stage: Stage,
    /// The count of the whole range, when it is known before the end.
    count: Option<u64>,
    /// Live keys passed.
    seen: u64,
    /// Pairs handed out or gathered.
    taken: u64,
    more: bool,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Stream,
    Gather {
        heap: BinaryHeap<Entry>,
        size: usize,
    },
    /// On their way out of the heap, the greatest first.
    Sort {
        heap: BinaryHeap<Entry>,
        entries: Vec<Entry>,
        size: usize,
    },
    /// Entries that are left, the next one last, and their size.
    Emit {
        entries: Vec<Entry>,
        size: usize,
        next: Option<Cursor>,
    },
    Count(Count),
    Done,
}

/// How far a listing got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listed {
    /// To the end.
    Done(RangeEnd),
    /// To where the sink paused it.
    Paused,
    /// It would hold too much.
    Refused(Refusal),
}

impl Listing {
    /// The revision for the header.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The answer to `shape` over `interval` at `point`; `revision` goes into the header.
    pub fn new(interval: &Interval<'_>, shape: Shape, point: Point, revision: Revision) -> Self {
        Self {
            shape,
            point,
            revision,
            cursor: Cursor::new(Span::new(interval)),
            stage: Stage::Begin,
            count: None,
            seen: 0,
            taken: 0,
            more: false,
        }
    }

    /// Bytes that it holds between steps, at most: entries in a vector that has doubled, once more
    /// while they are sorted.
    pub fn held(&self) -> usize {
        match &self.stage {
            Stage::Begin | Stage::Stream | Stage::Count(_) | Stage::Done => 0,
            Stage::Gather { size, .. } | Stage::Sort { size, .. } => 2 * size,
            Stage::Emit { entries, size, .. } => size + entries.capacity() * size_of::<Entry>(),
        }
    }

    /// Bytes that it may come to hold from here on, at most.
    pub fn held_max(&self) -> usize {
        match &self.stage {
            Stage::Begin => self.shape.held_max(),
            Stage::Gather { .. } => HELD_MAX,
            _ => self.held(),
        }
    }

    /// Goes on. `now` is the point behind the newest event.
    ///
    /// # Errors
    ///
    /// When it stops before the end.
    pub fn step(
        &mut self,
        pages: &PageFile,
        now: Point,
        budget: &mut u32,
        sink: &mut Sink<'_>,
    ) -> Result<Listed, Stop> {
        loop {
            match &mut self.stage {
                Stage::Begin => self.begin(pages, now)?,
                Stage::Stream => match self.stream(pages, budget, sink)? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return Ok(Listed::Paused),
                },
                Stage::Gather { .. } => {
                    if let Some(refusal) = self.gather(pages, budget)? {
                        return Ok(Listed::Refused(refusal));
                    }
                }
                Stage::Sort { .. } => self.sort(budget)?,
                Stage::Emit { .. } => match self.emit_next(pages, budget, sink)? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return Ok(Listed::Paused),
                },
                Stage::Count(count) => {
                    let rest = count.step(pages, now, budget)?;
                    self.count = Some(self.seen + rest);
                    self.stage = Stage::Done;
                }
                Stage::Done => {
                    let count = self.count.unwrap_or(self.seen);
                    let end = RangeEnd { revision: self.revision, count, more: self.more };
                    return Ok(Listed::Done(end));
                }
            }
        }
    }

    fn begin(&mut self, pages: &PageFile, now: Point) -> Result<(), Stop> {
        if self.shape.count_only {
            self.stage = Stage::Count(Count::new(self.cursor.span.clone(), self.point));
            return Ok(());
        }
        if self.shape.limit.is_some() && !self.cursor.span.single && self.point >= now {
            self.count = match self.cursor.span.keys() {
                Some(range) => Some(pages.count(CURRENT, range)?),
                None => Some(0),
            };
        }
        self.stage = if self.shape.sorts() {
            Stage::Gather { heap: BinaryHeap::new(), size: 0 }
        } else {
            Stage::Stream
        };
        Ok(())
    }

    fn stream(
        &mut self,
        pages: &PageFile,
        budget: &mut u32,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, Stop> {
        let Self { shape, seen, taken, more, .. } = self;
        let mut visit = |held: &Held<'_>| {
            if !shape.admits(held) {
                *seen += 1;
                return Ok(Flow::Next);
            }
            if shape.limit.is_some_and(|limit| *taken >= limit) {
                *more = true;
                return Ok(Flow::PauseAt);
            }
            let flow = shape.emit(held, pages, sink)?;
            *seen += 1;
            *taken += 1;
            Ok(if flow.is_break() { Flow::PauseBehind } else { Flow::Next })
        };
        let direction = shape.direction();
        match self.cursor.scan(pages, self.point, direction, budget, &mut visit)? {
            Scan::End => {
                self.count.get_or_insert(self.seen);
                self.stage = Stage::Done;
            }
            Scan::Paused if self.more => self.count_rest(),
            Scan::Paused => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn gather(&mut self, pages: &PageFile, budget: &mut u32) -> Result<Option<Refusal>, Stop> {
        let Stage::Gather { heap, size } = &mut self.stage else {
            return Ok(None);
        };
        let Self { shape, seen, taken, .. } = self;
        let mut refusal = None;
        let mut gathered = 0;
        let mut visit = |held: &Held<'_>| {
            if shape.limits_first() && shape.limit.is_some_and(|limit| *taken > limit) {
                return Ok(Flow::PauseAt);
            }
            if shape.admits(held) {
                let entry = Entry::new(shape, held, pages)?;
                gathered += entry.size();
                *taken += 1;
                let keep = shape.limit.and_then(|limit| usize::try_from(limit).ok());
                if keep.is_none_or(|keep| heap.len() < keep) {
                    *size += entry.size();
                    heap.push(entry);
                } else if let Some(mut last) = heap.peek_mut()
                    && entry < *last
                {
                    // The greatest in the order of the answer goes.
                    *size = *size + entry.size() - last.size();
                    *last = entry;
                }
                if *size > SORT_SIZE_MAX {
                    refusal = Some(Refusal::SortTooLarge);
                    return Ok(Flow::PauseBehind);
                }
            }
            *seen += 1;
            Ok(if gathered < STEP_SIZE { Flow::Next } else { Flow::PauseBehind })
        };
        let direction = Direction::Ascending;
        let scan = self.cursor.scan(pages, self.point, direction, budget, &mut visit)?;
        if refusal.is_some() {
            return Ok(refusal);
        }
        if gathered >= STEP_SIZE {
            return Err(Stop::Budget);
        }
        if scan == Scan::End {
            self.count.get_or_insert(self.seen);
        }
        if let Some(limit) = self.shape.limit {
            self.more = self.taken > limit;
        }
        let heap = core::mem::take(heap);
        let entries = Vec::with_capacity(heap.len());
        self.stage = Stage::Sort { entries, size: *size, heap };
        Ok(None)
    }

    /// Sorting hundreds of thousands of entries takes a second; nobody waits that long for a turn.
    fn sort(&mut self, budget: &mut u32) -> Result<(), Stop> {
        let Stage::Sort { heap, entries, size } = &mut self.stage else {
            return Ok(());
        };
        while !heap.is_empty() {
            charge(budget)?;
            *budget = budget.saturating_sub(SORT_COST - 1);
            entries.extend(heap.pop());
        }
        let entries = core::mem::take(entries);
        self.stage = Stage::Emit { entries, size: *size, next: None };
        Ok(())
    }

    fn emit_next(
        &mut self,
        pages: &PageFile,
        budget: &mut u32,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, Stop> {
        let Stage::Emit { entries, size, next } = &mut self.stage else {
            return Ok(ControlFlow::Continue(()));
        };
        let Some(entry) = entries.last() else {
            self.count_rest();
            return Ok(ControlFlow::Continue(()));
        };
        let cursor =
            next.get_or_insert_with(|| Cursor::new(Span::new(&Interval::new(&entry.key, b""))));
        let shape = &self.shape;
        let scan = cursor.scan(pages, self.point, Direction::Ascending, budget, &mut |held| {
            let flow = shape.emit(held, pages, sink)?;
            Ok(if flow.is_break() { Flow::PauseBehind } else { Flow::Next })
        })?;
        *size -= entries.pop().map_or(0, |entry| entry.size());
        *next = None;
        Ok(match scan {
            Scan::End => ControlFlow::Continue(()),
            Scan::Paused => ControlFlow::Break(()),
        })
    }

    /// Counts what the walk did not reach, unless the count is known.
    fn count_rest(&mut self) {
        self.stage = if self.count.is_some() {
            Stage::Done
        } else {
            Stage::Count(Count::new(self.cursor.span.clone(), self.point))
        };
    }
}
