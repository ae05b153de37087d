//! Frames between members that are lost, come twice or are overtaken.
//!
//! A stream of the kernel does none of this by itself; but raft promises to live with all of it, and a
//! frame that a socket swallowed is as good as one that the network lost. So it happens to whole frames
//! behind the handshake, and to those kinds only that say themselves what is missing or come again:
//!
//! | kind | lost | twice | late | why not |
//! | --- | --- | --- | --- | --- |
//! | raft messages, appends | yes | yes | yes | |
//! | refusals of forwarded writes | no | yes | yes | the client would wait until its own time-out |
//! | chunks of a state, acknowledgements of them | no | yes | no | counted, and the window moves by them: a gap ends the transfer after 30 s |
//! | forwarded writes | no | no | no | each has one position in the stream, and takes effect when it comes |
//! | the begin of a state, handshakes, exclusions | no | no | no | said once |

use std::collections::BTreeMap;

use base::Prng;
use wire::Kind;

use crate::plan::Fault;

/// What may happen to a frame.
#[derive(Clone, Copy)]
struct Tolerates {
    loss: bool,
    double: bool,
    reorder: bool,
}

fn tolerates(kind: Kind) -> Tolerates {
    let (loss, double, reorder) = match kind {
        Kind::PeerRaft | Kind::PeerAppend => (true, true, true),
        Kind::PeerForwardRefused => (false, true, true),
        Kind::PeerSnapshotChunk | Kind::PeerSnapshotAck => (false, true, false),
        _ => (false, false, false),
    };
    Tolerates { loss, double, reorder }
}

/// A spell of a fault at one machine.
#[derive(Clone, Copy, Default)]
struct Spell {
    until: u64,
    /// One frame in so many.
    odds: u64,
}

/// A frame that waits for later ones to overtake it.
struct Held {
    frame: Vec<u8>,
    /// How many are still to overtake it.
    left: u64,
    is_copy: bool,
}

/// What happens to frames.
#[derive(Default)]
pub struct Frames {
    /// By kind of fault and machine.
    spells: BTreeMap<(Fault, usize), Spell>,
    /// By socket and direction.
    held: BTreeMap<(u64, usize), Vec<Held>>,
}

impl Frames {
    /// A spell begins: of frames to and from a machine.
    pub fn begin(&mut self, fault: Fault, node: usize, until: u64, odds: u64) {
        self.spells.insert((fault, node), Spell { until, odds });
    }

    /// All spells end. What was held is lost: its kinds may be.
    pub fn end(&mut self) {
        self.spells.clear();
        self.held.clear();
    }

    fn happens(&self, fault: Fault, now: u64, machines: [usize; 2], prng: &mut Prng) -> bool {
        machines.iter().any(|&machine| {
            let spell = self.spells.get(&(fault, machine));
            spell.is_some_and(|spell| spell.until > now && prng.one_in(spell.odds))
        })
    }

    /// What of this frame, and of those before it, goes onto the stream now; says what has happened.
    pub fn pass(
        &mut self,
        now: u64,
        stream: (u64, usize),
        machines: [usize; 2],
        (kind, frame): (Kind, &[u8]),
        prng: &mut Prng,
        out: &mut Vec<u8>,
    ) -> Vec<Fault> {
        let mut struck = Vec::new();
        if self.spells.is_empty() {
            out.extend_from_slice(frame);
            return struck;
        }
        let tolerates = tolerates(kind);
        let mut happens = |fault, may: bool| may && self.happens(fault, now, machines, prng);
        if happens(Fault::Loss, tolerates.loss) {
            struck.push(Fault::Loss);
            return struck;
        }
        let (double, late) =
            (happens(Fault::Double, tolerates.double), happens(Fault::Reorder, tolerates.reorder));
        if late {
            let held = Held { frame: frame.to_vec(), left: 1 + prng.below(4), is_copy: false };
            self.held.entry(stream).or_default().push(held);
        } else {
            out.extend_from_slice(frame);
        }
        if double {
            let held = Held { frame: frame.to_vec(), left: prng.below(6), is_copy: true };
            self.held.entry(stream).or_default().push(held);
        }
        if let Some(held) = self.held.get_mut(&stream) {
            held.retain_mut(|held| {
                if held.left > 0 {
                    held.left -= u64::from(!late);
                    return true;
                }
                out.extend_from_slice(&held.frame);
                struck.push(if held.is_copy { Fault::Double } else { Fault::Reorder });
                false
            });
        }
        struck
    }
}
