//! The data directory: its identity file, its lock, its files, and what is refused about it.
//!
//! ```text
//! DATA/identity      text: format, cluster, member, file ids, segment size, checksum; written once
//! DATA/lock          held with flock while a server runs
//! DATA/probe         one block, written at each start to see what the file system can do
//! DATA/pages         the page file
//! DATA/pages.new     one that is built from the state of another member; renamed when it is whole and
//!                    the log begins behind it
//! DATA/wal/slot-NNN  WAL segments, recycled in place
//! DATA/wal/ring      copies of group headers
//! DATA/wal/watermark how far the WAL is known to be durable
//! ```
//!
//! The identity is written under another name, made durable, renamed, and the directory synced, so
//! that it is whole or absent. A directory that holds any of the other files but no identity is not
//! taken for an empty one, and one that holds anything else is not taken at all. What a start made that
//! was refused afterwards goes again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use base::{FileId, NodeId, crc32};

use crate::Error;
use crate::config::ClusterConfig;
use crate::founding::{Founding, found};
use crate::listener::{TRIES, TRY_INTERVAL};

/// Version of everything in a data directory. A newer one is refused.
pub const FORMAT_VERSION: u32 = 1;

/// What an identity file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Id of the cluster.
    pub cluster: u64,
    /// Id of this member.
    pub member: NodeId,
    /// Id of the page file.
    pub page_file: FileId,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// The members that the log begins with, encoded; empty where this one is alone.
    pub members: Vec<u8>,
}

/// What a directory without an identity may hold: what a start leaves that ended before its identity
/// was durable, and what a new file system has.
const HARMLESS: [&str; 5] = ["lock", "probe", "sync-probe", "identity.new", "lost+found"];

/// What a start has made, in order; taken back unless it is kept.
#[derive(Default)]
pub(crate) struct Made {
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Drop for Made {
    fn drop(&mut self) {
        // What is not there or not empty stays as it is: this is the way out of a failure.
        for file in self.files.drain(..).rev() {
            drop(fs::remove_file(file));
        }
        for directory in self.directories.drain(..).rev() {
            drop(fs::remove_dir(directory));
        }
    }
}

impl Made {
    /// Makes `path` and what is missing above it.
    pub fn make_directory(&mut self, path: &Path) -> io::Result<()> {
        let missing = path
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        missing.reverse();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        self.directories.append(&mut missing);
        made
    }

    /// Notes a file, which is about to be made if it is not there.
    pub fn note_file(&mut self, path: PathBuf) {
        if fs::symlink_metadata(&path).is_err() {
            self.files.push(path);
        }
    }

    /// What was made stays.
    pub fn keep(&mut self) {
        self.directories.clear();
        self.files.clear();
    }
}

/// An open, locked data directory.
pub struct DataDir {
    path: PathBuf,
    made: Made,
    _lock: File,
    /// Who it belongs to.
    pub identity: Identity,
}

impl DataDir {
    /// Whether there is a member already in the directory at `path`.
    pub fn is_used(path: &Path) -> bool {
        path.join("identity").exists()
    }

