//! The judge that trusts revisions as witnesses: every change has one, and every answer names the one it
//! was given at. So the order of the history is known, and judging it takes no search:
//!
//! 1. An answer names no older revision than any answer that was there before it was asked for (strictly
//!    newer, if it is of a change); a serializable one no older than its own server had shown.
//! 2. Revisions are replayed in order in the [`State`]; every answer must be what the state says.
//! 3. A revision that no answer claims was made by a write whose outcome is unknown. Where values that
//!    were read at it do not tell which, all that fit are tried, side by side; each of these writes takes
//!    effect once at most, and not before it was sent.
//!
//! Prefix consistency of serializable reads is part of 2: what they show is the state of one revision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::history::{Operation, Outcome, Request, Revision, Value};
use crate::model::State;

/// Ways to resolve unknown outcomes that are followed side by side.
const BRANCHES_MAX: usize = 4_096;

/// Violations that are told; the first ones say most.
const VIOLATIONS_MAX: usize = 10;

/// What a judge found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// What cannot be, in words. Empty: the history is right, as far as it was decided.
    pub violations: Vec<String>,
    /// Why a part of the history was not decided.
    pub undecided: Option<String>,
}

impl Verdict {
    /// True if there is no violation and nothing was left undecided.
    pub fn is_right(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_none()
    }

    fn tell(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(text);
        }
    }
}

/// Judges a history that begins with an empty store and holds every write that was made.
pub fn judge(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::default();
    judge_times(history, &mut verdict);
    judge_servers(history, &mut verdict);
    Replay::new(history, &mut verdict).run(history, &mut verdict);
    verdict
}

/// Revisions that no answer claims, up to the newest one seen: reading the store at them tells what the
/// writes with unknown outcome did.
pub fn unclaimed(history: &[Operation]) -> Vec<Revision> {
    let mut claimed = HashSet::new();
    let mut newest = 1;
    for (revision, answer) in history.iter().filter_map(Operation::done) {
        newest = newest.max(revision);
        if answer.is_effective() {
            claimed.insert(revision);
        }
    }
    (2..=newest).filter(|revision| !claimed.contains(revision)).collect()
}

/// An operation in a few words.
pub fn describe(operation: &Operation) -> String {
    format!(
        "client {} at server {} from {:.6} s to {:.6} s: {:?} -> {:?}",
        operation.client,
        operation.server,
        operation.invoked as f64 / 1e9,
        operation.returned as f64 / 1e9,
        operation.request,
        operation.outcome
    )
}

fn is_serializable(request: &Request) -> bool {
    matches!(request, Request::Range { serializable: true, .. })
}

/// An operation that was done, in the order of its invocation or of its return.
#[derive(Clone, Copy)]
struct Told {
    index: usize,
    revision: Revision,
    is_effective: bool,
}

fn told(history: &[Operation]) -> Vec<Told> {
    let mut told = Vec::new();
    for (index, operation) in history.iter().enumerate() {
        if let Some((revision, answer)) = operation.done() {
            told.push(Told { index, revision, is_effective: answer.is_effective() });
        }
    }
    told
}

/// Answers in the order of time name revisions in that order.
fn judge_times(history: &[Operation], verdict: &mut Verdict) {
    let mut by_invocation = told(history);
    let mut by_return = by_invocation.clone();
    by_invocation.sort_by_key(|told| history[told.index].invoked);
    by_return.sort_by_key(|told| history[told.index].returned);
    let mut earlier = by_return.iter().peekable();
    let mut newest: Option<Told> = None;
    for told in &by_invocation {
        let operation = &history[told.index];
        while let Some(other) =
            earlier.next_if(|other| history[other.index].returned < operation.invoked)
        {
            if newest.is_none_or(|newest| other.revision > newest.revision) {
                newest = Some(*other);
            }
        }
        let Some(newest) = newest.filter(|_| !is_serializable(&operation.request)) else {
            continue;
        };
        let is_late = if told.is_effective {
            told.revision <= newest.revision
        } else {
            told.revision < newest.revision
        };
        if is_late {
            verdict.tell(format!(
                "revision {} was shown, and then an operation that began later came before it:\n  {}\n  {}",
                newest.revision,
                describe(&history[newest.index]),
                describe(operation)
            ));
        }
    }
}

