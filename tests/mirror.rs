//! `quorate mirror` between two servers: what is copied, what is followed, and that neither a kill nor a
//! compaction makes the destination differ.

#![allow(clippy::unwrap_used)]

mod process;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, Compact, DeleteRange, Op, Put, Range, Txn};
use process::{DataDir, Ended, PATIENCE, Running, SMALL, Server, Signal};

/// A source and a destination.
struct Pair {
    servers: Vec<Server>,
    folders: [DataDir; 2],
}

/// The address of a server that is for clients of etcd.
fn etcd_address(server: &Server) -> SocketAddr {
    let field = server.ready_line().split(' ').find_map(|field| field.strip_prefix("etcd="));
    field.expect("the ready line names it").parse().unwrap()
}

/// Key, value and version.
type Pairs = Vec<(String, String, i64)>;

fn all(client: &mut Client, prefix: &str) -> Pairs {
    let end = client::prefix_end(prefix.as_bytes());
    let first: &[u8] = if prefix.is_empty() { &[0] } else { prefix.as_bytes() };
    let mut found = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let range = Range { key: first, range_end: &end, ..Range::default() };
    let summary = client
        .range_each(&range, |kv| {
            if !kv.key.starts_with(b"quorate/mirror/") {
                found.push((text(kv.key), text(kv.value), kv.version));
            }
        })
        .unwrap();
    assert!(!summary.more);
    found
}

/// Without versions.
fn contents(client: &mut Client, prefix: &str) -> Vec<(String, String)> {
    all(client, prefix).into_iter().map(|(key, value, _)| (key, value)).collect()
}

fn put(client: &mut Client, key: &str, value: &str) {
    client.put(&Put::new(key.as_bytes(), value.as_bytes())).unwrap();
}

