//! What a request of HTTP is for, and its answer.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etcd::{Code, Failure, Message, Subject, begin_message, decode};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response};
use wire::{Call, Range, Reply};

use super::calls::Counted;
use super::deadline;
use super::event::Waiter;
use super::grpc::{self, Messages, end_message};
use super::native::{Answer, Gone, Native, Pending};
use super::{Link, STOP_GRACE};
use super::{clean, gateway, health, keys, lease, page, plain, range, recipes, snapshot, watch};
use crate::config::Serves;

/// How long a request waits before it is tried again while there is no leader.
const ELECTION_PAUSE: Duration = Duration::from_millis(20);

/// A stream that learners serve, too, as [`health::WATCH`].
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// The other streams.
const STREAMS: [&str; 4] = [
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.KV/RangeStream",
    "/v3electionpb.Election/Observe",
];

/// Metadata of a client that wants no answer of a member without a leader.
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// Metadata in which a client says its version.
pub const CLIENT_VERSION: HeaderName = HeaderName::from_static("client-api-version");

/// Answers a request.
pub async fn respond(link: &Rc<Link>, request: Request<Incoming>) -> Response<grpc::Reply> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let of_gateway = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"));
    let is_grpc = of_gateway.is_none()
        && parts.method == Method::POST
        && parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc && link.serves == Serves::Everything {
        return call(link, &parts, body).await;
    }
    let mut response = if let Some(response) = page::preflight(&parts) {
        response
    } else if !is_grpc && let Some(response) = clean::redirect(&parts) {
        response
    } else if is_grpc || !plain::is_served(link.serves, path) {
        plain::nothing()
    } else if let Some(path) = of_gateway {
        gateway::respond(link, path, &parts, body).await
    } else {
        plain::respond(link, &parts).await
    };
    page::finish(&mut response, &parts, &link.gate.api.origins);
    response
}

/// Answers a call of gRPC.
async fn call(link: &Rc<Link>, parts: &Parts, body: Incoming) -> Response<grpc::Reply> {
    let path = parts.uri.path();
    let timeout = match deadline::of_grpc(&parts.headers) {
        Ok(Some(Duration::ZERO)) => return grpc::refusal(Failure::DEADLINE_EXCEEDED),
        Ok(timeout) => timeout,
        Err(failure) => return grpc::malformed(failure),
    };
    let orphaned = match admit(link, &parts.headers).await {
        Ok(orphaned) => orphaned,
        Err(failure) => return grpc::refusal(failure),
    };
    let size_max = link.gate.api.message_size_max();
    let messages = Messages::new(body, &parts.headers, size_max, orphaned);
    let form = messages.form();
    if path == range::METHOD {
        link.gate.count_client(&parts.headers, false);
        let answer = range::serve(link, None, timeout, messages).await;
        return answer.unwrap_or_else(|failure| grpc::unary(Err(failure), form));
    }
    match stream(link, path, messages) {
        Ok(mut response) => {
            link.gate.count_client(&parts.headers, true);
            grpc::limit(&mut response, timeout);
            response
        }
        Err(messages) => {
            link.gate.count_client(&parts.headers, false);
            grpc::unary(one(link, path, timeout, messages).await, form)
        }
    }
}

/// Serves a call with several messages; gives them back where the path is none of these.
pub fn stream(
    link: &Rc<Link>,
    method: &str,
    messages: Messages,
) -> Result<Response<grpc::Reply>, Messages> {
    if link.is_learner() && ![SNAPSHOT, health::WATCH].contains(&method) {
        // What is no stream is looked at later, and refused there.
        return if STREAMS.contains(&method) {
            let (response, sender) = grpc::streaming(messages.form());
            sender.end(Err(Failure::NOT_FOR_LEARNER));
            Ok(response)
        } else {
            Err(messages)
        };
    }
    match method {
        "/etcdserverpb.Watch/Watch" => Ok(watch::serve(link, messages)),
        "/etcdserverpb.Lease/LeaseKeepAlive" => Ok(lease::serve(link, messages)),
        SNAPSHOT => Ok(snapshot::serve(link, messages)),
        "/etcdserverpb.KV/RangeStream" => Ok(keys::range_stream(link, messages)),
        "/v3electionpb.Election/Observe" => Ok(recipes::observe(link, messages)),
        health::WATCH => Ok(health::serve(link, messages)),
        _ => Err(messages),
    }
}

