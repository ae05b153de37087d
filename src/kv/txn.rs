//! Applying a transaction: judge all compares, check the whole taken path, then write.
//!
//! Nothing is written before the check has passed, and behind it nothing can be refused. Each stage
//! walks the taken path in order and may stop anywhere between two operations, or inside a delete.

use alloc::vec::Vec;

use base::{LeaseId, Mutant};

use crate::command::{Op, Txn};
use crate::compare::Compares;
use crate::delete::Deleting;
use crate::keys::{CURRENT, Interval, Point};
use crate::outcome::{Stop, TxnOutcome, charge};
use crate::path::{Next, Position, Walk};
use crate::refusal::{Damage, Refusal};
use crate::state::State;
use crate::union::Union;
use crate::validate::LIMITS_OF_APPLY;
use crate::version::newest;

/// A transaction on its way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    stage: Stage,
    compares: Compares,
    position: Position,
    /// Operations checked so far.
    checked: usize,
    /// The first operation of the taken path that keeps value or lease of a key deleted before it.
    orphan: Option<usize>,
    /// Keys deleted by each delete so far.
    deleted: Vec<u64>,
    deleting: Option<Deleting>,
    /// The leases that puts of the taken path name.
    leases: Option<Vec<LeaseId>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    #[default]
    Compare,
    Check,
    Write,
}

impl Running {
    /// After a checkpoint behind `changes` changes: behind the operations that made them.
    pub fn resume(txn: &Txn<'_>, path: Vec<bool>, deleted: Vec<u64>, changes: u64) -> Self {
        let mut running = Self { stage: Stage::Write, deleted, ..Self::default() };
        let mut left = changes;
        let mut deletes = running.deleted.iter();
        let mut walk = TakenPath::resume(txn, &path, &mut running.position);
        while let Some(op) = walk.peek() {
            match op {
                Op::Put(_) if left == 0 => break,
                Op::Put(_) => left -= 1,
                Op::DeleteRange(delete) => match deletes.next() {
                    Some(count) => left = left.saturating_sub(*count),
                    None => {
                        running.deleting = Some(Deleting::resume(delete, left));
                        break;
                    }
                },
                Op::Range(_) | Op::Txn(_) | Op::Unset => {}
            }
            walk.advance();
        }
        running.compares.path = path;
        running
    }

    /// The branches taken, and the keys deleted by each delete that is done.
    pub fn begun(&self) -> (&[bool], &[u64]) {
        (&self.compares.path, &self.deleted)
    }
}

impl State {
    pub(crate) fn run_txn(
        &mut self,
        txn: &Txn<'_>,
        running: &mut Running,
        budget: &mut u32,
    ) -> Result<Result<TxnOutcome, Refusal>, Stop> {
        if running.stage == Stage::Compare {
            let stale = Mutant::CompareStale.is_on();
            let point = if stale { Point::before(self.revision) } else { self.now() };
            running.compares.step(txn, &self.pages, point, budget)?;
            running.orphan = first_orphan(txn, &running.compares.path);
            running.stage = Stage::Check;
        }
        if running.stage == Stage::Check {
            if let Err(refusal) = self.check_txn(txn, running, budget)? {
                return Ok(Err(refusal));
            }
            running.position.start();
            running.stage = Stage::Write;
        }
        let path = &running.compares.path;
        self.spared = running.leases.take().unwrap_or_else(|| leases_named(txn, path));
        let written = self.write_txn(txn, running, budget).and_then(|()| self.drop_emptied());
        running.leases = Some(core::mem::take(&mut self.spared));
        written?;
        Ok(Ok(TxnOutcome {
            revision: self.revision_of_changes(),
            base: self.revision,
            path: core::mem::take(&mut running.compares.path),
            deleted: core::mem::take(&mut running.deleted),
        }))
    }

    /// Checks every operation of the taken path against the state before the transaction.
    fn check_txn(
        &self,
        txn: &Txn<'_>,
        running: &mut Running,
        budget: &mut u32,
    ) -> Result<Result<(), Refusal>, Stop> {
        let mut walk = TakenPath::resume(txn, &running.compares.path, &mut running.position);
        while let Some(op) = walk.peek() {
            charge(budget)?;
            let orphan = running.orphan == Some(running.checked);
            if let Err(refusal) = self.check_op(op, orphan)? {
                return Ok(Err(refusal));
            }
            running.checked += 1;
            walk.advance();
        }
        Ok(Ok(()))
    }

    fn check_op(&self, op: &Op<'_>, orphan: bool) -> Result<Result<(), Refusal>, Stop> {
        let checked = match op {
            Op::Put(put) => match put.validate(&LIMITS_OF_APPLY) {
                Err(refusal) => Err(refusal),
                Ok(()) if put.lease != LeaseId::new(0) && self.lease_at(put.lease)?.is_none() => {
                    Err(Refusal::LeaseNotFound)
                }
                Ok(()) if !put.ignore_value && !put.ignore_lease => Ok(()),
                Ok(()) if orphan || !self.is_live(put.key)? => Err(Refusal::KeyNotFound),
                Ok(()) => Ok(()),
            },
            Op::DeleteRange(delete) => delete.validate(),
            Op::Range(range) => {
                range.validate().and_then(|()| self.readable_in_txn(range.revision))
            }
            Op::Txn(_) => Ok(()),
            Op::Unset => Err(Refusal::KeyNotFound),
        };
        Ok(checked)
    }

