//! The watches of a reactor: who watches what, and how far each has come.
//!
//! Watches of the same range are a group: a change is matched once for all of them. A watch is a
//! position, `next`, and nothing else that grows: whoever is behind has the store read on from there.
//!
//! ```text
//!            ┌──────── asks the store ────────┐
//!  Waiting ──┘                                ▼
//!     ▲                                    Running ── everything up to now has been told ──► Live
//!     └── its connection takes no more, or a turn changed too much ◄─────────────────────────┘
//! ```

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::num::NonZeroU32;

use base::{ConnectionId, Instant, RequestId, Revision};
use kv::{Point, Wanted};

use crate::few::{Few, Lists};
use crate::pages::Pages;
use crate::ranges::Ranges;

/// How far a watch has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is behind, and the store is to be asked.
    Waiting,
    /// The store reads for it.
    Running,
    /// Everything has been told; what changes is told at once.
    Live,
}

/// One watch. There may be a million of them that are told nothing for days, so it is small: who watches
/// several ranges has them in a list elsewhere, and who is told its progress by the clock is in one as well.
#[derive(Debug)]
pub struct Watcher {
    /// Whose.
    pub connection: ConnectionId,
    /// The request that it answers.
    pub request: RequestId,
    /// [`Self::next`]; revision 0: none.
    next_revision: Revision,
    next_sub: u32,
    /// What it watches; no two the same.
    groups: Few,
    /// With one group: its place there.
    place: u32,
    /// Tells it from earlier ones with the same request.
    pub serial: u32,
    /// The credit that its first reply gives back; none: it has been told that it has begun.
    pub credit: Option<NonZeroU32>,
    wanted: PackedWanted,
    /// How far it has come.
    pub stage: Stage,
    /// It is owed a progress.
    pub owes_progress: bool,
    /// It has been told something since the clock looked at it.
    pub told: bool,
}

const _: () = assert!(size_of::<Option<Watcher>>() == 48, "there may be a million of them");

impl Watcher {
    /// A watch that has to ask the store. None: it begins when the store says so. `credit` is not 0.
    pub fn new(
        connection: ConnectionId,
        request: RequestId,
        start: Option<Point>,
        wanted: Wanted,
        credit: u32,
    ) -> Self {
        let start = start.unwrap_or(Point { revision: Revision::ZERO, sub: 0 });
        Self {
            connection,
            request,
            next_revision: start.revision,
            next_sub: start.sub,
            groups: Few::NONE,
            place: 0,
            serial: 0,
            credit: Some(NonZeroU32::new(credit).expect("a watch has ranges")),
            wanted: PackedWanted::of(wanted),
            stage: Stage::Waiting,
            owes_progress: false,
            told: false,
        }
    }

    /// Everything before has been told; it only grows. None: it begins when the store says so.
    pub fn next(&self) -> Option<Point> {
        let next = Point { revision: self.next_revision, sub: self.next_sub };
        (next.revision > Revision::ZERO).then_some(next)
    }

    /// It goes on from `next`, or from later where it has come further.
    pub fn go_on(&mut self, next: Point) {
        if self.next() < Some(next) {
            (self.next_revision, self.next_sub) = (next.revision, next.sub);
        }
    }

    /// Forgets how far it has come.
    pub fn forget(&mut self) {
        self.next_revision = Revision::ZERO;
    }

    /// What of it is told.
    pub fn wanted(&self) -> Wanted {
        self.wanted.unpack()
    }

    /// Whether it watches several ranges.
    pub fn is_several(&self) -> bool {
        self.groups.only().is_none()
    }
}

/// [`Wanted`] in one byte.
#[derive(Clone, Copy, Debug)]
struct PackedWanted(u8);

impl PackedWanted {
    fn of(wanted: Wanted) -> Self {
        let Wanted { previous, keys_only, no_put, no_delete } = wanted;
        let bit = |at: u8, is_set: bool| u8::from(is_set) << at;
        Self(bit(0, previous) | bit(1, keys_only) | bit(2, no_put) | bit(3, no_delete))
    }

