//! Gauges: the limits of a role, and of each how much is in use, what the most was and how often it was met.
//!
//! Every role has its own and nobody else looks at them. Reactors tell the store theirs when they look
//! around, while something changes; a request for all of them goes the way of a status request, reactor,
//! consensus, store, and takes along what each of them has at that moment.

use alloc::vec::Vec;

use wire::LimitUnit;

/// How the use of several reactors adds up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    /// Together.
    Sum,
    /// The greatest of them: a limit of each connection.
    Greatest,
}

macro_rules! bounds {
    ($($(#[doc = $about:literal])+ $name:ident = $text:literal, $unit:ident, $over:ident;)*) => {
        /// What is limited.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bound {
            $($(#[doc = $about])+ $name,)*
        }

        impl Bound {
            /// All of them, as they are told.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What people call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it counts.
            pub const fn unit(self) -> LimitUnit {
                match self {
                    $(Self::$name => LimitUnit::$unit,)*
                }
            }

            const fn over(self) -> Over {
                match self {
                    $(Self::$name => Over::$over,)*
                }
            }
        }
    };
}

bounds!(
    /// Connections of clients. Beyond it they are closed at once.
    Connections = "connections", Count, Sum;
    /// Requests that were taken in and are not answered.
    Requests = "requests", Count, Sum;
    /// Their bytes.
    RequestBytes = "request-bytes", Bytes, Sum;
    /// Requests of one connection. With as many it is not read from.
    ConnectionRequests = "connection-requests", Count, Greatest;
    /// Their bytes. With half of it the connection is not read from.
    ConnectionBytes = "connection-bytes", Bytes, Greatest;
    /// Frames that have not come in whole. With more, connections are read from one after the other.
    PartialFrames = "partial-frames", Bytes, Sum;
    /// Replies that sockets have not taken. With more, the connection that adds to them is closed.
    UnsentReplies = "unsent-replies", Bytes, Sum;
    /// Answers that clients of HTTP have left unread. With more, a connection that takes nothing is cut.
    HttpUnsent = "http-unsent", Bytes, Sum;
    /// Watches. One more is refused.
    Watches = "watches", Count, Sum;
    /// Watches of one connection. One more is refused.
    ConnectionWatches = "connection-watches", Count, Greatest;
    /// Writes that are not applied. One more is refused.
    Proposals = "proposals", Bytes, Sum;
    /// Entries in memory that other members may lack. The oldest go.
    LogMemory = "log-memory", Bytes, Sum;
    /// The files of the log.
    LogFiles = "log-files", Bytes, Sum;
    /// What the log keeps free for deletes and compaction on a full disk, and what is taken of it.
    LogReserve = "log-reserve", Bytes, Sum;
    /// Memory of reads in progress. They wait for each other.
    Reads = "reads", Bytes, Sum;
    /// Memory of answers of writes that have to be read. They wait for each other.
    Answers = "answers", Bytes, Sum;
    /// Answers of writes that wait to be read. With more, nothing is applied.
    AnswersWaiting = "answers-waiting", Bytes, Sum;
    /// Changed pages that no checkpoint has. With more, nothing is applied before the checkpoint is through.
    DirtyPages = "dirty-pages", Bytes, Sum;
    /// Pages in memory. What is not there is read from the disk; each such read is a hit.
    PageCache = "page-cache", Bytes, Sum;
    /// Clients that are remembered. One more takes the place of another.
    Clients = "clients", Count, Sum;
    /// Leases. One more is refused.
    Leases = "leases", Count, Sum;
    /// What the page file keeps free for deletes and compaction, and what is taken of it.
    DiskReserve = "disk-reserve", Bytes, Sum;
);

/// A limit and its use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// Of what.
    pub bound: Bound,
    /// It; 0: others bound this.
    pub limit: u64,
    /// What is in use.
    pub used: u64,
    /// The most that was.
    pub highest: u64,
    /// How often something was refused, or had to wait.
    pub hits: u64,
}

impl Use {
    /// What another role has of the same.
    fn add(&mut self, other: &Self) {
        match self.bound.over() {
            Over::Sum => {
                self.limit += other.limit;
                self.used += other.used;
                // They need not have been at the same time: no less than what was.
                self.highest += other.highest;
            }
            Over::Greatest => {
                self.limit = self.limit.max(other.limit);
                self.used = self.used.max(other.used);
                self.highest = self.highest.max(other.highest);
            }
        }
        self.hits += other.hits;
    }
}

/// Adds what one role tells to what others have told.
pub fn add(sum: &mut Vec<Use>, told: &[Use]) {
    for other in told {
        match sum.iter_mut().find(|known| known.bound == other.bound) {
            Some(known) => known.add(other),
            None => sum.push(*other),
        }
    }
}

/// The gauges of a role.
pub struct Gauges {
    /// A place for each bound, the role's own or not.
    uses: Vec<Use>,
    /// Which are the role's own.
    own: Vec<Bound>,
    /// What was told last.
    told: Vec<Use>,
}

impl Gauges {
    /// Nothing in use.
    pub fn new(own: &[(Bound, usize)]) -> Self {
        let none = |bound: &Bound| Use { bound: *bound, limit: 0, used: 0, highest: 0, hits: 0 };
        let mut gauges = Self {
            uses: Bound::ALL.iter().map(none).collect(),
            own: own.iter().map(|(bound, _)| *bound).collect(),
            told: Vec::new(),
        };
        for (bound, limit) in own {
            gauges.of(*bound).limit = count(*limit);
        }
        gauges
    }

    #[inline]
    fn of(&mut self, bound: Bound) -> &mut Use {
        &mut self.uses[bound as usize]
    }

    /// The limit is this now.
    pub fn set_limit(&mut self, bound: Bound, limit: u64) {
        self.of(bound).limit = limit;
    }

    /// So much is in use.
    #[inline]
    pub fn see(&mut self, bound: Bound, used: u64) {
        let gauge = self.of(bound);
        gauge.used = used;
        gauge.highest = gauge.highest.max(used);
    }

    /// The same of memory.
    #[inline]
    pub fn see_size(&mut self, bound: Bound, used: usize) {
        self.see(bound, count(used));
    }

    /// So much more is in use.
    #[inline]
    pub fn take(&mut self, bound: Bound, size: usize) {
        let used = self.of(bound).used + count(size);
        self.see(bound, used);
    }

    /// So much less.
    #[inline]
    pub fn give_back(&mut self, bound: Bound, size: usize) {
        let gauge = self.of(bound);
        assert!(gauge.used >= count(size), "{bound:?}: {size} of {} come back", gauge.used);
        gauge.used -= count(size);
    }

    /// So much was in use at some time.
    #[inline]
    pub fn note(&mut self, bound: Bound, size: usize) {
        let gauge = self.of(bound);
        gauge.highest = gauge.highest.max(count(size));
    }

    /// The limit was met.
    pub fn hit(&mut self, bound: Bound) {
        self.of(bound).hits += 1;
    }

    /// It was met so often in all.
    pub fn set_hits(&mut self, bound: Bound, hits: u64) {
        self.of(bound).hits = hits;
    }

    /// What one of them says.
    pub fn get(&self, bound: Bound) -> Use {
        self.uses[bound as usize]
    }

    /// All of them.
    pub fn list(&self) -> Vec<Use> {
        self.own.iter().map(|bound| self.get(*bound)).collect()
    }

    /// All of them, if they are not as they were told last.
    pub fn news(&mut self) -> Option<Vec<Use>> {
        let list = self.list();
        if list == self.told {
            return None;
        }
        self.told.clone_from(&list);
        Some(list)
    }
}

fn count(size: usize) -> u64 {
    u64::try_from(size).expect("a size fits u64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_has_its_place_and_a_name_of_its_own() {
        for (place, bound) in Bound::ALL.iter().enumerate() {
            assert_eq!(*bound as usize, place);
            assert!(bound.name().len() <= 24, "{}", bound.name());
            let same = Bound::ALL.iter().filter(|other| other.name() == bound.name());
            assert_eq!(same.count(), 1, "{}", bound.name());
        }
        assert!(Bound::ALL.len() <= wire::limits::LIMITS_MAX);
    }

    #[test]
    fn what_reactors_tell_is_added_up_and_of_connections_the_greatest_counts() {
        let bounds = [(Bound::Watches, 10), (Bound::ConnectionWatches, 5)];
        let (mut first, mut second) = (Gauges::new(&bounds), Gauges::new(&bounds));
        first.take(Bound::Watches, 7);
        first.give_back(Bound::Watches, 3);
        first.see(Bound::ConnectionWatches, 3);
        second.take(Bound::Watches, 2);
        second.see(Bound::ConnectionWatches, 2);
        second.hit(Bound::ConnectionWatches);
        second.note(Bound::ConnectionWatches, 5);
        let mut sum = first.list();
        add(&mut sum, &second.list());
        let use_of = |bound, limit, used, highest, hits| Use { bound, limit, used, highest, hits };
        assert_eq!(
            sum,
            [use_of(Bound::Watches, 20, 6, 9, 0), use_of(Bound::ConnectionWatches, 5, 3, 5, 1)]
        );
    }

    #[test]
    fn gauges_are_told_when_they_have_changed() {
        let mut gauges = Gauges::new(&[(Bound::Watches, 10)]);
        assert!(gauges.news().is_some());
        assert!(gauges.news().is_none());
        gauges.hit(Bound::Watches);
        assert_eq!(gauges.news().map(|news| news[0].hits), Some(1));
        assert!(gauges.news().is_none());
        // Of others it tells nothing.
        gauges.hit(Bound::Leases);
        assert!(gauges.news().is_none());
    }
}
