//! Export: a state leaves for another member, chunk by chunk, while entries are applied and checkpoints
//! are made.
//!
//! It reads a held checkpoint, so it is of one moment however long it takes, and keeps one page of each
//! level, one value that did not fit a page, and the chunk in the making: nothing is copied but what is
//! sent. Nothing waits for it. Who drives it says how fast it goes and gives it up when the held
//! checkpoint costs too much space ([`tree::PageFile::held_size_of`]).

use alloc::vec::Vec;

use base::limits::PAGE_SIZE;
use base::{LogIndex, RootNo, Term};
use tree::{Cell, Damage, HeldWalk, Miss, Run, TreeId};

use crate::outcome::{Step, Stop, charge};
use crate::state::State;
use crate::transfer::{
    CELL, CELL_HEADER_SIZE, CHUNK_HEADER_SIZE, CHUNK_SIZE_MAX, COUNTED, Kind, PIECE,
    PIECE_HEADER_SIZE, RUN, Totals, VERSION, begin, seal,
};
use crate::version::Reader;

/// Bytes of a run that are copied for one unit of the budget.
const PIECE_SIZE_MAX: usize = 64 << 10;

/// A piece of a run that is smaller than this is left for the next chunk.
const PIECE_SIZE_MIN: usize = 1 << 10;

/// What a step of an [`Export`] has put out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// A chunk; others follow.
    Next,
    /// The last one.
    Last,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Header,
    Records,
    End,
    Done,
}

/// A state on its way to another member: that of a held checkpoint.
///
/// ```text
/// hold -> Export::new -> step*, install* -> Done(Last) -> release
/// ```
pub struct Export {
    walk: HeldWalk,
    /// The application's bytes of the checkpoint.
    meta: Vec<u8>,
    applied: LogIndex,
    term: Term,
    size_hint: u64,
    stage: Stage,
    /// The number of the chunk in the making.
    number: u64,
    chunk: Vec<u8>,
    /// The run of the last cell and how many of its bytes are out.
    run: Option<(Run, usize)>,
    totals: Totals,
}

impl Export {
    /// Begins with the header. None if `root` is not held in the page file of `state`, or is the
    /// checkpoint of a state that had not arrived whole itself.
    pub fn new(state: &State, root: RootNo) -> Option<Self> {
        let pages = state.pages();
        let meta = pages.held_application(root)?.to_vec();
        let mut numbers = Reader(meta.get(1..)?);
        let (applied, term) = (LogIndex::new(numbers.u64()?), Term::new(numbers.u64()?));
        let mut chunk = Vec::with_capacity(CHUNK_SIZE_MAX);
        begin(&mut chunk);
        Some(Self {
            walk: HeldWalk::new(pages, root)?,
            meta,
            applied,
            term,
            size_hint: pages.allocated_size(),
            stage: Stage::Header,
            number: 0,
            chunk,
            run: None,
            totals: Totals::new(),
        })
    }

    /// The held root.
    pub fn root(&self) -> RootNo {
        self.walk.root()
    }

