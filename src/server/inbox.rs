//! The queue through which everything reaches the roles of one executor.
//!
//! Tasks push events, the core loop takes them; pushing wakes the loop once. Lists are moved out of
//! their cell and back, so nothing is ever borrowed across a call.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use glommio::net::TcpStream;
use node::{ConsensusEvent, ReactorEvent, StoreEvent};

use crate::disk::DiskFile;
use crate::http::Native;

/// A list that many push to and one empties.
struct List<T>(Cell<Vec<T>>);

impl<T> List<T> {
    fn push(&self, item: T) {
        let mut items = self.0.take();
        items.push(item);
        self.0.set(items);
    }

    fn append(&self, more: &mut Vec<T>) {
        let mut items = self.0.take();
        items.append(more);
        self.0.set(items);
    }

    /// Swaps the list for `items`, which must be empty: its memory is used again.
    fn take(&self, items: &mut Vec<T>) {
        debug_assert!(items.is_empty(), "what was taken before is still there");
        let taken = self.0.replace(std::mem::take(items));
        *items = taken;
    }

    fn is_empty(&self) -> bool {
        let items = self.0.take();
        let empty = items.is_empty();
        self.0.set(items);
        empty
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Cell::new(Vec::new()))
    }
}

/// Events for the roles of one executor, in order of arrival for each role.
#[derive(Default)]
pub struct Inbox {
    reactor: List<ReactorEvent>,
    consensus: List<ConsensusEvent>,
    store: List<StoreEvent>,
    accepted: List<TcpStream>,
    /// Connections inside this process that have something to say.
    natives: List<Rc<Native>>,
    /// Sockets of other members: accepted, or dialed under a number, then none if nobody answered.
    peers: List<(Option<u64>, Option<TcpStream>)>,
    /// Second page files that have been made, by the number of their transfer.
    incoming: List<(u64, Rc<DiskFile>)>,
    waker: Cell<Option<Waker>>,
    /// Something was pushed, or the ticker ran, since the loop last looked.
    signalled: Cell<bool>,
}

impl Inbox {
    /// Queues an event for the reactor.
    pub fn push_reactor(&self, event: ReactorEvent) {
        self.reactor.push(event);
        self.signal();
    }

    /// Queues an event for consensus.
    pub fn push_consensus(&self, event: ConsensusEvent) {
        self.consensus.push(event);
        self.signal();
    }

    /// Queues an event for the store.
    pub fn push_store(&self, event: StoreEvent) {
        self.store.push(event);
        self.signal();
    }

    /// Queues a socket that was accepted.
    pub fn push_accepted(&self, stream: TcpStream) {
        self.accepted.push(stream);
        self.signal();
    }

    /// Queues a connection inside this process that has something to say.
    pub fn push_native(&self, native: Rc<Native>) {
        self.natives.push(native);
        self.signal();
    }

    /// Takes the connections that have something to say into `natives`, which must be empty.
    pub fn take_natives(&self, natives: &mut Vec<Rc<Native>>) {
        self.natives.take(natives);
    }

    /// Queues a socket of another member, and the number of its dial.
    pub fn push_peer(&self, dial: Option<u64>, stream: Option<TcpStream>) {
        self.peers.push((dial, stream));
        self.signal();
    }

    /// Queues a second page file that has been made.
    pub fn push_incoming(&self, transfer: u64, file: Rc<DiskFile>) {
        self.incoming.push((transfer, file));
        self.signal();
    }

    /// Takes the page files that have been made into `files`, which must be empty.
    pub fn take_incoming(&self, files: &mut Vec<(u64, Rc<DiskFile>)>) {
        self.incoming.take(files);
    }

    /// Queues what the core loop itself brings for consensus, in order, without a signal.
    pub fn append_consensus(&self, events: &mut Vec<ConsensusEvent>) {
        self.consensus.append(events);
    }

    /// Takes the sockets of other members into `streams`, which must be empty.
    pub fn take_peers(&self, streams: &mut Vec<(Option<u64>, Option<TcpStream>)>) {
        self.peers.take(streams);
    }

    /// Makes the loop take a turn, with or without events.
    pub fn signal(&self) {
        if !self.signalled.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Queues what the core loop itself brings for the reactor, in order, without a signal.
    pub fn append_reactor(&self, events: &mut Vec<ReactorEvent>) {
        self.reactor.append(events);
    }

    /// Takes what is queued for the reactor into `events`, which must be empty.
    pub fn take_reactor(&self, events: &mut Vec<ReactorEvent>) {
        self.reactor.take(events);
    }

    /// Takes what is queued for consensus into `events`, which must be empty.
    pub fn take_consensus(&self, events: &mut Vec<ConsensusEvent>) {
        self.consensus.take(events);
    }

    /// Takes what is queued for the store into `events`, which must be empty.
    pub fn take_store(&self, events: &mut Vec<StoreEvent>) {
        self.store.take(events);
    }

    /// Takes the sockets that were accepted into `streams`, which must be empty.
    pub fn take_accepted(&self, streams: &mut Vec<TcpStream>) {
        self.accepted.take(streams);
    }

    /// Whether nothing is queued for any role.
    pub fn is_empty(&self) -> bool {
        self.reactor.is_empty() && self.consensus.is_empty() && self.store.is_empty()
    }

    /// Whether there was a signal since the last call; wakes the task of `context` at the next one.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.signalled.replace(false) {
            Poll::Ready(())
        } else {
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        }
    }
}
