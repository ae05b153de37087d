//! Changes as watches are told them: read back from the history, or recorded while they are made.
//!
//! ```text
//! events   (5,0) put a, replaced a@3    (6,0) delete b, replaced b@2    (7,0) put a, replaced a@5
//!
//! what (5,0) wrote    is what the next event of its key replaced: a@5, in event (7,0); of the last
//!                     event of a key it is the newest version, in `current`
//! before (7,0)        what that event replaced, unless an earlier change of revision 7 wrote it
//! ```
//!
//! A [`History`] reads windows of events, so that the next event of most keys is at hand; of the last one
//! of a key in its window the value is looked up like any version of the past. It is a position and what
//! is wanted, and holds no part of the state between steps: a reader that is slow costs nothing else.
//!
//! While somebody watches, the [`State`] records what it changes, and hands it out at the end of a turn:
//! [`State::recorded`]. What is more than a turn should carry is left out, and said to be.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::{LeaseId, Mutant, Revision};
use tree::{Direction, KeyRange, Miss, PageFile, Run};

use crate::keys::{CURRENT, EVENTS, Interval, Point, Span};
use crate::outcome::{Stop, charge};
use crate::pair::KeyValue;
use crate::refusal::Damage;
use crate::scan::version_at;
use crate::state::State;
use crate::version::{Event, Held, Kind, Live, Version, newest};

/// Events that looking up the values of one window may take.
const LOOKUPS_MAX: u32 = 4_096;

/// How much of the history is in memory at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryLimits {
    /// Changes in one window, beyond which it ends with a revision.
    pub window_changes: usize,
    /// Bytes copied for one window, beyond which it ends with a revision.
    pub window_size: usize,
    /// Changes that a recording holds at most.
    pub recorded_changes: usize,
    /// Bytes that a recording holds at most.
    pub recorded_size: usize,
}

impl HistoryLimits {
    /// Those of the server.
    pub const SERVER: Self = Self {
        window_changes: 1_024,
        window_size: 256 << 10,
        recorded_changes: 8_192,
        recorded_size: 4 << 20,
    };
}

/// A change of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'c> {
    /// Its place in the history.
    pub at: Point,
    /// What it did.
    pub kind: Kind,
    /// The key as it wrote it; of a delete the key and the revision alone.
    pub kv: KeyValue<'c>,
    /// The key before the revision of the change.
    pub previous: Previous<'c>,
}

/// What is known of a key before a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Previous<'c> {
    /// There was none, or it was not asked for, or has been compacted.
    None,
    /// It.
    Known(KeyValue<'c>),
    /// A [`History`] has to read it.
    Elsewhere,
}

/// Changes copied out, in two allocations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    at: Point,
    kind: Kind,
    /// Where the key begins in `bytes`; the value and the value before follow it.
    key: usize,
    value: usize,
    previous: usize,
    end: usize,
    live: Facts,
    before: Option<(Facts, Revision)>,
    elsewhere: bool,
}

/// What stands beside the value of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Facts {
    create: Revision,
    version: u64,
    lease: LeaseId,
}

impl Changes {
    /// Copies a change to the end.
    pub fn push(&mut self, change: &Change<'_>) {
        let facts = |kv: &KeyValue<'_>| Facts {
            create: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        };
        let key = self.bytes.len();
        self.bytes.extend_from_slice(change.kv.key);
        let value = self.bytes.len();
        self.bytes.extend_from_slice(change.kv.value);
        let previous = self.bytes.len();
        let (before, elsewhere) = match &change.previous {
            Previous::None => (None, false),
            Previous::Elsewhere => (None, true),
            Previous::Known(kv) => {
                self.bytes.extend_from_slice(kv.value);
                (Some((facts(kv), kv.mod_revision)), false)
            }
        };
        self.entries.push(Entry {
            at: change.at,
            kind: change.kind,
            key,
            value,
            previous,
            end: self.bytes.len(),
            live: facts(&change.kv),
            before,
            elsewhere,
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The change at `index`.
    pub fn get(&self, index: usize) -> Change<'_> {
        let entry = &self.entries[index];
        let key = &self.bytes[entry.key..entry.value];
        let kv = |facts: &Facts, at, value| KeyValue {
            key,
            value,
            create_revision: facts.create,
            mod_revision: at,
            version: facts.version,
            lease: facts.lease,
        };
        Change {
            at: entry.at,
            kind: entry.kind,
            kv: kv(&entry.live, entry.at.revision, &self.bytes[entry.value..entry.previous]),
            previous: match &entry.before {
                Some((facts, at)) => {
                    Previous::Known(kv(facts, *at, &self.bytes[entry.previous..entry.end]))
                }
                None if entry.elsewhere => Previous::Elsewhere,
                None => Previous::None,
            },
        }
    }

    /// The changes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Change<'_>> {
        (0..self.entries.len()).map(|index| self.get(index))
    }

