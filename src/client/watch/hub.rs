//! A connection for watches and the thread that reads from it.
//!
//! ```text
//! users ── open, take, cancel ──► table ◄── replies ── thread ◄── socket
//!                                   │ output                        ▲
//!                                   └────────── flush ──────────────┘ whoever has queued something
//! ```
//!
//! Locks: `writer` before `table`, and nobody writes to the socket with the table locked.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::table::{Broken, WatchTable};
use super::watcher::{WatchId, Watcher};
use super::{WatchEnd, WatchOptions, WatchPosition};
use crate::client::{Client, Options};
use crate::connection::{Parts, is_timeout};
use crate::error::Error;

/// Bytes of events that wait for their takers before the socket is not read any further.
const BUFFER_SIZE: usize = 8 << 20;

/// Bytes that one read may bring.
const READ_SIZE: usize = 64 << 10;

/// How long a read waits before the thread looks around.
const READ_STEP: Duration = Duration::from_millis(100);

/// Pauses between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Several watches that share one connection and one thread.
///
/// A server that is lost, or knows no leader for long, is left for the next one in the list; each watch
/// goes on where it was. Only servers of the cluster of the first connection are taken.
///
/// The events of all watches that nobody has taken yet share a bounded buffer. When it is full the
/// connection is not read any further: **who does not take its events holds up all watches of its hub.**
/// Let such a watch have a connection of its own ([`Client::watch`]), or drop it.
///
/// A hub is a handle that can be cloned; the connection ends with the last handle and the last watcher.
#[derive(Clone)]
pub struct WatchHub {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for WatchHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchHub").finish_non_exhaustive()
    }
}

/// Ends the thread when the last user has gone.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    timeout: Duration,
}

pub(super) struct Shared {
    table: Mutex<WatchTable>,
    writer: Mutex<Option<TcpStream>>,
    /// There is room for events, or the hub goes.
    room: Condvar,
    /// A watch has something to tell.
    some: Condvar,
    buffer_size: Mutex<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left behind is whole: nothing here panics between two steps of a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WatchHub {
    /// A hub with a connection to the first endpoint that can be reached.
    ///
    /// Errors: those of [`Client::connect`].
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        options: Options,
    ) -> Result<Self, Error> {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self::of(Client::unconnected(endpoints, options))
    }

    /// The same with the servers of a client that nobody else uses.
    pub(crate) fn of(mut client: Client) -> Result<Self, Error> {
        let first = client.detach()?.into_parts();
        client.expect_cluster(first.server.cluster);
        let timeout = client.options().request_timeout;
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            writer: Mutex::default(),
            room: Condvar::new(),
            some: Condvar::new(),
            buffer_size: Mutex::new(BUFFER_SIZE),
        });
        let handle = Arc::new(Handle { shared: Arc::clone(&shared), timeout });
        // What is opened before the thread has come that far is encoded with the right bounds.
        lock(&shared.table).connected(first.encoder, &first.server);
        let spawned = thread::Builder::new()
            .name("quorate-watch".to_owned())
            .spawn(move || run(&shared, client, first));
        match spawned {
            Ok(_) => Ok(Self { handle }),
            Err(source) => Err(Error::Unreachable { endpoint: "a thread".to_owned(), source }),
        }
    }

    /// Watches keys. Waits until the server has begun, unless the watch begins at a revision that is
    /// named: then it returns at once, and a refusal is how the watch ends.
    ///
    /// Errors: [`Error::Refused`]; [`Error::TimedOut`] if no server begins within the request timeout;
    /// [`Error::CreditsUsed`] with as many watches as a connection may have
    /// ([`CONNECTION_WATCHES_MAX`](base::limits::CONNECTION_WATCHES_MAX)); [`Error::Encode`].
    pub fn watch(&self, options: WatchOptions) -> Result<Watcher, Error> {
        let is_now = options.start == WatchPosition::NEXT;
        let watcher = self.open(options)?;
        if !is_now {
            return Ok(watcher);
        }
        match watcher.created_within(self.handle.timeout) {
            Some(Ok(_)) => Ok(watcher),
            Some(Err(WatchEnd::Refused(refusal))) => Err(Error::Refused(refusal)),
            Some(Err(WatchEnd::Compacted { .. } | WatchEnd::Cancelled)) | None => {
                Err(Error::TimedOut)
            }
        }
    }

    /// The same without waiting: many watches begin sooner. [`Watcher::created_within`] tells when.
    pub fn open(&self, options: WatchOptions) -> Result<Watcher, Error> {
        let waiting = Arc::new(Condvar::new());
        let shared = &self.handle.shared;
        let watch = shared.table().open(options, Arc::clone(&waiting))?;
        shared.flush();
        Ok(Watcher::new(Arc::clone(&self.handle), watch, waiting))
    }

    /// A watch that has something to tell, or has ended; waits for one. For who serves many watches with
    /// one thread: take what there is with [`Watcher::next_within`] and no time at all.
    pub fn ready_within(&self, timeout: Duration) -> Option<WatchId> {
        let deadline = Instant::now().checked_add(timeout);
        let shared = &self.handle.shared;
        let mut table = shared.table();
        loop {
            if let Some(watch) = table.ready() {
                return Some(WatchId(watch));
            }
            table = wait(&shared.some, table, deadline)?;
        }
    }

    /// Why there is no connection at the moment; none if there is one.
    pub fn trouble(&self) -> Option<String> {
        self.handle.shared.table().trouble.clone()
    }

    /// Bytes of events that may wait for their takers before the connection is not read any further.
    /// 8 MiB if nobody says otherwise; the answer that exceeds it is taken in whole.
    pub fn set_buffer_size(&self, size: usize) {
        *lock(&self.handle.shared.buffer_size) = size;
    }
}

