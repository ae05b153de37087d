//! Leases: how long they live, the keys that hang on them, and which of them is due.
//!
//! ```text
//! tree 4  leases     lease            -> ttl ms u64 | deadline u64 | granted u64 | queued u64 | flags u8   counted
//! tree 5  their keys lease | user key -> nothing                                                  counted
//! tree 6  deadlines  queued u64 | lease -> nothing
//! ```
//!
//! A lease in a key is its id with the sign turned round, big endian, so that keys are in the order of
//! ids. Times are log time: nanoseconds that leaders have counted since the cluster began, as they stand in
//! the entries. Nothing here knows a clock: a lease ends because an entry says that it has, and that its
//! time has come.
//!
//! `granted` is the index of the entry that made the lease; with it an entry that ends a lease names the
//! very one. `queued` is where the lease stands among the deadlines, at its deadline or before: a renewal
//! moves the deadline alone, and who finds a lease at its old place moves it on ([`State::due`]). Each
//! member does that by itself, so neither `queued` nor the third tree takes part in a hash.
//!
//! A lease that was made by a put (flag 1) lives no longer than the last key that hangs on it.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::limits::{LEASE_TTL_MIN_MS, LEASES_MAX};
use base::{Hash128, Hasher128, LeaseId, LogIndex, Mutant};
use tree::{Direction, KeyRange, Miss, NewCell, TreeId};

use crate::command::{Command, Put};
use crate::outcome::{Outcome, Stop, charge};
use crate::refusal::{Damage, Refusal};
use crate::state::State;
use crate::version::{Cause, Reader};

/// Lease -> what stands about it.
pub(crate) const LEASES: TreeId = TreeId(4);

/// (lease, user key) -> nothing.
pub(crate) const LEASE_KEYS: TreeId = TreeId(5);

/// (queued, lease) -> nothing.
pub(crate) const DEADLINES: TreeId = TreeId(6);

/// Bytes of a lease in a key.
pub(crate) const LEASE_SIZE: usize = 8;

/// The first id that the state chooses by itself, the ids from there on, and the bits of one that the
/// index of the entry gives; those above are the log time. Part of the format.
const CHOSEN: i64 = 0x4000_0000_0000_0000;
const CHOSEN_MASK: u64 = u64::MAX >> 2;
const CHOSEN_INDEX_MASK: u64 = (1 << 20) - 1;

/// The step from an id that is taken to the next: odd, so that it comes to each. Part of the format.
const CHOSEN_STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

fn choice(time: u64, index: LogIndex) -> u64 {
    (time & !CHOSEN_INDEX_MASK) | (index.get() & CHOSEN_INDEX_MASK)
}

fn chosen(number: u64) -> LeaseId {
    LeaseId::new(CHOSEN.wrapping_add_unsigned(number & CHOSEN_MASK))
}

/// The id that the entry at `index` with log time `time` chooses for its lease, if that is free.
pub fn first_choice(time: u64, index: LogIndex) -> LeaseId {
    chosen(choice(time, index))
}

/// Keys found in one walk and then deleted one by one.
const BATCH: usize = 64;

/// Flag of a lease that was made by a put.
const OF_PUT: u8 = 1;

/// A lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Milliseconds that it lives from its grant or its last renewal on.
    pub ttl_ms: u64,
    /// The log time at which its time is up.
    pub deadline: u64,
    /// The entry that made it.
    pub granted: LogIndex,
    /// Where it stands among the deadlines.
    pub(crate) queued: u64,
    /// Whether it was made by a put.
    pub of_put: bool,
}

impl Lease {
    fn encode(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        let numbers = [self.ttl_ms, self.deadline, self.granted.get(), self.queued];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[32] = if self.of_put { OF_PUT } else { 0 };
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let lease = Self {
            ttl_ms: reader.u64()?,
            deadline: reader.u64()?,
            granted: LogIndex::new(reader.u64()?),
            queued: reader.u64()?,
            of_put: match reader.u8()? {
                0 => false,
                OF_PUT => true,
                _ => return None,
            },
        };
        reader.0.is_empty().then_some(lease)
    }

    /// What it adds to the sum over all leases.
    pub(crate) fn hash(&self, id: LeaseId) -> Hash128 {
        let mut hasher = Hasher128::new();
        hasher.update(b"L");
        let numbers = [self.ttl_ms, self.deadline, self.granted.get(), u64::from(self.of_put)];
        hasher.update(&id.get().to_le_bytes());
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        hasher.finish()
    }
}

