//! A start without consequences: boot to its end, then reads of every key at both ends of the history.

use std::ops::ControlFlow;

use base::Revision;
use base::limits::KEY_SIZE_MAX;
use kv::{KeyValue, RangeRequest, Read, ReadStep, State};
use node::{Boot, BootError, BootStep, Booted, DataFile};

use crate::directory::Directory;
use crate::error::PairFault;
use crate::{Error, Fault};

/// Boots from both slots, as a start does, or from one alone.
pub(crate) fn boot(directory: &mut Directory, only: Option<usize>) -> Result<Booted, Error> {
    directory.show_only(only);
    let refused = |error| Fault::Start { slot: only, error: Box::<BootError>::new(error) };
    let files = directory.files().clone();
    let founders = directory.founders();
    let options = directory.page_options();
    let mut boot = Boot::new(options, directory.pages_size(), files, founders);
    while let BootStep::Read { file, offset, size } = boot.next().map_err(refused)? {
        match file {
            DataFile::Pages => match directory.read_pages(offset, size) {
                Ok(bytes) => boot.feed(bytes).map_err(refused)?,
                // What is only foreseen is read alone once it is really missed.
                Err(_) if boot.survives_failure() => boot.feed_unreadable(),
                Err(error) => return Err(error),
            },
            DataFile::Wal(_) => match directory.read(file, offset, size) {
                Ok(bytes) => boot.feed(bytes).map_err(refused)?,
                Err(_) => boot.feed_unreadable(),
            },
        }
    }
    directory.show_only(None);
    Ok(boot.finish())
}

/// Reads every pair at `revision` and holds it against what pairs must be; returns their number.
pub(crate) fn read_all(
    directory: &mut Directory,
    state: &mut State,
    revision: Revision,
) -> Result<u64, Error> {
    let request = RangeRequest {
        key: &[0],
        range_end: &[0],
        revision: i64::try_from(revision.get()).expect("revisions stay below 2^63"),
        ..RangeRequest::default()
    };
    let mut read = Read::new(&request);
    let mut pairs = Pairs { revision, last: Vec::new(), found: 0, fault: None };
    loop {
        let mut budget = u32::MAX;
        match read.step(state, &mut budget, &mut |pair| pairs.take(pair)) {
            ReadStep::Done(end) => {
                let (counted, found) = (end.count, pairs.found);
                if counted != found {
                    return Err(Fault::Count { revision, counted, found }.into());
                }
                return Ok(found);
            }
            ReadStep::Piece => {
                if let Some(fault) = pairs.fault.take() {
                    return Err(fault.into());
                }
            }
            ReadStep::More => {}
            ReadStep::Miss(miss) => {
                // Before what was wanted comes in: it must be there at the next step.
                state.pages_mut().evict();
                let bytes = directory.read_pages(miss.offset(), miss.size())?;
                state.pages_mut().install(miss, bytes).map_err(Fault::Page)?;
            }
            ReadStep::Refused(refusal) => return Err(Fault::Refused(refusal).into()),
            ReadStep::Damaged(damage) => return Err(Fault::State(damage).into()),
        }
    }
}

/// The pairs of one read.
struct Pairs {
    revision: Revision,
    /// The last key.
    last: Vec<u8>,
    found: u64,
    fault: Option<Fault>,
}

impl Pairs {
    fn take(&mut self, pair: &KeyValue<'_>) -> ControlFlow<()> {
        self.found += 1;
        if let Some(reason) = self.judge(pair) {
            let (key, revision) = (pair.key.to_vec(), self.revision);
            self.fault = Some(Fault::Pair { key, revision, reason });
            return ControlFlow::Break(());
        }
        self.last.clear();
        self.last.extend_from_slice(pair.key);
        ControlFlow::Continue(())
    }

    fn judge(&self, pair: &KeyValue<'_>) -> Option<PairFault> {
        let (create, modified) = (pair.create_revision, pair.mod_revision);
        if !(1..=KEY_SIZE_MAX).contains(&pair.key.len()) {
            return Some(PairFault::KeySize);
        }
        if self.found > 1 && pair.key <= self.last.as_slice() {
            return Some(PairFault::Order);
        }
        // The empty store has revision 1: the first write makes 2.
        if create < Revision::new(2) || create > modified || modified > self.revision {
            return Some(PairFault::Revisions);
        }
        // A greater version may share its revision with the first: a transaction can put a key again.
        if pair.version == 0 || (pair.version == 1 && create != modified) {
            return Some(PairFault::Version);
        }
        None
    }
}
