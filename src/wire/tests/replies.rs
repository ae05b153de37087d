//! Replies: what is written is what is read, by ours and by the FlatBuffers library.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;

use base::limits::{KEY_SIZE_MAX, REPLY_PIECE_SIZE, VALUE_SIZE_MAX};
use base::{Alarm, AlarmKind, NodeId, Prng, RequestId};
use support::*;
use wire::{
    AlarmReply, Alarms, Cause, ChangeKind, DecodeError, Effect, EncodeError, Flags, Header,
    HelloReply, KeyValue, Keys, Kind, LeaderHint, LeaseGrantReply, LeaseKeepAliveReply,
    LeaseListReply, LeaseRevokeReply, LeaseTimeToLiveReply, Limit, LimitUnit, Limits,
    MemberChangeReply, MemberListReply, MoveLeaderReply, Numbers, OpReply, PutReply,
    REPLY_BODY_SIZE_MAX, RaftRole, RangeSummary, Refused, Reply, ReplyWriter, Status, StatusReply,
    Texts, TxnReplyView, TxnWriter, WatchChange, WatchReply, WatchStep,
};

const ID: RequestId = RequestId::new(99);

fn member<'p>(prng: &mut Prng, pool: &'p [u8]) -> KeyValue<'p> {
    KeyValue {
        key: slice(prng, pool),
        value: slice(prng, pool),
        create_revision: number(prng),
        mod_revision: number(prng),
        version: number(prng),
        lease: number(prng),
    }
}

fn members<'p>(prng: &mut Prng, pool: &'p [u8]) -> Vec<KeyValue<'p>> {
    (0..prng.below(4)).map(|_| member(prng, pool)).collect()
}

fn summary(prng: &mut Prng) -> RangeSummary {
    RangeSummary { revision: number(prng), count: number(prng), more: flag(prng) }
}

/// An owned reply to one operation, to write and to compare with.
#[derive(Debug, PartialEq)]
enum Op<'p> {
    Put(i64, Option<KeyValue<'p>>),
    Range(RangeSummary, Vec<KeyValue<'p>>),
    DeleteRange(i64, i64, Vec<KeyValue<'p>>),
    Txn(bool, Vec<Op<'p>>),
}

fn ops<'p>(prng: &mut Prng, pool: &'p [u8], depth: usize) -> Vec<Op<'p>> {
    (0..prng.below(4))
        .map(|_| match prng.below(if depth > 0 { 4 } else { 3 }) {
            0 => Op::Put(number(prng), flag(prng).then(|| member(prng, pool))),
            1 => Op::Range(summary(prng), members(prng, pool)),
            2 => Op::DeleteRange(number(prng), number(prng), members(prng, pool)),
            _ => Op::Txn(flag(prng), ops(prng, pool, depth - 1)),
        })
        .collect()
}

fn write_ops(writer: &mut TxnWriter<'_>, ops: &[Op<'_>]) {
    for op in ops {
        match op {
            Op::Put(revision, previous) => writer.put(*revision, *previous),
            Op::Range(summary, kvs) => writer.range(*summary, kvs.iter().copied()),
            Op::DeleteRange(revision, deleted, previous) => {
                writer.delete_range(*revision, *deleted, previous.iter().copied());
            }
            Op::Txn(succeeded, inner) => {
                writer.txn(*succeeded, inner.len());
                write_ops(writer, inner);
            }
        }
    }
}

fn read_ops<'a>(view: &TxnReplyView<'a>) -> Vec<Op<'a>> {
    view.responses()
        .map(|response| match response {
            OpReply::Put(reply) => Op::Put(reply.revision, reply.previous),
            OpReply::Range(reply) => {
                let (revision, count, more) = (reply.revision, reply.count, reply.more);
                Op::Range(RangeSummary { revision, count, more }, reply.kvs.collect())
            }
            OpReply::DeleteRange(reply) => {
                Op::DeleteRange(reply.revision, reply.deleted, reply.previous.collect())
            }
            OpReply::Txn(inner) => {
                assert_eq!(inner.revision(), 0, "nested transactions have no revision");
                Op::Txn(inner.succeeded(), read_ops(&inner))
            }
        })
        .collect()
}

