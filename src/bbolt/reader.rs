//! Reading: from a source of bytes that nobody vouches for. Every page is checked before it is used, and
//! a walk comes to its end whatever the pages say: keys only grow, and depth is bounded.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Error, Problem};
use crate::meta::{META_SIZE, Meta, Read};
use crate::{BRANCH, BUCKET_SIZE, ELEMENT_SIZE, IS_BUCKET, LEAF, PAGE_HEADER_SIZE};

/// Page sizes that a file may have: bbolt takes that of the system that made it.
const PAGE_SIZE_MIN: u32 = 512;
const PAGE_SIZE_MAX: u32 = 64 << 10;

/// Greatest size in bytes of a page with those that it goes on in: far above any value that etcd takes in.
const EXTENT_MAX: u64 = 256 << 20;

/// Greatest depth of a tree: with two children on each level, more keys than there can be.
const DEPTH_MAX: usize = 64;

/// Where the bytes of a file come from.
pub trait Source {
    /// Why they do not.
    type Error;

    /// Bytes of the file.
    fn size(&self) -> u64;

    /// Fills `out` with the bytes at `offset`, which lie within the size.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error>;
}

impl Source for &[u8] {
    type Error = core::convert::Infallible;

    fn size(&self) -> u64 {
        u64::try_from(self.len()).expect("a length fits 64 bits")
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error> {
        let from = usize::try_from(offset).expect("within the slice");
        out.copy_from_slice(&self[from..from + out.len()]);
        Ok(())
    }
}

/// A file.
pub struct Db<S> {
    source: S,
    meta: Meta,
}

/// A bucket and its name.
pub type NamedBucket = (Vec<u8>, Bucket);

/// A tree of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    root: Root,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Root {
    Page(u64),
    /// The page stands in the value of the bucket.
    Inline(Vec<u8>),
}

impl<S: Source> Db<S> {
    /// Reads the meta pages.
    ///
    /// # Errors
    /// It is no such file, or is cut off, or its meta pages are damaged.
    pub fn open(mut source: S) -> Result<Self, Error<S::Error>> {
        let first = read_meta(&mut source, 0)?;
        let mut is_damaged = matches!(first, Some(Read::Damaged));
        let mut found: Option<Meta> = None;
        let mut version = None;
        let mut sizes = Vec::new();
        match first {
            Some(Read::Meta(meta)) => {
                sizes.push(meta.page_size);
                found = Some(meta);
            }
            Some(Read::Version(other)) => version = Some(other),
            // Where the second one is, only the first would say.
            _ => sizes.extend((9..=16).map(|bits| 1 << bits)),
        }
        for size in sizes {
            match read_meta(&mut source, u64::from(size))? {
                Some(Read::Meta(meta)) if meta.page_size == size => {
                    found =
                        found.filter(|other| other.transaction >= meta.transaction).or(Some(meta));
                }
                Some(Read::Damaged) => is_damaged = true,
                _ => {}
            }
        }
        let Some(meta) = found else {
            return Err(match version {
                Some(found) => Error::Version { found },
                None if is_damaged => Error::Meta,
                None => Error::NotBbolt,
            });
        };
        if !meta.page_size.is_power_of_two()
            || !(PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&meta.page_size)
        {
            return Err(Error::Meta);
        }
        let (size, wanted) = (source.size(), meta.pages.saturating_mul(meta.page_size.into()));
        if size < wanted {
            return Err(Error::Truncated { size, wanted });
        }
        Ok(Self { source, meta })
    }

