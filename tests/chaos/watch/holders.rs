//! Those who hold leases: some kept alive by the client library, some by hand, some let go, some revoked.
//!
//! ```text
//!  holder: grant, put keys on it ──► library's keeper ◄── sampler: until when is it valid?
//!                               └──► list ◄── renewer: one request for those that are due, never repeated
//! ```

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base::Prng;
use client::{Call, Client, Effect, Error, LeaseKeeper, LeaseLoss, Reply};
use wire::{LeaseKeepAlive, Numbers};

use super::lives::{MS, Manner};
use super::stage::{Stage, lock};
use super::writers::Writer;

/// Leases of one holder at a time.
const HELD_MAX: usize = 14;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(4);

/// How long a renewal may take.
const RENEWAL_TIMEOUT: Duration = Duration::from_millis(400);

/// What an answer that is under way takes when nothing is wrong.
const UNDER_WAY: u64 = 100 * MS;

/// Leases that are renewed by hand, or looked after.
#[derive(Default)]
pub struct Cared {
    hands: Mutex<Vec<Hand>>,
    kept: Mutex<Vec<Kept>>,
}

/// One that is renewed by hand.
struct Hand {
    lease: i64,
    due: u64,
    /// From an answer to the next renewal.
    pause: u64,
    left: u64,
}

/// One that the library keeps alive.
struct Kept {
    keeper: LeaseKeeper,
    lease: i64,
    ttl: Duration,
    until: u64,
}

