//! A member: its files, and while it runs its roles with the queues between them. Each link is first in,
//! first out; which link is next is drawn.

use std::collections::{BTreeMap, VecDeque};

use base::{ConnectionId, Duration, FileId, Instant, LogIndex, NodeId, Prng, ReactorId};
use node::{
    Boot, BootError, BootStep, Booted, CheckpointConfig, Committed, Consensus, ConsensusConfig,
    ConsensusEvent, DataFile, EntryKind, Introduction, Members, Reactor, ReactorConfig,
    ReactorEvent, Role, Store, StoreConfig, StoreEvent,
};
use raft::{HardState, Log, Membership, Raft, Restored};
use wal::{Files, SlotFile, WalFile, Writer};
use wire::MemberList;

use crate::bounds::Seen;
use crate::disk::{Block, Disk, Name};
use crate::plan::{Plan, Victim};

/// Id of the cluster.
pub const CLUSTER: u64 = 0xC1;

/// Value limit of all members.
pub const VALUE_MAX: usize = 64 << 10;

/// The roles, as numbers.
pub const REACTOR: usize = 0;
pub const CONSENSUS: usize = 1;
pub const STORE: usize = 2;

/// From whom a queue comes, as a number.
pub const FROM_NET: usize = 3;
pub const FROM_DISK: usize = 4;

/// One start in so many is looked at for what it would be with one meta slot less.
const LOOKS_AT_SLOTS: u64 = 4;

/// The clock of a process: it begins anew at each start, runs at its own rate and may leap forward.
#[derive(Clone, Debug)]
pub struct Clock {
    began: u64,
    local: u64,
    ppm: i64,
}

impl Clock {
    fn new(now: u64, ppm: i64) -> Self {
        Self { began: now, local: 1_000_000, ppm }
    }

    /// What it shows.
    pub fn read(&self, now: u64) -> Instant {
        let passed = i64::try_from(now - self.began).expect("runs are short");
        let passed = passed + passed / 1_000_000 * self.ppm;
        Instant::from_nanos(self.local + u64::try_from(passed).unwrap_or(0))
    }

    /// When it will show that, or soon after.
    pub fn when(&self, now: u64, at: Instant) -> u64 {
        let left = at.since(self.read(now)).as_nanos();
        let left = i64::try_from(left.min(1 << 50)).expect("bounded");
        // The clock moves in steps of a millisecond's share; a late call is always right.
        let real = left / (1_000_000 + self.ppm) * 1_000_000 + 2_000_000;
        let real = if left < 2_000_000 { left + 1_000_000 } else { real };
        now + u64::try_from(real).unwrap_or(0)
    }

    /// It leaps.
    pub fn jump(&mut self, now: u64, nanos: u64) {
        self.local = self.read(now).as_nanos() + nanos;
        self.began = now;
    }
}

/// A client's connection as the member holds it.
pub struct Connection {
    pub socket: u64,
    /// The reactor takes no more bytes for now.
    pub paused: bool,
    pub held: VecDeque<Vec<u8>>,
    /// The other side has gone; told once what is held has been taken.
    pub ended: bool,
}

/// A process.
pub struct Process {
    pub reactor: Reactor,
    pub consensus: Consensus<Block>,
    pub store: Store<Block>,
    /// By sender.
    pub to_reactor: [VecDeque<ReactorEvent>; 5],
    pub to_consensus: [VecDeque<ConsensusEvent>; 5],
    pub to_store: [VecDeque<StoreEvent>; 5],
    /// When each role has its next turn.
    pub wake: [u64; 3],
    pub clock: Clock,
    /// How often others had no need of the state that it sent.
    pub declined: u32,
    /// Sockets to other members.
    pub links: BTreeMap<ConnectionId, u64>,
    /// Sockets of clients.
    pub connections: BTreeMap<ConnectionId, Connection>,
    next_link: u32,
    free_slots: Vec<ConnectionId>,
    /// Parts of groups that are still being written.
    pub group_parts: BTreeMap<u64, u32>,
    /// The last group that the watermark on its way says to be durable.
    pub mark: u64,
    /// What was judged last.
    pub seen: Seen,
    /// The page file that is meant.
    pub pages: Name,
    /// What was last seen of the roles.
    pub committed: u64,
    pub applied: u64,
    /// What was committed when it last asked for an index to read at.
    pub read_floor: u64,
    pub leads: u64,
    pub membership: Membership,
}

