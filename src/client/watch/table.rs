//! The watches of one hub: where each stands, what it has to tell, and what goes out for it. No socket,
//! no thread, no clock.
//!
//! ```text
//!            pump                 Created            Changes, Progress
//! unsent ───────────► opening ───────────► running ───────────────────► queue ──► take
//!   ▲ ▲                  │ Refused: Overloaded  │ Refused: SlowReader
//!   │ └── paused ◄───────┴─────────────────────┐│
//!   └──────────────────────────────────────────┴┘ the connection is lost: all that have not ended
//! ```
//!
//! Two positions for each: `next`, what the server is asked for when the watch has to be sent again, and
//! `taken`, where another watch would have to begin to tell what its user has not seen. They only grow.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use base::RequestId;
use base::limits::CONNECTION_WATCHES_MAX;
use wire::{
    Call, DecodeError, EncodeError, Header, Refused, Reply, RequestEncoder, Status, Watch,
    WatchRange, WatchRanges, WatchReply, WatchStep,
};

use super::{OwnedChange, WatchEnd, WatchEvent, WatchOptions, WatchPosition};
use crate::client::Server;
use crate::error::{Error, Refusal};
use crate::lease::milliseconds;

/// How long a watch waits that an overloaded server refused without advice.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a connection is given up.
#[derive(Debug)]
pub(super) enum Broken {
    /// What came is not the protocol.
    Protocol(DecodeError),
    /// The server goes, or serves no watches now.
    Refused(Refusal),
}

/// What the replies with a request id are for.
enum Route {
    Watch {
        watch: u64,
        /// Bytes of its frame, while it takes a credit.
        opening: Option<usize>,
    },
    /// Nobody wants to know any more.
    Gone { opening: Option<usize> },
    /// The question whether the server is alive and knows a leader.
    Probe,
}

struct Queued {
    event: WatchEvent,
    size: usize,
    /// Where another watch would begin behind it.
    behind: WatchPosition,
}

struct Slot {
    options: WatchOptions,
    /// Its id on this connection, if it has been sent.
    request: Option<RequestId>,
    next: WatchPosition,
    taken: WatchPosition,
    /// Changes of a revision of which more is to come.
    partial: Vec<OwnedChange>,
    /// A piece of a revision has been handed out that was not its last.
    is_cut: bool,
    queue: VecDeque<Queued>,
    end: Option<WatchEnd>,
    /// The revision behind which it began, once it has.
    created: Option<i64>,
    is_running: bool,
    is_cancelled: bool,
    /// Its user waits for progress.
    progress_wanted: bool,
    /// It stands in the list of those that have something to tell.
    is_listed: bool,
    /// Whoever waits for it.
    waiting: Arc<Condvar>,
}

/// The watches of a hub.
#[derive(Default)]
pub(super) struct WatchTable {
    encoder: RequestEncoder,
    /// Frames for the connection.
    pub(super) output: Vec<u8>,
    slots: HashMap<u64, Slot>,
    routes: HashMap<u64, Route>,
    unsent: VecDeque<u64>,
    paused: Vec<(Instant, u64)>,
    is_connected: bool,
    requests_max: usize,
    bytes_max: usize,
    /// Watches that take a credit, and the bytes of their frames.
    opening: usize,
    opening_size: usize,
    /// Bytes of events that wait to be taken.
    pub(super) queued_size: usize,
    next_request: u64,
    next_watch: u64,
    /// Watches that have something to tell.
    ready: VecDeque<u64>,
    /// How often in a row the server said that it knows no leader.
    pub(super) leaderless_count: u32,
    /// The hub goes.
    pub(super) is_stopped: bool,
    /// Why there is no connection.
    pub(super) trouble: Option<String>,
}

fn encode(
    encoder: &RequestEncoder,
    output: &mut Vec<u8>,
    request: RequestId,
    slot: (&WatchOptions, WatchPosition),
) -> Result<(), EncodeError> {
    let (options, start) = slot;
    let ranges: Vec<WatchRange<'_>> = options
        .ranges
        .iter()
        .map(|range| WatchRange { key: &range.key, range_end: &range.range_end })
        .collect();
    let interval = options.progress_interval.map_or(0, |interval| milliseconds(interval).max(1));
    let watch = Watch {
        ranges: WatchRanges::Given(&ranges),
        start_revision: start.revision,
        start_sub: start.sub,
        prev_kv: options.prev_kv,
        keys_only: options.keys_only,
        no_put: options.no_put,
        no_delete: options.no_delete,
        progress_interval_ms: u32::try_from(interval).unwrap_or(u32::MAX),
    };
    encoder.encode(output, request, 0, &Call::Watch(watch))
}

