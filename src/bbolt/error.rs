//! Why a file cannot be read.

use core::fmt;

/// Why a file cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error<E> {
    /// The source of its bytes says so.
    Source(E),
    /// It is no bbolt file at all.
    NotBbolt,
    /// A version that this crate does not know.
    Version {
        /// What the file says.
        found: u32,
    },
    /// Neither meta page has the checksum that it says.
    Meta,
    /// It ends before its last page.
    Truncated {
        /// Bytes of it.
        size: u64,
        /// Bytes that its meta page tells of.
        wanted: u64,
    },
    /// A page of it is damaged.
    Page {
        /// Its number.
        page: u64,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// It lies, at least in part, behind the last page, or is a meta page.
    Bounds,
    /// It says that it is another page.
    Id,
    /// It is neither a leaf nor a branch.
    Kind,
    /// It goes on for more bytes than any page does.
    Size,
    /// An element of it reaches beyond its end.
    Element,
    /// A branch without children.
    Empty,
    /// Its keys are not in order, or not behind those of the pages before it: pages are linked in a circle, or
    /// stand in more than one place.
    Order,
    /// The tree above it is deeper than any is.
    Depth,
    /// A value that must be a bucket is none.
    NoBucket,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bounds => "lies beyond the end of the file",
            Self::Id => "says that it is another page",
            Self::Kind => "is neither a leaf nor a branch",
            Self::Size => "is larger than any page may be",
            Self::Element => "has an element that reaches beyond its end",
            Self::Empty => "is a branch without children",
            Self::Order => "has keys that are out of order",
            Self::Depth => "lies deeper than any page may",
            Self::NoBucket => "holds a value where a bucket is wanted",
        })
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::NotBbolt => f.write_str("it is no bbolt file, which etcd's snapshots are"),
            Self::Version { found } => {
                write!(f, "it is a bbolt file of version {found}, this program reads version 2")
            }
            Self::Meta => f.write_str("both its meta pages are damaged; use another copy"),
            Self::Truncated { size, wanted } => {
                write!(
                    f,
                    "it has {size} bytes and must have {wanted}: it is cut off; use another copy"
                )
            }
            Self::Page { page, problem } => {
                write!(f, "its page {page} {problem}: it is damaged; use another copy")
            }
        }
    }
}

impl<E: core::error::Error> core::error::Error for Error<E> {}
