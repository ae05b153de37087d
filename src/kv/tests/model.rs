//! Random operations of every kind against the oracle: tiny caches, budgets from 1 up, checkpoints and
//! restarts in between, reads and answers that stay open while the state moves on.
//!
//! `QUORATE_SEED` sets the seed, `QUORATE_TEST_SCALE` multiplies the number of rounds.

#![allow(clippy::unwrap_used)]

mod machine;
mod oracle;
mod tally;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use base::limits::KEY_SIZE_MAX;
use base::{ClientId, Hash128, LeaseId, Prng, Revision, Stamp};
use kv::{
    Answer, Command, Compare, DeleteRange, KeyValueList, Limits, Op, Operand, Outcome, Put,
    RangeRequest, Read, ReadTxn, Refusal, Relation, Reply, SortOrder, SortTarget, Txn,
};
use tree::{Direction, KeyRange, Run, TreeId};

use machine::Machine;
use oracle::{Answered, Oracle, Told};
use tally::Tally;

const ROUNDS: u64 = 330;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// What a round is about.
struct Profile {
    name: &'static str,
    keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
    steps: u64,
    cache_size: u64,
    budget_max: u32,
    /// One in so many entries is a compaction.
    compact_in: u64,
    /// One in so many steps begins a checkpoint.
    checkpoint_in: u64,
    /// One in so many steps is a crash.
    crash_in: u64,
    limits: Limits,
}

fn bytes(prng: &mut Prng, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    prng.fill(&mut bytes);
    bytes
}

fn pick<'s, T>(prng: &mut Prng, from: &'s [T]) -> &'s T {
    &from[usize::try_from(prng.below(from.len() as u64)).unwrap()]
}

fn pick_bytes<'s>(prng: &mut Prng, from: &'s [Vec<u8>]) -> &'s [u8] {
    pick::<Vec<u8>>(prng, from).as_slice()
}

fn profile(number: u64, prng: &mut Prng) -> Profile {
    let small = |prng: &mut Prng| -> Vec<Vec<u8>> {
        (0..50)
            .map(|n| {
                if n == 0 {
                    Vec::new()
                } else {
                    let size = prng.below(60);
                    bytes(prng, size)
                }
            })
            .collect()
    };
    let mixed = |prng: &mut Prng| -> Vec<Vec<u8>> {
        (0..60)
            .map(|n| {
                let size = match n % 6 {
                    0..3 => prng.below(300),
                    3 => 3_500 + prng.below(500),
                    4 => prng.below(30_000),
                    _ => 8_100 + prng.below(200),
                };
                bytes(prng, size)
            })
            .collect()
    };
    let budget_max = *pick(prng, &[1, 2, 7, 40, 1_000, 1 << 20]);
    let base = Profile {
        name: "",
        keys: Vec::new(),
        values: small(prng),
        steps: 4_500,
        cache_size: *pick(prng, &[0, 64 << 10, 1 << 20]),
        budget_max,
        compact_in: *pick(prng, &[15, 60, 400]),
        checkpoint_in: *pick(prng, &[30, 300]),
        crash_in: *pick(prng, &[400, 2_000]),
        limits: Limits { value_size_max: 1 << 20, txn_ops_max: 128 },
    };
    match number % 6 {
        0 => Profile {
            name: "few hot keys",
            keys: (0..1 + prng.below(8)).map(|n| format!("hot{n}").into_bytes()).collect(),
            compact_in: *pick(prng, &[60, 100_000]),
            budget_max: budget_max.max(7),
            ..base
        },
        1 => Profile {
            name: "prefixes",
            keys: (0..60).map(|n| format!("/{}/{}", n % 6, n / 6).into_bytes()).collect(),
            ..base
        },
        2 => {
            let longest = vec![b'm'; KEY_SIZE_MAX];
            let mut keys: Vec<Vec<u8>> = [
                &b""[..],
                b"\0",
                b"\0\0",
                b"\0\x01",
                b"\x01",
                b"a",
                b"a\0",
                b"a\0\0",
                b"a\xff",
                b"b",
                b"\xfe",
                b"\xff",
                b"\xff\0",
                b"\xff\xff",
                b"\xff\xff\xff",
            ]
            .iter()
            .map(|key| key.to_vec())
            .collect();
            keys.push([&longest[..], b"!"].concat());
            keys.push([&longest[1..], b"\xff"].concat());
            keys.push(longest[..KEY_SIZE_MAX - 1].to_vec());
            keys.push(longest);
            keys.push(vec![0xff; KEY_SIZE_MAX + 500]);
            Profile {
                name: "adversarial keys",
                keys,
                values: mixed(prng),
                limits: Limits { value_size_max: 8_200, txn_ops_max: 3 },
                ..base
            }
        }
        3 => Profile {
            name: "many keys",
            keys: (0..1_200).map(|n| format!("key-{n:06}").into_bytes()).collect(),
            budget_max: budget_max.max(40),
            ..base
        },
        4 => Profile {
            name: "large values",
            keys: (0..25).map(|n| format!("large/{n}").into_bytes()).collect(),
            values: mixed(prng),
            steps: 3_000,
            ..base
        },
        _ => Profile {
            name: "long keys",
            keys: (0..80)
                .map(|n| {
                    let mut key = vec![b'k'; 1_000];
                    let size = prng.below(900);
                    key.extend(format!("{n:03}").into_bytes());
                    key.extend(bytes(prng, size));
                    key
                })
                .collect(),
            values: mixed(prng),
            steps: 3_000,
            ..base
        },
    }
}

