//! Keeps leases alive in the background, and says when one may have been lost.
//!
//! ```text
//! sent           due: sent + TTL / 3                     valid until: sent + TTL
//!  ├──────────────────┼── keep-alive, answered ─► sent anew ──┤
//!  │                  └── no answer ─► another server, again ─┤ lost
//! ```
//!
//! A lease is valid for its time from the moment at which its last answered keep-alive was *sent*: the
//! servers count from when they logged it, which is later. So nobody can have been told of its end as long
//! as it is valid here, if clocks run equally fast. Once lost, always lost, also if the servers should
//! still have it: whoever relied on it cannot know what happened meanwhile.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base::limits::KEEP_ALIVE_MAX;
use wire::{Compare, CompareResult, CompareTarget, DeleteRange, Op, Status, Txn};

use crate::client::{Client, Options};
use crate::error::Error;
use crate::result::{LeaseGrantResult, LeaseRevokeResult};

/// Least time that one attempt gets, however little is left.
const ATTEMPT_MIN: Duration = Duration::from_millis(20);

/// Longest pause behind a failed attempt.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Why a lease is not valid any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseLoss {
    /// The servers say that there is no such lease: it has expired or was revoked.
    Gone,
    /// No keep-alive was answered in time: it may have expired.
    Unanswered,
}

/// Keeps any number of leases alive, over one connection of its own and with one thread.
///
/// A keeper is a handle that can be cloned; with the last one its leases are not kept alive any longer.
///
/// **It does not stop the process that holds the lease.** A process that is suspended between asking
/// [`Self::is_valid`] and acting on the answer acts without a lease. What must not happen then has to be
/// guarded where it is done, with a token: see [`Lock`](crate::recipes::Lock). The clock that is used stands
/// still while the machine is suspended.
#[derive(Clone)]
pub struct LeaseKeeper {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKeeper").finish_non_exhaustive()
    }
}

/// Ends the thread when the last user has gone.
struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// How long a chore may take.
    patience: Duration,
}

struct Shared {
    kept: Mutex<Kept>,
    /// For the thread: there is something to do.
    work: Condvar,
    /// For users: a lease has been lost.
    loss: Condvar,
}

type OnLoss = Box<dyn FnMut(i64, LeaseLoss) + Send>;

#[derive(Default)]
struct Kept {
    leases: HashMap<i64, Entry>,
    /// When the next keep-alive of each goes out, and until when each is valid; lost ones have neither.
    due: BTreeSet<(Instant, i64)>,
    valid: BTreeSet<(Instant, i64)>,
    chores: VecDeque<Chore>,
    /// One of them is being done.
    is_at_chore: bool,
    on_loss: Option<OnLoss>,
    is_stopped: bool,
}

struct Entry {
    ttl: Duration,
    due: Instant,
    valid_until: Instant,
    loss: Option<LeaseLoss>,
}

/// What is done in the background for values that were dropped.
pub(crate) struct Chore {
    what: Work,
    deadline: Instant,
}

pub(crate) enum Work {
    /// Revoke a lease.
    Revoke(i64),
    /// Delete a key if it is still the one that was created then.
    Delete { key: Vec<u8>, create_revision: i64 },
    /// Delete a key if it hangs on this lease.
    DeleteOf { key: Vec<u8>, lease: i64 },
}

