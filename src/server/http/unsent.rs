//! What has been answered and not been taken by its client, over all connections of an executor.
//!
//! A client of HTTP/2 says by itself what it takes, stream by stream, and what it leaves lies here. As with the
//! sockets of the native protocol there may be [`UNSENT_MAX`] bytes of that; beyond it a connection is cut, and so on
//! until it is enough: of those that have taken nothing for a while the one that has the most, and if there are none
//! of all.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use base::limits::UNSENT_MAX;
use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};

use super::event::Event;
use super::grpc::{BrokenOff, Reply};

/// A connection with more than this is one of those that may be cut.
const LARGE: usize = 1 << 20;

/// Looks, each a tick of the clock, in which a connection that reads takes something.
const LOOKS_STALLED: u64 = 200;

/// Bytes that hyper is handed at once: it keeps what it has been handed.
const CHUNK_SIZE: usize = 256 << 10;

/// The bytes of all connections.
#[derive(Default)]
pub struct Unsent {
    size: Cell<usize>,
    /// The most since the last look.
    highest: Cell<usize>,
    cuts: Cell<u64>,
    /// How often it was looked at.
    looks: Cell<u64>,
    /// The look at which a cut was logged last, and those that were not since.
    logged: Cell<(u64, u64)>,
    /// What was told last.
    told: Cell<(usize, u64)>,
    /// Those that have had more than [`LARGE`] since the last look.
    large: Cell<Vec<Rc<Account>>>,
}

impl Unsent {
    /// What there is to tell of it, if that has changed: bytes, the most since it was told last, and how often a
    /// connection was cut.
    pub fn news(&self) -> Option<(usize, usize, u64)> {
        let now = (self.size.get(), self.cuts.get());
        let highest = self.highest.replace(now.0);
        (self.told.replace(now) != now || highest > now.0).then_some((now.0, highest, now.1))
    }

    /// Looks whether there is too much.
    pub fn look(&self) {
        self.looks.update(|looks| looks + 1);
        let mut large = self.large.take();
        if large.is_empty() {
            return;
        }
        large.retain(|account| {
            let stays = account.size.get() > LARGE;
            account.is_listed.set(stays);
            stays
        });
        let mut rest = self.size.get();
        for account in large.iter().filter(|account| account.is_cut.get()) {
            rest -= account.size.get();
        }
        while rest > UNSENT_MAX
            && let Some(account) = self.next_to_cut(&large)
        {
            rest -= account.size.get();
            self.cuts.update(|cuts| cuts + 1);
            self.log(account);
            account.is_cut.set(true);
            account.cut.come();
        }
        // Others may have grown meanwhile: nothing above waits.
        self.large.set(large);
    }

    /// The connection that goes next, of those that do not go already.
    fn next_to_cut<'a>(&self, large: &'a [Rc<Account>]) -> Option<&'a Rc<Account>> {
        let is_stalled =
            |account: &Account| self.looks.get() - account.moved_at.get() > LOOKS_STALLED;
        large
            .iter()
            .filter(|account| !account.is_cut.get())
            .max_by_key(|account| (is_stalled(account), account.size.get()))
    }

    /// Says that a connection goes, and no more often than once in [`LOOKS_STALLED`].
    fn log(&self, account: &Account) {
        let (at, unsaid) = self.logged.get();
        if at > 0 && self.looks.get() - at < LOOKS_STALLED {
            return self.logged.set((at, unsaid + 1));
        }
        self.logged.set((self.looks.get(), 0));
        crate::log::warn(format!(
            "a client of etcd's API is cut off, and {unsaid} since this was said last: it has left {} bytes of its \
             answers unread, and {} wait in all where {UNSENT_MAX} may",
            account.size.get(),
            self.size.get(),
        ));
    }
}

/// The bytes of one connection.
pub struct Account {
    all: Rc<Unsent>,
    size: Cell<usize>,
    /// The look before which its client took something.
    moved_at: Cell<u64>,
    is_listed: Cell<bool>,
    is_cut: Cell<bool>,
    /// Comes when the connection is to end at once.
    pub cut: Event,
}

impl Account {
    /// Of a new connection.
    pub fn new(all: &Rc<Unsent>) -> Rc<Self> {
        Rc::new(Self {
            all: Rc::clone(all),
            size: Cell::new(0),
            moved_at: Cell::new(all.looks.get()),
            is_listed: Cell::new(false),
            is_cut: Cell::new(false),
            cut: Event::default(),
        })
    }

    /// Whether what can wait should: half of what there may be is there.
    pub fn is_crowded(&self) -> bool {
        self.all.size.get() > UNSENT_MAX / 2
    }

    /// So many bytes more.
    pub fn take(self: &Rc<Self>, size: usize) {
        let all = self.all.size.get() + size;
        self.all.size.set(all);
        self.all.highest.update(|highest| highest.max(all));
        self.size.update(|own| own + size);
        if self.size.get() > LARGE && !self.is_listed.replace(true) {
            let mut large = self.all.large.take();
            large.push(Rc::clone(self));
            self.all.large.set(large);
        }
    }

