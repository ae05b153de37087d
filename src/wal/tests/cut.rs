//! Crash at every point of a run, with the writes that were not synced kept, dropped or torn, and
//! compare what recovery finds with what the run knew.
#![allow(clippy::unwrap_used)]

mod disk;

use base::{LogIndex, Prng};
use disk::{Image, Known, Op, Run, SECTOR, apply, random_step, recover, replay, small, upto};
use wal::{Options, WalFile};

/// A write that is not synced yet.
type Pending = (WalFile, u64, Vec<u8>);

/// Checks the recovery of one image against the run; returns the recovered log.
fn check(run: &Run, known: &Known, image: &Image, what: &str) -> wal::Recovered {
    let recovered = match recover(image, upto(known.applied)) {
        Ok(recovered) => recovered,
        Err(error) => panic!("{what}: acked {}, {error}", known.acked),
    };
    let lsn = recovered.durable_lsn.get();
    assert!(lsn >= known.acked, "{what}: LSN {lsn} recovered, {} acknowledged", known.acked);
    assert!(recovered.base.index.get() <= known.applied.0, "{what}: needed entries recycled");
    let incarnation = recovered.incarnation().map_or(0, |id| id.get());
    let is_it = |after: &&disk::After| (after.lsn, after.incarnation) == (lsn, incarnation);
    let after = run.after.iter().find(is_it).filter(|after| after.lsn <= known.submitted);
    // A group that was dropped may come back as long as nothing of this incarnation is durable.
    let may_return = known.acked == run.after[0].lsn;
    let ghost = run.ghosts.iter().find(is_it).filter(|_| may_return);
    let after = after.or(ghost).unwrap_or_else(|| panic!("{what}: LSN {lsn} is invented"));
    let entries = replay(image, &recovered, LogIndex::new(known.applied.0)).unwrap();
    let brief = |e: &disk::Owned| (e.index, e.term, e.kind, e.payload.len());
    let expected: Vec<&disk::Owned> =
        after.log.iter().filter(|e| e.index > known.applied.0).collect();
    assert!(
        entries.iter().eq(expected.iter().copied()),
        "{what}: other entries after LSN {lsn}, applied {:?}: {:?} for {:?}",
        known.applied,
        entries.iter().map(brief).collect::<Vec<_>>(),
        expected.into_iter().map(brief).collect::<Vec<_>>(),
    );
    let last = after.log.last().map_or(run.base.index.get(), |e| e.index);
    assert_eq!(recovered.last.index.get(), last, "{what}: the last index after LSN {lsn}");
    for entry in &after.log {
        let index = LogIndex::new(entry.index);
        if index > recovered.base.index {
            let term = recovered.term_at(index).map(|term| term.get());
            assert_eq!(term, Some(entry.term), "{what}: the term at {index}");
        }
    }
    let (found, wanted) = (recovered.hard_state, after.hard_state);
    assert!(found.term >= wanted.term, "{what}: {found:?} after {wanted:?}");
    assert!(found.term > wanted.term || wanted.vote.is_none() || found.vote == wanted.vote);
    recovered
}

fn tear(image: &mut Image, write: &Pending, mut keep: impl FnMut(usize) -> bool) {
    let (file, offset, bytes) = write;
    let bytes_now = image.get_mut(file).unwrap();
    for (at, sector) in bytes.chunks(SECTOR).enumerate() {
        if keep(at) {
            let start = *offset as usize + at * SECTOR;
            bytes_now[start..start + SECTOR].copy_from_slice(sector);
        }
    }
}

struct Crashes {
    prng: Prng,
    options: Options,
    images: u64,
    incarnation: u128,
}

impl Crashes {
    /// Crashes the run after each of its operations. `start` is the durable image it began with.
    fn enumerate(&mut self, run: &Run, start: &Image, depth: u32) {
        let mut durable = start.clone();
        let mut pending: Vec<Pending> = Vec::new();
        for count in 0..=run.ops.len() {
            if count > 0 {
                match &run.ops[count - 1] {
                    Op::Create(..) => apply(&mut durable, &run.ops[count - 1]),
                    Op::Write(file, offset, bytes) => pending.push((*file, *offset, bytes.clone())),
                    Op::Sync(file) => {
                        for (file, offset, bytes) in pending.iter().filter(|(f, ..)| f == file) {
                            apply(&mut durable, &Op::Write(*file, *offset, bytes.clone()));
                        }
                        pending.retain(|(pending, ..)| pending != file);
                    }
                }
            }
            let Some(known) = run.known.iter().rfind(|known| known.ops == count) else { continue };
            self.crash(run, known, &durable, &pending, depth);
        }
    }

