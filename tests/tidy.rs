//! What keeps the tree in shape: the import table, bans with their reasons, file headers, formatting.
//! Each failure names the file and line and says what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only workspace crates that each crate may depend on. The layers of ARCHITECTURE.md, enforced.
const LAYERS: &[(&str, &[&str])] = &[
    ("src/base", &[]),
    ("schema", &[]),
    ("src/wire", &["base", "schema"]),
    ("src/raft", &["base"]),
    ("src/wal", &["base"]),
    ("src/tree", &["base"]),
    ("src/kv", &["base", "tree"]),
    ("src/node", &["base", "wire", "raft", "wal", "tree", "kv"]),
    ("src/etcd", &["base", "wire"]),
    ("src/bbolt", &[]),
    ("src/snapshot", &["base", "bbolt", "kv", "wire"]),
    ("src/client", &["base", "wire"]),
    ("src/server", &["base", "node", "raft", "wal", "tree", "kv", "wire", "etcd", "snapshot"]),
    ("src/inspect", &["base", "node", "server", "wal", "tree", "kv", "wire", "etcd"]),
    ("bench", &["base", "wire", "client"]),
    ("tests/sim", &["base", "wire", "raft", "wal", "tree", "kv", "node"]),
    ("tests/chaos", &["base", "wire", "client"]),
];

/// Crates whose state machines are driven by production and by simulation alike.
const PURE: &[&str] = &["base", "wire", "raft", "wal", "tree", "kv", "node", "etcd", "bbolt"];

/// Words that a pure crate may not contain outside of its tests, and why.
const PURE_BANS: &[(&str, &str)] = &[
    ("async fn", "a state machine that suspends loses its preconditions"),
    (".await", "a state machine that suspends loses its preconditions"),
    ("RefCell", "one owner per datum"),
    ("Mutex", "one owner per datum"),
    ("RwLock", "one owner per datum"),
    ("Instant::now", "time is handed in"),
    ("SystemTime", "time is handed in"),
    ("thread_rng", "randomness is handed in"),
    ("std::fs", "files belong to server"),
    ("std::net", "sockets belong to server"),
    ("std::thread", "threads belong to server"),
    ("std::time", "time is handed in"),
];

/// Words that no source file outside of tests may contain, and why.
const BANS: &[(&str, &str)] = &[
    ("todo!(", "what is documented works"),
    ("unimplemented!(", "what is documented works"),
    (".unwrap()", "say with expect why it cannot fail, or return the error"),
    ("unbounded(", "every queue has a bound"),
    ("anyhow!", "an error is a type with one variant for each thing a caller does differently"),
    ("RefCell", "one owner per datum; use Cell or a message"),
];

