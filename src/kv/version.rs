//! A version of a key and an event, as bytes of tree cells.
//!
//! ```text
//! version  flags u8 | mod u64 | sub u32 | number u64
//!          live:    | create u64 | version u64 | hash 16
//!          flagged: | lease i64 | near revision u64, sub u32 | far revision u64, sub u32
//!          live:    | value, unless the cell owns a run
//!
//! event    kind u8 (0 put, 1 delete; + 2: it has shed; a delete + 4: lease expired, + 8: lease revoked)
//!          | key size u16 | key
//!          the replaced version's bytes; nothing if there was none, or if the event has shed it
//!
//! cell of an event   number 1: it is to shed what it replaced once compaction ends exactly at it
//!                    counted: it asks for work before it is dropped
//! ```
//!
//! Numbers are little endian. The bytes of a version do not change when an event replaces it: they
//! move from `current` to `events`, and with them the cell's run.
//!
//! Versions of a key are numbered along its chain, tombstones too. An anchor of version n is the event
//! that holds the newest version before n whose number is a multiple of 64 (near) or of 4,096 (far,
//! written only where it differs from the near one). Numbers and anchors depend on what has been
//! trimmed, so they take no part in any hash.

use alloc::vec::Vec;

use base::limits::KEY_SIZE_MAX;
use base::{Hash128, Hasher128, LeaseId, Revision};
use tree::{CELL_SIZE_MAX, Cell, Run};

use crate::keys::{EVENT_KEY_SIZE, Point};
use crate::refusal::Damage;

/// Versions between two near anchors.
const NEAR: u64 = 64;

/// Versions between two far anchors.
const FAR: u64 = 4_096;

/// Bytes of the greatest version without its value.
const VERSION_SIZE_MAX: usize = 21 + 32 + 8 + 12 + 12;

/// Bytes of an event before the user key.
const EVENT_HEADER_SIZE: usize = 3;

/// Bytes that a cell takes in its leaf beside key and payload.
const CELL_OVERHEAD: usize = 18;

const _: () = assert!(
    EVENT_KEY_SIZE + EVENT_HEADER_SIZE + KEY_SIZE_MAX + VERSION_SIZE_MAX <= CELL_SIZE_MAX,
    "an event of the longest key fits a cell"
);
const _: () = assert!(KEY_SIZE_MAX <= 0xFFFF, "the size of a key fits its field");

/// Added to the kind of an event that has shed what it replaced.
const SHED: u8 = 2;

/// Added to the kind of a delete that is not a client's.
const EXPIRED: u8 = 4;
const REVOKED: u8 = 8;

const LIVE: u8 = 1;
const LEASE: u8 = 2;
const NEAR_ANCHOR: u8 = 4;
const FAR_ANCHOR: u8 = 8;

/// Whether a value stays inside its cell, both in `current` and later in `events`.
#[inline]
pub(crate) fn fits_inline(key_size: usize, value_size: usize) -> bool {
    let fixed = EVENT_KEY_SIZE + EVENT_HEADER_SIZE + VERSION_SIZE_MAX;
    fixed + key_size + value_size <= CELL_SIZE_MAX
}

/// What a live version says beside its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Live {
    /// The revision of the first put of this life of the key.
    pub create: Revision,
    /// Puts of this life, this one included; from 1.
    pub version: u64,
    /// The lease it hangs on.
    pub lease: LeaseId,
    /// The hash of the version, computed once, when it was written.
    pub hash: Hash128,
}

/// A version of a key without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    /// The event that made it.
    pub at: Point,
    /// Its number along the chain of its key.
    pub number: u64,
    /// None: a tombstone.
    pub live: Option<Live>,
    /// The event that holds the newest earlier version whose number is a multiple of 64.
    pub near: Option<Point>,
    /// The same for 4,096, where it differs.
    pub far: Option<Point>,
}

impl Version {
    /// The version that the event `at` puts in the place of `replaced`.
    #[inline]
    pub fn following(replaced: Option<&Self>, at: Point, live: Option<Live>) -> Self {
        let Some(old) = replaced else {
            return Self { at, number: 0, live, near: None, far: None };
        };
        let near = if old.number.is_multiple_of(NEAR) { Some(at) } else { old.near };
        let far = if old.number.is_multiple_of(FAR) { Some(at) } else { old.far.or(old.near) };
        let far = if far == near { None } else { far };
        Self { at, number: old.number + 1, live, near, far }
    }

