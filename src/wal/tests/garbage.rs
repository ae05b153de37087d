//! Arbitrary bytes and mutated images never make recovery panic, read without end or take memory
//! without bound; whatever it accepts, it can replay.
#![allow(clippy::unwrap_used)]

mod disk;

use base::{LogIndex, Prng};
use disk::{BLOCK, Image, Run, random_step, recover_as, replay, small, upto};
use wal::{Applied, GroupStep, Groups, Owner, WalFile};

fn look(image: &Image, applied: (u64, u64)) {
    for owner in [disk::owner(), Owner::Any] {
        for applied in [upto(applied), Applied::Unknown] {
            let Ok(recovered) = recover_as(image, owner, applied) else { continue };
            replay(image, &recovered, LogIndex::ZERO).expect("what verified verifies again");
            let mut groups = Groups::new(&recovered.groups);
            let mut count = 0;
            loop {
                match groups.next().expect("what verified verifies again") {
                    GroupStep::Done => break,
                    GroupStep::Group(header, bytes) => {
                        count += header.records(bytes).map(Result::unwrap).count();
                        continue;
                    }
                    GroupStep::Read(read) => {
                        let at = read.offset as usize;
                        groups.feed(&image[&read.file][at..at + read.size]);
                    }
                }
            }
            assert!(count as u64 >= recovered.base.index.distance_to(recovered.last.index));
        }
    }
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let seed = disk::seed(0xF0_22);
    let mut prng = Prng::new(seed);
    for _ in 0..300 * disk::scale() {
        let mut image = Image::new();
        for slot in 0..prng.below(4) as u32 {
            let mut bytes = vec![0; prng.below(10 * BLOCK as u64) as usize];
            prng.fill(&mut bytes);
            for at in (0..bytes.len().saturating_sub(BLOCK)).step_by(BLOCK) {
                let magic: &[u8] = if at == 0 { b"QRWALSEG" } else { b"QRWALGRP" };
                bytes[at..at + 8].copy_from_slice(magic);
            }
            image.insert(WalFile::Slot(slot), bytes);
        }
        for file in [WalFile::Ring, WalFile::Watermark] {
            let mut bytes = vec![0; prng.below(9 * BLOCK as u64) as usize];
            prng.fill(&mut bytes);
            image.insert(file, bytes);
        }
        look(&image, (prng.below(3), 0));
    }
}

#[test]
fn mutated_images_do_no_harm() {
    let seed = disk::seed(0xF0_23);
    let mut prng = Prng::new(seed);
    for _ in 0..8 * disk::scale() {
        let mut run = Run::create(small(8, 2));
        let mut term = 1;
        for _ in 0..120 {
            random_step(&mut run, &mut prng, &mut term, true);
        }
        for _ in 0..60 {
            let mut image = run.image.clone();
            for _ in 0..1 + prng.below(6) {
                mutate(&mut image, &mut prng);
            }
            look(&image, run.applied);
        }
    }
}

fn mutate(image: &mut Image, prng: &mut Prng) {
    let files: Vec<WalFile> = image.keys().copied().collect();
    if files.is_empty() {
        return;
    }
    let file = files[prng.below(files.len() as u64) as usize];
    let other = files[prng.below(files.len() as u64) as usize];
    let source = image[&other].clone();
    let bytes = image.get_mut(&file).unwrap();
    if bytes.len() < BLOCK || source.len() < BLOCK {
        return;
    }
    let blocks = (bytes.len() / BLOCK) as u64;
    let at = prng.below(blocks) as usize * BLOCK;
    match prng.below(8) {
        0..=2 => bytes[at + prng.below(400) as usize] ^= 1 << prng.below(8),
        3 => prng.fill(&mut bytes[at..at + BLOCK]),
        4 => {
            let from = prng.below((source.len() / BLOCK) as u64) as usize * BLOCK;
            bytes[at..at + BLOCK].copy_from_slice(&source[from..from + BLOCK]);
        }
        5 => bytes.truncate(at + prng.below(BLOCK as u64) as usize),
        6 => *bytes = source,
        _ => {
            image.remove(&file);
        }
    }
}