/// A lease in a key.
pub(crate) fn lease_key(id: LeaseId) -> [u8; LEASE_SIZE] {
    (id.get() ^ i64::MIN).to_be_bytes()
}

/// The lease in a key of one of the trees.
pub(crate) fn lease_of_key(key: &[u8]) -> Option<LeaseId> {
    let bytes = key.first_chunk::<LEASE_SIZE>()?;
    Some(LeaseId::new(i64::from_be_bytes(*bytes) ^ i64::MIN))
}

/// The key under which a user key hangs on a lease.
pub(crate) fn attachment(id: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEASE_SIZE + key.len());
    out.extend_from_slice(&lease_key(id));
    out.extend_from_slice(key);
    out
}

/// The key of a place among the deadlines.
pub(crate) fn deadline_key(queued: u64, id: LeaseId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&queued.to_be_bytes());
    key[8..].copy_from_slice(&lease_key(id));
    key
}

/// The keys of a lease, as a range.
fn keys_of(id: LeaseId) -> ([u8; LEASE_SIZE], Option<[u8; LEASE_SIZE]>) {
    let end = id.get().checked_add(1).map(|next| lease_key(LeaseId::new(next)));
    (lease_key(id), end)
}

const NO_CELL: NewCell<'static> = NewCell { counted: false, number: 0, payload: &[], run: None };
const COUNTED: NewCell<'static> = NewCell { counted: true, ..NO_CELL };

const RESIDENT: &str = "the page was seen to be in memory before the first change";

/// What becomes of the lease that a key leaves; everything that it touches is in memory.
pub(crate) enum Leaves {
    /// The key hung on none, or stays.
    Nothing,
    /// The key goes.
    Key(LeaseId),
    /// The key goes, and the lease, which was made for it.
    All(LeaseId, Lease),
}

/// How far renewing has come.
#[derive(Debug, Default)]
pub(crate) struct Renewing {
    ttls_ms: Vec<u64>,
}

/// A lease whose time is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Which.
    pub lease: LeaseId,
    /// The entry that made it.
    pub granted: LogIndex,
}

impl State {
    /// How many leases there are.
    pub fn leases_count(&self) -> u64 {
        self.pages.summary(LEASES).count
    }

    /// The greatest log time of all entries that have been applied.
    pub fn log_time(&self) -> u64 {
        self.time
    }

    /// What stands about a lease.
    pub(crate) fn lease_at(&self, id: LeaseId) -> Result<Option<Lease>, Stop> {
        let Some(cell) = self.pages.get(LEASES, &lease_key(id))? else { return Ok(None) };
        Ok(Some(Lease::decode(cell.payload).ok_or(Damage::LeaseMalformed(id))?))
    }

    /// The first page that a change of `key` in `tree` misses.
    fn need_page(&self, tree: TreeId, key: &[u8]) -> Result<(), Stop> {
        self.pages.missing(tree, key).map_or(Ok(()), |miss| Err(miss.into()))
    }

    /// Sees to it that a key can be hung on a lease without a miss.
    pub(crate) fn plan_attach(&self, id: LeaseId, key: &[u8]) -> Result<(), Stop> {
        self.need_page(LEASE_KEYS, &attachment(id, key))
    }

