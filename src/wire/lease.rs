//! Leases: what clients ask about them, and the answers.

use crate::body::{Body, Layout, OffsetAt};
use crate::error::DecodeError;
use crate::reader::Table;

// Widths of the fields, in the order of the schema.
const GRANT: Layout<2> = Layout::new([8, 8]);
const REVOKE: Layout<1> = Layout::new([8]);
const KEEP_ALIVE: Layout<1> = Layout::new([4]);
const TIME_TO_LIVE: Layout<4> = Layout::new([8, 1, 4, 4]);
const LIST: Layout<2> = Layout::new([8, 4]);
const GRANT_REPLY: Layout<3> = Layout::new([8, 8, 8]);
const REVOKE_REPLY: Layout<2> = Layout::new([8, 8]);
const KEEP_ALIVE_REPLY: Layout<2> = Layout::new([8, 4]);
const TIME_TO_LIVE_REPLY: Layout<7> = Layout::new([8, 8, 8, 8, 1, 4, 4]);
const LIST_REPLY: Layout<3> = Layout::new([8, 1, 4]);

/// A few numbers of 64 bits, to be written or read in place.
#[derive(Clone, Copy)]
pub enum Numbers<'a> {
    /// To be written.
    Given(&'a [i64]),
    /// Verified, in a message: 8 bytes each, little endian.
    Read(&'a [u8]),
}

impl<'a> Numbers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Given(numbers) => numbers.len(),
            Self::Read(bytes) => bytes.len() / 8,
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = i64> + use<'a> {
        let (given, read): (&[i64], &[u8]) = match *self {
            Self::Given(numbers) => (numbers, &[]),
            Self::Read(bytes) => (&[], bytes),
        };
        let (chunks, _) = read.as_chunks::<8>();
        given.iter().copied().chain(chunks.iter().map(|bytes| i64::from_le_bytes(*bytes)))
    }

    fn write(&self, body: &mut Body<'_>, at: OffsetAt) {
        let vector = body.structs_begin(at);
        for number in self.iter() {
            body.bytes_more(&number.to_le_bytes());
        }
        body.structs_end(vector, self.len());
    }
}

impl Default for Numbers<'_> {
    fn default() -> Self {
        Self::Given(&[])
    }
}

impl core::fmt::Debug for Numbers<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Numbers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Numbers<'_> {}

/// Makes a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseGrant {
    /// Its id; 0: the server chooses one.
    pub lease: i64,
    /// Milliseconds that it lives without being kept alive.
    pub ttl_ms: u64,
}

/// Ends a lease, and the keys that hang on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseRevoke {
    /// Which.
    pub lease: i64,
}

/// Lets leases begin their time anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseKeepAlive<'a> {
    /// Which; at most `base::limits::KEEP_ALIVE_MAX`.
    pub leases: Numbers<'a>,
}

/// Asks for a lease's time, and its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseTimeToLive<'a> {
    /// Which.
    pub lease: i64,
    /// Also the keys that hang on it, in key order.
    pub keys: bool,
    /// Only those behind this one; empty: all.
    pub after_key: &'a [u8],
    /// Greatest number of keys; 0: as many as fit a piece.
    pub limit: u32,
}

/// Asks for the leases that there are, in the order of their ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseList {
    /// Only those behind this one; 0: all.
    pub after_lease: i64,
    /// Greatest number of leases; 0: as many as fit a piece.
    pub limit: u32,
}

/// A lease was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseGrantReply {
    /// The newest revision.
    pub revision: i64,
    /// Its id.
    pub lease: i64,
    /// Milliseconds that it lives; more than asked for where that was too little.
    pub ttl_ms: u64,
}

/// A lease was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseRevokeReply {
    /// The revision of the deletion of its keys; the newest one if it had none.
    pub revision: i64,
    /// Keys that went with it.
    pub deleted: i64,
}

