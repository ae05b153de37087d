//! What a leader does: give positions, replicate, commit, confirm that it leads, change members, hand
//! over.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use base::{Instant, LogIndex, Mutant, NodeId, Term};

use crate::progress::Pace;
use crate::raft::Role;
use crate::read::{Read, ReadQueue};
use crate::{
    Change, ChangeRefusal, Configuration, Membership, Message, Output, Outputs, Position, Progress,
    Raft,
};

/// Leadership is being handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    to: NodeId,
    /// The target was told: it had the whole log.
    told: bool,
    /// Given up then.
    expires: Instant,
}

#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// The empty entry of the term: nothing is read, and no change begun, before it is committed.
    pub first: LogIndex,
    /// All members but this one, ascending.
    pub peers: Vec<Progress>,
    pub reads: ReadQueue,
    pub transfer: Option<Transfer>,
    heartbeat_at: Instant,
    /// A quorum must have been heard of by then.
    quorum_at: Instant,
}

impl Leader {
    fn peer(&self, id: NodeId) -> Option<&Progress> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    pub fn hash_state(&self, now: Instant, hasher: &mut impl Hasher) {
        (self.first, &self.peers).hash(hasher);
        self.reads.hash_state(now, hasher);
        let transfer = self.transfer.map(|t| (t.to, t.told, t.expires.since(now)));
        (transfer, self.heartbeat_at.since(now), self.quorum_at.since(now)).hash(hasher);
    }

    pub fn deadline(&self) -> Instant {
        let transfer = self.transfer.map(|transfer| transfer.expires);
        let others = [transfer, self.reads.deadline()].into_iter().flatten();
        others.fold(self.heartbeat_at.min(self.quorum_at), Instant::min)
    }
}

