//! The state of a member, for people: what consensus knows of it and what the store has.

use alloc::format;
use alloc::vec::Vec;

use base::{AlarmKind, Ticket};
use raft::RoleName;
use wire::{Alarms, RaftRole, StatusReply, Texts};

use crate::message::{ReplyBody, Standing};
use crate::store::Store;
use crate::translate;

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Answers what this member is and how far it has come.
    pub(crate) fn status(&mut self, ticket: Ticket, standing: &Standing) {
        let (applied, _) = self.state.applied();
        let pages = self.state.pages();
        let role = match standing.role {
            _ if standing.is_learner => RaftRole::Learner,
            RoleName::Leader => RaftRole::Leader,
            RoleName::Candidate | RoleName::PreCandidate => RaftRole::Candidate,
            RoleName::Follower => RaftRole::Follower,
        };
        let mut errors = Vec::new();
        let (low, met) = (self.checkpoint.space_is_low(), self.checkpoint.quota_is_met());
        let is_full = standing.no_space || low;
        let quota = format!(
            "the store is above its quota: {} bytes in use of {}",
            pages.allocated_size(),
            self.checkpoint.quota_size()
        );
        if met {
            errors.push(quota.as_str());
        }
        if is_full {
            errors.push("the disk is full");
        }
        if standing.leader.is_none() {
            errors.push("no leader");
        }
        if standing.disagrees {
            errors.push("members disagree about the state");
        }
        if standing.disk_slow {
            errors.push("the disk of the log is slow");
        }
        let status = StatusReply {
            server_version: env!("CARGO_PKG_VERSION"),
            cluster: self.config.cluster,
            member: self.config.member,
            leader: standing.leader.unwrap_or_default(),
            term: standing.term.get(),
            last_index: standing.last.get(),
            committed_index: standing.committed.get(),
            applied_index: applied.get(),
            revision: translate::i64_of(self.state.revision()),
            compacted_revision: translate::count_of(self.compacted()),
            file_size: pages.file_size(),
            file_size_in_use: pages.allocated_size(),
            log_size: standing.log_size,
            quota_size: self.checkpoint.quota_size(),
            is_learner: standing.is_learner,
            no_space: is_full || self.state.is_alarmed(AlarmKind::NoSpace),
            corrupt: standing.disagrees || self.state.is_alarmed(AlarmKind::Corrupt),
            member_name: &standing.name,
            role,
            errors: Texts::Given(&errors),
            clients: self.state.clients(),
            alarms: Alarms::Given(self.state.alarms()),
        };
        let mut out = Vec::new();
        self.writer.status(&mut out, ticket.request, &status);
        self.reply(ticket, ReplyBody::Frames(out));
    }
}
