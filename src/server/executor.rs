//! One executor: a thread with its rings, the roles of its place, and the tasks beside them.

use std::net::TcpListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration as StdDuration;

use base::limits::{CLIENTS_MAX, CONNECTION_BYTES_MAX, PROPOSED_BYTES_MAX};
use base::{Duration, FileId, Frame, Instant, LogIndex};
use glommio::channels::shared_channel::{SharedReceiver, SharedSender};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use kv::State;
use node::{
    Booted, CheckpointConfig, Consensus, ConsensusConfig, ConsensusEvent, ForPeers, Introduction,
    Members, Reactor, ReactorConfig, Store, StoreConfig, Tail,
};
use raft::{HardState, Log, Position, Raft, Restored, TermRun};
use wal::{Recovered, Writer};
use wire::{Member, MemberList, MemberRole};

use crate::boot::{growth_size, page_options};
use crate::clock::Clock;
use crate::config::Config;
use crate::core_loop::{ConsensusSeat, CoreLoop, ReactorSeat, Seats, StoreSeat};
use crate::counters::Board;
use crate::data_dir::{DataDir, Identity, incoming_path, random_id};
use crate::disk::{Block, DiskFile, WalDisk, settle_polling};
use crate::ending::{Ending, Remaining};
use crate::http::Gate;
use crate::inbox::Inbox;
use crate::incoming::Incoming;
use crate::link::{self, Links, Message, Outbox};
use crate::listener::Accepting;
use crate::publication::Publication;
use crate::socket::Sockets;
use crate::topology::Place;
use crate::{Error, listener};

/// How often deadlines of roles and the stop flag are looked at.
const TICK: StdDuration = StdDuration::from_millis(5);

/// Links of members at one time: two each way with each of thirteen others, twice over while they are
/// made anew.
const LINKS_MAX: usize = 128;

/// Keys that one read looks at in one turn, so that others get theirs.
const READ_SLICE: u32 = 512;

/// Bytes of memory that an executor with disk roles registers with the kernel for its blocks.
const BLOCK_MEMORY: usize = 12 << 20;

/// What executors say to the main thread.
pub enum Notice {
    /// A reactor listens, or the member may serve and is in the list of members.
    Ready,
    /// The executor cannot go on.
    Failed(Error),
}

/// What all executors are told.
pub struct Plan {
    identity: Identity,
    incarnation: FileId,
    pages: std::path::PathBuf,
    page_options: tree::Options,
    probe: std::path::PathBuf,
    wal: std::path::PathBuf,
    dsync: bool,
    seed: u64,
    reactors: u16,
    next_slot: u32,
    /// Connections of one reactor.
    connections_max: usize,
    config: Config,
    board: Board,
}

impl Plan {
    /// Of this configuration on this data directory.
    pub fn new(
        config: &Config,
        data_dir: &DataDir,
        places: &[Place],
        dsync: bool,
    ) -> Result<Self, Error> {
        let incarnation = random_id()?;
        let reactors = places.iter().filter(|place| place.reactor.is_some()).count();
        let slots = crate::disk::slot_numbers(&data_dir.wal()).map_err(|source| {
            Error::DataDir { path: data_dir.wal(), what: "cannot be listed", source }
        })?;
        let (seed, _) = split(random_id()?.get());
        Ok(Self {
            identity: data_dir.identity.clone(),
            incarnation,
            pages: data_dir.pages(),
            page_options: page_options(data_dir, config),
            probe: data_dir.probe(),
            wal: data_dir.wal(),
            dsync,
            seed,
            reactors: u16::try_from(reactors).expect("fewer than 65,536 cores"),
            next_slot: slots.last().map_or(0, |last| last + 1),
            connections_max: crate::probe::connections() / reactors.max(1),
            config: config.clone(),
            board: Board::new(places.len()),
        })
    }
}

