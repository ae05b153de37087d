//! The bytes of ranges, in pages. Each of them in memory of its own would take half as much again, and would
//! lie between what is needed for a moment while watches begin: that memory could not go back.
//!
//! ```text
//! page:  number u32 | size u16 | bytes | number | size | bytes | ...     number NONE: it is gone
//! ```
//!
//! A page of which more than half is gone is given up, and what is left of it moves.

use alloc::vec::Vec;
use core::mem;

use base::limits::KEY_SIZE_MAX;

/// Of a page.
const PAGE_SIZE: usize = 64 << 10;

/// In front of the bytes.
const HEADER_SIZE: usize = 6;

/// In place of the number of what is gone.
const GONE: [u8; 4] = [0xff; 4];

const _: () = assert!(2 * KEY_SIZE_MAX <= u16::MAX as usize, "sizes are 16 bits");
const _: () = assert!(HEADER_SIZE + 2 * KEY_SIZE_MAX <= PAGE_SIZE / 2, "a page takes several");

/// Where the bytes of a range are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    page: u32,
    at: u32,
}

#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// Bytes of what is gone.
    gone: usize,
}

/// The bytes of ranges.
pub struct Bounds {
    pages: Vec<Page>,
    /// Pages without memory.
    free: Vec<u32>,
    /// The page that is filled.
    open: Option<u32>,
}

fn index(at: u32) -> usize {
    usize::try_from(at).expect("an index fits usize")
}

impl Bounds {
    /// None.
    pub const fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), open: None }
    }

    /// Keeps start and end of the range with this number.
    pub fn add(&mut self, number: u32, start: &[u8], end: &[u8]) -> Place {
        let size = start.len() + end.len();
        let has_room =
            |page: &u32| self.pages[index(*page)].bytes.len() + HEADER_SIZE + size <= PAGE_SIZE;
        let page = self.open.filter(has_room).unwrap_or_else(|| {
            let page = self.free.pop().unwrap_or_else(|| {
                self.pages.push(Page::default());
                u32::try_from(self.pages.len() - 1).expect("pages are bounded")
            });
            self.pages[index(page)].bytes.reserve_exact(PAGE_SIZE);
            page
        });
        self.open = Some(page);
        let bytes = &mut self.pages[index(page)].bytes;
        let at = u32::try_from(bytes.len()).expect("a page is small");
        let size = u16::try_from(size).expect("keys are bounded");
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(start);
        bytes.extend_from_slice(end);
        Place { page, at }
    }

    /// What is kept at a place.
    pub fn get(&self, place: Place) -> &[u8] {
        let bytes = &self.pages[index(place.page)].bytes[index(place.at)..];
        let size = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        &bytes[HEADER_SIZE..HEADER_SIZE + size]
    }

    /// Forgets what is kept at a place. Tells which ranges have another place from now on.
    pub fn remove(&mut self, place: Place, moved: &mut dyn FnMut(u32, Place)) {
        let size = HEADER_SIZE + self.get(place).len();
        let page = &mut self.pages[index(place.page)];
        page.bytes[index(place.at)..][..4].copy_from_slice(&GONE);
        page.gone += size;
        if page.gone > PAGE_SIZE / 2 {
            let Page { bytes, .. } = mem::take(page);
            self.free.push(place.page);
            self.open = self.open.filter(|open| *open != place.page);
            self.move_all(&bytes, moved);
        }
    }

    fn move_all(&mut self, mut bytes: &[u8], moved: &mut dyn FnMut(u32, Place)) {
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() {
            let [n0, n1, n2, n3, s0, s1] = *header;
            let (own, rest) = rest.split_at(usize::from(u16::from_le_bytes([s0, s1])));
            if [n0, n1, n2, n3] != GONE {
                let number = u32::from_le_bytes([n0, n1, n2, n3]);
                moved(number, self.add(number, own, &[]));
            }
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use base::Prng;

    use super::*;

    #[test]
    fn what_is_kept_is_found_and_pages_do_not_grow_with_what_has_gone() {
        let mut prng = Prng::new(5);
        let mut bounds = Bounds::new();
        let mut places: BTreeMap<u32, (Place, Vec<u8>)> = BTreeMap::new();
        let mut moves = 0;
        for round in 0..200_000_u32 {
            let number = u32::try_from(prng.below(4_000)).expect("small");
            if let Some((place, text)) = places.remove(&number) {
                assert_eq!(bounds.get(place), text);
                bounds.remove(place, &mut |number, place| {
                    moves += 1;
                    places.get_mut(&number).expect("it is kept").0 = place;
                });
            } else {
                let size =
                    if prng.one_in(50) { 1_000 } else { usize::from(number.to_le_bytes()[0]) };
                let mut text: Vec<u8> = round.to_le_bytes().into();
                text.resize(4 + size, 7);
                let place = bounds.add(number, &text[..2], &text[2..]);
                places.insert(number, (place, text));
            }
        }
        for (place, text) in places.values() {
            assert_eq!(bounds.get(*place), text);
        }
        assert!(moves > 1_000);
        let kept: usize = places.values().map(|(_, text)| HEADER_SIZE + text.len()).sum();
        let taken: usize = bounds.pages.iter().map(|page| page.bytes.capacity()).sum();
        assert!(taken < 3 * kept, "{taken} bytes for {kept}");
    }

    #[test]
    fn one_that_comes_and_goes_needs_one_page() {
        let mut bounds = Bounds::new();
        for _ in 0..100_000 {
            let place = bounds.add(1, b"start", b"end");
            bounds.remove(place, &mut |_, _| unreachable!("nothing else is kept"));
        }
        assert!(bounds.pages.len() <= 2);
    }
}
