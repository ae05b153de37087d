//! The streams of watches: a task each, between the client, the stream's state ([`etcd::WatchStream`]) and a
//! connection to the reactor of its own.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use etcd::proto::watch::WatchCreateRequest;
use etcd::request::{watch, watch_range};
use etcd::{Code, Effect, Failure, WatchStream};
use hyper::Response;
use wire::{Call, Reply};

use super::Link;
use super::calls::Counted;
use super::event::Waiter;
use super::grpc::{self, Messages, Sender, end_message};
use super::native::{Answer, Native};
use super::service::{gone, revision, unexpected};
use crate::counters::Counters;

/// What comes to a stream.
enum Event {
    Asked(Bytes),
    Told(u64, Answer),
    /// The client has gone.
    Over,
}

/// A stream that is open, as long as this lives.
struct OpenStream(Arc<Counters>);

impl OpenStream {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.watch_streams.add(1);
        Self(Arc::clone(counters))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.watch_streams.set(self.0.watch_streams.get().saturating_sub(1));
    }
}

/// A stream at work.
struct Task {
    link: Rc<Link>,
    native: Rc<Native>,
    messages: Messages,
    /// The client asks for nothing more. It goes on being told: a program that sends one request, as one of
    /// HTTP does, has ended its side by that.
    has_ended: bool,
    sender: Sender,
    state: WatchStream,
    effects: Vec<Effect>,
    /// The end of the server.
    end: Waiter,
    counted: Counted,
}

/// Answers the requests of a stream until its client goes.
pub fn serve(link: &Rc<Link>, messages: Messages) -> Response<grpc::Reply> {
    let (response, sender) = grpc::streaming(messages.form());
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        let counted = Counted::begin(&link.gate, "/etcdserverpb.Watch/Watch");
        let open = OpenStream::new(&link.gate.counters);
        let own = link.open();
        let native = Rc::clone(own.native());
        let (state, effects) = (WatchStream::new(), Vec::new());
        let end = link.gate.stop.wait();
        let has_ended = false;
        let mut task =
            Task { link, native, messages, has_ended, sender, state, effects, end, counted };
        let outcome = task.run().await;
        task.counted.end(&outcome);
        drop(open);
        task.sender.end(outcome);
        drop(own);
    })
    .detach();
    response
}

impl Task {
    async fn run(&mut self) -> Result<(), Failure> {
        loop {
            match poll_fn(|context| self.poll(context)).await? {
                Event::Over => return Ok(()),
                Event::Asked(message) => {
                    self.counted.received(message.len());
                    let from = self.link.answerer();
                    self.state.asked(message, &from, &mut self.effects)?;
                }
                Event::Told(request, answer) => self.told(request, &answer)?,
            }
            self.perform().await?;
        }
    }

    /// The next thing that comes. Nothing is taken while the client does not read: the member then holds back
    /// what it has to tell, and what the client asks waits in its own window, for each question has an answer.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        if self.end.poll(context).is_ready() {
            return Poll::Ready(Err(Failure::STOPPED));
        }
        match self.sender.poll_ready(context) {
            Poll::Ready(true) => {}
            Poll::Ready(false) => return Poll::Ready(Ok(Event::Over)),
            Poll::Pending => return Poll::Pending,
        }
        self.messages.check(context)?;
        if !self.has_ended {
            match self.messages.poll_next(context)? {
                Poll::Ready(Some(message)) => return Poll::Ready(Ok(Event::Asked(message))),
                Poll::Ready(None) => self.has_ended = true,
                Poll::Pending => {}
            }
        }
        self.native.poll_told(context).map(|told| {
            let (request, answer) = told.map_err(gone)?;
            Ok(Event::Told(request, answer))
        })
    }

    fn told(&mut self, request: u64, answer: &Answer) -> Result<(), Failure> {
        let from = self.link.answerer();
        match answer.reply() {
            Ok(Reply::Watch(reply)) => {
                self.link.gate.counters.watch_events.add(reply.changes.len() as u64);
                self.state.told(request, &reply, &from, &mut self.effects);
                Ok(())
            }
            Ok(Reply::Refused(refused)) => {
                self.state.ended(request, &refused, &from, &mut self.effects)
            }
            Ok(reply) => Err(unexpected(&reply)),
            Err(error) => Err(Failure::new(Code::Internal, error.to_string())),
        }
    }

    async fn perform(&mut self) -> Result<(), Failure> {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Begin { id, create } => {
                    let request = self.begin(&create).await?;
                    if !self.state.begun(id, request) {
                        self.native.remind(request, &Call::Cancel);
                    }
                }
                Effect::Cancel { request } => self.native.remind(request, &Call::Cancel),
                Effect::Remind { request } => self.native.remind(request, &Call::WatchProgress),
                Effect::Send(message) => self.send(message)?,
                Effect::Notify(notice) => {
                    let revision =
                        revision(&self.link.native, self.link.gate.api.request_timeout_ms).await?;
                    let message = notice.message(&self.link.answerer(), revision);
                    self.send(message)?;
                }
            }
        }
        Ok(())
    }

    fn send(&self, message: Vec<u8>) -> Result<(), Failure> {
        let message = end_message(message)?;
        self.counted.sent(message.len());
        self.sender.send(message);
        Ok(())
    }

    async fn begin(&self, create: &WatchCreateRequest) -> Result<u64, Failure> {
        let range = watch_range(create)
            .map_err(|refusal| Failure::new(Code::Internal, refusal.reason()))?;
        let ranges = [range];
        let watch = watch(create, &ranges, self.link.gate.api.config.progress_interval_ms);
        self.native.watch(watch).await.map_err(gone)
    }
}
