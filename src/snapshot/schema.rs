//! How etcd's data stand in buckets.
//!
//! ```text
//! key       revision 17 bytes: main u64 | '_' | sub u64, big endian, 't' behind it for a delete -> KeyValue
//! lease     id u64 big endian -> Lease
//! meta      consistent_index, term: u64 big endian; storageVersion: text; confState: JSON
//!           scheduledCompactRev, finishedCompactRev: a revision
//! members   id in hexadecimal -> JSON         cluster   clusterVersion: text
//! alarm     AlarmMember -> nothing
//! auth, authRoles, authUsers, members_removed: there, and empty in what is written here
//! ```

/// Every bucket that etcd wants to find, in order.
pub const BUCKETS: [&str; 10] = [
    ALARM,
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    KEY,
    LEASE,
    MEMBERS,
    "members_removed",
    META,
];

pub const ALARM: &str = "alarm";
pub const KEY: &str = "key";
pub const LEASE: &str = "lease";
pub const MEMBERS: &str = "members";
pub const META: &str = "meta";

pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
pub const CONF_STATE: &[u8] = b"confState";
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub const TERM: &[u8] = b"term";
pub const FINISHED: &[u8] = b"finishedCompactRev";
pub const SCHEDULED: &[u8] = b"scheduledCompactRev";

/// Bytes of a revision.
pub const REVISION_SIZE: usize = 17;

/// Marks the revision of a delete.
const TOMBSTONE: u8 = b't';

/// A revision as a key.
pub fn revision_key(main: u64, sub: u64, is_delete: bool) -> ([u8; REVISION_SIZE + 1], usize) {
    let mut key = [TOMBSTONE; REVISION_SIZE + 1];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&sub.to_be_bytes());
    (key, REVISION_SIZE + usize::from(is_delete))
}

/// Main and sub revision in a key, and whether it is a delete's; none if the bytes are no such key.
pub fn revision_of(key: &[u8]) -> Option<(u64, u64, bool)> {
    let is_delete = match key.get(REVISION_SIZE..)? {
        [] => false,
        [TOMBSTONE] => true,
        _ => return None,
    };
    let main = u64::from_be_bytes(*key.first_chunk()?);
    let sub = u64::from_be_bytes(*key.get(9..)?.first_chunk()?);
    (key[8] == b'_').then_some((main, sub, is_delete))
}
