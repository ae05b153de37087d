//! Clients: threads that ask members by chance for what the seed says, one request at a time or several,
//! and write down what they were told and when.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base::Prng;
use client::{Client, Completion, Effect, Error, Options, Status};

use crate::cluster::Directory;
use crate::history::{
    Answer, Compare, Key, Operation, Outcome, Relation, Request, Revision, Target,
};
use crate::translation::{self, Texts};

/// Keys that only puts, gets and deletes of one key touch: the second judge can tell of them.
pub const REGISTERS: Key = 6;

/// The end of all keys that clients draw.
pub const KEYS: Key = 12;

/// The key that is written to see whether a member works; behind it no keys follow.
pub const PROBE: Key = 12;

/// The end of all keys.
pub const END: Key = 13;

/// How long a request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest pause of a client between two requests.
const THINK_MICROS: u64 = 4_000;

/// Pause after what did not work.
const PAUSE: Duration = Duration::from_millis(5);

/// What all clients of a run share.
pub struct Shared {
    directory: Directory,
    /// The port of a member that is down may be given to a server of somebody else.
    cluster: u64,
    begin: Instant,
    values: AtomicU64,
    clients: AtomicU32,
    /// The revision of the last put of each key, as somebody was told: what transactions compare.
    modified: Vec<AtomicU64>,
    stopping: AtomicBool,
    /// Operations that were done, failed, and of unknown outcome.
    counts: [AtomicU64; 3],
    /// Answers that are no proper protocol.
    trouble: Mutex<Vec<String>>,
}

impl Shared {
    /// For a run of the cluster behind `directory`, that begins now.
    pub fn new(directory: Directory, cluster: u64) -> Arc<Self> {
        Arc::new(Self {
            directory,
            cluster,
            begin: Instant::now(),
            values: AtomicU64::new(1),
            clients: AtomicU32::new(0),
            modified: (0..END).map(|_| AtomicU64::new(0)).collect(),
            stopping: AtomicBool::new(false),
            counts: [const { AtomicU64::new(0) }; 3],
            trouble: Mutex::new(Vec::new()),
        })
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A value that nobody has written.
    pub fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for one more client.
    fn client(&self) -> u32 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// Operations that were done, failed, and of unknown outcome.
    pub fn counts(&self) -> [u64; 3] {
        [0, 1, 2].map(|index: usize| self.counts[index].load(Ordering::Relaxed))
    }

    /// Answers that are no proper protocol.
    pub fn trouble(&self) -> Vec<String> {
        self.trouble.lock().expect("nobody panics under this lock").clone()
    }

    /// Clients end after what they are waiting for.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn seen(&self, answer: &Answer) {
        answer.versions(&mut |version| {
            if let Some(modified) = self.modified.get(usize::from(version.key)) {
                modified.fetch_max(version.modified, Ordering::Relaxed);
            }
        });
    }
}

/// A request that is under way.
struct Flight {
    operation: Operation,
    /// Pieces of a range that have come.
    pieces: Option<(Revision, Answer)>,
}

/// One client: a connection, what is under way on it, and what has been written down.
pub struct Session {
    shared: Arc<Shared>,
    number: u32,
    client: Option<(Client, u32)>,
    flights: HashMap<u64, Flight>,
    history: Vec<Operation>,
}

