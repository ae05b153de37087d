//! One watch, in the hands of its user.

use std::fmt::{Debug, Formatter};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use super::hub::{Handle, wait};
use super::{WatchEnd, WatchEvent, WatchPosition};

/// Which of the watches of a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub(super) u64);

impl WatchId {
    /// The number: watches of a hub count up from 0.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A watch. It ends with this value.
///
/// As an iterator it waits for each event, gives the end as an error, and nothing behind it.
pub struct Watcher {
    handle: Arc<Handle>,
    watch: u64,
    waiting: Arc<Condvar>,
    has_ended: bool,
}

impl Debug for Watcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("watch", &self.watch).finish_non_exhaustive()
    }
}

impl Watcher {
    pub(super) fn new(handle: Arc<Handle>, watch: u64, waiting: Arc<Condvar>) -> Self {
        Self { handle, watch, waiting, has_ended: false }
    }

    /// Which it is of its hub's.
    pub fn id(&self) -> WatchId {
        WatchId(self.watch)
    }

    /// Waits until the server has begun; gives the revision at which it did. None: not in time.
    ///
    /// Errors: it has ended before.
    pub fn created_within(&self, timeout: Duration) -> Option<Result<i64, WatchEnd>> {
        let deadline = Instant::now().checked_add(timeout);
        let mut table = self.handle.shared.table();
        loop {
            if let Some(created) = table.created(self.watch) {
                return Some(created);
            }
            table = wait(&self.waiting, table, deadline)?;
        }
    }

    /// The next event; waits for it. None: not in time.
    ///
    /// Errors: the end, again and again.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<WatchEvent>, WatchEnd> {
        self.next_until(Instant::now().checked_add(timeout)).transpose()
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Option<Result<WatchEvent, WatchEnd>> {
        let shared = &self.handle.shared;
        let mut table = shared.table();
        loop {
            if let Some(event) = table.take(self.watch) {
                drop(table);
                shared.taken();
                return Some(event);
            }
            table = wait(&self.waiting, table, deadline)?;
        }
    }

    /// Hands each event to `callback` until it breaks off or the watch ends.
    pub fn run<B>(
        mut self,
        mut callback: impl FnMut(WatchEvent) -> ControlFlow<B>,
    ) -> ControlFlow<B, WatchEnd> {
        loop {
            match self.next_until(None).expect("without a deadline there is an event or the end") {
                Ok(event) => callback(event)?,
                Err(end) => return ControlFlow::Continue(end),
            }
        }
    }

    /// Where another watch would begin to tell exactly what has not been taken from this one: to be kept
    /// by whoever wants to go on later, also in another process.
    pub fn position(&self) -> WatchPosition {
        self.handle.shared.table().position(self.watch)
    }

    /// Asks how far the watch has come; a [`WatchEvent::Progress`] follows behind all changes up to there.
    pub fn ask_progress(&self) {
        self.handle.shared.table().ask_progress(self.watch);
        self.handle.shared.flush();
    }

    /// Asks for the end; what has come before is still told.
    pub fn cancel(&self) {
        self.handle.shared.table().cancel(self.watch);
        self.handle.shared.flush();
    }
}

impl Iterator for Watcher {
    type Item = Result<WatchEvent, WatchEnd>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let event = self.next_until(None);
        self.has_ended = matches!(event, Some(Err(_)));
        event
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.handle.shared.table().forget(self.watch);
        self.handle.shared.flush();
        self.handle.shared.taken();
    }
}
