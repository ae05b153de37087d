//! One member, the only voter, of the three roles: its disk does what it is asked when it is told to, its memory of
//! disk blocks is a `Vec`.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::VecDeque;

use base::{
    ClientId, ConnectionId, Duration, FileId, Instant, LogIndex, NodeId, ReactorId, RequestId,
    Stamp,
};
use bytes::BytesMut;
use kv::State;
use node::{
    CheckpointConfig, Consensus, ConsensusConfig, ConsensusEffect, ConsensusEvent, ForPeers,
    Introduction, Members, Reactor, ReactorConfig, ReactorEffect, ReactorEvent, Retention, Role,
    Store, StoreConfig, StoreEffect, StoreEvent, Tail,
};
use raft::{HardState, Log, Membership, Raft};
use tree::PageFile;
use wire::{Call, Reply, RequestEncoder, Splitter, Status};

pub const MEMBER: NodeId = NodeId::new(7);
pub const CONNECTION: ConnectionId = ConnectionId { slot: 0, generation: 1 };

/// One member whose disk does nothing by itself.
pub struct Member {
    pub reactor: Reactor,
    pub consensus: Consensus<Vec<u8>>,
    pub store: Store<Vec<u8>>,
    pub to_reactor: VecDeque<ReactorEvent>,
    pub to_consensus: VecDeque<ConsensusEvent>,
    pub to_store: VecDeque<StoreEvent>,
    /// Effects of consensus that the disk has to complete.
    pub disk: VecDeque<ConsensusEffect<Vec<u8>>>,
    pub sent: BytesMut,
    pub closed: bool,
    pub paused: bool,
    pub splitter: Splitter,
    pub encoder: RequestEncoder,
    pub next: u64,
    pub now: Instant,
}

impl Member {
    pub fn new() -> Self {
        Self::keeping(Retention::Everything)
    }

