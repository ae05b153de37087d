//! The queue of reads in progress, and the memory that they share.
//!
//! Most reads hold nothing between their steps: pairs go out as they are found. Sorted ranges,
//! transactions that only read, and the answers of writes gather first. Of those
//!
//! ```text
//! begin ──► tasks, small: up to SMALL_SIZE each, `small_max` in all ──► done
//!              │ grows beyond: gives up what it holds
//!              ▼
//!           large, in order ──► tasks, large: the most that it may need is set aside for it ──► done
//! ```
//!
//! Who waits holds nothing, and who has a large share never has to wait for another's: so the first in
//! line always gets its turn, however many there are and however large. A crowd of large reads is
//! carried out a few at a time, and small ones pass it by.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::mem;

use base::limits::{ANSWERS_SIZE_MAX, READ_HOLD_MS, READ_STALL_TIMEOUT_MS, READS_SIZE_MAX};
use base::{ConnectionId, Duration, Frame, Instant, LogIndex, Mutant, ReactorId, Revision, Ticket};
use kv::{Answer, REPLY_SIZE_MAX, Read, ReadTxn, SORT_SIZE_MAX};
use tree::Miss;
use wire::{REPLY_BODY_SIZE_MAX, Status};

use crate::message::ReadKind;
use crate::message::Refused;
use crate::store::Store;
use crate::store_link::StoreEffect;
use crate::watch_reads::WatchTask;

/// Units of work that reads may take in one turn.
const READS_BUDGET: u32 = 4_096;

/// Units of work that the large ones of them may take in one turn. One that takes more, because it is
/// encoded all at once, takes it from the turns that follow.
pub const LARGE_BUDGET: u32 = 512;

/// How often reads that wait are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that a read may hold before it needs a large share.
const SMALL_SIZE: usize = 1 << 20;

/// Of what there is to share, small reads have this part.
const SMALL_PART: usize = 8;

const _: () = {
    let greatest = REPLY_SIZE_MAX + 2 * SORT_SIZE_MAX + REPLY_BODY_SIZE_MAX;
    assert!(READS_SIZE_MAX - READS_SIZE_MAX / SMALL_PART >= greatest, "the greatest read fits");
    assert!(
        ANSWERS_SIZE_MAX - ANSWERS_SIZE_MAX / SMALL_PART >= greatest,
        "the greatest answer fits"
    );
};

/// What a task has to do.
pub enum Work {
    /// A range.
    Range(Read),
    /// A transaction that only reads, and its body.
    Txn(ReadTxn, Frame),
    /// What a write has to read for its answer.
    Answer(Answer),
    /// A lease, or the list of them; the request's body, and the log time.
    Lease(ReadKind, Frame, u64),
    /// What a watch has not been told.
    Watch(Box<WatchTask>),
}

impl Work {
    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        match self {
            Self::Range(read) => read.held(),
            Self::Txn(read, _) => read.held(),
            Self::Answer(answer) => answer.held(),
            Self::Watch(_) | Self::Lease(..) => 0,
        }
    }

    /// Bytes that it may come to hold, with the frame that its answer becomes; 0 if it never holds any.
    fn held_max(&self) -> usize {
        match self {
            Self::Range(read) => read.held_max(),
            Self::Txn(read, _) => read.held_max() + REPLY_BODY_SIZE_MAX,
            Self::Answer(answer) => match answer.held_max() {
                0 => 0,
                held => held + REPLY_BODY_SIZE_MAX,
            },
            Self::Watch(_) | Self::Lease(..) => 0,
        }
    }

    fn give_up(&mut self) {
        match self {
            Self::Range(read) => read.give_up(),
            Self::Txn(read, _) => read.give_up(),
            Self::Answer(answer) => answer.give_up(),
            Self::Watch(_) | Self::Lease(..) => {}
        }
    }
}

/// What is booked for a task, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Share {
    /// What it holds.
    Small(usize),
    /// What it may come to hold.
    Large(usize),
}