/// What one server shows never gets older.
fn judge_servers(history: &[Operation], verdict: &mut Verdict) {
    let mut servers: BTreeMap<u32, Vec<Told>> = BTreeMap::new();
    for told in told(history) {
        servers.entry(history[told.index].server).or_default().push(told);
    }
    for told in servers.values_mut() {
        let mut by_return = told.clone();
        told.sort_by_key(|told| history[told.index].invoked);
        by_return.sort_by_key(|told| history[told.index].returned);
        let mut earlier = by_return.iter().peekable();
        let mut newest = 0;
        for told in told.iter() {
            let operation = &history[told.index];
            while let Some(other) =
                earlier.next_if(|other| history[other.index].returned < operation.invoked)
            {
                newest = newest.max(other.revision);
            }
            if is_serializable(&operation.request) && told.revision < newest {
                verdict.tell(format!(
                    "a server had shown revision {newest} before it showed an older one: {}",
                    describe(operation)
                ));
            }
        }
    }
}

/// A way to resolve the unknown outcomes up to some revision. Which of the writes that fit made which of
/// the revisions may stay open: it is enough that there is a write for each.
#[derive(Clone)]
struct Branch {
    state: State,
    /// For each revision that no answer claims, the writes that may have made it.
    gaps: Vec<Rc<Vec<usize>>>,
    /// Which gap each write fills, in one way to fill them all.
    fills: BTreeMap<usize, usize>,
}

impl Branch {
    /// One more gap. False if there are not enough writes for all.
    fn open(&mut self, writes: Vec<usize>) -> bool {
        self.gaps.push(Rc::new(writes));
        self.fill(self.gaps.len() - 1, &mut HashSet::new())
    }

    /// Fills a gap, if need be with a write that fills another one, for which there is a third.
    fn fill(&mut self, gap: usize, tried: &mut HashSet<usize>) -> bool {
        let writes = Rc::clone(&self.gaps[gap]);
        if let Some(free) = writes.iter().find(|write| !self.fills.contains_key(write)) {
            self.fills.insert(*free, gap);
            return true;
        }
        for write in writes.iter() {
            if tried.insert(*write)
                && let Some(other) = self.fills.get(write).copied()
                && self.fill(other, tried)
            {
                self.fills.insert(*write, gap);
                return true;
            }
        }
        false
    }
}

/// Writes with unknown outcome that ask for the same.
struct Group<'h> {
    request: &'h Request,
    /// When they were sent, in order, and their places in the history.
    writes: Vec<(u64, usize)>,
}

struct Replay<'h> {
    newest: Revision,
    /// The operation that claims a revision.
    claimed: HashMap<Revision, usize>,
    /// What was read at a revision.
    reads: HashMap<Revision, Vec<usize>>,
    /// Until when the change of a revision had certainly been sent: some answer had shown it.
    shown: HashMap<Revision, u64>,
    groups: Vec<Group<'h>>,
    /// The group that writes a value.
    writers: HashMap<Value, usize>,
    /// A value that was seen with a revision as that of its put.
    put_at: HashMap<Revision, Value>,
}

impl<'h> Replay<'h> {
    fn new(history: &'h [Operation], verdict: &mut Verdict) -> Self {
        let mut replay = Self {
            newest: 1,
            claimed: HashMap::new(),
            reads: HashMap::new(),
            shown: HashMap::new(),
            groups: Vec::new(),
            writers: HashMap::new(),
            put_at: HashMap::new(),
        };
        let mut group_of: HashMap<&Request, usize> = HashMap::new();
        for (index, operation) in history.iter().enumerate() {
            match &operation.outcome {
                Outcome::Failed => {}
                Outcome::Unknown if !operation.request.is_write() => {}
                Outcome::Unknown => {
                    let group = *group_of.entry(&operation.request).or_insert_with(|| {
                        replay
                            .groups
                            .push(Group { request: &operation.request, writes: Vec::new() });
                        replay.groups.len() - 1
                    });
                    replay.groups[group].writes.push((operation.invoked, index));
                    operation.request.values(&mut |value| {
                        replay.writers.insert(value, group);
                    });
                }
                Outcome::Done { revision, answer } => {
                    replay.newest = replay.newest.max(*revision);
                    let shown = replay.shown.entry(*revision).or_insert(u64::MAX);
                    *shown = (*shown).min(operation.returned);
                    answer.versions(&mut |version| {
                        replay.put_at.insert(version.modified, version.value);
                    });
                    if answer.is_effective() {
                        if let Some(other) = replay.claimed.insert(*revision, index) {
                            verdict.tell(format!(
                                "revision {revision} was given twice:\n  {}\n  {}",
                                describe(&history[other]),
                                describe(operation)
                            ));
                        }
                    } else {
                        let at = match &operation.request {
                            Request::Range { revision: at @ 1.., .. } => *at,
                            _ => *revision,
                        };
                        replay.reads.entry(at).or_default().push(index);
                    }
                }
            }
        }
        for group in &mut replay.groups {
            group.writes.sort_unstable();
        }
        let mut earliest = u64::MAX;
        for revision in (1..=replay.newest).rev() {
            let shown = replay.shown.entry(revision).or_insert(u64::MAX);
            earliest = earliest.min(*shown);
            *shown = earliest;
        }
        replay
    }

