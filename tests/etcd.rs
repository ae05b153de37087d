//! etcd's API as clients without gRPC reach it: JSON, health, version, figures; and that a client port takes
//! both protocols.
//!
//! gRPC itself is tested with etcd's own clients (`tests/clients`).

#![allow(clippy::unwrap_used)]

mod http;
mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Compact, Put};
use http::Http;
use process::{DataDir, PATIENCE, Server, Signal};
use serde_json::{Value, json};

/// The address of a server that is for clients of etcd.
fn etcd_address(server: &Server) -> SocketAddr {
    let field = server.ready_line().split(' ').find_map(|field| field.strip_prefix("etcd="));
    field.expect("the ready line names it").parse().unwrap()
}

#[test]
fn keys_leases_and_transactions_are_written_as_json() {
    let folder = DataDir::new("etcd-json");
    let server = Server::start(folder.path(), &["--listen-client", "127.0.0.1:0"]);
    let address = etcd_address(&server);
    assert_ne!(address, server.address());
    let mut http = Http::connect(address);

    let (status, put) = http.post("/v3/kv/put", &json!({"key": "Zm9v", "value": "YmFy"}));
    assert_eq!((status, &put["header"]["revision"]), (200, &json!("2")));
    let (_, range) = http.post("/v3/kv/range", &json!({"key": "Zm9v"}));
    assert_eq!(range["count"], json!("1"));
    assert_eq!(range["kvs"][0]["value"], json!("YmFy"));
    assert_eq!(range["kvs"][0]["mod_revision"], json!("2"));
    assert_eq!(range["kvs"][0].get("lease"), None, "what is 0 is left out");
    assert!(range["header"]["raft_term"].as_str().is_some_and(|term| term != "0"));

    // Numbers may be numbers, names may be in camel case, what is not known is ignored.
    let (_, grant) = http.post("/v3/lease/grant", &json!({"TTL": 60, "ID": "77", "other": []}));
    assert_eq!((&grant["ID"], &grant["TTL"]), (&json!("77"), &json!("60")));
    let put = json!({"key": "YQ==", "value": "MQ==", "lease": 77, "prevKv": true});
    assert_eq!(http.post("/v3/kv/put", &put).0, 200);
    let asked = json!({"ID": "77", "keys": true});
    let (_, time) = http.post("/v3/kv/lease/timetolive", &asked);
    assert_eq!((&time["grantedTTL"], &time["keys"]), (&json!("60"), &json!(["YQ=="])));

    let txn = json!({
        "compare": [{"key": "YQ==", "target": "VALUE", "result": "EQUAL", "value": "MQ=="}],
        "success": [
            {"request_put": {"key": "YQ==", "value": "Mg=="}},
            {"request_range": {"key": "YQ=="}},
        ],
    });
    let (_, done) = http.post("/v3/kv/txn", &txn);
    assert_eq!(done["succeeded"], json!(true));
    assert_eq!(done["responses"][1]["response_range"]["kvs"][0]["value"], json!("Mg=="));
    let (_, deleted) = http.post("/v3/kv/deleterange", &json!({"key": "YQ==", "prev_kv": true}));
    assert_eq!(deleted["prev_kvs"][0]["version"], json!("2"));
}

#[test]
fn refusals_have_the_codes_and_texts_that_clients_of_etcd_know() {
    let folder = DataDir::new("etcd-refusals");
    let server = Server::start(folder.path(), &[]);
    let mut http = Http::connect(server.address());
    let key_missing = json!({"code": 3, "message": "etcdserver: key is not provided"});
    assert_eq!(http.post("/v3/kv/put", &json!({})), (400, key_missing));
    let (status, future) = http.post("/v3/kv/range", &json!({"key": "YQ==", "revision": 99}));
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!((status, &future["message"]), (400, &json!(text)));
    let (status, lease) = http.post("/v3/lease/revoke", &json!({"ID": 5}));
    assert_eq!((status, &lease["code"]), (404, &json!(5)));
    assert_eq!(http.post("/v3/nosuch", &json!({})).0, 404);
    let (status, kind) = http.post("/v3/kv/range", &json!({"key": 1}));
    assert_eq!(status, 400);
    let text = kind["message"].as_str().unwrap();
    assert!(text.contains("bytes field key"), "{text}");
    // The connection has survived all of it.
    assert_eq!(http.post("/v3/kv/put", &json!({"key": "YQ=="})).0, 200);
    let (status, _) = http.ask("POST", "/v3/kv/put", "{\"key\":");
    assert_eq!(status, 400);
}