/// Files of this size, in lines, are split.
const LINES_MAX: usize = 1_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name == "target") {
                continue;
            }
            let entries = fs::read_dir(&path).expect("a folder of the tree can be listed");
            open.extend(entries.map(|entry| entry.expect("an entry can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["/tests/", "/benches/", "/examples/", "/tests.rs", "/regenerate/"]
        .iter()
        .any(|part| text.contains(part))
}

/// The lines of a file up to its test module, numbered from 1, comments left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]\nmod") && *line != "#[cfg(test)]")
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn fail(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn crates_import_only_the_layers_below_them() {
    let names: Vec<&str> = LAYERS.iter().map(|(path, _)| path.trim_start_matches("src/")).collect();
    let mut problems = Vec::new();
    for (path, allowed) in LAYERS {
        let manifest = fs::read_to_string(root().join(path).join("Cargo.toml"))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if names.contains(&name) && !allowed.contains(&name) {
                problems.push(format!(
                    "{path}/Cargo.toml: depends on {name}; the table in ARCHITECTURE.md allows \
                     {allowed:?}"
                ));
            }
        }
    }
    fail(&problems);
}

#[test]
fn pure_crates_have_no_clock_no_files_no_locks_and_no_async() {
    let mut problems = Vec::new();
    for name in PURE {
        let lib = fs::read_to_string(root().join("src").join(name).join("lib.rs"))
            .expect("a crate has a lib.rs");
        if !lib.contains("no_std") {
            problems.push(format!("src/{name}/lib.rs: must be no_std"));
        }
        for path in sources(&format!("src/{name}")) {
            if is_test(&path) {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source can be read");
            for (number, line) in code(&text) {
                for (word, reason) in PURE_BANS {
                    if line.contains(word) {
                        problems.push(format!("{}:{number}: {word}: {reason}", path.display()));
                    }
                }
            }
        }
    }
    fail(&problems);
}

#[test]
fn sources_keep_to_the_bans() {
    let mut problems = Vec::new();
    for path in ["src", "bench"].iter().flat_map(|folder| sources(folder)) {
        if is_test(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source can be read");
        for (number, line) in code(&text) {
            for (word, reason) in BANS {
                if line.contains(word) {
                    problems.push(format!("{}:{number}: {word}: {reason}", path.display()));
                }
            }
        }
    }
    fail(&problems);
}

#[test]
fn every_source_says_what_it_is_for_and_keeps_its_size() {
    let mut problems = Vec::new();
    for path in ["src", "bench", "tests", "schema"].iter().flat_map(|folder| sources(folder)) {
        if path.ends_with("schema/generated.rs") || path.ends_with("schema/generated_peer.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source can be read");
        let shown = path.display();
        if !text.starts_with("//!") {
            problems.push(format!("{shown}:1: begins without //! that says what it is for"));
        }
        if text.lines().count() > LINES_MAX {
            problems.push(format!("{shown}: more than {LINES_MAX} lines; split it by nouns"));
        }
        for (index, line) in text.lines().enumerate() {
            if line.chars().count() > 120 && !line.starts_with("//! |") {
                problems.push(format!("{shown}:{}: longer than 120 columns", index + 1));
            }
            // Written apart, so that this line does not find itself.
            if line.contains(concat!("TO", "DO")) && !line.contains(concat!("TO", "DO(")) {
                problems.push(format!("{shown}:{}: a TO-DO needs an owner", index + 1));
            }
        }
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if ["util", "utils", "common", "helper", "helpers", "misc", "types", "manager"]
            .contains(&name)
        {
            problems.push(format!("{shown}: name the noun"));
        }
    }
    fail(&problems);
}

/// A mutant that stands nowhere is no mistake that the simulator could find.
#[test]
fn every_mutant_is_made_somewhere() {
    let mut problems = Vec::new();
    let texts: Vec<String> = PURE
        .iter()
        .flat_map(|name| sources(&format!("src/{name}")))
        .filter(|path| !path.ends_with("base/mutant.rs"))
        .map(|path| fs::read_to_string(path).expect("a source can be read"))
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for mutant in base::Mutant::ALL {
        let made = format!("Mutant::{mutant:?}.is_on()");
        if !texts.iter().any(|text| text.contains(&made)) {
            problems.push(format!("nothing asks for {made}"));
        }
        names.push(mutant.name());
    }
    names.sort_unstable();
    names.dedup();
    if names.len() < base::Mutant::ALL.len() {
        problems.push("two mutants have one name".to_string());
    }
    fail(&problems);
}

#[test]
fn sources_are_formatted() {
    let output = Command::new(env!("CARGO"))
        .args(["fmt", "--all", "--check"])
        .current_dir(root())
        .output()
        .expect("cargo fmt can be run; install it with: rustup component add rustfmt");
    let text = String::from_utf8_lossy(&output.stdout);
    let head: Vec<&str> = text.lines().take(20).collect();
    assert!(output.status.success(), "run 'cargo fmt --all':\n{}", head.join("\n"));
}

#[test]
fn sources_pass_the_lints() {
    let output = Command::new(env!("CARGO"))
        .args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
        .current_dir(root())
        .output()
        .expect("cargo clippy can be run; install it with: rustup component add clippy");
    let text = String::from_utf8_lossy(&output.stderr);
    let head: Vec<&str> = text.lines().take(60).collect();
    assert!(output.status.success(), "clippy found:\n{}", head.join("\n"));
}
