//! Leases: grants, ends, questions, and the stream on which a client keeps them alive.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use etcd::proto::lease::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
};
use etcd::{Failure, Message as _, Subject, begin_message, decode, request, response};
use hyper::Response;
use wire::{Call, LeaseKeepAlive, Numbers, Reply};

use super::Link;
use super::calls::Counted;
use super::event::Waiter;
use super::grpc::{self, Messages, Sender, end_message};
use super::native::Answer;
use super::service::{Unary, ask, read, tell, unexpected};

/// Leases that one entry of the log keeps alive.
const BATCH_MAX: usize = 1_024;

impl Unary<'_> {
    /// `LeaseGrant`.
    pub async fn lease_grant(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message: LeaseGrantRequest = self.decode()?;
        let ttl_min = self.link.gate.api.lease_ttl_min;
        let answer = self.ask(&Call::LeaseGrant(request::lease_grant(&message, ttl_min)?)).await?;
        match read(&answer, Subject::Lease)? {
            Reply::LeaseGrant(reply) => {
                tell(out, &response::lease_grant(&self.link.answerer(), &reply))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// `LeaseRevoke`.
    pub async fn lease_revoke(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message: LeaseRevokeRequest = self.decode()?;
        let answer = self.ask(&Call::LeaseRevoke(request::lease_revoke(&message)?)).await?;
        match read(&answer, Subject::Lease)? {
            Reply::LeaseRevoke(reply) => {
                tell(out, &response::lease_revoke(&self.link.answerer(), &reply))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// `LeaseTimeToLive`: the keys of a lease may come in several answers.
    pub async fn lease_time_to_live(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message: LeaseTimeToLiveRequest = self.decode()?;
        let mut answers: Vec<Answer> = Vec::new();
        let mut after: Vec<u8> = Vec::new();
        loop {
            let call = Call::LeaseTimeToLive(request::lease_time_to_live(&message, &after));
            let answer = self.ask(&call).await?;
            let more = {
                let reply = lease_time(&answer)?;
                after = reply.keys.iter().last().unwrap_or_default().to_vec();
                reply.more
            };
            answers.push(answer);
            if !more {
                break;
            }
        }
        let replies = answers.iter().map(lease_time).collect::<Result<Vec<_>, _>>()?;
        tell(out, &response::lease_time_to_live(&self.link.answerer(), message.id, &replies))
    }

    /// `LeaseLeases`: so may the leases.
    pub async fn leases(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let _: LeaseLeasesRequest = self.decode()?;
        let mut answers: Vec<Answer> = Vec::new();
        let mut after = 0;
        loop {
            let answer = self.ask(&Call::LeaseList(request::leases(after))).await?;
            let more = {
                let reply = lease_list(&answer)?;
                after = reply.leases.iter().last().unwrap_or_default();
                reply.more
            };
            answers.push(answer);
            if !more {
                break;
            }
        }
        let replies = answers.iter().map(lease_list).collect::<Result<Vec<_>, _>>()?;
        tell(out, &response::leases(&self.link.answerer(), &replies))
    }
}

fn lease_time(answer: &Answer) -> Result<wire::LeaseTimeToLiveReply<'_>, Failure> {
    match read(answer, Subject::Lease)? {
        Reply::LeaseTimeToLive(reply) => Ok(reply),
        reply => Err(unexpected(&reply)),
    }
}

fn lease_list(answer: &Answer) -> Result<wire::LeaseListReply<'_>, Failure> {
    match read(answer, Subject::Lease)? {
        Reply::LeaseList(reply) => Ok(reply),
        reply => Err(unexpected(&reply)),
    }
}

/// Answers keep-alives until the client ends the stream.
pub fn serve(link: &Rc<Link>, messages: Messages) -> Response<grpc::Reply> {
    let (response, sender) = grpc::streaming(messages.form());
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        let mut counted = Counted::begin(&link.gate, "/etcdserverpb.Lease/LeaseKeepAlive");
        let end = keep_alive(&link, messages, &sender, &counted).await;
        counted.end(&end);
        sender.end(end);
    })
    .detach();
    response
}

async fn keep_alive(
    link: &Link,
    mut messages: Messages,
    sender: &Sender,
    counted: &Counted,
) -> Result<(), Failure> {
    let end = link.gate.stop.wait();
    loop {
        let leases = batch(&mut messages, sender, &end, counted).await?;
        if leases.is_empty() {
            return Ok(());
        }
        let call = Call::LeaseKeepAlive(LeaseKeepAlive { leases: Numbers::Given(&leases) });
        let answer = ask(&link.native, link.gate.api.request_timeout_ms, &call).await?;
        let reply = match read(&answer, Subject::Lease)? {
            Reply::LeaseKeepAlive(reply) => reply,
            reply => return Err(unexpected(&reply)),
        };
        let from = link.answerer();
        for (lease, ttl_ms) in leases.iter().zip(reply.ttls_ms.iter()) {
            let mut out = begin_message();
            let ttl_ms = ttl_ms.cast_unsigned();
            let message = response::lease_keep_alive(&from, *lease, reply.revision, ttl_ms);
            message.encode(&mut out).expect("a vector grows");
            let message = end_message(out)?;
            counted.sent(message.len());
            sender.send(message);
        }
    }
}

/// Waits for a keep-alive and takes those that have come with it; none: the client has gone, or ended its
/// side.
async fn batch(
    messages: &mut Messages,
    sender: &Sender,
    end: &Waiter,
    counted: &Counted,
) -> Result<Vec<i64>, Failure> {
    let mut leases = Vec::new();
    poll_fn(|context| {
        if end.poll(context).is_ready() {
            return Poll::Ready(Err(Failure::STOPPED));
        }
        match sender.poll_ready(context) {
            Poll::Ready(true) => {}
            Poll::Ready(false) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
        while leases.len() < BATCH_MAX {
            match messages.poll_next(context)? {
                Poll::Ready(Some(message)) => {
                    counted.received(message.len());
                    leases.push(lease_of(message)?);
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if leases.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok::<_, Failure>(()))
    })
    .await?;
    Ok(leases)
}

fn lease_of(message: Bytes) -> Result<i64, Failure> {
    let request: LeaseKeepAliveRequest = decode(message)?;
    Ok(request.id)
}
