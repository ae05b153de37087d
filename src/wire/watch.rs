//! Watches: what clients ask for, and the changes that they are told.

use alloc::vec::Vec;

use base::RequestId;

use crate::body::{Body, Layout, OffsetAt, Table as NewTable};
use crate::error::{DecodeError, EncodeError};
use crate::header::{Flags, Header};
use crate::kind::Kind;
use crate::limits::REPLY_BODY_SIZE_MAX;
use crate::reader::Table;
use crate::reply::KeyValue;
use crate::request::numbers;

// Widths of the fields, in the order of the schema.
const REQUEST: Layout<9> = Layout::new([4, 4, 8, 4, 1, 1, 1, 1, 4]);
const REPLY: Layout<7> = Layout::new([1, 1, 8, 4, 4, 4, 0]);
const READ_REPLY: Layout<7> = Layout::new([1, 1, 8, 4, 4, 4, 8]);

/// Bytes of a `WatchRange` of the schema.
const RANGE_SIZE: usize = 8;

/// Bytes of a `WatchChange` of the schema.
const CHANGE_SIZE: usize = 48;

/// Bytes of a `WatchPrevious` of the schema.
const PREVIOUS_SIZE: usize = 40;

/// Flag of a change: the value that it replaced is told.
const HAS_PREVIOUS: u16 = 1;

/// A range of keys that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WatchRange<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Exclusive end; empty: `key` alone; a single zero byte: all keys from `key` on.
    pub range_end: &'a [u8],
}

/// The ranges of a watch, to be written or read in place.
#[derive(Clone, Copy)]
pub enum WatchRanges<'a> {
    /// To be written.
    Given(&'a [WatchRange<'a>]),
    /// Verified, in a message.
    Read {
        /// [`RANGE_SIZE`] bytes for each.
        sizes: &'a [u8],
        /// The keys and range ends: exactly what the sizes add up to.
        data: &'a [u8],
    },
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("sizes lie inside a struct"))
}

fn number(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(*bytes[at..].first_chunk().expect("numbers lie inside a struct"))
}

/// Takes `size` bytes off `data`.
fn take<'a>(data: &mut &'a [u8], size: u64) -> &'a [u8] {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let (taken, rest) =
        data.split_at_checked(size).expect("sizes were checked to add up to the data");
    *data = rest;
    taken
}

impl<'a> WatchRanges<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Given(ranges) => ranges.len(),
            Self::Read { sizes, .. } => sizes.len() / RANGE_SIZE,
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = WatchRange<'a>> + use<'a> {
        let (given, sizes, data): (&[WatchRange<'a>], &[u8], &'a [u8]) = match *self {
            Self::Given(ranges) => (ranges, &[], &[]),
            Self::Read { sizes, data } => (&[], sizes, data),
        };
        let (pairs, _) = sizes.as_chunks::<RANGE_SIZE>();
        let mut rest = data;
        let read = pairs.iter().map(move |sizes| WatchRange {
            key: take(&mut rest, word(sizes, 0).into()),
            range_end: take(&mut rest, word(sizes, 4).into()),
        });
        given.iter().copied().chain(read)
    }
}

impl Default for WatchRanges<'_> {
    fn default() -> Self {
        Self::Given(&[])
    }
}

impl core::fmt::Debug for WatchRanges<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for WatchRanges<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for WatchRanges<'_> {}

/// Watches ranges of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watch<'a> {
    /// What is watched; a change that lies in several ranges is told once.
    pub ranges: WatchRanges<'a>,
    /// The first revision that is wanted, also one that is still to come; 0: the next one.
    pub start_revision: i64,
    /// Of that revision only changes from this one on.
    pub start_sub: u32,
    /// Changes come with what they replaced.
    pub prev_kv: bool,
    /// Changes come without values.
    pub keys_only: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Tell how far the watch has come when nothing else has been told for so long; 0: only when asked.
    pub progress_interval_ms: u32,
}