/// Longer than what is held of an answer: it comes in parts, and is one object.
/// Nor is it another one when all of it is changed and compacted while its client takes it.
#[test]
fn a_long_list_is_one_object_of_json() {
    let folder = DataDir::new("etcd-long");
    let server = Server::start(folder.path(), &[]);
    let mut client = server.client();
    let value = vec![b'v'; 300_000];
    for index in 0..80_u8 {
        client.put(&Put::new(&[b'k', index], &value)).unwrap();
    }
    let mut http = Http::connect(server.address());
    let asked = json!({"key": "aw==", "range_end": "bA==", "limit": 79});
    http.send("POST", "/v3/kv/range", &asked.to_string());
    assert_eq!(http.head(), (200, None), "its size is not known before");
    for index in 0..80_u8 {
        client.put(&Put::new(&[b'k', index], b"later")).unwrap();
    }
    client.compact(&Compact { revision: 161, physical: false }).unwrap();
    thread::sleep(Duration::from_secs(1));
    let mut text = String::new();
    loop {
        let chunk = http.chunk();
        if chunk.is_empty() {
            break;
        }
        text.push_str(&chunk);
    }
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["header"]["revision"], json!("81"));
    assert_eq!((&list["count"], &list["more"]), (&json!("80"), &json!(true)));
    let kvs = list["kvs"].as_array().unwrap();
    assert_eq!(kvs.len(), 79);
    for (kv, index) in kvs.iter().zip(0_u8..) {
        assert_eq!(kv["key"], json!(STANDARD.encode([b'k', index])));
        assert_eq!(kv["value"], json!(STANDARD.encode(&value)));
    }
    // The connection goes on, and nothing waits for the list any more.
    assert_eq!(http.post("/v3/kv/put", &json!({"key": "YQ=="})).0, 200);
    client.compact(&Compact { revision: 162, physical: true }).unwrap();
}

#[test]
fn a_watch_tells_changes_line_by_line() {
    let folder = DataDir::new("etcd-watch");
    let server = Server::start(folder.path(), &[]);
    let mut watch = Http::connect(server.address());
    // Of unknown length: the client may say more.
    let head = "POST /v3/watch HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = json!({"create_request": {"key": "YQ==", "prev_kv": true}}).to_string();
    let begin = format!("{head}{:x}\r\n{request}\r\n", request.len());
    watch.stream.get_mut().write_all(begin.as_bytes()).unwrap();
    let (status, size) = watch.head();
    assert_eq!((status, size), (200, None));
    let created: Value = serde_json::from_str(&watch.chunk()).unwrap();
    assert_eq!(created["result"]["created"], json!(true));

    let mut client = server.client();
    for value in ["1", "2"] {
        client.put(&Put::new(b"a", value.as_bytes())).unwrap();
    }
    for (value, previous) in [("MQ==", None), ("Mg==", Some(json!("MQ==")))] {
        let told: Value = serde_json::from_str(&watch.chunk()).unwrap();
        let event = &told["result"]["events"][0];
        assert_eq!(event["kv"]["value"], json!(value));
        assert_eq!(event["prev_kv"].get("value").cloned(), previous);
    }
}

