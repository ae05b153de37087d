//! The messages of etcd's JSON gateway that a mirror sends and reads. Keys and values are base64, numbers of 64
//! bits strings or numbers; what is missing has its default value.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                STANDARD.decode(text).map(Bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A whole number, as a string or as itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Whole<'a> {
    Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
    Signed(i64),
    Unsigned(u64),
}

fn signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Whole::deserialize(deserializer)? {
        Whole::Text(text) => text.parse().map_err(D::Error::custom),
        Whole::Signed(number) => Ok(number),
        Whole::Unsigned(number) => i64::try_from(number).map_err(D::Error::custom),
    }
}

fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Whole::deserialize(deserializer)? {
        Whole::Text(text) => text.parse().map_err(D::Error::custom),
        Whole::Signed(number) => u64::try_from(number).map_err(D::Error::custom),
        Whole::Unsigned(number) => Ok(number),
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A read of keys.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Range {
    /// The first key.
    pub key: Bytes,
    /// Where it ends; empty: the key alone.
    pub range_end: Bytes,
    /// As of this revision; 0: now.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: i64,
    /// Keys at most; 0: all.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: i64,
    /// Only those changed at this revision or later.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_mod_revision: i64,
    /// Without values.
    #[serde(skip_serializing_if = "is_false")]
    pub keys_only: bool,
    /// The count alone.
    #[serde(skip_serializing_if = "is_false")]
    pub count_only: bool,
}

/// A condition of a transaction.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "target", rename_all = "UPPERCASE")]
pub enum Compare {
    /// The key has this value.
    Value {
        /// Which.
        key: Bytes,
        /// It.
        value: Bytes,
    },
    /// The key has been written so many times; 0: it is not there.
    Version {
        /// Which.
        key: Bytes,
        /// How many.
        version: i64,
    },
}

/// An operation of a transaction.
#[derive(Clone, Debug, Serialize)]
pub enum Operation {
    /// Write a key.
    #[serde(rename = "request_put")]
    Put {
        /// Which.
        key: Bytes,
        /// What.
        value: Bytes,
    },
    /// Delete a key.
    #[serde(rename = "request_delete_range")]
    Delete {
        /// Which.
        key: Bytes,
    },
    /// Read a key.
    #[serde(rename = "request_range")]
    Get {
        /// Which.
        key: Bytes,
    },
}

impl Operation {
    /// The key that it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Get { key } => key,
        }
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value } => key.0.len() + value.0.len(),
            Self::Delete { key } | Self::Get { key } => key.0.len(),
        }
    }
}

/// A transaction.
#[derive(Clone, Debug, Serialize)]
pub struct Txn {
    /// If all of these hold,
    pub compare: [Compare; 1],
    /// these are done,
    pub success: Vec<Operation>,
    /// else these.
    pub failure: Vec<Operation>,
}

/// The first message of a stream of watches.
#[derive(Clone, Debug, Serialize)]
pub struct Watch {
    /// What is watched.
    pub create_request: WatchCreate,
}

/// What is watched.
#[derive(Clone, Debug, Serialize)]
pub struct WatchCreate {
    /// The first key.
    pub key: Bytes,
    /// Where it ends.
    pub range_end: Bytes,
    /// The first revision that is told.
    pub start_revision: i64,
    /// Tell how far it is when there is nothing else to tell for long.
    pub progress_notify: bool,
}

/// What every answer begins with.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Which cluster answers.
    #[serde(deserialize_with = "unsigned")]
    pub cluster_id: u64,
    /// Its newest revision.
    #[serde(deserialize_with = "signed")]
    pub revision: i64,
}

/// A key with its value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// When it was changed.
    #[serde(deserialize_with = "signed")]
    pub mod_revision: i64,
    /// The lease that it hangs on; 0: none.
    #[serde(deserialize_with = "signed")]
    pub lease: i64,
}

/// The answer to a read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RangeAnswer {
    /// Who answers, and when.
    pub header: Header,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// There are more.
    pub more: bool,
    /// How many keys there are in all.
    #[serde(deserialize_with = "signed")]
    pub count: i64,
}

/// The answer to a transaction.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TxnAnswer {
    /// Who answers.
    pub header: Header,
    /// The condition held.
    pub succeeded: bool,
    /// What came of each operation.
    pub responses: Vec<OperationAnswer>,
}

