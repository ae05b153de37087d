//! `import`: puts each regular file below a folder, many puts in flight.
//!
//! ```text
//!  waiting files --read, submit--> in flight --answered--> done
//!        ^                            | connection lost, time-out, overload
//!        '----------------------------'  the file is read and sent again
//! ```
//!
//! A file that is sent again is the same write of the import's session, and takes effect once: no key
//! gets a revision twice because a connection broke. Progress is what bounds the patience: without one
//! answered put for a while the import gives up.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use client::{Call, Client, Put, RequestId, Status, WriteNumber};

use super::failure::Failure;
use super::import_snapshot;
use super::names::Names;
use super::progress::Progress;
use super::session::Global;
use super::size;
use super::time_span;
use super::tree_path::{self, key_of};
use super::tree_walk::{self, Found, Passed};

/// What `import --help` begins with.
pub const LONG_ABOUT: &str = "\
Put each regular file below DIR as a key: the prefix and the file's path below DIR, with the file's
bytes as the value. Many puts are in flight at a time, in no particular order. A file of no bytes is
a value of no bytes. Folders are not keys: empty ones leave no trace.

Symbolic links, sockets, pipes and devices are skipped and counted. Files that cannot be put (values
or keys over the server's limits) or read are named, counted, and make the exit code 1 at the end,
after everything else has been put.

When the connection is lost, the import connects again and sends what had not been answered; each
file takes effect once all the same. The import gives up when the server has answered nothing for the
time of --patience.

With --etcd-snapshot the keys come from a snapshot instead: of each the newest value, with its lease, in
the order in which they were written. What is there already is written over. History, members, users
and roles are left; 'snapshot restore' makes a new cluster that has the history, too.";

/// Puts in flight at most.
const IN_FLIGHT_MAX: usize = 256;

/// Time for one put while many are in flight; slow disks need it.
const PUT_TIMEOUT_MIN: Duration = Duration::from_secs(30);

/// Pause after a refusal or a lost connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Flags of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArguments {
    /// Folder whose files are put
    #[arg(required_unless_present = "etcd_snapshot", conflicts_with = "etcd_snapshot")]
    pub dir: Option<PathBuf>,
    /// Take the keys of this snapshot, of etcd or of Quorate; needs --newest
    #[arg(long, value_name = "FILE")]
    pub etcd_snapshot: Option<PathBuf>,
    /// Of a snapshot put the newest value of each key and leave its history
    #[arg(long, requires = "etcd_snapshot", conflicts_with = "dir")]
    pub newest: bool,
    /// What every key begins with
    #[arg(long, default_value = "")]
    pub prefix: OsString,
    /// How long the server may answer nothing before the import gives up
    #[arg(long, default_value = "10s", value_parser = time_span::parse)]
    pub patience: Duration,
}

/// A file on its way: what was found, and the number of its put once it has one.
type Sent = (Found, Option<WriteNumber>);

/// What an import has come to.
struct Import<'a> {
    root: &'a Path,
    prefix: &'a [u8],
    progress: Progress,
    /// Files still to be sent, the next one last.
    waiting: Vec<Sent>,
    in_flight: HashMap<RequestId, Sent>,
    key_size_max: u64,
    value_size_max: u64,
    done: u64,
    done_size: u64,
    skipped: Names,
    refused: Names,
    unreadable: Names,
    /// When a put was answered last, or the import began.
    answered_at: Instant,
    patience: Duration,
    trouble: Option<client::Error>,
    /// After trouble: nothing is sent before.
    rest_until: Option<Instant>,
}

/// Puts the files.
///
/// # Errors
/// The folder cannot be read, the server is away for too long or refuses for good, or some files
/// could not be put.
pub fn run(global: &Global, arguments: &ImportArguments) -> Result<(), Failure> {
    let prefix = arguments.prefix.as_bytes();
    if let Some(file) = &arguments.etcd_snapshot {
        return import_snapshot::run(global, file, arguments.newest, prefix);
    }
    let Some(dir) = &arguments.dir else {
        return Err(Failure::Arguments("say which folder is to be imported".into()));
    };
    let began = Instant::now();
    let mut skipped = Names::new("skipped");
    let mut unreadable = Names::new("not readable");
    let tell = |line: &str| eprintln!("{line}");
    let mut waiting = tree_walk::files(dir, &mut |passed| match passed {
        Passed::Symlink(path) => skipped.add(&tell, &show(&path), &"a symbolic link"),
        Passed::Special(path) => skipped.add(&tell, &show(&path), &"not a regular file"),
        Passed::Unreadable(path, error) => unreadable.add(&tell, &show(&path), &error),
    })
    .map_err(|error| Failure::Io(dir.display().to_string(), error))?;
    waiting.reverse();
    let waiting: Vec<Sent> = waiting.into_iter().map(|found| (found, None)).collect();
    let client = global.connect_with(global.command_timeout.max(PUT_TIMEOUT_MIN))?;
    let mut client = client.with_session()?;
    let server = client.server().expect("connected");
    let mut import = Import {
        root: dir,
        prefix,
        progress: Progress::steps(u64::try_from(waiting.len()).unwrap_or(u64::MAX), "files"),
        waiting,
        in_flight: HashMap::new(),
        key_size_max: u64::from(server.key_size_max),
        value_size_max: u64::from(server.value_size_max),
        done: 0,
        done_size: 0,
        skipped,
        refused: Names::new("not put"),
        unreadable,
        answered_at: Instant::now(),
        patience: arguments.patience,
        trouble: None,
        rest_until: None,
    };
    let result = import.all(&mut client);
    import.progress.end();
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", import.summary(seconds));
    result?;
    match import.refused.count() + import.unreadable.count() {
        0 => Ok(()),
        count => Err(Failure::Incomplete(format!("{count} files were not imported"))),
    }
}