    /// Takes what lies behind `revision` out.
    fn split_behind(&mut self, revision: Revision) -> Self {
        let mut rest = Self::default();
        let count = self.entries.partition_point(|entry| entry.at.revision <= revision);
        for index in count..self.entries.len() {
            rest.push(&self.get(index));
        }
        if let Some(first) = self.entries.get(count) {
            self.bytes.truncate(first.key);
        }
        self.entries.truncate(count);
        rest
    }
}

/// What one turn has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// Revisions before this one were in recordings before.
    pub first: Revision,
    /// The changes of the revisions from `first` up to here are all in `changes`.
    pub whole: Revision,
    /// The newest revision. What lies behind `whole` has to be read.
    pub newest: Revision,
    /// The changes.
    pub changes: Changes,
}

/// What the state has changed and not handed out.
#[derive(Debug)]
pub(crate) struct Recorder {
    limits: HistoryLimits,
    changes: Changes,
    /// Revisions up to here have been handed out.
    told: Revision,
    /// Changes of this revision and later have been left out.
    left_out: Option<Revision>,
}

impl Recorder {
    /// What is there of the key that a change replaces: its version, the inline value, the run.
    pub fn note(
        &mut self,
        at: Point,
        kind: Kind,
        kv: &KeyValue<'_>,
        old: Option<(&Version, &[u8], Option<Run>)>,
    ) {
        if self.left_out.is_some() {
            return;
        }
        let size = kv.key.len() + kv.value.len() + old.map_or(0, |(_, inline, _)| inline.len());
        let full = self.changes.len() >= self.limits.recorded_changes
            || self.changes.size() + size > self.limits.recorded_size;
        if full {
            self.left_out = Some(at.revision);
            self.changes.split_behind(Revision::new(at.revision.get() - 1));
            return;
        }
        let previous = match old {
            Some((version, inline, run)) => match version.live {
                // What an earlier change of the same revision wrote does not count.
                _ if version.at.revision == at.revision && !Mutant::PrevOfSameRevision.is_on() => {
                    Previous::Elsewhere
                }
                Some(_) if run.is_some() => Previous::Elsewhere,
                Some(live) => Previous::Known(pair(kv.key, version.at, &live, inline)),
                None => Previous::None,
            },
            None => Previous::None,
        };
        self.changes.push(&Change { at, kind, kv: *kv, previous });
    }
}

pub(crate) fn pair<'p>(key: &'p [u8], at: Point, live: &Live, value: &'p [u8]) -> KeyValue<'p> {
    KeyValue {
        key,
        value,
        create_revision: live.create,
        mod_revision: at.revision,
        version: live.version,
        lease: live.lease,
    }
}

/// The pair of a delete.
pub(crate) fn tombstone(key: &[u8], at: Point) -> KeyValue<'_> {
    KeyValue {
        key,
        value: &[],
        create_revision: Revision::ZERO,
        mod_revision: at.revision,
        version: 0,
        lease: LeaseId::new(0),
    }
}

impl State {
    /// Begins or ends recording. What has been recorded and not handed out is dropped at the end.
    pub fn record(&mut self, on: bool, limits: &HistoryLimits) {
        if !on {
            self.recorder = None;
        } else if self.recorder.is_none() {
            // The changes that a half applied entry has made already were not recorded.
            let is_half = self.sub > 0 && !Mutant::HalfEntryWhole.is_on();
            let left_out = is_half.then(|| self.revision().next());
            let told = self.revision();
            let (limits, changes) = (*limits, Changes::default());
            self.recorder = Some(Recorder { limits, changes, told, left_out });
        }
    }