/// Leases begin their time anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseKeepAliveReply<'a> {
    /// The newest revision.
    pub revision: i64,
    /// Milliseconds that each lives from now on, in the order of the request; 0: there is none.
    pub ttls_ms: Numbers<'a>,
}

/// A lease's time, and keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseTimeToLiveReply<'a> {
    /// The newest revision.
    pub revision: i64,
    /// Milliseconds that it was granted; 0: there is no such lease.
    pub granted_ms: u64,
    /// Milliseconds that it has left; 0: its time is up, and it goes as soon as the leader says so.
    pub left_ms: u64,
    /// Keys that hang on it.
    pub key_count: i64,
    /// Other keys follow those of this answer.
    pub more: bool,
    /// The keys of this answer.
    pub keys: Keys<'a>,
}

/// The leases that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseListReply<'a> {
    /// The newest revision.
    pub revision: i64,
    /// Others follow.
    pub more: bool,
    /// Their ids.
    pub leases: Numbers<'a>,
}

/// A few keys, to be written or read in place.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    /// To be written.
    Given(&'a [&'a [u8]]),
    /// Verified, in a message.
    Read {
        /// 4 bytes for each, little endian: its size.
        sizes: &'a [u8],
        /// One key behind the other: exactly what the sizes add up to.
        data: &'a [u8],
    },
}

impl<'a> Keys<'a> {
    fn read(sizes: &'a [u8], data: &'a [u8]) -> Result<Self, DecodeError> {
        let (words, _) = sizes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|size| u64::from(u32::from_le_bytes(*size))).sum();
        match u64::try_from(data.len()) == Ok(sum) {
            true => Ok(Self::Read { sizes, data }),
            false => Err(DecodeError::SizesDisagree),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Given(keys) => keys.len(),
            Self::Read { sizes, .. } => sizes.len() / 4,
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (given, sizes, data): (&[&'a [u8]], &[u8], &'a [u8]) = match *self {
            Self::Given(keys) => (keys, &[], &[]),
            Self::Read { sizes, data } => (&[], sizes, data),
        };
        let (words, _) = sizes.as_chunks::<4>();
        let mut rest = data;
        let read = words.iter().map(move |size| {
            let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
            let (key, behind) =
                rest.split_at_checked(size).expect("sizes were checked to add up to the data");
            rest = behind;
            key
        });
        given.iter().copied().chain(read)
    }

    fn write(&self, body: &mut Body<'_>, data: OffsetAt, sizes: OffsetAt) {
        let vector = body.bytes_begin(data);
        for key in self.iter() {
            body.bytes_more(key);
        }
        body.bytes_end(vector);
        let vector = body.bytes_begin(sizes);
        for key in self.iter() {
            let size = u32::try_from(key.len()).expect("a key is far below 4 GiB");
            body.bytes_more(&size.to_le_bytes());
        }
        body.structs_end(vector, self.len());
    }
}

impl Default for Keys<'_> {
    fn default() -> Self {
        Self::Given(&[])
    }
}

impl core::fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Keys<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Keys<'_> {}

impl LeaseGrant {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        use schema::LeaseGrantRequest as Slots;
        Ok(Self { lease: table.i64(Slots::VT_LEASE)?, ttl_ms: table.u64(Slots::VT_TTL_MS)? })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &GRANT);
        body.set_i64(table, 0, self.lease);
        body.set_u64(table, 1, self.ttl_ms);
    }
}

impl LeaseRevoke {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        Ok(Self { lease: table.i64(schema::LeaseRevokeRequest::VT_LEASE)? })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &REVOKE);
        body.set_i64(table, 0, self.lease);
    }
}

impl<'a> LeaseKeepAlive<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        let leases = table
            .longs(schema::LeaseKeepAliveRequest::VT_LEASES)?
            .ok_or(DecodeError::MissingField { field: "leases" })?;
        Ok(Self { leases: Numbers::Read(leases) })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &KEEP_ALIVE);
        self.leases.write(body, table.offset(0));
    }
}

