//! Whether this member is a learner, as calls over HTTP have to know at once.

use std::rc::Rc;
use std::time::Duration;

use wire::{Call, Reply};

use super::native::Native;
use super::unsent::Account;
use super::{Gate, Own};

/// How often a learner looks whether it has a vote now.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long one look may take.
const TIMEOUT_MS: u32 = 2_000;

/// Looks until this member votes: that stays so as long as it runs.
pub async fn follow(gate: Rc<Gate>) {
    let own = Own(Native::open(&gate.inbox, &Account::new(&gate.unsent)));
    let native = Rc::clone(own.native());
    while native.greeting().await.is_ok() {
        let Ok(mut pending) = native.begin(TIMEOUT_MS, &Call::Status).await else { return };
        let Ok(answer) = pending.next().await else { return };
        if let Ok(Reply::Status(status)) = answer.reply() {
            gate.is_learner.set(status.is_learner);
            // Who knows no leader may not have been told yet what it is.
            if !status.is_learner && gate.has_leader() {
                return;
            }
        }
        drop(pending);
        glommio::timer::sleep(INTERVAL).await;
    }
}
