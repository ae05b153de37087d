//! Figures for Prometheus, under etcd's names where etcd has them: dashboards and alerts made for it work.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;
use std::rc::Rc;

use etcd::{Failure, Subject};
use hyper::{Response, StatusCode};
use wire::{Call, RaftRole, Reply};

use super::Link;
use super::grpc;
use super::plain::whole;
use super::service::{ask, read, unexpected};

/// How long the member may take to say its figures.
const TIMEOUT_MS: u32 = 5_000;

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
    let version = format!("{{server_version=\"{}\"}}", etcd::VERSION);
    figures.begin("etcd_server_version", "gauge", "Which version is running.");
    figures.with("etcd_server_version", &version, 1);
    let version = format!("{{cluster_version=\"{}\"}}", etcd::CLUSTER_VERSION);
    figures.begin("etcd_cluster_version", "gauge", "Which version the cluster has.");
    figures.with("etcd_cluster_version", &version, 1);
    let version = format!("{{version=\"{}\"}}", status.server_version);
    figures.begin("quorate_version", "gauge", "Which version of Quorate is running.");
    figures.with("quorate_version", &version, 1);
    Ok(())
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
    Ok(())
}
