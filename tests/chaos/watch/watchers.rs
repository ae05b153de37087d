//! Those who watch: by the client library, many on one connection or each on its own, some of them slowly;
//! and by connections that end with their member. Some stay, some begin anew all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base::Prng;
use client::{
    Call, Cause, Client, Error, Reply, RequestId, Status, WatchEnd, WatchEvent, WatchHub, Watcher,
};
use wire::{WatchReply, WatchStep};

use super::ledger::{Change, Point};
use super::lives::MS;
use super::shapes::{Shape, draw_start};
use super::stage::{Stage, add, lock};
use super::stream::Step;

/// How long a server may say nothing to a connection of one's own.
const SILENCE: Duration = Duration::from_secs(3);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Changes that wait to be judged before nobody takes any more.
const QUEUED_MAX: u64 = 4_000_000;

/// Between two questions how far a watch has come, at the end.
const ASK_EVERY: u64 = 500 * MS;

/// Bytes of events that wait for somebody slow.
const SLOW_BUFFER: usize = 64 << 10;

/// A watch of the library.
struct One {
    /// Its number among all watchers.
    number: usize,
    watcher: Watcher,
    shape: Shape,
    start: Option<Point>,
    /// It has said where it begins.
    is_created: bool,
    /// Everything up to here has been told.
    whole: i64,
    /// When it begins anew, if it does.
    anew_at: Option<u64>,
    /// When it was asked how far it has come.
    asked_at: u64,
}

fn begin_at(stage: &Stage, number: usize, shape: &Shape, start: Option<Point>) {
    stage.tell(number, Step::Begins { wish: shape.wish.clone(), start });
}

/// When one begins anew that does so all the time.
fn anew(stage: &Stage, prng: &mut Prng) -> u64 {
    stage.now() + (300 + prng.below(6_000)) * MS
}

/// Change changes, or why they cannot be.
fn taken(stage: &Stage, number: usize, told: Result<Vec<Change>, String>) -> Vec<Change> {
    told.unwrap_or_else(|text| {
        stage.violation(format!("watcher {number}: {text}"));
        Vec::new()
    })
}

/// Too much waits to be judged.
fn hold_back(stage: &Stage) {
    while stage.queued.load(std::sync::atomic::Ordering::Relaxed) > QUEUED_MAX && !stage.is_closed()
    {
        thread::sleep(LOOK);
    }
}

/// The watches of one connection of the library.
pub struct Group {
    stage: Arc<Stage>,
    hub: WatchHub,
    ones: HashMap<u64, One>,
    prng: Prng,
    /// Longest pause behind an event; zero: none.
    slowness: Duration,
    was_lost: bool,
}

/// Watches with these numbers until each has been told of the last revision. Every second one stays, and who
/// is slow. Gives the numbers of those that have not been told of everything when all end.
pub fn watch_by_library(
    stage: &Arc<Stage>,
    numbers: &[usize],
    slowness: Duration,
    mut prng: Prng,
) -> Vec<usize> {
    let first = numbers.first().copied().unwrap_or(0);
    let hub = loop {
        let options = stage.options("watch", Duration::from_secs(1));
        match WatchHub::connect(stage.endpoints_from(first), options) {
            Ok(hub) => break hub,
            Err(_) if stage.is_closed() => return numbers.to_vec(),
            Err(_) => thread::sleep(LOOK),
        }
    };
    if !slowness.is_zero() {
        hub.set_buffer_size(SLOW_BUFFER);
    }
    let stage = Arc::clone(stage);
    let mut group = Group {
        stage,
        hub,
        ones: HashMap::new(),
        prng: prng.fork("group"),
        slowness,
        was_lost: false,
    };
    for number in numbers {
        // Who is slow is told more than sockets hold.
        let is_slow = !slowness.is_zero();
        let shape = if is_slow {
            Shape::everything(&group.stage)
        } else {
            Shape::draw(&group.stage, &mut prng, false)
        };
        let start = draw_start(&group.stage, &mut prng);
        let anew_at = (!is_slow && number % 2 == 0).then(|| anew(&group.stage, &mut prng));
        group.begin(*number, shape, start, anew_at);
    }
    group.run()
}