#[test]
fn every_random_transaction_reply_is_read_as_it_was_written() {
    let mut prng = prng("transaction replies");
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..scaled(5_000) {
        let ops = ops(&mut prng, &pool, 3);
        let (revision, succeeded) = (number(&mut prng), flag(&mut prng));
        let mut out = Vec::new();
        let mut txn = writer.txn(&mut out, ID, revision, succeeded, ops.len());
        write_ops(&mut txn, &ops);
        txn.finish().unwrap();
        let (header, body) = open(&out);
        flatbuffers::root::<schema::TxnReply<'_>>(body).unwrap();
        let Reply::Txn(view) = Reply::verify(&header, body).unwrap() else { panic!("no Txn") };
        assert_eq!((view.revision(), view.succeeded()), (revision, succeeded));
        assert_eq!(read_ops(&view), ops);
    }
}

#[test]
fn every_random_range_is_read_as_it_was_written_and_the_library_reads_the_same() {
    let mut prng = prng("range replies");
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..scaled(5_000) {
        let kvs: Vec<_> = members(&mut prng, &pool);
        let summary = summary(&mut prng);
        let mut out = Vec::new();
        let mut piece = writer.range(&mut out, ID);
        for member in &kvs {
            assert_eq!(piece.push(member), ControlFlow::Continue(()));
        }
        assert_eq!(piece.count(), kvs.len());
        piece.finish(summary);
        let (header, body) = open(&out);
        assert_eq!((header.kind, header.request), (Kind::RangeReply, ID));
        let Reply::Range(reply) = Reply::verify(&header, body).unwrap() else { panic!("no Range") };
        assert_eq!((reply.revision, reply.count), (summary.revision, summary.count));
        assert_eq!(reply.more, summary.more);
        assert_eq!(reply.kvs.len(), kvs.len());
        assert_eq!(reply.kvs.collect::<Vec<_>>(), kvs);

        let table = flatbuffers::root::<schema::RangeReply<'_>>(body).unwrap();
        assert_eq!((table.revision(), table.count()), (summary.revision, summary.count));
        let columns = table.kvs().unwrap();
        let mut data = columns.data().bytes();
        for (entry, member) in columns.entries().iter().zip(&kvs) {
            let (key, rest) = data.split_at(usize::try_from(entry.key_size()).unwrap());
            let (value, rest) = rest.split_at(usize::try_from(entry.value_size()).unwrap());
            data = rest;
            assert_eq!((key, value), (member.key, member.value));
            assert_eq!(entry.create_revision(), member.create_revision);
            assert_eq!(entry.mod_revision(), member.mod_revision);
            assert_eq!((entry.version(), entry.lease()), (member.version, member.lease));
        }
        assert!(data.is_empty());
    }
}

#[test]
fn small_replies_are_read_as_they_were_written() {
    let mut prng = prng("small replies");
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..scaled(2_000) {
        let mut out = Vec::new();
        let revision = number(&mut prng);
        let previous = flag(&mut prng).then(|| member(&mut prng, &pool));
        writer.put(&mut out, ID, revision, previous);
        let (header, body) = open(&out);
        flatbuffers::root::<schema::PutReply<'_>>(body).unwrap();
        let Ok(Reply::Put(reply)) = Reply::verify(&header, body) else { panic!("no Put") };
        assert_eq!((reply.revision, reply.previous), (revision, previous));

        out.clear();
        writer.get(&mut out, ID, revision, previous);
        let (header, body) = open(&out);
        flatbuffers::root::<schema::RangeReply<'_>>(body).unwrap();
        let Ok(Reply::Range(reply)) = Reply::verify(&header, body) else { panic!("no Range") };
        assert_eq!((reply.revision, reply.more), (revision, false));
        assert_eq!(reply.count, i64::from(previous.is_some()));
        assert_eq!(reply.kvs.collect::<Vec<_>>(), previous.into_iter().collect::<Vec<_>>());

        out.clear();
        let kvs = members(&mut prng, &pool);
        writer.delete_range(&mut out, ID, revision, 5, kvs.iter().copied()).unwrap();
        let (header, body) = open(&out);
        flatbuffers::root::<schema::DeleteRangeReply<'_>>(body).unwrap();
        let Ok(Reply::DeleteRange(reply)) = Reply::verify(&header, body) else { panic!("none") };
        assert_eq!((reply.revision, reply.deleted), (revision, 5));
        assert_eq!(reply.previous.collect::<Vec<_>>(), kvs);

        out.clear();
        writer.compact(&mut out, ID, revision);
        let (header, body) = open(&out);
        let Ok(Reply::Compact(reply)) = Reply::verify(&header, body) else { panic!("none") };
        assert_eq!(reply.revision, revision);
    }
    let mut out = Vec::new();
    writer.ping(&mut out, ID);
    let (header, body) = open(&out);
    assert!(matches!(Reply::verify(&header, body), Ok(Reply::Ping)));
}

