//! Damage of what is stored: bits that rot, writes that land elsewhere or nowhere, reads that come from
//! elsewhere. The disk says nothing of it.

use std::rc::Rc;

use base::Prng;
use wal::WalFile;

use crate::disk::{Block, Disk, Name, SECTOR, at};
use crate::plan::{Fault, Victim};

/// What a disk writes at one place.
const BLOCK: usize = 4096;

/// Damage that waits for the next operation on a file of this kind.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    pub fault: Fault,
    pub victim: Victim,
    /// It strikes a read instead of a write.
    pub of_read: bool,
}

impl Victim {
    /// Whether a file is of this kind.
    pub fn is(self, file: Name) -> bool {
        match file {
            Name::Pages | Name::Incoming => self == Self::Pages,
            Name::Wal(WalFile::Slot(_)) => self == Self::Segments,
            Name::Wal(WalFile::Ring) => self == Self::Ring,
            Name::Wal(WalFile::Watermark) => self == Self::Watermark,
            Name::Unlinked => false,
        }
    }
}

/// A part of a write, and where it lands.
pub struct Landing {
    pub offset: usize,
    pub bytes: Rc<Block>,
    pub size: usize,
}

impl Disk {
    /// Where a write lands: where it should, unless damage waits for it.
    pub fn land(&mut self, file: Name, offset: usize, bytes: Rc<Block>, size: usize) -> Landing {
        let Some(armed) = self.armed.filter(|armed| !armed.of_read && armed.victim.is(file)) else {
            return Landing { offset, bytes, size };
        };
        let whole = self.visible_size(file);
        let prng = &mut self.damage;
        let landing = match armed.fault {
            Fault::Misdirect => {
                let Some(elsewhere) = elsewhere(whole, offset, size, prng) else {
                    return Landing { offset, bytes, size };
                };
                Landing { offset: elsewhere, bytes, size }
            }
            // All of it, its end, or its first block.
            _ if size > BLOCK && prng.one_in(3) => {
                let bytes = Rc::new(bytes[BLOCK..size].to_vec());
                Landing { offset: offset + BLOCK, bytes, size: size - BLOCK }
            }
            _ => {
                let blocks = (size / BLOCK) as u64;
                let kept = if prng.one_in(2) { 0 } else { BLOCK * at(prng.below(blocks.max(1))) };
                Landing { offset, bytes, size: kept }
            }
        };
        self.armed = None;
        self.struck = Some((
            armed.fault,
            format!(
                "{file:?} at {offset}, {size} bytes: {} at {} are written",
                landing.size, landing.offset
            ),
        ));
        landing
    }

    /// Where a read comes from: from where it should, unless damage waits for it.
    pub fn comes_from(&mut self, file: Name, offset: u64, size: usize) -> u64 {
        let Some(armed) = self.armed.filter(|armed| armed.of_read && armed.victim.is(file)) else {
            return offset;
        };
        let whole = self.visible_size(file);
        let Some(elsewhere) = elsewhere(whole, at(offset), size, &mut self.damage) else {
            return offset;
        };
        self.armed = None;
        let text = format!("{file:?} at {offset}, {size} bytes: read from {elsewhere}");
        self.struck = Some((armed.fault, text));
        elsewhere as u64
    }

    /// Changes what is stored, behind everybody's back; returns what it did, if there was anything.
    pub fn rot(&mut self, victim: Victim, prng: &mut Prng) -> Option<String> {
        let names: Vec<Name> = self.names().filter(|name| victim.is(*name)).collect();
        let name = *names.get(at(prng.below(names.len().max(1) as u64)))?;
        // Where something is written: zeros are no victims.
        let used = self.used_blocks(name, BLOCK);
        if used.is_empty() {
            return None;
        }
        // What was written last is in use for sure.
        let place = match prng.one_in(3) {
            true => used.len() - 1,
            false => at(prng.below(used.len() as u64)),
        };
        let victim = used[place] * BLOCK;
        let (sector, place) = (at(prng.below(8)) * SECTOR, at(prng.below(4096)));
        let kind = prng.below(4);
        let mut garbage = [0; SECTOR];
        prng.fill(&mut garbage);
        self.change_stored(name, victim, BLOCK, |block| match kind {
            0 => block[place] ^= 1 << (place % 8),
            1 => block[sector..][..SECTOR].fill(0),
            2 => block.fill(0),
            _ => block[sector..][..SECTOR].copy_from_slice(&garbage),
        });
        Some(format!("{name:?} at {victim}: kind {kind}"))
    }
}

/// Another place of a file for so many bytes, near or far.
fn elsewhere(whole: usize, offset: usize, size: usize, prng: &mut Prng) -> Option<usize> {
    let places = whole.checked_sub(size)? / BLOCK + 1;
    let own = offset / BLOCK;
    let place = match prng.below(2) {
        0 => at(prng.below(places as u64)),
        _ => (own + at(prng.below(32))).checked_sub(16).filter(|place| *place < places)?,
    };
    (place != own).then_some(place * BLOCK)
}
