//! Damaged files: a few blocks of a data directory whose server is down get other bytes than it wrote.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::Prng;

/// What disks lose at once.
const BLOCK_SIZE: usize = 4_096;

/// Blocks that are looked at to find one that holds something.
const TRIES: usize = 400;

/// Damages one to three blocks that hold something. Returns what was done, for people, with the paths.
///
/// # Errors
/// The files cannot be read or written.
pub fn damage(data_dir: &Path, prng: &mut Prng) -> io::Result<Vec<(PathBuf, String)>> {
    let mut done = Vec::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(data_dir.join("wal"))? {
        files.push(entry?.path());
    }
    files.sort();
    let pages = data_dir.join("pages");
    for _ in 0..1 + prng.below(3) {
        // As much of the state as of the log.
        let path = if files.is_empty() || prng.one_in(2) {
            &pages
        } else {
            &files[below(prng, files.len())]
        };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let Some((offset, mut block)) = block(&file, prng)? else { continue };
        let how = match prng.below(3) {
            0 => {
                let at = below(prng, block.len());
                block[at] ^= 1 << prng.below(8);
                "one bit flipped"
            }
            1 => {
                block.fill(0);
                "zeroed"
            }
            _ => {
                prng.fill(&mut block);
                "other bytes"
            }
        };
        file.write_all_at(&block, offset)?;
        file.sync_all()?;
        done.push((path.clone(), format!("{} at {offset}: {how}", path.display())));
    }
    Ok(done)
}

/// A block that is not all zeroes, if one is found soon.
fn block(file: &File, prng: &mut Prng) -> io::Result<Option<(u64, Vec<u8>)>> {
    let size = file.metadata()?.len();
    let blocks = size.div_ceil(u64::try_from(BLOCK_SIZE).expect("a block is small"));
    for _ in 0..TRIES {
        if blocks == 0 {
            return Ok(None);
        }
        let offset = prng.below(blocks) * 4_096;
        let mut block = vec![0; BLOCK_SIZE];
        let read = file.read_at(&mut block, offset)?;
        block.truncate(read);
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some((offset, block)));
        }
    }
    Ok(None)
}

fn below(prng: &mut Prng, count: usize) -> usize {
    let bound = u64::try_from(count).expect("usize has at most 64 bits");
    usize::try_from(prng.below(bound)).expect("below a usize")
}
