//! Writing a new file from front to back, its keys in order.
//!
//! A meta page stands before everything and says how many pages there are, so a file is made twice: the
//! first time with sizes alone, to count its pages, the second time with bytes. Both times the same code
//! decides where a page ends.
//!
//! ```text
//! meta | meta | free list, empty | bucket* | buckets
//! bucket   leaf* branch leaf* branch ... branch: a branch follows its last child, the root comes last
//! ```
//!
//! So that it keeps one page of each level of one tree, however large the file.

use alloc::vec::Vec;

use crate::meta::Meta;
use crate::{
    BRANCH, BUCKET_SIZE, ELEMENT_SIZE, FREELIST, IS_BUCKET, LEAF, PAGE_HEADER_SIZE, PAGE_SIZE,
};

/// Pages before the first bucket.
const FIRST: u64 = 3;

/// Bytes, or how many there will be.
pub trait Blob {
    /// How many.
    fn size(&self) -> usize;
    /// Appends them, if they are there.
    fn write(&self, out: &mut Vec<u8>);
}

impl Blob for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// So many bytes, which are not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Hollow(pub usize);

impl Blob for Hollow {
    fn size(&self) -> usize {
        self.0
    }

    fn write(&self, _: &mut Vec<u8>) {}
}

/// How many pages a file has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pages(u64);

impl Pages {
    /// Bytes of the file.
    pub fn size(self) -> u64 {
        self.0 * u64::try_from(PAGE_SIZE).expect("small")
    }
}

/// A page in the making.
#[derive(Default)]
struct Node {
    count: u16,
    /// Bytes of its keys and values, or how many there will be.
    content_size: usize,
    content: Vec<u8>,
    /// What is known of each element but its place: a leaf's flags or a branch's child, key size, value size.
    elements: Vec<(u64, u32, u32)>,
    /// Its first key.
    first: Vec<u8>,
    first_size: usize,
}

impl Node {
    fn size_with(&self, key_size: usize, value_size: usize) -> usize {
        let elements = (usize::from(self.count) + 1) * ELEMENT_SIZE;
        PAGE_HEADER_SIZE + elements + self.content_size + key_size + value_size
    }

    fn has_room(&self, key_size: usize, value_size: usize) -> bool {
        self.count == 0 || self.size_with(key_size, value_size) <= PAGE_SIZE
    }

    fn push(&mut self, word: u64, key: &impl Blob, value: &impl Blob) {
        if self.count == 0 {
            self.first_size = key.size();
            key.write(&mut self.first);
        }
        let size = |size: usize| u32::try_from(size).expect("an element is far below 4 GiB");
        self.elements.push((word, size(key.size()), size(value.size())));
        self.content_size += key.size() + value.size();
        key.write(&mut self.content);
        value.write(&mut self.content);
        self.count += 1;
    }

    /// Pages that it takes.
    fn pages(&self) -> u64 {
        let elements = usize::from(self.count) * ELEMENT_SIZE;
        let size = PAGE_HEADER_SIZE + elements + self.content_size;
        u64::try_from(size.div_ceil(PAGE_SIZE)).expect("a page fits 64 bits")
    }

    fn clear(&mut self) {
        self.count = 0;
        self.content_size = 0;
        self.content.clear();
        self.elements.clear();
        self.first.clear();
    }
}

/// A file in the making. What has been made of it is appended to a vector that the caller empties when he likes.
pub struct Writer {
    /// The number of the next page.
    next: u64,
    /// How many there will be; none: this is the first time, and nothing is appended.
    total: Option<Pages>,
    /// The tree in the making: leaf first, the root last.
    levels: Vec<Node>,
    buckets: Vec<(Vec<u8>, u64)>,
}

impl Writer {
    /// The first time: it only counts.
    pub fn counting() -> Self {
        Self { next: FIRST, total: None, levels: Vec::new(), buckets: Vec::new() }
    }

    /// The second time, behind a first one with the same sizes in the same order.
    pub fn new(total: Pages, out: &mut Vec<u8>) -> Self {
        let Pages(pages) = total;
        for transaction in [0, 1] {
            let page_size = u32::try_from(PAGE_SIZE).expect("small");
            let meta = Meta { page_size, root: pages - 1, freelist: 2, pages, transaction };
            meta.encode(transaction, out);
        }
        write_header(out, 2, FREELIST, 0, 1);
        out.resize(out.len() + PAGE_SIZE - PAGE_HEADER_SIZE, 0);
        Self { next: FIRST, total: Some(total), levels: Vec::new(), buckets: Vec::new() }
    }

