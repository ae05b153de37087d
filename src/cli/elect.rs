//! `elect`: leads an election until a signal comes, or shows who leads.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use client::OwnedKeyValue;
use client::recipes::{Election, LeaderEvent};
use serde_json::Map;

use super::failure::Failure;
use super::hold::{Event, Hold};
use super::output::{Output, owned_pair};
use super::session::Global;
use super::signals::Events;
use super::time_span;

/// What `--help` says in full.
pub const LONG_ABOUT: &str = "\
Lead an election until a signal comes, or see who leads.

With VALUE waits until this process leads, prints its key and VALUE, and leads until SIGINT (Ctrl-C) or
SIGTERM; others take over in the order in which they came. When it is lost meanwhile, because no server could
be reached for as long as --ttl or somebody deleted the key, the exit code is 1. With -l prints key and value
of the leader, and of each that follows and each new value, until a signal comes.";

/// How long one wait lasts before signals are looked at.
const STEP: Duration = Duration::from_millis(100);

/// Flags of `elect`.
#[derive(Clone, Debug, Args)]
pub struct ElectArguments {
    /// Name of the election; its keys are NAME/LEASE
    pub name: OsString,
    /// What the others see when this process leads
    #[arg(required_unless_present = "listen", conflicts_with = "listen")]
    pub value: Option<OsString>,
    /// Show who leads, do not take part
    #[arg(short = 'l', long)]
    pub listen: bool,
    /// Time after which another may lead when this process has died: 10, 10s, 500ms
    #[arg(long, default_value = "10s", value_parser = time_span::parse)]
    pub ttl: Duration,
}

/// Leads, or listens.
///
/// # Errors
/// The server; the election was lost; standard output.
pub fn run(global: &Global, arguments: &ElectArguments) -> Result<(), Failure> {
    time_span::milliseconds(arguments.ttl)?;
    if arguments.name.is_empty() {
        return Err(Failure::Arguments("the name of the election is empty".into()));
    }
    let election = Election::new(arguments.name.as_bytes());
    match &arguments.value {
        Some(value) => lead(global, arguments, election, value),
        None => listen(global, &election),
    }
}

fn lead(
    global: &Global,
    arguments: &ElectArguments,
    election: Election,
    value: &OsString,
) -> Result<(), Failure> {
    let hold = Hold::new()?;
    let mut client = global.connect()?;
    let mut waiting = global.connect()?;
    let lease = Arc::new(client.keep_lease(arguments.ttl)?);
    hold.watch_lease(&lease);
    let (theirs, proclaimed) = (Arc::clone(&lease), value.clone());
    let gained =
        hold.gain(move || election.campaign(&mut waiting, &theirs, proclaimed.as_bytes(), None));
    let candidate = match gained {
        Ok(candidate) => candidate,
        Err(failure) => {
            // The place in the line goes with the lease, and if nobody answers, that goes by itself.
            drop(client.lease_revoke(lease.id()));
            return Err(failure);
        }
    };
    hold.watch_key(&mut client, candidate.key(), candidate.token())?;
    let kv = OwnedKeyValue {
        key: candidate.key().to_vec(),
        value: value.as_bytes().to_vec(),
        create_revision: candidate.token(),
        lease: lease.id(),
        ..OwnedKeyValue::default()
    };
    show(&mut Output::new(global.write_out, &client), &kv)?;
    let result = hold.run(&[], &[]);
    hold.end_on_signal();
    // What was lost is not given back. If nobody answers, it goes by itself.
    if !matches!(result, Err(Failure::Lease(_))) {
        drop(candidate.resign(&mut client));
    }
    result
}

fn listen(global: &Global, election: &Election) -> Result<(), Failure> {
    let events = Events::new(Event::Signal)?;
    let client = global.connect()?;
    let mut output = Output::new(global.write_out, &client);
    let mut observer = election.observe(&client);
    while events.next_within(Duration::ZERO).is_none() {
        match observer.next_within(STEP)? {
            Some(LeaderEvent::Leads(kv)) => show(&mut output, &kv)?,
            Some(LeaderEvent::Nobody) | None => {}
        }
    }
    Ok(())
}

fn show(output: &mut Output<'_>, kv: &OwnedKeyValue) -> Result<(), Failure> {
    if output.is_json() {
        let mut object = Map::new();
        object.insert("kv".into(), owned_pair(kv));
        output.object(object, kv.mod_revision.max(kv.create_revision))
    } else {
        output.pair(kv)?;
        output.flush()
    }
}
