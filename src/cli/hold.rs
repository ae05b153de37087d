//! Something that is held while a command runs, or until a signal comes: what `lock`, `elect` and
//! `register` have in common.
//!
//! ```text
//! worker: waits for the lock ── Gained ──┐
//! SIGINT, SIGTERM ────────────── Signal ─┤
//! child: waited for ──────────── Ended ──┼─► the loop
//! lease, key: watched ────────── Lost ───┘
//! ```

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use client::recipes::RecipeError;
use client::{ChangeKind, Client, KeptLease, LeaseLoss, WatchEvent, WatchOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::failure::Failure;
use super::signals::Events;

/// How long a command may take to end before it is killed.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// What happens meanwhile.
pub enum Event {
    /// This signal came.
    Signal(i32),
    /// What was waited for is there.
    Gained,
    /// The command has ended.
    Ended(std::io::Result<ExitStatus>),
    /// It is not held any more, and why.
    Lost(String),
}

/// Its events, from the first signal on.
pub struct Hold {
    events: Events<Event>,
}

impl Hold {
    /// From now on signals do not end the process.
    ///
    /// # Errors
    /// The system does not take it.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { events: Events::new(Event::Signal)? })
    }

    /// Does what takes long on another thread.
    ///
    /// # Errors
    /// What it fails with; a signal came before: it then goes on, and is left behind.
    pub fn gain<T: Send + 'static>(
        &self,
        gain: impl FnOnce() -> Result<T, RecipeError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, result) = mpsc::sync_channel(1);
        let events = self.events.sender();
        thread::spawn(move || {
            // Nobody waits for it any more if a signal came.
            drop(sender.send(gain()));
            drop(events.send(Event::Gained));
        });
        loop {
            match self.events.next() {
                Event::Signal(_) => return Err(Failure::Interrupted),
                Event::Lost(why) => return Err(Failure::Lease(why)),
                Event::Ended(_) => {}
                Event::Gained => {
                    let result = result.try_recv().expect("sent before this event");
                    return Ok(result?);
                }
            }
        }
    }

    /// The end of the lease is an event from now on.
    pub fn watch_lease(&self, lease: &KeptLease) {
        let events = self.events.sender();
        let id = lease.id();
        lease.keeper().on_loss(move |lost, loss| {
            if lost == id {
                let why = match loss {
                    LeaseLoss::Gone => "it expired or was revoked",
                    LeaseLoss::Unanswered => "no server answered in time",
                };
                // With events that wait already this one changes nothing.
                drop(events.try_send(Event::Lost(format!("the lease {id:x} was lost: {why}"))));
            }
        });
    }

    /// So is the end of the key that was created at `revision`.
    ///
    /// # Errors
    /// The watch cannot begin.
    pub fn watch_key(&self, client: &mut Client, key: &[u8], revision: i64) -> Result<(), Failure> {
        let events = self.events.sender();
        let options = WatchOptions { no_put: true, keys_only: true, ..WatchOptions::one(key) };
        let watcher = client.watch_hub()?.watch(options.from_revision(revision + 1))?;
        let shown = String::from_utf8_lossy(key).into_owned();
        thread::spawn(move || {
            for event in watcher {
                let why = match event {
                    Ok(WatchEvent::Changes { changes, .. })
                        if changes.iter().any(|change| change.kind == ChangeKind::Delete) =>
                    {
                        format!("the key {shown:?} was deleted")
                    }
                    Ok(WatchEvent::Changes { .. } | WatchEvent::Progress { .. }) => continue,
                    // It may or may not be there; the lease is what is relied on.
                    Err(_) => return,
                };
                drop(events.send(Event::Lost(why)));
                return;
            }
        });
        Ok(())
    }

    /// Waits while it is held: until a signal comes, or while a command runs.
    ///
    /// # Errors
    /// It was lost; the command cannot be started; [`Failure::Command`] if that did not end well.
    pub fn run(&self, command: &[OsString], variables: &[(&str, OsString)]) -> Result<(), Failure> {
        let Some((program, arguments)) = command.split_first() else {
            return self.until_signal();
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        let child = command
            .spawn()
            .map_err(|error| Failure::Io(program.to_string_lossy().into_owned(), error))?;
        self.until_end(child)
    }

    /// It is being given back: the next signal ends the process at once, whatever that waits for.
    pub fn end_on_signal(self) {
        thread::spawn(move || {
            loop {
                if let Event::Signal(number) = self.events.next() {
                    std::process::exit(128 + number);
                }
            }
        });
    }

    fn until_signal(&self) -> Result<(), Failure> {
        loop {
            match self.events.next() {
                Event::Signal(_) => return Ok(()),
                Event::Lost(why) => return Err(Failure::Lease(why)),
                Event::Gained | Event::Ended(_) => {}
            }
        }
    }

    fn until_end(&self, mut child: Child) -> Result<(), Failure> {
        let pid = Pid::from_child(&child);
        let events = self.events.sender();
        thread::spawn(move || drop(events.send(Event::Ended(child.wait()))));
        // It may have ended, and then nobody needs the signal.
        let tell = |signal| {
            let _ = kill_process(pid, signal);
        };
        let mut lost: Option<String> = None;
        let mut kill_at: Option<Instant> = None;
        loop {
            let event = match kill_at {
                None => Some(self.events.next()),
                Some(at) => self.events.next_within(at.saturating_duration_since(Instant::now())),
            };
            match event {
                None => {
                    tell(Signal::KILL);
                    kill_at = None;
                }
                Some(Event::Signal(number)) => {
                    tell(if number == Signal::INT.as_raw() { Signal::INT } else { Signal::TERM });
                }
                Some(Event::Lost(why)) if lost.is_none() => {
                    eprintln!("{why}; the command is asked to end");
                    tell(Signal::TERM);
                    lost = Some(why);
                    kill_at = Some(Instant::now() + END_TIME_MAX);
                }
                Some(Event::Lost(_) | Event::Gained) => {}
                Some(Event::Ended(status)) => {
                    if let Some(why) = lost {
                        return Err(Failure::Lease(why));
                    }
                    let status = status.map_err(|e| Failure::Io("the command".into(), e))?;
                    return ended(status);
                }
            }
        }
    }
}

/// The exit code of a command as a shell would give it.
fn ended(status: ExitStatus) -> Result<(), Failure> {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    match code.map(u8::try_from) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => Err(Failure::Command(code)),
        Some(Err(_)) | None => Err(Failure::Command(u8::MAX)),
    }
}
