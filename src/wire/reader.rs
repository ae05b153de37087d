//! Reads FlatBuffers in place with every access checked: the verifier of what is frequent.
//!
//! ```text
//!  table:  | i32: distance back to its vtable | fields ...            |
//!  vtable: | u16: its size | u16: size of the table | u16: place of each field, 0: absent |
//!  offset: | u32: distance forward |     vector: | u32: count | members ... |
//! ```
//!
//! The library's verifier costs 155 ns for a put and 1.3 us for a transaction of one compare and
//! two operations, at two places of a write's path (admission, and apply from the log). Reading
//! through checked slices costs a tenth, verifies what it reads by reading it, and needs no
//! unchecked access behind it. Handshakes, status and refusals use the library
//! ([`root`](crate::request::root)). The tests hold both against each other: what is accepted here
//! the library accepts, with the same content.

use crate::error::DecodeError;
use crate::limits::VerifyLimits;

/// What verifying one body may still cost. Reading a second time costs nothing.
pub(crate) struct Budget {
    tables: usize,
    size: usize,
}

impl Budget {
    /// The budget for a body of `body_size` bytes.
    #[inline]
    pub(crate) fn new(limits: &VerifyLimits, body_size: usize) -> Self {
        Self { tables: limits.tables_max, size: limits.apparent_size_max(body_size) }
    }

    /// Accounts for a table and what its byte vectors hold.
    #[inline]
    pub(crate) fn spend(&mut self, size: usize) -> Result<(), DecodeError> {
        match (self.tables.checked_sub(1), self.size.checked_sub(size)) {
            (Some(tables), Some(size)) => {
                *self = Self { tables, size };
                Ok(())
            }
            (None, _) | (_, None) => Err(DecodeError::TooComplex),
        }
    }
}

/// The 4 bytes at `at`, which must be aligned.
#[inline]
fn word(buffer: &[u8], at: usize) -> Result<u32, DecodeError> {
    match buffer.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) if at.is_multiple_of(4) => Ok(u32::from_le_bytes(*bytes)),
        Some(_) | None => Err(DecodeError::Malformed),
    }
}

/// Where the offset at `at` points to.
#[inline]
fn follow(buffer: &[u8], at: usize) -> Result<usize, DecodeError> {
    // The sum stays far below the end of usize: `at` lies in the buffer.
    usize::try_from(word(buffer, at)?)
        .ok()
        .and_then(|distance| at.checked_add(distance))
        .ok_or(DecodeError::Malformed)
}

/// The members of the vector at `at`, each of `member_size` bytes.
#[inline]
fn vector(buffer: &[u8], at: usize, member_size: usize) -> Result<(usize, &[u8]), DecodeError> {
    let count = usize::try_from(word(buffer, at)?).map_err(|_| DecodeError::Malformed)?;
    let size = count.checked_mul(member_size).ok_or(DecodeError::Malformed)?;
    // In bounds: a word was read here.
    let members = buffer[at + 4..].get(..size).ok_or(DecodeError::Malformed)?;
    Ok((count, members))
}

/// A table whose vtable and own bytes lie in the buffer. Its fields are checked when they are read.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    buffer: &'a [u8],
    /// Where the table begins.
    at: usize,
    /// The table's bytes.
    inline: &'a [u8],
    /// The vtable's bytes.
    vtable: &'a [u8],
}

impl<'a> Table<'a> {
    /// The root table of a body.
    #[inline]
    pub(crate) fn root(buffer: &'a [u8]) -> Result<Self, DecodeError> {
        Self::new(buffer, follow(buffer, 0)?)
    }

    #[inline]
    fn new(buffer: &'a [u8], at: usize) -> Result<Self, DecodeError> {
        let back = word(buffer, at)?.cast_signed();
        // `at` lies in the buffer, so it has 31 bits on every path that leads here.
        let vtable_at = i64::try_from(at)
            .ok()
            .and_then(|at| usize::try_from(at - i64::from(back)).ok())
            .filter(|at| at.is_multiple_of(2))
            .ok_or(DecodeError::Malformed)?;
        let rest = buffer.get(vtable_at..).unwrap_or_default();
        let Some([a, b, c, d]) = rest.first_chunk().copied() else {
            return Err(DecodeError::Malformed);
        };
        let vtable_size = usize::from(u16::from_le_bytes([a, b]));
        let size = usize::from(u16::from_le_bytes([c, d]));
        match (rest.get(..vtable_size), buffer[at..].get(..size)) {
            (Some(vtable), Some(inline))
                if vtable_size >= 4 && vtable_size.is_multiple_of(2) && size >= 4 =>
            {
                Ok(Self { buffer, at, inline, vtable })
            }
            _ => Err(DecodeError::Malformed),
        }
    }

