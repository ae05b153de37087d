//! Transfer: the state on its way to another member, and on its way in, as the store sees it.
//!
//! ```text
//! sender     hold a checkpoint ─► chunk, as often as one is wanted ─► release
//! receiver   new file ─► chunk ─► ... ─► last chunk ─► one more checkpoint ─► complete ─► swapped in
//! ```
//!
//! The sender reads one checkpoint, however long it takes, and copies nothing but what it sends. The
//! receiver builds a second page file beside the one that it serves from; until the last checkpoint of
//! that is durable it cannot be opened, so that a crash leaves the old state or the new one.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{Frame, Instant, LogIndex, RootNo};
use kv::{Chunk, Export, Fed, Import, State, Step};
use tree::{Miss, PageFile};

use crate::checkpoint::{Checkpoint, CheckpointConfig};
use crate::{Allocate, StoreEffect, StoreEvent};

/// Units of work that a transfer may take in one turn.
const BUDGET: u32 = 2_048;

/// A transfer whose checkpoint keeps more than this from being used again is given up.
const HELD_SIZE_MAX: u64 = 4 << 30;

/// A state on its way to another member.
pub struct Sender {
    /// The number of the transfer.
    pub transfer: u64,
    /// The checkpoint must have come this far.
    pub index_min: LogIndex,
    export: Option<Export>,
    /// Chunks that are wanted.
    wanted: u32,
    waits_for: Option<Miss>,
    /// The last chunk is out.
    is_over: bool,
}

/// What a sender has put out.
pub enum Sent {
    /// Nothing yet; it goes on when a page has come or a checkpoint is there.
    Waiting,
    /// The budget is spent.
    Busy,
    /// It begins.
    Begun {
        /// Index of the last entry that the state has applied.
        index: LogIndex,
        /// The members there, and the index of the entry that set them.
        members: (Vec<u8>, LogIndex),
        /// Roughly the bytes to come.
        size_hint: u64,
    },
    /// A chunk, and whether it is the last.
    Chunk(Vec<u8>, bool),
    /// A page is wanted.
    Miss(Miss),
    /// It cannot go on.
    Failed(String),
}

impl Sender {
    /// One that waits for a checkpoint at `index_min` or later.
    pub fn new(transfer: u64, index_min: LogIndex) -> Self {
        Self { transfer, index_min, export: None, wanted: 0, waits_for: None, is_over: false }
    }

    /// One more chunk is wanted.
    pub fn want(&mut self) {
        self.wanted += 1;
    }

    /// Whether it waits for a checkpoint.
    pub fn waits_for_checkpoint(&self) -> bool {
        self.export.is_none()
    }

    /// Goes on. `published` is the applied index of the newest checkpoint.
    pub fn step(&mut self, state: &mut State, published: LogIndex) -> Sent {
        let Some(export) = &mut self.export else {
            if published < self.index_min {
                return Sent::Waiting;
            }
            let Some(root) = state.pages_mut().hold() else { return Sent::Waiting };
            let Some(export) = Export::new(state, root) else {
                state.pages_mut().release(root);
                return Sent::Failed("the newest checkpoint is not whole".into());
            };
            let (index, _) = export.applied();
            let (bytes, members) = export.members();
            let members = (bytes.to_vec(), members);
            let size_hint = export.size_hint();
            self.export = Some(export);
            return Sent::Begun { index, members, size_hint };
        };
        if self.is_over || self.wanted == 0 || self.waits_for.is_some() {
            return Sent::Waiting;
        }
        if state.pages().held_size_of(export.root()) > HELD_SIZE_MAX {
            return Sent::Failed(format!(
                "the state that is sent keeps more than {HELD_SIZE_MAX} bytes of the page file \
                 from being used again"
            ));
        }
        let (mut out, mut budget) = (Vec::new(), BUDGET);
        match export.step(state, &mut out, &mut budget) {
            Step::Done(chunk) => {
                self.wanted -= 1;
                self.is_over = chunk == Chunk::Last;
                Sent::Chunk(out, self.is_over)
            }
            Step::More => Sent::Busy,
            Step::Miss(miss) => {
                self.waits_for = Some(miss);
                Sent::Miss(miss)
            }
            Step::Damaged(damage) => Sent::Failed(format!("{damage}")),
        }
    }