    /// What becomes of the lease `id`, which `key` leaves.
    pub(crate) fn plan_leave(&self, id: LeaseId, key: &[u8]) -> Result<Leaves, Stop> {
        if id == LeaseId::new(0) || Mutant::DetachForgets.is_on() {
            return Ok(Leaves::Nothing);
        }
        self.need_page(LEASE_KEYS, &attachment(id, key))?;
        let Some(lease) = self.lease_at(id)?.filter(|lease| lease.of_put) else {
            return Ok(Leaves::Key(id));
        };
        let mut others = false;
        let (start, end) = keys_of(id);
        let range = KeyRange { start: &start, end: end.as_ref().map(|end| &end[..]) };
        let visit = &mut |cell: tree::Cell<'_>| {
            others |= &cell.key[LEASE_SIZE..] != key;
            if others { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.pages.walk(LEASE_KEYS, range, Direction::Ascending, &mut |_| false, visit)?;
        if others || self.spared.contains(&id) || Mutant::PutLeaseStays.is_on() {
            return Ok(Leaves::Key(id));
        }
        self.need_page(DEADLINES, &deadline_key(lease.queued, id))?;
        Ok(Leaves::All(id, lease))
    }

    /// Carries out what [`Self::plan_leave`] has found.
    pub(crate) fn leave(&mut self, leaves: &Leaves, key: &[u8]) {
        match leaves {
            Leaves::Nothing => {}
            Leaves::Key(id) => {
                self.pages.remove(LEASE_KEYS, &attachment(*id, key)).expect(RESIDENT);
            }
            Leaves::All(id, lease) => {
                self.pages.remove(LEASE_KEYS, &attachment(*id, key)).expect(RESIDENT);
                self.drop_lease(*id, lease).expect(RESIDENT);
            }
        }
    }

    /// Hangs a key on a lease, after [`Self::plan_attach`].
    pub(crate) fn attach(&mut self, id: LeaseId, key: &[u8]) {
        self.pages.put(LEASE_KEYS, &attachment(id, key), &COUNTED).expect(RESIDENT);
    }

    fn drop_lease(&mut self, id: LeaseId, lease: &Lease) -> Result<(), Miss> {
        self.pages.remove(LEASES, &lease_key(id))?;
        self.pages.remove(DEADLINES, &deadline_key(lease.queued, id))?;
        self.leases_sum = self.leases_sum.minus(lease.hash(id));
        Ok(())
    }

    /// Takes the leases of puts away that a transaction has left without a key, among those that its
    /// puts name: while it ran they were spared, for a later operation might have hung a key on them.
    pub(crate) fn drop_emptied(&mut self) -> Result<(), Stop> {
        for place in 0..self.spared.len() {
            let id = self.spared[place];
            let Some(lease) = self.lease_at(id)?.filter(|lease| lease.of_put) else { continue };
            let mut is_empty = true;
            let (start, end) = keys_of(id);
            let range = KeyRange { start: &start, end: end.as_ref().map(|end| &end[..]) };
            let visit = &mut |_: tree::Cell<'_>| {
                is_empty = false;
                ControlFlow::Break(())
            };
            self.pages.walk(LEASE_KEYS, range, Direction::Ascending, &mut |_| false, visit)?;
            if is_empty && !Mutant::PutLeaseStays.is_on() {
                self.plan_lease(id, &lease)?;
                self.drop_lease(id, &lease)?;
            }
        }
        Ok(())
    }

    /// The id for a lease that the present entry makes without naming one: its log time, with its index
    /// in the place of the last millisecond. Indexes alone come again where a log goes on from a state
    /// that is older than what was lost, and a client that still holds an id of that would hold a
    /// stranger's lease. One that is taken is left by a great stride: a client that takes many
    /// neighbours of it must not make each choice a long walk.
    fn choose_lease(&self, time: u64) -> Result<LeaseId, Stop> {
        let mut number = choice(time, self.applied_next());
        loop {
            let id = chosen(number);
            if self.pages.get(LEASES, &lease_key(id))?.is_none() {
                return Ok(id);
            }
            number = number.wrapping_add(CHOSEN_STRIDE);
        }
    }

    /// The lease that an entry with log time `time` makes.
    fn new_lease(&self, time: u64, ttl_ms: u64, of_put: bool) -> Lease {
        let ttl_ms = ttl_ms.max(LEASE_TTL_MIN_MS);
        let deadline = time.saturating_add(ttl_ms.saturating_mul(1_000_000));
        let granted = self.applied_next();
        Lease { ttl_ms, deadline, granted, queued: deadline, of_put }
    }

    /// Sees to it that a lease can be added without a miss.
    pub(crate) fn plan_lease(&self, id: LeaseId, lease: &Lease) -> Result<(), Stop> {
        self.need_page(LEASES, &lease_key(id))?;
        self.need_page(DEADLINES, &deadline_key(lease.queued, id))
    }

    /// Adds a lease, after [`Self::plan_lease`].
    pub(crate) fn add_lease(&mut self, id: LeaseId, lease: &Lease) {
        let cell = NewCell { payload: &lease.encode(), ..COUNTED };
        self.pages.put(LEASES, &lease_key(id), &cell).expect(RESIDENT);
        self.pages.put(DEADLINES, &deadline_key(lease.queued, id), &NO_CELL).expect(RESIDENT);
        self.leases_sum = self.leases_sum.plus(lease.hash(id));
    }

