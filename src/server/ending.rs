//! The end of a server that was told to stop, step by step.
//!
//! 1. Draining: no connection is accepted any more, clients over HTTP are told to go elsewhere and their streams
//!    end; what they ask until they have learned of it is answered as ever.
//! 2. Answering: leadership is handed over, new requests are refused, and what is under way is answered.
//!
//! Refused from the first moment on, calls of clients that balance over all members would fail although the
//! others serve.

use std::sync::atomic::{AtomicUsize, Ordering};

use base::{Duration, Instant};
use node::{ConsensusEvent, ReactorEvent};

use crate::core_loop::Seats;
use crate::inbox::Inbox;

/// Clients over HTTP that have not left by then are not waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// What is still under way this long after that is given up: clients learn of it as of a crash. With the time for
/// draining less than 1.5 s: who ends a server waits for no more.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(900);

/// Clients over HTTP whose requests have all ended are waited for no longer than this: who reads nothing has not
/// learned of it, and may never do.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(200);

/// How far the executors are, counted in reactors.
pub struct Remaining {
    draining: AtomicUsize,
    answering: AtomicUsize,
}

impl Remaining {
    /// With so many reactors.
    pub fn new(reactors: usize) -> Self {
        Self { draining: AtomicUsize::new(reactors), answering: AtomicUsize::new(reactors) }
    }
}

/// Where one executor is.
pub enum Ending {
    /// Nobody has told it to stop.
    Running,
    /// The first step.
    Draining {
        /// When it is over at the latest.
        until: Instant,
        /// The clients of this executor have left.
        has_drained: bool,
    },
    /// The second.
    Answering {
        /// When it is over at the latest.
        until: Instant,
        /// Until when clients over HTTP are waited for that take no answer.
        leave: Instant,
        /// The reactor of this executor has no request left.
        has_answered: bool,
    },
}

impl Ending {
    /// Begins it.
    pub fn begin(&mut self, now: Instant, seats: &Seats) {
        if let Some(seat) = &seats.reactor {
            seat.gate.stop();
        }
        *self = Self::Draining { until: now.after(DRAIN_TIMEOUT), has_drained: false };
    }

    /// Goes on with it; whether the executor may end.
    pub fn turn(
        &mut self,
        now: Instant,
        remaining: &Remaining,
        seats: &Seats,
        inbox: &Inbox,
    ) -> bool {
        match self {
            Self::Running => false,
            Self::Draining { until, has_drained } => {
                let is_idle = seats.reactor.as_ref().is_some_and(|seat| seat.gate.is_idle());
                if is_idle && !std::mem::replace(has_drained, true) {
                    remaining.draining.fetch_sub(1, Ordering::AcqRel);
                }
                // All go on together: the leader serves the clients of other executors.
                if now >= *until || remaining.draining.load(Ordering::Acquire) == 0 {
                    if seats.reactor.is_some() {
                        inbox.push_reactor(ReactorEvent::Stop);
                    }
                    if seats.consensus.is_some() {
                        inbox.push_consensus(ConsensusEvent::Stop);
                    }
                    let (until, leave) = (now.after(ANSWER_TIMEOUT), now.after(LEAVE_TIMEOUT));
                    *self = Self::Answering { until, leave, has_answered: false };
                }
                false
            }
            Self::Answering { until, leave, has_answered } => {
                if seats.reactor.as_ref().is_some_and(|seat| seat.role.requests() == 0)
                    && !std::mem::replace(has_answered, true)
                {
                    remaining.answering.fetch_sub(1, Ordering::AcqRel);
                }
                let all_answered = remaining.answering.load(Ordering::Acquire) == 0;
                now >= *until || (all_answered && is_quiet(seats, now >= *leave))
            }
        }
    }
}

/// Whether nothing that a client waits for is under way here. `alone`: clients over HTTP are not waited for.
fn is_quiet(seats: &Seats, alone: bool) -> bool {
    let has_left = |idle: bool| idle || alone;
    seats
        .reactor
        .as_ref()
        .is_none_or(|seat| seat.role.requests() == 0 && has_left(seat.gate.is_idle()))
        && seats.consensus.as_ref().is_none_or(|seat| seat.role.is_quiet())
}