    fn is_live(&self, key: &[u8]) -> Result<bool, Stop> {
        let Some(cell) = self.pages.get(CURRENT, key)? else {
            return Ok(false);
        };
        let (version, _) = newest(&cell).ok_or_else(|| Damage::VersionMalformed(key.into()))?;
        Ok(version.live.is_some())
    }

    fn write_txn(
        &mut self,
        txn: &Txn<'_>,
        running: &mut Running,
        budget: &mut u32,
    ) -> Result<(), Stop> {
        let mut walk = TakenPath::resume(txn, &running.compares.path, &mut running.position);
        while let Some(op) = walk.peek() {
            match op {
                Op::Put(put) => {
                    charge(budget)?;
                    let written = self.put(put, None)?;
                    debug_assert_eq!(written, Ok(()), "the check lets nothing through that fails");
                }
                Op::DeleteRange(delete) => {
                    let deleting = running.deleting.get_or_insert_with(|| Deleting::new(delete));
                    let count = self.delete_range(deleting, budget)?;
                    running.deleting = None;
                    running.deleted.push(count);
                }
                // Read by an answer, afterwards, at its place between the changes.
                Op::Range(_) | Op::Txn(_) | Op::Unset => {}
            }
            walk.advance();
        }
        Ok(())
    }
}

/// The operations of the taken path in order, nested transactions entered on the way.
pub(crate) struct TakenPath<'c, 'a, 'p> {
    walk: Walk<'c, 'a, 'p>,
    path: &'p [bool],
}

impl<'c, 'a, 'p> TakenPath<'c, 'a, 'p> {
    /// Goes on at `position`.
    pub fn resume(txn: &'c Txn<'a>, path: &'p [bool], position: &'p mut Position) -> Self {
        let fresh = position.entered() == 0;
        let mut walk = Walk::resume(txn, position);
        if fresh && let Some(taken) = path.first() {
            walk.enter(txn, *taken);
        }
        Self { walk, path }
    }

    /// The operation that comes next, never a transaction; none at the end.
    pub fn peek(&mut self) -> Option<&'c Op<'a>> {
        loop {
            match self.walk.peek()? {
                Next::Op(op) => return Some(op),
                Next::Txn(txn) => {
                    let taken = *self.path.get(self.walk.entered())?;
                    self.walk.advance();
                    self.walk.enter(txn, taken);
                }
            }
        }
    }

    /// Steps over it.
    pub fn advance(&mut self) {
        self.walk.advance();
    }
}

/// The leases that the puts of the taken path name.
fn leases_named(txn: &Txn<'_>, path: &[bool]) -> Vec<LeaseId> {
    let mut leases = Vec::new();
    let mut position = Position::default();
    let mut walk = TakenPath::resume(txn, path, &mut position);
    while let Some(op) = walk.peek() {
        if let Op::Put(put) = op
            && put.lease != LeaseId::new(0)
            && !leases.contains(&put.lease)
        {
            leases.push(put.lease);
        }
        walk.advance();
    }
    leases
}

/// The first operation of the taken path that keeps the value or lease of a key which an operation
/// before it deletes, by its position in order. etcd panics on it, and on every restart again.
///
/// Pure computation over the command, only for transactions that both delete and keep; nothing here
/// waits for pages.
fn first_orphan(txn: &Txn<'_>, path: &[bool]) -> Option<usize> {
    let mut position = Position::default();
    let mut walk = TakenPath::resume(txn, path, &mut position);
    let (mut deletes, mut keeps) = (false, false);
    while let Some(op) = walk.peek() {
        match op {
            Op::DeleteRange(_) => deletes = true,
            Op::Put(put) => keeps |= put.ignore_value || put.ignore_lease,
            Op::Range(_) | Op::Txn(_) | Op::Unset => {}
        }
        walk.advance();
    }
    if !deletes || !keeps {
        return None;
    }
    let mut gone = Union::default();
    let mut position = Position::default();
    let mut walk = TakenPath::resume(txn, path, &mut position);
    let mut index = 0;
    while let Some(op) = walk.peek() {
        match op {
            Op::DeleteRange(delete) => {
                gone.insert(&Interval::new(delete.key, delete.range_end));
            }
            Op::Put(put) if put.ignore_value || put.ignore_lease => {
                if gone.contains(put.key) {
                    return Some(index);
                }
            }
            Op::Put(put) => gone.remove(put.key),
            Op::Range(_) | Op::Txn(_) | Op::Unset => {}
        }
        index += 1;
        walk.advance();
    }
    None
}
