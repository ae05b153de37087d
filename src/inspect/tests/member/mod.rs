//! A data directory made by hand: a log writer and a state, driven as a server drives them, that write
//! their files with `std`.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::{FileId, LogIndex, NodeId, RequestId, Revision, Term, crc32};
use inspect::{Error, Kind};
use kv::{Chunk, Command, Export, Fed, Import, State, Step};
use node::EntryKind;
use tree::{META_SIZE, PageFile};
use wal::{Append, Entry, HardState, Identity, Position, Seal, WalFile, Write, Writer};
use wire::{Call, HEADER_SIZE, RequestEncoder};

const CLUSTER: u64 = 0xC1;
const MEMBER: NodeId = NodeId::new(7);
const PAGE_FILE: FileId = FileId::new(0x1234_5678);
const SEGMENT_SIZE: u64 = 128 << 10;
pub const RING_SLOTS: u32 = 16;

const PAGES: tree::Options = tree::Options {
    file: PAGE_FILE,
    cluster: CLUSTER,
    member: MEMBER,
    cache_size: 64 << 20,
    growth_size: 1 << 20,
};

/// A temporary directory, gone with its value.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inspect-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With what a server writes first.
    pub fn with_identity(name: &str) -> Self {
        let directory = Self::new(name);
        let body = format!(
            "format=1\ncluster={CLUSTER:016x}\nmember={:016x}\npages={:032x}\nsegment={SEGMENT_SIZE}\n",
            MEMBER.get(),
            PAGE_FILE.get()
        );
        let text = format!("{body}crc32={:08x}\n", crc32(body.as_bytes()));
        fs::write(directory.0.join("identity"), text).unwrap();
        fs::write(directory.0.join("lock"), "").unwrap();
        fs::create_dir(directory.0.join("wal")).unwrap();
        directory
    }

    pub fn path(&self, file: WalFile) -> PathBuf {
        self.0.join(file.to_string())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// What an inspection gave: what it printed, and its end.
pub fn inspect(kind: Kind, path: &Path, options: &inspect::Options) -> (String, Result<(), Error>) {
    let mut out = Vec::new();
    let result = inspect::run(kind, path, options, &mut out);
    (String::from_utf8(out).unwrap(), result)
}

pub const TEXT: inspect::Options =
    inspect::Options { json: false, force: false, from: 0, limit: None };
pub const JSON: inspect::Options =
    inspect::Options { json: true, force: false, from: 0, limit: None };

pub fn check(path: &Path) -> (String, Result<(), Error>) {
    inspect(Kind::Check, path, &TEXT)
}

fn open(path: &Path, size: u64) -> File {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let file = file.unwrap();
    if file.metadata().unwrap().len() < size {
        file.set_len(size).unwrap();
    }
    file
}

/// One member at work in a directory.
pub struct Member {
    pub directory: Directory,
    writer: Writer<Vec<u8>>,
    pub state: State,
    term: Term,
    slots: u32,
    uuid: u128,
}

impl Member {
    pub fn create(name: &str) -> Self {
        let directory = Directory::with_identity(name);
        let identity =
            Identity { cluster: CLUSTER, member: MEMBER, incarnation: FileId::new(0xAB) };
        let options = wal::Options {
            segment_size: SEGMENT_SIZE,
            block_size: 64 << 10,
            groups_in_flight_max: 2,
            ring_slots: RING_SLOTS,
        };
        open(&directory.path(WalFile::Ring), u64::from(RING_SLOTS) * 4096);
        open(&directory.path(WalFile::Watermark), 4 * 4096);
        let state = State::create(PageFile::create(&PAGES));
        let mut member = Self {
            directory,
            writer: Writer::create(identity, options, Position::ORIGIN),
            state,
            term: Term::new(1),
            slots: 0,
            uuid: 100,
        };
        member.set_commit(LogIndex::ZERO);
        member.propose(EntryKind::Empty, &[], &Command::Nothing);
        member
    }

    fn set_commit(&mut self, commit: LogIndex) {
        let (term, vote) = (self.term, Some(MEMBER));
        self.writer.set_hard_state(HardState { term, vote, commit, begun: true });
    }

    fn write(&self, write: &Write<Vec<u8>>) {
        let file = open(&self.directory.path(write.file), 0);
        file.write_all_at(&write.block[..write.size], write.offset).unwrap();
    }

    fn spares(&mut self) {
        while self.writer.spares_wanted() > 0 {
            let slot = self.writer.take_free().unwrap_or_else(|| {
                let slot = self.slots;
                self.slots += 1;
                open(&self.directory.path(WalFile::Slot(slot)), SEGMENT_SIZE);
                slot
            });
            self.uuid += 1;
            let uuid = FileId::new(self.uuid);
            let write = self.writer.prepare_spare(slot, uuid, &mut |size| vec![0xDB; size]);
            self.write(&write);
            self.writer.spare_ready(slot);
        }
    }

    /// Puts an entry into the log without making it durable.
    pub fn append(&mut self, kind: EntryKind, payload: &[u8]) {
        let index = self.writer.last().index.next();
        let entry = Entry { index, term: self.term, kind: kind as u8, payload };
        if self.writer.append(&entry, &mut |size| vec![0xDB; size]) == Append::Full {
            self.seal();
            let taken = self.writer.append(&entry, &mut |size| vec![0xDB; size]);
            assert_ne!(taken, Append::Full);
        }
    }

    /// Makes what was appended durable.
    pub fn seal(&mut self) {
        self.spares();
        match self.writer.seal(&mut |size| vec![0xDB; size]) {
            Seal::Group(group) => {
                self.write(&group.group);
                self.write(group.ring.as_ref().unwrap());
                self.writer.written(group.lsn);
                self.writer.durable(group.lsn);
            }
            Seal::Nothing => {}
            Seal::Busy | Seal::NoSegment => panic!("there are spares, and nothing is in flight"),
        }
    }

    /// Appends an entry, makes it durable and applies it.
    pub fn propose(&mut self, kind: EntryKind, payload: &[u8], command: &Command<'_>) {
        self.append(kind, payload);
        self.seal();
        self.apply(command);
    }

    pub fn apply(&mut self, command: &Command<'_>) {
        let index = self.state.applied().0.next();
        let mut budget = u32::MAX;
        let step = self.state.apply(index, self.term, command, &mut budget);
        assert!(matches!(step, Step::Done(_)), "{step:?}");
        self.set_commit(index);
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let payload = body(Call::Put(wire::Put::new(key, value)));
        let put = kv::Put { key, value, ..kv::Put::default() };
        self.propose(EntryKind::Put, &payload, &Command::Put(put));
    }

    pub fn delete(&mut self, key: &[u8], range_end: &[u8]) {
        let payload = body(Call::DeleteRange(wire::DeleteRange::between(key, range_end)));
        let delete = kv::DeleteRange { key, range_end, prev_kv: false };
        self.propose(EntryKind::DeleteRange, &payload, &Command::DeleteRange(delete));
    }

    pub fn compact(&mut self, revision: i64) {
        let payload = body(Call::Compact(wire::Compact { revision, physical: false }));
        self.propose(EntryKind::Compact, &payload, &Command::Compact { revision, physical: false });
    }

    pub fn trim(&mut self) {
        let mut budget = u32::MAX;
        assert_eq!(self.state.trim(Revision::MAX, &mut budget), Step::Done(()));
    }

    pub fn watermark(&mut self) {
        if let Some(write) = self.writer.watermark(&mut |size| vec![0xDB; size]) {
            self.write(&write);
            self.writer.watermark_durable();
        }
    }

    /// Gives back the segments below this index.
    pub fn recycle(&mut self, below: LogIndex) {
        self.writer.recycle(below, LogIndex::MAX, 0);
    }

    pub fn checkpoint(&mut self) {
        let file = self.pages();
        checkpoint(&file, &mut self.state);
    }

    /// A checkpoint up to its meta record.
    pub fn checkpoint_pages(&mut self) {
        let file = self.pages();
        checkpoint_pages(&file, &mut self.state);
    }

    /// Gets its state anew, as if another member had sent it, with a checkpoint on the way.
    pub fn receive(&mut self) {
        self.checkpoint();
        let root = self.state.pages_mut().hold().unwrap();
        let mut export = Export::new(&self.state, root).unwrap();
        let mut import = Import::new(PageFile::create(&PAGES));
        fs::remove_file(self.directory.0.join("pages")).unwrap();
        checkpoint(&self.pages(), import.state_mut());
        loop {
            let (mut chunk, mut budget) = (Vec::new(), u32::MAX);
            let step = export.step(&self.state, &mut chunk, &mut budget);
            let Step::Done(sent) = step else { panic!("{step:?}") };
            let fed = import.feed(&chunk, &mut budget).unwrap();
            assert!(matches!(fed, Fed::Next | Fed::Last), "{fed:?}");
            if sent == Chunk::Last {
                break;
            }
        }
        self.state = import.finish().unwrap();
    }

    pub fn pages(&self) -> File {
        open(&self.directory.0.join("pages"), 0)
    }
}

/// The body of a request.
fn checkpoint(file: &File, state: &mut State) {
    checkpoint_pages(file, state);
    let mut meta = [0; META_SIZE];
    let offset = state.pages_mut().checkpoint_meta(&mut meta);
    file.write_all_at(&meta, offset).unwrap();
    state.pages_mut().checkpoint_published();
}

fn checkpoint_pages(file: &File, state: &mut State) {
    state.checkpoint_begin();
    let pages = state.pages_mut();
    if let Some(size) = pages.wants_growth() {
        file.set_len(size).unwrap();
        pages.set_backed(size);
    }
    while let Some(run) = pages.checkpoint_next() {
        let mut block = vec![0; run.size];
        pages.checkpoint_fill(&run, &mut block);
        file.write_all_at(&block, run.offset).unwrap();
    }
}

pub fn body(call: Call<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut encoder = RequestEncoder::new();
    encoder.agree(wire::VERSION_MAX, 1 << 20);
    encoder.encode(&mut frame, RequestId::new(1), 0, &call).unwrap();
    frame.split_off(HEADER_SIZE)
}
