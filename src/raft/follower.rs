//! What a follower does: answer votes, take entries, acknowledge what is durable, pass reads on.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use base::{Instant, LogIndex, Mutant, NodeId, Term};

use crate::raft::Role;
use crate::{Configuration, Message, Output, Outputs, Position, Raft, TermRun};

/// A read passed on to the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asked {
    number: u64,
    ticket: u64,
    expires: Instant,
}

#[derive(Clone, Debug)]
pub(crate) struct Follower {
    pub leader: Option<NodeId>,
    /// The log agrees with that of the leader of this term up to here, durable or not. What is
    /// committed agrees with every later leader's.
    verified: LogIndex,
    /// What the leader was last told to be durable.
    acknowledged: LogIndex,
    /// Number of the next question. The first is random: a late answer to a question from before a
    /// restart must not be taken for one to a question from after it.
    number: u64,
    asked: Vec<Asked>,
}

impl Follower {
    pub fn new(leader: Option<NodeId>, committed: LogIndex, number: u64) -> Self {
        let (verified, acknowledged) = (committed, LogIndex::ZERO);
        Self { leader, verified, acknowledged, number, asked: Vec::new() }
    }

    pub fn verified(&self) -> LogIndex {
        self.verified
    }

    /// The number of the next question is as good as any other.
    pub fn hash_state(&self, now: Instant, hasher: &mut impl Hasher) {
        (self.leader, self.verified, self.acknowledged).hash(hasher);
        for asked in &self.asked {
            (asked.number, asked.ticket, asked.expires.since(now)).hash(hasher);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.asked.iter().map(|asked| asked.expires).min()
    }
}

impl Raft {
    pub(crate) fn tick_follower(&mut self, outputs: &mut Outputs) {
        let Role::Follower(follower) = &mut self.role else { return };
        let now = self.now;
        follower.asked.retain(|asked| {
            if now >= asked.expires {
                outputs.push(Output::ReadRejected { ticket: asked.ticket });
            }
            now < asked.expires
        });
        if self.now >= self.election_at && self.may_campaign() {
            self.ask(self.options.pre_vote, false, outputs);
        }
    }

    /// A message that only the leader of the present term can have sent.
    pub(crate) fn hear_from_leader(&mut self, from: NodeId, outputs: &mut Outputs) {
        match &self.role {
            Role::Leader(_) => {
                panic!("{from:?} leads term {:?}, and so do I, {:?}", self.term(), self.id)
            }
            Role::Candidate(_) => self.follow(Some(from), outputs),
            Role::Follower(follower) => match follower.leader {
                None => self.follow(Some(from), outputs),
                Some(leader) => {
                    assert!(
                        leader == from,
                        "two leaders of {:?}: {leader:?}, {from:?}",
                        self.term()
                    );
                }
            },
        }
        self.contact = Some(self.now);
        self.restart_election_timer();
    }

    /// The leader's process has ended. If it was only a link that broke, the others still hear from
    /// it and refuse their votes, and its next message makes this member follow again.
    pub(crate) fn forget_leader(&mut self, gone: NodeId, outputs: &mut Outputs) {
        if matches!(&self.role, Role::Follower(follower) if follower.leader == Some(gone)) {
            self.follow(None, outputs);
            self.hurry_election();
        }
    }

    pub(crate) fn on_pre_vote(
        &mut self,
        from: NodeId,
        asked: Term,
        last: Position,
        outputs: &mut Outputs,
    ) {
        let free = asked > self.hard_state.term || self.may_vote_for(from);
        let granted = free && last.is_up_to_date_with(self.last());
        let term = if granted { asked } else { self.hard_state.term };
        self.send(from, Message::PreVoteReply { term, granted }, outputs);
    }

    /// A learner and one that is in no membership it knows answer as well: the candidate may know a
    /// later membership, and its quorum may need them (thesis 4.2.2).
    pub(crate) fn on_vote(&mut self, from: NodeId, last: Position, outputs: &mut Outputs) {
        let refuses = Mutant::LearnerRefuses.is_on() && !self.membership().is_voter(self.id);
        let granted = self.may_vote_for(from) && last.is_up_to_date_with(self.last()) && !refuses;
        if granted {
            if self.hard_state.vote.is_none() {
                self.hard_state.vote = Some(from);
                self.save(outputs);
            }
            self.restart_election_timer();
        }
        let term = self.hard_state.term;
        self.send(from, Message::VoteReply { term, granted }, outputs);
    }

    fn may_vote_for(&self, candidate: NodeId) -> bool {
        match self.hard_state.vote {
            Some(vote) => vote == candidate || Mutant::VoteTwice.is_on(),
            None => self.leader().is_none(),
        }
    }

    /// Durable here and in agreement with the leader's log.
    pub(crate) fn matched(&self) -> LogIndex {
        match &self.role {
            Role::Follower(follower) if Mutant::AckBeforeSync.is_on() => follower.verified,
            Role::Follower(follower) => follower.verified.min(self.log.durable()),
            Role::Candidate(_) | Role::Leader(_) => LogIndex::ZERO,
        }
    }

    fn accept(&mut self, outputs: &mut Outputs) {
        let (term, matched) = (self.hard_state.term, self.matched());
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(leader) = follower.leader else { return };
        follower.acknowledged = matched;
        let verified = follower.verified;
        self.send(leader, Message::Accepted { term, matched, verified }, outputs);
    }