impl<'a> Watch<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::WatchRequest as Slots;
        let sizes = table
            .structs(Slots::VT_RANGES, RANGE_SIZE)?
            .ok_or(DecodeError::MissingField { field: "ranges" })?;
        let data = table.required_bytes(Slots::VT_DATA, "data")?;
        let (words, _) = sizes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|size| u64::from(u32::from_le_bytes(*size))).sum();
        if u64::try_from(data.len()) != Ok(sum) {
            return Err(DecodeError::SizesDisagree);
        }
        Ok(Self {
            ranges: WatchRanges::Read { sizes, data },
            start_revision: table.i64(Slots::VT_START_REVISION)?,
            start_sub: table.u32(Slots::VT_START_SUB)?,
            prev_kv: table.bool(Slots::VT_PREV_KV)?,
            keys_only: table.bool(Slots::VT_KEYS_ONLY)?,
            no_put: table.bool(Slots::VT_NO_PUT)?,
            no_delete: table.bool(Slots::VT_NO_DELETE)?,
            progress_interval_ms: table.u32(Slots::VT_PROGRESS_INTERVAL_MS)?,
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &REQUEST);
        body.set_i64(table, 2, self.start_revision);
        body.set_u32(table, 3, self.start_sub);
        body.set_bool(table, 4, self.prev_kv);
        body.set_bool(table, 5, self.keys_only);
        body.set_bool(table, 6, self.no_put);
        body.set_bool(table, 7, self.no_delete);
        body.set_u32(table, 8, self.progress_interval_ms);
        let vector = body.bytes_begin(table.offset(0));
        for range in self.ranges.iter() {
            body.bytes_more(range.key);
            body.bytes_more(range.range_end);
        }
        body.bytes_end(vector);
        let vector = body.structs_begin(table.offset(1));
        for range in self.ranges.iter() {
            for bytes in [range.key, range.range_end] {
                // What does not fit 32 bits does not fit the body either.
                let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                body.bytes_more(&size.to_le_bytes());
            }
        }
        body.structs_end(vector, self.ranges.len());
    }
}

numbers!(
    /// What a reply of a watch tells.
    WatchStep, "step", {
        /// It has begun.
        #[default]
        Created = 0,
        /// Changes.
        Changes = 1,
        /// How far it has come.
        Progress = 2,
    }
);

numbers!(
    /// What a change did.
    ChangeKind, "kind", {
        /// It wrote the key.
        #[default]
        Put = 0,
        /// It deleted the key.
        Delete = 1,
    }
);

numbers!(
    /// Why a key was deleted.
    Cause, "cause", {
        /// A client asked for it; also for every put.
        #[default]
        Request = 0,
        /// Its lease expired.
        Expired = 1,
        /// Its lease was revoked.
        Revoked = 2,
    }
);

/// A change of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WatchChange<'a> {
    /// What it did.
    pub kind: ChangeKind,
    /// Why.
    pub cause: Cause,
    /// Its place among the changes of its revision.
    pub sub: u32,
    /// The key as it is now; of a delete the key and the revision alone.
    pub kv: KeyValue<'a>,
    /// The key as it was, if that was asked for, it existed, and the state before the change has not
    /// been compacted.
    pub previous: Option<KeyValue<'a>>,
}

/// Changes, read in place. Iterating gives them in the order in which they were made.
#[derive(Clone, Copy, Default)]
pub struct WatchChanges<'a> {
    changes: &'a [u8],
    previous: &'a [u8],
    data: &'a [u8],
}

