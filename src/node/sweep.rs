//! What a reactor looks at every now and then: connections that overstayed their handshake, began a frame and
//! did not go on, or do not read.

use alloc::format;
use alloc::vec::Vec;

use base::limits::{
    HANDSHAKE_TIMEOUT_MS, PARTIAL_PROGRESS_SIZE, PARTIAL_TIMEOUT_CROWDED_MS, PARTIAL_TIMEOUT_MS,
    SEND_STALL_TIMEOUT_MS,
};
use base::{ConnectionId, Duration, Instant};
use wire::Status;

use crate::message::Refused;
use crate::reactor::{CloseReason, Reactor, ReactorEffect, SWEEP_INTERVAL};
use crate::session::Phase;

impl Reactor {
    /// Closes connections that overstayed their handshake or do not read.
    pub(crate) fn sweep(&mut self, now: Instant, effects: &mut Vec<ReactorEffect>) {
        let handshake = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
        let stall = Duration::from_millis(SEND_STALL_TIMEOUT_MS);
        let warned = Duration::from_millis(2 * SEND_STALL_TIMEOUT_MS);
        let partial = Duration::from_millis(PARTIAL_TIMEOUT_MS);
        let crowded = Duration::from_millis(PARTIAL_TIMEOUT_CROWDED_MS);
        let is_crowded = !self.starving.is_empty();
        let (mut overdue, mut slow) = (Vec::new(), Vec::new());
        let mut any = false;
        for (slot, session) in self.sessions.iter().enumerate() {
            let Some(session) = session else { continue };
            any = true;
            let slot = u32::try_from(slot).expect("slots are numbered by u32");
            let connection = ConnectionId { slot, generation: session.generation };
            if session.phase == Phase::Handshake && now.since(session.accepted_at) > handshake {
                overdue.push((connection, CloseReason::HandshakeTimeout));
            }
            let stalls = session.partial.is_some_and(|(since, _)| now.since(since) > partial);
            let begun = session.begun.filter(|_| is_crowded && session.counted > 0);
            let crowds = begun.is_some_and(|begun| now.since(begun) > crowded);
            if (stalls || crowds) && session.phase == Phase::Open {
                overdue.push((connection, CloseReason::PartialFrame));
            }
            let blocked = session.blocked_since.map_or(Duration::ZERO, |since| now.since(since));
            if blocked > stall && self.watches.of(connection) > 0 {
                slow.push(connection);
            } else if blocked > if session.was_warned { warned } else { stall } {
                overdue.push((connection, CloseReason::SlowReader));
            }
        }
        for connection in slow {
            self.end_slow_watches(connection, effects);
        }
        for (connection, reason) in overdue {
            if reason == CloseReason::HandshakeTimeout {
                let refused = Refused::new(
                    Status::HandshakeTimeout,
                    format!(
                        "no Hello within {HANDSHAKE_TIMEOUT_MS} ms of connecting; connect again"
                    ),
                );
                self.refuse(connection, base::RequestId::new(0), &refused);
            }
            if reason == CloseReason::PartialFrame {
                let refused = Refused::new(
                    Status::ProtocolError,
                    format!(
                        "{PARTIAL_TIMEOUT_MS} ms, or {PARTIAL_TIMEOUT_CROWDED_MS} ms while others \
                         wait for its memory, went by without the end of a frame that had begun \
                         or {PARTIAL_PROGRESS_SIZE} bytes more of it; connect again and send whole \
                         frames"
                    ),
                );
                self.refuse(connection, base::RequestId::new(0), &refused);
            }
            self.close(connection, reason, effects);
        }
        self.tell_use(effects);
        self.sweep_at = any.then(|| now.after(SWEEP_INTERVAL));
    }
}
