//! Holding a checkpoint: its pages stay in the file, unchanged, while trees and checkpoints go on.
//!
//! ```text
//! hold -> walk: peek, advance, misses installed into the walk -> release
//! ```
//!
//! A hold is on the newest published checkpoint, so everything that it reaches is in the file. A
//! [`HeldWalk`] reads from there what the present trees no longer have in memory, branches too, and
//! checks every page against the CRC that its parent holds, from the meta record down. What it reads
//! stays its own: a transfer does not drive the pages out of the cache that clients use.
//!
//! Holds are not written down anywhere: they end with the process. Which pages wait for a release is
//! told in free.rs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::limits::PAGE_SIZE;
use base::{FileId, PageNo, RootNo};

use crate::error::{Damage, DamageKind};
use crate::file::PageFile;
use crate::meta::RootRef;
use crate::page::{
    Expected, KIND_BRANCH, KIND_LEAF, KIND_RUN, Page, RUN_HEADER_SIZE, birth, is_leaf, level,
    run_size, verify, wide,
};
use crate::{Cell, Miss, Run, TREES_MAX, TreeId, slotted};

/// What a meta record leads to.
#[derive(Clone, Default)]
pub(crate) struct Newest {
    pub roots: [RootRef; TREES_MAX],
    pub application: Vec<u8>,
}

/// A root that somebody holds.
pub(crate) struct Held {
    root: RootNo,
    /// How often it was taken hold of.
    holders: u32,
    newest: Newest,
}

impl PageFile {
    /// Takes hold of the newest published checkpoint: until it is released as often, no page that it
    /// reaches is reused, punched or cut off. None before the first checkpoint.
    ///
    /// It costs disk space only: [`PageFile::held_size_of`] says how much, so that the owner can give
    /// up what it holds for.
    pub fn hold(&mut self) -> Option<RootNo> {
        let root = self.published;
        if root == RootNo::ZERO {
            return None;
        }
        if let Some(held) = self.held.iter_mut().find(|held| held.root == root) {
            held.holders += 1;
        } else {
            self.held.push(Held { root, holders: 1, newest: self.newest.clone() });
            self.free.hold(root);
        }
        Some(root)
    }

    /// Gives up one hold of `root`. Its pages can be reused when it was the last one.
    ///
    /// # Panics
    ///
    /// When it is not held.
    pub fn release(&mut self, root: RootNo) {
        let at = self.held.iter().position(|held| held.root == root);
        let at = at.unwrap_or_else(|| panic!("root {root:?} is released and not held"));
        self.held[at].holders -= 1;
        if self.held[at].holders == 0 {
            self.held.swap_remove(at);
            self.free.release(root);
        }
    }

    /// Bytes of pages that were freed and that only held roots keep from being reused.
    #[must_use]
    pub fn held_size(&self) -> u64 {
        u64::from(self.free.held_count()) * PAGE_SIZE as u64
    }

    /// The part of them that `root` keeps, alone or with others; 0 if it is not held.
    #[must_use]
    pub fn held_size_of(&self, root: RootNo) -> u64 {
        u64::from(self.free.pages_held_by(root)) * PAGE_SIZE as u64
    }

    /// The application's bytes of a held checkpoint.
    #[must_use]
    pub fn held_application(&self, root: RootNo) -> Option<&[u8]> {
        self.held_root(root).map(|newest| newest.application.as_slice())
    }

    fn held_root(&self, root: RootNo) -> Option<&Newest> {
        self.held.iter().find(|held| held.root == root).map(|held| &held.newest)
    }
}

/// A page of the path, and the slot of its child in the path or of the next cell.
struct Level {
    page: Box<Page>,
    slot: usize,
}

/// A walk over every cell of a held checkpoint, tree by tree, in the order of keys.
///
/// It borrows nothing: trees may change, pages be evicted and checkpoints be made between two calls, as
/// long as the root is held. It owns one page of each level.
pub struct HeldWalk {
    root: RootNo,
    file: FileId,
    roots: [RootRef; TREES_MAX],
    tree: usize,
    /// From the root of the tree down; the last one may be a leaf.
    path: Vec<Level>,
    /// Pages that were fetched and not come to yet.
    fetched: BTreeMap<PageNo, Box<Page>>,
    /// The run that was fetched last.
    run: Option<(Miss, Vec<u8>)>,
}