impl<'a> WatchChanges<'a> {
    fn checked(changes: &'a [u8], previous: &'a [u8], data: &'a [u8]) -> Result<Self, DecodeError> {
        let (members, _) = changes.as_chunks::<CHANGE_SIZE>();
        let (olds, _) = previous.as_chunks::<PREVIOUS_SIZE>();
        let (mut size, mut with_previous) = (0_u64, 0);
        for change in members {
            ChangeKind::try_from(change[44])?;
            Cause::try_from(change[45])?;
            size += u64::from(word(change, 32)) + u64::from(word(change, 36));
            let flags = u16::from_le_bytes([change[46], change[47]]);
            match flags {
                0 => {}
                HAS_PREVIOUS => with_previous += 1,
                _ => {
                    let number = u64::from(flags);
                    return Err(DecodeError::UnknownNumber { field: "flags", number });
                }
            }
        }
        for old in olds {
            let old_size =
                u64::try_from(number(old, 32)).map_err(|_| DecodeError::SizesDisagree)?;
            size = size.checked_add(old_size).ok_or(DecodeError::SizesDisagree)?;
        }
        if with_previous != olds.len() || u64::try_from(data.len()) != Ok(size) {
            return Err(DecodeError::SizesDisagree);
        }
        Ok(Self { changes, previous, data })
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.changes.len() / CHANGE_SIZE
    }
}

impl<'a> Iterator for WatchChanges<'a> {
    type Item = WatchChange<'a>;

    fn next(&mut self) -> Option<WatchChange<'a>> {
        let (change, rest) = self.changes.split_first_chunk::<CHANGE_SIZE>()?;
        self.changes = rest;
        let kv = KeyValue {
            key: take(&mut self.data, word(change, 32).into()),
            value: take(&mut self.data, word(change, 36).into()),
            create_revision: number(change, 0),
            mod_revision: number(change, 8),
            version: number(change, 16),
            lease: number(change, 24),
        };
        let has_previous = change[46] != 0;
        let old =
            if has_previous { self.previous.split_first_chunk::<PREVIOUS_SIZE>() } else { None };
        let previous = old.map(|(old, rest)| {
            self.previous = rest;
            KeyValue {
                key: kv.key,
                value: take(&mut self.data, u64::try_from(number(old, 32)).unwrap_or(u64::MAX)),
                create_revision: number(old, 0),
                mod_revision: number(old, 8),
                version: number(old, 16),
                lease: number(old, 24),
            }
        });
        Some(WatchChange {
            kind: ChangeKind::try_from(change[44]).expect("checked when the reply was verified"),
            cause: Cause::try_from(change[45]).expect("checked when the reply was verified"),
            sub: word(change, 40),
            kv,
            previous,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.changes.len() / CHANGE_SIZE;
        (count, Some(count))
    }
}

impl ExactSizeIterator for WatchChanges<'_> {}

impl core::fmt::Debug for WatchChanges<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl PartialEq for WatchChanges<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && (*self).eq(*other)
    }
}

/// What a watch tells.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct WatchReply<'a> {
    /// What it is.
    pub step: WatchStep,
    /// The changes of the last revision go on in the next reply.
    pub fragment: bool,
    /// Every change up to this revision has been told, with this reply; [`WatchStep::Created`]: the
    /// watch begins behind it, or at the revision that it asked for.
    pub revision: i64,
    /// The changes.
    pub changes: WatchChanges<'a>,
    /// The newest revision when the changes were read back; 0: they are told as they were made.
    pub newest: i64,
}

impl<'a> WatchReply<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::WatchReply as Slots;
        let changes = table.structs(Slots::VT_CHANGES, CHANGE_SIZE)?.unwrap_or_default();
        let previous = table.structs(Slots::VT_PREVIOUS, PREVIOUS_SIZE)?.unwrap_or_default();
        let data = table.bytes(Slots::VT_DATA)?.unwrap_or_default();
        Ok(Self {
            step: WatchStep::try_from(table.u8(Slots::VT_STEP)?)?,
            fragment: table.bool(Slots::VT_FRAGMENT)?,
            revision: table.i64(Slots::VT_REVISION)?,
            changes: WatchChanges::checked(changes, previous, data)?,
            newest: table.i64(Slots::VT_NEWEST)?,
        })
    }
}

/// A reply of a watch that is being written. Dropped without an end it leaves the buffer as it was.
#[derive(Debug)]
pub struct WatchWriter<'w> {
    body: Option<Body<'w>>,
    changes: &'w mut Vec<u8>,
    previous: &'w mut Vec<u8>,
    header: Header,
    root: NewTable<'static, 7>,
    data: usize,
    count: usize,
    previous_count: usize,
}

