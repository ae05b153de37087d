//! What a client asked to read along with a write, read afterwards at its place between the changes;
//! and transactions that only read, without the log.
//!
//! Apply carries no values to the client: only the member that answers reads them, at (revision, sub).
//! For that the events from [`Answer::keeps`] on must not be trimmed before the answer is done.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::{Mutant, Revision};

use crate::command::{Command, DeleteRange, Op, RangeRequest, Txn};
use crate::compare::Compares;
use crate::keys::{Interval, Point};
use crate::listing::{HELD_MAX as SORT_HELD_MAX, Listed, Listing, STEP_SIZE, Shape};
use crate::outcome::{OpReply, Outcome, RangeEnd, Reply, Step, Stop, TxnOutcome, TxnReply, charge};
use crate::pair::{KeyValue, KeyValueList};
use crate::path::{Next, Position, Walk};
use crate::refusal::Refusal;
use crate::state::State;

/// Bytes of pairs that the reply to one write, or to one transaction, may hold: each pair counts its
/// key, its value and a fixed part. More than fits a frame, so that none is refused that would fit.
pub const REPLY_SIZE_MAX: usize = 32 << 20;

/// The reply to a write on its way. It owns what it needs and holds no part of the state.
#[derive(Debug)]
pub struct Answer {
    top: Top,
    items: Vec<Item>,
    /// The listing of the item being read.
    running: Option<Listing>,
    pairs: KeyValueList,
    size: usize,
    done: Vec<OpReply>,
    keeps: Revision,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Top {
    /// A single put or delete: the reply is that of its only item.
    Single,
    Txn {
        revision: Revision,
        succeeded: bool,
    },
}

#[derive(Debug)]
struct Item {
    reply: Kind,
    /// What to read for it.
    reads: Option<Reads>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Put { revision: Revision },
    Deleted { revision: Revision, count: u64 },
    Range,
    Txn { succeeded: bool, ops_count: usize },
}

#[derive(Debug)]
struct Reads {
    key: Vec<u8>,
    range_end: Vec<u8>,
    shape: Shape,
    point: Point,
    revision: Revision,
}

impl Reads {
    /// The pairs of a range at `point`, whole and in key order.
    fn previous(key: &[u8], range_end: &[u8], point: Point, revision: Revision) -> Option<Self> {
        let (key, range_end) = (key.to_vec(), range_end.to_vec());
        Some(Self { key, range_end, shape: Shape::plain(), point, revision })
    }
}

impl Answer {
    /// What remains to be read for the reply to `command` after `outcome`; none when the outcome says
    /// everything.
    pub fn new(command: &Command<'_>, outcome: &Outcome) -> Option<Self> {
        match (command, outcome) {
            (Command::Put(put), Outcome::Put { revision }) if put.prev_kv => {
                let late = Mutant::PrevKvLate.is_on();
                let point = if late { Point::at(*revision) } else { Point::before(*revision) };
                let reads = Reads::previous(put.key, b"", point, *revision);
                Some(Self::single(Kind::Put { revision: *revision }, reads))
            }
            (Command::DeleteRange(delete), Outcome::Deleted { revision, count })
                if delete.prev_kv && *count > 0 =>
            {
                let point = Point::before(*revision);
                let reads = Reads::previous(delete.key, delete.range_end, point, *revision);
                let kind = Kind::Deleted { revision: *revision, count: *count };
                Some(Self::single(kind, reads))
            }
            (Command::Txn(txn), Outcome::Txn(outcome)) => Some(Self::of_txn(txn, outcome)),
            _ => None,
        }
    }

    fn single(reply: Kind, reads: Option<Reads>) -> Self {
        Self::with_items(Top::Single, alloc::vec![Item { reply, reads }])
    }

    fn with_items(top: Top, items: Vec<Item>) -> Self {
        let reads = items.iter().filter_map(|item| item.reads.as_ref());
        let keeps = reads.map(|reads| reads.point.revision).min().unwrap_or(Revision::MAX);
        let done = Vec::with_capacity(items.len());
        let pairs = KeyValueList::default();
        Self { top, items, running: None, pairs, size: 0, done, keeps }
    }