    /// The event to look at for the newest version before `point`, this one being made at `point` or
    /// later: the farthest known one that is itself not before `point`. What lies below may be gone.
    #[inline]
    pub fn toward(&self, point: Point) -> Point {
        let reaches = |anchor: &Point| *anchor >= point;
        self.far.filter(reaches).or(self.near.filter(reaches)).unwrap_or(self.at)
    }

    /// Appends the bytes of the version without its value.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0_u8; VERSION_SIZE_MAX];
        let mut size = 0;
        let mut add = |field: &[u8]| {
            bytes[size..size + field.len()].copy_from_slice(field);
            size += field.len();
        };
        let lease = self.live.is_some_and(|live| live.lease != LeaseId::new(0));
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.live.is_some(), LIVE)
            | flag(lease, LEASE)
            | flag(self.near.is_some(), NEAR_ANCHOR)
            | flag(self.far.is_some(), FAR_ANCHOR);
        add(&[flags]);
        add(&self.at.revision.get().to_le_bytes());
        add(&self.at.sub.to_le_bytes());
        add(&self.number.to_le_bytes());
        if let Some(live) = &self.live {
            add(&live.create.get().to_le_bytes());
            add(&live.version.to_le_bytes());
            add(&live.hash.to_bytes());
            if lease {
                add(&live.lease.get().to_le_bytes());
            }
        }
        for anchor in [self.near, self.far].into_iter().flatten() {
            add(&anchor.revision.get().to_le_bytes());
            add(&anchor.sub.to_le_bytes());
        }
        out.extend_from_slice(&bytes[..size]);
    }

    /// The version and what follows it, its inline value. None if the bytes are not a version.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(bytes);
        let flags = reader.u8()?;
        if flags & !(LIVE | LEASE | NEAR_ANCHOR | FAR_ANCHOR) != 0 {
            return None;
        }
        let at = reader.point()?;
        let number = reader.u64()?;
        let live = if flags & LIVE == 0 {
            None
        } else {
            let create = Revision::new(reader.u64()?);
            let version = reader.u64()?;
            let hash = Hash128::from_bytes(reader.take::<16>()?);
            let lease = if flags & LEASE == 0 { 0 } else { i64::from_le_bytes(reader.take()?) };
            Some(Live { create, version, lease: LeaseId::new(lease), hash })
        };
        let near = if flags & NEAR_ANCHOR == 0 { None } else { Some(reader.point()?) };
        let far = if flags & FAR_ANCHOR == 0 { None } else { Some(reader.point()?) };
        Some((Self { at, number, live, near, far }, reader.0))
    }
}

/// A live version with where its value is, as found in a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'p> {
    /// The user key.
    pub key: &'p [u8],
    /// The event that made it.
    pub at: Point,
    /// What it says.
    pub live: Live,
    /// Its value, unless there is a run.
    pub inline: &'p [u8],
    /// Its value, if too large for the cell.
    pub run: Option<Run>,
}

/// What a change did to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Wrote a live version.
    Put,
    /// Wrote a tombstone.
    Delete(Cause),
}

/// Why a key was deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cause {
    /// A client asked for it.
    #[default]
    Request,
    /// The lease that it hung on expired.
    Expired,
    /// The lease that it hung on was revoked.
    Revoked,
}

impl Kind {
    #[inline]
    fn number(self) -> u8 {
        match self {
            Self::Put => 0,
            Self::Delete(Cause::Request) => 1,
            Self::Delete(Cause::Expired) => 1 | EXPIRED,
            Self::Delete(Cause::Revoked) => 1 | REVOKED,
        }
    }
}

/// An event, borrowed from its cell. The run of the cell is the replaced version's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'p> {
    /// What it did.
    pub kind: Kind,
    /// To which key.
    pub key: &'p [u8],
    replaced: Replaced<'p>,
}

/// What an event holds of the version it replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replaced<'p> {
    /// `current` had no entry for the key.
    Nothing,
    Version(&'p [u8]),
    /// Nothing any more: nobody may ask.
    Shed,
}

impl<'p> Event<'p> {
    /// Starts the bytes of an event; the caller appends those of the replaced version.
    #[inline]
    pub fn encode(kind: Kind, key: &[u8], out: &mut Vec<u8>) {
        Self::encode_kind(kind.number(), key, out);
    }

    /// The bytes of an event that has shed what it replaced.
    pub fn encode_shed(kind: Kind, key: &[u8], out: &mut Vec<u8>) {
        Self::encode_kind(kind.number() | SHED, key, out);
    }

