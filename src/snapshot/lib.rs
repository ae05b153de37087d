//! snapshot: etcd's snapshot files, made of the chunks of a state and read back. The content is a bbolt file in
//! the storage schema of etcd 3.6 and later, so that both systems restore what either has saved.
//!
//! ```text
//! chunks of a state ─► kv::Unpack ─► versions in the order of keys
//!                  ─► Sorter: runs on disk, merged ─► in the order of revisions ─► bbolt::Writer ─► the file
//! the file ─► bbolt::Db ─► Contents: versions in the order of revisions, leases, what else there is
//! ```
//!
//! Files and threads belong to whoever drives it; what is here reads and writes files of its own only, and
//! blocks while it does.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

mod castagnoli;
mod contents;
mod error;
mod image;
mod proto;
mod saved;
mod schema;
mod sort;
mod status;

pub use contents::{Contents, Lease, Left, Pair, Revision};
pub use error::Error;
pub use image::{Builder, Image, Sum};
pub use saved::{CHECKSUM_SIZE, Checked, End, Saved};
pub use status::Status;

/// The version of etcd's storage schema that is written.
pub const STORAGE_VERSION: &str = "3.7.0";
