//! When a member serves etcd's clients: not before the list of members says its name and where clients find it, as in
//! etcd. One that has been here before is in the list as it is.

use std::sync::Arc;

use base::{Duration, Instant};

use crate::core_loop::ConsensusSeat;
use crate::counters::Counters;

/// A member that knows its leader and does not come into the list for so long serves nevertheless.
const PATIENCE: Duration = Duration::from_millis(5_000);

/// What the executor with consensus looks at after each turn.
pub struct Publication {
    counters: Arc<Counters>,
    serves_since: Option<Instant>,
    is_ready: bool,
}

impl Publication {
    /// Shows in these counters that it has come.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { counters, serves_since: None, is_ready: false }
    }

    /// Whether the member is ready since this turn.
    pub fn comes(&mut self, now: Instant, seat: Option<&ConsensusSeat>) -> bool {
        let Some(seat) = seat.filter(|_| !self.is_ready) else { return false };
        let may_serve = seat.role.may_serve();
        if may_serve {
            self.serves_since.get_or_insert(now);
        }
        let is_late = self.serves_since.is_some_and(|since| now.since(since) >= PATIENCE);
        let is_published = seat.role.is_published() || is_late;
        self.counters.published.set(is_published.into());
        self.is_ready = is_published && may_serve;
        self.is_ready
    }
}