fn split(wide: u128) -> (u64, u64) {
    let low = u64::try_from(wide & u128::from(u64::MAX)).expect("masked to 64 bits");
    let high = u64::try_from(wide >> 64).expect("64 bits are left");
    (high, low)
}

/// The ends of the channels of one executor.
pub struct Wiring {
    /// By target executor.
    pub senders: Vec<Option<SharedSender<Message>>>,
    /// From every other executor.
    pub receivers: Vec<SharedReceiver<Message>>,
}

impl Wiring {
    /// No ends yet, for `count` executors.
    pub fn new(count: usize) -> Self {
        Self { senders: (0..count).map(|_| None).collect(), receivers: Vec::new() }
    }
}

/// What recovery found for the store.
struct StoreParts {
    state: State,
    /// Applied index of the page file.
    published: LogIndex,
    /// Meta slots to overwrite with zeros before anything else is written.
    slots_to_clear: Vec<(u64, usize)>,
}

/// What recovery found for consensus.
struct LogParts {
    recovered: Recovered,
    terms: Vec<TermRun>,
    tail: Tail,
    members: Vec<(LogIndex, Frame)>,
}

/// What recovery found for the roles of one executor.
pub struct Parts {
    /// For consensus.
    log: Option<LogParts>,
    /// For the store.
    state: Option<StoreParts>,
    /// Applied index and term of the state.
    applied: LogIndex,
}

impl Parts {
    /// Deals what recovery found out to these places, in order.
    pub fn deal(booted: Booted, places: &[Place]) -> Vec<Self> {
        let applied = booted.state.applied().0;
        let Booted { recovered, terms, tail, members, .. } = booted;
        let mut log = Some(LogParts { recovered, terms, tail, members });
        let slots_to_clear = if booted.clear_slots {
            tree::SLOT_OFFSETS.map(|offset| (offset, tree::META_SIZE)).to_vec()
        } else {
            booted.state.pages().slot_to_clear().into_iter().collect()
        };
        let published = booted.published;
        let mut state = Some(StoreParts { state: booted.state, published, slots_to_clear });
        let deal = |place: &Place| Self {
            log: if place.consensus { log.take() } else { None },
            state: if place.store { state.take() } else { None },
            applied,
        };
        places.iter().map(deal).collect()
    }
}

/// Everything that an executor is started with.
pub struct Start {
    /// Its number.
    pub index: usize,
    /// All places; its own is at `index`.
    pub places: Vec<Place>,
    /// What all executors are told.
    pub plan: Arc<Plan>,
    /// What recovery found for it.
    pub parts: Parts,
    /// Its channels.
    pub wiring: Wiring,
    /// The listening sockets, for a place with a reactor.
    pub listeners: Vec<listener::Share>,
    /// The listening socket for other members, for the place of consensus.
    pub peers: Option<TcpListener>,
    /// The clock of the process.
    pub clock: Clock,
    /// Set when the server is to stop.
    pub stop: Arc<AtomicBool>,
    /// How far all executors are with the end of the server.
    pub remaining: Arc<Remaining>,
    /// Where it reports.
    pub notices: Sender<Notice>,
}

/// Starts an executor on a thread of its own.
pub fn spawn(start: Start) -> Result<ExecutorJoinHandle<()>, Error> {
    let place = start.places[start.index];
    let placement = place.core.map_or(Placement::Unbound, Placement::Fixed);
    let memory = if place.consensus || place.store { BLOCK_MEMORY } else { 1 << 20 };
    LocalExecutorBuilder::new(placement)
        .name(&format!("quorate-{}", start.index))
        .io_memory(memory)
        .ring_depth(512)
        .spawn(move || async move {
            let notices = start.notices.clone();
            if let Err(error) = run(start).await {
                // The main thread waits for notices for as long as executors run.
                drop(notices.send(Notice::Failed(error)));
            }
        })
        .map_err(|error| Error::Executor(error.to_string()))
}

