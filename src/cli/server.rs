//! `server`: the flags of a server, and the configuration that they stand for.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::retention::{self, Mode};
use super::size;

/// How roles are put on cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// All roles on one core.
    Shared,
    /// A core for each role.
    Dedicated,
    /// By the number of cores.
    Auto,
}

/// How a group of the write-ahead log is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// What a short measurement at the start finds faster.
    Auto,
    /// A write, then fdatasync.
    Fdatasync,
    /// One write with O_DSYNC.
    Dsync,
}

/// Whether the cluster of a new member exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// All members begin together.
    New,
    /// The member has been added to a cluster that runs.
    Existing,
}

pub fn founder(text: &str) -> Result<(String, String), String> {
    let (name, address) =
        text.split_once('=').ok_or_else(|| format!("\"{text}\" is not NAME=HOST:PORT"))?;
    // etcd writes URLs here.
    let address = address.strip_prefix("http://").unwrap_or(address);
    Ok((name.to_string(), address.to_string()))
}

/// Where clients are waited for by default: those of the native protocol, and those of etcd.
const NATIVE: ([u8; 4], u16) = ([127, 0, 0, 1], 2400);
/// See [`NATIVE`].
const ETCD: ([u8; 4], u16) = ([127, 0, 0, 1], 2379);

/// Flags of `server`.
#[derive(Clone, Debug, Args)]
pub struct ServerArguments {
    /// Data directory, made where it is missing
    #[arg(long, default_value = "./quorate-data")]
    pub data_dir: PathBuf,
    /// Address for clients; port 0 takes a free one. It takes the native protocol and etcd's (HTTP/2 with
    /// prior knowledge) [default: 127.0.0.1:2400]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// One more address for clients, for those that expect etcd at its own port; it takes the same
    /// [default: 127.0.0.1:2379; none where --listen is given]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_client: Option<SocketAddr>,
    /// Name of this member, for people
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Address for other members, IP:PORT; port 0 takes a free one [default: this member's address in
    /// --initial-cluster; none without it]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_peer: Option<SocketAddr>,
    /// Address where other members find this one, HOST:PORT [default: that of --listen-peer]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_peer: Option<String>,
    /// Address where clients find this member, HOST:PORT, told to clients of other members [default:
    /// that of --listen]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_client: Option<String>,
    /// Members of the cluster that this one begins or joins; holds for a new data directory
    #[arg(long, value_name = "NAME=ADDRESS,...", value_delimiter = ',', value_parser = founder)]
    pub initial_cluster: Vec<(String, String)>,
    /// Whether the cluster begins now or exists; holds for a new data directory
    #[arg(long, default_value = "new")]
    pub initial_cluster_state: ClusterState,
    /// Tells clusters apart that begin with the same members; holds for a new data directory
    #[arg(long, default_value = server::ClusterConfig::TOKEN_DEFAULT)]
    pub initial_cluster_token: String,
    /// Go on as a cluster of this member alone, with what its data directory has: for a cluster that
    /// has lost most of its members for good. What only they had is lost; none of them may run any more.
    /// Give it for one start, then add members
    #[arg(long)]
    pub force_new_cluster: bool,
    /// Cores to run on: how many, or which, like 0,2,4-7; all if absent
    #[arg(long, value_parser = Cores::parse)]
    pub cores: Option<Cores>,
    /// How roles are put on cores
    #[arg(long, default_value = "auto")]
    pub topology: Topology,
    /// Memory for pages of the page file, the blocks between them and the disk included
    #[arg(long, value_parser = size::parse, default_value = "1GiB")]
    pub page_cache: u64,
    /// Size of a file of the write-ahead log, at least 8 MiB and twice the greatest request; holds for a
    /// new data directory
    #[arg(long, value_parser = size::parse, default_value = "64MiB")]
    pub wal_segment_size: u64,
    /// Greatest value, to 16 MiB
    #[arg(long, value_parser = size::parse, default_value = "1.5MiB")]
    pub value_size_max: u64,
    /// Keys and history, as pages in use, from which on only deletes and compaction are taken, until the
    /// alarm NOSPACE is disarmed that this raises; 0: no limit
    #[arg(long, value_parser = size::parse, default_value = "0")]
    pub quota: u64,
    /// Bytes a second, at most, in which this member, when it leads, sends its state to members that are
    /// too far behind for the log; at least 1 MiB
    #[arg(long, value_parser = size::parse, default_value = "256MiB")]
    pub transfer_rate: u64,
    /// When a lease expires delete each of its keys in a revision of its own, instead of all in one
    #[arg(long)]
    pub lease_expiry_per_key: bool,
    /// What --auto-compaction-retention counts
    #[arg(long, default_value = "periodic")]
    pub auto_compaction_mode: Mode,
    /// History that is kept: with periodic a time like 30s, 5m, 72h, where a bare number is hours, with
    /// revision a number of revisions; 0: all of it, until a client compacts. The same on all members
    #[arg(long, value_name = "TIME|REVISIONS", default_value = "0")]
    pub auto_compaction_retention: String,
    /// How a group of the write-ahead log is made durable
    #[arg(long, default_value = "auto")]
    pub sync: Sync,
    /// For development: go on without O_DIRECT. A power cut may then lose what was acknowledged
    #[arg(long)]
    pub unsafe_buffered: bool,
}

/// Which cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// The first so many of those that the process may use.
    Count(usize),
    /// These, as the system numbers them; in order, each once.
    List(Vec<usize>),
}

