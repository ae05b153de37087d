//! A watch as its client sees it, and what it must be told (I12): all changes that it asked for, each
//! once, in order, up to where its replies say that it is, over all the connections that it has had.

use base::Prng;
use wire::{Cause, ChangeKind, Status, WatchReply, WatchStep};

use crate::ghost::Verdict;
use crate::model::{Change, Model, Pair, contains};

/// A place in the list of changes: a revision, and the number of a change within.
pub type Point = (i64, u32);

/// What a watch wants to be told.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub ranges: Vec<(Vec<u8>, Vec<u8>)>,
    pub prev_kv: bool,
    pub keys_only: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub interval_ms: u32,
}

impl Wish {
    /// Whether a server takes it.
    pub fn is_valid(&self) -> bool {
        let has_keys = |(key, end): &(Vec<u8>, Vec<u8>)| {
            !key.is_empty() && (matches!(&end[..], b"" | b"\0") || end > key)
        };
        !self.ranges.is_empty() && self.ranges.iter().all(has_keys)
    }

    fn takes(&self, change: &Change, is_put: bool) -> bool {
        !(if is_put { self.no_put } else { self.no_delete })
            && self.ranges.iter().any(|(key, end)| contains(key, end, &change.key))
    }
}

/// A change that was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    kind: ChangeKind,
    cause: Cause,
    sub: u32,
    pair: Pair,
    previous: Option<Pair>,
}

/// A reply of a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub step: WatchStep,
    pub fragment: bool,
    pub revision: i64,
    pub newest: i64,
    pub changes: Vec<Told>,
}

impl Step {
    /// What a reply says.
    pub fn new(reply: &WatchReply<'_>) -> Self {
        let told = |change: wire::WatchChange<'_>| Told {
            kind: change.kind,
            cause: change.cause,
            sub: change.sub,
            pair: crate::load::pair(change.kv),
            previous: change.previous.map(crate::load::pair),
        };
        Self {
            step: reply.step,
            fragment: reply.fragment,
            revision: reply.revision,
            newest: reply.newest,
            changes: reply.changes.map(told).collect(),
        }
    }
}

/// What is known of the member that answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct There {
    /// It had given up what is before this revision when it was asked.
    pub compacted_before: i64,
    /// The greatest revision that it had shown on this connection.
    pub seen: i64,
    /// It was asked.
    pub asked: bool,
}

/// A watch, from its first request on.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub wish: Wish,
    /// It is not given up as long as the run lasts.
    pub stays: bool,
    /// The request that it answers; none: it is to go on.
    pub request: Option<u64>,
    /// Where that request began; none: with what comes next, and it has not yet said where that is.
    start: Option<Point>,
    there: There,
    created: bool,
    /// What it wanted before this place of the list has been told.
    at: usize,
    /// The same as a place in history.
    next: Point,
    /// It says that it has been told everything up to this revision.
    told: i64,
    /// The last change that it was told.
    last: Option<Point>,
    /// The newest revision that its member has told it.
    newest: i64,
    fragment: bool,
    /// It was asked for before.
    pub is_resumed: bool,
    /// A cancel was sent.
    pub cancelled: bool,
    /// Questions for its progress, and whether the last is open.
    asked: u32,
    pub owed: bool,
}