impl HeldWalk {
    /// A walk from the first cell on; none if `root` is not held.
    #[must_use]
    pub fn new(file: &PageFile, root: RootNo) -> Option<Self> {
        let newest = file.held_root(root)?;
        Some(Self {
            root,
            file: file.file_id(),
            roots: newest.roots,
            tree: 0,
            path: Vec::new(),
            fetched: BTreeMap::new(),
            run: None,
        })
    }

    /// The root that is walked.
    #[must_use]
    pub fn root(&self) -> RootNo {
        self.root
    }

    /// The cell that the walk stands at and its tree; none behind the last one.
    ///
    /// # Errors
    ///
    /// A page is not in memory: read it, hand it to [`HeldWalk::install`] and ask again.
    ///
    /// # Panics
    ///
    /// When the root is not held any more: its pages may hold anything.
    pub fn peek(&mut self, file: &PageFile) -> Result<Option<(TreeId, Cell<'_>)>, Miss> {
        assert!(
            file.file_id() == self.file && file.held_root(self.root).is_some(),
            "root {:?} is walked and not held",
            self.root
        );
        if !self.settle(file)? {
            return Ok(None);
        }
        let tree = TreeId(u8::try_from(self.tree).expect("there are eight trees"));
        let leaf = self.path.last().expect("the walk stands at a cell");
        Ok(Some((tree, slotted::cell(&leaf.page, leaf.slot))))
    }

    /// Steps over the cell that [`HeldWalk::peek`] has shown.
    pub fn advance(&mut self) {
        if let Some(leaf) = self.path.last_mut().filter(|last| is_leaf(&last.page[..])) {
            leaf.slot += 1;
        }
    }

    /// Goes down and right to the next cell; false: there is none.
    fn settle(&mut self, file: &PageFile) -> Result<bool, Miss> {
        loop {
            let wanted = match self.path.last() {
                None => {
                    let Some(root) = self.roots.get(self.tree) else { return Ok(false) };
                    if root.page == PageNo::ZERO {
                        self.tree += 1;
                        continue;
                    }
                    (root.page, root.crc)
                }
                Some(last) if last.slot < slotted::count(&last.page) => {
                    if is_leaf(&last.page[..]) {
                        return Ok(true);
                    }
                    let (page, slot) = (&last.page, last.slot);
                    (slotted::child(page, slot), slotted::child_crc(page, slot))
                }
                Some(_) => {
                    self.path.pop();
                    match self.path.last_mut() {
                        Some(parent) => parent.slot += 1,
                        None => self.tree += 1,
                    }
                    continue;
                }
            };
            let page = self.load(file, wanted.0, wanted.1)?;
            if !is_leaf(&page[..]) {
                // What was read ahead and not come to lay below another branch.
                self.fetched.clear();
            }
            self.path.push(Level { page, slot: 0 });
        }
    }

    /// A page of the held root, as its image in the file says.
    fn load(&mut self, file: &PageFile, number: PageNo, crc: u32) -> Result<Box<Page>, Miss> {
        if let Some(page) = self.fetched.remove(&number) {
            return Ok(page);
        }
        let Some(page) = self.resident(file, number) else {
            return Err(Miss { page: number, pages: 1, crc, run_size: None });
        };
        let mut page = Box::new(*page);
        if !is_leaf(&page[..]) {
            // In memory a branch does not say the CRCs of its children.
            for slot in 0..slotted::count(&page) {
                let child = file.frames.crc(slotted::child(&page, slot));
                slotted::set_child_crc(&mut page, slot, child);
            }
        }
        Ok(page)
    }

