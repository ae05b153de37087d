//! Peers: the links to other members. Every member dials every other one, twice: a control link for
//! votes, heartbeats and acknowledgements, and a bulk link for entries and snapshots, so that a large
//! append never delays a heartbeat. A link carries messages of whoever dialed it only.
//!
//! ```text
//! idle ─► dialing ─► greeting ─► open ─► idle, and again after a pause     (links that we dial)
//!                    expecting a hello ─► open                             (links that we accept)
//! ```
//!
//! A link is open when both sides know who the other one is: cluster, member, the random name of its
//! data directory and of this start of its process.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{ConnectionId, Duration, FileId, Frame, Instant, LogIndex, NodeId, Prng, Term};
use bytes::BytesMut;
use wire::{
    Header, Member, PEER_BODY_SIZE_MAX, PeerEncoder, PeerFrame, PeerHello, PeerLane as Lane,
    PeerRefusal, PeerRefused, PeerWelcome, Splitter, VERSION_MAX, VERSION_MIN,
};

use crate::ConsensusEffect;

/// A link that is not open after this is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(3_000);

/// A link whose socket takes nothing for this long is closed.
const BLOCKED_TIMEOUT: Duration = Duration::from_millis(5_000);

/// Pause before a member is dialed again: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(1_000);

const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];

/// Who this member is to others.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// The cluster.
    pub cluster: u64,
    /// This member.
    pub member: NodeId,
    /// The random name of its data directory.
    pub data_id: FileId,
    /// The random name of this start of the process.
    pub start_id: u64,
    /// Where clients find it.
    pub client_address: String,
    /// Where other members find it; empty: nowhere.
    pub peer_address: String,
    /// What it calls itself.
    pub name: String,
}

/// What the host says of itself when another member calls.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// Where its log ends.
    pub last: raft::Position,
    /// The term that it is in, if its log is empty.
    pub term: Term,
}

/// What links bring.
#[derive(Debug)]
pub enum Incoming {
    /// A member has opened a link to this one.
    Met {
        /// Who.
        peer: NodeId,
        /// The name of its data directory.
        data_id: FileId,
        /// Where clients find it.
        client_address: String,
        /// What it calls itself; empty: it does not say.
        name: String,
    },
    /// This member has opened a link to another one.
    Welcomed {
        /// Who.
        peer: NodeId,
        /// For which lane.
        lane: Lane,
        /// What it says of itself.
        greeting: Greeting,
    },
    /// What was sent to this member may be lost.
    Lost {
        /// Who.
        peer: NodeId,
        /// On which lane.
        lane: Lane,
    },
    /// A member has closed the link on which it sends what cannot wait.
    Gone {
        /// Who.
        peer: NodeId,
    },
    /// A frame of an open link.
    Frame {
        /// From whom.
        peer: NodeId,
        /// Its header.
        header: Header,
        /// Its body.
        body: Frame,
    },
    /// A process without an identity asks who it is.
    Join {
        /// On this link.
        link: ConnectionId,
        /// Its name.
        name: String,
        /// Where it would be found.
        address: String,
    },
    /// Another member refuses this one for good.
    Excluded(String),
}

enum Phase {
    Idle,
    /// The number of the dial.
    Dialing(u64),
    Greeting(ConnectionId),
    Open(ConnectionId),
}

/// A link that this member dials.
struct Outbound {
    phase: Phase,
    /// Idle: dial then. Dialing, greeting: give up then.
    at: Instant,
    pause: Duration,
    /// Since when the socket has taken nothing.
    blocked_since: Option<Instant>,
    start_id: Option<u64>,
}

impl Outbound {
    fn new(now: Instant) -> Self {
        Self { phase: Phase::Idle, at: now, pause: PAUSE_MIN, blocked_since: None, start_id: None }
    }

    fn link(&self) -> Option<ConnectionId> {
        match self.phase {
            Phase::Greeting(link) | Phase::Open(link) => Some(link),
            Phase::Idle | Phase::Dialing(_) => None,
        }
    }
}

