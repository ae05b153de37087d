//! `inspect check`: verifies everything that can be verified, one part after the other, and ends with the
//! first fault.
//!
//! ```text
//! identity ─► each checkpoint: pages, runs, free list ─► log: scan, groups, records ─► ring, watermark,
//! slots ─► start: boot to the end, every key ─► start from the older checkpoint: the same state
//! ```

use std::collections::{BTreeSet, VecDeque};

use base::limits::BLOCK_SIZE;
use base::{FileId, LogIndex, Lsn, Revision, Term};
use kv::State;
use node::{Booted, DataFile};
use wal::{
    Applied, Fault as GroupFault, GROUPS_IN_FLIGHT_MAX, Recovered, RingSlot, SEGMENT_HEADER_SIZE,
    Skipped, WATERMARK_BLOCKS, WalFile, Watermark,
};

use crate::checkpoint::{self, Slot};
use crate::directory::{Directory, META_SLOTS};
use crate::log::{self, Log};
use crate::meta::{print_identity, state_fields};
use crate::report::Report;
use crate::start::{boot, read_all};
use crate::summary::summary;
use crate::wal_listing::{print_end, size64};
use crate::{Error, Fault, pages};

/// Checks everything.
pub(crate) fn run(directory: &mut Directory, report: &mut Report<'_>) -> Result<(), Error> {
    let identity = directory.read_identity()?;
    print_identity(&identity, report)?;
    let slots = check_pages(directory, report)?;
    let newest = slots.iter().flatten().max_by_key(|state| state.pages().published());
    let applied = newest.map_or((LogIndex::ZERO, Term::ZERO), State::applied);
    check_log(directory, applied, report)?;
    let older = match &slots {
        [Some(first), Some(second)] => {
            Some(usize::from(first.pages().published() > second.pages().published()))
        }
        [Some(_) | None, None] | [None, Some(_)] => None,
    };
    drop(slots);
    check_start(directory, older, report)?;
    report.line("clean", &[("notes", report.notes().into())])
}

/// Verifies what each meta slot reaches; returns the states that they hold.
fn check_pages(
    directory: &mut Directory,
    report: &mut Report<'_>,
) -> Result<[Option<State>; 2], Error> {
    let mut states = [None, None];
    let (mut broken, mut partial) = (None, None);
    for (slot, state) in states.iter_mut().enumerate() {
        match checkpoint::verify(directory, Some(slot))? {
            Slot::Blank | Slot::Partial => {}
            Slot::Broken => broken = Some(slot),
            Slot::Whole(counts) => {
                let mut fields = vec![("slot", slot.into())];
                fields.extend(pages::fields(&counts));
                report.line("pages", &fields)?;
            }
        }
        match checkpoint::open(directory, Some(slot))? {
            Slot::Whole(found) => *state = Some(found),
            Slot::Partial => partial = Some(slot),
            Slot::Blank | Slot::Broken => {}
        }
    }
    let any = states.iter().any(Option::is_some);
    // Such a file was never in use: it got its name only when the state was whole.
    if let Some(slot) = partial {
        if !any {
            let error = kv::OpenError::Incomplete;
            return Err(Fault::Meta { slot: Some(slot), error }.into());
        }
        report.note(&format!(
            "pages at byte {}: meta slot {slot} is of the time when this state was on its way in from \
             another member; only the other slot can be started from until the next checkpoint",
            META_SLOTS[slot]
        ))?;
    }
    match broken {
        Some(_) if !any => {
            let error = tree::OpenError::NoMeta { blank: false };
            Err(Fault::Pages { slot: None, error }.into())
        }
        Some(slot) => report.note(&format!(
            "pages at byte {}: meta slot {slot} does not verify; either a crash tore its write or it is \
             damaged. A start takes the other slot and everything behind it from the log",
            META_SLOTS[slot]
        )),
        None if !any => report.print("pages", &[], "no checkpoint yet"),
        None => Ok(()),
    }?;
    Ok(states)
}

/// Verifies the log and what accompanies it.
fn check_log(
    directory: &mut Directory,
    applied: (LogIndex, Term),
    report: &mut Report<'_>,
) -> Result<(), Error> {
    let (index, term) = applied;
    let log = Log::scan(directory, Applied::Upto { index, term });
    let recovered = log.result.as_ref().map_err(|error| Fault::Wal(error.clone()))?;
    print_end(recovered, report)?;
    let broken = check_slots(directory, &log, report)?;
    // A segment that was never written to may come first; any other gap was full of groups.
    let is_gap = |it: &&Skipped| it.fault != GroupFault::Absent || it.lsn > Lsn::ZERO.next();
    if let Some(&skipped) = recovered.skipped.iter().find(is_gap) {
        return Err(gap(&log, skipped, &broken).into());
    }
    for file in broken {
        report.note(&format!(
            "{file} at byte 0: the segment header does not verify; either a crash tore its write or it \
             is damaged. No group of the log lies there"
        ))?;
    }
    let torn = check_records(directory, &log, report)?;
    check_ring(directory, recovered, &torn, report)?;
    check_watermark(directory, log.watermark.as_ref(), report)
}

