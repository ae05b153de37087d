//! Random requests, and what the tests of this folder share.

#![allow(dead_code, clippy::unwrap_used)]

use base::{NodeId, Prng, RequestId};
use wire::{
    Call, Compact, Compare, CompareResult, CompareTarget, DeleteRange, HEADER_SIZE, Header, Hello,
    Kind, LeaseGrant, LeaseKeepAlive, LeaseList, LeaseRevoke, LeaseTimeToLive, MemberChange,
    MemberOperation, MoveLeader, Numbers, Op, Put, Range, Request, RequestEncoder, SortOrder,
    SortTarget, Txn, VerifyLimits, Watch, WatchRange, WatchRanges,
};

/// A seeded generator; the seed is printed and taken back from QUORATE_SEED.
pub fn prng(test: &str) -> Prng {
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("{test}: QUORATE_SEED={seed}");
    Prng::new(seed).fork(test)
}

/// `count` times the factor QUORATE_TEST_SCALE.
pub fn scaled(count: u64) -> u64 {
    let scale = std::env::var("QUORATE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok());
    count * scale.unwrap_or(1)
}

/// The bytes that random keys and values are slices of.
pub fn pool(prng: &mut Prng) -> Vec<u8> {
    let mut pool = vec![0; 4_096];
    prng.fill(&mut pool);
    pool
}

pub fn below(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(u64::try_from(bound).unwrap())).unwrap()
}

/// Mostly short, sometimes empty or long.
pub fn slice<'p>(prng: &mut Prng, pool: &'p [u8]) -> &'p [u8] {
    let size_max = if prng.one_in(8) { 1_500 } else { 24 };
    let size = below(prng, size_max);
    let start = below(prng, pool.len() - size);
    &pool[start..start + size]
}

/// Often a number at an edge.
pub fn number(prng: &mut Prng) -> i64 {
    match prng.below(6) {
        0 => 0,
        1 => 1,
        2 => -1,
        3 => i64::MAX,
        4 => i64::MIN,
        _ => prng.next_u64().cast_signed(),
    }
}

pub fn flag(prng: &mut Prng) -> bool {
    prng.one_in(2)
}

pub fn small(prng: &mut Prng, bound: u64) -> u8 {
    u8::try_from(prng.below(bound)).unwrap()
}

pub fn put<'p>(prng: &mut Prng, pool: &'p [u8]) -> Put<'p> {
    Put {
        key: slice(prng, pool),
        value: slice(prng, pool),
        lease: number(prng),
        prev_kv: flag(prng),
        ignore_value: flag(prng),
        ignore_lease: flag(prng),
        ttl_ms: if flag(prng) { 0 } else { prng.next_u64() },
    }
}

pub fn range<'p>(prng: &mut Prng, pool: &'p [u8]) -> Range<'p> {
    let range = Range {
        key: slice(prng, pool),
        range_end: slice(prng, pool),
        limit: number(prng),
        revision: number(prng),
        sort_order: SortOrder::try_from(small(prng, 3)).unwrap(),
        sort_target: SortTarget::try_from(small(prng, 5)).unwrap(),
        serializable: flag(prng),
        keys_only: flag(prng),
        count_only: flag(prng),
        ..Range::default()
    };
    if flag(prng) {
        return range;
    }
    Range {
        min_mod_revision: number(prng),
        max_mod_revision: number(prng),
        min_create_revision: number(prng),
        max_create_revision: number(prng),
        ..range
    }
}

pub fn delete_range<'p>(prng: &mut Prng, pool: &'p [u8]) -> DeleteRange<'p> {
    DeleteRange { key: slice(prng, pool), range_end: slice(prng, pool), prev_kv: flag(prng) }
}

