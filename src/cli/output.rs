//! How results are written to standard output: lines as etcdctl writes them, or its JSON.
//!
//! ```text
//! simple   get: key line, value line, ...   put: OK   del: the count   txn: SUCCESS or FAILURE, ...
//! json     {"header":{"cluster_id":1,"member_id":2,"revision":3},"kvs":[{"key":"Zm9v",...}],"count":1}
//! ```
//!
//! Keys and values are written as they are in lines and in base64 in JSON. As in etcdctl's JSON,
//! fields that are zero, false or empty are left out.

use std::io::{BufWriter, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{
    Client, DeleteResult, KeyValue, OpResult, OwnedKeyValue, PutResult, RangeResult, RangeSummary,
    TxnResult,
};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::session::Format;

/// Standard output in one of the formats.
pub struct Output<'w> {
    format: Format,
    cluster: u64,
    member: u64,
    out: Box<dyn Write + 'w>,
}

impl Output<'_> {
    /// Output of what the server of `client` answers.
    pub fn new(format: Format, client: &Client) -> Self {
        let (cluster, member) =
            client.server().map_or((0, 0), |server| (server.cluster, server.member.get()));
        Self { format, cluster, member, out: Box::new(BufWriter::new(std::io::stdout().lock())) }
    }

    /// True if each answer is a JSON object.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Text as it is.
    ///
    /// # Errors
    /// Standard output.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.flush()
    }

    /// Bytes as they are, not flushed.
    ///
    /// # Errors
    /// Standard output.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::output)
    }

    /// A line of bytes, not flushed.
    ///
    /// # Errors
    /// Standard output.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes(bytes)?;
        self.bytes(b"\n")
    }

    /// Hands over what was written.
    ///
    /// # Errors
    /// Standard output.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }

    /// An object with a header.
    ///
    /// # Errors
    /// Standard output.
    pub fn object(&mut self, mut object: Map<String, Value>, revision: i64) -> Result<(), Failure> {
        object.insert("header".into(), self.header(revision));
        self.line(Value::Object(object).to_string().as_bytes())?;
        self.flush()
    }

    fn header(&self, revision: i64) -> Value {
        json!({ "cluster_id": self.cluster, "member_id": self.member, "revision": revision })
    }

    /// The result of a put.
    ///
    /// # Errors
    /// Standard output.
    pub fn put(&mut self, result: &PutResult) -> Result<(), Failure> {
        match self.format {
            Format::Simple => {
                self.put_lines(result)?;
                self.flush()
            }
            Format::Json => self.object(put_object(result), result.revision),
        }
    }

    fn put_lines(&mut self, result: &PutResult) -> Result<(), Failure> {
        self.line(b"OK")?;
        result.previous.iter().try_for_each(|previous| self.pair(previous))
    }

    /// The result of a deletion.
    ///
    /// # Errors
    /// Standard output.
    pub fn delete(&mut self, result: &DeleteResult) -> Result<(), Failure> {
        match self.format {
            Format::Simple => {
                self.delete_lines(result)?;
                self.flush()
            }
            Format::Json => self.object(delete_object(result), result.revision),
        }
    }

    fn delete_lines(&mut self, result: &DeleteResult) -> Result<(), Failure> {
        self.line(result.deleted.to_string().as_bytes())?;
        result.previous.iter().try_for_each(|previous| self.pair(previous))
    }

    /// The result of a transaction.
    ///
    /// # Errors
    /// Standard output.
    pub fn txn(&mut self, result: &TxnResult) -> Result<(), Failure> {
        match self.format {
            Format::Simple => {
                self.txn_lines(result)?;
                self.flush()
            }
            Format::Json => self.object(txn_object(result), result.revision),
        }
    }

    fn txn_lines(&mut self, result: &TxnResult) -> Result<(), Failure> {
        self.line(if result.succeeded { b"SUCCESS" } else { b"FAILURE" })?;
        for response in &result.responses {
            self.line(b"")?;
            match response {
                OpResult::Put(result) => self.put_lines(result)?,
                OpResult::DeleteRange(result) => self.delete_lines(result)?,
                OpResult::Range(result) => {
                    result.kvs.iter().try_for_each(|member| self.pair(member))?;
                }
                OpResult::Txn(result) => self.txn_lines(result)?,
            }
        }
        Ok(())
    }

    /// The result of a compaction to `revision`.
    ///
    /// # Errors
    /// Standard output.
    pub fn compact(&mut self, revision: i64, newest: i64) -> Result<(), Failure> {
        match self.format {
            Format::Simple => self.text(&format!("compacted revision {revision}\n")),
            Format::Json => self.object(Map::new(), newest),
        }
    }

    /// An object about the members, which has no revision.
    ///
    /// # Errors
    /// Standard output.
    pub fn members(&mut self, mut object: Value) -> Result<(), Failure> {
        object["header"] = json!({ "cluster_id": self.cluster, "member_id": self.member });
        self.text(&format!("{object}\n"))
    }

    /// Key line and value line, not flushed.
    ///
    /// # Errors
    /// Standard output.
    pub fn pair(&mut self, member: &OwnedKeyValue) -> Result<(), Failure> {
        self.line(&member.key)?;
        self.line(&member.value)
    }
}