/// Names the place of a gap in the log. Recovery names where the chain ended, which is the end of a
/// segment if what is damaged is the next one.
fn gap(log: &Log, skipped: Skipped, broken: &[WalFile]) -> Fault {
    if skipped.fault != GroupFault::Absent {
        return Fault::Group(skipped);
    }
    let begin = log.groups.first().map(|row| WalFile::Slot(row.slot));
    let mut files = log.segments.iter().map(|segment| WalFile::Slot(segment.slot));
    files.by_ref().find(|file| *file == skipped.file);
    match (files.next().filter(|file| Some(*file) != begin), broken) {
        (Some(file), _) => {
            let offset = size64(SEGMENT_HEADER_SIZE);
            Fault::Group(Skipped { file, offset, fault: GroupFault::Header, ..skipped })
        }
        (None, [file, ..]) => {
            let (lsn, next_lsn) = (skipped.lsn, skipped.next_lsn);
            Fault::Segment { file: *file, lsn, next_lsn }
        }
        (None, []) => Fault::Group(skipped),
    }
}

/// Verifies every group again, and that every record can be understood. Returns the groups that were in
/// flight when a process ended, as far as nothing tells otherwise: their copies in the ring may be torn.
fn check_records(
    directory: &mut Directory,
    log: &Log,
    report: &mut Report<'_>,
) -> Result<BTreeSet<Lsn>, Error> {
    let (mut records, mut bytes) = (0_u64, 0_u64);
    let mut torn = BTreeSet::new();
    // The newest groups, as many as can be in flight.
    let mut newest: VecDeque<(Lsn, FileId)> = VecDeque::new();
    let mut durable = log.watermark.map_or(Lsn::ZERO, |watermark| watermark.durable_lsn);
    log::walk(directory, &log.groups, &mut |row, header, group| {
        let file = WalFile::Slot(row.slot);
        for record in header.records(group) {
            let record = record.map_err(|fault| {
                let (offset, lsn) = (row.offset, row.lsn);
                Fault::Wal(wal::RecoveryError::Unstable { file, offset, lsn, fault })
            })?;
            let entry = record.entry;
            if let Err(reason) = summary(entry.kind, entry.payload) {
                let offset = row.offset + size64(record.offset);
                let (lsn, index) = (row.lsn, entry.index);
                return Err(Fault::Record { file, offset, lsn, index, reason }.into());
            }
            records += 1;
            bytes += size64(entry.payload.len());
        }
        let incarnation = header.identity.incarnation;
        let others = newest.iter().filter(|(_, other)| *other != incarnation);
        torn.extend(others.map(|(lsn, _)| *lsn));
        newest.push_back((row.lsn, incarnation));
        if newest.len() > GROUPS_IN_FLIGHT_MAX {
            newest.pop_front();
        }
        durable = durable.max(header.durable_lsn);
        Ok(true)
    })?;
    torn.extend(newest.iter().map(|(lsn, _)| *lsn).filter(|lsn| *lsn > durable));
    report.line("records", &[("count", records.into()), ("payload", bytes.into())])?;
    Ok(torn)
}

/// Verifies the copies of group headers. A copy is written beside its group, so that a crash may tear it;
/// nobody writes it again if the group itself is whole.
fn check_ring(
    directory: &mut Directory,
    recovered: &Recovered,
    torn: &BTreeSet<Lsn>,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    let file = WalFile::Ring;
    let slots = directory.files().ring_size / size64(BLOCK_SIZE);
    if slots == 0 {
        return report.print("ring", &[], "none");
    }
    let newest = recovered.durable_lsn;
    let ahead = 1..=size64(GROUPS_IN_FLIGHT_MAX);
    let dropped: Vec<u64> = ahead.map(|ahead| newest.advance(ahead).get() % slots).collect();
    let (mut present, mut missing) = (0_u64, 0_u64);
    for slot in 0..slots {
        let offset = slot * size64(BLOCK_SIZE);
        // The newest group whose copy belongs here, if the log still has it.
        let lsn = newest.get().checked_sub((newest.get() % slots + slots - slot) % slots);
        let row = lsn.and_then(|lsn| {
            let rows = &recovered.groups;
            rows.get(rows.binary_search_by_key(&lsn, |row| row.lsn.get()).ok()?)
        });
        let block = directory.read(DataFile::Wal(file), offset, BLOCK_SIZE).unwrap_or_default();
        let is_blank = !block.is_empty() && block.iter().all(|byte| *byte == 0);
        let found = RingSlot::decode(block)
            .filter(|found| found.identities.is_empty() == (found.header.record_count == 0));
        match (found, row) {
            (Some(found), Some(row)) if found.hash == row.hash => present += 1,
            // Of a group that is gone, or that was dropped.
            (Some(found), _) if row.is_none() || found.header.lsn > newest => {}
            (None, None) if is_blank => {}
            (Some(_), _) => missing += 1,
            (None, Some(_)) if is_blank => missing += 1,
            (None, Some(row)) if !torn.contains(&row.lsn) && !dropped.contains(&slot) => {
                return Err(Fault::Block { file, offset, lsn: Some(row.lsn) }.into());
            }
            (None, _) => report.note(&format!(
                "{file} at byte {offset} does not verify; either a crash tore its write or it is \
                 damaged. Nothing needs it"
            ))?,
        }
    }
    if missing > 0 {
        report.note(&format!(
            "{file} lacks the headers of {missing} groups: it was not kept while they were written"
        ))?;
    }
    report.line("ring", &[("slots", slots.into()), ("groups", present.into())])
}