    /// What has been recorded since the last call; none if no revision has come to its end since.
    pub fn recorded(&mut self) -> Option<Recorded> {
        let newest = self.revision();
        let recorder = self.recorder.as_mut()?;
        if recorder.told == newest {
            return None;
        }
        let first = recorder.told.next();
        let rest = recorder.changes.split_behind(newest);
        let changes = core::mem::replace(&mut recorder.changes, rest);
        let left_out = recorder.left_out.filter(|revision| *revision <= newest);
        let whole = left_out.map_or(newest, |revision| Revision::new(revision.get() - 1));
        if left_out.is_some() {
            recorder.left_out = (self.sub > 0).then(|| newest.next());
        }
        recorder.told = newest;
        Some(Recorded { first, whole, newest, changes })
    }
}

/// What a watch asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// What was there before.
    pub previous: bool,
    /// No values.
    pub keys_only: bool,
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
}

impl Wanted {
    /// Whether a change of this kind is told.
    pub fn takes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Put if Mutant::FiltersSwapped.is_on() => !self.no_delete,
            Kind::Delete(_) if Mutant::FiltersSwapped.is_on() => !self.no_put,
            Kind::Put => !self.no_put,
            Kind::Delete(_) => !self.no_delete,
        }
    }
}

/// How far one step of reading history got.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum HistoryStep {
    /// Everything up to this revision, the newest one, has been read.
    Caught(Revision),
    /// There is something to tell, and more may follow.
    Piece,
    /// The budget is spent; call again.
    More,
    /// These bytes of the page file are wanted; install them and call again.
    Miss(Miss),
    /// What is wanted next lies before this revision, and has been given up.
    Compacted(Revision),
    /// The state contradicts itself; the member must halt.
    Damaged(Damage),
}

/// A reader of past changes: a position, and what is wanted.
#[derive(Debug)]
pub struct History {
    next: Point,
    spans: Vec<Span>,
    wanted: Wanted,
    limits: HistoryLimits,
    /// How far the lookups for the change at `next` have come.
    lookups: Lookups,
}

/// How far the versions of a key have been followed back for a change. Who began anew after every miss
/// would wait for ever in a cache that holds fewer pages than the way has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Lookups {
    /// To what was there before the change.
    before: Option<Point>,
    /// To what the change wrote.
    written: Option<Point>,
}

/// An event of a key that is watched, in the window.
struct Found {
    at: Point,
    kind: Kind,
    /// Where in the bytes of the window: the key, then the version that was replaced.
    key: usize,
    replaced: usize,
    end: usize,
    run: Option<Run>,
    shed: bool,
}

/// What a walk over a window has found.
#[derive(Default)]
struct Window {
    found: Vec<Found>,
    bytes: Vec<u8>,
}

