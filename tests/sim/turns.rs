//! Turns: the roles of a member take what is queued for them, and what they want done is done.

use std::rc::Rc;

use base::Instant;
use bytes::BytesMut;
use node::{
    ConsensusEffect, ConsensusEvent, ReactorEffect, ReactorEvent, Role, StoreEffect, StoreEvent,
};
use raft::RoleName;
use tree::SLOT_OFFSETS;
use wal::WalFile;
use wire::{HEADER_SIZE, Header, Kind, PeerFrame};

use crate::bounds;
use crate::disk::{Block, Done, Name, StoreDone, Work};
use crate::member::{CONSENSUS, FROM_DISK, FROM_NET, Io, Process, REACTOR, STORE, deadline, draw};
use crate::network::{End, Item};
use crate::plan::{Fault, MS};
use crate::world::{Event, World};

/// What power cuts take, for counting.
pub const LOST_ENTRY: &str = "lost directory entry";
pub const LOST_WRITE: &str = "lost unsynced write";
pub const TORN_WRITE: &str = "torn unsynced write";

/// What a member has compacted to; 0 before the first compaction.
pub fn compacted_of(process: &Process) -> i64 {
    let compacted = process.store.state().compacted().map_or(0, base::Revision::get);
    i64::try_from(compacted).expect("runs are short")
}

/// Events that a role takes in one turn.
const EVENTS_MAX: u64 = 64;

/// States that a member may send in one life to others that have them.
const DECLINED_MAX: u32 = 10;

impl World {
    /// A role has its turn.
    pub fn role_turn(&mut self, node: usize, life: u32, role: usize) {
        let machine = &mut self.nodes[node];
        if machine.life != life {
            return;
        }
        let Some(process) = &mut machine.process else { return };
        if process.wake[role] != self.now {
            return;
        }
        process.wake[role] = u64::MAX;
        if machine.paused_until > self.now {
            let at = machine.paused_until;
            return self.wake_at(node, role, at);
        }
        let Some(mut process) = machine.process.take() else { return };
        self.trace.mix(self.now << 4 | (node as u64) << 2 | role as u64);
        let now = process.clock.read(self.now);
        let more = match role {
            REACTOR => self.reactor_turn(node, &mut process, now),
            CONSENSUS => self.consensus_turn(node, &mut process, now),
            _ => self.store_turn(node, &mut process, now),
        };
        let next = deadline(&process, role);
        let wants = next.map(|at| (at <= now, process.clock.when(self.now, at)));
        // Something in the turn may have ended the process.
        if self.nodes[node].life != life {
            return;
        }
        self.nodes[node].process = Some(process);
        if more {
            self.wake_soon(node, role);
        }
        match wants {
            Some((true, _)) => self.wake_soon(node, role),
            Some((false, at)) => self.wake_at(node, role, at),
            None => {}
        }
        for other in [REACTOR, CONSENSUS, STORE] {
            let Some(process) = &self.nodes[node].process else { return };
            let waits = match other {
                REACTOR => process.to_reactor.iter().any(|queue| !queue.is_empty()),
                CONSENSUS => process.to_consensus.iter().any(|queue| !queue.is_empty()),
                _ => process.to_store.iter().any(|queue| !queue.is_empty()),
            };
            if waits && process.wake[other] > self.now + 2 * self.plan.turn {
                self.wake_soon(node, other);
            }
        }
    }

