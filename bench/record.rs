//! What is measured of a run: which operations count, and their latencies.
//!
//! ```text
//! 0 ......... start ................................ end ......... drained
//!   warm-up         measured                             answers to what was sent before `end`
//! ```
//!
//! `operations` and `errors` count answers that came between start and end: their number per
//! second is the throughput. The histogram holds each operation that *began* (open loop: was due)
//! between start and end, whenever its answer came, so that a stall at the end is not cut off.
//! One that was never answered is an error and enters with the time that it had waited.
//!
//! Times are nanoseconds since the start of the run. Nothing here reads a clock.

use hdrhistogram::Histogram;

/// Greatest latency told apart, 10 minutes: longer ones count as this.
const LATENCY_MAX: u64 = 600_000_000_000;

/// Significant decimal digits of a recorded latency.
const LATENCY_DIGITS: u8 = 3;

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First nanosecond that counts.
    pub start: u64,
    /// First nanosecond that no longer counts.
    pub end: u64,
}

impl Window {
    fn holds(self, time: u64) -> bool {
        (self.start..self.end).contains(&time)
    }
}

/// The measurements of one thread, and later of all.
#[derive(Clone, Debug)]
pub struct Record {
    window: Window,
    latencies: Histogram<u64>,
    operations: u64,
    errors: u64,
    unsent: u64,
}

impl Record {
    /// Nothing measured yet.
    pub fn new(window: Window) -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX, LATENCY_DIGITS)
            .expect("constant bounds in order and a precision below 6");
        Self { window, latencies, operations: 0, errors: 0, unsent: 0 }
    }

    /// An operation that began (open loop: was due) at `began` was answered well at `now`.
    #[inline]
    pub fn answered(&mut self, began: u64, now: u64) {
        if self.window.holds(now) {
            self.operations += 1;
        }
        if self.window.holds(began) {
            self.latencies.saturating_record(now.saturating_sub(began).max(1));
        }
    }

    /// An operation that began at `began` failed at `now`: refused, or its connection lost.
    pub fn failed(&mut self, began: u64, now: u64) {
        if self.window.holds(began) || self.window.holds(now) {
            self.errors += 1;
            self.latencies.saturating_record(now.saturating_sub(began).max(1));
        }
    }

    /// An operation was due at `due` and could not be sent until the end: it enters the latencies
    /// with the time that it had waited by then.
    pub fn unsent(&mut self, due: u64) {
        if self.window.holds(due) {
            self.unsent += 1;
            self.latencies.saturating_record(self.window.end.saturating_sub(due).max(1));
        }
    }

    /// Adds another thread's measurements of the same window.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.window, other.window, "one run has one window");
        self.latencies.add(&other.latencies).expect("equal bounds");
        self.operations += other.operations;
        self.errors += other.errors;
        self.unsent += other.unsent;
    }

    /// Operations answered well inside the window.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Operations refused or lost.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Operations of an open loop that were due and never sent.
    pub fn unsent_count(&self) -> u64 {
        self.unsent
    }

    /// The latencies in nanoseconds.
    pub fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }
}

#[cfg(test)]
mod tests {
    use super::{Record, Window};
    use crate::schedule::Schedule;

    const WINDOW: Window = Window { start: 1_000, end: 2_000 };

    #[test]
    fn warm_up_is_left_out_and_late_answers_stay_in() {
        let mut record = Record::new(WINDOW);
        record.answered(500, 600);
        assert_eq!((record.operations(), record.latencies().len()), (0, 0));
        record.answered(900, 1_100);
        assert_eq!((record.operations(), record.latencies().len()), (1, 0));
        record.answered(1_900, 2_500);
        assert_eq!((record.operations(), record.latencies().len()), (1, 1));
        assert_eq!(record.latencies().max(), 600);
        record.answered(2_100, 2_200);
        assert_eq!((record.operations(), record.latencies().len()), (1, 1));
    }

    #[test]
    fn failures_and_unsent_operations_enter_the_latencies() {
        let mut record = Record::new(WINDOW);
        record.failed(1_500, 9_000);
        record.unsent(1_800);
        record.unsent(2_000);
        assert_eq!((record.errors(), record.unsent_count()), (1, 1));
        assert_eq!(record.latencies().len(), 2);
    }

    /// A server with one place answers in 1 ms but stalls for one second of ten, at 100 a second.
    /// A closed loop would show one slow operation of 1,000; users would have seen 100.
    #[test]
    fn a_stall_is_seen_by_every_operation_that_was_due_in_it() {
        let second = 1_000_000_000;
        let mut record = Record::new(Window { start: 0, end: 10 * second });
        let mut schedule = Schedule::new(100);
        let mut free_at = 0;
        while schedule.due() < 10 * second {
            let due = schedule.due();
            let sent = due.max(free_at);
            assert_eq!(schedule.take(sent), Some(due));
            let stalled = (5 * second..6 * second).contains(&sent);
            let answered = if stalled { 6 * second } else { sent } + 1_000_000;
            free_at = answered;
            record.answered(due, answered);
        }
        let latencies = record.latencies();
        assert_eq!(latencies.len(), 1_000);
        assert!(latencies.value_at_quantile(0.5) < 2_000_000);
        let slow = latencies.count_between(100_000_000, 2 * second);
        assert!((90..=110).contains(&slow), "{slow} operations suffered");
    }

    #[test]
    fn threads_add_up() {
        let mut a = Record::new(WINDOW);
        let mut b = Record::new(WINDOW);
        a.answered(1_000, 1_100);
        b.answered(1_000, 1_300);
        b.failed(1_000, 1_100);
        a.merge(&b);
        assert_eq!((a.operations(), a.errors(), a.latencies().len()), (2, 1, 3));
    }
}
