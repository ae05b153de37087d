//! etcd's command line: its flags and their defaults, `ETCD_*` variables, `--config-file`.
//!
//! As in etcd: `-f` and `--f`, `--f=v` and `--f v`, a boolean may stand alone, of a flag that is repeated the last
//! one counts, a variable beside its flag is refused, and with a file neither counts.

use std::collections::BTreeMap;
use std::fmt;

use super::etcd_file;
use super::etcd_values::{Form, form, switch as read_switch};

/// What a flag is good for here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It does its job.
    Here,
    /// It is accepted and has no effect.
    None,
    /// What it asks for cannot be had, unless it has this value.
    Refused,
}

/// A flag.
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// It may stand alone.
    pub is_bool: bool,
    /// What it is good for here.
    pub good_for: Use,
    /// What it is without being given.
    pub default: &'static str,
}

const fn here(name: &'static str, default: &'static str) -> Flag {
    Flag { name, is_bool: false, good_for: Use::Here, default }
}

const fn switch(name: &'static str) -> Flag {
    Flag { name, is_bool: true, good_for: Use::Here, default: "false" }
}

/// A switch that is on unless it is told otherwise.
const fn on(name: &'static str) -> Flag {
    Flag { name, is_bool: true, good_for: Use::Here, default: "true" }
}

const fn idle(name: &'static str) -> Flag {
    Flag { name, is_bool: false, good_for: Use::None, default: "" }
}

const fn idle_switch(name: &'static str) -> Flag {
    Flag { name, is_bool: true, good_for: Use::None, default: "" }
}

const fn refused(name: &'static str) -> Flag {
    Flag { name, is_bool: false, good_for: Use::Refused, default: "" }
}

const fn refused_switch(name: &'static str) -> Flag {
    Flag { name, is_bool: true, good_for: Use::Refused, default: "false" }
}

/// Every flag of etcd 3.7.
pub static FLAGS: &[Flag] = &[
    here("name", "default"),
    here("data-dir", ""),
    here("listen-peer-urls", "http://localhost:2380"),
    here("listen-client-urls", "http://localhost:2379"),
    here("listen-client-http-urls", ""),
    here("listen-metrics-urls", ""),
    here("initial-advertise-peer-urls", "http://localhost:2380"),
    here("advertise-client-urls", "http://localhost:2379"),
    here("initial-cluster", ""),
    here("initial-cluster-state", "new"),
    here("initial-cluster-token", "etcd-cluster"),
    here("auto-compaction-mode", "periodic"),
    here("auto-compaction-retention", "0"),
    here("max-request-bytes", "1572864"),
    here("log-format", "json"),
    here("log-level", "info"),
    here("log-outputs", "default"),
    here("logger", "zap"),
    here("config-file", ""),
    here("snapshot-count", "10000"),
    here("snapshot-catchup-entries", "5000"),
    here("heartbeat-interval", "40"),
    here("election-timeout", "200"),
    here("quota-backend-bytes", "0"),
    here("metrics", "basic"),
    here("max-txn-ops", "128"),
    here("watch-progress-notify-interval", "10m0s"),
    here("max-concurrent-streams", "4294967295"),
    here("max-learners", "1"),
    here("cors", "*"),
    switch("force-new-cluster"),
    on("strict-reconfig-check"),
    on("pre-vote"),
    switch("version"),
    switch("help"),
    idle("wal-dir"),
    idle_switch("initial-election-tick-advance"),
    idle("max-wals"),
    idle("max-snapshots"),
    idle_switch("memory-mlock"),
    idle("backend-bbolt-freelist-type"),
    idle("backend-batch-interval"),
    idle("backend-batch-limit"),
    idle("grpc-keepalive-min-time"),
    idle("grpc-keepalive-interval"),
    idle("grpc-keepalive-timeout"),
    idle_switch("socket-reuse-port"),
    idle_switch("socket-reuse-address"),
    idle_switch("enable-grpc-gateway"),
    idle("raft-read-timeout"),
    idle("raft-write-timeout"),
    idle("feature-gates"),
    idle("host-whitelist"),
    idle("auth-token"),
    idle("auth-token-ttl"),
    idle("bcrypt-cost"),
    idle_switch("enable-pprof"),
    idle("warning-unary-request-duration"),
    idle("warning-apply-duration"),
    idle_switch("enable-log-rotation"),
    idle("log-rotation-config-json"),
    idle_switch("enable-distributed-tracing"),
    idle("distributed-tracing-address"),
    idle("distributed-tracing-service-name"),
    idle("distributed-tracing-instance-id"),
    idle("distributed-tracing-sampling-rate"),
    idle("corrupt-check-time"),
    idle("compact-hash-check-time"),
    idle("compaction-batch-limit"),
    idle("compaction-sleep-interval"),
    idle("bootstrap-defrag-threshold-megabytes"),
    idle("downgrade-check-time"),
    idle_switch("unsafe-no-fsync"),
    idle("cipher-suites"),
    idle("tls-min-version"),
    idle("tls-max-version"),
    idle("v2-deprecation"),
    idle("discovery-fallback"),
    idle("discovery-proxy"),
    idle("discovery-dial-timeout"),
    idle("discovery-request-timeout"),
    idle("discovery-keepalive-time"),
    idle("discovery-keepalive-timeout"),
    idle_switch("discovery-insecure-transport"),
    idle_switch("discovery-insecure-skip-tls-verify"),
    idle_switch("peer-skip-client-san-verification"),
    idle("self-signed-cert-validity"),
    refused("discovery"),
    refused("discovery-token"),
    refused("discovery-endpoints"),
    refused("discovery-srv"),
    refused("discovery-srv-name"),
    refused("discovery-cert"),
    refused("discovery-key"),
    refused("discovery-cacert"),
    refused("discovery-user"),
    refused("discovery-password"),
    refused("cert-file"),
    refused("key-file"),
    refused("client-cert-file"),
    refused("client-key-file"),
    refused_switch("client-cert-auth"),
    refused("client-crl-file"),
    refused("client-cert-allowed-hostname"),
    refused("trusted-ca-file"),
    refused_switch("auto-tls"),
    refused("peer-cert-file"),
    refused("peer-key-file"),
    refused_switch("peer-client-cert-auth"),
    refused("peer-client-cert-file"),
    refused("peer-client-key-file"),
    refused("peer-trusted-ca-file"),
    refused("peer-cert-allowed-cn"),
    refused("peer-cert-allowed-hostname"),
    refused_switch("peer-auto-tls"),
    refused("peer-crl-file"),
];

