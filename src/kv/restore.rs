//! Restore: a state is made of the versions that another store has kept, in the order of their revisions.
//!
//! ```text
//! Restore::new -> lease* -> version*, with misses, growth, eviction and checkpoints in between
//!              -> finish*, one more checkpoint -> the state may be used
//! ```
//!
//! A version from the compacted revision on becomes an event, like that of a put or a delete. One before it
//! is only what its key has until another replaces it: its event counts as trimmed, so a store that has been
//! compacted is not made larger than it was. Which keys hang on leases is found at the end, for only the newest
//! version of a key does.
//!
//! As with an [`crate::Import`], checkpoints on the way say that the state is incomplete.

use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use base::limits::{KEY_SIZE_MAX, LEASES_MAX};
use base::{Alarm, Hash128, LeaseId, LogIndex, Revision, Term};
use tree::{Direction, KeyRange, NewCell, PageFile};

use crate::alarms::ALARMS_MAX;
use crate::keys::{CURRENT, EVENTS, Point};
use crate::lease::Lease;
use crate::members::MEMBERS_SIZE_MAX;
use crate::outcome::{Step, Stop};
use crate::refusal::Damage;
use crate::state::State;
use crate::unpack::Facts;
use crate::validate::LIMITS_OF_APPLY;
use crate::version::{
    Cause, Event, Kind, Live, Version, delete_hash, fits_inline, is_to_shed, needs_work, newest,
    version_hash,
};

/// Keys looked at in one step of the end.
const BATCH: usize = 256;

/// Why something cannot be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreRefusal {
    /// A key that no request could have.
    KeySize {
        /// How it begins.
        key: Vec<u8>,
        /// Its bytes.
        size: usize,
    },
    /// A value that no request could have.
    ValueSize {
        /// Of which key.
        key: Vec<u8>,
        /// Its bytes.
        size: usize,
    },
    /// A version that comes behind a later one.
    Order {
        /// When it was written.
        at: Point,
    },
    /// More leases than a store may have.
    Leases,
}

impl fmt::Display for RestoreRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeySize { key, size } => write!(
                f,
                "the key that begins with {} has {size} bytes, a key may have 1 to {KEY_SIZE_MAX}: \
                 delete it in the store that the snapshot is of, compact, and take another one",
                key.escape_ascii()
            ),
            Self::ValueSize { key, size } => write!(
                f,
                "the value of {} has {size} bytes, and the limit is {}: delete the key in the store that \
                 the snapshot is of, compact, and take another one",
                key.escape_ascii(),
                LIMITS_OF_APPLY.value_size_max
            ),
            Self::Order { at } => write!(
                f,
                "revision {} comes behind a later one: the file is damaged; use another copy",
                at.revision
            ),
            Self::Leases => {
                write!(f, "there are more than {LEASES_MAX} leases, which is the limit")
            }
        }
    }
}

impl core::error::Error for RestoreRefusal {}

/// What the state is to be at its end.
#[derive(Clone, Copy, Debug)]
pub struct RestoreEnd<'a> {
    /// The newest revision.
    pub revision: Revision,
    /// The entry that the log begins behind.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// What is kept about the members.
    pub members: &'a [u8],
    /// The alarms that are up, by kind and member.
    pub alarms: &'a [Alarm],
}

/// A state that is being made.
pub struct Restore {
    state: State,
    last: Option<Point>,
    /// Keys before this one have been hung on their leases.
    hung: Vec<u8>,
    unleased: u64,
}

impl Restore {
    /// A restore into an empty page file; `compacted`: the oldest revision that can be read in the end.
    pub fn new(pages: PageFile, compacted: Option<Revision>) -> Self {
        let mut state = State::create(pages);
        state.incomplete = true;
        state.compacted = compacted;
        if let Some(compacted) = compacted {
            state.trimmed = Point::before(compacted);
            state.shed = state.trimmed;
        }
        Self { state, last: None, hung: Vec::new(), unleased: 0 }
    }

    /// The state in the making, for its pages alone, as with [`crate::Import::state_mut`].
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The same, for its figures.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How many keys named a lease that is not there, and hang on none now.
    pub fn unleased(&self) -> u64 {
        self.unleased
    }

