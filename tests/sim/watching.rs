//! Watches of clients: which are opened, asked, cancelled, and taken up again at another member when a
//! connection has gone. What they are told is judged in [`crate::watched`].

use base::{Prng, RequestId};
use wire::{Call, Flags, Status, Watch, WatchRange, WatchRanges, WatchStep};

use crate::load::{Ask, Generator, Seen};
use crate::model::{Command, Delete, Model, Op, Put, Txn};
use crate::network::CLIENT_HOSTS;
use crate::plan::{MS, SECOND};
use crate::turns::compacted_of;
use crate::watched::{Point, There, Watched, Wish};
use crate::world::World;

/// Keys that are written at once where many are.
const BULK: u64 = 100;

/// What is counted.
pub const WATCH_OPENED: &str = "watch opened";
pub const WATCH_RESUMED: &str = "watch resumed";
pub const WATCH_COMPACTED: &str = "watch compacted";
pub const PROGRESS_TOLD: &str = "progress told";
pub const CHANGES_TOLD: &str = "changes told";
pub const FRAGMENT_TOLD: &str = "fragment told";

fn small(prng: &mut Prng, below: u64) -> i64 {
    i64::try_from(prng.below(below)).expect("small")
}

/// The revision of one of the last deletes, or of the one before or behind it.
fn near_delete(model: &Model, prng: &mut Prng) -> Option<i64> {
    let mut left = prng.below(6);
    let deletes = model.changes.iter().rev().filter(|change| model.written(change).is_none());
    let revision = deletes.map(|change| change.revision).find(|_| {
        left = left.saturating_sub(1);
        left == 0
    })?;
    Some(revision - 1 + small(prng, 3))
}

/// Where a watch begins.
fn start(model: &Model, prng: &mut Prng) -> Option<Point> {
    let newest = model.revision.max(1);
    let revision = match prng.below(8) {
        0 | 1 => return None,
        2 => 1 + small(prng, newest.unsigned_abs()),
        3 | 4 if model.compacted > 0 => model.compacted - 1 + small(prng, 3),
        5 => newest + 1 + small(prng, 8),
        6 => near_delete(model, prng).unwrap_or(1),
        _ => 1.max(newest - small(prng, 12)),
    };
    let sub = if prng.one_in(6) { prng.below(4) } else { 0 };
    (revision > 0).then_some((revision, u32::try_from(sub).expect("small")))
}

fn wish(generator: &Generator, prng: &mut Prng) -> Wish {
    let count = if prng.one_in(4) { 2 + prng.below(4) } else { 1 };
    let is_sane = !prng.one_in(60);
    let range = |prng: &mut Prng| {
        let (key, end) = match prng.below(8) {
            0 | 1 => (vec![0], vec![0]),
            2 => (b"k".to_vec(), b"l".to_vec()),
            3 => (b"k01".to_vec(), b"k02".to_vec()),
            _ => generator.interval(prng),
        };
        if is_sane && end.len() > 1 && end < key { (end, key) } else { (key, end) }
    };
    let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = (0..count).map(|_| range(prng)).collect();
    if is_sane {
        ranges.iter_mut().filter(|(key, end)| key == end && end.len() > 1).for_each(|range| {
            range.1.clear();
        });
    } else if prng.one_in(2) {
        ranges.clear();
    }
    Wish {
        ranges,
        prev_kv: prng.one_in(2),
        keys_only: prng.one_in(6),
        no_put: prng.one_in(8),
        no_delete: prng.one_in(8),
        interval_ms: if prng.one_in(4) { [50, 150, 400][prng.below(3) as usize] } else { 0 },
    }
}

impl World {
    /// What a client does about its watches when it is its turn.
    pub fn client_watches(&mut self, client: usize) {
        let mut prng = std::mem::replace(&mut self.watches, Prng::new(0));
        if self.asks_on {
            self.watches_on(client, &mut prng);
        } else {
            self.watches_to_the_end(client, &mut prng);
        }
        self.watches = prng;
    }

