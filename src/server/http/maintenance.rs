//! Calls about the member and the cluster rather than the keys.

use base::Revision;
use etcd::proto::auth::{AuthDisableResponse, AuthStatusResponse};
use etcd::proto::cluster::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};
use etcd::proto::kv::ResponseHeader;
use etcd::proto::maintenance::{
    AlarmRequest, AlarmResponse, DefragmentResponse, DowngradeAction, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashResponse, MoveLeaderRequest,
    StatusRequest,
};
use etcd::request::AlarmAsk;
use etcd::{Answerer, Code, Failure, Subject, request, response};
use kv::{HistoryHash, HistoryHashError, Refusal};
use wire::{Call, MemberList, MemberRole, Range, Reply, Status};

use super::remote;
use super::service::{Unary, gone, read, revision, tell, unexpected, within};

/// What the history hashes to.
struct Hashed {
    hash: u32,
    /// The revision of the store.
    now: i64,
    /// The oldest that it can read; -1 before the first compaction.
    compact_revision: i64,
}

impl Unary<'_> {
    fn from(&self) -> Answerer {
        self.link.answerer()
    }

    /// `MemberList`.
    pub async fn member_list(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: MemberListRequest = self.decode()?;
        if request.linearizable {
            // The list is the one of a moment after the question.
            let range = Range { key: &[0], count_only: true, ..Range::default() };
            read(&self.ask(&Call::Range(range)).await?, Subject::Read)?;
        }
        let list = self.members().await?;
        tell(out, &response::member_list(&self.from(), &list, &self.link.reached))
    }

    async fn members(&self) -> Result<MemberList, Failure> {
        let answer = self.ask(&Call::MemberList).await?;
        match read(&answer, Subject::Member)? {
            Reply::MemberList(reply) => members(reply.members),
            reply => Err(unexpected(&reply)),
        }
    }

    /// `MemberAdd`.
    pub async fn member_add(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: MemberAddRequest = self.decode()?;
        // A member has a name from the beginning; until it says its own it is called by its address.
        let url = request.peer_urls.first().map_or("", String::as_str);
        let name = wire::Member::placeholder(url.rsplit('/').next().unwrap_or_default());
        let change = request::member_add(&request, name)?;
        if request.is_learner {
            let learners = self.members().await?.members.into_iter();
            let learners = learners.filter(|member| member.role == MemberRole::Learner).count();
            if learners >= self.link.gate.api.config.learners_max {
                return Err(Failure::TOO_MANY_LEARNERS);
            }
        }
        let (id, list) = self.change(&change, Subject::Member).await?;
        tell(out, &response::member_add(&self.from(), id, &list))
    }

    /// `MemberRemove`.
    pub async fn member_remove(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: MemberRemoveRequest = self.decode()?;
        let (_, list) = self.change(&request::member_remove(&request), Subject::Member).await?;
        tell(out, &response::member_remove(&self.from(), &list))
    }

    /// `MemberUpdate`.
    pub async fn member_update(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: MemberUpdateRequest = self.decode()?;
        let (_, list) = self.change(&request::member_update(&request)?, Subject::Member).await?;
        tell(out, &response::member_update(&self.from(), &list))
    }

    /// `MemberPromote`.
    pub async fn member_promote(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: MemberPromoteRequest = self.decode()?;
        let change = request::member_promote(&request);
        let (_, list) = self.change(&change, Subject::Promotion).await?;
        tell(out, &response::member_promote(&self.from(), &list))
    }

    async fn change(
        &self,
        change: &wire::MemberChange<'_>,
        subject: Subject,
    ) -> Result<(base::NodeId, MemberList), Failure> {
        let call = Call::MemberChange(*change);
        let mut answer = self.ask(&call).await?;
        // Members are changed at the leader; clients of etcd need not know which that is.
        let leader = match answer.reply() {
            Ok(Reply::Refused(refused)) if refused.status == Status::NotLeader => {
                refused.leader.address.to_owned()
            }
            _ => String::new(),
        };
        if !leader.is_empty() {
            let cluster = self.link.greeting.cluster;
            let asked = remote::ask(&leader, cluster, self.deadline_ms, &call);
            answer = within(self.deadline_ms, asked).await?;
        }
        match read(&answer, subject)? {
            Reply::MemberChange(reply) => Ok((reply.member, members(reply.members)?)),
            reply => Err(unexpected(&reply)),
        }
    }

    /// `Status`.
    pub async fn status(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let _: StatusRequest = self.decode()?;
        let answer = self.ask(&Call::Status).await?;
        match read(&answer, Subject::Status)? {
            Reply::Status(reply) => {
                let (version, storage) = (etcd::VERSION, etcd::CLUSTER_VERSION);
                tell(out, &response::status(&self.from(), &reply, version, storage))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// `Alarm`. What is listed is as new as any read.
    pub async fn alarm(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: AlarmRequest = self.decode()?;
        match request::alarm(&request)? {
            AlarmAsk::List(kind) => {
                let range = Range { key: &[0], count_only: true, ..Range::default() };
                read(&self.ask(&Call::Range(range)).await?, Subject::Read)?;
                let answer = self.ask(&Call::Status).await?;
                match read(&answer, Subject::Status)? {
                    Reply::Status(status) => {
                        let (from, revision) = (self.from(), status.revision);
                        tell(out, &response::alarms(&from, revision, &status.alarms, kind))
                    }
                    reply => Err(unexpected(&reply)),
                }
            }
            AlarmAsk::Change(change) => {
                let answer = self.ask(&Call::Alarm(change)).await?;
                match read(&answer, Subject::Write)? {
                    Reply::Alarm(reply) => {
                        let (from, revision) = (self.from(), reply.revision);
                        tell(out, &response::alarms(&from, revision, &reply.alarms, None))
                    }
                    reply => Err(unexpected(&reply)),
                }
            }
            AlarmAsk::Nothing => {
                tell(out, &AlarmResponse { header: Some(self.now().await?), alarms: vec![] })
            }
        }
    }

    /// `Defragment`: space is given back as it becomes free, so there is nothing to do. Without a header, as
    /// in etcd.
    pub fn defragment(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        tell(out, &DefragmentResponse::default())
    }

    /// `MoveLeader`. Without a header, as in etcd.
    pub async fn move_leader(&self) -> Result<(), Failure> {
        let request: MoveLeaderRequest = self.decode()?;
        if self.link.gate.standing.get().leader.get() != self.link.greeting.member {
            return Err(Failure::NOT_LEADER);
        }
        let answer = self.ask(&Call::MoveLeader(request::move_leader(&request)?)).await?;
        match read(&answer, Subject::Leadership)? {
            Reply::MoveLeader(_) => Ok(()),
            reply => Err(unexpected(&reply)),
        }
    }

    /// `Hash`.
    pub async fn hash(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let hashed = self.hashed(0).await?;
        tell(out, &HashResponse { header: Some(self.from().header(hashed.now)), hash: hashed.hash })
    }

    /// `HashKV`: equal on all members that have the same history up to the revision, however much of what is
    /// compacted each has trimmed.
    pub async fn hash_kv(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: HashKvRequest = self.decode()?;
        let Hashed { hash, now, compact_revision } = self.hashed(request.revision).await?;
        let hash_revision = if request.revision == 0 { now } else { request.revision };
        let header = Some(self.from().header(now));
        tell(out, &HashKvResponse { header, hash, compact_revision, hash_revision })
    }

    /// Hashes the history up to a revision, chunk by chunk of a held checkpoint: the member serves on.
    async fn hashed(&self, revision: i64) -> Result<Hashed, Failure> {
        // Who asks for what is not there is told so before a checkpoint is made for him.
        let answer = self.ask(&Call::Status).await?;
        match read(&answer, Subject::Status)? {
            Reply::Status(status) if revision > status.revision => {
                return Err(Failure::FUTURE_REVISION);
            }
            Reply::Status(status) if revision > 0 && revision < status.compacted_revision => {
                return Err(Failure::COMPACTED);
            }
            Reply::Status(_) => {}
            reply => return Err(unexpected(&reply)),
        }
        let asked = u64::try_from(revision).ok().filter(|revision| *revision > 0);
        let mut hashing = HistoryHash::new(asked.map(Revision::new));
        // Beside the connection's other requests: a long answer must not be in their way.
        let own = self.link.open();
        let mut pending = own.native().begin(0, &Call::Snapshot).await.map_err(gone)?;
        loop {
            let answer = pending.next().await.map_err(gone)?;
            let is_last = match read(&answer, Subject::Read)? {
                Reply::Snapshot(chunk) => hashing.take(chunk).map_err(|error| match error {
                    HistoryHashError::Refused(Refusal::Compacted) => Failure::COMPACTED,
                    HistoryHashError::Refused(_) => Failure::FUTURE_REVISION,
                    HistoryHashError::Chunk(error) => {
                        Failure::new(Code::Internal, format!("etcdserver: {error}"))
                    }
                })?,
                reply => return Err(unexpected(&reply)),
            };
            if is_last {
                break;
            }
        }
        let head = hashing.head().ok_or(Failure::STOPPED)?;
        let number = |revision: Revision| i64::try_from(revision.get()).unwrap_or(i64::MAX);
        Ok(Hashed {
            hash: hashing.finish(),
            now: number(head.revision),
            // As etcd says that nothing has been compacted yet.
            compact_revision: head.compacted.map_or(-1, number),
        })
    }

    /// `Downgrade`: what etcd would go back to is looked at, and nothing goes back: there is no older release that
    /// could read these files.
    pub async fn downgrade(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: DowngradeRequest = self.decode()?;
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Cancel) => {}
            Ok(DowngradeAction::Validate) => request::downgrade_target(&request.version)?,
            Ok(DowngradeAction::Enable) => {
                request::downgrade_target(&request.version)?;
                return Err(Failure::new(
                    Code::FailedPrecondition,
                    "etcdserver: a member of Quorate cannot become one of etcd; etcd restores what `etcdctl snapshot \
                     save` takes of it",
                ));
            }
            Err(_) => return Err(Failure::UNKNOWN_METHOD),
        }
        let header = Some(self.now().await?);
        let version = etcd::CLUSTER_VERSION_SHORT.to_owned();
        tell(out, &DowngradeResponse { header, version })
    }

    /// The header of an answer that says no more, at the revision of this moment.
    async fn now(&self) -> Result<ResponseHeader, Failure> {
        let revision = revision(&self.link.native, self.deadline_ms).await?;
        Ok(self.from().header(revision))
    }

    /// The calls of the service Auth: access control is off, and cannot be switched on.
    pub async fn auth(&self, method: &str, out: &mut Vec<u8>) -> Result<(), Failure> {
        if method == "AuthStatus" {
            let header = Some(self.now().await?);
            return tell(out, &AuthStatusResponse { header, enabled: false, auth_revision: 1 });
        }
        etcd::auth::call(method, self.message.clone())?;
        // All answers that can be had are the same: one with nothing but its header.
        tell(out, &AuthDisableResponse { header: Some(self.now().await?) })
    }
}

fn members(bytes: &[u8]) -> Result<MemberList, Failure> {
    MemberList::decode(bytes).map_err(|error| Failure::new(Code::Internal, error.to_string()))
}
