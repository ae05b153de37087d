//! Opening: the newest meta slot whose free list, roots and branch pages verify.
//!
//! ```text
//! slot 0, slot 1 -> newest record -> free list -> roots -> branches, level by level -> done
//!                        |
//!                        +-- if anything below does not verify: the older record
//! ```
//!
//! Leaves and runs are verified when they are read. Falling back is right because the log still has
//! everything after the older record. A record that the newer one does not name as its predecessor
//! is not trusted: its pages may have been reused.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use base::limits::PAGE_SIZE;
use base::{Hash128, PageNo};

use crate::error::{Damage, DamageKind};
use crate::file::{Root, Slot};
use crate::free::{Free, RESERVED};
use crate::held::Newest;
use crate::meta::{META_SIZE, Meta, Refusal, SLOT_OFFSETS};
use crate::page::{
    Expected, KIND_BRANCH, KIND_LEAF, KIND_RUN, Page, RUN_HEADER_SIZE, run_size, verify, wide,
};
use crate::read::DEPTH_MAX;
use crate::{OpenError, Options, PageFile, Run, Summary, slotted};

/// Pages of one read at most.
const READ_PAGES_MAX: usize = 128;

/// A page that must be read, and what its parent says of it.
#[derive(Clone, Copy)]
struct Wanted {
    page: PageNo,
    crc: u32,
    level: u8,
    summary: Summary,
}

/// One try to open from one record.
struct Attempt {
    meta: Meta,
    hash: Hash128,
    slot: usize,
    file: PageFile,
    /// Pages that have an owner, or are not in use.
    seen: Pages,
    list_read: bool,
    /// Pages of the present level, by number.
    queue: Vec<Wanted>,
    /// The reads of the present level, as parts of the queue, and how many of them were fed.
    reads: Vec<Range<usize>>,
    reads_fed: usize,
    below: Vec<Wanted>,
}

/// A set of pages.
pub(crate) struct Pages {
    bits: Vec<u128>,
    end: u32,
}

impl Pages {
    pub fn new(end: u32) -> Self {
        Self { bits: alloc::vec![0; wide(end.div_ceil(128))], end }
    }

    /// Adds pages; an error if one is outside of the file or in the set already.
    pub fn claim(&mut self, first: PageNo, pages: u32) -> Result<(), Damage> {
        let from = first.get();
        let inside = from >= RESERVED && from.checked_add(pages).is_some_and(|to| to <= self.end);
        if !inside {
            return Err(Damage::new(first, DamageKind::Reference));
        }
        for page in from..from + pages {
            let bit = 1 << (page % 128);
            let word = &mut self.bits[wide(page / 128)];
            if *word & bit != 0 {
                return Err(Damage::new(PageNo::new(page), DamageKind::DoubleUse));
            }
            *word |= bit;
        }
        Ok(())
    }

    /// The first page behind the reserved ones that is not in the set.
    pub fn first_unclaimed(&self) -> Option<PageNo> {
        (RESERVED..self.end)
            .find(|page| self.bits[wide(page / 128)] >> (page % 128) & 1 == 0)
            .map(PageNo::new)
    }
}

/// What an [`Open`] wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenStep {
    /// Read this part of the file and feed it.
    Read {
        /// Offset in the file, in bytes; a multiple of 4 KiB.
        offset: u64,
        /// Size in bytes; a multiple of 4 KiB.
        size: usize,
    },
    /// Nothing more: [`Open::finish`].
    Done,
}

/// Opens a page file: asks for reads, verifies, and yields the [`PageFile`].
///
/// One read at a time: [`Open::next`], the read, [`Open::feed`], and again.
pub struct Open {
    options: Options,
    file_size: u64,
    /// What the slots hold, as far as they were read.
    slots: Vec<Result<(Meta, Hash128), Refusal>>,
    attempt: Option<Box<Attempt>>,
    asked: Option<(u64, usize)>,
    error: Option<OpenError>,
    /// Slots whose record was tried and refused.
    refused: [bool; 2],
    done: bool,
}

