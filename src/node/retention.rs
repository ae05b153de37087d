//! Retention: how much history is kept without anybody asking for a compaction.
//!
//! ```text
//! store, every member                          consensus, the leader
//! looks at the revision as it applies
//! what may go: Outdated{revision} ───────────► a Compact entry, like that of a client
//! ... applied: Outdated{none} ───────────────► nothing more is wanted
//! ```
//!
//! Every member looks, by its own clock, and only the leader proposes, in its own term, once it has
//! committed in that term: after a change of leaders the next one knows as much as the last one did. What
//! was proposed and lost with a leader is proposed again by the next; a compaction that another one has
//! overtaken is refused when it is applied, and that is all. A start has seen nothing and waits a whole
//! period: history is kept longer than asked for, never shorter.
//!
//! Nothing here wants a turn while no revision comes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::{Duration, Frame, Instant, Mutant, RequestId, Revision, Term};
use raft::RoleName;
use wire::{Call, Compact, HEADER_SIZE, RequestEncoder, VERSION_MIN};

use crate::consensus::Consensus;
use crate::message::EntryKind;
use crate::store::Store;
use crate::store_link::StoreEffect;
use crate::{ConsensusEvent, translate};

/// What history is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// All of it, until a client compacts.
    Everything,
    /// What was the newest state at some time in this period.
    Period(Duration),
    /// This many revisions.
    Revisions(u64),
}

/// Samples in a period: history is kept that much longer than asked for, at most.
const SAMPLES: u64 = 16;

/// Least time between two samples, and between two looks at the number of revisions.
const INTERVAL_MIN: Duration = Duration::from_millis(1_000);

/// The part of the wanted number of revisions that has to be there beyond it. A compaction is an entry of
/// the log, a walk through the trees and a copy of every page with something to drop: one for each write
/// would cost more than the write. So at most an eighth more is kept than was asked for.
const EXCESS: u64 = 8;

/// Greatest body of a request to compact, far beyond what it takes.
const BODY_SIZE_MAX: usize = 1 << 10;

/// The revision of the empty store.
const EMPTY: Revision = Revision::new(1);

/// What one member has seen of revisions, and what it wants compacted.
#[derive(Debug)]
pub struct Horizon {
    retention: Retention,
    /// When which revision was the newest, oldest first; none is compacted, at most one of them is as old
    /// as the period.
    samples: VecDeque<(Instant, Revision)>,
    /// When the number of revisions was found too great last.
    looked_at: Option<Instant>,
    /// What has been asked for and is not applied.
    wanted: Option<Revision>,
    /// When there is something to look at.
    deadline: Option<Instant>,
}

impl Horizon {
    /// Nothing seen yet.
    pub const fn new(retention: Retention) -> Self {
        Self { retention, samples: VecDeque::new(), looked_at: None, wanted: None, deadline: None }
    }

    /// When it wants to look again, though nothing is applied.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What it wants compacted.
    pub const fn wanted(&self) -> Option<Revision> {
        self.wanted
    }

    /// Looks at the newest revision and at the compacted one, 0 before the first compaction. Says whether
    /// it wants something else than before.
    pub fn look(&mut self, now: Instant, newest: Revision, compacted: Revision) -> bool {
        let before = self.wanted;
        // What is compacted to is still readable, and nothing lies before the empty store.
        let compacted = compacted.max(EMPTY);
        if self.wanted.is_some_and(|wanted| wanted <= compacted) {
            self.wanted = None;
        }
        self.deadline = match self.retention {
            Retention::Everything => None,
            Retention::Period(period) => self.look_at_age(now, newest, compacted, period),
            Retention::Revisions(count) => self.look_at_count(now, newest, compacted, count),
        };
        self.wanted != before
    }

    fn look_at_age(
        &mut self,
        now: Instant,
        newest: Revision,
        compacted: Revision,
        period: Duration,
    ) -> Option<Instant> {
        let part = Duration::from_nanos(period.as_nanos() / SAMPLES);
        let interval = part.max(INTERVAL_MIN);
        let period = if Mutant::RetentionYoung.is_on() { part } else { period };
        while self.samples.front().is_some_and(|(_, revision)| *revision <= compacted) {
            self.samples.pop_front();
        }
        // The newest of those that are old enough is what counts.
        while self.samples.get(1).is_some_and(|(at, _)| at.after(period) <= now) {
            self.samples.pop_front();
        }
        let seen = self.samples.back().map_or(compacted, |(_, revision)| *revision);
        let mut sample_at = None;
        if newest > seen {
            let next = self.samples.back().map_or(now, |(at, _)| at.after(interval));
            if next <= now {
                self.samples.push_back((now, newest));
            } else {
                sample_at = Some(next);
            }
        }
        let mut due_at = None;
        if let Some((at, revision)) = self.samples.front()
            && self.wanted.is_none()
        {
            if at.after(period) <= now {
                self.wanted = Some(*revision);
            } else {
                due_at = Some(at.after(period));
            }
        }
        [sample_at, due_at].into_iter().flatten().min()
    }

