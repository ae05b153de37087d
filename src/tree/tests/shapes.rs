//! Small trees in all their shapes, and keys of every length: splits, merges, separators, edges.

#![allow(clippy::unwrap_used)]

mod support;

use base::Prng;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use support::{Disk, begin, check, grow, open, options, publish, scale, seed};
use tree::{CELL_SIZE_MAX, Direction, KeyRange, NewCell, PageFile, TreeId};

const TREE: TreeId = TreeId(0);

fn cell(payload: &[u8]) -> NewCell<'_> {
    NewCell { counted: true, number: 1, payload, run: None }
}

fn keys(file: &PageFile, direction: Direction) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    file.walk(TREE, KeyRange::ALL, direction, &mut |_| false, &mut |cell| {
        keys.push(cell.key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

fn verify(file: &PageFile, model: &BTreeSet<Vec<u8>>) {
    let wanted: Vec<_> = model.iter().cloned().collect();
    assert_eq!(keys(file, Direction::Ascending), wanted);
    let reversed: Vec<_> = wanted.iter().rev().cloned().collect();
    assert_eq!(keys(file, Direction::Descending), reversed);
    assert_eq!(file.summary(TREE).count, model.len() as u64);
    for (rank, key) in wanted.iter().enumerate() {
        assert_eq!(file.get(TREE, key).unwrap().unwrap().key, key);
        let below = KeyRange { start: &[], end: Some(key) };
        assert_eq!(file.count(TREE, below).unwrap(), rank as u64);
    }
}

/// Writes everything out and checks the order of keys within and between pages.
fn verify_on_disk(file: &mut PageFile) {
    let mut disk = Disk::default();
    grow(file, &mut disk);
    begin(file, &mut disk, &[]);
    publish(file, &mut disk);
    check(&options(0), &disk.image).expect("the file is whole");
    open(&options(0), &disk.image).expect("the file opens");
}

/// All orders of inserting five great cells, and of removing them: two fill a leaf.
#[test]
fn every_order_of_five_great_cells_gives_the_same_tree() {
    let names: [&[u8]; 5] = [b"a", b"ab", b"abc", b"b", b""];
    let payload = vec![7; CELL_SIZE_MAX - 3];
    let mut orders = vec![vec![]];
    for count in 0..5 {
        let mut next: Vec<Vec<usize>> = Vec::new();
        for order in &orders {
            for at in 0..=count {
                let mut order: Vec<usize> = order.clone();
                order.insert(at, count);
                next.push(order);
            }
        }
        orders = next;
    }
    assert_eq!(orders.len(), 120);
    for insert in &orders {
        for remove in orders.iter().step_by(17) {
            let mut file = PageFile::create(&options(1 << 30));
            let mut model = BTreeSet::new();
            for name in insert.iter().map(|index| names[*index]) {
                file.put(TREE, name, &cell(&payload)).unwrap();
                model.insert(name.to_vec());
                verify(&file, &model);
            }
            for name in remove.iter().map(|index| names[*index]) {
                assert!(file.remove(TREE, name).unwrap());
                assert!(!file.remove(TREE, name).unwrap());
                model.remove(name);
                verify(&file, &model);
            }
            assert_eq!(file.allocated_size(), 256 << 10, "only the part of the slots is in use");
        }
    }
}

/// Subsets of keys that are prefixes of each other, differ in zero bytes only, or share four bytes.
#[test]
fn every_subset_of_awkward_keys_is_found() {
    let names: [&[u8]; 11] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\0\0\0\0",
        b"aaaa",
        b"aaaa\0",
        b"aaaab",
        b"aaaabb",
        b"aaab",
        b"\xff",
        b"\xff\xff\xff\xff\xff",
    ];
    for subset in 0_u32..1 << names.len() {
        let mut file = PageFile::create(&options(1 << 30));
        let mut model = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            // Even bits from the front, odd ones later: two orders of insertion meet.
            if subset >> index & 1 == 1 {
                file.put(TREE, name, &cell(b"v")).unwrap();
                model.insert(name.to_vec());
            }
        }
        assert_eq!(keys(&file, Direction::Ascending), model.iter().cloned().collect::<Vec<_>>());
        for name in names {
            assert_eq!(file.get(TREE, name).unwrap().is_some(), model.contains(name));
            let range = KeyRange { start: name, end: None };
            let wanted = model.range(name.to_vec()..).count() as u64;
            assert_eq!(file.count(TREE, range).unwrap(), wanted);
        }
    }
}

/// Mixes of key lengths up to the greatest; keys share long beginnings, so that separators are long
/// too.
#[test]
fn keys_of_all_lengths_split_and_merge() {
    let mut prng = Prng::new(seed());
    for round in 0..24 * scale() {
        let mut file = PageFile::create(&options(1 << 30));
        let mut model: BTreeSet<Vec<u8>> = BTreeSet::new();
        let size_max = [1, 3, 8, 40, 250, 700, 2_048, 2_048][usize::try_from(round % 8).unwrap()];
        let stem = support::bytes(&mut prng, size_max);
        for step in 0..1_500 {
            let grows = (step / 400) % 2 == 0;
            if prng.below(10) < if grows { 8 } else { 2 } {
                let shared = if prng.one_in(3) { prng.below(size_max + 1) } else { size_max };
                let mut key = stem[..usize::try_from(shared).unwrap()].to_vec();
                for byte in key.iter_mut().rev().take(6) {
                    if prng.one_in(2) {
                        *byte = u8::try_from(prng.below(4)).unwrap();
                    }
                }
                let max = if prng.one_in(10) { CELL_SIZE_MAX as u64 - shared } else { 60 };
                let payload = support::bytes(&mut prng, max);
                file.put(TREE, &key, &cell(&payload)).unwrap();
                model.insert(key);
            } else if let Some(key) = model
                .range(support::bytes(&mut prng, 2)..)
                .next()
                .or_else(|| model.iter().nth(model.len() / 2))
                .cloned()
            {
                assert!(file.remove(TREE, &key).unwrap());
                model.remove(&key);
            }
            if step % 250 == 0 {
                verify(&file, &model);
            }
        }
        verify(&file, &model);
        verify_on_disk(&mut file);
        while let Some(key) = model.pop_first() {
            assert!(file.remove(TREE, &key).unwrap());
        }
        verify(&file, &model);
    }
}

/// Appended keys leave full leaves behind, whatever stands in front of them.
#[test]
fn appended_keys_leave_full_leaves() {
    let mut file = PageFile::create(&options(1 << 30));
    for number in 0..20_000_u64 {
        file.put(TREE, &number.to_be_bytes(), &cell(&[0; 200])).unwrap();
    }
    let used = file.allocated_size() - (256 << 10);
    let least = 20_000 * (200 + 8 + 18);
    assert!(used < least * 105 / 100, "{used} bytes for {least}");
}

#[test]
fn the_front_is_dropped_by_whole_leaves_and_exactly() {
    for end in [0_u64, 1, 29, 30, 31, 5_000, 19_998, 19_999, 20_000, 30_000] {
        let mut file = PageFile::create(&options(1 << 30));
        for number in 0..20_000_u64 {
            file.put(TREE, &number.to_be_bytes(), &cell(&[0; 200])).unwrap();
        }
        let mut calls = 0;
        while !file.drop_front(TREE, &end.to_be_bytes(), 100).unwrap() {
            calls += 1;
            assert!(calls < 20, "progress");
        }
        let left: BTreeSet<_> =
            (end.min(20_000)..20_000).map(|n| n.to_be_bytes().to_vec()).collect();
        verify(&file, &left);
        verify_on_disk(&mut file);
    }
}

/// A value that goes and leaves its key must give its room back, or deleting would free nothing: in
/// either direction and any order, and written out in between, so that pages are copied.
#[test]
fn leaves_of_cells_that_shrank_merge() {
    for order in 0..3 {
        let mut file = PageFile::create(&options(1 << 30));
        let mut disk = Disk::default();
        let mut numbers: Vec<u64> = (0..6_000).collect();
        for number in &numbers {
            file.put(TREE, &number.to_be_bytes(), &cell(&[0; 900])).unwrap();
        }
        match order {
            0 => {}
            1 => numbers.reverse(),
            _ => numbers.sort_by_key(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        }
        for (step, number) in numbers.iter().enumerate() {
            let small = NewCell { counted: false, number: 0, payload: &[1; 10], run: None };
            file.put(TREE, &number.to_be_bytes(), &small).unwrap();
            if step % 2_000 == 500 {
                grow(&mut file, &mut disk);
                begin(&mut file, &mut disk, &[]);
                publish(&mut file, &mut disk);
            }
        }
        assert_eq!((file.summary(TREE).count, file.summary(TREE).number_max), (0, 0));
        assert_eq!(keys(&file, Direction::Ascending).len(), 6_000);
        grow(&mut file, &mut disk);
        begin(&mut file, &mut disk, &[]);
        publish(&mut file, &mut disk);
        let counts = check(&options(0), &disk.image).expect("the file is whole");
        assert_eq!(counts.cells[0], 6_000);
        let least = counts.leaf_used_size / 8_192 + 1;
        assert!(counts.leaves <= 4 * least, "{} leaves for {least}, order {order}", counts.leaves);
    }
}

/// Runs up to the greatest size: written in parts, read back, their pages reused.
#[test]
fn runs_of_sixteen_mebibytes_come_back_and_their_space_is_reused() {
    let mut prng = Prng::new(seed());
    let mut disk = Disk::default();
    let mut file = PageFile::create(&options(0));
    let mut sizes = Vec::new();
    for round in 0_u8..6 {
        let bytes = support::bytes(&mut prng, 16 << 20);
        let run = file.create_run(&bytes);
        let old = file.get(TREE, b"k").unwrap_or(None).and_then(|cell| cell.run);
        let cell = NewCell { counted: true, number: 1, payload: &[round], run: Some(run) };
        support::served(&mut file, &disk, |file| file.put(TREE, b"k", &cell));
        if let Some(old) = old {
            file.free_run(old);
        }
        grow(&mut file, &mut disk);
        begin(&mut file, &mut disk, &[]);
        publish(&mut file, &mut disk);
        file.evict();
        assert!(file.resident_size() < 1 << 20);
        (file, _) = open(&options(0), &disk.image).unwrap();
        let found = support::served(&mut file, &disk, |file| file.run(&run).map(<[u8]>::to_vec));
        assert!(found == bytes);
        sizes.push(file.file_size());
        check(&options(0), &disk.image).expect("the file is whole");
    }
    assert_eq!(sizes[3], sizes[5], "freed runs are reused: {sizes:?}");
}
