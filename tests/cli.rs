//! The one binary as a person or a script meets it: what each command prints, its JSON, its exit codes;
//! what a server refuses at its start, in words; trees of files there and back; a disk that is full.
//! How requests behave is not looked at here (semantics.rs).

#![allow(clippy::unwrap_used)]

mod process;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use client::{Client, Compact, DeleteRange, Effect, Error, Op, Put, Range, Status, Txn};
use process::{BINARY, DataDir, PATIENCE, SMALL, Server, Signal, Start};
use serde_json::Value;

/// Runs a command to its end, which must come in time.
fn ends(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Who does not read its input breaks the pipe: no failure.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        panic!("{command:?} does not end");
    })
}

fn binary(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("QUORATE_ENDPOINT");
    command
}

/// What a command against a server came to.
struct Done {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

struct Shell {
    endpoint: String,
}

impl Shell {
    fn on(server: &Server) -> Self {
        Self { endpoint: server.address().to_string() }
    }

    fn with_input(&self, arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Done {
        let mut command = binary(arguments);
        command.env("QUORATE_ENDPOINT", &self.endpoint);
        Done::of(ends(command, input))
    }

    fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Done {
        self.with_input(arguments, b"")
    }

    /// Splits at spaces, succeeds, and returns standard output.
    fn out(&self, line: &str) -> String {
        let done = self.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{line}");
        String::from_utf8(done.out).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        self.run(&[line.split(' ').collect::<Vec<_>>(), vec!["-w", "json"]].concat()).json()
    }

    /// The exit code and the text of a command that fails.
    fn fails(&self, line: &str) -> (i32, String) {
        let done = self.run(&line.split(' ').collect::<Vec<_>>());
        assert!(done.err.starts_with("Error: "), "{line}: {}", done.err);
        (done.code, done.err)
    }
}

fn start(name: &str) -> (DataDir, Server, Shell) {
    let dir = DataDir::new(name);
    let server = Server::start(dir.path(), SMALL);
    let shell = Shell::on(&server);
    (dir, server, shell)
}

/// A folder that goes with the value.
fn folder(name: &str) -> DataDir {
    let folder = DataDir::new(name);
    fs::create_dir_all(folder.path()).unwrap();
    folder
}

// ---------------------------------------------------------------------------------- keys

#[test]
fn put_get_and_del_print_what_etcdctl_prints() {
    let (_dir, _server, shell) = start("lines");
    assert_eq!(shell.out("put a one"), "OK\n");
    assert_eq!(shell.out("put a two --prev-kv"), "OK\na\none\n");
    assert_eq!(shell.out("get a"), "a\ntwo\n");
    assert_eq!(shell.out("get absent"), "");
    assert_eq!(shell.out("put b/1 x"), "OK\n");
    assert_eq!(shell.with_input(&["put", "b/2"], b"from\nstdin\n").text(), "OK\n");
    assert_eq!(shell.run(&["put", "b/3", "--", "-dash"]).text(), "OK\n");
    assert_eq!(shell.out("get b/ --prefix"), "b/1\nx\nb/2\nfrom\nstdin\n\nb/3\n-dash\n");
    assert_eq!(shell.out("get a b/2 --keys-only"), "a\n\nb/1\n\n");
    assert_eq!(shell.out("get b/2 --from-key --print-value-only --limit 1"), "from\nstdin\n\n");
    assert_eq!(shell.run(&["get", "", "--prefix", "--count-only"]).text(), "4\n");
    assert_eq!(
        shell.out("get b/ --prefix --order descend --limit 1 --print-value-only"),
        "-dash\n"
    );
    assert_eq!(shell.out("get a b --sort-by modify --order DESCEND --keys-only"), "a\n\n");
    assert_eq!(shell.out("get a --rev 2 --consistency s"), "a\none\n");
    assert_eq!(shell.out("put a --ignore-value"), "OK\n");
    assert_eq!(shell.out("get a --print-value-only"), "two\n");
    assert_eq!(shell.out("del absent"), "0\n");
    assert_eq!(
        shell.out("del b/ --prefix --prev-kv"),
        "3\nb/1\nx\nb/2\nfrom\nstdin\n\nb/3\n-dash\n"
    );
    assert_eq!(shell.run(&["del", "", "--from-key"]).text(), "1\n");
    // Bytes that are no text pass as they are.
    let key = OsStr::from_bytes(b"k\xff\x01");
    let put = [OsStr::new("put"), key, OsStr::from_bytes(b"v\xfe")];
    assert_eq!(shell.run(&put).code, 0);
    assert_eq!(shell.run(&[OsStr::new("get"), key]).out, b"k\xff\x01\nv\xfe\n");
    assert_eq!(shell.with_input(&["put", "zero"], b"a\0b").code, 0);
    assert_eq!(shell.run(&["get", "zero", "--print-value-only"]).out, b"a\0b\n");
}

#[test]
fn json_has_the_names_of_etcdctl_and_bytes_in_base64() {
    let (_dir, _server, shell) = start("json");
    let put = shell.json("put foo bar --prev-kv");
    assert_eq!(put["header"]["revision"], 2);
    assert!(put["header"]["cluster_id"].as_u64().unwrap() > 0);
    assert!(put.get("prev_kv").is_none());
    assert_eq!(shell.json("put foo baz --prev-kv")["prev_kv"]["value"], "YmFy");
    let get = shell.json("get foo");
    let pair = &get["kvs"][0];
    assert_eq!((&pair["key"], &pair["value"]), (&"Zm9v".into(), &"YmF6".into()));
    let numbers = ["create_revision", "mod_revision", "version"].map(|name| pair[name].as_i64());
    assert_eq!(numbers, [Some(2), Some(3), Some(2)]);
    assert_eq!((&get["count"], get.get("more")), (&1.into(), None));
    shell.out("put fop x");
    let limited = shell.json("get foo --from-key --limit 1");
    assert_eq!((&limited["more"], &limited["count"]), (&true.into(), &2.into()));
    let empty = shell.json("get absent");
    assert_eq!((empty.get("kvs"), empty.get("count")), (None, None));
    assert_eq!(shell.json("get foo --from-key --count-only")["count"], 2);
    let del = shell.json("del foo --prev-kv");
    assert_eq!((&del["deleted"], &del["prev_kvs"][0]["version"]), (&1.into(), &2.into()));
    assert_eq!(shell.json("compact 3")["header"]["revision"], 5);
    let status = shell.json("status");
    let [status] = status.as_array().unwrap().as_slice() else { panic!("one endpoint: {status}") };
    assert_eq!(status["endpoint"], shell.endpoint);
    assert_eq!((&status["revision"], &status["compacted_revision"]), (&5.into(), &3.into()));
    assert_eq!((&status["role"], &status["lag"]), (&"leader".into(), &0.into()));
    assert_eq!(status["leader"], status["member_id"]);
    assert_eq!(status["name"], "default");
    for name in ["term", "commit_index", "applied_index", "db_size"] {
        assert!(status[name].as_u64().unwrap() > 0, "{name}");
    }
    assert!(!status["version"].as_str().unwrap().is_empty());
    assert_eq!(status["errors"], Value::Array(Vec::new()));
    let txn =
        shell.with_input(&["txn", "-w", "json"], b"mod(\"fop\") > \"0\"\n\nget fop\n\n\n").json();
    assert_eq!(txn["succeeded"], true);
    assert_eq!(txn["responses"][0]["Response"]["ResponseRange"]["kvs"][0]["key"], "Zm9w");
}

#[test]
fn txn_reads_three_parts_and_prints_its_branch() {
    let (_dir, _server, shell) = start("txn");
    let text = b"create(\"k\") = \"0\"\n\nput k \"a b\\n\"\nget k\n\nput k late\ndel other\n\n";
    let first = shell.with_input(&["txn"], text);
    assert_eq!((first.code, first.text()), (0, "SUCCESS\n\nOK\n\nk\na b\n\n"));
    let second = shell.with_input(&["txn"], text);
    assert_eq!((second.code, second.text()), (0, "FAILURE\n\nOK\n\n0\n"));
    let values = b"value(\"k\") = \"late\"\nversion(\"k\") < \"9\"\nlease(\"k\") = \"0\"\n\ndel k --prev-kv\n";
    assert_eq!(shell.with_input(&["txn"], values).text(), "SUCCESS\n\n1\nk\nlate\n");
    assert_eq!(shell.with_input(&["txn"], b"").text(), "SUCCESS\n");
    for (text, code) in [
        (&b"nonsense\n"[..], 3),
        (b"mod(\"k\") ~ \"0\"\n", 3),
        (b"\nfly k\n", 3),
        (b"\nput \"k\n", 3),
        (b"\nput k v\n\nput k w\n\nput k x\n", 3),
        (b"\nput k v\nput k w\n", 1),
        (b"\nput x --ignore-value\n", 1),
    ] {
        let done = shell.with_input(&["txn"], text);
        assert_eq!(done.code, code, "{}: {}", text.escape_ascii(), done.err);
        assert!(done.err.starts_with("Error: "), "{}", done.err);
    }
    assert_eq!(shell.out("get k"), "");
}

#[test]
fn exit_codes_tell_refusals_from_no_connection_and_from_bad_arguments() {
    let (_dir, server, shell) = start("codes");
    shell.out("put k v");
    let (code, text) = shell.fails("get k --rev 99");
    assert_eq!((code, text.contains("future revision")), (1, true), "{text}");
    assert_eq!(shell.out("compact 2 --physical"), "compacted revision 2\n");
    let (code, text) = shell.fails("compact 2");
    assert_eq!((code, text.contains("has been compacted")), (1, true), "{text}");
    assert_eq!(shell.fails("get k --rev 1").0, 1);
    assert_eq!(shell.fails("put x --ignore-value").0, 1);
    assert_eq!(shell.fails("put k v --lease 7f").0, 1);
    for line in [
        "get",
        "fly k",
        "put k v --no-such-flag",
        "get k --order sideways",
        "get k z --prefix",
        "get k --limit many",
        "compact",
        "compact x",
        "put k v --lease xyz",
        "get k --command-timeout 0s",
        "get k --command-timeout soon",
        "get k -w yaml",
        "get k --keys-only --print-value-only",
        "server --cores 0",
        "server --listen nowhere",
        "server --page-cache 1",
        "server --page-cache lots",
        "server --value-size-max 17MiB",
        "server --value-size-max 0",
        "server --wal-segment-size 1MiB",
        "server --wal-segment-size 8MiB --value-size-max 16MiB",
        "server --topology round",
        "server --sync maybe",
        "member",
        "member add d",
        "member add d --peer nowhere",
        "member update d",
        "local-cluster --nodes 8",
    ] {
        assert_eq!(shell.fails(line).0, 128, "{line}");
    }
    assert_eq!(Done::of(ends(binary(&["put", "", "v"]), b"")).code, 128);
    for endpoint in ["", "nonsense", ":2400", "host:", "host:0", "host:99999"] {
        let nowhere = Shell { endpoint: endpoint.into() };
        assert_eq!(nowhere.fails("get k").0, 128, "{endpoint:?}");
    }
    for line in [
        "--help",
        "--version",
        "version",
        "server --help",
        "bench put --help",
        "member --help",
        "local-cluster --help",
    ] {
        assert!(!shell.out(line).is_empty(), "{line}");
    }
    assert!(shell.out("--help").contains("Exit codes"));
    // Nobody is there; and of several endpoints the first that answers is taken.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = Shell { endpoint: free.to_string() };
    let (code, text) = dead.fails("get k --dial-timeout 1s --command-timeout 1s");
    assert_eq!((code, text.contains(&free.to_string())), (2, true), "{text}");
    let both = format!("{free},{}", server.address());
    assert_eq!(dead.out(&format!("get k --endpoint {both}")), "k\nv\n");
    // One that takes connections and says nothing, or nonsense.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = Shell { endpoint: silent.local_addr().unwrap().to_string() };
    assert_eq!(mute.fails("get k --dial-timeout 200ms --command-timeout 200ms").0, 2);
    let address = silent.local_addr().unwrap();
    let talker = thread::spawn(move || {
        // The connection of before comes first.
        for stream in silent.incoming().take(2) {
            drop(
                stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
            );
        }
    });
    let http = Shell { endpoint: address.to_string() };
    assert_eq!(http.fails("get k --dial-timeout 2s").0, 4);
    talker.join().unwrap();
}

#[test]
fn a_reader_of_the_output_that_goes_ends_the_command_without_a_word() {
    let (_dir, server, shell) = start("pipe");
    let mut client = server.client();
    for number in 0..64_u32 {
        client.put(&Put::new(format!("p/{number:02}").as_bytes(), &vec![b'x'; 100_000])).unwrap();
    }
    let mut command = binary(&["get", "p/", "--prefix"]);
    command.env("QUORATE_ENDPOINT", &shell.endpoint);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn status_is_a_list_of_names_and_values() {
    let (_dir, server, shell) = start("status");
    shell.out("put k v");
    let text = shell.out("status");
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))[name.len()..].trim().to_owned()
    };
    assert_eq!(value("endpoint"), server.address().to_string());
    assert_eq!((value("revision"), value("alarms")), ("2".into(), "none".into()));
    assert_eq!(value("name"), "default");
    assert!(value("member").ends_with("(leader)"));
    assert!(value("applied index").parse::<u64>().unwrap() >= 1);
}