struct Peer {
    address: String,
    /// By lane.
    links: [Outbound; 2],
}

/// A socket.
struct Link {
    /// Whom this member dialed, on which lane; none where it was dialed.
    dialed: Option<(NodeId, Lane)>,
    /// Who dialed, once it has said so.
    peer: Option<(NodeId, Lane)>,
    splitter: Splitter,
    received: BytesMut,
    opened_at: Instant,
}

/// All links.
pub struct Peers {
    own: Introduction,
    peers: BTreeMap<NodeId, Peer>,
    links: BTreeMap<ConnectionId, Link>,
    /// Those who may call, by what is known of their data; from the newest list of members.
    known: BTreeMap<NodeId, FileId>,
    /// Members below this number that are not known were removed.
    next_member: u64,
    encoder: PeerEncoder,
    next_dial: u64,
    prng: Prng,
    /// What was last told to the operator, by member.
    told: BTreeMap<NodeId, String>,
}

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
    }
}

impl Peers {
    /// No links yet.
    pub fn new(own: Introduction, seed: u64) -> Self {
        Self {
            own,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            known: BTreeMap::new(),
            next_member: 0,
            encoder: PeerEncoder::new(),
            next_dial: 0,
            prng: Prng::new(seed),
            told: BTreeMap::new(),
        }
    }

    /// Who this member is.
    pub fn own(&self) -> &Introduction {
        &self.own
    }

    /// The encoder of frames.
    pub fn encoder(&self) -> PeerEncoder {
        self.encoder
    }

    /// The members of the lists that may come to count: dials those that are new, lets go of those that
    /// are gone. Who is in none of them and was given an id before the committed list is removed.
    pub fn set_members<B>(
        &mut self,
        now: Instant,
        (members, next_member): (Vec<&Member>, u64),
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.next_member = next_member;
        self.known = members.iter().map(|member| (member.id, member.data_id)).collect();
        // Who is not listed yet, because the list here is old, is answered all the same.
        let stays = |id: &NodeId| self.known.contains_key(id) || id.get() >= next_member;
        let gone: Vec<NodeId> = self.peers.keys().filter(|id| !stays(id)).copied().collect();
        for id in gone {
            let Some(peer) = self.peers.remove(&id) else { continue };
            for link in peer.links.iter().filter_map(Outbound::link) {
                self.links.remove(&link);
                effects.push(ConsensusEffect::LinkClose { link });
            }
        }
        // Who was removed is told so when it calls again.
        let (known, next) = (&self.known, self.next_member);
        let removed = |id: NodeId| !known.contains_key(&id) && id.get() < next;
        self.links.retain(|&link, socket| {
            let stays = socket.peer.is_none_or(|(id, _)| !removed(id));
            if !stays {
                effects.push(ConsensusEffect::LinkClose { link });
            }
            stays
        });
        for member in members {
            if member.id == self.own.member || member.peer_address.is_empty() {
                continue;
            }
            let links = || [Outbound::new(now), Outbound::new(now)];
            let address = member.peer_address.clone();
            let peer = self
                .peers
                .entry(member.id)
                .or_insert_with(|| Peer { address: address.clone(), links: links() });
            if peer.address != address {
                for link in peer.links.iter().filter_map(Outbound::link) {
                    self.links.remove(&link);
                    effects.push(ConsensusEffect::LinkClose { link });
                }
                *peer = Peer { address, links: links() };
            }
        }
    }

    /// A socket was accepted.
    pub fn accepted(&mut self, now: Instant, link: ConnectionId) {
        self.links.insert(link, Self::link(now, None));
    }

    fn link(now: Instant, dialed: Option<(NodeId, Lane)>) -> Link {
        let splitter = Splitter::between_members();
        Link { dialed, peer: None, splitter, received: BytesMut::new(), opened_at: now }
    }

