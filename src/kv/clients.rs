//! Clients that have registered, and what came of their writes: a write that is sent again is not
//! applied again.
//!
//! ```text
//! tree 2  clients   client u64                  -> place u64 | floor u64              counted
//!                   client u64 | sequence u64   -> result
//! tree 3  order     place u64                   -> client u64
//!
//! result  0 put        revision u64
//!         1 delete     revision u64 | keys u64
//!         2 txn        revision u64 | succeeded u8
//!         3 compact    revision u64 | compacted u64
//!         5 put with a lease made for it, 6 grant, 7 revoke: see below
//!         4 refusal    number u8 | for two of them: size u64 | greatest size u64
//! ```
//!
//! Keys are big endian, so that the results of a client stand behind its record; values little endian.
//!
//! A client is named by the index of the entry that registered it, so no id is given twice. Its place in
//! the order of eviction is the index of the entry that moved it there: at registration, then at the
//! first write for which it is older than [`PLACE_AGE_MAX`] entries. A write thus adds its result, drops
//! what lies below its floor and notes that floor, and seldom touches the order.
//!
//! Sequences from the floor up to [`CLIENT_RESULTS_MAX`] beyond are taken, so no client has more results
//! than that, in whatever order its writes arrive. What is not taken, or is known, changes nothing.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::limits::{CLIENT_RESULTS_MAX, CLIENTS_MAX};
use base::{ClientId, Hash128, Hasher128, LeaseId, LogIndex, Revision, Stamp};
use tree::{Direction, KeyRange, Miss, NewCell, TreeId};

use crate::command::Command;
use crate::outcome::{Outcome, Stop};
use crate::refusal::{Damage, Refusal};
use crate::state::State;
use crate::version::Reader;

/// Clients and the results of their writes.
pub(crate) const CLIENTS: TreeId = TreeId(2);

/// Who makes room first.
pub(crate) const ORDER: TreeId = TreeId(3);

/// Bytes of the key of a result.
pub(crate) const RESULT_KEY_SIZE: usize = 16;

/// Entries by which the place of a client in the order may be out of date.
const PLACE_AGE_MAX: u64 = 4_096;

/// Clients that one registration may send away: one for its own place, one more as long as there are
/// more than allowed, so that a limit that was lowered is reached without one entry taking long.
const EVICTED_MAX: u64 = 2;

/// What came of a write with a stamp, as far as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembered {
    /// The key was written.
    Put {
        /// The revision of the write.
        revision: Revision,
    },
    /// Keys were deleted, or there were none.
    Deleted {
        /// The revision of the delete, or the current one then.
        revision: Revision,
        /// Keys deleted.
        count: u64,
    },
    /// The transaction ran.
    Txn {
        /// The revision of its changes, or the current one then.
        revision: Revision,
        /// Whether its compares held.
        succeeded: bool,
    },
    /// History before `compacted` was given up.
    Compacted {
        /// The current revision then.
        revision: Revision,
        /// The oldest revision that stayed readable.
        compacted: Revision,
    },
    /// The key was written, and a lease was made for it.
    PutWithLease {
        /// The revision.
        revision: Revision,
        /// The lease.
        lease: LeaseId,
    },
    /// A lease was made.
    Granted {
        /// The current revision then.
        revision: Revision,
        /// Its id.
        lease: LeaseId,
        /// Milliseconds that it lived.
        ttl_ms: u64,
    },
    /// A lease was ended.
    Revoked {
        /// The revision, or the current one then.
        revision: Revision,
        /// Keys that went with it.
        deleted: u64,
    },
    /// Nothing was changed, for this reason.
    Refused(Refusal),
}

/// What stands about a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client {
    /// Its place in the order.
    pub place: LogIndex,
    /// Results below have been dropped.
    pub floor: u64,
}

/// What a stamp says about the write that carries it.
enum Verdict {
    /// It is to be applied, and its result kept.
    New(Client),
    /// It is not to be applied.
    Known(Outcome),
}

/// The key of a client's record.
fn client_key(client: ClientId) -> [u8; 8] {
    client.get().to_be_bytes()
}