    /// Opens `path`, making it if it is not there; `segment_size` and `cluster` hold for a new
    /// directory.
    pub fn open(path: &Path, segment_size: u64, cluster: &ClusterConfig) -> Result<Self, Error> {
        let wrap = |what: &'static str| {
            let path = path.to_path_buf();
            move |source: io::Error| Error::DataDir { path, what, source }
        };
        // Declared first, so that on every way out what was made is gone before the lock is.
        let lock;
        let mut made = Made::default();
        made.make_directory(path).map_err(wrap("cannot be created"))?;
        let identity_path = path.join("identity");
        if fs::symlink_metadata(&identity_path).is_err() {
            refuse_foreign(path)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let made_lock = options.clone().create_new(true).open(path.join("lock"));
        let is_new = made_lock.is_ok();
        lock = made_lock
            .or_else(|_| options.create(true).truncate(false).open(path.join("lock")))
            .map_err(wrap("has a lock file that cannot be opened"))?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::DataDirInUse { path: path.to_path_buf() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(wrap("cannot be locked")(source));
            }
        }
        // Who locked it before may have taken its directory back meanwhile.
        let same = |path: fs::Metadata| lock.metadata().is_ok_and(|own| own.ino() == path.ino());
        if !fs::metadata(path.join("lock")).is_ok_and(same) {
            return Err(Error::DataDirInUse { path: path.to_path_buf() });
        }
        // Not before the lock is held: they might be another's.
        if is_new {
            made.files.push(path.join("lock"));
        }
        for name in ["probe", "identity.new", "identity"] {
            made.note_file(path.join(name));
        }
        let identity = match read_identity(&identity_path) {
            Ok(identity) => identity,
            Err(Error::DataDir { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                for name in ["pages", "wal"] {
                    if path.join(name).exists() {
                        return Err(Error::IdentityMissing { path: path.to_path_buf(), name });
                    }
                }
                create_identity(path, segment_size, cluster)?
            }
            Err(error) => return Err(error),
        };
        made.make_directory(&path.join("wal"))
            .map_err(wrap("has no room for its wal directory"))?;
        Ok(Self { path: path.to_path_buf(), made, _lock: lock, identity })
    }

    /// The start goes on: what it has made stays.
    pub fn keep(&mut self) {
        self.made.keep();
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the page file.
    pub fn pages(&self) -> PathBuf {
        self.path.join("pages")
    }

    /// A file of one written block, for asking what the file system can do.
    pub fn probe(&self) -> PathBuf {
        self.path.join("probe")
    }

    /// Directory of the WAL.
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }
}

/// Where a page file is built from the state of another member.
pub fn incoming_path(pages: &Path) -> PathBuf {
    pages.with_extension("new")
}

/// Puts such a file in the place of the page file, durably.
pub fn adopt(pages: &Path) -> io::Result<()> {
    fs::rename(incoming_path(pages), pages)?;
    // What was damaged is gone.
    forget_damage(pages)?;
    sync_directory_of(pages)
}

/// Makes the name of a file durable.
pub fn sync_directory_of(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The file that says what of a page file was found damaged while it was served from.
fn damage_path(pages: &Path) -> PathBuf {
    pages.with_file_name("damaged")
}

/// Notes damage of the page file: nothing else would know of it before the page is read again.
pub fn note_damage(pages: &Path, text: &str) {
    let path = damage_path(pages);
    if let Err(error) = fs::write(&path, text).and_then(|()| sync_directory_of(&path)) {
        crate::log::warn(format!("{} cannot be written: {error}", path.display()));
    }
}

fn forget_damage(pages: &Path) -> io::Result<()> {
    match fs::remove_file(damage_path(pages)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What was noted of it, and where.
pub fn noted_damage(pages: &Path) -> Option<(PathBuf, String)> {
    let path = damage_path(pages);
    fs::read_to_string(&path).ok().map(|text| (path, text))
}

/// Refuses a directory without an identity that holds what no server made.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let wrap =
        |source| Error::DataDir { path: path.to_path_buf(), what: "cannot be listed", source };
    for entry in fs::read_dir(path).map_err(wrap)? {
        let name = entry.map_err(wrap)?.file_name();
        // Told by name further on.
        let is_ours = ["pages", "pages.new", "wal"].iter().any(|ours| name == *ours);
        if !is_ours && !HARMLESS.iter().any(|harmless| name == *harmless) {
            let name = name.to_string_lossy().into_owned();
            return Err(Error::DataDirForeign { path: path.to_path_buf(), name });
        }
    }
    Ok(())
}

/// Locks the file. The kernel holds the lock of a process that was killed for some milliseconds after
/// its end, while it takes the process apart: so a lock that is held is tried again for a second.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(TRY_INTERVAL),
            done => return done,
        }
    }
    lock.try_lock()
}

