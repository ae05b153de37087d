//! Holding a checkpoint: what it costs, and that it ends.

#![allow(clippy::unwrap_used)]

mod support;

use base::Prng;
use support::maps::{Load, Model, Reader};
use support::{Disk, begin, check, grow, open, options, publish, release};
use tree::{HeldWalk, PageFile};

const LOAD: Load =
    Load { keys: 900, key_size_max: 30, payload_max: 600, run_max: 30_000, puts_in_ten: 6 };

struct Bench {
    prng: Prng,
    file: PageFile,
    disk: Disk,
    model: Model,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            prng: Prng::new(77),
            file: PageFile::create(&options(0)),
            disk: Disk::default(),
            model: Model::default(),
        };
        bench.rounds(4);
        bench
    }

    /// Changes most of what there is, and makes a checkpoint, so many times.
    fn rounds(&mut self, rounds: u32) {
        for round in 0..rounds {
            for _ in 0..1_500 {
                self.model.change(&mut self.prng, &LOAD, &mut self.file, &self.disk);
                grow(&mut self.file, &mut self.disk);
            }
            begin(&mut self.file, &mut self.disk, &round.to_le_bytes());
            publish(&mut self.file, &mut self.disk);
            release(&mut self.file, &mut self.disk);
            self.file.evict();
        }
    }

    fn reader(&mut self) -> Reader {
        Reader::new(&mut self.file, &self.model)
    }
}

#[test]
fn a_held_checkpoint_reads_the_same_after_any_number_of_others() {
    let mut bench = Bench::new();
    let mut reader = bench.reader();
    bench.rounds(12);
    assert!(reader.go_on(&mut bench.prng, &bench.file, &bench.disk, u64::MAX));
}

/// Its branches are in memory, where they do not say the checksums of their children.
#[test]
fn a_checkpoint_that_is_still_the_newest_is_read_through_the_branches_in_memory() {
    let mut bench = Bench::new();
    let mut reader = bench.reader();
    assert!(reader.go_on(&mut bench.prng, &bench.file, &bench.disk, u64::MAX));
}

#[test]
fn a_hold_pins_what_its_checkpoint_reaches_and_a_release_gives_it_back() {
    let mut bench = Bench::new();
    bench.rounds(4);
    let reachable = bench.file.allocated_size();
    let reader = bench.reader();
    assert_eq!(bench.file.held_size_of(reader.root), 0, "all of it is in use or waits anyway");
    bench.rounds(6);
    let pinned = bench.file.held_size_of(reader.root);
    assert_eq!(pinned, bench.file.held_size());
    assert!(pinned > reachable / 2, "{pinned} bytes of {reachable}");
    bench.rounds(12);
    let later = bench.file.held_size_of(reader.root);
    assert!(later >= pinned && later <= reachable, "{later} bytes of {reachable}");

    let free = bench.file.free_size();
    bench.file.release(reader.root);
    assert_eq!(bench.file.held_size(), 0);
    assert_eq!(bench.file.free_size(), free + later);
    for _ in 0..3 {
        begin(&mut bench.file, &mut bench.disk, &[]);
        publish(&mut bench.file, &mut bench.disk);
    }
    let counts = check(&options(0), &bench.disk.image).unwrap();
    assert!(counts.waiting_pages < 16, "{} pages wait, nothing is held", counts.waiting_pages);
}

#[test]
fn one_transfer_after_the_other_does_not_make_the_file_grow() {
    let mut bench = Bench::new();
    let mut sizes = Vec::new();
    let mut pinned = 0;
    for _ in 0..12 {
        let reader = bench.reader();
        bench.rounds(4);
        pinned += bench.file.held_size_of(reader.root);
        bench.file.release(reader.root);
        sizes.push(bench.file.file_size());
    }
    let (early, late) = (sizes[..4].iter().max().unwrap(), sizes[4..].iter().max().unwrap());
    assert!(pinned > 2 * early, "{pinned} bytes were pinned in turn");
    assert!(*late < early + pinned / 4, "{sizes:?} with {pinned} bytes pinned in turn");
}

#[test]
fn a_root_held_twice_is_pinned_until_it_is_released_twice() {
    let mut bench = Bench::new();
    let (mut one, mut other) = (bench.reader(), bench.reader());
    assert_eq!(one.root, other.root);
    bench.rounds(3);
    let mut younger = bench.reader();
    bench.rounds(3);
    assert!(one.go_on(&mut bench.prng, &bench.file, &bench.disk, u64::MAX));
    bench.file.release(one.root);
    bench.rounds(3);
    assert!(other.go_on(&mut bench.prng, &bench.file, &bench.disk, u64::MAX));
    bench.file.release(other.root);
    assert_eq!(bench.file.held_size_of(other.root), 0);
    assert!(bench.file.held_size_of(younger.root) > 0);
    bench.rounds(3);
    assert!(younger.go_on(&mut bench.prng, &bench.file, &bench.disk, u64::MAX));
    bench.file.release(younger.root);
    assert_eq!(bench.file.held_size(), 0);
}

#[test]
fn a_crash_ends_every_hold() {
    let mut bench = Bench::new();
    let reader = bench.reader();
    bench.rounds(6);
    let held = bench.file.held_size_of(reader.root);
    assert!(held > 0);
    let (mut file, _) = open(&options(0), &bench.disk.image).unwrap();
    assert_eq!(file.held_size(), 0);
    assert!(file.free_size() >= bench.file.free_size() + held);
    assert!(HeldWalk::new(&file, reader.root).is_none());
    check(&options(0), &bench.disk.image).expect("no page is lost");
    bench.model.compare(&mut file, &bench.disk);
    assert!(file.hold().is_some());
}

#[test]
fn nothing_can_be_held_before_the_first_checkpoint() {
    assert_eq!(PageFile::create(&options(0)).hold(), None);
}

#[test]
#[should_panic(expected = "walked and not held")]
fn walking_a_released_checkpoint_is_a_bug_that_is_seen() {
    let mut bench = Bench::new();
    let mut reader = bench.reader();
    bench.file.release(reader.root);
    reader.go_on(&mut bench.prng, &bench.file, &bench.disk, 1);
}