/// The key of a result.
fn result_key(client: ClientId, sequence: u64) -> [u8; RESULT_KEY_SIZE] {
    let mut key = [0; RESULT_KEY_SIZE];
    key[..8].copy_from_slice(&client.get().to_be_bytes());
    key[8..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// What a cell of the tree of clients adds to the sum over it.
pub(crate) fn cell_hash(key: &[u8], payload: &[u8]) -> Hash128 {
    let mut hasher = Hasher128::new();
    hasher.update(if key.len() == 8 { b"C" } else { b"R" });
    hasher.update(key);
    hasher.update(payload);
    hasher.finish()
}

/// What a place in the order adds to a sum over them: the same for a client's record and for its cell in
/// the order.
pub(crate) fn place_hash(place: LogIndex, client: ClientId) -> Hash128 {
    let mut hasher = Hasher128::new();
    hasher.update(b"O");
    hasher.update(&place.get().to_le_bytes());
    hasher.update(&client.get().to_le_bytes());
    hasher.finish()
}

impl Client {
    fn encode(self) -> [u8; 16] {
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&self.place.get().to_le_bytes());
        payload[8..].copy_from_slice(&self.floor.to_le_bytes());
        payload
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let client = Self { place: LogIndex::new(reader.u64()?), floor: reader.u64()? };
        reader.0.is_empty().then_some(client)
    }

    /// Whether a client with this record can have a result with this sequence.
    pub(crate) fn may_have(self, sequence: u64) -> bool {
        sequence.checked_sub(self.floor).is_some_and(|beyond| beyond < CLIENT_RESULTS_MAX)
    }
}

impl Remembered {
    /// What is kept of an outcome; none of one that no stamp is taken for.
    fn of(outcome: &Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Put { revision } => Self::Put { revision: *revision },
            Outcome::Deleted { revision, count } => {
                Self::Deleted { revision: *revision, count: *count }
            }
            Outcome::Txn(txn) => Self::Txn { revision: txn.revision, succeeded: txn.succeeded() },
            Outcome::Compacted { revision, compacted } => {
                Self::Compacted { revision: *revision, compacted: *compacted }
            }
            Outcome::Refused(refusal) => Self::Refused(*refusal),
            Outcome::PutWithLease { revision, lease } => {
                Self::PutWithLease { revision: *revision, lease: *lease }
            }
            Outcome::Granted { revision, lease, ttl_ms } => {
                Self::Granted { revision: *revision, lease: *lease, ttl_ms: *ttl_ms }
            }
            Outcome::Revoked { revision, deleted } => {
                Self::Revoked { revision: *revision, deleted: *deleted }
            }
            Outcome::Registered { .. }
            | Outcome::Renewed { .. }
            | Outcome::Expired { .. }
            | Outcome::Alarms { .. }
            | Outcome::Repeated(_)
            | Outcome::Nothing => return None,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut numbers = |tag: u8, first: u64, second: Option<u64>| {
            out.push(tag);
            out.extend_from_slice(&first.to_le_bytes());
            if let Some(second) = second {
                out.extend_from_slice(&second.to_le_bytes());
            }
        };
        match self {
            Self::Put { revision } => numbers(0, revision.get(), None),
            Self::Deleted { revision, count } => numbers(1, revision.get(), Some(*count)),
            Self::Txn { revision, succeeded } => {
                numbers(2, revision.get(), None);
                out.push(u8::from(*succeeded));
            }
            Self::Compacted { revision, compacted } => {
                numbers(3, revision.get(), Some(compacted.get()));
            }
            Self::PutWithLease { revision, lease } => {
                numbers(5, revision.get(), Some(lease.get().cast_unsigned()));
            }
            Self::Granted { revision, lease, ttl_ms } => {
                numbers(6, revision.get(), Some(lease.get().cast_unsigned()));
                out.extend_from_slice(&ttl_ms.to_le_bytes());
            }
            Self::Revoked { revision, deleted } => numbers(7, revision.get(), Some(*deleted)),
            Self::Refused(refusal) => {
                let (number, sizes) = refusal.encode();
                out.extend_from_slice(&[4, number]);
                if let Some((size, size_max)) = sizes {
                    out.extend_from_slice(&size.to_le_bytes());
                    out.extend_from_slice(&size_max.to_le_bytes());
                }
            }
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let result = match reader.u8()? {
            0 => Self::Put { revision: Revision::new(reader.u64()?) },
            1 => Self::Deleted { revision: Revision::new(reader.u64()?), count: reader.u64()? },
            2 => Self::Txn {
                revision: Revision::new(reader.u64()?),
                succeeded: match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            },
            3 => Self::Compacted {
                revision: Revision::new(reader.u64()?),
                compacted: Revision::new(reader.u64()?),
            },
            4 => {
                let number = reader.u8()?;
                let sizes = match reader.0.len() {
                    0 => None,
                    _ => Some((reader.u64()?, reader.u64()?)),
                };
                Self::Refused(Refusal::decode(number, sizes)?)
            }
            5 => Self::PutWithLease {
                revision: Revision::new(reader.u64()?),
                lease: LeaseId::new(reader.u64()?.cast_signed()),
            },
            6 => Self::Granted {
                revision: Revision::new(reader.u64()?),
                lease: LeaseId::new(reader.u64()?.cast_signed()),
                ttl_ms: reader.u64()?,
            },
            7 => Self::Revoked { revision: Revision::new(reader.u64()?), deleted: reader.u64()? },
            _ => return None,
        };
        reader.0.is_empty().then_some(result)
    }

    /// The revision that it names; none for a refusal.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Put { revision }
            | Self::Deleted { revision, .. }
            | Self::Txn { revision, .. }
            | Self::PutWithLease { revision, .. }
            | Self::Granted { revision, .. }
            | Self::Revoked { revision, .. }
            | Self::Compacted { revision, .. } => Some(*revision),
            Self::Refused(_) => None,
        }
    }
}

