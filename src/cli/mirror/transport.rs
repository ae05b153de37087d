//! Connections that are found to be dead: the library's own would wait for a peer that has gone without a word,
//! and a watch may have nothing to tell for hours.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::sockopt;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};
use ureq::{Error, Timeout};

/// Silence after which the kernel asks the peer whether it is there.
const IDLE: Duration = Duration::from_secs(5);

/// Time between its questions.
const INTERVAL: Duration = Duration::from_secs(3);

/// Questions without an answer after which the connection is lost.
const QUESTIONS_COUNT: u32 = 3;

/// Time in which what was sent must have arrived.
const UNACKNOWLEDGED_MS: u32 = 14_000;

/// Opens connections.
#[derive(Debug)]
pub struct Dialer;

impl Connector for Dialer {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in details.addrs.iter() {
            match dial(*address, details.timeout) {
                Ok(stream) => {
                    let config = details.config;
                    let (input, output) = (config.input_buffer_size(), config.output_buffer_size());
                    let stream = Arc::new(Socket(stream));
                    let shutdown: Weak<Socket> = Arc::downgrade(&stream);
                    (details.register_shutdown)(shutdown)?;
                    let buffers = LazyBuffers::new(input, output);
                    return Ok(Some(Connection { stream, buffers }));
                }
                Err(error) => failed = error,
            }
        }
        Err(Error::Io(failed))
    }
}

fn dial(address: SocketAddr, timeout: NextTimeout) -> io::Result<TcpStream> {
    let stream = match timeout.not_zero() {
        Some(timeout) => TcpStream::connect_timeout(&address, *timeout)?,
        None => TcpStream::connect(address)?,
    };
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, QUESTIONS_COUNT)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS)?;
    Ok(stream)
}

/// A socket that another thread may end.
struct Socket(TcpStream);

impl ShutdownHandle for Socket {
    fn shutdown(&self) {
        // It fails for one that has ended.
        drop(self.0.shutdown(std::net::Shutdown::Both));
    }
}

/// A connection.
pub struct Connection {
    stream: Arc<Socket>,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.stream.0.peer_addr().ok()).finish()
    }
}

/// The time that is left, none without end.
fn left(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(timeout.not_zero().map(|time| *time))
}

/// What the system says when a time-out of a socket is over.
fn explain(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => Error::Timeout(reason),
        _ => Error::Io(error),
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let mut stream = &self.stream.0;
        stream.set_write_timeout(left(timeout)?)?;
        let Some(output) = self.buffers.output().get(..amount) else {
            return Err(Error::Io(io::ErrorKind::InvalidInput.into()));
        };
        stream.write_all(output).map_err(|error| explain(error, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let mut stream = &self.stream.0;
        let input = self.buffers.input_append_buf();
        let amount = loop {
            stream.set_read_timeout(left(timeout)?)?;
            match stream.read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| explain(error, timeout.reason))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // One that has something to say that nobody asked for is as bad as one that has been closed.
        let mut stream = &self.stream.0;
        stream.set_nonblocking(true).is_ok()
            && matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            && stream.set_nonblocking(false).is_ok()
    }
}
