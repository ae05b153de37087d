//! Boot: from the files of a stopped member to the state its roles begin with. Asks for reads, writes
//! nothing, and may be interrupted and repeated anywhere.
//!
//! ```text
//! page file: newest checkpoint that verifies ─► WAL: scan, verdict on its end ─► replay up to the
//! commit index ─► entries behind it wait for the next leader to commit them
//! ```
//!
//! Replay is exactly the apply of normal running, with a look ahead. Entries are taken from the log in
//! windows; all pages that the keys of a window name are read before it is applied, in the order of the
//! file, neighbours with one read. These reads are told ahead, so that a driver can have many of them
//! under way, and they are fed in between as the window before is applied:
//!
//! ```text
//! log ─► gather: entries, misses ─► sort, merge ─► reads of window n + 1 ─┐
//!                                                  apply window n ◄───────┴─ in turns
//! ```
//!
//! What keys do not tell (a run, the leaf of the newest events) is read when it is missed.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use base::{Frame, Hash128, LogIndex, PageNo, Stamp, Term};
use hashbrown::HashSet;
use kv::{Command, State, Step};
use raft::TermRun;
use tree::{Miss, Open, OpenError, OpenStep, PageFile, WARM_MAX};
use wal::{
    Applied, Entry, Files, Owner, READ_SIZE_MAX, Recovered, Recovery, RecoveryError, Replay,
    ReplayStep, WalFile,
};

use crate::message::EntryKind;
use crate::tail::{Kept, Tail};
use crate::translate;

/// What a window may take in memory, entries and pages: half of what the cache has room for, since the
/// more pages are read together the more of them are neighbours; at least this part of the bound, as two
/// such windows fit in what the cache keeps of clean leaves in any case; and at most so many bytes.
const WINDOW_SHARE: u64 = 16;
const WINDOW_SIZE_MAX: u64 = 512 << 20;

/// Bytes that are read for nothing rather than with a read of their own: about what a disk moves in
/// the time that one more read costs it.
const GAP_MAX: u64 = 16 << 10;

/// Reads of the WAL that are foretold: it is read from front to back.
const WAL_AHEAD: usize = 4;

/// Bytes of applied entries that are kept for peers that lack them.
const RECENT_SIZE_MAX: usize = 8 << 20;

/// Units of work of one entry between two looks at memory.
const APPLY_SLICE: u32 = 4_096;

/// Entries looked at when one misses a page that its keys did not tell.
const LOOK_AHEAD: usize = 64;

/// A file that boot reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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

/// A read that boot will ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootRead {
    /// The file.
    pub file: DataFile,
    /// Offset in bytes.
    pub offset: u64,
    /// Bytes.
    pub size: usize,
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