impl Raft {
    pub(crate) fn peer_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        match &mut self.role {
            Role::Leader(leader) => leader.peers.iter_mut().find(|peer| peer.id == id),
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    pub(crate) fn lead(&mut self, outputs: &mut Outputs) {
        assert!(self.saved == self.hard_state, "leads before its term is durable");
        let term = self.hard_state.term;
        let next = self.log.last().next();
        let silent = Mutant::NoEmptyEntry.is_on();
        let first = if silent { self.log.last() } else { self.log.append(term, 1) };
        self.contact = None;
        self.role = Role::Leader(Leader {
            first,
            peers: Vec::new(),
            reads: ReadQueue::default(),
            transfer: None,
            heartbeat_at: self.now,
            quorum_at: self.now.after(self.options.election_timeout),
        });
        self.scratch.reserve(self.membership().voters().len());
        self.adopt_membership(next);
        if !silent {
            outputs.push(Output::AppendEmpty { index: first, term });
        }
        outputs.push(Output::Leading { term });
        self.tick_leader(outputs);
        self.flush(outputs);
    }

    /// The peers are those of the membership in effect; entries from `next` on are what a new one is
    /// offered first.
    fn adopt_membership(&mut self, next: LogIndex) {
        if self.is_lone_voter() && self.membership().learners().is_empty() {
            if let Role::Leader(leader) = &mut self.role {
                leader.peers.clear();
            }
            return;
        }
        let (id, members) = (self.id, self.membership().members());
        let Role::Leader(leader) = &mut self.role else { return };
        leader.peers.retain(|peer| members.contains(&peer.id));
        for member in members {
            if member != id && leader.peer(member).is_none() {
                // Counted as heard of, so that a new voter does not depose the leader at once.
                leader.peers.push(Progress::new(member, next, true));
            }
        }
        leader.peers.sort_unstable_by_key(|peer| peer.id);
    }

    /// The position that the next proposal gets from the leader; none on anyone else, and none while
    /// leadership is being handed over.
    #[inline]
    pub fn next(&self) -> Option<(LogIndex, Term)> {
        match &self.role {
            Role::Leader(leader) if leader.transfer.is_none() => {
                Some((self.log.last().next(), self.hard_state.term))
            }
            Role::Leader(_) | Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// Takes one proposal, which has been given the position that [`Raft::next`] named. Anyone but
    /// the leader takes none.
    #[inline]
    pub fn propose(&mut self) -> Option<(LogIndex, Term)> {
        let (index, term) = self.next()?;
        self.log.append(term, 1);
        Some((index, term))
    }

    pub(crate) fn propose_many(&mut self, count: u64, outputs: &mut Outputs) {
        match self.next() {
            Some((first, term)) => {
                self.log.append(term, count);
                outputs.push(Output::Proposed { first, count, term });
            }
            None => outputs.push(Output::ProposalRefused),
        }
    }

    /// Begins a change of members (thesis 4.3): at most one is uncommitted at any time, and none
    /// begins before an entry of the own term is committed, or two leaders in turn could each change
    /// a membership that the other does not know.
    pub(crate) fn change(
        &mut self,
        change: &Change,
        outputs: &mut Outputs,
    ) -> Result<(), ChangeRefusal> {
        let Role::Leader(leader) = &self.role else { return Err(ChangeRefusal::NotLeader) };
        if leader.transfer.is_some() {
            return Err(ChangeRefusal::Transferring);
        }
        if self.log.committed() < leader.first {
            return Err(ChangeRefusal::NothingCommitted);
        }
        let may = Mutant::ChangeWhilePending.is_on();
        if self.configuration().index > self.log.committed() && !may {
            return Err(ChangeRefusal::ChangePending);
        }
        let membership = self.membership().changed(change)?;
        if let Some(lag_max) = change.lag_max {
            for &voter in membership.voters() {
                // However short the log: who has nothing of it may not even be there.
                let close = |peer: &Progress| {
                    let has_begun =
                        peer.matched() > LogIndex::ZERO || Mutant::PromotesUnstarted.is_on();
                    has_begun && peer.active && peer.matched().advance(lag_max) >= self.log.last()
                };
                let known = self.membership().is_voter(voter);
                if !known && !leader.peer(voter).is_some_and(close) {
                    return Err(ChangeRefusal::NotCaughtUp(voter));
                }
            }
        }
        self.append_membership(membership, outputs);
        self.advance_commit(outputs);
        Ok(())
    }

    /// A membership is in effect from the moment it is in the log.
    fn append_membership(&mut self, membership: Membership, outputs: &mut Outputs) {
        let term = self.hard_state.term;
        let next = self.log.last().next();
        let index = self.log.append(term, 1);
        self.configurations.push(Configuration { index, membership: membership.clone() });
        outputs.push(Output::AppendMembership { index, term, membership });
        self.adopt_membership(next);
    }

    /// Counts copies. Only entries of the own term are committed by counting; earlier ones ride along
    /// (paper 5.4.2, figure 8).
    pub(crate) fn advance_commit(&mut self, outputs: &mut Outputs) {
        let Role::Leader(leader) = &self.role else { return };
        let (id, first, durable) = (self.id, leader.first, self.log.durable());
        let own = if Mutant::OwnAckBeforeSync.is_on() { self.log.last() } else { durable };
        let membership = &self.configurations.last().expect("one at least").membership;
        let index = membership.reached(&mut self.scratch, |voter| {
            // Its own copy counts like any other: once it is durable, and if it is a voter.
            if voter == id {
                return own;
            }
            if Mutant::JointCommit.is_on() && !membership.voters().contains(&voter) {
                return own;
            }
            leader.peer(voter).map_or(LogIndex::ZERO, Progress::matched)
        });
        let counts = index >= first || Mutant::OldTermByCounting.is_on();
        if counts && index > self.log.committed() {
            self.commit(index, outputs);
            self.after_commit(outputs);
        }
    }

    /// A joint membership that is committed is left; a leader that is not in the membership that is
    /// committed has done its work.
    fn after_commit(&mut self, outputs: &mut Outputs) {
        let configuration = self.configuration();
        if configuration.index > self.log.committed() {
            return;
        }
        if configuration.membership.is_joint() {
            if Mutant::JointNotLeft.is_on() {
                return;
            }
            let left = configuration.membership.left();
            self.append_membership(left, outputs);
            self.flush(outputs);
        } else if !configuration.membership.voters().contains(&self.id) {
            self.retire(outputs);
        }
    }

    /// Steps down, when the others know that the change is committed, in favour of the one that has
    /// most (thesis 4.2.2).
    fn retire(&mut self, outputs: &mut Outputs) {
        self.flush(outputs);
        let term = self.hard_state.term;
        let Role::Leader(leader) = &self.role else { return };
        let voters = self.membership().voters();
        let heirs = leader.peers.iter().filter(|peer| voters.contains(&peer.id) && peer.active);
        let heir = heirs.max_by_key(|peer| peer.matched()).map(|peer| peer.id);
        if let Some(to) = heir {
            self.send(to, Message::TimeoutNow { term }, outputs);
        }
        self.follow(None, outputs);
    }

    pub(crate) fn tick_leader(&mut self, outputs: &mut Outputs) {
        let (id, now, timeout) = (self.id, self.now, self.options.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return };
        for read in leader.reads.expired(now) {
            let term = self.hard_state.term;
            match read.origin {
                None => outputs.push(Output::ReadRejected { ticket: read.ticket }),
                Some(to) => {
                    let (number, index) = (read.ticket, None);
                    let message = Message::ReadReply { term, number, index };
                    outputs.push(Output::Send { to, message });
                }
            }
        }
        if let Some(transfer) = leader.transfer
            && now >= transfer.expires
        {
            leader.transfer = None;
            outputs.push(Output::TransferFailed { to: transfer.to });
        }
        if now >= leader.quorum_at {
            leader.quorum_at = now.after(timeout);
            let membership = &self.configurations.last().expect("one at least").membership;
            let heard = membership
                .is_quorum(|voter| voter == id || leader.peer(voter).is_some_and(|p| p.active));
            if !heard {
                // Clients wait in vain here, and another may lead already (thesis 6.2).
                return self.follow(None, outputs);
            }
            for peer in &mut leader.peers {
                peer.active = false;
            }
        }
        if now >= leader.heartbeat_at {
            self.send_heartbeats(outputs);
            self.flush(outputs);
        }
    }

    fn send_heartbeats(&mut self, outputs: &mut Outputs) {
        let (term, committed) = (self.hard_state.term, self.log.committed());
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_at = self.now.after(self.options.heartbeat_interval);
        let round = leader.reads.round();
        for peer in &leader.peers {
            // No more than the peer is known to hold: its log behind that may differ.
            let clamp = !Mutant::HeartbeatUnclamped.is_on();
            let committed = if clamp { committed.min(peer.matched()) } else { committed };
            let message = Message::Heartbeat { term, committed, round };
            outputs.push(Output::Send { to: peer.id, message });
        }
    }

    /// Sends what the turn has gathered: to every peer what it lacks, as far as its window goes; one
    /// round for all reads that wait.
    pub fn flush(&mut self, outputs: &mut Outputs) {
        let Role::Leader(leader) = &mut self.role else { return };
        for peer in &mut leader.peers {
            while let Some(output) =
                next_append(peer, &self.log, self.hard_state.term, &self.options)
            {
                let next = peer.next();
                outputs.push(output);
                // Behind one that is full there may be more; one without entries was the last.
                if peer.pace != Pace::Replicate || next > self.log.last() {
                    break;
                }
            }
        }
        self.tell_heir(outputs);
        let Role::Leader(leader) = &mut self.role else { return };
        // Before an entry of the own term is committed the commit index may be an old one
        // (thesis 6.4, step 1).
        if !leader.reads.is_empty()
            && (self.log.committed() >= leader.first || Mutant::ReadBeforeOwnTerm.is_on())
            && leader.reads.begin_round(self.log.committed())
        {
            self.send_heartbeats(outputs);
            self.grant_reads(outputs);
        }
    }

    pub(crate) fn on_accepted(
        &mut self,
        from: NodeId,
        matched: LogIndex,
        verified: LogIndex,
        outputs: &mut Outputs,
    ) {
        let (last, kept_from) = (self.log.last(), self.log.base().index.next());
        let Some(peer) = self.peer_mut(from) else { return };
        assert!(matched <= verified && verified <= last, "{from:?} has {verified:?} of {last:?}");
        peer.active = true;
        let before = peer.matched();
        peer.accepted(matched, verified, kept_from);
        if peer.matched() > before {
            self.advance_commit(outputs);
        }
    }

    pub(crate) fn on_rejected(&mut self, from: NodeId, previous: LogIndex, hint: Position) {
        // The follower has walked back to a term that may agree; so does the leader: one probe for a
        // term, not one for an entry.
        let agree = self.log.may_agree(hint.index, hint.term).index;
        let Some(peer) = self.peer_mut(from) else { return };
        peer.active = true;
        peer.rejected(previous, agree);
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        round: u64,
        matched: LogIndex,
        outputs: &mut Outputs,
    ) {
        let (last, kept_from) = (self.log.last(), self.log.base().index.next());
        let Some(peer) = self.peer_mut(from) else { return };
        peer.active = true;
        peer.round = peer.round.max(round);
        let before = peer.matched();
        // It says what is durable, not where the logs agree: that is no answer to a probe.
        if matched > before {
            peer.accepted(matched, matched, kept_from);
        }
        peer.heard(last);
        if peer.matched() > before {
            self.advance_commit(outputs);
        }
        self.grant_reads(outputs);
    }

    /// The index that a linearizable read has to wait for, or none while this member may not
    /// answer: it does not lead, or has committed nothing in its term yet (thesis 6.4).
    ///
    /// The caller must hear from a quorum after it took the index; a lone voter is its own quorum.
    /// With several voters [`Input::Read`] does that.
    ///
    /// [`Input::Read`]: crate::Input::Read
    #[inline]
    pub fn read_index(&self) -> Option<LogIndex> {
        match &self.role {
            Role::Leader(leader) if self.log.committed() >= leader.first => {
                Some(self.log.committed())
            }
            Role::Leader(_) | Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    pub(crate) fn read(&mut self, ticket: u64, outputs: &mut Outputs) {
        let expires = self.now.after(self.options.election_timeout);
        match &mut self.role {
            Role::Leader(leader) => {
                leader.reads.push(Read { origin: None, ticket, expires, round: None });
            }
            Role::Follower(_) | Role::Candidate(_) => self.pass_read_on(ticket, outputs),
        }
    }

    /// A follower asks. Only a leader answers; one that has stepped down lets the time-out do it.
    pub(crate) fn on_read(&mut self, from: NodeId, number: u64) {
        let expires = self.now.after(self.options.election_timeout);
        if let Role::Leader(leader) = &mut self.role {
            let origin = Some(from);
            leader.reads.push(Read { origin, ticket: number, expires, round: None });
        }
    }

    /// Grants the reads whose round a quorum has answered.
    fn grant_reads(&mut self, outputs: &mut Outputs) {
        let term = self.hard_state.term;
        let id = self.id;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.is_empty() {
            return;
        }
        let membership = &self.configurations.last().expect("one at least").membership;
        let confirmed = membership.reached(&mut Vec::new(), |voter| {
            if voter == id {
                return leader.reads.round();
            }
            if Mutant::ReadUnconfirmed.is_on() {
                return leader.reads.round();
            }
            leader.peer(voter).map_or(0, |peer| peer.round)
        });
        for (read, index) in leader.reads.confirmed(confirmed) {
            match read.origin {
                None => outputs.push(Output::ReadGranted { ticket: read.ticket, index }),
                Some(to) => {
                    let (number, index) = (read.ticket, Some(index));
                    let message = Message::ReadReply { term, number, index };
                    outputs.push(Output::Send { to, message });
                }
            }
        }
    }

    /// Hands leadership over (thesis 3.10): no more proposals, the target gets the whole log, then
    /// is told to hold its election at once.
    pub(crate) fn transfer(&mut self, to: NodeId, outputs: &mut Outputs) {
        let may = to != self.id && self.membership().voters().contains(&to);
        let expires = self.now.after(self.options.election_timeout);
        match &mut self.role {
            Role::Leader(leader) if may && leader.transfer.is_none() => {
                leader.transfer = Some(Transfer { to, told: false, expires });
                self.flush(outputs);
            }
            Role::Leader(_) | Role::Follower(_) | Role::Candidate(_) => {
                outputs.push(Output::TransferFailed { to });
            }
        }
    }

    fn tell_heir(&mut self, outputs: &mut Outputs) {
        let (last, term) = (self.log.last(), self.hard_state.term);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = leader.transfer else { return };
        if !transfer.told && leader.peer(transfer.to).is_some_and(|p| p.matched() == last) {
            leader.transfer = Some(Transfer { told: true, ..transfer });
            let message = Message::TimeoutNow { term };
            outputs.push(Output::Send { to: transfer.to, message });
        }
    }
}

/// The next append for `peer`, if one is due.
fn next_append(
    peer: &mut Progress,
    log: &crate::Log,
    term: Term,
    options: &crate::Options,
) -> Option<Output> {
    let probing = match peer.pace {
        Pace::Snapshot { .. } | Pace::Probe { paused: true } => return None,
        Pace::Probe { paused: false } => true,
        Pace::Replicate => false,
    };
    let previous = peer.next().previous().expect("an entry is not at zero");
    if previous < log.base().index {
        // One that is not there would have the snapshot made and kept for nothing.
        if !peer.active {
            return None;
        }
        peer.snapshot();
        return Some(Output::SendSnapshot { to: peer.id });
    }
    let lacking = previous.distance_to(log.last());
    let full = !probing && peer.is_full(options);
    let count = if full { 0 } else { lacking.min(options.append_entries_max) };
    let committed = log.committed();
    // With nothing new to send, news of the commit index is worth a message, once: heartbeats repeat
    // it.
    let news = lacking == 0 && committed > peer.committed_told;
    if count == 0 && !probing && !peer.nudge && !news {
        return None;
    }
    let last = previous.advance(count);
    peer.sent(last, options);
    peer.committed_told = committed.min(last);
    let message = Message::Append {
        term,
        previous: Position { index: previous, term: log.term_at(previous) },
        runs: log.runs_between(previous, last),
        last,
        committed,
        configurations: Vec::new(),
    };
    Some(Output::Send { to: peer.id, message })
}
