//! Pairs as clients see them: one borrowed from its pages, many copied out.

use alloc::vec::Vec;

use base::{LeaseId, Revision};

use crate::version::Held;

/// A key with one version of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyValue<'p> {
    /// The key.
    pub key: &'p [u8],
    /// The value; empty when a read asked for keys only.
    pub value: &'p [u8],
    /// The revision of the first put of this life of the key.
    pub create_revision: Revision,
    /// The revision of the put that made this version.
    pub mod_revision: Revision,
    /// Puts of this life, this one included; from 1.
    pub version: u64,
    /// The lease it hangs on; 0: none.
    pub lease: LeaseId,
}

impl<'p> KeyValue<'p> {
    pub(crate) fn new(held: &Held<'p>, value: &'p [u8]) -> Self {
        Self {
            key: held.key,
            value,
            create_revision: held.live.create,
            mod_revision: held.at.revision,
            version: held.live.version,
            lease: held.live.lease,
        }
    }

    /// Bytes of key and value, and a fixed part for the rest.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.len() + size_of::<Entry>()
    }
}

/// Pairs copied out of their pages, in two allocations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyValueList {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    /// Where the key begins in `bytes`; the value follows it.
    key: usize,
    value: usize,
    end: usize,
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    lease: LeaseId,
}

impl KeyValueList {
    /// Copies a pair to the end.
    pub fn push(&mut self, pair: &KeyValue<'_>) {
        let key = self.bytes.len();
        self.bytes.extend_from_slice(pair.key);
        let value = self.bytes.len();
        self.bytes.extend_from_slice(pair.value);
        self.entries.push(Entry {
            key,
            value,
            end: self.bytes.len(),
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            version: pair.version,
            lease: pair.lease,
        });
    }

    /// Pairs in the list.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KeyValue<'_>> {
        self.entries.iter().map(|entry| KeyValue {
            key: &self.bytes[entry.key..entry.value],
            value: &self.bytes[entry.value..entry.end],
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            version: entry.version,
            lease: entry.lease,
        })
    }

    /// The first pair.
    pub fn first(&self) -> Option<KeyValue<'_>> {
        self.iter().next()
    }
}
