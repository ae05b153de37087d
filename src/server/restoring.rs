//! Restoring: a data directory is made of a snapshot, for one member of a new cluster.
//!
//! ```text
//! check the file ─► pages: leases, versions, checkpoints ─► a log that begins behind entry 1 ─► identity
//! ```
//!
//! The log begins behind an entry that nobody has: whoever joins later, or was left out, is sent the state and not
//! the log from its beginning. Members that restore the same file in the same way have the same state, the same
//! beginning and the same cluster, whose id is made of the file, too: a member that begins with nothing, or with
//! another file, belongs to another cluster and is refused.
//!
//! The identity comes last: what a crash leaves is no data directory, and is refused as such.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base::{Hash128, LeaseId, LogIndex, NodeId, Revision, Term};
use kv::{Facts, Point, Restore, RestoreEnd, RestoreRefusal, State, Step};
use snapshot::{Contents, Left, Saved};
use tree::{META_SIZE, Miss, PageFile};
use wal::{HardState, Position, Seal, WalFile, Write, Writer};

use crate::Error;
use crate::config::{ClusterConfig, Config};
use crate::data_dir::{Identity, Made, random_id, write_identity};
use crate::disk::{allocate_behind, slot_path, write_zeros};
use crate::founding::{Founding, found};

/// Memory for pages, and how much of it may be dirty before a checkpoint.
const CACHE_SIZE: u64 = 512 << 20;
const DIRTY_SIZE_MAX: u64 = 192 << 20;

/// Versions, and pages that are brought in, between two looks at memory.
const VERSIONS_PER_LOOK: u64 = 256;
const PAGES_PER_LOOK: u64 = 1_024;

/// What the log begins behind.
const BASE: LogIndex = LogIndex::new(1);
const TERM: Term = Term::new(1);

/// What is to be restored, and where.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The snapshot.
    pub file: PathBuf,
    /// An empty directory, or one that is not there yet.
    pub data_dir: PathBuf,
    /// Who the member is, and who the founders are.
    pub cluster: ClusterConfig,
    /// Bytes of a WAL segment.
    pub wal_segment_size: u64,
    /// Take a file that has no checksum at its end.
    pub skip_hash_check: bool,
    /// Move the newest revision on by this, and compact at it; 0: keep history.
    pub bump_revision: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The newest revision.
    pub revision: u64,
    /// Versions and deletes that were taken.
    pub versions: u64,
    /// Leases that were taken.
    pub leases: u64,
    /// Keys that named a lease which is not there: they hang on none now.
    pub unleased: u64,
    /// Alarms that are up again.
    pub alarms: u64,
    /// What was left.
    pub left: Left,
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: NodeId,
}

/// How far it has got.
#[derive(Clone, Copy, Debug)]
pub enum RestoreProgress {
    /// Bytes of the file whose checksum has been looked at.
    Checked(u64),
    /// Versions that are in the state.
    Restored(u64),
}

fn refused(file: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Restore(format!("{}: {error}", file.display()))
}

