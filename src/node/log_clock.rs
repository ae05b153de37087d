//! Log time: what leases run on.
//!
//! Nanoseconds that leaders have counted since the cluster began. A leader names it, and whoever hears that
//! counts on from there as its own clock goes; the next leader goes on with what it has counted. A hand-over
//! makes no lease older, and none younger by more than what a message takes. After a start nothing is added
//! for the time in between.
//!
//! The word of a later term counts, also where it is less: a member that led once, and was alone while the
//! others started again, has counted what they have not. Would it go on with its own count when it leads
//! next, every lease made meanwhile would end early by the difference. Nobody else's word counts: what a
//! follower repeats is older than what it was told, and taken for the present it makes the time stand.

use base::{Duration, Instant, Mutant, Term};

/// The log time that the leader of the latest term named last, and when that was.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    term: Term,
    heard: u64,
    at: Instant,
    /// What the state has is known, so that the log cannot have a greater one that was not heard of.
    is_known: bool,
}

impl LogClock {
    /// Nothing has been heard of.
    pub const fn new() -> Self {
        Self { term: Term::ZERO, heard: 0, at: Instant::ORIGIN, is_known: false }
    }

    /// The leader of a term has said that it is `time`, in a message or in an entry of its term.
    pub fn hear(&mut self, now: Instant, term: Term, time: u64) {
        if term > self.term || (term == self.term && time >= self.heard) {
            (self.term, self.heard, self.at) = (term, time, now);
        }
    }

    /// This member begins to lead a term: it goes on with what it has counted, not behind `written`, the
    /// greatest time in its log, which another leader may have replaced and has not.
    pub fn lead(&mut self, now: Instant, term: Term, written: u64) {
        self.hear(now, term, self.now(now).max(written));
    }

    /// The state of a start is known, and has this time: it is counted on from the greatest time known by
    /// now. What went by before, while the log was read, is not added.
    pub fn set_known(&mut self, now: Instant, time: u64) {
        if time > self.heard {
            (self.heard, self.at) = (time, now);
        }
        if !self.is_known {
            (self.is_known, self.at) = (true, now);
        }
    }

    /// Whether it may be written into the log.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The log time.
    pub fn now(&self, now: Instant) -> u64 {
        if Mutant::LogTimeStands.is_on() || !self.is_known {
            return self.heard;
        }
        let ahead = if Mutant::LogTimeRuns.is_on() { 2 } else { 1 };
        self.heard.saturating_add(now.since(self.at).as_nanos().saturating_mul(ahead))
    }

    /// When it will be `time`.
    pub fn when(&self, now: Instant, time: u64) -> Instant {
        now.after(Duration::from_nanos(time.saturating_sub(self.now(now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Term = Term::new(1);
    const SECOND: Term = Term::new(2);

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn it_goes_on_from_what_the_leader_said_last() {
        let mut clock = LogClock::new();
        clock.set_known(at(100), 1_000);
        assert_eq!(clock.now(at(150)), 1_050);
        clock.hear(at(160), FIRST, 1_100);
        assert_eq!(clock.now(at(160)), 1_100);
        // Messages overtake each other.
        clock.hear(at(170), FIRST, 1_090);
        assert_eq!(clock.now(at(170)), 1_110);
        // The leader's clock is slower: its word counts.
        clock.hear(at(200), FIRST, 1_120);
        assert_eq!(clock.now(at(200)), 1_120);
        assert_eq!(clock.when(at(200), 1_150), at(230));
        assert_eq!(clock.when(at(200), 1_100), at(200));
    }

    #[test]
    fn a_start_adds_nothing_however_long_it_takes() {
        let mut clock = LogClock::new();
        // An entry behind what the state has.
        clock.hear(Instant::ORIGIN, FIRST, 1_000);
        assert_eq!(clock.now(at(700)), 1_000);
        clock.set_known(at(900), 800);
        assert_eq!(clock.now(at(900)), 1_000);
        assert_eq!(clock.now(at(950)), 1_050);
        // The state of another member does not set it back.
        clock.set_known(at(960), 400);
        assert_eq!(clock.now(at(960)), 1_060);
    }

    /// It led, and then heard of nobody; the others started again, which cost them 500, and made leases.
    #[test]
    fn who_has_been_alone_takes_over_the_count_of_later_leaders_though_it_is_less() {
        let (mut alone, mut other) = (LogClock::new(), LogClock::new());
        alone.set_known(at(0), 0);
        alone.lead(at(0), FIRST, 0);
        assert_eq!(alone.now(at(1_000)), 1_000);
        other.set_known(at(0), 500);
        other.lead(at(1_000), SECOND, 500);
        let made = other.now(at(1_100));
        alone.hear(at(1_100), SECOND, made);
        alone.lead(at(1_200), Term::new(3), made);
        assert_eq!(alone.now(at(1_200)), made + 100);
        // What somebody says who has not noticed yet.
        alone.hear(at(1_250), FIRST, 1_250_000);
        assert_eq!(alone.now(at(1_300)), made + 200);
    }

    /// An entry that the leader in between had not got, and did not get round to replacing.
    #[test]
    fn who_leads_does_not_fall_behind_its_own_log() {
        let mut clock = LogClock::new();
        clock.set_known(at(0), 0);
        clock.hear(at(0), FIRST, 900);
        clock.hear(at(10), SECOND, 300);
        assert_eq!(clock.now(at(20)), 310);
        clock.lead(at(20), Term::new(3), 900);
        assert_eq!(clock.now(at(30)), 910);
    }
}