/// A read, or the part of a write's answer that has to be read.
pub struct Task {
    /// Who waits for it.
    pub ticket: Ticket,
    /// What it does.
    pub work: Work,
    /// Not before this has been applied.
    pub applied_min: LogIndex,
    /// When nobody waits for it any more.
    pub deadline: Option<Instant>,
    /// Not before this has been installed.
    pub waits_for: Option<Miss>,
    /// Since when its connection has not taken the last piece.
    pub stalled_since: Instant,
    /// When it had its first turn.
    pub begun: Option<Instant>,
    /// Bytes of the task itself.
    size: usize,
    share: Share,
}

impl Task {
    /// A task that holds nothing yet.
    pub fn new(ticket: Ticket, work: Work) -> Self {
        let size = size_of::<Self>()
            + match &work {
                Work::Range(_) => 0,
                Work::Txn(_, frame) => frame.len(),
                Work::Answer(answer) => answer.size(),
                Work::Watch(watch) => watch.size(),
                Work::Lease(_, frame, _) => frame.len(),
            };
        Self {
            ticket,
            work,
            size,
            applied_min: LogIndex::ZERO,
            deadline: None,
            waits_for: None,
            stalled_since: Instant::ORIGIN,
            begun: None,
            share: Share::Small(0),
        }
    }

    /// The first revision whose events trimming must leave for it.
    pub fn keeps(&self, now: Instant) -> Option<Revision> {
        match &self.work {
            Work::Answer(answer) => Some(answer.keeps()),
            Work::Range(read) => read.keeps().filter(|_| {
                let hold = Duration::from_millis(READ_HOLD_MS);
                self.begun.is_some_and(|begun| now.since(begun) < hold)
                    && !Mutant::TrimsUnderReads.is_on()
            }),
            Work::Txn(..) | Work::Watch(_) | Work::Lease(..) => None,
        }
    }

    /// Whether it is one of the few that may hold much.
    pub fn is_large(&self) -> bool {
        matches!(self.share, Share::Large(_))
    }

    /// Whether it keeps memory from others.
    pub fn has_share(&self) -> bool {
        self.share != Share::Small(0)
    }
}

/// Reads in progress, and how much they may hold.
pub struct Queue {
    /// Those that have their turns.
    tasks: VecDeque<Task>,
    /// Those that wait to hold anything at all.
    begin: VecDeque<Task>,
    /// Those that wait for a large share.
    large: VecDeque<Task>,
    small_max: usize,
    large_max: usize,
    small_held: usize,
    large_held: usize,
    size: usize,
    /// How often one had to wait for what others hold.
    waited: u64,
}

impl Queue {
    /// Nothing in progress, and `size_max` bytes to share.
    pub fn new(size_max: usize) -> Self {
        let small_max = size_max / SMALL_PART;
        Self {
            tasks: VecDeque::new(),
            begin: VecDeque::new(),
            large: VecDeque::new(),
            small_max,
            large_max: size_max - small_max,
            small_held: 0,
            large_held: 0,
            size: 0,
            waited: 0,
        }
    }

    /// Bytes booked.
    pub fn booked(&self) -> usize {
        self.small_held + self.large_held
    }

    /// Bytes of the tasks themselves, beside what they hold.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How often one had to wait for what others hold.
    pub fn waited(&self) -> u64 {
        self.waited
    }

    /// Tasks that have their turns.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether some wait for what others hold.
    pub fn is_crowded(&self) -> bool {
        !self.begin.is_empty() || !self.large.is_empty()
    }

    /// Takes a new task in, behind the others.
    pub fn enter(&mut self, task: Task) {
        self.size += task.size;
        self.tasks.push_back(task);
    }