impl History {
    /// From the change at `start` on, in the ranges that requests name as `key` and `range_end`.
    pub fn new<'r>(
        start: Point,
        ranges: impl IntoIterator<Item = (&'r [u8], &'r [u8])>,
        wanted: Wanted,
        limits: &HistoryLimits,
    ) -> Self {
        let span = |(key, end)| Span::new(&Interval::new(key, end));
        let spans = ranges.into_iter().map(span).collect();
        Self { next: start, spans, wanted, limits: *limits, lookups: Lookups::default() }
    }

    /// The change that comes next, or a place before it: everything earlier has been handed out.
    pub fn next(&self) -> Point {
        self.next
    }

    /// Reads a window, and hands out what is wanted of it.
    pub fn step(&mut self, state: &State, budget: &mut u32, out: &mut Changes) -> HistoryStep {
        if let Some(compacted) = state.compacted()
            && self.next.revision < first_watchable(compacted)
        {
            if Mutant::OvertakenSkips.is_on() {
                self.next = Point::before(compacted);
                return HistoryStep::More;
            }
            return HistoryStep::Compacted(compacted);
        }
        match self.read(state, budget, out) {
            Ok(true) => HistoryStep::Caught(state.revision()),
            Ok(false) if !out.is_empty() => HistoryStep::Piece,
            Ok(false) => HistoryStep::More,
            Err(_) if !out.is_empty() => HistoryStep::Piece,
            Err(Stop::Budget) => HistoryStep::More,
            Err(Stop::Miss(miss)) => HistoryStep::Miss(miss),
            Err(Stop::Damaged(damage)) => HistoryStep::Damaged(damage),
        }
    }

    /// True at the end of the history.
    fn read(&mut self, state: &State, budget: &mut u32, out: &mut Changes) -> Result<bool, Stop> {
        let end = Point::at(state.revision());
        if self.next >= end {
            return Ok(true);
        }
        let mut window = Window::default();
        let (next, stop) = self.walk(state.pages(), end, budget, &mut window);
        // What was found before the walk stopped is told.
        let mut order: Vec<usize> = (0..window.found.len()).collect();
        order.sort_unstable_by(|a, b| {
            let (a, b) = (&window.found[*a], &window.found[*b]);
            (window.key(a), a.at).cmp(&(window.key(b), b.at))
        });
        let mut successors: Vec<Option<usize>> = Vec::new();
        successors.resize(window.found.len(), None);
        for neighbours in order.windows(2) {
            if let [a, b] = neighbours
                && window.key(&window.found[*a]) == window.key(&window.found[*b])
            {
                successors[*a] = Some(*b);
            }
        }
        // Enough for the first one in any case: a chain is followed in some 200 steps.
        let mut budget = LOOKUPS_MAX;
        let first = (self.next, core::mem::take(&mut self.lookups));
        for (index, found) in window.found.iter().enumerate() {
            if !self.wanted.takes(found.kind) {
                continue;
            }
            if out.size() > self.limits.window_size {
                self.next = found.at;
                return Ok(false);
            }
            let successor = successors[index].map(|next| &window.found[next]);
            let mut lookups = if found.at == first.0 { first.1 } else { Lookups::default() };
            match self.tell(state, &window, (found, successor), &mut lookups, &mut budget, out) {
                Ok(()) => {}
                Err(stop) => {
                    (self.next, self.lookups) = (found.at, lookups);
                    return Err(stop);
                }
            }
        }
        if next == first.0 {
            self.lookups = first.1;
        }
        self.next = next;
        match stop {
            None => Ok(next >= end),
            Some(stop) => Err(stop),
        }
    }

    /// Gathers the events of a window; where to go on, and why it stopped, if not for its size.
    fn walk(
        &self,
        pages: &PageFile,
        end: Point,
        budget: &mut u32,
        window: &mut Window,
    ) -> (Point, Option<Stop>) {
        let mut next = self.next;
        let mut stop = None;
        let mut is_full = false;
        let (from, to) = (next.key(), end.key());
        let range = KeyRange { start: &from, end: Some(&to) };
        let walked = pages.walk(EVENTS, range, Direction::Ascending, &mut |_| false, &mut |cell| {
            let Some(at) = Point::from_key(cell.key) else {
                stop = Some(Stop::Damaged(Damage::EventKeyMalformed));
                return ControlFlow::Break(());
            };
            let (changes, size) = (self.limits.window_changes, self.limits.window_size);
            let much = window.found.len() >= changes || window.bytes.len() >= size;
            let too_much = window.found.len() >= 2 * changes || window.bytes.len() >= 2 * size;
            if too_much
                || (much && window.found.last().is_some_and(|f| f.at.revision < at.revision))
            {
                next = if at.revision > next.revision { Point::before(at.revision) } else { at };
                is_full = true;
                return ControlFlow::Break(());
            }
            if let Err(spent) = charge(budget) {
                next = at;
                stop = Some(spent);
                return ControlFlow::Break(());
            }
            let Some(event) = Event::decode(cell.payload) else {
                stop = Some(Stop::Damaged(Damage::EventMalformed(at)));
                return ControlFlow::Break(());
            };
            if self.spans.iter().any(|span| span.contains(event.key)) {
                let key = window.bytes.len();
                window.bytes.extend_from_slice(event.key);
                let replaced = window.bytes.len();
                let shed = match event.replaced(at) {
                    Ok(old) => {
                        window.bytes.extend_from_slice(old.unwrap_or_default());
                        false
                    }
                    Err(_) => true,
                };
                let (kind, end) = (event.kind, window.bytes.len());
                window.found.push(Found { at, kind, key, replaced, end, run: cell.run, shed });
            }
            next = at.next();
            ControlFlow::Continue(())
        });
        if let Err(miss) = walked {
            return (next, Some(miss.into()));
        }
        if stop.is_none() && !is_full {
            next = end;
        }
        (next, stop)
    }

    /// Tells one change.
    fn tell(
        &self,
        state: &State,
        window: &Window,
        (found, successor): (&Found, Option<&Found>),
        lookups: &mut Lookups,
        budget: &mut u32,
        out: &mut Changes,
    ) -> Result<(), Stop> {
        let pages = state.pages();
        let (key, at) = (window.key(found), found.at);
        let previous = match self.before(state, window, found, &mut lookups.before, budget)? {
            Some(held) => Previous::Known(held),
            None => Previous::None,
        };
        let kv = match found.kind {
            Kind::Delete(_) => tombstone(key, at),
            Kind::Put => {
                let held = match successor.filter(|next| !next.shed) {
                    Some(next) => window.replaced(next)?,
                    None => None,
                };
                let held = match held {
                    Some(held) => held,
                    None => written(pages, key, at, &mut lookups.written, budget)?,
                };
                if held.at != at {
                    return Err(Stop::Damaged(Damage::EventMalformed(at)));
                }
                let value = if self.wanted.keys_only { &[] } else { held.value(pages)? };
                KeyValue::new(&held, value)
            }
        };
        out.push(&Change { at, kind: found.kind, kv, previous });
        Ok(())
    }

    /// The key before the revision of a change, if that is wanted and may be told.
    fn before<'p>(
        &self,
        state: &'p State,
        window: &'p Window,
        found: &Found,
        chain: &mut Option<Point>,
        budget: &mut u32,
    ) -> Result<Option<KeyValue<'p>>, Stop> {
        let revision = found.at.revision;
        let told =
            self.wanted.previous && state.compacted().is_none_or(|compacted| revision > compacted);
        if !told || found.replaced == found.end {
            return Ok(None);
        }
        let pages = state.pages();
        let (version, inline) = Version::decode(&window.bytes[found.replaced..found.end])
            .ok_or(Damage::EventMalformed(found.at))?;
        let earlier = Mutant::PrevOfEarlier.is_on();
        let held = if version.at.revision == revision || earlier {
            // Written by an earlier change of the same revision.
            let Some(cell) = pages.get(CURRENT, window.key(found))? else { return Ok(None) };
            let revision = Revision::new(revision.get() - u64::from(earlier));
            version_at(pages, &cell, Point::before(revision), chain, budget)?
        } else {
            let key = window.key(found);
            version.live.map(|live| Held { key, at: version.at, live, inline, run: found.run })
        };
        let Some(held) = held else { return Ok(None) };
        let value = if self.wanted.keys_only { &[] } else { held.value(pages)? };
        Ok(Some(KeyValue::new(&held, value)))
    }
}

