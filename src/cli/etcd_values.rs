//! What values etcd's flags take. One that is none is refused as soon as it is read, as Go's flags do.

use super::go_duration;

/// The form of a flag's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Anything.
    Text,
    /// On or off; it may stand alone.
    Switch,
    /// A number that is not negative.
    Natural,
    /// The same with 32 bits.
    Natural32,
    /// A number.
    Whole,
    /// A time, as Go writes them.
    Time,
    /// URLs with commas between.
    Urls,
    /// Features to be on or off.
    Gates,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// Flags whose values are not just texts or switches.
const FORMS: &[(&str, Form)] = &[
    ("snapshot-count", Form::Natural),
    ("snapshot-catchup-entries", Form::Natural),
    ("heartbeat-interval", Form::Natural),
    ("election-timeout", Form::Natural),
    ("quota-backend-bytes", Form::Whole),
    ("max-txn-ops", Form::Natural),
    ("max-request-bytes", Form::Natural),
    ("max-concurrent-streams", Form::Natural32),
    ("max-learners", Form::Whole),
    ("max-wals", Form::Natural),
    ("max-snapshots", Form::Natural),
    ("backend-batch-interval", Form::Time),
    ("backend-batch-limit", Form::Whole),
    ("grpc-keepalive-min-time", Form::Time),
    ("grpc-keepalive-interval", Form::Time),
    ("grpc-keepalive-timeout", Form::Time),
    ("raft-read-timeout", Form::Time),
    ("raft-write-timeout", Form::Time),
    ("auth-token-ttl", Form::Natural),
    ("bcrypt-cost", Form::Natural),
    ("warning-unary-request-duration", Form::Time),
    ("warning-apply-duration", Form::Time),
    ("distributed-tracing-sampling-rate", Form::Whole),
    ("watch-progress-notify-interval", Form::Time),
    ("corrupt-check-time", Form::Time),
    ("compact-hash-check-time", Form::Time),
    ("compaction-batch-limit", Form::Whole),
    ("compaction-sleep-interval", Form::Time),
    ("bootstrap-defrag-threshold-megabytes", Form::Natural),
    ("downgrade-check-time", Form::Time),
    ("discovery-dial-timeout", Form::Time),
    ("discovery-request-timeout", Form::Time),
    ("discovery-keepalive-time", Form::Time),
    ("discovery-keepalive-timeout", Form::Time),
    ("self-signed-cert-validity", Form::Natural),
    ("listen-peer-urls", Form::Urls),
    ("listen-client-urls", Form::Urls),
    ("listen-client-http-urls", Form::Urls),
    ("listen-metrics-urls", Form::Urls),
    ("initial-advertise-peer-urls", Form::Urls),
    ("advertise-client-urls", Form::Urls),
    ("feature-gates", Form::Gates),
    ("initial-cluster-state", Form::OneOf(&["new", "existing"])),
    ("discovery-fallback", Form::OneOf(&["exit", "proxy"])),
    (
        "v2-deprecation",
        Form::OneOf(&[
            "not-yet",
            "write-only",
            "write-only-skip-check",
            "write-only-drop-data",
            "gone",
        ]),
    ),
    ("log-level", Form::OneOf(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"])),
];

/// The features of etcd 3.7 that can be turned on and off.
const GATES: &[&str] = &[
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

/// The form of the values of a flag that is no switch.
pub fn form(name: &str) -> Form {
    FORMS.iter().find(|(flag, _)| *flag == name).map_or(Form::Text, |(_, form)| *form)
}

/// A switch, as Go reads it.
pub fn switch(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Form {
    /// Says why a value is none of this form.
    ///
    /// # Errors
    /// The reason, to stand behind the value and its flag.
    pub fn check(self, value: &str) -> Result<(), String> {
        let number = |is_one: bool| {
            if is_one { Ok(()) } else { Err("parse error: it is no number of this flag".into()) }
        };
        match self {
            Self::Text => Ok(()),
            Self::Switch => switch(value).map(|_| ()).ok_or_else(|| "parse error".into()),
            Self::Natural => number(value.parse::<u64>().is_ok()),
            Self::Natural32 => number(value.parse::<u32>().is_ok()),
            Self::Whole => number(value.parse::<i64>().is_ok()),
            Self::Time => match go_duration::parse(value) {
                Some(_) => Ok(()),
                None => Err("parse error: write a time like 250ms, 10m or 1h30m".into()),
            },
            Self::Urls if value.is_empty() => Ok(()),
            Self::Urls => value.split(',').map(str::trim).try_for_each(url),
            Self::Gates => value.split(',').map(str::trim).try_for_each(gate),
            Self::OneOf(values) if values.contains(&value) => Ok(()),
            Self::OneOf(values) => Err(format!("invalid value: say one of {}", values.join(", "))),
        }
    }
}

fn url(url: &str) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("URL scheme must be http, https, unix, or unixs: {url}"));
    };
    match scheme {
        "unix" | "unixs" if rest.is_empty() => Err(format!("the URL names no path: {url}")),
        "unix" | "unixs" => Ok(()),
        "http" | "https" => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            if !path.is_empty() {
                Err(format!("URL must not contain a path: {url}"))
            } else if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                Err(format!("URL address does not have the form \"host:port\": {url}"))
            } else {
                Ok(())
            }
        }
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

fn gate(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("missing bool value for {text}"));
    };
    let (name, value) = (name.trim(), value.trim());
    if switch(value).is_none() {
        return Err(format!("invalid value of {name}={value}: say true or false"));
    }
    if !GATES.contains(&name) {
        return Err(format!("unrecognized feature gate: {name}"));
    }
    Ok(())
}