    fn reactor_turn(&mut self, node: usize, process: &mut Process, now: Instant) -> bool {
        let (mut events, mut effects) = (Vec::new(), Vec::new());
        let max = 1 + self.prng.below(EVENTS_MAX);
        let more = draw(&mut process.to_reactor, max, &mut self.prng, &mut events);
        for event in events {
            process.reactor.handle(now, event, &mut effects);
        }
        process.reactor.flush(now, &mut effects);
        let life = self.nodes[node].life;
        for effect in effects {
            match effect {
                ReactorEffect::Send { connection, bytes } => {
                    let Some(known) = process.connections.get(&connection) else { continue };
                    let from = End::Served { node, life, id: connection };
                    let socket = known.socket;
                    if self.network.send(self.now, socket, from, bytes, &mut self.prng) {
                        let event = ReactorEvent::Blocked { connection };
                        process.to_reactor[FROM_NET].push_back(event);
                    }
                }
                ReactorEffect::Pause { connection } => {
                    if let Some(known) = process.connections.get_mut(&connection) {
                        known.paused = true;
                    }
                }
                ReactorEffect::Resume { connection } => {
                    let Some(known) = process.connections.get_mut(&connection) else { continue };
                    known.paused = false;
                    for bytes in known.held.drain(..) {
                        let bytes = BytesMut::from(&bytes[..]);
                        let event = ReactorEvent::Received { connection, bytes };
                        process.to_reactor[FROM_NET].push_back(event);
                    }
                    if known.ended {
                        process.connections.remove(&connection);
                        process.free_connection(connection);
                        let event = ReactorEvent::Closed { connection };
                        process.to_reactor[FROM_NET].push_back(event);
                    }
                }
                ReactorEffect::Close { connection, .. } => {
                    let Some(known) = process.connections.remove(&connection) else { continue };
                    let from = End::Served { node, life, id: connection };
                    self.network.close(self.now, known.socket, from, &mut self.prng);
                    process.free_connection(connection);
                    let event = ReactorEvent::Closed { connection };
                    process.to_reactor[FROM_NET].push_back(event);
                }
                ReactorEffect::ToConsensus(event) => {
                    if let ConsensusEvent::ReadIndex { .. } = event {
                        process.read_floor = self.ghost.committed_index();
                    }
                    process.to_consensus[REACTOR].push_back(event);
                }
                ReactorEffect::ToStore(event) => process.to_store[REACTOR].push_back(event),
            }
        }
        self.flush_network();
        let verdict = bounds::check_reactor(self.nodes[node].id, process);
        self.judge(verdict);
        more
    }

    fn consensus_turn(&mut self, node: usize, process: &mut Process, now: Instant) -> bool {
        let (mut events, mut effects) = (Vec::new(), Vec::new());
        let max = 1 + self.prng.below(EVENTS_MAX);
        let more = draw(&mut process.to_consensus, max, &mut self.prng, &mut events);
        for event in events {
            process.consensus.handle(now, event, &mut effects);
        }
        process.consensus.flush(now, &mut effects);
        self.ghost.told(self.nodes[node].id, process.consensus.durable_lsn().get());
        let life = self.nodes[node].life;
        for effect in effects {
            self.perform_consensus(node, process, effect);
            if self.nodes[node].life != life {
                // What it has decided in this turn is decided, whether or not anybody hears of it.
                self.ghost.decides(process.consensus.raft());
                return false;
            }
        }
        self.flush_network();
        self.look_at_raft(node, process);
        more
    }

    /// What the onlooker wants to know after each turn of consensus.
    fn look_at_raft(&mut self, node: usize, process: &mut Process) {
        let id = self.nodes[node].id;
        let raft = process.consensus.raft();
        let committed = raft.log().committed();
        if raft.role() != RoleName::Leader
            && process.leads > 0
            && committed.get() > self.ghost.committed_index()
        {
            // It has decided in the turn in which it stopped to lead.
            let decided = [&process.membership, raft.membership()];
            let position = (committed.get(), raft.log().term_at(committed).get());
            let own = Some(process.leads);
            let verdict = self.ghost.quorum_holds(id, position, own, decided);
            self.judge(verdict);
        }
        let (seen, consensus) = (&mut process.seen, &process.consensus);
        let decided = self.ghost.committed_index();
        let verdict = bounds::check_consensus(id, seen, consensus, &self.plan, decided);
        self.judge(verdict);
        let raft = process.consensus.raft();
        if raft.role() != RoleName::Leader {
            process.leads = 0;
            process.committed = raft.log().committed().get();
            process.membership = raft.membership().clone();
            return;
        }
        let led = process.leads == raft.term().get();
        if !led {
            process.leads = raft.term().get();
            self.trace.tell(self.now, || format!("member {id} leads term {}", raft.term()));
            let verdict = self.ghost.leads(id, raft);
            self.judge(verdict);
        }
        let committed = raft.log().committed().get();
        if committed > process.committed {
            process.committed = committed;
            // A change that the same turn has brought decides from its own entry on.
            let decided = [&process.membership, raft.membership()];
            let term = raft.log().term_at(base::LogIndex::new(committed)).get();
            let own = led.then_some(raft.term().get());
            let verdict = self.ghost.quorum_holds(id, (committed, term), own, decided);
            self.judge(verdict);
        }
        if process.membership != *process.consensus.raft().membership() {
            process.membership = process.consensus.raft().membership().clone();
        }
    }

