//! What every answer is given that is none of gRPC: who may read it in a browser, and how it goes out that was asked
//! for with HEAD or OPTIONS.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONTENT_LENGTH, HeaderValue, ORIGIN,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response};

use super::grpc::Reply;

/// The origin whose pages may read the answers to this request.
fn origin(allowed: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    if allowed.iter().any(|one| one == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let asks = headers.get(ORIGIN)?;
    allowed.iter().any(|one| one.as_bytes() == asks.as_bytes()).then(|| asks.clone())
}

/// The answer to a browser that asks what it may do; none: it asks for something else.
pub fn preflight(parts: &Parts) -> Option<Response<Reply>> {
    (parts.method == Method::OPTIONS).then(|| Response::new(Reply::Whole(None, None)))
}

/// Adds what belongs to every answer. To HEAD it goes without its body.
pub fn finish(response: &mut Response<Reply>, parts: &Parts, allowed: &[String]) {
    if let Some(origin) = origin(allowed, &parts.headers) {
        let headers = response.headers_mut();
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
    if parts.method == Method::HEAD {
        let size = match response.body() {
            Reply::Whole(Some(bytes), _) => bytes.len(),
            Reply::Whole(None, _) | Reply::Stream(_) => 0,
        };
        *response.body_mut() = Reply::Whole(None, None);
        response.headers_mut().insert(CONTENT_LENGTH, size.into());
    }
}
