//! Every bound of the system that is not a matter of one file's format, and how they relate.
//!
//! Sizes are bytes. Where a bound can be configured, this is its default and its greatest value.

/// Bytes of a page of the page file.
pub const PAGE_SIZE: usize = 8192;

/// Alignment of every disk write: the greatest logical block size that O_DIRECT may ask for.
pub const BLOCK_SIZE: usize = 4096;

/// Greatest key: a quarter of a page, so that a branch page always holds several keys.
/// etcd bounds only the request; here a longer key is refused with this number in the text.
pub const KEY_SIZE_MAX: usize = PAGE_SIZE / 4;

/// Greatest key of a tree of the page file: a user key behind the lease that it hangs on.
pub const TREE_KEY_SIZE_MAX: usize = KEY_SIZE_MAX + 8;

/// Default greatest value, etcd's default request limit.
pub const VALUE_SIZE_MAX_DEFAULT: usize = 3 << 19;

/// Greatest value that can be configured.
pub const VALUE_SIZE_MAX: usize = 16 << 20;

/// What a request may hold beside its value: keys, compares and the other operations' overhead.
pub const REQUEST_OVERHEAD_MAX: usize = 512 << 10;

/// Default greatest number of operations, compares, or operations of the other branch of a transaction
/// (etcd's max-txn-ops); a nested transaction gets what its parent left.
pub const TXN_OPS_MAX_DEFAULT: usize = 128;

/// The same that can be configured: what still verifies in a bounded time.
pub const TXN_OPS_MAX: usize = 8_192;

/// Clients that are remembered so that a write they send again takes effect once; one more registers at
/// the expense of the one that has not written for longest. With results of [`CLIENT_RESULTS_MAX`]
/// writes each they would take some 1 GB of the page file, with the few that a client has in flight
/// some 10 MB.
pub const CLIENTS_MAX: u32 = 65_536;

/// Results that are kept of one client: how far the number of a write may be beyond the oldest one that
/// the client still waits for. A client that has more in flight than this is better served by a second
/// registration.
pub const CLIENT_RESULTS_MAX: u64 = 256;

/// Leases that one request may keep alive.
pub const KEEP_ALIVE_MAX: usize = 4_096;

/// Ranges of one watch.
pub const WATCH_RANGES_MAX: usize = 64;

/// Watches of one connection.
pub const CONNECTION_WATCHES_MAX: usize = 10_000;

/// Watches of a member.
pub const WATCHES_MAX: usize = 1_000_000;

/// Leases of a cluster.
pub const LEASES_MAX: u64 = 2_000_000;

/// Least time of a lease, in milliseconds: some heartbeats of the leader, so that it can be kept alive.
pub const LEASE_TTL_MIN_MS: u64 = 100;

/// Greatest time of a lease, in milliseconds: etcd's 9,000,000,000 seconds.
pub const LEASE_TTL_MAX_MS: u64 = 9_000_000_000_000;

/// Bytes of one piece of a range answer; longer answers go out in several frames.
pub const REPLY_PIECE_SIZE: usize = 1 << 20;

/// Requests in flight of one connection: the credits that the handshake grants.
pub const CONNECTION_REQUESTS_MAX: usize = 1024;

/// Bytes of requests in flight of one connection. One greatest request always fits.
pub const CONNECTION_BYTES_MAX: usize = 32 << 20;

/// Reads of one connection that the store works on at once; each may hold one piece of its answer.
/// The others wait their turn.
pub const CONNECTION_READS_MAX: usize = 64;

/// Bytes that the reads in progress of a member may hold: lists being sorted, and what transactions
/// that only read have gathered, with the frames that their answers become. A constant, because one
/// greatest read (some 180 MiB) must fit however small the page cache is, and more than a few at once
/// end no sooner.
pub const READS_SIZE_MAX: usize = 256 << 20;

/// The same for what writes read for their answers. Apart from reads, whose clients may be slow to
/// take what they asked for: an answer is never held up by them.
pub const ANSWERS_SIZE_MAX: usize = 208 << 20;

/// Bytes of answers of writes that have not been read yet, beside what they hold: with more, nothing
/// further is applied.
pub const ANSWERS_WAITING_MAX: usize = 64 << 20;

/// Milliseconds for which a large read may wait for its client to take the next piece while others
/// wait for the memory that it holds.
pub const READ_STALL_TIMEOUT_MS: u64 = 10_000;

/// Milliseconds from the begin of a read for which trimming leaves what it needs, although compaction has
/// overtaken it: what that keeps is the history of so long a time.
pub const READ_HOLD_MS: u64 = 600_000;

/// Milliseconds for which it does so while the client takes no piece.
pub const READ_HOLD_STALLED_MS: u64 = 30_000;

/// Bytes of a receive chunk. All connections of a reactor fill one chunk after the other, so that
/// small requests of many lie side by side.
pub const RECEIVE_CHUNK_SIZE: usize = 256 << 10;

/// Bytes that are kept in memory, over all connections of a reactor, by frames that have not come in
/// whole, counted with what they lie in. With more, all connections with such a frame are read from
/// one after the other.
pub const PARTIAL_BYTES_MAX: usize = 256 << 20;

/// Milliseconds in which a frame that has begun must be complete, or have got further by
/// [`PARTIAL_PROGRESS_SIZE`].
pub const PARTIAL_TIMEOUT_MS: u64 = 30_000;

/// Milliseconds in which a frame that has begun must be complete while others wait for the memory that
/// such frames hold.
pub const PARTIAL_TIMEOUT_CROWDED_MS: u64 = 3_000;

/// Bytes of a frame that count as progress.
pub const PARTIAL_PROGRESS_SIZE: usize = 64 << 10;

/// Connections of one reactor.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Milliseconds in which a new connection must have finished its handshake.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 3_000;

/// Bytes of replies, over all connections of a reactor, that sockets may have refused to take before
/// the connection that adds to them is closed; and as many, over those that speak HTTP, that clients have left
/// unread, before one that takes nothing is.
pub const UNSENT_MAX: usize = 256 << 20;

/// Milliseconds for which a connection may refuse to take a byte of its replies.
pub const SEND_STALL_TIMEOUT_MS: u64 = 10_000;

/// Bytes of proposals that have been taken in and are not applied yet, over all connections.
/// It bounds the memory of proposals and what the store may have to apply when the disk is full.
pub const PROPOSED_BYTES_MAX: usize = 64 << 20;

/// Greatest frame body for a value limit of `value_size_max`.
pub const fn body_size_max(value_size_max: usize) -> usize {
    value_size_max + REQUEST_OVERHEAD_MAX
}

const _: () = assert!(PAGE_SIZE.is_multiple_of(BLOCK_SIZE), "pages are written with O_DIRECT");
const _: () = assert!(
    body_size_max(VALUE_SIZE_MAX) <= CONNECTION_BYTES_MAX,
    "one greatest request fits into what one connection may have in flight"
);
const _: () = assert!(
    body_size_max(VALUE_SIZE_MAX) * 2 <= PARTIAL_BYTES_MAX,
    "the greatest frame fits while it comes in, also in memory that doubles"
);
const _: () = assert!(
    CONNECTION_BYTES_MAX <= PROPOSED_BYTES_MAX,
    "one connection's requests fit into what may be proposed"
);
