//! Contents: what a snapshot holds, read in the order of revisions. What is read is judged: nobody vouches
//! for the file.

use base::Alarm;
use bbolt::{Bucket, Db, Walk};

use crate::proto::{self, KeyValue, LeaseRecord};
use crate::{Error, Saved, schema};

/// A place in the history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Revision {
    /// The revision that clients see.
    pub main: u64,
    /// The place of a change within it.
    pub sub: u32,
}

/// A version of a key, or a delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair<'a> {
    /// When it was written.
    pub at: Revision,
    /// The key; empty: nothing but the revision was moved on.
    pub key: &'a [u8],
    /// Whether the key was deleted: what follows is empty then.
    pub is_delete: bool,
    /// The value.
    pub value: &'a [u8],
    /// The revision of the first put of this life of the key.
    pub create: u64,
    /// Puts of this life, this one included.
    pub version: u64,
    /// The lease that it hangs on; 0: none.
    pub lease: i64,
}

/// A lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// Seconds that it lives.
    pub ttl: u64,
}

/// What a snapshot holds beside keys and leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// Members.
    pub members: u64,
    /// Users, roles, and whether they are asked for.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// Whether clients had to log in.
    pub auth_enabled: bool,
    /// Alarms.
    pub alarms: u64,
}

/// What a snapshot holds.
pub struct Contents<'s> {
    db: Db<&'s Saved>,
    walk: Walk,
    last: Option<Revision>,
    compacted: Option<u64>,
    version: Option<String>,
    alarms: Vec<Alarm>,
    left: Left,
}

impl<'s> Contents<'s> {
    /// Looks at everything but keys and leases.
    ///
    /// # Errors
    /// The file is damaged, or is no snapshot.
    pub fn open(saved: &'s Saved) -> Result<Self, Error> {
        let mut db = Db::open(saved)?;
        let none = Error::NoBucket { name: schema::KEY };
        let keys = db.bucket(schema::KEY.as_bytes())?.ok_or(none)?;
        let none = Error::NoBucket { name: schema::META };
        let meta = db.bucket(schema::META.as_bytes())?.ok_or(none)?;
        let (mut compacted, mut version) = (None, None);
        let mut walk = Walk::new(&meta);
        while let Some((key, value)) = walk.next(&mut db)? {
            match key {
                schema::STORAGE_VERSION => {
                    version = Some(String::from_utf8_lossy(value).into_owned());
                }
                // One that was begun is as good as done: no client may read below it any more.
                schema::FINISHED | schema::SCHEDULED => {
                    let wrong = || Error::Record { bucket: schema::META, key: key.to_vec() };
                    let (main, ..) = schema::revision_of(value).ok_or_else(wrong)?;
                    compacted = compacted.max(Some(main));
                }
                _ => {}
            }
        }
        let mut left = Left {
            members: count(&mut db, schema::MEMBERS)?,
            users: count(&mut db, "authUsers")?,
            roles: count(&mut db, "authRoles")?,
            alarms: count(&mut db, schema::ALARM)?,
            auth_enabled: false,
        };
        if let Some(auth) = db.bucket(b"auth")? {
            let mut walk = Walk::new(&auth);
            while let Some((key, value)) = walk.next(&mut db)? {
                left.auth_enabled |= key == b"authEnabled" && value == [1];
            }
        }
        // Before the first compaction it says 0, if anything.
        let compacted = compacted.filter(|main| *main > 0);
        let alarms = alarms(&mut db)?;
        Ok(Self { db, walk: Walk::new(&keys), last: None, compacted, version, alarms, left })
    }

    /// The oldest revision that can be read; none before the first compaction.
    pub fn compacted(&self) -> Option<u64> {
        self.compacted
    }

    /// The version of the storage schema, where the file says one.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The alarms that are up, by kind and member, as far as a store has room for them.
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// What there is beside keys and leases.
    pub fn left(&self) -> Left {
        self.left
    }

    /// Bytes of the file, its checksum not counted.
    pub fn size(&self) -> u64 {
        self.db.size()
    }

    /// The place of the last pair that was read.
    pub fn last(&self) -> Option<Revision> {
        self.last
    }

