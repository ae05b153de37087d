//! Alarms: what clients do about them, and how they stand in answers.

use base::{Alarm, AlarmKind, NodeId};

use crate::body::{Body, Layout, OffsetAt};
use crate::error::DecodeError;
use crate::reader::Table;

// Widths of the fields, in the order of the schema.
const CHANGE: Layout<3> = Layout::new([1, 1, 8]);
const REPLY: Layout<2> = Layout::new([8, 4]);

/// Bytes of an alarm in an answer.
const ALARM_SIZE: usize = 16;

/// Raises or disarms alarms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlarmChange {
    /// They are disarmed; else one is raised.
    pub disarm: bool,
    /// Which alarm.
    pub kind: AlarmKind,
    /// Of which member; 0, when they are disarmed: those of all members.
    pub member: NodeId,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AlarmReply<'a> {
    /// The newest revision.
    pub revision: i64,
    /// The alarm that is up, or those that were disarmed.
    pub alarms: Alarms<'a>,
}

/// A few alarms, to be written or read in place.
#[derive(Clone, Copy)]
pub enum Alarms<'a> {
    /// To be written.
    Given(&'a [Alarm]),
    /// Verified, in a message.
    Read(&'a [u8]),
}

impl<'a> Alarms<'a> {
    /// Verifies the bytes of alarms in a message.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let unknown = bytes.chunks_exact(ALARM_SIZE).find(|one| alarm(one).is_none());
        match unknown {
            None => Ok(Self::Read(bytes)),
            Some(one) => {
                let number = one.get(8).copied().map_or(0, u64::from);
                Err(DecodeError::UnknownNumber { field: "kind", number })
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Given(alarms) => alarms.len(),
            Self::Read(bytes) => bytes.len() / ALARM_SIZE,
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Alarm> + use<'a> {
        let (given, read): (&[Alarm], &[u8]) = match *self {
            Self::Given(alarms) => (alarms, &[]),
            Self::Read(bytes) => (&[], bytes),
        };
        given.iter().copied().chain(read.chunks_exact(ALARM_SIZE).filter_map(alarm))
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, at: OffsetAt) {
        if self.is_empty() {
            return;
        }
        let vector = body.structs_begin(at);
        for alarm in self.iter() {
            let mut bytes = [0; ALARM_SIZE];
            bytes[..8].copy_from_slice(&alarm.member.get().to_le_bytes());
            bytes[8] = alarm.kind.number();
            body.bytes_more(&bytes);
        }
        body.structs_end(vector, self.len());
    }
}

/// The alarm in its bytes; none if there is no such.
fn alarm(bytes: &[u8]) -> Option<Alarm> {
    let member = NodeId::new(u64::from_le_bytes(*bytes.first_chunk()?));
    Some(Alarm { kind: AlarmKind::from_number(*bytes.get(8)?)?, member })
}

impl Default for Alarms<'_> {
    fn default() -> Self {
        Self::Given(&[])
    }
}

impl core::fmt::Debug for Alarms<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Alarms<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Alarms<'_> {}

impl AlarmChange {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, DecodeError> {
        use schema::AlarmRequest as Slots;
        let unknown = |field, number| DecodeError::UnknownNumber { field, number };
        let disarm = match table.u8(Slots::VT_ACTION)? {
            0 => false,
            1 => true,
            number => return Err(unknown("action", u64::from(number))),
        };
        let number = table.u8(Slots::VT_KIND)?;
        let kind = AlarmKind::from_number(number);
        let kind = kind.ok_or_else(|| unknown("kind", u64::from(number)))?;
        Ok(Self { disarm, kind, member: NodeId::new(table.u64(Slots::VT_MEMBER_ID)?) })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &CHANGE);
        body.set_u8(table, 0, u8::from(self.disarm));
        body.set_u8(table, 1, self.kind.number());
        body.set_u64(table, 2, self.member.get());
    }
}

impl<'a> AlarmReply<'a> {
    pub(crate) fn read(table: Table<'a>) -> Result<Self, DecodeError> {
        use schema::AlarmReply as Slots;
        let alarms = table.structs(Slots::VT_ALARMS, ALARM_SIZE)?.unwrap_or_default();
        Ok(Self { revision: table.i64(Slots::VT_REVISION)?, alarms: Alarms::read(alarms)? })
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, root: OffsetAt) {
        let table = body.table(root, &REPLY);
        body.set_i64(table, 0, self.revision);
        self.alarms.write(body, table.offset(1));
    }
}
