//! Real processes for the tests of the built binary: servers on data directories of their own, and
//! single commands. No fixed ports, no sleeps: a start ends with the `ready` line or with the process,
//! and every process ends with the value that holds it, also when a test fails.
//!
//! ```text
//! DataDir ── Start::spawn ──► Start ── ready() ──► Server ── stop(Signal) / kill() / drop
//!                               │ kill(), drop        │ client(), address(), stderr()
//!                               └──► Ended { status, stdout, stderr } ◄──┘
//! ```
//!
//! Include it with `mod process;`. Each test file uses a part of it.

#![allow(dead_code)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

/// How long a process may take for anything before a test gives it up. Far beyond what a busy machine
/// needs, so that only what hangs meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Flags of a small server: little memory, small segments.
pub const SMALL: &[&str] = &["--page-cache", "32MiB", "--wal-segment-size", "8MiB"];

/// Path of the built binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_quorate");

/// The seed of this run: QUORATE_SEED, else by chance. Printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let given = std::env::var("QUORATE_SEED").ok();
    let seed = match given {
        Some(text) => text.parse().expect("QUORATE_SEED is a number"),
        None => std::hash::RandomState::new().build_hasher().finish() % 1_000_000_000,
    };
    eprintln!("QUORATE_SEED={seed}");
    seed
}

/// How many times longer than by default tests run: QUORATE_TEST_SCALE, else 1.
pub fn scale() -> u64 {
    std::env::var("QUORATE_TEST_SCALE")
        .map_or(1, |text| text.parse().expect("QUORATE_TEST_SCALE is a number"))
}

/// A folder of its own for one test, on the file system of the build (temporary folders may lie in
/// memory, where there is no O_DIRECT). Goes with the value; stays for a look when the test fails.
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// A path that nobody else uses; nothing is there yet.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(fs::remove_dir_all(&path));
        Self { path }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("left for a look: {}", self.path.display());
        } else {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// What a process said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// True if SIGKILL ended it: what is expected of a server that a test killed.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw())
    }
}

/// A process with its outputs collected as they come. Killed and waited for when dropped.
struct Process {
    child: Child,
    /// Lines of standard output; disconnected when it ends.
    lines: Receiver<String>,
    stdout: String,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn spawn(command: Command) -> Box<Self> {
        Self::spawn_with(command, Stdio::null())
    }