    /// The next version or delete, in the order of revisions.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn next_pair(&mut self) -> Result<Option<Pair<'_>>, Error> {
        let Some((place, bytes)) = self.walk.next(&mut self.db)? else { return Ok(None) };
        let read = || {
            let (main, sub, is_delete) = schema::revision_of(place)?;
            let at = Revision { main, sub: u32::try_from(sub).ok().filter(|sub| *sub < u32::MAX)? };
            // What follows a revision must have a number, too.
            let in_range = main > 0 && i64::try_from(main).is_ok_and(|main| main < i64::MAX);
            let kv = KeyValue::decode(bytes)?;
            let unsigned = |number: i64| u64::try_from(number).ok();
            let pair = Pair {
                at,
                key: kv.key,
                is_delete,
                value: kv.value,
                create: unsigned(kv.create)?,
                version: unsigned(kv.version)?,
                lease: kv.lease,
            };
            let is_empty = pair.value.is_empty() && pair.create == 0 && pair.version == 0;
            let fits = match (is_delete, kv.key) {
                (true, key) => !key.is_empty() && is_empty,
                (false, []) => is_empty,
                (false, _) => {
                    pair.version > 0
                        && pair.create > 0
                        && pair.create <= main
                        && unsigned(kv.modified) == Some(main)
                }
            };
            (in_range && fits).then_some(pair)
        };
        let pair = read();
        let wrong = || Error::Record { bucket: schema::KEY, key: place.to_vec() };
        let pair = pair.ok_or_else(wrong)?;
        self.last = Some(pair.at);
        Ok(Some(pair))
    }

    /// The leases, in the order of their ids as etcd keeps them.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn leases(&mut self) -> Result<Vec<Lease>, Error> {
        let mut leases = Vec::new();
        let Some(bucket) = self.db.bucket(schema::LEASE.as_bytes())? else { return Ok(leases) };
        let mut walk = Walk::new(&bucket);
        while let Some((key, value)) = walk.next(&mut self.db)? {
            let wrong = || Error::Record { bucket: schema::LEASE, key: key.to_vec() };
            let record = LeaseRecord::decode(value).ok_or_else(wrong)?;
            let id = key.try_into().map(i64::from_be_bytes).ok();
            let ttl = u64::try_from(record.ttl).ok().filter(|ttl| *ttl > 0);
            match (id, ttl) {
                (Some(id), Some(ttl)) if id == record.id && id != 0 => {
                    leases.push(Lease { id, ttl });
                }
                _ => return Err(wrong()),
            }
        }
        Ok(leases)
    }

    /// Everything: for whoever wants all bytes.
    pub(crate) fn each(&mut self, tell: &mut dyn FnMut(Part<'_>)) -> Result<(), Error> {
        let mut names = Walk::new(&self.db.buckets());
        while let Some((name, bucket)) = names.next_bucket(&mut self.db)? {
            tell(Part::Bucket(&name));
            let mut walk = Walk::new(&bucket);
            while let Some((key, value)) = walk.next(&mut self.db)? {
                tell(Part::Pair(&name, key, value));
            }
        }
        Ok(())
    }
}

/// A part of a file.
pub(crate) enum Part<'a> {
    /// A bucket begins, of this name.
    Bucket(&'a [u8]),
    /// In the bucket of this name there is this key with this value.
    Pair(&'a [u8], &'a [u8], &'a [u8]),
}

fn alarms(db: &mut Db<&Saved>) -> Result<Vec<Alarm>, Error> {
    let mut alarms = Vec::new();
    if let Some(bucket) = db.bucket(schema::ALARM.as_bytes())? {
        let mut walk = Walk::new(&bucket);
        while let Some((key, _)) = walk.next(db)? {
            if let Some(alarm) = proto::read_alarm(key)
                && alarms.len() < kv::ALARMS_MAX
                && !alarms.contains(&alarm)
            {
                alarms.push(alarm);
            }
        }
    }
    alarms.sort_unstable();
    Ok(alarms)
}

fn count(db: &mut Db<&Saved>, name: &str) -> Result<u64, Error> {
    let bucket: Option<Bucket> = db.bucket(name.as_bytes())?;
    let mut count = 0;
    if let Some(bucket) = bucket {
        let mut walk = Walk::new(&bucket);
        while walk.next(db)?.is_some() {
            count += 1;
        }
    }
    Ok(count)
}
