//! Alarms: what is wrong with a member, kept by the whole cluster until somebody disarms it.

use crate::NodeId;

/// What an alarm says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum AlarmKind {
    /// The store of the member has reached its quota.
    NoSpace = 1,
    /// The state of the member is not that of the others.
    Corrupt = 2,
}

impl AlarmKind {
    /// The number in the log, in files and in etcd's API.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::NoSpace),
            2 => Some(Self::Corrupt),
            _ => None,
        }
    }

    /// Its name, as etcd has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// An alarm of a member. Clients may raise one for a member that does not exist, 0 too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Alarm {
    /// What it says.
    pub kind: AlarmKind,
    /// Of which member.
    pub member: NodeId,
}
