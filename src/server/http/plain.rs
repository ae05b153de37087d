//! What is asked for without gRPC: health, version, figures.
//!
//! Paths, parameters and texts are etcd's, so that probes made for it work.

use std::fmt::Write as _;
use std::rc::Rc;

use bytes::Bytes;
use etcd::Subject;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use wire::{Call, Range, Reply, StatusReply};

use super::grpc;
use super::service::{ask, read};
use super::{Link, debug};
use crate::config::Serves;

/// How long a check may take.
const CHECK_TIMEOUT_MS: u32 = 5_000;

const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Whether a page is served at this address.
pub fn is_served(serves: Serves, path: &str) -> bool {
    match serves {
        Serves::Everything | Serves::Http => true,
        Serves::Metrics => {
            let first = path.split('/').nth(1).unwrap_or_default();
            matches!(first, "metrics" | "health" | "livez" | "readyz")
        }
    }
}

/// There is nothing at this path.
pub fn nothing() -> Response<grpc::Reply> {
    text(StatusCode::NOT_FOUND, "404 page not found\n".into())
}

/// Answers a request, if it is for one of these paths. As in etcd figures are told whatever the method is.
pub async fn respond(link: &Rc<Link>, parts: &Parts) -> Response<grpc::Reply> {
    let parameters = Parameters(parts.uri.query().unwrap_or(""));
    let path = parts.uri.path();
    let is_probe = ["/livez", "/readyz"].iter().any(|name| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if parts.method != Method::GET && (is_probe || ["/health", "/version"].contains(&path)) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/health" => health(link, &parameters).await,
        "/version" => json(StatusCode::OK, version()),
        "/metrics" => super::metrics::respond(link).await,
        "/debug/vars" => json(StatusCode::OK, debug::variables(&link.gate)),
        "/debug/requests" => text(StatusCode::OK, debug::requests(&link.gate)),
        _ => {
            let asked = ["livez", "readyz"].into_iter().find_map(|name| {
                let rest = path.strip_prefix('/')?.strip_prefix(name)?;
                Some((name, rest.strip_prefix('/').or(rest.is_empty().then_some(""))?))
            });
            match asked {
                Some((name, one)) => probe(link, name, one, &parameters).await,
                None => nothing(),
            }
        }
    }
}

/// What `/version` says: the release of etcd whose behaviour this has, and our own.
fn version() -> String {
    format!(
        "{{\"etcdserver\":\"{0}\",\"etcdcluster\":\"{1}\",\"storage\":\"{1}\",\"quorate\":\"{2}\"}}",
        etcd::VERSION,
        etcd::CLUSTER_VERSION,
        env!("CARGO_PKG_VERSION")
    )
}

/// The parameters behind the question mark.
struct Parameters<'a>(&'a str);