/// What is looked at before anything else; what ends the request, if it wants a leader.
///
/// Elections here are over before members of etcd would have noticed that there is one to hold. Clients whose
/// streams are refused during one end all their watches (etcd's Go client does), and come back at once.
///
/// # Errors
/// [`Failure::NO_LEADER`].
pub async fn admit(link: &Link, headers: &HeaderMap) -> Result<Option<Waiter>, Failure> {
    link.awaits_publication().await;
    if headers.get(HAS_LEADER).is_none_or(|value| value != "true") {
        return Ok(None);
    }
    if !link.awaits_leader().await {
        return Err(Failure::NO_LEADER);
    }
    Ok(Some(link.gate.orphaned.wait()))
}

/// A call of gRPC with one message each way.
async fn one(
    link: &Rc<Link>,
    method: &str,
    timeout: Option<Duration>,
    mut messages: Messages,
) -> Result<Bytes, Failure> {
    let work = async |deadline_ms| {
        let message = link.gate.until_stop(STOP_GRACE, messages.next_one()).await?;
        unary(link, method, deadline_ms, message).await
    };
    end_message(deadline::within(timeout, link.gate.api.request_timeout_ms, work).await?)
}

/// The answer to a call with one message each way, behind the room for its prefix.
///
/// # Errors
/// Why it was not done.
pub async fn unary(
    link: &Rc<Link>,
    method: &str,
    deadline_ms: u32,
    message: Bytes,
) -> Result<Vec<u8>, Failure> {
    let mut counted = Counted::begin(&link.gate, method);
    counted.received(message.len());
    let answer = dispatch(link, method, deadline_ms, message).await;
    if let Ok(out) = &answer {
        counted.sent(out.len());
    }
    counted.end(&answer);
    answer
}

async fn dispatch(
    link: &Rc<Link>,
    method: &str,
    deadline_ms: u32,
    message: Bytes,
) -> Result<Vec<u8>, Failure> {
    // A learner answers reads of its own state ([`range`] looks at that) and tells what it is.
    let is_health = method.starts_with("/grpc.health.v1.Health/");
    if link.is_learner() && !is_health && method != "/etcdserverpb.Maintenance/Status" {
        return Err(Failure::NOT_FOR_LEARNER);
    }
    let call = Unary { link, deadline_ms, message };
    let mut out = begin_message();
    let (service, name) = method.strip_prefix('/').and_then(|path| path.split_once('/')).unzip();
    match (service.unwrap_or_default(), name.unwrap_or_default()) {
        ("etcdserverpb.KV", "Put") => call.put(&mut out).await?,
        ("etcdserverpb.KV", "DeleteRange") => call.delete_range(&mut out).await?,
        ("etcdserverpb.KV", "Txn") => call.txn(&mut out).await?,
        ("etcdserverpb.KV", "Compact") => call.compact(&mut out).await?,
        ("etcdserverpb.Lease", "LeaseGrant") => call.lease_grant(&mut out).await?,
        ("etcdserverpb.Lease", "LeaseRevoke") => call.lease_revoke(&mut out).await?,
        ("etcdserverpb.Lease", "LeaseTimeToLive") => call.lease_time_to_live(&mut out).await?,
        ("etcdserverpb.Lease", "LeaseLeases") => call.leases(&mut out).await?,
        ("etcdserverpb.Cluster", "MemberList") => call.member_list(&mut out).await?,
        ("etcdserverpb.Cluster", "MemberAdd") => call.member_add(&mut out).await?,
        ("etcdserverpb.Cluster", "MemberRemove") => call.member_remove(&mut out).await?,
        ("etcdserverpb.Cluster", "MemberUpdate") => call.member_update(&mut out).await?,
        ("etcdserverpb.Cluster", "MemberPromote") => call.member_promote(&mut out).await?,
        ("etcdserverpb.Maintenance", "Status") => call.status(&mut out).await?,
        ("etcdserverpb.Maintenance", "Alarm") => call.alarm(&mut out).await?,
        ("etcdserverpb.Maintenance", "Defragment") => call.defragment(&mut out)?,
        ("etcdserverpb.Maintenance", "Hash") => call.hash(&mut out).await?,
        ("etcdserverpb.Maintenance", "HashKV") => call.hash_kv(&mut out).await?,
        ("etcdserverpb.Maintenance", "MoveLeader") => call.move_leader().await?,
        ("etcdserverpb.Maintenance", "Downgrade") => call.downgrade(&mut out).await?,
        ("v3lockpb.Lock", "Lock") => call.lock(&mut out).await?,
        ("v3lockpb.Lock", "Unlock") => call.unlock(&mut out).await?,
        ("v3electionpb.Election", "Campaign") => call.campaign(&mut out).await?,
        ("v3electionpb.Election", "Proclaim") => call.proclaim(&mut out).await?,
        ("v3electionpb.Election", "Leader") => call.leader(&mut out).await?,
        ("v3electionpb.Election", "Resign") => call.resign(&mut out).await?,
        ("etcdserverpb.Auth", name) if etcd::shapes::is_method(method) => {
            call.auth(name, &mut out).await?;
        }
        ("grpc.health.v1.Health", "Check") => call.health(&mut out)?,
        ("grpc.health.v1.Health", "List") => call.health_list(&mut out)?,
        _ => return Err(unknown(method)),
    }
    Ok(out)
}

