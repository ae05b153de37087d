//! Import: a state arrives from another member, chunk by chunk, and becomes the content of a new page
//! file.
//!
//! ```text
//! Import::new -> feed*, with misses, growth, eviction and checkpoints in between -> finish
//!             -> one more checkpoint -> the state may be used
//! ```
//!
//! Cells come in order, so each is appended at the right edge of its tree. Memory stays bounded because
//! whoever drives the import makes checkpoints of it as of any state, and evicts. Until
//! [`Import::finish`] has agreed to the whole, such a checkpoint says that it is incomplete and
//! [`State::open`] refuses it: after a crash the file is thrown away and the transfer begins anew.
//!
//! What arrives is judged before it is used: the checksum and the number of each chunk, the order of
//! keys, every size, that each version and event is one and hashes to what it says; at the end the
//! number of cells, the hash over everything, the sum over live versions, and, as long as nothing has
//! ever been compacted, the sum over events. (Behind a compaction that one also counts events which are
//! gone, so it cannot be summed up again.) Nothing that arrives can make the import panic.

use alloc::vec::Vec;
use core::fmt;

use base::limits::{KEY_SIZE_MAX, TREE_KEY_SIZE_MAX};
use base::{ClientId, Hash128, LeaseId, LogIndex, Revision, crc32};
use tree::{CELL_SIZE_MAX, Miss, NewCell, PageFile, RUN_SIZE_MAX, TreeId};

use crate::clients::{Client, ORDER, Remembered, cell_hash, place_hash};
use crate::keys::{CURRENT, EVENTS, Point};
use crate::lease::{
    DEADLINES, LEASE_KEYS, LEASE_SIZE, LEASES, Lease, deadline_key, lease_key, lease_of_key,
};
use crate::outcome::{Stop, charge};
use crate::state::{OpenError, State};
use crate::transfer::{
    CELL, CHUNK_HEADER_SIZE, CHUNK_SIZE_MAX, COUNTED, END_SIZE, Kind, PIECE, RUN, Totals, VERSION,
};
use crate::version::{Event, Kind as EventKind, Reader, Version, delete_hash, version_hash};

/// Greatest version number of a key: far beyond what a store lives to see, far below overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// What an import wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fed {
    /// The next chunk.
    Next,
    /// Nothing more: [`Import::finish`].
    Last,
    /// The budget is spent; the same chunk again.
    More,
    /// These bytes of the new page file: install them there, then the same chunk again.
    Miss(Miss),
}

/// Why what has arrived is not taken. Nothing of it is: drop the import and its file, and have the
/// transfer begin anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImportRefusal {
    /// The bytes of a chunk are damaged.
    Checksum {
        /// The chunk that was wanted.
        wanted: u64,
    },
    /// Another chunk than the next one.
    Number {
        /// The chunk that was wanted.
        wanted: u64,
        /// The one that came.
        found: u64,
    },
    /// The chunk verifies and is not what may come here.
    Malformed {
        /// Its number.
        number: u64,
    },
    /// A version of the format that this version does not know.
    Version {
        /// What the header says.
        found: u8,
    },
    /// The numbers of the state cannot be read.
    Meta(OpenError),
    /// A cell out of order, or one that no state has.
    Cell {
        /// The chunk that holds its last byte.
        number: u64,
    },
    /// Count or hash of all that came are not what the last chunk says.
    Totals,
    /// The sums over what came are not those of the header.
    Sums,
    /// Not everything has come.
    Unfinished,
}

impl fmt::Display for ImportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { wanted } => {
                write!(f, "chunk {wanted} of the transferred state is damaged; send it all again")
            }
            Self::Number { wanted, found } => write!(
                f,
                "chunk {found} of the transferred state came where {wanted} was wanted; send it all \
                 again"
            ),
            Self::Malformed { number } => write!(
                f,
                "chunk {number} of the transferred state is malformed; check that both members run \
                 compatible versions"
            ),
            Self::Version { found } => write!(
                f,
                "the state is sent in format {found}, this version reads {VERSION}; upgrade this \
                 member"
            ),
            Self::Meta(error) => write!(f, "the transferred state: {error}"),
            Self::Cell { number } => write!(
                f,
                "chunk {number} of the transferred state holds what no state has; verify the page \
                 file of the member that sent it"
            ),
            Self::Totals => f.write_str(
                "the transferred state is not what its last chunk says; send it all again",
            ),
            Self::Sums => f.write_str(
                "the transferred state contradicts its own sums; verify the page file of the \
                 member that sent it",
            ),
            Self::Unfinished => f.write_str("the transferred state has not come to its end"),
        }
    }
}

