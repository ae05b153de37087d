//! The machine of one member: what is common to all roles, first of all the rules of terms.

use alloc::vec::Vec;
use base::{Duration, Instant, LogIndex, Mutant, NodeId, Prng, Term};

use crate::candidate::Candidate;
use crate::follower::Follower;
use crate::leader::Leader;
use crate::{
    Configuration, HardState, Input, Log, Membership, Message, Output, Outputs, Position, Progress,
};

/// Times and bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// A follower that hears of no leader for this long, up to twice as long, asks for votes; a
    /// leader that hears of no quorum for this long steps down. Several times `heartbeat_interval`.
    pub election_timeout: Duration,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// Whoever misses the leader asks first whether it would be elected, without a new term. Without it a
    /// member that was cut off comes back with a later term and deposes the leader.
    pub pre_vote: bool,
    /// Entries in one append.
    pub append_entries_max: u64,
    /// Bytes of one append, at most: the host sends fewer entries where they would be more.
    pub append_bytes_max: u64,
    /// Appends on their way to one peer.
    pub in_flight_max: usize,
    /// Bytes on their way to one peer; room for one append at least.
    pub in_flight_bytes_max: u64,
}

impl Options {
    /// For members on one local network.
    pub const LOCAL: Self = Self {
        election_timeout: Duration::from_millis(200),
        heartbeat_interval: Duration::from_millis(40),
        pre_vote: true,
        append_entries_max: 4_096,
        append_bytes_max: 1 << 20,
        in_flight_max: 64,
        in_flight_bytes_max: 16 << 20,
    };

    fn check(&self) {
        assert!(
            self.heartbeat_interval.as_nanos() * 2 <= self.election_timeout.as_nanos(),
            "one lost heartbeat would cause an election: {self:?}"
        );
        assert!(self.append_entries_max > 0 && self.in_flight_max > 0, "nothing fits: {self:?}");
        assert!(
            self.append_bytes_max <= self.in_flight_bytes_max,
            "no append fits the window: {self:?}"
        );
    }
}

/// What a member has on disk.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its last durable term and vote.
    pub hard_state: HardState,
    /// Its log.
    pub log: Log,
    /// The membership that its state holds, and those of later log entries, in order.
    pub configurations: Vec<Configuration>,
}

/// The part that a member plays.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RoleName {
    /// Follows, or waits for its first election.
    Follower,
    /// Asks whether it would get votes.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

#[derive(Clone, Debug)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

/// One member's Raft.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) id: NodeId,
    pub(crate) options: Options,
    /// Memberships by index of their entry: one that is committed, then those that are not. The last
    /// one is in effect; when its entry is cut off, the one before is again.
    pub(crate) configurations: Vec<Configuration>,
    pub(crate) hard_state: HardState,
    /// What is durable of it. While that is behind, nothing is sent.
    pub(crate) saved: HardState,
    /// What waits for it.
    pub(crate) held: Vec<(NodeId, Message)>,
    pub(crate) role: Role,
    pub(crate) log: Log,
    /// The time of the last call.
    pub(crate) now: Instant,
    /// No leader until then: time for an election.
    pub(crate) election_at: Instant,
    /// Time of the last valid message of the leader.
    pub(crate) contact: Option<Instant>,
    pub(crate) prng: Prng,
    /// Terms, votes and commit index as of the last check: they do not go back.
    pub(crate) checked: (HardState, LogIndex),
    /// Reused for quorum arithmetic.
    pub(crate) scratch: Vec<LogIndex>,
}

impl Raft {
    /// A member as it stands after recovery, with the usual options and a membership that the log
    /// does not change: a follower that has to be started.
    pub fn new(id: NodeId, membership: Membership, hard_state: HardState, log: Log) -> Self {
        let configurations = [Configuration { index: LogIndex::ZERO, membership }].into();
        let restored = Restored { hard_state, log, configurations };
        Self::restore(id, Options::LOCAL, restored, Instant::ORIGIN, id.get())
    }