    /// Bytes of the table.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.inline.len()
    }

    /// Where the field is in the table; 0: absent. `slot` is the generated code's `VT_` constant.
    #[inline]
    fn place(&self, slot: u16) -> usize {
        let slot = usize::from(slot);
        match self.vtable.get(slot..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => usize::from(u16::from_le_bytes(*bytes)),
            None => 0,
        }
    }

    /// The bytes of a number; `None`: absent.
    #[inline]
    fn number<const N: usize>(&self, slot: u16) -> Result<Option<[u8; N]>, DecodeError> {
        match self.place(slot) {
            0 => Ok(None),
            place => match self.inline.get(place..).and_then(|rest| rest.first_chunk()) {
                Some(bytes) if (self.at + place).is_multiple_of(N) => Ok(Some(*bytes)),
                Some(_) | None => Err(DecodeError::Malformed),
            },
        }
    }

    /// A number; absent is 0.
    #[inline]
    pub(crate) fn i64(&self, slot: u16) -> Result<i64, DecodeError> {
        Ok(self.number(slot)?.map_or(0, i64::from_le_bytes))
    }

    /// A number; absent is 0.
    #[inline]
    pub(crate) fn u64(&self, slot: u16) -> Result<u64, DecodeError> {
        Ok(self.number(slot)?.map_or(0, u64::from_le_bytes))
    }

    /// A number; absent is 0.
    #[inline]
    pub(crate) fn u32(&self, slot: u16) -> Result<u32, DecodeError> {
        Ok(self.number(slot)?.map_or(0, u32::from_le_bytes))
    }

    /// A number; absent is 0.
    #[inline]
    pub(crate) fn u16(&self, slot: u16) -> Result<u16, DecodeError> {
        Ok(self.number(slot)?.map_or(0, u16::from_le_bytes))
    }

    /// A struct of two numbers of 8 bytes; `None`: absent.
    #[inline]
    pub(crate) fn bytes16(&self, slot: u16) -> Result<Option<[u8; 16]>, DecodeError> {
        match self.place(slot) {
            0 => Ok(None),
            place => match self.inline.get(place..).and_then(|rest| rest.first_chunk()) {
                Some(bytes) if (self.at + place).is_multiple_of(8) => Ok(Some(*bytes)),
                Some(_) | None => Err(DecodeError::Malformed),
            },
        }
    }

    /// A number; absent is 0.
    #[inline]
    pub(crate) fn u8(&self, slot: u16) -> Result<u8, DecodeError> {
        Ok(self.number(slot)?.map_or(0, u8::from_le_bytes))
    }

    /// A truth; absent is false, and any number but 0 is true.
    #[inline]
    pub(crate) fn bool(&self, slot: u16) -> Result<bool, DecodeError> {
        Ok(self.u8(slot)? != 0)
    }

    /// Where the offset in this field points to; `None`: absent.
    #[inline]
    fn target(&self, slot: u16) -> Result<Option<usize>, DecodeError> {
        match self.place(slot) {
            0 => Ok(None),
            place if place + 4 <= self.inline.len() => {
                follow(self.buffer, self.at + place).map(Some)
            }
            _ => Err(DecodeError::Malformed),
        }
    }

    /// A vector of bytes; `None`: absent.
    #[inline]
    pub(crate) fn bytes(&self, slot: u16) -> Result<Option<&'a [u8]>, DecodeError> {
        self.structs(slot, 1)
    }

    /// A text; absent is empty.
    #[inline]
    pub(crate) fn text(&self, slot: u16) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(slot)?.unwrap_or_default();
        core::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed)
    }

    /// A vector of bytes that must be there.
    #[inline]
    pub(crate) fn required_bytes(
        &self,
        slot: u16,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        self.bytes(slot)?.ok_or(DecodeError::MissingField { field })
    }

    /// The bytes of a vector of structs of `size` bytes each; `None`: absent. Nothing is read from
    /// them through references to numbers, so their alignment does not matter here.
    #[inline]
    pub(crate) fn structs(&self, slot: u16, size: usize) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.target(slot)? {
            None => Ok(None),
            Some(at) => vector(self.buffer, at, size).map(|(_, members)| Some(members)),
        }
    }

    /// The bytes of a vector of numbers of 64 bits; `None`: absent.
    pub(crate) fn longs(&self, slot: u16) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.target(slot)? {
            None => Ok(None),
            Some(at) if !(at + 4).is_multiple_of(8) => Err(DecodeError::Malformed),
            Some(at) => vector(self.buffer, at, 8).map(|(_, members)| Some(members)),
        }
    }

    /// A table; `None`: absent.
    #[inline]
    pub(crate) fn table(&self, slot: u16) -> Result<Option<Self>, DecodeError> {
        match self.target(slot)? {
            None => Ok(None),
            Some(at) => Self::new(self.buffer, at).map(Some),
        }
    }

    /// A vector of tables; absent is empty.
    #[inline]
    pub(crate) fn tables(&self, slot: u16) -> Result<Tables<'a>, DecodeError> {
        match self.target(slot)? {
            None => Ok(Tables { buffer: self.buffer, at: 0, count: 0 }),
            Some(at) => {
                let (count, _) = vector(self.buffer, at, 4)?;
                Ok(Tables { buffer: self.buffer, at: at + 4, count })
            }
        }
    }
}

/// The tables of a vector that lies in the buffer; whether each is a table shows when it is taken.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    buffer: &'a [u8],
    /// Where the next offset stands.
    at: usize,
    /// How many are left.
    count: usize,
}

impl<'a> Iterator for Tables<'a> {
    type Item = Result<Table<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let at = self.at;
        self.at += 4;
        Some(follow(self.buffer, at).and_then(|at| Table::new(self.buffer, at)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Tables<'_> {}
