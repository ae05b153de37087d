//! Directories in every condition that is no damage, and those that are none.
#![allow(clippy::unwrap_used)]

mod member;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use inspect::{Error, Kind, Options};
use node::EntryKind;
use wal::WalFile;
use wire::Call;

use member::{Directory, JSON, Member, TEXT, body, check, inspect};

#[test]
fn a_directory_that_no_server_has_written_to_is_clean() {
    let directory = Directory::with_identity("fresh");
    let (text, result) = check(&directory.0);
    result.unwrap();
    assert!(text.contains("no checkpoint yet") && text.contains("revision=1"), "{text}");
    for kind in [Kind::Wal, Kind::Pages, Kind::Meta] {
        inspect(kind, &directory.0, &TEXT).1.unwrap();
    }
}

#[test]
fn a_log_without_a_checkpoint_is_clean() {
    let mut member = Member::create("log");
    member.put(b"a", b"1");
    member.put(b"a", b"2");
    let (text, result) = check(&member.directory.0);
    result.unwrap();
    // No group says that the last entry was committed.
    assert!(text.contains("pending=1"), "{text}");
    assert!(text.contains("keys revision=2 count=1"), "{text}");
    assert!(text.contains("keys revision=1 count=0"), "{text}");
}

#[test]
fn what_a_crash_leaves_is_clean_and_told() {
    let mut member = Member::create("torn");
    for number in 0..50 {
        member.put(format!("{number}").as_bytes(), &[7; 500]);
    }
    member.checkpoint();
    member.put(b"a", b"1");
    member.checkpoint();
    member.put(b"b", b"1");
    // A checkpoint that did not come to its meta record.
    member.checkpoint_pages();
    // A group of which only a part came down.
    let (text, _) = inspect(Kind::Wal, &member.directory.0, &JSON);
    let group = text.lines().rfind(|line| line.contains("\"name\":\"group\"")).unwrap();
    let group: serde_json::Value = serde_json::from_str(group).unwrap();
    let slot = u32::try_from(group["slot"].as_u64().unwrap()).unwrap();
    let end = group["offset"].as_u64().unwrap() + group["size"].as_u64().unwrap();
    member.append(EntryKind::Put, &body(Call::Put(wire::Put::new(b"c", &[9; 9000]))));
    member.seal();
    let path = member.directory.path(WalFile::Slot(slot));
    File::options().write(true).open(path).unwrap().write_all_at(&[0; 4096], end + 4096).unwrap();
    let (text, result) = check(&member.directory.0);
    result.unwrap();
    assert!(text.contains("torn group") && text.contains("the same state"), "{text}");
    assert!(text.ends_with("clean notes=1\n"), "{text}");
}

/// A sound member that had been sent its state was called damaged: one slot still held a checkpoint of the
/// time when the state was on its way, until the next one.
#[test]
fn a_state_that_came_from_another_member_is_clean_once_it_is_whole() {
    let mut member = Member::create("received");
    for number in 0..60 {
        member.put(format!("{number}").as_bytes(), &[7; 3000]);
    }
    member.receive();
    let (_, result) = check(&member.directory.0);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("has not arrived whole"), "{error}");
    member.checkpoint();
    let (text, result) = check(&member.directory.0);
    result.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert!(text.contains("on its way in from another member"), "{text}");
    let (text, result) = inspect(Kind::Meta, &member.directory.0, &TEXT);
    result.unwrap();
    assert!(text.contains("not whole") && text.contains("applied=61"), "{text}");
    // The next checkpoint takes the other slot.
    member.put(b"a", b"1");
    member.checkpoint();
    let (text, result) = check(&member.directory.0);
    result.unwrap();
    assert!(text.contains("older_start") && text.ends_with("clean notes=0\n"), "{text}");
}

#[test]
fn recycled_segments_are_clean() {
    let mut member = Member::create("recycled");
    for round in 0..12 {
        let applied = member.state.applied().0;
        for number in 0..12 {
            member.put(format!("{number}").as_bytes(), &[round; 3000]);
        }
        member.checkpoint();
        member.recycle(applied.next());
    }
    member.delete(b"0", b"\0");
    member.watermark();
    let (text, result) = check(&member.directory.0);
    result.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert!(text.contains("the same state") && !text.contains("base=0"), "{text}");
    assert!(text.ends_with("clean notes=0\n"), "{text}");
}