async fn run(start: Start) -> Result<(), Error> {
    let Start {
        index,
        places,
        plan,
        parts,
        wiring,
        listeners,
        peers,
        clock,
        stop,
        remaining,
        notices,
    } = start;
    let place = places[index];
    let inbox = Rc::new(Inbox::default());
    let links = links(&places, index, wiring, &inbox);
    let Parts { log, state, applied } = parts;

    if place.consensus || place.store {
        let probe = plan.probe.clone();
        settle_polling(probe.clone()).await.map_err(|source| Error::DataDir {
            path: probe,
            what: "cannot be opened",
            source,
        })?;
    }
    let consensus = match log {
        None => None,
        Some(log) => Some(consensus(&plan, log, applied, clock.now()).await?),
    };
    let store = match state {
        None => None,
        Some(state) => Some(store(&plan, state, clock.now(), &inbox).await?),
    };
    let folder = plan.pages.parent().map(Path::to_path_buf).unwrap_or_default();
    let board = (&plan.board, index);
    let gate = Gate::new(&inbox, plan.connections_max, &plan.config, folder, board);
    let sockets = Sockets::new(plan.connections_max, true)
        .map_err(|error| Error::Executor(format!("no set of sockets could be made: {error}")))?;
    let reactor = place.reactor.map(|id| ReactorSeat {
        role: Reactor::new(ReactorConfig {
            id,
            cluster: plan.identity.cluster,
            member: plan.identity.member,
            value_size_max: plan.config.value_size_max,
            txn_ops_max: plan.config.txn_ops_max,
            bytes_max: CONNECTION_BYTES_MAX.min(proposed_bytes_max(&plan.config)),
            connections_max: plan.connections_max,
            clients_max: CLIENTS_MAX,
        }),
        sockets,
        gate: Rc::clone(&gate),
    });
    if consensus.is_some() {
        inbox.push_consensus(ConsensusEvent::Start);
    }
    let listens = !listeners.is_empty();
    let accepting: Result<Vec<_>, _> =
        listeners.into_iter().map(|share| Accepting::begin(share, &inbox, &gate)).collect();
    let mut accepting = accepting.map_err(|error| {
        Error::Executor(format!("a listening socket could not be copied: {error}"))
    })?;
    if listens {
        drop(notices.send(Notice::Ready));
        gate.follow_role();
    }
    if let Some(peers) = peers {
        glommio::spawn_local(listener::accept_peers(peers, Rc::clone(&inbox))).detach();
    }
    glommio::spawn_local(tick(Rc::clone(&inbox), Rc::clone(&gate))).detach();

    let mut publication = Publication::new(plan.board.of(index));
    let mut ending = Ending::Running;
    let seats = Seats { reactor, consensus, store };
    let watched = Rc::clone(&inbox);
    CoreLoop::new(seats, inbox, links, clock, plan.board.of(index))
        .run(move |seats| {
            if publication.comes(clock.now(), seats.consensus.as_ref()) {
                drop(notices.send(Notice::Ready));
            }
            if matches!(ending, Ending::Running) && stop.load(Ordering::Acquire) {
                accepting.drain(..).for_each(Accepting::close);
                ending.begin(clock.now(), seats);
            }
            ending.turn(clock.now(), &remaining, seats, &watched)
        })
        .await;
    Ok(())
}

/// Wakes the loop at intervals, for deadlines.
async fn tick(inbox: Rc<Inbox>, gate: Rc<Gate>) {
    loop {
        glommio::timer::sleep(TICK).await;
        gate.tick();
        inbox.signal();
    }
}

