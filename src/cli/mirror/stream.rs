//! A stream of watches: a thread that reads it, a few answers ahead of who takes them. When it is full it is not
//! read, and the server keeps a place instead of a queue.

use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread;

use ureq::Agent;

use super::inbox::Wake;
use super::message::{Refusal, Watch, WatchAnswer, WatchLine};

/// Answers that wait.
const ANSWERS_MAX: usize = 2;

/// Bytes of the greatest answer: etcd puts up to 1,000 revisions into one.
const LINE_SIZE_MAX: u64 = 1 << 30;

/// Bytes of one read.
const READ_SIZE: usize = 256 << 10;

/// What comes from a stream.
pub enum Told {
    /// A message.
    Answer(Box<WatchAnswer>),
    /// The server ends it.
    Refused(Refusal),
    /// It has broken.
    Lost(String),
    /// What comes is not what was asked for.
    Foreign(String),
}

/// A stream; it ends with the value.
pub struct Stream {
    agent: Option<Agent>,
    told: Receiver<Told>,
}

impl Stream {
    /// Opens a stream. `bell` is rung for each message.
    pub fn open((agent, url): (Agent, String), watch: &Watch, bell: SyncSender<Wake>) -> Self {
        let body = serde_json::to_vec(watch).expect("bytes and numbers can be written");
        let (sender, told) = mpsc::sync_channel(ANSWERS_MAX);
        let reading = agent.clone();
        thread::spawn(move || {
            let tell = |message| {
                let is_wanted = sender.send(message).is_ok();
                // A bell that is full has been rung.
                let _ = bell.try_send(Wake::Told);
                is_wanted
            };
            let last = read(&reading, &url, &body, &tell);
            tell(last);
        });
        Self { agent: Some(agent), told }
    }

    /// The next message; none: not yet.
    pub fn next(&self) -> Option<Told> {
        match self.told.try_recv() {
            Ok(told) => Some(told),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Told::Lost("the stream has ended".into())),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown();
        }
    }
}

/// Reads to the end, which it returns.
fn read(agent: &Agent, url: &str, body: &[u8], tell: &dyn Fn(Told) -> bool) -> Told {
    let lost = |error: &dyn std::fmt::Display| Told::Lost(error.to_string());
    let mut response = match agent.post(url).content_type("application/json").send(body) {
        Ok(response) => response,
        Err(error) => return lost(&error),
    };
    let status = response.status().as_u16();
    if status != 200 {
        let text = response.body_mut().read_to_string().unwrap_or_default();
        return match serde_json::from_str::<Refusal>(&text) {
            Ok(refusal) if refusal.code != 0 => Told::Refused(refusal),
            _ => Told::Lost(format!("it answers with status {status}")),
        };
    }
    let mut reader = BufReader::with_capacity(READ_SIZE, response.into_body().into_reader());
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_SIZE_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return Told::Lost("the stream has ended".into()),
            Ok(_) => {}
            Err(error) => return lost(&error),
        }
        match serde_json::from_slice(&line) {
            Ok(WatchLine::Result(answer)) => {
                if !tell(Told::Answer(Box::new(answer))) {
                    return Told::Lost("nobody listens".into());
                }
            }
            Ok(WatchLine::Error(refusal)) => return Told::Refused(refusal),
            Err(_) if line.len() as u64 == LINE_SIZE_MAX => {
                return Told::Foreign(format!("it tells more than {LINE_SIZE_MAX} bytes at once"));
            }
            Err(error) if line.ends_with(b"\n") => {
                return Told::Foreign(format!("what it tells: {error}"));
            }
            // Cut off by the end of the connection.
            Err(error) => return lost(&error),
        }
        // A large answer is no reason to keep its room.
        line.shrink_to(READ_SIZE);
    }
}
