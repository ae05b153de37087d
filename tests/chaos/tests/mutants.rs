//! Histories of a right store, made by chance, and what becomes of them when they are changed: of changes
//! that no right store can produce both judges together must find 99 of 100, the rest must not trouble
//! them. `QUORATE_SEED` repeats a run, `QUORATE_TEST_SCALE` makes it longer.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use base::Prng;
use chaos::history::{
    Answer, Compare, Key, Operation, Outcome, Relation, Request, Revision, Target,
};
use chaos::model::State;
use chaos::{registers, witness};

/// Keys that only single operations touch, and keys for all.
const REGISTERS: Key = 3;
const KEYS: Key = 6;

/// An operation before it is answered.
#[derive(Clone)]
struct Planned {
    operation: Operation,
    /// When it takes effect.
    at: u64,
    /// Whether it does, and whether its client hears of it.
    is_effective: bool,
    is_told: bool,
    /// For reads of an old state: how far behind.
    lag: u64,
}

struct Generator {
    prng: Prng,
    next_value: u64,
}

impl Generator {
    fn below(&mut self, bound: u64) -> u64 {
        self.prng.below(bound)
    }

    fn key(&mut self, from: Key, to: Key) -> Key {
        from + Key::try_from(self.below(u64::from(to - from))).unwrap()
    }

    fn put(&mut self, key: Key) -> Request {
        self.next_value += 1;
        Request::Put { key, value: self.next_value, previous: self.prng.one_in(3) }
    }

    fn request(&mut self) -> Request {
        let any = self.key(0, KEYS);
        let shared = self.key(REGISTERS, KEYS);
        match self.below(10) {
            0..4 => self.put(any),
            4 => Request::Delete { key: any, end: any + 1, previous: self.prng.one_in(2) },
            5 if self.prng.one_in(2) => Request::Delete { key: shared, end: KEYS, previous: true },
            5 => {
                let target = match self.below(3) {
                    0 => Target::Modified(self.prng.below(20)),
                    1 => Target::Version(self.prng.below(3)),
                    _ => Target::Value(self.prng.below(self.next_value + 1)),
                };
                let compares = vec![Compare { key: shared, target, relation: Relation::Equal }];
                let success = vec![self.put(REGISTERS), self.put(REGISTERS + 1)];
                let read = Request::Range { key: 0, end: KEYS, revision: 0, serializable: false };
                Request::Txn { compares, success, failure: vec![read] }
            }
            _ => {
                let serializable = self.prng.one_in(4);
                let (key, end) = if self.prng.one_in(2) { (any, any + 1) } else { (0, KEYS) };
                Request::Range { key, end, revision: 0, serializable }
            }
        }
    }

    /// What some clients do at the same time, in the order in which it takes effect.
    fn plan(&mut self) -> Vec<Planned> {
        let mut plan = Vec::new();
        for client in 0..5 {
            let mut now = self.below(20);
            for _ in 0..20 + self.below(20) {
                let request = self.request();
                let invoked = now;
                let mut at = invoked + self.below(30);
                let returned = at + self.below(30);
                let (is_told, is_effective) = match self.below(20) {
                    0 | 1 => (false, true),
                    2 => (false, false),
                    _ => (true, true),
                };
                if !is_told && self.prng.one_in(2) {
                    at += self.below(500);
                }
                // Refused, and the client knows it.
                let outcome = if is_told || self.prng.one_in(2) || is_effective {
                    Outcome::Unknown
                } else {
                    Outcome::Failed
                };
                let server = u32::try_from(self.below(3)).unwrap();
                let operation = Operation { client, server, invoked, returned, request, outcome };
                let lag = self.below(4);
                plan.push(Planned { operation, at, is_effective, is_told, lag });
                now = returned + 1 + self.below(10);
            }
        }
        plan.sort_by_key(|planned| planned.at);
        plan
    }
}

/// How a store may go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Answers this write and forgets it.
    Loses(usize),
    /// Does this write twice.
    Repeats(usize),
    /// Answers this read from the state of this revision.
    Ages(usize, Revision),
}

