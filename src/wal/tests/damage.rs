//! Damage in every block of every file after a clean shutdown with a watermark: recovery gives the
//! same entries or refuses and names the place; it never loses an acknowledged entry silently.
#![allow(clippy::unwrap_used)]

mod disk;

use base::{LogIndex, Prng};
use disk::{BLOCK, Image, Owned, Run, SECTOR, random_step, recover, replay, small, upto};
use wal::{Applied, RecoveryError, WalFile};

/// A run with rotation and recycling that ends cleanly; the images of earlier moments for stale
/// blocks.
fn clean_shutdown(ring_slots: u32, seed: u64) -> (Run, Vec<Image>) {
    let mut prng = Prng::new(seed).fork("damage");
    let mut run = Run::create(small(ring_slots, 2));
    let mut term = 1;
    let mut earlier = Vec::new();
    for step in 0..260 {
        random_step(&mut run, &mut prng, &mut term, true);
        if step % 20 == 0 {
            earlier.push(run.image.clone());
        }
    }
    // Something that is durable and not applied, whatever the steps were.
    run.append(term, 0, b"the end");
    run.flush();
    run.watermark();
    (run, earlier)
}

struct Expected<'a> {
    entries: &'a [Owned],
    applied: (u64, u64),
    refused: u64,
    same: u64,
    named: u64,
    misnamed: Vec<String>,
}

impl Expected<'_> {
    fn check(&mut self, image: &Image, file: WalFile, block: usize, what: &str) {
        match recover(image, upto(self.applied)) {
            Ok(recovered) => {
                let entries = replay(image, &recovered, LogIndex::new(self.applied.0)).unwrap();
                assert_eq!(
                    entries, self.entries,
                    "{what} in block {block} of {file}: other entries"
                );
                self.same += 1;
            }
            Err(error @ RecoveryError::Lost { file: found, offset, .. }) => {
                self.refused += 1;
                // The group named begins at or before the damaged block.
                // A segment header of an earlier use makes its first group look absent.
                let at = (block.max(1) * BLOCK) as u64;
                if found == file && offset <= at {
                    self.named += 1;
                } else {
                    self.misnamed.push(format!("{what} in {file} block {block}: {error}"));
                }
            }
            Err(error) => panic!("{what} in block {block} of {file}: {error}"),
        }
    }
}

