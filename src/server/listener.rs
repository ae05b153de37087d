//! The listening socket, shared by the reactors: each accepts on a descriptor of its own of the one
//! socket, so that a port in use is refused and not silently shared.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use glommio::Task;
use glommio::net::{TcpListener, TcpStream};

use crate::Error;
use crate::inbox::Inbox;

/// How often, and how far apart, a port or a data directory that is in use is tried again: the kernel may
/// hold what a process that was killed had for some milliseconds after its end.
pub const TRIES: u32 = 20;
/// See [`TRIES`].
pub const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// Binds and listens. Refused when another process listens there.
pub fn bind(address: SocketAddr) -> Result<StdListener, Error> {
    let listen = || -> io::Result<StdListener> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    for _ in 1..TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(TRY_INTERVAL),
            Ok(listener) => return Ok(listener),
            Err(source) => return Err(Error::Listen { address, source }),
        }
    }
    listen().map_err(|source| Error::Listen { address, source })
}

/// Gives the socket to the executor this runs on.
#[allow(unsafe_code)]
fn adopt(listener: StdListener) -> TcpListener {
    let descriptor = listener.into_raw_fd();
    // SAFETY: the descriptor is open, listens, and was owned by nobody else than `listener`, which
    // has given it up.
    unsafe { TcpListener::from_raw_fd(descriptor) }
}

/// Connects to another member.
pub async fn dial(dial: u64, address: String, inbox: Rc<Inbox>) {
    let target = match address.parse::<SocketAddr>() {
        Ok(target) => Some(target),
        // A name is looked up beside the core, for that may take seconds.
        Err(_) => {
            let look_up = move || address.to_socket_addrs().ok().and_then(|mut all| all.next());
            glommio::executor().spawn_blocking(look_up).await
        }
    };
    let stream = match target {
        Some(target) => TcpStream::connect(target).await.ok(),
        None => None,
    };
    inbox.push_peer(Some(dial), stream);
}

/// Accepts other members until the executor ends.
pub async fn accept_peers(listener: StdListener, inbox: Rc<Inbox>) {
    let listener = adopt(listener);
    loop {
        match listener.accept().await {
            Ok(stream) => inbox.push_peer(None, Some(stream)),
            Err(error) => {
                crate::log::warn(format!("a member could not be accepted: {error}"));
                glommio::timer::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A listening socket at which connections are accepted until it is closed.
pub struct Door {
    socket: StdListener,
    accepting: Task<()>,
}

impl Door {
    /// Accepts connections from now on.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn open(listener: StdListener, inbox: &Rc<Inbox>) -> io::Result<Self> {
        let socket = listener.try_clone()?;
        let accepting = glommio::spawn_local(accept(listener, Rc::clone(inbox)));
        Ok(Self { socket, accepting })
    }

    /// Nobody can connect any more. Closing the descriptors would not be enough: the ring holds the socket for as
    /// long as it waits at it.
    pub fn close(self) {
        drop(self.accepting);
        if let Err(error) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            crate::log::warn(format!("a listening socket could not be closed: {error}"));
        }
    }
}

/// Accepts connections until the executor ends.
async fn accept(listener: StdListener, inbox: Rc<Inbox>) {
    let listener = adopt(listener);
    loop {
        match listener.accept().await {
            Ok(stream) => inbox.push_accepted(stream),
            Err(error) => {
                // Out of descriptors, or the peer has gone again: wait, so as not to spin.
                crate::log::warn(format!("a connection could not be accepted: {error}"));
                glommio::timer::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
