//! Saving: clients that take the state of this member, chunk by chunk, to keep it elsewhere.
//!
//! ```text
//! request ─► checkpoint of now or later, held ─► chunk ─► the connection has taken it ─► chunk ─► ... ─► release
//! ```
//!
//! It is the reading side of a transfer to another member ([`crate::transfer`]), paced by the connection in the
//! place of consensus: the store makes one chunk, and the next one when that has gone. Who does not take it
//! keeps pages of the file from being used again, so he is given up after a while.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use base::{Duration, Instant, Ticket};
use tree::Miss;
use wire::Status;

use crate::message::{Refused, ReplyBody};
use crate::reads::Gone;
use crate::store::Store;
use crate::store_link::StoreEffect;
use crate::transfer::{Sender, Sent};

/// States that are saved at once: each keeps a chunk and a page of each level in memory.
const SAVING_MAX: usize = 4;

/// A client that takes no chunk for this long is given up; a server that makes no checkpoint in this time is
/// not waited for.
const STALL_TIMEOUT: Duration = Duration::from_millis(60_000);

/// A client that takes the state.
pub struct Saver {
    ticket: Ticket,
    sender: Sender,
    /// When it took a chunk last, or began.
    moved_at: Instant,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// A client wants the state, as it is now or later.
    pub(crate) fn save(&mut self, ticket: Ticket) {
        if self.savers.len() >= SAVING_MAX {
            let message = format!(
                "{SAVING_MAX} clients take the state of this member already; try again when one of \
                 them is done, or ask another member"
            );
            let retry_after_ms = Refused::GIVEN_BACK_MS;
            let refused = Refused { retry_after_ms, ..Refused::new(Status::Overloaded, message) };
            return self.refuse(ticket, refused);
        }
        let mut sender = Sender::new(0, self.state.applied().0);
        sender.want();
        // The time is filled in with its first turn.
        self.savers.push(Saver { ticket, sender, moved_at: Instant::ORIGIN });
    }

    /// The connection has taken a chunk; false: the ticket is not that of a client who takes the state.
    pub(crate) fn save_on(&mut self, now: Instant, ticket: Ticket) -> bool {
        let saver = self.savers.iter_mut().find(|saver| saver.ticket == ticket);
        if let Some(saver) = saver {
            saver.moved_at = now;
            saver.sender.want();
            return true;
        }
        false
    }

    /// Takes every one of them further.
    pub(crate) fn run_savers(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let published = self.checkpoint.published();
        let mut savers = mem::take(&mut self.savers);
        savers.retain_mut(|saver| {
            if saver.moved_at == Instant::ORIGIN {
                saver.moved_at = now;
            }
            let refused = match saver.sender.step(&mut self.state, published) {
                Sent::Waiting if now.since(saver.moved_at) > STALL_TIMEOUT => late(&saver.sender),
                Sent::Waiting => {
                    if saver.sender.waits_for_checkpoint() && !self.checkpoint.is_running() {
                        self.checkpoint.force();
                    }
                    return true;
                }
                Sent::Begun { .. } | Sent::Busy => {
                    self.is_busy = true;
                    return true;
                }
                Sent::Chunk(chunk, last) => {
                    saver.moved_at = now;
                    let mut out = Vec::new();
                    self.writer.snapshot(&mut out, saver.ticket.request, &chunk, !last);
                    let body = if last { ReplyBody::Frames(out) } else { ReplyBody::Piece(out) };
                    self.reply(saver.ticket, body);
                    if last {
                        saver.sender.release(&mut self.state);
                    }
                    return !last;
                }
                Sent::Miss(miss) => {
                    let (offset, size) = (miss.offset(), miss.size());
                    effects.push(StoreEffect::Read { miss, offset, size, for_transfer: true });
                    return true;
                }
                Sent::Failed(reason) => Refused::new(Status::Unavailable, reason),
            };
            saver.sender.release(&mut self.state);
            self.refuse(saver.ticket, refused);
            false
        });
        self.savers = savers;
    }

    /// A page that they wait for has come; what is wrong with it, if anything is.
    pub(crate) fn saver_installed(&mut self, miss: Miss, bytes: &[u8]) -> Option<String> {
        let installed = self.savers.iter_mut().map(|saver| saver.sender.installed(miss, bytes));
        installed.filter_map(Result::err).last()
    }

    /// The client does not want it any more; false: the ticket is not that of one.
    pub(crate) fn save_no_more(&mut self, ticket: Ticket) -> bool {
        let name = |ticket: Ticket| (ticket.reactor, ticket.connection, ticket.request);
        let place = self.savers.iter().position(|saver| name(saver.ticket) == name(ticket));
        let Some(place) = place else { return false };
        let mut saver = self.savers.remove(place);
        saver.sender.release(&mut self.state);
        let message = "cancelled by the client before it had all of the state".into();
        self.refuse(saver.ticket, Refused::new(Status::Cancelled, message));
        true
    }

    /// Forgets those whose connections have gone, named in order.
    pub(crate) fn drop_gone_savers(&mut self, gone: &[Gone]) {
        let state = &mut self.state;
        self.savers.retain_mut(|saver| {
            let Ticket { reactor, connection, .. } = saver.ticket;
            let is_gone = gone.binary_search(&(reactor, connection)).is_ok();
            if is_gone {
                saver.sender.release(state);
            }
            !is_gone
        });
    }

    /// The state that they take is about to be replaced by that of another member.
    pub(crate) fn end_savers(&mut self) {
        for saver in mem::take(&mut self.savers) {
            let message = "this member has just taken the state of another one; ask again".into();
            self.refuse(saver.ticket, Refused::new(Status::Unavailable, message));
        }
    }

    /// When one of them is given up.
    pub(crate) fn saving_deadline(&self) -> Option<Instant> {
        self.savers.iter().map(|saver| saver.moved_at.after(STALL_TIMEOUT)).min()
    }
}

fn late(sender: &Sender) -> Refused {
    let seconds = STALL_TIMEOUT.as_nanos() / 1_000_000_000;
    if sender.waits_for_checkpoint() {
        let message = format!(
            "this member made no checkpoint in {seconds} s, which a snapshot is made of; look at its \
             disk: whether it is full, or slow"
        );
        return Refused::new(Status::Unavailable, message);
    }
    let message = format!(
        "the client took no piece of the state for {seconds} s; what it keeps from being used again is \
         needed: take it in one go, to a faster disk"
    );
    Refused::new(Status::Overloaded, message)
}
