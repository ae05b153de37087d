//! Following the source: what a watch tells is gathered into transactions, which are done as soon as it has
//! nothing more to tell at the moment, or as they are full.

use std::time::{Duration, Instant};

use super::batch::{Batch, Gathering};
use super::error::MirrorError;
use super::mapping;
use super::mark::Position;
use super::message::{Event, EventKind, Operation, Range, Watch, WatchAnswer, WatchCreate};
use super::stream::{Stream, Told};
use super::{Mirror, Written, leases, say};

/// Silence after which a copy that is to end looks whether there is anything left to be told.
const QUIET: Duration = Duration::from_millis(300);

/// How long nothing is looked at while nothing happens.
const REST: Duration = Duration::from_secs(5);

/// How often the progress may have been moved by somebody else.
const ELSEWHERE_MAX: u32 = 10;

/// Why following ends.
pub enum Followed {
    /// The destination has the revision that was asked for.
    CaughtUp,
    /// What comes next has been compacted up to here.
    Compacted(i64),
}

/// Where following is.
struct Place {
    /// All up to this revision has been told.
    known: i64,
    /// Of the next one so many changes are at the destination.
    done: u64,
    /// The newest revision of the source that has been heard of.
    newest: i64,
    gathering: Gathering,
    last_told: Instant,
    /// What has been said last, so that it is not said again.
    changes_said: u64,
    elsewhere_count: u32,
}

