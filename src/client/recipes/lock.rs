//! A lock: the first place of a name.

use std::time::Duration;

use wire::Compare;

use super::place::Place;
use super::{Patience, RecipeError};
use crate::client::Client;
use crate::lease_keeper::{KeptLease, LeaseLoss};

/// A lock that is held.
///
/// Guaranteed: at every revision at most one key of a name is the oldest, and when [`Self::acquire`]
/// returned, this one was; those that wait get it in the order in which they came. It is lost when its key
/// goes: released, the lease expired or was revoked, or somebody deleted the key.
///
/// **Not guaranteed: that nobody else holds it while this process believes that it does.** A process that is
/// suspended for longer than its lease wakes up and goes on, while another holds the lock. A lock does not
/// fence by itself: put [`Self::guard`] into each transaction that the lock protects, or hand
/// [`Self::token`] to what is protected. [`Self::is_valid`] only keeps the gap small.
///
/// One lease holds a name once: acquiring it again with the same lease gives the same key, and whoever
/// releases first releases for both. Two threads that shall exclude each other need a lease each.
///
/// Dropped, the key is deleted in the background.
#[derive(Debug)]
pub struct Lock {
    place: Place,
}

impl Lock {
    /// Waits until the lock is free and this is the first in line, for at most `timeout`; none: for ever.
    ///
    /// Errors: [`RecipeError::LeaseLost`], [`RecipeError::TimedOut`], and what calls and watches fail with.
    /// The place in the line is then given up.
    pub fn acquire(
        client: &mut Client,
        lease: &KeptLease,
        name: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Self, RecipeError> {
        let patience = Patience::new(timeout);
        let place = Place::take(client, lease, name, b"", patience)?;
        place.wait_first(client, lease, patience)?;
        Ok(Self { place })
    }

    /// The key that stands for it.
    pub fn key(&self) -> &[u8] {
        self.place.key()
    }

    /// The revision of the key's creation. It is greater than that of everyone who held the lock before: a
    /// fencing token.
    pub fn token(&self) -> i64 {
        self.place.token()
    }

    /// A condition for transactions: they do nothing unless the lock is still held.
    pub fn guard(&self) -> Compare<'_> {
        self.place.guard()
    }

    /// True as long as the servers cannot have ended the lease, unless somebody revoked it or deleted the
    /// key.
    pub fn is_valid(&self) -> bool {
        self.place.is_valid()
    }

    /// Waits until the lease is lost, for at most so long. None: it is not.
    pub fn wait_lost(&self, timeout: Duration) -> Option<LeaseLoss> {
        self.place.keeper().wait_lost(self.place.lease(), timeout)
    }

    /// Gives it back; true if it was still held.
    ///
    /// Errors: those of a write; it is then given back in the background.
    pub fn release(self, client: &mut Client) -> Result<bool, RecipeError> {
        self.place.leave(client)
    }
}