    /// A dial has ended, with a socket or without.
    pub fn dialed<B>(
        &mut self,
        now: Instant,
        dial: u64,
        link: Option<ConnectionId>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        for (&id, peer) in &mut self.peers {
            for lane in LANES {
                let outbound = &mut peer.links[lane_index(lane)];
                if !matches!(outbound.phase, Phase::Dialing(number) if number == dial) {
                    continue;
                }
                let Some(link) = link else {
                    outbound.phase = Phase::Idle;
                    outbound.at = now.after(outbound.pause);
                    outbound.pause = longer(outbound.pause, &mut self.prng);
                    return;
                };
                outbound.phase = Phase::Greeting(link);
                outbound.at = now.after(HANDSHAKE_TIMEOUT);
                self.links.insert(link, Self::link(now, Some((id, lane))));
                let own = &self.own;
                let hello = PeerHello {
                    version_min: u16::from(VERSION_MIN),
                    version_max: u16::from(VERSION_MAX),
                    cluster: own.cluster,
                    from: own.member,
                    to: id,
                    data_id: own.data_id,
                    start_id: own.start_id,
                    lane,
                    client_address: &own.client_address,
                    peer_address: &own.peer_address,
                    name: &own.name,
                };
                self.say(link, &PeerFrame::Hello(hello), effects);
                return;
            }
        }
        // Nobody wants it any more.
        if let Some(link) = link {
            effects.push(ConsensusEffect::LinkClose { link });
        }
    }

