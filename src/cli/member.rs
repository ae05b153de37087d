//! `member`: who belongs to the cluster, and changes of that.
//!
//! ```text
//! simple   list: id, status, name, peer address, client address, is learner, role   as etcdctl's, and
//!          the role
//! json     {"header":{..},"leader":1,"members":[{"id":1,"name":"a","role":"voter",..},..]}
//! ```

use base::FileId;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use client::{
    Member, MemberChange, MemberChangeResult, MemberList, MemberOperation, MemberRole, NodeId,
};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::Output;
use super::roster::Roster;
use super::session::{Format, Global, endpoint};

/// What is wanted of the members.
#[derive(Clone, Debug, Subcommand)]
pub enum MemberCommand {
    /// Show the members
    List,
    /// Add a member; it votes as soon as it has caught up
    Add(AddArguments),
    /// Let a learner vote
    Promote(WhichArguments),
    /// Take a member out, for good: neither its id nor its data directory comes back
    Remove(RemoveArguments),
    /// Give a member another name or another address
    Update(UpdateArguments),
    /// Put a new member in the place of one, in one step
    Replace(ReplaceArguments),
}

/// Flags of `member add`.
#[derive(Clone, Debug, Args)]
pub struct AddArguments {
    /// Name of the new member
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// Address where other members will find it
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    pub peer: String,
    /// It only listens, until it is promoted
    #[arg(long)]
    pub learner: bool,
}

/// Which member.
#[derive(Clone, Debug, Args)]
pub struct WhichArguments {
    /// Id or name of the member
    #[arg(value_name = "ID|NAME")]
    pub member: String,
}

/// Flags of `member remove`.
#[derive(Clone, Debug, Args)]
pub struct RemoveArguments {
    #[command(flatten)]
    which: WhichArguments,
    /// Remove it even if too few of the others are there to vote; the cluster may stand still then
    #[arg(long)]
    pub force: bool,
}

/// Flags of `member update`.
#[derive(Clone, Debug, Args)]
pub struct UpdateArguments {
    #[command(flatten)]
    which: WhichArguments,
    #[command(flatten)]
    news: News,
}

/// What a member gets; one of them at least.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
struct News {
    /// Its new name
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Its new address for other members
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    peer: Option<String>,
}

/// Flags of `member replace`.
#[derive(Clone, Debug, Args)]
pub struct ReplaceArguments {
    #[command(flatten)]
    which: WhichArguments,
    /// Name of the new member
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub new_name: String,
    /// Address where other members will find it
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    pub peer: String,
}

/// Does it.
///
/// # Errors
/// The cluster, or standard output.
pub fn run(global: &Global, command: &MemberCommand) -> Result<(), Failure> {
    let change = |operation| MemberChange { operation, ..MemberChange::default() };
    let (which, change) = match command {
        MemberCommand::List => return list(global),
        MemberCommand::Add(arguments) => {
            let operation =
                if arguments.learner { MemberOperation::AddLearner } else { MemberOperation::Add };
            let (name, peer_address) = (arguments.name.as_str(), arguments.peer.as_str());
            (None, MemberChange { name, peer_address, ..change(operation) })
        }
        MemberCommand::Promote(which) => (Some(which), change(MemberOperation::Promote)),
        MemberCommand::Remove(arguments) => {
            let change = MemberChange { force: arguments.force, ..change(MemberOperation::Remove) };
            (Some(&arguments.which), change)
        }
        MemberCommand::Update(arguments) => {
            let change = MemberChange {
                name: arguments.news.name.as_deref().unwrap_or_default(),
                peer_address: arguments.news.peer.as_deref().unwrap_or_default(),
                ..change(MemberOperation::Update)
            };
            (Some(&arguments.which), change)
        }
        MemberCommand::Replace(arguments) => {
            let change = MemberChange {
                name: &arguments.new_name,
                peer_address: &arguments.peer,
                ..change(MemberOperation::Replace)
            };
            (Some(&arguments.which), change)
        }
    };
    let mut roster = Roster::at_leader(global)?;
    let member = match which {
        Some(which) => roster.find(&which.member)?.id,
        None => NodeId::default(),
    };
    let change = MemberChange { member, ..change };
    let result = roster.client.member_change(&change).map_err(outcome)?;
    let cluster = roster.client.server().map_or(0, |server| server.cluster);
    let mut output = Output::new(global.write_out, &roster.client);
    match global.write_out {
        Format::Simple => output.text(&change_lines(&change, cluster, &result)),
        Format::Json => output.members(change_object(&change, &result)),
    }
}

