//! The servers under test: who they are, where they are now, and how each is started again.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::Prng;
use client::{Client, MemberStatus, Options};
use rustix::process::Signal;

use crate::process::Process;
use crate::proxy::Proxy;

/// How long a start or a stop may take before it counts as a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where clients find the members now: address, and the number of the start. None: it is down.
pub type Directory = Arc<Mutex<Vec<Option<(SocketAddr, u32)>>>>;

/// What a cluster is started with.
pub struct Setup {
    /// The binary of the server.
    pub binary: PathBuf,
    /// A folder of its own.
    pub folder: PathBuf,
    /// How many members.
    pub nodes: usize,
    /// Whether members meet through a proxy.
    pub is_proxied: bool,
    /// A folder on a small disk, for the data of the last member.
    pub disk: Option<PathBuf>,
    /// The page cache of each member, as the server takes it.
    pub page_cache: String,
    /// Whether each member serves its clients at the same address after each start.
    pub keeps_addresses: bool,
}

/// A member.
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its id; 0 until it has been asked.
    pub id: u64,
    /// Its place in the proxy.
    pub place: usize,
    /// Where it listens for clients; port 0: wherever the system gives it a port.
    serves: SocketAddr,
    /// Where it listens for the others.
    listen: SocketAddr,
    /// Where the others dial it.
    pub peer: SocketAddr,
    /// Its data.
    pub data_dir: PathBuf,
    /// Its process, if it runs, stopped or not.
    pub process: Option<Process>,
    /// Whether SIGSTOP holds it.
    pub is_paused: bool,
    /// The members it is started with, and whether they are there already.
    initial: String,
    is_joining: bool,
    log: PathBuf,
}

/// The members.
pub struct Cluster {
    setup: Setup,
    /// The members.
    pub members: Vec<Member>,
    /// The network between them.
    pub proxy: Proxy,
    directory: Directory,
    starts: u32,
    names: usize,
    cluster: u64,
    prng: Prng,
}

