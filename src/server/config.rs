//! What an operator can decide. Everything else is derived.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::{MEMBER_ADDRESS_SIZE_MAX, MEMBER_NAME_SIZE_MAX};

use base::Duration;
use base::limits::{TXN_OPS_MAX, TXN_OPS_MAX_DEFAULT, VALUE_SIZE_MAX, VALUE_SIZE_MAX_DEFAULT};

use crate::Error;

/// How roles are put on cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// All roles on one core up to two cores; from three on each of consensus and store has one.
    Auto,
    /// All roles on the first core; further cores carry a reactor each.
    Shared,
    /// Consensus on the first core, the store on the second, a reactor on each further one. With
    /// fewer than three cores the executors share what there is.
    Dedicated,
}

/// How a WAL group is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMethod {
    /// Measured at the start.
    Auto,
    /// The write, then fdatasync.
    Fdatasync,
    /// One write with O_DSYNC.
    Dsync,
}

/// The member and the others of its cluster. All but the addresses hold for a new data directory only.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Name of this member, for people.
    pub name: String,
    /// Where other members reach it; port 0 takes a free one. Needed in a cluster of several.
    pub listen_peer: Option<SocketAddr>,
    /// The same as others know it: HOST:PORT. What it listens on if absent.
    pub advertise_peer: Option<String>,
    /// Where clients reach it, as others know it: HOST:PORT. What it listens on if absent.
    pub advertise_client: Option<String>,
    /// The founders, or the members to ask: name and HOST:PORT. Empty: a cluster of one.
    pub initial_cluster: Vec<(String, String)>,
    /// Join a cluster that exists.
    pub existing: bool,
    /// Go on without all other members: what only they have is given up.
    pub alone: bool,
    /// Tells clusters with the same founders apart.
    pub token: String,
}

impl ClusterConfig {
    /// Token of a cluster that is not told otherwise.
    pub const TOKEN_DEFAULT: &'static str = "quorate-cluster";

    /// Where other members find this one.
    pub fn advertised_peer(&self) -> Option<String> {
        self.advertise_peer.clone().or_else(|| self.listen_peer.map(|address| address.to_string()))
    }

    /// Where it listens for other members: as told, else at its own address in the list of founders.
    pub fn peer_address(&self) -> Result<Option<SocketAddr>, Error> {
        let own = self.initial_cluster.iter().find(|(name, _)| *name == self.name);
        match (self.listen_peer, own) {
            (Some(address), _) => Ok(Some(address)),
            (None, None) => Ok(None),
            (None, Some((_, address))) => address.parse().map(Some).map_err(|_| {
                Error::Config(format!(
                    "--initial-cluster gives this member the address {address}, which is no \
                     IP:PORT to listen on; say --listen-peer"
                ))
            }),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::Config(text));
        if !wire::is_member_name(&self.name) {
            return refuse(format!(
                "--name is {:?}; use 1 to {MEMBER_NAME_SIZE_MAX} visible ASCII characters without = \
                 and ,",
                self.name
            ));
        }
        if self.existing && self.initial_cluster.is_empty() {
            return refuse(
                "--initial-cluster-state existing needs --initial-cluster with the members to ask"
                    .into(),
            );
        }
        for (name, address) in &self.initial_cluster {
            if !wire::is_member_name(name) || !wire::is_member_address(address) {
                return refuse(format!(
                    "--initial-cluster has {name}={address}; write NAME=HOST:PORT, with names to \
                     {MEMBER_NAME_SIZE_MAX} and addresses to {MEMBER_ADDRESS_SIZE_MAX} visible ASCII \
                     characters"
                ));
            }
        }
        for (place, (name, address)) in self.initial_cluster.iter().enumerate() {
            let before = &self.initial_cluster[..place];
            if let Some(other) = before.iter().find(|other| other.0 == *name || other.1 == *address)
            {
                return refuse(format!(
                    "--initial-cluster has {}={} and {name}={address}; every member has a name and \
                     an address of its own",
                    other.0, other.1
                ));
            }
        }
        let has_own = self.initial_cluster.iter().any(|(name, _)| *name == self.name);
        if !self.initial_cluster.is_empty() && !self.existing && !has_own {
            return refuse(format!(
                "--initial-cluster does not name this member, {}; every founder gets the same list",
                self.name
            ));
        }
        Ok(())
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            name: "default".into(),
            listen_peer: None,
            advertise_peer: None,
            advertise_client: None,
            initial_cluster: Vec::new(),
            existing: false,
            alone: false,
            token: Self::TOKEN_DEFAULT.into(),
        }
    }
}

/// How members notice that the leader has gone, and what they do then. The same on all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elections {
    /// Between two heartbeats of the leader.
    pub heartbeat_interval: Duration,
    /// A member that hears of no leader for this long, up to twice as long, asks for votes.
    pub timeout: Duration,
    /// It asks first whether it would get them.
    pub pre_vote: bool,
}

