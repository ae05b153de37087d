//! The watches of a reactor at work: a watch begins, is told what changes, asks, ends.
//!
//! What the store changes in a turn comes as one shared list. Each change is matched once with the groups
//! of watches; those of a group that ask for the same get the same frame, encoded once, with their own
//! request id. A watch whose connection takes no more is told nothing and remembers where it was; when
//! the connection takes bytes again the store reads on for it, in pieces like a long answer.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::num::NonZeroU32;

use base::limits::{
    CONNECTION_WATCHES_MAX, KEY_SIZE_MAX, SEND_STALL_TIMEOUT_MS, UNSENT_MAX, WATCH_RANGES_MAX,
    WATCHES_MAX,
};
use base::{ConnectionId, Duration, Frame, Instant, Mutant, RequestId, Revision, Ticket};
use kv::{Point, Previous, Recorded, Wanted};
use wire::{Header, Kind, Request, Status, Watch, WatchStep};

use crate::StoreEvent;
use crate::message::{Refused, Reply, ReplyBody, WatchRead, WatchRequest};
use crate::reactor::{Reactor, ReactorEffect};
use crate::translate;
use crate::watches::{Stage, Watcher};

/// Bytes that wait for one connection, beyond which its watches fall behind.
const BACKLOG_MAX: usize = 8 << 20;

/// The same while much waits for others.
const BACKLOG_CROWDED_MAX: usize = 256 << 10;

/// Watches of one connection that the store reads for at once.
const RUNNING_MAX: usize = 64;

/// How often watches are looked at that tell their progress by the clock, and the least interval.
const PROGRESS_TICK: Duration = Duration::from_millis(100);

/// Memory that is used again from turn to turn.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Frames for the watches of a group.
    frames: Vec<u8>,
    /// Where the frame for each kind of wish stands in them, and whether it tells a change.
    made: Vec<(Wanted, core::ops::Range<usize>)>,
    /// Changes for watches of several ranges.
    several: Vec<(u32, u32)>,
    /// Those that a group or a watch of several ranges is told of.
    numbers: Vec<u32>,
    /// Those who watch a group.
    slots: Vec<u32>,
}

/// What a verified watch asks for, without its ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchPlan {
    /// From where; none: from what comes next.
    pub start: Option<Point>,
    /// What is told.
    pub wanted: Wanted,
    /// Milliseconds of silence after which progress is told; 0: never.
    pub progress_interval_ms: u32,
}

/// Decides about a watch, after everything that can be refused without the state.
pub fn plan(watch: &Watch<'_>) -> Result<WatchPlan, Refused> {
    let refused = |status, message: String| {
        Err(Refused { status, message, compacted: 0, applied: false, retry_after_ms: 0 })
    };
    let count = watch.ranges.len();
    if count == 0 || count > WATCH_RANGES_MAX {
        let message = format!("a watch has 1 to {WATCH_RANGES_MAX} ranges, this one {count}");
        return refused(Status::InvalidArgument, message);
    }
    for range in watch.ranges.iter() {
        if range.key.is_empty() {
            let message =
                "key is not provided; a range from the first key on begins with a zero byte";
            return refused(Status::InvalidArgument, message.into());
        }
        let longest = range.key.len().max(range.range_end.len());
        if longest > KEY_SIZE_MAX {
            let message = format!("key has {longest} bytes, the limit is {KEY_SIZE_MAX}");
            return refused(Status::TooLarge, message);
        }
        let is_empty = !matches!(range.range_end, [] | [0]) && range.range_end <= range.key;
        if is_empty {
            let message = "mvcc: watcher range is empty; the range end must come behind the key";
            return refused(Status::InvalidArgument, message.into());
        }
    }
    let Ok(start) = u64::try_from(watch.start_revision) else {
        let message = "mvcc: required revision has been compacted; revisions are not negative";
        return refused(Status::Compacted, message.into());
    };
    let sub = if Mutant::ResumeSubIgnored.is_on() { 0 } else { watch.start_sub };
    let start = (start > 0).then(|| Point { revision: Revision::new(start), sub });
    let wanted = Wanted {
        previous: watch.prev_kv,
        keys_only: watch.keys_only,
        no_put: watch.no_put,
        no_delete: watch.no_delete,
    };
    Ok(WatchPlan { start, wanted, progress_interval_ms: watch.progress_interval_ms })
}