    /// Takes a lease. It begins its time when the state is used for the first time.
    ///
    /// # Errors
    /// It cannot be in a state.
    pub fn lease(&mut self, id: LeaseId, ttl_ms: u64) -> Result<Step<()>, RestoreRefusal> {
        if self.state.leases_count() >= LEASES_MAX {
            return Err(RestoreRefusal::Leases);
        }
        let deadline = ttl_ms.saturating_mul(1_000_000);
        let granted = LogIndex::ZERO;
        let lease = Lease { ttl_ms, deadline, granted, queued: deadline, of_put: false };
        let planned = self.state.plan_lease(id, &lease);
        if planned.is_ok() {
            self.state.add_lease(id, &lease);
        }
        Ok(planned.into())
    }

    /// Takes the next version of any key, or its end where `live` is none.
    ///
    /// # Errors
    /// It cannot be in a state.
    pub fn version(
        &mut self,
        at: Point,
        key: &[u8],
        live: Option<(Facts, &[u8])>,
    ) -> Result<Step<()>, RestoreRefusal> {
        if key.is_empty() || key.len() > KEY_SIZE_MAX {
            let size = key.len();
            return Err(RestoreRefusal::KeySize { key: key[..size.min(64)].to_vec(), size });
        }
        if let Some((_, value)) = live
            && value.len() > LIMITS_OF_APPLY.value_size_max
        {
            return Err(RestoreRefusal::ValueSize { key: key.to_vec(), size: value.len() });
        }
        if self.last.is_some_and(|last| last >= at) {
            return Err(RestoreRefusal::Order { at });
        }
        let written = self.write(at, key, live);
        if written.is_ok() {
            self.last = Some(at);
        }
        Ok(written.into())
    }

    fn write(&mut self, at: Point, key: &[u8], live: Option<(Facts, &[u8])>) -> Result<(), Stop> {
        let state = &mut self.state;
        let place = state.pages.seek(CURRENT, key)?;
        let kind = if live.is_some() { Kind::Put } else { Kind::Delete(Cause::Request) };
        let event = &mut state.scratch.event;
        event.clear();
        Event::encode(kind, key, event);
        let mut old = None;
        let (mut old_run, mut old_inline_size, mut old_size) = (None, 0, 0);
        if let Some(cell) = state.pages.cell_at(&place) {
            let (version, inline) =
                newest(&cell).ok_or_else(|| Damage::VersionMalformed(key.into()))?;
            event.extend_from_slice(cell.payload);
            (old_run, old_inline_size, old_size) = (cell.run, inline.len(), cell.payload.len());
            old = Some(version);
        }
        let is_kept = state.compacted.is_none_or(|compacted| at.revision >= compacted);
        if is_kept {
            let sheds = old.as_ref().is_some_and(|old| is_to_shed(at, key, old, old_size, old_run));
            let (counted, number) = (needs_work(kind, old_run), u64::from(sheds));
            let cell = NewCell { counted, number, payload: event, run: old_run };
            state.pages.put(EVENTS, &at.key(), &cell)?;
        }
        // From here on nothing can miss: the leaf of the key is in memory.
        let size = |size: usize| u64::try_from(size).expect("a size fits u64");
        if let Some(replaced) = old.and_then(|old| old.live) {
            state.live_sum = state.live_sum.minus(replaced.hash);
            state.live_keys_size -= size(key.len());
            state.live_inline_size -= size(old_inline_size);
        }
        match live {
            Some((facts, value)) => {
                let mut live = Live {
                    create: facts.create,
                    version: facts.version,
                    lease: facts.lease,
                    hash: Hash128::ZERO,
                };
                live.hash = version_hash(key, at, &live, value);
                let replaced = old.as_ref().filter(|_| is_kept);
                let version = Version::following(replaced, at, Some(live));
                let is_inline = fits_inline(key.len(), value.len());
                let payload = &mut state.scratch.version;
                payload.clear();
                version.encode(payload);
                if is_inline {
                    payload.extend_from_slice(value);
                }
                let run = if is_inline { None } else { Some(state.pages.create_run(value)) };
                let cell = NewCell { counted: true, number: at.revision.get(), payload, run };
                state.pages.put_at(place, key, &cell);
                state.live_sum = state.live_sum.plus(live.hash);
                state.events_sum = state.events_sum.plus(live.hash);
                state.live_keys_size += size(key.len());
                state.live_inline_size += if is_inline { size(value.len()) } else { 0 };
            }
            None => {
                if is_kept {
                    let payload = &mut state.scratch.version;
                    payload.clear();
                    Version::following(old.as_ref(), at, None).encode(payload);
                    let number = at.revision.get();
                    let cell = NewCell { counted: false, number, payload, run: None };
                    state.pages.put_at(place, key, &cell);
                } else if old.is_some() {
                    state.pages.remove(CURRENT, key)?;
                }
                let hash = delete_hash(key, at, Cause::Request);
                state.events_sum = state.events_sum.plus(hash);
            }
        }
        if let Some(run) = old_run.filter(|_| !is_kept) {
            state.pages.free_run(run);
        }
        Ok(())
    }

