//! Snapshots: how consensus has a state brought to a member that the log no longer reaches, and how
//! this member takes one in. The store moves the state; consensus says to whom, keeps the end of the
//! log that follows it, and lets the log begin anew behind it.
//!
//! ```text
//! leader    SendSnapshot ─► store: checkpoint ─► begin ─► chunks, a few ahead ─► matched
//! follower  begin ─► store: chunks ─► complete ─► raft ─► log begins anew, durable ─► file renamed
//! ```
//!
//! All states together leave at the rate that was configured, counted in bytes of chunks. Chunks stay
//! with the leader until they are acknowledged: when the link breaks and comes back while the same
//! leader leads, `begin` is said again, the member answers how many chunks it has, and the rest follows.
//! A member that has restarted has none, and is sent another state from the beginning.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{Duration, Frame, Instant, LogIndex, Mutant, NodeId, Term};
use raft::{Configuration, Input, Message, Pace, Position};
use wire::{
    MemberList, PeerFrame, PeerLane, PeerSnapshotAck, PeerSnapshotBegin, PeerSnapshotChunk,
};

use crate::consensus::Consensus;
use crate::members::membership;
use crate::{ConsensusEffect, StoreEvent};

/// Chunks on their way to one member: what keeps a local network busy while one is taken in.
const CHUNKS_AHEAD: u64 = 4;

/// A transfer that has not moved for this long is given up, on both sides.
const STALL_TIMEOUT: Duration = Duration::from_millis(30_000);

/// Bytes of states that a server sends in a second: a fifth of a fast local network, so that the log
/// and other members have the rest.
pub const TRANSFER_RATE: u64 = 256 << 20;

/// A state on its way to a member.
pub(crate) struct Sending {
    to: NodeId,
    transfer: u64,
    stage: SendStage,
    /// What begins it; none before the store has a state to send.
    begin: Option<Begin>,
    /// Chunks that the store has made and the member has not acknowledged, and the number of the
    /// first one.
    chunks: VecDeque<Vec<u8>>,
    first: u64,
    /// How many chunks the store was asked for.
    asked: u64,
    /// The number of the last chunk, when that is known.
    last: Option<u64>,
    moved_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SendStage {
    Moving,
    /// The link broke: what the store still makes is kept.
    Interrupted,
    /// The member was asked, on another link, which chunks it has.
    Resuming,
}

/// What a member is told of a state before its chunks.
struct Begin {
    base: wal::Position,
    configuration: LogIndex,
    list: Vec<u8>,
    size_hint: u64,
}

/// A state on its way in.
pub(crate) struct Receiving {
    from: NodeId,
    /// The number of the transfer, of the sender's and of this member's making.
    their: u64,
    transfer: u64,
    term: Term,
    base: wal::Position,
    list: MemberList,
    configuration: LogIndex,
    /// The number of the next chunk to come, and of the next one to be taken in by the store.
    next: u64,
    taken: u64,
    /// The number of the last chunk, when it has come.
    last: Option<u64>,
    moved_at: Instant,
}

/// A state that takes the place of the log.
pub(crate) struct Installing {
    base: wal::Position,
    era: u64,
    swapped: bool,
    durable: bool,
    /// Who wants to send another one meanwhile, and the number of that transfer.
    declined: Option<(NodeId, u64)>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// A member needs what the log no longer has.
    pub(crate) fn begin_sending(
        &mut self,
        now: Instant,
        to: NodeId,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if let Some(sending) = self.sending.iter().find(|sending| sending.to == to) {
            if sending.stage == SendStage::Interrupted {
                return;
            }
            // It has arrived, and the log has come further than its end.
            self.end_sending(Some(to), effects);
        }
        self.next_transfer += 1;
        let transfer = self.next_transfer;
        self.sending.push(Sending {
            to,
            transfer,
            stage: SendStage::Moving,
            begin: None,
            chunks: VecDeque::new(),
            first: 0,
            asked: 0,
            last: None,
            moved_at: now,
        });
        // The log must go on where the state ends, and the state must name the members that are committed.
        let kept = self.tail.before().index.max(self.raft.log().base().index);
        let index_min = kept.max(self.members.committed_index());
        effects.push(ConsensusEffect::ToStore(StoreEvent::Send { transfer, index_min }));
    }

