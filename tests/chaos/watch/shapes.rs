//! What watches ask for, drawn by chance: of all shapes.

use std::time::Duration;

use base::Prng;
use client::{WatchOptions, WatchPosition, WatchedRange};
use wire::{Watch, WatchRange, WatchRanges};

use super::keys::{KeyId, Named};
use super::ledger::Point;
use super::stage::Stage;
use super::stream::Wish;

/// What a watch asks for.
#[derive(Clone, Debug)]
pub struct Shape {
    ranges: Vec<Named>,
    /// The same in numbers of keys.
    pub wish: Wish,
    progress: Option<Duration>,
}

fn all() -> Named {
    (vec![0], vec![0])
}

fn any_key(stage: &Stage, prng: &mut Prng) -> KeyId {
    u32::try_from(prng.below(u64::from(stage.keys.count()))).expect("a key has 32 bits")
}

fn range(stage: &Stage, prng: &mut Prng) -> Named {
    let one = any_key(stage, prng);
    let other = any_key(stage, prng);
    let key = |id: KeyId| stage.keys.key(id).to_vec();
    match prng.below(8) {
        0..3 => (key(one), Vec::new()),
        3..5 => {
            let prefix =
                ["a/", "b/", "l/", "t/", "x/", "a/0", "b/1", "l/00", "q/"][prng.below(9) as usize];
            (prefix.into(), client::prefix_end(prefix.as_bytes()))
        }
        5 => (key(one), vec![0]),
        // Up to the greater one and with it.
        _ => (key(one.min(other)), [stage.keys.key(one.max(other)), b"\0"].concat()),
    }
}

impl Shape {
    /// One that is told of everything, with all that belongs to it.
    pub fn everything(stage: &Stage) -> Self {
        let wish = Wish { prev_kv: true, fragments: true, ..Wish::default() };
        let progress = Some(Duration::from_millis(200));
        Self { ranges: vec![all()], wish, progress }.with_spans(stage)
    }

    /// Any. `is_raw`: read without the library, which gathers what comes in pieces and can be asked how
    /// far it has come.
    pub fn draw(stage: &Stage, prng: &mut Prng, is_raw: bool) -> Self {
        let ranges = match prng.below(10) {
            0 => vec![all()],
            1..3 => (0..2 + prng.below(5)).map(|_| range(stage, prng)).collect(),
            _ => vec![range(stage, prng)],
        };
        let (no_put, no_delete) = match prng.below(8) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        };
        let wish = Wish {
            spans: Vec::new(),
            prev_kv: prng.one_in(2),
            keys_only: prng.one_in(4),
            no_put,
            no_delete,
            fragments: is_raw || prng.one_in(3),
        };
        let has_progress = is_raw || prng.one_in(3);
        let progress = has_progress.then(|| Duration::from_millis(100 + prng.below(900)));
        Self { ranges, wish, progress }.with_spans(stage)
    }

    fn with_spans(mut self, stage: &Stage) -> Self {
        self.wish.spans = self.ranges.iter().map(|range| stage.keys.span(range)).collect();
        self
    }

    /// For the library.
    pub fn options(&self, start: Option<Point>) -> WatchOptions {
        let ranges = self
            .ranges
            .iter()
            .map(|(key, end)| WatchedRange { key: key.clone(), range_end: end.clone() });
        let Wish { prev_kv, keys_only, no_put, no_delete, fragments, .. } = self.wish;
        WatchOptions {
            ranges: ranges.collect(),
            start: start
                .map_or(WatchPosition::NEXT, |(revision, sub)| WatchPosition { revision, sub }),
            prev_kv,
            keys_only,
            no_put,
            no_delete,
            progress_interval: self.progress,
            fragments,
        }
    }

    /// For a connection of one's own.
    pub fn request<T>(&self, start: Option<Point>, send: impl FnOnce(Watch<'_>) -> T) -> T {
        let ranges: Vec<WatchRange<'_>> =
            self.ranges.iter().map(|(key, end)| WatchRange { key, range_end: end }).collect();
        let Wish { prev_kv, keys_only, no_put, no_delete, .. } = self.wish;
        let (start_revision, start_sub) = start.unwrap_or_default();
        let interval = self.progress.map_or(0, |progress| progress.as_millis());
        send(Watch {
            ranges: WatchRanges::Given(&ranges),
            start_revision,
            start_sub,
            prev_kv,
            keys_only,
            no_put,
            no_delete,
            progress_interval_ms: u32::try_from(interval).expect("about a second"),
        })
    }
}

/// Where a watch begins: now, in the past, perhaps in what has been given up, within a revision, or in the
/// future.
pub fn draw_start(stage: &Stage, prng: &mut Prng) -> Option<Point> {
    let (known, compacted) = {
        let ledger = stage.ledger.read().expect("nobody panics under this lock");
        (ledger.revision, ledger.compacted)
    };
    match prng.below(11) {
        0..4 => None,
        // About the last revision that is kept.
        10 => Some((
            (compacted - 2 + i64::from(prng.one_in(2)) + i64::from(prng.one_in(2))).max(1),
            0,
        )),
        4 => {
            let ahead = 1 + prng.below(400);
            Some((known + i64::try_from(ahead).expect("a small number"), 0))
        }
        _ => {
            let first = (compacted - 10).max(1);
            let kept = u64::try_from(known - first).unwrap_or(0) + 1;
            let back = i64::try_from(prng.below(kept)).expect("below a revision");
            let sub = if prng.one_in(3) { prng.below(4) } else { 0 };
            Some((known - back, u32::try_from(sub).expect("a small number")))
        }
    }
}
