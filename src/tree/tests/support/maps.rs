//! What trees must hold, kept in ordinary maps, and random changes to both.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::Prng;
use base::RootNo;
use tree::{Direction, HeldWalk, KeyRange, Miss, NewCell, PageFile, Summary, TreeId};

use super::{Disk, bytes, served};

pub const TREES: u8 = 3;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    pub counted: bool,
    pub number: u64,
    pub payload: Vec<u8>,
    pub run: Option<Vec<u8>>,
}

pub type Map = BTreeMap<Vec<u8>, Value>;

/// The trees as maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub trees: [Map; TREES as usize],
    pub next: u64,
}

/// Shapes of load: how long keys, payloads and runs are.
#[derive(Clone, Copy)]
pub struct Load {
    pub keys: u64,
    pub key_size_max: u64,
    pub payload_max: u64,
    pub run_max: u64,
    pub puts_in_ten: u64,
}

fn random_key(prng: &mut Prng, load: &Load) -> Vec<u8> {
    let number = prng.below(load.keys);
    let mut key = match prng.below(3) {
        0 => format!("/registry/pods/{number}").into_bytes(),
        1 => number.to_be_bytes()[prng.below(8) as usize..].to_vec(),
        _ => {
            let size = prng.below(load.key_size_max + 1);
            (0..size).map(|_| b'a' + u8::try_from(prng.below(2)).unwrap()).collect()
        }
    };
    if prng.one_in(20) {
        key.resize(usize::try_from(prng.below(load.key_size_max + 1)).unwrap(), b'x');
    }
    key
}

impl Model {
    pub fn put(&mut self, file: &mut PageFile, disk: &Disk, tree: u8, key: &[u8], value: Value) {
        let id = TreeId(tree);
        let run = value.run.as_ref().map(|bytes| file.create_run(bytes));
        let cell =
            NewCell { counted: value.counted, number: value.number, payload: &value.payload, run };
        let place = served(file, disk, |file| file.seek(id, key));
        let old = file.cell_at(&place).map(|cell| cell.run);
        file.put_at(place, key, &cell);
        let before = self.trees[usize::from(tree)].insert(key.to_vec(), value);
        assert_eq!(old.is_some(), before.is_some());
        if let Some(run) = old.flatten() {
            file.free_run(run);
        }
    }

    pub fn remove(&mut self, file: &mut PageFile, disk: &Disk, tree: u8, key: &[u8]) {
        let id = TreeId(tree);
        let cell = served(file, disk, |file| Ok(file.get(id, key)?.map(|cell| cell.run)));
        let removed = served(file, disk, |file| file.remove(id, key));
        let before = self.trees[usize::from(tree)].remove(key);
        assert_eq!(removed, before.is_some());
        if let Some(run) = cell.flatten() {
            file.free_run(run);
        }
    }

    pub fn drop_front(
        &mut self,
        file: &mut PageFile,
        disk: &Disk,
        tree: u8,
        end: &[u8],
        leaves_max: u32,
    ) {
        let id = TreeId(tree);
        let range = KeyRange { start: &[], end: Some(end) };
        let mut runs = Vec::new();
        served(file, disk, |file| {
            runs.clear();
            file.walk(id, range, Direction::Ascending, &mut |_| false, &mut |cell| {
                runs.extend(cell.run);
                ControlFlow::Continue(())
            })
        });
        while !served(file, disk, |file| file.drop_front(id, end, leaves_max)) {}
        for run in runs {
            file.free_run(run);
        }
        let map = &mut self.trees[usize::from(tree)];
        *map = map.split_off(end);
    }

