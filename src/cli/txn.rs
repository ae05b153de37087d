//! `txn`: reads a transaction from standard input, sends it, prints what came of it.

use std::io::{self, BufRead, Write};

use clap::Args;
use client::{CompareResult, CompareTarget, Op, Txn};

use super::failure::Failure;
use super::output::Output;
use super::range::KeyRange;
use super::session::Global;
use super::txn_text::{self, Compare, Operand, Operation, Relation, Target};

/// What `txn --help` begins with.
pub const LONG_ABOUT: &str = "\
Compare, then do one of two lists of operations, read from standard input:

    mod(\"key1\") > \"0\"
    value(\"key2\") = \"some text\"

    put key1 \"overwritten key1\"
    get key2 --prefix

    put key1 created
    del key2

The first part are compares, all of which must hold; the second part is done if they do, the third
if not. An empty line ends a part. Functions: create (c), mod (m), version (ver), value (val), lease.
Comparisons: = != < >. Text in \"...\" may have the escapes \\n \\t \\r \\0 \\\\ \\\" \\xHH.";

/// Flags of `txn`.
#[derive(Clone, Debug, Args)]
pub struct TxnArguments {
    /// Say what is expected next
    #[arg(short, long)]
    pub interactive: bool,
}

/// A part of the text, and its heading for people.
const PARTS: [&str; 3] =
    ["compares:", "success requests (get, put, del):", "failure requests (get, put, del):"];

/// Reads and does a transaction.
///
/// # Errors
/// Standard input, its text, the server, or standard output.
pub fn run(global: &Global, arguments: &TxnArguments) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let mut part = |heading: &str| {
        if arguments.interactive {
            println!("{heading}");
            io::stdout().flush().map_err(Failure::output)?;
        }
        read_part(&mut input)
    };
    let compares = parse(&part(PARTS[0])?, txn_text::compare)?;
    let success = parse(&part(PARTS[1])?, txn_text::operation)?;
    let failure = parse(&part(PARTS[2])?, txn_text::operation)?;
    if !arguments.interactive {
        nothing_follows(&mut input)?;
    }
    let (success_ranges, failure_ranges) = (ranges(&success)?, ranges(&failure)?);
    let request = Txn {
        compares: compares.iter().map(compare).collect(),
        success: operations(&success, &success_ranges)?,
        failure: operations(&failure, &failure_ranges)?,
    };
    let mut client = global.connect()?;
    let result = client.txn(&request)?;
    Output::new(global.write_out, &client).txn(&result)
}

/// Lines up to an empty one or the end.
fn read_part(input: &mut impl BufRead) -> Result<Vec<Vec<u8>>, Failure> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        input
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Io("standard input".into(), error))?;
        if line.trim_ascii().is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

/// A fourth part is a mistake that must not be dropped in silence.
fn nothing_follows(input: &mut impl BufRead) -> Result<(), Failure> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = input
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Io("standard input".into(), error))?;
        if count == 0 {
            return Ok(());
        }
        if !line.trim_ascii().is_empty() {
            let text = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            return Err(txn_text::TxnTextError::Behind(text).into());
        }
    }
}

fn parse<T>(
    lines: &[Vec<u8>],
    read: fn(&[u8]) -> Result<T, txn_text::TxnTextError>,
) -> Result<Vec<T>, Failure> {
    lines.iter().map(|line| Ok(read(line)?)).collect()
}

fn compare(compare: &Compare) -> client::Compare<'_> {
    let (number, value) = match &compare.operand {
        Operand::Number(number) => (*number, &[][..]),
        Operand::Bytes(bytes) => (0, bytes.as_slice()),
    };
    client::Compare {
        key: &compare.key,
        range_end: &[],
        target: match compare.target {
            Target::Create => CompareTarget::CreateRevision,
            Target::Mod => CompareTarget::ModRevision,
            Target::Version => CompareTarget::Version,
            Target::Lease => CompareTarget::Lease,
            Target::Value => CompareTarget::Value,
        },
        result: match compare.relation {
            Relation::Equal => CompareResult::Equal,
            Relation::NotEqual => CompareResult::NotEqual,
            Relation::Less => CompareResult::Less,
            Relation::Greater => CompareResult::Greater,
        },
        number,
        value,
    }
}

/// The ranges of the operations that have one, which their requests borrow.
fn ranges(operations: &[Operation]) -> Result<Vec<Option<KeyRange>>, Failure> {
    operations
        .iter()
        .map(|operation| match operation {
            Operation::Put(_) => Ok(None),
            Operation::Get(get) => get.range.range().map(Some),
            Operation::Del(del) => del.range.range().map(Some),
        })
        .collect()
}

fn operations<'a>(
    operations: &'a [Operation],
    ranges: &'a [Option<KeyRange>],
) -> Result<Vec<Op<'a>>, Failure> {
    let range = |range: &'a Option<KeyRange>| range.as_ref().expect("made for this operation");
    operations
        .iter()
        .zip(ranges)
        .map(|(operation, keys)| match operation {
            Operation::Put(put) => Ok(Op::Put(put.request(put.given_value())?)),
            Operation::Get(get) => Ok(Op::Range(get.request(range(keys)))),
            Operation::Del(del) => Ok(Op::DeleteRange(del.request(range(keys)))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_at_empty_lines_and_at_the_end() {
        let mut input = &b"mod(\"a\") > \"0\"\n\nput a b\r\nget a\n \ndel a"[..];
        assert_eq!(read_part(&mut input).expect("read").len(), 1);
        assert_eq!(read_part(&mut input).expect("read").len(), 2);
        assert_eq!(read_part(&mut input).expect("read"), [b"del a".to_vec()]);
        assert!(read_part(&mut input).expect("read").is_empty());
    }

    #[test]
    fn a_text_becomes_the_request_it_describes() {
        let lines = [b"put a b --lease 1f".to_vec(), b"get c --prefix --limit 2".to_vec()];
        let parsed = parse(&lines, txn_text::operation).expect("parsed");
        let ranges = ranges(&parsed).expect("ranges");
        let made = operations(&parsed, &ranges).expect("requests");
        let [Op::Put(put), Op::Range(range)] = made.as_slice() else { panic!("{made:?}") };
        assert_eq!((put.key, put.value, put.lease), (&b"a"[..], &b"b"[..], 31));
        assert_eq!((range.key, range.range_end, range.limit), (&b"c"[..], &b"d"[..], 2));
        let parsed = txn_text::compare(br#"val("k") != "v""#).expect("parsed");
        let made = compare(&parsed);
        assert_eq!((made.target, made.result), (CompareTarget::Value, CompareResult::NotEqual));
        assert_eq!((made.key, made.value, made.number), (&b"k"[..], &b"v"[..], 0));
    }
}
