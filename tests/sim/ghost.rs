//! What an onlooker knows who sees everything: the one log of the cluster, what is durable where, who
//! voted for whom, what clients were told. The invariants are judged here, outside of the members.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base::{Hash128, NodeId, Stamp};
use node::{Committed, EntryKind, Retention};
use raft::Membership;
use wal::{GroupHeader, Header, Recovered};
use wire::{Effect, MemberList, Status};

use crate::disk::{Disk, GroupId};
use crate::durable::{Durable, Group};
use crate::leased::Leases;
use crate::load::{Ask, Seen, is_local, token};
use crate::model::{Command, Model, Told};
use crate::retained::Retained;

/// What was found to be wrong.
pub type Verdict = Result<(), String>;

/// An entry of the one log.
pub struct Entry {
    pub term: u64,
    pub hash: Hash128,
    /// The members from here on.
    pub members: Option<MemberList>,
    pub is_command: bool,
}

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its client waits.
    Waits,
    /// Nobody waits any more; it may take effect.
    Unknown,
    /// It was answered.
    Answered,
    /// Its client was told that it has had no effect.
    Refused,
}

/// A request as the onlooker sees it.
pub struct Request {
    pub ask: Ask,
    /// Which write of which client it says it is.
    pub stamp: Option<Stamp>,
    /// Its body as the log will hold it.
    body: Vec<u8>,
    pub fate: Fate,
    /// The entry that it became, and what it came to.
    place: Option<(u64, Told)>,
    /// That entry was the same write as an earlier one.
    repeated: bool,
    /// The greatest revision that anybody had been told of before it was asked.
    floor: i64,
    /// The greatest compaction that anybody had been told of.
    compacted: i64,
    /// For a read of a member's own state: what its connection had seen.
    seen: i64,
    /// The status that it was refused with.
    status: Option<Status>,
    /// When it was sent, and how far the log was.
    pub asked_at: u64,
    pub asked_behind: u64,
}

impl Request {
    /// Whether it became an entry.
    pub fn is_in_log(&self) -> bool {
        self.place.is_some()
    }
}

/// The onlooker.
pub struct Ghost {
    pub log: Vec<Entry>,
    pub model: Model,
    /// Requests by number.
    pub requests: Vec<Request>,
    /// Where each write with a stamp took effect.
    effects: HashMap<(u64, u64), u64>,
    /// Entries that registered a client, and the request that was told so.
    registrations: HashMap<u64, Option<u64>>,
    /// The state hash at each applied index.
    hashes: HashMap<u64, Hash128>,
    /// Every entry that was ever written, by index and term.
    entries: HashMap<(u64, u64), Hash128>,
    leaders: BTreeMap<u64, u64>,
    /// The last entry that is known to be committed, and its term.
    pub committed: (u64, u64),
    votes: HashMap<(u64, u64), u64>,
    /// Terms in which somebody has voted for itself.
    campaigns: BTreeSet<u64>,
    /// Members that somebody wanted to be voters whether or not they have the log.
    pub promoted_by_force: BTreeSet<u64>,
    /// With what last entry, its term first, a member asked for votes in a term.
    candidates: HashMap<(u64, u64), (u64, u64)>,
    pub durable: BTreeMap<u64, Durable>,
    /// The members in effect for the one log, committed.
    pub members: MemberList,
    /// The greatest revision that anybody was told of, and the greatest compaction.
    pub acknowledged: i64,
    compacted: i64,
    /// Invariants judged, replies checked.
    pub judged: u64,
    pub checked: u64,
    /// Break something on purpose.
    pub canary: bool,
    /// What time it is.
    pub now: u64,
    pub leases: Leases,
    pub retained: Retained,
    /// The last commands, for the report.
    told: HashMap<u64, i64>,
}

/// Whether an answer says nothing of what a write came to, but of its way to the log or back.
fn is_about_way(seen: &Seen) -> bool {
    match seen {
        Seen::Refused(status, effect) => {
            *effect != Effect::None
                || !matches!(
                    status,
                    Status::KeyNotFound
                        | Status::LeaseNotFound
                        | Status::LeaseExists
                        | Status::Compacted
                        | Status::FutureRevision
                        | Status::DuplicateKey
                        | Status::NoSpace
                        | Status::Corrupt
                )
        }
        _ => false,
    }
}