    fn unpack(self) -> Wanted {
        let bit = |at: u8| self.0 & (1 << at) != 0;
        Wanted { previous: bit(0), keys_only: bit(1), no_put: bit(2), no_delete: bit(3) }
    }
}

/// A watch that is told its progress by the clock. It may be gone.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The watch.
    pub slot: u32,
    /// And its serial number.
    pub serial: u32,
    /// Milliseconds of silence after which its progress is told.
    pub interval_ms: u32,
    /// When the clock last found that it had been told something.
    pub told_at: Instant,
}

/// The watches of one connection.
#[derive(Default)]
struct Connection {
    /// By request. A connection has few enough that moving those behind a place costs little.
    slots: Vec<u32>,
    /// How many the store reads for.
    running: usize,
    /// Those that are behind, in order; some may be gone.
    waiting: VecDeque<u32>,
}

impl Connection {
    /// Where a request stands among those of the connection, or belongs.
    fn find(&self, watchers: &Pages<Option<Watcher>>, request: RequestId) -> Result<usize, usize> {
        let of = |slot: &u32| watchers[*slot].as_ref().map(|watcher| watcher.request);
        // Most clients count.
        if self.slots.last().and_then(of) < Some(request) {
            return Err(self.slots.len());
        }
        self.slots.binary_search_by_key(&Some(request), of)
    }
}

/// Items of a list that is empty for now whose memory is kept.
const KEPT_MAX: usize = 64;

/// The same of the list that every turn with changes uses.
const TOUCHED_KEPT_MAX: usize = 16 << 10;

/// The watches of a reactor.
pub struct Watches {
    watchers: Pages<Option<Watcher>>,
    free: Vec<u32>,
    /// What is watched; the number of a range is that of its group.
    ranges: Ranges,
    /// Those who watch a range, by slot.
    groups: Pages<Few>,
    /// The lists of groups with several watches, and of watches with several groups.
    lists: Lists,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Groups in which a change of the batch in hand lies, and its number.
    touched: Vec<(u32, u32)>,
    /// Watches that are told their progress by the clock.
    pub timed: Vec<Timed>,
    /// Watches that owe a progress: slot and serial; some may be gone.
    pub owing: Vec<(u32, u32)>,
    count: usize,
    /// Those that are not live.
    behind: usize,
    next_serial: u32,
    /// Whether the store publishes its changes to this reactor.
    pub is_on: bool,
    /// Changes up to here have come from the store since it was asked to publish; none: not known.
    pub published: Option<Revision>,
}

fn index(at: u32) -> usize {
    usize::try_from(at).expect("an index fits usize")
}

