//! What the leader knows of one peer, and how much it may have on its way to it.
//!
//! ```text
//!           accepted                      rejected, unreachable
//!   Probe ───────────► Replicate ──────────────────────────────► Probe
//!     │ next is compacted  │                                       ▲
//!     └──────► Snapshot ◄──┘   matched reaches the log, or it failed
//! ```
//!
//! *Probe* sends one append and waits; *replicate* sends ahead within a window of messages and bytes;
//! *snapshot* sends nothing.

use alloc::collections::VecDeque;
use base::{LogIndex, Mutant, NodeId};

use crate::Options;

/// How entries are sent to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pace {
    /// Where the logs agree is not known: one append until it is answered or a heartbeat is.
    Probe {
        /// An append is on its way.
        paused: bool,
    },
    /// The logs agree up to `next`: appends follow each other without waiting.
    Replicate,
    /// A snapshot is on its way.
    Snapshot {
        /// The last entry it covers; not known until the host has begun to send it.
        until: LogIndex,
    },
}

/// An append on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct InFlight {
    last: LogIndex,
    /// The most it can be until the host says what it is.
    bytes: u64,
}

/// The leader's knowledge of one peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Progress {
    pub(crate) id: NodeId,
    /// Durable there and the same as here.
    matched: LogIndex,
    /// The next entry to send; above `matched`.
    next: LogIndex,
    pub(crate) pace: Pace,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
    /// Heard of since the quorum was last checked.
    pub(crate) active: bool,
    /// The latest round of leadership confirmation it has answered.
    pub(crate) round: u64,
    /// The greatest commit index it was told.
    pub(crate) committed_told: LogIndex,
    /// Something was acknowledged since its last heartbeat reply.
    moved: bool,
    /// An append is due even if it is empty: the window may hold what was lost.
    pub(crate) nudge: bool,
}

impl Progress {
    pub(crate) fn new(id: NodeId, next: LogIndex, active: bool) -> Self {
        Self {
            id,
            matched: LogIndex::ZERO,
            next,
            pace: Pace::Probe { paused: false },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            active,
            round: 0,
            committed_told: LogIndex::ZERO,
            moved: false,
            nudge: false,
        }
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Index up to which its log is durable and the same as the leader's.
    pub fn matched(&self) -> LogIndex {
        self.matched
    }

    /// The next entry it will be sent.
    pub fn next(&self) -> LogIndex {
        self.next
    }

    /// How entries are sent to it.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Appends on their way, and the most bytes they hold.
    pub fn in_flight(&self) -> (usize, u64) {
        (self.in_flight.len(), self.in_flight_bytes)
    }

    /// Whether it has been heard of in the last election time-out or so.
    pub fn is_active(&self) -> bool {
        self.active
    }

    pub(crate) fn is_full(&self, options: &Options) -> bool {
        if Mutant::WindowUnbounded.is_on() {
            return false;
        }
        self.in_flight.len() >= options.in_flight_max
            || self.in_flight_bytes + options.append_bytes_max > options.in_flight_bytes_max
    }

    fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.nudge = false;
    }

    /// Where the logs agree is to be found out again.
    pub(crate) fn probe(&mut self) {
        self.next = match self.pace {
            _ if Mutant::ProbeFromStart.is_on() => self.matched.next(),
            // As far as the search has come. Where nothing was acknowledged yet, going back to the
            // beginning would ask for a snapshot that the peer has no need of.
            Pace::Probe { .. } => self.next,
            Pace::Replicate if self.matched == LogIndex::ZERO => self.next,
            Pace::Replicate => self.matched.next(),
            Pace::Snapshot { until: LogIndex::MAX } => self.next,
            // It has come to have that state, by this snapshot or before it, or says where its log ends.
            Pace::Snapshot { until } => until.next().max(self.matched.next()),
        };
        self.set_pace(Pace::Probe { paused: false });
    }

    pub(crate) fn snapshot(&mut self) {
        self.set_pace(Pace::Snapshot { until: LogIndex::MAX });
    }

    /// The snapshot that is being sent covers entries up to `index`.
    pub(crate) fn snapshot_begun(&mut self, index: LogIndex) {
        if let Pace::Snapshot { until } = &mut self.pace {
            *until = index;
        }
    }

    /// An append of entries up to `last` (none if that is before `next`) goes out.
    pub(crate) fn sent(&mut self, last: LogIndex, options: &Options) {
        self.nudge = false;
        match &mut self.pace {
            Pace::Probe { paused } => *paused = true,
            Pace::Replicate if last >= self.next => {
                self.next = last.next();
                let bytes = options.append_bytes_max;
                self.in_flight.push_back(InFlight { last, bytes });
                self.in_flight_bytes += bytes;
            }
            Pace::Replicate => {}
            Pace::Snapshot { .. } => unreachable!("nothing is sent beside a snapshot"),
        }
    }

    /// The append that named `named` was sent up to `last` and holds `bytes`.
    pub(crate) fn settle(&mut self, named: LogIndex, last: LogIndex, bytes: u64) {
        let Some(i) = self.in_flight.iter().position(|append| append.last == named) else { return };
        assert!(last <= named, "sent up to {last:?}, beyond {named:?}");
        let append = &mut self.in_flight[i];
        let bytes = bytes.min(append.bytes);
        self.in_flight_bytes -= append.bytes - bytes;
        *append = InFlight { last, bytes };
        if last < named {
            // Appends behind it begin where nothing reaches: the follower refuses them.
            let lost = self.in_flight.drain(i + 1..).map(|append| append.bytes).sum::<u64>();
            self.in_flight_bytes -= lost;
            self.next = last.next().max(self.matched.next());
        }
    }