    /// Bytes of the file that its pages take, whatever follows them.
    pub fn size(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_size)
    }

    /// The tree of buckets: the values of its keys are buckets.
    pub fn buckets(&self) -> Bucket {
        Bucket { root: Root::Page(self.meta.root) }
    }

    /// A bucket; none if there is none of this name.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn bucket(&mut self, name: &[u8]) -> Result<Option<Bucket>, Error<S::Error>> {
        let mut walk = Walk::new(&self.buckets());
        while let Some((key, bucket)) = walk.next_bucket(self)? {
            if key == name {
                return Ok(Some(bucket));
            }
        }
        Ok(None)
    }

    /// Reads a page with those that it goes on in.
    fn page(&mut self, number: u64) -> Result<Page, Error<S::Error>> {
        let wrong = |problem| Error::Page { page: number, problem };
        let page_size = u64::from(self.meta.page_size);
        if number < 2 || number >= self.meta.pages {
            return Err(wrong(Problem::Bounds));
        }
        // One read for most: they go on nowhere.
        let offset = number * page_size;
        let mut bytes = vec![0; usize::try_from(page_size).expect("a page fits memory")];
        self.source.read(offset, &mut bytes).map_err(Error::Source)?;
        let header = Header::of(&bytes).ok_or(wrong(Problem::Element))?;
        if header.id != number {
            return Err(wrong(Problem::Id));
        }
        let behind = u64::from(header.overflow);
        if behind > self.meta.pages - 1 - number {
            return Err(wrong(Problem::Bounds));
        }
        let size = (behind + 1) * page_size;
        if size > EXTENT_MAX {
            return Err(wrong(Problem::Size));
        }
        if behind > 0 {
            let first = bytes.len();
            bytes.resize(usize::try_from(size).expect("an extent fits memory"), 0);
            let rest = &mut bytes[first..];
            self.source.read(offset + page_size, rest).map_err(Error::Source)?;
        }
        Page::new(bytes).map_err(wrong)
    }
}

fn read_meta<S: Source>(source: &mut S, offset: u64) -> Result<Option<Read>, Error<S::Error>> {
    let mut bytes = [0; META_SIZE];
    let end = offset + u64::try_from(META_SIZE).expect("small");
    if source.size() < end {
        return Ok(None);
    }
    source.read(offset, &mut bytes).map_err(Error::Source)?;
    Ok(Some(Meta::decode(&bytes)))
}

struct Header {
    id: u64,
    flags: u16,
    count: u16,
    overflow: u32,
}

impl Header {
    fn of(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64::from_le_bytes(*bytes.first_chunk()?),
            flags: u16::from_le_bytes(*bytes.get(8..)?.first_chunk()?),
            count: u16::from_le_bytes(*bytes.get(10..)?.first_chunk()?),
            overflow: u32::from_le_bytes(*bytes.get(12..)?.first_chunk()?),
        })
    }
}

/// A page whose elements all lie within it.
struct Page {
    bytes: Vec<u8>,
    is_leaf: bool,
    count: usize,
}

impl Page {
    fn new(bytes: Vec<u8>) -> Result<Self, Problem> {
        let header = Header::of(&bytes).ok_or(Problem::Element)?;
        let is_leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            _ => return Err(Problem::Kind),
        };
        let page = Self { bytes, is_leaf, count: usize::from(header.count) };
        if !is_leaf && page.count == 0 {
            return Err(Problem::Empty);
        }
        for index in 0..page.count {
            if page.key_at(index).is_none() || (is_leaf && page.value_at(index).is_none()) {
                return Err(Problem::Element);
            }
        }
        let is_ordered = (1..page.count).all(|index| page.key(index - 1) < page.key(index));
        if is_ordered { Ok(page) } else { Err(Problem::Order) }
    }

    fn number(&self, index: usize, field: usize) -> Option<usize> {
        let at = PAGE_HEADER_SIZE + index * ELEMENT_SIZE + field;
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    }

    /// Where the key of an element begins and ends.
    fn place(&self, index: usize) -> Option<(usize, usize)> {
        let (place, size) = match self.is_leaf {
            true => (self.number(index, 4)?, self.number(index, 8)?),
            false => (self.number(index, 0)?, self.number(index, 4)?),
        };
        let begin = (PAGE_HEADER_SIZE + index * ELEMENT_SIZE).checked_add(place)?;
        Some((begin, begin.checked_add(size)?))
    }

    fn key_at(&self, index: usize) -> Option<&[u8]> {
        let (begin, end) = self.place(index)?;
        self.bytes.get(begin..end)
    }

    fn value_at(&self, index: usize) -> Option<&[u8]> {
        let (_, begin) = self.place(index)?;
        self.bytes.get(begin..begin.checked_add(self.number(index, 12)?)?)
    }

    fn key(&self, index: usize) -> &[u8] {
        self.key_at(index).expect("every element was checked")
    }

    fn child(&self, index: usize) -> u64 {
        let at = PAGE_HEADER_SIZE + index * ELEMENT_SIZE + 8;
        u64::from_le_bytes(*self.bytes[at..].first_chunk().expect("every element was checked"))
    }

    fn is_bucket(&self, index: usize) -> bool {
        let at = PAGE_HEADER_SIZE + index * ELEMENT_SIZE;
        let flags = self.bytes[at..].first_chunk().expect("every element was checked");
        u32::from_le_bytes(*flags) & IS_BUCKET != 0
    }
}

