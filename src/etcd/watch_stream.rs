//! A stream of watches as etcd's clients speak it: which watch has which number, what its client is told
//! and in which order. Sans-io: the owner of the stream hands in what comes and does what is asked.
//!
//! Every watch of the stream is a watch of the native protocol. What differs:
//!
//! - ids are the stream's, counted from 0 unless the client chooses them; a refused creation is answered as
//!   created and canceled at once;
//! - a revision is told whole, unless the client takes fragments, and then the last of them ends with a revision;
//! - a header's revision is the store's when it was read, or when it was made, never less than that of an event;
//! - progress is asked for of the stream, and told once, when every watch of it has come to one revision, and none
//!   begins with a later one.
//!
//! The rules are those that etcd 3.7 keeps; `tests/clients` compares them.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use wire::{Refused, Status, WatchChange, WatchReply, WatchStep};

use crate::begin_message;
use crate::decode::decode;
use crate::failure::Failure;
use crate::proto::watch::{WatchCreateRequest, WatchRequest, WatchUnion};
use crate::request::{WatchRefusal, watch_range};
use crate::response::{self, Answerer};

/// The id of answers that are no watch's.
const NO_WATCH: i64 = -1;

/// What the owner of the stream has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Begin a watch, and say its request ([`WatchStream::begun`]).
    Begin {
        /// Its id in the stream.
        id: i64,
        /// What it asks for; its range is one ([`watch_range`]).
        create: WatchCreateRequest,
    },
    /// Cancel a request.
    Cancel {
        /// Which.
        request: u64,
    },
    /// Ask a watch for its progress.
    Remind {
        /// Its request.
        request: u64,
    },
    /// Send a message to the client; it stands behind the room for its prefix ([`begin_message`]).
    Send(Vec<u8>),
    /// Send what a notice says at the newest revision of this moment ([`Notice::message`]).
    Notify(Notice),
}

/// What a client is told in whose header the newest revision stands, though no answer of the member's has
/// brought it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A watch is not begun.
    Refused(WatchRefusal),
    /// A watch is begun; that it has ended follows.
    Created {
        /// Its id.
        id: i64,
    },
    /// A watch has ended.
    Canceled {
        /// Its id.
        id: i64,
        /// Why, unless the client asked for it.
        reason: String,
    },
}

impl Notice {
    /// The message, behind the room for its prefix.
    pub fn message(&self, from: &Answerer, revision: i64) -> Vec<u8> {
        let mut out = begin_message();
        match self {
            Self::Refused(refusal) => {
                response::watch_refused(&mut out, from, revision, refusal.reason());
            }
            Self::Created { id } => response::watch_created(&mut out, from, revision, *id),
            Self::Canceled { id, reason } => {
                response::watch_canceled(&mut out, from, revision, *id, reason);
            }
        }
        out
    }
}

struct Watcher {
    /// None until the owner has said it.
    request: Option<u64>,
    is_created: bool,
    /// The client takes fragments.
    fragments: bool,
    /// The revision that it begins with; 0: the next one.
    start: i64,
    /// The revision that has been told in part.
    open: Option<Open>,
    /// Its pieces, unless the client takes fragments.
    held: Vec<u8>,
    /// Where it has come to, as it was told in this round.
    progress: Option<i64>,
    /// It was ended because what it had to tell has been given up. The client cancels it all the same, is
    /// answered, and may not use its id before.
    is_ended: bool,
}

/// A revision that has been told in part.
#[derive(Clone, Copy)]
struct Open {
    revision: i64,
    /// What the headers of all its pieces say: clients that put them together keep the first.
    header: i64,
}

