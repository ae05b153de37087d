//! What one watch is told, judged against the truth: every change that it asked for, each once, in order,
//! revisions whole, nothing else. Pure.

use std::ops::Range;

use client::{ChangeKind, OwnedChange};

use super::keys::{KeyId, Keys};
use super::ledger::{Change, Ledger, NO_VALUE, Point, Seen, hash};

/// What a watch asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// Which keys.
    pub spans: Vec<Range<KeyId>>,
    /// With what was there before.
    pub prev_kv: bool,
    /// Without values.
    pub keys_only: bool,
    /// Without puts.
    pub no_put: bool,
    /// Without deletes.
    pub no_delete: bool,
    /// Large revisions may come in pieces.
    pub fragments: bool,
}

impl Wish {
    fn takes(&self, change: &Change) -> bool {
        let is_left_out = if change.kind == ChangeKind::Put { self.no_put } else { self.no_delete };
        !is_left_out && self.spans.iter().any(|span| span.contains(&change.key))
    }
}

/// As a watch tells it.
impl Change {
    /// What the client library hands out.
    ///
    /// # Errors
    /// A key that nobody writes.
    pub fn new(keys: &Keys, change: &OwnedChange) -> Result<Self, String> {
        let key = keys.id(&change.kv.key).ok_or_else(|| format!("nobody writes {change:?}"))?;
        let before = match &change.previous {
            Some(previous) if previous.key != change.kv.key => {
                return Err(format!("another key was there before: {change:?}"));
            }
            previous => previous.as_ref().map(Seen::from),
        };
        Ok(Self {
            at: (change.revision(), change.sub),
            key,
            kind: change.kind,
            cause: change.cause,
            now: Seen::from(&change.kv),
            before,
        })
    }

    /// The same of what is read in place.
    ///
    /// # Errors
    /// A key that nobody writes.
    pub fn of(keys: &Keys, change: &wire::WatchChange<'_>) -> Result<Self, String> {
        let key = keys.id(change.kv.key).ok_or_else(|| format!("nobody writes {change:?}"))?;
        let seen = |pair: &client::KeyValue<'_>| Seen {
            value: hash(pair.value),
            create: pair.create_revision,
            modified: pair.mod_revision,
            version: pair.version,
            lease: pair.lease,
        };
        Ok(Self {
            at: (change.kv.mod_revision, change.sub),
            key,
            kind: change.kind,
            cause: change.cause,
            now: seen(&change.kv),
            before: change.previous.as_ref().map(seen),
        })
    }
}

/// A step in the life of a watcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It watches from here on, whatever was before; none: from what comes next on.
    Begins {
        /// What it asks for.
        wish: Wish,
        /// From where on.
        start: Option<Point>,
    },
    /// It goes on, on another connection, and asks for what comes from here on: nothing may lie between
    /// this and what it was told.
    GoesOn {
        /// From here on.
        at: Point,
    },
    /// A watch has begun behind this revision, or where it asked for.
    Created {
        /// The revision.
        revision: i64,
        /// Its member had given up what lies before this revision when it was asked; 0: not known.
        given_up: i64,
    },
    /// It is told changes.
    Changes {
        /// Them.
        changes: Vec<Change>,
        /// Everything up to here has been told.
        whole: i64,
        /// The last revision goes on.
        fragment: bool,
    },
    /// Everything up to here has been told.
    Progress {
        /// It.
        revision: i64,
    },
    /// What comes next has been given up.
    Compacted {
        /// Behind this revision everything is there.
        revision: i64,
    },
}

impl Step {
    /// The revision up to which the truth must be known to judge it.
    pub fn needs(&self) -> i64 {
        match self {
            Self::Begins { .. } | Self::GoesOn { .. } => 0,
            Self::Created { revision, .. }
            | Self::Progress { revision }
            | Self::Compacted { revision } => *revision,
            Self::Changes { changes, whole, .. } => {
                changes.last().map_or(*whole, |last| last.at.0.max(*whole))
            }
        }
    }

    /// How many changes it tells.
    pub fn count(&self) -> usize {
        if let Self::Changes { changes, .. } = self { changes.len() } else { 0 }
    }
}

/// A watcher and what it has been told.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    wish: Wish,
    /// It has said where it begins, or asked for it.
    has_begun: bool,
    /// What it wants and comes before this has been told.
    next: Point,
    /// The same as a place in the list of changes.
    place: usize,
    /// The last change that it was told.
    last: Point,
    /// Everything up to here has been told.
    whole: i64,
    /// A revision goes on.
    is_cut: bool,
    /// Changes that it has been told.
    pub count: u64,
}

fn check(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}

impl Stream {
    /// The next change that it has to be told, as a place in the list.
    fn find(&self, ledger: &Ledger) -> Option<usize> {
        let rest = ledger.changes.get(self.place..)?;
        let wants = |change: &Change| change.at >= self.next && self.wish.takes(change);
        rest.iter().position(wants).map(|place| self.place + place)
    }

