//! Writes a frame with a FlatBuffers body front to back, straight into the send buffer.
//!
//! ```text
//! header | root offset | vtable | root table | what it points to ... | zeros to a multiple of 8
//!          '-----------------------^    '-----------^
//! ```
//!
//! The FlatBuffers library builds back to front in a buffer of its own, which is then copied and
//! cleared. Offsets only point forward, so front to back works as well as soon as the sizes of
//! tables are known before: here they are constants ([`Layout`]). Each payload byte is then copied
//! once, and a small reply costs less than a tenth of a microsecond. Every table writes its own
//! vtable, a few bytes more than shared ones; the result is ordinary FlatBuffers, which the tests
//! read back through the library's verifier and compare with what its builder makes.

use alloc::vec::Vec;

use crate::error::EncodeError;
use crate::header::{HEADER_SIZE, Header};

/// Bytes of the greatest vtable and table together.
const IMAGE_SIZE_MAX: usize = 192;

/// Where the fields of a table stand.
#[derive(Debug)]
pub(crate) struct Layout<const N: usize> {
    /// Offset of each field in the table, by slot; 0: absent.
    fields: [u16; N],
    /// The vtable and an empty table behind it, as they are appended.
    image: [u8; IMAGE_SIZE_MAX],
    vtable_size: usize,
    image_size: usize,
}

impl<const N: usize> Layout<N> {
    /// The layout of a table whose fields have these widths in bytes, in the order of the schema;
    /// offsets of vectors and tables have 4, absent fields 0. Wide fields come first, so that
    /// nothing needs padding; those of 16 bytes are structs of two numbers, which are aligned to 8.
    pub(crate) const fn new(widths: [u16; N]) -> Self {
        let mut fields = [0; N];
        let mut table_size: u16 = 4;
        let mut width = 16;
        while width > 0 {
            let mut slot = 0;
            while slot < N {
                if widths[slot] == width {
                    fields[slot] = table_size;
                    table_size += width;
                }
                slot += 1;
            }
            width /= 2;
        }
        // The same number as 16 bits, for the vtable itself, and as an index.
        let vtable_size = 4 + 2 * N;
        let mut vtable_bits: u16 = 4;
        let mut slot = 0;
        while slot < N {
            vtable_bits += 2;
            slot += 1;
        }
        let mut image = [0; IMAGE_SIZE_MAX];
        put_u16(&mut image, 0, vtable_bits);
        put_u16(&mut image, 2, table_size);
        let mut slot = 0;
        while slot < N {
            put_u16(&mut image, 4 + 2 * slot, fields[slot]);
            slot += 1;
        }
        // The table's distance back to its vtable has 32 bits; the upper ones are 0.
        put_u16(&mut image, vtable_size, vtable_bits);
        let mut image_size = vtable_size;
        let mut left = table_size;
        while left > 0 {
            image_size += 1;
            left -= 1;
        }
        assert!(image_size <= IMAGE_SIZE_MAX, "a table with more fields needs a greater image");
        Self { fields, image, vtable_size, image_size }
    }
}

/// Writes a number of 16 bits, for constants.
const fn put_u16(image: &mut [u8; IMAGE_SIZE_MAX], at: usize, value: u16) {
    let [low, high] = value.to_le_bytes();
    image[at] = low;
    image[at + 1] = high;
}

/// A table in a body that is being written: where it begins, and where its fields are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'l, const N: usize> {
    layout: &'l Layout<N>,
    /// Index in the send buffer.
    at: usize,
}

/// The place of an offset that is still to be filled in: an index in the send buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OffsetAt(usize);

impl<const N: usize> Table<'_, N> {
    /// Where a field stands in the send buffer.
    #[inline]
    fn field(&self, slot: usize) -> usize {
        let offset = self.layout.fields[slot];
        debug_assert!(offset != 0, "slot {slot} is absent from this layout");
        self.at + usize::from(offset)
    }

    /// The place of the offset in `slot`.
    #[inline]
    pub(crate) fn offset(&self, slot: usize) -> OffsetAt {
        OffsetAt(self.field(slot))
    }
}

