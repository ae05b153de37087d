//! Watches, leases, locks, elections and registrations as a person or a script meets them: what the commands
//! print, what they run, and how they end.

#![allow(clippy::unwrap_used)]

mod process;

use std::process::Output;

use process::{BINARY, DataDir, Running, SMALL, Server, Signal};
use serde_json::Value;

/// A server and commands that talk to it.
struct Shell {
    endpoint: String,
}

fn start(name: &str) -> (DataDir, Server, Shell) {
    let dir = DataDir::new(name);
    let server = Server::start(dir.path(), SMALL);
    let endpoint = server.address().to_string();
    (dir, server, Shell { endpoint })
}

impl Shell {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = std::process::Command::new(BINARY);
        command.args(arguments).env("QUORATE_ENDPOINT", &self.endpoint);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// Splits at spaces, succeeds, and returns standard output.
    fn out(&self, line: &str) -> String {
        let output = self.run(&line.split(' ').collect::<Vec<_>>());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{line}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.out(&format!("{line} -w json"))).unwrap()
    }

    /// The exit code and the text of a command that fails.
    fn fails(&self, line: &str) -> (i32, String) {
        let output = self.run(&line.split(' ').collect::<Vec<_>>());
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.starts_with("Error: "), "{line}: {err}");
        (output.status.code().unwrap(), err)
    }

    fn begin(&self, line: &str) -> Running {
        Running::spawn(&self.endpoint, &line.split(' ').collect::<Vec<_>>())
    }

    /// Asks until a read gives this.
    fn until(&self, line: &str, expected: &str) {
        let end = std::time::Instant::now() + process::PATIENCE;
        while self.out(line) != expected {
            assert!(std::time::Instant::now() < end, "{line} never gives {expected:?}");
        }
    }
}

fn lines(running: &mut Running, count: usize) -> Vec<String> {
    (0..count).map(|_| running.line()).collect()
}