/// `etcd --version | head -1` stands in many scripts.
#[test]
fn the_version_may_be_read_in_part() {
    let mut command = Command::new(process::BINARY);
    command.args(["etcd", "--version"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Clients of etcd balance over all members, and one that is told to stop is still chosen by those who have not heard
/// of it: what they ask failed from the moment of the signal on, for nothing.
#[test]
fn what_is_asked_before_a_client_knows_of_the_end_is_answered() {
    let folder = DataDir::new("etcd-stop");
    let server = Server::start(folder.path(), &[]);
    let (mut asking, mut idle) = (Http::connect(server.address()), Http::connect(server.address()));
    let read = json!({"key": "YQ=="});
    for http in [&mut asking, &mut idle] {
        assert_eq!(http.post("/v3/kv/range", &read).0, 200);
    }
    let body = json!({"key": "YQ==", "value": "MQ=="}).to_string();
    let head = "POST /v3/kv/put HTTP/1.1\r\nhost: x\r\ncontent-length";
    let begin = format!("{head}: {}\r\n\r\n{}", body.len(), &body[..4]);
    asking.stream.get_mut().write_all(begin.as_bytes()).unwrap();
    // What comes behind it has an answer: it has been read.
    assert_eq!(idle.post("/v3/kv/range", &read).0, 200);

    server.signal(Signal::TERM);
    let mut rest = Vec::new();
    idle.stream.read_to_end(&mut rest).unwrap();
    assert!(TcpStream::connect(server.address()).is_err(), "nobody comes to one that ends");
    asking.stream.get_mut().write_all(&body.as_bytes()[4..]).unwrap();
    assert_eq!(asking.head().0, 200);
    let ended = server.ended_within(PATIENCE).unwrap_or_else(|_| panic!("it does not stop"));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn health_version_and_figures_are_where_probes_look_for_them() {
    let folder = DataDir::new("etcd-health");
    let server = Server::start(folder.path(), &[]);
    let mut http = Http::connect(server.address());
    let healthy = "{\"health\":\"true\",\"reason\":\"\"}";
    assert_eq!(http.ask("GET", "/health", ""), (200, healthy.into()));
    assert_eq!(http.ask("GET", "/health?serializable=true", ""), (200, healthy.into()));
    assert_eq!(http.ask("GET", "/livez", ""), (200, "ok\n".into()));
    let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
               [+]non_learner ok\nok\n";
    assert_eq!(http.ask("GET", "/readyz?verbose", ""), (200, all.into()));
    let some = "[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    let excluded = http.ask("GET", "/readyz?verbose&exclude=data_corruption", "");
    assert_eq!(excluded, (200, some.into()));
    assert_eq!(http.ask("GET", "/readyz/linearizable_read", "").0, 200);
    assert_eq!(http.ask("GET", "/readyz/nosuch", "").0, 404);
    assert_eq!(http.ask("GET", "/nosuch", "").0, 404);
    let (_, version) = http.ask("GET", "/version", "");
    let version: Value = serde_json::from_str(&version).unwrap();
    assert!(version["etcdserver"].as_str().unwrap().starts_with("3.7."), "{version}");
    let (status, figures) = http.ask("GET", "/metrics", "");
    assert_eq!(status, 200);
    for name in ["etcd_server_has_leader 1", "quorate_limit_used{limit="] {
        assert!(figures.contains(name), "{name}: {figures}");
    }
}

#[test]
fn other_methods_are_answered_as_etcd_answers_them() {
    let folder = DataDir::new("etcd-methods");
    let server = Server::start(folder.path(), &[]);
    let mut http = Http::connect(server.address());
    let not_allowed = (405, "Method Not Allowed\n".to_owned());
    for path in ["/health", "/version", "/livez", "/readyz/non_learner"] {
        assert_eq!(http.ask("POST", path, ""), not_allowed, "{path}");
        assert_eq!(http.ask("PUT", path, ""), not_allowed, "{path}");
        http.send("HEAD", path, "");
        assert_eq!(http.head(), (405, Some(not_allowed.1.len())), "{path}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let (status, text) = http.ask(method, "/v3/kv/range", "");
        let expected = json!({"code": 12, "message": "Method Not Allowed"});
        assert_eq!((status, serde_json::from_str(&text).ok()), (501, Some(expected)), "{method}");
        let (status, text) = http.ask(method, "/v3/nosuch", "");
        let expected = json!({"code": 5, "message": "Not Found"});
        assert_eq!((status, serde_json::from_str(&text).ok()), (404, Some(expected)), "{method}");
        assert_eq!(http.ask(method, "/nosuch", "").0, 404);
    }
    assert_eq!(http.ask("POST", "/metrics", "").0, 200);
    http.send("HEAD", "/metrics", "");
    let (status, size) = http.head();
    assert!(status == 200 && size > Some(1_000), "{status} {size:?}");
    for path in ["/health", "/v3/kv/range", "/nosuch"] {
        assert_eq!(http.ask("OPTIONS", path, ""), (200, String::new()), "{path}");
    }
}

#[test]
fn a_port_takes_both_protocols_at_once_and_garbage_of_neither() {
    let folder = DataDir::new("etcd-ports");
    let server = Server::start(folder.path(), &["--listen-client", "127.0.0.1:0"]);
    for address in [server.address(), etcd_address(&server)] {
        let mut client = process::connect(address).unwrap();
        let mut http = Http::connect(address);
        client.put(&Put::new(b"k", b"native")).unwrap();
        let (_, range) = http.post("/v3/kv/range", &json!({"key": "aw=="}));
        assert_eq!(range["kvs"][0]["value"], json!("bmF0aXZl"));
        for garbage in ["\0\0\0\0", "zzz\r\n\r\n", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx"] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(garbage.as_bytes()).unwrap();
            drop(stream);
        }
        client.put(&Put::new(b"k", b"still here")).unwrap();
        assert_eq!(http.ask("GET", "/livez", "").0, 200);
    }
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let size = u8::try_from(payload.len()).unwrap();
    [&[0, 0, size, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Reads frames until one of this type comes that is an acknowledgement: its payload.
fn acknowledgement(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).unwrap();
        let mut payload = vec![0_u8; usize::from(header[1]) << 8 | usize::from(header[2])];
        stream.read_exact(&mut payload).unwrap();
        if header[3] == kind && header[4] == 1 {
            return payload;
        }
    }
}

/// The answer to a ping goes out with the answer to a call, but does not wait for it for long.
#[test]
fn a_ping_is_answered_beside_a_call_that_has_no_answer() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    let folder = DataDir::new("etcd-ping");
    let server = Server::start(folder.path(), &["--listen-client", "127.0.0.1:0"]);
    let mut stream = TcpStream::connect(etcd_address(&server)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    stream.write_all(&[&preface[..], &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    assert!(acknowledgement(&mut stream, SETTINGS).is_empty());

    stream.write_all(&frame(PING, 0, 0, b"nothing!")).unwrap();
    assert_eq!(acknowledgement(&mut stream, PING), b"nothing!");

    // POST, http, the path and the authority as literals that are not indexed (RFC 7541, 6.2.2 and A).
    let path = b"/etcdserverpb.KV/Range";
    let mut headers = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    headers.extend_from_slice(path);
    headers.extend_from_slice(&[0x01, 1, b'x']);
    // The message never comes, so that there is no answer.
    let request = frame(1, 4, 1, &headers);
    stream.write_all(&[&request[..], &frame(PING, 0, 0, b"a call !")].concat()).unwrap();
    assert_eq!(acknowledgement(&mut stream, PING), b"a call !");
    stream
        .write_all(&[&frame(PING, 0, 0, b"again  !")[..], &frame(8, 0, 1, &[0, 0, 1, 0])].concat())
        .unwrap();
    assert_eq!(acknowledgement(&mut stream, PING), b"again  !");
}

/// The lines of `inspect log --as-etcd`: the commit index, and what each entry of the log holds.
fn log_as_etcd(folder: &DataDir) -> (u64, Vec<Vec<u8>>) {
    let done = process::run(&["inspect", "log", "--as-etcd", folder.path().to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let commit = lines.next().unwrap()["commit"].as_u64().unwrap();
    let mut next = None;
    let mut entry = |line: Value| {
        let index = line["index"].as_u64().unwrap();
        assert!(next.is_none_or(|next| next == index), "{line}");
        next = Some(index + 1);
        assert_eq!(line["type"], json!(0));
        assert!(line["term"].as_u64().is_some_and(|term| term > 0));
        STANDARD.decode(line["data"].as_str().unwrap()).unwrap()
    };
    (commit, lines.map(&mut entry).collect())
}

/// Programs that check etcd's log read this one; the messages are looked at with etcd's own in `tests/clients`.
#[test]
fn the_log_of_a_server_that_runs_reads_as_that_of_etcd() {
    let folder = DataDir::new("etcd-log");
    let server = Server::start(folder.path(), &["--listen-client", "127.0.0.1:0"]);
    let mut http = Http::connect(etcd_address(&server));
    let (_, grant) = http.post("/v3/lease/grant", &json!({"TTL": 600}));
    let lease: i64 = grant["ID"].as_str().unwrap().parse().unwrap();
    http.post("/v3/kv/put", &json!({"key": "Zm9v", "value": "YmFy", "lease": lease}));
    http.post("/v3/lease/revoke", &json!({"ID": lease}));
    http.post("/v3/maintenance/alarm", &json!({"action": "ACTIVATE", "memberID": 300, "alarm": 2}));

    let (commit, entries) = log_as_etcd(&folder);
    assert_eq!(u64::try_from(entries.len()).unwrap(), commit, "a server alone: all is committed");
    let written: Vec<_> = entries.into_iter().filter(|data| !data.is_empty()).collect();
    let [granted, put, revoked, raised] = &written[..] else { panic!("{written:?}") };
    let number = |lease: i64| {
        let mut bytes = Vec::new();
        let mut rest = lease.cast_unsigned();
        while rest >= 0x80 {
            bytes.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        bytes.push(rest.to_le_bytes()[0]);
        bytes
    };
    let has = |data: &[u8], part: &[u8]| data.windows(part.len()).any(|window| window == part);
    // Field 8 of the request, and in it the seconds and the id that the server chose.
    assert!(has(granted, &[&[0x42, 13, 0x08, 0xd8, 0x04, 0x10][..], &number(lease)].concat()));
    assert!(
        has(put, &[&b"\x22\x14\x0a\x03foo\x12\x03bar\x18"[..], &number(lease)].concat()),
        "{put:?}"
    );
    assert!(has(revoked, &[&[0x4a, 10, 0x08][..], &number(lease)].concat()), "{revoked:?}");
    // Field 10: the action, the member, the kind.
    assert!(has(raised, &[0x52, 7, 0x08, 1, 0x10, 0xac, 2, 0x18, 2]), "{raised:?}");

    // A commit index that has been seen stays.
    drop(server.kill());
    let (later, entries) = log_as_etcd(&folder);
    assert!(later >= commit && entries.len() >= usize::try_from(commit).unwrap());
}

/// What a real etcd 3.7.3 answers to the same, but for the alarm of member 0: there 0 is one member more.
#[test]
fn alarms_are_raised_and_disarmed_by_hand() {
    let folder = DataDir::new("etcd-alarms");
    let server = Server::start(folder.path(), &[]);
    let mut http = Http::connect(server.address());
    let mut alarm = |body: &Value| {
        let (status, answer) = http.post("/v3/maintenance/alarm", body);
        assert_eq!(status, 200, "{answer}");
        answer.get("alarms").cloned().unwrap_or(json!([]))
    };
    let of = |member: u64, kind: &str| match member {
        0 => json!({"alarm": kind}),
        member => json!({"memberID": member.to_string(), "alarm": kind}),
    };
    let change = |action: &str, member: u64, kind: &str| {
        let member = member.to_string();
        json!({"action": action, "memberID": member, "alarm": kind})
    };
    for member in [5, 5, 9, 0] {
        let told = alarm(&change("ACTIVATE", member, "NOSPACE"));
        assert_eq!(told, json!([of(member, "NOSPACE")]));
    }
    assert_eq!(alarm(&change("ACTIVATE", 3, "NONE")), json!([]));
    let all = json!([of(0, "NOSPACE"), of(5, "NOSPACE"), of(9, "NOSPACE")]);
    assert_eq!(alarm(&json!({})), all);
    assert_eq!(alarm(&json!({"memberID": "9"})), all, "whose is not asked");
    assert_eq!(alarm(&json!({"alarm": "CORRUPT"})), json!([]));
    assert_eq!(alarm(&json!({"action": "DEACTIVATE"})), json!([]));
    assert_eq!(alarm(&change("DEACTIVATE", 5, "NONE")), json!([]));
    assert_eq!(alarm(&change("DEACTIVATE", 5, "NOSPACE")), json!([of(5, "NOSPACE")]));
    assert_eq!(alarm(&change("DEACTIVATE", 5, "NOSPACE")), json!([]));
    let rest = json!([of(0, "NOSPACE"), of(9, "NOSPACE")]);
    assert_eq!(alarm(&change("DEACTIVATE", 0, "NOSPACE")), rest);

    assert_eq!(alarm(&change("ACTIVATE", 7, "CORRUPT")), json!([of(7, "CORRUPT")]));
    let key = json!({"key": "YQ=="});
    let delete = json!({"success": [{"request_delete_range": key}]});
    let refused = [
        ("kv/put", &key),
        ("kv/deleterange", &key),
        ("kv/compaction", &json!({"revision": 1})),
        ("kv/txn", &delete),
        ("lease/grant", &json!({"TTL": 60})),
        ("lease/revoke", &json!({"ID": 5})),
    ];
    let mut http = Http::connect(server.address());
    for (path, body) in refused {
        let (status, answer) = http.post(&format!("/v3/{path}"), body);
        let told = (status, &answer["code"], &answer["message"]);
        assert_eq!(told, (500, &json!(15), &json!("etcdserver: corrupt cluster")), "{path}");
    }
    let read = json!({"success": [{"request_range": key}]});
    for (path, body) in [("kv/range", &key), ("kv/txn", &read), ("maintenance/hashkv", &json!({}))]
    {
        assert_eq!(http.post(&format!("/v3/{path}"), body).0, 200, "{path}");
    }
    let (status, health) = http.ask("GET", "/health?exclude=NOSPACE", "");
    assert_eq!((status, health.contains("ALARM CORRUPT")), (503, true), "{health}");
    let (status, ready) = http.ask("GET", "/readyz", "");
    let text = "[-]data_corruption failed: alarm activated: CORRUPT";
    assert_eq!((status, ready.contains(text)), (503, true), "{ready}");
    let (_, told) = http.post("/v3/maintenance/alarm", &change("DEACTIVATE", 7, "CORRUPT"));
    assert_eq!(told["alarms"], json!([of(7, "CORRUPT")]));
    assert_eq!(http.post("/v3/kv/put", &key).0, 200);
}

#[test]
fn users_and_roles_that_nobody_has_added_are_told_as_etcd_tells_them() {
    let folder = DataDir::new("etcd-auth");
    let server = Server::start(folder.path(), &[]);
    let mut http = Http::connect(server.address());
    assert_eq!(http.post("/v3/auth/disable", &json!({})).0, 200);
    let no_user = (9, "etcdserver: user name not found");
    let no_role = (9, "etcdserver: role name not found");
    let invalid = (3, "etcdserver: invalid auth management");
    let refusals = [
        ("enable", json!({}), (9, "etcdserver: root user does not exist")),
        ("authenticate", json!({"name": "a"}), (9, "etcdserver: authentication is not enabled")),
        ("user/get", json!({"name": "a"}), no_user),
        ("user/delete", json!({"name": "a"}), no_user),
        ("user/changepw", json!({"name": "a", "password": "p"}), no_user),
        ("user/grant", json!({"user": "a", "role": "r"}), no_user),
        ("user/revoke", json!({"name": "a", "role": "r"}), no_user),
        ("role/get", json!({"role": "r"}), no_role),
        ("role/delete", json!({"role": "r"}), no_role),
        ("role/revoke", json!({"role": "r", "key": "YQ=="}), no_role),
        ("role/grant", json!({"name": "r"}), (3, "etcdserver: permission not given")),
        ("role/grant", json!({"name": "r", "perm": {}}), invalid),
        ("role/grant", json!({"perm": {"key": "Yg==", "range_end": "YQ=="}}), invalid),
        (
            "role/grant",
            json!({"perm": {"permType": "READ", "key": "Yg==", "range_end": "AA=="}}),
            no_role,
        ),
        ("user/add", json!({}), (3, "etcdserver: user name is empty")),
        ("role/add", json!({}), (3, "etcdserver: role name is empty")),
    ];
    for (path, request, (code, text)) in refusals {
        let (_, answer) = http.post(&format!("/v3/auth/{path}"), &request);
        assert_eq!(answer, json!({"code": code, "message": text}), "{path} {request}");
    }
    for path in ["user/add", "role/add"] {
        let (status, answer) = http.post(&format!("/v3/auth/{path}"), &json!({"name": "a"}));
        assert_eq!((status, &answer["code"]), (501, &json!(12)), "{path}: {answer}");
    }
}