    /// Walks the taken path and notes for each operation the point of history that it saw.
    fn of_txn(txn: &Txn<'_>, outcome: &TxnOutcome) -> Self {
        let changed = outcome.base.next();
        let mut point = Point::before(changed);
        let mut deleted = outcome.deleted.iter();
        let mut items = Vec::new();
        let mut position = Position::default();
        let mut walk = Walk::resume(txn, &mut position);
        let mut path = outcome.path.iter();
        let succeeded = outcome.succeeded();
        if let Some(taken) = path.next() {
            walk.enter(txn, *taken);
        }
        while let Some(next) = walk.peek() {
            walk.advance();
            // The revision for the header of an operation: the transaction's own from its first change.
            let seen = if point.sub > 0 { changed } else { outcome.base };
            let item = match next {
                Next::Txn(nested) => {
                    let Some(taken) = path.next() else { break };
                    walk.enter(nested, *taken);
                    let ops_count = nested.branch(*taken).len();
                    Item { reply: Kind::Txn { succeeded: *taken, ops_count }, reads: None }
                }
                Next::Op(Op::Put(put)) => {
                    let before = point;
                    point = point.next();
                    let reads = || Reads::previous(put.key, b"", before, changed);
                    let reads = if put.prev_kv { reads() } else { None };
                    Item { reply: Kind::Put { revision: changed }, reads }
                }
                Next::Op(Op::DeleteRange(delete)) => {
                    let count = deleted.next().copied().unwrap_or(0);
                    let before = point;
                    point.sub += u32::try_from(count).expect("the sub numbers of the deletes fit");
                    let revision = if point.sub > 0 { changed } else { outcome.base };
                    let DeleteRange { key, range_end, prev_kv } = *delete;
                    let reads = || Reads::previous(key, range_end, before, revision);
                    let reads = if prev_kv && count > 0 { reads() } else { None };
                    Item { reply: Kind::Deleted { revision, count }, reads }
                }
                Next::Op(Op::Range(range)) => {
                    Item { reply: Kind::Range, reads: Some(read_of(range, point, seen)) }
                }
                Next::Op(Op::Txn(_) | Op::Unset) => continue,
            };
            items.push(item);
        }
        Self::with_items(Top::Txn { revision: outcome.revision, succeeded }, items)
    }

    /// Events of this revision and later must stay until the answer is done: what to hand to
    /// [`State::trim`], the least of all answers that are open.
    pub fn keeps(&self) -> Revision {
        self.keeps
    }

    /// Bytes of what it was made of, before it holds anything.
    pub fn size(&self) -> usize {
        let size = |item: &Item| {
            let keys = |reads: &Reads| reads.key.len() + reads.range_end.len();
            size_of::<Item>() + size_of::<OpReply>() + item.reads.as_ref().map_or(0, keys)
        };
        size_of::<Self>() + self.items.iter().map(size).sum::<usize>()
    }

    /// Bytes that it holds between steps.
    pub fn held(&self) -> usize {
        self.size + self.running.as_ref().map_or(0, Listing::held)
    }

    /// Bytes that it may come to hold, at most; 0 if it never holds any.
    pub fn held_max(&self) -> usize {
        let reads = self.items.iter().filter_map(|item| item.reads.as_ref());
        let sorts = reads.map(|reads| REPLY_SIZE_MAX + reads.shape.held_max());
        sorts.max().unwrap_or(0)
    }

    /// Lets go of everything that it holds, to begin again.
    pub fn give_up(&mut self) {
        self.running = None;
        self.pairs = KeyValueList::default();
        self.size = 0;
        self.done = Vec::new();
    }

    /// Goes on until done or out of `budget`.
    ///
    /// Done with [`Refusal::ReplyTooLarge`] when the pairs outgrow [`REPLY_SIZE_MAX`], with
    /// [`Refusal::SortTooLarge`], or with [`Refusal::Compacted`] when [`State::trim`] was let past
    /// [`Self::keeps`]. The write stays what it is.
    pub fn step(&mut self, state: &State, budget: &mut u32) -> Step<Result<Reply, Refusal>> {
        self.go_on(state, budget).into()
    }

    fn go_on(&mut self, state: &State, budget: &mut u32) -> Result<Result<Reply, Refusal>, Stop> {
        if self.keeps < state.whole_from() {
            return Ok(Err(Refusal::Compacted));
        }
        let mut copied = 0;
        while let Some(item) = self.items.get(self.done.len()) {
            let mut end = None;
            if let Some(reads) = &item.reads {
                let listing = self.running.get_or_insert_with(|| {
                    let interval = Interval::new(&reads.key, &reads.range_end);
                    Listing::new(&interval, reads.shape, reads.point, reads.revision)
                });
                let (pairs, size) = (&mut self.pairs, &mut self.size);
                let mut sink = |pair: &KeyValue<'_>| {
                    *size += pair.size();
                    copied += pair.size();
                    if *size > REPLY_SIZE_MAX {
                        return ControlFlow::Break(());
                    }
                    pairs.push(pair);
                    if copied < STEP_SIZE {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                };
                match listing.step(&state.pages, state.now(), budget, &mut sink)? {
                    Listed::Done(done) => end = Some(done),
                    Listed::Paused if self.size > REPLY_SIZE_MAX => {
                        return Ok(Err(Refusal::ReplyTooLarge));
                    }
                    Listed::Paused => return Err(Stop::Budget),
                    Listed::Refused(refusal) => return Ok(Err(refusal)),
                }
            } else {
                charge(budget)?;
            }
            let pairs = core::mem::take(&mut self.pairs);
            self.done.push(match (item.reply, end) {
                (Kind::Put { revision }, _) => OpReply::Put { revision, prev: pairs },
                (Kind::Deleted { revision, count }, _) => {
                    OpReply::Deleted { revision, count, prev: pairs }
                }
                (Kind::Txn { succeeded, ops_count }, _) => OpReply::Txn { succeeded, ops_count },
                (Kind::Range, end) => {
                    let none = RangeEnd { revision: Revision::ZERO, count: 0, more: false };
                    OpReply::Range { end: end.unwrap_or(none), pairs }
                }
            });
            self.running = None;
        }
        Ok(Ok(self.reply()))
    }

