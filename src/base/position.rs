//! Positions: ordered numbers that must not be mixed up with each other.
//!
//! Each is a newtype over an integer with `next` and `distance_to`; plain arithmetic is not offered,
//! so that an index is never added to a term by accident. Overflow panics (release builds keep
//! overflow checks): at a billion steps a second a `u64` lasts 580 years.

macro_rules! position {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name($int);

        impl $name {
            /// The position before the first one.
            pub const ZERO: Self = Self(0);
            /// The greatest representable position.
            pub const MAX: Self = Self(<$int>::MAX);

            /// The position with this number.
            #[inline]
            pub const fn new(number: $int) -> Self {
                Self(number)
            }

            /// The number of this position.
            #[inline]
            pub const fn get(self) -> $int {
                self.0
            }

            /// The position behind this one.
            #[inline]
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The position before this one, or none before the first.
            #[inline]
            #[must_use]
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The position `count` steps behind this one.
            #[inline]
            #[must_use]
            pub const fn advance(self, count: $int) -> Self {
                Self(self.0 + count)
            }

            /// Steps from here to `later`, which must not lie before.
            #[inline]
            pub const fn distance_to(self, later: Self) -> $int {
                later.0 - self.0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position!(
    /// A Raft term (Raft paper, section 5.1). Zero: no term yet.
    Term,
    u64
);
position!(
    /// The position of an entry in the replicated log; the first entry has 1.
    LogIndex,
    u64
);
position!(
    /// The sequence number of a group in the WAL of one member; the first group has 1.
    Lsn,
    u64
);
position!(
    /// A revision of the store (etcd's main revision): an empty store has 1, the first write gets 2.
    /// Zero: none.
    Revision,
    u64
);
position!(
    /// The number of a page in the page file: its offset in bytes divided by the page size.
    PageNo,
    u32
);
position!(
    /// The number of a root of the page file: grows by one with every checkpoint plan.
    RootNo,
    u64
);
