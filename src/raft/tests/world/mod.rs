//! Members with their logs and disks in memory, and a checker that knows what all of them do. What is
//! on its way, to a disk or to another member, waits until the test lets it arrive, or not.

#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};

use base::{Instant, LogIndex, NodeId, Prng, Term};
use raft::{
    Configuration, HardState, Input, Log, Membership, Message, Options, Output, Position, Raft,
    Restored, RoleName, TermRun,
};

/// What a log holds in place of payload: a name that no two entries share.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub term: u64,
    pub name: u64,
    pub membership: Option<Membership>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Packet {
    pub from: u64,
    pub to: u64,
    pub message: Message,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Hash, Debug)]
pub enum Write {
    HardState(HardState),
    Entries { first: usize, entries: Vec<Entry>, era: u64, committed: usize },
    Snapshot { entries: Vec<Entry>, era: u64 },
}

/// Entry `i` is at `log[i - 1]`; those up to `base` stand for the state of a snapshot.
#[derive(Clone, Hash, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub log: Vec<Entry>,
    pub base: usize,
    pub committed: usize,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub id: u64,
    /// None while it is down.
    pub raft: Option<Raft>,
    pub log: Vec<Entry>,
    pub disk: Disk,
    /// On their way to the disk, in order.
    pub writes: VecDeque<Write>,
    /// On the disk, and raft has not been told.
    pub reports: VecDeque<Input>,
    pub snapshot_target: Option<u64>,
    /// Tickets of reads: what was committed and the time when they were asked.
    pub reads: BTreeMap<u64, (usize, Instant)>,
    pub granted: Vec<(u64, usize)>,
    pub rejected: Vec<u64>,
    pub refusals: Vec<Output>,
}

/// What is true of the whole cluster.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Entries that have been committed and the term in which that was first known.
    pub committed: Vec<(Entry, u64)>,
    leaders: BTreeMap<u64, u64>,
    /// Name of the entry at (index, term), and the term of the one before.
    written: BTreeMap<(usize, u64), (u64, u64)>,
    /// Who got the vote of (member, term), over the member's whole life.
    votes: BTreeMap<(u64, u64), u64>,
    pub elections: u64,
    pub reads_granted: u64,
    pub changes: u64,
    pub snapshots: u64,
    pub cuts: u64,
}

#[derive(Clone, Debug)]
pub struct World {
    pub now: Instant,
    pub options: Options,
    pub initial: Membership,
    pub hosts: BTreeMap<u64, Host>,
    pub sent: VecDeque<Packet>,
    pub truth: Truth,
    names: u64,
    /// Sends fewer entries than told, now and then.
    pub shorten: Option<Prng>,
    /// Timers may fire late, and then answers are.
    pub late_timers: bool,
    /// Entries are named after who wrote them and where, so that two ways to one state of the
    /// cluster are seen to be that. What a leader that writes twice in one place would do is then
    /// found by [`World::append`].
    pub canonical: bool,
    /// What the members wanted done, for those who want to read it.
    pub trace: Option<Vec<(u64, Output)>>,
}

pub fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

pub fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId::new).collect()
}

pub fn at(index: usize) -> LogIndex {
    LogIndex::new(index as u64)
}

fn number(index: LogIndex) -> usize {
    usize::try_from(index.get()).expect("small")
}

pub fn runs_of(log: &[Entry], base: usize) -> Vec<TermRun> {
    let mut runs: Vec<TermRun> = Vec::new();
    for (i, entry) in log.iter().enumerate().skip(base) {
        if runs.last().is_none_or(|run| run.term.get() != entry.term) {
            runs.push(TermRun { first: at(i + 1), term: Term::new(entry.term) });
        }
    }
    runs
}

