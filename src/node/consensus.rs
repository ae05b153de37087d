//! Consensus: the role that orders writes. It joins raft, which knows positions, the journal, which
//! holds bytes, and the links to other members; what is committed goes to the store.
//!
//! ```text
//!                                  ┌─► peers: append ─────► accepted ─┐
//! Propose ─► position (raft) ─► tail ─► open block ─► group written ─► durable ─► committed ─► Apply
//! proposed        >=          appended                  >=             durable  >=  committed
//! ```
//!
//! A turn's proposals share one group and one append for each peer: `flush` seals when a write slot is
//! free, so that while the device is busy records gather in the open block and the group size follows
//! the device; the same entries leave for the peers in the same turn, beside the write.
//!
//! A member that does not lead passes proposals on to the leader and says the outcome when it applies
//! the entry itself. What was under way when a leader is lost is answered when its outcome is certain,
//! which the first entry of a later term makes it (`undecided.rs`).
//!
//! Bounds: proposals that have been taken in and not applied are at most `proposed_bytes_max`; beyond
//! that, and while space is short, clients get a typed refusal. Deletes, compactions, lists of members
//! and the empty entry of a new term live on the WAL's reserve.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use base::{Instant, LogIndex, Lsn, Mutant, NodeId, ReactorId, Term, Ticket};
use raft::{Input, Output, Raft, RoleName};
use wal::Writer;
use wire::{MemberRole, ReplyWriter, Status};

use crate::admin::Admin;
use crate::apply_lag::ApplyLag;
use crate::beginner::Beginner;
use crate::disk_watch::DiskWatch;
use crate::divergence::{Divergence, Verdict};
use crate::gauges::Gauges;
use crate::journal::Journal;
use crate::leases::Leases;
use crate::log_clock::LogClock;
use crate::log_reader::LogReader;
use crate::members::{Members, Said};
use crate::message::{
    Committed, EntryKind, Payload, Refused, Reply, ReplyBody, STAMP_MARK, Standing,
};
use crate::peers::{Greeting, Incoming, Introduction, Peers};
use crate::proposals::Proposal;
use crate::retention::Outdated;
use crate::snapshots::{Installing, Receiving, Sending};
use crate::tail::{Kept, Tail};
use crate::undecided::Undecided;
use crate::{Allocate, ConsensusEffect, ConsensusEvent, ReactorEvent, Role, StoreEvent, usage};

/// What is kept for peers that are behind.
#[derive(Clone, Copy, Debug)]
pub struct ForPeers {
    /// Bytes of entries in memory after they have been applied.
    pub tail_size: usize,
    /// Entries of the log on disk, at most.
    pub log_entries: u64,
    /// Bytes of segments that hold them; no more than one segment beyond it.
    pub log_size: u64,
}

impl ForPeers {
    /// What a server keeps: as many entries as etcd, which is what a member lacks after some minutes
    /// away.
    pub const SERVER: Self =
        Self { tail_size: 32 << 20, log_entries: 100_000, log_size: 256 << 20 };
}

/// The same while a state is on its way to a peer, which needs what follows it.
const PINNED_SIZE_MAX: usize = 256 << 20;

/// What consensus is told at its making.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// Bytes of proposals taken in and not applied.
    pub proposed_bytes_max: usize,
    /// Whether a group is durable as soon as its writes have completed (O_DSYNC), so that no sync
    /// follows them.
    pub write_is_durable: bool,
    /// Bytes of groups that still fit the WAL below which, once no more space is to be had, only
    /// requests that free space are taken.
    pub reserve_size: u64,
    /// Slot number for the first new segment file: above all that are there.
    pub next_slot: u32,
    /// Randomness for the names of segments and for pauses, from the system.
    pub seed: u64,
    /// Number of reactors.
    pub reactors: u16,
    /// What is kept for peers that are behind.
    pub for_peers: ForPeers,
    /// The list of members is not that of the log, but this member alone: it goes into the log as soon
    /// as this member leads.
    pub alone: bool,
    /// Who this member is to others.
    pub introduction: Introduction,
    /// Bytes of states that are sent to other members in a second, at most; not 0.
    pub transfer_rate: u64,
    /// When a lease expires each of its keys is deleted in a revision of its own.
    pub lease_per_key: bool,
    /// A removal that would leave the cluster without a majority of members that are there is refused.
    pub strict_removals: bool,
    /// The last entry of a group that recovery dropped and that may have been acknowledged.
    pub torn: Option<raft::Position>,
}