    /// Notes the log time of an entry.
    pub(crate) fn note_time(&mut self, time: u64) {
        self.time = self.time.max(time);
    }

    /// Makes a lease.
    pub(crate) fn grant(&mut self, time: u64, id: LeaseId, ttl_ms: u64) -> Result<Outcome, Stop> {
        if self.leases_count() >= LEASES_MAX {
            return Ok(Outcome::Refused(Refusal::TooManyLeases));
        }
        let chosen = if id == LeaseId::new(0) { self.choose_lease(time)? } else { id };
        if self.lease_at(chosen)?.is_some() {
            return Ok(Outcome::Refused(Refusal::LeaseExists));
        }
        let lease = self.new_lease(time, ttl_ms, false);
        self.plan_lease(chosen, &lease)?;
        self.add_lease(chosen, &lease);
        Ok(Outcome::Granted { revision: self.revision, lease: chosen, ttl_ms: lease.ttl_ms })
    }

    /// Writes a key and makes a lease for it.
    pub(crate) fn put_with_ttl(
        &mut self,
        time: u64,
        put: &Put<'_>,
        ttl_ms: u64,
    ) -> Result<Outcome, Stop> {
        if self.leases_count() >= LEASES_MAX {
            return Ok(Outcome::Refused(Refusal::TooManyLeases));
        }
        let id = self.choose_lease(time)?;
        let lease = self.new_lease(time, ttl_ms, true);
        self.plan_lease(id, &lease)?;
        if let Err(refusal) = self.put(&Put { lease: id, ..*put }, Some(&lease))? {
            return Ok(Outcome::Refused(refusal));
        }
        Ok(Outcome::PutWithLease { revision: self.revision.next(), lease: id })
    }

    /// Lets leases begin their time anew.
    pub(crate) fn renew(
        &mut self,
        time: u64,
        ids: &[u8],
        renewing: &mut Renewing,
        budget: &mut u32,
    ) -> Result<Outcome, Stop> {
        let (ids, _) = ids.as_chunks::<8>();
        while let Some(id) = ids.get(renewing.ttls_ms.len()) {
            charge(budget)?;
            let id = LeaseId::new(i64::from_le_bytes(*id));
            let Some(old) = self.lease_at(id)? else {
                renewing.ttls_ms.push(0);
                continue;
            };
            let lived = if Mutant::RenewalShort.is_on() { old.ttl_ms / 2 } else { old.ttl_ms };
            let deadline = time.saturating_add(lived.saturating_mul(1_000_000));
            let new = Lease { deadline: deadline.max(old.deadline), ..old };
            if !Mutant::RenewalLost.is_on() {
                let cell = NewCell { payload: &new.encode(), ..COUNTED };
                self.pages.put(LEASES, &lease_key(id), &cell)?;
                self.leases_sum = self.leases_sum.minus(old.hash(id)).plus(new.hash(id));
                // Renewed again by the same entry it stays as it is: a restart begins anew.
                self.steps = self.steps.saturating_add(1);
            }
            renewing.ttls_ms.push(old.ttl_ms);
        }
        let ttls_ms = core::mem::take(&mut renewing.ttls_ms);
        Ok(Outcome::Renewed { revision: self.revision, ttls_ms })
    }

    /// Ends a lease because a client asks for it.
    pub(crate) fn revoke(&mut self, id: LeaseId, budget: &mut u32) -> Result<Outcome, Stop> {
        if self.lease_at(id)?.is_none() && self.sub == 0 {
            return Ok(Outcome::Refused(Refusal::LeaseNotFound));
        }
        self.end_lease(id, Cause::Revoked, false, budget)?;
        let (revision, deleted) = (self.revision_of_changes(), u64::from(self.sub));
        Ok(Outcome::Revoked { revision, deleted })
    }

    /// Ends a lease because its time is up, if it is that very lease, and it is.
    pub(crate) fn expire(
        &mut self,
        time: u64,
        due: Due,
        per_key: bool,
        budget: &mut u32,
    ) -> Result<Outcome, Stop> {
        let is_due = |lease: &Lease| {
            lease.granted == due.granted
                && (lease.deadline <= time || Mutant::ExpiresRenewed.is_on())
        };
        let has_begun = self.sub > 0 || self.steps > 0;
        if !has_begun && !self.lease_at(due.lease)?.is_some_and(|lease| is_due(&lease)) {
            return Ok(Outcome::Nothing);
        }
        self.end_lease(due.lease, Cause::Expired, per_key, budget)?;
        Ok(Outcome::Expired { deleted: u64::from(self.sub) + u64::from(self.steps) })
    }

