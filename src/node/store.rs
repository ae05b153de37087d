//! Store: the role that owns the state. It applies committed entries in log order, answers reads,
//! writes checkpoints into the page file and trims what compaction has let go.
//!
//! No step does I/O. A page that is not in memory is asked for, and the step that needed it is taken
//! again when it has come; entries behind it wait, reads beside it do not.
//!
//! ```text
//! flush:  apply ─► answers ─► reads ─► checkpoint step ─► trim step ─► evict ─► replies
//! ```
//!
//! Every part of a turn has a budget, so that a delete of a million keys, a scan of the whole store
//! or a checkpoint delays others by one slice, never by all of its work. Order is the exception: a write
//! behind such a delete is applied after it, and a linearizable read that came after it sees it, so both
//! wait for it; reads that came before it, and serializable ones, do not.
//!
//! Memory that waits for a checkpoint is bounded by pacing: while more than `dirty_size_max` is dirty
//! nothing is applied until the running checkpoint is through, proposals pile up to their own bound
//! and clients get a typed refusal.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::mem;
use core::ops::ControlFlow;

use base::limits::{ANSWERS_SIZE_MAX, ANSWERS_WAITING_MAX, READS_SIZE_MAX};
use base::{Duration, Instant, LogIndex, Mutant, NodeId, ReactorId, Revision, Term, Ticket};
use hashbrown::HashMap;
use kv::{Answer, Command, HistoryLimits, Outcome, Read, ReadStep, ReadTxn, State, Step};
use tree::{Miss, WARM_MAX};
use wire::{Kind, ReplyWriter, Request, Status, VerifyLimits};

use crate::alarms::QuotaAlarm;
use crate::applied_ops::AppliedOps;
use crate::checkpoint::{Checkpoint, CheckpointConfig};
use crate::gauges::{Bound, Gauges, Use};
use crate::message::{
    Committed, EntryKind, KINDS, ReadKind, ReadRequest, Refused, Reply, ReplyBody,
};
use crate::reads::{Gone, LARGE_BUDGET, Queue, Task, Which, Work, overdue};
use crate::retention::{Horizon, Retention};
use crate::saving::Saver;
use crate::store_link::{StoreEffect, StoreEvent};
use crate::transfer::{Receiver, Sender};
use crate::trimming::{Compactions, Trimming};
use crate::{Allocate, ConsensusEvent, ReactorEvent, Role, translate, usage};

/// Units of work (keys touched) that applying may take in one turn.
const APPLY_BUDGET: u32 = 4_096;

/// Units of work that one entry may take before dirty memory and space are looked at again.
const APPLY_SLICE: u32 = 256;

/// Bytes gathered or encoded that cost as much as one key: a turn moves 4 MiB at most, and one piece.
pub(crate) const BYTES_PER_UNIT: usize = 1_024;

/// Entries looked at, and pages read at once, while the first entry waits for a page.
const PREFETCH_MAX: usize = 64;

/// The hash of the state is told at every entry whose index is a multiple of this, and at the last one
/// when nothing has been applied for so long.
const HASH_INTERVAL: u64 = 1_024;
const HASH_QUIET: Duration = Duration::from_millis(100);

/// What the store is told at its making.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Number of reactors.
    pub reactors: u16,
    /// Id of the cluster, for status.
    pub cluster: u64,
    /// Id of the member, for status.
    pub member: NodeId,
    /// When and how checkpoints are made.
    pub checkpoint: CheckpointConfig,
    /// Dirty bytes at which applying waits for the checkpoint.
    pub dirty_size_max: u64,
    /// Units of work (keys looked at) that one read takes at a time.
    pub read_slice: u32,
    /// How much of the history is read or recorded at a time for watches.
    pub history: HistoryLimits,
    /// What history is kept.
    pub retention: Retention,
    /// What a page file is made with.
    pub pages: tree::Options,
}

