//! The judge that knows nothing of revisions: a search for an order in which each key by itself behaves
//! like a register, after Wing, Gong and Lowe. Keys are judged one by one, which is as strict and much
//! cheaper; only keys that nothing but puts, gets and deletes of the one key touched can be.
//!
//! An operation is put in order when its answer comes and not before; until then all orders are open. A
//! configuration is the value with the set of operations that are in order although their answers are
//! still to come. Writes with unknown outcome stay open for ever, so they are put in order only where a
//! read has seen them: anywhere else they change nothing that anybody could tell.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{Answer, Key, Operation, Outcome, Request, Value};
use crate::witness::{Verdict, describe};

/// Configurations that are followed side by side.
const CONFIGURATIONS_MAX: usize = 200_000;

/// What one key saw of an operation.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// What must have been there, if anybody was told.
    before: Option<Option<Value>>,
    /// What is there then, if it changes.
    after: Option<Option<Value>>,
}

/// An order up to now.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Configuration {
    value: Option<Value>,
    /// Operations that are in order and whose answers are still to come.
    early: BTreeSet<usize>,
    /// Puts of unknown outcome that have been seen, by value.
    seen: BTreeSet<Value>,
    /// Deletes of unknown outcome that have been seen.
    deletes: usize,
}

/// Judges each of `keys`.
pub fn judge(history: &[Operation], keys: impl IntoIterator<Item = Key>) -> Verdict {
    let mut verdict = Verdict::default();
    for key in keys {
        let mut register = Register::new(history, key);
        if let Err(trouble) = register.run(history) {
            match trouble {
                Trouble::Violation(text) => verdict.violations.push(text),
                Trouble::Undecided(text) => verdict.undecided = Some(text),
            }
        }
    }
    verdict
}

enum Trouble {
    Violation(String),
    Undecided(String),
}

struct Register {
    key: Key,
    steps: BTreeMap<usize, Step>,
    /// Time, whether it is a return, and the operation. Invocations come first where times are equal.
    events: Vec<(u64, bool, usize)>,
    pending: BTreeSet<usize>,
    /// Values of puts with unknown outcome that have been sent.
    unknown_puts: HashSet<Value>,
    /// Deletes with unknown outcome that have been sent.
    unknown_deletes: usize,
}

impl Register {
    fn new(history: &[Operation], key: Key) -> Self {
        let mut register = Self {
            key,
            steps: BTreeMap::new(),
            events: Vec::new(),
            pending: BTreeSet::new(),
            unknown_puts: HashSet::new(),
            unknown_deletes: 0,
        };
        for (index, operation) in history.iter().enumerate() {
            let is_unknown = operation.outcome == Outcome::Unknown;
            let Some(step) = step(operation, key) else { continue };
            register.events.push((operation.invoked, false, index));
            if !is_unknown {
                register.events.push((operation.returned, true, index));
            }
            register.steps.insert(index, step);
        }
        register.events.sort_unstable();
        register
    }

    fn run(&mut self, history: &[Operation]) -> Result<(), Trouble> {
        let mut open = HashSet::from([Configuration::default()]);
        for (_, is_return, index) in std::mem::take(&mut self.events) {
            if !is_return {
                match (&history[index].outcome, self.steps[&index].after) {
                    (Outcome::Unknown, Some(Some(value))) => {
                        self.unknown_puts.insert(value);
                    }
                    (Outcome::Unknown, Some(None)) => self.unknown_deletes += 1,
                    (Outcome::Unknown, None) => {}
                    (Outcome::Done { .. } | Outcome::Failed, _) => {
                        self.pending.insert(index);
                    }
                }
                continue;
            }
            open = self.take_return(open, index)?;
            self.pending.remove(&index);
            if open.is_empty() {
                return Err(Trouble::Violation(format!(
                    "no order of what was done to key {} explains {}",
                    self.key,
                    describe(&history[index])
                )));
            }
        }
        Ok(())
    }

    /// All configurations in which `index` is in order, with as many others before it as can be.
    fn take_return(
        &self,
        open: HashSet<Configuration>,
        index: usize,
    ) -> Result<HashSet<Configuration>, Trouble> {
        let mut found = HashSet::new();
        let mut visited = HashSet::new();
        let mut stack: Vec<Configuration> = open.into_iter().collect();
        while let Some(configuration) = stack.pop() {
            if visited.len() > CONFIGURATIONS_MAX {
                return Err(Trouble::Undecided(format!(
                    "key {}: more than {CONFIGURATIONS_MAX} orders at once",
                    self.key
                )));
            }
            if configuration.early.contains(&index) {
                let mut next = configuration;
                next.early.remove(&index);
                found.insert(next);
                continue;
            }
            if !visited.insert(configuration.clone()) {
                continue;
            }
            for other in &self.pending {
                if !configuration.early.contains(other)
                    && let Some(mut next) = self.put_in_order(&configuration, self.steps[other])
                {
                    next.early.insert(*other);
                    stack.push(next);
                }
            }
        }
        Ok(found)
    }

    /// The configuration behind a step, if it can come next: perhaps behind a write of unknown outcome
    /// that made what it saw.
    fn put_in_order(&self, configuration: &Configuration, step: Step) -> Option<Configuration> {
        let mut next = configuration.clone();
        if let Some(before) = step.before
            && before != configuration.value
        {
            match before {
                Some(value) if self.unknown_puts.contains(&value) && next.seen.insert(value) => {}
                None if next.deletes < self.unknown_deletes => next.deletes += 1,
                Some(_) | None => return None,
            }
            next.value = before;
        }
        if let Some(after) = step.after {
            next.value = after;
        }
        Some(next)
    }
}

/// What `key` saw of an operation; nothing if it was not touched, or not in a way that binds.
fn step(operation: &Operation, key: Key) -> Option<Step> {
    let answer = match &operation.outcome {
        Outcome::Failed => return None,
        Outcome::Unknown => None,
        Outcome::Done { answer, .. } => Some(answer),
    };
    match (&operation.request, answer) {
        (Request::Put { key: of, value, previous }, answer) if *of == key => {
            let before = match answer {
                Some(Answer::Put { previous: found }) if *previous => {
                    Some(found.map(|found| found.value))
                }
                _ => None,
            };
            Some(Step { before, after: Some(Some(*value)) })
        }
        (Request::Delete { key: of, end, previous }, answer) if (*of..*end).contains(&key) => {
            let before = match answer {
                Some(Answer::Delete { previous: found, .. }) if *previous => {
                    Some(found.iter().find(|found| found.key == key).map(|found| found.value))
                }
                Some(Answer::Delete { deleted: 0, .. }) => Some(None),
                _ => None,
            };
            Some(Step { before, after: Some(None) })
        }
        (
            Request::Range { key: of, end, revision: 0, serializable: false },
            Some(Answer::Range { versions, .. }),
        ) if (*of..*end).contains(&key) => {
            let found = versions.iter().find(|version| version.key == key);
            Some(Step { before: Some(found.map(|found| found.value)), after: None })
        }
        _ => None,
    }
}