    fn look_at_count(
        &mut self,
        now: Instant,
        newest: Revision,
        compacted: Revision,
        count: u64,
    ) -> Option<Instant> {
        if self.wanted.is_some() {
            return None;
        }
        let kept = if Mutant::RetentionKeepsLess.is_on() { count.saturating_sub(1) } else { count };
        let target = newest.get().saturating_sub(kept);
        let excess = target.saturating_sub(compacted.get());
        if excess < (count / EXCESS).max(1) {
            return None;
        }
        let next = self.looked_at.map_or(now, |at| at.after(INTERVAL_MIN));
        if next > now {
            return Some(next);
        }
        self.looked_at = Some(now);
        self.wanted = Some(Revision::new(target));
        None
    }
}

/// What consensus knows of it.
#[derive(Debug, Default)]
pub struct Outdated {
    /// What the store wants compacted.
    pub wanted: Option<Revision>,
    /// What was proposed last, and in which term.
    proposed: Option<(Term, Revision)>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Looks whether history is to be given up.
    pub(crate) fn look_at_retention(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let compacted = self.state.compacted().unwrap_or(Revision::ZERO);
        if self.horizon.look(now, self.state.revision(), compacted) {
            let event = ConsensusEvent::Outdated { revision: self.horizon.wanted() };
            effects.push(StoreEffect::ToConsensus(event));
        }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Proposes what the store wants compacted, once in a term.
    pub(crate) fn tend_retention(&mut self) {
        let Some(revision) = self.outdated.wanted else { return };
        let leads = self.raft.role() == RoleName::Leader && self.raft.read_index().is_some();
        let proposal = (self.raft.term(), revision);
        let again = Mutant::RetentionAgain.is_on();
        if !leads || self.outdated.proposed == Some(proposal) && !again {
            return;
        }
        self.outdated.proposed = Some(proposal);
        self.propose_own(EntryKind::Compact, &compact_body(revision));
    }
}

/// The body of a request to compact, as a client sends it.
fn compact_body(revision: Revision) -> Frame {
    let mut encoder = RequestEncoder::new();
    encoder.agree(VERSION_MIN, BODY_SIZE_MAX);
    let call = Call::Compact(Compact { revision: translate::i64_of(revision), physical: false });
    let mut frame = Vec::new();
    encoder.encode(&mut frame, RequestId::new(0), 0, &call).expect("a compaction is small");
    Frame::from(frame).slice(HEADER_SIZE..)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use base::Prng;

    use super::*;

    const SECOND: u64 = 1_000;

    fn at(ms: u64) -> Instant {
        Instant::ORIGIN.after(Duration::from_millis(ms))
    }

    /// A horizon, and a state that does what it wants some time later.
    struct Life {
        horizon: Horizon,
        now: u64,
        revision: u64,
        compacted: u64,
        /// When each revision was made.
        made: Vec<u64>,
        wanted: usize,
    }

    impl Life {
        fn new(retention: Retention) -> Self {
            let horizon = Horizon::new(retention);
            Self { horizon, now: 5_000, revision: 1, compacted: 0, made: vec![0, 5_000], wanted: 0 }
        }

        /// Writes, and lets the horizon look.
        fn write(&mut self, count: u64) {
            for _ in 0..count {
                self.revision += 1;
                self.made.push(self.now);
            }
            self.look();
        }

        fn look(&mut self) {
            let before = self.horizon.wanted();
            let (newest, compacted) = (Revision::new(self.revision), Revision::new(self.compacted));
            let told = self.horizon.look(at(self.now), newest, compacted);
            assert_eq!(told, before != self.horizon.wanted());
            let deadline = self.horizon.deadline();
            assert!(deadline.is_none_or(|deadline| deadline > at(self.now)), "it spins");
            if let (true, Some(_)) = (told, self.horizon.wanted()) {
                self.wanted += 1;
            }
        }

        /// What is wanted is done.
        fn compact(&mut self) {
            if let Some(wanted) = self.horizon.wanted() {
                assert!(wanted.get() > self.compacted, "{wanted} is compacted");
                assert!(wanted.get() <= self.revision, "{wanted} is to come");
                self.compacted = wanted.get();
                self.look();
            }
        }

        /// Goes on to each deadline until there is none.
        fn rest(&mut self) {
            for _ in 0..1_000 {
                while self.horizon.wanted().is_some() {
                    self.compact();
                }
                match self.horizon.deadline() {
                    Some(deadline) => self.now = deadline.since(Instant::ORIGIN).as_millis(),
                    None => return,
                }
                self.look();
            }
            panic!("it never comes to rest");
        }
    }

    /// The promise of a period, under any load: nothing goes that was the newest state within the period,
    /// and what goes is not much older than that.
    #[test]
    fn history_is_kept_for_its_period_and_a_sixteenth_longer_at_most() {
        for seed in 0..40 {
            let mut prng = Prng::new(seed);
            let period = [2, 30, 300, 7_200][usize::try_from(prng.below(4)).unwrap()] * SECOND;
            let mut life = Life::new(Retention::Period(Duration::from_millis(period)));
            let step = period / 50;
            for turn in 0..400 {
                life.now += 1 + prng.below(2 * step);
                life.write(prng.below(5));
                if let Some(wanted) = life.horizon.wanted() {
                    // The next revision is what ended the time of this one.
                    let slot = usize::try_from(wanted.get()).unwrap();
                    assert!(life.made[slot] + period <= life.now, "seed {seed}: {wanted} is young");
                }
                if turn % 3 == 0 {
                    life.compact();
                }
                let left = usize::try_from(life.compacted.max(1)).unwrap() + 1;
                let oldest = life.made.get(left).copied().unwrap_or(life.now);
                let most = period + (period / 16).max(SECOND) + 12 * step;
                assert!(life.now - oldest <= most, "seed {seed}: {} ms", life.now - oldest);
                assert!(life.horizon.samples.len() < 20, "samples pile up");
            }
            assert!(life.wanted > 3, "seed {seed}: {} compactions", life.wanted);
        }
    }

    #[test]
    fn nothing_goes_within_a_period_of_a_start_however_old_it_is() {
        let period = 60 * SECOND;
        let mut life = Life::new(Retention::Period(Duration::from_millis(period)));
        life.revision = 1_000;
        life.look();
        let begun = life.now;
        while life.horizon.wanted().is_none() {
            life.now += 100;
            life.look();
        }
        assert_eq!((life.now - begun, life.horizon.wanted()), (period, Some(Revision::new(1_000))));
    }

    #[test]
    fn as_many_revisions_are_kept_as_were_asked_for_and_an_eighth_more_at_most() {
        for count in [1, 5, 8, 100, 1_000] {
            let mut prng = Prng::new(count);
            let mut life = Life::new(Retention::Revisions(count));
            for _ in 0..2_000 {
                life.now += SECOND;
                life.write(prng.below(count / 10 + 2));
                life.compact();
                assert!(life.revision - life.compacted >= count.min(life.revision));
                let most = count + (count / 8).max(1);
                assert!(life.revision - life.compacted.max(1) < most, "{count}");
            }
            assert!(life.wanted > 3, "{count}: {} compactions", life.wanted);
        }
    }

    /// However fast revisions come: a compaction costs an entry of the log.
    #[test]
    fn a_number_of_revisions_is_looked_at_once_in_a_second() {
        let mut life = Life::new(Retention::Revisions(8));
        for _ in 0..10_000 {
            life.now += 1;
            life.write(1);
            life.compact();
        }
        assert!((9..=11).contains(&life.wanted), "{} compactions in 10 s", life.wanted);
    }

    #[test]
    fn what_is_under_way_is_not_asked_for_again_and_another_one_may_overtake_it() {
        let mut life = Life::new(Retention::Revisions(10));
        life.write(100);
        assert_eq!(life.horizon.wanted(), Some(Revision::new(91)));
        for _ in 0..20 {
            life.now += SECOND;
            life.write(50);
        }
        assert_eq!((life.wanted, life.horizon.wanted()), (1, Some(Revision::new(91))));
        // A client compacts to the newest revision.
        life.compacted = life.revision;
        life.look();
        assert_eq!((life.wanted, life.horizon.wanted()), (1, None));
    }

    /// A server that nobody uses sleeps.
    #[test]
    fn who_has_nothing_to_give_up_any_more_wants_no_turn() {
        let period = Duration::from_millis(60 * SECOND);
        for retention in [Retention::Period(period), Retention::Revisions(10)] {
            let mut life = Life::new(retention);
            life.look();
            assert_eq!(life.horizon.deadline(), None, "{retention:?}: nothing was written");
            for _ in 0..10 {
                life.write(40);
                life.now += 700;
            }
            life.rest();
            let left = life.revision - life.compacted;
            let expected = if retention == Retention::Period(period) { 0 } else { 10 };
            assert_eq!((left, life.horizon.deadline()), (expected, None), "{retention:?}");
        }
    }
}
