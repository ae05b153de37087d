//! A member that begins: with an empty data directory, or with a log that ended in a group that it may
//! have acknowledged. It takes part in no election before it knows that nothing it promised is forgotten.
//!
//! ```text
//! empty ─► no other has an entry ─► marked, durably, in a later term than theirs ─► votes
//!     └──► another one has entries ─► the leader brings what the cluster had ─► votes
//! torn ──► the log goes as far again, or all others lack what was dropped ─► votes
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base::{Duration, Instant, LogIndex, NodeId, Term};
use raft::Input;

use crate::peers::Greeting;
use crate::{Consensus, ConsensusEffect};

/// A member that has lost nothing, as far as it knows, but remembers nothing either: it takes part in
/// no election before it knows that no vote and no acknowledgement of its own can have been forgotten.
pub(crate) struct Beginner {
    /// Members that have not said yet whether they begin as well.
    waiting: Vec<NodeId>,
    /// The cluster has begun before: the log must come to this entry first.
    catch_up: Option<LogIndex>,
    /// The greatest term that a member without any entry is in. If nobody has an entry, nothing was
    /// ever committed, and all that can be forgotten is a vote: in the term of who asked for it.
    term_max: Term,
    /// The last entry that may have been acknowledged and dropped. Whoever has it may be voted for;
    /// if nobody has it, it was not committed.
    torn: Option<raft::Position>,
    /// Who has said that its log goes as far as that.
    holders: Vec<NodeId>,
    /// The operator is told whom it waits for then.
    tell_at: Instant,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Finds out whether this member begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        let own = self.raft.id();
        // A term may have been heard of before this member knew that it may vote.
        let knows_nothing = self.raft.log().last() == LogIndex::ZERO && !self.journal.has_begun();
        let others = self.raft.configurations().iter();
        let mut others: Vec<NodeId> =
            others.flat_map(|known| known.membership.all_voters()).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|id| *id != own);
        let torn = self.config.torn.filter(|_| !others.is_empty());
        let begins = knows_nothing && !others.is_empty() && self.raft.membership().is_voter(own);
        if begins || torn.is_some() {
            self.beginner = Some(Beginner {
                waiting: others,
                catch_up: None,
                term_max: Term::ZERO,
                torn: torn.filter(|_| !begins),
                holders: Vec::new(),
                tell_at: now.after(Duration::from_millis(5_000)),
            });
        }
    }

    /// Another member has said what it remembers.
    pub(crate) fn take_greeting(&mut self, peer: NodeId, greeting: Greeting) {
        let Some(beginner) = &mut self.beginner else { return };
        beginner.waiting.retain(|id| *id != peer);
        // What was dropped lies behind the memberships that are known here: voters of these must have
        // it if it was committed or still may be. A learner that has it proves nothing, and cannot lead.
        let mut known = self.raft.configurations().iter();
        if !known.any(|known| known.membership.all_voters().contains(&peer)) {
            return;
        }
        if let Some(torn) = beginner.torn {
            // It may have lost it since it was last asked.
            beginner.holders.retain(|id| *id != peer);
            if greeting.last.is_up_to_date_with(torn) {
                beginner.holders.push(peer);
            }
        } else if greeting.last.index == LogIndex::ZERO {
            beginner.term_max = beginner.term_max.max(greeting.term);
        } else {
            let last = greeting.last.index;
            beginner.catch_up = Some(beginner.catch_up.map_or(last, |at| at.max(last)));
        }
    }

    /// Whether this member may take part in elections: it remembers all that it ever promised, and
    /// will after a restart. Without that mark, founders that end between the first vote and the first
    /// entry would each take the vote for a sign of what they have forgotten, and wait for a leader
    /// that cannot be elected without them.
    pub(crate) fn may_vote(&self) -> bool {
        self.beginner.is_none()
    }

    /// What says that this member has begun is durable, in this term.
    pub(crate) fn begun(&mut self, term: Term) {
        let beyond = self.beginner.as_ref().map_or(Term::ZERO, |beginner| beginner.term_max);
        if self.remembers() && (term > beyond || beyond == Term::ZERO) {
            self.beginner = None;
        }
    }

    /// Whether a member that begins has found out that nothing is forgotten.
    fn remembers(&self) -> bool {
        let Some(beginner) = &self.beginner else { return true };
        let log = self.raft.log();
        if let Some(torn) = beginner.torn {
            // A log that goes as far again holds the entry, or is that of a leader of a later term,
            // which had it if it was committed: its voters have it, or were asked by the same rule.
            // That must not wait for a leader, for without this member there may be none.
            let index = log.durable();
            let durable = raft::Position { index, term: log.term_at(index) };
            return durable.is_up_to_date_with(torn)
                || (beginner.waiting.is_empty() && beginner.holders.is_empty());
        }
        match beginner.catch_up {
            None => beginner.waiting.is_empty(),
            Some(index) => {
                let leader = self.raft.leader();
                leader.is_some_and(|leader| !beginner.waiting.contains(&leader))
                    && log.durable() >= index
                    && log.committed() >= index
            }
        }
    }

    /// Whether this candidate's log holds all that this member may have acknowledged and dropped.
    pub(crate) fn may_vote_for(&self, last: raft::Position) -> bool {
        let torn = self.beginner.as_ref().and_then(|beginner| beginner.torn);
        torn.is_some_and(|torn| last.is_up_to_date_with(torn))
    }

    /// Nothing is forgotten: that this member knows it is to outlive it.
    pub(crate) fn mark_begun(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let Some(beginner) = &self.beginner else { return };
        if !self.remembers() {
            return;
        }
        if beginner.torn.is_some() {
            self.beginner = None;
            return;
        }
        let beyond = beginner.term_max;
        if beyond > Term::ZERO && self.raft.term() <= beyond {
            self.raft.handle(now, Input::Begin { beyond }, &mut self.outputs);
            self.take_outputs(now, effects);
        }
        self.journal.set_begun();
    }

    /// Tells the operator whom this member waits for.
    pub(crate) fn tell_of_beginning(
        &mut self,
        now: Instant,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if let Some(beginner) = &mut self.beginner
            && now >= beginner.tell_at
        {
            beginner.tell_at = now.after(Duration::from_millis(30_000));
            let names: Vec<String> =
                beginner.waiting.iter().map(|id| self.members.name_of(*id)).collect();
            let text = match beginner.catch_up {
                _ if beginner.torn.is_some() => format!(
                    "the log of this member ended with a group that may have been acknowledged; it \
                     waits for {} or a leader before it votes",
                    names.join(", ")
                ),
                None => format!(
                    "this member is new and waits for {} to say whether the cluster has begun \
                     before",
                    names.join(", ")
                ),
                Some(index) => format!(
                    "this member has an empty data directory and waits for the leader to bring \
                     its log to entry {index}; until then it does not vote"
                ),
            };
            effects.push(ConsensusEffect::Tell(text));
        }
    }
}
