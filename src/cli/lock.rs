//! `lock`: holds a lock while a command runs, or until a signal comes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use client::recipes::Lock;
use serde_json::json;

use super::failure::Failure;
use super::hold::Hold;
use super::output::Output;
use super::session::Global;
use super::time_span;

/// What `--help` says in full.
pub const LONG_ABOUT: &str = "\
Hold a lock, while a command runs or until a signal comes.

Waits until the lock is free; those that wait get it in the order in which they came. Without a command
prints the key that stands for the lock and holds it until SIGINT (Ctrl-C) or SIGTERM. With a command
holds it while that runs, and ends with its exit code. The command finds in its environment

    QUORATE_LOCK_KEY, ETCD_LOCK_KEY   the key
    QUORATE_LOCK_REV, ETCD_LOCK_REV   its create revision: a fencing token, greater than that of every
                                      holder before

When the lock is lost meanwhile, because no server could be reached for as long as --ttl or somebody deleted
the key, the command is asked to end with SIGTERM, killed after 10 s, and the exit code is 1; what it has
started itself is its own to end. A second signal while the lock is given back ends this at once. A process that
was paused may go on for a moment all the same, and a command whose `lock` was killed with kill -9 goes on to
its end without the lock: guard what must not happen then, for example with

    printf 'create(\"%s\") = \"%s\"\\n\\nput k v\\n\\n' $QUORATE_LOCK_KEY $QUORATE_LOCK_REV | quorate txn";

/// Flags of `lock`.
#[derive(Clone, Debug, Args)]
pub struct LockArguments {
    /// Name of the lock; its keys are NAME/LEASE
    pub name: OsString,
    /// Time after which the lock is free when this process has died: 10, 10s, 500ms
    #[arg(long, default_value = "10s", value_parser = time_span::parse)]
    pub ttl: Duration,
    /// Command to run while the lock is held
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Holds the lock.
///
/// # Errors
/// The server; the lock was lost; the command.
pub fn run(global: &Global, arguments: &LockArguments) -> Result<(), Failure> {
    time_span::milliseconds(arguments.ttl)?;
    if arguments.name.is_empty() {
        return Err(Failure::Arguments("the name of the lock is empty".into()));
    }
    let hold = Hold::new()?;
    let mut client = global.connect()?;
    let mut waiting = global.connect()?;
    let lease = Arc::new(client.keep_lease(arguments.ttl)?);
    hold.watch_lease(&lease);
    let (theirs, name) = (Arc::clone(&lease), arguments.name.clone());
    let gained = hold.gain(move || Lock::acquire(&mut waiting, &theirs, name.as_bytes(), None));
    let lock = match gained {
        Ok(lock) => lock,
        Err(failure) => {
            // The place in the line goes with the lease, and if nobody answers, that goes by itself.
            drop(client.lease_revoke(lease.id()));
            return Err(failure);
        }
    };
    hold.watch_key(&mut client, lock.key(), lock.token())?;
    if arguments.command.is_empty() {
        let mut output = Output::new(global.write_out, &client);
        if output.is_json() {
            let key = STANDARD.encode(lock.key());
            let object =
                json!({ "key": key, "create_revision": lock.token(), "lease": lease.id() });
            let object = object.as_object().cloned().unwrap_or_default();
            output.object(object, lock.token())?;
        } else {
            output.line(lock.key())?;
            output.flush()?;
        }
    }
    let key = OsString::from_vec(lock.key().to_vec());
    let revision = OsString::from(lock.token().to_string());
    let variables = [
        ("QUORATE_LOCK_KEY", key.clone()),
        ("QUORATE_LOCK_REV", revision.clone()),
        ("ETCD_LOCK_KEY", key),
        ("ETCD_LOCK_REV", revision),
    ];
    let result = hold.run(&arguments.command, &variables);
    hold.end_on_signal();
    // What was lost is not given back. If nobody answers, it goes by itself.
    if !matches!(result, Err(Failure::Lease(_))) {
        drop(lock.release(&mut client));
    }
    result
}