impl Group {
    fn begin(&mut self, number: usize, shape: Shape, start: Option<Point>, anew_at: Option<u64>) {
        begin_at(&self.stage, number, &shape, start);
        self.open(number, shape, start, anew_at);
    }

    fn open(&mut self, number: usize, shape: Shape, start: Option<Point>, anew_at: Option<u64>) {
        match self.hub.open(shape.options(start)) {
            Ok(watcher) => {
                let whole = start.map_or(0, |(revision, _)| revision - 1);
                let watch = watcher.id().get();
                let one = One {
                    number,
                    watcher,
                    shape,
                    start,
                    is_created: false,
                    whole,
                    anew_at,
                    asked_at: 0,
                };
                self.ones.insert(watch, one);
            }
            Err(error) => self.stage.violation(format!("watcher {number} is not opened: {error}")),
        }
    }

    fn run(mut self) -> Vec<usize> {
        loop {
            hold_back(&self.stage);
            if let Some(watch) = self.hub.ready_within(LOOK) {
                self.take(watch.get());
            }
            let is_lost = self.hub.trouble().is_some();
            if is_lost && !self.was_lost {
                add(&self.stage.counts.lost, 1);
            }
            self.was_lost = is_lost;
            let now = self.stage.now();
            if let Some(last) = self.stage.last() {
                self.ones.retain(|_, one| !one.has_ended(last));
                if self.ones.is_empty() || self.stage.is_closed() {
                    return self.ones.into_values().map(|one| one.number).collect();
                }
                for one in self.ones.values_mut() {
                    if one.asked_at + ASK_EVERY <= now {
                        one.asked_at = now;
                        one.watcher.ask_progress();
                    }
                }
            } else if self.stage.is_closed() {
                return self.ones.into_values().map(|one| one.number).collect();
            } else if !self.stage.is_over() {
                let is_due = |one: &One| one.anew_at.is_some_and(|at| at <= now);
                let due = self.ones.iter().filter(|(_, one)| is_due(one)).map(|(watch, _)| *watch);
                for watch in due.collect::<Vec<u64>>() {
                    self.begin_anew(watch);
                }
            }
        }
    }

    /// Takes what a watch has to tell.
    fn take(&mut self, watch: u64) {
        // Others have something to tell as well.
        for _ in 0..16 {
            let Some(one) = self.ones.get_mut(&watch) else { return };
            match one.watcher.next_within(Duration::ZERO) {
                Ok(None) => return,
                Ok(Some(event)) => one.tell(&self.stage, event),
                Err(end) => {
                    self.ended(watch, &end);
                    return;
                }
            }
            if !self.slowness.is_zero() && !self.stage.is_over() {
                let most = u64::try_from(self.slowness.as_millis()).expect("below a second");
                thread::sleep(Duration::from_millis(self.prng.below(most)));
            }
        }
    }

    fn ended(&mut self, watch: u64, end: &WatchEnd) {
        let Some(one) = self.ones.remove(&watch) else { return };
        match end {
            WatchEnd::Compacted { revision } => {
                add(&self.stage.counts.compacted, 1);
                self.stage.tell(one.number, Step::Compacted { revision: *revision });
                // What was made at that revision is there, too.
                let start = Some((revision + i64::from(self.prng.one_in(2)), 0));
                self.begin(one.number, one.shape, start, one.anew_at);
            }
            WatchEnd::Cancelled | WatchEnd::Refused(_) => {
                self.stage.violation(format!("watcher {}: {end}", one.number));
            }
        }
    }

    /// Gives a watch up and begins another one, or goes on with it where it was.
    fn begin_anew(&mut self, watch: u64) {
        let Some(one) = self.ones.remove(&watch) else { return };
        add(&self.stage.counts.restarts, 1);
        let anew_at = Some(anew(&self.stage, &mut self.prng));
        let position = one.watcher.position();
        if self.prng.one_in(3) && position.revision > 0 {
            let at = (position.revision, position.sub);
            let One { number, shape, watcher, .. } = one;
            drop(watcher);
            self.stage.tell(number, Step::GoesOn { at });
            self.open(number, shape, Some(at), anew_at);
            return;
        }
        if self.prng.one_in(2) {
            one.watcher.cancel();
        }
        let number = one.number;
        drop(one);
        let shape = Shape::draw(&self.stage, &mut self.prng, false);
        let start = draw_start(&self.stage, &mut self.prng);
        self.begin(number, shape, start, anew_at);
    }
}

