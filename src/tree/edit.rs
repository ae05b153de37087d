//! Changing trees: one descent, then edits in place on pages that may be changed, on copies of
//! others.
//!
//! A page that may be changed is referred to by pages that may be changed, so one look at the leaf
//! tells whether its whole path can be edited in place. Nothing here fails once the descent is
//! done: a miss can only come before the first change.
//!
//! A page that runs under a quarter full, by removals or by smaller cells in the place of greater
//! ones, merges with a neighbour below the same parent, if the neighbour is in memory and both fit
//! three quarters of a page. An empty one goes at once.

use alloc::vec::Vec;

use base::PageNo;
use base::limits::TREE_KEY_SIZE_MAX;

use crate::file::PageFile;
use crate::file::Root;
use crate::page::{KIND_BRANCH, KIND_LEAF, is_leaf, level};
use crate::read::DEPTH_MAX;
use crate::slotted::{self, CAPACITY, Item};
use crate::{CELL_SIZE_MAX, Cell, Miss, NewCell, Summary, TreeId};

/// Where a key is, or where it belongs. Valid until its tree changes or [`PageFile::evict`] drops
/// pages.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    tree: TreeId,
    /// Index of the leaf in `frames`: levels of branches above it.
    depth: usize,
    /// The tree has no page.
    empty: bool,
    found: bool,
    edits: u64,
    evictions: u64,
    frames: [u32; DEPTH_MAX],
    slots: [u16; DEPTH_MAX],
}

impl Place {
    /// Whether the key that was sought is there.
    #[must_use]
    pub fn found(&self) -> bool {
        self.found
    }

    fn slot(&self, depth: usize) -> usize {
        usize::from(self.slots[depth])
    }

    fn push(&mut self, depth: usize, frame: u32, slot: usize) {
        self.frames[depth] = frame;
        self.slots[depth] = crate::page::narrow(slot);
    }
}

impl PageFile {
    fn place(&self, tree: TreeId) -> Place {
        let root = self.root_of(tree);
        Place {
            tree,
            depth: usize::from(root.height),
            empty: root.page.is_none(),
            found: false,
            edits: root.edits,
            evictions: self.evictions,
            frames: [0; DEPTH_MAX],
            slots: [0; DEPTH_MAX],
        }
    }

    /// Descends to `key`, once: [`PageFile::cell_at`] and [`PageFile::put_at`] need no other
    /// descent.
    ///
    /// # Errors
    ///
    /// The leaf is not in memory.
    pub fn seek(&mut self, tree: TreeId, key: &[u8]) -> Result<Place, Miss> {
        let mut place = self.place(tree);
        let Some(mut number) = self.root_of(tree).page else { return Ok(place) };
        for depth in 0..place.depth {
            let frame = self.frame_of(number)?;
            let page = self.frames.page(frame);
            let slot = slotted::child_slot(page, key);
            place.push(depth, frame, slot);
            number = slotted::child(page, slot);
        }
        let frame = self.frame_of(number)?;
        self.frames.touch(frame);
        let (slot, found) = slotted::search(self.frames.page(frame), key);
        place.push(place.depth, frame, slot);
        place.found = found;
        Ok(place)
    }

    fn check_place(&self, place: &Place) {
        let edits = self.root_of(place.tree).edits;
        assert!(
            place.edits == edits && place.evictions == self.evictions,
            "a place of {:?} from edit {} is used at edit {edits}",
            place.tree,
            place.edits
        );
    }

