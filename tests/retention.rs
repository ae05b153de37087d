//! History that a server gives up by itself, as a person sets it and sees it.

#![allow(clippy::unwrap_used)]

mod process;

use std::time::Instant;

use client::{Error, Put, Range, Status};
use process::{DataDir, PATIENCE, SMALL, Server, Start};

fn flags<'a>(mode: &'a str, retention: &'a str) -> Vec<&'a str> {
    let own = ["--auto-compaction-mode", mode, "--auto-compaction-retention", retention];
    [SMALL, &own].concat()
}

/// Waits until the server has compacted at least to here.
fn compacted_to(client: &mut client::Client, revision: i64) -> i64 {
    let end = Instant::now() + PATIENCE;
    loop {
        let compacted = client.status().unwrap().compacted_revision;
        if compacted >= revision {
            return compacted;
        }
        assert!(Instant::now() < end, "compacted to {compacted}, {revision} is wanted");
    }
}

#[test]
fn a_server_keeps_the_number_of_revisions_that_it_was_told_to() {
    let dir = DataDir::new("retention-revision");
    let server = Server::start(dir.path(), &flags("revision", "100"));
    let mut client = server.client();
    for number in 0..1_000 {
        let key = format!("key-{number}");
        client.put(&Put { key: key.as_bytes(), value: b"v", ..Put::default() }).unwrap();
    }
    // An eighth more may stay.
    let compacted = compacted_to(&mut client, 1_001 - 112);
    assert!(compacted <= 1_001 - 100, "{compacted}: less than a hundred revisions are kept");
    let at = |revision| Range { key: b"key-1", revision, ..Range::default() };
    match client.range(&at(compacted - 1)) {
        Err(Error::Refused(refused)) => assert_eq!(refused.status, Status::Compacted),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.range(&at(compacted)).unwrap().count, 1);
}

/// What is older than the period goes although nobody writes any more, and a start counts anew.
#[test]
fn a_server_keeps_history_for_the_time_that_it_was_told_to() {
    let dir = DataDir::new("retention-periodic");
    let server = Server::start(dir.path(), &flags("periodic", "1h"));
    for _ in 0..50 {
        server.client().put(&Put { key: b"k", value: b"v", ..Put::default() }).unwrap();
    }
    assert_eq!(server.client().status().unwrap().compacted_revision, 0);
    server.kill();
    let server = Server::start(dir.path(), &flags("periodic", "1s"));
    compacted_to(&mut server.client(), 51);
    assert_eq!(server.client().status().unwrap().compacted_revision, 51);
}

#[test]
fn a_retention_that_makes_no_sense_is_refused_with_what_would() {
    let dir = DataDir::new("retention-refused");
    for (mode, retention, word) in [
        ("periodic", "5 minutes", "72h"),
        ("periodic", "10ms", "at least 1s"),
        ("revision", "5m", "whole number"),
        ("daily", "1", "periodic"),
    ] {
        let Err(ended) = Start::spawn(dir.path(), &flags(mode, retention)).ready() else {
            panic!("{mode} {retention} is taken");
        };
        assert_eq!(ended.status.code(), Some(128), "{}", ended.stderr);
        assert!(ended.stderr.contains(word), "no \"{word}\" in {}", ended.stderr);
    }
}
