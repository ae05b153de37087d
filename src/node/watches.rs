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

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{ConnectionId, Instant, RequestId, Revision};
use hashbrown::HashMap;
use kv::{Point, Wanted};

use crate::intervals::{End, Intervals};

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

/// The groups of a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Groups {
    /// Most have one range.
    One(u32),
    /// No two the same.
    Many(Box<[u32]>),
}

impl Groups {
    /// As a list.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(group) => core::slice::from_ref(group),
            Self::Many(groups) => groups,
        }
    }
}

/// One watch.
#[derive(Debug)]
pub struct Watcher {
    /// Whose.
    pub connection: ConnectionId,
    /// The request that it answers.
    pub request: RequestId,
    /// Everything before has been told; it only grows. None: it begins when the store says so.
    pub next: Option<Point>,
    /// What it watches.
    pub groups: Groups,
    /// With one group: its place there.
    pub place: u32,
    /// What of it is told.
    pub wanted: Wanted,
    /// How far it has come.
    pub stage: Stage,
    /// It has been told that it has begun.
    pub created: bool,
    /// It is owed a progress.
    pub owes_progress: bool,
    /// Tells it from earlier ones with the same request.
    pub serial: u32,
    /// The credit that its first reply gives back.
    pub credit: u32,
    /// Milliseconds of silence after which its progress is told; 0: never.
    pub progress_interval_ms: u32,
    /// When it was told something last.
    pub told_at: Instant,
}

/// Those who watch one range.
struct Group {
    start: Arc<[u8]>,
    range: Range,
    /// By slot.
    watchers: Vec<u32>,
    /// Changes of the batch in hand that lie in it.
    changes: Vec<u32>,
}

#[derive(Clone)]
enum Range {
    Single,
    To(End),
}

/// The watches of one connection.
#[derive(Default)]
struct Connection {
    by_request: BTreeMap<RequestId, u32>,
    /// How many the store reads for.
    running: usize,
    /// Those that are behind, in order; some may be gone.
    waiting: VecDeque<u32>,
}

/// The watches of a reactor.
pub struct Watches {
    watchers: Vec<Option<Watcher>>,
    free: Vec<u32>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    keys: HashMap<Arc<[u8]>, u32>,
    ranges: Intervals,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Groups in which a change of the batch in hand lies.
    touched: Vec<u32>,
    /// Watches that tell their progress by the clock.
    /// By slot and serial; some may be gone.
    pub timed: Vec<(u32, u32)>,
    /// Watches that owe a progress.
    pub owing: Vec<(u32, u32)>,
    count: usize,
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
            watchers: Vec::new(),
            free: Vec::new(),
            groups: Vec::new(),
            free_groups: Vec::new(),
            keys: HashMap::new(),
            ranges: Intervals::new(),
            connections: BTreeMap::new(),
            touched: Vec::new(),
            timed: Vec::new(),
            owing: Vec::new(),
            count: 0,
            next_serial: 0,
            is_on: false,
            published: None,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// How many a connection has.
    pub fn of(&self, connection: ConnectionId) -> usize {
        self.connections.get(&connection).map_or(0, |own| own.by_request.len())
    }

    /// The slots of the watches of a connection.
    pub fn slots_of(&self, connection: ConnectionId) -> Vec<u32> {
        let own = self.connections.get(&connection);
        own.map_or_else(Vec::new, |own| own.by_request.values().copied().collect())
    }

    /// The connections that have watches.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// The slot of the watch that answers a request.
    pub fn find(&self, connection: ConnectionId, request: RequestId) -> Option<u32> {
        self.connections.get(&connection)?.by_request.get(&request).copied()
    }

