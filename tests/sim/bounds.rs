//! What is judged of a member from outside of its log: the page file as a power cut would leave it (I11),
//! how much it holds (I16), and that it never goes back (I6, I10).

use base::limits::{CONNECTION_REQUESTS_MAX, PARTIAL_BYTES_MAX, READS_SIZE_MAX};
use base::{LogIndex, NodeId};
use node::{Bound, Consensus};
use tree::{Check, CheckStep, META_SIZE, OpenError, SLOT_OFFSETS};

use crate::disk::{Block, Disk, Name, at};
use crate::ghost::Verdict;
use crate::member::{CLUSTER, Node, Process};
use crate::plan::Plan;

/// What was last seen of a member, in this life.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    term: u64,
    committed: u64,
    applied: u64,
    revision: u64,
    compacted: u64,
    /// Both meta slots have come this far.
    pub checkpointed: u64,
    /// The entry before the first one of the log on disk.
    before: Option<u64>,
    /// What a start had replayed is written, if it was more than may wait.
    has_checkpointed: bool,
    /// A state of another member takes the place of all this.
    pub installs: bool,
}

fn holds(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

/// Whether each of the two checkpoints that a start may choose is whole in what is durable: every page
/// that it reaches verifies, and none of them is free or shared (I11).
pub fn check_pages(node: &Node, file: Name) -> Verdict {
    let options = tree::Options {
        file: node.data_id,
        cluster: CLUSTER,
        member: NodeId::new(node.id),
        cache_size: 64 << 20,
        growth_size: 1 << 20,
    };
    for hidden in SLOT_OFFSETS {
        match check_one(&node.disk, file, &options, hidden) {
            Ok(()) | Err(OpenError::NoMeta { blank: true }) => {}
            Err(error) => {
                return Err(format!(
                    "I11: member {} would not find its state after a power cut, with the meta slot \
                     at {hidden} lost: {error}",
                    node.id
                ));
            }
        }
    }
    Ok(())
}

fn check_one(
    disk: &Disk,
    file: Name,
    options: &tree::Options,
    hidden: u64,
) -> Result<(), OpenError> {
    let hidden = hidden..hidden + META_SIZE as u64;
    let mut check = Check::new(options, disk.durable_size(file));
    while let CheckStep::Read { offset, size } = check.next() {
        let mut bytes = disk.read_durable(file, offset, size);
        let end = offset + bytes.len() as u64;
        let (from, to) = (hidden.start.max(offset), hidden.end.min(end));
        if from < to {
            bytes[at(from - offset)..at(to - offset)].fill(0);
        }
        check.feed(&bytes);
    }
    check.finish().map(drop)
}

/// What consensus may not take back, and what it may hold, after a turn of it; entries up to `decided` are
/// committed, by whomever.
pub fn check_consensus(
    id: u64,
    seen: &mut Seen,
    consensus: &Consensus<Block>,
    plan: &Plan,
    decided: u64,
) -> Verdict {
    let raft = consensus.raft();
    let (term, committed) = (raft.term().get(), raft.log().committed().get());
    holds(term >= seen.term && committed >= seen.committed, || {
        format!(
            "I6: member {id} goes back from term {}, commit index {} to {term}, {committed}",
            seen.term, seen.committed
        )
    })?;
    (seen.term, seen.committed) = (term, committed);
    // Those of an earlier leader may both be there: it knew that the first was committed.
    let own = |index| {
        index > decided.max(committed) && raft.log().term_at(LogIndex::new(index)) == raft.term()
    };
    // A list with a new name or address changes no vote, so a change may follow it at once.
    let changes = raft
        .configurations()
        .windows(2)
        .filter(|pair| own(pair[1].index.get()) && pair[1].membership != pair[0].membership);
    let count = changes.count();
    holds(count <= 1 || raft.role() != raft::RoleName::Leader, || {
        let at: Vec<u64> = raft.configurations().iter().map(|known| known.index.get()).collect();
        format!(
            "I8: leader {id} has {count} lists of members under way, at {at:?}; committed are {decided} \
             entries"
        )
    })?;
    let before = consensus.log_begins_behind().map_or(0, LogIndex::get);
    if std::mem::take(&mut seen.installs) {
        seen.checkpointed = seen.checkpointed.max(raft.log().base().index.get());
    }
    let known = seen.before.unwrap_or(before);
    holds(before <= known.max(seen.checkpointed), || {
        format!(
            "I10: member {id} gives its log up to entry {before} back, both meta slots are at {}",
            seen.checkpointed
        )
    })?;
    seen.before = Some(before);
    let taken = consensus.proposed_size();
    holds(taken <= plan.proposed_max, || {
        format!(
            "I16: member {id} holds {taken} bytes of proposals, {} are allowed",
            plan.proposed_max
        )
    })
}

/// What the store may not take back, and what it may hold, after a turn of it.
pub fn check_store(id: u64, seen: &mut Seen, process: &Process, plan: &Plan) -> Verdict {
    let state = process.store.state();
    let (applied, revision) = (state.applied().0.get(), state.revision().get());
    let compacted = state.compacted().map_or(0, base::Revision::get);
    holds(
        applied >= seen.applied && revision >= seen.revision && compacted >= seen.compacted,
        || {
            format!(
                "I6: member {id} goes back from entry {}, revision {}, compacted {} to {applied}, \
                 {revision}, {compacted}",
                seen.applied, seen.revision, seen.compacted
            )
        },
    )?;
    (seen.applied, seen.revision, seen.compacted) = (applied, revision, compacted);
    let booked = process.store.reads_booked();
    holds(booked <= READS_SIZE_MAX, || format!("I16: member {id} holds {booked} bytes of reads"))?;
    let (dirty, cached) = (state.pages().dirty_size(), state.pages().resident_size());
    // Beyond the bound there may be what one request, and the trimming beside it, changes.
    let slack = 2 << 20;
    // A start replays what came since the older of two checkpoints, and what was committed and waited for
    // them to be applied, in two trees; from when that is written and evicted the bounds hold.
    let (dirty_max, cached_max) = (plan.cache_size / 2 + slack, plan.cache_size + slack);
    seen.has_checkpointed |= dirty <= dirty_max && cached <= cached_max;
    let waited = 2 * plan.proposed_max as u64;
    let replayed = if seen.has_checkpointed { 0 } else { dirty_max + waited };
    holds(dirty <= dirty_max + replayed, || {
        format!(
            "I16: member {id} has {dirty} bytes of pages to write of a cache of {}",
            plan.cache_size
        )
    })?;
    holds(cached <= cached_max + replayed, || {
        format!("I16: member {id} keeps {cached} bytes of pages in a cache of {}", plan.cache_size)
    })
}

/// What the reactor may hold, after a turn of it.
pub fn check_reactor(id: u64, process: &Process) -> Verdict {
    let (requests, partial) = (process.reactor.requests(), process.reactor.partial_bytes());
    let connections = process.connections.len();
    holds(requests <= (connections + 1) * CONNECTION_REQUESTS_MAX, || {
        format!("I16: member {id} holds {requests} requests of {connections} connections")
    })?;
    holds(partial <= PARTIAL_BYTES_MAX, || {
        format!("I16: member {id} holds {partial} bytes of frames that are not whole")
    })?;
    let told = process.reactor.in_use(Bound::Requests);
    holds(told.used == requests as u64, || {
        format!("I16: member {id} holds {requests} requests, and tells of {told:?}")
    })
}