    /// Hangs the keys on their leases; done: the state is whole, and [`Restore::into_state`] hands it out.
    pub fn finish(&mut self, budget: &mut u32) -> Step<()> {
        loop {
            match self.hang(budget) {
                Ok(true) => return Step::Done(()),
                Ok(false) => {}
                Err(stop) => return Err(stop).into(),
            }
        }
    }

    /// The next keys; true: there are no more.
    fn hang(&mut self, budget: &mut u32) -> Result<bool, Stop> {
        crate::outcome::charge(budget)?;
        let state = &mut self.state;
        let (mut found, mut seen, mut damage) = (Vec::new(), 0, None);
        let mut last = Vec::new();
        let range = KeyRange { start: &self.hung, end: None };
        let visit = &mut |cell: tree::Cell<'_>| {
            let Some((version, _)) = newest(&cell) else {
                damage = Some(Damage::VersionMalformed(cell.key.into()));
                return ControlFlow::Break(());
            };
            if let Some(live) = version.live.filter(|live| live.lease != LeaseId::new(0)) {
                found.push((cell.key.to_vec(), live.lease));
            }
            seen += 1;
            if seen < BATCH {
                return ControlFlow::Continue(());
            }
            last.extend_from_slice(cell.key);
            ControlFlow::Break(())
        };
        state.pages.walk(CURRENT, range, Direction::Ascending, &mut |_| false, visit)?;
        if let Some(damage) = damage {
            return Err(Stop::Damaged(damage));
        }
        for (key, lease) in &found {
            if state.lease_at(*lease)?.is_some() {
                state.plan_attach(*lease, key)?;
                state.attach(*lease, key);
            } else {
                state.take_lease_off(key)?;
                self.unleased += 1;
            }
        }
        if seen < BATCH {
            return Ok(true);
        }
        // The first key behind the last one.
        last.push(0);
        self.hung = last;
        Ok(false)
    }

    /// The state, behind the last key. It takes one more checkpoint, begun from now on, before it can be opened.
    ///
    /// # Panics
    /// If more is known about the members than a state keeps, or the newest version is later than the end.
    pub fn into_state(self, end: &RestoreEnd<'_>) -> State {
        assert!(end.members.len() <= MEMBERS_SIZE_MAX, "{} bytes of members", end.members.len());
        let last = self.last.map_or(Revision::new(1), |last| last.revision);
        assert!(last <= end.revision, "a version of {last} in a state of {}", end.revision);
        let mut state = self.state;
        state.set_members_at_creation(end.members);
        let alarms = end.alarms;
        assert!(alarms.len() <= ALARMS_MAX && alarms.is_sorted_by(|a, b| a < b), "{alarms:?}");
        state.alarms = alarms.to_vec();
        state.begin_at(end.revision, end.applied, end.term);
        state.incomplete = false;
        state
    }
}

impl State {
    /// Has the newest version of a key hang on no lease.
    fn take_lease_off(&mut self, key: &[u8]) -> Result<(), Stop> {
        let place = self.pages.seek(CURRENT, key)?;
        let malformed = || Damage::VersionMalformed(key.into());
        let cell = self.pages.cell_at(&place).ok_or_else(malformed)?;
        let (version, inline) = newest(&cell).ok_or_else(malformed)?;
        let (Some(old), run) = (version.live, cell.run) else { return Ok(()) };
        let value = match &run {
            Some(run) => self.pages.run(run)?,
            None => inline,
        };
        let mut live = Live { lease: LeaseId::new(0), ..old };
        live.hash = version_hash(key, version.at, &live, value);
        let payload = &mut self.scratch.version;
        payload.clear();
        Version { live: Some(live), ..version }.encode(payload);
        payload.extend_from_slice(inline);
        let number = version.at.revision.get();
        let cell = NewCell { counted: true, number, payload, run };
        self.pages.put_at(place, key, &cell);
        self.live_sum = self.live_sum.minus(old.hash).plus(live.hash);
        self.events_sum = self.events_sum.minus(old.hash).plus(live.hash);
        Ok(())
    }
}