/// Waits; none when the time is up. Without a deadline for ever.
pub(super) fn wait<'t>(
    condvar: &Condvar,
    table: MutexGuard<'t, WatchTable>,
    deadline: Option<Instant>,
) -> Option<MutexGuard<'t, WatchTable>> {
    let Some(deadline) = deadline else {
        return Some(condvar.wait(table).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return None;
    }
    let (table, _) = condvar.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner);
    Some(table)
}

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, WatchTable> {
        lock(&self.table)
    }

    /// Sends what is queued. The thread notices a failure.
    pub(super) fn flush(&self) {
        let mut writer = lock(&self.writer);
        let Some(stream) = &mut *writer else { return };
        let output = std::mem::take(&mut self.table().output);
        if !output.is_empty() && stream.write_all(&output).is_err() {
            // It has gone already, or goes with this.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Events have been taken.
    pub(super) fn taken(&self) {
        self.room.notify_one();
    }

    fn lost(&self, trouble: String) {
        let mut writer = lock(&self.writer);
        *writer = None;
        self.table().lost(trouble);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.table().is_stopped = true;
        self.shared.room.notify_all();
        if let Some(stream) = &*lock(&self.shared.writer) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// The thread.
fn run(shared: &Shared, mut client: Client, first: Parts) {
    let mut parts = Some(first);
    let mut backoff = BACKOFF_MIN;
    let mut is_first = true;
    loop {
        let begin = Instant::now();
        let trouble = match parts.take().map_or_else(|| client.detach().map(|c| c.into_parts()), Ok)
        {
            Ok(parts) => {
                let quiet = client.options().request_timeout;
                let trouble = serve(shared, parts, quiet, is_first);
                is_first = false;
                trouble
            }
            Err(error) => error.to_string(),
        };
        shared.lost(trouble);
        if begin.elapsed() > BACKOFF_MAX * 2 {
            backoff = BACKOFF_MIN;
        }
        let table = shared.table();
        if table.is_stopped {
            return;
        }
        // Ends early when the hub goes; that it does so when somebody takes events, too, does no harm.
        let (table, _) =
            shared.room.wait_timeout(table, backoff).unwrap_or_else(PoisonError::into_inner);
        if table.is_stopped {
            return;
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Reads until the connection is of no more use, and says why. The server is asked whether it lives each
/// time that so long has passed; one that is `quiet` for twice as long does not.
fn serve(shared: &Shared, parts: Parts, quiet: Duration, is_first: bool) -> String {
    let Parts { mut stream, server, encoder, mut splitter, mut input } = parts;
    let lost = |reason: &dyn std::fmt::Display| format!("{}: {reason}", server.endpoint);
    let writer = stream
        .set_read_timeout(Some(READ_STEP.min(quiet)))
        .and_then(|()| stream.set_write_timeout(Some(quiet)))
        .and_then(|()| stream.try_clone());
    match writer {
        Ok(writer) => *lock(&shared.writer) = Some(writer),
        Err(error) => return lost(&error),
    }
    if !is_first {
        shared.table().connected(encoder, &server);
    }
    shared.flush();
    let mut chunk = vec![0; READ_SIZE].into_boxed_slice();
    let mut heard = Instant::now();
    let mut probed = heard;
    loop {
        let mut was_full = false;
        let mut table = shared.table();
        loop {
            match splitter.next(&mut input) {
                Ok(Some((header, body))) => match table.receive(&header, &body, heard) {
                    Ok(()) => {}
                    Err(Broken::Protocol(error)) => return lost(&error),
                    Err(Broken::Refused(refusal)) => return lost(&refusal),
                },
                Ok(None) => break,
                Err(error) => return lost(&error),
            }
        }
        shared.some.notify_all();
        if table.leaderless_count >= 2 {
            return lost(&"it knows no leader");
        }
        table.retry(Instant::now());
        let buffer_size = *lock(&shared.buffer_size);
        while table.queued_size >= buffer_size && !table.is_stopped {
            was_full = true;
            table = shared.room.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        if table.is_stopped {
            return lost(&"the hub has gone");
        }
        if was_full {
            // The silence was this side's.
            (heard, probed) = (Instant::now(), Instant::now());
        }
        if heard.elapsed() >= quiet * 2 {
            return lost(&"it does not answer");
        }
        // Also a server that tells things is asked: one without a leader goes on telling what is old.
        if probed.elapsed() >= quiet {
            probed = Instant::now();
            table.probe();
        }
        let has_output = !table.output.is_empty();
        drop(table);
        if has_output {
            shared.flush();
        }
        match stream.read(&mut chunk) {
            Ok(0) => return lost(&std::io::Error::from(ErrorKind::UnexpectedEof)),
            Ok(count) => {
                heard = Instant::now();
                input.reserve(count.max(splitter.missing(&input)));
                input.extend_from_slice(&chunk[..count]);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return lost(&error),
        }
    }
}
