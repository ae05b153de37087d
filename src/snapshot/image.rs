//! The image: a snapshot file in the making. What belongs into it is gathered and sorted, then its bytes come from
//! front to back, as many at a time as are wanted.

use std::path::Path;

use bbolt::{Hollow, Pages, Writer};
use kv::{Head, Item, Unpack};
use sha2::{Digest, Sha256};
use wire::{Member, MemberList, MemberRole};

use crate::proto::{KeyValue, LeaseRecord};
use crate::sort::{KEY_SIZE_MAX, Pairs, Sorter};
use crate::{Error, STORAGE_VERSION, proto, schema};

/// In front of the keys of the two buckets that are sorted together.
const OF_KEYS: u8 = 0;
const OF_LEASES: u8 = 1;

/// Gathers what belongs into a snapshot.
pub struct Builder {
    unpack: Unpack,
    sorter: Sorter,
    /// A failure that came up while a chunk was being told.
    failed: Option<Error>,
    newest: u64,
    scratch: Vec<u8>,
}

impl Builder {
    /// One that sorts in files of `folder`, if it has to.
    pub fn new(folder: &Path) -> Self {
        Self {
            unpack: Unpack::new(),
            sorter: Sorter::new(folder),
            failed: None,
            newest: 0,
            scratch: Vec::new(),
        }
    }

    /// Takes the next chunk of a state; true: it was the last one.
    ///
    /// # Errors
    /// It is not that, or there is no room to sort in.
    pub fn take(&mut self, chunk: &[u8]) -> Result<bool, Error> {
        let Self { unpack, sorter, failed, newest, scratch } = self;
        let last = unpack.take(chunk, &mut |item| {
            if failed.is_none() {
                *failed = push(sorter, scratch, newest, item).err();
            }
        });
        match failed.take() {
            Some(error) => Err(error),
            None => last.map_err(Error::Chunk),
        }
    }

    /// The numbers of the state, once its first chunk has come.
    pub fn head(&self) -> Option<&Head> {
        self.unpack.head()
    }

    /// The file, behind the last chunk. The members are named in it as etcd names its own; whoever restores it
    /// makes a cluster of others.
    ///
    /// # Errors
    /// What was written cannot be read back.
    ///
    /// # Panics
    /// Before the first chunk.
    pub fn finish(self, members: &MemberList) -> Result<Image, Error> {
        let Self { unpack, mut sorter, newest, .. } = self;
        let head = unpack.head().expect("the first chunk has come").clone();
        let revision = head.revision.get();
        // After a restore that moved the revision on nothing has happened at the newest one, and etcd goes by what
        // it finds: a record without a key stands for it, as etcd's own tool writes it.
        if newest < revision && revision > 1 {
            let (key, size) = schema::revision_key(revision, 0, false);
            sorter.push(&tagged(OF_KEYS, &key[..size])[..=size], &[])?;
        }
        let sorted = sorter.finish()?;
        let small = small(&head, members);
        // The first time, for sizes alone.
        let mut none = Vec::new();
        let mut counting = Writer::counting();
        let mut buckets = schema::BUCKETS.iter();
        let mut open = begin(&mut counting, &small, &mut buckets, None);
        sorted.sizes(&mut |key, size| {
            let (tag, key) = key.split_first().expect("a tag stands before the key");
            while open != Some(*tag) {
                open = begin(&mut counting, &small, &mut buckets, open);
            }
            counting.put(&Hollow(key.len()), &Hollow(size), &mut none);
        })?;
        while open.is_some() {
            open = begin(&mut counting, &small, &mut buckets, open);
        }
        let pages = counting.finish(&mut none);
        Ok(Image { head, pages, pairs: sorted.pairs()?, small, stage: Stage::Begin })
    }
}

