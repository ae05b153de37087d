//! Waiting for the sockets of one reactor: all of them in one epoll set, and that set in glommio.
//!
//! A poll of glommio's own for every socket costs a submission, a completion and, when bytes arrive
//! while the core is busy, an interrupt of that core, all for each request. One poll for the set is
//! armed once a turn, and which sockets are ready is then one call for all of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use base::ConnectionId;
use futures_lite::AsyncRead;
use glommio::net::UnixStream;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

/// Sockets told of by one look at the set; those beyond come with the next.
const READY_MAX: usize = 1_024;

/// What is waited for on a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interest {
    /// Bytes to read, or the end of the stream.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// A socket that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Whose.
    pub connection: ConnectionId,
    /// There is something to read, the end and errors included.
    pub read: bool,
    /// There is room to write, or an error to meet by writing.
    pub write: bool,
    /// Both directions are over, whatever is waited for.
    pub over: bool,
}

/// Wakes the core loop when the armed wait is over, and remembers that it was this.
#[derive(Default)]
struct Alarm {
    rung: AtomicBool,
    sleeper: Mutex<Option<Waker>>,
}

impl Alarm {
    fn sleeper(&self) -> MutexGuard<'_, Option<Waker>> {
        // One thread, and nothing panics while it holds the lock.
        self.sleeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Relaxed);
        if let Some(sleeper) = self.sleeper().take() {
            sleeper.wake();
        }
    }
}

/// The set of sockets of one reactor.
pub struct Readiness {
    set: OwnedFd,
    /// The wait that is armed in glommio, or was the last to be.
    wait: Option<UnixStream>,
    armed: bool,
    alarm: Arc<Alarm>,
    /// A socket may be ready, and nobody has looked since.
    fired: bool,
    events: Vec<epoll::Event>,
}

impl Readiness {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = Vec::with_capacity(READY_MAX);
        Ok(Self { set, wait: None, armed: false, alarm: Arc::default(), fired: false, events })
    }

    /// Takes a socket into the set.
    pub fn add(
        &self,
        socket: BorrowedFd<'_>,
        connection: ConnectionId,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.set, socket, data(connection), interest.flags())?)
    }

    /// Waits for something else on a socket of the set.
    pub fn change(&self, socket: BorrowedFd<'_>, connection: ConnectionId, interest: Interest) {
        epoll::modify(&self.set, socket, data(connection), interest.flags())
            .expect("the socket is in the set, and changing it needs no memory");
    }

    /// Takes a socket out of the set.
    pub fn remove(&self, socket: BorrowedFd<'_>) {
        epoll::delete(&self.set, socket).expect("the socket is in the set");
    }

    /// Whether a socket of the set may be ready; arms the wait when it is not, so that the task of
    /// `context` is woken.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.fired |= self.alarm.rung.swap(false, Ordering::Relaxed);
        if self.fired {
            return Poll::Ready(());
        }
        *self.alarm.sleeper() = Some(context.waker().clone());
        if !self.armed && !self.arm() {
            // Ready by now; or no descriptor is left, and looking without a wait is the way to go on.
            self.fired = true;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Starts a wait for the set; false if that is not to be waited for.
    ///
    /// glommio waits for descriptors only inside its streams: one that is made from a descriptor polls
    /// it at once, and the waker of its first read is woken when that poll ends.
    fn arm(&mut self) -> bool {
        let Some(mut stream) = stream_of(self.set.as_fd()) else { return false };
        let waker = Waker::from(Arc::clone(&self.alarm));
        let read = Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut [0]);
        self.wait = Some(stream);
        self.armed = read.is_pending();
        self.armed
    }

    /// The sockets that are ready, if the wait has ended since the last look.
    pub fn take(&mut self, ready: &mut Vec<Ready>) {
        if !std::mem::replace(&mut self.fired, false) {
            return;
        }
        self.armed = false;
        self.events.clear();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // A signal may interrupt; what was ready stays so and ends the next wait.
        let _count = epoll::wait(&self.set, spare_capacity(&mut self.events), Some(&now));
        for event in &self.events {
            let flags = event.flags;
            let over = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            ready.push(Ready {
                connection: connection(event.data),
                read: flags.contains(epoll::EventFlags::IN),
                write: flags.contains(epoll::EventFlags::OUT),
                over,
            });
        }
    }
}

/// A second descriptor of the set as a stream of glommio's, which polls it from now on.
#[allow(unsafe_code)]
fn stream_of(set: BorrowedFd<'_>) -> Option<UnixStream> {
    let descriptor = set.try_clone_to_owned().ok()?;
    // SAFETY: the descriptor is open and owned by nobody else; the stream closes it. That it is no
    // socket is met by an error of the system call that reads, never by memory.
    Some(unsafe { UnixStream::from_raw_fd(descriptor.into_raw_fd()) })
}

fn data(connection: ConnectionId) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(connection.generation) << 32 | u64::from(connection.slot))
}

fn connection(data: epoll::EventData) -> ConnectionId {
    let wide = data.u64();
    let half = |wide: u64| u32::try_from(wide & u64::from(u32::MAX)).expect("masked to 32 bits");
    ConnectionId { slot: half(wide), generation: half(wide >> 32) }
}
