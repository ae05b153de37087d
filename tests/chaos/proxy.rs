//! The network between members: each is dialled through an address of ours, which passes bytes on, late,
//! or not at all. Who dials is read from the first frame, so that links can be treated one by one and in
//! one direction: between members only the dialler sends.
//!
//! ```text
//!  member a ══ dials b's address ══► [ Hello: from a ] gate (a, b), delay ══► member b, where it is now
//! ```
//!
//! A held link is what a partition looks like to TCP: nothing arrives and nothing is refused, and what was
//! sent arrives once the link is open again, unless an end has given up by then.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::{HANDSHAKE_BODY_SIZE_MAX, HEADER_SIZE, Header, PeerFrame};

/// Bytes that one read brings.
const READ_SIZE: usize = 64 << 10;

/// Bytes that wait for their time on one connection; beyond it the dialler is not read from.
const DELAYED_SIZE_MAX: usize = 4 << 20;

/// Between two looks at a gate that holds.
const LOOK: Duration = Duration::from_millis(2);

/// A dialler that says nothing for so long is no member.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);

/// Threads that only copy need little of it.
const STACK_SIZE: usize = 256 << 10;

/// How one direction between two members is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link {
    is_held: bool,
    delay: Duration,
}

const OPEN: Link = Link { is_held: false, delay: Duration::ZERO };

struct Connection {
    dialler: u64,
    place: usize,
    streams: Vec<TcpStream>,
}