impl Elections {
    /// For members on one local network.
    pub const LOCAL: Self = Self {
        heartbeat_interval: raft::Options::LOCAL.heartbeat_interval,
        timeout: raft::Options::LOCAL.election_timeout,
        pre_vote: raft::Options::LOCAL.pre_vote,
    };
    /// Longest time-out: etcd's.
    pub const TIMEOUT_MAX: Duration = Duration::from_millis(50_000);

    /// Refuses what etcd refuses, in its words.
    fn check(&self) -> Result<(), Error> {
        let ms = |time: Duration| time.as_nanos() / 1_000_000;
        let (heartbeat, timeout) = (ms(self.heartbeat_interval), ms(self.timeout));
        let refuse = |text: String| Err(Error::Config(text));
        if heartbeat == 0 {
            return refuse(format!("--heartbeat-interval must be >0 (set to {heartbeat}ms)"));
        }
        if timeout == 0 {
            return refuse(format!("--election-timeout must be >0 (set to {timeout}ms)"));
        }
        if timeout < heartbeat.saturating_mul(5) {
            return refuse(format!(
                "--election-timeout[{timeout}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        let max = ms(Self::TIMEOUT_MAX);
        if timeout > max {
            return refuse(format!(
                "--election-timeout[{timeout}ms] is too long, and should be set less than {max}ms"
            ));
        }
        Ok(())
    }

    /// The same for raft.
    pub(crate) fn options(&self) -> raft::Options {
        raft::Options {
            heartbeat_interval: self.heartbeat_interval,
            election_timeout: self.timeout,
            pre_vote: self.pre_vote,
            ..raft::Options::LOCAL
        }
    }
}

/// What etcd's clients meet that an operator of etcd can decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EtcdApi {
    /// Largest write, as etcd has it in its log.
    pub write_size_max: usize,
    /// How often a watch is told its progress that asks for it, in milliseconds.
    pub progress_interval_ms: u32,
    /// Streams of one HTTP/2 connection at a time.
    pub streams_max: u32,
    /// How long calls took is told by method under gRPC's names, too (etcd's --metrics=extensive).
    pub extensive_metrics: bool,
    /// Learners that the cluster may have when one more is added here.
    pub learners_max: usize,
}

impl EtcdApi {
    /// As etcd has it.
    pub const DEFAULT: Self = Self {
        write_size_max: VALUE_SIZE_MAX_DEFAULT,
        progress_interval_ms: 600_000,
        streams_max: u32::MAX,
        extensive_metrics: false,
        learners_max: 1,
    };
    /// Most frequent progress: etcd's, and what reactors look at.
    pub const PROGRESS_INTERVAL_MIN_MS: u32 = 100;
}

/// Where connections are waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// At this address of a network; port 0 takes a free one.
    Tcp(SocketAddr),
    /// At this path of the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// What is served to who connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    /// The native protocol and etcd's, gRPC and JSON.
    Everything,
    /// What etcd offers over HTTP/1.1: JSON, health, version, figures.
    Http,
    /// Health and figures, nothing else.
    Metrics,
}

/// An address and what is served there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entrance {
    /// The address.
    pub address: Address,
    /// What is served.
    pub serves: Serves,
}

impl Entrance {
    /// For clients of both protocols.
    pub fn for_clients(address: impl Into<Address>) -> Self {
        Self { address: address.into(), serves: Serves::Everything }
    }
}

/// How a server says that it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TellsReady {
    /// By a line on standard output with its addresses.
    OnStandardOutput,
    /// By a line of its log, in etcd's words.
    AsEtcd,
}

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; made when it is not there.
    pub data_dir: PathBuf,
    /// Where clients are waited for.
    pub listen: Address,
    /// Further addresses: for those that look for etcd at its own port, for scrapers.
    pub entrances: Vec<Entrance>,
    /// The member and its cluster.
    pub cluster: ClusterConfig,
    /// How its leader is found.
    pub elections: Elections,
    /// Refuse to remove a member where those that are left and run would be no majority.
    pub strict_removals: bool,
    /// Cores to run on, as numbered by the system; empty: all that the process may use.
    pub cores: Vec<usize>,
    /// How roles are put on them.
    pub topology: Topology,
    /// Bytes of the page cache: pages, and the blocks and buffers through which they pass.
    pub page_cache_size: u64,
    /// Bytes of a WAL segment; holds for a new data directory.
    pub wal_segment_size: u64,
    /// Greatest value in bytes.
    pub value_size_max: usize,
    /// Compares, or operations of one branch, of a transaction.
    pub txn_ops_max: usize,
    /// Bytes of keys and history, as pages in use, from which on only deletes and compaction are taken;
    /// 0: there is no such limit.
    pub quota_size: u64,
    /// Newest entries of the log that are kept for members that are behind, unless they are more than
    /// 256 MiB.
    pub log_entries_kept: u64,
    /// What etcd's clients meet.
    pub etcd: EtcdApi,
    /// Origins whose pages a browser lets read what is answered over HTTP; `*`: all of them.
    pub origins: Vec<String>,
    /// Bytes of states that are sent to members behind the log in a second, at most.
    pub transfer_rate: u64,
    /// When a lease expires each of its keys is deleted in a revision of its own, not all in one.
    pub lease_per_key: bool,
    /// What history is kept without anybody asking for a compaction.
    pub retention: node::Retention,
    /// How it says that it serves.
    pub tells_ready: TellsReady,
    /// How a WAL group is made durable.
    pub sync: SyncMethod,
    /// Go on where the file system has no O_DIRECT. For development: slower, and a lost write may
    /// go unnoticed.
    pub unsafe_buffered: bool,
}