    /// The page, if the present trees have it too and it is in memory: it cannot have changed, for a
    /// page of a checkpoint never does, and its number is not in other hands while it is held.
    fn resident<'f>(&self, file: &'f PageFile, number: PageNo) -> Option<&'f Page> {
        let frame = file.frames.find(number)?;
        let page = file.frames.page(frame);
        let same = birth(page) <= self.root && !file.frames.is_dirty(number);
        (same && !file.frames.is_gone(number)).then_some(page)
    }

    /// The last branch of the path.
    fn branch(&self) -> Option<&Level> {
        self.path.iter().rev().find(|level| !is_leaf(&level.page[..]))
    }

    /// The level of a page that comes next or was read ahead; none if it is neither.
    fn level_wanted(&self, number: PageNo) -> Option<u8> {
        let Some(branch) = self.branch() else {
            let root = self.roots.get(self.tree)?;
            return (root.page == number).then_some(root.height);
        };
        let slots = branch.slot..slotted::count(&branch.page);
        let mut pages = slots.map(|slot| slotted::child(&branch.page, slot));
        pages.any(|page| page == number).then(|| level(&branch.page[..]).saturating_sub(1))
    }

    /// Appends the next leaves that the walk will miss, as far as the branch above it tells, at most
    /// `count`: they can be read at the same time. Each is handed to [`HeldWalk::install`].
    pub fn ahead(&self, file: &PageFile, count: usize, misses: &mut Vec<Miss>) {
        let Some(branch) = self.branch().filter(|branch| level(&branch.page[..]) == 1) else {
            return;
        };
        let slots = branch.slot + 1..slotted::count(&branch.page);
        let missing = slots.filter_map(|slot| {
            let page = slotted::child(&branch.page, slot);
            let crc = slotted::child_crc(&branch.page, slot);
            let known = self.fetched.contains_key(&page) || self.resident(file, page).is_some();
            (!known).then_some(Miss { page, pages: 1, crc, run_size: None })
        });
        misses.extend(missing.take(count));
    }

    /// The bytes of the run of a cell that this walk has shown.
    ///
    /// # Errors
    ///
    /// They are not in memory. Only one run that was fetched is kept.
    pub fn run<'w>(&'w self, file: &'w PageFile, run: &Run) -> Result<&'w [u8], Miss> {
        match &self.run {
            Some((miss, bytes)) if *miss == run.miss() => {
                Ok(&bytes[RUN_HEADER_SIZE..RUN_HEADER_SIZE + wide(run.size)])
            }
            _ => file.run(run),
        }
    }

    /// Takes in the bytes that a miss of this walk asked for. They are not of use to anybody else: a
    /// miss of this walk is never handed to [`PageFile::install`]. A page that the walk has passed
    /// meanwhile is dropped without a word.
    ///
    /// # Errors
    ///
    /// They are not what the referrer describes: the file is damaged.
    pub fn install(&mut self, miss: Miss, bytes: &[u8]) -> Result<(), Damage> {
        let damage = |kind| Err(Damage::new(miss.page, kind));
        if bytes.len() != miss.size() {
            return damage(DamageKind::Short);
        }
        let expected = |kind, level| Expected {
            number: miss.page,
            birth_max: self.root,
            file: self.file,
            crc: miss.crc,
            kind,
            level,
        };
        if let Some(size) = miss.run_size {
            let content = RUN_HEADER_SIZE + wide(size);
            let Some(stored) = bytes.get(..content) else { return damage(DamageKind::Structure) };
            verify(stored, &expected(KIND_RUN, 0))?;
            if run_size(bytes) != size {
                return damage(DamageKind::Structure);
            }
            self.run = Some((miss, bytes.to_vec()));
            return Ok(());
        }
        let Some(level) = self.level_wanted(miss.page) else { return Ok(()) };
        let kind = if level == 0 { KIND_LEAF } else { KIND_BRANCH };
        verify(bytes, &expected(kind, level))?;
        let Ok(page) = <&Page>::try_from(bytes) else { return damage(DamageKind::Short) };
        if !slotted::validate(page) {
            return damage(DamageKind::Structure);
        }
        self.fetched.insert(miss.page, Box::new(*page));
        Ok(())
    }
}
