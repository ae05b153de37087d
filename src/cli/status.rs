//! `status`: the state of each endpoint: all of it for one, a line for each of several.

use std::thread;

use client::{Alarm, MemberStatus, RaftRole};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use super::session::{Format, Global};
use super::size;
use super::table;

/// What an endpoint answered.
struct Answer {
    endpoint: String,
    status: Result<MemberStatus, Failure>,
}

/// Asks every endpoint and prints what they answer.
///
/// # Errors
/// An endpoint that cannot be reached, standard output, or a state that is not healthy.
pub fn run(global: &Global) -> Result<(), Failure> {
    let mut answers = ask(global);
    let alone = answers.len() == 1;
    match (global.write_out, answers.first()) {
        (Format::Json, _) => output::text(&format!("{}\n", array(&answers)))?,
        (Format::Simple, Some(Answer { endpoint, status: Ok(status) })) if alone => {
            output::text(&lines(endpoint, status))?;
        }
        // There is nothing to show but the error.
        (Format::Simple, _) if alone => {}
        (Format::Simple, _) => output::text(&overview(&answers))?,
    }
    let problems = problems(&answers);
    // Nobody is there: that is no news about the cluster, but about the way to it.
    if answers.iter().all(|answer| answer.status.is_err())
        && let Some(Answer { status: Err(failure), .. }) = answers.pop()
    {
        return Err(failure);
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::Unhealthy(problems.join("; "))) }
}

/// All at once: one that does not answer costs its time only once.
fn ask(global: &Global) -> Vec<Answer> {
    let one = |endpoint: &String| -> Result<MemberStatus, Failure> {
        let mut client = global.connect_to([endpoint], global.command_timeout)?;
        Ok(client.status()?)
    };
    let one = &one;
    thread::scope(|scope| {
        let asked: Vec<_> =
            global.endpoint.iter().map(|endpoint| scope.spawn(move || one(endpoint))).collect();
        let answer = |(endpoint, thread): (&String, thread::ScopedJoinHandle<'_, _>)| Answer {
            endpoint: endpoint.clone(),
            status: thread.join().expect("asking does not panic"),
        };
        global.endpoint.iter().zip(asked).map(answer).collect()
    })
}

/// What is not as it should be.
fn problems(answers: &[Answer]) -> Vec<String> {
    let mut problems = Vec::new();
    for Answer { endpoint, status } in answers {
        match status {
            Err(failure) => problems.push(format!("{endpoint}: {}", reason(failure))),
            Ok(status) if status.corrupt => {
                problems.push(format!("{endpoint}: the members of the cluster disagree (corrupt)"));
            }
            Ok(status) if status.leader.get() == 0 => {
                problems.push(format!("{endpoint}: this member knows no leader"));
            }
            Ok(_) => {}
        }
    }
    problems
}

/// Why an endpoint gave no answer, without its address, which stands beside.
fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Client(client::Error::Unreachable { source, .. }) => source.to_string(),
        failure => failure.to_string(),
    }
}

fn role(status: &MemberStatus) -> &'static str {
    match status.role {
        _ if status.is_learner => "learner",
        RaftRole::Follower => "follower",
        RaftRole::Candidate => "candidate",
        RaftRole::Leader => "leader",
        RaftRole::Learner => "learner",
    }
}

/// The alarms that are up.
fn alarms(status: &MemberStatus) -> Vec<String> {
    let alarm = |alarm: &Alarm| format!("{} of member {}", alarm.kind.name(), alarm.member.get());
    status.alarms.iter().map(alarm).collect()
}

/// What else an operator should look at.
fn errors(status: &MemberStatus) -> Vec<String> {
    let mut errors = status.errors.clone();
    // A member that says so in its own words is not corrected.
    if errors.is_empty() && status.alarms.is_empty() {
        errors.extend(status.no_space.then(|| "no space".to_owned()));
        errors.extend(status.corrupt.then(|| "corrupt".to_owned()));
    }
    errors
}

/// Both.
fn complaints(status: &MemberStatus) -> Vec<String> {
    [alarms(status), errors(status)].concat()
}

