//! A cluster of several servers on this machine as a person meets it: `local-cluster` and what it prints,
//! the commands about members, several endpoints, and the end of all processes with the one that started
//! them.

#![allow(clippy::unwrap_used)]

mod http;
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use client::recipes::Lock;
use client::{
    Client, Compact, DeleteRange, Op, Options, OwnedChange, Put, Txn, WatchEvent, WatchOptions,
};
use http::Http;
use process::{BINARY, DataDir, PATIENCE, Running, SMALL, Signal};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

/// A `local-cluster` that is up. Killed when dropped, and its members with it.
struct Cluster {
    child: Child,
    lines: Receiver<String>,
    stderr: JoinHandle<String>,
    endpoints: Vec<String>,
    /// Process ids of the members, in the order of their names.
    members: Vec<u32>,
}

impl Cluster {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["local-cluster", "--data-dir"]).arg(dir).args(SMALL).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            drop(stderr.read_to_string(&mut text));
            text
        });
        let (endpoints, members) = (Vec::new(), Vec::new());
        let mut cluster = Self { child, lines, stderr, endpoints, members };
        let mut ready = Vec::new();
        cluster.endpoints = loop {
            let line = cluster.line();
            match line.strip_prefix("cluster endpoints=") {
                Some(endpoints) => break endpoints.split(',').map(str::to_owned).collect(),
                None => ready.push(line),
            }
        };
        ready.sort();
        for (number, line) in ready.iter().enumerate() {
            assert!(line.starts_with(&format!("n{}: ready native=", number + 1)), "{ready:?}");
            assert!(line.contains(&cluster.endpoints[number]), "{ready:?}");
            cluster.members.push(pid_in(line));
        }
        assert_eq!(cluster.members.len(), cluster.endpoints.len());
        cluster
    }

    /// The next line of standard output.
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the cluster goes on")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and waits for the end; returns it and standard error.
    fn stop(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        // Standard output ends with the process.
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        let status = self.child.wait().unwrap();
        let stderr = std::mem::replace(&mut self.stderr, thread::spawn(String::new));
        (status, stderr.join().unwrap())
    }

    /// Runs a command with all endpoints.
    fn run(&self, line: &str) -> Output {
        Command::new(BINARY)
            .args(line.split(' '))
            .env("QUORATE_ENDPOINT", self.endpoints.join(","))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command that succeeds without a word on standard error.
    fn out(&self, line: &str) -> String {
        let output = self.run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{line}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.out(&format!("{line} -w json"))).unwrap()
    }

    /// Asks again until the answer is as wanted: what members tell each other takes a moment.
    fn until(&self, line: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let seen = self.json(line);
            if is_wanted(&seen) {
                return seen;
            }
            assert!(begin.elapsed() < PATIENCE, "{line}: {seen}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn pid_in(line: &str) -> u32 {
    let pid = line.split(' ').find_map(|field| field.strip_prefix("pid="));
    pid.unwrap_or_else(|| panic!("no process id in: {line}")).parse().unwrap()
}

fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_cluster_starts_answers_on_every_endpoint_and_is_the_same_after_a_restart() {
    let dir = DataDir::new("cluster");
    let cluster = Cluster::start(dir.path(), &["--nodes", "3"]);
    let endpoints = cluster.endpoints.clone();
    assert_eq!(endpoints.len(), 3);
    for (number, endpoint) in endpoints.iter().enumerate() {
        let put = format!("put k{number} v --endpoint {endpoint}");
        assert_eq!(cluster.out(&put), "OK\n", "a write is taken by any member");
        let get = format!("get k --prefix --count-only --endpoint {endpoint}");
        assert_eq!(cluster.out(&get), format!("{}\n", number + 1));
    }
    let status = cluster.json("status");
    let status = status.as_array().unwrap();
    for (number, member) in status.iter().enumerate() {
        assert_eq!(member["endpoint"], endpoints[number]);
        assert_eq!(member["name"], format!("n{}", number + 1));
        assert_eq!(member["errors"], Value::Array(Vec::new()));
        assert!(member["lag"].is_u64() && member["db_size"].is_u64(), "{member}");
    }
    assert_eq!(status.iter().filter(|member| member["role"] == "leader").count(), 1);
    let table = cluster.out("status");
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[..4], ["ENDPOINT", "NAME", "ID", "ROLE"]);
    assert_eq!(table.lines().count(), 4);

    let (status, stderr) = cluster.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr}");
    for name in ["n1", "n2", "n3"] {
        process::check_clean(&dir.path().join(name));
    }
    let cluster = Cluster::start(dir.path(), &[]);
    assert_eq!(cluster.endpoints, endpoints);
    assert_eq!(cluster.out("get k --prefix --count-only"), "3\n");
    let (status, stderr) = cluster.stop(Signal::INT);
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Asks a member for a watch, as a client that wants none without a leader; the status of HTTP and the rest of it.
fn watch(endpoint: &str) -> std::io::Result<(u16, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(endpoint)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = r#"{"create_request": {"key": "YQ=="}}"#;
    let size = body.len();
    let head = "POST /v3/watch HTTP/1.1\r\nhost: x\r\nhasleader: true\r\ncontent-length";
    stream.write_all(format!("{head}: {size}\r\n\r\n{body}").as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no status: {line:?}"))
    })?;
    Ok((status, stream))
}

