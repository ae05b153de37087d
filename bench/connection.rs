//! One connection of the load generator: a socket, what is in flight on it, and the bytes between.
//!
//! ```text
//!             take_place            send                     receive
//!   free place ---------> in flight -----> socket ... socket --------> free place
//! ```
//!
//! It knows frames, not operations: what was asked and what an answer means is the caller's. A
//! request id is a turn number and a place, so that an answer finds its place without a search and
//! an answer to nothing is noticed.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use wire::{DecodeError, HEADER_SIZE, Header, Kind, Status};

/// Bits of a request id that say its place.
const PLACE_BITS: u32 = 16;

/// Most operations in flight of one connection.
pub const DEPTH_MAX: usize = 1 << PLACE_BITS;

/// Bytes that one read may bring.
const READ_SIZE: usize = 256 << 10;

/// Why a connection is of no more use.
#[derive(Debug)]
pub enum ConnectionError {
    /// The other side closed it, or the network did.
    Lost(io::Error),
    /// Bytes came that are no frame.
    Protocol(DecodeError),
    /// An answer came to something that was not asked.
    Unasked(u64),
    /// The server refuses the connection.
    Refused(Status),
}

impl std::fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "the connection is lost: {error}"),
            Self::Protocol(error) => write!(f, "the server does not keep to the protocol: {error}"),
            Self::Unasked(request) => {
                write!(f, "the server answered request {request}, which is not in flight")
            }
            Self::Refused(status) => write!(f, "the server refuses the connection: {status}"),
        }
    }
}

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// 0 while the place is free.
    request: u64,
    /// When it began, or was due.
    pub began: u64,
    /// The number of its key.
    pub key: u64,
}

/// Memory that every connection of a thread receives into.
pub struct ReceiveBuffer(Vec<u8>);

impl ReceiveBuffer {
    /// Room for the usual; it grows when one frame needs more.
    pub fn new() -> Self {
        Self(vec![0; READ_SIZE])
    }
}

/// One frame that came in.
pub struct Received<'a> {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: &'a [u8],
    /// What it answers; still in flight if more pieces of the answer follow.
    pub place: Place,
}

/// A connection whose handshake is done.
pub struct Connection {
    stream: TcpStream,
    /// Requests that the socket has not taken yet: `out[sent..]`.
    out: Vec<u8>,
    sent: usize,
    waits_for_room: bool,
    /// The beginning of a frame whose rest is still to come.
    partial: Vec<u8>,
    places: Vec<Place>,
    free: Vec<usize>,
    turn: u64,
}