fn sweep(ring_slots: u32) {
    let seed = disk::seed(0xDA_4A6E);
    let (run, earlier) = clean_shutdown(ring_slots, seed);
    let applied = run.applied;
    let entries: Vec<Owned> = run.log.iter().filter(|e| e.index > applied.0).cloned().collect();
    assert!(!entries.is_empty(), "the shutdown leaves something to replay");
    let (same, named, refused, misnamed) = (0, 0, 0, Vec::new());
    let mut expected = Expected { entries: &entries, applied, same, named, refused, misnamed };
    let mut prng = Prng::new(seed).fork("blocks");
    for (file, bytes) in &run.image {
        for block in 0..bytes.len() / BLOCK {
            let at = block * BLOCK;
            let mut damage = |what: &str, change: &mut dyn FnMut(&mut Image)| {
                let mut image = run.image.clone();
                change(&mut image);
                expected.check(&image, *file, block, what);
            };
            for _ in 0..4 {
                let byte = at + prng.below(BLOCK as u64) as usize;
                damage("a flipped bit", &mut |image| image.get_mut(file).unwrap()[byte] ^= 0x10);
            }
            for sector in 0..BLOCK / SECTOR {
                let start = at + sector * SECTOR;
                damage("a zero sector", &mut |image| {
                    image.get_mut(file).unwrap()[start..start + SECTOR].fill(0);
                });
            }
            damage("a zero block", &mut |image| {
                image.get_mut(file).unwrap()[at..at + BLOCK].fill(0);
            });
            damage("garbage", &mut |image| {
                prng.fill(&mut image.get_mut(file).unwrap()[at..at + BLOCK]);
            });
            for old in &earlier {
                let Some(old) = old.get(file) else { continue };
                damage("a stale block", &mut |image| {
                    image.get_mut(file).unwrap()[at..at + BLOCK]
                        .copy_from_slice(&old[at..at + BLOCK]);
                });
            }
        }
    }
    // Two blocks swapped, and one written over another (misdirected).
    let blocks: Vec<(WalFile, usize)> = run
        .image
        .iter()
        .flat_map(|(file, bytes)| (0..bytes.len() / BLOCK).map(move |block| (*file, block)))
        .collect();
    for &(file, block) in &blocks {
        for _ in 0..4 {
            let (other, other_block) = blocks[prng.below(blocks.len() as u64) as usize];
            // One file is damaged at a time; that is the promise.
            if other != file {
                continue;
            }
            let mut image = run.image.clone();
            let (at, from) = (block * BLOCK, other_block * BLOCK);
            let bytes = image.get_mut(&file).unwrap();
            let moved = bytes[from..from + BLOCK].to_vec();
            let old = bytes[at..at + BLOCK].to_vec();
            bytes[at..at + BLOCK].copy_from_slice(&moved);
            expected.check(&image, file, block.max(other_block), "a misdirected write");
            image.get_mut(&file).unwrap()[from..from + BLOCK].copy_from_slice(&old);
            expected.check(&image, file, block.max(other_block), "two swapped blocks");
        }
    }
    let Expected { same, refused, named, misnamed, .. } = expected;
    println!("ring {ring_slots}: {same} the same, {refused} refused, {named} named rightly");
    assert!(misnamed.is_empty(), "{} misnamed, {:#?}", misnamed.len(), &misnamed[..1]);
    assert!(same > 0 && refused > 0);
}

#[test]
fn damage_is_refused_by_name_or_does_not_matter() {
    sweep(8);
}

#[test]
fn damage_is_refused_by_name_or_does_not_matter_without_the_ring() {
    sweep(0);
}

/// Without a watermark the later headers and the ring are witnesses: every group but those that can
/// have been in flight last is covered.
#[test]
fn later_headers_witness_what_was_durable_when_the_watermark_is_gone() {
    let seed = disk::seed(0x1A7E);
    for ring_slots in [0, 16] {
        let (run, _) = clean_shutdown(ring_slots, seed);
        let mut image = run.image.clone();
        image.get_mut(&WalFile::Watermark).unwrap().fill(0);
        let recovered = recover(&image, upto(run.applied)).unwrap();
        let count = recovered.groups.len();
        for (number, row) in recovered.groups.iter().enumerate() {
            let mut damaged = image.clone();
            damaged.get_mut(&WalFile::Slot(row.slot)).unwrap()[row.offset as usize + 300] ^= 1;
            let found = recover(&damaged, upto(run.applied));
            if number + 2 < count {
                match found {
                    Err(RecoveryError::Lost { file, offset, lsn, .. }) => {
                        assert_eq!(file, WalFile::Slot(row.slot));
                        assert_eq!((offset, lsn), (row.offset, row.lsn));
                    }
                    // Nothing above the applied index is there, and a later segment goes on behind
                    // it.
                    Ok(again) => {
                        assert!(!again.skipped.is_empty(), "group {} went silently", row.lsn);
                        assert_eq!(again.last, recovered.last);
                    }
                    Err(error) => panic!("{error}"),
                }
            } else if let Ok(found) = found {
                if !found.skipped.is_empty() {
                    assert_eq!(found.last, recovered.last);
                    continue;
                }
                let tail = found.tail.expect("a torn tail is reported");
                assert_eq!((tail.lsn, tail.offset), (row.lsn, row.offset));
                assert_eq!(tail.in_ring, ring_slots > 0);
            }
        }
    }
}