impl core::error::Error for ImportRefusal {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Header,
    Records,
    Done,
    Refused(ImportRefusal),
}

/// The chunk that is being taken in.
#[derive(Clone, Copy)]
struct Half {
    crc: u32,
    /// Where its next record begins.
    at: usize,
}

/// A cell whose run is still arriving.
struct Open {
    tree: TreeId,
    counted: bool,
    number: u64,
    key: Vec<u8>,
    payload: Vec<u8>,
    size: usize,
    value: Vec<u8>,
}

/// A cell as a record states it.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    pub tree: TreeId,
    counted: bool,
    number: u64,
    pub key: &'a [u8],
    pub payload: &'a [u8],
}

/// Why a chunk was not taken in to its end.
enum Halt {
    Stop(Stop),
    Refused(ImportRefusal),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Miss> for Halt {
    fn from(miss: Miss) -> Self {
        Self::Stop(Stop::Miss(miss))
    }
}

impl From<ImportRefusal> for Halt {
    fn from(refusal: ImportRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A state that is arriving.
pub struct Import {
    state: State,
    stage: Stage,
    /// The number of the chunk that is wanted.
    next: u64,
    half: Option<Half>,
    open: Option<Open>,
    /// Tree and key of the last cell.
    last: Option<(TreeId, Vec<u8>)>,
    totals: Totals,
    live_sum: Hash128,
    events_sum: Hash128,
    clients_sum: Hash128,
    /// Over the places that clients have, less those in the order of clients.
    places_sum: Hash128,
    leases_sum: Hash128,
    /// Keys that hang on leases, less the leases' lists of them.
    attached_sum: Hash128,
    /// Places of leases among the deadlines, less those deadlines.
    queued_sum: Hash128,
    /// The last client.
    client: Option<(ClientId, Client)>,
}

impl Import {
    /// An import into an empty page file.
    pub fn new(pages: PageFile) -> Self {
        let mut state = State::create(pages);
        state.incomplete = true;
        Self {
            state,
            stage: Stage::Header,
            next: 0,
            half: None,
            open: None,
            last: None,
            totals: Totals::new(),
            live_sum: Hash128::ZERO,
            events_sum: Hash128::ZERO,
            clients_sum: Hash128::ZERO,
            places_sum: Hash128::ZERO,
            leases_sum: Hash128::ZERO,
            attached_sum: Hash128::ZERO,
            queued_sum: Hash128::ZERO,
            client: None,
        }
    }

    /// The number of the chunk that is wanted.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The state in the making, for its pages alone: misses, growth, eviction, checkpoints. What
    /// [`State::checkpoint_begin`] writes is not to be opened. It must not be read from.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The same, for its figures.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes in a chunk, or goes on with it. The budget counts records.
    ///
    /// # Errors
    ///
    /// What has come cannot be part of a state, now or before. It is final.
    pub fn feed(&mut self, chunk: &[u8], budget: &mut u32) -> Result<Fed, ImportRefusal> {
        if let Stage::Refused(refusal) = self.stage {
            return Err(refusal);
        }
        match self.take(chunk, budget) {
            Ok(fed) => Ok(fed),
            Err(Halt::Stop(Stop::Miss(miss))) => Ok(Fed::Miss(miss)),
            Err(Halt::Stop(Stop::Budget)) => Ok(Fed::More),
            Err(Halt::Stop(Stop::Damaged(_))) => Err(self.refuse(ImportRefusal::Sums)),
            Err(Halt::Refused(refusal)) => Err(self.refuse(refusal)),
        }
    }

    fn refuse(&mut self, refusal: ImportRefusal) -> ImportRefusal {
        self.stage = Stage::Refused(refusal);
        refusal
    }

    fn take(&mut self, chunk: &[u8], budget: &mut u32) -> Result<Fed, Halt> {
        let wanted = self.next;
        let malformed = ImportRefusal::Malformed { number: wanted };
        let mut reader = Reader(chunk);
        let crc = reader.take().map(u32::from_le_bytes);
        if chunk.len() > CHUNK_SIZE_MAX || crc != Some(crc32(reader.0)) {
            return Err(ImportRefusal::Checksum { wanted }.into());
        }
        let (Some(crc), Some(found), Some(kind)) = (crc, reader.u64(), reader.u8()) else {
            return Err(malformed.into());
        };
        if found != wanted {
            return Err(ImportRefusal::Number { wanted, found }.into());
        }
        let body = reader.0;
        match (Kind::from_number(kind), self.stage) {
            (Some(Kind::Header), Stage::Header) => {
                self.totals.hasher.update(body);
                self.take_header(body, malformed)?;
                self.stage = Stage::Records;
            }
            (Some(Kind::Records), Stage::Records) => {
                match self.half {
                    // Another chunk with the number of the one that is half taken in.
                    Some(half) if half.crc != crc => return Err(malformed.into()),
                    Some(_) => {}
                    None => {
                        self.totals.hasher.update(body);
                        self.half = Some(Half { crc, at: CHUNK_HEADER_SIZE });
                    }
                }
                while let Some(half) = self.half
                    && half.at < chunk.len()
                {
                    let mut reader = Reader(&chunk[half.at..]);
                    self.take_record(&mut reader, malformed, budget)?;
                    self.half = Some(Half { at: chunk.len() - reader.0.len(), ..half });
                }
                self.half = None;
            }
            (Some(Kind::End), Stage::Records) if self.open.is_none() => {
                self.take_end(body, malformed)?;
                self.stage = Stage::Done;
                return Ok(Fed::Last);
            }
            _ => return Err(malformed.into()),
        }
        self.next = self.next.saturating_add(1);
        Ok(Fed::Next)
    }

    fn take_header(&mut self, body: &[u8], malformed: ImportRefusal) -> Result<(), ImportRefusal> {
        let (&version, meta) = body.split_first().ok_or(malformed)?;
        if version != VERSION {
            return Err(ImportRefusal::Version { found: version });
        }
        self.state.adopt(meta).map_err(ImportRefusal::Meta)
    }

    fn take_end(&mut self, body: &[u8], malformed: ImportRefusal) -> Result<(), ImportRefusal> {
        let mut reader = Reader(body);
        let (Some(records), Some(hash)) = (reader.u64(), reader.take()) else {
            return Err(malformed);
        };
        if body.len() != END_SIZE {
            return Err(malformed);
        }
        let totals = core::mem::replace(&mut self.totals, Totals::new());
        if records != totals.records || Hash128::from_bytes(hash) != totals.hasher.finish() {
            return Err(ImportRefusal::Totals);
        }
        let live = self.live_sum == self.state.live_sum;
        let events = self.state.compacted.is_some() || self.events_sum == self.state.events_sum;
        let clients =
            self.clients_sum == self.state.clients_sum && self.places_sum == Hash128::ZERO;
        let leases = self.leases_sum == self.state.leases_sum
            && self.attached_sum == Hash128::ZERO
            && self.queued_sum == Hash128::ZERO;
        if live && events && clients && leases { Ok(()) } else { Err(ImportRefusal::Sums) }
    }

    fn take_record(
        &mut self,
        reader: &mut Reader<'_>,
        malformed: ImportRefusal,
        budget: &mut u32,
    ) -> Result<(), Halt> {
        charge(budget)?;
        match (reader.u8(), self.open.is_some()) {
            (Some(CELL), false) => self.take_cell(reader, malformed),
            (Some(PIECE), true) => self.take_piece(reader, malformed),
            _ => Err(malformed.into()),
        }
    }

    fn take_cell(&mut self, reader: &mut Reader<'_>, malformed: ImportRefusal) -> Result<(), Halt> {
        let Some((record, run)) = read_cell(reader) else { return Err(malformed.into()) };
        let wrong = ImportRefusal::Cell { number: self.next };
        let fits = record.tree <= DEADLINES
            && record.key.len() <= TREE_KEY_SIZE_MAX
            && record.key.len() + record.payload.len() <= CELL_SIZE_MAX
            && run.is_none_or(|size| size <= RUN_SIZE_MAX);
        let follows = self
            .last
            .as_ref()
            .is_none_or(|(tree, key)| (*tree, key.as_slice()) < (record.tree, record.key));
        if !fits || !follows {
            return Err(wrong.into());
        }
        match run {
            None => self.put(&record, None, wrong),
            Some(0) => self.put(&record, Some(&[]), wrong),
            Some(size) => {
                self.open = Some(Open {
                    tree: record.tree,
                    counted: record.counted,
                    number: record.number,
                    key: record.key.to_vec(),
                    payload: record.payload.to_vec(),
                    size,
                    value: Vec::new(),
                });
                Ok(())
            }
        }
    }

    fn take_piece(
        &mut self,
        reader: &mut Reader<'_>,
        malformed: ImportRefusal,
    ) -> Result<(), Halt> {
        let wrong = ImportRefusal::Cell { number: self.next };
        let size =
            reader.take().map(u32::from_le_bytes).and_then(|size| usize::try_from(size).ok());
        let Some(piece) = size.and_then(|size| reader.bytes(size)) else {
            return Err(malformed.into());
        };
        let Some(mut open) = self.open.take() else { return Err(malformed.into()) };
        let before = open.value.len();
        if piece.is_empty() || before + piece.len() > open.size {
            return Err(malformed.into());
        }
        open.value.extend_from_slice(piece);
        if open.value.len() < open.size {
            self.open = Some(open);
            return Ok(());
        }
        let record = Record {
            tree: open.tree,
            counted: open.counted,
            number: open.number,
            key: &open.key,
            payload: &open.payload,
        };
        let put = self.put(&record, Some(&open.value), wrong);
        if let Err(Halt::Stop(_)) = put {
            // The piece comes again.
            open.value.truncate(before);
            self.open = Some(open);
        }
        put
    }

    /// Appends a cell; `value` is the content of its run.
    fn put(
        &mut self,
        record: &Record<'_>,
        value: Option<&[u8]>,
        wrong: ImportRefusal,
    ) -> Result<(), Halt> {
        // Before anything is counted: a record that misses comes again.
        if record.tree == LEASE_KEYS {
            let lease = lease_of_key(record.key).ok_or(wrong)?;
            self.state.pages.get(LEASES, &lease_key(lease))?.ok_or(wrong)?;
        }
        if let Some(value) = value {
            if let Some(miss) = self.state.pages.missing(record.tree, record.key) {
                return Err(miss.into());
            }
            let sums = self.judge(record, Some(value)).ok_or(wrong)?;
            let run = Some(self.state.pages.create_run(value));
            let written = self.state.pages.put(record.tree, record.key, &record.cell(run));
            debug_assert!(written.is_ok(), "its leaf was in memory");
            self.count(record, sums);
            return Ok(());
        }
        let sums = self.judge(record, None).ok_or(wrong)?;
        self.state.pages.put(record.tree, record.key, &record.cell(None))?;
        self.count(record, sums);
        Ok(())
    }

    fn count(&mut self, record: &Record<'_>, sums: Sums) {
        self.live_sum = self.live_sum.plus(sums.live);
        self.events_sum = self.events_sum.plus(sums.events);
        self.clients_sum = self.clients_sum.plus(sums.clients);
        self.leases_sum = self.leases_sum.plus(sums.leases);
        self.attached_sum = self.attached_sum.plus(sums.attached).minus(sums.attachment);
        self.queued_sum = self.queued_sum.plus(sums.queued).minus(sums.queue);
        self.places_sum = self.places_sum.plus(sums.place).minus(sums.place_in_order);
        self.client = sums.client.or(self.client);
        self.totals.records += 1;
        let (tree, key) = self.last.get_or_insert_with(|| (record.tree, Vec::new()));
        *tree = record.tree;
        key.clear();
        key.extend_from_slice(record.key);
    }

    /// Whether a state can have this cell, and what it adds to the sums.
    fn judge(&self, record: &Record<'_>, value: Option<&[u8]>) -> Option<Sums> {
        // Of an entry that is half applied, too.
        let newest = self.state.revision_of_changes();
        if record.tree == CURRENT {
            let version = self.judge_version(record.key, record.payload, value, newest)?;
            let (at, live) = (version.at, version.live);
            if record.counted != live.is_some() || record.number != at.revision.get() {
                return None;
            }
            let hash = live.map_or(Hash128::ZERO, |live| live.hash);
            let lease = live.map_or(LeaseId::new(0), |live| live.lease);
            let attached = attachment_hash(lease, record.key);
            return Some(Sums { live: hash, events: hash, attached, ..Sums::default() });
        }
        if record.tree >= LEASES {
            return if value.is_none() { self.judge_lease(record) } else { None };
        }
        if record.tree != EVENTS {
            return if value.is_none() { self.judge_client(record, newest) } else { None };
        }
        let at = Point::from_key(record.key)?;
        let event = Event::decode(record.payload)?;
        let in_history = at.revision > Revision::ZERO && at.revision <= newest;
        // The point behind every event must exist.
        if !in_history || at.sub == u32::MAX || event.key.is_empty() {
            return None;
        }
        if event.key.len() > KEY_SIZE_MAX || record.number > 1 {
            return None;
        }
        let written = match event.kind {
            EventKind::Put => Hash128::ZERO,
            EventKind::Delete(cause) => delete_hash(event.key, at, cause),
        };
        // An event that has shed says nothing of what it replaced.
        let replaced = event.replaced(at).unwrap_or(None);
        let replaced = match replaced {
            Some(bytes) => {
                let version = self.judge_version(event.key, bytes, value, at.revision)?;
                if version.at >= at {
                    return None;
                }
                version.live.map_or(Hash128::ZERO, |live| live.hash)
            }
            None if value.is_some() => return None,
            None => Hash128::ZERO,
        };
        // As crate::version::needs_work has it.
        let counted = event.kind != EventKind::Put || value.is_some();
        if record.counted != counted {
            return None;
        }
        Some(Sums { events: written.plus(replaced), ..Sums::default() })
    }

    /// The same for a cell of the trees of leases.
    fn judge_lease(&self, record: &Record<'_>) -> Option<Sums> {
        if record.number != 0 {
            return None;
        }
        if record.tree == DEADLINES {
            let key: &[u8; 16] = record.key.try_into().ok()?;
            let queue = queue_hash(key);
            let fits = !record.counted && record.payload.is_empty();
            return fits.then(|| Sums { queue, ..Sums::default() });
        }
        let id = lease_of_key(record.key)?;
        let rest = &record.key[LEASE_SIZE..];
        if record.tree == LEASE_KEYS {
            let attachment = attachment_hash(id, rest);
            let fits = record.counted && record.payload.is_empty() && !rest.is_empty();
            return fits.then(|| Sums { attachment, ..Sums::default() });
        }
        let lease = Lease::decode(record.payload)?;
        let fits = record.counted
            && rest.is_empty()
            && lease.granted <= self.state.applied().0.next()
            && lease.queued <= lease.deadline;
        let queued = queue_hash(&deadline_key(lease.queued, id));
        fits.then(|| Sums { leases: lease.hash(id), queued, ..Sums::default() })
    }

    /// The same for a cell of the trees of clients. The record of a client comes right before the
    /// results of its writes.
    fn judge_client(&self, record: &Record<'_>, newest: Revision) -> Option<Sums> {
        let (applied, _) = self.state.applied();
        let mut key = Reader(record.key);
        let first = key.take().map(u64::from_be_bytes)?;
        let second = key.take().map(u64::from_be_bytes);
        let known = first > 0 && first <= applied.get();
        if !known || !key.0.is_empty() || record.number != 0 {
            return None;
        }
        if record.tree == ORDER {
            let client = ClientId::new(u64::from_be_bytes(record.payload.try_into().ok()?));
            let place_in_order = place_hash(LogIndex::new(first), client);
            let fits = second.is_none() && !record.counted && client.get() <= first;
            return fits.then(|| Sums { place_in_order, ..Sums::default() });
        }
        let (id, clients) = (ClientId::new(first), cell_hash(record.key, record.payload));
        let Some(sequence) = second else {
            let client = Client::decode(record.payload)?;
            let fits = record.counted && (first..=applied.get()).contains(&client.place.get());
            let place = place_hash(client.place, id);
            return fits.then(|| Sums {
                clients,
                place,
                client: Some((id, client)),
                ..Sums::default()
            });
        };
        let result = Remembered::decode(record.payload)?;
        let (owner, client) = self.client?;
        let fits = !record.counted
            && owner == id
            && client.may_have(sequence)
            && result.revision().is_none_or(|revision| revision <= newest);
        fits.then(|| Sums { clients, ..Sums::default() })
    }

    /// The version in these bytes, if it is one of `key`, written at `newest` at the latest, with this
    /// value.
    fn judge_version(
        &self,
        key: &[u8],
        bytes: &[u8],
        value: Option<&[u8]>,
        newest: Revision,
    ) -> Option<Version> {
        let (version, inline) = Version::decode(bytes)?;
        let known = |point: &Point| point.revision <= newest && point.sub < u32::MAX;
        let anchors = [version.near, version.far];
        let possible = !key.is_empty()
            && key.len() <= KEY_SIZE_MAX
            && known(&version.at)
            && anchors.iter().flatten().all(known)
            && version.number < NUMBER_MAX;
        if !possible {
            return None;
        }
        let Some(live) = &version.live else {
            return (inline.is_empty() && value.is_none()).then_some(version);
        };
        if value.is_some() && !inline.is_empty() {
            return None;
        }
        let value = value.unwrap_or(inline);
        let right = live.version < NUMBER_MAX
            && live.create <= version.at.revision
            && live.hash == version_hash(key, version.at, live, value);
        right.then_some(version)
    }

    /// The state, once the last chunk has been taken in. It is not durable: it takes one more
    /// checkpoint, begun from now on and published, before the page file can be opened.
    ///
    /// # Errors
    ///
    /// The last chunk has not come, or something was refused.
    pub fn finish(self) -> Result<State, ImportRefusal> {
        match self.stage {
            Stage::Done => {
                let mut state = self.state;
                state.incomplete = false;
                Ok(state)
            }
            Stage::Refused(refusal) => Err(refusal),
            Stage::Header | Stage::Records => Err(ImportRefusal::Unfinished),
        }
    }
}

/// What a cell adds to the sums of the state.
#[derive(Default)]
struct Sums {
    live: Hash128,
    events: Hash128,
    clients: Hash128,
    /// The place of a client, and a place in the order of clients.
    place: Hash128,
    place_in_order: Hash128,
    leases: Hash128,
    /// A key that says that it hangs on a lease, and a lease that says so.
    attached: Hash128,
    attachment: Hash128,
    /// The place of a lease among the deadlines, and a deadline.
    queued: Hash128,
    queue: Hash128,
    client: Option<(ClientId, Client)>,
}

/// What a key that hangs on a lease adds to the sums; nothing without a lease.
fn attachment_hash(id: LeaseId, key: &[u8]) -> Hash128 {
    if id == LeaseId::new(0) {
        return Hash128::ZERO;
    }
    let mut hasher = base::Hasher128::new();
    hasher.update(b"A");
    hasher.update(&id.get().to_le_bytes());
    hasher.update(key);
    hasher.finish()
}

/// What a place among the deadlines adds to the sums.
fn queue_hash(key: &[u8; 16]) -> Hash128 {
    let mut hasher = base::Hasher128::new();
    hasher.update(b"Q");
    hasher.update(key);
    hasher.finish()
}

impl<'a> Record<'a> {
    fn cell(&self, run: Option<tree::Run>) -> NewCell<'a> {
        NewCell { counted: self.counted, number: self.number, payload: self.payload, run }
    }
}

/// A cell record behind its tag, and the size of its run.
pub(crate) fn read_cell<'a>(reader: &mut Reader<'a>) -> Option<(Record<'a>, Option<usize>)> {
    let (tree, flags) = (reader.u8()?, reader.u8()?);
    let number = reader.u64()?;
    let key_size = usize::from(u16::from_le_bytes(reader.take()?));
    let payload_size = usize::from(u16::from_le_bytes(reader.take()?));
    if flags & !(COUNTED | RUN) != 0 {
        return None;
    }
    let run = if flags & RUN == 0 {
        None
    } else {
        Some(usize::try_from(u32::from_le_bytes(reader.take()?)).ok()?)
    };
    let (key, payload) = (reader.bytes(key_size)?, reader.bytes(payload_size)?);
    let counted = flags & COUNTED != 0;
    Some((Record { tree: TreeId(tree), counted, number, key, payload }, run))
}