impl Reactor {
    /// Takes a watch in.
    pub(crate) fn begin_watch(
        &mut self,
        now: Instant,
        ticket: Ticket,
        body: &Frame,
        plan: &WatchPlan,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let (connection, request) = (ticket.connection, ticket.request);
        let refusal = if self.watches.find(connection, request).is_some() {
            let message =
                format!("request {} is a watch already; give each its own id", request.get());
            Some((Status::InvalidArgument, message))
        } else if self.watches.of(connection) >= CONNECTION_WATCHES_MAX {
            let message = format!(
                "this connection has {CONNECTION_WATCHES_MAX} watches, which is the limit; use another \
                 connection, or several ranges in one watch"
            );
            Some((Status::Overloaded, message))
        } else if self.watches.len() >= WATCHES_MAX {
            let message = format!("this member has {WATCHES_MAX} watches, which is the limit");
            Some((Status::Overloaded, message))
        } else {
            None
        };
        if let Some((status, message)) = refusal {
            let mut refused = Refused::new(status, message);
            if status == Status::Overloaded {
                refused.retry_after_ms = Refused::GIVEN_BACK_MS;
                self.watch_limit_met(connection);
            }
            let body = ReplyBody::Refused(refused);
            self.answer(now, Reply { ticket, body }, effects);
            return;
        }
        let Ok(Request::Watch(watch)) =
            Request::verify(Kind::Watch, body, &wire::VerifyLimits::REQUEST)
        else {
            unreachable!("the watch was verified");
        };
        let watcher = Watcher::new(connection, request, plan.start, plan.wanted, ticket.size);
        let ranges = watch.ranges.iter().map(|range| (range.key, range.range_end));
        let slot = self.watches.insert(watcher, ranges);
        if plan.progress_interval_ms > 0 {
            self.watches.time(slot, plan.progress_interval_ms, now);
            self.progress_at.get_or_insert(now.after(PROGRESS_TICK));
        }
        // What the store has published so far came before this watch began.
        if let Some(published) = self.watches.published
            && plan.start.is_none()
            && let Some(watcher) = self.watches.get(slot)
        {
            watcher.go_on(after(published));
            self.watches.begin_live(slot);
            return self.tell_created(slot, published, effects);
        }
        self.watches.wait(connection, slot);
        self.read_on(connection, effects);
    }

    /// The first reply of a watch that need not ask the store.
    fn tell_created(&mut self, slot: u32, published: Revision, effects: &mut Vec<ReactorEffect>) {
        let Some(watcher) = self.watches.get(slot) else { return };
        let (connection, request) = (watcher.connection, watcher.request);
        let Some(credit) = watcher.credit.take() else { return };
        if self.session(connection).is_none() {
            return;
        }
        self.return_watch_credit(connection, credit);
        let (session, writer, _) = self.session_and_writer(connection);
        let before = session.replies.len();
        writer
            .watch(&mut session.replies, request)
            .finish(WatchStep::Created, translate::i64_of(published), false)
            .expect("a reply without changes fits a frame");
        self.added(connection, before, effects);
    }

    fn return_watch_credit(&mut self, connection: ConnectionId, credit: NonZeroU32) {
        self.return_credit(connection, credit.get());
        let Some(session) = self.session(connection) else { return };
        if session.paused || session.ended || !session.reads_waiting.is_empty() {
            self.run_again(connection);
        }
    }

