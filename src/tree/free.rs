//! Which pages of the file may be handed out: a bitmap, and lists of pages that wait.
//!
//! ```text
//! page   in use --retire--> free            if no plan included it: its birth is the root in work
//!        in use --retire--> waiting, stamp s  otherwise; s: the first plan without it
//!        waiting, stamp s --published n--> free   once n >= s + 1 and no held root reaches it
//!        waiting, stamp s --published n--> held   once n >= s + 1 and one does
//!        held --released--> free                  once none does any more
//! ```
//!
//! Why nothing that a selectable meta slot reaches is ever reused. Two slots are written in turn,
//! one plan at a time, and a plan begins only when the one before is published. A page with stamp s
//! is reached by plans below s only. When plan n >= s + 1 is published, the slots hold n and a plan
//! m, the one published before it, and n > m >= s unless m is a slot that recovery refused (see
//! below); so neither reaches the page. While plan n + 1 is being written, one slot still holds n,
//! the other is m or torn.
//!
//! Why nothing is lost for ever. The free list of plan n lists what is free and what waits with its
//! stamp, as of its begin; the run that holds the list is in use and waits, stamp n + 1, from the
//! begin of the next plan on. Whatever was allocated after the begin of n is free in that list, for
//! no durable meta but those after n refers to it. Recovery from n applies the same rule with
//! "published n": stamps below n become free at once (the other slot, if it is selectable at all,
//! holds n - 1 or later than the stamp); stamp n waits for the next plan. So in use + free +
//! waiting is every page at every time, which [`crate::Check`] verifies from the file.
//!
//! Recovery that falls back to the older slot, because the newer one or a page below it does not
//! verify, continues with a number above both and overwrites the refused slot first. A refused
//! record that was readable could become selectable again if the disk changed its mind, so
//! [`crate::PageFile::slot_to_clear`] tells the owner to overwrite it before anything else is
//! written.
//!
//! A held root r, the newest checkpoint of the time when somebody took hold of it, reaches a page that
//! was born at b and has stamp s exactly when b <= r < s; where b is not known it counts as the
//! beginning. Holds end with the process: the list of a plan has held pages among those that wait, with
//! their stamps, and recovery frees them at once. A release may come while a plan is running, whose list
//! says that they wait: they can be reused all the same, for what both slots hold is newer than their
//! stamps, and so is that plan.
//!
//! The bitmap is cut into chunks of 128 pages, 1 MiB: one `u128`. Single pages come from one chunk
//! after another, so that the pages of one checkpoint lie together.
//!
//! ```text
//! list   pages managed u32 | free extents u32 | waiting extents u32 | zero u32
//!        free extent:    first u32, pages u32
//!        waiting extent: stamp u64, first u32, pages u32
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::limits::PAGE_SIZE;
use base::{Mutant, RootNo};

use crate::page::{u32_at, u64_at, wide};

/// Pages of a chunk.
pub(crate) const CHUNK: u32 = 128;

/// Pages at the begin of the file that belong to the meta slots.
pub(crate) const RESERVED: u32 = 32;

/// A chunk with at least this many free pages is a good place for new ones.
const ROOMY: u8 = 64;

/// Chunks that a search for a run looks into before the file grows instead.
const SEARCH_MAX: usize = 64;

const LIST_HEADER: usize = 16;

struct Waiting {
    stamp: RootNo,
    extents: Vec<Extent>,
}

/// Pages that were retired together.
#[derive(Clone, Copy)]
struct Extent {
    first: u32,
    pages: u32,
    /// The first root that may reach them.
    birth: RootNo,
}

/// A root that somebody holds.
struct Hold {
    root: RootNo,
    /// Pages in `held` that it reaches.
    pages: u32,
}

impl Hold {
    fn reaches(&self, stamp: RootNo, extent: &Extent) -> bool {
        extent.birth <= self.root && self.root < stamp && !Mutant::HeldReused.is_on()
    }
}