/// The layout of a put's reply is written by hand for speed; the library's builder says the same.
#[test]
fn a_put_reply_means_what_the_builder_would_have_written() {
    let mut out = Vec::new();
    ReplyWriter::new().put(&mut out, ID, 42, None);
    let (_, body) = open(&out);
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let args = schema::PutReplyArgs { revision: 42, previous: None, lease: 0 };
    let table = schema::PutReply::create(&mut builder, &args);
    builder.finish_minimal(table);
    let built = flatbuffers::root::<schema::PutReply<'_>>(builder.finished_data()).unwrap();
    let written = flatbuffers::root::<schema::PutReply<'_>>(body).unwrap();
    assert_eq!(format!("{built:?}"), format!("{written:?}"));
    assert_eq!(builder.finished_data().len(), body.len(), "not a byte more than the builder's");
}

#[test]
fn status_hello_and_refusals_are_read_as_they_were_written() {
    let mut writer = ReplyWriter::new();
    let hello = HelloReply {
        version: 1,
        cluster: u64::MAX,
        member: NodeId::new(3),
        requests_max: 4,
        bytes_max: 5,
        key_size_max: 6,
        value_size_max: 7,
        request_body_size_max: 8,
        reply_body_size_max: 9,
        leader: LeaderHint { member: NodeId::new(10), address: "leader:2379" },
    };
    let mut out = Vec::new();
    writer.hello(&mut out, ID, &hello);
    let (header, body) = open(&out);
    let Ok(Reply::Hello(reply)) = Reply::verify(&header, body) else { panic!("no Hello") };
    assert_eq!(reply, hello);

    let status = StatusReply {
        server_version: "0.1.0",
        cluster: 1,
        member: NodeId::new(2),
        leader: NodeId::new(3),
        term: 4,
        last_index: 5,
        committed_index: 6,
        applied_index: 7,
        revision: 8,
        compacted_revision: -1,
        file_size: 10,
        file_size_in_use: 11,
        log_size: 12,
        quota_size: 13,
        is_learner: true,
        no_space: false,
        corrupt: true,
        member_name: "node-2",
        role: RaftRole::Candidate,
        errors: Texts::Given(&["no space", "", "the clock is far behind"]),
        clients: 14,
        alarms: Alarms::Given(&[Alarm { kind: AlarmKind::Corrupt, member: NodeId::new(7) }]),
    };
    out.clear();
    writer.status(&mut out, ID, &status);
    let (header, body) = open(&out);
    let Ok(Reply::Status(reply)) = Reply::verify(&header, body) else { panic!("no Status") };
    assert_eq!(reply, status);
    assert_eq!(reply.errors.len(), 3);

    for reason in Status::ALL.iter().filter(|status| **status != Status::Ok) {
        let refused = Refused {
            retry_after_ms: 250,
            compacted_revision: 17,
            current_revision: 23,
            ..Refused::new(*reason)
                .with_message("why")
                .with_leader(LeaderHint { member: NodeId::new(2), address: "b:1" })
                .with_effect(Effect::Applied)
        };
        out.clear();
        writer.refused(&mut out, ID, &refused);
        let (header, body) = open(&out);
        assert_eq!((header.kind, header.status), (Kind::Refused, *reason));
        let Ok(Reply::Refused(reply)) = Reply::verify(&header, body) else { panic!("none") };
        assert_eq!(reply, refused);
    }
}

