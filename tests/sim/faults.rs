//! Faults, as they strike.

use node::{ConsensusEvent, ReactorEvent};

use crate::damage::Armed;
use crate::member::{CONSENSUS, Crash, FROM_NET, Io, REACTOR, STORE};
use crate::network::CLIENT_HOSTS;
use crate::plan::{Fault, MS, SECOND, harms_for_good};
use crate::world::{Event, World};

impl World {
    fn any_node(&mut self) -> usize {
        let count = self.nodes.len() as u64;
        usize::try_from(self.prng.below(count)).expect("few members")
    }

    /// Leaders are worth more.
    fn target(&mut self) -> usize {
        if self.prng.one_in(2) {
            let leads = |node: &crate::member::Node| {
                node.process.as_ref().is_some_and(|process| process.leads > 0)
            };
            if let Some(node) = self.nodes.iter().position(leads) {
                return node;
            }
        }
        self.any_node()
    }

    fn end_and_restart(&mut self, node: usize, with_power: bool) {
        if self.nodes[node].process.is_some() {
            self.end_process(node, with_power);
            self.start_later(node);
        } else if with_power {
            self.cut_power(node);
        }
    }

    /// A fault of the plan strikes.
    pub fn strike(&mut self, place: usize) {
        let fault = self.plan.faults[place].0;
        let node = self.target();
        self.trace.mix(0xFA << 8 | place as u64);
        self.trace.tell(self.now, || format!("FAULT {} (member {})", fault.text(), node + 1));
        let now = self.now;
        let mut struck = true;
        for node in &mut self.nodes {
            node.has_begun |= node.process.as_ref().is_some_and(|p| !p.consensus.abstains());
        }
        match fault {
            // A founder that has taken part in nothing does not vote beside a log before a leader has
            // brought it up: with one other lost for good, nobody could.
            fault if harms_for_good(fault) && !self.nodes.iter().all(|node| node.has_begun) => {
                struck = false;
            }
            Fault::Kill => self.end_and_restart(node, false),
            Fault::PowerCut => self.end_and_restart(node, true),
            Fault::BlackOut => {
                for node in 0..self.nodes.len() {
                    if !self.prng.one_in(6) {
                        self.end_and_restart(node, true);
                    }
                }
            }
            Fault::RestartLoop => {
                self.nodes[node].loops_until = now + self.prng.below(3 * SECOND);
                self.end_and_restart(node, false);
            }
            Fault::Stop => {
                let life = self.nodes[node].life;
                let Some(process) = &mut self.nodes[node].process else { return };
                process.to_consensus[FROM_NET].push_back(ConsensusEvent::Stop);
                process.to_reactor[FROM_NET].push_back(ReactorEvent::Stop);
                self.wake_soon(node, CONSENSUS);
                self.wake_soon(node, REACTOR);
                self.schedule(now + 1_200 * MS, Event::Stopped { node, life });
            }
            Fault::Pause => {
                let nanos = if self.prng.one_in(3) { 4 * SECOND } else { 600 * MS };
                self.nodes[node].paused_until = now + self.prng.below(nanos);
            }
            Fault::ClockJump => {
                let nanos = if self.prng.one_in(3) { 20 * SECOND } else { 500 * MS };
                let nanos = self.prng.below(nanos);
                if let Some(process) = &mut self.nodes[node].process {
                    process.clock.jump(now, nanos);
                    self.ghost.leases.leaps.push((now, nanos));
                }
                for role in [REACTOR, CONSENSUS, STORE] {
                    self.wake_soon(node, role);
                }
            }
            Fault::ClockDrift => {
                // From its next start on.
                let ppm = i64::try_from(self.prng.below(200_001)).expect("small") - 100_000;
                self.nodes[node].ppm = if self.prng.one_in(2) { ppm } else { ppm / 200 };
                self.ghost.leases.drift = 100_000;
            }
            Fault::BreakLink => {
                struck = self.network.sever_any(now, &mut self.prng).is_some();
                self.flush_network();
            }
            Fault::DialFailure => struck = false,
            Fault::OneWay => {
                let other = self.any_node();
                if other != node {
                    self.partition(vec![(node, other)]);
                }
            }
            Fault::Split => {
                let groups: Vec<u64> = self.nodes.iter().map(|_| self.prng.below(2)).collect();
                self.partition_by(|a, b| groups[a] != groups[b]);
            }
            Fault::Isolate => {
                self.partition_by(|a, b| (a == node) != (b == node));
                if self.prng.one_in(3) {
                    let clients = 0..self.clients.len();
                    let walls =
                        clients.flat_map(|c| [(node, CLIENT_HOSTS + c), (CLIENT_HOSTS + c, node)]);
                    let walls = walls.collect();
                    self.partition(walls);
                }
            }
            Fault::Rolling => {
                let term = |node: &crate::member::Node| node.process.as_ref().map(|p| p.leads);
                let leader = (0..self.nodes.len()).max_by_key(|&node| term(&self.nodes[node]));
                let leader = leader.unwrap_or(node);
                // Sometimes it comes back about when it learns that it does not lead any more.
                let short = 150 * MS + self.prng.below(350 * MS);
                let long = self.plan.faults[place].1;
                let until = now + if self.prng.one_in(2) { short } else { long };
                let count = self.nodes.len();
                let others = (0..count).filter(|&other| other != leader);
                let walls = others.flat_map(|other| [(leader, other), (other, leader)]).collect();
                self.wall_until(walls, until);
            }
            Fault::Bridge => {
                let groups: Vec<u64> = self.nodes.iter().map(|_| self.prng.below(2)).collect();
                self.partition_by(|a, b| a != node && b != node && groups[a] != groups[b]);
            }
            Fault::Delay => self.network.slow[node] = now + self.prng.below(2 * SECOND),
            Fault::SlowDisk => {
                self.nodes[node].disk_slow_until = now + self.prng.below(3 * SECOND);
            }
            Fault::Stall => {
                let until = now + self.prng.below(3 * SECOND);
                self.nodes[node].disk_stalled_until = until;
                self.stalls_until = self.stalls_until.max(until);
            }
            Fault::WriteError => self.nodes[node].write_fails = true,
            Fault::SyncError => self.nodes[node].sync_fails = true,
            Fault::ReadError => {
                // Of one member only, as with damage: a copy of everything stays readable.
                let victim = self.plan.victim;
                self.nodes[victim].read_fails = true;
                self.nodes[victim].is_damaged = true;
                self.end_and_restart(victim, false);
            }
            Fault::NoSpace => {
                self.nodes[node].disk.is_full = true;
                let at = now + self.prng.below(4 * SECOND);
                self.schedule(at, Event::Space { node });
            }
            Fault::Rot => {
                // One member's only: the others keep a copy of everything.
                let (victim, file) = (self.plan.victim, self.plan.victim_file);
                let text = self.nodes[victim].disk.rot(file, &mut self.prng);
                struck = text.is_some();
                self.nodes[victim].is_damaged |= struck;
                self.trace.tell(now, || format!("damage: {text:?}"));
                if self.prng.one_in(2) {
                    self.end_and_restart(victim, false);
                }
            }
            Fault::Misdirect | Fault::Stale => {
                // Counted when it comes to pass.
                struck = false;
                let (victim, file) = (self.plan.victim, self.plan.victim_file);
                let of_read = fault == Fault::Misdirect && self.prng.one_in(3);
                let armed = Armed { fault, victim: file, of_read };
                self.nodes[victim].disk.armed = Some(armed);
                if of_read && self.prng.one_in(2) {
                    self.end_and_restart(victim, false);
                }
            }
            Fault::CrashAtIo => {
                struck = false;
                let io = [Io::Any, Io::Wal, Io::Pages, Io::Sync, Io::Directory, Io::Start];
                let io = io[usize::try_from(self.prng.below(6)).expect("a few")];
                let rare = matches!(io, Io::Directory | Io::Start);
                let left = self.prng.below(if rare { 4 } else { 40 });
                let (completed, with_power) = (self.prng.one_in(2), self.prng.one_in(2));
                self.nodes[node].crash = Some(Crash { io, left, completed, with_power });
                if io == Io::Start {
                    self.end_and_restart(node, with_power);
                }
            }
            Fault::Loss | Fault::Double | Fault::Reorder => {
                // Counted frame by frame.
                struck = false;
                let until = now + self.prng.below(3 * SECOND);
                let odds = 2 + self.prng.below(12);
                self.frames.begin(fault, node, until, odds);
            }
            Fault::Members | Fault::MoveLeader => struck = false,
            Fault::Hangup => {
                let client = self.any_client();
                self.client_leaves(client);
            }
            Fault::SlowReader => {
                let client = self.any_client();
                let nanos = self.prng.below(3 * SECOND);
                self.client_dozes(client, nanos);
            }
        }
        if struck {
            *self.counts.entry(fault.text()).or_default() += 1;
        }
    }

