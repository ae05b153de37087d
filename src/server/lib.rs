//! The server: the only crate that touches the operating system.
//!
//! ```text
//! run: check ─► data directory ─► probes ─► boot ─► executors ─► ready ─► wait for a signal ─► stop
//! ```
//!
//! It makes no decisions about the protocol or the data; those are the roles' (crate `node`). An
//! executor runs the roles that [`topology`] gives it in one loop ([`core_loop`]); tasks beside the
//! loop move bytes between sockets, files and the loop's inbox.

mod boot;
mod clock;
mod config;
mod core_loop;
mod counters;
mod data_dir;
mod direct;
mod disk;
mod ending;
mod error;
mod executor;
mod founding;
mod http;
mod inbox;
mod incoming;
mod link;
mod listed;
mod listener;
pub mod log;
mod probe;
mod process;
mod publication;
mod read_ahead;
mod readiness;
mod restoring;
mod socket;
mod topology;

pub use base::Duration;
pub use config::{
    Address, ClusterConfig, Config, Elections, Entrance, EtcdApi, Serves, SyncMethod, TellsReady,
    Topology,
};
pub use data_dir::{FORMAT_VERSION, Identity, read_identity};
pub use direct::{AlignedBuffer, DirectFile};
pub use disk::{slot_numbers, slot_path};
pub use error::Error;
pub use etcd::VERSION as ETCD_VERSION;
pub use node::Retention;
pub use restoring::{RestoreOptions, RestoreProgress, RestoreReport, restore};
pub use wire::MEMBER_ADDRESS_SIZE_MAX as ADVERTISED_SIZE_MAX;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use glommio::channels::shared_channel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use clock::Clock;
use data_dir::{DataDir, noted_damage};
use ending::Remaining;
use executor::{Notice, Parts, Plan, Start, Wiring};
use listed::Listed;
use listener::Door;

/// Exit code of a process whose member the cluster excludes: it was removed, comes with another data
/// directory, or its state differs from that of most others. To start it again changes nothing.
pub const EXIT_EXCLUDED: i32 = 7;

