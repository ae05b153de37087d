//! The inside of a page: slots in key order, cells behind them. Leaves and branches share it.
//!
//! ```text
//! | header 48 | slot 0 | slot 1 | ... |  free gap  | cells, in any order, some bytes dead |
//!
//! slot, 8 bytes:  offset of the cell u16
//!                 key size u16: 12 bits, then the flags counted and run
//!                 head u32: the four key bytes behind the common prefix, big endian
//! ```
//!
//! The heads are searched without branches, and one cell is touched to verify the outcome. Cells
//! keep whole keys; the common prefix only says where heads begin, so it may be shorter than it
//! could be. The first slot of a branch stands for everything below the second one: its key is
//! empty and takes no part in the prefix.
//!
//! Nothing here may panic for a page that [`validate`] has accepted, whatever its cells say.

use core::cmp::Ordering;
use core::hint::select_unpredictable;

use base::PageNo;
use base::limits::{PAGE_SIZE, TREE_KEY_SIZE_MAX};

use crate::cell::{Cell, NewCell, RUN_SIZE, Run, Summary};
use crate::page::{
    HEADER_SIZE, KIND_BRANCH, Page, is_leaf, put_u16, put_u32, put_u64, set_kind, u16_at, u32_at,
    u64_at,
};

const COUNT: usize = 34;
const LOWEST: usize = 36;
const DEAD: usize = 38;
const PREFIX: usize = 40;

const SLOT_SIZE: usize = 8;
const LEAF_FIXED: usize = 10;
const BRANCH_FIXED: usize = 24;

const KEY_MASK: usize = 0x0FFF;
const COUNTED: usize = 0x1000;
const RUN: usize = 0x2000;

/// Bytes for slots and cells.
pub(crate) const CAPACITY: usize = PAGE_SIZE - HEADER_SIZE;

const _: () = assert!(TREE_KEY_SIZE_MAX <= KEY_MASK, "a key size fits its twelve bits");
const _: () = assert!(
    2 * (crate::CELL_SIZE_MAX + LEAF_FIXED + RUN_SIZE + SLOT_SIZE) <= CAPACITY,
    "two greatest cells fit a leaf, so that every split succeeds"
);
const _: () = assert!(
    3 * (TREE_KEY_SIZE_MAX + BRANCH_FIXED + SLOT_SIZE) <= CAPACITY,
    "three greatest separators fit a branch, so that every split succeeds"
);

/// Empties a page and makes it a leaf (level 0) or a branch.
pub(crate) fn init(page: &mut Page, kind: u8, level: u8) {
    page[32..HEADER_SIZE].fill(0);
    set_kind(page, kind, level);
    put_u16(page, LOWEST, PAGE_SIZE);
}

#[inline(always)]
pub(crate) fn count(page: &Page) -> usize {
    u16_at(page, COUNT)
}

#[inline(always)]
fn slot_at(index: usize) -> usize {
    HEADER_SIZE + index * SLOT_SIZE
}

#[inline(always)]
fn cell_at(page: &Page, index: usize) -> usize {
    u16_at(page, slot_at(index))
}

#[inline(always)]
fn key_word(page: &Page, index: usize) -> usize {
    u16_at(page, slot_at(index) + 2)
}

#[inline(always)]
fn head_at(page: &Page, index: usize) -> u32 {
    u32_at(page, slot_at(index) + 4)
}

#[inline(always)]
fn fixed_size(page: &Page, word: usize) -> usize {
    if !is_leaf(page) {
        BRANCH_FIXED
    } else if word & RUN != 0 {
        LEAF_FIXED + RUN_SIZE
    } else {
        LEAF_FIXED
    }
}

/// The key in slot `index`.
#[inline(always)]
pub(crate) fn key(page: &Page, index: usize) -> &[u8] {
    let word = key_word(page, index);
    let at = cell_at(page, index) + fixed_size(page, word);
    &page[at..at + (word & KEY_MASK)]
}

