//! Replication: what raft wants done, and what other members say to it.
//!
//! Entries travel as the log holds them. Before raft sees an append, the chain of hashes is checked
//! from the entry that it begins behind: that two logs agree is verified, not assumed.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::mem;

use base::{Duration, Frame, Instant, LogIndex, NodeId};
use raft::{Configuration, Input, Message, Output, Position, RoleName};
use wire::{
    AppendHead, AppliedState, MemberList, PeerAppend, PeerFrame, PeerJoinReply, PeerLane,
    PeerMessage, PeerRefusal,
};

use crate::ConsensusEffect;
use crate::consensus::Consensus;
use crate::divergence::Verdict;
use crate::log_reader::{LogReader, Want};
use crate::members::{Said, membership};
use crate::message::EntryKind;
use crate::peers::Incoming;
use crate::tail::Kept;

/// A member that others exclude ends after this: what it has answered goes out before.
const EXCLUDED_PAUSE: Duration = Duration::from_millis(500);

/// Why an append cannot be taken: its sender is broken, or the way to it.
enum BadAppend {
    /// A record is malformed, or out of order.
    Record(LogIndex),
    /// The chain does not hold from here on.
    Chain(LogIndex),
    /// A list of members that cannot be read.
    Members(LogIndex),
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Does what raft wants, at once: a proposal that came in between would take the position that
    /// the empty entry of a new leader has.
    pub(crate) fn take_outputs(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        while !self.outputs.is_empty() {
            let mut outputs = mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                self.take_output(now, output, effects);
            }
            if self.outputs.is_empty() {
                self.outputs = outputs;
            }
        }
    }

    fn take_output(&mut self, now: Instant, output: Output, effects: &mut Vec<ConsensusEffect<B>>) {
        match output {
            // The next group carries it, and is due for that alone.
            Output::SaveHardState(state) => self.journal.set_hard_state(state),
            Output::AppendEmpty { index, term } => {
                self.append_own(index, term, EntryKind::Empty as u8, Frame::new());
            }
            Output::AppendMembership { index, term, membership } => {
                let list = self.members.with(&membership, self.take_added());
                let bytes = list.encode().expect("a change that was checked fits its entry");
                self.append_own(index, term, EntryKind::Members as u8, Frame::from(bytes));
                self.adopt(now, index, list, effects);
            }
            Output::Append { first, last, cut } => {
                self.append_arrived(now, first, last, cut, effects);
            }
            Output::Install { last } => self.install(now, last, effects),
            Output::Send { to, message } => self.send_message(now, to, message, effects),
            Output::SendSnapshot { to } => self.begin_sending(now, to, effects),
            Output::Forgotten { by, index } => effects.push(ConsensusEffect::Halt(format!(
                "member {} counts on log entry {index}, which this member acknowledged and does not \
                 have: its log ends at {}. Its data directory was emptied, or is an older copy; give \
                 the member an empty one by `quorate member replace`",
                self.members.name_of(by),
                self.raft.log().last()
            ))),
            Output::Committed { .. } => self.commit(effects),
            Output::Leading { .. } => {
                self.lead_time(now);
                self.doubt(now);
            }
            Output::Following { .. } => {
                self.follow(now);
                self.divergence.restart();
                self.readers.clear();
                self.admin_lost();
                self.end_sending(None, effects);
            }
            Output::ChangeRefused(refusal) => self.change_refused(refusal),
            Output::ReadGranted { ticket, index } => {
                self.read_granted(ticket, Some(index), effects);
            }
            Output::ReadRejected { ticket } => self.read_granted(ticket, None, effects),
            Output::TransferFailed { to } => self.transfer_failed(to),
            Output::Proposed { .. } | Output::ProposalRefused => {
                unreachable!("proposals are given one by one")
            }
        }
    }

    /// A list of members is in the log.
    pub(crate) fn adopt(
        &mut self,
        now: Instant,
        index: LogIndex,
        list: MemberList,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.members.push(index, list);
        self.peers.set_members(now, self.members.everyone(), effects);
    }

    /// Takes the entries of the append that raft has just accepted.
    fn append_arrived(
        &mut self,
        now: Instant,
        first: LogIndex,
        last: LogIndex,
        cut: bool,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if cut {
            self.cut(first);
            self.peers.set_members(now, self.members.everyone(), effects);
        }
        for kept in mem::take(&mut self.arriving) {
            if kept.index < first || kept.index > last {
                continue;
            }
            self.hear_entry(&kept);
            if kept.kind == EntryKind::Members as u8 {
                let list = MemberList::decode(&kept.frame).expect("it was read before");
                self.adopt(now, kept.index, list, effects);
            }
            let Kept { index, term, kind, .. } = kept;
            let entry = wal::Entry { index, term, kind, payload: &kept.frame };
            match self.journal.append(&entry) {
                Some(hash) => assert!(hash == kept.hash, "the chain was checked up to {index}"),
                None => self.journal.push(index),
            }
            self.tail.push(kept);
        }
    }

    /// Sends a frame, if there is a way.
    pub(crate) fn send(
        &mut self,
        to: NodeId,
        lane: PeerLane,
        frame: &PeerFrame<'_>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) -> bool {
        let Some(link) = self.peers.open(to, lane) else { return false };
        let mut bytes = Vec::new();
        if self.peers.encoder().encode(&mut bytes, frame).is_err() {
            return false;
        }
        effects.push(ConsensusEffect::LinkSend { link, bytes });
        true
    }

    fn send_message(
        &mut self,
        now: Instant,
        to: NodeId,
        message: Message,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let message = match message {
            Message::Append { term, previous, last, committed, .. } => {
                return self.send_append(now, to, (term, committed), previous, last, effects);
            }
            Message::PreVote { term, last } => {
                PeerMessage::PreVote { term, last_index: last.index, last_term: last.term }
            }
            Message::PreVoteReply { term, granted } => PeerMessage::PreVoteReply { term, granted },
            Message::Vote { term, last, transfer } => {
                let (last_index, last_term) = (last.index, last.term);
                PeerMessage::Vote { term, last_index, last_term, transfer }
            }
            Message::VoteReply { term, granted } => PeerMessage::VoteReply { term, granted },
            Message::Accepted { term, matched, verified } => {
                PeerMessage::Accepted { term, matched, verified }
            }
            Message::Rejected { term, previous, hint } => {
                let (hint_index, hint_term) = (hint.index, hint.term);
                PeerMessage::Rejected { term, previous, hint_index, hint_term }
            }
            Message::Heartbeat { term, committed, round } => {
                let log_time = self.log_clock.now(now);
                PeerMessage::Heartbeat { term, committed, round, log_time, applied: None }
            }
            Message::HeartbeatReply { term, round, matched } => {
                let applied = self.divergence.newest();
                PeerMessage::HeartbeatReply { term, round, matched, applied }
            }
            Message::TimeoutNow { term } => PeerMessage::TimeoutNow { term },
            Message::Read { term, number } => PeerMessage::Read { term, number },
            Message::ReadReply { term, number, index } => {
                PeerMessage::ReadReply { term, number, index }
            }
            Message::Newer { term } => PeerMessage::Newer { term },
            Message::Snapshot { .. } => unreachable!("snapshots are moved by the host"),
        };
        self.send(to, PeerLane::Control, &PeerFrame::Raft(message), effects);
    }

    /// Sends entries behind `previous`, as many as one frame takes, and tells raft how many.
    fn send_append(
        &mut self,
        now: Instant,
        to: NodeId,
        (term, committed): (base::Term, LogIndex),
        previous: Position,
        named: LogIndex,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let in_tail = self.tail.position(previous.index);
        let from_disk = match in_tail {
            Some(_) => {
                self.readers.remove(&to);
                None
            }
            None => self.read_behind(to, previous.index, effects),
        };
        let link = self.peers.open(to, PeerLane::Bulk);
        let (Some(link), Some(before)) = (link, in_tail.or(from_disk)) else {
            self.raft.handle(now, Input::Unreachable { peer: to }, &mut self.outputs);
            return;
        };
        let head = AppendHead {
            term,
            previous_index: previous.index,
            previous_term: previous.term,
            previous_hash: before.hash,
            committed,
        };
        let size_max = raft::Options::LOCAL.append_bytes_max;
        let (mut bytes, mut record, mut last, mut size) = (Vec::new(), Vec::new(), previous, 0);
        let mut runs: Vec<(LogIndex, base::Term)> = Vec::new();
        let mut writer = self.peers.encoder().append(&mut bytes, &head);
        let kept = self.tail.behind(previous.index);
        let read = self.readers.get(&to).filter(|_| in_tail.is_none());
        let read = read.into_iter().flat_map(|reader| reader.behind(previous.index));
        for kept in read.chain(kept.filter(|_| in_tail.is_some())) {
            let Kept { index, term, kind, hash, .. } = *kept;
            let more = wal::record_size(kept.frame.len()) as u64;
            if index > named || (size > 0 && size + more > size_max) {
                break;
            }
            record.clear();
            let entry = wal::Entry { index, term, kind, payload: &kept.frame };
            wal::write_record(&mut record, &entry, hash);
            writer.push(&record);
            if runs.last().is_none_or(|(_, last)| *last != term) {
                runs.push((index, term));
            }
            size += more;
            last = Position { index, term };
        }
        if writer.finish(last.index, runs).is_err() {
            self.raft.handle(now, Input::Unreachable { peer: to }, &mut self.outputs);
            return;
        }
        effects.push(ConsensusEffect::LinkSend { link, bytes });
        if named > previous.index {
            let input = Input::Sent { to, named, last: last.index, bytes: size };
            self.raft.handle(now, input, &mut self.outputs);
        }
    }

    /// The position at `previous`, if the entries behind it have been read from the log for this peer;
    /// if not, they are now.
    fn read_behind(
        &mut self,
        peer: NodeId,
        previous: LogIndex,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) -> Option<wal::Position> {
        let matched = self.raft.peers().iter().find(|p| p.id() == peer).map(|p| p.matched());
        let fits = self.readers.get(&peer).is_some_and(|reader| reader.reaches(previous));
        if !fits || self.readers.get(&peer).is_some_and(LogReader::is_spent) {
            if self.journal.writer().groups_behind(previous).next().is_none() {
                // They were kept in memory alone, for a state that is not on its way any more.
                self.readers.remove(&peer);
                let on_disk = self.journal.writer().before();
                match on_disk.filter(|index| *index > previous) {
                    Some(index) => self.forget_log_before(index),
                    None => self.forget_log_before(self.tail.before().index),
                }
                return None;
            }
            let reader = LogReader::new(self.journal.writer().groups_behind(previous), previous);
            self.readers.insert(peer, reader);
        }
        if let (Some(reader), Some(matched)) = (self.readers.get_mut(&peer), matched) {
            reader.release(matched);
        }
        self.read_log(peer, effects);
        self.readers.get(&peer)?.position(previous)
    }

    /// Takes the reading for a peer further.
    pub(crate) fn read_log(&mut self, peer: NodeId, effects: &mut Vec<ConsensusEffect<B>>) {
        let Some(reader) = self.readers.get_mut(&peer) else { return };
        match reader.step() {
            Want::Read(read) => effects.push(ConsensusEffect::ReadLog { peer, read }),
            Want::Nothing => {}
            Want::Lost => {
                self.readers.remove(&peer);
                self.forget_log_before(self.tail.before().index);
            }
        }
    }

    /// What cannot be read back is not there: a peer that needs it is sent the state.
    fn forget_log_before(&mut self, index: LogIndex) {
        let index = index.min(self.raft.log().committed());
        self.raft.handle(Instant::ORIGIN, Input::Compacted { index }, &mut Vec::new());
    }

    /// What a link has brought.
    pub(crate) fn take_incoming(
        &mut self,
        now: Instant,
        incoming: Incoming,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        match incoming {
            Incoming::Met { peer, data_id, client_address, name } => {
                let peer_address = Default::default();
                let said = Said { data_id, client_address, peer_address, name };
                self.introduced.insert(peer, said);
                self.review_at = now;
            }
            Incoming::Welcomed { peer, lane, greeting } => {
                self.take_greeting(peer, greeting);
                if lane == PeerLane::Control {
                    let text = format!("connected to member {}", self.members.name_of(peer));
                    effects.push(ConsensusEffect::Note(text));
                }
            }
            Incoming::Lost { peer, lane } => {
                if lane == PeerLane::Control && !self.stopping {
                    let name = self.members.name_of(peer);
                    effects.push(ConsensusEffect::Tell(format!(
                        "the connection to member {name} has ended; it is dialed again"
                    )));
                }
                if lane == PeerLane::Bulk {
                    self.interrupt_sending(now, peer);
                    self.take_outputs(now, effects);
                    if self.raft.leader() == Some(peer) {
                        self.doubt(now);
                    }
                }
            }
            Incoming::Gone { peer } => {
                self.heard.remove(&peer);
                self.raft.handle(now, Input::Gone { peer }, &mut self.outputs);
                self.take_outputs(now, effects);
            }
            Incoming::Join { link, name, address } => {
                let list = self.members.newest();
                let found = list.members.iter().find(|member| {
                    member.peer_address == address && (member.name == name || member.is_nameless())
                });
                let members = list.encode().unwrap_or_default();
                let message = format!(
                    "no member is called {name} with the peer address {address}; add it first \
                     with `quorate member add`"
                );
                let reply = PeerJoinReply {
                    cluster: self.peers.own().cluster,
                    member: found.map_or(NodeId::default(), |member| member.id),
                    members: &members,
                    message: if found.is_some() { "" } else { &message },
                };
                self.peers.say(link, &PeerFrame::JoinReply(reply), effects);
            }
            Incoming::Excluded(text) => {
                self.excluded.get_or_insert((now.after(EXCLUDED_PAUSE), text));
            }
            Incoming::Frame { peer, header, body } => {
                self.heard.insert(peer, now);
                let text = match PeerFrame::verify(&header, &body) {
                    Ok(frame) => match self.take_peer_frame(now, peer, frame, &body, effects) {
                        Ok(()) => return,
                        Err(BadAppend::Record(index)) => {
                            format!("sent entries that are malformed at {index}")
                        }
                        Err(BadAppend::Chain(index)) => format!(
                            "sent entries whose chain of hashes does not hold at {index}: one of \
                             the two logs is damaged"
                        ),
                        Err(BadAppend::Members(index)) => {
                            format!("sent a list of members that cannot be read, entry {index}")
                        }
                    },
                    Err(error) => format!("sent a frame that cannot be read: {error}"),
                };
                effects.push(ConsensusEffect::Tell(format!("member {} {text}", peer.get())));
                self.close_links_of(now, peer, effects);
            }
        }
    }

    fn take_peer_frame(
        &mut self,
        now: Instant,
        from: NodeId,
        frame: PeerFrame<'_>,
        body: &Frame,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) -> Result<(), BadAppend> {
        match frame {
            PeerFrame::Raft(message) => {
                if let PeerMessage::Heartbeat { term, log_time, .. } = message {
                    self.log_clock.hear(now, term, log_time);
                }
                if let PeerMessage::HeartbeatReply { applied: Some(state), .. } = message {
                    self.compare_states(from, state, effects);
                }
                if let Some(message) = self.translated(message) {
                    self.receive(now, from, message, effects);
                }
            }
            PeerFrame::Append(_) if self.takes_no_entries() => {}
            PeerFrame::Append(append) => {
                let message = self.read_append(&append, body)?;
                self.receive(now, from, message, effects);
                self.arriving.clear();
            }
            PeerFrame::Forward(forward) => {
                let frame = body.slice_ref(forward.body);
                self.take_forward(from, &forward, frame, effects);
            }
            PeerFrame::ForwardRefused(refused) => self.take_forward_refused(&refused),
            PeerFrame::SnapshotBegin(begin) => self.begin_receiving(now, from, &begin, effects),
            PeerFrame::SnapshotChunk(chunk) => self.receive_chunk(now, from, &chunk, body, effects),
            PeerFrame::SnapshotAck(ack) => {
                self.sending_acknowledged(now, from, &ack, effects);
                self.take_outputs(now, effects);
            }
            PeerFrame::Refused(refused) if refused.code == PeerRefusal::Diverged => {
                effects.push(ConsensusEffect::Halt(refused.message.to_string()));
            }
            PeerFrame::Hello(_)
            | PeerFrame::Welcome(_)
            | PeerFrame::Refused(_)
            | PeerFrame::Join(_)
            | PeerFrame::JoinReply(_) => {}
        }
        Ok(())
    }

    /// A follower has named the hash of its state.
    fn compare_states(
        &mut self,
        from: NodeId,
        state: AppliedState,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if self.raft.role() != RoleName::Leader {
            return;
        }
        self.divergence.heard(from, state);
        match self.verdict() {
            Verdict::Fine | Verdict::Unclear => {}
            Verdict::OwnOdd => effects.push(ConsensusEffect::Halt(format!(
                "the state of this member differs from that of most others at or before entry {}: \
                 its disk or memory is damaged; replace the member (`quorate member replace`)",
                state.index
            ))),
            Verdict::Odd(odd) => {
                let message = format!(
                    "the state of this member, {} ({}), differs from that of most others: its disk \
                     or memory is damaged; replace the member (`quorate member replace`)",
                    odd.get(),
                    self.members.name_of(odd)
                );
                let code = PeerRefusal::Diverged;
                let refused = wire::PeerRefused { code, message: &message };
                self.send(odd, PeerLane::Control, &PeerFrame::Refused(refused), effects);
                if odd == from {
                    effects.push(ConsensusEffect::Tell(message));
                }
            }
        }
    }

    fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if from != self.raft.id() {
            self.raft.handle(now, Input::Receive { from, message }, &mut self.outputs);
            self.take_outputs(now, effects);
        }
    }

    /// The message as raft knows it; none for one that this member must not take part in.
    fn translated(&mut self, message: PeerMessage) -> Option<Message> {
        let is_election = matches!(
            message,
            PeerMessage::PreVote { .. } | PeerMessage::Vote { .. } | PeerMessage::TimeoutNow { .. }
        );
        let position = |index, term| Position { index, term };
        if is_election && !self.may_vote() {
            match message {
                PeerMessage::PreVote { last_index, last_term, .. }
                | PeerMessage::Vote { last_index, last_term, .. }
                    if self.may_vote_for(position(last_index, last_term)) => {}
                _ => return None,
            }
        }
        Some(match message {
            PeerMessage::PreVote { term, last_index, last_term } => {
                Message::PreVote { term, last: position(last_index, last_term) }
            }
            PeerMessage::PreVoteReply { term, granted } => Message::PreVoteReply { term, granted },
            PeerMessage::Vote { term, last_index, last_term, transfer } => {
                Message::Vote { term, last: position(last_index, last_term), transfer }
            }
            PeerMessage::VoteReply { term, granted } => Message::VoteReply { term, granted },
            PeerMessage::Accepted { term, matched, verified } => {
                Message::Accepted { term, matched, verified }
            }
            PeerMessage::Rejected { term, previous, hint_index, hint_term } => {
                Message::Rejected { term, previous, hint: position(hint_index, hint_term) }
            }
            PeerMessage::Heartbeat { term, committed, round, .. } => {
                Message::Heartbeat { term, committed, round }
            }
            PeerMessage::HeartbeatReply { term, round, matched, applied: _ } => {
                Message::HeartbeatReply { term, round, matched }
            }
            PeerMessage::TimeoutNow { term } => Message::TimeoutNow { term },
            PeerMessage::Read { term, number } => Message::Read { term, number },
            PeerMessage::ReadReply { term, number, index } => {
                Message::ReadReply { term, number, index }
            }
            PeerMessage::Newer { term } => Message::Newer { term },
        })
    }

    /// Reads the entries of an append into `arriving`, and checks their chain.
    fn read_append(&mut self, append: &PeerAppend<'_>, body: &Frame) -> Result<Message, BadAppend> {
        let AppendHead { term, previous_index, previous_term, previous_hash, committed } =
            append.head;
        let same = |before: &wal::Position| before.term == previous_term;
        if let Some(before) = self.tail.position(previous_index).filter(same)
            && before.hash != previous_hash
        {
            return Err(BadAppend::Chain(previous_index));
        }
        self.arriving.clear();
        let mut configurations = Vec::new();
        let (mut rest, mut last, mut hash) = (append.records, previous_index, previous_hash);
        while !rest.is_empty() {
            let index = last.next();
            let (entry, stated, place, size) =
                wal::read_record(rest).ok_or(BadAppend::Record(index))?;
            if entry.index != index {
                return Err(BadAppend::Record(index));
            }
            let frame = body.slice_ref(&rest[place]);
            let wal::Entry { term, kind, .. } = entry;
            hash = wal::chain_hash(&wal::Entry { index, term, kind, payload: &frame }, hash);
            if hash != stated {
                return Err(BadAppend::Chain(index));
            }
            if kind == EntryKind::Members as u8 {
                let list = MemberList::decode(&frame).ok();
                let membership = list.as_ref().and_then(membership);
                let membership = membership.ok_or(BadAppend::Members(index))?;
                configurations.push(Configuration { index, membership });
            }
            self.arriving.push(Kept { index, term, kind, frame, hash, ticket: None });
            last = index;
            rest = &rest[size..];
        }
        if last != append.last {
            return Err(BadAppend::Record(last.next()));
        }
        let mut runs: Vec<raft::TermRun> = Vec::new();
        for kept in &self.arriving {
            match runs.last() {
                Some(run) if run.term == kept.term => {}
                Some(run) if run.term > kept.term => return Err(BadAppend::Record(kept.index)),
                _ => runs.push(raft::TermRun { first: kept.index, term: kept.term }),
            }
        }
        if runs.first().is_some_and(|run| run.term < previous_term)
            || runs.last().is_some_and(|run| run.term > term)
        {
            return Err(BadAppend::Record(append.last));
        }
        let previous = Position { index: previous_index, term: previous_term };
        Ok(Message::Append { term, previous, runs, last, committed, configurations })
    }

    fn close_links_of(
        &mut self,
        now: Instant,
        peer: NodeId,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        for link in self.peers.inbound_of(peer) {
            self.peers.close(now, link, &mut Vec::new(), effects);
        }
    }
}