impl<'a> LeaseTimeToLive<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::LeaseTimeToLiveRequest as Slots;
        Ok(Self {
            lease: table.i64(Slots::VT_LEASE)?,
            keys: table.bool(Slots::VT_KEYS)?,
            after_key: table.bytes(Slots::VT_AFTER_KEY)?.unwrap_or_default(),
            limit: table.u32(Slots::VT_LIMIT)?,
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &TIME_TO_LIVE);
        body.set_i64(table, 0, self.lease);
        body.set_bool(table, 1, self.keys);
        body.set_u32(table, 3, self.limit);
        body.bytes(table.offset(2), self.after_key);
    }
}

impl LeaseList {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        use schema::LeaseListRequest as Slots;
        Ok(Self {
            after_lease: table.i64(Slots::VT_AFTER_LEASE)?,
            limit: table.u32(Slots::VT_LIMIT)?,
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &LIST);
        body.set_i64(table, 0, self.after_lease);
        body.set_u32(table, 1, self.limit);
    }
}

impl LeaseGrantReply {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        use schema::LeaseGrantReply as Slots;
        Ok(Self {
            revision: table.i64(Slots::VT_REVISION)?,
            lease: table.i64(Slots::VT_LEASE)?,
            ttl_ms: table.u64(Slots::VT_TTL_MS)?,
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &GRANT_REPLY);
        body.set_i64(table, 0, self.revision);
        body.set_i64(table, 1, self.lease);
        body.set_u64(table, 2, self.ttl_ms);
    }
}

impl LeaseRevokeReply {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        use schema::LeaseRevokeReply as Slots;
        Ok(Self {
            revision: table.i64(Slots::VT_REVISION)?,
            deleted: table.i64(Slots::VT_DELETED)?,
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &REVOKE_REPLY);
        body.set_i64(table, 0, self.revision);
        body.set_i64(table, 1, self.deleted);
    }
}

impl<'a> LeaseKeepAliveReply<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::LeaseKeepAliveReply as Slots;
        let ttls = table
            .longs(Slots::VT_TTLS_MS)?
            .ok_or(DecodeError::MissingField { field: "ttls_ms" })?;
        Ok(Self { revision: table.i64(Slots::VT_REVISION)?, ttls_ms: Numbers::Read(ttls) })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &KEEP_ALIVE_REPLY);
        body.set_i64(table, 0, self.revision);
        self.ttls_ms.write(body, table.offset(1));
    }
}

impl<'a> LeaseTimeToLiveReply<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::LeaseTimeToLiveReply as Slots;
        let sizes = table.structs(Slots::VT_KEY_SIZES, 4)?.unwrap_or_default();
        let data = table.bytes(Slots::VT_DATA)?.unwrap_or_default();
        Ok(Self {
            revision: table.i64(Slots::VT_REVISION)?,
            granted_ms: table.u64(Slots::VT_GRANTED_MS)?,
            left_ms: table.u64(Slots::VT_LEFT_MS)?,
            key_count: table.i64(Slots::VT_KEY_COUNT)?,
            more: table.bool(Slots::VT_MORE)?,
            keys: Keys::read(sizes, data)?,
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &TIME_TO_LIVE_REPLY);
        body.set_i64(table, 0, self.revision);
        body.set_u64(table, 1, self.granted_ms);
        body.set_u64(table, 2, self.left_ms);
        body.set_i64(table, 3, self.key_count);
        body.set_bool(table, 4, self.more);
        self.keys.write(body, table.offset(5), table.offset(6));
    }
}

impl<'a> LeaseListReply<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::LeaseListReply as Slots;
        Ok(Self {
            revision: table.i64(Slots::VT_REVISION)?,
            more: table.bool(Slots::VT_MORE)?,
            leases: Numbers::Read(table.longs(Slots::VT_LEASES)?.unwrap_or_default()),
        })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &LIST_REPLY);
        body.set_i64(table, 0, self.revision);
        body.set_bool(table, 1, self.more);
        self.leases.write(body, table.offset(2));
    }
}