    /// The cell at a place, if the key that was sought is there.
    #[must_use]
    pub fn cell_at(&self, place: &Place) -> Option<Cell<'_>> {
        self.check_place(place);
        place.found.then(|| {
            slotted::cell(self.frames.page(place.frames[place.depth]), place.slot(place.depth))
        })
    }

    /// Writes the cell of `key`, which is the key that `place` was sought with. A cell that was
    /// there is replaced; its run, if any, belongs to the caller again.
    pub fn put_at(&mut self, mut place: Place, key: &[u8], cell: &NewCell<'_>) {
        self.write(&mut place, key, cell);
    }

    /// [`PageFile::put_at`]; says whether the path is still that of `place`, its pages now changeable.
    fn write(&mut self, place: &mut Place, key: &[u8], cell: &NewCell<'_>) -> bool {
        self.check_place(place);
        assert!(
            key.len() <= TREE_KEY_SIZE_MAX && key.len() + cell.payload.len() <= CELL_SIZE_MAX,
            "a cell of {} + {} bytes",
            key.len(),
            cell.payload.len()
        );
        self.root_of_mut(place.tree).edits += 1;
        let new = Summary { count: u64::from(cell.counted), number_max: cell.number };
        let item = Item::Cell(cell);
        if place.empty {
            let (number, frame) = self.new_page(KIND_LEAF, 0);
            slotted::insert(self.frames.page_mut(frame), 0, key, &item);
            let root = self.root_of_mut(place.tree);
            (root.page, root.height, root.summary) = (Some(number), 0, new);
            return false;
        }
        let depth = place.depth;
        self.own_path(place, depth);
        let slot = place.slot(place.depth);
        let leaf = self.frames.page_mut(place.frames[place.depth]);
        let used = slotted::used(leaf);
        let mut old = Summary::default();
        let done = if place.found {
            old = slotted::cell_summary(leaf, slot);
            slotted::replace(leaf, slot, key, &item)
        } else if slotted::fits(leaf, key.len(), &item) {
            slotted::insert(leaf, slot, key, &item);
            true
        } else {
            false
        };
        if !done {
            if place.found {
                slotted::remove(leaf, slot);
            }
            self.split(place, slot, key, &item);
            return false;
        }
        self.adjust(place, place.depth, old, new);
        let shrunk = slotted::used(self.frames.page(place.frames[place.depth])) < used;
        if shrunk {
            self.merge_up(place, place.depth);
        }
        !shrunk
    }

    /// Writes the cell of `key`; what was there before is replaced, as in [`PageFile::put_at`].
    ///
    /// # Errors
    ///
    /// The leaf is not in memory; nothing has changed.
    pub fn put(&mut self, tree: TreeId, key: &[u8], cell: &NewCell<'_>) -> Result<(), Miss> {
        let mut place = match self.right_edge(tree, key) {
            Some(place) => place,
            None => self.seek(tree, key)?,
        };
        let same = self.write(&mut place, key, cell);
        self.edge = if same && self.is_right_edge(&place) {
            place.slots[place.depth] += 1;
            place.edits += 1;
            Some(place)
        } else {
            None
        };
        Ok(())
    }

    /// Where `key` belongs, if that is behind the last key of the tree, and the last write was there.
    #[inline]
    fn right_edge(&self, tree: TreeId, key: &[u8]) -> Option<Place> {
        let place = self.edge.filter(|place| {
            place.tree == tree
                && place.edits == self.root_of(tree).edits
                && place.evictions == self.evictions
        })?;
        let frame = place.frames[place.depth];
        let leaf = self.frames.page(frame);
        let last = slotted::key(leaf, slotted::count(leaf) - 1);
        (key > last).then(|| {
            self.frames.touch(frame);
            place
        })
    }

    /// Whether the last cell of the tree was written at `place`.
    fn is_right_edge(&self, place: &Place) -> bool {
        !place.found
            && (0..=place.depth).all(|depth| {
                let cells = slotted::count(self.frames.page(place.frames[depth]));
                place.slot(depth) + 1 == cells
            })
    }

    /// Makes the pages of a path changeable, from the root to `depth`.
    #[inline]
    fn own_path(&mut self, place: &mut Place, depth: usize) {
        if self.is_own(place.frames[depth]) {
            return;
        }
        for at in 0..=depth {
            if self.is_own(place.frames[at]) {
                continue;
            }
            let (number, frame) = self.copy_page(place.frames[at]);
            place.frames[at] = frame;
            if at == 0 {
                self.root_of_mut(place.tree).page = Some(number);
            } else {
                let parent = self.frames.page_mut(place.frames[at - 1]);
                slotted::set_child(parent, place.slot(at - 1), number);
            }
        }
    }

    /// Tells the branches of a path, whose pages may be changed, that `old` went and `new` came in
    /// the page at `depth`. Exact also where the greatest number went.
    #[inline]
    fn adjust(&mut self, place: &Place, depth: usize, old: Summary, new: Summary) {
        for at in (0..=depth).rev() {
            let before = if at == 0 {
                self.root_of(place.tree).summary
            } else {
                slotted::child_summary(self.frames.page(place.frames[at - 1]), place.slot(at - 1))
            };
            let number_max =
                if old.number_max == before.number_max && new.number_max < old.number_max {
                    slotted::number_max(self.frames.page(place.frames[at]), old.number_max)
                } else {
                    before.number_max.max(new.number_max)
                };
            let count = before.count.wrapping_add(new.count).wrapping_sub(old.count);
            let after = Summary { count, number_max };
            if after == before {
                continue;
            }
            if at == 0 {
                self.root_of_mut(place.tree).summary = after;
            } else {
                let parent = self.frames.page_mut(place.frames[at - 1]);
                slotted::set_child_summary(parent, place.slot(at - 1), after);
            }
        }
    }

    /// Puts an item into slot `slot` of the leaf of a path, which has no room for it: the leaf is
    /// cut in two, and its parents as far as need be.
    #[cold]
    fn split(&mut self, place: &Place, slot: usize, key: &[u8], item: &Item<'_>) {
        let mut depth = place.depth;
        let mut cut = self.cut(place.frames[depth], slot, key, item);
        while depth > 0 {
            depth -= 1;
            let (frame, slot) = (place.frames[depth], place.slot(depth));
            let branch = self.frames.page_mut(frame);
            slotted::set_child_summary(branch, slot, cut.left);
            let child = Item::Child(cut.number, cut.right);
            if slotted::fits(branch, cut.separator.len(), &child) {
                slotted::insert(branch, slot + 1, &cut.separator, &child);
                let new = slotted::summary(branch);
                let old = self.entry(place, depth);
                self.adjust(place, depth, old, new);
                return;
            }
            cut = self.cut(frame, slot + 1, &cut.separator, &child);
        }
        let root = *self.root_of(place.tree);
        let height = root.height + 1;
        assert!(usize::from(height) < DEPTH_MAX, "a tree of {height} levels");
        let (number, frame) = self.new_page(KIND_BRANCH, height);
        let left = root.page.expect("a tree with a path has a root");
        let page = self.frames.page_mut(frame);
        slotted::insert(page, 0, &[], &Item::Child(left, cut.left));
        slotted::insert(page, 1, &cut.separator, &Item::Child(cut.number, cut.right));
        let root = self.root_of_mut(place.tree);
        (root.page, root.height) = (Some(number), height);
        root.summary = cut.left.and(cut.right);
    }

    /// What the parent, or the root, says of the page at `depth` of a path.
    fn entry(&self, place: &Place, depth: usize) -> Summary {
        match depth.checked_sub(1) {
            Some(above) => {
                slotted::child_summary(self.frames.page(place.frames[above]), place.slot(above))
            }
            None => self.root_of(place.tree).summary,
        }
    }

    /// Cuts a page in two so that `item` has room in slot `slot`, and puts it there.
    fn cut(&mut self, frame: u32, slot: usize, key: &[u8], item: &Item<'_>) -> Cut {
        let page = self.frames.page(frame);
        let (leaf, page_level) = (is_leaf(page), level(page));
        let (from, goes_right) = slotted::split_point(page, slot, key.len(), item);
        let (number, right_frame) =
            self.new_page(if leaf { KIND_LEAF } else { KIND_BRANCH }, page_level);
        let (right, page) = self.frames.pair_mut(right_frame, frame);
        let separator;
        if goes_right && slot == from {
            // The item becomes the first of the right page.
            if leaf {
                separator = slotted::separator(slotted::key(page, from - 1), key).to_vec();
                slotted::insert(right, 0, key, item);
            } else {
                separator = key.to_vec();
                slotted::insert(right, 0, &[], item);
            }
            slotted::split_off(page, from, right);
        } else {
            let first = slotted::key(page, from);
            // The item may be the last of the left page.
            let last = if slot == from { key } else { slotted::key(page, from - 1) };
            let short = if leaf { slotted::separator(last, first) } else { first };
            separator = short.to_vec();
            slotted::split_off(page, from, right);
            if goes_right {
                slotted::insert(right, slot - from, key, item);
            } else {
                slotted::insert(page, slot, key, item);
            }
        }
        let (left, right_summary) = (slotted::summary(page), slotted::summary(right));
        Cut { separator, number, left, right: right_summary }
    }

    /// Removes the cell of `key`, if there is one, and says whether. Its run, if any, belongs to
    /// the caller again.
    ///
    /// # Errors
    ///
    /// The leaf is not in memory; nothing has changed.
    pub fn remove(&mut self, tree: TreeId, key: &[u8]) -> Result<bool, Miss> {
        let mut place = self.seek(tree, key)?;
        if !place.found {
            return Ok(false);
        }
        self.root_of_mut(tree).edits += 1;
        let depth = place.depth;
        self.own_path(&mut place, depth);
        let slot = place.slot(place.depth);
        let leaf = self.frames.page_mut(place.frames[place.depth]);
        let old = slotted::cell_summary(leaf, slot);
        slotted::remove(leaf, slot);
        self.shrink(&place, place.depth, old);
        Ok(true)
    }

    /// Cells that sum up to `old` went from the page at `depth` of a path: empty pages go, small
    /// ones merge.
    fn shrink(&mut self, place: &Place, mut depth: usize, old: Summary) {
        let tree = place.tree;
        while slotted::count(self.frames.page(place.frames[depth])) == 0 {
            self.retire(self.frames.number(place.frames[depth]));
            let Some(above) = depth.checked_sub(1) else {
                let edits = self.root_of(tree).edits;
                *self.root_of_mut(tree) = Root { edits, ..Root::default() };
                return;
            };
            slotted::remove(self.frames.page_mut(place.frames[above]), place.slot(above));
            depth = above;
        }
        self.adjust(place, depth, old, Summary::default());
        self.merge_up(place, depth);
    }

    /// Merges small pages of a path, from the one at `depth` up.
    #[inline]
    fn merge_up(&mut self, place: &Place, mut depth: usize) {
        while depth > 0 && self.merge(place, depth) {
            depth -= 1;
        }
        self.lower_root(place.tree);
    }

    /// Merges the page at `depth` of a path with a neighbour if it is small and both fit.
    fn merge(&mut self, place: &Place, depth: usize) -> bool {
        if slotted::used(self.frames.page(place.frames[depth])) >= CAPACITY / 4 {
            return false;
        }
        let (parent, slot) = (place.frames[depth - 1], place.slot(depth - 1));
        let children = slotted::count(self.frames.page(parent));
        let fits = |left: usize| {
            let page = self.frames.page(parent);
            let find = |slot: usize| self.frames.find(slotted::child(page, slot));
            let (a, b) = (find(left)?, find(left + 1)?);
            let size = slotted::used(self.frames.page(a))
                + slotted::append_size(self.frames.page(b), slotted::key(page, left + 1));
            (size <= CAPACITY / 4 * 3).then_some((left, a, b))
        };
        let right = if slot + 1 < children { fits(slot) } else { None };
        let Some((left, mut a, b)) = right.or_else(|| slot.checked_sub(1).and_then(fits)) else {
            return false;
        };
        if !self.is_own(a) {
            let (number, frame) = self.copy_page(a);
            slotted::set_child(self.frames.page_mut(parent), left, number);
            a = frame;
        }
        let branch = self.frames.page(parent);
        let sum =
            slotted::child_summary(branch, left).and(slotted::child_summary(branch, left + 1));
        let separator = slotted::key(branch, left + 1).to_vec();
        let (target, source) = self.frames.pair_mut(a, b);
        slotted::append_all(target, source, &separator);
        self.retire(self.frames.number(b));
        let branch = self.frames.page_mut(parent);
        slotted::remove(branch, left + 1);
        slotted::set_child_summary(branch, left, sum);
        true
    }

    /// A root with one child gives way to it.
    fn lower_root(&mut self, tree: TreeId) {
        while let root = *self.root_of(tree)
            && root.height > 0
            && let Some(number) = root.page
            && let Some(frame) = self.frames.find(number)
            && slotted::count(self.frames.page(frame)) == 1
        {
            let child = slotted::child(self.frames.page(frame), 0);
            self.retire(number);
            let root = self.root_of_mut(tree);
            root.page = Some(child);
            root.height -= 1;
        }
    }

    /// Drops every cell below `end`, whole leaves without looking into them: the caller knows that
    /// no cell there owns a run, or has dealt with them. At most `leaves_max` leaves go in one
    /// call. True: nothing is left below `end`.
    ///
    /// # Errors
    ///
    /// The leaf that `end` falls into is not in memory; nothing has changed in this call.
    pub fn drop_front(&mut self, tree: TreeId, end: &[u8], leaves_max: u32) -> Result<bool, Miss> {
        let mut budget = crate::page::wide(leaves_max);
        let mut changed = false;
        loop {
            let root = *self.root_of(tree);
            let Some(mut number) = root.page else { return Ok(true) };
            if end.is_empty() {
                return Ok(true);
            }
            // The left edge, down to the branch above the leaves; `bound` is what ends it on the
            // right.
            let mut place = self.place(tree);
            let mut bound: Option<Vec<u8>> = None;
            let mut gone = 0;
            let mut more = false;
            for depth in 0..place.depth {
                let frame = self.frame_of(number)?;
                let page = self.frames.page(frame);
                place.push(depth, frame, 0);
                let children = slotted::count(page);
                if depth + 1 < place.depth {
                    if children > 1 {
                        bound = Some(slotted::key(page, 1).to_vec());
                    }
                } else {
                    let below = |slot: usize| match &bound {
                        _ if slot + 1 < children => slotted::key(page, slot + 1) <= end,
                        Some(bound) => bound.as_slice() <= end,
                        None => false,
                    };
                    gone = (0..children).take_while(|slot| below(*slot)).count();
                    more = gone > budget;
                    gone = gone.min(budget);
                }
                number = slotted::child(page, 0);
            }
            if gone == 0 && more {
                return Ok(false);
            }
            if gone > 0 {
                budget -= gone;
                changed = true;
                self.root_of_mut(tree).edits += 1;
                let depth = place.depth - 1;
                self.own_path(&mut place, depth);
                let mut old = Summary::default();
                for slot in 0..gone {
                    let branch = self.frames.page(place.frames[depth]);
                    old = old.and(slotted::child_summary(branch, slot));
                    let child = slotted::child(branch, slot);
                    self.retire(child);
                }
                slotted::remove_range(self.frames.page_mut(place.frames[depth]), 0, gone);
                self.shrink(&place, depth, old);
                continue;
            }
            // No whole leaf is left: the first one is the boundary.
            let Some(frame) = self.frames.find(number) else {
                return if changed { Ok(false) } else { self.frame_of(number).map(|_| false) };
            };
            let leaf = self.frames.page(frame);
            let (slots, _) = slotted::search(leaf, end);
            if slots == 0 {
                return Ok(true);
            }
            let old = (0..slots)
                .fold(Summary::default(), |sum, slot| sum.and(slotted::cell_summary(leaf, slot)));
            place.push(place.depth, frame, 0);
            self.root_of_mut(tree).edits += 1;
            let depth = place.depth;
            self.own_path(&mut place, depth);
            slotted::remove_range(self.frames.page_mut(place.frames[place.depth]), 0, slots);
            self.shrink(&place, place.depth, old);
            return Ok(true);
        }
    }
}

/// The outcome of cutting a page in two.
struct Cut {
    separator: Vec<u8>,
    /// The new page, the right one.
    number: PageNo,
    left: Summary,
    right: Summary,
}
