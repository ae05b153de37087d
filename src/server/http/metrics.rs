//! Figures for Prometheus, under etcd's names where etcd has them: dashboards and alerts made for it work.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;
use std::rc::Rc;

use base::AlarmKind;
use etcd::{Code, Failure, Subject};
use hyper::{Response, StatusCode};
use node::{COMPACTION_BUCKETS, EntryKind, KINDS, TTL_BUCKETS};
use wire::{Call, MemberList, RaftRole, Range, Reply};

use super::Link;
use super::calls::{self, CODE_NAMES, METHODS, Shape};
use super::grpc;
use super::plain::whole;
use super::service::{ask, read, unexpected};
use crate::counters::{Board, Counter, Counters, Method, Times, bucket_end};
use crate::process::Process;

/// How long the member may take to say its figures.
const TIMEOUT_MS: u32 = 5_000;

/// Buckets that are told: from 16 us to 33 s.
const BUCKETS_FROM: usize = 11;
/// See [`BUCKETS_FROM`].
const BUCKETS_TO: usize = 96;

/// Figures as text.
#[derive(Default)]
struct Figures(String);

impl Figures {
    fn add(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.begin(name, kind, help);
        self.with(name, "", value);
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // A String takes everything.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Times in buckets of half a power of two microseconds; `labels` without their braces.
    fn histogram(&mut self, name: &str, labels: &str, times: &Times) {
        let (comma, braced) = match labels {
            "" => ("", String::new()),
            labels => (",", format!("{{{labels}}}")),
        };
        let mut below = 0;
        for (bucket, count) in times.buckets.iter().enumerate() {
            below += count;
            if bucket % 2 == 1 && (BUCKETS_FROM..BUCKETS_TO).contains(&bucket) {
                let end = float(bucket_end(bucket)) / 1e6;
                let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"{end}\"}} {below}");
            }
        }
        let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {below}");
        let _ = writeln!(self.0, "{name}_sum{braced} {}", float(times.nanos) / 1e9);
        let _ = writeln!(self.0, "{name}_count{braced} {below}");
    }

    /// Numbers in buckets of which each ends at twice the end of the one before, and one for the rest.
    fn doubling(&mut self, name: &str, first: u64, counts: &[u64], sum: u64) {
        let (mut below, mut end) = (0, first);
        for count in &counts[..counts.len() - 1] {
            below += count;
            self.with(name, &format!("_bucket{{le=\"{end}\"}}"), below);
            end *= 2;
        }
        let all: u64 = counts.iter().sum();
        self.with(name, "_bucket{le=\"+Inf\"}", all);
        self.with(name, "_sum", sum);
        self.with(name, "_count", all);
    }

