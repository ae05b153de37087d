//! A registration: a key that is there while its process is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wire::{ChangeKind, Compare, CompareResult, CompareTarget, Op, Put, Txn};

use super::RecipeError;
use crate::client::Client;
use crate::error::Error;
use crate::lease_keeper::KeptLease;
use crate::watch::{WatchEvent, WatchOptions, Watcher};

/// How long one wait lasts before the lease is looked at again.
const STEP: Duration = Duration::from_millis(200);

/// Pauses between attempts to put the key again.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A key that hangs on a lease that is kept alive, and is put again when lease or key was lost, until this
/// value is dropped.
///
/// Guaranteed: the key is gone within the TTL after the process ended, and it is put again, with the same
/// value, as soon as servers can be reached after an outage. The newest registration has the key:
/// [`Self::begin`] takes it from whoever has it, so that a process that starts again need not wait for what
/// its last life has left behind. Who lost it does not take it back: it is left alone until it goes. Not
/// guaranteed: that the key is there all the time ([`Self::is_registered`] tells whether this process
/// believes so), and that nobody else writes it.
#[derive(Debug)]
pub struct Register {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_stopped: Mutex<bool>,
    stop: Condvar,
    is_registered: AtomicBool,
}

impl Shared {
    fn stopped(&self) -> MutexGuard<'_, bool> {
        self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        *self.stopped()
    }

    /// Waits, shorter when it is to stop.
    fn pause(&self, time: Duration) {
        let stopped = self.stopped();
        if !*stopped {
            drop(self.stop.wait_timeout(stopped, time));
        }
    }
}

impl Register {
    /// Puts the key, and looks after it from then on.
    ///
    /// Errors: those of a grant and a put, if the first time fails; nothing is left behind then.
    pub fn begin(
        client: &Client,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
    ) -> Result<Self, RecipeError> {
        let mut caretaker = Caretaker {
            client: client.sibling(),
            key: key.to_vec(),
            value: value.to_vec(),
            ttl,
            shared: Arc::default(),
        };
        let lease = caretaker.client.keep_lease(ttl)?;
        let put = Put { lease: lease.id(), ..Put::new(key, value) };
        let revision = caretaker.client.put(&put)?.revision;
        let first = caretaker.watched(lease, revision)?;
        let shared = Arc::clone(&caretaker.shared);
        let thread = thread::Builder::new()
            .name("quorate-register".to_owned())
            .spawn(move || caretaker.run(first))
            .map_err(|source| Error::Unreachable { endpoint: "a thread".to_owned(), source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// True while the key is there, as far as this process knows.
    pub fn is_registered(&self) -> bool {
        self.shared.is_registered.load(Ordering::Relaxed)
    }

    /// Takes the key back and waits until that is done, or given up after the request timeout.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        *self.shared.stopped() = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst; the lease ends by itself.
            drop(thread.join());
        }
    }
}

struct Caretaker {
    client: Client,
    key: Vec<u8>,
    value: Vec<u8>,
    ttl: Duration,
    shared: Arc<Shared>,
}

impl Caretaker {
    fn run(mut self, first: (KeptLease, Watcher)) {
        let mut current = Some(first);
        let mut backoff = BACKOFF_MIN;
        while !self.shared.is_stopped() {
            if let Some((lease, watcher)) = current.take() {
                self.shared.is_registered.store(true, Ordering::Relaxed);
                self.look_after(&lease, watcher);
                self.shared.is_registered.store(false, Ordering::Relaxed);
                backoff = BACKOFF_MIN;
                // With the lease goes what is left of the key.
                drop(lease);
                continue;
            }
            if let Ok(Some(put)) = self.put_again() {
                current = Some(put);
            } else {
                self.shared.pause(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    /// Puts the key with a new lease, unless somebody else has it.
    fn put_again(&mut self) -> Result<Option<(KeptLease, Watcher)>, RecipeError> {
        if self.client.get(&self.key)?.is_some() {
            return Ok(None);
        }
        let lease = self.client.keep_lease(self.ttl)?;
        let (target, equal) = (CompareTarget::CreateRevision, CompareResult::Equal);
        let put = Put { lease: lease.id(), ..Put::new(&self.key, &self.value) };
        let absent = Compare::number(&self.key, target, equal, 0);
        let result = self.client.txn(&Txn::new().when(absent).then(Op::Put(put)))?;
        if !result.succeeded {
            return Ok(None);
        }
        self.watched(lease, result.revision).map(Some)
    }

    /// Watches the key behind the revision at which it was put.
    fn watched(
        &mut self,
        lease: KeptLease,
        revision: i64,
    ) -> Result<(KeptLease, Watcher), RecipeError> {
        let options = WatchOptions::one(&self.key).from_revision(revision + 1);
        let watcher = self.client.watch_hub()?.watch(options)?;
        Ok((lease, watcher))
    }

    /// Until the key or its lease is lost, or the registration ends.
    fn look_after(&self, lease: &KeptLease, mut watcher: Watcher) {
        let mut is_ours = true;
        while !self.shared.is_stopped() {
            if is_ours && !lease.is_valid() {
                return;
            }
            match watcher.next_within(STEP) {
                Ok(Some(WatchEvent::Changes { changes, .. })) => {
                    let Some(last) = changes.last() else { continue };
                    match last.kind {
                        ChangeKind::Delete => return,
                        ChangeKind::Put => is_ours = last.kv.lease == lease.id(),
                    }
                    self.shared.is_registered.store(is_ours, Ordering::Relaxed);
                }
                Ok(Some(WatchEvent::Progress { .. }) | None) => {}
                Err(_) => return,
            }
        }
    }
}