impl WatchTable {
    fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId::new(self.next_request)
    }

    fn bare(&mut self, request: RequestId, call: &Call<'_>) {
        self.encoder
            .encode(&mut self.output, request, 0, call)
            .expect("a frame without a body is never too large");
    }

    // ------------------------------------------------------------------ the connection

    /// A connection is there: every watch that has not ended goes out on it.
    pub(super) fn connected(&mut self, encoder: RequestEncoder, server: &Server) {
        self.encoder = encoder;
        let size = |size| usize::try_from(size).unwrap_or(usize::MAX);
        // One credit stays for the probe.
        self.requests_max = size(server.requests_max).saturating_sub(1).max(1);
        self.bytes_max = size(server.bytes_max);
        self.is_connected = true;
        self.leaderless_count = 0;
        self.trouble = None;
        self.pump();
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self, trouble: String) {
        self.is_connected = false;
        self.trouble = Some(trouble);
        self.output.clear();
        self.routes.clear();
        self.paused.clear();
        (self.opening, self.opening_size) = (0, 0);
        let (mut open, mut cancelled) = (Vec::new(), Vec::new());
        for (watch, slot) in &mut self.slots {
            slot.request = None;
            slot.is_running = false;
            if slot.end.is_some() {
                continue;
            }
            if slot.is_cancelled {
                slot.end = Some(WatchEnd::Cancelled);
                cancelled.push(*watch);
            } else {
                open.push(*watch);
            }
        }
        open.sort_unstable();
        self.unsent = open.into();
        cancelled.into_iter().for_each(|watch| self.tell(watch));
    }

    /// Sends watches as far as the server's credits go.
    pub(super) fn pump(&mut self) {
        while self.is_connected
            && self.opening < self.requests_max
            && let Some(&watch) = self.unsent.front()
        {
            let Some(slot) = self.slots.get_mut(&watch).filter(|slot| slot.end.is_none()) else {
                self.unsent.pop_front();
                continue;
            };
            let before = self.output.len();
            let request = RequestId::new(self.next_request + 1);
            let result =
                encode(&self.encoder, &mut self.output, request, (&slot.options, slot.next));
            if let Err(EncodeError::TooLarge { .. } | EncodeError::TooDeep { .. }) = result {
                // It fitted the server before this one.
                slot.end = Some(WatchEnd::Refused(Refused::new(Status::TooLarge).into()));
                self.unsent.pop_front();
                self.tell(watch);
                continue;
            }
            let size = self.output.len() - before;
            let fits =
                self.opening == 0 || size <= self.bytes_max.saturating_sub(self.opening_size);
            if !fits {
                self.output.truncate(before);
                return;
            }
            self.next_request += 1;
            slot.request = Some(request);
            self.opening += 1;
            self.opening_size += size;
            self.routes.insert(request.get(), Route::Watch { watch, opening: Some(size) });
            self.unsent.pop_front();
        }
    }

    /// Sends what an overloaded server has refused and is to be asked for again now.
    pub(super) fn retry(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.paused.retain(|(at, watch)| {
            let stays = now < *at;
            if !stays {
                due.push(*watch);
            }
            stays
        });
        self.unsent.extend(due);
        self.pump();
    }

    /// Asks whether the server is alive and knows a leader.
    pub(super) fn probe(&mut self) {
        let request = self.request();
        self.routes.insert(request.get(), Route::Probe);
        self.bare(request, &Call::Status);
    }

    /// What the server sent.
    pub(super) fn receive(
        &mut self,
        header: &Header,
        body: &[u8],
        now: Instant,
    ) -> Result<(), Broken> {
        let reply = Reply::verify(header, body).map_err(Broken::Protocol)?;
        let id = header.request.get();
        let unexpected = Broken::Protocol(DecodeError::UnexpectedKind { kind: header.kind });
        let Some(route) = self.routes.get_mut(&id) else {
            return Err(match reply {
                Reply::Refused(refused) if id == 0 => Broken::Refused(refused.into()),
                _ => unexpected,
            });
        };
        let (watch, opening) = match route {
            Route::Watch { watch, opening } => (Some(*watch), opening.take()),
            Route::Gone { opening } => (None, opening.take()),
            Route::Probe => {
                self.routes.remove(&id);
                if let Reply::Status(status) = reply {
                    self.leaderless_count =
                        if status.leader.get() == 0 { self.leaderless_count + 1 } else { 0 };
                }
                return Ok(());
            }
        };
        // The first reply gives the credit back.
        if let Some(size) = opening {
            self.opening -= 1;
            self.opening_size -= size;
        }
        match reply {
            Reply::Watch(reply) => {
                if let Some(watch) = watch {
                    self.told(watch, &reply);
                }
                Ok(())
            }
            Reply::Refused(refused) => {
                self.routes.remove(&id);
                watch.map_or(Ok(()), |watch| self.refused(watch, refused.into(), now))
            }
            _ => Err(unexpected),
        }
    }

    fn told(&mut self, watch: u64, reply: &WatchReply<'_>) {
        let Some(slot) = self.slots.get_mut(&watch) else { return };
        match reply.step {
            WatchStep::Created => {
                slot.is_running = true;
                slot.created.get_or_insert(reply.revision);
                if slot.next == WatchPosition::NEXT {
                    slot.next = WatchPosition::behind(reply.revision);
                    slot.taken = slot.next;
                }
                if slot.progress_wanted
                    && let Some(request) = slot.request
                {
                    self.bare(request, &Call::WatchProgress);
                }
            }
            WatchStep::Changes => slot.changes(reply, &mut self.queued_size),
            WatchStep::Progress => {
                // Of what lies behind, a member that lags would tell something old.
                if WatchPosition::behind(reply.revision) < slot.next {
                    return;
                }
                slot.gathered(reply.revision, &mut self.queued_size);
                slot.next = WatchPosition::behind(reply.revision);
                slot.progress_wanted = false;
                let event = WatchEvent::Progress { revision: reply.revision };
                // Who takes nothing is told the newest only.
                if let Some(last) = slot.queue.back_mut()
                    && matches!(last.event, WatchEvent::Progress { .. })
                {
                    (last.event, last.behind) = (event, slot.next);
                } else {
                    slot.push(event, slot.next, &mut self.queued_size);
                }
            }
        }
        self.tell(watch);
    }

    fn refused(&mut self, watch: u64, refusal: Refusal, now: Instant) -> Result<(), Broken> {
        let Some(slot) = self.slots.get_mut(&watch) else { return Ok(()) };
        slot.request = None;
        slot.is_running = false;
        if slot.is_cancelled || refusal.status == Status::Cancelled {
            slot.end = Some(WatchEnd::Cancelled);
        } else if refusal.status == Status::SlowReader {
            self.unsent.push_back(watch);
            return Ok(());
        } else if refusal.status == Status::Overloaded {
            let advised = Duration::from_millis(u64::from(refusal.retry_after_ms));
            self.paused.push((now + advised.max(PAUSE), watch));
            return Ok(());
        } else if refusal.is_retryable() {
            return Err(Broken::Refused(refusal));
        } else if refusal.status == Status::Compacted {
            slot.end = Some(WatchEnd::Compacted { revision: refusal.compacted_revision });
        } else {
            slot.end = Some(WatchEnd::Refused(refusal));
        }
        self.tell(watch);
        Ok(())
    }

    /// Wakes up whoever waits for the watch.
    fn tell(&mut self, watch: u64) {
        let Some(slot) = self.slots.get_mut(&watch) else { return };
        slot.waiting.notify_all();
        if !slot.is_listed && slot.has_something() {
            slot.is_listed = true;
            self.ready.push_back(watch);
        }
    }

    // ------------------------------------------------------------------ the users

    /// A new watch.
    ///
    /// Errors: [`Error::CreditsUsed`] with as many as a connection may have, [`Error::Encode`].
    pub(super) fn open(
        &mut self,
        options: WatchOptions,
        waiting: Arc<Condvar>,
    ) -> Result<u64, Error> {
        if self.slots.len() >= CONNECTION_WATCHES_MAX {
            return Err(Error::CreditsUsed);
        }
        let before = self.output.len();
        let fits =
            encode(&self.encoder, &mut self.output, RequestId::new(0), (&options, options.start));
        self.output.truncate(before);
        fits.map_err(Error::Encode)?;
        let watch = self.next_watch;
        self.next_watch += 1;
        let start = options.start;
        let slot = Slot {
            options,
            request: None,
            next: start,
            taken: start,
            partial: Vec::new(),
            is_cut: false,
            queue: VecDeque::new(),
            end: None,
            created: None,
            is_running: false,
            is_cancelled: false,
            progress_wanted: false,
            is_listed: false,
            waiting,
        };
        self.slots.insert(watch, slot);
        self.unsent.push_back(watch);
        self.pump();
        Ok(watch)
    }

    fn slot(&self, watch: u64) -> &Slot {
        self.slots.get(&watch).expect("a watch has its place until its watcher goes")
    }

    fn slot_mut(&mut self, watch: u64) -> &mut Slot {
        self.slots.get_mut(&watch).expect("a watch has its place until its watcher goes")
    }

    /// The revision behind which it began, once it has; or its end.
    pub(super) fn created(&self, watch: u64) -> Option<Result<i64, WatchEnd>> {
        let slot = self.slot(watch);
        match (&slot.created, &slot.end) {
            (Some(revision), _) => Some(Ok(*revision)),
            (None, Some(end)) => Some(Err(end.clone())),
            (None, None) => None,
        }
    }

    /// Where another watch would begin to tell what has not been taken from this one.
    pub(super) fn position(&self, watch: u64) -> WatchPosition {
        self.slot(watch).taken
    }

    /// What the watch tells next, if there is something.
    pub(super) fn take(&mut self, watch: u64) -> Option<Result<WatchEvent, WatchEnd>> {
        let slot = self.slot_mut(watch);
        let Some(Queued { event, size, behind }) = slot.queue.pop_front() else {
            return slot.end.clone().map(Err);
        };
        slot.taken = behind;
        self.queued_size -= size;
        Some(Ok(event))
    }

    /// One of the watches that have something to tell.
    pub(super) fn ready(&mut self) -> Option<u64> {
        while let Some(watch) = self.ready.pop_front() {
            let Some(slot) = self.slots.get_mut(&watch) else { continue };
            if slot.queue.is_empty() {
                slot.is_listed = false;
                if slot.end.is_none() {
                    continue;
                }
            } else {
                // Behind the others, for it may have more.
                self.ready.push_back(watch);
            }
            return Some(watch);
        }
        None
    }

    /// Asks how far the watch has come.
    pub(super) fn ask_progress(&mut self, watch: u64) {
        let slot = self.slot_mut(watch);
        slot.progress_wanted = true;
        if slot.is_running
            && let Some(request) = slot.request
        {
            self.bare(request, &Call::WatchProgress);
        }
    }

    /// Asks for the end of the watch.
    pub(super) fn cancel(&mut self, watch: u64) {
        let slot = self.slot_mut(watch);
        if slot.end.is_some() || slot.is_cancelled {
            return;
        }
        slot.is_cancelled = true;
        match slot.request {
            Some(request) => self.bare(request, &Call::Cancel),
            None => {
                slot.end = Some(WatchEnd::Cancelled);
                self.tell(watch);
            }
        }
    }

    /// Nobody has a use for the watch any more.
    pub(super) fn forget(&mut self, watch: u64) {
        self.cancel(watch);
        let slot = self.slots.remove(&watch).expect("a watcher goes once");
        self.queued_size -= slot.queue.iter().map(|queued| queued.size).sum::<usize>();
        let route = slot.request.and_then(|request| self.routes.get_mut(&request.get()));
        if let Some(route) = route
            && let Route::Watch { opening, .. } = route
        {
            *route = Route::Gone { opening: opening.take() };
        }
    }
}

