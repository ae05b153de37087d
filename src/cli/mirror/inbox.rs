//! What a mirror waits for: signals, and news of a watch.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::error::MirrorError;
use crate::cli::failure::Failure;
use crate::cli::signals::Events;

/// Why a wait ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The process is asked to end.
    Signal,
    /// A watch may have something to tell; whoever is woken looks for himself.
    Told,
}

/// Where signals and news come in.
pub struct Inbox {
    events: Events<Wake>,
    is_interrupted: bool,
}

impl Inbox {
    /// From now on signals do not end the process by themselves.
    ///
    /// # Errors
    /// The system does not take it.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { events: Events::new(|_| Wake::Signal)?, is_interrupted: false })
    }

    /// Where a watch says that it has something to tell. When it is full, that has been said.
    pub fn bell(&self) -> SyncSender<Wake> {
        self.events.sender()
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// [`MirrorError::Interrupted`].
    pub fn check(&mut self) -> Result<(), MirrorError> {
        while let Some(wake) = self.events.next_within(Duration::ZERO) {
            self.is_interrupted |= wake == Wake::Signal;
        }
        if self.is_interrupted { Err(MirrorError::Interrupted) } else { Ok(()) }
    }

    /// Waits until something happens, for so long at most.
    ///
    /// # Errors
    /// [`MirrorError::Interrupted`].
    pub fn wait(&mut self, timeout: Duration) -> Result<(), MirrorError> {
        self.is_interrupted |= self.events.next_within(timeout) == Some(Wake::Signal);
        self.check()
    }

    /// Waits so long, whatever a watch says meanwhile.
    ///
    /// # Errors
    /// [`MirrorError::Interrupted`].
    pub fn pause(&mut self, span: Duration) -> Result<(), MirrorError> {
        let until = Instant::now() + span;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.wait(left)?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }
}
