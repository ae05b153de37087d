//! Requests as they go out: appends whole request frames to a send buffer.
//!
//! Used by clients, and by whoever translates another protocol into log entries.

use alloc::boxed::Box;
use alloc::vec::Vec;
use base::{RequestId, Stamp};

use crate::alarm::AlarmChange;
use crate::body::{Body, Layout, OffsetAt, empty_frame};
use crate::error::{EncodeError, Status};
use crate::header::{Flags, Header, VERSION_MIN};
use crate::kind::Kind;
use crate::lease::{LeaseGrant, LeaseKeepAlive, LeaseList, LeaseRevoke, LeaseTimeToLive};
use crate::limits::{HANDSHAKE_BODY_SIZE_MAX, TXN_DEPTH_MAX};
use crate::request::{
    Compact, Compare, DeleteRange, Hello, MemberChange, MoveLeader, OpView, Put, Range, TxnView,
};
use crate::watch::Watch;

// Widths of the fields, in the order of the schema.
const HELLO: Layout<4> = Layout::new([2, 2, 8, 4]);
const PUT: Layout<6> = Layout::new([4, 4, 8, 1, 1, 1]);
/// The same with a lease made for the key, which is rare.
const PUT_TTL: Layout<7> = Layout::new([4, 4, 8, 1, 1, 1, 8]);
const RANGE: Layout<13> = Layout::new([4, 4, 8, 8, 1, 1, 1, 1, 1, 8, 8, 8, 8]);
/// The same without the four revision bounds, which are almost always off.
const RANGE_UNBOUNDED: Layout<9> = Layout::new([4, 4, 8, 8, 1, 1, 1, 1, 1]);
const DELETE_RANGE: Layout<3> = Layout::new([4, 4, 1]);
const COMPARE: Layout<6> = Layout::new([4, 4, 1, 1, 8, 4]);
const TXN: Layout<3> = Layout::new([4, 4, 4]);
const COMPACT: Layout<2> = Layout::new([8, 1]);
const MEMBER_CHANGE: Layout<5> = Layout::new([1, 8, 4, 4, 1]);
const MOVE_LEADER: Layout<1> = Layout::new([8]);
const OP_PUT: Layout<1> = Layout::new([4]);
const OP_RANGE: Layout<2> = Layout::new([0, 4]);
const OP_DELETE_RANGE: Layout<3> = Layout::new([0, 0, 4]);
const OP_TXN: Layout<4> = Layout::new([0, 0, 0, 4]);

/// A transaction to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn<'a> {
    /// The conditions; all must hold. None: they hold.
    pub compares: Vec<Compare<'a>>,
    /// What is done if the conditions hold.
    pub success: Vec<Op<'a>>,
    /// What is done otherwise.
    pub failure: Vec<Op<'a>>,
}

impl<'a> Txn<'a> {
    /// A transaction without conditions and operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare<'a>) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation for when the conditions hold.
    #[must_use]
    pub fn then(mut self, op: Op<'a>) -> Self {
        self.success.push(op);
        self
    }

    /// Adds an operation for when they do not.
    #[must_use]
    pub fn otherwise(mut self, op: Op<'a>) -> Self {
        self.failure.push(op);
        self
    }
}

/// One operation of a transaction to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// Writes one key.
    Put(Put<'a>),
    /// Reads a range of keys.
    Range(Range<'a>),
    /// Deletes a range of keys.
    DeleteRange(DeleteRange<'a>),
    /// A transaction inside the transaction.
    Txn(Box<Txn<'a>>),
}

/// A request to be sent.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// First frame of a client.
    Hello(Hello<'a>),
    /// Asks for a sign of life.
    Ping,
    /// Gives up the request whose id the frame carries.
    Cancel,
    /// Asks for the state of the member.
    Status,
    /// Asks for the limits of the member and their use.
    Limits,
    /// Asks for all that the member keeps.
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
    Txn(&'a Txn<'a>),
    /// Gives up history.
    Compact(Compact),
    /// Watches ranges of keys.
    Watch(Watch<'a>),
    /// Asks the watch whose id the frame carries how far it has come.
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

impl Call<'_> {
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

    /// True if sending the same request twice does no more than sending it once: a read, or a
    /// transaction that only reads. An id that a second registration is given and nobody uses is soon
    /// forgotten.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Hello(_)
            | Self::Ping
            | Self::Cancel
            | Self::Status
            | Self::Limits
            | Self::Snapshot
            | Self::Register
            | Self::Range(_)
            | Self::Watch(_)
            | Self::WatchProgress
            | Self::LeaseKeepAlive(_)
            | Self::LeaseTimeToLive(_)
            | Self::LeaseList(_)
            | Self::MemberList => true,
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::MemberChange(_)
            | Self::MoveLeader(_)
            | Self::Alarm(_) => false,
            Self::Txn(txn) => {
                txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_)))
            }
        }
    }
}

/// Appends request frames to a send buffer.
#[derive(Clone, Copy, Debug)]
pub struct RequestEncoder {
    version: u8,
    body_size_max: usize,
}

