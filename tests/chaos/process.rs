//! One server process: started, ready, signalled, ended. Its outputs are kept: lines of standard output
//! come through a channel, standard error goes to a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process; killed and reaped when dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    /// Where its own part of the log begins.
    log_begin: u64,
}

impl Process {
    /// Starts a command that ends with this process. Only the main thread may: the kernel takes the end
    /// of the thread that called for the end of the parent.
    ///
    /// # Errors
    /// It cannot be started, or the log cannot be written.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let file: File = OpenOptions::new().create(true).append(true).open(log)?;
        let log_begin = file.metadata()?.len();
        command.env("QUORATE_SUPERVISOR", std::process::id().to_string());
        command.env_remove("QUORATE_ENDPOINT");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, log: log.to_owned(), log_begin })
    }

    /// Waits for the line that says that it serves, and where; nothing if it ended or did not say so in time.
    pub fn ready(&self, patience: Duration) -> Option<SocketAddr> {
        let line = self.lines.recv_timeout(patience).ok()?;
        line.split(' ').find_map(|field| field.strip_prefix("native="))?.parse().ok()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if begin.elapsed() > patience {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal. To one that has just ended: nothing happens.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Lines of standard output that nobody has taken yet.
    pub fn said(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// What it wrote to standard error.
    pub fn stderr(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let begin = usize::try_from(self.log_begin).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[begin..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has been reaped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
