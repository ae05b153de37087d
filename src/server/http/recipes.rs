//! Locks and elections as etcd's server offers them, built on keys, leases and watches.
//!
//! Whoever wants the lock puts a key of its own below the name; the oldest of them has it. Each waits for the
//! one before its own to go, so that one key's end wakes one waiter.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::kv::KeyValue;
use etcd::proto::recipes::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, LockRequest,
    LockResponse, ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse, UnlockRequest,
    UnlockResponse,
};
use etcd::{Code, Failure, Subject, begin_message, request};
use hyper::Response;
use wire::{
    Call, Compare, CompareResult, CompareTarget, DeleteRange, LeaseGrant, Op, OpReply, Put, Range,
    Reply, SortOrder, SortTarget, Txn, TxnReplyView, Watch, WatchRange, WatchRanges,
};

use super::calls::Counted;
use super::grpc::{self, Messages, Sender, end_message};
use super::native::Answer;
use super::service::{Unary, ask, gone, read, tell, unexpected};
use super::{Link, Own};

/// How long a lease lives that is made for a request without one.
const SESSION_TTL_MS: u64 = 60_000;

/// A key in a queue for a lock or for leadership.
struct Place {
    key: Vec<u8>,
    /// The revision at which it was put.
    revision: i64,
    lease: i64,
    /// The revision of the store.
    now: i64,
    /// It was there before; with this value.
    found: Option<Vec<u8>>,
}

/// Takes the key back if its owner stops waiting for its turn.
struct Waiting {
    link: Rc<Link>,
    key: Vec<u8>,
    is_over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (native, key) = (Rc::clone(&self.link.native), std::mem::take(&mut self.key));
        let timeout_ms = self.link.gate.api.request_timeout_ms;
        glommio::spawn_local(async move {
            let delete = DeleteRange { key: &key, ..DeleteRange::default() };
            // Left where it is it ends with its lease.
            drop(ask(&native, timeout_ms, &Call::DeleteRange(delete)).await);
        })
        .detach();
    }
}

/// The prefix below which the keys of a name stand.
fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The end of the range of a prefix that ends with a slash.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn created_is(key: &[u8], revision: i64) -> Compare<'_> {
    Compare {
        key,
        range_end: &[],
        target: CompareTarget::CreateRevision,
        result: CompareResult::Equal,
        number: revision,
        value: &[],
    }
}

fn owned(pair: &wire::KeyValue<'_>) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(pair.key),
        create_revision: pair.create_revision,
        mod_revision: pair.mod_revision,
        version: pair.version,
        value: Bytes::copy_from_slice(pair.value),
        lease: pair.lease,
    }
}

fn txn_of<'a>(answer: &'a Answer) -> Result<TxnReplyView<'a>, Failure> {
    match read(answer, Subject::Write)? {
        Reply::Txn(reply) => Ok(reply),
        reply => Err(unexpected(&reply)),
    }
}

