//! Snapshots: saved from a running server, looked at, restored, and what came from a real etcd.

#![allow(clippy::unwrap_used)]

mod process;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::{Alarm, AlarmChange, AlarmKind, Client, Compact, DeleteRange, NodeId, Put, Range};
use process::{DataDir, PATIENCE, SMALL, Server, check_clean, run};
use serde_json::Value;

/// What `etcdctl snapshot save` of etcd 3.7.3 saved: revision 48, compacted at 4, 44 keys, a lease.
const ETCD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bbolt/tests/golden/etcd-3.7.3.snap");

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a command says in JSON; panics unless it does well.
fn json(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["-w", "json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why a command does not do well.
fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn put(client: &mut Client, key: &str, value: &[u8], lease: i64) {
    client.put(&Put { key: key.as_bytes(), value, lease, ..Put::default() }).unwrap();
}

/// Everything at a revision.
fn list(client: &mut Client, revision: i64) -> Vec<String> {
    let range = Range { key: &[0], range_end: &[0], revision, ..Range::default() };
    let answer = client.range(&range).unwrap();
    answer.kvs.iter().map(|kv| format!("{kv:?}")).collect()
}

fn leases(client: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    for lease in client.leases().unwrap().leases {
        let time = client.lease_time_to_live(lease, true).unwrap();
        all.push(format!("{lease} {:?} {:?}", time.granted, time.keys));
    }
    all
}

/// A store with history, leases, large values and a compaction; the revisions that can be read.
fn fill(client: &mut Client) -> (i64, i64) {
    let lease = client.lease_grant(77, Duration::from_secs(3_600)).unwrap().lease;
    for number in 0..1_500_usize {
        let key = format!("key-{:03}", number * 7 % 400);
        if number % 11 == 0 {
            client.delete(&DeleteRange { key: key.as_bytes(), ..DeleteRange::default() }).unwrap();
        } else {
            let size = if number % 100 == 3 { 30_000 } else { number % 90 };
            let hangs = if number % 13 == 0 { lease } else { 0 };
            put(client, &key, &vec![b'v'; size], hangs);
        }
    }
    let newest = client.status().unwrap().revision;
    client.compact(&Compact { revision: newest - 300, physical: true }).unwrap();
    (newest - 300, newest)
}

#[test]
fn what_was_saved_while_others_write_is_restored_with_all_its_history() {
    let folder = DataDir::new("snapshot-round");
    fs::create_dir_all(folder.path()).unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let server = Server::start(&first, SMALL);
    let mut client = server.client();
    let (compacted, newest) = fill(&mut client);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, mut other) = (Arc::clone(&stop), server.client());
    let writer = thread::spawn(move || {
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            count += 1;
            put(&mut other, "busy", format!("{count}").as_bytes(), 0);
        }
    });
    let (file, again) = (folder.path().join("one.snap"), folder.path().join("two.snap"));
    let endpoint = server.address().to_string();
    let saved = json(&["snapshot", "save", text(&file), "--endpoint", &endpoint]);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(!folder.path().join("one.snap.part").exists());
    let revision = saved["revision"].as_i64().unwrap();
    assert!(revision >= newest && revision <= client.status().unwrap().revision);
    assert_eq!(saved["compactedRevision"].as_i64(), Some(compacted));
    let status = json(&["snapshot", "status", text(&file)]);
    assert_eq!(status, saved);
    assert_eq!(
        (status["checksum"].as_str(), status["totalLease"].as_u64()),
        (Some("right"), Some(1))
    );
    let size = fs::metadata(&file).unwrap().len();
    assert_eq!((size % 512, status["totalSize"].as_u64()), (32, Some(size - 32)));

    let told = json(&["snapshot", "restore", text(&file), "--data-dir", text(&second)]);
    assert_eq!(
        (told["revision"].as_i64(), told["keysWithoutTheirLease"].as_u64()),
        (Some(revision), Some(0))
    );
    check_clean(&second);
    let restored = Server::start(&second, SMALL);
    let mut twin = restored.client();
    assert_ne!(restored.cluster(), server.cluster(), "it is another cluster");
    assert_eq!(twin.status().unwrap().revision, revision);
    assert_eq!(twin.status().unwrap().compacted_revision, compacted);
    for revision in [compacted, compacted + 1, newest - 100, newest, revision] {
        assert_eq!(list(&mut twin, revision), list(&mut client, revision), "at {revision}");
    }
    assert_eq!(leases(&mut twin), leases(&mut client));
    // What hangs on the lease goes with it, and the next write has the next revision.
    put(&mut twin, "next", b"", 0);
    assert_eq!(twin.status().unwrap().revision, revision + 1);
    twin.lease_revoke(77).unwrap();
    assert!(leases(&mut twin).is_empty());
    // And it can be saved like any other, with its alarm.
    let kind = AlarmKind::NoSpace;
    let change = AlarmChange { disarm: false, kind, member: NodeId::new(300) };
    assert_eq!(twin.alarm(&change).unwrap(), [Alarm { kind, member: NodeId::new(300) }]);
    let endpoint = restored.address().to_string();
    let saved = json(&["snapshot", "save", text(&again), "--endpoint", &endpoint]);
    assert_eq!(saved["revision"].as_i64(), Some(twin.status().unwrap().revision));
    restored.kill();
    check_clean(&second);
    // What etcd reads there, and what is up again when it is restored.
    assert!(fs::read(&again).unwrap().windows(5).any(|bytes| bytes == [0x08, 0xac, 2, 0x10, 1]));
    let third = folder.path().join("third");
    let told = json(&["snapshot", "restore", text(&again), "--data-dir", text(&third)]);
    assert_eq!(told["totalAlarm"].as_u64(), Some(1), "{told}");
    assert!(!told["left"].to_string().contains("alarms"), "{told}");
    check_clean(&third);
    let third = Server::start(&third, SMALL);
    let endpoint = third.address().to_string();
    let put = ["put", "key", "value", "--endpoint", endpoint.as_str()];
    assert!(!run(&put).status.success(), "the alarm refuses it");
    let disarmed = run(&["alarm", "disarm", "--endpoint", &endpoint]);
    assert!(String::from_utf8_lossy(&disarmed.stdout).contains("NOSPACE"), "{disarmed:?}");
    assert!(run(&put).status.success());
}

