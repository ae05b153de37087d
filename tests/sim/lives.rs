//! Lives of members: they start, end, stop by themselves, and come in addition.

use node::Committed;

use crate::member::{Absence, CONSENSUS, REACTOR, STORE};
use crate::plan::{Fault, MS, SECOND};
use crate::turns::{LOST_ENTRY, LOST_WRITE, TORN_WRITE};
use crate::world::{Event, World};

impl World {
    /// Starts a member, if it does not run.
    pub fn start(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        if machine.process.is_some() || machine.absence != Absence::Down {
            return;
        }
        machine.life += 1;
        self.ghost.leases.starts += 1;
        let id = machine.id;
        let seed = self.seeds.next_u64();
        let ghost = &mut self.ghost;
        let judge = |recovered: &wal::Recovered, replayed: &[Committed]| {
            ghost.recovered(id, recovered)?;
            // What is not the next one was handed out before, and judged then.
            let next = ghost.log.len() as u64 + 1;
            let first = replayed.iter().position(|entry| entry.index.get() == next);
            first.map_or(Ok(()), |first| ghost.committed(id, &replayed[first..]))
        };
        let started = machine.start(self.now, &self.plan, seed, judge);
        self.trace.mix(seed);
        let struck = self.nodes[node].disk.struck.take();
        self.struck(node, struck);
        let machine = &self.nodes[node];
        let damaged = machine.is_damaged;
        use crate::member::StartError;
        match started {
            Ok(()) => {
                self.trace.tell(self.now, || {
                    let process = self.nodes[node].process.as_ref();
                    let raft = process.map(|process| process.consensus.raft());
                    let last = raft.map(|raft| raft.log().last());
                    let synced = &self.nodes[node].synced;
                    format!("member {id} starts: {last:?}, synced {synced:?}")
                });
                for role in [REACTOR, CONSENSUS, STORE] {
                    self.wake_soon(node, role);
                }
                if self.nodes[node].loops_until > self.now {
                    let at = self.now + self.prng.below(200 * MS);
                    let life = self.nodes[node].life;
                    self.schedule(at, Event::Stopped { node, life });
                }
            }
            Err(StartError::Crashed) => {
                let crash = self.nodes[node].crash.take();
                self.trace.tell(self.now, || format!("member {id}: a crash in its start"));
                self.count(Fault::CrashAtIo.text());
                if crash.is_some_and(|crash| crash.with_power) {
                    self.cut_power(node);
                } else {
                    self.nodes[node].disk.kill(&mut self.prng);
                }
                self.start_later(node);
            }
            Err(StartError::Read) => {
                self.trace.tell(self.now, || format!("member {id}: a read failed at its start"));
                self.start_later(node);
            }
            Err(StartError::Refused(text) | StartError::Gap(text)) => {
                self.trace.tell(self.now, || format!("member {id} refuses to start: {text}"));
                if damaged {
                    self.nodes[node].absence = Absence::Damaged;
                    *self.counts.entry("refused after damage").or_default() += 1;
                } else {
                    self.fail(format!("member {id} refuses to start: {text}"));
                }
            }
            // It takes part in no vote without having it again; what its disk holds is not followed here.
            Err(StartError::Forgot(_)) if damaged => {
                self.nodes[node].absence = Absence::Damaged;
                *self.counts.entry("forgot after damage, and knows").or_default() += 1;
            }
            Err(StartError::Wrong(_))
                if damaged
                    && (self.ghost.lost_nothing(id)
                        || self.ghost.lost_unseen(id, &machine.disk, machine.lacks_copies)) =>
            {
                self.nodes[node].absence = Absence::Damaged;
                self.count("lost by damage before any witness");
            }
            Err(StartError::Wrong(text)) if damaged => {
                self.nodes[node].absence = Absence::Damaged;
                self.lenient(format!("a damaged member starts without what it had: {text}"));
            }
            Err(StartError::Wrong(text) | StartError::Forgot(text)) => self.fail(text),
        }
    }

    /// It is started again after a while.
    pub fn start_later(&mut self, node: usize) {
        let pause = if !self.faults_on || self.nodes[node].loops_until > self.now {
            self.prng.below(50 * MS)
        } else if self.prng.one_in(3) {
            self.prng.below(3 * SECOND)
        } else {
            self.prng.below(300 * MS)
        };
        self.schedule(self.now + 5 * MS + pause, Event::Start { node });
    }

    /// A process ends.
    pub fn end_process(&mut self, node: usize, with_power: bool) {
        let machine = &mut self.nodes[node];
        let life = machine.life;
        // In the middle of a turn the process is not here; its life tells.
        machine.process = None;
        machine.life += 1;
        machine.paused_until = 0;
        if with_power {
            self.cut_power(node);
        } else {
            self.nodes[node].disk.kill(&mut self.prng);
        }
        self.trace.mix(0xE0D ^ node as u64);
        self.network.process_gone(self.now, node, life, with_power, &mut self.prng);
        self.flush_network();
    }

    /// The power is cut: what was not synced may be lost.
    pub fn cut_power(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.lacks_copies |= self.plan.dsync;
        machine.disk.cut_power(&mut self.prng);
        let disk = &mut machine.disk;
        let taken = [&mut disk.lost_entries, &mut disk.lost_writes, &mut disk.torn_writes];
        let taken = taken.map(std::mem::take);
        for (count, what) in taken.into_iter().zip([LOST_ENTRY, LOST_WRITE, TORN_WRITE]) {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// A member stops by itself.
    pub fn halted(&mut self, node: usize, text: &str) {
        let id = self.nodes[node].id;
        self.trace.tell(self.now, || format!("member {id} halts: {text}"));
        self.end_process(node, false);
        let is_member = self.ghost.members.members.iter().any(|member| member.id.get() == id);
        if text.contains("was removed from the cluster") {
            if is_member {
                // Somebody's list is ahead of what is committed. It is started again.
                *self.counts.entry("halted as removed too early").or_default() += 1;
                self.start_later(node);
            } else {
                self.nodes[node].absence = Absence::Removed;
            }
        } else if self.nodes[node].is_damaged {
            self.nodes[node].absence = Absence::Damaged;
            *self.counts.entry("halted after damage").or_default() += 1;
        } else {
            self.fail(format!("member {id} halts: {text}"));
        }
    }

    /// The committed list of members may have changed: machines for those who are new.
    pub fn note_members(&mut self) {
        let list = self.ghost.members.clone();
        for member in &list.members {
            let id = member.id.get();
            if self.nodes.iter().any(|node| node.id == id) {
                continue;
            }
            let number = member.peer_address.split(['.', ':']).nth(3).and_then(|n| n.parse().ok());
            let Some(number) = number else { continue };
            let founders = list.encode().expect("it was decoded");
            let flushes = self.plan.flushes_all;
            let node = crate::member::Node::new(id, number, founders, flushes, self.plan.seed);
            self.nodes.push(node);
            // Who added it may take a while to start it.
            let delay = if self.prng.one_in(4) { 6 * SECOND } else { 400 * MS };
            let at = self.now + self.prng.below(delay);
            let node = self.nodes.len() - 1;
            self.schedule(at, Event::Start { node });
        }
    }
}