impl Import<'_> {
    fn all(&mut self, client: &mut Client) -> Result<(), Failure> {
        loop {
            self.fill(client);
            if let Some(completion) = client.receive() {
                if let Some(sent) = self.in_flight.remove(&completion.request) {
                    self.settle(client, sent, completion.result)?;
                }
            } else if self.waiting.is_empty() && self.in_flight.is_empty() {
                return Ok(());
            } else {
                // Whatever the client no longer knows of has to be sent again.
                self.waiting.extend(self.in_flight.drain().map(|(_, sent)| sent));
            }
            if self.answered_at.elapsed() > self.patience {
                return Err(self.give_up());
            }
        }
    }

    /// Sends files as long as there is room.
    fn fill(&mut self, client: &mut Client) {
        if let Some(until) = self.rest_until {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() && !self.in_flight.is_empty() {
                return;
            }
            thread::sleep(left);
            self.rest_until = None;
        }
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let Some((found, number)) = self.waiting.pop() else { return };
            let Some(number) = number.or_else(|| client.begin_write()) else {
                // The oldest of them has to be answered first.
                self.waiting.push((found, None));
                return;
            };
            let key = key_of(self.prefix, &found.relative);
            let Some(value) = self.value_of(&found, &key) else {
                client.end_write(number);
                continue;
            };
            let put = Put { key: &key, value: &value, ..Put::default() };
            match client.submit_write(number, &Call::Put(put)) {
                Ok(request) => drop(self.in_flight.insert(request, (found, Some(number)))),
                Err(client::Error::CreditsUsed | client::Error::ResultsPending) => {
                    self.waiting.push((found, Some(number)));
                    return;
                }
                Err(client::Error::Encode(error)) => {
                    client.end_write(number);
                    self.refuse(&found, &error);
                }
                Err(error) => {
                    self.waiting.push((found, Some(number)));
                    self.rest(error);
                    return;
                }
            }
        }
    }

    /// The file's bytes, if it can be read and put.
    fn value_of(&mut self, found: &Found, key: &[u8]) -> Option<Vec<u8>> {
        let key_size = u64::try_from(key.len()).unwrap_or(u64::MAX);
        if key_size == 0 || key_size > self.key_size_max {
            let max = self.key_size_max;
            self.refuse(found, &format!("its key has {key_size} bytes, the limit is {max}"));
            return None;
        }
        // A file may have grown since it was found: one byte over the limit is enough to know.
        let limit = self.value_size_max;
        match read(&self.root.join(&found.relative), limit.saturating_add(1)) {
            Ok(value) if u64::try_from(value.len()).is_ok_and(|size| size <= limit) => Some(value),
            Ok(_) => {
                let size = found.size.max(limit + 1);
                self.refuse(found, &format!("it has {size} bytes, the server's limit is {limit}"));
                None
            }
            Err(error) => {
                let progress = &self.progress;
                let tell = |line: &str| progress.tell(line);
                self.unreadable.add(&tell, &show(&found.relative), &error);
                None
            }
        }
    }

    fn refuse(&mut self, found: &Found, reason: &dyn std::fmt::Display) {
        let progress = &self.progress;
        self.refused.add(&|line: &str| progress.tell(line), &show(&found.relative), reason);
    }

    /// What came of one put.
    fn settle(
        &mut self,
        client: &mut Client,
        (found, number): Sent,
        result: Result<client::Answer, client::Error>,
    ) -> Result<(), Failure> {
        let end = |client: &mut Client| number.into_iter().for_each(|n| client.end_write(n));
        match result {
            Ok(_) => {
                end(client);
                self.done += 1;
                self.done_size += found.size;
                self.answered_at = Instant::now();
                self.trouble = None;
                self.progress.set(self.done);
                Ok(())
            }
            Err(client::Error::Refused(refusal)) if !refusal.is_retryable() => {
                match refusal.status {
                    // Other clients, very many, have written since this one did: a new session, and a
                    // new number. The value is the same if it was put before after all.
                    Status::SessionExpired => {
                        let renewed = match number {
                            Some(number) if client.session() == Some(number.client()) => {
                                client.renew_session()
                            }
                            Some(_) | None => Ok(()),
                        };
                        match renewed {
                            Ok(()) => self.waiting.push((found, None)),
                            Err(error) => {
                                self.waiting.push((found, number));
                                self.rest(error);
                            }
                        }
                        Ok(())
                    }
                    Status::TooLarge | Status::InvalidArgument => {
                        end(client);
                        self.answered_at = Instant::now();
                        self.refuse(&found, &refusal);
                        Ok(())
                    }
                    // Nothing else about a put is the file's fault: the others would fare alike.
                    _ => Err(Failure::Client(client::Error::Refused(refusal))),
                }
            }
            Err(error) => {
                self.waiting.push((found, number));
                self.rest(error);
                Ok(())
            }
        }
    }

    /// Nothing is sent for a moment. One moment for all that is in flight: each of them is likely
    /// to come back with the same error.
    fn rest(&mut self, error: client::Error) {
        self.trouble = Some(error);
        self.rest_until = Some(Instant::now() + PAUSE);
    }

    fn give_up(&mut self) -> Failure {
        match self.trouble.take() {
            Some(error) => Failure::Client(error),
            None => Failure::Client(client::Error::TimedOut),
        }
    }

    fn summary(&self, seconds: f64) -> String {
        format!(
            "imported {} files, {} ({} bytes) in {seconds:.2} s{}{}{}",
            self.done,
            size::display(self.done_size),
            self.done_size,
            self.skipped.summary(),
            self.refused.summary(),
            self.unreadable.summary()
        )
    }
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn show(path: &Path) -> String {
    tree_path::display(path.as_os_str().as_bytes())
}