    /// Adds a key to the bucket in the making, behind the last one.
    pub fn put(&mut self, key: &impl Blob, value: &impl Blob, out: &mut Vec<u8>) {
        if self.levels.is_empty() {
            self.levels.push(Node::default());
        }
        if !self.levels[0].has_room(key.size(), value.size()) {
            self.close(0, out);
        }
        self.levels[0].push(0, key, value);
    }

    /// Ends the bucket in the making, also one without keys. Names come in order.
    ///
    /// # Panics
    /// When they do not.
    pub fn end_bucket(&mut self, name: &[u8], out: &mut Vec<u8>) {
        let follows = self.buckets.last().is_none_or(|(last, _)| last.as_slice() < name);
        assert!(follows, "bucket {name:?} comes behind {:?}", self.buckets.last());
        let root = self.end_tree(out);
        self.buckets.push((name.to_vec(), root));
    }

    /// Ends the file; how many pages it has.
    ///
    /// # Panics
    /// When it came out otherwise than the first time: then its meta pages are wrong.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Pages {
        let mut node = Node::default();
        for (name, root) in core::mem::take(&mut self.buckets) {
            let mut value = [0; BUCKET_SIZE];
            value[..8].copy_from_slice(&root.to_le_bytes());
            assert!(node.has_room(name.len(), BUCKET_SIZE), "the buckets fit one page");
            node.push(IS_BUCKET.into(), &name.as_slice(), &value.as_slice());
        }
        self.levels.push(node);
        self.end_tree(out);
        let pages = Pages(self.next);
        let planned = self.total.unwrap_or(pages);
        assert!(planned == pages, "{pages:?} were written and {planned:?} were counted");
        pages
    }

    /// Closes every level, and returns the page of the root.
    fn end_tree(&mut self, out: &mut Vec<u8>) -> u64 {
        if self.levels.is_empty() {
            self.levels.push(Node::default());
        }
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close(level, out);
            level += 1;
        }
        let root = self.emit(level, out);
        self.levels.clear();
        root
    }

    /// Ends a page, and names it in the level above.
    fn close(&mut self, level: usize, out: &mut Vec<u8>) {
        let page = self.emit(level, out);
        if self.levels.len() == level + 1 {
            self.levels.push(Node::default());
        }
        let first_size = self.levels[level].first_size;
        if !self.levels[level + 1].has_room(first_size, 0) {
            self.close(level + 1, out);
        }
        let [child, parent] = &mut self.levels[level..level + 2] else {
            unreachable!("the level above was made")
        };
        match self.total {
            Some(_) => parent.push(page, &child.first.as_slice(), &Hollow(0)),
            None => parent.push(page, &Hollow(first_size), &Hollow(0)),
        }
        child.clear();
    }

    /// Appends a page, and returns its number.
    fn emit(&mut self, level: usize, out: &mut Vec<u8>) -> u64 {
        let node = &self.levels[level];
        let (number, pages) = (self.next, node.pages());
        self.next += pages;
        if self.total.is_none() {
            return number;
        }
        let begin = out.len();
        write_header(out, number, if level == 0 { LEAF } else { BRANCH }, node.count, pages);
        let elements = node.elements.len() * ELEMENT_SIZE;
        let mut place = 0;
        for (index, &(word, key_size, value_size)) in node.elements.iter().enumerate() {
            let from_here = elements - index * ELEMENT_SIZE + place;
            let from_here = u32::try_from(from_here).expect("a page is far below 4 GiB");
            if level == 0 {
                let flags = u32::try_from(word).expect("a flag");
                for number in [flags, from_here, key_size, value_size] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            } else {
                for number in [from_here, key_size] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(&word.to_le_bytes());
            }
            place += usize::try_from(key_size + value_size).expect("it fits memory");
        }
        out.extend_from_slice(&node.content);
        let size = usize::try_from(pages).expect("it fits memory") * PAGE_SIZE;
        out.resize(begin + size, 0);
        number
    }
}

fn write_header(out: &mut Vec<u8>, number: u64, flags: u16, count: u16, pages: u64) {
    let behind = u32::try_from(pages - 1).expect("a page is far below 4 GiB");
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&behind.to_le_bytes());
}
