//! What comes to all streams, as tasks learn of it that wait for something else: the end of the server, or that the
//! cluster has long been without a leader.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct State {
    has_come: bool,
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// Whether it has come, shared by those who wait for it.
#[derive(Clone, Default)]
pub struct Event(Rc<Cell<State>>);

impl Event {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.take();
        let result = work(&mut state);
        self.0.set(state);
        result
    }

    /// It has come: all who wait learn of it.
    pub fn come(&self) {
        let waiting = self.with(|state| {
            state.has_come = true;
            std::mem::take(&mut state.waiting)
        });
        waiting.into_values().for_each(Waker::wake);
    }

    /// It may come again.
    pub fn reset(&self) {
        self.with(|state| state.has_come = false);
    }

    /// One who waits for it.
    pub fn wait(&self) -> Waiter {
        let place = self.with(|state| {
            state.next += 1;
            state.next
        });
        Waiter { event: self.clone(), place }
    }
}

/// One who waits for it.
pub struct Waiter {
    event: Event,
    place: u64,
}

impl Waiter {
    /// Whether it has come; wakes the task of `context` when it does.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.event.with(|state| {
            if state.has_come {
                return Poll::Ready(());
            }
            match state.waiting.get_mut(&self.place) {
                Some(waker) => waker.clone_from(context.waker()),
                None => drop(state.waiting.insert(self.place, context.waker().clone())),
            }
            Poll::Pending
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.event.with(|state| state.waiting.remove(&self.place));
    }
}
