//! Snapshots: how consensus has a state brought to a member that the log no longer reaches, and how
//! this member takes one in. The store moves the state; consensus says to whom, keeps the end of the
//! log that follows it, and lets the log begin anew behind it.
//!
//! ```text
//! leader    SendSnapshot ─► store: checkpoint ─► begin ─► chunks, a few ahead ─► matched
//! follower  begin ─► store: chunks ─► complete ─► raft ─► log begins anew, durable ─► file renamed
//! ```

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

/// A transfer that has not moved for this long is given up.
const STALL_TIMEOUT: Duration = Duration::from_millis(30_000);

/// A state on its way to a member.
pub(crate) struct Sending {
    to: NodeId,
    transfer: u64,
    /// The entry that the state ends with; none before the store has said so.
    base: Option<wal::Position>,
    /// Number of the next chunk to send, and of the last one when that is known.
    next: u64,
    last: Option<u64>,
    moved_at: Instant,
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
    next: u64,
}

/// A state that takes the place of the log.
pub(crate) struct Installing {
    base: wal::Position,
    era: u64,
    swapped: bool,
    durable: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// A member needs what the log no longer has.
    pub(crate) fn begin_sending(
        &mut self,
        now: Instant,
        to: NodeId,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if self.sending.iter().any(|sending| sending.to == to) {
            return;
        }
        self.next_transfer += 1;
        let transfer = self.next_transfer;
        let sending = Sending { to, transfer, base: None, next: 0, last: None, moved_at: now };
        self.sending.push(sending);
        // The state must name the members that are committed.
        let index_min = self.tail.before().index.max(self.members.committed_index());
        effects.push(ConsensusEffect::ToStore(StoreEvent::Send { transfer, index_min }));
    }

    /// The store has a state to send.
    pub(crate) fn sending_begun(
        &mut self,
        now: Instant,
        transfer: u64,
        index: LogIndex,
        (members, configuration_index): (Vec<u8>, LogIndex),
        size_hint: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let term = self.raft.term();
        let base = self.tail.position(index);
        let Some(sending) = self.sending.iter_mut().find(|s| s.transfer == transfer) else {
            effects.push(ConsensusEffect::ToStore(StoreEvent::SendEnd { transfer }));
            return;
        };
        let Some(base) = base else {
            return self.give_up_sending(now, transfer, effects);
        };
        sending.base = Some(base);
        sending.moved_at = now;
        let to = sending.to;
        self.raft.handle(now, Input::SnapshotBegun { to, index }, &mut self.outputs);
        let list = match members.is_empty() {
            // Nobody has set one: the members are still those that the cluster began with.
            true => self.members.newest().encode().unwrap_or_default(),
            false => members,
        };
        let begin = PeerSnapshotBegin {
            term,
            index,
            index_term: base.term,
            hash: base.hash,
            configuration_index,
            configuration: &list,
            transfer,
            size_hint,
        };
        if !self.send(to, PeerLane::Bulk, &PeerFrame::SnapshotBegin(begin), effects) {
            return self.give_up_sending(now, transfer, effects);
        }
        let name = self.members.name_of(to);
        effects.push(ConsensusEffect::Tell(format!(
            "member {name} is too far behind for the log: it is sent the state at entry {index}, \
             about {} MiB",
            size_hint >> 20
        )));
        for _ in 0..CHUNKS_AHEAD {
            effects.push(ConsensusEffect::ToStore(StoreEvent::SendNext { transfer }));
        }
    }

    /// The store has a chunk.
    pub(crate) fn sending_chunk(
        &mut self,
        now: Instant,
        transfer: u64,
        chunk: &[u8],
        last: bool,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(sending) = self.sending.iter_mut().find(|s| s.transfer == transfer) else {
            return;
        };
        let (to, number) = (sending.to, sending.next);
        sending.next += 1;
        if last {
            sending.last = Some(number);
        }
        let frame = PeerSnapshotChunk { transfer, number, last, data: chunk };
        if !self.send(to, PeerLane::Bulk, &PeerFrame::SnapshotChunk(frame), effects) {
            self.give_up_sending(now, transfer, effects);
        }
    }