    /// Index and term of the last entry that the exported state has applied.
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied, self.term)
    }

    /// What the exported state keeps about the members, and the index of the entry that set it.
    pub fn members(&self) -> (&[u8], LogIndex) {
        // Behind the format: four numbers, two sums, a point.
        let read = || {
            let mut reader = Reader(self.meta.get(1 + 4 * 8 + 2 * 16 + 12..)?);
            let index = LogIndex::new(reader.u64()?);
            let size = usize::from(u16::from_le_bytes(reader.take()?));
            Some((reader.0.get(..size)?, index))
        };
        read().unwrap_or((&[], LogIndex::ZERO))
    }

    /// Roughly the bytes that will be sent: those of the pages in use when it began.
    pub fn size_hint(&self) -> u64 {
        self.size_hint
    }

    /// Goes on until a chunk is complete, which is then in `out`, in the place of what was there.
    ///
    /// The budget counts cells, and 64 KiB of a large value as one. A miss of an export is handed to
    /// [`Export::install`], not to the page file.
    ///
    /// # Panics
    ///
    /// Behind the last chunk, and when the root is not held any more.
    pub fn step(&mut self, state: &State, out: &mut Vec<u8>, budget: &mut u32) -> Step<Chunk> {
        self.make(state, out, budget).into()
    }

    fn make(&mut self, state: &State, out: &mut Vec<u8>, budget: &mut u32) -> Result<Chunk, Stop> {
        match self.stage {
            Stage::Header => {
                self.chunk.push(VERSION);
                self.chunk.extend_from_slice(&self.meta);
                self.stage = Stage::Records;
                self.hand_out(Kind::Header, out);
                Ok(Chunk::Next)
            }
            Stage::Records => {
                let more = self.fill(state, budget)?;
                if more {
                    self.hand_out(Kind::Records, out);
                    return Ok(Chunk::Next);
                }
                self.stage = Stage::End;
                if self.chunk.len() > CHUNK_HEADER_SIZE {
                    self.hand_out(Kind::Records, out);
                    return Ok(Chunk::Next);
                }
                self.end(out)
            }
            Stage::End => self.end(out),
            Stage::Done => panic!("a step behind the last chunk, {}", self.number),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<Chunk, Stop> {
        let totals = core::mem::replace(&mut self.totals, Totals::new());
        self.chunk.extend_from_slice(&totals.records.to_le_bytes());
        self.chunk.extend_from_slice(&totals.hasher.finish().to_bytes());
        self.stage = Stage::Done;
        self.hand_out(Kind::End, out);
        Ok(Chunk::Last)
    }

    fn hand_out(&mut self, kind: Kind, out: &mut Vec<u8>) {
        self.totals.hasher.update(&self.chunk[CHUNK_HEADER_SIZE..]);
        seal(&mut self.chunk, self.number, kind);
        self.number += 1;
        core::mem::swap(&mut self.chunk, out);
        begin(&mut self.chunk);
    }

    /// Adds records until the chunk is full; false: there are no more.
    fn fill(&mut self, state: &State, budget: &mut u32) -> Result<bool, Stop> {
        let pages = state.pages();
        loop {
            if let Some((run, sent)) = self.run {
                let bytes = self.walk.run(pages, &run)?;
                let room = CHUNK_SIZE_MAX.saturating_sub(self.chunk.len() + PIECE_HEADER_SIZE);
                let left = &bytes[sent..];
                if room < left.len().min(PIECE_SIZE_MIN) {
                    return Ok(true);
                }
                charge(budget)?;
                let piece = &left[..left.len().min(room).min(PIECE_SIZE_MAX)];
                let size = u32::try_from(piece.len()).expect("a piece is small");
                self.chunk.push(PIECE);
                self.chunk.extend_from_slice(&size.to_le_bytes());
                self.chunk.extend_from_slice(piece);
                let sent = sent + piece.len();
                self.run = (sent < bytes.len()).then_some((run, sent));
                continue;
            }
            let Some((tree, cell)) = self.walk.peek(pages)? else { return Ok(false) };
            let size = CELL_HEADER_SIZE + 4 + cell.key.len() + cell.payload.len();
            if self.chunk.len() + size > CHUNK_SIZE_MAX {
                return Ok(true);
            }
            charge(budget)?;
            write_cell(&mut self.chunk, tree, &cell);
            self.run = cell.run.filter(|run| run.size > 0).map(|run| (run, 0));
            self.totals.records += 1;
            self.walk.advance();
        }
    }

    /// Takes in the bytes that a miss of this export asked for.
    ///
    /// # Errors
    ///
    /// They are not what the checkpoint says: the page file is damaged.
    pub fn install(&mut self, miss: Miss, bytes: &[u8]) -> Result<(), Damage> {
        self.walk.install(miss, bytes)
    }

    /// Appends misses that come soon, at most `count`, so that their reads can run at the same time:
    /// each is installed as the others are, at any time.
    pub fn ahead(&self, state: &State, count: usize, misses: &mut Vec<Miss>) {
        self.walk.ahead(state.pages(), count, misses);
    }
}

fn write_cell(out: &mut Vec<u8>, tree: TreeId, cell: &Cell<'_>) {
    let size = |bytes: &[u8]| u16::try_from(bytes.len()).expect("a cell is smaller than a page");
    let counted = if cell.counted { COUNTED } else { 0 };
    let run = if cell.run.is_some() { RUN } else { 0 };
    out.extend_from_slice(&[CELL, tree.0, counted | run]);
    out.extend_from_slice(&cell.number.to_le_bytes());
    out.extend_from_slice(&size(cell.key).to_le_bytes());
    out.extend_from_slice(&size(cell.payload).to_le_bytes());
    if let Some(run) = cell.run {
        out.extend_from_slice(&run.size.to_le_bytes());
    }
    out.extend_from_slice(cell.key);
    out.extend_from_slice(cell.payload);
}

const _: () = assert!(PIECE_SIZE_MIN < PAGE_SIZE, "what is left free in a chunk is little");