impl BootError {
    /// Whether the log begins behind what the page file holds: if a state of another member was being put
    /// in place, that is what the log follows.
    pub fn begins_behind(&self) -> bool {
        let begins = |witness: &wal::Witness| matches!(witness, wal::Witness::Begins { .. });
        match self {
            Self::Gap { .. } => true,
            Self::Wal(RecoveryError::Lost { witness, .. }) => begins(witness),
            _ => false,
        }
    }
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
    /// The end of the log: the last entries that were replayed, for peers that lack them, and those
    /// behind the commit index, for the next leader to commit.
    pub tail: Tail,
    /// The members that the state holds and those of later entries: index and encoded list.
    pub members: Vec<(LogIndex, Frame)>,
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

/// A read of the page file.
struct Fetch {
    offset: u64,
    size: usize,
    /// How many of the misses, in order, it is for.
    misses: usize,
    /// Something was missed already: replay cannot go on without it. Otherwise it is only foreseen.
    needed: bool,
}

struct Replaying {
    state: State,
    recovered: Recovered,
    replay: Replay,
    /// Entries to apply: those of the window whose pages have come, then those of the next window.
    entries: VecDeque<Kept>,
    /// The last entries that were applied.
    recent: VecDeque<Kept>,
    recent_size: usize,
    /// The entry before the first of those, or before the first to apply.
    before: Option<wal::Position>,
    /// How many of the entries to apply are of the first window.
    ready: usize,
    /// How many of those `warm` has been called for.
    warm: usize,
    /// The next window is complete.
    gathered: bool,
    /// Bytes that it takes in memory so far, and how many it may.
    gathered_size: u64,
    window_size: u64,
    cache_size: u64,
    /// Pages that it wants, to ask for each only once.
    wanted: HashSet<PageNo>,
    /// Reads to ask for, front first, and what each is for.
    fetches: VecDeque<Fetch>,
    misses: VecDeque<Miss>,
    /// How many of the reads must be through before replay goes on.
    urgent: usize,
    /// Bytes read since pages were last dropped for what nobody had foreseen.
    unforeseen_size: u64,
    /// Whether it may end in the middle of a large entry, and whether it has.
    hands_over: bool,
    handed_over: bool,
}

/// A boot under way: `next`, read, `feed`, until `Done`; then `finish`.
pub struct Boot {
    options: tree::Options,
    files: Files,
    /// The members of a cluster that begins, encoded.
    founders: Vec<u8>,
    phase: Phase,
    pending: Vec<Kept>,
    replayed: u64,
    published: LogIndex,
    clear_slots: bool,
    hands_over: bool,
    /// What the bytes that are fed next are.
    asked: Option<BootRead>,
}

impl Boot {
    /// Begins with nothing read. `pages_size` is 0 where there is no page file; `founders` are the
    /// members that the cluster begins with, encoded.
    pub fn new(options: tree::Options, pages_size: u64, files: Files, founders: Vec<u8>) -> Self {
        let phase = Phase::Pages(Box::new(Open::new(&options, pages_size)));
        Self {
            options,
            files,
            founders,
            phase,
            pending: Vec::new(),
            replayed: 0,
            published: LogIndex::ZERO,
            clear_slots: false,
            hands_over: false,
            asked: None,
        }
    }