    /// Has the store read for watches of a connection that are behind, as many as may run.
    fn read_on(&mut self, connection: ConnectionId, effects: &mut Vec<ReactorEffect>) {
        let Some(session) = self.session(connection) else { return };
        if session.blocked_since.is_some() {
            return;
        }
        if !self.watches.is_on {
            self.watches.is_on = true;
            let reactor = self.config.id;
            effects.push(ReactorEffect::ToStore(StoreEvent::Publish { reactor, on: true }));
        }
        while let Some(slot) = self.watches.next_waiting(connection, RUNNING_MAX) {
            let reactor = self.config.id;
            let published = self.watches.published;
            let Some(watcher) = self.watches.get(slot) else { continue };
            if let Some(published) = published
                && watcher.next().is_none()
            {
                // Another watch has been told meanwhile what comes next: the store need not be asked.
                watcher.go_on(after(published));
                self.watches.caught_up(slot);
                self.tell_created(slot, published, effects);
                continue;
            }
            let ticket = Ticket {
                reactor,
                connection,
                request: watcher.request,
                size: watcher.serial,
                reads: false,
                watches: true,
            };
            let (start, wanted) = (watcher.next(), watcher.wanted());
            let created = watcher.credit.is_none();
            let ranges = self.watches.ranges_of(slot);
            let request = WatchRequest { ticket, start, ranges, wanted, created };
            effects.push(ReactorEffect::ToStore(StoreEvent::Watch(request)));
        }
    }

    /// Takes what the store has read for a watch.
    pub(crate) fn watch_answer(&mut self, reply: Reply, effects: &mut Vec<ReactorEffect>) {
        let Reply { ticket, body } = reply;
        let connection = ticket.connection;
        let slot = self.watches.find(connection, ticket.request);
        let mine = slot.and_then(|slot| {
            let watcher = self.watches.get(slot)?;
            (watcher.serial == ticket.size && watcher.stage == Stage::Running).then_some(slot)
        });
        let Some(slot) = mine else {
            // It has ended; the store was told so, unless its connection has gone.
            return;
        };
        match body {
            ReplyBody::Watch(WatchRead { bytes, next, caught }) => {
                let Some(watcher) = self.watches.get(slot) else { return };
                assert!(watcher.next() <= Some(next), "{watcher:?} goes back to {next:?}");
                watcher.go_on(next);
                watcher.told |= !bytes.is_empty();
                if let Some(credit) = watcher.credit.take() {
                    self.return_watch_credit(connection, credit);
                }
                let Some(session) = self.session(connection) else { return };
                let before = session.replies.len();
                Self::append(&mut session.replies, bytes);
                match caught {
                    None => {
                        let session = self.session(connection).expect("it was there above");
                        session.stalled_reads.push(ticket);
                        self.go_on(connection);
                    }
                    Some(revision) => {
                        if Mutant::LiveTooLate.is_on()
                            && let Some(watcher) = self.watches.get(slot)
                        {
                            watcher.go_on(after(revision.next()));
                        }
                        self.watches.published = self.watches.published.max(Some(revision));
                        self.watches.caught_up(slot);
                        self.progress_if_owed(slot);
                    }
                }
                self.added(connection, before, effects);
                if caught.is_some() {
                    self.read_on(connection, effects);
                }
            }
            ReplyBody::Refused(refused) => {
                let Refused { status, message, compacted, .. } = refused;
                self.refuse_watch(connection, ticket.request, status, message, compacted, effects);
            }
            ReplyBody::Put { .. }
            | ReplyBody::Frames(_)
            | ReplyBody::Piece(_)
            | ReplyBody::Renewed { .. } => {
                unreachable!("the store answers a watch with what it has read")
            }
        }
    }

    /// Ends a watch: its last reply says why.
    pub(crate) fn end_watch(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        status: Status,
        message: String,
        effects: &mut Vec<ReactorEffect>,
    ) {
        self.refuse_watch(connection, request, status, message, 0, effects);
    }

    fn refuse_watch(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        status: Status,
        message: String,
        compacted: u64,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let Some(slot) = self.watches.find(connection, request) else { return };
        if Mutant::CancelledStays.is_on() && status == Status::Cancelled {
            let refused = Refused { status, message, compacted, applied: false, retry_after_ms: 0 };
            return self.refuse(connection, request, &refused);
        }
        let Some(watcher) = self.watches.remove(slot) else { return };
        if watcher.stage == Stage::Running {
            let reactor = self.config.id;
            let (size, reads, watches) = (watcher.serial, false, true);
            let ticket = Ticket { reactor, connection, request, size, reads, watches };
            effects.push(ReactorEffect::ToStore(StoreEvent::Cancel { ticket }));
            if let Some(session) = self.session(connection) {
                session.stalled_reads.retain(|stalled| *stalled != ticket);
            }
        }
        if let Some(credit) = watcher.credit {
            self.return_watch_credit(connection, credit);
        }
        let refused = Refused { status, message, compacted, applied: false, retry_after_ms: 0 };
        self.refuse(connection, request, &refused);
        self.read_on(connection, effects);
        self.stop_publishing(effects);
    }

