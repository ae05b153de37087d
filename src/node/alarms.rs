//! The alarm of a member whose store has reached its quota.
//!
//! ```text
//! a write is applied, or refused by the leader ─► is the quota met? ─► entry Alarm ─► refused until disarmed
//! ```
//!
//! The alarm is the cluster's: it stands in the replicated state, and there alone writes are refused for it. What
//! the leader refuses beyond that, because its own quota is met or its disk is full, comes and goes by itself.
//! Only a write raises the alarm: one that was disarmed too early is raised again by the next write, as in etcd.

use alloc::format;
use alloc::vec::Vec;

use base::{
    Alarm, AlarmKind, ConnectionId, Duration, Frame, Instant, ReactorId, RequestId, Ticket,
};
use wire::{AlarmChange, Call, HEADER_SIZE, RequestEncoder};

use crate::ConsensusEvent;
use crate::message::EntryKind;
use crate::store::Store;
use crate::store_link::StoreEffect;

/// The connection of the ticket of an alarm that this member raises: nobody's, so nobody is told.
const NOBODY: ConnectionId = ConnectionId { slot: u32::MAX, generation: u32::MAX - 1 };

/// An alarm that has been asked for and is not up is asked for again by a write so much later: it may have met
/// no leader.
const AGAIN: Duration = Duration::from_millis(1_000);

/// What the store knows of its alarm beside the replicated state.
#[derive(Debug, Default)]
pub struct QuotaAlarm {
    /// In this turn a write has taken space, or was refused because there is none.
    has_written: bool,
    /// When it was asked for last.
    asked_at: Option<Instant>,
    /// The alarms, of all members, that the operator knows to be up.
    told: Vec<Alarm>,
}

impl QuotaAlarm {
    /// A write has taken space, or wanted to.
    pub fn note_write(&mut self) {
        self.has_written = true;
    }
}

/// What an alarm means.
fn consequence(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => {
            "puts and new leases are refused; delete keys and compact, or start the members with a \
             greater quota, then disarm it"
        }
        AlarmKind::Corrupt => {
            "nothing is written; find out which member differs and replace it, then disarm it"
        }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Tells the operator which alarms have been raised and disarmed; after a start, which are up.
    pub(crate) fn tell_alarms(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        let up = self.state.alarms();
        if self.quota_alarm.told == up {
            return;
        }
        let told = core::mem::replace(&mut self.quota_alarm.told, up.to_vec());
        let name =
            |alarm: &Alarm| format!("alarm {} of member {}", alarm.kind.name(), alarm.member.get());
        for alarm in up.iter().filter(|alarm| !told.contains(alarm)) {
            let text = format!("{} is up: {}", name(alarm), consequence(alarm.kind));
            effects.push(StoreEffect::Tell(text));
        }
        for alarm in told.iter().filter(|alarm| !up.contains(alarm)) {
            effects.push(StoreEffect::Note(format!("{} is disarmed", name(alarm))));
        }
    }

    /// Has the alarm of this member raised if a write of this turn has met the quota.
    pub(crate) fn raise_alarm(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let has_written = core::mem::take(&mut self.quota_alarm.has_written);
        let own = Alarm { kind: AlarmKind::NoSpace, member: self.config.member };
        if self.state.alarms().contains(&own) {
            // It came to be: who disarms it while the store is still too large has it again at once.
            self.quota_alarm.asked_at = None;
            return;
        }
        if !has_written
            || !self.checkpoint.quota_is_met()
            || self.quota_alarm.asked_at.is_some_and(|at| now.since(at) < AGAIN)
        {
            return;
        }
        self.quota_alarm.asked_at = Some(now);
        let change = AlarmChange { disarm: false, kind: own.kind, member: own.member };
        let (mut frame, id) = (Vec::new(), RequestId::new(1));
        RequestEncoder::new()
            .encode(&mut frame, id, 0, &Call::Alarm(change))
            .expect("an alarm fits the smallest frame");
        let ticket = Ticket {
            reactor: ReactorId::new(0),
            connection: NOBODY,
            request: id,
            size: 0,
            reads: false,
            watches: false,
        };
        let kind = EntryKind::Alarm;
        let event = ConsensusEvent::Propose {
            ticket,
            kind,
            stamped: false,
            frees_space: kind.frees_space(),
            frame: Frame::copy_from_slice(&frame[HEADER_SIZE..]),
            deadline: Some(now.after(AGAIN)),
        };
        effects.push(StoreEffect::ToConsensus(event));
    }
}