impl Session {
    /// A client without a connection.
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            number: shared.client(),
            client: None,
            flights: HashMap::new(),
            history: Vec::new(),
        }
    }

    /// What was written down.
    pub fn into_history(self) -> Vec<Operation> {
        self.history
    }

    /// True if requests can be sent.
    pub fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(|(client, _)| client.server().is_some())
    }

    /// Leaves the member, if nothing is under way.
    pub fn leave(&mut self) {
        if self.flights.is_empty() {
            self.client = None;
        }
    }

    /// Connects to a member. Nothing may be under way.
    pub fn connect(&mut self, member: (SocketAddr, u32)) -> bool {
        let options = Options {
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            client_name: format!("chaos-{}", self.number),
            cluster: self.shared.cluster,
        };
        let client = Client::connect([member.0.to_string()], options);
        self.client = client.ok().map(|client| (client, member.1));
        self.client.is_some()
    }

    /// Requests end after `timeout` from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        if let Some((client, _)) = &mut self.client {
            // A connection that does not take it is broken, which the next request shows.
            drop(client.set_request_timeout(timeout));
        }
    }

    /// Sends a request; false if nothing was sent.
    pub fn send(&mut self, request: Request) -> bool {
        let Some((client, server)) = &mut self.client else { return false };
        if client.server().is_none() {
            return false;
        }
        let texts = Texts::of(&request);
        let txn = texts.txn(&request);
        let call = texts.call(&request, &txn);
        let invoked = self.shared.now();
        let Ok(id) = client.submit(&call) else { return false };
        client.flush();
        let operation = Operation {
            client: self.number,
            server: *server,
            invoked,
            returned: u64::MAX,
            request,
            outcome: Outcome::Unknown,
        };
        self.flights.insert(id.get(), Flight { operation, pieces: None });
        true
    }

    /// Waits for the next result and writes it down. True if the operation was done.
    pub fn receive(&mut self) -> bool {
        loop {
            let completion = self.client.as_mut().and_then(|(client, _)| client.receive());
            let Some(completion) = completion else {
                // Nothing is under way, as the client sees it.
                self.flights.clear();
                return false;
            };
            let Some(mut flight) = self.flights.remove(&completion.request.get()) else { continue };
            if !completion.is_final {
                self.take_piece(&mut flight, &completion);
                self.flights.insert(completion.request.get(), flight);
                continue;
            }
            return self.end(flight, completion);
        }
    }

    fn take_piece(&self, flight: &mut Flight, completion: &Completion) {
        let Ok(found) = &completion.result else { return };
        let Some((revision, answer)) = found.reply().ok().and_then(translation::answer) else {
            return;
        };
        flight.pieces = Some(match (flight.pieces.take(), answer) {
            (
                Some((_, Answer::Range { mut versions, .. })),
                Answer::Range { versions: more, count },
            ) => {
                versions.extend(more);
                (revision, Answer::Range { count, versions })
            }
            (_, answer) => (revision, answer),
        });
    }

    fn end(&mut self, mut flight: Flight, completion: Completion) -> bool {
        let is_write = flight.operation.request.is_write();
        let outcome = match &completion.result {
            Ok(found) => {
                self.take_piece(&mut flight, &completion);
                match flight.pieces {
                    Some((revision, answer)) => {
                        self.shared.seen(&answer);
                        if let (Request::Put { key, .. }, Some(modified)) =
                            (&flight.operation.request, self.modified(&flight.operation.request))
                        {
                            debug_assert!(*key < END);
                            modified.fetch_max(revision, Ordering::Relaxed);
                        }
                        Outcome::Done { revision, answer }
                    }
                    None => {
                        self.trouble(format!(
                            "an answer of kind {:?} came to {:?}",
                            found.kind(),
                            flight.operation
                        ));
                        Outcome::Unknown
                    }
                }
            }
            Err(error) => self.outcome(error, is_write),
        };
        let count = match outcome {
            Outcome::Done { .. } => 0,
            Outcome::Failed => 1,
            Outcome::Unknown => 2,
        };
        self.shared.counts[count].fetch_add(1, Ordering::Relaxed);
        let is_done = count == 0;
        // Reads without an answer tell nothing.
        if is_done || is_write {
            self.history.push(Operation {
                returned: self.shared.now(),
                outcome,
                ..flight.operation
            });
        }
        is_done
    }

    fn modified(&self, request: &Request) -> Option<&AtomicU64> {
        let Request::Put { key, .. } = request else { return None };
        self.shared.modified.get(usize::from(*key))
    }

    fn outcome(&self, error: &Error, is_write: bool) -> Outcome {
        match error {
            Error::Refused(refusal) => {
                let is_certain =
                    refusal.effect == Effect::None && refusal.status != Status::Unknown;
                let is_expected = refusal.status.is_retryable()
                    || matches!(
                        refusal.status,
                        Status::Unknown
                            | Status::NoSpace
                            | Status::DeadlineExceeded
                            | Status::FutureRevision
                    );
                if !is_expected {
                    self.trouble(format!("refused with {:?}: {refusal}", refusal.status));
                }
                if is_certain { Outcome::Failed } else { Outcome::Unknown }
            }
            Error::OutcomeUnknown { .. } => Outcome::Unknown,
            Error::Protocol { .. } => {
                self.trouble(error.to_string());
                if is_write { Outcome::Unknown } else { Outcome::Failed }
            }
            // None of these is given to a write that may have arrived.
            Error::TimedOut
            | Error::ConnectionLost { .. }
            | Error::Unreachable { .. }
            | Error::NoEndpoints
            | Error::Encode(_)
            | Error::CreditsUsed
            | Error::ResultsPending => Outcome::Failed,
        }
    }

    fn trouble(&self, text: String) {
        let mut trouble = self.shared.trouble.lock().expect("nobody panics under this lock");
        if trouble.len() < 20 {
            trouble.push(text);
        }
    }

    /// Requests that are under way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Sends a request and waits for its end. True if it was done.
    pub fn ask(&mut self, request: Request) -> bool {
        self.send(request) && self.receive()
    }

    /// What the last operation was told.
    pub fn last(&self) -> Option<&Operation> {
        self.history.last()
    }
}