    /// The member has taken a chunk in, or refuses the state.
    pub(crate) fn sending_acknowledged(
        &mut self,
        now: Instant,
        from: NodeId,
        ack: &PeerSnapshotAck<'_>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let same = |s: &&mut Sending| s.transfer == ack.transfer && s.to == from;
        let Some(sending) = self.sending.iter_mut().find(same) else { return };
        let transfer = sending.transfer;
        sending.moved_at = now;
        if !ack.refused.is_empty() {
            let name = self.members.name_of(from);
            let text = format!("member {name} does not take the state: {}", ack.refused);
            effects.push(ConsensusEffect::Tell(text));
            return self.give_up_sending(now, transfer, effects);
        }
        if sending.last.is_none() {
            effects.push(ConsensusEffect::ToStore(StoreEvent::SendNext { transfer }));
        }
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
    pub(crate) fn review_sending(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let peers = self.raft.peers();
        let is_wanted = |to: NodeId| {
            let peer = peers.iter().find(|peer| peer.id() == to);
            peer.is_some_and(|peer| matches!(peer.pace(), Pace::Snapshot { .. }))
        };
        let over = |s: &&Sending| !is_wanted(s.to) || now.since(s.moved_at) > STALL_TIMEOUT;
        let over: Vec<u64> = self.sending.iter().filter(over).map(|s| s.transfer).collect();
        for transfer in over {
            let place = self.sending.iter().position(|s| s.transfer == transfer);
            let wanted = place.map(|place| self.sending[place].to).is_some_and(|to| {
                let peer = self.raft.peers().iter().find(|peer| peer.id() == to);
                peer.is_some_and(|peer| matches!(peer.pace(), Pace::Snapshot { .. }))
            });
            if wanted {
                self.give_up_sending(now, transfer, effects);
            } else if let Some(place) = place {
                self.sending.remove(place);
                effects.push(ConsensusEffect::ToStore(StoreEvent::SendEnd { transfer }));
            }
        }
    }

    /// No state is sent by a member that does not lead, and none to one whose link broke.
    pub(crate) fn end_sending(
        &mut self,
        to: Option<NodeId>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.sending.retain(|sending| {
            let ends = to.is_none_or(|to| to == sending.to);
            if ends {
                let event = StoreEvent::SendEnd { transfer: sending.transfer };
                effects.push(ConsensusEffect::ToStore(event));
            }
            !ends
        });
    }

    /// The first entry that must stay in memory for a member that a state is on its way to.
    pub(crate) fn pinned(&self) -> Option<LogIndex> {
        self.sending.iter().filter_map(|s| s.base).map(|base| base.index).min()
    }

    /// Another member begins to send its state.
    pub(crate) fn begin_receiving(
        &mut self,
        from: NodeId,
        begin: &PeerSnapshotBegin<'_>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let refuse = |this: &mut Self, text: &str, effects: &mut Vec<ConsensusEffect<B>>| {
            let ack = PeerSnapshotAck { transfer: begin.transfer, next: 0, refused: text };
            this.send(from, PeerLane::Control, &PeerFrame::SnapshotAck(ack), effects);
        };
        if self.installing.is_some() {
            return refuse(self, "a state that came before is still being put in place", effects);
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
        let (index, term, hash) = (begin.index, begin.index_term, begin.hash);
        self.receiving = Some(Receiving {
            from,
            their: begin.transfer,
            transfer,
            term: begin.term,
            base: wal::Position { index, term, hash },
            list,
            configuration: begin.configuration_index,
            next: 0,
        });
        effects.push(ConsensusEffect::ToStore(StoreEvent::Receive { transfer }));
    }

    /// A chunk of it.
    pub(crate) fn receive_chunk(
        &mut self,
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
        let transfer = receiving.transfer;
        let chunk = body.slice_ref(chunk.data);
        effects.push(ConsensusEffect::ToStore(StoreEvent::ReceiveChunk { transfer, chunk }));
    }

    /// The store has taken a chunk in.
    pub(crate) fn receive_taken(
        &mut self,
        transfer: u64,
        next: u64,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.acknowledge_chunk(transfer, next, "", effects);
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
        let waiting = self.tail.restart(base);
        self.abandon(waiting, "the state of another member took the place of the log");
        self.members.restart(configuration, list);
        self.peers.set_members(now, self.members.everyone(), effects);
        let era = self.raft.log().era();
        if !Mutant::InstallKeepsLog.is_on() {
            self.journal.restart(base, era);
        }
        self.installing = Some(Installing { base, era, swapped: false, durable: false });
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
        if self.installing.as_ref().is_some_and(|i| i.swapped && i.durable) {
            self.installing = None;
            effects.push(ConsensusEffect::ToStore(StoreEvent::InstallDurable));
        }
    }

    /// A link to this member broke, or from it: what it was sending does not go on.
    pub(crate) fn receiving_lost(&mut self, from: NodeId, effects: &mut Vec<ConsensusEffect<B>>) {
        if self.receiving.as_ref().is_some_and(|receiving| receiving.from == from) {
            self.drop_receiving(effects);
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
