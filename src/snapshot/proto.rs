//! The messages that etcd keeps in its buckets, as protobuf writes them: a version of a key, a lease, an alarm.
//!
//! ```text
//! KeyValue  1 key | 2 create revision | 3 mod revision | 4 version | 5 value | 6 lease
//! Lease     1 id | 2 TTL in seconds | 3 what is left of it
//! Alarm     1 member | 2 kind
//! ```

use base::{Alarm, AlarmKind, NodeId};

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// A version of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyValue<'a> {
    pub key: &'a [u8],
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

/// A lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseRecord {
    pub id: i64,
    pub ttl: i64,
    pub remaining: i64,
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("seven bits"));
}

fn number(field: u64, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        varint(field << 3 | VARINT, out);
        varint(number.cast_unsigned(), out);
    }
}

fn bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        varint(field << 3 | BYTES, out);
        varint(u64::try_from(bytes.len()).expect("a length"), out);
        out.extend_from_slice(bytes);
    }
}

/// A field of a message.
enum Field<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Other,
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(from: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(size)?;
    *from = rest;
    Some(taken)
}

fn read_field<'a>(from: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = read_varint(from)?;
    let field = match tag & 7 {
        VARINT => Field::Number(read_varint(from)?.cast_signed()),
        BYTES => {
            let size = usize::try_from(read_varint(from)?).ok()?;
            Field::Bytes(take(from, size)?)
        }
        FIXED_64 => take(from, 8).map(|_| Field::Other)?,
        FIXED_32 => take(from, 4).map(|_| Field::Other)?,
        _ => return None,
    };
    Some((tag >> 3, field))
}

impl<'a> KeyValue<'a> {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        bytes(1, self.key, out);
        number(2, self.create, out);
        number(3, self.modified, out);
        number(4, self.version, out);
        bytes(5, self.value, out);
        number(6, self.lease, out);
    }

    /// The message; none if it is malformed.
    pub fn decode(mut from: &'a [u8]) -> Option<Self> {
        let mut message = Self::default();
        while !from.is_empty() {
            match read_field(&mut from)? {
                (1, Field::Bytes(bytes)) => message.key = bytes,
                (5, Field::Bytes(bytes)) => message.value = bytes,
                (2, Field::Number(number)) => message.create = number,
                (3, Field::Number(number)) => message.modified = number,
                (4, Field::Number(number)) => message.version = number,
                (6, Field::Number(number)) => message.lease = number,
                (1..=6, _) => return None,
                _ => {}
            }
        }
        Some(message)
    }
}

impl LeaseRecord {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        number(1, self.id, out);
        number(2, self.ttl, out);
        number(3, self.remaining, out);
    }

    /// The message; none if it is malformed.
    pub fn decode(mut from: &[u8]) -> Option<Self> {
        let mut message = Self::default();
        while !from.is_empty() {
            match read_field(&mut from)? {
                (1, Field::Number(number)) => message.id = number,
                (2, Field::Number(number)) => message.ttl = number,
                (3, Field::Number(number)) => message.remaining = number,
                (1..=3, _) => return None,
                _ => {}
            }
        }
        Some(message)
    }
}

/// The message of an alarm.
pub fn alarm(alarm: &Alarm) -> Vec<u8> {
    let mut out = Vec::new();
    number(1, alarm.member.get().cast_signed(), &mut out);
    number(2, alarm.kind.number().into(), &mut out);
    out
}

/// The alarm of a message; none if it is malformed, or of a kind that is not known here.
pub fn read_alarm(mut from: &[u8]) -> Option<Alarm> {
    let (mut member, mut kind) = (0, 0);
    while !from.is_empty() {
        match read_field(&mut from)? {
            (1, Field::Number(number)) => member = number.cast_unsigned(),
            (2, Field::Number(number)) => kind = number,
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    let kind = AlarmKind::from_number(u8::try_from(kind).ok()?)?;
    Some(Alarm { kind, member: NodeId::new(member) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_read_back_and_unknown_kinds_are_none() {
        for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
            let one = Alarm { kind, member: NodeId::new(u64::MAX) };
            assert_eq!(read_alarm(&alarm(&one)), Some(one));
        }
        for bytes in [&[][..], &[8, 1], &[16, 3], &[16], &[18, 1, 1], &[16, 0x80, 2]] {
            assert_eq!(read_alarm(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn messages_are_read_back_and_cut_ones_are_refused() {
        let pair = KeyValue {
            key: b"key",
            create: 3,
            modified: i64::MAX,
            version: 300,
            value: &[7; 200],
            lease: -5,
        };
        let mut bytes = Vec::new();
        pair.encode(&mut bytes);
        assert_eq!(KeyValue::decode(&bytes), Some(pair));
        for size in 0..bytes.len() {
            assert_ne!(KeyValue::decode(&bytes[..size]), Some(pair));
        }
        let lease = LeaseRecord { id: -9, ttl: 60, remaining: 0 };
        let mut bytes = Vec::new();
        lease.encode(&mut bytes);
        assert_eq!(LeaseRecord::decode(&bytes), Some(lease));
        assert_eq!(KeyValue::decode(&[0xff; 30]), None);
    }
}
