//! Log time: what leases run on.
//!
//! Nanoseconds that leaders have counted since the cluster began. Whoever leads counts on from the greatest
//! time that it has heard of, as its own clock goes; the others hear of it and count along, so that the next
//! leader goes on where the last one was: a hand-over makes no lease older, and none younger by more than
//! what a message takes. After a start nothing is added for the time in between.
//!
//! Who leads hears nobody: what the others say of its own time is older by the way there and back. Taken
//! for the present it would set the clock back with every answer to a heartbeat, and where the way takes a
//! good part of the pause between two heartbeats leases would live twice as long as they should.

use base::{Duration, Instant, Mutant};

/// The greatest log time heard of, and when that was.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    heard: u64,
    at: Instant,
    /// What the state has is known, so that the log cannot have a greater one that was not heard of.
    is_known: bool,
}

impl LogClock {
    /// Nothing has been heard of.
    pub const fn new() -> Self {
        Self { heard: 0, at: Instant::ORIGIN, is_known: false }
    }

    /// Somebody has said that it is at least `time`.
    pub fn hear(&mut self, now: Instant, time: u64) {
        if time >= self.heard {
            (self.heard, self.at) = (time, now);
        }
    }

    /// A message of another member says so; `leads`: this member is the leader.
    pub fn hear_message(&mut self, now: Instant, time: u64, leads: bool) {
        if !leads {
            self.hear(now, time);
        }
    }

    /// The state of a start is known, and has this time: it is counted on from the greatest time known by
    /// now. What went by before, while the log was read, is not added.
    pub fn set_known(&mut self, now: Instant, time: u64) {
        self.hear(now, time);
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

    /// The greatest time that a leader has named, as far as was heard.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// When it will be `time`.
    pub fn when(&self, now: Instant, time: u64) -> Instant {
        now.after(Duration::from_nanos(time.saturating_sub(self.now(now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn it_goes_on_from_the_greatest_time_heard_of_and_never_back() {
        let mut clock = LogClock::new();
        clock.set_known(at(100), 1_000);
        assert_eq!(clock.now(at(150)), 1_050);
        // An older message says nothing.
        clock.hear(at(160), 900);
        assert_eq!(clock.now(at(160)), 1_060);
        // The leader's clock is slower: its word counts.
        clock.hear(at(200), 1_020);
        assert_eq!(clock.now(at(200)), 1_020);
        assert_eq!(clock.when(at(200), 1_050), at(230));
        assert_eq!(clock.when(at(200), 1_000), at(200));
    }

    #[test]
    fn a_start_adds_nothing_however_long_it_takes() {
        let mut clock = LogClock::new();
        // An entry behind what the state has.
        clock.hear(Instant::ORIGIN, 1_000);
        assert_eq!(clock.now(at(700)), 1_000);
        clock.set_known(at(900), 800);
        assert_eq!(clock.now(at(900)), 1_000);
        assert_eq!(clock.now(at(950)), 1_050);
        // The state of another member does not set it back.
        clock.set_known(at(960), 400);
        assert_eq!(clock.now(at(960)), 1_060);
    }

    /// Heartbeats every 100, and 40 each way: half of the time would be lost.
    #[test]
    fn answers_to_its_heartbeats_do_not_slow_the_leaders_clock() {
        let (mut leader, mut other) = (LogClock::new(), LogClock::new());
        leader.set_known(at(0), 0);
        other.set_known(at(0), 0);
        for sent in (100..10_000).step_by(100) {
            other.hear_message(at(sent + 40), leader.now(at(sent)), false);
            let answer = other.now(at(sent + 40));
            leader.hear_message(at(sent + 80), answer, true);
        }
        assert_eq!(leader.now(at(10_000)), 10_000);
        assert!(other.now(at(10_000)).abs_diff(10_000) <= 40);
    }
}