/// Draws commands and requests from a profile.
struct Generator<'p> {
    profile: &'p Profile,
    prng: Prng,
}

impl<'p> Generator<'p> {
    fn new(profile: &'p Profile, prng: Prng) -> Self {
        Self { profile, prng }
    }

    fn key(&mut self) -> &'p [u8] {
        pick_bytes(&mut self.prng, &self.profile.keys)
    }

    fn range_end(&mut self) -> &'p [u8] {
        match self.prng.below(10) {
            0..4 => b"",
            4 => b"\0",
            5 => b"\xff\xff\xff\xff",
            _ => self.key(),
        }
    }

    fn put(&mut self) -> Put<'p> {
        let ignore_value = self.prng.one_in(12);
        let ignore_lease = self.prng.one_in(12);
        let value_anyway = self.prng.one_in(20);
        let lease = if self.prng.one_in(60) { self.prng.below(3) } else { 0 };
        Put {
            key: self.key(),
            value: if ignore_value && !value_anyway {
                b""
            } else {
                pick_bytes(&mut self.prng, &self.profile.values)
            },
            lease: LeaseId::new(i64::try_from(lease).unwrap()),
            prev_kv: self.prng.one_in(3),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRange<'p> {
        DeleteRange { key: self.key(), range_end: self.range_end(), prev_kv: self.prng.one_in(3) }
    }

    /// A revision around what exists.
    fn revision(&mut self, oracle: &Oracle<'_>) -> i64 {
        match self.prng.below(20) {
            0 => -1,
            1 => *pick(&mut self.prng, &[i64::MIN, -2, i64::MAX]),
            2 => oracle.compacted + *pick(&mut self.prng, &[-1, 0, 1]),
            3 => oracle.revision + *pick(&mut self.prng, &[-1, 0, 1]),
            4..9 => 0,
            _ => {
                let from = oracle.compacted.max(1);
                let kept = u64::try_from(oracle.revision - from).unwrap() + 1;
                from + i64::try_from(self.prng.below(kept)).unwrap()
            }
        }
    }

    fn range(&mut self, oracle: &Oracle<'_>) -> RangeRequest<'p> {
        let mut request = RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            revision: self.revision(oracle),
            serializable: self.prng.one_in(2),
            keys_only: self.prng.one_in(6),
            count_only: self.prng.one_in(10),
            ..RangeRequest::default()
        };
        let prng = &mut self.prng;
        if prng.one_in(2) {
            request.limit = match prng.below(8) {
                0 => *pick(prng, &[i64::MAX, i64::MIN, -1, i64::MAX - 1]),
                1 => 1,
                _ => i64::try_from(prng.below(12)).unwrap(),
            };
        }
        if prng.one_in(3) {
            request.order = *pick(prng, &[SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
            request.target = *pick(
                prng,
                &[
                    SortTarget::Key,
                    SortTarget::Version,
                    SortTarget::Create,
                    SortTarget::Mod,
                    SortTarget::Value,
                ],
            );
        }
        if prng.one_in(6) {
            let bound = |prng: &mut Prng| match prng.below(12) {
                0 => *pick(prng, &[i64::MIN, i64::MAX, -1]),
                1..4 => 0,
                _ => i64::try_from(prng.below(oracle.revision as u64 + 2)).unwrap(),
            };
            request.min_mod_revision = bound(prng);
            request.max_create_revision = bound(prng);
            if prng.one_in(2) {
                request.max_mod_revision = bound(prng);
                request.min_create_revision = bound(prng);
            }
        }
        request
    }

    fn compare(&mut self, oracle: &Oracle<'_>) -> Compare<'p> {
        let (key, range_end) = (self.key(), self.range_end());
        let prng = &mut self.prng;
        let number = match prng.below(6) {
            0 => *pick(prng, &[i64::MIN, i64::MAX, -1]),
            1 | 2 => i64::try_from(prng.below(3)).unwrap(),
            _ => i64::try_from(prng.below(oracle.revision as u64 + 2)).unwrap(),
        };
        let relation = *pick(
            prng,
            &[
                Relation::Equal,
                Relation::Greater,
                Relation::Less,
                Relation::NotEqual,
                Relation::Unknown,
            ],
        );
        let operand = match prng.below(12) {
            0..3 => Operand::Version(number),
            3..5 => Operand::Create(number),
            5..7 => Operand::Mod(number),
            7 => Operand::Lease(number),
            8 => Operand::Unknown,
            _ => Operand::Value(pick_bytes(prng, &self.profile.values)),
        };
        Compare { key, range_end, relation, operand }
    }

    fn ops(&mut self, oracle: &Oracle<'_>, depth: u64, reads_only: bool) -> Vec<Op<'p>> {
        let count = self.prng.below(5);
        let mut ops = Vec::new();
        for _ in 0..count {
            ops.push(match self.prng.below(if reads_only { 1 } else { 12 }) {
                0..3 => {
                    let mut range = self.range(oracle);
                    // Most transactions should get past the check of revisions.
                    let refused = oracle.readable(&range).is_err() || range.revision < 0;
                    if refused && !self.prng.one_in(8) {
                        range.revision = 0;
                    }
                    Op::Range(range)
                }
                3..7 => {
                    let mut put = self.put();
                    if !self.prng.one_in(8) {
                        put.lease = LeaseId::new(0);
                        put.ignore_value &= self.prng.one_in(2);
                    }
                    Op::Put(put)
                }
                7..10 => Op::DeleteRange(self.delete()),
                10 if depth > 0 => Op::Txn(Box::new(self.txn(oracle, depth - 1, false))),
                _ if self.prng.one_in(40) => Op::Unset,
                _ => Op::Put(Put { key: self.key(), ..Put::default() }),
            });
        }
        ops
    }

    fn txn(&mut self, oracle: &Oracle<'_>, depth: u64, reads_only: bool) -> Txn<'p> {
        let mut txn = Txn::default();
        for _ in 0..self.prng.below(3) {
            txn.compares.push(self.compare(oracle));
        }
        txn.success = self.ops(oracle, depth, reads_only);
        txn.failure = self.ops(oracle, depth, reads_only);
        txn
    }

    fn compaction(&mut self, oracle: &Oracle<'_>) -> i64 {
        let deletes: Vec<i64> = oracle
            .events
            .iter()
            .rev()
            .take(200)
            .filter(|event| event.delete)
            .map(|event| event.revision)
            .collect();
        match self.prng.below(10) {
            0 => *pick(&mut self.prng, &[i64::MIN, -1, 0, 1, i64::MAX]),
            1 => oracle.compacted,
            2 => oracle.revision + *pick(&mut self.prng, &[-1, 0, 1]),
            3..7 if !deletes.is_empty() => {
                *pick(&mut self.prng, &deletes) + *pick(&mut self.prng, &[-1, 0, 1])
            }
            _ => {
                let from = oracle.compacted.max(0);
                let kept = u64::try_from(oracle.revision - from).unwrap();
                from + i64::try_from(self.prng.below(kept / 2 + 1)).unwrap()
            }
        }
    }

    fn command(&mut self, oracle: &Oracle<'_>) -> Command<'p> {
        if self.prng.one_in(self.profile.compact_in) {
            let revision = self.compaction(oracle);
            return Command::Compact { revision, physical: self.prng.one_in(2) };
        }
        match self.prng.below(20) {
            0..11 => Command::Put(self.put()),
            11..14 => Command::DeleteRange(self.delete()),
            14..19 => {
                let depth = self.prng.below(4);
                Command::Txn(self.txn(oracle, depth, false))
            }
            _ if self.prng.one_in(3) => {
                Command::Register { clients_max: u32::try_from(1 + self.prng.below(6)).unwrap() }
            }
            _ if self.prng.one_in(3) => {
                Command::Members(pick_bytes(&mut self.prng, &self.profile.values))
            }
            _ => Command::Nothing,
        }
    }
}

impl Generator<'_> {
    /// A stamp of any kind: new, known, below the floor, too far, of a client that is gone or never was.
    fn stamp(&mut self, oracle: &Oracle<'_>) -> Option<Stamp> {
        let ids: Vec<u64> = oracle.clients.by_id.keys().copied().collect();
        let id = match self.prng.below(30) {
            0 => *pick(&mut self.prng, &[0, 1, u64::MAX]),
            1 if !oracle.clients.gone.is_empty() => *pick(&mut self.prng, &oracle.clients.gone),
            2.. if !ids.is_empty() => *pick(&mut self.prng, &ids),
            _ => return None,
        };
        let client = oracle.clients.by_id.get(&id).cloned().unwrap_or_default();
        let newest =
            client.results.keys().next_back().map_or(client.floor, |last| last.saturating_add(1));
        let (floor, prng) = (client.floor, &mut self.prng);
        let sequence = match prng.below(16) {
            0 => *pick(prng, &[0, floor.saturating_sub(1), u64::MAX]),
            1 => floor.saturating_add(*pick(prng, &[255, 256, 257])),
            2..6 => floor + prng.below(newest - floor + 1),
            _ => newest,
        };
        let floor = match prng.below(8) {
            0 => sequence,
            1 => *pick(prng, &[0, u64::MAX, sequence.saturating_add(1)]),
            2..4 => floor + prng.below(newest - floor + 1),
            _ => floor,
        };
        Some(Stamp { client: ClientId::new(id), sequence, floor })
    }
}

struct OpenRead<'p> {
    request: RangeRequest<'p>,
    read: Read,
    pairs: KeyValueList,
    /// The revision it began at, and what it should say.
    begun: i64,
    expected: Result<Answered, Refusal>,
    pinned: i64,
}

struct OpenAnswer {
    answer: Answer,
    expected: Reply,
}

/// A cell, copied out.
struct Dumped {
    key: Vec<u8>,
    payload: Vec<u8>,
    /// For an event: it is to shed what it replaced.
    sheds: bool,
    run: Option<Run>,
}

struct Round<'p> {
    profile: &'p Profile,
    generator: Generator<'p>,
    prng: Prng,
    machine: Machine,
    oracle: Oracle<'p>,
    log: Vec<(Option<Stamp>, Command<'p>)>,
    outcomes: Vec<Outcome>,
    hashes: Vec<Hash128>,
    reads: Vec<OpenRead<'p>>,
    answers: Vec<OpenAnswer>,
    /// Whether trimming waits for open reads, as for answers.
    waits_for_reads: bool,
    published: bool,
    tally: Tally,
}

impl<'p> Round<'p> {
    fn new(profile: &'p Profile, prng: Prng) -> Self {
        let machine = Machine::new(prng.fork("machine"), profile.cache_size, profile.budget_max);
        Self {
            profile,
            generator: Generator::new(profile, prng.fork("generator")),
            prng: prng.fork("round"),
            machine,
            oracle: Oracle::new(),
            log: Vec::new(),
            outcomes: Vec::new(),
            hashes: Vec::new(),
            reads: Vec::new(),
            answers: Vec::new(),
            waits_for_reads: prng.fork("waits for reads").one_in(2),
            published: false,
            tally: Tally::default(),
        }
    }

    fn keep(&self) -> Revision {
        let answers = self.answers.iter().map(|open| open.answer.keeps());
        let reads = self.reads.iter().filter(|_| self.waits_for_reads);
        let reads = reads.filter_map(|open| open.read.keeps());
        answers.chain(reads).min().unwrap_or(Revision::MAX)
    }

    fn step(&mut self) {
        match self.prng.below(100) {
            0..48 => self.entry(),
            48..74 => self.read_once(),
            74..77 => self.begin_read(),
            77..85 => self.go_on(),
            85..89 => self.read_txn(),
            89..93 => {
                let keep = self.keep();
                self.machine.trim_step(keep);
            }
            93..95 => self.machine.evict(),
            95 if self.prng.one_in(8) => self.verify_trimmed(),
            _ => {
                if self.machine.state.pages().checkpoint_running() {
                    let writes = 1 + self.prng.below(4);
                    let published = self.machine.checkpoint_step(writes);
                    self.published |= published;
                    self.tally.checkpoints += u64::from(published);
                }
            }
        }
        if self.prng.one_in(self.profile.checkpoint_in)
            && !self.machine.state.pages().checkpoint_running()
        {
            self.machine.checkpoint_begin();
        }
        if self.published && self.prng.one_in(self.profile.crash_in) {
            self.crash();
        }
    }

    fn entry(&mut self) {
        let command = self.generator.command(&self.oracle);
        let limits = &self.profile.limits;
        let validated = command.validate(limits);
        assert_eq!(validated, oracle::validate(&command, limits), "{command:?}");
        if validated.is_err() {
            self.tally.validations_refused += 1;
            // Apply must bear what validation refuses, but it is not what we want most of.
            if !self.prng.one_in(4) {
                return;
            }
        }
        let bypasses =
            matches!(command, Command::Register { .. } | Command::Members(_) | Command::Nothing);
        let stamped = !bypasses && self.prng.one_in(3);
        let stamp = if stamped { self.generator.stamp(&self.oracle) } else { None };
        let stamp = stamp.as_ref();
        if self.prng.one_in(4) {
            let mut misses = Vec::new();
            if let Some(stamp) = stamp {
                self.machine.state.foresee_stamp(stamp, &mut |miss| {
                    misses.push(miss);
                    ControlFlow::Continue(())
                });
                for miss in misses.drain(..) {
                    self.machine.fetch(miss);
                }
            }
            self.machine.state.prefetch(&command, &mut misses);
            for miss in misses {
                self.machine.fetch(miss);
            }
        }
        let outcome = loop {
            if let Some(outcome) = self.machine.apply_once_step(stamp, &command) {
                break outcome;
            }
            // The entry is half applied: nothing of it may be seen.
            match self.prng.below(16) {
                0 => {
                    self.read_once();
                    self.tally.half_applied_reads += 1;
                }
                1 => self.machine.evict(),
                2 => {
                    let keep = self.keep();
                    self.machine.trim_step(keep);
                }
                3 => self.go_on(),
                _ => {}
            }
        };
        let told = self.oracle.apply_once(stamp, &command);
        oracle::assert_agrees(&outcome, &told);
        self.tally.entries += 1;
        self.tally.repeated += u64::from(matches!(told, Told::Repeated(_)));
        self.tally.expired += u64::from(matches!(told, Told::Refused(Refusal::SessionExpired)));
        self.tally.too_far += u64::from(matches!(told, Told::Refused(Refusal::TooManyUnanswered)));
        self.tally.refused += u64::from(matches!(told, Told::Refused(_)));
        if let Told::Compacted { compacted, .. } = told {
            let first = self.oracle.events.first();
            let at_delete = first.is_some_and(|event| event.delete && event.revision == compacted);
            self.tally.compacted_at_deletes += u64::from(at_delete);
        }
        if let Some(mut answer) = Answer::new(&command, &outcome) {
            let Told::Reply(expected) = told else { panic!("{told:?} for {command:?}") };
            self.tally.answers += 1;
            if self.prng.one_in(4) && self.answers.len() < 5 {
                self.answers.push(OpenAnswer { answer, expected });
            } else {
                let reply = self.machine.answer(&mut answer);
                assert_eq!(reply, Ok(expected), "{command:?}");
            }
        } else if let Told::Reply(told) = told {
            match told {
                Reply::Put { prev, .. } => assert!(prev.is_empty() || !asked(&command)),
                Reply::Deleted { prev, .. } => assert!(prev.is_empty() || !asked(&command)),
                Reply::Txn(_) => panic!("a transaction without an answer"),
            }
        }
        self.check_numbers();
        self.log.push((stamp.copied(), command));
        self.outcomes.push(outcome);
        self.hashes.push(self.machine.hash());
    }

    fn check_numbers(&self) {
        let state = &self.machine.state;
        assert_eq!(state.revision(), oracle::revision(self.oracle.revision));
        let compacted = u64::try_from(self.oracle.compacted).ok().map(Revision::new);
        assert_eq!(state.compacted(), compacted);
        let (bytes, index) = state.members();
        assert_eq!((bytes, index.get()), self.oracle.members);
        assert_eq!(state.clients(), self.oracle.clients.by_id.len() as u64);
    }

    fn read_once(&mut self) {
        let request = self.generator.range(&self.oracle);
        let expected = self.oracle.read(&request);
        let found = self.machine.read(&request);
        let found = found.map(|(pairs, end)| Answered { pairs, end });
        assert_eq!(found, expected, "{request:?} at {}", self.oracle.revision);
        self.tally.reads += 1;
    }

    fn begin_read(&mut self) {
        if self.reads.len() > 8 {
            return;
        }
        let request = self.generator.range(&self.oracle);
        let expected = self.oracle.read(&request);
        let pinned = self.oracle.readable(&request).unwrap_or(i64::MAX);
        self.reads.push(OpenRead {
            request,
            read: Read::new(&request),
            pairs: KeyValueList::default(),
            begun: self.oracle.revision,
            expected,
            pinned,
        });
        // The first step pins it.
        self.step_read(self.reads.len() - 1);
    }

    /// Steps something that is open.
    fn go_on(&mut self) {
        if !self.answers.is_empty() && self.prng.one_in(3) {
            let at = usize::try_from(self.prng.below(self.answers.len() as u64)).unwrap();
            if let Some(reply) = self.machine.answer_step(&mut self.answers[at].answer) {
                let open = self.answers.swap_remove(at);
                assert_eq!(reply, Ok(open.expected));
            }
        } else if !self.reads.is_empty() {
            let at = usize::try_from(self.prng.below(self.reads.len() as u64)).unwrap();
            self.step_read(at);
        }
    }

    fn step_read(&mut self, at: usize) {
        let open = &mut self.reads[at];
        let step = self.machine.read_step(&mut open.read, &mut open.pairs);
        let Some(end) = step else { return };
        let open = self.reads.swap_remove(at);
        self.tally.open_reads += 1;
        let overtaken = open.pinned < self.oracle.compacted;
        match end {
            Err(Refusal::Compacted) if open.expected.is_ok() => {
                assert!(overtaken && !self.waits_for_reads, "{:?}", open.request);
                assert!(open.request.revision > 0 || !open.pairs.is_empty());
                self.tally.overtaken += 1;
            }
            Err(refusal) => assert_eq!(open.expected, Err(refusal), "{:?}", open.request),
            Ok(end) if end.revision == oracle::revision(open.begun) => {
                self.tally.waited_for += u64::from(overtaken && self.waits_for_reads);
                let found = Answered { pairs: open.pairs, end };
                assert_eq!(Ok(found), open.expected, "{:?} from {}", open.request, open.begun);
            }
            Ok(end) => {
                assert!(overtaken && open.request.revision <= 0, "{:?}", open.request);
                let at = i64::try_from(end.revision.get()).unwrap();
                self.tally.restarted += 1;
                // It may have been overtaken once more, and the oracle knows of no history that is given up.
                if at >= self.oracle.compacted {
                    let expected = self.oracle.range(&open.request, at, at);
                    assert_eq!(Answered { pairs: open.pairs, end }, expected, "{:?}", open.request);
                }
            }
        }
    }

    fn read_txn(&mut self) {
        let txn = self.generator.txn(&self.oracle, 0, true);
        let expected = self.oracle.read_txn(&txn);
        assert!(txn.is_read_only());
        let mut read = ReadTxn::new();
        let reply = loop {
            if let Some(reply) = self.machine.read_txn_step(&mut read, &txn) {
                break reply;
            }
        };
        assert_eq!(reply, expected, "{txn:?}");
        self.tally.read_txns += 1;
    }

    /// Trims to the end and looks at what is left, cell by cell.
    fn verify_trimmed(&mut self) {
        while let Some(mut open) = self.answers.pop() {
            assert_eq!(self.machine.answer(&mut open.answer), Ok(open.expected));
        }
        while self.waits_for_reads && !self.reads.is_empty() {
            self.step_read(0);
        }
        self.machine.trim();
        if self.oracle.compacted >= 0 {
            let trimmed = self.machine.state.trimmed();
            assert!(trimmed >= oracle::revision(self.oracle.compacted), "{trimmed}");
        }
        let current = self.dump(TreeId(0));
        let expected: Vec<&[u8]> = self.oracle.keys.keys().copied().collect();
        assert!(current.iter().map(|cell| &cell.key).eq(expected));
        let events = self.dump(TreeId(1));
        assert_eq!(events.len(), self.oracle.events.len());
        let mut boundary = BTreeSet::new();
        for (cell, event) in events.iter().zip(&self.oracle.events) {
            let (revision, sub) = cell.key.split_first_chunk::<8>().unwrap();
            assert_eq!(i64::from_be_bytes(*revision), event.revision);
            assert_eq!(sub, event.sub.to_be_bytes());
            assert_eq!(cell.payload[0] & 1, u8::from(event.delete));
            assert_eq!(&cell.payload[3..3 + event.key.len()], event.key);
            let has_shed = cell.payload[0] & 2 != 0;
            if event.revision > self.oracle.compacted {
                assert!(!has_shed, "{event:?} behind the boundary keeps what it replaced");
                continue;
            }
            assert!(!cell.sheds, "{event:?} at the boundary has not shed");
            // Only what an earlier change of the same revision wrote stays with its run.
            let again = !boundary.insert(event.key);
            assert!(again || cell.run.is_none(), "{event:?} at the boundary owns a run");
            assert!(!(again && has_shed), "{event:?} replaced what the same revision wrote");
            self.tally.shed += u64::from(has_shed);
        }
        let live = self.oracle.live_keys(i64::MAX).len() as u64;
        assert_eq!(self.machine.state.pages().summary(TreeId(0)).count, live);
        self.tally.trims_verified += 1;
    }

    fn dump(&mut self, tree: TreeId) -> Vec<Dumped> {
        let mut cells: Vec<Dumped> = Vec::new();
        loop {
            let mut start = cells.last().map_or(Vec::new(), |cell| cell.key.clone());
            if !cells.is_empty() {
                start.push(0);
            }
            let range = KeyRange { start: &start, end: None };
            let walked = self.machine.state.pages().walk(
                tree,
                range,
                Direction::Ascending,
                &mut |_| false,
                &mut |cell| {
                    cells.push(Dumped {
                        key: cell.key.to_vec(),
                        payload: cell.payload.to_vec(),
                        sheds: cell.number != 0,
                        run: cell.run,
                    });
                    ControlFlow::Continue(())
                },
            );
            match walked {
                Ok(()) => return cells,
                Err(miss) => self.machine.fetch(miss),
            }
        }
    }

    /// Loses everything behind the newest checkpoint and applies the log from there again.
    fn crash(&mut self) {
        self.tally.fetched += self.machine.fetched;
        self.machine.fetched = 0;
        self.reads.clear();
        self.answers.clear();
        self.machine.reopen();
        self.tally.crashes += 1;
        let (applied, _) = self.machine.state.applied();
        let mut index = usize::try_from(applied.get()).unwrap();
        if index > 0 {
            assert_eq!(self.machine.hash(), self.hashes[index - 1], "opened at {index}");
        }
        while index < self.log.len() {
            let (stamp, command) = &self.log[index];
            let outcome = self.machine.apply_once(stamp.as_ref(), command);
            assert_eq!(outcome, self.outcomes[index], "{:?} again", self.log[index]);
            assert_eq!(self.machine.hash(), self.hashes[index], "{:?} again", self.log[index]);
            index += 1;
            self.tally.replayed += 1;
            if self.prng.one_in(50) {
                self.machine.evict();
            }
            if self.prng.one_in(50) {
                self.machine.trim_step(Revision::MAX);
            }
        }
        self.check_numbers();
    }

    /// Reads the whole store at many kept revisions, at all of them when there are few.
    fn read_history(&mut self) {
        let from = self.oracle.compacted.max(1);
        let kept = self.oracle.revision - from + 1;
        let stride = (kept / 150).max(1);
        let mut revision = self.oracle.revision;
        while revision >= from {
            let request =
                RangeRequest { key: b"\0", range_end: b"\0", revision, ..RangeRequest::default() };
            let expected = self.oracle.read(&request);
            let found = self.machine.read(&request);
            let found = found.map(|(pairs, end)| Answered { pairs, end });
            assert_eq!(found, expected, "at {revision}");
            let count = RangeRequest { count_only: true, limit: 1, ..request };
            let (_, end) = self.machine.read(&count).unwrap();
            assert_eq!(end.count, expected.unwrap().end.count, "count at {revision}");
            self.tally.reads += 2;
            revision -= stride;
        }
    }

    fn finish(&mut self) {
        while !self.reads.is_empty() {
            self.step_read(0);
        }
        self.read_history();
        self.verify_trimmed();
        // Two checkpoints: the second one frees what only the first one's predecessor reached.
        for _ in 0..3 {
            self.machine.checkpoint();
        }
        let counts = self.machine.verify();
        assert_eq!(counts.cells[0], self.oracle.keys.len() as u64);
        assert_eq!(counts.cells[1], self.oracle.events.len() as u64);
        let clients = &self.oracle.clients.by_id;
        let results: usize = clients.values().map(|client| client.results.len()).sum();
        assert_eq!(counts.cells[2], (clients.len() + results) as u64);
        assert_eq!(counts.cells[3], clients.len() as u64);
        self.tally.fetched += self.machine.fetched;
    }

    /// The same log with other budgets, another cache, other checkpoints and other trimming must give
    /// the same hash at every index.
    fn replay_elsewhere(&mut self) {
        let budget_max = *pick(&mut self.prng, &[1, 1 << 20]);
        let mut other = Machine::new(self.prng.fork("other"), 0, budget_max);
        for (index, (stamp, command)) in self.log.iter().enumerate() {
            let outcome = other.apply_once(stamp.as_ref(), command);
            assert_eq!(outcome, self.outcomes[index]);
            assert_eq!(other.hash(), self.hashes[index], "index {}", index + 1);
            match self.prng.below(100) {
                0 => other.checkpoint(),
                1..4 => other.trim(),
                4..8 => other.evict(),
                _ => {}
            }
        }
    }
}

fn asked(command: &Command<'_>) -> bool {
    match command {
        Command::Put(put) => put.prev_kv,
        Command::DeleteRange(delete) => delete.prev_kv,
        Command::Txn(_)
        | Command::Compact { .. }
        | Command::Members(_)
        | Command::Register { .. }
        | Command::PutWithTtl { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseKeepAlive { .. }
        | Command::LeaseExpire { .. }
        | Command::LogTime { .. }
        | Command::Raise(_)
        | Command::Disarm { .. }
        | Command::Nothing => false,
    }
}

#[test]
fn random_operations_agree_with_the_oracle_and_members_agree_with_each_other() {
    let seed = from_env("QUORATE_SEED", 1);
    let rounds = ROUNDS * from_env("QUORATE_TEST_SCALE", 1);
    println!("QUORATE_SEED={seed}, {rounds} rounds");
    let mut total = Tally::default();
    for round in 0..rounds {
        let mut prng = Prng::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let profile = profile(round, &mut prng);
        let mut run = Round::new(&profile, prng);
        let shown = std::panic::AssertUnwindSafe(&mut run);
        let result = std::panic::catch_unwind(move || {
            let run = shown;
            for _ in 0..run.0.profile.steps {
                run.0.step();
            }
            run.0.finish();
            if round % 4 == 0 {
                run.0.replay_elsewhere();
            }
        });
        if let Err(panic) = result {
            eprintln!(
                "QUORATE_SEED={seed} round {round}, {}, budget {}, cache {}, entry {}",
                profile.name,
                profile.budget_max,
                profile.cache_size,
                run.log.len() + 1
            );
            std::panic::resume_unwind(panic);
        }
        total.add(&run.tally);
    }
    println!("{total:?}");
    let operations = total.entries + total.reads + total.open_reads + total.read_txns;
    println!("{operations} operations");
    for (what, count) in [
        ("restarted reads", total.restarted),
        ("overtaken reads", total.overtaken),
        ("reads that were waited for", total.waited_for),
        ("half applied reads", total.half_applied_reads),
        ("verified trims", total.trims_verified),
        ("compactions at a delete", total.compacted_at_deletes),
        ("shed events", total.shed),
        ("repeated writes", total.repeated),
        ("expired stamps", total.expired),
        ("stamps too far ahead", total.too_far),
        ("crashes", total.crashes),
        ("fetches", total.fetched),
    ] {
        assert!(count > 0, "{what} never happened");
    }
}
