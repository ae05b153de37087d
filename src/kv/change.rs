//! The two changes that there are: a put and a delete of one key.
//!
//! Each finds the key's newest version, moves it into an event, and writes the new one in its place.
//! Everything that can miss comes before the first write: a change happens whole or not at all.

use base::{Hash128, LeaseId, Mutant};
use tree::{NewCell, Run};

use crate::command::Put;
use crate::history::{pair, tombstone};
use crate::keys::{CURRENT, EVENTS};
use crate::lease::{Lease, Leaves};
use crate::outcome::Stop;
use crate::refusal::{Damage, Refusal};
use crate::state::State;
use crate::version::{
    Cause, Event, Kind, Live, Version, delete_hash, fits_inline, is_to_shed, needs_work, newest,
    version_hash,
};

/// The version that a change replaces; its bytes stand in the scratch event.
struct Old {
    version: Version,
    run: Option<Run>,
    /// Its bytes, at the end of the scratch event.
    size: usize,
    /// Bytes of its inline value, at their end.
    inline_size: usize,
}

impl State {
    /// Writes a key as the next change of the entry being applied. Refused before anything has changed
    /// when it keeps the value or lease of a key that is not there.
    /// `made`: the lease that the put names, where it comes to be with it; there is room for it in
    /// memory.
    pub(crate) fn put(
        &mut self,
        put: &Put<'_>,
        made: Option<&Lease>,
    ) -> Result<Result<(), Refusal>, Stop> {
        let names_other = put.lease != LeaseId::new(0) && made.is_none();
        if names_other && self.lease_at(put.lease)?.is_none() {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        let at = self.now();
        let place = self.pages.seek(CURRENT, put.key)?;
        let event = &mut self.scratch.event;
        event.clear();
        Event::encode(Kind::Put, put.key, event);
        let mut old = None;
        if let Some(cell) = self.pages.cell_at(&place) {
            let (version, inline) =
                newest(&cell).ok_or_else(|| Damage::VersionMalformed(put.key.into()))?;
            event.extend_from_slice(cell.payload);
            let (size, inline_size) = (cell.payload.len(), inline.len());
            old = Some(Old { version, run: cell.run, size, inline_size });
        }
        let replaced = old.as_ref().and_then(|old| old.version.live);
        if (put.ignore_value || put.ignore_lease) && replaced.is_none() {
            return Ok(Err(Refusal::KeyNotFound));
        }
        let kept_lease = replaced.map_or(LeaseId::new(0), |live| live.lease);
        let keeps = put.ignore_lease && !Mutant::IgnoreLeaseDrops.is_on();
        let lease = if keeps { kept_lease } else { put.lease };
        let leaves = if lease == kept_lease {
            Leaves::Nothing
        } else {
            self.plan_leave(kept_lease, put.key)?
        };
        let attaches = lease != kept_lease && lease != LeaseId::new(0);
        if attaches {
            self.plan_attach(lease, put.key)?;
        }
        let event = &mut self.scratch.event;
        let run = old.as_ref().and_then(|old| old.run);
        let kept;
        let value = match (put.ignore_value, run) {
            (false, _) => put.value,
            (true, Some(run)) => {
                kept = self.pages.run(&run)?.to_vec();
                &kept
            }
            (true, None) => {
                let size = old.as_ref().map_or(0, |old| old.inline_size);
                &event[event.len() - size..]
            }
        };
        let mut live = Live {
            create: replaced
                .filter(|_| !Mutant::CreateNotKept.is_on())
                .map_or(at.revision, |live| live.create),
            version: replaced.map_or(0, |live| live.version) + 1,
            lease,
            hash: Hash128::ZERO,
        };
        live.hash = version_hash(put.key, at, &live, value);
        let version = Version::following(old.as_ref().map(|old| &old.version), at, Some(live));
        let sheds = old
            .as_ref()
            .is_some_and(|old| is_to_shed(at, put.key, &old.version, old.size, old.run));
        let (counted, number) = (needs_work(Kind::Put, run), u64::from(sheds));
        let cell = NewCell { counted, number, payload: event, run };
        self.pages.put(EVENTS, &at.key(), &cell)?;
        // From here on nothing can miss.
        if let Some(recorder) = &mut self.recorder {
            let old = old.as_ref().map(|old| {
                let inline = &event[event.len() - old.inline_size..];
                (&old.version, inline, old.run)
            });
            recorder.note(at, Kind::Put, &pair(put.key, at, &live, value), old);
        }
        let inline = fits_inline(put.key.len(), value.len());
        let payload = &mut self.scratch.version;
        payload.clear();
        version.encode(payload);
        if inline {
            payload.extend_from_slice(value);
        }
        let new_size = if inline { value.len() } else { 0 };
        let run = if inline { None } else { Some(self.pages.create_run(value)) };
        let cell = NewCell { counted: true, number: at.revision.get(), payload, run };
        self.pages.put_at(place, put.key, &cell);
        let old_size = old.as_ref().map_or(0, |old| old.inline_size);
        if let Some(replaced) = replaced {
            self.live_sum = self.live_sum.minus(replaced.hash);
            self.live_size_less(0, old_size);
        }
        self.live_size_more(if replaced.is_none() { put.key.len() } else { 0 }, new_size);
        self.live_sum = self.live_sum.plus(live.hash);
        self.events_sum = self.events_sum.plus(live.hash);
        self.sub = at.next().sub;
        // What is added comes first: what leaves may take its leaf away, and then another key that was
        // to have its place there belongs to a leaf that nobody has asked for.
        if let Some(made) = made {
            self.add_lease(lease, made);
        }
        if attaches {
            self.attach(lease, put.key);
        }
        self.leave(&leaves, put.key);
        Ok(Ok(()))
    }

    /// Deletes a key as the next change of the entry being applied; false if there was nothing to
    /// delete.
    pub(crate) fn delete(&mut self, key: &[u8], cause: Cause) -> Result<bool, Stop> {
        let at = self.now();
        let place = self.pages.seek(CURRENT, key)?;
        let Some(cell) = self.pages.cell_at(&place) else {
            return Ok(false);
        };
        let (old, inline) = newest(&cell).ok_or_else(|| Damage::VersionMalformed(key.into()))?;
        let inline_size = inline.len();
        let Some(replaced) = old.live else {
            return Ok(Mutant::TombstoneDeleted.is_on());
        };
        let leaves = self.plan_leave(replaced.lease, key)?;
        let cell = self.pages.cell_at(&place).expect("it was there above");
        let event = &mut self.scratch.event;
        event.clear();
        let kind = Kind::Delete(cause);
        Event::encode(kind, key, event);
        event.extend_from_slice(cell.payload);
        let run = cell.run;
        let number = u64::from(is_to_shed(at, key, &old, cell.payload.len(), run));
        let cell = NewCell { counted: needs_work(kind, run), number, payload: event, run };
        self.pages.put(EVENTS, &at.key(), &cell)?;
        // From here on nothing can miss.
        if let Some(recorder) = &mut self.recorder
            && !Mutant::DeletesUnrecorded.is_on()
        {
            let inline = &event[event.len() - inline_size..];
            recorder.note(at, kind, &tombstone(key, at), Some((&old, inline, run)));
        }
        let payload = &mut self.scratch.version;
        payload.clear();
        Version::following(Some(&old), at, None).encode(payload);
        let number = at.revision.get();
        let cell = NewCell { counted: false, number, payload, run: None };
        self.pages.put_at(place, key, &cell);
        self.live_size_less(key.len(), inline_size);
        self.live_sum = self.live_sum.minus(replaced.hash);
        self.events_sum = self.events_sum.plus(delete_hash(key, at, cause));
        self.sub = at.next().sub;
        self.leave(&leaves, key);
        Ok(true)
    }

    fn live_size_more(&mut self, key: usize, inline: usize) {
        self.live_keys_size += u64::try_from(key).expect("a size fits u64");
        self.live_inline_size += u64::try_from(inline).expect("a size fits u64");
    }

    /// A file of an earlier format does not say what it holds: its keys were not counted.
    fn live_size_less(&mut self, key: usize, inline: usize) {
        let (key, inline) = (u64::try_from(key), u64::try_from(inline));
        let (key, inline) = (key.unwrap_or(u64::MAX), inline.unwrap_or(u64::MAX));
        self.live_keys_size = self.live_keys_size.saturating_sub(key);
        self.live_inline_size = self.live_inline_size.saturating_sub(inline);
    }
}

#[cfg(test)]
mod tests {
    use core::ops::ControlFlow;