    /// The watch in a slot.
    pub fn get(&mut self, slot: u32) -> Option<&mut Watcher> {
        self.watchers.get_mut(index(slot))?.as_mut()
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
                u32::try_from(self.watchers.len() - 1).expect("watches are bounded")
            }
        };
        let mut groups: Vec<u32> = ranges.map(|(start, end)| self.group(start, end)).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in &groups {
            let watchers = &mut self.groups[index(*group)].watchers;
            watcher.place = u32::try_from(watchers.len()).expect("watches are bounded");
            watchers.push(slot);
        }
        watcher.groups = match groups.as_slice() {
            [group] => Groups::One(*group),
            _ => Groups::Many(groups.into()),
        };
        watcher.serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        if watcher.progress_interval_ms > 0 {
            self.timed.push((slot, watcher.serial));
        }
        let own = self.connections.entry(watcher.connection).or_default();
        own.by_request.insert(watcher.request, slot);
        self.watchers[index(slot)] = Some(watcher);
        self.count += 1;
        slot
    }

    /// The group of a range.
    fn group(&mut self, start: &[u8], range_end: &[u8]) -> u32 {
        let range = match range_end {
            [] => Range::Single,
            [0] => Range::To(None),
            end => Range::To(Some(Arc::from(end))),
        };
        let known = match &range {
            Range::Single => self.keys.get(start).copied(),
            Range::To(end) => self.ranges.get(start, end),
        };
        if let Some(group) = known {
            return group;
        }
        let start: Arc<[u8]> = Arc::from(start);
        let new = Group {
            start: start.clone(),
            range: range.clone(),
            watchers: Vec::new(),
            changes: Vec::new(),
        };
        let group = match self.free_groups.pop() {
            Some(group) => {
                self.groups[index(group)] = new;
                group
            }
            None => {
                self.groups.push(new);
                u32::try_from(self.groups.len() - 1).expect("watches are bounded")
            }
        };
        match range {
            Range::Single => {
                self.keys.insert(start, group);
            }
            Range::To(end) => self.ranges.insert(start, end, group),
        }
        group
    }

    /// Takes a watch out.
    pub fn remove(&mut self, slot: u32) -> Option<Watcher> {
        let watcher = self.watchers.get_mut(index(slot))?.take()?;
        self.free.push(slot);
        self.count -= 1;
        for group in watcher.groups.as_slice() {
            let own = &mut self.groups[index(*group)];
            let place = match &watcher.groups {
                Groups::One(_) => Some(index(watcher.place)),
                Groups::Many(_) => own.watchers.iter().position(|other| *other == slot),
            };
            if let Some(place) = place {
                own.watchers.swap_remove(place);
                let moved = own.watchers.get(place).map(|moved| index(*moved));
                if let Some(moved) = moved.and_then(|moved| self.watchers[moved].as_mut()) {
                    moved.place = u32::try_from(place).expect("watches are bounded");
                }
            }
            if own.watchers.is_empty() {
                match &own.range {
                    Range::Single => {
                        self.keys.remove(&own.start);
                    }
                    Range::To(end) => self.ranges.remove(&own.start, end),
                }
                self.free_groups.push(*group);
            }
        }
        if let Some(own) = self.connections.get_mut(&watcher.connection) {
            own.by_request.remove(&watcher.request);
            own.running -= usize::from(watcher.stage == Stage::Running);
            if own.by_request.is_empty() {
                self.connections.remove(&watcher.connection);
            }
        }
        Some(watcher)
    }

    /// A watch is behind: it goes on from `next`, or from later.
    pub fn fall_behind(&mut self, slot: u32, next: Point) {
        let Some(watcher) = self.watchers.get_mut(index(slot)).and_then(Option::as_mut) else {
            return;
        };
        debug_assert!(watcher.stage == Stage::Live, "{watcher:?} falls behind");
        watcher.next = watcher.next.max(Some(next));
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
            let watcher = self.watchers[index(slot)].as_mut();
            let Some(watcher) = watcher.filter(|watcher| watcher.connection == connection) else {
                continue;
            };
            if watcher.stage == Stage::Waiting {
                watcher.stage = Stage::Running;
                own.running += 1;
                return Some(slot);
            }
        }
        None
    }

    /// The store has come to the end for a watch.
    pub fn caught_up(&mut self, slot: u32) {
        let Some(watcher) = self.watchers.get_mut(index(slot)).and_then(Option::as_mut) else {
            return;
        };
        watcher.stage = Stage::Live;
        if let Some(own) = self.connections.get_mut(&watcher.connection) {
            own.running -= 1;
        }
    }

    /// The ranges of a watch, as requests name them.
    pub fn ranges_of(&self, groups: &Groups) -> Vec<(Arc<[u8]>, Vec<u8>)> {
        let range = |group: &u32| {
            let group = &self.groups[index(*group)];
            let end = match &group.range {
                Range::Single => Vec::new(),
                Range::To(None) => [0].to_vec(),
                Range::To(Some(end)) => end.to_vec(),
            };
            (group.start.clone(), end)
        };
        groups.as_slice().iter().map(range).collect()
    }

    /// Every watch.
    pub fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        let count = u32::try_from(self.watchers.len()).expect("watches are bounded");
        0..count
    }

    /// Notes that the change with this number concerns `key`.
    pub fn touch(&mut self, key: &[u8], change: u32) {
        let (groups, touched) = (&mut self.groups, &mut self.touched);
        let mut note = |group: u32| {
            let changes = &mut groups[index(group)].changes;
            if changes.is_empty() {
                touched.push(group);
            }
            changes.push(change);
        };
        if let Some(group) = self.keys.get(key) {
            note(*group);
        }
        self.ranges.find(key, &mut note);
    }

    /// A group that is concerned, with its watches and changes; each group once.
    pub fn take_touched(&mut self) -> Option<(u32, Vec<u32>, Vec<u32>)> {
        let group = self.touched.pop()?;
        let own = &mut self.groups[index(group)];
        Some((group, core::mem::take(&mut own.watchers), core::mem::take(&mut own.changes)))
    }

    /// Gives back what [`Self::take_touched`] took.
    pub fn put_back(&mut self, group: u32, watchers: Vec<u32>, mut changes: Vec<u32>) {
        let own = &mut self.groups[index(group)];
        own.watchers = watchers;
        changes.clear();
        own.changes = changes;
    }
}
