//! HTTP/1.1 for tests: what probes, scrapers and clients of etcd's JSON gateway send.
//!
//! Include it with `mod http;`. Each test file uses a part of it.

#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A connection that asks one thing after the other.
pub struct Http {
    /// Both ways.
    pub stream: BufReader<TcpStream>,
}

impl Http {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Asks something.
    pub fn send(&mut self, method: &str, path: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The status of the next response, and whether its body comes in chunks or how long it is.
    pub fn head(&mut self) -> (u16, Option<usize>) {
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut size = None;
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                return (status.expect("a status"), size);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                size = value.trim().parse().ok();
            }
        }
    }

    /// Asks, and the status and the body of the answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.send(method, path, body);
        self.answer()
    }

    /// The status and the body of the next answer.
    pub fn answer(&mut self) -> (u16, String) {
        let (status, size) = self.head();
        let mut body = vec![0; size.expect("the size of the body is known")];
        self.stream.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// The same with JSON both ways.
    pub fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask("POST", path, &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// The next chunk of a body that comes in chunks.
    pub fn chunk(&mut self) -> String {
        let size = usize::from_str_radix(&self.line(), 16).expect("a size");
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        String::from_utf8(chunk).unwrap()
    }
}