/// What a flag does here, where that is not what its name says to who knows etcd.
pub static NOTES: &[(&str, &str)] = &[
    ("heartbeat-interval", "milliseconds; 100 where only --election-timeout is given"),
    ("election-timeout", "milliseconds, to 50000; 1000 where only --heartbeat-interval is given"),
    (
        "snapshot-count",
        "the newest --snapshot-count + --snapshot-catchup-entries entries of the log are kept for members\n\
         that are behind, 256 MiB of them at most; 100000 where neither is given. Checkpoints of the\n\
         state are made by time and size",
    ),
    ("snapshot-catchup-entries", "see --snapshot-count"),
    ("quota-backend-bytes", "bytes of pages in use; 0 is 2 GiB, less than 0 no limit"),
    ("max-txn-ops", "to 8192"),
    ("max-request-bytes", "to 16777216"),
    ("listen-client-urls", "http://HOST:PORT or unix://PATH, several with commas"),
    ("listen-client-http-urls", "further addresses, for HTTP/1.1 alone"),
    ("listen-metrics-urls", "further addresses, for /metrics, /health, /livez and /readyz alone"),
    ("metrics", "basic, or extensive: grpc_server_handling_seconds, too"),
    ("log-level", "debug, info, warn, error, panic or fatal; the last two tell nothing"),
    ("log-format", "json or console"),
    ("log-outputs", "default or stderr, stdout, paths of files; several with commas"),
    ("logger", "zap, as etcd wants it said; it changes nothing"),
    ("force-new-cluster", "for one start: go on as a cluster of this member alone"),
];

/// Why flags, variables or a file are not taken.
#[derive(Debug)]
pub enum Mistake {
    /// A flag is none, or its value is: Go's reader of flags ends with 2.
    Flag(String),
    /// Anything else; etcd ends with 1.
    Other(String),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

/// What was given, and what it is worth mentioning of it.
#[derive(Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, String>,
    /// Variables that look like flags and are none.
    pub unknown_variables: Vec<String>,
    /// Keys of the configuration file that are no flags.
    pub unknown_keys: Vec<String>,
}

/// The flag with this name.
fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