/// What came of an operation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OperationAnswer {
    /// Of a read.
    pub response_range: RangeAnswer,
}

/// One line of a stream of watches.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchLine {
    /// A message.
    Result(WatchAnswer),
    /// The end.
    Error(Refusal),
}

/// A message of a stream of watches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WatchAnswer {
    /// Who tells it, and the newest revision; of a message without events the one up to which all is told.
    pub header: Header,
    /// The watch has begun.
    pub created: bool,
    /// The watch has ended.
    pub canceled: bool,
    /// What it was to tell next has been compacted up to here.
    #[serde(deserialize_with = "signed")]
    pub compact_revision: i64,
    /// Why it has ended.
    pub cancel_reason: String,
    /// Changes, in their order, of whole revisions.
    pub events: Vec<Event>,
}

/// A change.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Which.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The key as it was written, or the key that is gone.
    pub kv: KeyValue,
}

/// What a change is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    /// A key was written.
    #[default]
    Put,
    /// A key was deleted.
    Delete,
}

/// Why something was not done.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// The code of gRPC.
    #[serde(alias = "grpc_code")]
    pub code: u32,
    /// In words.
    pub message: String,
}

impl Refusal {
    /// What is asked for has been compacted.
    pub fn is_out_of_range(&self) -> bool {
        self.code == 11
    }

    /// It may go well a little later, or elsewhere: canceled, unknown, too late, out of room, aborted, internal,
    /// unavailable. What is unknown and internal is so with servers that are about to end.
    pub fn is_passing(&self) -> bool {
        matches!(self.code, 1 | 2 | 4 | 8 | 10 | 13 | 14)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn requests_are_written_as_the_gateway_reads_them() {
        let key = || Bytes(b"a".to_vec());
        let txn = Txn {
            compare: [Compare::Version { key: key(), version: 0 }],
            success: vec![
                Operation::Put { key: key(), value: Bytes(b"1".to_vec()) },
                Operation::Delete { key: key() },
            ],
            failure: vec![Operation::Get { key: key() }],
        };
        let expected = r#"{"compare":[{"target":"VERSION","key":"YQ==","version":0}],"success":[{"request_put":{"#
            .to_owned()
            + r#""key":"YQ==","value":"MQ=="}},{"request_delete_range":{"key":"YQ=="}}],"failure":[{"#
            + r#""request_range":{"key":"YQ=="}}]}"#;
        assert_eq!(serde_json::to_string(&txn).unwrap(), expected);
        let range = Range { key: key(), limit: 5, ..Range::default() };
        let expected = r#"{"key":"YQ==","range_end":"","limit":5}"#;
        assert_eq!(serde_json::to_string(&range).unwrap(), expected);
    }

    #[test]
    fn answers_are_read_with_numbers_of_both_kinds_and_without_what_is_default() {
        let text = r#"{"result":{"header":{"cluster_id":"18446744073709551615","revision":7},"events":[{"kv":{
            "key":"YQ==","mod_revision":"7","create_revision":"7","version":"1","value":"MQ=="}},{"type":"DELETE",
            "kv":{"key":"Yg==","mod_revision":"7"}}]}}"#;
        let WatchLine::Result(answer) = serde_json::from_str(text).unwrap() else {
            panic!("no result");
        };
        assert_eq!((answer.header.cluster_id, answer.header.revision), (u64::MAX, 7));
        let kinds: Vec<EventKind> = answer.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Put, EventKind::Delete]);
        assert_eq!(answer.events[1].kv.mod_revision, 7);
        let text = r#"{"error":{"grpc_code":11,"http_code":400,"message":"m","http_status":"x"}}"#;
        let WatchLine::Error(refusal) = serde_json::from_str(text).unwrap() else {
            panic!("no refusal");
        };
        assert!(refusal.is_out_of_range());
        let lone: TxnAnswer =
            serde_json::from_str(r#"{"responses":[{"response_put":{}}]}"#).unwrap();
        assert!(!lone.succeeded);
        assert!(serde_json::from_str::<RangeAnswer>(r#"{"count":"x"}"#).is_err());
        assert!(serde_json::from_str::<RangeAnswer>(r#"{"kvs":[{"key":"?"}]}"#).is_err());
    }
}