/// As gRPC servers refuse what they do not know.
pub fn unknown(path: &str) -> Failure {
    let message = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((service, method)) if etcd::shapes::is_service(service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: {path:?}"),
    };
    Failure::new(Code::Unimplemented, message)
}

/// A call with one message each way, its message read.
pub struct Unary<'a> {
    /// Of whose connection.
    pub link: &'a Rc<Link>,
    /// How long the member may take, in milliseconds.
    pub deadline_ms: u32,
    /// What is asked.
    pub message: Bytes,
}

impl Unary<'_> {
    /// The message.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode<M: Message + Default>(&self) -> Result<M, Failure> {
        decode(self.message.clone())
    }

    /// Asks the member and waits for the only answer.
    ///
    /// # Errors
    /// There is none.
    pub async fn ask(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        ask(&self.link.native, self.deadline_ms, call).await
    }
}

/// Writes a message.
///
/// # Errors
/// None.
pub fn tell(out: &mut Vec<u8>, message: &impl Message) -> Result<(), Failure> {
    message.encode(out).expect("a vector grows");
    Ok(())
}

/// Asks and waits for the only answer.
///
/// # Errors
/// There is none in time.
pub async fn ask(
    native: &Rc<Native>,
    deadline_ms: u32,
    call: &Call<'_>,
) -> Result<Answer, Failure> {
    let (_, answer) = within(deadline_ms, begin(native, deadline_ms, call)).await?;
    Ok(answer)
}

/// Asks, and asks again while there is no leader: clients of etcd are answered when it has been elected. The
/// first answer, and those that may follow.
///
/// # Errors
/// See [`Gone`].
pub async fn begin(
    native: &Rc<Native>,
    deadline_ms: u32,
    call: &Call<'_>,
) -> Result<(Pending, Answer), Failure> {
    loop {
        let mut pending = native.begin(deadline_ms, call).await.map_err(gone)?;
        let answer = pending.next().await.map_err(gone)?;
        if !answer.lacks_leader() {
            return Ok((pending, answer));
        }
        glommio::timer::sleep(ELECTION_PAUSE).await;
    }
}

/// What comes of it in this time: a member without others answers no write, and its client is not left to wait
/// for ever.
///
/// # Errors
/// [`Failure::TIMEOUT`].
pub async fn within<T>(
    deadline_ms: u32,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = async {
        glommio::timer::sleep(Duration::from_millis(deadline_ms.into())).await;
        Err(Failure::TIMEOUT)
    };
    futures_lite::future::or(work, late).await
}

/// The newest revision that this member has.
///
/// # Errors
/// There is no answer.
pub async fn revision(native: &Rc<Native>, deadline_ms: u32) -> Result<i64, Failure> {
    // No range is shorter than one key.
    let range = Range { key: &[0], count_only: true, serializable: true, ..Range::default() };
    let answer = ask(native, deadline_ms, &Call::Range(range)).await?;
    match read(&answer, Subject::Read)? {
        Reply::Range(reply) => Ok(reply.revision),
        reply => Err(unexpected(&reply)),
    }
}

/// The reply in an answer, or why the request was refused.
///
/// # Errors
/// The refusal, in etcd's words.
pub fn read(answer: &Answer, subject: Subject) -> Result<Reply<'_>, Failure> {
    match answer.reply() {
        Ok(Reply::Refused(refused)) => Err(Failure::of(&refused, subject)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(Failure::new(Code::Internal, error.to_string())),
    }
}

/// There is no answer.
pub fn gone(gone: Gone) -> Failure {
    match gone {
        Gone::Closed => Failure::STOPPED,
        Gone::TooLarge => Failure::REQUEST_TOO_LARGE,
    }
}

/// An answer to another question: a defect of this process.
pub fn unexpected(reply: &Reply<'_>) -> Failure {
    Failure::new(Code::Internal, format!("an answer of another kind came: {reply:?}"))
}