/// A change whose outcome is not known shows in the list of members, not in a key.
pub fn outcome(error: client::Error) -> Failure {
    match error {
        client::Error::OutcomeUnknown { reason } => Failure::Member(format!(
            "the change was sent but its outcome is unknown, see `quorate member list`: {reason}"
        )),
        error => Failure::Client(error),
    }
}

fn list(global: &Global) -> Result<(), Failure> {
    let mut client = global.connect()?;
    let members = client.member_list()?;
    let mut output = Output::new(global.write_out, &client);
    match global.write_out {
        Format::Simple => output.text(&list_lines(&members.list, members.leader)),
        Format::Json => output.members(list_object(&members.list, members.leader)),
    }
}

/// True once it has told the cluster of its data directory: it has run. Of a leader nobody needs to be
/// told that.
fn is_started(member: &Member, leader: NodeId) -> bool {
    member.data_id != FileId::default() || member.id == leader
}

fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter | MemberRole::Both => "voter",
        MemberRole::Learner => "learner",
        MemberRole::Promotable => "joining",
        MemberRole::Outgoing => "leaving",
        MemberRole::OutgoingToLearner => "demoting",
    }
}

fn list_lines(list: &MemberList, leader: NodeId) -> String {
    let line = |member: &Member| {
        format!(
            "{}, {}, {}, {}, {}, {}, {}\n",
            member.id.get(),
            if is_started(member, leader) { "started" } else { "unstarted" },
            member.name,
            member.peer_address,
            member.client_address,
            member.role.is_learner(),
            if member.id == leader { "leader" } else { role_name(member.role) }
        )
    };
    list.members.iter().map(line).collect()
}

fn list_object(list: &MemberList, leader: NodeId) -> Value {
    let members: Vec<Value> =
        list.members.iter().map(|member| member_object(member, leader)).collect();
    json!({ "leader": leader.get(), "members": members })
}

fn member_object(member: &Member, leader: NodeId) -> Value {
    json!({
        "id": member.id.get(),
        "name": member.name,
        "peer_address": member.peer_address,
        "client_address": member.client_address,
        "role": role_name(member.role),
        "is_learner": member.role.is_learner(),
        "is_started": is_started(member, leader),
    })
}

/// The member that the change brought in; none for a change of one that was there.
fn added<'a>(change: &MemberChange<'_>, result: &'a MemberChangeResult) -> Option<&'a Member> {
    match change.operation {
        MemberOperation::Add | MemberOperation::AddLearner | MemberOperation::Replace => {
            result.list.get(result.member)
        }
        MemberOperation::Promote | MemberOperation::Remove | MemberOperation::Update => None,
    }
}

fn change_lines(change: &MemberChange<'_>, cluster: u64, result: &MemberChangeResult) -> String {
    let id = result.member.get();
    let mut text = match change.operation {
        MemberOperation::Add => {
            format!("Member {id} added to cluster {cluster:x}; it votes when it has caught up\n")
        }
        MemberOperation::AddLearner => {
            format!("Member {id} added to cluster {cluster:x} as a learner\n")
        }
        MemberOperation::Promote => format!("Member {id} promoted in cluster {cluster:x}\n"),
        MemberOperation::Remove => format!("Member {id} removed from cluster {cluster:x}\n"),
        MemberOperation::Update => format!("Member {id} updated in cluster {cluster:x}\n"),
        MemberOperation::Replace => format!(
            "Member {id} takes the place of member {} in cluster {cluster:x}; it votes when it has \
             caught up\n",
            change.member.get()
        ),
    };
    if let Some(member) = added(change, result) {
        let words: Vec<String> =
            start_words(member, &result.list).iter().map(|word| quoted(word)).collect();
        text.push_str(&format!(
            "\nStart it with (and with --listen IP:PORT for its clients, 127.0.0.1:2400 if absent):\n\
             {}\n",
            words.join(" ")
        ));
    }
    text
}

fn change_object(change: &MemberChange<'_>, result: &MemberChangeResult) -> Value {
    let mut object = list_object(&result.list, result.leader);
    object["member"] = result.member.get().into();
    if let Some(member) = added(change, result) {
        object["start"] = start_words(member, &result.list).into();
    }
    object
}