    /// Nothing that comes before this has been left out. Looks at nothing twice.
    fn check_whole(&mut self, ledger: &Ledger, before: Point) -> Result<(), String> {
        let end = ledger.place(before);
        let rest = &ledger.changes[self.place.min(end)..end];
        let wants = |change: &&Change| change.at >= self.next && self.wish.takes(change);
        let missed = rest.iter().find(wants);
        check(missed.is_none(), || format!("was not told {missed:?}"))?;
        self.place = self.place.max(end);
        self.next = self.next.max(before);
        Ok(())
    }

    /// Judges a step; the truth must be known as far as it [needs](Step::needs).
    ///
    /// # Errors
    /// What is wrong.
    pub fn judge(&mut self, ledger: &Ledger, step: &Step) -> Result<(), String> {
        match step {
            Step::Begins { wish, start } => {
                let next = start.unwrap_or_default();
                let place = ledger.place(next);
                let (whole, count) = (next.0 - 1, self.count);
                *self = Self { wish: wish.clone(), next, place, whole, count, ..Self::default() };
                self.has_begun = start.is_some();
                Ok(())
            }
            // It began, and nothing has been told of that.
            Step::GoesOn { at } if !self.has_begun => {
                (self.has_begun, self.next, self.whole) = (true, *at, at.0 - 1);
                self.place = ledger.place(*at);
                Ok(())
            }
            Step::GoesOn { at } => {
                check(*at > self.last, || {
                    format!("goes on at {at:?} and was told of {:?}", self.last)
                })?;
                // Behind the last change is as good as behind all that has been told.
                self.whole = self.whole.min(at.0 - 1);
                self.is_cut = false;
                self.check_whole(ledger, *at)
            }
            Step::Created { revision, given_up } => {
                check(!self.has_begun || self.next.0 >= *given_up, || {
                    format!("begins at {:?}, all before {given_up} had been given up", self.next)
                })?;
                if !self.has_begun {
                    self.has_begun = true;
                    self.next = (revision + 1, 0);
                    self.place = ledger.place(self.next);
                    self.whole = *revision;
                }
                Ok(())
            }
            Step::Changes { changes, whole, fragment } => {
                self.judge_changes(ledger, changes, *whole, *fragment)
            }
            Step::Progress { revision } => {
                check(self.has_begun, || "tells progress before it has begun".into())?;
                check(!self.is_cut, || "tells progress within a revision".into())?;
                self.judge_whole(ledger, *revision)
            }
            Step::Compacted { revision } => {
                check(self.next.0 < *revision && *revision <= ledger.compacted, || {
                    format!(
                        "is told that all before {revision} was given up, is at {:?}, and {} was asked for",
                        self.next, ledger.compacted
                    )
                })
            }
        }
    }

    fn judge_whole(&mut self, ledger: &Ledger, whole: i64) -> Result<(), String> {
        check(whole >= self.whole, || format!("goes back from {} to {whole}", self.whole))?;
        self.whole = whole;
        self.check_whole(ledger, (whole + 1, 0))
    }

    fn judge_changes(
        &mut self,
        ledger: &Ledger,
        changes: &[Change],
        whole: i64,
        fragment: bool,
    ) -> Result<(), String> {
        check(self.has_begun, || "is told changes before it has begun".into())?;
        check(!fragment || self.wish.fragments, || "is told a piece of a revision".into())?;
        check(!changes.is_empty() || self.is_cut, || "is told nothing".into())?;
        for told in changes {
            self.judge_change(ledger, told)?;
        }
        let last = changes.last().map_or(whole, |last| last.at.0);
        check(last <= whole + i64::from(fragment), || {
            format!("says that it has told everything up to {whole}, and tells of {last}")
        })?;
        self.judge_whole(ledger, whole)?;
        self.is_cut = fragment;
        Ok(())
    }

    fn judge_change(&mut self, ledger: &Ledger, told: &Change) -> Result<(), String> {
        let Some(place) = self.find(ledger) else {
            return Err(format!("is told {told:?}, and nothing is left to tell"));
        };
        let change = &ledger.changes[place];
        let (mut now, mut before) = (change.now, change.before.filter(|_| self.wish.prev_kv));
        if self.wish.keys_only {
            now.value = NO_VALUE;
            before.iter_mut().for_each(|before| before.value = NO_VALUE);
        }
        if told.before.is_none() && change.at.0 <= ledger.compacted {
            before = None;
        }
        let at = change.at;
        let expected = Change { now, before, ..*change };
        check(expected == *told, || format!("must be told {expected:?} and was told {told:?}"))?;
        self.place = place + 1;
        self.last = at;
        self.next = (at.0, at.1 + 1);
        self.count += 1;
        Ok(())
    }

    /// Whether it has been told everything that it asked for up to a revision, or begins behind it.
    pub fn has_all(&self, revision: i64) -> bool {
        self.has_begun && !self.is_cut && self.whole >= revision
    }

    /// Up to where it has been told everything.
    pub fn whole(&self) -> i64 {
        self.whole
    }
}
