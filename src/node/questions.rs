//! What a reactor asks consensus before its reads: how long the answer took, and whether there was one.

use base::{Duration, Instant};

/// A question that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);

/// Questions since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Questions {
    /// When the last one was asked.
    asked_at: Option<Instant>,
    /// Those that took more than half a second.
    pub slow: u64,
    /// Those that got no answer, for want of a leader that reaches a majority.
    pub failed: u64,
}

impl Questions {
    /// Now.
    pub fn ask(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// The last one has got its answer.
    pub fn answered(&mut self, now: Instant) {
        let asked_at = self.asked_at.take();
        self.slow += u64::from(asked_at.is_some_and(|at| now.since(at) > SLOW));
    }

    /// The last one gets none.
    pub fn refused(&mut self, now: Instant) {
        self.answered(now);
        self.failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_take_long_and_those_without_an_answer_are_counted() {
        let at = |ms| Instant::ORIGIN.after(Duration::from_millis(ms));
        let mut questions = Questions::default();
        questions.ask(at(0));
        questions.answered(at(500));
        questions.ask(at(500));
        questions.answered(at(1_001));
        questions.ask(at(1_001));
        questions.refused(at(1_002));
        assert_eq!((questions.slow, questions.failed), (1, 1));
    }
}
