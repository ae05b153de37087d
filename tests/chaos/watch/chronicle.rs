//! Those who find out the truth and judge by it while the run goes on, and those who look at the members.
//!
//! ```text
//!  head: a read says that revision 90 is there
//!  every write that was sent before that answer has been answered: what is claimed up to 90 is all
//!  80 claimed   81 claimed   82 of nobody: read the keys at 82, a lease has ended   83 claimed ...
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use client::{Client, Range, RangeResult, Status};

use super::keys::KeyId;
use super::ledger::{Seen, read};
use super::stage::{Stage, add, lock};
use super::stream::Stream;

/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// One revision in so many is read in full and compared.
const CHECKED: i64 = 40;

/// Finds out what happened, until everybody ends.
pub fn write(stage: &Arc<Stage>) {
    let mut client = None;
    let mut turn = 0;
    while !stage.is_closed() {
        if client.is_none() {
            turn += 1;
            client = stage.client("chronicle", turn, PATIENCE).ok();
        }
        let Some(connected) = &mut client else {
            thread::sleep(LOOK);
            continue;
        };
        match advance(stage, connected) {
            Ok(()) => {}
            Err(Stopped::NoAnswer) => client = None,
            Err(Stopped::Wrong(text)) => {
                stage.violation(format!("history: {text}"));
                return;
            }
        }
        thread::sleep(LOOK);
    }
}

enum Stopped {
    /// A member does not answer; another may.
    NoAnswer,
    /// What is told cannot be.
    Wrong(String),
}

/// The newest revision.
fn head(client: &mut Client) -> Result<i64, Stopped> {
    let range = Range { count_only: true, ..Range::all() };
    client.range(&range).map(|told| told.revision).map_err(|_| Stopped::NoAnswer)
}

/// All keys at a revision.
fn read_at(
    stage: &Stage,
    client: &mut Client,
    revision: i64,
) -> Result<BTreeMap<KeyId, Seen>, Stopped> {
    let told: RangeResult = client.range(&Range { revision, ..Range::all() }).map_err(|error| {
        match error.refusal() {
            // Of a read that came to this member late, its time all but up.
            Some(why) if why.status == Status::DeadlineExceeded => Stopped::NoAnswer,
            Some(why) if !why.is_retryable() => {
                Stopped::Wrong(format!("no read at {revision}: {error}"))
            }
            Some(_) | None => Stopped::NoAnswer,
        }
    })?;
    add(&stage.counts.reads, 1);
    read(&stage.keys, &told.kvs).map_err(Stopped::Wrong)
}

fn advance(stage: &Stage, client: &mut Client) -> Result<(), Stopped> {
    let head = head(client)?;
    let known = stage.ledger.read().expect("nobody panics under this lock").revision;
    if head <= known {
        let wrong = format!("a read says that {head} is the newest, {known} was there before");
        return if head < known { Err(Stopped::Wrong(wrong)) } else { Ok(()) };
    }
    // Whatever is there by now was sent before now, and is claimed when it is answered.
    let now = stage.now();
    while stage.busy_since() <= now {
        if stage.is_closed() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let mut claims = stage.claims_to(head);
    // Reads first: nobody shall wait for them under the lock.
    let mut reads = BTreeMap::new();
    for revision in known + 1..=head {
        if !claims.contains_key(&revision) || revision % CHECKED == 0 {
            let keys = loop {
                match read_at(stage, client, revision) {
                    Ok(keys) => break keys,
                    Err(Stopped::Wrong(text)) => return Err(Stopped::Wrong(text)),
                    Err(Stopped::NoAnswer) if stage.is_closed() => return Ok(()),
                    // What was claimed is out of the list: it has to be gone through now.
                    Err(Stopped::NoAnswer) => thread::sleep(LOOK),
                }
            };
            reads.insert(revision, keys);
        }
    }
    for revision in known + 1..=head {
        let mut ledger = stage.ledger.write().expect("nobody panics under this lock");
        let keys = reads.remove(&revision);
        match (claims.remove(&revision), &keys) {
            (Some(deeds), _) => ledger.enter(&deeds).map_err(Stopped::Wrong)?,
            (None, Some(keys)) => drop(ledger.enter_end(keys).map_err(Stopped::Wrong)?),
            (None, None) => unreachable!("what nobody claims has been read"),
        }
        if let Some(text) = keys.and_then(|keys| ledger.differs(&keys)) {
            return Err(Stopped::Wrong(text));
        }
    }
    Ok(())
}

/// Judges what watchers are told, as far as the truth is known, until everybody ends. Gives how far each
/// has come.
pub fn judge(stage: &Stage, watchers: usize) -> Vec<Stream> {
    let mut streams = vec![Stream::default(); watchers];
    let mut is_wrong = vec![false; watchers];
    loop {
        let is_closed = stage.is_closed();
        for (watcher, stream) in streams.iter_mut().enumerate() {
            let ledger = stage.ledger.read().expect("nobody panics under this lock");
            while let Some(step) = stage.take(watcher, ledger.revision) {
                // One that has lost its way is wrong at every step.
                if is_wrong[watcher] {
                    continue;
                }
                if let Err(text) = stream.judge(&ledger, &step) {
                    is_wrong[watcher] = true;
                    let mut step = format!("{step:?}");
                    step.truncate(2_000);
                    stage.violation(format!(
                        "watcher {watcher} {text}\n  in {step}\n  of {stream:?}"
                    ));
                }
            }
        }
        if is_closed {
            let counts = &stage.counts;
            counts.told.store(streams.iter().map(|stream| stream.count).sum(), Ordering::Relaxed);
            return streams;
        }
        thread::sleep(LOOK);
    }
}

/// Asks one member who leads and whether what goes through the log is answered, until everybody ends.
pub fn observe(stage: &Stage, member: usize) {
    let mut client: Option<Client> = None;
    while !stage.is_closed() {
        if client.is_none() {
            let options = stage.options("observer", Duration::from_millis(300));
            client = Client::connect([stage.endpoints[member].clone()], options).ok();
        }
        if let Some(connected) = &mut client {
            let sent = stage.now();
            let status = connected.status();
            if let Ok(status) = &status
                && status.leader.get() != 0
            {
                lock(&stage.timeline).led(stage.now(), status.term);
            }
            let is_served = connected.lease_keep_alive(&[crate::nemesis::NO_LEASE]).is_ok();
            if is_served {
                lock(&stage.timeline).served(sent, stage.now());
            }
            if status.is_err() || connected.server().is_none() {
                client = None;
            }
        }
        thread::sleep(LOOK);
    }
}
