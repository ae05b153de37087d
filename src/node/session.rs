//! One client connection as the protocol sees it: handshake, credits, what waits to be sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use base::limits::{
    CONNECTION_READS_MAX, CONNECTION_REQUESTS_MAX, PARTIAL_PROGRESS_SIZE, RECEIVE_CHUNK_SIZE,
};
use base::{Instant, Ticket};
use bytes::BytesMut;
use wire::Splitter;

use crate::gauges::Bound;
use crate::message::ReadRequest;

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing but a `Hello` is taken.
    Handshake,
    /// Requests are taken.
    Open,
    /// Nothing is taken any more; the socket closes when what is queued has been sent.
    Closing,
}

/// The state of one connection.
pub struct Session {
    /// Tells this use of the slot from others.
    pub generation: u32,
    /// How far it has come.
    pub phase: Phase,
    /// When the connection was accepted.
    pub accepted_at: Instant,
    /// Cuts frames out of the bytes received.
    pub splitter: Splitter,
    /// Bytes received that do not make a frame yet.
    pub received: BytesMut,
    /// Whether they lie in memory of their own, not in a chunk that is shared.
    is_own: bool,
    /// Bytes of the memory that they keep alive.
    pinned: usize,
    /// What of that is counted in the sum over all connections.
    pub counted: usize,
    /// Since when the frame at their front has got no further, and how far it had got.
    pub partial: Option<(Instant, usize)>,
    /// Since when the frame at their front has been coming in, waiting included.
    pub begun: Option<Instant>,
    /// It is not read from before others have completed their frames.
    pub starved: bool,
    /// Its peer sends nothing more, but may still read.
    pub ended: bool,
    /// Frames to send at the end of the turn.
    pub replies: Vec<u8>,
    /// Whether the connection is listed as having something to send.
    pub dirty: bool,
    /// Requests taken in and not answered.
    requests: usize,
    /// Their bytes.
    bytes: usize,
    /// Bytes that may be unanswered: reading stops at half of that, so that what has come in by then
    /// fits as well.
    bytes_max: usize,
    /// Reading has been stopped because the credits are used up or the peer does not read.
    pub paused: bool,
    /// Since when a blocked socket has taken no byte.
    pub blocked_since: Option<Instant>,
    /// Bytes sent since then.
    pub unsent: usize,
    /// Long reads that go on when the socket takes bytes again.
    pub stalled_reads: Vec<Ticket>,
    /// Reads that the store works on.
    pub reads_running: usize,
    /// Reads that wait for one of those to end, with whether consensus is asked first.
    pub reads_waiting: VecDeque<(ReadRequest, bool)>,
    /// Its watches were ended because it does not read.
    pub was_warned: bool,
}

impl Session {
    /// A connection that has just been accepted, with credits for `bytes_max` bytes.
    pub fn new(
        generation: u32,
        accepted_at: Instant,
        splitter: Splitter,
        bytes_max: usize,
    ) -> Self {
        Self {
            generation,
            phase: Phase::Handshake,
            accepted_at,
            splitter,
            received: BytesMut::new(),
            is_own: false,
            pinned: 0,
            counted: 0,
            partial: None,
            begun: None,
            starved: false,
            ended: false,
            replies: Vec::new(),
            dirty: false,
            requests: 0,
            bytes: 0,
            bytes_max,
            paused: false,
            blocked_since: None,
            unsent: 0,
            stalled_reads: Vec::new(),
            reads_running: 0,
            reads_waiting: VecDeque::new(),
            was_warned: false,
        }
    }

    /// Takes the credit of one request of `size` bytes.
    pub fn take_credit(&mut self, size: usize) {
        self.requests += 1;
        self.bytes += size;
    }

    /// Gives the credit of one request back.
    pub fn return_credit(&mut self, size: usize) {
        assert!(self.requests > 0 && self.bytes >= size, "a credit came back twice");
        self.requests -= 1;
        self.bytes -= size;
    }

    /// Whether another request of any size may be taken in.
    pub fn has_credit(&self) -> bool {
        self.requests < CONNECTION_REQUESTS_MAX
            && (self.requests == 0 || self.bytes < self.bytes_max / 2)
    }

    /// Which limit keeps it from taking another one in, if one does.
    pub fn credit_met(&self) -> Option<Bound> {
        match self.requests {
            _ if self.has_credit() => None,
            CONNECTION_REQUESTS_MAX.. => Some(Bound::ConnectionRequests),
            _ => Some(Bound::ConnectionBytes),
        }
    }

    /// Whether another read may be given to the store.
    pub fn may_read(&self) -> bool {
        self.reads_running < CONNECTION_READS_MAX && self.blocked_since.is_none()
    }

    /// Requests that have not been answered.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends received bytes; free of copies when they follow the earlier ones in memory.
    pub fn receive(&mut self, bytes: BytesMut) {
        if self.received.is_empty() {
            self.received = bytes;
            self.is_own = false;
        } else if !self.is_own && self.received.as_ptr_range().end == bytes.as_ptr() {
            self.received.unsplit(bytes);
        } else {
            let size = self.received.len() + bytes.len();
            if !self.is_own || self.received.capacity() < size {
                // Doubling would take twice the memory that the sum over all connections allows.
                let mut own = BytesMut::with_capacity(size + size / 4);
                own.extend_from_slice(&self.received);
                self.received = own;
                self.is_own = true;
                self.pinned = 0;
            }
            self.received.extend_from_slice(&bytes);
        }
    }

    /// Lets go of the memory of the bytes received when they are few beside it: many connections share
    /// a chunk, and one that is slow must not keep it alive.
    pub fn release_chunk(&mut self) {
        let size = self.received.len();
        self.pinned = match (size, self.is_own) {
            (0, _) => 0,
            (_, false) => RECEIVE_CHUNK_SIZE,
            // Frames that were cut from it keep all of it.
            (_, true) => self.pinned.max(self.received.capacity()),
        };
        if size == 0 {
            self.received = BytesMut::new();
            self.is_own = false;
        } else if size < self.pinned / 4 {
            self.received = BytesMut::from(&self.received[..]);
            self.is_own = true;
            self.pinned = self.received.capacity();
        }
    }

    /// Bytes of memory that the bytes received keep alive, as of the last [`Self::release_chunk`].
    pub fn pinned(&self) -> usize {
        self.pinned
    }

    /// Notes how far the frame at the front has got.
    pub fn note_progress(&mut self, now: Instant) {
        let size = self.received.len();
        self.partial = match self.partial {
            _ if size == 0 => None,
            Some((since, before)) if size < before + PARTIAL_PROGRESS_SIZE => Some((since, before)),
            Some(_) | None => Some((now, size)),
        };
    }
}