    fn reply(&mut self) -> Reply {
        let mut ops = core::mem::take(&mut self.done);
        match (self.top, ops.pop()) {
            (Top::Single, Some(OpReply::Put { revision, prev })) => Reply::Put { revision, prev },
            (Top::Single, Some(OpReply::Deleted { revision, count, prev })) => {
                Reply::Deleted { revision, count, prev }
            }
            (Top::Txn { revision, succeeded }, last) => {
                ops.extend(last);
                Reply::Txn(TxnReply { revision, succeeded, ops })
            }
            (Top::Single, other) => panic!("a single write answers {other:?}"),
        }
    }
}

/// A range of a transaction: at 0 it sees the changes before it, else the revision that it names.
fn read_of(range: &RangeRequest<'_>, point: Point, revision: Revision) -> Reads {
    let named = u64::try_from(range.revision).ok().filter(|named| *named > 0);
    let point = named.map_or(point, |named| Point::at(Revision::new(named)));
    Reads {
        key: range.key.to_vec(),
        range_end: range.range_end.to_vec(),
        shape: Shape::new(range),
        point,
        revision,
    }
}

/// A transaction that only reads, answered without the log at the newest revision when it begins. It
/// begins again when compaction overtakes it.
#[derive(Debug, Default)]
pub struct ReadTxn {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    at: Revision,
    compares: Compares,
    answer: Option<Answer>,
}

impl ReadTxn {
    /// Before it begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that it holds between steps.
    pub fn held(&self) -> usize {
        let answer = self.running.as_ref().and_then(|running| running.answer.as_ref());
        answer.map_or(0, Answer::held)
    }

    /// Bytes that it may come to hold, at most.
    pub fn held_max(&self) -> usize {
        let answer = self.running.as_ref().and_then(|running| running.answer.as_ref());
        answer.map_or(REPLY_SIZE_MAX + SORT_HELD_MAX, Answer::held_max)
    }

    /// Lets go of everything that it holds, to begin again.
    pub fn give_up(&mut self) {
        self.running = None;
    }

    /// Goes on with `txn`, the same each time, until done or out of `budget`.
    ///
    /// Done with a refusal when a range names a revision that cannot be read, or as in
    /// [`Answer::step`].
    ///
    /// # Panics
    ///
    /// When the transaction is not [`Txn::is_read_only`].
    pub fn step(
        &mut self,
        state: &State,
        txn: &Txn<'_>,
        budget: &mut u32,
    ) -> Step<Result<Reply, Refusal>> {
        assert!(txn.is_read_only(), "a transaction that writes goes through the log");
        self.go_on(state, txn, budget).into()
    }

    fn go_on(
        &mut self,
        state: &State,
        txn: &Txn<'_>,
        budget: &mut u32,
    ) -> Result<Result<Reply, Refusal>, Stop> {
        // Nothing has gone out before the end, so what compaction overtakes begins again.
        self.running.take_if(|running| {
            let oldest = running.answer.as_ref().map_or(Revision::MAX, |answer| answer.keeps);
            let oldest = Point::at(running.at).min(Point::before(oldest));
            state.compacted().is_some_and(|compacted| oldest < Point::at(compacted))
        });
        let running = self.running.get_or_insert_with(|| Running {
            at: state.revision(),
            compares: Compares::default(),
            answer: None,
        });
        let answer = match &mut running.answer {
            Some(answer) => answer,
            none => {
                let point = Point::at(running.at);
                running.compares.step(txn, state.pages(), point, budget)?;
                let path = core::mem::take(&mut running.compares.path);
                let taken = path.first().copied().unwrap_or(false);
                for op in txn.branch(taken) {
                    if let Op::Range(range) = op {
                        let readable = range.validate();
                        let readable =
                            readable.and_then(|()| state.readable_in_txn(range.revision));
                        if let Err(refusal) = readable {
                            return Ok(Err(refusal));
                        }
                    }
                }
                let (revision, deleted) = (running.at, Vec::new());
                let outcome = TxnOutcome { revision, base: revision, path, deleted };
                none.insert(Answer::of_txn(txn, &outcome))
            }
        };
        answer.go_on(state, budget)
    }
}
