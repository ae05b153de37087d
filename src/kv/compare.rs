//! The compares of a transaction: all of the path that they choose, judged at one point of the history
//! before anything is written.

use alloc::vec::Vec;
use core::cmp::Ordering;

use base::Revision;
use tree::{Direction, PageFile};

use crate::command::{Compare, Operand, Relation, Txn};
use crate::keys::{Interval, Point, Span};
use crate::outcome::{Stop, charge};
use crate::path::{Next, Position, Walk};
use crate::scan::{Cursor, Flow, Scan};
use crate::version::Held;

/// Compares on their way.
#[derive(Debug, Default)]
pub(crate) struct Compares {
    /// The branches chosen so far, each transaction before what it contains.
    pub path: Vec<bool>,
    position: Position,
    /// The compare of the transaction being judged that comes next; none while none is judged.
    next: Option<usize>,
    /// How far the next compare has got, if it began.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    cursor: Cursor,
    /// Whether a key was met; all so far held.
    met: bool,
}

impl Compares {
    /// Goes on until the whole path is chosen.
    ///
    /// # Errors
    ///
    /// When it stops before the end.
    pub fn step(
        &mut self,
        txn: &Txn<'_>,
        pages: &PageFile,
        point: Point,
        budget: &mut u32,
    ) -> Result<(), Stop> {
        let Self { path, position, next, running } = self;
        let mut walk = Walk::resume(txn, position);
        loop {
            let judged = if walk.entered() == 0 {
                txn
            } else {
                match walk.peek() {
                    None => return Ok(()),
                    Some(Next::Txn(nested)) => nested,
                    Some(Next::Op(_)) => {
                        charge(budget)?;
                        walk.advance();
                        continue;
                    }
                }
            };
            if next.is_none() {
                charge(budget)?;
            }
            let index = next.get_or_insert(0);
            let mut holds = true;
            while let Some(compare) = judged.compares.get(*index) {
                holds = judge(compare, running, pages, point, budget)?;
                if !holds {
                    break;
                }
                *index += 1;
            }
            *next = None;
            if walk.entered() > 0 {
                walk.advance();
            }
            walk.enter(judged, holds);
            path.push(holds);
        }
    }
}

/// Whether one compare holds.
fn judge(
    compare: &Compare<'_>,
    running: &mut Option<Running>,
    pages: &PageFile,
    point: Point,
    budget: &mut u32,
) -> Result<bool, Stop> {
    if running.is_none() {
        charge(budget)?;
    }
    let Running { cursor, met } = running.get_or_insert_with(|| {
        let interval = Interval::new(compare.key, compare.range_end);
        Running { cursor: Cursor::new(Span::new(&interval)), met: false }
    });
    let mut all = true;
    let scan = cursor.scan(pages, point, Direction::Ascending, budget, &mut |held| {
        all = holds(compare, held, pages)?;
        *met = true;
        Ok(if all { Flow::Next } else { Flow::PauseBehind })
    })?;
    let result = match scan {
        Scan::Paused => false,
        Scan::End => *met || holds_absent(compare),
    };
    *running = None;
    Ok(result)
}

fn holds(compare: &Compare<'_>, held: &Held<'_>, pages: &PageFile) -> Result<bool, Stop> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let revision = |revision: Revision| number(revision.get());
    let ordering = match compare.operand {
        Operand::Version(operand) => number(held.live.version).cmp(&operand),
        Operand::Create(operand) => revision(held.live.create).cmp(&operand),
        Operand::Mod(operand) => revision(held.at.revision).cmp(&operand),
        Operand::Lease(operand) => held.live.lease.get().cmp(&operand),
        Operand::Value(operand) => held.value(pages)?.cmp(operand),
        Operand::Unknown => Ordering::Equal,
    };
    Ok(relates(compare.relation, ordering))
}

/// An absent key, or an empty range: zero everywhere, and no value to compare with.
fn holds_absent(compare: &Compare<'_>) -> bool {
    let ordering = match compare.operand {
        Operand::Version(operand)
        | Operand::Create(operand)
        | Operand::Mod(operand)
        | Operand::Lease(operand) => 0.cmp(&operand),
        Operand::Value(_) => return false,
        Operand::Unknown => Ordering::Equal,
    };
    relates(compare.relation, ordering)
}

fn relates(relation: Relation, ordering: Ordering) -> bool {
    match relation {
        Relation::Equal => ordering.is_eq(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Unknown => true,
    }
}
