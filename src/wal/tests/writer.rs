//! The writer's rules, one by one.
#![allow(clippy::unwrap_used)]

mod disk;

use base::{FileId, Hash128, LogIndex, Lsn, Term};
use disk::{BLOCK, Run, dirty, identity, recover, replay, small, upto};
use wal::{Append, Entry, Options, Position, Seal, WalFile, Writer};

fn large(ring_slots: u32) -> Options {
    Options { segment_size: 4 << 20, block_size: 64 << 10, groups_in_flight_max: 2, ring_slots }
}

fn entry(index: u64, payload: &[u8]) -> Entry<'_> {
    Entry { index: LogIndex::new(index), term: Term::new(1), kind: 0, payload }
}

#[test]
fn a_lone_record_costs_one_block() {
    let mut run = Run::create(small(8, 2));
    run.append(1, 0, &[1; 280]);
    assert_eq!(run.writer.open_size(), BLOCK);
    run.flush();
    assert_eq!(run.writer.durable_position(), run.writer.last());
    assert_eq!(run.writer.size_since(LogIndex::ZERO), BLOCK as u64);
}

#[test]
fn an_entry_that_does_not_fit_is_refused_before_anything_is_copied() {
    let mut writer: Writer<Vec<u8>> = Writer::create(identity(1), large(0), Position::ORIGIN);
    assert!(matches!(writer.append(&entry(1, &[1; 40_000]), &mut dirty), Append::Taken(_)));
    assert_eq!(writer.append(&entry(2, &[2; 40_000]), &mut dirty), Append::Full);
    assert_eq!((writer.last().index, writer.open_count()), (LogIndex::new(1), 1));
}

#[test]
fn an_entry_greater_than_the_block_gets_a_block_of_its_own_and_comes_back() {
    for ring_slots in [0, 8] {
        let mut run = Run::create(large(ring_slots));
        run.append(1, 1, b"before");
        run.append(1, 2, &vec![7; run.writer.payload_size_max()]);
        run.append(1, 3, b"behind");
        run.flush();
        let recovered = recover(&run.image, upto((0, 0))).unwrap();
        assert_eq!(replay(&run.image, &recovered, LogIndex::ZERO).unwrap(), run.log);
        assert_eq!(replay(&run.image, &recovered, LogIndex::new(2)).unwrap(), run.log[2..]);
    }
}

#[test]
fn only_so_many_groups_are_in_flight_and_they_become_durable_in_order() {
    let mut run = Run::create(small(8, 2));
    run.append(1, 0, b"one");
    assert!(run.seal());
    run.append(1, 0, b"two");
    assert!(run.seal());
    run.append(1, 0, b"three");
    assert!(matches!(run.writer.seal(&mut dirty), Seal::Busy));
    // Writes may complete in any order, durability may not.
    run.writer.written(Lsn::new(2));
    run.writer.written(Lsn::new(1));
    assert_eq!(run.writer.durable(Lsn::new(1)).index, LogIndex::new(1));
    assert_eq!(run.writer.durable(Lsn::new(2)).index, LogIndex::new(2));
}

#[test]
#[should_panic(expected = "before it is written")]
fn a_group_is_not_durable_before_it_is_written() {
    let mut run = Run::create(small(8, 2));
    run.append(1, 0, b"one");
    assert!(run.seal());
    run.writer.durable(Lsn::new(1));
}

#[test]
#[should_panic(expected = "durable before group 1")]
fn a_group_is_not_durable_before_the_one_before_it() {
    let mut run = Run::create(small(8, 2));
    run.append(1, 0, b"one");
    assert!(run.seal());
    run.append(1, 0, b"two");
    assert!(run.seal());
    run.writer.written(Lsn::new(2));
    run.writer.durable(Lsn::new(2));
}

#[test]
fn without_a_ready_spare_nothing_is_sealed() {
    let mut writer: Writer<Vec<u8>> = Writer::create(identity(1), large(0), Position::ORIGIN);
    assert!(matches!(writer.append(&entry(1, b"one"), &mut dirty), Append::Taken(_)));
    assert_eq!((writer.spares_wanted(), writer.room()), (2, 0));
    assert!(matches!(writer.seal(&mut dirty), Seal::NoSegment));
    let write = writer.prepare_spare(5, FileId::new(9), &mut dirty);
    assert_eq!((write.file, write.offset, write.size), (WalFile::Slot(5), 0, BLOCK));
    assert!(matches!(writer.seal(&mut dirty), Seal::NoSegment));
    writer.spare_ready(5);
    assert_eq!(writer.room(), (4 << 20) - BLOCK as u64);
    assert!(matches!(writer.seal(&mut dirty), Seal::Group(_)));
    assert_eq!((writer.spares_wanted(), writer.room()), (2, (4 << 20) - 2 * BLOCK as u64));
}

#[test]
fn segments_are_given_back_once_nothing_needs_them() {
    let mut run = Run::create(small(8, 1));
    for _ in 0..60 {
        run.append(1, 0, &[3; 3000]);
        run.flush();
    }
    let slots = run.next_slot;
    assert!(run.writer.segment_count() >= 5);
    run.writer.recycle(LogIndex::new(1), LogIndex::MAX, 0);
    assert_eq!(run.writer.take_surplus(), None);
    run.apply(40);
    run.writer.recycle(LogIndex::new(41), LogIndex::MAX, 0);
    assert!(run.writer.segment_count() < 4, "{}", run.writer.segment_count());
    for _ in 0..20 {
        run.append(1, 0, &[4; 3000]);
        run.flush();
    }
    assert_eq!(run.next_slot, slots, "slots are used again");
    let recovered = recover(&run.image, upto(run.applied)).unwrap();
    assert_eq!(replay(&run.image, &recovered, LogIndex::new(40)).unwrap(), run.log[40..]);
    assert!(run.writer.take_surplus().is_some() || run.writer.segment_count() > 3);
}