impl Slot {
    fn has_something(&self) -> bool {
        !self.queue.is_empty() || self.end.is_some()
    }

    fn push(&mut self, event: WatchEvent, behind: WatchPosition, queued_size: &mut usize) {
        let size = size_of::<Queued>()
            + match &event {
                WatchEvent::Changes { changes, .. } => changes.iter().map(OwnedChange::size).sum(),
                WatchEvent::Progress { .. } => 0,
            };
        *queued_size += size;
        self.queue.push_back(Queued { event, size, behind });
    }

    /// Takes in a reply with changes.
    fn changes(&mut self, reply: &WatchReply<'_>, queued_size: &mut usize) {
        let known = self.partial.len();
        for change in reply.changes {
            let change = OwnedChange::from(change);
            let position = change.position();
            // Told before, if a server tells it again.
            if position >= self.next {
                self.next = WatchPosition {
                    revision: position.revision,
                    sub: position.sub.saturating_add(1),
                };
                self.partial.push(change);
            }
        }
        if !reply.fragment {
            self.next = self.next.max(WatchPosition::behind(reply.revision));
            self.gathered(reply.revision, queued_size);
        } else if self.options.fragments {
            let changes = std::mem::take(&mut self.partial);
            if let Some(last) = changes.last() {
                let revision = last.revision();
                let event = WatchEvent::Changes { changes, revision, fragment: true };
                self.is_cut = true;
                self.push(event, self.next, queued_size);
            }
        } else if self.partial.len() > known
            && let Some(last) = self.partial.last().map(OwnedChange::revision)
        {
            // What lies before the last revision is whole.
            let whole = self.partial.partition_point(|change| change.revision() < last);
            if whole > 0 {
                let rest = self.partial.split_off(whole);
                let changes = std::mem::replace(&mut self.partial, rest);
                let event = WatchEvent::Changes { changes, revision: last - 1, fragment: false };
                self.push(event, WatchPosition::at(last), queued_size);
            }
        }
    }

    /// Everything up to `revision` has come: hands out what was gathered.
    fn gathered(&mut self, revision: i64, queued_size: &mut usize) {
        // After a cut the rest may be nothing.
        if !self.partial.is_empty() || std::mem::take(&mut self.is_cut) {
            self.is_cut = false;
            let changes = std::mem::take(&mut self.partial);
            let revision = changes.last().map_or(revision, |last| revision.max(last.revision()));
            let event = WatchEvent::Changes { changes, revision, fragment: false };
            self.push(event, WatchPosition::behind(revision), queued_size);
        }
    }
}
