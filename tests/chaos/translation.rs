//! Between the judges' history and the product's client: requests as calls, replies as answers.
//!
//! What a reply holds that no right server would say (another key, a value that is no number) becomes a
//! number that nothing was ever given, so that the judges see it.

use std::collections::HashMap;

use client::{
    Call, CompareResult, CompareTarget, DeleteRange, OpResult, OwnedKeyValue, Put, Range, Reply,
    Txn, TxnResult,
};

use crate::history::{Answer, Compare, Key, Relation, Request, Revision, Target, Value, Version};

/// What every key of a run begins with.
const PREFIX: &str = "chaos/";

/// The bytes that calls borrow.
#[derive(Default)]
pub struct Texts {
    keys: HashMap<Key, Vec<u8>>,
    values: HashMap<Value, Vec<u8>>,
}

impl Texts {
    /// The bytes of a request.
    pub fn of(request: &Request) -> Self {
        let mut texts = Self::default();
        texts.gather(request);
        texts
    }

    fn gather(&mut self, request: &Request) {
        match request {
            Request::Put { key, value, .. } => {
                self.key(*key);
                self.values.insert(*value, value.to_string().into_bytes());
            }
            Request::Delete { key, end, .. } | Request::Range { key, end, .. } => {
                self.key(*key);
                self.key(*end);
            }
            Request::Txn { compares, success, failure } => {
                for compare in compares {
                    self.key(compare.key);
                    if let Target::Value(value) = compare.target {
                        self.values.insert(value, value.to_string().into_bytes());
                    }
                }
                for request in success.iter().chain(failure) {
                    self.gather(request);
                }
            }
        }
    }

    fn key(&mut self, key: Key) {
        self.keys.entry(key).or_insert_with(|| format!("{PREFIX}{key:05}").into_bytes());
    }

    /// The request as an operation; of a transaction: [`Self::txn`].
    pub fn op(&self, request: &Request) -> client::Op<'_> {
        match request {
            Request::Put { .. } => client::Op::Put(self.put(request)),
            Request::Delete { key, end, previous } => {
                client::Op::DeleteRange(self.delete(*key, *end, *previous))
            }
            Request::Range { key, end, revision, serializable } => {
                client::Op::Range(self.range(*key, *end, *revision, *serializable))
            }
            Request::Txn { .. } => client::Op::Txn(Box::new(self.txn(request))),
        }
    }

    /// The request as a transaction; empty if it is none.
    pub fn txn(&self, request: &Request) -> Txn<'_> {
        let Request::Txn { compares, success, failure } = request else { return Txn::new() };
        Txn {
            compares: compares.iter().map(|compare| self.compare(compare)).collect(),
            success: success.iter().map(|request| self.op(request)).collect(),
            failure: failure.iter().map(|request| self.op(request)).collect(),
        }
    }

    /// The request as a call; `txn` is what [`Self::txn`] gave.
    pub fn call<'t>(&'t self, request: &Request, txn: &'t Txn<'t>) -> Call<'t> {
        match request {
            Request::Put { .. } => Call::Put(self.put(request)),
            Request::Delete { key, end, previous } => {
                Call::DeleteRange(self.delete(*key, *end, *previous))
            }
            Request::Range { key, end, revision, serializable } => {
                Call::Range(self.range(*key, *end, *revision, *serializable))
            }
            Request::Txn { .. } => Call::Txn(txn),
        }
    }

    fn put(&self, request: &Request) -> Put<'_> {
        let Request::Put { key, value, previous } = request else { return Put::default() };
        Put { prev_kv: *previous, ..Put::new(&self.keys[key], &self.values[value]) }
    }

    fn delete(&self, key: Key, end: Key, previous: bool) -> DeleteRange<'_> {
        DeleteRange {
            prev_kv: previous,
            ..DeleteRange::between(&self.keys[&key], &self.keys[&end])
        }
    }

    fn range(&self, key: Key, end: Key, revision: Revision, serializable: bool) -> Range<'_> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        Range { revision, serializable, ..Range::between(&self.keys[&key], &self.keys[&end]) }
    }

    fn compare(&self, compare: &Compare) -> client::Compare<'_> {
        let result = match compare.relation {
            Relation::Equal => CompareResult::Equal,
            Relation::Different => CompareResult::NotEqual,
            Relation::Greater => CompareResult::Greater,
            Relation::Less => CompareResult::Less,
        };
        let key = &self.keys[&compare.key];
        let number = |target, want: u64| {
            client::Compare::number(key, target, result, i64::try_from(want).unwrap_or(i64::MAX))
        };
        match compare.target {
            Target::Version(want) => number(CompareTarget::Version, want),
            Target::Created(want) => number(CompareTarget::CreateRevision, want),
            Target::Modified(want) => number(CompareTarget::ModRevision, want),
            Target::Value(want) => client::Compare::value(key, result, &self.values[&want]),
        }
    }
}

/// Revision and answer in a reply; nothing if it is of another kind.
pub fn answer(reply: Reply<'_>) -> Option<(Revision, Answer)> {
    let result = match reply {
        Reply::Put(reply) => OpResult::Put(reply.into()),
        Reply::Range(reply) => OpResult::Range(reply.into()),
        Reply::DeleteRange(reply) => OpResult::DeleteRange(reply.into()),
        Reply::Txn(reply) => OpResult::Txn(TxnResult::from(reply)),
        _ => return None,
    };
    let revision = match &result {
        OpResult::Put(result) => result.revision,
        OpResult::Range(result) => result.revision,
        OpResult::DeleteRange(result) => result.revision,
        OpResult::Txn(result) => result.revision,
    };
    Some((number(revision), owned(result)))
}

fn owned(result: OpResult) -> Answer {
    match result {
        OpResult::Put(result) => Answer::Put { previous: result.previous.map(version) },
        OpResult::Range(result) => Answer::Range {
            count: number(result.count),
            versions: result.kvs.into_iter().map(version).collect(),
        },
        OpResult::DeleteRange(result) => Answer::Delete {
            deleted: number(result.deleted),
            previous: result.previous.into_iter().map(version).collect(),
        },
        OpResult::Txn(result) => Answer::Txn {
            succeeded: result.succeeded,
            answers: result.responses.into_iter().map(owned).collect(),
        },
    }
}

fn version(found: OwnedKeyValue) -> Version {
    let text = std::str::from_utf8(&found.key).unwrap_or_default();
    let key = text.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok());
    let value = std::str::from_utf8(&found.value).ok().and_then(|digits| digits.parse().ok());
    Version {
        key: key.unwrap_or(Key::MAX),
        value: value.unwrap_or(Value::MAX),
        created: number(found.create_revision),
        modified: number(found.mod_revision),
        version: number(found.version),
    }
}

fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
