//! The loop of one executor and what performs the effects of its roles.
//!
//! ```text
//! wait for the inbox ─► turn: Reactor ─► Consensus ─► Store ─► again while they have posts for
//!      ▲                each other ─┐
//!      └────────────────────────────┘ sockets and disk work as tasks and report to the inbox
//! ```
//!
//! Performing never waits: a write or read becomes a task, a message for a role of this executor goes
//! into its list, one for another executor into the list of that link's only sending task.

use std::cell::Cell;
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration as StdDuration, Instant as StdInstant, SystemTime};

use base::{Duration, Instant};
use glommio::net::TcpStream;
use node::{
    CloseReason, Consensus, ConsensusEffect, ConsensusEvent, Reactor, ReactorEffect, ReactorEvent,
    Role, Store, StoreEffect, StoreEvent,
};

use crate::clock::Clock;
use crate::config::Serves;
use crate::counters::{Counter, Counters};
use crate::data_dir::{adopt, note_damage};
use crate::disk::{Block, Countdown, DiskFile, WalDisk, halt};
use crate::http::{Gate, Native, Standing};
use crate::inbox::Inbox;
use crate::incoming::Incoming;
use crate::link::Links;
use crate::listener;
use crate::socket::Sockets;

/// Rounds of a turn: a message passes at most this often between roles before sockets and disk get
/// their turn again. A put needs two, a linearizable read three.
const ROUNDS_MAX: usize = 4;

/// A turn ends after the round in which it has taken so long, though posts are left: a watch that catches up
/// has the store read one piece in every round, and four of them kept the others waiting for 30 ms.
const TURN_TIME: Duration = Duration::from_micros(250);

/// While every turn leaves work over, disk and sockets are looked at this often. glommio does it by
/// itself every 100 ms: a put, which waits for the disk three times, took 300 ms beside a long read.
/// Its interval must not be made much shorter: a core that is slow for so long is put to sleep.
const LOOK_INTERVAL: StdDuration = StdDuration::from_micros(500);

/// A wait that is over when disk and sockets have been looked at, and not before.
const LOOK_TIME: StdDuration = StdDuration::from_micros(5);

/// A reactor and its sockets.
pub struct ReactorSeat {
    /// The role.
    pub role: Reactor,
    /// Its sockets.
    pub sockets: Sockets,
    /// Who serves those that speak HTTP.
    pub gate: Rc<Gate>,
}

/// Consensus and its files.
pub struct ConsensusSeat {
    /// The role.
    pub role: Consensus<Block>,
    /// The WAL's files.
    pub wal: Rc<WalDisk>,
    /// The sockets of other members, where there are or may be any.
    pub sockets: Option<Sockets>,
}

/// The store and its file.
pub struct StoreSeat {
    /// The role.
    pub role: Store<Block>,
    /// The page file.
    pub pages: Rc<DiskFile>,
    /// A second one, for the state of another member that comes in.
    pub incoming: Incoming,
    /// Path of the page file.
    pub path: PathBuf,
}

/// The roles of one executor.
pub struct Seats {
    /// The reactor that runs here, if one does.
    pub reactor: Option<ReactorSeat>,
    /// Consensus, if it runs here.
    pub consensus: Option<ConsensusSeat>,
    /// The store, if it runs here.
    pub store: Option<StoreSeat>,
}

/// One executor's loop.
pub struct CoreLoop {
    seats: Seats,
    inbox: Rc<Inbox>,
    links: Links,
    clock: Clock,
    reactor_events: Vec<ReactorEvent>,
    reactor_effects: Vec<ReactorEffect>,
    consensus_events: Vec<ConsensusEvent>,
    consensus_effects: Vec<ConsensusEffect<Block>>,
    store_events: Vec<StoreEvent>,
    store_effects: Vec<StoreEffect<Block>>,
    accepted: Vec<TcpStream>,
    natives: Vec<Rc<Native>>,
    linked: Vec<(Option<u64>, Option<TcpStream>)>,
    made: Vec<(u64, Rc<DiskFile>)>,
    /// What is counted here.
    counters: Arc<Counters>,
    /// Compactions that were done when they were last shown.
    compactions: Cell<u64>,
}

/// Shows numbers that a role counts.
fn show(shown: &[Counter], counts: &[u64]) {
    for (shown, count) in shown.iter().zip(counts) {
        shown.set(*count);
    }
}

