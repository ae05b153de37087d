//! The replicated state: four trees, a handful of numbers, and the one function that changes them.
//!
//! Applying an entry is a pure function of the state and the entry. It never fails: what validation
//! let through and the state refuses is an outcome. It never blocks: a page that is not in memory is a
//! [`Step::Miss`], a budget that is spent is [`Step::More`], and the same entry is handed in again. An
//! entry that is half applied is invisible: reads see the revision before it.
//!
//! ```text
//! meta  format u8 | applied u64 | term u64 | revision u64 | compacted + 1, or 0 for none: u64
//!       | sum over live versions 16 | sum over events 16 | trimmed revision u64, sub u32
//!       | index of the entry that set the members u64 | size u16 | bytes about the members
//!       | changes of the next entry made already u32
//!       | bytes of live keys u64 | bytes of their inline values u64
//!       | if that entry is a transaction: branches u16, each u8 | deletes done u16, keys of each u32
//!       | sum over clients and their results 16
//!       | log time u64 | sum over leases 16 | steps of the next entry made already, beside changes, u32
//!       | alarms u8, of each kind u8, member u64
//! ```
//!
//! Format 1 ends before the members, format 2 behind them, format 3 before the clients, of which it has
//! none, format 4 before the log time; it has no leases. Format 5 ends before the alarms. Format 255 has
//! nothing but the format: the state of an [`crate::Import`] that has not come to its end.
//!
//! A checkpoint may come in the middle of an entry: its changes so far are in the trees, under the
//! revision behind the newest complete one and so invisible, and their number tells where to go on. A
//! delete goes in the order of keys, and what it has deleted is not live: it goes on from the begin of
//! its range. A transaction goes on behind the operations whose changes are counted; which branches it
//! takes was judged before its first change, and is kept. What an entry does to leases without a change of
//! the revision that is open, or in revisions of its own, is counted as steps: it may be done twice, but
//! as long as there are any the state is not that behind the entry before, and nobody is told its hash.
//!
//! Trimmed is how far trimming has got: up to the compacted revision with taking events away, from
//! there on with having those of that revision shed what they replaced.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::{Alarm, Hash128, LeaseId, LogIndex, Mutant, Revision, Stamp, Term};
use tree::{Miss, PageFile};

use crate::alarms::{self, ALARMS_SIZE_MAX};
use crate::clients::RESULT_KEY_SIZE;
use crate::command::{Command, Op};
use crate::delete::Deleting;
use crate::history::Recorder;
use crate::keys::{CURRENT, Point};
use crate::lease::Renewing;
use crate::members::{MEMBERS_SIZE_MAX, Members};
use crate::outcome::{Outcome, Step, Stop, charge};
use crate::refusal::Refusal;
use crate::txn::Running;
use crate::unpack::Head;
use crate::validate::LIMITS_OF_APPLY;
use crate::version::Reader;

const FORMAT: u8 = 6;

/// The format that ends before the members.
const FORMAT_WITHOUT_MEMBERS: u8 = 1;

/// The format that ends behind the members.
const FORMAT_WHOLE_ENTRIES: u8 = 2;

/// The format that ends before the clients.
const FORMAT_WITHOUT_CLIENTS: u8 = 3;

/// The format that ends before the leases.
const FORMAT_WITHOUT_LEASES: u8 = 4;

/// The format that ends before the alarms.
const FORMAT_WITHOUT_ALARMS: u8 = 5;

/// The format of a state that has arrived in part.
const FORMAT_INCOMPLETE: u8 = 255;

/// Greatest revision: what clients can name.
const REVISION_MAX: u64 = u64::MAX >> 1;

/// Bytes of the meta without those about the members.
const META_FIXED_SIZE: usize =
    1 + 4 * 8 + 2 * 16 + 12 + 8 + 2 + 4 + 2 * 8 + 2 * 2 + 16 + 8 + 16 + 4;

const _: () = assert!(
    META_FIXED_SIZE + MEMBERS_SIZE_MAX + ALARMS_SIZE_MAX <= tree::APPLICATION_SIZE_MAX,
    "the numbers of the state, the members and the alarms fit a meta record"
);

