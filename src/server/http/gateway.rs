//! etcd's API as JSON, below `/v3/`: the same calls, their messages written as JSON.

use std::rc::Rc;
use std::time::Duration;

use etcd::shapes::{self, Route};
use etcd::{Code, Failure, PREFIX_SIZE, json};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::deadline;
use super::grpc::{self, Messages};
use super::plain;
use super::range;
use super::service;
use super::{Link, STOP_GRACE};

/// Answers a request; `path` begins behind the version.
pub async fn respond(
    link: &Rc<Link>,
    path: &str,
    parts: &Parts,
    body: Incoming,
) -> Response<grpc::Reply> {
    let Some(route) = shapes::route(path) else {
        return plain::json(StatusCode::NOT_FOUND, "{\"code\":5,\"message\":\"Not Found\"}".into());
    };
    if parts.method != Method::POST {
        return refused(&Failure::new(Code::Unimplemented, "Method Not Allowed"));
    }
    link.gate.count_client(&parts.headers, route.is_stream);
    let timeout = match deadline::of_gateway(&parts.headers) {
        Ok(Some(Duration::ZERO)) => return refused(&Failure::DEADLINE_EXCEEDED),
        Ok(timeout) => timeout,
        Err(failure) => return refused(&failure),
    };
    let orphaned = match service::admit(link, &parts.headers).await {
        Ok(orphaned) => orphaned,
        Err(failure) => return refused(&failure),
    };
    let messages = Messages::of_json(body, route, link.gate.api.message_size_max(), orphaned);
    if route.is_stream {
        return match service::stream(link, route.method, messages) {
            Ok(mut response) => {
                grpc::limit(&mut response, timeout);
                response
            }
            Err(_) => refused(&service::unknown(route.method)),
        };
    }
    if route.method == range::METHOD {
        let answer = range::serve(link, Some(route), timeout, messages).await;
        return answer.unwrap_or_else(|failure| refused(&failure));
    }
    match unary(link, route, timeout, messages).await {
        Ok(text) => plain::json(StatusCode::OK, text),
        Err(failure) => refused(&failure),
    }
}

async fn unary(
    link: &Rc<Link>,
    route: &Route,
    timeout: Option<Duration>,
    mut messages: Messages,
) -> Result<String, Failure> {
    let work = async |deadline_ms| {
        let message = link.gate.until_stop(STOP_GRACE, messages.next_one()).await?;
        service::unary(link, route.method, deadline_ms, message).await
    };
    let out = deadline::within(timeout, link.gate.api.request_timeout_ms, work).await?;
    json::write(&out[PREFIX_SIZE..], route.answer)
}

fn refused(failure: &Failure) -> Response<grpc::Reply> {
    let status = StatusCode::from_u16(json::http_status(failure.code));
    plain::json(status.expect("a status of HTTP"), json::failure(failure))
}
