//! etcd's v3 API as pure translation: bytes of etcd's messages to native requests, native replies to
//! bytes of etcd's messages, native refusals to gRPC codes with etcd's texts.
//!
//! No sockets, no HTTP/2, no clock, no state: who holds connections and streams asks this crate what
//! to say to whom.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod auth;
mod decode;
mod failure;
pub mod json;
mod json_value;
pub mod log_entry;
pub mod proto;
mod protobuf;
pub mod request;
pub mod response;
pub mod shapes;
mod watch_stream;

use alloc::vec;
use alloc::vec::Vec;

pub use decode::{TXN_ITEMS_MAX, decode, decode_txn};
pub use failure::{Code, Failure, Subject};
pub use prost::Message;
pub use response::Answerer;
pub use watch_stream::{Effect, Notice, WatchStream};

/// The release of etcd whose behaviour this is.
pub const VERSION: &str = "3.7.3";

/// The version of a cluster of such members.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// The same without its patch level.
pub const CLUSTER_VERSION_SHORT: &str = "3.7";

/// Bytes in front of a message in gRPC: whether it is compressed, and its size.
pub const PREFIX_SIZE: usize = 5;

/// Room for the prefix of a message, which is written behind it.
pub fn begin_message() -> Vec<u8> {
    vec![0; PREFIX_SIZE]
}
