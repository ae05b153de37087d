//! The listening socket, shared by the reactors: each accepts on a descriptor of its own of the one
//! socket, so that a port in use is refused and not silently shared.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use glommio::Task;
use glommio::net::{TcpListener, TcpStream};

use crate::Error;
use crate::config::{Address, Entrance, Serves};
use crate::http::Gate;
use crate::inbox::Inbox;

/// How often, and how far apart, a port or a data directory that is in use is tried again: the kernel may
/// hold what a process that was killed had for some milliseconds after its end.
pub const TRIES: u32 = 20;
/// See [`TRIES`].
pub const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// A listening socket for clients.
pub struct Door {
    listener: StdListener,
    /// Where it listens.
    pub address: Address,
    /// What is served there.
    pub serves: Serves,
}

/// A descriptor of a listening socket, and what is served there.
pub type Share = (StdListener, Serves);

impl Door {
    /// Listens.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn open(entrance: &Entrance) -> Result<Self, Error> {
        let serves = entrance.serves;
        let (listener, address) = match &entrance.address {
            Address::Tcp(asked) => {
                let listener = bind(*asked)?;
                let bound = listener.local_addr();
                let wrap = |source| Error::Listen { address: entrance.address.clone(), source };
                (listener, Address::Tcp(bound.map_err(wrap)?))
            }
            Address::Unix(path) => (bind_path(path)?, entrance.address.clone()),
        };
        Ok(Self { listener, address, serves })
    }

    /// One more descriptor of the socket.
    ///
    /// # Errors
    /// There are none left.
    pub fn share(&self) -> io::Result<Share> {
        Ok((self.listener.try_clone()?, self.serves))
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.serves {
            Serves::Everything => "client traffic",
            Serves::Http => "client traffic over HTTP",
            Serves::Metrics => "metrics and health",
        };
        write!(f, "serving {what} insecurely at {}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // Whoever starts next takes away what is left there.
            drop(fs::remove_file(path));
        }
    }
}

/// Listens at a path of the file system. The socket of a process that has ended is taken away.
fn bind_path(path: &Path) -> Result<StdListener, Error> {
    let listen = || -> io::Result<StdListener> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        // A stream socket that listens: which family it is of matters to nobody who accepts.
        Ok(StdListener::from(OwnedFd::from(listener)))
    };
    listen().map_err(|source| Error::Listen { address: Address::Unix(path.into()), source })
}

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
            Err(source) => return Err(Error::Listen { address: address.into(), source }),
        }
    }
    listen().map_err(|source| Error::Listen { address: address.into(), source })
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

/// An executor's part of a door, at which it accepts connections until it is closed.
pub struct Accepting {
    socket: StdListener,
    task: Task<()>,
}

impl Accepting {
    /// Accepts connections from now on.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn begin(share: Share, inbox: &Rc<Inbox>, gate: &Rc<Gate>) -> io::Result<Self> {
        let socket = share.0.try_clone()?;
        let task = glommio::spawn_local(accept(share, Rc::clone(inbox), Rc::clone(gate)));
        Ok(Self { socket, task })
    }

    /// Nobody can connect any more. Closing the descriptors would not be enough: the ring holds the socket for as
    /// long as it waits at it.
    pub fn close(self) {
        drop(self.task);
        match rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            // Another executor has closed its part of the same door.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => {}
            Err(error) => {
                crate::log::warn(format!("a listening socket could not be closed: {error}"));
            }
        }
    }
}

/// Accepts connections until the executor ends.
async fn accept((listener, serves): Share, inbox: Rc<Inbox>, gate: Rc<Gate>) {
    let listener = adopt(listener);
    loop {
        match listener.accept().await {
            Ok(stream) if serves == Serves::Everything => inbox.push_accepted(stream),
            Ok(stream) => gate.let_in(&stream, serves),
            Err(error) => {
                // Out of descriptors, or the peer has gone again: wait, so as not to spin.
                crate::log::warn(format!("a connection could not be accepted: {error}"));
                glommio::timer::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
