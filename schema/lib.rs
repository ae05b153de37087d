//! The FlatBuffers schema of the native protocol, and the Rust that flatc wrote from it.
//!
//! `client.fbs` is the document; `generated.rs` is flatc's output, committed so that building needs
//! neither flatc nor a C++ compiler. After a change of the schema run
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

pub use generated::quorate::client::*;
