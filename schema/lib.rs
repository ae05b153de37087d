//! The FlatBuffers schemas of the native protocol, and the Rust that flatc wrote from them.
//!
//! `client.fbs` (clients and members) and `peer.fbs` (members among each other) are the documents;
//! `generated.rs` and `generated_peer.rs` are flatc's output, committed so that building needs
//! neither flatc nor a C++ compiler. After a change of a schema run
//!
//! ```text
//! cargo run --release --manifest-path schema/regenerate/Cargo.toml
//! ```
//!
//! `tests/fresh.rs` fails until that has been done. Only `wire` uses this crate: everything above it
//! sees plain Rust types.

#![no_std]

extern crate alloc;

// flatc's output reads buffers through unsafe accessors and follows its own style.
#[rustfmt::skip]
#[allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    missing_docs,
    unused_imports,
    unused_qualifications,
    mismatched_lifetime_syntaxes,
    clippy::all,
    clippy::unwrap_used
)]
mod generated;
#[rustfmt::skip]
#[allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    missing_docs,
    unused_imports,
    unused_qualifications,
    mismatched_lifetime_syntaxes,
    clippy::all,
    clippy::unwrap_used
)]
mod generated_peer;

pub use generated::quorate::client::*;

/// Frames between members.
pub mod peer {
    pub use crate::generated_peer::quorate::peer::*;
}