impl Given {
    /// Of these arguments and variables.
    ///
    /// # Errors
    /// A flag that does not exist or has no value, or one that is there as a variable, too.
    pub fn new(
        arguments: impl IntoIterator<Item = String>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistake> {
        let mut given = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let stripped = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
            let Some(stripped) = stripped.filter(|name| !name.is_empty()) else {
                return Err(Mistake::Other(format!("'{argument}' is not a valid flag")));
            };
            let (name, value) = match stripped.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (stripped, None),
            };
            let name = if name == "h" { "help" } else { name };
            let flag = find(name).ok_or_else(|| Mistake::Flag(unknown(name)))?;
            let value = match value {
                Some(value) => value,
                None if flag.is_bool => "true".to_owned(),
                None => arguments
                    .next()
                    .ok_or_else(|| Mistake::Flag(format!("flag needs an argument: -{name}")))?,
            };
            let kind = if flag.is_bool { "boolean value" } else { "value" };
            given.set(flag, &value).map_err(|reason| {
                Mistake::Flag(format!("invalid {kind} \"{value}\" for flag -{name}: {reason}"))
            })?;
        }
        // Who asks for the version, or names a file, has nothing to do with variables.
        if given.is_on("version") || given.is_on("help") || !given.get("config-file").is_empty() {
            return Ok(given);
        }
        // None that is empty was set.
        let variables = variables.into_iter().filter(|(_, value)| !value.is_empty());
        let variables: Vec<_> = variables.collect();
        if let Some((_, path)) = variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE") {
            given.values.insert("config-file", path.clone());
            return Ok(given);
        }
        given.add(variables).map_err(Mistake::Other)?;
        Ok(given)
    }

    /// Adds what variables say.
    fn add(&mut self, variables: Vec<(String, String)>) -> Result<(), String> {
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("ETCD_") else { continue };
            let name = name.to_ascii_lowercase().replace('_', "-");
            match find(&name) {
                Some(flag) if self.values.contains_key(flag.name) => {
                    return Err(format!(
                        "conflicting environment variable {variable} is shadowed by the \
                         corresponding command-line flag --{name} (either unset the variable or \
                         leave the flag out)"
                    ));
                }
                Some(flag) => self.set(flag, &value).map_err(|reason| {
                    format!("invalid value \"{value}\" for {variable}: {reason}")
                })?,
                None => self.unknown_variables.push(variable),
            }
        }
        Ok(())
    }

    /// Of a configuration file; nothing else counts then.
    ///
    /// # Errors
    /// The text is none, or has a value that makes no sense.
    pub fn of_file(text: &str) -> Result<Self, String> {
        let mut given = Self::default();
        for (name, value) in etcd_file::read(text)? {
            let Some(flag) = find(&name) else {
                given.unknown_keys.push(name);
                continue;
            };
            let is_nanoseconds = form(flag.name) == Form::Time
                && !value.is_empty()
                && value.bytes().all(|byte| byte.is_ascii_digit());
            let value = if is_nanoseconds { format!("{value}ns") } else { value };
            given
                .set(flag, &value)
                .map_err(|reason| format!("invalid value \"{value}\" for {name}: {reason}"))?;
        }
        Ok(given)
    }

    fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        let form = if flag.is_bool { Form::Switch } else { form(flag.name) };
        form.check(value)?;
        self.values.insert(flag.name, value.to_owned());
        Ok(())
    }

    /// The value of a flag, or its default.
    pub fn get(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(value) => value,
            None => find(name).map_or("", |flag| flag.default),
        }
    }

    /// Whether it was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        read_switch(self.get(name)) == Some(true)
    }

    /// Those that were given and have this use.
    pub fn of_use(&self, good_for: Use) -> impl Iterator<Item = (&'static str, &str)> {
        let of = move |flag: &&Flag| flag.good_for == good_for;
        FLAGS
            .iter()
            .filter(of)
            .filter_map(|flag| self.values.get(flag.name).map(|value| (flag.name, value.as_str())))
    }
}

/// The refusal of a flag that does not exist, with the one that was probably meant: of three letters one may be
/// another.
fn unknown(name: &str) -> String {
    let near = FLAGS.iter().map(|flag| (distance(flag.name, name), flag));
    let nearest = near.min_by_key(|(distance, _)| *distance);
    let nearest = nearest.filter(|(distance, _)| distance * 3 <= name.chars().count());
    let nearest = nearest.map(|(_, flag)| flag);
    let hint = nearest.map_or_else(String::new, |flag| format!("; did you mean --{}?", flag.name));
    format!("flag provided but not defined: -{name}{hint}")
}