/// Makes a data directory of a snapshot.
///
/// # Errors
/// The file, the directory, or the flags; nothing is left behind then.
pub fn restore(
    options: &RestoreOptions,
    progress: &mut dyn FnMut(RestoreProgress),
) -> Result<RestoreReport, Error> {
    let path = options.data_dir.as_path();
    let wrap = |what: &'static str| {
        let path = path.to_path_buf();
        move |source: io::Error| Error::DataDir { path, what, source }
    };
    let anywhere: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut config = Config::new(path.to_path_buf(), anywhere);
    config.cluster = options.cluster.clone();
    config.wal_segment_size = options.wal_segment_size;
    config.check()?;
    let wrong = |error: snapshot::Error| refused(&options.file, &error);
    let saved = Saved::open(&options.file).map_err(wrong)?;
    let mut look = |size| progress(RestoreProgress::Checked(size));
    let checked = match options.skip_hash_check {
        true => saved.check(&mut look),
        false => saved.verify(&mut look),
    };
    // Names what is restored: the same file gives the same cluster.
    let content = base::hash128(&checked.map_err(wrong)?.sum);
    let newest = newest(&saved).map_err(wrong)?;
    let contents = Contents::open(&saved).map_err(wrong)?;
    let compacted = contents.compacted().unwrap_or(0);
    let revision = newest.max(compacted).max(1);
    let end = match options.bump_revision {
        0 => Some(revision),
        bump => revision.checked_add(bump).filter(|end| *end < u64::MAX >> 2),
    };
    let end = end.ok_or_else(|| {
        let bump = options.bump_revision;
        Error::Config(format!("--bump-revision {bump}: no revision lies so far behind {revision}"))
    })?;
    let compacted = if options.bump_revision > 0 { end } else { compacted };
    let mut founding = found(&options.cluster, 1)?;
    founding.cluster = cluster_id(&founding, &options.cluster, content, end);

    let mut made = Made::default();
    made.make_directory(path).map_err(wrap("cannot be created"))?;
    refuse_used(path)?;
    let identity = Identity {
        cluster: founding.cluster,
        member: founding.member,
        page_file: random_id()?,
        segment_size: options.wal_segment_size,
        members: founding.members,
    };
    for name in ["lock", "identity.new", "identity", "pages"] {
        made.note_file(path.join(name));
    }
    made.make_directory(&path.join("wal")).map_err(wrap("has no room for its wal directory"))?;
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(path.join("lock"));
    let lock = lock.map_err(wrap("has no room for its lock file"))?;
    lock.try_lock().map_err(|_| Error::DataDirInUse { path: path.to_path_buf() })?;

    let mut pages = Pages::create(path, &identity, &config, compacted)?;
    let mut contents = contents;
    let report = pages.fill(&options.file, &mut contents, progress)?;
    let (applied, term, members) = (BASE, TERM, identity.members.as_slice());
    let alarms = contents.alarms();
    let mut left = contents.left();
    left.alarms -= alarms.len() as u64;
    let end_of_it = RestoreEnd { revision: Revision::new(end), applied, term, members, alarms };
    let state = pages.finish(&end_of_it)?;
    let hash = base::hash128(&state.state_hash().to_bytes());
    write_log(&path.join("wal"), &identity, Position { index: BASE, term: TERM, hash }, &mut made)
        .map_err(wrap("cannot take a log"))?;
    write_identity(path, &identity)?;
    made.keep();
    Ok(RestoreReport {
        revision: end,
        left,
        alarms: alarms.len() as u64,
        cluster: identity.cluster,
        member: identity.member,
        ..report
    })
}

/// The revision of the last version in the file.
fn newest(saved: &Saved) -> Result<u64, snapshot::Error> {
    let mut contents = Contents::open(saved)?;
    while contents.next_pair()?.is_some() {}
    Ok(contents.last().map_or(0, |last| last.main))
}

fn cluster_id(founding: &Founding, cluster: &ClusterConfig, content: Hash128, end: u64) -> u64 {
    let mut seed = cluster.token.clone().into_bytes();
    seed.push(0);
    seed.extend_from_slice(&founding.members);
    seed.extend_from_slice(&content.to_bytes());
    seed.extend_from_slice(&end.to_le_bytes());
    let hash = base::hash128(&seed).to_bytes();
    hash.first_chunk().map_or(1, |bytes| u64::from_le_bytes(*bytes)).max(1)
}