/// The allocator of page numbers.
pub(crate) struct Free {
    /// Pages managed, a multiple of [`CHUNK`].
    end: u32,
    /// One bit per page, set while it is free.
    bits: Vec<u128>,
    /// Free pages of each chunk.
    counts: Vec<u8>,
    /// Chunks, all free, whose disk space was given back.
    punched: Vec<bool>,
    punched_count: u32,
    free: u32,
    waiting: VecDeque<Waiting>,
    waiting_count: u32,
    /// What would be free if no held root reached it, with its stamp, by stamp.
    held: Vec<(RootNo, Extent)>,
    held_count: u32,
    holds: Vec<Hold>,
    /// The chunk that single pages come from.
    area: usize,
    /// Where the last search for a run ended.
    run_area: usize,
    /// Bytes of the file that have disk space.
    backed: u64,
}

fn mask(from: u32, pages: u32) -> u128 {
    let ones = if pages == CHUNK { u128::MAX } else { (1 << pages) - 1 };
    ones << from
}

/// The first of `pages` set bits in a row.
fn find_row(bits: u128, pages: u32) -> Option<u32> {
    let (mut rows, mut have) = (bits, 1);
    while have < pages {
        let step = have.min(pages - have);
        rows &= rows >> step;
        have += step;
    }
    (rows != 0).then(|| rows.trailing_zeros())
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("page numbers have 32 bits")
}

impl Free {
    pub fn new() -> Self {
        let mut free = Self {
            end: 0,
            bits: Vec::new(),
            counts: Vec::new(),
            punched: Vec::new(),
            punched_count: 0,
            free: 0,
            waiting: VecDeque::new(),
            waiting_count: 0,
            held: Vec::new(),
            held_count: 0,
            holds: Vec::new(),
            area: 0,
            run_area: 0,
            backed: 0,
        };
        free.extend(1);
        free.take(0, RESERVED);
        free
    }

    /// Pages managed.
    pub fn end(&self) -> u32 {
        self.end
    }

    pub fn free_count(&self) -> u32 {
        self.free
    }

    pub fn waiting_count(&self) -> u32 {
        self.waiting_count
    }

    /// Pages that only held roots reach.
    pub fn held_count(&self) -> u32 {
        self.held_count
    }

    pub fn backed(&self) -> u64 {
        self.backed
    }

    pub fn set_backed(&mut self, size: u64) {
        self.backed = size;
    }

    /// Bytes that can be allocated within backed space.
    pub fn room(&self) -> u64 {
        let taken = self.end - self.free + self.punched_count * CHUNK;
        self.backed.saturating_sub(u64::from(taken) * PAGE_SIZE as u64)
    }

    pub fn is_free(&self, page: u32) -> bool {
        let chunk = wide(page / CHUNK);
        self.bits.get(chunk).is_some_and(|bits| bits >> (page % CHUNK) & 1 == 1)
    }

    /// Appends chunks of free pages.
    fn extend(&mut self, chunks: u32) {
        for _ in 0..chunks {
            self.bits.push(u128::MAX);
            self.counts.push(u8::try_from(CHUNK).expect("128 fits"));
            self.punched.push(false);
            self.end += CHUNK;
            self.free += CHUNK;
        }
    }

    /// Whether another chunk still has disk space.
    fn may_extend(&self, chunks: u32) -> bool {
        u64::from(self.end + chunks * CHUNK) * PAGE_SIZE as u64 <= self.backed
    }

    /// Marks free pages as taken.
    fn take(&mut self, first: u32, pages: u32) {
        let end = first + pages;
        let mut at = first;
        while at < end {
            let chunk = wide(at / CHUNK);
            let piece = (CHUNK - at % CHUNK).min(end - at);
            let mask = mask(at % CHUNK, piece);
            assert!(self.bits[chunk] & mask == mask, "pages {at} + {piece} are not all free");
            self.bits[chunk] &= !mask;
            self.counts[chunk] -= u8::try_from(piece).expect("at most 128");
            self.free -= piece;
            if core::mem::take(&mut self.punched[chunk]) {
                self.punched_count -= 1;
            }
            at += piece;
        }
    }

