//! States that are taken apart and made again from their versions: every revision that could be read reads the
//! same, watches are told the same, and the sums are those that a member would check.
//!
//! `QUORATE_SEED` sets the seed.

#![allow(clippy::unwrap_used)]

mod machine;

use base::{LeaseId, LogIndex, Prng, Revision, Term};
use kv::{
    Changes, Chunk, Command, DeleteRange, Export, Facts, Fed, History, HistoryHash,
    HistoryHashError, HistoryLimits, HistoryStep, Import, Item, Op, Point, Put, RangeRequest,
    Refusal, Restore, RestoreEnd, State, Step, Txn, Unpack, UnpackError, Wanted,
};
use tree::{Miss, PageFile};

use machine::{Machine, options, write_checkpoint};

/// A version: when, the key, and what was written, none for a delete.
type Version = (Point, Vec<u8>, Option<(Facts, Vec<u8>)>);

fn keys(prng: &mut Prng) -> Vec<u8> {
    format!("key {}", prng.below(60)).into_bytes()
}

/// A machine with history, leases and a compaction.
fn machine(prng: &mut Prng, compacts: bool) -> Machine {
    let mut machine = Machine::new(prng.fork("machine"), 300_000, 100);
    for number in 0..900_u64 {
        let (one, two) = (keys(prng), keys(prng));
        let size = if prng.one_in(15) { 9_000 } else { prng.below(90) };
        let value = vec![7; usize::try_from(size).unwrap()];
        let lease = LeaseId::new(i64::try_from(prng.below(12)).unwrap() - 3);
        match prng.below(12) {
            0 => drop(machine.apply(&Command::LeaseGrant { time: number, lease, ttl_ms: 5_500 })),
            1 => drop(machine.apply(&Command::LeaseRevoke { lease })),
            2 => {
                let success = vec![
                    Op::Put(Put { key: &one, value: &value, ..Put::default() }),
                    Op::DeleteRange(DeleteRange { key: &two, ..DeleteRange::default() }),
                ];
                let txn = Txn { compares: vec![], success, failure: vec![] };
                machine.apply(&Command::Txn(txn));
            }
            3 | 4 => {
                let delete = DeleteRange { key: &one, ..DeleteRange::default() };
                machine.apply(&Command::DeleteRange(delete));
            }
            5 if compacts && number > 300 && prng.one_in(8) => {
                let newest = i64::try_from(machine.state.revision().get()).unwrap();
                let physical = false;
                machine.apply(&Command::Compact { revision: newest - 40, physical });
                if prng.one_in(2) {
                    machine.trim();
                }
            }
            _ => {
                let lease = if prng.one_in(3) { lease } else { LeaseId::new(0) };
                machine.apply(&Command::Put(Put {
                    key: &one,
                    value: &value,
                    lease,
                    ..Put::default()
                }));
            }
        }
        machine.evict();
        if prng.one_in(20) {
            machine.checkpoint();
        }
    }
    machine.checkpoint();
    machine
}

fn export(machine: &mut Machine) -> Vec<Vec<u8>> {
    let root = machine.state.pages_mut().hold().unwrap();
    let mut export = Export::new(&machine.state, root).unwrap();
    let mut chunks = Vec::new();
    loop {
        let (mut chunk, mut budget) = (Vec::new(), 1_000);
        match export.step(&machine.state, &mut chunk, &mut budget) {
            Step::Done(end) => {
                chunks.push(chunk);
                if end == Chunk::Last {
                    machine.state.pages_mut().release(root);
                    return chunks;
                }
            }
            Step::More => {}
            Step::Miss(miss) => export.install(miss, machine.read_image(miss)).unwrap(),
            Step::Damaged(damage) => panic!("{damage}"),
        }
    }
}

/// What the chunks hold: versions in order, and leases.
fn unpack(chunks: &[Vec<u8>]) -> (Unpack, Vec<Version>, Vec<(LeaseId, u64)>) {
    let (mut unpack, mut versions, mut leases) = (Unpack::new(), Vec::new(), Vec::new());
    for (number, chunk) in chunks.iter().enumerate() {
        let last = unpack.take(chunk, &mut |item| match *item {
            Item::Version { at, key, live } => {
                let live = live.map(|(facts, value)| (facts, value.to_vec()));
                versions.push((at, key.to_vec(), live));
            }
            Item::Lease { id, ttl_ms } => leases.push((id, ttl_ms)),
        });
        assert_eq!(last, Ok(number + 1 == chunks.len()));
    }
    versions.sort_by_key(|(at, ..)| *at);
    (unpack, versions, leases)
}