/// Text that no single server answered.
///
/// # Errors
/// Standard output.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}

/// Writes keys of a range as they come, so that a range larger than memory can be printed.
pub struct KeyPrinter<'o, 'w> {
    output: &'o mut Output<'w>,
    values_only: bool,
    printed: u64,
}

impl<'o, 'w> KeyPrinter<'o, 'w> {
    /// A printer of one range.
    pub fn new(output: &'o mut Output<'w>, values_only: bool) -> Self {
        Self { output, values_only, printed: 0 }
    }

    /// The next key.
    ///
    /// # Errors
    /// Standard output.
    pub fn key(&mut self, member: &KeyValue<'_>) -> Result<(), Failure> {
        match self.output.format {
            Format::Simple => {
                if !self.values_only {
                    self.output.line(member.key)?;
                }
                self.output.line(member.value)?;
            }
            Format::Json => {
                let opening: &[u8] = if self.printed == 0 { b"{\"kvs\":[" } else { b"," };
                self.output.bytes(opening)?;
                self.output.bytes(Value::Object(pair_object(member)).to_string().as_bytes())?;
            }
        }
        self.printed += 1;
        Ok(())
    }

    /// The end of the range.
    ///
    /// # Errors
    /// Standard output.
    pub fn end(self, summary: &RangeSummary, count_only: bool) -> Result<(), Failure> {
        match self.output.format {
            Format::Simple if count_only => {
                self.output.line(summary.count.to_string().as_bytes())?;
            }
            Format::Simple => {}
            Format::Json => {
                let opening = if self.printed == 0 { "{" } else { "]," };
                let mut rest = Map::new();
                rest.insert("header".into(), self.output.header(summary.revision));
                number(&mut rest, "count", summary.count);
                flag(&mut rest, "more", summary.more);
                let rest = Value::Object(rest).to_string();
                let rest = rest.strip_prefix('{').unwrap_or(&rest);
                self.output.line(format!("{opening}{rest}").as_bytes())?;
            }
        }
        self.output.flush()
    }
}

fn number(object: &mut Map<String, Value>, name: &str, value: i64) {
    if value != 0 {
        object.insert(name.into(), value.into());
    }
}

fn flag(object: &mut Map<String, Value>, name: &str, value: bool) {
    if value {
        object.insert(name.into(), true.into());
    }
}

fn list(object: &mut Map<String, Value>, name: &str, values: Vec<Value>) {
    if !values.is_empty() {
        object.insert(name.into(), values.into());
    }
}

fn pair_object(member: &KeyValue<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("key".into(), STANDARD.encode(member.key).into());
    number(&mut object, "create_revision", member.create_revision);
    number(&mut object, "mod_revision", member.mod_revision);
    number(&mut object, "version", member.version);
    if !member.value.is_empty() {
        object.insert("value".into(), STANDARD.encode(member.value).into());
    }
    number(&mut object, "lease", member.lease);
    object
}

/// A key as an object.
pub fn owned_pair(member: &OwnedKeyValue) -> Value {
    Value::Object(pair_object(&KeyValue {
        key: &member.key,
        value: &member.value,
        create_revision: member.create_revision,
        mod_revision: member.mod_revision,
        version: member.version,
        lease: member.lease,
    }))
}

fn put_object(result: &PutResult) -> Map<String, Value> {
    let mut object = Map::new();
    if let Some(previous) = &result.previous {
        object.insert("prev_kv".into(), owned_pair(previous));
    }
    number(&mut object, "lease", result.lease);
    object
}

fn delete_object(result: &DeleteResult) -> Map<String, Value> {
    let mut object = Map::new();
    number(&mut object, "deleted", result.deleted);
    list(&mut object, "prev_kvs", result.previous.iter().map(owned_pair).collect());
    object
}

fn range_object(result: &RangeResult) -> Map<String, Value> {
    let mut object = Map::new();
    list(&mut object, "kvs", result.kvs.iter().map(owned_pair).collect());
    number(&mut object, "count", result.count);
    flag(&mut object, "more", result.more);
    object
}

