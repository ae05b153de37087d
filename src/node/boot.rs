//! Boot: from the files of a stopped member to the state its roles begin with. Asks for reads, writes
//! nothing, and may be interrupted and repeated anywhere.
//!
//! ```text
//! page file: newest checkpoint that verifies ─► WAL: scan, verdict on its end ─► replay up to the
//! commit index ─► entries behind it wait for the next leader to commit them
//! ```
//!
//! Replay is exactly the apply of normal running.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use base::{Frame, LogIndex, Term};
use kv::{State, Step};
use raft::TermRun;
use tree::{Miss, Open, OpenError, OpenStep, PageFile};
use wal::{Applied, Files, Owner, Recovered, Recovery, RecoveryError, Replay, ReplayStep, WalFile};

use crate::message::{Committed, EntryKind};
use crate::translate;

/// A file that boot reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataFile {
    /// The page file.
    Pages,
    /// A file of the WAL.
    Wal(WalFile),
}

/// What boot wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootStep {
    /// Read this and feed it; fewer bytes where the file ends.
    Read {
        /// The file.
        file: DataFile,
        /// Offset in bytes.
        offset: u64,
        /// Bytes.
        size: usize,
    },
    /// Call [`Boot::finish`].
    Done,
}

/// Why a member cannot start.
#[derive(Debug)]
pub enum BootError {
    /// The page file cannot be used.
    Pages(OpenError),
    /// A page that replay needed does not verify.
    Page(tree::Damage),
    /// The state in the page file contradicts itself.
    State(kv::Damage),
    /// The application's part of the meta record cannot be read.
    Meta(kv::OpenError),
    /// The WAL cannot be used.
    Wal(RecoveryError),
    /// An entry of the log is of a kind that this version does not know.
    EntryKind {
        /// Its index.
        index: LogIndex,
        /// Its kind.
        kind: u8,
    },
    /// An entry of the log cannot be read.
    Entry {
        /// Its index.
        index: LogIndex,
        /// Why.
        error: wire::DecodeError,
    },
    /// The log begins behind what the page file holds.
    Gap {
        /// Applied index of the page file.
        applied: LogIndex,
        /// The first index of the log.
        first: LogIndex,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages(error) => error.fmt(f),
            Self::Page(damage) => damage.fmt(f),
            Self::State(damage) => damage.fmt(f),
            Self::Meta(error) => error.fmt(f),
            Self::Wal(error) => error.fmt(f),
            Self::EntryKind { index, kind } => write!(
                f,
                "log entry {index} has kind {kind}, which this version does not know; start the \
                 version that wrote it"
            ),
            Self::Entry { index, error } => {
                write!(f, "log entry {index} verifies but cannot be read: {error}")
            }
            Self::Gap { applied, first } => write!(
                f,
                "the page file holds the log up to index {applied}, but the WAL begins only at \
                 {first}: a file is missing or from another time; restore the data directory from \
                 one copy"
            ),
        }
    }
}

impl core::error::Error for BootError {}

/// What the roles begin with.
pub struct Booted {
    /// The state, applied up to the commit index that is known.
    pub state: State,
    /// Entries behind it, for the next leader to commit.
    pub pending: Vec<Committed>,
    /// What the writer goes on from.
    pub recovered: Recovered,
    /// The terms of the log for raft.
    pub terms: Vec<TermRun>,
    /// Entries that were replayed.
    pub replayed: u64,
    /// Applied index of the checkpoint that it all began with.
    pub published: LogIndex,
    /// Neither meta slot verifies, but they are not blank: before anything else is written to the page
    /// file both are overwritten with zeros, so that no refused record can come back.
    pub clear_slots: bool,
}

enum Phase {
    Pages(Box<Open>),
    Wal(Box<Scanning>),
    Replay(Box<Replaying>),
    /// Between two phases, and after an error.
    Moving,
}

struct Scanning {
    state: State,
    recovery: Recovery,
}

struct Replaying {
    state: State,
    recovered: Recovered,
    replay: Replay,
    miss: Option<Miss>,
}

