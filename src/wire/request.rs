//! Requests as they come in: a verified view of a body as plain borrowed Rust values.
//!
//! [`Request::verify`] is the only way from bytes to a [`Request`]: it checks every access within
//! explicit bounds and what the schema cannot say (known numbers, exactly one operation). After it
//! nothing can fail and nobody else sees FlatBuffers. What a request *means* (empty keys, limits of
//! sizes, duplicate keys) is not decided here.
//!
//! The log holds bodies as they came in, with the kind beside them. Reading one back verifies it
//! again: that costs some 15 ns for a put, less than one cache miss, and there is no unchecked
//! access to bytes from a disk anywhere.

use alloc::vec::Vec;
use base::NodeId;
use flatbuffers::{Follow, InvalidFlatbuffer, Verifiable, VerifierOptions};

use crate::alarm::AlarmChange;
use crate::error::DecodeError;
use crate::kind::Kind;
use crate::lease::{LeaseGrant, LeaseKeepAlive, LeaseList, LeaseRevoke, LeaseTimeToLive};
use crate::limits::{VerifyLimits, flat_options};
use crate::reader::{Budget, Table, Tables};
use crate::watch::Watch;

/// An enum whose numbers are part of the protocol; a number that it does not know is an error.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident, $field:literal,
     { $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)*
        }

        impl $name {
            /// The number on the wire.
            #[inline]
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)*
                }
            }
        }

        impl TryFrom<u8> for $name {
            type Error = DecodeError;

            #[inline]
            fn try_from(number: u8) -> Result<Self, DecodeError> {
                match number {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(DecodeError::UnknownNumber {
                        field: $field,
                        number: u64::from(number),
                    }),
                }
            }
        }
    };
}

pub(crate) use numbers;

numbers!(
    /// In which order a range is wanted.
    SortOrder, "sort_order", {
        /// By key, if the target is the key; the limit applies before any sorting.
        #[default]
        None = 0,
        /// Smallest first.
        Ascend = 1,
        /// Greatest first.
        Descend = 2,
    }
);

numbers!(
    /// What a range is sorted by.
    SortTarget, "sort_target", {
        /// The key.
        #[default]
        Key = 0,
        /// How often the key was put since its creation.
        Version = 1,
        /// The revision of its creation.
        CreateRevision = 2,
        /// The revision of its last put.
        ModRevision = 3,
        /// The value.
        Value = 4,
    }
);

numbers!(
    /// What of a key a compare looks at. A key that does not exist has 0 everywhere and no value.
    CompareTarget, "target", {
        /// How often the key was put since its creation.
        #[default]
        Version = 0,
        /// The revision of its creation.
        CreateRevision = 1,
        /// The revision of its last put.
        ModRevision = 2,
        /// The value; a key that does not exist compares false, whatever the result asked for.
        Value = 3,
        /// The lease.
        Lease = 4,
    }
);

numbers!(
    /// How the key's side must compare with the given one.
    CompareResult, "result", {
        /// Equal.
        #[default]
        Equal = 0,
        /// Greater than the given one.
        Greater = 1,
        /// Less than the given one.
        Less = 2,
        /// Not equal.
        NotEqual = 3,
    }
);

/// First frame of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Oldest protocol version that the client speaks.
    pub version_min: u16,
    /// Newest protocol version that the client speaks.
    pub version_max: u16,
    /// The cluster it expects; 0: any.
    pub cluster: u64,
    /// Its name, for people who look at the server.
    pub client_name: &'a str,
}

/// Writes one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Put<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; empty with `ignore_value`.
    pub value: &'a [u8],
    /// The lease the key is attached to; 0: none.
    pub lease: i64,
    /// The answer shall hold the key as it was before.
    pub prev_kv: bool,
    /// Keep the value.
    pub ignore_value: bool,
    /// Keep the lease.
    pub ignore_lease: bool,
    /// Milliseconds of a lease that the server makes for this key alone; 0: none.
    pub ttl_ms: u64,
}

impl<'a> Put<'a> {
    /// A put without lease and without options.
    pub const fn new(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key,
            value,
            lease: 0,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
            ttl_ms: 0,
        }
    }
}

