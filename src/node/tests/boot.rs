//! Boot of a member whose page file never got its first meta record whole.

#![allow(clippy::unwrap_used)]

use base::{FileId, LogIndex, NodeId};
use node::{Boot, BootStep, DataFile};
use wal::Files;

/// Boots from a page file that is filled with one byte and an empty log.
fn boot_from_pages_of(byte: u8) -> node::Booted {
    let options = tree::Options {
        file: FileId::new(1),
        cluster: 9,
        member: NodeId::new(7),
        cache_size: 1 << 20,
        growth_size: 1 << 20,
    };
    let files = Files { slots: Vec::new(), ring_size: 0, watermark_size: 0 };
    let mut boot = Boot::new(options, 1 << 20, files);
    while let BootStep::Read { file, size, .. } = boot.next().unwrap() {
        assert_eq!(file, DataFile::Pages);
        boot.feed(&vec![byte; size]).unwrap();
    }
    boot.finish()
}

/// A crash once tore the very first meta record: the start was refused although the log held everything.
#[test]
fn a_torn_first_meta_record_is_no_reason_to_refuse_while_the_log_is_whole() {
    let booted = boot_from_pages_of(0xA5);
    assert!(booted.clear_slots, "what was torn must not come back as a record");
    assert_eq!((booted.published, booted.replayed), (LogIndex::ZERO, 0));
    assert!(!boot_from_pages_of(0).clear_slots, "there is nothing to clear in blank slots");
}
