//! An election: a lock whose holder proclaims something, and others who want to know.

use std::time::{Duration, Instant};

use wire::{ChangeKind, Compare};

use super::place::{Place, folder, oldest};
use super::{Patience, RecipeError};
use crate::client::Client;
use crate::lease_keeper::{KeptLease, LeaseLoss};
use crate::result::OwnedKeyValue;
use crate::watch::{WatchEnd, WatchEvent, WatchOptions, Watcher};

/// An election of one leader among all that campaign for a name. The oldest key of the name leads.
///
/// Guarantees and gaps are those of a [`Lock`](super::Lock): a leader that was suspended may not know that
/// another leads; guard what leaders write with [`Candidate::guard`].
#[derive(Clone, Debug)]
pub struct Election {
    name: Vec<u8>,
}

/// One that leads.
///
/// Dropped, it resigns in the background.
#[derive(Debug)]
pub struct Candidate {
    place: Place,
}

impl Election {
    /// The election of this name.
    pub fn new(name: &[u8]) -> Self {
        Self { name: name.to_vec() }
    }

    /// Waits until this process leads, for at most `timeout`; none: for ever. `value` is what others see.
    ///
    /// Errors: those of [`Lock::acquire`](super::Lock::acquire).
    pub fn campaign(
        &self,
        client: &mut Client,
        lease: &KeptLease,
        value: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Candidate, RecipeError> {
        let patience = Patience::new(timeout);
        let place = Place::take(client, lease, &self.name, value, patience)?;
        place.wait_first(client, lease, patience)?;
        let candidate = Candidate { place };
        let current = client.get(candidate.key())?;
        // The key of an earlier campaign with the same lease may hold another value.
        match current {
            Some(kv) if kv.value == value => Ok(candidate),
            Some(_) => candidate.proclaim(client, value).map(|_| candidate),
            None => Err(RecipeError::LeaseLost),
        }
    }

    /// The leader's key, with what it proclaims; none: nobody leads.
    ///
    /// Errors: those of a read.
    pub fn leader(&self, client: &mut Client) -> Result<Option<OwnedKeyValue>, RecipeError> {
        Ok(oldest(client, &self.name)?.0)
    }

    /// Who leads, and everyone who does from now on, with each proclamation. Proclamations that follow
    /// each other quickly may be told as one; the newest always is.
    pub fn observe(&self, client: &Client) -> Observer {
        let (name, client) = (self.name.clone(), client.sibling());
        Observer { name, client, watcher: None, leader: None, is_told: false }
    }
}

impl Candidate {
    /// The key that stands for it.
    pub fn key(&self) -> &[u8] {
        self.place.key()
    }

    /// The revision of the key's creation, greater than that of every earlier leader: a fencing token.
    pub fn token(&self) -> i64 {
        self.place.token()
    }

    /// A condition for transactions: they do nothing unless this one still leads.
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

    /// Lets others see another value; gives its revision.
    ///
    /// Errors: [`RecipeError::LeaseLost`]: it does not lead any more; those of a write.
    pub fn proclaim(&self, client: &mut Client, value: &[u8]) -> Result<i64, RecipeError> {
        self.place.put(client, value)
    }

    /// Leads no longer; true if it did.
    ///
    /// Errors: those of a write; it then resigns in the background.
    pub fn resign(self, client: &mut Client) -> Result<bool, RecipeError> {
        self.place.leave(client)
    }
}

/// What an [`Observer`] sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaderEvent {
    /// This key leads, with this value.
    Leads(OwnedKeyValue),
    /// Nobody leads.
    Nobody,
}

/// Sees who leads.
pub struct Observer {
    name: Vec<u8>,
    client: Client,
    watcher: Option<Watcher>,
    /// What was told last.
    leader: Option<OwnedKeyValue>,
    is_told: bool,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("leader", &self.leader).finish_non_exhaustive()
    }
}

impl Observer {
    /// The next thing to see, at first what is; waits for it. None: not in time.
    ///
    /// Errors: those of a read and of a watch.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<LeaderEvent>, RecipeError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if self.watcher.is_none() {
                let (leader, revision) = oldest(&mut self.client, &self.name)?;
                let options = WatchOptions { keys_only: true, ..self.watched() };
                let hub = self.client.watch_hub()?;
                self.watcher = Some(hub.watch(options.from_revision(revision + 1))?);
                if let Some(event) = self.see(leader) {
                    return Ok(Some(event));
                }
            }
            let Some(watcher) = &mut self.watcher else { continue };
            let left =
                deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            match watcher.next_within(left) {
                Ok(None) => return Ok(None),
                Ok(Some(WatchEvent::Progress { .. })) => {}
                Ok(Some(WatchEvent::Changes { changes, .. })) => {
                    // Others who only get in line, or out of it, change nothing.
                    let matters = changes.iter().any(|change| match &self.leader {
                        Some(leader) => change.kv.key == leader.key,
                        None => change.kind == ChangeKind::Put,
                    });
                    if matters {
                        let (leader, _) = oldest(&mut self.client, &self.name)?;
                        if let Some(event) = self.see(leader) {
                            return Ok(Some(event));
                        }
                    }
                }
                // What was missed is in the state.
                Err(WatchEnd::Compacted { .. }) => self.watcher = None,
                Err(end) => return Err(end.into()),
            }
        }
    }

    fn watched(&self) -> WatchOptions {
        WatchOptions::prefix(&folder(&self.name))
    }

    /// What is told about a leader, if it is news.
    fn see(&mut self, leader: Option<OwnedKeyValue>) -> Option<LeaderEvent> {
        if self.is_told && self.leader == leader {
            return None;
        }
        self.is_told = true;
        self.leader.clone_from(&leader);
        Some(leader.map_or(LeaderEvent::Nobody, LeaderEvent::Leads))
    }
}
