//! The text of a transaction, in the syntax that users of etcd know; only syntax, no I/O.
//!
//! ```text
//! mod("key1") > "0"                 compares: all must hold
//!                                   an empty line
//! put key1 "over written"           operations if they hold: put, get, del with their flags
//!                                   an empty line
//! put key1 created                  operations if not
//! ```
//!
//! The functions are create (c), mod (m), value (val), version (ver) and lease; the comparisons
//! =, ==, !=, < and >. Keys and values may be quoted: `"..."` with the escapes
//! `\n \t \r \0 \\ \" \xHH`, `'...'` as it is. Numbers may be quoted too; a lease is hexadecimal.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

use super::del::DelArguments;
use super::get::GetArguments;
use super::put::PutArguments;
use super::range::parse_lease;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Revision of the key's creation.
    Create,
    /// Revision of its last change.
    Mod,
    /// Number of puts since its creation.
    Version,
    /// Its lease.
    Lease,
    /// Its value.
    Value,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Below.
    Less,
    /// Above.
    Greater,
}

/// What it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// For every target but the value.
    Number(i64),
    /// For the value.
    Bytes(Vec<u8>),
}

/// One line of the first part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Vec<u8>,
    /// What of it.
    pub target: Target,
    /// How.
    pub relation: Relation,
    /// With what.
    pub operand: Operand,
}

/// One line of the other parts.
#[derive(Clone, Debug)]
pub enum Operation {
    /// `put KEY VALUE`
    Put(PutArguments),
    /// `get KEY [END]`
    Get(GetArguments),
    /// `del KEY [END]`
    Del(DelArguments),
}

/// Why a line is refused.
#[derive(Debug)]
pub enum TxnTextError {
    /// Not of the form `function("key") comparison "operand"`.
    Compare(String),
    /// A quote without an end, or an unknown escape.
    Quote(String),
    /// Neither put, get nor del.
    Operation(String),
    /// The flags or arguments of an operation.
    Arguments(String, String),
    /// A line behind the third part.
    Behind(String),
}

impl fmt::Display for TxnTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(line) => write!(
                f,
                "malformed comparison: {line}; write it like mod(\"key\") > \"0\" with create, \
                 mod, version, lease or value and =, !=, < or >"
            ),
            Self::Quote(line) => write!(f, "a quote without an end or an unknown escape: {line}"),
            Self::Operation(line) => {
                write!(f, "not an operation: {line}; write put, get or del and its arguments")
            }
            Self::Behind(line) => write!(
                f,
                "text behind the third part: {line}; a transaction has three parts, and an empty \
                 line ends each"
            ),
            Self::Arguments(line, reason) => write!(f, "invalid operation: {line}: {reason}"),
        }
    }
}

impl std::error::Error for TxnTextError {}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum OperationLine {
    #[command(disable_help_flag = true)]
    Put(PutArguments),
    #[command(disable_help_flag = true)]
    Get(GetArguments),
    #[command(disable_help_flag = true, visible_alias = "delete")]
    Del(DelArguments),
}

/// Reads one compare.
///
/// # Errors
/// The line is none.
pub fn compare(line: &[u8]) -> Result<Compare, TxnTextError> {
    let refuse = || TxnTextError::Compare(show(line));
    let mut text = Text { bytes: line, line };
    text.skip_space();
    let target = match text.word().to_ascii_lowercase().as_slice() {
        b"create" | b"c" => Target::Create,
        b"mod" | b"m" => Target::Mod,
        b"version" | b"ver" => Target::Version,
        b"lease" => Target::Lease,
        b"value" | b"val" => Target::Value,
        _ => return Err(refuse()),
    };
    text.skip_space();
    text.expect(b"(").ok_or_else(refuse)?;
    text.skip_space();
    let key = text.item(b")")?.ok_or_else(refuse)?;
    text.skip_space();
    text.expect(b")").ok_or_else(refuse)?;
    text.skip_space();
    let relation = if text.expect(b"==").is_some() || text.expect(b"=").is_some() {
        Relation::Equal
    } else if text.expect(b"!=").is_some() {
        Relation::NotEqual
    } else if text.expect(b"<").is_some() {
        Relation::Less
    } else if text.expect(b">").is_some() {
        Relation::Greater
    } else {
        return Err(refuse());
    };
    text.skip_space();
    let operand = text.item(b"")?.ok_or_else(refuse)?;
    text.skip_space();
    if !text.bytes.is_empty() || key.is_empty() {
        return Err(refuse());
    }
    let number = || str::from_utf8(&operand).ok()?.parse().ok();
    let operand = match target {
        Target::Value => Operand::Bytes(operand),
        Target::Lease => {
            let id = str::from_utf8(&operand).ok().and_then(|digits| parse_lease(digits).ok());
            Operand::Number(id.ok_or_else(refuse)?)
        }
        Target::Create | Target::Mod | Target::Version => {
            Operand::Number(number().ok_or_else(refuse)?)
        }
    };
    Ok(Compare { key, target, relation, operand })
}