impl Config {
    /// Bytes of the page cache for pages. The rest, a quarter and at most 16 MiB, is for what is on its
    /// way between sockets, log, cache and disk.
    pub fn pages_size(&self) -> u64 {
        self.page_cache_size - (self.page_cache_size / 4).min(16 << 20)
    }

    /// Page cache of a server that is not told otherwise: 1 GiB.
    pub const PAGE_CACHE_SIZE_DEFAULT: u64 = 1 << 30;
    /// Smallest page cache: one greatest value and its checkpoint, and the branches of a large tree.
    pub const PAGE_CACHE_SIZE_MIN: u64 = 32 << 20;
    /// Segment size of a data directory that is not told otherwise: 64 MiB.
    pub const WAL_SEGMENT_SIZE_DEFAULT: u64 = 64 << 20;
    /// Slowest transfer of states: a chunk of one takes a quarter of a second, far from the time after
    /// which it is given up.
    pub const TRANSFER_RATE_MIN: u64 = 1 << 20;
    /// Smallest segment: it must hold a group with one greatest value.
    pub const WAL_SEGMENT_SIZE_MIN: u64 = 8 << 20;

    /// A server on `data_dir` with defaults for everything else.
    pub fn new(data_dir: PathBuf, listen: impl Into<Address>) -> Self {
        Self {
            data_dir,
            listen: listen.into(),
            entrances: Vec::new(),
            cluster: ClusterConfig::default(),
            elections: Elections::LOCAL,
            strict_removals: true,
            cores: Vec::new(),
            topology: Topology::Auto,
            page_cache_size: Self::PAGE_CACHE_SIZE_DEFAULT,
            wal_segment_size: Self::WAL_SEGMENT_SIZE_DEFAULT,
            value_size_max: VALUE_SIZE_MAX_DEFAULT,
            txn_ops_max: TXN_OPS_MAX_DEFAULT,
            quota_size: 0,
            log_entries_kept: node::ForPeers::SERVER.log_entries,
            etcd: EtcdApi::DEFAULT,
            origins: Vec::new(),
            transfer_rate: node::TRANSFER_RATE,
            lease_per_key: false,
            retention: node::Retention::Everything,
            tells_ready: TellsReady::OnStandardOutput,
            sync: SyncMethod::Auto,
            unsafe_buffered: false,
        }
    }

    /// Refuses what cannot work, naming the value.
    pub fn check(&self) -> Result<(), Error> {
        self.cluster.check()?;
        self.elections.check()?;
        let refuse = |text: String| Err(Error::Config(text));
        if self.value_size_max == 0 || self.value_size_max > VALUE_SIZE_MAX {
            return refuse(format!(
                "the greatest value size is {} bytes; choose 1 to {VALUE_SIZE_MAX}",
                self.value_size_max
            ));
        }
        if self.txn_ops_max > TXN_OPS_MAX {
            return refuse(format!(
                "a transaction may have {} operations; choose 0 to {TXN_OPS_MAX} (--max-txn-ops)",
                self.txn_ops_max
            ));
        }
        if self.page_cache_size < Self::PAGE_CACHE_SIZE_MIN {
            return refuse(format!(
                "the page cache has {} bytes; give it at least {}",
                self.page_cache_size,
                Self::PAGE_CACHE_SIZE_MIN
            ));
        }
        if self.transfer_rate < Self::TRANSFER_RATE_MIN {
            return refuse(format!(
                "states are sent to other members at {} bytes a second; allow at least {}",
                self.transfer_rate,
                Self::TRANSFER_RATE_MIN
            ));
        }
        let body = base::limits::body_size_max(self.value_size_max) as u64;
        let segment_min = Self::WAL_SEGMENT_SIZE_MIN.max(body * 2);
        if self.wal_segment_size < segment_min || !self.wal_segment_size.is_multiple_of(1 << 20) {
            return refuse(format!(
                "the WAL segment size is {} bytes; choose a multiple of 1 MiB from {segment_min} \
                 on, so that a segment holds a group with one greatest value",
                self.wal_segment_size
            ));
        }
        Ok(())
    }
}