/// Ends the sorted bucket that is open and writes those up to the next sorted one, which is open then.
fn begin(
    counting: &mut Writer,
    small: &[Small],
    buckets: &mut std::slice::Iter<'_, &str>,
    open: Option<u8>,
) -> Option<u8> {
    let mut none = Vec::new();
    match open {
        Some(OF_KEYS) => counting.end_bucket(schema::KEY.as_bytes(), &mut none),
        Some(_) => counting.end_bucket(schema::LEASE.as_bytes(), &mut none),
        None => {}
    }
    for name in buckets.by_ref() {
        match *name {
            schema::KEY => return Some(OF_KEYS),
            schema::LEASE => return Some(OF_LEASES),
            name => {
                for (_, key, value) in small.iter().filter(|(bucket, ..)| *bucket == name) {
                    counting.put(&Hollow(key.len()), &Hollow(value.len()), &mut none);
                }
                counting.end_bucket(name.as_bytes(), &mut none);
            }
        }
    }
    None
}

fn tagged(tag: u8, key: &[u8]) -> [u8; KEY_SIZE_MAX] {
    let mut tagged = [0; KEY_SIZE_MAX];
    tagged[0] = tag;
    tagged[1..=key.len()].copy_from_slice(key);
    tagged
}

fn push(
    sorter: &mut Sorter,
    scratch: &mut Vec<u8>,
    newest: &mut u64,
    item: &Item<'_>,
) -> Result<(), Error> {
    // What a client can name and count is below.
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    scratch.clear();
    match *item {
        Item::Version { at, key, live } => {
            let main = at.revision.get();
            *newest = (*newest).max(main);
            let (place, size) = schema::revision_key(main, at.sub.into(), live.is_none());
            let pair = match live {
                Some((facts, value)) => KeyValue {
                    key,
                    create: signed(facts.create.get()),
                    modified: signed(main),
                    version: signed(facts.version),
                    value,
                    lease: facts.lease.get(),
                },
                None => KeyValue { key, ..KeyValue::default() },
            };
            pair.encode(scratch);
            sorter.push(&tagged(OF_KEYS, &place[..size])[..=size], scratch)
        }
        Item::Lease { id, ttl_ms } => {
            // Whole seconds, and no lease without time.
            let ttl = signed(ttl_ms.div_ceil(1_000)).max(1);
            LeaseRecord { id: id.get(), ttl, remaining: 0 }.encode(scratch);
            let key = id.get().to_be_bytes();
            sorter.push(&tagged(OF_LEASES, &key)[..=key.len()], scratch)
        }
    }
}