/// The replicated state of one member. It has one owner.
pub struct State {
    pub(crate) pages: PageFile,
    applied: LogIndex,
    term: Term,
    /// The newest complete revision.
    pub(crate) revision: Revision,
    /// Changes made so far by the entry that is being applied: the sub number of its next one.
    pub(crate) sub: u32,
    /// The oldest revision that can be read; none before the first compaction.
    pub(crate) compacted: Option<Revision>,
    /// Sum of the hashes of all live versions in `current`.
    pub(crate) live_sum: Hash128,
    /// Sum of the hashes of all events ever applied.
    pub(crate) events_sum: Hash128,
    /// Sum of the hashes of all clients and results of their writes.
    pub(crate) clients_sum: Hash128,
    /// Sum of the hashes of all leases.
    pub(crate) leases_sum: Hash128,
    /// The greatest log time of all entries.
    pub(crate) time: u64,
    /// Leases renewed so far by the entry that is being applied, or keys that it has deleted in
    /// revisions of their own.
    pub(crate) steps: u32,
    /// Events before this point have been trimmed: their tombstones and runs are gone. Never beyond
    /// the compacted revision.
    pub(crate) trimmed: Point,
    /// Whether the cells of such events may still be there.
    pub(crate) undropped: bool,
    /// History before this revision is physically gone.
    pub(crate) dropped: Revision,
    /// Events of the compacted revision before this point have shed what they replaced. Not
    /// beyond its first event while trimming has not come to that revision.
    pub(crate) shed: Point,
    /// What is kept about the members of the cluster.
    pub(crate) members: Members,
    /// The alarms that are up, by kind and member.
    pub(crate) alarms: Vec<Alarm>,
    /// An import is filling it: nothing else may change it, and its checkpoints are not to be opened.
    pub(crate) incomplete: bool,
    /// Bytes of all live keys, and of their values that are in cells: what deletes have to copy.
    pub(crate) live_keys_size: u64,
    pub(crate) live_inline_size: u64,
    /// How far the entry that is being applied has got.
    progress: Progress,
    /// What a checkpoint in the middle of a transaction knew of it.
    begun: Begun,
    /// What it changes, while somebody wants to be told.
    pub(crate) recorder: Option<Recorder>,
    /// Leases that the puts of the transaction name whose operations are being carried out: they stay
    /// until its end, also without a key.
    pub(crate) spared: Vec<LeaseId>,
    pub(crate) scratch: Scratch,
}

/// How far an entry has got that needs more than one step.
#[derive(Debug)]
enum Progress {
    /// No entry has begun.
    None,
    Delete(Deleting),
    Txn(Box<Running>),
    Renew(Renewing),
}

/// What is kept of a half applied transaction beside the number of its changes.
#[derive(Default)]
struct Begun {
    /// The branches that it takes.
    path: Vec<bool>,
    /// Keys deleted by each of its deletes that is done.
    deleted: Vec<u64>,
}

/// Buffers that are reused from change to change.
#[derive(Default)]
pub(crate) struct Scratch {
    pub event: Vec<u8>,
    pub version: Vec<u8>,
    pub keys: Vec<u8>,
    pub results: Vec<[u8; RESULT_KEY_SIZE]>,
}

/// Why a page file cannot be opened as a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The meta bytes are of a format that this version does not know.
    Format {
        /// The format of the bytes.
        found: u8,
    },
    /// The meta bytes are cut short or contradict themselves.
    Malformed,
    /// A transfer from another member had not come to its end.
    Incomplete,
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Format { found } => write!(
                f,
                "the state in the page file has format {found}, this version reads {FORMAT}; use the \
                 version that wrote it"
            ),
            Self::Malformed => f.write_str(
                "the numbers of the state in the page file contradict themselves; restore this \
                 member from its peers or from a snapshot",
            ),
            Self::Incomplete => f.write_str(
                "the state in the page file has not arrived whole from the member that sent it; \
                 remove the file and have it sent again",
            ),
        }
    }
}

impl core::error::Error for OpenError {}