impl Unary<'_> {
    fn header(&self, revision: i64) -> Option<etcd::proto::kv::ResponseHeader> {
        Some(self.link.answerer().header(revision))
    }

    /// A lease for a request without one.
    async fn lease(&self, asked: i64) -> Result<i64, Failure> {
        if asked != 0 {
            return Ok(asked);
        }
        let grant = LeaseGrant { lease: 0, ttl_ms: SESSION_TTL_MS };
        let answer = self.ask(&Call::LeaseGrant(grant)).await?;
        match read(&answer, Subject::Lease)? {
            Reply::LeaseGrant(reply) => Ok(reply.lease),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Puts a key into the queue of a name, or finds it there.
    async fn enter(&self, name: &[u8], value: &[u8], lease: i64) -> Result<Place, Failure> {
        let lease = self.lease(lease).await?;
        let key = [prefix_of(name), request::hexadecimal(lease).into_bytes()].concat();
        let txn = Txn::new()
            .when(created_is(&key, 0))
            .then(Op::Put(Put { key: &key, value, lease, ..Put::default() }))
            .otherwise(Op::Range(Range { key: &key, ..Range::default() }));
        let answer = self.ask(&Call::Txn(&txn)).await?;
        let reply = txn_of(&answer)?;
        let found = match reply.responses().next() {
            Some(OpReply::Range(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let revision = found.map_or(reply.revision(), |pair| pair.create_revision);
        let now = reply.revision();
        let found = found.map(|pair| pair.value.to_vec());
        drop(txn);
        Ok(Place { key, revision, lease, now, found })
    }

    /// Waits until no key of the prefix is older than this; the revision of the store then.
    async fn wait(&self, prefix: &[u8], place: &Place) -> Result<i64, Failure> {
        let end = end_of(prefix);
        loop {
            let range = Range {
                key: prefix,
                range_end: &end,
                limit: 1,
                sort_order: SortOrder::Descend,
                sort_target: SortTarget::CreateRevision,
                max_create_revision: place.revision - 1,
                keys_only: true,
                ..Range::default()
            };
            let answer = self.ask(&Call::Range(range)).await?;
            let (before, revision) = match read(&answer, Subject::Read)? {
                Reply::Range(reply) => {
                    (reply.kvs.into_iter().next().map(|pair| pair.key.to_vec()), reply.revision)
                }
                reply => return Err(unexpected(&reply)),
            };
            match before {
                None => return Ok(revision),
                Some(key) => match self.wait_for_end(&key, revision + 1).await {
                    // History was given up meanwhile: looked at anew.
                    Err(failure) if failure == Failure::COMPACTED => {}
                    waited => waited?,
                },
            }
        }
    }

    /// Waits until a key is deleted, at this revision or later.
    async fn wait_for_end(&self, key: &[u8], start: i64) -> Result<(), Failure> {
        let mut follower = Follower::new(self.link);
        follower.watch(key, &[], start, true).await?;
        loop {
            if follower.next().await? > 0 {
                return Ok(());
            }
        }
    }

    /// `Lock`.
    ///
    /// # Errors
    /// [`Failure::LOCK_SESSION_EXPIRED`] where the lease ended before its turn came.
    pub async fn lock(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: LockRequest = self.decode()?;
        let place = self.enter(&request.name, &[], request.lease).await?;
        let link = Rc::clone(self.link);
        let mut waiting = Waiting { link, key: place.key.clone(), is_over: false };
        self.wait(&prefix_of(&request.name), &place).await?;
        let answer = self.ask(&Call::Range(Range { key: &place.key, ..Range::default() })).await?;
        let (is_there, revision) = match read(&answer, Subject::Read)? {
            Reply::Range(reply) => (!reply.kvs.is_empty(), reply.revision),
            reply => return Err(unexpected(&reply)),
        };
        waiting.is_over = true;
        if !is_there {
            return Err(Failure::LOCK_SESSION_EXPIRED);
        }
        let response =
            LockResponse { header: self.header(revision), key: Bytes::from(place.key.clone()) };
        tell(out, &response)
    }

    /// `Unlock`.
    ///
    /// # Errors
    /// The delete.
    pub async fn unlock(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: UnlockRequest = self.decode()?;
        if request.key.is_empty() {
            return Err(Failure::KEY_NOT_PROVIDED);
        }
        let delete = DeleteRange { key: &request.key, ..DeleteRange::default() };
        let answer = self.ask(&Call::DeleteRange(delete)).await?;
        match read(&answer, Subject::Write)? {
            Reply::DeleteRange(reply) => {
                tell(out, &UnlockResponse { header: self.header(reply.revision) })
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// `Campaign`.
    ///
    /// # Errors
    /// A step of it; its key is then taken back.
    pub async fn campaign(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: CampaignRequest = self.decode()?;
        let place = self.enter(&request.name, &request.value, request.lease).await?;
        let link = Rc::clone(self.link);
        let mut waiting = Waiting { link, key: place.key.clone(), is_over: false };
        let leader = LeaderKey {
            name: request.name.clone(),
            key: Bytes::from(place.key.clone()),
            rev: place.revision,
            lease: place.lease,
        };
        if place.found.as_ref().is_some_and(|found| *found != request.value) {
            self.proclaim_as(&leader, &request.value).await?;
        }
        let now = self.wait(&prefix_of(&request.name), &place).await?;
        waiting.is_over = true;
        let header = self.header(now.max(place.now));
        tell(out, &CampaignResponse { header, leader: Some(leader) })
    }

    /// Puts another value for a leadership that is still held; the revision.
    async fn proclaim_as(&self, leader: &LeaderKey, value: &[u8]) -> Result<i64, Failure> {
        let put = Put { key: &leader.key, value, lease: leader.lease, ..Put::default() };
        let txn = Txn::new().when(created_is(&leader.key, leader.rev)).then(Op::Put(put));
        let answer = self.ask(&Call::Txn(&txn)).await?;
        let reply = txn_of(&answer)?;
        if reply.succeeded() { Ok(reply.revision()) } else { Err(Failure::ELECTION_NOT_LEADER) }
    }

    /// `Proclaim`.
    ///
    /// # Errors
    /// [`Failure::LEADER_NOT_PROVIDED`], [`Failure::ELECTION_NOT_LEADER`].
    pub async fn proclaim(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: ProclaimRequest = self.decode()?;
        let leader = request.leader.ok_or(Failure::LEADER_NOT_PROVIDED)?;
        let revision = self.proclaim_as(&leader, &request.value).await?;
        tell(out, &ProclaimResponse { header: self.header(revision) })
    }

    /// `Resign`.
    ///
    /// # Errors
    /// [`Failure::LEADER_NOT_PROVIDED`]. It is none to lead no more.
    pub async fn resign(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: ResignRequest = self.decode()?;
        let leader = request.leader.ok_or(Failure::LEADER_NOT_PROVIDED)?;
        let delete = DeleteRange { key: &leader.key, ..DeleteRange::default() };
        let txn =
            Txn::new().when(created_is(&leader.key, leader.rev)).then(Op::DeleteRange(delete));
        let answer = self.ask(&Call::Txn(&txn)).await?;
        let revision = txn_of(&answer)?.revision();
        tell(out, &ResignResponse { header: self.header(revision) })
    }

    /// `Leader`.
    ///
    /// # Errors
    /// [`Failure::ELECTION_NO_LEADER`].
    pub async fn leader(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: LeaderRequest = self.decode()?;
        let (leader, revision) = self.oldest(&request.name).await?;
        let kv = leader.ok_or(Failure::ELECTION_NO_LEADER)?;
        tell(out, &LeaderResponse { header: self.header(revision), kv: Some(kv) })
    }

    /// The oldest key below a name, and the revision of the store.
    async fn oldest(&self, name: &[u8]) -> Result<(Option<KeyValue>, i64), Failure> {
        let prefix = prefix_of(name);
        let end = end_of(&prefix);
        let range = Range {
            key: &prefix,
            range_end: &end,
            limit: 1,
            sort_order: SortOrder::Ascend,
            sort_target: SortTarget::CreateRevision,
            ..Range::default()
        };
        let answer = self.ask(&Call::Range(range)).await?;
        match read(&answer, Subject::Read)? {
            Reply::Range(reply) => {
                Ok((reply.kvs.into_iter().next().as_ref().map(owned), reply.revision))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// Tells who leads, and then each that follows, until the client has gone.
    async fn observe(&self, sender: &Sender) -> Result<(), Failure> {
        let request: LeaderRequest = self.decode()?;
        let prefix = prefix_of(&request.name);
        let end = end_of(&prefix);
        let mut told: Option<KeyValue> = None;
        loop {
            let (leader, revision) = self.oldest(&request.name).await?;
            if leader.is_some() && leader != told {
                let mut out = begin_message();
                let header = self.header(revision);
                tell(&mut out, &LeaderResponse { header, kv: leader.clone() })?;
                sender.send(end_message(out)?);
                told = leader;
            }
            // Whatever changes below the name may change who leads.
            let mut follower = Follower::new(self.link);
            follower.watch(&prefix, &end, revision + 1, false).await?;
            loop {
                let polled = poll_fn(|context| match sender.poll_ready(context) {
                    std::task::Poll::Ready(false) => std::task::Poll::Ready(None),
                    _ => follower.own.native().poll_told(context).map(Some),
                });
                let Some(answer) = polled.await else { return Ok(()) };
                let (_, answer) = answer.map_err(gone)?;
                if changes(&answer)? > 0 {
                    break;
                }
            }
        }
    }
}

/// `Observe`.
pub fn observe(link: &Rc<Link>, mut messages: Messages) -> Response<grpc::Reply> {
    let (response, sender) = grpc::streaming(messages.form());
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        let mut counted = Counted::begin(&link.gate, "/v3electionpb.Election/Observe");
        let work = async {
            let message = messages.next().await?.unwrap_or_default();
            counted.received(message.len());
            let deadline_ms = link.gate.api.request_timeout_ms;
            Unary { link: &link, deadline_ms, message }.observe(&sender).await
        };
        let end = link.gate.until_stop(Duration::ZERO, work).await;
        counted.end(&end);
        sender.end(end);
    })
    .detach();
    response
}

/// A watch on a connection of its own.
struct Follower {
    own: Own,
}

impl Follower {
    fn new(link: &Link) -> Self {
        Self { own: link.open() }
    }

    async fn watch(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        start_revision: i64,
        no_put: bool,
    ) -> Result<(), Failure> {
        let range = [WatchRange { key, range_end }];
        let watch = Watch {
            ranges: WatchRanges::Given(&range),
            start_revision,
            start_sub: 0,
            prev_kv: false,
            keys_only: true,
            no_put,
            no_delete: false,
            progress_interval_ms: 0,
        };
        self.own.native().watch(watch).await.map_err(gone)?;
        Ok(())
    }

    /// How many changes came with the next answer.
    async fn next(&mut self) -> Result<usize, Failure> {
        let told = poll_fn(|context| self.own.native().poll_told(context)).await;
        let (_, answer) = told.map_err(gone)?;
        changes(&answer)
    }
}

/// How many changes an answer to a watch tells.
fn changes(answer: &Answer) -> Result<usize, Failure> {
    match read(answer, Subject::Watch)? {
        Reply::Watch(reply) => Ok(reply.changes.count()),
        reply => Err(Failure::new(Code::Internal, format!("no answer to a watch: {reply:?}"))),
    }
}
