//! `snapshot`: the state of a member as a file that etcd's tools know, what such a file holds, and a data directory
//! made of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;
use server::{ClusterConfig, RestoreOptions, RestoreProgress};
use snapshot::{Builder, End, Left, Saved, Status, Sum};

use super::failure::Failure;
use super::output;
use super::progress::Progress;
use super::server::founder;
use super::session::{Format, Global};
use super::size;

/// What `snapshot save --help` begins with.
const SAVE_ABOUT: &str = "\
Write all that a member keeps, as of one moment, to FILE: every version that can still be read, and the
leases. The file is the one that etcdctl saves: etcdutl restores it into etcd 3.6 or later, and
'snapshot restore' into Quorate. The member goes on serving meanwhile.

It is written as FILE.part, checked, synced, and only then renamed. Next to it the client needs as much
space again for a while, to sort.";

/// What `snapshot restore --help` begins with.
const RESTORE_ABOUT: &str = "\
Make the data directory of one member of a new cluster from a snapshot: one of 'snapshot save', of
etcdctl, or the file member/snap/db of an etcd that is stopped (with --skip-hash-check). Keys keep all
their revisions, versions and leases; leases begin their time anew.

For several members give the same file and the same --initial-cluster and --initial-cluster-token on each
of them, with its own --name, then start them. A member that begins empty, or with another file, is none
of that cluster.

Alarms that are up come along, as with etcd. Members, users and roles of the snapshot are left, and
counted.";

/// Bytes that are made and written at once.
const WRITE_SIZE: usize = 1 << 20;

/// Time for a piece of the state, the first of which waits for a checkpoint.
const PIECE_TIMEOUT_MIN: Duration = Duration::from_secs(90);

/// What can be done with snapshots.
#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save the state of a running member
    #[command(long_about = SAVE_ABOUT)]
    Save {
        /// Where to; what is there already is replaced
        file: PathBuf,
    },
    /// Show what a snapshot holds, and whether it is whole
    Status {
        /// The snapshot
        file: PathBuf,
    },
    /// Make a data directory of a snapshot
    #[command(long_about = RESTORE_ABOUT)]
    Restore(RestoreArguments),
}

/// Flags of `snapshot restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArguments {
    /// The snapshot
    pub file: PathBuf,
    /// Data directory: one that is empty, or not there yet
    #[arg(long, visible_alias = "data", default_value = "./quorate-data")]
    pub data_dir: PathBuf,
    /// Name of this member
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Members of the cluster; without it the member is alone
    #[arg(long, value_name = "NAME=ADDRESS,...", value_delimiter = ',', value_parser = founder)]
    pub initial_cluster: Vec<(String, String)>,
    /// Tells clusters apart that are restored from the same file
    #[arg(long, default_value = ClusterConfig::TOKEN_DEFAULT)]
    pub initial_cluster_token: String,
    /// Address where other members find this one, HOST:PORT [default: that in --initial-cluster]
    #[arg(long, value_name = "ADDRESS", visible_alias = "initial-advertise-peer-urls")]
    pub advertise_peer: Option<String>,
    /// Size of a file of the write-ahead log, at least 8 MiB
    #[arg(long, value_parser = size::parse, default_value = "64MiB")]
    pub wal_segment_size: u64,
    /// Take a file whose SHA-256 at the end is not there, or is wrong
    #[arg(long)]
    pub skip_hash_check: bool,
    /// Move the newest revision on by so much, so that clients which knew a later state than that of the
    /// snapshot see no revision twice
    #[arg(long, value_name = "COUNT", requires = "mark_compacted")]
    pub bump_revision: Option<u64>,
    /// Compact at the new revision, so that watches and caches begin anew; with --bump-revision
    #[arg(long, requires = "bump_revision")]
    pub mark_compacted: bool,
}

/// Does what the command line says.
///
/// # Errors
/// The server, the file, or the directory.
pub fn run(global: &Global, command: &SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Save { file } => save(global, file),
        SnapshotCommand::Status { file } => status(global, file),
        SnapshotCommand::Restore(arguments) => restore(global, arguments),
    }
}