pub fn compare<'p>(prng: &mut Prng, pool: &'p [u8]) -> Compare<'p> {
    Compare {
        key: slice(prng, pool),
        range_end: slice(prng, pool),
        target: CompareTarget::try_from(small(prng, 5)).unwrap(),
        result: CompareResult::try_from(small(prng, 4)).unwrap(),
        number: number(prng),
        value: slice(prng, pool),
    }
}

pub fn txn<'p>(prng: &mut Prng, pool: &'p [u8], depth: usize) -> Txn<'p> {
    let mut txn = Txn::new();
    for _ in 0..below(prng, 4) {
        txn = txn.when(compare(prng, pool));
    }
    for branch in 0..2 {
        for _ in 0..below(prng, 4) {
            let op = match prng.below(if depth > 0 { 4 } else { 3 }) {
                0 => Op::Put(put(prng, pool)),
                1 => Op::Range(range(prng, pool)),
                2 => Op::DeleteRange(delete_range(prng, pool)),
                _ => Op::Txn(Box::new(self::txn(prng, pool, depth - 1))),
            };
            txn = if branch == 0 { txn.then(op) } else { txn.otherwise(op) };
        }
    }
    txn
}

/// A request of any kind; `txn` is what it is if it is a transaction.
pub fn call<'p>(prng: &mut Prng, pool: &'p [u8], txn: &'p Txn<'p>) -> Call<'p> {
    match prng.below(22) {
        0 => Call::Hello(Hello {
            version_min: u16::try_from(prng.below(1 << 16)).unwrap(),
            version_max: u16::try_from(prng.below(1 << 16)).unwrap(),
            cluster: prng.next_u64(),
            client_name: ["", "bench", "näher"][below(prng, 3)],
        }),
        1 => Call::Ping,
        2 => Call::Cancel,
        3 => Call::Status,
        4 => Call::Put(put(prng, pool)),
        5 => Call::Range(range(prng, pool)),
        6 => Call::DeleteRange(delete_range(prng, pool)),
        7 => Call::Txn(txn),
        8 => Call::MemberList,
        9 => Call::MemberChange(MemberChange {
            operation: MemberOperation::try_from(small(prng, 6)).unwrap(),
            member: NodeId::new(prng.next_u64()),
            name: ["", "a", "node-2"][below(prng, 3)],
            peer_address: ["", "b:2380", "[::1]:2380"][below(prng, 3)],
            force: flag(prng),
        }),
        11 => Call::Register,
        12 => Call::Watch(Watch {
            ranges: WatchRanges::Given(watch_ranges(prng)),
            start_revision: number(prng),
            start_sub: u32::from(small(prng, 9)),
            prev_kv: flag(prng),
            keys_only: flag(prng),
            no_put: flag(prng),
            no_delete: flag(prng),
            progress_interval_ms: u32::from(small(prng, 200)),
        }),
        13 => Call::WatchProgress,
        14 => Call::LeaseGrant(LeaseGrant { lease: number(prng), ttl_ms: prng.next_u64() }),
        15 => Call::LeaseRevoke(LeaseRevoke { lease: number(prng) }),
        16 => Call::LeaseKeepAlive(LeaseKeepAlive {
            leases: Numbers::Given([&[], &[7_i64] as &[i64], &[-1, i64::MAX, 3]][below(prng, 3)]),
        }),
        17 => Call::LeaseTimeToLive(LeaseTimeToLive {
            lease: number(prng),
            keys: flag(prng),
            after_key: slice(prng, pool),
            limit: u32::from(small(prng, 200)),
        }),
        18 => Call::LeaseList(LeaseList {
            after_lease: number(prng),
            limit: u32::from(small(prng, 200)),
        }),
        19 => Call::Limits,
        20 => Call::Snapshot,
        10 => Call::MoveLeader(MoveLeader { target: NodeId::new(prng.next_u64()) }),
        _ => Call::Compact(Compact { revision: number(prng), physical: flag(prng) }),
    }
}

