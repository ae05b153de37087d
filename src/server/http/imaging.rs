//! Imaging: a thread that makes the file of a snapshot, beside the executor whose task hands it out. It sorts,
//! hashes, and waits for files; the executor goes on with what clients wait for.
//!
//! ```text
//! task      Take chunk ─► ... ─► Finish ─► Read ─► ... (dropped: the thread ends)
//! thread         Taken ◄─ ... ◄─ Size   ◄─ Bytes ◄─
//! ```
//!
//! Each order has one answer, and there is one order at a time: what both hold is bounded by that.

use std::future::poll_fn;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use base::Frame;
use kv::Head;
use snapshot::{Builder, Error, Image, Sum};
use wire::MemberList;

/// Bytes of the file that are made at once.
const READ_SIZE: usize = 256 << 10;

enum Order {
    Take(Frame),
    Finish(MemberList),
    Read,
}

enum Answer {
    Taken { last: bool },
    Size { size: u64, head: Head },
    Bytes(Vec<u8>),
    Failed(String),
}

/// Where the answer is laid down, and who waits for it.
#[derive(Default)]
struct Desk {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// A file in the making.
pub struct Imaging {
    orders: SyncSender<Order>,
    desk: Arc<Mutex<Desk>>,
}

impl Imaging {
    /// Begins one that sorts in `folder`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn begin(folder: &Path) -> Result<Self, String> {
        let (orders, taken) = sync_channel(1);
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (own, builder) = (Arc::clone(&desk), Builder::new(folder));
        thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || work(&taken, &own, builder))
            .map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(Self { orders, desk })
    }

    /// Takes a chunk of the state; true: it was the last one.
    ///
    /// # Errors
    /// It cannot be taken.
    pub async fn take(&mut self, chunk: Frame) -> Result<bool, String> {
        match self.ask(Order::Take(chunk)).await? {
            Answer::Taken { last } => Ok(last),
            _ => Err(Self::ended()),
        }
    }

    /// All has been taken: the size of the file without its checksum, and the numbers of the state.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn finish(&mut self, members: MemberList) -> Result<(u64, Head), String> {
        match self.ask(Order::Finish(members)).await? {
            Answer::Size { size, head } => Ok((size, head)),
            _ => Err(Self::ended()),
        }
    }

    /// The next bytes of the file; behind the last of them its checksum, by itself; none behind that.
    ///
    /// # Errors
    /// They cannot be made.
    pub async fn read(&mut self) -> Result<Vec<u8>, String> {
        match self.ask(Order::Read).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            _ => Err(Self::ended()),
        }
    }

    async fn ask(&mut self, order: Order) -> Result<Answer, String> {
        self.orders.try_send(order).map_err(|_| Self::ended())?;
        let answer = poll_fn(|context| {
            let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
            match desk.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    desk.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        match answer {
            Answer::Failed(text) => Err(text),
            answer => Ok(answer),
        }
    }

    fn ended() -> String {
        "the thread that makes the snapshot has ended".into()
    }
}

/// What the thread is at.
enum Stage {
    Building(Box<Builder>),
    Reading(Box<Image>, Sum),
    Over,
}

fn work(orders: &Receiver<Order>, desk: &Mutex<Desk>, builder: Builder) {
    let mut stage = Stage::Building(Box::new(builder));
    while let Ok(order) = orders.recv() {
        let answer = match perform(&mut stage, order) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error.to_string()),
        };
        let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.answer = Some(answer);
        if let Some(waker) = desk.waker.take() {
            waker.wake();
        }
    }
}

fn perform(stage: &mut Stage, order: Order) -> Result<Answer, Error> {
    let (next, answer) = match (std::mem::replace(stage, Stage::Over), order) {
        (Stage::Building(mut builder), Order::Take(chunk)) => {
            let last = builder.take(&chunk)?;
            (Stage::Building(builder), Answer::Taken { last })
        }
        (Stage::Building(builder), Order::Finish(members)) => {
            let image = builder.finish(&members)?;
            let answer = Answer::Size { size: image.size(), head: image.head().clone() };
            (Stage::Reading(Box::new(image), Sum::default()), answer)
        }
        (Stage::Reading(mut image, mut sum), Order::Read) => {
            let mut bytes = Vec::with_capacity(READ_SIZE + READ_SIZE / 8);
            image.read(READ_SIZE, &mut bytes)?;
            if bytes.is_empty() {
                (Stage::Over, Answer::Bytes(sum.finish().to_vec()))
            } else {
                sum.update(&bytes);
                (Stage::Reading(image, sum), Answer::Bytes(bytes))
            }
        }
        (_, Order::Read | Order::Take(_) | Order::Finish(_)) => {
            (Stage::Over, Answer::Bytes(Vec::new()))
        }
    };
    *stage = next;
    Ok(answer)
}
