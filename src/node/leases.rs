//! The leader's part in leases: it writes the log time into entries, and has leases end whose time is up.
//!
//! ```text
//! leader                                        its store
//! the first deadline has come ── Due{time} ───►  looks among the deadlines, moves those that were renewed
//! LeaseExpire entries ◄── Due{leases, next} ───
//! ... applied ──► the next batch
//! ```
//!
//! Only the leader proposes the end of a lease, in its own term, once it has committed in that term, and not
//! before clients have had [`GRACE`] to come over and renew. What is proposed and not committed when it is
//! deposed is the next leader's to decide: an entry that is applied after all ends a lease only if its log
//! time has reached the deadline that the lease has then.

use alloc::vec::Vec;

use base::{AlarmKind, Duration, Frame, Instant, LeaseId, LogIndex, Mutant, Term};
use kv::{Due, DueError};
use raft::RoleName;

use crate::consensus::Consensus;
use crate::message::EntryKind;
use crate::proposals::Proposal;
use crate::store::Store;
use crate::store_link::StoreEffect;
use crate::tail::Kept;
use crate::{ConsensusEffect, ConsensusEvent, StoreEvent};

/// Time that clients have after a change of leaders before leases end: to find the leader and renew. Part of
/// the promise that no lease outlives its time by more than an election time-out and a second for each
/// change of leaders.
const GRACE: Duration = Duration::from_millis(500);

/// A log time goes into the log this long after the last one, while there are leases: what a start of all
/// members may lose of it.
const STAMP_INTERVAL: Duration = Duration::from_millis(500);

/// Milliseconds after which leases are looked at again whose end an alarm holds up.
const HELD_MS: u64 = 1_000;

/// Leases that end in one batch.
const BATCH: usize = 512;

/// What the leader knows of leases.
#[derive(Debug, Default)]
pub struct Leases {
    /// The term in which this member leads, and since when it has committed in it.
    leads: Option<(Term, Instant)>,
    /// When the store has something to look at, as it said last; none: there is no lease.
    next: Option<u64>,
    /// The store is to be asked anyway.
    is_unknown: bool,
    /// It has been asked and has not answered.
    is_asking: bool,
    /// The last entry of the batch before, until it is applied.
    waits_for: Option<LogIndex>,
    /// The last entry that has been applied.
    applied: LogIndex,
    /// When a log time went into the log last.
    stamped_at: Instant,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Consensus<B> {
    /// Writes the log time into an entry that has one.
    pub(crate) fn with_time(&mut self, now: Instant, kind: u8, frame: &Frame) -> Option<Frame> {
        let at = EntryKind::time_at(kind)?;
        let time = self.log_clock.now(now);
        self.log_clock.hear(now, self.raft.term(), time);
        self.leases.stamped_at = now;
        let mut payload = frame.to_vec();
        if let Some(place) = payload.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = time.to_le_bytes();
        }
        Some(Frame::from(payload))
    }

    /// An entry has come from elsewhere.
    pub(crate) fn hear_entry(&mut self, entry: &Kept) {
        if let Some(time) = EntryKind::time_of(entry.kind, &entry.frame) {
            self.log_clock.hear(self.now, entry.term, time);
        }
    }

    /// This member begins to lead: its log may have a greater time than it was told.
    pub(crate) fn lead_time(&mut self, now: Instant) {
        let times =
            self.tail.pending().filter_map(|kept| EntryKind::time_of(kept.kind, &kept.frame));
        let written = times.max().unwrap_or(0);
        self.log_clock.lead(now, self.raft.term(), written);
    }

    /// Has leases end whose time is up, and keeps the log time in the log young.
    pub(crate) fn tend_leases(&mut self, now: Instant, effects: &mut Vec<ConsensusEffect<B>>) {
        let term = self.raft.term();
        let leads = self.raft.role() == RoleName::Leader && self.raft.read_index().is_some();
        let has_led = self.leases.leads.is_some() && Mutant::DeposedExpires.is_on();
        if !leads && !has_led {
            self.leases.leads = None;
            return;
        }
        if leads && self.leases.leads.is_none_or(|(led, _)| led != term) {
            self.leases.leads = Some((term, now));
            (self.leases.is_unknown, self.leases.waits_for) = (true, None);
            self.leases.is_asking = false;
        }
        if !self.log_clock.is_known() {
            return;
        }
        // What waited for a position and was dropped gets none.
        let last = self.last_proposed();
        if self.leases.waits_for.is_some_and(|wanted| wanted > last) {
            self.leases.waits_for = (self.leases.applied < last).then_some(last);
        }
        if self.lease_deadline().is_some_and(|at| at <= now) {
            self.leases.is_unknown = false;
            self.leases.is_asking = true;
            let time = self.log_clock.now(now);
            effects.push(ConsensusEffect::ToStore(StoreEvent::Due { time, term }));
        }
        if self.stamp_deadline().is_some_and(|at| at <= now) {
            self.leases.stamped_at = now;
            self.propose_own(EntryKind::LogTime, &[0; 8]);
        }
    }

