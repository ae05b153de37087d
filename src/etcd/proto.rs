//! etcd's messages, as they stand on the wire: names and field numbers are those of etcd 3.7.
//!
//! Keys and values are [`bytes::Bytes`], so that decoding from one does not copy them. Numbers of
//! enums stay `i32`: one that this release does not know is not an error of the decoder, it is up to
//! the meaning of the field.

pub mod auth;
pub mod cluster;
pub mod health;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod recipes;
pub mod watch;