    /// Has replay end in the middle of an entry that changes more than half of what the page cache may
    /// hold: the rest of it, and what follows, is left to the store, which can make room for it with
    /// checkpoints. The entries count as not committed then, until the leader says so again.
    pub fn hand_over_large_entries(&mut self) {
        self.hands_over = true;
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
                        let cache_size = self.options.cache_size;
                        let mut replaying = Replaying::new(state, recovered, applied, cache_size);
                        replaying.hands_over = self.hands_over;
                        self.phase = Phase::Replay(Box::new(replaying));
                    }
                },
                Phase::Replay(mut replaying) => {
                    let next = self.replay(&mut replaying);
                    self.phase = Phase::Replay(replaying);
                    return next;
                }
                Phase::Moving => unreachable!("boot goes on after an error"),
            }
        }
    }

    /// Goes on with the replay to its next read.
    fn replay(&mut self, replaying: &mut Replaying) -> Result<BootStep, BootError> {
        loop {
            if replaying.handed_over {
                let read = replaying.gather_rest(&mut self.pending)?;
                return Ok(match read {
                    Some(read) => self.read(DataFile::Wal(read.file), read.offset, read.size),
                    None => BootStep::Done,
                });
            }
            if replaying.urgent == 0 {
                if !replaying.gathered
                    && let Some(read) = replaying.gather(&mut self.pending)?
                {
                    return Ok(self.read(DataFile::Wal(read.file), read.offset, read.size));
                }
                if replaying.ready == 0 && replaying.fetches.is_empty() {
                    if replaying.entries.is_empty() {
                        return Ok(BootStep::Done);
                    }
                    replaying.advance();
                    continue;
                }
                self.replayed += replaying.apply_share()?;
            }
            if let Some(fetch) = replaying.fetches.front() {
                return Ok(self.read(DataFile::Pages, fetch.offset, fetch.size));
            }
        }
    }

    fn read(&mut self, file: DataFile, offset: u64, size: usize) -> BootStep {
        self.asked = Some(BootRead { file, offset, size });
        BootStep::Read { file, offset, size }
    }

    /// The read that will be asked for `n` reads behind the present one, as far as it is known: for
    /// whoever can have several reads under way. It is only a hint: others may come in between, some may
    /// never come.
    pub fn ahead(&self, n: usize) -> Option<BootRead> {
        let asked = self.asked?;
        let pages = |(offset, size)| BootRead { file: DataFile::Pages, offset, size };
        match (&self.phase, asked.file) {
            (Phase::Pages(open), _) => open.ahead(n).map(pages),
            (Phase::Replay(replaying), DataFile::Pages) => {
                replaying.fetches.get(n + 1).map(|fetch| pages((fetch.offset, fetch.size)))
            }
            (_, DataFile::Wal(file)) => {
                // Blocks are read one by one where there is damage or nothing to go on to.
                if asked.size < READ_SIZE_MAX || n >= WAL_AHEAD {
                    return None;
                }
                let offset = asked.offset + size64(READ_SIZE_MAX * (n + 1));
                let left = self.size_of(file).checked_sub(offset).filter(|left| *left > 0)?;
                let size = usize::try_from(left).unwrap_or(usize::MAX).min(READ_SIZE_MAX);
                Some(BootRead { file: asked.file, offset, size })
            }
            (_, DataFile::Pages) => None,
        }
    }

    fn size_of(&self, file: WalFile) -> u64 {
        match file {
            WalFile::Slot(slot) => {
                let file = self.files.slots.iter().find(|file| file.slot == slot);
                file.map_or(0, |file| file.size)
            }
            WalFile::Ring => self.files.ring_size,
            WalFile::Watermark => self.files.watermark_size,
        }
    }

    fn open_state(&mut self, open: Open) -> Result<State, BootError> {
        match open.finish() {
            Ok((pages, application)) => State::open(pages, &application).map_err(BootError::Meta),
            // Before the first checkpoint everything is in the log, from its first entry on, also when
            // its meta record was torn; a log that begins later is refused as a gap.
            Err(OpenError::NoMeta { blank }) => {
                self.clear_slots = !blank;
                let mut state = State::create(PageFile::create(&self.options));
                state.set_members_at_creation(&self.founders);
                Ok(state)
            }
            Err(error) => Err(BootError::Pages(error)),
        }
    }

    /// Takes the bytes that were asked for.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BootError> {
        match (&mut self.phase, self.asked.take().map(|asked| asked.file)) {
            (Phase::Pages(open), Some(DataFile::Pages)) => open.feed(bytes),
            (Phase::Wal(scanning), Some(DataFile::Wal(_))) => scanning.recovery.feed(bytes),
            (Phase::Replay(replaying), Some(DataFile::Wal(_))) => replaying.replay.feed(bytes),
            (Phase::Replay(replaying), Some(DataFile::Pages)) => replaying.install(bytes)?,
            _ => unreachable!("bytes were fed that nobody had asked for"),
        }
        Ok(())
    }

    /// Whether boot goes on if the present read fails. One of the WAL is asked for again block by block;
    /// one of the page file is done without unless something in it has been missed already.
    pub fn survives_failure(&self) -> bool {
        match (&self.phase, self.asked) {
            (Phase::Wal(_) | Phase::Replay(_), Some(BootRead { file: DataFile::Wal(_), .. })) => {
                true
            }
            (Phase::Replay(replaying), Some(_)) => !replaying.is_needed(),
            _ => false,
        }
    }

    /// The present read failed.
    ///
    /// # Panics
    /// If boot does not survive that: see [`Boot::survives_failure`].
    pub fn feed_unreadable(&mut self) {
        assert!(self.survives_failure(), "what could not be read is needed: {:?}", self.asked);
        match (&mut self.phase, self.asked.take().map(|asked| asked.file)) {
            (Phase::Wal(scanning), Some(_)) => scanning.recovery.feed_unreadable(),
            (Phase::Replay(replaying), Some(DataFile::Wal(_))) => {
                replaying.replay.feed_unreadable();
            }
            (Phase::Replay(replaying), Some(DataFile::Pages)) => replaying.skip(),
            _ => {}
        }
    }

    /// What the roles begin with.
    ///
    /// # Panics
    /// If `next` has not said `Done`.
    pub fn finish(self) -> Booted {
        let Phase::Replay(replaying) = self.phase else { unreachable!("boot is not done") };
        let Replaying { state, mut recovered, recent, before, handed_over, .. } = *replaying;
        if handed_over {
            recovered.hard_state.commit = state.applied().0;
        }
        let terms = terms(&recovered);
        let (list, index) = state.members();
        let mut members = Vec::from([(index, Frame::copy_from_slice(list))]);
        for entry in &self.pending {
            if entry.kind == EntryKind::Members as u8 {
                members.push((entry.index, entry.frame.clone()));
            }
        }
        let tail = Tail::restored(before.unwrap_or(recovered.last), recent, self.pending);
        Booted {
            state,
            tail,
            members,
            recovered,
            terms,
            replayed: self.replayed,
            published: self.published,
            clear_slots: self.clear_slots,
        }
    }
}