    fn run(&self, history: &[Operation], verdict: &mut Verdict) {
        let begin = Branch { state: State::new(), gaps: Vec::new(), fills: BTreeMap::new() };
        let mut branches = vec![begin];
        for revision in 1..=self.newest {
            if revision > 1 {
                branches = match self.claimed.get(&revision) {
                    Some(index) => match claim(branches, &history[*index]) {
                        Ok(branches) => branches,
                        Err(text) => return verdict.tell(text),
                    },
                    None => self.resolve(&branches, revision, history),
                };
                if branches.is_empty() {
                    return verdict.tell(format!(
                        "revision {revision} was made by no write that may have taken effect there: one that \
                         was refused did, one did twice, or a change was lost{}",
                        self.put_at.get(&revision).map_or(String::new(), |value| format!(
                            "; it wrote value {value}"
                        ))
                    ));
                }
                if branches.len() > BRANCHES_MAX {
                    verdict.undecided = Some(format!(
                        "more than {BRANCHES_MAX} ways to explain revision {revision}"
                    ));
                    return;
                }
            }
            for index in self.reads.get(&revision).into_iter().flatten() {
                let operation = &history[*index];
                let Some((_, answer)) = operation.done() else { continue };
                let mut expected = None;
                let fitting: Vec<Branch> = branches
                    .iter()
                    .filter(|branch| {
                        let told = branch.state.clone().apply(&operation.request);
                        let fits = told == *answer;
                        expected = expected.take().or(Some(told));
                        fits
                    })
                    .cloned()
                    .collect();
                if fitting.is_empty() {
                    verdict.tell(format!(
                        "what was told is not the state of revision {revision}, {expected:?}: {}",
                        describe(operation)
                    ));
                } else {
                    branches = fitting;
                }
            }
        }
    }

    /// Every way in which a write with unknown outcome can have made `revision` and what was read there.
    fn resolve(
        &self,
        branches: &[Branch],
        revision: Revision,
        history: &[Operation],
    ) -> Vec<Branch> {
        let shown = self.shown.get(&revision).copied().unwrap_or(u64::MAX);
        let put = self.put_at.get(&revision);
        let written = put.map(|value| self.writers.get(value).copied());
        let groups = match written {
            Some(Some(group)) => group..group + 1,
            Some(None) => 0..0,
            None => 0..self.groups.len(),
        };
        let is_read = |state: &State| {
            self.reads.get(&revision).into_iter().flatten().all(|index| {
                let operation = &history[*index];
                operation
                    .done()
                    .is_none_or(|(_, answer)| state.clone().apply(&operation.request) == *answer)
            })
        };
        let mut known = HashSet::new();
        let mut found: Vec<Branch> = Vec::new();
        for branch in branches {
            // Writes that lead to the same state.
            let mut ways: Vec<(State, Vec<usize>)> = Vec::new();
            for group in &self.groups[groups.clone()] {
                let sent = group.writes.iter().take_while(|(invoked, _)| *invoked <= shown);
                let mut sent = sent.map(|(_, index)| *index).peekable();
                if sent.peek().is_none() {
                    continue;
                }
                let mut state = branch.state.clone();
                state.apply(group.request);
                if state.revision() == revision {
                    match ways.iter_mut().find(|way| way.0 == state) {
                        Some(way) => way.1.extend(sent),
                        None => ways.push((state, sent.collect())),
                    }
                }
            }
            for (state, writes) in ways.into_iter().filter(|way| is_read(&way.0)) {
                let mut next = Branch { state, ..branch.clone() };
                if next.open(writes) && known.insert((next.state.clone(), next.gaps.clone())) {
                    found.push(next);
                    if found.len() > BRANCHES_MAX {
                        return found;
                    }
                }
            }
        }
        found
    }
}

/// The branches in which this operation is answered as it was.
fn claim(branches: Vec<Branch>, operation: &Operation) -> Result<Vec<Branch>, String> {
    let Some((revision, answer)) = operation.done() else { return Ok(branches) };
    let mut expected = None;
    let mut fitting = Vec::new();
    for mut branch in branches {
        let told = branch.state.apply(&operation.request);
        if told == *answer && branch.state.revision() == revision {
            fitting.push(branch);
        } else {
            expected = Some(told);
        }
    }
    if fitting.is_empty() {
        Err(format!(
            "a write at revision {revision} had to be answered {expected:?}: {}",
            describe(operation)
        ))
    } else {
        Ok(fitting)
    }
}