/// What went wrong since the start, or too slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mishaps {
    /// Writes that were taken in and had no effect, or nobody knows which.
    pub failed_proposals: u64,
    /// Heartbeats that left more than the time between two of them too late.
    pub late_heartbeats: u64,
    /// How often applying was more than 100 ms behind.
    pub slow_applies: u64,
}

/// The role of the consensus core.
pub struct Consensus<B> {
    pub(crate) config: ConsensusConfig,
    pub(crate) raft: Raft,
    pub(crate) journal: Journal<B>,
    pub(crate) tail: Tail,
    pub(crate) peers: Peers,
    pub(crate) members: Members,
    /// Taken in, not appended yet: the open block is full, applying is behind, or leadership is being
    /// handed over.
    pub(crate) waiting: VecDeque<Proposal>,
    /// Passed on to the leader, or left behind in the log when leadership was lost.
    pub(crate) undecided: Undecided,
    /// Bytes of proposals taken in and not applied.
    pub(crate) proposed_bytes: usize,
    /// Bytes of proposals of other members in the log and not committed.
    pub(crate) foreign_bytes: usize,
    pub(crate) apply_lag: ApplyLag,
    page_space_low: bool,
    pub(crate) quota_is_met: bool,
    /// A write was refused for that in this turn.
    pub(crate) quota_refused: bool,
    pub(crate) stopping: bool,
    /// The first group of this start is durable: others may be talked to.
    settled: bool,
    pub(crate) beginner: Option<Beginner>,
    pub(crate) disk: DiskWatch,
    /// The leader that reactors were last told of, and where clients find it.
    leader_told: (Term, Option<NodeId>, String),
    /// How often another leader has become known.
    leader_changes: u64,
    pub(crate) mishaps: Mishaps,
    /// Members that this one has given a vote to, as the leader.
    promotions: u64,
    /// Who had a vote when the last list was committed.
    voters: Vec<NodeId>,
    pub(crate) outputs: Vec<Output>,
    incoming: Vec<Incoming>,
    /// The entries of the append that is being taken.
    pub(crate) arriving: Vec<Kept>,
    replies: Vec<(ReactorId, Vec<Reply>)>,
    read_waiters: Vec<ReactorId>,
    /// What members have said of themselves.
    pub(crate) introduced: BTreeMap<NodeId, Said>,
    /// The time of the present turn.
    pub(crate) now: Instant,
    pub(crate) log_clock: LogClock,
    pub(crate) leases: Leases,
    pub(crate) outdated: Outdated,
    pub(crate) gauges: Gauges,
    /// Why this member must not go on, and when it ends: what it has answered goes out before.
    pub(crate) excluded: Option<(Instant, String)>,
    /// When members were last heard of.
    pub(crate) heard: BTreeMap<NodeId, Instant>,
    pub(crate) admin: Option<Admin>,
    pub(crate) review_at: Instant,
    pub(crate) divergence: Divergence,
    /// For peers that lack more than the tail has.
    pub(crate) readers: BTreeMap<NodeId, LogReader>,
    pub(crate) sending: Vec<Sending>,
    /// When the rate allows the next chunk of a state.
    pub(crate) send_at: Instant,
    pub(crate) receiving: Option<Receiving>,
    pub(crate) installing: Option<Installing>,
    pub(crate) next_transfer: u64,
    pub(crate) writer: ReplyWriter,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Consensus after recovery; it begins with [`ConsensusEvent::Start`]. `tail` is the end of the
    /// log, `members` are the lists that raft was made with.
    pub fn new(
        config: ConsensusConfig,
        raft: Raft,
        writer: Writer<B>,
        allocate: Allocate<B>,
        tail: Tail,
        members: Members,
    ) -> Self {
        let journal =
            Journal::new(writer, allocate, config.write_is_durable, config.next_slot, config.seed);
        let mut raft = raft;
        if let Some(index) = journal.writer().before()
            && index > raft.log().base().index
        {
            raft.handle(Instant::ORIGIN, Input::Compacted { index }, &mut Vec::new());
        }
        let mut clock = LogClock::new();
        for kept in tail.pending() {
            if let Some(time) = EntryKind::time_of(kept.kind, &kept.frame) {
                clock.hear(Instant::ORIGIN, kept.term, time);
            }
        }
        let own = config.introduction.clone();
        let introduced = BTreeMap::from([(own.member, Said::of(&own))]);
        let peers = Peers::new(own, config.seed.rotate_left(32));
        let apply_lag = ApplyLag::new(raft.log().committed());
        let gauges = usage::of_consensus(&config);
        let voters = raft.membership().voters().to_vec();
        Self {
            config,
            raft,
            journal,
            tail,
            peers,
            members,
            waiting: VecDeque::new(),
            undecided: Undecided::default(),
            proposed_bytes: 0,
            foreign_bytes: 0,
            apply_lag,
            page_space_low: false,
            quota_is_met: false,
            quota_refused: false,
            stopping: false,
            settled: false,
            beginner: None,
            disk: DiskWatch::default(),
            leader_told: (Term::ZERO, None, String::new()),
            leader_changes: 0,
            mishaps: Mishaps::default(),
            promotions: 0,
            voters,
            outputs: Vec::new(),
            incoming: Vec::new(),
            arriving: Vec::new(),
            replies: Vec::new(),
            read_waiters: Vec::new(),
            introduced,
            now: Instant::ORIGIN,
            log_clock: clock,
            leases: Leases::default(),
            outdated: Outdated::default(),
            gauges,
            excluded: None,
            heard: BTreeMap::new(),
            admin: None,
            review_at: Instant::ORIGIN,
            divergence: Divergence::default(),
            readers: BTreeMap::new(),
            sending: Vec::new(),
            send_at: Instant::ORIGIN,
            receiving: None,
            installing: None,
            next_transfer: 0,
            writer: ReplyWriter::new(),
        }
    }