impl Process {
    /// A name for a new socket of another member.
    pub fn new_link(&mut self) -> ConnectionId {
        self.next_link += 1;
        ConnectionId { slot: self.next_link, generation: 1 }
    }

    /// A name for a new connection of a client.
    pub fn new_connection(&mut self) -> ConnectionId {
        match self.free_slots.pop() {
            Some(id) => ConnectionId { slot: id.slot, generation: id.generation + 1 },
            None => {
                let slot = u32::try_from(self.connections.len()).expect("few connections");
                let taken = |slot| self.connections.keys().any(|id| id.slot == slot);
                let slot = (slot..).find(|slot| !taken(*slot)).expect("there is a free one");
                ConnectionId { slot, generation: 1 }
            }
        }
    }

    /// The slot of a connection may be used again.
    pub fn free_connection(&mut self, id: ConnectionId) {
        self.free_slots.push(id);
    }
}

/// Takes up to `max` events from the queues, which queue being drawn each time.
pub fn draw<T>(queues: &mut [VecDeque<T>; 5], max: u64, prng: &mut Prng, out: &mut Vec<T>) -> bool {
    for _ in 0..max {
        let filled: usize = queues.iter().filter(|queue| !queue.is_empty()).count();
        if filled == 0 {
            return false;
        }
        let place = if filled == 1 { 0 } else { prng.below(filled as u64) };
        let place = usize::try_from(place).expect("few queues");
        let queue = queues.iter_mut().filter(|queue| !queue.is_empty()).nth(place);
        out.extend(queue.and_then(VecDeque::pop_front));
    }
    queues.iter().any(|queue| !queue.is_empty())
}

/// Why a member does not run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Absence {
    /// It will be started.
    Down,
    /// It was damaged and refuses to start, as it may.
    Damaged,
    /// It is no member any more.
    Removed,
}

/// What a crash waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// Any operation.
    Any,
    /// A write or a read of the log.
    Wal,
    /// Anything with the page file, or with the one that comes in.
    Pages,
    /// A sync.
    Sync,
    /// A file is made, renamed or removed.
    Directory,
    /// A step of a start, between its last read and the first turn of a role.
    Start,
}

impl Io {
    /// Whether an operation is of the kind that is waited for.
    pub fn is(self, other: Self) -> bool {
        self == other || self == Self::Any && other != Self::Start
    }
}

/// A crash that waits for its moment.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub io: Io,
    /// How many of these go well before.
    pub left: u64,
    /// When it has completed, before anybody is told; else when it is handed to the disk.
    pub completed: bool,
    pub with_power: bool,
}

/// A machine with a member.
pub struct Node {
    pub id: u64,
    pub address: String,
    pub client_address: String,
    pub data_id: FileId,
    pub founders: Vec<u8>,
    pub disk: Disk,
    pub life: u32,
    pub process: Option<Box<Process>>,
    pub absence: Absence,
    /// What is stored was changed on purpose.
    pub is_damaged: bool,
    /// It has taken part in elections.
    pub has_begun: bool,
    pub paused_until: u64,
    pub disk_stalled_until: u64,
    pub disk_slow_until: u64,
    /// A crash that waits for its moment.
    pub crash: Option<Crash>,
    /// The power was cut where a group is durable before the copy of its header, and no watermark has been
    /// written since: what the log ends with may be in its segments only.
    pub lacks_copies: bool,
    /// The next read, write or sync fails.
    pub read_fails: bool,
    pub write_fails: bool,
    pub sync_fails: bool,
    pub loops_until: u64,
    pub ppm: i64,
    /// Its state came from another member.
    pub took_state: bool,
    /// Files that the last start synced.
    pub synced: Vec<WalFile>,
    /// The greatest revision that it has compacted to, in any life.
    pub compacted: i64,
}