/// How far a member's state is behind what is committed; none if the leader of its cluster was not
/// among those asked, for only the leader knows.
fn lag(answers: &[Answer], status: &MemberStatus) -> Option<u64> {
    let asked = answers.iter().filter_map(|answer| answer.status.as_ref().ok());
    let leaders =
        asked.filter(|other| other.role == RaftRole::Leader && other.cluster == status.cluster);
    // One that was deposed may not know it yet.
    let leader = leaders.max_by_key(|other| other.term)?;
    // They did not answer at the same instant: the member may be ahead.
    Some(leader.committed_index.saturating_sub(status.applied_index))
}

fn overview(answers: &[Answer]) -> String {
    let row = |answer: &Answer| match &answer.status {
        Ok(status) => [
            answer.endpoint.clone(),
            status.member_name.clone(),
            status.member.get().to_string(),
            role(status).to_owned(),
            status.term.to_string(),
            status.committed_index.to_string(),
            status.applied_index.to_string(),
            lag(answers, status).map_or("-".to_owned(), |lag| lag.to_string()),
            status.revision.to_string(),
            size::display(status.file_size),
            complaints(status).join(", "),
        ],
        Err(failure) => {
            let mut row = [const { String::new() }; 11].map(|_| "-".to_owned());
            row[0] = answer.endpoint.clone();
            row[10] = reason(failure);
            row
        }
    };
    let rows: Vec<_> = answers.iter().map(row).collect();
    let header = [
        "ENDPOINT",
        "NAME",
        "ID",
        "ROLE",
        "TERM",
        "COMMITTED",
        "APPLIED",
        "LAG",
        "REVISION",
        "DB SIZE",
        "ERRORS",
    ];
    table::lines(header, &rows)
}

fn lines(endpoint: &str, status: &MemberStatus) -> String {
    let all = |those: Vec<String>| match those.as_slice() {
        [] => "none".to_owned(),
        those => those.join(", "),
    };
    let mut text = String::new();
    for (name, value) in [
        ("endpoint", endpoint.to_owned()),
        ("version", status.server_version.clone()),
        ("cluster", format!("{:x}", status.cluster)),
        ("name", status.member_name.clone()),
        ("member", format!("{} ({})", status.member.get(), role(status))),
        ("leader", status.leader.get().to_string()),
        ("term", status.term.to_string()),
        ("last index", status.last_index.to_string()),
        ("committed index", status.committed_index.to_string()),
        ("applied index", status.applied_index.to_string()),
        ("revision", status.revision.to_string()),
        ("compacted revision", status.compacted_revision.to_string()),
        ("page file", size::display(status.file_size)),
        ("page file in use", size::display(status.file_size_in_use)),
        ("log", size::display(status.log_size)),
        ("client sessions", status.clients.to_string()),
        ("alarms", all(alarms(status))),
        ("errors", all(errors(status))),
    ] {
        text.push_str(&format!("{name:<20}{value}\n"));
    }
    text
}

/// One object for each endpoint, with null for what is not known.
fn array(answers: &[Answer]) -> Value {
    answers.iter().map(|answer| object(answers, answer)).collect()
}

fn object(answers: &[Answer], answer: &Answer) -> Value {
    let status = answer.status.as_ref().ok();
    let number = |pick: fn(&MemberStatus) -> u64| status.map(pick);
    let revision = |pick: fn(&MemberStatus) -> i64| status.map(pick);
    json!({
        "endpoint": answer.endpoint,
        "name": status.map(|status| &status.member_name),
        "member_id": number(|status| status.member.get()),
        "cluster_id": number(|status| status.cluster),
        "version": status.map(|status| &status.server_version),
        "role": status.map(role),
        "is_learner": status.map(|status| status.is_learner),
        "leader": number(|status| status.leader.get()),
        "term": number(|status| status.term),
        "last_index": number(|status| status.last_index),
        "commit_index": number(|status| status.committed_index),
        "applied_index": number(|status| status.applied_index),
        "lag": status.and_then(|status| lag(answers, status)),
        "revision": revision(|status| status.revision),
        "compacted_revision": revision(|status| status.compacted_revision),
        "db_size": number(|status| status.file_size),
        "db_size_in_use": number(|status| status.file_size_in_use),
        "log_size": number(|status| status.log_size),
        "client_sessions": number(|status| status.clients),
        "errors": match &answer.status {
            Ok(status) => complaints(status),
            Err(failure) => vec![reason(failure)],
        },
    })
}

