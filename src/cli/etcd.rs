//! A server that is started as etcd is: `quorate etcd`, or this binary under the name `etcd`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use server::Serves;

use super::etcd_flags::{FLAGS, Given, Mistake, NOTES, Use};
use super::etcd_log;
use super::etcd_urls;
use super::failure::Failure;
use super::go_duration;
use super::retention;

/// etcd's time between heartbeats, and its election time-out, in milliseconds.
const HEARTBEAT_MS: u32 = 100;
/// See [`HEARTBEAT_MS`].
const ELECTION_MS: u32 = 1_000;

/// Greatest --max-request-bytes: the greatest value here.
const REQUEST_SIZE_MAX: usize = base::limits::VALUE_SIZE_MAX;

/// What --quota-backend-bytes=0 means in etcd, and what it warns above.
const QUOTA_SIZE_DEFAULT: u64 = 2 << 30;
/// See [`QUOTA_SIZE_DEFAULT`].
const QUOTA_SIZE_USUAL: u64 = 8 << 30;

/// Columns of the help.
const HELP_WIDTH: usize = 100;

/// The exit code of a command line that is not understood, as Go's flags have it.
const EXIT_USAGE: u8 = 2;

/// The arguments, if this process was started as etcd is.
pub fn arguments() -> Option<Vec<OsString>> {
    let mut all = std::env::args_os();
    let program = all.next()?;
    if Path::new(&program).file_name()? == "etcd" {
        return Some(all.collect());
    }
    (all.next()? == "etcd").then(|| all.collect())
}

/// Prints a text. Whoever reads only its first line, as scripts do with the version, has gone by then.
fn say(text: &str) -> ExitCode {
    drop(std::io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

/// Runs a server as etcd would be run with these arguments.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let given = match read(arguments) {
        Ok(given) => given,
        Err(mistake) => {
            eprintln!("error verifying flags, {mistake}. See 'etcd --help'.");
            return match mistake {
                Mistake::Flag(_) => EXIT_USAGE.into(),
                Mistake::Other(_) => ExitCode::FAILURE,
            };
        }
    };
    if given.is_on("version") {
        let quorate = env!("CARGO_PKG_VERSION");
        return say(&format!(
            "etcd Version: {}\nQuorate Version: {quorate}\n",
            server::ETCD_VERSION
        ));
    }
    if given.is_on("help") {
        return say(&help());
    }
    if let Err(failure) = etcd_log::set(&given) {
        eprintln!("error verifying flags, {failure}. See 'etcd --help'.");
        return ExitCode::FAILURE;
    }
    let config = match config(&given) {
        Ok(config) => config,
        Err(failure) => {
            server::log::error(failure);
            return ExitCode::FAILURE;
        }
    };
    for variable in &given.unknown_variables {
        server::log::warn(format!("unrecognized environment variable {variable}"));
    }
    for key in &given.unknown_keys {
        server::log::warn(format!("unrecognized key {key} in the configuration file"));
    }
    for (name, value) in given.of_use(Use::None) {
        server::log::warn(format!("--{name}={value} is accepted and has no effect"));
    }
    match server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            server::log::error(error);
            ExitCode::FAILURE
        }
    }
}

/// The flags, or the file that they name.
fn read(arguments: Vec<OsString>) -> Result<Given, Mistake> {
    let text = |bytes: OsString| {
        bytes
            .into_string()
            .map_err(|bytes| Mistake::Other(format!("{bytes:?} is no text in UTF-8")))
    };
    let arguments = arguments.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    // Others may be whatever they want.
    let ours =
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ETCD_"));
    let pairs = ours.map(|(name, value)| Ok((text(name)?, text(value)?)));
    let variables = pairs.collect::<Result<Vec<_>, Mistake>>()?;
    let used = |(name, _): &(String, String)| !name.starts_with("ETCD_UNSUPPORTED_");
    let given = Given::new(arguments, variables.into_iter().filter(used))?;
    match given.get("config-file") {
        "" => Ok(given),
        path => {
            let refuse = |why: String| Mistake::Other(format!("--config-file {path}{why}"));
            let text = std::fs::read_to_string(path)
                .map_err(|error| refuse(format!(" cannot be read: {error}")))?;
            Given::of_file(&text).map_err(|error| refuse(format!(": {error}")))
        }
    }
}