impl Parameters<'_> {
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A response with a body of text.
fn text(status: StatusCode, body: String) -> Response<grpc::Reply> {
    let mut response = whole(status, body, "text/plain; charset=utf-8");
    response.headers_mut().insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// A response with a body of JSON.
pub fn json(status: StatusCode, body: String) -> Response<grpc::Reply> {
    whole(status, body, "application/json")
}

/// A response with this body.
pub fn whole(status: StatusCode, body: String, kind: &'static str) -> Response<grpc::Reply> {
    let mut response = Response::new(grpc::Reply::Whole(Some(Bytes::from(body)), None));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `/health`.
async fn health(link: &Rc<Link>, parameters: &Parameters<'_>) -> Response<grpc::Reply> {
    let serializable = parameters.values("serializable").any(|value| value == "true");
    let reason = unhealthy(link, parameters, serializable).await;
    let counters = &link.gate.counters;
    if reason.is_none() {
        counters.healthy.add(1)
    } else {
        counters.unhealthy.add(1)
    }
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!(
        "{{\"health\":\"{}\",\"reason\":\"{}\"}}",
        reason.is_none(),
        reason.unwrap_or_default()
    );
    whole(status, body, "text/plain; charset=utf-8")
}

/// Why the member is not healthy.
async fn unhealthy(
    link: &Rc<Link>,
    parameters: &Parameters<'_>,
    serializable: bool,
) -> Option<String> {
    let alarm = with_status(link, |status| {
        let alarms = [("NOSPACE", status.no_space), ("CORRUPT", status.corrupt)];
        alarms.into_iter().find(|(name, is_on)| {
            *is_on && !parameters.values("exclude").any(|excluded| excluded == *name)
        })
    });
    match alarm.await {
        Ok(Some((name, _))) => return Some(format!("ALARM {name}")),
        Ok(None) => {}
        Err(error) => return Some(format!("STATUS ERROR:{error}")),
    }
    if !serializable && !link.has_leader() {
        return Some("RAFT NO LEADER".into());
    }
    check_read(link, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// Looks at the member's state.
async fn with_status<T>(
    link: &Rc<Link>,
    look: impl FnOnce(&StatusReply<'_>) -> T,
) -> Result<T, String> {
    let answer = ask(&link.native, CHECK_TIMEOUT_MS, &Call::Status).await;
    let answer = answer.map_err(|failure| failure.message.into_owned())?;
    match read(&answer, Subject::Read) {
        Ok(Reply::Status(status)) => Ok(look(&status)),
        Ok(reply) => Err(format!("an answer of another kind came: {reply:?}")),
        Err(failure) => Err(failure.message.into_owned()),
    }
}

/// Reads a key.
async fn check_read(link: &Rc<Link>, serializable: bool) -> Result<(), String> {
    let range = Range { key: b"a", limit: 1, serializable, ..Range::default() };
    let answer = ask(&link.native, CHECK_TIMEOUT_MS, &Call::Range(range)).await;
    let answer = answer.map_err(|failure| failure.message.into_owned())?;
    read(&answer, Subject::Read).map(|_| ()).map_err(|failure| failure.message.into_owned())
}

/// The checks of a probe, in the order in which they are told.
fn checks(probe: &str) -> &'static [&'static str] {
    if probe == "livez" {
        &["serializable_read"]
    } else {
        &["data_corruption", "serializable_read", "linearizable_read", "non_learner"]
    }
}

/// `/livez`, `/readyz`, or one of their checks.
async fn probe(
    link: &Rc<Link>,
    probe: &str,
    one: &str,
    parameters: &Parameters<'_>,
) -> Response<grpc::Reply> {
    if !one.is_empty() && !checks(probe).contains(&one) {
        return text(StatusCode::NOT_FOUND, "404 page not found\n".into());
    }
    let wanted = checks(probe).iter().filter(|check| {
        let is_excluded = parameters.values("exclude").any(|excluded| excluded == **check);
        if one.is_empty() { !is_excluded } else { **check == one }
    });
    let mut told = String::new();
    let mut is_well = true;
    for check in wanted {
        match run(link, check).await {
            Ok(()) => told.push_str(&format!("[+]{check} ok\n")),
            Err(reason) => {
                is_well = false;
                // A String takes everything.
                let _ = writeln!(told, "[-]{check} failed: {reason}");
            }
        }
    }
    let is_verbose = parameters.values("verbose").next().is_some();
    match (is_well, is_verbose) {
        (true, true) => text(StatusCode::OK, format!("{told}ok\n")),
        (true, false) => text(StatusCode::OK, "ok\n".into()),
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, told),
    }
}

async fn run(link: &Rc<Link>, check: &str) -> Result<(), String> {
    match check {
        "serializable_read" => check_read(link, true).await,
        "linearizable_read" => check_read(link, false).await,
        "data_corruption" => with_status(link, |status| status.corrupt).await.and_then(|corrupt| {
            if corrupt { Err("alarm activated: CORRUPT".into()) } else { Ok(()) }
        }),
        _ => with_status(link, |status| status.is_learner).await.and_then(|is_learner| {
            if is_learner { Err("the member is a learner".into()) } else { Ok(()) }
        }),
    }
}