fn links(places: &[Place], index: usize, wiring: Wiring, inbox: &Rc<Inbox>) -> Links {
    let outboxes: Vec<Option<Rc<Outbox>>> = wiring
        .senders
        .into_iter()
        .map(|sender| {
            let sender = sender?;
            let outbox = Rc::new(Outbox::default());
            glommio::spawn_local(link::send(Rc::clone(&outbox), sender)).detach();
            Some(outbox)
        })
        .collect();
    for receiver in wiring.receivers {
        glommio::spawn_local(link::receive(receiver, Rc::clone(inbox))).detach();
    }
    let to = |wanted: &dyn Fn(&Place) -> bool| {
        let target = places.iter().position(wanted).expect("every role has a place");
        if target == index { None } else { outboxes[target].clone() }
    };
    let reactors = places
        .iter()
        .filter_map(|place| place.reactor)
        .map(|id| to(&|place: &Place| place.reactor == Some(id)));
    Links {
        reactors: reactors.collect(),
        consensus: to(&|place| place.consensus),
        store: to(&|place| place.store),
    }
}

/// Bytes of writes on their way: less on a server that is told to live on a small disk.
fn proposed_bytes_max(config: &Config) -> usize {
    let half = usize::try_from(growth_size(config) / 2).unwrap_or(usize::MAX);
    PROPOSED_BYTES_MAX.min(half.max(base::limits::body_size_max(config.value_size_max)))
}

async fn consensus(
    plan: &Plan,
    log: LogParts,
    applied: LogIndex,
    now: Instant,
) -> Result<ConsensusSeat, Error> {
    let LogParts { recovered, terms, tail, members } = log;
    let identity = wal::Identity {
        cluster: plan.identity.cluster,
        member: plan.identity.member,
        incarnation: plan.incarnation,
    };
    let options = wal::Options {
        segment_size: plan.identity.segment_size,
        block_size: wal::GROUP_BLOCK_SIZE_DEFAULT,
        groups_in_flight_max: wal::GROUPS_IN_FLIGHT_MAX,
        ring_slots: wal::RING_SLOTS_DEFAULT,
    };
    let wal = WalDisk::open(plan.wal.clone(), plan.dsync, options.segment_size, options.ring_slots)
        .await
        .map_err(|source| Error::DataDir {
            path: plan.wal.clone(),
            what: "has a WAL file that cannot be opened",
            source,
        })?;
    let hard_state = HardState { term: recovered.hard_state.term, vote: recovered.hard_state.vote };
    let committed = recovered.hard_state.commit.max(applied);
    let log = Log::recovered(terms, recovered.last.index, committed);
    let member = plan.identity.member;
    let members = lists(plan, members)?;
    let configurations = members.configurations();
    let restored = Restored { hard_state, log, configurations };
    let options_of_raft = plan.config.elections.options();
    let raft = Raft::restore(member, options_of_raft, restored, now, plan.seed);
    let writer = Writer::resume(identity, options, &recovered);
    let config = ConsensusConfig {
        proposed_bytes_max: proposed_bytes_max(&plan.config),
        write_is_durable: plan.dsync,
        reserve_size: plan.identity.segment_size,
        next_slot: plan.next_slot,
        seed: plan.seed,
        reactors: plan.reactors,
        torn: recovered
            .tail
            .as_ref()
            .and_then(|tail| tail.promised)
            .map(|(index, term)| Position { index, term }),
        for_peers: ForPeers { log_entries: plan.config.log_entries_kept, ..ForPeers::SERVER },
        transfer_rate: plan.config.transfer_rate,
        lease_per_key: plan.config.lease_per_key,
        strict_removals: plan.config.strict_removals,
        alone: plan.config.cluster.alone,
        introduction: Introduction {
            cluster: plan.identity.cluster,
            member,
            data_id: plan.identity.page_file,
            start_id: plan.seed.rotate_left(17),
            client_address: plan.config.cluster.advertise_client.clone().unwrap_or_default(),
            peer_address: plan.config.cluster.advertised_peer().unwrap_or_default(),
            name: plan.config.cluster.name.clone(),
        },
    };
    let has_links = !config.introduction.peer_address.is_empty();
    let role = Consensus::new(config, raft, writer, Box::new(Block::allocate), tail, members);
    let sockets = if has_links { Some(Sockets::new(LINKS_MAX, false)) } else { None };
    let sockets = sockets
        .transpose()
        .map_err(|error| Error::Executor(format!("no set of sockets could be made: {error}")))?;
    Ok(ConsensusSeat { role, wal: Rc::new(wal), sockets })
}

