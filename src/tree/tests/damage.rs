//! Damage to any block of the file is found, named, or without effect; never a wrong answer, never
//! a panic.

#![allow(clippy::unwrap_used)]

mod support;

use base::{Prng, crc32};
use support::maps::{Load, Model};
use support::{Disk, begin, check, grow, open, options, publish, scale, seed};
use tree::{Direction, KeyRange, META_SIZE, Miss, PageFile, TreeId};

const BLOCK: usize = 4096;

fn sample(seed: u64) -> (Disk, Model, Model) {
    let mut prng = Prng::new(seed);
    let load =
        Load { keys: 400, key_size_max: 60, payload_max: 1_500, run_max: 20_000, puts_in_ten: 8 };
    let mut disk = Disk::default();
    let mut file = PageFile::create(&options(1 << 30));
    let (mut model, mut before) = (Model::default(), Model::default());
    for round in 0_u64..3 {
        before = model.clone();
        for _ in 0..if round == 0 { 700 } else { 20 } {
            model.change(&mut prng, &load, &mut file, &disk);
            grow(&mut file, &mut disk);
        }
        begin(&mut file, &mut disk, &round.to_le_bytes());
        publish(&mut file, &mut disk);
    }
    (disk, model, before)
}

/// Reads every cell and run; an error if damage was found.
fn read_all(file: &mut PageFile, image: &[u8], model: &Model) -> Result<(), ()> {
    let install = |file: &mut PageFile, miss: Miss| {
        let offset = usize::try_from(miss.offset()).unwrap();
        file.install(miss, &image[offset..offset + miss.size()]).map_err(|_| ())
    };
    for (tree, map) in (0_u8..).zip(&model.trees) {
        for (key, value) in map {
            let run = loop {
                match file.get(TreeId(tree), key) {
                    Ok(cell) => {
                        let cell = cell.expect("a key never disappears silently");
                        assert_eq!(cell.payload, value.payload);
                        break cell.run;
                    }
                    Err(miss) => install(file, miss)?,
                }
            };
            let Some(run) = run else { continue };
            loop {
                match file.run(&run) {
                    Ok(bytes) => {
                        assert_eq!(Some(bytes), value.run.as_deref());
                        break;
                    }
                    Err(miss) => install(file, miss)?,
                }
            }
        }
    }
    Ok(())
}

/// True: the damage was found.
fn verify(image: &[u8], model: &Model, before: &Model) -> bool {
    let checked = check(&options(0), image);
    let Ok((mut file, application)) = open(&options(1 << 30), image) else {
        assert!(checked.is_err());
        return true;
    };
    // Falling back to the checkpoint before is legal: the log has the rest.
    let newest = application == 2_u64.to_le_bytes();
    let read = read_all(&mut file, image, if newest { model } else { before });
    assert_eq!(checked.is_err(), read.is_err(), "a check finds what reading everything finds");
    checked.is_err() || !newest
}

#[test]
fn each_damaged_block_is_found_or_has_no_effect() {
    let seed = seed();
    let (disk, model, before) = sample(seed);
    let mut prng = Prng::new(seed ^ 3);
    let blocks = disk.image.len() / BLOCK;
    let (mut found, mut total) = (0, 0);
    let step = usize::try_from(3 / scale().min(3)).unwrap();
    for block in (0..blocks).step_by(step) {
        let at = block * BLOCK;
        for kind in 0..4 {
            let mut image = disk.image.clone();
            match kind {
                0 => {
                    image[at + usize::try_from(prng.below(BLOCK as u64)).unwrap()] ^=
                        1 << prng.below(8)
                }
                1 => image[at..at + BLOCK].fill(0),
                2 => prng.fill(&mut image[at..at + BLOCK]),
                _ => {
                    let other = usize::try_from(prng.below(blocks as u64)).unwrap() * BLOCK;
                    let copy = image[other..other + BLOCK].to_vec();
                    let this = image[at..at + BLOCK].to_vec();
                    image[at..at + BLOCK].copy_from_slice(&copy);
                    image[other..other + BLOCK].copy_from_slice(&this);
                }
            }
            if image == disk.image {
                continue;
            }
            total += 1;
            found += u64::from(verify(&image, &model, &before));
        }
    }
    println!("{found} of {total} damages matter");
    assert!(found > total / 10);
}