impl RequestEncoder {
    /// An encoder for a connection before its handshake.
    pub const fn new() -> Self {
        Self { version: VERSION_MIN, body_size_max: HANDSHAKE_BODY_SIZE_MAX }
    }

    /// The handshake is done: frames have the version that was agreed on, and bodies at most
    /// `body_size_max` bytes.
    pub fn agree(&mut self, version: u8, body_size_max: usize) {
        self.version = version;
        self.body_size_max = body_size_max;
    }

    /// Appends the frame of `call` to `out`. `deadline_ms` counts from the server's receipt; 0: no
    /// bound. Errors: the request cannot be sent; `out` is then as it was.
    #[inline]
    pub fn encode(
        &self,
        out: &mut Vec<u8>,
        request: RequestId,
        deadline_ms: u32,
        call: &Call<'_>,
    ) -> Result<(), EncodeError> {
        self.encode_with(out, request, deadline_ms, None, call)
    }

    /// The same for a write with a stamp, if there is one: it takes effect once, however often it is
    /// sent.
    ///
    /// # Panics
    ///
    /// When a call other than a write ([`Kind::is_write`]) has a stamp.
    #[inline]
    pub fn encode_with(
        &self,
        out: &mut Vec<u8>,
        request: RequestId,
        deadline_ms: u32,
        stamp: Option<&Stamp>,
        call: &Call<'_>,
    ) -> Result<(), EncodeError> {
        assert!(stamp.is_none() || call.kind().is_write(), "a stamp on {:?}", call.kind());
        let header = Header {
            version: self.version,
            kind: call.kind(),
            flags: if stamp.is_some() { Flags::STAMPED } else { Flags::NONE },
            status: Status::Ok,
            body_size: 0,
            request,
            deadline_ms,
        };
        match call {
            Call::Ping
            | Call::Cancel
            | Call::Status
            | Call::Limits
            | Call::Snapshot
            | Call::Register
            | Call::WatchProgress
            | Call::MemberList => {
                empty_frame(out, header);
                return Ok(());
            }
            Call::Put(_)
            | Call::Range(_)
            | Call::DeleteRange(_)
            | Call::Txn(_)
            | Call::Compact(_)
            | Call::Watch(_)
            | Call::LeaseGrant(_)
            | Call::LeaseRevoke(_)
            | Call::LeaseKeepAlive(_)
            | Call::LeaseTimeToLive(_)
            | Call::LeaseList(_)
            | Call::MemberChange(_)
            | Call::MoveLeader(_)
            | Call::Alarm(_)
            | Call::Hello(_) => {}
        }
        let mut body = match stamp {
            None => Body::begin(out, self.body_size_max),
            Some(stamp) => Body::begin_behind(&stamp.to_bytes(), out, self.body_size_max),
        };
        let root = body.root_offset();
        match call {
            Call::Put(request) => put(&mut body, root, request),
            Call::Range(request) => range(&mut body, root, request),
            Call::DeleteRange(request) => delete_range(&mut body, root, request),
            Call::Txn(request) => {
                if let Err(error) = txn(&mut body, root, request) {
                    body.abandon();
                    return Err(error);
                }
            }
            Call::Compact(request) => {
                let table = body.table(root, &COMPACT);
                body.set_i64(table, 0, request.revision);
                body.set_bool(table, 1, request.physical);
            }
            Call::Hello(request) => {
                let table = body.table(root, &HELLO);
                body.set_u16(table, 0, request.version_min);
                body.set_u16(table, 1, request.version_max);
                body.set_u64(table, 2, request.cluster);
                body.string(table.offset(3), request.client_name);
            }
            Call::MemberChange(request) => {
                let table = body.table(root, &MEMBER_CHANGE);
                body.set_u8(table, 0, request.operation.number());
                body.set_u64(table, 1, request.member.get());
                body.set_bool(table, 4, request.force);
                body.string(table.offset(2), request.name);
                body.string(table.offset(3), request.peer_address);
            }
            Call::MoveLeader(request) => {
                let table = body.table(root, &MOVE_LEADER);
                body.set_u64(table, 0, request.target.get());
            }
            Call::Watch(request) => request.write(&mut body, root),
            Call::LeaseGrant(request) => request.write(&mut body, root),
            Call::LeaseRevoke(request) => request.write(&mut body, root),
            Call::LeaseKeepAlive(request) => request.write(&mut body, root),
            Call::LeaseTimeToLive(request) => request.write(&mut body, root),
            Call::LeaseList(request) => request.write(&mut body, root),
            Call::Alarm(request) => request.write(&mut body, root),
            Call::Ping
            | Call::Cancel
            | Call::Status
            | Call::Limits
            | Call::Snapshot
            | Call::Register
            | Call::WatchProgress
            | Call::MemberList => {}
        }
        body.finish(header)
    }
}