struct Held {
    lease: i64,
    /// When it is let go or revoked.
    until: u64,
    is_revoked: bool,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long a lease lives: mostly short.
fn ttl(prng: &mut Prng, most: Duration) -> Duration {
    let millis = match prng.below(10) {
        0..4 => 300 + prng.below(700),
        4..8 => 1_000 + prng.below(3_000),
        _ => 4_000 + prng.below(11_000),
    };
    Duration::from_millis(millis).min(most)
}

/// Makes leases until nothing is written any more. `first` is the first of its ids.
pub fn hold(stage: &Arc<Stage>, cared: &Cared, mut writer: Writer, first: i64, most: Duration) {
    let options = stage.options("keeper", Duration::from_secs(2));
    let Ok(keeper) =
        LeaseKeeper::new(stage.endpoints_from(writer.prng().below(3) as usize), options)
    else {
        stage.violation("there is no keeper".into());
        return;
    };
    let for_losses = Arc::clone(stage);
    keeper.on_loss(move |lease, loss| {
        if loss == LeaseLoss::Gone {
            let now = for_losses.now();
            lock(&for_losses.lives).gone(lease, now);
        }
    });
    let mut held: Vec<Held> = Vec::new();
    let mut next = first;
    while !stage.is_over() {
        let now = stage.now();
        if held.len() < HELD_MAX && writer.prng().one_in(8) {
            next += 1;
            if let Some(new) = begin(stage, cared, &mut writer, &keeper, (next, most)) {
                held.push(new);
            }
        }
        while let Some(place) = held.iter().position(|held| held.until <= now) {
            let Held { lease, is_revoked, .. } = held.swap_remove(place);
            lock(&stage.pool).retain(|other| *other != lease);
            if is_revoked {
                writer.revoke(lease);
            }
        }
        thread::sleep(LOOK);
    }
    lock(&stage.pool).clear();
}

fn begin(
    stage: &Arc<Stage>,
    cared: &Cared,
    writer: &mut Writer,
    keeper: &LeaseKeeper,
    (lease, most): (i64, Duration),
) -> Option<Held> {
    let wanted = ttl(writer.prng(), most);
    let manner = match writer.prng().below(10) {
        0..3 => Manner::Kept,
        3..6 => Manner::Hand,
        6..9 => Manner::LetGo,
        _ => Manner::Revoked,
    };
    let since = Instant::now();
    let ttl = writer.grant(lease, manner, wanted)?;
    let (now, ttl_nanos) = (stage.now(), nanos(ttl));
    let mut until = now + ttl_nanos;
    match manner {
        Manner::Kept => {
            until = now + (ttl_nanos / 2 + writer.prng().below(3 * ttl_nanos)).min(nanos(most));
            keeper.keep(lease, ttl, since);
            lock(&cared.kept).push(Kept { keeper: keeper.clone(), lease, ttl, until });
        }
        Manner::Hand => {
            let left = 1 + writer.prng().below(12);
            // Some come at the last moment, while the end of the lease may be on its way.
            let last_moment = ttl_nanos.saturating_sub(writer.prng().below(8 * MS));
            let pause = if writer.prng().one_in(3) { last_moment } else { ttl_nanos / 3 };
            until += left * pause;
            lock(&cared.hands).push(Hand { lease, due: now + pause, pause, left });
        }
        Manner::Revoked => until = now + writer.prng().below(ttl_nanos),
        Manner::LetGo | Manner::OfPut => {}
    }
    for _ in 0..1 + writer.prng().below(3) {
        let key = writer.leased_key();
        if !writer.put(key, lease) {
            break;
        }
    }
    lock(&stage.pool).push(lease);
    Some(Held { lease, until, is_revoked: manner == Manner::Revoked })
}

/// Looks again and again until when the library takes its leases for valid, and has it let go of them.
pub fn sample(stage: &Stage, cared: &Cared) {
    while !stage.is_closed() {
        let mut kept = lock(&cared.kept);
        kept.retain(|kept| {
            let valid_until = kept.keeper.valid_until(kept.lease);
            let now = stage.now();
            let mut lives = lock(&stage.lives);
            if let Some(valid_until) = valid_until {
                let sent = stage.at(valid_until).saturating_sub(nanos(kept.ttl));
                // What two clocks differ by that are read one after the other: for the one who is judged.
                lives.renewed(kept.lease, (sent.saturating_sub(MS), now));
            }
            let stays = valid_until.is_some() && now < kept.until && !stage.is_over();
            if !stays {
                kept.keeper.forget(kept.lease);
                lives.doubted(kept.lease, now + UNDER_WAY);
            }
            stays
        });
        drop(kept);
        thread::sleep(LOOK);
    }
}

/// Renews what is due by hand.
pub fn renew(stage: &Stage, cared: &Cared, mut prng: Prng) {
    let mut client: Option<Client> = None;
    let mut member = 0;
    while !stage.is_closed() {
        let now = stage.now();
        let mut hands = lock(&cared.hands);
        if stage.is_over() {
            hands.clear();
        }
        let due: Vec<i64> =
            hands.iter().filter(|hand| hand.due <= now).map(|hand| hand.lease).collect();
        drop(hands);
        if due.is_empty() {
            thread::sleep(LOOK);
            continue;
        }
        if client.as_ref().is_none_or(|client| client.server().is_none()) || prng.one_in(100) {
            member = (member + 1) % stage.endpoints.len();
            let options = stage.options("renewer", RENEWAL_TIMEOUT);
            client = Client::connect([stage.endpoints[member].clone()], options).ok();
        }
        let Some(connected) = &mut client else {
            thread::sleep(LOOK);
            continue;
        };
        let sent = stage.now();
        let outcome = ask(connected, &due);
        let received = stage.now();
        let mut lives = lock(&stage.lives);
        let mut hands = lock(&cared.hands);
        match outcome {
            Asked::Answered(ttls) => {
                for (lease, ttl) in due.iter().zip(ttls) {
                    if ttl == 0 {
                        lives.gone(*lease, received);
                        hands.retain(|hand| hand.lease != *lease);
                        continue;
                    }
                    lives.renewed(*lease, (sent, received));
                    for hand in hands.iter_mut().filter(|hand| hand.lease == *lease) {
                        hand.left -= 1;
                        hand.due = received + hand.pause;
                    }
                }
                hands.retain(|hand| hand.left > 0);
            }
            Asked::Refused => client = None,
            Asked::Unknown => {
                due.iter().for_each(|lease| lives.doubted(*lease, received));
                client = None;
            }
        }
    }
}

enum Asked {
    /// The times to live, in the order of the leases; 0: there is no such lease.
    Answered(Vec<i64>),
    /// Nothing was done.
    Refused,
    /// Something may be done yet.
    Unknown,
}

/// One attempt.
fn ask(client: &mut Client, leases: &[i64]) -> Asked {
    let call = Call::LeaseKeepAlive(LeaseKeepAlive { leases: Numbers::Given(leases) });
    let Ok(request) = client.submit(&call) else { return Asked::Refused };
    client.flush();
    while let Some(completion) = client.receive() {
        if completion.request != request {
            continue;
        }
        return match completion.result {
            Ok(answer) => match answer.reply() {
                Ok(Reply::LeaseKeepAlive(reply)) if reply.ttls_ms.len() == leases.len() => {
                    Asked::Answered(reply.ttls_ms.iter().collect())
                }
                Ok(_) | Err(_) => Asked::Unknown,
            },
            Err(Error::Refused(why)) if why.effect == Effect::None => Asked::Refused,
            Err(_) => Asked::Unknown,
        };
    }
    Asked::Unknown
}
