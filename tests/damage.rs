//! Damaged files: a data directory of a stopped server is changed in one place, and a server is started
//! on it. It refuses to start and names the place, or it serves exactly what was stored, or it ends
//! itself at the first read of the damaged page and names that. It never gives a wrong answer and never
//! forgets an acknowledged write.
//!
//! ```text
//! build ─► original, in memory ─► restore ─► damage ─► inspect check ─► server ─► everything read, or
//!                                    ▲                                            the end, with a name
//!                                    └───────────────────────────────────────────────┘
//! ```
//!
//! QUORATE_TEST_SCALE takes more places; QUORATE_SEED repeats the choice of places.

#![allow(clippy::unwrap_used)]

mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use base::Prng;
use client::{Client, Compact, DeleteRange, Op, OwnedKeyValue, Put, Range, Txn};
use process::{DataDir, Ended, PATIENCE, SMALL, Server, Signal, Start};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// Offsets of the two meta slots in the page file.
const META_OFFSETS: [u64; 2] = [0, 64 << 10];

/// Everything in one data directory, as it was stopped.
struct Original {
    /// By path in the directory. Not those in which nothing is stored: the lock and the probe.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// The answers that every start must give.
    answers: Vec<Answer>,
    /// The answers after one more put, of [`LATER`].
    later: Vec<Answer>,
}

/// What is put after a start on a damaged directory. It comes behind all other keys.
const LATER: &[u8] = b"later";

/// All keys at a revision.
#[derive(Clone, PartialEq)]
struct Answer {
    /// What is asked for; 0: the newest.
    revision: i64,
    /// The newest one.
    newest: i64,
    members: Vec<OwnedKeyValue>,
}

impl Answer {
    fn read(client: &mut Client, revision: i64) -> Result<Self, client::Error> {
        let result = client.range(&Range { revision, ..Range::all() })?;
        Ok(Self { revision, newest: result.revision, members: result.kvs })
    }
}

/// Puts and deletes by chance: mostly small values, some in runs of a few pages.
fn fill(client: &mut Client, prng: &mut Prng, count: u64) {
    for _ in 0..count {
        let key = format!("key/{:03}", prng.below(250)).into_bytes();
        let size = if prng.one_in(20) { 4_000 + prng.below(60_000) } else { prng.below(400) };
        let mut value = vec![0; usize::try_from(size).unwrap()];
        prng.fill(&mut value);
        match prng.below(12) {
            0 => drop(client.delete(&DeleteRange::one(&key)).unwrap()),
            1 => {
                let other = [&key[..], b"/txn"].concat();
                let txn = Txn::new()
                    .then(Op::Put(Put::new(&key, &value)))
                    .then(Op::Put(Put::new(&other, b"small")));
                client.txn(&txn).unwrap();
            }
            _ => drop(client.put(&Put::new(&key, &value)).unwrap()),
        }
    }
}

/// Writes large values until a checkpoint has been made.
fn write_until_checkpoint(client: &mut Client, prng: &mut Prng, data_dir: &Path) {
    let metas = || {
        META_OFFSETS.map(|offset| {
            let mut record = vec![0; BLOCK];
            // There is no file before the first one.
            let file = File::open(data_dir.join("pages"));
            drop(file.and_then(|file| file.read_exact_at(&mut record, offset)));
            record
        })
    };
    let (before, begin) = (metas(), Instant::now());
    // Mostly zeros: places are drawn among blocks with something in them, and those of values that are
    // replaced at once matter least.
    let mut value = vec![0; 1_000_000];
    while metas() == before {
        prng.fill(&mut value[..100]);
        client.put(&Put::new(b"large", &value)).unwrap();
        assert!(begin.elapsed() < PATIENCE, "no checkpoint is made");
    }
}