impl CoreLoop {
    /// A loop over these roles.
    pub fn new(
        seats: Seats,
        inbox: Rc<Inbox>,
        links: Links,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            seats,
            inbox,
            links,
            clock,
            reactor_events: Vec::new(),
            reactor_effects: Vec::new(),
            consensus_events: Vec::new(),
            consensus_effects: Vec::new(),
            store_events: Vec::new(),
            store_effects: Vec::new(),
            accepted: Vec::new(),
            natives: Vec::new(),
            linked: Vec::new(),
            made: Vec::new(),
            counters,
            compactions: Cell::new(0),
        }
    }

    /// Runs until `is_over` says so, which is asked between turns.
    pub async fn run(mut self, mut is_over: impl FnMut(&Seats) -> bool) {
        let mut looked = StdInstant::now();
        loop {
            self.wait().await;
            self.turn();
            self.publish();
            if is_over(&self.seats) {
                return;
            }
            match self.deadline() {
                // Work was left over: others first, then on with it.
                Some(at) if at <= self.clock.now() || !self.inbox.is_empty() => {
                    self.inbox.signal();
                    if looked.elapsed() < LOOK_INTERVAL {
                        glommio::yield_if_needed().await;
                        glommio::executor().yield_task_queue_now().await;
                    } else {
                        // With nothing left to run glommio looks, and finds that this is over.
                        glommio::timer::sleep(LOOK_TIME).await;
                        looked = StdInstant::now();
                    }
                }
                Some(_) | None => looked = StdInstant::now(),
            }
        }
    }

    /// Waits for an event, for a socket that is ready, or for the tick.
    async fn wait(&mut self) {
        poll_fn(|context| {
            let clients = self.seats.reactor.as_mut().map(|seat| &mut seat.sockets);
            let members = self.seats.consensus.as_mut().and_then(|seat| seat.sockets.as_mut());
            let mut ready = self.inbox.poll(context).is_ready();
            for sockets in [clients, members].into_iter().flatten() {
                ready |= sockets.poll(context).is_ready();
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// When the first of the roles wants a turn without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let seats = &self.seats;
        [
            seats.reactor.as_ref().and_then(|seat| seat.role.deadline()),
            seats.consensus.as_ref().and_then(|seat| seat.role.deadline()),
            seats.store.as_ref().and_then(|seat| seat.role.deadline()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Shows what the roles count to whoever answers a scrape.
    fn publish(&self) {
        if let Some(seat) = &self.seats.consensus {
            self.counters.leader_changes.set(seat.role.leader_changes());
            self.counters.proposals_pending.set(seat.role.pending() as u64);
            let mishaps = seat.role.mishaps();
            self.counters.failed_proposals.set(mishaps.failed_proposals);
            self.counters.late_heartbeats.set(mishaps.late_heartbeats);
            self.counters.slow_applies.set(mishaps.slow_applies);
            self.counters.promotions.set(seat.role.promotions());
            self.counters.is_learner.set(seat.role.is_learner().into());
            self.counters.installing.set(seat.role.is_installing().into());
        }
        if let Some(seat) = &self.seats.reactor {
            let questions = seat.role.questions();
            self.counters.slow_questions.set(questions.slow);
            self.counters.failed_questions.set(questions.failed);
            self.counters.watches_behind.set(seat.role.watches_behind() as u64);
        }
        if let Some(seat) = &self.seats.store {
            show(&self.counters.applied, seat.role.applied_kinds());
            let ops = seat.role.applied_ops();
            self.counters.puts.set(ops.puts);
            self.counters.put_bytes.set(ops.put_bytes);
            self.counters.deletes.set(ops.deletes);
            self.counters.txns.set(ops.txns);
            self.counters.ranges.set(ops.ranges);
            self.counters.renewals.set(ops.renewals);
            // Both are rare beside the turns.
            if self.counters.ttl_seconds.get() != ops.ttl_seconds {
                self.counters.ttl_seconds.set(ops.ttl_seconds);
                show(&self.counters.ttls, &ops.ttls);
            }
            let compactions = seat.role.compactions();
            if self.compactions.get() != compactions.count {
                self.compactions.set(compactions.count);
                self.counters.compaction_ms.set(compactions.ms);
                show(&self.counters.compactions, &compactions.times);
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                self.counters.compacted_at.set(since.map_or(0, |since| since.as_secs()));
            }
        }
    }

    fn turn(&mut self) {
        self.accept();
        if let Some(seat) = &mut self.seats.reactor {
            seat.sockets.work(&mut self.reactor_events);
            for stranger in seat.sockets.take_strangers() {
                seat.gate.admit(stranger, Serves::Everything);
            }
            self.inbox.append_reactor(&mut self.reactor_events);
        }
        self.members_turn();
        let mut now = self.clock.now();
        let end = now.after(TURN_TIME);
        for _ in 0..ROUNDS_MAX {
            self.reactor_turn(now);
            self.consensus_turn(now);
            self.store_turn(now);
            if self.inbox.is_empty() {
                return;
            }
            now = self.clock.now();
            if now >= end {
                break;
            }
        }
        self.inbox.signal();
    }

    fn accept(&mut self) {
        let Some(seat) = &mut self.seats.reactor else { return };
        self.inbox.take_accepted(&mut self.accepted);
        for stream in self.accepted.drain(..) {
            match seat.sockets.add(&stream) {
                Ok(connection) => self.reactor_events.push(ReactorEvent::Accepted { connection }),
                Err(error) => {
                    self.reactor_events.push(ReactorEvent::TurnedAway);
                    crate::log::warn(format!("a connection was refused: {error}"));
                }
            }
        }
        self.inbox.take_natives(&mut self.natives);
        for native in self.natives.drain(..) {
            let accepted = |connection| ReactorEvent::Accepted { connection };
            seat.sockets.attend(&native, accepted, &mut self.reactor_events);
        }
        self.inbox.append_reactor(&mut self.reactor_events);
    }

    /// Takes in new sockets of other members, and what the others bring.
    fn members_turn(&mut self) {
        let Some(seat) = &mut self.seats.consensus else { return };
        let Some(sockets) = &mut seat.sockets else { return };
        self.inbox.take_peers(&mut self.linked);
        for (dial, stream) in self.linked.drain(..) {
            let link = stream.and_then(|stream| match sockets.add(&stream) {
                Ok(link) => Some(link),
                Err(error) => {
                    crate::log::warn(format!("a link to a member was refused: {error}"));
                    None
                }
            });
            match (dial, link) {
                (Some(dial), link) => {
                    self.consensus_events.push(ConsensusEvent::LinkDialed { dial, link });
                }
                (None, Some(link)) => {
                    self.consensus_events.push(ConsensusEvent::LinkAccepted { link });
                }
                (None, None) => {}
            }
        }
        sockets.work(&mut self.consensus_events);
        self.inbox.append_consensus(&mut self.consensus_events);
    }

    fn reactor_turn(&mut self, now: Instant) {
        let Some(seat) = &mut self.seats.reactor else { return };
        let effects = &mut self.reactor_effects;
        self.inbox.take_reactor(&mut self.reactor_events);
        for event in self.reactor_events.drain(..) {
            if let ReactorEvent::Closed { connection } = event {
                seat.sockets.remove(connection);
            }
            if let ReactorEvent::Leader { term, member, .. } = event {
                seat.gate.note(Standing { term, leader: member });
            }
            let stops = matches!(event, ReactorEvent::Stop);
            seat.role.handle(now, event, effects);
            if stops {
                seat.gate.stop();
            }
        }
        seat.role.flush(now, effects);
        for effect in effects.drain(..) {
            match effect {
                ReactorEffect::Send { connection, bytes } => {
                    if seat.sockets.send(connection, bytes) {
                        self.inbox.push_reactor(ReactorEvent::Blocked { connection });
                    }
                }
                ReactorEffect::Pause { connection } => seat.sockets.set_paused(connection, true),
                ReactorEffect::Resume { connection } => seat.sockets.set_paused(connection, false),
                ReactorEffect::Close { connection, reason } => {
                    seat.sockets.close(connection, reason);
                }
                ReactorEffect::ToConsensus(event) => self.links.to_consensus(&self.inbox, event),
                ReactorEffect::ToStore(event) => self.links.to_store(&self.inbox, event),
            }
        }
    }

    fn consensus_turn(&mut self, now: Instant) {
        let Some(seat) = &mut self.seats.consensus else { return };
        let effects = &mut self.consensus_effects;
        self.inbox.take_consensus(&mut self.consensus_events);
        for event in self.consensus_events.drain(..) {
            if let (ConsensusEvent::LinkClosed { link }, Some(sockets)) =
                (&event, &mut seat.sockets)
            {
                sockets.remove(*link);
            }
            if let ConsensusEvent::LinkReceived { bytes, .. } = &event {
                self.counters.links_received_bytes.add(bytes.len() as u64);
            }
            seat.role.handle(now, event, effects);
        }
        seat.role.flush(now, effects);
        for effect in effects.drain(..) {
            match (effect, &mut seat.sockets) {
                (ConsensusEffect::LinkSend { link, bytes }, Some(sockets)) => {
                    self.counters.links_sent_bytes.add(bytes.len() as u64);
                    if sockets.send(link, bytes) {
                        let event = ConsensusEvent::LinkBlocked { link, blocked: true };
                        self.inbox.push_consensus(event);
                    }
                }
                (ConsensusEffect::LinkClose { link }, Some(sockets)) => {
                    sockets.close(link, CloseReason::Stopping);
                }
                (effect, _) => {
                    perform_consensus(effect, &seat.wal, &self.inbox, &self.links, &self.counters);
                }
            }
        }
    }

    fn store_turn(&mut self, now: Instant) {
        let Some(seat) = &mut self.seats.store else { return };
        let effects = &mut self.store_effects;
        self.inbox.take_store(&mut self.store_events);
        self.inbox.take_incoming(&mut self.made);
        for (transfer, file) in self.made.drain(..) {
            seat.incoming.fill(transfer, file);
            let event = Box::new(StoreEvent::IncomingMade);
            self.store_events.push(StoreEvent::Incoming { transfer, event });
        }
        for event in self.store_events.drain(..) {
            seat.role.handle(now, event, effects);
        }
        seat.role.flush(now, effects);
        for effect in effects.drain(..) {
            perform_store(effect, seat, &self.inbox, &self.links, &self.counters);
        }
    }
}

fn perform_consensus(
    effect: ConsensusEffect<Block>,
    wal: &Rc<WalDisk>,
    inbox: &Rc<Inbox>,
    links: &Links,
    counters: &Arc<Counters>,
) {
    match effect {
        ConsensusEffect::WriteGroup { lsn, group, ring } => {
            let (begun, is_dsync) = (StdInstant::now(), wal.is_dsync());
            let writes = [Some(group), ring];
            let countdown = Countdown::new(writes.iter().flatten().count());
            for write in writes.into_iter().flatten() {
                let (file, inbox) = (wal.file(write.file), Rc::clone(inbox));
                let countdown = Rc::clone(&countdown);
                counters.wal_bytes.add(write.size as u64);
                let counters = Arc::clone(counters);
                spawn(async move {
                    file.write(unshared(write.block), write.size, write.offset).await;
                    if countdown.done() {
                        let took = begun.elapsed();
                        counters.wal_write.record(took);
                        if is_dsync {
                            counters.wal_sync.record(took);
                        }
                        inbox.push_consensus(ConsensusEvent::Written { lsn });
                    }
                });
            }
        }
        ConsensusEffect::Sync { lsn, slots } => {
            let files = slots.map(|slot| slot.map(|slot| wal.file(slot)));
            let inbox = Rc::clone(inbox);
            let (counters, begun) = (Arc::clone(counters), StdInstant::now());
            spawn(async move {
                for file in files.into_iter().flatten() {
                    file.sync().await;
                }
                counters.wal_sync.record_since(begun);
                inbox.push_consensus(ConsensusEvent::Synced { lsn });
            });
        }
        ConsensusEffect::MakeSlot { slot } => {
            let (wal, inbox) = (Rc::clone(wal), Rc::clone(inbox));
            spawn(async move {
                inbox.push_consensus(if wal.make_slot(slot).await {
                    ConsensusEvent::SlotMade { slot }
                } else {
                    ConsensusEvent::SlotFailed
                });
            });
        }
        ConsensusEffect::PrepareSpare { slot, header } => {
            let (file, inbox) = (wal.file(header.file), Rc::clone(inbox));
            spawn(async move {
                file.write(unshared(header.block), header.size, header.offset).await;
                file.sync().await;
                inbox.push_consensus(ConsensusEvent::SpareReady { slot });
            });
        }
        ConsensusEffect::WriteWatermark(write) => {
            let (file, inbox) = (wal.file(write.file), Rc::clone(inbox));
            spawn(async move {
                file.write(unshared(write.block), write.size, write.offset).await;
                file.sync().await;
                inbox.push_consensus(ConsensusEvent::WatermarkDurable);
            });
        }
        ConsensusEffect::ReadLog { peer, read } => {
            let (file, inbox) = (wal.file(read.file), Rc::clone(inbox));
            spawn(async move {
                let bytes = file.read(read.offset, read.size).await;
                inbox.push_consensus(ConsensusEvent::LogRead { peer, read, bytes });
            });
        }
        ConsensusEffect::Dial { dial, address } => {
            spawn(listener::dial(dial, address, Rc::clone(inbox)));
        }
        // Only who has sockets has links.
        ConsensusEffect::LinkSend { .. } | ConsensusEffect::LinkClose { .. } => {}
        ConsensusEffect::Tell(text) => crate::log::warn(text),
        ConsensusEffect::Note(text) => crate::log::info(text),
        ConsensusEffect::Halt(reason) => exclude(&reason),
        ConsensusEffect::ToReactor(reactor, event) => links.to_reactor(inbox, reactor, event),
        ConsensusEffect::ToStore(event) => links.to_store(inbox, event),
    }
}

fn perform_store(
    effect: StoreEffect<Block>,
    seat: &mut StoreSeat,
    inbox: &Rc<Inbox>,
    links: &Links,
    counters: &Arc<Counters>,
) {
    match effect {
        StoreEffect::ToReactor(reactor, event) => links.to_reactor(inbox, reactor, event),
        StoreEffect::ToConsensus(event) => links.to_consensus(inbox, event),
        StoreEffect::Tell(text) => crate::log::warn(text),
        StoreEffect::Note(text) => crate::log::info(text),
        StoreEffect::Halt(damage) => {
            note_damage(&seat.path, &damage);
            halt("verifying", seat.pages.path(), &damage);
        }
        StoreEffect::MakeIncoming { transfer } => seat.incoming.want(Some(transfer)),
        StoreEffect::Incoming { transfer, effect } => {
            // What was asked of a file that is gone is of no use to anybody.
            if let Some(file) = seat.incoming.of(transfer) {
                let inbox = Rc::clone(inbox);
                perform_file(*effect, Rc::clone(file), move |event| {
                    let event = Box::new(event);
                    inbox.push_store(StoreEvent::Incoming { transfer, event });
                });
            }
        }
        StoreEffect::DropIncoming => seat.incoming.want(None),
        StoreEffect::AdoptIncoming => {
            seat.pages = seat.incoming.take().expect("the store fills it before it adopts it");
        }
        StoreEffect::RenameIncoming => {
            if let Err(error) = adopt(&seat.path) {
                halt("renaming", &seat.path, &error);
            }
        }
        StoreEffect::Sync => {
            let (inbox, pages) = (Rc::clone(inbox), Rc::clone(&seat.pages));
            let (counters, begun) = (Arc::clone(counters), StdInstant::now());
            spawn(async move {
                pages.sync().await;
                counters.pages_sync.record_since(begun);
                inbox.push_store(StoreEvent::PagesSynced);
            });
        }
        effect => {
            let inbox = Rc::clone(inbox);
            perform_file(effect, Rc::clone(&seat.pages), move |event| inbox.push_store(event));
        }
    }
}

/// Does something with a page file, and reports it.
fn perform_file(
    effect: StoreEffect<Block>,
    pages: Rc<DiskFile>,
    report: impl Fn(StoreEvent) + 'static,
) {
    match effect {
        StoreEffect::Read { miss, offset, size, for_transfer } => spawn(async move {
            let bytes = pages.read(offset, size).await;
            report(StoreEvent::PageRead { miss, bytes, for_transfer });
        }),
        StoreEffect::Write { offset, block, size } => spawn(async move {
            pages.write_patiently(block, size, offset).await;
            report(StoreEvent::PagesWritten);
        }),
        StoreEffect::Sync => spawn(async move {
            pages.sync().await;
            report(StoreEvent::PagesSynced);
        }),
        StoreEffect::Grow { size } => spawn(async move {
            let (grown, available) = pages.grow(size).await;
            report(StoreEvent::Available { size: available });
            report(StoreEvent::Grown { size, grown });
        }),
        StoreEffect::Punch { offset, size } => spawn(async move {
            pages.punch(offset, size).await;
            report(StoreEvent::Released);
        }),
        StoreEffect::Truncate { size } => spawn(async move {
            pages.truncate(size).await;
            report(StoreEvent::Released);
        }),
        _ => unreachable!("the caller does what is not for a file"),
    }
}

/// This member must not go on, although its disk is well.
fn exclude(reason: &str) -> ! {
    crate::log::error(format!("stopped: {reason}"));
    std::process::exit(crate::EXIT_EXCLUDED);
}

fn spawn(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(future).detach();
}

/// A block that nobody else holds: what is written is cut to its size without a copy.
fn unshared(block: Rc<Block>) -> Block {
    Rc::into_inner(block).expect("a block on its way to the disk has one holder")
}