    /// Puts a task back behind the others.
    pub fn push(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// The task whose turn it is, if it may hold what it needs; else it has begun to wait.
    pub fn next(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        let begins = task.share == Share::Small(0) && task.work.held_max() > 0;
        if begins && self.small_held >= self.small_max {
            self.waited += 1;
            self.begin.push_back(task);
            return None;
        }
        Some(task)
    }

    /// Lets those in for whom there is room now; false if there are none.
    pub fn admit(&mut self) -> bool {
        let before = self.tasks.len();
        while let Some(task) = self.large.front()
            && (self.large_held == 0 || self.large_held + task.work.held_max() <= self.large_max)
            && let Some(mut task) = self.large.pop_front()
        {
            let share = Share::Large(task.work.held_max());
            self.book(&mut task, share);
            self.tasks.push_back(task);
        }
        // What they will hold is not known: as many as would fit if each came to hold its most.
        let mut room = self.small_max.saturating_sub(self.small_held).div_ceil(SMALL_SIZE);
        while room > 0
            && let Some(task) = self.begin.pop_front()
        {
            room -= 1;
            self.tasks.push_back(task);
        }
        self.tasks.len() > before
    }

    /// Books what a task holds now, behind a step of it. It comes back unless it has to wait, holding
    /// nothing.
    pub fn settle(&mut self, mut task: Task) -> Option<Task> {
        let held = task.work.held();
        if held == 0 && task.share == Share::Small(0) {
            return Some(task);
        }
        if let Share::Large(booked) = task.share
            && held <= booked
        {
            let share = Share::Large(task.work.held_max().clamp(held, booked));
            self.book(&mut task, share);
            return Some(task);
        }
        // Either it is small, or it has begun again behind a compaction and needs more than before.
        self.book(&mut task, Share::Small(0));
        if held <= SMALL_SIZE && (held == 0 || self.small_held + held <= self.small_max) {
            self.book(&mut task, Share::Small(held));
            return Some(task);
        }
        // Nothing else may stand in line: it would wait for ever behind later ones.
        let large = task.work.held_max().max(held);
        if held > SMALL_SIZE && self.large.is_empty() && self.large_held + large <= self.large_max {
            self.book(&mut task, Share::Large(large));
            return Some(task);
        }
        task.work.give_up();
        task.waits_for = None;
        if task.work.held() > 0 {
            // Pairs have gone out already, so it only gets smaller from here.
            self.book(&mut task, Share::Large(large));
            return Some(task);
        }
        self.waited += 1;
        if held > SMALL_SIZE {
            self.large.push_back(task);
        } else {
            self.begin.push_back(task);
        }
        None
    }

    fn book(&mut self, task: &mut Task, share: Share) {
        match task.share {
            Share::Small(size) => self.small_held -= size,
            Share::Large(size) => self.large_held -= size,
        }
        match share {
            Share::Small(size) => self.small_held += size,
            Share::Large(size) => self.large_held += size,
        }
        task.share = share;
    }

    /// Gives back what was booked for a task that is over.
    pub fn release(&mut self, task: &mut Task) {
        self.size -= mem::take(&mut task.size);
        self.book(task, Share::Small(0));
    }

    /// Takes every task out.
    pub fn drain(&mut self) -> Vec<Task> {
        (self.small_held, self.large_held, self.size) = (0, 0, 0);
        let queues = [&mut self.tasks, &mut self.begin, &mut self.large];
        queues.into_iter().flat_map(mem::take).collect()
    }

    /// Every task, waiting or not.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().chain(&self.begin).chain(&self.large)
    }

    /// Tasks that have their turns, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.tasks.iter_mut()
    }

    /// Takes the first task out that `is_it` names.
    pub fn take(&mut self, is_it: impl Fn(&Task) -> bool) -> Option<Task> {
        let found = {
            let queues = [&mut self.tasks, &mut self.begin, &mut self.large];
            queues.into_iter().find_map(|queue| {
                let place = queue.iter().position(&is_it)?;
                queue.remove(place)
            })
        };
        let mut task = found?;
        self.release(&mut task);
        Some(task)
    }

    /// Drops every task that `is_over` names, and hands each to `told`.
    pub fn drop_where(&mut self, is_over: impl Fn(&Task) -> bool, mut told: impl FnMut(&Task)) {
        let (mut small, mut large, mut sizes) = (0, 0, 0);
        for queue in [&mut self.tasks, &mut self.begin, &mut self.large] {
            queue.retain(|task| {
                let over = is_over(task);
                if over {
                    told(task);
                    sizes += task.size;
                    match task.share {
                        Share::Small(size) => small += size,
                        Share::Large(size) => large += size,
                    }
                }
                !over
            });
        }
        self.size -= sizes;
        self.small_held -= small;
        self.large_held -= large;
    }
}