impl Watches {
    /// None.
    pub fn new() -> Self {
        Self {
            watchers: Pages::new(),
            free: Vec::new(),
            ranges: Ranges::new(),
            groups: Pages::new(),
            lists: Lists::new(),
            connections: BTreeMap::new(),
            touched: Vec::new(),
            timed: Vec::new(),
            owing: Vec::new(),
            count: 0,
            behind: 0,
            next_serial: 0,
            is_on: false,
            published: None,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// How many of them have not been told everything yet.
    pub fn behind(&self) -> usize {
        self.behind
    }

    /// How many a connection has.
    pub fn of(&self, connection: ConnectionId) -> usize {
        self.connections.get(&connection).map_or(0, |own| own.slots.len())
    }

    /// The slots of the watches of a connection, greatest request first: so each is cheap to take out.
    pub fn slots_of(&self, connection: ConnectionId) -> Vec<u32> {
        let own = self.connections.get(&connection);
        own.map_or_else(Vec::new, |own| own.slots.iter().rev().copied().collect())
    }

    /// The connections that have watches.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// The slot of the watch that answers a request.
    pub fn find(&self, connection: ConnectionId, request: RequestId) -> Option<u32> {
        let own = self.connections.get(&connection)?;
        own.find(&self.watchers, request).ok().map(|place| own.slots[place])
    }

    /// The watch in a slot.
    pub fn get(&mut self, slot: u32) -> Option<&mut Watcher> {
        self.watchers.get_mut(slot)?.as_mut()
    }

    /// Takes a watch in; the slot. `ranges` are not empty, and requests name them so.
    pub fn insert<'r>(
        &mut self,
        mut watcher: Watcher,
        ranges: impl Iterator<Item = (&'r [u8], &'r [u8])>,
    ) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.watchers.push(None);
                self.watchers.len() - 1
            }
        };
        for (start, end) in ranges {
            let group = self.ranges.number(start, end);
            if self.groups.len() <= group {
                self.groups.push(Few::NONE);
            }
            let watchers = &mut self.groups[group];
            let place = self.lists.get(watchers).len();
            // The last one that came into the group is this one, where it names a range twice.
            if place == 0 || self.lists.get(watchers)[place - 1] != slot {
                watcher.place = u32::try_from(place).expect("watches are bounded");
                self.lists.push(watchers, slot);
                self.lists.push(&mut watcher.groups, group);
            }
        }
        watcher.serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        let own = self.connections.entry(watcher.connection).or_default();
        let place = own.find(&self.watchers, watcher.request).unwrap_or_else(|place| place);
        if own.slots.len() == own.slots.capacity() {
            // Doubling would leave a third of it unused on average.
            own.slots.reserve_exact((own.slots.len() / 8).max(4));
        }
        own.slots.insert(place, slot);
        self.behind += usize::from(watcher.stage != Stage::Live);
        self.watchers[slot] = Some(watcher);
        self.count += 1;
        slot
    }

    /// A watch is told its progress by the clock.
    pub fn time(&mut self, slot: u32, interval_ms: u32, told_at: Instant) {
        if let Some(watcher) = self.get(slot) {
            let serial = watcher.serial;
            self.timed.push(Timed { slot, serial, interval_ms, told_at });
        }
    }

    /// Takes a watch out.
    pub fn remove(&mut self, slot: u32) -> Option<Watcher> {
        let watcher = self.watchers.get(slot)?.as_ref()?;
        let own = self.connections.get_mut(&watcher.connection).expect("it has a watch");
        let place = own.find(&self.watchers, watcher.request).expect("it has this one");
        own.slots.remove(place);
        own.running -= usize::from(watcher.stage == Stage::Running);
        if own.slots.is_empty() {
            self.connections.remove(&watcher.connection);
        }
        let mut watcher = self.watchers[slot].take()?;
        for number in 0..self.lists.get(&watcher.groups).len() {
            let group = self.lists.get(&watcher.groups)[number];
            self.leave(slot, &watcher, group);
        }
        self.lists.clear(mem::replace(&mut watcher.groups, Few::NONE));
        self.free.push(slot);
        self.count -= 1;
        self.behind -= usize::from(watcher.stage != Stage::Live);
        if self.count == 0 {
            self.give_back();
        }
        Some(watcher)
    }

    /// Takes a watch out of a group, and the group out if it was the last.
    fn leave(&mut self, slot: u32, watcher: &Watcher, group: u32) {
        let own = &mut self.groups[group];
        let place = match watcher.groups.only() {
            Some(_) => index(watcher.place),
            None => {
                let place = self.lists.get(own).iter().position(|other| *other == slot);
                place.expect("a watch is in its groups")
            }
        };
        self.lists.swap_remove(own, place);
        match self.lists.get(own) {
            [] => self.ranges.remove(group),
            others => {
                let moved = others.get(place).copied();
                if let Some(moved) = moved.and_then(|moved| self.watchers[moved].as_mut()) {
                    moved.place = u32::try_from(place).expect("watches are bounded");
                }
            }
        }
    }

    /// Without watches there is nothing to keep memory for.
    fn give_back(&mut self) {
        self.watchers = Pages::new();
        self.free = Vec::new();
        self.ranges = Ranges::new();
        self.groups = Pages::new();
        self.lists = Lists::new();
    }

    /// A watch is behind: it goes on from `next`, or from later.
    pub fn fall_behind(&mut self, slot: u32, next: Point) {
        let Some(watcher) = self.watchers.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        debug_assert!(watcher.stage == Stage::Live, "{watcher:?} falls behind");
        self.behind += usize::from(watcher.stage == Stage::Live);
        watcher.go_on(next);
        watcher.stage = Stage::Waiting;
        let own = self.connections.entry(watcher.connection).or_default();
        own.waiting.push_back(slot);
    }

    /// A new watch has to ask the store.
    pub fn wait(&mut self, connection: ConnectionId, slot: u32) {
        self.connections.entry(connection).or_default().waiting.push_back(slot);
    }

    /// The next watch of a connection that the store is asked for; it runs from now on.
    pub fn next_waiting(&mut self, connection: ConnectionId, running_max: usize) -> Option<u32> {
        let own = self.connections.get_mut(&connection)?;
        while own.running < running_max
            && let Some(slot) = own.waiting.pop_front()
        {
            let watcher = self.watchers[slot].as_mut();
            let Some(watcher) = watcher.filter(|watcher| watcher.connection == connection) else {
                continue;
            };
            if watcher.stage == Stage::Waiting {
                watcher.stage = Stage::Running;
                own.running += 1;
                return Some(slot);
            }
        }
        if own.waiting.is_empty() {
            own.waiting.shrink_to(KEPT_MAX);
        }
        None
    }

    /// A new watch begins with what comes next.
    pub fn begin_live(&mut self, slot: u32) {
        if let Some(watcher) = self.watchers.get_mut(slot).and_then(Option::as_mut) {
            self.behind -= usize::from(watcher.stage != Stage::Live);
            watcher.stage = Stage::Live;
        }
    }

    /// The store has come to the end for a watch.
    pub fn caught_up(&mut self, slot: u32) {
        let Some(watcher) = self.watchers.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        self.behind -= usize::from(watcher.stage != Stage::Live);
        watcher.stage = Stage::Live;
        if let Some(own) = self.connections.get_mut(&watcher.connection) {
            own.running -= 1;
        }
    }

    /// The ranges of a watch, as requests name them.
    pub fn ranges_of(&self, slot: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        let watcher = self.watchers.get(slot).and_then(Option::as_ref);
        let groups = watcher.map_or(&[][..], |watcher| self.lists.get(&watcher.groups));
        groups.iter().map(|group| self.ranges.bounds(*group)).collect()
    }

    /// Every watch.
    pub fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.watchers.len()
    }

    /// Notes that the change with this number concerns `key`.
    pub fn touch(&mut self, key: &[u8], change: u32) {
        let touched = &mut self.touched;
        self.ranges.find(key, &mut |group| touched.push((group, change)));
    }

    /// The groups that are concerned, each with its changes, all in order.
    pub fn take_touched(&mut self) -> Vec<(u32, u32)> {
        let mut touched = mem::take(&mut self.touched);
        touched.sort_unstable();
        touched
    }

    /// Takes the memory of what [`Self::take_touched`] gave.
    pub fn recycle(&mut self, mut touched: Vec<(u32, u32)>) {
        touched.clear();
        touched.shrink_to(TOUCHED_KEPT_MAX);
        self.touched = touched;
    }

    /// Those who watch the range of a group, by slot.
    pub fn watchers_of(&self, group: u32) -> &[u32] {
        self.lists.get(&self.groups[group])
    }
}

