//! The key space of a workload: which keys there are, and which one is drawn next.
//!
//! Key number n is the prefix, then n in decimal with leading zeros up to the key size, so that
//! keys of one space are equally long and their byte order is the order of their numbers:
//!
//! ```text
//! key_size 16, prefix "key:"     key:000000000042
//! ```
//!
//! It does not know what is done with a key.

use std::ops::Range;

use base::Prng;

use crate::number::{float, whole};

/// Skew of the zipf distribution, the value that YCSB made customary.
const ZIPF_THETA: f64 = 0.99;

/// Which keys are drawn how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Each key equally often.
    Uniform,
    /// The n-th most popular key 1 / n^0.99 times as often as the first. Popular keys are spread
    /// over the whole key space.
    Zipf,
}

/// Why a key space cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySpaceError {
    /// No key at all.
    Empty,
    /// The numbers do not fit behind the prefix: bytes that a key needs.
    KeyTooShort {
        /// Bytes of the shortest key that holds every number.
        needed: usize,
    },
}

impl std::fmt::Display for KeySpaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("the key space is empty; give at least --keys 1"),
            Self::KeyTooShort { needed } => {
                write!(f, "this many keys need --key-size {needed} or more")
            }
        }
    }
}

impl std::error::Error for KeySpaceError {}

/// A number of keys of one size.
#[derive(Clone, Debug)]
pub struct KeySpace {
    prefix: Vec<u8>,
    count: u64,
    key_size: usize,
}

impl KeySpace {
    /// `count` keys of `key_size` bytes that begin with `prefix`.
    ///
    /// # Errors
    /// No keys, or keys too short for their numbers.
    pub fn new(prefix: &[u8], count: u64, key_size: usize) -> Result<Self, KeySpaceError> {
        let Some(last) = count.checked_sub(1) else { return Err(KeySpaceError::Empty) };
        let needed = prefix.len() + digits_count(last);
        if key_size < needed {
            return Err(KeySpaceError::KeyTooShort { needed });
        }
        Ok(Self { prefix: prefix.to_vec(), count, key_size })
    }

    /// How many keys there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A key to be overwritten by [`KeySpace::write`]: key number 0.
    pub fn blank(&self) -> Vec<u8> {
        let mut key = self.prefix.clone();
        key.resize(self.key_size, b'0');
        key
    }

    /// Turns `key`, one that [`KeySpace::blank`] made, into key `number`.
    pub fn write(&self, number: u64, key: &mut [u8]) {
        assert!(number < self.count, "key {number} of {}", self.count);
        let mut rest = number;
        for digit in key[self.prefix.len()..self.key_size].iter_mut().rev() {
            *digit = DIGITS[usize::try_from(rest % 10).expect("a decimal digit")];
            rest /= 10;
        }
    }

    /// The keys as a range: the first key, and the first key behind the last.
    pub fn range(&self) -> Range<Vec<u8>> {
        let start = self.blank();
        let mut end = self.blank();
        self.write(self.count - 1, &mut end);
        end.push(0);
        start..end
    }
}

const DIGITS: &[u8; 10] = b"0123456789";

fn digits_count(number: u64) -> usize {
    let log = number.checked_ilog10().unwrap_or(0);
    usize::try_from(log).expect("at most 19") + 1
}

/// Draws key numbers.
#[derive(Clone, Debug)]
pub struct Draw {
    prng: Prng,
    count: u64,
    zipf: Option<Zipf>,
}

impl Draw {
    /// Draws from `0..count`. With [`Distribution::Zipf`] this takes time linear in `count`.
    pub fn new(distribution: Distribution, count: u64, prng: Prng) -> Self {
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf => Some(Zipf::new(count)),
        };
        Self { prng, count, zipf }
    }

    /// The same distribution, prepared once, drawn by another stream.
    pub fn with_prng(&self, prng: Prng) -> Self {
        Self { prng, ..self.clone() }
    }

    /// The next key number.
    #[inline]
    pub fn next_key(&mut self) -> u64 {
        match &self.zipf {
            None => self.prng.below(self.count),
            Some(zipf) => spread(zipf.rank(self.prng.unit()), self.count),
        }
    }
}

