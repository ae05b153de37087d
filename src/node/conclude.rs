//! The answer to a write: what its client is told once it has been applied.

use alloc::vec::Vec;

use base::limits::CLIENT_RESULTS_MAX;
use base::{Revision, Ticket};
use kv::{Answer, Outcome, Refusal, Remembered};
use wire::{AlarmReply, Alarms, Header, LeaseGrantReply, LeaseRevokeReply, RegisterReply};

use crate::gauges::Bound;
use crate::message::ReplyBody;
use crate::reads::{Task, Work};
use crate::store::Store;
use crate::translate;

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Answers the client of a write that has been applied, or sets out to read for it.
    pub(crate) fn conclude(
        &mut self,
        ticket: Ticket,
        outcome: &Outcome,
        answer: Option<Answer>,
        physical: bool,
    ) {
        if let Some(answer) = answer {
            self.answers.enter(Task::new(ticket, Work::Answer(answer)));
            return;
        }
        match outcome {
            Outcome::Put { revision } => {
                self.reply(ticket, ReplyBody::Put { revision: revision.get() });
            }
            Outcome::Deleted { revision, count } => {
                let (revision, count) = (translate::i64_of(*revision), translate::count_of(*count));
                let mut out = Vec::new();
                self.writer
                    .delete_range(&mut out, ticket.request, revision, count, [])
                    .expect("a reply without keys fits a frame");
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Compacted { revision, .. } if physical => {
                self.physical.push((ticket, *revision, false));
            }
            Outcome::PutWithLease { revision, lease } => {
                let (revision, mut out) = (translate::i64_of(*revision), Vec::new());
                let request = ticket.request;
                self.writer.put_with_lease(&mut out, request, revision, None, lease.get());
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Granted { revision, lease, ttl_ms } => {
                let (revision, lease) = (translate::i64_of(*revision), lease.get());
                let mut out = Vec::new();
                let reply = LeaseGrantReply { revision, lease, ttl_ms: *ttl_ms };
                self.writer.lease_grant(&mut out, ticket.request, &reply);
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Revoked { revision, deleted } => {
                let (revision, deleted) =
                    (translate::i64_of(*revision), translate::count_of(*deleted));
                let mut out = Vec::new();
                let reply = LeaseRevokeReply { revision, deleted };
                self.writer.lease_revoke(&mut out, ticket.request, &reply);
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Alarms { revision, alarms } => {
                let revision = translate::i64_of(*revision);
                let mut out = Vec::new();
                let reply = AlarmReply { revision, alarms: Alarms::Given(alarms) };
                self.writer.alarm(&mut out, ticket.request, &reply);
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Renewed { revision, ttls_ms } => {
                let (revision, ttls_ms) = (revision.get(), ttls_ms.clone());
                self.reply(ticket, ReplyBody::Renewed { revision, ttls_ms });
            }
            Outcome::Registered { client } => {
                self.note_client();
                let unanswered_max = u32::try_from(CLIENT_RESULTS_MAX).unwrap_or(u32::MAX);
                let reply = RegisterReply { client: *client, unanswered_max };
                let mut out = Vec::new();
                self.writer.register(&mut out, ticket.request, &reply);
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Repeated(Remembered::Compacted { revision, .. }) if physical => {
                self.physical.push((ticket, *revision, true));
                self.trimming.is_wanted = true;
            }
            Outcome::Repeated(result) => {
                let compacted = self.compacted();
                let (writer, mut out) = (&mut self.writer, Vec::new());
                translate::write_repeated(writer, &mut out, ticket.request, result, compacted);
                self.reply(ticket, ReplyBody::Frames(out));
            }
            Outcome::Compacted { revision, .. } => self.reply_compacted(ticket, *revision, false),
            Outcome::Refused(refusal) => {
                let mut refused = translate::refused(*refusal);
                if *refusal == Refusal::TooManyLeases {
                    self.gauges.hit(Bound::Leases);
                }
                refused.compacted = self.compacted();
                self.refuse(ticket, refused);
            }
            Outcome::Txn(_) | Outcome::Expired { .. } | Outcome::Nothing => {
                unreachable!("a transaction has an answer, and nobody waits for an empty entry")
            }
        }
    }

    pub(crate) fn reply_compacted(&mut self, ticket: Ticket, revision: Revision, repeated: bool) {
        let mut out = Vec::new();
        self.writer.compact(&mut out, ticket.request, translate::i64_of(revision));
        if repeated {
            Header::mark_repeated(&mut out);
        }
        self.reply(ticket, ReplyBody::Frames(out));
    }
}