impl Open {
    /// Begins to open a file of `file_size` bytes.
    #[must_use]
    pub fn new(options: &Options, file_size: u64) -> Self {
        Self {
            options: options.clone(),
            file_size,
            slots: Vec::new(),
            attempt: None,
            asked: None,
            error: None,
            refused: [false; 2],
            done: false,
        }
    }

    /// What to do next. Asking again without feeding gives the same answer.
    #[expect(clippy::should_implement_trait, reason = "it is a step of a machine, not an iterator")]
    pub fn next(&mut self) -> OpenStep {
        if let Some((offset, size)) = self.asked {
            return OpenStep::Read { offset, size };
        }
        while self.slots.len() < SLOT_OFFSETS.len() {
            let offset = SLOT_OFFSETS[self.slots.len()];
            if offset + META_SIZE as u64 <= self.file_size {
                return self.ask(offset, META_SIZE);
            }
            self.slots.push(Err(Refusal::Blank));
            if self.slots.len() == SLOT_OFFSETS.len() {
                self.choose();
            }
        }
        let Some(attempt) = self.attempt.as_mut().filter(|_| !self.done) else {
            return OpenStep::Done;
        };
        if !attempt.list_read {
            let miss = attempt.meta.list.miss();
            return self.ask(miss.offset(), miss.size());
        }
        if attempt.reads_fed == attempt.reads.len() {
            attempt.descend();
        }
        let Some((offset, size)) = attempt.read(attempt.reads_fed) else {
            self.done = true;
            return OpenStep::Done;
        };
        self.ask(offset, size)
    }

    /// The read that will be asked for `n` reads behind the present one, offset and size in bytes, as
    /// far as it is known: the reads of one level of branches may run at the same time.
    #[must_use]
    pub fn ahead(&self, n: usize) -> Option<(u64, usize)> {
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.list_read)?;
        attempt.read(attempt.reads_fed + 1 + n)
    }

    fn ask(&mut self, offset: u64, size: usize) -> OpenStep {
        self.asked = Some((offset, size));
        OpenStep::Read { offset, size }
    }

    /// The bytes that were asked for; fewer, if the file ended or the disk would not read them.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Some((_, size)) = self.asked.take() else { return };
        if self.slots.len() < SLOT_OFFSETS.len() {
            self.slots.push(Meta::decode(bytes));
            if self.slots.len() == SLOT_OFFSETS.len() {
                self.choose();
            }
            return;
        }
        let Some(mut attempt) = self.attempt.take() else { return };
        let taken = if bytes.len() != size {
            let read = attempt.reads.get(attempt.reads_fed);
            let page = read.map_or(attempt.meta.list.first, |read| attempt.queue[read.start].page);
            Err(Damage::new(page, DamageKind::Short))
        } else if attempt.list_read {
            attempt.take_pages(bytes)
        } else {
            attempt.take_list(bytes)
        };
        match taken {
            Ok(()) => self.attempt = Some(attempt),
            Err(damage) => self.refuse(attempt.slot, damage),
        }
    }

    fn refuse(&mut self, slot: usize, damage: Damage) {
        self.refused[slot] = true;
        self.error.get_or_insert(OpenError::Damaged(damage));
        self.choose();
    }

    /// Begins with the newest record that was not refused.
    fn choose(&mut self) {
        self.attempt = None;
        for slot in &self.slots {
            let error = match slot {
                Err(Refusal::Version(found)) => Some(OpenError::Version { found: *found }),
                Ok((meta, _)) if self.is_foreign(meta) => Some(OpenError::Foreign {
                    file: meta.file,
                    cluster: meta.cluster,
                    member: meta.member,
                }),
                _ => None,
            };
            if error.is_some() {
                self.error = error;
                self.done = true;
                return;
            }
        }
        let readable = |slot: &usize| self.slots[*slot].is_ok();
        let root = |slot: &usize| self.slots[*slot].as_ref().ok().map(|(meta, _)| meta.root);
        let newest = (0..2).filter(readable).max_by_key(root);
        let choice = (0..2).filter(readable).filter(|slot| !self.refused[*slot]).max_by_key(root);
        let (Some(newest), Some(slot)) = (newest, choice) else {
            let blank = self.slots.iter().all(|slot| matches!(slot, Err(Refusal::Blank)));
            self.error.get_or_insert(OpenError::NoMeta { blank });
            self.done = true;
            return;
        };
        let (Ok((newer, _)), Ok((meta, hash))) = (&self.slots[newest], &self.slots[slot]) else {
            return;
        };
        if newest != slot && newer.before != *hash {
            self.done = true;
            return;
        }
        let (meta, hash) = (meta.clone(), *hash);
        match Attempt::new(&self.options, self.file_size, meta, hash, slot) {
            Ok(attempt) => self.attempt = Some(Box::new(attempt)),
            Err(damage) => self.refuse(slot, damage),
        }
    }

    fn is_foreign(&self, meta: &Meta) -> bool {
        let options = &self.options;
        (options.file.get() != 0 && options.file != meta.file)
            || (options.cluster != 0 && options.cluster != meta.cluster)
            || (options.member.get() != 0 && options.member != meta.member)
    }

    /// The page file and the application's bytes of its meta record.
    ///
    /// # Errors
    ///
    /// No record can be opened from, or [`Open::next`] has not said [`OpenStep::Done`] yet and what
    /// was fed so far does not do.
    pub fn finish(self) -> Result<(PageFile, Vec<u8>), OpenError> {
        let failed = self.error.unwrap_or(OpenError::NoMeta { blank: false });
        let Some(attempt) = self.attempt.filter(|_| self.done) else { return Err(failed) };
        let Attempt { meta, hash, slot, mut file, .. } = *attempt;
        let readable = self.slots.iter().flatten().map(|(meta, _)| meta.root);
        let newest = readable.max().unwrap_or(meta.root);
        let other = 1 - slot;
        file.root = newest.next();
        file.published = meta.root;
        file.meta_hash = hash;
        file.newest = Newest { roots: meta.roots, application: meta.application.clone() };
        file.slot_next = other;
        file.slots[slot] = Slot { needed: meta.needed };
        match &self.slots[other] {
            Ok((older, _)) if older.root < meta.root => {
                file.slots[other] = Slot { needed: older.needed };
            }
            Err(Refusal::Blank) => {}
            _ => file.slot_refused = Some(other),
        }
        file.free.set_backed(self.file_size);
        file.free.published(meta.root);
        Ok((file, meta.application))
    }
}