    fn watches_on(&mut self, client: usize, prng: &mut Prng) {
        let only = client as u64 >= self.plan.clients;
        let most = if only { self.plan.watchers.each } else { self.plan.watchers.beside };
        if most == 0 {
            return;
        }
        match prng.below(if self.plan.watchers.fickle { 4 } else { 40 }) {
            0 => return self.client_leaves(client),
            // Its socket takes no more after a while.
            1 if self.faults_on => {
                let until = self.now + prng.below(2 * SECOND) + MS;
                let node = self.clients[client].node;
                self.wall_until(vec![(node, CLIENT_HOSTS + client)], until);
            }
            // What is no watch is not answered.
            2 => {
                if let Some(&request) = self.clients[client].ended.last() {
                    self.calls(client, request, &Call::WatchProgress);
                }
            }
            _ => {}
        }
        for place in 0..self.clients[client].watches.len() {
            if self.clients[client].watches[place].request.is_none() && !prng.one_in(4) {
                self.watch_asks(client, place, prng);
            }
        }
        let room = most.saturating_sub(self.clients[client].watches.len() as u64);
        for _ in 0..if room > 0 { 1 + prng.below(room) } else { 0 } {
            let stays = self.clients[client].watches.is_empty() && only;
            let generator = self.generator();
            let wish = wish(&generator, prng);
            let start = start(&self.ghost.model, prng);
            let known = &mut self.clients[client];
            known.watches.push(Watched::new(wish, start, stays));
            let place = known.watches.len() - 1;
            self.count(WATCH_OPENED);
            self.watch_asks(client, place, prng);
        }
        let open = self.clients[client].watches.len() as u64;
        let place = usize::try_from(prng.below(open.max(1))).expect("few watches");
        let Some(watched) = self.clients[client].watches.get_mut(place) else { return };
        let Some(request) = watched.request else { return };
        if prng.one_in(10) && !watched.cancelled && !watched.stays {
            watched.cancelled = true;
            self.calls(client, request, &Call::Cancel);
        } else if prng.one_in(3) && !watched.cancelled {
            watched.asks_progress();
            self.calls(client, request, &Call::WatchProgress);
        }
    }

    /// All is well, and nobody asks for anything new: every watch must be told all there is.
    fn watches_to_the_end(&mut self, client: usize, prng: &mut Prng) {
        let id = self.nodes[self.clients[client].node].id;
        let is_member = self.ghost.members.members.iter().any(|member| member.id.get() == id);
        if !is_member && !self.clients[client].watches.is_empty() {
            return self.client_leaves(client);
        }
        for place in 0..self.clients[client].watches.len() {
            let has_all = self.clients[client].watches[place].has_all(&self.ghost.model);
            let watched = &mut self.clients[client].watches[place];
            let Some(request) = watched.request else {
                self.watch_asks(client, place, prng);
                continue;
            };
            // Others tell it by themselves.
            let silent = watched.wish.interval_ms == 0 && !watched.owed && !watched.cancelled;
            if silent && watched.is_created() && !has_all {
                watched.asks_progress();
                self.calls(client, request, &Call::WatchProgress);
            }
        }
    }

    /// Whether every watch has been told all there is.
    pub fn watches_are_settled(&self) -> bool {
        let mut watches = self.clients.iter().flat_map(|client| &client.watches);
        watches.all(|watched| self.is_settled_watch(watched))
    }

    /// Whether a watch has been told all there is.
    pub fn is_settled_watch(&self, watched: &Watched) -> bool {
        watched.request.is_some() && !watched.cancelled && watched.has_all(&self.ghost.model)
    }

    fn calls(&mut self, client: usize, request: u64, call: &Call<'_>) {
        let mut frame = Vec::new();
        let encoder = &self.clients[client].encoder;
        encoder
            .encode(&mut frame, RequestId::new(request), 0, call)
            .expect("watches of the simulator are small");
        self.client_sends(client, frame);
    }

    /// Asks a member for a watch, or for the rest of one.
    fn watch_asks(&mut self, client: usize, place: usize, prng: &mut Prng) {
        let node = self.clients[client].node;
        let process = self.nodes[node].process.as_ref();
        let compacted_before = process.map_or(0, |process| compacted_of(process));
        let known = &mut self.clients[client];
        let there = There { compacted_before, seen: known.seen, asked: true };
        // The number of one that has ended may be used again.
        let request = match known.ended.pop() {
            Some(request) if prng.one_in(3) => request,
            ended => {
                known.ended.extend(ended);
                known.next += 1;
                known.next - 1
            }
        };
        let model = &self.ghost.model;
        let start = known.watches[place].asks(model, request, there, prng);
        let wish = known.watches[place].wish.clone();
        if known.watches[place].is_resumed {
            self.count(WATCH_RESUMED);
        }
        self.trace.tell(self.now, || {
            format!(
                "client {client} watches at member {}: {request} from {start:?} {wish:?}",
                node + 1
            )
        });
        let range = |(key, end): &'_ (Vec<u8>, Vec<u8>)| (key.clone(), end.clone());
        let ranges: Vec<_> = wish.ranges.iter().map(range).collect();
        let ranges: Vec<WatchRange<'_>> =
            ranges.iter().map(|(key, range_end)| WatchRange { key, range_end }).collect();
        let (start_revision, start_sub) = start.unwrap_or_default();
        let call = Call::Watch(Watch {
            ranges: WatchRanges::Given(&ranges),
            start_revision,
            start_sub,
            prev_kv: wish.prev_kv,
            keys_only: wish.keys_only,
            no_put: wish.no_put,
            no_delete: wish.no_delete,
            progress_interval_ms: wish.interval_ms,
        });
        self.calls(client, request, &call);
    }

