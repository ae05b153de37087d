//! Full verification of a page file that nobody writes to.
//!
//! [`Open`] first: slots, free list, branches. Then every leaf in key order, and every run:
//! checksums, order of keys, what parents say, and that each page has exactly one owner or is free
//! or waits. The first fault ends it, named by page and offset.

use alloc::boxed::Box;
use alloc::vec::Vec;

use base::limits::PAGE_SIZE;
use base::{PageNo, RootNo};

use crate::error::{Damage, DamageKind};
use crate::open::{Open, OpenStep, Pages};
use crate::page::{Expected, KIND_LEAF, KIND_RUN, Page, RUN_HEADER_SIZE, run_size, verify, wide};
use crate::{Miss, OpenError, Options, PageFile, Run, Summary, TREES_MAX, TreeId, slotted};

/// What a [`Check`] wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckStep {
    /// Read this part of the file and feed it.
    Read {
        /// Offset in the file, in bytes.
        offset: u64,
        /// Size in bytes.
        size: usize,
    },
    /// Nothing more: [`Check::finish`].
    Done,
}

/// What a page file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// The checkpoint that was verified.
    pub root: RootNo,
    /// Bytes of the application's part of the meta record.
    pub application_size: usize,
    /// Cells of each tree.
    pub cells: [u64; TREES_MAX],
    /// Leaves.
    pub leaves: u64,
    /// Branches.
    pub branches: u64,
    /// Overflow runs, the free list's not among them.
    pub runs: u64,
    /// Pages of these runs.
    pub run_pages: u64,
    /// Bytes that slots and cells use in leaves, headers not among them.
    pub leaf_used_size: u64,
    /// Pages of the run that holds the free list.
    pub list_pages: u64,
    /// Free pages.
    pub free_pages: u64,
    /// Pages that the other meta slot may still reach.
    pub waiting_pages: u64,
}

/// A branch above leaves, or a leaf, and the keys that it may hold.
struct Bounded {
    tree: TreeId,
    page: PageNo,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    summary: Summary,
}

struct Opened {
    file: PageFile,
    seen: Pages,
    counts: Counts,
    /// Branches right above leaves that come next, the next one last.
    branches: Vec<Bounded>,
    leaves: Vec<Bounded>,
    runs: Vec<Run>,
}

/// Verifies a page file: [`Check::next`], the read, [`Check::feed`], and again; then
/// [`Check::finish`].
pub struct Check {
    open: Option<Open>,
    opened: Option<Box<Opened>>,
    asked: Option<Miss>,
    fault: Option<OpenError>,
}

impl Check {
    /// Begins to check a file of `file_size` bytes.
    #[must_use]
    pub fn new(options: &Options, file_size: u64) -> Self {
        Self { open: Some(Open::new(options, file_size)), opened: None, asked: None, fault: None }
    }

    /// What to do next. Asking again without feeding gives the same answer.
    #[expect(clippy::should_implement_trait, reason = "it is a step of a machine, not an iterator")]
    pub fn next(&mut self) -> CheckStep {
        if let Some(open) = &mut self.open {
            if let OpenStep::Read { offset, size } = open.next() {
                return CheckStep::Read { offset, size };
            }
            let opened = self.open.take().map(Open::finish);
            match opened {
                Some(Ok((file, application))) => match Opened::new(file, application.len()) {
                    Ok(opened) => self.opened = Some(Box::new(opened)),
                    Err(damage) => self.fault = Some(OpenError::Damaged(damage)),
                },
                Some(Err(error)) => self.fault = Some(error),
                None => {}
            }
        }
        if self.asked.is_none()
            && self.fault.is_none()
            && let Some(opened) = &mut self.opened
        {
            match opened.next() {
                Ok(miss) => self.asked = miss,
                Err(damage) => self.fault = Some(OpenError::Damaged(damage)),
            }
        }
        match self.asked {
            Some(miss) => CheckStep::Read { offset: miss.offset(), size: miss.size() },
            None => CheckStep::Done,
        }
    }

    /// The bytes that were asked for; fewer, if the file ended or the disk would not read them.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.feed(bytes);
            return;
        }
        if let (Some(opened), Some(miss)) = (&mut self.opened, self.asked.take())
            && let Err(damage) = opened.feed(miss, bytes)
        {
            self.fault = Some(OpenError::Damaged(damage));
        }
    }

    /// What the file holds.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn finish(self) -> Result<Counts, OpenError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match self.opened {
            Some(opened) => opened.finish().map_err(OpenError::Damaged),
            None => Err(OpenError::NoMeta { blank: false }),
        }
    }
}

