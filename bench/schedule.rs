//! When operations ought to be sent in an open loop.
//!
//! A closed loop sends the next operation when one is answered: a server that stalls is then asked
//! less, and the stall shows as one slow operation instead of the thousands that real clients
//! would have suffered (coordinated omission). An open loop fixes the send times in advance, one
//! each `1 / rate` seconds, and counts latency from them whether or not the operation could be
//! sent at that time:
//!
//! ```text
//! due      |    |    |    |    |    |
//! sent     |    |              ||||      the server stalled here, all places were taken
//! latency  from `due`, never from `sent`
//! ```
//!
//! Times are nanoseconds since the start of the run. Nothing here reads a clock.

/// Send times at an even pace.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Operations per second, not 0.
    rate: u64,
    /// Number of the next operation.
    next: u64,
}

impl Schedule {
    /// One operation each `1 / rate` seconds, the first at 0. `rate` must not be 0.
    pub fn new(rate: u64) -> Self {
        assert!(rate > 0, "an open loop needs a rate");
        Self { rate, next: 0 }
    }

    /// When the next operation is due.
    #[inline]
    pub fn due(&self) -> u64 {
        due_of(self.next, self.rate)
    }

    /// Takes the next operation if it is due at `now`: its due time.
    #[inline]
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.due();
        if due > now {
            return None;
        }
        self.next += 1;
        Some(due)
    }

    /// The due times that fall in `from..until` and were never taken.
    pub fn untaken(&self, from: u64, until: u64) -> impl Iterator<Item = u64> {
        let rate = self.rate;
        (self.next..)
            .map(move |number| due_of(number, rate))
            .skip_while(move |due| *due < from)
            .take_while(move |due| *due < until)
    }
}

fn due_of(number: u64, rate: u64) -> u64 {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate);
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn operations_are_due_at_an_even_pace_without_drift() {
        let mut schedule = Schedule::new(3);
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(0), None);
        assert_eq!(schedule.take(400_000_000), Some(333_333_333));
        assert_eq!(schedule.due(), 666_666_666);
        let mut schedule = Schedule::new(3);
        let taken = std::iter::from_fn(|| schedule.take(100_000_000_000)).count();
        assert_eq!(taken, 301, "three a second for 100 s, and the first one");
    }

    #[test]
    fn what_is_due_and_was_not_taken_is_told() {
        let mut schedule = Schedule::new(10);
        assert_eq!(schedule.take(0), Some(0));
        let untaken: Vec<u64> = schedule.untaken(150_000_000, 500_000_000).collect();
        assert_eq!(untaken, [200_000_000, 300_000_000, 400_000_000]);
    }
}