    /// A reply, if it is one of a watch; says whether it was.
    pub fn watch_is_told(
        &mut self,
        client: usize,
        request: u64,
        flags: Flags,
        got: &Seen,
        given_up: i64,
    ) -> bool {
        let watches = &mut self.clients[client].watches;
        let Some(place) = watches.iter().position(|watched| watched.request == Some(request))
        else {
            return false;
        };
        let node = self.clients[client].node;
        let compacted = self.nodes[node].compacted;
        self.trace.tell(self.now, || {
            let mut text = format!("client {client} is told by watch {request}: {got:?}");
            text.truncate(600);
            text
        });
        let watched = &mut self.clients[client].watches[place];
        let more = flags.has_more();
        self.ghost.judged += 1;
        let verdict = match got {
            Seen::Watch(step) if more => {
                let told = watched.hears(&self.ghost.model, step, compacted);
                let number = request << 8 | u64::from(step.fragment) << 4 | step.step as u64;
                self.trace.mix(number);
                self.trace.mix(step.revision.unsigned_abs() << 20 | step.changes.len() as u64);
                told.map(|told| {
                    *self.counts.entry(CHANGES_TOLD).or_default() += told;
                    match step.step {
                        WatchStep::Progress => self.count(PROGRESS_TOLD),
                        WatchStep::Changes if step.fragment => self.count(FRAGMENT_TOLD),
                        _ => {}
                    }
                })
            }
            Seen::Refused(status, _) if !more => {
                self.trace.mix(request << 8 | u64::from(status.number()));
                let verdict = watched.ends(&self.ghost.model, *status, given_up, compacted);
                self.watch_ended(client, place, *status);
                verdict
            }
            _ => Err(format!("I12: watch {request} is answered with {got:?}, more {more}")),
        };
        self.judge(verdict);
        true
    }

    /// A watch has been refused: some go on, some begin anew, some are given up.
    fn watch_ended(&mut self, client: usize, place: usize, status: Status) {
        *self.answers.entry(u64::from(status.number())).or_default() += 1;
        let known = &mut self.clients[client];
        let watched = &mut known.watches[place];
        known.ended.extend(watched.request.take());
        let prng = &mut self.watches;
        let compacted = self.ghost.model.compacted;
        match status {
            Status::Compacted => {
                // From where the answer says on, or one revision before or behind it.
                let near = compacted - 1 + small(prng, 3);
                let anew = match prng.below(4) {
                    _ if !self.asks_on => Some((compacted.max(1), 0)),
                    0 => None,
                    1 => Some((near.max(1), 0)),
                    _ => Some((compacted.max(1), 0)),
                };
                watched.begin_anew(anew);
                self.count(WATCH_COMPACTED);
            }
            Status::Cancelled | Status::InvalidArgument => {
                if status == Status::Cancelled && prng.one_in(2) {
                    watched.cancelled = false;
                } else {
                    known.watches.remove(place);
                }
            }
            Status::ShuttingDown => {
                self.count("watch refused");
                self.client_leaves(client);
            }
            _ => self.count("watch refused"),
        }
    }

    /// What is asked for the sake of watches.
    pub fn next_for_watches(&mut self, generator: &Generator) -> Option<Ask> {
        let prng = &mut self.watches;
        if generator.compacts && prng.one_in(30) {
            let revision = near_delete(&self.ghost.model, prng)?;
            let physical = prng.one_in(3);
            return Some(Ask::Write(Command::Compact { revision, physical }));
        }
        if !self.plan.watchers.bulk || !prng.one_in(8) {
            return None;
        }
        if prng.one_in(4) {
            let delete = Delete { key: b"b".to_vec(), range_end: b"c".to_vec(), prev_kv: false };
            return Some(Ask::Write(Command::Delete(delete)));
        }
        let from = prng.below(8) * BULK;
        let put = |key| {
            let key = format!("b{key:04}").into_bytes();
            Op::Put(Put { key, value: vec![7; 20], ..Put::default() })
        };
        let success = (from..from + BULK).map(put).collect();
        Some(Ask::Write(Command::Txn(Txn { success, ..Txn::default() })))
    }
}