impl Opened {
    fn new(file: PageFile, application_size: usize) -> Result<Self, Damage> {
        let mut seen = Pages::new(file.free.end());
        let mut claimed = Ok(());
        file.free.for_each_unused(|first, pages| {
            if claimed.is_ok() {
                claimed = seen.claim(PageNo::new(first), pages);
            }
        });
        claimed?;
        let mut counts = Counts {
            root: file.published,
            application_size,
            free_pages: u64::from(file.free.free_count()),
            waiting_pages: u64::from(file.free.waiting_count()),
            ..Counts::default()
        };
        if let Some(list) = file.list_run {
            seen.claim(list.first, list.pages())?;
            counts.list_pages = u64::from(list.pages());
        }
        let mut opened =
            Self { file, seen, counts, branches: Vec::new(), leaves: Vec::new(), runs: Vec::new() };
        for tree in (0..TREES_MAX).rev() {
            opened.descend(TreeId(u8::try_from(tree).expect("eight trees")))?;
        }
        Ok(opened)
    }

    /// Verifies the order within and between the branches of a tree, and notes the lowest ones.
    fn descend(&mut self, tree: TreeId) -> Result<(), Damage> {
        let root = *self.file.root_of(tree);
        let Some(page) = root.page else { return Ok(()) };
        let top = Bounded { tree, page, from: Vec::new(), to: None, summary: root.summary };
        let mut level = alloc::vec![top];
        for _ in 1..root.height {
            let mut below = Vec::new();
            for branch in level {
                below.extend(self.children(&branch)?);
            }
            level = below;
        }
        if root.height == 0 {
            self.leaves.extend(level);
        } else {
            self.branches.extend(level.into_iter().rev());
        }
        Ok(())
    }

    fn children(&mut self, branch: &Bounded) -> Result<Vec<Bounded>, Damage> {
        self.seen.claim(branch.page, 1)?;
        self.counts.branches += 1;
        let damage = |kind| Err(Damage::new(branch.page, kind));
        let Some(frame) = self.file.frames.find(branch.page) else {
            return damage(DamageKind::Reference);
        };
        let page = self.file.frames.page(frame);
        if !slotted::ordered(page, &branch.from, branch.to.as_deref()) {
            return damage(DamageKind::Order);
        }
        let count = slotted::count(page);
        let child = |slot: usize| Bounded {
            tree: branch.tree,
            page: slotted::child(page, slot),
            from: if slot == 0 { branch.from.clone() } else { slotted::key(page, slot).to_vec() },
            to: if slot + 1 < count {
                Some(slotted::key(page, slot + 1).to_vec())
            } else {
                branch.to.clone()
            },
            summary: slotted::child_summary(page, slot),
        };
        Ok((0..count).map(child).collect())
    }

    fn next(&mut self) -> Result<Option<Miss>, Damage> {
        if let Some(run) = self.runs.last() {
            return Ok(Some(run.miss()));
        }
        if self.leaves.is_empty()
            && let Some(branch) = self.branches.pop()
        {
            let mut leaves = self.children(&branch)?;
            leaves.reverse();
            self.leaves = leaves;
        }
        Ok(self.leaves.last().map(|leaf| Miss {
            page: leaf.page,
            pages: 1,
            crc: self.file.frames.crc(leaf.page),
            run_size: None,
        }))
    }

    fn feed(&mut self, miss: Miss, bytes: &[u8]) -> Result<(), Damage> {
        let damage = |kind| Err(Damage::new(miss.page, kind));
        if bytes.len() != miss.size() {
            return damage(DamageKind::Short);
        }
        let expected = Expected {
            number: miss.page,
            birth_max: self.file.published,
            file: self.file.options.file,
            crc: miss.crc,
            kind: if miss.run_size.is_some() { KIND_RUN } else { KIND_LEAF },
            level: 0,
        };
        if let Some(size) = miss.run_size {
            self.runs.pop();
            let stored = bytes.get(..RUN_HEADER_SIZE + wide(size));
            let Some(stored) = stored else { return damage(DamageKind::Short) };
            verify(stored, &expected)?;
            if run_size(stored) != size {
                return damage(DamageKind::Structure);
            }
            self.counts.runs += 1;
            self.counts.run_pages += u64::from(miss.pages);
            return Ok(());
        }
        let Some(leaf) = self.leaves.pop() else { return Ok(()) };
        verify(bytes, &expected)?;
        let Ok(page) = <&Page>::try_from(bytes) else { return damage(DamageKind::Short) };
        if !slotted::validate(page) {
            return damage(DamageKind::Structure);
        }
        if !slotted::ordered(page, &leaf.from, leaf.to.as_deref()) {
            return damage(DamageKind::Order);
        }
        if slotted::summary(page) != leaf.summary {
            return damage(DamageKind::Summary);
        }
        self.seen.claim(leaf.page, 1)?;
        self.counts.leaves += 1;
        let used = u64::try_from(slotted::used(page)).expect("a page is small");
        self.counts.leaf_used_size += used;
        for slot in 0..slotted::count(page) {
            self.counts.cells[usize::from(leaf.tree.0)] += 1;
            if let Some(run) = slotted::cell(page, slot).run {
                self.seen.claim(run.first, run.pages())?;
                self.runs.push(run);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Counts, Damage> {
        match self.seen.first_unclaimed() {
            Some(page) => Err(Damage::new(page, DamageKind::Leak)),
            None => Ok(self.counts),
        }
    }
}

const _: () = assert!(PAGE_SIZE >= RUN_HEADER_SIZE, "a run's header fits its first page");