/// A boot under way: `next`, read, `feed`, until `Done`; then `finish`.
pub struct Boot {
    options: tree::Options,
    files: Files,
    phase: Phase,
    /// The entry that waits for a page.
    waiting: Option<Committed>,
    pending: Vec<Committed>,
    replayed: u64,
    published: LogIndex,
    clear_slots: bool,
    /// Where the bytes that are fed next go.
    reading: Option<DataFile>,
}

impl Boot {
    /// Begins with nothing read. `pages_size` is 0 where there is no page file.
    pub fn new(options: tree::Options, pages_size: u64, files: Files) -> Self {
        let phase = Phase::Pages(Box::new(Open::new(&options, pages_size)));
        Self {
            options,
            files,
            phase,
            waiting: None,
            pending: Vec::new(),
            replayed: 0,
            published: LogIndex::ZERO,
            clear_slots: false,
            reading: None,
        }
    }

    /// What to do next.
    #[expect(clippy::should_implement_trait, reason = "it is fed in between")]
    pub fn next(&mut self) -> Result<BootStep, BootError> {
        loop {
            match core::mem::replace(&mut self.phase, Phase::Moving) {
                Phase::Pages(mut open) => match open.next() {
                    OpenStep::Read { offset, size } => {
                        self.phase = Phase::Pages(open);
                        return Ok(self.read(DataFile::Pages, offset, size));
                    }
                    OpenStep::Done => {
                        let state = self.open_state(*open)?;
                        let (index, term) = state.applied();
                        self.published = index;
                        let owner = Owner::Member {
                            cluster: self.options.cluster,
                            member: self.options.member,
                        };
                        let applied = Applied::Upto { index, term };
                        let recovery = Recovery::new(owner, &self.files, applied);
                        self.phase = Phase::Wal(Box::new(Scanning { state, recovery }));
                    }
                },
                Phase::Wal(mut scanning) => match scanning.recovery.next() {
                    wal::Step::Read(read) => {
                        self.phase = Phase::Wal(scanning);
                        return Ok(self.read(DataFile::Wal(read.file), read.offset, read.size));
                    }
                    wal::Step::Done => {
                        let Scanning { state, recovery } = *scanning;
                        let recovered = recovery.finish().map_err(BootError::Wal)?;
                        let (applied, _) = state.applied();
                        if recovered.base.index > applied {
                            let first = recovered.base.index.next();
                            return Err(BootError::Gap { applied, first });
                        }
                        let replay = Replay::new(&recovered, applied);
                        let replaying = Replaying { state, recovered, replay, miss: None };
                        self.phase = Phase::Replay(Box::new(replaying));
                    }
                },
                Phase::Replay(mut replaying) => {
                    let next = self.replay(&mut replaying)?;
                    self.phase = Phase::Replay(replaying);
                    if let Some(next) = next {
                        return Ok(next);
                    }
                }
                Phase::Moving => unreachable!("boot goes on after an error"),
            }
        }
    }

    /// Takes the next entry; none when there is nothing to read for it.
    fn replay(&mut self, replaying: &mut Replaying) -> Result<Option<BootStep>, BootError> {
        let Replaying { state, recovered, replay, miss } = replaying;
        *miss = None;
        let step = match self.waiting.take() {
            Some(entry) => self.apply(state, entry)?,
            None => match replay.next().map_err(BootError::Wal)? {
                ReplayStep::Read(read) => Replayed::Read(read),
                ReplayStep::Done => Replayed::Done,
                ReplayStep::Entry(entry) => {
                    let entry = owned(&entry)?;
                    if entry.index <= recovered.hard_state.commit {
                        self.apply(state, entry)?
                    } else {
                        self.pending.push(entry);
                        Replayed::Entry
                    }
                }
            },
        };
        Ok(match step {
            Replayed::Entry => None,
            Replayed::Done => Some(BootStep::Done),
            Replayed::Read(read) => {
                Some(self.read(DataFile::Wal(read.file), read.offset, read.size))
            }
            Replayed::Miss(missing) => {
                *miss = Some(missing);
                Some(self.read(DataFile::Pages, missing.offset(), missing.size()))
            }
        })
    }

    fn read(&mut self, file: DataFile, offset: u64, size: usize) -> BootStep {
        self.reading = Some(file);
        BootStep::Read { file, offset, size }
    }