/// Reads a range of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Exclusive end; empty: `key` alone; a single zero byte: all keys from `key` on.
    pub range_end: &'a [u8],
    /// Greatest number of keys in the answer; 0 or less: all.
    pub limit: i64,
    /// The revision to read at; 0 or less: the newest.
    pub revision: i64,
    /// The order of the answer.
    pub sort_order: SortOrder,
    /// What the order goes by.
    pub sort_target: SortTarget,
    /// Answer from the member's own state, which may be old.
    pub serializable: bool,
    /// Leave values out.
    pub keys_only: bool,
    /// Leave keys out.
    pub count_only: bool,
    /// Only keys last put at this revision or later; 0: off.
    pub min_mod_revision: i64,
    /// Only keys last put at this revision or earlier; 0: off.
    pub max_mod_revision: i64,
    /// Only keys created at this revision or later; 0: off.
    pub min_create_revision: i64,
    /// Only keys created at this revision or earlier; 0: off.
    pub max_create_revision: i64,
}

impl<'a> Range<'a> {
    /// One key.
    pub fn one(key: &'a [u8]) -> Self {
        Self::between(key, &[])
    }

    /// The keys from `key` up to `range_end`, which has the meanings of the field.
    pub fn between(key: &'a [u8], range_end: &'a [u8]) -> Self {
        Self { key, range_end, ..Self::default() }
    }

    /// Every key.
    pub fn all() -> Self {
        Self::between(&[0], &[0])
    }
}

/// Deletes a range of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeleteRange<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Exclusive end, as in [`Range`].
    pub range_end: &'a [u8],
    /// The answer shall hold the keys as they were.
    pub prev_kv: bool,
}

impl<'a> DeleteRange<'a> {
    /// One key.
    pub const fn one(key: &'a [u8]) -> Self {
        Self::between(key, &[])
    }

    /// The keys from `key` up to `range_end`, which has the meanings of the field.
    pub const fn between(key: &'a [u8], range_end: &'a [u8]) -> Self {
        Self { key, range_end, prev_kv: false }
    }
}

/// One condition of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compare<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Exclusive end, as in [`Range`]: the condition must hold for every key there.
    pub range_end: &'a [u8],
    /// What of the key is compared.
    pub target: CompareTarget,
    /// How it must compare.
    pub result: CompareResult,
    /// What it is compared with, for all targets but the value.
    pub number: i64,
    /// What a value is compared with.
    pub value: &'a [u8],
}

impl<'a> Compare<'a> {
    /// A condition on a number of one key.
    pub fn number(
        key: &'a [u8],
        target: CompareTarget,
        result: CompareResult,
        number: i64,
    ) -> Self {
        Self { key, target, result, number, ..Self::default() }
    }

    /// A condition on the value of one key.
    pub fn value(key: &'a [u8], result: CompareResult, value: &'a [u8]) -> Self {
        Self { key, target: CompareTarget::Value, result, value, ..Self::default() }
    }
}

/// Gives up history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compact {
    /// Reads below this revision are refused from then on.
    pub revision: i64,
    /// Answer only when the space has been given back on the answering member.
    pub physical: bool,
}

numbers!(
    /// How the members shall change.
    MemberOperation, "operation", {
        /// A new member that votes as soon as it has caught up.
        #[default]
        Add = 0,
        /// A new member that only listens.
        AddLearner = 1,
        /// A member that listens shall vote.
        Promote = 2,
        /// A member leaves.
        Remove = 3,
        /// A member gets another name or peer address.
        Update = 4,
        /// A member leaves and a new one takes its place.
        Replace = 5,
    }
);

/// Changes the members of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberChange<'a> {
    /// What shall be done.
    pub operation: MemberOperation,
    /// To which member; 0 for `Add` and `AddLearner`.
    pub member: NodeId,
    /// The name of the new member, or the new name; empty: as it was, or not needed.
    pub name: &'a str,
    /// The same for the address where members reach it.
    pub peer_address: &'a str,
    /// Do it although it would be refused as unsafe.
    pub force: bool,
}

/// Hands leadership to another member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MoveLeader {
    /// To whom; 0: the server chooses.
    pub target: NodeId,
}