/// Why a start failed.
pub enum StartError {
    /// A read failed; it may not the next time.
    Read,
    /// The crash that waited for it came.
    Crashed,
    /// It refuses to start.
    Refused(String),
    /// The log begins behind the page file.
    Gap(String),
    /// The onlooker objects.
    Wrong(String),
    /// The same, but the member knows that it has lost what it may have acknowledged.
    Forgot(String),
}

impl Node {
    /// A machine that has never run.
    pub fn new(id: u64, number: usize, founders: Vec<u8>, flushes_all: bool, seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ id.rotate_left(40));
        let data_id = u128::from(prng.next_u64()) << 64 | u128::from(prng.next_u64());
        Self {
            id,
            address: address_of(number),
            client_address: format!("10.1.0.{number}:2000"),
            data_id: FileId::new(data_id),
            founders,
            disk: Disk::new(flushes_all, prng.next_u64()),
            life: 0,
            process: None,
            absence: Absence::Down,
            is_damaged: false,
            has_begun: false,
            paused_until: 0,
            disk_stalled_until: 0,
            disk_slow_until: 0,
            crash: None,
            lacks_copies: false,
            read_fails: false,
            write_fails: false,
            sync_fails: false,
            loops_until: 0,
            ppm: 0,
            took_state: false,
            synced: Vec::new(),
            compacted: 0,
        }
    }

    /// A crash may wait for this step of a start.
    fn step(&mut self) -> Result<(), StartError> {
        match &mut self.crash {
            Some(crash) if crash.io == Io::Start && crash.left == 0 => Err(StartError::Crashed),
            Some(crash) if crash.io == Io::Start => {
                crash.left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The files of the log.
    pub fn files(&self) -> Files {
        let slots = self.disk.slots();
        let size = |file: WalFile| self.disk.size(Name::Wal(file));
        Files {
            slots: slots
                .iter()
                .map(|&slot| SlotFile { slot, size: size(WalFile::Slot(slot)) })
                .collect(),
            ring_size: size(WalFile::Ring),
            watermark_size: size(WalFile::Watermark),
        }
    }

    fn boot(
        &mut self,
        options: &tree::Options,
        victim_file: Option<Victim>,
    ) -> Result<Booted, StartError> {
        let files = self.files();
        let pages_size = self.disk.size(Name::Pages);
        let mut boot = Boot::new(options.clone(), pages_size, files, self.founders.clone());
        let refused = |error: BootError| match error {
            error if error.begins_behind() => StartError::Gap(error.to_string()),
            error => StartError::Refused(error.to_string()),
        };
        while let BootStep::Read { file, offset, size } = boot.next().map_err(refused)? {
            let name = match file {
                DataFile::Pages => Name::Pages,
                DataFile::Wal(file) => Name::Wal(file),
            };
            // What cannot be read is damage, and there is damage of one kind of file only.
            let may_fail = victim_file.is_none_or(|victim| victim.is(name));
            if may_fail && std::mem::take(&mut self.read_fails) {
                if !boot.survives_failure() {
                    return Err(StartError::Read);
                }
                boot.feed_unreadable();
                continue;
            }
            let offset = self.disk.comes_from(name, offset, size);
            boot.feed(self.disk.read(name, offset, size)).map_err(refused)?;
        }
        Ok(boot.finish())
    }

    /// Starts the process, as `server` does.
    pub fn start(
        &mut self,
        now: u64,
        plan: &Plan,
        seed: u64,
        recovered: impl FnOnce(&wal::Recovered, &[Committed]) -> Result<(), String>,
    ) -> Result<(), StartError> {
        let member = NodeId::new(self.id);
        let options = tree::Options {
            file: self.data_id,
            cluster: CLUSTER,
            member,
            cache_size: plan.cache_size,
            growth_size: 1 << 20,
        };
        if seed.is_multiple_of(LOOKS_AT_SLOTS) {
            self.survives_lost_slots(&options).map_err(StartError::Wrong)?;
        }
        let victim_file = plan.damages().then_some(plan.victim_file);
        let booted = match self.boot(&options, victim_file) {
            // The log begins with a state that came in, whose file has not got its name yet.
            Err(StartError::Gap(_)) if self.disk.size(Name::Incoming) > 0 => {
                self.step()?;
                self.took_state = true;
                self.disk.rename(Name::Incoming, Name::Pages);
                self.step()?;
                self.boot(&options, victim_file)
            }
            booted => booted,
        };
        let booted = match booted {
            Err(StartError::Gap(text)) => return Err(StartError::Refused(text)),
            booted => booted?,
        };
        self.step()?;
        self.disk.unlink(Name::Incoming);
        self.step()?;
        let slots = self.disk.slots();
        let pages_size = self.disk.size(Name::Pages);
        let knows = booted.recovered.tail.as_ref().is_some_and(|tail| tail.promised.is_some());
        let wrong = if knows { StartError::Forgot } else { StartError::Wrong };
        self.synced.clone_from(&booted.recovered.sync);
        for &file in &booted.recovered.sync {
            self.disk.sync_now(Name::Wal(file));
            self.step()?;
        }
        recovered(&booted.recovered, &replayed(&booted)).map_err(wrong)?;
        for (file, size) in [
            (WalFile::Ring, wal::ring_file_size(plan.ring_slots)),
            (WalFile::Watermark, wal::WATERMARK_FILE_SIZE),
        ] {
            if self.disk.size(Name::Wal(file)) < size {
                self.disk.create(Name::Wal(file), size);
                self.step()?;
            }
        }
        // Both directories are synced.
        self.disk.sync_entries();
        let mut state = booted.state;
        let applied = state.applied().0;
        let slots_to_clear = if booted.clear_slots {
            tree::SLOT_OFFSETS.map(|offset| (offset, tree::META_SIZE)).to_vec()
        } else {
            state.pages().slot_to_clear().into_iter().collect()
        };
        // What a killed process left unsynced was read here: it has to be durable before pages are reused.
        self.disk.sync_now(Name::Pages);
        self.step()?;
        for (offset, size) in slots_to_clear {
            self.disk.clear(Name::Pages, offset, size);
            self.disk.sync_now(Name::Pages);
            self.step()?;
        }
        state.pages_mut().set_backed(pages_size);

        let clock = Clock::new(now, self.ppm);
        let local = clock.read(now);
        let log = {
            let committed = booted.recovered.hard_state.commit.max(applied);
            Log::recovered(booted.terms, booted.recovered.last.index, committed)
        };
        let lists: Result<Vec<(LogIndex, MemberList)>, _> = booted
            .members
            .iter()
            .map(|(index, bytes)| MemberList::decode(bytes).map(|list| (*index, list)))
            .collect();
        let lists = lists.map_err(|error| StartError::Refused(error.to_string()))?;
        let members = Members::new(lists);
        let hard_state = booted.recovered.hard_state;
        let restored = Restored {
            hard_state: HardState { term: hard_state.term, vote: hard_state.vote },
            log,
            configurations: members.configurations(),
        };
        let raft = Raft::restore(member, raft::Options::LOCAL, restored, local, seed);
        let incarnation = FileId::new(u128::from(seed) << 32 | u128::from(self.life) | 1 << 100);
        let identity = wal::Identity { cluster: CLUSTER, member, incarnation };
        let log_options = wal::Options {
            segment_size: plan.segment_size,
            block_size: plan.block_size,
            groups_in_flight_max: wal::GROUPS_IN_FLIGHT_MAX,
            ring_slots: plan.ring_slots,
        };
        let writer = Writer::resume(identity, log_options, &booted.recovered);
        let config = ConsensusConfig {
            proposed_bytes_max: plan.proposed_max,
            write_is_durable: plan.dsync,
            reserve_size: plan.segment_size,
            next_slot: slots.last().map_or(0, |last| last + 1),
            seed,
            reactors: 1,
            torn: booted
                .recovered
                .tail
                .as_ref()
                .and_then(|tail| tail.promised)
                .map(|(index, term)| raft::Position { index, term }),
            for_peers: plan.for_peers,
            transfer_rate: plan.transfer_rate,
            lease_per_key: false,
            strict_removals: true,
            alone: false,
            introduction: Introduction {
                cluster: CLUSTER,
                member,
                data_id: self.data_id,
                start_id: seed.rotate_left(17),
                client_address: self.client_address.clone(),
                peer_address: self.address.clone(),
                name: String::new(),
            },
        };
        let committed = raft.log().committed().get();
        let membership = raft.membership().clone();
        let allocate = || Box::new(|size| vec![0xEE; size]);
        let consensus = Consensus::new(config, raft, writer, allocate(), booted.tail, members);
        let config = StoreConfig {
            reactors: 1,
            cluster: CLUSTER,
            member,
            checkpoint: CheckpointConfig {
                log_size: plan.checkpoint_log,
                dirty_size: plan.cache_size / 4,
                interval: Duration::from_nanos(plan.checkpoint_interval),
                room_min: 768 << 10,
                quota_size: 0,
            },
            dirty_size_max: plan.cache_size / 2,
            read_slice: plan.read_slice,
            history: plan.watchers.history,
            retention: plan.retention,
            pages: options,
        };
        let store = Store::new(config, state, booted.published, allocate(), local);
        let reactor = Reactor::new(ReactorConfig {
            id: ReactorId::new(0),
            cluster: CLUSTER,
            member,
            value_size_max: VALUE_MAX,
            bytes_max: plan.proposed_max,
            txn_ops_max: base::limits::TXN_OPS_MAX_DEFAULT,
            connections_max: 1_000,
            clients_max: plan.clients_max,
        });
        let mut process = Box::new(Process {
            reactor,
            consensus,
            store,
            to_reactor: Default::default(),
            to_consensus: Default::default(),
            to_store: Default::default(),
            wake: [u64::MAX; 3],
            clock,
            declined: 0,
            links: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_link: 0,
            free_slots: Vec::new(),
            group_parts: BTreeMap::new(),
            mark: 0,
            seen: Seen::default(),
            pages: Name::Pages,
            committed,
            applied: applied.get(),
            read_floor: 0,
            leads: 0,
            membership,
        });
        process.to_consensus[FROM_NET].push_back(ConsensusEvent::Start);
        self.process = Some(process);
        self.absence = Absence::Down;
        Ok(())
    }
}

/// The name of the machine with this number.
pub fn name_of(number: usize) -> String {
    format!("m{number}")
}

/// Where other members find it.
pub fn address_of(number: usize) -> String {
    format!("10.0.0.{number}:1000")
}

/// What a role may be asked for by number.
pub fn deadline(process: &Process, role: usize) -> Option<Instant> {
    match role {
        REACTOR => process.reactor.deadline(),
        CONSENSUS => process.consensus.deadline(),
        _ => process.store.deadline(),
    }
}

/// The last entries that a start has applied. The one that committed them may have ended before it handed
/// them to its store, so that nobody has seen them yet.
fn replayed(booted: &Booted) -> Vec<Committed> {
    let before = booted.tail.before().index;
    let (applied, _) = booted.state.applied();
    let entries = booted.tail.behind(before).take_while(|kept| kept.index <= applied);
    let committed = entries.map(|kept| {
        let payload = EntryKind::decode(kept.kind, &kept.frame).expect("it was applied");
        let (kind, stamp, frame) = (payload.kind, payload.stamp, payload.body);
        let (index, term, hash) = (kept.index, kept.term, kept.hash);
        Committed { index, term, kind, stamp, frame, hash, ticket: None }
    });
    committed.collect()
}
