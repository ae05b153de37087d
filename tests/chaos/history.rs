//! What clients asked, what they were told, and when: all that the judges ever see.
//!
//! Keys are small numbers whose text sorts as they do, and every value is written once in a run, so that
//! who reads a value knows which write it was.

use serde::{Deserialize, Serialize};

/// A key.
pub type Key = u16;

/// A value; no two writes of a history write the same one.
pub type Value = u64;

/// A revision of the store; an empty one has revision 1.
pub type Revision = u64;

/// A key as a reader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision of its creation.
    pub created: Revision,
    /// The revision of its last put.
    pub modified: Revision,
    /// Puts since its creation.
    pub version: u64,
}

/// What a condition looks at, and the number it compares with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Target {
    /// Puts since the creation.
    Version(u64),
    /// The revision of the creation.
    Created(Revision),
    /// The revision of the last put.
    Modified(Revision),
    /// The value.
    Value(Value),
}

/// How the key's side must compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Relation {
    /// Equal to the given number.
    Equal,
    /// Not equal to it.
    Different,
    /// Greater than it.
    Greater,
    /// Less than it.
    Less,
}

/// A condition of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// What of it, with what.
    pub target: Target,
    /// How.
    pub relation: Relation,
}

/// What a client asks. Ends of ranges are exclusive.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Writes a key.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Value,
        /// Wants to know the key as it was before.
        previous: bool,
    },
    /// Deletes keys.
    Delete {
        /// First key.
        key: Key,
        /// End of the keys.
        end: Key,
        /// Wants to know the keys as they were.
        previous: bool,
    },
    /// Reads keys.
    Range {
        /// First key.
        key: Key,
        /// End of the keys.
        end: Key,
        /// The revision to read at; 0: the newest.
        revision: Revision,
        /// Any earlier state will do.
        serializable: bool,
    },
    /// Compares, then does one of two lists.
    Txn {
        /// All must hold.
        compares: Vec<Compare>,
        /// What is done then.
        success: Vec<Request>,
        /// What is done otherwise.
        failure: Vec<Request>,
    },
}

impl Request {
    /// True if it may change the store.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Put { .. } | Self::Delete { .. } => true,
            Self::Range { .. } => false,
            Self::Txn { success, failure, .. } => success.iter().chain(failure).any(Self::is_write),
        }
    }

    /// Calls `take` with every value that it may write.
    pub fn values(&self, take: &mut impl FnMut(Value)) {
        match self {
            Self::Put { value, .. } => take(*value),
            Self::Delete { .. } | Self::Range { .. } => {}
            Self::Txn { success, failure, .. } => {
                for request in success.iter().chain(failure) {
                    request.values(take);
                }
            }
        }
    }
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The key was written.
    Put {
        /// The key before, if that was asked for.
        previous: Option<Version>,
    },
    /// Keys were deleted.
    Delete {
        /// How many.
        deleted: u64,
        /// The keys before, if that was asked for.
        previous: Vec<Version>,
    },
    /// Keys were read.
    Range {
        /// How many there are.
        count: u64,
        /// The keys.
        versions: Vec<Version>,
    },
    /// One of the two lists was done.
    Txn {
        /// The conditions held.
        succeeded: bool,
        /// The answers in the order of the list.
        answers: Vec<Answer>,
    },
}

impl Answer {
    /// True if it tells of a change: the revision beside it is then that of the change.
    pub fn is_effective(&self) -> bool {
        match self {
            Self::Put { .. } => true,
            Self::Delete { deleted, .. } => *deleted > 0,
            Self::Range { .. } => false,
            Self::Txn { answers, .. } => answers.iter().any(Self::is_effective),
        }
    }

    /// Calls `take` with every version of a key that it shows.
    pub fn versions(&self, take: &mut impl FnMut(&Version)) {
        match self {
            Self::Put { previous } => previous.iter().for_each(take),
            Self::Delete { previous, .. } => previous.iter().for_each(take),
            Self::Range { versions, .. } => versions.iter().for_each(take),
            Self::Txn { answers, .. } => {
                for answer in answers {
                    answer.versions(take);
                }
            }
        }
    }
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Done {
        /// The revision that was told: of the change, or the newest one if nothing changed.
        revision: Revision,
        /// What was told.
        answer: Answer,
    },
    /// It had no effect and never will.
    Failed,
    /// Nobody knows: a write may take effect at any time after its invocation, or never.
    Unknown,
}

/// One operation. Times are nanoseconds of one monotonic clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked, for people.
    pub client: u32,
    /// Which process answered: a member that was started again counts as another one.
    pub server: u32,
    /// When it was sent, at the latest.
    pub invoked: u64,
    /// When the answer was there, at the earliest.
    pub returned: u64,
    /// What was asked.
    pub request: Request,
    /// How it ended.
    pub outcome: Outcome,
}

impl Operation {
    /// Revision and answer, if it was done.
    pub fn done(&self) -> Option<(Revision, &Answer)> {
        match &self.outcome {
            Outcome::Done { revision, answer } => Some((*revision, answer)),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }
}
