//! The format, pinned: a small group, its ring slot, a watermark and a segment header, byte for
//! byte. A change here is a change of the format version.

mod disk;

use base::{LogIndex, NodeId, Term, hash128};
use disk::{BLOCK, Run, small};
use wal::{HardState, WalFile};

fn golden() -> Run {
    let mut run = Run::create(small(8, 1));
    run.writer.set_hard_state(HardState {
        term: Term::new(3),
        vote: Some(NodeId::new(7)),
        commit: LogIndex::new(0),
        begun: false,
    });
    run.append(3, 1, b"hello, log");
    run.append(3, 2, b"");
    run.flush();
    run.watermark();
    run
}

fn hex(bytes: &[u8]) -> Vec<String> {
    let rows = bytes.chunks(32).map(|row| row.iter().map(|b| format!("{b:02x}")).collect());
    let mut rows: Vec<String> = rows.collect();
    while rows.last().is_some_and(|row: &String| row.bytes().all(|b| b == b'0')) {
        rows.pop();
    }
    rows
}

#[test]
fn a_group_has_the_pinned_bytes() {
    let run = golden();
    let slot = &run.image[&WalFile::Slot(0)];
    let rows = hex(&slot[BLOCK..2 * BLOCK]);
    let pinned: Vec<&str> = include_str!("golden/group.hex").lines().collect();
    assert_eq!(rows, pinned, "\n{}", rows.join("\n"));
}

#[test]
fn segment_header_ring_slot_and_watermark_have_the_pinned_hashes() {
    let run = golden();
    let header = hash128(&run.image[&WalFile::Slot(0)][..BLOCK]);
    let ring = hash128(&run.image[&WalFile::Ring][BLOCK..2 * BLOCK]);
    let watermark = hash128(&run.image[&WalFile::Watermark][BLOCK..2 * BLOCK]);
    let found = format!("{header} {ring} {watermark}");
    assert_eq!(found, include_str!("golden/others.txt").trim());
}