fn txn_object(result: &TxnResult) -> Map<String, Value> {
    let mut object = Map::new();
    flag(&mut object, "succeeded", result.succeeded);
    let responses = result.responses.iter().map(|response| {
        let (name, revision, mut inner) = match response {
            OpResult::Put(result) => ("ResponsePut", result.revision, put_object(result)),
            OpResult::Range(result) => ("ResponseRange", result.revision, range_object(result)),
            OpResult::DeleteRange(result) => {
                ("ResponseDeleteRange", result.revision, delete_object(result))
            }
            OpResult::Txn(result) => ("ResponseTxn", result.revision, txn_object(result)),
        };
        let mut header = Map::new();
        number(&mut header, "revision", revision);
        inner.insert("header".into(), header.into());
        json!({ "Response": { name: inner } })
    });
    list(&mut object, "responses", responses.collect());
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, write: impl FnOnce(&mut Output<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Output { format, cluster: 7, member: 1, out: Box::new(&mut bytes) });
        bytes
    }

    fn object(write: impl FnOnce(&mut Output<'_>)) -> Value {
        serde_json::from_slice(&written(Format::Json, write)).expect("one object")
    }

    fn member() -> OwnedKeyValue {
        OwnedKeyValue {
            key: b"foo\xff".to_vec(),
            value: b"bar".to_vec(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: 0,
        }
    }

    fn print(output: &mut Output<'_>, members: &[KeyValue<'_>], count_only: bool) {
        let mut printer = KeyPrinter::new(output, false);
        members.iter().for_each(|member| printer.key(member).expect("written"));
        let summary = RangeSummary { revision: 9, count: 2, more: false };
        printer.end(&summary, count_only).expect("written");
    }

    #[test]
    fn bytes_are_written_as_they_are_in_lines() {
        let pair = KeyValue { key: b"foo\xff", value: b"a\0b", ..KeyValue::default() };
        let seen = written(Format::Simple, |output| print(output, &[pair, pair], false));
        assert_eq!(seen, b"foo\xff\na\0b\nfoo\xff\na\0b\n");
        assert_eq!(written(Format::Simple, |output| print(output, &[], true)), b"2\n");
    }

    #[test]
    fn a_range_in_json_is_one_object_however_many_keys_came() {
        let pair = KeyValue { key: b"k", value: b"", mod_revision: 4, ..KeyValue::default() };
        for members in [&[][..], &[pair], &[pair, pair]] {
            let seen = object(|output| print(output, members, false));
            assert_eq!(seen["header"]["revision"], 9);
            assert_eq!(seen["header"]["cluster_id"], 7);
            assert_eq!(seen["count"], 2);
            assert!(seen.get("more").is_none());
            assert_eq!(seen["kvs"].as_array().map_or(0, Vec::len), members.len());
            if let Some(first) = seen["kvs"].get(0) {
                assert_eq!(*first, json!({ "key": "aw==", "mod_revision": 4 }));
            }
        }
    }

    #[test]
    fn results_have_the_names_that_etcdctl_gives_them() {
        let put = PutResult { revision: 3, previous: Some(member()), lease: 0 };
        let seen = object(|output| output.put(&put).expect("written"));
        assert_eq!(seen["prev_kv"]["key"], "Zm9v/w==");
        assert_eq!(seen["prev_kv"]["value"], "YmFy");
        let delete = DeleteResult { revision: 3, deleted: 1, previous: vec![member()] };
        let seen = object(|output| output.delete(&delete).expect("written"));
        assert_eq!((&seen["deleted"], &seen["prev_kvs"][0]["version"]), (&json!(1), &json!(2)));
        let nested = TxnResult::default();
        let responses = vec![
            OpResult::Put(put),
            OpResult::DeleteRange(delete),
            OpResult::Range(RangeResult { count: 1, kvs: vec![member()], ..Default::default() }),
            OpResult::Txn(nested),
        ];
        let txn = TxnResult { revision: 3, succeeded: true, responses };
        let seen = object(|output| output.txn(&txn).expect("written"));
        assert_eq!(seen["succeeded"], true);
        assert_eq!(seen["responses"][0]["Response"]["ResponsePut"]["header"]["revision"], 3);
        assert_eq!(seen["responses"][2]["Response"]["ResponseRange"]["count"], 1);
        assert!(seen["responses"][3]["Response"]["ResponseTxn"].is_object());
        let seen = written(Format::Simple, |output| output.txn(&txn).expect("written"));
        let expected =
            b"SUCCESS\n\nOK\nfoo\xff\nbar\n\n1\nfoo\xff\nbar\n\nfoo\xff\nbar\n\nFAILURE\n";
        assert_eq!(seen, expected);
    }
}