    fn perform_consensus(
        &mut self,
        node: usize,
        process: &mut Process,
        effect: ConsensusEffect<Block>,
    ) {
        let (id, life, dsync) = (self.nodes[node].id, self.nodes[node].life, self.plan.dsync);
        match effect {
            ConsensusEffect::WriteGroup { lsn, group, ring } => {
                let begins = process.consensus.abstains();
                let known = self.ghost.submitted(id, &group.block[..group.size], begins);
                let known = match known {
                    Ok(known) => known,
                    Err(text) => return self.fail(text),
                };
                self.trace.tell(self.now, || {
                    let wal::Write { file, offset, size, .. } = &group;
                    format!("member {id} writes group {lsn}, {size} bytes to {file} at {offset}")
                });
                if ring.is_none() {
                    self.lenient(format!(
                        "I7: member {id} writes group {lsn} without its ring copy"
                    ));
                }
                process.group_parts.insert(lsn.get(), 1 + u32::from(ring.is_some()));
                for (write, of) in [(Some(group), Some(known)), (ring, None)] {
                    let Some(wal::Write { file, offset, block, size }) = write else { continue };
                    let end = offset + size as u64;
                    if end > self.nodes[node].disk.size(Name::Wal(file)) {
                        self.lenient(format!("member {id} writes beyond the end of {file}: {end}"));
                    }
                    let durable = dsync && matches!(file, WalFile::Slot(_));
                    let file = Name::Wal(file);
                    let work = Work::Write { file, offset, bytes: block, size, durable, group: of };
                    self.submit(node, work, Done::GroupPart(lsn));
                    if self.nodes[node].life != life {
                        return;
                    }
                }
            }
            ConsensusEffect::Sync { lsn, slots } => {
                let files = slots.into_iter().flatten().map(Name::Wal).collect();
                self.submit(node, Work::Sync { files, upto: 0 }, Done::Synced(lsn));
            }
            ConsensusEffect::MakeSlot { slot } => {
                let work = Work::MakeSlot { slot, size: self.plan.segment_size };
                self.submit(node, work, Done::SlotMade(slot));
            }
            ConsensusEffect::PrepareSpare { slot, header } => {
                self.write_wal(node, header, Done::SpareWritten(slot));
            }
            ConsensusEffect::WriteWatermark(write) => {
                let mark = wal::Watermark::decode(&write.block[..write.size]);
                process.mark = mark.map_or(0, |mark| mark.durable_lsn.get());
                // It may name a term that no group has said yet.
                if let Some(mark) = mark
                    && process.consensus.abstains()
                {
                    self.ghost.takes_term(mark.hard_state.term.get());
                }
                self.write_wal(node, write, Done::MarkWritten);
            }
            ConsensusEffect::ReadLog { peer, read } => {
                let wal::Read { file, offset, size } = read;
                let work = Work::Read { file: Name::Wal(file), offset, size };
                self.submit(node, work, Done::LogRead(peer, read));
            }
            ConsensusEffect::Dial { dial, address } => {
                let at = self.now + self.plan.latency + self.prng.below(4 * self.plan.latency);
                self.schedule(at, Event::Dialed { node, life, dial, address });
            }
            ConsensusEffect::LinkSend { link, bytes } => self.link_send(node, process, link, bytes),
            ConsensusEffect::LinkClose { link } => {
                if let Some(socket) = process.links.remove(&link) {
                    let from = End::Link { node, life, id: link };
                    self.network.close(self.now, socket, from, &mut self.prng);
                }
            }
            ConsensusEffect::Tell(text) => {
                if text.starts_with("the state goes on") {
                    *self.counts.entry("state resumed").or_default() += 1;
                }
                // Once or twice it has caught up meanwhile.
                if text.ends_with("this member has all of it already") {
                    process.declined += 1;
                    if process.declined > DECLINED_MAX {
                        self.fail(format!("member {id} sends a state again and again: {text}"));
                    }
                }
                self.trace.tell(self.now, || format!("member {id} says: {text}"));
            }
            ConsensusEffect::Note(text) => {
                self.trace.tell(self.now, || format!("member {id} notes: {text}"));
            }
            ConsensusEffect::Halt(text) => self.halted(node, &text),
            ConsensusEffect::ToReactor(_, event) => {
                if let ReactorEvent::ReadGranted { index, .. } = event {
                    let verdict = self.ghost.granted(id, index.get(), process.read_floor);
                    self.judge(verdict);
                }
                process.to_reactor[CONSENSUS].push_back(event);
            }
            ConsensusEffect::ToStore(event) => {
                if let StoreEvent::Apply(entries) = &event {
                    let verdict = self.ghost.committed(id, entries);
                    self.judge(verdict);
                    self.note_members();
                }
                match event {
                    StoreEvent::Send { .. } => {
                        *self.counts.entry("state sent").or_default() += 1;
                    }
                    StoreEvent::Install { .. } => {
                        *self.counts.entry("state installed").or_default() += 1;
                        process.seen.installs = true;
                        self.strike_install(node);
                    }
                    _ => {}
                }
                process.to_store[CONSENSUS].push_back(event);
            }
        }
    }

