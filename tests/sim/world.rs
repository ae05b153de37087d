//! The world: all members, clients, the network and the time, moved on by one event after the other, each
//! drawn from one seed.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use base::Prng;
use wire::{Member, MemberList, MemberRole};

use crate::client::Client;
use crate::frames::Frames;
use crate::ghost::Ghost;
use crate::leased::are_over;
use crate::member::{Absence, CONSENSUS, Node, REACTOR, STORE, address_of, name_of};
use crate::network::{Delivery, Network};
use crate::plan::{MS, Plan, SECOND};
use crate::reign::Reign;
use crate::trace::Trace;
use crate::watched::Watched;
use crate::watching::CHANGES_TOLD;

/// What is due at some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A role has its turn.
    Turn { node: usize, life: u32, role: usize },
    /// A disk operation completes.
    Disk { node: usize, life: u32, id: u64 },
    /// Something arrives.
    Deliver { socket: u64, side: usize },
    /// A dial ends.
    Dialed { node: usize, life: u32, dial: u64, address: String },
    /// A client looks around.
    ClientTick { client: usize },
    /// A client reads again.
    ClientReads { client: usize },
    /// A fault of the plan strikes, by its place there.
    Fault { place: usize },
    /// A member is started.
    Start { node: usize },
    /// An orderly stop has had its time.
    Stopped { node: usize, life: u32 },
    /// Walls go away.
    Unwall { walls: Vec<(usize, usize)> },
    /// A disk has space again.
    Space { node: usize },
    /// The leader hands over.
    HandOver,
}

struct Timed {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Everything.
pub struct World {
    pub now: u64,
    queue: BinaryHeap<Reverse<Timed>>,
    next_order: u64,
    pub prng: Prng,
    /// The same for each kind of fault of the plan, so that leaving one out changes nothing else at first:
    /// that is how findings are made smaller.
    chances: Vec<Prng>,
    /// What sessions draw from, so that the rest goes as it would without them.
    pub sessions: Prng,
    /// The same for watches, leases and alarms.
    pub watches: Prng,
    pub leasing: Prng,
    pub alarming: Prng,
    /// Who leads, as far as it was looked at, and since when.
    pub reign: Reign,
    /// When the last disk that has stalled answers what it was asked then.
    pub stalls_until: u64,
    /// The randomness that members get at their start.
    pub seeds: Prng,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub network: Network,
    pub frames: Frames,
    pub ghost: Ghost,
    pub trace: Trace,
    pub violation: Option<String>,
    /// How often each kind of fault struck, and each kind of request was made.
    pub counts: BTreeMap<&'static str, u64>,
    /// Answers by the number of their status.
    pub answers: BTreeMap<u64, u64>,
    pub faults_on: bool,
    /// A member was removed against the advice of the cluster.
    pub is_forced: bool,
    pub asks_on: bool,
    /// How long the longest answer took, and until a leader was there at the end.
    pub longest: u64,
    pub leaderless: u64,
    pub is_over: bool,
    pub events: u64,
}

/// How long everything may take once all is well again.
const LIVENESS: u64 = 40 * SECOND;

/// So much longer while changes are told: a watch from far behind reads a page and then the next where there is
/// next to no cache.
const CATCHING_UP: u64 = 20 * SECOND;

/// How long until there is a leader then.
const LEADERLESS: u64 = 12 * SECOND;

impl World {
    /// The world of a plan, nothing started yet.
    pub fn new(plan: Plan, with_text: bool) -> Self {
        let root = Prng::new(plan.seed);
        let members = (1..=plan.members).map(|id| {
            let number = usize::try_from(id).expect("few members");
            Member {
                id: base::NodeId::new(id),
                name: name_of(number),
                peer_address: address_of(number),
                client_address: String::new(),
                data_id: base::FileId::new(0),
                role: MemberRole::Voter,
            }
        });
        let list = MemberList { next_member: plan.members + 1, members: members.collect() };
        let founders = list.encode().expect("a list of founders is valid");
        let mut prng = root.fork("world");
        let nodes = (1..=plan.members).map(|id| {
            let number = usize::try_from(id).expect("few members");
            Node::new(id, number, founders.clone(), plan.flushes_all, plan.seed)
        });
        let nodes: Vec<Node> = nodes.collect();
        let clients = plan.clients + plan.watchers.clients;
        let clients = (0..clients).map(|_| Client::new()).collect();
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            next_order: 0,
            seeds: root.fork("members"),
            chances: plan.faults.iter().map(|(fault, _)| root.fork(fault.text())).collect(),
            network: Network::new(plan.latency, plan.watchers.send_buffer),
            frames: Frames::default(),
            ghost: Ghost::new(list, plan.canary, plan.retention),
            trace: Trace::new(with_text),
            nodes,
            clients,
            violation: None,
            counts: BTreeMap::new(),
            answers: BTreeMap::new(),
            faults_on: true,
            is_forced: false,
            asks_on: true,
            longest: 0,
            leaderless: 0,
            is_over: false,
            events: 0,
            prng: prng.fork("events"),
            sessions: root.fork("sessions"),
            watches: root.fork("watches"),
            leasing: root.fork("leases"),
            alarming: root.fork("alarms"),
            reign: Reign::default(),
            stalls_until: 0,
            plan,
        };
        world.trace.mix(prng.next_u64());
        for node in 0..world.nodes.len() {
            let at = world.prng.below(300 * MS);
            world.schedule(at, Event::Start { node });
        }
        world.ghost.leases.is_on = world.plan.leases.are_used;
        if world.plan.leases.hands_over_ms > 0 {
            world.schedule(world.plan.leases.hands_over_ms * MS, Event::HandOver);
        }
        for client in 0..world.clients.len() {
            let at = world.prng.below(300 * MS);
            world.schedule(at, Event::ClientTick { client });
        }
        for place in 0..world.plan.faults.len() {
            world.schedule_fault(place);
        }
        world
    }

