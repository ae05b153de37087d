//! The store as the judges understand it: a map and a revision. Written for this purpose alone, from the
//! description of the data model, and shares nothing with the product.

use std::collections::BTreeMap;

use crate::history::{Answer, Compare, Key, Relation, Request, Revision, Target, Version};

/// The store at one revision.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    revision: Revision,
    live: BTreeMap<Key, Version>,
}

impl State {
    /// A store without keys.
    pub fn new() -> Self {
        Self { revision: 1, live: BTreeMap::new() }
    }

    /// The revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Does a request. The revision goes up by one if that changed anything.
    pub fn apply(&mut self, request: &Request) -> Answer {
        let answer = self.step(request, self.revision + 1);
        if answer.is_effective() {
            self.revision += 1;
        }
        answer
    }

    fn step(&mut self, request: &Request, revision: Revision) -> Answer {
        match request {
            Request::Put { key, value, previous } => {
                let before = self.live.get(key).copied();
                let after = Version {
                    key: *key,
                    value: *value,
                    created: before.map_or(revision, |before| before.created),
                    modified: revision,
                    version: before.map_or(0, |before| before.version) + 1,
                };
                self.live.insert(*key, after);
                Answer::Put { previous: before.filter(|_| *previous) }
            }
            Request::Delete { key, end, previous } => {
                let gone = self.between(*key, *end);
                for version in &gone {
                    self.live.remove(&version.key);
                }
                let deleted = count(&gone);
                Answer::Delete { deleted, previous: if *previous { gone } else { Vec::new() } }
            }
            Request::Range { key, end, .. } => {
                let versions = self.between(*key, *end);
                Answer::Range { count: count(&versions), versions }
            }
            Request::Txn { compares, success, failure } => {
                let succeeded = compares.iter().all(|compare| self.holds(compare));
                let list = if succeeded { success } else { failure };
                let answers = list.iter().map(|request| self.step(request, revision)).collect();
                Answer::Txn { succeeded, answers }
            }
        }
    }

    fn between(&self, key: Key, end: Key) -> Vec<Version> {
        if key < end {
            self.live.range(key..end).map(|(_, version)| *version).collect()
        } else {
            Vec::new()
        }
    }

    /// Numbers of a key that does not exist are 0; its value compares false, whatever is asked.
    fn holds(&self, compare: &Compare) -> bool {
        let found = self.live.get(&compare.key);
        let (have, want) = match compare.target {
            Target::Version(want) => (found.map_or(0, |found| found.version), want),
            Target::Created(want) => (found.map_or(0, |found| found.created), want),
            Target::Modified(want) => (found.map_or(0, |found| found.modified), want),
            Target::Value(want) => match found {
                Some(found) => (found.value, want),
                None => return false,
            },
        };
        match compare.relation {
            Relation::Equal => have == want,
            Relation::Different => have != want,
            Relation::Greater => have > want,
            Relation::Less => have < want,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

fn count(versions: &[Version]) -> u64 {
    u64::try_from(versions.len()).expect("usize has at most 64 bits")
}
