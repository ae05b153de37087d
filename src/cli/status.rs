//! `status`: the state of the server.

use client::MemberStatus;
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::session::{Format, Global};
use super::size;

/// Prints the state.
///
/// # Errors
/// The server, standard output, or a state that is not healthy.
pub fn run(global: &Global) -> Result<(), Failure> {
    let mut client = global.connect()?;
    let status = client.status()?;
    let endpoint = client.server().map(|server| server.endpoint.clone()).unwrap_or_default();
    let mut output = Output::new(global.write_out, &client);
    match global.write_out {
        Format::Simple => output.text(&lines(&endpoint, &status))?,
        Format::Json => output.text(&format!("{}\n", object(&endpoint, &status)))?,
    }
    if status.corrupt {
        return Err(Failure::Unhealthy("the members of the cluster disagree (corrupt)".into()));
    }
    if status.leader.get() == 0 {
        return Err(Failure::Unhealthy("this member knows no leader".into()));
    }
    Ok(())
}

fn lines(endpoint: &str, status: &MemberStatus) -> String {
    let alarms = match (status.no_space, status.corrupt) {
        (false, false) => "none",
        (true, false) => "no space",
        (false, true) => "corrupt",
        (true, true) => "no space, corrupt",
    };
    let role = match (status.is_learner, status.leader == status.member) {
        (true, _) => "learner",
        (false, true) => "leader",
        (false, false) => "follower",
    };
    let mut text = String::new();
    for (name, value) in [
        ("endpoint", endpoint.to_owned()),
        ("version", status.server_version.clone()),
        ("cluster", format!("{:x}", status.cluster)),
        ("member", format!("{:x} ({role})", status.member.get())),
        ("leader", format!("{:x}", status.leader.get())),
        ("term", status.term.to_string()),
        ("last index", status.last_index.to_string()),
        ("committed index", status.committed_index.to_string()),
        ("applied index", status.applied_index.to_string()),
        ("revision", status.revision.to_string()),
        ("compacted revision", status.compacted_revision.to_string()),
        ("page file", size::display(status.file_size)),
        ("page file in use", size::display(status.file_size_in_use)),
        ("log", size::display(status.log_size)),
        ("alarms", alarms.to_owned()),
    ] {
        text.push_str(&format!("{name:<20}{value}\n"));
    }
    text
}

/// The names that etcdctl's `endpoint status` has, as far as there is such a thing here.
fn object(endpoint: &str, status: &MemberStatus) -> serde_json::Value {
    let mut alarms = Vec::new();
    if status.no_space {
        alarms.push("NOSPACE");
    }
    if status.corrupt {
        alarms.push("CORRUPT");
    }
    json!([{
        "Endpoint": endpoint,
        "Status": {
            "header": {
                "cluster_id": status.cluster,
                "member_id": status.member.get(),
                "revision": status.revision,
                "raft_term": status.term,
            },
            "version": status.server_version,
            "dbSize": status.file_size,
            "dbSizeInUse": status.file_size_in_use,
            "dbSizeQuota": status.quota_size,
            "leader": status.leader.get(),
            "raftTerm": status.term,
            "raftIndex": status.committed_index,
            "raftAppliedIndex": status.applied_index,
            "lastIndex": status.last_index,
            "compactedRevision": status.compacted_revision,
            "logSize": status.log_size,
            "isLearner": status.is_learner,
            "errors": alarms,
        },
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_in_lines_and_as_an_object() {
        let status = MemberStatus { revision: 7, file_size: 3 << 19, ..MemberStatus::default() };
        let text = lines("h:1", &status);
        assert!(text.contains("revision            7\n"), "{text}");
        assert!(text.contains("1.5 MiB"), "{text}");
        let object = object("h:1", &status);
        assert_eq!(object[0]["Endpoint"], "h:1");
        assert_eq!(object[0]["Status"]["header"]["revision"], 7);
        assert_eq!(object[0]["Status"]["dbSize"], 3 << 19);
    }
}
