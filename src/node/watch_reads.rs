//! The store's part in watches: it publishes what it changes, and reads on for watches that are behind.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Instant, Mutant, ReactorId, Revision};
use kv::{Changes, History, HistoryLimits, HistoryStep, Point, Wanted};
use tree::Miss;
use wire::{ReplyWriter, Status, WatchStep};

use crate::message::{Refused, ReplyBody, WatchRead, WatchRequest};
use crate::reads::{Task, Work};
use crate::store::{BYTES_PER_UNIT, Store};
use crate::store_link::StoreEffect;
use crate::{ReactorEvent, translate};

/// Units of work that reading for one watch may take at a time.
pub(crate) const WATCH_BUDGET: u32 = 128;

/// A watch that is read for.
pub(crate) struct WatchTask {
    /// None: it begins with what comes next.
    history: Option<History>,
    /// To begin with.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    start: Option<Point>,
    wanted: Wanted,
    created: bool,
    /// The last piece ended in the middle of a revision.
    fragment: bool,
}

/// How far one step for a watch got.
pub(crate) enum WatchNext {
    /// To the end, or something is to be told.
    Read(WatchRead),
    More,
    Miss(Miss),
    Refused(Refused),
    Damaged(kv::Damage),
}

impl WatchTask {
    fn new(request: WatchRequest) -> Self {
        let WatchRequest { start, ranges, wanted, created, ticket: _ } = request;
        let created = created && !Mutant::CreatedAgain.is_on();
        Self { history: None, ranges, start, wanted, created, fragment: false }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.ranges.iter().map(|(start, end)| 2 * (start.len() + end.len()) + 64).sum()
    }

    /// Reads a window of the history.
    pub fn step(
        &mut self,
        state: &kv::State,
        request: base::RequestId,
        limits: &HistoryLimits,
        writer: &mut ReplyWriter,
        budget: &mut u32,
    ) -> WatchNext {
        let newest = state.revision();
        let history = match &mut self.history {
            Some(history) => history,
            none => {
                let comes_next = Point { revision: newest.next(), sub: 0 };
                let start = self.start.unwrap_or(comes_next);
                let start = if Mutant::FutureTold.is_on() { start.min(comes_next) } else { start };
                let ranges =
                    self.ranges.iter().map(|(start, end)| (start.as_slice(), end.as_slice()));
                none.insert(History::new(start, ranges, self.wanted, limits))
            }
        };
        let mut changes = Changes::default();
        let step = history.step(state, budget, &mut changes);
        let next = history.next();
        let caught = match step {
            HistoryStep::Caught(revision) => Some(revision),
            HistoryStep::Piece => None,
            HistoryStep::More => return WatchNext::More,
            HistoryStep::Miss(miss) => return WatchNext::Miss(miss),
            HistoryStep::Damaged(damage) => return WatchNext::Damaged(damage),
            HistoryStep::Compacted(compacted) => {
                return WatchNext::Refused(overtaken(next, compacted));
            }
        };
        let mut bytes = Vec::new();
        if !core::mem::replace(&mut self.created, true) {
            writer
                .watch(&mut bytes, request)
                .finish(WatchStep::Created, translate::i64_of(newest), false)
                .expect("a reply without changes fits a frame");
        }
        // Without a reply the client would wait for the rest of the last revision.
        if !changes.is_empty() || self.fragment && (caught.is_some() || next.sub == 0) {
            let is_part = caught.is_none() && next.sub > 0;
            let told = caught.unwrap_or(Revision::new(next.revision.get() - 1));
            let is_old = Mutant::NewestAsTold.is_on();
            let there = translate::i64_of(if is_old { told } else { newest });
            let mut watch = writer.watch_read(&mut bytes, request, there);
            for change in changes.iter() {
                watch.push(&translate::change(&change, &self.wanted));
            }
            self.fragment = is_part && !Mutant::FragmentUnsaid.is_on();
            let told = if Mutant::PieceSaysNewest.is_on() && !is_part { newest } else { told };
            let revision = translate::i64_of(told);
            watch
                .finish(WatchStep::Changes, revision, self.fragment)
                .expect("a window and one greatest change fit a frame");
        }
        WatchNext::Read(WatchRead { bytes, next, caught })
    }
}