/// What a store makes of a plan.
fn carry_out(plan: &[Planned], fault: Fault) -> Vec<Operation> {
    let mut states = vec![State::new()];
    let mut shown: BTreeMap<u32, usize> = BTreeMap::new();
    let mut history = Vec::new();
    for (index, planned) in plan.iter().enumerate() {
        let mut operation = planned.operation.clone();
        let newest = states.len() - 1;
        let mut at = newest;
        if planned.is_effective {
            let is_old = matches!(operation.request, Request::Range { serializable: true, .. });
            let shown = shown.entry(operation.server).or_insert(0);
            if is_old {
                at = newest.saturating_sub(usize::try_from(planned.lag).unwrap()).max(*shown);
            }
            if let Fault::Ages(of, revision) = fault
                && of == index
            {
                at = states.iter().rposition(|state| state.revision() == revision).unwrap();
            } else if planned.is_told {
                *shown = at;
            }
            let mut state = states[at].clone();
            let answer = state.apply(&operation.request);
            let revision = state.revision();
            if answer.is_effective() && fault != Fault::Loses(index) {
                if fault == Fault::Repeats(index) {
                    state.apply(&operation.request);
                }
                states.push(state);
                if planned.is_told {
                    shown_now(shown, states.len() - 1);
                }
            }
            if planned.is_told {
                operation.outcome = Outcome::Done { revision, answer };
            }
        }
        history.push(operation);
    }
    read_past(&states, &mut history);
    history
}

/// As a run ends: most of the revisions that no answer claims are read.
fn read_past(states: &[State], history: &mut Vec<Operation>) {
    let end = history.iter().map(|operation| operation.returned).max().unwrap() + 1_000;
    let newest = states.last().unwrap().revision();
    for at in witness::unclaimed(history).into_iter().filter(|at| at % 4 != 0) {
        let Some(state) = states.iter().find(|state| state.revision() == at) else { continue };
        let request = Request::Range { key: 0, end: KEYS, revision: at, serializable: false };
        let outcome = Outcome::Done { revision: newest, answer: state.clone().apply(&request) };
        let (invoked, returned) = (end, end + 10);
        history.push(Operation { client: 9, server: 9, invoked, returned, request, outcome });
    }
}

fn shown_now(shown: &mut usize, at: usize) {
    *shown = at;
}

fn is_linearizable_read(operation: &Operation) -> bool {
    matches!(operation.request, Request::Range { serializable: false, revision: 0, .. })
        && operation.done().is_some()
}

/// The newest revision that anybody had been shown before this time.
fn known_before(history: &[Operation], time: u64) -> Revision {
    let told = history.iter().filter(|other| other.returned < time);
    told.filter_map(|other| Some(other.done()?.0)).max().unwrap_or(1)
}

/// True if the value that operation `index` wrote was shown to another one, as put at `revision`.
fn is_shown(history: &[Operation], index: usize, revision: Revision) -> bool {
    let mut own = None;
    history[index].request.values(&mut |value| own = Some(value));
    let mut shown = false;
    for (_, other) in history.iter().enumerate().filter(|(other, _)| *other != index) {
        if let Some((_, answer)) = other.done() {
            answer.versions(&mut |version| {
                shown |= version.modified == revision && Some(version.value) == own;
            });
        }
    }
    shown
}

