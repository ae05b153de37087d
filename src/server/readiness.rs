//! Waiting for the sockets of one reactor: all of them in one epoll set, and that set in glommio.
//!
//! A poll of glommio's own for every socket costs a submission, a completion and, when bytes arrive
//! while the core is busy, an interrupt of that core, all for each request. One poll for the set is
//! armed once a turn, and which sockets are ready is then one call for all of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

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

/// The set of sockets of one reactor.
pub struct Readiness {
    set: OwnedFd,
    /// The wait that is armed in glommio, if one is.
    armed: Option<UnixStream>,
    /// The armed wait has ended and nobody has looked since.
    fired: bool,
    events: Vec<epoll::Event>,
}

impl Readiness {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { set, armed: None, fired: false, events: Vec::with_capacity(READY_MAX) })
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

    /// Whether a socket of the set may be ready; arms the wait when it is not, so that the task of
    /// `context` is woken.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.fired {
            return Poll::Ready(());
        }
        let Some(mut stream) = self.armed.take().or_else(|| arm(self.set.as_fd())) else {
            // No descriptor is left for the wait: look without one until there is.
            self.fired = true;
            return Poll::Ready(());
        };
        match Pin::new(&mut stream).poll_read(context, &mut [0]) {
            // The wait is over; the read that followed it is refused, for the set is no socket.
            Poll::Ready(_) => {
                self.fired = true;
                Poll::Ready(())
            }
            Poll::Pending => {
                self.armed = Some(stream);
                Poll::Pending
            }
        }
    }

    /// The sockets that are ready, if the wait has ended since the last look.
    pub fn take(&mut self, ready: &mut Vec<Ready>) {
        if !std::mem::replace(&mut self.fired, false) {
            return;
        }
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

/// Starts a wait for the set.
///
/// glommio waits for descriptors only inside its streams: one that is made from a descriptor polls it
/// at once, and its first read waits for that poll.
#[allow(unsafe_code)]
fn arm(set: BorrowedFd<'_>) -> Option<UnixStream> {
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