/// Runs a server until it is told to stop (SIGTERM or SIGINT) or cannot go on. Prints one line to
/// standard output when it serves: `ready native=ADDR etcd=ADDR pid=PID data=DIR`, with `peer=ADDR` before
/// the pid where it listens for members. Both addresses for clients take both protocols.
///
/// # Errors
/// Why it did not start, or why it stopped.
pub fn run(config: &Config) -> Result<(), Error> {
    config.check()?;
    probe::io_uring()?;
    let first = Entrance { address: config.listen.clone(), serves: Serves::Everything };
    let asked = std::iter::once(&first).chain(&config.entrances);
    let doors = asked.map(Door::open).collect::<Result<Vec<Door>, Error>>()?;
    let address = doors[0].address.clone();
    let for_clients = doors.iter().filter(|door| door.serves == Serves::Everything);
    // Of two the second is for those that look for etcd at its own port.
    let etcd_address = for_clients.take(2).last().map_or(&address, |door| &door.address);
    let mut config = config.clone();
    // Of a member that is in a list already its address there counts, not that of the founders.
    let is_new = !DataDir::is_used(&config.data_dir);
    let peer_address =
        if is_new { config.cluster.peer_address()? } else { config.cluster.listen_peer };
    let mut peer_listener = peer_address.map(listener::bind).transpose()?;
    let failed = |source| Error::Listen { address: address.clone(), source };
    if let Some(listener) = &peer_listener {
        let source = failed;
        config.cluster.listen_peer = Some(listener.local_addr().map_err(source)?);
    }
    config.cluster.advertise_client.get_or_insert_with(|| address.to_string());
    let mut data_dir = DataDir::open(&config.data_dir, config.wal_segment_size, &config.cluster)?;
    let buffered = probe::direct_io(&data_dir, config.unsafe_buffered)?;
    let dsync = probe::sync_method(&data_dir, config.sync, buffered)?;
    // Before any thread is there: signals that come from now on are kept for the loop below.
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Error::Executor(format!("signals cannot be watched: {error}")))?;

    let clock = Clock::start();
    let booted = boot::boot(&data_dir, &config, buffered)?;
    let listed = Listed::of(&booted, data_dir.identity.member);
    if let Some((note, text)) = noted_damage(&data_dir.pages()) {
        let error = Error::PagesDamaged { note, text };
        if listed.has_others && !config.cluster.alone {
            return Err(error);
        }
        log::warn(error);
    }
    if peer_listener.is_none()
        && let Some(own) = listed.address_to_listen_on(&config.cluster)?
    {
        // Where the others find it need not be where it can listen.
        let listener = listener::bind(own).or_else(|error| {
            let founded = config.cluster.peer_address()?.filter(|founded| *founded != own);
            founded.map_or(Err(error), listener::bind)
        })?;
        let source = |source| Error::Listen { address: own.into(), source };
        config.cluster.listen_peer = Some(listener.local_addr().map_err(source)?);
        peer_listener = Some(listener);
    }
    listed.tell_of_another_address(&config.cluster);
    let config = &config;
    let (cores, bind) = probe::cores(config)?;
    let places = topology::places(config.topology, &cores, bind);
    let plan = Arc::new(Plan::new(config, &data_dir, &places, dsync)?);
    let stop = Arc::new(AtomicBool::new(false));
    let reactors = places.iter().filter(|place| place.reactor.is_some()).count();
    let remaining = Arc::new(Remaining::new(reactors));
    let (notices, notified) = mpsc::channel();

    // One channel for each ordered pair of executors.
    let count = places.len();
    let mut wirings: Vec<Wiring> = (0..count).map(|_| Wiring::new(count)).collect();
    for source in 0..count {
        for target in 0..count {
            if source != target {
                let (sender, receiver) = shared_channel::new_bounded(link::CHANNEL_SIZE);
                wirings[source].senders[target] = Some(sender);
                wirings[target].receivers.push(receiver);
            }
        }
    }
    data_dir.keep();
    let mut handles = Vec::new();
    for (index, (parts, wiring)) in
        Parts::deal(booted, &places).into_iter().zip(wirings).enumerate()
    {
        let own = doors.iter().filter(|_| places[index].reactor.is_some());
        let listeners: std::io::Result<Vec<_>> = own.map(Door::share).collect();
        let listeners = listeners.map_err(failed)?;
        let peers = if places[index].consensus { peer_listener.as_ref() } else { None };
        let peers = peers.map(std::net::TcpListener::try_clone).transpose();
        let peers = peers.map_err(failed)?;
        handles.push(executor::spawn(Start {
            index,
            peers,
            places: places.clone(),
            plan: Arc::clone(&plan),
            parts,
            wiring,
            listeners,
            clock,
            stop: Arc::clone(&stop),
            remaining: Arc::clone(&remaining),
            notices: notices.clone(),
        })?);
    }
    drop(notices);
    // The executors shut the doors when the server stops; that of the other members is theirs alone.
    drop(peer_listener);

    // Ready when every reactor listens, and the member leads or knows who does and is in the list of members.
    let mut waiting = reactors + 1;
    let signal_stop = Arc::clone(&stop);
    let watcher = signals.handle();
    let signal_thread = thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            log::info(format!("{name} has come: hands over, answers what is under way, and stops"));
            signal_stop.store(true, Ordering::Release);
        }
    });
    let mut failure = None;
    for notice in notified {
        match notice {
            Notice::Ready => {
                waiting -= 1;
                if waiting == 0 {
                    match config.tells_ready {
                        TellsReady::OnStandardOutput => {
                            announce(&address, etcd_address, config.cluster.listen_peer, &data_dir)
                        }
                        TellsReady::AsEtcd => {
                            for door in &doors {
                                log::info(door);
                            }
                            log::info("ready to serve client requests");
                        }
                    }
                }
            }
            Notice::Failed(error) => {
                failure = Some(error);
                stop.store(true, Ordering::Release);
            }
        }
    }
    for handle in handles {
        if handle.join().is_err() {
            failure.get_or_insert(Error::Executor("it ended by a panic".into()));
        }
    }
    watcher.close();
    // The thread ends with its iterator; there is nothing to learn from it.
    drop(signal_thread.join());
    failure.map_or(Ok(()), Err)
}

fn announce(address: &Address, etcd: &Address, peer: Option<SocketAddr>, data_dir: &DataDir) {
    let peer = peer.map_or_else(String::new, |peer| format!(" peer={peer}"));
    let mut out = std::io::stdout().lock();
    let line = format!(
        "ready native={address} etcd={etcd}{peer} pid={} data={}\n",
        std::process::id(),
        data_dir.path().display()
    );
    // A closed standard output is no reason not to serve.
    drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
}
