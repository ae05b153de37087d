//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use bench::watch::WatchError;

use client::recipes::RecipeError;

use super::mirror::MirrorError;
use super::txn_text::TxnTextError;

/// The exit codes of every command, those of etcdctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// All is done.
    Success,
    /// The server refused, or a part could not be done.
    Error,
    /// No connection, or no answer in time.
    Connection,
    /// The text of a transaction is not understood.
    Input,
    /// The server does not keep to the protocol.
    Server,
    /// The server is not healthy.
    Unhealthy,
    /// Files, standard input or output.
    Io,
    /// The command line is not understood.
    Arguments,
    /// That of a command that was run.
    Command(u8),
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Success => 0,
            ExitStatus::Error => 1,
            ExitStatus::Connection => 2,
            ExitStatus::Input => 3,
            ExitStatus::Server => 4,
            ExitStatus::Unhealthy => 5,
            ExitStatus::Io => 6,
            ExitStatus::Arguments => 128,
            ExitStatus::Command(code) => code,
        })
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The server, or the way to it.
    Client(client::Error),
    /// A line of a transaction.
    Text(TxnTextError),
    /// A file or stream: which, and what the system said.
    Io(String, io::Error),
    /// Arguments that contradict each other or the server's limits.
    Arguments(String),
    /// Some of it could not be done; each part has been named before.
    Incomplete(String),
    /// The server says that it is not well.
    Unhealthy(String),
    /// A member that nobody knows, or a change of members of which nobody knows what became.
    Member(String),
    /// A measurement.
    Bench(bench::Error),
    /// The measurement of watches.
    Watches(WatchError),
    /// A measurement of the disk.
    Disk(bench::disk::DiskError),
    /// A plot.
    Plot(bench::plot::PlotError),
    /// A lease that is not there, or was lost.
    Lease(String),
    /// The end of a watch.
    Watch(client::WatchEnd),
    /// A lock, an election or another recipe.
    Recipe(RecipeError),
    /// The end of a mirror.
    Mirror(MirrorError),
    /// A signal came before it was done.
    Interrupted,
    /// A command that was run did not end well, and has said why itself.
    Command(u8),
    /// A snapshot that is damaged, or cannot be restored.
    Snapshot(String),
    /// A server that does not start or go on, or a data directory that is not sound.
    Stopped(String),
}

impl Failure {
    /// A failure of standard output.
    pub fn output(error: io::Error) -> Self {
        Self::Io("standard output".into(), error)
    }

    /// True if the reader of standard output has gone.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// True if there is nothing to say that has not been said.
    pub fn is_silent(&self) -> bool {
        self.is_broken_pipe() || matches!(self, Self::Command(_))
    }

    /// The exit code.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::Client(error) => client_status(error),
            Self::Bench(bench::Error::Handshake(error)) => match error {
                bench::HandshakeError::Connect(..) => ExitStatus::Connection,
                bench::HandshakeError::Protocol(..) => ExitStatus::Server,
                bench::HandshakeError::Refused(..) | bench::HandshakeError::Encode(_) => {
                    ExitStatus::Error
                }
            },
            Self::Watches(WatchError::Plan(_)) => ExitStatus::Arguments,
            Self::Watches(WatchError::Refused(..)) => ExitStatus::Error,
            Self::Watches(_) => ExitStatus::Connection,
            Self::Bench(bench::Error::Load(bench::LoadError::Outage(_))) => ExitStatus::Connection,
            Self::Bench(bench::Error::Plan(_) | bench::Error::Keys(_)) | Self::Arguments(_) => {
                ExitStatus::Arguments
            }
            Self::Text(_) => ExitStatus::Input,
            Self::Io(..) | Self::Disk(_) | Self::Plot(_) => ExitStatus::Io,
            Self::Unhealthy(_) | Self::Interrupted => ExitStatus::Unhealthy,
            Self::Recipe(RecipeError::Call(error)) => client_status(error),
            Self::Recipe(RecipeError::TimedOut) => ExitStatus::Connection,
            Self::Command(code) => ExitStatus::Command(*code),
            Self::Mirror(error) => error.status(),
            Self::Bench(bench::Error::Load(_))
            | Self::Incomplete(_)
            | Self::Member(_)
            | Self::Lease(_)
            | Self::Snapshot(_)
            | Self::Watch(_)
            | Self::Recipe(_)
            | Self::Stopped(_) => ExitStatus::Error,
        }
    }
}

fn client_status(error: &client::Error) -> ExitStatus {
    match error {
        client::Error::NoEndpoints => ExitStatus::Arguments,
        client::Error::Unreachable { .. }
        | client::Error::TimedOut
        | client::Error::ConnectionLost { .. } => ExitStatus::Connection,
        client::Error::Protocol { .. } => ExitStatus::Server,
        client::Error::Refused(_)
        | client::Error::OutcomeUnknown { .. }
        | client::Error::Encode(_)
        | client::Error::CreditsUsed
        | client::Error::ResultsPending => ExitStatus::Error,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Text(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Arguments(text)
            | Self::Incomplete(text)
            | Self::Unhealthy(text)
            | Self::Member(text)
            | Self::Lease(text)
            | Self::Snapshot(text)
            | Self::Stopped(text) => f.write_str(text),
            Self::Watch(client::WatchEnd::Compacted { revision }) => write!(
                f,
                "what the watch would tell next has been compacted; watch with --rev {} or later",
                revision
            ),
            Self::Watch(end) => end.fmt(f),
            Self::Recipe(error) => error.fmt(f),
            Self::Mirror(error) => error.fmt(f),
            Self::Interrupted => {
                f.write_str("interrupted before it was done; nothing is left behind")
            }
            Self::Command(code) => write!(f, "the command ended with exit code {code}"),
            Self::Bench(error) => error.fmt(f),
            Self::Watches(error) => error.fmt(f),
            Self::Disk(error) => error.fmt(f),
            Self::Plot(error) => error.fmt(f),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Client(error)
    }
}

impl From<client::WatchEnd> for Failure {
    fn from(end: client::WatchEnd) -> Self {
        Self::Watch(end)
    }
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Self {
        Self::Recipe(error)
    }
}

impl From<TxnTextError> for Failure {
    fn from(error: TxnTextError) -> Self {
        Self::Text(error)
    }
}
