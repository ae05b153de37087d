//! What is printed: lines of named fields, as text or as JSON.
//!
//! ```text
//! group lsn=7 slot=0 offset=4096 records=1: text
//! {"name":"group","lsn":7,"slot":0,"offset":4096,"records":1,"text":"text"}
//! ```
//!
//! Ids and hashes are hexadecimal strings. In text, fields that are absent or false are left out.

use std::fmt::Write as _;
use std::io::Write;

use base::Hash128;
use serde_json::Value;

use crate::Error;
use crate::error::hex;

/// A field: its name and its value.
pub(crate) type Field = (&'static str, Value);

/// Where lines go.
pub(crate) struct Report<'o> {
    out: &'o mut dyn Write,
    json: bool,
    line: String,
    /// Notes printed so far.
    notes: u64,
}

impl<'o> Report<'o> {
    /// Nothing printed yet.
    pub fn new(out: &'o mut dyn Write, json: bool) -> Self {
        Self { out, json, line: String::new(), notes: 0 }
    }

    /// Notes printed so far.
    pub fn notes(&self) -> u64 {
        self.notes
    }

    /// Prints something that a person should know and that is no fault.
    pub fn note(&mut self, text: &str) -> Result<(), Error> {
        self.notes += 1;
        self.print("note", &[], text)
    }

    /// Prints a line.
    pub fn line(&mut self, name: &str, fields: &[Field]) -> Result<(), Error> {
        self.print(name, fields, "")
    }

    /// Prints a line that ends with free text, unless that is empty.
    pub fn print(&mut self, name: &str, fields: &[Field], text: &str) -> Result<(), Error> {
        self.line.clear();
        if self.json {
            let text = (!text.is_empty()).then(|| ("text", Value::from(text)));
            let name = ("name", Value::from(name));
            let all = [&name].into_iter().chain(fields).chain(text.as_ref());
            for (index, (name, value)) in all.enumerate() {
                let before = if index == 0 { "{" } else { "," };
                append(&mut self.line, format_args!("{before}\"{name}\":{value}"));
            }
            self.line.push('}');
        } else {
            self.line.push_str(name);
            for (name, value) in fields {
                match value {
                    Value::Null | Value::Bool(false) => {}
                    Value::Bool(true) => append(&mut self.line, format_args!(" {name}")),
                    Value::String(text) => append(&mut self.line, format_args!(" {name}={text}")),
                    Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                        append(&mut self.line, format_args!(" {name}={value}"));
                    }
                }
            }
            if !text.is_empty() {
                append(&mut self.line, format_args!(": {text}"));
            }
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes()).map_err(Error::Output)
    }
}

fn append(line: &mut String, arguments: std::fmt::Arguments<'_>) {
    line.write_fmt(arguments).expect("a string takes everything");
}

/// A 64-bit id as a field.
pub(crate) fn id64(id: u64) -> Value {
    format!("{id:016x}").into()
}

/// A 128-bit id as a field.
pub(crate) fn id128(id: u128) -> Value {
    format!("{id:032x}").into()
}

/// A hash as a field.
pub(crate) fn hash(hash: Hash128) -> Value {
    hex(&hash).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_or_one_json_object() {
        let fields = [("a", 1.into()), ("b", "x y".into()), ("c", true.into()), ("d", Value::Null)];
        let mut out = Vec::new();
        Report::new(&mut out, false).print("name", &fields, "put \"k\"").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name a=1 b=x y c: put \"k\"\n");
        let mut out = Vec::new();
        Report::new(&mut out, true).print("name", &fields, "put \"k\"").unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["name"], "name");
        assert_eq!(value["b"], "x y");
        assert_eq!(value["d"], Value::Null);
        assert_eq!(value["text"], "put \"k\"");
    }
}