fn stops(running: Running, signal: Signal) {
    running.signal(signal);
    let ended = running.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

/// The limit with this name, as JSON tells it.
fn limit(shell: &Shell, name: &str) -> Value {
    let told = shell.json("limits");
    let limits = told[0]["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["name"] == name).unwrap().clone()
}

#[test]
fn limits_are_a_table_of_what_is_in_use() {
    let (_dir, server, shell) = start("limits");
    shell.out("put a one");
    let mut watch = shell.begin("watch a --rev 2");
    assert_eq!(lines(&mut watch, 3), ["PUT", "a", "one"]);
    let watches = limit(&shell, "watches");
    assert_eq!((&watches["used"], &watches["unit"]), (&1.into(), &"count".into()));
    assert_eq!(watches["limit"], 1_000_000);
    // The watch has a connection of its own, beside the one of its command, and the one that asks. Those
    // of earlier commands may still be about to go.
    let end = std::time::Instant::now() + process::PATIENCE;
    while limit(&shell, "connections")["used"] != 3 {
        assert!(std::time::Instant::now() < end, "connections do not go");
    }
    assert_eq!(limit(&shell, "page-cache")["unit"], "bytes");
    assert_eq!(limit(&shell, "clients")["used"], 0);
    shell.out("lease grant 60");
    assert_eq!(limit(&shell, "leases")["used"], 1);
    let table = shell.out("limits");
    let columns = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let mut rows = table.lines().map(columns);
    assert_eq!(rows.next().unwrap(), ["NAME", "IN", "USE", "HIGHEST", "LIMIT", "HITS"]);
    assert!(rows.any(|row| row == ["leases", "1", "1", "2000000", "0"]), "{table}");
    let two = format!("limits --endpoint {0},{0}", server.address());
    assert_eq!(shell.out(&two).matches("page-cache").count(), 2);
    let (code, _) = shell.fails("limits --endpoint 127.0.0.1:1");
    assert_eq!(code, 2);
    stops(watch, Signal::INT);
}

#[test]
fn a_watch_prints_changes_as_etcdctl_does() {
    let (_dir, _server, shell) = start("watch");
    shell.out("put a one");
    let mut watch = shell.begin("watch a --rev 2 --prev-kv");
    assert_eq!(lines(&mut watch, 3), ["PUT", "a", "one"]);
    shell.out("put other x");
    shell.out("put a two");
    assert_eq!(lines(&mut watch, 5), ["PUT", "a", "one", "a", "two"]);
    shell.out("del a");
    assert_eq!(lines(&mut watch, 5), ["DELETE", "a", "two", "a", ""]);
    stops(watch, Signal::INT);
    let mut watch = shell.begin("watch a z --rev 2 --filter delete --keys-only");
    assert_eq!(lines(&mut watch, 9), ["PUT", "a", "", "PUT", "other", "", "PUT", "a", ""]);
    stops(watch, Signal::TERM);
}

#[test]
fn a_watch_in_json_is_one_object_for_each_batch() {
    let (_dir, _server, shell) = start("watch-json");
    shell.out("put foo bar");
    let mut watch = shell.begin("watch --prefix f --rev 2 --progress=100ms -w json");
    let seen: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(seen["header"]["revision"], 2);
    assert_eq!(seen["events"][0]["type"], "PUT");
    assert_eq!(
        (&seen["events"][0]["kv"]["key"], &seen["events"][0]["kv"]["value"]),
        (&"Zm9v".into(), &"YmFy".into())
    );
    let seen: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!((&seen["progress"], &seen["header"]["revision"]), (&true.into(), &2.into()));
    let put = shell.json("put fop x --ttl 300ms");
    assert!(put["lease"].as_i64().unwrap() != 0);
    let mut events = Vec::new();
    while events.len() < 2 {
        let seen: Value = serde_json::from_str(&watch.line()).unwrap();
        events.extend(seen["events"].as_array().cloned().unwrap_or_default());
    }
    assert_eq!((&events[0]["type"], events[0].get("cause")), (&"PUT".into(), None));
    assert_eq!(events[0]["kv"]["lease"], put["lease"]);
    assert_eq!((&events[1]["type"], &events[1]["cause"]), (&"DELETE".into(), &"expired".into()));
    stops(watch, Signal::INT);
}

#[test]
fn a_watch_runs_a_command_for_each_change() {
    let (_dir, _server, shell) = start("watch-command");
    shell.out("put a one");
    let script = "echo $QUORATE_WATCH_REVISION $QUORATE_WATCH_EVENT_TYPE $QUORATE_WATCH_KEY \
                  $QUORATE_WATCH_VALUE $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY \
                  $ETCD_WATCH_VALUE; cat; echo; [ $QUORATE_WATCH_EVENT_TYPE = PUT ]";
    let mut watch =
        Running::spawn(&shell.endpoint, &["watch", "a", "--rev", "2", "--", "sh", "-c", script]);
    assert_eq!(lines(&mut watch, 3), ["PUT", "a", "one"]);
    assert_eq!(lines(&mut watch, 2), ["2 PUT a one 2 \"PUT\" \"a\" \"one\"", "one"]);
    shell.out("del a");
    let ended = watch.ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.ends_with("DELETE\na\n\n3 DELETE a 3 \"DELETE\" \"a\" \"\"\n\n"));
    assert!(ended.stderr.contains("--rev 3.1,"), "{}", ended.stderr);
}

/// A revision of several changes: what comes behind the one that failed is still to be shown.
#[test]
fn who_follows_the_advice_of_a_watch_whose_command_failed_misses_nothing() {
    let (_dir, _server, shell) = start("watch-advice");
    for key in ["a1", "a2", "a3"] {
        shell.out(&format!("put {key} x"));
    }
    shell.out("del a --prefix");
    let output = shell.run(&["watch", "a", "--prefix", "--rev", "5", "--", "sh", "-c", "exit 3"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("go on with --rev 5.1, or with --rev 5.0 to run it again"), "{text}");
    let mut watch = shell.begin("watch a --prefix --rev 5.1");
    assert_eq!(lines(&mut watch, 2), ["DELETE", "a2"]);
    stops(watch, Signal::TERM);
}

#[test]
fn a_signal_ends_a_watch_while_its_command_runs() {
    let (_dir, _server, shell) = start("watch-signal");
    shell.out("put a one");
    let command = ["watch", "a", "--rev", "2", "--", "sh", "-c", "echo begun; exec sleep 600"];
    let mut watch = Running::spawn(&shell.endpoint, &command);
    assert_eq!(lines(&mut watch, 4), ["PUT", "a", "one", "begun"]);
    stops(watch, Signal::INT);
}

#[test]
fn an_interactive_watch_takes_lines() {
    let (_dir, _server, shell) = start("watch-lines");
    shell.out("put a one");
    shell.out("put b two");
    let mut watch = shell.begin("watch -i");
    watch.say("watch a --rev 2");
    assert_eq!(lines(&mut watch, 3), ["PUT", "a", "one"]);
    watch.say("watch --no-such");
    watch.say("cancel 9");
    watch.say("");
    watch.say("watch 'b' --rev 3");
    assert_eq!(lines(&mut watch, 3), ["PUT", "b", "two"]);
    watch.say("progress");
    assert_eq!(lines(&mut watch, 2), ["progress notify: 3", "progress notify: 3"]);
    watch.say("cancel 0");
    watch.say("cancel 1");
    watch.hush();
    let ended = watch.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for part in ["--no-such", "there is no watch 9", "watch 1 has begun", "watch 0 was cancelled"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[test]
fn a_watch_says_what_is_wrong() {
    let (_dir, _server, shell) = start("watch-errors");
    for value in ["a", "b", "c"] {
        shell.out(&format!("put k {value}"));
    }
    shell.out("compact 3");
    let (code, text) = shell.fails("watch k --rev 1");
    assert_eq!(code, 1);
    assert!(text.contains("compacted") && text.contains("--rev"), "{text}");
    // What is compacted to is still there.
    assert!(text.contains("--rev 3 or later"), "{text}");
    let mut watch = shell.begin("watch k --rev 3");
    assert_eq!(lines(&mut watch, 3), ["PUT", "k", "b"]);
    stops(watch, Signal::TERM);
    for line in ["watch -i --prefix", "watch -i --rev 1", "watch -i -- echo"] {
        assert_eq!(shell.fails(line).0, 128, "{line}");
    }
    assert_eq!(shell.fails("watch").0, 128);
    assert_eq!(shell.fails("watch k --filter put,delete").0, 128);
    assert_eq!(shell.fails("watch k --rev -1").0, 128);
    let nobody = Shell { endpoint: "127.0.0.1:1".to_owned() };
    assert_eq!(nobody.fails("watch k").0, 2);
}

#[test]
fn leases_print_what_etcdctl_prints() {
    let (_dir, _server, shell) = start("leases");
    let granted = shell.out("lease grant 60");
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(60s)\n"));
    assert_eq!(
        shell.out("lease grant 60 --id 1f"),
        "lease 000000000000001f granted with TTL(60s)\n"
    );
    let (code, text) = shell.fails("lease grant 60 --id 1f");
    assert!(code == 1 && text.contains("already exists"), "{text}");
    shell.out(&format!("put a x --lease {id}"));
    shell.out(&format!("put b x --lease {id}"));
    let left = shell.out(&format!("lease timetolive {id} --keys"));
    assert!(left.starts_with(&format!("lease {id} granted with TTL(60s), remaining(")), "{left}");
    assert!(left.ends_with("s), attached keys([a b])\n"), "{left}");
    let left = shell.json(&format!("lease timetolive {id} --keys"));
    assert_eq!((&left["granted-ttl"], &left["keys"][1]), (&60.into(), &"Yg==".into()));
    assert_eq!(
        shell.out(&format!("lease keep-alive {id} --once")),
        format!("lease {id} keepalived with TTL(60)\n")
    );
    let mut listed: Vec<String> = shell.out("lease list").lines().map(str::to_owned).collect();
    assert_eq!(listed.remove(0), "found 2 leases");
    let mut expected = vec!["000000000000001f".to_owned(), id.clone()];
    expected.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(shell.out(&format!("lease revoke {id}")), format!("lease {id} revoked\n"));
    assert_eq!(shell.out("get a --from-key"), "");
    assert_eq!(
        shell.out(&format!("lease timetolive {id}")),
        format!("lease {id} already expired\n")
    );
    for line in ["lease revoke 77", "lease keep-alive 77 --once", "put a x --lease 77"] {
        assert_eq!(shell.fails(line).0, 1, "{line}");
    }
    // An id as great as any client may have chosen it.
    let gone = shell.out("lease timetolive ffffffffffed2979");
    assert_eq!(gone, "lease ffffffffffed2979 already expired\n");
    for line in ["lease grant 0", "lease grant x", "lease revoke xyz"] {
        assert_eq!(shell.fails(line).0, 128, "{line}");
    }
    let granted = shell.json("lease grant 500ms");
    assert_eq!((&granted["ttl"], &granted["ttl_ms"]), (&0.into(), &500.into()));
}

#[test]
fn keep_alive_goes_on_until_a_signal_or_the_end_of_the_lease() {
    let (_dir, _server, shell) = start("keep-alive");
    shell.out("lease grant 300ms --id a");
    let line = "lease 000000000000000a keepalived with TTL(300ms)";
    let mut keeping = shell.begin("lease keep-alive a");
    // Longer than it would live.
    assert_eq!(lines(&mut keeping, 8), [line; 8]);
    shell.out("lease revoke a");
    let ended = keeping.ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("expired or revoked"), "{}", ended.stderr);
    shell.out("lease grant 60 --id b");
    let mut keeping = shell.begin("lease keep-alive b");
    keeping.line();
    stops(keeping, Signal::TERM);
}

#[test]
fn a_lock_is_held_by_one_and_handed_on() {
    let (_dir, _server, shell) = start("lock");
    let mut first = shell.begin("lock name --ttl 20");
    let key = first.line();
    assert!(key.starts_with("name/"), "{key}");
    let script = "echo $QUORATE_LOCK_KEY $QUORATE_LOCK_REV $ETCD_LOCK_KEY $ETCD_LOCK_REV; exit 7";
    let mut second = Running::spawn(&shell.endpoint, &["lock", "name", "--", "sh", "-c", script]);
    let third = shell.begin("lock name");
    shell.until("get name/ --prefix --count-only", "3\n");
    // Waiting ends with a signal, too, and leaves nothing behind.
    third.signal(Signal::INT);
    let ended = third.ended();
    assert_eq!(ended.status.code(), Some(5), "{}", ended.stderr);
    shell.until("get name/ --prefix --count-only", "2\n");
    stops(first, Signal::TERM);
    let line = second.line();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words[1]), (words[2], words[3]), "{line}");
    assert_eq!(second.ended().status.code(), Some(7));
    assert_eq!(shell.out("get name/ --prefix"), "");
    assert_eq!(shell.out("lease list"), "found 0 leases\n");
}

#[test]
fn a_lock_that_is_lost_ends_its_command() {
    let (_dir, _server, shell) = start("lock-lost");
    let script = "echo held; trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done";
    let mut lock = Running::spawn(&shell.endpoint, &["lock", "name", "--", "sh", "-c", script]);
    assert_eq!(lock.line(), "held");
    let id = shell.out("lease list").lines().nth(1).unwrap().to_owned();
    shell.out(&format!("lease revoke {id}"));
    assert_eq!(lock.line(), "asked");
    let ended = lock.ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("Error: "), "{}", ended.stderr);
    // The key alone is as much of a loss.
    let mut lock = shell.begin("lock name");
    let key = lock.line();
    shell.out(&format!("del {key}"));
    let ended = lock.ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("was deleted"), "{}", ended.stderr);
}

