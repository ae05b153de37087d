//! Keys: reads, writes, transactions, compaction.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use etcd::proto::kv::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use etcd::{Failure, Subject, begin_message, decode, decode_txn, request, response};
use hyper::Response;
use wire::{Call, Reply};

use super::calls::Counted;
use super::grpc::{self, Messages, Sender, end_message};
use super::native::{Answer, Pending};
use super::service::{Unary, gone, read, tell, unexpected};
use super::{Link, STOP_GRACE};

impl Unary<'_> {
    /// `Put`.
    pub async fn put(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message: PutRequest = self.decode()?;
        let put = request::put(&message)?;
        self.check_size()?;
        let answer = self.ask(&Call::Put(put)).await?;
        match read(&answer, Subject::Write)? {
            Reply::Put(reply) => {
                response::put(out, &self.link.answerer(), &reply);
                Ok(())
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// `DeleteRange`.
    pub async fn delete_range(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message: DeleteRangeRequest = self.decode()?;
        let delete = request::delete_range(&message)?;
        self.check_size()?;
        let answer = self.ask(&Call::DeleteRange(delete)).await?;
        match read(&answer, Subject::Write)? {
            Reply::DeleteRange(reply) => {
                response::delete_range(out, &self.link.answerer(), &reply);
                Ok(())
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// `Txn`.
    pub async fn txn(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message = decode_txn(self.message.clone())?;
        let txn = request::txn(&message, self.link.gate.api.txn_ops_max)?;
        let mut ops = txn.success.iter().chain(&txn.failure);
        if !ops.all(|op| matches!(op, wire::Op::Range(_))) {
            self.check_size()?;
        }
        let answer = self.ask(&Call::Txn(&txn)).await?;
        match read(&answer, Subject::Write)? {
            Reply::Txn(reply) => {
                response::txn(out, &self.link.answerer(), &reply);
                Ok(())
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// What goes through the log is limited.
    fn check_size(&self) -> Result<(), Failure> {
        let fits = self.message.len() <= self.link.gate.api.write_size_max();
        if fits { Ok(()) } else { Err(Failure::REQUEST_TOO_LARGE) }
    }

    /// `Compact`.
    pub async fn compact(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let message: CompactionRequest = self.decode()?;
        let answer = self.ask(&Call::Compact(request::compact(&message))).await?;
        match read(&answer, Subject::Write)? {
            Reply::Compact(reply) => {
                tell(out, &response::compaction(&self.link.answerer(), &reply))
            }
            reply => Err(unexpected(&reply)),
        }
    }
}

/// `RangeStream`: an answer in parts, none made before the client has taken those before it.
pub fn range_stream(link: &Rc<Link>, mut messages: Messages) -> Response<grpc::Reply> {
    let (response, sender) = grpc::streaming(messages.form());
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        let mut counted = Counted::begin(&link.gate, "/etcdserverpb.KV/RangeStream");
        let work = async {
            let message = messages.next().await?.unwrap_or_default();
            counted.received(message.len());
            stream_parts(&link, message, &sender, &counted).await
        };
        let end = link.gate.until_stop(STOP_GRACE, work).await;
        counted.end(&end);
        sender.end(end);
    })
    .detach();
    response
}

async fn stream_parts(
    link: &Link,
    message: Bytes,
    sender: &Sender,
    counted: &Counted,
) -> Result<(), Failure> {
    let message: RangeRequest = decode(message)?;
    let range = request::range_stream(&message)?;
    // On a connection of its own: a client that does not read holds up nothing else.
    let own = link.open_for_one();
    let mut pending = own.native().begin(0, &Call::Range(range)).await.map_err(gone)?;
    while let Some(answer) = next_part(&mut pending, sender).await? {
        let is_last = !answer.has_more();
        let mut out = begin_message();
        match read(&answer, Subject::Read)? {
            Reply::Range(piece) => {
                response::range_part(&mut out, &link.answerer(), &piece, is_last);
            }
            reply => return Err(unexpected(&reply)),
        }
        let message = end_message(out)?;
        counted.sent(message.len());
        sender.send(message);
        if is_last {
            break;
        }
    }
    Ok(())
}

/// The next piece once there is room for it; none: the client has gone.
pub async fn next_part(pending: &mut Pending, sender: &Sender) -> Result<Option<Answer>, Failure> {
    poll_fn(|context| match sender.poll_ready(context) {
        Poll::Ready(true) => pending.poll_next(context).map(|answer| answer.map(Some)),
        Poll::Ready(false) => Poll::Ready(Ok(None)),
        Poll::Pending => Poll::Pending,
    })
    .await
    .map_err(gone)
}