    use base::{FileId, NodeId, Prng, Term};
    use tree::{Direction, KeyRange, PageFile};

    use super::*;
    use crate::{Command, DeleteRange, Step};

    /// Members would agree with each other also if all of them forgot to take a term away.
    #[test]
    fn the_sum_over_live_versions_is_that_of_what_is_live_and_each_hash_that_of_its_version() {
        let options = tree::Options {
            file: FileId::new(1),
            cluster: 1,
            member: NodeId::new(1),
            cache_size: 1 << 30,
            growth_size: 1 << 20,
        };
        let mut state = State::create(PageFile::create(&options));
        let mut prng = Prng::new(9);
        for _ in 0..5_000 {
            let key = [b'a' + u8::try_from(prng.below(20)).unwrap()];
            let value = alloc::vec![7; usize::try_from(prng.below(5_000)).unwrap()];
            let command = match prng.below(4) {
                0 => Command::DeleteRange(DeleteRange { key: &key, ..DeleteRange::default() }),
                1 => Command::Put(Put { key: &key, ignore_value: true, ..Put::default() }),
                _ => Command::Put(Put { key: &key, value: &value, ..Put::default() }),
            };
            let index = state.applied().0.next();
            let mut budget = 10;
            let step = state.apply(index, Term::new(1), &command, &mut budget);
            assert!(matches!(step, Step::Done(_)));
        }
        let mut sum = Hash128::ZERO;
        let visit = &mut |cell: tree::Cell<'_>| {
            let (version, inline) = newest(&cell).unwrap();
            if let Some(live) = version.live {
                let value = cell.run.map_or(inline, |run| state.pages.run(&run).unwrap());
                assert_eq!(live.hash, version_hash(cell.key, version.at, &live, value));
                sum = sum.plus(live.hash);
            }
            ControlFlow::Continue(())
        };
        let all = KeyRange::ALL;
        state.pages.walk(CURRENT, all, Direction::Ascending, &mut |_| false, visit).unwrap();
        assert_eq!(sum, state.live_sum);
        assert_ne!(sum, Hash128::ZERO);
    }
}