    /// So many less.
    pub fn give_back(&self, size: usize) {
        self.all.size.update(|all| all - size);
        self.size.update(|own| own - size);
    }
}

/// Bytes of an answer in the making.
pub struct Booking {
    account: Rc<Account>,
    size: usize,
}

impl Booking {
    /// None yet.
    pub fn new(account: &Rc<Account>) -> Self {
        Self { account: Rc::clone(account), size: 0 }
    }

    /// So many more.
    pub fn add(&mut self, size: usize) {
        self.size += size;
        self.account.take(size);
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.account.give_back(self.size);
    }
}

/// Bytes on their way to a client.
pub struct Chunk {
    bytes: Bytes,
    account: Rc<Account>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.account.give_back(count);
        self.account.moved_at.set(self.account.all.looks.get());
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.account.give_back(self.bytes.len());
    }
}

/// The body of a response, its bytes counted from here on.
pub struct Counted {
    reply: Reply,
    /// What comes next.
    bytes: Bytes,
    account: Rc<Account>,
}

impl Counted {
    /// To a client with this account.
    pub fn new(mut reply: Reply, account: &Rc<Account>) -> Self {
        let bytes = match &mut reply {
            Reply::Whole(bytes, _) => bytes.take().unwrap_or_default(),
            Reply::Stream(stream) => {
                stream.count(account);
                Bytes::new()
            }
        };
        account.take(bytes.len());
        Self { reply, bytes, account: Rc::clone(account) }
    }

    /// The front of what comes next. It has been counted.
    fn chunk(&mut self) -> Chunk {
        let size = self.bytes.len().min(CHUNK_SIZE);
        Chunk { bytes: self.bytes.split_to(size), account: Rc::clone(&self.account) }
    }
}

impl Body for Counted {
    type Data = Chunk;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BrokenOff>>> {
        if self.bytes.is_empty() {
            match std::task::ready!(self.reply.poll(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        self.account.take(bytes.len());
                        self.bytes = bytes;
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok().map(Frame::trailers);
                        return Poll::Ready(trailers.map(Ok));
                    }
                },
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.chunk()))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.reply.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reply {
            Reply::Whole(..) => {
                let size = u64::try_from(self.bytes.len());
                SizeHint::with_exact(size.expect("usize has at most 64 bits"))
            }
            Reply::Stream(_) => SizeHint::default(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.account.give_back(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(account: &Account) -> bool {
        account.is_cut.get()
    }

    #[test]
    fn the_connection_that_has_the_most_is_cut_and_no_more_than_have_to_be() {
        let all = Rc::new(Unsent::default());
        let [small, middle, great] = [3 << 20, UNSENT_MAX / 2, UNSENT_MAX / 2 + 1].map(|size| {
            let account = Account::new(&all);
            account.take(size);
            account
        });
        all.look();
        assert!(is_cut(&great) && !is_cut(&middle) && !is_cut(&small));
        assert_eq!(all.cuts.get(), 1);
        // It has not ended yet, and is not counted over again.
        all.look();
        assert!(!is_cut(&middle) && !is_cut(&small));
        great.give_back(UNSENT_MAX / 2 + 1);
        drop(great);
        all.look();
        let size = UNSENT_MAX / 2 + (3 << 20);
        assert_eq!((all.size.get(), all.cuts.get()), (size, 1));
    }

    #[test]
    fn one_that_takes_nothing_is_cut_before_one_that_reads() {
        let all = Rc::new(Unsent::default());
        let [stalled, reader] = [UNSENT_MAX / 2, UNSENT_MAX / 2 + (2 << 20)].map(|size| {
            let account = Account::new(&all);
            account.take(size);
            account
        });
        all.size.update(|size| size - (3 << 20));
        for _ in 0..=LOOKS_STALLED {
            all.look();
            reader.moved_at.set(all.looks.get());
        }
        assert!(!is_cut(&stalled) && !is_cut(&reader));
        all.size.update(|size| size + (3 << 20));
        all.look();
        assert!(is_cut(&stalled) && !is_cut(&reader));
    }

    #[test]
    fn those_who_read_are_forgotten() {
        let all = Rc::new(Unsent::default());
        let account = Account::new(&all);
        account.take(2 * LARGE);
        all.look();
        assert_eq!(Rc::strong_count(&account), 2);
        let reply = Reply::Whole(Some(Bytes::from(vec![7; 3 * CHUNK_SIZE])), None);
        let mut body = Counted::new(reply, &account);
        assert_eq!(all.size.get(), 2 * LARGE + 3 * CHUNK_SIZE);
        let mut chunk = body.chunk();
        chunk.advance(5);
        assert_eq!(all.size.get(), 2 * LARGE + 3 * CHUNK_SIZE - 5);
        drop(chunk);
        assert_eq!(all.size.get(), 2 * LARGE + 2 * CHUNK_SIZE);
        drop(body);
        account.give_back(2 * LARGE);
        all.look();
        assert_eq!((Rc::strong_count(&account), all.size.get()), (1, 0));
    }
}