fn cell_size(page: &Page, index: usize) -> usize {
    let word = key_word(page, index);
    let payload = if is_leaf(page) { u16_at(page, cell_at(page, index) + 8) } else { 0 };
    fixed_size(page, word) + (word & KEY_MASK) + payload
}

/// Bytes between slots and cells.
#[inline(always)]
fn gap(page: &Page) -> usize {
    u16_at(page, LOWEST) - slot_at(count(page))
}

/// Bytes that cells and slots use.
pub(crate) fn used(page: &Page) -> usize {
    CAPACITY - gap(page) - u16_at(page, DEAD)
}

/// The first slot whose key takes part in the order: branches leave their first one out.
#[inline(always)]
fn first_slot(page: &Page) -> usize {
    usize::from(!is_leaf(page))
}

#[inline(always)]
fn head_of(rest: &[u8]) -> u32 {
    if let Some(four) = rest.first_chunk::<4>() {
        return u32::from_be_bytes(*four);
    }
    let mut four = [0; 4];
    four[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(four)
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first slot from `first` on, of which there is one at least before `end`, whose head is not below
/// `head`, or `end`.
#[inline(always)]
fn first_at_least(page: &Page, first: usize, end: usize, head: u32) -> usize {
    let (mut base, mut size) = (first, end - first);
    while size > 1 {
        let half = size / 2;
        base = select_unpredictable(head_at(page, base + half) < head, base + half, base);
        size -= half;
    }
    base + usize::from(head_at(page, base) < head)
}

/// The slot of `key` and true, or the slot where it belongs and false.
#[inline]
pub(crate) fn search(page: &Page, key_sought: &[u8]) -> (usize, bool) {
    let (first, end) = (first_slot(page), count(page));
    if end <= first {
        return (end, false);
    }
    let prefix = u16_at(page, PREFIX);
    let head = head_of(key_sought.get(prefix..).unwrap_or(&[]));
    let at = first_at_least(page, first, end, head);
    let same_head = at < end && head_at(page, at) == head;
    if same_head && key(page, at) == key_sought {
        return (at, true);
    }
    let candidate = key(page, at.min(end - 1));
    // The heads mean something only if the key shares the prefix, which every cell can tell.
    let shared = prefix.min(key_sought.len());
    match key_sought[..shared].cmp(&candidate[..shared]) {
        Ordering::Less => return (first, false),
        Ordering::Greater => return (end, false),
        Ordering::Equal if key_sought.len() < prefix => return (first, false),
        Ordering::Equal => {}
    }
    if !same_head || candidate > key_sought {
        return (at, false);
    }
    // Several cells may have this head: order them by their whole keys.
    let (mut low, mut high) = (at + 1, end);
    while low < high {
        let middle = low.midpoint(high);
        let order = match head_at(page, middle).cmp(&head) {
            Ordering::Equal => key(page, middle).cmp(key_sought),
            other => other,
        };
        match order {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return (middle, true),
            Ordering::Greater => high = middle,
        }
    }
    (low, false)
}

/// The slot near which `key` belongs, by the heads alone: right for almost every key, and without a
/// look at any cell. The page is not empty.
#[inline]
pub(crate) fn search_heads(page: &Page, key_sought: &[u8]) -> usize {
    let (first, end) = (first_slot(page), count(page));
    if end <= first {
        return 0;
    }
    let head = head_of(key_sought.get(u16_at(page, PREFIX)..).unwrap_or(&[]));
    first_at_least(page, first, end, head).min(end - 1)
}

/// The bytes of the cell in slot `index` and what follows it.
#[inline]
pub(crate) fn cell_bytes(page: &Page, index: usize) -> &[u8] {
    &page[cell_at(page, index)..]
}

/// The slot of the child that covers `key`. The branch has a child at least.
#[inline]
pub(crate) fn child_slot(page: &Page, key_sought: &[u8]) -> usize {
    let (at, found) = search(page, key_sought);
    if found { at } else { at.max(1) - 1 }
}

/// The cell in slot `index` of a leaf.
#[inline]
pub(crate) fn cell(page: &Page, index: usize) -> Cell<'_> {
    let word = key_word(page, index);
    let at = cell_at(page, index);
    let payload_size = u16_at(page, at + 8);
    let has_run = word & RUN != 0;
    let key_from = at + LEAF_FIXED + if has_run { RUN_SIZE } else { 0 };
    let payload_from = key_from + (word & KEY_MASK);
    Cell {
        key: &page[key_from..payload_from],
        counted: word & COUNTED != 0,
        number: u64_at(page, at),
        payload: &page[payload_from..payload_from + payload_size],
        run: has_run.then(|| Run::decode(&page[at + LEAF_FIXED..key_from])),
    }
}

/// What the parent must know of a cell: cheaper than the cell.
#[inline]
pub(crate) fn cell_summary(page: &Page, index: usize) -> Summary {
    let counted = key_word(page, index) & COUNTED != 0;
    Summary { count: u64::from(counted), number_max: u64_at(page, cell_at(page, index)) }
}

/// Counted cells in the slots before `end` of a leaf.
pub(crate) fn counted_before(page: &Page, end: usize) -> u64 {
    (0..end).map(|index| u64::from(key_word(page, index) & COUNTED != 0)).sum()
}

/// The child in slot `index` of a branch.
#[inline(always)]
pub(crate) fn child(page: &Page, index: usize) -> PageNo {
    PageNo::new(u32_at(page, cell_at(page, index)))
}

/// The CRC of the child as the page says it: right in a page that came from the file.
pub(crate) fn child_crc(page: &Page, index: usize) -> u32 {
    u32_at(page, cell_at(page, index) + 4)
}

#[inline]
pub(crate) fn child_summary(page: &Page, index: usize) -> Summary {
    let at = cell_at(page, index);
    Summary { count: u64_at(page, at + 8), number_max: u64_at(page, at + 16) }
}

pub(crate) fn set_child(page: &mut Page, index: usize, child: PageNo) {
    let at = cell_at(page, index);
    put_u32(page, at, child.get());
}

pub(crate) fn set_child_crc(page: &mut Page, index: usize, crc: u32) {
    let at = cell_at(page, index);
    put_u32(page, at + 4, crc);
}

#[inline]
pub(crate) fn set_child_summary(page: &mut Page, index: usize, summary: Summary) {
    let at = cell_at(page, index);
    put_u64(page, at + 8, summary.count);
    put_u64(page, at + 16, summary.number_max);
}

/// The summary of a whole page.
pub(crate) fn summary(page: &Page) -> Summary {
    let of = if is_leaf(page) { cell_summary } else { child_summary };
    (0..count(page)).fold(Summary::default(), |sum, index| sum.and(of(page, index)))
}

/// The greatest number in a page that has none above `bound`. One of that size ends the search, which
/// begins at the back: what goes in key order goes from the front.
pub(crate) fn number_max(page: &Page, bound: u64) -> u64 {
    let of = if is_leaf(page) { cell_summary } else { child_summary };
    let mut greatest = 0;
    for index in (0..count(page)).rev() {
        greatest = of(page, index).number_max.max(greatest);
        if greatest >= bound {
            break;
        }
    }
    greatest
}

/// What goes into a slot.
#[derive(Clone, Copy)]
pub(crate) enum Item<'a> {
    Cell(&'a NewCell<'a>),
    Child(PageNo, Summary),
}