#[derive(Default)]
struct State {
    /// Where the member of each place listens.
    targets: Vec<SocketAddr>,
    /// By the dialler's member id and the dialled place; absent: open.
    links: HashMap<(u64, usize), Link>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

/// The network. Clones are the same one.
#[derive(Clone, Default)]
pub struct Proxy(Arc<Mutex<State>>);

impl Proxy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics under this lock")
    }

    /// A new place for the member that listens at `target`, and the address at which it is dialled.
    ///
    /// # Errors
    /// There is no port or no thread.
    pub fn add(&self, target: SocketAddr) -> io::Result<(usize, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let place = {
            let mut state = self.state();
            state.targets.push(target);
            state.targets.len() - 1
        };
        let proxy = self.clone();
        thread::Builder::new().stack_size(STACK_SIZE).spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let proxy = proxy.clone();
                let passed = thread::Builder::new().stack_size(STACK_SIZE).spawn(move || {
                    // Whatever goes wrong on a connection ends it, as on any network.
                    drop(proxy.pass(stream, place));
                });
                drop(passed);
            }
        })?;
        Ok((place, address))
    }

    /// Holds everything that `dialler` sends to the member of `place`.
    pub fn hold(&self, dialler: u64, place: usize) {
        self.state().links.entry((dialler, place)).or_insert(OPEN).is_held = true;
    }

    /// Delays everything that `dialler` sends to the member of `place`.
    pub fn delay(&self, dialler: u64, place: usize, delay: Duration) {
        self.state().links.entry((dialler, place)).or_insert(OPEN).delay = delay;
    }

    /// Opens all links and takes all delays away.
    pub fn heal(&self) {
        self.state().links.clear();
    }

    /// Breaks the connections that `which` wants broken, by the dialler's id and the dialled place.
    pub fn cut(&self, which: impl Fn(u64, usize) -> bool) {
        let mut state = self.state();
        for connection in state.connections.values_mut() {
            if which(connection.dialler, connection.place) {
                for stream in connection.streams.drain(..) {
                    drop(stream.shutdown(Shutdown::Both));
                }
            }
        }
    }

    /// Whether nothing gets from `dialler` to the member of `place`.
    pub fn is_held(&self, dialler: u64, place: usize) -> bool {
        self.link(dialler, place).is_held
    }

    fn link(&self, dialler: u64, place: usize) -> Link {
        self.state().links.get(&(dialler, place)).copied().unwrap_or(OPEN)
    }

    /// One connection from its first byte to its last.
    fn pass(&self, mut from: TcpStream, place: usize) -> io::Result<()> {
        from.set_nodelay(true)?;
        from.set_read_timeout(Some(HELLO_PATIENCE))?;
        let (dialler, hello) = read_hello(&mut from)?;
        from.set_read_timeout(None)?;
        let number = {
            let mut state = self.state();
            state.next += 1;
            let number = state.next;
            let streams = vec![from.try_clone()?];
            state.connections.insert(number, Connection { dialler, place, streams });
            number
        };
        let passed = self.pass_on(&mut from, dialler, place, number, &hello);
        self.state().connections.remove(&number);
        drop(from.shutdown(Shutdown::Both));
        passed
    }

    fn pass_on(
        &self,
        from: &mut TcpStream,
        dialler: u64,
        place: usize,
        number: u64,
        hello: &[u8],
    ) -> io::Result<()> {
        while self.link(dialler, place).is_held {
            thread::sleep(LOOK);
        }
        let target = self.state().targets[place];
        let mut to = TcpStream::connect(target)?;
        to.set_nodelay(true)?;
        if let Some(connection) = self.state().connections.get_mut(&number) {
            if connection.streams.is_empty() {
                return Ok(());
            }
            connection.streams.push(to.try_clone()?);
        }
        to.write_all(hello)?;
        let outcome = self.copy(from, &mut to, dialler, place);
        drop(to.shutdown(Shutdown::Both));
        outcome
    }

    fn copy(
        &self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        dialler: u64,
        place: usize,
    ) -> io::Result<()> {
        let mut delayed: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let mut delayed_size = 0;
        let mut chunk = vec![0; READ_SIZE];
        loop {
            let link = self.link(dialler, place);
            if link.is_held {
                thread::sleep(LOOK);
                continue;
            }
            while let Some((due, bytes)) = delayed.front()
                && *due <= Instant::now()
            {
                to.write_all(bytes)?;
                delayed_size -= bytes.len();
                delayed.pop_front();
            }
            let wait = delayed.front().map_or(Duration::from_secs(1), |(due, _)| {
                due.saturating_duration_since(Instant::now())
            });
            let wait = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
            let wanted =
                if delayed_size < DELAYED_SIZE_MAX { PollFlags::IN } else { PollFlags::empty() };
            let mut ready = [PollFd::new(&*from, wanted), PollFd::new(&*to, PollFlags::IN)];
            poll(&mut ready, Some(&wait))?;
            let [from_ready, to_ready] = ready.map(|fd| !fd.revents().is_empty());
            if to_ready {
                match to.read(&mut chunk)? {
                    0 => return Ok(()),
                    size => from.write_all(&chunk[..size])?,
                }
            }
            if from_ready && delayed_size < DELAYED_SIZE_MAX {
                match from.read(&mut chunk)? {
                    0 => return Ok(()),
                    size => {
                        // The gate may have closed while nothing came.
                        let link = self.link(dialler, place);
                        if delayed.is_empty() && link == OPEN {
                            to.write_all(&chunk[..size])?;
                        } else {
                            delayed_size += size;
                            delayed
                                .push_back((Instant::now() + link.delay, chunk[..size].to_vec()));
                        }
                    }
                }
            }
        }
    }
}

/// The first frame, and the member that sent it; 0: one that does not know who it is yet.
fn read_hello(from: &mut TcpStream) -> io::Result<(u64, Vec<u8>)> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut header_bytes = [0; HEADER_SIZE];
    from.read_exact(&mut header_bytes)?;
    let header = Header::decode(&header_bytes).map_err(|_| broken())?;
    let size = usize::try_from(header.body_size).map_err(|_| broken())?;
    if size > HANDSHAKE_BODY_SIZE_MAX {
        return Err(broken());
    }
    let mut frame = header_bytes.to_vec();
    frame.resize(HEADER_SIZE + size, 0);
    from.read_exact(&mut frame[HEADER_SIZE..])?;
    match PeerFrame::verify(&header, &frame[HEADER_SIZE..]) {
        Ok(PeerFrame::Hello(hello)) => Ok((hello.from.get(), frame)),
        Ok(PeerFrame::Join(_)) => Ok((0, frame)),
        Ok(_) | Err(_) => Err(broken()),
    }
}