#[test]
fn a_cluster_of_one_has_one_member_that_leads() {
    let (_dir, server, shell) = start("alone");
    let line = shell.out("member list");
    let fields: Vec<&str> = line.trim_end().split(", ").collect();
    assert_eq!((fields[1], fields[2]), ("started", "default"), "{line}");
    assert_eq!((fields[5], fields[6]), ("false", "leader"), "{line}");
    let list = shell.json("member list");
    assert_eq!(list["leader"], list["members"][0]["id"]);
    assert_eq!(list["header"]["cluster_id"], server.cluster());
    let stays = shell.out("move-leader default");
    assert!(stays.starts_with("Leadership stays with member "), "{stays}");
    let (code, text) = shell.fails("move-leader other");
    assert_eq!((code, text.contains("no member has the id or the name")), (1, true), "{text}");
    assert_eq!(shell.fails("member remove default").0, 1, "nobody would be left");
}

// ---------------------------------------------------------------------------------- trees

#[test]
fn a_tree_goes_in_and_comes_out_and_what_cannot_is_named() {
    let (_dir, server, shell) = start("tree");
    let (tree, out) = (folder("tree-in"), folder("tree-out"));
    let root = tree.path();
    fs::create_dir_all(root.join("deep/er/folder")).unwrap();
    fs::create_dir_all(root.join("empty folder")).unwrap();
    fs::write(root.join("plain"), "text").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("deep/er/folder/bytes"), (0..=255).collect::<Vec<u8>>()).unwrap();
    let strange = OsStr::from_bytes(b"not \xff utf-8 \n");
    fs::write(root.join(strange), "strange").unwrap();
    fs::write(root.join("at the limit"), vec![b'l'; 3 << 19]).unwrap();
    fs::write(root.join("too large"), vec![b'l'; (3 << 19) + 1]).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink("deep", root.join("folder link")).unwrap();
    let long = format!("deep/{}", "n".repeat(250));
    fs::write(root.join(&long), "long name").unwrap();
    let import = |prefix: &str| shell.run(&["import", root.to_str().unwrap(), "--prefix", prefix]);
    let done = import("/t/");
    assert_eq!(done.code, 1, "a file over the limit is a part that could not be done");
    assert!(done.err.contains("too large") && done.err.contains("1572865"), "{}", done.err);
    assert!(done.err.contains("link: a symbolic link"), "{}", done.err);
    assert!(done.text().starts_with("imported 6 files"), "{}", done.text());
    assert!(
        done.text().contains("2 skipped") && done.text().contains("1 not put"),
        "{}",
        done.text()
    );
    assert_eq!(shell.out("get /t/ --prefix --count-only"), "6\n");
    assert_eq!(shell.out("get /t/empty --print-value-only"), "\n");

    let export = |prefix: &str, into: &Path| {
        shell.run(&["export", into.to_str().unwrap(), "--prefix", prefix])
    };
    let done = export("/t/", out.path());
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(done.text().starts_with("exported 6 files"), "{}", done.text());
    for name in [OsStr::new("plain"), OsStr::new("empty"), strange, OsStr::new(&long)] {
        let (before, after) = (fs::read(root.join(name)), fs::read(out.path().join(name)));
        assert_eq!(before.unwrap(), after.unwrap(), "{name:?}");
    }
    let bytes = fs::read(out.path().join("deep/er/folder/bytes")).unwrap();
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    assert!(!out.path().join("too large").exists() && !out.path().join("empty folder").exists());

    // Again over what is there, and the past by its revision.
    fs::write(root.join("plain"), "newer").unwrap();
    fs::remove_file(root.join("too large")).unwrap();
    let revision = server.client().status().unwrap().revision.to_string();
    assert_eq!(import("/t/").code, 0);
    assert_eq!(export("/t/", out.path()).code, 0);
    assert_eq!(fs::read(out.path().join("plain")).unwrap(), b"newer");
    let into = out.path().to_str().unwrap();
    assert_eq!(shell.run(&["export", into, "--prefix", "/t/", "--rev", &revision]).code, 0);
    assert_eq!(fs::read(out.path().join("plain")).unwrap(), b"text");

    let (code, text) = shell.fails("import /no/such/folder --prefix x");
    assert_eq!((code, text.contains("/no/such/folder")), (6, true), "{text}");
    assert_eq!(shell.fails(&format!("export {}/plain --prefix /t/", root.display())).0, 6);
}