    fn write_wal(&mut self, node: usize, write: wal::Write<Block>, done: Done) {
        let wal::Write { file, offset, block, size } = write;
        self.trace.tell(self.now, || format!("member {} prepares {file}", node + 1));
        let durable = self.plan.dsync && matches!(file, WalFile::Slot(_));
        let file = Name::Wal(file);
        let work = Work::Write { file, offset, bytes: block, size, durable, group: None };
        self.submit(node, work, done);
    }

    fn link_send(
        &mut self,
        node: usize,
        process: &mut Process,
        link: base::ConnectionId,
        bytes: Vec<u8>,
    ) {
        let Some(&socket) = process.links.get(&link) else { return };
        let (id, life) = (self.nodes[node].id, self.nodes[node].life);
        let from = End::Link { node, life, id: link };
        let Some(End::Link { node: other, .. }) = self.network.other(socket, from) else { return };
        let to = self.nodes[other].id;
        let stream = (socket, node);
        let (mut rest, mut out) = (&bytes[..], Vec::with_capacity(bytes.len()));
        while let Some(head) = rest.first_chunk::<HEADER_SIZE>() {
            let Ok(header) = Header::decode(head) else { break };
            let size = HEADER_SIZE + usize::try_from(header.body_size).unwrap_or(0);
            let Some((frame, behind)) = rest.split_at_checked(size) else { break };
            rest = behind;
            let body = &frame[HEADER_SIZE..];
            if header.kind == Kind::PeerRaft
                && let Ok(PeerFrame::Raft(message)) = PeerFrame::verify(&header, body)
            {
                self.trace.tell(self.now, || format!("member {id} to {to}: {message:?}"));
                let log = process.consensus.raft().log();
                let last = (log.last_term().get(), log.last().get());
                let verdict = self.ghost.promises(id, to, last, &message);
                self.judge(verdict);
            } else {
                self.trace.tell(self.now, || {
                    let frame = PeerFrame::verify(&header, body);
                    let mut text = format!("member {id} to {to}: {frame:?}");
                    text.truncate(300);
                    text
                });
            }
            let frame = (header.kind, frame);
            let machines = [node, other];
            let prng = &mut self.prng;
            for fault in self.frames.pass(self.now, stream, machines, frame, prng, &mut out) {
                self.trace.tell(self.now, || format!("FAULT {} on that link", fault.text()));
                self.count(fault.text());
            }
        }
        out.extend_from_slice(rest);
        // A stream cuts where it likes.
        let behind = match out.len() {
            0 => return,
            size if self.prng.one_in(16) => {
                out.split_off(usize::try_from(self.prng.below(size as u64)).expect("a part of it"))
            }
            _ => Vec::new(),
        };
        for bytes in [out, behind] {
            if !bytes.is_empty() && self.network.send(self.now, socket, from, bytes, &mut self.prng)
            {
                let event = ConsensusEvent::LinkBlocked { link, blocked: true };
                process.to_consensus[FROM_NET].push_back(event);
            }
        }
    }