impl World {
    pub fn new(options: Options, voters: &[u64], others: &[u64]) -> Self {
        let initial = Membership::of_voters(nodes(voters));
        let mut world = Self {
            now: Instant::from_nanos(1_000_000_000),
            options,
            initial,
            hosts: BTreeMap::new(),
            sent: VecDeque::new(),
            truth: Truth::default(),
            names: 0,
            shorten: None,
            late_timers: false,
            canonical: false,
            trace: None,
        };
        for &id in voters.iter().chain(others) {
            let host = Host {
                id,
                raft: None,
                log: Vec::new(),
                disk: Disk::default(),
                writes: VecDeque::new(),
                reports: VecDeque::new(),
                snapshot_target: None,
                reads: BTreeMap::new(),
                granted: Vec::new(),
                rejected: Vec::new(),
                refusals: Vec::new(),
            };
            world.hosts.insert(id, host);
            world.restart(id, id);
        }
        world
    }

    /// Gives a member that has not begun a log and a term.
    pub fn preset(&mut self, id: u64, terms: &[u64], hard_state: HardState) {
        let mut log = Vec::new();
        for (i, &term) in terms.iter().enumerate() {
            let name = match self.truth.written.get(&(i + 1, term)) {
                Some(&(name, _)) => name,
                None => self.name(),
            };
            log.push(Entry { term, name, membership: None });
        }
        let host = self.hosts.get_mut(&id).expect("a member");
        host.disk.log = log;
        host.disk.hard_state = hard_state;
        self.crash(id, 0);
        self.restart(id, id);
        self.note(id, 1);
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub fn raft(&self, id: u64) -> &Raft {
        self.hosts[&id].raft.as_ref().expect("up")
    }

    pub fn is_up(&self, id: u64) -> bool {
        self.hosts[&id].raft.is_some()
    }

    pub fn leader(&self) -> Option<u64> {
        let leads = |raft: &&Raft| raft.role() == RoleName::Leader;
        let rafts = self.hosts.values().filter_map(|host| host.raft.as_ref());
        rafts.filter(leads).max_by_key(|raft| raft.term()).map(|raft| raft.id().get())
    }

    /// Loses what is not on the disk, but for the first `survive` writes on their way to it.
    pub fn crash(&mut self, id: u64, survive: usize) {
        let host = self.hosts.get_mut(&id).expect("a member");
        for _ in 0..survive {
            if let Some(write) = host.writes.pop_front() {
                host.disk.perform(write);
            }
        }
        host.raft = None;
        host.writes.clear();
        host.reports.clear();
        host.reads.clear();
    }

    pub fn restart(&mut self, id: u64, seed: u64) {
        let (now, options) = (self.now, self.options);
        let initial = self.initial.clone();
        let host = self.hosts.get_mut(&id).expect("a member");
        assert!(host.raft.is_none(), "{id} is up");
        host.log = host.disk.log.clone();
        let base = host.disk.base;
        let mut configurations = vec![configuration_at(&initial, &host.log, base)];
        for (i, entry) in host.log.iter().enumerate().skip(base) {
            if let Some(membership) = entry.membership.clone() {
                configurations.push(Configuration { index: at(i + 1), membership });
            }
        }
        let term = base.checked_sub(1).map_or(0, |i| host.log[i].term);
        let position = Position { index: at(base), term: Term::new(term) };
        let committed = at(host.disk.committed.min(host.log.len()));
        let runs = runs_of(&host.log, base);
        let log = Log::restored(position, runs, at(host.log.len()), committed);
        let restored = Restored { hard_state: host.disk.hard_state, log, configurations };
        host.raft = Some(Raft::restore(node(id), options, restored, now, seed));
    }

    /// Nothing happens to a member that is down.
    pub fn input(&mut self, id: u64, input: Input) {
        if self.is_up(id) {
            self.handle(id, input, Vec::new());
        }
    }

    pub fn receive(&mut self, packet: Packet) {
        let Packet { from, to, mut message, entries } = packet;
        if self.hosts.get(&to).is_none_or(|host| host.raft.is_none()) {
            return;
        }
        if let Message::Append { previous, configurations, .. } = &mut message {
            for (i, entry) in entries.iter().enumerate() {
                if let Some(membership) = entry.membership.clone() {
                    let index = previous.index.advance(i as u64 + 1);
                    configurations.push(Configuration { index, membership });
                }
            }
        }
        self.handle(to, Input::Receive { from: node(from), message }, entries);
    }

    pub fn read(&mut self, id: u64) -> u64 {
        let ticket = self.name();
        let floor = self.truth.committed.len();
        let now = self.now;
        let host = self.hosts.get_mut(&id).expect("a member");
        host.reads.insert(ticket, (floor, now));
        self.input(id, Input::Read { ticket });
        ticket
    }

    /// Raft forgets entries up to `index`: the state on the disk covers them.
    pub fn compact(&mut self, id: u64, index: usize) {
        let host = self.hosts.get_mut(&id).expect("a member");
        let covered = index <= host.disk.log.len() && index <= number(host.committed());
        if covered && index > host.disk.base && host.disk.log[..index] == host.log[..index] {
            host.disk.base = index;
            host.disk.committed = host.disk.committed.max(index);
            self.input(id, Input::Compacted { index: at(index) });
        }
    }

    /// Performs the next write of a disk.
    pub fn write(&mut self, id: u64) -> bool {
        let host = self.hosts.get_mut(&id).expect("a member");
        let Some(write) = host.writes.pop_front() else { return false };
        let report = host.disk.perform(write);
        host.reports.push_back(report);
        true
    }

    /// Tells raft of the next write that was performed.
    pub fn report(&mut self, id: u64) -> bool {
        let host = self.hosts.get_mut(&id).expect("a member");
        let Some(report) = host.reports.pop_front() else { return false };
        self.input(id, report);
        true
    }

    fn handle(&mut self, id: u64, input: Input, mut entries: Vec<Entry>) {
        let mut outputs = Vec::new();
        let now = self.now;
        // The index of the first of `entries`.
        let first_entry = match &input {
            Input::Receive { message: Message::Append { previous, .. }, .. } => {
                number(previous.index) + 1
            }
            _ => 1,
        };
        let host = self.hosts.get_mut(&id).expect("a member");
        host.raft.as_mut().expect("up").handle(now, input, &mut outputs);
        for output in outputs {
            if let Some(trace) = &mut self.trace {
                trace.push((id, output.clone()));
            }
            match output {
                Output::SaveHardState(state) => {
                    self.host(id).writes.push_back(Write::HardState(state))
                }
                Output::AppendEmpty { index, term } => self.append(id, index, term, None),
                Output::AppendMembership { index, term, membership } => {
                    self.truth.changes += 1;
                    self.append(id, index, term, Some(membership));
                }
                Output::Proposed { first, count, term } => {
                    for i in 0..count {
                        self.append(id, first.advance(i), term, None);
                    }
                }
                Output::Append { first, last, cut } => {
                    let (first, last) = (number(first), number(last));
                    let from = first - first_entry;
                    let new = entries[from..last + 1 - first_entry].to_vec();
                    let host = self.host(id);
                    assert_eq!(cut, first <= host.log.len(), "{id} cuts at {first}");
                    host.log.truncate(first - 1);
                    host.log.extend(new.iter().cloned());
                    host.issue(first, new);
                    self.truth.cuts += u64::from(cut);
                    self.note(id, first);
                }
                Output::Install { last } => {
                    self.truth.snapshots += 1;
                    let host = self.host(id);
                    assert_eq!(entries.len(), number(last.index));
                    host.log = std::mem::take(&mut entries);
                    let era = host.raft.as_ref().expect("up").log().era();
                    host.writes.push_back(Write::Snapshot { entries: host.log.clone(), era });
                    self.note(id, 1);
                    self.committed(id, number(last.index));
                }
                Output::Send { to, message } => self.send(id, to.get(), message),
                Output::SendSnapshot { to } => {
                    let initial = self.initial.clone();
                    let host = self.host(id);
                    let committed = number(host.committed());
                    let entries = host.log[..committed].to_vec();
                    let index = at(committed);
                    let term = Term::new(entries[committed - 1].term);
                    let last = Position { index, term };
                    let configuration = configuration_at(&initial, &entries, committed);
                    let term = host.raft.as_ref().expect("up").term();
                    let message = Message::Snapshot { term, last, configuration };
                    self.sent.push_back(Packet { from: id, to: to.get(), message, entries });
                    self.handle(id, Input::SnapshotBegun { to, index }, Vec::new());
                }
                Output::Committed { index } => self.committed(id, number(index)),
                Output::Leading { term } => self.leading(id, term.get()),
                Output::Following { .. } => {}
                Output::ReadGranted { ticket, index } => {
                    let host = self.hosts.get_mut(&id).expect("a member");
                    let (floor, asked) = host.reads.remove(&ticket).expect("one answer each");
                    let index = number(index);
                    assert!(index >= floor, "{id} granted {index} to a read asked at {floor}");
                    let limit = asked.after(self.options.election_timeout);
                    assert!(self.late_timers || self.now <= limit, "a read was granted late");
                    host.granted.push((ticket, index));
                    self.truth.reads_granted += 1;
                }
                Output::ReadRejected { ticket } => {
                    let host = self.hosts.get_mut(&id).expect("a member");
                    let (_, asked) = host.reads.remove(&ticket).expect("one answer each");
                    let limit = asked.after(self.options.election_timeout);
                    assert!(self.late_timers || self.now <= limit, "a read was rejected late");
                    host.rejected.push(ticket);
                }
                Output::Forgotten { by, index } => {
                    panic!("{id} has forgotten {index:?}, on which {by:?} counts")
                }
                refusal @ (Output::ProposalRefused
                | Output::ChangeRefused(_)
                | Output::TransferFailed { .. }) => self.host(id).refusals.push(refusal),
            }
        }
    }

    fn host(&mut self, id: u64) -> &mut Host {
        self.hosts.get_mut(&id).expect("a member")
    }

    fn append(&mut self, id: u64, index: LogIndex, term: Term, membership: Option<Membership>) {
        let name =
            if self.canonical { (term.get() * 1_000 + index.get()) * 10 + id } else { self.name() };
        let host = self.host(id);
        assert_eq!(host.log.len() + 1, number(index), "the leader's log grows by one");
        let entry = Entry { term: term.get(), name, membership };
        host.log.push(entry.clone());
        host.issue(number(index), vec![entry]);
        self.note(id, number(index));
    }

    fn send(&mut self, from: u64, to: u64, mut message: Message) {
        self.check_promises(from, to, &message);
        let mut entries = Vec::new();
        if let Message::Append { previous, runs, last, .. } = &mut message {
            let first = number(previous.index);
            let named = *last;
            if let Some(prng) = &mut self.shorten {
                let count = previous.index.distance_to(*last);
                if count > 0 && prng.one_in(4) {
                    *last = previous.index.advance(1 + prng.below(count));
                    runs.retain(|run| run.first <= *last);
                }
            }
            let (last, bytes) = (*last, previous.index.distance_to(*last) * 100);
            entries = self.hosts[&from].log[first..number(last)].to_vec();
            if named != previous.index {
                let input = Input::Sent { to: node(to), named, last, bytes };
                self.handle(from, input, Vec::new());
            }
        }
        self.sent.push_back(Packet { from, to, message, entries });
    }

    /// What a message promises is on the disk when it leaves.
    fn check_promises(&mut self, from: u64, to: u64, message: &Message) {
        let host = &self.hosts[&from];
        let state = host.disk.hard_state;
        assert!(state.term >= message_term(message), "{from}: {message:?}");
        let vote = match message {
            Message::VoteReply { granted: true, term } => Some((*term, to)),
            Message::Vote { term, .. } => Some((*term, from)),
            _ => None,
        };
        if let Some((term, to)) = vote {
            let durable = state.term > term || state.vote == Some(node(to));
            assert!(durable, "{from} promised its vote, and has {state:?}: {message:?}");
            let other = *self.truth.votes.entry((from, term.get())).or_insert(to);
            assert_eq!(other, to, "{from} votes twice in {term:?}");
        }
        let host = &self.hosts[&from];
        if let Message::Accepted { matched, .. } | Message::HeartbeatReply { matched, .. } = message
        {
            let n = number(*matched);
            let durable = host.disk.log.len() >= n && host.disk.log[..n] == host.log[..n];
            assert!(durable, "{from} has not written what it acknowledges: {message:?}");
        }
    }

    /// Log matching: an entry of one index and term is the same everywhere, and so is all before it.
    fn note(&mut self, id: u64, first: usize) {
        let host = &self.hosts[&id];
        for (i, entry) in host.log.iter().enumerate().skip(first - 1) {
            let before = i.checked_sub(1).map_or(0, |i| host.log[i].term);
            let what = (entry.name, before);
            let known = *self.truth.written.entry((i + 1, entry.term)).or_insert(what);
            assert_eq!(known, what, "entry {} of term {} on {id}", i + 1, entry.term);
        }
    }

    /// Log matching, for all logs.
    pub fn check_logs(&mut self) {
        let ids: Vec<u64> = self.hosts.keys().copied().collect();
        ids.into_iter().for_each(|id| self.note(id, 1));
    }

    fn leading(&mut self, id: u64, term: u64) {
        let other = self.truth.leaders.insert(term, id);
        assert_eq!(other, None, "two leaders of term {term}: {id} is the second");
        self.truth.elections += 1;
        let log = &self.hosts[&id].log;
        for (i, (entry, known_in)) in self.truth.committed.iter().enumerate() {
            if *known_in < term {
                assert_eq!(log.get(i), Some(entry), "leader {id} of {term} lacks entry {}", i + 1);
            }
        }
    }

    fn committed(&mut self, id: u64, index: usize) {
        let host = &self.hosts[&id];
        let raft = host.raft.as_ref().expect("up");
        for i in 0..index {
            let entry = &host.log[i];
            match self.truth.committed.get(i) {
                Some((known, _)) => assert_eq!(known, entry, "entry {} on {id}", i + 1),
                None => self.truth.committed.push((entry.clone(), raft.term().get())),
            }
        }
    }

    /// What is committed stays on the disks of enough members, whichever of them crash, and no two
    /// quorums that could decide now without each other are disjoint.
    pub fn check_quorums(&self) {
        let committed: Vec<&Entry> = self.truth.committed.iter().map(|(entry, _)| entry).collect();
        let n = committed.len();
        let known = committed.iter().rev().find_map(|entry| entry.membership.as_ref());
        let voters = known.unwrap_or(&self.initial).voters();
        let holds = |id: &&NodeId| {
            let log = &self.hosts[&id.get()].disk.log;
            log.len() >= n && log.iter().zip(&committed).all(|(ours, entry)| ours == *entry)
        };
        let holders = voters.iter().filter(holds).count();
        assert!(holders * 2 > voters.len(), "{holders} of {voters:?} hold all {n} entries");
        for host in self.hosts.values() {
            let changes = host.log.iter().skip(n).filter(|entry| entry.membership.is_some());
            assert!(changes.count() <= 1, "two uncommitted changes on {}", host.id);
        }
        let up = || self.hosts.values().filter_map(|host| Some((host, host.raft.as_ref()?)));
        for (_, leader) in up().filter(|(_, raft)| raft.role() == RoleName::Leader) {
            for (host, other) in up() {
                if leader.membership() != other.membership() {
                    self.check_pair(leader, other, host);
                }
            }
        }
    }

    /// The leader decides with those who know of no later term; the other is elected, or leads, with
    /// those whose logs on disk are no longer than its own.
    fn check_pair(&self, leader: &Raft, other: &Raft, host: &Host) {
        let last = |log: &[Entry]| (log.last().map_or(0, |entry| entry.term), log.len());
        let follow = |host: &Host| host.disk.hard_state.term <= leader.term();
        let may_elect = |voter: &Host| last(&voter.disk.log) <= last(&host.log);
        let ids: Vec<u64> = self.hosts.keys().copied().collect();
        for side in 0..1_u32 << ids.len() {
            let one = |id: NodeId| ids.iter().position(|&i| i == id.get()).expect("a member");
            let here = |id: NodeId| side >> one(id) & 1 == 1 && follow(&self.hosts[&id.get()]);
            let there = |id: NodeId| side >> one(id) & 1 == 0 && may_elect(&self.hosts[&id.get()]);
            let split = leader.membership().is_quorum(here) && other.membership().is_quorum(there);
            let (id, rival) = (leader.id(), other.id());
            assert!(!split, "{id:?} and {rival:?} can decide without each other: {side:b}");
        }
    }

    /// What makes two states of the cluster the same.
    pub fn hash_state(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        for host in self.hosts.values() {
            host.raft.is_some().hash(hasher);
            if let Some(raft) = &host.raft {
                raft.hash_state(hasher);
            }
            (&host.log, &host.disk, &host.writes).hash(hasher);
            for report in &host.reports {
                match report {
                    Input::HardStateDurable(state) => state.hash(hasher),
                    Input::Durable { position, era } => (position, era).hash(hasher),
                    other => unreachable!("no disk says {other:?}"),
                }
            }
            host.reads.values().for_each(|(floor, _)| floor.hash(hasher));
        }
        for (entry, known_in) in &self.truth.committed {
            (entry, known_in).hash(hasher);
        }
        self.truth.leaders.hash(hasher);
    }
}

fn message_term(message: &Message) -> Term {
    match message {
        Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. } => Term::ZERO,
        other => other.term(),
    }
}