impl Replaying {
    fn new(state: State, recovered: Recovered, applied: LogIndex, cache_size: u64) -> Self {
        let replay = Replay::new(&recovered, applied);
        let mut replaying = Self {
            state,
            recovered,
            replay,
            entries: VecDeque::new(),
            recent: VecDeque::new(),
            recent_size: 0,
            before: None,
            ready: 0,
            warm: 0,
            gathered: false,
            gathered_size: 0,
            window_size: 0,
            cache_size,
            wanted: HashSet::new(),
            fetches: VecDeque::new(),
            misses: VecDeque::new(),
            urgent: 0,
            unforeseen_size: 0,
            hands_over: false,
            handed_over: false,
        };
        replaying.begin_window();
        replaying
    }

    /// Begins to gather a window.
    fn begin_window(&mut self) {
        let room = self.cache_size.saturating_sub(self.state.pages().resident_size());
        let least = (self.cache_size / WINDOW_SHARE).max(1);
        self.window_size = (room / 2).min(WINDOW_SIZE_MAX).max(least);
        self.gathered = false;
        self.gathered_size = 0;
        self.wanted.clear();
    }

    /// Takes the entries of the next window from the log and plans its reads; or the read of the log
    /// that it needs for that. Entries that may not be applied yet go to `pending`.
    fn gather(&mut self, pending: &mut Vec<Kept>) -> Result<Option<wal::Read>, BootError> {
        while self.gathered_size < self.window_size {
            let entry = match self.replay.next().map_err(BootError::Wal)? {
                ReplayStep::Read(read) => return Ok(Some(read)),
                ReplayStep::Done => break,
                ReplayStep::Entry(entry, link) => {
                    self.before.get_or_insert(link.before);
                    owned(&entry, link.hash)?
                }
            };
            if entry.index > self.recovered.hard_state.commit {
                pending.push(entry);
                continue;
            }
            self.gathered_size += size64(entry.frame.len() + size_of::<Kept>());
            self.foresee(&entry)?;
            self.entries.push_back(entry);
        }
        self.gathered = true;
        self.fetches = merge(self.misses.make_contiguous()).into();
        Ok(None)
    }

    /// Takes all entries that are not applied as they are.
    fn gather_rest(&mut self, pending: &mut Vec<Kept>) -> Result<Option<wal::Read>, BootError> {
        // They come before those behind the commit index, which the last window may have met already.
        let behind = pending
            .iter()
            .position(|entry| self.entries.back().is_some_and(|last| entry.index > last.index));
        let at = behind.unwrap_or(pending.len());
        pending.splice(at..at, self.entries.drain(..));
        loop {
            match self.replay.next().map_err(BootError::Wal)? {
                ReplayStep::Read(read) => return Ok(Some(read)),
                ReplayStep::Done => return Ok(None),
                ReplayStep::Entry(entry, link) => {
                    self.before.get_or_insert(link.before);
                    pending.push(owned(&entry, link.hash)?);
                }
            }
        }
    }