fn watch_ranges(prng: &mut Prng) -> &'static [WatchRange<'static>] {
    const RANGES: &[WatchRange<'static>] = &[
        WatchRange { key: b"a", range_end: b"" },
        WatchRange { key: b"b", range_end: b"bz" },
        WatchRange { key: b"\0", range_end: b"\0" },
    ];
    &RANGES[..below(prng, 4)]
}

/// An encoder as after a handshake.
pub fn encoder() -> RequestEncoder {
    let mut encoder = RequestEncoder::new();
    encoder.agree(1, 2 << 20);
    encoder
}

/// The frame of a request.
pub fn frame(call: &Call<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encoder().encode(&mut out, RequestId::new(7), 1_000, call).unwrap();
    out
}

/// Header and body of a single whole frame.
pub fn open(frame: &[u8]) -> (Header, &[u8]) {
    let (head, body) = frame.split_first_chunk::<HEADER_SIZE>().unwrap();
    let header = Header::decode(head).unwrap();
    Header::check(head, body).unwrap();
    assert_eq!(usize::try_from(header.body_size).unwrap(), body.len());
    (header, body)
}

pub fn verify(kind: Kind, body: &[u8]) -> Result<Request<'_>, wire::DecodeError> {
    Request::verify(kind, body, &VerifyLimits::REQUEST)
}

/// What was read is what was written.
pub fn assert_same(request: &Request<'_>, call: &Call<'_>) {
    match (request, call) {
        (Request::Hello(read), Call::Hello(written)) => assert_eq!(read, written),
        (Request::Ping, Call::Ping)
        | (Request::Cancel, Call::Cancel)
        | (Request::Status, Call::Status)
        | (Request::Limits, Call::Limits)
        | (Request::Snapshot, Call::Snapshot)
        | (Request::Register, Call::Register)
        | (Request::WatchProgress, Call::WatchProgress)
        | (Request::MemberList, Call::MemberList) => {}
        (Request::MemberChange(read), Call::MemberChange(written)) => assert_eq!(read, written),
        (Request::MoveLeader(read), Call::MoveLeader(written)) => assert_eq!(read, written),
        (Request::Alarm(read), Call::Alarm(written)) => assert_eq!(read, written),
        (Request::Put(read), Call::Put(written)) => assert_eq!(read, written),
        (Request::Range(read), Call::Range(written)) => assert_eq!(read, written),
        (Request::DeleteRange(read), Call::DeleteRange(written)) => assert_eq!(read, written),
        (Request::Txn(read), Call::Txn(written)) => assert_eq!(&Txn::from(*read), *written),
        (Request::Compact(read), Call::Compact(written)) => assert_eq!(read, written),
        (Request::Watch(read), Call::Watch(written)) => assert_eq!(read, written),
        (Request::LeaseGrant(read), Call::LeaseGrant(written)) => assert_eq!(read, written),
        (Request::LeaseRevoke(read), Call::LeaseRevoke(written)) => assert_eq!(read, written),
        (Request::LeaseKeepAlive(read), Call::LeaseKeepAlive(written)) => assert_eq!(read, written),
        (Request::LeaseTimeToLive(read), Call::LeaseTimeToLive(written)) => {
            assert_eq!(read, written);
        }
        (Request::LeaseList(read), Call::LeaseList(written)) => assert_eq!(read, written),
        _ => panic!("{call:?} was read as {request:?}"),
    }
}

/// Changes some bytes, or cuts the end off, or repeats a part.
pub fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>) {
    for _ in 0..=prng.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = below(prng, bytes.len());
        match prng.below(10) {
            0 => bytes.truncate(at),
            1 => {
                let copy = bytes[at..].to_vec();
                bytes.extend_from_slice(&copy);
            }
            2..=4 => bytes[at] = small(prng, 256),
            5 => bytes[at] ^= 1 << prng.below(8),
            // Small numbers are what offsets and sizes consist of.
            _ => bytes[at] = small(prng, 64) & !3,
        }
    }
}