/// A power cut may take the newest copies from the ring where a group's own write is durable (O_DSYNC). Until
/// the next watermark only the segments hold the last groups then: one header that is left tells of all that
/// was durable when it was made, whatever became of the others. Without any, they pass for torn.
#[test]
fn one_header_that_is_left_tells_of_the_groups_before_it() {
    const AFTER: u64 = 7;
    for in_flight in [1, 2] {
        let mut run = Run::create(small(16, in_flight));
        for _ in 0..6 {
            run.append(1, 0, b"before the watermark");
            run.flush();
        }
        run.watermark();
        let (marked, ring) = (run.acked, run.image[&WalFile::Ring].clone());
        for _ in 0..AFTER {
            run.append(1, 0, b"behind it");
            if run.in_flight.len() == in_flight {
                run.complete();
            }
            assert!(run.seal());
        }
        run.drain();
        run.image.insert(WalFile::Ring, ring);
        let whole = recover(&run.image, Applied::Unknown).unwrap();
        let rows = whole.groups.iter().filter(|row| row.lsn.get() > marked);
        let rows: Vec<wal::GroupRow> = rows.copied().collect();
        assert_eq!(rows.len() as u64, AFTER);
        assert!(rows[0].slot != rows[6].slot, "they lie in two segments");
        let (mut refused, mut torn) = (0, 0);
        for damaged in 1_u32..1 << AFTER {
            let is_damaged = |number: usize| damaged >> number & 1 == 1;
            let mut image = run.image.clone();
            for (number, row) in rows.iter().enumerate().filter(|(number, _)| is_damaged(*number)) {
                let at = row.offset as usize;
                let block = &mut image.get_mut(&WalFile::Slot(row.slot)).unwrap()[at..at + BLOCK];
                if number % 2 == 0 { block.fill(0) } else { block[100] ^= 1 }
            }
            let first = rows[damaged.trailing_zeros() as usize].lsn;
            let left = (0..rows.len()).rfind(|number| !is_damaged(*number));
            let named = left.map_or(0, |number| rows[number].lsn.get() - in_flight as u64);
            match recover(&image, Applied::Unknown) {
                Err(RecoveryError::Lost { lsn, .. }) => {
                    assert!(named >= first.get(), "{damaged:b}: nothing names {first}");
                    assert_eq!(lsn, first, "{damaged:b}");
                    refused += 1;
                }
                Ok(recovered) => {
                    assert!(named < first.get(), "{damaged:b}: {first} went silently");
                    assert_eq!(recovered.durable_lsn.next(), first, "{damaged:b}");
                    torn += 1;
                }
                Err(error) => panic!("{damaged:b}: {error}"),
            }
        }
        assert!(refused > 90 && torn >= AFTER, "{refused} refused, {torn} torn");
    }
}

#[test]
fn an_applied_entry_that_the_log_lacks_is_refused() {
    let (run, _) = clean_shutdown(8, disk::seed(5));
    let last = run.writer.last();
    let beyond = (last.index.get() + 1, last.term.get());
    let found = recover(&run.image, upto(beyond));
    assert!(matches!(found, Err(RecoveryError::Lost { .. })), "{found:?}");
    let wrong_term = (last.index.get(), last.term.get() + 1);
    let found = recover(&run.image, upto(wrong_term));
    assert!(matches!(found, Err(RecoveryError::Disagrees { .. })), "{found:?}");
    let found = recover(&Image::new(), upto((1, 1)));
    assert!(matches!(found, Err(RecoveryError::Lost { .. })), "{found:?}");
    let text = recover(&run.image, upto(beyond)).unwrap_err().to_string();
    assert!(text.contains("wal/slot-") && text.contains("restore this member"), "{text}");
}

#[test]
fn a_slot_of_another_member_is_refused() {
    let (run, _) = clean_shutdown(8, disk::seed(6));
    let foreign = wal::Owner::Member { cluster: disk::CLUSTER, member: base::NodeId::new(8) };
    let found = disk::recover_as(&run.image, foreign, Applied::Unknown);
    assert!(matches!(found, Err(RecoveryError::Foreign { .. })), "{found:?}");
    let any = disk::recover_as(&run.image, wal::Owner::Any, Applied::Unknown).unwrap();
    assert_eq!(any.last, run.writer.last());
}