/// A put that shows whether a member works.
pub fn probe(shared: &Shared) -> Request {
    Request::Put { key: PROBE, value: shared.value(), previous: false }
}

/// A read of everything.
pub fn read_all(revision: Revision, serializable: bool) -> Request {
    Request::Range { key: 0, end: END, revision, serializable }
}

/// What a client asks next.
fn draw(shared: &Shared, prng: &mut Prng) -> Request {
    let key = |prng: &mut Prng, from: Key, to: Key| {
        from + Key::try_from(prng.below(u64::from(to - from))).expect("below a key")
    };
    let any = key(prng, 0, KEYS);
    let put = |prng: &mut Prng, key| Request::Put {
        key,
        value: shared.value(),
        previous: prng.one_in(4),
    };
    match prng.below(100) {
        0..38 => put(prng, any),
        38..44 => Request::Delete { key: any, end: any + 1, previous: prng.one_in(2) },
        44..46 => {
            let from = key(prng, REGISTERS, KEYS);
            let end = key(prng, from, KEYS) + 1;
            Request::Delete { key: from, end, previous: prng.one_in(2) }
        }
        46..58 => {
            let first = key(prng, REGISTERS, KEYS - 1);
            let second = key(prng, first + 1, KEYS);
            let seen = shared.modified[usize::from(first)].load(Ordering::Relaxed);
            let target = match prng.below(4) {
                0 => Target::Version(prng.below(3)),
                1 => Target::Created(seen),
                _ => Target::Modified(seen),
            };
            let relation = match prng.below(4) {
                0 => Relation::Greater,
                1 => Relation::Less,
                _ => Relation::Equal,
            };
            let success = match prng.below(4) {
                0 => vec![
                    put(prng, first),
                    Request::Delete { key: second, end: second + 1, previous: true },
                ],
                1 => vec![read_all(0, false), put(prng, second)],
                _ => vec![put(prng, first), put(prng, second)],
            };
            let failure = if prng.one_in(3) {
                vec![put(prng, second)]
            } else {
                vec![Request::Range { key: 0, end: KEYS, revision: 0, serializable: false }]
            };
            Request::Txn {
                compares: vec![Compare { key: first, target, relation }],
                success,
                failure,
            }
        }
        58..80 => Request::Range { key: any, end: any + 1, revision: 0, serializable: false },
        80..88 => Request::Range { key: any, end: any + 1, revision: 0, serializable: true },
        88..94 => Request::Range { key: 0, end: KEYS, revision: 0, serializable: prng.one_in(3) },
        _ => {
            let newest = shared.modified[usize::from(any)].load(Ordering::Relaxed);
            let revision = if newest > 1 { newest - prng.below(newest.min(20)) } else { 1 };
            Request::Range { key: 0, end: KEYS, revision, serializable: prng.one_in(2) }
        }
    }
}

