//! `alarm`: what the cluster keeps in mind of its members until somebody disarms it.

use clap::Subcommand;
use client::{Alarm, AlarmChange, AlarmKind, Client, NodeId, Range};
use serde_json::json;

use super::failure::Failure;
use super::member::outcome;
use super::output::Output;
use super::session::{Format, Global};

/// What `alarm --help` says.
pub const LONG_ABOUT: &str = "\
Show the alarms of the members, or disarm them

NOSPACE is raised when the store of a member reaches its quota: from then on nothing is put and no lease is granted,
whoever asks, until it is disarmed. Delete keys and compact first, or start the members with a greater quota; the next
write that meets the quota raises it again. A disk that is full is told by `status`, and needs no disarming.
CORRUPT stops all writes.";

/// The commands about alarms.
#[derive(Clone, Debug, Subcommand)]
pub enum AlarmCommand {
    /// Show those that are up
    List,
    /// Disarm those that are up, of all members
    Disarm,
}

/// Does one of them.
///
/// # Errors
/// The cluster, or standard output.
pub fn run(global: &Global, command: &AlarmCommand) -> Result<(), Failure> {
    let mut client = global.connect()?;
    let up = up(&mut client)?;
    let told = match command {
        AlarmCommand::List => up,
        AlarmCommand::Disarm => {
            let mut disarmed = Vec::new();
            for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
                if up.iter().any(|alarm| alarm.kind == kind) {
                    let change = AlarmChange { disarm: true, kind, member: NodeId::default() };
                    disarmed.extend(client.alarm(&change).map_err(outcome)?);
                }
            }
            disarmed
        }
    };
    let mut output = Output::new(global.write_out, &client);
    match global.write_out {
        Format::Simple => output.text(&lines(&told)),
        Format::Json => {
            let alarm =
                |alarm: &Alarm| json!({ "member": alarm.member.get(), "alarm": alarm.kind.name() });
            output.members(json!({ "alarms": told.iter().map(alarm).collect::<Vec<_>>() }))
        }
    }
}

/// The alarms that are up now, as any member knows them that has what was acknowledged.
fn up(client: &mut Client) -> Result<Vec<Alarm>, Failure> {
    client.range(&Range { key: &[0], count_only: true, ..Range::default() })?;
    Ok(client.status()?.alarms)
}

/// As etcdctl prints them.
fn lines(alarms: &[Alarm]) -> String {
    let line =
        |alarm: &Alarm| format!("memberID:{} alarm:{}\n", alarm.member.get(), alarm.kind.name());
    alarms.iter().map(line).collect()
}
