//! Validation before the proposal: everything that can be refused without looking at the state.
//!
//! Iterative throughout: a nest of transactions costs its size, not stack. What stands here protects
//! clients from mistakes; apply does not rely on it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use base::limits::{KEEP_ALIVE_MAX, KEY_SIZE_MAX, LEASE_TTL_MAX_MS, VALUE_SIZE_MAX};

use crate::command::{Command, DeleteRange, Op, Put, RangeRequest, Txn};
use crate::keys::{End, Interval};
use crate::refusal::Refusal;
use crate::union::Union;

/// Limits that the operator sets. Judged by the proposer only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Greatest size of a value in bytes; at most `base::limits::VALUE_SIZE_MAX`.
    pub value_size_max: usize,
    /// Greatest number of compares, or operations of one branch, of a transaction. A nested one gets
    /// what its parent left.
    pub txn_ops_max: usize,
}

/// What apply holds puts against: constants of the format, never what one member is configured with.
pub(crate) const LIMITS_OF_APPLY: Limits =
    Limits { value_size_max: VALUE_SIZE_MAX, txn_ops_max: usize::MAX };

impl Command<'_> {
    /// Refuses what no state could make right.
    ///
    /// # Errors
    ///
    /// The first thing wrong, in the order in which etcd looks.
    pub fn validate(&self, limits: &Limits) -> Result<(), Refusal> {
        match self {
            Self::Put(put) => put.validate(limits),
            Self::DeleteRange(delete) => delete.validate(),
            Self::Txn(txn) => txn.validate(limits),
            Self::Members(bytes) => crate::members::validate(bytes),
            Self::PutWithTtl { put, ttl_ms, .. } => {
                if put.lease.get() != 0 || put.ignore_lease {
                    return Err(Refusal::LeaseProvided);
                }
                validate_ttl(*ttl_ms)?;
                put.validate(limits)
            }
            Self::LeaseGrant { ttl_ms, .. } => validate_ttl(*ttl_ms),
            Self::LeaseKeepAlive { leases, .. } => {
                let count = leases.len() / 8;
                if count == 0 || count > KEEP_ALIVE_MAX { Err(Refusal::KeepAlive) } else { Ok(()) }
            }
            Self::Compact { .. }
            | Self::Register { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseExpire { .. }
            | Self::LogTime { .. }
            | Self::Raise(_)
            | Self::Disarm { .. }
            | Self::Nothing => Ok(()),
        }
    }
}

fn validate_ttl(ttl_ms: u64) -> Result<(), Refusal> {
    if ttl_ms > LEASE_TTL_MAX_MS { Err(Refusal::TtlTooLarge) } else { Ok(()) }
}

impl Put<'_> {
    pub(crate) fn validate(&self, limits: &Limits) -> Result<(), Refusal> {
        if self.key.is_empty() {
            return Err(Refusal::KeyNotProvided);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(Refusal::ValueProvided);
        }
        if self.ignore_lease && self.lease.get() != 0 {
            return Err(Refusal::LeaseProvided);
        }
        if self.key.len() > KEY_SIZE_MAX {
            return Err(Refusal::KeyTooLong { size: self.key.len(), size_max: KEY_SIZE_MAX });
        }
        if self.value.len() > limits.value_size_max {
            let size_max = limits.value_size_max;
            return Err(Refusal::ValueTooLarge { size: self.value.len(), size_max });
        }
        Ok(())
    }
}

impl DeleteRange<'_> {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        if self.key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) }
    }
}

impl RangeRequest<'_> {
    /// Refuses what no state could make right.
    ///
    /// # Errors
    ///
    /// [`Refusal::KeyNotProvided`].
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) }
    }
}