impl Attempt {
    fn new(
        options: &Options,
        file_size: u64,
        meta: Meta,
        hash: Hash128,
        slot: usize,
    ) -> Result<Self, Damage> {
        let in_slot = |kind| Damage::new(PageNo::new(if slot == 0 { 0 } else { 8 }), kind);
        if meta.needed > file_size {
            return Err(in_slot(DamageKind::Short));
        }
        let Ok(end) = u32::try_from(meta.needed / PAGE_SIZE as u64) else {
            return Err(in_slot(DamageKind::Structure));
        };
        let mut seen = Pages::new(end);
        // Before the pages are counted: a size near 2^32 has no page count to claim.
        seen.claim(meta.list.first, meta.list.pages())?;
        let options = Options {
            file: meta.file,
            cluster: meta.cluster,
            member: meta.member,
            ..options.clone()
        };
        let mut attempt = Self {
            file: PageFile::with(options, Free::new()),
            meta,
            hash,
            slot,
            seen,
            list_read: false,
            queue: Vec::new(),
            reads: Vec::new(),
            reads_fed: 0,
            below: Vec::new(),
        };
        for (index, root) in attempt.meta.roots.iter().enumerate() {
            if root.page == PageNo::ZERO {
                continue;
            }
            if usize::from(root.height) >= DEPTH_MAX - 1 {
                return Err(in_slot(DamageKind::Structure));
            }
            attempt.file.roots[index] = Root {
                page: Some(root.page),
                height: root.height,
                summary: root.summary,
                edits: 0,
            };
        }
        Ok(attempt)
    }