    /// Gives pages back that no meta slot reaches.
    pub fn give(&mut self, first: u32, pages: u32) {
        let end = first + pages;
        assert!(first >= RESERVED && end <= self.end, "pages {first} + {pages} of {}", self.end);
        let mut at = first;
        while at < end {
            let chunk = wide(at / CHUNK);
            let piece = (CHUNK - at % CHUNK).min(end - at);
            let mask = mask(at % CHUNK, piece);
            assert!(self.bits[chunk] & mask == 0, "pages {at} + {piece} are freed twice");
            self.bits[chunk] |= mask;
            self.counts[chunk] += u8::try_from(piece).expect("at most 128");
            self.free += piece;
            at += piece;
        }
    }

    /// Lets pages that were born at `birth` wait until plan `stamp` and the one behind it are
    /// published.
    pub fn wait(&mut self, stamp: RootNo, birth: RootNo, first: u32, pages: u32) {
        self.waiting_count += pages;
        if self.waiting.back().is_none_or(|last| last.stamp != stamp) {
            self.waiting.push_back(Waiting { stamp, extents: Vec::new() });
        }
        let last = self.waiting.back_mut().expect("one was just pushed");
        match last.extents.last_mut() {
            Some(extent) if extent.first + extent.pages == first && extent.birth == birth => {
                extent.pages += pages;
            }
            _ => last.extents.push(Extent { first, pages, birth }),
        }
    }

    /// Keeps what `root` reaches from being handed out. It is the newest published one.
    pub fn hold(&mut self, root: RootNo) {
        self.holds.push(Hold { root, pages: 0 });
    }

    /// Pages that would be free if `root` were not held, or not by it alone.
    pub fn pages_held_by(&self, root: RootNo) -> u32 {
        self.holds.iter().find(|hold| hold.root == root).map_or(0, |hold| hold.pages)
    }

    /// Nobody holds `root` any more: frees what no other held root reaches.
    pub fn release(&mut self, root: RootNo) {
        self.holds.retain(|hold| hold.root != root);
        let mut held = core::mem::take(&mut self.held);
        held.retain(|(stamp, extent)| {
            let stays = self.holds.iter().any(|hold| hold.reaches(*stamp, extent));
            if !stays {
                self.held_count -= extent.pages;
                self.give(extent.first, extent.pages);
            }
            stays
        });
        self.held = held;
    }

    /// Frees what no selectable meta reaches once `root` is published, nor a held root.
    pub fn published(&mut self, root: RootNo) {
        let root = if Mutant::ReusedEarly.is_on() { root.next() } else { root };
        while self.waiting.front().is_some_and(|front| front.stamp < root) {
            let Some(front) = self.waiting.pop_front() else { break };
            for extent in front.extents {
                self.waiting_count -= extent.pages;
                let mut stays = false;
                for hold in &mut self.holds {
                    if hold.reaches(front.stamp, &extent) {
                        hold.pages += extent.pages;
                        stays = true;
                    }
                }
                if stays {
                    self.held_count += extent.pages;
                    self.held.push((front.stamp, extent));
                } else {
                    self.give(extent.first, extent.pages);
                }
            }
        }
        self.drop_tail();
    }

    /// Chunks at the tail that nobody uses need not be part of the file any more.
    pub fn drop_tail(&mut self) {
        while self.end > CHUNK && self.counts.last().is_some_and(|count| u32::from(*count) == CHUNK)
        {
            self.bits.pop();
            self.counts.pop();
            if self.punched.pop() == Some(true) {
                self.punched_count -= 1;
            }
            self.end -= CHUNK;
            self.free -= CHUNK;
        }
    }

    fn chunk_where(&self, from: usize, fits: impl Fn(u8) -> bool) -> Option<usize> {
        let chunks = self.counts.len();
        let from = from.min(chunks);
        let good = |chunk: &usize| fits(self.counts[*chunk]) && !self.punched[*chunk];
        (from..chunks).find(good).or_else(|| (0..from).find(good))
    }

