//! Damage anywhere in a data directory is found and named, or lies where nothing is stored.
#![allow(clippy::unwrap_used)]

mod member;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use base::Prng;
use base::limits::{BLOCK_SIZE, PAGE_SIZE};
use inspect::Kind;

use member::{JSON, Member, check, inspect};

fn seed(default: u64) -> u64 {
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("seed {seed} (QUORATE_SEED to repeat)");
    seed
}

fn scale() -> u64 {
    std::env::var("QUORATE_TEST_SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

fn flip(path: &Path, offset: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= mask;
    file.write_all_at(&byte, offset).unwrap();
}

/// Keys, history, deletes, large values; some of it trimmed.
fn fill(member: &mut Member, prng: &mut Prng, puts: u64) {
    for _ in 0..puts {
        let key = format!("key/{:04}", prng.below(300));
        let size = if prng.one_in(25) { 20_000 } else { usize::try_from(prng.below(200)).unwrap() };
        let mut value = vec![0; size];
        prng.fill(&mut value);
        member.put(key.as_bytes(), &value);
        if prng.one_in(20) {
            member.delete(key.as_bytes(), b"");
        }
    }
}

/// Why: `check` is what people trust before they throw a copy away. A byte that decides anything must not
/// change without a fault, but for what a crash may tear; that must at least be told.
#[test]
fn a_flipped_byte_in_any_block_is_found_told_or_unused() {
    let mut prng = Prng::new(seed(1));
    let mut member = Member::create("flips");
    fill(&mut member, &mut prng, 60);
    member.checkpoint();
    fill(&mut member, &mut prng, 40);
    member.compact(20);
    member.trim();
    member.checkpoint();
    fill(&mut member, &mut prng, 20);
    member.watermark();
    fill(&mut member, &mut prng, 3);
    member.watermark();
    let root = member.directory.0.clone();
    let (clean, result) = check(&root);
    result.unwrap();
    assert!(clean.contains("older_start") && clean.contains("the same state"), "{clean}");
    assert!(clean.ends_with("clean notes=0\n"), "{clean}");

    let mut files = vec!["identity".to_string(), "pages".to_string()];
    for entry in fs::read_dir(root.join("wal")).unwrap() {
        files.push(format!("wal/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
    files.sort();
    let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for name in &files {
        let path = root.join(name);
        let bytes = fs::read(&path).unwrap();
        for (block, content) in bytes.chunks(BLOCK_SIZE).enumerate() {
            // Where nothing was ever written, a few places will do.
            if content.iter().all(|byte| *byte == 0) && !prng.one_in(16) {
                continue;
            }
            for _ in 0..4 * scale() {
                let size = u64::try_from(content.len()).unwrap();
                let offset = u64::try_from(block * BLOCK_SIZE).unwrap() + prng.below(size);
                let mask = 1 << prng.below(8);
                flip(&path, offset, mask);
                let (text, result) = check(&root);
                flip(&path, offset, mask);
                let count = counts.entry(name).or_default();
                match result {
                    Err(error) => {
                        assert!(error.is_fault(), "{name} {offset}: {error}");
                        assert!(error.to_string().contains(name), "{name} {offset}: {error}");
                        count[0] += 1;
                    }
                    Ok(()) if text.contains("note: ") => {
                        let mut notes = text.lines().filter(|line| line.starts_with("note: "));
                        assert!(notes.any(|note| note.contains(name)), "{name} {offset}: {text}");
                        count[1] += 1;
                    }
                    Ok(()) => {
                        assert_eq!(text, clean, "{name} {offset}");
                        count[2] += 1;
                    }
                }
            }
        }
    }
    println!("faults, notes, unused of each file: {counts:?}");
    // A letter of a hexadecimal number in the other case is the same number.
    assert!(counts["identity"][0] > 0, "{counts:?}");
    assert_eq!(counts["pages"][1], 8 * scale(), "a crash may have torn a meta slot, nothing else");
    assert!(counts["pages"][0] > 40, "{counts:?}");
    assert!(counts["wal/slot-000"][0] > 80, "{counts:?}");
    assert!(counts["wal/ring"][0] > 40, "{counts:?}");
    assert!(check(&root).1.is_ok(), "every byte is back");
}

/// Why: the test above cannot tell an unused block from one that is not looked at. Here the number of pages
/// in which damage is found must be the number of pages in use.
#[test]
fn every_page_in_use_and_no_other_is_verified() {
    let mut prng = Prng::new(seed(2));
    let mut member = Member::create("pages");
    fill(&mut member, &mut prng, 150);
    member.checkpoint();
    member.watermark();
    let root = member.directory.0.clone();
    let (text, result) = inspect(Kind::Pages, &root, &JSON);
    result.unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let checkpoint = lines.into_iter().find(|line| line["name"] == "checkpoint").unwrap();
    let used = checkpoint["used_pages"].as_u64().unwrap();
    assert!(checkpoint["branches"].as_u64().unwrap() > 0, "{text}");
    assert!(checkpoint["run_pages"].as_u64().unwrap() > 0, "{text}");
    let path = root.join("pages");
    let bytes = fs::read(&path).unwrap();
    let mut found = 0;
    for (page, content) in bytes.chunks(PAGE_SIZE).enumerate() {
        // The first 256 KiB belong to the meta slots.
        if page < 32 || content.iter().all(|byte| *byte == 0) {
            continue;
        }
        let offset = u64::try_from(page * PAGE_SIZE).unwrap();
        flip(&path, offset, 1);
        let (_, result) = inspect(Kind::Pages, &root, &JSON);
        flip(&path, offset, 1);
        let Err(error) = result else { continue };
        found += 1;
        let run = error.to_string();
        assert!(run.contains("pages: ") && run.contains(" at byte "), "{run}");
    }
    assert_eq!(found, used, "{text}");
}