/// Verifies the blocks of the watermark file. They are written in turn, so that only the one behind the
/// newest may be torn.
fn check_watermark(
    directory: &mut Directory,
    newest: Option<&Watermark>,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    let file = WalFile::Watermark;
    let next = newest.map_or(0, |newest| newest.sequence.saturating_add(1)) % WATERMARK_BLOCKS;
    let size = directory.files().watermark_size;
    let (mut blocks, mut torn) = (0_u64, 0_u64);
    for block in 0..WATERMARK_BLOCKS.min(size / size64(BLOCK_SIZE)) {
        let offset = block * size64(BLOCK_SIZE);
        let bytes = directory.read(DataFile::Wal(file), offset, BLOCK_SIZE).unwrap_or_default();
        if Watermark::decode(bytes).is_some() {
            blocks += 1;
        } else if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
            torn += 1;
            // A first one that is torn leaves no newest.
            if torn > 1 || (newest.is_some() && block != next) {
                return Err(Fault::Block { file, offset, lsn: None }.into());
            }
            report.note(&format!(
                "{file} at byte {offset} does not verify; either a crash tore its write or it is \
                 damaged. The other blocks stand for it"
            ))?;
        }
    }
    let durable = newest.map_or(Lsn::ZERO, |newest| newest.durable_lsn);
    report.line("watermark", &[("blocks", blocks.into()), ("durable_lsn", durable.get().into())])
}

/// Looks at the slots that are no segment: never used, or with a header that does not verify. Returns the
/// latter.
fn check_slots(
    directory: &mut Directory,
    log: &Log,
    report: &mut Report<'_>,
) -> Result<Vec<WalFile>, Error> {
    let slots: Vec<u32> = directory.files().slots.iter().map(|slot| slot.slot).collect();
    let mut broken = Vec::new();
    let mut unused = 0_u64;
    for &slot in &slots {
        if log.segments.iter().any(|segment| segment.slot == slot) {
            continue;
        }
        let file = WalFile::Slot(slot);
        match directory.read(DataFile::Wal(file), 0, BLOCK_SIZE) {
            Ok(block) if block.iter().all(|byte| *byte == 0) => unused += 1,
            Ok(_) | Err(_) => broken.push(file),
        }
    }
    let fields = [
        ("count", slots.len().into()),
        ("segments", log.segments.len().into()),
        ("unused", unused.into()),
        ("broken", broken.len().into()),
    ];
    report.line("slots", &fields)?;
    Ok(broken)
}

/// Starts without consequences, and reads what is there then.
fn check_start(
    directory: &mut Directory,
    older: Option<usize>,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    let mut booted = boot(directory, None)?;
    let mut fields = state_fields(&booted.state);
    fields.push(("replayed", booted.replayed.into()));
    fields.push(("pending", booted.tail.pending().len().into()));
    report.line("start", &fields)?;

    let state = &mut booted.state;
    // What comes before the oldest revision that can be read is gone.
    let oldest = state.compacted().unwrap_or(Revision::new(1));
    for revision in [state.revision(), oldest] {
        let keys = read_all(directory, state, revision)?;
        report.line("keys", &[("revision", revision.get().into()), ("count", keys.into())])?;
    }
    let Some(older) = older else { return Ok(()) };
    check_older_start(directory, older, &booted, report)
}

/// The log is kept from the older checkpoint on: a start from there must end in the same state.
fn check_older_start(
    directory: &mut Directory,
    older: usize,
    newer: &Booted,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    let booted = boot(directory, Some(older))?;
    let (applied, _) = booted.state.applied();
    let fields = [("slot", older.into()), ("replayed", booted.replayed.into())];
    if applied != newer.state.applied().0 {
        // The commit index in the log is a hint that may lag behind what the checkpoint knew.
        let text =
            "ends before the newer checkpoint, where the log does not say what was committed";
        return report.print("older_start", &fields, text);
    }
    if !newer.state.between_entries() || !booted.state.between_entries() {
        let text = "ends in the middle of an entry, as a checkpoint of a large delete may";
        return report.print("older_start", &fields, text);
    }
    let (newer, older) = (newer.state.state_hash(), booted.state.state_hash());
    if newer != older {
        return Err(Fault::Diverges { applied, newer, older }.into());
    }
    report.print("older_start", &fields, "the same state")
}