#[test]
fn export_writes_nothing_outside_of_its_folder() {
    let (_dir, server, shell) = start("escape");
    let outer = folder("escape-out");
    let out = outer.path().join("in");
    fs::create_dir_all(&out).unwrap();
    let outside = outer.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, out.join("door")).unwrap();
    symlink(outside.join("file"), out.join("window")).unwrap();
    let mut client = server.client();
    let absolute = format!("e/{}", outside.join("absolute").display());
    let long = format!("e/{}", "x".repeat(256));
    let bad: Vec<&[u8]> = vec![
        b"e/",
        b"e/../outside/up",
        b"e/a/../../outside/up",
        b"e/..",
        b"e/.",
        b"e/./dot",
        b"e/a//b",
        b"e/folder/",
        b"e/door/through",
        b"e/window",
        b"e/zero\0byte",
        absolute.as_bytes(),
        long.as_bytes(),
    ];
    for key in &bad {
        client.put(&Put::new(key, b"escaped")).unwrap();
    }
    for key in ["e/good", "e/sub/good", "e/both", "e/both/inner", "f/other"] {
        client.put(&Put::new(key.as_bytes(), b"good")).unwrap();
    }
    let done = shell.run(&["export", out.to_str().unwrap(), "--prefix", "e/"]);
    assert_eq!(done.code, 1);
    // Of a key and a folder of the same name one is written.
    assert!(done.text().contains("exported 3 files"), "{}", done.text());
    let refused = format!("{} not written", bad.len() + 1);
    assert!(done.text().contains(&refused), "{}\n{}", done.text(), done.err);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something got out");
    let mut around: Vec<_> =
        fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    around.sort();
    assert_eq!(around, ["in", "outside"]);
    assert_eq!(fs::read(out.join("sub/good")).unwrap(), b"good");
    assert!(!out.join("other").exists());
}