impl Txn<'_> {
    /// Refuses what no state could make right: shape first, then keys changed twice, both over the
    /// whole nest and both branches.
    ///
    /// # Errors
    ///
    /// The first thing wrong, in the order in which etcd looks.
    pub fn validate(&self, limits: &Limits) -> Result<(), Refusal> {
        self.validate_shape(limits)?;
        refuse_duplicates(&self.success)?;
        refuse_duplicates(&self.failure)
    }

    fn validate_shape(&self, limits: &Limits) -> Result<(), Refusal> {
        let mut lists: Vec<(core::slice::Iter<'_, Op<'_>>, usize)> = Vec::new();
        let mut entering = Some((self, limits.txn_ops_max));
        loop {
            if let Some((txn, budget)) = entering.take() {
                let ops = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
                let Some(rest) = budget.checked_sub(ops) else {
                    return Err(Refusal::TooManyOps);
                };
                if txn.compares.iter().any(|compare| compare.key.is_empty()) {
                    return Err(Refusal::KeyNotProvided);
                }
                // The success branch is looked at first.
                lists.push((txn.failure.iter(), rest));
                lists.push((txn.success.iter(), rest));
            }
            let Some((list, budget)) = lists.last_mut() else {
                return Ok(());
            };
            let Some(op) = list.next() else {
                lists.pop();
                continue;
            };
            match op {
                Op::Put(put) => put.validate(limits)?,
                Op::DeleteRange(delete) => delete.validate()?,
                Op::Range(range) => range.validate()?,
                Op::Txn(txn) => entering = Some((txn, *budget)),
                Op::Unset => return Err(Refusal::KeyNotFound),
            }
        }
    }
}

/// What a list of operations changes, nested transactions included.
#[derive(Default)]
struct Changes<'c> {
    puts: BTreeSet<&'c [u8]>,
    deletes: Union<'c>,
}

impl<'c> Changes<'c> {
    /// Whether a key that is put here is deleted by `deletes`. Costs the smaller side.
    fn puts_into(&self, deletes: &Union<'c>) -> bool {
        if self.puts.len() <= deletes.ranges_count() {
            return self.puts.iter().any(|key| deletes.contains(key));
        }
        deletes.bounds().any(|bounds| self.puts.range::<[u8], _>(bounds).next().is_some())
    }

    /// Whether both put one key. Costs the smaller side.
    fn shares_put(&self, other: &Self) -> bool {
        let (small, large) = if self.puts.len() <= other.puts.len() {
            (&self.puts, &other.puts)
        } else {
            (&other.puts, &self.puts)
        };
        small.iter().any(|key| large.contains(key))
    }

    /// Takes in what `other` changes. Costs the smaller side, so lifting through a deep nest stays
    /// cheap.
    fn absorb(&mut self, mut other: Self) {
        if other.puts.len() > self.puts.len() {
            core::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.extend(other.puts);
        if other.deletes.ranges_count() > self.deletes.ranges_count() {
            core::mem::swap(&mut self.deletes, &mut other.deletes);
        }
        self.deletes.absorb(other.deletes);
    }
}

/// A list of operations on the way through a nest of transactions.
struct Level<'c, 'a> {
    ops: &'c [Op<'a>],
    next: usize,
    changes: Changes<'c>,
    /// What the success branch of the nested transaction at `next` changes, once known.
    success: Option<Changes<'c>>,
}

impl<'c, 'a> Level<'c, 'a> {
    /// Begins with the deletes of the level itself: puts are held against them wherever they stand. A
    /// delete without an end is left out: etcd takes such a range literally, as an empty one, and what
    /// etcd accepts is accepted here.
    fn new(ops: &'c [Op<'a>]) -> Self {
        let mut changes = Changes::default();
        for op in ops {
            if let Op::DeleteRange(delete) = op {
                let interval = Interval::new(delete.key, delete.range_end);
                if interval.end != End::Open {
                    changes.deletes.insert(&interval);
                }
            }
        }
        Self { ops, next: 0, changes, success: None }
    }

    /// Takes in a nested transaction. Its branches exclude each other and may put the same key; its
    /// puts are held against the deletes collected so far, not against its own.
    fn absorb(&mut self, success: Changes<'c>, failure: Changes<'c>) -> Result<(), Refusal> {
        for branch in [&success, &failure] {
            if branch.shares_put(&self.changes) || branch.puts_into(&self.changes.deletes) {
                return Err(Refusal::DuplicateKey);
            }
        }
        self.changes.absorb(success);
        self.changes.absorb(failure);
        Ok(())
    }

    /// The level's own puts come last.
    fn finish(mut self) -> Result<Changes<'c>, Refusal> {
        for op in self.ops {
            if let Op::Put(put) = op {
                let deleted = self.changes.deletes.contains(put.key);
                if deleted || !self.changes.puts.insert(put.key) {
                    return Err(Refusal::DuplicateKey);
                }
            }
        }
        Ok(self.changes)
    }
}

