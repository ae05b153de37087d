//! Proposals: how a write of a client, or of another member, gets its position in the log, or is refused.
//!
//! The leader appends; any other member passes on to it and waits until it applies the entry itself.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{Duration, Frame, Instant, LogIndex, Mutant, NodeId, Term, Ticket};
use raft::RoleName;
use wal::Position;
use wire::{PeerFrame, PeerLane, Status};

use crate::ConsensusEffect;
use crate::consensus::Consensus;
use crate::gauges::Bound;
use crate::message::{EntryKind, Origin, Refused, ReplyBody};
use crate::tail::Kept;
use crate::undecided::Write;

/// A write that a lost leader had is settled by the next one; so many election time-outs are waited for
/// that: some elections, each with an undecided one before.
const DOUBT_ELECTIONS: u64 = 5;

/// A write that has no position yet.
pub(crate) struct Proposal {
    pub ticket: Option<Ticket>,
    /// The number of its kind in the log, with the mark of a forwarded one.
    pub kind: u8,
    pub frees_space: bool,
    /// The payload.
    pub frame: Frame,
    pub deadline: Option<Instant>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Why a write of this size is not taken now. The leader judges by its own disk.
    fn objection(&self, size: usize, frees_space: bool) -> Option<(Status, String)> {
        let leads = self.raft.role() == RoleName::Leader;
        if self.stopping {
            let message = "the server is stopping; nothing was written; send the request again \
                           when it is back";
            return Some((Status::ShuttingDown, message.to_string()));
        }
        if leads && self.space_is_low() && !frees_space {
            let message = if self.quota_is_met {
                "keys and history have reached the quota; nothing was written; delete keys and \
                 compact, or start the members with a greater quota, then disarm the alarm"
            } else {
                "the disk is full; nothing was written; delete keys and compact, or make room on \
                 the file system of the data directory, then try again"
            };
            return Some((Status::NoSpace, message.to_string()));
        }
        let taken = self.proposed_bytes + self.foreign_bytes;
        if taken > 0 && taken + size > self.config.proposed_bytes_max {
            let message = format!(
                "{taken} bytes of writes wait for the disk and the limit is {}; nothing was \
                 written; try again after a pause",
                self.config.proposed_bytes_max
            );
            return Some((Status::Overloaded, message));
        }
        None
    }

    /// A write is refused because this member's quota is met, if that is why: its alarm is raised.
    fn note_quota(&mut self, status: Status) {
        self.quota_refused |= status == Status::NoSpace && self.quota_is_met;
    }

    fn object(&mut self, ticket: Ticket, status: Status, message: String) {
        self.note_quota(status);
        let mut refused = Refused::new(status, message);
        if status == Status::Overloaded {
            self.gauges.hit(Bound::Proposals);
            refused.retry_after_ms = Refused::drained_ms(self.proposed_size());
        }
        self.reply(ticket, ReplyBody::Refused(refused));
    }

    pub(crate) fn propose(&mut self, proposal: Proposal, effects: &mut Vec<ConsensusEffect<B>>) {
        assert!(self.outputs.is_empty(), "raft's outputs wait: {:?}", self.outputs);
        let size = proposal.frame.len();
        if let Some((status, message)) = self.objection(size, proposal.frees_space) {
            if let Some(ticket) = proposal.ticket {
                self.object(ticket, status, message);
            }
            return;
        }
        self.count(&proposal);
        if self.raft.role() != RoleName::Leader {
            self.pass_on(proposal, effects);
        } else if !self.waiting.is_empty() {
            self.waiting.push_back(proposal);
        } else if let Err(proposal) = self.append(proposal) {
            self.waiting.push_back(proposal);
        }
    }

    fn count(&mut self, proposal: &Proposal) {
        match proposal.ticket {
            Some(_) => self.proposed_bytes += proposal.frame.len(),
            None => self.foreign_bytes += proposal.frame.len(),
        }
    }

    fn drop_proposal(&mut self, proposal: &Proposal, status: Status, message: &str) {
        match proposal.ticket {
            Some(ticket) => {
                self.mishaps.failed_proposals += 1;
                self.proposed_bytes -= proposal.frame.len();
                self.refuse(ticket, status, message.to_string());
            }
            None => self.foreign_bytes = self.foreign_bytes.saturating_sub(proposal.frame.len()),
        }
    }