    /// A member as it stands after recovery: a follower. `seed` is for the spread of its election
    /// time-outs and the numbers of its questions: fresh randomness at every start.
    pub fn restore(
        id: NodeId,
        options: Options,
        restored: Restored,
        now: Instant,
        seed: u64,
    ) -> Self {
        options.check();
        let Restored { hard_state, log, configurations } = restored;
        assert!(
            hard_state.term >= log.last_term(),
            "term {:?} below that of the last entry {:?}",
            hard_state.term,
            log.last_term()
        );
        assert!(!configurations.is_empty(), "a member without a membership");
        for pair in configurations.windows(2) {
            assert!(pair[0].index < pair[1].index, "memberships out of order: {pair:?}");
        }
        let checked = (hard_state, log.committed());
        let mut prng = Prng::new(seed);
        let follower = Follower::new(None, log.committed(), prng.next_u64());
        let mut raft = Self {
            id,
            options,
            configurations,
            hard_state,
            saved: hard_state,
            held: Vec::new(),
            role: Role::Follower(follower),
            log,
            now,
            election_at: now,
            contact: None,
            prng,
            checked,
            scratch: Vec::new(),
        };
        raft.prune_configurations();
        raft.restart_election_timer();
        raft.check();
        raft
    }

    /// Takes one input. Whatever it wants done is added to `outputs`.
    pub fn handle(&mut self, now: Instant, input: Input, outputs: &mut Outputs) {
        self.now = self.now.max(now);
        match input {
            Input::Tick => self.tick(outputs),
            Input::Flush => self.flush(outputs),
            Input::Begin { beyond } if self.hard_state.term <= beyond => {
                self.advance_term(beyond.next(), None, outputs);
            }
            Input::Begin { .. } => {}
            Input::Campaign => self.campaign(outputs),
            Input::Receive { from, message } => self.receive(from, message, outputs),
            Input::Propose { count } => self.propose_many(count, outputs),
            Input::Change(change) => {
                if let Err(refusal) = self.change(&change, outputs) {
                    outputs.push(Output::ChangeRefused(refusal));
                }
            }
            Input::Read { ticket } => self.read(ticket, outputs),
            Input::Transfer { to } => self.transfer(to, outputs),
            Input::HardStateDurable(state) => self.hard_state_durable(state, outputs),
            Input::Durable { position, era } => {
                self.log.advance_durable(position.index, position.term, era);
                self.after_durable(outputs);
            }
            Input::Sent { to, named, last, bytes } => {
                if let Some(peer) = self.peer_mut(to) {
                    peer.settle(named, last, bytes);
                }
            }
            Input::SnapshotBegun { to, index } => {
                if let Some(peer) = self.peer_mut(to) {
                    peer.snapshot_begun(index);
                }
            }
            Input::Unreachable { peer } => {
                if let Some(peer) = self.peer_mut(peer) {
                    peer.probe();
                }
            }
            Input::Gone { peer } => self.forget_leader(peer, outputs),
            Input::Compacted { index } => self.log.compact(index),
        }
        self.check_step();
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Follower(follower) => {
                let election = self.may_campaign().then_some(self.election_at);
                [election, follower.deadline()].into_iter().flatten().min()
            }
            Role::Candidate(_) => Some(self.election_at),
            Role::Leader(leader) => {
                if self.is_lone_voter() && leader.peers.is_empty() {
                    return leader.reads.deadline();
                }
                Some(leader.deadline())
            }
        }
    }

    fn tick(&mut self, outputs: &mut Outputs) {
        match &self.role {
            Role::Follower(_) => self.tick_follower(outputs),
            Role::Candidate(_) if self.now >= self.election_at => {
                if self.may_campaign() {
                    self.ask(self.options.pre_vote, false, outputs);
                } else {
                    self.follow(None, outputs);
                }
            }
            Role::Candidate(_) => {}
            Role::Leader(_) => self.tick_leader(outputs),
        }
    }

    /// The rules of terms (paper 5.1, thesis 3.3), then what the role does with the message.
    fn receive(&mut self, from: NodeId, message: Message, outputs: &mut Outputs) {
        assert!(from != self.id, "{from:?} got a message from itself: {message:?}");
        let term = message.term();
        if term > self.hard_state.term {
            match message {
                // One that hears from its leader takes part in no election, else a member that was
                // cut off or removed would depose a leader that the others follow (thesis 4.2.3).
                Message::PreVote { .. } | Message::Vote { transfer: false, .. }
                    if self.is_in_lease() =>
                {
                    return;
                }
                Message::PreVote { .. } if !Mutant::PreVoteTakesTerm.is_on() => {}
                Message::PreVoteReply { granted: true, .. } => {}
                _ => {
                    let leader = message.is_from_leader().then_some(from);
                    self.advance_term(term, leader, outputs);
                }
            }
        } else if term < self.hard_state.term {
            match message {
                Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                    // Without an answer, a leader of a past term and a member of a later one, whose
                    // votes nobody hears, would wait for each other for ever.
                    let newer = Message::Newer { term: self.hard_state.term };
                    if !Mutant::NoNewerAnswer.is_on() {
                        self.send(from, newer, outputs);
                    }
                }
                Message::PreVote { .. } => {
                    let term = self.hard_state.term;
                    self.send(from, Message::PreVoteReply { term, granted: false }, outputs);
                }
                _ => {}
            }
            return;
        }
        if message.is_from_leader() {
            self.hear_from_leader(from, outputs);
        }
        match message {
            Message::PreVote { term, last } => self.on_pre_vote(from, term, last, outputs),
            Message::Vote { last, .. } => self.on_vote(from, last, outputs),
            Message::PreVoteReply { granted, .. } => self.on_answer(from, true, granted, outputs),
            Message::VoteReply { granted, .. } => self.on_answer(from, false, granted, outputs),
            Message::Append { previous, runs, last, committed, configurations, .. } => {
                if self.on_append(from, previous, &runs, last, configurations, outputs) {
                    // Only what this message has shown to agree is known to be what was committed.
                    let last =
                        if Mutant::CommitUnverified.is_on() { self.log.last() } else { last };
                    self.on_committed(committed.min(last), outputs);
                }
            }
            Message::Heartbeat { committed, round, .. } => {
                // The leader names no more than is durable here in agreement with its log.
                if committed > self.log.last() {
                    outputs.push(Output::Forgotten { by: from, index: committed });
                    return;
                }
                self.on_committed(committed, outputs);
                let (term, matched) = (self.hard_state.term, self.matched());
                let reply = Message::HeartbeatReply { term, round, matched };
                self.send(from, reply, outputs);
            }
            Message::Snapshot { last, configuration, .. } => {
                self.on_snapshot(last, configuration, outputs);
            }
            Message::TimeoutNow { .. } => {
                if self.may_campaign() {
                    self.ask(false, true, outputs);
                }
            }
            Message::Accepted { matched, verified, .. } => {
                self.on_accepted(from, matched, verified, outputs);
            }
            Message::Rejected { previous, hint, .. } => self.on_rejected(from, previous, hint),
            Message::HeartbeatReply { round, matched, .. } => {
                self.on_heartbeat_reply(from, round, matched, outputs);
            }
            Message::Read { number, .. } => self.on_read(from, number),
            Message::ReadReply { number, index, .. } => self.on_read_reply(number, index, outputs),
            Message::Newer { .. } => {}
        }
    }

    /// A later term: whatever this member was, it follows.
    pub(crate) fn advance_term(
        &mut self,
        term: Term,
        leader: Option<NodeId>,
        outputs: &mut Outputs,
    ) {
        assert!(term > self.hard_state.term, "term {term:?} is not later");
        self.hard_state = HardState { term, vote: None };
        // Answers of a term that is over help nobody.
        self.held.clear();
        self.follow(leader, outputs);
        self.save(outputs);
    }

    /// Follows in the present term.
    pub(crate) fn follow(&mut self, leader: Option<NodeId>, outputs: &mut Outputs) {
        self.drop_reads(outputs);
        let number = self.prng.next_u64();
        self.role = Role::Follower(Follower::new(leader, self.log.committed(), number));
        self.contact = leader.map(|_| self.now);
        self.restart_election_timer();
        outputs.push(Output::Following { term: self.hard_state.term, leader });
    }

    /// Term or vote changed: they have to be durable before anything is said.
    pub(crate) fn save(&mut self, outputs: &mut Outputs) {
        match outputs.last_mut() {
            Some(Output::SaveHardState(state)) => *state = self.hard_state,
            Some(_) | None => outputs.push(Output::SaveHardState(self.hard_state)),
        }
    }

    /// Sends as soon as term and vote are durable: every message names the term, a refusal too.
    pub(crate) fn send(&mut self, to: NodeId, message: Message, outputs: &mut Outputs) {
        let early = Mutant::VoteBeforeSync.is_on()
            && matches!(message, Message::VoteReply { granted: true, .. })
            || Mutant::RefusalBeforeSync.is_on()
                && matches!(message, Message::VoteReply { granted: false, .. });
        if self.saved == self.hard_state || early {
            outputs.push(Output::Send { to, message });
            return;
        }
        let kind = core::mem::discriminant(&message);
        // Of one kind the last word counts, so that what waits is bounded.
        self.held.retain(|(peer, held)| *peer != to || core::mem::discriminant(held) != kind);
        self.held.push((to, message));
    }

    /// Term and vote are durable. A completion of an older term or another vote says nothing.
    pub fn hard_state_durable(&mut self, durable: HardState, outputs: &mut Outputs) {
        if durable != self.hard_state || durable == self.saved {
            return;
        }
        self.saved = durable;
        for (to, message) in self.held.drain(..) {
            outputs.push(Output::Send { to, message });
        }
        self.own_vote_durable(outputs);
    }

    /// The own log is durable up to `index`, whose entry has `term`. For a host that never has to
    /// cut its log, as that of a lone voter; others say the era with [`Input::Durable`].
    pub fn durable(&mut self, index: LogIndex, term: Term, outputs: &mut Outputs) {
        let era = self.log.era();
        self.log.advance_durable(index, term, era);
        self.after_durable(outputs);
        self.check_step();
    }

    fn after_durable(&mut self, outputs: &mut Outputs) {
        match &self.role {
            Role::Follower(_) => self.acknowledge(outputs),
            Role::Candidate(_) => {}
            Role::Leader(_) => self.advance_commit(outputs),
        }
    }

    /// Moves the commit index; memberships before the last committed one are history.
    pub(crate) fn commit(&mut self, index: LogIndex, outputs: &mut Outputs) {
        self.log.advance_committed(index);
        self.prune_configurations();
        outputs.push(Output::Committed { index });
    }

    pub(crate) fn prune_configurations(&mut self) {
        let committed = self.log.committed();
        while self.configurations.get(1).is_some_and(|next| next.index <= committed) {
            self.configurations.remove(0);
        }
    }

    /// Whether a leader is known to have led a moment ago.
    pub(crate) fn is_in_lease(&self) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                let until = self.contact.map(|at| at.after(self.options.election_timeout));
                follower.leader.is_some() && until.is_some_and(|until| self.now < until)
            }
            Role::Candidate(_) => false,
        }
    }

    /// The time-out is drawn anew, so that two members do not split the votes time after time.
    pub(crate) fn restart_election_timer(&mut self) {
        let base = self.options.election_timeout;
        let spread = Duration::from_nanos(self.prng.below(base.as_nanos().max(1)));
        self.election_at = self.now.after(base).after(spread);
    }

    /// The same after the leader has gone: what is left to wait for is that the others have noticed
    /// too, and that one of them is first.
    pub(crate) fn hurry_election(&mut self) {
        let base = self.options.election_timeout.as_nanos();
        let pause = Duration::from_nanos(base / 20 + self.prng.below((base / 2).max(1)));
        self.election_at = self.election_at.min(self.now.after(pause));
    }

    /// Whether this member may ask for votes: it is a voter, or was one before a change that it does
    /// not know to be committed. The second matters: where only a leader that is being removed holds
    /// the entry that removes it, the old majority may need its vote, which it gives nobody with a
    /// shorter log, so that none but itself can be elected (thesis 4.2.2).
    pub(crate) fn may_campaign(&self) -> bool {
        self.configurations.iter().any(|known| known.membership.is_voter(self.id))
    }

    /// Whether the own acknowledgement alone makes a quorum.
    #[inline]
    pub fn is_lone_voter(&self) -> bool {
        self.membership().is_lone(self.id)
    }

    /// The own name.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its times and bounds.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The part played now.
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Follower(_) => RoleName::Follower,
            Role::Candidate(candidate) if candidate.is_pre() => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// The leader of the current term, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.id),
        }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Term and vote, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The log's positions.
    #[inline]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The membership in effect: the last in the log, committed or not.
    #[inline]
    pub fn membership(&self) -> &Membership {
        &self.configuration().membership
    }

    /// The membership in effect and where it stands.
    #[inline]
    pub fn configuration(&self) -> &Configuration {
        if Mutant::MembershipAtCommit.is_on() {
            return &self.configurations[0];
        }
        self.configurations.last().expect("there is a committed one at least")
    }

    /// The last committed membership and those behind it.
    pub fn configurations(&self) -> &[Configuration] {
        &self.configurations
    }

    /// What a leader knows of its peers; nothing on anyone else.
    pub fn peers(&self) -> &[Progress] {
        match &self.role {
            Role::Leader(leader) => &leader.peers,
            Role::Follower(_) | Role::Candidate(_) => &[],
        }
    }

    /// Where the log ends.
    pub(crate) fn last(&self) -> Position {
        self.log.last_position()
    }
}