    /// Deletes the keys of a lease in order, then the lease. Called again it goes on with those that are
    /// left.
    fn end_lease(
        &mut self,
        id: LeaseId,
        cause: Cause,
        per_key: bool,
        budget: &mut u32,
    ) -> Result<(), Stop> {
        let (start, end) = keys_of(id);
        let range = KeyRange { start: &start, end: end.as_ref().map(|end| &end[..]) };
        loop {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let visit = &mut |cell: tree::Cell<'_>| {
                keys.push(cell.key[LEASE_SIZE..].to_vec());
                if keys.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let walked =
                self.pages.walk(LEASE_KEYS, range, Direction::Ascending, &mut |_| false, visit);
            if keys.is_empty() || Mutant::KeysLeftBehind.is_on() {
                walked?;
                break;
            }
            for key in &keys {
                charge(budget)?;
                let cause = if Mutant::CauseUntold.is_on() { Cause::Request } else { cause };
                if !self.delete(key, cause)? {
                    return Err(Stop::Damaged(Damage::LeaseMalformed(id)));
                }
                if per_key {
                    self.complete_revision();
                }
            }
        }
        // One that was made by a put has gone with its last key.
        if let Some(lease) = self.lease_at(id)?
            && !(Mutant::RevokedStays.is_on() && cause == Cause::Revoked)
        {
            self.plan_lease(id, &lease)?;
            self.drop_lease(id, &lease)?;
        }
        Ok(())
    }

    /// Tells the pages of the trees of leases that applying `command` will miss, as far as it names them,
    /// until `tell` breaks.
    pub(crate) fn foresee_leases(
        &self,
        command: &Command<'_>,
        tell: &mut dyn FnMut(Miss) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut page = |tree, key: &[u8]| {
            self.pages.missing(tree, key).map_or(ControlFlow::Continue(()), &mut *tell)
        };
        match command {
            Command::Put(put) if put.lease != LeaseId::new(0) => {
                page(LEASES, &lease_key(put.lease))?;
                page(LEASE_KEYS, &attachment(put.lease, put.key))
            }
            Command::LeaseGrant { lease, .. } if *lease != LeaseId::new(0) => {
                page(LEASES, &lease_key(*lease))
            }
            Command::LeaseKeepAlive { leases, .. } => {
                let (ids, _) = leases.as_chunks::<LEASE_SIZE>();
                ids.iter()
                    .map(|id| LeaseId::new(i64::from_le_bytes(*id)))
                    .try_for_each(|id| page(LEASES, &lease_key(id)))
            }
            Command::LeaseRevoke { lease }
            | Command::LeaseExpire { due: Due { lease, .. }, .. } => {
                page(LEASES, &lease_key(*lease))?;
                page(LEASE_KEYS, &lease_key(*lease))
            }
            Command::Put(_)
            | Command::LeaseGrant { .. }
            | Command::PutWithTtl { .. }
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::Members(_)
            | Command::Register { .. }
            | Command::LogTime { .. }
            | Command::Raise(_)
            | Command::Disarm { .. }
            | Command::Nothing => ControlFlow::Continue(()),
        }
    }