    /// One random change.
    pub fn change(&mut self, prng: &mut Prng, load: &Load, file: &mut PageFile, disk: &Disk) {
        self.next += 1;
        let tree = u8::try_from(prng.below(u64::from(TREES))).unwrap();
        let appends = tree == 2;
        let key = if appends {
            [&self.next.to_be_bytes()[..], &[0; 4]].concat()
        } else {
            random_key(prng, load)
        };
        let random = prng.below(10);
        if random < load.puts_in_ten {
            let same_size =
                self.trees[usize::from(tree)].get(&key).map(|value| value.payload.len());
            let size = match same_size {
                Some(size) if prng.one_in(2) => u64::try_from(size).unwrap(),
                _ => {
                    let max = if prng.one_in(8) { load.payload_max } else { load.payload_max / 8 };
                    prng.below(max.min(3900 - key.len() as u64) + 1)
                }
            };
            let run = (prng.one_in(6) && load.run_max > 0).then(|| {
                let size = prng.below(load.run_max);
                bytes(prng, size)
            });
            let value = Value {
                counted: prng.one_in(2),
                number: if prng.one_in(4) { prng.below(self.next) } else { self.next },
                payload: bytes(prng, size),
                run,
            };
            self.put(file, disk, tree, &key, value);
        } else if random == 9 && prng.one_in(200) {
            let map = &self.trees[usize::from(tree)];
            let at = usize::try_from(prng.below(map.len() as u64 + 1)).unwrap();
            let end = map.keys().nth(at).cloned().unwrap_or(key);
            let leaves_max = 1 + u32::try_from(prng.below(20)).unwrap();
            self.drop_front(file, disk, tree, &end, leaves_max);
        } else {
            let map = &self.trees[usize::from(tree)];
            let near = map.range(key.clone()..).next().map(|(key, _)| key.clone());
            self.remove(file, disk, tree, &near.unwrap_or(key));
        }
    }

    pub fn summary(&self, tree: u8) -> Summary {
        let map = &self.trees[usize::from(tree)];
        Summary {
            count: map.values().filter(|value| value.counted).count() as u64,
            number_max: map.values().map(|value| value.number).max().unwrap_or(0),
        }
    }

    /// Compares everything.
    pub fn compare(&self, file: &mut PageFile, disk: &Disk) {
        for tree in 0..TREES {
            let id = TreeId(tree);
            let map = &self.trees[usize::from(tree)];
            assert_eq!(file.summary(id), self.summary(tree));
            let mut last: Option<Vec<u8>> = None;
            let mut seen = 0;
            loop {
                let start = last.clone().map_or(Vec::new(), |mut key| {
                    key.push(0);
                    key
                });
                let range = KeyRange { start: &start, end: None };
                let mut runs = Vec::new();
                let mut ahead = map.range(start.clone()..);
                let mut newest = last.clone();
                let outcome =
                    file.walk(id, range, Direction::Ascending, &mut |_| false, &mut |cell| {
                        let (key, value) = ahead.next().expect("no cell too many");
                        assert_eq!(cell.key, key);
                        assert_eq!(cell.counted, value.counted);
                        assert_eq!(cell.number, value.number);
                        assert_eq!(cell.payload, value.payload);
                        assert_eq!(cell.run.is_some(), value.run.is_some());
                        runs.extend(cell.run.map(|run| (run, key.clone())));
                        newest = Some(key.clone());
                        seen += 1;
                        ControlFlow::Continue(())
                    });
                last = newest;
                for (run, key) in runs {
                    let found = served(file, disk, |file| file.run(&run).map(<[u8]>::to_vec));
                    assert_eq!(Some(&found), map[&key].run.as_ref());
                }
                match outcome {
                    Ok(()) => break,
                    Err(miss) => {
                        file.install(miss, disk.read(miss.offset(), miss.size()))
                            .expect("verifies");
                    }
                }
            }
            file.evict();
            assert_eq!(seen, map.len(), "every cell is there");
        }
    }