    /// Without watches the store need not publish.
    fn stop_publishing(&mut self, effects: &mut Vec<ReactorEffect>) {
        if self.watches.is_on && self.watches.len() == 0 {
            self.watches.is_on = false;
            self.watches.published = None;
            let reactor = self.config.id;
            effects.push(ReactorEffect::ToStore(StoreEvent::Publish { reactor, on: false }));
        }
    }

    /// Ends the watches of a connection that takes no byte.
    pub(crate) fn end_slow_watches(
        &mut self,
        connection: ConnectionId,
        effects: &mut Vec<ReactorEffect>,
    ) {
        if let Some(session) = self.session(connection) {
            session.was_warned = true;
        }
        let message = format!(
            "no byte was taken for {SEND_STALL_TIMEOUT_MS} ms; go on from the revision behind the last \
             one that came whole"
        );
        self.end_watches_of(connection, Status::SlowReader, &message, effects);
    }

    fn end_watches_of(
        &mut self,
        connection: ConnectionId,
        status: Status,
        message: &str,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let slots = self.watches.slots_of(connection);
        for slot in slots {
            let Some(watcher) = self.watches.get(slot) else { continue };
            let request = watcher.request;
            self.end_watch(connection, request, status, message.into(), effects);
        }
    }

    /// Ends every watch: its client goes on at another member.
    pub(crate) fn end_all_watches(&mut self, effects: &mut Vec<ReactorEffect>) {
        for connection in self.watches.connections() {
            let message = "the server is stopping; go on at another member";
            self.end_watches_of(connection, Status::ShuttingDown, message, effects);
        }
    }

    /// Forgets the watches of a connection that has gone; whether the store may read for one.
    pub(crate) fn drop_watches(&mut self, connection: ConnectionId) -> bool {
        let slots = self.watches.slots_of(connection);
        for slot in &slots {
            self.watches.remove(*slot);
        }
        !slots.is_empty()
    }

    /// Tells watches what the store has changed.
    pub(crate) fn publish(&mut self, recorded: &Arc<Recorded>, effects: &mut Vec<ReactorEffect>) {
        let Some(published) = self.watches.published else { return };
        assert!(
            recorded.first == published.next(),
            "changes of revision {} follow those of {published}",
            recorded.first
        );
        self.watches.published = Some(recorded.newest);
        for (number, change) in recorded.changes.iter().enumerate() {
            let number = u32::try_from(number).expect("changes of a turn are bounded");
            self.watches.touch(change.kv.key, number);
        }
        let mut scratch = mem::take(&mut self.scratch);
        let mut numbers = mem::take(&mut scratch.numbers);
        let mut slots = mem::take(&mut scratch.slots);
        scratch.several.clear();
        let touched = self.watches.take_touched();
        for changes in touched.chunk_by(|a, b| a.0 == b.0) {
            numbers.clear();
            numbers.extend(changes.iter().map(|(_, number)| *number));
            scratch.made.clear();
            scratch.frames.clear();
            slots.clear();
            slots.extend_from_slice(self.watches.watchers_of(changes[0].0));
            for slot in &slots {
                self.tell(*slot, recorded, &numbers, &mut scratch, effects);
            }
        }
        self.watches.recycle(touched);
        scratch.several.sort_unstable();
        if !Mutant::SeveralTwice.is_on() {
            scratch.several.dedup();
        }
        let several = mem::take(&mut scratch.several);
        for changes in several.chunk_by(|a, b| a.0 == b.0) {
            numbers.clear();
            numbers.extend(changes.iter().map(|(_, number)| *number));
            scratch.made.clear();
            scratch.frames.clear();
            self.tell_all(changes[0].0, recorded, &numbers, &mut scratch, effects);
        }
        (scratch.several, scratch.numbers, scratch.slots) = (several, numbers, slots);
        self.scratch = scratch;
        if recorded.whole < recorded.newest && !Mutant::CutPassesForWhole.is_on() {
            self.all_fall_behind(after(recorded.whole));
        }
    }

