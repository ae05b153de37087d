//! The way through a nest of transactions: which branches were taken, and a position on it that can be
//! kept between turns.

use alloc::vec::Vec;

use crate::command::{Op, Txn};

/// A position among the operations of the taken path, in order. It holds no part of the command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    /// The branches that are open, outermost first, each with its next operation. A nested transaction
    /// that is open lies before the next operation of its parent.
    levels: Vec<Level>,
    /// Transactions entered so far: an index into the path.
    entered: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Level {
    taken: bool,
    next: usize,
}

/// What comes at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next<'c, 'a> {
    /// An operation that is not a transaction.
    Op(&'c Op<'a>),
    /// A nested transaction, not entered yet.
    Txn(&'c Txn<'a>),
}

/// The taken path of one transaction from a position on.
pub(crate) struct Walk<'c, 'a, 'p> {
    position: &'p mut Position,
    /// The operations of the open branches, outermost first.
    lists: Vec<&'c [Op<'a>]>,
}

impl Position {
    /// Before anything.
    pub fn start(&mut self) {
        self.levels.clear();
        self.entered = 0;
    }

    /// Transactions entered so far.
    pub fn entered(&self) -> usize {
        self.entered
    }
}

impl<'c, 'a, 'p> Walk<'c, 'a, 'p> {
    /// Goes on at `position` with the same transaction as before.
    pub fn resume(txn: &'c Txn<'a>, position: &'p mut Position) -> Self {
        let mut lists = Vec::with_capacity(position.levels.len().max(1));
        let mut open = Some(txn);
        for level in &position.levels {
            let Some(txn) = open.take() else { break };
            let list = txn.branch(level.taken);
            lists.push(list);
            let last = level.next.checked_sub(1).and_then(|last| list.get(last));
            if let Some(Op::Txn(nested)) = last {
                open = Some(nested);
            }
        }
        assert_eq!(lists.len(), position.levels.len(), "a position belongs to one transaction");
        Self { position, lists }
    }

    /// Enters the transaction that was met last, or the outermost one, on the branch that it takes.
    pub fn enter(&mut self, txn: &'c Txn<'a>, taken: bool) {
        self.position.levels.push(Level { taken, next: 0 });
        self.position.entered += 1;
        self.lists.push(txn.branch(taken));
    }

    /// Transactions entered so far.
    pub fn entered(&self) -> usize {
        self.position.entered
    }

    /// What comes next; none at the end of the path. Stays there until [`Self::advance`].
    pub fn peek(&mut self) -> Option<Next<'c, 'a>> {
        loop {
            let level = self.position.levels.last()?;
            let list = self.lists.last()?;
            match list.get(level.next) {
                Some(Op::Txn(txn)) => return Some(Next::Txn(txn)),
                Some(op) => return Some(Next::Op(op)),
                None => {
                    self.position.levels.pop();
                    self.lists.pop();
                }
            }
        }
    }

    /// Steps over what [`Self::peek`] showed.
    pub fn advance(&mut self) {
        if let Some(level) = self.position.levels.last_mut() {
            level.next += 1;
        }
    }
}