#[test]
fn an_import_goes_on_when_the_server_comes_back() {
    let dir = DataDir::new("come-back");
    let tree = folder("come-back-in");
    for number in 0..3_000_u32 {
        fs::write(tree.path().join(format!("{number:04}")), vec![1; 5_000]).unwrap();
    }
    let server = Server::start(dir.path(), SMALL);
    let address = server.address().to_string();
    let mut command = binary(&["import", tree.path().to_str().unwrap(), "--prefix", "i/"]);
    command.args(["--endpoint", &address, "--patience", "50s"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut client = server.client();
    let count = Range { count_only: true, ..Range::between(b"i/", b"i0") };
    while client.range(&count).unwrap().count < 200 {}
    assert!(server.kill().was_killed());
    // The kernel may hold the port for some milliseconds after the end of the process.
    let begin = Instant::now();
    let mut server = loop {
        let mut again = binary(&["server", "--listen", &address, "--data-dir"]);
        again.arg(dir.path()).args(SMALL).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = again.spawn().unwrap();
        let mut word = [0; 5];
        if server.stdout.as_mut().unwrap().read_exact(&mut word).is_ok() {
            assert_eq!(&word, b"ready");
            break server;
        }
        assert!(begin.elapsed() < PATIENCE, "the server does not come back");
        server.wait().unwrap();
    };
    let output = child.wait_with_output().unwrap();
    let done = Done::of(output);
    let mut client = process::connect(address.parse().unwrap()).unwrap();
    let counted = client.range(&count).unwrap().count;
    let all = Range { keys_only: true, ..Range::between(b"i/", b"i0") };
    let twice = client.range(&all).unwrap().kvs.iter().filter(|kv| kv.version != 1).count();
    let sessions = client.status().unwrap().clients;
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!((done.code, counted), (0, 3_000), "{}{}", done.text(), done.err);
    assert_eq!((twice, sessions), (0, 1), "a put that is sent again takes effect once");
    process::check_clean(dir.path());
}

// ---------------------------------------------------------------------------------- starts and ends

/// Writes until both meta slots of the page file hold something and the log has been recycled.
fn put_until_checkpoint(server: &Server, dir: &Path) {
    let mut client = server.client();
    let holds = |offset: u64| {
        let mut bytes = [0; 64];
        let pages = File::open(dir.join("pages")).unwrap();
        pages.read_at(&mut bytes, offset).unwrap() == 64 && bytes != [0; 64]
    };
    for number in 0_u32.. {
        client.put(&Put::new(&number.to_be_bytes(), &[1; 100_000])).unwrap();
        if number > 500 && holds(0) && holds(64 << 10) {
            return;
        }
        assert!(number < 10_000, "no checkpoint is made");
    }
}

/// Starts a server that must refuse to; returns what it said.
fn refuses(data_dir: &Path, flags: &[&str]) -> String {
    let mut command = binary(&["server", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data_dir).args(SMALL).args(flags);
    refused(command)
}

fn refused(command: Command) -> String {
    let done = Done::of(ends(command, b""));
    assert_eq!((done.code, done.text()), (1, ""), "{}", done.err);
    assert!(done.err.starts_with("Error: "), "{}", done.err);
    done.err
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no \"{part}\" in: {text}");
    }
}

#[test]
fn the_ready_line_names_address_process_and_folder() {
    let (dir, server, _shell) = start("ready");
    let expected = format!(
        "ready native={0} etcd={0} pid={1} data={2}",
        server.address(),
        server.pid(),
        dir.path().display()
    );
    assert_eq!(server.ready_line(), expected);
}

#[test]
fn a_server_that_is_told_to_stop_ends_with_success_and_keeps_everything() {
    let dir = DataDir::new("signals");
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::TERM].into_iter().enumerate() {
        let server = Server::start(dir.path(), SMALL);
        let mut client = server.client();
        assert_eq!(client.range(&Range::all()).unwrap().count, i64::try_from(round).unwrap());
        client.put(&Put::new(&[b'k', u8::try_from(round).unwrap()], b"v")).unwrap();
        let (ended, took) = server.stop(signal);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(took < PATIENCE / 6, "{took:?} to stop");
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    }
    process::check_clean(dir.path());
}