impl One {
    /// It has been told of everything up to `last`, or wants only what comes later.
    fn has_ended(&self, last: i64) -> bool {
        self.whole >= last || self.start.is_some_and(|(revision, _)| revision > last)
    }

    fn tell(&mut self, stage: &Stage, event: WatchEvent) {
        if !self.is_created {
            self.is_created = true;
            if let Some(Ok(revision)) = self.watcher.created_within(Duration::ZERO) {
                stage.tell(self.number, Step::Created { revision, given_up: 0 });
            }
        }
        let step = match event {
            WatchEvent::Changes { changes, revision, fragment } => {
                let told = changes.iter().map(|change| Change::new(&stage.keys, change)).collect();
                let changes = taken(stage, self.number, told);
                let whole = if fragment { revision - 1 } else { revision };
                add(&stage.counts.pieces, u64::from(fragment));
                self.whole = self.whole.max(whole);
                Step::Changes { changes, whole, fragment }
            }
            WatchEvent::Progress { revision } => {
                add(&stage.counts.progress, 1);
                self.whole = self.whole.max(revision);
                Step::Progress { revision }
            }
        };
        stage.tell(self.number, step);
    }
}

/// A watch over connections of its own.
struct Raw {
    stage: Arc<Stage>,
    number: usize,
    member: usize,
    shape: Shape,
    /// What comes next; none: what there is when it begins.
    next: Option<Point>,
    /// The last change that it was told since it began, with nothing told behind it.
    last: Option<Point>,
    whole: i64,
    /// What its member had given up before it was asked for the watch.
    given_up: i64,
    /// It says when leases end.
    is_observer: bool,
    anew_at: Option<u64>,
    prng: Prng,
}

/// Watches over one connection after the other, to one member, until told of the last revision. An
/// observer is told of everything, and says when leases end. Gives whether it was told of everything.
pub fn watch_by_hand(
    stage: &Arc<Stage>,
    (number, member): (usize, usize),
    is_observer: bool,
    mut prng: Prng,
) -> bool {
    let shape =
        if is_observer { Shape::everything(stage) } else { Shape::draw(stage, &mut prng, true) };
    let next = if is_observer { None } else { draw_start(stage, &mut prng) };
    let anew_at = (!is_observer && number.is_multiple_of(2)).then(|| anew(stage, &mut prng));
    let stage = Arc::clone(stage);
    begin_at(&stage, number, &shape, next);
    let whole = next.map_or(0, |(revision, _)| revision - 1);
    let given_up = 0;
    let mut raw = Raw {
        stage,
        number,
        member,
        shape,
        next,
        last: None,
        whole,
        given_up,
        is_observer,
        anew_at,
        prng,
    };
    let mut is_first = true;
    while !raw.stage.is_closed() && !raw.has_ended() {
        if !is_first {
            raw.go_on();
        }
        is_first = !raw.connect_and_watch();
        thread::sleep(LOOK);
    }
    raw.has_ended()
}

/// What a reply means for the watch.
enum Next {
    /// It goes on.
    More,
    /// It begins on the same connection, with something else.
    Anew,
    /// The connection is of no more use.
    Leave,
}

impl Raw {
    fn has_ended(&self) -> bool {
        let Some(last) = self.stage.last() else { return false };
        self.whole >= last || self.next.is_some_and(|(revision, _)| revision > last + 1)
    }

    /// It goes on at another connection, if it had begun.
    fn go_on(&mut self) {
        if let (Some(last), Some(next)) = (self.last, self.next)
            && last.0 + 1 >= next.0
            && self.prng.one_in(2)
        {
            // As good as behind its revision.
            self.next = Some((last.0, last.1 + 1));
        }
        add(&self.stage.counts.resumes, 1);
        if let Some(at) = self.next {
            self.stage.tell(self.number, Step::GoesOn { at });
        }
    }

    /// False: nothing was asked.
    fn connect_and_watch(&mut self) -> bool {
        let options = self.stage.options("raw", SILENCE);
        let address = self.stage.endpoints[self.member].clone();
        let Ok(mut client) = Client::connect([address], options) else { return false };
        loop {
            let Ok(status) = client.status() else { return false };
            self.given_up = status.compacted_revision;
            let sent = self.shape.request(self.next, |watch| client.submit(&Call::Watch(watch)));
            let Ok(request) = sent else { return false };
            client.flush();
            match self.listen(&mut client, request) {
                Next::Anew => {}
                Next::Leave | Next::More => return true,
            }
        }
    }