/// The command that starts a new member.
fn start_words(member: &Member, list: &MemberList) -> Vec<String> {
    let address = &member.peer_address;
    let mut words = vec!["quorate".into(), "server".into(), "--name".into(), member.name.clone()];
    if address.parse::<std::net::SocketAddr>().is_ok() {
        words.extend(["--listen-peer".into(), address.clone()]);
    } else {
        // A name is nothing to listen on: it may mean another address on the machine itself.
        let port = address.rsplit_once(':').map_or("0", |(_, port)| port);
        words.extend(["--listen-peer".into(), format!("0.0.0.0:{port}")]);
        words.extend(["--advertise-peer".into(), address.clone()]);
    }
    let cluster: Vec<String> = list
        .members
        .iter()
        .map(|member| format!("{}={}", member.name, member.peer_address))
        .collect();
    words.extend(["--initial-cluster".into(), cluster.join(",")]);
    words.extend(["--initial-cluster-state".into(), "existing".into()]);
    words.extend(["--data-dir".into(), format!("./{}-data", member.name.replace('/', "_"))]);
    words
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+[]".contains(c);
    if word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, role: MemberRole) -> Member {
        Member {
            id: NodeId::new(id),
            name: name.into(),
            peer_address: format!("127.0.0.1:{id}"),
            client_address: format!("127.0.0.1:10{id}"),
            data_id: FileId::new(id.into()),
            role,
        }
    }

    fn result(new: Member) -> MemberChangeResult {
        let members = vec![member(1, "a", MemberRole::Voter), new];
        let (member, leader) = (members[1].id, members[0].id);
        let list = MemberList { next_member: 9, members };
        MemberChangeResult { member, list, leader }
    }

    fn unstarted(name: &str, peer: &str) -> Member {
        Member {
            peer_address: peer.into(),
            client_address: String::new(),
            data_id: FileId::default(),
            ..member(4, name, MemberRole::Promotable)
        }
    }

    #[test]
    fn a_list_has_the_columns_of_etcdctl_and_the_role() {
        let result = result(unstarted("d", "h:4"));
        assert_eq!(
            list_lines(&result.list, result.leader),
            "1, started, a, 127.0.0.1:1, 127.0.0.1:101, false, leader\n\
             4, unstarted, d, h:4, , true, joining\n"
        );
        let object = list_object(&result.list, result.leader);
        assert_eq!((&object["leader"], &object["members"][0]["name"]), (&json!(1), &json!("a")));
        assert_eq!(object["members"][0]["role"], "voter");
        let started = ["is_started", "is_learner"].map(|name| object["members"][1][name].clone());
        assert_eq!(started, [json!(false), json!(true)]);
    }

    #[test]
    fn an_addition_says_how_the_new_member_is_started() {
        let add = MemberChange { operation: MemberOperation::Add, ..MemberChange::default() };
        let added = result(unstarted("d", "127.0.0.1:4"));
        let text = change_lines(&add, 0x1f, &added);
        assert!(text.starts_with("Member 4 added to cluster 1f"), "{text}");
        let expected = "quorate server --name d --listen-peer 127.0.0.1:4 --initial-cluster \
                        a=127.0.0.1:1,d=127.0.0.1:4 --initial-cluster-state existing --data-dir \
                        ./d-data\n";
        assert!(text.ends_with(expected), "{text}");
        let object = change_object(&add, &added);
        assert_eq!((&object["member"], &object["start"][3]), (&json!(4), &json!("d")));
        // An address that is a name, and a name that a shell would take apart.
        let text = change_lines(&add, 0x1f, &result(unstarted("it's/d", "host.example:4")));
        for part in [
            r"--name 'it'\''s/d' --listen-peer 0.0.0.0:4 --advertise-peer host.example:4 ",
            r"--data-dir './it'\''s_d-data'",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn other_changes_say_what_was_done_in_one_line() {
        let done = result(member(2, "b", MemberRole::Voter));
        for (operation, line) in [
            (MemberOperation::Promote, "Member 2 promoted in cluster 1f\n"),
            (MemberOperation::Remove, "Member 2 removed from cluster 1f\n"),
            (MemberOperation::Update, "Member 2 updated in cluster 1f\n"),
        ] {
            let change = MemberChange { operation, ..MemberChange::default() };
            assert_eq!(change_lines(&change, 0x1f, &done), line);
            assert!(change_object(&change, &done).get("start").is_none());
        }
    }
}