    /// `labels` with their braces, or nothing.
    fn with(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// Answers `/metrics`.
pub async fn respond(link: &Rc<Link>) -> Response<grpc::Reply> {
    match figures(link).await {
        Ok(figures) => whole(StatusCode::OK, figures.0, "text/plain; version=0.0.4; charset=utf-8"),
        Err(failure) => whole(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", failure.message),
            "text/plain; charset=utf-8",
        ),
    }
}

async fn figures(link: &Rc<Link>) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    state(link, &mut figures).await?;
    limits(link, &mut figures).await?;
    cluster(link, &mut figures).await?;
    counts(&link.gate.board, &mut figures);
    work(&link.gate.board, &mut figures);
    clients(&link.gate.board, &mut figures);
    disks(&link.gate.board, &mut figures);
    calls(&link.gate.board, link.gate.api.extensive_metrics, &mut figures);
    process(&mut figures);
    Ok(figures)
}

async fn state(link: &Rc<Link>, figures: &mut Figures) -> Result<(), Failure> {
    let answer = ask(&link.native, TIMEOUT_MS, &Call::Status).await?;
    let status = match read(&answer, Subject::Status)? {
        Reply::Status(status) => status,
        reply => return Err(unexpected(&reply)),
    };
    let mut gauge = |name: &str, help: &str, value: u64| figures.add(name, "gauge", help, value);
    let flag = u64::from;
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    gauge(
        "etcd_server_has_leader",
        "Whether or not a leader is known. 1 is known, 0 is not.",
        flag(status.leader != base::NodeId::default()),
    );
    gauge(
        "etcd_server_is_leader",
        "Whether or not this member leads. 1 if it does, 0 otherwise.",
        flag(status.role == RaftRole::Leader),
    );
    gauge(
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if it is, 0 otherwise.",
        flag(status.is_learner),
    );
    gauge(
        "etcd_server_proposals_committed_total",
        "Index of the last committed entry.",
        status.committed_index,
    );
    gauge(
        "etcd_server_proposals_applied_total",
        "Index of the last applied entry.",
        status.applied_index,
    );
    gauge(
        "etcd_server_quota_backend_bytes",
        "Bytes that the page file may grow to; 0: no quota.",
        status.quota_size,
    );
    gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the page file.", status.file_size);
    gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the page file that hold something.",
        status.file_size_in_use,
    );
    gauge("etcd_debugging_mvcc_current_revision", "The newest revision.", number(status.revision));
    gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision below which history was given up.",
        number(status.compacted_revision),
    );
    gauge("quorate_raft_term", "Raft term.", status.term);
    gauge("quorate_log_bytes", "Bytes of the log that are in use.", status.log_size);
    gauge(
        "quorate_no_space",
        "Whether writes are refused for want of space.",
        flag(status.no_space),
    );
    gauge("quorate_corrupt", "Whether members disagree about the state.", flag(status.corrupt));
    gauge("quorate_clients", "Clients that have registered and are remembered.", status.clients);
    let name = "etcd_debugging_server_alarms";
    figures.begin(name, "gauge", "Alarms that are up, by member.");
    for alarm in status.alarms.iter() {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        let member = alarm.member.get();
        figures.with(name, &format!("{{alarm_type=\"{kind}\",server_id=\"{member:x}\"}}"), 1);
    }
    let id = format!("{{server_id=\"{:x}\"}}", status.member.get());
    figures.begin("etcd_server_id", "gauge", "Which member this is.");
    figures.with("etcd_server_id", &id, 1);
    let version = format!("{{server_version=\"{}\"}}", etcd::VERSION);
    figures.begin("etcd_server_version", "gauge", "Which version is running.");
    figures.with("etcd_server_version", &version, 1);
    let version = format!("{{cluster_version=\"{}\"}}", etcd::CLUSTER_VERSION_SHORT);
    figures.begin("etcd_cluster_version", "gauge", "Which version the cluster has.");
    figures.with("etcd_cluster_version", &version, 1);
    let version = format!("{{version=\"{}\"}}", status.server_version);
    figures.begin("quorate_version", "gauge", "Which version of Quorate is running.");
    figures.with("quorate_version", &version, 1);
    Ok(())
}

/// Keys, and members.
async fn cluster(link: &Rc<Link>, figures: &mut Figures) -> Result<(), Failure> {
    // Counted from what pages know of what is below them.
    let all = Range {
        key: &[0],
        range_end: &[0],
        count_only: true,
        serializable: true,
        ..Range::default()
    };
    let answer = ask(&link.native, TIMEOUT_MS, &Call::Range(all)).await?;
    match read(&answer, Subject::Read)? {
        Reply::Range(reply) => figures.add(
            "etcd_debugging_mvcc_keys_total",
            "gauge",
            "Keys that there are.",
            reply.count,
        ),
        reply => return Err(unexpected(&reply)),
    }
    let answer = ask(&link.native, TIMEOUT_MS, &Call::MemberList).await?;
    let list = match read(&answer, Subject::Member)? {
        Reply::MemberList(reply) => MemberList::decode(reply.members),
        reply => return Err(unexpected(&reply)),
    };
    let list = list.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let name = "etcd_network_known_peers";
    figures.begin(name, "gauge", "Members that are known.");
    let own = link.greeting.member;
    for member in &list.members {
        let id = member.id.get();
        figures.with(name, &format!("{{Local=\"{own:x}\",Remote=\"{id:x}\"}}"), 1);
    }
    Ok(())
}

