//! `import --etcd-snapshot`: puts the newest value of each key of a snapshot into a store that runs.
//!
//! ```text
//! first look: which version of each key is the newest ─► leases ─► second look: those, in transactions
//! ```
//!
//! History is not to be had this way: a write gets the next revision of the store that it goes to. Whoever wants
//! it restores the snapshot.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use client::{Client, Op, Put, Status, Txn};
use snapshot::{Contents, Revision, Saved};

use super::failure::Failure;
use super::names::Names;
use super::progress::Progress;
use super::session::Global;
use super::snapshot::{left, wrong};
use super::{output, size, tree_path};

/// Puts of one transaction, as many as a server takes.
const OPS_MAX: usize = 128;

/// Bytes of its keys and values, unless one alone has more.
const BATCH_SIZE: usize = 512 << 10;

/// A put on its way.
struct Waiting {
    key: Vec<u8>,
    value: Vec<u8>,
    lease: i64,
}

impl Waiting {
    fn put(&self) -> Put<'_> {
        Put { key: &self.key, value: &self.value, lease: self.lease, ..Put::default() }
    }
}

/// What is done with a snapshot.
struct Import<'a> {
    client: Client,
    prefix: &'a [u8],
    /// The leases of the snapshot and what they are here.
    leases: HashMap<i64, i64>,
    waiting: Vec<Waiting>,
    waiting_size: usize,
    done: u64,
    done_size: u64,
    unleased: u64,
    key_size_max: usize,
    value_size_max: usize,
    refused: Names,
    progress: Progress,
}

/// Puts the newest values.
///
/// # Errors
/// The file, the server, or keys that could not be put.
pub fn run(global: &Global, file: &Path, newest: bool, prefix: &[u8]) -> Result<(), Failure> {
    if !newest {
        return Err(Failure::Arguments(format!(
            "history cannot be written into a store that runs: every write there gets its next \
             revision. 'quorate snapshot restore {0} --data-dir DIR' makes a new cluster with all \
             revisions of the snapshot; with --newest the newest value of each key is put here",
            file.display()
        )));
    }
    let began = Instant::now();
    let saved = Saved::open(file).map_err(wrong(file))?;
    let line = Progress::line();
    let verified = saved.verify(&mut |size| line.say(format!("{} checked", size::display(size))));
    line.end();
    verified.map_err(wrong(file))?;
    let (wanted, versions, revision) = newest_of(&saved).map_err(wrong(file))?;
    let client = global.connect_with(global.command_timeout)?.with_session()?;
    let server = client.server().expect("connected");
    let limit = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
    let mut import = Import {
        key_size_max: limit(server.key_size_max),
        value_size_max: limit(server.value_size_max),
        client,
        prefix,
        leases: HashMap::new(),
        waiting: Vec::new(),
        waiting_size: 0,
        done: 0,
        done_size: 0,
        unleased: 0,
        refused: Names::new("not put"),
        progress: Progress::steps(u64::try_from(wanted.len()).unwrap_or(0), "keys"),
    };
    let mut contents = Contents::open(&saved).map_err(wrong(file))?;
    let result = import.all(file, &mut contents, &wanted);
    import.progress.end();
    let mut text = format!(
        "imported {} keys, {} ({} bytes), {} leases of revision {revision} in {:.2} s{}\n",
        import.done,
        size::display(import.done_size),
        import.done_size,
        import.leases.len(),
        began.elapsed().as_secs_f64(),
        import.refused.summary()
    );
    let older = versions.saturating_sub(u64::try_from(wanted.len()).unwrap_or(0));
    if older > 0 {
        text += &format!("left: {older} older versions and deletes\n");
    }
    if import.unleased > 0 {
        text += &format!(
            "{} keys named leases that are not in the snapshot; they hang on none now\n",
            import.unleased
        );
    }
    for what in left(&contents.left()) {
        text += &format!("left: {what}\n");
    }
    output::text(&text)?;
    result?;
    match import.refused.count() {
        0 => Ok(()),
        count => Err(Failure::Incomplete(format!("{count} keys were not imported"))),
    }
}

/// Of each key that is there, by its hash, when it was written last; how many versions and deletes there are,
/// and the newest revision.
type Newest = (HashMap<[u8; 16], Revision>, u64, u64);

fn newest_of(saved: &Saved) -> Result<Newest, snapshot::Error> {
    let mut contents = Contents::open(saved)?;
    let (mut wanted, mut versions) = (HashMap::new(), 0);
    while let Some(pair) = contents.next_pair()? {
        if pair.key.is_empty() {
            continue;
        }
        versions += 1;
        let name = base::hash128(pair.key).to_bytes();
        if pair.is_delete {
            wanted.remove(&name);
        } else {
            wanted.insert(name, pair.at);
        }
    }
    let revision = contents.last().map_or(1, |last| last.main);
    Ok((wanted, versions, revision))
}

impl Import<'_> {
    fn all(
        &mut self,
        file: &Path,
        contents: &mut Contents<'_>,
        wanted: &HashMap<[u8; 16], Revision>,
    ) -> Result<(), Failure> {
        for lease in contents.leases().map_err(wrong(file))? {
            let ttl = std::time::Duration::from_secs(lease.ttl);
            let granted = match self.client.lease_grant(lease.id, ttl) {
                // Somebody here has a lease of this id: that one is not to be ended by others.
                Err(client::Error::Refused(refused)) if refused.status == Status::LeaseExists => {
                    self.client.lease_grant(0, ttl)
                }
                granted => granted,
            };
            self.leases.insert(lease.id, granted?.lease);
        }
        while let Some(pair) = contents.next_pair().map_err(wrong(file))? {
            let name = base::hash128(pair.key).to_bytes();
            if pair.is_delete || wanted.get(&name) != Some(&pair.at) {
                continue;
            }
            let key = [self.prefix, pair.key].concat();
            let (key_size, value_size) = (key.len(), pair.value.len());
            if key_size > self.key_size_max || value_size > self.value_size_max {
                let (key_max, value_max) = (self.key_size_max, self.value_size_max);
                let reason = format!(
                    "it has {key_size} bytes and its value {value_size}, the limits are {key_max} and \
                     {value_max}"
                );
                let progress = &self.progress;
                let tell = |line: &str| progress.tell(line);
                self.refused.add(&tell, &tree_path::display(&key), &reason);
                continue;
            }
            let lease = match pair.lease {
                0 => 0,
                lease => self.leases.get(&lease).copied().unwrap_or_else(|| {
                    self.unleased += 1;
                    0
                }),
            };
            let more = key_size + value_size;
            if self.waiting.len() == OPS_MAX || self.waiting_size + more > BATCH_SIZE {
                self.flush()?;
            }
            self.waiting_size += more;
            self.waiting.push(Waiting { key, value: pair.value.to_vec(), lease });
        }
        self.flush()
    }

    /// Puts what waits, all or nothing; the session sees to it that it takes effect once.
    fn flush(&mut self) -> Result<(), Failure> {
        match self.waiting.as_slice() {
            [] => return Ok(()),
            [one] => drop(self.client.put(&one.put())?),
            all => {
                let success = all.iter().map(|one| Op::Put(one.put())).collect();
                let txn = Txn { compares: Vec::new(), success, failure: Vec::new() };
                drop(self.client.txn(&txn)?);
            }
        }
        self.done += u64::try_from(self.waiting.len()).unwrap_or(0);
        self.done_size += u64::try_from(self.waiting_size).unwrap_or(0);
        self.progress.set(self.done);
        self.waiting.clear();
        self.waiting_size = 0;
        Ok(())
    }
}
