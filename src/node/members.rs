//! Members: who the members of the log's newest list are, and the lists before it that may still come
//! back. A list takes effect where raft's membership does: when its entry is in the log.
//!
//! raft knows ids and votes; names, addresses and the names of data directories are known here only.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base::{FileId, LogIndex, NodeId};
use raft::{Change, Configuration, Membership};
use wire::{Member, MemberList, MemberRole};

use crate::peers::Introduction;

/// A list and the index of its entry, zero for the founders.
#[derive(Clone, Debug)]
struct Listed {
    index: LogIndex,
    list: MemberList,
}

/// The lists of the log: one that is committed, then those that may be cut off.
#[derive(Clone, Debug)]
pub struct Members {
    lists: Vec<Listed>,
}

/// Raft's view of a list; none for a list without a voter.
pub fn membership(list: &MemberList) -> Option<Membership> {
    let of = |wanted: &[MemberRole]| -> Vec<NodeId> {
        list.members.iter().filter(|m| wanted.contains(&m.role)).map(|m| m.id).collect()
    };
    let voters = of(&[MemberRole::Voter, MemberRole::Both]);
    if voters.is_empty() {
        return None;
    }
    let outgoing = of(&[MemberRole::Outgoing, MemberRole::Both, MemberRole::OutgoingToLearner]);
    let learners = of(&[MemberRole::Learner, MemberRole::Promotable]);
    let learners_next = of(&[MemberRole::OutgoingToLearner]);
    Some(Membership::restored(voters, outgoing, learners, learners_next))
}

/// What a member says of itself.
pub(crate) struct Said {
    /// The random name of its data directory.
    pub data_id: FileId,
    /// Where clients find it; empty: it does not say.
    pub client_address: String,
    /// The same of members.
    pub peer_address: String,
    /// What it is called; empty: it does not say.
    pub name: String,
}

impl Said {
    /// What this member says.
    pub fn of(own: &Introduction) -> Self {
        Self {
            data_id: own.data_id,
            client_address: own.client_address.clone(),
            peer_address: own.peer_address.clone(),
            name: own.name.clone(),
        }
    }
}

impl Members {
    /// The lists of a log, oldest first, at least one.
    pub fn new(lists: Vec<(LogIndex, MemberList)>) -> Self {
        assert!(!lists.is_empty(), "a member without a list of members");
        Self { lists: lists.into_iter().map(|(index, list)| Listed { index, list }).collect() }
    }

    /// The newest list with one member only, a voter; none where it is not listed. Ids stay given.
    pub fn alone(self, id: NodeId) -> Option<Self> {
        let (index, mut list) = (self.index(), self.newest().clone());
        list.members.retain(|member| member.id == id);
        list.members.first_mut()?.role = MemberRole::Voter;
        Some(Self { lists: Vec::from([Listed { index, list }]) })
    }

    /// What raft starts with.
    pub fn configurations(&self) -> Vec<Configuration> {
        let configuration = |listed: &Listed| {
            let membership = membership(&listed.list).expect("a list without voters is not taken");
            Configuration { index: listed.index, membership }
        };
        self.lists.iter().map(configuration).collect()
    }

    /// The newest list.
    pub fn newest(&self) -> &MemberList {
        &self.lists.last().expect("there is one at least").list
    }

    /// Index of the newest list.
    pub fn index(&self) -> LogIndex {
        self.lists.last().expect("there is one at least").index
    }

    /// A member of the newest list.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.newest().members.iter().find(|member| member.id == id)
    }

    /// A list is in the log.
    pub fn push(&mut self, index: LogIndex, list: MemberList) {
        assert!(index > self.index() || self.lists.len() == 1, "a list behind a later one");
        self.lists.push(Listed { index, list });
    }

    /// Entries from `first` on are cut off.
    pub fn cut(&mut self, first: LogIndex) {
        self.lists.retain(|listed| listed.index < first);
        assert!(!self.lists.is_empty(), "a committed list was cut off");
    }

    /// Lists before the last committed one are history. Says whether there were any.
    pub fn prune(&mut self, committed: LogIndex) -> bool {
        let before = self.lists.len();
        while self.lists.get(1).is_some_and(|next| next.index <= committed) {
            self.lists.remove(0);
        }
        self.lists.len() < before
    }

    /// The members of all lists, each as the newest one has it, and the id that the committed list
    /// would give next: a member that leaves is needed until that is committed.
    pub fn everyone(&self) -> (Vec<&Member>, u64) {
        let mut all: Vec<&Member> = Vec::new();
        for listed in self.lists.iter().rev() {
            for member in &listed.list.members {
                if !all.iter().any(|known| known.id == member.id) {
                    all.push(member);
                }
            }
        }
        (all, self.lists.first().expect("there is one at least").list.next_member)
    }

    /// A snapshot's list takes the place of all.
    pub fn restart(&mut self, index: LogIndex, list: MemberList) {
        self.lists = Vec::from([Listed { index, list }]);
    }

    /// Index of the newest list that is committed, as far as is known.
    pub fn committed_index(&self) -> LogIndex {
        self.lists.first().expect("there is one at least").index
    }

    /// The newest list with the votes of `membership`; who is in neither is dropped, and `added` comes
    /// in where the membership has it.
    pub fn with(&self, membership: &Membership, added: Option<Member>) -> MemberList {
        let mut list = self.newest().clone();
        if let Some(added) = added
            && !list.members.iter().any(|member| member.id == added.id)
        {
            list.next_member = list.next_member.max(added.id.get() + 1);
            list.members.push(added);
        }
        list.members.retain_mut(|member| match role(membership, member) {
            Some(role) => {
                member.role = role;
                true
            }
            None => false,
        });
        list
    }

    /// The change to raft that gives exactly these votes.
    pub fn change(
        &self,
        lag_max: Option<u64>,
        adjust: impl FnOnce(&mut Vec<NodeId>, &mut Vec<NodeId>),
    ) -> Change {
        let membership = membership(self.newest()).expect("the list in effect has voters");
        let (mut voters, mut learners) =
            (membership.voters().to_vec(), membership.learners().to_vec());
        adjust(&mut voters, &mut learners);
        Change { voters, learners, lag_max }
    }

    /// The newest list with what a member says of itself; none if that is known.
    pub(crate) fn introduced(&self, id: NodeId, said: &Said) -> Option<MemberList> {
        let Said { data_id, client_address, peer_address, name } = said;
        let mut list = self.newest().clone();
        let is_taken = list.by_name(name).is_some();
        let member = list.members.iter_mut().find(|member| member.id == id)?;
        let is_known = member.data_id != FileId::new(0);
        let moved = !client_address.is_empty() && member.client_address != *client_address;
        let found = !peer_address.is_empty() && member.peer_address.is_empty();
        let named = member.is_nameless() && !is_taken && wire::is_member_name(name);
        if is_known && !moved && !found && !named {
            return None;
        }
        if named {
            member.name = name.to_string();
        }
        if found {
            member.peer_address = peer_address.to_string();
        }
        if !is_known {
            member.data_id = *data_id;
        }
        if !client_address.is_empty() {
            member.client_address = client_address.to_string();
        }
        Some(list)
    }

    /// The name of a member, for people.
    pub fn name_of(&self, id: NodeId) -> String {
        self.get(id).map_or_else(String::new, |member| member.name.clone())
    }
}