#[test]
fn replies_about_members_are_read_as_they_were_written() {
    let mut writer = ReplyWriter::new();
    let mut out = Vec::new();
    for members in [&b""[..], b"a list of members", &[7; 3_072]] {
        let list = MemberListReply { members, leader: NodeId::new(u64::MAX) };
        out.clear();
        writer.member_list(&mut out, ID, &list);
        let (header, body) = open(&out);
        flatbuffers::root::<schema::MemberListReply<'_>>(body).unwrap();
        let Ok(Reply::MemberList(reply)) = Reply::verify(&header, body) else { panic!("none") };
        assert_eq!(reply, list);

        let change = MemberChangeReply { member: NodeId::new(4), members, leader: NodeId::new(3) };
        out.clear();
        writer.member_change(&mut out, ID, &change);
        let (header, body) = open(&out);
        flatbuffers::root::<schema::MemberChangeReply<'_>>(body).unwrap();
        let Ok(Reply::MemberChange(reply)) = Reply::verify(&header, body) else { panic!("none") };
        assert_eq!(reply, change);
    }
    let alarms = [
        Alarm { kind: AlarmKind::NoSpace, member: NodeId::new(u64::MAX) },
        Alarm { kind: AlarmKind::Corrupt, member: NodeId::new(0) },
    ];
    for count in 0..=alarms.len() {
        let told = AlarmReply { revision: 9, alarms: Alarms::Given(&alarms[..count]) };
        out.clear();
        writer.alarm(&mut out, ID, &told);
        let (header, body) = open(&out);
        flatbuffers::root::<schema::AlarmReply<'_>>(body).unwrap();
        let Ok(Reply::Alarm(reply)) = Reply::verify(&header, body) else { panic!("none") };
        assert_eq!((reply, reply.alarms.len()), (told, count));
    }
    let moved = MoveLeaderReply { leader: NodeId::new(5) };
    out.clear();
    writer.move_leader(&mut out, ID, &moved);
    let (header, body) = open(&out);
    let Ok(Reply::MoveLeader(reply)) = Reply::verify(&header, body) else { panic!("none") };
    assert_eq!(reply, moved);
}

/// A member of the release before leaves the fields out that were added at the end.
#[test]
fn a_status_without_the_newer_fields_is_understood() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let args = schema::StatusReplyArgs { term: 4, corrupt: true, ..Default::default() };
    let table = schema::StatusReply::create(&mut builder, &args);
    builder.finish_minimal(table);
    let mut body = builder.finished_data().to_vec();
    body.resize(body.len().next_multiple_of(8), 0);
    let header = Header {
        version: 1,
        kind: Kind::StatusReply,
        flags: Flags::NONE,
        status: Status::Ok,
        body_size: u32::try_from(body.len()).unwrap(),
        request: ID,
        deadline_ms: 0,
    };
    let Ok(Reply::Status(reply)) = Reply::verify(&header, &body) else { panic!("no Status") };
    assert_eq!(reply, StatusReply { term: 4, corrupt: true, ..StatusReply::default() });
}

#[test]
fn limits_come_back_as_they_were_told_and_the_library_reads_the_same() {
    let names: Vec<String> = (0..60).map(|number| format!("limit {number}")).collect();
    let mut prng = prng("limits");
    for count in [0, 1, 60] {
        let limits: Vec<Limit<'_>> = names
            .iter()
            .take(count)
            .map(|name| Limit {
                name,
                limit: prng.next_u64(),
                used: prng.next_u64(),
                highest: prng.next_u64(),
                hits: prng.below(2),
                unit: [LimitUnit::Count, LimitUnit::Bytes][below(&mut prng, 2)],
            })
            .collect();
        let mut out = Vec::new();
        ReplyWriter::new().limits(&mut out, ID, &Limits::Given(&limits));
        let (header, body) = open(&out);
        let Ok(Reply::Limits(reply)) = Reply::verify(&header, body) else { panic!("no Limits") };
        assert_eq!(reply, Limits::Given(&limits));
        let table = flatbuffers::root::<schema::LimitsReply<'_>>(body).unwrap();
        assert_eq!(table.limits().map_or(0, |list| list.len()), count);
    }
}

#[test]
fn what_a_later_version_counts_in_is_not_guessed_at() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let args = schema::LimitArgs { unit: schema::LimitUnit(7), ..Default::default() };
    let limit = schema::Limit::create(&mut builder, &args);
    let limits = Some(builder.create_vector(&[limit]));
    let table = schema::LimitsReply::create(&mut builder, &schema::LimitsReplyArgs { limits });
    builder.finish_minimal(table);
    let body = builder.finished_data().to_vec();
    let mut out = Vec::new();
    ReplyWriter::new().limits(&mut out, ID, &Limits::default());
    let (header, _) = open(&out);
    let expected = DecodeError::UnknownNumber { field: "unit", number: 7 };
    assert_eq!(Reply::verify(&header, &body).err(), Some(expected));
}

