//! `inspect log --as-etcd`: the entries of the log in the form in which programs read etcd's.
//!
//! ```text
//! {"commit":7}
//! {"index":1,"term":1,"type":0,"data":""}
//! {"index":5,"term":1,"type":0,"data":"IgoKA2tleRIBdqIGAggF"}
//! ```

use std::io::Write;

use base::{LogIndex, Term};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etcd::log_entry;
use node::EntryKind;
use wal::{Applied, GroupRow, Recovered};
use wire::{Kind, MemberList, MemberRole, Request, VerifyLimits};

use crate::checkpoint;
use crate::directory::Directory;
use crate::error::RecordFault;
use crate::log::{self, Log};
use crate::{Error, Fault, Options};

/// An entry as the log holds it.
struct Entry<'a> {
    index: LogIndex,
    term: Term,
    kind: u8,
    payload: &'a [u8],
}

/// The log of a directory.
pub(crate) struct EtcdLog {
    groups: Vec<GroupRow>,
    /// The last valid index of each group.
    upto: Vec<LogIndex>,
    commit: LogIndex,
}

impl EtcdLog {
    /// Reads the whole log once: who the members are tells what is committed, and that stands in it.
    pub fn scan(directory: &mut Directory) -> Result<Self, Error> {
        let mut members = directory.read_identity()?.members;
        let mut applied = (LogIndex::ZERO, Term::ZERO);
        let mut known = Applied::Unknown;
        // A checkpoint that is just being written is not needed: the log says what there is.
        if let Ok(slot) = checkpoint::open(directory, None)
            && let Some(state) = slot.whole()
        {
            applied = state.applied();
            known = Applied::Upto { index: applied.0, term: applied.1 };
            let (list, _) = state.members();
            if !list.is_empty() {
                members = list.to_vec();
            }
        }
        let log = Log::scan(directory, known);
        let upto = log.valid_upto();
        let recovered = log.result.map_err(Fault::Wal)?;
        each(directory, &log.groups, &upto, &mut |entry| {
            if let Some((EntryKind::Members, _, list)) = EntryKind::of(entry.kind, entry.payload)
                && entry.index > applied.0
            {
                members = list.to_vec();
            }
            Ok(true)
        })?;
        let commit = commit(&recovered, applied.0, &members);
        Ok(Self { groups: log.groups, upto, commit })
    }

    /// Prints the entries, from `options.from` on.
    pub fn print(
        &self,
        directory: &mut Directory,
        options: &Options,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        writeln!(out, "{{\"commit\":{}}}", self.commit.get()).map_err(Error::Output)?;
        let mut left = options.limit.unwrap_or(u64::MAX);
        each(directory, &self.groups, &self.upto, &mut |entry| {
            if entry.index.get() < options.from {
                return Ok(true);
            }
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            // What is in the log was verified when it was written; what cannot be read is not etcd's.
            let data = STANDARD.encode(data(&entry).unwrap_or_default());
            let (index, term) = (entry.index.get(), entry.term.get());
            writeln!(out, "{{\"index\":{index},\"term\":{term},\"type\":0,\"data\":\"{data}\"}}")
                .map_err(Error::Output)?;
            Ok(true)
        })
    }
}

/// Visits the entries that no later ones have replaced, in order.
fn each(
    directory: &mut Directory,
    groups: &[GroupRow],
    upto: &[LogIndex],
    visit: &mut dyn FnMut(Entry<'_>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut upto = upto.iter();
    log::walk(directory, groups, &mut |row, header, bytes| {
        let upto = *upto.next().expect("there is one for each group");
        for record in header.records(bytes) {
            let entry = record.map_err(|fault| log::unstable(row, fault))?.entry;
            let (index, term) = (entry.index, entry.term);
            if index > upto {
                break;
            }
            if !visit(Entry { index, term, kind: entry.kind, payload: entry.payload })? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// The last entry that is known to be committed. A log without other voters is committed as far as it goes.
fn commit(recovered: &Recovered, applied: LogIndex, members: &[u8]) -> LogIndex {
    let is_voter = |role| matches!(role, MemberRole::Voter);
    let voters = MemberList::decode(members)
        .map(|list| list.members.iter().filter(|member| is_voter(member.role)).count());
    // Who founds a cluster alone has no list.
    let is_alone = members.is_empty() || voters == Ok(1);
    let noted = recovered.hard_state.commit.max(applied);
    if is_alone { recovered.last.index.max(noted) } else { noted }
}

/// What etcd's log would hold in the place of an entry; nothing for kinds that etcd has not.
fn data(entry: &Entry<'_>) -> Result<Vec<u8>, RecordFault> {
    let (kind, _, payload) =
        EntryKind::of(entry.kind, entry.payload).ok_or(RecordFault::Kind(entry.kind))?;
    let index = entry.index.get();
    let verified = |kind, chosen, body| {
        let request = Request::verify(kind, body, &VerifyLimits::REQUEST);
        request
            .map(|request| log_entry::data(index, &request, chosen))
            .map_err(RecordFault::Payload)
    };
    let (time, behind) = payload.split_first_chunk().unwrap_or((&[0; 8], &[]));
    match kind {
        EntryKind::Put => verified(Kind::Put, 0, payload),
        EntryKind::DeleteRange => verified(Kind::DeleteRange, 0, payload),
        EntryKind::Txn => verified(Kind::Txn, 0, payload),
        EntryKind::Compact => verified(Kind::Compact, 0, payload),
        EntryKind::LeaseGrant => {
            let chosen = kv::first_choice(u64::from_le_bytes(*time), entry.index);
            verified(Kind::LeaseGrant, chosen.get(), behind)
        }
        EntryKind::LeaseRevoke => verified(Kind::LeaseRevoke, 0, payload),
        EntryKind::Alarm => verified(Kind::Alarm, 0, payload),
        EntryKind::LeaseExpire => {
            let lease = behind.first_chunk().map_or(0, |lease| i64::from_le_bytes(*lease));
            Ok(log_entry::lease_revoke(index, lease))
        }
        EntryKind::Empty
        | EntryKind::Members
        | EntryKind::Register
        | EntryKind::PutWithTtl
        | EntryKind::LeaseKeepAlive
        | EntryKind::LogTime => Ok(Vec::new()),
    }
}