impl Connection {
    /// Takes over a socket that does not block and whose handshake is done, with room for `depth`
    /// operations in flight.
    ///
    /// # Errors
    /// The socket cannot be registered.
    pub fn new(
        stream: std::net::TcpStream,
        depth: usize,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        assert!((1..=DEPTH_MAX).contains(&depth), "{depth} places on a connection");
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            out: Vec::new(),
            sent: 0,
            waits_for_room: false,
            partial: Vec::new(),
            places: vec![Place { request: 0, began: 0, key: 0 }; depth],
            free: (0..depth).rev().collect(),
            turn: 0,
        })
    }

    /// True if another operation may be begun.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Operations in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = Place> {
        self.places.iter().copied().filter(|place| place.request != 0)
    }

    /// Begins an operation: `append` is handed the request id and the send buffer and gives back
    /// the number of its key, or none if there is nothing more to do. False if so. There must be
    /// room.
    #[inline]
    pub fn begin(
        &mut self,
        began: u64,
        append: impl FnOnce(u64, &mut Vec<u8>) -> Option<u64>,
    ) -> bool {
        let index = *self.free.last().expect("the caller has asked for room");
        let request = (self.turn + 1) << PLACE_BITS
            | u64::try_from(index).expect("places are numbered with 16 bits");
        let Some(key) = append(request, &mut self.out) else { return false };
        self.turn += 1;
        self.free.pop();
        self.places[index] = Place { request, began, key };
        true
    }

    /// Hands the socket what it will take.
    ///
    /// # Errors
    /// The connection is lost.
    #[inline]
    pub fn send(&mut self, registry: &Registry, token: Token) -> Result<(), ConnectionError> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(ConnectionError::Lost(ErrorKind::WriteZero.into())),
                Ok(size) => self.sent += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.wait_for_room(true, registry, token);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnectionError::Lost(error)),
            }
        }
        self.out.clear();
        self.sent = 0;
        if self.waits_for_room {
            return self.wait_for_room(false, registry, token);
        }
        Ok(())
    }

    /// Writability is asked for only while something waits for it: asked for always, it would
    /// be told with every answer.
    fn wait_for_room(
        &mut self,
        wait: bool,
        registry: &Registry,
        token: Token,
    ) -> Result<(), ConnectionError> {
        if wait != self.waits_for_room {
            let writable = Interest::READABLE | Interest::WRITABLE;
            let interest = if wait { writable } else { Interest::READABLE };
            registry
                .reregister(&mut self.stream, token, interest)
                .map_err(ConnectionError::Lost)?;
            self.waits_for_room = wait;
        }
        Ok(())
    }

    /// Reads until the socket is empty and hands each frame to `take`. `closing` says that the
    /// event told of the other side's end, too: then reading goes on until it is met.
    ///
    /// # Errors
    /// The connection is lost or the other side broke the protocol. What came before has been
    /// handed over.
    #[inline]
    pub fn receive(
        &mut self,
        buffer: &mut ReceiveBuffer,
        closing: bool,
        take: &mut impl FnMut(Received<'_>),
    ) -> Result<(), ConnectionError> {
        loop {
            let kept = self.partial.len();
            if buffer.0.len() < kept + READ_SIZE / 4 {
                buffer.0.resize(kept + READ_SIZE, 0);
            }
            buffer.0[..kept].copy_from_slice(&self.partial);
            let size = match self.stream.read(&mut buffer.0[kept..]) {
                Ok(0) => return Err(ConnectionError::Lost(ErrorKind::UnexpectedEof.into())),
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(ConnectionError::Lost(error)),
            };
            let end = kept + size;
            let taken = self.take_frames(&buffer.0[..end], take)?;
            self.partial.clear();
            self.partial.extend_from_slice(&buffer.0[taken..end]);
            // A read that did not fill the buffer has emptied the socket: no second call to be
            // told so. What comes later is a new event.
            if end < buffer.0.len() && !closing {
                return Ok(());
            }
        }
    }

    /// The bytes that were whole frames.
    fn take_frames(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Received<'_>),
    ) -> Result<usize, ConnectionError> {
        let mut at = 0;
        while let Some(head) = bytes[at..].first_chunk::<HEADER_SIZE>() {
            let header = Header::decode(head).map_err(ConnectionError::Protocol)?;
            let body_size = usize::try_from(header.body_size).unwrap_or(usize::MAX);
            if body_size > wire::limits::REPLY_BODY_SIZE_MAX {
                let size_max = wire::limits::REPLY_BODY_SIZE_MAX;
                let error = DecodeError::BodyTooLarge { size: body_size, size_max };
                return Err(ConnectionError::Protocol(error));
            }
            let start = at + HEADER_SIZE;
            let Some(body) = bytes.get(start..start + body_size) else { break };
            Header::check(head, body).map_err(ConnectionError::Protocol)?;
            let place = self.answered(&header)?;
            take(Received { header, body, place });
            at = start + body_size;
        }
        Ok(at)
    }

    /// The place that a frame answers, which is free again unless more pieces follow.
    #[inline]
    fn answered(&mut self, header: &Header) -> Result<Place, ConnectionError> {
        let request = header.request.get();
        if request == 0 && header.kind == Kind::Refused {
            return Err(ConnectionError::Refused(header.status));
        }
        let unasked = || ConnectionError::Unasked(request);
        let index = request & ((1 << PLACE_BITS) - 1);
        let index = usize::try_from(index).map_err(|_| unasked())?;
        let place = self.places.get_mut(index).filter(|place| place.request == request);
        let place = place.filter(|place| place.request != 0).ok_or_else(unasked)?;
        let answered = *place;
        if !header.flags.has_more() {
            place.request = 0;
            self.free.push(index);
        }
        Ok(answered)
    }
}