    /// Tells a watch of a group, or notes it for later where it has several.
    fn tell(
        &mut self,
        slot: u32,
        recorded: &Recorded,
        changes: &[u32],
        scratch: &mut Scratch,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let Some(watcher) = self.watches.get(slot) else { return };
        if watcher.stage != Stage::Live {
            return;
        }
        if watcher.is_several() {
            scratch.several.extend(changes.iter().map(|change| (slot, *change)));
        } else {
            self.tell_all(slot, recorded, changes, scratch, effects);
        }
    }

    /// Tells a live watch changes, unless it falls behind.
    fn tell_all(
        &mut self,
        slot: u32,
        recorded: &Recorded,
        changes: &[u32],
        scratch: &mut Scratch,
        effects: &mut Vec<ReactorEffect>,
    ) {
        let crowded = self.unsent > UNSENT_MAX / 2;
        let Some(watcher) = self.watches.get(slot) else { return };
        let (connection, request, wanted) = (watcher.connection, watcher.request, watcher.wanted());
        let first = Point { revision: recorded.first, sub: 0 };
        let next = watcher.next().unwrap_or(first);
        let begins_later = next > first;
        let Some(session) = self.session(connection) else { return };
        let backlog_max = if crowded { BACKLOG_CROWDED_MAX } else { BACKLOG_MAX };
        let is_full = session.blocked_since.is_some() || session.replies.len() > backlog_max;
        let elsewhere =
            wanted.previous && changes.iter().any(|change| previous_elsewhere(recorded, *change));
        if (is_full && !Mutant::WatchSkips.is_on()) || elsewhere {
            self.fall_behind(slot, first);
            return;
        }
        if is_full {
            return;
        }
        let made = scratch.made.iter().find(|(other, _)| *other == wanted && !begins_later);
        let place = match made {
            Some((_, place)) => place.clone(),
            None => {
                let from = scratch.frames.len();
                let mut watch = self.writer.watch(&mut scratch.frames, request);
                for change in changes {
                    let change = recorded.changes.get(index(*change));
                    if wanted.takes(change.kind) && change.at >= next {
                        watch.push(&translate::change(&change, &wanted));
                    }
                }
                if watch.count() > 0 {
                    let ahead = i64::from(Mutant::RevisionAhead.is_on());
                    let revision = translate::i64_of(recorded.whole) + ahead;
                    if watch.finish(WatchStep::Changes, revision, false).is_err() {
                        // More than a frame holds: the store tells it in pieces.
                        self.fall_behind(slot, first);
                        return;
                    }
                } else {
                    drop(watch);
                }
                let place = from..scratch.frames.len();
                if !begins_later {
                    scratch.made.push((wanted, place.clone()));
                }
                place
            }
        };
        if place.is_empty() {
            return;
        }
        let Some(session) = self.session(connection) else { return };
        let before = session.replies.len();
        session.replies.extend_from_slice(&scratch.frames[place]);
        Header::readdress(&mut session.replies[before..], request);
        if let Some(watcher) = self.watches.get(slot) {
            watcher.go_on(after(recorded.whole));
            watcher.told = true;
        }
        self.added(connection, before, effects);
    }

    fn fall_behind(&mut self, slot: u32, mut next: Point) {
        if Mutant::BehindNotRead.is_on()
            && let Some(published) = self.watches.published
        {
            next = after(published);
        }
        if Mutant::BehindTooFar.is_on()
            && let Some(watcher) = self.watches.get(slot)
            && next.revision > Revision::new(2)
        {
            next.revision = Revision::new(next.revision.get() - 1);
            watcher.forget();
        }
        self.watches.fall_behind(slot, next);
        if let Some(watcher) = self.watches.get(slot) {
            let connection = watcher.connection;
            if self.resuming.last() != Some(&connection) {
                self.resuming.push(connection);
            }
        }
    }

    /// Every live watch goes on from `next`, or from later.
    fn all_fall_behind(&mut self, next: Point) {
        for slot in self.watches.slots() {
            if self.watches.get(slot).is_some_and(|watcher| watcher.stage == Stage::Live) {
                self.fall_behind(slot, next);
            }
        }
    }