impl Item<'_> {
    /// Bytes of the cell for a key of this size, without its slot.
    fn size(&self, key_size: usize) -> usize {
        match self {
            Item::Cell(cell) => {
                let run = if cell.run.is_some() { RUN_SIZE } else { 0 };
                LEAF_FIXED + run + key_size + cell.payload.len()
            }
            Item::Child(..) => BRANCH_FIXED + key_size,
        }
    }

    fn word(&self, key_size: usize) -> usize {
        match self {
            Item::Cell(cell) => {
                let counted = if cell.counted { COUNTED } else { 0 };
                key_size | counted | if cell.run.is_some() { RUN } else { 0 }
            }
            Item::Child(..) => key_size,
        }
    }

    #[inline]
    fn write(&self, page: &mut Page, at: usize, key: &[u8]) {
        match self {
            Item::Cell(cell) => {
                put_u64(page, at, cell.number);
                put_u16(page, at + 8, cell.payload.len());
                let mut next = at + LEAF_FIXED;
                if let Some(run) = cell.run {
                    run.encode(&mut page[next..next + RUN_SIZE]);
                    next += RUN_SIZE;
                }
                page[next..next + key.len()].copy_from_slice(key);
                next += key.len();
                page[next..next + cell.payload.len()].copy_from_slice(cell.payload);
            }
            Item::Child(child, summary) => {
                put_u32(page, at, child.get());
                put_u32(page, at + 4, 0);
                put_u64(page, at + 8, summary.count);
                put_u64(page, at + 16, summary.number_max);
                page[at + BRANCH_FIXED..at + BRANCH_FIXED + key.len()].copy_from_slice(key);
            }
        }
    }
}

