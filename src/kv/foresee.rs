//! What applying a command will miss, told before it is applied: reads that would come one by one can
//! then run at the same time.

use core::ops::ControlFlow;

use tree::{KeyRange, Miss};

use crate::command::{Command, Op, Txn};
use crate::keys::{CURRENT, End, Interval};
use crate::state::State;

impl State {
    /// Tells the pages that applying `command` will miss, as far as its keys and ranges tell, until
    /// `tell` breaks. A hint: a miss may be told twice, both branches of a transaction are looked at,
    /// and what a page that is missing refers to is not known.
    pub fn foresee(&self, command: &Command<'_>, tell: &mut dyn FnMut(Miss) -> ControlFlow<()>) {
        // Whether `tell` broke matters only on the way.
        if self.foresee_leases(command, tell).is_break() {
            return;
        }
        let _ = match command {
            Command::Put(put) | Command::PutWithTtl { put, .. } => {
                self.foresee_keys(put.key, &[], tell)
            }
            Command::DeleteRange(delete) => self.foresee_keys(delete.key, delete.range_end, tell),
            Command::Txn(txn) => self.foresee_txn(txn, tell),
            Command::Compact { .. }
            | Command::Members(_)
            | Command::Register { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseKeepAlive { .. }
            | Command::LeaseExpire { .. }
            | Command::LogTime { .. }
            | Command::Raise(_)
            | Command::Disarm { .. }
            | Command::Nothing => ControlFlow::Continue(()),
        };
    }

    fn foresee_keys(
        &self,
        key: &[u8],
        range_end: &[u8],
        tell: &mut dyn FnMut(Miss) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let interval = Interval::new(key, range_end);
        let end = match interval.end {
            End::Single => {
                return self.pages.missing(CURRENT, key).map_or(ControlFlow::Continue(()), tell);
            }
            End::Open => None,
            End::Before(end) => Some(end),
        };
        self.pages.missing_in(CURRENT, KeyRange { start: interval.start, end }, tell)
    }

    /// Ranges that are read are left out: their answers are not part of applying.
    fn foresee_txn(
        &self,
        txn: &Txn<'_>,
        tell: &mut dyn FnMut(Miss) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for compare in &txn.compares {
            self.foresee_keys(compare.key, compare.range_end, tell)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Put(put) => self.foresee_keys(put.key, &[], tell)?,
                Op::DeleteRange(delete) => {
                    self.foresee_keys(delete.key, delete.range_end, tell)?;
                }
                Op::Txn(nested) => self.foresee_txn(nested, tell)?,
                Op::Range(_) | Op::Unset => {}
            }
        }
        ControlFlow::Continue(())
    }
}