    fn listen(&mut self, client: &mut Client, request: RequestId) -> Next {
        let mut is_cancelled = false;
        while let Some(completion) = client.receive() {
            let now = self.stage.now();
            hold_back(&self.stage);
            if completion.request != request {
                continue;
            }
            let next = match &completion.result {
                Ok(answer) => match answer.reply() {
                    Ok(Reply::Watch(reply)) => {
                        self.tell(&reply, now);
                        Next::More
                    }
                    Ok(_) | Err(_) => {
                        self.stage.violation(format!("watcher {}: {answer:?}", self.number));
                        Next::Leave
                    }
                },
                Err(error) => self.ended(error, is_cancelled),
            };
            if !matches!(next, Next::More) {
                return next;
            }
            if self.stage.is_closed() || self.has_ended() {
                return Next::Leave;
            }
            let is_due = self.anew_at.is_some_and(|at| at <= now) && !self.stage.is_over();
            if is_due && !is_cancelled {
                is_cancelled = true;
                client.cancel(request);
                client.flush();
            }
        }
        Next::Leave
    }

    /// A watch has ended: what now.
    fn ended(&mut self, error: &Error, is_cancelled: bool) -> Next {
        let Error::Refused(why) = error else { return Next::Leave };
        match why.status {
            Status::Compacted => {
                let revision = why.compacted_revision;
                add(&self.stage.counts.compacted, 1);
                self.stage.tell(self.number, Step::Compacted { revision });
                let behind = i64::from(self.prng.one_in(2));
                self.begin(Some((revision + behind, 0)));
                Next::Anew
            }
            Status::Cancelled if is_cancelled => {
                add(&self.stage.counts.restarts, 1);
                self.shape = Shape::draw(&self.stage, &mut self.prng, true);
                self.anew_at = Some(anew(&self.stage, &mut self.prng));
                let start = draw_start(&self.stage, &mut self.prng);
                self.begin(start);
                Next::Anew
            }
            Status::SlowReader | Status::ShuttingDown => Next::Leave,
            status if status.is_retryable() => Next::Leave,
            _ => {
                self.stage.violation(format!("watcher {}: {error}", self.number));
                Next::Leave
            }
        }
    }

    fn begin(&mut self, start: Option<Point>) {
        begin_at(&self.stage, self.number, &self.shape, start);
        (self.next, self.last) = (start, None);
        self.whole = start.map_or(0, |(revision, _)| revision - 1);
    }

    fn tell(&mut self, reply: &WatchReply<'_>, now: u64) {
        let stage = Arc::clone(&self.stage);
        let revision = reply.revision;
        let step = match reply.step {
            WatchStep::Created => {
                self.next = self.next.or(Some((revision + 1, 0)));
                Step::Created { revision, given_up: self.given_up }
            }
            WatchStep::Changes => {
                if self.is_observer {
                    let mut seen = lock(&stage.ends_seen);
                    for change in reply.changes.filter(|change| change.cause == Cause::Expired) {
                        let first = seen.entry(change.kv.mod_revision).or_insert(now);
                        *first = now.min(*first);
                    }
                }
                let told = reply.changes.map(|change| Change::of(&stage.keys, &change)).collect();
                let changes = taken(&stage, self.number, told);
                self.last = changes.last().map(|told| told.at).or(self.last);
                let fragment = reply.fragment;
                add(&stage.counts.pieces, u64::from(fragment));
                let behind = self.last.map_or((0, 0), |(revision, sub)| (revision, sub + 1));
                let next = behind.max((revision + 1, 0));
                self.next = self.next.max(Some(next));
                self.whole = self.whole.max(revision);
                Step::Changes { changes, whole: revision, fragment }
            }
            WatchStep::Progress => {
                add(&stage.counts.progress, 1);
                self.next = self.next.max(Some((revision + 1, 0)));
                self.whole = self.whole.max(revision);
                Step::Progress { revision }
            }
        };
        stage.tell(self.number, step);
    }
}