impl Default for RequestEncoder {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
fn put(body: &mut Body<'_>, at: OffsetAt, request: &Put<'_>) {
    if request.ttl_ms == 0 {
        let table = body.table(at, &PUT);
        put_fields(body, table, request);
    } else {
        let table = body.table(at, &PUT_TTL);
        body.set_u64(table, 6, request.ttl_ms);
        put_fields(body, table, request);
    }
}

#[inline]
fn put_fields<const N: usize>(
    body: &mut Body<'_>,
    table: crate::body::Table<'_, N>,
    request: &Put<'_>,
) {
    body.set_i64(table, 2, request.lease);
    body.set_bool(table, 3, request.prev_kv);
    body.set_bool(table, 4, request.ignore_value);
    body.set_bool(table, 5, request.ignore_lease);
    body.bytes(table.offset(0), request.key);
    body.bytes(table.offset(1), request.value);
}

fn range(body: &mut Body<'_>, at: OffsetAt, request: &Range<'_>) {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds == [0; 4] {
        let table = body.table(at, &RANGE_UNBOUNDED);
        range_fields(body, table, request);
    } else {
        let table = body.table(at, &RANGE);
        for (slot, bound) in (9..).zip(bounds) {
            body.set_i64(table, slot, bound);
        }
        range_fields(body, table, request);
    }
}

#[inline]
fn range_fields<const N: usize>(
    body: &mut Body<'_>,
    table: crate::body::Table<'_, N>,
    request: &Range<'_>,
) {
    body.set_i64(table, 2, request.limit);
    body.set_i64(table, 3, request.revision);
    body.set_u8(table, 4, request.sort_order.number());
    body.set_u8(table, 5, request.sort_target.number());
    body.set_bool(table, 6, request.serializable);
    body.set_bool(table, 7, request.keys_only);
    body.set_bool(table, 8, request.count_only);
    body.bytes(table.offset(0), request.key);
    body.bytes(table.offset(1), request.range_end);
}

fn delete_range(body: &mut Body<'_>, at: OffsetAt, request: &DeleteRange<'_>) {
    let table = body.table(at, &DELETE_RANGE);
    body.set_bool(table, 2, request.prev_kv);
    body.bytes(table.offset(0), request.key);
    body.bytes(table.offset(1), request.range_end);
}

fn compare(body: &mut Body<'_>, at: OffsetAt, request: &Compare<'_>) {
    let table = body.table(at, &COMPARE);
    body.set_u8(table, 2, request.target.number());
    body.set_u8(table, 3, request.result.number());
    body.set_i64(table, 4, request.number);
    body.bytes(table.offset(0), request.key);
    body.bytes(table.offset(1), request.range_end);
    body.bytes(table.offset(5), request.value);
}

/// Writes a transaction and, one after the other, those inside it.
fn txn(body: &mut Body<'_>, at: OffsetAt, outermost: &Txn<'_>) -> Result<(), EncodeError> {
    let mut waiting = Vec::new();
    let mut next = Some((at, outermost, 1));
    while let Some((at, request, depth)) = next {
        if depth > TXN_DEPTH_MAX {
            return Err(EncodeError::TooDeep { depth_max: TXN_DEPTH_MAX });
        }
        let table = body.table(at, &TXN);
        if let Some(mut place) = body.offsets(table.offset(0), request.compares.len()) {
            for member in &request.compares {
                compare(body, place, member);
                place = place.next();
            }
        }
        for (slot, list) in [(1, &request.success), (2, &request.failure)] {
            let Some(mut place) = body.offsets(table.offset(slot), list.len()) else { continue };
            for member in list {
                match member {
                    Op::Put(request) => {
                        let op = body.table(place, &OP_PUT);
                        put(body, op.offset(0), request);
                    }
                    Op::Range(request) => {
                        let op = body.table(place, &OP_RANGE);
                        range(body, op.offset(1), request);
                    }
                    Op::DeleteRange(request) => {
                        let op = body.table(place, &OP_DELETE_RANGE);
                        delete_range(body, op.offset(2), request);
                    }
                    Op::Txn(inner) => {
                        let op = body.table(place, &OP_TXN);
                        waiting.push((op.offset(3), &**inner, depth + 1));
                    }
                }
                place = place.next();
            }
        }
        if body.is_full() {
            // What is left would only grow a frame that is given up.
            return Ok(());
        }
        next = waiting.pop();
    }
    Ok(())
}

impl<'a> From<TxnView<'a>> for Txn<'a> {
    /// The same transaction as lists. Recursive, and bounded because the view was verified.
    fn from(view: TxnView<'a>) -> Self {
        let op = |op| match op {
            OpView::Put(put) => Op::Put(put),
            OpView::Range(range) => Op::Range(range),
            OpView::DeleteRange(delete) => Op::DeleteRange(delete),
            OpView::Txn(inner) => Op::Txn(Box::new(Txn::from(inner))),
        };
        Self {
            compares: view.compares().collect(),
            success: view.success().map(op).collect(),
            failure: view.failure().map(op).collect(),
        }
    }
}