#[cfg(test)]
mod tests {
    use base::Prng;

    use super::*;

    struct Model {
        slot: u32,
        connection: ConnectionId,
        request: RequestId,
        /// First letters of the prefixes that it watches.
        prefixes: Vec<u8>,
    }

    fn check(watches: &mut Watches, all: &[Model], letter: u8) {
        watches.touch(&[letter, b'x'], 7);
        let touched = watches.take_touched();
        let told = touched.iter().flat_map(|(group, change)| {
            assert_eq!(*change, 7);
            watches.watchers_of(*group).iter().copied()
        });
        let mut told: Vec<u32> = told.collect();
        watches.recycle(touched);
        told.sort_unstable();
        let concerned = all.iter().filter(|watch| watch.prefixes.contains(&letter));
        let mut expected: Vec<u32> = concerned.map(|watch| watch.slot).collect();
        expected.sort_unstable();
        assert_eq!(told, expected);
    }

    #[test]
    fn watches_are_found_by_request_and_by_key_and_the_last_gives_the_memory_back() {
        let mut prng = Prng::new(11);
        let mut watches = Watches::new();
        let mut all: Vec<Model> = Vec::new();
        for round in 0..15_000_u32 {
            // More of them come than go, then the other way round.
            let grows = round / 5_000 % 2 == 0;
            if all.is_empty() || prng.below(10) < if grows { 6 } else { 3 } {
                let slot = u32::try_from(prng.below(3)).expect("small");
                let connection = ConnectionId { slot, generation: 1 };
                let request = RequestId::new(prng.below(1 << 20));
                if watches.find(connection, request).is_some() {
                    continue;
                }
                let mut prefixes: Vec<u8> = Vec::new();
                for _ in 0..1 + prng.below(3) {
                    prefixes.push(b'a' + u8::try_from(prng.below(20)).expect("small"));
                }
                let next = prefixes.iter().map(|letter| [letter + 1]);
                let ends: Vec<[u8; 1]> = next.collect();
                let ranges =
                    prefixes.iter().map(core::slice::from_ref).zip(ends.iter().map(|end| &end[..]));
                let wanted = Wanted { no_put: prng.one_in(2), ..Wanted::default() };
                let watcher = Watcher::new(connection, request, None, wanted, 30);
                assert_eq!(watcher.wanted(), wanted);
                let slot = watches.insert(watcher, ranges);
                prefixes.sort_unstable();
                prefixes.dedup();
                let several = prefixes.len() > 1;
                assert_eq!(watches.get(slot).map(|own| own.is_several()), Some(several));
                let mut named: Vec<u8> =
                    watches.ranges_of(slot).iter().map(|(start, _)| start[0]).collect();
                named.sort_unstable();
                assert_eq!(named, prefixes);
                all.push(Model { slot, connection, request, prefixes });
            } else {
                let count = u64::try_from(all.len()).expect("small");
                let at = usize::try_from(prng.below(count)).expect("small");
                let gone = all.swap_remove(at);
                let watcher = watches.remove(gone.slot).expect("it is there");
                assert_eq!((watcher.connection, watcher.request), (gone.connection, gone.request));
                assert_eq!(watches.find(gone.connection, gone.request), None);
            }
            assert_eq!(watches.len(), all.len());
            if let Some(watch) = all.first() {
                assert_eq!(watches.find(watch.connection, watch.request), Some(watch.slot));
                let slots = watches.slots_of(watch.connection);
                let mut requests: Vec<RequestId> = Vec::new();
                for slot in slots {
                    requests.push(watches.get(slot).expect("it is there").request);
                }
                assert!(requests.is_sorted_by(|a, b| a > b), "{requests:?}");
                assert_eq!(watches.of(watch.connection), requests.len());
            }
            check(&mut watches, &all, b'a' + u8::try_from(prng.below(21)).expect("small"));
        }
        assert!(all.len() > 100);
        for watch in &all {
            watches.remove(watch.slot);
        }
        assert_eq!(watches.watchers.len() + watches.groups.len(), 0);
        assert!(watches.connections.is_empty());
        check(&mut watches, &[], b'a');
    }
}
