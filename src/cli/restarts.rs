//! When a process that has ended is started again: after a pause, and not too often.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Starts within [`WINDOW`].
pub const STARTS_MAX: usize = 5;

/// See [`STARTS_MAX`].
const WINDOW: Duration = Duration::from_secs(60);

/// Between an end and the next start: who looks at the cluster shall see that a member is away.
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of a process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is started again then.
    Soon(Instant),
    /// It has been started as often as is allowed, and waits until the window has passed.
    Late(Instant),
    /// It has been started as often without ever becoming ready: another try changes nothing.
    Never,
}

/// The last starts of one process, the first one apart.
#[derive(Debug, Default)]
pub struct Restarts {
    starts: VecDeque<Instant>,
    /// Ends since it was ready.
    ends_in_vain: usize,
}

impl Restarts {
    /// It has become ready.
    pub fn ready(&mut self) {
        self.ends_in_vain = 0;
    }

    /// It has ended.
    pub fn ended(&mut self, now: Instant) -> Next {
        self.ends_in_vain += 1;
        if self.ends_in_vain > STARTS_MAX {
            return Next::Never;
        }
        let soon = now + PAUSE;
        let mut due = soon;
        if self.starts.len() == STARTS_MAX
            && let Some(oldest) = self.starts.pop_front()
        {
            due = due.max(oldest + WINDOW);
        }
        self.starts.push_back(due);
        if due > soon { Next::Late(due) } else { Next::Soon(due) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_started_five_times_a_minute_and_then_waits() {
        let begin = Instant::now();
        let mut restarts = Restarts::default();
        let mut now = begin;
        let mut starts = Vec::new();
        for number in 0..50 {
            let next = restarts.ended(now);
            now = match next {
                Next::Soon(due) => due,
                Next::Late(due) => {
                    assert!(number >= STARTS_MAX, "{number}");
                    due
                }
                Next::Never => panic!("a process that becomes ready is never given up"),
            };
            if number < STARTS_MAX {
                assert_eq!(now, begin + PAUSE * u32::try_from(number + 1).expect("few"));
            }
            starts.push(now);
            restarts.ready();
        }
        // No window of a minute ever sees more starts than that.
        for window in starts.windows(STARTS_MAX + 1) {
            assert!(window[STARTS_MAX].duration_since(window[0]) >= WINDOW);
        }
    }

    #[test]
    fn an_end_now_and_then_costs_only_the_pause() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            assert_eq!(restarts.ended(now), Next::Soon(now + PAUSE));
            restarts.ready();
            now += WINDOW / 4;
        }
    }

    /// A member that was removed from its cluster ends at each start, for ever.
    #[test]
    fn a_process_that_never_becomes_ready_is_given_up() {
        let mut restarts = Restarts::default();
        let now = Instant::now();
        restarts.ready();
        for _ in 0..STARTS_MAX {
            assert_ne!(restarts.ended(now), Next::Never);
        }
        assert_eq!(restarts.ended(now), Next::Never);
        restarts.ready();
        assert_ne!(restarts.ended(now), Next::Never);
    }
}