    /// The state has been replaced by a later one: what lies between has to be read.
    pub(crate) fn jump(&mut self, revision: Revision) {
        let Some(published) = self.watches.published else { return };
        let skips = Mutant::WatchJumps.is_on();
        self.watches.published = Some(revision.max(published));
        if !skips {
            self.all_fall_behind(after(published));
        }
    }

    /// A client asks a watch how far it has come.
    pub(crate) fn ask_progress(&mut self, connection: ConnectionId, request: RequestId) {
        let Some(slot) = self.watches.find(connection, request) else { return };
        let Some(watcher) = self.watches.get(slot) else { return };
        if mem::replace(&mut watcher.owes_progress, true) {
            return;
        }
        let serial = watcher.serial;
        if !self.progress_if_owed(slot) && !Mutant::ProgressForgotten.is_on() {
            self.watches.owing.push((slot, serial));
        }
    }

    /// Tells the progress of a watch that owes it, if it has come to what is told; else it owes it still.
    fn progress_if_owed(&mut self, slot: u32) -> bool {
        let Some(published) = self.watches.published else { return false };
        let Some(watcher) = self.watches.get(slot) else { return true };
        if !watcher.owes_progress {
            return true;
        }
        let early = Mutant::ProgressEarly.is_on();
        let may = watcher.credit.is_none()
            && (watcher.stage == Stage::Live || early)
            && watcher.next() <= Some(after(published));
        let (connection, request) = (watcher.connection, watcher.request);
        let Some(session) = self.session(connection) else { return true };
        if !may || session.blocked_since.is_some() {
            return false;
        }
        let ahead = i64::from(Mutant::ProgressAhead.is_on());
        let (session, writer, _) = self.session_and_writer(connection);
        writer
            .watch(&mut session.replies, request)
            .finish(WatchStep::Progress, translate::i64_of(published) + ahead, false)
            .expect("a reply without changes fits a frame");
        if let Some(watcher) = self.watches.get(slot) {
            watcher.owes_progress = false;
            watcher.told = true;
        }
        self.mark_dirty(connection);
        true
    }

    /// Once a turn: reads on for connections that take bytes again, tells progress.
    pub(crate) fn tend_watches(&mut self, now: Instant, effects: &mut Vec<ReactorEffect>) {
        for connection in mem::take(&mut self.resuming) {
            self.read_on(connection, effects);
        }
        if !self.watches.owing.is_empty() {
            for (slot, serial) in mem::take(&mut self.watches.owing) {
                let is_same = self.watches.get(slot).is_some_and(|own| own.serial == serial);
                if is_same && !self.progress_if_owed(slot) {
                    self.watches.owing.push((slot, serial));
                }
            }
        }
        if self.progress_at.is_some_and(|at| now >= at) {
            self.tell_progress_by_clock(now);
        }
        if self.watches.is_on {
            self.stop_publishing(effects);
        }
    }

    fn tell_progress_by_clock(&mut self, now: Instant) {
        let mut timed = mem::take(&mut self.watches.timed);
        timed.retain_mut(|timed| {
            let watcher = self.watches.get(timed.slot).filter(|own| own.serial == timed.serial);
            let Some(watcher) = watcher else { return false };
            if mem::replace(&mut watcher.told, false) {
                timed.told_at = now;
            }
            let interval = Duration::from_millis(u64::from(timed.interval_ms));
            if now.since(timed.told_at) >= interval.max(PROGRESS_TICK) {
                watcher.owes_progress = true;
                // Not told now, it is told at the next tick that finds it live.
                if self.progress_if_owed(timed.slot) {
                    timed.told_at = now;
                    if let Some(watcher) = self.watches.get(timed.slot) {
                        watcher.told = false;
                    }
                }
            }
            true
        });
        self.progress_at = (!timed.is_empty()).then(|| now.after(PROGRESS_TICK));
        timed.append(&mut self.watches.timed);
        self.watches.timed = timed;
    }
}

fn index(at: u32) -> usize {
    usize::try_from(at).expect("an index fits usize")
}

/// The place behind a revision.
fn after(revision: Revision) -> Point {
    Point { revision: revision.next(), sub: 0 }
}

/// Whether what a change replaced has to be read.
fn previous_elsewhere(recorded: &Recorded, change: u32) -> bool {
    recorded.changes.get(index(change)).previous == Previous::Elsewhere
}
