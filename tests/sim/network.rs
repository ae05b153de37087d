//! The network: sockets between machines. Each direction of a socket is a stream of bytes in order, with
//! delay; a partition holds its bytes back, a break loses the rest of them. Within a stream nothing is
//! doubled or reordered, for a stream is what members and clients are given by the kernel; across
//! streams everything happens in any order.

use std::collections::{BTreeMap, VecDeque};

use base::{ConnectionId, Prng};

use crate::plan::{MS, SECOND, SEND_BUFFER};

/// Machines that the network knows: members, then clients.
const HOSTS: usize = 64;

/// The first client's machine.
pub const CLIENT_HOSTS: usize = 32;

/// The end of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A link of a member to another one.
    Link { node: usize, life: u32, id: ConnectionId },
    /// A client's connection, as its member sees it.
    Served { node: usize, life: u32, id: ConnectionId },
    /// A client.
    Client { client: usize },
}

impl End {
    fn host(self) -> usize {
        match self {
            Self::Link { node, .. } | Self::Served { node, .. } => node,
            Self::Client { client } => CLIENT_HOSTS + client,
        }
    }

    /// Whether it belongs to this life of a member.
    pub fn is_of(self, wanted: usize, wanted_life: u32) -> bool {
        match self {
            Self::Link { node, life, .. } | Self::Served { node, life, .. } => {
                node == wanted && life == wanted_life
            }
            Self::Client { .. } => false,
        }
    }
}

/// What a stream carries.
#[derive(Debug)]
pub enum Item {
    Bytes(Vec<u8>),
    End,
}

#[derive(Default, Debug)]
struct Stream {
    items: VecDeque<(u64, Item)>,
    bytes: usize,
    last_at: u64,
    /// A delivery is scheduled.
    active: bool,
    /// The sender has closed it.
    ended: bool,
    /// Nobody will ever take anything.
    dead: bool,
    /// The sender was told that the socket takes no more.
    blocked: bool,
}

#[derive(Debug)]
struct Socket {
    ends: [End; 2],
    streams: [Stream; 2],
}

/// What a delivery came to.
pub struct Delivery {
    pub to: End,
    pub item: Item,
    /// The sender's socket takes bytes again.
    pub drained: Option<End>,
}

/// All sockets.
pub struct Network {
    sockets: BTreeMap<u64, Socket>,
    next: u64,
    /// How many partitions stand between two machines.
    walls: Vec<[u16; HOSTS]>,
    /// Mean delay.
    pub latency: u64,
    /// Bytes on their way to a client beyond which its socket takes no more for now.
    client_buffer: usize,
    /// Machines whose packets are late, until when.
    pub slow: Vec<u64>,
    /// When the last of those has heard that its link broke whose link did.
    pub heard_until: u64,
    /// Deliveries to schedule: time, socket, direction.
    pub due: Vec<(u64, u64, usize)>,
}

impl Network {
    /// Without sockets.
    pub fn new(latency: u64, client_buffer: usize) -> Self {
        Self {
            client_buffer,
            heard_until: 0,
            sockets: BTreeMap::new(),
            next: 0,
            walls: vec![[0; HOSTS]; HOSTS],
            latency,
            slow: vec![0; HOSTS],
            due: Vec::new(),
        }
    }

    /// A new socket; the first end is the one that dialed.
    pub fn open(&mut self, ends: [End; 2]) -> u64 {
        self.next += 1;
        let streams = Default::default();
        self.sockets.insert(self.next, Socket { ends, streams });
        self.next
    }

    /// Which end of a socket this is.
    fn side(&self, socket: u64, end: End) -> Option<usize> {
        self.sockets.get(&socket)?.ends.iter().position(|other| *other == end)
    }

    /// The other end of a socket.
    pub fn other(&self, socket: u64, end: End) -> Option<End> {
        let side = self.side(socket, end)?;
        Some(self.sockets[&socket].ends[1 - side])
    }

