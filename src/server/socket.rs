//! The sockets of one reactor: accept, read, write, close.
//!
//! Reads and writes go straight between the core loop and the sockets, one system call per
//! connection and turn. Which sockets are ready is learnt from [`Readiness`]; what a socket refuses
//! to take waits here until it has room.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base::ConnectionId;
use base::limits::{CONNECTIONS_MAX, RECEIVE_CHUNK_SIZE};
use bytes::{BufMut, BytesMut};
use glommio::net::TcpStream;
use node::{CloseReason, ConsensusEvent, ReactorEvent};
use rustix::net::RecvFlags;

use crate::http::Native;
use crate::readiness::{Interest, Readiness, Ready};

/// A read is offered at least this much room; with less left the next chunk begins.
const READ_SIZE_MIN: usize = 16 << 10;

/// Chunks kept for use again once the frames cut from them are gone.
const CHUNKS_KEPT_MAX: usize = 8;

/// How often a slow connection that takes bytes is reported as alive.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// What happens to a socket.
#[derive(Debug)]
pub enum SocketEvent {
    /// Bytes came in.
    Received {
        /// From whom.
        connection: ConnectionId,
        /// The bytes.
        bytes: BytesMut,
    },
    /// The peer sends nothing more.
    Ended {
        /// Who.
        connection: ConnectionId,
    },
    /// The peer has gone, or the socket failed.
    Closed {
        /// Who.
        connection: ConnectionId,
    },
    /// A blocked socket has taken some bytes.
    Progressed {
        /// Whose.
        connection: ConnectionId,
    },
    /// A socket has taken all that was sent.
    Drained {
        /// Whose.
        connection: ConnectionId,
    },
}

impl From<SocketEvent> for ReactorEvent {
    fn from(event: SocketEvent) -> Self {
        match event {
            SocketEvent::Received { connection, bytes } => Self::Received { connection, bytes },
            SocketEvent::Ended { connection } => Self::Ended { connection },
            SocketEvent::Closed { connection } => Self::Closed { connection },
            SocketEvent::Progressed { connection } => Self::Progressed { connection },
            SocketEvent::Drained { connection } => Self::Drained { connection },
        }
    }
}

impl From<SocketEvent> for ConsensusEvent {
    fn from(event: SocketEvent) -> Self {
        match event {
            SocketEvent::Received { connection: link, bytes } => Self::LinkReceived { link, bytes },
            // Members never end one direction only.
            SocketEvent::Ended { connection: link } | SocketEvent::Closed { connection: link } => {
                Self::LinkClosed { link }
            }
            SocketEvent::Progressed { connection: link } => {
                Self::LinkBlocked { link, blocked: true }
            }
            SocketEvent::Drained { connection: link } => Self::LinkBlocked { link, blocked: false },
        }
    }
}

/// A connection that began as HTTP does: with a method, or with the preface of HTTP/2.
pub struct Stranger {
    /// Its socket.
    pub stream: StdStream,
    /// What it has sent.
    pub bytes: BytesMut,
}

struct Socket {
    stream: StdStream,
    /// Something has come.
    heard: bool,
    /// What the socket refused to take, in order.
    unsent: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that it has taken since.
    sent: usize,
    /// When its progress was last reported.
    told: Option<Instant>,
    /// The reactor does not want its bytes.
    paused: bool,
    /// To be shut down when all is sent.
    closing: bool,
    /// Its peer sends nothing more; that was reported. It may still read.
    ended: bool,
    /// Its end was reported: nothing more comes from it.
    over: bool,
}

impl Socket {
    fn interest(&self) -> Interest {
        Interest { read: !(self.paused || self.ended || self.over), write: !self.unsent.is_empty() }
    }

    /// Writes what the socket takes; returns how much that was, or that the connection is over.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match (&self.stream).write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    // The next look at the socket sees the same and reports the end.
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