    /// The page that it waits for has come; says why it cannot be used.
    pub fn installed(&mut self, miss: Miss, bytes: &[u8]) -> Result<(), String> {
        if self.waits_for != Some(miss) {
            return Ok(());
        }
        self.waits_for = None;
        let Some(export) = &mut self.export else { return Ok(()) };
        export.install(miss, bytes).map_err(|damage| damage.to_string())
    }

    /// It is over: its checkpoint is let go.
    pub fn release(&mut self, state: &mut State) {
        if let Some(export) = self.export.take() {
            let root: RootNo = export.root();
            state.pages_mut().release(root);
        }
    }
}

/// A state on its way in.
pub struct Receiver {
    /// The number of the transfer.
    pub transfer: u64,
    import: Option<Import>,
    /// The last chunk has been taken in.
    is_whole: bool,
    /// The state, once it is whole.
    state: Option<State>,
    checkpoint: Checkpoint,
    chunks: VecDeque<Frame>,
    waits_for: Option<Miss>,
    /// The file has been made.
    has_file: bool,
    dirty_size_max: u64,
}

/// What a receiver tells.
pub enum Received {
    /// A chunk has been taken in: the number of the next one.
    Taken(u64),
    /// The state is whole and durable.
    Complete,
    /// It is not taken.
    Refused(String),
}

impl Receiver {
    /// One that waits for its file.
    pub fn new(
        transfer: u64,
        pages: PageFile,
        config: CheckpointConfig,
        dirty_size_max: u64,
        now: Instant,
    ) -> Self {
        Self {
            transfer,
            import: Some(Import::new(pages)),
            is_whole: false,
            state: None,
            checkpoint: Checkpoint::new(config, LogIndex::ZERO, now),
            chunks: VecDeque::new(),
            waits_for: None,
            has_file: false,
            dirty_size_max,
        }
    }

    /// The next chunk.
    pub fn chunk(&mut self, chunk: Frame) {
        self.chunks.push_back(chunk);
    }

    /// Whether it has work to do without an event.
    pub fn is_busy(&self) -> bool {
        self.has_file
            && self.waits_for.is_none()
            && (!self.chunks.is_empty() || self.is_whole)
            && !self.checkpoint.is_running()
    }

    /// The state, whole and durable, and the machine that made it so.
    pub fn into_state(self) -> Option<State> {
        self.state
    }

    /// What its file has done.
    pub fn handle<B: AsMut<[u8]>>(
        &mut self,
        now: Instant,
        event: StoreEvent,
        allocate: &mut Allocate<B>,
        effects: &mut Vec<StoreEffect<B>>,
    ) -> Option<Received> {
        let (mut own, transfer) = (Vec::new(), self.transfer);
        let state = match (&mut self.state, &mut self.import) {
            (Some(state), _) => state,
            (None, Some(import)) => import.state_mut(),
            (None, None) => return None,
        };
        let mut refused = None;
        match event {
            StoreEvent::IncomingMade => self.has_file = true,
            StoreEvent::PageRead { miss, bytes, .. } => {
                if self.waits_for == Some(miss) {
                    self.waits_for = None;
                }
                if let Err(damage) = state.pages_mut().install(miss, &bytes) {
                    refused = Some(Received::Refused(damage.to_string()));
                }
            }
            StoreEvent::PagesWritten => self.checkpoint.written(),
            StoreEvent::PagesSynced => self.checkpoint.synced(state, allocate, &mut own),
            StoreEvent::Grown { size, grown } => {
                self.checkpoint.grown(now, state, size, grown, &mut own);
            }
            StoreEvent::Available { size } => self.checkpoint.available(size),
            StoreEvent::Released => self.checkpoint.released(),
            // Listed one by one: an event that files have and that is missing above ends the process.
            StoreEvent::Apply(_)
            | StoreEvent::Read(_)
            | StoreEvent::Continue { .. }
            | StoreEvent::Cancel { .. }
            | StoreEvent::Due { .. }
            | StoreEvent::Publish { .. }
            | StoreEvent::Watch(_)
            | StoreEvent::Forget { .. }
            | StoreEvent::QuotaRefused
            | StoreEvent::Status { .. }
            | StoreEvent::Use { .. }
            | StoreEvent::Limits { .. }
            | StoreEvent::Send { .. }
            | StoreEvent::SendNext { .. }
            | StoreEvent::SendEnd { .. }
            | StoreEvent::Receive { .. }
            | StoreEvent::ReceiveChunk { .. }
            | StoreEvent::ReceiveEnd
            | StoreEvent::Install { .. }
            | StoreEvent::InstallDurable
            | StoreEvent::Incoming { .. } => unreachable!("only files have such events"),
        }
        wrap(transfer, own, effects);
        refused
    }

