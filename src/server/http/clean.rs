//! Paths with more slashes than they need, or with dots: whoever asks is sent to the path that is meant, as etcd does.

use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::grpc::Reply;
use super::plain::whole;

/// The path that is meant; none: it is this one.
fn cleaned(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    if path == "/v3" {
        return Some("/v3/".into());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    (clean != path).then_some(clean)
}

/// Sends the client to the path that is meant, if that is another one.
pub fn redirect(parts: &Parts) -> Option<Response<Reply>> {
    let path = cleaned(parts.uri.path())?;
    let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let target = format!("{path}{query}");
    let location = HeaderValue::from_str(&target).ok()?;
    let mut response = if [Method::GET, Method::HEAD].contains(&parts.method) {
        let link = target.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let link = link.replace('"', "&#34;").replace('\'', "&#39;");
        let body = format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n");
        whole(StatusCode::TEMPORARY_REDIRECT, body, "text/html; charset=utf-8")
    } else {
        let mut response = whole(StatusCode::TEMPORARY_REDIRECT, String::new(), "");
        response.headers_mut().remove(CONTENT_TYPE);
        response
    };
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_empty_parts_and_dots() {
        for (path, clean) in [
            ("//v3/kv/range", "/v3/kv/range"),
            ("/v3//kv/range", "/v3/kv/range"),
            ("/v3/kv//", "/v3/kv/"),
            ("/v3", "/v3/"),
            ("///", "/"),
            ("/./health", "/health"),
            ("/v3/../health", "/health"),
            ("/health/..", "/"),
            ("/../..", "/"),
        ] {
            assert_eq!(cleaned(path).as_deref(), Some(clean), "{path}");
        }
        for path in ["/", "/v3/", "/v3/kv/range", "/health", "/a/", "/..a/b."] {
            assert_eq!(cleaned(path), None, "{path}");
        }
    }
}