/// What a member of `membership` is.
fn role(membership: &Membership, member: &Member) -> Option<MemberRole> {
    let votes = membership.voters().contains(&member.id);
    let voted = membership.outgoing().contains(&member.id);
    Some(match (votes, voted) {
        (true, true) => MemberRole::Both,
        (true, false) => MemberRole::Voter,
        (false, true) if membership.learners_next().contains(&member.id) => {
            MemberRole::OutgoingToLearner
        }
        (false, true) => MemberRole::Outgoing,
        (false, false) if membership.learners().contains(&member.id) => match member.role {
            MemberRole::Promotable => MemberRole::Promotable,
            _ => MemberRole::Learner,
        },
        (false, false) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, role: MemberRole) -> Member {
        Member {
            id: NodeId::new(id),
            name: alloc::format!("m{id}"),
            peer_address: alloc::format!("127.0.0.1:{id}"),
            client_address: String::new(),
            data_id: FileId::new(0),
            role,
        }
    }

    fn said(client_address: &str, name: &str) -> Said {
        let [client_address, name] = [client_address, name].map(str::to_string);
        Said { data_id: FileId::new(7), client_address, peer_address: String::new(), name }
    }

    fn members() -> Members {
        let members = (1..=3).map(|id| member(id, MemberRole::Voter)).collect();
        Members::new(Vec::from([(LogIndex::ZERO, MemberList { next_member: 4, members })]))
    }

    /// A list says all that raft's membership says, through every step of a change.
    #[test]
    fn votes_survive_the_way_through_a_list() {
        let mut members = members();
        let steps = [
            members.change(None, |_, learners| learners.push(NodeId::new(4))),
            Change {
                voters: [1, 2, 4].map(NodeId::new).to_vec(),
                learners: [3].map(NodeId::new).to_vec(),
                lag_max: None,
            },
        ];
        let mut index = LogIndex::new(5);
        for change in steps {
            let mut now = membership(members.newest()).expect("voters");
            let mut next = now.changed(&change).expect("a change");
            loop {
                let list = members.with(&next, Some(member(4, MemberRole::Promotable)));
                assert_eq!(membership(&list).as_ref(), Some(&next));
                index = index.next();
                members.push(index, list);
                if !next.is_joint() {
                    break;
                }
                now = next;
                next = now.left();
            }
        }
        assert_eq!(members.newest().next_member, 5);
        members.cut(LogIndex::new(6));
        assert_eq!(members.newest().members.len(), 3);
    }

    #[test]
    fn a_member_introduces_itself_once() {
        let mut members = members();
        let id = NodeId::new(2);
        let list = members.introduced(id, &said("127.0.0.1:99", "")).expect("news");
        members.push(LogIndex::new(1), list);
        assert!(members.introduced(id, &said("127.0.0.1:99", "")).is_none());
        assert!(members.introduced(id, &said("127.0.0.1:98", "")).is_some());
        assert!(members.introduced(NodeId::new(9), &said("", "")).is_none());
    }

    #[test]
    fn who_was_added_without_a_name_gets_the_one_that_it_says() {
        let mut members = members();
        let id = NodeId::new(2);
        assert_eq!(members.introduced(id, &said("", "x")).expect("news").by_name("x"), None);
        let mut list = members.newest().clone();
        list.members[1].name = list.members[1].peer_address.clone();
        members.push(LogIndex::new(1), list);
        let list = members.introduced(id, &said("", "m1")).expect("news");
        assert_eq!(list.by_name("m1").map(|member| member.id), Some(NodeId::new(1)), "taken");
        let list = members.introduced(id, &said("", "x")).expect("news");
        assert_eq!(list.by_name("x").map(|member| member.id), Some(id));
        members.push(LogIndex::new(2), list);
        assert!(members.introduced(id, &said("", "y")).is_none(), "it has one now");
    }
}
