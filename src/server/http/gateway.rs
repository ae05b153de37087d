//! etcd's API as JSON, below `/v3/`: the same calls, their messages written as JSON.

use std::rc::Rc;

use etcd::shapes::{self, Route};
use etcd::{Code, Failure, PREFIX_SIZE, json};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::Link;
use super::grpc::{self, Messages};
use super::plain;
use super::service;

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
    let orphaned = match service::admit(link, &parts.headers).await {
        Ok(orphaned) => orphaned,
        Err(failure) => return refused(&failure),
    };
    let messages = Messages::of_json(body, route, link.gate.api.message_size_max(), orphaned);
    if route.is_stream {
        return service::stream(link, route.method, messages).unwrap_or_else(|messages| {
            drop(messages);
            refused(&service::unknown(route.method))
        });
    }
    match unary(link, route, messages).await {
        Ok(text) => plain::json(StatusCode::OK, text),
        Err(failure) => refused(&failure),
    }
}

async fn unary(link: &Rc<Link>, route: &Route, mut messages: Messages) -> Result<String, Failure> {
    // An empty body is an empty message.
    let message = messages.next().await?.unwrap_or_default();
    let out = service::unary(link, route.method, link.gate.api.request_timeout_ms, message).await?;
    json::write(&out[PREFIX_SIZE..], route.answer)
}

fn refused(failure: &Failure) -> Response<grpc::Reply> {
    let status = StatusCode::from_u16(json::http_status(failure.code));
    plain::json(status.expect("a status of HTTP"), json::failure(failure))
}
