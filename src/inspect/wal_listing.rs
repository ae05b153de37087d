//! `inspect wal`: segments, watermark, groups and their records, and how the log ends.

use base::{LogIndex, NodeId};
use serde_json::Value;
use wal::{Applied, GroupHeader, GroupRow, HardState, Position, Recovered, Watermark};

use crate::checkpoint;
use crate::directory::Directory;
use crate::log::{self, Log};
use crate::report::{Field, Report, hash, id64, id128};
use crate::summary::summary;
use crate::{Error, Fault, Options};

/// Prints the log; also the sound part of one that cannot be used, which is a fault then.
pub(crate) fn print(
    directory: &mut Directory,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    if let Err(fault) = directory.read_identity() {
        report.note(&fault.to_string())?;
    }
    let applied = applied(directory, report)?;
    let log = Log::scan(directory, applied);
    for segment in &log.segments {
        report.line(
            "segment",
            &[
                ("slot", segment.slot.into()),
                ("sequence", segment.sequence.into()),
                ("size", segment.size.into()),
                ("uuid", id128(segment.uuid.get())),
                ("incarnation", id128(segment.identity.incarnation.get())),
            ],
        )?;
    }
    if let Some(watermark) = &log.watermark {
        print_watermark(watermark, report)?;
    }
    print_groups(directory, &log, options, report)?;
    let recovered = log.result.map_err(Fault::Wal)?;
    print_end(&recovered, report)
}

/// The applied index tells which part of the log nobody needs any more.
fn applied(directory: &mut Directory, report: &mut Report<'_>) -> Result<Applied, Error> {
    match checkpoint::open(directory, None) {
        Ok(slot) => Ok(slot.whole().map_or(Applied::Unknown, |state| {
            let (index, term) = state.applied();
            Applied::Upto { index, term }
        })),
        Err(Error::Fault(fault)) => {
            report.note(&fault.to_string())?;
            Ok(Applied::Unknown)
        }
        Err(error) => Err(error),
    }
}

fn print_groups(
    directory: &mut Directory,
    log: &Log,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    let from = LogIndex::new(options.from);
    let begin = if options.from == 0 {
        0
    } else {
        // Indexes grow from group to group but for cuts: the first group that reaches it is the one.
        let reaches = |row: &GroupRow| row.last >= from;
        log.groups.iter().position(reaches).unwrap_or(log.groups.len())
    };
    let upto = log.valid_upto();
    let mut upto = upto[begin..].iter();
    let mut left = options.limit.unwrap_or(u64::MAX);
    log::walk(directory, &log.groups[begin..], &mut |row, header, bytes| {
        if left == 0 {
            return Ok(false);
        }
        let upto = *upto.next().expect("there is one for each group");
        report.line("group", &group_fields(row, header))?;
        for record in header.records(bytes) {
            let record = record.map_err(|fault| log::unstable(row, fault))?;
            let entry = record.entry;
            if entry.index < from {
                continue;
            }
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            let (kind, text) = match summary(entry.kind, entry.payload) {
                Ok((kind, text)) => (Value::from(kind), text),
                Err(fault) => (entry.kind.into(), format!("not understood: {fault:?}")),
            };
            let fields = [
                ("index", entry.index.get().into()),
                ("term", entry.term.get().into()),
                ("kind", kind),
                ("offset", (row.offset + size64(record.offset)).into()),
                ("payload", entry.payload.len().into()),
                ("void", (entry.index > upto).into()),
            ];
            report.print("record", &fields, &text)?;
        }
        Ok(true)
    })
}

fn group_fields(row: &GroupRow, header: &GroupHeader) -> Vec<Field> {
    let mut fields = vec![
        ("lsn", header.lsn.get().into()),
        ("slot", row.slot.into()),
        ("offset", row.offset.into()),
        ("size", row.size.into()),
        ("records", header.record_count.into()),
        ("cut", header.cut.index.get().into()),
        ("cut_term", header.cut.term.get().into()),
        ("last", header.last.index.get().into()),
        ("durable_lsn", header.durable_lsn.get().into()),
    ];
    fields.extend(hard_state_fields(&header.hard_state));
    fields.push(("restart", header.restart.into()));
    fields
}

/// Term, vote and commit index.
pub(crate) fn hard_state_fields(state: &HardState) -> [Field; 3] {
    [
        ("term", state.term.get().into()),
        ("vote", state.vote.map(NodeId::get).map_or(Value::Null, id64)),
        ("commit", state.commit.get().into()),
    ]
}

/// Prints the newest watermark.
pub(crate) fn print_watermark(watermark: &Watermark, report: &mut Report<'_>) -> Result<(), Error> {
    let mut fields = vec![
        ("sequence", watermark.sequence.into()),
        ("durable_lsn", watermark.durable_lsn.get().into()),
        ("durable_index", watermark.durable_index.get().into()),
        ("durable_term", watermark.durable_term.get().into()),
    ];
    fields.extend(hard_state_fields(&watermark.hard_state));
    report.line("watermark", &fields)
}

/// Prints begin and end of a log that can be used, and what was dropped from it.
pub(crate) fn print_end(recovered: &Recovered, report: &mut Report<'_>) -> Result<(), Error> {
    let Position { index, term, hash: chain } = recovered.last;
    let mut fields = vec![
        ("groups", recovered.groups.len().into()),
        ("base", recovered.base.index.get().into()),
        ("last", index.get().into()),
        ("last_term", term.get().into()),
        ("durable_lsn", recovered.durable_lsn.get().into()),
        ("chain", hash(chain)),
    ];
    fields.extend(hard_state_fields(&recovered.hard_state));
    report.line("log", &fields)?;
    for skipped in &recovered.skipped {
        let wal::Skipped { file, offset, lsn, fault, next_lsn } = skipped;
        report.note(&format!(
            "{file} at byte {offset}: group LSN {lsn} is missing ({fault}); nothing needs it, the log \
             begins with LSN {next_lsn}"
        ))?;
    }
    if let Some(tail) = &recovered.tail {
        let wal::TornTail { file, offset, lsn, entries, fault, in_ring, promised: _ } = tail;
        let entries = entries
            .map_or(String::new(), |(first, last)| format!(" with log indices {first} to {last}"));
        let in_ring = if *in_ring { "; the ring holds its header" } else { "" };
        report.note(&format!(
            "{file} at byte {offset}: the log ends with a torn group, LSN {lsn}{entries} \
             ({fault}{in_ring}); it was never acknowledged, and a start drops it"
        ))?;
    }
    Ok(())
}

/// A size as a file offset counts it.
pub(crate) fn size64(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits u64")
}
