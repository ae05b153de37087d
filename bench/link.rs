//! A connection whose frames are cut and read one by one, for loads that are told things unasked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use base::RequestId;
use bytes::BytesMut;
use mio::{Interest, Poll, Token};
use wire::{Call, RequestEncoder, Splitter, VERSION_MAX};

use crate::handshake::{HandshakeError, Opened};

/// Bytes read at once.
const READ_SIZE: usize = 256 << 10;

/// A connection.
pub struct Link {
    stream: mio::net::TcpStream,
    encoder: RequestEncoder,
    splitter: Splitter,
    input: BytesMut,
    output: Vec<u8>,
    sent: usize,
}

impl Link {
    /// Connects, shakes hands and has `poll` tell of it by `token`.
    ///
    /// # Errors
    /// No server there, or one that refuses.
    pub fn open(address: SocketAddr, poll: &Poll, token: Token) -> Result<Self, HandshakeError> {
        let opened = Opened::connect(address)?;
        let body_size_max = opened.granted().body_size_max;
        let lost = |error| HandshakeError::Connect(address, error);
        let stream: TcpStream = opened.into_stream()?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, token, interest).map_err(lost)?;
        let mut encoder = RequestEncoder::new();
        encoder.agree(VERSION_MAX, body_size_max);
        let mut splitter = Splitter::new();
        splitter.agree(VERSION_MAX, wire::limits::REPLY_BODY_SIZE_MAX);
        let (input, output) = (BytesMut::new(), Vec::new());
        Ok(Self { stream, encoder, splitter, input, output, sent: 0 })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// It is too large.
    pub fn queue(&mut self, request: u64, call: &Call<'_>) -> Result<(), wire::EncodeError> {
        self.encoder.encode(&mut self.output, RequestId::new(request), 0, call)
    }

    /// Sends what is queued, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(size) => self.sent += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads everything that is there, and shows each whole frame.
    ///
    /// # Errors
    /// The connection is lost, or what came is no frame.
    pub fn receive(
        &mut self,
        take: &mut dyn FnMut(wire::Header, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let broken = |error: wire::DecodeError| io::Error::new(ErrorKind::InvalidData, error);
        loop {
            let before = self.input.len();
            self.input.resize(before + READ_SIZE, 0);
            let read = self.stream.read(&mut self.input[before..]);
            let size = read.as_ref().map_or(0, |size| *size);
            self.input.truncate(before + size);
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some((header, body)) = self.splitter.next(&mut self.input).map_err(broken)? {
                take(header, &body)?;
            }
            if size < READ_SIZE {
                return Ok(());
            }
        }
    }
}