/// Refuses a list of operations that changes a key twice.
fn refuse_duplicates(ops: &[Op<'_>]) -> Result<(), Refusal> {
    let mut levels = alloc::vec![Level::new(ops)];
    while let Some(level) = levels.last_mut() {
        match level.ops.get(level.next) {
            Some(Op::Txn(txn)) => {
                let branch = txn.branch(level.success.is_none());
                levels.push(Level::new(branch));
            }
            Some(Op::Put(_) | Op::DeleteRange(_) | Op::Range(_) | Op::Unset) => level.next += 1,
            None => {
                let Some(level) = levels.pop() else { break };
                let changes = level.finish()?;
                if let Some(parent) = levels.last_mut() {
                    match parent.success.take() {
                        None => parent.success = Some(changes),
                        Some(success) => {
                            parent.absorb(success, changes)?;
                            parent.next += 1;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use super::*;
    use crate::command::Compare;
    use crate::command::{Operand, Relation};

    const LIMITS: Limits = Limits { value_size_max: 100, txn_ops_max: 128 };

    fn put(key: &[u8]) -> Op<'_> {
        Op::Put(Put { key, ..Put::default() })
    }

    fn delete<'a>(key: &'a [u8], range_end: &'a [u8]) -> Op<'a> {
        Op::DeleteRange(DeleteRange { key, range_end, prev_kv: false })
    }

    fn nested<'a>(success: Vec<Op<'a>>, failure: Vec<Op<'a>>) -> Op<'a> {
        Op::Txn(Box::new(Txn { compares: Vec::new(), success, failure }))
    }

    fn judge(success: Vec<Op<'_>>) -> Result<(), Refusal> {
        Txn { compares: Vec::new(), success, failure: Vec::new() }.validate(&LIMITS)
    }

    #[test]
    fn a_branch_changes_a_key_once() {
        let duplicate = Err(Refusal::DuplicateKey);
        assert_eq!(judge(alloc::vec![put(b"a"), put(b"a")]), duplicate);
        assert_eq!(judge(alloc::vec![put(b"b"), delete(b"a", b"c")]), duplicate);
        assert_eq!(judge(alloc::vec![delete(b"b", b""), put(b"b")]), duplicate);
        assert_eq!(judge(alloc::vec![put(b"c"), delete(b"a", b"c")]), Ok(()));
        assert_eq!(judge(alloc::vec![delete(b"a", b"c"), delete(b"b", b"d")]), Ok(()));
        // Both branches are checked although one runs.
        let both = Txn {
            compares: Vec::new(),
            success: Vec::new(),
            failure: alloc::vec![put(b"a"), put(b"a")],
        };
        assert_eq!(both.validate(&LIMITS), duplicate);
    }

    #[test]
    fn nested_branches_exclude_each_other_but_not_their_parent() {
        let same = || nested(alloc::vec![put(b"a")], alloc::vec![put(b"a")]);
        assert_eq!(judge(alloc::vec![same()]), Ok(()));
        assert_eq!(judge(alloc::vec![same(), put(b"a")]), Err(Refusal::DuplicateKey));
        assert_eq!(judge(alloc::vec![same(), same()]), Err(Refusal::DuplicateKey));
        assert_eq!(judge(alloc::vec![same(), delete(b"a", b"")]), Err(Refusal::DuplicateKey));
        // A put of one branch and a delete of the other cannot both happen.
        let exclusive = nested(alloc::vec![put(b"a")], alloc::vec![delete(b"a", b"")]);
        assert_eq!(judge(alloc::vec![exclusive]), Ok(()));
    }

    /// etcd tests nested puts against deletes collected so far only; what it accepts we accept.
    #[test]
    fn a_later_sibling_may_delete_what_an_earlier_one_put_but_not_the_reverse() {
        let puts = || nested(alloc::vec![put(b"a")], Vec::new());
        let deletes = || nested(alloc::vec![delete(b"a", b"")], Vec::new());
        assert_eq!(judge(alloc::vec![puts(), deletes()]), Ok(()));
        assert_eq!(judge(alloc::vec![deletes(), puts()]), Err(Refusal::DuplicateKey));
    }

    #[test]
    fn a_delete_without_an_end_escapes_the_duplicate_rule() {
        assert_eq!(judge(alloc::vec![delete(b"a", b"\0"), put(b"b")]), Ok(()));
        assert_eq!(judge(alloc::vec![delete(b"c", b"a"), put(b"b")]), Ok(()));
    }

    #[test]
    fn a_nested_transaction_gets_what_its_parent_left() {
        let names: Vec<[u8; 2]> = (0..200_u8).map(|n| [b'k', n]).collect();
        let puts =
            |count: usize| -> Vec<Op<'_>> { names[..count].iter().map(|k| put(k)).collect() };
        assert_eq!(judge(puts(128)), Ok(()));
        assert_eq!(judge(puts(129)), Err(Refusal::TooManyOps));
        assert_eq!(judge(alloc::vec![nested(puts(127), Vec::new())]), Ok(()));
        assert_eq!(judge(alloc::vec![nested(puts(128), Vec::new())]), Err(Refusal::TooManyOps));
        let compare = Compare {
            key: b"k",
            range_end: b"",
            relation: Relation::Equal,
            operand: Operand::Version(0),
        };
        let mut txn = Txn::default();
        txn.compares = alloc::vec![compare; 129];
        assert_eq!(txn.validate(&LIMITS), Err(Refusal::TooManyOps));
    }

    /// A decoder may hand in anything; a nest of 200,000 must neither overflow the stack here nor when
    /// it is dropped.
    #[test]
    fn a_nest_of_any_depth_is_refused_and_dropped_without_recursion() {
        let mut txn = Txn::default();
        for _ in 0..200_000 {
            let inner = core::mem::take(&mut txn);
            txn.success.push(Op::Txn(Box::new(inner)));
        }
        assert_eq!(txn.validate(&LIMITS), Err(Refusal::TooManyOps));
        assert_eq!(refuse_duplicates(&txn.success), Ok(()));
    }

    #[test]
    fn each_field_has_its_refusal() {
        let refused = |put: Put<'_>| Command::Put(put).validate(&LIMITS);
        let base = Put { key: b"k", ..Put::default() };
        assert_eq!(refused(Put::default()), Err(Refusal::KeyNotProvided));
        assert_eq!(
            refused(Put { value: b"v", ignore_value: true, ..base }),
            Err(Refusal::ValueProvided)
        );
        let lease = base::LeaseId::new(1);
        assert_eq!(refused(Put { lease, ignore_lease: true, ..base }), Err(Refusal::LeaseProvided));
        assert_eq!(refused(Put { ignore_value: true, ignore_lease: true, ..base }), Ok(()));
        let long = [b'k'; KEY_SIZE_MAX + 1];
        let size_max = KEY_SIZE_MAX;
        assert_eq!(
            refused(Put { key: &long, ..base }),
            Err(Refusal::KeyTooLong { size: size_max + 1, size_max })
        );
        assert_eq!(refused(Put { key: &long[1..], ..base }), Ok(()));
        let value = [0; 101];
        assert_eq!(
            refused(Put { value: &value, ..base }),
            Err(Refusal::ValueTooLarge { size: 101, size_max: 100 })
        );
        assert_eq!(judge(alloc::vec![Op::Unset]), Err(Refusal::KeyNotFound));
        assert_eq!(judge(alloc::vec![delete(b"", b"x")]), Err(Refusal::KeyNotProvided));
        assert_eq!(
            judge(alloc::vec![Op::Range(RangeRequest::default())]),
            Err(Refusal::KeyNotProvided)
        );
    }
}
