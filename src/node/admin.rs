//! Requests about the members, and what the leader does about them by itself: it writes down what
//! members say of themselves, and makes voters of those who are to vote once they have caught up.
//!
//! A new member listens first. Its vote would count before it has the log, and a cluster of one could
//! not even commit the change: a cluster never waits for a machine that does not exist yet.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{Duration, FileId, Frame, Instant, LogIndex, Mutant, NodeId, Ticket};
use raft::{Change, ChangeRefusal, Input, Progress, RoleName};
use wire::{
    MEMBER_ADDRESS_SIZE_MAX, MEMBER_NAME_SIZE_MAX, Member, MemberChangeReply, MemberList,
    MemberListReply, MemberOperation, MemberRole, MoveLeaderReply, Status,
};

use crate::ConsensusEffect;
use crate::consensus::Consensus;
use crate::message::{EntryKind, ReplyBody};

/// A voter that joins lacks at most this many entries: some milliseconds' worth.
const LAG_MAX: u64 = 1_000;

/// How often the leader looks whether the list of members wants a change.
const REVIEW_INTERVAL: Duration = Duration::from_millis(100);

/// The same after a member has said something of itself.
const NEWS_INTERVAL: Duration = Duration::from_millis(10);

/// A member that has not been heard of for this long, or for an election time-out, is not there: many heartbeats.
const HEARD_TIMEOUT: Duration = Duration::from_millis(1_000);

/// A request about members that takes longer has an unknown outcome.
const ADMIN_TIMEOUT: Duration = Duration::from_millis(10_000);

/// What is wanted of the members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminRequest {
    /// Who they are.
    List,
    /// A change.
    Change {
        /// What shall be done.
        operation: MemberOperation,
        /// To which member.
        member: NodeId,
        /// The name of the new member, or the new name.
        name: String,
        /// The same for the address where members reach it.
        peer_address: String,
        /// Do it although it would be refused as unsafe.
        force: bool,
    },
    /// Hand leadership over.
    MoveLeader {
        /// To whom; 0: this member chooses.
        target: NodeId,
    },
}

enum Goal {
    /// A list at this index or later, and no joint one, is committed.
    Change { member: NodeId, index: LogIndex },
    /// Another member leads.
    Move { target: NodeId },
}

/// A request under way; one at a time.
pub(crate) struct Admin {
    ticket: Ticket,
    goal: Goal,
    added: Option<Member>,
    expires: Instant,
}