#[test]
fn an_election_is_led_by_one_and_seen_by_all() {
    let (_dir, _server, shell) = start("elect");
    let mut seen = shell.begin("elect -l name");
    let mut first = shell.begin("elect name one");
    let key = first.line();
    assert_eq!(first.line(), "one");
    assert_eq!(lines(&mut seen, 2), [key.as_str(), "one"]);
    let mut second = shell.begin("elect name two");
    shell.until("get name/ --prefix --count-only", "2\n");
    stops(first, Signal::INT);
    let led = lines(&mut second, 2);
    assert_eq!(led[1], "two");
    assert_eq!(lines(&mut seen, 2), led);
    stops(second, Signal::TERM);
    stops(seen, Signal::INT);
    assert_eq!(shell.out("get name/ --prefix"), "");
}

#[test]
fn a_registration_comes_back_and_goes_with_its_command() {
    let (_dir, _server, shell) = start("register");
    let mut registered = shell.begin("register service/a here --ttl 5");
    assert_eq!(registered.line(), "OK");
    assert_eq!(shell.out("get service/a"), "service/a\nhere\n");
    shell.out("del service/a");
    shell.until("get service/a", "service/a\nhere\n");
    stops(registered, Signal::TERM);
    assert_eq!(shell.out("get service/a"), "");
    let output = shell.run(&["register", "k", "v", "--", BINARY, "get", "k"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "k\nv\n");
    assert_eq!(shell.out("get k"), "");
    let output = shell.run(&["register", "k", "v", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137));
}
