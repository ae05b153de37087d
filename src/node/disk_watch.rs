//! The disk watch: what is done about a log device that does not answer. Nothing is given up, for the
//! write may still succeed; but a leader that cannot write holds everybody up, so it hands leadership to
//! the member that is furthest.

use alloc::format;
use alloc::vec::Vec;

use base::{Duration, Instant};
use raft::{Input, RoleName};

use crate::{Consensus, ConsensusEffect};

/// A write to the log that takes longer is told of, and a leader hands over.
const SLOW: Duration = Duration::from_millis(1_000);

/// What is known of the device.
#[derive(Default)]
pub(crate) struct DiskWatch {
    /// The operator knows of a write that was begun then and takes long.
    slow_since: Option<Instant>,
    /// A leader tries to hand over again then.
    retry_at: Option<Instant>,
}

impl DiskWatch {
    /// Whether a write takes long.
    pub fn is_slow(&self) -> bool {
        self.slow_since.is_some()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Looks how long the oldest write has been on its way.
    pub(crate) fn watch_disk(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let oldest = self.journal.oldest_since();
        let is_slow = oldest.is_some_and(|since| now.since(since) >= SLOW);
        let leads = self.raft.role() == RoleName::Leader;
        match self.disk.slow_since {
            None if is_slow => {
                self.disk.slow_since = oldest;
                let then = if leads && !self.raft.is_lone_voter() {
                    "leadership is handed over"
                } else {
                    "nothing is acknowledged until it answers"
                };
                effects.push(ConsensusEffect::Tell(format!(
                    "the disk of the log has not finished a write for {} ms; {then}",
                    SLOW.as_millis()
                )));
            }
            Some(since) if !is_slow => {
                self.disk = DiskWatch::default();
                effects.push(ConsensusEffect::Tell(format!(
                    "the disk of the log answers again, after {} ms",
                    now.since(since).as_millis()
                )));
            }
            Some(_) | None => {}
        }
        if is_slow && leads && self.disk.retry_at.is_none_or(|at| now >= at) {
            self.disk.retry_at = Some(now.after(SLOW));
            self.hand_over(now, effects);
            self.take_outputs(now, effects);
        }
    }

    /// Hands leadership, if this member has it, to the voter whose log is the longest.
    pub(crate) fn hand_over(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let voters = self.raft.membership().voters().to_vec();
        let heir = self
            .raft
            .peers()
            .iter()
            .filter(|peer| peer.is_active() && voters.contains(&peer.id()))
            .max_by_key(|peer| peer.matched())
            .map(raft::Progress::id);
        if let Some(to) = heir {
            let text = format!("hands leadership over to member {}", self.members.name_of(to));
            effects.push(ConsensusEffect::Note(text));
            self.raft.handle(now, Input::Transfer { to }, &mut self.outputs);
        }
    }

    /// When it wants to look again.
    pub(crate) fn disk_deadline(&self) -> Option<Instant> {
        match self.disk.slow_since {
            None => self.journal.oldest_since().map(|since| since.after(SLOW)),
            Some(_) if self.raft.role() == RoleName::Leader => self.disk.retry_at,
            Some(_) => None,
        }
    }
}