impl Watcher {
    /// Tells a piece of a revision that is told in parts.
    fn piece<'c>(
        &mut self,
        id: i64,
        header: i64,
        changes: impl Iterator<Item = WatchChange<'c>> + Clone,
        is_last: bool,
        from: &Answerer,
        effects: &mut Vec<Effect>,
    ) {
        let out = &mut self.held;
        if out.is_empty() {
            *out = begin_message();
        }
        // One message behind another is both merged: the pieces become one.
        response::watch_events(out, from, header, id, changes, self.fragments && !is_last);
        if self.fragments || is_last {
            effects.push(Effect::Send(core::mem::take(out)));
        }
    }

    /// Tells changes. What belongs to a revision that was told in part ends that; whole revisions follow as one
    /// message, and then a part of the last one. So no more than one revision is held, and what a client puts
    /// together is one.
    fn changes(
        &mut self,
        id: i64,
        reply: &WatchReply<'_>,
        from: &Answerer,
        effects: &mut Vec<Effect>,
    ) {
        let revision = |change: &WatchChange<'_>| change.kv.mod_revision;
        let mut last = reply.changes.map(|change| revision(&change)).last();
        let header = last.unwrap_or(0).max(reply.revision).max(reply.newest);
        let open = self.open.take();
        if let Some(open) = open {
            let rest = reply.changes.take_while(|change| revision(change) == open.revision);
            let is_last = !reply.fragment || last.is_some_and(|last| last > open.revision);
            // Without an event it is taken for progress, and everything up to its revision is told.
            let is_bare = self.fragments && rest.clone().next().is_none();
            let header = if is_bare { reply.revision } else { open.header };
            self.piece(id, header, rest, is_last, from, effects);
            if !is_last {
                self.open = Some(open);
                return;
            }
        }
        let ended = open.map_or(0, |open| open.revision);
        let new = reply.changes.skip_while(|change| revision(change) <= ended);
        if !reply.fragment {
            last = None;
        }
        let is_whole = |change: &WatchChange<'_>| last.is_none_or(|last| revision(change) < last);
        let whole = new.clone().take_while(is_whole);
        if whole.clone().next().is_some() {
            let mut out = begin_message();
            response::watch_events(&mut out, from, header, id, whole, false);
            effects.push(Effect::Send(out));
        }
        if let Some(revision) = last {
            self.open = Some(Open { revision, header });
            self.piece(id, header, new.skip_while(is_whole), false, from, effects);
        }
    }
}

/// A stream.
#[derive(Default)]
pub struct WatchStream {
    watchers: BTreeMap<i64, Watcher>,
    by_request: BTreeMap<u64, i64>,
    next_id: i64,
    /// The client has asked how far the stream has come.
    wants_progress: bool,
    /// A watch has answered that the revision it begins with is still to come. Nothing is told then, and asking again
    /// is worth it.
    is_early: bool,
}

impl WatchStream {
    /// Without watches.
    pub fn new() -> Self {
        Self {
            watchers: BTreeMap::new(),
            by_request: BTreeMap::new(),
            next_id: 0,
            wants_progress: false,
            is_early: false,
        }
    }

    /// Takes a message of the client. `from` is who answers.
    ///
    /// # Errors
    /// It is malformed.
    pub fn asked(
        &mut self,
        message: Bytes,
        from: &Answerer,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let request: WatchRequest = decode(message)?;
        match request.request_union {
            Some(WatchUnion::Create(create)) => self.create(create, effects),
            Some(WatchUnion::Cancel(cancel)) => {
                if let Some(request) = self.forget(cancel.watch_id) {
                    effects.extend(request.map(|request| Effect::Cancel { request }));
                    let (id, reason) = (cancel.watch_id, String::new());
                    effects.push(Effect::Notify(Notice::Canceled { id, reason }));
                    self.tell_progress(from, effects);
                }
            }
            Some(WatchUnion::Progress(_)) if self.wants_progress && !self.is_early => {}
            Some(WatchUnion::Progress(_)) => {
                self.wants_progress = true;
                self.ask_progress(effects);
            }
            // Of a later version: ignored, as etcd does.
            None => {}
        }
        Ok(())
    }