impl LeaseKeeper {
    /// A keeper that connects to these endpoints when it has something to keep.
    ///
    /// Errors: [`Error::NoEndpoints`], [`Error::Unreachable`] if the system gives no thread.
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        options: Options,
    ) -> Result<Self, Error> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        if endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        Self::of(Client::unconnected(endpoints, options))
    }

    pub(crate) fn of(client: Client) -> Result<Self, Error> {
        let shared =
            Arc::new(Shared { kept: Mutex::default(), work: Condvar::new(), loss: Condvar::new() });
        let patience = client.options().request_timeout;
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("quorate-leases".to_owned())
            .spawn(move || Keeping::new(&theirs, client).run())
            .map_err(|source| Error::Unreachable { endpoint: "a thread".to_owned(), source })?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Some(thread), patience }) })
    }

    /// Keeps a lease alive that was granted, or last kept alive, by a call that began at `since`.
    pub fn keep(&self, lease: i64, ttl: Duration, since: Instant) {
        let mut kept = self.handle.shared.lock();
        kept.forget(lease);
        let (due, valid_until) = (since + ttl / 3, since + ttl);
        kept.leases.insert(lease, Entry { ttl, due, valid_until, loss: None });
        kept.due.insert((due, lease));
        kept.valid.insert((valid_until, lease));
        self.handle.shared.work.notify_all();
    }

    /// Does not keep it alive any longer, and knows it no more.
    pub fn forget(&self, lease: i64) {
        self.handle.shared.lock().forget(lease);
    }

    /// True as long as the servers cannot have ended the lease, unless somebody revoked it.
    pub fn is_valid(&self, lease: i64) -> bool {
        self.valid_until(lease).is_some()
    }

    /// Until when the lease is valid if no further keep-alive is answered; none: it is not valid.
    pub fn valid_until(&self, lease: i64) -> Option<Instant> {
        let kept = self.handle.shared.lock();
        let entry = kept.leases.get(&lease)?;
        (entry.loss.is_none() && Instant::now() < entry.valid_until).then_some(entry.valid_until)
    }

    /// Waits until the lease is lost, for at most so long. None: it is not, or it is not known here.
    pub fn wait_lost(&self, lease: i64, timeout: Duration) -> Option<LeaseLoss> {
        let deadline = Instant::now().checked_add(timeout);
        let shared = &self.handle.shared;
        let mut kept = shared.lock();
        loop {
            let entry = kept.leases.get(&lease)?;
            if entry.loss.is_some() {
                return entry.loss;
            }
            let now = Instant::now();
            if now >= entry.valid_until {
                return Some(LeaseLoss::Unanswered);
            }
            let end =
                deadline.map_or(entry.valid_until, |deadline| deadline.min(entry.valid_until));
            if deadline.is_some_and(|deadline| deadline <= now) {
                return None;
            }
            let left = end.saturating_duration_since(now);
            (kept, _) =
                shared.loss.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Calls back, on the thread of the keeper, with each lease that is lost from now on. The callback must
    /// not wait for anything: no lease is kept alive meanwhile.
    pub fn on_loss(&self, callback: impl FnMut(i64, LeaseLoss) + Send + 'static) {
        self.handle.shared.lock().on_loss = Some(Box::new(callback));
    }

    /// Does something in the background, also if this is the last that is asked of the keeper.
    pub(crate) fn enqueue(&self, what: Work) {
        let deadline = Instant::now() + self.handle.patience;
        self.handle.shared.lock().chores.push_back(Chore { what, deadline });
        self.handle.shared.work.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut kept = self.shared.lock();
        kept.is_stopped = true;
        let has_chores = kept.is_at_chore || !kept.chores.is_empty();
        drop(kept);
        self.shared.work.notify_all();
        // What was enqueued is done, or given up, before the process can end; a keep-alive that nobody
        // answers is not waited for. The thread itself may drop the last handle, which its callback holds.
        if let Some(thread) = self.thread.take()
            && has_chores
            && thread.thread().id() != thread::current().id()
        {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What a panic left behind is whole: nothing here panics between two steps of a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget(&mut self, lease: i64) {
        if let Some(entry) = self.leases.remove(&lease) {
            self.due.remove(&(entry.due, lease));
            self.valid.remove(&(entry.valid_until, lease));
        }
    }

    fn lose(&mut self, lease: i64, loss: LeaseLoss) {
        let Some(entry) = self.leases.get_mut(&lease) else { return };
        entry.loss = Some(loss);
        let (due, valid_until) = (entry.due, entry.valid_until);
        self.due.remove(&(due, lease));
        self.valid.remove(&(valid_until, lease));
    }

    /// The next keep-alive of a lease goes out then.
    fn set_due(&mut self, lease: i64, due: Instant) {
        if let Some(entry) = self.leases.get_mut(&lease).filter(|entry| entry.loss.is_none()) {
            self.due.remove(&(entry.due, lease));
            entry.due = due;
            self.due.insert((due, lease));
        }
    }

    /// A keep-alive that was sent then has been answered.
    fn renew(&mut self, lease: i64, ttl: Duration, sent: Instant) {
        let now = Instant::now();
        if let Some(entry) = self.leases.get_mut(&lease).filter(|entry| entry.loss.is_none()) {
            if entry.valid_until <= now {
                // Too late: somebody may have been told that it is not valid.
                return;
            }
            self.valid.remove(&(entry.valid_until, lease));
            entry.ttl = ttl;
            entry.valid_until = entry.valid_until.max(sent + ttl);
            self.valid.insert((entry.valid_until, lease));
        }
        self.set_due(lease, sent + ttl / 3);
    }

    /// The leases whose keep-alive goes out now: those that are due, and those that soon will be.
    fn batch(&self, now: Instant) -> Vec<i64> {
        if self.due.first().is_none_or(|(due, _)| *due > now) {
            return Vec::new();
        }
        let soon = |lease: &i64| self.leases.get(lease).map_or(Duration::ZERO, |l| l.ttl / 6);
        self.due
            .iter()
            .take_while(|(due, lease)| *due <= now + soon(lease))
            .take(KEEP_ALIVE_MAX)
            .map(|(_, lease)| *lease)
            .collect()
    }

    /// How long an attempt may take so that the lease that ends first gets another one.
    fn attempt_time(&self, now: Instant, most: Duration) -> Duration {
        let first = self.valid.first().map(|(end, _)| end.saturating_duration_since(now) / 2);
        first.unwrap_or(most).min(most).max(ATTEMPT_MIN)
    }
}

/// The thread.
struct Keeping<'s> {
    shared: &'s Shared,
    client: Client,
    /// What the user gave.
    options: Options,
    /// Failed attempts in a row.
    failures: u32,
}

impl<'s> Keeping<'s> {
    fn new(shared: &'s Shared, client: Client) -> Self {
        let options = client.options().clone();
        Self { shared, client, options, failures: 0 }
    }

    fn run(mut self) {
        loop {
            let now = Instant::now();
            self.lose_unanswered(now);
            let mut kept = self.shared.lock();
            let batch = if kept.is_stopped { Vec::new() } else { kept.batch(now) };
            if !batch.is_empty() {
                let time = kept.attempt_time(now, self.options.request_timeout);
                drop(kept);
                self.keep_alive(&batch, time);
                continue;
            }
            if let Some(chore) = kept.chores.pop_front() {
                kept.is_at_chore = true;
                let most = chore.deadline.saturating_duration_since(now);
                let time = kept.attempt_time(now, most);
                drop(kept);
                self.work(chore, time);
                self.shared.lock().is_at_chore = false;
                continue;
            }
            if kept.is_stopped {
                return;
            }
            let first = |set: &BTreeSet<(Instant, i64)>| set.first().map(|(at, _)| *at);
            let next = first(&kept.due).into_iter().chain(first(&kept.valid)).min();
            match next {
                Some(next) => {
                    let left = next.saturating_duration_since(now);
                    drop(self.shared.work.wait_timeout(kept, left));
                }
                None => drop(self.shared.work.wait(kept)),
            }
        }
    }

    /// Leases that nobody has answered for in time.
    fn lose_unanswered(&mut self, now: Instant) {
        let mut kept = self.shared.lock();
        let late: Vec<i64> =
            kept.valid.iter().take_while(|(end, _)| *end <= now).map(|(_, id)| *id).collect();
        late.iter().for_each(|lease| kept.lose(*lease, LeaseLoss::Unanswered));
        drop(kept);
        self.tell(&late, LeaseLoss::Unanswered);
    }

    fn tell(&mut self, leases: &[i64], loss: LeaseLoss) {
        if leases.is_empty() {
            return;
        }
        self.shared.loss.notify_all();
        // Without the lock: the callback may ask the keeper.
        let Some(mut callback) = self.shared.lock().on_loss.take() else { return };
        leases.iter().for_each(|lease| callback(*lease, loss));
        let mut kept = self.shared.lock();
        kept.on_loss.get_or_insert(callback);
    }

    fn limit(&mut self, time: Duration) {
        // Each endpoint gets a chance.
        let share = (time / self.client.endpoints_count()).max(ATTEMPT_MIN);
        self.client.set_connect_timeout(self.options.connect_timeout.min(share));
        // A socket that does not take it is found broken by the call.
        drop(self.client.set_request_timeout(self.options.request_timeout.min(time)));
    }

    fn keep_alive(&mut self, leases: &[i64], time: Duration) {
        self.limit(time);
        let sent = Instant::now();
        match self.client.lease_keep_alive(leases) {
            Ok(result) => {
                self.failures = 0;
                let mut gone = Vec::new();
                let mut kept = self.shared.lock();
                for (lease, ttl) in leases.iter().zip(result.ttls) {
                    if ttl.is_zero() {
                        kept.lose(*lease, LeaseLoss::Gone);
                        gone.push(*lease);
                    } else {
                        kept.renew(*lease, ttl, sent);
                    }
                }
                drop(kept);
                self.tell(&gone, LeaseLoss::Gone);
            }
            Err(_) => {
                // Whatever it was, another server may do better, and time is short.
                self.client.leave();
                let pause = self.pause();
                let now = Instant::now();
                let mut kept = self.shared.lock();
                for lease in leases {
                    let ttl = kept.leases.get(lease).map_or(RETRY_MAX, |entry| entry.ttl);
                    kept.set_due(*lease, now + pause.min(ttl / 20));
                }
            }
        }
    }

    /// How long to wait behind a failure: longer each time.
    fn pause(&mut self) -> Duration {
        self.failures = (self.failures + 1).min(8);
        (Duration::from_millis(10) * 2_u32.pow(self.failures - 1)).min(RETRY_MAX)
    }

    fn delete(&mut self, key: &[u8], target: CompareTarget, number: i64) -> Result<(), Error> {
        let compare = Compare::number(key, target, CompareResult::Equal, number);
        let txn = Txn::new().when(compare).then(Op::DeleteRange(DeleteRange::one(key)));
        self.client.txn(&txn).map(drop)
    }

    fn work(&mut self, chore: Chore, time: Duration) {
        self.limit(time);
        let result = match &chore.what {
            Work::Revoke(lease) => match self.client.lease_revoke(*lease) {
                Err(Error::Refused(why)) if why.status == Status::LeaseNotFound => Ok(()),
                result => result.map(drop),
            },
            Work::Delete { key, create_revision } => {
                self.delete(key, CompareTarget::CreateRevision, *create_revision)
            }
            Work::DeleteOf { key, lease } => self.delete(key, CompareTarget::Lease, *lease),
        };
        // Each may be done twice.
        if result.is_err() {
            self.client.leave();
            let pause = self.pause();
            let mut kept = self.shared.lock();
            let now = Instant::now();
            if now + pause < chore.deadline {
                kept.chores.push_back(chore);
                // A keep-alive may be due sooner than the pause ends.
                let due =
                    kept.due.first().map_or(pause, |(due, _)| due.saturating_duration_since(now));
                drop(self.shared.work.wait_timeout(kept, pause.min(due)));
            }
        } else {
            self.failures = 0;
        }
    }
}

/// A lease that a [`LeaseKeeper`] keeps alive: what locks, elections and registrations hang on.
///
/// Dropped, it is revoked in the background, and the keys that hang on it go. One that was lost is left to
/// its time, which is about to be up on the servers too: whoever learns of the loss need not wait for them.
#[derive(Debug)]
pub struct KeptLease {
    keeper: LeaseKeeper,
    lease: i64,
    ttl: Duration,
    /// It is not revoked when this value goes.
    is_released: bool,
}

impl KeptLease {
    /// Makes a lease and has it kept alive.
    ///
    /// Errors: those of [`Client::lease_grant`].
    pub fn grant(client: &mut Client, keeper: &LeaseKeeper, ttl: Duration) -> Result<Self, Error> {
        let end = Instant::now() + client.options().request_timeout;
        let (granted, since) = loop {
            let since = Instant::now();
            match client.lease_grant(0, ttl) {
                // If it was made it ends by itself, and nothing hangs on it.
                Err(Error::OutcomeUnknown { .. }) if since < end => {}
                granted => break (granted?, since),
            }
        };
        keeper.keep(granted.lease, granted.ttl, since);
        let LeaseGrantResult { lease, ttl, .. } = granted;
        Ok(Self { keeper: keeper.clone(), lease, ttl, is_released: false })
    }

    /// The id of the lease.
    pub fn id(&self) -> i64 {
        self.lease
    }

    /// How long it lives without being kept alive.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Who keeps it.
    pub fn keeper(&self) -> &LeaseKeeper {
        &self.keeper
    }

    /// True as long as the servers cannot have ended it, unless somebody revoked it. What that does not
    /// say: see [`LeaseKeeper`].
    pub fn is_valid(&self) -> bool {
        self.keeper.is_valid(self.lease)
    }

    /// Until when it is valid if no further keep-alive is answered; none: it is not valid.
    pub fn valid_until(&self) -> Option<Instant> {
        self.keeper.valid_until(self.lease)
    }

    /// Waits until it is lost, for at most so long. None: it is not.
    pub fn wait_lost(&self, timeout: Duration) -> Option<LeaseLoss> {
        self.keeper.wait_lost(self.lease, timeout)
    }

    /// Revokes it now.
    ///
    /// Errors: those of [`Client::lease_revoke`]; the lease is not kept alive any longer all the same.
    pub fn end(mut self, client: &mut Client) -> Result<LeaseRevokeResult, Error> {
        self.is_released = true;
        self.keeper.forget(self.lease);
        let result = client.lease_revoke(self.lease);
        if matches!(&result, Err(error) if error.refusal().is_none()) {
            self.keeper.enqueue(Work::Revoke(self.lease));
        }
        result
    }

    /// Does not keep it alive any longer and does not revoke it: it lives on for its time.
    pub fn leave(mut self) -> i64 {
        self.is_released = true;
        self.keeper.forget(self.lease);
        self.lease
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        if !self.is_released && self.is_valid() {
            self.keeper.forget(self.lease);
            self.keeper.enqueue(Work::Revoke(self.lease));
        }
    }
}