/// A key of a bucket that is written as it stands.
type Small = (&'static str, Vec<u8>, Vec<u8>);

/// What stands in the buckets that are not sorted, in order within each.
fn small(head: &Head, members: &MemberList) -> Vec<Small> {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut all: Vec<Small> = Vec::new();
    let mut alarms: Vec<Vec<u8>> = head.alarms.iter().map(proto::alarm).collect();
    alarms.sort();
    all.extend(alarms.into_iter().map(|alarm| (schema::ALARM, alarm, Vec::new())));
    all.extend([
        ("auth", text("authRevision"), 1_u64.to_be_bytes().to_vec()),
        ("cluster", schema::CLUSTER_VERSION.to_vec(), text(STORAGE_VERSION)),
    ]);
    let members = &members.members;
    let mut listed: Vec<(&Member, String)> =
        members.iter().map(|member| (member, format!("{:x}", member.id.get()))).collect();
    listed.sort_by(|one, other| one.1.cmp(&other.1));
    for (member, id) in &listed {
        all.push((schema::MEMBERS, text(id), member_json(member).into_bytes()));
    }
    let voters = members.iter().filter(|member| !is_learner(member));
    let voters: Vec<String> = voters.map(|member| member.id.get().to_string()).collect();
    let state = format!("{{\"voters\":[{}],\"auto_leave\":false}}", voters.join(","));
    let mut meta = vec![
        (schema::CONF_STATE, text(&state)),
        (schema::CONSISTENT_INDEX, head.applied.get().to_be_bytes().to_vec()),
    ];
    if let Some(compacted) = head.compacted {
        let (key, size) = schema::revision_key(compacted.get(), 0, false);
        meta.push((schema::FINISHED, key[..size].to_vec()));
        meta.push((schema::SCHEDULED, key[..size].to_vec()));
    }
    meta.push((schema::STORAGE_VERSION, text(STORAGE_VERSION)));
    meta.push((schema::TERM, head.term.get().to_be_bytes().to_vec()));
    all.extend(meta.into_iter().map(|(key, value)| (schema::META, key.to_vec(), value)));
    all
}

fn is_learner(member: &Member) -> bool {
    matches!(
        member.role,
        MemberRole::Learner | MemberRole::Promotable | MemberRole::OutgoingToLearner
    )
}

fn member_json(member: &Member) -> String {
    let quoted = |text: &str| {
        let mut out = String::from('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => out.extend(['\\', character]),
                control if control < ' ' => {
                    out.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                other => out.push(other),
            }
        }
        out.push('"');
        out
    };
    let list = |address: &str| match address {
        "" => "[]".into(),
        address => format!("[{}]", quoted(&format!("http://{address}"))),
    };
    let learner = if is_learner(member) { "\"isLearner\":true," } else { "" };
    format!(
        "{{\"id\":{},\"peerURLs\":{},{learner}\"name\":{},\"clientURLs\":{}}}",
        member.id.get(),
        list(&member.peer_address),
        quoted(&member.name),
        list(&member.client_address)
    )
}

enum Stage {
    Begin,
    /// In the bucket of this number, of which something may be out.
    Bucket(Writer, usize),
    End,
}

/// A snapshot file whose bytes come from front to back.
pub struct Image {
    head: Head,
    pages: Pages,
    pairs: Pairs,
    small: Vec<Small>,
    stage: Stage,
}

impl Image {
    /// Bytes of the file, its checksum not counted.
    pub fn size(&self) -> u64 {
        self.pages.size()
    }

    /// The numbers of the state in it.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Appends at least `size` bytes, or the last ones.
    ///
    /// # Errors
    /// What was sorted cannot be read.
    pub fn read(&mut self, size: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let end = out.len() + size;
        while out.len() < end {
            self.stage = match std::mem::replace(&mut self.stage, Stage::End) {
                Stage::Begin => Stage::Bucket(Writer::new(self.pages, out), 0),
                Stage::Bucket(writer, number) => self.bucket(writer, number, end, out)?,
                Stage::End => break,
            };
        }
        Ok(())
    }

    /// Goes on with a bucket.
    fn bucket(
        &mut self,
        mut writer: Writer,
        number: usize,
        end: usize,
        out: &mut Vec<u8>,
    ) -> Result<Stage, Error> {
        let Some(&name) = schema::BUCKETS.get(number) else {
            writer.finish(out);
            return Ok(Stage::End);
        };
        let tag = match name {
            schema::KEY => Some(OF_KEYS),
            schema::LEASE => Some(OF_LEASES),
            _ => None,
        };
        if let Some(tag) = tag {
            while let Some((key, value)) = self.pairs.peek()?
                && key[0] == tag
            {
                writer.put(&&key[1..], &value, out);
                self.pairs.advance();
                if out.len() >= end {
                    return Ok(Stage::Bucket(writer, number));
                }
            }
        }
        for (_, key, value) in self.small.iter().filter(|(bucket, ..)| *bucket == name) {
            writer.put(&key.as_slice(), &value.as_slice(), out);
        }
        writer.end_bucket(name.as_bytes(), out);
        Ok(Stage::Bucket(writer, number + 1))
    }
}

/// The checksum that stands behind the file.
#[derive(Default)]
pub struct Sum(Sha256);

impl Sum {
    /// Goes on with the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum.
    pub fn finish(self) -> [u8; crate::CHECKSUM_SIZE] {
        self.0.finalize().into()
    }
}