/// A status is never too large, whatever there is to tell.
#[test]
fn a_status_tells_a_bounded_number_of_errors() {
    let text = "x".repeat(5_000);
    let errors = vec![text.as_str(); 1_000];
    let status = StatusReply { errors: Texts::Given(&errors), ..StatusReply::default() };
    let mut out = Vec::new();
    ReplyWriter::new().status(&mut out, ID, &status);
    let (header, body) = open(&out);
    let Ok(Reply::Status(reply)) = Reply::verify(&header, body) else { panic!("no Status") };
    assert_eq!(reply.errors.len(), 64);
    assert!(reply.errors.iter().all(|error| error == &text[..1_024]));
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let message = "ä".repeat(1_000);
    let mut out = Vec::new();
    let refused = Refused::new(Status::Internal).with_message(&message);
    ReplyWriter::new().refused(&mut out, ID, &refused);
    let (header, body) = open(&out);
    let Ok(Reply::Refused(reply)) = Reply::verify(&header, body) else { panic!("no refusal") };
    assert_eq!(reply.message, &message[..1_024]);
}

#[test]
fn a_range_comes_in_pieces_of_a_bounded_size() {
    let value = vec![1; 100_000];
    let kvs = KeyValue { key: b"k", value: &value, ..KeyValue::default() };
    let mut writer = ReplyWriter::new();
    let mut out = Vec::new();
    let mut left = 25_usize;
    let mut pieces = 0;
    while left > 0 {
        pieces += 1;
        let start = out.len();
        let mut piece = writer.range(&mut out, ID);
        let mut is_full = false;
        while left > 0 && !is_full {
            left -= 1;
            is_full = piece.push(&kvs).is_break();
        }
        if left > 0 {
            piece.finish_piece(9);
        } else {
            piece.finish(RangeSummary { revision: 9, count: 25, more: false });
        }
        let (header, body) = open(&out[start..]);
        assert!(body.len() < REPLY_PIECE_SIZE + value.len() + 1_000);
        assert_eq!(header.flags == Flags::MORE, left > 0);
        let Ok(Reply::Range(reply)) = Reply::verify(&header, body) else { panic!("no Range") };
        assert_eq!((reply.revision, reply.count), (9, if left > 0 { 0 } else { 25 }));
    }
    assert_eq!(pieces, 3);
}

/// The store may hold what was put under a greater limit than today's.
#[test]
fn a_piece_always_takes_one_more_greatest_key_and_value() {
    let (key, value) = (vec![1; KEY_SIZE_MAX], vec![2; VALUE_SIZE_MAX]);
    let small = vec![3; REPLY_PIECE_SIZE - 1_000];
    let mut out = Vec::new();
    let mut writer = ReplyWriter::new();
    let mut piece = writer.range(&mut out, ID);
    let first = KeyValue { key: b"a", value: &small, ..KeyValue::default() };
    assert!(piece.push(&first).is_continue());
    let second = KeyValue { key: &key, value: &value, ..KeyValue::default() };
    assert!(piece.push(&second).is_break());
    piece.finish_piece(9);
    let (_, body) = open(&out);
    assert!(body.len() <= REPLY_BODY_SIZE_MAX);
}

#[test]
fn a_writer_that_is_dropped_leaves_the_buffer_as_it_was() {
    let mut out = b"before".to_vec();
    let mut writer = ReplyWriter::new();
    let mut piece = writer.range(&mut out, ID);
    let _ = piece.push(&KeyValue { key: b"k", ..KeyValue::default() });
    drop(piece);
    assert_eq!(out, b"before");
    drop(writer.txn(&mut out, ID, 1, true, 3));
    assert_eq!(out, b"before");
}

#[test]
fn replies_that_are_too_large_leave_the_buffer_as_it_was() {
    let value = vec![0; 8 << 20];
    let kvs = KeyValue { key: b"k", value: &value, ..KeyValue::default() };
    let mut out = b"before".to_vec();
    let mut writer = ReplyWriter::new();
    let too_large = Err(EncodeError::TooLarge { size_max: REPLY_BODY_SIZE_MAX });
    assert_eq!(writer.delete_range(&mut out, ID, 1, 3, [kvs; 3]), too_large);
    assert_eq!(out, b"before");
    let mut txn = writer.txn(&mut out, ID, 1, true, 4);
    for _ in 0..3 {
        txn.range(RangeSummary::default(), [kvs]);
    }
    txn.txn(true, 2);
    txn.put(2, None);
    txn.delete_range(3, 1, []);
    assert_eq!(txn.finish(), too_large);
    assert_eq!(out, b"before");
}