#[test]
fn a_port_or_a_folder_in_use_is_refused_and_its_user_goes_on() {
    let (dir, server, shell) = start("in-use");
    shell.out("put k v");
    let address = server.address().to_string();
    let other = DataDir::new("in-use-other");
    let mut command = binary(&["server", "--listen", &address, "--data-dir"]);
    command.arg(other.path());
    says(&refused(command), &[&address, "in use", "--listen"]);
    let dir_text = dir.path().to_str().unwrap();
    says(&refuses(dir.path(), &[]), &[dir_text, "in use", "--data-dir"]);
    // So is looking into it, unless it is forced.
    let done = Done::of(process::run(&["inspect", "check", dir_text]));
    assert_ne!(done.code, 0);
    says(&done.err, &["Error: ", "in use"]);
    assert_eq!(Done::of(process::run(&["inspect", "wal", dir_text, "--force"])).code, 0);
    assert_eq!(shell.out("get k"), "k\nv\n");
}

#[test]
fn a_folder_that_is_not_ours_or_not_whole_is_refused_by_name() {
    let (dir, server, shell) = start("folders");
    shell.out("put k v");
    server.stop(Signal::TERM);
    let copy = || {
        let copy = DataDir::new("folders-copy");
        process::copy(dir.path(), copy.path());
        copy
    };
    let text = fs::read_to_string(dir.path().join("identity")).unwrap();

    let damaged = copy();
    let identity = damaged.path().join("identity");
    fs::write(&identity, text.replacen("member=", "member=f", 1)).unwrap();
    says(&refuses(damaged.path(), &[]), &[identity.to_str().unwrap(), "checksum"]);
    fs::write(&identity, "").unwrap();
    says(&refuses(damaged.path(), &[]), &[identity.to_str().unwrap()]);
    fs::write(&identity, [0xff; 100]).unwrap();
    says(&refuses(damaged.path(), &[]), &["identity"]);
    fs::write(&identity, text.replacen("format=1", "format=2", 1)).unwrap();
    says(&refuses(damaged.path(), &[]), &["newer than this program"]);
    fs::remove_file(&identity).unwrap();
    says(&refuses(damaged.path(), &[]), &["identity", "restore"]);

    // Files of another server, where ours should be; and none. Of a store that has never made a
    // checkpoint the page file holds nothing, and of one that has, the log no longer holds everything.
    let other = DataDir::new("folders-other");
    let foreign = Server::start(other.path(), SMALL);
    put_until_checkpoint(&foreign, other.path());
    foreign.stop(Signal::TERM);
    let server = Server::start(dir.path(), SMALL);
    put_until_checkpoint(&server, dir.path());
    let count = Range { count_only: true, ..Range::all() };
    let expected = server.client().range(&count).unwrap().count;
    server.stop(Signal::TERM);
    {
        let mixed = copy();
        fs::copy(other.path().join("pages"), mixed.path().join("pages")).unwrap();
        says(&refuses(mixed.path(), &[]), &["page file", "belongs to"]);
    }
    {
        let mixed = copy();
        fs::remove_dir_all(mixed.path().join("wal")).unwrap();
        process::copy(&other.path().join("wal"), &mixed.path().join("wal"));
        says(&refuses(mixed.path(), &[]), &["wal"]);
    }
    for gone in ["wal", "pages"] {
        // A log that still holds everything may make up for the page file; nothing else may pass.
        let mixed = copy();
        let path = mixed.path().join(gone);
        fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap();
        match Start::spawn(mixed.path(), SMALL).ready() {
            Err(ended) => assert!(ended.stderr.starts_with("Error: "), "{ended:?}"),
            Ok(server) => {
                let found = server.client().range(&count).unwrap().count;
                assert_eq!(found, expected, "keys are missing without {gone}");
            }
        }
    }

    // A file, and a folder below a file.
    let file = folder("folders-file");
    let path = file.path().join("file");
    fs::write(&path, "").unwrap();
    says(&refuses(&path, &[]), &[path.to_str().unwrap()]);
    refuses(&path.join("below"), &[]);

    // What was copied and not touched starts, and everything is there.
    let whole = copy();
    let server = Server::start(whole.path(), SMALL);
    assert_eq!(server.client().get(b"k").unwrap().unwrap().value, b"v");
}