/// A data directory with everything in it: history, runs, tombstones, compacted and trimmed history, two
/// checkpoints, and a log behind the newer one.
fn build(prng: &mut Prng) -> Original {
    let data_dir = DataDir::new("original");
    let mut server = Server::start(data_dir.path(), SMALL);
    let mut revisions = vec![0];
    for _ in 0..3 {
        fill(&mut server.client(), prng, 100);
        // Replay, and a first checkpoint after it, belong to the life of a directory.
        server.kill();
        server = Server::start(data_dir.path(), SMALL);
        let mut client = server.client();
        fill(&mut client, prng, 50);
        let revision = client.status().unwrap().revision;
        write_until_checkpoint(&mut client, prng, data_dir.path());
        let physical = true;
        client.compact(&Compact { revision: revision - 50, physical }).unwrap();
        revisions = vec![0, revision - 50, revision];
    }
    fill(&mut server.client(), prng, 100);
    let (ended, _) = server.stop(Signal::TERM);
    assert!(ended.status.success(), "{ended:?}");
    process::check_clean(data_dir.path());

    let mut files = BTreeMap::new();
    for folder in ["", "wal"] {
        for entry in fs::read_dir(data_dir.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("lock") && !path.ends_with("probe") {
                let name = path.strip_prefix(data_dir.path()).unwrap().to_path_buf();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    let server = Server::start(data_dir.path(), SMALL);
    let mut client = server.client();
    let answer = |revision: &i64| Answer::read(&mut client, *revision).unwrap();
    let answers: Vec<Answer> = revisions.iter().map(answer).collect();
    let revision = client.put(&Put::new(LATER, LATER)).unwrap().revision;
    let later = answers.iter().map(|answer| Answer { newest: revision, ..answer.clone() });
    let mut later: Vec<Answer> = later.collect();
    later[0] = Answer::read(&mut client, 0).unwrap();
    Original { answers, later, files }
}

/// Makes the directory what it was. Only blocks that differ are written.
fn restore(data_dir: &Path, original: &Original) {
    fs::create_dir_all(data_dir.join("wal")).unwrap();
    for entry in fs::read_dir(data_dir.join("wal")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(data_dir).unwrap();
        if !original.files.contains_key(name) {
            fs::remove_file(&path).unwrap();
        }
    }
    for (name, bytes) in &original.files {
        let path = data_dir.join(name);
        // The files of a server have no holes, but for the page file where it is not used.
        let Some(present) = fs::read(&path).ok().filter(|present| present.len() == bytes.len())
        else {
            fs::write(&path, bytes).unwrap();
            continue;
        };
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let at = index * BLOCK;
            if present[at..at + block.len()] != *block {
                file.write_all_at(block, at as u64).unwrap();
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One bit is another.
    Flip,
    /// 512 bytes are zero.
    ZeroSector,
    /// 4 KiB are zero.
    ZeroBlock,
    /// The block has changed places with another one of the file.
    Swap,
}

/// One place that is damaged.
#[derive(Clone)]
struct Damage {
    file: PathBuf,
    kind: Kind,
    /// Where, in bytes, and the bytes that stand there then.
    writes: Vec<(usize, Vec<u8>)>,
}

impl fmt::Debug for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<usize> = self.writes.iter().map(|(at, _)| *at).collect();
        write!(f, "{:?} of {} at {places:?}", self.kind, self.file.display())
    }
}

impl Damage {
    /// Damage of the block at `at`; none if that would change nothing.
    fn draw(name: &Path, bytes: &[u8], kind: Kind, at: usize, prng: &mut Prng) -> Option<Self> {
        let below =
            |prng: &mut Prng, bound: usize| usize::try_from(prng.below(bound as u64)).unwrap();
        let block = &bytes[at..(at + BLOCK).min(bytes.len())];
        let writes = match kind {
            Kind::Flip => {
                let place = below(prng, block.len());
                let bit = 1 << prng.below(8);
                vec![(at + place, vec![block[place] ^ bit])]
            }
            Kind::ZeroSector => {
                let place = below(prng, block.len().div_ceil(SECTOR)) * SECTOR;
                let size = SECTOR.min(block.len() - place);
                vec![(at + place, vec![0; size])]
            }
            Kind::ZeroBlock => vec![(at, vec![0; block.len()])],
            Kind::Swap => {
                let other = pick_block(bytes, prng);
                let with = &bytes[other..(other + BLOCK).min(bytes.len())];
                if with.len() != block.len() {
                    return None;
                }
                vec![(at, with.to_vec()), (other, block.to_vec())]
            }
        };
        let changes = writes.iter().any(|(at, new)| bytes[*at..at + new.len()] != new[..]);
        changes.then(|| Self { file: name.to_path_buf(), kind, writes })
    }

    fn apply(&self, data_dir: &Path) {
        let file = OpenOptions::new().write(true).open(data_dir.join(&self.file)).unwrap();
        for (at, bytes) in &self.writes {
            file.write_all_at(bytes, *at as u64).unwrap();
        }
    }

    /// Whether a message names the file.
    fn is_named(&self, text: &str) -> bool {
        let name = self.file.to_str().unwrap();
        text.contains(name) || (name == "pages" && text.contains("page file"))
    }
}

/// A block of a file, mostly one that something stands in.
fn pick_block(bytes: &[u8], prng: &mut Prng) -> usize {
    let blocks = bytes.len().div_ceil(BLOCK) as u64;
    let mut at = 0;
    for _ in 0..50 {
        at = usize::try_from(prng.below(blocks)).unwrap() * BLOCK;
        let block = &bytes[at..(at + BLOCK).min(bytes.len())];
        if block.iter().any(|byte| *byte != 0) {
            break;
        }
    }
    at
}

/// Blocks that decide much: every file's first one, both meta slots, the blocks of the watermark.
fn special_damages(original: &Original, prng: &mut Prng) -> Vec<Damage> {
    let mut places: Vec<(&PathBuf, usize)> = Vec::new();
    for (name, bytes) in &original.files {
        places.push((name, 0));
        if name.ends_with("pages") {
            places.push((name, usize::try_from(META_OFFSETS[1]).unwrap()));
        }
        if name.ends_with("watermark") {
            places.extend((BLOCK..bytes.len()).step_by(BLOCK).map(|at| (name, at)));
        }
    }
    let kinds = [Kind::Flip, Kind::ZeroBlock, Kind::Swap, Kind::ZeroSector];
    places
        .into_iter()
        .flat_map(|(name, at)| kinds.map(|kind| (name, at, kind)))
        .filter_map(|(name, at, kind)| Damage::draw(name, &original.files[name], kind, at, prng))
        .collect()
}

/// Anywhere: files with much in them more often.
fn random_damage(original: &Original, prng: &mut Prng) -> Damage {
    let kinds = [Kind::Flip, Kind::ZeroSector, Kind::ZeroBlock, Kind::Swap];
    loop {
        let chosen = prng.below(original.files.len() as u64);
        let name = match prng.below(2) {
            0 => Path::new("pages"),
            _ => original.files.keys().nth(usize::try_from(chosen).unwrap()).unwrap(),
        };
        let bytes = &original.files[name];
        let kind = kinds[usize::try_from(prng.below(4)).unwrap()];
        let at = pick_block(bytes, prng);
        if let Some(damage) = Damage::draw(name, bytes, kind, at, prng) {
            return damage;
        }
    }
}

/// How a case went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    /// The server did not start and said why.
    Refused,
    /// The server ended at a read and said why.
    Halted,
    /// Everything was there.
    Harmless,
}

/// Checks how a server ended that could not go on.
fn expect_named(damage: &Damage, ended: &Ended) {
    let text = &ended.stderr;
    assert!(
        ended.status.code().is_some_and(|code| code != 0) && !text.contains("panicked"),
        "{damage:?}: {ended:?}"
    );
    let place = damage.file.ends_with("identity") || text.contains("at byte");
    assert!(damage.is_named(text) && place, "{damage:?} is not named: {ended:?}");
}

/// Reads everything that was readable before, and compares.
fn read_all(damage: &Damage, server: &Server, answers: &[Answer]) -> Result<(), client::Error> {
    let mut client = server.client();
    client.set_request_timeout(PATIENCE / 4)?;
    for expected in answers {
        let found = Answer::read(&mut client, expected.revision)?;
        assert_eq!(
            found.newest,
            expected.newest,
            "{damage:?}: another newest revision; standard error: {}",
            server.stderr()
        );
        let differs = found.members.iter().zip(&expected.members).find(|(a, b)| a != b);
        let differs = differs.map(|(found, _)| String::from_utf8_lossy(&found.key).into_owned());
        assert!(
            found == *expected,
            "{damage:?}: {} keys instead of {} at revision {}, differs at {differs:?}",
            found.members.len(),
            expected.members.len(),
            expected.revision
        );
    }
    Ok(())
}

/// One case.
fn judge(damage: &Damage, data_dir: &Path, original: &Original) -> Verdict {
    restore(data_dir, original);
    damage.apply(data_dir);
    let check = process::run(&["inspect", "check", data_dir.to_str().unwrap()]);
    let report = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(!report.contains("panicked"), "{damage:?}: inspect: {report}");

    let flags = [SMALL, &["--sync", "fdatasync"]].concat();
    let mut verdict = Verdict::Harmless;
    // The second time after a write and another crash: what a start made of the damage must hold.
    for (turn, answers) in [&original.answers, &original.later].into_iter().enumerate() {
        let server = match Start::spawn(data_dir, &flags).ready() {
            Ok(server) => server,
            Err(ended) => {
                expect_named(damage, &ended);
                verdict = Verdict::Refused;
                break;
            }
        };
        let read = read_all(damage, &server, answers).and_then(|()| {
            if turn == 0 { server.client().put(&Put::new(LATER, LATER)).map(drop) } else { Ok(()) }
        });
        let Err(error) = read else {
            let ended = server.kill();
            assert!(ended.was_killed(), "{damage:?}: {ended:?}");
            continue;
        };
        match server.ended_within(PATIENCE) {
            Ok(ended) => expect_named(damage, &ended),
            Err(server) => panic!("{damage:?}: {error}, and it lives on: {}", server.stderr()),
        }
        verdict = Verdict::Halted;
        break;
    }
    assert!(
        verdict == Verdict::Harmless || !check.status.success(),
        "{damage:?}: inspect check finds no fault, and the server {verdict:?}"
    );
    verdict
}

#[test]
fn damage_anywhere_is_named_or_harmless_and_never_gives_a_wrong_answer() {
    let mut prng = Prng::new(process::seed());
    let original = build(&mut prng);
    let mut damages = special_damages(&original, &mut prng);
    damages.extend((0..60 * process::scale()).map(|_| random_damage(&original, &mut prng)));
    let stored: usize = original.files.values().map(Vec::len).sum();
    eprintln!("{} files, {stored} bytes, {} cases", original.files.len(), damages.len());

    // By file and verdict.
    let counts: Mutex<BTreeMap<(PathBuf, Verdict), u64>> = Mutex::default();
    let next = Mutex::new(damages.iter());
    thread::scope(|scope| {
        for worker in 0..2 {
            let (counts, next, original) = (&counts, &next, &original);
            scope.spawn(move || {
                let data_dir = DataDir::new(&format!("damaged-{worker}"));
                let draw = || next.lock().unwrap().next();
                while let Some(damage) = draw() {
                    let verdict = judge(damage, data_dir.path(), original);
                    *counts.lock().unwrap().entry((damage.file.clone(), verdict)).or_default() += 1;
                }
            });
        }
    });
    for ((file, verdict), count) in counts.into_inner().unwrap() {
        eprintln!("{count:4} {verdict:?} {}", file.display());
    }
}