impl State {
    /// Clients that are remembered.
    pub fn clients(&self) -> u64 {
        self.pages.summary(CLIENTS).count
    }

    /// Applies a write with a stamp: once.
    pub(crate) fn apply_stamped(
        &mut self,
        stamp: &Stamp,
        command: &Command<'_>,
        budget: &mut u32,
    ) -> Result<Outcome, Stop> {
        // Looked at in every step of a large entry, before anything of the step changes: what has been
        // seen to be in memory stays there until its end.
        let client = match self.judge(stamp)? {
            Verdict::New(client) => client,
            Verdict::Known(outcome) => return Ok(outcome),
        };
        let outcome = self.apply_command(command, budget)?;
        if let Some(result) = Remembered::of(&outcome) {
            self.remember(stamp, client, &result);
        }
        Ok(outcome)
    }

    /// What is to be done with a write with this stamp. When it is new, every page that keeping its
    /// result touches is in memory.
    fn judge(&self, stamp: &Stamp) -> Result<Verdict, Stop> {
        let id = stamp.client;
        let refused = |refusal| Ok(Verdict::Known(Outcome::Refused(refusal)));
        let Some(cell) = self.pages.get(CLIENTS, &client_key(id))? else {
            return refused(Refusal::SessionExpired);
        };
        let client = Client::decode(cell.payload).ok_or(Damage::ClientMalformed(id))?;
        let floor = client.floor.max(stamp.floor);
        if stamp.sequence < floor {
            return refused(Refusal::SessionExpired);
        }
        let key = result_key(id, stamp.sequence);
        if let Some(cell) = self.pages.get(CLIENTS, &key)? {
            let result = Remembered::decode(cell.payload).ok_or(Damage::ClientMalformed(id))?;
            return Ok(Verdict::Known(Outcome::Repeated(result)));
        }
        if !(Client { floor, ..client }).may_have(stamp.sequence) {
            return refused(Refusal::TooManyUnanswered);
        }
        if floor > client.floor {
            let (start, end) = (result_key(id, client.floor), result_key(id, floor));
            self.need(CLIENTS, KeyRange { start: &start, end: Some(&end) })?;
        }
        if self.wants_place(&client) {
            let (old, new) = (client.place.get(), self.applied_next().get());
            for place in [old, new] {
                if let Some(miss) = self.pages.missing(ORDER, &place.to_be_bytes()) {
                    return Err(miss.into());
                }
            }
        }
        Ok(Verdict::New(client))
    }

    /// The first page of a range that is not in memory.
    fn need(&self, tree: TreeId, range: KeyRange<'_>) -> Result<(), Miss> {
        let mut first = None;
        let _ = self.pages.missing_in(tree, range, &mut |miss| {
            first = Some(miss);
            ControlFlow::Break(())
        });
        first.map_or(Ok(()), Err)
    }

    /// Whether the place of a client that writes now is too old.
    fn wants_place(&self, client: &Client) -> bool {
        self.applied_next().get() - client.place.get() > PLACE_AGE_MAX
    }