    #[inline]
    fn encode_kind(kind: u8, key: &[u8], out: &mut Vec<u8>) {
        let size = u16::try_from(key.len()).expect("a key has at most KEY_SIZE_MAX bytes");
        let [low, high] = size.to_le_bytes();
        out.extend_from_slice(&[kind, low, high]);
        out.extend_from_slice(key);
    }

    /// The event in the payload of a cell of `events`. None if the bytes are not one.
    #[inline]
    pub fn decode(payload: &'p [u8]) -> Option<Self> {
        let (&[kind, low, high], rest) = payload.split_first_chunk::<EVENT_HEADER_SIZE>()?;
        let shed = kind & SHED != 0;
        let kind = match kind & !SHED {
            0 => Kind::Put,
            1 => Kind::Delete(Cause::Request),
            5 => Kind::Delete(Cause::Expired),
            9 => Kind::Delete(Cause::Revoked),
            _ => return None,
        };
        let size = usize::from(u16::from_le_bytes([low, high]));
        let (key, replaced) = rest.split_at_checked(size)?;
        let replaced = match (shed, replaced.is_empty()) {
            (false, true) => Replaced::Nothing,
            (false, false) => Replaced::Version(replaced),
            (true, true) => Replaced::Shed,
            (true, false) => return None,
        };
        Some(Self { kind, key, replaced })
    }

    /// The bytes of the version that this event, the one at `at`, replaced; none if `current` had no
    /// entry for the key.
    ///
    /// # Errors
    ///
    /// When it has shed them: whoever asks reads below the compacted revision.
    #[inline]
    pub fn replaced(&self, at: Point) -> Result<Option<&'p [u8]>, Damage> {
        match self.replaced {
            Replaced::Nothing => Ok(None),
            Replaced::Version(bytes) => Ok(Some(bytes)),
            Replaced::Shed => Err(Damage::EventShed(at)),
        }
    }

    /// Whether the version that this event, the one at `at`, replaced was live; also false when there
    /// was none.
    ///
    /// # Errors
    ///
    /// As [`Self::replaced`].
    pub fn replaced_live(&self, at: Point) -> Result<bool, Damage> {
        Ok(self.replaced(at)?.is_some_and(|bytes| bytes[0] & LIVE != 0))
    }
}

/// Whether the cell of `events` asks for work when it is trimmed: it is a delete, whose tombstone may
/// have to go, or it owns a run.
#[inline]
pub(crate) fn needs_work(kind: Kind, run: Option<Run>) -> bool {
    kind != Kind::Put || run.is_some()
}

/// Whether the event `at` is to shed what it replaced once compaction ends exactly at its revision; the
/// cell of such an event has number 1. `size`: bytes of the replaced version as the event holds it.
///
/// A version that an earlier change of the same revision made stays: it is what that change wrote, and
/// a watch from the compacted revision is told so. Else it has to be worth a rewritten leaf: a run goes,
/// or less than a quarter of the cell is left, so that leaves of such cells merge. What is smaller goes
/// with its event.
#[inline]
pub(crate) fn is_to_shed(
    at: Point,
    key: &[u8],
    replaced: &Version,
    size: usize,
    run: Option<Run>,
) -> bool {
    let rest = CELL_OVERHEAD + EVENT_KEY_SIZE + EVENT_HEADER_SIZE + key.len();
    replaced.at.revision < at.revision && (run.is_some() || size > 3 * rest)
}

/// The version in a cell of `current` and its inline value.
#[inline]
pub(crate) fn newest<'p>(cell: &Cell<'p>) -> Option<(Version, &'p [u8])> {
    Version::decode(cell.payload)
}

/// The hash of a live version: everything that a client can see of it, and the sub number.
#[inline]
pub(crate) fn version_hash(key: &[u8], at: Point, live: &Live, value: &[u8]) -> Hash128 {
    let mut header = [0_u8; 41];
    header[0] = b'V';
    header[1..9].copy_from_slice(&at.revision.get().to_le_bytes());
    header[9..13].copy_from_slice(&at.sub.to_le_bytes());
    header[13..21].copy_from_slice(&live.create.get().to_le_bytes());
    header[21..29].copy_from_slice(&live.version.to_le_bytes());
    header[29..37].copy_from_slice(&live.lease.get().to_le_bytes());
    let size = u32::try_from(key.len()).expect("a key has at most KEY_SIZE_MAX bytes");
    header[37..41].copy_from_slice(&size.to_le_bytes());
    let mut hasher = Hasher128::new();
    hasher.update(&header);
    hasher.update(key);
    hasher.update(value);
    hasher.finish()
}

