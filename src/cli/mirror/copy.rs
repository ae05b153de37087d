//! The full copy: the keys of one revision of the source beside those of the destination, both in their order.
//! What differs is written, what the source does not have is deleted.

use std::cmp::Ordering;
use std::mem;
use std::time::Instant;

use super::batch::{BATCH_SIZE_MAX, Batch};
use super::error::MirrorError;
use super::mapping;
use super::mark::{MARKS, Position};
use super::message::{Bytes, KeyValue, Operation, Range};
use super::pages::Pages;
use super::{Mirror, Written, leases, say};

/// Copies that are begun anew because the source has compacted what they read.
const ATTEMPTS_MAX: u32 = 100;

/// What a copy has come to.
#[derive(Debug, Default)]
struct Copied {
    seen: u64,
    written: u64,
    deleted: u64,
    leased: u64,
    operations: Vec<Operation>,
    size: usize,
}

impl Mirror {
    /// Makes the destination equal to the source, and returns the revision that it then has.
    pub(super) fn copy(&mut self) -> Result<i64, MirrorError> {
        for _ in 0..ATTEMPTS_MAX {
            let range = Range { count_only: true, ..mapping::all(&self.mapping.from) };
            let answer = self.source.range(&mut self.inbox, &range)?;
            let revision = answer.header.revision;
            match self.copy_at(revision, answer.count) {
                Err(error) if error.is_compacted() => {
                    eprintln!(
                        "the source has compacted revision {revision} while it was copied: begun anew"
                    );
                }
                result => return result.map(|()| revision),
            }
        }
        Err(MirrorError::Unsound(format!(
            "the source has compacted what was copied {ATTEMPTS_MAX} times; let it keep more history"
        )))
    }

    fn copy_at(&mut self, revision: i64, count: i64) -> Result<(), MirrorError> {
        let began = Instant::now();
        self.write_copied(Vec::new(), Position::Copying(revision))?;
        let mut here = Pages::new(Range { revision, ..mapping::all(&self.mapping.from) });
        let mut there = Pages::new(mapping::all(&self.mapping.to));
        let mut copied = Copied::default();
        let mut wanted = self.next_wanted(&mut here, &mut copied)?;
        let mut found = self.next_found(&mut there)?;
        loop {
            let order = match (&wanted, &found) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some(kv)) => {
                    self.mapping.rest_there(&key.0).cmp(self.mapping.rest_there(&kv.key.0))
                }
            };
            let is_wanted_done = order != Ordering::Greater;
            let is_found_done = order != Ordering::Less;
            let operation = match (order, &mut wanted, &found) {
                (Ordering::Equal, Some((_, value)), Some(kv)) if *value == kv.value => None,
                (Ordering::Less | Ordering::Equal, Some((key, value)), _) => {
                    copied.written += 1;
                    Some(Operation::Put { key: mem::take(key), value: mem::take(value) })
                }
                (Ordering::Greater, _, Some(kv)) => {
                    copied.deleted += 1;
                    Some(Operation::Delete { key: kv.key.clone() })
                }
                (Ordering::Less | Ordering::Equal, None, _) | (Ordering::Greater, _, None) => {
                    unreachable!("the order is made from both")
                }
            };
            if let Some(operation) = operation {
                self.add_copied(&mut copied, operation, revision)?;
            }
            if is_wanted_done {
                wanted = self.next_wanted(&mut here, &mut copied)?;
            }
            if is_found_done {
                found = self.next_found(&mut there)?;
            }
            self.report(|_| {
                format!(
                    "copying revision {revision}: {} of {count} keys, {} written, {} deleted",
                    copied.seen, copied.written, copied.deleted
                )
            });
        }
        let operations = mem::take(&mut copied.operations);
        self.write_copied(operations, Position::Revision(revision))?;
        self.sums.leased += copied.leased;
        say(&format!(
            "copied revision {revision} in {:.2} s: {} keys, {} written, {} deleted{}",
            began.elapsed().as_secs_f64(),
            copied.seen,
            copied.written,
            copied.deleted,
            leases(copied.leased)
        ));
        Ok(())
    }

    /// The next key that the destination should have, with its value.
    fn next_wanted(
        &mut self,
        here: &mut Pages,
        copied: &mut Copied,
    ) -> Result<Option<(Bytes, Bytes)>, MirrorError> {
        while let Some(kv) = here.next(&mut self.source, &mut self.inbox)? {
            if let Some(key) = self.mapping.map(&kv.key.0) {
                copied.seen += 1;
                copied.leased += u64::from(kv.lease != 0);
                return Ok(Some((key, kv.value)));
            }
        }
        Ok(None)
    }

    /// The next key that the destination has.
    fn next_found(&mut self, there: &mut Pages) -> Result<Option<KeyValue>, MirrorError> {
        while let Some(kv) = there.next(&mut self.destination, &mut self.inbox)? {
            if !kv.key.0.starts_with(MARKS) {
                return Ok(Some(kv));
            }
        }
        Ok(None)
    }

    fn add_copied(
        &mut self,
        copied: &mut Copied,
        operation: Operation,
        revision: i64,
    ) -> Result<(), MirrorError> {
        let size = operation.size();
        let is_full = copied.operations.len() >= self.operations_max
            || copied.size.saturating_add(size) > BATCH_SIZE_MAX;
        if is_full && !copied.operations.is_empty() {
            copied.size = 0;
            let operations = mem::take(&mut copied.operations);
            self.write_copied(operations, Position::Copying(revision))?;
        }
        copied.size += size;
        copied.operations.push(operation);
        Ok(())
    }

    fn write_copied(
        &mut self,
        operations: Vec<Operation>,
        position: Position,
    ) -> Result<(), MirrorError> {
        match self.write(Batch { operations, position })? {
            Written::Done => Ok(()),
            Written::Elsewhere(_) => Err(self.elsewhere()),
        }
    }
}
