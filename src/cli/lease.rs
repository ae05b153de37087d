//! `lease`: makes and ends leases, keeps one alive, shows what is left of it and which there are.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use client::{Client, LeaseTimeToLiveResult};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::output::Output;
use super::range::parse_lease;
use super::session::Global;
use super::signals::Events;
use super::time_span::{self, show};

/// Least time that one attempt to keep a lease alive gets, however little is left.
const ATTEMPT_MIN: Duration = Duration::from_millis(50);

/// What can be done with leases.
#[derive(Clone, Debug, Subcommand)]
pub enum LeaseCommand {
    /// Make a lease; prints its id, which put --lease takes
    Grant {
        /// Time that it lives without being kept alive: seconds, or a span such as 500ms or 1m30s
        #[arg(value_parser = time_span::parse)]
        ttl: Duration,
        /// Its id, hexadecimal; chosen by the server if absent
        #[arg(long, default_value = "0", value_parser = parse_lease)]
        id: i64,
    },
    /// End a lease and delete the keys that hang on it
    Revoke {
        /// Id of the lease, hexadecimal
        #[arg(value_parser = parse_lease)]
        id: i64,
    },
    /// Let a lease begin its time anew, again and again until it is gone or a signal comes
    #[command(visible_alias = "keepalive")]
    KeepAlive {
        /// Id of the lease, hexadecimal
        #[arg(value_parser = parse_lease)]
        id: i64,
        /// Only once
        #[arg(long)]
        once: bool,
    },
    /// Show what is left of a lease
    #[command(visible_alias = "time-to-live")]
    Timetolive {
        /// Id of the lease, hexadecimal
        #[arg(value_parser = parse_lease)]
        id: i64,
        /// Also the keys that hang on it
        #[arg(long)]
        keys: bool,
    },
    /// Show the ids of all leases
    List,
}

/// Does it.
///
/// # Errors
/// The server, or standard output.
pub fn run(global: &Global, command: &LeaseCommand) -> Result<(), Failure> {
    if let LeaseCommand::Grant { ttl, .. } = command {
        time_span::milliseconds(*ttl)?;
    }
    let mut client = global.connect()?;
    match command {
        LeaseCommand::Grant { ttl, id } => grant(global, &mut client, *ttl, *id),
        LeaseCommand::Revoke { id } => revoke(global, &mut client, *id),
        LeaseCommand::KeepAlive { id, once } => keep_alive(global, &mut client, *id, *once),
        LeaseCommand::Timetolive { id, keys } => time_to_live(global, &mut client, *id, *keys),
        LeaseCommand::List => list(global, &mut client),
    }
}

fn print(
    global: &Global,
    client: &Client,
    revision: i64,
    object: Value,
    text: &str,
) -> Result<(), Failure> {
    let mut output = Output::new(global.write_out, client);
    match (output.is_json(), object) {
        (true, Value::Object(object)) => output.object(object, revision),
        (true, _) => output.object(Map::new(), revision),
        (false, _) => output.text(text),
    }
}

/// A time in both of the units that JSON has it in: etcdctl's seconds, and ours.
fn times(seconds: &str, milliseconds: &str, time: Duration) -> Map<String, Value> {
    let mut object = Map::new();
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    object.insert(seconds.into(), time.as_secs().into());
    object.insert(milliseconds.into(), ms.into());
    object
}

fn with_id(id: i64, mut object: Map<String, Value>) -> Value {
    object.insert("id".into(), id.into());
    Value::Object(object)
}

fn grant(global: &Global, client: &mut Client, ttl: Duration, id: i64) -> Result<(), Failure> {
    let granted = client.lease_grant(id, ttl)?;
    let text = format!("lease {:016x} granted with TTL({})\n", granted.lease, show(granted.ttl));
    let object = with_id(granted.lease, times("ttl", "ttl_ms", granted.ttl));
    print(global, client, granted.revision, object, &text)
}

fn revoke(global: &Global, client: &mut Client, id: i64) -> Result<(), Failure> {
    let revoked = client.lease_revoke(id)?;
    let object = json!({ "deleted": revoked.deleted });
    print(global, client, revoked.revision, object, &format!("lease {id:016x} revoked\n"))
}

fn keep_alive(global: &Global, client: &mut Client, id: i64, once: bool) -> Result<(), Failure> {
    let signals = Events::new(|_| ())?;
    let timeout = client.options().request_timeout;
    let mut valid_until: Option<Instant> = None;
    loop {
        let since = Instant::now();
        // A member that does not answer gets half of what is left: then there is time for another one.
        if let Some(end) = valid_until {
            let left = end.saturating_duration_since(since);
            client.set_request_timeout(timeout.min((left / 2).max(ATTEMPT_MIN)))?;
        }
        let pause = match client.lease_keep_alive(&[id]) {
            Ok(result) => {
                let ttl = result.ttls.first().copied().unwrap_or_default();
                if ttl.is_zero() {
                    return Err(Failure::Lease(format!("lease {id:016x} expired or revoked")));
                }
                let shown = match ttl.subsec_millis() {
                    0 => ttl.as_secs().to_string(),
                    _ => show(ttl),
                };
                let text = format!("lease {id:016x} keepalived with TTL({shown})\n");
                let object = with_id(id, times("ttl", "ttl_ms", ttl));
                print(global, client, result.revision, object, &text)?;
                valid_until = Some(since + ttl);
                ttl / 3
            }
            // It is still there for that long, and others may answer.
            Err(error) if !once && valid_until.is_some_and(|end| Instant::now() < end) => {
                eprintln!("{error}; trying again");
                Duration::from_millis(100)
            }
            Err(error) => return Err(error.into()),
        };
        if once || signals.next_within(pause).is_some() {
            return Ok(());
        }
    }
}

fn time_to_live(global: &Global, client: &mut Client, id: i64, keys: bool) -> Result<(), Failure> {
    let result = client.lease_time_to_live(id, keys)?;
    let LeaseTimeToLiveResult { revision, granted, left, keys: attached, .. } = &result;
    if granted.is_zero() {
        let object = json!({ "id": id, "ttl": -1, "granted-ttl": 0 });
        return print(
            global,
            client,
            *revision,
            object,
            &format!("lease {id:016x} already expired\n"),
        );
    }
    let mut object = times("ttl", "ttl_ms", *left);
    object.extend(times("granted-ttl", "granted_ttl_ms", *granted));
    object.insert("key_count".into(), result.key_count.into());
    // As coarse as it was granted.
    let left = match granted.subsec_millis() {
        0 => format!("{}s", left.as_secs()),
        _ => format!("{}ms", left.as_millis()),
    };
    let mut text =
        format!("lease {id:016x} granted with TTL({}), remaining({left})", show(*granted));
    if keys {
        let encoded = attached.iter().map(|key| STANDARD.encode(key).into()).collect();
        object.insert("keys".into(), Value::Array(encoded));
        let shown: Vec<_> = attached.iter().map(|key| String::from_utf8_lossy(key)).collect();
        text += &format!(", attached keys([{}])", shown.join(" "));
    }
    text.push('\n');
    print(global, client, *revision, with_id(id, object), &text)
}

fn list(global: &Global, client: &mut Client) -> Result<(), Failure> {
    let result = client.leases()?;
    let ids = &result.leases;
    let mut text = format!("found {} leases\n", ids.len());
    for id in ids {
        text += &format!("{id:016x}\n");
    }
    let leases: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
    print(global, client, result.revision, json!({ "leases": leases }), &text)
}