    /// Whether packets get from one machine to another.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        self.walls[from][to] == 0
    }

    fn delay(&self, now: u64, from: usize, to: usize, prng: &mut Prng) -> u64 {
        let mut delay = self.latency / 2 + prng.below(self.latency + 1);
        if prng.one_in(50) {
            delay += prng.below(10 * self.latency);
        }
        if self.slow[from] > now || self.slow[to] > now {
            delay += prng.below(80 * MS);
        }
        delay
    }

    fn push(
        &mut self,
        now: u64,
        socket: u64,
        side: usize,
        item: Item,
        extra: u64,
        prng: &mut Prng,
    ) {
        let Some(known) = self.sockets.get(&socket) else { return };
        let (from, to) = (known.ends[side].host(), known.ends[1 - side].host());
        let delay = self.delay(now, from, to, prng) + extra;
        let Some(known) = self.sockets.get_mut(&socket) else { return };
        let stream = &mut known.streams[side];
        let at = stream.last_at.max(now + delay);
        stream.last_at = at;
        stream.bytes += match &item {
            Item::Bytes(bytes) => bytes.len(),
            Item::End => 0,
        };
        stream.items.push_back((at, item));
        if !stream.active && !stream.dead {
            stream.active = true;
            self.due.push((at, socket, side));
        }
    }

    /// Sends; true if the socket takes no more for now, said once.
    pub fn send(
        &mut self,
        now: u64,
        socket: u64,
        from: End,
        bytes: Vec<u8>,
        prng: &mut Prng,
    ) -> bool {
        let Some(side) = self.side(socket, from) else { return false };
        if self.sockets[&socket].streams[side].ended {
            return false;
        }
        self.push(now, socket, side, Item::Bytes(bytes), 0, prng);
        let Some(known) = self.sockets.get_mut(&socket) else { return false };
        let max = buffer(known.ends[1 - side], self.client_buffer);
        let stream = &mut known.streams[side];
        let blocks = stream.bytes > max && !stream.blocked;
        stream.blocked |= blocks;
        blocks
    }

    /// One end closes: what was sent before still goes out, what comes in is not looked at.
    pub fn close(&mut self, now: u64, socket: u64, from: End, prng: &mut Prng) {
        let Some(side) = self.side(socket, from) else { return };
        self.finish(now, socket, side, 0, prng);
        if let Some(known) = self.sockets.get_mut(&socket) {
            let is_heard = known.streams[side].dead;
            let back = &mut known.streams[1 - side];
            if back.ended && is_heard {
                // Both have closed it, or heard that it broke.
                self.sockets.remove(&socket);
                return;
            }
            back.dead = true;
            back.items.clear();
        }
    }

    fn finish(&mut self, now: u64, socket: u64, side: usize, extra: u64, prng: &mut Prng) {
        let Some(known) = self.sockets.get_mut(&socket) else { return };
        if !known.streams[side].ended {
            known.streams[side].ended = true;
            self.push(now, socket, side, Item::End, extra, prng);
        }
    }

    /// The next item of a stream arrives, unless something stands between.
    pub fn deliver(&mut self, now: u64, socket: u64, side: usize) -> Option<Delivery> {
        let known = self.sockets.get_mut(&socket)?;
        let (from, to) = (known.ends[side], known.ends[1 - side]);
        let is_open = self.walls[from.host()][to.host()] == 0;
        let stream = &mut known.streams[side];
        stream.active = false;
        if !is_open || stream.dead {
            return None;
        }
        let (_, item) = stream.items.pop_front()?;
        if let Item::Bytes(bytes) = &item {
            stream.bytes -= bytes.len();
        }
        let max = buffer(to, self.client_buffer);
        let drained = (stream.blocked && stream.bytes < max / 4).then_some(from);
        stream.blocked &= drained.is_none();
        if let Some((at, _)) = stream.items.front() {
            stream.active = true;
            self.due.push(((*at).max(now), socket, side));
        }
        if matches!(item, Item::End) {
            let back = &mut known.streams[1 - side];
            if back.ended && !back.dead {
                // It broke: the other end is still to hear of it.
                known.streams[side].dead = true;
            } else {
                self.sockets.remove(&socket);
            }
        }
        Some(Delivery { to, item, drained })
    }

    /// A socket breaks: each direction loses what is behind some point, and both ends hear of it
    /// sooner or later.
    pub fn sever(&mut self, now: u64, socket: u64, prng: &mut Prng) {
        for side in 0..2 {
            if let Some(known) = self.sockets.get_mut(&socket) {
                lose_suffix(&mut known.streams[side], prng);
            }
            let extra = if prng.one_in(4) { prng.below(3 * SECOND) } else { prng.below(5 * MS) };
            self.heard_until = self.heard_until.max(now + extra);
            self.finish(now, socket, side, extra, prng);
        }
    }

    /// Breaks a random socket that lives.
    pub fn sever_any(&mut self, now: u64, prng: &mut Prng) -> Option<u64> {
        let count = self.sockets.len() as u64;
        if count == 0 {
            return None;
        }
        let place = usize::try_from(prng.below(count)).expect("few sockets");
        let socket = *self.sockets.keys().nth(place)?;
        self.sever(now, socket, prng);
        Some(socket)
    }

    /// A process has gone. Its peers hear of it at once, or much later if the machine has gone too.
    pub fn process_gone(
        &mut self,
        now: u64,
        node: usize,
        life: u32,
        with_power: bool,
        prng: &mut Prng,
    ) {
        let mut of: Vec<(u64, usize)> = Vec::new();
        for (&socket, known) in &self.sockets {
            for (side, end) in known.ends.iter().enumerate() {
                if end.is_of(node, life) {
                    of.push((socket, side));
                }
            }
        }
        for (socket, side) in of {
            if let Some(known) = self.sockets.get_mut(&socket) {
                lose_suffix(&mut known.streams[side], prng);
                let back = &mut known.streams[1 - side];
                back.dead = true;
                back.items.clear();
            }
            let extra = if with_power { prng.below(4 * SECOND) } else { prng.below(MS) };
            self.heard_until = self.heard_until.max(now + extra);
            self.finish(now, socket, side, extra, prng);
        }
    }

    /// Puts a wall between two machines, in one direction.
    pub fn wall(&mut self, from: usize, to: usize) {
        self.walls[from][to] += 1;
    }

    /// Takes it away.
    pub fn unwall(&mut self, now: u64, from: usize, to: usize) {
        self.walls[from][to] = self.walls[from][to].saturating_sub(1);
        if self.walls[from][to] == 0 {
            self.resume(now, from, to);
        }
    }

    /// Takes all of them away.
    pub fn heal(&mut self, now: u64) {
        for from in 0..HOSTS {
            for to in 0..HOSTS {
                if self.walls[from][to] > 0 {
                    self.walls[from][to] = 0;
                    self.resume(now, from, to);
                }
            }
        }
        self.slow.fill(0);
    }

    fn resume(&mut self, now: u64, from: usize, to: usize) {
        for (&socket, known) in &mut self.sockets {
            for side in 0..2 {
                if known.ends[side].host() != from || known.ends[1 - side].host() != to {
                    continue;
                }
                let stream = &mut known.streams[side];
                if !stream.active && !stream.dead && !stream.items.is_empty() {
                    stream.active = true;
                    self.due.push((now + MS, socket, side));
                }
            }
        }
    }
}

/// Bytes that a socket to this end takes.
fn buffer(to: End, client: usize) -> usize {
    if matches!(to, End::Client { .. }) { client } else { SEND_BUFFER }
}

fn lose_suffix(stream: &mut Stream, prng: &mut Prng) {
    if stream.ended {
        return;
    }
    let keep = usize::try_from(prng.below(stream.items.len() as u64 + 1)).expect("few items");
    for (_, item) in stream.items.drain(keep..) {
        if let Item::Bytes(bytes) = item {
            stream.bytes -= bytes.len();
        }
    }
    // A part of a frame may have got through.
    if let Some((_, Item::Bytes(bytes))) = stream.items.back_mut() {
        let kept = usize::try_from(prng.below(bytes.len() as u64 + 1)).expect("a frame is small");
        stream.bytes -= bytes.len() - kept;
        bytes.truncate(kept);
    }
}