fn restore(unpack: &Unpack, versions: &[Version], leases: &[(LeaseId, u64)]) -> (State, Vec<u8>) {
    let mut restore =
        Restore::new(PageFile::create(&options(200_000)), unpack.head().unwrap().compacted);
    let mut image = Vec::new();
    let fetch = |restore: &mut Restore, miss: Miss, image: &[u8]| {
        let offset = usize::try_from(miss.offset()).unwrap();
        let bytes = image[offset..offset + miss.size()].to_vec();
        restore.state_mut().pages_mut().install(miss, &bytes).unwrap();
    };
    for (id, ttl_ms) in leases {
        while let Step::Miss(miss) = restore.lease(*id, *ttl_ms).unwrap() {
            fetch(&mut restore, miss, &image);
        }
    }
    for (number, (at, key, live)) in versions.iter().enumerate() {
        let live = live.as_ref().map(|(facts, value)| (*facts, value.as_slice()));
        while let Step::Miss(miss) = restore.version(*at, key, live).unwrap() {
            fetch(&mut restore, miss, &image);
        }
        if number % 50 == 49 {
            restore.state_mut().checkpoint_begin();
            while !write_checkpoint(restore.state_mut().pages_mut(), &mut image, 100) {}
            restore.state_mut().pages_mut().evict();
        }
    }
    loop {
        match restore.finish(&mut 1) {
            Step::Done(()) => break,
            Step::More => {}
            Step::Miss(miss) => fetch(&mut restore, miss, &image),
            Step::Damaged(damage) => panic!("{damage}"),
        }
    }
    let revision = unpack.head().unwrap().revision;
    let (applied, term) = (LogIndex::new(1), Term::new(1));
    let mut state = restore.into_state(&RestoreEnd {
        revision,
        applied,
        term,
        members: b"members",
        alarms: &[],
    });
    state.checkpoint_begin();
    while !write_checkpoint(state.pages_mut(), &mut image, 100) {}
    (state, image)
}

