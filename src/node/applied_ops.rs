//! What the writes consisted of that were applied, for figures: operations as etcd counts them, those inside of
//! transactions too.

use kv::{Command, Op, OpReply, Outcome, Put, Txn};

/// Buckets of the times that leases were granted for: to 1 s, 2 s, 4 s and so on, and what is longer.
pub const TTL_BUCKETS: usize = 25;

/// Operations since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AppliedOps {
    /// Puts.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Deletes, of a key or a range; keys that went with their lease.
    pub deletes: u64,
    /// Writes of more than one operation.
    pub txns: u64,
    /// Ranges, those of transactions too.
    pub ranges: u64,
    /// Renewals of leases that were there.
    pub renewals: u64,
    /// Leases that were granted, by the time that was asked for.
    pub ttls: [u64; TTL_BUCKETS],
    /// Seconds of them all.
    pub ttl_seconds: u64,
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
            (_, Outcome::Renewed { ttls_ms, .. }) => {
                self.renewals += ttls_ms.iter().filter(|ttl| **ttl > 0).count() as u64;
                0
            }
            (_, Outcome::Granted { ttl_ms, .. }) => {
                self.granted(ttl_ms.div_ceil(1_000));
                0
            }
            (Command::Txn(txn), Outcome::Txn(taken)) => {
                self.branch(txn, &mut taken.path.iter().copied())
            }
            _ => 0,
        };
        self.txns += u64::from(operations > 1);
    }

    fn granted(&mut self, seconds: u64) {
        let bucket = seconds.max(1).next_power_of_two().ilog2();
        let bucket = usize::try_from(bucket).expect("at most 64").min(TTL_BUCKETS - 1);
        self.ttls[bucket] += 1;
        self.ttl_seconds = self.ttl_seconds.saturating_add(seconds);
    }

    /// Counts what a transaction read that only reads.
    pub(crate) fn read(&mut self, ops: &[OpReply]) {
        let is_range = |op: &&OpReply| matches!(op, OpReply::Range { .. });
        self.ranges += ops.iter().filter(is_range).count() as u64;
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
                Op::Range(_) => {
                    self.ranges += 1;
                    1
                }
                Op::Txn(inner) => self.branch(inner, path),
                Op::Unset => 0,
            };
        }
        operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_leases_lie_in_the_buckets_that_end_behind_them() {
        let mut ops = AppliedOps::default();
        for (seconds, bucket) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (1 << 23, 23), (u64::MAX >> 1, 24)]
        {
            let before = ops.ttls[bucket];
            ops.granted(seconds);
            assert_eq!(ops.ttls[bucket], before + 1, "{seconds}");
        }
    }
}