fn help() -> String {
    let mut text = String::from(
        "Usage: etcd [flags]\n\nA Quorate server that is started as etcd is. Flags are given as --f=v or --f v, as \
         ETCD_F=v\nin the environment, or in the file that --config-file names.\n\nFlags:\n",
    );
    for flag in FLAGS.iter().filter(|flag| flag.good_for == Use::Here) {
        let default = if flag.default.is_empty() { "" } else { " " };
        text.push_str(&format!("  --{}{default}{}\n", flag.name, flag.default.trim_matches(' ')));
        let note = NOTES.iter().find(|(name, _)| *name == flag.name);
        for line in note.into_iter().flat_map(|(_, note)| note.lines()) {
            text.push_str(&format!("        {line}\n"));
        }
    }
    for (title, good_for) in [
        ("Accepted without an effect, each named once in the log", Use::None),
        ("Refused, for what they ask for is not there yet (TLS, discovery)", Use::Refused),
    ] {
        text.push_str(&format!("\n{title}:\n "));
        let mut width = 1;
        for flag in FLAGS.iter().filter(|flag| flag.good_for == good_for) {
            width += flag.name.len() + 3;
            if width > HELP_WIDTH {
                text.push_str("\n ");
                width = flag.name.len() + 4;
            }
            text.push_str(&format!(" --{}", flag.name));
        }
        text.push('\n');
    }
    text
}

/// A refusal of the command line.
pub fn refuse<T>(text: String) -> Result<T, Failure> {
    Err(Failure::Arguments(text))
}

/// What a server is told by these flags.
fn config(given: &Given) -> Result<server::Config, Failure> {
    for (name, value) in given.of_use(Use::Refused) {
        if !matches!(value, "" | "false") {
            return refuse(format!("--{name}={value}: TLS and discovery are not there yet"));
        }
    }
    let name = given.get("name");
    let data_dir = match given.get("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        path => PathBuf::from(path),
    };
    let mut clients = etcd_urls::entrances(given, "listen-client-urls", Serves::Everything)?;
    let first = clients.remove(0);
    // As in etcd: what clients are to be told cannot be guessed from an address to listen at.
    if given.has("listen-client-urls") && !given.has("advertise-client-urls") {
        return refuse(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                .into(),
        );
    }
    let peers = etcd_urls::addresses("listen-peer-urls", given.get("listen-peer-urls"))?;
    if peers.len() > 1 {
        let count = peers.len();
        return refuse(format!("--listen-peer-urls has {count} addresses; give one"));
    }
    let mut config = server::Config::new(data_dir, first.address);
    config.entrances = clients;
    for (flag, serves) in
        [("listen-client-http-urls", Serves::Http), ("listen-metrics-urls", Serves::Metrics)]
    {
        if !given.get(flag).is_empty() {
            config.entrances.extend(etcd_urls::entrances(given, flag, serves)?);
        }
    }
    config.tells_ready = server::TellsReady::AsEtcd;
    config.retention = retention::parse(
        match given.get("auto-compaction-mode") {
            "periodic" => retention::Mode::Periodic,
            "revision" => retention::Mode::Revision,
            mode => {
                return refuse(format!("--auto-compaction-mode={mode}: say periodic or revision"));
            }
        },
        given.get("auto-compaction-retention"),
    )?;
    limits(given, &mut config)?;
    config.elections = elections(given)?;
    config.strict_removals = given.is_on("strict-reconfig-check");
    let flag = "initial-advertise-peer-urls";
    let peer_urls = given.has(flag).then(|| etcd_urls::hosts(flag, given.get(flag))).transpose()?;
    let flag = "advertise-client-urls";
    let client_urls =
        given.has(flag).then(|| etcd_urls::advertised(flag, given.get(flag))).transpose()?;
    let initial_cluster = match given.get("initial-cluster") {
        "" => {
            let default = given.get("initial-advertise-peer-urls");
            vec![(
                name.to_owned(),
                etcd_urls::hosts("initial-advertise-peer-urls", default)?.remove(0),
            )]
        }
        text => {
            // A member that has begun knows its cluster.
            if !config.data_dir.join("identity").exists() {
                etcd_urls::check_founders(given, text)?;
            }
            etcd_urls::founders(text)?
        }
    };
    config.cluster = server::ClusterConfig {
        name: name.to_owned(),
        listen_peer: peers.first().copied(),
        advertise_peer: peer_urls.and_then(|urls| urls.into_iter().next()),
        advertise_client: client_urls,
        initial_cluster,
        existing: match given.get("initial-cluster-state") {
            "new" => false,
            "existing" => true,
            state => {
                return refuse(format!("--initial-cluster-state={state}: say new or existing"));
            }
        },
        alone: given.is_on("force-new-cluster"),
        token: given.get("initial-cluster-token").to_owned(),
    };
    Ok(config)
}