/// Which queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// What writes read for their answers.
    Answers,
    /// What clients asked to read.
    Reads,
}

/// The answer to a read whose deadline has passed.
pub fn overdue() -> Refused {
    let message = "the deadline of the request passed before it was answered".into();
    Refused::new(Status::DeadlineExceeded, message)
}

/// Whose tasks nobody waits for any more.
pub type Gone = (ReactorId, ConnectionId);

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Runs answers of writes, then reads.
    pub(crate) fn run_tasks(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let paid = self.large_debt.min(LARGE_BUDGET);
        self.large_debt -= paid;
        self.large_budget = LARGE_BUDGET - paid;
        self.run_queue(Which::Answers, now, effects);
        self.run_queue(Which::Reads, now, effects);
        self.sweep(now);
    }

    pub(crate) fn queue(&mut self, which: Which) -> &mut Queue {
        match which {
            Which::Answers => &mut self.answers,
            Which::Reads => &mut self.reads,
        }
    }

    /// Runs reads, or the answers of writes, round-robin.
    fn run_queue(&mut self, which: Which, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        self.queue(which).admit();
        let mut budget = READS_BUDGET;
        for _ in 0..self.queue(which).len() {
            if budget == 0 {
                self.is_busy = true;
                break;
            }
            let Some(task) = self.queue(which).next() else { continue };
            if let Some(task) = self.run(which, now, task, &mut budget, effects) {
                let queue = self.queue(which);
                if let Some(task) = queue.settle(task) {
                    queue.push(task);
                }
            }
        }
        self.is_busy |= self.queue(which).admit();
    }

    /// Takes out what nobody waits for: tasks of connections that have gone.
    pub(crate) fn drop_gone(&mut self) {
        let mut gone = mem::take(&mut self.gone);
        gone.sort_unstable();
        let is_gone =
            |ticket: Ticket| gone.binary_search(&(ticket.reactor, ticket.connection)).is_ok();
        for queue in [&mut self.answers, &mut self.reads] {
            queue.drop_where(|task| is_gone(task.ticket), |_| {});
        }
        self.drop_gone_savers(&gone);
        for (_, tasks) in self.stalled.extract_if(|ticket, _| is_gone(*ticket)) {
            for mut task in tasks {
                self.reads.release(&mut task);
            }
        }
        self.physical.retain(|(ticket, ..)| !is_gone(*ticket));
    }

    /// Looks at the reads that wait for memory, and at those whose clients keep it from them.
    fn sweep(&mut self, now: Instant) {
        let is_crowded = self.reads.is_crowded();
        if !is_crowded && !self.answers.is_crowded() {
            self.sweep_at = None;
            return;
        }
        if self.sweep_at.is_some_and(|at| now < at) {
            return;
        }
        self.sweep_at = Some(now.after(SWEEP_INTERVAL));
        let mut late = Vec::new();
        for queue in [&mut self.answers, &mut self.reads] {
            let is_late = |task: &Task| task.deadline.is_some_and(|deadline| now > deadline);
            queue.drop_where(is_late, |task| late.push(task.ticket));
        }
        for ticket in late {
            self.refuse(ticket, overdue());
        }
        let stall = Duration::from_millis(READ_STALL_TIMEOUT_MS);
        let blocks =
            |task: &Task| is_crowded && task.has_share() && now.since(task.stalled_since) > stall;
        let mut blocking: Vec<Task> = Vec::new();
        self.stalled.retain(|_, tasks| {
            blocking.extend(tasks.extract_if(.., |task| blocks(task)));
            !tasks.is_empty()
        });
        for mut task in blocking {
            self.reads.release(&mut task);
            let message = format!(
                "the client took no piece of this large answer for {READ_STALL_TIMEOUT_MS} ms \
                 while other reads waited for its memory; read it in parts, with limits"
            );
            let retry_after_ms = Refused::GIVEN_BACK_MS;
            let refused = Refused { retry_after_ms, ..Refused::new(Status::Overloaded, message) };
            self.refuse(task.ticket, refused);
        }
    }
}