#[test]
fn entries_that_do_not_add_up_are_refused() {
    for (key_size, value_size, size) in [(1, 1, 3), (2, 2, 3), (u32::MAX, u32::MAX, 3), (0, 0, 3)] {
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let data = builder.create_vector(&vec![0_u8; size]);
        let entry = schema::Entry::new(1, 2, 3, 4, key_size, value_size);
        let entries = builder.create_vector(&[entry]);
        let kvs = schema::KeyValues::create(
            &mut builder,
            &schema::KeyValuesArgs { data: Some(data), entries: Some(entries) },
        );
        let args = schema::RangeReplyArgs { kvs: Some(kvs), ..Default::default() };
        let table = schema::RangeReply::create(&mut builder, &args);
        builder.finish_minimal(table);
        let mut body = builder.finished_data().to_vec();
        body.resize(body.len().next_multiple_of(8), 0);
        let mut out = Vec::new();
        ReplyWriter::new().get(&mut out, ID, 1, None);
        let (header, _) = open(&out);
        assert_eq!(Reply::verify(&header, &body).unwrap_err(), DecodeError::SizesDisagree);
    }
}

#[test]
fn mutated_replies_never_panic_and_are_accepted_only_where_the_library_accepts_them() {
    let mut prng = prng("mutated replies");
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    let options =
        flatbuffers::VerifierOptions { ignore_missing_null_terminator: true, ..Default::default() };
    let mut accepted = 0_u64;
    for round in 0..scaled(40_000) {
        let mut out = Vec::new();
        match round % 4 {
            0 => writer.get(&mut out, ID, 4, Some(member(&mut prng, &pool))),
            1 => {
                let kvs = members(&mut prng, &pool);
                writer.delete_range(&mut out, ID, 4, 2, kvs.iter().copied()).unwrap();
            }
            2 => {
                let ops = ops(&mut prng, &pool, 1);
                let mut txn = writer.txn(&mut out, ID, 4, true, ops.len());
                write_ops(&mut txn, &ops);
                txn.finish().unwrap();
            }
            _ => writer.refused(&mut out, ID, &Refused::new(Status::Compacted)),
        }
        let (header, body) = open(&out);
        let mut body = body.to_vec();
        mutate(&mut prng, &mut body);
        let library = match Reply::verify(&header, &body) {
            Err(_) => continue,
            Ok(Reply::Range(reply)) => {
                let _ = reply.kvs.count();
                flatbuffers::root_with_opts::<schema::RangeReply<'_>>(&options, &body).err()
            }
            Ok(Reply::DeleteRange(reply)) => {
                let _ = reply.previous.count();
                flatbuffers::root_with_opts::<schema::DeleteRangeReply<'_>>(&options, &body).err()
            }
            Ok(Reply::Txn(view)) => {
                let _ = read_ops_loosely(&view);
                flatbuffers::root_with_opts::<schema::TxnReply<'_>>(&options, &body).err()
            }
            Ok(_) => None,
        };
        assert_eq!(library, None);
        accepted += 1;
    }
    assert!(accepted > 100, "only {accepted} mutations were accepted: the test tests nothing");
}

/// Goes through all of a reply.
fn read_ops_loosely(view: &TxnReplyView<'_>) -> usize {
    view.responses()
        .map(|response| match response {
            OpReply::Put(reply) => usize::from(reply.previous.is_some()),
            OpReply::Range(reply) => reply.kvs.count(),
            OpReply::DeleteRange(reply) => reply.previous.count(),
            OpReply::Txn(inner) => read_ops_loosely(&inner),
        })
        .sum()
}

fn change<'p>(prng: &mut Prng, pool: &'p [u8]) -> WatchChange<'p> {
    let kv = member(prng, pool);
    WatchChange {
        kind: ChangeKind::try_from(small(prng, 2)).unwrap(),
        cause: Cause::try_from(small(prng, 3)).unwrap(),
        sub: u32::from(small(prng, 200)),
        kv,
        previous: flag(prng).then(|| KeyValue { key: kv.key, ..member(prng, pool) }),
    }
}

