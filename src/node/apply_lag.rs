//! How far applying is behind commitment, in time: a leader whose own store falls behind lets proposals
//! wait.
//!
//! Every member answers its own clients, when it has applied their writes. Where one applies more slowly
//! than the others, its cache too small or its core too busy, clients of the others go on at their pace,
//! and what those of the slow one wait for grows as long as the load lasts. Of three members on two cores,
//! with 100,000 keys and page caches of 32 MiB, the leader was 23,000 entries behind after 40 s at 7,800
//! writes a second: its clients waited 3 s. The leader has the most to do, and waiting for it means waiting
//! for nobody else: a follower that is slow, or ill, holds up its own clients only.
//!
//! Time, not a number of entries: a store that applies 100,000 a second may well have thousands before it.

use base::{Duration, Instant, LogIndex};

/// Applying may be so long behind, twice that where it just misses the mark.
const LAG_MAX: Duration = Duration::from_millis(100);

/// What has been applied, and since when something has been there that is not.
pub struct ApplyLag {
    applied: LogIndex,
    /// An entry that the store could apply at that time, and has not applied yet.
    mark: Option<(LogIndex, Instant)>,
    /// How often such an entry has waited too long.
    late: u64,
}

impl ApplyLag {
    /// After a start: what is committed by then counts as applied.
    pub fn new(applied: LogIndex) -> Self {
        Self { applied, mark: None, late: 0 }
    }

    /// The store has applied up to here.
    pub fn applied(&mut self, index: LogIndex) {
        self.applied = index;
    }

    /// Once per turn: the store may apply up to `ready`.
    pub fn look(&mut self, now: Instant, ready: LogIndex) {
        if self.mark.is_none_or(|(index, _)| index <= self.applied) {
            self.late += u64::from(self.mark.is_some_and(|(_, since)| now.since(since) > LAG_MAX));
            self.mark = (ready > self.applied).then_some((ready, now));
        }
    }

    /// How often an entry that was looked after has waited too long.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Whether what waits has waited too long.
    pub fn is_long(&self, now: Instant) -> bool {
        self.mark.is_some_and(|(index, since)| index > self.applied && now.since(since) > LAG_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ORIGIN.after(Duration::from_millis(ms))
    }

    #[test]
    fn a_store_that_keeps_up_is_never_behind_however_much_there_is_to_apply() {
        let mut lag = ApplyLag::new(LogIndex::ZERO);
        for step in 1..100 {
            lag.look(at(step * 50), LogIndex::new(step * 10_000));
            assert!(!lag.is_long(at(step * 50)));
            // Always behind, and never for long.
            lag.applied(LogIndex::new(step * 10_000 - 5_000));
        }
    }

    #[test]
    fn who_waits_too_long_is_let_go_on_as_soon_as_it_has_been_applied() {
        let mut lag = ApplyLag::new(LogIndex::ZERO);
        lag.look(at(0), LogIndex::new(10));
        lag.look(at(90), LogIndex::new(900));
        lag.applied(LogIndex::new(9));
        assert!(!lag.is_long(at(100)));
        assert!(lag.is_long(at(101)), "entry 10 has waited since the begin");
        lag.applied(LogIndex::new(10));
        assert!(!lag.is_long(at(102)));
        assert_eq!(lag.late(), 0, "it counts with the next look");
        lag.look(at(102), LogIndex::new(900));
        assert!(!lag.is_long(at(202)), "the next mark counts from when it was set");
        assert!(lag.is_long(at(203)));
        lag.applied(LogIndex::new(900));
        lag.look(at(300), LogIndex::new(900));
        assert!(!lag.is_long(at(9_000)), "nothing waits");
        assert_eq!(lag.late(), 2);
    }
}