#[test]
fn a_file_system_without_direct_io_is_refused_unless_told_to_go_on() {
    let shm = Path::new("/dev/shm");
    let path = shm.join(format!("quorate-cli-{}", std::process::id()));
    let is_tmpfs = fs::read_to_string("/proc/mounts")
        .is_ok_and(|text| text.lines().any(|line| line.contains(" /dev/shm tmpfs ")));
    if !is_tmpfs || fs::create_dir(&path).is_err() {
        eprintln!("SKIPPED: no tmpfs at /dev/shm that can be written to");
        return;
    }
    says(&refuses(&path, &[]), &["O_DIRECT", "--unsafe-buffered", path.to_str().unwrap()]);
    let flags = [SMALL, &["--unsafe-buffered"]].concat();
    let server = Server::start(&path, &flags);
    assert!(server.stderr().contains("--unsafe-buffered"), "{}", server.stderr());
    let mut client = server.client();
    for number in 0..300_u32 {
        client.put(&Put::new(&number.to_be_bytes(), &[7; 30_000])).unwrap();
    }
    assert!(server.kill().was_killed());
    let server = Server::start(&path, &flags);
    assert_eq!(
        server.client().range(&Range { count_only: true, ..Range::all() }).unwrap().count,
        300
    );
    assert_eq!(server.stop(Signal::TERM).0.status.code(), Some(0));
    process::check_clean(&path);
    fs::remove_dir_all(&path).unwrap();
}

#[test]
fn too_little_locked_memory_is_refused_with_what_to_do() {
    let dir = DataDir::new("memlock");
    let mut command = Command::new("sh");
    let script = "ulimit -l 16 && exec \"$0\" server --listen 127.0.0.1:0 --data-dir \"$1\"";
    command.args(["-c", script, BINARY]).arg(dir.path());
    says(&refused(command), &["locked-memory", "ulimit -l"]);
}

