//! A state over an in-memory disk: misses are fetched from an image that only checkpoints write.

#![allow(dead_code)]

use std::ops::ControlFlow;

use base::{FileId, Hash128, LogIndex, NodeId, Prng, Revision, Stamp, Term};
use kv::{
    Answer, Command, KeyValueList, OpenError, Outcome, RangeEnd, RangeRequest, Read, ReadStep,
    ReadTxn, Refusal, Reply, State, Step, Txn,
};
use tree::{Check, CheckStep, Counts, Miss, Open, OpenStep, PageFile, Release};

/// The state with its disk.
pub struct Machine {
    pub state: State,
    image: Vec<u8>,
    options: tree::Options,
    prng: Prng,
    /// Greatest budget of one step; budgets are drawn from 1 to it.
    pub budget_max: u32,
    /// Pages fetched.
    pub fetched: u64,
}

pub fn options(cache_size: u64) -> tree::Options {
    tree::Options {
        file: FileId::new(7),
        cluster: 8,
        member: NodeId::new(9),
        cache_size,
        growth_size: 1 << 20,
    }
}

impl Machine {
    pub fn new(prng: Prng, cache_size: u64, budget_max: u32) -> Self {
        let options = options(cache_size);
        let state = State::create(PageFile::create(&options));
        Self { state, image: Vec::new(), options, prng, budget_max, fetched: 0 }
    }

    /// One that never runs out of anything.
    pub fn plain() -> Self {
        Self::new(Prng::new(1), 1 << 30, u32::MAX)
    }

    pub fn budget(&mut self) -> u32 {
        u32::try_from(1 + self.prng.below(u64::from(self.budget_max))).unwrap()
    }

    pub fn fetch(&mut self, miss: Miss) {
        let bytes = self.read_image(miss).to_vec();
        self.state.pages_mut().install(miss, &bytes).unwrap();
        self.fetched += 1;
    }

    fn next_entry(&self) -> (LogIndex, Term) {
        let (index, _) = self.state.applied();
        (index.next(), Term::new(1 + index.get() / 1_000))
    }

    /// One step; misses are fetched on the way. None: the budget was spent.
    pub fn apply_step(&mut self, command: &Command<'_>) -> Option<Outcome> {
        self.apply_once_step(None, command)
    }