#[test]
fn stale_pages_are_found_although_they_verify_by_themselves() {
    let (disk, model, before) = sample(seed());
    let page = base::limits::PAGE_SIZE;
    // Every page is replaced by every 7th other one.
    for at in (32..disk.image.len() / page).step_by(2) {
        let other = 32 + (at * 7) % (disk.image.len() / page - 32);
        let mut image = disk.image.clone();
        image.copy_within(other * page..(other + 1) * page, at * page);
        verify(&image, &model, &before);
    }
}

#[test]
fn truncated_files_are_refused() {
    let (disk, ..) = sample(seed());
    for size in (0..disk.image.len()).step_by(64 << 10) {
        let _ = check(&options(0), &disk.image[..size]);
        let opened = open(&options(0), &disk.image[..size]);
        assert!(opened.is_err() || size + (1 << 20) >= disk.image.len(), "{size}");
    }
}

/// Records and pages that verify but say anything: checksums are made right after the change.
#[test]
fn forged_records_and_pages_never_panic() {
    let seed = seed();
    let (disk, ..) = sample(seed);
    let mut prng = Prng::new(seed ^ 4);
    for round in 0..3_000 * scale() {
        let mut image = disk.image.clone();
        for slot in [0, 64 << 10] {
            for _ in 0..=prng.below(3) {
                let at = slot + usize::try_from(prng.below(380)).unwrap();
                if at - slot >= 16 {
                    image[at] = u8::try_from(prng.below(256)).unwrap();
                }
            }
            let hash = base::hash128(&image[slot..slot + META_SIZE - 20]).to_bytes();
            image[slot + META_SIZE - 20..slot + META_SIZE - 4].copy_from_slice(&hash);
            let crc = crc32(&image[slot..slot + META_SIZE - 4]);
            image[slot + META_SIZE - 4..slot + META_SIZE].copy_from_slice(&crc.to_le_bytes());
        }
        let _ = check(&options(0), &image);
        if let Ok((mut file, _)) =
            open(&tree::Options { file: base::FileId::new(0), ..options(0) }, &image)
        {
            wander(&mut file, &image);
        }
        assert!(round < u64::MAX);
    }
}

fn wander(file: &mut PageFile, image: &[u8]) {
    for tree in 0..8 {
        for direction in [Direction::Ascending, Direction::Descending] {
            for _ in 0..20 {
                let walked =
                    file.walk(TreeId(tree), KeyRange::ALL, direction, &mut |_| false, &mut |_| {
                        std::ops::ControlFlow::Continue(())
                    });
                let Err(miss) = walked else { break };
                let offset = usize::try_from(miss.offset()).unwrap();
                let bytes = image.get(offset..offset + miss.size()).unwrap_or(&[]);
                if file.install(miss, bytes).is_err() {
                    break;
                }
            }
        }
        let _ = file.count(TreeId(tree), KeyRange { start: b"/", end: Some(b"a") });
    }
}

/// Root pages with random changes and right checksums all the way up.
#[test]
fn forged_pages_never_panic() {
    let seed = seed();
    let mut prng = Prng::new(seed ^ 5);
    let page = base::limits::PAGE_SIZE;
    let (disk, ..) = sample(seed);
    for _ in 0..3_000 * scale() {
        let mut image = disk.image.clone();
        // Only the newest slot stays.
        let root =
            |slot: usize| u64::from_le_bytes(image[slot + 56..slot + 64].try_into().unwrap());
        let slot = if root(0) > root(64 << 10) { 0 } else { 64 << 10 };
        image[(64 << 10) - slot..][..META_SIZE].fill(0);
        for tree in 0..3 {
            let at = slot + 112 + tree * 32;
            let number = u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
            if number == 0 {
                continue;
            }
            let from = number as usize * page;
            for _ in 0..=prng.below(6) {
                let size = if prng.one_in(2) { 300 } else { page as u64 - 34 };
                let at = from + 34 + usize::try_from(prng.below(size)).unwrap();
                image[at] = u8::try_from(prng.below(256)).unwrap();
            }
            let crc = crc32(&image[from + 4..from + page]).to_le_bytes();
            image[from..from + 4].copy_from_slice(&crc);
            image[at + 4..at + 8].copy_from_slice(&crc);
        }
        let hash = base::hash128(&image[slot..slot + META_SIZE - 20]).to_bytes();
        image[slot + META_SIZE - 20..slot + META_SIZE - 4].copy_from_slice(&hash);
        let crc = crc32(&image[slot..slot + META_SIZE - 4]);
        image[slot + META_SIZE - 4..slot + META_SIZE].copy_from_slice(&crc.to_le_bytes());
        let _ = check(&options(0), &image);
        if let Ok((mut file, _)) = open(&options(0), &image) {
            wander(&mut file, &image);
        }
    }
}

