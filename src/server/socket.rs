//! The sockets of one reactor: accept, read, write, close.
//!
//! Each connection has a read task on glommio; writes go straight from the core loop to the socket,
//! one system call per connection and turn, and only what the socket refuses is left to a task. The
//! two halves are two descriptors of one socket.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use base::ConnectionId;
use base::limits::CONNECTIONS_MAX;
use bytes::BytesMut;
use futures_lite::AsyncReadExt;
use glommio::net::TcpStream;
use node::{CloseReason, ReactorEvent};

use crate::inbox::Inbox;

/// Bytes of a receive chunk: doubles while a peer fills it, up to the second figure.
const CHUNK_SIZE_MIN: usize = 16 << 10;
const CHUNK_SIZE_MAX: usize = 256 << 10;

/// How often a slow connection that takes bytes is reported as alive.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Lets the read task of a connection sleep while the reactor does not want its bytes.
#[derive(Default)]
struct Gate {
    closed: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.closed.set(closed);
        if !closed && let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn pass(&self) {
        poll_fn(|context| {
            if self.closed.get() {
                self.waker.set(Some(context.waker().clone()));
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

/// The sending half of a connection. A write task works on `unsent` while `writing` is set.
struct Outgoing {
    stream: StdStream,
    /// What the socket refused to take, in order.
    unsent: Cell<VecDeque<Vec<u8>>>,
    writing: Cell<bool>,
    closing: Cell<bool>,
}

impl Outgoing {
    /// Writes what the socket takes; returns how much that was, or that the connection is over.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match (&self.stream).write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    // The read task sees the same and reports the end.
                    self.shut_down();
                    return Err(error);
                }
            }
        }
        Ok(sent)
    }

    fn shut_down(&self) {
        // A socket that is gone already needs no shutdown.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Puts bytes behind what is unsent.
    fn queue(&self, bytes: Vec<u8>) {
        let mut unsent = self.unsent.take();
        unsent.push_back(bytes);
        self.unsent.set(unsent);
    }

    /// Sends what is unsent until nothing is left or the connection is over.
    async fn drain(&self, connection: ConnectionId, inbox: &Inbox) {
        let mut told = Instant::now();
        loop {
            let mut unsent = self.unsent.take();
            let front = unsent.pop_front();
            self.unsent.set(unsent);
            let Some(bytes) = front else {
                self.writing.set(false);
                if self.closing.get() {
                    self.shut_down();
                }
                return;
            };
            let mut sent = 0;
            while sent < bytes.len() {
                match self.write(&bytes[sent..]) {
                    Ok(0) => {
                        // glommio offers no wait for writability of this descriptor; a full socket
                        // buffer takes its reader longer than this to empty.
                        glommio::timer::sleep(Duration::from_millis(1)).await;
                    }
                    Ok(count) => {
                        sent += count;
                        if told.elapsed() > PROGRESS_INTERVAL {
                            told = Instant::now();
                            inbox.push_reactor(ReactorEvent::Progressed { connection });
                        }
                    }
                    Err(_) => {
                        self.unsent.take();
                        return;
                    }
                }
            }
        }
    }
}

struct Socket {
    outgoing: Rc<Outgoing>,
    gate: Rc<Gate>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

/// All sockets of one reactor. Owned by its core loop.
pub struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    connections_max: usize,
}

impl Sockets {
    /// None yet, and at most so many.
    pub fn new(connections_max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), connections_max }
    }

    /// Takes an accepted socket in: its read task runs from here on.
    pub fn add(&mut self, stream: TcpStream, inbox: &Rc<Inbox>) -> io::Result<()> {
        stream.set_nodelay(true).map_err(io::Error::from)?;
        let writer = duplicate(&stream)?;
        writer.set_nonblocking(true)?;
        let gate = Rc::new(Gate::default());
        let outgoing = Rc::new(Outgoing {
            stream: writer,
            unsent: Cell::default(),
            writing: Cell::default(),
            closing: Cell::default(),
        });
        let Some(connection) = self.insert(Socket { outgoing, gate: Rc::clone(&gate) }) else {
            return Err(io::Error::other(format!(
                "{} connections are open, and that is the limit (at most {CONNECTIONS_MAX}, and half \
                 of what 'ulimit -n' leaves)",
                self.connections_max
            )));
        };
        inbox.push_reactor(ReactorEvent::Accepted { connection });
        let inbox = Rc::clone(inbox);
        glommio::spawn_local(async move {
            read(stream, connection, &gate, &inbox).await;
            inbox.push_reactor(ReactorEvent::Closed { connection });
        })
        .detach();
        Ok(())
    }

