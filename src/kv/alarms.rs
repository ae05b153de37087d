//! Alarms: what the cluster keeps in mind of members until somebody disarms it, and what it refuses meanwhile.
//!
//! They are replicated like keys, but without a revision, and stand in the meta record: whether a write is
//! refused for an alarm is decided when its entry is applied, by the alarms of that moment, so that all members
//! decide the same.
//!
//! ```text
//! up       refused                                                    goes on
//! NoSpace  puts, transactions with a put, new leases                  deletes, compaction, ends of leases
//! Corrupt  all that changes keys, history or leases                   renewals, members, alarms
//! ```
//!
//! A transaction counts with both its branches, whichever is taken, as in etcd.

use alloc::vec::Vec;

use base::{Alarm, AlarmKind, Mutant, NodeId};

use crate::command::{Command, Op, Txn};
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::state::State;
use crate::version::Reader;

/// Alarms that are kept at most: one of each kind for more members than a cluster has.
pub const ALARMS_MAX: usize = 32;

/// Bytes of an alarm in the meta record.
const ALARM_SIZE: usize = 9;

/// Greatest size in bytes of all of them there.
pub(crate) const ALARMS_SIZE_MAX: usize = 1 + ALARMS_MAX * ALARM_SIZE;

/// Appends alarms to a meta record: their number, and of each kind and member.
pub(crate) fn encode(alarms: &[Alarm], out: &mut Vec<u8>) {
    out.push(u8::try_from(alarms.len()).expect("at most ALARMS_MAX"));
    for alarm in alarms {
        out.push(alarm.kind.number());
        out.extend_from_slice(&alarm.member.get().to_le_bytes());
    }
}

/// Alarms of a meta record; none if they are not in order.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Vec<Alarm>> {
    let mut alarms = Vec::new();
    for _ in 0..reader.u8()? {
        let kind = AlarmKind::from_number(reader.u8()?)?;
        alarms.push(Alarm { kind, member: NodeId::new(reader.u64()?) });
    }
    (alarms.len() <= ALARMS_MAX && alarms.is_sorted_by(|one, next| one < next)).then_some(alarms)
}

impl State {
    /// The alarms that are up, by kind and member.
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// Whether an alarm of this kind is up, of whichever member.
    pub fn is_alarmed(&self, kind: AlarmKind) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == kind)
    }

    /// Bytes that the alarms take in a meta record.
    pub(crate) fn alarms_size(&self) -> usize {
        1 + self.alarms.len() * ALARM_SIZE
    }

    /// Why a command is not carried out while these alarms are up. They do not change in the middle of an
    /// entry, so that one which has begun goes on.
    pub(crate) fn alarm_against(&self, command: &Command<'_>) -> Option<Refusal> {
        if self.alarms.is_empty() || Mutant::AlarmIgnored.is_on() {
            return None;
        }
        if self.is_alarmed(AlarmKind::Corrupt) && command.changes_store() {
            return Some(Refusal::Corrupt);
        }
        (self.is_alarmed(AlarmKind::NoSpace) && command.takes_space()).then_some(Refusal::NoSpace)
    }

    /// Raises an alarm, if it is not up.
    pub(crate) fn raise(&mut self, alarm: Alarm) -> Outcome {
        if let Err(place) = self.alarms.binary_search(&alarm) {
            if self.alarms.len() >= ALARMS_MAX {
                return Outcome::Refused(Refusal::TooManyAlarms);
            }
            self.alarms.insert(place, alarm);
        }
        Outcome::Alarms { revision: self.revision(), alarms: [alarm].into() }
    }

    /// Takes the alarm of a member away, or those of all members for 0.
    pub(crate) fn disarm(&mut self, kind: AlarmKind, member: NodeId) -> Outcome {
        let is_meant = |alarm: &Alarm| {
            alarm.kind == kind && (member == NodeId::default() || alarm.member == member)
        };
        let alarms: Vec<Alarm> = self.alarms.iter().copied().filter(is_meant).collect();
        self.alarms.retain(|alarm| !is_meant(alarm));
        Outcome::Alarms { revision: self.revision(), alarms }
    }
}

impl Command<'_> {
    /// Whether carrying it out takes space that is not given back: what is refused while space is short.
    pub fn takes_space(&self) -> bool {
        match self {
            Self::Put(_) | Self::PutWithTtl { .. } | Self::LeaseGrant { .. } => true,
            Self::Txn(txn) => txn.has_put(),
            Self::DeleteRange(_)
            | Self::Compact { .. }
            | Self::Members(_)
            | Self::Register { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseKeepAlive { .. }
            | Self::LeaseExpire { .. }
            | Self::LogTime { .. }
            | Self::Raise(_)
            | Self::Disarm { .. }
            | Self::Nothing => false,
        }
    }

    /// Whether it may change keys, history, or which leases there are.
    fn changes_store(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compact { .. }
            | Self::PutWithTtl { .. }
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseExpire { .. } => true,
            Self::Members(_)
            | Self::Register { .. }
            | Self::LeaseKeepAlive { .. }
            | Self::LogTime { .. }
            | Self::Raise(_)
            | Self::Disarm { .. }
            | Self::Nothing => false,
        }
    }
}

impl Txn<'_> {
    /// Whether any branch writes a key, those of nested transactions too.
    pub fn has_put(&self) -> bool {
        let mut open = alloc::vec![self];
        while let Some(txn) = open.pop() {
            for op in txn.success.iter().chain(&txn.failure) {
                match op {
                    Op::Put(_) => return true,
                    Op::Txn(inner) => open.push(inner),
                    Op::DeleteRange(_) | Op::Range(_) | Op::Unset => {}
                }
            }
        }
        false
    }
}