#[test]
fn what_a_watch_is_told_is_read_as_written_by_ours_and_by_the_library() {
    let mut prng = prng("watch replies");
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..scaled(2_000) {
        let changes: Vec<_> = (0..prng.below(4)).map(|_| change(&mut prng, &pool)).collect();
        let step = WatchStep::try_from(small(&mut prng, 3)).unwrap();
        let (revision, fragment) = (number(&mut prng), flag(&mut prng));
        let newest = if flag(&mut prng) { number(&mut prng).max(0) } else { 0 };
        let mut out = Vec::new();
        let mut watch = writer.watch_read(&mut out, ID, newest);
        changes.iter().for_each(|change| watch.push(change));
        watch.finish(step, revision, fragment).unwrap();
        let other = RequestId::new(prng.next_u64());
        Header::readdress(&mut out, other);
        let (header, body) = open(&out);
        assert_eq!(header.request, other);
        assert!(header.flags.has_more());
        let Reply::Watch(read) = Reply::verify(&header, body).unwrap() else { panic!() };
        assert_eq!((read.step, read.revision, read.fragment), (step, revision, fragment));
        assert_eq!(read.newest, newest);
        assert_eq!(read.changes.collect::<Vec<_>>(), changes);
        let table = flatbuffers::root::<schema::WatchReply<'_>>(body).unwrap();
        assert_eq!(table.changes().map_or(0, |list| list.len()), changes.len());
        assert_eq!(table.newest(), newest);
        let olds = changes.iter().filter(|change| change.previous.is_some()).count();
        assert_eq!(table.previous().map_or(0, |list| list.len()), olds);
        // Whatever happens to the bytes, reading ends in an error or in changes that can be read.
        let mut bad = body.to_vec();
        mutate(&mut prng, &mut bad);
        if let Ok(Reply::Watch(WatchReply { changes, .. })) = Reply::verify(&header, &bad) {
            let _ = changes.count();
        }
    }
}

#[test]
fn answers_about_leases_are_read_as_written() {
    let mut prng = prng("lease replies");
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..scaled(500) {
        let numbers: Vec<i64> = (0..prng.below(5)).map(|_| number(&mut prng)).collect();
        let keys: Vec<&[u8]> = (0..prng.below(5)).map(|_| slice(&mut prng, &pool)).collect();
        let (revision, more) = (number(&mut prng), flag(&mut prng));
        let mut check = |write: &mut dyn FnMut(&mut ReplyWriter, &mut Vec<u8>),
                         same: &dyn Fn(Reply<'_>) -> bool| {
            let mut out = Vec::new();
            write(&mut writer, &mut out);
            let (header, body) = open(&out);
            let read = Reply::verify(&header, body);
            assert!(read.is_ok_and(same), "{header:?}");
            let mut bad = body.to_vec();
            mutate(&mut prng, &mut bad);
            if let Ok(Reply::LeaseTimeToLive(reply)) = Reply::verify(&header, &bad) {
                let _ = reply.keys.iter().count();
            }
        };
        let grant = LeaseGrantReply { revision, lease: 7, ttl_ms: 9 };
        check(
            &mut |writer, out| writer.lease_grant(out, ID, &grant),
            &|reply| matches!(reply, Reply::LeaseGrant(read) if read == grant),
        );
        let revoke = LeaseRevokeReply { revision, deleted: 4 };
        check(
            &mut |writer, out| writer.lease_revoke(out, ID, &revoke),
            &|reply| matches!(reply, Reply::LeaseRevoke(read) if read == revoke),
        );
        let keep = LeaseKeepAliveReply { revision, ttls_ms: Numbers::Given(&numbers) };
        check(
            &mut |writer, out| writer.lease_keep_alive(out, ID, &keep),
            &|reply| matches!(reply, Reply::LeaseKeepAlive(read) if read == keep),
        );
        let time = LeaseTimeToLiveReply {
            revision,
            granted_ms: 9,
            left_ms: 8,
            key_count: 7,
            more,
            keys: Keys::Given(&keys),
        };
        check(
            &mut |writer, out| writer.lease_time_to_live(out, ID, &time),
            &|reply| matches!(reply, Reply::LeaseTimeToLive(read) if read == time),
        );
        let list = LeaseListReply { revision, more, leases: Numbers::Given(&numbers) };
        check(
            &mut |writer, out| writer.lease_list(out, ID, &list),
            &|reply| matches!(reply, Reply::LeaseList(read) if read == list),
        );
        check(&mut |writer, out| writer.put_with_lease(out, ID, revision, None, 5), &|reply| {
            let put = PutReply { revision, previous: None, lease: 5 };
            matches!(reply, Reply::Put(read) if read == put)
        });
    }
}
