//! `mirror`: copies keys from one store to another, both spoken to through etcd's API, and follows their changes.
//!
//! ```text
//! start ─ no progress, or what comes next is compacted ─► copy of one revision ─► follow from the next one on
//!    └── progress ───────────────────────────────────────────────────────────────►┘
//! ```
//!
//! How far it is stands in a key of the destination, which each transaction compares and moves on (`mark`): what
//! breaks, and when, makes no difference to what is there in the end, nor to how often a change is made.

mod batch;
mod copy;
mod error;
mod follow;
mod gateway;
mod inbox;
mod mapping;
mod mark;
mod message;
mod pages;
mod stream;
mod transport;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use clap::Args;

use super::failure::Failure;
use super::session::{self, Global};
use super::tree_path;
use batch::Batch;
use follow::Followed;
use gateway::{Gateway, Times};
use inbox::Inbox;
use mapping::Mapping;
use mark::{MARKS, Mark, Position};
use message::{Bytes, Operation, Range, Txn};

pub use error::MirrorError;

/// What `mirror --help` begins with.
pub const LONG_ABOUT: &str = "\
Copy the keys that begin with a prefix from one store to another, then follow their changes until a
signal comes. Both are reached through etcd's API (its JSON gateway, HTTP/1.1), so either may be etcd
or Quorate: it brings keys from etcd here, and back.

How far it is stands in one key of the destination, \"quorate/mirror/\" and the prefix there, which each
transaction moves on: started again, it goes on from there, and each change is made exactly once,
whatever broke. Changes of one revision are made in one transaction, unless they are more than
--max-txn-ops. Without that key, or when the source has compacted what comes next, all keys are
compared: what differs is written, and what the source does not have is DELETED at the destination. A
destination that holds keys of its own is therefore refused, unless --overwrite says that they may go.

What does not come along: leases (keys arrive without one; how many had one is said), revisions and
versions of before, and keys below \"quorate/mirror/\". Do not mirror the same keys in both directions
at once: each change would go round and round.

Standard output gets a line for each copy and at the end; standard error how far it is, every 10 s, and
each loss of a connection once. --command-timeout and --dial-timeout hold for each request.";

/// Operations of a transaction unless told otherwise, as with etcd's servers and etcdctl.
const TXN_OPS_MAX_DEFAULT: u32 = 128;

/// Time between two lines that say how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Flags of `mirror`.
#[derive(Clone, Debug, Args)]
pub struct MirrorArguments {
    /// Source: where clients of etcd reach it, http://host:port; of several, with commas, one that answers
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',', value_parser = host)]
    pub from: Vec<String>,
    /// Destination, the same way
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',', value_parser = host)]
    pub to: Vec<String>,
    /// Which keys; all, if it is empty
    #[arg(long, default_value = "")]
    pub prefix: OsString,
    /// What stands in the place of the prefix at the destination; unless given, the same
    #[arg(long, visible_alias = "dest-prefix")]
    pub to_prefix: Option<OsString>,
    /// Leave the prefix out at the destination
    #[arg(long, conflicts_with = "to_prefix")]
    pub no_dest_prefix: bool,
    /// Copy nothing, follow from this revision on: for a destination that has all keys of the one before, and no
    /// progress yet
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub rev: i64,
    /// Operations of one transaction at the destination, the one for the progress included
    #[arg(long, default_value_t = TXN_OPS_MAX_DEFAULT, value_parser = clap::value_parser!(u32).range(2..))]
    pub max_txn_ops: u32,
    /// End when the destination has what the source had at the start
    #[arg(long)]
    pub once: bool,
    /// Begin although the destination has other keys beneath its prefix: they are deleted
    #[arg(long, conflicts_with = "rev")]
    pub overwrite: bool,
}