    /// The leases whose time is up at `time`, at most `most`, and when there is something to do next; none:
    /// there is no lease. Leases that have been renewed move to their new places on the way, at most
    /// `most`. Only between two entries.
    ///
    /// # Errors
    ///
    /// A page is not in memory; what was moved before stays so.
    pub fn due(
        &mut self,
        time: u64,
        most: usize,
        out: &mut Vec<Due>,
    ) -> Result<Option<u64>, DueError> {
        let mut from = [0; 16];
        for _ in 0..2 * most {
            let mut first = None;
            let range = KeyRange { start: &from, end: None };
            let visit = &mut |cell: tree::Cell<'_>| {
                first = cell.key.try_into().ok();
                ControlFlow::Break(())
            };
            self.pages.walk(DEADLINES, range, Direction::Ascending, &mut |_| false, visit)?;
            let Some(place): Option<[u8; 16]> = first else { return Ok(None) };
            let malformed = || Stop::Damaged(Damage::LeaseMalformed(LeaseId::new(0)));
            let queued = Reader(&place).take().map(u64::from_be_bytes).ok_or_else(malformed)?;
            if queued > time {
                return Ok(Some(queued));
            }
            let id = lease_of_key(&place[8..]).ok_or_else(malformed)?;
            let lease = self.lease_at(id)?.filter(|lease| lease.queued == queued);
            let lease = lease.ok_or(Stop::Damaged(Damage::LeaseMalformed(id)))?;
            if lease.deadline <= time {
                if out.len() == most {
                    return Ok(Some(time));
                }
                out.push(Due { lease: id, granted: lease.granted });
                from = place;
                // The place behind it.
                let next = u128::from_be_bytes(from).saturating_add(1);
                from = next.to_be_bytes();
                continue;
            }
            let moved = Lease { queued: lease.deadline, ..lease };
            self.plan_lease(id, &moved)?;
            self.need_page(DEADLINES, &place)?;
            // The new place first, as in `put`.
            let cell = NewCell { payload: &moved.encode(), ..COUNTED };
            self.pages.put(LEASES, &lease_key(id), &cell).expect(RESIDENT);
            self.pages.put(DEADLINES, &deadline_key(moved.queued, id), &NO_CELL).expect(RESIDENT);
            self.pages.remove(DEADLINES, &place).expect(RESIDENT);
        }
        Ok(Some(time))
    }

    /// A lease; none if there is no such.
    ///
    /// # Errors
    ///
    /// A page is not in memory, or is damaged.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, DueError> {
        Ok(self.lease_at(id)?)
    }

    /// How many keys hang on a lease.
    ///
    /// # Errors
    ///
    /// As [`Self::lease`].
    pub fn lease_keys_count(&self, id: LeaseId) -> Result<u64, DueError> {
        let (start, end) = keys_of(id);
        let range = KeyRange { start: &start, end: end.as_ref().map(|end| &end[..]) };
        Ok(self.pages.count(LEASE_KEYS, range).map_err(Stop::from)?)
    }

    /// Tells the keys that hang on a lease, in order, those behind `after` where that is not empty, until
    /// `tell` breaks.
    ///
    /// # Errors
    ///
    /// As [`Self::lease`]; go on behind the last key.
    pub fn lease_keys(
        &self,
        id: LeaseId,
        after: &[u8],
        tell: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), DueError> {
        let mut start = attachment(id, after);
        if !after.is_empty() {
            start.push(0);
        }
        let (_, end) = keys_of(id);
        let range = KeyRange { start: &start, end: end.as_ref().map(|end| &end[..]) };
        let visit = &mut |cell: tree::Cell<'_>| tell(&cell.key[LEASE_SIZE..]);
        let ascending = Direction::Ascending;
        Ok(self
            .pages
            .walk(LEASE_KEYS, range, ascending, &mut |_| false, visit)
            .map_err(Stop::from)?)
    }

    /// Tells the leases behind `after`, in the order of their ids, until `tell` breaks; 0: all.
    ///
    /// # Errors
    ///
    /// As [`Self::lease`]; go on behind the last one.
    pub fn leases(
        &self,
        after: LeaseId,
        tell: &mut dyn FnMut(LeaseId) -> ControlFlow<()>,
    ) -> Result<(), DueError> {
        let start = match after.get() {
            0 => [0; LEASE_SIZE],
            after => lease_key(LeaseId::new(after.saturating_add(1))),
        };
        let visit = &mut |cell: tree::Cell<'_>| {
            lease_of_key(cell.key).map_or(ControlFlow::Continue(()), &mut *tell)
        };
        let range = KeyRange { start: &start, end: None };
        let ascending = Direction::Ascending;
        Ok(self.pages.walk(LEASES, range, ascending, &mut |_| false, visit).map_err(Stop::from)?)
    }
}

/// Why leases cannot be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DueError {
    /// Bytes of the page file are wanted.
    Miss(Miss),
    /// The state contradicts itself.
    Damaged(Damage),
}

impl From<Stop> for DueError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Miss(miss) => Self::Miss(miss),
            Stop::Damaged(damage) => Self::Damaged(damage),
            Stop::Budget => unreachable!("nothing here is charged"),
        }
    }
}

impl From<Miss> for DueError {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}
