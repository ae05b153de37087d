//! What the roles say to each other.
//!
//! Links are first in, first out each; nothing is promised across links. A message cannot be lost:
//! the process dies whole.

use alloc::string::String;
use alloc::vec::Vec;
use base::{Frame, Instant, LogIndex, Term, Ticket};
use wire::Status;

/// What the payload of a log entry is. Stored in the WAL: numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// The empty entry of a new leader.
    Empty = 0,
    /// The body of a `Put` request.
    Put = 1,
    /// The body of a `DeleteRange` request.
    DeleteRange = 2,
    /// The body of a `Txn` request.
    Txn = 3,
    /// The body of a `Compact` request.
    Compact = 4,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Empty,
            1 => Self::Put,
            2 => Self::DeleteRange,
            3 => Self::Txn,
            4 => Self::Compact,
            _ => return None,
        })
    }

    /// Whether an entry of this kind may go on when space is short: it gives space back.
    pub const fn frees_space(self) -> bool {
        match self {
            Self::Empty | Self::DeleteRange | Self::Compact => true,
            Self::Put | Self::Txn => false,
        }
    }
}

/// A committed entry on its way to the store.
#[derive(Debug)]
pub struct Committed {
    /// Position in the log.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: Term,
    /// What the payload is.
    pub kind: EntryKind,
    /// The request body, verified before it was proposed.
    pub frame: Frame,
    /// Who waits for the outcome; none for entries that no connection of this process proposed.
    pub ticket: Option<Ticket>,
}

/// A read on its way to the store.
#[derive(Debug)]
pub struct ReadRequest {
    /// Who waits for it.
    pub ticket: Ticket,
    /// The body of a `Range` request, or of a read-only `Txn`.
    pub frame: Frame,
    /// Whether the body is a transaction.
    pub is_txn: bool,
    /// The store must have applied this much before it answers.
    pub applied_min: LogIndex,
    /// When nobody waits any more.
    pub deadline: Option<Instant>,
}

/// Why a request was not carried out. It has had no effect unless the status says otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The typed reason.
    pub status: Status,
    /// One sentence for a person: what was wrong, with the value, and what to do.
    pub message: String,
    /// The compacted revision where that is the reason, else 0.
    pub compacted: u64,
    /// The write took effect all the same; only its answer could not be given.
    pub applied: bool,
}

/// The answer to a ticket, from the store or from consensus.
#[derive(Debug)]
pub struct Reply {
    /// Whose answer it is.
    pub ticket: Ticket,
    /// The answer.
    pub body: ReplyBody,
}

/// What an answer carries.
#[derive(Debug)]
pub enum ReplyBody {
    /// A put without `prev_kv` was applied and created this revision.
    Put {
        /// The revision.
        revision: u64,
    },
    /// Complete reply frames, encoded; the last of the request.
    Frames(Vec<u8>),
    /// One piece of a long answer. The store goes on when the reactor asks for more.
    Piece(Vec<u8>),
    /// Not carried out.
    Refused(Refused),
}