/// A flag that is a number.
fn number<N: std::str::FromStr>(given: &Given, flag: &str) -> Result<N, Failure> {
    let text = given.get(flag);
    text.parse().map_err(|_| {
        Failure::Arguments(format!("invalid value \"{text}\" for flag -{flag}: it is no number"))
    })
}

/// A flag that is a time.
fn duration(given: &Given, flag: &str) -> Result<std::time::Duration, Failure> {
    let text = given.get(flag);
    go_duration::parse(text).ok_or_else(|| {
        Failure::Arguments(format!(
            "invalid value \"{text}\" for flag -{flag}: write a time like 250ms, 10m or 1h30m"
        ))
    })
}

/// What clients may ask for, and how much there may be of it.
fn limits(given: &Given, config: &mut server::Config) -> Result<(), Failure> {
    let size: usize = number(given, "max-request-bytes")?;
    if size == 0 || size > REQUEST_SIZE_MAX {
        return refuse(format!("--max-request-bytes={size}: choose 1 to {REQUEST_SIZE_MAX}"));
    }
    config.value_size_max = size;
    config.txn_ops_max = number(given, "max-txn-ops")?;
    config.quota_size = match number::<i64>(given, "quota-backend-bytes")? {
        0 => QUOTA_SIZE_DEFAULT,
        size => u64::try_from(size).unwrap_or(0),
    };
    if config.quota_size > QUOTA_SIZE_USUAL {
        server::log::warn(format!(
            "--quota-backend-bytes={} exceeds the {QUOTA_SIZE_USUAL} bytes that etcd recommends",
            config.quota_size
        ));
    }
    let interval = duration(given, "watch-progress-notify-interval")?.as_millis();
    let interval_min = server::EtcdApi::PROGRESS_INTERVAL_MIN_MS;
    config.etcd = server::EtcdApi {
        write_size_max: size,
        progress_interval_ms: u32::try_from(interval).unwrap_or(u32::MAX).max(interval_min),
        streams_max: match number(given, "max-concurrent-streams")? {
            // As in Go's gRPC.
            0 => u32::MAX,
            streams => streams,
        },
        learners_max: number(given, "max-learners")?,
        extensive_metrics: match given.get("metrics") {
            "basic" => false,
            "extensive" => true,
            // As in etcd, which has no more to tell then.
            metrics => {
                server::log::warn(format!("--metrics={metrics} is taken for basic"));
                false
            }
        },
    };
    config.origins = match given.get("cors") {
        "" => vec!["*".into()],
        origins => origins.split(',').map(|origin| origin.trim().to_owned()).collect(),
    };
    if given.has("snapshot-count") || given.has("snapshot-catchup-entries") {
        let since: u64 = number(given, "snapshot-count")?;
        let behind: u64 = number(given, "snapshot-catchup-entries")?;
        config.log_entries_kept = since.saturating_add(behind);
    }
    Ok(())
}

