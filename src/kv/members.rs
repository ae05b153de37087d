//! What the store keeps about the members of the cluster: opaque bytes, and since which entry.
//!
//! They are replicated like keys, but without a revision: they stand in the meta record beside the
//! numbers of the state, so that a member knows its cluster before it has read a page.

use alloc::vec::Vec;

use base::LogIndex;

use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::state::State;

/// Greatest size in bytes of what is kept about the members.
pub const MEMBERS_SIZE_MAX: usize = 3_072;

/// The bytes and the entry that set them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Members {
    pub bytes: Vec<u8>,
    pub index: LogIndex,
}

impl Members {
    /// Before anybody has set them.
    pub const NONE: Self = Self { bytes: Vec::new(), index: LogIndex::ZERO };
}

/// Refuses what a meta record has no room for.
pub(crate) fn validate(bytes: &[u8]) -> Result<(), Refusal> {
    let (size, size_max) = (bytes.len(), MEMBERS_SIZE_MAX);
    if size > size_max { Err(Refusal::ValueTooLarge { size, size_max }) } else { Ok(()) }
}

impl State {
    /// What is kept about the members, and the index of the entry that set it: zero when it was set at
    /// creation or never.
    pub fn members(&self) -> (&[u8], LogIndex) {
        (&self.members.bytes, self.members.index)
    }

    /// Sets what is kept about the members before the first entry, in the same way on every member
    /// that begins with the cluster.
    ///
    /// # Panics
    ///
    /// Behind the first entry, or with more than [`MEMBERS_SIZE_MAX`] bytes.
    pub fn set_members_at_creation(&mut self, bytes: &[u8]) {
        let (applied, _) = self.applied();
        assert!(
            applied == LogIndex::ZERO && self.between_entries(),
            "entry {applied} is applied; members are set by an entry from now on"
        );
        assert!(bytes.len() <= MEMBERS_SIZE_MAX, "{} bytes about the members", bytes.len());
        self.members = Members { bytes: bytes.to_vec(), index: LogIndex::ZERO };
    }

    /// Applies the entry at `index`.
    pub(crate) fn set_members(&mut self, bytes: &[u8], index: LogIndex) -> Outcome {
        if let Err(refusal) = validate(bytes) {
            return Outcome::Refused(refusal);
        }
        self.members.bytes.clear();
        self.members.bytes.extend_from_slice(bytes);
        self.members.index = index;
        Outcome::Nothing
    }
}
