//! What clients do about alarms: raised by hand, soon disarmed, so that most writes go on.

use base::Prng;
use node::Retention;

use crate::load::Ask;
use crate::model::Command;
use crate::world::World;

/// etcd's numbers of the kinds.
pub const NO_SPACE: u8 = 1;
pub const CORRUPT: u8 = 2;

impl World {
    /// The next request, if it is about alarms.
    pub fn next_for_alarms(&mut self) -> Option<Ask> {
        let mut prng = std::mem::replace(&mut self.alarming, Prng::new(0));
        let ask = self.about_alarms(&mut prng);
        self.alarming = prng;
        ask
    }

    fn about_alarms(&self, prng: &mut Prng) -> Option<Ask> {
        let up = &self.ghost.model.alarms;
        let member = prng.below(4);
        // While members disagree leases do not end, and no history is given up: what is judged by the clock.
        let by_clock = self.plan.leases.are_used || self.plan.retention != Retention::Everything;
        let kind = if prng.one_in(4) && !by_clock { CORRUPT } else { NO_SPACE };
        let is_raised = prng.one_in(if up.is_empty() { 60 } else { 40 });
        if is_raised && self.faults_on {
            return Some(Ask::Write(Command::Raise { kind, member }));
        }
        if up.is_empty() || !prng.one_in(8) {
            return None;
        }
        let place = usize::try_from(prng.below(up.len() as u64)).expect("few alarms");
        let (kind, owner) = *up.iter().nth(place).expect("there are so many");
        // That of one member, of all, or one that is not up.
        let member = [owner, owner, 0, member][usize::try_from(prng.below(4)).expect("small")];
        Some(Ask::Write(Command::Disarm { kind, member }))
    }
}