/// A verified request.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// First frame of a client.
    Hello(Hello<'a>),
    /// Asks for a sign of life.
    Ping,
    /// Gives up the request with this frame's request id.
    Cancel,
    /// Asks for the state of this member.
    Status,
    /// The limits of the member and their use.
    Limits,
    /// All that the member keeps.
    Snapshot,
    /// Asks for a client id.
    Register,
    /// Writes one key.
    Put(Put<'a>),
    /// Reads a range of keys.
    Range(Range<'a>),
    /// Deletes a range of keys.
    DeleteRange(DeleteRange<'a>),
    /// Compares, then does one of two lists of operations.
    Txn(TxnView<'a>),
    /// Gives up history.
    Compact(Compact),
    /// Watches ranges of keys.
    Watch(Watch<'a>),
    /// Asks a watch how far it has come.
    WatchProgress,
    /// Makes a lease.
    LeaseGrant(LeaseGrant),
    /// Ends a lease.
    LeaseRevoke(LeaseRevoke),
    /// Lets leases begin their time anew.
    LeaseKeepAlive(LeaseKeepAlive<'a>),
    /// Asks for a lease's time.
    LeaseTimeToLive(LeaseTimeToLive<'a>),
    /// Asks for the leases that there are.
    LeaseList(LeaseList),
    /// Asks who the members are.
    MemberList,
    /// Changes the members.
    MemberChange(MemberChange<'a>),
    /// Hands leadership to another member.
    MoveLeader(MoveLeader),
    /// Raises or disarms alarms.
    Alarm(AlarmChange),
}

impl<'a> Request<'a> {
    /// Verifies the body of a request of this kind, whoever wrote it.
    ///
    /// Errors: what is wrong; [`DecodeError::closes`] tells whether the connection must end. Bytes
    /// from the log were verified before they got there, so any error means that the record was
    /// written by another version or that memory is broken.
    #[inline]
    pub fn verify(kind: Kind, body: &'a [u8], limits: &VerifyLimits) -> Result<Self, DecodeError> {
        match kind {
            Kind::Put => put(Table::root(body)?).map(Self::Put),
            Kind::Range => range(Table::root(body)?).map(Self::Range),
            Kind::DeleteRange => delete_range(Table::root(body)?).map(Self::DeleteRange),
            Kind::Txn => {
                let mut budget = Budget::new(limits, body.len());
                TxnView::checked(Table::root(body)?, limits.txn_depth_max, &mut budget)
                    .map(Self::Txn)
            }
            Kind::Compact => {
                let table = root::<schema::CompactRequest<'_>>(body)?;
                Ok(Self::Compact(Compact {
                    revision: table.revision(),
                    physical: table.physical(),
                }))
            }
            Kind::Hello => verify_hello(body).map(Self::Hello),
            Kind::Ping => empty(body, Self::Ping),
            Kind::Cancel => empty(body, Self::Cancel),
            Kind::Status => empty(body, Self::Status),
            Kind::Limits => empty(body, Self::Limits),
            Kind::Snapshot => empty(body, Self::Snapshot),
            Kind::Register => empty(body, Self::Register),
            Kind::Watch => Watch::read(Table::root(body)?).map(Self::Watch),
            Kind::WatchProgress => empty(body, Self::WatchProgress),
            Kind::LeaseGrant => LeaseGrant::read(Table::root(body)?).map(Self::LeaseGrant),
            Kind::LeaseRevoke => LeaseRevoke::read(Table::root(body)?).map(Self::LeaseRevoke),
            Kind::LeaseKeepAlive => {
                LeaseKeepAlive::read(Table::root(body)?).map(Self::LeaseKeepAlive)
            }
            Kind::LeaseTimeToLive => {
                LeaseTimeToLive::read(Table::root(body)?).map(Self::LeaseTimeToLive)
            }
            Kind::LeaseList => LeaseList::read(Table::root(body)?).map(Self::LeaseList),
            Kind::MemberList => empty(body, Self::MemberList),
            Kind::MemberChange => member_change(root::<schema::MemberChangeRequest<'_>>(body)?)
                .map(Self::MemberChange),
            Kind::MoveLeader => {
                let table = root::<schema::MoveLeaderRequest<'_>>(body)?;
                Ok(Self::MoveLeader(MoveLeader { target: NodeId::new(table.target()) }))
            }
            Kind::Alarm => AlarmChange::read(Table::root(body)?).map(Self::Alarm),
            Kind::HelloReply
            | Kind::PingReply
            | Kind::StatusReply
            | Kind::LimitsReply
            | Kind::SnapshotReply
            | Kind::RegisterReply
            | Kind::PutReply
            | Kind::RangeReply
            | Kind::DeleteRangeReply
            | Kind::TxnReply
            | Kind::CompactReply
            | Kind::WatchReply
            | Kind::LeaseGrantReply
            | Kind::LeaseRevokeReply
            | Kind::LeaseKeepAliveReply
            | Kind::LeaseTimeToLiveReply
            | Kind::LeaseListReply
            | Kind::MemberListReply
            | Kind::MemberChangeReply
            | Kind::MoveLeaderReply
            | Kind::AlarmReply
            | Kind::Refused
            | Kind::PeerHello
            | Kind::PeerWelcome
            | Kind::PeerRefused
            | Kind::PeerRaft
            | Kind::PeerAppend
            | Kind::PeerForward
            | Kind::PeerForwardRefused
            | Kind::PeerSnapshotBegin
            | Kind::PeerSnapshotChunk
            | Kind::PeerSnapshotAck
            | Kind::PeerJoin
            | Kind::PeerJoinReply => Err(DecodeError::UnexpectedKind { kind }),
        }
    }

    /// The kind of frame that carries this request.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Ping => Kind::Ping,
            Self::Cancel => Kind::Cancel,
            Self::Status => Kind::Status,
            Self::Limits => Kind::Limits,
            Self::Snapshot => Kind::Snapshot,
            Self::Register => Kind::Register,
            Self::Put(_) => Kind::Put,
            Self::Range(_) => Kind::Range,
            Self::DeleteRange(_) => Kind::DeleteRange,
            Self::Txn(_) => Kind::Txn,
            Self::Compact(_) => Kind::Compact,
            Self::Watch(_) => Kind::Watch,
            Self::WatchProgress => Kind::WatchProgress,
            Self::LeaseGrant(_) => Kind::LeaseGrant,
            Self::LeaseRevoke(_) => Kind::LeaseRevoke,
            Self::LeaseKeepAlive(_) => Kind::LeaseKeepAlive,
            Self::LeaseTimeToLive(_) => Kind::LeaseTimeToLive,
            Self::LeaseList(_) => Kind::LeaseList,
            Self::MemberList => Kind::MemberList,
            Self::MemberChange(_) => Kind::MemberChange,
            Self::MoveLeader(_) => Kind::MoveLeader,
            Self::Alarm(_) => Kind::Alarm,
        }
    }
}

/// Verifies the body of a `Hello`: all that a connection may send before its handshake.
///
/// Errors: as [`Request::verify`].
pub fn verify_hello(body: &[u8]) -> Result<Hello<'_>, DecodeError> {
    let table = root::<schema::Hello<'_>>(body)?;
    Ok(Hello {
        version_min: table.version_min(),
        version_max: table.version_max(),
        cluster: table.cluster_id(),
        client_name: table.client_name().unwrap_or_default(),
    })
}

fn member_change(table: schema::MemberChangeRequest<'_>) -> Result<MemberChange<'_>, DecodeError> {
    Ok(MemberChange {
        operation: MemberOperation::try_from(table.operation().0)?,
        member: NodeId::new(table.member_id()),
        name: table.name().unwrap_or_default(),
        peer_address: table.peer_address().unwrap_or_default(),
        force: table.force(),
    })
}

/// A kind without a body.
fn empty<'a>(body: &[u8], request: Request<'a>) -> Result<Request<'a>, DecodeError> {
    if body.is_empty() { Ok(request) } else { Err(DecodeError::Malformed) }
}

/// Verifies `body` as a `T` of a single table, by the library.
pub(crate) fn root<'a, T>(body: &'a [u8]) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    root_with::<T>(&flat_options(body.len()), body)
}

/// The same within other limits.
pub(crate) fn root_with<'a, T>(
    options: &VerifierOptions,
    body: &'a [u8],
) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    flatbuffers::root_with_opts::<T>(options, body).map_err(|error| match error {
        InvalidFlatbuffer::TooManyTables
        | InvalidFlatbuffer::ApparentSizeTooLarge
        | InvalidFlatbuffer::DepthLimitReached => DecodeError::TooComplex,
        InvalidFlatbuffer::MissingRequiredField { .. }
        | InvalidFlatbuffer::InconsistentUnion { .. }
        | InvalidFlatbuffer::Utf8Error { .. }
        | InvalidFlatbuffer::MissingNullTerminator { .. }
        | InvalidFlatbuffer::Unaligned { .. }
        | InvalidFlatbuffer::RangeOutOfBounds { .. }
        | InvalidFlatbuffer::SignedOffsetOutOfBounds { .. } => DecodeError::Malformed,
    })
}

#[inline]
fn put(table: Table<'_>) -> Result<Put<'_>, DecodeError> {
    use schema::PutRequest as Slots;
    Ok(Put {
        key: table.required_bytes(Slots::VT_KEY, "key")?,
        value: table.bytes(Slots::VT_VALUE)?.unwrap_or_default(),
        lease: table.i64(Slots::VT_LEASE)?,
        prev_kv: table.bool(Slots::VT_PREV_KV)?,
        ignore_value: table.bool(Slots::VT_IGNORE_VALUE)?,
        ignore_lease: table.bool(Slots::VT_IGNORE_LEASE)?,
        ttl_ms: table.u64(Slots::VT_TTL_MS)?,
    })
}

#[inline]
fn range(table: Table<'_>) -> Result<Range<'_>, DecodeError> {
    use schema::RangeRequest as Slots;
    Ok(Range {
        key: table.required_bytes(Slots::VT_KEY, "key")?,
        range_end: table.bytes(Slots::VT_RANGE_END)?.unwrap_or_default(),
        limit: table.i64(Slots::VT_LIMIT)?,
        revision: table.i64(Slots::VT_REVISION)?,
        sort_order: SortOrder::try_from(table.u8(Slots::VT_SORT_ORDER)?)?,
        sort_target: SortTarget::try_from(table.u8(Slots::VT_SORT_TARGET)?)?,
        serializable: table.bool(Slots::VT_SERIALIZABLE)?,
        keys_only: table.bool(Slots::VT_KEYS_ONLY)?,
        count_only: table.bool(Slots::VT_COUNT_ONLY)?,
        min_mod_revision: table.i64(Slots::VT_MIN_MOD_REVISION)?,
        max_mod_revision: table.i64(Slots::VT_MAX_MOD_REVISION)?,
        min_create_revision: table.i64(Slots::VT_MIN_CREATE_REVISION)?,
        max_create_revision: table.i64(Slots::VT_MAX_CREATE_REVISION)?,
    })
}

#[inline]
fn delete_range(table: Table<'_>) -> Result<DeleteRange<'_>, DecodeError> {
    use schema::DeleteRangeRequest as Slots;
    Ok(DeleteRange {
        key: table.required_bytes(Slots::VT_KEY, "key")?,
        range_end: table.bytes(Slots::VT_RANGE_END)?.unwrap_or_default(),
        prev_kv: table.bool(Slots::VT_PREV_KV)?,
    })
}

#[inline]
fn compare(table: Table<'_>) -> Result<Compare<'_>, DecodeError> {
    use schema::Compare as Slots;
    Ok(Compare {
        key: table.required_bytes(Slots::VT_KEY, "key")?,
        range_end: table.bytes(Slots::VT_RANGE_END)?.unwrap_or_default(),
        target: CompareTarget::try_from(table.u8(Slots::VT_TARGET)?)?,
        result: CompareResult::try_from(table.u8(Slots::VT_RESULT)?)?,
        number: table.i64(Slots::VT_NUMBER)?,
        value: table.bytes(Slots::VT_VALUE)?.unwrap_or_default(),
    })
}

#[inline]
fn operation(table: Table<'_>) -> Result<OpView<'_>, DecodeError> {
    use schema::Operation as Slots;
    match (
        table.table(Slots::VT_PUT)?,
        table.table(Slots::VT_RANGE)?,
        table.table(Slots::VT_DELETE_RANGE)?,
        table.table(Slots::VT_TXN)?,
    ) {
        (Some(table), None, None, None) => put(table).map(OpView::Put),
        (None, Some(table), None, None) => range(table).map(OpView::Range),
        (None, None, Some(table), None) => delete_range(table).map(OpView::DeleteRange),
        (None, None, None, Some(table)) => TxnView::unchecked(table).map(OpView::Txn),
        _ => Err(DecodeError::NotOneOperation),
    }
}

/// A verified transaction: three lists that are read in place.
#[derive(Clone, Copy)]
pub struct TxnView<'a> {
    compares: Tables<'a>,
    success: Tables<'a>,
    failure: Tables<'a>,
}

/// One operation of a verified transaction.
#[derive(Clone, Copy, Debug)]
pub enum OpView<'a> {
    /// Writes one key.
    Put(Put<'a>),
    /// Reads a range of keys.
    Range(Range<'a>),
    /// Deletes a range of keys.
    DeleteRange(DeleteRange<'a>),
    /// A transaction inside the transaction.
    Txn(TxnView<'a>),
}

impl<'a> TxnView<'a> {
    /// The lists of a transaction; their members have not been looked at.
    #[inline]
    fn unchecked(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::TxnRequest as Slots;
        Ok(Self {
            compares: table.tables(Slots::VT_COMPARES)?,
            success: table.tables(Slots::VT_SUCCESS)?,
            failure: table.tables(Slots::VT_FAILURE)?,
        })
    }

    /// Reads every member of every list once, nested transactions included: reading them again
    /// gives the same and cannot fail. No recursion: the depth is the sender's choice.
    fn checked(
        table: Table<'a>,
        depth_max: usize,
        budget: &mut Budget,
    ) -> Result<Self, DecodeError> {
        let outermost = Self::unchecked(table)?;
        budget.spend(table.size() + outermost.lists_size())?;
        let mut waiting = Vec::new();
        let mut next = Some((outermost, 1));
        while let Some((view, depth)) = next {
            if depth > depth_max {
                return Err(DecodeError::TooComplex);
            }
            for member in view.compares {
                let table = member?;
                let compare = compare(table)?;
                let size = compare.key.len() + compare.range_end.len() + compare.value.len();
                budget.spend(table.size() + size)?;
            }
            for member in view.success.chain(view.failure) {
                let table = member?;
                let size = match operation(table)? {
                    OpView::Put(put) => put.key.len() + put.value.len(),
                    OpView::Range(range) => range.key.len() + range.range_end.len(),
                    OpView::DeleteRange(delete) => delete.key.len() + delete.range_end.len(),
                    OpView::Txn(inner) => {
                        waiting.push((inner, depth + 1));
                        inner.lists_size()
                    }
                };
                // One for the operation, one for the table inside it.
                budget.spend(table.size())?;
                budget.spend(size)?;
            }
            next = waiting.pop();
        }
        Ok(outermost)
    }

    /// Bytes of the three lists of offsets.
    fn lists_size(&self) -> usize {
        4 * (self.compares.len() + self.success.len() + self.failure.len())
    }

    /// The conditions; all must hold. None: they hold.
    pub fn compares(&self) -> impl ExactSizeIterator<Item = Compare<'a>> + use<'a> {
        self.compares.map(|table| {
            table.and_then(compare).expect("checked when the transaction was verified")
        })
    }

    /// What is done if the conditions hold.
    pub fn success(&self) -> impl ExactSizeIterator<Item = OpView<'a>> + use<'a> {
        self.success.map(|table| {
            table.and_then(operation).expect("checked when the transaction was verified")
        })
    }

    /// What is done otherwise.
    pub fn failure(&self) -> impl ExactSizeIterator<Item = OpView<'a>> + use<'a> {
        self.failure.map(|table| {
            table.and_then(operation).expect("checked when the transaction was verified")
        })
    }
}

impl core::fmt::Debug for TxnView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TxnView")
            .field("compares", &self.compares().len())
            .field("success", &self.success().len())
            .field("failure", &self.failure().len())
            .finish()
    }
}