fn configuration_at(initial: &Membership, log: &[Entry], index: usize) -> Configuration {
    let found = log[..index].iter().enumerate().rev().find_map(|(i, entry)| {
        let membership = entry.membership.clone()?;
        Some(Configuration { index: at(i + 1), membership })
    });
    found.unwrap_or_else(|| Configuration { index: at(0), membership: initial.clone() })
}

impl Host {
    fn committed(&self) -> LogIndex {
        self.raft.as_ref().expect("up").log().committed()
    }

    fn issue(&mut self, first: usize, entries: Vec<Entry>) {
        let raft = self.raft.as_ref().expect("up");
        let (era, committed) = (raft.log().era(), number(raft.log().committed()));
        self.writes.push_back(Write::Entries { first, entries, era, committed });
    }
}

impl Disk {
    /// The write is durable; what raft is told of it.
    fn perform(&mut self, write: Write) -> Input {
        match write {
            Write::HardState(state) => {
                self.hard_state = state;
                Input::HardStateDurable(state)
            }
            Write::Entries { first, entries, era, committed } => {
                assert!(first > self.base && first <= self.log.len() + 1, "a gap at {first}");
                self.log.truncate(first - 1);
                self.log.extend(entries);
                self.committed = self.committed.max(committed.min(self.log.len()));
                Input::Durable { position: self.last(), era }
            }
            Write::Snapshot { entries, era } => {
                self.base = entries.len();
                self.committed = entries.len();
                self.log = entries;
                Input::Durable { position: self.last(), era }
            }
        }
    }

    fn last(&self) -> Position {
        let term = self.log.last().map_or(0, |entry| entry.term);
        Position { index: at(self.log.len()), term: Term::new(term) }
    }
}