    /// Finds the next chunk for single pages.
    fn next_area(&mut self) -> usize {
        let from = self.area + 1;
        if let Some(chunk) = self.chunk_where(from, |count| count >= ROOMY) {
            return chunk;
        }
        // Small holes are used up before the file grows past what it has, and where they are many.
        let many = self.free - self.punched_count * CHUNK > self.end / 4;
        if (many || !self.may_extend(1))
            && let Some(chunk) = self.chunk_where(from, |count| count > 0)
        {
            return chunk;
        }
        if !self.may_extend(1)
            && let Some(chunk) = self.punched.iter().position(|punched| *punched)
        {
            return chunk;
        }
        self.extend(1);
        self.counts.len() - 1
    }

    /// Takes one page.
    pub fn take_one(&mut self) -> u32 {
        if self.counts.get(self.area).is_none_or(|count| *count == 0) {
            self.area = self.next_area();
        }
        let page = number(self.area) * CHUNK + self.bits[self.area].trailing_zeros();
        self.take(page, 1);
        page
    }

    /// Takes `pages` contiguous pages.
    pub fn take_run(&mut self, pages: u32) -> u32 {
        let first = match self.find_run(pages, false) {
            Some(first) => first,
            None if self.may_extend(pages.div_ceil(CHUNK)) => self.end,
            None => self.find_run(pages, true).unwrap_or(self.end),
        };
        if first + pages > self.end {
            self.extend((first + pages - self.end).div_ceil(CHUNK));
        }
        self.take(first, pages);
        first
    }

    /// Whether `pages` contiguous pages can be taken within backed space.
    pub fn fits_run(&self, pages: u32) -> bool {
        self.may_extend(pages.div_ceil(CHUNK))
            || (0..self.counts.len()).any(|chunk| {
                u32::from(self.counts[chunk]) >= pages.min(CHUNK)
                    && !self.punched[chunk]
                    && self.find_in(chunk, pages).is_some()
            })
    }

    /// The first of `pages` contiguous free pages that begin in a chunk.
    fn find_in(&self, chunk: usize, pages: u32) -> Option<u32> {
        if pages <= CHUNK {
            find_row(self.bits[chunk], pages).map(|at| number(chunk) * CHUNK + at)
        } else {
            let ends = wide(pages.div_ceil(CHUNK)) + chunk;
            (ends <= self.counts.len() || self.may_extend(number(ends - self.counts.len())))
                .then(|| self.whole_chunks(chunk, pages).then(|| number(chunk) * CHUNK))
                .flatten()
        }
    }

    fn find_run(&mut self, pages: u32, thorough: bool) -> Option<u32> {
        let chunks = self.counts.len();
        let mut looks = 0;
        let from = if self.run_area < chunks { self.run_area } else { 0 };
        for chunk in (from..chunks).chain(0..from) {
            if u32::from(self.counts[chunk]) < pages.min(CHUNK)
                || (self.punched[chunk] && !thorough)
            {
                continue;
            }
            let found = self.find_in(chunk, pages);
            if found.is_some() {
                self.run_area = chunk;
                return found;
            }
            looks += 1;
            if looks == SEARCH_MAX && !thorough {
                break;
            }
        }
        None
    }

    /// Whether `pages` from the begin of `chunk` on are free; behind the end everything is.
    fn whole_chunks(&self, chunk: usize, pages: u32) -> bool {
        (0..pages.div_ceil(CHUNK)).all(|step| {
            let wanted = mask(0, (pages - step * CHUNK).min(CHUNK));
            self.bits.get(chunk + wide(step)).is_none_or(|bits| bits & wanted == wanted)
        })
    }

    /// The next extent of whole chunks that are free and still have disk space; they count as given
    /// back from now on. `keep`: bytes of room to keep; `pages_max`: how many pages it may have.
    pub fn punch_next(&mut self, keep: u64, pages_max: u32) -> Option<(u32, u32)> {
        let whole = u8::try_from(CHUNK).expect("128 fits");
        let good = |free: &Self, chunk: usize| {
            chunk < free.counts.len()
                && free.counts[chunk] == whole
                && !free.punched[chunk]
                && (number(chunk) + 1) * CHUNK <= number(wide32(free.backed / PAGE_SIZE as u64))
        };
        let first = (0..self.counts.len()).rev().find(|chunk| good(self, *chunk))?;
        let room_of_chunk = u64::from(CHUNK) * PAGE_SIZE as u64;
        let mut chunks = 0;
        while first >= wide(chunks)
            && chunks < pages_max / CHUNK
            && good(self, first - wide(chunks))
            && self.room() >= keep + room_of_chunk
        {
            self.punched[first - wide(chunks)] = true;
            self.punched_count += 1;
            chunks += 1;
        }
        (chunks > 0).then(|| ((number(first) + 1 - chunks) * CHUNK, chunks * CHUNK))
    }