/// Splits a line at white space, quotes taken off.
///
/// # Errors
/// A quote has no end.
pub fn items(line: &[u8]) -> Result<Vec<OsString>, TxnTextError> {
    let mut items = Vec::new();
    let mut text = Text { bytes: line, line };
    text.skip_space();
    while let Some(item) = text.item(b"")? {
        items.push(OsString::from_vec(item));
        text.skip_space();
    }
    Ok(items)
}

/// Reads one operation.
///
/// # Errors
/// The line is none.
pub fn operation(line: &[u8]) -> Result<Operation, TxnTextError> {
    let words = items(line)?;
    if !words.first().is_some_and(|name| {
        [OsString::from("put"), "get".into(), "del".into(), "delete".into()].contains(name)
    }) {
        return Err(TxnTextError::Operation(show(line)));
    }
    let parsed = OperationLine::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().next().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        TxnTextError::Arguments(show(line), reason.to_owned())
    })?;
    match parsed {
        OperationLine::Put(put) if put.value.is_none() && !put.ignore_value => {
            Err(TxnTextError::Arguments(show(line), "a put needs a value here".into()))
        }
        OperationLine::Put(put) => Ok(Operation::Put(put)),
        OperationLine::Get(get) => Ok(Operation::Get(get)),
        OperationLine::Del(del) => Ok(Operation::Del(del)),
    }
}

fn show(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim().to_owned()
}