/// `host:port` of a URL.
fn host(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with("https://") {
        return Err("TLS is not there yet; write it as http://host:port".into());
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    session::endpoint(rest.trim_end_matches('/'))
        .map_err(|_| "write it as http://host:port, for example http://127.0.0.1:2379".into())
}

/// What came of a transaction.
enum Written {
    /// It is done, now or when it was sent before.
    Done,
    /// Somebody else has moved the progress on.
    Elsewhere(Option<Mark>),
}

/// What has been done.
#[derive(Debug, Default)]
struct Sums {
    changes: u64,
    transactions: u64,
    leased: u64,
}

/// A mirror.
struct Mirror {
    source: Gateway,
    destination: Gateway,
    inbox: Inbox,
    mapping: Mapping,
    /// Operations of one transaction, beside that for the progress.
    operations_max: usize,
    mark_key: Bytes,
    mark: Mark,
    /// The progress as it was left at the destination.
    mark_value: Option<Bytes>,
    sums: Sums,
    /// When it was last said how far it is.
    reported: Instant,
}

/// Copies and follows.
///
/// # Errors
/// See [`MirrorError`].
pub fn run(global: &Global, arguments: &MirrorArguments) -> Result<(), Failure> {
    if global.command_timeout.is_zero() || global.dial_timeout.is_zero() {
        return Err(Failure::Arguments("a time-out must be more than 0".into()));
    }
    let from = arguments.prefix.as_bytes();
    let to = match &arguments.to_prefix {
        Some(prefix) => prefix.as_bytes(),
        None if arguments.no_dest_prefix => b"",
        None => from,
    };
    if to.starts_with(MARKS) || from.starts_with(MARKS) {
        let text = "keys below \"quorate/mirror/\" say how far mirrors are, and are not mirrored";
        return Err(Failure::Arguments(text.into()));
    }
    let times = Times { dial: global.dial_timeout, call: global.command_timeout };
    let mut mirror = Mirror {
        source: Gateway::new("the source", arguments.from.clone(), times),
        destination: Gateway::new("the destination", arguments.to.clone(), times),
        inbox: Inbox::new()?,
        mapping: Mapping { from: from.to_vec(), to: to.to_vec() },
        operations_max: usize::try_from(arguments.max_txn_ops).unwrap_or(usize::MAX) - 1,
        mark_key: mark::key(to),
        mark: Mark {
            source: String::new(),
            prefix: tree_path::display(from),
            position: Position::Copying(0),
        },
        mark_value: None,
        sums: Sums::default(),
        reported: Instant::now(),
    };
    let began = Instant::now();
    let result = mirror.run(arguments);
    let sums = &mirror.sums;
    if sums.transactions > 0 || result.is_ok() {
        say(&format!(
            "mirrored {} changes in {} transactions and {:.2} s{}; {}",
            sums.changes,
            sums.transactions,
            began.elapsed().as_secs_f64(),
            leases(sums.leased),
            match mirror.mark.position {
                Position::Copying(0) => "nothing has come of it yet".to_owned(),
                Position::Copying(_) => "the copy is not complete, start it again".to_owned(),
                position => format!("the destination is at revision {}", position.revision()),
            }
        ));
    }
    match result {
        Ok(()) | Err(MirrorError::Interrupted) => Ok(()),
        Err(error) => Err(Failure::Mirror(error)),
    }
}

/// Writes a line to standard output, whose reader may have gone.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// How many keys lost a lease, if there were some.
fn leases(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(", {count} keys without the lease that they have at the source"),
    }
}

impl Mirror {
    fn run(&mut self, arguments: &MirrorArguments) -> Result<(), MirrorError> {
        let newest = self.meet()?;
        let mut is_copied = self.take_up(arguments, newest)?;
        loop {
            if !is_copied {
                let copied = self.copy()?;
                if arguments.once && copied >= newest {
                    return Ok(());
                }
            }
            match self.follow(arguments.once.then_some(newest))? {
                Followed::CaughtUp => return Ok(()),
                Followed::Compacted(revision) if arguments.rev > 0 => {
                    return Err(MirrorError::Unsound(format!(
                        "the source has compacted up to revision {revision}, beyond what comes next ({}); start it \
                         without --rev for a full copy, which deletes what the source does not have",
                        self.mark.position.next().0
                    )));
                }
                Followed::Compacted(revision) => {
                    eprintln!(
                        "the source has compacted up to revision {revision}, beyond what comes next ({}): all keys \
                         are compared again",
                        self.mark.position.next().0
                    );
                    is_copied = false;
                }
            }
        }
    }

    /// Meets both sides, and returns the newest revision of the source.
    fn meet(&mut self) -> Result<i64, MirrorError> {
        let range = Range { count_only: true, ..mapping::all(&self.mapping.from) };
        let there = self.source.range(&mut self.inbox, &range)?.header;
        self.mark.source = format!("{:x}", there.cluster_id);
        let range = Range { key: self.mark_key.clone(), ..Range::default() };
        let answer = self.destination.range(&mut self.inbox, &range)?;
        if answer.header.cluster_id == there.cluster_id && self.mapping.is_circular() {
            return Err(MirrorError::Unsound(format!(
                "source and destination are one cluster ({:x}), and its keys would be mirrored onto themselves; give \
                 a --prefix and a --to-prefix of which none begins with the other",
                there.cluster_id
            )));
        }
        self.mark_value = answer.kvs.into_iter().next().map(|kv| kv.value);
        Ok(there.revision)
    }