    /// Bytes that [`Free::encode`] needs at most, after one more run has been taken.
    pub fn list_size_max(&self) -> usize {
        let mut extents = 0;
        let mut carry = 0;
        for bits in &self.bits {
            extents += wide((bits & !(bits << 1 | carry)).count_ones());
            carry = bits >> 127;
        }
        LIST_HEADER + (extents + 4) * 8 + self.waiting().count() * 16
    }

    /// What is neither in use nor free, with its stamp, by stamp: what is held has waited longest.
    fn waiting(&self) -> impl Iterator<Item = (RootNo, Extent)> {
        self.held.iter().copied().chain(
            self.waiting
                .iter()
                .flat_map(|waiting| waiting.extents.iter().map(|extent| (waiting.stamp, *extent))),
        )
    }

    fn extents(&self) -> Vec<(u32, u32)> {
        let mut extents: Vec<(u32, u32)> = Vec::new();
        for (chunk, bits) in self.bits.iter().enumerate() {
            let (mut bits, base) = (*bits, number(chunk) * CHUNK);
            while bits != 0 {
                let from = bits.trailing_zeros();
                let pages = (bits >> from).trailing_ones();
                bits &= !mask(from, pages);
                match extents.last_mut() {
                    Some((first, size)) if *first + *size == base + from => *size += pages,
                    _ => extents.push((base + from, pages)),
                }
            }
        }
        extents
    }

    /// The list as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let extents = self.extents();
        let waiting = self.waiting().count();
        let mut out = Vec::with_capacity(LIST_HEADER + extents.len() * 8 + waiting * 16);
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&number(extents.len()).to_le_bytes());
        out.extend_from_slice(&number(waiting).to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        for (first, pages) in extents {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&pages.to_le_bytes());
        }
        for (stamp, extent) in self.waiting() {
            out.extend_from_slice(&stamp.get().to_le_bytes());
            out.extend_from_slice(&extent.first.to_le_bytes());
            out.extend_from_slice(&extent.pages.to_le_bytes());
        }
        out
    }

    /// The allocator that a list describes, after `root` was published; none if the list is
    /// impossible. `pages`: pages of the file.
    pub fn decode(list: &[u8], root: RootNo, pages: u32) -> Option<Self> {
        if list.len() < LIST_HEADER {
            return None;
        }
        let end = u32_at(list, 0);
        let (extents, waiting) = (wide(u32_at(list, 4)), wide(u32_at(list, 8)));
        let size = extents.checked_mul(8)?.checked_add(waiting.checked_mul(16)?)?;
        if list.len() - LIST_HEADER < size || end > pages || end == 0 || !end.is_multiple_of(CHUNK)
        {
            return None;
        }
        let mut free = Self::new();
        free.extend(end / CHUNK - 1);
        free.take(RESERVED, end - RESERVED);
        let inside = |first: u32, pages: u32| {
            first >= RESERVED && pages > 0 && first.checked_add(pages).is_some_and(|to| to <= end)
        };
        let (list_free, list_waiting) = list[LIST_HEADER..LIST_HEADER + size].split_at(extents * 8);
        let mut behind = 0;
        for extent in list_free.chunks_exact(8) {
            let (first, pages) = (u32_at(extent, 0), u32_at(extent, 4));
            if !inside(first, pages) || first < behind {
                return None;
            }
            behind = first + pages;
            free.give(first, pages);
        }
        let mut seen = Vec::new();
        let mut stamp_last = RootNo::ZERO;
        for extent in list_waiting.chunks_exact(16) {
            let stamp = RootNo::new(u64_at(extent, 0));
            let (first, pages) = (u32_at(extent, 8), u32_at(extent, 12));
            if !inside(first, pages) || stamp < stamp_last || stamp > root {
                return None;
            }
            stamp_last = stamp;
            seen.push((first, pages));
            if Mutant::ReusedAtStart.is_on() {
                free.give(first, pages);
                continue;
            }
            free.wait(stamp, RootNo::ZERO, first, pages);
        }
        seen.sort_unstable();
        let apart = seen.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
        let unfree = seen.iter().all(|(first, pages)| free.none_free(*first, *pages));
        if !apart || !unfree {
            return None;
        }
        Some(free)
    }

    fn none_free(&self, first: u32, pages: u32) -> bool {
        (first..first + pages).all(|page| !self.is_free(page))
    }

    /// Calls `each` with every free extent and every waiting one.
    pub fn for_each_unused(&self, mut each: impl FnMut(u32, u32)) {
        for (first, pages) in self.extents() {
            each(first, pages);
        }
        for (_, extent) in self.waiting() {
            each(extent.first, extent.pages);
        }
    }
}