/// A frame that is being appended to a send buffer.
#[derive(Debug)]
pub(crate) struct Body<'o> {
    out: &'o mut Vec<u8>,
    /// Index in the send buffer at which the frame begins.
    start: usize,
    /// Index at which the message begins: behind the header, and a stamp if there is one.
    base: usize,
    /// Greatest index that the frame may reach.
    end_max: usize,
    size_max: usize,
    /// Set when the limit was met; what is written after that does not count.
    full: bool,
}

impl<'o> Body<'o> {
    /// Begins a frame behind what `out` holds; its body will have at most `size_max` bytes.
    #[inline]
    pub(crate) fn begin(out: &'o mut Vec<u8>, size_max: usize) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_SIZE + 4]);
        let base = start + HEADER_SIZE;
        Self { out, start, base, end_max: base + size_max, size_max, full: false }
    }

    /// The same with bytes in front of the message, which count as part of the body. Their number is a
    /// multiple of 8, so that the message stays aligned.
    pub(crate) fn begin_behind(front: &[u8], out: &'o mut Vec<u8>, size_max: usize) -> Self {
        debug_assert!(front.len().is_multiple_of(8), "{} bytes in front", front.len());
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_SIZE]);
        out.extend_from_slice(front);
        let base = out.len();
        out.extend_from_slice(&[0; 4]);
        Self { out, start, base, end_max: start + HEADER_SIZE + size_max, size_max, full: false }
    }

    /// Bytes of the message so far.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.out.len() - self.base
    }

    /// Appends zeros until the body's size is `rest` modulo `modulus`, a power of two.
    #[inline]
    fn pad(&mut self, modulus: usize, rest: usize) {
        let count = rest.wrapping_sub(self.size()) & (modulus - 1);
        self.out.extend_from_slice(&[0; 8][..count]);
    }

    /// Lets the offset at `at` point to the end of the body.
    #[inline]
    fn point(&mut self, at: OffsetAt) {
        let distance = self.out.len() - at.0;
        self.word(at.0, distance);
    }

    /// Writes a number of 32 bits at an index of the send buffer.
    #[inline]
    fn word(&mut self, at: usize, value: usize) {
        let value = u32::try_from(value).expect("a body is bounded far below 4 GiB");
        self.out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Appends an empty table that the offset at `at` points to.
    #[inline]
    pub(crate) fn table<'l, const N: usize>(
        &mut self,
        at: OffsetAt,
        layout: &'l Layout<N>,
    ) -> Table<'l, N> {
        // A table begins with the 4 bytes of its vtable offset; its 8-byte fields follow.
        self.pad(8, 4_usize.wrapping_sub(layout.vtable_size) & 7);
        let vtable = self.out.len();
        self.out.extend_from_slice(&layout.image[..layout.image_size]);
        let table = Table { layout, at: vtable + layout.vtable_size };
        self.word(at.0, table.at - at.0);
        table
    }

    /// The place of the offset of the root table.
    #[inline]
    pub(crate) fn root_offset(&self) -> OffsetAt {
        OffsetAt(self.base)
    }

    /// Fills in fields of a table.
    #[inline]
    pub(crate) fn set_u64<const N: usize>(&mut self, table: Table<'_, N>, slot: usize, value: u64) {
        let at = table.field(slot);
        self.out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Fills in a struct of 16 bytes.
    #[inline]
    pub(crate) fn set_bytes16<const N: usize>(
        &mut self,
        table: Table<'_, N>,
        slot: usize,
        value: [u8; 16],
    ) {
        let at = table.field(slot);
        self.out[at..at + 16].copy_from_slice(&value);
    }

    /// As [`Self::set_u64`].
    #[inline]
    pub(crate) fn set_i64<const N: usize>(&mut self, table: Table<'_, N>, slot: usize, value: i64) {
        let at = table.field(slot);
        self.out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// As [`Self::set_u64`].
    #[inline]
    pub(crate) fn set_u32<const N: usize>(&mut self, table: Table<'_, N>, slot: usize, value: u32) {
        let at = table.field(slot);
        self.out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// As [`Self::set_u64`].
    #[inline]
    pub(crate) fn set_u16<const N: usize>(&mut self, table: Table<'_, N>, slot: usize, value: u16) {
        let at = table.field(slot);
        self.out[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// As [`Self::set_u64`].
    #[inline]
    pub(crate) fn set_u8<const N: usize>(&mut self, table: Table<'_, N>, slot: usize, value: u8) {
        self.out[table.field(slot)] = value;
    }

    /// As [`Self::set_u64`].
    #[inline]
    pub(crate) fn set_bool<const N: usize>(
        &mut self,
        table: Table<'_, N>,
        slot: usize,
        value: bool,
    ) {
        self.set_u8(table, slot, u8::from(value));
    }

    /// True if `size` bytes more stay within the limit; otherwise the frame is given up.
    #[inline]
    fn has_room(&mut self, size: usize) -> bool {
        if size > self.end_max.saturating_sub(self.out.len()) {
            self.full = true;
        }
        !self.full
    }

    /// Appends a vector of bytes that the offset at `at` points to.
    #[inline]
    pub(crate) fn bytes(&mut self, at: OffsetAt, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            let vector = self.bytes_begin(at);
            self.out.extend_from_slice(bytes);
            self.bytes_end(vector);
        }
    }

    /// Appends a string that the offset at `at` points to.
    #[inline]
    pub(crate) fn string(&mut self, at: OffsetAt, text: &str) {
        self.bytes(at, text.as_bytes());
        // FlatBuffers ends strings with a zero that is not counted.
        self.out.push(0);
    }

    /// Begins a vector of bytes that [`Self::bytes_more`] appends to; gives its place.
    #[inline]
    pub(crate) fn bytes_begin(&mut self, at: OffsetAt) -> usize {
        self.pad(4, 0);
        self.point(at);
        let vector = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        vector
    }

    /// Appends to the vector that was begun last.
    #[inline]
    pub(crate) fn bytes_more(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Ends the vector at `vector`.
    #[inline]
    pub(crate) fn bytes_end(&mut self, vector: usize) {
        let size = self.out.len() - vector - 4;
        self.word(vector, size);
    }

    /// Appends a vector of `count` structs, aligned to 8 bytes, from their encoded bytes.
    #[inline]
    pub(crate) fn structs(&mut self, at: OffsetAt, count: usize, bytes: &[u8]) {
        if self.has_room(bytes.len() + 8) {
            let vector = self.structs_begin(at);
            self.out.extend_from_slice(bytes);
            self.structs_end(vector, count);
        }
    }

    /// Begins a vector of structs, aligned to 8 bytes, whose encoded bytes [`Self::bytes_more`]
    /// appends; gives its place.
    #[inline]
    pub(crate) fn structs_begin(&mut self, at: OffsetAt) -> usize {
        self.pad(8, 4);
        self.point(at);
        let vector = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        vector
    }

    /// Ends the vector at `vector`, of `count` structs.
    #[inline]
    pub(crate) fn structs_end(&mut self, vector: usize, count: usize) {
        if !self.full {
            self.word(vector, count);
        }
    }

    /// Appends a vector of `count` offsets and gives the place of the first; the others follow it
    /// ([`OffsetAt::next`]). `None` when the limit was met.
    pub(crate) fn offsets(&mut self, at: OffsetAt, count: usize) -> Option<OffsetAt> {
        if !self.has_room(count.saturating_mul(4)) {
            return None;
        }
        self.pad(4, 0);
        self.point(at);
        let vector = self.out.len();
        self.out.resize(vector + 4 + 4 * count, 0);
        self.word(vector, count);
        Some(OffsetAt(vector + 4))
    }

    /// True once the frame has outgrown its limit: it will be given up.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Completes the frame. Errors: the body is too large; `out` is then as it was.
    #[inline]
    pub(crate) fn finish(mut self, mut header: Header) -> Result<(), EncodeError> {
        self.pad(8, 0);
        if !self.has_room(0) || self.out.len() > self.end_max {
            let size_max = self.size_max;
            self.abandon();
            return Err(EncodeError::TooLarge { size_max });
        }
        let size = self.out.len() - self.start - HEADER_SIZE;
        header.body_size = u32::try_from(size).expect("a body is bounded far below 4 GiB");
        header.seal(&mut self.out[self.start..]);
        Ok(())
    }

    /// Takes the frame back: `out` is as it was.
    pub(crate) fn abandon(self) {
        self.out.truncate(self.start);
    }
}

impl OffsetAt {
    /// The place behind this one in a vector of offsets.
    #[inline]
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 4)
    }
}

/// Appends a frame without a body.
pub(crate) fn empty_frame(out: &mut Vec<u8>, header: Header) {
    out.extend_from_slice(&header.encode(&[]));
}