impl<'w> WatchWriter<'w> {
    pub(crate) fn begin(
        out: &'w mut Vec<u8>,
        changes: &'w mut Vec<u8>,
        previous: &'w mut Vec<u8>,
        (version, request): (u8, RequestId),
        newest: i64,
    ) -> Self {
        changes.clear();
        previous.clear();
        let mut body = Body::begin(out, REPLY_BODY_SIZE_MAX);
        let is_read = newest > 0;
        let root = body.table(body.root_offset(), if is_read { &READ_REPLY } else { &REPLY });
        if is_read {
            body.set_i64(root, 6, newest);
        }
        let data = body.bytes_begin(root.offset(3));
        let header = Header::reply(version, Kind::WatchReply, request);
        let header = Header { flags: Flags::MORE, ..header };
        let (count, previous_count) = (0, 0);
        Self { body: Some(body), changes, previous, header, root, data, count, previous_count }
    }

    fn body(&mut self) -> &mut Body<'w> {
        self.body.as_mut().expect("present until the reply ends")
    }

    /// Changes so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the body so far.
    pub fn size(&self) -> usize {
        let body = self.body.as_ref().expect("present until the reply ends");
        body.size() + self.changes.len() + self.previous.len()
    }

    /// Adds a change.
    pub fn push(&mut self, change: &WatchChange<'_>) {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let kv = &change.kv;
        let body = self.body();
        body.bytes_more(kv.key);
        body.bytes_more(kv.value);
        if let Some(previous) = &change.previous {
            body.bytes_more(previous.value);
        }
        if body.is_full() {
            return;
        }
        let mut bytes = [0; CHANGE_SIZE];
        bytes[..8].copy_from_slice(&kv.create_revision.to_le_bytes());
        bytes[8..16].copy_from_slice(&kv.mod_revision.to_le_bytes());
        bytes[16..24].copy_from_slice(&kv.version.to_le_bytes());
        bytes[24..32].copy_from_slice(&kv.lease.to_le_bytes());
        bytes[32..36].copy_from_slice(&size(kv.key).to_le_bytes());
        bytes[36..40].copy_from_slice(&size(kv.value).to_le_bytes());
        bytes[40..44].copy_from_slice(&change.sub.to_le_bytes());
        bytes[44] = change.kind.number();
        bytes[45] = change.cause.number();
        let flags = if change.previous.is_some() { HAS_PREVIOUS } else { 0 };
        bytes[46..].copy_from_slice(&flags.to_le_bytes());
        self.changes.extend_from_slice(&bytes);
        self.count += 1;
        if let Some(previous) = &change.previous {
            let mut bytes = [0; PREVIOUS_SIZE];
            bytes[..8].copy_from_slice(&previous.create_revision.to_le_bytes());
            bytes[8..16].copy_from_slice(&previous.mod_revision.to_le_bytes());
            bytes[16..24].copy_from_slice(&previous.version.to_le_bytes());
            bytes[24..32].copy_from_slice(&previous.lease.to_le_bytes());
            let size = u64::from(size(previous.value));
            bytes[32..].copy_from_slice(&size.to_le_bytes());
            self.previous.extend_from_slice(&bytes);
            self.previous_count += 1;
        }
    }

    /// Completes the frame. Errors: it is too large, which a caller that looks at [`Self::size`] never
    /// sees; the buffer is then as it was.
    pub fn finish(
        mut self,
        step: WatchStep,
        revision: i64,
        fragment: bool,
    ) -> Result<(), EncodeError> {
        let mut body = self.body.take().expect("present until the reply ends");
        body.set_u8(self.root, 0, step.number());
        body.set_bool(self.root, 1, fragment);
        body.set_i64(self.root, 2, revision);
        body.bytes_end(self.data);
        body.structs(self.root.offset(4), self.count, self.changes);
        if self.previous_count > 0 {
            body.structs(self.root.offset(5), self.previous_count, self.previous);
        }
        body.finish(self.header)
    }
}

impl Drop for WatchWriter<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            body.abandon();
        }
    }
}