fn history(machine: &mut Machine, from: Revision) -> Vec<Changes> {
    let all = [(&b"\0"[..], &b"\0"[..])];
    let wanted = Wanted { previous: true, ..Wanted::default() };
    let start = Point { revision: from, sub: 0 };
    let mut history = History::new(start, all, wanted, &HistoryLimits::SERVER);
    let mut told = Vec::new();
    loop {
        let (mut budget, mut out) = (1_000, Changes::default());
        let step = history.step(&machine.state, &mut budget, &mut out);
        if !out.is_empty() {
            told.push(out);
        }
        match step {
            HistoryStep::Caught(_) => return told,
            HistoryStep::Piece | HistoryStep::More => {}
            HistoryStep::Miss(miss) => machine.fetch(miss),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_state_made_of_its_versions_reads_and_tells_the_same() {
    let seed = std::env::var("QUORATE_SEED").map_or(11, |seed| seed.parse().unwrap());
    for round in 0..6_u64 {
        let mut prng = Prng::new(seed + round);
        let mut machine = machine(&mut prng, round % 3 != 0);
        let chunks = export(&mut machine);
        let (unpacked, versions, leases) = unpack(&chunks);
        let head = unpacked.head().unwrap().clone();
        assert_eq!(
            (head.revision, head.compacted),
            (machine.state.revision(), machine.state.compacted())
        );
        let (state, image) = restore(&unpacked, &versions, &leases);
        let mut restored = Machine::over(state, image, prng.fork("restored"), 100);
        restored.verify();
        let first = head.compacted.map_or(1, Revision::get);
        for trimmed in [false, true] {
            for revision in first..=head.revision.get() {
                let revision = i64::try_from(revision).unwrap();
                let all = RangeRequest {
                    key: &[0],
                    range_end: &[0],
                    revision,
                    ..RangeRequest::default()
                };
                let (pairs, end) = machine.read(&all).unwrap();
                assert_eq!(
                    restored.read(&all).unwrap(),
                    (pairs, end),
                    "round {round} at {revision}"
                );
            }
            let from = if trimmed { Revision::new(first).next() } else { Revision::new(first) };
            let whole = |told: &[Changes]| -> Vec<String> {
                let told = told.iter().flat_map(Changes::iter);
                // Whether a lease had its part in a delete is not told by a snapshot.
                told.map(|c| format!("{:?} {:?} {:?}", c.at, c.kv, c.previous)).collect()
            };
            if head.compacted.is_none() || trimmed {
                let (one, two) = (history(&mut machine, from), history(&mut restored, from));
                assert_eq!(whole(&one), whole(&two), "round {round}");
            }
            machine.trim();
            restored.trim();
            restored.evict();
        }
        // What a member would check of it.
        restored.checkpoint();
        let again = export(&mut restored);
        let mut import = Import::new(PageFile::create(&options(1 << 30)));
        for chunk in &again {
            let fed = import.feed(chunk, &mut u32::MAX.clone()).unwrap();
            assert!(matches!(fed, Fed::Next | Fed::Last));
        }
        assert_eq!(import.finish().unwrap().state_hash(), restored.hash());
        // And of a part of it nothing is made.
        let (mut broken, mut unpack) = (chunks.clone(), Unpack::new());
        let place = usize::try_from(prng.below(u64::try_from(broken.len()).unwrap())).unwrap();
        broken[place][20] ^= 1;
        let mut results = broken.iter().map(|chunk| unpack.take(chunk, &mut |_| {}));
        let number = u64::try_from(place).unwrap();
        assert_eq!(results.find(Result::is_err), Some(Err(UnpackError::Checksum { number })));
    }
}

/// The history up to a revision as one number.
fn history_hash(machine: &mut Machine, revision: Option<Revision>) -> Result<u32, Refusal> {
    machine.checkpoint();
    let mut hash = HistoryHash::new(revision);
    for chunk in export(machine) {
        match hash.take(&chunk) {
            Ok(_) => {}
            Err(HistoryHashError::Refused(refusal)) => return Err(refusal),
            Err(HistoryHashError::Chunk(error)) => panic!("{error}"),
        }
    }
    Ok(hash.finish())
}

/// Members trim at moments of their own, and one may have got its state from another or from a file.
#[test]
fn the_hash_of_a_history_does_not_depend_on_what_has_been_trimmed_or_how_it_came() {
    let seed = std::env::var("QUORATE_SEED").map_or(11, |seed| seed.parse().unwrap());
    for round in 0..6_u64 {
        let mut prng = Prng::new(seed + round);
        let mut machine = machine(&mut prng, round % 3 != 0);
        let newest = machine.state.revision();
        let first = machine.state.compacted().unwrap_or(Revision::new(1));
        let middle = Revision::new(u64::midpoint(first.get(), newest.get()));
        let asked = [None, Some(newest), Some(middle), Some(first)];
        let hashes = |machine: &mut Machine| asked.map(|at| history_hash(machine, at).unwrap());
        let told = hashes(&mut machine);
        assert_eq!(told[0], told[1], "round {round}");
        assert_ne!(told[1], told[2], "round {round}");

        let chunks = export(&mut machine);
        let mut import = Import::new(PageFile::create(&options(1 << 30)));
        for chunk in &chunks {
            assert!(import.feed(chunk, &mut u32::MAX.clone()).is_ok());
        }
        let sent = import.finish().unwrap();
        let mut sent = Machine::over(sent, Vec::new(), prng.fork("sent"), 100);
        assert_eq!(hashes(&mut sent), told, "round {round}, sent");
        let (unpacked, versions, leases) = unpack(&chunks);
        let (state, image) = restore(&unpacked, &versions, &leases);
        let mut restored = Machine::over(state, image, prng.fork("restored"), 100);
        assert_eq!(hashes(&mut restored), told, "round {round}, restored");
        machine.trim();
        assert_eq!(hashes(&mut machine), told, "round {round}, trimmed");

        let refused = |machine: &mut Machine, at| history_hash(machine, Some(at)).unwrap_err();
        assert_eq!(refused(&mut machine, newest.next()), Refusal::FutureRevision);
        if machine.state.compacted().is_some() {
            let below = Revision::new(first.get() - 1);
            assert_eq!(refused(&mut machine, below), Refusal::Compacted);
        }
        // Compacted further: one trims at once, another not yet.
        let physical = false;
        let compact = Command::Compact { revision: middle.get().cast_signed(), physical };
        for member in [&mut machine, &mut sent, &mut restored] {
            member.apply(&compact);
        }
        machine.trim();
        let told = history_hash(&mut machine, None);
        assert_eq!(history_hash(&mut sent, None), told, "round {round}, not trimmed");
        assert_eq!(history_hash(&mut restored, None), told, "round {round}, restored");
    }
}

/// Tombstones, old values, leases and versions count, and only up to the revision.
#[test]
fn the_hash_of_a_history_covers_every_version_and_nothing_later() {
    let mut machine = Machine::new(Prng::new(1), 300_000, 100);
    let grant = Command::LeaseGrant { time: 1, lease: LeaseId::new(7), ttl_ms: 5_500 };
    machine.apply(&grant);
    let put = |value: &'static [u8], lease| {
        Command::Put(Put { key: b"a", value, lease: LeaseId::new(lease), ..Put::default() })
    };
    let delete = DeleteRange { key: b"a", ..DeleteRange::default() };
    let mut told = vec![history_hash(&mut machine, None).unwrap()];
    for command in [put(b"1", 0), put(b"1", 0), put(b"1", 7), Command::DeleteRange(delete)] {
        machine.apply(&command);
        told.push(history_hash(&mut machine, None).unwrap());
    }
    machine.apply(&put(b"2", 0));
    for (number, hash) in told.iter().enumerate() {
        assert!(!told[..number].contains(hash), "{told:?}");
        let at = Revision::new(u64::try_from(number).unwrap() + 1);
        assert_eq!(history_hash(&mut machine, Some(at)), Ok(*hash), "at {at:?}");
    }
    // The delete at the compacted revision stays, earlier ones go.
    let compact = |revision| Command::Compact { revision, physical: false };
    machine.apply(&compact(5));
    let at = history_hash(&mut machine, Some(Revision::new(5))).unwrap();
    machine.apply(&compact(6));
    assert_ne!(history_hash(&mut machine, None).unwrap(), at);
}
