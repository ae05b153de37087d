//! The file of `--config-file`: YAML, and so JSON too, with etcd's flags as keys. Lists are written out with
//! commas between, TLS and socket options stand in sections of their own.
//!
//! ```yaml
//! name: m1
//! log-outputs: [stderr, /var/log/etcd.log]
//! peer-transport-security:
//!   cert-file: ''                  # --peer-cert-file
//! ```

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Sections, and what stands before the names of their keys as flags.
const SECTIONS: &[(&str, &str)] = &[
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
    ("socket-options", "socket-"),
];

/// A key as the flag that it stands for, and its value.
pub type Entry = (String, String);

/// What is being read.
enum Open {
    /// Keys below this section; the present one, if its value has not come.
    Map { section: Option<String>, key: Option<String> },
    /// The values of a key.
    List { name: String, items: Vec<String> },
}

/// The entries of a file that have a value, in their order.
///
/// # Errors
/// The text is no such file, in words for people.
pub fn read(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let refuse = |why: &str| Err(format!("line {}: {why}", span.start.line()));
        match (event, open.last_mut()) {
            (Event::DocumentStart(_), _) => {
                documents += 1;
                if documents > 1 {
                    return refuse("a second document begins");
                }
            }
            (Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd, _) => {}
            (Event::Alias(_), _) => return refuse("an alias is no value here"),
            (Event::Scalar(text, ..), Some(Open::Map { key: key @ None, .. })) => {
                *key = Some(text.into_owned());
            }
            (Event::Scalar(text, style, ..), Some(Open::Map { section, key })) => {
                let name = flag(section.as_deref(), &key.take().unwrap_or_default());
                if !is_null(&text, style) {
                    entries.push((name, text.into_owned()));
                }
            }
            (Event::Scalar(text, ..), Some(Open::List { items, .. })) => {
                items.push(text.into_owned());
            }
            (Event::Scalar(text, style, ..), None) if is_null(&text, style) => {}
            (Event::MappingStart(..), None) => open.push(Open::Map { section: None, key: None }),
            (Event::MappingStart(..), Some(Open::Map { section: None, key: key @ Some(_) })) => {
                let section = key.take();
                open.push(Open::Map { section, key: None });
            }
            (Event::SequenceStart(..), Some(Open::Map { section, key: key @ Some(_) })) => {
                let name = flag(section.as_deref(), &key.take().unwrap_or_default());
                open.push(Open::List { name, items: Vec::new() });
            }
            (Event::MappingEnd | Event::SequenceEnd, _) => {
                if let Some(Open::List { name, items }) = open.pop() {
                    entries.push((name, items.join(",")));
                }
            }
            (Event::Scalar(..) | Event::MappingStart(..) | Event::SequenceStart(..), _) => {
                return refuse("write one flag a line, like name: m1");
            }
        }
    }
    let twice = |at: usize| entries[..at].iter().any(|(name, _)| *name == entries[at].0);
    match (0..entries.len()).find(|at| twice(*at)) {
        Some(at) => Err(format!("{} is there twice", entries[at].0)),
        None => Ok(entries),
    }
}

fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The flag that a key stands for.
fn flag(section: Option<&str>, key: &str) -> String {
    let Some(section) = section else { return key.to_owned() };
    match SECTIONS.iter().find(|(name, _)| *name == section) {
        Some((_, before)) => format!("{before}{key}"),
        None => format!("{section}/{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        read(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<Entry> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_file_is_yaml_or_json() {
        let text = "# a member\n---\nname: 'm: 1'   # its name\ndata-dir: \"/var/lib\\x2fetcd\"\nwal-dir:\n\
                    cors: ~\nforce-new-cluster: true\nlisten-client-urls: >-\n  http://a:1,\n\
                    log-outputs: [stderr, 'a, b']\ncipher-suites:\n- X\n- Y\n\
                    client-transport-security:\n  cert-file:\n  auto-tls: false\n\
                    peer-transport-security: {cert-file: c.pem}\nsocket-options:\n  reuse-port: true\n\
                    other:\n  key: 1\n";
        let expected = owned(&[
            ("name", "m: 1"),
            ("data-dir", "/var/lib/etcd"),
            ("force-new-cluster", "true"),
            ("listen-client-urls", "http://a:1,"),
            ("log-outputs", "stderr,a, b"),
            ("cipher-suites", "X,Y"),
            ("auto-tls", "false"),
            ("peer-cert-file", "c.pem"),
            ("socket-reuse-port", "true"),
            ("other/key", "1"),
        ]);
        assert_eq!(pairs(text), expected);
        let json = "{\"name\": \"m2\", \"max-request-bytes\": 100, \"wal-dir\": null, \
                    \"peer-transport-security\": {\"auto-tls\": false}}";
        let expected = [("name", "m2"), ("max-request-bytes", "100"), ("peer-auto-tls", "false")];
        assert_eq!(pairs(json), owned(&expected));
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("# nothing\n"), []);
    }

    #[test]
    fn what_is_no_such_file_is_refused_and_never_panics() {
        for (text, said) in [
            ("name", "line 1: write one flag a line"),
            ("- name: x", "write one flag a line"),
            ("name: x\nname: y", "name is there twice"),
            ("a: {b: {c: d}}", "write one flag a line"),
            ("a: [[b]]", "write one flag a line"),
            ("a: &x 1\nb: *x", "line 2: an alias"),
            ("a: 1\n---\nb: 2", "second document"),
            ("a: [1", ""),
            ("\"a: 1", ""),
            ("a: b: c", ""),
            ("\t\u{0}", ""),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