impl Mirror {
    /// Follows from where the destination is; to `until` if that is given, else until a signal comes.
    pub(super) fn follow(&mut self, until: Option<i64>) -> Result<Followed, MirrorError> {
        let (next, done) = self.mark.position.next();
        let mut place = Place {
            known: next.saturating_sub(1),
            done,
            newest: 0,
            gathering: Gathering::new(self.operations_max),
            last_told: Instant::now(),
            changes_said: self.sums.changes,
            elsewhere_count: 0,
        };
        say(&format!("following from revision {next} on"));
        let mut stream = self.open(&place);
        loop {
            self.inbox.check()?;
            let Some(told) = stream.next() else {
                if let Some(batch) = place.gathering.take() {
                    if !self.write_told(&mut place, batch)? {
                        stream = self.open(&place);
                    }
                    continue;
                }
                if let Some(until) = until {
                    if place.known >= until {
                        return Ok(Followed::CaughtUp);
                    }
                    if place.last_told.elapsed() >= QUIET {
                        place.last_told = Instant::now();
                        match self.is_equal(&place, until) {
                            Ok(true) => return Ok(Followed::CaughtUp),
                            Ok(false) => {}
                            Err(error) if error.is_compacted() => {
                                return Ok(Followed::Compacted(place.known));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                self.report_place(&mut place);
                self.inbox.wait(if until.is_some() { QUIET } else { REST })?;
                continue;
            };
            place.last_told = Instant::now();
            let lost = match told {
                Told::Answer(answer) if answer.compact_revision > 0 => {
                    self.write_rest(&mut place)?;
                    return Ok(Followed::Compacted(answer.compact_revision));
                }
                Told::Answer(answer) if answer.canceled => Some(answer.cancel_reason),
                Told::Answer(answer) => {
                    self.source.answered(answer.header)?;
                    if !self.take(&mut place, *answer)? {
                        stream = self.open(&place);
                    }
                    None
                }
                Told::Refused(refusal) if refusal.is_passing() => Some(refusal.message),
                Told::Refused(refusal) => {
                    return Err(MirrorError::Refused { side: self.source.side(), refusal });
                }
                Told::Foreign(why) => return Err(self.source.foreign(&why)),
                Told::Lost(why) => Some(why),
            };
            if let Some(why) = lost {
                self.source.lost(&mut self.inbox, &why)?;
                stream = self.open(&place);
            }
            self.report_place(&mut place);
        }
    }

    fn open(&self, place: &Place) -> Stream {
        let Range { key, range_end, .. } = mapping::all(&self.mapping.from);
        let start_revision = place.known.saturating_add(1);
        let create_request = WatchCreate { key, range_end, start_revision, progress_notify: true };
        Stream::open(self.source.for_stream(), &Watch { create_request }, self.inbox.bell())
    }

    /// Takes what is told; false: the progress is elsewhere, and what comes next is no more than that.
    fn take(&mut self, place: &mut Place, answer: WatchAnswer) -> Result<bool, MirrorError> {
        place.newest = place.newest.max(answer.header.revision);
        if answer.events.is_empty() {
            // It says how far it is; at its beginning it does not mean that.
            if !answer.created {
                place.known = place.known.max(answer.header.revision);
            }
            return Ok(true);
        }
        let mut events = answer.events.into_iter().peekable();
        while let Some(first) = events.next() {
            let revision = first.kv.mod_revision;
            let mut changes = vec![first];
            while let Some(event) = events.next_if(|event| event.kv.mod_revision == revision) {
                changes.push(event);
            }
            if revision <= place.known {
                continue;
            }
            let is_cut = revision == self.mark.position.next().0;
            let done = if is_cut { place.done } else { 0 };
            let operations = changes.into_iter().map(|event| self.operation(event)).collect();
            for batch in place.gathering.add(revision, operations, done) {
                if !self.write_told(place, batch)? {
                    return Ok(false);
                }
            }
            place.known = revision;
            place.done = 0;
        }
        Ok(true)
    }

    fn operation(&mut self, event: Event) -> Option<Operation> {
        let key = self.mapping.map(&event.kv.key.0)?;
        Some(match event.kind {
            EventKind::Put => {
                if event.kv.lease != 0 {
                    self.sums.leased += 1;
                }
                Operation::Put { key, value: event.kv.value }
            }
            EventKind::Delete => Operation::Delete { key },
        })
    }

    /// Does a transaction; false: the progress is elsewhere, and so is the place now.
    fn write_told(
        &mut self,
        place: &mut Place,
        batch: Batch<Operation>,
    ) -> Result<bool, MirrorError> {
        match self.write(batch)? {
            Written::Done => Ok(true),
            Written::Elsewhere(Some(mark))
                if place.elsewhere_count < ELSEWHERE_MAX
                    && !matches!(mark.position, Position::Copying(_)) =>
            {
                // A transaction of a mirror that was killed has arrived late, or another mirror runs.
                place.elsewhere_count += 1;
                let (next, done) = mark.position.next();
                eprintln!(
                    "the progress has been moved by somebody else: going on at revision {next}"
                );
                self.mark = mark;
                place.known = next.saturating_sub(1);
                place.done = done;
                place.gathering = Gathering::new(self.operations_max);
                Ok(false)
            }
            Written::Elsewhere(_) => Err(self.elsewhere()),
        }
    }

    fn write_rest(&mut self, place: &mut Place) -> Result<(), MirrorError> {
        if let Some(batch) = place.gathering.take() {
            self.write_told(place, batch)?;
        }
        Ok(())
    }

    /// True if nothing that is mirrored differs between what has been told and this revision: a source without
    /// changes has nothing to tell, and does not say so.
    fn is_equal(&mut self, place: &Place, revision: i64) -> Result<bool, MirrorError> {
        if place.done > 0 {
            return Ok(false);
        }
        let all = Range { revision, ..mapping::all(&self.mapping.from) };
        let changed = Range {
            min_mod_revision: place.known.saturating_add(1),
            keys_only: true,
            limit: 1,
            ..all.clone()
        };
        let answer = self.source.range(&mut self.inbox, &changed)?;
        if !answer.kvs.is_empty() {
            return Ok(false);
        }
        // No key is new or written, so that fewer of them are a delete.
        let mut counts = [0; 2];
        for (count, revision) in counts.iter_mut().zip([place.known, revision]) {
            if revision > 0 {
                let range = Range { revision, count_only: true, ..all.clone() };
                *count = self.source.range(&mut self.inbox, &range)?.count;
            }
        }
        Ok(counts[0] == counts[1])
    }

    fn report_place(&mut self, place: &mut Place) {
        let is_news = self.sums.changes > place.changes_said;
        if !is_news {
            return;
        }
        let Place { known, newest, changes_said, .. } = place;
        self.report(|mirror| {
            *changes_said = mirror.sums.changes;
            let Position::Revision(revision) = mirror.mark.position else {
                return format!("within revision {known}");
            };
            format!(
                "mirrored {} changes, at revision {revision}, {} behind{}",
                mirror.sums.changes,
                (*newest).max(*known).saturating_sub(revision),
                leases(mirror.sums.leased)
            )
        });
    }
}