/// A count of pages as an index; files have fewer than 2^32.
fn wide32(pages: u64) -> usize {
    usize::try_from(pages.min(u64::from(u32::MAX))).expect("usize has 32 bits at least")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    fn root(number: u64) -> RootNo {
        RootNo::new(number)
    }

    #[test]
    fn a_page_waits_until_both_slots_are_newer_than_its_freeing() {
        let mut free = Free::new();
        let page = free.take_one();
        // Plan 3 is the first that does not include the page; 2 is in a slot.
        free.wait(root(3), root(1), page, 1);
        free.published(root(2));
        assert!(!free.is_free(page));
        free.published(root(3));
        assert!(!free.is_free(page), "the slot of plan 2 can still be chosen");
        free.published(root(4));
        assert!(free.is_free(page));
        assert_eq!(free.waiting_count(), 0);
    }

    #[test]
    fn a_held_root_keeps_what_it_reaches_and_nothing_else() {
        let mut free = Free::new();
        let pages: Vec<u32> = (0..6).map(|_| free.take_one()).collect();
        // Plan 4 is published when it is taken hold of; 5 is the root in work.
        free.hold(root(4));
        free.wait(root(4), root(1), pages[0], 1);
        free.wait(root(5), root(4), pages[1], 1);
        free.wait(root(6), root(5), pages[2], 1);
        free.wait(root(6), root(2), pages[3], 1);
        free.published(root(5));
        assert!(free.is_free(pages[0]), "plan 4 had done without it");
        free.hold(root(5));
        free.published(root(6));
        free.wait(root(7), root(6), pages[4], 1);
        free.wait(root(7), root(2), pages[5], 1);
        assert!(!free.is_free(pages[1]) && free.pages_held_by(root(4)) == 1);
        free.published(root(7));
        free.published(root(8));
        assert!(!free.is_free(pages[2]), "plan 5 reaches what was born with it");
        assert!(free.is_free(pages[4]), "nobody holds plan 6");
        assert_eq!((free.pages_held_by(root(4)), free.pages_held_by(root(5))), (3, 3));
        assert_eq!((free.held_count(), free.waiting_count()), (4, 0));

        // What is held waits in the list, and recovery does not know of any hold.
        let list = free.encode();
        assert!(list.len() <= free.list_size_max());
        let mut again = Free::decode(&list, root(8), free.end()).unwrap();
        assert_eq!(again.waiting_count(), 4);
        again.published(root(8));
        assert!(pages.iter().all(|page| again.is_free(*page)));

        free.release(root(4));
        assert!(free.is_free(pages[1]) && !free.is_free(pages[3]));
        free.release(root(5));
        assert!(pages.iter().all(|page| free.is_free(*page)));
        assert_eq!(free.held_count(), 0);
    }

    #[test]
    fn the_list_comes_back_and_recovery_applies_the_same_rule() {
        let mut prng = Prng::new(9);
        let mut free = Free::new();
        let pages: Vec<u32> = (0..500).map(|_| free.take_one()).collect();
        let run = free.take_run(300);
        for (index, page) in pages.iter().enumerate() {
            match prng.below(4) {
                0 => free.give(*page, 1),
                1 if index < 250 => free.wait(root(6), root(1), *page, 1),
                2 if index >= 250 => free.wait(root(7), root(1), *page, 1),
                _ => {}
            }
        }
        let list = free.encode();
        assert!(list.len() <= free.list_size_max());
        let pages = free.end();
        let mut again = Free::decode(&list, root(7), pages).unwrap();
        assert_eq!(again.encode(), list);
        for page in 0..pages {
            assert_eq!(again.is_free(page), free.is_free(page));
        }
        again.published(root(7));
        let younger = again.encode();
        free.published(root(7));
        assert_eq!(younger, free.encode());
        assert!(!again.is_free(run));
        assert!(Free::decode(&list, root(7), pages - CHUNK).is_none(), "it needs a longer file");
        assert!(Free::decode(&list, root(6), pages).is_none(), "a stamp of the future");
        for size in 0..list.len() {
            assert!(Free::decode(&list[..size], root(7), pages).is_none());
        }
    }

    #[test]
    fn no_page_is_handed_out_twice_and_none_is_lost() {
        let mut prng = Prng::new(11);
        let mut free = Free::new();
        let mut taken: Vec<(u32, u32)> = Vec::new();
        let mut used = alloc::collections::BTreeSet::new();
        for step in 0..20_000_u64 {
            free.set_backed(u64::from(free.end()) * PAGE_SIZE as u64 + prng.below(2) * (4 << 20));
            if prng.below(10) < if step / 4_000 % 2 == 0 { 7 } else { 3 } {
                let pages = match prng.below(20) {
                    0 => 1 + u32::try_from(prng.below(400)).unwrap(),
                    1..4 => 1 + u32::try_from(prng.below(20)).unwrap(),
                    _ => 1,
                };
                let first = if pages == 1 { free.take_one() } else { free.take_run(pages) };
                assert!(first >= RESERVED);
                for page in first..first + pages {
                    assert!(used.insert(page), "page {page} is in use");
                }
                taken.push((first, pages));
            } else if !taken.is_empty() {
                let at = usize::try_from(prng.below(taken.len() as u64)).unwrap();
                let (first, pages) = taken.swap_remove(at);
                for page in first..first + pages {
                    used.remove(&page);
                }
                free.give(first, pages);
            }
            if prng.one_in(1_000) {
                free.published(root(1));
                while free.punch_next(0, u32::MAX).is_some() {}
            }
            let in_use = free.end() - free.free_count() - RESERVED;
            assert_eq!(usize::try_from(in_use).unwrap(), used.len());
        }
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn freeing_twice_is_a_bug_that_is_seen() {
        let mut free = Free::new();
        let page = free.take_one();
        free.give(page, 1);
        free.give(page, 1);
    }

    #[test]
    fn room_counts_what_is_free_and_still_has_disk_space() {
        let mut free = Free::new();
        assert_eq!(free.room(), 0);
        free.set_backed(8 << 20);
        assert_eq!(free.room(), (8 << 20) - (256 << 10));
        let first = free.take_run(256);
        assert_eq!(free.room(), (6 << 20) - (256 << 10));
        free.give(first, 256);
        assert!(free.punch_next(0, u32::MAX).is_some());
        assert!(free.room() < 7 << 20, "punched space must be backed again first");
    }

    /// A large value that came and went behind the disk space of the file, before any checkpoint.
    #[test]
    fn what_is_free_behind_the_disk_space_is_given_up() {
        let mut free = Free::new();
        free.set_backed(2 << 20);
        let page = free.take_one();
        let first = free.take_run(1_000);
        let size = |free: &Free| u64::from(free.end()) * PAGE_SIZE as u64;
        assert!(size(&free) > 2 << 20, "there is no room for it");
        free.give(first, 1_000);
        free.drop_tail();
        assert!(size(&free) <= 2 << 20, "a checkpoint may begin");
        assert!(!free.is_free(page));
    }
}