/// What roles and doors have counted since the start.
fn counts(board: &Board, figures: &mut Figures) {
    let applied = |kinds: &[EntryKind]| -> u64 {
        kinds.iter().map(|kind| board.sum(|all| &all.applied[*kind as usize])).sum()
    };
    let mut counter = |name: &str, help: &str, value: u64| {
        figures.add(name, "counter", help, value);
    };
    counter(
        "etcd_server_leader_changes_seen_total",
        "How often another leader has become known.",
        board.sum(|all| &all.leader_changes),
    );
    counter(
        "etcd_server_health_success",
        "Answers of /health that said yes.",
        board.sum(|all| &all.healthy),
    );
    counter(
        "etcd_server_health_failures",
        "Answers of /health that said no.",
        board.sum(|all| &all.unhealthy),
    );
    counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Bytes of messages of clients of etcd's API.",
        board.sum(|all| &all.grpc_received_bytes),
    );
    counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Bytes of messages to clients of etcd's API.",
        board.sum(|all| &all.grpc_sent_bytes),
    );
    counter(
        "quorate_links_sent_bytes_total",
        "Bytes that were sent to other members.",
        board.sum(|all| &all.links_sent_bytes),
    );
    counter(
        "quorate_links_received_bytes_total",
        "Bytes that came from other members.",
        board.sum(|all| &all.links_received_bytes),
    );
    counter(
        "etcd_debugging_lease_granted_total",
        "Leases that were granted.",
        applied(&[EntryKind::LeaseGrant, EntryKind::PutWithTtl]),
    );
    counter(
        "etcd_debugging_lease_revoked_total",
        "Leases that were revoked or have expired.",
        applied(&[EntryKind::LeaseRevoke, EntryKind::LeaseExpire]),
    );
    counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases that have expired.",
        applied(&[EntryKind::LeaseExpire]),
    );
    written(board, figures);
    figures.begin("quorate_applied_total", "counter", "Log entries that were applied, by kind.");
    for (number, name) in KIND_NAMES.iter().enumerate() {
        let value = board.sum(|all| &all.applied[number]);
        figures.with("quorate_applied_total", &format!("{{kind=\"{name}\"}}"), value);
    }
    let mut gauge = |name: &str, help: &str, value: u64| figures.add(name, "gauge", help, value);
    gauge(
        "etcd_server_proposals_pending",
        "Writes that wait for a place in the log.",
        board.sum(|all| &all.proposals_pending),
    );
    gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Streams of watches that are open.",
        board.sum(|all| &all.watch_streams),
    );
    gauge(
        "etcd_disk_wal_write_bytes_total",
        "Bytes written to the log.",
        board.sum(|all| &all.wal_bytes),
    );
}

/// What roles have done, and what went wrong.
fn work(board: &Board, figures: &mut Figures) {
    type Pick = fn(&Counters) -> &Counter;
    let all: [(&str, &str, &str, Pick); 12] = [
        ("etcd_mvcc_range_total", "counter", "Ranges, in transactions too.", |all| &all.ranges),
        ("etcd_debugging_lease_renewed_total", "counter", "Renewals of leases.", |all| {
            &all.renewals
        }),
        ("etcd_debugging_mvcc_events_total", "counter", "Changes told to watches.", |all| {
            &all.watch_events
        }),
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "gauge",
            "Watches that have not been told everything yet.",
            |all| &all.watches_behind,
        ),
        (
            "etcd_debugging_mvcc_db_compaction_last",
            "gauge",
            "When the work of a compaction was last done, in seconds since 1970; 0: not since the start.",
            |all| &all.compacted_at,
        ),
        (
            "etcd_server_proposals_failed_total",
            "counter",
            "Writes that were taken in and had no effect, or nobody knows which.",
            |all| &all.failed_proposals,
        ),
        (
            "etcd_server_heartbeat_send_failures_total",
            "counter",
            "Heartbeats of this leader that left more than an interval too late.",
            |all| &all.late_heartbeats,
        ),
        (
            "etcd_server_slow_apply_total",
            "counter",
            "How often applying was more than 100 ms behind.",
            |all| &all.slow_applies,
        ),
        (
            "etcd_server_slow_read_indexes_total",
            "counter",
            "Questions for the index of linearizable reads that took more than 500 ms.",
            |all| &all.slow_questions,
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "counter",
            "Such questions that nobody could answer.",
            |all| &all.failed_questions,
        ),
        (
            "etcd_server_learner_promote_successes",
            "counter",
            "Members that this leader has given a vote to, those that ask for it by themselves too.",
            |all| &all.promotions,
        ),
        (
            "etcd_server_snapshot_apply_in_progress_total",
            "gauge",
            "1 while a state from another member takes the place of the own one.",
            |all| &all.installing,
        ),
    ];
    for (name, kind, help, pick) in all {
        figures.add(name, kind, help, board.sum(pick));
    }
    let sums = |of: &dyn Fn(&Counters, usize) -> u64, count: usize| -> Vec<u64> {
        (0..count).map(|bucket| board.executors().map(|all| of(all, bucket)).sum()).collect()
    };
    let name = "etcd_debugging_lease_ttl_total";
    figures.begin(name, "histogram", "Seconds for which leases were granted.");
    let ttls = sums(&|all, bucket| all.ttls[bucket].get(), TTL_BUCKETS);
    figures.doubling(name, 1, &ttls, board.sum(|all| &all.ttl_seconds));
    let name = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds";
    figures.begin(name, "histogram", "How long compactions took, until their work was done.");
    let times = sums(&|all, bucket| all.compactions[bucket].get(), COMPACTION_BUCKETS);
    figures.doubling(name, 100, &times, board.sum(|all| &all.compaction_ms));
}