/// The status and the text of a refusal.
type Objection = (Status, String);

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// A client asks for something about the members.
    pub(crate) fn take_admin(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: AdminRequest,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let request = match request {
            AdminRequest::List => return self.reply_list(ticket),
            request => request,
        };
        if self.raft.role() != RoleName::Leader {
            let message = match self.raft.leader() {
                Some(leader) => format!(
                    "this member does not lead; ask member {}, {}",
                    leader.get(),
                    self.members.name_of(leader)
                ),
                None => "no leader is known at present; try again after the election".to_string(),
            };
            return self.refuse(ticket, Status::NotLeader, message);
        }
        if self.admin.is_some() {
            let message = "another change of members is under way; try again when it is over";
            return self.refuse(ticket, Status::ChangePending, message.to_string());
        }
        let result = match request {
            AdminRequest::List => Ok(()),
            AdminRequest::MoveLeader { target } => self.move_leader(now, ticket, target),
            AdminRequest::Change { operation, member, name, peer_address, force } => {
                let names = (name, peer_address);
                self.change_members(now, ticket, operation, member, names, force, effects)
            }
        };
        if let Err((status, message)) = result {
            self.admin = None;
            self.refuse(ticket, status, message);
        }
        self.take_outputs(now, effects);
        self.review_admin(effects);
    }

    fn reply_list(&mut self, ticket: Ticket) {
        let members = self.members.newest().encode().expect("a list in the log was encoded");
        let leader = self.raft.leader().unwrap_or_default();
        let mut out = Vec::new();
        let reply = MemberListReply { members: &members, leader };
        self.writer.member_list(&mut out, ticket.request, &reply);
        self.reply(ticket, ReplyBody::Frames(out));
    }

    fn move_leader(
        &mut self,
        now: Instant,
        ticket: Ticket,
        target: NodeId,
    ) -> Result<(), Objection> {
        let voters = self.raft.membership().voters();
        let target = if target == NodeId::default() {
            let fit =
                |peer: &&Progress| self.is_heard(now, peer.id()) && voters.contains(&peer.id());
            let heir = self.raft.peers().iter().filter(fit).max_by_key(|peer| peer.matched());
            let none = "no other voter is there to take over; start one, or add one";
            heir.map(Progress::id).ok_or((Status::QuorumAtRisk, none.to_string()))?
        } else {
            target
        };
        if target == self.raft.id() {
            let leader = target;
            let mut out = Vec::new();
            self.writer.move_leader(&mut out, ticket.request, &MoveLeaderReply { leader });
            self.reply(ticket, ReplyBody::Frames(out));
            return Ok(());
        }
        if !voters.contains(&target) {
            let message = format!("member {} is no voter of this cluster", target.get());
            return Err((Status::MemberNotFound, message));
        }
        let (goal, expires) = (Goal::Move { target }, now.after(ADMIN_TIMEOUT));
        self.admin = Some(Admin { ticket, goal, added: None, expires });
        self.raft.handle(now, Input::Transfer { to: target }, &mut self.outputs);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn change_members(
        &mut self,
        now: Instant,
        ticket: Ticket,
        operation: MemberOperation,
        id: NodeId,
        (name, peer_address): (String, String),
        force: bool,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) -> Result<(), Objection> {
        let list = self.members.newest().clone();
        let existing = list.get(id).cloned();
        let adds = matches!(
            operation,
            MemberOperation::Add | MemberOperation::AddLearner | MemberOperation::Replace
        );
        if existing.is_none()
            && !matches!(operation, MemberOperation::Add | MemberOperation::AddLearner)
        {
            let message = format!(
                "there is no member {} in this cluster; `quorate member list` names them",
                id.get()
            );
            return Err((Status::MemberNotFound, message));
        }
        check_names(&list, adds, operation, id, &name, &peer_address)?;
        let role = match operation {
            MemberOperation::AddLearner => MemberRole::Learner,
            _ => MemberRole::Promotable,
        };
        let next = NodeId::new(list.next_member);
        let added = adds.then(|| Member {
            id: next,
            name: name.clone(),
            peer_address: peer_address.clone(),
            client_address: String::new(),
            data_id: FileId::new(0),
            role,
        });
        if let Some(added) = &added {
            let mut longer = list.clone();
            longer.members.retain(|m| operation != MemberOperation::Replace || m.id != id);
            longer.members.push(added.clone());
            longer.next_member = next.get() + 1;
            let fits = longer.encode().map(|_| ());
            fits.map_err(|error| (Status::InvalidArgument, error.to_string()))?;
        }
        let own_address =
            self.members.get(self.raft.id()).map(|member| member.peer_address.clone());
        if adds && own_address.is_none_or(|address| address.is_empty()) {
            let message = "this member has no address for other members; start it with \
                           --listen-peer, then try again";
            return Err((Status::InvalidArgument, message.to_string()));
        }
        let member = if adds { next } else { id };
        let expires = now.after(ADMIN_TIMEOUT);
        let index = self.raft.log().last().next();
        let goal = Goal::Change { member, index };
        let change = match operation {
            MemberOperation::Add | MemberOperation::AddLearner => {
                self.members.change(None, |_, learners| learners.push(next))
            }
            MemberOperation::Promote => {
                let lag_max = (!force).then_some(LAG_MAX);
                self.members.change(lag_max, |voters, learners| {
                    learners.retain(|learner| *learner != id);
                    if !voters.contains(&id) {
                        voters.push(id);
                    }
                })
            }
            MemberOperation::Remove | MemberOperation::Replace => {
                let change = self.members.change(None, |voters, learners| {
                    voters.retain(|voter| *voter != id);
                    learners.retain(|learner| *learner != id);
                    if adds {
                        learners.push(next);
                    }
                });
                if !force && self.config.strict_removals {
                    self.check_quorum(now, &change)?;
                }
                change
            }
            MemberOperation::Update => {
                let mut list = list;
                for member in list.members.iter_mut().filter(|member| member.id == id) {
                    if !name.is_empty() {
                        member.name = name.clone();
                    }
                    if !peer_address.is_empty() {
                        member.peer_address = peer_address.clone();
                    }
                }
                self.admin = Some(Admin { ticket, goal, added: None, expires });
                return self.propose_list(now, list, effects);
            }
        };
        self.admin = Some(Admin { ticket, goal, added, expires });
        self.raft.handle(now, Input::Change(change), &mut self.outputs);
        Ok(())
    }

    /// Whether those who are to vote can decide anything: enough of them are there.
    fn check_quorum(&self, now: Instant, change: &Change) -> Result<(), Objection> {
        let own = self.raft.id();
        let last = self.raft.log().last();
        // One that lacks much of the log may not even vote, nor may one that has nothing of it, however
        // short the log: it remembers nothing.
        let is_close = |id: NodeId| {
            let peer = self.raft.peers().iter().find(|peer| peer.id() == id);
            peer.is_some_and(|peer| {
                let matched = peer.matched();
                matched > LogIndex::ZERO && matched.advance(LAG_MAX) >= last
            })
        };
        let is_there = |id: NodeId| id == own || (self.is_heard(now, id) && is_close(id));
        let there = change.voters.iter().filter(|id| is_there(**id)).count();
        if change.voters.is_empty() || there * 2 <= change.voters.len() {
            let message = format!(
                "of the {} voters that would be left only {there} are there, which is no majority: \
                 the cluster could not write any more; start the others first, or add --force",
                change.voters.len()
            );
            return Err((Status::QuorumAtRisk, message));
        }
        Ok(())
    }

    /// Whether a member was heard of lately.
    fn is_heard(&self, now: Instant, id: NodeId) -> bool {
        let timeout = HEARD_TIMEOUT.max(self.raft.options().election_timeout);
        self.heard.get(&id).is_some_and(|at| now.since(*at) < timeout)
    }

    /// Puts a list into the log that changes no vote.
    fn propose_list(
        &mut self,
        now: Instant,
        list: MemberList,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) -> Result<(), Objection> {
        let bytes = list.encode().map_err(|error| (Status::InvalidArgument, error.to_string()))?;
        let pending = self.members.index() > self.raft.log().committed();
        if pending || self.members.newest().is_joint() {
            let message = "another change of members is under way; try again when it is over";
            return Err((Status::ChangePending, message.to_string()));
        }
        let Some((index, term)) = self.raft.propose() else {
            let message = "leadership is being handed over; ask the next leader";
            return Err((Status::NotLeader, message.to_string()));
        };
        self.append_own(index, term, EntryKind::Members as u8, Frame::from(bytes));
        self.adopt(now, index, list, effects);
        Ok(())
    }

    /// Puts the list that an operator has forced into the log.
    pub(crate) fn write_alone(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        if !self.config.alone || self.raft.read_index().is_none() {
            return;
        }
        let list = self.members.newest().clone();
        if self.propose_list(now, list, effects).is_ok() {
            self.config.alone = false;
            effects.push(ConsensusEffect::Tell(
                "this member goes on as a cluster of its own; start it without \
                 --force-new-cluster from now on, and add members"
                    .into(),
            ));
        }
    }

    /// The member that the change under way brings in.
    pub(crate) fn take_added(&self) -> Option<Member> {
        self.admin.as_ref().and_then(|admin| admin.added.clone())
    }

    /// raft has not begun the change.
    pub(crate) fn change_refused(&mut self, refusal: ChangeRefusal) {
        // The leader's own changes are tried again.
        if !matches!(self.admin, Some(Admin { goal: Goal::Change { .. }, .. })) {
            return;
        }
        let Some(admin) = self.admin.take() else { return };
        let status = match refusal {
            ChangeRefusal::NotLeader => Status::NotLeader,
            ChangeRefusal::NothingCommitted
            | ChangeRefusal::ChangePending
            | ChangeRefusal::Transferring => Status::ChangePending,
            ChangeRefusal::NotCaughtUp(_) => Status::NotCaughtUp,
            ChangeRefusal::Size | ChangeRefusal::VoterAndLearner(_) | ChangeRefusal::NoChange => {
                Status::InvalidArgument
            }
        };
        self.refuse(admin.ticket, status, refusal.to_string());
    }

    /// Leadership was not taken over.
    pub(crate) fn transfer_failed(&mut self, to: NodeId) {
        if let Some(Admin { ticket, goal: Goal::Move { .. }, .. }) = self.admin {
            self.admin = None;
            let message = format!(
                "member {} did not take leadership over within the election time-out; this member \
                 leads on",
                to.get()
            );
            self.refuse(ticket, Status::NotCaughtUp, message);
        }
    }

    /// This member follows: a change has an unknown outcome, a move may have succeeded.
    pub(crate) fn admin_lost(&mut self) {
        let Some(Admin { ticket, goal, .. }) = &self.admin else { return };
        let ticket = *ticket;
        match goal {
            Goal::Change { .. } => {
                self.admin = None;
                let message = "leadership was lost before the change was committed; it may or may \
                               not take effect; list the members to find out";
                self.refuse(ticket, Status::Unknown, message.to_string());
            }
            Goal::Move { target } => {
                if let Some(leader) = self.raft.leader() {
                    let target = *target;
                    self.admin = None;
                    if leader == target {
                        let mut out = Vec::new();
                        let reply = MoveLeaderReply { leader };
                        self.writer.move_leader(&mut out, ticket.request, &reply);
                        self.reply(ticket, ReplyBody::Frames(out));
                    } else {
                        let message = format!("member {} has become the leader", leader.get());
                        self.refuse(ticket, Status::NotCaughtUp, message);
                    }
                }
            }
        }
    }

    /// Whether the request under way has reached its goal.
    pub(crate) fn review_admin(&mut self, _effects: &mut Vec<ConsensusEffect<B>>) {
        let Some(Admin { ticket, goal: Goal::Change { member, index }, .. }) = self.admin else {
            return;
        };
        let committed = self.raft.log().committed();
        let newest = self.members.index();
        let is_over = newest >= index
            && newest <= committed
            && !self.members.newest().is_joint()
            && !self.raft.membership().is_joint();
        if is_over {
            self.admin = None;
            let members = self.members.newest().encode().expect("a list in the log was encoded");
            let leader = self.raft.leader().unwrap_or_default();
            let mut out = Vec::new();
            let reply = MemberChangeReply { member, members: &members, leader };
            self.writer.member_change(&mut out, ticket.request, &reply);
            self.reply(ticket, ReplyBody::Frames(out));
        }
    }

    /// What the leader does about the list by itself, now and then.
    pub(crate) fn review(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        if now < self.review_at {
            return;
        }
        self.review_at = now.after(REVIEW_INTERVAL);
        self.review_transfers(now, effects);
        self.take_outputs(now, effects);
        if let Some(Admin { ticket, expires, .. }) = self.admin
            && now >= expires
        {
            self.admin = None;
            let message = "the change was not committed in time; it may or may not take effect; \
                           list the members to find out";
            self.refuse(ticket, Status::Unknown, message.to_string());
        }
        let is_settled = self.raft.read_index().is_some()
            && self.admin.is_none()
            && self.members.index() <= self.raft.log().committed()
            && !self.raft.membership().is_joint();
        if !is_settled {
            return;
        }
        let news = self.introduced.iter().find_map(|(&id, said)| self.members.introduced(id, said));
        if let Some(list) = news {
            // Whatever stands against it now will not for long. Others may have come at the same time, and
            // wait with serving until they are in the list.
            drop(self.propose_list(now, list, effects));
            self.review_at = now.after(NEWS_INTERVAL);
            return;
        }
        let last = self.raft.log().last();
        let is_close = |id: NodeId| {
            let mut peers = self.raft.peers().iter();
            peers.any(|p| p.id() == id && p.is_active() && p.matched().advance(LAG_MAX) >= last)
                && (self.is_heard(now, id) || Mutant::PromotesUnstarted.is_on())
        };
        let waits = |member: &&Member| member.role == MemberRole::Promotable && is_close(member.id);
        let ready = self.members.newest().members.iter().find(waits).map(|member| member.id);
        if let Some(id) = ready {
            let change = self.members.change(Some(LAG_MAX), |voters, learners| {
                learners.retain(|learner| *learner != id);
                voters.push(id);
            });
            self.raft.handle(now, Input::Change(change), &mut self.outputs);
            self.take_outputs(now, effects);
        }
    }
}

