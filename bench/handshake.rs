//! Opening a connection: the one part of the load generator that blocks, before anything is timed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base::RequestId;
use wire::{
    Call, DecodeError, EncodeError, HEADER_SIZE, Header, Hello, Range, Reply, RequestEncoder,
    Status, VERSION_MAX, VERSION_MIN,
};

use crate::keys::KeySpace;

/// How long connecting, and then each answer, may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug)]
pub enum HandshakeError {
    /// No connection to the address, or it was lost.
    Connect(SocketAddr, io::Error),
    /// The other side does not speak the protocol.
    Protocol(SocketAddr, DecodeError),
    /// The server does not want this client.
    Refused(SocketAddr, Status),
    /// A request cannot be sent.
    Encode(EncodeError),
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(address, error) => {
                write!(f, "no connection to {address}: {error}")?;
                if error.raw_os_error() == Some(libc::EMFILE) {
                    f.write_str(" (raise the limit with `ulimit -n`)")?;
                }
                Ok(())
            }
            Self::Protocol(address, error) => {
                write!(f, "{address} does not speak the protocol: {error}")
            }
            Self::Refused(address, status) => write!(f, "{address} refuses: {status}"),
            Self::Encode(error) => write!(f, "cannot ask: {error}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// What the server allows.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    /// Requests in flight of one connection.
    pub requests_max: usize,
    /// Bytes of a request's body.
    pub body_size_max: usize,
    /// Bytes of a key.
    pub key_size_max: usize,
    /// Bytes of a value.
    pub value_size_max: usize,
}

/// A blocking connection whose handshake is done.
#[derive(Debug)]
pub struct Opened {
    stream: TcpStream,
    address: SocketAddr,
    granted: Granted,
    encoder: RequestEncoder,
}

impl Opened {
    /// Connects to `address` and shakes hands.
    ///
    /// # Errors
    /// No server there, or one that refuses.
    pub fn connect(address: SocketAddr) -> Result<Self, HandshakeError> {
        let lost = |error| HandshakeError::Connect(address, error);
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(lost)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(lost)?;
        let granted =
            Granted { requests_max: 0, body_size_max: 0, key_size_max: 0, value_size_max: 0 };
        let mut opened = Self { stream, address, granted, encoder: RequestEncoder::new() };
        opened.shake_hands()?;
        Ok(opened)
    }

    fn shake_hands(&mut self) -> Result<(), HandshakeError> {
        let hello = Hello {
            version_min: u16::from(VERSION_MIN),
            version_max: u16::from(VERSION_MAX),
            cluster: 0,
            client_name: "quorate bench",
        };
        let (header, body) = self.ask(&Call::Hello(hello))?;
        let reply = self.verify(&header, &body)?;
        let Reply::Hello(reply) = reply else { return Err(self.unexpected(&header)) };
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        self.granted = Granted {
            requests_max: size(reply.requests_max),
            body_size_max: size(reply.request_body_size_max),
            key_size_max: size(reply.key_size_max),
            value_size_max: size(reply.value_size_max),
        };
        self.encoder.agree(VERSION_MAX, self.granted.body_size_max);
        Ok(())
    }

    /// What the server allows.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// How many keys of `space` exist, and what is between them.
    ///
    /// # Errors
    /// The server refuses or the connection is lost.
    pub fn count(&mut self, space: &KeySpace) -> Result<u64, HandshakeError> {
        let keys = space.range();
        let range =
            Range { key: &keys.start, range_end: &keys.end, count_only: true, ..Range::default() };
        let (header, body) = self.ask(&Call::Range(range))?;
        let Reply::Range(reply) = self.verify(&header, &body)? else {
            return Err(self.unexpected(&header));
        };
        Ok(u64::try_from(reply.count).unwrap_or(0))
    }

    /// The socket, which no longer blocks.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn into_stream(self) -> Result<TcpStream, HandshakeError> {
        let lost = |error| HandshakeError::Connect(self.address, error);
        self.stream.set_nonblocking(true).map_err(lost)?;
        Ok(self.stream)
    }

    /// Sends one request and waits for its only frame.
    fn ask(&mut self, call: &Call<'_>) -> Result<(Header, Vec<u8>), HandshakeError> {
        let lost = |error| HandshakeError::Connect(self.address, error);
        let broken = |error| HandshakeError::Protocol(self.address, error);
        let mut out = Vec::new();
        self.encoder
            .encode(&mut out, RequestId::new(1), 0, call)
            .map_err(HandshakeError::Encode)?;
        self.stream.write_all(&out).map_err(lost)?;
        let mut head = [0; HEADER_SIZE];
        self.stream.read_exact(&mut head).map_err(lost)?;
        let header = Header::decode(&head).map_err(broken)?;
        let body_size = usize::try_from(header.body_size).unwrap_or(usize::MAX);
        let size_max = wire::limits::REPLY_BODY_SIZE_MAX;
        if body_size > size_max {
            return Err(broken(DecodeError::BodyTooLarge { size: body_size, size_max }));
        }
        let mut body = vec![0; body_size];
        self.stream.read_exact(&mut body).map_err(lost)?;
        Header::check(&head, &body).map_err(broken)?;
        if header.status != Status::Ok {
            return Err(HandshakeError::Refused(self.address, header.status));
        }
        Ok((header, body))
    }

    fn verify<'a>(&self, header: &Header, body: &'a [u8]) -> Result<Reply<'a>, HandshakeError> {
        Reply::verify(header, body).map_err(|error| HandshakeError::Protocol(self.address, error))
    }

    fn unexpected(&self, header: &Header) -> HandshakeError {
        HandshakeError::Protocol(self.address, DecodeError::UnexpectedKind { kind: header.kind })
    }
}