/// Letters to change, leave out or put in to get from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (place, letter) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], place + 1);
        for (index, other) in b.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[index + 1];
            row[index + 1] = changed.min(corner + 1).min(row[index] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn given(line: &str, variables: &[(&str, &str)]) -> Result<Given, Mistake> {
        let arguments = line.split(' ').filter(|part| !part.is_empty()).map(str::to_owned);
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Given::new(arguments, variables.iter().map(pair))
    }

    #[test]
    fn flags_are_written_in_any_of_their_ways_and_may_be_variables() {
        let variables = [("ETCD_WAL_DIR", ""), ("ETCD_DATA_DIR", "d"), ("ETCD_NOSUCH", "1")];
        let line = "-name=a --name b --initial-cluster-state existing --force-new-cluster";
        let given = given(line, &variables).unwrap();
        assert_eq!(given.get("name"), "b");
        assert_eq!(given.get("data-dir"), "d");
        assert!(given.is_on("force-new-cluster"));
        assert_eq!(given.unknown_variables, ["ETCD_NOSUCH"]);
        assert_eq!(given.get("listen-client-urls"), "http://localhost:2379");
    }

    #[test]
    fn what_is_no_flag_is_refused_with_the_nearest() {
        for (line, said) in [
            ("--listen-client-url x", "-listen-client-url; did you mean --listen-client-urls?"),
            ("--nam=x", "did you mean --name?"),
            ("--name", "needs an argument"),
            ("--force-new-cluster=maybe", "invalid boolean value \"maybe\""),
            ("--max-wals=many", "invalid value \"many\" for flag -max-wals: parse error"),
            ("--max-txn-ops=-1", "invalid value \"-1\" for flag -max-txn-ops"),
            ("--max-concurrent-streams=4294967296", "for flag -max-concurrent-streams"),
            ("--warning-apply-duration 5", "write a time"),
            ("--initial-cluster-state=old", "say one of new, existing"),
            ("--log-level=loud", "for flag -log-level"),
            ("--v2-deprecation=never", "for flag -v2-deprecation"),
            ("--feature-gates=Foo=true", "unrecognized feature gate: Foo"),
            ("--feature-gates=CompactHashCheck", "missing bool value for CompactHashCheck"),
            ("--feature-gates=CompactHashCheck=on", "invalid value of CompactHashCheck=on"),
            ("--listen-metrics-urls=foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("--listen-peer-urls=http://a", "does not have the form \"host:port\""),
            ("--advertise-client-urls=http://a:1/b", "must not contain a path"),
        ] {
            let error = given(line, &[]).unwrap_err();
            assert!(
                matches!(&error, Mistake::Flag(text) if text.contains(said)),
                "{line}: {error}"
            );
        }
        for far in ["--zzzzzzzzzz=x", "--x", "--peer-url=x"] {
            let error = given(far, &[]).unwrap_err().to_string();
            assert!(!error.contains("did you mean"), "{far}: {error}");
        }
        let gates =
            "--feature-gates=CompactHashCheck=true,AllBeta=F --pre-vote=FALSE --max-txn-ops=0";
        assert!(!given(gates, &[]).unwrap().is_on("pre-vote"));
    }

    #[test]
    fn what_is_wrong_beside_flags_is_told_from_them() {
        let shadowed = [("ETCD_NAME", "v")];
        for (line, variables, said) in [
            ("name", &[][..], "'name' is not a valid flag"),
            ("--name=a", &shadowed[..], "environment variable ETCD_NAME is shadowed"),
            ("", &[("ETCD_MAX_TXN_OPS", "x")][..], "invalid value \"x\" for ETCD_MAX_TXN_OPS"),
        ] {
            let error = given(line, variables).unwrap_err();
            assert!(
                matches!(&error, Mistake::Other(text) if text.contains(said)),
                "{line}: {error}"
            );
        }
        for line in ["--version", "--config-file=x"] {
            assert!(!given(line, &shadowed).unwrap().has("name"));
        }
        let file = given("--name=a", &[("ETCD_NAME", "v"), ("ETCD_CONFIG_FILE", "x")]).unwrap();
        assert_eq!(file.get("config-file"), "x");
    }

    #[test]
    fn keys_of_a_file_are_flags() {
        let text = "name: m1\nforce-new-cluster: true\nmax-request-bytes: 100\nnam: x\n\
                    watch-progress-notify-interval: 60000000000\nwal-dir:\n";
        let given = Given::of_file(text).unwrap();
        assert_eq!((given.get("name"), given.get("max-request-bytes")), ("m1", "100"));
        assert!(given.is_on("force-new-cluster") && !given.has("wal-dir"));
        assert_eq!(given.get("watch-progress-notify-interval"), "60000000000ns");
        assert_eq!(given.unknown_keys, ["nam"]);
        let error = Given::of_file("force-new-cluster: maybe").unwrap_err();
        assert!(error.contains("invalid value \"maybe\" for force-new-cluster"), "{error}");
    }
}
