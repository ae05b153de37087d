//! `inspect meta`: who the directory belongs to, what each meta slot says, where the log stands.

use kv::State;
use node::DataFile;
use serde_json::Value;
use server::Identity;
use wal::{Applied, WalFile};

use crate::checkpoint::{self, Slot};
use crate::directory::{Directory, META_SLOTS};
use crate::log::Log;
use crate::report::{Field, Report, hash, id64, id128};
use crate::wal_listing::{print_end, print_watermark};
use crate::{Error, Fault};

/// Prints all of it, and then the first fault.
pub(crate) fn print(directory: &mut Directory, report: &mut Report<'_>) -> Result<(), Error> {
    let mut fault = None;
    match directory.read_identity() {
        Ok(identity) => print_identity(&identity, report)?,
        Err(found) => keep(&mut fault, found.into(), report)?,
    }
    for file in [DataFile::Pages, DataFile::Wal(WalFile::Ring), DataFile::Wal(WalFile::Watermark)] {
        if let Some((size, stored)) = directory.size(file) {
            let name = match file {
                DataFile::Pages => "pages".into(),
                DataFile::Wal(file) => file.to_string(),
            };
            report.line(
                "file",
                &[("path", name.into()), ("size", size.into()), ("stored", stored.into())],
            )?;
        }
    }
    let slots = &directory.files().slots;
    let size: u64 = slots.iter().map(|slot| slot.size).sum();
    report.line("slots", &[("count", slots.len().into()), ("size", size.into())])?;

    let mut newest: Option<State> = None;
    for (slot, offset) in META_SLOTS.into_iter().enumerate() {
        let place = [("slot", Value::from(slot)), ("offset", offset.into())];
        match checkpoint::open(directory, Some(slot)) {
            Ok(Slot::Blank) => report.print("meta", &place, "blank")?,
            Ok(Slot::Broken) => report.print("meta", &place, "does not verify")?,
            Ok(Slot::Partial) => report.print("meta", &place, "on its way in, not whole")?,
            Ok(Slot::Whole(state)) => {
                let mut fields = place.to_vec();
                fields.extend(state_fields(&state));
                report.line("meta", &fields)?;
                let root = |state: &State| state.pages().published();
                if newest.as_ref().is_none_or(|newest| root(newest) < root(&state)) {
                    newest = Some(state);
                }
            }
            Err(found) => keep(&mut fault, found, report)?,
        }
    }
    let applied = newest.map_or(Applied::Unknown, |state| {
        let (index, term) = state.applied();
        Applied::Upto { index, term }
    });
    let log = Log::scan(directory, applied);
    if let Some(watermark) = &log.watermark {
        print_watermark(watermark, report)?;
    }
    match log.result {
        Ok(recovered) => print_end(&recovered, report)?,
        Err(error) => keep(&mut fault, Fault::Wal(error).into(), report)?,
    }
    fault.map_or(Ok(()), Err)
}

/// Keeps the first fault for the end and goes on; what is no fault ends the inspection.
fn keep(kept: &mut Option<Error>, error: Error, report: &mut Report<'_>) -> Result<(), Error> {
    if !error.is_fault() {
        return Err(error);
    }
    if kept.is_none() {
        *kept = Some(error);
        return Ok(());
    }
    report.note(&error.to_string())
}

/// Prints what the identity file says.
pub(crate) fn print_identity(identity: &Identity, report: &mut Report<'_>) -> Result<(), Error> {
    report.line(
        "identity",
        &[
            ("format", server::FORMAT_VERSION.into()),
            ("cluster", id64(identity.cluster)),
            ("member", id64(identity.member.get())),
            ("page_file", id128(identity.page_file.get())),
            ("segment_size", identity.segment_size.into()),
        ],
    )
}

/// The alarms that are up: each with the member that it is about.
fn alarms(state: &State) -> String {
    let alarm = |alarm: &base::Alarm| format!("{}:{}", alarm.kind.name(), alarm.member.get());
    state.alarms().iter().map(alarm).collect::<Vec<_>>().join(",")
}

/// What a state says of itself, as fields.
pub(crate) fn state_fields(state: &State) -> Vec<Field> {
    let (applied, term) = state.applied();
    let compacted = state.compacted().map_or(Value::Null, |revision| revision.get().into());
    vec![
        ("root", state.pages().published().get().into()),
        ("applied", applied.get().into()),
        ("applied_term", term.get().into()),
        ("revision", state.revision().get().into()),
        ("compacted", compacted),
        ("client_sessions", state.clients().into()),
        ("alarms", alarms(state).into()),
        ("state_hash", hash(state.state_hash())),
    ]
}
