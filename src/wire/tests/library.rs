//! The hand-written reader and writer against the FlatBuffers library: what ours write, the library
//! reads with the same content; what the library writes, ours read; and ours accept nothing that
//! the library's verifier does not.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use base::Prng;
use flatbuffers::{FlatBufferBuilder, VerifierOptions, WIPOffset};
use support::*;
use wire::{Call, Compare, DeleteRange, Kind, Op, Put, Range, Request, Txn};

/// Ours bound sharing and depth on their own; here only memory safety counts.
fn generous() -> VerifierOptions {
    VerifierOptions { ignore_missing_null_terminator: true, max_depth: 300, ..Default::default() }
}

fn root<'b, T>(body: &'b [u8]) -> Result<T::Inner, flatbuffers::InvalidFlatbuffer>
where
    T: flatbuffers::Follow<'b> + flatbuffers::Verifiable + 'b,
{
    flatbuffers::root_with_opts::<T>(&generous(), body)
}

// ---- reading by the library

fn bytes(vector: Option<flatbuffers::Vector<'_, u8>>) -> Vec<u8> {
    vector.map(|vector| vector.bytes().to_vec()).unwrap_or_default()
}

fn same_put(table: schema::PutRequest<'_>, put: &Put<'_>) {
    assert_eq!(table.key().bytes(), put.key);
    assert_eq!(bytes(table.value()), put.value);
    assert_eq!(table.lease(), put.lease);
    assert_eq!(
        (table.prev_kv(), table.ignore_value(), table.ignore_lease()),
        (put.prev_kv, put.ignore_value, put.ignore_lease)
    );
    assert_eq!(table.ttl_ms(), put.ttl_ms);
}

fn same_watch(table: schema::WatchRequest<'_>, watch: &wire::Watch<'_>) {
    let mut data = table.data().bytes();
    assert_eq!(table.ranges().len(), watch.ranges.len());
    for (sizes, range) in table.ranges().iter().zip(watch.ranges.iter()) {
        for (size, bytes) in
            [(sizes.key_size(), range.key), (sizes.range_end_size(), range.range_end)]
        {
            let (taken, rest) = data.split_at(usize::try_from(size).unwrap());
            assert_eq!(taken, bytes);
            data = rest;
        }
    }
    assert!(data.is_empty());
    assert_eq!(
        (table.start_revision(), table.start_sub(), table.progress_interval_ms()),
        (watch.start_revision, watch.start_sub, watch.progress_interval_ms)
    );
    assert_eq!(
        [table.prev_kv(), table.keys_only(), table.no_put(), table.no_delete()],
        [watch.prev_kv, watch.keys_only, watch.no_put, watch.no_delete]
    );
}

fn same_range(table: schema::RangeRequest<'_>, range: &Range<'_>) {
    assert_eq!(table.key().bytes(), range.key);
    assert_eq!(bytes(table.range_end()), range.range_end);
    assert_eq!((table.limit(), table.revision()), (range.limit, range.revision));
    assert_eq!(table.sort_order().0, range.sort_order.number());
    assert_eq!(table.sort_target().0, range.sort_target.number());
    assert_eq!(
        (table.serializable(), table.keys_only(), table.count_only()),
        (range.serializable, range.keys_only, range.count_only)
    );
    assert_eq!(
        [
            table.min_mod_revision(),
            table.max_mod_revision(),
            table.min_create_revision(),
            table.max_create_revision()
        ],
        [
            range.min_mod_revision,
            range.max_mod_revision,
            range.min_create_revision,
            range.max_create_revision
        ]
    );
}

fn same_delete_range(table: schema::DeleteRangeRequest<'_>, delete: &DeleteRange<'_>) {
    assert_eq!(table.key().bytes(), delete.key);
    assert_eq!(bytes(table.range_end()), delete.range_end);
    assert_eq!(table.prev_kv(), delete.prev_kv);
}

fn same_compare(table: schema::Compare<'_>, compare: &Compare<'_>) {
    assert_eq!(table.key().bytes(), compare.key);
    assert_eq!(bytes(table.range_end()), compare.range_end);
    assert_eq!(table.target().0, compare.target.number());
    assert_eq!(table.result().0, compare.result.number());
    assert_eq!(table.number(), compare.number);
    assert_eq!(bytes(table.value()), compare.value);
}

fn same_txn(table: schema::TxnRequest<'_>, txn: &Txn<'_>) {
    let count = table.compares().map_or(0, |list| list.len());
    assert_eq!(count, txn.compares.len());
    for (table, compare) in table.compares().into_iter().flatten().zip(&txn.compares) {
        same_compare(table, compare);
    }
    for (list, ops) in [(table.success(), &txn.success), (table.failure(), &txn.failure)] {
        assert_eq!(list.map_or(0, |list| list.len()), ops.len());
        for (table, op) in list.into_iter().flatten().zip(ops) {
            match op {
                Op::Put(put) => same_put(table.put().unwrap(), put),
                Op::Range(range) => same_range(table.range().unwrap(), range),
                Op::DeleteRange(delete) => same_delete_range(table.delete_range().unwrap(), delete),
                Op::Txn(inner) => same_txn(table.txn().unwrap(), inner),
            }
        }
    }
}