/// The threads of a run.
pub struct Workload {
    ended: Receiver<Vec<Operation>>,
    threads: usize,
}

impl Workload {
    /// Starts as many clients as `depths` has numbers, each with so many requests under way at most.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(shared: &Arc<Shared>, seed: u64, depths: &[usize]) -> Result<Self, String> {
        let (sender, ended) = mpsc::channel();
        for (index, depth) in depths.iter().copied().enumerate() {
            let (shared, sender) = (Arc::clone(shared), sender.clone());
            let prng = Prng::new(seed).fork(&format!("client {index}"));
            thread::Builder::new()
                .spawn(move || drop(sender.send(run(&shared, prng, depth))))
                .map_err(|error| format!("no thread for a client: {error}"))?;
        }
        Ok(Self { ended, threads: depths.len() })
    }

    /// What all clients wrote down, after they were told to stop.
    ///
    /// # Errors
    /// A client does not come to its end.
    pub fn join(self, patience: Duration) -> Result<Vec<Operation>, String> {
        let mut history = Vec::new();
        for count in 0..self.threads {
            let part = self.ended.recv_timeout(patience).map_err(|_| {
                format!("{} of {} clients do not end", self.threads - count, self.threads)
            })?;
            history.extend(part);
        }
        Ok(history)
    }
}

fn run(shared: &Arc<Shared>, mut prng: Prng, depth: usize) -> Vec<Operation> {
    let mut session = Session::new(shared);
    while !shared.is_stopping() {
        if !session.is_connected() {
            while !session.flights.is_empty() {
                session.receive();
            }
            let members = shared.directory.lock().expect("nobody panics under this lock").clone();
            let count = u64::try_from(members.len()).expect("usize has at most 64 bits");
            let index = usize::try_from(prng.below(count)).expect("below a length");
            let is_connected = members[index].is_some_and(|member| session.connect(member));
            if !is_connected {
                thread::sleep(PAUSE);
                continue;
            }
        }
        while session.flights.len() < depth && session.send(draw(shared, &mut prng)) {}
        if session.flights.is_empty() {
            thread::sleep(PAUSE);
            continue;
        }
        if session.receive() {
            thread::sleep(Duration::from_micros(prng.below(THINK_MICROS)));
        } else {
            thread::sleep(PAUSE);
        }
        // Look at another member now and then.
        if prng.one_in(200) {
            session.leave();
        }
    }
    while !session.flights.is_empty() {
        session.receive();
    }
    session.into_history()
}

/// Operations by kind and outcome, for people.
pub fn tally(history: &[Operation]) -> BTreeMap<&'static str, [u64; 3]> {
    let mut tally: BTreeMap<&'static str, [u64; 3]> = BTreeMap::new();
    for operation in history {
        let kind = match &operation.request {
            Request::Put { .. } => "put",
            Request::Delete { .. } => "delete",
            Request::Txn { .. } => "txn",
            Request::Range { serializable: true, .. } => "serializable read",
            Request::Range { serializable: false, .. } => "linearizable read",
        };
        let index = match operation.outcome {
            Outcome::Done { .. } => 0,
            Outcome::Failed => 1,
            Outcome::Unknown => 2,
        };
        tally.entry(kind).or_default()[index] += 1;
    }
    tally
}
