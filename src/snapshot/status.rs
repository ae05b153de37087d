//! What a snapshot is, in five figures: those of etcd's own tool.

use std::collections::HashSet;

use crate::contents::Part;
use crate::proto::KeyValue;
use crate::{Contents, Error, Saved, castagnoli, schema};

/// The figures of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// A checksum over all buckets, as `etcdutl snapshot status` says it.
    pub hash: u32,
    /// The newest revision.
    pub revision: u64,
    /// Keys that are there at the newest revision.
    pub keys: u64,
    /// Versions and deletes that are kept.
    pub versions: u64,
    /// Leases.
    pub leases: u64,
    /// The oldest revision that can be read; 0 before the first compaction.
    pub compacted: u64,
    /// Bytes of the file, its checksum not counted.
    pub size: u64,
    /// The version of the storage schema; empty: it says none.
    pub version: String,
}

impl Status {
    /// Reads all of a snapshot.
    ///
    /// # Errors
    /// It is damaged, or is no snapshot.
    pub fn read(saved: &Saved) -> Result<Self, Error> {
        let mut status = Self {
            hash: 0,
            revision: 0,
            keys: 0,
            versions: 0,
            leases: 0,
            compacted: 0,
            size: 0,
            version: String::new(),
        };
        // Judged first: the checksum takes any bytes.
        let mut contents = Contents::open(saved)?;
        status.compacted = contents.compacted().unwrap_or(0);
        status.size = contents.size();
        status.version = contents.version().unwrap_or_default().to_owned();
        // Hashes in the place of keys: 16 bytes for each that is there, whatever its size.
        let mut there = HashSet::new();
        let mut wrong = None;
        contents.each(&mut |part| match part {
            Part::Bucket(name) => status.hash = castagnoli::append(status.hash, name),
            Part::Pair(name, key, value) => {
                let hash = castagnoli::append(status.hash, key);
                status.hash = castagnoli::append(hash, value);
                status.leases += u64::from(name == schema::LEASE.as_bytes());
                if name != schema::KEY.as_bytes() {
                    return;
                }
                let (Some((main, _, is_delete)), Some(pair)) =
                    (schema::revision_of(key), KeyValue::decode(value))
                else {
                    wrong = Some(key.to_vec());
                    return;
                };
                status.revision = status.revision.max(main);
                status.versions += 1;
                let hash = base::hash128(pair.key).to_bytes();
                if is_delete {
                    there.remove(&hash);
                } else if !pair.key.is_empty() {
                    there.insert(hash);
                }
            }
        })?;
        if let Some(key) = wrong {
            return Err(Error::Record { bucket: schema::KEY, key });
        }
        status.keys = u64::try_from(there.len()).expect("a count");
        Ok(status)
    }
}
