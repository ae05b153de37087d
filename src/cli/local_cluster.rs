//! `local-cluster`: several servers on this machine, each a process of its own, watched over by this
//! one.
//!
//! ```text
//! child's stdout ─ thread ─► Line ───┐
//!                  (its end) Ended ──┤
//! child's stderr ─ thread ─► stderr  ├─► events ─► the loop: print, start again, stop
//! SIGINT, SIGTERM ─ thread ─► Signal ┘
//! ```
//!
//! The loop runs on the main thread, which starts all children: see [`supervised`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum as _};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::cluster_file::{ClusterFolder, LocalMember};
use super::failure::Failure;
use super::restarts::{Next, Restarts, STARTS_MAX};
use super::retention::Mode;
use super::server::Topology;
use super::size;
use super::supervised;

/// What `--help` says in full.
pub const LONG_ABOUT: &str = "\
Run a cluster on this machine, for development and tests.

Starts one server per member on loopback, with ports that are chosen at the first start and kept in
DIR/cluster.json, and their data in DIR/n1, DIR/n2 and so on. Prints the ready line of each member with
its name, then \"cluster endpoints=A,B,C\"; what members say goes to standard error with their names. A
member that ends is started again after a second, at most 5 times a minute; one that then never becomes
ready, such as a member that was removed, is left alone. SIGINT (Ctrl-C) or SIGTERM stops all of them
cleanly, a second one at once; they also end when this process does.";

/// How long members may take to stop before they are killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// Events that wait: a member that says more waits itself.
const EVENTS_MAX: usize = 1_024;

/// The exit code of a server that does not understand its flags: another try changes nothing.
const EXIT_ARGUMENTS: i32 = 128;

/// Flags of `local-cluster`.
#[derive(Clone, Debug, Args)]
pub struct LocalClusterArguments {
    /// Members, 1 to 7 [default: 3, or what is in the folder]
    #[arg(long, value_parser = parse_nodes)]
    pub nodes: Option<usize>,
    /// Folder of the cluster, made where it is missing
    #[arg(long, default_value = "./quorate-cluster")]
    pub data_dir: PathBuf,
    /// Address on which all members listen [default: 127.0.0.1, or what is in the folder]
    #[arg(long, value_name = "HOST")]
    pub listen_base: Option<IpAddr>,
    /// Memory of each member for pages of its page file [default: that of `server`]
    #[arg(long, value_parser = size::parse)]
    pub page_cache: Option<u64>,
    /// Size of a file of the write-ahead log; holds for new data directories [default: that of
    /// `server`]
    #[arg(long, value_parser = size::parse)]
    pub wal_segment_size: Option<u64>,
    /// How each member puts its roles on its share of the cores [default: that of `server`]
    #[arg(long)]
    pub topology: Option<Topology>,
    /// What --auto-compaction-retention counts [default: that of `server`]
    #[arg(long)]
    pub auto_compaction_mode: Option<Mode>,
    /// History that each member keeps, as with `server` [default: that of `server`]
    #[arg(long, value_name = "TIME|REVISIONS")]
    pub auto_compaction_retention: Option<String>,
}

fn parse_nodes(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|nodes| (1..=7).contains(nodes))
        .ok_or_else(|| format!("\"{text}\" is not a number from 1 to 7"))
}

/// What happens to the cluster.
enum Event {
    /// A member printed a line.
    Line { member: usize, line: String },
    /// A member closed its standard output: it has ended, or is about to.
    Ended { member: usize },
    /// This process is told to stop.
    Signal,
}

/// A process with the thread that passes its standard error on.
struct Running {
    child: Child,
    stderr: JoinHandle<()>,
}

/// A member and its process.
struct Supervised {
    name: String,
    data_dir: PathBuf,
    flags: Vec<String>,
    running: Option<Running>,
    /// When it is started next; none while it runs or once all is to end.
    due: Option<Instant>,
    restarts: Restarts,
    was_ready: bool,
}

/// Why and since when the cluster is being stopped.
struct Stop {
    since: Instant,
    was_killed: bool,
}

