//! The other implementation, with disks and links like those of `world`, and both beside each other.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Duration, Prng, Term};
use oracle::eraftpb::{
    ConfState, Entry as TheirEntry, EntryType, HardState as TheirState, Message as TheirMessage,
    MessageType,
};
use oracle::storage::MemStorage;
use oracle::{Config, RawNode, StateRole};
use raft::{HardState, Input, Options, RoleName};

use crate::world::{World, node};

pub const OPTIONS: Options = Options {
    // Time passes as the tests say.
    election_timeout: Duration::from_millis(1_000_000),
    heartbeat_interval: Duration::from_millis(1),
    pre_vote: true,
    append_entries_max: 1_000,
    append_bytes_max: 1_000_000,
    in_flight_max: 64,
    in_flight_bytes_max: 64_000_000,
};

pub const THEIR_TIMEOUT: usize = 1_000;

/// What is on its way to a disk of theirs.
pub struct TheirWrite {
    pub number: u64,
    pub state: Option<TheirState>,
    pub entries: Vec<TheirEntry>,
    pub messages: Vec<TheirMessage>,
}

/// One member of theirs with its disk.
pub struct Peer {
    pub node: Option<RawNode<MemStorage>>,
    pub state: TheirState,
    pub log: Vec<TheirEntry>,
    pub writes: VecDeque<TheirWrite>,
}

pub struct Theirs {
    pub membership: ConfState,
    pub pre_vote: bool,
    pub peers: BTreeMap<u64, Peer>,
    pub sent: VecDeque<TheirMessage>,
}

pub fn entry(index: usize, term: u64) -> TheirEntry {
    let mut entry = TheirEntry::default();
    entry.set_entry_type(EntryType::EntryNormal);
    entry.index = index as u64;
    entry.term = term;
    entry
}

impl Theirs {
    pub fn new(ids: &[u64], membership: ConfState, pre_vote: bool) -> Self {
        let mut theirs =
            Self { membership, pre_vote, peers: BTreeMap::new(), sent: VecDeque::new() };
        for &id in ids {
            let (state, log) = (TheirState::default(), Vec::new());
            theirs.peers.insert(id, Peer { node: None, state, log, writes: VecDeque::new() });
            theirs.restart(id);
        }
        theirs
    }

    pub fn of_voters(voters: &[u64], pre_vote: bool) -> Self {
        let membership = ConfState { voters: voters.to_vec(), ..ConfState::default() };
        Self::new(voters, membership, pre_vote)
    }

    /// Gives a member that has not begun a log, a term and a vote (zero is none).
    pub fn preset(&mut self, id: u64, terms: &[u64], committed: usize, term: u64, vote: u64) {
        let peer = self.peers.get_mut(&id).expect("a member");
        peer.log = terms.iter().enumerate().map(|(i, &term)| entry(i + 1, term)).collect();
        peer.state = TheirState { term, vote, commit: committed as u64, ..TheirState::default() };
        self.crash(id);
        self.restart(id);
    }

    pub fn crash(&mut self, id: u64) {
        let peer = self.peers.get_mut(&id).expect("a member");
        peer.node = None;
        peer.writes.clear();
    }