    /// Finds out where to begin; true: with following.
    fn take_up(&mut self, arguments: &MirrorArguments, newest: i64) -> Result<bool, MirrorError> {
        let key = tree_path::display(&self.mark_key.0);
        let unsound = |why: String| Err(MirrorError::Unsound(why));
        let known = self.mark_value.as_ref().map(|value| Mark::read(&value.0));
        match known {
            Some(Ok(known)) if known.is_of(&self.mark) => {
                if arguments.rev > 0 {
                    return unsound(format!(
                        "the destination has progress already, revision {} (key {key}); leave --rev out",
                        known.position.revision()
                    ));
                }
                let last = match known.position {
                    Position::Copying(revision)
                    | Position::Revision(revision)
                    | Position::Within(revision, _) => revision,
                };
                if last > newest && !arguments.overwrite {
                    return unsound(format!(
                        "the source is at revision {newest}, and the destination has its revision {last} (key {key}): \
                         the source has lost data or is another one; --overwrite makes the destination equal to it"
                    ));
                }
                self.mark = known;
                Ok(last <= newest && !matches!(self.mark.position, Position::Copying(_)))
            }
            Some(_) if arguments.overwrite => Ok(false),
            Some(Ok(other)) => unsound(format!(
                "the destination's prefix holds a mirror of the prefix \"{}\" of cluster {} (key {key}); --overwrite \
                 makes it one of \"{}\" of cluster {}, and deletes what that does not have",
                other.prefix, other.source, self.mark.prefix, self.mark.source
            )),
            Some(Err(error)) => unsound(format!(
                "the destination's key {key} does not say how far a mirror is: {error}; --overwrite replaces it and \
                 deletes what the source does not have"
            )),
            None if arguments.rev > 0 => {
                self.mark.position = Position::Revision(arguments.rev - 1);
                Ok(true)
            }
            None if arguments.overwrite => Ok(false),
            None => match self.foreign_key()? {
                None => Ok(false),
                Some(found) => unsound(format!(
                    "the destination has keys beneath the prefix \"{}\", {} for one, and no progress (key {key}); \
                     --overwrite goes on and deletes those that the source does not have",
                    tree_path::display(&self.mapping.to),
                    tree_path::display(&found)
                )),
            },
        }
    }

    /// A key of the destination that a copy would delete or write over.
    fn foreign_key(&mut self) -> Result<Option<Vec<u8>>, MirrorError> {
        let mut range = Range { limit: 1, keys_only: true, ..mapping::all(&self.mapping.to) };
        loop {
            let answer = self.destination.range(&mut self.inbox, &range)?;
            let Some(found) = answer.kvs.into_iter().next() else { return Ok(None) };
            if !found.key.0.starts_with(MARKS) {
                return Ok(Some(found.key.0));
            }
            range.key = Bytes(client::prefix_end(MARKS));
        }
    }

    /// Does a transaction at the destination, and moves the progress on in it.
    fn write(&mut self, batch: Batch<Operation>) -> Result<Written, MirrorError> {
        let mark = self.mark.at(batch.position);
        let value = mark.value();
        let is_moved = self.mark_value.as_ref() != Some(&value);
        let count = u64::try_from(batch.operations.len()).unwrap_or(u64::MAX);
        let mut success = batch.operations;
        if is_moved {
            let (key, value) = (self.mark_key.clone(), value.clone());
            success.push(Operation::Put { key, value });
        }
        let txn = Txn {
            compare: [mark::is_unchanged(&self.mark_key, self.mark_value.as_ref())],
            success,
            failure: vec![Operation::Get { key: self.mark_key.clone() }],
        };
        let answer = self.destination.txn(&mut self.inbox, &txn)?;
        if !answer.succeeded {
            let found = answer.responses.into_iter().next().unwrap_or_default();
            let found = found.response_range.kvs.into_iter().next().map(|kv| kv.value);
            // Unless it is as this transaction leaves it: it was sent before, and the answer was lost.
            if found.as_ref() != Some(&value) {
                let mark = found.as_ref().and_then(|value| Mark::read(&value.0).ok());
                self.mark_value = found;
                return Ok(Written::Elsewhere(mark.filter(|mark| mark.is_of(&self.mark))));
            }
        }
        self.mark = mark;
        self.mark_value = Some(value);
        self.sums.changes += count;
        self.sums.transactions += 1;
        Ok(Written::Done)
    }

    /// That somebody else writes the progress.
    fn elsewhere(&self) -> MirrorError {
        MirrorError::Unsound(format!(
            "somebody else writes the destination's key {}; let one mirror at a time go to a prefix",
            tree_path::display(&self.mark_key.0)
        ))
    }

    /// Says how far it is, now and then.
    fn report(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.reported = Instant::now();
            eprintln!("{}", line(self));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn urls_are_taken_with_and_without_a_scheme() {
        for text in ["http://h:1", "h:1", " http://h:1/"] {
            assert_eq!(host(text).as_deref(), Ok("h:1"), "{text}");
        }
        for text in ["https://h:1", "http://h", "h:x", "", "http://h:1/path"] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
