//! What happened to the cluster as a whole and when, in nanoseconds of the run: harm and recovery, loss of
//! the quorum, and who has led. Pure: threads put down what they see, judges ask.

/// What somebody who does harm puts down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Something is done, or was and has not been made up for.
    Harmed,
    /// Everything runs, and every member has taken something to the log.
    Recovered,
    /// No majority runs and meets.
    QuorumLost,
    /// One does.
    QuorumThere,
}

/// A time with its begin and end.
pub type Span = (u64, u64);

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    marks: Vec<(u64, Mark)>,
    /// Terms in which somebody was seen to lead, with the time at which that was seen first.
    leaders: Vec<(u64, u64)>,
    /// Requests that a leader must have worked on: when they were sent and answered.
    served: Vec<Span>,
    /// When the machine itself had no time, or its disk took no block.
    stalls: Vec<Span>,
    /// For how long a member was ready to run and did not, which ended then.
    waits: Vec<Span>,
}

impl Timeline {
    /// Puts down a mark; times do not go back.
    pub fn mark(&mut self, at: u64, mark: Mark) {
        self.marks.push((at, mark));
    }

    /// A member says that somebody leads this term.
    pub fn led(&mut self, at: u64, term: u64) {
        if !self.leaders.iter().rev().any(|(_, known)| *known == term) {
            self.leaders.push((at, term));
        }
    }

    /// A request was answered that went through the log.
    pub fn served(&mut self, sent: u64, answered: u64) {
        self.served.push((sent, answered));
    }

    /// A thread of the harness got no time, or no block to the disk.
    pub fn stalled(&mut self, since: u64, until: u64) {
        self.stalls.push((since, until));
    }

    /// When the machine had no time, or its disk took no block.
    pub fn stalls(&self) -> &[Span] {
        &self.stalls
    }

    /// A member got no processor for so long, in the time until `now`.
    pub fn waited(&mut self, now: u64, nanos: u64) {
        // Not before what was put down before.
        let since = self.waits.last().map_or(0, |(_, until)| *until);
        self.waits.push((now.saturating_sub(nanos).max(since), now));
    }

    /// When a member got no processor, about.
    pub fn waits(&self) -> &[Span] {
        &self.waits
    }

    /// Spans from one mark to the next of another kind, or for ever.
    fn spans(&self, from: Mark, to: Mark) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut since = None;
        for (at, mark) in &self.marks {
            if *mark == from {
                since.get_or_insert(*at);
            } else if *mark == to
                && let Some(since) = since.take()
            {
                spans.push((since, *at));
            }
        }
        spans.extend(since.map(|since| (since, u64::MAX)));
        spans
    }

    /// When the cluster was not well.
    pub fn harmed(&self) -> Vec<Span> {
        self.spans(Mark::Harmed, Mark::Recovered)
    }

    /// When there was no quorum, each until a leader was seen to serve again.
    pub fn without_quorum(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (since, until) in self.spans(Mark::QuorumLost, Mark::QuorumThere) {
            let seen = self.served.iter().filter(|(sent, _)| *sent >= until);
            let until = seen.map(|(_, answered)| *answered).min().unwrap_or(u64::MAX);
            match spans.last_mut() {
                Some(last) if since <= last.1 => last.1 = last.1.max(until),
                Some(_) | None => spans.push((since, until)),
            }
        }
        spans
    }

    /// How often somebody else, or somebody anew, was seen to lead.
    pub fn changes(&self, (from, to): Span) -> u64 {
        // The first one is none.
        let seen = self.leaders.iter().skip(1);
        seen.map(|(at, _)| u64::from((from..=to).contains(at))).sum()
    }

    /// Changes of leaders in all.
    pub fn changes_in_all(&self) -> u64 {
        self.changes((0, u64::MAX))
    }
}

/// Spans of two lists as one list in which none overlap.
pub fn union(one: &[Span], other: &[Span]) -> Vec<Span> {
    let mut all = [one, other].concat();
    all.sort_unstable();
    let mut spans: Vec<Span> = Vec::new();
    for (since, until) in all {
        match spans.last_mut() {
            Some(last) if since <= last.1 => last.1 = last.1.max(until),
            Some(_) | None => spans.push((since, until)),
        }
    }
    spans
}

/// How much of a span lies in others, which do not overlap.
pub fn overlap((from, to): Span, others: &[Span]) -> u64 {
    let shared = |(since, until): &Span| (*until).min(to).saturating_sub((*since).max(from));
    others.iter().map(shared).sum()
}

/// The end of what lasts at `at`; `at` itself if nothing does.
pub fn end_of(at: u64, others: &[Span]) -> u64 {
    let lasting = others.iter().find(|(since, until)| (*since..=*until).contains(&at));
    lasting.map_or(at, |(_, until)| *until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_back_when_a_request_of_afterwards_has_been_answered() {
        let mut timeline = Timeline::default();
        for (at, mark) in [
            (0, Mark::QuorumThere),
            (100, Mark::Harmed),
            (100, Mark::QuorumLost),
            (150, Mark::QuorumLost),
            (200, Mark::QuorumThere),
            (300, Mark::Recovered),
        ] {
            timeline.mark(at, mark);
        }
        assert_eq!(timeline.without_quorum(), [(100, u64::MAX)]);
        // Sent while there was none.
        timeline.served(190, 210);
        timeline.served(205, 260);
        timeline.served(201, 270);
        assert_eq!(timeline.without_quorum(), [(100, 260)]);
        assert_eq!(timeline.harmed(), [(100, 300)]);
        assert_eq!(overlap((50, 110), &timeline.without_quorum()), 10);
        assert_eq!(overlap((270, 400), &timeline.without_quorum()), 0);
        assert_eq!(end_of(120, &timeline.harmed()), 300);
        assert_eq!(end_of(320, &timeline.harmed()), 320);
    }

    #[test]
    fn what_two_lists_have_in_common_counts_once() {
        let spans = union(&[(10, 20), (50, 60)], &[(15, 30), (40, 50), (70, 80)]);
        assert_eq!(spans, [(10, 30), (40, 60), (70, 80)]);
    }

    #[test]
    fn a_leader_that_several_members_tell_of_is_one_and_the_first_is_no_change() {
        let mut timeline = Timeline::default();
        for (at, term) in [(10, 2), (12, 2), (50, 4), (51, 2), (55, 4), (90, 5)] {
            timeline.led(at, term);
        }
        assert_eq!(timeline.changes((0, 60)), 1);
        assert_eq!(timeline.changes((50, 90)), 2);
        assert_eq!(timeline.changes_in_all(), 2);
    }
}