    /// The peer's log is durable up to `matched` and agrees up to `verified`. `kept_from` is where the
    /// leader's log begins.
    pub(crate) fn accepted(&mut self, matched: LogIndex, verified: LogIndex, kept_from: LogIndex) {
        if matched > self.matched {
            self.matched = matched;
            self.moved = true;
        }
        while let Some(&InFlight { last, bytes }) = self.in_flight.front()
            && last <= self.matched
            && !Mutant::WindowLeak.is_on()
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
        let agreed = verified.max(self.matched);
        match self.pace {
            Pace::Probe { .. } => {
                self.next = agreed.next();
                self.set_pace(Pace::Replicate);
            }
            Pace::Replicate => self.next = self.next.max(agreed.next()),
            // The log goes on from there; or it has been compacted further while the snapshot was
            // on its way, and another is needed.
            Pace::Snapshot { until } if agreed.next() >= kept_from || self.matched >= until => {
                self.next = agreed.next();
                self.set_pace(Pace::Probe { paused: false });
            }
            Pace::Snapshot { .. } => self.next = self.next.max(self.matched.next()),
        }
    }

    /// The peer does not hold `previous`; `agree` is where the logs may agree.
    pub(crate) fn rejected(&mut self, previous: LogIndex, agree: LogIndex) {
        match self.pace {
            // Stale if it has been accepted since.
            Pace::Replicate if previous > self.matched || Mutant::HintBelowMatch.is_on() => {
                let matched =
                    if Mutant::HintBelowMatch.is_on() { LogIndex::ZERO } else { self.matched };
                let next = agree.next().min(previous).max(matched.next());
                self.set_pace(Pace::Probe { paused: false });
                self.next = next;
            }
            Pace::Probe { .. } if previous.next() == self.next => {
                self.next = agree.next().min(previous).max(self.matched.next());
                self.pace = Pace::Probe { paused: false };
            }
            Pace::Probe { .. } | Pace::Replicate | Pace::Snapshot { .. } => {}
        }
    }

    /// It answered a heartbeat: it is there, and what it was sent may have been lost.
    pub(crate) fn heard(&mut self, last: LogIndex) {
        if let Pace::Probe { paused } = &mut self.pace
            && !Mutant::ProbeStaysPaused.is_on()
        {
            *paused = false;
        }
        let stuck = self.pace == Pace::Replicate && !self.moved && self.matched < last;
        self.nudge |= stuck;
        self.moved = false;
    }

    pub(crate) fn check(&self, last: LogIndex, options: &Options) {
        let bytes: u64 = self.in_flight.iter().map(|append| append.bytes).sum();
        assert!(self.matched < self.next, "matched beyond next: {self:?}");
        assert!(self.next <= last.next(), "next beyond the log, which ends at {last:?}: {self:?}");
        assert!(self.in_flight.len() <= options.in_flight_max, "too many in flight: {self:?}");
        assert!(bytes == self.in_flight_bytes, "bytes in flight are {bytes}: {self:?}");
        assert!(bytes <= options.in_flight_bytes_max, "too many bytes in flight: {self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> LogIndex {
        LogIndex::new(index)
    }

    /// A leader whose log began at 306 took a member that had just died for one that lacks all: it was sent the
    /// state when it came back, declined it, and was sent it again, without end.
    #[test]
    fn a_peer_of_which_nothing_is_known_is_probed_where_the_search_was() {
        let mut peer = Progress::new(NodeId::new(2), at(400), true);
        peer.probe();
        assert_eq!(peer.next(), at(400));
        peer.rejected(at(399), at(350));
        peer.probe();
        assert_eq!(peer.next(), at(351));
        peer.snapshot();
        peer.probe();
        assert_eq!(peer.next(), at(351), "none was made");
        peer.snapshot();
        peer.snapshot_begun(at(380));
        peer.probe();
        assert_eq!(peer.next(), at(381));
    }

    /// The leader compacted its log while the snapshot was on its way: waiting for a position that
    /// the log still has would wait for ever.
    #[test]
    fn a_snapshot_that_has_been_overtaken_is_followed_by_another_probe() {
        let mut peer = Progress::new(NodeId::new(2), at(1), true);
        peer.snapshot();
        peer.snapshot_begun(at(30));
        peer.accepted(at(20), at(20), at(100));
        assert_eq!((peer.pace(), peer.next()), (Pace::Snapshot { until: at(30) }, at(21)));
        peer.accepted(at(30), at(30), at(100));
        assert_eq!((peer.pace(), peer.next()), (Pace::Probe { paused: false }, at(31)));
    }

    #[test]
    fn a_late_rejection_of_what_has_been_accepted_since_changes_nothing() {
        let mut peer = Progress::new(NodeId::new(2), at(11), true);
        peer.accepted(at(10), at(10), at(1));
        let before = peer.clone();
        peer.rejected(at(8), at(3));
        assert_eq!(peer, before);
    }

    /// What the host could not fit is offered again, and the window has room for it.
    #[test]
    fn an_append_that_was_sent_shorter_is_continued_where_it_ended() {
        let options = Options { append_bytes_max: 100, in_flight_bytes_max: 200, ..Options::LOCAL };
        let mut peer = Progress::new(NodeId::new(2), at(1), true);
        peer.accepted(at(0), at(0), at(1));
        peer.sent(at(10), &options);
        peer.sent(at(20), &options);
        assert!(peer.is_full(&options));
        peer.settle(at(10), at(4), 90);
        assert_eq!((peer.next(), peer.in_flight()), (at(5), (1, 90)));
        assert!(!peer.is_full(&options));
    }
}