/// Whether an item fits, perhaps after compaction.
#[inline]
pub(crate) fn fits(page: &Page, key_size: usize, item: &Item<'_>) -> bool {
    item.size(key_size) + SLOT_SIZE <= gap(page) + u16_at(page, DEAD)
}

/// Puts an item that fits into a new slot `index`.
pub(crate) fn insert(page: &mut Page, index: usize, key_new: &[u8], item: &Item<'_>) {
    let size = item.size(key_new.len());
    if gap(page) < size + SLOT_SIZE {
        compact(page);
    }
    let (first, end) = (first_slot(page), count(page));
    let orders = index >= first;
    let mut prefix = u16_at(page, PREFIX);
    let mut heads_change = false;
    if orders {
        if end <= first {
            prefix = key_new.len();
        } else {
            let neighbour = key(page, index.max(first + 1) - 1);
            let shared = common(&neighbour[..prefix], key_new);
            heads_change = shared < prefix;
            prefix = shared;
        }
        put_u16(page, PREFIX, prefix);
    }
    let at = u16_at(page, LOWEST) - size;
    page.copy_within(slot_at(index)..slot_at(end), slot_at(index + 1));
    put_u16(page, COUNT, end + 1);
    put_u16(page, LOWEST, at);
    let slot = slot_at(index);
    put_u16(page, slot, at);
    put_u16(page, slot + 2, item.word(key_new.len()));
    put_u32(page, slot + 4, if orders { head_of(&key_new[prefix..]) } else { 0 });
    item.write(page, at, key_new);
    if heads_change {
        rebuild_heads(page);
    }
}

/// Replaces the item in slot `index`, which has this key, if the new one fits.
#[inline]
pub(crate) fn replace(page: &mut Page, index: usize, key: &[u8], item: &Item<'_>) -> bool {
    let (old, new) = (cell_size(page, index), item.size(key.len()));
    let dead = u16_at(page, DEAD);
    let at = if new <= old {
        put_u16(page, DEAD, dead + old - new);
        cell_at(page, index)
    } else if new <= gap(page) {
        let at = u16_at(page, LOWEST) - new;
        put_u16(page, DEAD, dead + old);
        put_u16(page, LOWEST, at);
        at
    } else if new <= gap(page) + dead + old {
        remove(page, index);
        insert(page, index, key, item);
        return true;
    } else {
        return false;
    };
    let slot = slot_at(index);
    put_u16(page, slot, at);
    put_u16(page, slot + 2, item.word(key.len()));
    item.write(page, at, key);
    true
}

/// Removes slot `index`.
pub(crate) fn remove(page: &mut Page, index: usize) {
    remove_range(page, index, index + 1);
}

