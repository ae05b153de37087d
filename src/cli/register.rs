//! `register`: keeps a key there while a command runs, or until a signal comes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::Args;
use client::recipes::Register;

use super::failure::Failure;
use super::hold::Hold;
use super::output::Output;
use super::session::Global;
use super::time_span;

/// What `--help` says in full.
pub const LONG_ABOUT: &str = "\
Keep a key there, while a command runs or until a signal comes.

The key hangs on a lease: it goes at once when this process ends, and within --ttl when it dies. It is put
again when it was lost, after an outage or because somebody deleted it. The newest registration has the key:
a key that is there is taken over at the start, and one that somebody else has put later is left alone until
it goes. With a command ends with its exit code. A kill -9 of this process leaves the command running.";

/// Flags of `register`.
#[derive(Clone, Debug, Args)]
pub struct RegisterArguments {
    /// Key
    pub key: OsString,
    /// Value
    pub value: OsString,
    /// Time after which the key goes when this process has died: 10, 10s, 500ms
    #[arg(long, default_value = "10s", value_parser = time_span::parse)]
    pub ttl: Duration,
    /// Command to run meanwhile
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Keeps the key there.
///
/// # Errors
/// The server, the first time; the command.
pub fn run(global: &Global, arguments: &RegisterArguments) -> Result<(), Failure> {
    time_span::milliseconds(arguments.ttl)?;
    if arguments.key.is_empty() {
        return Err(Failure::Arguments("the key is empty".into()));
    }
    let hold = Hold::new()?;
    let client = global.connect()?;
    let (key, value) = (arguments.key.as_bytes(), arguments.value.as_bytes());
    let register = Register::begin(&client, key, value, arguments.ttl)?;
    if arguments.command.is_empty() {
        Output::new(global.write_out, &client).text("OK\n")?;
    }
    let result = hold.run(&arguments.command, &[]);
    hold.end_on_signal();
    register.end();
    result
}
