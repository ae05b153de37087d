//! Limits of a member and how much of them is in use, as a reply tells them.

use crate::body::{Body, Layout, OffsetAt};
use crate::error::DecodeError;
use crate::limits::{LIMITS_MAX, list_options};
use crate::request::{numbers, root_with};

// Widths of the fields, in the order of the schema.
const REPLY: Layout<1> = Layout::new([4]);
const LIMIT: Layout<6> = Layout::new([4, 8, 8, 8, 8, 1]);

numbers!(
    /// What a limit counts.
    LimitUnit, "unit", {
        /// Things.
        #[default]
        Count = 0,
        /// Bytes.
        Bytes = 1,
    }
);

/// A limit and its use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limit<'a> {
    /// What people call it; at most 64 bytes, ASCII.
    pub name: &'a str,
    /// It; 0: others bound what this counts.
    pub limit: u64,
    /// What is in use, at most about a second ago.
    pub used: u64,
    /// The most that was in use since the start of the process.
    pub highest: u64,
    /// How often something was refused, or had to wait, because of it.
    pub hits: u64,
    /// What it counts.
    pub unit: LimitUnit,
}

/// A list of limits, to be written or read in place.
#[derive(Clone, Copy)]
pub enum Limits<'a> {
    /// To be written: at most [`LIMITS_MAX`].
    Given(&'a [Limit<'a>]),
    /// Verified, in a reply.
    Read(Option<List<'a>>),
}

/// The list in a reply.
type List<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<schema::Limit<'a>>>;

impl<'a> Limits<'a> {
    /// Verifies the body of a reply.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let options = list_options(body.len());
        let list = root_with::<schema::LimitsReply<'_>>(&options, body)?.limits();
        for limit in list.into_iter().flatten() {
            LimitUnit::try_from(limit.unit().0)?;
        }
        Ok(Self::Read(list))
    }

    pub(crate) fn write(&self, body: &mut Body<'_>, at: OffsetAt) {
        let table = body.table(at, &REPLY);
        let count = self.iter().count().min(LIMITS_MAX);
        let Some(mut place) = body.offsets(table.offset(0), count) else { return };
        for limit in self.iter().take(count) {
            let table = body.table(place, &LIMIT);
            body.set_u64(table, 1, limit.limit);
            body.set_u64(table, 2, limit.used);
            body.set_u64(table, 3, limit.highest);
            body.set_u64(table, 4, limit.hits);
            body.set_u8(table, 5, limit.unit.number());
            body.string(table.offset(0), limit.name);
            place = place.next();
        }
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Limit<'a>> + use<'a> {
        let (given, list) = match *self {
            Self::Given(limits) => (limits, None),
            Self::Read(list) => (Default::default(), list),
        };
        given.iter().copied().chain(list.into_iter().flatten().map(read))
    }
}

fn read(limit: schema::Limit<'_>) -> Limit<'_> {
    Limit {
        name: limit.name().unwrap_or_default(),
        limit: limit.limit(),
        used: limit.used(),
        highest: limit.highest(),
        hits: limit.hits(),
        unit: LimitUnit::try_from(limit.unit().0).expect("units were checked"),
    }
}

impl Default for Limits<'_> {
    fn default() -> Self {
        Self::Given(&[])
    }
}

impl core::fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Limits<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Limits<'_> {}
