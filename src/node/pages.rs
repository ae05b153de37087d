//! A list in pages: it grows without being moved, and without memory for twice as many.

use alloc::vec::Vec;

/// Items of a page.
const PAGE_ITEMS: usize = 1 << 10;

/// Items with numbers from 0.
pub struct Pages<T> {
    /// All but the last are full.
    pages: Vec<Vec<T>>,
}

fn split(at: u32) -> (usize, usize) {
    let at = usize::try_from(at).expect("an index fits usize");
    (at / PAGE_ITEMS, at % PAGE_ITEMS)
}

impl<T> Pages<T> {
    /// None.
    pub const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    /// How many there are, and the number of the next one.
    pub fn len(&self) -> u32 {
        let items = match self.pages.as_slice() {
            [] => 0,
            [full @ .., last] => full.len() * PAGE_ITEMS + last.len(),
        };
        u32::try_from(items).expect("items are bounded")
    }

    /// Adds one.
    pub fn push(&mut self, item: T) {
        match self.pages.last_mut() {
            Some(last) if last.len() < PAGE_ITEMS => last.push(item),
            _ => {
                let mut page = Vec::with_capacity(PAGE_ITEMS);
                page.push(item);
                self.pages.push(page);
            }
        }
    }

    /// The one with a number, if there is one.
    pub fn get(&self, at: u32) -> Option<&T> {
        let (page, at) = split(at);
        self.pages.get(page)?.get(at)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let (page, at) = split(at);
        self.pages.get_mut(page)?.get_mut(at)
    }
}

impl<T> core::ops::Index<u32> for Pages<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        let (page, at) = split(at);
        &self.pages[page][at]
    }
}

impl<T> core::ops::IndexMut<u32> for Pages<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        let (page, at) = split(at);
        &mut self.pages[page][at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_where_their_numbers_say() {
        let mut list = Pages::new();
        for number in 0..5_000_u32 {
            assert_eq!((list.len(), list.get(number)), (number, None));
            list.push(number * 3);
        }
        list[4_999] = 1;
        *list.get_mut(1_024).expect("it is there") = 2;
        let expected = |number| match number {
            4_999 => 1,
            1_024 => 2,
            _ => number * 3,
        };
        assert!((0..5_000).all(|number| list[number] == expected(number)));
        assert_eq!(list.get_mut(5_000), None);
    }
}