impl State {
    /// The state before the first entry, over an empty page file: revision 1, nothing compacted.
    pub fn create(pages: PageFile) -> Self {
        let beginning = Point::before(Revision::ZERO);
        Self {
            pages,
            applied: LogIndex::ZERO,
            term: Term::ZERO,
            revision: Revision::new(1),
            sub: 0,
            compacted: None,
            live_sum: Hash128::ZERO,
            events_sum: Hash128::ZERO,
            clients_sum: Hash128::ZERO,
            leases_sum: Hash128::ZERO,
            time: 0,
            steps: 0,
            trimmed: beginning,
            undropped: false,
            dropped: Revision::ZERO,
            shed: beginning,
            members: Members::NONE,
            alarms: Vec::new(),
            incomplete: false,
            live_keys_size: 0,
            live_inline_size: 0,
            progress: Progress::None,
            begun: Begun::default(),
            recorder: None,
            spared: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The state that a checkpoint wrote; `meta` are the application bytes of the page file.
    ///
    /// # Errors
    ///
    /// When the bytes are not of this format or contradict themselves.
    pub fn open(pages: PageFile, meta: &[u8]) -> Result<Self, OpenError> {
        let mut state = Self::create(pages);
        state.adopt(meta)?;
        Ok(state)
    }

    /// Takes over the numbers of a checkpoint.
    pub(crate) fn adopt(&mut self, meta: &[u8]) -> Result<(), OpenError> {
        let mut reader = Reader(meta);
        let format = reader.u8().ok_or(OpenError::Malformed)?;
        if format == FORMAT_INCOMPLETE {
            return Err(OpenError::Incomplete);
        }
        if !(FORMAT_WITHOUT_MEMBERS..=FORMAT).contains(&format) {
            return Err(OpenError::Format { found: format });
        }
        self.decode(&mut reader).ok_or(OpenError::Malformed)?;
        if format >= FORMAT_WHOLE_ENTRIES {
            self.decode_members(&mut reader).ok_or(OpenError::Malformed)?;
        }
        if format >= FORMAT_WITHOUT_CLIENTS {
            self.decode_begun(&mut reader).ok_or(OpenError::Malformed)?;
        }
        if format >= FORMAT_WITHOUT_LEASES {
            let sum = reader.take().ok_or(OpenError::Malformed)?;
            self.clients_sum = Hash128::from_bytes(sum);
        }
        if format >= FORMAT_WITHOUT_ALARMS {
            self.time = reader.u64().ok_or(OpenError::Malformed)?;
            let sum = reader.take().ok_or(OpenError::Malformed)?;
            self.leases_sum = Hash128::from_bytes(sum);
            let steps = reader.take().ok_or(OpenError::Malformed)?;
            self.steps = u32::from_le_bytes(steps);
        }
        if format >= FORMAT {
            self.alarms = alarms::decode(&mut reader).ok_or(OpenError::Malformed)?;
        }
        let readable = self.compacted.is_none_or(|compacted| compacted <= self.revision);
        let goal = Point::before(self.compacted.unwrap_or(Revision::ZERO));
        if self.trimmed > goal {
            self.shed = self.trimmed;
            self.trimmed = goal;
        }
        let sheddable = self.compacted.map_or(goal, Point::at);
        // There is a number behind each of them.
        let continues = self.revision.get() < REVISION_MAX
            && self.applied < LogIndex::MAX
            && self.sub < u32::MAX
            && self.trim_position().sub < u32::MAX;
        if !readable || self.shed > sheddable || !continues || !reader.0.is_empty() {
            return Err(OpenError::Malformed);
        }
        self.undropped = true;
        Ok(())
    }

    /// The numbers in the application's bytes of a checkpoint; none if they are of another format.
    pub(crate) fn head(meta: &[u8]) -> Option<Head> {
        // Behind the format: four numbers, two sums, a point.
        let mut reader = Reader(meta);
        let format = reader.u8().filter(|format| (1..=FORMAT).contains(format))?;
        let (applied, term) = (LogIndex::new(reader.u64()?), Term::new(reader.u64()?));
        let revision = Revision::new(reader.u64()?);
        let compacted = reader.u64()?.checked_sub(1).map(Revision::new);
        reader.bytes(2 * 16 + 12)?;
        let mut members = Vec::new();
        if format >= FORMAT_WHOLE_ENTRIES {
            reader.u64()?;
            let size = usize::from(u16::from_le_bytes(reader.take()?));
            members.extend_from_slice(reader.bytes(size)?);
        }
        let mut alarms = Vec::new();
        if format >= FORMAT {
            // Behind what is known of a half applied entry, the sums, and the log time.
            reader.bytes(4 + 2 * 8)?;
            let branches = u16::from_le_bytes(reader.take()?);
            reader.bytes(usize::from(branches))?;
            let deletes = u16::from_le_bytes(reader.take()?);
            reader.bytes(4 * usize::from(deletes) + 16 + 8 + 16 + 4)?;
            alarms = alarms::decode(&mut reader)?;
        }
        Some(Head { applied, term, revision, compacted, members, alarms })
    }

    /// How far trimming has got, as one point: what a restart goes on from.
    fn trim_position(&self) -> Point {
        match self.compacted {
            Some(compacted) if self.trimmed == Point::before(compacted) => {
                self.trimmed.max(self.shed)
            }
            _ => self.trimmed,
        }
    }

    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.applied = LogIndex::new(reader.u64()?);
        self.term = Term::new(reader.u64()?);
        self.revision = Revision::new(reader.u64()?);
        self.compacted = reader.u64()?.checked_sub(1).map(Revision::new);
        self.live_sum = Hash128::from_bytes(reader.take()?);
        self.events_sum = Hash128::from_bytes(reader.take()?);
        self.trimmed = reader.point()?;
        Some(())
    }

    fn decode_members(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let index = LogIndex::new(reader.u64()?);
        let size = usize::from(u16::from_le_bytes(reader.take()?));
        let (bytes, rest) = reader.0.split_at_checked(size)?;
        reader.0 = rest;
        if size > MEMBERS_SIZE_MAX || index > self.applied {
            return None;
        }
        self.members = Members { bytes: bytes.to_vec(), index };
        Some(())
    }

    fn decode_begun(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.sub = u32::from_le_bytes(reader.take()?);
        self.live_keys_size = reader.u64()?;
        self.live_inline_size = reader.u64()?;
        self.begun = Begun::default();
        for _ in 0..u16::from_le_bytes(reader.take()?) {
            self.begun.path.push(reader.u8()? != 0);
        }
        for _ in 0..u16::from_le_bytes(reader.take()?) {
            self.begun.deleted.push(u64::from(u32::from_le_bytes(reader.take()?)));
        }
        Some(())
    }

    /// Branches and done deletes of the transaction that is half applied; none of another entry, nor
    /// before the first change of one.
    fn begun(&self) -> (&[bool], &[u64]) {
        match &self.progress {
            _ if self.sub == 0 => (&[], &[]),
            Progress::None => (&self.begun.path, &self.begun.deleted),
            Progress::Delete(_) | Progress::Renew(_) => (&[], &[]),
            Progress::Txn(running) => running.begun(),
        }
    }

    /// Whether a checkpoint may begin now. Always but in the middle of a transaction whose branches and
    /// deletes do not fit a meta record: more than a hundred of them.
    pub fn may_checkpoint(&self) -> bool {
        let (path, deleted) = self.begun();
        let size = META_FIXED_SIZE + self.members.bytes.len() + path.len() + deleted.len() * 4;
        size + self.alarms_size() <= tree::APPLICATION_SIZE_MAX
    }

    /// Begins a checkpoint of the state as it is now, also of an entry that is half applied.
    ///
    /// # Panics
    ///
    /// When it may not: see [`Self::may_checkpoint`].
    pub fn checkpoint_begin(&mut self) {
        assert!(self.may_checkpoint(), "entry {} is half applied", self.applied.next());
        let meta = self.encode_meta();
        self.pages.checkpoint_begin(&meta);
    }

    /// The application's bytes of the meta record.
    pub(crate) fn encode_meta(&self) -> Vec<u8> {
        if self.incomplete {
            return [FORMAT_INCOMPLETE].to_vec();
        }
        let members = &self.members;
        let mut meta = Vec::with_capacity(META_FIXED_SIZE + members.bytes.len());
        meta.push(FORMAT);
        let back = u64::from(Mutant::AppliedTwice.is_on() && self.applied > LogIndex::ZERO);
        meta.extend_from_slice(&(self.applied.get() - back).to_le_bytes());
        meta.extend_from_slice(&self.term.get().to_le_bytes());
        meta.extend_from_slice(&self.revision.get().to_le_bytes());
        let compacted = self.compacted.map_or(0, |compacted| compacted.get() + 1);
        meta.extend_from_slice(&compacted.to_le_bytes());
        meta.extend_from_slice(&self.live_sum.to_bytes());
        meta.extend_from_slice(&self.events_sum.to_bytes());
        let trimmed = self.trim_position();
        meta.extend_from_slice(&trimmed.revision.get().to_le_bytes());
        meta.extend_from_slice(&trimmed.sub.to_le_bytes());
        meta.extend_from_slice(&members.index.get().to_le_bytes());
        let size = u16::try_from(members.bytes.len()).expect("at most MEMBERS_SIZE_MAX");
        meta.extend_from_slice(&size.to_le_bytes());
        meta.extend_from_slice(&members.bytes);
        meta.extend_from_slice(&self.sub.to_le_bytes());
        meta.extend_from_slice(&self.live_keys_size.to_le_bytes());
        meta.extend_from_slice(&self.live_inline_size.to_le_bytes());
        let (path, deleted) = self.begun();
        let number = |count: usize| u16::try_from(count).expect("what fits a meta record");
        meta.extend_from_slice(&number(path.len()).to_le_bytes());
        meta.extend(path.iter().map(|taken| u8::from(*taken)));
        meta.extend_from_slice(&number(deleted.len()).to_le_bytes());
        for count in deleted {
            let count = u32::try_from(*count).expect("an entry has fewer than 2^32 changes");
            meta.extend_from_slice(&count.to_le_bytes());
        }
        meta.extend_from_slice(&self.clients_sum.to_bytes());
        meta.extend_from_slice(&self.time.to_le_bytes());
        meta.extend_from_slice(&self.leases_sum.to_bytes());
        meta.extend_from_slice(&self.steps.to_le_bytes());
        alarms::encode(&self.alarms, &mut meta);
        meta
    }

    /// Applies the entry at `index`, which is the one behind the last applied one. Called again with
    /// the same entry until done; then it is applied exactly once, whatever its outcome.
    ///
    /// The budget counts keys and entries looked at or changed; what is left of it is handed back. A
    /// step that ends in a miss has done the part before the missing page and nothing of the part that
    /// needs it.
    ///
    /// # Panics
    ///
    /// When entries come out of order, or another one comes while one is half applied.
    pub fn apply(
        &mut self,
        index: LogIndex,
        term: Term,
        command: &Command<'_>,
        budget: &mut u32,
    ) -> Step<Outcome> {
        self.apply_once(index, term, None, command, budget)
    }

    /// The same for an entry with a stamp, if it has one: a write whose stamp is known is not applied
    /// again.
    ///
    /// # Panics
    ///
    /// As [`Self::apply`].
    pub fn apply_once(
        &mut self,
        index: LogIndex,
        term: Term,
        stamp: Option<&Stamp>,
        command: &Command<'_>,
        budget: &mut u32,
    ) -> Step<Outcome> {
        assert!(
            index == self.applied.next() && term >= self.term,
            "entry {index} of term {term} does not follow {} of term {}",
            self.applied,
            self.term
        );
        assert!(!self.incomplete, "entry {index} comes before the state has arrived");
        let result = match stamp {
            None => self.apply_command(command, budget),
            Some(stamp) => self.apply_stamped(stamp, command, budget),
        };
        if result.is_ok() {
            // Also of an entry that was refused, or is a repetition: its time stands in the log.
            if let Some(time) = command.log_time() {
                self.note_time(time);
            }
            if self.sub > 0 {
                self.revision = self.revision.next();
                self.sub = 0;
            }
            self.steps = 0;
            let refused = matches!(result, Ok(Outcome::Refused(_)));
            if refused && Mutant::RefusedNotApplied.is_on() {
                return result.into();
            }
            self.applied = index;
            self.term = term;
        }
        result.into()
    }

    pub(crate) fn apply_command(
        &mut self,
        command: &Command<'_>,
        budget: &mut u32,
    ) -> Result<Outcome, Stop> {
        if let Some(refusal) = self.alarm_against(command) {
            return Ok(Outcome::Refused(refusal));
        }
        let progress = core::mem::replace(&mut self.progress, Progress::None);
        match (command, progress) {
            (Command::Put(put), Progress::None) => {
                if let Err(refusal) = put.validate(&LIMITS_OF_APPLY) {
                    return Ok(Outcome::Refused(refusal));
                }
                charge(budget)?;
                Ok(match self.put(put, None)? {
                    Ok(()) => Outcome::Put { revision: self.revision.next() },
                    Err(refusal) => Outcome::Refused(refusal),
                })
            }
            (Command::DeleteRange(delete), progress @ (Progress::None | Progress::Delete(_))) => {
                if let Err(refusal) = delete.validate() {
                    return Ok(Outcome::Refused(refusal));
                }
                let mut deleting = match progress {
                    Progress::Delete(deleting) => deleting,
                    Progress::None | Progress::Txn(_) | Progress::Renew(_) => {
                        Deleting::resume(delete, self.sub.into())
                    }
                };
                match self.delete_range(&mut deleting, budget) {
                    Ok(count) => {
                        let revision = self.revision_of_changes();
                        Ok(Outcome::Deleted { revision, count })
                    }
                    Err(stop) => {
                        self.progress = Progress::Delete(deleting);
                        Err(stop)
                    }
                }
            }
            (Command::Txn(txn), progress @ (Progress::None | Progress::Txn(_))) => {
                let mut running = match progress {
                    Progress::Txn(running) => *running,
                    Progress::None | Progress::Delete(_) | Progress::Renew(_) if self.sub == 0 => {
                        Running::default()
                    }
                    Progress::None | Progress::Delete(_) | Progress::Renew(_) => {
                        let Begun { path, deleted } = core::mem::take(&mut self.begun);
                        Running::resume(txn, path, deleted, self.sub.into())
                    }
                };
                match self.run_txn(txn, &mut running, budget) {
                    Ok(Ok(outcome)) => Ok(Outcome::Txn(outcome)),
                    Ok(Err(refusal)) => Ok(Outcome::Refused(refusal)),
                    Err(stop) => {
                        self.progress = Progress::Txn(Box::new(running));
                        Err(stop)
                    }
                }
            }
            (Command::Compact { revision, .. }, Progress::None) => Ok(self.compact(*revision)),
            (Command::Members(bytes), Progress::None) => {
                Ok(self.set_members(bytes, self.applied.next()))
            }
            (Command::Register { clients_max }, Progress::None) => {
                charge(budget)?;
                self.register(*clients_max)
            }
            (Command::PutWithTtl { time, put, ttl_ms }, Progress::None) => {
                if let Err(refusal) = put.validate(&LIMITS_OF_APPLY) {
                    return Ok(Outcome::Refused(refusal));
                }
                charge(budget)?;
                self.put_with_ttl(*time, put, *ttl_ms)
            }
            (Command::LeaseGrant { time, lease, ttl_ms }, Progress::None) => {
                charge(budget)?;
                self.grant(*time, *lease, *ttl_ms)
            }
            (Command::LeaseRevoke { lease }, Progress::None) => self.revoke(*lease, budget),
            (
                Command::LeaseKeepAlive { time, leases },
                progress @ (Progress::None | Progress::Renew(_)),
            ) => {
                let mut renewing = match progress {
                    Progress::Renew(renewing) => renewing,
                    Progress::None | Progress::Delete(_) | Progress::Txn(_) => Renewing::default(),
                };
                let result = self.renew(*time, leases, &mut renewing, budget);
                if result.is_err() {
                    self.progress = Progress::Renew(renewing);
                }
                result
            }
            (Command::LeaseExpire { time, due, per_key }, Progress::None) => {
                self.expire(*time, *due, *per_key, budget)
            }
            (Command::Raise(alarm), Progress::None) => Ok(self.raise(*alarm)),
            (Command::Disarm { kind, member }, Progress::None) => Ok(self.disarm(*kind, *member)),
            (Command::LogTime { .. }, Progress::None) => Ok(Outcome::Nothing),
            (Command::Nothing, Progress::None) => Ok(Outcome::Nothing),
            (_, progress) => panic!("another entry came in the middle of {progress:?}"),
        }
    }

    /// The changes so far are a revision of their own; the entry goes on in the next one.
    pub(crate) fn complete_revision(&mut self) {
        self.revision = self.revision.next();
        self.steps = self.steps.saturating_add(self.sub);
        self.sub = 0;
    }

    /// The revision that the entry being applied has if it changes nothing more.
    pub(crate) fn revision_of_changes(&self) -> Revision {
        if self.sub > 0 { self.revision.next() } else { self.revision }
    }

    /// The revision that a read which asks for `revision` gets.
    pub(crate) fn readable(&self, revision: i64) -> Result<Revision, Refusal> {
        let Some(wanted) = u64::try_from(revision).ok().filter(|wanted| *wanted > 0) else {
            return Ok(self.revision);
        };
        let wanted = Revision::new(wanted);
        if wanted > self.revision {
            return Err(Refusal::FutureRevision);
        }
        let below = if Mutant::CompactedReadable.is_on() { wanted.next() } else { wanted };
        if self.compacted.is_some_and(|compacted| below < compacted) {
            return Err(Refusal::Compacted);
        }
        Ok(wanted)
    }

    /// The same for a range inside a transaction, where only 0 is the newest: a negative revision lies
    /// below the first readable one, which counts as -1 before the first compaction.
    pub(crate) fn readable_in_txn(&self, revision: i64) -> Result<(), Refusal> {
        if revision < 0 && revision < self.compacted_number() {
            return Err(Refusal::Compacted);
        }
        self.readable(revision).map(|_| ())
    }

    /// Whether the state at `revision` can still be read: what replaced it is all there. That may be so
    /// for a while behind a compaction.
    pub(crate) fn has_history(&self, revision: Revision) -> bool {
        self.trimmed.max(self.shed) <= Point::at(revision)
    }

    /// The compacted revision as etcd counts it: -1 before the first compaction.
    pub(crate) fn compacted_number(&self) -> i64 {
        self.compacted.map_or(-1, |compacted| i64::try_from(compacted.get()).unwrap_or(i64::MAX))
    }

    /// The point behind the newest event, one of a half applied entry too.
    pub(crate) fn now(&self) -> Point {
        Point { revision: self.revision.next(), sub: self.sub }
    }

    /// Events of this revision and later are there, with all that they replaced.
    pub(crate) fn whole_from(&self) -> Revision {
        let behind = |point: Point| match point.sub {
            0 => point.revision,
            _ => point.revision.next(),
        };
        behind(self.trimmed).max(behind(self.shed))
    }

    /// Has a state that was made in another way go on from here.
    pub(crate) fn begin_at(&mut self, revision: Revision, applied: LogIndex, term: Term) {
        (self.revision, self.applied, self.term) = (revision, applied, term);
    }

    /// The newest complete revision; 1 on an empty store.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be read; none before the first compaction.
    pub fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    /// The index of the entry that is being applied.
    pub(crate) fn applied_next(&self) -> LogIndex {
        self.applied.next()
    }

    /// Index and term of the last applied entry.
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied, self.term)
    }

    /// Whether no entry is half applied.
    pub fn between_entries(&self) -> bool {
        matches!(self.progress, Progress::None) && self.sub == 0 && self.steps == 0
    }

    /// Bytes by which the trees may grow when everything that is live now is deleted, before
    /// compaction takes it away. The reserve of a full disk is built on it.
    ///
    /// A delete moves the cell of a key from `current` into an event and leaves a tombstone. Events are
    /// appended, so that a leaf of them lacks at most one cell. Leaves of `current` go only as far as
    /// merging brings them together, which leaves no two neighbours below a quarter: four times the
    /// bytes of the tombstones at worst.
    pub fn delete_growth(&self) -> u64 {
        const EVENT: u64 = 110;
        const LIVE: u64 = 70;
        const TOMBSTONE: u64 = 45;
        let count = self.pages.summary(CURRENT).count;
        let (keys, values) = (self.live_keys_size, self.live_inline_size);
        let events = keys + values + count * EVENT;
        let page = base::limits::PAGE_SIZE as u64;
        let event_size = (events / count.max(1)).min(page / 2);
        let whole_leaves = events / (page - event_size) * page + page;
        let back = (keys + values + count * LIVE).saturating_sub(4 * (keys + count * TOMBSTONE));
        whole_leaves.saturating_sub(back)
    }

    /// The hash of everything that members must agree on at the same applied index: live keys, all
    /// events ever applied, revision, compacted revision, clients with the results of their writes, leases,
    /// alarms, and what entries have set about the members. What has been trimmed does not matter. O(1).
    ///
    /// While an entry is half applied it depends on how far that has got, too.
    pub fn state_hash(&self) -> Hash128 {
        let mut hasher = base::Hasher128::new();
        hasher.update(b"state");
        hasher.update(&self.revision.get().to_le_bytes());
        hasher.update(&self.compacted_number().to_le_bytes());
        hasher.update(&self.live_sum.to_bytes());
        hasher.update(&self.events_sum.to_bytes());
        // Before an entry has set them, one that joined later knows other ones than the founders.
        if self.members.index > LogIndex::ZERO {
            hasher.update(&self.members.index.get().to_le_bytes());
            hasher.update(&self.members.bytes);
        }
        // Before the first client has registered, the hash is that of versions which know of none.
        if self.clients_sum != Hash128::ZERO {
            hasher.update(b"clients");
            hasher.update(&self.clients_sum.to_bytes());
        }
        // The same for leases.
        if self.leases_sum != Hash128::ZERO || self.time > 0 {
            hasher.update(b"leases");
            hasher.update(&self.leases_sum.to_bytes());
            hasher.update(&self.time.to_le_bytes());
        }
        // And for alarms.
        if !self.alarms.is_empty() {
            let mut alarms = Vec::new();
            alarms::encode(&self.alarms, &mut alarms);
            hasher.update(b"alarms");
            hasher.update(&alarms);
        }
        hasher.finish()
    }

    /// The page file, for reads of its figures.
    pub fn pages(&self) -> &PageFile {
        &self.pages
    }

    /// The page file, for misses, eviction, growth and checkpoints. Its trees are not to be changed
    /// from outside.
    pub fn pages_mut(&mut self) -> &mut PageFile {
        &mut self.pages
    }

    /// Has the memory fetched that writing these keys will touch, for at most [`tree::WARM_MAX`] of
    /// them: a batch of writes then waits for memory together instead of one by one.
    pub fn warm(&self, keys: &[&[u8]]) {
        self.pages.warm(CURRENT, keys);
    }

    /// Collects what applying `command` will miss, as far as its keys tell, so that the reads can run
    /// at the same time: single keys of a put, a delete, or the first 128 compares and operations of a
    /// transaction.
    pub fn prefetch(&self, command: &Command<'_>, misses: &mut Vec<Miss>) {
        let mut left = 128;
        let _ = self.foresee_leases(command, &mut |miss| {
            if !misses.contains(&miss) {
                misses.push(miss);
                left -= 1;
            }
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let mut probe = |key: &[u8]| {
            if let Err(miss) = self.pages.get(CURRENT, key)
                && !misses.contains(&miss)
            {
                misses.push(miss);
            }
        };
        match command {
            Command::Put(put) | Command::PutWithTtl { put, .. } => probe(put.key),
            Command::DeleteRange(delete) => probe(delete.key),
            Command::Txn(txn) => {
                txn.compares.iter().take(128).for_each(|compare| probe(compare.key));
                for op in txn.success.iter().take(128).chain(txn.failure.iter().take(128)) {
                    match op {
                        Op::Put(put) => probe(put.key),
                        Op::DeleteRange(delete) => probe(delete.key),
                        Op::Range(_) | Op::Txn(_) | Op::Unset => {}
                    }
                }
            }
            Command::Compact { .. }
            | Command::Members(_)
            | Command::Register { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseKeepAlive { .. }
            | Command::LeaseExpire { .. }
            | Command::LogTime { .. }
            | Command::Raise(_)
            | Command::Disarm { .. }
            | Command::Nothing => {}
        }
    }
}

const _: () = assert!(
    LIMITS_OF_APPLY.value_size_max <= tree::RUN_SIZE_MAX,
    "a value that apply lets through fits a run"
);