    fn insert(&mut self, socket: Socket) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.connections_max => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).expect("connections are bounded")
            }
            None => return None,
        };
        let entry = &mut self.slots[usize::try_from(slot).expect("a slot fits usize")];
        entry.generation = entry.generation.wrapping_add(1);
        entry.socket = Some(socket);
        Some(ConnectionId { slot, generation: entry.generation })
    }

    fn socket(&self, connection: ConnectionId) -> Option<&Socket> {
        let slot = self.slots.get(usize::try_from(connection.slot).ok()?)?;
        if slot.generation == connection.generation { slot.socket.as_ref() } else { None }
    }

    /// Forgets a connection whose read task has ended.
    pub fn remove(&mut self, connection: ConnectionId) {
        if let Some(socket) = self.socket(connection) {
            // What nobody reads any more is not sent: a write task that waits ends here.
            socket.outgoing.shut_down();
            let slot = usize::try_from(connection.slot).expect("a slot fits usize");
            self.slots[slot].socket = None;
            self.free.push(connection.slot);
        }
    }

    /// Sends bytes: at once as far as the socket takes them, the rest by a task.
    pub fn send(&self, connection: ConnectionId, mut bytes: Vec<u8>, inbox: &Rc<Inbox>) {
        let Some(Socket { outgoing, .. }) = self.socket(connection) else { return };
        if outgoing.closing.get() {
            return;
        }
        if outgoing.writing.get() {
            outgoing.queue(bytes);
            return;
        }
        let Ok(sent) = outgoing.write(&bytes) else { return };
        if sent == bytes.len() {
            return;
        }
        bytes.drain(..sent);
        outgoing.queue(bytes);
        outgoing.writing.set(true);
        inbox.push_reactor(ReactorEvent::Blocked { connection });
        let (outgoing, inbox) = (Rc::clone(outgoing), Rc::clone(inbox));
        glommio::spawn_local(async move {
            outgoing.drain(connection, &inbox).await;
            inbox.push_reactor(ReactorEvent::Drained { connection });
        })
        .detach();
    }

    /// Stops or resumes reading.
    pub fn set_paused(&self, connection: ConnectionId, paused: bool) {
        if let Some(socket) = self.socket(connection) {
            socket.gate.set(paused);
        }
    }

    /// Closes a connection: at once, or when what was sent has gone out.
    pub fn close(&self, connection: ConnectionId, reason: CloseReason) {
        let Some(socket) = self.socket(connection) else { return };
        socket.gate.set(false);
        socket.outgoing.closing.set(true);
        match reason {
            CloseReason::SlowReader => socket.outgoing.shut_down(),
            CloseReason::Protocol | CloseReason::HandshakeTimeout | CloseReason::Stopping => {
                if !socket.outgoing.writing.get() {
                    socket.outgoing.shut_down();
                }
            }
        }
    }
}

/// A second descriptor of the same socket.
#[allow(unsafe_code)]
fn duplicate(stream: &TcpStream) -> io::Result<StdStream> {
    // SAFETY: `stream` owns the descriptor and outlives this borrow, which ends with the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    Ok(StdStream::from(borrowed.try_clone_to_owned()?))
}

/// Moves bytes from the socket to the reactor until the peer is gone.
async fn read(mut stream: TcpStream, connection: ConnectionId, gate: &Gate, inbox: &Inbox) {
    let mut chunk_size = CHUNK_SIZE_MIN;
    let mut chunk = BytesMut::new();
    loop {
        gate.pass().await;
        if chunk.len() < chunk_size / 8 {
            // Frames cut from the old chunk keep it alive; it is never written again.
            chunk = BytesMut::zeroed(chunk_size);
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if count == chunk.len() && chunk_size < CHUNK_SIZE_MAX {
                    chunk_size *= 2;
                }
                let bytes = chunk.split_to(count);
                inbox.push_reactor(ReactorEvent::Received { connection, bytes });
            }
        }
    }
}