    /// Compares random ranges: counts, walks in both directions with an early end, single keys.
    pub fn probe(&self, prng: &mut Prng, load: &Load, file: &mut PageFile, disk: &Disk) {
        let tree = u8::try_from(prng.below(u64::from(TREES))).unwrap();
        let (id, map) = (TreeId(tree), &self.trees[usize::from(tree)]);
        let (start, end) = (random_key(prng, load), random_key(prng, load));
        let end = (!prng.one_in(5)).then_some(end);
        let range = KeyRange { start: &start, end: end.as_deref() };
        let inside =
            |key: &[u8]| key >= &start[..] && end.as_ref().is_none_or(|end| key < &end[..]);
        let cells: Vec<_> = map.iter().filter(|(key, _)| inside(key)).collect();
        let counted = cells.iter().filter(|(_, value)| value.counted).count() as u64;
        assert_eq!(served(file, disk, |file| file.count(id, range)), counted);
        let get =
            served(file, disk, |file| Ok(file.get(id, &start)?.map(|cell| cell.payload.to_vec())));
        assert_eq!(get, map.get(&start).map(|value| value.payload.clone()));
        let limit = 1 + usize::try_from(prng.below(50)).unwrap();
        for direction in [Direction::Ascending, Direction::Descending] {
            let mut keys = Vec::new();
            let number_min = prng.below(self.next + 1);
            served(file, disk, |file| {
                keys.clear();
                let mut skip = |summary: Summary| summary.number_max < number_min;
                file.walk(id, range, direction, &mut skip, &mut |cell| {
                    if cell.number >= number_min {
                        keys.push(cell.key.to_vec());
                    }
                    if keys.len() == limit {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            });
            let mut wanted: Vec<_> = cells
                .iter()
                .filter(|(_, value)| value.number >= number_min)
                .map(|(key, _)| (*key).clone())
                .collect();
            if direction == Direction::Descending {
                wanted.reverse();
            }
            wanted.truncate(limit);
            assert_eq!(keys, wanted);
        }
    }
}

/// A checkpoint that is held, what it must hold, and a walk over it that goes on from time to time.
pub struct Reader {
    pub root: RootNo,
    walk: HeldWalk,
    left: Vec<(u8, Vec<u8>, Value)>,
}

impl Reader {
    /// Takes hold of the newest checkpoint, which is `model`.
    pub fn new(file: &mut PageFile, model: &Model) -> Self {
        let root = file.hold().expect("a checkpoint is published");
        let walk = HeldWalk::new(file, root).expect("it is held");
        let trees = (0..TREES).rev().zip(model.trees.iter().rev());
        let left = trees.flat_map(|(tree, map)| {
            map.iter().rev().map(move |(key, value)| (tree, key.clone(), value.clone()))
        });
        Self { root, walk, left: left.collect() }
    }

    fn fetch(&mut self, disk: &Disk, miss: Miss) {
        self.walk.install(miss, disk.read(miss.offset(), miss.size())).expect("it verifies");
    }

    /// Compares up to `cells` more cells; true: that was the last one.
    pub fn go_on(&mut self, prng: &mut Prng, file: &PageFile, disk: &Disk, cells: u64) -> bool {
        for _ in 0..cells {
            if prng.one_in(10) {
                let mut ahead = Vec::new();
                self.walk.ahead(file, 4, &mut ahead);
                for miss in ahead {
                    self.fetch(disk, miss);
                }
            }
            let found = loop {
                match self.walk.peek(file) {
                    Ok(cell) => break cell,
                    Err(miss) => self.fetch(disk, miss),
                }
            };
            let Some((tree, cell)) = found else {
                assert!(self.left.is_empty(), "{} cells are missing", self.left.len());
                return true;
            };
            let (wanted, key, value) = self.left.pop().expect("no cell too many");
            assert_eq!((tree, cell.key), (TreeId(wanted), &key[..]));
            assert_eq!((cell.counted, cell.number), (value.counted, value.number));
            assert_eq!(cell.payload, value.payload);
            let run = cell.run;
            assert_eq!(run.is_some(), value.run.is_some());
            if let Some(run) = run {
                let bytes = loop {
                    match self.walk.run(file, &run) {
                        Ok(bytes) => break bytes,
                        Err(miss) => self.fetch(disk, miss),
                    }
                };
                assert_eq!(Some(bytes), value.run.as_deref());
            }
            self.walk.advance();
        }
        false
    }
}