/// The role of the store core.
pub struct Store<B> {
    pub(crate) config: StoreConfig,
    pub(crate) state: State,
    pub(crate) allocate: Allocate<B>,
    pub(crate) writer: ReplyWriter,
    /// How many entries of each kind have been applied since the start.
    applied_kinds: [u64; KINDS],
    applied_ops: AppliedOps,
    /// Committed and not applied.
    pub(crate) entries: VecDeque<Committed>,
    /// What the first of them waits for.
    pub(crate) apply_waits_for: Option<Miss>,
    /// Answers of writes; what they read is not trimmed.
    pub(crate) answers: Queue,
    pub(crate) reads: Queue,
    /// Long reads whose connection has not taken the last piece yet.
    /// By ticket; several where a client gave one id to several requests.
    pub(crate) stalled: HashMap<Ticket, Vec<Task>>,
    /// Connections that have gone since the last turn.
    pub(crate) gone: Vec<Gone>,
    /// What large reads may still take this turn, and what they took beyond earlier ones.
    pub(crate) large_budget: u32,
    pub(crate) large_debt: u32,
    /// When reads that wait are looked at, if any do.
    pub(crate) sweep_at: Option<Instant>,
    /// Pages on their way in.
    pub(crate) fetching: Vec<Miss>,
    /// What did not verify when it was read last.
    pub(crate) doubted: Option<Miss>,
    /// Compactions whose client waits until the space is free; with whether it had asked before.
    pub(crate) physical: Vec<(Ticket, Revision, bool)>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) applied_bytes: usize,
    replies: Vec<Vec<Reply>>,
    /// Work is left over for the next turn.
    pub(crate) is_busy: bool,
    /// The first entry has to be taken up again for no other reason than its slice.
    is_midway: bool,
    /// The last entry at which the hash of the state was told, and since when which one is the last.
    hashed: LogIndex,
    quiet_since: (LogIndex, Instant),
    /// To which reactors changes are published.
    pub(crate) publishing: Vec<bool>,
    pub(crate) trimming: Trimming,
    pub(crate) quota_alarm: QuotaAlarm,
    pub(crate) horizon: Horizon,
    pub(crate) gauges: Gauges,
    /// What reactors have told of theirs.
    pub(crate) told: Vec<(ReactorId, Vec<Use>)>,
    /// Applying waits for a checkpoint, or for answers.
    pub(crate) paced: (bool, bool),
    /// What is due is to be looked for, at this log time, for a leader of this term.
    pub(crate) due_asked: Option<(u64, Term)>,
    pub(crate) due_waits_for: Option<Miss>,
    /// When leases are due next, as consensus was told.
    pub(crate) next_due: Option<u64>,
    pub(crate) log_time_told: bool,
    pub(crate) senders: Vec<Sender>,
    pub(crate) savers: Vec<Saver>,
    pub(crate) receiver: Option<Receiver>,
    /// The receiver's state is to take the place of the present one.
    pub(crate) installing: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// The store after recovery; `published` is the applied index of the page file.
    pub fn new(
        config: StoreConfig,
        state: State,
        published: LogIndex,
        allocate: Allocate<B>,
        now: Instant,
    ) -> Self {
        let checkpoint = Checkpoint::new(config.checkpoint.clone(), published, now);
        let reactors = usize::from(config.reactors);
        let (horizon, gauges) = (Horizon::new(config.retention), usage::of_store(&config));
        Self {
            config,
            state,
            allocate,
            writer: ReplyWriter::new(),
            applied_kinds: [0; KINDS],
            applied_ops: AppliedOps::default(),
            entries: VecDeque::new(),
            apply_waits_for: None,
            answers: Queue::new(ANSWERS_SIZE_MAX),
            reads: Queue::new(READS_SIZE_MAX),
            stalled: HashMap::new(),
            gone: Vec::new(),
            large_budget: LARGE_BUDGET,
            large_debt: 0,
            sweep_at: None,
            fetching: Vec::new(),
            doubted: None,
            physical: Vec::new(),
            checkpoint,
            applied_bytes: 0,
            replies: (0..reactors).map(|_| Vec::new()).collect(),
            is_busy: false,
            is_midway: false,
            hashed: LogIndex::ZERO,
            quiet_since: (LogIndex::ZERO, now),
            publishing: (0..reactors).map(|_| false).collect(),
            trimming: Trimming::new(),
            quota_alarm: QuotaAlarm::default(),
            horizon,
            gauges,
            told: Vec::new(),
            paced: (false, false),
            due_asked: None,
            due_waits_for: None,
            next_due: None,
            log_time_told: false,
            senders: Vec::new(),
            savers: Vec::new(),
            receiver: None,
            installing: false,
        }
    }

    /// The state, for looking at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How many entries of each kind have been applied since the start, by the number of the kind.
    pub fn applied_kinds(&self) -> &[u64; KINDS] {
        &self.applied_kinds
    }

    /// What they consisted of.
    pub fn applied_ops(&self) -> &AppliedOps {
        &self.applied_ops
    }

    /// The compactions whose work was done to its end since the start.
    pub fn compactions(&self) -> &Compactions {
        &self.trimming.compactions
    }

    /// Bytes that reads in progress hold, or have set aside for them.
    pub fn reads_booked(&self) -> usize {
        self.reads.booked()
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, body: ReplyBody) {
        self.replies[usize::from(ticket.reactor.get())].push(Reply { ticket, body });
    }

    /// The compacted revision, 0 before the first compaction.
    pub(crate) fn compacted(&self) -> u64 {
        self.state.compacted().map_or(0, Revision::get)
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, refused: Refused) {
        self.reply(ticket, ReplyBody::Refused(refused));
    }

    pub(crate) fn fetch(&mut self, miss: Miss, effects: &mut Vec<StoreEffect<B>>) {
        if !self.fetching.contains(&miss) {
            self.fetching.push(miss);
            self.gauges.hit(Bound::PageCache);
            let (offset, size) = (miss.offset(), miss.size());
            effects.push(StoreEffect::Read { miss, offset, size, for_transfer: false });
        }
    }

    pub(crate) fn halt(
        &mut self,
        damage: &dyn core::fmt::Display,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        effects.push(StoreEffect::Halt(format!("{damage}")));
    }

    /// Applies entries in order until the budget or the next missing page.
    fn apply(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let mut budget = APPLY_BUDGET;
        let before = self.state.applied().0;
        let mut warm = 0;
        while self.apply_waits_for.is_none() && budget > 0 && !self.is_paced() {
            if warm == 0 {
                warm = self.warm();
            }
            warm -= 1;
            let Some(entry) = self.entries.pop_front() else { break };
            self.is_midway = false;
            if !self.apply_entry(now, &entry, &mut budget, effects) {
                self.entries.push_front(entry);
                if budget == 0 || !self.is_midway {
                    break;
                }
                warm = warm.max(1);
            }
        }
        self.is_busy |= budget == 0 && !self.entries.is_empty();
        self.note_pace();
        let applied = self.state.applied().0;
        if applied > before {
            let bytes = mem::take(&mut self.applied_bytes);
            let event = ConsensusEvent::Applied { index: applied, bytes };
            effects.push(StoreEffect::ToConsensus(event));
        }
    }

    /// Has the memory fetched that the next entries will touch; returns how many were looked at, at
    /// least one.
    fn warm(&self) -> usize {
        let mut keys: [&[u8]; WARM_MAX] = [&[]; WARM_MAX];
        let mut count = 0;
        let entries = self.entries.iter().take(WARM_MAX);
        let looked_at = entries.len();
        for entry in entries {
            if let Ok(Command::Put(put)) = translate::command(entry.kind, &entry.frame) {
                keys[count] = put.key;
                count += 1;
            }
        }
        if count > 1 {
            self.state.warm(&keys[..count]);
        }
        looked_at.max(1)
    }

    /// Whether entries wait for a checkpoint, because too much memory is dirty or too little space is
    /// left; or for the answers of those before.
    fn is_paced(&self) -> bool {
        self.has_many_answers() || self.is_too_dirty() || self.checkpoint.holds_back(&self.state)
    }

    pub(crate) fn has_many_answers(&self) -> bool {
        self.answers.size() > ANSWERS_WAITING_MAX && self.state.between_entries()
    }

    pub(crate) fn is_too_dirty(&self) -> bool {
        let dirty_size_max = self.checkpoint.dirty_size_max(self.config.dirty_size_max);
        // One that is not running begins in this turn if it can; else there is nothing to wait for.
        self.state.pages().dirty_size() > dirty_size_max
            && self.state.may_checkpoint()
            && (self.checkpoint.is_running() || self.state.pages().may_begin())
    }

    /// Applies one entry; false if it has to be taken up again.
    fn apply_entry(
        &mut self,
        now: Instant,
        entry: &Committed,
        budget: &mut u32,
        effects: &mut Vec<StoreEffect<B>>,
    ) -> bool {
        let command = match translate::command(entry.kind, &entry.frame) {
            Ok(command) => command,
            Err(error) => {
                let text = format!("log entry {} cannot be read: {error}", entry.index);
                self.halt(&text, effects);
                return false;
            }
        };
        let skips = entry.ticket.is_none() && entry.index.get().is_multiple_of(64);
        let command =
            if Mutant::ApplyDiffers.is_on() && skips { Command::Nothing } else { command };
        // A large entry stops for the checkpoint like many small ones.
        let mut slice = APPLY_SLICE.min(*budget);
        *budget -= slice;
        let (index, term, stamp) = (entry.index, entry.term, entry.stamp.as_ref());
        let step = self.state.apply_once(index, term, stamp, &command, &mut slice);
        *budget += slice;
        let outcome = match step {
            Step::Done(outcome) => outcome,
            Step::More => {
                self.is_midway = true;
                return false;
            }
            Step::Miss(miss) => {
                self.apply_waits_for = Some(miss);
                self.fetch(miss, effects);
                self.prefetch(effects);
                return false;
            }
            Step::Damaged(damage) => {
                self.halt(&damage, effects);
                return false;
            }
        };
        self.applied_kinds[entry.kind as usize] += 1;
        self.applied_ops.count(&command, &outcome);
        if matches!(outcome, Outcome::Compacted { .. }) {
            self.trimming.want(now);
        }
        match outcome {
            Outcome::Granted { lease, .. } | Outcome::PutWithLease { lease, .. } => {
                self.lease_made(lease, effects);
            }
            _ => {}
        }
        if !matches!(outcome, Outcome::Refused(_)) && command.takes_space() {
            self.quota_alarm.note_write();
        }
        self.checkpoint.applied(entry.frame.len());
        if entry.index.get().is_multiple_of(HASH_INTERVAL) {
            self.tell_hash(effects);
        }
        if let Some(ticket) = entry.ticket {
            self.applied_bytes += entry.proposed_size();
            let physical = matches!(command, Command::Compact { physical: true, .. });
            let answer = Answer::new(&command, &outcome);
            self.conclude(ticket, &outcome, answer, physical);
        }
        true
    }

    /// Tells consensus the hash of the state: members compare theirs.
    fn tell_hash(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        let (index, hash) = (self.state.applied().0, self.state.state_hash());
        self.hashed = index;
        effects.push(StoreEffect::ToConsensus(ConsensusEvent::StateHash { index, hash }));
    }

    /// The same at the last entry, when nothing has been applied for a while.
    fn tell_hash_when_quiet(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let applied = self.state.applied().0;
        if applied != self.quiet_since.0 {
            self.quiet_since = (applied, now);
        } else if applied > self.hashed
            && self.state.between_entries()
            && now.since(self.quiet_since.1) >= HASH_QUIET
        {
            self.tell_hash(effects);
        }
    }

    /// Has the pages read that the next entries will want, while the first of them waits.
    fn prefetch(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        let mut misses = Vec::new();
        for entry in self.entries.iter().take(PREFETCH_MAX) {
            if let Some(stamp) = &entry.stamp {
                self.state.foresee_stamp(stamp, &mut |miss| {
                    if !misses.contains(&miss) {
                        misses.push(miss);
                    }
                    ControlFlow::Continue(())
                });
            }
            if let Ok(command) = translate::command(entry.kind, &entry.frame) {
                self.state.prefetch(&command, &mut misses);
            }
            if misses.len() >= PREFETCH_MAX {
                break;
            }
        }
        for miss in misses {
            self.fetch(miss, effects);
        }
    }

    /// A read request becomes a task. Its body was verified before it came here.
    fn read(&mut self, request: ReadRequest) {
        let ticket = request.ticket;
        let work = match request.what {
            ReadKind::Snapshot => return self.save(ticket),
            ReadKind::Txn => Work::Txn(ReadTxn::new(), request.frame),
            ReadKind::Lease | ReadKind::Leases => {
                Work::Lease(request.what, request.frame, request.time)
            }
            ReadKind::Range => {
                self.applied_ops.ranges += 1;
                match Request::verify(Kind::Range, &request.frame, &VerifyLimits::REQUEST) {
                    Ok(Request::Range(view)) => Work::Range(Read::new(&translate::range(&view))),
                    Ok(_) | Err(_) => unreachable!("the reactor verified this range"),
                }
            }
        };
        let mut task = Task::new(ticket, work);
        task.applied_min = request.applied_min;
        task.deadline = request.deadline;
        self.reads.enter(task);
    }

    /// Takes one task a slice further. It comes back if it has to go on next turn.
    pub(crate) fn run(
        &mut self,
        which: Which,
        now: Instant,
        mut task: Task,
        budget: &mut u32,
        effects: &mut Vec<StoreEffect<B>>,
    ) -> Option<Task> {
        if task.deadline.is_some_and(|deadline| now > deadline) {
            self.queue(which).release(&mut task);
            self.refuse(task.ticket, overdue());
            return None;
        }
        if matches!(task.work, Work::Lease(..)) && !self.state.between_entries() {
            // What an entry that is half applied does to leases is in their trees already.
            task.applied_min = task.applied_min.max(self.state.applied().0.next());
        }
        if task.waits_for.is_some() || self.state.applied().0 < task.applied_min {
            return Some(task);
        }
        task.begun.get_or_insert(now);
        let is_large = task.is_large();
        let left = if is_large { self.large_budget.min(*budget) } else { *budget };
        if left == 0 {
            self.is_busy = true;
            return Some(task);
        }
        if let Work::Watch(_) = &task.work {
            return self.run_watch(now, task, budget, effects);
        }
        let mut slice = self.config.read_slice.min(left);
        let before = slice;
        let held = task.work.held();
        let step = match &mut task.work {
            Work::Range(_) | Work::Watch(_) | Work::Lease(..) => None,
            Work::Answer(answer) => Some(answer.step(&self.state, &mut slice)),
            Work::Txn(read, frame) => match translate::command(EntryKind::Txn, frame) {
                Ok(Command::Txn(txn)) => Some(read.step(&self.state, &txn, &mut slice)),
                Ok(_) | Err(_) => unreachable!("the reactor verified this transaction"),
            },
        };
        let next = match step {
            None if matches!(task.work, Work::Lease(..)) => self.run_lease(&task),
            None => self.run_range(&mut task, &mut slice),
            Some(Step::Done(Ok(reply))) => {
                if let (Work::Txn(..), kv::Reply::Txn(read)) = (&task.work, &reply) {
                    self.applied_ops.read(&read.ops);
                }
                let mut out = Vec::new();
                let (request, is_write) = (task.ticket.request, !task.ticket.reads);
                translate::write_reply(&mut self.writer, &mut out, request, &reply, is_write);
                Next::Finished(ReplyBody::Frames(out))
            }
            Some(Step::Done(Err(refusal))) => {
                let mut refused = self.explain(refusal);
                refused.applied = matches!(task.work, Work::Answer(_));
                Next::Finished(ReplyBody::Refused(refused))
            }
            Some(Step::More) => Next::More,
            Some(Step::Miss(miss)) => Next::Miss(miss),
            Some(Step::Damaged(damage)) => Next::Damaged(damage),
        };
        // Bytes cost as much as keys: a turn moves a few MiB at most.
        let bytes = match &next {
            Next::Finished(ReplyBody::Frames(bytes)) | Next::Piece(bytes) => bytes.len(),
            _ => 0,
        };
        let bytes = bytes + task.work.held().saturating_sub(held);
        let spent = before - slice + u32::try_from(bytes / BYTES_PER_UNIT).unwrap_or(u32::MAX);
        *budget = budget.saturating_sub(spent);
        if is_large {
            self.large_debt += spent.saturating_sub(self.large_budget);
            self.large_budget = self.large_budget.saturating_sub(spent);
        }
        match next {
            Next::Finished(body) => {
                self.queue(which).release(&mut task);
                self.reply(task.ticket, body);
                None
            }
            Next::Piece(bytes) => {
                self.reply(task.ticket, ReplyBody::Piece(bytes));
                // Its pairs go out, so it has what it needs.
                if let Some(mut task) = self.queue(which).settle(task) {
                    task.stalled_since = now;
                    self.stalled.entry(task.ticket).or_default().push(task);
                }
                None
            }
            Next::More => {
                self.is_busy = true;
                Some(task)
            }
            Next::Miss(miss) => {
                task.waits_for = Some(miss);
                self.fetch(miss, effects);
                Some(task)
            }
            Next::Damaged(damage) => {
                self.halt(&damage, effects);
                None
            }
        }
    }

    fn explain(&self, refusal: kv::Refusal) -> Refused {
        let mut refused = translate::refused(refusal);
        refused.compacted = self.compacted();
        refused
    }

    /// Encodes as many pairs of a range as one slice yields, straight from their pages into a frame.
    fn run_range(&mut self, task: &mut Task, slice: &mut u32) -> Next {
        let Work::Range(read) = &mut task.work else { unreachable!("the caller matched a range") };
        let mut out = Vec::new();
        let mut range = self.writer.range(&mut out, task.ticket.request);
        let step = read.step(&self.state, slice, &mut |pair| range.push(&translate::pair(pair)));
        match step {
            ReadStep::Done(end) => {
                range.finish(translate::summary(&end));
                Next::Finished(ReplyBody::Frames(out))
            }
            ReadStep::Refused(refusal) => {
                drop(range);
                Next::Finished(ReplyBody::Refused(self.explain(refusal)))
            }
            ReadStep::Piece => {
                range.finish_piece(translate::i64_of(read.revision()));
                Next::Piece(out)
            }
            // What was gathered goes out: a page that is missing may take a while.
            ReadStep::More if range.count() > 0 => {
                range.finish_piece(translate::i64_of(read.revision()));
                Next::Piece(out)
            }
            ReadStep::Miss(_) if range.count() > 0 => {
                range.finish_piece(translate::i64_of(read.revision()));
                Next::Piece(out)
            }
            ReadStep::More => Next::More,
            ReadStep::Miss(miss) => Next::Miss(miss),
            ReadStep::Damaged(damage) => Next::Damaged(damage),
        }
    }

    fn installed(&mut self, miss: Miss, bytes: &[u8], effects: &mut Vec<StoreEffect<B>>) {
        self.fetching.retain(|other| *other != miss);
        if let Err(damage) = self.state.pages_mut().install(miss, bytes) {
            // The owner of a run may have gone during the read, and its pages may hold others now:
            // who still wants the run asks again, and only what then does not verify is damaged.
            let first = self.doubted.replace(miss) != Some(miss);
            if !first {
                self.halt(&damage, effects);
                return;
            }
        } else if self.doubted == Some(miss) {
            self.doubted = None;
        }
        let clear = |waits_for: &mut Option<Miss>| {
            if *waits_for == Some(miss) {
                *waits_for = None;
            }
        };
        clear(&mut self.apply_waits_for);
        clear(&mut self.trimming.waits_for);
        clear(&mut self.due_waits_for);
        for task in self.answers.iter_mut().chain(self.reads.iter_mut()) {
            clear(&mut task.waits_for);
        }
    }

    /// The oldest read with this ticket whose client has not taken the last piece.
    fn take_stalled(&mut self, ticket: Ticket) -> Option<Task> {
        let tasks = self.stalled.get_mut(&ticket)?;
        let task = tasks.remove(0);
        if tasks.is_empty() {
            self.stalled.remove(&ticket);
        }
        Some(task)
    }

    fn cancel(&mut self, ticket: Ticket) {
        let same = |task: &Task| {
            // A watch is told from earlier ones with the same request.
            let name = |ticket: Ticket| {
                let serial = if ticket.watches { Some(ticket.size) } else { None };
                (ticket.reactor, ticket.connection, ticket.request, serial)
            };
            name(task.ticket) == name(ticket)
        };
        let task = self.reads.take(same).or_else(|| {
            let key = self.stalled.values().flatten().find(|task| same(task)).map(|t| t.ticket);
            let mut task = key.and_then(|key| self.take_stalled(key))?;
            self.reads.release(&mut task);
            Some(task)
        });
        if let Some(task) = task {
            let message = "cancelled by the client before it was answered".into();
            let refused = Refused::new(Status::Cancelled, message);
            self.refuse(task.ticket, refused);
        }
    }
}