struct Supervisor {
    members: Vec<Supervised>,
    sender: SyncSender<Event>,
    /// The line that is printed when all members have been ready; taken then.
    announcement: Option<String>,
    stop: Option<Stop>,
    /// The first thing that went wrong for good.
    failure: Option<Failure>,
}

/// Runs the cluster until it is told to stop.
///
/// # Errors
/// The folder, members that cannot be started, or members that did not stop cleanly.
pub fn run(arguments: &LocalClusterArguments) -> Result<(), Failure> {
    // Before any child is there: a signal that comes from now on ends them, too.
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::Stopped(format!("signals cannot be watched: {error}")))?;
    let folder = ClusterFolder::open(&arguments.data_dir, arguments.nodes, arguments.listen_base)?;
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    let (signal_sender, handle) = (sender.clone(), signals.handle());
    let watcher = thread::spawn(move || {
        for _ in signals.forever() {
            if signal_sender.send(Event::Signal).is_err() {
                return;
            }
        }
    });
    let cores = allowed_cores();
    let now = Instant::now();
    let members = folder.members.iter().enumerate().map(|(index, member)| Supervised {
        name: member.name.clone(),
        data_dir: arguments.data_dir.join(&member.name),
        flags: flags(arguments, &folder.members, index, &cores),
        running: None,
        due: Some(now),
        restarts: Restarts::default(),
        was_ready: false,
    });
    let endpoints: Vec<String> =
        folder.members.iter().map(|member| member.client.to_string()).collect();
    let mut supervisor = Supervisor {
        members: members.collect(),
        sender,
        announcement: Some(format!("cluster endpoints={}", endpoints.join(","))),
        stop: None,
        failure: None,
    };
    supervisor.turns(&events);
    handle.close();
    drop(events);
    drop(watcher.join());
    supervisor.failure.map_or(Ok(()), Err)
}