    pub fn keeping(retention: Retention) -> Self {
        let id = FileId::new(1);
        let identity = wal::Identity { cluster: 9, member: MEMBER, incarnation: id };
        let options = wal::Options {
            segment_size: 8 << 20,
            block_size: 1 << 20,
            groups_in_flight_max: 2,
            ring_slots: 16,
        };
        let writer = wal::Writer::create(identity, options, wal::Position::ORIGIN);
        let log = Log::recovered(Vec::new(), LogIndex::ZERO, LogIndex::ZERO);
        let membership = Membership::of_voters(vec![MEMBER]);
        let raft = Raft::new(MEMBER, membership, HardState::default(), log);
        let tail = Tail::new(wal::Position::ORIGIN);
        let founder = wire::Member {
            id: MEMBER,
            name: "lone".into(),
            peer_address: String::new(),
            client_address: String::new(),
            data_id: id,
            role: wire::MemberRole::Voter,
        };
        let list = wire::MemberList { next_member: 8, members: vec![founder] };
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
                member: MEMBER,
                data_id: id,
                start_id: 1,
                client_address: String::new(),
                peer_address: String::new(),
                name: String::new(),
            },
            proposed_bytes_max: 1 << 20,
            write_is_durable: false,
            reserve_size: 1 << 20,
            next_slot: 0,
            seed: 1,
        };
        let consensus =
            Consensus::new(config, raft, writer, Box::new(|size| vec![0xEE; size]), tail, members);
        let options = tree::Options {
            file: id,
            cluster: 9,
            member: MEMBER,
            cache_size: 64 << 20,
            growth_size: 16 << 20,
        };
        let pages = PageFile::create(&options);
        let config = StoreConfig {
            reactors: 1,
            cluster: 9,
            member: MEMBER,
            checkpoint: CheckpointConfig {
                log_size: 1 << 30,
                dirty_size: 1 << 30,
                interval: Duration::from_millis(1 << 40),
                room_min: 1 << 20,
                quota_size: 0,
            },
            dirty_size_max: 32 << 20,
            read_slice: 512,
            history: kv::HistoryLimits::SERVER,
            retention,
            pages: options,
        };
        let store = Store::new(
            config,
            State::create(pages),
            LogIndex::ZERO,
            Box::new(|size| vec![0xEE; size]),
            Instant::ORIGIN,
        );
        let config = ReactorConfig {
            id: ReactorId::new(0),
            cluster: 9,
            member: MEMBER,
            value_size_max: 1 << 16,
            bytes_max: 32 << 20,
            txn_ops_max: base::limits::TXN_OPS_MAX_DEFAULT,
            connections_max: 1_000,
            clients_max: base::limits::CLIENTS_MAX,
        };
        Self {
            reactor: Reactor::new(config),
            consensus,
            store,
            to_reactor: VecDeque::new(),
            to_consensus: VecDeque::new(),
            to_store: VecDeque::new(),
            disk: VecDeque::new(),
            sent: BytesMut::new(),
            closed: false,
            paused: false,
            splitter: Splitter::new(),
            encoder: RequestEncoder::new(),
            next: 1,
            now: Instant::from_nanos(1),
        }
    }

    /// A member that leads, with a connection that has been greeted.
    pub fn serving() -> Self {
        Self::new().served()
    }

    pub fn served(mut self) -> Self {
        let member = &mut self;
        member.to_consensus.push_back(ConsensusEvent::Start);
        member.settle();
        assert!(member.consensus.may_serve());
        member.connect();
        member.settle();
        assert_eq!(member.replies(), [(1, Status::Ok, None)]);
        member.splitter.agree(1, wire::limits::REPLY_BODY_SIZE_MAX);
        member.encoder.agree(1, base::limits::body_size_max(1 << 16));
        self
    }

    /// A connection that says Hello.
    pub fn connect(&mut self) {
        self.to_reactor.push_back(ReactorEvent::Accepted { connection: CONNECTION });
        self.request(&Call::Hello(wire::Hello {
            version_min: 1,
            version_max: 1,
            cluster: 0,
            client_name: "test",
        }));
    }

    pub fn request(&mut self, call: &Call<'_>) -> u64 {
        self.request_within(call, 0)
    }

    pub fn request_within(&mut self, call: &Call<'_>, deadline_ms: u32) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut frame = Vec::new();
        self.encoder.encode(&mut frame, RequestId::new(id), deadline_ms, call).unwrap();
        self.receive(&frame);
        id
    }

    pub fn request_once(&mut self, stamp: Stamp, call: &Call<'_>) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut frame = Vec::new();
        self.encoder.encode_with(&mut frame, RequestId::new(id), 0, Some(&stamp), call).unwrap();
        self.receive(&frame);
        id
    }

    /// The next reply as it is.
    pub fn reply<T>(&mut self, take: impl FnOnce(&wire::Header, Reply<'_>) -> T) -> T {
        let (header, body) = self.splitter.next(&mut self.sent).unwrap().expect("a reply");
        take(&header, Reply::verify(&header, &body).unwrap())
    }

    /// Registers a client.
    pub fn register(&mut self) -> ClientId {
        self.request(&Call::Register);
        self.settle();
        self.reply(|_, reply| {
            let Reply::Register(reply) = reply else { panic!("{reply:?}") };
            assert_eq!(reply.unanswered_max, 256);
            reply.client
        })
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        let bytes = BytesMut::from(bytes);
        self.to_reactor.push_back(ReactorEvent::Received { connection: CONNECTION, bytes });
    }

    /// One turn of every role; the disk does nothing.
    pub fn turn(&mut self) {
        let mut effects = Vec::new();
        for event in self.to_reactor.drain(..) {
            self.reactor.handle(self.now, event, &mut effects);
        }
        self.reactor.flush(self.now, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                ReactorEffect::Send { bytes, .. } => self.sent.extend_from_slice(&bytes),
                ReactorEffect::Close { .. } => self.closed = true,
                ReactorEffect::Pause { .. } => self.paused = true,
                ReactorEffect::Resume { .. } => self.paused = false,
                ReactorEffect::ToConsensus(event) => self.to_consensus.push_back(event),
                ReactorEffect::ToStore(event) => self.to_store.push_back(event),
            }
        }
        let mut effects = Vec::new();
        for event in self.to_consensus.drain(..) {
            self.consensus.handle(self.now, event, &mut effects);
        }
        self.consensus.flush(self.now, &mut effects);
        for effect in effects {
            match effect {
                ConsensusEffect::ToReactor(_, event) => self.to_reactor.push_back(event),
                ConsensusEffect::ToStore(event) => self.to_store.push_back(event),
                disk => self.disk.push_back(disk),
            }
        }
        let mut effects = Vec::new();
        for event in self.to_store.drain(..) {
            self.store.handle(self.now, event, &mut effects);
        }
        self.store.flush(self.now, &mut effects);
        for effect in effects {
            match effect {
                StoreEffect::ToReactor(_, event) => self.to_reactor.push_back(event),
                StoreEffect::ToConsensus(event) => self.to_consensus.push_back(event),
                StoreEffect::Grow { size } => {
                    self.to_store.push_back(StoreEvent::Grown { size, grown: true });
                }
                other => panic!("nothing else is due: {other:?}"),
            }
        }
    }

    /// Turns until nothing moves but the disk.
    pub fn turns(&mut self) {
        self.turn();
        while !(self.to_reactor.is_empty()
            && self.to_consensus.is_empty()
            && self.to_store.is_empty())
        {
            self.turn();
        }
    }

    /// Completes the oldest disk effect; false if there is none.
    pub fn complete(&mut self) -> bool {
        let event = match self.disk.pop_front() {
            None => return false,
            Some(ConsensusEffect::WriteGroup { lsn, .. }) => ConsensusEvent::Written { lsn },
            Some(ConsensusEffect::Sync { lsn, .. }) => ConsensusEvent::Synced { lsn },
            Some(ConsensusEffect::MakeSlot { slot }) => ConsensusEvent::SlotMade { slot },
            Some(ConsensusEffect::PrepareSpare { slot, .. }) => ConsensusEvent::SpareReady { slot },
            Some(ConsensusEffect::WriteWatermark(_)) => ConsensusEvent::WatermarkDurable,
            Some(other) => panic!("not for the disk: {other:?}"),
        };
        self.to_consensus.push_back(event);
        true
    }

    /// Lets everything happen that is under way.
    pub fn settle(&mut self) {
        self.turns();
        while self.complete() {
            self.turns();
        }
    }

    /// What has been sent: request, status, and the revision or the value found.
    pub fn replies(&mut self) -> Vec<(u64, Status, Option<Vec<u8>>)> {
        let mut replies = Vec::new();
        while let Some((header, body)) = self.splitter.next(&mut self.sent).unwrap() {
            let seen = match Reply::verify(&header, &body).unwrap() {
                Reply::Put(reply) => Some(reply.revision.to_string().into_bytes()),
                Reply::Range(reply) => reply.kvs.clone().next().map(|kv| kv.value.to_vec()),
                _ => None,
            };
            replies.push((header.request.get(), header.status, seen));
        }
        replies
    }
}