    fn store_turn(&mut self, node: usize, process: &mut Process, now: Instant) -> bool {
        let (mut events, mut effects) = (Vec::new(), Vec::new());
        let max = 1 + self.prng.below(EVENTS_MAX);
        let more = draw(&mut process.to_store, max, &mut self.prng, &mut events);
        for event in events {
            process.store.handle(now, event, &mut effects);
        }
        process.store.flush(now, &mut effects);
        let (id, life) = (self.nodes[node].id, self.nodes[node].life);
        for effect in effects {
            match effect {
                StoreEffect::MakeIncoming { transfer } => {
                    self.trace.tell(self.now, || format!("member {id} takes in a state"));
                    self.count("states begun");
                    self.nodes[node].disk.unlink(Name::Incoming);
                    self.submit(node, Work::MakeIncoming, Done::IncomingMade(transfer));
                }
                StoreEffect::Incoming { transfer, effect } => {
                    self.perform_pages(node, Name::Incoming, Some(transfer), *effect);
                }
                StoreEffect::DropIncoming => {
                    self.nodes[node].disk.unlink(Name::Incoming);
                    self.crashes(node, Io::Directory, true);
                }
                StoreEffect::AdoptIncoming => {
                    self.trace.tell(self.now, || format!("member {id} adopts a state"));
                    process.pages = Name::Incoming;
                }
                StoreEffect::RenameIncoming => {
                    // The rename and the sync of the directory are one: they are there or not.
                    if self.prng.one_in(2) && self.crashes(node, Io::Directory, false) {
                        self.nodes[node].disk.lost_entries += 1;
                        return false;
                    }
                    self.count("states installed");
                    self.nodes[node].took_state = true;
                    self.nodes[node].disk.rename(Name::Incoming, Name::Pages);
                    process.pages = Name::Pages;
                    self.crashes(node, Io::Directory, true);
                }
                StoreEffect::ToReactor(_, event) => process.to_reactor[STORE].push_back(event),
                StoreEffect::ToConsensus(event) => {
                    if let ConsensusEvent::Checkpointed { index } = &event {
                        process.seen.checkpointed = process.seen.checkpointed.max(index.get());
                        if self.prng.one_in(16) {
                            self.check_pages(node, process.pages);
                        }
                        let durable = self.ghost.durable.entry(id).or_default().last();
                        if index.get() > durable {
                            self.lenient(format!(
                                "I10: member {id} has published entry {index}, its log is durable \
                                 up to {durable}"
                            ));
                        }
                    }
                    process.to_consensus[STORE].push_back(event);
                }
                StoreEffect::Tell(_) | StoreEffect::Note(_) => {}
                StoreEffect::Halt(text) => self.halted(node, &text),
                effect => self.perform_pages(node, process.pages, None, effect),
            }
            if self.nodes[node].life != life {
                return false;
            }
        }
        self.look_at_state(node, process);
        let mut seen = process.seen.clone();
        let verdict = bounds::check_store(id, &mut seen, process, &self.plan);
        process.seen = seen;
        self.judge(verdict);
        more
    }

    fn perform_pages(
        &mut self,
        node: usize,
        file: Name,
        transfer: Option<u64>,
        effect: StoreEffect<Block>,
    ) {
        let done = |done| transfer.map_or(Done::Store(done), |t| Done::Incoming(t, done));
        let (work, told) = match effect {
            StoreEffect::Read { miss, offset, size, for_transfer } => {
                (Work::Read { file, offset, size }, StoreDone::Read(miss, for_transfer))
            }
            StoreEffect::Write { offset, block, size } => {
                let end = offset + size as u64;
                if end > self.nodes[node].disk.size(file) {
                    let id = self.nodes[node].id;
                    self.lenient(format!("member {id} writes pages without space up to {end}"));
                }
                if SLOT_OFFSETS.contains(&offset) && self.nodes[node].disk.has_unsynced(file) {
                    let id = self.nodes[node].id;
                    self.lenient(format!("I11: member {id} writes a meta record before its pages"));
                }
                let bytes = Rc::new(block);
                let work = Work::Write { file, offset, bytes, size, durable: false, group: None };
                (work, StoreDone::Written)
            }
            StoreEffect::Sync => (Work::Sync { files: vec![file], upto: 0 }, StoreDone::Synced),
            StoreEffect::Grow { size } => (Work::Grow { file, size }, StoreDone::Grown(size)),
            StoreEffect::Punch { offset, size } => {
                (Work::Punch { file, offset, size }, StoreDone::Released)
            }
            StoreEffect::Truncate { size } => (Work::Truncate { file, size }, StoreDone::Released),
            other => unreachable!("nothing for a page file: {other:?}"),
        };
        self.submit(node, work, done(told));
    }