/// Who calls.
fn clients(board: &Board, figures: &mut Figures) {
    let name = "etcd_server_client_requests_total";
    figures.begin(name, "counter", "Calls of etcd's API, by the version that the client says.");
    for ((version, is_stream), count) in board.clients() {
        let kind = if is_stream { "stream" } else { "unary" };
        let labels = format!("{{client_api_version=\"{version}\",type=\"{kind}\"}}");
        figures.with(name, &labels, count);
    }
}

/// What the writes consisted of that were applied here.
fn written(board: &Board, figures: &mut Figures) {
    type Pick = fn(&Counters) -> &Counter;
    let all: [(&str, &str, &str, Pick); 6] = [
        ("etcd_mvcc_put_total", "counter", "Puts, in transactions too.", |all| &all.puts),
        ("etcd_mvcc_delete_total", "counter", "Deletes, in transactions too.", |all| &all.deletes),
        ("etcd_mvcc_txn_total", "counter", "Writes of more than one operation.", |all| &all.txns),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "gauge",
            "Bytes of keys and values that were put.",
            |all| &all.put_bytes,
        ),
        // Of all members together: etcd tells them by member.
        (
            "etcd_network_peer_sent_bytes_total",
            "counter",
            "Bytes that were sent to other members.",
            |all| &all.links_sent_bytes,
        ),
        (
            "etcd_network_peer_received_bytes_total",
            "counter",
            "Bytes that came from other members.",
            |all| &all.links_received_bytes,
        ),
    ];
    for (name, kind, help, pick) in all {
        figures.add(name, kind, help, board.sum(pick));
    }
}

/// Names of the kinds of entries, by number.
const KIND_NAMES: [&str; KINDS] = [
    "Empty",
    "Put",
    "DeleteRange",
    "Txn",
    "Compact",
    "Members",
    "Register",
    "PutWithTtl",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseKeepAlive",
    "LeaseExpire",
    "LogTime",
    "Alarm",
];

/// How long disks took.
fn disks(board: &Board, figures: &mut Figures) {
    for (name, help, times) in [
        (
            "etcd_disk_wal_write_duration_seconds",
            "Writes of groups of the log.",
            board.times(|all| &all.wal_write),
        ),
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "What makes a group of the log durable: its write with O_DSYNC, else the sync behind it.",
            board.times(|all| &all.wal_sync),
        ),
        (
            "etcd_disk_backend_commit_duration_seconds",
            "Syncs of the page file for a checkpoint.",
            board.times(|all| &all.pages_sync),
        ),
    ] {
        figures.begin(name, "histogram", help);
        figures.histogram(name, "", &times);
    }
    for (name, help, path) in [
        (
            "etcd_disk_backend_snapshot_duration_seconds",
            "How long snapshots took that clients asked for.",
            "/etcdserverpb.Maintenance/Snapshot",
        ),
        (
            "etcd_mvcc_hash_duration_seconds",
            "How long the hash of the newest revision took.",
            "/etcdserverpb.Maintenance/Hash",
        ),
        (
            "etcd_mvcc_hash_rev_duration_seconds",
            "How long the hash of a revision took.",
            "/etcdserverpb.Maintenance/HashKV",
        ),
    ] {
        let place = calls::place(path).expect("it is in the list of methods");
        figures.begin(name, "histogram", help);
        figures.histogram(name, "", &board.times(|all| &all.methods[place].times));
    }
}

