//! A member that remembers nothing, and when it takes part in elections all the same.

#![allow(clippy::unwrap_used)]

use base::{ConnectionId, Duration, FileId, Instant, LogIndex, NodeId, Term};
use bytes::BytesMut;
use node::{
    Consensus, ConsensusConfig, ConsensusEffect, ConsensusEvent, ForPeers, Introduction, Members,
    Role, Tail,
};
use raft::{HardState, Log, Membership, Raft};
use wire::{PeerEncoder, PeerFrame, PeerWelcome};

const OWN: NodeId = NodeId::new(1);

/// What another member says of itself.
#[derive(Clone, Copy)]
struct Other {
    term: u64,
    last: u64,
}

fn founder(id: u64) -> wire::Member {
    wire::Member {
        id: NodeId::new(id),
        name: format!("m{id}"),
        peer_address: format!("10.0.0.{id}:1"),
        client_address: String::new(),
        data_id: FileId::new(0),
        role: wire::MemberRole::Voter,
    }
}

/// Member 1 of three with an empty directory.
fn beginner() -> Consensus<Vec<u8>> {
    let identity = wal::Identity { cluster: 9, member: OWN, incarnation: FileId::new(1) };
    let options = wal::Options {
        segment_size: 8 << 20,
        block_size: 1 << 20,
        groups_in_flight_max: 2,
        ring_slots: 16,
    };
    let writer = wal::Writer::create(identity, options, wal::Position::ORIGIN);
    let log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
    let membership = Membership::of_voters((1..=3).map(NodeId::new).collect());
    let raft = Raft::new(OWN, membership, HardState::default(), log);
    let list = wire::MemberList { next_member: 4, members: (1..=3).map(founder).collect() };
    let members = Members::new(vec![(LogIndex::ZERO, list)]);
    let config = ConsensusConfig {
        reactors: 1,
        torn: None,
        for_peers: ForPeers::SERVER,
        transfer_rate: node::TRANSFER_RATE,
        lease_per_key: false,
        strict_removals: true,
        alone: false,
        introduction: Introduction {
            cluster: 9,
            member: OWN,
            data_id: FileId::new(1),
            start_id: 1,
            client_address: String::new(),
            peer_address: "10.0.0.1:1".into(),
            name: String::new(),
        },
        proposed_bytes_max: 1 << 20,
        write_is_durable: true,
        reserve_size: 1 << 20,
        next_slot: 0,
        seed: 1,
    };
    let tail = Tail::new(wal::Position::ORIGIN);
    Consensus::new(config, raft, writer, Box::new(|size| vec![0xEE; size]), tail, members)
}

/// Lets it run for some seconds beside members 2 and 3, which answer its links with this and say nothing
/// else. Says what the last group it wrote holds as well.
fn meet(others: [Other; 2]) -> (Consensus<Vec<u8>>, wal::HardState) {
    let mut written = wal::HardState::default();
    let mut consensus = beginner();
    let mut now = Instant::from_nanos(1);
    let mut events = vec![ConsensusEvent::Start];
    // By link: whom it leads to.
    let mut links: Vec<usize> = Vec::new();
    for _ in 0..400 {
        let mut effects = Vec::new();
        for event in events.drain(..) {
            consensus.handle(now, event, &mut effects);
        }
        consensus.flush(now, &mut effects);
        for effect in effects {
            events.extend(match effect {
                ConsensusEffect::WriteGroup { lsn, group, .. } => {
                    let wal::Header::Valid(header, _) = wal::GroupHeader::decode(&group.block)
                    else {
                        panic!("a group that does not verify");
                    };
                    written = header.hard_state;
                    Some(ConsensusEvent::Written { lsn })
                }
                ConsensusEffect::MakeSlot { slot } => Some(ConsensusEvent::SlotMade { slot }),
                ConsensusEffect::PrepareSpare { slot, .. } => {
                    Some(ConsensusEvent::SpareReady { slot })
                }
                ConsensusEffect::WriteWatermark(_) => Some(ConsensusEvent::WatermarkDurable),
                ConsensusEffect::Dial { dial, address } => {
                    links.push(if address == founder(2).peer_address { 0 } else { 1 });
                    let slot = u32::try_from(links.len() - 1).unwrap();
                    let link = Some(ConnectionId { slot, generation: 1 });
                    Some(ConsensusEvent::LinkDialed { dial, link })
                }
                ConsensusEffect::LinkSend { link, bytes } => {
                    let other = links[usize::try_from(link.slot).unwrap()];
                    let header = wire::Header::decode(bytes.first_chunk().unwrap()).unwrap();
                    let is_hello = header.kind == wire::Kind::PeerHello;
                    is_hello.then(|| {
                        let bytes = welcome(other, others[other]);
                        ConsensusEvent::LinkReceived { link, bytes }
                    })
                }
                _ => None,
            });
        }
        now = now.after(Duration::from_millis(10));
    }
    (consensus, written)
}

fn welcome(place: usize, other: Other) -> BytesMut {
    let id = NodeId::new(2 + u64::try_from(place).unwrap());
    let welcome = PeerWelcome {
        version: 1,
        cluster: 9,
        member: id,
        data_id: FileId::new(u128::from(id.get())),
        start_id: 5,
        bootstrapped: other.term > 0,
        last_index: LogIndex::new(other.last),
        last_term: Term::new(other.term),
    };
    let mut bytes = Vec::new();
    PeerEncoder::new().encode(&mut bytes, &PeerFrame::Welcome(welcome)).unwrap();
    BytesMut::from(&bytes[..])
}

/// From when the mark is durable a restart is no new beginning: those who were elected by then must not
/// wait for those who vote for them.
#[test]
fn a_founder_beside_founders_that_begin_too_takes_part_and_marks_it_durably() {
    let (consensus, written) = meet([Other { term: 0, last: 0 }; 2]);
    assert!(!consensus.abstains());
    assert_eq!(consensus.raft().term(), Term::ZERO);
    assert!(written.begun);
}

/// Founders were killed right after others had gone to their first terms, and knew of no term when they
/// came back: they waited for the others to lead, and those waited for their votes.
#[test]
fn a_beginning_that_was_cut_short_is_begun_again_beyond_all_terms_in_which_votes_were_given() {
    let (consensus, written) = meet([Other { term: 5, last: 0 }, Other { term: 2, last: 0 }]);
    assert!(!consensus.abstains());
    assert_eq!(consensus.raft().term(), Term::new(6), "a vote of term 5 may be forgotten");
    assert!(written.begun && written.term == Term::new(6));
}

/// It may have acknowledged entries and lost them: whoever has them must lead.
#[test]
fn a_member_that_remembers_nothing_beside_one_with_a_log_takes_part_in_no_election() {
    let (consensus, written) = meet([Other { term: 5, last: 3 }, Other { term: 2, last: 0 }]);
    assert!(consensus.abstains() && !written.begun);
    assert_eq!(consensus.raft().term(), Term::ZERO);
}