#[test]
fn inspect_reads_a_stopped_folder_and_names_the_first_fault() {
    let (dir, server, shell) = start("inspect");
    for number in 0..50 {
        shell.out(&format!("put key/{number} value"));
    }
    server.stop(Signal::TERM);
    let path = dir.path().to_str().unwrap();
    for kind in ["wal", "pages", "meta", "check"] {
        let simple = Done::of(process::run(&["inspect", kind, path]));
        assert_eq!(simple.code, 0, "{kind}: {}", simple.err);
        assert!(!simple.out.is_empty(), "{kind}");
        let json = Done::of(process::run(&["inspect", kind, path, "-w", "json"]));
        assert_eq!(json.code, 0, "{kind}: {}", json.err);
        let mut count = 0;
        for value in serde_json::Deserializer::from_slice(&json.out).into_iter::<Value>() {
            value.unwrap_or_else(|error| panic!("{kind}: {error}: {}", json.text()));
            count += 1;
        }
        assert!(count > 0, "{kind}: {}", json.text());
    }
    let limited = Done::of(process::run(&["inspect", "wal", path, "--limit", "3"]));
    assert_eq!(limited.code, 0);
    // A byte in the middle of the first segment, where records are.
    let segment = dir.path().join("wal/slot-000");
    let mut bytes = fs::read(&segment).unwrap();
    let at = (4096 * 3..bytes.len()).find(|&at| bytes[at] != 0).unwrap();
    bytes[at] ^= 0x40;
    fs::write(&segment, &bytes).unwrap();
    let check = Done::of(process::run(&["inspect", "check", path]));
    assert_eq!(check.code, 1, "{}{}", check.text(), check.err);
    says(&check.err, &["Error: ", "slot-000"]);
    let missing = Done::of(process::run(&["inspect", "check", "/no/such/folder"]));
    assert!(missing.code == 1 || missing.code == 6, "{}", missing.code);
    says(&missing.err, &["/no/such/folder"]);
}

#[test]
fn bench_measures_a_server_and_writes_its_figures() {
    let (_dir, server, shell) = start("bench");
    let out = folder("bench-out");
    let json = out.path().join("figures.json");
    for operation in ["put", "get", "range", "txn", "mixed"] {
        let done = shell.run(&[
            "bench",
            operation,
            "--connections",
            "4",
            "--depth",
            "4",
            "--duration",
            "0.3",
            "--keys",
            "1000",
            "--value-size",
            "100",
            "--json",
            json.to_str().unwrap(),
        ]);
        assert_eq!(done.code, 0, "{operation}: {}", done.err);
        let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        assert_eq!((&figures["connections"], &figures["depth"]), (&4.into(), &4.into()));
        assert!(figures["operations"].as_u64().unwrap() > 0, "{figures}");
        assert_eq!(figures["errors"], 0, "{figures}");
        assert!(figures["latency_us"]["p9999"].as_f64().unwrap() > 0.0, "{figures}");
    }
    drop(server);
}

// ---------------------------------------------------------------------------------- a full disk

/// A small ext4 in a file, mounted; unmounted when dropped.
struct SmallDisk {
    folder: DataDir,
    mount: PathBuf,
}

impl SmallDisk {
    fn tool(name: &str, arguments: &[&OsStr]) -> Result<(), String> {
        let output =
            Command::new(name).args(arguments).output().map_err(|error| error.to_string())?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said()) }
    }

    /// Errors: what does not go here, without root or loop devices.
    fn new(size: u64) -> Result<Self, String> {
        let folder = folder("small-disk");
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(&mount).unwrap();
        let (image, target) = (image.as_os_str(), mount.as_os_str());
        let word = OsStr::new;
        Self::tool("mkfs.ext4", &[word("-q"), word("-F"), word("-m"), word("0"), image])?;
        Self::tool("mount", &[word("-o"), word("loop"), image, target])?;
        Ok(Self { folder, mount })
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Takes all space but so much of it.
    fn fill_but(&self, free: u64) {
        let mut file = File::create(self.filler()).unwrap();
        let block = vec![0x55; 1 << 20];
        while file.write_all(&block).is_ok() {}
        file.sync_all().unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(free)).unwrap();
        file.sync_all().unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
        File::open(&self.mount).unwrap().sync_all().unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, if a server that a failed test left is about to go.
        let unmounted = Self::tool("umount", &[self.mount.as_os_str()])
            .or_else(|_| Self::tool("umount", &[OsStr::new("-l"), self.mount.as_os_str()]));
        if let Err(error) = unmounted {
            eprintln!("{} stays mounted: {error}", self.folder.path().display());
        }
    }
}

fn value_of(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(25_000)
}

fn key_of(number: u32) -> Vec<u8> {
    format!("full/{number:05}").into_bytes()
}

