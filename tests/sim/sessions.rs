//! Sessions of clients: which write gets which stamp, what is sent again, and stamps that are of no use.
//! What they may come to is judged by the onlooker.

use std::collections::BTreeSet;

use base::{ClientId, Prng, Stamp};
use wire::Status;

use crate::load::{Ask, Seen};
use crate::model::Command;

/// The session of a client. It outlives connections.
#[derive(Default)]
pub struct Session {
    /// The id, once there is one.
    id: Option<u64>,
    is_registering: bool,
    next: u64,
    /// Numbers whose outcome is not known.
    open: BTreeSet<u64>,
    /// Writes that may be sent again.
    again: Vec<(u64, Command)>,
    /// Ids of before.
    gone: Vec<u64>,
}

impl Session {
    fn floor(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    /// What is asked in the place of `ask`, and with which stamp.
    pub fn next(&mut self, ask: Ask, prng: &mut Prng) -> (Ask, Option<Stamp>) {
        let Ask::Write(command) = &ask else { return (ask, None) };
        if matches!(command, Command::Raise { .. } | Command::Disarm { .. }) {
            return (ask, None);
        }
        if prng.one_in(25) {
            let stamp = self.useless(prng);
            return (ask, Some(stamp));
        }
        let Some(id) = self.id else {
            if !self.is_registering && prng.one_in(6) {
                self.is_registering = true;
                return (Ask::Register, None);
            }
            return (ask, None);
        };
        if prng.one_in(100) {
            // The one that it has is given up, as by a program that starts anew.
            self.forget();
        }
        let stamp = |sequence, floor| Stamp { client: ClientId::new(id), sequence, floor };
        if !self.again.is_empty() && prng.one_in(2) {
            let place = prng.below(self.again.len() as u64);
            let (sequence, command) =
                self.again.swap_remove(usize::try_from(place).expect("there are few"));
            return (Ask::Write(command), Some(stamp(sequence, self.floor().min(sequence))));
        }
        if prng.one_in(4) {
            return (ask, None);
        }
        let sequence = self.next;
        self.next += 1;
        self.open.insert(sequence);
        if prng.one_in(12) {
            // Twice at the same time, perhaps by way of two members.
            self.again.push((sequence, command.clone()));
        }
        (ask, Some(stamp(sequence, self.floor())))
    }

    /// A stamp that no sane client would send.
    fn useless(&self, prng: &mut Prng) -> Stamp {
        let id = match self.id {
            Some(id) if prng.one_in(2) => id,
            _ if !self.gone.is_empty() => {
                let place = prng.below(self.gone.len() as u64);
                self.gone[usize::try_from(place).expect("there are few")]
            }
            _ => prng.below(100),
        };
        let floor = self.floor();
        let sequence = match prng.below(3) {
            0 => floor + 256 + prng.below(3),
            1 => floor.saturating_sub(1),
            _ => prng.below(floor + 1),
        };
        let floor = if prng.one_in(2) { 0 } else { floor.min(sequence) };
        Stamp { client: ClientId::new(id), sequence, floor }
    }

    fn forget(&mut self) {
        self.gone.extend(self.id.take());
        self.open.clear();
        self.again.clear();
    }

    /// A client was given an id.
    pub fn registered(&mut self, id: u64) {
        self.forget();
        *self =
            Self { id: Some(id), next: 1, gone: std::mem::take(&mut self.gone), ..Self::default() };
    }

    /// The registration came to nothing, as far as anybody can tell.
    pub fn not_registered(&mut self) {
        self.is_registering = false;
    }

    /// What came of a write with this stamp; `got` is none when nobody will tell. `is_settled`: it is in
    /// the log, so that what was told is what it came to.
    pub fn heard(
        &mut self,
        stamp: &Stamp,
        command: &Command,
        got: Option<&Seen>,
        is_settled: bool,
        prng: &mut Prng,
    ) {
        let sequence = stamp.sequence;
        if self.id != Some(stamp.client.get()) || !self.open.contains(&sequence) {
            return;
        }
        match got {
            Some(Seen::Refused(Status::SessionExpired, _)) => self.forget(),
            Some(Seen::Told(_)) => drop(self.open.remove(&sequence)),
            Some(Seen::Refused(..)) if is_settled => drop(self.open.remove(&sequence)),
            // Given up now and then: it must not take effect any more once another write is applied.
            _ if prng.one_in(5) => drop(self.open.remove(&sequence)),
            _ => self.again.push((sequence, command.clone())),
        }
    }
}
