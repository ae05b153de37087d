//! Links between executors: one bounded channel for each ordered pair of them, with one sending task.
//!
//! A message for a role of the same executor goes straight into its inbox list. For another executor
//! it goes into the list of the link's sending task, so that performing an effect never waits; what
//! may be on its way is bounded by the credits of the roles.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use base::ReactorId;
use glommio::channels::shared_channel::{SharedReceiver, SharedSender};
use node::{ConsensusEvent, ReactorEvent, StoreEvent};

use crate::inbox::Inbox;

/// Messages that a channel holds before its sending task waits.
pub const CHANNEL_SIZE: usize = 1024;

/// A message for a role on another executor.
pub enum Message {
    /// For the reactor there.
    Reactor(ReactorEvent),
    /// For consensus there.
    Consensus(ConsensusEvent),
    /// For the store there.
    Store(StoreEvent),
}

/// What waits for the sending task of one link.
#[derive(Default)]
pub struct Outbox {
    messages: Cell<Vec<Message>>,
    waker: Cell<Option<Waker>>,
}

impl Outbox {
    fn push(&self, message: Message) {
        let mut messages = self.messages.take();
        messages.push(message);
        self.messages.set(messages);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn take(&self) -> Vec<Message> {
        poll_fn(|context| {
            let messages = self.messages.take();
            if messages.is_empty() {
                self.waker.set(Some(context.waker().clone()));
                Poll::Pending
            } else {
                Poll::Ready(messages)
            }
        })
        .await
    }
}

/// Where the messages of one executor go, by role.
#[derive(Clone)]
pub struct Links {
    /// The link to the executor of each reactor; none for the reactor here.
    pub reactors: Vec<Option<Rc<Outbox>>>,
    /// The link to the executor of consensus; none if it is here.
    pub consensus: Option<Rc<Outbox>>,
    /// The link to the executor of the store; none if it is here.
    pub store: Option<Rc<Outbox>>,
}

impl Links {
    /// Sends to a reactor.
    pub fn to_reactor(&self, inbox: &Inbox, reactor: ReactorId, event: ReactorEvent) {
        match &self.reactors[usize::from(reactor.get())] {
            None => inbox.push_reactor(event),
            Some(outbox) => outbox.push(Message::Reactor(event)),
        }
    }

    /// Sends to consensus.
    pub fn to_consensus(&self, inbox: &Inbox, event: ConsensusEvent) {
        match &self.consensus {
            None => inbox.push_consensus(event),
            Some(outbox) => outbox.push(Message::Consensus(event)),
        }
    }

    /// Sends to the store.
    pub fn to_store(&self, inbox: &Inbox, event: StoreEvent) {
        match &self.store {
            None => inbox.push_store(event),
            Some(outbox) => outbox.push(Message::Store(event)),
        }
    }
}

/// Moves what is pushed into `outbox` to the other executor, in order. Runs until that is gone.
pub async fn send(outbox: Rc<Outbox>, sender: SharedSender<Message>) {
    let sender = sender.connect().await;
    loop {
        for message in outbox.take().await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Moves what comes from another executor into the inbox, in order. Runs until that is gone.
pub async fn receive(receiver: SharedReceiver<Message>, inbox: Rc<Inbox>) {
    let receiver = receiver.connect().await;
    while let Some(message) = receiver.recv().await {
        match message {
            Message::Reactor(event) => inbox.push_reactor(event),
            Message::Consensus(event) => inbox.push_consensus(event),
            Message::Store(event) => inbox.push_store(event),
        }
    }
}
