//! The members as the leader knows them, and which of them a person means.

use client::{Client, Member, MemberList, MembersResult, NodeId};

use super::failure::Failure;
use super::session::Global;

/// A connection, to the leader where it can be found, and the members as they are there.
pub struct Roster {
    /// The connection.
    pub client: Client,
    /// The members.
    pub members: MembersResult,
}

impl Roster {
    /// Asks the first endpoint that answers, and goes on to the leader if that is another member:
    /// only the leader changes members, and its list is the newest.
    ///
    /// # Errors
    /// No member can be reached, or it refuses.
    pub fn at_leader(global: &Global) -> Result<Self, Failure> {
        let mut client = global.connect()?;
        let mut members = client.member_list()?;
        let here = client.server().map(|server| server.member);
        let leader = members.list.get(members.leader);
        if let Some(leader) = leader.filter(|leader| Some(leader.id) != here)
            && !leader.dialable().is_empty()
        {
            // The endpoints behind it: the leader's address may mean nothing where this runs.
            let address = leader.dialable().to_owned();
            let first = std::iter::once(&address);
            client = global.connect_to(first.chain(&global.endpoint), global.command_timeout)?;
            members = client.member_list()?;
        }
        Ok(Self { client, members })
    }

    /// The member that `text` means.
    ///
    /// # Errors
    /// There is none, or it could be one of two.
    pub fn find(&self, text: &str) -> Result<Member, Failure> {
        find(&self.members.list, text)
    }

    /// "member 2 (b)"
    pub fn called(&self, id: NodeId) -> String {
        match self.members.list.get(id) {
            Some(member) => format!("member {} ({})", id.get(), member.name),
            None => format!("member {}", id.get()),
        }
    }
}

/// The member with this id or name.
fn find(list: &MemberList, text: &str) -> Result<Member, Failure> {
    let id = text.parse().ok().map(NodeId::new);
    let mut found =
        list.members.iter().filter(|member| Some(member.id) == id || member.name == text);
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member.clone()),
        (Some(one), Some(other)) => Err(Failure::Member(format!(
            "\"{text}\" could be member {} ({}) or member {} ({}); give the other of id and name",
            one.id.get(),
            one.name,
            other.id.get(),
            other.name
        ))),
        (None, _) if id.is_some_and(|id| list.is_removed(id)) => {
            Err(Failure::Member(format!("member {text} was removed before")))
        }
        (None, _) => Err(Failure::Member(format!(
            "no member has the id or the name \"{text}\"; see `quorate member list`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_meant_by_its_id_or_its_name_if_that_is_clear() {
        let member =
            |id, name: &str| Member { id: NodeId::new(id), name: name.into(), ..Member::default() };
        let members = vec![member(1, "a"), member(3, "b"), member(4, "1")];
        let list = MemberList { next_member: 5, members };
        let found = |text| find(&list, text).map(|member| member.id.get());
        assert_eq!(found("a").ok(), Some(1));
        assert_eq!(found("3").ok(), Some(3));
        assert_eq!(found("4").ok(), Some(4));
        for (text, part) in [
            ("1", "could be member 1 (a) or member 4 (1)"),
            ("2", "was removed before"),
            ("5", "no member has"),
            ("c", "no member has"),
            ("", "no member has"),
        ] {
            let said = found(text).expect_err("nobody is meant").to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
