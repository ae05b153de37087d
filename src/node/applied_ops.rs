//! What the writes consisted of that were applied, for figures: operations as etcd counts them, those inside of
//! transactions too.

use kv::{Command, Op, Outcome, Put, Txn};

/// Operations since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppliedOps {
    /// Puts.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Deletes, of a key or a range; keys that went with their lease.
    pub deletes: u64,
    /// Writes of more than one operation.
    pub txns: u64,
}

impl AppliedOps {
    /// Counts what was applied, unless it changed nothing.
    pub(crate) fn count(&mut self, command: &Command<'_>, outcome: &Outcome) {
        let operations = match (command, outcome) {
            (Command::Put(put), Outcome::Put { .. })
            | (Command::PutWithTtl { put, .. }, Outcome::PutWithLease { .. }) => self.put(put),
            (Command::DeleteRange(_), Outcome::Deleted { .. }) => {
                self.deletes += 1;
                1
            }
            (_, Outcome::Revoked { deleted, .. } | Outcome::Expired { deleted }) => {
                self.deletes += deleted;
                *deleted
            }
            (Command::Txn(txn), Outcome::Txn(taken)) => {
                self.branch(txn, &mut taken.path.iter().copied())
            }
            _ => 0,
        };
        self.txns += u64::from(operations > 1);
    }

    fn put(&mut self, put: &Put<'_>) -> u64 {
        self.puts += 1;
        self.put_bytes += (put.key.len() + put.value.len()) as u64;
        1
    }

    /// The operations of the branches that were taken.
    fn branch(&mut self, txn: &Txn<'_>, path: &mut impl Iterator<Item = bool>) -> u64 {
        let taken = match path.next() {
            Some(true) => &txn.success,
            Some(false) => &txn.failure,
            None => return 0,
        };
        let mut operations = 0;
        for op in taken {
            operations += match op {
                Op::Put(put) => self.put(put),
                Op::DeleteRange(_) => {
                    self.deletes += 1;
                    1
                }
                Op::Range(_) => 1,
                Op::Txn(inner) => self.branch(inner, path),
                Op::Unset => 0,
            };
        }
        operations
    }
}