/// The refusal of a watch whose history has been given up.
fn overtaken(next: Point, compacted: Revision) -> Refused {
    let message = alloc::format!(
        "mvcc: required revision has been compacted; the watch was to go on at revision {}, and what lies \
         before {compacted} has been given up; read the keys, then watch from the revision of the answer",
        next.revision
    );
    let compacted = compacted.get();
    Refused { status: Status::Compacted, message, compacted, applied: false, retry_after_ms: 0 }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Begins or ends publishing to a reactor.
    pub(crate) fn set_publishing(&mut self, reactor: ReactorId, on: bool) {
        self.publishing[usize::from(reactor.get())] = on;
        let any = self.publishing.contains(&true);
        // What has been changed up to now was published at the end of its turn.
        self.state.record(any, &self.config.history);
    }

    /// Tells reactors with watches what has been changed.
    pub(crate) fn publish(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        let Some(recorded) = self.state.recorded() else { return };
        let recorded = Arc::new(recorded);
        for (reactor, on) in self.publishing.iter().enumerate() {
            if *on {
                let reactor = u16::try_from(reactor).expect("reactors are numbered by u16");
                let event = ReactorEvent::Published(recorded.clone());
                effects.push(StoreEffect::ToReactor(ReactorId::new(reactor), event));
            }
        }
    }

    /// The state is another one: reactors have its past read.
    pub(crate) fn tell_jump(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        let revision = self.state.revision();
        self.state.record(self.publishing.contains(&true), &self.config.history);
        for (reactor, on) in self.publishing.iter().enumerate() {
            if *on {
                let reactor = u16::try_from(reactor).expect("reactors are numbered by u16");
                let event = ReactorEvent::Jumped(revision);
                effects.push(StoreEffect::ToReactor(ReactorId::new(reactor), event));
            }
        }
    }

    /// Reads a window for a watch. It comes back if it has to go on next turn.
    pub(crate) fn run_watch(
        &mut self,
        now: Instant,
        mut task: Task,
        budget: &mut u32,
        effects: &mut Vec<StoreEffect<B>>,
    ) -> Option<Task> {
        let Work::Watch(watch) = &mut task.work else { unreachable!("the caller matched a watch") };
        let mut slice = WATCH_BUDGET.min(*budget);
        let before = slice;
        let request = task.ticket.request;
        let limits = &self.config.history;
        let next = watch.step(&self.state, request, limits, &mut self.writer, &mut slice);
        let bytes = if let WatchNext::Read(read) = &next { read.bytes.len() } else { 0 };
        let spent = before - slice + u32::try_from(bytes / BYTES_PER_UNIT).unwrap_or(u32::MAX);
        *budget = budget.saturating_sub(spent.max(1));
        match next {
            WatchNext::Read(read) => {
                let is_over = read.caught.is_some();
                self.reply(task.ticket, ReplyBody::Watch(read));
                if is_over {
                    self.reads.release(&mut task);
                } else {
                    task.stalled_since = now;
                    self.stalled.entry(task.ticket).or_default().push(task);
                }
                None
            }
            WatchNext::More => {
                self.is_busy = true;
                Some(task)
            }
            WatchNext::Miss(miss) => {
                task.waits_for = Some(miss);
                self.fetch(miss, effects);
                Some(task)
            }
            WatchNext::Refused(refused) => {
                self.reads.release(&mut task);
                self.refuse(task.ticket, refused);
                None
            }
            WatchNext::Damaged(damage) => {
                self.halt(&damage, effects);
                None
            }
        }
    }

    /// Takes in a watch that wants to be read for.
    pub(crate) fn watch(&mut self, request: WatchRequest) {
        let ticket = request.ticket;
        let work = Work::Watch(Box::new(WatchTask::new(request)));
        self.reads.enter(Task::new(ticket, work));
    }
}