impl Cluster {
    /// Starts all members and waits until they serve.
    ///
    /// # Errors
    /// In words: what cannot be made or does not start.
    pub fn start(setup: Setup, seed: u64) -> Result<Self, String> {
        fs::create_dir_all(&setup.folder)
            .map_err(|error| format!("{}: {error}", setup.folder.display()))?;
        let nodes = setup.nodes;
        let mut cluster = Self {
            setup,
            members: Vec::new(),
            proxy: Proxy::default(),
            directory: Arc::new(Mutex::new(vec![None; nodes])),
            starts: 0,
            names: 0,
            cluster: 0,
            prng: Prng::new(seed).fork("cluster"),
        };
        for index in 0..nodes {
            let member = cluster.member(index)?;
            cluster.members.push(member);
        }
        let list: Vec<String> = cluster
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer))
            .collect();
        for member in &mut cluster.members {
            member.initial = list.join(",");
        }
        for index in 0..nodes {
            cluster.spawn(index)?;
        }
        for index in 0..nodes {
            cluster.await_ready(index)?;
        }
        Ok(cluster)
    }

    /// A member that takes the place of index `index`: a new name, a new address, an empty folder.
    fn member(&mut self, index: usize) -> Result<Member, String> {
        self.names += 1;
        let name = format!("n{}", self.names);
        let listen = self.free_port().ok_or("no free port")?;
        let (place, peer) = if self.setup.is_proxied {
            self.proxy.add(listen).map_err(|error| format!("no port for a proxy: {error}"))?
        } else {
            (0, listen)
        };
        let serves = if self.setup.keeps_addresses {
            self.free_port().ok_or("no free port")?
        } else {
            SocketAddr::from(([127, 0, 0, 1], 0))
        };
        let parent = match &self.setup.disk {
            Some(disk) if index + 1 == self.setup.nodes => disk,
            _ => &self.setup.folder,
        };
        Ok(Member {
            id: 0,
            place,
            serves,
            listen,
            peer,
            data_dir: parent.join(&name),
            process: None,
            is_paused: false,
            initial: String::new(),
            is_joining: false,
            log: self.setup.folder.join(format!("{name}.log")),
            name,
        })
    }

    /// A port that nobody has, outside of those that the kernel gives to outgoing connections: it must
    /// still be free when the member is started again.
    fn free_port(&mut self) -> Option<SocketAddr> {
        let range =
            fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let end =
            range.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(32_768);
        (0..1_000).find_map(|_| {
            let port =
                10_000 + self.prng.next_u64() % u64::max(1, u64::saturating_sub(end, 10_000));
            let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).ok()?));
            TcpListener::bind(address).ok().map(|_| address)
        })
    }

    /// Where clients find the members.
    pub fn directory(&self) -> Directory {
        Arc::clone(&self.directory)
    }

    /// The binary under test.
    pub fn binary(&self) -> &Path {
        &self.setup.binary
    }

    /// The cluster's id.
    pub fn id(&self) -> u64 {
        self.cluster
    }

    /// The member with a small disk, and a folder there.
    pub fn disk(&self) -> Option<(usize, &Path)> {
        Some((self.setup.nodes - 1, self.setup.disk.as_deref()?))
    }

    fn enter(&self, index: usize, entry: Option<(SocketAddr, u32)>) {
        self.directory.lock().expect("nobody panics under this lock")[index] = entry;
    }

    /// Where clients find a member; nothing while it is down.
    pub fn address(&self, index: usize) -> Option<SocketAddr> {
        self.directory.lock().expect("nobody panics under this lock")[index].map(|entry| entry.0)
    }

    /// Starts a member's process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self, index: usize) -> Result<(), String> {
        let member = &mut self.members[index];
        let mut command = Command::new(&self.setup.binary);
        command.args(["server", "--page-cache", &self.setup.page_cache]);
        command.args(["--wal-segment-size", "8MiB"]);
        command.args(["--listen", &member.serves.to_string(), "--name", &member.name]);
        command
            .args(["--initial-cluster", &member.initial])
            .arg("--data-dir")
            .arg(&member.data_dir);
        command.args(["--advertise-peer", &member.peer.to_string()]);
        command.args(["--listen-peer", &member.listen.to_string()]);
        if member.is_joining {
            command.args(["--initial-cluster-state", "existing"]);
        }
        let process = Process::start(command, &member.log)
            .map_err(|error| format!("{}: {error}", self.setup.binary.display()))?;
        member.process = Some(process);
        member.is_paused = false;
        Ok(())
    }

    /// Waits until a member that was spawned serves.
    ///
    /// # Errors
    /// How it ended instead, or that it did nothing.
    pub fn await_ready(&mut self, index: usize) -> Result<(), String> {
        let member = &mut self.members[index];
        let process = member.process.as_mut().ok_or("it was not started")?;
        let Some(ready) = process.ready(PATIENCE) else {
            let status = process.ended_within(Duration::from_secs(5));
            let said = process.stderr();
            if status.is_some() {
                member.process = None;
            }
            let how = status.map_or("it does not get ready".into(), |status| status.to_string());
            return Err(format!("{} did not start: {how}: {said}", member.name));
        };
        self.starts += 1;
        let start = self.starts;
        let client = self.client_at(ready, Duration::from_secs(5))?;
        if let Some(server) = client.server() {
            self.cluster = server.cluster;
            self.members[index].id = server.member.get();
        }
        self.enter(index, Some((ready, start)));
        Ok(())
    }

    /// Starts a member and waits until it serves.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn restart(&mut self, index: usize) -> Result<(), String> {
        self.spawn(index)?;
        self.await_ready(index)
    }

    /// Ends a member with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.enter(index, None);
        self.members[index].process = None;
        self.members[index].is_paused = false;
    }

    /// Ends a member with SIGKILL and does not wait for its end; [`Self::kill`] does.
    pub fn kill_at_once(&mut self, index: usize) {
        if let Some(process) = &self.members[index].process {
            process.signal(Signal::KILL);
        }
        self.enter(index, None);
    }

    /// Stops a member's process where it is.
    pub fn pause(&mut self, index: usize) {
        if let Some(process) = &self.members[index].process {
            process.signal(Signal::STOP);
            self.members[index].is_paused = true;
        }
    }

    /// Lets it go on.
    pub fn resume(&mut self, index: usize) {
        if let Some(process) = &self.members[index].process {
            process.signal(Signal::CONT);
        }
        self.members[index].is_paused = false;
    }

    /// Asks all members to stop and waits for it.
    ///
    /// # Errors
    /// The first one that does not, or not cleanly.
    pub fn stop(&mut self) -> Result<(), String> {
        for member in &self.members {
            if let Some(process) = &member.process {
                process.signal(Signal::TERM);
            }
        }
        for index in 0..self.members.len() {
            self.enter(index, None);
            let member = &mut self.members[index];
            let Some(mut process) = member.process.take() else { continue };
            match process.ended_within(PATIENCE) {
                Some(status) if status.success() => {}
                Some(status) => {
                    return Err(format!(
                        "{} stopped with {status}: {}",
                        member.name,
                        process.stderr()
                    ));
                }
                None => return Err(format!("{} does not stop", member.name)),
            }
        }
        Ok(())
    }

    /// Members that have ended although nobody ended them, with what they said last.
    pub fn fallen(&mut self) -> Vec<(usize, String)> {
        let mut fallen = Vec::new();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            let Some(process) = &mut member.process else { continue };
            let Some(status) = process.ended() else { continue };
            fallen.push((
                index,
                format!("{} ended with {status}: {}", member.name, process.stderr()),
            ));
            member.process = None;
            self.enter(index, None);
        }
        fallen
    }

    /// Whether so many members run, are not stopped and hear each other that one of them can lead.
    pub fn has_quorum(&self) -> bool {
        let count = self.members.len();
        let works = |member: &Member| member.process.is_some() && !member.is_paused;
        let hears = |one: &Member, other: &Member| !self.proxy.is_held(other.id, one.place);
        self.members.iter().filter(|member| works(member)).any(|leader| {
            let meets = |other: &&Member| {
                other.id == leader.id
                    || (works(other) && hears(leader, other) && hears(other, leader))
            };
            self.members.iter().filter(meets).count() > count / 2
        })
    }

    /// A client of one address.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn client_at(&self, address: SocketAddr, timeout: Duration) -> Result<Client, String> {
        let options = Options {
            connect_timeout: timeout,
            request_timeout: timeout,
            client_name: "chaos".into(),
            cluster: self.cluster,
        };
        Client::connect([address.to_string()], options).map_err(|error| error.to_string())
    }

    /// What a member says of itself; nothing if it does not answer soon.
    pub fn status(&self, index: usize) -> Option<MemberStatus> {
        if self.members[index].is_paused {
            return None;
        }
        let address = self.address(index)?;
        self.client_at(address, Duration::from_millis(300)).ok()?.status().ok()
    }

    /// The index of the leader, as the member of the newest term sees it.
    pub fn leader(&self) -> Option<usize> {
        let statuses = (0..self.members.len()).filter_map(|index| self.status(index));
        let newest =
            statuses.filter(|status| status.leader.get() != 0).max_by_key(|status| status.term)?;
        self.members.iter().position(|member| member.id == newest.leader.get())
    }

    /// True if the cluster's list has this member as one that votes.
    pub fn votes(&self, index: usize) -> bool {
        let id = self.members[index].id;
        let listed = |other: usize| {
            let mut client = self.client_at(self.address(other)?, Duration::from_secs(1)).ok()?;
            let list = client.member_list().ok()?.list;
            Some(
                list.members.iter().any(|member| {
                    member.id.get() == id && member.role == client::MemberRole::Voter
                }),
            )
        };
        (0..self.members.len())
            .filter(|other| *other != index)
            .all(|other| listed(other) == Some(true))
    }

    /// Runs a command of the binary with the endpoints of all members that are up but `without`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn command(&self, arguments: &[&str], without: Option<usize>) -> Result<Output, String> {
        let endpoints: Vec<String> = (0..self.members.len())
            .filter(|index| Some(*index) != without)
            .filter_map(|index| Some(self.address(index)?.to_string()))
            .collect();
        Command::new(&self.setup.binary)
            .args(arguments)
            .args(["--endpoint", &endpoints.join(",")])
            .output()
            .map_err(|error| format!("{}: {error}", self.setup.binary.display()))
    }

    /// The members as a new one is given them, if it is among them.
    fn listed(&self, without: usize, new: &str) -> Option<String> {
        let said = self.command(&["member", "list", "-w", "json"], Some(without)).ok()?;
        let list: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
        let members = list["members"].as_array()?;
        let text =
            |member: &serde_json::Value, field: &str| member[field].as_str().map(str::to_owned);
        let names: Vec<String> = members.iter().filter_map(|member| text(member, "name")).collect();
        let addresses = members.iter().filter_map(|member| text(member, "peer_address"));
        let pairs = names.iter().zip(addresses).map(|(name, address)| format!("{name}={address}"));
        let pairs: Vec<String> = pairs.collect();
        names.iter().any(|name| name == new).then(|| pairs.join(","))
    }

    /// Puts a new member in the place of one whose process is down, as the handbook says, and starts it.
    ///
    /// # Errors
    /// What the cluster or the new member answered.
    pub fn replace(&mut self, index: usize) -> Result<(), String> {
        let mut new = self.member(index)?;
        let old = self.members[index].name.clone();
        let peer = new.peer.to_string();
        let said = self.command(
            &["member", "replace", &old, "--new-name", &new.name, "--peer", &peer],
            Some(index),
        )?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        new.initial = if said.status.success() {
            // The answer is the command that starts the new one.
            let mut words = text.split_whitespace();
            words
                .by_ref()
                .skip_while(|word| *word != "--initial-cluster")
                .nth(1)
                .ok_or_else(|| {
                    format!("member replace does not say how to start the new member: {text}")
                })?
                .to_owned()
        } else {
            // An outcome may be unknown; the list tells it.
            self.listed(index, &new.name).ok_or_else(|| {
                let stderr = String::from_utf8_lossy(&said.stderr);
                format!("member replace {old}: {stderr}{text}")
            })?
        };
        new.is_joining = true;
        drop(fs::remove_dir_all(&self.members[index].data_dir));
        self.members[index] = new;
        self.restart(index)
    }
}
