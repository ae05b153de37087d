//! SIGINT and SIGTERM as events of a command, beside others that it waits for.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;

/// Events that wait: whoever has more waits himself.
const EVENTS_MAX: usize = 64;

/// What happens while a command waits.
pub struct Events<E> {
    sender: SyncSender<E>,
    receiver: Receiver<E>,
}

impl<E: Send + 'static> Events<E> {
    /// Each SIGINT and SIGTERM from now on is an event, and does not end the process.
    ///
    /// # Errors
    /// The system does not take it.
    pub fn new(signal: impl Fn(i32) -> E + Send + 'static) -> Result<Self, Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|error| Failure::Stopped(format!("signals cannot be watched: {error}")))?;
        let (sender, receiver) = mpsc::sync_channel(EVENTS_MAX);
        let ours = sender.clone();
        thread::spawn(move || {
            for number in signals.forever() {
                if ours.send(signal(number)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { sender, receiver })
    }

    /// Where other events come in.
    pub fn sender(&self) -> SyncSender<E> {
        self.sender.clone()
    }

    /// The next event; waits for it.
    pub fn next(&self) -> E {
        self.receiver.recv().expect("this value holds a sender itself")
    }

    /// The next event; none if there is none in time.
    pub fn next_within(&self, timeout: Duration) -> Option<E> {
        match self.receiver.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("this value holds a sender itself")
            }
        }
    }
}
