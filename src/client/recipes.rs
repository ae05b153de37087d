//! What people build from keys, leases and watches, built once: locks, elections, registrations,
//! barriers, counters and queues.
//!
//! | recipe | guarantees | does not |
//! | --- | --- | --- |
//! | [`Lock`] | one key of a name at a time is the oldest | stop a holder that was paused beyond its lease |
//! | [`Election`] | the same, with a value that the leader proclaims | the same |
//! | [`Register`] | a key is there while the process is, soon again after an outage | stop others from writing it |
//! | [`DoubleBarrier`] | nobody enters before all are there, or leaves before all are done | outlive its leases |
//! | [`Counter`] | every addition counts once | hand out sums in the order of the calls |
//! | [`Queue`] | in the order of arrival, each to one taker | give a taken element back |
//!
//! **Leases and pauses.** Whoever holds a lease may be suspended (by the scheduler, a debugger, a virtual
//! machine) and wake up when others have long been told that it is gone. No lock service can prevent that;
//! what is protected has to look itself. Keys of the same cluster do it with a condition: put
//! [`Lock::guard`] into the transaction that changes them. Elsewhere hand [`Lock::token`] along, and refuse
//! a token that is less than the greatest one that was seen.
//!
//! **Names.** The keys of a recipe are `name/...`; give each its own name, and nothing else below it.
//!
//! The layout of locks and elections is that of etcd: `name/` and the id of the lease in hexadecimal
//! digits; the oldest key holds.

mod barrier;
mod counter;
mod election;
mod lock;
mod place;
mod queue;
mod register;

use std::fmt::{Display, Formatter};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::watch::WatchEnd;

pub use barrier::DoubleBarrier;
pub use counter::Counter;
pub use election::{Candidate, Election, LeaderEvent, Observer};
pub use lock::Lock;
pub use queue::Queue;
pub use register::Register;

/// Why a recipe did not do what it was asked.
#[derive(Debug)]
pub enum RecipeError {
    /// A call failed.
    Call(Error),
    /// A watch ended.
    Watch(WatchEnd),
    /// The lease is not valid any more: begin again with another one.
    LeaseLost,
    /// The time is up. What was begun has been taken back, or is going to be in the background.
    TimedOut,
    /// Others changed the key each time: more often than the recipe tries.
    Contended {
        /// How often it tried.
        attempts: u32,
    },
    /// The key holds something else than the recipe puts there.
    NotOurs {
        /// The key.
        key: Vec<u8>,
    },
}

impl Display for RecipeError {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Watch(end) => end.fmt(f),
            Self::LeaseLost => write!(f, "the lease has expired, or was revoked"),
            Self::TimedOut => write!(f, "the time is up"),
            Self::Contended { attempts } => {
                write!(f, "others changed the key each of {attempts} times; try again later")
            }
            Self::NotOurs { key } => write!(
                f,
                "the key {:?} holds something that was not put there by this recipe",
                String::from_utf8_lossy(key)
            ),
        }
    }
}

impl std::error::Error for RecipeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call(error) => Some(error),
            Self::Watch(end) => Some(end),
            Self::LeaseLost | Self::TimedOut | Self::Contended { .. } | Self::NotOurs { .. } => {
                None
            }
        }
    }
}

impl From<Error> for RecipeError {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<WatchEnd> for RecipeError {
    fn from(end: WatchEnd) -> Self {
        Self::Watch(end)
    }
}

/// A time by which something has to be done; none: whenever.
#[derive(Clone, Copy, Debug)]
struct Patience(Option<Instant>);

impl Patience {
    /// `timeout` from now on; none: for ever.
    fn new(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// What is left, at most `step`.
    ///
    /// Errors: the time is up.
    fn left(&self, step: Duration) -> Result<Duration, RecipeError> {
        let Some(end) = self.0 else { return Ok(step) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(RecipeError::TimedOut) } else { Ok(left.min(step)) }
    }
}