/// Calls of etcd's API, as gRPC's own counters have them.
fn calls(board: &Board, extensive: bool, figures: &mut Figures) {
    type Pick = fn(&Method) -> &Counter;
    let labels: Vec<String> = METHODS
        .iter()
        .map(|(service, name, shape)| {
            let shape = shape.name();
            format!("grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{shape}\"")
        })
        .collect();
    let families: [(&str, &str, Pick); 3] = [
        ("grpc_server_started_total", "Calls that were begun.", |method| &method.started),
        ("grpc_server_msg_received_total", "Messages of clients.", |method| &method.received),
        ("grpc_server_msg_sent_total", "Messages to clients.", |method| &method.sent),
    ];
    for (name, help, pick) in families {
        figures.begin(name, "counter", help);
        for (place, labels) in labels.iter().enumerate() {
            let value = board.sum(|all| pick(&all.methods[place]));
            figures.with(name, &format!("{{{labels}}}"), value);
        }
    }
    let name = "grpc_server_handled_total";
    figures.begin(name, "counter", "Calls that ended, by code.");
    for (place, labels) in labels.iter().enumerate() {
        for (code, text) in CODE_NAMES.iter().enumerate() {
            let value = board.sum(|all| &all.methods[place].handled[code]);
            figures.with(name, &format!("{{grpc_code=\"{text}\",{labels}}}"), value);
        }
    }
    let name = "quorate_request_duration_seconds";
    figures.begin(name, "histogram", "How long calls of etcd's API took that have one answer.");
    let unary = || METHODS.iter().enumerate().filter(|(_, method)| method.2 == Shape::Unary);
    for (place, (_, method, _)) in unary() {
        let times = board.times(|all| &all.methods[place].times);
        if times.count() > 0 {
            figures.histogram(name, &format!("operation=\"{method}\""), &times);
        }
    }
    if extensive {
        let name = "grpc_server_handling_seconds";
        figures.begin(name, "histogram", "How long calls with one answer took.");
        for (place, _) in unary() {
            let times = board.times(|all| &all.methods[place].times);
            figures.histogram(name, &labels[place], &times);
        }
    }
}

/// What the system says of the process.
fn process(figures: &mut Figures) {
    let known = Process::look();
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Time of all cores, in seconds.",
            known.cpu_seconds,
        ),
        ("process_start_time_seconds", "gauge", "Its start, in seconds since 1970.", known.started),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory that it has.",
            known.resident_bytes.map(float),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Addresses that it has.",
            known.virtual_bytes.map(float),
        ),
        (
            "process_virtual_memory_max_bytes",
            "gauge",
            "Addresses that it may have.",
            known.virtual_max.map(float),
        ),
        ("process_open_fds", "gauge", "Descriptors that are open.", known.open_files.map(float)),
        ("process_max_fds", "gauge", "Descriptors that may be open.", known.files_max.map(float)),
        ("os_fd_used", "gauge", "Descriptors that are open.", known.open_files.map(float)),
        (
            "process_network_receive_bytes_total",
            "counter",
            "Bytes that came over networks, to this machine or container.",
            known.network.map(|(received, _)| float(received)),
        ),
        (
            "process_network_transmit_bytes_total",
            "counter",
            "Bytes that went to networks, of this machine or container.",
            known.network.map(|(_, sent)| float(sent)),
        ),
        ("os_fd_limit", "gauge", "Descriptors that may be open.", known.files_max.map(float)),
    ] {
        if let Some(value) = value {
            figures.add(name, kind, help, value);
        }
    }
}

/// A number as figures have it.
#[expect(clippy::cast_precision_loss, reason = "figures are floating numbers")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Every limit with what is in use of it.
async fn limits(link: &Rc<Link>, figures: &mut Figures) -> Result<(), Failure> {
    let answer = ask(&link.native, TIMEOUT_MS, &Call::Limits).await?;
    let limits = match read(&answer, Subject::Status)? {
        Reply::Limits(limits) => limits,
        reply => return Err(unexpected(&reply)),
    };
    type Value = fn(&wire::Limit<'_>) -> u64;
    let families: [(&str, &str, &str, Value); 4] = [
        ("quorate_limit", "gauge", "A limit; 0: others bound it.", |limit| limit.limit),
        ("quorate_limit_used", "gauge", "What is in use of a limit.", |limit| limit.used),
        ("quorate_limit_highest", "gauge", "Most that was in use of a limit.", |limit| {
            limit.highest
        }),
        ("quorate_limit_hits_total", "counter", "How often a limit was met.", |limit| limit.hits),
    ];
    for (name, kind, help, value) in families {
        figures.begin(name, kind, help);
        for limit in limits.iter() {
            let label = format!("{{limit=\"{}\"}}", limit.name.replace(['"', '\\'], ""));
            figures.with(name, &label, value(&limit));
        }
    }
    let used = |name: &str| limits.iter().find(|limit| limit.name == name).map(|limit| limit.used);
    if let Some(watches) = used("watches") {
        let name = "etcd_debugging_mvcc_watcher_total";
        figures.add(name, "gauge", "Watches that are open.", watches);
    }
    Ok(())
}