    /// Judges the page file of a member as a power cut would leave it.
    pub fn check_pages(&mut self, node: usize, file: Name) {
        if !self.nodes[node].is_damaged {
            let verdict = bounds::check_pages(&self.nodes[node], file);
            self.count("page files judged");
            self.judge(verdict);
        }
    }

    fn look_at_state(&mut self, node: usize, process: &mut Process) {
        let state = process.store.state();
        let compacted = &mut self.nodes[node].compacted;
        *compacted = (*compacted).max(compacted_of(process));
        let applied = state.applied().0.get();
        if applied == process.applied || !state.between_entries() {
            return;
        }
        process.applied = applied;
        // Who joined begins with a newer list of members than who was there from the start.
        if self.nodes[node].id > self.plan.members && state.members().1.get() == 0 {
            return;
        }
        let (hash, revision) = (state.state_hash(), state.revision().get());
        let id = self.nodes[node].id;
        let verdict = self.ghost.applied(id, applied, hash, revision);
        self.judge(verdict);
    }

    // ------------------------------------------------------------------ disk

    fn submit(&mut self, node: usize, work: Work, done: Done) {
        let (now, life) = (self.now, self.nodes[node].life);
        let fails = match &work {
            Work::Write { .. } => std::mem::take(&mut self.nodes[node].write_fails),
            Work::Sync { .. } => std::mem::take(&mut self.nodes[node].sync_fails),
            Work::Read { .. } => std::mem::take(&mut self.nodes[node].read_fails),
            _ => false,
        };
        if fails {
            // The process stops at the first error; what it had under way is as after any end.
            self.trace.tell(now, || format!("member {}: a disk error", node + 1));
            self.end_process(node, false);
            self.start_later(node);
            return;
        }
        let io = match &work {
            Work::Sync { .. } => Io::Sync,
            Work::MakeSlot { .. } | Work::MakeIncoming => Io::Directory,
            Work::Write { file: Name::Wal(_), .. } | Work::Read { file: Name::Wal(_), .. } => {
                Io::Wal
            }
            _ => Io::Pages,
        };
        if self.prng.one_in(4) && self.crashes(node, io, false) {
            return;
        }
        let machine = &mut self.nodes[node];
        let mut time = match &work {
            Work::Sync { .. } => 100_000 + self.prng.below(2 * MS),
            Work::Write { .. } | Work::Read { .. } => 20_000 + self.prng.below(400_000),
            _ => 100_000 + self.prng.below(5 * MS),
        };
        if machine.disk_slow_until > now || self.prng.one_in(200) {
            time += self.prng.below(60 * MS);
        }
        let at = (now + time).max(machine.disk_stalled_until);
        let id = machine.disk.submit(work, done);
        self.schedule(at, Event::Disk { node, life, id });
        self.crashes(node, io, false);
    }

    /// Ends the process, or cuts the power, if a crash waits for this; says whether it did.
    fn crashes(&mut self, node: usize, io: Io, completed: bool) -> bool {
        let Some(crash) = &mut self.nodes[node].crash else { return false };
        if !crash.io.is(io) || crash.completed != completed {
            return false;
        }
        if crash.left > 0 {
            crash.left -= 1;
            return false;
        }
        let crash = self.nodes[node].crash.take();
        let with_power = crash.is_some_and(|crash| crash.with_power);
        self.trace.tell(self.now, || format!("member {}: crash at {io:?}", node + 1));
        self.count(Fault::CrashAtIo.text());
        self.end_process(node, with_power);
        self.start_later(node);
        true
    }