pub fn slot(index: u64) -> usize {
    usize::try_from(index - 1).expect("logs of the simulator are short")
}

/// The term that a message says its sender is in; none where it is one that somebody asks for.
fn own_term(message: &wire::PeerMessage) -> Option<u64> {
    use wire::PeerMessage as Message;
    match *message {
        Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. } => None,
        Message::PreVoteReply { term, granted: false }
        | Message::Vote { term, .. }
        | Message::VoteReply { term, .. }
        | Message::Accepted { term, .. }
        | Message::Rejected { term, .. }
        | Message::Heartbeat { term, .. }
        | Message::HeartbeatReply { term, .. }
        | Message::TimeoutNow { term }
        | Message::Read { term, .. }
        | Message::ReadReply { term, .. }
        | Message::Newer { term } => Some(term.get()),
    }
}

fn check(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl Ghost {
    /// Before anything has happened.
    pub fn new(members: MemberList, canary: bool, retention: Retention) -> Self {
        let mut model = Model::new();
        model.broken = canary;
        Self {
            log: Vec::new(),
            model,
            requests: Vec::new(),
            effects: HashMap::new(),
            registrations: HashMap::new(),
            hashes: HashMap::new(),
            entries: HashMap::new(),
            leaders: BTreeMap::new(),
            committed: (0, 0),
            votes: HashMap::new(),
            campaigns: BTreeSet::new(),
            promoted_by_force: BTreeSet::new(),
            candidates: HashMap::new(),
            durable: BTreeMap::new(),
            members,
            acknowledged: 0,
            compacted: -1,
            judged: 0,
            checked: 0,
            canary,
            now: 0,
            leases: Leases::default(),
            retained: Retained::new(retention),
            told: HashMap::new(),
        }
    }

    fn durable(&mut self, member: u64) -> &mut Durable {
        self.durable.entry(member).or_default()
    }

    // ------------------------------------------------------------------ the log

    /// A member hands committed entries to its store (I4, I15).
    pub fn committed(&mut self, member: u64, entries: &[Committed]) -> Verdict {
        for entry in entries {
            self.judged += 1;
            let (index, term) = (entry.index.get(), entry.term.get());
            let known = self.log.len() as u64;
            if index <= known {
                let canon = &self.log[slot(index)];
                check((canon.term, canon.hash) == (term, entry.hash), || {
                    format!(
                        "I4: member {member} commits another entry {index}: term {term} instead of \
                         {}",
                        canon.term
                    )
                })?;
                continue;
            }
            check(index == known + 1, || {
                format!("I4: member {member} commits entry {index} behind {known}")
            })?;
            self.extend(entry)?;
        }
        Ok(())
    }

    fn extend(&mut self, entry: &Committed) -> Verdict {
        let index = entry.index.get();
        let mut members = None;
        let is_command = !matches!(
            entry.kind,
            EntryKind::Empty
                | EntryKind::Members
                | EntryKind::Register
                | EntryKind::LeaseKeepAlive
                | EntryKind::LeaseExpire
                | EntryKind::LogTime
        );
        let mut frame = &entry.frame[..];
        if entry.kind.is_timed() {
            let (time, body) = frame
                .split_first_chunk()
                .ok_or_else(|| format!("entry {index} has no log time"))?;
            frame = body;
            let at = (index, entry.term.get());
            self.timed(at, entry.kind, u64::from_le_bytes(*time), body)?;
        }
        if entry.kind == EntryKind::Register {
            let clients_max = entry.frame[..].try_into().map(u32::from_le_bytes);
            let clients_max = clients_max.map_err(|_| format!("entry {index} registers nobody"))?;
            self.model.register(index, clients_max);
            self.registrations.insert(index, None);
        }
        if entry.kind == EntryKind::Members {
            let list = MemberList::decode(&entry.frame)
                .map_err(|error| format!("I8: entry {index} is no list of members: {error}"))?;
            self.check_quorums(&list, index)?;
            self.members = list.clone();
            members = Some(list);
        }
        if entry.kind == EntryKind::Compact && token(frame).is_none() {
            self.retained.compacts(entry, &mut self.model, &self.leases, self.now)?;
        } else if is_command {
            let number = token(frame).ok_or_else(|| {
                format!("I4: entry {index} of kind {:?} was asked for by nobody", entry.kind)
            })?;
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            let request = self
                .requests
                .get_mut(place)
                .ok_or_else(|| format!("I4: entry {index} has the unknown number {number}"))?;
            check(request.body[..] == *frame && request.stamp == entry.stamp, || {
                format!("I2: entry {index} is not what request {number} asked for")
            })?;
            check(request.place.is_none(), || {
                format!("I15: request {number} took effect again, at entry {index}")
            })?;
            let Ask::Write(command) = &request.ask else {
                return Err(format!("I4: entry {index} is read request {number}"));
            };
            let (told, repeated) = self.model.apply_once(entry.stamp.as_ref(), index, command);
            if let Some(stamp) = &entry.stamp
                && !repeated
                && !matches!(told, Told::Refused(_))
            {
                let write = (stamp.client.get(), stamp.sequence);
                let before = self.effects.insert(write, index);
                check(before.is_none(), || {
                    format!("I15: write {write:?} took effect at {before:?} and at entry {index}")
                })?;
            }
            check(request.fate != Fate::Answered, || {
                format!("I7: request {number} was answered before entry {index} was committed")
            })?;
            check(request.fate != Fate::Refused || matches!(told, Told::Refused(_)), || {
                format!(
                    "request {number} took effect at entry {index} after it had been refused with \
                     {:?}: {:?}",
                    request.status, request.ask
                )
            })?;
            if let Told::Granted { lease, .. } | Told::PutWithLease { lease, .. } = &told
                && !repeated
            {
                self.leases.made(*lease, index, request.asked_at, self.now);
            }
            request.place = Some((index, told));
            request.repeated = repeated;
        }
        self.leases.note(index, &self.model);
        self.retained.note(self.model.revision, self.now);
        self.told.insert(index, self.model.revision);
        let (term, hash) = (entry.term.get(), entry.hash);
        self.committed = self.committed.max((index, term));
        self.log.push(Entry { term, hash, members, is_command });
        Ok(())
    }

    /// An entry with a log time, and what only the leader or a batch has asked for.
    fn timed(
        &mut self,
        (index, term): (u64, u64),
        kind: EntryKind,
        time: u64,
        body: &[u8],
    ) -> Verdict {
        self.judged += 1;
        self.leases.check_time(time, self.model.time, self.now)?;
        self.model.note_time(time);
        let numbers = |bytes: &[u8]| -> Vec<i64> {
            bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        };
        match kind {
            EntryKind::LeaseKeepAlive => {
                let renewed = self.model.renew(time, &numbers(body));
                self.leases.renewed(index, self.model.revision, renewed, self.now);
            }
            EntryKind::LeaseExpire => {
                let [id, granted] = numbers(body)[..] else {
                    return Err(format!("I13: entry {index} ends no lease"));
                };
                let granted = granted.cast_unsigned();
                if let Some(lease) = self.model.expire(time, id, granted) {
                    self.leases.expired(id, &lease, term, self.now)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Two memberships that follow each other must not be able to decide apart (I8).
    fn check_quorums(&mut self, next: &MemberList, index: u64) -> Verdict {
        let (Some(before), Some(after)) = (node::membership(&self.members), node::membership(next))
        else {
            return Err(format!("I8: the members of entry {index} have no voter"));
        };
        for voter in after.all_voters() {
            let is_new = !before.is_voter(voter) && !self.promoted_by_force.contains(&voter.get());
            check(!is_new || self.durable(voter.get()).last() > 0, || {
                format!("I8: member {} votes from entry {index} on and has nothing", voter.get())
            })?;
        }
        let mut all = before.all_voters();
        all.extend(after.all_voters());
        all.sort_unstable();
        all.dedup();
        for set in 0..1_u64 << all.len() {
            let within =
                |id: NodeId| all.binary_search(&id).is_ok_and(|place| set >> place & 1 == 1);
            let apart = before.is_quorum(within) && after.is_quorum(|id| !within(id));
            check(!apart, || format!("I8: {:?} and {:?} can decide apart", self.members, next))?;
        }
        Ok(())
    }

    /// A leader has committed up to `index` (I5), and not by counting copies of what earlier leaders
    /// have left: `own` is its term where it was the leader before, too.
    pub fn quorum_holds(
        &mut self,
        leader: u64,
        (index, term): (u64, u64),
        own: Option<u64>,
        decided: [&Membership; 2],
    ) -> Verdict {
        self.judged += 1;
        if index == 0 {
            return Ok(());
        }
        check(own.is_none_or(|own| own == term), || {
            format!("I3: leader {leader} of term {own:?} counts copies of {index} of term {term}")
        })?;
        // It may be handed out later, when it is durable at the leader too.
        let entry = self.entries.get(&(index, term)).copied().ok_or_else(|| {
            format!("I4: leader {leader} has committed {index} of term {term}, never written")
        })?;
        let entry = (term, entry);
        self.committed = self.committed.max((index, term));
        let durable = &self.durable;
        let has =
            |id: NodeId| durable.get(&id.get()).is_some_and(|durable| durable.has(index, entry));
        let holds = decided.iter().any(|membership| membership.is_quorum(has));
        check(holds, || {
            let have: Vec<(u64, u64)> =
                durable.iter().map(|(id, durable)| (*id, durable.last())).collect();
            format!(
                "I5: leader {leader} has committed {index}, durable at no quorum of {:?}; durable \
                 logs end at {have:?}",
                decided[1].voters()
            )
        })
    }

    /// A read is granted at `index`; `floor` was committed when it was asked for.
    pub fn granted(&mut self, member: u64, index: u64, floor: u64) -> Verdict {
        self.judged += 1;
        check(index >= floor, || {
            format!("I3: member {member} grants a read at {index}, {floor} was committed before it")
        })
    }

    /// A leader ends in the middle of a turn.
    pub fn decides(&mut self, raft: &raft::Raft) {
        if raft.role() == raft::RoleName::Leader {
            let index = raft.log().committed();
            self.committed = self.committed.max((index.get(), raft.log().term_at(index).get()));
        }
    }

    /// How far the log is known to be committed by any leader.
    pub fn committed_index(&self) -> u64 {
        self.committed.0
    }

    /// A member leads (I1, I3).
    pub fn leads(&mut self, member: u64, raft: &raft::Raft) -> Verdict {
        let term = raft.term().get();
        if self.leaders.get(&term) == Some(&member) {
            return Ok(());
        }
        self.judged += 1;
        self.leases.leads_since.insert(term, self.now);
        if let Some(other) = self.leaders.insert(term, member) {
            return Err(format!("I1: members {other} and {member} lead term {term}"));
        }
        let votes = &self.votes;
        let voted = |id: NodeId| {
            id.get() == member || votes.get(&(id.get(), term)).is_some_and(|to| *to == member)
        };
        check(raft.membership().is_quorum(voted), || {
            format!("I1: member {member} leads term {term} without the votes of a quorum")
        })?;
        let (last, last_term) = self.committed;
        let log = raft.log();
        // One that is elected late, in a term before that of the entry, need not have it.
        let held = last == 0
            || term < last_term
            || (log.last().get() >= last
                && (log.base().index.get() >= last
                    || log.term_at(base::LogIndex::new(last)).get() == last_term));
        check(held, || {
            format!(
                "I3: leader {member} of term {term} lacks committed entry {last}, its log ends at {}",
                log.last()
            )
        })
    }

    // ------------------------------------------------------------------ disks

    /// A member that begins takes a term of its own accord.
    pub fn takes_term(&mut self, term: u64) {
        self.campaigns.insert(term);
    }

    /// A member submits a group (I2); `begins`: it has not begun yet.
    pub fn submitted(
        &mut self,
        member: u64,
        bytes: &[u8],
        begins: bool,
    ) -> Result<GroupId, String> {
        let Header::Valid(header, hash) = GroupHeader::decode(bytes) else {
            return Err(format!("member {member} writes a group that does not verify"));
        };
        let mut entries = Vec::new();
        for record in header.records(bytes) {
            let record = record.map_err(|fault| {
                format!("member {member} writes a group with a broken record: {fault:?}")
            })?;
            let key = (record.entry.index.get(), record.entry.term.get());
            let known = *self.entries.entry(key).or_insert(record.hash);
            check(known == record.hash, || {
                format!("I2: two entries at index {} of term {}", key.0, key.1)
            })?;
            entries.push((key.1, record.hash));
        }
        let (term, vote) = (header.hard_state.term.get(), header.hard_state.vote);
        if begins || vote.is_some_and(|vote| vote.get() == member) {
            self.takes_term(term);
        }
        check(term == 0 || self.campaigns.contains(&term), || {
            format!("I1: member {member} is in term {term}, in which nobody has asked for votes")
        })?;
        let id = hash.to_bytes();
        let group = Group {
            lsn: header.lsn.get(),
            cut: header.cut.index.get(),
            term,
            vote: vote.map(NodeId::get),
            entries,
            restart: header.restart,
            durable: false,
        };
        let durable = self.durable(member);
        durable.groups.insert(id, group);
        durable.waiting.push(id);
        Ok(id)
    }

    /// A group of a member has become durable, in whatever order.
    pub fn group_durable(&mut self, member: u64, id: &GroupId) {
        let canon = &self.log;
        let durable = self.durable.entry(member).or_default();
        if let Some(group) = durable.groups.get_mut(id) {
            group.durable = true;
        }
        while let Some(first) = durable.waiting.first().copied()
            && durable.groups.get(&first).is_some_and(|group| group.durable)
        {
            durable.waiting.remove(0);
            durable.take(&first, canon);
        }
    }

    /// The watermark that a member wrote is durable: of what was durable when it was made.
    pub fn marked(&mut self, member: u64, lsn: u64) {
        let durable = self.durable(member);
        durable.marked = durable.marked.max(lsn);
    }

    /// A member takes its groups up to this one for durable.
    pub fn told(&mut self, member: u64, lsn: u64) {
        let durable = self.durable(member);
        durable.told = durable.told.max(lsn);
    }

    /// Whether the last start of a member may lack what it lacks; see [`Durable::lost_unseen`].
    pub fn lost_unseen(&self, member: u64, disk: &Disk, was_cut: bool) -> bool {
        self.durable.get(&member).is_some_and(|durable| durable.lost_unseen(disk, was_cut))
    }

    /// Whether what the last start of a member lacked says nothing.
    pub fn lost_nothing(&self, member: u64) -> bool {
        self.durable.get(&member).is_some_and(|durable| durable.lost_nothing)
    }

    /// A member has started: nothing that was durable may be missing (I6).
    pub fn recovered(&mut self, member: u64, recovered: &Recovered) -> Verdict {
        self.judged += 1;
        let canon: Vec<(u64, Hash128)> =
            self.log.iter().map(|entry| (entry.term, entry.hash)).collect();
        let durable = self.durable.entry(member).or_default();
        let (lsn, term) = (recovered.durable_lsn.get(), recovered.hard_state.term.get());
        durable.found = lsn;
        let mut lost = durable.groups.values().filter(|group| lsn < group.lsn);
        let says_nothing = |group: &Group| {
            let is_first = group.cut == 0;
            group.entries.is_empty()
                && group.vote.is_none()
                && group.term == term
                && (!group.restart || is_first)
        };
        let unsaid = term < durable.term && term >= durable.written_term;
        durable.lost_nothing = if lsn < durable.lsn { lost.all(says_nothing) } else { unsaid };
        check(lsn >= durable.lsn, || {
            format!(
                "I6: member {member} recovers its log up to group {lsn}, group {} was durable",
                durable.lsn
            )
        })?;
        check(term >= durable.term, || {
            format!("I6: member {member} is back at term {term}, {} was durable", durable.term)
        })?;
        let vote = recovered.hard_state.vote.map(NodeId::get);
        check(term > durable.term || durable.vote.is_none() || vote == durable.vote, || {
            format!(
                "I6: member {member} has forgotten its vote in term {term}: {vote:?} instead of {:?}",
                durable.vote
            )
        })?;
        let first = recovered.base.index.get();
        let head = canon.get(..usize::try_from(first).unwrap_or(usize::MAX));
        let Some(head) = head else {
            return Err(format!("I6: member {member} begins behind {first}, never committed"));
        };
        durable.log = head.to_vec();
        durable.waiting.clear();
        // What is dropped does not come back.
        for group in durable.groups.values_mut().filter(|group| group.lsn > lsn) {
            group.durable = false;
        }
        for row in &recovered.groups {
            let id = row.hash.to_bytes();
            check(durable.groups.contains_key(&id), || {
                format!("I6: member {member} recovers group {} that it never wrote", row.lsn)
            })?;
            let cut = row.cut.get();
            if cut < first {
                // It begins before what the log still needs.
                let group = &durable.groups[&id];
                let skip = usize::try_from(first - cut).unwrap_or(usize::MAX);
                let rest = group.entries.get(skip..).unwrap_or(&[]).to_vec();
                durable.log.truncate(usize::try_from(first).unwrap_or(usize::MAX));
                durable.log.extend(rest);
                durable.lsn = group.lsn;
                continue;
            }
            durable.take(&id, &self.log);
        }
        // What only the ring held of a group on its way counts when a group of this start says it again:
        // nothing is said to others before.
        durable.written_term = durable.term;
        (durable.lsn, durable.term, durable.vote) = (lsn, term, vote);
        let last = recovered.last;
        check(durable.last() == last.index.get(), || {
            format!(
                "I6: member {member} recovers entries up to {}, its groups hold {}",
                last.index,
                durable.last()
            )
        })
    }

    /// A member says something to others that promises something (I1, I7).
    /// `last_entry` is the last one of its log, its term first.
    pub fn promises(
        &mut self,
        member: u64,
        to: u64,
        last_entry: (u64, u64),
        message: &wire::PeerMessage,
    ) -> Verdict {
        use wire::PeerMessage as Message;
        self.judged += 1;
        let durable = self.durable(member);
        let (term, vote, last) = (durable.term, durable.vote, durable.last());
        if let Some(said) = own_term(message) {
            check(term >= said, || {
                format!("I7: member {member} speaks in term {said}, durable is {term}: {message:?}")
            })?;
        }
        match *message {
            Message::Accepted { matched, .. } => check(matched.get() <= last, || {
                format!("I7: member {member} acknowledges {matched}, durable is {last}")
            }),
            Message::VoteReply { term: said, granted: true } => {
                let said = said.get();
                check(term > said || (term == said && vote == Some(to)), || {
                    format!(
                        "I7: member {member} votes for {to} in term {said}, durable is term {term}, \
                         vote {vote:?}"
                    )
                })?;
                // A paused member sends it late: the winner of this election, or of a later one, may
                // have brought entries since.
                let asked = self.candidates.get(&(to, said)).copied().unwrap_or_default();
                check(asked >= last_entry || last_entry.0 >= said, || {
                    format!(
                        "I3: member {member}, whose log ends with {last_entry:?}, votes in term {said} \
                         for {to}, whose log ends with {asked:?}"
                    )
                })?;
                let before = *self.votes.entry((member, said)).or_insert(to);
                check(before == to, || {
                    format!("I1: member {member} votes for {before} and {to} in term {said}")
                })
            }
            Message::Vote { term: said, last_index, last_term, .. } => {
                let said = said.get();
                let asked = (last_term.get(), last_index.get());
                self.candidates.insert((member, said), asked);
                let before = *self.votes.entry((member, said)).or_insert(member);
                check(before == member, || {
                    format!("I1: member {member} votes for {before} and itself in term {said}")
                })
            }
            _ => Ok(()),
        }
    }

    // ------------------------------------------------------------------ state

    /// A member's store has applied up to `index` (I9).
    pub fn applied(&mut self, member: u64, index: u64, hash: Hash128, revision: u64) -> Verdict {
        self.judged += 1;
        let known = *self.hashes.entry(index).or_insert(hash);
        check(known == hash, || format!("I9: member {member} has another state at entry {index}"))?;
        if index > 0 && !self.canary {
            let expected = self.told.get(&index).copied();
            check(expected == i64::try_from(revision).ok(), || {
                format!(
                    "I9: member {member} is at revision {revision} behind entry {index}, the model \
                     at {expected:?}"
                )
            })?;
        }
        Ok(())
    }

    // ------------------------------------------------------------------ clients

    /// A client asks; returns the number of the request. `seen` is the greatest revision that a read of
    /// the member's own state has shown on this connection.
    pub fn asked(&mut self, ask: Ask, stamp: Option<Stamp>, seen: i64) -> u64 {
        let number = self.requests.len() as u64;
        self.requests.push(Request {
            ask,
            stamp,
            body: Vec::new(),
            fate: Fate::Waits,
            place: None,
            repeated: false,
            floor: self.acknowledged,
            compacted: self.compacted,
            seen,
            status: None,
            asked_at: self.now,
            asked_behind: self.log.len() as u64,
        });
        number
    }

    /// The body of the request just asked.
    pub fn set_body(&mut self, number: u64, body: Vec<u8>) {
        self.request(number).body = body;
    }

    /// A request by its number.
    pub fn request(&mut self, number: u64) -> &mut Request {
        &mut self.requests[usize::try_from(number).expect("there are few requests")]
    }

    /// Nobody waits for it any more.
    pub fn given_up(&mut self, number: u64) {
        let request = self.request(number);
        if request.fate == Fate::Waits {
            request.fate = Fate::Unknown;
        }
    }

    /// A client has its answer; returns the revision that it has seen.
    pub fn answered(&mut self, number: u64, seen: Seen, repeated: bool) -> Result<i64, String> {
        self.checked += 1;
        let place = usize::try_from(number).expect("there are few requests");
        let request = &mut self.requests[place];
        if request.fate != Fate::Waits {
            return Err(format!("request {number} is answered twice: {seen:?}"));
        }
        let wrong = |why: &str| format!("request {number}, {:?}: {why}: {seen:?}", request.ask);
        let model = &self.model;
        if repeated != (request.repeated && !is_about_way(&seen)) {
            return Err(wrong(&format!("marked as repeated: {repeated}")));
        }
        let told = match &seen {
            Seen::Refused(status, effect) => {
                let is_unknown = *effect == Effect::Unknown || *status == Status::Unknown;
                match (&request.ask, &request.place) {
                    (Ask::Write(_), Some((_, Told::Refused(expected)))) if status == expected => {}
                    (Ask::Write(_), _) if is_unknown => {}
                    (_, _)
                        if matches!(status, Status::SessionExpired | Status::TooManyUnanswered) =>
                    {
                        return Err(wrong("no entry says so"));
                    }
                    (Ask::Write(_), Some((index, told))) if *effect == Effect::None => {
                        let text = format!("took effect at entry {index} as {told:?}, refused");
                        return Err(wrong(&text));
                    }
                    (Ask::Range(range), _)
                        if *status == Status::Compacted
                            // Trimming waits for one at the head, and one of which nothing has gone out
                            // begins again.
                            && (range.revision <= 0 || range.revision >= model.compacted) =>
                    {
                        return Err(wrong("it was not compacted"));
                    }
                    (Ask::Range(range), _) if *status == Status::FutureRevision => {
                        let floor = if range.serializable { request.seen } else { request.floor };
                        if range.revision <= floor {
                            return Err(wrong("it is no future revision"));
                        }
                    }
                    _ => {}
                }
                let is_unknown = is_unknown && matches!(request.ask, Ask::Write(_));
                request.fate = if is_unknown { Fate::Unknown } else { Fate::Refused };
                request.status = Some(*status);
                if *effect == Effect::Applied {
                    request.fate = Fate::Answered;
                }
                return Ok(request.seen);
            }
            Seen::Told(told) => told,
            Seen::Status(revision, applied, committed) => {
                request.fate = Fate::Answered;
                if *revision > model.revision || *committed > self.committed.0 {
                    return Err(wrong("the cluster is not that far"));
                }
                if applied > committed {
                    // Two moments: what is applied is asked for after what is committed.
                    request.fate = Fate::Answered;
                }
                return Ok(request.seen);
            }
            Seen::Registered(id) => {
                request.fate = Fate::Answered;
                let is_register = request.ask == Ask::Register;
                return match self.registrations.get_mut(id) {
                    Some(owner @ None) if is_register => {
                        *owner = Some(number);
                        Ok(request.seen)
                    }
                    owner => Err(wrong(&format!("the id is that of {owner:?}"))),
                };
            }
            Seen::Renewed { .. } | Seen::Lease { .. } | Seen::Leases { .. } => {
                request.fate = Fate::Answered;
                let (at, behind, seen_before) =
                    (request.asked_at, request.asked_behind, request.seen);
                let verdict = self.leases.answered(&request.ask, &seen, (at, behind));
                let ask = &request.ask;
                verdict
                    .map_err(|text| format!("I13: request {number}, {ask:?}: {text}: {seen:?}"))?;
                return Ok(seen_before);
            }
            Seen::Members(_) | Seen::Other | Seen::Hello | Seen::Watch(_) => {
                request.fate = Fate::Answered;
                return Ok(request.seen);
            }
        };
        request.fate = Fate::Answered;
        match &request.ask {
            Ask::Write(command) => {
                let Some((index, expected)) = &request.place else {
                    return Err(wrong("answered before it was committed"));
                };
                if expected != told {
                    let text = format!("at entry {index} it must be {expected:?}");
                    return Err(wrong(&text));
                }
                let revision = match told {
                    Told::Put { revision, .. }
                    | Told::Delete { revision, .. }
                    | Told::Compact { revision }
                    | Told::PutWithLease { revision, .. }
                    | Told::Granted { revision, .. }
                    | Told::Revoked { revision, .. }
                    | Told::Alarms { revision, .. }
                    | Told::Txn { revision, .. } => *revision,
                    Told::Range(_) | Told::Refused(_) => 0,
                };
                // A stamp that is used twice is answered for what was asked first.
                if let Command::Compact { revision, .. } = command
                    && !repeated
                {
                    self.compacted = self.compacted.max(*revision);
                }
                self.acknowledged = self.acknowledged.max(revision);
                Ok(request.seen)
            }
            Ask::Range(range) => {
                let Told::Range(listed) = told else { return Err(wrong("another kind")) };
                let (header, local) = (listed.revision, range.serializable);
                if header > model.revision {
                    return Err(wrong("the cluster is not that far"));
                }
                let floor = if local { request.seen } else { request.floor };
                if header < floor {
                    return Err(wrong(&format!("a stale read: {floor} was acknowledged before")));
                }
                if range.revision > header {
                    return Err(wrong("a read of the future"));
                }
                if !local && range.revision > 0 && range.revision < request.compacted {
                    return Err(wrong(&format!("{} was compacted before", request.compacted)));
                }
                let at = if range.revision > 0 { range.revision } else { header };
                let expected = model.range(range, at, header);
                if expected != *listed {
                    return Err(wrong(&format!("it must be {expected:?}")));
                }
                if !local {
                    self.acknowledged = self.acknowledged.max(header);
                }
                Ok(if local { request.seen.max(header) } else { request.seen })
            }
            Ask::ReadTxn(txn) => {
                let Told::Txn { revision: header, .. } = told else {
                    return Err(wrong("another kind"));
                };
                let (header, local) = (*header, is_local(txn));
                let floor = if local { request.seen } else { request.floor };
                if header > model.revision || header < floor {
                    return Err(wrong(&format!("a stale read: {floor} was acknowledged before")));
                }
                let expected = model.read_txn(txn, header);
                if expected != *told {
                    return Err(wrong(&format!("it must be {expected:?}")));
                }
                if !local {
                    self.acknowledged = self.acknowledged.max(header);
                }
                Ok(if local { request.seen.max(header) } else { request.seen })
            }
            _ => Err(wrong("another kind")),
        }
    }
}