    /// The store has a state to send.
    pub(crate) fn sending_begun(
        &mut self,
        now: Instant,
        transfer: u64,
        index: LogIndex,
        (members, configuration): (Vec<u8>, LogIndex),
        size_hint: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let base = self.tail.position(index);
        let Some(sending) = self.sending.iter_mut().find(|s| s.transfer == transfer) else {
            effects.push(ConsensusEffect::ToStore(StoreEvent::SendEnd { transfer }));
            return;
        };
        let Some(base) = base else {
            return self.give_up_sending(now, transfer, effects);
        };
        sending.moved_at = now;
        let to = sending.to;
        let list = match members.is_empty() {
            // Nobody has set one: the members are still those that the cluster began with.
            true => self.members.newest().encode().unwrap_or_default(),
            false => members,
        };
        sending.begin = Some(Begin { base, configuration, list, size_hint });
        let name = self.members.name_of(to);
        effects.push(ConsensusEffect::Tell(format!(
            "member {name} is too far behind for the log: it is sent the state at entry {index}, \
             about {} MiB",
            size_hint >> 20
        )));
        // Behind an interruption raft finds out whether it is still wanted.
        if sending.stage != SendStage::Interrupted {
            self.say_begin(now, transfer, SendStage::Moving, effects);
        }
    }

    /// Tells the member what is to come, for the first time or anew.
    fn say_begin(
        &mut self,
        now: Instant,
        transfer: u64,
        stage: SendStage,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(place) = self.sending.iter().position(|s| s.transfer == transfer) else { return };
        let to = self.sending[place].to;
        let Some(begin) = self.sending[place].begin.take() else { return };
        let index = begin.base.index;
        self.raft.handle(now, Input::SnapshotBegun { to, index }, &mut self.outputs);
        let frame = PeerSnapshotBegin {
            term: self.raft.term(),
            index,
            index_term: begin.base.term,
            hash: begin.base.hash,
            configuration_index: begin.configuration,
            configuration: &begin.list,
            transfer,
            size_hint: begin.size_hint,
        };
        let is_sent = self.send(to, PeerLane::Bulk, &PeerFrame::SnapshotBegin(frame), effects);
        self.sending[place].begin = Some(begin);
        self.sending[place].stage = stage;
        if !is_sent {
            return self.interrupt_sending(now, to);
        }
        self.pace_sending(now, effects);
    }

    /// Says again what is to come, where a link has come back and raft waits for a state.
    pub(crate) fn resume_sending(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        for place in 0..self.sending.len() {
            let Sending { to, transfer, stage, .. } = self.sending[place];
            if stage == SendStage::Interrupted
                && self.peers.open(to, PeerLane::Bulk).is_some()
                && matches!(self.pace_of(to), Some(Pace::Snapshot { .. }))
            {
                self.say_begin(now, transfer, SendStage::Resuming, effects);
            }
        }
    }

    fn pace_of(&self, to: NodeId) -> Option<Pace> {
        self.raft.peers().iter().find(|peer| peer.id() == to).map(|peer| peer.pace())
    }

    /// Asks the store for as many chunks as may be on their way, and as the rate allows.
    pub(crate) fn pace_sending(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        if now < self.send_at {
            return;
        }
        for sending in &mut self.sending {
            while sending.has_room() {
                sending.asked += 1;
                let transfer = sending.transfer;
                effects.push(ConsensusEffect::ToStore(StoreEvent::SendNext { transfer }));
            }
        }
    }

    /// When states may go on to be sent.
    pub(crate) fn sending_deadline(&self) -> Option<Instant> {
        self.sending.iter().any(Sending::has_room).then_some(self.send_at)
    }

    /// The store has a chunk.
    pub(crate) fn sending_chunk(
        &mut self,
        now: Instant,
        transfer: u64,
        chunk: Vec<u8>,
        last: bool,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(place) = self.sending.iter().position(|s| s.transfer == transfer) else { return };
        let sending = &mut self.sending[place];
        let number = sending.first + sending.chunks.len() as u64;
        sending.last = last.then_some(number);
        let is_sent = sending.stage == SendStage::Moving;
        self.send_at = self.send_at.max(now).after(self.time_to_send(chunk.len()));
        self.sending[place].chunks.push_back(chunk);
        if is_sent {
            self.send_chunks(now, place, number, effects);
            self.pace_sending(now, effects);
        }
    }

