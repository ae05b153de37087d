//! The stamp of a write: which client's which write it is, so that it takes effect once however often
//! it is sent.

use crate::ClientId;

/// Bytes of a stamp, on the wire and in the log.
pub const STAMP_SIZE: usize = 24;

/// Which write of which client. The numbers of a client count up; a write that is sent again has the
/// same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The client.
    pub client: ClientId,
    /// Its number for the write.
    pub sequence: u64,
    /// The oldest number that it still waits for, at most `sequence`: it will not ask again for what
    /// lies below.
    pub floor: u64,
}

impl Stamp {
    /// The three numbers, one behind the other, little endian.
    pub fn to_bytes(self) -> [u8; STAMP_SIZE] {
        let mut bytes = [0; STAMP_SIZE];
        bytes[..8].copy_from_slice(&self.client.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.floor.to_le_bytes());
        bytes
    }

    /// The stamp at the front of `bytes`, and what follows it; none if they are too few.
    #[inline]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (stamp, rest) = bytes.split_first_chunk::<STAMP_SIZE>()?;
        let (numbers, _) = stamp.as_chunks::<8>();
        let [client, sequence, floor] = *numbers.as_array::<3>()?;
        let stamp = Self {
            client: ClientId::new(u64::from_le_bytes(client)),
            sequence: u64::from_le_bytes(sequence),
            floor: u64::from_le_bytes(floor),
        };
        Some((stamp, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_from_its_bytes_with_what_follows() {
        let stamp = Stamp { client: ClientId::new(7), sequence: 1 << 40, floor: 3 };
        let mut bytes = stamp.to_bytes().to_vec();
        bytes.extend_from_slice(b"body");
        assert_eq!(Stamp::split(&bytes), Some((stamp, &b"body"[..])));
        assert_eq!(Stamp::split(&bytes[..STAMP_SIZE - 1]), None);
    }
}