/// A change that no right store can produce; nothing if there is no place for it.
fn violating(
    kind: usize,
    plan: &[Planned],
    history: &[Operation],
    prng: &mut Prng,
) -> Option<Vec<Operation>> {
    let pick = |prng: &mut Prng, fits: &dyn Fn(usize, &Operation) -> bool| {
        let found: Vec<usize> =
            (0..history.len()).filter(|index| fits(*index, &history[*index])).collect();
        let bound = u64::try_from(found.len()).unwrap();
        (bound > 0).then(|| found[usize::try_from(prng.below(bound)).unwrap()])
    };
    let is_claim =
        |operation: &Operation| operation.done().is_some_and(|(_, answer)| answer.is_effective());
    // A put that was answered, and whose value others were shown: no other write explains that.
    let known_put = |index: usize, operation: &Operation| {
        matches!(operation.request, Request::Put { .. })
            && operation.done().is_some_and(|(revision, _)| is_shown(history, index, revision))
    };
    let mut changed = history.to_vec();
    match kind {
        // Two answers change places.
        0 => {
            let one = pick(prng, &|_, operation| is_linearizable_read(operation))?;
            let (_, answer) = history[one].done()?;
            let other = pick(prng, &|_, operation| {
                operation.request == history[one].request
                    && operation.done().is_some_and(|(_, other)| other != answer)
            })?;
            let answer = answer.clone();
            let set = |operation: &mut Operation, new: &Answer| {
                if let Outcome::Done { answer, .. } = &mut operation.outcome {
                    *answer = new.clone();
                }
            };
            set(&mut changed[one], history[other].done()?.1);
            set(&mut changed[other], &answer);
        }
        // One value is another one.
        1 => {
            let one = pick(prng, &|_, operation| match operation.done() {
                Some((_, Answer::Range { versions, .. })) => !versions.is_empty(),
                _ => false,
            })?;
            if let Outcome::Done { answer: Answer::Range { versions, .. }, .. } =
                &mut changed[one].outcome
            {
                versions[0].value = versions[0].value % 20 + 1;
            }
            if changed == history {
                return None;
            }
        }
        // A write is answered and has no effect.
        2 => {
            let one = pick(prng, &|_, operation| {
                is_claim(operation)
                    && history.iter().any(|other| {
                        other.invoked > operation.returned
                            && (is_claim(other) || is_linearizable_read(other))
                    })
            })?;
            changed = carry_out(plan, Fault::Loses(one));
        }
        // A write that others have seen was made by nobody.
        3 => {
            let one = pick(prng, &known_put)?;
            changed.remove(one);
        }
        // A write that had an effect was refused.
        4 => {
            let one = pick(prng, &known_put)?;
            changed[one].outcome = Outcome::Failed;
        }
        // A write is done twice.
        5 => {
            let one = pick(prng, &known_put)?;
            changed = carry_out(plan, Fault::Repeats(one));
            // Else a write of unknown outcome explains it.
            if !is_shown(&changed, one, history[one].done()?.0 + 1) {
                return None;
            }
        }
        // A read is answered from a state that is too old.
        6 => {
            let one = pick(prng, &|_, operation| {
                is_linearizable_read(operation) && known_before(history, operation.invoked) > 1
            })?;
            let newest = known_before(history, history[one].invoked);
            changed = carry_out(plan, Fault::Ages(one, 1 + prng.below(newest - 1)));
        }
        // An answer was there before the write that it shows was sent.
        7 => {
            let writes: BTreeMap<Revision, u64> = history
                .iter()
                .filter(|operation| is_claim(operation))
                .filter_map(|operation| Some((operation.done()?.0, operation.invoked)))
                .collect();
            let one = pick(prng, &|_, operation| {
                let Some((revision, answer)) = operation.done() else { return false };
                !answer.is_effective() && writes.get(&revision).is_some_and(|sent| *sent > 2)
            })?;
            let sent = writes[&history[one].done()?.0];
            changed[one].returned = sent - 1;
            changed[one].invoked = changed[one].invoked.min(sent - 2);
        }
        // A read that may be old misses one of the keys.
        8 => {
            let one = pick(prng, &|_, operation| match operation.done() {
                Some((_, Answer::Range { versions, .. })) => versions.len() > 1,
                _ => false,
            })?;
            if let Outcome::Done { answer: Answer::Range { versions, count }, .. } =
                &mut changed[one].outcome
            {
                versions.remove(usize::try_from(prng.below(*count)).unwrap());
                *count -= 1;
            }
        }
        // A server shows what is older than what it has shown.
        9 => {
            let newest = |operation: &Operation| {
                let same = history.iter().filter(|other| other.server == operation.server);
                known_before(&same.cloned().collect::<Vec<_>>(), operation.invoked)
            };
            let one = pick(prng, &|_, operation| {
                matches!(operation.request, Request::Range { serializable: true, .. })
                    && operation.done().is_some()
                    && newest(operation) > 1
            })?;
            let revision = 1 + prng.below(newest(&history[one]) - 1);
            changed = carry_out(plan, Fault::Ages(one, revision));
        }
        _ => unreachable!(),
    }
    Some(changed)
}

const VIOLATING: [&str; 10] = [
    "swapped answers",
    "another value",
    "lost write",
    "write of nobody",
    "refused write that took effect",
    "write done twice",
    "stale read",
    "answer before the write",
    "key missed",
    "server going back",
];