    /// Bytes came in on a link.
    pub fn received<B>(
        &mut self,
        now: Instant,
        link: ConnectionId,
        bytes: BytesMut,
        greeting: Greeting,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(socket) = self.links.get_mut(&link) else { return };
        if socket.received.is_empty() {
            socket.received = bytes;
        } else {
            socket.received.extend_from_slice(&bytes);
        }
        loop {
            let Some(socket) = self.links.get_mut(&link) else { return };
            match socket.splitter.next(&mut socket.received) {
                Ok(Some((header, body))) => {
                    self.take_frame(now, link, header, body, greeting, incoming, effects);
                }
                Ok(None) => return,
                Err(error) => {
                    self.tell_of(link, &format!("sent bytes that are no frame: {error}"), effects);
                    self.close(now, link, incoming, effects);
                    return;
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one frame and two lists")]
    fn take_frame<B>(
        &mut self,
        now: Instant,
        link: ConnectionId,
        header: Header,
        body: Frame,
        greeting: Greeting,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(socket) = self.links.get(&link) else { return };
        match (socket.dialed, socket.peer) {
            (None, Some((peer, _))) => incoming.push(Incoming::Frame { peer, header, body }),
            (None, None) => self.greeted(now, link, &header, &body, greeting, incoming, effects),
            (Some((peer, lane)), _) => {
                self.answered(now, link, (peer, lane), &header, &body, incoming, effects);
            }
        }
    }

    /// The first frame of a link that was accepted.
    #[expect(clippy::too_many_arguments, reason = "the parts of one frame and two lists")]
    fn greeted<B>(
        &mut self,
        now: Instant,
        link: ConnectionId,
        header: &Header,
        body: &Frame,
        greeting: Greeting,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let hello = match PeerFrame::verify(header, body) {
            Ok(PeerFrame::Hello(hello)) => hello,
            Ok(PeerFrame::Join(join)) => {
                let (name, address) = (join.name.to_string(), join.address.to_string());
                incoming.push(Incoming::Join { link, name, address });
                return;
            }
            Ok(_) => {
                let text =
                    format!("the first frame of a link must be a hello, not {:?}", header.kind);
                return self.refuse(now, link, PeerRefusal::Malformed, text, incoming, effects);
            }
            Err(error) => {
                let text = format!("the hello cannot be read: {error}");
                return self.refuse(now, link, PeerRefusal::Malformed, text, incoming, effects);
            }
        };
        if let Err((code, text)) = self.check(&hello) {
            return self.refuse(now, link, code, text, incoming, effects);
        }
        let (from, lane) = (hello.from, hello.lane);
        // An older link of the same member is dead, even if its end has not been noticed here.
        let same = |socket: &Link| socket.peer == Some((from, lane));
        let old = self.links.iter().find(|(_, socket)| same(socket)).map(|(&old, _)| old);
        if let Some(old) = old {
            self.links.remove(&old);
            effects.push(ConsensusEffect::LinkClose { link: old });
        }
        if let Some(socket) = self.links.get_mut(&link) {
            socket.peer = Some((from, lane));
            socket.splitter.agree(VERSION_MAX, PEER_BODY_SIZE_MAX);
        }
        let own = &self.own;
        let welcome = PeerWelcome {
            version: u16::from(VERSION_MAX),
            cluster: own.cluster,
            member: own.member,
            data_id: own.data_id,
            start_id: own.start_id,
            bootstrapped: greeting.last.index > LogIndex::ZERO || greeting.term > Term::ZERO,
            last_index: greeting.last.index,
            last_term: match greeting.last.index {
                LogIndex::ZERO => greeting.term,
                _ => greeting.last.term,
            },
        };
        self.say(link, &PeerFrame::Welcome(welcome), effects);
        incoming.push(Incoming::Met {
            peer: from,
            data_id: hello.data_id,
            client_address: hello.client_address.to_string(),
            name: hello.name.to_string(),
        });
        if !self.known.contains_key(&from) && !hello.peer_address.is_empty() {
            // A member that the list here does not have yet: it could not be answered otherwise.
            let address = hello.peer_address.to_string();
            let links = [Outbound::new(now), Outbound::new(now)];
            self.peers.entry(from).or_insert(Peer { address, links });
        }
        self.restarted(now, from, hello.start_id, incoming, effects);
    }

    /// A member that calls is there: it is dialed without further pause, and links to an earlier start
    /// of it are dead.
    fn restarted<B>(
        &mut self,
        now: Instant,
        id: NodeId,
        start_id: u64,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut dead = Vec::new();
        for outbound in &mut peer.links {
            match outbound.phase {
                Phase::Idle => outbound.at = outbound.at.min(now),
                Phase::Open(link) if outbound.start_id != Some(start_id) => dead.push(link),
                Phase::Open(_) | Phase::Greeting(_) | Phase::Dialing(_) => {}
            }
        }
        for link in dead {
            self.close(now, link, incoming, effects);
        }
    }

    fn check(&self, hello: &PeerHello<'_>) -> Result<(), (PeerRefusal, String)> {
        let own = &self.own;
        let version = u16::from(VERSION_MAX);
        if !(hello.version_min..=hello.version_max).contains(&version) {
            let text = format!(
                "this member speaks version {version} of the protocol between members, the \
                 caller {} to {}; upgrade the older one",
                hello.version_min, hello.version_max
            );
            return Err((PeerRefusal::Version, text));
        }
        if hello.cluster != own.cluster {
            let text = format!(
                "this member is of cluster {:016x}, the caller of {:016x}; check the addresses",
                own.cluster, hello.cluster
            );
            return Err((PeerRefusal::Cluster, text));
        }
        if hello.to != own.member || hello.from == own.member {
            let text = format!(
                "this is member {}, the caller is member {} and looks for member {}; check the \
                 addresses",
                own.member.get(),
                hello.from.get(),
                hello.to.get()
            );
            return Err((PeerRefusal::WrongMember, text));
        }
        match self.known.get(&hello.from) {
            // Ours may be an older list than the caller's: only who was listed once can be removed.
            None if hello.from.get() < self.next_member => {
                let text = format!(
                    "member {} was removed from the cluster; add a new member with an empty data \
                     directory",
                    hello.from.get()
                );
                Err((PeerRefusal::Removed, text))
            }
            Some(&data_id) if differs(data_id, hello.data_id) => {
                let text = format!(
                    "member {} comes with another data directory than before: what it has \
                     acknowledged may be lost; replace the member",
                    hello.from.get()
                );
                Err((PeerRefusal::DataChanged, text))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn refuse<B>(
        &mut self,
        now: Instant,
        link: ConnectionId,
        code: PeerRefusal,
        message: String,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        self.say(link, &PeerFrame::Refused(PeerRefused { code, message: &message }), effects);
        self.close(now, link, incoming, effects);
    }

    /// A frame on a link that this member dialed: the answer to its hello.
    #[expect(clippy::too_many_arguments, reason = "the parts of one frame and two lists")]
    fn answered<B>(
        &mut self,
        now: Instant,
        link: ConnectionId,
        (peer, lane): (NodeId, Lane),
        header: &Header,
        body: &Frame,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        match PeerFrame::verify(header, body) {
            Ok(PeerFrame::Welcome(welcome))
                if self.known.get(&peer).is_some_and(|known| differs(*known, welcome.data_id)) =>
            {
                let text = "comes with another data directory than before; replace the member";
                self.tell_of(link, text, effects);
                self.close(now, link, incoming, effects);
            }
            Ok(PeerFrame::Welcome(welcome))
                if welcome.member == peer
                    && welcome.cluster == self.own.cluster
                    && welcome.version == u16::from(VERSION_MAX) =>
            {
                let Some(known) = self.peers.get_mut(&peer) else { return };
                let outbound = &mut known.links[lane_index(lane)];
                outbound.phase = Phase::Open(link);
                outbound.pause = PAUSE_MIN;
                outbound.blocked_since = None;
                outbound.start_id = Some(welcome.start_id);
                self.told.remove(&peer);
                let PeerWelcome { last_index: index, last_term: term, .. } = welcome;
                // No entry has no term: there it is that of the member.
                let last = match index {
                    LogIndex::ZERO => raft::Position::default(),
                    index => raft::Position { index, term },
                };
                let greeting = Greeting { last, term };
                incoming.push(Incoming::Welcomed { peer, lane, greeting });
            }
            Ok(PeerFrame::Refused(refusal)) => {
                let text = refusal.message.to_string();
                match refusal.code {
                    PeerRefusal::Removed | PeerRefusal::DataChanged => {
                        incoming.push(Incoming::Excluded(text));
                    }
                    _ => self.tell_of(link, &format!("refuses this member: {text}"), effects),
                }
                self.close(now, link, incoming, effects);
            }
            Ok(_) | Err(_) => {
                self.tell_of(link, "answered a hello with something else", effects);
                self.close(now, link, incoming, effects);
            }
        }
    }

    /// Sends a frame that is never too large.
    pub fn say<B>(
        &self,
        link: ConnectionId,
        frame: &PeerFrame<'_>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let mut bytes = Vec::new();
        self.encoder.encode(&mut bytes, frame).expect("numbers and a few names fit a frame");
        effects.push(ConsensusEffect::LinkSend { link, bytes });
    }

    /// Tells the operator something about the member behind a link, once.
    fn tell_of<B>(
        &mut self,
        link: ConnectionId,
        text: &str,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let Some(socket) = self.links.get(&link) else { return };
        let who = socket.dialed.or(socket.peer).map_or(NodeId::new(0), |(peer, _)| peer);
        let address = self.peers.get(&who).map_or("an address", |peer| &peer.address);
        let text = format!("member {} at {address} {text}", who.get());
        if self.told.get(&who) != Some(&text) {
            self.told.insert(who, text.clone());
            effects.push(ConsensusEffect::Tell(text));
        }
    }

    /// The links that a member has opened to this one.
    pub fn inbound_of(&self, peer: NodeId) -> Vec<ConnectionId> {
        let links = self.links.iter();
        let mine = links.filter(|(_, link)| link.peer.is_some_and(|(id, _)| id == peer));
        mine.map(|(&link, _)| link).collect()
    }

    /// Closes a link from this side.
    pub fn close<B>(
        &mut self,
        now: Instant,
        link: ConnectionId,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        if self.links.contains_key(&link) {
            effects.push(ConsensusEffect::LinkClose { link });
            self.closed(now, link, incoming);
        }
    }

    /// A link is closed.
    pub fn closed(&mut self, now: Instant, link: ConnectionId, incoming: &mut Vec<Incoming>) {
        let Some(socket) = self.links.remove(&link) else { return };
        let Some((id, lane)) = socket.dialed else {
            if let Some((peer, Lane::Control)) = socket.peer {
                incoming.push(Incoming::Gone { peer });
            }
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let outbound = &mut peer.links[lane_index(lane)];
        if outbound.link() != Some(link) {
            return;
        }
        if matches!(outbound.phase, Phase::Open(_)) {
            incoming.push(Incoming::Lost { peer: id, lane });
        }
        outbound.phase = Phase::Idle;
        outbound.blocked_since = None;
        outbound.at = now.after(outbound.pause);
        outbound.pause = longer(outbound.pause, &mut self.prng);
    }

    /// The socket of a link has taken a part of what it has, or has taken all.
    pub fn set_blocked(&mut self, now: Instant, link: ConnectionId, blocked: bool) {
        let Some(socket) = self.links.get(&link) else { return };
        let Some((id, lane)) = socket.dialed else { return };
        if let Some(peer) = self.peers.get_mut(&id) {
            let since = &mut peer.links[lane_index(lane)].blocked_since;
            *since = blocked.then_some(now);
        }
    }

    /// The link to a member on this lane, if it is open and takes bytes.
    pub fn open(&self, to: NodeId, lane: Lane) -> Option<ConnectionId> {
        let outbound = &self.peers.get(&to)?.links[lane_index(lane)];
        match outbound.phase {
            Phase::Open(link) if lane == Lane::Bulk || outbound.blocked_since.is_none() => {
                Some(link)
            }
            _ => None,
        }
    }

    /// Dials who is to be dialed and gives up what takes too long.
    pub fn tick<B>(
        &mut self,
        now: Instant,
        incoming: &mut Vec<Incoming>,
        effects: &mut Vec<ConsensusEffect<B>>,
    ) {
        let mut overdue = Vec::new();
        for peer in self.peers.values_mut() {
            for outbound in &mut peer.links {
                match outbound.phase {
                    Phase::Idle if now >= outbound.at => {
                        self.next_dial += 1;
                        let dial = self.next_dial;
                        outbound.phase = Phase::Dialing(dial);
                        outbound.at = now.after(HANDSHAKE_TIMEOUT);
                        let address = peer.address.clone();
                        effects.push(ConsensusEffect::Dial { dial, address });
                    }
                    Phase::Dialing(_) if now >= outbound.at => {
                        outbound.phase = Phase::Idle;
                        outbound.at = now.after(outbound.pause);
                        outbound.pause = longer(outbound.pause, &mut self.prng);
                    }
                    Phase::Greeting(link) if now >= outbound.at => overdue.push(link),
                    Phase::Open(link)
                        if outbound
                            .blocked_since
                            .is_some_and(|since| now.since(since) > BLOCKED_TIMEOUT) =>
                    {
                        overdue.push(link);
                    }
                    Phase::Idle | Phase::Dialing(_) | Phase::Greeting(_) | Phase::Open(_) => {}
                }
            }
        }
        let silent = |socket: &Link| {
            socket.dialed.is_none()
                && socket.peer.is_none()
                && now.since(socket.opened_at) > HANDSHAKE_TIMEOUT
        };
        overdue.extend(self.links.iter().filter(|(_, socket)| silent(socket)).map(|(&l, _)| l));
        for link in overdue {
            self.close(now, link, incoming, effects);
        }
    }

    /// When it wants a turn without an event.
    pub fn deadline(&self) -> Option<Instant> {
        let outbound = self.peers.values().flat_map(|peer| &peer.links);
        let dialed = outbound.filter_map(|outbound| match outbound.phase {
            Phase::Idle | Phase::Dialing(_) | Phase::Greeting(_) => Some(outbound.at),
            Phase::Open(_) => outbound.blocked_since.map(|since| since.after(BLOCKED_TIMEOUT)),
        });
        let waiting = self.links.values().filter(|s| s.dialed.is_none() && s.peer.is_none());
        let accepted = waiting.map(|socket| socket.opened_at.after(HANDSHAKE_TIMEOUT));
        dialed.chain(accepted).min()
    }
}

/// Whether the name of a data directory is known and is another one.
fn differs(known: FileId, named: FileId) -> bool {
    known != FileId::new(0) && known != named
}

/// Twice as long, up to the longest, and up to a half more.
fn longer(pause: Duration, prng: &mut Prng) -> Duration {
    let nanos = (pause.as_nanos() * 2).min(PAUSE_MAX.as_nanos());
    Duration::from_nanos(nanos + prng.below(nanos / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::MemberRole;

    const LINK: ConnectionId = ConnectionId { slot: 1, generation: 1 };

    /// Member 1, which has dialed member 2 of a known data directory on the bulk lane and is welcomed.
    fn linked(now: Instant, data_id: FileId) -> Peers {
        let introduction = |member: u64| Introduction {
            cluster: 9,
            member: NodeId::new(member),
            data_id: FileId::new(u128::from(member)),
            start_id: member,
            client_address: String::new(),
            peer_address: String::new(),
            name: String::new(),
        };
        let member = |id: u64| Member {
            id: NodeId::new(id),
            name: format!("m{id}"),
            peer_address: format!("127.0.0.1:{id}"),
            client_address: String::new(),
            data_id: FileId::new(u128::from(id)),
            role: MemberRole::Voter,
        };
        let members = [member(1), member(2)];
        let (mut peers, mut effects) = (Peers::new(introduction(1), 1), Vec::new());
        let mut incoming = Vec::new();
        peers.set_members(now, (members.iter().collect(), 3), &mut effects);
        peers.tick::<Vec<u8>>(now, &mut incoming, &mut effects);
        // The control link is dialed first.
        peers.dialed::<Vec<u8>>(now, 2, Some(LINK), &mut effects);
        let welcome = PeerWelcome {
            version: u16::from(VERSION_MAX),
            cluster: 9,
            member: NodeId::new(2),
            data_id,
            ..PeerWelcome::default()
        };
        let mut bytes = Vec::new();
        let frame = PeerFrame::Welcome(welcome);
        peers.encoder().encode(&mut bytes, &frame).expect("numbers fit a frame");
        let greeting = Greeting { last: raft::Position::default(), term: Term::ZERO };
        let bytes = BytesMut::from(&bytes[..]);
        peers.received::<Vec<u8>>(now, LINK, bytes, greeting, &mut incoming, &mut effects);
        peers
    }

    #[test]
    fn a_member_that_comes_with_other_data_is_sent_nothing() {
        let now = Instant::from_nanos(1);
        for (data_id, open) in [(2, Some(LINK)), (7, None)] {
            let peers = linked(now, FileId::new(data_id));
            assert_eq!(peers.open(NodeId::new(2), Lane::Bulk), open);
        }
    }

    /// A bulk link under load has bytes that wait all the time.
    #[test]
    fn a_link_whose_socket_takes_bytes_stays_and_one_whose_takes_none_is_closed() {
        let mut now = Instant::from_nanos(1);
        let mut peers = linked(now, FileId::new(2));
        let is_open = |peers: &mut Peers, now| {
            peers.tick::<Vec<u8>>(now, &mut Vec::new(), &mut Vec::new());
            peers.open(NodeId::new(2), Lane::Bulk) == Some(LINK)
        };
        for _ in 0..10 {
            peers.set_blocked(now, LINK, true);
            now = now.after(Duration::from_millis(1_000));
            assert!(is_open(&mut peers, now), "it takes bytes");
        }
        now = now.after(BLOCKED_TIMEOUT);
        assert!(!is_open(&mut peers, now), "it takes none");
    }
}