    /// More is durable: what agrees with the leader's log is acknowledged.
    pub(crate) fn acknowledge(&mut self, outputs: &mut Outputs) {
        let matched = self.matched();
        let Role::Follower(follower) = &self.role else { return };
        if matched > follower.acknowledged {
            self.accept(outputs);
        }
    }

    /// Entries (paper 5.3; figure 2, AppendEntries). What does not agree is cut off, only from the
    /// first difference on: a late message must not take back entries that a later one brought. Says
    /// whether the log now agrees up to `last`.
    pub(crate) fn on_append(
        &mut self,
        from: NodeId,
        previous: Position,
        runs: &[TermRun],
        last: LogIndex,
        configurations: Vec<Configuration>,
        outputs: &mut Outputs,
    ) -> bool {
        assert!(previous.index <= last, "an append that ends before it begins");
        if !self.log.holds(previous) {
            assert!(
                previous.index > self.log.committed(),
                "{from:?} leads and differs at {previous:?}, which is committed here"
            );
            let hint = self.log.may_agree(previous.index, previous.term);
            let (term, previous) = (self.hard_state.term, previous.index);
            self.send(from, Message::Rejected { term, previous, hint }, outputs);
            return false;
        }
        if let Some(first) = self.log.first_missing(previous.index, runs, last) {
            let cut = first <= self.log.last();
            if cut {
                self.log.truncate(first);
                if !Mutant::MembershipNotCut.is_on() {
                    self.configurations.retain(|configuration| configuration.index < first);
                }
                assert!(!self.configurations.is_empty(), "a committed membership was cut off");
            }
            for (i, run) in runs.iter().enumerate() {
                let end = runs.get(i + 1).map_or(last.next(), |next| next.first);
                let start = run.first.max(first);
                if start < end {
                    self.log.append(run.term, start.distance_to(end));
                }
            }
            for configuration in configurations {
                if configuration.index >= first {
                    self.configurations.push(configuration);
                }
            }
            outputs.push(Output::Append { first, last, cut });
        }
        let Role::Follower(follower) = &mut self.role else {
            unreachable!("one that hears from its leader follows")
        };
        follower.verified = follower.verified.max(last);
        // Otherwise the acknowledgement leaves when the entries are durable.
        if self.matched() >= last || runs.is_empty() {
            self.accept(outputs);
        }
        true
    }

    /// The leader has committed entries up to `index`, which agree with its log.
    pub(crate) fn on_committed(&mut self, index: LogIndex, outputs: &mut Outputs) {
        if index > self.log.committed() {
            self.commit(index, outputs);
        }
        let committed = self.log.committed();
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(committed);
        }
    }

    /// A snapshot whose bytes are all here.
    pub(crate) fn on_snapshot(
        &mut self,
        last: Position,
        configuration: Configuration,
        outputs: &mut Outputs,
    ) {
        assert!(configuration.index <= last.index, "a membership from beyond the snapshot");
        if last.index > self.log.committed() && self.log.holds(last) {
            // The log has it all: only the commit index moves.
            self.on_committed(last.index, outputs);
        } else if last.index > self.log.committed() || Mutant::SnapshotBackwards.is_on() {
            self.log.reset(last);
            self.configurations.clear();
            self.configurations.push(configuration);
            outputs.push(Output::Install { last });
        }
        let committed = self.log.committed();
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(committed);
        }
        if self.matched() >= last.index {
            self.accept(outputs);
        }
    }

    /// A follower's host asks for a read: the leader can say.
    pub(crate) fn pass_read_on(&mut self, ticket: u64, outputs: &mut Outputs) {
        let (term, expires) = (self.hard_state.term, self.now.after(self.options.election_timeout));
        if Mutant::FollowerReadUnasked.is_on() {
            let index = self.log.committed();
            return outputs.push(Output::ReadGranted { ticket, index });
        }
        match &mut self.role {
            Role::Follower(Follower { leader: Some(leader), number, asked, .. }) => {
                *number = number.wrapping_add(1);
                let (number, leader) = (*number, *leader);
                asked.push(Asked { number, ticket, expires });
                // Not through what waits for the disk: there only the last of a kind is kept, and
                // nobody is kept waiting longer than the time-out anyway.
                if self.saved == self.hard_state {
                    let message = Message::Read { term, number };
                    outputs.push(Output::Send { to: leader, message });
                }
            }
            Role::Follower(_) | Role::Candidate(_) | Role::Leader(_) => {
                outputs.push(Output::ReadRejected { ticket });
            }
        }
    }

    pub(crate) fn on_read_reply(
        &mut self,
        number: u64,
        index: Option<LogIndex>,
        outputs: &mut Outputs,
    ) {
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(i) = follower.asked.iter().position(|asked| asked.number == number) else {
            return;
        };
        let ticket = follower.asked.swap_remove(i).ticket;
        outputs.push(match index {
            Some(index) => Output::ReadGranted { ticket, index },
            None => Output::ReadRejected { ticket },
        });
    }

    /// The role ends, and with it the hope of an answer.
    pub(crate) fn drop_reads(&mut self, outputs: &mut Outputs) {
        match &mut self.role {
            Role::Follower(follower) => {
                for asked in follower.asked.drain(..) {
                    outputs.push(Output::ReadRejected { ticket: asked.ticket });
                }
            }
            Role::Candidate(_) => {}
            Role::Leader(leader) => {
                for read in leader.reads.take() {
                    // A follower that asked learns of the new term, or gives up in time.
                    if read.origin.is_none() {
                        outputs.push(Output::ReadRejected { ticket: read.ticket });
                    }
                }
            }
        }
    }
}