    /// When the store is to be asked what is due.
    fn lease_deadline(&self) -> Option<Instant> {
        let leases = &self.leases;
        let (_, since) = leases.leads?;
        if leases.is_asking || leases.waits_for.is_some() {
            return None;
        }
        let grace = if Mutant::NoGrace.is_on() { Duration::ZERO } else { GRACE };
        let grace = if Mutant::LongGrace.is_on() { Duration::from_millis(4_000) } else { grace };
        let earliest = since.after(grace);
        if leases.is_unknown {
            return Some(earliest);
        }
        let at = self.log_clock.when(self.now, leases.next?);
        Some(at.max(earliest))
    }

    fn stamp_deadline(&self) -> Option<Instant> {
        self.leases.leads?;
        self.leases.next?;
        Some(self.leases.stamped_at.after(STAMP_INTERVAL))
    }

    /// When leases want a turn.
    pub(crate) fn leases_deadline(&self) -> Option<Instant> {
        [self.lease_deadline(), self.stamp_deadline()].into_iter().flatten().min()
    }

    /// The store has looked among the deadlines.
    pub(crate) fn leases_due(&mut self, term: Term, due: &[Due], next: Option<u64>) {
        let leads = self.raft.role() == RoleName::Leader && self.raft.term() == term;
        if !leads && !Mutant::DeposedExpires.is_on() {
            return;
        }
        self.leases.is_asking = false;
        self.leases.next = next;
        let per_key = u8::from(self.config.lease_per_key);
        for Due { lease, granted } in due {
            let mut body = [0; 25];
            body[8..16].copy_from_slice(&lease.get().to_le_bytes());
            body[16..24].copy_from_slice(&granted.get().to_le_bytes());
            body[24] = per_key;
            self.propose_own(EntryKind::LeaseExpire, &body);
        }
        if !due.is_empty() {
            // Those that were renewed before these entries live on, and `next` does not count them.
            self.leases.is_unknown = true;
            self.leases.waits_for = Some(self.last_proposed());
        }
    }

    /// A lease has been added that is due earlier than what the store told.
    pub(crate) fn lease_added(&mut self, deadline: u64) {
        self.leases.next = Some(self.leases.next.map_or(deadline, |next| next.min(deadline)));
    }

    /// Entries up to `index` have been applied.
    pub(crate) fn leases_applied(&mut self, index: LogIndex) {
        self.leases.applied = index;
        if self.leases.waits_for.is_some_and(|last| last <= index) {
            self.leases.waits_for = None;
        }
    }

    /// Proposes an entry of this member's own; it waits for no client's.
    pub(crate) fn propose_own(&mut self, kind: EntryKind, body: &[u8]) {
        let proposal = Proposal {
            ticket: None,
            kind: kind as u8,
            frees_space: true,
            frame: Frame::copy_from_slice(body),
            deadline: None,
        };
        self.propose_first(proposal);
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Consensus asks what is due.
    pub(crate) fn look_for_due(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        let Some((time, term)) = self.due_asked else { return };
        if self.due_waits_for.is_some() || !self.state.between_entries() {
            return;
        }
        let mut due = Vec::new();
        match self.state.due(time, BATCH, &mut due) {
            Ok(next) => {
                // Nothing ends while the alarm CORRUPT is up; what is due is looked at again.
                let is_held = !due.is_empty() && self.state.is_alarmed(AlarmKind::Corrupt);
                let next = if is_held { Some(time.saturating_add(HELD_MS)) } else { next };
                if is_held {
                    due.clear();
                }
                self.due_asked = None;
                self.next_due = next;
                let event = ConsensusEvent::LeasesDue { term, due, next };
                effects.push(StoreEffect::ToConsensus(event));
            }
            Err(DueError::Miss(miss)) => {
                self.due_waits_for = Some(miss);
                self.fetch(miss, effects);
            }
            Err(DueError::Damaged(damage)) => self.halt(&damage, effects),
        }
    }

    /// A lease was made: consensus has to know if it is due before all others.
    pub(crate) fn lease_made(&mut self, lease: LeaseId, effects: &mut Vec<StoreEffect<B>>) {
        let Ok(Some(lease)) = self.state.lease(lease) else { return };
        if self.next_due.is_none_or(|next| lease.deadline < next && !Mutant::HintNotMoved.is_on()) {
            self.next_due = Some(lease.deadline);
            let event = ConsensusEvent::LeaseAdded { deadline: lease.deadline };
            effects.push(StoreEffect::ToConsensus(event));
        }
    }

    /// Tells consensus the log time of the state that it begins with.
    pub(crate) fn tell_log_time(&mut self, effects: &mut Vec<StoreEffect<B>>) {
        if core::mem::replace(&mut self.log_time_told, true) {
            return;
        }
        let event = ConsensusEvent::LogTime { time: self.state.log_time() };
        effects.push(StoreEffect::ToConsensus(event));
    }
}