    /// Sends what is unsent until nothing is left, the socket is full or the connection is over.
    /// Returns whether it took anything.
    fn drain(&mut self) -> bool {
        let mut took = false;
        while let Some(bytes) = self.unsent.front() {
            let Ok(count) = self.write(&bytes[self.sent..]) else {
                self.unsent.clear();
                return false;
            };
            took |= count > 0;
            self.sent += count;
            if self.sent < bytes.len() {
                return took;
            }
            self.unsent.pop_front();
            self.sent = 0;
        }
        took
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
    /// In place of a socket: a connection inside this process.
    native: Option<Rc<Native>>,
}

/// All sockets of one reactor. Owned by its core loop.
pub struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    connections_max: usize,
    /// Those that speak HTTP are set aside, where others do not.
    strangers: Option<Vec<Stranger>>,
    /// Connections inside this process whose answers nobody takes at present, and when that was
    /// last told as progress: their users are here and may take as long as they want.
    held: Vec<ConnectionId>,
    held_told: Instant,
    readiness: Readiness,
    ready: Vec<Ready>,
    /// Empty, with room behind it: where the next read goes.
    chunk: BytesMut,
    /// Chunks without room, oldest first, the frames cut from them perhaps still in use.
    chunks: VecDeque<BytesMut>,
}

impl Sockets {
    /// None yet, and at most so many; with those apart that speak HTTP, or without a look at that.
    pub fn new(connections_max: usize, with_http: bool) -> io::Result<Self> {
        Ok(Self {
            slots: Vec::new(),
            free: Vec::new(),
            connections_max,
            strangers: with_http.then(Vec::new),
            held: Vec::new(),
            held_told: Instant::now(),
            readiness: Readiness::new()?,
            ready: Vec::new(),
            chunk: BytesMut::new(),
            chunks: VecDeque::new(),
        })
    }