/// Says that the snapshot `file` is not what it should be.
pub fn wrong(file: &Path) -> impl Fn(snapshot::Error) -> Failure + '_ {
    move |error| match error {
        snapshot::Error::Io { path, what, source } => {
            Failure::Io(format!("{} {what}", path.display()), source)
        }
        error => Failure::Snapshot(format!("{}: {error}", file.display())),
    }
}

/// A file that is gone again unless it is kept.
struct Part {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl Part {
    fn create(file: &Path) -> io::Result<Self> {
        let mut path = file.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        // What an earlier try has left is of no use.
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, is_kept: false })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn save(global: &Global, file: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    let io = |error| Failure::Io(file.display().to_string(), error);
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut client = global.connect_with(global.command_timeout.max(PIECE_TIMEOUT_MIN))?;
    let mut part = Part::create(file).map_err(io)?;
    let members = client.member_list()?.list;
    let line = Progress::line();
    let (mut builder, mut taken, mut failed) = (Builder::new(folder), 0_u64, None);
    let asked = client.snapshot(&mut |chunk| {
        taken += u64::try_from(chunk.len()).unwrap_or(0);
        line.say(format!("{} of the state", size::display(taken)));
        failed = builder.take(chunk).err();
        failed.is_none()
    });
    line.end();
    if let Some(error) = failed {
        return Err(wrong(file)(error));
    }
    asked?;
    let mut image = builder.finish(&members).map_err(wrong(file))?;
    let bar = Progress::steps(image.size(), "bytes");
    let (mut sum, mut written, mut bytes) = (Sum::default(), 0, Vec::new());
    loop {
        bytes.clear();
        image.read(WRITE_SIZE, &mut bytes).map_err(wrong(file))?;
        if bytes.is_empty() {
            break;
        }
        sum.update(&bytes);
        part.file.write_all(&bytes).map_err(io)?;
        written += u64::try_from(bytes.len()).unwrap_or(0);
        bar.set(written);
    }
    bar.end();
    part.file.write_all(&sum.finish()).map_err(io)?;
    part.file.sync_all().map_err(io)?;
    // Read as whoever restores it will read it.
    let found = look(&part.path)?;
    fs::rename(&part.path, file).map_err(io)?;
    part.is_kept = true;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    match global.write_out {
        Format::Json => output::text(&format!("{}\n", found.object(file))),
        Format::Simple => output::text(&format!(
            "saved {} at revision {}: {} keys, {} versions, {} leases, {} ({} bytes) in {:.2} s\n",
            file.display(),
            found.status.revision,
            found.status.keys,
            found.status.versions,
            found.status.leases,
            size::display(found.status.size),
            found.status.size,
            began.elapsed().as_secs_f64()
        )),
    }
}

/// What was found in a file.
struct Found {
    status: Status,
    end: End,
}

impl Found {
    fn object(&self, file: &Path) -> serde_json::Value {
        let Status { hash, revision, keys, versions, leases, compacted, size, version } =
            &self.status;
        json!({
            "file": file.display().to_string(),
            "hash": hash,
            "revision": revision,
            "totalKey": keys,
            "totalSize": size,
            "version": version,
            "totalVersion": versions,
            "totalLease": leases,
            "compactedRevision": compacted,
            "checksum": checksum(self.end),
        })
    }
}

fn checksum(end: End) -> &'static str {
    match end {
        End::Right => "right",
        End::Wrong => "wrong",
        End::Missing => "none",
    }
}

fn look(file: &Path) -> Result<Found, Failure> {
    let saved = Saved::open(file).map_err(wrong(file))?;
    let line = Progress::line();
    let mut tell = |size| line.say(format!("{} checked", size::display(size)));
    let checked = saved.check(&mut tell).map_err(wrong(file));
    line.end();
    let end = checked?.end;
    if end == End::Wrong {
        return Err(wrong(file)(snapshot::Error::Checksum));
    }
    Ok(Found { status: Status::read(&saved).map_err(wrong(file))?, end })
}