    fn take_list(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        let list: Run = self.meta.list;
        let damage = |kind| Err(Damage::new(list.first, kind));
        let content = RUN_HEADER_SIZE + wide(list.size);
        let Some(stored) = bytes.get(..content) else { return damage(DamageKind::Short) };
        verify(stored, &self.expected(list.first, list.crc, KIND_RUN, 0))?;
        if run_size(stored) != list.size {
            return damage(DamageKind::Structure);
        }
        let pages = u32::try_from(self.meta.needed / PAGE_SIZE as u64).unwrap_or(0);
        let free = Free::decode(&stored[RUN_HEADER_SIZE..], self.meta.root, pages);
        let Some(free) = free else { return damage(DamageKind::Structure) };
        let mut claimed = Ok(());
        free.for_each_unused(|first, pages| {
            if claimed.is_ok() {
                claimed = self.seen.claim(PageNo::new(first), pages);
            }
        });
        claimed?;
        self.file.free = free;
        self.file.list_run = Some(list);
        self.list_read = true;
        for root in self.meta.roots {
            if root.page != PageNo::ZERO {
                self.want(root.page, root.crc, root.height, root.summary)?;
            }
        }
        Ok(())
    }

    fn expected(&self, number: PageNo, crc: u32, kind: u8, level: u8) -> Expected {
        Expected { number, birth_max: self.meta.root, file: self.meta.file, crc, kind, level }
    }

    /// Notes a page that the tree refers to.
    fn claim(&mut self, page: PageNo, crc: u32) -> Result<(), Damage> {
        self.seen.claim(page, 1)?;
        self.file.frames.set_crc(page, crc);
        Ok(())
    }

    fn want(&mut self, page: PageNo, crc: u32, level: u8, summary: Summary) -> Result<(), Damage> {
        self.claim(page, crc)?;
        self.below.push(Wanted { page, crc, level, summary });
        Ok(())
    }

    /// Begins with the level below. Pages that lie next to each other are read together.
    fn descend(&mut self) {
        self.queue = core::mem::take(&mut self.below);
        self.queue.sort_unstable_by_key(|wanted| wanted.page);
        self.reads.clear();
        self.reads_fed = 0;
        for (at, wanted) in self.queue.iter().enumerate() {
            match self.reads.last_mut() {
                Some(read)
                    if read.len() < READ_PAGES_MAX
                        && wanted.page == self.queue[at - 1].page.next() =>
                {
                    read.end += 1;
                }
                _ => self.reads.push(at..at + 1),
            }
        }
    }

    /// Offset and size in bytes of a read of the present level.
    fn read(&self, at: usize) -> Option<(u64, usize)> {
        let read = self.reads.get(at)?;
        let first = self.queue[read.start].page;
        Some((u64::from(first.get()) * PAGE_SIZE as u64, read.len() * PAGE_SIZE))
    }

    fn take_pages(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        let Some(read) = self.reads.get(self.reads_fed).cloned() else { return Ok(()) };
        for (at, bytes) in read.zip(bytes.chunks_exact(PAGE_SIZE)) {
            let wanted = self.queue[at];
            let kind = if wanted.level == 0 { KIND_LEAF } else { KIND_BRANCH };
            verify(bytes, &self.expected(wanted.page, wanted.crc, kind, wanted.level))?;
            let damage = |kind| Err(Damage::new(wanted.page, kind));
            let Ok(page) = <&Page>::try_from(bytes) else { return damage(DamageKind::Short) };
            if !slotted::validate(page) {
                return damage(DamageKind::Structure);
            }
            if slotted::summary(page) != wanted.summary {
                return damage(DamageKind::Summary);
            }
            for slot in 0..if wanted.level == 0 { 0 } else { slotted::count(page) } {
                let (child, crc) = (slotted::child(page, slot), slotted::child_crc(page, slot));
                if wanted.level == 1 {
                    self.claim(child, crc)?;
                } else {
                    self.want(child, crc, wanted.level - 1, slotted::child_summary(page, slot))?;
                }
            }
            self.file.frames.adopt(wanted.page, page, wanted.crc);
        }
        self.reads_fed += 1;
        Ok(())
    }
}