fn delete(client: &mut Client, key: &str) {
    client.delete(&DeleteRange { key: key.as_bytes(), ..DeleteRange::default() }).unwrap();
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Pair {
    fn new(name: &str) -> Self {
        let folders = [DataDir::new(&format!("{name}-from")), DataDir::new(&format!("{name}-to"))];
        let flags = [SMALL, &["--listen-client", "127.0.0.1:0"]].concat();
        let servers = folders.iter().map(|folder| Server::start(folder.path(), &flags)).collect();
        Self { servers, folders }
    }

    fn clients(&self) -> (Client, Client) {
        (self.servers[0].client(), self.servers[1].client())
    }

    fn mirror(&self, flags: &[&str]) -> Running {
        let from = format!("http://{}", etcd_address(&self.servers[0]));
        let to = format!("http://{}", etcd_address(&self.servers[1]));
        let arguments = [&["mirror", "--from", &from, "--to", &to], flags].concat();
        Running::spawn("127.0.0.1:1", &arguments)
    }

    fn once(&self, flags: &[&str]) -> Ended {
        self.mirror(&[&["--once"], flags].concat()).ended()
    }
}

fn assert_done(ended: &Ended) {
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn a_copy_makes_the_destination_equal_and_changes_follow() {
    let pair = Pair::new("mirror-copy");
    let (mut source, mut destination) = pair.clients();
    for number in 0..700 {
        put(&mut source, &format!("k/{number:04}"), &format!("v{number}"));
    }
    let lease = source.lease_grant(0, PATIENCE).unwrap();
    source.put(&Put { lease: lease.lease, ..Put::new(b"k/leased", b"x") }).unwrap();
    put(&mut source, "quorate/mirror/other", "no business of this mirror");
    for (key, value) in [("k/0003", "v3"), ("k/0004", "other"), ("k/00041", "more"), ("z", "z")] {
        put(&mut destination, key, value);
    }
    put(&mut destination, "quorate/mirror/x", "of another mirror");

    let refused = pair.once(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("k/0003 for one"), "{}", refused.stderr);
    assert_eq!(all(&mut destination, "").len(), 4, "a refusal changes nothing");

    let mut mirror = pair.mirror(&["--overwrite"]);
    let copied = mirror.line();
    assert!(
        copied.contains(": 701 keys, 700 written, 2 deleted, 1 keys without the lease"),
        "{copied}"
    );
    assert_eq!(contents(&mut source, "k/"), contents(&mut destination, ""));
    assert_eq!(all(&mut destination, "k/0003")[0].2, 1, "what is equal is left alone");
    let mark = destination.get(b"quorate/mirror/x").unwrap().expect("marks of others stay");
    assert_eq!(mark.value, b"of another mirror");

    put(&mut source, "k/0003", "new");
    delete(&mut source, "k/0005");
    put(&mut source, "other", "");
    put(&mut source, "quorate/mirror/other", "still");
    put(&mut source, "last", "1");
    wait_for("changes follow", || !all(&mut destination, "last").is_empty());
    let expected: Vec<_> = contents(&mut source, "");
    assert_eq!(expected, contents(&mut destination, ""));
    assert_eq!(destination.get(b"quorate/mirror/other").unwrap(), None);

    mirror.signal(Signal::TERM);
    let ended = mirror.ended();
    assert_done(&ended);
    assert!(ended.stdout.contains("the destination is at revision "), "{}", ended.stdout);

    // Started again it goes on: nothing is compared, what is missing is followed.
    put(&mut source, "while/away", "1");
    let ended = pair.once(&[]);
    assert_done(&ended);
    assert!(!ended.stdout.contains("copied"), "{}", ended.stdout);
    assert_eq!(contents(&mut source, ""), contents(&mut destination, ""));
}

/// The progress is written with the changes, so a mirror that dies at any moment neither leaves a change out nor makes
/// one twice.
#[test]
fn killed_mirrors_make_each_change_exactly_once() {
    let pair = Pair::new("mirror-kill");
    let (mut source, mut destination) = pair.clients();
    put(&mut source, "c/first", "");
    assert_done(&pair.once(&[]));
    let keys = 40;
    let writer = std::thread::spawn({
        let mut client = pair.servers[0].client();
        move || {
            for round in 0..60 {
                for number in 0..keys {
                    put(&mut client, &format!("c/{number}"), &round.to_string());
                }
            }
        }
    });
    let mut kills = 0;
    while !writer.is_finished() || kills < 5 {
        let mut mirror = pair.mirror(&["--max-txn-ops", "16"]);
        let line = mirror.line();
        assert!(line.starts_with("following"), "{line}");
        let mark = |client: &mut Client| client.get(b"quorate/mirror/").unwrap().unwrap().version;
        let before = mark(&mut destination);
        let until = Instant::now() + Duration::from_secs(2);
        while mark(&mut destination) < before + 3 && Instant::now() < until {}
        mirror.signal(Signal::KILL);
        assert!(mirror.ended().was_killed());
        kills += 1;
    }
    writer.join().unwrap();
    assert_done(&pair.once(&[]));
    let there = all(&mut destination, "");
    assert_eq!(all(&mut source, ""), there, "values and how often each was written");
    assert_eq!(there.len(), keys + 1);
}

#[test]
fn a_large_transaction_is_cut_and_still_made_once() {
    let pair = Pair::new("mirror-cut");
    let (mut source, mut destination) = pair.clients();
    assert_done(&pair.once(&[]));
    for round in 0..3 {
        let keys: Vec<String> = (0..100).map(|number| format!("t/{number:03}")).collect();
        let value = round.to_string();
        let operations =
            keys.iter().map(|key| Op::Put(Put::new(key.as_bytes(), value.as_bytes()))).collect();
        source.txn(&Txn { success: operations, ..Txn::default() }).unwrap();
    }
    delete(&mut source, "t/000");
    assert_done(&pair.once(&["--max-txn-ops", "7"]));
    assert_eq!(all(&mut source, ""), all(&mut destination, ""));
    assert_eq!(all(&mut destination, "t/050")[0].2, 3);
}

#[test]
fn what_was_compacted_meanwhile_is_copied_again() {
    let pair = Pair::new("mirror-compacted");
    let (mut source, mut destination) = pair.clients();
    for key in ["a", "b", "c"] {
        put(&mut source, key, "1");
    }
    assert_done(&pair.once(&[]));
    delete(&mut source, "a");
    for value in ["2", "3", "4"] {
        put(&mut source, "b", value);
    }
    let revision = source.status().unwrap().revision;
    source.compact(&Compact { revision, physical: false }).unwrap();
    let ended = pair.once(&[]);
    assert_done(&ended);
    assert!(ended.stderr.contains("all keys are compared again"), "{}", ended.stderr);
    assert!(ended.stdout.contains(": 2 keys, 1 written, 1 deleted"), "{}", ended.stdout);
    assert_eq!(contents(&mut source, ""), contents(&mut destination, ""));
}

#[test]
fn prefixes_are_mapped_and_a_revision_can_be_given() {
    let pair = Pair::new("mirror-prefix");
    let (mut source, mut destination) = pair.clients();
    for key in ["app/a", "app/b", "apq", "other"] {
        put(&mut source, key, key);
    }
    put(&mut destination, "other", "here");
    assert_done(&pair.once(&["--prefix", "app/", "--to-prefix", "copy/"]));
    let found = |client: &mut Client, prefix: &str| -> Vec<String> {
        all(client, prefix).into_iter().map(|(key, _, _)| key).collect()
    };
    assert_eq!(found(&mut destination, ""), ["copy/a", "copy/b", "other"]);

    // Without a prefix there the rest would have to be the mirror's alone.
    let refused = pair.once(&["--prefix", "app/", "--no-dest-prefix"]);
    assert_eq!(refused.status.code(), Some(1));
    // And another prefix of the source does not fit to what the destination has of the first.
    let refused = pair.once(&["--prefix", "o", "--to-prefix", "copy/"]);
    assert!(refused.stderr.contains("a mirror of the prefix \"app/\""), "{}", refused.stderr);

    // From a revision on, nothing is copied or deleted.
    let revision = source.status().unwrap().revision;
    put(&mut source, "app/c", "c");
    let next = (revision + 1).to_string();
    let flags = ["--prefix", "app/", "--dest-prefix", "o", "--rev", &next];
    assert_done(&pair.once(&flags));
    assert_eq!(found(&mut destination, "o"), ["oc", "other"]);
    let refused = pair.once(&flags);
    assert!(refused.stderr.contains("leave --rev out"), "{}", refused.stderr);
}

#[test]
fn it_ends_when_it_has_caught_up_although_nothing_is_told() {
    let pair = Pair::new("mirror-once");
    let (mut source, mut destination) = pair.clients();
    put(&mut source, "p/a", "1");
    assert_done(&pair.once(&["--prefix", "p/"]));
    // The source goes on elsewhere: its revision is one that the watch never tells.
    for value in ["1", "2", "3"] {
        put(&mut source, "other", value);
    }
    let ended = pair.once(&["--prefix", "p/"]);
    assert_done(&ended);
    assert!(ended.stdout.contains("mirrored 0 changes"), "{}", ended.stdout);
    // A delete alone is noticed.
    delete(&mut source, "p/a");
    put(&mut source, "other", "4");
    assert_done(&pair.once(&["--prefix", "p/"]));
    assert_eq!(all(&mut destination, ""), []);
}

#[test]
fn a_server_that_comes_back_is_gone_on_with() {
    let mut pair = Pair::new("mirror-back");
    let (mut source, mut destination) = pair.clients();
    put(&mut source, "a", "1");
    let mut mirror = pair.mirror(&[]);
    assert!(mirror.line().starts_with("copied"));
    assert!(mirror.line().starts_with("following"));
    for index in [0, 1] {
        let server = pair.servers.remove(index);
        let (native, etcd) = (server.address().to_string(), etcd_address(&server).to_string());
        assert!(server.kill().was_killed());
        if index == 1 {
            put(&mut source, "b", "while it is away");
        }
        let flags = [SMALL, &["--listen-client", &etcd]].concat();
        let again = Server::start_at(&native, pair.folders[index].path(), &flags);
        pair.servers.insert(index, again);
        (source, destination) = pair.clients();
        let key = format!("after/{index}");
        put(&mut source, &key, "1");
        wait_for("it goes on", || !all(&mut destination, &key).is_empty());
    }
    assert_eq!(all(&mut source, ""), all(&mut destination, ""));
    let said = mirror.stderr();
    assert_eq!(said.matches("the source: ").count(), 2, "lost and found, once each: {said}");
    mirror.signal(Signal::INT);
    assert_done(&mirror.ended());
}

#[test]
fn what_cannot_be_mirrored_is_refused_with_a_reason() {
    let pair = Pair::new("mirror-refused");
    let address = etcd_address(&pair.servers[0]).to_string();
    for (flags, code, reason) in [
        (vec!["--to", &address], 1, "onto themselves"),
        (vec!["--to", "127.0.0.1:1"], 2, "the destination: 127.0.0.1:1"),
        (vec!["--to", &address, "--to-prefix", "quorate/mirror/x"], 128, "say how far mirrors are"),
        (vec!["--to", "https://h:1"], 128, "TLS"),
    ] {
        let arguments = [vec!["mirror", "--once", "--from", &address], flags].concat();
        let ended = Running::spawn("127.0.0.1:1", &arguments).ended();
        assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
    // Within one store, from one prefix to another, it goes.
    let mut client = pair.servers[0].client();
    put(&mut client, "x/a", "1");
    let flags = ["mirror", "--once", "--from", &address, "--to", &address];
    let ended =
        Running::spawn(&address, &[&flags[..], &["--prefix", "x/", "--to-prefix", "y/"]].concat());
    assert_done(&ended.ended());
    assert_eq!(all(&mut client, "y/").len(), 1);
}
