//! A socket as hyper reads and writes it, and hyper's tasks on the executor.
//!
//! What hyper writes is gathered until it flushes: the frames of an answer go out in one system call. What HTTP/2
//! says about the connection, and the headers of a stream, wait for the answer to the request that came with it:
//! Go's clients put a ping before every request, and its answer alone would cost as much as that of the request.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};

use super::pings::{GOAWAY, Pings};

/// A read takes at most so much: hyper offers more room than it will use.
const READ_SIZE: usize = 16 << 10;

/// More than this is not gathered.
const GATHERED_MAX: usize = 64 << 10;

/// So few bytes wait for an answer that goes out with them: those of a ping (17), a few windows (13 each),
/// settings (9) and the headers of a few streams (some 20 each).
const HELD_MAX: usize = 128;

/// Bytes in front of each frame of HTTP/2 (RFC 9113, 4.1).
const FRAME_HEADER_SIZE: usize = 9;

/// What says something of the connection alone: SETTINGS, PING, WINDOW_UPDATE (RFC 9113, 6).
fn is_control(kind: u8, _: u8) -> bool {
    matches!(kind, 4 | 6 | 8)
}

/// What a client does not wait for: that, and HEADERS that are whole and that something follows (END_HEADERS is
/// set, END_STREAM is not; RFC 9113, 6.2).
fn can_wait(kind: u8, flags: u8) -> bool {
    is_control(kind, flags) || (kind == 1 && flags & 0x5 == 0x4)
}

/// Whether these are whole frames of HTTP/2, few, and all are `such` by their type and flags.
fn are_all(mut bytes: &[u8], such: fn(u8, u8) -> bool) -> bool {
    if bytes.len() > HELD_MAX {
        return false;
    }
    while let Some(header) = bytes.first_chunk::<FRAME_HEADER_SIZE>() {
        let size = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let size = usize::try_from(size).expect("24 bits fit usize");
        match bytes.get(FRAME_HEADER_SIZE + size..) {
            Some(rest) if such(header[3], header[4]) => bytes = rest,
            _ => return false,
        }
    }
    bytes.is_empty()
}

/// What a socket holds back, and who has it sent when that has waited long enough.
#[derive(Default)]
struct Pace {
    /// Bytes are held.
    holds: Cell<bool>,
    /// They have been held for long enough.
    is_due: Cell<bool>,
    /// It is in the list of those that hold something.
    is_listed: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// The sockets of an executor that hold something back.
#[derive(Clone, Default)]
pub struct Held(Rc<Cell<Vec<Rc<Pace>>>>);

impl Held {
    /// A tick has passed: what was held at the last one already is sent.
    pub fn tick(&self) {
        let mut held = self.0.take();
        held.retain(|pace| {
            let holds = pace.holds.get();
            pace.is_listed.set(holds);
            if holds
                && pace.is_due.replace(true)
                && let Some(waker) = pace.waker.take()
            {
                waker.wake();
            }
            holds
        });
        self.0.set(held);
    }

    fn push(&self, pace: &Rc<Pace>) {
        if !pace.is_listed.replace(true) {
            let mut held = self.0.take();
            held.push(Rc::clone(pace));
            self.0.set(held);
        }
    }
}

/// A client that was told to go has so long to read that.
const PARTING: Duration = Duration::from_secs(1);

/// Reads in a row of what is thrown away.
const THROWN_AWAY_MAX: usize = 16;

/// The last second of a connection whose client was told to go: what it sends is thrown away, for a socket that is
/// closed with bytes unread takes back what was sent.
#[derive(Default)]
struct Parting {
    is_over: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Parting {
    fn begin() -> Rc<Self> {
        let parting = Rc::new(Self::default());
        let own = Rc::clone(&parting);
        glommio::spawn_local(async move {
            glommio::timer::sleep(PARTING).await;
            own.is_over.set(true);
            if let Some(waker) = own.waker.take() {
                waker.wake();
            }
        })
        .detach();
        parting
    }
}

/// A socket, with what was read from it before it was known to speak HTTP.
pub struct HttpStream {
    stream: TcpStream,
    begun: BytesMut,
    room: Box<[u8]>,
    gathered: BytesMut,
    /// The front of what is gathered has been sent.
    is_sending: bool,
    /// More than control was read since something was sent: an answer will follow.
    is_asked: bool,
    pace: Rc<Pace>,
    held: Held,
    /// Of HTTP/2.
    pings: Option<Pings>,
    parting: Option<Rc<Parting>>,
}

impl HttpStream {
    /// Of this socket.
    pub fn new(stream: TcpStream, begun: BytesMut, held: &Held) -> Self {
        let room = vec![0; READ_SIZE].into_boxed_slice();
        let gathered = BytesMut::new();
        Self {
            stream,
            begun,
            room,
            gathered,
            is_sending: false,
            is_asked: false,
            pace: Rc::default(),
            held: held.clone(),
            pings: None,
            parting: None,
        }
    }

    /// Minds the pings of a client of HTTP/2 from now on.
    pub fn mind_pings(&mut self) {
        self.pings = Some(Pings::new());
    }

