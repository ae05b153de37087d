//! What clients ask about leases.

use base::Prng;

use crate::load::{Ask, Generator};
use crate::model::{Command, Delete, Op, Put, Txn};
use crate::world::World;

impl World {
    fn some_lease(&self, prng: &mut Prng) -> i64 {
        let leases = &self.ghost.model.leases;
        let place = prng.below(leases.len() as u64 + 1);
        let known = leases.keys().nth(usize::try_from(place).expect("few leases"));
        // One that was never there, or is not there any more.
        known.copied().unwrap_or_else(|| i64::try_from(prng.below(9)).expect("small"))
    }

    fn ttl(&self, prng: &mut Prng) -> u64 {
        let (from, to) = self.plan.leases.ttl_ms;
        match prng.below(20) {
            0 => prng.below(100),
            1 => 60_000 + prng.below(200_000),
            _ => from + prng.below(to - from),
        }
    }

    /// The next request, if it is about leases.
    pub fn next_for_leases(&mut self, generator: &Generator) -> Option<Ask> {
        let mut prng = std::mem::replace(&mut self.leasing, Prng::new(0));
        let ask = self.about_leases(generator, &mut prng);
        self.leasing = prng;
        ask
    }

    fn about_leases(&self, generator: &Generator, prng: &mut Prng) -> Option<Ask> {
        let put = |prng: &mut Prng| Put {
            key: generator.key(prng),
            value: b"leased".to_vec(),
            ..Put::default()
        };
        Some(match prng.below(24) {
            0 | 1 if self.ghost.model.leases.len() < 40 => {
                let lease =
                    if prng.one_in(3) { i64::try_from(prng.below(9)).unwrap_or(0) } else { 0 };
                Ask::Write(Command::Grant { lease, ttl_ms: self.ttl(prng) })
            }
            2 if prng.one_in(3) => Ask::Write(Command::Revoke { lease: self.some_lease(prng) }),
            3 | 4 if !self.plan.leases.abandoned => {
                let leases = (0..1 + prng.below(6)).map(|_| self.some_lease(prng)).collect();
                Ask::KeepAlive(leases)
            }
            5 => Ask::TimeToLive {
                lease: self.some_lease(prng),
                keys: prng.one_in(2),
                after: if prng.one_in(3) { generator.key(prng) } else { Vec::new() },
                limit: u32::try_from(prng.below(4)).unwrap_or(0),
            },
            6 if prng.one_in(2) => Ask::Leases {
                after: if prng.one_in(2) { self.some_lease(prng) } else { 0 },
                limit: u32::try_from(prng.below(4)).unwrap_or(0),
            },
            7..10 => {
                let lease = self.some_lease(prng);
                Ask::Write(Command::Put(Put { lease, ..put(prng) }))
            }
            10 => Ask::Write(Command::Put(Put { ignore_lease: true, ..put(prng) })),
            11 => Ask::Write(Command::Put(Put { ttl_ms: self.ttl(prng).max(1), ..put(prng) })),
            12 => {
                let op = |prng: &mut Prng| match prng.below(4) {
                    0 => Op::Delete(Delete { key: generator.key(prng), ..Delete::default() }),
                    1 => Op::Put(Put { ignore_lease: true, ..put(prng) }),
                    _ => Op::Put(Put { lease: self.some_lease(prng), ..put(prng) }),
                };
                let success = (0..1 + prng.below(3)).map(|_| op(prng)).collect();
                Ask::Write(Command::Txn(Txn { success, ..Txn::default() }))
            }
            _ => return None,
        })
    }
}
