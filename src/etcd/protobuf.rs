//! Protobuf written by hand: sizes first, then bytes, each once. Fields that are 0, false or empty are
//! left out, as proto3 wants it. Field numbers are below 16, so every tag is one byte.

use alloc::vec::Vec;

/// Bytes of a number.
#[inline]
pub fn varint_size(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most ten")
}

/// Bytes of a field with a number.
#[inline]
pub fn number_size(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + varint_size(number) }
}

/// Bytes of a field with a signed number.
#[inline]
pub fn signed_size(number: i64) -> usize {
    number_size(number.cast_unsigned())
}

/// Bytes of a field that is there, with so many bytes inside.
#[inline]
pub fn nested_size(size: usize) -> usize {
    1 + varint_size(wide(size)) + size
}

/// Bytes of a field with so many bytes inside.
#[inline]
pub fn bytes_size(size: usize) -> usize {
    if size == 0 { 0 } else { nested_size(size) }
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits 64 bits")
}

#[inline]
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("seven bits"));
}

/// Writes a field with a number.
#[inline]
pub fn number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        out.push(field << 3);
        varint(out, number);
    }
}

/// Writes a field with a signed number.
#[inline]
pub fn signed(out: &mut Vec<u8>, field: u8, value: i64) {
    number(out, field, value.cast_unsigned());
}

/// Writes a field with a yes or no.
#[inline]
pub fn flag(out: &mut Vec<u8>, field: u8, is_set: bool) {
    number(out, field, u64::from(is_set));
}

/// Writes the begin of a message inside the message, of so many bytes; they follow.
#[inline]
pub fn nested(out: &mut Vec<u8>, field: u8, size: usize) {
    out.push(field << 3 | 2);
    varint(out, wide(size));
}

/// Writes a field with bytes.
#[inline]
pub fn bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        nested(out, field, bytes.len());
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_what_is_written() {
        let mut out = Vec::new();
        let mut number_of_bits = 0;
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                out.clear();
                number(&mut out, 1, value);
                assert_eq!(out.len(), number_size(value), "{value:x}");
                number_of_bits += 1;
            }
        }
        assert_eq!(number_of_bits, 192);
        for size in [0, 1, 127, 128, 20_000] {
            out.clear();
            bytes(&mut out, 15, &vec![7; size]);
            assert_eq!(out.len(), bytes_size(size));
        }
    }
}