    fn crash(
        &mut self,
        run: &Run,
        known: &Known,
        durable: &Image,
        pending: &[Pending],
        depth: u32,
    ) {
        let at = known.ops;
        let mut images: Vec<(String, Image)> = Vec::new();
        let mut with = |what: String, keep: &mut dyn FnMut(usize, usize) -> bool| {
            let mut image = durable.clone();
            for (number, write) in pending.iter().enumerate() {
                tear(&mut image, write, |sector| keep(number, sector));
            }
            images.push((format!("after {at} operations, {what}"), image));
        };
        with("none kept".into(), &mut |_, _| false);
        if !pending.is_empty() {
            with("all kept".into(), &mut |_, _| true);
            let prng = &mut self.prng;
            for round in 0..if depth == 0 { 4 } else { 2 } {
                with(format!("random sectors, round {round}"), &mut |_, _| prng.one_in(2));
                let whole: Vec<bool> = pending.iter().map(|_| prng.one_in(2)).collect();
                with(format!("random writes {whole:?}"), &mut |write, _| whole[write]);
            }
        }
        if depth == 0 {
            for only in 0..pending.len() {
                with(format!("only write {only} kept"), &mut |write, _| write == only);
                with(format!("only write {only} dropped"), &mut |write, _| write != only);
            }
            if let Some((_, _, bytes)) = pending.last() {
                for one in 0..bytes.len() / SECTOR {
                    let last = pending.len() - 1;
                    with(
                        format!("sector {one} of the last write dropped"),
                        &mut |write, sector| (write, sector) != (last, one),
                    );
                    with(format!("sector {one} of the last write alone"), &mut |write, sector| {
                        write != last || sector == one
                    });
                }
            }
        }
        for (what, image) in images {
            self.images += 1;
            let first = check(run, known, &image, &what);
            // Recovery writes nothing: the same image gives the same answer.
            let second = recover(&image, upto(known.applied)).unwrap();
            assert_eq!(format!("{first:?}"), format!("{second:?}"), "{what}: recovery repeated");
            if depth < 3 && self.prng.one_in(40) {
                self.go_on(run, known, image, &first, depth + 1);
            }
        }
        if depth < 2 && !pending.is_empty() && self.prng.one_in(4) {
            self.process_dies(run, known, durable, pending, depth);
        }
    }

    /// Goes on behind a recovery and crashes that run everywhere as well.
    fn go_on(
        &mut self,
        before: &Run,
        known: &Known,
        image: Image,
        recovered: &wal::Recovered,
        depth: u32,
    ) {
        self.incarnation += 1;
        let incarnation = self.incarnation;
        let start = image.clone();
        let mut run = Run::resume(self.options, image, recovered, incarnation, known.applied);
        run.ghosts = ghosts(before, recovered);
        self.continue_run(&mut run, 12);
        self.enumerate(&run, &start, depth);
    }

    fn continue_run(&mut self, run: &mut Run, steps: u64) {
        let mut term = run.writer.hard_state().term.get().max(run.writer.last().term.get()) + 1;
        let mut prng = self.prng.fork("continue");
        self.prng.next_u64();
        run.spares();
        run.seal();
        for _ in 0..prng.below(steps) {
            random_step(run, &mut prng, &mut term, true);
        }
    }

    /// The process dies and the machine stays up: everything written is read, nothing more is
    /// durable than before, except for what recovery says must be synced. Then the power fails.
    fn process_dies(
        &mut self,
        run: &Run,
        known: &Known,
        durable: &Image,
        pending: &[Pending],
        depth: u32,
    ) {
        let mut image = durable.clone();
        for write in pending {
            tear(&mut image, write, |_| true);
        }
        let recovered = check(run, known, &image, "the process died");
        let mut start = durable.clone();
        let (synced, lost): (Vec<Pending>, Vec<Pending>) =
            pending.iter().cloned().partition(|(file, ..)| recovered.sync.contains(file));
        for write in &synced {
            tear(&mut start, write, |_| true);
        }
        self.incarnation += 1;
        let incarnation = self.incarnation;
        let mut next = Run::resume(self.options, image, &recovered, incarnation, known.applied);
        next.ghosts = ghosts(run, &recovered);
        let mut run = next;
        self.continue_run(&mut run, 8);
        // What was not synced is pending still: it precedes the run's own operations.
        let mut ops: Vec<Op> = lost.into_iter().map(|(f, o, b)| Op::Write(f, o, b)).collect();
        let count = ops.len();
        ops.append(&mut run.ops);
        run.ops = ops;
        for known in &mut run.known {
            known.ops += count;
        }
        self.enumerate(&run, &start, depth + 1);
    }
}

/// What a recovery of `run` dropped: groups of it, and of what came before it.
fn ghosts(run: &Run, recovered: &wal::Recovered) -> Vec<disk::After> {
    let lsn = recovered.durable_lsn.get();
    let all = run.after.iter().chain(&run.ghosts);
    all.filter(|after| after.lsn > lsn).cloned().collect()
}

fn crash_everywhere(name: &str, options: Options, steps: u64, with_cuts: bool) {
    let seed = disk::seed(0x5EED);
    for round in 0..disk::scale() {
        let mut prng = Prng::new(seed + round).fork(name);
        let mut run = Run::create(options);
        let mut term = 1;
        for _ in 0..steps {
            random_step(&mut run, &mut prng, &mut term, with_cuts);
        }
        assert!(run.writer.segment_count() > 0);
        let mut crashes = Crashes { prng, options, images: 0, incarnation: 10 };
        crashes.enumerate(&run, &Image::new(), 0);
        let slots = run.image.len();
        println!("{name}: {} operations, {slots} files, {} images", run.ops.len(), crashes.images);
    }
}

#[test]
fn no_crash_loses_an_acknowledged_entry_or_invents_one() {
    crash_everywhere("ring, two in flight", small(8, 2), 180, false);
}

#[test]
fn no_crash_loses_an_acknowledged_entry_without_the_ring() {
    crash_everywhere("no ring, one in flight", small(0, 1), 180, false);
}

#[test]
fn cuts_are_obeyed_whatever_the_crash() {
    crash_everywhere("cuts", small(8, 2), 200, true);
    crash_everywhere("cuts without the ring", small(0, 2), 200, true);
}