    /// Takes note of bytes that hyper gets; whether it does.
    fn minds(&mut self, bytes: &[u8]) -> bool {
        let has_too_many = self.pings.as_mut().is_some_and(|own| own.received(bytes, Instant::now));
        if has_too_many {
            self.parting = Some(Parting::begin());
            if self.pings.as_ref().is_some_and(Pings::is_between) {
                self.gathered.extend_from_slice(GOAWAY);
            }
        }
        !has_too_many
    }

    /// Reads on without listening.
    fn poll_part(&mut self, parting: &Parting, context: &mut Context<'_>) -> Poll<io::Error> {
        let end = || Poll::Ready(io::Error::from(io::ErrorKind::ConnectionAborted));
        // Where it does not take that it learns nothing.
        drop(self.poll_send(context));
        for _ in 0..THROWN_AWAY_MAX {
            if parting.is_over.get() {
                return end();
            }
            match Pin::new(&mut self.stream).poll_read(context, &mut self.room) {
                Poll::Ready(Ok(0) | Err(_)) => return end(),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    parting.waker.set(Some(context.waker().clone()));
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads on until so many bytes are known that say which version of HTTP it is; what they are.
    ///
    /// # Errors
    /// The socket, or its end.
    pub async fn begin(&mut self, size: usize) -> io::Result<&[u8]> {
        while self.begun.len() < size {
            let mut byte = [0; 1];
            let count = futures_lite::AsyncReadExt::read(&mut self.stream, &mut byte).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.begun.extend_from_slice(&byte);
        }
        Ok(&self.begun)
    }

    /// Whether what is gathered waits for an answer.
    fn holds(&self, context: &Context<'_>) -> bool {
        let pace = &self.pace;
        let holds = self.is_asked
            && !self.is_sending
            && !(pace.holds.get() && pace.is_due.get())
            && are_all(&self.gathered, can_wait);
        if !holds {
            pace.holds.set(false);
            return false;
        }
        if !pace.holds.replace(true) {
            pace.is_due.set(false);
            pace.waker.set(Some(context.waker().clone()));
            self.held.push(pace);
        }
        true
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        if let Some(pings) = &mut self.pings {
            pings.sent(bytes);
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_sending = !self.gathered.is_empty();
        while !self.gathered.is_empty() {
            let sent = Pin::new(&mut self.stream).poll_write(context, &self.gathered);
            match std::task::ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gathered.advance(count),
            }
        }
        self.is_sending = false;
        self.is_asked = false;
        Poll::Ready(Ok(()))
    }
}

impl Read for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(parting) = this.parting.clone() {
            return this.poll_part(&parting, context).map(Err);
        }
        if !this.begun.is_empty() {
            let bytes = this.begun.split_to(this.begun.len().min(buffer.remaining()));
            if !this.minds(&bytes) {
                return self.poll_read(context, buffer);
            }
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        let size = this.room.len().min(buffer.remaining());
        let mut room = std::mem::take(&mut this.room);
        let read = Pin::new(&mut this.stream).poll_read(context, &mut room[..size]);
        let is_taken = !matches!(read, Poll::Ready(Ok(count)) if !this.minds(&room[..count]));
        this.room = room;
        if !is_taken {
            return self.poll_read(context, buffer);
        }
        match read {
            Poll::Ready(Ok(count)) => {
                buffer.put_slice(&this.room[..count]);
                this.is_asked |= !are_all(&this.room[..count], is_control);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Write for HttpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.parting.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        if this.gathered.len() + bytes.len() <= GATHERED_MAX {
            this.gathered.extend_from_slice(bytes);
            this.note_sent(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        std::task::ready!(this.poll_send(context))?;
        // A socket that is full copies what it is given.
        let bytes = &bytes[..bytes.len().min(GATHERED_MAX)];
        let count = std::task::ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.note_sent(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.gathered.is_empty() && !this.holds(context) {
            std::task::ready!(this.poll_send(context))?;
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_close(context)
    }
}

/// Runs hyper's tasks on the executor on which they were made.
#[derive(Clone, Copy, Debug)]
pub struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        glommio::spawn_local(task).detach();
    }
}

#[cfg(test)]
mod tests {
    use super::{HELD_MAX, are_all, can_wait, is_control};

    const PING: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 2, 4, 16, 16, 9, 14, 7, 7];
    const HEADERS: [u8; 10] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];

    #[test]
    fn what_no_client_waits_for_can_wait() {
        assert!(are_all(&PING, can_wait));
        assert!(are_all(&[&PING[..], &HEADERS, &PING].concat(), can_wait));
        assert!(are_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0], can_wait), "settings");
        assert!(!are_all(&[&PING[..], &HEADERS].concat(), is_control), "a request");
    }

    #[test]
    fn an_answer_or_more_than_a_few_bytes_cannot() {
        let trailers = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0xbe];
        assert!(!are_all(&trailers, can_wait));
        assert!(!are_all(&[&PING[..], &trailers].concat(), can_wait));
        assert!(!are_all(&PING[..16], can_wait), "a frame without its end");
        assert!(!are_all(&PING[..8], can_wait), "a part of a header");
        assert!(!are_all(&PING.repeat(HELD_MAX / PING.len() + 1), can_wait));
    }
}
