//! The bounds of the protocol: what a frame may measure and what a body may make its reader do.
//!
//! | bound | value | who checks it | beyond it |
//! | --- | --- | --- | --- |
//! | body before the handshake | 16 KiB | [`Splitter`](crate::Splitter), before buffering | connection closes |
//! | body of a request | value limit + 512 KiB, told in `HelloReply` | splitter; encoder | closes; `EncodeError::TooLarge` |
//! | body of a reply | 1 MiB + 16 MiB + 512 KiB, told in `HelloReply` | splitter; writer | closes; `TooLarge` refusal |
//! | body of a frame between members | greatest request + 4 MiB | splitter; encoder | closes; `TooLarge` |
//! | piece of a range answer | ends with the key that reaches 1 MiB | [`RangeWriter`](crate::RangeWriter) | next piece |
//! | nesting of transactions | 128 | verifier, encoder | refused |
//! | tables of one request body, shared ones counted each time | 50,176 | verifier | refused |
//! | bytes that a body stands for when shared parts are counted each time | its size + 64 for each table allowed | verifier | refused |
//! | requests and bytes in flight | told in `HelloReply` | the server stops reading | back-pressure |
//!
//! Sharing is the way in which a small FlatBuffers body can stand for a large message (a hundred
//! operations that point at one value). The last bound but one takes that away.

use base::limits::{
    KEY_SIZE_MAX, REPLY_PIECE_SIZE, REQUEST_OVERHEAD_MAX, TXN_OPS_MAX, TXN_OPS_MAX_DEFAULT,
    VALUE_SIZE_MAX, body_size_max,
};

/// Bytes of the greatest body before the handshake is done, in both directions.
pub const HANDSHAKE_BODY_SIZE_MAX: usize = 16 << 10;

/// Bytes of the greatest body of a reply: a full piece of a range answer and one more greatest key
/// and value.
pub const REPLY_BODY_SIZE_MAX: usize = REPLY_PIECE_SIZE + VALUE_SIZE_MAX + REQUEST_OVERHEAD_MAX;

/// Bytes of the greatest body between members: the greatest request as one entry of the log, or many
/// small ones, and what stands around them. Whoever gathers entries stops far below it.
pub const PEER_BODY_SIZE_MAX: usize = body_size_max(VALUE_SIZE_MAX) + (4 << 20);

/// Transactions inside each other, the outermost one included. A nested transaction may hold fewer
/// operations than its parent left it (`base::limits::TXN_OPS_MAX_DEFAULT`), so deeper ones would be
/// refused anyway unless more operations are allowed.
pub const TXN_DEPTH_MAX: usize = TXN_OPS_MAX_DEFAULT;

/// Tables of one request: a transaction with as many compares and operations in both branches as can be
/// allowed, each of two tables.
pub const REQUEST_TABLES_MAX: usize = 6 * TXN_OPS_MAX + 1_024;

/// Tables of one reply: each operation of a transaction answers with up to three.
pub const REPLY_TABLES_MAX: usize = 3 * REQUEST_TABLES_MAX;

/// Bytes that each table may add to the apparent size: its vtable and the reading of its fields.
const TABLE_OVERHEAD: usize = 64;

/// What verifying one body may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerifyLimits {
    /// Greatest depth of transactions inside each other.
    pub txn_depth_max: usize,
    /// Greatest number of tables; one that is referred to twice counts twice.
    pub tables_max: usize,
}

impl VerifyLimits {
    /// For requests.
    pub const REQUEST: Self = Self { txn_depth_max: TXN_DEPTH_MAX, tables_max: REQUEST_TABLES_MAX };

    /// For replies.
    pub const REPLY: Self = Self { txn_depth_max: TXN_DEPTH_MAX, tables_max: REPLY_TABLES_MAX };

    /// Bytes that a body of `body_size` may stand for.
    pub(crate) const fn apparent_size_max(&self, body_size: usize) -> usize {
        body_size.saturating_add(self.tables_max * TABLE_OVERHEAD)
    }
}

/// What the library's verifier is told for bodies of a single table.
pub(crate) const fn flat_options(body_size: usize) -> flatbuffers::VerifierOptions {
    flatbuffers::VerifierOptions {
        max_depth: 1,
        max_tables: 1,
        // Its fields, their entries in the vtable, and both again for having been looked at.
        max_apparent_size: body_size.saturating_mul(2).saturating_add(1_024),
        ignore_missing_null_terminator: true,
    }
}

/// Limits in one reply.
pub const LIMITS_MAX: usize = 64;

/// The same for a list of [`LIMITS_MAX`] tables.
pub(crate) const fn list_options(body_size: usize) -> flatbuffers::VerifierOptions {
    let flat = flat_options(body_size);
    flatbuffers::VerifierOptions {
        max_depth: 2,
        max_tables: 1 + LIMITS_MAX,
        max_apparent_size: flat.max_apparent_size + LIMITS_MAX * TABLE_OVERHEAD,
        ..flat
    }
}

const _: () = assert!(
    KEY_SIZE_MAX + 4_096 < REQUEST_OVERHEAD_MAX,
    "beside a full piece, a reply holds one more greatest key and value"
);
const _: () = assert!(REPLY_BODY_SIZE_MAX < 1 << 31, "FlatBuffers end at 2 GiB");