fn newest_slot(image: &[u8]) -> usize {
    let root = |slot: usize| u64::from_le_bytes(image[slot + 56..slot + 64].try_into().unwrap());
    if root(0) > root(64 << 10) { 0 } else { 64 << 10 }
}

/// The newest checkpoint's root page is unreadable once; the file goes on from the one before, and
/// the refused slot is cleared before its pages are reused.
#[test]
fn a_file_goes_on_from_the_checkpoint_before_when_the_newest_is_damaged() {
    let (mut disk, model, mut before) = sample(seed());
    let (good, page) = (disk.image.clone(), base::limits::PAGE_SIZE);
    let slot = newest_slot(&good);
    let root = u32::from_le_bytes(good[slot + 112..slot + 116].try_into().unwrap()) as usize;
    disk.image[root * page + 100] ^= 1;
    let (mut file, application) = open(&options(1 << 30), &disk.image).unwrap();
    assert_eq!(application, 1_u64.to_le_bytes(), "the checkpoint before");
    assert!(before != model);
    before.compare(&mut file, &disk);
    let (offset, size) = file.slot_to_clear().expect("the newest slot was refused");
    assert_eq!(offset, slot as u64);
    disk.write(offset, &vec![0; size]);
    // The disk changes its mind: the page is readable again, but nobody refers to it.
    disk.image[root * page + 100] ^= 1;
    let mut prng = Prng::new(8);
    let load =
        Load { keys: 400, key_size_max: 60, payload_max: 900, run_max: 9_000, puts_in_ten: 6 };
    for round in 3_u64..8 {
        for _ in 0..100 {
            before.change(&mut prng, &load, &mut file, &disk);
            grow(&mut file, &mut disk);
        }
        begin(&mut file, &mut disk, &round.to_le_bytes());
        publish(&mut file, &mut disk);
        assert_eq!(file.slot_to_clear(), None);
        check(&options(0), &disk.image).expect("the file is whole");
        let (mut again, application) = open(&options(1 << 30), &disk.image).unwrap();
        assert_eq!(application, round.to_le_bytes());
        before.compare(&mut again, &disk);
    }
}

/// A slot whose last write was lost holds a record from before the one that is damaged: its pages
/// may have been reused, so it must not be chosen.
#[test]
fn a_stale_slot_is_not_fallen_back_to() {
    let mut prng = Prng::new(seed());
    let load = Load { keys: 400, key_size_max: 60, payload_max: 900, run_max: 0, puts_in_ten: 8 };
    let (mut disk, mut model) = (Disk::default(), Model::default());
    let mut file = PageFile::create(&options(1 << 30));
    let mut stale = Vec::new();
    for round in 0_u64..4 {
        for _ in 0..200 {
            model.change(&mut prng, &load, &mut file, &disk);
            grow(&mut file, &mut disk);
        }
        begin(&mut file, &mut disk, &round.to_le_bytes());
        publish(&mut file, &mut disk);
        let slot = newest_slot(&disk.image);
        if round == 0 {
            stale = disk.image[slot..slot + META_SIZE].to_vec();
        }
        if round == 2 {
            disk.image[slot..slot + META_SIZE].copy_from_slice(&stale);
        }
    }
    assert!(open(&options(1 << 30), &disk.image).is_ok());
    let slot = newest_slot(&disk.image);
    let root = u32::from_le_bytes(disk.image[slot + 112..slot + 116].try_into().unwrap()) as usize;
    disk.image[root * base::limits::PAGE_SIZE + 100] ^= 1;
    assert!(matches!(open(&options(0), &disk.image), Err(tree::OpenError::Damaged(_))));
}