/// The first revision that a watch may begin with.
fn first_watchable(compacted: Revision) -> Revision {
    if Mutant::WatchBoundaryRefused.is_on() {
        return compacted.next();
    }
    if Mutant::CompactedWatchable.is_on() {
        return Revision::new(compacted.get().saturating_sub(1));
    }
    compacted
}

impl Window {
    fn key(&self, found: &Found) -> &[u8] {
        &self.bytes[found.key..found.replaced]
    }

    /// The live version that an event replaced.
    fn replaced(&self, found: &Found) -> Result<Option<Held<'_>>, Stop> {
        let (version, inline) = Version::decode(&self.bytes[found.replaced..found.end])
            .ok_or(Damage::EventMalformed(found.at))?;
        let key = self.key(found);
        Ok(version.live.map(|live| Held { key, at: version.at, live, inline, run: found.run }))
    }
}

/// The version that the put at `at` wrote.
fn written<'p>(
    pages: &'p PageFile,
    key: &[u8],
    at: Point,
    chain: &mut Option<Point>,
    budget: &mut u32,
) -> Result<Held<'p>, Stop> {
    let cell = pages.get(CURRENT, key)?.ok_or(Damage::EventMalformed(at))?;
    let (version, _) = newest(&cell).ok_or_else(|| Damage::VersionMalformed(key.into()))?;
    let point = at.next();
    debug_assert!(version.at >= at, "the newest version is not older than a put");
    version_at(pages, &cell, point, chain, budget)?.ok_or(Stop::Damaged(Damage::EventMalformed(at)))
}