    /// Whether this member can serve: it leads and has committed in its term, or knows who leads.
    pub fn may_serve(&self) -> bool {
        match self.raft.leader() {
            Some(leader) if leader == self.raft.id() => self.raft.read_index().is_some(),
            leader => leader.is_some(),
        }
    }

    /// Whether the list of members that is committed has what this one says of itself, and it votes if it is to. One
    /// that stays alone says nothing.
    pub fn is_published(&self) -> bool {
        if self.is_alone() && self.peers.own().peer_address.is_empty() {
            return true;
        }
        let id = self.raft.id();
        if self.members.get(id).is_some_and(|own| own.role == MemberRole::Promotable) {
            return false;
        }
        let is_known = |said| self.members.introduced(id, said).is_none();
        self.introduced.get(&id).is_none_or(is_known)
            && self.members.index() <= self.raft.log().committed()
    }

    /// Whether this member takes part in no election: it may have forgotten what it promised.
    pub fn abstains(&self) -> bool {
        self.beginner.is_some()
    }

    /// How often another leader has become known.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes
    }

    /// What went wrong since the start.
    pub fn mishaps(&self) -> Mishaps {
        Mishaps { slow_applies: self.apply_lag.late(), ..self.mishaps }
    }

    /// Members that this one has given a vote to, as the leader.
    pub fn promotions(&self) -> u64 {
        self.promotions
    }

    /// Whether this member is in the list without a vote.
    pub fn is_learner(&self) -> bool {
        self.raft.membership().learners().contains(&self.raft.id())
    }

    /// Whether a state that came from another member takes the place of the own one.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Writes that wait for a place in the log, or for the leader to give them one.
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.undecided.len()
    }

    /// raft, for looking at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The greatest durable LSN.
    pub fn durable_lsn(&self) -> Lsn {
        self.journal.writer().durable_lsn()
    }

    /// The entry before the first one that the log on disk holds, if it does not hold all.
    pub fn log_begins_behind(&self) -> Option<LogIndex> {
        self.journal.writer().before()
    }

    /// Bytes of proposals, own and of other members, that have been taken in and are not applied.
    pub fn proposed_size(&self) -> usize {
        self.proposed_bytes + self.foreign_bytes
    }

    /// Whether nothing is on its way to the disk, and nothing that a client waits for to the store or to
    /// the leader.
    pub fn is_quiet(&self) -> bool {
        let leads = self.raft.role() == RoleName::Leader;
        self.has_answered() && self.journal.is_quiet() && (self.tail.is_handed_out() || !leads)
    }

    /// Whether no client of this member waits for a write.
    fn has_answered(&self) -> bool {
        self.waiting.is_empty()
            && self.undecided.is_empty()
            && self.proposed_bytes == 0
            && self.admin.is_none()
    }

    /// Whether entries of the leader are of no use any more: this member stops, and would never be done
    /// with them under load.
    pub(crate) fn takes_no_entries(&self) -> bool {
        self.stopping && self.raft.role() != RoleName::Leader && self.has_answered()
    }

    /// Whether this member is its own cluster: no one to ask, no one to send to.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.raft.is_lone_voter() && self.raft.membership().learners().is_empty()
    }

    /// Whether there may be others to talk to.
    #[inline]
    fn is_connected(&self) -> bool {
        self.settled && (!self.is_alone() || !self.peers.own().peer_address.is_empty())
    }

    /// Whether only requests that free space may go on.
    pub(crate) fn space_is_low(&self) -> bool {
        self.quota_is_met || self.disk_is_full()
    }

    fn disk_is_full(&self) -> bool {
        self.page_space_low || self.journal.is_short(self.config.reserve_size)
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, body: ReplyBody) {
        let reply = Reply { ticket, body };
        match self.replies.iter_mut().find(|(reactor, _)| *reactor == ticket.reactor) {
            Some((_, replies)) => replies.push(reply),
            None => self.replies.push((ticket.reactor, [reply].into())),
        }
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, status: Status, message: String) {
        let refused = Refused::new(status, message);
        self.reply(ticket, ReplyBody::Refused(refused));
    }

    /// Entries were cut off. Who waits for them learns of it when it is certain that none comes back.
    pub(crate) fn cut(&mut self, first: LogIndex) {
        self.tail.cut(first);
        self.members.cut(first);
        self.journal.cut(self.tail.last(), self.raft.log().era());
    }

    /// Hands entries to the store that are committed, and durable here: a checkpoint must not get ahead
    /// of the log, or a start would take the log for damaged.
    pub(crate) fn commit(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        let log = self.raft.log();
        let ahead = Mutant::ApplyBeforeDurable.is_on();
        let index = if ahead { log.committed() } else { log.committed().min(log.durable()) };
        let keep = !self.is_alone();
        let kept = self.tail.commit(index, keep);
        let mut entries = Vec::with_capacity(kept.len());
        let (member, start_id) = (self.peers.own().member, self.peers.own().start_id);
        for entry in kept {
            let Kept { index, term, kind, frame, hash, mut ticket } = entry;
            let size = frame.len();
            self.settle_writes(term);
            let Some(payload) = EntryKind::decode(kind, &frame) else {
                effects.push(ConsensusEffect::Halt(format!(
                    "log entry {index} has kind {kind}, which this version does not know; start \
                     the version that the leader runs"
                )));
                return;
            };
            let Payload { kind, origin, stamp, body: frame } = payload;
            if let Some(origin) = origin {
                if origin.member == member && origin.start_id == start_id {
                    let write = if Mutant::ForwardedWrong.is_on() {
                        self.undecided.take_first()
                    } else {
                        self.undecided.take_forwarded(origin.sequence)
                    };
                    ticket = write.map(|write| write.ticket);
                }
                self.foreign_bytes = self.foreign_bytes.saturating_sub(size);
            } else if ticket.is_none() {
                ticket = self.undecided.take_left(term, index).map(|write| write.ticket);
            }
            entries.push(Committed { index, term, kind, stamp, frame, hash, ticket });
        }
        if !entries.is_empty() {
            effects.push(ConsensusEffect::ToStore(StoreEvent::Apply(entries)));
        }
        if keep {
            let pinned = self.pinned().map(|index| (index, PINNED_SIZE_MAX));
            self.tail.shrink(self.config.for_peers.tail_size, pinned);
        }
        if self.members.prune(self.raft.log().committed()) {
            self.peers.set_members(self.now, self.members.everyone(), effects);
            self.count_promotions();
        }
        self.review_admin(effects);
    }

    /// A list was committed: who has a vote by it and had none before was promoted.
    fn count_promotions(&mut self) {
        let voters = self.raft.membership().voters();
        if self.raft.role() == RoleName::Leader {
            let promoted = voters.iter().filter(|id| !self.voters.contains(id)).count();
            self.promotions += promoted as u64;
        }
        self.voters = voters.to_vec();
    }

    /// Entries below `below` are not needed by a start: segments are given back, but for what peers
    /// may lack, those to come too.
    fn recycle(&mut self, below: LogIndex) {
        let (keep, keep_size) = if self.is_alone() && self.peers.own().peer_address.is_empty() {
            (LogIndex::MAX, 0)
        } else {
            let last = self.raft.log().last().get();
            let ForPeers { log_entries, log_size, .. } = self.config.for_peers;
            (LogIndex::new(last.saturating_sub(log_entries)), log_size)
        };
        self.journal.recycle(below, keep, keep_size);
        // What follows a state on its way stays in memory for who takes that.
        let kept = self.pinned().map_or(LogIndex::MAX, |index| index.max(self.tail.before().index));
        if let Some(index) = self.journal.writer().before().map(|index| index.min(kept))
            && index > self.raft.log().base().index
            && index <= self.raft.log().committed()
        {
            // Nothing is put out for it.
            self.raft.handle(Instant::ORIGIN, Input::Compacted { index }, &mut Vec::new());
        }
    }

    /// Groups up to `lsn`, all written, are durable.
    fn groups_durable(&mut self, now: Instant, lsn: Lsn, effects: &mut Vec<ConsensusEffect<B>>) {
        while let Some(durable) = self.journal.next_durable(now, lsn) {
            let outputs = &mut self.outputs;
            self.raft.handle(now, Input::HardStateDurable(durable.hard_state), outputs);
            let wal::Position { index, term, .. } = durable.position;
            let (position, era) = (raft::Position { index, term }, durable.era);
            self.raft.handle(now, Input::Durable { position, era }, outputs);
            self.take_outputs(now, effects);
            if durable.begun {
                self.begun(durable.hard_state.term);
            }
            self.commit(effects);
            if self.installing.is_some() {
                self.install_durable(durable.position, era, effects);
            }
            if !self.settled {
                self.settle(now, effects);
            }
        }
    }

    /// Nothing of this start can be taken for something of an earlier one any more: to work.
    fn settle(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        self.settled = true;
        self.peers.set_members(now, self.members.everyone(), effects);
        self.begin(now);
    }

    fn greeting(&self) -> Greeting {
        let log = self.raft.log();
        Greeting { last: log.last_position(), term: self.raft.term() }
    }

    fn answer_reads(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        if self.read_waiters.is_empty() {
            return;
        }
        // A lone voter is its own quorum: it has led since before the question came in.
        if self.raft.is_lone_voter() {
            let Some(index) = self.raft.read_index() else { return };
            for reactor in self.read_waiters.drain(..) {
                let time = self.log_clock.now(self.now);
                let event = ReactorEvent::ReadGranted { index, time };
                effects.push(ConsensusEffect::ToReactor(reactor, event));
            }
            return;
        }
        for reactor in mem::take(&mut self.read_waiters) {
            let ticket = u64::from(reactor.get());
            self.raft.handle(now, Input::Read { ticket }, &mut self.outputs);
        }
        self.take_outputs(now, effects);
    }

    pub(crate) fn read_granted(
        &mut self,
        ticket: u64,
        index: Option<LogIndex>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let reactor = ReactorId::new(u16::try_from(ticket).expect("reactors are the only askers"));
        let event = match index {
            Some(index) => ReactorEvent::ReadGranted { index, time: self.log_clock.now(self.now) },
            None => ReactorEvent::ReadRefused(Refused::new(
                Status::NoLeader,
                "no leader is known at present, or it cannot reach a quorum; try again \
                          after the election, or ask for a serializable read"
                    .into(),
            )),
        };
        effects.push(ConsensusEffect::ToReactor(reactor, event));
    }

    /// Tells reactors the term and where its leader is, when that has changed.
    fn tell_leader(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        let leader = self.raft.leader();
        let member = leader.and_then(|leader| self.members.get(leader));
        let address = member.map_or("", |member| member.dialable());
        let term = self.raft.term();
        let (told_term, told_leader, told_address) = &self.leader_told;
        if *told_term == term && *told_leader == leader && told_address == address {
            return;
        }
        let is_new = (*told_term, *told_leader) != (term, leader);
        self.leader_changes += u64::from(is_new && leader.is_some());
        let name = |member| self.members.name_of(member);
        let text = match (leader, *told_leader) {
            (Some(leader), _) => format!("member {} leads in term {}", name(leader), term.get()),
            (None, Some(last)) => format!("member {} is not followed any more", name(last)),
            (None, None) => String::new(),
        };
        if is_new && !text.is_empty() && !self.is_alone() {
            effects.push(ConsensusEffect::Note(text));
        }
        self.leader_told = (term, leader, address.to_string());
        let member = leader.unwrap_or_default();
        for reactor in 0..self.config.reactors {
            let event = ReactorEvent::Leader { term, member, address: self.leader_told.2.clone() };
            effects.push(ConsensusEffect::ToReactor(ReactorId::new(reactor), event));
        }
    }

    fn standing(&self) -> Standing {
        let id = self.raft.id();
        Standing {
            name: self.members.name_of(id),
            role: self.raft.role(),
            is_learner: self.is_learner(),
            term: self.raft.term(),
            leader: self.raft.leader(),
            last: self.raft.log().last(),
            committed: self.raft.log().committed(),
            log_size: self.journal.writer().size(),
            no_space: self.disk_is_full(),
            disagrees: self.verdict() != Verdict::Fine,
            disk_slow: self.disk.is_slow(),
        }
    }

    /// What the hashes of the members' states say.
    pub(crate) fn verdict(&self) -> Verdict {
        self.divergence.verdict(&self.raft.membership().members(), self.raft.id())
    }

    fn links(
        &mut self,
        now: Instant,
        effects: &mut Vec<ConsensusEffect<B>>,
        act: impl FnOnce(&mut Peers, Greeting, &mut Vec<Incoming>, &mut Vec<ConsensusEffect<B>>),
    ) {
        let greeting = self.greeting();
        let mut incoming = mem::take(&mut self.incoming);
        act(&mut self.peers, greeting, &mut incoming, effects);
        for item in incoming.drain(..) {
            self.take_incoming(now, item, effects);
        }
        self.incoming = incoming;
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        self.links(now, effects, |peers, _, incoming, effects| peers.tick(now, incoming, effects));
        self.mark_begun(now, effects);
        if self.may_vote() {
            if let Some(at) = self.raft.deadline().filter(|at| now >= *at) {
                let late = now.since(at) > self.raft.options().heartbeat_interval;
                let leads = self.raft.role() == RoleName::Leader;
                self.mishaps.late_heartbeats += u64::from(leads && late);
                self.raft.handle(now, Input::Tick, &mut self.outputs);
                self.take_outputs(now, effects);
            }
        } else {
            self.tell_of_beginning(now, effects);
        }
        self.resume_sending(now, effects);
        self.pace_sending(now, effects);
        self.take_outputs(now, effects);
        self.watch_disk(now, effects);
        self.review(now, effects);
    }

    fn stop(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        self.stopping = true;
        self.journal.hurry_watermark(now);
        self.hand_over(now, effects);
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Role for Consensus<B> {
    type Event = ConsensusEvent;
    type Effect = ConsensusEffect<B>;

    fn handle(
        &mut self,
        now: Instant,
        event: ConsensusEvent,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.now = now;
        match event {
            ConsensusEvent::Start => {
                if self.raft.is_lone_voter() {
                    self.raft.handle(now, Input::Campaign, &mut self.outputs);
                    self.take_outputs(now, effects);
                }
            }
            ConsensusEvent::Propose { ticket, kind, stamped, frees_space, frame, deadline } => {
                let mark = if stamped { STAMP_MARK } else { 0 };
                let (ticket, kind) = (Some(ticket), kind as u8 | mark);
                self.propose(Proposal { ticket, kind, frees_space, frame, deadline }, effects);
            }
            ConsensusEvent::ReadIndex { reactor } => self.read_waiters.push(reactor),
            ConsensusEvent::Applied { bytes, index } => {
                self.proposed_bytes -= bytes;
                self.apply_lag.applied(index);
                self.leases_applied(index);
            }
            ConsensusEvent::LeasesDue { term, due, next } => self.leases_due(term, &due, next),
            ConsensusEvent::LeaseAdded { deadline } => self.lease_added(deadline),
            ConsensusEvent::Outdated { revision } => self.outdated.wanted = revision,
            ConsensusEvent::LogTime { time } => self.log_clock.set_known(now, time),
            ConsensusEvent::StateHash { index, hash } => self.divergence.note(index, hash),
            ConsensusEvent::Checkpointed { index } => self.recycle(index.next()),
            ConsensusEvent::LogRead { peer, read, bytes } => {
                if let Some(reader) = self.readers.get_mut(&peer) {
                    reader.feed(read, &bytes);
                }
                self.read_log(peer, effects);
            }
            ConsensusEvent::Admin { ticket, request } => {
                self.take_admin(now, ticket, request, effects);
            }
            ConsensusEvent::Status { ticket } => {
                let standing = self.standing();
                let event = StoreEvent::Status { ticket, standing };
                effects.push(ConsensusEffect::ToStore(event));
            }
            ConsensusEvent::Limits { ticket, uses } => self.pass_limits(ticket, uses, effects),
            ConsensusEvent::LinkAccepted { link } if self.settled => {
                self.peers.accepted(now, link);
            }
            ConsensusEvent::LinkAccepted { link } => {
                effects.push(ConsensusEffect::LinkClose { link });
            }
            ConsensusEvent::LinkDialed { dial, link } => {
                self.peers.dialed(now, dial, link, effects);
            }
            ConsensusEvent::LinkReceived { link, bytes } => {
                self.links(now, effects, |peers, greeting, incoming, effects| {
                    peers.received(now, link, bytes, greeting, incoming, effects);
                });
            }
            ConsensusEvent::LinkBlocked { link, blocked } => {
                self.peers.set_blocked(now, link, blocked);
            }
            ConsensusEvent::LinkClosed { link } => {
                self.links(now, effects, |peers, _, incoming, _| peers.closed(now, link, incoming));
            }
            ConsensusEvent::SendBegun { transfer, index, members, size_hint } => {
                self.sending_begun(now, transfer, index, members, size_hint, effects);
                self.take_outputs(now, effects);
            }
            ConsensusEvent::SendChunk { transfer, chunk, last } => {
                self.sending_chunk(now, transfer, chunk, last, effects);
                self.take_outputs(now, effects);
            }
            ConsensusEvent::SendFailed { transfer, reason } => {
                self.sending_failed(now, transfer, &reason, effects);
                self.take_outputs(now, effects);
            }
            ConsensusEvent::ReceiveTaken { transfer, next } => {
                self.receive_taken(now, transfer, next, effects);
            }
            ConsensusEvent::ReceiveComplete { transfer } => {
                self.receive_complete(now, transfer, effects);
            }
            ConsensusEvent::ReceiveRefused { transfer, reason } => {
                self.receive_refused(transfer, &reason, effects);
            }
            ConsensusEvent::Installed { index: _ } => self.install_swapped(effects),
            ConsensusEvent::PageSpace { low, quota_is_met } => {
                (self.page_space_low, self.quota_is_met) = (low, quota_is_met);
            }
            ConsensusEvent::Written { lsn } => self.journal.written(lsn),
            ConsensusEvent::Synced { lsn } => {
                self.journal.synced();
                self.groups_durable(now, lsn, effects);
            }
            ConsensusEvent::SlotMade { slot } => self.journal.slot_made(slot, effects),
            ConsensusEvent::SlotFailed => self.journal.slot_failed(now),
            ConsensusEvent::SpareReady { slot } => self.journal.spare_ready(slot),
            ConsensusEvent::WatermarkDurable => self.journal.watermark_durable(),
            ConsensusEvent::Stop => {
                self.stop(now, effects);
                self.take_outputs(now, effects);
            }
        }
    }

    fn flush(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        self.now = now;
        if self.excluded.as_ref().is_some_and(|(at, _)| now >= *at)
            && let Some((_, reason)) = self.excluded.take()
        {
            effects.push(ConsensusEffect::Halt(reason));
        }
        if let Some(lsn) = self.journal.sync(effects) {
            self.groups_durable(now, lsn, effects);
        }
        if self.is_connected() {
            self.tick(now, effects);
        }
        self.write_alone(now, effects);
        self.give_up_late(now);
        if mem::take(&mut self.quota_refused) {
            effects.push(ConsensusEffect::ToStore(StoreEvent::QuotaRefused));
        }
        let log = self.raft.log();
        self.apply_lag.look(now, log.committed().min(log.durable()));
        self.tend_leases(now, effects);
        self.tend_retention();
        self.measure();
        self.append_waiting(now, effects);
        let committed = self.raft.log().committed();
        self.journal.write_waiting(now, &self.tail, committed, effects);
        self.journal.seal(now, committed, effects);
        if !self.waiting.is_empty() {
            // Sealing made room; the next group gathers while this one is on its way.
            self.append_waiting(now, effects);
            self.journal.seal(now, committed, effects);
        }
        self.answer_reads(now, effects);
        if self.is_connected() {
            self.raft.handle(now, Input::Flush, &mut self.outputs);
            self.take_outputs(now, effects);
        }
        self.tell_leader(effects);
        self.journal.prepare_spares(now, effects);
        self.journal.write_watermark(now, self.stopping, effects);
        for (reactor, replies) in self.replies.drain(..) {
            effects.push(ConsensusEffect::ToReactor(reactor, ReactorEvent::Replies(replies)));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let undecided = self.undecided.deadline();
        let own = [self.journal.deadline(), self.leases_deadline(), undecided];
        let own = own.into_iter().flatten().min();
        if !self.is_connected() {
            return own;
        }
        let raft = self.raft.deadline().filter(|_| self.beginner.is_none());
        let excluded = self.excluded.as_ref().map(|(at, _)| *at);
        let (peers, review) = (self.peers.deadline(), Some(self.review_at));
        let (disk, sending) = (self.disk_deadline(), self.sending_deadline());
        [own, raft, peers, review, excluded, disk, sending].into_iter().flatten().min()
    }
}
