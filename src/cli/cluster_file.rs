//! What a folder remembers of the cluster in it: who the members are and where they listen. Written
//! once, when the folder is new, so that a later start finds the same cluster.
//!
//! ```text
//! DIR/cluster.json   {"format":1,"members":[{"name":"n1","client":"127.0.0.1:17001","peer":".."},..]}
//! DIR/n1 ...         data directories
//! DIR/lock           held by the process that runs the cluster
//! ```

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde_json::{Value, json};

use super::failure::Failure;

/// Members of a new cluster that is not told otherwise.
const MEMBERS_DEFAULT: usize = 3;

/// The first port that is tried, at the least: those below are for others.
const PORT_MIN: u16 = 10_000;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMember {
    /// Its name, and that of its data directory.
    pub name: String,
    /// Where it listens for clients.
    pub client: SocketAddr,
    /// Where it listens for other members.
    pub peer: SocketAddr,
}

/// The folder, held as long as the value lives, and its members.
#[derive(Debug)]
pub struct ClusterFolder {
    /// The members.
    pub members: Vec<LocalMember>,
    /// Unlocked when it is closed.
    _lock: File,
}

impl ClusterFolder {
    /// Reads what the folder remembers, or makes the folder with `nodes` members on `host`.
    ///
    /// # Errors
    /// Another process runs the cluster, the folder has another cluster than is asked for, what it
    /// remembers cannot be read, or there are no free ports.
    pub fn open(path: &Path, nodes: Option<usize>, host: Option<IpAddr>) -> Result<Self, Failure> {
        fs::create_dir_all(path).map_err(|error| failed(path, error))?;
        let lock = lock(path)?;
        let file = path.join("cluster.json");
        let members = match fs::read_to_string(&file) {
            Ok(text) => {
                let members = parse(&text).ok_or_else(|| {
                    Failure::Stopped(format!(
                        "{} is not what this release wrote there; put it back, or begin a new cluster \
                         in another folder",
                        file.display()
                    ))
                })?;
                agree(path, &members, nodes, host)?;
                members
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                let members = choose(nodes.unwrap_or(MEMBERS_DEFAULT), host)?;
                write(path, &text(&members)).map_err(|error| failed(&file, error))?;
                members
            }
            Err(error) => return Err(failed(&file, error)),
        };
        Ok(Self { members, _lock: lock })
    }
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::Io(path.display().to_string(), error)
}

fn lock(path: &Path) -> Result<File, Failure> {
    let path = path.join("lock");
    let lock = File::create(&path).map_err(|error| failed(&path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::Stopped(format!(
            "{} is locked: another `quorate local-cluster` runs there; stop it first",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(&path, error)),
    }
}

/// A cluster that exists is not changed by the flags of a later start.
fn agree(
    path: &Path,
    members: &[LocalMember],
    nodes: Option<usize>,
    host: Option<IpAddr>,
) -> Result<(), Failure> {
    if nodes.is_some_and(|nodes| nodes != members.len()) {
        return Err(Failure::Arguments(format!(
            "{} holds a cluster of {}; leave --nodes out, or begin another cluster in another folder",
            path.display(),
            members.len()
        )));
    }
    let elsewhere = |host| members.iter().find(|member| member.client.ip() != host);
    if let Some(member) = host.and_then(elsewhere) {
        return Err(Failure::Arguments(format!(
            "the cluster in {} listens on {}; leave --listen-base out, or begin another cluster in \
             another folder",
            path.display(),
            member.client.ip()
        )));
    }
    Ok(())
}

fn text(members: &[LocalMember]) -> String {
    let members: Vec<Value> = members
        .iter()
        .map(|member| {
            let (client, peer) = (member.client.to_string(), member.peer.to_string());
            json!({ "name": member.name, "client": client, "peer": peer })
        })
        .collect();
    format!("{:#}\n", json!({ "format": 1, "members": members }))
}

/// None for anything that [`text`] does not write: names become paths.
fn parse(text: &str) -> Option<Vec<LocalMember>> {
    let object: Value = serde_json::from_str(text).ok()?;
    if object["format"] != 1 {
        return None;
    }
    let read = |(index, member): (usize, &Value)| {
        let name = member["name"].as_str()?.to_owned();
        let address = |field: &str| member[field].as_str()?.parse().ok();
        let member = LocalMember { name, client: address("client")?, peer: address("peer")? };
        (member.name == name_of(index)).then_some(member)
    };
    let members: Vec<LocalMember> =
        object["members"].as_array()?.iter().enumerate().map(read).collect::<Option<_>>()?;
    (!members.is_empty()).then_some(members)
}

fn name_of(index: usize) -> String {
    format!("n{}", index + 1)
}

/// Whole or not at all: half a file would leave a cluster that cannot be started.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.join("cluster.json.new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path.join("cluster.json"))?;
    File::open(path)?.sync_all()
}

/// Members with ports that nobody listens on.
fn choose(nodes: usize, host: IpAddr) -> Result<Vec<LocalMember>, Failure> {
    // Held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    let mut free = || -> Result<SocketAddr, Failure> {
        let listener = free_port(host).map_err(|error| Failure::Io(host.to_string(), error))?;
        let address = listener.local_addr();
        held.push(listener);
        address.map_err(|error| Failure::Io(host.to_string(), error))
    };
    let member = |index| Ok(LocalMember { name: name_of(index), client: free()?, peer: free()? });
    (0..nodes).map(member).collect()
}

/// A port outside of the range from which the kernel takes those of outgoing connections: one of them
/// could have it when a member comes back. From anywhere, so that clusters that begin at the same time
/// rarely meet.
fn free_port(host: IpAddr) -> io::Result<TcpListener> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing = range.split_whitespace().next().and_then(|first| first.parse().ok());
    let count = u64::from(outgoing.unwrap_or(PORT_MIN).saturating_sub(PORT_MIN));
    let mut tried = HashSet::new();
    for _ in 0..count.min(100) {
        let chance = RandomState::new().build_hasher().finish() % count;
        let port = PORT_MIN + u16::try_from(chance).expect("a distance between two ports");
        if tried.insert(port)
            && let Ok(listener) = TcpListener::bind((host, port))
        {
            return Ok(listener);
        }
    }
    TcpListener::bind((host, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let members = choose(3, HOST).expect("there are free ports");
        let written = text(&members);
        assert_eq!(parse(&written).as_ref(), Some(&members));
        for bad in [
            String::new(),
            "{}".into(),
            written.replace("\"format\": 1", "\"format\": 2"),
            written.replace("n2", "../n2"),
            written.replace("n2", "n1"),
            written.replace("\"peer\"", "\"pair\""),
            written.replace("127.0.0.1:", "127.0.0.1"),
            r#"{"format":1,"members":[]}"#.into(),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn every_address_is_another_one() {
        let members = choose(7, HOST).expect("there are free ports");
        let addresses: HashSet<SocketAddr> =
            members.iter().flat_map(|member| [member.client, member.peer]).collect();
        assert_eq!(addresses.len(), 14);
        assert_eq!(members[6].name, "n7");
    }

    #[test]
    fn flags_of_a_later_start_may_repeat_what_is_there_but_not_change_it() {
        let path = Path::new("d");
        let members = choose(3, HOST).expect("there are free ports");
        let other = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        for (nodes, host, agrees) in [
            (None, None, true),
            (Some(3), Some(HOST), true),
            (Some(5), None, false),
            (None, Some(other), false),
        ] {
            assert_eq!(agree(path, &members, nodes, host).is_ok(), agrees, "{nodes:?} {host:?}");
        }
    }
}
