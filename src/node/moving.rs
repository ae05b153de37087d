//! Moving: what the store does about states that leave for other members, and about one that comes in
//! and takes the place of its own.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use base::{Instant, LogIndex};
use tree::{Miss, PageFile};
use wire::Status;

use crate::checkpoint::Checkpoint;
use crate::message::Refused;
use crate::store::Store;
use crate::transfer::{Received, Receiver, Sent};
use crate::trimming::Trimming;
use crate::{ConsensusEvent, StoreEffect, StoreEvent};

/// The part of the page cache that a state on its way in may take.
const CACHE_SHARE: u64 = 4;

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Takes every transfer further.
    pub(crate) fn run_transfers(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let published = self.checkpoint.published();
        let mut failed = Vec::new();
        for sender in &mut self.senders {
            let transfer = sender.transfer;
            if sender.waits_for_checkpoint()
                && published < sender.index_min
                && !self.checkpoint.is_running()
            {
                self.checkpoint.force();
            }
            let event = match sender.step(&mut self.state, published) {
                Sent::Waiting => continue,
                Sent::Busy => {
                    self.is_busy = true;
                    continue;
                }
                Sent::Begun { index, members, size_hint } => {
                    ConsensusEvent::SendBegun { transfer, index, members, size_hint }
                }
                Sent::Chunk(chunk, last) => {
                    self.is_busy = true;
                    ConsensusEvent::SendChunk { transfer, chunk, last }
                }
                Sent::Miss(miss) => {
                    let (offset, size) = (miss.offset(), miss.size());
                    effects.push(StoreEffect::Read { miss, offset, size, for_transfer: true });
                    continue;
                }
                Sent::Failed(reason) => {
                    failed.push(transfer);
                    ConsensusEvent::SendFailed { transfer, reason }
                }
            };
            effects.push(StoreEffect::ToConsensus(event));
        }
        for transfer in failed {
            self.end_sender(transfer);
        }
        let told = match &mut self.receiver {
            Some(receiver) if !self.installing => {
                let told = receiver.step(now, &mut self.allocate, effects);
                self.is_busy |= receiver.is_busy();
                told
            }
            Some(_) | None => None,
        };
        self.tell(told, effects);
        self.swap(now, effects);
    }

    fn tell(&mut self, told: Option<Received>, effects: &mut Vec<StoreEffect<B>>) {
        let (Some(told), Some(receiver)) = (told, &self.receiver) else { return };
        let transfer = receiver.transfer;
        let event = match told {
            Received::Taken(next) => ConsensusEvent::ReceiveTaken { transfer, next },
            Received::Complete => ConsensusEvent::ReceiveComplete { transfer },
            Received::Refused(reason) => {
                self.drop_receiver(effects);
                ConsensusEvent::ReceiveRefused { transfer, reason }
            }
        };
        effects.push(StoreEffect::ToConsensus(event));
    }

    /// A page that senders wait for has come.
    pub(crate) fn sender_installed(
        &mut self,
        miss: Miss,
        bytes: &[u8],
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        let mut damage: Option<String> = None;
        for sender in &mut self.senders {
            if let Err(found) = sender.installed(miss, bytes) {
                damage = Some(found);
            }
        }
        let damage = self.saver_installed(miss, bytes).or(damage);
        // It is a page of the state that is served, too.
        if let Some(damage) = damage {
            effects.push(StoreEffect::Halt(damage));
        }
    }

    /// A state is not sent any more.
    pub(crate) fn end_sender(&mut self, transfer: u64) {
        let place = self.senders.iter().position(|sender| sender.transfer == transfer);
        if let Some(place) = place {
            self.senders.remove(place).release(&mut self.state);
        }
    }

    /// A state begins to come in.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        transfer: u64,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        if self.installing {
            return;
        }
        self.drop_receiver(effects);
        let mut options = self.config.pages.clone();
        options.cache_size /= CACHE_SHARE;
        let mut config = self.config.checkpoint.clone();
        config.dirty_size = options.cache_size / 4;
        let pages = PageFile::create(&options);
        let dirty_size_max = options.cache_size / 2;
        self.receiver = Some(Receiver::new(transfer, pages, config, dirty_size_max, now));
        effects.push(StoreEffect::MakeIncoming { transfer });
    }

    /// What was coming in is of no use.
    pub(crate) fn drop_receiver(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        if !self.installing && self.receiver.take().is_some() {
            effects.push(StoreEffect::DropIncoming);
        }
    }

    /// Something has happened in the file on its way in.
    pub(crate) fn incoming(
        &mut self,
        now: Instant,
        transfer: u64,
        event: StoreEvent,
        effects: &mut Vec<StoreEffect<B>>,
    ) {
        let told = match &mut self.receiver {
            Some(receiver) if receiver.transfer == transfer => {
                receiver.handle(now, event, &mut self.allocate, effects)
            }
            Some(_) | None => None,
        };
        self.tell(told, effects);
    }

    /// Puts the state that has come in into the place of the old one, between two entries and while
    /// nothing is under way in either file.
    fn swap(&mut self, now: Instant, effects: &mut Vec<StoreEffect<B>>) {
        let is_quiet = self.installing
            && self.fetching.is_empty()
            && self.checkpoint.is_settled()
            && self.receiver.as_ref().is_some_and(Receiver::is_settled);
        if !is_quiet {
            return;
        }
        let Some(mut state) = self.receiver.take().and_then(Receiver::into_state) else { return };
        self.installing = false;
        for sender in mem::take(&mut self.senders) {
            let reason = "this member has installed a state itself".to_string();
            let event = ConsensusEvent::SendFailed { transfer: sender.transfer, reason };
            effects.push(StoreEffect::ToConsensus(event));
        }
        self.end_savers();
        state.pages_mut().set_cache_size(self.config.pages.cache_size);
        let (applied, _) = state.applied();
        self.state = state;
        self.tell_jump(effects);
        (self.due_asked, self.due_waits_for, self.next_due) = (None, None, None);
        self.log_time_told = false;
        self.checkpoint = Checkpoint::new(self.config.checkpoint.clone(), applied, now);
        self.trimming = Trimming::new();
        self.apply_waits_for = None;
        self.doubted = None;
        self.is_busy = true;
        effects.push(StoreEffect::AdoptIncoming);
        self.forget(applied);
        let bytes = mem::take(&mut self.applied_bytes);
        let event = ConsensusEvent::Applied { index: applied, bytes };
        effects.push(StoreEffect::ToConsensus(event));
        effects.push(StoreEffect::ToConsensus(ConsensusEvent::Installed { index: applied }));
    }

    /// Entries up to `applied` are in the state that has come in: who waits for their outcome cannot
    /// be told. Answers that were still being read are of a state that is gone.
    fn forget(&mut self, applied: LogIndex) {
        let mut refused = Vec::new();
        while self.entries.front().is_some_and(|entry| entry.index <= applied) {
            let Some(entry) = self.entries.pop_front() else { break };
            if let Some(ticket) = entry.ticket {
                self.applied_bytes += entry.frame.len();
                refused.push((ticket, Status::Unknown, false));
            }
        }
        for task in self.answers.drain() {
            refused.push((task.ticket, Status::Unavailable, true));
        }
        for (ticket, status, applied) in refused {
            let message = "this member has just caught up by taking the state of another one; the \
                           write took effect or not as the others say; read to find out";
            let refused = Refused {
                status,
                message: message.into(),
                compacted: 0,
                applied,
                retry_after_ms: 0,
            };
            self.refuse(ticket, refused);
        }
        for task in self.reads.iter_mut() {
            task.waits_for = None;
        }
    }
}
