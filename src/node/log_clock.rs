//! Log time: what leases run on.
//!
//! Nanoseconds that leaders have counted since the cluster began. Whoever leads counts on from the greatest
//! time that it has heard of, as its own clock goes; the others hear of it and count along, so that the next
//! leader goes on where the last one was: a hand-over makes no lease older, and none younger by more than
//! what a message takes. After a start nothing is added for the time in between.

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

    /// The state of a start is known.
    pub fn set_known(&mut self) {
        self.is_known = true;
    }

    /// Whether it may be written into the log.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The log time.
    pub fn now(&self, now: Instant) -> u64 {
        if Mutant::LogTimeStands.is_on() {
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

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn it_goes_on_from_the_greatest_time_heard_of_and_never_back() {
        let mut clock = LogClock::new();
        clock.hear(at(100), 1_000);
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
}