    /// Damage has struck a disk.
    pub fn struck(&mut self, node: usize, struck: Option<(Fault, String)>) {
        if let Some((fault, text)) = struck {
            self.nodes[node].is_damaged = true;
            self.trace.tell(self.now, || format!("damage: {} of {text}", fault.text()));
            self.count(fault.text());
        }
    }

    /// A disk operation completes.
    pub fn disk_done(&mut self, node: usize, life: u32, id: u64) {
        let machine = &mut self.nodes[node];
        if machine.life != life {
            return;
        }
        if machine.disk_stalled_until > self.now {
            let at = machine.disk_stalled_until + self.prng.below(MS);
            return self.schedule(at, Event::Disk { node, life, id });
        }
        let Some(completed) = machine.disk.complete(id) else { return };
        let member = machine.id;
        machine.lacks_copies &= completed.done != Done::MarkReady;
        self.trace.mix(self.now << 8 | 0xD0 | node as u64);
        self.trace.tell(self.now, || format!("member {member}: done {:?}", completed.done));
        for group in &completed.groups {
            self.ghost.group_durable(member, group);
        }
        self.struck(node, completed.struck);
        let io = match completed.done {
            Done::Synced(_) | Done::SpareReady(_) | Done::MarkReady => Io::Sync,
            Done::SlotMade(_) | Done::IncomingMade(_) => Io::Directory,
            Done::Store(StoreDone::Synced) | Done::Incoming(_, StoreDone::Synced) => Io::Sync,
            Done::Store(_) | Done::Incoming(..) => Io::Pages,
            Done::GroupPart(_) | Done::SpareWritten(_) | Done::MarkWritten | Done::LogRead(..) => {
                Io::Wal
            }
        };
        if self.crashes(node, io, true) {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let event = match completed.done {
            Done::GroupPart(lsn) => {
                let left = process.group_parts.get_mut(&lsn.get()).expect("it is being written");
                *left -= 1;
                if *left > 0 {
                    return;
                }
                process.group_parts.remove(&lsn.get());
                ConsensusEvent::Written { lsn }
            }
            Done::Synced(lsn) => ConsensusEvent::Synced { lsn },
            Done::SpareWritten(slot) => {
                let files = vec![Name::Wal(WalFile::Slot(slot))];
                let work = Work::Sync { files, upto: 0 };
                return self.submit(node, work, Done::SpareReady(slot));
            }
            Done::SpareReady(slot) => ConsensusEvent::SpareReady { slot },
            Done::MarkWritten => {
                let files = vec![Name::Wal(WalFile::Watermark)];
                return self.submit(node, Work::Sync { files, upto: 0 }, Done::MarkReady);
            }
            Done::MarkReady => {
                self.ghost.marked(member, process.mark);
                ConsensusEvent::WatermarkDurable
            }
            Done::LogRead(peer, read) => {
                ConsensusEvent::LogRead { peer, read, bytes: completed.bytes }
            }
            Done::SlotMade(slot) if completed.granted => ConsensusEvent::SlotMade { slot },
            Done::SlotMade(_) => ConsensusEvent::SlotFailed,
            Done::Store(done) => {
                let available = done.available(completed.granted);
                process.to_store[FROM_DISK].extend(available);
                let event = done.event(completed.bytes, completed.granted);
                process.to_store[FROM_DISK].push_back(event);
                return self.wake_soon(node, STORE);
            }
            Done::IncomingMade(transfer) => {
                let event = Box::new(StoreEvent::IncomingMade);
                process.to_store[FROM_DISK].push_back(StoreEvent::Incoming { transfer, event });
                return self.wake_soon(node, STORE);
            }
            Done::Incoming(transfer, done) => {
                let incoming = |event| StoreEvent::Incoming { transfer, event: Box::new(event) };
                let available = done.available(completed.granted).map(incoming);
                process.to_store[FROM_DISK].extend(available);
                let event = incoming(done.event(completed.bytes, completed.granted));
                process.to_store[FROM_DISK].push_back(event);
                return self.wake_soon(node, STORE);
            }
        };
        process.to_consensus[FROM_DISK].push_back(event);
        self.wake_soon(node, CONSENSUS);
    }

    // ------------------------------------------------------------------ network

    /// Something has arrived at an end of a socket.
    pub fn delivered(&mut self, to: End, item: Item) {
        self.trace.mix(self.now << 3 | 5);
        match to {
            End::Client { client } => match item {
                Item::Bytes(bytes) => self.client_receives(client, bytes),
                Item::End => {
                    self.client_lost(client);
                }
            },
            End::Link { node, life, id: link } => {
                if self.nodes[node].life != life {
                    return;
                }
                let Some(process) = &mut self.nodes[node].process else { return };
                if !process.links.contains_key(&link) {
                    return;
                }
                let event = match item {
                    Item::Bytes(bytes) => {
                        let bytes = BytesMut::from(&bytes[..]);
                        ConsensusEvent::LinkReceived { link, bytes }
                    }
                    Item::End => {
                        process.links.remove(&link);
                        ConsensusEvent::LinkClosed { link }
                    }
                };
                process.to_consensus[FROM_NET].push_back(event);
                self.wake_soon(node, CONSENSUS);
            }
            End::Served { node, life, id: connection } => {
                if self.nodes[node].life != life {
                    return;
                }
                let Some(process) = &mut self.nodes[node].process else { return };
                let Some(known) = process.connections.get_mut(&connection) else { return };
                let event = match item {
                    Item::Bytes(bytes) if known.paused => {
                        known.held.push_back(bytes);
                        return;
                    }
                    Item::Bytes(bytes) => {
                        let bytes = BytesMut::from(&bytes[..]);
                        ReactorEvent::Received { connection, bytes }
                    }
                    Item::End if known.paused => {
                        known.ended = true;
                        return;
                    }
                    Item::End => {
                        process.connections.remove(&connection);
                        process.free_connection(connection);
                        ReactorEvent::Closed { connection }
                    }
                };
                process.to_reactor[FROM_NET].push_back(event);
                self.wake_soon(node, REACTOR);
            }
        }
    }

    /// The socket of this end takes bytes again.
    pub fn drained(&mut self, end: End) {
        match end {
            End::Client { .. } => {}
            End::Link { node, life, id: link } if self.nodes[node].life == life => {
                let Some(process) = &mut self.nodes[node].process else { return };
                let event = ConsensusEvent::LinkBlocked { link, blocked: false };
                process.to_consensus[FROM_NET].push_back(event);
                self.wake_soon(node, CONSENSUS);
            }
            End::Served { node, life, id: connection } if self.nodes[node].life == life => {
                let Some(process) = &mut self.nodes[node].process else { return };
                let event = ReactorEvent::Drained { connection };
                process.to_reactor[FROM_NET].push_back(event);
                self.wake_soon(node, REACTOR);
            }
            End::Link { .. } | End::Served { .. } => {}
        }
    }

    /// A dial ends.
    pub fn dialed(&mut self, node: usize, life: u32, dial: u64, address: &str) {
        if self.nodes[node].life != life || self.nodes[node].process.is_none() {
            return;
        }
        let other = self.nodes.iter().position(|other| other.address == address);
        let fails = self.faults_on && self.plan.has(Fault::DialFailure) && self.prng.one_in(4);
        let other = other.filter(|&other| {
            self.nodes[other].process.is_some()
                && other != node
                && self.network.is_open(node, other)
                && self.network.is_open(other, node)
                && !fails
        });
        if fails {
            *self.counts.entry(Fault::DialFailure.text()).or_default() += 1;
        }
        let link = other.and_then(|other| {
            let other_life = self.nodes[other].life;
            let there = self.nodes[other].process.as_mut()?.new_link();
            let here = self.nodes[node].process.as_mut()?.new_link();
            let ends = [
                End::Link { node, life, id: here },
                End::Link { node: other, life: other_life, id: there },
            ];
            let socket = self.network.open(ends);
            let process = self.nodes[other].process.as_mut()?;
            process.links.insert(there, socket);
            let event = ConsensusEvent::LinkAccepted { link: there };
            process.to_consensus[FROM_NET].push_back(event);
            self.wake_soon(other, CONSENSUS);
            self.nodes[node].process.as_mut()?.links.insert(here, socket);
            Some(here)
        });
        let event = ConsensusEvent::LinkDialed { dial, link };
        if let Some(process) = &mut self.nodes[node].process {
            process.to_consensus[FROM_NET].push_back(event);
            self.wake_soon(node, CONSENSUS);
        }
    }
}