fn status(global: &Global, file: &Path) -> Result<(), Failure> {
    let found = look(file)?;
    if global.write_out == Format::Json {
        return output::text(&format!("{}\n", found.object(file)));
    }
    let Status { hash, revision, keys, versions, leases, compacted, size, version } = &found.status;
    let compacted = match compacted {
        0 => "never".to_string(),
        compacted => format!("at {compacted}"),
    };
    let sum = match found.end {
        End::Missing => "none, as in a file that was copied from a data directory",
        end => checksum(end),
    };
    output::text(&format!(
        "hash       {hash:08x}\nrevision   {revision}\ncompacted  {compacted}\nkeys       {keys}\n\
         versions   {versions}\nleases     {leases}\nsize       {} ({size} bytes)\nschema     {version}\n\
         sha-256    {sum}\n",
        size::display(*size)
    ))
}

fn restore(global: &Global, arguments: &RestoreArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let own = arguments.initial_cluster.iter().find(|(name, _)| *name == arguments.name);
    if let (Some(address), Some((_, listed))) = (&arguments.advertise_peer, own)
        && address.trim_start_matches("http://") != listed
    {
        return Err(Failure::Arguments(format!(
            "--advertise-peer is {address} and --initial-cluster gives {} the address {listed}; they \
             must be the same",
            arguments.name
        )));
    }
    let options = RestoreOptions {
        file: arguments.file.clone(),
        data_dir: arguments.data_dir.clone(),
        cluster: ClusterConfig {
            name: arguments.name.clone(),
            listen_peer: None,
            advertise_peer: arguments.advertise_peer.clone(),
            advertise_client: None,
            initial_cluster: arguments.initial_cluster.clone(),
            existing: false,
            alone: false,
            token: arguments.initial_cluster_token.clone(),
        },
        wal_segment_size: arguments.wal_segment_size,
        skip_hash_check: arguments.skip_hash_check,
        bump_revision: arguments.bump_revision.unwrap_or(0),
    };
    let line = Progress::line();
    let restored = server::restore(&options, &mut |progress| match progress {
        RestoreProgress::Checked(bytes) => line.say(format!("{} checked", size::display(bytes))),
        RestoreProgress::Restored(versions) => line.say(format!("{versions} versions")),
    });
    line.end();
    let restored = restored.map_err(|error| match error {
        server::Error::Config(text) => Failure::Arguments(text),
        error => Failure::Snapshot(error.to_string()),
    })?;
    let left = left(&restored.left);
    match global.write_out {
        Format::Json => output::text(&format!(
            "{}\n",
            json!({
                "dataDir": arguments.data_dir.display().to_string(),
                "revision": restored.revision,
                "totalVersion": restored.versions,
                "totalLease": restored.leases,
                "totalAlarm": restored.alarms,
                "keysWithoutTheirLease": restored.unleased,
                "cluster": format!("{:016x}", restored.cluster),
                "member": format!("{:x}", restored.member.get()),
                "left": left,
            })
        )),
        Format::Simple => {
            let mut text = format!(
                "restored {} at revision {}: {} versions, {} leases; member {} ({:x}) of cluster {:016x}, \
                 in {:.2} s\n",
                arguments.data_dir.display(),
                restored.revision,
                restored.versions,
                restored.leases,
                arguments.name,
                restored.member.get(),
                restored.cluster,
                began.elapsed().as_secs_f64()
            );
            if restored.alarms > 0 {
                text += &format!(
                    "{} alarms are up; `quorate alarm list` names them, `alarm disarm` ends them\n",
                    restored.alarms
                );
            }
            if restored.unleased > 0 {
                text += &format!(
                    "{} keys named leases that are not in the snapshot; they hang on none now\n",
                    restored.unleased
                );
            }
            for what in left {
                text += &format!("left: {what}\n");
            }
            output::text(&text)
        }
    }
}

/// What a snapshot holds that was not taken over, in words.
pub fn left(left: &Left) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            all.push(format!("{count} {what}"));
        }
    };
    add(left.members, "members");
    add(left.users, "users");
    add(left.roles, "roles");
    add(left.alarms, "alarms");
    if left.auth_enabled {
        all.push("that clients had to log in: everyone may do everything now".into());
    }
    all
}