/// A start walks from the oldest segment header that it finds, so what is left must be the newest.
#[test]
fn what_others_may_want_stays_until_there_is_more_of_it_than_asked_for() {
    let mut run = Run::create(small(8, 1));
    for _ in 0..60 {
        run.append(1, 0, &[3; 3000]);
        run.flush();
    }
    run.apply(60);
    let size = small(8, 1).segment_size;
    run.writer.recycle(LogIndex::new(61), LogIndex::new(1), 2 * size + 1);
    assert_eq!(run.writer.segment_count(), 4, "three full ones and the active one");
    run.writer.recycle(LogIndex::new(61), LogIndex::new(1), 2 * size);
    assert_eq!(run.writer.segment_count(), 3);
    run.writer.recycle(LogIndex::new(61), LogIndex::MAX, 2 * size);
    assert_eq!(run.writer.segment_count(), 1, "nobody may want it");
}

#[test]
fn the_oldest_segment_is_used_again_first() {
    let mut run = Run::create(small(8, 1));
    for _ in 0..60 {
        run.append(1, 0, &[3; 3000]);
        run.flush();
    }
    run.writer.recycle(LogIndex::new(41), LogIndex::MAX, 0);
    assert_eq!(run.writer.take_free(), Some(0));
    assert_eq!(run.writer.take_free(), Some(1));
}

/// A crash can leave a group in the next segment while the one before it is torn. If its segment
/// kept its header, a later start that passes over damage could take that dropped group for the
/// log.
#[test]
fn slots_that_may_hold_dropped_groups_are_prepared_anew_before_the_first_group() {
    let mut run = Run::create(small(8, 1));
    run.append(1, 0, b"one");
    run.flush();
    run.spares();
    let recovered = recover(&run.image, upto((0, 0))).unwrap();
    let mut writer: Writer<Vec<u8>> = Writer::resume(identity(2), small(8, 1), &recovered);
    assert!(writer.wants_seal(), "the first group of an incarnation is due");
    for number in 0..2 {
        assert_eq!(writer.spares_wanted(), 2 - number);
        assert!(matches!(writer.seal(&mut dirty), Seal::NoSegment));
        let slot = writer.take_free().unwrap();
        writer.prepare_spare(slot, FileId::new(77 + u128::from(number)), &mut dirty);
        assert!(matches!(writer.seal(&mut dirty), Seal::NoSegment));
        writer.spare_ready(slot);
    }
    let Seal::Group(group) = writer.seal(&mut dirty) else { panic!("everything is settled") };
    assert_eq!((group.lsn, group.record_count), (Lsn::new(2), 0));
    assert_eq!(group.group.offset, 2 * BLOCK as u64, "behind the last group, in its segment");
}

#[test]
fn a_restart_leaves_everything_before_it_behind() {
    let mut run = Run::create(small(8, 1));
    for _ in 0..5 {
        run.append(1, 0, b"old");
    }
    run.flush();
    let (index, term) = (LogIndex::new(100), Term::new(4));
    let snapshot = Position { index, term, hash: Hash128::from_bytes([9; 16]) };
    run.writer.restart(snapshot);
    run.log.clear();
    run.append(4, 0, b"new");
    run.flush();
    assert!(recover(&run.image, upto((5, 1))).is_err(), "the page file lacks the snapshot");
    let recovered = recover(&run.image, upto((100, 4))).unwrap();
    assert_eq!((recovered.base, recovered.term_at(index)), (snapshot, Some(term)));
    assert_eq!(replay(&run.image, &recovered, index).unwrap(), run.log);
}

#[test]
fn an_unreadable_block_is_found_and_named() {
    let mut run = Run::create(large(8));
    for _ in 0..200 {
        run.append(1, 0, &[5; 1000]);
        run.flush();
    }
    run.watermark();
    let bad = 77 * BLOCK as u64;
    for is_needed in [true, false] {
        // Behind the end of the log nothing needs the block.
        let bad = if is_needed { bad } else { 400 * BLOCK as u64 };
        let files = disk::files(&run.image);
        let mut recovery = wal::Recovery::new(disk::owner(), &files, upto((0, 0)));
        while let wal::Step::Read(read) = recovery.next() {
            let range = read.offset..read.offset + read.size as u64;
            if read.file == WalFile::Slot(0) && range.contains(&bad) {
                recovery.feed_unreadable();
                continue;
            }
            let at = read.offset as usize;
            recovery.feed(&run.image[&read.file][at..at + read.size]);
        }
        match recovery.finish() {
            Err(wal::RecoveryError::Lost { file, offset, .. }) => {
                assert_eq!((file, offset, is_needed), (WalFile::Slot(0), bad, true));
            }
            Ok(recovered) => assert_eq!((recovered.last.index.get(), is_needed), (200, false)),
            Err(error) => panic!("{error}"),
        }
    }
}