/// The lists of members that recovery found.
fn lists(plan: &Plan, members: Vec<(LogIndex, Frame)>) -> Result<Members, Error> {
    let list = |(index, bytes): (LogIndex, Frame)| {
        if bytes.is_empty() {
            let members = vec![Member {
                id: plan.identity.member,
                name: plan.config.cluster.name.clone(),
                peer_address: plan.config.cluster.advertised_peer().unwrap_or_default(),
                client_address: String::new(),
                data_id: FileId::new(0),
                role: MemberRole::Voter,
            }];
            let next_member = plan.identity.member.get().saturating_add(1);
            return Ok((index, MemberList { next_member, members }));
        }
        MemberList::decode(&bytes).map(|list| (index, list)).map_err(|error| {
            Error::Recovery(format!("the list of members at log entry {index} is damaged: {error}"))
        })
    };
    let lists: Vec<_> = members.into_iter().map(list).collect::<Result<_, _>>()?;
    let members = Members::new(lists);
    if !plan.config.cluster.alone {
        return Ok(members);
    }
    members.alone(plan.identity.member).ok_or_else(|| {
        Error::Config(
            "--force-new-cluster: the last list of members in this data directory does not name this \
             member, which was removed; use the directory of another one"
                .into(),
        )
    })
}

async fn store(
    plan: &Plan,
    StoreParts { mut state, published, slots_to_clear }: StoreParts,
    now: Instant,
    inbox: &Rc<Inbox>,
) -> Result<StoreSeat, Error> {
    let wrap = |source| Error::DataDir {
        path: plan.pages.clone(),
        what: "cannot be opened as the page file",
        source,
    };
    let pages = DiskFile::open(plan.pages.clone(), false).await.map_err(wrap)?;
    // The name must outlive a power cut once the first checkpoint lets go of the log.
    if let Some(directory) = plan.pages.parent() {
        std::fs::File::open(directory).and_then(|file| file.sync_all()).map_err(wrap)?;
    }
    let backed = std::fs::metadata(&plan.pages).map_err(wrap)?.len();
    state.pages_mut().set_backed(backed);
    // A killed process leaves records and pages that are read here and that a power cut takes back still.
    // What was taken as the newest checkpoint is the newest only once it is durable: from then on pages that
    // only older ones hold are written over.
    pages.sync().await;
    let cache_size = plan.config.pages_size();
    for (offset, size) in slots_to_clear {
        let mut zeros = Block::allocate(size);
        zeros.as_mut()[..size].fill(0);
        pages.write(zeros, size, offset).await;
        pages.sync().await;
    }
    let config = StoreConfig {
        reactors: plan.reactors,
        cluster: plan.identity.cluster,
        member: plan.identity.member,
        checkpoint: CheckpointConfig {
            log_size: 256 << 20,
            dirty_size: cache_size / 4,
            interval: Duration::from_millis(5_000),
            // Everything that may be on its way when the disk turns out to be full (half a growth step
            // of requests, four times that as cells and what deleting them takes), and copied pages.
            room_min: growth_size(&plan.config) * 5 / 2,
            quota_size: plan.config.quota_size,
        },
        dirty_size_max: cache_size / 2,
        read_slice: READ_SLICE,
        history: kv::HistoryLimits::SERVER,
        retention: plan.config.retention,
        pages: plan.page_options.clone(),
    };
    let role = Store::new(config, state, published, Box::new(Block::allocate), now);
    let made = Rc::clone(inbox);
    let incoming = Incoming::new(incoming_path(&plan.pages), move |transfer, file| {
        made.push_incoming(transfer, file);
    });
    Ok(StoreSeat { role, pages, incoming, path: plan.pages.clone() })
}