/// The hash of a delete event.
pub(crate) fn delete_hash(key: &[u8], at: Point, cause: Cause) -> Hash128 {
    let mut header = [0_u8; 13];
    header[0] = match cause {
        Cause::Request => b'D',
        Cause::Expired => b'E',
        Cause::Revoked => b'R',
    };
    header[1..9].copy_from_slice(&at.revision.get().to_le_bytes());
    header[9..13].copy_from_slice(&at.sub.to_le_bytes());
    let mut hasher = Hasher128::new();
    hasher.update(&header);
    hasher.update(key);
    hasher.finish()
}

/// Takes fixed fields off the front of bytes.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next `size` bytes.
    #[inline]
    pub fn bytes(&mut self, size: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(bytes)
    }

    #[inline]
    pub fn point(&mut self) -> Option<Point> {
        let revision = Revision::new(self.u64()?);
        let sub = self.take().map(u32::from_le_bytes)?;
        Some(Point { revision, sub })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(revision: u64) -> Point {
        Point { revision: Revision::new(revision), sub: 0 }
    }

    fn live() -> Option<Live> {
        let lease = LeaseId::new(-7);
        Some(Live { create: Revision::new(3), version: 9, lease, hash: base::hash128(b"x") })
    }

    #[test]
    fn versions_survive_encoding_in_every_shape() {
        for (live, near, far) in [
            (None, None, None),
            (live(), None, None),
            (live(), Some(point(4)), None),
            (None, Some(point(4)), Some(point(2))),
            (live(), Some(point(4)), Some(point(2))),
        ] {
            let version = Version { at: point(5), number: 77, live, near, far };
            let mut bytes = Vec::new();
            version.encode(&mut bytes);
            bytes.extend_from_slice(b"value");
            assert_eq!(Version::decode(&bytes), Some((version, &b"value"[..])));
            for size in 0..bytes.len() - 5 {
                assert_eq!(Version::decode(&bytes[..size]), None, "cut at {size}");
            }
        }
        assert_eq!(Version::decode(&[0xF0; 100]), None);
    }

    /// Walks a chain of 100,000 versions back to every 997th revision and counts the events read.
    #[test]
    fn anchors_reach_any_version_in_a_few_hundred_steps() {
        let mut chain: Vec<Version> = Vec::new();
        for revision in 1..=100_000_u64 {
            let next = Version::following(chain.last(), point(revision), None);
            chain.push(next);
        }
        let mut worst = 0;
        for wanted in (1..100_000_u64).step_by(997) {
            let target = Point::at(Revision::new(wanted));
            let mut version = chain[99_999];
            let mut steps = 0;
            while version.at >= target {
                let event = version.toward(target);
                assert!(event >= target, "an event below the wanted revision may be trimmed");
                let made_by = usize::try_from(event.revision.get()).unwrap() - 1;
                version = chain[made_by - 1];
                steps += 1;
            }
            assert_eq!(version.at, point(wanted));
            worst = worst.max(steps);
        }
        assert!(worst < 200, "{worst} steps");
    }

    #[test]
    fn events_survive_encoding_and_malformed_ones_are_refused() {
        let mut bytes = Vec::new();
        Event::encode(Kind::Delete(Cause::Request), b"key", &mut bytes);
        let event = Event::decode(&bytes).unwrap();
        assert_eq!((event.kind, event.key), (Kind::Delete(Cause::Request), &b"key"[..]));
        assert_eq!(event.replaced(point(4)), Ok(None));
        assert!(Event::decode(&bytes[..5]).is_none());
        bytes.push(LIVE);
        let event = Event::decode(&bytes).unwrap();
        assert_eq!(event.replaced(point(4)), Ok(Some(&[LIVE][..])));
        assert_eq!(event.replaced_live(point(4)), Ok(true));
        bytes.clear();
        Event::encode_shed(Kind::Delete(Cause::Expired), b"key", &mut bytes);
        let event = Event::decode(&bytes).unwrap();
        assert_eq!((event.kind, event.key), (Kind::Delete(Cause::Expired), &b"key"[..]));
        assert_eq!(event.replaced(point(4)), Err(Damage::EventShed(point(4))));
        bytes.push(LIVE);
        assert!(Event::decode(&bytes).is_none(), "shed and yet there");
        assert!(Event::decode(&[4, 0, 0]).is_none());
    }
}