#[cfg(test)]
mod tests {
    use client::NodeId;

    use super::*;

    fn status(name: &str, role: RaftRole, committed: u64, applied: u64) -> MemberStatus {
        MemberStatus {
            member_name: name.into(),
            role,
            leader: NodeId::new(1),
            committed_index: committed,
            applied_index: applied,
            revision: 7,
            file_size: 3 << 19,
            ..MemberStatus::default()
        }
    }

    fn answers() -> Vec<Answer> {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let away = client::Error::Unreachable { endpoint: "h:3".into(), source: refused };
        let answer = |endpoint: &str, status| Answer { endpoint: endpoint.into(), status };
        vec![
            answer("h:1", Ok(status("a", RaftRole::Follower, 8, 7))),
            answer("h:2", Ok(status("b", RaftRole::Leader, 10, 11))),
            answer("h:3", Err(Failure::Client(away))),
        ]
    }

    #[test]
    fn a_status_alone_is_shown_in_lines() {
        let text = lines("h:1", &status("a", RaftRole::Leader, 8, 7));
        assert!(text.contains("revision            7\n"), "{text}");
        assert!(text.contains("1.5 MiB"), "{text}");
        assert!(text.contains("alarms              none\nerrors              none\n"), "{text}");
    }

    #[test]
    fn an_alarm_is_told_apart_from_what_would_raise_it() {
        let mut status = status("a", RaftRole::Leader, 8, 7);
        status.errors = vec!["the store is above its quota".into()];
        let text = lines("h:1", &status);
        let end = "alarms              none\nerrors              the store is above its quota\n";
        assert!(text.ends_with(end), "{text}");
        status.alarms = vec![Alarm { kind: client::AlarmKind::NoSpace, member: NodeId::new(3) }];
        let text = lines("h:1", &status);
        assert!(text.contains("alarms              NOSPACE of member 3\n"), "{text}");
        assert_eq!(complaints(&status), ["NOSPACE of member 3", "the store is above its quota"]);
    }

    #[test]
    fn several_are_a_table_with_the_distance_to_the_leader() {
        let text = overview(&answers());
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[0][..9].join(" "),
            "ENDPOINT NAME ID ROLE TERM COMMITTED APPLIED LAG REVISION"
        );
        assert_eq!(rows[1].join(" "), "h:1 a 0 follower 0 8 7 3 7 1.5 MiB");
        assert_eq!(rows[2][7], "0", "a member that is ahead of an older answer has no lag");
        assert_eq!(rows[3].join(" "), "h:3 - - - - - - - - - connection refused");
        // Without the leader nobody knows.
        let text = overview(&answers()[..1]);
        assert!(text.contains(" 7        -    7"), "{text}");
    }

    #[test]
    fn json_has_nulls_and_the_reason_for_an_endpoint_that_is_away() {
        let array = array(&answers());
        for (name, value) in [
            ("endpoint", json!("h:1")),
            ("name", json!("a")),
            ("member_id", json!(0)),
            ("role", json!("follower")),
            ("term", json!(0)),
            ("commit_index", json!(8)),
            ("applied_index", json!(7)),
            ("revision", json!(7)),
            ("db_size", json!(3 << 19)),
            ("lag", json!(3)),
            ("errors", json!([])),
        ] {
            assert_eq!(array[0][name], value, "{name}");
            let away = &array[2][name];
            assert_eq!(away.is_null(), !["endpoint", "errors"].contains(&name), "{name}: {away}");
        }
        assert_eq!(array[2]["errors"], json!(["connection refused"]));
    }

    #[test]
    fn what_is_not_healthy_is_named_with_its_endpoint() {
        let mut answers = answers();
        assert_eq!(problems(&answers), ["h:3: connection refused"]);
        answers.truncate(2);
        assert!(problems(&answers).is_empty());
        answers[0].status = Ok(MemberStatus { corrupt: true, ..MemberStatus::default() });
        answers[1].status = Ok(MemberStatus::default());
        let problems = problems(&answers);
        assert!(problems[0].contains("h:1: ") && problems[0].contains("corrupt"), "{problems:?}");
        assert!(problems[1].contains("h:2: ") && problems[1].contains("no leader"), "{problems:?}");
    }
}