    /// Notes what `entry` of the next window will miss.
    fn foresee(&mut self, entry: &Kept) -> Result<(), BootError> {
        let Self { state, gathered_size, window_size, wanted, misses, .. } = self;
        foresee(state, entry, &mut |miss| {
            if wanted.insert(miss.page) {
                *gathered_size += size64(miss.size());
                misses.push_back(miss);
            }
            if gathered_size < window_size {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
    }

    /// The pages of the window that was gathered are there, and all entries before it are applied.
    fn advance(&mut self) {
        self.state.pages_mut().evict();
        self.unforeseen_size = 0;
        self.ready = self.entries.len();
        self.begin_window();
    }

    /// Applies as many of the entries that are ready as keep pace with the reads for the next ones;
    /// returns how many.
    fn apply_share(&mut self) -> Result<u64, BootError> {
        let share = self.ready.div_ceil(self.fetches.len() + 1);
        let mut applied = 0;
        for _ in 0..share {
            if self.warm == 0 {
                self.warm = self.warm();
            }
            self.warm -= 1;
            let Some(entry) = self.entries.pop_front() else { break };
            let miss = self.apply(&entry)?;
            if miss.is_some() || self.handed_over {
                self.entries.push_front(entry);
                self.warm = 0;
                if let Some(miss) = miss {
                    self.fetch_missed(miss)?;
                }
                break;
            }
            self.remember(entry);
            self.ready -= 1;
            applied += 1;
        }
        Ok(applied)
    }

    /// Keeps an entry that was applied, and lets go of older ones.
    fn remember(&mut self, entry: Kept) {
        self.recent_size += entry.frame.len();
        self.recent.push_back(entry);
        while self.recent_size > RECENT_SIZE_MAX
            && let Some(gone) = self.recent.pop_front()
        {
            self.recent_size -= gone.frame.len();
            self.before = Some(gone.position());
        }
    }

    /// Has the memory fetched that the next entries will touch; returns how many, at least one.
    fn warm(&self) -> usize {
        let mut keys: [&[u8]; WARM_MAX] = [&[]; WARM_MAX];
        let mut count = 0;
        let entries = self.entries.iter().take(self.ready.min(WARM_MAX));
        let looked_at = entries.len();
        for entry in entries {
            if let Ok((_, Command::Put(put))) = command(entry) {
                keys[count] = put.key;
                count += 1;
            }
        }
        self.state.warm(&keys[..count]);
        looked_at.max(1)
    }

    /// Applies an entry; or what it misses.
    fn apply(&mut self, entry: &Kept) -> Result<Option<Miss>, BootError> {
        let (stamp, command) = command(entry)?;
        let (index, term) = (entry.index, entry.term);
        loop {
            let mut budget = APPLY_SLICE;
            match self.state.apply_once(index, term, stamp.as_ref(), &command, &mut budget) {
                Step::Done(_) => return Ok(None),
                Step::More if self.hands_over && self.is_too_dirty() => {
                    self.handed_over = true;
                    return Ok(None);
                }
                Step::More => {}
                Step::Miss(miss) => return Ok(Some(miss)),
                Step::Damaged(damage) => return Err(BootError::State(damage)),
            }
        }
    }

    fn is_too_dirty(&self) -> bool {
        self.state.pages().dirty_size() > self.cache_size / 2
    }

    /// The first entry missed a page that was not foreseen: it is read before anything else, and with
    /// it what the next entries will miss now, for a range that is deleted often has more to come.
    fn fetch_missed(&mut self, miss: Miss) -> Result<(), BootError> {
        if self.unforeseen_size >= self.window_size {
            self.unforeseen_size = 0;
            self.state.pages_mut().evict();
        }
        let mut size = size64(miss.size());
        let mut others = Vec::new();
        let mut wanted = HashSet::new();
        wanted.insert(miss.page);
        for entry in self.entries.iter().take(self.ready.min(LOOK_AHEAD)) {
            foresee(&self.state, entry, &mut |other| {
                if wanted.insert(other.page) {
                    size += size64(other.size());
                    others.push(other);
                }
                if size < self.window_size {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        self.unforeseen_size += size;
        let fetches = merge(&mut others);
        self.urgent = fetches.len() + 1;
        for fetch in fetches.into_iter().rev() {
            self.fetches.push_front(fetch);
        }
        for other in others.into_iter().rev() {
            self.misses.push_front(other);
        }
        // Alone and first, so that whatever is wrong with the rest does not touch it.
        let (offset, size) = (miss.offset(), miss.size());
        self.fetches.push_front(Fetch { offset, size, misses: 1, needed: true });
        self.misses.push_front(miss);
        Ok(())
    }

    /// Takes in the bytes of the first read.
    fn install(&mut self, bytes: &[u8]) -> Result<(), BootError> {
        let Some(fetch) = self.fetches.pop_front() else { return Ok(()) };
        self.urgent = self.urgent.saturating_sub(1);
        for miss in self.misses.drain(..fetch.misses) {
            let from = usize::try_from(miss.offset() - fetch.offset).unwrap_or(usize::MAX);
            let bytes = bytes.get(from..).unwrap_or(&[]);
            let bytes = &bytes[..miss.size().min(bytes.len())];
            match self.state.pages_mut().install(miss, bytes) {
                Err(damage) if fetch.needed => return Err(BootError::Page(damage)),
                // Who really needs it will miss it, and then it is read again.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether replay cannot go on without what the first read brings.
    fn is_needed(&self) -> bool {
        self.fetches.front().is_some_and(|fetch| fetch.needed)
    }

    /// Does without the first read.
    fn skip(&mut self) {
        let Some(fetch) = self.fetches.pop_front() else { return };
        self.urgent = self.urgent.saturating_sub(1);
        self.misses.drain(..fetch.misses);
    }
}

/// Sorts misses and puts those that lie near each other into one read.
fn merge(misses: &mut [Miss]) -> Vec<Fetch> {
    misses.sort_unstable_by_key(Miss::offset);
    let mut fetches: Vec<Fetch> = Vec::new();
    for miss in misses {
        let end = miss.offset() + size64(miss.size());
        match fetches.last_mut() {
            Some(last)
                if miss.offset() <= last.offset + size64(last.size) + GAP_MAX
                    && end - last.offset <= size64(READ_SIZE_MAX) =>
            {
                last.size = last.size.max(usize::try_from(end - last.offset).unwrap_or(last.size));
                last.misses += 1;
            }
            _ => {
                let (offset, size) = (miss.offset(), miss.size());
                fetches.push(Fetch { offset, size, misses: 1, needed: false });
            }
        }
    }
    fetches
}

fn command(entry: &Kept) -> Result<(Option<Stamp>, Command<'_>), BootError> {
    let Kept { index, kind, ref frame, .. } = *entry;
    let (kind, stamp, body) =
        EntryKind::of(kind, frame).ok_or(BootError::EntryKind { index, kind })?;
    let command = translate::command(kind, body);
    Ok((stamp, command.map_err(|error| BootError::Entry { index, error })?))
}

/// Tells what applying an entry will miss, until `tell` breaks.
fn foresee(
    state: &State,
    entry: &Kept,
    tell: &mut dyn FnMut(Miss) -> ControlFlow<()>,
) -> Result<(), BootError> {
    let (stamp, command) = command(entry)?;
    if let Some(stamp) = stamp {
        state.foresee_stamp(&stamp, tell);
    }
    state.foresee(&command, tell);
    Ok(())
}

fn size64(size: usize) -> u64 {
    u64::try_from(size).expect("usize has at most 64 bits")
}

fn owned(entry: &Entry<'_>, hash: Hash128) -> Result<Kept, BootError> {
    let Entry { index, term, kind, payload } = *entry;
    let frame = Frame::copy_from_slice(payload);
    if EntryKind::decode(kind, &frame).is_none() {
        return Err(BootError::EntryKind { index, kind });
    }
    Ok(Kept { index, term, kind, frame, hash, ticket: None })
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