    fn spawn_with(mut command: Command, input: Stdio) -> Box<Self> {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let mut error = child.stderr.take().expect("standard error is a pipe");
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&stderr);
        let collector = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = error.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..count]);
                collected.lock().expect("nobody panics under this lock").push_str(&text);
            }
        });
        let stdout = String::new();
        Box::new(Self { child, lines, stdout, stderr, readers: vec![reader, collector] })
    }

    /// The next line of standard output. `Ok(None)`: not within `patience`. `Err(())`: it has ended.
    fn line(&mut self, patience: Duration) -> Result<Option<String>, ()> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                let _ = writeln!(self.stdout, "{line}");
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    /// Waits until it has ended by itself; false if it has not within `patience`.
    fn has_ended(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            match self.line(end.saturating_duration_since(Instant::now())) {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(()) => return true,
            }
        }
    }

    /// Reaps it, after it has ended or has been told to.
    fn reap(mut self) -> Ended {
        let status = self.child.wait().expect("a child can be waited for");
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of output does not panic");
        }
        for line in self.lines.try_iter() {
            let _ = writeln!(self.stdout, "{line}");
        }
        Ended { status, stdout: std::mem::take(&mut self.stdout), stderr: self.stderr() }
    }

    fn kill(mut self) -> Ended {
        self.child.kill().expect("a child can be killed");
        self.reap()
    }

    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a child can be signalled");
    }

    fn stderr(&self) -> String {
        self.stderr.lock().expect("nobody panics under this lock").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has been reaped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command that goes on for a while: its lines as they come.
pub struct Running(Box<Process>);

impl Running {
    /// Starts a command of the binary that talks to these endpoints.
    pub fn spawn(endpoints: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(arguments).env("QUORATE_ENDPOINT", endpoints);
        Self(Process::spawn_with(command, Stdio::piped()))
    }

    /// The next line of standard output, which must come.
    pub fn line(&mut self) -> String {
        match self.0.line(PATIENCE) {
            Ok(Some(line)) => line,
            Ok(None) => panic!("no line comes; standard error:\n{}", self.stderr()),
            Err(()) => panic!("it has ended; standard error:\n{}", self.stderr()),
        }
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let input = self.0.child.stdin.as_mut().expect("standard input is open");
        input.write_all(format!("{line}\n").as_bytes()).expect("it reads its input");
    }

    /// Ends its standard input.
    pub fn hush(&mut self) {
        drop(self.0.child.stdin.take());
    }

    /// Its standard error up to now.
    pub fn stderr(&self) -> String {
        self.0.stderr()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Waits until it ends by itself, which it must.
    pub fn ended(mut self) -> Ended {
        assert!(self.0.has_ended(PATIENCE), "it does not end; standard error:\n{}", self.stderr());
        self.0.reap()
    }
}

/// A server that may not be ready yet.
pub struct Start(Box<Process>);

impl Start {
    /// Starts a server on `data_dir` at a free port, with `flags` behind the others.
    pub fn spawn(data_dir: &Path, flags: &[&str]) -> Self {
        Self::spawn_at("127.0.0.1:0", data_dir, flags)
    }

    /// The same at this address.
    pub fn spawn_at(listen: &str, data_dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["server", "--listen", listen, "--data-dir"]).arg(data_dir);
        command.args(flags);
        Self(Process::spawn(command))
    }

    /// Waits for the `ready` line.
    ///
    /// Errors: how it ended without one. Panics if it neither becomes ready nor ends.
    pub fn ready(self) -> Result<Server, Ended> {
        match self.ready_within(PATIENCE) {
            Ok(server) => server,
            Err(start) => panic!("neither ready nor ended; standard error:\n{}", start.0.stderr()),
        }
    }

    /// Waits for the `ready` line for at most `patience`.
    ///
    /// Errors: itself, if it has neither become ready nor ended by then.
    pub fn ready_within(mut self, patience: Duration) -> Result<Result<Server, Ended>, Self> {
        match self.0.line(patience) {
            Ok(None) => Err(self),
            Err(()) => Ok(Err(self.0.reap())),
            Ok(Some(line)) => {
                let field = |name: &str| {
                    let mut fields = line.split(' ');
                    fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                };
                assert!(line.starts_with("ready "), "the first line is: {line}");
                let address = field("native").and_then(|text| text.parse().ok());
                let address = address.unwrap_or_else(|| panic!("no address in: {line}"));
                assert_eq!(field("pid"), Some(self.0.child.id().to_string().as_str()), "{line}");
                Ok(Ok(Server { process: self.0, address, line }))
            }
        }
    }

    /// Ends it with SIGKILL, whatever it does.
    pub fn kill(self) -> Ended {
        self.0.kill()
    }
}

/// A server that serves.
pub struct Server {
    process: Box<Process>,
    address: SocketAddr,
    line: String,
}

impl Server {
    /// Starts a server and waits until it is ready; panics with its standard error if it does not
    /// become so.
    pub fn start(data_dir: &Path, flags: &[&str]) -> Self {
        Start::spawn(data_dir, flags).ready().unwrap_or_else(|ended| panic!("no start: {ended:?}"))
    }

    /// The same at this address, which a server before it had.
    pub fn start_at(listen: &str, data_dir: &Path, flags: &[&str]) -> Self {
        let start = Start::spawn_at(listen, data_dir, flags);
        start.ready().unwrap_or_else(|ended| panic!("no start: {ended:?}"))
    }

    /// Where the native protocol is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that it made up or found in its data directory.
    pub fn cluster(&self) -> u64 {
        self.client().server().expect("a new client is connected").cluster
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The `ready` line.
    pub fn ready_line(&self) -> &str {
        &self.line
    }

    /// Its standard error up to now.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// A new client of it.
    pub fn client(&self) -> client::Client {
        connect(self.address).expect("a ready server takes connections")
    }

    /// Sends a signal; the server goes on living with it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it with SIGKILL.
    pub fn kill(self) -> Ended {
        self.process.kill()
    }

    /// Waits until it ends by itself.
    ///
    /// Errors: itself, if it has not ended within `patience`.
    pub fn ended_within(mut self, patience: Duration) -> Result<Ended, Self> {
        if self.process.has_ended(patience) { Ok(self.process.reap()) } else { Err(self) }
    }

    /// Asks it to stop, by SIGTERM or SIGINT, and waits for its end. Returns how long that took.
    pub fn stop(self, signal: Signal) -> (Ended, Duration) {
        let begin = Instant::now();
        self.signal(signal);
        match self.ended_within(PATIENCE) {
            Ok(ended) => (ended, begin.elapsed()),
            Err(server) => panic!("does not stop; standard error:\n{}", server.stderr()),
        }
    }
}

/// Connects a client that gives up early where nobody answers.
pub fn connect(address: SocketAddr) -> Result<client::Client, client::Error> {
    connect_to_cluster(address, 0)
}

/// Connects to a server of this cluster only: the port of a server that was killed may already be that
/// of another test's.
pub fn connect_to_cluster(
    address: SocketAddr,
    cluster: u64,
) -> Result<client::Client, client::Error> {
    let options = client::Options {
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(30),
        client_name: "test".into(),
        cluster,
    };
    client::Client::connect([address.to_string()], options)
}

/// Runs one command of the binary to its end. The environment names no endpoint.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .env_remove("QUORATE_ENDPOINT")
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be started")
}

/// Runs `inspect check` on a data directory and returns what it printed; panics unless it is clean.
pub fn check_clean(data_dir: &Path) -> String {
    let path = data_dir.to_str().expect("paths of tests are text");
    let output = run(&["inspect", "check", path]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inspect check {path}: {stderr}\n{stdout}");
    stdout
}

/// Copies a data directory, of a stopped server or of one whose files nobody writes.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a data directory can be listed") {
        let entry = entry.expect("an entry can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
