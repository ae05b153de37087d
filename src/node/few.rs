//! Short lists of numbers, most of which have one: that takes no memory of its own.

use alloc::vec::Vec;

/// Marks the number of a list; numbers in lists are less.
const LIST: u32 = 1 << 31;

/// A list that [`Lists`] keeps: its only number, or where it is kept. Not copied: one owner frees it.
#[derive(PartialEq, Eq, Debug)]
pub struct Few(u32);

impl Few {
    /// No number.
    pub const NONE: Self = Self(u32::MAX);

    /// The only number, if there is one.
    pub fn only(&self) -> Option<u32> {
        (self.0 & LIST == 0).then_some(self.0)
    }
}

/// The lists of more than one number.
pub struct Lists {
    lists: Vec<Vec<u32>>,
    free: Vec<u32>,
}

fn index(few: &Few) -> usize {
    usize::try_from(few.0 & !LIST).expect("an index fits usize")
}

impl Lists {
    /// None.
    pub const fn new() -> Self {
        Self { lists: Vec::new(), free: Vec::new() }
    }

    /// The numbers of a list.
    pub fn get<'f>(&'f self, few: &'f Few) -> &'f [u32] {
        if *few == Few::NONE {
            &[]
        } else if few.0 & LIST == 0 {
            core::slice::from_ref(&few.0)
        } else {
            &self.lists[index(few)]
        }
    }

    /// Adds a number behind the others.
    pub fn push(&mut self, few: &mut Few, number: u32) {
        assert!(number < LIST, "{number} passes for a list");
        if *few == Few::NONE {
            *few = Few(number);
        } else if let Some(first) = few.only() {
            let place = self.free.pop().unwrap_or_else(|| {
                self.lists.push(Vec::new());
                u32::try_from(self.lists.len() - 1).expect("lists are bounded")
            });
            assert!(place < LIST - 1, "list {place} passes for none");
            *few = Few(LIST | place);
            self.lists[index(few)] = [first, number].into();
        } else {
            self.lists[index(few)].push(number);
        }
    }

    /// Takes the number at `place` out; the last one comes there. Memory goes back as the list gets short.
    pub fn swap_remove(&mut self, few: &mut Few, place: usize) {
        if few.0 & LIST == 0 {
            assert!(place == 0, "place {place} of a list of one");
            *few = Few::NONE;
            return;
        }
        let list = &mut self.lists[index(few)];
        list.swap_remove(place);
        if let [only] = list.as_slice() {
            let only = *only;
            *list = Vec::new();
            self.free.push(few.0 & !LIST);
            *few = Few(only);
        } else if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
    }

    /// Gives a list up.
    pub fn clear(&mut self, few: Few) {
        if few != Few::NONE && few.only().is_none() {
            self.lists[index(&few)] = Vec::new();
            self.free.push(few.0 & !LIST);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::mem;

    use base::Prng;

    use super::*;

    #[test]
    fn lists_have_what_was_put_in_and_one_number_takes_no_memory() {
        let mut prng = Prng::new(7);
        let mut lists = Lists::new();
        let mut all: Vec<(Few, Vec<u32>)> = (0..50).map(|_| (Few::NONE, Vec::new())).collect();
        for round in 0..50_000 {
            let at = usize::try_from(prng.below(50)).expect("small");
            let (few, model) = &mut all[at];
            if prng.one_in(100) {
                lists.clear(mem::replace(few, Few::NONE));
                model.clear();
            } else if !model.is_empty() && prng.below(5) < 3 {
                let size = u64::try_from(model.len()).expect("small");
                let place = usize::try_from(prng.below(size)).expect("small");
                lists.swap_remove(few, place);
                model.swap_remove(place);
            } else {
                lists.push(few, round);
                model.push(round);
            }
            assert_eq!(lists.get(few), model.as_slice());
        }
        assert!(lists.lists.len() <= 50);
        for (few, _) in all {
            lists.clear(few);
        }
        assert_eq!(lists.free.len(), lists.lists.len());
        assert!(lists.lists.iter().all(|list| list.capacity() == 0));
    }
}