fn check_names(
    list: &MemberList,
    adds: bool,
    operation: MemberOperation,
    id: NodeId,
    name: &str,
    peer_address: &str,
) -> Result<(), Objection> {
    if !adds && operation != MemberOperation::Update {
        return Ok(());
    }
    if adds || !name.is_empty() {
        if !wire::is_member_name(name) {
            let message = format!(
                "{name:?} cannot be the name of a member; use 1 to {MEMBER_NAME_SIZE_MAX} visible \
                 ASCII characters without = and ,"
            );
            return Err((Status::InvalidArgument, message));
        }
        if let Some(other) = list.by_name(name).filter(|other| other.id != id) {
            let message = format!("member {} is already called {name}", other.id.get());
            return Err((Status::MemberExists, message));
        }
    }
    if adds || !peer_address.is_empty() {
        if !wire::is_member_address(peer_address) {
            let message = format!(
                "{peer_address:?} cannot be the address of a member; use HOST:PORT, at most \
                 {MEMBER_ADDRESS_SIZE_MAX} visible ASCII characters without = and ,"
            );
            return Err((Status::InvalidArgument, message));
        }
        let mut others = list.members.iter().filter(|other| other.id != id);
        if let Some(other) = others.find(|other| other.peer_address == peer_address) {
            let message = format!("member {} has the address {peer_address}", other.id.get());
            return Err((Status::MemberExists, message));
        }
    }
    if adds {
        let room = list.check_room(name, peer_address);
        return room.map_err(|error| (Status::InvalidArgument, error.to_string()));
    }
    Ok(())
}