/// What is left of a line.
struct Text<'a> {
    bytes: &'a [u8],
    line: &'a [u8],
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        self.bytes = self.bytes.trim_ascii_start();
    }

    fn expect(&mut self, sign: &[u8]) -> Option<()> {
        self.bytes = self.bytes.strip_prefix(sign)?;
        Some(())
    }

    /// The letters that come next.
    fn word(&mut self) -> &'a [u8] {
        let end = self.bytes.iter().position(|byte| !byte.is_ascii_alphabetic());
        let (word, rest) = self.bytes.split_at(end.unwrap_or(self.bytes.len()));
        self.bytes = rest;
        word
    }

    /// A quoted or bare item up to white space or one of `stop`; none at the end of the line.
    /// As in a shell, quoted and bare parts without space between them are one item.
    fn item(&mut self, stop: &[u8]) -> Result<Option<Vec<u8>>, TxnTextError> {
        let mut item = Vec::new();
        let mut found = false;
        while let Some((&byte, rest)) = self.bytes.split_first() {
            match byte {
                b'"' => {
                    self.bytes = rest;
                    self.quoted(&mut item).ok_or_else(|| TxnTextError::Quote(show(self.line)))?;
                }
                b'\'' => {
                    let end = rest.iter().position(|byte| *byte == b'\'');
                    let end = end.ok_or_else(|| TxnTextError::Quote(show(self.line)))?;
                    item.extend_from_slice(&rest[..end]);
                    self.bytes = &rest[end + 1..];
                }
                _ if byte.is_ascii_whitespace() || stop.contains(&byte) => break,
                _ => {
                    item.push(byte);
                    self.bytes = rest;
                }
            }
            found = true;
        }
        Ok(found.then_some(item))
    }

    /// Behind an opening double quote: takes everything to the closing one.
    fn quoted(&mut self, item: &mut Vec<u8>) -> Option<()> {
        loop {
            let byte = self.next()?;
            let taken = match byte {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'0' => 0,
                    b'\\' => b'\\',
                    b'"' => b'"',
                    b'\'' => b'\'',
                    b'x' => self.hexadecimal()? << 4 | self.hexadecimal()?,
                    _ => return None,
                },
                other => other,
            };
            item.push(taken);
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(byte)
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        let digit = char::from(self.next()?).to_digit(16)?;
        u8::try_from(digit).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn every_form_of_a_compare_is_read() {
        for (line, target, relation, operand) in [
            (r#"mod("k") > "0""#, Target::Mod, Relation::Greater, Operand::Number(0)),
            (r#"m("k") < 12"#, Target::Mod, Relation::Less, Operand::Number(12)),
            (r#"c("k") = "0""#, Target::Create, Relation::Equal, Operand::Number(0)),
            (r#"create( "k" )=="3""#, Target::Create, Relation::Equal, Operand::Number(3)),
            (r#"ver("k")!="-1""#, Target::Version, Relation::NotEqual, Operand::Number(-1)),
            (r#"VERSION(k) = 1"#, Target::Version, Relation::Equal, Operand::Number(1)),
            (r#"lease("k") = "1f""#, Target::Lease, Relation::Equal, Operand::Number(31)),
            (r#"val("k") = "a b""#, Target::Value, Relation::Equal, Operand::Bytes(b"a b".into())),
            (r#"value('k') > """#, Target::Value, Relation::Greater, Operand::Bytes(vec![])),
        ] {
            let seen = compare(line.as_bytes()).expect(line);
            assert_eq!(seen, Compare { key: b"k".into(), target, relation, operand }, "{line}");
        }
    }

    #[test]
    fn quotes_and_escapes_give_any_byte() {
        let seen = compare(br#"val("a\x00\xff\"\\)") = 'it''s "x" \n'"#).expect("a compare");
        assert_eq!(seen.key, b"a\0\xff\"\\)");
        assert_eq!(seen.operand, Operand::Bytes(br#"its "x" \n"#.into()));
    }

    #[test]
    fn what_is_no_compare_is_refused() {
        for line in [
            "",
            "mod",
            r#"mod("k")"#,
            r#"mod("k" > "0""#,
            r#"mod("k") >= "0""#,
            r#"mod("k") ~ "0""#,
            r#"mod("k") > "x""#,
            r#"mod("") > "0""#,
            r#"mod("k") > "0" x"#,
            r#"age("k") > "0""#,
            r#"mod("k") > "99999999999999999999""#,
        ] {
            assert!(compare(line.as_bytes()).is_err(), "{line}");
        }
        for line in [r#"val("k) = 1"#, r#"val("\q") = 1"#, r#"val("\x1") = 1"#, "val('k) = 1"] {
            assert!(matches!(compare(line.as_bytes()), Err(TxnTextError::Quote(_))), "{line}");
        }
    }

    #[test]
    fn operations_take_the_flags_of_their_commands() {
        let Operation::Put(put) = operation(br#"put "a b" 'v w' --prev-kv"#).expect("a put") else {
            panic!("not a put")
        };
        assert_eq!(put.key.as_bytes(), b"a b");
        assert_eq!(put.value.expect("a value").as_bytes(), b"v w");
        assert!(put.prev_kv);
        let Operation::Get(get) = operation(b"  get k --prefix --limit=5 ").expect("a get") else {
            panic!("not a get")
        };
        assert!(get.range.prefix);
        assert_eq!(get.limit, 5);
        let Operation::Del(del) = operation(b"del a z").expect("a delete") else {
            panic!("not a delete")
        };
        assert_eq!(del.range.end.expect("an end").as_bytes(), b"z");
        let Operation::Put(put) = operation(br#"put k "\xff""#).expect("a put") else {
            panic!("not a put")
        };
        assert_eq!(put.value.expect("a value").as_bytes(), b"\xff");
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        for line in ["", "watch k", "put", "put k", "put k v --no-such", "get", "put \"k v"] {
            assert!(operation(line.as_bytes()).is_err(), "{line}");
        }
        let error = operation(b"put k v --no-such").expect_err("unknown flag");
        assert!(error.to_string().contains("--no-such"), "{error}");
    }
}