#[test]
fn a_snapshot_of_etcd_is_restored_as_three_members_of_one_cluster() {
    let folder = DataDir::new("snapshot-etcd");
    fs::create_dir_all(folder.path()).unwrap();
    let status = json(&["snapshot", "status", ETCD]);
    // As `etcdutl snapshot status` says it.
    assert_eq!(status["hash"].as_u64(), Some(719_949_623));
    assert_eq!((status["revision"].as_u64(), status["totalKey"].as_u64()), (Some(48), Some(44)));
    let ports: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |port: &TcpListener| port.local_addr().unwrap().to_string();
    let names = ["a", "b", "c"];
    let founders: Vec<String> =
        names.iter().zip(&ports).map(|(name, port)| format!("{name}={}", address(port))).collect();
    let founders = founders.join(",");
    let mut clusters = Vec::new();
    for name in names {
        let dir = folder.path().join(name);
        let line = ["snapshot", "restore", ETCD, "--data-dir", text(&dir), "--name", name];
        let told = json(
            &[&line[..], &["--initial-cluster", &founders, "--wal-segment-size", "8MiB"]].concat(),
        );
        assert_eq!(told["left"].as_array().unwrap().len(), 1, "a member of etcd's");
        clusters.push(told["cluster"].as_str().unwrap().to_owned());
    }
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]), "{clusters:?}");
    drop(ports);
    let starts: Vec<process::Start> = names
        .iter()
        .map(|name| {
            process::Start::spawn(&folder.path().join(name), &[SMALL, &["--name", name]].concat())
        })
        .collect();
    let servers: Vec<Server> = starts.into_iter().map(|start| start.ready().unwrap()).collect();
    let mut clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let first = list(&mut clients[0], 48);
    assert_eq!(first.len(), 44);
    let lease = leases(&mut clients[0]);
    assert!(lease.len() == 1 && lease[0].contains("3600"), "{lease:?}");
    for client in &mut clients {
        assert_eq!(list(client, 48), first);
        // The present of revision 5, and that a was deleted at 8.
        assert_eq!(list(client, 5).len(), 1);
        assert_eq!(leases(client), lease);
    }
    put(&mut clients[0], "after", b"1", 0);
    for client in &mut clients {
        assert_eq!(list(client, 0).len(), 45);
    }
}

#[test]
fn a_member_that_was_not_restored_is_none_of_the_cluster() {
    let folder = DataDir::new("snapshot-stranger");
    fs::create_dir_all(folder.path()).unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let restore = |dir: &Path, more: &[&str]| {
        json(&[&["snapshot", "restore", ETCD, "--data-dir", text(dir)], more].concat())["cluster"]
            .clone()
    };
    let cluster = restore(&one, &[]);
    assert_eq!(restore(&two, &[]), cluster);
    for more in [
        &["--initial-cluster-token", "t"][..],
        &["--bump-revision", "9", "--mark-compacted"],
        &["--name", "b"],
    ] {
        fs::remove_dir_all(&two).unwrap();
        assert_ne!(restore(&two, more), cluster, "{more:?}");
    }
}

#[test]
fn a_restored_store_can_go_on_from_a_later_revision() {
    let folder = DataDir::new("snapshot-bump");
    fs::create_dir_all(folder.path()).unwrap();
    let (dir, file) = (folder.path().join("data"), folder.path().join("again.snap"));
    let bump = ["--bump-revision", "1000", "--mark-compacted"];
    let told =
        json(&[&["snapshot", "restore", ETCD, "--data-dir", text(&dir)][..], &bump].concat());
    assert_eq!(told["revision"].as_u64(), Some(1_048));
    check_clean(&dir);
    let server = Server::start(&dir, SMALL);
    let mut client = server.client();
    let status = client.status().unwrap();
    assert_eq!((status.revision, status.compacted_revision), (1_048, 1_048));
    assert_eq!(list(&mut client, 1_048).len(), 44);
    // Nothing has happened at that revision; whoever restores it all the same goes on from there.
    let endpoint = server.address().to_string();
    let saved = json(&["snapshot", "save", text(&file), "--endpoint", &endpoint]);
    assert_eq!((saved["revision"].as_u64(), saved["totalKey"].as_u64()), (Some(1_048), Some(44)));
    put(&mut client, "next", b"", 0);
    assert_eq!(client.status().unwrap().revision, 1_049);
}

