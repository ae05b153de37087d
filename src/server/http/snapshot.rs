//! `Maintenance.Snapshot`: the state of this member, at one moment, as a file that etcd's own tools restore.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use etcd::proto::maintenance::{SnapshotRequest, SnapshotResponse};
use etcd::{Code, Failure, Subject, begin_message, decode};
use hyper::Response;
use kv::Head;
use snapshot::{CHECKSUM_SIZE, STORAGE_VERSION};
use wire::{Call, MemberList, Reply};

use super::calls::Counted;
use super::grpc::{self, Messages, Sender, end_message};
use super::imaging::Imaging;
use super::service::{gone, read, tell, unexpected};
use super::{Gate, Link, STOP_GRACE};

/// Snapshots that are made at once by one executor: each has a thread, and some 30 MiB of memory.
const SNAPSHOTS_MAX: usize = 2;

/// Bytes of one message, as etcd has it.
const BLOB_SIZE: usize = 32 << 10;

/// Serves the call.
pub fn serve(link: &Rc<Link>, mut messages: Messages) -> Response<grpc::Reply> {
    let (response, sender) = grpc::streaming(messages.form());
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        let mut counted = Counted::begin(&link.gate, "/etcdserverpb.Maintenance/Snapshot");
        let work = async {
            let message = messages.next().await?.unwrap_or_default();
            stream(&link, message, &sender).await
        };
        let end = link.gate.until_stop(STOP_GRACE, work).await;
        counted.end(&end);
        sender.end(end);
    })
    .detach();
    response
}

/// One of the few that are made at once.
struct Turn(Rc<Gate>);

impl Turn {
    fn take(gate: &Rc<Gate>) -> Result<Self, Failure> {
        if gate.snapshots.get() >= SNAPSHOTS_MAX {
            return Err(Failure::TOO_MANY_REQUESTS);
        }
        gate.snapshots.update(|count| count + 1);
        Ok(Self(Rc::clone(gate)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.snapshots.update(|count| count - 1);
    }
}

async fn stream(link: &Link, message: Bytes, sender: &Sender) -> Result<(), Failure> {
    let _: SnapshotRequest = decode(message)?;
    let turn = Turn::take(&link.gate)?;
    let failed = |text: String| Failure::new(Code::Unavailable, format!("etcdserver: {text}"));
    let mut imaging = Imaging::begin(&link.gate.folder).map_err(failed)?;
    let own = link.open_for_one();
    let members = members(&own).await?;
    let mut pending = own.native().begin(0, &Call::Snapshot).await.map_err(gone)?;
    loop {
        let answer = pending.next().await.map_err(gone)?;
        let chunk = match read(&answer, Subject::Read)? {
            Reply::Snapshot(chunk) => base::Frame::copy_from_slice(chunk),
            reply => return Err(unexpected(&reply)),
        };
        if imaging.take(chunk).await.map_err(failed)? {
            break;
        }
        // Only to learn whether the client is still there.
        if !is_wanted(sender).await {
            return Ok(());
        }
    }
    let (size, head) = imaging.finish(members).await.map_err(failed)?;
    let mut left = size;
    loop {
        let bytes = Bytes::from(imaging.read().await.map_err(failed)?);
        if left == 0 {
            // All of it has gone: this is the checksum, by itself.
            let is_sum = bytes.len() == CHECKSUM_SIZE;
            debug_assert!(is_sum, "{} bytes in the place of the checksum", bytes.len());
            send(link, sender, &head, bytes, 0)?;
            break;
        }
        for begin in (0..bytes.len()).step_by(BLOB_SIZE) {
            if !is_wanted(sender).await {
                return Ok(());
            }
            let blob = bytes.slice(begin..bytes.len().min(begin + BLOB_SIZE));
            left = left.saturating_sub(u64::try_from(blob.len()).unwrap_or(u64::MAX));
            send(link, sender, &head, blob, left)?;
        }
    }
    drop(turn);
    Ok(())
}

/// Waits until there is room for a message; false: nobody takes it any more.
async fn is_wanted(sender: &Sender) -> bool {
    poll_fn(|context| sender.poll_ready(context)).await
}

fn send(
    link: &Link,
    sender: &Sender,
    head: &Head,
    blob: Bytes,
    remaining_bytes: u64,
) -> Result<(), Failure> {
    let revision = i64::try_from(head.revision.get()).unwrap_or(i64::MAX);
    let header = Some(link.answerer().header(revision));
    let version = STORAGE_VERSION.to_owned();
    let mut out = begin_message();
    tell(&mut out, &SnapshotResponse { header, remaining_bytes, blob, version })?;
    sender.send(end_message(out)?);
    Ok(())
}

/// The members, to be named in the file.
async fn members(own: &super::Own) -> Result<MemberList, Failure> {
    let mut pending = own.native().begin(0, &Call::MemberList).await.map_err(gone)?;
    let answer = pending.next().await.map_err(gone)?;
    match read(&answer, Subject::Member)? {
        Reply::MemberList(reply) => MemberList::decode(reply.members)
            .map_err(|error| Failure::new(Code::Internal, error.to_string())),
        reply => Err(unexpected(&reply)),
    }
}