/// Removes the slots from `from` to, but without, `to`. A branch whose first slot goes gets its
/// next one as the first.
pub(crate) fn remove_range(page: &mut Page, from: usize, to: usize) {
    let end = count(page);
    let freed: usize = (from..to).map(|index| cell_size(page, index)).sum();
    page.copy_within(slot_at(to)..slot_at(end), slot_at(from));
    let left = end - (to - from);
    put_u16(page, COUNT, left);
    let dead = u16_at(page, DEAD) + freed;
    put_u16(page, DEAD, dead);
    if left == 0 {
        put_u16(page, LOWEST, PAGE_SIZE);
        put_u16(page, DEAD, 0);
    } else if from == 0 {
        clear_first_separator(page);
    }
    if left <= first_slot(page) {
        put_u16(page, PREFIX, 0);
    }
}

/// The first child of a branch covers everything below the second: its separator goes.
fn clear_first_separator(page: &mut Page) {
    if is_leaf(page) {
        return;
    }
    let size = key_word(page, 0) & KEY_MASK;
    put_u16(page, slot_at(0) + 2, 0);
    put_u32(page, slot_at(0) + 4, 0);
    let dead = u16_at(page, DEAD);
    put_u16(page, DEAD, dead + size);
}

/// Moves the slots from `from` on behind those of `target`, a page of the same kind with at most
/// one slot. An empty branch takes the first moved child without its separator: the caller has read
/// it before.
pub(crate) fn split_off(page: &mut Page, from: usize, target: &mut Page) {
    let (end, first_moves) = (count(page), count(target) == 0);
    copy_slots(page, from, target);
    let freed: usize = (from..end).map(|index| cell_size(page, index)).sum();
    put_u16(page, COUNT, from);
    let dead = u16_at(page, DEAD);
    put_u16(page, DEAD, dead + freed);
    if first_moves {
        clear_first_separator(target);
    }
    // Appending leaves the left page as it was.
    if from < end {
        retune_prefix(page);
        retune_prefix(target);
    }
}

/// Appends all slots of `source` to `page`, where they fit. `separator`: what the parent says of
/// `source`, which a branch's first slot gets back as its key.
pub(crate) fn append_all(page: &mut Page, source: &Page, separator: &[u8]) {
    if is_leaf(page) {
        copy_slots(source, 0, page);
    } else {
        let item = Item::Child(child(source, 0), child_summary(source, 0));
        let end = count(page);
        insert(page, end, separator, &item);
        copy_slots(source, 1, page);
    }
    retune_prefix(page);
}

/// Bytes that [`append_all`] needs.
pub(crate) fn append_size(source: &Page, separator: &[u8]) -> usize {
    used(source) + if is_leaf(source) { 0 } else { separator.len() }
}

/// Copies the slots from `from` on behind those of `target`, heads left wrong.
fn copy_slots(source: &Page, from: usize, target: &mut Page) {
    let end = count(source);
    let size: usize = (from..end).map(|index| cell_size(source, index) + SLOT_SIZE).sum();
    if gap(target) < size {
        compact(target);
    }
    let mut lowest = u16_at(target, LOWEST);
    let mut next = count(target);
    for index in from..end {
        let (at, size) = (cell_at(source, index), cell_size(source, index));
        lowest -= size;
        target[lowest..lowest + size].copy_from_slice(&source[at..at + size]);
        let slot = slot_at(next);
        put_u16(target, slot, lowest);
        put_u16(target, slot + 2, key_word(source, index));
        next += 1;
    }
    put_u16(target, COUNT, next);
    put_u16(target, LOWEST, lowest);
}

/// Finds the common prefix anew, by the first and the last key, and all heads with it.
fn retune_prefix(page: &mut Page) {
    let (first, end) = (first_slot(page), count(page));
    let prefix = if end <= first { 0 } else { common(key(page, first), key(page, end - 1)) };
    put_u16(page, PREFIX, prefix);
    rebuild_heads(page);
}

fn rebuild_heads(page: &mut Page) {
    let prefix = u16_at(page, PREFIX);
    for index in first_slot(page)..count(page) {
        let head = head_of(&key(page, index)[prefix..]);
        put_u32(page, slot_at(index) + 4, head);
    }
}