/// Puts from `next` on until the server says that there is no space; returns the first that was refused.
fn put_until_full(client: &mut Client, mut next: u32) -> u32 {
    loop {
        match client.put(&Put::new(&key_of(next), &value_of(next))) {
            Ok(_) => next += 1,
            Err(Error::Refused(refusal)) if refusal.status == Status::Overloaded => {}
            Err(Error::Refused(refusal)) => {
                assert_eq!((refusal.status, refusal.effect), (Status::NoSpace, Effect::None));
                assert!(refusal.message.contains("full"), "{refusal}");
                return next;
            }
            Err(error) => panic!("put {next}: {error}"),
        }
        assert!(next < 100_000, "the disk never gets full");
    }
}

fn check_values(client: &mut Client, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        let pair = client.get(&key_of(number)).unwrap();
        let pair = pair.unwrap_or_else(|| panic!("{number} was acknowledged and is lost"));
        assert!(pair.value == value_of(number), "{number} came back changed");
    }
}

/// Puts `number` as soon as the server takes it.
fn put_when_there_is_room(server: &Server, client: &mut Client, number: u32) {
    let begin = Instant::now();
    loop {
        match client.put(&Put::new(&key_of(number), &value_of(number))) {
            Ok(_) => return eprintln!("writes went on {:?} after there was room", begin.elapsed()),
            Err(Error::Refused(refusal)) if refusal.status == Status::NoSpace => {}
            Err(error) => panic!("{error}; {}", server.stderr()),
        }
        assert!(begin.elapsed() < PATIENCE, "writes do not go on; {}", server.stderr());
    }
}

#[test]
fn a_full_disk_stops_writes_only_and_nothing_is_lost() {
    let disk = match SmallDisk::new(256 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED: a full disk needs root, mkfs.ext4 and loop devices: {reason}");
            return;
        }
    };
    let data = disk.mount.join("data");
    let server = Server::start(&data, SMALL);
    let mut client = server.client();
    for number in 0..100 {
        client.put(&Put::new(&key_of(number), &value_of(number))).unwrap();
    }
    disk.fill_but(24 << 20);
    let full = put_until_full(&mut client, 100);
    eprintln!("full after {full} puts");
    let told = client.status().unwrap().no_space;
    check_values(&mut client, 0..full);
    // What frees space goes on, more of it than any reserve for it holds in one go.
    for number in 0..50 {
        let deleted = client.delete(&DeleteRange::one(&key_of(number))).unwrap().deleted;
        assert_eq!(deleted, 1, "{number}");
    }
    let key = key_of(50);
    let txn = Txn::new().then(Op::DeleteRange(DeleteRange::one(&key)));
    let txn = client.txn(&txn);
    let revision = client.range(&Range::one(b"x")).unwrap().revision;
    client.compact(&Compact { revision, physical: true }).unwrap();
    let next = if txn.is_ok() { 51 } else { 50 };
    check_values(&mut client, next..full);
    assert_eq!(client.get(&key_of(3)).unwrap(), None);

    // Killed while it is full: it starts, serves what it has, and refuses alike.
    assert!(server.kill().was_killed());
    let server = Server::start(&data, SMALL);
    let mut client = server.client();
    check_values(&mut client, next..full);
    let full = put_until_full(&mut client, full);

    disk.empty();
    put_when_there_is_room(&server, &mut client, full);
    for number in full + 1..full + 100 {
        client.put(&Put::new(&key_of(number), &value_of(number))).unwrap();
    }
    check_values(&mut client, next..full + 100);
    assert!(!client.status().unwrap().no_space);
    // Full once more, and room by an orderly restart.
    disk.fill_but(4 << 20);
    let full = put_until_full(&mut client, full + 100);
    assert_eq!(server.stop(Signal::TERM).0.status.code(), Some(0));
    disk.empty();
    let server = Server::start(&data, SMALL);
    let mut client = server.client();
    put_when_there_is_room(&server, &mut client, full);
    check_values(&mut client, next..=full);
    assert_eq!(server.stop(Signal::TERM).0.status.code(), Some(0));
    process::check_clean(&data);
    // What is less than data comes last.
    assert!(told, "status does not say that there is no space");
    txn.expect("a transaction that only deletes frees space, too");
}

/// Deletes and a compaction alone, without anybody making room from outside, bring writes back.
#[test]
fn deleting_and_compacting_brings_writes_back() {
    let disk = match SmallDisk::new(192 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED: a full disk needs root, mkfs.ext4 and loop devices: {reason}");
            return;
        }
    };
    let data = disk.mount.join("data");
    let server = Server::start(&data, SMALL);
    let mut client = server.client();
    let full = put_until_full(&mut client, 0);
    let keep = full - 20;
    let first = key_of(0);
    let deleted = client.delete(&DeleteRange::between(&first, &key_of(keep))).unwrap();
    assert_eq!(deleted.deleted, i64::from(keep));
    client.compact(&Compact { revision: deleted.revision, physical: true }).unwrap();
    put_when_there_is_room(&server, &mut client, full);
    check_values(&mut client, keep..=full);
    assert!(server.kill().was_killed());
    let server = Server::start(&data, SMALL);
    check_values(&mut server.client(), keep..=full);
    drop(server.kill());
    process::check_clean(&data);
}
