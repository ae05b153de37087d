//! What etcd's flags do, each met as a client or an operator meets it: servers started with `quorate etcd`.

#![allow(clippy::unwrap_used)]

mod http;
mod process;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use http::Http;
use process::{DataDir, PATIENCE, Running, Signal};
use serde_json::{Value, json};

/// A port that nobody listens on at this moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that was started as etcd is.
struct Etcd {
    process: Running,
    client: SocketAddr,
}

impl Etcd {
    /// Starts it as a cluster of its own.
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let peer = free_address();
        let own = format!("--listen-peer-urls=http://{peer}");
        let advertised = format!("--initial-advertise-peer-urls=http://{peer}");
        let mut all = vec![own.as_str(), advertised.as_str()];
        all.extend(flags);
        let started = Self::spawn(dir, "default", free_address(), &all);
        started.ready();
        started
    }

    fn spawn(dir: &Path, name: &str, client: SocketAddr, flags: &[&str]) -> Self {
        let dir = dir.join(name);
        let urls = format!("http://{client}");
        let mut line = vec!["etcd", "--name", name, "--data-dir", dir.to_str().unwrap()];
        line.extend(["--listen-client-urls", &urls, "--advertise-client-urls", &urls]);
        line.extend(flags);
        Self { process: Running::spawn("", &line), client }
    }

    /// Waits until it serves.
    fn ready(&self) {
        let begin = Instant::now();
        while !self.process.stderr().contains("ready to serve client requests") {
            assert!(begin.elapsed() < PATIENCE, "not ready: {}", self.process.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn http(&self) -> Http {
        Http::connect(self.client)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.http().post(path, body)
    }

    /// Its id, and that of the leader that it knows of.
    fn standing(&self) -> (String, String) {
        let (_, status) = self.post("/v3/maintenance/status", &json!({}));
        let text = |value: &Value| value.as_str().unwrap_or("0").to_owned();
        (text(&status["header"]["member_id"]), text(&status["leader"]))
    }
}

/// Bytes as JSON has them.
fn encoded(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

/// Three members with these flags each.
fn cluster(dir: &Path, flags: &[&str]) -> Vec<Etcd> {
    let members = beginning(dir, flags);
    members.iter().for_each(Etcd::ready);
    members
}

/// The same, not ready yet.
fn beginning(dir: &Path, flags: &[&str]) -> Vec<Etcd> {
    let peers = [free_address(), free_address(), free_address()];
    let names = ["a", "b", "c"];
    let founder = |(name, peer)| format!("{name}=http://{peer}");
    let founders: Vec<String> = names.iter().zip(peers).map(founder).collect();
    let founders = format!("--initial-cluster={}", founders.join(","));
    let start = |(name, peer)| {
        let own = format!("--listen-peer-urls=http://{peer}");
        let advertised = format!("--initial-advertise-peer-urls=http://{peer}");
        let mut all = vec![own.as_str(), advertised.as_str(), founders.as_str()];
        all.extend(flags);
        Etcd::spawn(dir, name, free_address(), &all)
    };
    names.into_iter().zip(peers).map(start).collect()
}

/// The names in the list of members, as this one tells it.
fn names(member: &Etcd) -> Vec<String> {
    let (_, list) = member.post("/v3/cluster/member/list", &json!({}));
    let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
    list["members"].as_array().into_iter().flatten().map(name).collect()
}

/// Asks until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The place of the leader in the list, and of two others.
fn roles(members: &[Etcd]) -> (usize, usize, usize) {
    let mut leader = None;
    until("a leader", || {
        leader = members.iter().position(|member| {
            let (own, leader) = member.standing();
            own == leader
        });
        leader.is_some()
    });
    let leader = leader.unwrap();
    let mut others = (0..members.len()).filter(|place| *place != leader);
    (leader, others.next().unwrap(), others.next().unwrap())
}

#[test]
fn a_silent_leader_is_waited_for_as_long_as_the_election_timeout_says() {
    let folder = DataDir::new("etcd-election");
    let flags = ["--heartbeat-interval", "200", "--election-timeout=3000"];
    let members = cluster(folder.path(), &flags);
    let (leader, other, _) = roles(&members);
    let (id, _) = members[leader].standing();
    members[leader].process.signal(Signal::STOP);
    let begin = Instant::now();
    until("another leader", || {
        let (_, known) = members[other].standing();
        known != "0" && known != id
    });
    // The last heartbeat came at most one interval before.
    assert!(begin.elapsed() > Duration::from_millis(2_700), "{:?}", begin.elapsed());
    members[leader].process.signal(Signal::CONT);
}

#[test]
fn without_the_strict_check_a_removal_waits_for_who_is_not_there() {
    for strict in [true, false] {
        let folder = DataDir::new("etcd-strict");
        let flag = format!("--strict-reconfig-check={strict}");
        let members = cluster(folder.path(), &[&flag]);
        let (leader, away, removed) = roles(&members);
        let (id, _) = members[removed].standing();
        members[away].process.signal(Signal::STOP);
        // Longer than a member may be silent.
        std::thread::sleep(Duration::from_millis(1_500));
        let body = json!({"ID": id}).to_string();
        let mut http = members[leader].http();
        http.send("POST", "/v3/cluster/member/remove", &body);
        if strict {
            let (status, answer) = http.answer();
            assert!(answer.contains("not enough started members"), "{status} {answer}");
            members[away].process.signal(Signal::CONT);
        } else {
            // Only now can it be committed; whether the leader that took it is still there is another matter.
            std::thread::sleep(Duration::from_millis(300));
            members[away].process.signal(Signal::CONT);
            until("the removal", || {
                let (_, answer) = members[away].post("/v3/cluster/member/list", &json!({}));
                answer["members"].as_array().is_some_and(|members| members.len() == 2)
            });
        }
    }
}

#[test]
fn limits_are_those_of_the_flags() {
    let folder = DataDir::new("etcd-limits");
    let flags = ["--max-txn-ops=2000", "--max-request-bytes=3000000"];
    let server = Etcd::start(folder.path(), &flags);
    let (_, status) = server.post("/v3/maintenance/status", &json!({}));
    assert_eq!(status["dbSizeQuota"], json!("2147483648"));
    let put = |number: u32| json!({"request_put": {"key": encoded(&number.to_be_bytes())}});
    let txn = |count: u32| json!({"success": (0..count).map(put).collect::<Vec<_>>()});
    assert_eq!(server.post("/v3/kv/txn", &txn(2_000)).0, 200);
    let (status, answer) = server.post("/v3/kv/txn", &txn(2_001));
    let refused = "etcdserver: too many operations in txn request";
    assert_eq!((status, &answer["message"]), (400, &json!(refused)));
    let put = |size: usize| json!({"key": "YQ==", "value": encoded(&vec![7; size])});
    assert_eq!(server.post("/v3/kv/put", &put(2_900_000)).0, 200);
    let (status, answer) = server.post("/v3/kv/put", &put(3_000_000));
    assert_eq!((status, &answer["message"]), (400, &json!("etcdserver: request is too large")));
}

#[test]
fn a_quota_raises_an_alarm_that_stays_until_it_is_disarmed() {
    let folder = DataDir::new("etcd-quota");
    let flags = ["--quota-backend-bytes=16000000"];
    let server = Etcd::start(folder.path(), &flags);
    let value = encoded(&vec![7; 1_000_000]);
    let put = |key: u8| json!({"key": encoded(&[key]), "value": value});
    let full = json!("etcdserver: mvcc: database space exceeded");
    let refused = |server: &Etcd, path: &str, body: &Value| {
        let (status, answer) = server.post(path, body);
        assert_eq!((status, &answer["message"]), (429, &full), "{path}: {answer}");
    };
    let alarms = |server: &Etcd, body: &Value| {
        let (status, answer) = server.post("/v3/maintenance/alarm", body);
        assert_eq!(status, 200, "{answer}");
        answer.get("alarms").cloned().unwrap_or(json!([]))
    };
    let get = json!({"action": "GET"});
    let mut key = 0;
    while server.post("/v3/kv/put", &put(key)).0 == 200 {
        key += 1;
        assert!(key < 40, "40 MB fit into 16");
    }
    assert!(key >= 15, "{key} MB were enough for 16");
    let (own, _) = server.standing();
    let up = json!([{"memberID": own, "alarm": "NOSPACE"}]);
    until("the alarm", || alarms(&server, &get) == up);
    assert_eq!(alarms(&server, &json!({"alarm": "CORRUPT"})), json!([]));
    let (_, status) = server.post("/v3/maintenance/status", &json!({}));
    assert_eq!(status["errors"][0], json!(format!("memberID:{own} alarm:NOSPACE")));
    let (status, health) = server.http().ask("GET", "/health", "");
    assert_eq!((status, health.contains("ALARM NOSPACE")), (503, true), "{health}");
    assert_eq!(server.http().ask("GET", "/health?exclude=NOSPACE", "").0, 200);
    refused(&server, "/v3/lease/grant", &json!({"TTL": 60}));
    // The branch that is not taken counts as well.
    let success = json!([{"request_delete_range": {"key": "AA=="}}]);
    let failure = json!([{"request_put": {"key": "YQ=="}}]);
    refused(&server, "/v3/kv/txn", &json!({"success": success, "failure": failure}));

    // With SIGKILL.
    drop(server);
    let server = Etcd::start(folder.path(), &flags);
    until("the alarm after a restart", || alarms(&server, &get) == up);
    refused(&server, "/v3/kv/put", &put(0));
    // Disarmed too early, it is raised again by the next write, however soon that comes.
    let disarm = json!({"action": "DEACTIVATE", "memberID": own, "alarm": "NOSPACE"});
    for _ in 0..3 {
        assert_eq!(alarms(&server, &disarm), up);
        assert_eq!(alarms(&server, &get), json!([]));
        // The store is as large as before, and that is no alarm.
        let (_, status) = server.post("/v3/maintenance/status", &json!({}));
        let errors = status["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let told = errors.iter().filter_map(Value::as_str);
        let told: Vec<&str> = told.collect();
        assert!(told.len() == 1 && told[0].starts_with("the store is above its quota"), "{told:?}");
        refused(&server, "/v3/kv/put", &put(0));
        until("the alarm again", || alarms(&server, &get) == up);
    }

    // What gives space back is taken, and so are reads.
    assert_eq!(server.post("/v3/kv/range", &json!({"key": encoded(&[0])})).0, 200);
    assert_eq!(server.post("/v3/kv/txn", &json!({"success": success})).0, 200);
    let all = json!({"key": "AA==", "range_end": "AA=="});
    let (status, deleted) = server.post("/v3/kv/deleterange", &all);
    assert_eq!(status, 200, "{deleted}");
    let revision = &deleted["header"]["revision"];
    let compact = json!({"revision": revision, "physical": true});
    assert_eq!(server.post("/v3/kv/compaction", &compact).0, 200);
    until("room", || {
        let (_, status) = server.post("/v3/maintenance/status", &json!({}));
        let size = status["dbSizeInUse"].as_str().and_then(|size| size.parse::<u64>().ok());
        size.is_some_and(|size| size < 8_000_000)
    });
    refused(&server, "/v3/kv/put", &put(0));
    assert_eq!(alarms(&server, &disarm), up);
    assert_eq!(alarms(&server, &disarm), json!([]));
    // One line for each change: up after the start and three times more, whatever was refused meanwhile.
    let lines = |part: &str| {
        let told = server.process.stderr();
        told.lines().filter(|line| line.contains(part)).count()
    };
    until("the last line", || lines(&format!("alarm NOSPACE of member {own} is disarmed")) == 4);
    assert_eq!(lines(&format!("alarm NOSPACE of member {own} is up")), 4);
    assert_eq!((lines("has reached its quota"), lines("below its quota again")), (1, 1));
    assert_eq!(server.post("/v3/kv/put", &put(0)).0, 200);
    assert_eq!(alarms(&server, &get), json!([]));
    assert_eq!(server.http().ask("GET", "/health", "").0, 200);
}

/// The alarm of one member stops writes at all of them, and none of a member that has no quota is raised.
#[test]
fn the_alarm_of_one_member_is_that_of_the_cluster() {
    let folder = DataDir::new("etcd-alarm");
    let members = cluster(folder.path(), &["--quota-backend-bytes=-1"]);
    let alarm = |member: &Etcd, body: &Value| {
        let (status, answer) = member.post("/v3/maintenance/alarm", body);
        assert_eq!(status, 200, "{answer}");
        answer.get("alarms").cloned().unwrap_or(json!([]))
    };
    let (own, _) = members[1].standing();
    let raise = json!({"action": "ACTIVATE", "memberID": own, "alarm": "NOSPACE"});
    let up = json!([{"memberID": own, "alarm": "NOSPACE"}]);
    assert_eq!(alarm(&members[1], &raise), up);
    let put = json!({"key": "YQ=="});
    for member in &members {
        assert_eq!(alarm(member, &json!({})), up);
        let (_, answer) = member.post("/v3/kv/put", &put);
        assert_eq!(answer["message"], json!("etcdserver: mvcc: database space exceeded"));
    }
    // 0: of all members.
    let disarm = json!({"action": "DEACTIVATE", "alarm": "NOSPACE"});
    assert_eq!(alarm(&members[2], &disarm), up);
    for member in &members {
        assert_eq!(alarm(member, &json!({})), json!([]));
        assert_eq!(member.post("/v3/kv/put", &put).0, 200);
    }
}

#[test]
fn progress_is_told_as_often_as_the_flag_says() {
    let folder = DataDir::new("etcd-progress");
    let server = Etcd::start(folder.path(), &["--watch-progress-notify-interval=200ms"]);
    let mut watch = server.http();
    let request = json!({"create_request": {"key": "YQ==", "progress_notify": true}});
    watch.send("POST", "/v3/watch", &request.to_string());
    assert_eq!(watch.head().0, 200);
    let mut told = || serde_json::from_str::<Value>(&watch.chunk()).unwrap();
    assert_eq!(told()["result"]["created"], json!(true));
    let progress = told();
    assert_eq!(progress["result"].get("events"), None);
    assert_eq!(progress["result"]["header"]["revision"], json!("1"), "{progress}");
}

#[test]
fn every_url_has_a_door_and_the_advertised_ones_are_told_as_they_were_given() {
    let folder = DataDir::new("etcd-urls");
    std::fs::create_dir_all(folder.path()).unwrap();
    // Paths of sockets are short.
    let path = std::env::temp_dir().join(format!("quorate-{}.sock", std::process::id()));
    let [first, second, third, http, metrics] = [(); 5].map(|()| free_address());
    let listen = format!(
        "--listen-client-urls=http://{first},http://{second},unix://{},http://{third}",
        path.display()
    );
    let advertise = format!("--advertise-client-urls=http://{second},unix:///run/no.sock");
    let http_flag = format!("--listen-client-http-urls=http://{http}");
    let metrics_flag = format!("--listen-metrics-urls=http://{metrics}");
    // What a server that was killed leaves is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let flags = [listen.as_str(), &advertise, &http_flag, &metrics_flag];
    let mut server = Etcd::start(folder.path(), &flags);
    let advertised = json!([format!("http://{second}"), "unix:///run/no.sock"]);
    for address in [first, second, third, http] {
        server.client = address;
        until("the addresses", || {
            let (status, list) = server.post("/v3/cluster/member/list", &json!({}));
            assert_eq!(status, 200);
            list["members"][0]["clientURLs"] == advertised
        });
        assert_eq!(server.http().ask("GET", "/health", "").0, 200);
    }
    assert!(process::connect(third).is_ok(), "the native protocol is spoken there, too");
    for path in ["/metrics", "/health", "/livez", "/readyz/serializable_read"] {
        assert_eq!(Http::connect(metrics).ask("GET", path, "").0, 200, "{path}");
    }
    assert_eq!(Http::connect(metrics).ask("GET", "/version", "").0, 404);
    let range = "/v3/kv/range";
    assert_eq!(Http::connect(metrics).ask("POST", range, "{\"key\": \"YQ==\"}").0, 404);
    let mut unix = std::os::unix::net::UnixStream::connect(&path).unwrap();
    unix.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    unix.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    server.process.signal(Signal::TERM);
    server.process.ended();
    assert!(!path.exists(), "the socket goes with the server");
}

/// A cluster of one member, "first", and its address for others.
fn founder(dir: &Path) -> (Etcd, SocketAddr) {
    let address = free_address();
    let own = format!("--listen-peer-urls=http://{address}");
    let advertised = format!("--initial-advertise-peer-urls=http://{address}");
    let cluster = format!("--initial-cluster=first=http://{address}");
    let founder = Etcd::spawn(dir, "first", free_address(), &[own.as_str(), &advertised, &cluster]);
    founder.ready();
    (founder, address)
}

/// The member that was added with this URL, as "second".
fn join(dir: &Path, first: SocketAddr, url: &str) -> Etcd {
    let flags = [
        &format!("--listen-peer-urls={url}"),
        &format!("--initial-advertise-peer-urls={url}"),
        &format!("--initial-cluster=second={url},first=http://{first}"),
        "--initial-cluster-state=existing",
    ];
    let joined = Etcd::spawn(dir, "second", free_address(), &flags);
    joined.ready();
    joined
}

#[test]
fn a_member_that_was_added_has_no_name_until_it_says_its_own() {
    let folder = DataDir::new("etcd-names");
    let (founder, first) = founder(folder.path());
    let url = format!("http://{}", free_address());
    let add = json!({"peerURLs": [url]});
    let (status, added) = founder.post("/v3/cluster/member/add", &add);
    assert_eq!((status, added["member"].get("name")), (200, None), "{added}");
    assert_eq!(added["member"].get("isLearner"), None, "to clients it is a voter: {added}");
    assert_eq!(names(&founder), ["first", ""]);
    let learner = json!({"peerURLs": ["http://127.0.0.1:1"], "isLearner": true});
    assert_eq!(founder.post("/v3/cluster/member/add", &learner).0, 200, "there is none yet");
    let joined = join(folder.path(), first, &url);
    // It is ready when it votes.
    assert_eq!(names(&joined), ["first", "second", ""]);
    assert_eq!(names(&founder), ["first", "second", ""]);
}

#[test]
fn the_log_goes_where_it_is_sent_in_the_format_and_from_the_level_on_that_is_asked_for() {
    let folder = DataDir::new("etcd-log");
    std::fs::create_dir_all(folder.path()).unwrap();
    let file = folder.path().join("log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let server = Etcd::start(folder.path(), &[&outputs, "--log-format=console"]);
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written, server.process.stderr());
    let line = written.lines().last().unwrap();
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!((fields[1], fields[3]), ("INFO", "ready to serve client requests"), "{line}");
    drop(server);

    let flags = ["--log-level=warn", "--max-wals=9", "--log-outputs=stderr"];
    let dir = folder.path().join("quiet");
    let address = free_address();
    let peer = format!("--listen-peer-urls=http://{}", free_address());
    let all = [&flags[..], &[peer.as_str()]].concat();
    let quiet = Etcd::spawn(&dir, "m", address, &all);
    until("a member", || std::net::TcpStream::connect(address).is_ok());
    until("health", || quiet.http().ask("GET", "/health", "").0 == 200);
    let told = quiet.process.stderr();
    assert!(told.contains("--max-wals=9 is accepted and has no effect"), "{told}");
    assert!(!told.contains("\"level\":\"info\""), "{told}");
}

/// The value of a figure in a scrape.
fn figure(figures: &str, name: &str) -> f64 {
    let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in:\n{figures}")).parse().unwrap()
}

#[test]
fn figures_count_calls_their_times_and_what_disks_took() {
    let folder = DataDir::new("etcd-metrics");
    let server = Etcd::start(folder.path(), &["--metrics=extensive"]);
    let mut http = server.http();
    for _ in 0..3 {
        assert_eq!(http.post("/v3/kv/put", &json!({"key": "YQ=="})).0, 200);
    }
    assert_eq!(http.post("/v3/kv/put", &json!({})).0, 400);
    assert_eq!(http.ask("GET", "/health", "").0, 200);
    let put = |key: &str| json!({"request_put": {"key": key, "value": "YWFh"}});
    let delete = json!({"request_delete_range": {"key": "Yg=="}});
    let nested = json!({"request_txn": {"success": [put("ZA==")], "failure": [put("YQ==")]}});
    for branch in [vec![put("Yg=="), nested], vec![delete]] {
        assert_eq!(
            http.post("/v3/kv/txn", &json!({"success": branch, "failure": [put("YQ==")]})).0,
            200
        );
    }
    assert_eq!(http.post("/v3/kv/deleterange", &json!({"key": "ZA=="})).0, 200);
    let mut watch = server.http();
    watch.send("POST", "/v3/watch", &json!({"create_request": {"key": "YQ=="}}).to_string());
    assert_eq!(watch.head().0, 200);
    watch.chunk();
    let (_, figures) = http.ask("GET", "/metrics", "");
    let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    let streams =
        "grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"";
    for (name, value) in [
        (format!("grpc_server_started_total{{{put}}}"), 4.0),
        (format!("grpc_server_handled_total{{grpc_code=\"OK\",{put}}}"), 3.0),
        (format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{put}}}"), 1.0),
        (format!("grpc_server_msg_received_total{{{put}}}"), 4.0),
        (format!("grpc_server_msg_sent_total{{{put}}}"), 3.0),
        (format!("grpc_server_handling_seconds_count{{{put}}}"), 4.0),
        (format!("grpc_server_msg_sent_total{{{streams}}}"), 1.0),
        ("quorate_request_duration_seconds_count{operation=\"Put\"}".into(), 4.0),
        ("quorate_request_duration_seconds_bucket{operation=\"Put\",le=\"+Inf\"}".into(), 4.0),
        ("quorate_applied_total{kind=\"Put\"}".into(), 3.0),
        ("etcd_mvcc_put_total".into(), 5.0),
        ("etcd_mvcc_delete_total".into(), 2.0),
        ("etcd_mvcc_txn_total".into(), 1.0),
        ("etcd_debugging_mvcc_total_put_size_in_bytes".into(), 11.0),
        ("etcd_network_peer_sent_bytes_total".into(), 0.0),
        ("etcd_server_health_success".into(), 1.0),
        ("etcd_server_leader_changes_seen_total".into(), 1.0),
        ("etcd_debugging_mvcc_watch_stream_total".into(), 1.0),
        ("etcd_debugging_mvcc_watcher_total".into(), 1.0),
        ("etcd_debugging_mvcc_keys_total".into(), 1.0),
        ("etcd_network_known_peers{Local=\"1\",Remote=\"1\"}".into(), 1.0),
    ] {
        assert_eq!(figure(&figures, &name), value, "{name}");
    }
    for name in [
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_write_duration_seconds_sum",
        "etcd_disk_wal_write_bytes_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "os_fd_used",
        "os_fd_limit",
    ] {
        assert!(figure(&figures, name) > 0.0, "{name}");
    }
    // A scraper refuses a family that comes twice.
    let mut families: Vec<&str> =
        figures.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
    // Buckets add up, from less to more.
    let buckets = figures.lines().filter(|line| {
        line.starts_with("quorate_request_duration_seconds_bucket{operation=\"Put\"")
    });
    let counts: Vec<f64> =
        buckets.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(counts.len() > 30 && counts.is_sorted(), "{counts:?}");
    let (status, variables) = http.ask("GET", "/debug/vars", "");
    let variables: Value = serde_json::from_str(&variables).unwrap();
    assert_eq!((status, &variables["watch_streams"]), (200, &json!(1)), "{variables}");
    let (status, requests) = http.ask("GET", "/debug/requests", "");
    let line = requests.lines().find(|line| line.starts_with("KV/Put ")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((status, &fields[1..4]), (200, &["4", "0", "1"][..]), "{requests}");
    assert!(variables["cmdline"][0].as_str().unwrap().contains("quorate"), "{variables}");
}

/// What may be asked of a learner is what etcd's answers: clients balance over all members that they are told of,
/// and one without a vote is not to be among those.
#[test]
fn a_learner_answers_for_itself_alone_until_it_has_a_vote() {
    let folder = DataDir::new("etcd-learner");
    let (founder, first) = founder(folder.path());
    let url = format!("http://{}", free_address());
    let (status, added) =
        founder.post("/v3/cluster/member/add", &json!({"peerURLs": [url], "isLearner": true}));
    assert_eq!(status, 200, "{added}");
    let one_more = json!({"peerURLs": ["http://127.0.0.1:1"], "isLearner": true});
    let (_, refused) = founder.post("/v3/cluster/member/add", &one_more);
    assert_eq!(refused["message"], "etcdserver: too many learner members in cluster");

    let learner = join(folder.path(), first, &url);
    let read = json!({"key": "YQ=="});
    until("it knows that it is a learner", || learner.post("/v3/kv/range", &read).0 != 200);
    let refused = |path: &str, body: &Value| {
        let (status, answer) = learner.post(path, body);
        let text = "etcdserver: rpc not supported for learner";
        assert_eq!((status, &answer["message"]), (400, &json!(text)), "{path}");
    };
    refused("/v3/kv/range", &read);
    refused("/v3/kv/put", &json!({"key": "YQ==", "value": "MQ=="}));
    refused("/v3/lease/grant", &json!({"TTL": 5}));
    refused("/v3/cluster/member/list", &json!({}));
    let own_state = json!({"key": "YQ==", "serializable": true});
    assert_eq!(learner.post("/v3/kv/range", &own_state).0, 200);
    let (status, state) = learner.post("/v3/maintenance/status", &json!({}));
    assert_eq!((status, &state["isLearner"]), (200, &json!(true)));

    let id = &added["member"]["ID"];
    until("it may be promoted", || {
        founder.post("/v3/cluster/member/promote", &json!({"ID": id})).0 == 200
    });
    until("it serves like the others", || learner.post("/v3/kv/range", &read).0 == 200);
    let (_, figures) = founder.http().ask("GET", "/metrics", "");
    assert_eq!(figure(&figures, "etcd_server_learner_promote_successes"), 1.0);
}

/// What a page of this origin is told that it may read.
fn allowed_origin(server: &Etcd, method: &str, path: &str, origin: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(server.client).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let header = answer
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("access-control-allow-origin:"));
    Some(header?.split_once(": ")?.1.to_owned())
}

#[test]
fn pages_of_any_origin_may_read_unless_some_are_named() {
    let folder = DataDir::new("flags-cors");
    let server = Etcd::start(folder.path(), &[]);
    for (method, path) in [("GET", "/health"), ("OPTIONS", "/v3/kv/range"), ("GET", "/nosuch")] {
        let origin = allowed_origin(&server, method, path, "http://a");
        assert_eq!(origin.as_deref(), Some("*"), "{method} {path}");
    }
    drop(server);
    let folder = DataDir::new("flags-cors-named");
    let server = Etcd::start(folder.path(), &["--cors=http://a,http://b"]);
    let origin = allowed_origin(&server, "GET", "/health", "http://b");
    assert_eq!(origin.as_deref(), Some("http://b"));
    assert_eq!(allowed_origin(&server, "GET", "/health", "http://c"), None);
}

#[test]
fn paths_with_too_many_slashes_lead_to_those_that_are_meant() {
    let folder = DataDir::new("flags-paths");
    let server = Etcd::start(folder.path(), &[]);
    for (method, body) in [("GET", "<a href=\"/v3/kv/range?a=1\">"), ("POST", "")] {
        let mut stream = std::net::TcpStream::connect(server.client).unwrap();
        let request =
            format!("{method} //v3//kv/range?a=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
        assert!(answer.contains("location: /v3/kv/range?a=1\r\n"), "{answer}");
        assert!(answer.contains(body), "{answer}");
    }
}

/// How a command line ends that is not to be served with, and what it says.
fn refusal(flags: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = DataDir::new("flags-refused");
    let dir = folder.path().join("m");
    let mut command = std::process::Command::new(process::BINARY);
    command.args(["etcd", "--data-dir", dir.to_str().unwrap()]).args(flags);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(!dir.exists(), "{flags:?} leaves a directory");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Unit files and scripts look at the code: with 2 the line itself is wrong, with 1 what it asks for.
#[test]
fn a_line_that_cannot_be_read_ends_with_2_and_one_that_asks_for_too_much_with_1() {
    let founders = "--initial-cluster=a=http://127.0.0.1:1";
    for (flags, variables, code, said) in [
        (&["--max-wals=x"][..], &[][..], 2, "invalid value \"x\" for flag -max-wals: parse error"),
        (&["--feature-gates=Foo=true"][..], &[][..], 2, "unrecognized feature gate: Foo"),
        (&["--listen-client-urlz=x"][..], &[][..], 2, "did you mean --listen-client-urls?"),
        (&["--max-txn-ops=8193"][..], &[][..], 1, "choose 0 to 8192"),
        (&["--logger=other"][..], &[][..], 1, "zap is the only one"),
        (&["--config-file=/no/such/file"][..], &[][..], 1, "cannot be read"),
        (&["--name=a"][..], &[("ETCD_NAME", "a")][..], 1, "ETCD_NAME is shadowed"),
        (&[][..], &[("ETCD_MAX_TXN_OPS", "x")][..], 1, "for ETCD_MAX_TXN_OPS"),
        (&["--name=b", founders][..], &[][..], 1, "couldn't find local name \\\"b\\\""),
        (
            &["--name=a", founders, "--initial-advertise-peer-urls=http://127.0.0.1:2"][..],
            &[][..],
            1,
            "--initial-cluster has a=http://127.0.0.1:1 but missing from",
        ),
    ] {
        let (ended, told) = refusal(flags, variables);
        assert!(ended == Some(code) && told.contains(said), "{flags:?}: {ended:?} {told}");
    }
}

/// etcd looks at the founders once; who has begun knows them.
#[test]
fn a_member_that_has_begun_may_be_given_other_founders() {
    let folder = DataDir::new("flags-founders");
    let founders = ["--name=default", "--initial-cluster=default=http://127.0.0.1:1"];
    drop(Etcd::start(folder.path(), &[]));
    drop(Etcd::start(folder.path(), &founders));
}

/// What etcd 3.7.3 tells on /metrics, without what its Go runtime tells, and is told here as well.
const TOLD: &[&str] = &[
    "etcd_cluster_version",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_db_compaction_last",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_server_alarms",
    "etcd_debugging_server_lease_expired_total",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_disk_backend_snapshot_duration_seconds",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_wal_write_bytes_total",
    "etcd_disk_wal_write_duration_seconds",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_hash_duration_seconds",
    "etcd_mvcc_hash_rev_duration_seconds",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_known_peers",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_sent_bytes_total",
    "etcd_server_client_requests_total",
    "etcd_server_has_leader",
    "etcd_server_health_failures",
    "etcd_server_health_success",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_id",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_learner_promote_successes",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_snapshot_apply_in_progress_total",
    "etcd_server_version",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_started_total",
    "os_fd_limit",
    "os_fd_used",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_network_receive_bytes_total",
    "process_network_transmit_bytes_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "process_virtual_memory_max_bytes",
];

/// What etcd tells and is not told here, and why.
const NOT_TOLD: &[(&str, &[&str])] = &[
    ("There are no users.", &["etcd_debugging_auth_revision"]),
    (
        "There is no bbolt, no index in memory and nothing to defragment.",
        &[
            "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
            "etcd_debugging_disk_backend_commit_spill_duration_seconds",
            "etcd_debugging_disk_backend_commit_write_duration_seconds",
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
            "etcd_disk_backend_defrag_duration_seconds",
            "etcd_disk_defrag_inflight",
            "etcd_mvcc_db_open_read_transactions",
        ],
    ),
    (
        "A watch is a position: nothing is pending, and there is one loop that sends.",
        &[
            "etcd_debugging_mvcc_pending_events_total",
            "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
            "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
            "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
            "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        ],
    ),
    (
        "There are no snapshot files of the log, no store of v2, no proxy, no Go.",
        &[
            "etcd_debugging_snap_save_marshalling_duration_seconds",
            "etcd_debugging_snap_save_total_duration_seconds",
            "etcd_debugging_store_expires_total",
            "etcd_debugging_store_watch_requests_total",
            "etcd_debugging_store_watchers",
            "etcd_grpc_proxy_cache_hits_total",
            "etcd_grpc_proxy_cache_keys_total",
            "etcd_grpc_proxy_cache_misses_total",
            "etcd_grpc_proxy_events_coalescing_total",
            "etcd_grpc_proxy_watchers_coalescing_total",
            "etcd_server_feature_enabled",
            "etcd_server_go_version",
            "etcd_snap_db_fsync_duration_seconds",
            "etcd_snap_db_save_total_duration_seconds",
            "etcd_snap_fsync_duration_seconds",
            "promhttp_metric_handler_requests_in_flight",
            "promhttp_metric_handler_requests_total",
        ],
    ),
    (
        "Nobody looks at the clock for each entry; quorate_request_duration_seconds has the times of calls.",
        &[
            "etcd_server_apply_duration_seconds",
            "etcd_server_range_duration_seconds",
            "etcd_server_request_duration_seconds",
        ],
    ),
    (
        "By member, or only while states are sent: quorate_links_* have the sums of what members send each other.",
        &[
            "etcd_network_active_peers",
            "etcd_network_disconnected_peers_total",
            "etcd_network_peer_received_failures_total",
            "etcd_network_peer_round_trip_time_seconds",
            "etcd_network_peer_sent_failures_total",
            "etcd_network_server_stream_failures_total",
            "etcd_network_snapshot_receive_failures",
            "etcd_network_snapshot_receive_inflights_total",
            "etcd_network_snapshot_receive_success",
            "etcd_network_snapshot_receive_total_duration_seconds",
            "etcd_network_snapshot_send_failures",
            "etcd_network_snapshot_send_inflights_total",
            "etcd_network_snapshot_send_success",
            "etcd_network_snapshot_send_total_duration_seconds",
            "etcd_server_learner_promote_failures",
        ],
    ),
];

/// Dashboards and alerts look for names: each of etcd's is there, or is known not to be.
#[test]
fn every_figure_of_etcd_is_told_or_is_named_as_one_that_is_not() {
    let folder = DataDir::new("etcd-figures");
    let server = Etcd::start(folder.path(), &["--metrics=extensive"]);
    let ask = |path: &str, body: Value| {
        let (status, answer) = server.post(path, &body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    let (_, figures) = server.http().ask("GET", "/metrics", "");
    let ranges = figure(&figures, "etcd_mvcc_range_total");
    // The page of figures counts its own look at the keys.
    let (_, figures) = server.http().ask("GET", "/metrics", "");
    assert_eq!(figure(&figures, "etcd_mvcc_range_total"), ranges + 1.0);

    let lease = ask("/v3/lease/grant", json!({"TTL": 100}))["ID"].clone();
    let stream = |path: &str, body: Value| {
        let mut http = server.http();
        http.send("POST", path, &body.to_string());
        assert_eq!(http.head().0, 200, "{path}");
        http.chunk();
        http
    };
    drop(stream("/v3/lease/keepalive", json!({"ID": lease})));
    for _ in 0..3 {
        ask("/v3/kv/put", json!({"key": "YQ==", "lease": lease}));
    }
    ask("/v3/kv/range", json!({"key": "YQ=="}));
    let range = json!({"request_range": {"key": "YQ=="}});
    ask("/v3/kv/txn", json!({"success": [range, range]}));
    ask("/v3/kv/txn", json!({"success": [range, {"request_put": {"key": "YQ=="}}]}));
    ask("/v3/kv/compaction", json!({"revision": 4, "physical": true}));
    ask("/v3/maintenance/hash", json!({}));
    ask("/v3/maintenance/hashkv", json!({}));
    ask("/v3/maintenance/hashkv", json!({"revision": 4}));
    drop(stream("/v3/maintenance/snapshot", json!({})));
    ask(
        "/v3/maintenance/alarm",
        json!({"action": "ACTIVATE", "memberID": "7", "alarm": "CORRUPT"}),
    );
    let created = json!({"create_request": {"key": "YQ==", "start_revision": 4}});
    let _watch = stream("/v3/watch", created);
    until("the change is told", || {
        let (_, figures) = server.http().ask("GET", "/metrics", "");
        figure(&figures, "etcd_debugging_mvcc_events_total") == 2.0
    });
    let (_, figures) = server.http().ask("GET", "/metrics", "");
    for (name, value) in [
        ("etcd_debugging_lease_ttl_total_bucket{le=\"64\"}", 0.0),
        ("etcd_debugging_lease_ttl_total_bucket{le=\"128\"}", 1.0),
        ("etcd_debugging_lease_ttl_total_sum", 100.0),
        ("etcd_debugging_lease_renewed_total", 1.0),
        ("etcd_debugging_mvcc_slow_watcher_total", 0.0),
        ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
        ("etcd_debugging_server_alarms{alarm_type=\"CORRUPT\",server_id=\"7\"}", 1.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 1.0),
        ("etcd_mvcc_hash_duration_seconds_count", 1.0),
        ("etcd_mvcc_hash_rev_duration_seconds_count", 2.0),
        ("etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"}", 3.0),
        ("etcd_server_proposals_failed_total", 0.0),
    ] {
        assert_eq!(figure(&figures, name), value, "{name}");
    }
    assert!(figure(&figures, "etcd_debugging_mvcc_db_compaction_last") > 1e9);
    assert!(figure(&figures, "etcd_mvcc_range_total") >= ranges + 6.0);
    let told: Vec<&str> = figures
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ').map(|(name, _)| name))
        .collect();
    for name in TOLD {
        assert!(told.contains(name), "{name} is not told");
    }
    for (why, names) in NOT_TOLD {
        for name in *names {
            assert!(!told.contains(name) && !TOLD.contains(name), "{name} is told; {why}");
        }
    }
    for name in told.iter().filter(|name| name.starts_with("etcd_")) {
        assert!(TOLD.contains(name), "{name} is none of etcd's names");
    }
}

/// The URLs at which a member is found that has this name, as `from` lists it.
fn urls_of(from: &Etcd, name: &str) -> Vec<String> {
    let (status, list) = from.post("/v3/cluster/member/list", &json!({}));
    assert_eq!(status, 200, "{list}");
    let all = list["members"].as_array().into_iter().flatten();
    let of_name = all.filter(|one| one["name"] == name);
    let urls = of_name.flat_map(|one| one["clientURLs"].as_array().cloned().unwrap_or_default());
    urls.map(|url| url.as_str().unwrap().to_owned()).collect()
}

/// Clients that balance, and scripts that wait for the line and then list the members, rely on it.
#[test]
fn who_is_ready_is_in_the_list_of_members_and_who_asks_earlier_waits_for_that() {
    let folder = DataDir::new("etcd-ready-alone");
    let peer = format!("http://{}", free_address());
    let flags =
        [format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")];
    let flags = flags.each_ref().map(String::as_str);
    let alone = Etcd::spawn(folder.path(), "default", free_address(), &flags);
    until("a door", || std::net::TcpStream::connect(alone.client).is_ok());
    assert_eq!(urls_of(&alone, "default"), [format!("http://{}", alone.client)]);

    let folder = DataDir::new("etcd-ready");
    let members = beginning(folder.path(), &[]);
    let mut waiting: Vec<(&Etcd, &str)> = members.iter().zip(["a", "b", "c"]).collect();
    until("all of them", || {
        waiting.retain(|(member, name)| {
            let is_ready = member.process.stderr().contains("ready to serve client requests");
            // Any of them knows it, whichever came first.
            for one in members.iter().filter(|_| is_ready) {
                assert_eq!(urls_of(one, name), [format!("http://{}", member.client)]);
            }
            !is_ready
        });
        waiting.is_empty()
    });
}
