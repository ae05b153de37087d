//! The session of a client: numbers for its writes, so that one that is sent again takes effect once.

use std::collections::BTreeSet;

use base::{ClientId, Stamp};

/// The number of a write of a client with a session. It stays the same while the write is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WriteNumber {
    pub(crate) client: ClientId,
    pub(crate) sequence: u64,
}

impl WriteNumber {
    /// The client in whose session it was given.
    pub fn client(self) -> ClientId {
        self.client
    }
}

/// What a client with a session knows of it.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientId,
    unanswered_max: u64,
    next: u64,
    /// Numbers that were given and have not ended.
    open: BTreeSet<u64>,
}

impl Session {
    pub(crate) fn new(client: ClientId, unanswered_max: u32) -> Self {
        Self { client, unanswered_max: unanswered_max.into(), next: 1, open: BTreeSet::new() }
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// The oldest number that is still waited for, or the next one.
    fn floor(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    /// The next number; none while the servers would refuse it.
    pub(crate) fn begin(&mut self) -> Option<WriteNumber> {
        let sequence = self.next;
        if sequence - self.floor() >= self.unanswered_max {
            return None;
        }
        self.next += 1;
        self.open.insert(sequence);
        Some(WriteNumber { client: self.client, sequence })
    }

    /// The stamp with which a write goes out now.
    pub(crate) fn stamp(&self, number: WriteNumber) -> Stamp {
        let WriteNumber { client, sequence } = number;
        // One of a session before has no floor that this one knows.
        let floor = if client == self.client { self.floor().min(sequence) } else { 0 };
        Stamp { client, sequence, floor }
    }

    /// Nobody waits for it any more.
    pub(crate) fn end(&mut self, number: WriteNumber) {
        if number.client == self.client {
            self.open.remove(&number.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_oldest_open_number_and_bounds_the_next() {
        let mut session = Session::new(ClientId::new(9), 3);
        let [a, b, c] = [(); 3].map(|()| session.begin().expect("there is room"));
        assert!(session.begin().is_none());
        session.end(b);
        assert!(session.begin().is_none(), "the oldest one is still open");
        assert_eq!(session.stamp(c), Stamp { client: ClientId::new(9), sequence: 3, floor: 1 });
        session.end(a);
        let d = session.begin().expect("there is room");
        assert_eq!(session.stamp(d), Stamp { client: ClientId::new(9), sequence: 4, floor: 3 });
        let other = WriteNumber { client: ClientId::new(2), sequence: 3 };
        session.end(other);
        assert_eq!(session.stamp(d).floor, 3, "numbers of another session are not its own");
        assert_eq!(session.stamp(other), Stamp { client: ClientId::new(2), sequence: 3, floor: 0 });
    }
}