/// A change that a right store can produce as well.
fn equivalent(kind: usize, history: &[Operation], generator: &mut Generator) -> Vec<Operation> {
    let mut changed = history.to_vec();
    let index = usize::try_from(generator.below(u64::try_from(history.len()).unwrap())).unwrap();
    match kind {
        // An answer is lost.
        0 => {
            changed[index].outcome = match changed[index].outcome {
                Outcome::Failed => Outcome::Failed,
                Outcome::Done { .. } | Outcome::Unknown => Outcome::Unknown,
            }
        }
        // It took longer.
        1 => changed[index].returned += generator.below(1_000),
        2 => changed[index].invoked = changed[index].invoked.saturating_sub(generator.below(1_000)),
        // Nobody asked.
        3 if !changed[index].request.is_write() => drop(changed.remove(index)),
        // Any state would have done.
        4 => {
            if let Request::Range { serializable, .. } = &mut changed[index].request {
                *serializable = true;
            }
        }
        // Written down in another order.
        5 => {
            for index in (1..changed.len()).rev() {
                let other = generator.below(u64::try_from(index).unwrap() + 1);
                changed.swap(index, usize::try_from(other).unwrap());
            }
        }
        // Somebody tried to write, and had no effect.
        _ => {
            let key = generator.key(0, KEYS);
            let request = generator.put(key);
            let outcome = if kind == 6 { Outcome::Unknown } else { Outcome::Failed };
            changed.push(Operation { request, outcome, ..history[index].clone() });
        }
    }
    changed
}

#[test]
fn wrong_histories_are_found_and_right_ones_pass() {
    let seed = std::env::var("QUORATE_SEED").map_or(1, |text| text.parse().unwrap());
    let scale: u64 = std::env::var("QUORATE_TEST_SCALE").map_or(1, |text| text.parse().unwrap());
    println!("QUORATE_SEED={seed}");
    let mut generator = Generator { prng: Prng::new(seed), next_value: 0 };
    let mut counts = [[0_u64; 3]; VIOLATING.len()];
    let (mut judged, mut undecided) = (0_u64, 0_u64);
    for round in 0..150 * scale {
        generator.next_value = 0;
        let plan = generator.plan();
        let history = carry_out(&plan, Fault::None);
        let mut check_right = |history: &[Operation], what: &str| {
            let verdict = witness::judge(history);
            // Revisions that nobody has read may leave too much open.
            undecided += u64::from(verdict.undecided.is_some());
            judged += 1;
            assert!(verdict.violations.is_empty(), "seed {seed} round {round} {what}: {verdict:?}");
            let verdict = registers::judge(history, 0..REGISTERS);
            assert!(verdict.is_right(), "seed {seed} round {round} {what}: {verdict:?}");
        };
        check_right(&history, "as it is");
        for kind in 0..8 {
            let changed = equivalent(kind, &history, &mut generator);
            check_right(&changed, &format!("changed by {kind}"));
        }
        for (kind, count) in counts.iter_mut().enumerate() {
            for _ in 0..2 {
                let mut prng = Prng::new(generator.prng.next_u64());
                let Some(changed) = violating(kind, &plan, &history, &mut prng) else { continue };
                count[0] += 1;
                count[1] += u64::from(!witness::judge(&changed).violations.is_empty());
                count[2] +=
                    u64::from(!registers::judge(&changed, 0..REGISTERS).violations.is_empty());
            }
        }
    }
    println!("{judged} right ones, {undecided} of them left undecided");
    assert!(
        undecided * 100 <= judged,
        "{undecided} of {judged} right histories were left undecided"
    );
    for (name, [made, witnessed, searched]) in VIOLATING.iter().zip(counts) {
        println!(
            "{name}: {made} made, {witnessed} found by witness, {searched} by registers alone"
        );
        assert!(made >= 100 * scale, "{name}: only {made} made");
        assert!(witnessed * 100 >= made * 99, "{name}: {witnessed} of {made} found");
    }
    // The second judge sees half of the keys and no revisions, and still has to find many.
    let alone: u64 = counts.iter().map(|count| count[2]).sum();
    let made: u64 = counts.iter().map(|count| count[0]).sum();
    assert!(alone * 5 >= made, "registers found {alone} of {made}");
}