/// How the leader is found. Who names one of the two times means etcd's other one.
fn elections(given: &Given) -> Result<server::Elections, Failure> {
    let pre_vote = given.is_on("pre-vote");
    let ms = |flag: &str, default: u32| match given.get(flag) {
        _ if !given.has(flag) => Ok(server::Duration::from_millis(default.into())),
        text => {
            text.parse::<u32>().map(|ms| server::Duration::from_millis(ms.into())).map_err(|_| {
                Failure::Arguments(format!(
                    "invalid value \"{text}\" for flag -{flag}: write a number of milliseconds"
                ))
            })
        }
    };
    if !given.has("heartbeat-interval") && !given.has("election-timeout") {
        return Ok(server::Elections { pre_vote, ..server::Elections::LOCAL });
    }
    let (heartbeat_interval, timeout) =
        (ms("heartbeat-interval", HEARTBEAT_MS)?, ms("election-timeout", ELECTION_MS)?);
    Ok(server::Elections { heartbeat_interval, timeout, pre_vote })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::SocketAddr;

    use server::{Address, Entrance};

    use super::*;

    fn configured(line: &str) -> Result<server::Config, Failure> {
        let arguments = line.split_whitespace().map(str::to_owned);
        config(
            &Given::new(arguments, [])
                .map_err(|mistake| Failure::Arguments(mistake.to_string()))?,
        )
    }

    #[test]
    fn etcd_alone_listens_where_etcd_does() {
        let config = configured("").unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.listen, Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 2379))));
        let peers = config.cluster.listen_peer;
        assert_eq!(peers, Some(SocketAddr::from(([127, 0, 0, 1], 2380))));
        let founders = [("default".to_owned(), "localhost:2380".to_owned())];
        assert_eq!(config.cluster.initial_cluster, founders);
    }

    #[test]
    fn a_start_line_of_a_cluster_is_understood() {
        let line = "--name infra1 --initial-advertise-peer-urls http://10.0.1.11:2380 \
                    --listen-peer-urls http://10.0.1.11:2380 \
                    --listen-client-urls http://10.0.1.11:2379,http://127.0.0.1:2379 \
                    --advertise-client-urls http://10.0.1.11:2379 \
                    --initial-cluster-token etcd-cluster-1 \
                    --initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380 \
                    --initial-cluster-state new --auto-compaction-retention=1 --snapshot-count=5000";
        let config = configured(line).unwrap();
        let second = SocketAddr::from(([127, 0, 0, 1], 2379));
        assert_eq!(config.entrances, [Entrance::for_clients(second)]);
        assert_eq!(config.cluster.advertise_client.as_deref(), Some("10.0.1.11:2379"));
        assert_eq!(config.cluster.advertise_peer.as_deref(), Some("10.0.1.11:2380"));
        assert_eq!(config.cluster.initial_cluster.len(), 2);
        assert_eq!(config.cluster.token, "etcd-cluster-1");
        let hour = server::Duration::from_millis(3_600_000);
        assert_eq!(config.retention, server::Retention::Period(hour));
    }

    #[test]
    fn every_note_is_about_a_flag_that_does_its_job() {
        for (name, _) in NOTES {
            let flag = FLAGS.iter().find(|flag| flag.name == *name).unwrap();
            assert_eq!(flag.good_for, Use::Here, "{name}");
        }
        assert!(help().lines().all(|line| line.len() <= 110), "{}", help());
    }

    /// The keys of the sample that etcd's sources have, those of long ago among them.
    #[test]
    fn a_file_with_every_key_of_etcds_sample_is_understood() {
        let text = "name: 'default'\ndata-dir:\nwal-dir:\nsnapshot-count: 10000\n\
                    heartbeat-interval: 100\nelection-timeout: 1000\nquota-backend-bytes: 0\n\
                    listen-peer-urls: http://localhost:2380\nmax-snapshots: 5\nmax-wals: 5\n\
                    listen-client-urls: http://localhost:2379\ncors:\ndiscovery:\n\
                    initial-advertise-peer-urls: http://localhost:2380\n\
                    advertise-client-urls: http://localhost:2379\ndiscovery-fallback: 'proxy'\n\
                    discovery-proxy:\ndiscovery-srv:\ninitial-cluster:\n\
                    initial-cluster-token: 'etcd-cluster'\ninitial-cluster-state: 'new'\n\
                    strict-reconfig-check: false\nenable-pprof: true\nproxy: 'off'\n\
                    proxy-failure-wait: 5000\nclient-transport-security:\n  cert-file:\n\
                    \x20 key-file:\n  client-cert-auth: false\n  trusted-ca-file:\n\
                    \x20 auto-tls: false\npeer-transport-security:\n  cert-file:\n  key-file:\n\
                    \x20 client-cert-auth: false\n  trusted-ca-file:\n  auto-tls: false\n\
                    self-signed-cert-validity: 1\nlog-level: debug\nlogger: zap\n\
                    log-outputs: [stderr]\nforce-new-cluster: false\n\
                    auto-compaction-mode: periodic\nauto-compaction-retention: \"1\"\n\
                    cipher-suites: [\n  A,\n  B\n]\ntls-min-version: 'TLS1.2'\n\
                    tls-max-version: 'TLS1.3'\n";
        let given = Given::of_file(text).unwrap();
        assert_eq!(given.unknown_keys, ["proxy", "proxy-failure-wait"]);
        let config = config(&given).unwrap();
        config.check().unwrap();
        assert_eq!(config.elections.timeout, server::Duration::from_millis(1_000));
        assert!(!config.strict_removals);
        assert_eq!(given.get("cipher-suites"), "A,B");
    }

    #[test]
    fn each_url_is_an_address_of_its_own() {
        let line = "--listen-client-urls http://127.0.0.1:1,unix://m1.sock,http://127.0.0.1:2 \
                    --listen-metrics-urls=http://127.0.0.1:3 \
                    --listen-client-http-urls=http://127.0.0.1:4 \
                    --advertise-client-urls http://a:1,unix:///run/m1,http://b:2";
        let config = configured(line).unwrap();
        let at = |port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
        let entrance = |address, serves| Entrance { address, serves };
        assert_eq!(config.listen, at(1));
        let all = [
            entrance(Address::Unix("m1.sock".into()), Serves::Everything),
            entrance(at(2), Serves::Everything),
            entrance(at(4), Serves::Http),
            entrance(at(3), Serves::Metrics),
        ];
        assert_eq!(config.entrances, all);
        let advertised = config.cluster.advertise_client.as_deref();
        assert_eq!(advertised, Some("a:1;unix:///run/m1;b:2"));
    }

    #[test]
    fn limits_are_etcds_unless_others_are_given() {
        let config = configured("").unwrap();
        assert_eq!((config.quota_size, config.txn_ops_max), (2 << 30, 128));
        assert_eq!(config.etcd, server::EtcdApi::DEFAULT);
        let line = "--quota-backend-bytes=-1 --max-txn-ops 1000 --max-request-bytes=4000000 \
                    --watch-progress-notify-interval 1s --max-concurrent-streams=7 --max-learners=3";
        let config = configured(line).unwrap();
        assert_eq!((config.quota_size, config.txn_ops_max), (0, 1_000));
        assert_eq!(config.value_size_max, 4_000_000);
        let (write_size_max, progress_interval_ms, streams_max) = (4_000_000, 1_000, 7);
        let api = server::EtcdApi {
            write_size_max,
            progress_interval_ms,
            streams_max,
            learners_max: 3,
            extensive_metrics: false,
        };
        assert_eq!(config.etcd, api);
        assert_eq!(config.log_entries_kept, 100_000);
        let kept = |line: &str| configured(line).unwrap().log_entries_kept;
        assert_eq!(kept("--snapshot-count=20000"), 25_000);
        assert_eq!(kept("--snapshot-count=0 --snapshot-catchup-entries 300000"), 300_000);
        let none = configured("--max-txn-ops=0 --max-concurrent-streams 0 --metrics=some").unwrap();
        assert!(none.check().is_ok() && !none.etcd.extensive_metrics);
        assert_eq!((none.txn_ops_max, none.etcd.streams_max), (0, u32::MAX));
        let error = configured("--max-txn-ops 8193").unwrap().check().unwrap_err().to_string();
        assert!(error.contains("--max-txn-ops"), "{error}");
    }

    #[test]
    fn elections_are_ours_unless_one_of_their_times_is_given() {
        let elections = |line: &str| configured(line).unwrap().elections;
        assert_eq!(elections(""), server::Elections::LOCAL);
        assert!(!elections("--pre-vote=false").pre_vote);
        let ms = server::Duration::from_millis;
        let given = elections("--election-timeout 5000");
        assert_eq!((given.heartbeat_interval, given.timeout), (ms(100), ms(5_000)));
        let given = elections("--heartbeat-interval=20");
        assert_eq!((given.heartbeat_interval, given.timeout), (ms(20), ms(1_000)));
        for (line, said) in [
            ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
            (
                "--election-timeout=499",
                "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
            ),
            (
                "--election-timeout=50001",
                "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
            ),
        ] {
            let error = configured(line).unwrap().check().unwrap_err().to_string();
            assert_eq!(error, said, "{line}");
        }
        assert!(!configured("--strict-reconfig-check=false").unwrap().strict_removals);
    }

    #[test]
    fn the_founders_must_have_this_member_at_the_urls_that_it_tells() {
        let two = "--name a --initial-cluster a=http://127.0.0.1:1,b=http://127.0.0.1:2";
        for (flags, said) in [
            ("--name c", "couldn't find local name \"c\" in the initial cluster configuration"),
            ("--name c --initial-cluster-state existing", "couldn't find local name \"c\""),
            (
                "--initial-advertise-peer-urls http://127.0.0.1:3",
                "--initial-cluster has a=http://127.0.0.1:1 but missing from \
                 --initial-advertise-peer-urls=http://127.0.0.1:3",
            ),
            ("", "missing from --initial-advertise-peer-urls=http://localhost:2380"),
            ("--initial-advertise-peer-urls http://localhost:1", "has a=http://127.0.0.1:1 but"),
            (
                "--initial-advertise-peer-urls http://127.0.0.1:1,http://127.0.0.1:5",
                "--initial-advertise-peer-urls has http://127.0.0.1:5 but missing from",
            ),
        ] {
            let error = configured(&format!("{two} {flags}")).unwrap_err().to_string();
            assert!(error.contains(said), "{flags}: {error}");
        }
        for flags in [
            "--initial-advertise-peer-urls http://127.0.0.1:1",
            "--initial-cluster-state existing",
            "--initial-cluster a=http://127.0.0.1:1,a=http://127.0.0.1:5 \
             --initial-advertise-peer-urls http://127.0.0.1:5,http://127.0.0.1:1",
        ] {
            let config = configured(&format!("{two} {flags}")).unwrap();
            assert_eq!(config.cluster.initial_cluster[0].1, "127.0.0.1:1", "{flags}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (line, said) in [
            ("--cert-file=x", "--cert-file=x"),
            ("--listen-client-urls https://127.0.0.1:2379", "TLS"),
            ("--listen-client-urls http://127.0.0.1:2379", "--advertise-client-urls is required"),
            ("--listen-client-urls unix://", "names no path"),
            ("--listen-client-urls unixs://a", "TLS"),
            ("--listen-peer-urls unix://a", "http://10.0.0.1:2380"),
            ("--listen-client-urls 127.0.0.1:2379", "URL scheme must be"),
            ("--listen-peer-urls http://127.0.0.1", "host:port"),
            (
                "--initial-cluster default=http://127.0.0.1 --initial-cluster-state existing",
                "no port",
            ),
            ("--listen-peer-urls http://127.0.0.1:1,http://127.0.0.1:2", "give one"),
            ("--initial-cluster a", "couldn't find local name"),
            ("--initial-cluster-state old", "new, existing"),
            ("--max-request-bytes many", "no number"),
            ("--max-request-bytes 16777217", "choose 1 to 16777216"),
            ("--watch-progress-notify-interval 5", "write a time"),
            ("--quota-backend-bytes 2GB", "no number"),
            ("--heartbeat-interval 1s", "invalid value \"1s\" for flag -heartbeat-interval"),
        ] {
            let error = configured(line).unwrap_err().to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