    /// Puts an event on the calendar.
    pub fn schedule(&mut self, at: u64, event: Event) {
        self.next_order += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Timed { at, order: self.next_order, event }));
    }

    /// When the next fault of a kind strikes.
    pub fn schedule_fault(&mut self, place: usize) {
        let mean = self.plan.faults[place].1;
        let at = self.now + mean / 4 + self.chances[place].below(mean * 3 / 2);
        self.schedule(at, Event::Fault { place });
    }

    /// Something is wrong. The first finding counts.
    pub fn fail(&mut self, text: String) {
        self.trace.tell(self.now, || format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// Something is wrong that a run may go on after, where it was asked to.
    pub fn lenient(&mut self, text: String) {
        if self.plan.strict {
            return self.fail(text);
        }
        self.trace.tell(self.now, || text);
        *self.counts.entry("passed over").or_default() += 1;
    }

    /// Something happened that is worth counting.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Judges.
    pub fn judge(&mut self, verdict: Result<(), String>) {
        if let Err(text) = verdict {
            self.fail(text);
        }
    }

    /// A role has something to do, at about this time.
    pub fn wake_at(&mut self, node: usize, role: usize, at: u64) {
        let life = self.nodes[node].life;
        let at = at.max(self.nodes[node].paused_until);
        let Some(process) = &mut self.nodes[node].process else { return };
        if at < process.wake[role] {
            process.wake[role] = at;
            self.schedule(at, Event::Turn { node, life, role });
        }
    }

    /// A role has something to do.
    pub fn wake_soon(&mut self, node: usize, role: usize) {
        let at = self.now + 1 + self.prng.below(self.plan.turn);
        self.wake_at(node, role, at);
    }

    /// Puts what the network wants delivered on the calendar.
    pub fn flush_network(&mut self) {
        while let Some((at, socket, side)) = self.network.due.pop() {
            self.schedule(at, Event::Deliver { socket, side });
        }
    }

    /// Runs to the end, or to the first finding.
    pub fn run(&mut self) {
        let end = self.plan.duration;
        while self.violation.is_none() && self.now < end && self.step() {}
        if self.violation.is_some() {
            return;
        }
        self.heal();
        let healed = self.now;
        let (mut until, mut told) = (healed + LIVENESS, 0);
        let mut looked = 0;
        while self.violation.is_none() && self.step() {
            if self.now < looked + 20 * MS {
                continue;
            }
            looked = self.now;
            self.check_leases();
            if self.leaderless == 0 && self.leader().is_some() {
                self.leaderless = (self.now - healed).max(1);
            }
            if self.leaderless == 0 && self.now > healed + LEADERLESS && self.is_undecidable() {
                *self.counts.entry("waits for the damaged member").or_default() += 1;
                self.is_over = true;
                return;
            }
            if self.leaderless == 0 && self.now > healed + LEADERLESS {
                let text = self.standing();
                self.fail(format!("liveness: no leader {LEADERLESS} ns after all is well: {text}"));
            }
            if self.now > healed + self.plan.aftermath && self.leaderless > 0 {
                self.asks_on = false;
            }
            let model = &self.ghost.model;
            let are_over = are_over(model) && self.ghost.retained.is_done(model);
            if !self.asks_on && are_over && self.is_settled() {
                self.is_over = true;
                for node in 0..self.nodes.len() {
                    if let Some(process) = &self.nodes[node].process {
                        self.check_pages(node, process.pages);
                    }
                }
                return;
            }
            let tells = self.counts.get(CHANGES_TOLD).copied().unwrap_or(0);
            if self.now > until && std::mem::replace(&mut told, tells) < tells {
                until += CATCHING_UP;
            } else if self.now > until {
                let text = self.standing();
                self.fail(format!(
                    "liveness: not settled {} ns after all is well: {text}",
                    self.now - healed
                ));
            }
        }
    }

    /// A member is gone for good by damage, or another one by force, and one that is left may have
    /// forgotten what only that one could tell: an operator has to say that the cluster goes on. Or not all
    /// founders had taken part yet when another one lost the end of its log, and each waits for the others.
    fn is_undecidable(&self) -> bool {
        let is_gone = |node: &Node| node.absence == Absence::Damaged;
        let abstains =
            |node: &Node| node.process.as_ref().is_some_and(|process| process.consensus.abstains());
        let lacks_some = self.is_forced || self.nodes.iter().any(is_gone);
        let is_young = self.nodes.iter().filter(|node| !node.has_begun).any(abstains)
            && self.nodes.iter().filter(|node| node.has_begun).any(abstains);
        (lacks_some && self.nodes.iter().any(abstains)) || is_young
    }

    /// Whether leases have ended that had to.
    fn check_leases(&mut self) {
        if self.look_who_leads() {
            let verdict = self.ghost.leases.check_late(&self.ghost.model, &self.reign, self.now);
            self.judge(verdict);
        }
    }

    fn step(&mut self) -> bool {
        let Some(Reverse(Timed { at, event, .. })) = self.queue.pop() else { return false };
        self.now = at;
        self.ghost.now = at;
        self.events += 1;
        match event {
            Event::Turn { node, life, role } => self.role_turn(node, life, role),
            Event::Disk { node, life, id } => self.disk_done(node, life, id),
            Event::Deliver { socket, side } => {
                if let Some(delivery) = self.network.deliver(self.now, socket, side) {
                    let Delivery { to, item, drained } = delivery;
                    self.delivered(to, item);
                    if let Some(sender) = drained {
                        self.drained(sender);
                    }
                }
                self.flush_network();
            }
            Event::Dialed { node, life, dial, address } => self.dialed(node, life, dial, &address),
            Event::ClientTick { client } => self.client_tick(client),
            Event::ClientReads { client } => self.client_reads(client),
            Event::Fault { place } => {
                if self.faults_on {
                    std::mem::swap(&mut self.prng, &mut self.chances[place]);
                    self.strike(place);
                    std::mem::swap(&mut self.prng, &mut self.chances[place]);
                    self.schedule_fault(place);
                }
            }
            Event::Start { node } => self.start(node),
            Event::Stopped { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].process.is_some() {
                    self.end_process(node, false);
                    self.start_later(node);
                }
            }
            Event::Unwall { walls } => {
                for (from, to) in walls {
                    self.network.unwall(self.now, from, to);
                }
                self.flush_network();
            }
            Event::Space { node } => self.nodes[node].disk.is_full = false,
            Event::HandOver => self.hand_over_by_the_clock(),
        }
        true
    }

    // ------------------------------------------------------------------ the end

    fn heal(&mut self) {
        self.faults_on = false;
        self.trace.tell(self.now, || "all is well from here on".to_string());
        self.network.heal(self.now);
        self.frames.end();
        self.flush_network();
        for node in 0..self.nodes.len() {
            let machine = &mut self.nodes[node];
            machine.paused_until = 0;
            machine.disk_stalled_until = 0;
            machine.disk_slow_until = 0;
            machine.loops_until = 0;
            machine.crash = None;
            machine.disk.armed = None;
            machine.disk.is_full = false;
            machine.read_fails = false;
            machine.write_fails = false;
            machine.sync_fails = false;
            if self.nodes[node].process.is_none() {
                self.schedule(self.now + MS, Event::Start { node });
            } else {
                for role in [REACTOR, CONSENSUS, STORE] {
                    self.wake_soon(node, role);
                }
            }
        }
    }

    /// The leader that can serve, if there is one.
    pub fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| {
            node.process.as_ref().is_some_and(|process| {
                let raft = process.consensus.raft();
                raft.role() == raft::RoleName::Leader && raft.read_index().is_some()
            })
        })
    }

    /// Whether all is answered and all members agree.
    fn is_settled(&self) -> bool {
        let quiet = self.clients.iter().all(|client| client.waiting() == 0);
        let last = self.ghost.log.len() as u64;
        let Some(leader) = self.leader() else { return false };
        let leads = self.nodes[leader].process.as_ref();
        let ended = leads.is_some_and(|process| {
            process.consensus.raft().log().committed() == process.consensus.raft().log().last()
        });
        let is_there = |member: &Member| {
            let node = self.nodes.iter().find(|node| node.id == member.id.get());
            let Some(node) = node else { return false };
            if node.absence == Absence::Damaged {
                return true;
            }
            match &node.process {
                None => false,
                Some(process) => {
                    let (applied, _) = process.store.state().applied();
                    let durable = process.consensus.durable_lsn();
                    applied.get() == last && (node.is_damaged || node.disk.watermark() >= durable)
                }
            }
        };
        let whole = !self.ghost.members.is_joint();
        quiet
            && ended
            && whole
            && self.watches_are_settled()
            && self.ghost.members.members.iter().all(is_there)
    }

    /// How things stand, for people.
    pub fn standing(&self) -> String {
        let model = &self.ghost.model;
        let (entries, revision) = (self.ghost.log.len(), model.revision);
        let mut text =
            format!("log {entries} entries, revision {revision}, compacted {}; ", model.compacted);
        for node in &self.nodes {
            text.push_str(&match &node.process {
                None => format!("member {}: {:?}; ", node.id, node.absence),
                Some(process) => {
                    let raft = process.consensus.raft();
                    let peers: Vec<String> = raft
                        .peers()
                        .iter()
                        .map(|peer| {
                            format!(
                                "{}: {:?} matched {} active {}",
                                peer.id().get(),
                                peer.pace(),
                                peer.matched(),
                                peer.is_active()
                            )
                        })
                        .collect();
                    format!(
                        "member {}: {:?} term {} last {} committed {} applied {} leader {:?} voters \
                         {:?} learners {:?} peers {peers:?}; ",
                        node.id,
                        raft.role(),
                        raft.term(),
                        raft.log().last(),
                        raft.log().committed(),
                        process.store.state().applied().0,
                        raft.leader().map(base::NodeId::get),
                        raft.membership().voters(),
                        raft.membership().learners(),
                    )
                }
            });
        }
        for (number, client) in self.clients.iter().enumerate() {
            if client.waiting() > 0 {
                text.push_str(&format!(
                    "client {number} waits for {} answers of member {}; ",
                    client.waiting(),
                    client.node + 1
                ));
            }
            let lacks = |watched: &&Watched| !self.is_settled_watch(watched);
            for watched in client.watches.iter().filter(lacks) {
                text.push_str(&format!(
                    "client {number}, revision {}, member {}: {watched:?}; ",
                    self.ghost.model.revision,
                    client.node + 1
                ));
            }
        }
        text
    }
}