/// Fails if the library does not accept the body or reads anything else in it.
fn library_agrees(body: &[u8], request: &Request<'_>) {
    match request {
        Request::Put(put) => same_put(root::<schema::PutRequest<'_>>(body).unwrap(), put),
        Request::Range(range) => same_range(root::<schema::RangeRequest<'_>>(body).unwrap(), range),
        Request::DeleteRange(delete) => {
            same_delete_range(root::<schema::DeleteRangeRequest<'_>>(body).unwrap(), delete);
        }
        Request::Txn(view) => {
            same_txn(root::<schema::TxnRequest<'_>>(body).unwrap(), &Txn::from(*view));
        }
        Request::Compact(compact) => {
            let table = root::<schema::CompactRequest<'_>>(body).unwrap();
            assert_eq!((table.revision(), table.physical()), (compact.revision, compact.physical));
        }
        Request::Hello(hello) => {
            let table = root::<schema::Hello<'_>>(body).unwrap();
            assert_eq!(table.client_name().unwrap_or_default(), hello.client_name);
            assert_eq!(table.cluster_id(), hello.cluster);
            assert_eq!(
                (table.version_min(), table.version_max()),
                (hello.version_min, hello.version_max)
            );
        }
        Request::MemberChange(change) => {
            let table = root::<schema::MemberChangeRequest<'_>>(body).unwrap();
            assert_eq!(table.operation().0, change.operation.number());
            assert_eq!((table.member_id(), table.force()), (change.member.get(), change.force));
            assert_eq!(table.name().unwrap_or_default(), change.name);
            assert_eq!(table.peer_address().unwrap_or_default(), change.peer_address);
        }
        Request::MoveLeader(request) => {
            let table = root::<schema::MoveLeaderRequest<'_>>(body).unwrap();
            assert_eq!(table.target(), request.target.get());
        }
        Request::Alarm(change) => {
            let table = root::<schema::AlarmRequest<'_>>(body).unwrap();
            assert_eq!(table.action().0, u8::from(change.disarm));
            assert_eq!(
                (table.kind().0, table.member_id()),
                (change.kind.number(), change.member.get())
            );
        }
        Request::Watch(watch) => {
            same_watch(root::<schema::WatchRequest<'_>>(body).unwrap(), watch);
        }
        Request::LeaseGrant(grant) => {
            let table = root::<schema::LeaseGrantRequest<'_>>(body).unwrap();
            assert_eq!((table.lease(), table.ttl_ms()), (grant.lease, grant.ttl_ms));
        }
        Request::LeaseRevoke(revoke) => {
            let table = root::<schema::LeaseRevokeRequest<'_>>(body).unwrap();
            assert_eq!(table.lease(), revoke.lease);
        }
        Request::LeaseKeepAlive(keep) => {
            let table = root::<schema::LeaseKeepAliveRequest<'_>>(body).unwrap();
            assert!(table.leases().iter().eq(keep.leases.iter()));
        }
        Request::LeaseTimeToLive(ask) => {
            let table = root::<schema::LeaseTimeToLiveRequest<'_>>(body).unwrap();
            assert_eq!((table.lease(), table.keys()), (ask.lease, ask.keys));
            assert_eq!(
                (bytes(table.after_key()), table.limit()),
                (ask.after_key.into(), ask.limit)
            );
        }
        Request::LeaseList(list) => {
            let table = root::<schema::LeaseListRequest<'_>>(body).unwrap();
            assert_eq!((table.after_lease(), table.limit()), (list.after_lease, list.limit));
        }
        Request::Ping
        | Request::WatchProgress
        | Request::Cancel
        | Request::Status
        | Request::Limits
        | Request::Snapshot
        | Request::Register
        | Request::MemberList => {
            assert!(body.is_empty());
        }
    }
}

#[test]
fn the_library_reads_what_the_encoder_writes() {
    let mut prng = prng("encoder against library");
    let pool = pool(&mut prng);
    for _ in 0..scaled(5_000) {
        let txn = txn(&mut prng, &pool, 2);
        let call = call(&mut prng, &pool, &txn);
        let bytes = frame(&call);
        let (header, body) = open(&bytes);
        library_agrees(body, &verify(header.kind, body).unwrap());
    }
}

#[test]
fn whatever_the_reader_accepts_the_library_accepts_with_the_same_content() {
    let mut prng = prng("reader against library");
    let pool = pool(&mut prng);
    let mut accepted = 0_u64;
    for _ in 0..scaled(60_000) {
        let txn = txn(&mut prng, &pool, 1);
        let call = call(&mut prng, &pool, &txn);
        let bytes = frame(&call);
        let (header, body) = open(&bytes);
        let mut body = body.to_vec();
        mutate(&mut prng, &mut body);
        if let Ok(request) = verify(header.kind, &body) {
            library_agrees(&body, &request);
            accepted += 1;
        }
    }
    assert!(accepted > 100, "only {accepted} mutations were accepted: the test tests nothing");
}

// ---- writing by the library

fn write_put<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    put: &Put<'_>,
) -> WIPOffset<schema::PutRequest<'b>> {
    let key = builder.create_vector(put.key);
    let value = (!put.value.is_empty()).then(|| builder.create_vector(put.value));
    schema::PutRequest::create(
        builder,
        &schema::PutRequestArgs {
            key: Some(key),
            value,
            lease: put.lease,
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
            ttl_ms: put.ttl_ms,
        },
    )
}

fn write_range<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    range: &Range<'_>,
) -> WIPOffset<schema::RangeRequest<'b>> {
    let range_end = Some(builder.create_vector(range.range_end));
    let key = Some(builder.create_vector(range.key));
    schema::RangeRequest::create(
        builder,
        &schema::RangeRequestArgs {
            key,
            range_end,
            limit: range.limit,
            revision: range.revision,
            sort_order: schema::SortOrder(range.sort_order.number()),
            sort_target: schema::SortTarget(range.sort_target.number()),
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: range.min_mod_revision,
            max_mod_revision: range.max_mod_revision,
            min_create_revision: range.min_create_revision,
            max_create_revision: range.max_create_revision,
        },
    )
}

fn write_delete_range<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    delete: &DeleteRange<'_>,
) -> WIPOffset<schema::DeleteRangeRequest<'b>> {
    let key = Some(builder.create_vector(delete.key));
    let range_end = Some(builder.create_vector(delete.range_end));
    let prev_kv = delete.prev_kv;
    let args = schema::DeleteRangeRequestArgs { key, range_end, prev_kv };
    schema::DeleteRangeRequest::create(builder, &args)
}