/// Closes the gaps that dead bytes make.
fn compact(page: &mut Page) {
    let mut packed: Page = [0; PAGE_SIZE];
    let mut lowest = PAGE_SIZE;
    for index in 0..count(page) {
        let (at, size) = (cell_at(page, index), cell_size(page, index));
        lowest -= size;
        packed[lowest..lowest + size].copy_from_slice(&page[at..at + size]);
        put_u16(page, slot_at(index), lowest);
    }
    page[lowest..].copy_from_slice(&packed[lowest..]);
    put_u16(page, LOWEST, lowest);
    put_u16(page, DEAD, 0);
}

/// Where a page is cut so that `item`, which goes to slot `index`, fits one side: the first slot
/// that moves to the right page, and whether the item goes there too.
///
/// At the right edge only the new item moves: appended keys leave full pages behind.
pub(crate) fn split_point(
    page: &Page,
    index: usize,
    key_size: usize,
    item: &Item<'_>,
) -> (usize, bool) {
    let end = count(page);
    if index == end {
        return (end, true);
    }
    let new = item.size(key_size) + SLOT_SIZE;
    let total = used(page) + new;
    let (mut left, mut best, mut best_side) = (0, (1, true), usize::MAX);
    // Cut behind each of the items in turn, the new one among them.
    for cut in 1..=end {
        let taken = cut - 1;
        left += match taken.cmp(&index) {
            Ordering::Less => cell_size(page, taken) + SLOT_SIZE,
            Ordering::Equal => new,
            Ordering::Greater => cell_size(page, taken - 1) + SLOT_SIZE,
        };
        let side = left.max(total - left);
        if side < best_side {
            best_side = side;
            best = if index < cut { (cut - 1, false) } else { (cut, true) };
        }
    }
    best
}

/// The shortest key that is greater than `left` and at most `right`.
pub(crate) fn separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    &right[..(common(left, right) + 1).min(right.len())]
}

/// Whether a page that came from the file can be used without a panic: bounds and sums, not order.
pub(crate) fn validate(page: &Page) -> bool {
    let (first, end) = (first_slot(page), count(page));
    let (lowest, dead, prefix) = (u16_at(page, LOWEST), u16_at(page, DEAD), u16_at(page, PREFIX));
    if end == 0 || slot_at(end) > lowest || lowest > PAGE_SIZE {
        return false;
    }
    let branch = page[32] == KIND_BRANCH;
    let mut sum = dead;
    for index in 0..end {
        let (at, word) = (cell_at(page, index), key_word(page, index));
        let fixed = fixed_size(page, word);
        if at < lowest || at + fixed > PAGE_SIZE || word & !(KEY_MASK | COUNTED | RUN) != 0 {
            return false;
        }
        let (size, key_size) = (cell_size(page, index), word & KEY_MASK);
        if at + size > PAGE_SIZE || key_size > TREE_KEY_SIZE_MAX {
            return false;
        }
        if branch && (word & (COUNTED | RUN) != 0 || (index == 0 && key_size != 0)) {
            return false;
        }
        if index >= first && key_size < prefix {
            return false;
        }
        sum += size;
    }
    sum == PAGE_SIZE - lowest && (end > first || prefix == 0)
}

/// Whether the keys ascend, the heads are right and all lie in `from..to`.
pub(crate) fn ordered(page: &Page, from: &[u8], to: Option<&[u8]>) -> bool {
    let (first, end) = (first_slot(page), count(page));
    let prefix = u16_at(page, PREFIX);
    for index in first..end {
        let this = key(page, index);
        let above = if index == first { this >= from } else { this > key(page, index - 1) };
        let shares = this[..prefix] == key(page, first)[..prefix];
        if !above || !shares || head_at(page, index) != head_of(&this[prefix..]) {
            return false;
        }
    }
    match to {
        Some(to) if end > first => key(page, end - 1) < to,
        _ => true,
    }
}

const _: () = assert!(PAGE_SIZE <= 0xFFFF, "offsets within a page fit 16 bits");
