//! A socket as hyper reads and writes it, and hyper's tasks on the executor.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};

/// A read takes at most so much: hyper offers more room than it will use.
const READ_SIZE: usize = 16 << 10;

/// A socket, with what was read from it before it was known to speak HTTP.
pub struct HttpStream {
    stream: TcpStream,
    begun: BytesMut,
    room: Box<[u8]>,
}

impl HttpStream {
    /// Of this socket.
    pub fn new(stream: TcpStream, begun: BytesMut) -> Self {
        Self { stream, begun, room: vec![0; READ_SIZE].into_boxed_slice() }
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
}

impl Read for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.begun.is_empty() {
            let count = this.begun.len().min(buffer.remaining());
            buffer.put_slice(&this.begun[..count]);
            this.begun.advance(count);
            return Poll::Ready(Ok(()));
        }
        let size = this.room.len().min(buffer.remaining());
        let room = &mut this.room[..size];
        match Pin::new(&mut this.stream).poll_read(context, room) {
            Poll::Ready(Ok(count)) => {
                buffer.put_slice(&this.room[..count]);
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
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
