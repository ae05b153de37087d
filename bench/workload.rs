//! What is asked: a sequence of operations over a key space, appended to send buffers as frames.
//!
//! | operation | one of it is |
//! | --- | --- |
//! | put | a write of one drawn key |
//! | get | a read of one drawn key |
//! | range | a read of `limit` keys from a drawn key on |
//! | txn | if the version of a drawn key is above -1 (it always is), put it, else get it |
//! | mixed | a get or a put, drawn |
//!
//! Values are windows of a fixed random string, so that neither a compressing disk nor a
//! comparison with the old value could make them cheaper, and drawing one costs nothing.

use base::Prng;
use base::RequestId;
use wire::{Call, Compare, CompareResult, CompareTarget, EncodeError, Op, Put, Range, Txn};
use wire::{RequestEncoder, VERSION_MAX};

use crate::keys::{Draw, KeySpace};
use crate::template::Template;

/// Bytes by which windows of the value string may begin apart.
const VALUE_WINDOWS: usize = 4_096;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes of one key.
    Put,
    /// Reads of one key.
    Get,
    /// Reads of several keys.
    Range,
    /// Transactions.
    Txn,
    /// Gets and puts.
    Mixed,
}

impl Operation {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Range => "range",
            Self::Txn => "txn",
            Self::Mixed => "mixed",
        }
    }

    /// True if it reads keys that should exist.
    pub fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Range | Self::Mixed)
    }
}

/// The shape of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What is done.
    pub operation: Operation,
    /// Bytes of each value.
    pub value_size: usize,
    /// Keys of one range.
    pub limit: i64,
    /// Reads of 100 operations of the mixed workload.
    pub read_percent: u64,
    /// Reads take the member's own state instead of the newest.
    pub serializable: bool,
    /// Greatest body that the server takes.
    pub body_size_max: usize,
}

/// Which keys come next.
#[derive(Clone, Debug)]
pub enum Source {
    /// Drawn ones, for ever.
    Draw(Draw),
    /// Each `step`-th key once, from `next` on; those in `again` a second time.
    Sequence {
        /// The next key number.
        next: u64,
        /// How far apart they are.
        step: u64,
        /// Keys whose writes were refused.
        again: Vec<u64>,
    },
}

/// Makes the requests of one thread.
#[derive(Clone, Debug)]
pub struct Workload {
    space: KeySpace,
    source: Source,
    prng: Prng,
    value_size: usize,
    values: Vec<u8>,
    first: Template,
    /// The other operation of the mixed workload, and of 100 operations how many are the first.
    second: Option<(Template, u64)>,
}

impl Workload {
    /// The workload of `shape` over `space`.
    ///
    /// # Errors
    /// A request would be larger than the server takes.
    pub fn new(
        shape: &Shape,
        space: KeySpace,
        source: Source,
        mut prng: Prng,
    ) -> Result<Self, EncodeError> {
        let mut values = vec![0; shape.value_size + VALUE_WINDOWS];
        prng.fill(&mut values);
        let template = |operation| request_template(operation, shape, &space);
        let (first, second) = match shape.operation {
            Operation::Mixed => {
                (template(Operation::Get)?, Some((template(Operation::Put)?, shape.read_percent)))
            }
            operation => (template(operation)?, None),
        };
        Ok(Self { space, source, prng, value_size: shape.value_size, values, first, second })
    }

    /// Appends the next request to `out`; the number of its key. None: nothing more to do.
    #[inline]
    pub fn append(&mut self, request: u64, out: &mut Vec<u8>) -> Option<u64> {
        let key = match &mut self.source {
            Source::Draw(draw) => draw.next_key(),
            Source::Sequence { next, step, again } => match again.pop() {
                Some(key) => key,
                None if *next < self.space.count() => {
                    let key = *next;
                    *next += *step;
                    key
                }
                None => return None,
            },
        };
        let draw = self.prng.next_u64();
        let template = match &self.second {
            Some((second, percent)) if (draw >> 32) % 100 >= *percent => second,
            _ => &self.first,
        };
        let window = usize::try_from(draw % 4_096).expect("below 4,096");
        let value = &self.values[window..window + self.value_size];
        let space = &self.space;
        template.append(out, request, value, |bytes| space.write(key, bytes));
        Some(key)
    }

    /// The write of `key` was refused: a sequence does it again.
    pub fn again(&mut self, key: u64) {
        if let Source::Sequence { again, .. } = &mut self.source {
            again.push(key);
        }
    }

    /// Which keys come next.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// True if there is nothing more to do, unless a write is refused yet.
    pub fn is_exhausted(&self) -> bool {
        match &self.source {
            Source::Draw(_) => false,
            Source::Sequence { next, again, .. } => *next >= self.space.count() && again.is_empty(),
        }
    }

    /// The keys.
    pub fn space(&self) -> &KeySpace {
        &self.space
    }
}

const _: () = assert!(VALUE_WINDOWS == 4_096, "windows are drawn modulo this");

/// The frame of one operation.
fn request_template(
    operation: Operation,
    shape: &Shape,
    space: &KeySpace,
) -> Result<Template, EncodeError> {
    let mut encoder = RequestEncoder::new();
    encoder.agree(VERSION_MAX, shape.body_size_max);
    let end = space.range().end;
    Template::new(&space.blank(), shape.value_size, |key, value| {
        let put = Put { key, value, ..Put::default() };
        let range = Range { key, serializable: shape.serializable, ..Range::default() };
        let txn;
        let call = match operation {
            Operation::Put | Operation::Mixed => Call::Put(put),
            Operation::Get => Call::Range(range),
            Operation::Range => Call::Range(Range { range_end: &end, limit: shape.limit, ..range }),
            Operation::Txn => {
                // Holds for a key that does not exist, too, whose version is 0.
                let compare = Compare {
                    key,
                    target: CompareTarget::Version,
                    result: CompareResult::Greater,
                    number: -1,
                    ..Compare::default()
                };
                txn = Txn {
                    compares: vec![compare],
                    success: vec![Op::Put(put)],
                    failure: vec![Op::Range(range)],
                };
                Call::Txn(&txn)
            }
        };
        let mut out = Vec::new();
        encoder.encode(&mut out, RequestId::new(1), 0, &call)?;
        Ok(out)
    })
}