    /// Whether a socket may be ready; wakes the task of `context` when one is.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.readiness.poll(context)
    }

    /// Takes a socket in.
    pub fn add(&mut self, stream: &TcpStream) -> io::Result<ConnectionId> {
        let stream = duplicate(stream)?;
        hurry(&stream)?;
        stream.set_nonblocking(true)?;
        let Some(connection) = self.vacancy() else {
            return Err(io::Error::other(format!(
                "{} connections are open, and that is the limit (at most {CONNECTIONS_MAX}, and \
                 what 'ulimit -n' leaves beside the files of the server)",
                self.connections_max
            )));
        };
        let socket = Socket {
            stream,
            heard: false,
            unsent: VecDeque::new(),
            sent: 0,
            told: None,
            paused: false,
            closing: false,
            ended: false,
            over: false,
        };
        if let Err(error) = self.readiness.add(socket.stream.as_fd(), connection, socket.interest())
        {
            self.free.push(connection.slot);
            return Err(error);
        }
        self.slots[index(connection)].socket = Some(socket);
        Ok(connection)
    }

    /// A name for one more connection, or none at the limit.
    fn vacancy(&mut self) -> Option<ConnectionId> {
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
        Some(ConnectionId { slot, generation: entry.generation })
    }

    fn socket(&mut self, connection: ConnectionId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(index(connection))?;
        if slot.generation == connection.generation { slot.socket.as_mut() } else { None }
    }

    /// Reads from and writes to every socket that is ready.
    pub fn work<E: From<SocketEvent>>(&mut self, events: &mut Vec<E>) {
        if !self.held.is_empty() && self.held_told.elapsed() > PROGRESS_INTERVAL {
            self.held_told = Instant::now();
            let mut held = mem::take(&mut self.held);
            held.retain(|held| self.native(*held).is_some_and(|native| native.is_blocked()));
            let told = held.iter().map(|held| SocketEvent::Progressed { connection: *held }.into());
            events.extend(told);
            self.held = held;
        }
        let mut ready = mem::take(&mut self.ready);
        self.readiness.take(&mut ready);
        for ready in ready.drain(..) {
            if ready.write {
                self.drain(ready.connection, events);
            }
            if ready.read || ready.over {
                self.read(ready, events);
            }
        }
        self.ready = ready;
    }

    fn read<E: From<SocketEvent>>(&mut self, ready: Ready, events: &mut Vec<E>) {
        let connection = ready.connection;
        let Some(socket) = self.socket(connection) else { return };
        let is_deaf = socket.paused || socket.ended;
        if socket.over || (is_deaf && !ready.over) {
            return;
        }
        // What a connection that is over sent before is of no use: nobody could be answered.
        let over = is_deaf || {
            self.make_room();
            let socket = self.slots[index(connection)].socket.as_ref().expect("just seen");
            match receive(&socket.stream, &mut self.chunk) {
                Ok(0) if !ready.over => {
                    let socket = self.slots[index(connection)].socket.as_mut();
                    socket.expect("just seen").ended = true;
                    self.changed(connection);
                    events.push(SocketEvent::Ended { connection }.into());
                    false
                }
                Ok(0) => true,
                Ok(_) => {
                    let bytes = self.chunk.split();
                    if self.is_stranger(connection, &bytes) {
                        self.set_aside(connection, bytes);
                        events.push(SocketEvent::Closed { connection }.into());
                        return;
                    }
                    events.push(SocketEvent::Received { connection, bytes }.into());
                    false
                }
                Err(error) => {
                    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
                }
            }
        };
        if over {
            let socket = self.slots[index(connection)].socket.as_mut().expect("just seen");
            socket.over = true;
            events.push(SocketEvent::Closed { connection }.into());
        }
    }

    /// Whether the first bytes of a connection are those of HTTP.
    fn is_stranger(&mut self, connection: ConnectionId, bytes: &[u8]) -> bool {
        let socket = self.slots[index(connection)].socket.as_mut().expect("it was just read from");
        let is_first = !mem::replace(&mut socket.heard, true);
        // CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE, and the preface of HTTP/2. None begins
        // as the native protocol does.
        let begins_a_method =
            matches!(bytes.first(), Some(b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'T'));
        self.strangers.is_some() && is_first && begins_a_method
    }

    fn set_aside(&mut self, connection: ConnectionId, bytes: BytesMut) {
        let slot = &mut self.slots[index(connection)];
        let Some(Socket { stream, .. }) = slot.socket.take() else { return };
        self.free.push(connection.slot);
        self.readiness.remove(stream.as_fd());
        if let Some(strangers) = &mut self.strangers {
            strangers.push(Stranger { stream, bytes });
        }
    }

    /// Connections that speak HTTP, since the last call.
    pub fn take_strangers(&mut self) -> Vec<Stranger> {
        self.strangers.as_mut().map_or_else(Vec::new, mem::take)
    }

    /// Looks at a connection inside this process: it is accepted, asks, or has ended.
    pub fn attend<E: From<SocketEvent>>(
        &mut self,
        native: &Rc<Native>,
        accepted: impl FnOnce(ConnectionId) -> E,
        events: &mut Vec<E>,
    ) {
        let look = native.look();
        let connection = match look.connection {
            Some(connection) => connection,
            None if look.is_left => return,
            None => {
                let Some(connection) = self.vacancy() else { return native.close() };
                self.slots[index(connection)].native = Some(Rc::clone(native));
                native.accept(connection);
                events.push(accepted(connection));
                connection
            }
        };
        let slot = &self.slots[index(connection)];
        if slot.generation != connection.generation || slot.native.is_none() {
            return;
        }
        if !look.output.is_empty() {
            events.push(SocketEvent::Received { connection, bytes: look.output }.into());
        }
        if look.is_drained {
            events.push(SocketEvent::Drained { connection }.into());
        }
        if look.is_left {
            events.push(SocketEvent::Closed { connection }.into());
        }
    }

    fn native(&self, connection: ConnectionId) -> Option<&Rc<Native>> {
        let slot = self.slots.get(index(connection))?;
        if slot.generation == connection.generation { slot.native.as_ref() } else { None }
    }

    /// Makes room for a read in the chunk.
    fn make_room(&mut self) {
        if self.chunk.capacity() >= READ_SIZE_MIN {
            return;
        }
        self.chunks.push_back(mem::take(&mut self.chunk));
        let free =
            self.chunks.front_mut().is_some_and(|chunk| chunk.try_reclaim(RECEIVE_CHUNK_SIZE));
        let oldest = if free || self.chunks.len() > CHUNKS_KEPT_MAX {
            self.chunks.pop_front()
        } else {
            None
        };
        self.chunk = match oldest {
            Some(chunk) if free => chunk,
            // Frames cut from it keep its memory until they are gone.
            Some(_) | None => BytesMut::with_capacity(RECEIVE_CHUNK_SIZE),
        };
    }

    fn drain<E: From<SocketEvent>>(&mut self, connection: ConnectionId, events: &mut Vec<E>) {
        let Some(socket) = self.socket(connection) else { return };
        if socket.unsent.is_empty() {
            return;
        }
        let took = socket.drain();
        if socket.unsent.is_empty() {
            socket.told = None;
            if socket.closing {
                socket.shut_down();
            }
            self.changed(connection);
            events.push(SocketEvent::Drained { connection }.into());
        } else if took && socket.told.is_none_or(|told| told.elapsed() > PROGRESS_INTERVAL) {
            socket.told = Some(Instant::now());
            events.push(SocketEvent::Progressed { connection }.into());
        }
    }

    /// Tells the set what is waited for on a socket now.
    fn changed(&mut self, connection: ConnectionId) {
        if let Some(socket) = self.slots[index(connection)].socket.as_ref() {
            self.readiness.change(socket.stream.as_fd(), connection, socket.interest());
        }
    }

    /// Forgets a connection whose end was reported.
    pub fn remove(&mut self, connection: ConnectionId) {
        if let Some(native) = self.native(connection) {
            native.close();
            self.slots[index(connection)].native = None;
            self.free.push(connection.slot);
        }
        if let Some(socket) = self.socket(connection) {
            socket.shut_down();
            self.slots[index(connection)].socket = None;
            self.free.push(connection.slot);
        }
    }

    /// Sends bytes: at once as far as the socket takes them, the rest when it has room. Returns whether
    /// it is blocked by this.
    pub fn send(&mut self, connection: ConnectionId, bytes: Vec<u8>) -> bool {
        if let Some(native) = self.native(connection) {
            let is_blocked = native.deliver(bytes);
            if is_blocked && !self.held.contains(&connection) {
                self.held.push(connection);
            }
            return is_blocked;
        }
        let Some(socket) = self.socket(connection) else { return false };
        if socket.closing || socket.over {
            return false;
        }
        if !socket.unsent.is_empty() {
            socket.unsent.push_back(bytes);
            return false;
        }
        let Ok(sent) = socket.write(&bytes) else { return false };
        if sent == bytes.len() {
            return false;
        }
        socket.unsent.push_back(bytes);
        socket.sent = sent;
        self.changed(connection);
        true
    }

    /// Stops or resumes reading.
    pub fn set_paused(&mut self, connection: ConnectionId, paused: bool) {
        if let Some(socket) = self.socket(connection) {
            socket.paused = paused;
            self.changed(connection);
        }
    }

    /// Closes a connection: at once, or when what was sent has gone out.
    pub fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        if let Some(native) = self.native(connection) {
            // Its end is told to the reactor once its user has left it.
            return native.close();
        }
        let Some(socket) = self.socket(connection) else { return };
        // Its end is told without being asked for; what it still sends is of no use.
        socket.paused = true;
        socket.closing = true;
        match reason {
            CloseReason::SlowReader => {
                socket.unsent.clear();
                socket.shut_down();
            }
            CloseReason::Protocol
            | CloseReason::HandshakeTimeout
            | CloseReason::PartialFrame
            | CloseReason::Finished
            | CloseReason::Stopping => {
                if socket.unsent.is_empty() {
                    socket.shut_down();
                }
            }
        }
        self.changed(connection);
    }
}