    fn create(&mut self, create: WatchCreateRequest, effects: &mut Vec<Effect>) {
        let taken = create.watch_id != 0 && self.watchers.contains_key(&create.watch_id);
        let refusal = match watch_range(&create) {
            Err(refusal) => Some(refusal),
            Ok(_) if taken => Some(WatchRefusal::DuplicateId),
            Ok(_) => None,
        };
        if let Some(refusal) = refusal {
            effects.push(Effect::Notify(Notice::Refused(refusal)));
            return;
        }
        let id = if create.watch_id == 0 { self.free_id() } else { create.watch_id };
        let watcher = Watcher {
            request: None,
            is_created: false,
            fragments: create.fragment,
            start: create.start_revision,
            open: None,
            held: Vec::new(),
            progress: None,
            is_ended: false,
        };
        self.watchers.insert(id, watcher);
        effects.push(Effect::Begin { id, create });
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// A watch has been begun with this request; false: it has been canceled meanwhile, and the request with
    /// it should be.
    #[must_use]
    pub fn begun(&mut self, id: i64, request: u64) -> bool {
        let is_new = |own: &&mut Watcher| own.request.is_none() && !own.is_ended;
        let Some(watcher) = self.watchers.get_mut(&id).filter(is_new) else { return false };
        watcher.request = Some(request);
        self.by_request.insert(request, id);
        true
    }

    /// Takes a watch out: its request, if it has one by now. None: there is no such watch.
    fn forget(&mut self, id: i64) -> Option<Option<u64>> {
        let watcher = self.watchers.remove(&id)?;
        if let Some(request) = watcher.request {
            self.by_request.remove(&request);
        }
        Some(watcher.request)
    }

    /// Takes an answer to the watch with this request.
    pub fn told(
        &mut self,
        request: u64,
        reply: &WatchReply<'_>,
        from: &Answerer,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = self.by_request.get(&request).copied() else { return };
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match reply.step {
            WatchStep::Created => {
                watcher.is_created = true;
                let mut out = begin_message();
                response::watch_created(&mut out, from, reply.revision, id);
                effects.push(Effect::Send(out));
                if self.wants_progress {
                    effects.push(Effect::Remind { request });
                }
            }
            WatchStep::Changes => watcher.changes(id, reply, from, effects),
            WatchStep::Progress => {
                if self.wants_progress && reply.revision < watcher.start {
                    self.is_early = true;
                } else if self.wants_progress {
                    watcher.progress = Some(reply.revision);
                    self.tell_progress(from, effects);
                } else {
                    let mut out = begin_message();
                    response::watch_progress(&mut out, from, reply.revision, id);
                    effects.push(Effect::Send(out));
                }
            }
        }
    }

    /// The watch with this request has ended.
    ///
    /// # Errors
    /// The member serves no watch any more, or the client was slower than it allows: then the stream ends, and
    /// clients go on from where they were, at another member too. A watch that is canceled they give up.
    pub fn ended(
        &mut self,
        request: u64,
        refused: &Refused<'_>,
        from: &Answerer,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
        let Some(id) = self.by_request.get(&request).copied() else { return Ok(()) };
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        match refused.status {
            Status::ShuttingDown | Status::SlowReader => return Err(Failure::STOPPED),
            Status::NoLeader => return Err(Failure::NO_LEADER),
            Status::Unavailable => return Err(Failure::TIMEOUT),
            _ => {}
        }
        if !watcher.is_created {
            // Whatever follows, a client waits for this first.
            effects.push(Effect::Notify(Notice::Created { id }));
        }
        if refused.status == Status::Compacted {
            watcher.request = None;
            watcher.is_ended = true;
            watcher.held = Vec::new();
            self.by_request.remove(&request);
            let mut out = begin_message();
            response::watch_compacted(&mut out, from, id, refused.compacted_revision);
            effects.push(Effect::Send(out));
        } else {
            self.forget(id);
            let reason = refused.message.to_string();
            effects.push(Effect::Notify(Notice::Canceled { id, reason }));
        }
        self.tell_progress(from, effects);
        Ok(())
    }

    fn ask_progress(&mut self, effects: &mut Vec<Effect>) {
        self.is_early = false;
        for watcher in self.watchers.values_mut() {
            watcher.progress = None;
            if let Some(request) = watcher.request.filter(|_| watcher.is_created) {
                effects.push(Effect::Remind { request });
            }
        }
        // Nobody is there who could tell it: nothing is told.
        self.wants_progress = self.watchers.values().any(|watcher| !watcher.is_ended);
    }

    /// Tells the progress of the stream once every watch of it has told the same.
    fn tell_progress(&mut self, from: &Answerer, effects: &mut Vec<Effect>) {
        if !self.wants_progress {
            return;
        }
        let mut bounds: Option<(i64, i64)> = None;
        for watcher in self.watchers.values().filter(|watcher| !watcher.is_ended) {
            let Some(revision) = watcher.progress else { return };
            let (low, high) = bounds.unwrap_or((revision, revision));
            bounds = Some((low.min(revision), high.max(revision)));
        }
        match bounds {
            // The last watch has gone.
            None => self.wants_progress = false,
            Some((low, high)) if low == high => {
                self.wants_progress = false;
                let mut out = begin_message();
                response::watch_progress(&mut out, from, high, NO_WATCH);
                effects.push(Effect::Send(out));
            }
            // Some were behind when they were asked. What is told must not lie below what others have
            // been told since.
            Some(_) => self.ask_progress(effects),
        }
    }
}