/// Highest core number that is understood: what the kernel's own masks hold.
const CORE_MAX: usize = 8_191;

impl Cores {
    /// A number is a count; anything with a comma or a dash is a list. `0,` is core 0 alone.
    fn parse(text: &str) -> Result<Self, String> {
        let number =
            |digits: &str| {
                digits.parse().ok().filter(|core| *core <= CORE_MAX).ok_or_else(|| {
                    format!("\"{text}\" is neither a number nor a list like 0,2,4-7")
                })
            };
        if !text.contains([',', '-']) {
            return match number(text)? {
                0 => Err("at least one core is needed".into()),
                count => Ok(Self::Count(count)),
            };
        }
        let mut cores = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            cores.extend(number(first)?..=number(last)?);
        }
        cores.sort_unstable();
        cores.dedup();
        if cores.is_empty() {
            Err(format!("\"{text}\" names no core"))
        } else {
            Ok(Self::List(cores))
        }
    }
}

impl ServerArguments {
    /// The configuration that these flags stand for; what it allows is the server's to say.
    ///
    /// # Errors
    /// More cores are wanted than the process may use.
    fn config(&self) -> Result<server::Config, Failure> {
        let (native, etcd) = (SocketAddr::from(NATIVE), SocketAddr::from(ETCD));
        let listen = self.listen.unwrap_or(native);
        let mut config = server::Config::new(self.data_dir.clone(), listen);
        let second = self.listen_client.or(self.listen.is_none().then_some(etcd));
        config.entrances = second.map(server::Entrance::for_clients).into_iter().collect();
        config.cores = match &self.cores {
            None => Vec::new(),
            Some(Cores::List(cores)) => cores.clone(),
            Some(Cores::Count(count)) => first_cores(*count)?,
        };
        config.topology = match self.topology {
            Topology::Shared => server::Topology::Shared,
            Topology::Dedicated => server::Topology::Dedicated,
            Topology::Auto => server::Topology::Auto,
        };
        config.page_cache_size = self.page_cache;
        config.wal_segment_size = self.wal_segment_size;
        config.value_size_max = usize::try_from(self.value_size_max)
            .map_err(|error| Failure::Arguments(format!("--value-size-max: {error}")))?;
        config.transfer_rate = self.transfer_rate;
        config.quota_size = self.quota;
        config.lease_per_key = self.lease_expiry_per_key;
        config.retention =
            retention::parse(self.auto_compaction_mode, &self.auto_compaction_retention)?;
        config.sync = match self.sync {
            Sync::Auto => server::SyncMethod::Auto,
            Sync::Fdatasync => server::SyncMethod::Fdatasync,
            Sync::Dsync => server::SyncMethod::Dsync,
        };
        config.unsafe_buffered = self.unsafe_buffered;
        config.cluster = server::ClusterConfig {
            name: self.name.clone(),
            listen_peer: self.listen_peer,
            advertise_peer: self.advertise_peer.clone(),
            advertise_client: self.advertise_client.clone(),
            initial_cluster: self.initial_cluster.clone(),
            existing: self.initial_cluster_state == ClusterState::Existing,
            alone: self.force_new_cluster,
            token: self.initial_cluster_token.clone(),
        };
        Ok(config)
    }
}

/// The first `count` cores that this process may use.
fn first_cores(count: usize) -> Result<Vec<usize>, Failure> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|error| Failure::Io(path.into(), error))?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        // A lone number there is a core, not a count.
        .and_then(|list| Cores::parse(&format!("{},", list.trim())).ok());
    match allowed {
        Some(Cores::List(mut cores)) if cores.len() >= count => {
            cores.truncate(count);
            Ok(cores)
        }
        Some(Cores::List(cores)) => Err(Failure::Arguments(format!(
            "--cores {count}: this process may use {} cores",
            cores.len()
        ))),
        Some(Cores::Count(_)) | None => {
            Err(Failure::Arguments(format!("{path} does not tell which cores may be used")))
        }
    }
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// The flags, or why it does not start or does not go on.
pub fn run(arguments: &ServerArguments) -> Result<(), Failure> {
    server::run(&arguments.config()?).map_err(|error| match error {
        server::Error::Config(text) => Failure::Arguments(text),
        error => Failure::Stopped(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::Cores;

    #[test]
    fn cores_are_a_count_or_a_list() {
        assert_eq!(Cores::parse("2"), Ok(Cores::Count(2)));
        assert_eq!(Cores::parse("0,"), Ok(Cores::List(vec![0])));
        assert_eq!(Cores::parse("4-6,0,5"), Ok(Cores::List(vec![0, 4, 5, 6])));
        for text in ["", "0", "a", "1,b", ",", "5-3", "-", "1-", "0-99999999"] {
            assert!(Cores::parse(text).is_err(), "{text}");
        }
    }
}