    /// Gives the proposal a position and copies it into the open block, unless that is full, or applying
    /// is behind.
    fn append(&mut self, proposal: Proposal) -> Result<(), Proposal> {
        if self.apply_lag.is_long(self.now) {
            return Err(proposal);
        }
        // What the state has of log time comes with the first turn of the store.
        if EntryKind::time_at(proposal.kind).is_some() && !self.log_clock.is_known() {
            return Err(proposal);
        }
        let Some((index, term)) = self.raft.next() else { return Err(proposal) };
        let kind = proposal.kind;
        let timed = self.with_time(self.now, kind, &proposal.frame);
        let payload = timed.as_ref().unwrap_or(&proposal.frame);
        let record = wal::Entry { index, term, kind, payload };
        let Some(hash) = self.journal.append(&record) else { return Err(proposal) };
        self.raft.propose().expect("it leads: it named the next position");
        let Proposal { ticket, frame, .. } = proposal;
        let frame = timed.unwrap_or(frame);
        self.tail.push(Kept { index, term, kind, frame, hash, ticket });
        Ok(())
    }

    /// Appends a proposal that no bound holds back, behind those that wait.
    pub(crate) fn propose_first(&mut self, proposal: Proposal) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(proposal);
        } else if let Err(proposal) = self.append(proposal) {
            self.waiting.push_back(proposal);
        }
    }

    /// The last entry of the log once everything that waits has its position.
    pub(crate) fn last_proposed(&self) -> LogIndex {
        let waiting = u64::try_from(self.waiting.len()).expect("proposals are bounded");
        LogIndex::new(self.raft.log().last().get() + waiting)
    }

    /// Puts an entry of this member's own at the position that raft has given it already.
    pub(crate) fn append_own(&mut self, index: LogIndex, term: Term, kind: u8, frame: Frame) {
        let entry = wal::Entry { index, term, kind, payload: &frame };
        let hash = match self.journal.append(&entry) {
            Some(hash) => hash,
            None => {
                self.journal.push(index);
                wal::chain_hash(&entry, self.tail.last().hash)
            }
        };
        self.tail.push(Kept { index, term, kind, frame, hash, ticket: None });
    }

    /// Appends what waits, as far as the open block has room; drops what nobody waits for any more.
    pub(crate) fn append_waiting(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        while let Some(proposal) = self.waiting.pop_front() {
            if proposal.deadline.is_some_and(|deadline| now > deadline) {
                let message = "the deadline of the request passed before it was written; nothing \
                               was written";
                self.drop_proposal(&proposal, Status::DeadlineExceeded, message);
            } else if self.raft.role() != RoleName::Leader {
                self.pass_on(proposal, effects);
            } else if let Err(proposal) = self.append(proposal) {
                self.waiting.push_front(proposal);
                return;
            }
        }
    }

    /// Has the leader propose it.
    fn pass_on(&mut self, proposal: Proposal, effects: &mut Vec<ConsensusEffect<B>>) {
        let leader = self.raft.leader().filter(|leader| *leader != self.raft.id());
        let link = leader.and_then(|leader| self.peers.open(leader, PeerLane::Bulk));
        let (Some(link), Some(ticket)) = (link, proposal.ticket) else {
            let message = "no leader is known at present, or it cannot be reached; nothing was \
                           written; try again after the election";
            return self.drop_proposal(&proposal, Status::NoLeader, message);
        };
        let (sequence, term) = (self.undecided.number(), self.raft.term());
        let own = self.peers.own();
        let origin = Origin { member: own.member, start_id: own.start_id, sequence };
        let body = origin.wrap(&proposal.frame);
        let frame = PeerFrame::Forward(wire::PeerForward {
            sequence,
            kind: proposal.kind | Origin::MARK,
            frees_space: proposal.frees_space,
            body: &body,
            term,
        });
        let mut bytes = Vec::new();
        if let Err(error) = self.peers.encoder().encode(&mut bytes, &frame) {
            let message = format!("the request cannot be passed on to the leader: {error}");
            return self.drop_proposal(&proposal, Status::TooLarge, &message);
        }
        if Mutant::ForwardedTwice.is_on() {
            effects.push(ConsensusEffect::LinkSend { link, bytes: bytes.clone() });
        }
        effects.push(ConsensusEffect::LinkSend { link, bytes });
        self.undecided.forward(sequence, ticket, proposal.frame.len(), term);
    }

    /// A member has a write for the leader to propose.
    pub(crate) fn take_forward(
        &mut self,
        from: NodeId,
        forward: &wire::PeerForward<'_>,
        frame: Frame,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let is_known = EntryKind::decode(forward.kind, &frame).is_some_and(|payload| {
            let may = !payload.kind.is_leaders() || Mutant::DeposedExpires.is_on();
            may && payload.origin.is_some_and(|origin| origin.member == from)
        });
        let objection = if !is_known {
            Some((Status::InvalidArgument, "the leader does not know this kind of write".into()))
        } else if self.raft.role() != RoleName::Leader
            // It was meant for an earlier term: its sender may have been told that it had no effect.
            || forward.term != self.raft.term() && !Mutant::ForwardOfAnyTerm.is_on()
        {
            Some((
                Status::NoLeader,
                "the leader has changed; nothing was written; try again".into(),
            ))
        } else if self.stopping {
            // That this server ends is nothing to the clients of another one: the next leader takes it.
            let message = "the leader stops and hands over; nothing was written; try again";
            Some((Status::NoLeader, message.into()))
        } else {
            self.objection(frame.len(), forward.frees_space)
        };
        if let Some((status, message)) = objection {
            self.note_quota(status);
            if status == Status::Overloaded {
                self.gauges.hit(Bound::Proposals);
            }
            let refused =
                wire::PeerForwardRefused { sequence: forward.sequence, status, message: &message };
            self.send(from, PeerLane::Control, &PeerFrame::ForwardRefused(refused), effects);
            return;
        }
        let proposal = Proposal {
            ticket: None,
            kind: forward.kind,
            frees_space: forward.frees_space,
            frame,
            deadline: None,
        };
        self.count(&proposal);
        if !self.waiting.is_empty() {
            self.waiting.push_back(proposal);
        } else if let Err(proposal) = self.append(proposal) {
            self.waiting.push_back(proposal);
        }
    }

    /// The leader has not proposed it and will not.
    pub(crate) fn take_forward_refused(&mut self, refused: &wire::PeerForwardRefused<'_>) {
        if let Some(write) = self.undecided.take_forwarded(refused.sequence) {
            self.mishaps.failed_proposals += 1;
            self.proposed_bytes -= write.size;
            self.refuse(write.ticket, refused.status, refused.message.to_string());
        }
    }

    /// An entry of `term` is committed, which settles what leaders of earlier terms have had.
    pub(crate) fn settle_writes(&mut self, term: Term) {
        for write in self.undecided.settle(term) {
            self.mishaps.failed_proposals += 1;
            self.proposed_bytes -= write.size;
            let message = "the leader was lost before a majority had the write; nothing was written; \
                           try again";
            self.refuse(write.ticket, Status::NoLeader, message.to_string());
        }
    }

    /// What became of these nobody can say.
    fn give_up(&mut self, writes: Vec<Write>, why: &str) {
        for write in writes {
            self.mishaps.failed_proposals += 1;
            self.proposed_bytes -= write.size;
            let message = format!("{why}; the write may or may not take effect; read to find out");
            let lost = Mutant::LostIsRefused.is_on();
            let status = if lost { Status::NoLeader } else { Status::Unknown };
            self.refuse(write.ticket, status, message);
        }
    }

    /// Answers those whose outcome has not become certain in time.
    pub(crate) fn give_up_late(&mut self, now: Instant) {
        let late = self.undecided.take_late(now);
        self.give_up(late, "the leader was lost and no other has settled the write since");
    }

    /// Answers all that have no outcome yet: it will not be learned here.
    pub(crate) fn give_up_all(&mut self, why: &str) {
        let undecided = self.undecided.take_all();
        self.give_up(undecided, why);
    }

    /// The leader is lost, or the way to it: what it has had is not waited for without end.
    pub(crate) fn doubt(&mut self, now: Instant) {
        let wait = self.raft.options().election_timeout.as_nanos().saturating_mul(DOUBT_ELECTIONS);
        self.undecided.doubt(now.after(Duration::from_nanos(wait)));
    }

    /// This member does not lead, or not any more.
    pub(crate) fn follow(&mut self, now: Instant) {
        for (Position { index, term, .. }, ticket, size) in self.tail.take_waiting() {
            self.undecided.leave(term, index, ticket, size);
        }
        if Mutant::SettledUncommitted.is_on() {
            self.settle_writes(self.raft.term());
        }
        self.doubt(now);
        self.foreign_bytes = 0;
        // Those of other members are told by the new term.
        self.waiting.retain(|proposal| proposal.ticket.is_some());
    }
}