fn check(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl Watched {
    /// One that begins at `start`, or with what comes next.
    pub fn new(wish: Wish, start: Option<Point>, stays: bool) -> Self {
        let mut watched = Self { wish, stays, ..Self::default() };
        watched.begin_anew(start);
        watched
    }

    /// What it was told so far does not count any more.
    pub fn begin_anew(&mut self, start: Option<Point>) {
        let (wish, stays) = (std::mem::take(&mut self.wish), self.stays);
        let next = start.unwrap_or_default();
        *self = Self { wish, stays, start, next, told: next.0 - 1, ..Self::default() };
    }

    /// Whether it has begun.
    pub fn is_created(&self) -> bool {
        self.created
    }

    /// Whether it has been told everything that it can be told yet.
    pub fn has_all(&self, model: &Model) -> bool {
        let is_future = self.start.is_some() && self.next.0 > model.revision + 1;
        self.created && (is_future || self.told >= model.revision) && !self.fragment
    }

    /// Where it asks a member to go on.
    pub fn asks(
        &mut self,
        model: &Model,
        request: u64,
        there: There,
        prng: &mut Prng,
    ) -> Option<Point> {
        self.start = self.start.map(|_| match self.last {
            // Behind the last change is as good, where nothing has been given up in between.
            Some((revision, sub)) if !self.fragment && prng.one_in(3) => (revision, sub + 1),
            _ => self.next,
        });
        if let Some(start) = self.start {
            self.next = start;
            let is_before = |change: &Change| (change.revision, change.sub) < start;
            self.at = self.at.max(model.changes.partition_point(is_before));
        }
        self.told = self.next.0 - 1;
        self.is_resumed = self.there.asked;
        (self.created, self.fragment, self.cancelled) = (false, false, false);
        (self.asked, self.owed, self.newest) = (0, false, 0);
        (self.request, self.there) = (Some(request), there);
        self.start
    }

    /// Its connection has gone.
    pub fn detach(&mut self) {
        self.request = None;
    }

    /// Its progress is asked for.
    pub fn asks_progress(&mut self) {
        self.asked += 1;
        self.owed = true;
    }

    /// The place in the list of the next change that it has to be told.
    fn find(&self, model: &Model) -> Option<usize> {
        let rest = model.changes.get(self.at..)?;
        let wants = |change: &Change| {
            (change.revision, change.sub) >= self.next
                && self.wish.takes(change, model.written(change).is_some())
        };
        rest.iter().position(wants).map(|place| self.at + place)
    }

    /// It must have been told everything up to `revision`.
    fn check_told(&self, model: &Model, revision: i64) -> Verdict {
        let missed = self.find(model).map(|place| &model.changes[place]);
        let missed = missed.filter(|missed| missed.revision <= revision);
        check(missed.is_none(), || format!("says {revision}, and was not told {missed:?}"))
    }

    /// A reply; `compacted`: what its member has given up by now. Returns how many changes it tells.
    pub fn hears(&mut self, model: &Model, step: &Step, compacted: i64) -> Result<u64, String> {
        self.judge(model, step, compacted)
            .map_err(|text| format!("I12: a watch {text}\n  told {step:?}\n  of {self:?}"))
    }

    fn judge(&mut self, model: &Model, step: &Step, compacted: i64) -> Result<u64, String> {
        let revision = step.revision;
        check(revision <= model.revision, || format!("is at {revision}, never committed"))?;
        if step.step == WatchStep::Created {
            self.judge_created(model, step)?;
            return Ok(0);
        }
        check(self.created, || "is told something before it has begun".to_string())?;
        for told in &step.changes {
            self.judge_change(model, told, compacted)?;
        }
        let last = step.changes.last().map_or(i64::MIN, |told| told.pair.modified);
        check(revision >= self.told, || format!("goes back from {} to {revision}", self.told))?;
        self.check_told(model, revision)?;
        if step.step == WatchStep::Progress {
            let is_whole = step.changes.is_empty() && !step.fragment && !self.fragment;
            check(is_whole, || "tells its progress within a revision".to_string())?;
            check(self.asked > 0 || self.wish.interval_ms > 0, || "was not asked".to_string())?;
            self.asked = self.asked.saturating_sub(1);
            self.owed = false;
        } else {
            check(!step.changes.is_empty() || self.fragment, || "says nothing".to_string())?;
            let end = if step.fragment { revision + 1 } else { revision };
            check(last <= end, || format!("is at {revision}, and was told of {last}"))?;
            self.judge_newest(model, step, last)?;
        }
        self.fragment = step.fragment;
        self.told = revision;
        self.next = self.next.max((revision + 1, 0));
        Ok(step.changes.len() as u64)
    }

    /// What was read back comes with a newest revision that is not older than anything that its client has seen.
    fn judge_newest(&mut self, model: &Model, step: &Step, last: i64) -> Verdict {
        let newest = step.newest;
        if newest == 0 {
            return Ok(());
        }
        let seen = self.newest.max(self.there.seen).max(self.told).max(step.revision).max(last);
        self.newest = newest;
        check((seen..=model.revision).contains(&newest), || {
            format!("is told that {newest} is the newest revision, which is at least {seen}")
        })
    }

    fn judge_created(&mut self, model: &Model, step: &Step) -> Verdict {
        check(!self.created, || "begins twice".to_string())?;
        check(self.wish.is_valid(), || "is taken and has no keys".to_string())?;
        check(step.changes.is_empty() && !step.fragment, || "begins with changes".to_string())?;
        self.created = true;
        let There { compacted_before, seen, .. } = self.there;
        let revision = step.revision;
        check(revision >= seen, || format!("begins at {revision}, {seen} was seen before"))?;
        match self.start {
            Some((start, _)) => check(start >= compacted_before, || {
                format!("from {start} is served, {compacted_before} was compacted before")
            }),
            None => {
                self.told = revision;
                self.next = (revision + 1, 0);
                self.at = model.changes.partition_point(|change| change.revision <= revision);
                self.start = Some(self.next);
                Ok(())
            }
        }
    }

    fn judge_change(&mut self, model: &Model, told: &Told, compacted: i64) -> Verdict {
        let place = self.find(model);
        let Some(change) = place.map(|place| &model.changes[place]) else {
            return Err(format!("is told what it must not be: {told:?}"));
        };
        let written = model.written(change);
        let kind = if written.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
        let mut pair = written.unwrap_or_else(|| Pair {
            key: change.key.clone(),
            modified: change.revision,
            ..Pair::default()
        });
        let mut previous = model.before(change).filter(|_| self.wish.prev_kv);
        if self.wish.keys_only {
            pair.value.clear();
            previous.iter_mut().for_each(|previous| previous.value.clear());
        }
        if told.previous.is_none() && change.revision <= compacted {
            previous = None;
        }
        let expected = Told { kind, cause: change.cause, sub: change.sub, pair, previous };
        check(expected == *told, || format!("must be told {expected:?} and not {told:?}"))?;
        self.at = place.unwrap_or_default() + 1;
        self.next = (change.revision, change.sub + 1);
        self.last = Some((change.revision, change.sub));
        Ok(())
    }

    /// It is refused, from the beginning or now; `given_up`: the revision that the refusal names,
    /// `compacted`: what its member has given up by now.
    pub fn ends(
        &mut self,
        model: &Model,
        status: Status,
        given_up: i64,
        compacted: i64,
    ) -> Verdict {
        let next = self.next.0;
        let is_right = match status {
            Status::Cancelled => self.cancelled,
            Status::InvalidArgument => !self.wish.is_valid(),
            Status::Compacted if next < 0 => true,
            Status::Compacted => {
                self.start.is_some()
                    && next < given_up
                    && given_up <= compacted
                    && model.compactions.contains(&given_up)
            }
            Status::SlowReader | Status::ShuttingDown => true,
            _ => false,
        };
        check(is_right, || {
            format!(
                "I12: a watch is refused with {status:?}, compacted {given_up}, its member has \
                 compacted {compacted}: {self:?}"
            )
        })
    }
}