    /// What the rate makes of this many bytes.
    fn time_to_send(&self, size: usize) -> Duration {
        let nanos = u128::from(size as u64) * 1_000_000_000 / u128::from(self.config.transfer_rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Sends the chunks that are here, from number `from` on.
    fn send_chunks(
        &mut self,
        now: Instant,
        place: usize,
        from: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Sending { to, transfer, first, last, .. } = self.sending[place];
        let chunks = core::mem::take(&mut self.sending[place].chunks);
        let is_sent =
            (first..).zip(&chunks).filter(|(number, _)| *number >= from).all(|(number, data)| {
                let last = last == Some(number);
                let frame = PeerSnapshotChunk { transfer, number, last, data };
                self.send(to, PeerLane::Bulk, &PeerFrame::SnapshotChunk(frame), effects)
            });
        self.sending[place].chunks = chunks;
        if !is_sent {
            self.interrupt_sending(now, to);
        }
    }

    /// The member has taken chunks in, or says how many it has, or refuses the state.
    pub(crate) fn sending_acknowledged(
        &mut self,
        now: Instant,
        from: NodeId,
        ack: &PeerSnapshotAck<'_>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let same = |s: &Sending| s.transfer == ack.transfer && s.to == from;
        let Some(place) = self.sending.iter().position(same) else { return };
        let sending = &mut self.sending[place];
        let (transfer, resumes) = (sending.transfer, sending.stage == SendStage::Resuming);
        let name = || self.members.name_of(from);
        if !ack.refused.is_empty() {
            let text = format!("member {} does not take the state: {}", name(), ack.refused);
            effects.push(ConsensusEffect::Tell(text));
            return self.give_up_sending(now, transfer, effects);
        }
        let made = sending.first + sending.chunks.len() as u64;
        if ack.next > made || (resumes && ack.next < sending.first) {
            let text = format!(
                "member {} has {} chunks of the state, {} to {made} are here: it is sent another one",
                name(),
                ack.next,
                sending.first
            );
            effects.push(ConsensusEffect::Tell(text));
            return self.give_up_sending(now, transfer, effects);
        }
        // A repeated one says that the member is there; that is enough where it has all and works on it.
        let has_all = sending.last.is_some_and(|last| ack.next > last);
        if ack.next > sending.first || resumes || has_all {
            sending.moved_at = now;
        }
        while sending.first < ack.next {
            sending.first += 1;
            sending.chunks.pop_front();
        }
        if resumes {
            sending.stage = SendStage::Moving;
            let text = format!("the state goes on to member {} at chunk {}", name(), ack.next);
            effects.push(ConsensusEffect::Tell(text));
            self.send_chunks(now, place, ack.next, effects);
        }
        self.pace_sending(now, effects);
    }

    /// A state is not sent any more; raft asks for another when it finds that one is needed.
    pub(crate) fn give_up_sending(
        &mut self,
        now: Instant,
        transfer: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(place) = self.sending.iter().position(|s| s.transfer == transfer) else { return };
        let peer = self.sending.remove(place).to;
        effects.push(ConsensusEffect::ToStore(StoreEvent::SendEnd { transfer }));
        self.raft.handle(now, Input::Unreachable { peer }, &mut self.outputs);
    }

    /// Ends what has arrived, and what does not move.
    pub(crate) fn review_transfers(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let mut over = Vec::new();
        for sending in &self.sending {
            let pace = self.pace_of(sending.to);
            let is_sent = matches!(pace, Some(Pace::Snapshot { .. }));
            let may_resume =
                sending.stage == SendStage::Interrupted && matches!(pace, Some(Pace::Probe { .. }));
            let is_stalled = now.since(sending.moved_at) > STALL_TIMEOUT;
            if is_stalled || !(is_sent || may_resume) {
                over.push((sending.to, sending.transfer, is_sent));
            }
        }
        for (to, transfer, is_sent) in over {
            if is_sent {
                self.give_up_sending(now, transfer, effects);
            } else {
                self.end_sending(Some(to), effects);
            }
        }
        let Some(receiving) = &self.receiving else { return };
        let has_all = receiving.last.is_some_and(|last| receiving.taken > last);
        let is_stalled = !has_all && now.since(receiving.moved_at) > STALL_TIMEOUT;
        if is_stalled || receiving.base.index <= self.raft.log().committed() {
            self.drop_receiving(effects);
        } else {
            // The link that brought the one before may have lost it.
            let (transfer, taken) = (receiving.transfer, receiving.taken);
            self.acknowledge_chunk(transfer, taken, "", effects);
        }
    }

    /// The link to a member broke: the state that it is sent may go on over another one.
    pub(crate) fn interrupt_sending(&mut self, now: Instant, to: NodeId) {
        for sending in self.sending.iter_mut().filter(|sending| sending.to == to) {
            sending.stage = SendStage::Interrupted;
        }
        self.raft.handle(now, Input::Unreachable { peer: to }, &mut self.outputs);
    }

    /// Nothing is sent any more, to this member or by one that does not lead.
    pub(crate) fn end_sending(
        &mut self,
        to: Option<NodeId>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        for ended in self.sending.extract_if(.., |sending| to.is_none_or(|to| to == sending.to)) {
            let transfer = ended.transfer;
            effects.push(ConsensusEffect::ToStore(StoreEvent::SendEnd { transfer }));
        }
    }

    /// The first entry that must stay in memory for a member that a state is on its way to.
    pub(crate) fn pinned(&self) -> Option<LogIndex> {
        self.sending.iter().filter_map(|s| s.begin.as_ref()).map(|begin| begin.base.index).min()
    }

    /// Another member begins to send its state.
    pub(crate) fn begin_receiving(
        &mut self,
        now: Instant,
        from: NodeId,
        begin: &PeerSnapshotBegin<'_>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let (index, term, hash) = (begin.index, begin.index_term, begin.hash);
        let base = wal::Position { index, term, hash };
        if let Some(receiving) = &mut self.receiving
            && receiving.from == from
            && receiving.their == begin.transfer
            && receiving.term == begin.term
            && receiving.base == base
        {
            // The link broke; what had not been taken in when it did comes again.
            receiving.moved_at = now;
            let (transfer, taken) = (receiving.transfer, receiving.taken);
            return self.acknowledge_chunk(transfer, taken, "", effects);
        }
        let refuse = |this: &mut Self, text: &str, effects: &mut Vec<ConsensusEffect<B>>| {
            let ack = PeerSnapshotAck { transfer: begin.transfer, next: 0, refused: text };
            this.send(from, PeerLane::Control, &PeerFrame::SnapshotAck(ack), effects);
        };
        if let Some(installing) = &mut self.installing {
            // Told when there is no sense in waiting any more: it would only come again at once.
            installing.declined = Some((from, begin.transfer));
            return;
        }
        if begin.index <= self.raft.log().committed() || begin.term < self.raft.term() {
            return refuse(self, "this member has all of it already", effects);
        }
        let list = match MemberList::decode(begin.configuration) {
            Ok(list) if begin.configuration_index <= begin.index => list,
            Ok(_) => return refuse(self, "its members are from behind it", effects),
            Err(error) => return refuse(self, &error.to_string(), effects),
        };
        self.next_transfer += 1;
        let transfer = self.next_transfer;
        self.receiving = Some(Receiving {
            from,
            their: begin.transfer,
            transfer,
            term: begin.term,
            base,
            list,
            configuration: begin.configuration_index,
            next: 0,
            taken: 0,
            last: None,
            moved_at: now,
        });
        effects.push(ConsensusEffect::ToStore(StoreEvent::Receive { transfer }));
        self.acknowledge_chunk(transfer, 0, "", effects);
    }

    /// A chunk of it.
    pub(crate) fn receive_chunk(
        &mut self,
        now: Instant,
        from: NodeId,
        chunk: &PeerSnapshotChunk<'_>,
        body: &Frame,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let same = |r: &&mut Receiving| {
            r.from == from && r.their == chunk.transfer && r.next == chunk.number
        };
        let Some(receiving) = self.receiving.as_mut().filter(same) else { return };
        receiving.next += 1;
        receiving.last = chunk.last.then_some(chunk.number);
        receiving.moved_at = now;
        let transfer = receiving.transfer;
        let chunk = body.slice_ref(chunk.data);
        effects.push(ConsensusEffect::ToStore(StoreEvent::ReceiveChunk { transfer, chunk }));
    }

    /// The store has taken a chunk in.
    pub(crate) fn receive_taken(
        &mut self,
        now: Instant,
        transfer: u64,
        next: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if let Some(receiving) = self.receiving.as_mut().filter(|r| r.transfer == transfer) {
            receiving.taken = next;
            receiving.moved_at = now;
            self.acknowledge_chunk(transfer, next, "", effects);
        }
    }

    fn acknowledge_chunk(
        &mut self,
        transfer: u64,
        next: u64,
        refused: &str,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let same = |r: &&Receiving| r.transfer == transfer;
        let Some(receiving) = self.receiving.as_ref().filter(same) else { return };
        let (to, transfer) = (receiving.from, receiving.their);
        let ack = PeerSnapshotAck { transfer, next, refused };
        self.send(to, PeerLane::Control, &PeerFrame::SnapshotAck(ack), effects);
    }

    /// The store does not take it.
    pub(crate) fn receive_refused(
        &mut self,
        transfer: u64,
        reason: &str,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.acknowledge_chunk(transfer, 0, reason, effects);
        let text = format!("the state that another member sent is not taken: {reason}");
        effects.push(ConsensusEffect::Tell(text));
        self.drop_receiving(effects);
    }

    fn drop_receiving(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        if self.receiving.take().is_some() {
            effects.push(ConsensusEffect::ToStore(StoreEvent::ReceiveEnd));
        }
    }

    /// All of it is here and durable: raft decides whether it is taken.
    pub(crate) fn receive_complete(
        &mut self,
        now: Instant,
        transfer: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let same = |r: &&Receiving| r.transfer == transfer;
        let Some(receiving) = self.receiving.as_ref().filter(same) else { return };
        let Some(membership) = membership(&receiving.list) else {
            return self.drop_receiving(effects);
        };
        let (from, term, base) = (receiving.from, receiving.term, receiving.base);
        let message = Message::Snapshot {
            term,
            last: Position { index: base.index, term: base.term },
            configuration: Configuration { index: receiving.configuration, membership },
        };
        self.raft.handle(now, Input::Receive { from, message }, &mut self.outputs);
        self.take_outputs(now, effects);
        // It was of a leader that is gone, or the log has come to hold all of it.
        self.drop_receiving(effects);
    }

    /// raft takes the state: the log begins behind it.
    pub(crate) fn install(
        &mut self,
        now: Instant,
        last: Position,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let receiving = self.receiving.take().expect("only a state that is here is installed");
        let Receiving { transfer, base, list, configuration, .. } = receiving;
        assert!(base.index == last.index, "installs {last:?}, received up to {}", base.index);
        self.tail.restart(base);
        self.give_up_all("the state of another member took the place of the log");
        self.members.restart(configuration, list);
        self.peers.set_members(now, self.members.everyone(), effects);
        let era = self.raft.log().era();
        if !Mutant::InstallKeepsLog.is_on() {
            self.journal.restart(base, era);
        }
        self.installing =
            Some(Installing { base, era, swapped: false, durable: false, declined: None });
        effects.push(ConsensusEffect::ToStore(StoreEvent::Install { transfer }));
        effects.push(ConsensusEffect::Tell(format!(
            "this member was too far behind and takes the state of another one at entry {}",
            base.index
        )));
    }

    /// The store has swapped the states.
    pub(crate) fn install_swapped(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        if let Some(installing) = &mut self.installing {
            installing.swapped = true;
        }
        self.finish_install(effects);
    }

    /// The log is durable up to `position`, in this era.
    pub(crate) fn install_durable(
        &mut self,
        position: wal::Position,
        era: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if let Some(installing) = &mut self.installing {
            installing.durable |= era >= installing.era && position.index >= installing.base.index;
        }
        self.finish_install(effects);
    }

    /// The file gets its name when both are done: before, a start must find the old one.
    fn finish_install(&mut self, effects: &mut Vec<ConsensusEffect<B>>) {
        let early = Mutant::RenamedEarly.is_on();
        if self.installing.as_ref().is_some_and(|i| i.swapped && (i.durable || early)) {
            let declined = self.installing.take().and_then(|installing| installing.declined);
            effects.push(ConsensusEffect::ToStore(StoreEvent::InstallDurable));
            if let Some((from, transfer)) = declined {
                let refused = "a state that came before had to be put in place first";
                let ack = PeerSnapshotAck { transfer, next: 0, refused };
                self.send(from, PeerLane::Control, &PeerFrame::SnapshotAck(ack), effects);
            }
        }
    }

    /// The store cannot go on sending.
    pub(crate) fn sending_failed(
        &mut self,
        now: Instant,
        transfer: u64,
        reason: &str,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let to = self.sending.iter().find(|s| s.transfer == transfer).map(|s| s.to);
        if let Some(to) = to {
            let name = self.members.name_of(to);
            let text: String = format!("the state is not sent to member {name} any more: {reason}");
            effects.push(ConsensusEffect::Tell(text));
            self.give_up_sending(now, transfer, effects);
        }
    }
}

impl Sending {
    /// Whether one more chunk may be on its way.
    fn has_room(&self) -> bool {
        self.stage == SendStage::Moving
            && self.begin.is_some()
            && self.last.is_none()
            && self.asked - self.first < CHUNKS_AHEAD
    }
}
