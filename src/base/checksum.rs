//! Checksums: CRC-32 finds accidents, the 128-bit hash gives identity.
//!
//! CRC-32 (IEEE, `crc32fast`) guards every frame, record and page. Where bytes chosen by a client must
//! not be able to collide with others - the chain of WAL groups, the log chain, the state hash - the
//! hash is the AEGIS-128L MAC under a fixed key (`aegis`), the construction that TigerBeetle uses.

use aegis::aegis128l::Aegis128LMac;

/// A 128-bit hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash128([u8; 16]);

impl Hash128 {
    /// The hash of nothing yet: where a chain begins.
    pub const ZERO: Self = Self([0; 16]);

    /// A hash from its bytes.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Adds `other` modulo 2^128: sums do not depend on the order of their terms.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let sum = u128::from_le_bytes(self.0).wrapping_add(u128::from_le_bytes(other.0));
        Self(sum.to_le_bytes())
    }

    /// Takes `other` away modulo 2^128.
    #[inline]
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        let rest = u128::from_le_bytes(self.0).wrapping_sub(u128::from_le_bytes(other.0));
        Self(rest.to_le_bytes())
    }
}

impl core::fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl core::fmt::Display for Hash128 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

const KEY: [u8; 16] = *b"quorate-hash-key";

/// A 128-bit hash in the making. The caller puts lengths in where parts could run together.
pub struct Hasher128(Aegis128LMac<16>);

impl Hasher128 {
    /// A hash of no bytes yet.
    #[inline]
    pub fn new() -> Self {
        Self(Aegis128LMac::new(&KEY))
    }

    /// Appends bytes.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes appended.
    #[inline]
    pub fn finish(self) -> Hash128 {
        Hash128(self.0.finalize())
    }
}

impl Default for Hasher128 {
    fn default() -> Self {
        Self::new()
    }
}

/// The 128-bit hash of `bytes`.
#[inline]
pub fn hash128(bytes: &[u8]) -> Hash128 {
    let mut hasher = Hasher128::new();
    hasher.update(bytes);
    hasher.finish()
}

/// The CRC-32 of `bytes`.
#[inline]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The CRC-32 of what `crc` was computed over, followed by `bytes`.
#[inline]
pub fn crc32_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_gives_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32_append(crc32(b"1234"), b"56789"), 0xCBF4_3926);
    }

    /// Pinned: files written by one version must verify in the next.
    #[test]
    fn hash_is_pinned_and_does_not_depend_on_how_bytes_are_cut() {
        assert_eq!(format!("{}", hash128(b"quorate")), "96e10a4945d72a9b5588d06250eb6068");
        let mut hasher = Hasher128::new();
        hasher.update(b"quo");
        hasher.update(b"rate");
        assert_eq!(hasher.finish(), hash128(b"quorate"));
    }

    #[test]
    fn sums_do_not_depend_on_order() {
        let (a, b) = (hash128(b"a"), hash128(b"b"));
        assert_eq!(a.plus(b).minus(a), b);
        assert_eq!(a.plus(b), b.plus(a));
    }
}