    fn open_state(&mut self, open: Open) -> Result<State, BootError> {
        match open.finish() {
            Ok((pages, application)) => State::open(pages, &application).map_err(BootError::Meta),
            // Before the first checkpoint everything is in the log, from its first entry on, also when
            // its meta record was torn; a log that begins later is refused as a gap.
            Err(OpenError::NoMeta { blank }) => {
                self.clear_slots = !blank;
                Ok(State::create(PageFile::create(&self.options)))
            }
            Err(error) => Err(BootError::Pages(error)),
        }
    }

    fn apply(&mut self, state: &mut State, entry: Committed) -> Result<Replayed, BootError> {
        let command = translate::command(entry.kind, &entry.frame)
            .map_err(|error| BootError::Entry { index: entry.index, error })?;
        loop {
            let mut budget = u32::MAX;
            match state.apply(entry.index, entry.term, &command, &mut budget) {
                Step::Done(_) => break,
                Step::More => {}
                Step::Miss(miss) => {
                    drop(command);
                    self.waiting = Some(entry);
                    return Ok(Replayed::Miss(miss));
                }
                Step::Damaged(damage) => return Err(BootError::State(damage)),
            }
        }
        self.replayed += 1;
        if self.replayed.is_multiple_of(1_024) {
            state.pages_mut().evict();
        }
        Ok(Replayed::Entry)
    }

    /// Takes the bytes that were asked for.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BootError> {
        match (&mut self.phase, self.reading.take()) {
            (Phase::Pages(open), Some(DataFile::Pages)) => open.feed(bytes),
            (Phase::Wal(scanning), Some(DataFile::Wal(_))) => scanning.recovery.feed(bytes),
            (Phase::Replay(replaying), Some(DataFile::Wal(_))) => replaying.replay.feed(bytes),
            (Phase::Replay(replaying), Some(DataFile::Pages)) => {
                let miss = replaying.miss.take().expect("a page is read for what was missing");
                let pages = replaying.state.pages_mut();
                pages.install(miss, bytes).map_err(BootError::Page)?;
            }
            _ => unreachable!("bytes were fed that nobody had asked for"),
        }
        Ok(())
    }

    /// A read of the WAL failed: it is asked for again block by block.
    pub fn feed_unreadable(&mut self) {
        match &mut self.phase {
            Phase::Wal(scanning) => scanning.recovery.feed_unreadable(),
            Phase::Replay(replaying) => replaying.replay.feed_unreadable(),
            Phase::Pages(_) | Phase::Moving => {}
        }
    }

    /// What the roles begin with.
    ///
    /// # Panics
    /// If `next` has not said `Done`.
    pub fn finish(self) -> Booted {
        let Phase::Replay(replaying) = self.phase else { unreachable!("boot is not done") };
        let Replaying { state, recovered, .. } = *replaying;
        let terms = terms(&recovered);
        Booted {
            state,
            pending: self.pending,
            recovered,
            terms,
            replayed: self.replayed,
            published: self.published,
            clear_slots: self.clear_slots,
        }
    }
}

enum Replayed {
    Entry,
    Done,
    Read(wal::Read),
    Miss(Miss),
}

fn owned(entry: &wal::Entry<'_>) -> Result<Committed, BootError> {
    let kind = EntryKind::from_u8(entry.kind)
        .ok_or(BootError::EntryKind { index: entry.index, kind: entry.kind })?;
    Ok(Committed {
        index: entry.index,
        term: entry.term,
        kind,
        frame: Frame::copy_from_slice(entry.payload),
        ticket: None,
    })
}

/// The terms of the log, the entry before its first one included.
fn terms(recovered: &Recovered) -> Vec<TermRun> {
    let mut runs: Vec<TermRun> = Vec::new();
    if recovered.base.term > Term::ZERO {
        runs.push(TermRun { first: recovered.base.index, term: recovered.base.term });
    }
    for run in &recovered.terms {
        if runs.last().is_none_or(|last| last.term < run.term) {
            runs.push(TermRun { first: run.first, term: run.term });
        }
    }
    runs
}