fn index(connection: ConnectionId) -> usize {
    usize::try_from(connection.slot).expect("a slot fits usize")
}

/// Reads once into the room of `chunk`.
#[allow(unsafe_code)]
fn receive(stream: &StdStream, chunk: &mut BytesMut) -> io::Result<usize> {
    let room = chunk.spare_capacity_mut();
    let ((received, _), _) = rustix::net::recv(stream, room, RecvFlags::empty())?;
    let count = received.len();
    // SAFETY: the system call has written that many bytes at the front of the room.
    unsafe { chunk.advance_mut(count) };
    Ok(count)
}

/// Small answers do not wait for more. Between processes of one machine nothing waits anyway.
pub fn hurry(stream: &StdStream) -> io::Result<()> {
    match stream.set_nodelay(true) {
        Err(_) if is_unix(stream) => Ok(()),
        result => result,
    }
}

/// Whether the other side is a process of this machine, over a path of its file system.
pub fn is_unix(stream: &StdStream) -> bool {
    let family = rustix::net::sockopt::socket_domain(stream);
    family.is_ok_and(|family| family == rustix::net::AddressFamily::UNIX)
}

/// A second descriptor of the same socket, for a stream that glommio does not know.
#[allow(unsafe_code)]
pub fn duplicate(stream: &TcpStream) -> io::Result<StdStream> {
    // SAFETY: `stream` owns the descriptor and outlives this borrow, which ends with the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    Ok(StdStream::from(borrowed.try_clone_to_owned()?))
}
