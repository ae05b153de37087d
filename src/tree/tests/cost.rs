//! What operations cost, in nanoseconds. Not a test: `cargo test --release -p tree --test cost --
//! --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

mod support;

use base::Prng;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;
use support::options;
use tree::{Direction, KeyRange, META_SIZE, NewCell, PageFile, TreeId};

const CURRENT: TreeId = TreeId(0);
const EVENTS: TreeId = TreeId(1);

/// Time that this thread has spent on a core: other load on the machine counts less than by the
/// clock.
struct Begin(u128);

impl Begin {
    fn now() -> Self {
        Self(Self::spent())
    }

    fn spent() -> u128 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    fn nanoseconds(&self) -> u128 {
        Self::spent() - self.0
    }
}

fn measure(what: &str, count: u64, mut each: impl FnMut(u64)) {
    let begin = Begin::now();
    for number in 0..count {
        each(number);
    }
    println!("{what}: {} ns", begin.nanoseconds() / u128::from(count));
}

fn event_key(number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

#[test]
#[ignore = "a measurement"]
fn costs_of_operations() {
    for keys_count in [100_000_u64, 1_000_000] {
        println!("-- {keys_count} keys, 256-byte payloads");
        let mut file = PageFile::create(&options(8 << 30));
        let mut prng = Prng::new(1);
        let keys: Vec<Vec<u8>> = (0..keys_count)
            .map(|number| {
                let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
                format!("/registry/pods/{scattered:013}").into_bytes()
            })
            .collect();
        let payload = [7_u8; 256];
        let cell = |number| NewCell { counted: true, number, payload: &payload, run: None };
        let mut random = || usize::try_from(prng.below(keys_count)).unwrap();
        measure("insert, random", keys_count, |number| {
            file.put(CURRENT, &keys[usize::try_from(number).unwrap()], &cell(1)).unwrap();
        });
        measure("put on existing, random (seek, cell_at, put_at)", keys_count, |number| {
            let key = &keys[random()];
            let place = file.seek(CURRENT, key).unwrap();
            black_box(file.cell_at(&place).unwrap().payload[0]);
            file.put_at(place, key, &cell(number + 2));
        });
        measure("append", keys_count, |number| {
            file.put(EVENTS, &event_key(number), &cell(number)).unwrap();
        });
        measure("put on existing and append", keys_count, |number| {
            let key = &keys[random()];
            let place = file.seek(CURRENT, key).unwrap();
            file.put_at(place, key, &cell(keys_count + number));
            file.put(EVENTS, &event_key(keys_count + number), &cell(number)).unwrap();
        });
        measure("get, random, payload copied", keys_count, |_| {
            let mut out = [0; 256];
            out.copy_from_slice(file.get(CURRENT, &keys[random()]).unwrap().unwrap().payload);
            black_box(out);
        });
        let begin = Begin::now();
        let mut sum = 0;
        file.walk(CURRENT, KeyRange::ALL, Direction::Ascending, &mut |_| false, &mut |cell| {
            sum += u64::from(cell.payload[9]);
            ControlFlow::Continue(())
        })
        .unwrap();
        black_box(sum);
        println!("walk, per cell: {} ns", begin.nanoseconds() / u128::from(keys_count));
        measure("count of a range", keys_count / 10, |_| {
            let range = KeyRange { start: &keys[random()], end: Some(&keys[random()]) };
            black_box(file.count(CURRENT, range).unwrap());
        });

        let dirty = file.dirty_size() >> 20;
        let begin = Instant::now();
        file.checkpoint_begin(&[]);
        println!("checkpoint begin, {dirty} MiB dirty: {} us", begin.elapsed().as_micros());
        let begin = Instant::now();
        let mut writes = Vec::new();
        while let Some(write) = file.checkpoint_next() {
            if writes.is_empty() {
                println!("checkpoint, first next: {} us", begin.elapsed().as_micros());
            }
            writes.push(write);
        }
        let mut out = vec![0; 1 << 20];
        let (begin, mut bytes) = (Begin::now(), 0);
        for write in &writes {
            bytes += write.size;
            file.checkpoint_fill(write, &mut out[..write.size]);
        }
        let spent = begin.nanoseconds();
        println!(
            "checkpoint, fill: {} ns per page, {} writes of {} KiB on average",
            spent / u128::try_from(bytes / 8192).unwrap(),
            writes.len(),
            (bytes / writes.len()) >> 10
        );
        file.checkpoint_meta(&mut [0; META_SIZE]);
        file.checkpoint_published();
        measure(
            "put on existing, first ones after a checkpoint began",
            keys_count / 50,
            |number| {
                let key = &keys[random()];
                let place = file.seek(CURRENT, key).unwrap();
                file.put_at(place, key, &cell(2 * keys_count + number));
            },
        );
        let begin = Begin::now();
        while !file.drop_front(EVENTS, &event_key(keys_count), 1_000).unwrap() {}
        println!("drop_front, per cell: {:.1} ns", begin.nanoseconds() as f64 / keys_count as f64);
        file.checkpoint_begin(&[]);
        while let Some(write) = file.checkpoint_next() {
            file.checkpoint_fill(&write, &mut out[..write.size]);
        }
        file.checkpoint_meta(&mut [0; META_SIZE]);
        let (waiting, begin) = (file.waiting_size() >> 13, Instant::now());
        file.checkpoint_published();
        println!("published, {waiting} pages waited: {} us", begin.elapsed().as_micros());
    }
}