    pub fn restart(&mut self, id: u64) {
        let store = MemStorage::new_with_conf_state(self.membership.clone());
        let peer = self.peers.get_mut(&id).expect("a member");
        store.wl().set_hardstate(peer.state.clone());
        store.wl().append(&peer.log).expect("no gap");
        let config = Config {
            id,
            election_tick: THEIR_TIMEOUT,
            heartbeat_tick: 1,
            check_quorum: true,
            pre_vote: self.pre_vote,
            max_inflight_msgs: 64,
            max_size_per_msg: u64::MAX,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        peer.node = Some(RawNode::new(&config, store, &logger).expect("a valid state"));
    }

    pub fn node(&self, id: u64) -> &RawNode<MemStorage> {
        self.peers[&id].node.as_ref().expect("up")
    }

    pub fn node_mut(&mut self, id: u64) -> &mut RawNode<MemStorage> {
        self.peers.get_mut(&id).expect("a member").node.as_mut().expect("up")
    }

    pub fn leads(&self, id: u64) -> bool {
        self.peers[&id].node.as_ref().is_some_and(|node| node.raft.state == StateRole::Leader)
    }

    /// Takes out what a member wants done.
    pub fn pump(&mut self, id: u64) {
        let peer = self.peers.get_mut(&id).expect("a member");
        let node = peer.node.as_mut().expect("up");
        while node.has_ready() {
            let mut ready = node.ready();
            self.sent.extend(ready.take_messages());
            // What raft reads; the disk has it later.
            node.store().wl().append(ready.entries()).expect("no gap");
            if let Some(state) = ready.hs() {
                node.store().wl().set_hardstate(state.clone());
            }
            peer.writes.push_back(TheirWrite {
                number: ready.number(),
                state: ready.hs().cloned(),
                entries: ready.entries().clone(),
                messages: ready.take_persisted_messages(),
            });
            node.advance_append_async(ready);
            node.advance_apply();
        }
    }

    /// Performs the next write of a disk, and tells of it.
    pub fn write(&mut self, id: u64) -> bool {
        let peer = self.peers.get_mut(&id).expect("a member");
        let Some(write) = peer.writes.pop_front() else { return false };
        if let Some(state) = write.state {
            peer.state = state;
        }
        if let Some(first) = write.entries.first() {
            peer.log.truncate(usize::try_from(first.index).expect("small") - 1);
            peer.log.extend(write.entries);
        }
        peer.node.as_mut().expect("up").on_persist_ready(write.number);
        self.sent.extend(write.messages);
        self.pump(id);
        true
    }

    pub fn receive(&mut self, mut message: TheirMessage) {
        let (to, kind) = (message.to, message.get_msg_type());
        if self.peers.get(&to).is_none_or(|peer| peer.node.is_none()) {
            return;
        }
        if matches!(
            kind,
            MessageType::MsgRequestVote
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVoteResponse
        ) {
            message.commit = 0;
            message.commit_term = 0;
        }
        // One for a peer that it does not know is an error, and no harm.
        _ = self.node_mut(to).step(message);
        self.pump(to);
    }

    pub fn terms(&self, id: u64) -> Vec<u64> {
        let raft = &self.node(id).raft;
        let last = raft.raft_log.last_index();
        (1..=last).map(|index| raft.raft_log.term(index).expect("kept")).collect()
    }
}

/// What both say of a member.
#[derive(PartialEq, Eq, Debug)]
pub struct Picture {
    pub leads: bool,
    pub leader: u64,
    pub term: u64,
    pub vote: u64,
    pub committed: u64,
    pub terms: Vec<u64>,
}

pub fn picture_of_ours(world: &World, id: u64) -> Picture {
    let raft = world.raft(id);
    Picture {
        leads: raft.role() == RoleName::Leader,
        leader: raft.leader().map_or(0, |id| id.get()),
        term: raft.term().get(),
        vote: raft.hard_state().vote.map_or(0, |id| id.get()),
        committed: raft.log().committed().get(),
        terms: world.hosts[&id].log.iter().map(|entry| entry.term).collect(),
    }
}

pub fn picture_of_theirs(theirs: &Theirs, id: u64) -> Picture {
    let raft = &theirs.node(id).raft;
    Picture {
        leads: raft.state == StateRole::Leader,
        leader: raft.leader_id,
        term: raft.term,
        vote: raft.vote,
        committed: raft.raft_log.committed,
        terms: theirs.terms(id),
    }
}

pub fn our_state(term: u64, vote: u64) -> HardState {
    HardState { term: Term::new(term), vote: (vote > 0).then(|| node(vote)) }
}

pub fn write_all(world: &mut World, id: u64) {
    while world.write(id) {
        world.report(id);
    }
}

/// The first of those of the lowest term: what a leader does before it learns of a later term must not
/// depend on which of two messages was made first.
pub fn earliest(terms: impl Iterator<Item = u64>) -> Option<usize> {
    terms.enumerate().min_by_key(|&(_, term)| term).map(|(i, _)| i)
}

/// Both, with one schedule.
pub struct Pair {
    pub ours: World,
    pub theirs: Theirs,
    pub voters: Vec<u64>,
    pub cut: BTreeSet<(u64, u64)>,
    pub doubled: BTreeSet<(u64, u64)>,
    pub stalled: BTreeSet<u64>,
}

impl Pair {
    pub fn new(voters: Vec<u64>, pre_vote: bool) -> Self {
        let mut ours = World::new(OPTIONS, &voters, &[]);
        ours.late_timers = true;
        let theirs = Theirs::of_voters(&voters, pre_vote);
        let (cut, doubled, stalled) = Default::default();
        Self { ours, theirs, voters, cut, doubled, stalled }
    }

    pub fn up(&self) -> Vec<u64> {
        self.voters.iter().copied().filter(|&id| self.ours.is_up(id)).collect()
    }

    pub fn copies(&self, link: (u64, u64)) -> u64 {
        if self.cut.contains(&link) { 0 } else { 1 + u64::from(self.doubled.contains(&link)) }
    }

    pub fn settle_ours(&mut self) {
        loop {
            let mut busy = false;
            for id in self.up() {
                if !self.stalled.contains(&id) {
                    write_all(&mut self.ours, id);
                }
                self.ours.input(id, Input::Flush);
                busy |= !self.stalled.contains(&id) && !self.ours.hosts[&id].writes.is_empty();
            }
            let terms = self.ours.sent.iter().map(|packet| packet.message.term().get());
            if let Some(packet) = earliest(terms).and_then(|i| self.ours.sent.remove(i)) {
                busy = true;
                for _ in 0..self.copies((packet.from, packet.to)) {
                    self.ours.receive(packet.clone());
                }
            }
            if !busy {
                return;
            }
        }
    }