/// A page of the path and the element to go to next.
struct Level {
    page: Page,
    number: u64,
    next: usize,
}

/// A walk over the keys of a bucket in their order. It keeps one page of each level.
pub struct Walk {
    begin: Option<Root>,
    path: Vec<Level>,
    last: Option<Vec<u8>>,
}

impl Walk {
    /// A walk from the first key on.
    pub fn new(bucket: &Bucket) -> Self {
        Self { begin: Some(bucket.root.clone()), path: Vec::new(), last: None }
    }

    /// The next key and its value.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    #[expect(clippy::type_complexity, reason = "a key and its value")]
    pub fn next<S: Source>(
        &mut self,
        db: &mut Db<S>,
    ) -> Result<Option<(&[u8], &[u8])>, Error<S::Error>> {
        if !self.settle(db)? {
            return Ok(None);
        }
        let leaf = self.path.last_mut().expect("the walk stands at an element");
        leaf.next += 1;
        let index = leaf.next - 1;
        let value = leaf.page.value_at(index).expect("every element was checked");
        Ok(Some((leaf.page.key(index), value)))
    }

    /// The next key, whose value is a bucket.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn next_bucket<S: Source>(
        &mut self,
        db: &mut Db<S>,
    ) -> Result<Option<NamedBucket>, Error<S::Error>> {
        if !self.settle(db)? {
            return Ok(None);
        }
        let leaf = self.path.last_mut().expect("the walk stands at an element");
        let wrong = Error::Page { page: leaf.number, problem: Problem::NoBucket };
        leaf.next += 1;
        let index = leaf.next - 1;
        let value = leaf.page.value_at(index).expect("every element was checked");
        let root = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let root = match (leaf.page.is_bucket(index), root, value.get(BUCKET_SIZE..)) {
            (true, Some(0), Some(page)) => Root::Inline(page.to_vec()),
            (true, Some(page), Some(_)) => Root::Page(page),
            _ => return Err(wrong),
        };
        Ok(Some((leaf.page.key(index).to_vec(), Bucket { root })))
    }

    /// Goes down and right to the next element of a leaf; false: there is none.
    fn settle<S: Source>(&mut self, db: &mut Db<S>) -> Result<bool, Error<S::Error>> {
        loop {
            let (page, number) = match (self.begin.take(), self.path.last_mut()) {
                (Some(Root::Inline(bytes)), _) => {
                    let wrong = |problem| Error::Page { page: 0, problem };
                    let page = Page::new(bytes).map_err(wrong)?;
                    if !page.is_leaf {
                        return Err(wrong(Problem::Kind));
                    }
                    (page, 0)
                }
                (Some(Root::Page(number)), _) => (db.page(number)?, number),
                (None, None) => return Ok(false),
                (None, Some(level)) if level.next >= level.page.count => {
                    // Of the leaf that is left its last key stays behind, to judge the next one by.
                    if level.page.is_leaf && level.page.count > 0 {
                        self.last = Some(level.page.key(level.page.count - 1).to_vec());
                    }
                    self.path.pop();
                    continue;
                }
                (None, Some(level)) if level.page.is_leaf => return Ok(true),
                (None, Some(level)) => {
                    let child = level.page.child(level.next);
                    level.next += 1;
                    (db.page(child)?, child)
                }
            };
            let wrong = |problem| Error::Page { page: number, problem };
            if self.path.len() >= DEPTH_MAX {
                return Err(wrong(Problem::Depth));
            }
            // A page comes once: what it begins with lies behind all that came before. An empty leaf can only
            // be the root.
            let follows = match (page.count, &self.last) {
                (0, _) => self.path.is_empty(),
                (_, Some(last)) => page.key(0) > last.as_slice(),
                (_, None) => true,
            };
            if !follows {
                return Err(wrong(Problem::Order));
            }
            self.path.push(Level { page, number, next: 0 });
        }
    }
}