/// Why: a start takes the older checkpoint when the newer one is damaged; a log that does not reach back
/// to it makes that impossible, and nothing tells before it is needed.
#[test]
fn a_log_that_begins_behind_the_older_checkpoint_is_a_fault() {
    let mut member = Member::create("behind");
    for round in 0..2 {
        for number in 0..60 {
            member.put(format!("{number}").as_bytes(), &[round; 3000]);
        }
        member.checkpoint();
    }
    let newer = member.state.applied().0;
    for number in 0..60 {
        member.put(format!("{number}").as_bytes(), b"value");
        member.recycle(newer.next());
    }
    member.watermark();
    let (text, result) = check(&member.directory.0);
    let error = result.expect_err(&text);
    assert!(
        error.to_string().contains("a start from the older checkpoint, meta slot 0"),
        "{error}"
    );
}

#[test]
fn records_are_listed_from_an_index_up_to_a_number() {
    let mut member = Member::create("list");
    for number in 0..20 {
        member.put(format!("key{number}").as_bytes(), b"value");
    }
    member.delete(b"key1", b"key2");
    let records = |options: &Options| {
        let (text, result) = inspect(Kind::Wal, &member.directory.0, options);
        result.unwrap();
        text.lines().filter(|line| line.starts_with("record ")).map(str::to_owned).collect()
    };
    let all: Vec<String> = records(&TEXT);
    assert_eq!(all.len(), 22);
    assert!(all[1].ends_with(": put key=\"key0\" value 5 bytes"), "{}", all[1]);
    assert!(all[21].ends_with(": delete from=\"key1\" to=\"key2\""), "{}", all[21]);
    let some: Vec<String> = records(&Options { from: 5, limit: Some(3), ..TEXT });
    assert_eq!(some, all[4..7]);
}

#[test]
fn json_is_one_object_per_line() {
    let mut member = Member::create("json");
    member.put(b"\"\\\xff", b"value");
    member.checkpoint();
    member.watermark();
    for kind in [Kind::Wal, Kind::Pages, Kind::Meta, Kind::Check] {
        let (text, result) = inspect(kind, &member.directory.0, &JSON);
        result.unwrap();
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["name"].is_string(), "{line}");
        }
    }
}

#[test]
fn meta_shows_both_slots_and_the_ends_of_the_log() {
    let mut member = Member::create("meta");
    member.put(b"a", b"1");
    member.checkpoint();
    let first = member.state.state_hash().to_bytes();
    member.put(b"a", b"2");
    member.checkpoint();
    member.watermark();
    let (text, result) = inspect(Kind::Meta, &member.directory.0, &TEXT);
    result.unwrap();
    let hex: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(text.contains("meta slot=0 offset=0 root=1 applied=2"), "{text}");
    assert!(text.contains("meta slot=1 offset=65536 root=2 applied=3"), "{text}");
    assert!(text.contains(&hex) && text.contains("watermark sequence=1"), "{text}");
}

#[test]
fn a_directory_in_use_is_refused_unless_forced() {
    let mut member = Member::create("lock");
    member.put(b"a", b"1");
    let path = &member.directory.0;
    let lock = File::options().write(true).open(path.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let (text, result) = check(path);
    assert!(matches!(result, Err(Error::InUse { .. })), "{result:?}");
    assert_eq!(text, "");
    let (text, result) = inspect(Kind::Check, path, &Options { force: true, ..TEXT });
    result.unwrap();
    assert!(text.starts_with("note: another process"), "{text}");
    lock.unlock().unwrap();
    check(path).1.unwrap();
    // Two inspections at the same time do not disturb each other.
    lock.try_lock_shared().unwrap();
    check(path).1.unwrap();
    // A copy may have no lock file, and gets none.
    fs::remove_file(path.join("lock")).unwrap();
    check(path).1.unwrap();
    assert!(!path.join("lock").exists());
}

#[test]
fn what_is_no_data_directory_is_said_to_be_none() {
    let directory = Directory::new("none");
    let (_, result) = check(&directory.0);
    assert!(matches!(result, Err(Error::NotDataDir { .. })), "{result:?}");
    let (_, result) = check(&directory.0.join("nowhere"));
    assert!(matches!(&result, Err(error @ Error::Io { .. }) if !error.is_fault()), "{result:?}");
}

#[test]
fn missing_files_are_faults() {
    let build = |name| {
        let mut member = Member::create(name);
        for number in 0..100 {
            member.put(format!("{number}").as_bytes(), &[1; 3000]);
        }
        member.checkpoint();
        member.watermark();
        member
    };
    for name in ["identity", "wal", "wal/slot-001", "wal/slot-002", "wal/slot-003"] {
        let member = build("missing");
        let path = member.directory.0.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        let (text, result) = check(&member.directory.0);
        let error = result.expect_err(&text);
        assert!(error.is_fault(), "{name}: {error}");
        println!("without {name}: {error}");
    }
    // The whole history is in the log of this member: it can do without the page file.
    let member = build("unpaged");
    fs::remove_file(member.directory.0.join("pages")).unwrap();
    check(&member.directory.0).1.unwrap();
}