    /// A state is put in place in a few steps, one of which must be the last that a crash lets happen.
    pub fn strike_install(&mut self, node: usize) {
        if self.plan.has(Fault::CrashAtIo) && self.prng.one_in(3) {
            let left = self.prng.below(8);
            let (completed, with_power) = (self.prng.one_in(2), self.prng.one_in(2));
            self.nodes[node].crash = Some(Crash { io: Io::Any, left, completed, with_power });
        }
    }

    fn any_client(&mut self) -> usize {
        let count = self.clients.len() as u64;
        usize::try_from(self.prng.below(count)).expect("few clients")
    }

    fn partition_by(&mut self, apart: impl Fn(usize, usize) -> bool) {
        let count = self.nodes.len();
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let walls = pairs.filter(|&(a, b)| a != b && apart(a, b)).collect();
        self.partition(walls);
    }

    fn partition(&mut self, walls: Vec<(usize, usize)>) {
        let nanos = if self.prng.one_in(4) { 8 * SECOND } else { 2 * SECOND };
        let until = self.now + self.prng.below(nanos);
        self.wall_until(walls, until);
    }

    /// Walls between machines, for a while.
    pub fn wall_until(&mut self, walls: Vec<(usize, usize)>, until: u64) {
        for &(from, to) in &walls {
            self.network.wall(from, to);
        }
        self.schedule(until, Event::Unwall { walls });
    }
}
