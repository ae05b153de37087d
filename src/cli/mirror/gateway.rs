//! One side of a mirror: endpoints of a cluster whose JSON gateways are asked one after the other until one
//! answers.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::unversioned::resolver::DefaultResolver;

use super::error::MirrorError;
use super::inbox::Inbox;
use super::message::{Header, Range, RangeAnswer, Refusal, Txn, TxnAnswer};
use super::transport::Dialer;

/// Bytes of the greatest answer that is taken: a greatest value in base64, and three times that.
const ANSWER_SIZE_MAX: u64 = 64 << 20;

/// Bytes of the greatest refusal.
const REFUSAL_SIZE_MAX: u64 = 64 << 10;

/// Pauses between tries: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Time within which an etcd that has nothing else to tell says how far it is (10 minutes), and some more.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// The times that a user gives.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To make a connection.
    pub dial: Duration,
    /// To answer a request.
    pub call: Duration,
}

/// Why a try failed.
enum Failed {
    /// It may go well a little later, or elsewhere.
    Passing(String),
    /// It will not.
    Final(MirrorError),
}

/// One side.
pub struct Gateway {
    side: &'static str,
    hosts: Vec<String>,
    at: usize,
    times: Times,
    agent: Agent,
    cluster: Option<u64>,
    /// Tries that failed since one went well.
    failed_count: usize,
    pause: Duration,
}

impl Gateway {
    /// A side that nobody has asked yet; there is at least one host.
    pub fn new(side: &'static str, hosts: Vec<String>, times: Times) -> Self {
        Self {
            side,
            hosts,
            at: 0,
            times,
            agent: agent(times, false),
            cluster: None,
            failed_count: 0,
            pause: PAUSE_MIN,
        }
    }

    /// Its name.
    pub fn side(&self) -> &'static str {
        self.side
    }

    /// The endpoint that is asked next.
    pub fn host(&self) -> &str {
        self.hosts.get(self.at).map_or("", String::as_str)
    }

    /// Reads keys.
    ///
    /// # Errors
    /// A signal, or a failure that will not pass.
    pub fn range(&mut self, inbox: &mut Inbox, range: &Range) -> Result<RangeAnswer, MirrorError> {
        self.ask(inbox, "kv/range", range, |answer: &RangeAnswer| answer.header)
    }

    /// Does a transaction.
    ///
    /// # Errors
    /// A signal, or a failure that will not pass. It may have been done more than once.
    pub fn txn(&mut self, inbox: &mut Inbox, txn: &Txn) -> Result<TxnAnswer, MirrorError> {
        self.ask(inbox, "kv/txn", txn, |answer: &TxnAnswer| answer.header)
    }

    fn ask<A: DeserializeOwned>(
        &mut self,
        inbox: &mut Inbox,
        path: &str,
        request: &impl Serialize,
        header: impl Fn(&A) -> Header,
    ) -> Result<A, MirrorError> {
        let body = serde_json::to_vec(request).expect("bytes and numbers can be written");
        loop {
            inbox.check()?;
            match self.try_ask::<A>(path, &body) {
                Ok(answer) => {
                    self.answered(header(&answer))?;
                    return Ok(answer);
                }
                Err(Failed::Passing(why)) => self.lost(inbox, &why)?,
                Err(Failed::Final(error)) => return Err(error),
            }
        }
    }

    fn try_ask<A: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<A, Failed> {
        let url = self.url(path);
        let sent = self.agent.post(&url).content_type("application/json").send(body);
        let mut response = sent.map_err(|error| Failed::Passing(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut();
        if status != 200 {
            let text = body.with_config().limit(REFUSAL_SIZE_MAX).read_to_vec();
            let text = text.map_err(|error| Failed::Passing(error.to_string()))?;
            return Err(self.refused(status, &text));
        }
        let text = match body.with_config().limit(ANSWER_SIZE_MAX).read_to_vec() {
            Ok(text) => text,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let text = format!(
                    "{}, {}: an answer has more than {ANSWER_SIZE_MAX} bytes",
                    self.side,
                    self.host()
                );
                return Err(Failed::Final(MirrorError::TooLarge(text)));
            }
            Err(error) => return Err(Failed::Passing(error.to_string())),
        };
        serde_json::from_slice(&text)
            .map_err(|error| Failed::Final(self.foreign(&format!("its answer: {error}"))))
    }

    fn refused(&self, status: u16, text: &[u8]) -> Failed {
        match serde_json::from_slice::<Refusal>(text) {
            Ok(refusal) if refusal.code != 0 => {
                if refusal.is_passing() {
                    return Failed::Passing(refusal.message);
                }
                Failed::Final(MirrorError::Refused { side: self.side, refusal })
            }
            // Somebody in between, for whom the server is away.
            _ if status >= 500 => Failed::Passing(format!("it answers with status {status}")),
            _ => Failed::Final(self.foreign(&format!("it answers with status {status}"))),
        }
    }

    /// That an endpoint does not speak etcd's API.
    pub fn foreign(&self, why: &str) -> MirrorError {
        MirrorError::Foreign(format!(
            "{}, {}: {why}; give the address at which it serves etcd's clients, without a path",
            self.side,
            self.host()
        ))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v3/{path}", self.host())
    }

    /// Takes note of an answer.
    ///
    /// # Errors
    /// It comes from another cluster than those before.
    pub fn answered(&mut self, header: Header) -> Result<(), MirrorError> {
        if self.failed_count > 0 && self.cluster.is_some() {
            eprintln!("{}: {} answers", self.side, self.host());
        }
        self.failed_count = 0;
        self.pause = PAUSE_MIN;
        match *self.cluster.get_or_insert(header.cluster_id) {
            known if known == header.cluster_id => Ok(()),
            known => Err(MirrorError::Unsound(format!(
                "{}: {} belongs to cluster {:x}, the endpoint before to cluster {known:x}; give endpoints of one \
                 cluster",
                self.side,
                self.host(),
                header.cluster_id
            ))),
        }
    }

    /// Says, once, that an endpoint is away, and waits before the next one is asked.
    ///
    /// # Errors
    /// A signal; nobody has answered yet.
    pub fn lost(&mut self, inbox: &mut Inbox, why: &str) -> Result<(), MirrorError> {
        let host = self.host().to_owned();
        self.at = (self.at + 1) % self.hosts.len().max(1);
        self.failed_count += 1;
        if self.cluster.is_none() {
            if self.failed_count >= self.hosts.len() {
                let text = format!("{}: {host}: {why}", self.side);
                return Err(MirrorError::Unreachable(text));
            }
            return inbox.check();
        }
        if self.failed_count == 1 {
            eprintln!("{}: {host}: {why}; trying again, at {} next", self.side, self.host());
        }
        inbox.pause(self.pause)?;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    /// What a stream needs: an agent of its own, and where to ask.
    pub fn for_stream(&self) -> (Agent, String) {
        (agent(self.times, true), self.url("watch"))
    }
}

/// A client; that for a stream waits longer for the next bytes.
fn agent(times: Times, is_for_stream: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(format!("quorate/{}", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(times.dial));
    let config = if is_for_stream {
        config.timeout_recv_response(Some(times.call)).timeout_per_read(Some(SILENCE_MAX))
    } else {
        config.timeout_global(Some(times.call))
    };
    Agent::with_parts(config.build(), Dialer, DefaultResolver::default())
}