/// A fixed scattering of ranks over key numbers, so that popular keys are not neighbours. Two
/// ranks may fall on one key, as in YCSB; for any popular key that is unlikely.
fn spread(rank: u64, count: u64) -> u64 {
    let mut x = rank.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)) % count
}

/// Ranks 0, 1, 2, ... with probability in proportion to 1 / (rank + 1)^theta, by the closed
/// approximation of Gray et al., "Quickly generating billion-record synthetic databases" (1994).
#[derive(Clone, Copy, Debug)]
struct Zipf {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let zeta = (1..=count).map(|rank| float(rank).powf(-ZIPF_THETA)).sum::<f64>();
        let zeta_two = 1.0 + 0.5_f64.powf(ZIPF_THETA);
        let eta = if count > 2 {
            (1.0 - (2.0 / float(count)).powf(1.0 - ZIPF_THETA)) / (1.0 - zeta_two / zeta)
        } else {
            1.0
        };
        Self { count, zeta, alpha: 1.0 / (1.0 - ZIPF_THETA), eta }
    }

    /// The rank at `unit`, which is in `0.0..1.0`.
    fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 || self.count == 1 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(ZIPF_THETA) || self.count == 2 {
            return 1;
        }
        let share = (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        whole(float(self.count) * share).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equally_long_and_ordered_by_number() {
        let space = KeySpace::new(b"key:", 1_000, 16).expect("fits");
        let (mut a, mut b) = (space.blank(), space.blank());
        space.write(9, &mut a);
        space.write(999, &mut b);
        assert_eq!(a, b"key:000000000009");
        assert_eq!(b, b"key:000000000999");
        assert!(a < b);
        let range = space.range();
        assert_eq!(range.start, b"key:000000000000");
        assert_eq!(range.end, b"key:000000000999\0");
    }

    #[test]
    fn a_key_space_that_does_not_fit_says_what_it_needs() {
        assert_eq!(
            KeySpace::new(b"key:", 1_001, 7).expect_err("too short"),
            KeySpaceError::KeyTooShort { needed: 8 }
        );
        assert!(KeySpace::new(b"key:", 1_000, 7).is_ok());
        assert_eq!(KeySpace::new(b"", 0, 7).expect_err("empty"), KeySpaceError::Empty);
    }

    #[test]
    fn zipf_ranks_have_the_frequencies_of_the_law() {
        let count = 10_000;
        let zipf = Zipf::new(count);
        let mut prng = Prng::new(3);
        let mut hits = vec![0_u64; usize::try_from(count).expect("small")];
        let draws = 400_000;
        for _ in 0..draws {
            hits[usize::try_from(zipf.rank(prng.unit())).expect("below count")] += 1;
        }
        for rank in [0_u64, 1, 9, 99] {
            let expected = float(draws) / float(rank + 1).powf(ZIPF_THETA) / zipf.zeta;
            let seen = float(hits[usize::try_from(rank).expect("small")]);
            // The approximation is exact for the first two ranks and within a fifth for others.
            assert!((seen / expected - 1.0).abs() < 0.25, "rank {rank}: {seen} of {expected}");
        }
    }

    #[test]
    fn every_draw_lies_in_the_key_space_even_in_a_tiny_one() {
        for count in [1, 2, 3, 10] {
            for distribution in [Distribution::Uniform, Distribution::Zipf] {
                let mut draw = Draw::new(distribution, count, Prng::new(1));
                for _ in 0..1_000 {
                    assert!(draw.next_key() < count, "{distribution:?} of {count}");
                }
            }
        }
        assert!(Zipf::new(3).rank(1.0 - f64::EPSILON) < 3);
    }
}