    /// Goes on.
    pub fn step<B: AsMut<[u8]>>(
        &mut self,
        now: Instant,
        allocate: &mut Allocate<B>,
        effects: &mut Vec<StoreEffect<B>>,
    ) -> Option<Received> {
        if !self.has_file {
            return None;
        }
        let mut own = Vec::new();
        let told = self.feed(&mut own);
        let waits = self.state.is_some();
        let state = match (&mut self.state, &mut self.import) {
            (Some(state), _) => state,
            (None, Some(import)) => import.state_mut(),
            (None, None) => return told,
        };
        self.checkpoint.step(now, state, allocate, &mut own);
        state.pages_mut().evict();
        wrap(self.transfer, own, effects);
        if told.is_none() && waits && self.checkpoint.is_settled() {
            let (applied, _) = self.state.as_ref().expect("it waits").applied();
            if self.checkpoint.published() == applied {
                return Some(Received::Complete);
            }
        }
        told
    }

    fn feed<B>(&mut self, own: &mut Vec<StoreEffect<B>>) -> Option<Received> {
        if self.waits_for.is_some() {
            return None;
        }
        let import = self.import.as_mut()?;
        if self.is_whole {
            // A checkpoint that runs now says that the state is not whole.
            if self.checkpoint.is_running() {
                return None;
            }
            return match self.import.take()?.finish() {
                Ok(state) => {
                    self.state = Some(state);
                    self.checkpoint.force();
                    None
                }
                Err(refusal) => Some(Received::Refused(refusal.to_string())),
            };
        }
        let too_dirty = import.state().pages().dirty_size() > self.dirty_size_max;
        if too_dirty && self.checkpoint.is_running() {
            return None;
        }
        let chunk = self.chunks.front()?.clone();
        let mut budget = BUDGET;
        match import.feed(&chunk, &mut budget) {
            Ok(Fed::Next) => {
                self.chunks.pop_front();
                self.checkpoint.applied(chunk.len());
                Some(Received::Taken(import.next()))
            }
            Ok(Fed::Last) => {
                self.chunks.clear();
                self.is_whole = true;
                Some(Received::Taken(import.next()))
            }
            Ok(Fed::More) => None,
            Ok(Fed::Miss(miss)) => {
                self.waits_for = Some(miss);
                own.push(StoreEffect::Read {
                    miss,
                    offset: miss.offset(),
                    size: miss.size(),
                    for_transfer: false,
                });
                None
            }
            Err(refusal) => Some(Received::Refused(refusal.to_string())),
        }
    }

    /// Whether the file of the state can be handed over: nothing is under way in it.
    pub fn is_settled(&self) -> bool {
        self.state.is_some() && self.checkpoint.is_settled()
    }

    /// When a step is wanted without an event.
    pub fn deadline(&self) -> Option<Instant> {
        self.checkpoint.deadline()
    }
}

/// Marks what is for the file on its way in; what is for others is of no use to them.
fn wrap<B>(transfer: u64, own: Vec<StoreEffect<B>>, effects: &mut Vec<StoreEffect<B>>) {
    for effect in own {
        match effect {
            StoreEffect::ToConsensus(_) | StoreEffect::ToReactor(..) => {}
            effect => effects.push(StoreEffect::Incoming { transfer, effect: Box::new(effect) }),
        }
    }
}