    /// Keeps the result of a write that [`Self::judge`] found new. Nothing can miss: what is added comes
    /// first, and only cells that are there are taken away. A leaf that runs empty goes, and another key
    /// that would have had its place there belongs to a leaf that nobody has asked for.
    fn remember(&mut self, stamp: &Stamp, old: Client, result: &Remembered) {
        const RESIDENT: &str = "the page was in memory when the stamp was judged";
        let id = stamp.client;
        let mut client = Client { floor: old.floor.max(stamp.floor), ..old };
        let mut payload = core::mem::take(&mut self.scratch.version);
        payload.clear();
        result.encode(&mut payload);
        self.put_cell(&result_key(id, stamp.sequence), &payload).expect(RESIDENT);
        self.scratch.version = payload;
        if self.wants_place(&old) {
            client.place = self.applied_next();
            self.set_place(id, client.place).expect(RESIDENT);
            self.pages.remove(ORDER, &old.place.get().to_be_bytes()).expect(RESIDENT);
        }
        if client != old {
            self.put_cell(&client_key(id), &client.encode()).expect(RESIDENT);
        }
        if client.floor > old.floor {
            let mut keys = core::mem::take(&mut self.scratch.results);
            keys.clear();
            let (start, end) = (result_key(id, old.floor), result_key(id, client.floor));
            let range = KeyRange { start: &start, end: Some(&end) };
            self.cells_in(range, &mut |key| keys.push(key)).expect(RESIDENT);
            for key in &keys {
                self.drop_cell(key).expect(RESIDENT);
            }
            self.scratch.results = keys;
        }
    }

