//! Every crash point of a run of checkpoints: for each prefix of what was done to the disk, with
//! unsynced writes kept, dropped, torn by sectors or kept at random, the file opens as one of the
//! two newest checkpoints, whole. Some checkpoints are held and read meanwhile.

#![allow(clippy::unwrap_used)]

mod support;

use base::Prng;
use support::maps::{Load, Model, Reader};
use support::{Disk, Op, begin, check, grow, open, options, publish, release, scale, seed};
use tree::{OpenError, PageFile};

const SECTOR: usize = 512;

fn apply(image: &mut [u8], offset: usize, bytes: &[u8]) {
    // A write that was cut off by a later, smaller size has nothing left there.
    let end = (offset + bytes.len()).min(image.len());
    if offset < end {
        image[offset..end].copy_from_slice(&bytes[..end - offset]);
    }
}

/// Images that a crash may leave when `unsynced` was written since the last sync.
fn images(prng: &mut Prng, durable: &[u8], unsynced: &[(usize, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut images = vec![durable.to_vec()];
    let with = |keep: &mut dyn FnMut(usize, usize) -> bool| {
        let mut image = durable.to_vec();
        for (index, (offset, bytes)) in unsynced.iter().enumerate() {
            for (sector, piece) in bytes.chunks(SECTOR).enumerate() {
                if keep(index, sector) {
                    apply(&mut image, offset + sector * SECTOR, piece);
                }
            }
        }
        image
    };
    if unsynced.is_empty() {
        return images;
    }
    let last = unsynced.len() - 1;
    images.push(with(&mut |_, _| true));
    if unsynced.len() > 1 {
        images.push(with(&mut |index, _| index < last));
        images.push(with(&mut |index, _| index == last));
        let dropped = usize::try_from(prng.below(unsynced.len() as u64)).unwrap();
        images.push(with(&mut |index, _| index != dropped));
        images.push(with(&mut |_, _| prng.one_in(2)));
    }
    let sectors = unsynced[last].1.len() / SECTOR;
    let cuts: Vec<usize> = if sectors <= 8 {
        (1..sectors).collect()
    } else {
        (0..2).map(|_| usize::try_from(prng.below(sectors as u64)).unwrap()).collect()
    };
    for cut in cuts {
        images.push(with(&mut |index, sector| index < last || sector < cut));
        images.push(with(&mut |index, sector| index < last || sector >= cut));
    }
    images
}

struct Legal {
    /// Published checkpoints so far, by number.
    states: Vec<(u64, Model)>,
}

impl Legal {
    /// Opens an image, which must be one of these states, and returns which.
    fn verify(&self, image: &[u8], from: u64, to: u64) -> Option<u64> {
        let options = options(1 << 30);
        let (mut file, application) = match open(&options, image) {
            Ok(opened) => opened,
            Err(OpenError::NoMeta { .. }) if from == 0 => return None,
            Err(error) => panic!("states {from} to {to}: {error}"),
        };
        let number = u64::from_le_bytes(application[..8].try_into().unwrap());
        assert!((from..=to).contains(&number), "state {number}, not {from} to {to}");
        let disk = Disk { image: image.to_vec(), ..Disk::default() };
        let model = &self.states.iter().find(|(state, _)| *state == number).unwrap().1;
        model.compare(&mut file, &disk);
        check(&options, image).expect("what opens is whole");
        Some(number)
    }
}

/// Goes on from a crash image, crashes again in the middle, and must still find the state.
fn crash_again(prng: &mut Prng, load: &Load, image: &[u8], legal: &Legal, number: u64) {
    let options = options(1 << 30);
    let mut disk = Disk { image: image.to_vec(), record: false, ..Disk::default() };
    let (mut file, _) = open(&options, image).unwrap();
    if let Some((offset, size)) = file.slot_to_clear() {
        disk.write(offset, &vec![0; size]);
    }
    let mut model = legal.states.iter().find(|(state, _)| *state == number).unwrap().1.clone();
    for _ in 0..20 {
        model.change(prng, load, &mut file, &disk);
        grow(&mut file, &mut disk);
    }
    begin(&mut file, &mut disk, &u64::MAX.to_le_bytes());
    while support::write_one(&mut file, &mut disk) {
        if prng.one_in(3) {
            assert_eq!(legal.verify(&disk.image, number, number), Some(number));
        }
    }
    publish(&mut file, &mut disk);
    let (mut file, application) = open(&options, &disk.image).unwrap();
    assert_eq!(application, u64::MAX.to_le_bytes());
    model.compare(&mut file, &disk);
    check(&options, &disk.image).expect("the checkpoint after the crash is whole");
}

fn explore(seed: u64, load: &Load, checkpoints: u64, changes: u64) {
    let mut prng = Prng::new(seed);
    let options = options(1 << 30);
    let mut disk = Disk { record: true, ..Disk::default() };
    let mut file = PageFile::create(&options);
    let mut model = Model::default();
    let mut legal = Legal { states: Vec::new() };
    let mut readers: Vec<Reader> = Vec::new();
    for number in 1..=checkpoints {
        for _ in 0..prng.below(changes) + 1 {
            model.change(&mut prng, load, &mut file, &disk);
            grow(&mut file, &mut disk);
        }
        begin(&mut file, &mut disk, &number.to_le_bytes());
        legal.states.push((number, model.clone()));
        // Changes while the checkpoint runs belong to the next one.
        loop {
            if !support::write_one(&mut file, &mut disk) {
                break;
            }
            for _ in 0..prng.below(4) {
                model.change(&mut prng, load, &mut file, &disk);
                grow(&mut file, &mut disk);
            }
        }
        publish(&mut file, &mut disk);
        if prng.one_in(2) {
            readers.push(Reader::new(&mut file, &legal.states[legal.states.len() - 1].1));
        }
        let cells = prng.below(100);
        readers.retain_mut(|reader| {
            let done = reader.go_on(&mut prng, &file, &disk, cells);
            if done {
                file.release(reader.root);
            }
            !done
        });
        if prng.one_in(2) {
            release(&mut file, &mut disk);
        }
    }
    for reader in &mut readers {
        assert!(reader.go_on(&mut prng, &file, &disk, u64::MAX));
        file.release(reader.root);
    }
    assert_eq!(file.held_size(), 0);
    let mut durable = Vec::new();
    let mut unsynced: Vec<(usize, Vec<u8>)> = Vec::new();
    let (mut published, mut metas, mut count) = (0, 0, 0_u64);
    for op in &disk.trace {
        match op {
            Op::Write { offset, bytes } => {
                unsynced.push((*offset, bytes.clone()));
                metas += u64::from(bytes.len() == tree::META_SIZE);
            }
            Op::Sync => {
                for (offset, bytes) in unsynced.drain(..) {
                    apply(&mut durable, offset, &bytes);
                }
            }
            Op::Resize(size) => durable.resize(*size, 0),
            Op::Published => published += 1,
        }
        for image in images(&mut prng, &durable, &unsynced) {
            count += 1;
            let found = legal.verify(&image, published, metas);
            if let Some(number) = found
                && prng.one_in(10)
            {
                crash_again(&mut prng, load, &image, &legal, number);
            }
        }
    }
    println!("{count} images");
    assert_eq!((published, metas), (checkpoints, checkpoints));
}

#[test]
fn every_crash_point_opens_as_a_checkpoint_with_small_cells() {
    let load = Load { keys: 200, key_size_max: 20, payload_max: 900, run_max: 0, puts_in_ten: 7 };
    let seed = seed();
    for round in 0..scale() {
        explore(seed + round, &load, 8, 120);
    }
}

#[test]
fn every_crash_point_opens_as_a_checkpoint_with_runs() {
    let load =
        Load { keys: 60, key_size_max: 600, payload_max: 2_000, run_max: 90_000, puts_in_ten: 6 };
    let seed = seed();
    for round in 0..scale() {
        explore(seed + 1_000 + round, &load, 7, 40);
    }
}