    pub fn settle_theirs(&mut self) {
        loop {
            let mut busy = false;
            for id in self.up() {
                self.theirs.pump(id);
                while !self.stalled.contains(&id) && self.theirs.write(id) {
                    busy = true;
                }
            }
            let terms = self.theirs.sent.iter().map(|message| message.term);
            if let Some(message) = earliest(terms).and_then(|i| self.theirs.sent.remove(i)) {
                busy = true;
                for _ in 0..self.copies((message.from, message.to)) {
                    self.theirs.receive(message.clone());
                }
            }
            if !busy {
                return;
            }
        }
    }

    pub fn settle(&mut self) {
        self.settle_ours();
        self.settle_theirs();
    }

    /// Heartbeats of all who lead. Those named in `check` have not asked themselves for an election
    /// time-out whether a quorum hears them.
    pub fn beat(&mut self, check: &BTreeSet<(u64, u64)>) {
        self.ours.now = self.ours.now.after(OPTIONS.heartbeat_interval);
        for id in self.up() {
            if self.ours.raft(id).role() == RoleName::Leader {
                self.ours.input(id, Input::Tick);
            }
            if self.theirs.leads(id) {
                let node = self.theirs.node_mut(id);
                if check.contains(&(id, node.raft.term)) {
                    node.raft.election_elapsed = THEIR_TIMEOUT;
                }
                node.tick();
            }
        }
        self.settle();
    }

    /// An election time-out passes: no lease holds.
    pub fn expire_leases(&mut self) {
        self.ours.now = self.ours.now.after(OPTIONS.election_timeout);
        for id in self.up() {
            if !self.theirs.leads(id) {
                self.theirs.node_mut(id).raft.election_elapsed = THEIR_TIMEOUT;
            }
        }
    }

    pub fn leaders(&self) -> BTreeSet<(u64, u64)> {
        let leads = |id: &u64| self.theirs.leads(*id);
        let leaders = self.up().into_iter().filter(leads);
        leaders.map(|id| (id, self.theirs.node(id).raft.term)).collect()
    }

    /// Links from leaders to members of a later term.
    pub fn deposing(&self) -> BTreeSet<(u64, u64)> {
        let up = self.up();
        let leaders = self.leaders();
        let pairs =
            leaders.iter().flat_map(|&(from, term)| up.iter().map(move |&to| (from, term, to)));
        let later = pairs.filter(|&(_, term, to)| self.theirs.node(to).raft.term > term);
        later.map(|(from, _, to)| (from, to)).collect()
    }

    pub fn campaign(&mut self, id: u64) {
        if self.theirs.pre_vote {
            // A time-out of this member alone.
            let now = self.ours.now;
            let due = self.ours.raft(id).deadline().expect("a voter");
            if now < due {
                return;
            }
            self.ours.input(id, Input::Tick);
        } else {
            self.ours.input(id, Input::Campaign);
        }
        self.theirs.node_mut(id).campaign().expect("a voter");
    }

    pub fn propose(&mut self, id: u64, count: u64) {
        self.ours.input(id, Input::Propose { count });
        for _ in 0..count {
            self.theirs.node_mut(id).propose(Vec::new(), vec![1]).expect("it leads");
            self.theirs.pump(id);
        }
    }

    pub fn crash(&mut self, id: u64) {
        self.ours.crash(id, 0);
        self.theirs.crash(id);
    }

    pub fn restart(&mut self, id: u64, seed: u64) {
        // How much of the commit index survives is the host's to choose.
        let disk = &self.ours.hosts[&id].disk;
        let committed = disk.committed.min(disk.log.len()) as u64;
        self.theirs.peers.get_mut(&id).expect("a member").state.commit = committed;
        self.ours.restart(id, seed);
        self.theirs.restart(id);
    }

    pub fn compare(&self, what: &str) {
        for &id in &self.voters {
            let (disk, peer) = (&self.ours.hosts[&id].disk, &self.theirs.peers[&id]);
            let terms: Vec<u64> = disk.log.iter().map(|entry| entry.term).collect();
            let their_terms: Vec<u64> = peer.log.iter().map(|entry| entry.term).collect();
            assert_eq!(terms, their_terms, "{what}: the log on the disk of {id}");
            let state = our_state(peer.state.term, peer.state.vote);
            assert_eq!(disk.hard_state, state, "{what}: term and vote on the disk of {id}");
            if self.ours.is_up(id) {
                let ours = picture_of_ours(&self.ours, id);
                assert_eq!(ours, picture_of_theirs(&self.theirs, id), "{what}: member {id}");
            }
        }
    }
}

pub fn scale() -> u64 {
    let scale = std::env::var("QUORATE_TEST_SCALE").ok();
    scale.and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

pub fn first_seed() -> u64 {
    let seed = std::env::var("QUORATE_TEST_SEED").ok();
    seed.and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

pub fn some(prng: &mut Prng, ids: &[u64]) -> Option<u64> {
    if ids.is_empty() {
        return None;
    }
    Some(ids[usize::try_from(prng.below(ids.len() as u64)).expect("small")])
}
