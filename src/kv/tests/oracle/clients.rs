//! Clients and what came of their writes, as plainly as it reads.

use std::collections::BTreeMap;

use base::Stamp;
use kv::{Refusal, Remembered, Reply};

use super::{Told, revision};

/// A client.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The entry that last moved it to the end of the order.
    pub place: u64,
    pub floor: u64,
    pub results: BTreeMap<u64, Told>,
}

/// All clients, by id.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    pub by_id: BTreeMap<u64, Client>,
    /// Ids that were given and are not any more.
    pub gone: Vec<u64>,
}

impl Clients {
    pub fn register(&mut self, index: u64, clients_max: u32) -> u64 {
        for _ in 0..2 {
            if self.by_id.len() >= clients_max as usize {
                let oldest = self.by_id.iter().min_by_key(|(_, client)| client.place);
                let id = *oldest.expect("more than none").0;
                self.by_id.remove(&id);
                self.gone.push(id);
            }
        }
        self.by_id.insert(index, Client { place: index, ..Client::default() });
        index
    }

    /// What a write with this stamp is told without being applied.
    pub fn known(&self, stamp: &Stamp) -> Option<Told> {
        let Some(client) = self.by_id.get(&stamp.client.get()) else {
            return Some(Told::Refused(Refusal::SessionExpired));
        };
        let floor = client.floor.max(stamp.floor);
        if stamp.sequence < floor {
            return Some(Told::Refused(Refusal::SessionExpired));
        }
        if let Some(told) = client.results.get(&stamp.sequence) {
            return Some(Told::Repeated(Box::new(told.clone())));
        }
        (stamp.sequence - floor >= 256).then_some(Told::Refused(Refusal::TooManyUnanswered))
    }

    pub fn remember(&mut self, stamp: &Stamp, index: u64, told: &Told) {
        let client = self.by_id.get_mut(&stamp.client.get()).expect("it was known before");
        client.floor = client.floor.max(stamp.floor);
        client.results.insert(stamp.sequence, told.clone());
        let floor = client.floor;
        client.results.retain(|sequence, _| *sequence >= floor);
        assert!(client.results.len() <= 256);
        if index - client.place > 4_096 {
            client.place = index;
        }
    }
}

/// What was kept is what was told first.
pub fn assert_same(result: &Remembered, told: &Told) {
    let expected = match told {
        Told::Reply(Reply::Put { revision, .. }) => Remembered::Put { revision: *revision },
        Told::Reply(Reply::Deleted { revision, count, .. }) => {
            Remembered::Deleted { revision: *revision, count: *count }
        }
        Told::Reply(Reply::Txn(txn)) => {
            Remembered::Txn { revision: txn.revision, succeeded: txn.succeeded }
        }
        Told::Compacted { revision: now, compacted } => {
            Remembered::Compacted { revision: revision(*now), compacted: revision(*compacted) }
        }
        Told::Refused(refusal) => Remembered::Refused(*refusal),
        told => panic!("{told:?} is kept of no write"),
    };
    assert_eq!(*result, expected);
}
