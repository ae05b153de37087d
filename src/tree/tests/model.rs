//! Random changes against maps, with a tiny cache, checkpoints in the middle of changes, reopening,
//! and older checkpoints that are held and read meanwhile.

#![allow(clippy::unwrap_used)]

mod support;

use base::Prng;
use support::maps::{Load, Model, Reader};
use support::{Disk, begin, check, grow, open, options, publish, release, scale, seed, write_one};
use tree::{META_SIZE, PageFile};

/// What both selectable slots hold must be whole at every time: no page below them is reused (I11).
fn check_both_slots(disk: &Disk, newest: u64, older: Option<(&Model, u64)>, cache_size: u64) {
    let counts = check(&options(0), &disk.image).expect("the newest checkpoint is whole");
    assert_eq!(counts.root.get(), newest);
    let Some((model, root)) = older else { return };
    let mut image = disk.image.clone();
    let slots = [0, 64 << 10];
    let newest_slot = slots
        .into_iter()
        .max_by_key(|slot| u64::from_le_bytes(image[slot + 56..slot + 64].try_into().unwrap()))
        .unwrap();
    image[newest_slot..newest_slot + META_SIZE].fill(0);
    let counts = check(&options(0), &image).expect("the checkpoint before is whole");
    assert_eq!(counts.root.get(), root);
    let disk = Disk { image, ..Disk::default() };
    let (mut file, _) = open(&options(cache_size), &disk.image).unwrap();
    model.compare(&mut file, &disk);
}

fn run(prng: &mut Prng, load: &Load, cache_size: u64, steps: u64) {
    let mut disk = Disk::default();
    let mut file = PageFile::create(&options(cache_size));
    let mut model = Model::default();
    let mut planned = None::<Model>;
    let (mut newest, mut older) = (None::<(Model, u64)>, None::<(Model, u64)>);
    let mut readers: Vec<Reader> = Vec::new();
    let mut read_whole = 0;
    for step in 0..steps {
        model.change(prng, load, &mut file, &disk);
        grow(&mut file, &mut disk);
        if prng.one_in(4) {
            file.evict();
            let slack = file.dirty_size() + cache_size + (4 << 20);
            assert!(file.resident_size() <= slack, "the cache is bounded");
        }
        if prng.one_in(50) {
            model.probe(prng, load, &mut file, &disk);
        }
        if prng.one_in(60)
            && readers.len() < 4
            && let Some((model, _)) = &newest
        {
            readers.push(Reader::new(&mut file, model));
        }
        if !readers.is_empty() && prng.one_in(6) {
            let at = usize::try_from(prng.below(readers.len() as u64)).unwrap();
            let cells = prng.below(300);
            let done = readers[at].go_on(prng, &file, &disk, cells);
            // Sometimes one is given up in the middle.
            if done || prng.one_in(200) {
                read_whole += u64::from(done);
                file.release(readers.swap_remove(at).root);
                assert!(!readers.is_empty() || file.held_size() == 0);
            }
        }
        if file.checkpoint_running() {
            if prng.one_in(3) && !write_one(&mut file, &mut disk) {
                publish(&mut file, &mut disk);
                older = newest.take();
                newest = planned.take().map(|model| (model, file.published().get()));
                if prng.one_in(2) {
                    release(&mut file, &mut disk);
                }
            }
            // Also while pages of the next checkpoint go out: until its record is durable, both
            // slots count.
            if (!file.checkpoint_running() || prng.one_in(8)) && newest.is_some() {
                let older = older.as_ref().map(|(model, root)| (model, *root));
                check_both_slots(&disk, file.published().get(), older, cache_size);
            }
        } else if prng.one_in(150) {
            begin(&mut file, &mut disk, &step.to_le_bytes());
            planned = Some(model.clone());
        }
        if prng.one_in(400)
            && let Some((checkpointed, root)) = &newest
        {
            readers.clear();
            (file, _) = open(&options(cache_size), &disk.image).unwrap();
            assert_eq!(file.published().get(), *root);
            model = checkpointed.clone();
            planned = None;
            model.compare(&mut file, &disk);
        }
    }
    model.compare(&mut file, &disk);
    println!("{read_whole} held checkpoints were read");
    assert!(read_whole > 3, "{read_whole} held checkpoints were read to their end");
}

#[test]
fn random_changes_match_maps_with_small_cells() {
    let mut prng = Prng::new(seed());
    let load = Load { keys: 3_000, key_size_max: 30, payload_max: 400, run_max: 0, puts_in_ten: 7 };
    run(&mut prng, &load, 64 << 10, 12_000 * scale());
}

#[test]
fn random_changes_match_maps_with_runs_and_great_cells() {
    let mut prng = Prng::new(seed() ^ 1);
    let load = Load {
        keys: 800,
        key_size_max: 2_048,
        payload_max: 3_900,
        run_max: 60_000,
        puts_in_ten: 6,
    };
    run(&mut prng, &load, 256 << 10, 6_000 * scale());
}

#[test]
fn random_changes_match_maps_where_most_go_again() {
    let mut prng = Prng::new(seed() ^ 2);
    let load =
        Load { keys: 500, key_size_max: 300, payload_max: 3_000, run_max: 9_000, puts_in_ten: 4 };
    run(&mut prng, &load, 0, 8_000 * scale());
}

/// A read was under way when its leaf went: the page is dropped, and its number can be given out
/// again.
#[test]
fn a_leaf_that_went_while_it_was_read_is_not_taken_in() {
    let mut disk = Disk::default();
    let mut file = PageFile::create(&options(0));
    let cell = |payload| tree::NewCell { counted: true, number: 1, payload, run: None };
    for number in 0..2_000_u64 {
        file.put(tree::TreeId(0), &number.to_be_bytes(), &cell(&[1; 300])).unwrap();
    }
    grow(&mut file, &mut disk);
    begin(&mut file, &mut disk, &[]);
    publish(&mut file, &mut disk);
    file.evict();
    // Two reads of one leaf are under way; the first arrives and the leaf is changed.
    let twice = file.get(tree::TreeId(0), &900_u64.to_be_bytes()).unwrap_err();
    let dropped = file.get(tree::TreeId(0), &5_u64.to_be_bytes()).unwrap_err();
    let bytes = |miss: tree::Miss| disk.read(miss.offset(), miss.size()).to_vec();
    let (first, second) = (bytes(twice), bytes(dropped));
    file.install(twice, &first).unwrap();
    file.put(tree::TreeId(0), &900_u64.to_be_bytes(), &cell(&[2; 300])).unwrap();
    let _ = file.drop_front(tree::TreeId(0), &100_u64.to_be_bytes(), 1_000);
    let resident = file.resident_size();
    file.install(twice, &first).unwrap();
    file.install(dropped, &second).unwrap();
    assert_eq!(file.resident_size(), resident, "neither is taken in");
    for _ in 0..4 {
        for number in 2_000..4_000_u64 {
            support::served(&mut file, &disk, |file| {
                file.put(tree::TreeId(0), &number.to_be_bytes(), &cell(&[3; 300]))
            });
        }
        grow(&mut file, &mut disk);
        begin(&mut file, &mut disk, &[]);
        publish(&mut file, &mut disk);
        check(&options(0), &disk.image).expect("the file is whole");
    }
}