/// Reads the identity of a directory that nobody needs to own (for `inspect`).
pub fn read_identity(path: &Path) -> Result<Identity, Error> {
    let mut text = String::new();
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(|source| {
        Error::DataDir { path: path.to_path_buf(), what: "cannot be read", source }
    })?;
    parse_identity(&text)
        .map_err(|reason| Error::IdentityDamaged { path: path.to_path_buf(), reason })
}

fn render_identity(identity: &Identity) -> String {
    let body = format!(
        "format={FORMAT_VERSION}\ncluster={:016x}\nmember={:016x}\npages={:032x}\nsegment={}\n\
         members={}\n",
        identity.cluster,
        identity.member.get(),
        identity.page_file.get(),
        identity.segment_size,
        identity.members.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    );
    let crc = crc32(body.as_bytes());
    format!("{body}crc32={crc:08x}\n")
}

fn parse_identity(text: &str) -> Result<Identity, &'static str> {
    let format = field(text, "format")?.parse::<u32>().map_err(|_| "its format is no number")?;
    if format > FORMAT_VERSION {
        return Err("its format is newer than this program; use the program that wrote it");
    }
    let body_size = text.find("crc32=").ok_or("its checksum is missing")?;
    let crc =
        u32::from_str_radix(field(text, "crc32")?, 16).map_err(|_| "its checksum is damaged")?;
    if crc32(&text.as_bytes()[..body_size]) != crc {
        return Err("its checksum does not match its text");
    }
    let hex = |name| u64::from_str_radix(field(text, name)?, 16).map_err(|_| "an id is no number");
    let page_file =
        u128::from_str_radix(field(text, "pages")?, 16).map_err(|_| "an id is no number")?;
    Ok(Identity {
        cluster: hex("cluster")?,
        member: NodeId::new(hex("member")?),
        page_file: FileId::new(page_file),
        segment_size: field(text, "segment")?
            .parse()
            .map_err(|_| "the segment size is no number")?,
        // A directory from before there were clusters has no such line.
        members: field(text, "members").map_or(Ok(Vec::new()), bytes_of_hex)?,
    })
}

fn bytes_of_hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.filter(|_| rest.is_empty()).ok_or("the list of members is no hexadecimal number")
}

fn field<'a>(text: &'a str, name: &str) -> Result<&'a str, &'static str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .ok_or("a line is missing")
}

fn create_identity(
    path: &Path,
    segment_size: u64,
    cluster: &ClusterConfig,
) -> Result<Identity, Error> {
    let Founding { cluster, member, members } = found(cluster, random_u64()?)?;
    let page_file = random_id()?;
    let identity = Identity { cluster, member, page_file, segment_size, members };
    write_identity(path, &identity)?;
    Ok(identity)
}

/// Writes the identity of a new directory, durably, whole or not at all.
pub(crate) fn write_identity(path: &Path, identity: &Identity) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let temporary = path.join("identity.new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(render_identity(identity).as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path.join("identity"))?;
        File::open(path)?.sync_all()
    };
    write().map_err(|source| Error::DataDir {
        path: path.to_path_buf(),
        what: "cannot take an identity file",
        source,
    })
}

fn random_u64() -> Result<u64, Error> {
    // Zero means "any" in the handshake.
    Ok(getrandom::u64().map_err(|_| Error::NoRandomness)?.max(1))
}

/// A random id that no other file or incarnation has.
pub fn random_id() -> Result<FileId, Error> {
    let (high, low) = (random_u64()?, random_u64()?);
    Ok(FileId::new((u128::from(high) << 64) | u128::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: 1,
            member: NodeId::new(2),
            page_file: FileId::new(3),
            segment_size: 64 << 20,
            members: vec![1, 0xfe, 0x30],
        }
    }

    #[test]
    fn an_identity_is_read_back_and_any_changed_byte_is_refused() {
        let text = render_identity(&identity());
        assert_eq!(parse_identity(&text), Ok(identity()));
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_ne!(parse_identity(&changed), Ok(identity()), "byte {place}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_as_such() {
        let text = render_identity(&identity()).replace("format=1", "format=9");
        let reason = parse_identity(&text).expect_err("a newer format");
        assert!(reason.contains("newer"), "{reason}");
    }
}