#[test]
fn the_newest_values_of_a_snapshot_are_put_into_a_store_that_runs() {
    let dir = DataDir::new("snapshot-import");
    let server = Server::start(dir.path(), SMALL);
    let mut client = server.client();
    put(&mut client, "k1", b"was here", 0);
    let endpoint = server.address().to_string();
    let import = ["import", "--etcd-snapshot", ETCD, "--endpoint", &endpoint];
    let output = run(&import);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(128));
    assert!(stderr.contains("snapshot restore"), "{stderr}");
    for round in 0..2 {
        let output = run(&[&import[..], &["--newest"]].concat());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(stdout.starts_with("imported 44 keys"), "{stdout}");
        assert!(stdout.contains("1 leases of revision 48"), "{stdout}");
        assert!(
            stdout.contains("left: 4 older versions and deletes\nleft: 1 members\n"),
            "{stdout}"
        );
        // A lease that is there already is another's.
        assert_eq!(client.leases().unwrap().leases.len(), round + 1);
    }
    assert_eq!(list(&mut client, 0).len(), 44);
    let one = |client: &mut Client, key: &[u8]| client.get(key).unwrap().unwrap();
    assert_eq!(one(&mut client, b"k1").value, b"v1");
    assert_eq!(one(&mut client, b"big").value.len(), 9_000);
    let lease = one(&mut client, b"c").lease;
    assert_eq!(client.lease_time_to_live(lease, true).unwrap().keys, [b"c"]);
    let output = run(&[&import[..], &["--newest", "--prefix", "copy/"]].concat());
    assert!(output.status.success());
    assert_eq!(one(&mut client, b"copy/k40").value, b"v40");
}

#[test]
fn what_is_damaged_is_refused_and_leaves_nothing_behind() {
    let folder = DataDir::new("snapshot-damage");
    fs::create_dir_all(folder.path()).unwrap();
    let (dir, file) = (folder.path().join("data"), folder.path().join("bad.snap"));
    let whole = fs::read(ETCD).unwrap();
    let restore = ["snapshot", "restore", text(&file), "--data-dir", text(&dir)];
    let mut bytes = whole.clone();
    bytes[30_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(refusal(&restore).contains("SHA-256"), "a changed byte");
    assert!(refusal(&["snapshot", "status", text(&file)]).contains("SHA-256"));
    fs::write(&file, &whole[..40_000]).unwrap();
    assert!(refusal(&restore).contains("--skip-hash-check"), "cut off");
    assert!(refusal(&[&restore[..], &["--skip-hash-check"]].concat()).contains("cut off"));
    fs::write(&file, "no snapshot").unwrap();
    assert!(refusal(&[&restore[..], &["--skip-hash-check"]].concat()).contains("no bbolt file"));
    assert!(!dir.exists(), "nothing was made");
    // Any byte may be another: refused, or read as what it says, and in the end.
    for place in (0..whole.len() - 32).step_by(997) {
        let mut bytes = whole[..whole.len() - 32].to_vec();
        bytes[place] ^= 0xff;
        fs::write(&file, &bytes).unwrap();
        let code = run(&["snapshot", "status", text(&file)]).status.code();
        assert!(matches!(code, Some(0 | 1)), "byte {place}: {code:?}");
    }
    // The file of a data directory has no checksum.
    fs::write(&file, &whole[..whole.len() - 32]).unwrap();
    json(&[&restore[..], &["--skip-hash-check"]].concat());
    assert!(refusal(&[&restore[..], &["--skip-hash-check"]].concat()).contains("not empty"));
    check_clean(&dir);
}

/// A client that asks and then reads nothing holds up neither others nor the end of the server.
#[test]
fn who_does_not_take_his_snapshot_holds_up_nobody() {
    let dir = DataDir::new("snapshot-slow");
    let server = Server::start(dir.path(), SMALL);
    let mut client = server.client();
    for number in 0..40 {
        put(&mut client, &format!("large-{number}"), &vec![7; 500_000], 0);
    }
    let mut slow = server.client();
    let begun = Instant::now();
    let mut chunks = 0;
    let result = slow.snapshot(&mut |_| {
        chunks += 1;
        // Longer than anything that the other client does meanwhile.
        if chunks == 2 {
            for number in 0..200 {
                put(&mut client, &format!("small-{number}"), b"", 0);
            }
        }
        chunks < 3
    });
    assert!(result.is_err(), "it was told to stop");
    assert!(begun.elapsed() < PATIENCE);
    let range =
        Range { key: b"small-", range_end: b"small.", count_only: true, ..Range::default() };
    assert_eq!(client.range(&range).unwrap().count, 200);
}