fn write_compare<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    compare: &Compare<'_>,
) -> WIPOffset<schema::Compare<'b>> {
    let key = Some(builder.create_vector(compare.key));
    let range_end = Some(builder.create_vector(compare.range_end));
    let value = Some(builder.create_vector(compare.value));
    schema::Compare::create(
        builder,
        &schema::CompareArgs {
            key,
            range_end,
            target: schema::CompareTarget(compare.target.number()),
            result: schema::CompareResult(compare.result.number()),
            number: compare.number,
            value,
        },
    )
}

fn write_txn<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    txn: &Txn<'_>,
) -> WIPOffset<schema::TxnRequest<'b>> {
    let compares: Vec<_> =
        txn.compares.iter().map(|compare| write_compare(builder, compare)).collect();
    let compares = Some(builder.create_vector(&compares));
    let branches = [&txn.success, &txn.failure].map(|ops| {
        let ops: Vec<_> = ops
            .iter()
            .map(|op| {
                let mut args = schema::OperationArgs::default();
                match op {
                    Op::Put(put) => args.put = Some(write_put(builder, put)),
                    Op::Range(range) => args.range = Some(write_range(builder, range)),
                    Op::DeleteRange(delete) => {
                        args.delete_range = Some(write_delete_range(builder, delete));
                    }
                    Op::Txn(inner) => args.txn = Some(write_txn(builder, inner)),
                }
                schema::Operation::create(builder, &args)
            })
            .collect();
        Some(builder.create_vector(&ops))
    });
    let [success, failure] = branches;
    schema::TxnRequest::create(builder, &schema::TxnRequestArgs { compares, success, failure })
}

fn written_by_library(prng: &mut Prng, builder: &mut FlatBufferBuilder<'_>, call: &Call<'_>) {
    builder.force_defaults(flag(prng));
    match call {
        Call::Put(put) => {
            let table = write_put(builder, put);
            builder.finish_minimal(table);
        }
        Call::Range(range) => {
            let table = write_range(builder, range);
            builder.finish_minimal(table);
        }
        Call::DeleteRange(delete) => {
            let table = write_delete_range(builder, delete);
            builder.finish_minimal(table);
        }
        Call::Txn(txn) => {
            let table = write_txn(builder, txn);
            builder.finish_minimal(table);
        }
        _ => unreachable!("the caller leaves the others out"),
    }
}

#[test]
fn the_reader_reads_what_the_library_writes() {
    let mut prng = prng("library against reader");
    let pool = pool(&mut prng);
    for _ in 0..scaled(5_000) {
        let txn = txn(&mut prng, &pool, 2);
        let call = call(&mut prng, &pool, &txn);
        if !matches!(call.kind(), Kind::Put | Kind::Range | Kind::DeleteRange | Kind::Txn) {
            continue;
        }
        let mut builder = FlatBufferBuilder::new();
        written_by_library(&mut prng, &mut builder, &call);
        let mut body = builder.finished_data().to_vec();
        // As in a frame.
        body.resize(body.len().next_multiple_of(8), 0);
        assert_same(&verify(call.kind(), &body).unwrap(), &call);
    }
}