fn status_of_watch(endpoint: &str) -> std::io::Result<u16> {
    watch(endpoint).map(|(status, _)| status)
}

/// Members pass writes on to the leader, and while that one stopped they handed its refusals to their own clients.
#[test]
fn a_leader_that_stops_fails_no_write_of_other_members() {
    no_write_fails_when_the_leader_gets("cluster-leader-stops", Signal::TERM);
}

/// What a leader has had is settled by the first entry of the next one: nobody is told that the outcome is unknown.
#[test]
fn a_leader_that_dies_fails_no_write_of_other_members() {
    no_write_fails_when_the_leader_gets("cluster-leader-dies", Signal::KILL);
}

fn no_write_fails_when_the_leader_gets(name: &str, signal: Signal) {
    let dir = DataDir::new(name);
    let cluster = Cluster::start(dir.path(), &[]);
    let status = cluster.until("status", |status| {
        status.as_array().unwrap().iter().any(|member| member["role"] == "leader")
    });
    let is_leader = |member: &Value| member["role"] == "leader";
    let leader = status.as_array().unwrap().iter().position(is_leader).unwrap();
    let end = Instant::now() + Duration::from_millis(1_500);
    thread::scope(|scope| {
        let others = (0..3).filter(|number| *number != leader);
        for (number, endpoint) in
            others.flat_map(|other| [other; 8]).map(|other| &cluster.endpoints[other]).enumerate()
        {
            scope.spawn(move || {
                let address = endpoint.parse().unwrap();
                let mut client = process::connect(address).unwrap();
                let key = format!("k{number}");
                while Instant::now() < end {
                    client.put(&Put::new(key.as_bytes(), b"v")).unwrap();
                }
            });
        }
        thread::sleep(Duration::from_millis(200));
        send(cluster.members[leader], signal);
    });
    let line = cluster.line();
    assert!(line.contains(": ready "), "{line}");
    let (status, stderr) = cluster.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// One that went on taking in entries of the leader, as long as there were any, would never have come to rest.
#[test]
fn a_follower_that_stops_under_load_is_gone_soon() {
    let dir = DataDir::new("cluster-follower-stops");
    let cluster = Cluster::start(dir.path(), &[]);
    let status = cluster.until("status", |status| {
        status.as_array().unwrap().iter().any(|member| member["role"] == "leader")
    });
    let is_follower = |member: &Value| member["role"] == "follower";
    let follower = status.as_array().unwrap().iter().position(is_follower).unwrap();
    let is_over = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        for (number, endpoint) in cluster.endpoints.iter().flat_map(|one| [one; 8]).enumerate() {
            let (is_over, own) = (&is_over, number / 8 == follower);
            scope.spawn(move || {
                let mut client = process::connect(endpoint.parse().unwrap()).unwrap();
                let key = format!("k{number}");
                while !is_over.load(Ordering::Relaxed) {
                    match client.put(&Put::new(key.as_bytes(), b"v")) {
                        Ok(_) => {}
                        // The follower's own clients learn that it stops.
                        Err(error) => return assert!(own, "{error}"),
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        let (begin, pid) = (Instant::now(), cluster.members[follower]);
        send(pid, Signal::TERM);
        while Path::new(&format!("/proc/{pid}")).exists() && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
        let took = begin.elapsed();
        is_over.store(true, Ordering::Relaxed);
        took
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (status, stderr) = cluster.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// kube-apiserver on three members, whose leader was killed: its watches came over to the other two at once, 306 of
/// them were refused within a tenth of a second for want of a leader, and each of its caches began anew.
#[test]
fn a_stream_that_wants_a_leader_is_not_refused_while_one_is_elected() {
    let dir = DataDir::new("cluster-wants-leader");
    let cluster = Cluster::start(dir.path(), &[]);
    let status = cluster.until("status", |status| {
        status.as_array().unwrap().iter().any(|member| member["role"] == "leader")
    });
    let members = status.as_array().unwrap();
    let leader = members.iter().position(|member| member["role"] == "leader").unwrap();
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    kill(cluster.members[leader]);
    let end = Instant::now() + Duration::from_millis(600);
    thread::scope(|scope| {
        for other in &others {
            let endpoint = &cluster.endpoints[*other];
            scope.spawn(move || {
                while Instant::now() < end {
                    assert_eq!(status_of_watch(endpoint).unwrap(), 200);
                }
            });
        }
    });
    let line = cluster.line();
    assert!(line.contains(": ready "), "{line}");

    // Without most members there is no leader, and that is said.
    let alone = others[0];
    let (_, mut watching) = watch(&cluster.endpoints[alone]).unwrap();
    let paused = [pid_in(&line), cluster.members[others[1]]];
    paused.iter().for_each(|pid| send(*pid, Signal::STOP));
    let begin = Instant::now();
    while status_of_watch(&cluster.endpoints[alone]).unwrap() != 503 {
        assert!(begin.elapsed() < PATIENCE, "a member alone does not say that nobody leads");
    }
    // What has begun before ends after three election time-outs, and not before.
    let mut rest = String::new();
    while !rest.contains("etcdserver: no leader") {
        assert_ne!(watching.read_line(&mut rest).unwrap(), 0, "{rest}");
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
    paused.iter().for_each(|pid| send(*pid, Signal::CONT));
    let (status, stderr) = cluster.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_member_that_dies_is_named_missed_and_started_again() {
    let dir = DataDir::new("cluster-death");
    let cluster = Cluster::start(dir.path(), &[]);
    cluster.out("put k v");
    // The first endpoint is the one that goes: requests find the next.
    kill(cluster.members[0]);
    assert_eq!(cluster.out("get k"), "k\nv\n");
    cluster.out("put k w");
    let line = cluster.line();
    assert!(line.starts_with("n1: ready ") && line.contains(&cluster.endpoints[0]), "{line}");
    assert_ne!(pid_in(&line), cluster.members[0]);
    let first = format!("get k --endpoint {}", cluster.endpoints[0]);
    assert_eq!(cluster.out(&first), "k\nw\n");
    let (status, stderr) = cluster.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("n1: has ended (signal: 9 (SIGKILL)); starts again in 1 s"),
        "{stderr}"
    );
}

#[test]
fn an_endpoint_that_is_away_has_its_error_in_the_status() {
    let dir = DataDir::new("cluster-away");
    let cluster = Cluster::start(dir.path(), &["--nodes", "1"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let both = format!("{},{free}", cluster.endpoints[0]);
    let output = cluster.run(&format!("status -w json --endpoint {both}"));
    assert_eq!(output.status.code(), Some(5));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status[0]["role"], &status[0]["lag"]), (&"leader".into(), &0.into()));
    assert!(status[1]["revision"].is_null() && status[1]["name"].is_null());
    assert!(status[1]["errors"][0].as_str().unwrap().contains("refused"), "{status}");
    let output = cluster.run(&format!("status --endpoint {both}"));
    assert_eq!(output.status.code(), Some(5));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().nth(2).unwrap().contains("refused"), "{table}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("Error: ") && stderr.contains(&free.to_string()), "{stderr}");
    assert_eq!(cluster.run(&format!("status --endpoint {free}")).status.code(), Some(2));
    // A load goes to those that are there.
    let one = format!("{free},{}", cluster.endpoints[0]);
    cluster.out(&format!("bench put --connections 3 --duration 1 --warm-up 0 --endpoint {one}"));
}

#[test]
fn founders_have_names_and_addresses_of_their_own() {
    let dir = DataDir::new("cluster-founders");
    let folder = dir.path().to_str().unwrap();
    for founders in ["a=127.0.0.1:9,a=127.0.0.1:10", "a=127.0.0.1:9,b=127.0.0.1:9"] {
        let line = ["server", "--data-dir", folder, "--name", "a", "--initial-cluster", founders];
        let refused = process::run(&line);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && stderr.contains("of its own"), "{stderr}");
    }
}

#[test]
fn members_are_listed_changed_and_lead_in_turn() {
    let dir = DataDir::new("cluster-members");
    let cluster = Cluster::start(dir.path(), &[]);
    let all_started = |seen: &Value| {
        seen["members"].as_array().unwrap().iter().all(|member| member["is_started"] == true)
    };
    let members = cluster.until("member list", all_started);
    let leader = members["leader"].as_u64().unwrap();
    let lines = cluster.out("member list");
    assert_eq!(
        lines.lines().filter(|line| line.ends_with(", false, leader")).count(),
        1,
        "{lines}"
    );
    assert!(lines.contains(", started, n2, ") && lines.contains(&cluster.endpoints[1]));

    // Another member leads, whoever is asked for it.
    let heir = if leader == 1 { "n2" } else { "n1" };
    for endpoint in &cluster.endpoints {
        let moved = cluster.out(&format!("move-leader {heir} --endpoint {endpoint}"));
        assert!(moved.ends_with(&format!(" ({heir})\n")), "{moved}");
    }
    let follower = &cluster.endpoints[2];
    let added =
        cluster.out(&format!("member add d --peer 127.0.0.1:9 --learner --endpoint {follower}"));
    assert!(added.starts_with("Member 4 added to cluster "), "{added}");
    let start = "quorate server --name d --listen-peer 127.0.0.1:9 --initial-cluster n1=";
    assert!(added.contains(start), "{added}");
    assert!(added.contains(" --initial-cluster-state existing "), "{added}");
    let found = |name: &str| {
        let list = cluster.json("member list");
        list["members"].as_array().unwrap().iter().any(|member| member["name"] == name)
    };
    assert!(cluster.out("member update 4 --name e").starts_with("Member 4 updated in cluster "));
    assert!(cluster.out("member remove e").starts_with("Member 4 removed from cluster "));
    assert!(!found("e") && !found("d"));
    for line in ["member remove e", "member remove 4", "member promote n9", "move-leader 9"] {
        let output = cluster.run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        assert!(stderr.starts_with("Error: "), "{line}: {stderr}");
    }
}

#[test]
fn a_load_is_spread_over_all_endpoints() {
    let dir = DataDir::new("cluster-bench");
    let cluster = Cluster::start(dir.path(), &[]);
    let report = cluster.json("bench put --connections 6 --duration 1 --warm-up 0 --keys 100");
    assert_eq!((&report["servers"], &report["errors"]), (&3.into(), &0.into()));
    assert!(report["operations"].as_u64().unwrap() > 0);
    assert!(report["server_cpu_us_per_operation"].is_f64(), "all servers are on this machine");
}

/// A supervisor that was killed left servers behind that held ports and data directories.
#[test]
fn members_end_with_the_process_that_started_them() {
    let dir = DataDir::new("cluster-orphans");
    let cluster = Cluster::start(dir.path(), &[]);
    let mut connections: Vec<TcpStream> =
        cluster.endpoints.iter().map(|endpoint| TcpStream::connect(endpoint).unwrap()).collect();
    let endpoints = cluster.endpoints.clone();
    let (status, _) = cluster.stop(Signal::KILL);
    assert_eq!(status.code(), None);
    for connection in &mut connections {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        // An end or a reset: both say that the other side has gone.
        let read = connection.read(&mut [0]);
        let is_over = match &read {
            Ok(size) => *size == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(is_over, "{read:?}");
    }
    // Nothing stands in the way of the next start.
    let cluster = Cluster::start(dir.path(), &[]);
    assert_eq!(cluster.endpoints, endpoints);
    assert_eq!(cluster.stop(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_folder_in_use_or_with_another_cluster_is_refused() {
    let dir = DataDir::new("cluster-folder");
    let cluster = Cluster::start(dir.path(), &["--nodes", "1"]);
    let path = dir.path().to_str().unwrap();
    let output = process::run(&["local-cluster", "--data-dir", path]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.contains("is locked")), (Some(1), true), "{stderr}");
    assert_eq!(cluster.out("put k v"), "OK\n");
    assert_eq!(cluster.stop(Signal::TERM).0.code(), Some(0));
    let output = process::run(&["local-cluster", "--nodes", "3", "--data-dir", path]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128), "{stderr}");
    assert!(stderr.contains("holds a cluster of 1"), "{stderr}");
}

#[test]
fn a_cluster_whose_members_do_not_start_ends_and_says_why() {
    let dir = DataDir::new("cluster-flags");
    let path = dir.path().to_str().unwrap();
    // Too small a cache is for the server to refuse.
    let output = process::run(&["local-cluster", "--data-dir", path, "--page-cache", "1"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    // The first member that ends stops the others, so that which of them speaks is chance.
    let is_said =
        ["n1: Error: ", "n2: Error: ", "n3: Error: "].iter().any(|at| stderr.contains(at));
    assert!(is_said && stderr.contains("does not start"), "{stderr}");
    assert!(output.stdout.is_empty());
}

/// Two of three are lost for good: the third goes on with what it has when it is told to, remembers that,
/// and lets no old member back in.
#[test]
fn a_survivor_that_is_told_to_goes_on_alone_and_stays_so() {
    let dir = DataDir::new("cluster-survivor");
    let cluster = Cluster::start(dir.path(), &[]);
    cluster.out("put kept value");
    cluster.until("status", |seen| {
        let applied = |status: &Value| status["applied_index"].as_u64();
        let seen = seen.as_array().unwrap();
        seen.iter().all(|status| applied(status).is_some() && applied(status) == applied(&seen[0]))
    });
    let status = cluster.stop(Signal::TERM).0;
    assert!(status.success());

    let nowhere = dir.path().join("n9");
    let (nowhere, survivor) = (nowhere.to_str().unwrap(), dir.path().join("n1"));
    let refused = process::run(&["server", "--data-dir", nowhere, "--force-new-cluster"]);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && stderr.contains("there is none here"), "{stderr}");

    for flags in [&["--force-new-cluster"][..], &[]] {
        let server = process::Server::start(&survivor, flags);
        let endpoint = server.address().to_string();
        let ask = |line: &[&str]| {
            let output = process::run(&[line, &["--endpoint", &endpoint]].concat());
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{line:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(ask(&["get", "kept"]).contains("value"));
        ask(&["put", "more", "value"]);
        let members: Value = serde_json::from_str(&ask(&["member", "list", "-w", "json"])).unwrap();
        let members = members["members"].as_array().unwrap();
        assert_eq!(members.len(), 1, "{members:?}");
        assert_eq!(members[0]["name"], "n1");
        // As by a crash: what it was told to must have been in the log before it was ready for this.
        server.kill();
    }
}

#[test]
fn a_member_that_was_never_started_listens_however_short_the_log_is() {
    let dir = DataDir::new("cluster-unstarted");
    let cluster = Cluster::start(dir.path(), &[]);
    cluster.until("member list", |seen| {
        seen["members"].as_array().unwrap().iter().all(|member| member["is_started"] == true)
    });
    assert!(cluster.out("member add d --peer 127.0.0.1:9").starts_with("Member 4 added"));
    // The leader looks for members that have caught up several times a second.
    let begin = Instant::now();
    while begin.elapsed().as_millis() < 1_500 {
        cluster.out("put key value");
        let lines = cluster.out("member list");
        let line = lines.lines().find(|line| line.starts_with("4, ")).unwrap();
        assert!(line.contains(", true, "), "it votes: {line}");
    }
    let refused = cluster.run("member promote d");
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    kill(cluster.members[2]);
    cluster.out("put key value");
}

#[test]
fn members_find_their_own_addresses_in_the_list_and_what_was_damaged_stays_known() {
    let dir = DataDir::new("cluster-listed");
    let cluster = Cluster::start(dir.path(), &[]);
    cluster.out("put kept value");
    assert!(cluster.stop(Signal::TERM).0.success());

    let folders = ["n1", "n2", "n3"].map(|name| dir.path().join(name));
    let starts = folders.clone().map(|folder| {
        // Each waits for the others.
        thread::spawn(move || process::Server::start(&folder, &[]))
    });
    let servers = starts.map(|start| start.join().unwrap());
    for server in &servers {
        let endpoint = server.address().to_string();
        let output = process::run(&["get", "kept", "--endpoint", &endpoint]);
        assert!(String::from_utf8(output.stdout).unwrap().contains("value"));
    }
    drop(servers);

    std::fs::write(folders[0].join("damaged"), "page 7 at byte 28672").unwrap();
    let refused = process::run(&["server", "--data-dir", folders[0].to_str().unwrap()]);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && stderr.contains("page 7 at byte 28672"), "{stderr}");
}

/// One member after the other is killed, and started again by the one that watches over them, under a watch
/// that all of them serve in turn and a lock that hangs on a short lease.
#[test]
fn a_watch_and_a_lock_outlive_the_members_that_serve_them() {
    let dir = DataDir::new("outlive");
    let mut cluster = Cluster::start(dir.path(), &["--nodes", "3"]);
    let options = Options {
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(20),
        client_name: "test".into(),
        cluster: 0,
    };
    let client = Client::connect(cluster.endpoints.clone(), options).unwrap();
    let mut client = client.with_session().unwrap();
    let mut watcher = client.watch(WatchOptions::prefix(b"k")).unwrap();
    let lease = client.keep_lease(Duration::from_secs(15)).unwrap();
    let lock = Lock::acquire(&mut client, &lease, b"lock", None).unwrap();
    let (mut written, mut told) = (Vec::new(), Vec::new());
    for victim in 0..cluster.members.len() {
        for number in 0..20 {
            let key = format!("k{number}");
            let put = Op::Put(Put::new(key.as_bytes(), b"v"));
            let result = client.txn(&Txn::new().when(lock.guard()).then(put)).unwrap();
            assert!(result.succeeded, "the lock was lost");
            written.push(result.revision);
            if number == 10 {
                kill(cluster.members[victim]);
            }
        }
        while told.len() < written.len() {
            match watcher.next_within(PATIENCE).unwrap().expect("an event in time") {
                WatchEvent::Changes { changes, .. } => {
                    told.extend(changes.iter().map(OwnedChange::revision));
                }
                WatchEvent::Progress { .. } => {}
            }
        }
        assert_eq!(told, written);
        // It is there again before the next one goes.
        let line = loop {
            let line = cluster.line();
            if line.contains(": ready ") {
                break line;
            }
        };
        cluster.members[victim] = pid_in(&line);
    }
    assert!(lock.is_valid() && lock.release(&mut client).unwrap());
}

/// A member that is paused keeps its connections and answers nothing: whoever has others to turn to notices.
#[test]
fn clients_of_a_member_that_falls_silent_go_on_at_another_one() {
    let dir = DataDir::new("cluster-silent");
    let cluster = Cluster::start(dir.path(), &["--nodes", "3"]);
    let leader = cluster.until("member list", |members| members["leader"] != 0)["leader"].clone();
    let silent = usize::from(leader == 1);
    let mut endpoints = cluster.endpoints.clone();
    endpoints.swap(0, silent);
    let all = endpoints.join(",");
    cluster.out("lease grant 6 --id 77");
    cluster.out("put kept x --lease 77");
    let mut holder = Running::spawn(&endpoints[1..].join(","), &["lock", "name", "--ttl", "60s"]);
    holder.line();
    let mut waiter = Running::spawn(&all, &["lock", "name", "--ttl", "60s"]);
    let mut keeper = Running::spawn(&all, &["lease", "keep-alive", "77"]);
    keeper.line();
    // The waiter is in the line, so that it waits by a watch.
    cluster.until("get name/ --prefix --count-only", |seen| seen["count"] == 2);

    send(cluster.members[silent], Signal::STOP);
    for _ in 0..3 {
        let line = keeper.line();
        assert!(line.contains("keepalived"), "{line}");
    }
    holder.signal(Signal::INT);
    holder.ended();
    assert!(waiter.line().starts_with("name/"));
    for command in [waiter, keeper] {
        command.signal(Signal::INT);
        assert!(command.ended().status.success());
    }
    send(cluster.members[silent], Signal::CONT);
    assert_eq!(cluster.json("get kept")["count"], 1);
    assert_eq!(cluster.stop(Signal::TERM).0.code(), Some(0));
}

/// Members trim what is compacted when they come to it, and one that was killed reads its log again.
#[test]
fn members_have_the_same_hash_of_their_history() {
    let dir = DataDir::new("cluster-hash");
    let cluster = Cluster::start(dir.path(), &[]);
    let options = Options {
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(20),
        client_name: "test".into(),
        cluster: 0,
    };
    let mut client = Client::connect(cluster.endpoints.clone(), options).unwrap();
    for number in 0..300_u32 {
        let key = format!("key {}", number % 40);
        if number % 7 == 3 {
            client.delete(&DeleteRange { key: key.as_bytes(), ..DeleteRange::default() }).unwrap();
        } else {
            let value = vec![b'v'; usize::try_from(number % 5 * 3_000).unwrap()];
            client.put(&Put::new(key.as_bytes(), &value)).unwrap();
        }
    }
    let newest = client.status().unwrap().revision;
    let asked = |endpoint: &str, revision: i64| {
        let mut http = Http::connect(endpoint.parse().unwrap());
        let body = json!({ "revision": revision.to_string() });
        http.post("/v3/maintenance/hashkv", &body)
    };
    let same = |revision: i64, compacted: i64| {
        let told = cluster.endpoints.iter().map(|endpoint| {
            let begin = Instant::now();
            loop {
                let (status, answer) = asked(endpoint, revision);
                if status == 200 && answer["compact_revision"] == json!(compacted.to_string()) {
                    assert_eq!(answer["hash_revision"], json!(revision.to_string()));
                    return answer["hash"].clone();
                }
                // A member that follows may be behind.
                assert!(begin.elapsed() < PATIENCE, "{endpoint} at {revision}: {status} {answer}");
                thread::sleep(Duration::from_millis(20));
            }
        });
        let told: Vec<Value> = told.collect();
        assert!(told.iter().all(|hash| *hash == told[0]), "at {revision}: {told:?}");
        told[0].clone()
    };
    let (middle, before) = (newest - 100, same(newest, -1));
    assert_ne!(same(middle, -1), before, "old versions count");
    client.compact(&Compact { revision: middle, physical: false }).unwrap();
    kill(cluster.members[1]);
    let line = cluster.line();
    assert!(line.starts_with("n2: ready "), "{line}");
    let after = same(newest, middle);
    assert_ne!(after, before, "what is compacted does not count");
    same(middle, middle);
    for (revision, text) in
        [(middle - 1, "has been compacted"), (newest + 1, "is a future revision")]
    {
        let (status, answer) = asked(&cluster.endpoints[0], revision);
        let message = answer["message"].as_str().unwrap();
        assert!(status == 400 && message.ends_with(text), "{status} {answer}");
    }
    // The space is free on whoever answered this.
    client.compact(&Compact { revision: newest - 50, physical: true }).unwrap();
    same(newest, newest - 50);
}