/// What a slice of a task came to.
pub(crate) enum Next {
    Finished(ReplyBody),
    Piece(Vec<u8>),
    More,
    Miss(Miss),
    Damaged(kv::Damage),
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Role for Store<B> {
    type Event = StoreEvent;
    type Effect = StoreEffect<B>;

    fn handle(&mut self, now: Instant, event: StoreEvent, effects: &mut Vec<StoreEffect<B>>) {
        match event {
            StoreEvent::Apply(entries) => self.entries.extend(entries),
            StoreEvent::Read(request) => self.read(request),
            StoreEvent::Continue { ticket } if self.save_on(now, ticket) => {}
            StoreEvent::Continue { ticket } => {
                if let Some(task) = self.take_stalled(ticket) {
                    self.reads.push(task);
                }
            }
            StoreEvent::Cancel { ticket } if self.save_no_more(ticket) => {}
            StoreEvent::Cancel { ticket } => self.cancel(ticket),
            StoreEvent::Due { time, term } => self.due_asked = Some((time, term)),
            StoreEvent::Publish { reactor, on } => self.set_publishing(reactor, on),
            StoreEvent::Watch(request) => self.watch(request),
            StoreEvent::Forget { reactor, connection } => self.gone.push((reactor, connection)),
            StoreEvent::QuotaRefused => self.quota_alarm.note_write(),
            StoreEvent::Status { ticket, standing } => self.status(ticket, &standing),
            StoreEvent::Use { reactor, uses } => self.note_use(reactor, uses),
            StoreEvent::Limits { ticket, uses } => self.limits(ticket, uses),
            StoreEvent::PageRead { miss, bytes, for_transfer: false } => {
                self.installed(miss, &bytes, effects);
            }
            StoreEvent::PageRead { miss, bytes, for_transfer: true } => {
                self.sender_installed(miss, &bytes, effects);
            }
            StoreEvent::PagesWritten => self.checkpoint.written(),
            StoreEvent::PagesSynced => {
                self.checkpoint.synced(&mut self.state, &mut self.allocate, effects);
            }
            StoreEvent::Grown { size, grown } => {
                self.checkpoint.grown(now, &mut self.state, size, grown, effects);
            }
            StoreEvent::Available { size } => self.checkpoint.available(size),
            StoreEvent::Released => self.checkpoint.released(),
            StoreEvent::Send { transfer, index_min } => {
                self.senders.push(Sender::new(transfer, index_min));
            }
            StoreEvent::SendNext { transfer } => {
                let mut senders = self.senders.iter_mut();
                if let Some(sender) = senders.find(|sender| sender.transfer == transfer) {
                    sender.want();
                }
            }
            StoreEvent::SendEnd { transfer } => self.end_sender(transfer),
            StoreEvent::Receive { transfer } => self.receive(now, transfer, effects),
            StoreEvent::ReceiveChunk { transfer, chunk } => {
                if let Some(receiver) = &mut self.receiver
                    && receiver.transfer == transfer
                {
                    receiver.chunk(chunk);
                }
            }
            StoreEvent::ReceiveEnd => self.drop_receiver(effects),
            StoreEvent::Install { transfer } => {
                let complete = self.receiver.as_ref().map(|receiver| receiver.transfer);
                assert!(complete == Some(transfer), "state {transfer} is to be installed and gone");
                self.installing = true;
            }
            StoreEvent::InstallDurable => effects.push(StoreEffect::RenameIncoming),
            StoreEvent::Incoming { transfer, event } => {
                self.incoming(now, transfer, *event, effects);
            }
            StoreEvent::IncomingMade => {
                unreachable!("the file on its way in reports by its number")
            }
        }
    }

    fn flush(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        self.is_busy = false;
        if !self.gone.is_empty() {
            self.drop_gone();
        }
        self.run_transfers(now, effects);
        self.run_savers(now, effects);
        if self.installing {
            // The file that is left must be at rest.
            if !self.checkpoint.is_settled() {
                self.checkpoint.step(now, &mut self.state, &mut self.allocate, effects);
            }
        } else {
            self.tell_log_time(effects);
            self.apply(now, effects);
            self.look_for_due(effects);
            self.look_at_retention(now, effects);
            self.publish(effects);
            self.tell_hash_when_quiet(now, effects);
            self.run_tasks(now, effects);
            self.checkpoint.step(now, &mut self.state, &mut self.allocate, effects);
            self.raise_alarm(now, effects);
            self.tell_alarms(effects);
            self.trim(now, effects);
            self.state.pages_mut().evict();
            self.measure();
        }
        for (reactor, replies) in self.replies.iter_mut().enumerate() {
            if !replies.is_empty() {
                let reactor = u16::try_from(reactor).expect("reactors are numbered by u16");
                let event = ReactorEvent::Replies(mem::take(replies));
                effects.push(StoreEffect::ToReactor(ReactorId::new(reactor), event));
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_busy {
            return Some(Instant::ORIGIN);
        }
        let receiver = self.receiver.as_ref().and_then(Receiver::deadline);
        let is_told = self.hashed >= self.quiet_since.0;
        let quiet = (!is_told).then(|| self.quiet_since.1.after(HASH_QUIET));
        // While a state is installed there is no trimming, and a checkpoint that is at rest gets no turn.
        let trim = self.trimming.again_at.filter(|_| !self.installing);
        let retention = self.horizon.deadline().filter(|_| !self.installing);
        let rests = self.installing && self.checkpoint.is_settled();
        let checkpoint = self.checkpoint.deadline().filter(|_| !rests);
        let saving = self.saving_deadline();
        let own = [checkpoint, receiver, self.sweep_at, quiet, trim, retention, saving];
        own.into_iter().flatten().min()
    }
}