    /// The same with a stamp, if there is one.
    pub fn apply_once_step(
        &mut self,
        stamp: Option<&Stamp>,
        command: &Command<'_>,
    ) -> Option<Outcome> {
        let (index, term) = self.next_entry();
        loop {
            let mut budget = self.budget();
            match self.state.apply_once(index, term, stamp, command, &mut budget) {
                Step::Done(outcome) => return Some(outcome),
                Step::More => return None,
                Step::Miss(miss) => self.fetch(miss),
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
    }

    /// Applies a command to its end.
    pub fn apply(&mut self, command: &Command<'_>) -> Outcome {
        self.apply_once(None, command)
    }

    /// The same with a stamp, if there is one.
    pub fn apply_once(&mut self, stamp: Option<&Stamp>, command: &Command<'_>) -> Outcome {
        loop {
            if let Some(outcome) = self.apply_once_step(stamp, command) {
                return outcome;
            }
        }
    }

    /// Applies a command and tells its client everything.
    pub fn execute(&mut self, command: &Command<'_>) -> Result<Reply, Refusal> {
        match self.apply(command) {
            Outcome::Refused(refusal) => Err(refusal),
            outcome => match (Answer::new(command, &outcome), outcome) {
                (Some(mut answer), _) => self.answer(&mut answer),
                (None, Outcome::Put { revision }) => {
                    Ok(Reply::Put { revision, prev: KeyValueList::default() })
                }
                (None, Outcome::Deleted { revision, count }) => {
                    Ok(Reply::Deleted { revision, count, prev: KeyValueList::default() })
                }
                (None, outcome) => panic!("{outcome:?} is no reply"),
            },
        }
    }

    pub fn answer(&mut self, answer: &mut Answer) -> Result<Reply, Refusal> {
        loop {
            if let Some(reply) = self.answer_step(answer) {
                return reply;
            }
        }
    }

    pub fn answer_step(&mut self, answer: &mut Answer) -> Option<Result<Reply, Refusal>> {
        loop {
            let mut budget = self.budget();
            match answer.step(&self.state, &mut budget) {
                Step::Done(reply) => return Some(reply),
                Step::More => return None,
                Step::Miss(miss) => self.fetch(miss),
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
    }

    pub fn read_txn_step(
        &mut self,
        read: &mut ReadTxn,
        txn: &Txn<'_>,
    ) -> Option<Result<Reply, Refusal>> {
        loop {
            let mut budget = self.budget();
            match read.step(&self.state, txn, &mut budget) {
                Step::Done(reply) => return Some(reply),
                Step::More => return None,
                Step::Miss(miss) => self.fetch(miss),
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
    }

    pub fn read_txn(&mut self, txn: &Txn<'_>) -> Result<Reply, Refusal> {
        let mut read = ReadTxn::new();
        loop {
            if let Some(reply) = self.read_txn_step(&mut read, txn) {
                return reply;
            }
        }
    }

    /// One step of a read, which may be paused behind any pair.
    pub fn read_step(
        &mut self,
        read: &mut Read,
        pairs: &mut KeyValueList,
    ) -> Option<Result<RangeEnd, Refusal>> {
        loop {
            let mut budget = self.budget();
            let piece = 1 + self.prng.below(u64::from(self.budget_max));
            let mut left = piece;
            let step = read.step(&self.state, &mut budget, &mut |pair| {
                pairs.push(pair);
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match step {
                ReadStep::Done(end) => return Some(Ok(end)),
                ReadStep::Refused(refusal) => return Some(Err(refusal)),
                ReadStep::Piece | ReadStep::More => return None,
                ReadStep::Miss(miss) => self.fetch(miss),
                ReadStep::Damaged(damage) => panic!("{damage}"),
            }
        }
    }

    pub fn read(
        &mut self,
        request: &RangeRequest<'_>,
    ) -> Result<(KeyValueList, RangeEnd), Refusal> {
        let mut read = Read::new(request);
        let mut pairs = KeyValueList::default();
        loop {
            if let Some(end) = self.read_step(&mut read, &mut pairs) {
                return end.map(|end| (pairs, end));
            }
        }
    }

    /// True: nothing is left to trim.
    pub fn trim_step(&mut self, keep: Revision) -> bool {
        loop {
            let mut budget = self.budget();
            match self.state.trim(keep, &mut budget) {
                Step::Done(()) => return true,
                Step::More => return false,
                Step::Miss(miss) => self.fetch(miss),
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
    }

    pub fn trim(&mut self) {
        while !self.trim_step(Revision::MAX) {}
    }

    pub fn evict(&mut self) {
        self.state.pages_mut().evict();
    }

    pub fn checkpoint_begin(&mut self) {
        self.state.checkpoint_begin();
    }

    /// Writes up to `writes` parts of the running checkpoint; true once it is published.
    pub fn checkpoint_step(&mut self, writes: u64) -> bool {
        write_checkpoint(self.state.pages_mut(), &mut self.image, writes)
    }

    pub fn checkpoint(&mut self) {
        if !self.state.pages().checkpoint_running() {
            self.checkpoint_begin();
        }
        while !self.checkpoint_step(100) {}
    }

    /// Forgets everything that no checkpoint has published.
    pub fn reopen(&mut self) {
        self.state = open(&self.options, &self.image).unwrap();
    }

    /// One over a state that came from elsewhere, and the image that its checkpoints wrote.
    pub fn over(state: State, image: Vec<u8>, prng: Prng, budget_max: u32) -> Self {
        Self { state, image, options: options(0), prng, budget_max, fetched: 0 }
    }

    /// What a miss asks for.
    pub fn read_image(&self, miss: Miss) -> &[u8] {
        let offset = usize::try_from(miss.offset()).unwrap();
        &self.image[offset..offset + miss.size()]
    }

    /// Verifies the whole image: no page lost or used twice.
    pub fn verify(&self) -> Counts {
        let mut check = Check::new(&self.options, self.image.len() as u64);
        while let CheckStep::Read { offset, size } = check.next() {
            let from = usize::try_from(offset).unwrap();
            check.feed(&self.image[from..from + size]);
        }
        check.finish().unwrap()
    }

    pub fn into_pages(self) -> PageFile {
        PageFile::create(&self.options)
    }

    pub fn hash(&self) -> Hash128 {
        self.state.state_hash()
    }
}

/// Opens what the newest checkpoint in an image wrote.
pub fn open(options: &tree::Options, image: &[u8]) -> Result<State, OpenError> {
    let mut open = Open::new(options, image.len() as u64);
    while let OpenStep::Read { offset, size } = open.next() {
        let from = usize::try_from(offset).unwrap();
        open.feed(&image[from..from + size]);
    }
    let (pages, meta) = open.finish().unwrap();
    State::open(pages, &meta)
}

/// Writes up to `writes` parts of the running checkpoint; true once it is published.
pub fn write_checkpoint(pages: &mut PageFile, image: &mut Vec<u8>, writes: u64) -> bool {
    if let Some(size) = pages.wants_growth() {
        pages.set_backed(size);
        image.resize(usize::try_from(size).unwrap(), 0);
    }
    for _ in 0..writes {
        let Some(write) = pages.checkpoint_next() else {
            let mut meta = Box::new([0; tree::META_SIZE]);
            let offset = usize::try_from(pages.checkpoint_meta(&mut meta)).unwrap();
            image[offset..offset + tree::META_SIZE].copy_from_slice(&meta[..]);
            pages.checkpoint_published();
            while let Some(release) = pages.release_next() {
                match release {
                    Release::Punch { offset, size } => {
                        let from = usize::try_from(offset).unwrap();
                        image[from..from + usize::try_from(size).unwrap()].fill(0);
                    }
                    Release::Truncate { size } => image.truncate(usize::try_from(size).unwrap()),
                }
            }
            return true;
        };
        let from = usize::try_from(write.offset).unwrap();
        pages.checkpoint_fill(&write, &mut image[from..from + write.size]);
    }
    false
}