    /// Tells the keys of results in a range.
    fn cells_in(
        &self,
        range: KeyRange<'_>,
        tell: &mut dyn FnMut([u8; RESULT_KEY_SIZE]),
    ) -> Result<(), Miss> {
        let visit = &mut |cell: tree::Cell<'_>| {
            if let Ok(key) = cell.key.try_into() {
                tell(key);
            }
            ControlFlow::Continue(())
        };
        self.pages.walk(CLIENTS, range, Direction::Ascending, &mut |_| false, visit)
    }

    /// Registers a client, at the expense of others where there are too many; `clients_max` is what the
    /// entry says.
    pub(crate) fn register(&mut self, clients_max: u32) -> Result<Outcome, Stop> {
        let id = ClientId::new(self.applied_next().get());
        let clients_max = u64::from(clients_max.clamp(1, CLIENTS_MAX));
        let surplus = (self.clients() + 1).saturating_sub(clients_max).min(EVICTED_MAX);
        // All that can miss comes before the first change: another member that misses elsewhere must
        // send away the same ones.
        let mut leaving = Vec::new();
        if surplus > 0 {
            let visit = &mut |cell: tree::Cell<'_>| {
                leaving.push((cell.key.to_vec(), cell.payload.to_vec()));
                let enough = leaving.len() as u64 == surplus;
                if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let (all, direction) = (KeyRange::ALL, Direction::Ascending);
            self.pages.walk(ORDER, all, direction, &mut |_| false, visit)?;
        }
        let mut gone = Vec::new();
        for (_, client) in &leaving {
            let client = client.as_slice().try_into().map(u64::from_be_bytes);
            let client = client.map_err(|_| Damage::ClientMalformed(ClientId::new(0)))?;
            let start = client_key(ClientId::new(client));
            let end = client_key(ClientId::new(client.saturating_add(1)));
            let mut keys = Vec::new();
            let range = KeyRange { start: &start, end: Some(&end) };
            self.cells_in(range, &mut |key| keys.push(key))?;
            gone.push((start, keys));
        }
        for tree in [CLIENTS, ORDER] {
            if let Some(miss) = self.pages.missing(tree, &client_key(id)) {
                return Err(miss.into());
            }
        }
        // As in `remember`.
        let client = Client { place: self.applied_next(), floor: 0 };
        self.put_cell(&client_key(id), &client.encode())?;
        self.set_place(id, client.place)?;
        for (client, keys) in &gone {
            self.drop_cell(client)?;
            for key in keys {
                self.drop_cell(key)?;
            }
        }
        for (place, _) in &leaving {
            self.pages.remove(ORDER, place)?;
        }
        Ok(Outcome::Registered { client: id })
    }

    /// Writes a cell into the tree of clients, in the place of one that is there.
    fn put_cell(&mut self, key: &[u8], payload: &[u8]) -> Result<(), Miss> {
        let place = self.pages.seek(CLIENTS, key)?;
        if let Some(cell) = self.pages.cell_at(&place) {
            self.clients_sum = self.clients_sum.minus(cell_hash(key, cell.payload));
        }
        let cell = NewCell { counted: key.len() == 8, number: 0, payload, run: None };
        self.pages.put_at(place, key, &cell);
        self.clients_sum = self.clients_sum.plus(cell_hash(key, payload));
        Ok(())
    }

    /// Takes a cell out of the tree of clients, if it is there.
    fn drop_cell(&mut self, key: &[u8]) -> Result<(), Miss> {
        let Some(cell) = self.pages.get(CLIENTS, key)? else { return Ok(()) };
        let hash = cell_hash(key, cell.payload);
        self.pages.remove(CLIENTS, key)?;
        self.clients_sum = self.clients_sum.minus(hash);
        Ok(())
    }

    fn set_place(&mut self, client: ClientId, place: LogIndex) -> Result<(), Miss> {
        let key = place.get().to_be_bytes();
        let payload = &client_key(client);
        let at = self.pages.seek(ORDER, &key)?;
        let cell = NewCell { counted: false, number: 0, payload, run: None };
        self.pages.put_at(at, &key, &cell);
        Ok(())
    }

    /// Tells the pages that judging and keeping a write with this stamp will miss, until `tell` breaks.
    pub fn foresee_stamp(&self, stamp: &Stamp, tell: &mut dyn FnMut(Miss) -> ControlFlow<()>) {
        let record = self.pages.missing(CLIENTS, &client_key(stamp.client));
        let result = self.pages.missing(CLIENTS, &result_key(stamp.client, stamp.sequence));
        for miss in record.into_iter().chain(result.filter(|miss| record != Some(*miss))) {
            if tell(miss).is_break() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory of before opens, and one of now is refused by versions before.
    #[test]
    fn a_state_of_the_format_before_has_no_clients() {
        let options = tree::Options {
            file: base::FileId::new(1),
            cluster: 1,
            member: base::NodeId::new(1),
            cache_size: 1 << 20,
            growth_size: 1 << 20,
        };
        let create = || tree::PageFile::create(&options);
        let state = State::create(create());
        let mut meta = state.encode_meta();
        assert_eq!(meta[0], 6);
        assert!(State::open(create(), &meta).is_ok());
        assert!(State::open(create(), &meta[..meta.len() - 1]).is_err());
        // Log time, the sum over leases and the steps of a half applied entry; the number of alarms.
        let without_leases = meta.len() - 8 - 16 - 4 - 1;
        for (format, size) in [(4, without_leases), (3, without_leases - 16)] {
            meta[0] = format;
            assert!(State::open(create(), &meta).is_err());
            let before = State::open(create(), &meta[..size]).unwrap();
            assert_eq!((before.leases_count(), before.log_time()), (0, 0));
        }
        meta.truncate(without_leases - 16);
        let before = State::open(create(), &meta).unwrap();
        assert_eq!((before.clients(), before.state_hash()), (0, state.state_hash()));
    }

    #[test]
    fn results_come_back_from_their_bytes_and_other_bytes_are_none() {
        let (revision, compacted) = (Revision::new(7), Revision::new(3));
        let sized = Refusal::KeyTooLong { size: 5_000, size_max: 2_048 };
        for result in [
            Remembered::Put { revision },
            Remembered::Deleted { revision, count: 9 },
            Remembered::Txn { revision, succeeded: true },
            Remembered::Txn { revision, succeeded: false },
            Remembered::Compacted { revision, compacted },
            Remembered::PutWithLease { revision, lease: LeaseId::new(-4) },
            Remembered::Granted { revision, lease: LeaseId::new(4), ttl_ms: 9 },
            Remembered::Revoked { revision, deleted: 2 },
            Remembered::Refused(Refusal::KeyNotFound),
            Remembered::Refused(Refusal::DuplicateKey),
            Remembered::Refused(sized),
        ] {
            let mut bytes = Vec::new();
            result.encode(&mut bytes);
            assert_eq!(Remembered::decode(&bytes), Some(result));
            assert_eq!(Remembered::decode(&bytes[..bytes.len() - 1]), None);
            bytes.push(0);
            assert_eq!(Remembered::decode(&bytes), None);
        }
        assert_eq!(Remembered::decode(&[8]), None);
        assert_eq!(Remembered::decode(&[4, 200]), None);
        assert_eq!(Remembered::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 2]), None);
    }
}