/// The flags of a member's server.
fn flags(
    arguments: &LocalClusterArguments,
    members: &[LocalMember],
    index: usize,
    cores: &[usize],
) -> Vec<String> {
    let member = &members[index];
    let cluster: Vec<String> =
        members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    let mut flags: Vec<String> = vec![
        "server".into(),
        "--name".into(),
        member.name.clone(),
        "--listen".into(),
        member.client.to_string(),
        "--listen-peer".into(),
        member.peer.to_string(),
        "--initial-cluster".into(),
        cluster.join(","),
    ];
    let mut option = |name: &str, value: Option<String>| {
        flags.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    option("--cores", share_of_cores(index, members.len(), cores));
    option("--page-cache", arguments.page_cache.map(|size| size.to_string()));
    option("--wal-segment-size", arguments.wal_segment_size.map(|size| size.to_string()));
    let topology = arguments.topology.and_then(|topology| topology.to_possible_value());
    option("--topology", topology.map(|value| value.get_name().to_owned()));
    let mode = arguments.auto_compaction_mode.and_then(|mode| mode.to_possible_value());
    option("--auto-compaction-mode", mode.map(|value| value.get_name().to_owned()));
    option("--auto-compaction-retention", arguments.auto_compaction_retention.clone());
    flags
}

/// The cores of one of `count` servers, as `server --cores` takes them: servers that each took all of
/// them would bind the same role to the same core. None where there are too few to share.
fn share_of_cores(index: usize, count: usize, cores: &[usize]) -> Option<String> {
    let share = cores.chunks_exact((cores.len() / count).max(1)).nth(index);
    let share = share.filter(|_| cores.len() >= count)?;
    // A comma behind the last makes a list of a lone number.
    Some(share.iter().map(|core| format!("{core},")).collect())
}

fn allowed_cores() -> Vec<usize> {
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |allowed| (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect(),
    )
}

impl Supervisor {
    /// Until no member runs and none is to be started.
    fn turns(&mut self, events: &Receiver<Event>) {
        loop {
            self.start_due();
            self.kill_late();
            if self.is_over() {
                return;
            }
            let event = match self.deadline() {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                }
            };
            match event {
                Ok(Event::Line { member, line }) => self.line(member, &line),
                Ok(Event::Ended { member }) => self.ended(member),
                Ok(Event::Signal) => self.signal(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("this holds a sender itself"),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let late = self.stop.as_ref().filter(|stop| !stop.was_killed);
        let late = late.map(|stop| stop.since + STOP_TIME_MAX);
        self.members.iter().filter_map(|member| member.due).chain(late).min()
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for index in 0..self.members.len() {
            if self.members[index].due.is_none_or(|due| due > now) {
                continue;
            }
            let member = &mut self.members[index];
            member.due = None;
            match start(member, index, &self.sender) {
                Ok(running) => member.running = Some(running),
                Err(error) => {
                    let name = member.name.clone();
                    self.fail(Failure::Io(format!("{name} cannot be started"), error));
                }
            }
        }
    }

    fn line(&mut self, index: usize, line: &str) {
        let member = &mut self.members[index];
        print(&format!("{}: {line}", member.name));
        if line.starts_with("ready ") {
            member.was_ready = true;
            member.restarts.ready();
        }
        if self.members.iter().all(|member| member.was_ready)
            && let Some(announcement) = self.announcement.take()
        {
            print(&announcement);
        }
    }

    fn ended(&mut self, index: usize) {
        let Some(mut running) = self.members[index].running.take() else { return };
        let status = match running.child.wait() {
            Ok(status) => status,
            Err(error) => return self.fail(Failure::Io(self.members[index].name.clone(), error)),
        };
        // Its last words come before the word about its end. A thread that only copies does not panic.
        drop(running.stderr.join());
        let name = self.members[index].name.clone();
        if self.stop.is_some() {
            if !status.success() {
                self.fail(Failure::Stopped(format!("{name} did not stop cleanly: {status}")));
            }
            return;
        }
        if status.code() == Some(server::EXIT_EXCLUDED) {
            tell(&format!("{name}: the cluster excludes it; it is left alone"));
            return;
        }
        let now = Instant::now();
        let next = self.members[index].restarts.ended(now);
        let is_starting = self.announcement.is_some();
        let is_refused = status.code() == Some(EXIT_ARGUMENTS);
        let (due, often) = match next {
            _ if is_starting && (is_refused || next == Next::Never) => {
                return self.fail(Failure::Stopped(format!("{name} does not start: {status}")));
            }
            Next::Never => {
                tell(&format!(
                    "{name}: has ended ({status}) at each of {STARTS_MAX} starts; it is left alone"
                ));
                if self.is_over() {
                    self.fail(Failure::Stopped("no member is left that starts".into()));
                }
                return;
            }
            Next::Soon(due) => (due, String::new()),
            Next::Late(due) => {
                (due, format!(", having been started {STARTS_MAX} times in a minute"))
            }
        };
        let pause = due.saturating_duration_since(now).as_secs_f64();
        tell(&format!("{name}: has ended ({status}); starts again in {pause:.0} s{often}"));
        self.members[index].due = Some(due);
    }

    /// True if no member runs and none is to be started.
    fn is_over(&self) -> bool {
        self.members.iter().all(|member| member.running.is_none() && member.due.is_none())
    }

    /// The first signal asks the members to stop, the second one does not ask.
    fn signal(&mut self) {
        if self.stop.is_none() {
            self.stop();
        } else {
            self.kill("told twice to stop");
        }
    }

    fn fail(&mut self, failure: Failure) {
        match &self.failure {
            // The first is the cause of the others, which are worth a line all the same.
            Some(_) => tell(&failure.to_string()),
            None => self.failure = Some(failure),
        }
        self.stop();
    }

    fn stop(&mut self) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(Stop { since: Instant::now(), was_killed: false });
        for member in &mut self.members {
            member.due = None;
            if let Some(running) = &member.running {
                // It has not been waited for: the id is still its own, and this cannot fail.
                let _ = kill_process(Pid::from_child(&running.child), Signal::TERM);
            }
        }
    }

    fn kill_late(&mut self) {
        let is_late = |stop: &Stop| !stop.was_killed && stop.since.elapsed() >= STOP_TIME_MAX;
        if self.stop.as_ref().is_some_and(is_late) {
            self.kill("does not stop in time");
        }
    }

    fn kill(&mut self, why: &str) {
        let Some(stop) = &mut self.stop else { return };
        stop.was_killed = true;
        for member in &mut self.members {
            if let Some(running) = &mut member.running {
                tell(&format!("{}: killed: {why}", member.name));
                // Fails only for one that has ended.
                drop(running.child.kill());
            }
        }
    }
}

/// Starts a member. Only the main thread may: see [`supervised::bind`].
fn start(
    member: &Supervised,
    index: usize,
    sender: &SyncSender<Event>,
) -> std::io::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(&member.flags).arg("--data-dir").arg(&member.data_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for this process, which passes it on.
    command.process_group(0);
    supervised::bind(&mut command);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().expect("standard output is a pipe");
    let stderr = child.stderr.take().expect("standard error is a pipe");
    let sender = sender.clone();
    thread::spawn(move || {
        each_line(stdout, |line| sender.send(Event::Line { member: index, line }).is_ok());
        // Nobody listens any more: then nobody waits for this either.
        drop(sender.send(Event::Ended { member: index }));
    });
    let name = member.name.clone();
    let stderr = thread::spawn(move || {
        each_line(stderr, |line| {
            tell(&format!("{name}: {line}"));
            true
        });
    });
    Ok(Running { child, stderr })
}

/// Calls `take` with each line until it returns false or there are no more. Bytes that are no text
/// are shown as such.
fn each_line(from: impl Read, mut take: impl FnMut(String) -> bool) {
    let lines = BufReader::new(from).split(b'\n').map_while(Result::ok);
    for line in lines {
        if !take(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
    }
}

/// A line on standard output. That nobody reads it is no reason to stop the cluster.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()));
}

/// A line on standard error, likewise.
fn tell(line: &str) {
    drop(std::io::stderr().lock().write_all(format!("{line}\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: LocalClusterArguments,
    }

    fn arguments(line: &str) -> LocalClusterArguments {
        Line::try_parse_from(line.split(' ')).map(|line| line.arguments).expect("a command line")
    }

    #[test]
    fn every_member_gets_its_addresses_the_same_list_and_the_options() {
        let member = |name: &str, port: u16| LocalMember {
            name: name.into(),
            client: ([127, 0, 0, 1], port).into(),
            peer: ([127, 0, 0, 1], port + 1).into(),
        };
        let members = [member("n1", 1), member("n2", 3)];
        let plain = arguments("x --data-dir d");
        assert_eq!(
            flags(&plain, &members, 1, &[0]).join(" "),
            "server --name n2 --listen 127.0.0.1:3 --listen-peer 127.0.0.1:4 \
             --initial-cluster n1=127.0.0.1:2,n2=127.0.0.1:4"
        );
        let all = arguments(
            "x --page-cache 32MiB --wal-segment-size 8m --topology shared \
             --auto-compaction-mode revision --auto-compaction-retention 500",
        );
        let line = flags(&all, &members, 0, &[0, 1, 2]).join(" ");
        let end = " --cores 0, --page-cache 33554432 --wal-segment-size 8388608 --topology shared \
                   --auto-compaction-mode revision --auto-compaction-retention 500";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn cores_are_shared_where_there_are_enough() {
        assert_eq!(share_of_cores(0, 3, &[0, 1]), None);
        assert_eq!(share_of_cores(0, 3, &[]), None);
        assert_eq!(share_of_cores(2, 3, &[0, 1, 5]).as_deref(), Some("5,"));
        assert_eq!(share_of_cores(2, 3, &(0..8).collect::<Vec<_>>()).as_deref(), Some("4,5,"));
        assert_eq!(share_of_cores(0, 1, &[2, 3]).as_deref(), Some("2,3,"));
    }

    #[test]
    fn a_cluster_has_one_to_seven_members() {
        for (text, is_allowed) in
            [("1", true), ("7", true), ("0", false), ("8", false), ("x", false)]
        {
            assert_eq!(parse_nodes(text).is_ok(), is_allowed, "{text}");
        }
    }
}