/// Only an empty directory is restored into.
fn refuse_used(path: &Path) -> Result<(), Error> {
    let wrap =
        |source| Error::DataDir { path: path.to_path_buf(), what: "cannot be listed", source };
    for entry in fs::read_dir(path).map_err(wrap)? {
        let name = entry.map_err(wrap)?.file_name();
        if name != "lost+found" {
            return Err(Error::Restore(format!(
                "the directory {} is not empty: it has '{}'; a snapshot is restored into an empty \
                 directory, or one that is not there yet",
                path.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// The page file in the making.
struct Pages {
    path: PathBuf,
    file: File,
    restore: Restore,
    /// Pages that were brought in.
    fetched: u64,
}

impl Pages {
    fn create(
        directory: &Path,
        identity: &Identity,
        config: &Config,
        compacted: u64,
    ) -> Result<Self, Error> {
        let path = directory.join("pages");
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| Error::DataDir {
            path: directory.to_path_buf(),
            what: "cannot take a page file",
            source,
        })?;
        let options = tree::Options {
            file: identity.page_file,
            cluster: identity.cluster,
            member: identity.member,
            cache_size: CACHE_SIZE,
            growth_size: crate::boot::growth_size(config),
        };
        let compacted = (compacted > 0).then(|| Revision::new(compacted));
        let restore = Restore::new(PageFile::create(&options), compacted);
        Ok(Self { path, file, restore, fetched: 0 })
    }

    fn failed(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        Error::DataDir { path, what: "cannot be read or written", source }
    }

    /// Brings in what a miss asks for.
    fn fetch(&mut self, miss: Miss) -> Result<(), Error> {
        let mut bytes = vec![0; miss.size()];
        let read = self.file.read_exact_at(&mut bytes, miss.offset());
        read.map_err(|source| self.failed(source))?;
        let installed = self.restore.state_mut().pages_mut().install(miss, &bytes);
        installed.map_err(|damage| Error::Recovery(damage.to_string()))
    }

    /// Does a step until it is done.
    fn complete(
        &mut self,
        file: &Path,
        step: &mut dyn FnMut(&mut Restore) -> Result<Step<()>, RestoreRefusal>,
    ) -> Result<(), Error> {
        loop {
            match step(&mut self.restore).map_err(|refusal| refused(file, &refusal))? {
                Step::Done(()) => return Ok(()),
                Step::More => self.relieve()?,
                Step::Miss(miss) => {
                    // Before it comes in: it is wanted at once.
                    self.fetched += 1;
                    if self.fetched.is_multiple_of(PAGES_PER_LOOK) {
                        self.relieve()?;
                    }
                    self.fetch(miss)?;
                }
                Step::Damaged(damage) => return Err(Error::Recovery(damage.to_string())),
            }
        }
    }

    /// Keeps memory bounded.
    fn relieve(&mut self) -> Result<(), Error> {
        let state = self.restore.state_mut();
        if state.pages().dirty_size() > DIRTY_SIZE_MAX {
            let done = checkpoint(&self.file, state);
            done.map_err(|source| self.failed(source))?;
        }
        self.restore.state_mut().pages_mut().evict();
        Ok(())
    }

    /// Takes everything in.
    fn fill(
        &mut self,
        file: &Path,
        contents: &mut Contents<'_>,
        progress: &mut dyn FnMut(RestoreProgress),
    ) -> Result<RestoreReport, Error> {
        let wrong = |error: snapshot::Error| refused(file, &error);
        let leases = contents.leases().map_err(wrong)?;
        for lease in &leases {
            let ttl_ms = lease.ttl.saturating_mul(1_000).min(base::limits::LEASE_TTL_MAX_MS);
            let id = LeaseId::new(lease.id);
            self.complete(file, &mut |restore| restore.lease(id, ttl_ms))?;
        }
        let mut versions = 0;
        while let Some(pair) = contents.next_pair().map_err(wrong)? {
            // A record without a key says only that the revision was moved on.
            if pair.key.is_empty() {
                continue;
            }
            let at = Point { revision: Revision::new(pair.at.main), sub: pair.at.sub };
            let facts = Facts {
                create: Revision::new(pair.create),
                version: pair.version,
                lease: LeaseId::new(pair.lease),
            };
            let live = (!pair.is_delete).then_some((facts, pair.value));
            self.complete(file, &mut |restore| restore.version(at, pair.key, live))?;
            versions += 1;
            if versions % VERSIONS_PER_LOOK == 0 {
                self.relieve()?;
                progress(RestoreProgress::Restored(versions));
            }
        }
        let mut step = |restore: &mut Restore| Ok(restore.finish(&mut 16));
        self.complete(file, &mut step)?;
        Ok(RestoreReport {
            revision: 0,
            versions,
            leases: u64::try_from(leases.len()).expect("a count"),
            unleased: self.restore.unleased(),
            alarms: 0,
            left: Left::default(),
            cluster: 0,
            member: NodeId::default(),
        })
    }

    /// The state, whole and durable.
    fn finish(self, end: &RestoreEnd<'_>) -> Result<State, Error> {
        let Self { path, file, restore, .. } = self;
        let mut state = restore.into_state(end);
        let done = checkpoint(&file, &mut state).and_then(|()| file.sync_all());
        done.map_err(|source| Error::DataDir { path, what: "cannot be written", source })?;
        Ok(state)
    }
}

/// Makes a checkpoint from its beginning to its end.
fn checkpoint(file: &File, state: &mut State) -> io::Result<()> {
    let grow = |pages: &mut PageFile, size: u64| {
        let before = file.metadata()?.len();
        allocate_behind(file, before, size)?;
        file.sync_all()?;
        pages.set_backed(size);
        Ok::<(), io::Error>(())
    };
    let pages = state.pages_mut();
    pages.drop_unbacked();
    while let Some(size) = pages.wants_growth() {
        grow(pages, size)?;
    }
    while !pages.may_begin() {
        let size = pages.file_size().max(pages.backed()) + pages.growth_size();
        grow(pages, size)?;
    }
    state.checkpoint_begin();
    let pages = state.pages_mut();
    let mut block = Vec::new();
    while let Some(run) = pages.checkpoint_next() {
        block.resize(run.size, 0);
        pages.checkpoint_fill(&run, &mut block);
        file.write_all_at(&block, run.offset)?;
    }
    file.sync_data()?;
    let mut meta = [0; META_SIZE];
    let offset = pages.checkpoint_meta(&mut meta);
    file.write_all_at(&meta, offset)?;
    file.sync_data()?;
    pages.checkpoint_published();
    Ok(())
}

/// Writes a log that begins behind `base`, and says that the member may vote.
fn write_log(
    directory: &Path,
    identity: &Identity,
    base: Position,
    made: &mut Made,
) -> io::Result<()> {
    let name = wal::Identity {
        cluster: identity.cluster,
        member: identity.member,
        incarnation: random_id().map_err(io::Error::other)?,
    };
    let options = wal::Options {
        segment_size: identity.segment_size,
        block_size: wal::GROUP_BLOCK_SIZE_DEFAULT,
        groups_in_flight_max: wal::GROUPS_IN_FLIGHT_MAX,
        ring_slots: wal::RING_SLOTS_DEFAULT,
    };
    let block = u64::try_from(base::limits::BLOCK_SIZE).expect("small");
    let ring = directory.join("ring");
    made.note_file(ring.clone());
    write_zeros(&ring, u64::from(options.ring_slots) * block)?;
    let path = |file: WalFile| match file {
        WalFile::Slot(slot) => slot_path(directory, slot),
        WalFile::Ring => ring.clone(),
        WalFile::Watermark => directory.join("watermark"),
    };
    let write = |write: &Write<Vec<u8>>| {
        let file = OpenOptions::new().write(true).open(path(write.file))?;
        file.write_all_at(&write.block[..write.size], write.offset)?;
        file.sync_all()
    };
    let mut allocate = |size: usize| vec![0; size];
    let mut writer = Writer::create(name, options, base);
    let (term, commit) = (base.term, base.index);
    writer.set_hard_state(HardState { term, vote: None, commit, begun: true });
    let mut slot = 0;
    let sealed = loop {
        match writer.seal(&mut allocate) {
            Seal::Group(sealed) => break sealed,
            Seal::NoSegment => {
                let path = slot_path(directory, slot);
                made.note_file(path.clone());
                write_zeros(&path, options.segment_size)?;
                let uuid = random_id().map_err(io::Error::other)?;
                write(&writer.prepare_spare(slot, uuid, &mut allocate))?;
                writer.spare_ready(slot);
                slot += 1;
            }
            Seal::Nothing | Seal::Busy => unreachable!("a log begins with a group"),
        }
    };
    write(&sealed.group)?;
    if let Some(copy) = &sealed.ring {
        write(copy)?;
    }
    File::open(directory)?.sync_all()
}
